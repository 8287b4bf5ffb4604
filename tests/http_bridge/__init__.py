"""Tests of the HTTP bridge."""
