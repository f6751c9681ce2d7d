"""The base classes of transforms and flows: parameters, a compiled program, and the program's calls."""
