"""Models of nflows as flows of headrace, beside the originals: ``python -m bench.frameworks.loaded [--threads 2]``.

Run the program in an environment that has headrace, nflows and torch. Each model gets random weights, is converted by
``from_dense``, compared on 1000 rows, and timed in one process, by calls of each in turn. The models are the residual
MAF of nflows' README (two features, four units; and larger ones), and sbi's ``nsf``: spline couplings whose residual
networks are gated by a context, with a linear transform by triangular factors after each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

Floats = NDArray[np.float32]

BINS, BOUND, LEAST = 10, 3.0, 1e-3  # settings of sbi's splines


def numbers(tensor: Any) -> Floats:
    """A tensor as an array."""
    return np.asarray(tensor.detach().numpy(), np.float32)


def layers_of(network: Any) -> list[Any]:
    """The linear layers of a residual network, in order."""
    inner = [linear for block in network.blocks for linear in block.linear_layers]
    return [network.initial_layer, *inner, network.final_layer]


def masked(transform: Any) -> hr.transforms.Transform:
    """A masked affine transform of headrace with the residual network of a transform of nflows."""
    layers = layers_of(transform.autoregressive_net)
    weights, biases, masks = ([numbers(getattr(one, name)) for one in layers] for name in ("weight", "bias", "mask"))
    blocks = hr.Network.residual([len(biases[0])] * len(transform.autoregressive_net.blocks))
    return hr.transforms.MaskedAutoregressive.from_dense(
        weights,
        biases,
        masks,
        network=blocks,
        outputs=("scale", "shift"),
        scale="softplus",
        slope=1e-3,
        formula="to_latent",
    )


def spline_coupling(transform: Any, context: int) -> hr.transforms.Transform:
    """A spline coupling; the weights contain the division of raw widths and heights by the root of the number of
    units."""
    network = transform.transform_net
    layers, units = layers_of(network), network.hidden_features
    weights, biases = ([numbers(getattr(one, name)) for one in layers] for name in ("weight", "bias"))
    of_size = np.arange(len(biases[-1])) % (3 * BINS - 1) < 2 * BINS
    factor = np.where(of_size, 1.0 / np.sqrt(units), 1.0).astype(np.float32)
    weights[-1], biases[-1] = weights[-1] * factor[:, None], biases[-1] * factor
    joins = [block.context_layer for block in network.blocks]
    return hr.transforms.Coupling.from_dense(
        weights,
        biases,
        features=transform.features,
        passive=[int(i) for i in transform.identity_features],
        network=hr.Network.residual([units] * len(network.blocks), context="gate"),
        context_weights=[numbers(one.weight) for one in joins],
        context_biases=[numbers(one.bias) for one in joins],
        context=context,
        map="rq_spline_nflows",
        bins=BINS,
        bound=BOUND,
        min_bin=LEAST,
        slope=LEAST,
        formula="to_latent",
    )


def linear(transform: Any) -> hr.transforms.Transform:
    """The linear transform z = L U x + b."""
    matrix, shift = transform.weight().detach().numpy(), numbers(transform.bias)
    return hr.transforms.Inverse(hr.transforms.Linear.from_matrix(np.asarray(matrix, float), shift))


def maf(features: int, hidden: int, transforms: int = 5) -> tuple[Any, hr.Flow]:
    """The MAF of nflows' README, and headrace's with the same weights."""
    from nflows import distributions, flows
    from nflows import transforms as theirs

    chain: list[Any] = []
    for _ in range(transforms):
        chain.append(theirs.ReversePermutation(features))
        chain.append(theirs.MaskedAffineAutoregressiveTransform(features=features, hidden_features=hidden))
    flow = flows.Flow(theirs.CompositeTransform(chain), distributions.StandardNormal([features])).eval()
    reverse = hr.transforms.Permutation(range(features)[::-1])
    ours = [masked(t) if hasattr(t, "autoregressive_net") else reverse for t in chain]
    return flow, hr.Flow(ours[::-1])


def nsf(features: int, context: int, hidden: int = 50, transforms: int = 5) -> tuple[Any, hr.Flow]:
    """The spline flow of sbi, and headrace's with the same weights."""
    import torch
    from nflows import distributions, flows
    from nflows import transforms as theirs
    from nflows.nn import nets
    from nflows.utils import torchutils

    def network(inputs: int, outputs: int) -> Any:
        return nets.ResidualNet(inputs, outputs, hidden, context_features=context, num_blocks=2)

    chain: list[Any] = []
    for i in range(transforms):
        mask = torchutils.create_alternating_binary_mask(features, even=i % 2 == 0)
        chain.append(
            theirs.PiecewiseRationalQuadraticCouplingTransform(
                mask, network, num_bins=BINS, tails="linear", tail_bound=BOUND
            )
        )
        chain.append(theirs.LULinear(features, identity_init=False))
    flow = flows.Flow(theirs.CompositeTransform(chain), distributions.StandardNormal([features])).eval()
    with torch.no_grad():  # nflows makes the last layer of a block nearly zero
        for t in chain[::2]:
            for block in t.transform_net.blocks:
                block.linear_layers[1].weight.normal_(0.0, 0.1)
    ours = [spline_coupling(t, context) if hasattr(t, "transform_net") else linear(t) for t in chain]
    return flow, hr.Flow(ours[::-1])


