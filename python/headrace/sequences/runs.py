"""Calls of flows of sequences: checked arguments, results for the caller, and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base.types import Array
from headrace._core import cpu
from headrace.sequences.arrays import Covariates, Sequences, given_as


class Run:
    """One checked call: sequences, context, covariates, and the parameters at its start."""

    given: Sequences  # the sequences, if the call has some
    shapes: dict[str, Any]  # shapes of the caller's context and covariates; None for lists
    cells: Any = None  # a `Cells`, whose log probabilities replace log densities of steps

    def __init__(
        self,
        program: Any,
        caller: Caller,
        batch: tuple[int, ...],
        context: Array | None,
        covariates: Covariates,
        vector: Any = None,
    ) -> None:
        """`program`: the flow's program, on the CPU or on a device."""
        self.program, self.caller, self.batch, self.dtype = program, caller, batch, program.dtype
        self.context, self.covariates, self.shapes = context, covariates, {}
        with caller.queue():
            self.vector = program.vector_of(caller) if vector is None else vector

    @classmethod
    def opened(
        cls,
        flow: Any,
        name: str,
        value: Any,
        context: Any,
        covariates: Any,
        parameters: Any = None,
        lengths: Any = None,
        *,
        integers: bool = False,
    ) -> Run:
        """A run with the checked arguments of a call of a flow; `name` is the name of the argument `value`."""
        caller, program, where = flow._caller(), flow._program, flow.device
        is_list = isinstance(value, (list, tuple))
        if caller.device is not None and (is_list or lengths is not None):
            what = f"{name}: expected an array of sequences on {where}, no list"
            what = what if is_list else f"lengths: expected None for sequences on {where}"
            raise ValueError(f"{what}; call once for those of each length, or .to('cpu') of the flow")
        opened = Sequences(caller, name, value, flow.features, lengths=lengths, integers=integers)
        rows = context_of(caller, context, flow.context, opened.batch)
        frames = Covariates(flow, caller, covariates, opened.batch)
        frames.check(opened.lengths)
        vector = None
        if parameters is not None:
            array = _arrays.shaped("parameters", parameters, (program.n_weights,), caller)
            vector = program.read_by_calls(_arrays.ready(array, flow.dtype, caller))
        run = cls(program, caller, opened.batch, rows, frames, vector)
        run.given, beside = opened, {"context": context, "covariates": covariates}
        run.shapes = {name: getattr(array, "shape", None) for name, array in beside.items()}
        return run

    def inputs(self) -> tuple[Array | None, Any]:
        """Context and covariates for calls of the program."""
        return self.program.standardised(self.context), self.covariates.of_program()

    def context_rows(self) -> Array | None:
        """A copy of the context of each sequence, (rows, columns)."""
        if self.context is None:
            return None
        # Columns are standardised before they are rounded, so that columns far from zero stay precise.
        rows = np.broadcast_to(self.context, (math.prod(self.batch), self.context.shape[1]))
        return np.array(rows, self.dtype if self.program.scale is None else None, order="C")

    def stream(self, state: Any = None) -> Any:
        """The core's stream of all sequences, before their first step or with a `state`."""
        program = self.program
        state = program.states(math.prod(self.batch)) if state is None else state
        return program.stream(self.vector, state, self.context_rows(), self.covariates.stacked())

    def totals(self) -> Any:
        """Log densities of sequences for the caller, as sums over the steps in order."""
        with self.caller.queue():
            return self._sums(True)

    def steps(self) -> Any:
        """Log densities of steps, for the caller."""
        with self.caller.queue():
            result = self.given.like(self.dtype)
            self.program.score(self, True, steps=result)
        return self.given.give(result)

    def both(self, inverse: bool) -> tuple[Any, Any]:
        """The transformed sequences and log-determinants for the caller; `inverse`: whether to map data to latent."""
        given = self.given
        with self.caller.queue():
            values = given.like(self.dtype, given.features)
            sums = self._sums(inverse, is_density=False, values=values)
        return given.give(values), sums

    def drawn(self, steps: int, key: int) -> Any:
        """Samples of `steps` steps, (rows, steps, features), for the caller; `key`: the seed."""
        self.covariates.check_steps(steps)
        with self.caller.queue():
            x = self.caller.empty((*self.batch, steps, self.program.features), self.dtype)
            self.program.draw(self, key, x)
        return self.caller.give(x)

    def _sums(self, inverse: bool, **more: Any) -> Any:
        sums = self.program.sums(self.given.rows)
        self.program.score(self, inverse, totals=sums, **more)
        return given_as(self.caller, sums, self.batch, self.dtype)


def tiled(rows: NDArray[Any] | None, n: int) -> NDArray[Any] | None:
    """All rows, repeated n times; None without rows."""
    return None if rows is None else np.concatenate([rows] * n)


