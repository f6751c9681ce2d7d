"""Sequences of a fit: crops to train on, and held-out steps.

`Crops` is not a `RowSource` (`headrace._fit.source`), because crops are not independent rows of a table: crops share
earlier steps, and moments are computed from all steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace._arrays.row_parts import held_of
from headrace._base.types import Array
from headrace._base.warn import warn
from headrace._fit.given_rows import FAR, FEW, LOOKED_AT, checksum, outside
from headrace._fit.moments import Moments, far_columns

if TYPE_CHECKING:
    from headrace._flow.transforms.support import Support
    from headrace.sequences.arrays import Covariates


_LONGEST = 2**18  # the most steps whose products are summed at a time


@dataclass(frozen=True)
class Stretch:
    """The steps of a sequence that count in a fit, from `begin` to before `end`."""

    sequence: int
    begin: int
    end: int

    @property
    def steps(self) -> int:
        """The number of steps in the stretch."""
        return self.end - self.begin


def spread(stretches: Sequence[Stretch], piece: int, every: int) -> list[Stretch]:
    """Every `every`-th piece of at most `piece` steps, in order; the given stretches if `every` is 1 or less."""
    if every <= 1:
        return list(stretches)
    borders = [(one, begin) for one in stretches for begin in range(one.begin, one.end, piece)]
    return [Stretch(one.sequence, begin, min(begin + piece, one.end)) for one, begin in borders[::every]]


class Batch(NamedTuple):
    """Arguments of `SequenceFlow.nll_and_grad`."""

    x: Array  # (crops, steps, features)
    context: Array | None
    covariates: list[Array] | None
    weights: Array  # (crops, steps)


class OpenSequences:
    """Checked sequences with their contexts, covariates and weights.

    Args:
        arrays: The sequences, each of shape (steps, features).
        context: Context rows, (sequences, columns), or (1, columns) for all sequences; None without context.
        covariates: The frames of each sequence, or of all sequences.
        weights: Weights of the sequences, shape (sequences,); all 1 by default.
        hop: The number of steps from one frame to the next.
        quantised: The step of the grid that values lie on, whose cells give the width of the added noise; None without
            a grid.
        dtype: The dtype of the flow.
        support: The bounds of the flow; None without bounds.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        context: Array | None,
        covariates: Covariates,
        weights: Array | None,
        hop: int,
        quantised: float | None,
        dtype: np.dtype[Any],
        support: Support | None = None,
    ) -> None:
        self.arrays, self.context, self.covariates = list(arrays), context, covariates.arrays
        self.weights = np.ones(len(arrays)) if weights is None else np.asarray(weights, np.float64)
        self.has_weights = weights is not None
        self.quantised, self.dtype, self.support = quantised, dtype, support
        # Steps become float32 only after they are standardised, so that steps far from zero stay precise.
        self.width = np.result_type(np.float32, dtype, *{array.dtype for array in arrays})
        self.hop = hop if self.covariates else 1
        self.every = 1  # crops begin at multiples of `every`, the steps between solutions of an adaptive prediction

    @property
    def lengths(self) -> list[int]:
        """The number of steps of each sequence."""
        return [len(array) for array in self.arrays]

    def whole(self) -> list[Stretch]:
        """A stretch of all steps for each sequence with a positive weight."""
        return [Stretch(i, 0, n) for i, n in enumerate(self.lengths) if self.weights[i] > 0]

    def split(self, share: Any, rng: np.random.Generator) -> tuple[list[Stretch], list[Stretch]]:
        """Stretches to train on, and stretches to hold out: whole sequences, or else the end of each sequence.

        Random whole sequences, at most half of all, are held out if their steps can be between `share` and twice
        `share` of all steps.
        """
        stretches = self.whole()
        total = sum(part.steps for part in stretches)
        held = held_of("validation", share, total)
        if not held:
            return stretches, []
        most, missing = max(held, min(int(2 * share * total + 1e-9), total - 1)), held
        chosen: set[int] = set()
        for i in rng.permutation(len(stretches)).tolist():
            if missing > 0 and stretches[i].steps <= most - held + missing and len(chosen) < len(stretches) // 2:
                chosen.add(i)
                missing -= stretches[i].steps
        if missing <= 0:
            return [part for i, part in enumerate(stretches) if i not in chosen], [stretches[i] for i in sorted(chosen)]
        ends = [min(round(share * part.steps), part.steps - 1) for part in stretches]
        if not any(ends):
            ends[int(np.argmax([part.steps for part in stretches]))] = 1
        borders = [(part, part.end - n) for part, n in zip(stretches, ends, strict=True)]
        kept = [Stretch(part.sequence, part.begin, border) for part, border in borders]
        return kept, [Stretch(part.sequence, border, part.end) for part, border in borders if border < part.end]

    def limit(self, of: str) -> None:
        """Clip the few values of a feature that are far from all others, such as clicks, to the outermost of the
        others, with a warning.

        Far values would hide differences between the other values from networks, and would dominate the loss of
        held-out steps.
        """
        stretches = self.whole()
        ends = np.cumsum([part.steps for part in stretches])
        every = max(int(ends[-1]) // LOOKED_AT, 1)
        blocks = [self.arrays[part.sequence] for part in stretches]
        far = far_columns(np.concatenate([array[::every] for array in blocks]), blocks, FAR["context"])
        far = [column for column in far if len(column.rows) <= FEW * ends[-1]]
        if not far:
            return
        middle, reach = np.zeros(self.arrays[0].shape[1]), np.full(self.arrays[0].shape[1], np.inf)
        for column in far:
            middle[column.column], reach[column.column] = column.middle, column.inner
        self.arrays = [np.clip(array, middle - reach, middle + reach).astype(array.dtype) for array in self.arrays]
        count, first = sum(len(column.rows) for column in far), far[0]
        i = int(np.searchsorted(ends, first.rows[0], side="right"))
        step = first.rows[0] - ends[i] + stretches[i].steps
        warn(
            f"{of}x: {count} value{'s lie' if count > 1 else ' lies'} far from all others, first {first.values[0]:.7g} "
            f"in feature {first.column} at step {step} of sequence {stretches[i].sequence}; the fit takes the "
            f"outermost of the others in its place ({first.inner:.3g} from {first.middle:.3g}); correct such steps, or "
            "leave them out"
        )

    def check_inside(self, of: str, support: Support) -> None:
        """Raise ValueError for values on a bound or beyond it."""
        for i, array in enumerate(self.arrays):
            bad = np.argwhere(outside(array, support))
            if len(bad):
                step, feature = bad[0].tolist()
                hint = "; for counts bounds are half a step out, as (-0.5, None)" if self.quantised is not None else ""
                raise ValueError(
                    f"{of}x: expected values between their bounds, {support.bounds[feature]}, got "
                    f"{array[step, feature]:g} in feature {feature} at step {step} of sequence {i}{hint}"
                )

    def moments(self, stretches: Sequence[Stretch]) -> tuple[Array, Array, Array]:
        """Mean, standard deviation and half the range of each feature over steps, weighted by weights of sequences."""
        moments = Moments()
        for part in stretches:
            values = self.unbounded(self.arrays[part.sequence][part.begin : part.end])
            moments.add(values, np.full(len(values), self.weights[part.sequence]))
        return moments.found()

    def moments_of_context(self, stretches: Sequence[Stretch]) -> tuple[Array, Array, Array]:
        """Mean, standard deviation and half the range of the context's columns over sequences."""
        assert self.context is not None
        moments, index = Moments(), [part.sequence for part in stretches]
        moments.add(self.context[index].astype(np.float64), self.weights[index])
        return moments.found()

    def autocorrelation(self, stretches: Sequence[Stretch], most: int, mean: Array, std: Array) -> Array:
        """Sums of products of standardised features at lags 0 to `most`, shape (most + 1, features); lag 0 includes the
        variance of the noise of cells.
        """
        sums = np.zeros((most + 1, len(mean)))
        for part in stretches:
            for begin in range(part.begin, part.end, _LONGEST):
                end = min(begin + _LONGEST, part.end)
                first = max(begin - most, part.begin)
                values = (self.unbounded(self.arrays[part.sequence][first:end]) - mean) / std
                later = values[begin - first :]
                for lag in range(min(most, len(values)) + 1):
                    before = values[max(begin - first - lag, 0) : len(values) - lag]
                    sums[lag] += self.weights[part.sequence] * (later[len(later) - len(before) :] * before).sum(axis=0)
        if self.quantised is not None and self.support is None:
            steps = sum(self.weights[part.sequence] * part.steps for part in stretches)
            sums[0] += steps * np.square(self.quantised / std) / 12.0
        return sums

    def steps(self, begin: int, end: int, sequence: int, noise: np.random.Generator | None) -> Array:
        """Steps `begin` to before `end` of a sequence, plus uniform noise of grid cells if `noise` is a generator."""
        values = self.arrays[sequence][begin:end].astype(self.width)
        if self.quantised is not None and noise is not None:
            values += self.quantised * (noise.random(values.shape) - 0.5)
            if self.support is not None:  # the end of a cell may be a bound
                values = self.support._inside(values)
        return values

    def unbounded(self, values: Array) -> Array:
        """Values in float64, mapped from the interval between their bounds to the real line."""
        wide = values.astype(np.float64)
        return wide if self.support is None else np.asarray(self.support.inverse(wide)[0])

    def start_of(self, stretch: Stretch, before: int | None) -> int:
        """The first step that densities of a stretch need, at the beginning of a frame; `before`: the number of earlier
        steps on which a density depends, None for all.
        """
        begin = 0 if before is None else max(stretch.begin - before, 0)
        return begin - begin % math.lcm(self.hop, self.every)

    def context_of(self, stretches: Sequence[Stretch]) -> Array | None:
        """The context of each stretch's sequence."""
        if self.context is None or len(self.context) == 1:
            return self.context
        return self.context[[stretch.sequence for stretch in stretches]]

    def frames_of(self, stretch: Stretch, first: int) -> Array:
        """The frames from step `first` to the end of a stretch, and the next frame, for interpolation."""
        frames = self.covariates[0 if len(self.covariates) == 1 else stretch.sequence]
        return frames[first // self.hop : (stretch.end - 1) // self.hop + 2]

    def fingerprint(self) -> dict[str, str]:
        """Texts that identify x, context, covariates and weights, by name."""
        kinds: dict[str, list[Array]] = {
            "x": self.arrays,
            "context": [] if self.context is None else [self.context],
            "covariates": self.covariates,
            "weights": [self.weights] if self.has_weights else [],
        }
        return {name: _text_of(arrays) for name, arrays in kinds.items()}


def _text_of(arrays: list[Array]) -> str:
    if not arrays:
        return "none"
    checked = 0
    for array in arrays:
        checked = checksum(array, checked)
    kind = ", ".join(sorted({array.dtype.name for array in arrays}))
    return f"{kind}, {len(arrays)} of {sum(map(len, arrays))} rows, checksum {checked:08x}"


class Crops:
    """Steps to train on, in crops of at most `crop` steps; an epoch contains each step once.

    Each crop is preceded by the earlier steps on which its densities depend, with weight zero. The gradient of a crop
    is exactly the gradient of the same steps in the whole sequence, and all steps count equally in an epoch.

    Args:
        given: The sequences.
        stretches: The steps to train on.
        crop: The largest number of steps in a crop.
        before: The number of earlier steps on which the density of a step depends; None for all.
    """

    def __init__(self, sequences: OpenSequences, stretches: Sequence[Stretch], crop: int, before: int | None) -> None:
        self.given, self.stretches, self.crop, self.before = sequences, list(stretches), crop, before
        self.size = sum(part.steps for part in stretches)
        self.count = sum(-(-part.steps // crop) for part in stretches)

    def epoch(self, key: int, batches: int) -> Iterator[list[Stretch]]:
        """Yield all crops in random order, in `batches` batches. Each epoch divides sequences at different steps."""
        rng = np.random.default_rng([key, 0])
        crops: list[Stretch] = []
        for part in self.stretches:
            n = -(-part.steps // self.crop)
            first = part.begin - int(rng.integers(n * self.crop - part.steps + 1))
            for begin in range(first, first + n * self.crop, self.crop):
                crops.append(Stretch(part.sequence, max(begin, part.begin), min(begin + self.crop, part.end)))
        order = rng.permutation(len(crops))
        for begin, end in pairwise(len(crops) * i // batches for i in range(batches + 1)):
            yield [crops[i] for i in order[begin:end]]

    def batch(self, crops: Sequence[Stretch], noise: np.random.Generator) -> Batch:
        """The arguments of `nll_and_grad` for crops. Short crops are filled up with steps of weight zero."""
        given = self.given
        starts = [given.start_of(crop, self.before) for crop in crops]
        longest = max(crop.end - start for crop, start in zip(crops, starts, strict=True))
        features = given.arrays[0].shape[1]
        x = np.zeros((len(crops), longest, features), given.width)
        weights = np.zeros((len(crops), longest), given.dtype)
        for row, (crop, start) in enumerate(zip(crops, starts, strict=True)):
            values = given.steps(start, crop.end, crop.sequence, noise)
            x[row, : crop.end - start] = values
            if given.support is not None:  # zero may be out of bounds
                x[row, crop.end - start :] = values[-1]
            weights[row, crop.begin - start : crop.end - start] = given.weights[crop.sequence]
        if not given.covariates:
            return Batch(x, given.context_of(crops), None, weights)
        frames = [given.frames_of(crop, start) for crop, start in zip(crops, starts, strict=True)]
        most = max(-(-longest // given.hop), *map(len, frames))  # the last frame of a shorter crop is repeated
        filled = [np.concatenate([rows, np.repeat(rows[-1:], most - len(rows), axis=0)]) for rows in frames]
        return Batch(x, given.context_of(crops), filled, weights)


class HeldSequences:
    """Held-out steps, whose densities given earlier steps judge a fit."""

    copied = True

    def __init__(self, sequences: OpenSequences, stretches: Sequence[Stretch], before: int | None, seed: int) -> None:
        """`before`: as in `Crops`; `seed`: the seed of the noise of cells, which is the same in each trial."""
        self._stretches, self._given, self._before, self._seed = list(stretches), sequences, before, seed
        self.size = sum(part.steps for part in stretches)
        self._pairs = [(part, sequences.start_of(part, before)) for part in stretches]
        noise = np.random.default_rng([seed, 1])
        self._x = [sequences.steps(start, part.end, part.sequence, noise) for part, start in self._pairs]
        self._covariates = [sequences.frames_of(*pair) for pair in self._pairs] if sequences.covariates else None

    def sample(self, crop: int, most: int) -> HeldSequences:
        """Held-out pieces of at most `crop` steps, spread evenly, about `most` steps in total, or all.

        If a density depends on all earlier steps, sequences stay whole.
        """
        every = max(-(-self.size // max(most, 1)), 1)
        chosen = spread(self._stretches, self.size if self._before is None else crop, every)
        return self if chosen == self._stretches else HeldSequences(self._given, chosen, self._before, self._seed)

    def loss(self, flow: Any, parameters: Array | None = None) -> float:
        """The mean negative log-likelihood of a step; infinity if the sum over steps is not finite."""
        total = weight = 0.0
        for part, scores in zip(self._stretches, self._scored(flow, parameters), strict=True):
            share = float(self._given.weights[part.sequence])
            total -= share * float(scores.sum(dtype=np.float64))
            weight += share * part.steps
        return total / weight if math.isfinite(total) else math.inf

    def log_probs(self, flow: Any, parameters: Array | None = None) -> Array:
        """The log densities of all steps."""
        return np.concatenate(self._scored(flow, parameters)).astype(np.float64)

    def weights(self) -> Array:
        """The weights of all steps."""
        return np.concatenate([np.full(part.steps, self._given.weights[part.sequence]) for part in self._stretches])

    def _scored(self, flow: Any, parameters: Array | None) -> list[Array]:
        context = self._given.context_of(self._stretches)
        scored = flow.log_prob_steps(self._x, context, self._covariates, parameters=parameters)
        return [scores[part.begin - start :] for (part, start), scores in zip(self._pairs, scored, strict=True)]

    def fingerprint(self) -> dict[str, str]:
        """Texts that identify the held-out sequences, by name; see `OpenSequences.fingerprint`."""
        return self._given.fingerprint()
