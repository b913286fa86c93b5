"""The networks that FEDD is compared with: U-Nets, and frozen networks under its heads. Needs `fedd-hf[baselines]`."""
