"""KL of a student of sequences to its teacher, with its gradient, and the contexts, covariates and signals of samples.

**In closed form** (Ping et al. 2019, for one value a step): the student's x_t is affine in its noise ε_t, conditional
on earlier noise, and the teacher's latent u_t is affine in x_t, conditional on earlier steps. Therefore
u_t = a_t + b_t ε_t, where log b_t is the sum of the student's and the teacher's log-derivatives. With normal bases
KL_t = ½(a_t² + b_t² - 1) - log b_t.

**From samples** (van den Oord et al. 2017): log q(x) = log p_base(z) - Σ log-derivatives is the log density of the
student's samples x; log p(x) and its gradient by x are the teacher's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller
from headrace._base.types import Array, Floats
from headrace._flow.bases import Normal, StandardNormal
from headrace._flow.transforms.fixed import Standardize
from headrace.sequences.arrays import Covariates, Sequences
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.flow import SequenceFlow
from headrace.sequences.prediction import LinearPrediction
from headrace.sequences.runs import Backward, Run
from headrace.variational.descent import Rng, seed_of
from headrace.variational.target import Contexts, contexts_of


@dataclass(frozen=True)
class Batch:
    """The inputs of the samples of one step: the seed of their noise, contexts, covariates and signals."""

    seed: int  # the seed of the noise
    context: Array | None  # (rows, context)
    covariates: Array | None  # (rows, frames, covariates)
    signals: Array | None  # (rows, steps, features), the signals of the covariates
    origin: NDArray[np.int64] | None = None  # (rows,): rows with equal values share context and covariates

    def some(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Batch:
        """The chosen rows of the batch, by a mask or by index."""
        arrays = (self.context, self.covariates, self.signals, self.origin)
        return Batch(self.seed, *(a if a is None else a[keep] for a in arrays))

    @property
    def same(self) -> NDArray[np.bool_] | None:
        """Whether a row has the inputs of the row after it, (rows - 1,); None if all inputs are drawn independently."""
        return None if self.origin is None else self.origin[1:] == self.origin[:-1]


class Inputs:
    """Contexts, covariates and signals from which batches are drawn.

    Args:
        flow: The teacher.
        length: The steps of each sample.
        context, covariates, signals: As in `distill_sequences`.
    """

    def __init__(self, flow: SequenceFlow, length: int, context: Any, covariates: Any, signals: Any) -> None:
        self._contexts: Contexts = contexts_of(flow, context)  # type: ignore[arg-type]  # reads flow.context alone
        self._flow, self.length = flow, length
        self.signals: list[Array] = []
        caller = Caller()
        if signals is not None:
            sequences = Sequences(caller, "signals", signals, flow.features)
            if not sequences.rows:
                raise ValueError("signals: expected at least one sequence, got none")
            if (short := np.flatnonzero(sequences.lengths < length)).size:
                place = f"{sequences.lengths[short[0]]} in sequence {short[0]}"
                raise ValueError(f"signals: expected sequences of at least {length} steps (length), got {place}")
            sequences.check()
            self.signals = sequences.arrays
        rows = len(self.signals) if signals is not None else _leading(covariates)
        given_frames = Covariates(flow, caller, covariates, (rows,))
        given_frames.check_steps(length)
        self._frames, self._of_crop = given_frames.arrays, -(-length // flow.hop)

    @property
    def is_paired(self) -> bool:
        """Whether each sample has the covariates of a signal."""
        return bool(self._frames) and bool(self.signals)

    def draw(self, rows: int, rng: Rng) -> Batch:
        """A batch of inputs for `rows` samples."""
        seed, context = seed_of(rng), self._contexts(rows, rng)
        if context is not None and len(context) != rows:
            context = np.repeat(context, rows, axis=0)
        if not self._frames:
            return Batch(seed, context, None, None)
        covariates, signals = [], []
        for i in rng.integers(len(self.signals) or len(self._frames), size=rows).tolist():
            frames = self._frames[i % len(self._frames)]
            most = len(frames) - self._of_crop
            if self.signals:
                most = min(most, (len(self.signals[i]) - self.length) // self._flow.hop)
            first = int(rng.integers(most + 1))
            covariates.append(frames[first : first + self._of_crop])
            if self.signals:
                begin = first * self._flow.hop
                signals.append(self.signals[i][begin : begin + self.length])
        return Batch(seed, context, np.stack(covariates), np.stack(signals) if signals else None)

    def draw_twice(self, rows: int, rng: Rng) -> Batch:
        """A batch of inputs for `rows` samples, where each pair of adjacent samples shares its inputs."""
        origin = np.arange(-(-rows // 2))
        return replace(self.draw(len(origin), rng), origin=origin).some(np.repeat(origin, 2)[:rows])

    def crops(self, rows: int, rng: Rng) -> Array:
        """Crops of the signals, (rows, steps, features); longer signals have more crops, in proportion."""
        most = np.array([len(signal) - self.length + 1 for signal in self.signals])
        crops = []
        for i in rng.choice(len(most), size=rows, p=most / most.sum()).tolist():
            begin = int(rng.integers(most[i]))
            crops.append(self.signals[i][begin : begin + self.length])
        return np.stack(crops)

    def frames(self, steps: int, most: int) -> Array:
        """At most `most` frames, evenly spread over all signals, (frames, steps, features)."""
        parts = [x[end - steps : end] for x in self.signals for end in range(steps, len(x) + 1, steps)]
        return np.stack(parts[:: -(-len(parts) // most)])


def _leading(covariates: Any) -> int:
    """The number of sequences: of an array (rows, frames, columns) or a list; 1 for an array (frames, columns)."""
    if isinstance(covariates, (list, tuple)):
        return len(covariates)
    return int(covariates.shape[0]) if getattr(covariates, "ndim", 2) == 3 else 1


_AFFINE = ("affine", "additive")


def why_from_samples(teacher: SequenceFlow, student: SequenceFlow) -> str:
    """The reason why the divergence of two flows has no closed form; "" if there is a closed form."""
    if teacher.features != 1:
        return f"a step has {teacher.features} values"
    for name, flow in (("teacher", teacher), ("student", student)):
        if not isinstance(flow.base, (StandardNormal, Normal)):
            return f"the {name}'s base {flow.base!r} is not normal"
        for t in flow.transforms:
            if isinstance(t, CausalConvolution) and (t.inner is not None or t._settings.map not in _AFFINE):
                return f"the {name}'s {t!r} is not affine"
            if not isinstance(t, (CausalConvolution, LinearPrediction, Standardize)):
                return f"the {name}'s {t!r} is not known to be affine"
    return ""


class Divergence:
    """KL(student ‖ teacher) from samples of the student, and its gradient by the student's parameters.

    Args:
        teacher, student: Flows of the same features, context and covariates.
        length: The steps of each sample.
        is_closed: Whether to use the closed form in place of log densities.
    """

    def __init__(self, teacher: SequenceFlow, student: SequenceFlow, length: int, *, is_closed: bool) -> None:
        self.teacher, self.student, self.length, self.is_closed = teacher, student, length, is_closed
        self._moments = [_moments(flow) for flow in (student, teacher)] if is_closed else []

    def forth(self, parameters: Array | None, batch: Batch, rows: NDArray[np.bool_] | int) -> tuple[Array, Floats]:
        """The samples, and each sequence's KL in nats a step; `rows`: the number of rows, or a mask of chosen rows."""
        program, other, weights = self.student._program, self.teacher._program.core, self.teacher._program.vector.core
        self._vector = program.vector if parameters is None else program.read_by_calls(parameters)
        n = rows if isinstance(rows, int) else len(rows)
        z = program.core.noise(self._vector.core, batch.seed, 0, n, 0, self.length)
        self._z = z if isinstance(rows, int) else z[rows]
        with np.errstate(all="ignore"):  # values that are not finite are counted by the caller
            x, log_det = program.core.run(self._vector.core, False, self._z, *_of_flow(self.student, batch), None)
            self._x = x.astype(self.teacher.dtype, copy=False)
            u, more = other.run(weights, True, self._x, *_of_flow(self.teacher, batch), None)
            if self.is_closed:
                kl = self._closed(u, log_det.astype(np.float64) + more)
            else:
                log_q = program.core.log_base(self._vector.core, self._z).astype(np.float64) - log_det
                kl = log_q - more - other.log_base(weights, u)
            return x, kl.mean(axis=1)

    def _closed(self, u: Array, log_b: Floats) -> Floats:
        (loc, scale), (mean, deviation) = self._moments
        noise = (self._z[..., 0].astype(np.float64) - loc) / scale
        log_b = log_b + math.log(scale / deviation)
        self._b = np.exp(log_b)
        self._a = (u[..., 0].astype(np.float64) - mean) / deviation - self._b * noise
        self._slope = self._b * (self._b - self._a * noise)  # the derivative of ½(a² + b²) with respect to log b
        return np.asarray(0.5 * (self._a**2 + self._b**2 - 1.0) - log_b)

    def back(self, batch: Batch, beta: float, weight: float, by_x: Floats | None) -> Array:
        """The gradient of `weight` times the mean of log q - beta log p, plus by_x · x; call `forth` first."""
        rows, steps = self._z.shape[:2]
        share = weight / (rows * steps)
        total = np.zeros(self._z.shape) if by_x is None else by_x
        by_log_det = np.full((rows, steps), -share)
        if weight:
            total = total + self._by_samples(batch, beta * share)
            if self.is_closed:
                by_log_det += beta * share * self._slope
        by = False, {"by_steps": by_log_det}, total
        return np.asarray(_gradient(self.student, "parameters", False, self._z, batch, self._vector, *by))

    def _by_samples(self, batch: Batch, share: float) -> Floats:
        """The gradient with respect to the samples x, through the teacher."""
        if self.is_closed:
            by_u = share * self._a / self._moments[1][1]
            by: Any = False, {"by_steps": share * (self._slope - 1.0)}, by_u[..., None]
        else:
            by = True, {"by_steps": np.full(self._x.shape[:2], -share)}, None
        return np.asarray(_gradient(self.teacher, "inputs", True, self._x, batch, None, *by).astype(np.float64))


