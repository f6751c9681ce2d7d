"""Columns of floats whose values repeat: a fit adds noise to the values, and draws are mapped back to the values.

Noise of the width of the smallest gap spreads each value over a separate cell, so that a draw in a cell stands for the
value of the cell. Cells belong to all values if these form a grid, and otherwise only to values that many rows share,
such as the zeros of a column that is zero or positive. Between frequent values, a column without a grid counts as
continuous, and draws keep the noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.columns import SPIKE

NEAR_GRID = 0.01  # largest distance of values from a grid, in steps, due to rounding to float32
SLACK = 1e-6  # relative error of a width or a step due to rounded values


def learn(x: NDArray[Any], width: float) -> dict[str, Any]:
    """Fields of a `Column`: the grid of the values x, shape (rows,), or without a grid the frequent values; {} for one
    value.
    """
    values, counts = np.unique(x.astype(np.float64), return_counts=True)
    if len(values) < 2:
        return {}
    gaps = np.diff(values)
    if (step := _step(values, gaps)) and width <= step * (1.0 + SLACK):
        return {"offset": float(values[0]), "step": step}
    alone = np.minimum(np.append(np.inf, gaps), np.append(gaps, np.inf)) >= width * (1.0 - SLACK)
    return {"frequent": tuple(values[alone & (counts >= SPIKE * len(x)) & (counts > 1)].tolist())}


def _step(values: NDArray[np.float64], gaps: NDArray[np.float64]) -> float:
    """The step of a grid that contains all sorted values; 0 if there is none."""
    extent = float(values[-1] - values[0])
    least = gaps[gaps > 1e-9 * extent].min()
    last = round(extent / least)
    step = extent / last  # more exact than the smallest gap, because values are rounded
    places = (values - values[0]) / step
    if (np.abs(places - np.round(places)) > NEAR_GRID).any():
        return 0.0
    inverse = round(1.0 / step)
    return 1.0 / inverse if inverse and abs(inverse * step - 1.0) < SLACK else float(step)


def without_noise(x: NDArray[Any], column: Any) -> NDArray[np.float64]:
    """Remove the noise from draws of a `Column`: map draws to the grid, or those near a frequent value to
    this value.
    """
    drawn = x.astype(np.float64)
    if column.step:
        inverse = round(1.0 / column.step)
        if inverse > 1 and column.step == 1.0 / inverse:  # decimals with exact digits
            first = column.offset * inverse
            drawn = (np.round(drawn * inverse - first) + np.round(first, 2)) / inverse
        else:
            drawn = column.offset + column.step * np.round((drawn - column.offset) / column.step)
    for value in column.frequent:
        drawn = np.where(np.abs(drawn - value) <= 0.5 * column.width, value, drawn)
    return drawn if column.bounds is None or not column.step else np.clip(drawn, *column.bounds)
