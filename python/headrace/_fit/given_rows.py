"""The rows of a fit: their checks, the rows that take part, and warnings about rows and columns.

The memory in use does not grow with the number of rows, except where weights leave rows out. A table may be a file
that is mapped into memory and larger than the memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._arrays.columns import spike
from headrace._arrays.row_parts import CHUNK, RowPart, names_of
from headrace._base.warn import FREQUENT, warn
from headrace._fit.moments import Far, far_columns
from headrace._flow.transforms.support import Support

Index = NDArray[np.int64]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Two values of each column, such as mean and standard deviation."""

DIGITS = 1e4  # distinct values per standard deviation that the dtype must have
FAR = {"x": 1e5, "context": 1e3}  # least distance of far cells from the median, in units of the median distance
FEW = 0.01  # the largest share of rows with far cells at which these rows are left out
LOOKED_AT = 1 << 14  # rows of a block in the search for far cells, and for lost training rows
LOST = 1000.0  # a training row this many nats below the median log density counts as lost
LEAST_EFFECTIVE = 20  # the effective number of rows below which a fit warns


@dataclass
class Data:
    """Rows with their context and weights, all checked, and the names of the columns of x."""

    x: NDArray[Any]
    context: NDArray[Any] | None
    weights: NDArray[Any] | None
    names: tuple[str, ...] = ()
    support: Support | None = None

    def taking_part(self, first: int = 0) -> tuple[int, Any]:
        """The number of rows that take part in the fit, and their ascending indices; None for the indices of all rows.

        Rows of weight 0 are left out, and rows with far cells if these are few; `first` is row 0's index in a warning.
        """
        part = RowPart(int(self.x.shape[0]))
        if self.weights is not None and not (positive := _arrays.on_host(self.weights > 0)).all():
            part = _kept(part, positive)
        for name, table in (("x", self.x), ("context", self.context)):
            if table is not None and part.size and table.shape[0] == self.x.shape[0]:
                part = _without_far(name, table, part, self.names if name == "x" else (), first)
        return part.size, part.kept

    def unbounded(self, index: Any) -> NDArray[np.float64]:
        """The rows of x at an index, in float64, mapped from their bounds to the real line."""
        chosen: NDArray[np.float64] = self.x[index].astype(np.float64)
        return chosen if self.support is None else self.support.inverse(chosen)[0]

    def rows(self, index: Index) -> Data:
        """A copy of the rows at an index."""
        index = _arrays.library(self.x).asarray(index)
        context = self.context
        if context is not None and context.shape[0] == self.x.shape[0]:
            context = context[index]
        weights = None if self.weights is None else self.weights[index]
        return Data(self.x[index], context, weights, self.names, self.support)

    def values(self, index: Any, of_context: bool) -> NDArray[np.float64]:
        """The float64 rows at an index: rows of x, mapped from their bounds to the real line, or of the context."""
        if not of_context:
            return self.unbounded(index)
        assert self.context is not None
        return self.context[index].astype(np.float64)

    def shares(self, index: Any = slice(None)) -> NDArray[np.float64]:
        """The weights of the rows at an index, in float64; all 1 where the data have no weights."""
        if self.weights is None:
            rows = self.x.shape[0] if isinstance(index, slice) else len(index)
            return _arrays.library(self.x).ones(rows)
        return self.weights[index].astype(np.float64)


def open_rows(
    prefix: str,
    features: int,
    contexts: int,
    caller: Caller,
    x: Any,
    context: Any,
    weights: Any,
    support: Support | None = None,
    names: tuple[str, ...] = (),
) -> Data:
    """Check shapes, and that values are finite and within bounds. `names`: labels of the columns, or empty."""
    array = _arrays.matrix(f"{prefix}x", x, features, caller, whole=True)
    rows = array.shape[0]
    if rows == 0:
        raise ValueError(f"{prefix}x: expected at least one row, got shape {array.shape}")
    columns = _arrays.context_rows(context, rows, contexts, f"{prefix}context", caller)
    names = names or names_of(x, features)
    with caller.queue():
        check_finite(f"{prefix}x", array, names)
        if columns is not None:
            check_finite(f"{prefix}context", columns)
        if support is not None:
            check_inside(f"{prefix}x", array, support, names)
    return Data(array, columns, _arrays.row_weights(f"{prefix}weights", weights, rows, caller)[0], names, support)


