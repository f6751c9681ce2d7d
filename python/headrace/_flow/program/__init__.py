"""The base of transforms and flows: parameters, a compiled program, and calls of it."""
