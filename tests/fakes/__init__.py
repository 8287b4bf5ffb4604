"""Fakes that pass the contract suites of what they stand for."""
