"""An ascent by kinks as `_cuda` has it, by the CPU's points and the choices of `_kinks`: what judges the device's."""

import numpy as np

from headrace import _cpu, _kinks


class Points:
    """Those of `_cpu`, and what they were made of."""

    def __init__(self, x, weights, dtype):
        kind = {"float32": _cpu.PointsF32, "float64": _cpu.PointsF64}[dtype]
        self.features, self.weights = x.shape[1], None if weights is None else weights.astype(float)
        core = kind(x, weights)
        self.step, self.values = core.step, core.values
        self.squares, self.log_jacobian = core.squares, core.log_jacobian


class Ascent:
    """With the arguments and results of `_cuda.AscentF64`, without streams."""

    def __init__(self, points, anchors, held_out, total, held_out_total, precision, neighbours, rule, most):
        self.points, self.anchors, self.held_out = points, anchors, held_out
        self.total, self.held_out_total, self.precision = total, held_out_total, precision
        self.neighbours, self.rule = neighbours, rule
        n = points.features
        self.last = np.stack([np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n)], axis=1)
        self.chosen, self.judged = [], []

    def kink(self, matrix, blocks, order, rows, drawn):
        a, b, c, center, square = self.last.T
        maps, scale, order = np.stack([c / a, center, square], axis=1), float(np.log(a).sum()), np.asarray(order)
        ends, parts = np.cumsum(blocks)[:-1], np.split(np.asarray(matrix).ravel(), np.cumsum(np.square(blocks))[:-1])
        parts = [part.reshape(size, size) for part, size in zip(parts, blocks, strict=True)]
        shift = np.concatenate([part @ of for part, of in zip(parts, np.split(b[order], ends), strict=True)])
        numbers = [(part * of).ravel() for part, of in zip(parts, np.split(a[order], ends), strict=True)]
        step = maps, scale, np.concatenate(numbers), shift
        for party in (self.anchors, self.held_out):
            if party is not None:
                party.step(*step, None, list(blocks), list(order))
        rows = np.asarray(rows)
        at = self.anchors.values()[np.maximum(rows, 0), np.arange(len(rows))]
        center = np.where(rows >= 0, at, drawn)
        epsilon = _kinks.width(center, 0.5, self.neighbours, self.precision)
        following = np.stack([center, epsilon * epsilon], axis=1)
        sums = self.points.step(*step, following, list(blocks), list(order))
        self.judge()
        a, b, c, _ = _kinks.bent_line(sums / self.total, following, self.precision, self.rule)
        self.last = np.stack([a, b, c, center, following[:, 1]], axis=1)
        self.chosen.append(self.last)

    def finish(self):
        a, b, c, center, square = self.last.T
        n = len(a)
        step = np.stack([c / a, center, square], axis=1), float(np.log(a).sum()), a, b, None, [1] * n, list(range(n))
        for party in (self.points, self.held_out):
            if party is not None:
                party.step(*step)
        self.judge()

    def judge(self):
        def of(party, total):
            terms = party.log_jacobian() - 0.5 * self.precision * party.squares()
            return float(np.sum(terms if party.weights is None else party.weights * terms)) / total

        others = np.nan if self.held_out is None else of(self.held_out, self.held_out_total)
        self.judged.append((of(self.points, self.total), others))

    def kinks(self):
        return np.array(self.chosen).reshape(-1, *self.last.shape)

    def log_likelihoods(self):
        return np.array(self.judged).reshape(-1, 2)
