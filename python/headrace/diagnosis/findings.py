"""Results of a diagnosis: the finding of one test, and the verdict of several tests together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace._base.layout import Block, Grid, Item, lines_of
from headrace.diagnosis.sizes import Size

LEVEL = 0.05  # the significance level of all tests together
COORDINATES = "latent coordinates"
SHARES = "shares of values"
OF_COLUMNS = (
    "rows without a density",
    SHARES,
    COORDINATES,
    "independence",
    "dependence on the context",
    "farthest number",
)


@dataclass(frozen=True)
class Finding:
    """One test of a density.

    `p_value` is the probability of a result at least as extreme as the observed one, if the density is right.
    """

    name: str
    """A short name, such as "latent coordinates"."""
    p_value: float
    looked: int
    """The number of statistics in the test, which `p_value` takes into account."""
    sentence: str
    """A description of the most extreme statistic and its size."""
    adjusted: float = 1.0
    """The p-value corrected for the number of tests, by Holm's method: at most 0.05 if the test rejects the density."""

    @property
    def misses(self) -> bool:
        """Whether the test rejects the density at the 5 % level, corrected for the number of tests."""
        return self.adjusted <= LEVEL


class Tested:
    """A density after some tests."""

    tests: tuple[Finding, ...]
    size: Size
    least_right: str
    """The column, or the value of a step, with the largest misfit, its conditions, and the direction of the misfit."""

    def blocks(self) -> list[Block]:
        """The paragraphs and tables of the printed text."""
        raise NotImplementedError

    def __str__(self) -> str:
        """The printed text, which fits one screen."""
        return "\n".join(lines_of(self.blocks()))

    @property
    def p_value(self) -> float:
        """The p-value of all tests together: the smallest p-value with Bonferroni's correction; 1 without tests."""
        return min((test.adjusted for test in self.tests), default=1.0)

    @property
    def misses(self) -> tuple[Finding, ...]:
        """The tests that reject the density at the 5 % level, the smallest p-value first."""
        return tuple(sorted((test for test in self.tests if test.misses), key=lambda test: test.p_value))

    @property
    def grade(self) -> str:
        """ "very good", "usable" or "wrong", by the sizes of the misfit; "" if no size was measured."""
        return self.size.grade

    @property
    def verdict(self) -> str:
        """The grade with its sizes, the column with the largest misfit if a test rejects the density, and the
        p-value.
        """
        return " ".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """The sentences of the verdict, the p-value last."""
        if not self.tests:
            return ["Nothing was tested."]
        looked = sum(test.looked for test in self.tests)
        after, level = f"after looking at {f'{looked:,} numbers' if looked > 1 else 'one number'}", f"{100 * LEVEL:g} %"
        lines = [f"{self.grade.capitalize()}: {self.size.sentence}."] if self.grade else []
        if not self.misses:
            return [*lines, f"Nothing speaks against it at the {level} level {after}."]
        first = next((test for test in self.misses if test.name in OF_COLUMNS), self.misses[0])
        least = self.least_right if first.name == COORDINATES else ""
        against = f"{len(self.misses)} of {len(self.tests)} tests speak against it at the {level} level"
        return [*lines, f"Least right: {least or first.sentence}.", f"{against} ({p_text(self.p_value)} {after})."]

    def summary(self) -> dict[str, Any]:
        """Verdict, sizes and tests as values and texts for JSON."""
        tests = [{**vars(test), "misses": test.misses} for test in self.tests]
        summary = {"verdict": self.verdict, "grade": self.grade, "size": dict(vars(self.size))}
        return {**summary, "least_right": self.least_right, "p_value": self.p_value, "tests": tests}

    def evidence(self, next_steps: Sequence[str] = ()) -> list[Block]:
        """The paragraphs and tables of all tests."""
        blocks: list[Block] = []
        if next_steps:
            blocks += ["", "what to do next", *map(Item, next_steps)]
        if self.misses:
            misses = [(test.name, p_text(test.p_value), test.sentence) for test in self.misses]
            blocks += ["", "what speaks against it (p-values of each test alone)"]
            blocks += [Grid((), misses, wraps=(2,), indent="  ")]
        if rest := [f"{test.name} ({p_text(test.p_value)})" for test in self.tests if not test.misses]:
            blocks += ["", "what does not", Item(", ".join(rest), rest="  ")]
        return blocks


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: for each α, a true hypothesis has a value up to α with a probability of at most α.

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
    """The p-value of `least`, the smallest of `looked` p-values, which may depend on each other (Bonferroni)."""
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
    """A value with three digits, and a hyphen for a minus sign, which all terminals show."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.3e}"


def with_error(error: float) -> str:
    """The error of a mean as a text such as " ± 0.0100"; empty for NaN, as for one row or an infinite mean."""
    return "" if math.isnan(error) else f" ± {error:.4f}"
