"""Label efficiency of methods, and the choice of blocks and timestep: many runs, one report."""
