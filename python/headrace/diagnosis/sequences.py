"""Tests of a density of sequences, whose latent steps should be independent draws of the base.

Autocorrelations of latent values show effects of the past on values that a network has not learnt, and autocorrelations
of absolute latent values show effects of the past on levels. The distribution of latent values shows whether the shape
of a step's density is right.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.layout import Block, Grid
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Floats
from headrace.diagnosis import distributions as of
from headrace.diagnosis import latent
from headrace.diagnosis.findings import Finding, Tested, holm, least_of, number
from headrace.diagnosis.latent import scores
from headrace.diagnosis.picture import draw_sequences
from headrace.diagnosis.sizes import Size, missing_nats

LAGS, CLASSES, CELLS = 40, 5, 20
REGRESSED = 10  # the earlier steps in a regression of a latent step
WINDOW = 400  # the largest number of steps around a step over which loudness is measured


@public("headrace.diagnosis")
@dataclass(frozen=True, repr=False)
class SequenceDiagnosis(Tested):
    """The result of `headrace.diagnose_sequences`, whose text `print` shows."""

    kind: str
    """The flow's class."""
    sequences: int
    steps: int
    nats: float
    """The mean log density of a step."""
    error: float
    """The standard error of `nats`, from the sequences, or from ten parts of a single sequence."""
    tests: tuple[Finding, ...]
    autocorrelation: Floats = field(compare=False)
    """Autocorrelations of latent values as standard normal scores, shape (lags, features), from lag 1 on."""
    autocorrelation_of_sizes: Floats = field(compare=False)
    """Autocorrelations of sizes of latent values, which are standard normal scores and not squares, because products of
    squares have long tails."""
    integral_transform: Floats = field(compare=False)
    """Counts of the probability integral transform of each feature in cells of equal width, shape (cells, features)."""
    pairs: NDArray[np.int64] = field(compare=False)
    """The number of pairs of steps at each lag, shape (lags,)."""
    loudness: tuple[tuple[float, float, float], ...]
    """Classes of equally many steps, from quiet to loud: the lowest and the highest loudness, and the mean log
    density."""
    size: Size = field(default_factory=partial(Size, unit="step"))
    """The sizes of the misfit, which determine the grade."""
    least_right: str = ""

    def summary(self) -> dict[str, Any]:
        """The whole record as values and texts for JSON."""
        arrays = ("autocorrelation", "autocorrelation_of_sizes", "integral_transform")
        results = {name: getattr(self, name) for name in ("kind", "sequences", "steps", "nats", "error")}
        results |= {name: getattr(self, name).tolist() for name in arrays}
        return {**super().summary(), **results, "loudness": [list(pair) for pair in self.loudness]}

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw distribution, autocorrelations and loudness to a file in a format of matplotlib, such as signal.png.

        Raises:
            ImportError: matplotlib is not installed.
            OSError, ValueError: the file cannot be written.
        """
        draw_sequences(self, os.fspath(path))

    def __repr__(self) -> str:
        """The verdict."""
        return f"SequenceDiagnosis({self.kind}, steps={self.steps}: {self.verdict})"

    def blocks(self) -> list[Block]:
        """The paragraphs and tables of the printed text."""
        by_loudness = [(number(low), "to", number(high), f"{nats:.4f}") for low, high, nats in self.loudness]
        return [
            f"{self.kind}, looked at with {self.sequences:,} sequences of {self.steps:,} steps in all",
            "",
            *self.sentences,
            "",
            f"mean log-likelihood, nats a step: {self.nats:.4f} ± {self.error:.4f}",
            *self.evidence(),
            "",
            "nats a step by loudness (root of the mean square, in standard deviations)",
            Grid((), by_loudness, right=(0, 2, 3), indent="  "),
        ]


@takes_rng
def diagnose_sequences(
    flow: Any, x: Any, context: Any = None, *, covariates: Any = None, seed: int = 0, rng: Rng = None
) -> SequenceDiagnosis:
    """Test a fitted density of sequences with sequences that it has not seen.

    Under the right density, latent steps are independent draws of the base: their distribution, autocorrelations and
    autocorrelations of absolute values are tested, and judged together by Holm's method at 5 %.

    Args:
        flow: A `SequenceFlow`, on any device, which is tested on the CPU.
        x: Held-out sequences, as in `SequenceFlow.log_prob`.
        context: As in `SequenceFlow.log_prob`.
        covariates: As in `SequenceFlow.log_prob`.
        seed: The seed of all draws.
        rng: A generator instead of `seed`; see `Flow.sample`.

    Returns:
        A `SequenceDiagnosis`, whose text `print` shows; it also has the mean log density of steps by loudness.

    Raises:
        TypeError, ValueError: As in `SequenceFlow.log_prob`; or x has integers, for which a density is not defined.
    """
    flow, seed = flow if flow.device == "cpu" else flow.to("cpu"), check.integer("seed", seed)
    arrays = [np.asarray(array) for array in (x if isinstance(x, (list, tuple)) else _three_axes(x))]
    if any(array.dtype.kind in "iub" for array in arrays):
        raise TypeError("x: expected floats, because latent values are those of a density, got integers; call .astype")
    steps = flow.log_prob_steps(arrays, context, covariates)
    z, _ = flow.to_latent(arrays, context, covariates)
    of_sequence = [scores(flow.base, np.asarray(latents), seed) for latents in z]
    score = np.concatenate(of_sequence)
    if not np.isfinite(score).all():
        raise ValueError("x: expected sequences with finite latent values, got some without")
    labels, called = ["a latent value"], ["a step given the past"]
    if (values := score.shape[1]) > 1:
        labels = [f"latent value {i + 1}" for i in range(values)]
        called = [f"value {i + 1} of a step given the past" for i in range(values)]
    own_sizes = [latent.sizes(values_of) for values_of in of_sequence]
    signed, sized = _autocorrelations(of_sequence), _autocorrelations(own_sizes)
    gains = [missing_nats(score, seed), gain_of_the_past(of_sequence), gain_of_the_past(own_sizes)]
    nats, gain_error = max(gains, key=lambda pair: -math.inf if math.isnan(pair[0]) else pair[0])
    tests = [
        latent.coordinates(score, labels),
        _of_lags("autocorrelation", "{} and that {} steps before have correlation {:.4f}", signed, labels),
        _of_lags("autocorrelation of sizes", "the sizes of {} and of that {} steps before have {:.4f}", sized, labels),
    ]
    if values > 1:
        tests.append(latent.correlations(score, labels)[0])
    adjusted = holm([test.p_value for test in tests])
    log_prob = np.concatenate([np.asarray(densities, np.float64) for densities in steps])
    return SequenceDiagnosis(
        kind=type(flow).__name__,
        sequences=len(arrays),
        steps=len(log_prob),
        nats=float(log_prob.mean()),
        error=_error(steps),
        tests=tuple(replace(test, adjusted=p) for test, p in zip(tests, adjusted, strict=True)),
        autocorrelation=signed[0],
        autocorrelation_of_sizes=sized[0],
        integral_transform=_cells(score),
        pairs=signed[1],
        loudness=_by_loudness(arrays, log_prob),
        size=Size(nats=nats, nats_error=gain_error, unit="step"),
        least_right=latent.least_right(score, called),
    )


def _three_axes(x: Any) -> NDArray[Any]:
    array = np.asarray(x)
    if array.ndim not in (2, 3):
        raise ValueError(f"x: expected shape (rows, steps, features) or (steps, features), got {array.shape}")
    return array[None] if array.ndim == 2 else array


def _autocorrelations(sequences: list[Floats]) -> tuple[Floats, NDArray[np.int64]]:
    """Autocorrelations from lag 1 on, given mean 0 and variance 1, and the number of pairs of steps at each lag."""
    most = min(LAGS, max(map(len, sequences)) - 1)
    sums, pairs = np.zeros((most, sequences[0].shape[1])), np.zeros(most, np.int64)
    for z in sequences:
        for lag in range(1, min(most, len(z) - 1) + 1):
            sums[lag - 1] += (z[lag:] * z[:-lag]).sum(axis=0)
            pairs[lag - 1] += len(z) - lag
    return sums / np.maximum(pairs, 1)[:, None], pairs


def gain_of_the_past(sequences: list[Floats]) -> tuple[float, float]:
    """The mean gain in nats of a regression on earlier values, fitted to the first half, and the standard error."""
    long = [z for z in sequences if len(z) > REGRESSED]
    if sum(len(z) - REGRESSED for z in long) < 10 * REGRESSED:
        return math.nan, math.nan
    now = np.concatenate([z[REGRESSED:] for z in long])
    past = np.concatenate([sliding_window_view(z[:-1], REGRESSED, axis=0) for z in long])
    half, gained = len(now) // 2, 0.0
    for value, before in zip(now.T, past.transpose(1, 0, 2), strict=True):
        slopes = np.linalg.lstsq(before[:half], value[:half], rcond=None)[0]
        rest = value - before @ slopes
        variance = max(float(np.square(rest[:half]).mean()), of.TINY)
        gained = gained + 0.5 * (np.square(value) - np.square(rest) / variance - math.log(variance))[half:]
    each = np.asarray(gained)
    return float(each.mean()), float(each.std()) / math.sqrt(len(each))


def _of_lags(name: str, text: str, by_lag: tuple[Floats, NDArray[np.int64]], labels: list[str]) -> Finding:
    """The test of the largest autocorrelation: a mean of products of independent normal values is nearly normal."""
    values, pairs = by_lag
    if not values.size:
        return Finding(name, 1.0, 1, "there is no second step")
    p = 2.0 * of.normal_tail(np.abs(values) * np.sqrt(pairs)[:, None])
    lag, feature = np.unravel_index(int(p.argmin()), p.shape)
    sentence = text.format(labels[feature], lag + 1, values[lag, feature])
    return Finding(name, least_of(float(p.min()), p.size), p.size, sentence)


def _error(steps: Any) -> float:
    """The standard error of the mean log density of a step; NaN for one step."""
    parts = [np.asarray(part, np.float64) for part in steps]
    if len(parts) == 1:
        parts = np.array_split(parts[0], min(10, len(parts[0])))
    sizes = np.array([len(part) for part in parts])
    mean = np.concatenate(parts).mean()
    away = np.array([(part - mean).sum() for part in parts])
    n = len(parts)
    return float(math.sqrt(np.square(away).sum() * n / max(n - 1, 1)) / sizes.sum()) if n > 1 else math.nan


def _cells(score: Floats) -> Floats:
    below = 1.0 - of.normal_tail(score)
    return np.stack([np.histogram(column, CELLS, (0.0, 1.0))[0] for column in below.T], axis=1).astype(np.float64)


def _by_loudness(arrays: list[NDArray[Any]], log_prob: Floats) -> tuple[tuple[float, float, float], ...]:
    """Classes of equally many steps by loudness, the root of the mean square over the steps around a step."""
    joined = np.concatenate(arrays).astype(np.float64)
    mean, std = joined.mean(axis=0), np.maximum(joined.std(axis=0), of.TINY)
    loud = []
    for array in arrays:
        square = np.square((array - mean) / std).mean(axis=1)
        width = min(WINDOW, len(square))
        total = np.concatenate([[0.0], np.cumsum(square)])
        begin = np.clip(np.arange(len(square)) - width // 2, 0, len(square) - width)
        loud.append(np.sqrt(np.maximum(total[begin + width] - total[begin], 0.0) / width))
    loudness = np.concatenate(loud)
    order = np.argsort(loudness, kind="stable")
    classes = [part for part in np.array_split(order, CLASSES) if len(part)]
    ends = [(float(loudness[part[0]]), float(loudness[part[-1]])) for part in classes]
    return tuple((*pair, float(log_prob[part].mean())) for pair, part in zip(ends, classes, strict=True))
