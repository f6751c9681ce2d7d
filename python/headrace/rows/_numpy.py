"""Tables in .npy and .npz files; rows of .npy files in C order are read on demand."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headrace.rows import _source
from headrace.rows._source import KINDS, Source


class _NoSuchArray(ValueError):
    """The error for an array that an .npz file does not have; it distinguishes this case from a broken file."""


class Array(Source):
    def __init__(self, path: str, name: str | None, dashes: str = "") -> None:
        self.path, self.names, self.dashes = path, None, dashes
        content = content_of(path, name, dashes)
        if len(content.shape) not in (1, 2) or content.dtype.kind not in "fiub":
            got = f"shape {content.shape} of {content.dtype}; numpy.save of array.reshape(len(array), -1) makes one"
            raise ValueError(f"{path}: expected an array (rows, columns) of real numbers, got {got}")
        self.content, self.n_columns = content, content.shape[1] if len(content.shape) == 2 else 1

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of the columns, from the dtype of the array; see `Source`."""
        return [KINDS.get(self.content.dtype.kind, "float")] * self.n_columns

    def pieces(self) -> list[int | None]:
        rows = self.content.shape[0]
        return [min(_source.BLOCK, rows - begin) for begin in range(0, rows, _source.BLOCK)]

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        rows = self.content[number * _source.BLOCK : (number + 1) * _source.BLOCK].reshape(-1, self.n_columns)
        every = list(columns) == list(range(self.n_columns))
        yield np.ascontiguousarray(rows if every else rows[:, list(columns)], self.dtype(columns))

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        return np.dtype(np.float32 if self.content.dtype in (np.float16, np.float32) else np.float64)


def content_of(path: str, name: str | None = None, dashes: str = "") -> Any:
    """Open the array in a file: as `Rows` if rows can be read on demand, otherwise as an array, which is mapped if
    possible.

    Args:
        path: The path of an .npy or .npz file.
        name: The name of the array in an .npz file; None if the file has only one.
        dashes: As in `Source`.

    Raises:
        ValueError: the file is not a NumPy file, or does not have the array `name`.
    """
    try:
        with open(path, "rb") as file:
            is_one = path.lower().endswith(".npy")
            if is_one and (rows := _on_demand(file)) is not None:
                return rows
            file.seek(0)
            content: Any = np.load(path if is_one else file, "r" if is_one else None, allow_pickle=False)
            if isinstance(content, np.lib.npyio.NpzFile):
                content = content[_choice(path, content.files, name, dashes)]
    except (EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        if isinstance(error, _NoSuchArray):
            raise
        got = "one that is broken, foreign or has Python objects; numpy.save of array.astype(float) makes one"
        raise ValueError(f"{path}: expected a NumPy file of numbers, got {got}") from None
    return content


def _choice(path: str, names: list[str], name: str | None, dashes: str) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        raise _NoSuchArray(f"{dashes}array: expected one of {', '.join(map(repr, names))} of {path}, got {name!r}")
    return name


class Rows:
    """The rows of an .npy file in C order, which are read on demand, because pages of a mapped file count as used
    memory.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype, self.begin = file.name, shape, dtype, file.tell()
        self.row_bytes = dtype.itemsize * int(np.prod(shape[1:]))

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """The rows of a slice, read from the file."""
        begin, end, _ = rows.indices(self.shape[0])
        with open(self.path, "rb") as file:
            file.seek(self.begin + begin * self.row_bytes)
            data = file.read((end - begin) * self.row_bytes)
        if len(data) < (end - begin) * self.row_bytes:
            raise ValueError(f"{self.path}: expected {self.shape[0]} rows, as it began with, got a shorter file")
        return np.frombuffer(data, self.dtype).reshape(end - begin, *self.shape[1:])


def _on_demand(file: IO[bytes]) -> Rows | None:
    """The rows of an open .npy file, for reads of single rows; None if the format does not allow these."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        return None
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if (fortran and len(shape) == 2) or len(shape) not in (1, 2) or dtype.kind not in "fiub" or 0 in shape:
        return None
    if os.fstat(file.fileno()).st_size - file.tell() < int(np.prod(shape)) * dtype.itemsize:
        return None
    return Rows(file, shape, dtype)
