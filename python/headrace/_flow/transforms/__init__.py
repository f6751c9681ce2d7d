"""Transforms: invertible vector functions with a log-determinant, one file a kind."""
