"""Sequences in a call: arrays of any leading dimensions, or lists of different lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller, is_whole
from headrace._base import arguments as check
from headrace._base.types import Array

_MOST_VALUES = 2**18  # of a block of steps in one piece of work: the memory of a call beside its results
_PANEL = 48  # sequences at least in a block of many long ones: one panel of streams


@dataclass(frozen=True)
class Block:
    """Sequences that are computed together, and the longest one's steps."""

    index: NDArray[np.intp]
    steps: int


def blocks(lengths: NDArray[np.intp], features: int) -> Iterator[Block]:
    """All sequences in blocks of similar lengths."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        steps = int(lengths[order[begin]])
        rows = max(_PANEL, _MOST_VALUES // max(steps * features, 1))
        yield Block(order[begin : begin + rows], steps)
        begin += rows


def chunks(rows: int, begin: int, end: int, features: int) -> Iterator[tuple[int, int]]:
    """Ranges of steps in which this many sequences are computed."""
    size = max(1, _MOST_VALUES // max(rows * features, 1))
    for first in range(begin, end, size):
        yield first, min(first + size, end)


class Sequences:
    """Values of sequences in a call, each (steps, features): of an array in `array`, (rows, steps, features).

    Args:
        caller: Of the call.
        name: Of the argument.
        value: Shape (rows, steps, features), (steps, features) for one, any leading dimensions, or a list of arrays
            (steps, features), of any lengths.
        features: Number of values in a step.
        lengths: Steps of each sequence of an array that count; None for all.
        integers: Whether integers are taken too.
    """

    def __init__(
        self,
        caller: Caller,
        name: str,
        value: Any,
        features: int,
        *,
        lengths: Any = None,
        integers: bool = False,
        holds: np.dtype[Any] | None = None,
    ) -> None:
        self.name, self.features, self._caller, self._holds = name, features, caller, holds
        self.is_list = isinstance(value, (list, tuple))
        if self.is_list:
            if lengths is not None:
                raise ValueError("lengths: expected None beside a list, whose arrays have their own, got some")
            self._arrays = [self._opened(f"{name}[{i}]", one, integers) for i, one in enumerate(value)]
            if not self._arrays:
                raise ValueError(f"{name}: expected at least one sequence, got an empty list")
            for i, array in enumerate(self._arrays):
                if array.ndim != 2 or array.shape[1] != features:
                    raise ValueError(f"{name}[{i}]: expected shape (steps, {features}), got {array.shape}")
            self.batch: tuple[int, ...] = (len(self._arrays),)
            found = [len(array) for array in self._arrays]
        else:
            array = self._opened(name, value, integers)
            if array.ndim < 2 or array.shape[-1] != features:
                hint = f"; call {name}[..., None]" if features == 1 and array.ndim and array.shape[-1] != 1 else ""
                raise ValueError(
                    f"{name}: expected shape (rows, steps, {features}), (steps, {features}) for one sequence, or a "
                    f"list of such, got {array.shape}{hint}"
                )
            self.batch = array.shape[:-2]
            with caller.queue():
                self.array = array.reshape(math.prod(self.batch), *array.shape[-2:])
            found = [array.shape[-2]] * len(self.array)
        self.steps = max(found) if self.is_list else array.shape[-2]
        self.lengths, self.rows = np.array(found, np.intp), len(found)
        if not self.steps or 0 in found:
            place = f"{name}[{found.index(0)}]" if self.is_list else name
            raise ValueError(f"{place}: expected at least one step, got a sequence of none")
        if lengths is not None:
            self.lengths = self._counted(lengths)
        self._shortest = self.steps if lengths is None and not self.is_list else int(self.lengths.min())

    def _opened(self, name: str, value: Any, integers: bool) -> Array:
        if not integers and is_whole(value):
            raise TypeError(
                f"{name}: expected dtype float32 or float64, got {getattr(value, 'dtype', 'integers')}; for the "
                f"probability of integers give quantised=1, for a density call {name}.astype('float64')"
            )
        return self._caller.open(name, value, whole=integers)

    def _counted(self, lengths: Any) -> NDArray[np.intp]:
        given = check.integers("lengths", np.asarray(lengths).reshape(-1).tolist(), least=1, most=self.steps)
        if np.shape(lengths) != self.batch:
            raise ValueError(f"lengths: expected shape {self.batch}, got {np.shape(lengths)}")
        return np.array(given, np.intp)

    @property
    def arrays(self) -> list[Array]:
        """Each sequence, (steps, features)."""
        if self.is_list:
            return list(self._arrays)
        return [array[:n] for array, n in zip(self.array, self.lengths.tolist(), strict=True)]

    def blocks(self) -> Iterator[Block]:
        """All sequences, in blocks of similar lengths."""
        return blocks(self.lengths, self.features)

    def whole(self) -> list[Block]:
        """All sequences in one block; none for no sequences."""
        return [Block(np.arange(self.rows), self.steps)] if self.rows else []

    def part(self, block: Block, begin: int, end: int) -> Array:
        """Steps of a block, (rows, steps, features); zeros after the end of a sequence.

        Raises:
            ValueError: a value that is not finite, or beyond those of the dtype `holds`.
        """
        if self.is_list:
            kind = np.result_type(*(self._arrays[i].dtype for i in block.index))
            values = np.zeros((len(block.index), end - begin, self.features), kind)
            for row, i in enumerate(block.index):
                own = self._arrays[i][begin:end]
                values[row, : len(own)] = own
        else:
            values = self.array[block.index, begin:end]
            if end > self._shortest:
                values[self.beyond(block, begin, end)] = 0.0
        good = np.isfinite(values)
        if self._holds is not None and values.dtype.itemsize > self._holds.itemsize:
            good &= np.abs(values) <= float(np.finfo(self._holds).max)
        if not good.all():
            row, step, column = np.argwhere(~good)[0]
            what = f"numbers that {self._holds} holds" if np.isfinite(values[row, step, column]) else "finite numbers"
            raise ValueError(
                f"{self.name}: expected {what}, got {values[row, step].tolist()} at step {begin + step} of "
                f"sequence {block.index[row]}"
            )
        return values

    def beyond(self, block: Block, begin: int, end: int) -> NDArray[np.bool_]:
        """A mask of the steps of a block after the end of their sequence, (rows, steps)."""
        return np.asarray(np.arange(begin, end) >= self.lengths[block.index, None])

    # ---- results -----------------------------------------------------------------------------------------------------

    def like(self, dtype: np.dtype[Any], *columns: int) -> _Steps:
        """Memory for results of each step."""
        return _Steps(self, dtype, columns)


def given_as(caller: Any, values: Any, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Any:
    """Values of the core for the caller, in memory of its framework."""
    result = caller.empty(values.shape if shape is None else shape, values.dtype if dtype is None else dtype)
    result[...] = values.reshape(result.shape)
    return caller.give(result)


class _Steps:
    """Results of each step, in the shape in which sequences were given."""

    def __init__(self, given: Sequences, dtype: np.dtype[Any], columns: tuple[int, ...]) -> None:
        self._given = given
        empty = given._caller.empty
        if given.is_list:
            self._own: list[Array] = [empty((n, *columns), dtype) for n in given.lengths.tolist()]
        else:
            self._all = empty((given.rows, given.steps, *columns), dtype)
            self._all[...] = 0.0

    def put(self, block: Block, begin: int, values: Array) -> None:
        """Store a block's results from a step on."""
        if not self._given.is_list:
            self._all[block.index, begin : begin + values.shape[1]] = values
            return
        for row, i in enumerate(block.index):
            own = self._own[i][begin : begin + values.shape[1]]
            own[:] = values[row, : len(own)]

    def give(self) -> Any:
        """All results, for the caller."""
        caller = self._given._caller
        if self._given.is_list:
            return [caller.give(array) for array in self._own]
        return caller.give(self._all.reshape(*self._given.batch, *self._all.shape[1:]))


