"""Calls and training loops inside PyTorch and JAX: `python -m bench.frameworks`."""
