"""The result of `evolve`: the density at each time, and the motion of particles."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.types import Floats
from headrace.continuum._densities import Density
from headrace.continuum.grid import Grid


class Mover(Protocol):
    """A motion of particles: by the full velocity field, or in one direction after another."""

    def velocity(self, t: float, points: Floats) -> Floats:
        """The velocity, at the time t, of points of the box."""

    def carry(self, points: Floats) -> tuple[Floats, Floats]:
        """Positions (times, rows, d) of points that start at the first time, and log-Jacobians (times, rows)."""


@public("headrace.continuum")
class Evolution:
    """A density that moves to a target, as returned by `evolve`. All values are float64.

    Attributes:
        grid: The grid of the densities.
        times: Shape (times,).
        rho: The density at `times`; the shape is (times,) followed by `grid.cells`.
        mu: The target, scaled to the mass of rho, shape grid.cells.
        kl: KL(mu || rho_t) of mu and rho as probability densities, shape (times,); infinite if rho is 0 where mu is
            not.
        kl_rate: The derivative of `kl` in time, the right-hand side of eq. 14.
        gap: KL(rho_t || mu): the mean log-likelihood by which the estimate rho~_t is below its limit, shape (times,).
        gap_rate: The derivative of `gap` in time: minus the integral of |u|^2 (eq. 11), divided by the mass.
        marginals: The evolution of rho's marginal between two times for each direction; empty without directions.
    """

    def __init__(
        self,
        grid: Grid,
        times: Floats,
        rho: Floats,
        mu: Floats,
        kl_rate: Floats,
        gap_rate: Floats,
        target: Density,
        mover: Mover,
        marginals: tuple[Evolution, ...] = (),
    ) -> None:
        """Compute the divergences; only `evolve` calls the constructor."""
        self.grid, self.times, self.rho, self.mu = grid, times, rho, mu
        self.kl, self.gap = _divergences(rho.reshape(len(times), -1), mu.ravel())
        self.kl_rate, self.gap_rate = kl_rate, gap_rate
        self.marginals = marginals
        self._target, self._mover = target, mover
        with np.errstate(divide="ignore"):
            relative = np.log(mu.ravel()) - target.log.ravel()
        # Any cell determines the scale of the target; in the largest cell, mu has not underflowed.
        self._log_scale = float(relative[np.argmax(mu)])
        for array in (self.times, self.rho, self.mu, self.kl, self.gap, self.kl_rate, self.gap_rate):
            array.flags.writeable = False

    def velocity(self, t: float, z: Any) -> Floats:
        """The velocity u = -mu grad(rho / mu) (eq. 10) of points at the time t, shape (rows, d).

        Args:
            t: A time from the first of `times` to the last.
            z: Points of the box, shape (rows, d).
        """
        first, last = self.times[0], self.times[-1]
        at = check.number("t", t, least=first, below=math.inf)
        if at > last:
            raise ValueError(f"t: expected a number from {first:g} to {last:g}, got {t!r}")
        points, known = self._points("z", z)
        result = np.full(points.shape, np.nan)
        if known.any():
            result[known] = self._mover.velocity(at, points[known])
        return result

    def carry(self, x: Any) -> tuple[Floats, Floats]:
        """Move points with the velocity from the first time on: the map phi_t of the notes.

        Returns:
            Positions, shape (times, rows, d), and log-Jacobians, shape (times, rows). All positions are in the box: a
            point that directions move past a corner stays at the nearest point of the box. A row that is not finite has
            the result NaN.

        Args:
            x: Points of the box, shape (rows, d).
        """
        points, known = self._points("x", x)
        positions = np.full((len(self.times), *points.shape), np.nan)
        log_jacobians = np.full(positions.shape[:2], np.nan)
        if known.any():
            positions[:, known], log_jacobians[:, known] = self._mover.carry(points[known])
        return positions, log_jacobians

    def estimate(self, x: Any) -> Floats:
        """The density estimate rho~_t(x) = J(x) mu(phi_t(x)) (eq. 4 and 5), which tends to the initial rho.

        Returns:
            The estimate, shape (times, rows), with the mass of rho.

        Args:
            x: Points of the box, shape (rows, d).
        """
        positions, log_jacobians = self.carry(x)
        flat = positions.reshape(-1, self.grid.dimensions)
        known = np.isfinite(flat).all(axis=1)
        log_mu = np.full(len(flat), np.nan)
        if known.any():
            log_mu[known] = self._target.log_at(flat[known]) + self._log_scale
        return np.exp(log_jacobians + log_mu.reshape(log_jacobians.shape))

    def log_likelihood(self) -> Floats:
        """L[phi_t] = integral of rho(x) log rho~_t(x) dx (eq. 6), a sum over the grid's cells, shape (times,).

        The rho in L is the density at the first time, of any mass; cells where rho is 0 are skipped. L increases to the
        integral of rho log rho, from which it differs at each time by `gap` times the mass.
        """
        rho = self.rho[0].ravel()
        held = rho > 0.0
        positions, log_jacobians = self._mover.carry(self.grid.points[held])
        log_mu = self._target.log_at(positions.reshape(-1, self.grid.dimensions)).reshape(log_jacobians.shape)
        return (log_jacobians + log_mu + self._log_scale) @ rho[held] * self.grid.volume

    def log_likelihood_derivative(self, x: Any) -> Floats:
        """The functional derivative of L by phi_t (eq. 7): J(x) u(phi_t(x)), shape (times, rows, d).

        If phi_t becomes phi_t + s w, then dL/ds at s = 0 is the integral over x of w(x) times this derivative. If the
        map id + s v follows phi_t, dL/ds is the integral of v(z) u(z) over z, so that the derivative in terms of z is
        `velocity` itself.

        Args:
            x: Points of the box, shape (rows, d), float32 or float64; a point with a NaN has the result NaN.

        Raises:
            ValueError: the shape is wrong, or points are outside of the box.
        """
        positions, log_jacobians = self.carry(x)
        speeds = [self.velocity(float(t), z) for t, z in zip(self.times, positions, strict=True)]
        return np.exp(log_jacobians)[:, :, None] * np.array(speeds).reshape(positions.shape)

    @property
    def log_likelihood_rate(self) -> Floats:
        """dL/dt = the integral of |u|^2 (eq. 11), never negative, shape (times,)."""
        return -self.gap_rate * (self.mu.sum() * self.grid.volume)

    def _points(self, name: str, value: Any) -> tuple[Floats, NDArray[np.bool_]]:
        points = np.array(_arrays.matrix(name, value, self.grid.dimensions), np.float64)
        known = np.asarray(np.isfinite(points).all(axis=1))
        low, high = self.grid.box.T
        outside = np.flatnonzero(known & ((points < low) | (points > high)).any(axis=1))
        if outside.size:
            row = outside[0]
            raise ValueError(f"{name}: expected points of {self.grid!r}, got {points[row].tolist()} at index {row}")
        return points, known

    def __repr__(self) -> str:
        """The grid, the times, and `kl` at the first and the last time."""
        span = f"times {self.times[0]:g} to {self.times[-1]:g} ({len(self.times)})"
        return f"Evolution({self.grid!r}, {span}, kl {self.kl[0]:.4g} to {self.kl[-1]:.4g})"


def _divergences(rho: Floats, mu: Floats) -> tuple[Floats, Floats]:
    """KL(mu || rho) and KL(rho || mu) for each row of rho, by sums of nonnegative terms."""
    p = mu / mu.sum()
    held = p > 0.0
    f = rho[:, held] / rho.sum(axis=1, keepdims=True) / p[held]
    with np.errstate(divide="ignore"):
        log = np.log(f)
    forward = np.sum(p[held] * (f - 1.0 - log), axis=1)
    backward = np.sum(p[held] * (f * np.where(f > 0.0, log, 0.0) - f + 1.0), axis=1)
    return forward, backward
