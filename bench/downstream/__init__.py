"""Whole runs of samplers and of simulation-based inference: `python -m bench.downstream`."""
