"""A run of sequences forward and backward: block by block, link by link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base.types import Array
from headrace.sequences.arrays import Block, Sequences, given_as
from headrace.sequences.program import Cotangent

if TYPE_CHECKING:
    from headrace.sequences.program import ChainGradients
    from headrace.sequences.runs import Part, Run


@dataclass(frozen=True)
class Cotangents:
    """Cotangents of a call on sequences: by each sequence's result, by those of steps, by values."""

    rows: Array | None = None  # (rows,)
    steps: Array | None = None  # (rows, steps)
    values: Sequences | None = None

    @classmethod
    def of_log_prob(cls, name: str, value: Any, run: Run) -> Cotangents:
        """Cotangents of log densities of sequences, or of steps."""
        given = run.given
        array = run.caller.open(name, value)
        if array.shape == given.batch:
            return cls(rows=array.reshape(given.rows))
        if not given.is_list and array.shape == (*given.batch, given.steps):
            return cls(steps=array.reshape(given.rows, given.steps))
        more = "" if given.is_list else f", or {(*given.batch, given.steps)} for single steps"
        raise ValueError(f"{name}: expected shape {given.batch}{more}, got {array.shape}")

    @classmethod
    def ones(cls, run: Run) -> Cotangents:
        """Cotangents for the sum of all log densities."""
        return cls(rows=np.ones(run.given.rows))

    @classmethod
    def of_weights(cls, name: str, value: Any, run: Run) -> Cotangents:
        """Cotangents for minus the mean log density of steps."""
        given = run.given
        if not given.rows:
            raise ValueError(f"{given.name}: expected at least one sequence, got none")
        own = cls.ones(run) if value is None else cls.of_log_prob(name, value, run)
        kind = "steps" if own.rows is None else "rows"
        array = getattr(own, kind)
        if not (np.isfinite(array).all() and (array >= 0.0).all()):
            raise ValueError(f"{name}: expected finite numbers, at least 0, got {array.min()} to {array.max()}")
        wide = array.astype(np.float64)
        counted = wide * given.lengths if kind == "rows" else wide[np.arange(given.steps) < given.lengths[:, None]]
        total = float(counted.sum())
        if not total > 0.0:
            raise ValueError(f"{name}: expected a positive sum, got {total}")
        return cls(**{kind: -wide / total})

    @classmethod
    def of_sides(cls, name: str, values: Any, log_det: Any, run: Run) -> Cotangents:
        """Cotangents of values and log-determinants."""
        given = run.given
        own = None
        if values is not None:
            own = Sequences(run.caller, name, values, given.features)
            if own.is_list != given.is_list or own.batch != given.batch or (own.lengths != given.lengths).any():
                raise ValueError(f"{name}: expected the shape of {given.name}, got another one")
        rows = None
        if log_det is not None:
            rows = _arrays.shaped("grad_log_det", log_det, given.batch, run.caller).reshape(given.rows)
        return cls(rows=rows, values=own)

    def of_steps(self, block: Block, beyond: NDArray[np.bool_], dtype: np.dtype[Any]) -> Array | None:
        """The cotangents of each step of a block, (rows, steps); zero after the end of a sequence."""
        if self.steps is not None:
            own = np.array(self.steps[block.index, : block.steps], dtype)
        elif self.rows is not None:
            own = np.repeat(self.rows[block.index, None].astype(dtype), block.steps, axis=1)
        else:
            return None
        own[beyond] = 0.0
        return own


