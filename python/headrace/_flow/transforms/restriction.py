"""Some coordinates of a chain by themselves, where they depend on no others.

Each transform implements `Transform._restricted`, its part on the coordinates that are kept; this module does so for a
masked network, and for a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._core.structure import Staircase
from headrace._flow.transforms.dense import Dense
from headrace._flow.transforms.network import Network

Flags = NDArray[np.bool_]


class Mixed(ValueError):
    """Kept coordinates depend on others; the message has the reason, such as "makes coordinate 0 from coordinate 2"."""


class Reads(Exception):
    """An output of a network, and an input that it needs and that is not kept: their indices in the network."""


@dataclass(eq=False)
class Restriction:
    """The kept coordinates of a network, each list in the order of the part."""

    coordinates: Sequence[int]  # of the transform
    inputs: Sequence[int]  # columns of the first layer, without context
    outputs: Sequence[int]  # coordinates that are mapped, counted among those that are


def columns_of(columns: Any, features: int) -> tuple[int, ...]:
    """Different columns, at least one; an int n stands for the first n."""
    if not np.iterable(columns):
        return tuple(range(check.integer("columns", columns, least=1, most=features)))
    chosen = check.coordinates("columns", columns, features)
    if not chosen:
        raise ValueError("columns: expected at least one, got none")
    return chosen


def chain_of(transforms: Sequence[Any], columns: Sequence[int]) -> tuple[list[Any], tuple[int, ...]]:
    """Transforms of only some columns of data, from latent to data, and their latent coordinates.

    Raises:
        ValueError: a transform computes one of them from another column; the message names it.
    """
    kept, chain = tuple(columns), list[Any]()
    for i in range(len(transforms) - 1, -1, -1):
        t = transforms[i]
        try:
            part, kept = t._restricted(kept)
        except Mixed as error:
            n, why = t.features, ""
            if type(t).__name__ == "Rotation" and i + 8 >= len(transforms):
                why = "; a fit of few rows puts it there, unless it is given `epochs`"
            if any(getattr(transforms[-1], "periodic", ())):
                why += "; periodic columns depend on all others"
            raise ValueError(
                f"columns: expected columns that depend on no others in the flow, got {list(columns)}: "
                f"transforms[{i}], of the class {type(t).__name__}, {error}"
                f"{why}. In a flow of one order, as "
                f"hr.MAF({n}, link='none') or hr.NSF({n}, link='none'), the first columns depend on no later ones"
            ) from None
        if part is not None:
            chain.insert(0, part)
    return chain, kept


def output_places(active: int, sizes: Sequence[int], layout: str) -> list[NDArray[np.intp]]:
    """For each name of a map's parameters the output rows (active, numbers of that name), in the order of `layout`."""
    total, start, places = sum(sizes), 0, []
    for size in sizes:
        inside = np.arange(size)
        if layout == "interleaved":
            places.append(np.arange(active)[:, None] * total + start + inside)
        else:
            places.append(start * active + np.arange(active)[:, None] * size + inside)
        start += size
    return places


def joined(blocks: Sequence[NDArray[np.intp]], layout: str) -> NDArray[np.intp]:
    """The rows of a last layer in its order, of those of each parameter, shape (coordinates, parameters of a name)."""
    if layout == "interleaved":
        return np.concatenate(blocks, axis=1).ravel()
    return np.concatenate([*map(np.ravel, blocks)])


def cut(
    dense: Dense, staircase: Staircase | None, part: Restriction, context: int, sizes: Sequence[int], layout: str
) -> tuple[Dense, Staircase | None]:
    """The layers of a network for the kept coordinates, without units that only others need.

    Units that see other coordinates are removed, and no kept unit may read them.
    """
    masks, network = dense.masks, dense.network
    reads = masks[0].shape[1] - context
    outside = np.ones(reads, bool)
    outside[list(part.inputs)] = False
    adds = [None if network is None else network.layers[i].adds for i in range(len(masks) - 1)]
    sees = _seen(masks, np.concatenate([outside, np.zeros(context, bool)]), adds)

    places = output_places(len(masks[-1]) // sum(sizes), sizes, layout)
    chosen = [place[list(part.outputs)] for place in places]
    rows = joined(chosen, layout)
    if sees[-1][rows].any():
        _refuse(masks, adds, sees, places, part, outside, context)

    keep: list[Any] = [np.concatenate([np.asarray(part.inputs, np.intp), reads + np.arange(context)])]
    for i, seen in enumerate(sees[:-1]):
        added = adds[i]
        units = keep[added + 1] if added is not None else np.flatnonzero(~seen)  # layers that are added are as wide
        keep.append(units if units.size else np.zeros(1, np.intp))  # an unread one: a layer needs units
    keep.append(rows)

    def layer(i: int, array: Any) -> Any:
        return np.ascontiguousarray(array[np.ix_(keep[i + 1], keep[i])])

    found = Dense(
        [layer(i, w) for i, w in enumerate(dense.weights)],
        [np.ascontiguousarray(b[keep[i + 1]]) for i, b in enumerate(dense.biases)],
        [layer(i, m) for i, m in enumerate(masks)],
    )
    if network is not None:
        found.network = Network([replace(one, units=keep[i + 1].size) for i, one in enumerate(network)])
        found.context_weights = [w[keep[i + 1]] for i, w in zip(network.joined, dense.context_weights, strict=True)]
        found.context_biases = [b[keep[i + 1]] for i, b in zip(network.joined, dense.context_biases, strict=True)]
    return found, None if staircase is None else _lower(staircase, part.coordinates, keep)


def _seen(masks: Sequence[Flags], first: Flags, adds: Sequence[int | None]) -> list[Flags]:
    """The units of each layer, and the outputs, that depend on one of some inputs."""
    sees: list[Flags] = []
    below = first
    for i, mask in enumerate(masks):
        below = np.asarray(mask[:, below].any(axis=1))
        if i < len(adds) and (added := adds[i]) is not None:
            below = below | sees[added]
        sees.append(below)
    return sees


def _refuse(
    masks: Sequence[Flags],
    adds: Sequence[int | None],
    sees: Sequence[Flags],
    places: Sequence[NDArray[np.intp]],
    part: Restriction,
    outside: Flags,
    context: int,
) -> None:
    """Raise an error that names a kept coordinate and the one that it needs."""
    output = next(o for o in part.outputs if any(sees[-1][place[o]].any() for place in places))
    rows = np.concatenate([place[output] for place in places])
    for column in np.flatnonzero(outside):
        alone = np.zeros(outside.size + context, bool)
        alone[column] = True
        if _seen(masks, alone, adds)[-1][rows].any():
            raise Reads(output, int(column))
    raise AssertionError


def _lower(staircase: Staircase, coordinates: Sequence[int], keep: Sequence[NDArray[np.intp]]) -> Staircase:
    """Levels and degrees of the kept part, counted anew."""
    levels = np.asarray(staircase.levels)[list(coordinates)]
    steps = np.unique(levels)

    def counted(values: Any) -> list[int]:
        return [int(n) for n in np.searchsorted(steps, values, side="right")]

    degrees = [counted(np.asarray(d)[units]) for d, units in zip(staircase.degrees, keep[1:-1], strict=True)]
    return Staircase(counted(levels), degrees)
