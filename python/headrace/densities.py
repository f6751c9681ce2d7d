"""Densities to which flows can be fitted: the four energies of Rezende, Mohamed 2015, with the logarithms of the
densities' integrals.

Each density is a function for `headrace.fit_to_density`: a call with rows returns log densities and their gradients.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base.types import Floats

__all__ = ["U1", "U2", "U3", "U4", "Energy"]

Pair = tuple[Floats, Floats]

EDGE = 0.5
"""The standard deviation of the normal tails of U2 to U4 beyond abs(z1) = 4."""

_HALF_WIDTH = 4.0
_ROOT_2PI = math.sqrt(2.0 * math.pi)
_CONFINED = 2.0 * _HALF_WIDTH + EDGE * _ROOT_2PI  # the integral of e^-C over z1


class Energy(abc.ABC):
    """An unnormalised density e^-U(z) of two coordinates.

    >>> import numpy as np, headrace as hr
    >>> value, gradient = hr.densities.U2()(np.array([[0.0, 0.4]]))
    >>> value.tolist(), gradient.round(3).tolist()
    ([-0.5], [[3.927, -2.5]])
    """

    features = 2
    box = ((-4.0, 4.0), (-4.0, 4.0))
    """The usual range of pictures, (lowest, highest) for each coordinate; some of the mass may lie outside."""
    name: str
    log_z: float
    """The logarithm of the integral of e^-U over the plane: a free energy is -log_z plus the KL."""

    def log_density(self, x: NDArray[Any]) -> Floats:
        """The log density -U of each row, shape (rows,), in nats, for x of shape (rows, 2), float32 or float64."""
        return self._evaluate(x)[0]

    def log_density_and_gradient(self, x: NDArray[Any]) -> Pair:
        """The pair ``(-U, -dU/dx)``, shapes (rows,) and (rows, 2), always computed in float64."""
        value, by_first, by_second = self._evaluate(x)
        return value, np.stack([by_first, by_second], axis=1)

    def __call__(self, x: NDArray[Any]) -> Pair:
        """The result of `log_density_and_gradient`."""
        return self.log_density_and_gradient(x)

    def _evaluate(self, x: Any) -> tuple[Floats, Floats, Floats]:
        array = _arrays.matrix("x", x, self.features).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # rows may have infinities and NaN
            return self._terms(array[:, 0], array[:, 1])

    @abc.abstractmethod
    def _terms(self, z1: Floats, z2: Floats) -> tuple[Floats, Floats, Floats]:
        """The log density and its derivatives by both coordinates."""

    def __repr__(self) -> str:
        """The name and log_z."""
        return f"{self.name}(log_z={self.log_z:.6f})"


class U1(Energy):
    """A ring of radius 2 with two heaps: ½((|z| - 2) / 0.4)² - ln(e^-½((z1 - 2) / 0.6)² + e^-½((z1 + 2) / 0.6)²)."""

    name = "U1"
    log_z = 1.8775016261097077  # computed by quadrature in polar coordinates, which a test repeats

    def _terms(self, z1: Floats, z2: Floats) -> tuple[Floats, Floats, Floats]:
        radius = np.hypot(z1, z2)
        off = (radius - 2.0) / 0.4
        # The derivative of |z| is undefined at the origin; 0 is the mean of the derivatives over all directions.
        safe = np.where(radius == 0.0, 1.0, radius)
        heaps, by_heaps = _heaps(((z1 - 2.0) / 0.6, 1.0 / 0.6), ((z1 + 2.0) / 0.6, 1.0 / 0.6))
        return -0.5 * off * off + heaps, by_heaps - off / 0.4 * (z1 / safe), -off / 0.4 * (z2 / safe)


class _Confined(Energy):
    """An energy of z2 given z1, to which a term adds tails along z1: C(z1) = ½(max(|z1| - 4, 0) / EDGE)²."""

    _width: float  # the integral over z2, for any z1, divided by √2π

    def __init__(self) -> None:
        """Compute log_z; the integral over z2 is the same for every z1."""
        self.log_z = math.log(self._width * _ROOT_2PI * _CONFINED)

    def _terms(self, z1: Floats, z2: Floats) -> tuple[Floats, Floats, Floats]:
        beyond = np.maximum(np.abs(z1) - _HALF_WIDTH, 0.0) / EDGE
        value, by_first, by_second = self._across(z1, z2)
        return value - 0.5 * beyond * beyond, by_first - beyond / EDGE * np.sign(z1), by_second

    @abc.abstractmethod
    def _across(self, z1: Floats, z2: Floats) -> tuple[Floats, Floats, Floats]:
        """The log density without the confinement C, and its derivatives by both coordinates."""


class U2(_Confined):
    """A wave: ½((z2 - w1) / 0.4)² + C, w1 = sin(2π z1 / 4); C = ½(max(|z1| - 4, 0) / 0.5)² makes e^-U integrable."""

    name = "U2"
    _width = 0.4

    def _across(self, z1: Floats, z2: Floats) -> tuple[Floats, Floats, Floats]:
        wave, slope = _wave(z1)
        off = (z2 - wave) / 0.4
        return -0.5 * off * off, off / 0.4 * slope, -off / 0.4


class _Two(_Confined):
    """An energy with two waves, of which the second is shifted down by a function of z1."""

    _widths: tuple[float, float]

    def _across(self, z1: Floats, z2: Floats) -> tuple[Floats, Floats, Floats]:
        wave, slope = _wave(z1)
        shift, shift_slope = self._shift(z1)
        first, second = self._widths
        a, b = (z2 - wave) / first, (z2 - wave + shift) / second
        value, by_first = _heaps((a, -slope / first), (b, (shift_slope - slope) / second))
        _, by_second = _heaps((a, 1.0 / first), (b, 1.0 / second))
        return value, by_first, by_second

    @staticmethod
    @abc.abstractmethod
    def _shift(z1: Floats) -> Pair:
        """The shift of the second wave, and the derivative of the shift."""


class U3(_Two):
    """A wave that splits and joins: -ln(e^-½((z2 - w1) / 0.35)² + e^-½((z2 - w1 + w2) / 0.35)²) + C.

    w2 = 3 e^-½((z1 - 1) / 0.6)²; w1 and C as in `U2`.
    """

    name = "U3"
    _widths = (0.35, 0.35)
    _width = 0.35 + 0.35

    @staticmethod
    def _shift(z1: Floats) -> Pair:
        place = (z1 - 1.0) / 0.6
        shift = 3.0 * np.exp(-0.5 * place * place)
        return shift, -place / 0.6 * shift


class U4(_Two):
    """A wave that splits: -ln(e^-½((z2 - w1) / 0.4)² + e^-½((z2 - w1 + w3) / 0.35)²) + C.

    w3 = 3 / (1 + e^-((z1 - 1) / 0.3)); w1 and C as in `U2`.
    """

    name = "U4"
    _widths = (0.4, 0.35)
    _width = 0.4 + 0.35

    @staticmethod
    def _shift(z1: Floats) -> Pair:
        half = 0.5 * (1.0 + np.tanh((z1 - 1.0) / 0.6))  # the logistic function without overflow
        return 3.0 * half, 3.0 / 0.3 * half * (1.0 - half)


def _wave(z1: Floats) -> Pair:
    """The wave w1 and its derivative by z1."""
    turn = 0.5 * math.pi * z1
    return np.sin(turn), 0.5 * math.pi * np.cos(turn)


def _heaps(first: tuple[Floats, Any], second: tuple[Floats, Any]) -> Pair:
    """The logarithm ln(e^-½a² + e^-½b²) and its derivative, from (a, da) and (b, db)."""
    (a, slope_a), (b, slope_b) = first, second
    share = 0.5 * (1.0 + np.tanh(0.25 * (b * b - a * a)))  # the share of e^-½a² in the sum
    value = np.logaddexp(-0.5 * a * a, -0.5 * b * b)
    return value, -share * a * slope_a - (1.0 - share) * b * slope_b