class Backward:
    """Gradients of one call, which blocks of sequences add to.

    Args:
        run: The call.
        kinds: The gradients to compute.
        inverse: From data to latent.
    """

    def __init__(self, run: Run, kinds: tuple[str, ...], inverse: bool) -> None:
        self.run, self._kinds, self._inverse = run, kinds, inverse
        self._given = given = run.given
        self._inputs = given.like(run.dtype, given.features) if "inputs" in kinds else None
        self._parameters = np.zeros(run.program.n_weights)
        for kind, found in (("context", run.context is not None), ("covariates", bool(run.covariates.arrays))):
            if kind in kinds and not found:
                raise ValueError(f"wrt: expected no {kind!r}, because this flow has none, got {kinds}")
        self._context = None if run.context is None else np.zeros(run.context.shape)
        self._covariates = [np.zeros(array.shape) for array in run.covariates.arrays]

    def log_prob(self, cotangents: Cotangents) -> Any:
        """The log densities of sequences or of steps, for the caller, with their gradients added."""

        def scored(part: Part) -> Array:
            return self._back(part, cotangents, True)

        return self.run.steps(scored, True) if cotangents.steps is not None else self.run.totals(scored, True)

    def weighted_sum(self, cotangents: Cotangents) -> float:
        """The sum of all steps' log densities, each times its cotangent."""
        total = 0.0
        for part, scores in self.run.scored(lambda part: self._back(part, cotangents, True), True):
            own = cotangents.of_steps(part.block, self._beyond(part), np.dtype(np.float64))
            assert own is not None
            total += float((scores.astype(np.float64) * own).sum())
        return total

    def of_sides(self, name: str, values: Any, log_det: Any) -> tuple[Any, ...]:
        """The gradients from cotangents of values, an argument of this name, and log-determinants."""
        cotangents = Cotangents.of_sides(name, values, log_det, self.run)
        for part in self.run.parts(True):
            self._back(part, cotangents, False)
        return self.gradients()

    def gradients(self) -> tuple[Any, ...]:
        """The gradients for the caller, in the order of `kinds`."""
        of = {
            "inputs": lambda: self._inputs and self._inputs.give(),
            "parameters": lambda: self._give(self._parameters),
            "context": lambda: self._give(self._context, self.run.shapes[0]),
            "covariates": self._of_covariates,
        }
        return tuple(of[kind]() for kind in self._kinds)

    def _of_covariates(self) -> Any:
        shape = self.run.shapes[1]
        if shape is None:
            return [self._give(array) for array in self._covariates]
        return self._give(np.stack(self._covariates), shape)

    def _give(self, sums: Any, shape: tuple[int, ...] | None = None) -> Any:
        """A gradient in the dtype of the flow and this shape, for the caller."""
        return given_as(self.run.caller, sums, shape, self.run.dtype)

    def _beyond(self, part: Part) -> NDArray[np.bool_]:
        return self._given.beyond(part.block, 0, part.block.steps)

    def _back(self, part: Part, cotangents: Cotangents, of_log_prob: bool) -> Array:
        """Add a block's gradients; its log densities, (rows, steps), if the cotangents are of these."""
        run, block, dtype = self.run, part.block, self.run.dtype
        steps = cotangents.of_steps(block, self._beyond(part), dtype)
        if of_log_prob:
            cotangent = Cotangent(log_prob=steps)
        else:
            values = cotangents.values
            own = None if values is None else values.part(block, 0, block.steps).astype(dtype, copy=False)
            cotangent = Cotangent(value=own, log_det=steps)
        log_prob, gradients = run.program.vjp(
            run.vector, self._inverse, part.values, part.context, part.covariates, cotangent, self._kinds
        )
        self._add(block, gradients)
        return log_prob

    def _add(self, block: Block, gradients: ChainGradients) -> None:
        if gradients.inputs is not None and self._inputs is not None:
            self._inputs.put(block, 0, gradients.inputs)
        if gradients.parameters is not None:
            self._parameters += gradients.parameters
        if gradients.context is not None:
            assert self._context is not None
            index = np.zeros(len(block.index), np.intp) if len(self._context) == 1 else block.index
            np.add.at(self._context, index, gradients.context)
        if gradients.covariates is not None:
            for own, i in zip(gradients.covariates, block.index, strict=True):
                to = self._covariates[0 if len(self._covariates) == 1 else i]
                n = min(len(to), len(own))
                to[:n] += own[:n]
                to[n - 1] += own[n:].sum(axis=0)  # the last frame of a short one is repeated
