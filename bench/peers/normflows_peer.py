"""normflows: masked networks of equal blocks, and affine couplings with a multilayer perceptron."""

from __future__ import annotations

from bench.peers import torch_models
from bench.peers.adapter import Model, UnsupportedError, equal_width
from bench.workloads import Workload

DISTRIBUTIONS = ("normflows", "torch")


def setup(threads: int) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads)
    import normflows  # noqa: F401


def build(workload: Workload) -> Model:
    """Transforms run from latent to data.

    The library's masked transform is parallel from latent to data, which makes an IAF; `Reverse` makes the MAF of it.
    """
    import normflows as nf

    features = workload.features
    chain = []
    for _ in range(workload.transforms):
        if workload.family == "realnvp":
            if features % 2:
                raise UnsupportedError("couplings need an even number of features")
            # The network's outputs are shifts and log-scales of the second half, interleaved.
            network = nf.nets.MLP([features // 2, *workload.hidden, features], init_zeros=False)
            chain.append(nf.flows.AffineCouplingBlock(network))
        else:
            masked = nf.flows.MaskedAffineAutoregressive(
                features, equal_width(workload.hidden), num_blocks=len(workload.hidden) - 1, use_residual_blocks=False
            )
            chain.append(nf.flows.Reverse(masked) if workload.family == "maf" else masked)
        chain.append(nf.flows.Permute(features, mode="swap"))
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), chain)
    passes = 1 if workload.family == "realnvp" else features
    return torch_models.inference_model(model, model.log_prob, lambda rows: model.sample(rows)[0], passes)
