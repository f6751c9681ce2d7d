"""nflows: masked networks of equal blocks, and couplings with a plain multilayer perceptron."""

from __future__ import annotations

from bench.peers import torch_models
from bench.peers.adapter import Model, equal_width
from bench.workloads import Workload

DISTRIBUTIONS = ("nflows", "torch")


def setup(threads: int) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads)
    import nflows.flows  # noqa: F401


def build(workload: Workload) -> Model:
    """Transforms run from data to latent; the library reverses the order before each masked transform."""
    from nflows import distributions, flows, transforms
    from nflows.nn import nets
    from nflows.utils import torchutils

    class Conditioner(nets.MLP):
        """A perceptron that accepts, and ignores, the context that couplings always pass."""

        def forward(self, x, context=None):
            return super().forward(x)

    def conditioner(inputs: int, outputs: int) -> Conditioner:
        return Conditioner([inputs], [outputs], list(workload.hidden))

    chain = []
    for i in range(workload.transforms):
        if workload.family == "realnvp":
            mask = torchutils.create_alternating_binary_mask(workload.features, even=i % 2 == 0)
            chain.append(transforms.AffineCouplingTransform(mask, conditioner))
            continue
        masked = transforms.MaskedAffineAutoregressiveTransform(
            workload.features,
            equal_width(workload.hidden),
            num_blocks=len(workload.hidden) - 1,
            use_residual_blocks=False,
        )
        chain.append(transforms.ReversePermutation(workload.features))
        chain.append(masked if workload.family == "maf" else transforms.InverseTransform(masked))
    flow = flows.Flow(transforms.CompositeTransform(chain), distributions.StandardNormal([workload.features]))
    passes = 1 if workload.family == "realnvp" else workload.features
    return torch_models.inference_model(flow, flow.log_prob, flow.sample, passes)
