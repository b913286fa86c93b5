"""Training of the heads on features of the frozen backbone."""
