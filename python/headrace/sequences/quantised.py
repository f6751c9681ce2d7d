"""Probabilities of values on a grid, such as integers: the mass of the cell around each value."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace import ops
from headrace._base.types import Array
from headrace._core.maps import has_bins
from headrace._flow.bases import Logistic
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import Support
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.prediction import AdaptivePrediction, LinearPrediction
from headrace.sequences.runs import Run
from headrace.sequences.sequential import OverTime
from headrace.sequences.settings import LEVELS, RUNNING

ENDS = -np.inf, np.inf


def has_cells(flow: Any) -> bool:
    """Whether cells of a grid have a probability in closed form under a flow."""
    first, *following = flow._chain
    return (
        isinstance(first, CausalConvolution)
        and first.reads == "data"
        and first._settings.inner is None
        and all(isinstance(t, (Standardize, LinearPrediction, AdaptivePrediction, Support)) for t in following)
        and isinstance(flow._base, Logistic)
    )


class Cells:
    """Log probabilities of cells, ln(F(x + step / 2) - F(x - step / 2)) with F the distribution function of a step.

    Given the past, a step's latent values z(x) increase with the step's values, and are logistic under the base:
    F(x) = sigmoid(z(x)). The difference of F is computed in float64, without cancellation in either tail.
    """

    def __init__(self, flow: Any, step: float, run: Run) -> None:
        """`flow`: a flow for which `has_cells` is true; raises ValueError for other flows."""
        if not has_cells(flow):
            raise ValueError(
                "quantised: expected None but for one CausalConvolution that reads data, without an inner flow, on the "
                f"base Logistic, below predictions, Standardize and Support alone, got {step:g}"
            )
        first: CausalConvolution = flow._chain[0]
        self._half, self._run, self._chain = 0.5 * step, run, flow._chain
        self._map = first._settings.map_keywords()
        if not has_bins(first._settings.map):
            del self._map["bins"]
        self._of_value, self._has_level = first._settings.of_value, first._settings.level

    def check(self, x: Array) -> None:
        """Raise ValueError for values whose cells are narrower than the spacing of float64."""
        values = np.asarray(x, np.float64)
        if (narrow := values + self._half <= values - self._half).any():
            raise ValueError(f"quantised: expected a wider step at {values[narrow][0]:g}, got {2.0 * self._half:g}")

    def __call__(self, x: Array, context: Array | None, frames: Array | None, state: Any) -> Array:
        """The log probability of each step's cell, (rows, steps)."""
        self.check(x)
        vector = self._run.vector
        core, weights = self._run.program.core, vector.core
        x = x.astype(np.float64)
        middle, low, high, sizes, is_end = x, x - self._half, x + self._half, None, None
        for i in reversed(range(1, len(self._chain))):
            if isinstance(self._chain[i], OverTime):  # given the past, a cell's map is linear around its middle
                low, high = low - middle, high - middle
                middle, _, logs = core.run_link(weights, i, True, middle, state)
                middle, sizes = middle.astype(np.float64), logs if i == 1 else None
                gain = np.exp(vector.filters[i].log_gain if logs is None else -logs[..., 1::RUNNING].astype(np.float64))
                low, high = middle + gain * low, middle + gain * high
                continue
            if isinstance(self._chain[i], Support):
                support = self._chain[i]
                is_end = [values != support._inside(values) for values in (low, high)]
                low, high = (support._inside(values) for values in (low, high))
            middle, low, high = (core.run_link(weights, i, True, values, None)[0] for values in (middle, low, high))
        beside = sizes if self._chain[0].reads_sizes else None
        raw = core.outputs(weights, middle, context, frames, state, beside)
        if state is not None:
            state.go_on(x.shape[1])
        params = raw.astype(np.float64).reshape(-1, x.shape[2], self._of_value)
        if self._has_level:
            scale = np.exp(-np.clip(params[..., -1], *LEVELS)).reshape(x.shape)
            low, high, params = low * scale, high * scale, np.ascontiguousarray(params[..., :-1])
        a, b = (self._latent(values, params) for values in (low, high))
        if is_end is not None:  # nothing lies beyond a bound
            a, b = (np.where(at.reshape(a.shape), side, z) for at, side, z in zip(is_end, ENDS, (a, b), strict=True))
        with np.errstate(divide="ignore"):  # a cell may have no mass
            cells = -np.logaddexp(0.0, -b) - np.logaddexp(0.0, a) + np.log(-np.expm1(a - b))
        return np.asarray(cells.reshape(x.shape).sum(axis=2))

    def _latent(self, values: Array, params: Array) -> Array:
        return np.asarray(ops.coupling(values.reshape(params.shape[:2]), params, **self._map, direction="inverse")[0])
