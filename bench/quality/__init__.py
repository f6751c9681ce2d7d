"""Densities of whole fits beside known and published ones: `python -m bench.quality`."""
