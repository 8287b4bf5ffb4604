"""Measurements: ratios side by side in one run, medians, never timed tests.

``python -m benchmarks`` runs them; docs and targets are about ratios, which survive the
machine, and every topic runs its sides in turn so that a machine that slows down slows all.
"""
