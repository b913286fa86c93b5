"""FEDD."""