class Covariates:
    """Covariates over time: frames, one every `hop` steps, of each sequence or of all, in `arrays`.

    Args:
        flow: Which has their number of columns, 0 for none, the steps of a frame, and the dtype.
        caller: Of the call.
        value: Shape (rows, frames, columns), (frames, columns) for all sequences, or with a list of sequences a list.
        batch: The shape of the sequences.
    """

    def __init__(self, flow: Any, caller: Caller, value: Any, batch: tuple[int, ...]) -> None:
        columns, self._hop, self._dtype = flow.covariates, flow.hop, flow.dtype
        self._columns = columns
        self.arrays: list[Array] = []
        self._rows = math.prod(batch)
        if columns and isinstance(value, (list, tuple)):
            if len(value) != self._rows or len(batch) != 1:
                raise ValueError(f"covariates: expected one array for each of {self._rows} sequences, got {len(value)}")
            self.arrays = [
                self._finite(f"covariates[{i}]", _arrays.matrix(f"covariates[{i}]", one, columns, caller))
                for i, one in enumerate(value)
            ]
            return
        array = self.opened(caller, value, columns, batch)
        if array is None:
            return
        self._finite("covariates", array)
        self.arrays = list(array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:]))

    @staticmethod
    def opened(caller: Caller, value: Any, columns: int, batch: tuple[int, ...]) -> Array | None:
        """An array of these, (frames, columns) or (*batch, frames, columns); None where there are no columns."""
        if not columns:
            if value is not None:
                raise ValueError("covariates: expected None, as this takes no covariates, got some")
            return None
        own = "(" + ", ".join([*map(str, batch), "frames", str(columns)]) + ")"
        expected = f"(frames, {columns}) for all sequences, or {own}"
        if value is None:
            raise ValueError(f"covariates: expected shape {expected}, got None")
        array = caller.open("covariates", value)
        if array.ndim < 2 or array.shape[-1] != columns or array.shape[:-2] not in ((), batch):
            raise ValueError(f"covariates: expected shape {expected}, got {array.shape}")
        return array

    @staticmethod
    def _finite(name: str, array: Array) -> Array:
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got a NaN or an infinity")
        return array

    def check_steps(self, steps: int) -> None:
        """Refuse too few frames for sequences of this many steps each."""
        if self.arrays:
            self.check(np.full(self._rows, steps, np.intp))

    def check(self, lengths: NDArray[np.intp]) -> None:
        """Refuse too few frames for sequences of these lengths."""
        for i, own in enumerate(self.arrays):
            steps = int(lengths.max(initial=0) if len(self.arrays) == 1 else lengths[i])
            self.check_frames(len(own), steps, self._hop, f" of sequence {i}" if len(self.arrays) > 1 else "")

    @staticmethod
    def check_frames(frames: int, steps: int, hop: int, of: str = "") -> None:
        """Refuse frames for less than this many steps."""
        if frames < (least := -(-steps // hop)):
            raise ValueError(
                f"covariates: expected at least {least} frames for {steps} steps{of} at {hop} steps a frame, "
                f"got {frames}"
            )

    def rows(self, index: Sequence[int] | NDArray[np.intp]) -> Array | None:
        """Frames of these sequences, (rows, frames, columns); the last frame of a short one is repeated."""
        if not self._columns:
            return None
        own = [self.arrays[0 if len(self.arrays) == 1 else i] for i in index]
        frames = max(map(len, own), default=0)
        values = np.empty((len(own), frames, self._columns), self._dtype)
        for row, array in zip(values, own, strict=True):
            row[: len(array)] = array
            row[len(array) :] = array[-1:]
        return values
