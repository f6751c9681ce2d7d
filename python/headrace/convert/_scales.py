"""Functions that compute a scale from a raw parameter, recognised by their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.convert._parts import ACTIVATIONS, GRID, Layers, Numbers, Place, call_in_torch, values_of

LEAST_SLOPE = 1e-30  # the slope that replaces 0, which a map refuses; scales of trained models are far larger

Bend = Callable[[Layers, NDArray[np.bool_]], None]
"""A function that adds layers, for a scale's formula, to a network whose outputs are raw scales where a mask is set."""

SHAPES: dict[str, Callable[[Numbers], Numbers]] = {
    "softplus": ACTIVATIONS["softplus"],
    "sigmoid": lambda x: ACTIVATIONS["sigmoid"](x + 2.0),
    "exp": np.exp,
}


def scale_of(
    place: Place, function: Any, call: Callable[[Any, Numbers], Any] = call_in_torch
) -> tuple[dict[str, Any], Bend | None]:
    """The settings of an affine map for a scale function, and a `Bend` for further layers; None without such layers."""
    values = values_of(place, function, call)
    if (bounded := _bounded(values)) is not None:
        return {"scale": "exp"}, partial(_saturate, *bounded)
    most = float(values.max())
    for name, shape in SHAPES.items():
        standard = shape(GRID)
        slope = float(values[0] - standard[0])
        if not -1e-7 <= slope < 1.0 or (name == "exp" and abs(slope) > 1e-7):
            continue
        slope = max(round(slope, 9), LEAST_SLOPE)  # further digits are rounding errors of float32
        settings = {"scale": name} if name == "exp" else {"scale": name, "slope": slope}
        if np.allclose(values, standard + slope, rtol=1e-6, atol=1e-6):
            return settings, None
        if name == "softplus" and np.allclose(values, np.minimum(standard + slope, most), rtol=1e-6, atol=1e-6):
            return settings, partial(_cut_off, most, slope)
    known = "softplus(a) + c, cut off or not, sigmoid(a + 2) + c, exp(a) or exp(c tanh(k a))"
    raise place.refused(f"{known}, got {function!r}")


def _bounded(values: Numbers) -> tuple[float, float] | None:
    """c and k if `values` on GRID are exp(c tanh(k a)), such as exp(2 c (sigmoid(a) - 1/2)) with k = 1/2; else None."""
    if not (values > 0).all():
        return None
    logs = np.log(values)
    most = float(np.abs(logs).max())
    near = int(np.flatnonzero(GRID == 0.5)[0])
    if not 0.0 < abs(logs[near]) < most:
        return None
    factor = math.copysign(most, logs[near])
    rate = 2.0 * math.atanh(logs[near] / factor)
    rate = round(rate, 6)  # further digits are rounding errors of float32
    return (factor, rate) if np.allclose(logs, factor * np.tanh(rate * GRID), rtol=1e-6, atol=1e-6) else None


def _saturate(factor: float, rate: float, layers: Layers, is_scale: NDArray[np.bool_]) -> None:
    """Compute log scales c tanh(k a) from raw scales a by two further layers, the second of which adds the sums of the
    first.

    Both layers have blocks of units for shifts, raw scales and results. Sums that a layer adds have no activation, so
    that shifts pass unchanged, and results are added to zeros.
    """
    weight, bias, mask = layers.weights.pop(), layers.biases.pop(), layers.masks.pop()
    shift, raw = np.flatnonzero(~is_scale), np.flatnonzero(is_scale)
    m, n = len(shift), len(raw)
    nothing = np.zeros((n, weight.shape[1]))
    units = np.vstack([weight[shift], rate * weight[raw], nothing])
    biases = np.concatenate([bias[shift], rate * bias[raw], np.zeros(n)])
    first = layers.hidden(units, biases, np.vstack([mask[shift], mask[raw], nothing]), activation="tanh")
    second = np.zeros((m + 2 * n, m + 2 * n))
    second[m + n + np.arange(n), m + np.arange(n)] = factor
    layers.hidden(second, np.zeros(len(second)), second, adds=first)
    out = np.zeros((m + n, len(second)))
    out[shift, np.arange(m)] = 1.0
    out[raw, m + n + np.arange(n)] = 1.0
    layers.outputs(out, np.zeros(len(out)), out)


def _cut_off(most: float, slope: float, layers: Layers, is_scale: NDArray[np.bool_]) -> None:
    """Limit raw scales to the value at which the scale is `most`, by min(u, v) = v - relu(v - u)."""
    end = math.log(math.expm1(most - slope))
    by_relus([(-1.0, end, -1.0)], end, layers, is_scale)


def by_relus(
    units: Sequence[tuple[float, float, float]], start: float, layers: Layers, is_scale: NDArray[np.bool_]
) -> None:
    """Replace raw scales a by start + the sum of c relu(f a + b) over units (f, b, c), by one more layer.

    Shifts pass the layer as s = relu(s) - relu(-s), which is exact.
    """
    weight, bias, mask = layers.weights.pop(), layers.biases.pop(), layers.masks.pop()
    shift, raw = np.flatnonzero(~is_scale), np.flatnonzero(is_scale)
    blocks = [(shift, 1.0, 0.0, 1.0), (shift, -1.0, 0.0, -1.0), *((raw, *unit) for unit in units)]
    rows = np.concatenate([block[0] for block in blocks])
    factor, add, back = (np.concatenate([np.full(len(b[0]), b[i]) for b in blocks]) for i in (1, 2, 3))
    layers.hidden(factor[:, None] * weight[rows], factor * bias[rows] + add, mask[rows], activation="relu")
    out = np.zeros((len(bias), len(rows)))
    out[rows, np.arange(len(rows))] = back
    layers.outputs(out, np.where(is_scale, start, 0.0), out)
