"""zuko: lazy flows on torch; eager, or with `log_prob` compiled."""

from __future__ import annotations

from bench.peers import torch_models
from bench.peers.adapter import Model, UnsupportedError
from bench.workloads import Workload

DISTRIBUTIONS = ("zuko", "torch")


def setup(threads: int) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads)
    import zuko  # noqa: F401


def build(workload: Workload, compiled: bool = False) -> Model:
    """MAF and RealNVP as the library gives them; IAF is the MAF with its transform inverted.

    The distribution is made once: it holds the parameters by reference and would be the same at every call.
    """
    import zuko

    options = {"features": workload.features, "transforms": workload.transforms, "hidden_features": workload.hidden}
    if workload.family == "realnvp":
        flow = zuko.flows.RealNVP(**options)
    else:
        flow = zuko.flows.MAF(**options)
        if workload.family == "iaf":
            flow = zuko.lazy.Flow(zuko.lazy.LazyInverse(flow.transform), flow.base)
    passes = 1 if workload.family == "realnvp" else workload.features
    if not compiled:
        distribution = flow()
        return torch_models.inference_model(
            flow, distribution.log_prob, lambda rows: distribution.sample((rows,)), passes
        )
    if workload.verb != "log_prob" or workload.sequential:
        raise UnsupportedError("only parallel log_prob is compiled")
    import torch

    torch._dynamo.reset()  # after eight compilations of one function torch silently runs it eagerly
    log_prob = torch.compile(lambda x: flow().log_prob(x), dynamic=False)
    return torch_models.inference_model(flow, log_prob, lambda rows: flow().sample((rows,)), passes)
