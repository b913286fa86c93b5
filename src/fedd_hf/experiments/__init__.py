"""Many runs, one report."""
