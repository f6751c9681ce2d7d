"""Densities of whole fits, compared with known and published densities: `python -m bench.quality`."""
