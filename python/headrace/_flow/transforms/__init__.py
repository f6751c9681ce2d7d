"""Transforms: invertible functions of rows with a log-determinant, one file for each kind."""
