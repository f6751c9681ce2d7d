"""Density estimators of sbi, each a flow of nflows or zuko with an embedding net."""

from __future__ import annotations

from typing import Any

from headrace._flow.flow import Flow
from headrace.convert import _nflows, _zuko
from headrace.convert._embedding import Outside
from headrace.convert._parts import Place, class_of
from headrace.convert._torch import finished, opened, tensors_of


def estimator_of(model: Any) -> Any:
    """The density estimator of a posterior; any other model is returned unchanged."""
    return getattr(model, "posterior_estimator", model)


def from_sbi(model: Any, *, embedding: str = "inside", verify: bool = True) -> Flow:
    """A trained estimator of sbi as a `headrace.Flow` with the same density, in the same dtype.

    Models may be `maf`, `maf_rqs`, `nsf`, `zuko_maf`, `zuko_nsf`, `zuko_nice` and zuko's unconditional estimators, with
    z-scoring of parameters and data. The flow of a posterior has the density of the network alone: the truncation to
    the prior, and the correction of the density for the truncation, need the prior; see `headrace.accelerate`.

    Args:
        model: A density estimator of sbi made by nflows or zuko, or a `DirectPosterior`.
        embedding: "inside" if the flow's context is the data that sbi takes, so that the embedding net may only be
            z-scoring; "outside" if the flow's context is the output of `model.embedding_net`, which the caller applies.
        verify: Whether to compare log densities of some rows with the model's.

    Raises:
        TypeError: `model` is not an estimator of sbi, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its class and path.
        ValueError: an embedding net cannot be inside; log densities differ by more than rounding; or a layer is in
            training mode and computes other values in evaluation mode (batch norm, dropout, an act norm that is not
            initialised).
    """
    place = Place("model" if estimator_of(model) is model else "model.posterior_estimator", "to_latent")
    model = estimator_of(model)
    kind = class_of(model)[1]
    if kind not in ("NFlowsFlow", "ZukoFlow", "ZukoUnconditionalFlow"):
        got = type(model).__name__
        raise TypeError(f"{place.path}: expected an NFlowsFlow, ZukoFlow or ZukoUnconditionalFlow of sbi, got {got}")
    copied = opened(model)
    net = getattr(copied, "embedding_net", None)
    outside = Outside(net, embedding, place.at("embedding_net"))
    if len(model.input_shape) != 1:
        raise place.differs("input_shape", "one dimension", tuple(model.input_shape))
    if embedding == "inside" and net is not None and len(model.condition_shape) != 1:
        raise place.differs("condition_shape", "one dimension", tuple(model.condition_shape))
    tensors, inner = tensors_of(model.net), place.at("net")
    if kind == "NFlowsFlow":
        density = _nflows.density_of(copied.net, outside) if verify else None
        return finished(place, tensors, lambda: _nflows.flow_of(copied.net, inner, outside), density)

    def make() -> Flow:
        flow = _zuko.flow_of(copied.net, inner)
        scale = outside.standardize([flow.context])
        return flow if scale is None else Flow(flow.transforms, flow.base, standardize_context=scale)

    def log_prob(x: Any, context: Any) -> Any:
        if context is not None and not outside.stays and net is not None:
            context = net(context)
        return copied.net(context).log_prob(x)

    return finished(place, tensors, make, log_prob if verify else None)
