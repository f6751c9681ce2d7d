"""Fixtures of the tests with JAX, which is imported only where one of these tests runs."""

from jax_cases import flow, wide

__all__ = ["flow", "wide"]
