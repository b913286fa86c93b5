"""Checkpoints of other code bases, translated to diffusers."""
