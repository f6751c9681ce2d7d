"""The speed of densities and samples of sequences beside PyTorch and a loop by hand; see ``bench/README.md``."""