def in_turn(theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int, seconds: float) -> tuple[float, float]:
    """The median seconds of a call of each function."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for k in ((0, 1), (1, 0))[i % 2]:
            call, calls, begin = (theirs, ours)[k], 0, time.perf_counter()
            while (spent := time.perf_counter() - begin) < seconds or not calls:
                call()
                calls += 1
            times[k].append(spent / calls)
    return statistics.median(times[0]), statistics.median(times[1])


def cases() -> Iterator[tuple[str, Any, hr.Flow, int, int]]:
    """The cases: for each its name, the library's model, headrace's, the columns of context, and the rows to draw."""
    for features, hidden in ((2, 4), (2, 50), (10, 64), (43, 256)):
        yield (f"MAF {features}, 5 x 2 blocks of {hidden}", *maf(features, hidden), 0, 1000)
    yield ("sbi's nsf 10, context 10", *nsf(10, 10), 10, 10_000)


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=hr.get_num_threads())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a block of calls")
    options = parser.parse_args()
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    hr.set_num_threads(options.threads)
    print(f"headrace {hr.__version__}, {options.threads} threads, set {hr.info()['isa']}")
    for name, flow, own, context, draws in cases():
        rows = 1000 if not context else draws
        x = np.random.default_rng(0).standard_normal((rows, own.features)).astype(np.float32)
        c = None if not context else np.ones((1, context), np.float32)
        tensors = torch.from_numpy(x), None if c is None else torch.ones(rows, context)
        one = None if c is None else torch.ones(1, context)
        with torch.no_grad():
            want, got = flow.log_prob(*tensors).numpy(), own.log_prob(x, c)
            error = float(np.abs(got - want).max() / np.abs(want).max())
            density = in_turn(
                lambda f=flow, t=tensors: f.log_prob(*t),  # type: ignore[misc]
                lambda o=own, x=x, c=c: o.log_prob(x, c),  # type: ignore[misc]
                options.rounds,
                options.seconds,
            )
            sampling = in_turn(
                lambda f=flow, n=draws, c=one: f.sample(n, c),  # type: ignore[misc]
                lambda o=own, n=draws, c=c: o.sample(n, None if c is None else c[0], seed=1),  # type: ignore[misc]
                max(2, options.rounds // 4),
                options.seconds,
            )
        for verb, (theirs, ours) in (("log_prob", density), ("sample", sampling)):
            count = rows if verb == "log_prob" else draws
            print(
                f"{name}: {verb} {count}: nflows {1e3 * theirs:.3g} ms, headrace {1e3 * ours:.3g} ms, "
                f"{theirs / ours:.1f} x (largest difference of a density {error:.0e})",
                flush=True,
            )


if __name__ == "__main__":
    main()
