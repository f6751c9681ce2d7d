"""Gradients of a run of sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._base.types import Array
from headrace._core import cpu
from headrace.sequences.arrays import Sequences, given_as
from headrace.sequences.runs import Run

Cotangents = dict[str, Array]
"""By name: `by_rows` (rows,), of each sequence's result, or `by_steps` (rows, steps)."""


class Backward:
    """The gradients of one call.

    Args:
        run: The call.
        kinds: The gradients to compute.
        inverse: From data to latent.
    """

    def __init__(self, run: Run, kinds: tuple[str, ...], inverse: bool) -> None:
        self.run, self._kinds, self._inverse = run, kinds, inverse
        self._given = given = run.given
        for kind, found in (("context", run.context is not None), ("covariates", bool(run.covariates.arrays))):
            if kind in kinds and not found:
                raise ValueError(f"wrt: expected no {kind!r}, because this flow has none, got {kinds}")
        made: dict[str, Callable[[], Any]] = {
            "inputs": lambda: given.like(run.dtype, given.features),
            "parameters": lambda: np.zeros(run.program.n_weights),
            "context": lambda: np.zeros(np.asarray(run.context).shape),
            "covariates": lambda: [np.zeros(array.shape) for array in run.covariates.arrays],
        }
        self._found: dict[str, Any] = {kind: make() if kind in kinds else None for kind, make in made.items()}

    def log_prob(self, name: str, value: Any) -> Any:
        """The log densities of sequences or of steps, for the caller, after their gradients from cotangents."""
        by = self._by_log_prob(name, value)
        if "by_steps" in by:
            steps = self._given.like(self.run.dtype)
            self.add(True, by, steps=steps)
            return self._given.give(steps)
        totals = np.zeros(self._given.rows)
        self.add(True, by, totals=totals)
        return self._give(totals, self._given.batch)

    def mean(self, name: str, value: Any) -> float:
        """Minus the mean log density of steps with these weights."""
        given = self._given
        if not given.rows:
            raise ValueError(f"{given.name}: expected at least one sequence, got none")
        by = self._by_log_prob(name, value)
        ((kind, array),) = by.items()
        if not (np.isfinite(array).all() and (array >= 0.0).all()):
            raise ValueError(f"{name}: expected finite numbers, at least 0, got {array.min()} to {array.max()}")
        wide = array.astype(np.float64)
        counted = wide[np.arange(given.steps) < given.lengths[:, None]] if kind == "by_steps" else wide * given.lengths
        total = float(counted.sum())
        if not total > 0.0:
            raise ValueError(f"{name}: expected a positive sum, got {total}")
        return self.add(True, {kind: -wide / total})

    def of_sides(self, name: str, values: Any, log_det: Any) -> tuple[Any, ...]:
        """The gradients from cotangents of values, an argument of this name, and log-determinants."""
        given, caller = self._given, self.run.caller
        own = None
        if values is not None:
            own = Sequences(caller, name, values, given.features)
            if own.is_list != given.is_list or own.batch != given.batch or (own.lengths != given.lengths).any():
                raise ValueError(f"{name}: expected the shape of {given.name}, got another one")
        by = {}
        if log_det is not None:
            by["by_rows"] = _arrays.shaped("grad_log_det", log_det, given.batch, caller).reshape(given.rows)
        self.add(False, by, own)
        return self.gradients()

    def gradients(self) -> tuple[Any, ...]:
        """The gradients for the caller, in the order of `kinds`."""
        found, (context, covariates) = self._found, getattr(self.run, "shapes", (None, None))
        of: dict[str, Callable[[], Any]] = {
            "inputs": lambda: self._given.give(found["inputs"]),
            "parameters": lambda: self._give(found["parameters"]),
            "context": lambda: self._give(found["context"], context),
            "covariates": lambda: (
                [self._give(array) for array in found["covariates"]]
                if covariates is None
                else self._give(np.stack(found["covariates"]), covariates)
            ),
        }
        return tuple(of[kind]() for kind in self._kinds)

    def add(self, is_density: bool, by: Cotangents, values: Sequences | None = None, **results: Any) -> float:
        """Add the gradients from cotangents of log densities, or of log-derivatives and of values.

        Returns the sum of log densities times their cotangents, unless they are among the `results`.
        """
        run, given, found = self.run, self._given, self._found
        own: dict[str, Any] = {"by_values": None if values is None else values.core}
        if "by_rows" in by:
            own["by_rows"] = np.ascontiguousarray(by["by_rows"], np.float64)
        if "by_steps" in by:
            own["by_steps"] = cpu.GivenSequences("", by["by_steps"][..., None], 1, given.lengths)
        scale = run.program.scale
        return run.program.core.back(
            *(run.vector.core, self._inverse, given.core, *run.inputs(), is_density),
            **own,
            std=None if scale is None else np.ascontiguousarray(scale[1], np.float64),
            inputs=found["inputs"],
            parameters=found["parameters"],
            of_context=found["context"],
            of_frames=found["covariates"],
            **results,
        )

    def _by_log_prob(self, name: str, value: Any) -> Cotangents:
        """Cotangents of log densities of sequences, or of steps; None: ones of sequences."""
        given = self._given
        if value is None:
            return {"by_rows": np.ones(given.rows)}
        array = self.run.caller.open(name, value)
        if array.shape == given.batch:
            return {"by_rows": array.reshape(given.rows)}
        if not given.is_list and array.shape == (*given.batch, given.steps):
            return {"by_steps": array.reshape(given.rows, given.steps)}
        more = "" if given.is_list else f", or {(*given.batch, given.steps)} for single steps"
        raise ValueError(f"{name}: expected shape {given.batch}{more}, got {array.shape}")

    def _give(self, sums: Any, shape: tuple[int, ...] | None = None) -> Any:
        """Sums in the dtype of the flow and this shape, for the caller."""
        return given_as(self.run.caller, sums, shape, self.run.dtype)
