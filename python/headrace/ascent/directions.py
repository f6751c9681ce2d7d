"""Orthogonal matrices, whose rows are the directions of one step of an ascent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._flow.transforms.fixed import Permutation
from headrace._flow.transforms.rotation import Rotation, _haar
from headrace._flow.transforms.transform import Transform

ROWS = 4000  # the largest number of points that determine directions
STEPS = 10


@dataclass(frozen=True)
class Turn:
    """The map z = Q x[order], where Q is the matrix with `blocks` on its diagonal; without an order z = Q x."""

    blocks: list[NDArray[np.float64]]
    order: list[int] | None = None

    @staticmethod
    def none(sizes: list[int]) -> Turn:
        """The turn that is the identity, in blocks of the sizes `sizes`."""
        return Turn([np.eye(size) for size in sizes])

    def places(self) -> list[int]:
        """The order of the coordinates; 0, 1, ... for a turn without an order."""
        return list(range(sum(map(len, self.blocks)))) if self.order is None else self.order

    def transforms(self) -> list[Transform]:
        """The transforms of the turn's inverse, in latent → data order."""
        links: list[Transform] = [Rotation.from_blocks([block.T for block in self.blocks])]
        if self.order is not None:
            links.append(Permutation([int(i) for i in np.argsort(self.order)]))
        return links


def random_turn(sizes: list[int], rng: np.random.Generator) -> Turn:
    """A turn by uniformly distributed orthogonal blocks of given sizes; several blocks follow a permutation."""
    order = _order(sizes, rng)
    return Turn([random_rotation(size, rng) for size in sizes], order)


def sliced_turn(
    count: int,
    pick: Callable[[NDArray[np.int64]], NDArray[Any]],
    sizes: list[int],
    rng: np.random.Generator,
    unit: float = 1.0,
    moved: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> Turn:
    """A turn whose blocks `sliced_rotation` chooses, each from the coordinates that the block turns.

    Args:
        count: The number of points.
        pick: A function that returns the points at some indices, on the host.
        sizes: The sizes of the blocks.
        rng: The generator of all draws.
        unit: The factor that scales the points to a variance of about 1.
        moved: A map of the points before the turn; None for no map.
    """
    order = _order(sizes, rng)
    some = pick(rng.choice(count, min(ROWS, count), replace=False, shuffle=False)).astype(np.float64)
    some = unit * (some if moved is None else moved(some))
    some = some if order is None else some[:, order]
    parts = np.split(some, np.cumsum(sizes)[:-1], axis=1)
    return Turn([sliced_rotation(part, rng) for part in parts], order)


def _order(sizes: list[int], rng: np.random.Generator) -> list[int] | None:
    return None if len(sizes) == 1 else [int(i) for i in rng.permutation(sum(sizes))]


def random_rotation(features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random orthogonal matrix of shape (features, features), uniformly distributed."""
    return _haar(features, rng)


def sliced_rotation(z: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation to directions along which points are far from normal in sliced Wasserstein distance (Dai, Seljak
    2021).

    The method is a few steps of gradient ascent on the orthogonal matrices, from a random start. The objective is the
    squared distance between sorted projections and normal quantiles, summed over the rows of the matrix.

    Args:
        z: Shape (rows, n), near mean 0 and variance 1; some thousand rows are enough.
        rng: The generator from which the random start is drawn.
    """
    grid = (np.arange(len(z)) + 0.5) / len(z)
    quantiles = np.interp(grid, *_QUANTILES)

    def judged(u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        projections = z @ u.T
        target = np.empty_like(projections)
        np.put_along_axis(target, projections.argsort(axis=0), quantiles[:, None], axis=0)
        rest = projections - target
        return float(np.square(rest).sum() / len(z)), 2.0 / len(z) * rest.T @ z

    u = random_rotation(z.shape[1], rng)
    distance, gradient = judged(u)
    size = 0.5
    for _ in range(STEPS):
        turn = gradient @ u.T
        turn = turn - turn.T  # steps along the skew part keep the matrix orthogonal
        norm = float(np.linalg.norm(turn, 2))
        if not norm > 1e-12:
            break
        q, r = np.linalg.qr((np.eye(len(u)) + size / norm * turn) @ u)
        tried = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
        new_distance, new_gradient = judged(tried)
        if new_distance > distance:
            u, distance, gradient = tried, new_distance, new_gradient
        else:
            size /= 2.0
    return u


_SCORES = np.linspace(-5.0, 5.0, 1001)
_QUANTILES = np.array([NormalDist().cdf(score) for score in _SCORES]), _SCORES
