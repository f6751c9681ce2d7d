"""Tables in .npy and .npz files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headrace._cli.tables import source
from headrace._cli.tables.source import KINDS, Source


class _NoSuchArray(ValueError):
    """The error for an array that an .npz file does not have, as opposed to a broken file."""


class Array(Source):
    def __init__(self, path: str, name: str | None) -> None:
        self.path, self.names = path, None
        try:
            with open(path, "rb") as file:
                content: Any = _opened(file) if name is None and path.lower().endswith(".npy") else None
                if content is None:
                    file.seek(0)
                    content = np.load(file, allow_pickle=False)
                if isinstance(content, np.lib.npyio.NpzFile):
                    content = content[self._choose(content.files, name)]
        except (EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
            if isinstance(error, _NoSuchArray):
                raise
            raise ValueError(
                f"{path}: expected a NumPy file of numbers, got one that is broken, foreign or has Python objects; "
                "numpy.save of array.astype(float) makes one"
            ) from None
        if content.ndim == 1 and isinstance(content, np.ndarray):
            content = content[:, None]
        if content.ndim != 2 or content.dtype.kind not in "fiub":
            raise ValueError(
                f"{path}: expected an array (rows, columns) of real numbers, got shape {content.shape} of "
                f"{content.dtype}; numpy.save of array.reshape(len(array), -1) makes one of numbers"
            )
        self.content, self.n_columns = content, content.shape[1]

    @property
    def kinds(self) -> list[str]:
        """See `Source`."""
        return [KINDS.get(self.content.dtype.kind, "float")] * self.n_columns

    def _choose(self, names: list[str], name: str | None) -> str:
        if name is None and len(names) == 1:
            return names[0]
        if name is None or name not in names:
            raise _NoSuchArray(
                f"--array: expected one of the arrays {', '.join(map(repr, names))} of {self.path}, got {name!r}"
            )
        return name

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        return self._chosen(self.content[:], columns)

    def pieces(self) -> list[int | None]:
        rows = self.content.shape[0]
        return [min(source.BLOCK, rows - begin) for begin in range(0, rows, source.BLOCK)]

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        yield self._chosen(self.content[number * source.BLOCK : (number + 1) * source.BLOCK], columns)

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        return np.dtype(np.float32 if self.content.dtype in (np.float16, np.float32) else np.float64)

    def _chosen(self, rows: NDArray[Any], columns: Sequence[int]) -> NDArray[Any]:
        every = list(columns) == list(range(self.n_columns))
        return np.ascontiguousarray(rows if every else rows[:, list(columns)], self.dtype(columns))


class _Rows:
    """The rows of an .npy file in C order, read on demand."""

    def __init__(self, file: IO[bytes], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype, self.begin = file.name, shape, dtype, file.tell()
        self.ndim, self.row_bytes = 2, shape[1] * dtype.itemsize

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        begin, end, _ = rows.indices(self.shape[0])
        with open(self.path, "rb") as file:
            file.seek(self.begin + begin * self.row_bytes)
            data = file.read((end - begin) * self.row_bytes)
        if len(data) < (end - begin) * self.row_bytes:
            raise ValueError(
                f"{self.path}: expected {self.shape[0]} rows, as it began with, got a file that is shorter"
            )
        return np.frombuffer(data, self.dtype).reshape(end - begin, self.shape[1])


def _opened(file: IO[bytes]) -> _Rows | None:
    """A table of which any part can be read by itself; None for one that is read as a whole, or refused there."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        return None
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or len(shape) not in (1, 2) or dtype.kind not in "fiub" or 0 in shape:
        return None
    rows, columns = shape[0], shape[1] if len(shape) == 2 else 1
    if os.fstat(file.fileno()).st_size - file.tell() < rows * columns * dtype.itemsize:
        return None
    return _Rows(file, (rows, columns), dtype)
