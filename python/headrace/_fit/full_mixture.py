"""A mixture of normal densities with covariances of their own, by expectation maximisation.

No base has such covariances: a flow learns the mixture from samples (`headrace._fit.teacher`). Each covariance is
shrunk towards the common one, as if its component had some more rows of that (a conjugate prior; Fraley and Raftery
2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace._base.types import Floats
from headrace._fit.mixture import SHARED, STEPS, _log_sum, _spread_out

COMPONENTS = (2, 3, 4, 6, 8, 10)  # numbers of them among which rows choose,
PRIORS = (1.0, 4.0, 16.0)  # and rows of the common covariance that each component has beside its own
STARTS = 10  # of which the most likely one is taken
GAIN = 1e-4  # nats a row; expectation maximisation ends where a step has less
ROUNDS = 20  # of k-means, with which a start begins
LEAST_VARIANCE = 1e-6  # added along each direction


@dataclass(frozen=True)
class FullMixture:
    """Shares, means and roots of precisions: (z - loc[k]) · roots[k] is standard normal in component k."""

    shares: Floats
    loc: Floats
    roots: Floats

    def log_prob(self, z: Floats) -> Floats:
        """The log density of each row of z."""
        return _log_sum(_logs(z, self))

    def sample(self, size: int, rng: np.random.Generator) -> Floats:
        """Rows of the mixture, shape (size, features)."""
        component = rng.choice(self.shares.size, size, p=self.shares)
        noise = rng.standard_normal((size, self.loc.shape[1]))
        back = np.linalg.inv(self.roots)
        found: Floats = np.empty_like(noise)
        for k in range(self.shares.size):
            of = component == k
            found[of] = self.loc[k] + noise[of] @ back[k]
        return found


def fitted(z: Floats, share: Floats, components: int, prior: float, seed: int, starts: int = STARTS) -> FullMixture:
    """A mixture of this many components of standardised rows with weights, shape (rows,)."""
    share = share / share.sum()
    size = 1.0 / float(np.square(share).sum())
    best: tuple[float, FullMixture] | None = None
    for start in range(starts):
        rng = np.random.default_rng([seed, start, components])
        found = _maximised(z, share, size, _clusters(z, share, components, rng), prior)
        if best is None or found[0] > best[0]:
            best = found
    assert best is not None
    return best[1]


def _clusters(z: Floats, share: Floats, components: int, rng: np.random.Generator) -> Floats:
    """The cluster of each row by k-means (Lloyd 1982), as a matrix of zeros and ones, shape (rows, components)."""
    centers = _spread_out(z, share, components, rng)
    members = np.zeros((len(z), components))
    for _ in range(ROUNDS):
        distance = np.square(centers).sum(axis=1) - 2.0 * (z @ centers.T)
        before, members = members, np.eye(components)[np.argmin(distance, axis=1)]
        if (members == before).all():
            break
        rows = share @ members
        centers = np.where(rows[:, None] > 0, (members * share[:, None]).T @ z / (rows[:, None] + 1e-300), centers)
    return members


def _maximised(z: Floats, share: Floats, size: float, members: Floats, prior: float) -> tuple[float, FullMixture]:
    """The mixture from a first membership of rows, and its mean log density and prior, of which it has a maximum."""
    common, last = _common(z, share, members), -math.inf
    found = _from_members(z, share * size, members, prior, common)
    for _ in range(STEPS):
        logs = _logs(z, found)
        each = _log_sum(logs)
        trace = np.einsum("ij,kil,kjl->k", common, found.roots, found.roots)
        of_prior = 0.5 * prior * float((2.0 * np.linalg.slogdet(found.roots)[1] - trace).sum())
        now = float(share @ each) + of_prior / size
        if now < last + GAIN:
            break
        last = now
        found = _from_members(z, share * size, np.exp(logs - each[:, None]), prior, common)
    return last, found


def _common(z: Floats, share: Floats, members: Floats) -> Floats:
    """The covariance within clusters, with some of the identity."""
    features, own = z.shape[1], members * share[:, None]
    away = z - members @ ((own.T @ z) / (own.sum(axis=0)[:, None] + 1e-300))
    within = np.einsum("ni,nj->ij", away * share[:, None], away)
    found: Floats = (1.0 - SHARED) * within + (SHARED * np.trace(within) / features + LEAST_VARIANCE) * np.eye(features)
    return found


def _from_members(z: Floats, weights: Floats, members: Floats, prior: float, common: Floats) -> FullMixture:
    """The mixture of the highest density given the memberships of rows, shape (rows, components)."""
    own = members * weights[:, None]
    rows = own.sum(axis=0)
    shares, loc = (rows + 1.0) / (rows + 1.0).sum(), (own.T @ z) / (rows[:, None] + 1e-9)
    covariances = np.empty((rows.size, *common.shape))
    for k in range(rows.size):
        away = z - loc[k]
        covariances[k] = ((own[:, k, None] * away).T @ away + prior * common) / (rows[k] + prior)
    covariances += LEAST_VARIANCE * np.eye(z.shape[1])
    roots = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1).astype(np.float64)
    return FullMixture(shares, loc, roots)


def _logs(z: Floats, mixture: FullMixture) -> Floats:
    """Log densities of rows under each component, times its share; shape (rows, components)."""
    constant = np.log(mixture.shares) + np.linalg.slogdet(mixture.roots)[1]
    logs: Floats = np.empty((len(z), mixture.shares.size))
    for k, root in enumerate(mixture.roots):
        logs[:, k] = constant[k] - 0.5 * np.square((z - mixture.loc[k]) @ root).sum(axis=1)
    logs -= 0.5 * z.shape[1] * math.log(2.0 * math.pi)
    return logs
