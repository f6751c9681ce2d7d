"""The sequences of a call: an array with any leading dimensions, or a list of arrays of different lengths."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller, is_whole
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.types import Array
from headrace._core import cpu


class Sequences:
    """The sequences of a call, each (steps, features); sequences in one array are `array`, (rows, steps, features).

    Args:
        caller: The `Caller` that opens the call's arrays.
        name: The name of the argument.
        value: An array (rows, steps, features), (steps, features) or of more leading dimensions, or a list of arrays
            (steps, features), of any lengths.
        features: The number of values in a step.
        lengths: The number of steps that count in each sequence of an array; None for all.
        integers: Whether the call also takes integers.
    """

    def __init__(
        self, caller: Caller, name: str, value: Any, features: int, *, lengths: Any = None, integers: bool = False
    ) -> None:
        self.name, self.features, self._caller = name, features, caller
        self.is_list = isinstance(value, (list, tuple))
        if self.is_list:
            if lengths is not None:
                raise ValueError("lengths: expected None beside a list, whose arrays have their own, got some")
            self._arrays = [self._opened(f"{name}[{i}]", part, integers) for i, part in enumerate(value)]
            if not self._arrays:
                raise ValueError(f"{name}: expected at least one sequence, got an empty list")
            for i, array in enumerate(self._arrays):
                if array.ndim != 2 or array.shape[1] != features:
                    raise ValueError(f"{name}[{i}]: expected shape (steps, {features}), got {array.shape}")
            self.batch: tuple[int, ...] = (len(self._arrays),)
            counts = [len(array) for array in self._arrays]
        else:
            array = self._opened(name, value, integers)
            if array.ndim < 2 or array.shape[-1] != features:
                hint = f"; call {name}[..., None]" if features == 1 and array.ndim and array.shape[-1] != 1 else ""
                shapes = f"(rows, steps, {features}), (steps, {features}) for one sequence"
                raise ValueError(f"{name}: expected shape {shapes}, or a list of such, got {array.shape}{hint}")
            self.batch = array.shape[:-2]
            with caller.queue():
                self.array = array.reshape(math.prod(self.batch), *array.shape[-2:])
            counts = [array.shape[-2]] * len(self.array)
        self.steps = max(counts) if self.is_list else array.shape[-2]
        self.lengths, self.rows = np.array(counts, np.intp), len(counts)
        if not self.steps or 0 in counts:
            place = f"{name}[{counts.index(0)}]" if self.is_list else name
            raise ValueError(f"{place}: expected at least one step, got a sequence of none")
        if lengths is not None:
            self.lengths = self._counted(lengths)

    def _opened(self, name: str, value: Any, integers: bool) -> Array:
        if not integers and is_whole(value):
            raise TypeError(
                f"{name}: expected dtype float32 or float64, got {getattr(value, 'dtype', 'integers')}; for the "
                f"probability of integers give quantised=1, for a density call {name}.astype('float64')"
            )
        return self._caller.open(name, value, whole=integers)

    def _counted(self, lengths: Any) -> NDArray[np.intp]:
        counts = check.integers("lengths", np.asarray(lengths).reshape(-1).tolist(), least=1, most=self.steps)
        if np.shape(lengths) != self.batch:
            raise ValueError(f"lengths: expected shape {self.batch}, got {np.shape(lengths)}")
        return np.array(counts, np.intp)

    @property
    def arrays(self) -> list[Array]:
        """The sequences as arrays of shape (steps, features), without the steps beyond `lengths`."""
        if self.is_list:
            return list(self._arrays)
        return [array[:n] for array, n in zip(self.array, self.lengths.tolist(), strict=True)]

    @cached_property
    def core(self) -> Any:
        """The sequences in the core's form."""
        arrays = self._arrays if self.is_list else self.array
        return cpu.GivenSequences(self.name, arrays, self.features, self.lengths)

    def check(self, dtype: np.dtype[Any] | None = None) -> None:
        """Raise ValueError for values that are not finite, or beyond the range of a dtype."""
        self.core.check(dtype == np.float32)

    # ---- results -----------------------------------------------------------------------------------------------------

    def like(self, dtype: np.dtype[Any], *columns: int) -> Any:
        """Memory for results of all steps, shaped like the sequences; results beyond a sequence's length become 0."""
        empty = self._caller.empty
        if self.is_list:
            return [empty((n, *columns), dtype) for n in self.lengths.tolist()]
        return empty((*self.batch, self.steps, *columns), dtype)

    def give(self, results: Any) -> Any:
        """Convert results, which are in memory from `like`, to arrays for the caller."""
        return [self._caller.give(array) for array in results] if self.is_list else self._caller.give(results)


