"""Tables of pandas, polars and Arrow, whose columns have dtypes, and other objects that NumPy can convert.

A frame that its library stores as one block of one float dtype is read without a copy; columns of other frames are
copied to one array. Integers and truth values become floats, and missing values NaN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.array_errors import argument_of

Column = tuple[Any, Any, Callable[[np.dtype[Any]], NDArray[Any]]]  # the label, the dtype, and a function to read values

MOST_LABELS = 128  # the largest number of labels of a column that is coded

_FRAMES = {"pandas": ("DataFrame", "Series"), "polars": ("DataFrame", "Series")}
_ARROW = ("Table", "RecordBatch", "ChunkedArray", "Array")
_TABLES = (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("pyarrow", "RecordBatch"))


def class_of(module: str, name: str) -> Any:
    """A class of a library for `isinstance`; an empty tuple if the library was not imported."""
    return getattr(sys.modules.get(module), name, ())


def is_frame(value: Any) -> bool:
    """Whether an object is a frame or a column of pandas, polars or PyArrow."""
    return any(_is_of(value, library) for library in (*_FRAMES, "pyarrow"))


def is_readable(value: Any) -> bool:
    """Whether NumPy can read an object by its `__array__`, such as arrays of xarray, Dask and h5py."""
    return hasattr(type(value), "__array__") and not isinstance(value, np.generic)


def read(name: str, value: Any) -> NDArray[Any]:
    """The values of a frame as an array of floats, or another object's values in NumPy's conversion."""
    if not is_frame(value):
        try:
            return np.asarray(value)
        except Exception as error:  # other libraries may raise any error
            raise TypeError(
                f"{name}: expected an array that NumPy can read, got {type(value).__module__}."
                f"{type(value).__qualname__} ({error})"
            ) from None
    columns, dtypes = _checked(name, value)
    wanted: Any = np.result_type(*dtypes) if columns else np.dtype(np.float64)
    if _is_of(value, "pandas") and all(isinstance(dtype, np.dtype) and dtype == wanted for _, dtype, _ in columns):
        return value.to_numpy(wanted)
    if _is_column(value):
        return columns[0][2](wanted)
    array = np.empty((len(value), len(columns)), wanted)
    for i, (_, _, numbers) in enumerate(columns):
        array[:, i] = numbers(wanted)
    return array


def read_list(name: str, value: Any) -> NDArray[np.float64]:
    """A float64 array from a number, a list of numbers, or a list of lists or arrays of numbers.

    Raises:
        TypeError: the list contains anything but real numbers, or lists of different lengths.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected numbers in lists of one length, got others ({error})") from None
    if array.dtype.kind not in "iubf":
        raise TypeError(f"{name}: expected a list of real numbers, got one that NumPy reads as {array.dtype}")
    return array.astype(np.float64, copy=False)


def check_numbers(name: str, x: Any) -> None:
    """Refuse a frame with a column that is not numeric, and a lazy frame of polars."""
    if isinstance(x, class_of("polars", "LazyFrame")):
        raise TypeError(f"{name}: expected rows, got a polars.LazyFrame; call {name}.collect()")
    if is_frame(x):
        _checked(name, x)


def _checked(name: str, value: Any) -> tuple[list[Column], list[np.dtype[Any]]]:
    """The columns of a frame, which must be numeric, and the float dtype for each column."""
    columns = _columns(value)
    if any(isinstance(its_dtype, np.dtype) and its_dtype.kind == "O" for _, its_dtype, _ in columns):
        columns = _columns(inferred(value))
    names = labels_of(value) or ()
    if len(set(names)) < len(names):
        twice = next(label for i, label in enumerate(names) if label in names[:i])
        raise ValueError(f"{name}: expected columns of different names, got {twice!r} twice")
    dtypes = []
    for label, column_type, _ in columns:
        dtype = _float(column_type) or _whole(column_type)
        if dtype is None:
            raise TypeError(
                f"{name}: expected columns of numbers, got {column_type} in column {label!r}; "
                f"{_conversion(name, value, column_type)}choose columns of numbers"
            )
        dtypes.append(dtype)
    return columns, dtypes


