"""Flows of glasflow, which wraps transforms of nflows or of a copy of nflows inside glasflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace._base import arguments as check
from headrace._flow.flow import Flow
from headrace.convert import _nflows_files
from headrace.convert._embedding import Outside
from headrace.convert._nflows import flow_of
from headrace.convert._parts import Place
from headrace.convert._state_dicts import finished_file, is_file, without_files
from headrace.convert._torch import finished, opened, tensors_of

# Settings that a state_dict does not record: the settings of nflows, and the formula of affine scales.
NOT_RECORDED = {
    **_nflows_files.NOT_RECORDED,
    "activation": "glasflow has ReLU by default: activation='relu'",
    "scale_activation": "glasflow has 'nflows_general' for RealNVP, and 'softplus' for its masked affine flow; give a "
    "function otherwise",
}
SCALES = ("softplus", "nflows", "nflows_general", "wide", "log1", "log2", "log3")


def from_glasflow(model: Any, *, verify: Any = True, **not_recorded: Any) -> Flow:
    """A trained flow of glasflow as a `headrace.Flow` with the same density, in the same dtype.

    Models may be RealNVP, CouplingNSF and masked autoregressive flows, with the networks that `from_nflows` converts,
    and also with scales that are cut off at 3 ("nflows_general", the default of RealNVP) or named "log1", "log2" and so
    on. A model with a resampled latent density does not convert.

    Args:
        model: A `glasflow.flows.Flow`, or its `state_dict`.
        verify: Whether to compare log densities of some rows with the model's. For a `state_dict`, ``(x, log_prob)`` or
            ``(x, log_prob, context)`` computed by glasflow, or False.
        **not_recorded: For a `state_dict`, settings that it does not record: `activation`, `bound` (tail_bound),
            `min_bin`, `slope` (min_derivative), `eps` (LULinear, SVDLinear), `batch_norm_eps`, and `scale_activation`,
            which is a function or a name: "nflows_general", "wide", "nflows", "log1", "log2", "log3", or "softplus"
            (None in glasflow).

    Raises:
        TypeError: `model` is not a flow of glasflow, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its class and path.
        ValueError: log densities differ by more than rounding; or a layer is in training mode and computes other values
            in evaluation mode (batch norm, dropout, an act norm that is not initialised).
    """
    place = Place("model", "to_latent")
    nothing = Outside(None, "inside", place)
    if is_file(model):
        if isinstance(named := not_recorded.get("scale_activation"), str):
            not_recorded["scale_activation"] = _scale(check.choice("scale_activation", named, SCALES))
        stand = _nflows_files.stand_of(model, not_recorded, place, NOT_RECORDED, "glasflow")
        return finished_file(place, model, verify, lambda: flow_of(stand, place, nothing))
    without_files(not_recorded)
    copied = opened(model, "a flow of glasflow", "_transform", "_distribution")
    log_prob = copied.log_prob if verify else None
    return finished(place, tensors_of(model), lambda: flow_of(copied, place, nothing), log_prob)


def _scale(name: str) -> Callable[[Any], Any]:
    """The function of a scale that has the name `name` in glasflow."""
    import torch
    from torch.nn import functional

    made: dict[str, Callable[[Any], Any]] = {
        "softplus": lambda a: functional.softplus(a) + 1e-3,
        "nflows": lambda a: torch.sigmoid(a + 2.0) + 1e-3,
        "nflows_general": lambda a: (functional.softplus(a) + 1e-3).clamp(0.0, 3.0),
    }
    if name.startswith("log"):
        factor = 2.0 * float(name[3:])
        return lambda a: torch.exp(factor * (torch.sigmoid(a) - 0.5))
    return made["nflows_general" if name == "wide" else name]
