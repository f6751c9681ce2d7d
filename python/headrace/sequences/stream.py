"""Streams of sequences: the state of a flow over time between two calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array, Caller
from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace.sequences.arrays import Covariates, Sequences, given_as
from headrace.sequences.program import MOST_DRAWN_STEPS, MOST_SAMPLES
from headrace.sequences.runs import Run, tiled


@public("headrace.sequences")
class Stream:
    """Sequences that proceed together, step by step, as returned by `SequenceFlow.stream`.

    `push` takes steps and returns log densities, `pull` draws steps, and all these steps become the past of later
    steps. Results have the bits of `SequenceFlow.log_prob_steps` and of `SequenceFlow.sample`, for calls of any
    lengths. A stream keeps the parameters that the flow had when the stream was created, and its memory does not grow.
    """

    def __init__(self, flow: Any, run: Run, state: Any = None) -> None:
        """`run`: the `Run` of the sequences. `state`: the core's state to continue from; None before the first step."""
        (self._rows,) = run.batch
        self._flow, self._run = flow, run
        # The array raises MemoryError at once if the state would not fit.
        np.empty((self._rows, sum(run.program.states(1).numbers)), run.dtype)
        self._context, self._frames = run.context_rows(), run.covariates.stacked()
        self._core = run.stream(state)

    @property
    def rows(self) -> int:
        """The number of sequences."""
        return self._rows

    @property
    def position(self) -> int:
        """The number of steps so far."""
        return int(self._core.state.position)

    def __repr__(self) -> str:
        """The number of sequences and of steps so far."""
        return f"Stream(rows={self._rows}, position={self.position})"

    def push(self, x: Array, *, latent: bool = False, quantised: float | None = None) -> Any:
        """Append new steps, and return their log densities given all earlier steps.

        Args:
            x: Any number of steps, shape (rows, steps, features), float32 or float64, with `quantised` also integers.
            latent: Whether to return the latent values, too.
            quantised: The step of a grid that x lies on, for log probabilities of cells in place of densities; see
                `SequenceFlow.log_prob`. Cells have no latent values, so that `latent` must be False.

        Returns:
            Log densities, (rows, steps), in the framework of x; with `latent` a tuple of these and z in the shape of x.

        Raises:
            TypeError, ValueError: As in `SequenceFlow.log_prob`; the stream is then unchanged.

        >>> import numpy as np, headrace as hr
        >>> stream = hr.WaveNet(layers=4, channels=8).stream()
        >>> stream.push(np.zeros((1, 50, 1))).shape, stream.push(np.ones((1, 1, 1), "int16"), quantised=1).shape
        ((1, 50), (1, 1))
        """
        if quantised is None and (result := self._core.push(x, latent)) is not None:
            return result
        caller, run = Caller(), self._run
        if latent and quantised is not None:
            raise ValueError(f"latent, quantised: expected one of them, got {latent} and {quantised!r}")
        cells = None if quantised is None else self._flow._cells(quantised, run)
        sequences = Sequences(caller, "x", x, run.program.features, integers=cells is not None)
        if sequences.is_list or sequences.batch != (self._rows,):
            raise ValueError(f"x: expected shape ({self._rows}, steps, {sequences.features}), got {np.shape(x)}")
        self._check(sequences.steps)
        sequences.check(run.dtype)
        if cells is None:
            result = self._core.push(sequences.array, latent)
            return tuple(given_as(caller, array) for array in result) if latent else given_as(caller, result)
        cells.check(sequences.array)
        scores = sequences.like(run.dtype)
        run.program.core.scores(
            *(run.vector.core, True, sequences.core, *run.inputs()), scorer=cells, state=self._core.state, steps=scores
        )
        return caller.give(scores)

    @takes_rng
    def pull(self, steps: int, seed: int | np.random.Generator | None = None, *, rng: Rng = None) -> NDArray[Any]:
        """Draw the next steps, shape (rows, steps, features).

        Args:
            steps: The number of steps.
            seed: As in `SequenceFlow.sample`: all pulls of a stream with one seed are, bit for bit, one sample.

        Raises:
            ValueError: the covariates have too few frames.
        """
        result: NDArray[Any] | None = self._core.pull(steps, seed, 0)
        if result is not None:
            return result
        total = check.integer("steps", steps, least=1)
        if total > MOST_DRAWN_STEPS - self.position:
            raise ValueError(f"steps: expected at most 2^32 with those before, got {self.position + total}")
        key = check.seed(seed)
        self._check(total)
        return np.asarray(self._core.pull(total, key, 0))

    def extend(self, covariates: Array) -> None:
        """Append frames to the known covariates; shape (rows, frames, columns), or (frames, columns) for all sequences.

        Covariates between two frames are interpolated, and constant after the last frame. With a `hop` above 1, a step
        has the same bits as in the whole sequence only if the next frame is known.
        """
        frames = Covariates(self._flow, Caller(), covariates, self._run.batch).stacked()
        if frames is None or self._frames is None:
            return
        joined = np.concatenate([self._frames, frames], axis=1)
        self._run, self._frames = self._run_of(self._rows, self._context, joined), joined
        self._core.set_frames(joined)

    def copies(self, n: int) -> Stream:
        """A stream of n copies of each sequence with its past, which then proceed independently.

        Row j * rows + r of the result is copy j of row r.

        >>> import numpy as np, headrace as hr
        >>> stream = hr.WaveNet(layers=4, channels=8).stream()
        >>> _ = stream.push(np.zeros((1, 50, 1)))
        >>> stream.copies(1000).pull(5, seed=0).shape  # a thousand ways to go on
        (1000, 5, 1)
        """
        count = check.integer("n", n, least=1, most=(MOST_SAMPLES - 1) // self._rows)
        run = self._run_of(self._rows * count, tiled(self._context, count), tiled(self._frames, count))
        return Stream(self._flow, run, self._core.copies(count).state)

    def _run_of(self, rows: int, context: Array | None, frames: Array | None) -> Run:
        """A run of `rows` sequences with the parameters of this stream."""
        run = self._run
        return Run(
            run.program, run.caller, (rows,), context, Covariates(self._flow, Caller(), frames, (rows,)), run.vector
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """The complete past as arrays by name, for ``flow.stream(state=...)``, without the flow's parameters."""
        arrays: dict[str, NDArray[Any]] = {"position": np.array(self.position)}
        for name, array in (("context", self._context), ("covariates", self._frames)):
            if array is not None:
                arrays[name] = array.copy()
        past = self._core.state
        for i, n in enumerate(past.numbers):
            if n:
                arrays[f"transforms.{i}"] = past.to_array(i)
        return arrays

    @classmethod
    def resumed(cls, flow: Any, program: Any, state: dict[str, NDArray[Any]]) -> Stream:
        """The stream that `SequenceFlow.stream` returns for a `state`."""
        if not isinstance(state, dict):
            raise TypeError(f"state: expected a dict that Stream.state gave, got {check.kind_of(state)}")
        arrays = dict(state)
        sizes = {f"transforms.{i}": n for i, n in enumerate(program.states(1).numbers) if n}
        needed = ["position", *(["context"] if flow.context else []), *(["covariates"] if flow.covariates else [])]
        if sorted(arrays) != sorted([*sizes, *needed]):
            raise ValueError(f"state: expected arrays {', '.join([*needed, *sizes])}, got {', '.join(sorted(arrays))}")
        position = check.integer("state['position']", np.asarray(arrays.pop("position"))[()], most=2**62)
        rows = len(np.atleast_1d(arrays[next(iter(sizes))]))
        caller = Caller()
        covariates = Covariates(flow, caller, arrays.get("covariates"), (rows,))
        context = _arrays.context_rows(arrays.get("context"), rows, flow.context, "state['context']")
        past = program.states(rows)
        for name, size in sizes.items():
            values = _as_state(f"state[{name!r}]", arrays[name], (rows, size), flow.dtype)
            past.set_array(int(name.partition(".")[2]), values, position)
        return cls(flow, Run(program, caller, (rows,), context, covariates), past)

    def _check(self, steps: int) -> None:
        self._run.covariates.check_steps(self.position + steps)


def _as_state(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        dtype_of_value = value.dtype if isinstance(value, np.ndarray) else check.kind_of(value)
        raise TypeError(f"{name}: expected a NumPy array of {dtype}, got {dtype_of_value}")
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or an infinity")
    return np.ascontiguousarray(value)
