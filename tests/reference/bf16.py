"""Networks whose values are rounded to bf16, with sums in float32: equal to the library's bits, as docs/bf16.md states
them.

The terms of a row's sum are products of inputs, in the order of the inputs' levels, and in pairs whose second term is
added first. A multiply-add rounds once: float64 holds the exact product of two bf16 values, and rounding the sum to
float64 before float32 has the same result as rounding to float32.

Values of several parts are sums of several bf16 values. For a pair of inputs, the smaller products of parts are summed
from zero and added to the sum; then the two products of the largest parts are added.
"""

from dataclasses import dataclass

import numpy as np

from .network import reads

LEAST_VALUE, LEAST_WEIGHT = 2.0**-63, 2.0**-47  # smaller values become zero


def rounded(x, least=LEAST_VALUE):
    """The float32 values nearest to `x` with 8 significant bits, halves to even."""
    x = np.asarray(x, np.float32)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    with np.errstate(over="ignore"):
        nearest = np.ldexp(np.rint(mantissa * 256.0), exponent - 8).astype(np.float32)  # rint rounds halves to even
    return np.where(np.abs(x) < least, np.float32(0.0), nearest)


def parts_of(x, parts, least=LEAST_VALUE):
    """The bf16 parts of values, in float64; each part is nearest to the remainder of the parts before it."""
    found, left = [], np.asarray(x, np.float32)
    for _ in range(parts):
        found.append(rounded(left, least))
        with np.errstate(invalid="ignore"):
            left = left - found[-1]
    return [part.astype(np.float64) for part in found]


def _products(parts):
    """The pairs of parts, of a weight and an input, that are multiplied, except for the pair of the largest parts;
    pairs of smaller parts come first."""
    return [(i, order - i) for order in range(parts - 1, 0, -1) for i in range(order, -1, -1)]


def rounded_product(inputs, weights, parts=1, tiles=False):
    """The sums over inputs ``(rows, in)`` of products with weights ``(out, in)``, as ``(rows, out)`` in float32."""
    x, w = parts_of(inputs, parts), parts_of(weights, parts, LEAST_WEIGHT)
    x, w = ([np.ascontiguousarray(part.T) for part in parts] for parts in (x, w))  # each input is a row
    if tiles:
        return _tiled(x, w, [*_products(parts), (0, 0)])
    n, shape = len(x[0]), (x[0].shape[1], w[0].shape[1])
    total, exact = np.zeros(shape, np.float32), np.empty(shape)
    for k in range(0, n, 2):
        rest = np.zeros(shape, np.float32)
        for i, j in _products(parts):
            for member in range(min(k + 1, n - 1), k - 1, -1):
                _add(rest, x[j][member], w[i][member], exact)
        total += rest
        for member in range(min(k + 1, n - 1), k - 1, -1):
            _add(total, x[0][member], w[0][member], exact)
    return total


def _add(total, x, w, exact):
    """One multiply-add for all rows and outputs; ``exact`` is memory for the result in float64."""
    np.multiply(x[:, None], w, out=exact)
    exact += total
    total[...] = exact


def _tiled(x, w, products):
    """Sums in the order of AMX: of 16 pairs, the even and the odd members are summed from zero, and both are added to
    the sum."""
    n, shape = len(x[0]), (x[0].shape[1], w[0].shape[1])
    total, exact = np.zeros(shape, np.float32), np.empty(shape)
    for first in range(0, n, 32):
        for i, j in products:
            sums = [np.zeros(shape, np.float32), np.zeros(shape, np.float32)]
            for k in range(first, min(n, first + 32)):
                _add(sums[k % 2], x[j][k], w[i][k], exact)
            total = total + (sums[0] + sums[1])
    return total


def rounded_sums(inputs, weights, parts=1, tiles=False):
    """The sums of `rounded_product`, added in float64."""
    x, w = parts_of(inputs, parts), parts_of(weights, parts, LEAST_WEIGHT)
    return sum(x[j] @ w[i].T for i, j in [(0, 0), *_products(parts)])