def context_of(caller: Any, context: Any, columns: int, batch: tuple[int, ...]) -> NDArray[Any] | None:
    """The context rows: one for each sequence, or one for all sequences."""
    rows = int(np.prod(batch))
    if len(batch) > 1 and columns and context is not None:
        array = caller.open("context", context, whole=True)
        if array.shape == (*batch, columns):
            with caller.queue():
                rows_of_context: NDArray[Any] = array.reshape(rows, columns)
            return rows_of_context
    return _arrays.context_rows(context, rows, columns, caller=caller)


Cotangents = dict[str, Array]
"""Cotangents by name: `by_rows`, (rows,), for results of sequences, or `by_steps`, (rows, steps), for steps."""


class Backward:
    """The gradients of a call with respect to `kinds`, such as "inputs"; `inverse`: whether it maps data to latent."""

    def __init__(self, run: Run, kinds: tuple[str, ...], inverse: bool) -> None:
        self.run, self._kinds, self._inverse = run, kinds, inverse
        self._given = given = run.given
        for kind, is_there in (("context", run.context is not None), ("covariates", bool(run.covariates.arrays))):
            if kind in kinds and not is_there:
                raise ValueError(f"wrt: expected no {kind!r}, because this flow has none, got {kinds}")
        made: dict[str, Callable[[], Any]] = {
            "inputs": lambda: given.like(run.dtype, given.features),
            "parameters": lambda: np.zeros(run.program.n_weights),
            "context": lambda: np.zeros(np.asarray(run.context).shape),
            "covariates": lambda: [np.zeros(array.shape) for array in run.covariates.arrays],
        }
        self._found: dict[str, Any] = {kind: make() if kind in kinds else None for kind, make in made.items()}

    def log_prob(self, name: str, value: Any) -> Any:
        """Compute gradients from cotangents `value` of log densities, and return the log densities for the caller."""
        by = self._by_log_prob(name, value)
        if "by_steps" in by:
            steps = self._given.like(self.run.dtype)
            self.add(True, by, steps=steps)
            return self._given.give(steps)
        totals = np.zeros(self._given.rows)
        self.add(True, by, totals=totals)
        return self._give(totals, self._given.batch)

    def mean(self, name: str, value: Any) -> float:
        """Return the negative mean log density of steps, weighted by `value`, and add its gradients."""
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
        """The gradients from cotangents of `values`, an argument called `name`, and of log-determinants."""
        given, caller = self._given, self.run.caller
        grads = None
        if values is not None:
            grads = Sequences(caller, name, values, given.features)
            if grads.is_list != given.is_list or grads.batch != given.batch or (grads.lengths != given.lengths).any():
                raise ValueError(f"{name}: expected the shape of {given.name}, got another one")
        by = {}
        if log_det is not None:
            by["by_rows"] = _arrays.shaped("grad_log_det", log_det, given.batch, caller).reshape(given.rows)
        self.add(False, by, grads)
        return self.gradients()

    def gradients(self) -> tuple[Any, ...]:
        """The gradients for the caller, in the order of `kinds`."""
        return tuple(map(self._gradient, self._kinds))

    def _gradient(self, kind: str) -> Any:
        gradient, shape = self._found[kind], self.run.shapes.get(kind)
        if kind == "inputs":
            return self._given.give(gradient)
        if kind == "covariates" and shape is None:
            return [self._give(array) for array in gradient]
        return self._give(np.asarray(gradient), shape)

    def add(self, is_density: bool, by: Cotangents, values: Sequences | None = None, **results: Any) -> float:
        """Add gradients for cotangents: `by` of log densities or log-determinants, `values` of transformed steps.

        Returns the sum of log densities times cotangents, unless `results` has memory for the log densities.
        """
        run, given, gradients = self.run, self._given, self._found
        keywords: dict[str, Any] = {"by_values": None if values is None else values.core}
        if "by_rows" in by:
            keywords["by_rows"] = np.ascontiguousarray(by["by_rows"], np.float64)
        if "by_steps" in by:
            keywords["by_steps"] = cpu.GivenSequences("", by["by_steps"][..., None], 1, given.lengths)
        scale = run.program.scale
        return run.program.core.back(
            *(run.vector.core, self._inverse, given.core, *run.inputs(), is_density),
            **keywords,
            std=None if scale is None else np.ascontiguousarray(scale[1], np.float64),
            inputs=gradients["inputs"],
            parameters=gradients["parameters"],
            of_context=gradients["context"],
            of_frames=gradients["covariates"],
            **results,
        )

    def _by_log_prob(self, name: str, value: Any) -> Cotangents:
        """The cotangents `value` under the name "by_rows" or "by_steps"; ones for all sequences if `value` is None."""
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
        """Sums for the caller, in the dtype of the flow and in `shape`."""
        return given_as(self.run.caller, sums, shape, self.run.dtype)
