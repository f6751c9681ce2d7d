"""A small mixture of normal densities of few rows, by expectation maximisation (Dempster, Laird, Rubin 1977).

A flow has it as a `NormalMixture` base and fixed links: components have independent coordinates in one common linear
scale, that of the covariance within components. Spreads are shrunk towards the common one, as if a component had
some more rows of that (a conjugate prior), so that none collapses onto a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace._base.types import Floats
from headrace._flow.tails import NormalMixture
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.transform import Transform

COMPONENTS = (2, 3, 4, 6, 8)  # numbers of them among which rows choose
STARTS = 2  # of which the more likely one is taken
STEPS = 100  # of expectation maximisation, at most,
GAIN = 1e-5  # and until one gains less than this in nats a row
SHARED = 0.1  # share of the identity in the covariance within components
PRIOR = 10.0  # rows of the common spread that each component has beside its own
LEAST_ROOT = 1e-3  # standard deviation of a direction, at least


@dataclass(frozen=True)
class Mixture:
    """A mixture over u = z · root: means and deviations of components in u, shapes (components, features)."""

    root: Floats
    shares: Floats
    loc: Floats
    scale: Floats

    def log_prob(self, z: Floats) -> Floats:
        """The log density of each row of z."""
        found: Floats = _log_sum(_logs(z @ self.root, self.shares, self.loc, self.scale))
        return found + float(np.linalg.slogdet(self.root)[1])

    def base(self) -> NormalMixture:
        """The density of u."""
        components, features = self.loc.shape
        return NormalMixture(features, components, loc=self.loc, scale=self.scale, weights=self.shares, trainable=False)

    def links(self) -> tuple[Transform, ...]:
        """From u to z."""
        left, values, right = np.linalg.svd(np.linalg.inv(self.root).T)
        return Rotation(right), Standardize(np.zeros(values.size), values), Rotation(left)


def fitted(z: Floats, share: Floats, components: int, seed: int) -> Mixture:
    """A mixture of this many components of standardised rows with weights, shape (rows,)."""
    share = share / share.sum()
    best, within = -math.inf, np.eye(z.shape[1])
    loc, shares = np.zeros((1, z.shape[1])), np.ones(1)
    for start in range(STARTS):
        rng = np.random.default_rng([seed, start, components])
        found = _of_common_spread(z, share, _spread_out(z, share, components, rng))
        if found[0] > best:
            best, shares, loc, within = found
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.maximum(np.sqrt(np.maximum(values, 0.0)), LEAST_ROOT)
    return Mixture(root, *_of_own_spreads(z @ root, share, shares, loc @ root))


def _spread_out(z: Floats, share: Floats, components: int, rng: np.random.Generator) -> Floats:
    """Rows far from each other (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [int(rng.choice(len(z), p=share))]
    distance = np.square(z - z[chosen[0]]).sum(axis=1)
    for _ in range(components - 1):
        weight = distance * share
        chosen.append(int(rng.choice(len(z), p=weight / weight.sum() if weight.sum() > 0 else share)))
        distance = np.minimum(distance, np.square(z - z[chosen[-1]]).sum(axis=1))
    return z[chosen]


def _of_common_spread(z: Floats, share: Floats, loc: Floats) -> tuple[float, Floats, Floats, Floats]:
    """Mean log-likelihood, shares, means and covariance of components that all have the same covariance."""
    features, last = z.shape[1], -math.inf
    mean = share @ z
    moments = np.einsum("ni,nj->ij", z * share[:, None], z)
    within, shares = (moments - np.outer(mean, mean)) / 2.0 + 1e-3 * np.eye(features), np.full(len(loc), 1.0 / len(loc))
    for _ in range(STEPS):
        values, vectors = np.linalg.eigh(within)
        root = vectors / np.sqrt(np.maximum(values, LEAST_ROOT**2))
        logs = _logs(z @ root, shares, loc @ root, np.ones(loc.shape))
        each = _log_sum(logs)
        gained = float(share @ each) + float(np.linalg.slogdet(root)[1])
        if gained < last + GAIN:
            break
        last = gained
        members = np.exp(logs - each[:, None]) * share[:, None]
        size = members.sum(axis=0) + 1e-12
        shares, loc = size / size.sum(), (members.T @ z) / size[:, None]
        within = moments - np.einsum("ki,kj->ij", loc * size[:, None], loc)
        within = (1.0 - SHARED) * within + SHARED * np.eye(features) * np.trace(within) / features
    return last, shares, loc, within


def _of_own_spreads(u: Floats, share: Floats, shares: Floats, loc: Floats) -> tuple[Floats, Floats, Floats]:
    """Shares, means and deviations of components with spreads of their own, from a start with deviations of 1."""
    size, scale, last = 1.0 / float(np.square(share).sum()), np.ones(loc.shape), -math.inf
    for _ in range(STEPS):
        logs = _logs(u, shares, loc, scale)
        each = _log_sum(logs)
        mean = float(share @ each)
        if abs(mean - last) < GAIN:
            break
        last = mean
        members = np.exp(logs - each[:, None]) * share[:, None] * size
        rows = members.sum(axis=0)
        shares, loc = (rows + 1.0) / (rows + 1.0).sum(), (members.T @ u) / (rows[:, None] + 1e-9)
        square = members.T @ np.square(u) - rows[:, None] * np.square(loc)
        scale = np.sqrt((np.maximum(square, 0.0) + PRIOR) / (rows[:, None] + PRIOR))
    return shares, loc, scale


def _logs(u: Floats, shares: Floats, loc: Floats, scale: Floats) -> Floats:
    """Log densities of rows under each component, times its share; shape (rows, components)."""
    square = np.square(u) @ np.square(1.0 / scale).T - 2.0 * (u @ (loc / np.square(scale)).T)
    square = square + np.square(loc / scale).sum(axis=1)
    constant = np.log(shares) - np.log(scale).sum(axis=1) - 0.5 * u.shape[1] * math.log(2.0 * math.pi)
    found: Floats = constant - 0.5 * square
    return found


def _log_sum(logs: Floats) -> Floats:
    most = np.asfortranarray(logs).max(axis=1, keepdims=True)  # a fifth of the time that neighbours in a row take
    found: Floats = (most + np.log(np.exp(logs - most).sum(axis=1, keepdims=True)))[:, 0]
    return found
