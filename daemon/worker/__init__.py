"""The worker: one process that holds one model."""