def given_as(caller: Any, values: Any, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Any:
    """A copy of the core's `values`, as an array of the caller's framework."""
    result = caller.empty(values.shape if shape is None else shape, values.dtype if dtype is None else dtype)
    result[...] = values.reshape(result.shape)
    return caller.give(result)


class Covariates:
    """Covariates over time: `arrays` has an array of frames for each sequence, or one for all; frames are `hop` steps
    apart.

    Args:
        flow: The flow, which has `covariates`, `hop` and `dtype`.
        caller: The `Caller` that opens the call's arrays.
        value: An array (rows, frames, columns), or (frames, columns) for all sequences, or a list of arrays.
        batch: The leading dimensions of the sequences.
    """

    def __init__(self, flow: Any, caller: Caller, value: Any, batch: tuple[int, ...]) -> None:
        columns, self._hop, self._dtype = flow.covariates, flow.hop, flow.dtype
        self._columns, self._rows, self._on_device = columns, math.prod(batch), None
        self.arrays: list[Array] = []
        if columns and isinstance(value, (list, tuple)):
            if caller.device is not None:
                raise errors.wrong_kind("covariates", f"an array on {caller.device}", "a list", "pad to one length")
            if len(value) != self._rows or len(batch) != 1:
                raise ValueError(f"covariates: expected one array for each of {self._rows} sequences, got {len(value)}")
            self.arrays = [
                self._finite(f"covariates[{i}]", _arrays.matrix(f"covariates[{i}]", frames, columns, caller))
                for i, frames in enumerate(value)
            ]
            return
        if not columns:
            if value is not None:
                raise ValueError("covariates: expected None, because this takes no covariates, got some")
            return
        per_sequence = "(" + ", ".join([*map(str, batch), "frames", str(columns)]) + ")"
        expected = f"(frames, {columns}) for all sequences, or {per_sequence}"
        if value is None:
            raise ValueError(f"covariates: expected shape {expected}, got None")
        array = caller.open("covariates", value)
        if array.ndim < 2 or array.shape[-1] != columns or array.shape[:-2] not in ((), batch):
            raise ValueError(f"covariates: expected shape {expected}, got {array.shape}")
        with caller.queue():
            stacked = array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:])
            if caller.device is not None:
                self._on_device, stacked = stacked, stacked[:1]  # all sequences of an array have equally many frames
            else:
                self._finite("covariates", array)
            self.arrays = list(stacked)

    @staticmethod
    def _finite(name: str, array: Array) -> Array:
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got a NaN or an infinity")
        return array

    def check_steps(self, steps: int) -> None:
        """Raise ValueError if there are too few frames for sequences of `steps` steps each."""
        if self.arrays:
            self.check(np.full(self._rows, steps, np.intp))

    def check(self, lengths: NDArray[np.intp]) -> None:
        """Raise ValueError if there are too few frames for sequences of `lengths` steps."""
        for i, frames in enumerate(self.arrays):
            steps = int(lengths.max(initial=0) if len(self.arrays) == 1 else lengths[i])
            if len(frames) < (least := -(-steps // self._hop)):
                of = f" of sequence {i}" if len(self.arrays) > 1 else ""
                raise ValueError(
                    f"covariates: expected at least {least} frames for {steps} steps{of} at {self._hop} steps a "
                    f"frame, got {len(frames)}"
                )

    def of_program(self) -> Any:
        """The frames for calls of the program: a list of arrays, or on a device one array; None without covariates."""
        if self._on_device is not None:
            return self._on_device
        return [np.ascontiguousarray(array, self._dtype) for array in self.arrays] if self._columns else None

    def stacked(self) -> Array | None:
        """The frames of all sequences, (rows, frames, columns), padded with last frames; None without covariates."""
        if not self._columns:
            return None
        arrays = self.arrays * (self._rows if len(self.arrays) == 1 else 1)
        frames = max(map(len, arrays), default=0)
        values = np.empty((len(arrays), frames, self._columns), self._dtype)
        for row, array in zip(values, arrays, strict=True):
            row[: len(array)] = array
            row[len(array) :] = array[-1:]
        return values
