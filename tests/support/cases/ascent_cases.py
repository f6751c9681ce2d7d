"""Data and references for the tests of ascents."""

import numpy as np
import pytest

import ascent_judge
import cases
from headrace._core import cpu
from headrace.ascent import directions as _directions
from points_cases import points_of

every_rule = pytest.mark.parametrize("rule", ["newton", "gradient"])


def bent(rows=600, features=2, *key):
    """Rows that are far from normal: a banana in the first two columns, and a skewed last column."""
    g = cases.rng("bent", rows, features, *key)
    x = g.standard_normal((rows, features))
    if features > 1:
        x[:, 1] += x[:, 0] ** 2
    x[:, -1] = np.expm1(0.7 * x[:, -1])
    return 3.0 * x - 5.0


def standardised(x, precision=1.0):
    return (x - x.mean(0)) / x.std(0) / np.sqrt(precision)


FINE = {"float32": 2e-4, "float64": 1e-9}  # tolerances of values after some steps, over which roundings add up


def plan_of(features, kinks, each, size, anchors):
    """For each kink a turn, and for each of its centers the index of a row of the anchors, or -1 for a given value."""
    g = cases.rng("ascent", features, kinks, each)
    sizes = [min(size, features - start) for start in range(0, features, size)]
    turns = []
    for k in range(kinks):
        turn = _directions.random_turn(sizes, g) if k % each == 0 else _directions.Turn.none([1] * features)
        rows = np.where(g.random(features) < 0.5, g.integers(anchors, size=features), -1)
        turns.append((turn, rows, g.standard_normal(features)))
    return turns


def places_of(turn):
    return [len(block) for block in turn.blocks], turn.places()


def far_from_normal(rows, features, dtype, *key):
    x = cases.rows(rows, features, dtype, *key)
    return x + (0.5 * np.roll(x, 1, axis=1) ** 2 - 0.5).astype(dtype)


def judged(x, weights, held_out, anchors, plan, precision, neighbours, rule):
    """The ascent in NumPy (tests/support/ascent_judge.py), after all kinks of a plan."""
    dtype = x.dtype.name
    judge = ascent_judge.Ascent(
        ascent_judge.Points(x, weights, dtype),
        ascent_judge.Points(anchors.astype(float), None, "float64"),
        ascent_judge.Points(held_out, None, dtype),
        *(_total(x, weights), float(len(held_out)), precision, neighbours / (2.0 * len(x)), rule, len(plan)),
    )
    for turn, rows, drawn in plan:
        judge.kink(_numbers(turn), *places_of(turn), rows, drawn)
    judge.finish()
    return judge


class HostAscent:
    """An ascent of one process on the CPU, whose rows are one part."""

    def __init__(self, x, weights, held_out, anchors, most, precision=1.0, neighbours=50.0, rule="newton"):
        dtype = x.dtype.name
        points = {"float32": cpu.PointsF32, "float64": cpu.PointsF64}[dtype]
        kind = {"float32": cpu.AscentF32, "float64": cpu.AscentF64}[dtype]
        self.points = points(x, weights, False)
        others = [] if held_out is None else [points(held_out, None, False)]
        self.ascent = kind(
            *([self.points], cpu.PointsF64(anchors.astype(float), None), others),
            *(precision, neighbours / (2.0 * len(x)), rule, most, [True], [True] * len(others)),
            lambda parts: parts.sum(axis=0),
        )

    def kink(self, turn, rows, drawn):
        self.ascent.kink(_numbers(turn), *places_of(turn), list(rows), list(drawn))

    def found(self):
        """The kinks, shape (count, n, 5), and the log-likelihoods, shape (count + 1, 2), of all rows."""
        return self.ascent.kinks(), self.ascent.log_likelihoods()[:, :2]

    def run(self, plan):
        """Add the kinks of a plan; return all kinks, the log-likelihoods, and the points at the end."""
        for kink in plan:
            self.kink(*kink)
        self.ascent.finish()
        return *self.found(), self.points.values()


class DeviceAscent:
    """An ascent on a device with the arguments and results of `HostAscent`."""

    def __init__(self, device, x, weights, held_out, anchors, most, precision=1.0, neighbours=50.0, rule="newton"):
        dtype = x.dtype.name
        self.device, self.stream = device, device.stream
        self.points = points_of(device, x, weights, dtype)
        self.anchors = points_of(device, anchors.astype(float), None, "float64")
        self.held_out = None if held_out is None else points_of(device, held_out, None, dtype)
        kind = {"float32": device.module.AscentF32, "float64": device.module.AscentF64}[dtype]
        others, n_others = (None, 1.0) if held_out is None else (self.held_out.points, float(len(held_out)))
        self.ascent = kind(
            *(self.points.points, self.anchors.points, others, _total(x, weights), n_others, precision),
            *(neighbours / (2.0 * len(x)), rule, most, self.stream),
        )

    def kink(self, turn, rows, drawn):
        self.ascent.kink(_numbers(turn), *places_of(turn), rows, drawn, self.stream)

    def found(self):
        """The kinks and the log-likelihoods, with the shapes of `HostAscent.found`."""
        return self.ascent.kinks(self.stream), self.ascent.log_likelihoods(self.stream)

    def run(self, plan):
        """Add the kinks of a plan; return the kinks, the log-likelihoods and the points, as `HostAscent.run` does."""
        for kink in plan:
            self.kink(*kink)
        self.ascent.finish(self.stream)
        return *self.found(), self.points.values()


def ascent_on(core, *arguments):
    """An ascent on the device of a core (tests/support/cores.py), which may be the CPU."""
    return HostAscent(*arguments) if core.name == "cpu" else DeviceAscent(core.device, *arguments)


def _total(x, weights):
    return float(len(x)) if weights is None else float(weights.sum(dtype=float))


def _numbers(turn):
    return np.concatenate([np.ravel(block) for block in turn.blocks])