def _gradient(
    flow: SequenceFlow,
    kind: str,
    inverse: bool,
    signals: Array,
    batch: Batch,
    vector: Any,
    is_density: bool,
    by: dict[str, Array],
    by_values: Array | None,
) -> Any:
    """The gradient `kind`, for sequences whose values are not checked; see `Backward.add`."""
    rows, caller = signals.shape[:1], Caller()
    run = Run(flow._program, caller, rows, batch.context, Covariates(flow, caller, batch.covariates, rows), vector)
    run.given = Sequences(caller, "", signals, flow.features)
    back = Backward(run, (kind,), inverse)
    values = None if by_values is None else Sequences(caller, "", by_values, flow.features)
    back.add(is_density, by, values)
    return back.gradients()[0]


def _of_flow(flow: SequenceFlow, batch: Batch) -> tuple[Array | None, Array | None]:
    """The context and covariates of a batch in the form that the core takes."""
    covariates = batch.covariates
    frames = None if covariates is None else np.ascontiguousarray(covariates, flow.dtype)
    return flow._program.standardised(batch.context), frames


def _moments(flow: SequenceFlow) -> tuple[float, float]:
    """The mean and the standard deviation of a normal base of one feature."""
    base = flow.base
    return (float(base.loc[0]), float(base.scale[0])) if isinstance(base, Normal) else (0.0, 1.0)


def log_prob_of_steps(teacher: SequenceFlow, x: Array, batch: Batch) -> float:
    """The mean over all steps of the teacher's log density."""
    core, weights = teacher._program.core, teacher._program.vector.core
    z, log_det = core.run(weights, True, x.astype(teacher.dtype), *_of_flow(teacher, batch), None)
    return float(np.mean(log_det + core.log_base(weights, z), dtype=np.float64))
