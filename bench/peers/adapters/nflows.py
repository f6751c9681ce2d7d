"""nflows: masked networks of equal blocks, and couplings with a plain multilayer perceptron."""

from __future__ import annotations

from bench.peers.adapter import Model, UnsupportedError, equal_width
from bench.peers.adapters import torch_models
from bench.workloads import BINS, BOUND, COUPLINGS, VECTORS, Workload

DISTRIBUTIONS = ("nflows", "torch")
stopwatch = torch_models.stopwatch


def setup(threads: int, device: str) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads, device)
    import nflows.flows  # noqa: F401


def build(workload: Workload, device: str) -> Model:
    """Transforms run from data to latent; the library reverses the order before each masked transform."""
    if workload.family in VECTORS:
        raise UnsupportedError("no planar or radial transforms")
    from nflows import distributions, flows, transforms
    from nflows.nn import nets
    from nflows.utils import torchutils

    class Conditioner(nets.MLP):
        """A perceptron that accepts, and ignores, the context that couplings always pass.

        Spline couplings divide the raw widths and heights by the root of `hidden_features`.
        """

        hidden_features = workload.hidden[-1]

        def forward(self, x, context=None):
            return super().forward(x)

    def conditioner(inputs: int, outputs: int) -> Conditioner:
        return Conditioner([inputs], [outputs], list(workload.hidden))

    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}

    def coupling(i: int) -> transforms.Transform:
        mask = torchutils.create_alternating_binary_mask(workload.features, even=i % 2 == 0)
        if workload.family == "realnvp":
            return transforms.AffineCouplingTransform(mask, conditioner)
        return transforms.PiecewiseRationalQuadraticCouplingTransform(mask, conditioner, **spline)

    def masked() -> transforms.Transform:
        residual = workload.family == "maf_residual"  # a residual network has a first layer before its blocks
        sizes = {
            "features": workload.features,
            "hidden_features": equal_width(workload.hidden),
            "num_blocks": len(workload.hidden) - (0 if residual else 1),
            "use_residual_blocks": residual,
        }
        if workload.family == "nsf":
            return transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**sizes, **spline)
        made = transforms.MaskedAffineAutoregressiveTransform(**sizes)
        return transforms.InverseTransform(made) if workload.family == "iaf" else made

    chain = []
    for i in range(workload.transforms):
        if workload.family in COUPLINGS:
            chain.append(coupling(i))
        else:
            chain += [transforms.ReversePermutation(workload.features), masked()]
    flow = flows.Flow(transforms.CompositeTransform(chain), distributions.StandardNormal([workload.features]))
    passes = 1 if workload.family in COUPLINGS else workload.features
    flow.to(torch_models.place(device))
    return torch_models.model(workload, device, flow, flow.log_prob, flow.sample, passes)