def check_finite(name: str, array: NDArray[Any], names: Sequence[str] = (), way: str = "") -> None:
    """Raise ValueError for NaN and infinity; the message has the count of such rows, and the first index.

    `way`: the advice at the end of the message; by default `WAY_OUT`, which is for callers in Python.
    """
    count, first = bad_rows(array)
    if count:
        row = np.atleast_1d(_arrays.on_host(array[first]))
        column = int((~np.isfinite(row)).argmax())
        label = names[column] if names else f"column {column}"
        raise ValueError(not_finite(name, count, first, array.shape[0]) + f", {label}: {row[column]}; {way or WAY_OUT}")


WAY_OUT = "leave such rows out, by dropna() of a frame, or give FlowDensity(missing='drop') the table as it is"


def bad_rows(array: NDArray[Any]) -> tuple[int, int]:
    """The number of rows with NaN or infinity, and the index of the first such row; (0, -1) if there are none."""
    count, first = 0, -1
    for start in range(0, array.shape[0], CHUNK):
        part = np.isfinite(array[start : start + CHUNK])
        if not part.all():
            bad = np.flatnonzero(~part.reshape(part.shape[0], -1).all(axis=1))
            first = start + int(bad[0]) if count == 0 else first
            count += bad.size
    return count, first


def not_finite(name: str, count: int, first: int, rows: int) -> str:
    """The beginning of an error message: `count` of `rows` rows have NaN or infinity."""
    return f"{name}: expected finite numbers, got NaN or infinity in {count} of {rows} rows, first in row {first}"


def check_inside(name: str, array: NDArray[Any], support: Support, names: tuple[str, ...] = ()) -> None:
    """Raise ValueError for rows on a bound or beyond it; the message has their number and the index of the first."""
    beyond_ends: list[Any] = []
    for start in range(0, array.shape[0], CHUNK):
        beyond_ends = and_more(beyond_ends, beyond(array[start : start + CHUNK], support, start))
    if beyond_ends:
        raise ValueError(not_inside(name, beyond_ends, array.shape[0], support, names))


def beyond(array: NDArray[Any], support: Support, start: int) -> list[Any]:
    """The count of rows on a bound or beyond; index (plus `start`), column and value of the first; [] for none."""
    mask = outside(array, support)
    if not mask.any():
        return []
    bad = _arrays.on_host(mask)
    rows = np.flatnonzero(bad.any(axis=1))
    row, column = int(rows[0]), int(bad[rows[0]].argmax())
    return [rows.size, start + row, column, float(array[row, column])]


def and_more(first: list[Any], more: list[Any]) -> list[Any]:
    """Merge the results of `beyond` for two successive blocks: add the counts, keep the first row."""
    return [first[0] + more[0], *first[1:]] if first and more else first or more


def outside(array: NDArray[Any], support: Support) -> NDArray[np.bool_]:
    """A mask of the values of rows that lie on a bound or beyond it."""
    with np.errstate(over="ignore"):  # a bound above the largest value of the dtype becomes infinite
        low, high = (_arrays.library(array).asarray(end.astype(array.dtype)) for end in support._ends())
    return (array <= low) | (array >= high)


def not_inside(name: str, refused: list[Any], rows: int, support: Support, names: tuple[str, ...]) -> str:
    """An error message about rows outside of their bounds; `refused` is a result of `beyond`."""
    count, row, column, value = refused
    label = names[column] if names else f"column {column}"
    return (
        f"{name}: expected numbers between their bounds, got some on a bound or beyond in {count} of {rows} rows, "
        f"first in row {row}, {label}: {value:g}, bounds {support.bounds[column]}"
    )


