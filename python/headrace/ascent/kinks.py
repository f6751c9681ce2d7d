"""The ascent of the lecture notes: each step is a rotation, then a line with a kink for every coordinate (eq. 25)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._flow.transforms.transform import Transform
from headrace.ascent import directions as _directions
from headrace.ascent.ascent import Ascent, Judged, kink_map
from headrace.ops._points import Chosen, Points

ANCHORS = 1024  # the number of rows from which centers are drawn
CHECKED_SHARDS = 8  # the number of shards whose checked rows represent all shards
STRIDE = 16  # the steps that are queued on a device before their gains are read


class KinkAscent(Ascent):
    """An ascent with the steps of the lecture notes (docs/dual_ascent.md).

    A kink is chosen in the pass that takes rows through the preceding kink and sums the gain of that kink: gains are
    therefore known one kink late. On a device, gains are read every `STRIDE` steps. The random values of queued steps
    come from a copy of the generator, so that steps that are queued but never taken do not change the state of the
    fit's generator.
    """

    default_directions = "random"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.turns: list[_directions.Turn] = []
        self.chosen: Chosen | None = None

    def taken(self) -> Iterator[Judged]:
        """Take all steps and yield log-likelihoods; see `Ascent`."""
        s, device = self.settings, self.rows.device
        self.chosen = chosen = self._begin()
        size = 1 if device is not None else 8  # the block size for which multiplication by the identity costs least
        none = _directions.Turn.none([min(size, self.n - start) for start in range(0, self.n, size)])
        ahead, read = copy.deepcopy(self.rng), 0
        states = [ahead.bit_generator.state]
        for step in range(1, self.n_steps + 2):  # one step more, to measure the last gain
            if step <= self.n_steps:
                self.turns.append(self._next_turn(ahead))
                for turn in [self.turns[-1], *[none] * (s.kinks - 1)]:
                    rows, drawn = self._centers(ahead)
                    chosen.kink(turn.blocks, turn.places(), rows.tolist(), drawn.tolist())
                states.append(ahead.bit_generator.state)
            else:
                chosen.finish()
            if device is None or step > self.n_steps or step % STRIDE == 0:
                for means in chosen.log_likelihoods()[:: s.kinks][read:].tolist():
                    self.rng.bit_generator.state = states[read]
                    yield self._judged((means[0], means[1]))
                    read += 1

    def _begin(self) -> Chosen:
        """Make the points at the start of the ascent; return the object that chooses kinks."""
        s, rows = self.settings, self.rows
        self.points, self.held_out = (
            [Points(z, weights, s.dtype, keeps_log_jacobian=False) for z, weights in of]
            for of in (self.own, self.others)
        )
        # Checked rows of the first few shards represent the rows of all shards.
        self.is_checked, self.others_checked = (
            [] if of is None else [shard.number < CHECKED_SHARDS for shard in of.shards]
            for of in (rows.source, rows.judge)
        )
        return Chosen(
            self.points,
            Points(self._anchors(), None, np.float64),
            self.held_out,
            rows.source,
            precision=s.precision,
            neighbours=s.neighbours / (2.0 * self.effective_rows),
            rule=s.rule,
            most=self.n_steps * s.kinks,
            checked=(self.is_checked, self.others_checked),
        )

    def transforms(self, count: int) -> list[list[Transform]]:
        """The transforms of the first `count` steps; see `Ascent`."""
        assert self.chosen is not None
        each, steps = self.settings.kinks, []
        kinks = self.chosen.kinks()[: count * each].transpose(0, 2, 1)
        for i, turn in enumerate(self.turns[:count]):
            links = self._turn_transforms(turn)
            for a, b, c, center, square in kinks[i * each : (i + 1) * each]:
                lines = self._lines(a, b, c / a, center, np.sqrt(square))
                links.insert(0, kink_map(lines, self.settings.dtype))
            steps.append(links)
        return steps

    def checks(self) -> tuple[list[Judged], Any, Any]:
        """Log-likelihoods after each step and the indices of their rows; see `Ascent`."""
        if self.chosen is None:
            return [], None, None
        means = self.chosen.log_likelihoods()[:: self.settings.kinks].tolist()
        if self.rows.device is not None:  # on a device, a pass over all rows is as fast as over a few
            return [self._judged((row[0], row[1])) for row in means], None, None
        checked = [(self.points, self.is_checked), (self.held_out, self.others_checked)]
        training, held_out = (
            [points.checked_rows()[: None if is_checked else 0] for points, is_checked in zip(*of, strict=True)]
            for of in checked
        )
        return [self._judged((row[2], row[3])) for row in means], training, held_out

    def coordinates(self, count: int) -> list[Floats]:
        """The log-likelihood of each coordinate after each step; see `Ascent`."""
        if self.chosen is None or self.rows.device is not None:
            return []
        p, each = self.settings.precision, self.settings.kinks
        terms = self.chosen.terms()[: count * each]
        logs = terms[:, :, 0].reshape(-1, each, self.n).sum(axis=1)
        each_step = logs - 0.5 * p * terms[each - 1 :: each, :, 1] + 0.5 * np.log(p / (2.0 * np.pi))
        return [self._of_all(of_step, np.nan) for of_step in each_step]

    def _next_turn(self, rng: np.random.Generator) -> _directions.Turn:
        if self.directions == "random":
            return self._turn([], rng)
        assert self.chosen is not None
        kinks = self.chosen.kinks()

        def moved(z: Floats) -> Floats:
            """The points z after the last chosen kinks, which the stored points have not passed yet."""
            if not len(kinks):
                return z
            a, b, c, center, square = kinks[-1].T
            return a * z + b + c * np.sqrt(square + np.square(z - center))

        return self._turn(self._places(), rng, moved)

    def _places(self) -> list[Any]:
        """The current values of the training points, one array for each part."""
        return [points.values() for points in self.points]

    def _anchors(self) -> Floats:
        """The standardised values of up to ANCHORS rows at the start, from which centers are drawn."""
        count, parts = self.count, [z for z, _ in self.own]
        if self.rows.group is not None:
            return self.rows.source.picked(self.rng.choice(count, min(ANCHORS, count), replace=False), parts)
        return parts[0][self.library.asarray(self.rng.permutation(count)[:ANCHORS])]  # an index on the points' device

    def _centers(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        """The centers of the next kinks: about half are values of anchor rows, and the rest are drawn from the base.

        The result is the index of an anchor row for each coordinate, or -1 for a center from the base, and the values
        drawn from the base.
        """
        rows = rng.integers(min(ANCHORS, self.count), size=(self.n,))
        drawn = rng.standard_normal((self.n,)) * self.rows.unit
        return np.where(rng.random(self.n) < 0.5, rows, -1), drawn
