"""Sizes of a misfit: how well a classifier tells rows from draws, missing nats, and columns of latent coordinates.

P-values shrink with the number of rows; sizes do not. The grade depends on sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace._base.types import Floats
from headrace._flow.transforms.restriction import chain_of
from headrace.diagnosis.judged_rows import stream
from headrace.diagnosis.likelihood import Likelihood
from headrace.diagnosis.recalibration import LEAST_ROWS, gains

MOST_ROWS = 4000  # the most rows for the map that shows missing nats
FARTHEST = 38.0  # the largest score: its tail probability is 1e-315
PROBED, NAMED = 16, 3  # rows by which a coordinate's columns are found; the most columns in a sentence

COLUMN = "latent column "  # labels of latent coordinates that belong to one column begin with this text

# Grades, best first, each with the largest sizes: the share of pairs in which the classifier recognises the row,
# missing nats, and the share of rows without a density. The limits were chosen by `python -m bench.diagnosis.grades`.
GRADES = (("very good", 0.55, 0.02, 0.0), ("usable", 0.65, 0.1, 0.01))
WORST = "wrong"


@dataclass(frozen=True)
class Size:
    """Sizes of a misfit that do not depend on the number of rows; NaN for a size that was not measured."""

    known: float = math.nan
    """The share of pairs of a row and a draw in which a classifier recognises the row: 0.5 under the right density."""
    pairs: int = 0
    nats: float = math.nan
    """The gain of corrected latent coordinates (`headrace.recalibrate`) on rows that the correction has not seen, or
    the gain of a simple density: a lower limit of the missing nats."""
    nats_error: float = math.nan
    nowhere: float = 0.0
    """The share of rows without a density."""
    unit: str = "row"

    @property
    def grade(self) -> str:
        """ "very good", "usable" or "wrong", by each size minus one standard error; "" if no size was measured."""
        if math.isnan(self.known) and math.isnan(self.nats) and not self.nowhere:
            return ""
        known = self.known - (0.5 / math.sqrt(self.pairs) if self.pairs else 0.0)
        nats = self.nats - (0.0 if math.isnan(self.nats_error) else self.nats_error)
        for name, *limits in GRADES:
            if not any(size > most for size, most in zip((known, nats, self.nowhere), limits, strict=True)):
                return name
        return WORST

    @property
    def sentence(self) -> str:
        """The sizes in words, without a full stop."""
        parts = []
        if not math.isnan(self.known):
            parts.append(f"a classifier tells rows from draws in {self.known:.1%} of pairs (50 % is perfect)")
        if not math.isnan(self.nats):
            error = "" if math.isnan(self.nats_error) else f" ± {self.nats_error:.3f}"
            missing = f"at least {self.nats:.3f}{error} nats a {self.unit} are missing"
            parts.append(missing if self.nats > 0.0 else f"no correction finds nats that are missing ({error[1:]})")
        if self.nowhere:
            parts.append(f"{self.nowhere:.2%} of the rows have density 0")
        return ", ".join(parts)

    def beside(self, likelihoods: Sequence[Likelihood]) -> Size:
        """A copy in which `nats` is the gain of a simple density over the flow, if this gain is larger."""
        more = [(-density.gain, density.gain_error) for density in likelihoods[1:] if math.isfinite(density.gain)]
        nats, error = max(more, default=(math.nan, math.nan))
        known = 0.0 if math.isnan(self.nats) else self.nats
        return replace(self, nats=nats, nats_error=error) if nats > known else self


def missing_nats(score: Floats, seed: int) -> tuple[float, float]:
    """The mean gain by a correction of scores, on rows that it was not fitted to, and the error; NaN for few rows."""
    if len(score) < LEAST_ROWS:
        return math.nan, math.nan
    if len(score) > MOST_ROWS:
        score = score[np.sort(stream(seed, 10).choice(len(score), MOST_ROWS, replace=False))]
    gained = gains(np.clip(score, -FARTHEST, FARTHEST), None, seed)
    return float(gained.mean()), float(gained.std()) / math.sqrt(len(gained))


def columns_of(flow: Any, x: Any, context: Any, names: Sequence[str]) -> list[tuple[int, str]] | None:
    """For each latent coordinate, the index of its column, and the names of the columns that are its conditions.

    The result is None if a transform mixes columns, such as a rotation. A column is a condition of a coordinate if, in
    any of a few rows, a change of the column changes the coordinate.
    """
    features = flow.features
    try:
        kept = chain_of(flow.transforms, range(features)[::-1])[1] if features > 1 else (0,)
    except ValueError:
        return None
    column = {latent: features - 1 - i for i, latent in enumerate(kept)}
    rows = np.asarray(x[:PROBED])
    of_rows = None if context is None else context[:PROBED]
    before, depends = np.asarray(flow.to_latent(rows, of_rows)[0]), np.zeros((features, features), bool)
    for j in range(features):
        moved = rows.copy()
        moved[:, j] = np.roll(moved[:, j], 1)  # another row's value, which lies between the bounds of the column
        depends[:, j] = (np.asarray(flow.to_latent(moved, of_rows)[0]) != before).any(axis=0)
    return [(column[i], _given(i, column[i], depends[i], names, flow.context)) for i in range(features)]


def _given(coordinate: int, column: int, depends: Any, names: Sequence[str], context: int) -> str:
    others = [names[j] for j in np.flatnonzero(depends).tolist() if j != column]
    if len(others) > NAMED and len(others) == len(names) - 1:
        others = ["all others"]
    elif len(others) > NAMED:
        others[NAMED - 1 :] = [f"{len(others) - NAMED + 1} more"]
    return listed([*others, *(["the context"] if context else [])])


def listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
    ('a, b and c', 'a', '')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
