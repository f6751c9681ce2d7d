"""All work that needs a CUDA card: `python -m bench.gpu`."""
