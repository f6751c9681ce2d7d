"""Findings of a diagnosis: one test, and several of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05  # of all tests together


@dataclass(frozen=True)
class Finding:
    """One test of a density.

    `p_value` is the probability of something at least as odd, were the density the right one.
    """

    name: str
    """Short, as "latent coordinates"."""
    p_value: float
    looked: int
    """The number of statistics it looked at; `p_value` takes that into account."""
    sentence: str
    """The oddest of them with its size, in words."""
    adjusted: float = 1.0
    """The p-value among all tests, by Holm's method: at most 0.05 where the test speaks against the density."""

    @property
    def misses(self) -> bool:
        """Whether it speaks against the density at the 5 % level, among all tests."""
        return self.adjusted <= LEVEL


class Tested:
    """A density after some tests."""

    tests: tuple[Finding, ...]

    @property
    def p_value(self) -> float:
        """The p-value of all tests together (Holm's, that is Bonferroni's, of the smallest); 1 without tests."""
        return min((one.adjusted for one in self.tests), default=1.0)

    @property
    def misses(self) -> tuple[Finding, ...]:
        """The tests that speak against the density at the 5 % level, the clearest first."""
        return tuple(sorted((one for one in self.tests if one.misses), key=lambda one: one.p_value))

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if not self.tests:
            return "Nothing was tested."
        looked = sum(one.looked for one in self.tests)
        numbers = "one number" if looked == 1 else f"{looked:,} numbers"
        if self.misses:
            first = self.misses[0]
            return f"The density misses ({p_text(self.p_value)} after looking at {numbers}): {first.sentence}."
        return f"Nothing speaks against it at the {100 * LEVEL:g} % level after looking at {numbers}."


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those at most a level are rejected, and one right hypothesis is with no greater probability.

    Source: S. Holm, Scandinavian Journal of Statistics 6, 1979.

    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, most = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = most
    return adjusted


def least_of(least: float, looked: int) -> float:
    """The p-value of the smallest of several, for any dependence between them (Bonferroni)."""
    return min(1.0, least * looked)


def p_text(p_value: float) -> str:
    """A p-value in a sentence.

    >>> p_text(0.0321), p_text(3.2e-7), p_text(0.0)
    ('p = 0.032', 'p = 3e-07', 'p < 1e-99')
    """
    if p_value < 1e-99:
        return "p < 1e-99"
    return f"p = {p_value:.2g}" if p_value >= 1e-3 else f"p = {p_value:.0e}"


def number(value: float) -> str:
    """Three digits, with a true minus sign left out for the sake of terminals."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.3e}"
