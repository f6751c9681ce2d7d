"""How fast are densities and samples of sequences beside PyTorch and a loop by hand? See ``bench/README.md``."""
