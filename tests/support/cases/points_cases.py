"""The step of dual ascent by its formulas, with which the steps of the CPU and of devices are compared."""

import numpy as np

import cases
from headrace.ops._points import Points


def maps_of(features, *key):
    """Random maps of coordinates, with the columns bend, center and square."""
    g = cases.rng("maps", features, *key)
    columns = [0.5 * np.tanh(g.standard_normal(features)), g.standard_normal(features)]
    return np.stack([*columns, g.uniform(0.3, 1.5, features) ** 2], axis=1)


def a_step(features, *key, block=None):
    """The arguments of `Points.step`; if `block` is a size of blocks, the step also permutes coordinates."""
    g = cases.rng("step", features, *key)
    sizes = [min(block or features, features - start) for start in range(0, features, block or features)]
    blocks = [np.linalg.qr(g.standard_normal((n, n)))[0] * g.uniform(0.5, 2.0, n) for n in sizes]
    next_map, order = maps_of(features, "next", *key)[:, 1:], g.permutation(features) if block else None
    return maps_of(features, *key), float(g.standard_normal()), blocks, g.standard_normal(features), next_map, order


def dense(blocks, order):
    """The dense matrix of a permutation followed by diagonal blocks."""
    n = sum(map(len, blocks))
    matrix, start = np.zeros((n, n)), 0
    for block in blocks:
        matrix[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    places = np.arange(n) if order is None else order
    return matrix @ np.eye(n)[places]


def reference(x, weights, maps, log_scale, blocks, shift, next_map, order=None):
    """The step computed from its formulas in float64."""
    z = np.asarray(x, np.float64)
    bend, center, square = maps.T
    r = np.sqrt(square + (z - center) ** 2)
    log_jacobian = np.log1p(bend * (z - center) / r).sum(axis=1) + log_scale
    z = (z + bend * r) @ dense(blocks, order).T + shift
    center, square = next_map.T
    r = np.sqrt(square + (z - center) ** 2)
    terms = [z, z * z, r, z * r, (z - center) / r, 1.0 / (r * r)]
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    return z, log_jacobian, np.stack([(w[:, None] * t).sum(axis=0) for t in terms], axis=1)


def assert_sums(got, want, rows, z, dtype):
    """Compare sums of `rows` terms of order |z|², added in lanes of 4096 rows, relative to the sum of magnitudes."""
    magnitude = max(1.0, float((np.asarray(z) ** 2).max(initial=1.0))) * 16  # 1/r² is at most 1 / 0.3²
    assert np.abs(got - want).max(initial=0.0) <= max(rows, 1) * magnitude * cases.tolerance(dtype, 1)


class DevicePoints:
    """Points on a device with the arguments and results of `headrace.ops._points.Points`."""

    def __init__(self, device, x, weights, dtype):
        kinds = {"float32": device.module.PointsF32, "float64": device.module.PointsF64}
        self.device, self.dtype, self.shape = device, dtype, x.shape
        self.kept = x, weights
        self.points = kinds[dtype](device.tuple(x), device.tuple(weights), device.index, device.stream)

    def step(self, maps, log_scale, blocks, bias, next=None, order=None):
        numbers, sizes = np.concatenate([np.ravel(block) for block in blocks]), [len(block) for block in blocks]
        places = list(range(len(bias)) if order is None else order)
        return self.points.step(maps, log_scale, numbers, bias, next, sizes, places, self.device.stream)

    def values(self):
        out = self.device.empty(self.shape, self.dtype)
        self.points.values(self.device.tuple(out), self.device.stream)
        return self.device.numpy(out)

    def squares(self):
        out = self.device.empty(self.shape[:1], "float64")
        self.points.squares(self.device.tuple(out), self.device.stream)
        return self.device.numpy(out)

    def log_jacobian(self):
        out = self.device.empty(self.shape[:1], "float64")
        self.points.log_jacobian(self.device.tuple(out), self.device.stream)
        return self.device.numpy(out)


def points_on(core, x, weights, dtype):
    """Points of a core (tests/support/cores.py), with the arguments and results of `headrace.ops._points.Points`."""
    return Points(x, weights, dtype) if core.name == "cpu" else points_of(core.device, x, weights, dtype)


def points_of(device, x, weights, dtype):
    return DevicePoints(device, device.array(x), None if weights is None else device.array(weights), dtype)


def weights_of(rows, dtype):
    return cases.rng("weights", rows).uniform(0.0, 2.0, rows).astype(dtype)
