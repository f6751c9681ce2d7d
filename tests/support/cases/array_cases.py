"""Every method and function of the library that takes arrays, with arrays for the arguments."""

import numpy as np
import pytest

import cases
import headrace as hr

FEATURES, CONTEXT, ROWS = 4, 2, 20
BOTH = ("inputs", "parameters", "context")


def made_flow(dtype, context=CONTEXT):
    return cases.randomise(hr.MAF(FEATURES, context, 2, (12, 12), dtype=dtype))


def made_transform(dtype):
    return cases.randomise(hr.transforms.MaskedAutoregressive(FEATURES, (12,), context=CONTEXT, dtype=dtype))


def arrays(dtype, parameters=0):
    """One NumPy array for each kind of argument, by name."""
    return {
        "x": cases.rows(ROWS, FEATURES, dtype),
        "context": cases.rows(ROWS, CONTEXT, dtype, "context"),
        "one context": cases.rng("one").standard_normal(CONTEXT).astype(dtype),
        "grad rows": cases.rng("grad rows").standard_normal(ROWS).astype(dtype),
        "grad x": cases.rows(ROWS, FEATURES, dtype, "grad"),
        "weights": np.linspace(0.1, 1.0, ROWS).astype(dtype),
        "parameters": (0.2 * cases.rng("parameters").standard_normal(parameters)).astype(dtype),
    }


# The calls of a flow that take and return arrays: name -> call(flow, arrays).
FLOW_CALLS = {
    "log_prob": lambda f, a: [f.log_prob(a["x"], a["context"])],
    "log_prob, one context": lambda f, a: [f.log_prob(a["x"], a["one context"])],
    "log_prob, parameters": lambda f, a: [f.log_prob(a["x"], a["context"], parameters=a["parameters"])],
    "to_latent": lambda f, a: f.to_latent(a["x"], a["context"]),
    "to_data": lambda f, a: f.to_data(a["x"], a["context"], parameters=a["parameters"]),
    "sample": lambda f, a: [f.sample(ROWS, a["context"], seed=3)],
    "sample_and_log_prob": lambda f, a: f.sample_and_log_prob(ROWS, a["one context"], seed=3),
    "log_prob_and_score": lambda f, a: f.log_prob_and_score(a["x"], a["context"]),
    "log_prob_vjp": lambda f, a: f.log_prob_vjp(a["x"], a["grad rows"], a["context"], wrt=BOTH),
    "log_prob_vjp, one context": lambda f, a: f.log_prob_vjp(a["x"], a["grad rows"], a["one context"], wrt=BOTH),
    "to_data_vjp": lambda f, a: f.to_data_vjp(a["x"], a["grad x"], a["grad rows"], a["context"], wrt=BOTH),
    "to_latent_vjp": lambda f, a: f.to_latent_vjp(a["x"], None, a["grad rows"], a["context"]),
    "nll_and_grad": lambda f, a: f.nll_and_grad(a["x"], a["context"], a["weights"])[1:],
}
TRANSFORM_CALLS = {
    "forward": lambda t, a: t.forward(a["x"], a["context"]),
    "inverse": lambda t, a: t.inverse(a["x"], a["one context"]),
    "forward_vjp": lambda t, a: t.forward_vjp(a["x"], a["grad x"], a["grad rows"], a["context"], wrt=BOTH),
    "inverse_vjp": lambda t, a: t.inverse_vjp(a["x"], a["grad x"], None, a["one context"], wrt=BOTH),
}
CALLS = [("flow", name) for name in FLOW_CALLS] + [("transform", name) for name in TRANSFORM_CALLS]
every_call = pytest.mark.parametrize(("kind", "name"), CALLS, ids=[" ".join(call) for call in CALLS])


def call_of(kind, name, dtype):
    """The named call, and the flow or transform that is its first argument."""
    holder = made_flow(dtype) if kind == "flow" else made_transform(dtype)
    call = (FLOW_CALLS if kind == "flow" else TRANSFORM_CALLS)[name]
    return call, holder
