"""The speed of each family of kernels, in each direction, size and precision; run by pytest."""