def without_text(x: Any, known: Collection[str] = ()) -> tuple[Any, tuple[str, ...]]:
    """A frame without its columns of text and categories, and their names; other objects are unchanged, without names.

    `known`: the names of columns that always stay.
    """
    if not is_frame(x) or _is_column(x):
        return x, ()
    x = inferred(x)
    texts = tuple(
        str(label) for label, dtype, _ in _columns(x) if label not in known and str(dtype).lower().startswith(TEXTS)
    )
    if not texts or len(texts) == len(_columns(x)):
        return x, ()
    rest = [label for label, _, _ in _columns(x) if str(label) not in texts]
    return x.select(rest) if hasattr(x, "select") else x[rest], texts


def coded(
    x: Any, known: Mapping[str, Sequence[str]] | None = None, most: int = MOST_LABELS
) -> tuple[Any, dict[str, tuple[str, ...]]]:
    """A pandas or polars frame with codes in place of text, NaN in place of missing text, and the labels by column.

    Args:
        x: A frame; other objects are returned unchanged.
        known: The labels of each column; the column's other texts have the code -1. None to use all texts in the frame
            as labels.
        most: A column with more labels than this, or with a different label in each row, stays text.
    """
    labels_by_column: dict[str, tuple[str, ...]] = {}
    if not any(isinstance(x, class_of(library, "DataFrame")) for library in ("pandas", "polars")):
        return x, labels_by_column
    x = inferred(x)
    for label, dtype, _ in _columns(x):
        if not str(dtype).lower().startswith(TEXTS) or (known is not None and label not in known):
            continue
        absent = (x[label].isna() if hasattr(x[label], "isna") else x[label].is_null()).to_numpy()
        texts = np.array([str(value) for value in x[label].to_list()], object)
        labels = tuple(sorted(set(texts[~absent]))) if known is None else tuple(known[label])
        if known is None and (len(labels) > most or len(labels) == len(texts) > 1):
            continue
        codes = np.where(absent, np.nan, codes_of(texts, labels))
        x = x.assign(**{label: codes}) if hasattr(x, "assign") else x.with_columns(type(x[label])(label, codes))
        labels_by_column[str(label)] = labels
    return x, labels_by_column


