"""Networks that are not a plain chain of layers: with sums, gates, and contexts."""

import numpy as np

import cases
import headrace as hr
import reference
from gradients import Subject
from headrace import Layer

# The hidden layers by name. Each layer has live units; `change` of `made` adds dead units.
NETWORKS = {
    "blocks before whose products stands the activation": hr.Network.residual((12, 12), "tanh").layers,
    "blocks with no activation outside": hr.Network.residual((12, 12), "silu", pre_activation=False).layers,
    "blocks of two widths": hr.Network.residual((9, 17), "relu").layers,
    "no activation at all": hr.Network.plain((8, 9), None).layers,
    "an activation for each layer": (Layer(8, "gelu"), Layer(9, "relu"), Layer(7, "leaky_relu"), Layer(8, None)),
    "a sum that is added far above": (Layer(10, "elu"), Layer(6, "tanh"), Layer(8, "relu"), Layer(10, "softplus", 0)),
    "values that are left out in training": (
        Layer(9, "silu", dropout=0.3),
        Layer(9, "relu", dropout=0.5),
        Layer(9, None, 0, dropout=0.1),
    ),
    "sums one across the other": (Layer(9, "silu"), Layer(9, "gelu"), Layer(9, "relu", 0), Layer(9, "tanh", 1)),
    "contexts that are added": (
        Layer(9, "relu", context="add", context_activation="tanh"),
        Layer(8, "silu", context="add"),
    ),
    "contexts that gate": (Layer(9, "tanh", context="gate"), Layer(8, "relu", context="gate")),
    "a gate that is no sigmoid": (Layer(9, "tanh", context="gate", context_activation="gelu"),),
    "blocks that a context gates": hr.Network.residual((11, 11), "relu", context="gate").layers,
    "blocks to which a context is added": hr.Network.residual(
        (10,), "tanh", context="add", context_activation="silu"
    ).layers,
}
NEEDS_CONTEXT = [name for name, layers in NETWORKS.items() if any(layer.context for layer in layers)]


def made(name, *, features=5, context=2, change=None, outputs=("shift", "scale"), dtype="float64"):
    """The tuple ``(dense, network, joins)``: random weights for the named network, in a random order of coordinates.

    Degrees are random where a layer adds nothing; a unit that adds another unit has at least that unit's degree.
    """
    network = hr.Network(NETWORKS[name])
    generator = cases.rng("described", name, features, context, outputs)
    levels = cases.levels_of(generator.permutation(features))
    seen, masks, degrees = np.concatenate([levels + 1, np.zeros(context, int)]), [], []
    for layer in network:
        degree = generator.integers(0, features, layer.units)
        if layer.adds is not None:
            degree = np.maximum(degree, degrees[layer.adds])
        masks.append(degree[:, None] >= seen[None, :])
        degrees.append(degree)
        seen = degree
    sizes = cases.sizes_of(outputs, 4)
    masks.append(cases.per_parameter(levels[:, None] >= seen[None, :], sizes, "interleaved"))
    if change is not None:
        masks = change(masks, generator)
    dense = cases.fill(masks, generator, features=features, context=context, outputs=outputs).astype(dtype)
    joins = [
        ((generator.standard_normal((u, context)) / np.sqrt(context)).astype(dtype), cases.rows(1, u, dtype, "join")[0])
        for u in (network.units[i] for i in network.joined)
    ]
    return dense, network, joins


def hidden_of(network):
    """The hidden layers in the form of the reference."""
    return [
        reference.Hidden(layer.activation, layer.adds, layer.context, layer.context_activation or "identity")
        for layer in network
    ]


def subject(dense, network, joins, **settings):
    """One network as a transform of the library and as a reference."""
    settings = {"outputs": dense.outputs} | settings
    bins = reference.MAPS[settings.get("map", "affine")].bins(len(dense.biases[-1]) // dense.features)
    library = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays,
        network=network,
        context=dense.context,
        context_weights=[w for w, _ in joins],
        context_biases=[b for _, b in joins],
        bins=bins,
        **settings,
    )
    n = len(joins)

    def judge(arrays):
        pairs, own = list(zip(arrays[: 2 * n : 2], arrays[1 : 2 * n : 2], strict=True)), arrays[2 * n :]
        described = reference.Network(
            own[0::2], own[1::2], dense.masks, hidden=hidden_of(network), joins=pairs, context=dense.context
        )
        return reference.MaskedAutoregressive(described, **settings)

    arrays = [a for pair in (*joins, *zip(dense.weights, dense.biases, strict=True)) for a in pair]
    return Subject(library, arrays, judge)


def rows_of(dense, n, dtype="float64"):
    context = cases.rows(n, dense.context, dtype, "context") if dense.context else None
    return cases.rows(n, dense.features, dtype), context
