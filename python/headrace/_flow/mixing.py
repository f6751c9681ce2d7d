"""Transforms between two networks of a named flow, so that every coordinate can depend on every other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._base import arguments as check
from headrace._flow.transforms.fixed import Permutation
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.transform import Transform

LINKS = ("reverse", "linear", "random", "none")


def link_before(
    network: int, link: Any, features: int, *, seed: int = 0, dtype: DTypeLike = "float32"
) -> tuple[list[Transform], bool]:
    """The transforms before a network, and whether the network's order of the coordinates is descending.

    No transform precedes the first network, whose order is ascending.

    Args:
        network: The index of the network in the flow, from 0.
        link: "reverse": orders alternate, without transforms; "linear": orders alternate, with a `Linear` before each
            later network; "random": all orders are ascending, with a random `Permutation` before each later network;
            "none": all orders are ascending, without transforms.
        features: The number of coordinates.
        seed: The seed of the flow; random permutations differ between networks.
        dtype: The dtype of trained links.

    Returns:
        A pair ``(transforms, descending)``.

    >>> from headrace._flow.mixing import link_before
    >>> link_before(1, "linear", 3)
    ([Linear(3)], True)
    """
    check.choice("link", link, LINKS)
    descending = link in ("reverse", "linear") and network % 2 == 1
    if network == 0 or features == 1 or link in ("reverse", "none"):
        return [], descending
    if link == "linear":
        return [Linear(features, dtype=dtype)], descending
    order = np.random.default_rng([seed, network]).permutation(features)
    return [Permutation([int(i) for i in order])], descending
