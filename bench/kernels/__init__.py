"""How fast each family of kernels is, in each direction, size and precision; run by pytest."""
