"""Densities of sequences: causal convolutions over time, flows of them, and streams."""