def codes_of(texts: Iterable[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """The codes of texts: the index of each text in `labels`, or -1 for an unknown text."""
    place = {text: float(i) for i, text in enumerate(labels)}
    return np.array([place.get(value, -1.0) for value in texts])


TEXTS = ("str", "utf8", "large_string", "categor", "enum", "dictionary")  # beginnings of dtype names of text columns


def kinds_of(x: Any) -> list[str] | None:
    """The kind of each column, "integer", "boolean" or "float"; None if all are "float", and for other objects."""
    dtypes: Any = getattr(x, "dtypes", None)
    if isinstance(x, class_of("polars", "DataFrame")):
        kinds = ["integer" if t.is_integer() else "boolean" if str(t) == "Boolean" else "float" for t in dtypes]
    elif isinstance(x, class_of("pandas", "DataFrame")):
        kinds = [_kind(getattr(dtype, "kind", "f")) for dtype in dtypes]
    else:
        try:
            array: Any = np.asarray(x) if hasattr(x, "__array__") or isinstance(x, (list, tuple)) else np.empty(0)
        except (TypeError, ValueError, RuntimeError):  # other checks refuse objects of unknown types
            return None
        if array.ndim != 2:
            return None
        kinds = [_kind(array.dtype.kind)] * array.shape[1]
    return kinds if set(kinds) != {"float"} else None


def _kind(code: str) -> str:
    return {"i": "integer", "u": "integer", "b": "boolean"}.get(code, "float")


def names_of(x: Any, features: int) -> list[str] | None:
    """The column names of a frame with `features` columns; None for other objects."""
    labels = labels_of(x)
    return list(labels) if labels is not None and len(labels) == features else None


def labels_of(x: Any) -> tuple[str, ...] | None:
    """The column names of a frame; None for an object without names, or if a name is not a string."""
    labels = x.schema.names if _is_of(x, "pyarrow") and not _is_column(x) else getattr(x, "columns", None)
    if labels is None or not np.iterable(labels):
        return None
    as_tuple = tuple(labels)
    return as_tuple if all(isinstance(name, str) for name in as_tuple) else None


def _is_of(value: Any, library: str) -> bool:
    return any(isinstance(value, class_of(library, kind)) for kind in _FRAMES.get(library, _ARROW))


def _is_column(value: Any) -> bool:
    return not any(isinstance(value, class_of(*kind)) for kind in _TABLES)


def _columns(value: Any) -> list[Column]:
    if _is_of(value, "pandas"):
        if value.ndim == 1:
            return [(value.name, value.dtype, partial(_of_pandas, value, None))]
        typed = zip(value.columns, value.dtypes, strict=True)  # reading dtypes is faster than extracting columns
        return [(label, dtype, partial(_of_pandas, value, i)) for i, (label, dtype) in enumerate(typed)]
    if _is_of(value, "polars"):
        columns = [value] if _is_column(value) else value.get_columns()
        return [(column.name, column.dtype, partial(_of_polars, column)) for column in columns]
    named = [("", value)] if _is_column(value) else zip(value.schema.names, value.columns, strict=True)
    return [(label, column.type, partial(_of_arrow, column)) for label, column in named]


def _of_pandas(value: Any, i: int | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    column = value if i is None else value.iloc[:, i]
    return column.to_numpy(dtype, na_value=np.nan)


def _of_polars(column: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy()
    return array.astype(dtype, copy=False)


def _of_arrow(column: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    chunked = isinstance(column, class_of("pyarrow", "ChunkedArray"))
    array: NDArray[Any] = column.to_numpy() if chunked else column.to_numpy(zero_copy_only=False)
    return array.astype(dtype, copy=False)


def _float(dtype: Any) -> np.dtype[Any] | None:
    """The NumPy dtype of a column of 32-bit or 64-bit floats; None for other columns."""
    if isinstance(dtype, np.dtype):
        return dtype.newbyteorder("=") if dtype.kind == "f" and dtype.itemsize in (4, 8) else None
    names = {"float": np.float32, "double": np.float64, "float32": np.float32, "float64": np.float64}
    name = str(dtype).lower().removesuffix("[pyarrow]")
    return np.dtype(names[name]) if name in names else None


def _whole(dtype: Any) -> np.dtype[Any] | None:
    """The float dtype that holds a column of integers, truth values or decimals; None for other columns."""
    if isinstance(dtype, np.dtype):
        return np.result_type(dtype, np.float32) if dtype.kind in "iub" else None
    name = str(dtype).lower().removesuffix("[pyarrow]")
    if name in ("bool", "boolean"):
        return np.dtype(np.float32)
    if name.lstrip("u") in ("int8", "int16", "int32", "int64"):
        return np.result_type(name, np.float32)
    return np.dtype(np.float64) if name.startswith("decimal") else None


def inferred(value: Any) -> Any:
    """A pandas frame whose object columns have the dtypes of their values, such as booleans with missing values."""
    if not isinstance(value, class_of("pandas", "DataFrame")):
        return value
    objects = [
        i for i, dtype in enumerate(value.dtypes) if getattr(dtype, "kind", "") == "O" and str(dtype) == "object"
    ]
    if objects:
        value = value.copy(deep=False)
        for i in objects:
            value.isetitem(i, value.iloc[:, i].convert_dtypes())
    return value


def _conversion(name: str, value: Any, dtype: Any) -> str:
    """The advice in an error message: how to convert a column of this type to numbers, or to drop the column."""
    text = str(dtype).lower()
    if any(kind in text for kind in ("str", "utf8", "categor", "enum", "dictionary", "binary")):
        return "drop this column or encode its categories as context, or "
    if any(kind in text for kind in ("date", "time", "duration", "period", "interval")):
        return "convert it to a number, such as seconds since a date, or "
    return f"{_advice(name, value)} if that is meant, or "


def _advice(name: str, value: Any) -> str:
    name = argument_of(name)
    if _is_of(value, "pandas"):
        return f"call {name}.astype('float64')"
    return f"call {name}.cast(polars.Float64)" if _is_of(value, "polars") else "cast it to pyarrow.float64()"
