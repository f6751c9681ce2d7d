"""normflows: masked networks of equal blocks, and affine couplings with a multilayer perceptron."""

from __future__ import annotations

from typing import Any

from bench.peers.adapter import Model, UnsupportedError, equal_width
from bench.peers.adapters import torch_models
from bench.workloads import BINS, BOUND, COUPLINGS, VECTORS, Workload

DISTRIBUTIONS = ("normflows", "torch")
stopwatch = torch_models.stopwatch


def setup(threads: int, device: str) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads, device)
    import normflows  # noqa: F401


def build(workload: Workload, device: str) -> Model:
    """Transforms run from latent to data.

    The library's masked transforms are parallel from latent to data, which makes an IAF; `Reverse` makes a MAF from it.
    Splines are the functions under the library's wrappers, because the wrappers support only residual networks;
    `Reverse` gives the density the direction that needs no root, as the wrappers do.
    """
    import normflows as nf

    features = workload.features
    if workload.family in VECTORS:
        kind = {"planar": nf.flows.Planar, "radial": nf.flows.Radial}[workload.family]
        return torch_models.vector_model(device, [kind((features,)) for _ in range(workload.transforms)])
    chain = []
    for i in range(workload.transforms):
        if workload.family == "nsf_coupling":
            chain.append(nf.flows.Reverse(_spline_coupling(workload, even=i % 2 == 0)))
            continue
        if workload.family == "realnvp":
            if features % 2:
                raise UnsupportedError("couplings need an even number of features")
            # The outputs of the network are shifts and log-scales of the second half, interleaved.
            network = nf.nets.MLP([features // 2, *workload.hidden, features], init_zeros=False)
            chain.append(nf.flows.AffineCouplingBlock(network))
        else:
            masked = _masked(workload)
            chain.append(masked if workload.family == "iaf" else nf.flows.Reverse(masked))
        chain.append(nf.flows.Permute(features, mode="swap"))
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), chain)
    passes = 1 if workload.family in COUPLINGS else features
    model.to(torch_models.place(device))
    return torch_models.model(workload, device, model, model.log_prob, lambda rows: model.sample(rows)[0], passes)


def _masked(workload: Workload) -> Any:
    """A masked transform whose network is made of plain blocks."""
    import normflows as nf
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive

    sizes = {
        "features": workload.features,
        "hidden_features": equal_width(workload.hidden),
        "num_blocks": len(workload.hidden) - (0 if workload.family == "maf_residual" else 1),
        "use_residual_blocks": workload.family == "maf_residual",
    }
    if workload.family != "nsf":
        return nf.flows.MaskedAffineAutoregressive(**sizes)
    return MaskedPiecewiseRationalQuadraticAutoregressive(
        **sizes, num_bins=BINS, tails="linear", tail_bound=BOUND, init_identity=False
    )


def _spline_coupling(workload: Workload, even: bool) -> Any:
    """A spline coupling with a plain network, which leaves the passive half as it is."""
    import normflows as nf
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
    from normflows.utils.masks import create_alternating_binary_mask

    class Conditioner(nf.nets.MLP):
        """A perceptron that accepts, and ignores, the context that couplings always pass.

        Raw widths and heights are divided by the root of `hidden_features`.
        """

        hidden_features = workload.hidden[-1]

        def forward(self, x, context=None):
            return super().forward(x)

    return PiecewiseRationalQuadraticCoupling(
        create_alternating_binary_mask(workload.features, even=even),
        lambda inputs, outputs: Conditioner([inputs, *workload.hidden, outputs], init_zeros=False),
        num_bins=BINS,
        tails="linear",
        tail_bound=BOUND,
    )
