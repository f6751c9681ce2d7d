"""Parameters and a compiled program, and calls of it: the base of transforms and flows."""
