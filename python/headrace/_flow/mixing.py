"""Transforms between two networks of a ready-made flow, so that every coordinate depends on every other."""

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
    """The transforms before a network, and whether its own order of the coordinates is the descending one.

    No transform precedes the first network, and its order is ascending.

    Args:
        network: The link's number in the flow, from 0.
        link: "reverse": orders alternate, and there is no transform; "linear": they alternate, with a `Linear` between;
            "random": orders are all ascending, with a random `Permutation` between; "none": they are, without one.
        features: Number of coordinates.
        seed: Of the flow; random permutations differ from network to network.
        dtype: Of trained links.

    Returns:
        ``(transforms, descending)``.

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
