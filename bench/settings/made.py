"""Three synthetic tables that no other report uses, each as a function that draws rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace._base.types import Floats

ROWS, NEW = 6000, 2000


def clouds(rows: int, rng: np.random.Generator) -> Floats:
    """Rows of a mixture of five correlated Gaussians in six dimensions."""
    centers = 2.0 * np.random.default_rng(0).standard_normal((5, 6))
    roots = 0.4 * np.random.default_rng(1).standard_normal((5, 6, 6))
    chosen = rng.integers(0, 5, rows)
    return centers[chosen] + np.einsum("nij,nj->ni", roots[chosen], rng.standard_normal((rows, 6)))


def helix(rows: int, rng: np.random.Generator) -> Floats:
    """Rows near a thin curve in four dimensions."""
    t = rng.uniform(0.0, 12.0, rows)
    curve = np.stack([np.cos(t), np.sin(t), t / 4.0, np.sin(t / 3.0) * np.cos(2.0 * t)], axis=1)
    return curve + 0.05 * rng.standard_normal((rows, 4))


def fan(rows: int, rng: np.random.Generator) -> Floats:
    """Rows with columns whose scale, mean or both depend on other columns."""
    z = rng.standard_normal((rows, 8))
    scaled, bent = np.exp(0.7 * z[:, :1]) * z[:, 1:4], z[:, 1:2] ** 2 + 0.3 * z[:, 4:5]
    return np.concatenate([z[:, :1], scaled, bent, np.sin(3.0 * z[:, 2:3]) + 0.2 * z[:, 5:6]], axis=1)


TABLES: dict[str, Callable[[int, np.random.Generator], Floats]] = {"clouds": clouds, "helix": helix, "fan": fan}
