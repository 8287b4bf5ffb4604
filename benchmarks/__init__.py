"""Measurements: ratios side by side in one run, medians, never timed tests."""
