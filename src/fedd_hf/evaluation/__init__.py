"""Metrics overall and by skin tone, with intervals: from the predictions table to the report."""
