"""Figures: report in, picture out."""
