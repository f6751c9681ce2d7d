"""Sequences of a fit: crops to train on, and held-out steps.

Crops are no `RowSource` (`headrace._fit.source`): they are no independent rows of a table, but overlap in the steps
before them, and moments are those of all steps.
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


_LONGEST = 2**18  # steps of a sum of products in one piece


@dataclass(frozen=True)
class Stretch:
    """Steps of a sequence that count, from `begin` to before `end`."""

    sequence: int
    begin: int
    end: int

    @property
    def steps(self) -> int:
        """Their number."""
        return self.end - self.begin


def spread(stretches: Sequence[Stretch], piece: int, every: int) -> list[Stretch]:
    """Each `every`-th piece of `piece` steps or fewer, in order; whole stretches where that is each one."""
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
        arrays: Shape (steps, features) each.
        context: Shape (sequences, columns), or (1, columns) for all; None for none.
        covariates: Frames of each, or of all.
        weights: Shape (sequences,).
        hop: Steps of a frame.
        quantised: The step of the grid on which values lie, each of which gets noise of its cell; None for none.
        dtype: Of the flow.
        support: Its bounds.
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
        # Steps become float32 after they are standardised, so that steps far from zero stay precise.
        self.width = np.result_type(np.float32, dtype, *{array.dtype for array in arrays})
        self.hop = hop if self.covariates else 1
        self.every = 1  # steps from one solution of an adaptive prediction to the next, which crops keep

    @property
    def lengths(self) -> list[int]:
        """Steps of each sequence."""
        return [len(array) for array in self.arrays]

    def whole(self) -> list[Stretch]:
        """All steps of the sequences that have a weight."""
        return [Stretch(i, 0, n) for i, n in enumerate(self.lengths) if self.weights[i] > 0]

    def split(self, share: Any, rng: np.random.Generator) -> tuple[list[Stretch], list[Stretch]]:
        """Steps to train on, and steps to hold out: whole sequences, or else the end of each.

        Whole sequences in random order, at most half of them, if these have the share of the steps without more than
        twice as many.
        """
        stretches = self.whole()
        total = sum(one.steps for one in stretches)
        held = held_of("validation", share, total)
        if not held:
            return stretches, []
        most, left = max(held, min(int(2 * share * total + 1e-9), total - 1)), held
        chosen: set[int] = set()
        for i in rng.permutation(len(stretches)).tolist():
            if left > 0 and stretches[i].steps <= most - held + left and len(chosen) < len(stretches) // 2:
                chosen.add(i)
                left -= stretches[i].steps
        if left <= 0:
            return [one for i, one in enumerate(stretches) if i not in chosen], [stretches[i] for i in sorted(chosen)]
        ends = [min(round(share * one.steps), one.steps - 1) for one in stretches]
        if not any(ends):
            ends[int(np.argmax([one.steps for one in stretches]))] = 1
        borders = [(one, one.end - n) for one, n in zip(stretches, ends, strict=True)]
        kept = [Stretch(one.sequence, one.begin, border) for one, border in borders]
        return kept, [Stretch(one.sequence, border, one.end) for one, border in borders if border < one.end]

    def limit(self, of: str) -> None:
        """Limit the few values of a feature that are far from all others, such as clicks, to the outermost of these,
        with a warning.

        As inputs of networks they would hide the differences of the other values, and in held-out steps they would
        decide alone.
        """
        stretches = self.whole()
        ends = np.cumsum([one.steps for one in stretches])
        every = max(int(ends[-1]) // LOOKED_AT, 1)
        blocks = [self.arrays[one.sequence] for one in stretches]
        found = far_columns(np.concatenate([array[::every] for array in blocks]), blocks, FAR["context"])
        found = [one for one in found if len(one.rows) <= FEW * ends[-1]]
        if not found:
            return
        middle, reach = np.zeros(self.arrays[0].shape[1]), np.full(self.arrays[0].shape[1], np.inf)
        for one in found:
            middle[one.column], reach[one.column] = one.middle, one.inner
        self.arrays = [np.clip(array, middle - reach, middle + reach).astype(array.dtype) for array in self.arrays]
        count, first = sum(len(one.rows) for one in found), found[0]
        i = int(np.searchsorted(ends, first.rows[0], side="right"))
        step = first.rows[0] - ends[i] + stretches[i].steps
        warn(
            f"{of}x: {count} value{'s lie' if count > 1 else ' lies'} far from all others, first {first.values[0]:.7g} "
            f"in feature {first.column} at step {step} of sequence {stretches[i].sequence}; the fit takes the "
            f"outermost of the others in its place ({first.inner:.3g} from {first.middle:.3g}); correct such steps, or "
            "leave them out"
        )

    def check_inside(self, of: str, support: Support) -> None:
        """Refuse values on a bound or beyond."""
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
        """Mean, deviation and half the range of the features over steps; weights are those of sequences."""
        found = Moments()
        for one in stretches:
            values = self.unbounded(self.arrays[one.sequence][one.begin : one.end])
            found.add(values, np.full(len(values), self.weights[one.sequence]))
        return found.found()

    def moments_of_context(self, stretches: Sequence[Stretch]) -> tuple[Array, Array, Array]:
        """Moments of the context's columns over sequences."""
        assert self.context is not None
        found, index = Moments(), [one.sequence for one in stretches]
        found.add(self.context[index].astype(np.float64), self.weights[index])
        return found.found()

    def autocorrelation(self, stretches: Sequence[Stretch], most: int, mean: Array, std: Array) -> Array:
        """Autocorrelation of standardised features, at lags 0 to `most`, shape (most + 1, features); with the noise of
        cells.
        """
        found = np.zeros((most + 1, len(mean)))
        for one in stretches:
            for begin in range(one.begin, one.end, _LONGEST):
                end = min(begin + _LONGEST, one.end)
                first = max(begin - most, one.begin)
                values = (self.unbounded(self.arrays[one.sequence][first:end]) - mean) / std
                own = values[begin - first :]
                for lag in range(min(most, len(values)) + 1):
                    before = values[max(begin - first - lag, 0) : len(values) - lag]
                    found[lag] += self.weights[one.sequence] * (own[len(own) - len(before) :] * before).sum(axis=0)
        if self.quantised is not None and self.support is None:
            steps = sum(self.weights[one.sequence] * one.steps for one in stretches)
            found[0] += steps * np.square(self.quantised / std) / 12.0
        return found

    def steps(self, begin: int, end: int, sequence: int, noise: np.random.Generator | None) -> Array:
        """Steps of a sequence, with noise of their cells."""
        values = self.arrays[sequence][begin:end].astype(self.width)
        if self.quantised is not None and noise is not None:
            values += self.quantised * (noise.random(values.shape) - 0.5)
            if self.support is not None:  # the end of a cell may be a bound
                values = self.support._inside(values)
        return values

    def unbounded(self, values: Array) -> Array:
        """Values in float64, off their support."""
        wide = values.astype(np.float64)
        return wide if self.support is None else np.asarray(self.support.inverse(wide)[0])

    def start_of(self, one: Stretch, before: int | None) -> int:
        """The first step that densities of a stretch need, at the beginning of a frame; `before` None: all steps
        before.
        """
        begin = 0 if before is None else max(one.begin - before, 0)
        return begin - begin % math.lcm(self.hop, self.every)

    def context_of(self, stretches: Sequence[Stretch]) -> Array | None:
        """The context of each."""
        if self.context is None or len(self.context) == 1:
            return self.context
        return self.context[[one.sequence for one in stretches]]

    def frames_of(self, one: Stretch, first: int) -> Array:
        """Frames of the steps from `first` on, and the next one, to which the last is interpolated."""
        own = self.covariates[0 if len(self.covariates) == 1 else one.sequence]
        return own[first // self.hop : (one.end - 1) // self.hop + 2]

    def fingerprint(self) -> dict[str, str]:
        """The fingerprint of everything given, by name."""
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
    """Steps to train on, in crops of at most this many steps; an epoch has each step once.

    A crop begins with the steps before it on which its densities depend, which do not count. Its gradient is
    therefore exactly that of its steps in the whole sequence, and each step has the same share in an epoch.

    Args:
        given: The sequences.
        stretches: The steps of them to train on.
        crop: Steps of a crop, at most.
        before: Steps on which the density of a step depends; None: all.
    """

    def __init__(self, given: OpenSequences, stretches: Sequence[Stretch], crop: int, before: int | None) -> None:
        self.given, self.stretches, self.crop, self.before = given, list(stretches), crop, before
        self.size = sum(one.steps for one in stretches)
        self.count = sum(-(-one.steps // crop) for one in stretches)

    def epoch(self, key: int, batches: int) -> Iterator[list[Stretch]]:
        """All crops in a new order, in this many batches. Borders between the crops of a sequence move."""
        rng = np.random.default_rng([key, 0])
        crops: list[Stretch] = []
        for one in self.stretches:
            n = -(-one.steps // self.crop)
            first = one.begin - int(rng.integers(n * self.crop - one.steps + 1))
            for begin in range(first, first + n * self.crop, self.crop):
                crops.append(Stretch(one.sequence, max(begin, one.begin), min(begin + self.crop, one.end)))
        order = rng.permutation(len(crops))
        for begin, end in pairwise(len(crops) * i // batches for i in range(batches + 1)):
            yield [crops[i] for i in order[begin:end]]

    def batch(self, crops: Sequence[Stretch], noise: np.random.Generator) -> Batch:
        """The arguments of a step. Short crops are filled up behind their end, where weights are zero."""
        given = self.given
        starts = [given.start_of(one, self.before) for one in crops]
        longest = max(one.end - start for one, start in zip(crops, starts, strict=True))
        features = given.arrays[0].shape[1]
        x = np.zeros((len(crops), longest, features), given.width)
        weights = np.zeros((len(crops), longest), given.dtype)
        for row, (one, start) in enumerate(zip(crops, starts, strict=True)):
            values = given.steps(start, one.end, one.sequence, noise)
            x[row, : one.end - start] = values
            if given.support is not None:  # zero may be no value of theirs
                x[row, one.end - start :] = values[-1]
            weights[row, one.begin - start : one.end - start] = given.weights[one.sequence]
        if not given.covariates:
            return Batch(x, given.context_of(crops), None, weights)
        frames = [given.frames_of(one, start) for one, start in zip(crops, starts, strict=True)]
        most = max(-(-longest // given.hop), *map(len, frames))  # the last frame of a shorter crop is repeated
        filled = [np.concatenate([own, np.repeat(own[-1:], most - len(own), axis=0)]) for own in frames]
        return Batch(x, given.context_of(crops), filled, weights)


class HeldSequences:
    """Steps to judge by, each given all steps before it."""

    copied = True

    def __init__(self, given: OpenSequences, stretches: Sequence[Stretch], before: int | None, seed: int) -> None:
        """`before`: as of `Crops`; `seed`: of noise of cells, which is the same in each trial."""
        self._stretches, self._given, self._before, self._seed = list(stretches), given, before, seed
        self.size = sum(one.steps for one in stretches)
        self._pairs = [(one, given.start_of(one, before)) for one in stretches]
        noise = np.random.default_rng([seed, 1])
        self._x = [given.steps(start, one.end, one.sequence, noise) for one, start in self._pairs]
        self._covariates = [given.frames_of(*pair) for pair in self._pairs] if given.covariates else None

    def sample(self, crop: int, most: int) -> HeldSequences:
        """Pieces of at most `crop` steps, spread evenly over all, of about `most` steps together; all if these are few.

        If a density depends on all steps before, sequences stay whole.
        """
        every = max(-(-self.size // max(most, 1)), 1)
        chosen = spread(self._stretches, self.size if self._before is None else crop, every)
        same = chosen == self._stretches
        return self if same else HeldSequences(self._given, chosen, self._before, self._seed)

    def loss(self, flow: Any, parameters: Array | None = None) -> float:
        """The mean negative log-likelihood of a step; infinity where it is not finite."""
        total = weight = 0.0
        for one, own in zip(self._stretches, self._scored(flow, parameters), strict=True):
            share = float(self._given.weights[one.sequence])
            total -= share * float(own.sum(dtype=np.float64))
            weight += share * one.steps
        return total / weight if math.isfinite(total) else math.inf

    def log_probs(self, flow: Any, parameters: Array | None = None) -> Array:
        """The log densities of all steps."""
        return np.concatenate(self._scored(flow, parameters)).astype(np.float64)

    def weights(self) -> Array:
        """The weights of all steps."""
        return np.concatenate([np.full(one.steps, self._given.weights[one.sequence]) for one in self._stretches])

    def _scored(self, flow: Any, parameters: Array | None) -> list[Array]:
        context = self._given.context_of(self._stretches)
        found = flow.log_prob_steps(self._x, context, self._covariates, parameters=parameters)
        return [own[one.begin - start :] for (one, start), own in zip(self._pairs, found, strict=True)]

    def fingerprint(self) -> dict[str, str]:
        """The fingerprint of the given sequences."""
        return self._given.fingerprint()
