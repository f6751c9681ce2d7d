"""Everything that a CUDA card is needed for: `python -m bench.gpu`."""
