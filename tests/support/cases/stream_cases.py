"""Tables for the tests of streams, and streams of their rows from every kind of source."""

from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr

FEATURES = 3


def rows(n, dtype="float64", context=0, weighted=False):
    """Rows of three columns, of which the first increases slowly, with a context, and with weights that may be 0."""
    rng = cases.rng("streams", n)
    x = rng.standard_normal((n, FEATURES)) * [1.0, 5.0, 0.2] + [2.0, -3.0, 0.0]
    x[:, 0] += np.linspace(0.0, 2.0, n)
    x[:, 2] += 0.1 * x[:, 1]
    conditions = rng.standard_normal((n, context)).astype(dtype) if context else None
    if conditions is not None:
        x[:, 1] += conditions[:, 0]
    weights = np.where(np.arange(n) % 7 == 3, 0.0, rng.uniform(0.5, 2.0, n)).astype(dtype) if weighted else None
    return x.astype(dtype), conditions, weights


def cut(array, sizes):
    """Cut an array into blocks whose sizes repeat; some blocks are empty."""
    begin, blocks, i = 0, [], 0
    while begin < len(array):
        blocks.append(array[begin : begin + sizes[i % len(sizes)]])
        begin, i = begin + sizes[i % len(sizes)], i + 1
    return blocks


RAGGED = (37, 0, 1, 200, 5, 1, 0, 90)


def _zipped(x, context, weights, sizes=RAGGED):
    parts = [[None] * 10**4 if array is None else cut(array, sizes) for array in (context, weights)]
    return list(zip(cut(x, sizes), *parts, strict=False))


def blocks(folder, x, context, weights, buffer):
    given = _zipped(x, context, weights)
    if context is None and weights is None:
        given = [block[0] for block in given]
    return hr.rows.blocks(given, buffer=buffer)


def function(folder, x, context, weights, buffer):
    def made():
        memory = np.empty((200, x.shape[1]), x.dtype)
        for block, *others in _zipped(x, context, weights):
            part = memory[: len(block)]  # a buffer that the next block overwrites
            part[:] = block
            yield (part, *others)

    return hr.rows.blocks(made, buffer=buffer)


def frames(folder, x, context, weights, buffer):
    pandas = pytest.importorskip("pandas")
    given = _zipped(x, context, weights)
    parts = [(pandas.DataFrame(block, columns=["a", "b", "c"]), *others) for block, *others in given]
    return hr.rows.blocks(parts, buffer=buffer)


def mapped_files(folder, x, context, weights, buffer):
    paths = []
    for name, array in (("x", x), ("context", context), ("weights", weights)):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
        paths.append(None if array is None else folder / f"{name}.npy")
    return hr.rows.memmap(*paths, buffer=buffer)


def mapped_arrays(folder, x, context, weights, buffer):
    np.save(folder / "fortran.npy", np.asfortranarray(x))
    return hr.rows.memmap(np.load(folder / "fortran.npy", mmap_mode="r"), context, weights, buffer=buffer)


def table_of(x, context, weights):
    import pyarrow

    columns = {name: x[:, i] for i, name in enumerate("abc")}
    if context is not None:
        columns |= {f"k{i}": context[:, i] for i in range(context.shape[1])}
    if weights is not None:
        columns["w"] = weights
    return pyarrow.table(columns)


def write_parquet(folder, x, context=None, weights=None, files=3, group=150):
    parquet = pytest.importorskip("pyarrow.parquet")
    Path(folder).mkdir(exist_ok=True)
    table, edges = table_of(x, context, weights), np.linspace(0, len(x), files + 1).astype(int)
    for i in range(files):
        part = table.slice(edges[i], edges[i + 1] - edges[i])
        parquet.write_table(part, Path(folder) / f"part-{i}.parquet", row_group_size=group)


def parquet(folder, x, context, weights, buffer):
    write_parquet(folder / "table", x, context, weights)
    names = [f"k{i}" for i in range(0 if context is None else context.shape[1])]
    return hr.rows.parquet(
        folder / "table", ["a", "b", "c"], context=names, weights=None if weights is None else "w", buffer=buffer
    )


def csv(folder, x, context, weights, buffer):
    """Three text files, one of them compressed, of which the last has its columns in another order."""
    if x.dtype != np.float64:
        pytest.skip("text is read as float64")
    (folder / "text").mkdir(exist_ok=True)
    parts = [("a", "b", "c"), [f"k{i}" for i in range(0 if context is None else context.shape[1])]]
    names, table = [*parts[0], *parts[1], "w"], np.column_stack(
        [x, *([] if context is None else [context]), np.ones(len(x)) if weights is None else weights]
    )  # fmt: skip
    for i, part in enumerate(np.array_split(np.arange(len(x)), 3)):
        order = [*range(len(names))][:: -1 if i == 2 else 1]
        path = folder / "text" / f"part-{i}.csv{'.gz' if i == 1 else ''}"
        header = ",".join(names[k] for k in order)
        np.savetxt(path, table[part][:, order], "%.17g", ",", header=header, comments="")
    own = None if weights is None else "w"
    return hr.rows.csv(folder / "text", ["a", "b", "c"], context=parts[1], weights=own, buffer=buffer)


def dask_array(folder, x, context, weights, buffer):
    dask = pytest.importorskip("dask.array")
    given = [None if a is None else dask.from_array(a, chunks=(250, *a.shape[1:])) for a in (x, context)]
    return hr.rows.dask(*given, weights, buffer=buffer)


def dask_frame(folder, x, context, weights, buffer):
    frame = pytest.importorskip("dask.dataframe")
    pytest.importorskip("pandas")
    table = table_of(x, context, weights).to_pandas()
    names = [f"k{i}" for i in range(0 if context is None else context.shape[1])]
    given = frame.from_pandas(table, npartitions=4)
    return hr.rows.dask(given, names or None, None if weights is None else "w", columns=["a", "b", "c"], buffer=buffer)


SOURCES = {
    each.__name__: each
    for each in (blocks, function, frames, mapped_files, mapped_arrays, parquet, csv, dask_array, dask_frame)
}
