"""Benchmarks, each a command: `python -m benchmarks.loss`."""