def is_share(validation: Any) -> bool:
    """Whether the argument `validation` is a share of the rows to hold out, and not held-out rows themselves."""
    return isinstance(validation, (int, float, np.number)) and not isinstance(validation, bool)


def checksum(array: NDArray[Any], sum_of: int = 0) -> int:
    """The checksum of all values of an array, independent of strides; `sum_of`: the earlier rows' checksum."""
    for begin in range(0, array.shape[0], CHUNK):
        block = np.ascontiguousarray(_arrays.on_host(array[begin : begin + CHUNK]))
        sum_of = zlib.crc32(block.reshape(-1).view(np.uint8).data, sum_of)
    return sum_of


def settled(
    name: str,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    half: NDArray[np.float64],
    names: tuple[str, ...],
    say: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Copies of means and deviations, with 1 for constant columns; warns of these. `half`: halves of ranges."""
    constant = (half == 0) | ~(std > np.finfo(np.float64).tiny)
    if say and constant.any():
        labels = names or tuple(f"column {i}" for i in range(std.size))
        verb, they = ("are", "they are") if constant.sum() > 1 else ("is", "it is")
        warn(f"{name}: {listing(labels, constant)} {verb} constant in the training part; {they} shifted, not scaled")
    return mean.copy(), np.where(constant, 1.0, std)


def warn_of_offsets(
    names: tuple[str, ...],
    support: Support | None,
    given: bool,
    scale: Moments,
    dtype: np.dtype[Any],
    how: str = "draw by sample(dtype='float64') or",
) -> None:
    """Warn of columns in which float32 leaves fewer than four digits of a standard deviation.

    `given`: whether the caller gave the rows in float32. `scale`: means and standard deviations of the columns. `how`:
    another remedy.
    """
    mean, std = scale
    if not given and dtype != np.float32:
        return
    if support is not None:
        warn_of_narrow_bounds(names, support, given)
    with np.errstate(over="ignore"):
        step = np.spacing(np.minimum(np.abs(mean) + std, np.finfo(np.float32).max).astype(np.float32))
        coarse = (step > std / DIGITS) | (np.abs(mean) + std > np.finfo(np.float32).max)
    if support is not None:  # columns with bounds are mapped and shifted in float64
        coarse &= np.array([kind == "any" for kind in support._kinds])
    lost = "the rows were given in float32, which has lost the rest: subtract a constant before they become float32"
    advice = lost if given else f"subtract a constant from it, or {how} from a flow of dtype='float64'"
    what, i = "fewer than four digits of a standard deviation in", int(coarse.argmax())
    detail = f"mean {mean[i]:.6g}, standard deviation {std[i]:.3g}, steps of {step[i]:.3g}"
    _warn_of_float32(what, names, coarse, detail, advice)


def _warn_of_float32(what: str, names: tuple[str, ...], coarse: NDArray[np.bool_], detail: str, advice: str) -> None:
    """Warn of the columns in the mask `coarse`, if there are any; `detail`: text about the first one."""
    if coarse.any():
        first = names[int(coarse.argmax())]
        warn(f"x: float32 has {what} {listing(names, coarse)} ({first}: {detail}); {advice}")


def warn_of_weights(effective: float, rows: int) -> None:
    """Warn if the weights make the effective number of rows small."""
    if effective < min(LEAST_EFFECTIVE, rows / 4):
        warn(f"weights: {rows} training rows count as only {effective:.3g} (Kish 1965), too few for a density")


def _kept(part: RowPart, mask: NDArray[np.bool_]) -> RowPart:
    """The part that has only the rows of `part` where a mask is True."""
    kept = part.at(np.flatnonzero(mask))
    return RowPart(kept.size, kept=kept.astype(np.uint32 if kept.max(initial=0) < 1 << 32 else np.int64))


def _without_far(name: str, table: Any, part: RowPart, names: tuple[str, ...], first: int) -> RowPart:
    """Leave out rows with far cells if these rows are few, else return the part unchanged. Warns of far cells."""
    asarray, most = _arrays.library(table).asarray, min(part.size, LOOKED_AT)
    some = part.at(np.arange(most, dtype=np.int64) * part.size // most)
    columns = far_columns(table[asarray(some)], (table[asarray(index)] for index in part.chunks(LOOKED_AT)), FAR[name])
    far = far_rows(name, columns, part.size, names, lambda row: first + part.at(np.array([row]))[0])
    return _kept(part, ~np.isin(np.arange(part.size), far)) if far.size else part


def far_rows(name: str, columns: list[Far], rows: int, names: tuple[str, ...], index: Callable[[Any], int]) -> Index:
    """The indices of rows to leave out: rows with a far cell in a column with few far cells. Warns of far cells.

    `index`: maps the index of a row in the part to the index that the warning names.
    """
    if not columns:
        return np.empty(0, np.int64)
    labels, far = tuple(names[far.column] if names else f"column {far.column}" for far in columns), columns[0]
    count, value, same = len(far.rows), far.values[0], int((far.values == far.values[0]).sum())
    of_them = f", the value of {same} of them" if same > 1 else ""
    where = f"in {count} of {rows} rows, first in row {index(far.rows[0])}: "
    remedy = "leave these rows out" if count > FEW * rows else "they are left out of the fit"
    warn(
        f"{name}: cells lie far from all others in {listing(labels)} ({labels[0]}: "
        f"{where}{value:.7g}{of_them}; the others lie within {far.inner:.3g} of {far.middle:.3g}), which a network can "
        f"hardly tell apart beside them; {remedy}; mark missing values as such, or take logarithms"
    )
    return np.unique(np.concatenate([far.rows[: len(far.rows) * (len(far.rows) <= FEW * rows)] for far in columns]))


def warn_of_lost(flow: Any, source: Any) -> None:
    """Warn of training rows, in a sample of `LOOKED_AT` rows, whose log density is far below the median."""
    densities = [_arrays.on_host(flow.log_prob(data.x, data.context)) for data in source.parts(LOOKED_AT)]
    if not densities:  # a rank without rows
        return
    log_prob = np.nan_to_num(np.concatenate(densities).astype(np.float64), nan=-np.inf)
    middle, least = float(np.median(log_prob)), log_prob.min()
    if not least > middle - LOST:
        warn(
            f"fit: {(log_prob <= middle - LOST).sum()} of {log_prob.size} training rows have log densities down to "
            f"{least:.3g}, half of all at least {middle:.3g}; look in them for cells far out and for repeated values"
        )


def warn_of_spikes(source: Any) -> None:
    """Warn of columns in which one value is frequent and others hardly repeat, in a sample of `LOOKED_AT` rows."""
    rows = [_arrays.on_host(data.x) for data in source.parts(LOOKED_AT)]
    columns = np.concatenate(rows).T if rows else ()  # empty on a rank without rows
    texts = [spike(column, source.names[i] if source.names else f"column {i}") for i, column in enumerate(columns)]
    if spikes := [text for text in texts if text]:
        warn(
            f"{FREQUENT} in {listing(spikes)}: a density spikes there, and its likelihood means little; "
            "headrace.sklearn.FlowDensity gives it a probability (docs/tables.md), or spread it by noise"
        )


def warn_of_narrow_bounds(names: tuple[str, ...], support: Support, given: bool) -> None:
    """Warn of bounds between which float32 has few values."""
    coarse = support._coarse(np.dtype(np.float32))
    first, draw = int(coarse.argmax()), "draw by sample(dtype='float64') or from a flow of dtype='float64'"
    advice = "subtract a constant from rows and bounds before the rows become float32" if given else draw
    ends = support.periodic[first] or support.bounds[first]
    _warn_of_float32("few numbers between the ends of", names, coarse, str(ends), advice)


def listing(names: Sequence[str], which: Any = slice(None)) -> str:
    """A text: the names of the first five columns in `which` (indices or a mask) and the number of the others."""
    chosen = [names[i] for i in np.arange(len(names))[which]]
    return ", ".join(chosen[:5]) + (f" and {len(chosen) - 5} more" if len(chosen) > 5 else "")
