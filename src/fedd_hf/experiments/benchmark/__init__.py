"""This package against the original way, measured in one run on one machine."""
