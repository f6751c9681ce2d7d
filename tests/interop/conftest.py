"""Fixtures of tests with JAX; other tests do not import it."""

from jax_cases import flow, wide

__all__ = ["flow", "wide"]
