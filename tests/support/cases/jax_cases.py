"""Flows and arrays for the tests of headrace.jax, with JAX's 64-bit values. JAX is imported only where a test runs."""

import numpy as np
import pytest

import headrace as hr

# Differences are taken in float64: with steps of 1e-6 their errors are some 1e-9, and tanh has no kinks.
DIFFERENCES = {"order": 1, "modes": ["rev"], "eps": 1e-6, "atol": 1e-5, "rtol": 1e-5}
SAME = {"rtol": 1e-12, "atol": 1e-12}  # for float64 results whose roundings depend on the blocks of rows


@pytest.fixture
def wide():
    """Give JAX 64-bit values during one test."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def made(family="MAF", context=2, features=3, dtype="float64", **settings):
    """A small flow with random parameters."""
    flow = getattr(hr, family)(features, context, 2, (8, 8), activation="tanh", dtype=dtype, **settings)
    rng = np.random.default_rng(3)
    flow.parameters = 0.3 * rng.standard_normal(flow.parameters.size).astype(dtype)
    return flow


FLOWS = {
    "MAF": lambda: made(),
    "NSF": lambda: made("NSF"),
    "RealNVP": lambda: made("RealNVP"),
    "IAF": lambda: made("IAF"),
    "logistic": lambda: made(base=hr.Logistic(3)),
    "normal": lambda: made(base=hr.Normal(3, [1.0, 2.0, 3.0], 0.5)),
    "no context": lambda: made(context=0),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    """A flow of FLOWS, which has each family, base and kind of context."""
    return FLOWS[request.param]()


def arrays(flow, rows=5, seed=0):
    """The parameters without padding, rows, and the context or None, as arrays of JAX."""
    from jax import numpy as jnp

    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.standard_normal((rows, flow.features)), flow.dtype)
    context = jnp.asarray(rng.standard_normal((rows, flow.context)), flow.dtype) if flow.context else None
    return jnp.asarray(flow.parameters), x, context


def numpy(*values):
    return [None if v is None else np.asarray(v) for v in values]
