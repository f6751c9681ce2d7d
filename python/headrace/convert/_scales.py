"""Functions from a raw parameter to a scale, recognised by their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.convert._parts import ACTIVATIONS, GRID, Layers, Numbers, Place, call_in_torch, values_of

__all__ = ["LEAST_SLOPE", "ceiling", "scale_of"]

LEAST_SLOPE = 1e-30  # in the place of 0, which is no slope: no scale of a trained model is as small

SHAPES: dict[str, Callable[[Numbers], Numbers]] = {
    "softplus": ACTIVATIONS["softplus"],
    "sigmoid": lambda x: ACTIVATIONS["sigmoid"](x + 2.0),
    "exp": np.exp,
}


def scale_of(
    place: Place, function: Any, call: Callable[[Any, Numbers], Any] = call_in_torch
) -> tuple[dict[str, Any], float | None]:
    """Settings of an affine map, and the largest scale where a softplus is cut off there."""
    found = values_of(place, function, call)
    most = float(found.max())
    for name, shape in SHAPES.items():
        own = shape(GRID)
        slope = float(found[0] - own[0])
        if not -1e-7 <= slope < 1.0 or (name == "exp" and abs(slope) > 1e-7):
            continue
        slope = max(round(slope, 9), LEAST_SLOPE)  # digits that a function of float32 does not have
        settings = {"scale": name} if name == "exp" else {"scale": name, "slope": slope}
        if np.allclose(found, own + slope, rtol=1e-6, atol=1e-6):
            return settings, None
        if name == "softplus" and np.allclose(found, np.minimum(own + slope, most), rtol=1e-6, atol=1e-6):
            return settings, most
    raise NotImplementedError(
        f"{place.path}: expected softplus(a) + c, cut off or not, sigmoid(a + 2) + c or exp(a), got {function!r}"
    )


def ceiling(layers: Layers, most: float, is_scale: NDArray[np.bool_], slope: float) -> None:
    """Cut raw scales off where their softplus reaches `most`: one more layer, because min(u, v) = v - relu(v - u).

    Shifts go through it as s = relu(s) - relu(-s), to the last bit.
    """
    weight, bias, mask = layers.weights.pop(), layers.biases.pop(), layers.masks.pop()
    end = math.log(math.expm1(most - slope))
    shift, raw = np.flatnonzero(~is_scale), np.flatnonzero(is_scale)
    rows = np.concatenate([shift, shift, raw])
    sign = np.repeat([1.0, -1.0, -1.0], [len(shift), len(shift), len(raw)])
    add = np.repeat([0.0, end], [2 * len(shift), len(raw)])
    layers.hidden(sign[:, None] * weight[rows], sign * bias[rows] + add, mask[rows], activation="relu")
    out = np.zeros((len(bias), len(rows)))
    out[shift, np.arange(len(shift))] = 1.0
    out[shift, len(shift) + np.arange(len(shift))] = -1.0
    out[raw, 2 * len(shift) + np.arange(len(raw))] = -1.0
    layers.outputs(out, np.where(is_scale, end, 0.0), out)
