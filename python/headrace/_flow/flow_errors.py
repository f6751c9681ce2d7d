"""Errors of modules such as `headrace.torch` and `headrace.jax` for arguments that only resemble a flow."""

from __future__ import annotations

from typing import Any

from headrace._base import arguments as check
from headrace._flow.flow import Flow
from headrace._flow.transforms.transform import Transform


def no_flow(expected: str, value: Any) -> TypeError:
    """The error for an argument `flow` that is no flow, with advice if the argument resembles a flow."""
    hint = ""
    if getattr(value, "__name__", type(value).__name__) == "DualAscentFlow":
        hint = ", which is how a flow is made of rows; give what its fit(x) returns, an AscentFlow"
    elif isinstance(getattr(value, "flows", None), tuple):  # only an Ensemble has a tuple `flows`
        hint = (
            f" of {len(value)} flows; make a module of each, [FlowModule(flow) for flow in ensemble], whose "
            "log-densities are mixed by a logsumexp with the log of ensemble.weights"
        )
    elif isinstance(value, Transform):
        hint = "; a transform becomes a flow by headrace.Flow([transform])"
    elif hasattr(value, "flow_"):
        hint = "; give its fitted .flow_"
    elif isinstance(getattr(value, "flow", None), Flow):  # a result of headrace.auto; `flow` of a module is no Flow
        hint = "; give its .flow"
    return TypeError(f"flow: expected {expected}, got {check.kind_of(value)}{hint}")
