"""Which columns a fit replaces by their residuals: some always, others if a short fit is better on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._base.types import Floats
from headrace._fit import marginals as _marginals
from headrace._fit.given_rows import Moments
from headrace._fit.residuals import ALWAYS, ROUNDS, TRIED, Residuals, measured
from headrace._fit.run import HeldOut, Run
from headrace._fit.source import ArrayRows, RowSource
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.transform import Transform

LEAST_GAIN = 0.05  # nats: with residuals the first steps are easier, and less decides nothing about the end

Links = tuple[Transform, ...]


def decided(found: Residuals, more: Residuals, runs: Sequence[Run], held_out: HeldOut, progress: bool) -> Residuals:
    """The columns of `ALWAYS`, or also those of `TRIED` where held-out rows gain by them in a trial of both."""
    keeps = _marginals.gain(runs[0], runs[1], held_out, True, progress)
    return found if keeps or not _gain_of(runs[0], runs[1], held_out) > LEAST_GAIN else more


def candidates(source: ArrayRows, scale: Moments, dtype: np.dtype[Any]) -> tuple[Residuals, Residuals]:
    """The columns that are always replaced, and those with the ones that a trial decides about."""
    return measured(source, scale, ALWAYS, dtype), measured(source, scale, TRIED, dtype)


def shared(source: RowSource, found: Residuals, features: int) -> Residuals:
    """The residual columns of the first process."""
    return _of_array(source.broadcast(_as_array(found, np.zeros((ROUNDS + 1, features + 2, features)))))


def _gain_of(before: Run, after: Run, held_out: HeldOut) -> float:
    """Nats that held-out rows gain from one run to the other, in their present states."""
    weights = held_out.weights()
    gains = held_out.log_probs(after.flow, after.current()) - held_out.log_probs(before.flow, before.current())
    return float((gains * weights).sum() / weights.sum())


def _as_array(found: Residuals, numbers: Floats) -> Floats:
    """The links, round by round from the data's side, and the shares of variance behind them."""
    pairs = list(zip(found.links[::2], found.links[1::2], strict=True))[::-1]
    for own, (scale, linear) in zip(numbers, pairs, strict=False):
        assert isinstance(scale, Standardize)
        assert isinstance(linear, Linear)
        own[:-2], own[-2], own[-1] = linear.to_matrix()[0], scale.mean, scale.std
    for i, shares in enumerate((found.shares, found.rounding)):
        for c, share in shares.items():
            numbers[-1, i, c] = share
    return numbers


def _of_array(numbers: Floats) -> Residuals:
    links: Links = ()
    for own in numbers[:-1]:
        if own[-1].any():
            links = (Standardize(own[-2], own[-1]), Linear._shear(own[:-2]), *links)
    replaced, rounding = ({int(c): float(row[c]) for c in np.flatnonzero(row)} for row in numbers[-1, :2])
    return Residuals(links, replaced, rounding)
