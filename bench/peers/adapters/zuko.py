"""zuko: lazy flows on torch, eager or with compiled `log_prob`; under autocast to bfloat16, steps are compiled, too."""

from __future__ import annotations

from bench.peers.adapter import Model, UnsupportedError
from bench.peers.adapters import torch_models
from bench.workloads import BINS, COUPLINGS, VECTORS, Workload

DISTRIBUTIONS = ("zuko", "torch")
stopwatch = torch_models.stopwatch


def setup(threads: int, device: str) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads, device)
    import zuko  # noqa: F401


def build(workload: Workload, device: str, compiled: bool = False, autocast: bool = False) -> Model:
    """The library's MAF, RealNVP and NSF; IAF is the MAF with its transform inverted.

    A spline flow of couplings is the RealNVP with the map of the NSF: it takes about half the time of
    ``NSF(passes=2)``, whose networks see and make all coordinates, under masks. The bound of the library's splines is
    always 5. The distribution is made once: it holds the parameters by reference and would be the same at every call.
    """
    import zuko

    if workload.family in VECTORS:
        raise UnsupportedError("no planar or radial transforms")
    flows = zuko.flows
    options = {"features": workload.features, "transforms": workload.transforms, "hidden_features": workload.hidden}
    if workload.family == "nsf_coupling":
        shapes = [(BINS,), (BINS,), (BINS - 1,)]
        flow = flows.NICE(**options, univariate=zuko.transforms.MonotonicRQSTransform, shapes=shapes)
    elif workload.family == "nsf":
        flow = flows.NSF(**options, bins=BINS)
    elif workload.family == "realnvp":
        flow = flows.RealNVP(**options)
    else:
        flow = flows.MAF(**options, residual=workload.family == "maf_residual")
        if workload.family == "iaf":
            flow = zuko.lazy.Flow(zuko.lazy.LazyInverse(flow.transform), flow.base)
    flow.to(torch_models.place(device))
    passes = 1 if workload.family in COUPLINGS else workload.features
    if not compiled:
        distribution = flow()
        return torch_models.model(
            workload, device, flow, distribution.log_prob, lambda rows: distribution.sample((rows,)), passes
        )
    verbs = ("log_prob", "train") if autocast else ("log_prob",)
    if workload.verb not in verbs or workload.sequential:
        raise UnsupportedError(f"only {' and '.join(verbs)}, in parallel, {'are' if autocast else 'is'} compiled")
    import torch

    torch._dynamo.reset()  # after eight compilations of one function torch runs it eagerly without a warning

    def density(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(torch_models.place(device), dtype=torch.bfloat16, enabled=autocast):
            return flow().log_prob(x).float()

    log_prob = torch.compile(density, dynamic=False)
    return torch_models.model(workload, device, flow, log_prob, lambda rows: flow().sample((rows,)), passes)