def sorted_units(masks, features, per_output, passive=None):
    """The order in which each layer's inputs are summed: sorted by level, with inputs that no unit reads at the end.

    ``passive``: the coordinates that a network of a coupling reads; otherwise output i belongs to coordinate i.
    """
    inputs = masks[0].shape[1]
    levels = np.zeros(inputs, int)  # a context has level 0
    if passive is None:
        seen = reads(masks)[:, :features].reshape(features, per_output, features).any(axis=1)
        levels[:features] = 1
        for _ in range(features):
            for i in range(features):
                levels[i] = max(levels[i], 1 + max((levels[j] for j in range(features) if seen[i, j]), default=0))
        most = levels.max()
    else:
        levels[: len(passive)] = 1
        most = 2
    by_level = np.full(len(masks[-1]), most) if passive is not None else np.repeat(levels[:features], per_output)
    orders, degree = [np.argsort(levels, kind="stable")], levels
    alive = [np.ones(len(masks[-1]), bool)]
    for mask in masks[:0:-1]:
        alive.insert(0, mask[alive[0]].any(axis=0))
    for mask, live in zip(masks[:-1], alive[:-1], strict=True):
        degree = np.array([max((degree[k] for k in np.flatnonzero(row)), default=0) for row in mask])
        degree[~live] = most
        orders.append(np.argsort(degree, kind="stable"))
    return [*orders, np.argsort(by_level, kind="stable")]


@dataclass(frozen=True)
class RoundedNetwork:
    """A network like `Network`, with ReLU, in float32.

    ``orders`` are results of `sorted_units`, ``parts`` is the number of parts of each value, and ``tiles`` chooses the
    order of sums of AMX.
    """

    weights: list
    biases: list
    masks: list
    orders: list
    parts: int = 1
    tiles: bool = False

    def __call__(self, inputs):
        return self.values(inputs)[-1]

    def dense(self, layer):
        return np.where(self.masks[layer], np.asarray(self.weights[layer], np.float32), np.float32(0.0))

    def values(self, inputs):
        """The inputs of each layer, and the outputs of the last layer."""
        values = [np.asarray(inputs, np.float32)]
        for layer in range(len(self.weights)):
            order = self.orders[layer]
            sums = rounded_product(values[-1][:, order], self.dense(layer)[:, order], self.parts, self.tiles)
            sums = sums + np.asarray(self.biases[layer], np.float32)
            values.append(np.maximum(sums, np.float32(0.0)) if layer + 1 < len(self.weights) else sums)
        return values

    def back(self, inputs, by_outputs, product=rounded_product, values=None):
        """The gradients by the products of each layer, and by the inputs, as if nothing were rounded in the forward
        pass.

        ``product``: `rounded_product` for equal bits, or `rounded_sums`. ``values``: the result of `values` for these
        inputs, if it is known.
        """
        values, found = self.values(inputs) if values is None else values, [by_outputs]
        for layer in reversed(range(len(self.weights))):
            order = self.orders[layer + 1]
            by_value = product(found[0][:, order], self.dense(layer)[order].T, self.parts, self.tiles)
            found.insert(0, by_value if layer == 0 else np.where(values[layer] > 0, by_value, 0))
        return found[1:], found[0]

    def by_weights(self, inputs, by_products, product=rounded_product, block=128):
        """The gradients by weights and biases from the gradients by the products, summed in blocks of rows, and then
        over blocks."""
        weights, biases = [], []
        for layer, (value, gradient) in enumerate(zip(self.values(inputs)[:-1], by_products, strict=True)):
            total = 0.0
            for begin in range(0, len(value), block):
                rows = slice(begin, begin + block)
                total = total + product(gradient[rows].T, value[rows].T, self.parts, self.tiles)
            weights.append(np.where(self.masks[layer], total, 0))
            biases.append(gradient.sum(axis=0, dtype=np.float64))
        return weights, biases
