"""Mixtures of normal densities, fitted to few rows by expectation maximisation (Dempster, Laird, Rubin 1977).

Components have diagonal variances along common axes, so that a flow has the mixture as a `NormalMixture` base and fixed
links, or full covariances, which no base has: a flow learns such a mixture from samples (`headrace._fit.few_rows`).
Each covariance is shrunk towards a common covariance, as if the component had some additional rows of the latter (a
conjugate prior; Fraley and Raftery 2007), so that no component collapses onto a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from headrace._base.types import Floats
from headrace._flow.tails import NormalMixture
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.transform import Transform

COMPONENTS = (2, 3, 4, 6, 8)  # numbers of components that are tried
PRIOR = 10.0  # additional rows of each component with the common variances
STARTS = 2  # starts, of which the one with the largest likelihood is used
COMPONENTS_OF_FULL = (2, 3, 4, 6, 8, 10)  # numbers of components that are tried with full covariances
PRIORS_OF_FULL = (1.0, 4.0, 16.0)  # values of `prior` that are tried
STARTS_OF_FULL = 10
STEPS = 100  # the most steps of expectation maximisation
GAIN = 1e-5  # a smaller gain, in nats a row, ends expectation maximisation
GAIN_OF_FULL = 1e-4
ROUNDS = 20  # the most rounds of k-means, which begins a fit of full covariances
SHARED = 0.1  # share of the identity in the common covariance
LEAST_VARIANCE = 1e-6  # of a direction


@dataclass(frozen=True)
class Mixture:
    """A mixture over u = z · root, in which component k makes (u - loc[k]) · roots[k] standard normal."""

    root: Floats
    shares: Floats
    loc: Floats
    roots: Floats
    """Shape (components, features) along the axes of u, or (components or 1, features, features)."""

    def log_prob(self, z: Floats) -> Floats:
        """The log density of each row of z."""
        return _log_sum(self.logs(z @ self.root)) + float(np.linalg.slogdet(self.root)[1])

    def logs(self, u: Floats) -> Floats:
        """Logarithms of the share times the density of each component, shape (rows, components)."""
        white = u - self.loc[:, None]
        white = white @ self.roots if self.roots.ndim == 3 else white * self.roots[:, None]
        constant = np.log(self.shares) + self.volumes() - 0.5 * u.shape[1] * math.log(2.0 * math.pi)
        return constant - 0.5 * np.square(white).sum(axis=2).T

    def volumes(self) -> Floats:
        """The logarithm of the determinant of the root of each component."""
        return np.linalg.slogdet(self.roots)[1] if self.roots.ndim == 3 else np.log(self.roots).sum(axis=1)

    def sample(self, size: int, rng: np.random.Generator) -> Floats:
        """Draw rows from a mixture with full covariances, shape (size, features)."""
        component = rng.choice(self.shares.size, size, p=self.shares)
        noise = rng.standard_normal((size, self.loc.shape[1]))
        back = np.linalg.inv(self.roots)
        u: Floats = np.empty_like(noise)
        for k in range(self.shares.size):
            of = component == k
            u[of] = self.loc[k] + noise[of] @ back[k]
        return u @ np.linalg.inv(self.root)

    def base(self) -> NormalMixture:
        """The density of u as a base, for a mixture whose components have independent coordinates of u."""
        components, features = self.loc.shape
        scale = 1.0 / self.roots
        return NormalMixture(features, components, loc=self.loc, scale=scale, weights=self.shares, trainable=False)

    def links(self) -> tuple[Transform, ...]:
        """From u to z."""
        outer, values, inner = np.linalg.svd(np.linalg.inv(self.root).T)
        return Rotation(inner), Standardize(np.zeros(values.size), values), Rotation(outer)


def fitted(
    z: Floats,
    share: Floats,
    components: int,
    seed: int,
    prior: float = PRIOR,
    *,
    full: bool = False,
    starts: int | None = None,
) -> Mixture:
    """Fit a mixture of `components` components to standardised rows; `share`: weights of the rows, shape (rows,).

    `prior`: additional rows of each component, with the common covariance. `full`: whether components have full
    covariances; if not, their axes are the eigenvectors of the common covariance within components.
    """
    weights = share * share.sum() / np.square(share).sum()  # the sum is the effective number of rows (Kish)
    begun = []
    for start in range((STARTS_OF_FULL if full else STARTS) if starts is None else starts):
        loc = _spread_out(z, share / share.sum(), components, np.random.default_rng([seed, start, components]))
        begun.append((_clustered if full else _of_common_covariance)(z, weights, loc))
    if not full:
        begun = [max(begun, key=lambda pair: pair[0])]
    return max((_with_own(z, weights, common, prior, full) for _, common in begun), key=lambda pair: pair[0])[1]


def _with_own(z: Floats, weights: Floats, common: Mixture, prior: float, full: bool) -> tuple[float, Mixture]:
    """Fit separate covariances, from a mixture with a common one; return penalised log density and mixture."""
    values, vectors = np.linalg.eigh(np.linalg.inv(common.roots[0] @ common.roots[0].T))
    root = vectors / np.sqrt(np.maximum(values, LEAST_VARIANCE))
    unit = np.eye(z.shape[1])[None] if full else np.ones(common.loc.shape)
    begun = replace(common, loc=common.loc @ root, roots=unit)
    value, mixture = _maximised(z @ root, weights, begun, prior)
    volume = float(np.linalg.slogdet(root)[1])
    return value + volume * (1.0 + prior * len(common.loc) / weights.sum()), replace(mixture, root=root)


def _of_common_covariance(z: Floats, weights: Floats, loc: Floats) -> tuple[float, Mixture]:
    """Fit a mixture whose components have the same covariance; return its mean log density and the mixture."""
    away, identity = z - weights @ z / weights.sum(), np.eye(z.shape[1])
    first = (away * weights[:, None]).T @ away / weights.sum() / 2.0 + 1e-3 * identity
    shares = np.full(len(loc), 1.0 / len(loc))
    return _maximised(z, weights, Mixture(identity, shares, loc, _roots_of(first[None])), None)


def _clustered(z: Floats, weights: Floats, loc: Floats) -> tuple[float, Mixture]:
    """Return 0, in place of a log density, and a mixture of k-means clusters (Lloyd 1982) with one covariance."""
    members = np.zeros((len(z), len(loc)))
    for _ in range(ROUNDS):
        distance = np.square(loc).sum(axis=1) - 2.0 * (z @ loc.T)
        before, members = members, np.eye(len(loc))[np.argmin(distance, axis=1)]
        if (members == before).all():
            break
        rows = weights @ members
        loc = np.where(rows[:, None] > 0, (members * weights[:, None]).T @ z / (rows[:, None] + 1e-300), loc)
    return 0.0, _from_members(z, weights, members, None, full=True)


def _maximised(u: Floats, weights: Floats, begun: Mixture, prior: float | None) -> tuple[float, Mixture]:
    """Maximise the likelihood from an initial mixture; return the penalised mean log density and the mixture."""
    size, last, mixture, full = weights.sum(), -math.inf, begun, begun.roots.ndim == 3
    gain = GAIN if prior is None or not full else GAIN_OF_FULL
    for _ in range(STEPS):
        logs = mixture.logs(u)
        each = _log_sum(logs)
        now = float(weights @ each)
        if prior is not None:
            volumes = np.broadcast_to(mixture.volumes(), len(mixture.loc))
            squares = np.square(mixture.roots).sum() * len(volumes) / len(mixture.roots)
            now += prior * float(volumes.sum() - 0.5 * squares)
        if now < last + gain * size:
            break
        last = now
        mixture = _from_members(u, weights, np.exp(logs - each[:, None]), prior, full=full)
    return last / size, mixture


def _from_members(u: Floats, weights: Floats, members: Floats, prior: float | None, *, full: bool) -> Mixture:
    """The mixture with the largest posterior density, given the memberships of rows, shape (rows, components).

    `prior`: additional rows of each component, with covariance 1; None: all components have the covariance within
    components, mixed with the identity. `full`: whether covariances are full or diagonal.
    """
    features, each = u.shape[1], (members * weights[:, None]).T
    rows = each.sum(axis=1)
    shares, loc = (rows + 1.0) / (rows + 1.0).sum(), (each @ u) / (rows[:, None] + 1e-9)
    away, identity = u - loc[:, None], np.eye(features)
    if not full:
        assert prior is not None
        square = (each[:, :, None] * np.square(away)).sum(axis=1)
        return Mixture(identity, shares, loc, np.sqrt((rows[:, None] + prior) / (square + prior)))
    square = (each[:, :, None] * away).transpose(0, 2, 1) @ away
    if prior is None:
        within = square.sum(axis=0, keepdims=True) / rows.sum()
        covariances = (1.0 - SHARED) * within + SHARED * np.trace(within[0]) / features * identity
    else:
        covariances = (square + prior * identity) / (rows[:, None, None] + prior)
    return Mixture(identity, shares, loc, _roots_of(covariances))


def _roots_of(covariances: Floats) -> Floats:
    """Whitening matrices: a row with one of the covariances, times the matrix for this covariance, has covariance 1."""
    least = LEAST_VARIANCE * np.eye(covariances.shape[1])
    return np.linalg.inv(np.linalg.cholesky(covariances + least)).transpose(0, 2, 1)


def _spread_out(z: Floats, share: Floats, components: int, rng: np.random.Generator) -> Floats:
    """Choose rows that are far from each other (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [int(rng.choice(len(z), p=share))]
    distance = np.square(z - z[chosen[0]]).sum(axis=1)
    for _ in range(components - 1):
        weight = distance * share
        chosen.append(int(rng.choice(len(z), p=weight / weight.sum() if weight.sum() > 0 else share)))
        distance = np.minimum(distance, np.square(z - z[chosen[-1]]).sum(axis=1))
    return z[chosen]


def _log_sum(logs: Floats) -> Floats:
    most = np.asfortranarray(logs).max(axis=1, keepdims=True)  # Fortran order is five times as fast
    return (most + np.log(np.exp(logs - most).sum(axis=1, keepdims=True)))[:, 0]
