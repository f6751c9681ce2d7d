"""Flows of glasflow, which are nflows' transforms, of its own copy or of nflows itself, under another face."""

from __future__ import annotations

from typing import Any

from headrace.convert._embedding import Outside
from headrace.convert._nflows import flow_of
from headrace.convert._parts import Place, dtype_of
from headrace.convert._torch import finished, opened, tensors_of
from headrace.flow import Flow

__all__ = ["from_glasflow"]


def from_glasflow(model: Any, *, verify: bool = True) -> Flow:
    """A trained flow of glasflow as a `headrace.Flow` with the same density, in the same dtype.

    RealNVP, CouplingNSF and the masked autoregressive flows, with what `from_nflows` takes; also its scales cut off at
    3 ("nflows_general", the default of RealNVP). Its "log" scales, uniform and resampled latent densities are not.

    Args:
        model: A `glasflow.flows.Flow`.
        verify: Whether to compare log densities of some rows with the model's.

    Raises:
        TypeError: no such flow, or parameters of several dtypes.
        NotImplementedError: a part that headrace does not have; its class and its place are named.
        ValueError: log densities that differ by more than rounding.
    """
    place = Place("model", "to_latent")
    copied = opened("model", model)
    if not (hasattr(copied, "_transform") and hasattr(copied, "_distribution")):
        raise TypeError(f"model: expected a flow of glasflow, got {type(model).__name__}")
    nothing = Outside(None, "inside", place)
    log_prob = copied.log_prob if verify else None
    return finished(place, dtype_of(place, tensors_of(model)), lambda: flow_of(copied, place, nothing), log_prob)
