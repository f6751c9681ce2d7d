"""The ascent by kinks in NumPy, by the formulas of `reference.ascent`, with the interface of the core's ascent."""

import numpy as np

from reference import ascent


class Points:
    """Rows that an ascent moves from data towards latent values, in float64."""

    def __init__(self, x, weights, dtype):
        self.z = np.asarray(x, dtype).astype(float)
        self.features, self.weights = x.shape[1], None if weights is None else weights.astype(float)
        self.logs = np.zeros(self.z.shape)

    def step(self, kinks, matrix, order):
        a, b, c, center, square = kinks.T
        r = np.sqrt(square + (self.z - center) ** 2)
        self.logs += np.log(a + c * (self.z - center) / r)
        self.z = (a * self.z + b + c * r)[:, order] @ matrix.T

    def values(self):
        return self.z


class Ascent:
    """An ascent with the arguments and results of `_cuda.AscentF64`, except for streams."""

    def __init__(self, points, anchors, held_out, total, held_out_total, precision, neighbours, rule, most):
        self.points, self.anchors, self.held_out = points, anchors, held_out
        self.total, self.held_out_total, self.precision = total, held_out_total, precision
        self.neighbours, self.rule = neighbours, rule
        n = points.features
        self.last = np.stack([np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n)], axis=1)
        self.chosen, self.judged, self.found = [], [], []

    def move(self, matrix, order):
        parties = [party for party in (self.points, self.anchors, self.held_out) if party is not None]
        before = self.points.logs.copy()
        for party in parties:
            party.step(self.last, matrix, order)
        if self.chosen:  # the matrix is orthogonal: its transpose recovers φ
            turned = np.empty_like(self.points.z)
            turned[:, order] = self.points.z @ matrix
            terms = self.points.logs - before, turned**2
            self.found.append(np.stack([np.average(t, axis=0, weights=self.points.weights) for t in terms], axis=1))
        self.judge()

    def kink(self, matrix, blocks, order, rows, drawn):
        whole, start, numbers = np.zeros((len(order), len(order))), 0, np.asarray(matrix, float).ravel()
        for size in blocks:
            whole[start : start + size, start : start + size] = numbers[: size * size].reshape(size, size)
            numbers, start = numbers[size * size :], start + size
        self.move(whole, list(order))
        kinks = []
        for k, (row, draw) in enumerate(zip(rows, drawn, strict=True)):
            center = self.anchors.z[row, k] if row >= 0 else draw
            epsilon = ascent.width(center, 0.5, self.precision, self.neighbours)
            x = self.points.z[:, k]
            bent = ascent.chosen(x, center, epsilon, self.precision, self.rule, self.points.weights)
            kinks.append([*bent, center, epsilon**2])
        self.last = np.array(kinks)
        self.chosen.append(self.last)

    def finish(self):
        n = len(self.last)
        self.move(np.eye(n), list(range(n)))

    def judge(self):
        def of(party, total):
            terms = party.logs.sum(axis=1) - 0.5 * self.precision * np.square(party.z).sum(axis=1)
            return float(np.sum(terms if party.weights is None else party.weights * terms)) / total

        others = np.nan if self.held_out is None else of(self.held_out, self.held_out_total)
        self.judged.append((of(self.points, self.total), others))

    def kinks(self):
        return np.array(self.chosen).reshape(-1, *self.last.shape)

    def log_likelihoods(self):
        return np.array(self.judged).reshape(-1, 2)

    def terms(self):
        """The means ⟨log φ'⟩ and ⟨φ²⟩ for each kink that has been chosen."""
        return np.array(self.found).reshape(-1, len(self.last), 2)
