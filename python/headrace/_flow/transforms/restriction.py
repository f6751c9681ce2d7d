"""The density of some coordinates of a chain, if no transform computes them from other coordinates.

Each transform implements `Transform._restricted`, which returns its part on the kept coordinates; this module computes
the part of a masked network and of a chain.
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
    """The error if kept coordinates depend on others, with a reason such as "makes coordinate 0 from coordinate 2"."""


class Reads(Exception):
    """The error with the indices of a kept output of a network and of a removed input that the output needs."""


@dataclass(eq=False)
class Restriction:
    """The coordinates of a network that a part keeps, in the part's order."""

    coordinates: Sequence[int]  # coordinates of the transform
    inputs: Sequence[int]  # columns of the first layer, without the context
    outputs: Sequence[int]  # mapped coordinates, by their indices among all mapped coordinates


def columns_of(columns: Any, features: int) -> tuple[int, ...]:
    """A checked tuple of different columns, at least one; an int n stands for the first n columns."""
    if not np.iterable(columns):
        return tuple(range(check.integer("columns", columns, least=1, most=features)))
    chosen = check.coordinates("columns", columns, features)
    if not chosen:
        raise ValueError("columns: expected at least one, got none")
    return chosen


def chain_of(transforms: Sequence[Any], columns: Sequence[int]) -> tuple[list[Any], tuple[int, ...]]:
    """The chain restricted to some columns of the data, from latent to data, and the latent coordinates of these
    columns.

    Raises:
        ValueError: a transform computes one of the columns from another column; the message names the transform.
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
    """The indices of output rows in a layout: for each name of parameters an array (active, values of the name)."""
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
    """A last layer's row indices in the order of `layout`; `blocks`: indices by parameter, (coordinates, values)."""
    if layout == "interleaved":
        return np.concatenate(blocks, axis=1).ravel()
    return np.concatenate([*map(np.ravel, blocks)])


def cut(
    dense: Dense, staircase: Staircase | None, part: Restriction, context: int, sizes: Sequence[int], layout: str
) -> tuple[Dense, Staircase | None]:
    """The layers of a network for the kept coordinates, without units that only other coordinates need.

    Units that depend on other coordinates are removed, and an error is raised if a kept output reads a removed unit.
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
        units = keep[added + 1] if added is not None else np.flatnonzero(~seen)  # both layers keep the same units
        keep.append(units if units.size else np.zeros(1, np.intp))  # a layer needs a unit, even if no unit reads it
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
    """For each layer and for the outputs: whether each unit depends on any of the inputs that `first` marks."""
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
    """Raise `Reads` with a kept output and a removed input on which that output depends."""
    output = next(o for o in part.outputs if any(sees[-1][place[o]].any() for place in places))
    rows = np.concatenate([place[output] for place in places])
    for column in np.flatnonzero(outside):
        alone = np.zeros(outside.size + context, bool)
        alone[column] = True
        if _seen(masks, alone, adds)[-1][rows].any():
            raise Reads(output, int(column))
    raise AssertionError


def _lower(staircase: Staircase, coordinates: Sequence[int], keep: Sequence[NDArray[np.intp]]) -> Staircase:
    """The levels and degrees of the kept part, renumbered without gaps."""
    levels = np.asarray(staircase.levels)[list(coordinates)]
    steps = np.unique(levels)

    def counted(values: Any) -> list[int]:
        return [int(n) for n in np.searchsorted(steps, values, side="right")]

    degrees = [counted(np.asarray(d)[units]) for d, units in zip(staircase.degrees, keep[1:-1], strict=True)]
    return Staircase(counted(levels), degrees)
