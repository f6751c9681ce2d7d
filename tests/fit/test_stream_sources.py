"""Refusals of streams of rows, and the values that are read from their sources."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
import stream_cases as streams
from fitting import QUIET, small


def fit(source, *, buffer=50, **settings):
    return small(**settings.pop("flow", {})).fit(hr.rows.blocks(source, buffer=buffer), epochs=1, **QUIET, **settings)


def counted(*passes):
    """Return a function whose n-th call yields the blocks of the n-th list; later calls repeat the last list."""
    left = list(passes)
    return lambda: iter(left.pop(0) if len(left) > 1 else left[0])


X = streams.rows(200)[0]
FEWER = [X[:100], X[100:190]]
MORE = [X, X[:10]]
BAD = X.copy()
BAD[[123, 150], 1] = [np.nan, np.inf]

# Refused blocks: a function that makes the blocks, the flow's columns of context, and patterns of the message.
BAD_BLOCKS = {
    "NaN": (lambda: [X, *streams.cut(BAD, (13,))], 0, [r"x: .* in 2 of 400 rows, first in row 323"]),
    "no rows": (list, 0, ["x: expected at least one row, got none"]),
    "empty blocks alone": (lambda: [X[:0], X[:0]], 0, ["x: expected at least one row, got none"]),
    "too many columns": (lambda: [np.ones((100, 4))], 0, [r"x: expected shape \(rows, 3\), got \(.*4\)"]),
    "other columns later": (
        lambda: [X, X[:10, :2]],
        0,
        [r"x in the block from row 200 on: expected float64 of shape \(rows, 3\).* got float64 of shape \(rows, 2\)"],
    ),
    "another dtype later": (lambda: [X, X.astype("f4")], 0, [r"from row 200 on: expected float64 .* got float32"]),
    "one row without its axis": (lambda: [X, X[0]], 0, [r"x in the block from row 200 on: expected shape", r"\(3,\)"]),
    "complex": (lambda: [X.astype(complex)], 0, ["x in the block from row 0 on: expected dtype float32 or float64"]),
    "lists of words": (
        lambda: [[["a", "b", "c"]]],
        0,
        ["x in the block from row 0 on: expected a list of real numbers"],
    ),
    "tuples of four": (lambda: [(X, X, X, X)], 0, ["tuple of 4"]),
    "no x": (lambda: [(None, X)], 0, [r"x in the block from row 0 on: expected shape \(rows, features\), got None"]),
    "context of other rows": (lambda: [(X, X[:9])], 3, [r"context in the block.*expected 200 rows"]),
    "weights with columns": (lambda: [(X, None, X)], 0, [r"weights in the block.*expected 200 rows"]),
    "context that is missing": (lambda: [X], 2, ["context: expected 2 columns, got none"]),
    "context that no one takes": (lambda: [(X, X[:, :2])], 0, ["context: expected none", "got 2"]),
    "context now and then": (lambda: [(X, X[:, :1]), X], 1, ["context in the block from row 200 on", "got none"]),
    "NaN in the context": (
        lambda: [(X, X[:, :1]), (X, BAD[:, 1:2])],
        1,
        ["context: expected finite numbers, got NaN or infinity in 2 of 400 rows, first in row 323"],
    ),
    "a weight below 0": (
        lambda: [(X, None, np.ones(200)), (X[:3], None, np.array([1.0, -2.0, 1.0]))],
        0,
        ["weights: expected finite numbers of at least 0, got -2.0 at index 201"],
    ),
    "weights of 0": (lambda: [(X, None, np.zeros(200))], 0, ["weights: expected at least one number above 0"]),
    "huge weights": (lambda: [(X, None, np.full(200, 1e300))], 0, ["weights: expected a sum between 1e-300"]),
}


@pytest.mark.parametrize("case", BAD_BLOCKS)
def test_bad_blocks_are_refused_and_the_flow_is_as_it_was(case):
    make, context, patterns = BAD_BLOCKS[case]
    flow = small(context=context)
    kept = flow.parameters
    for pattern in patterns:
        with pytest.raises((ValueError, TypeError), match=pattern):
            flow.fit(hr.rows.blocks(make(), buffer=50), epochs=1, **QUIET)
    assert_array_equal(flow.parameters, kept)
    assert flow.transforms[-1].is_identity


@pytest.mark.parametrize(("other", "got"), [(FEWER, "190"), (MORE, "more than 200"), ([], "0")])
@pytest.mark.parametrize("passes", [3, 4])
def test_other_rows_in_a_later_pass_are_refused(other, got, passes):
    """Passes before the epochs check whether the rows fit in the buffer, read a block, and count the rows."""
    good = [X[:100], X[100:]]
    with pytest.raises(ValueError, match=f"x: expected 200 rows, as counted before, got {got}"):
        fit(counted(*[good] * passes, other))


def test_other_rows_in_a_later_epoch_leave_the_best_weights():
    flow = small()
    good = [X[:100], X[100:]]
    with pytest.raises(ValueError, match="x: expected 200 rows, as counted before, got 190; a stream may not change"):
        flow.fit(hr.rows.blocks(counted(*[good] * 6, FEWER), buffer=50), epochs=50, **QUIET)
    assert np.isfinite(flow.log_prob(X)).all()
    assert not flow.transforms[-1].is_identity


def test_other_weights_in_a_later_epoch_are_refused():
    def made(weights):
        return [(X, None, weights)]

    ones = made(np.ones(200))
    with pytest.raises(ValueError, match=r"weights: expected 200 above 0, as counted .*, got 193; a stream may"):
        fit(counted(*[ones] * 4, made(np.r_[np.ones(193), np.zeros(7)])), validation=None)


def test_bounds_are_kept_and_rows_beyond_are_reported_by_their_indices():
    x = np.abs(streams.rows(400)[0]) + 0.1
    flow = small(bounds=[(0, None), None, (0, None)])
    flow.fit(hr.rows.blocks([x], buffer=100), epochs=1, **QUIET)
    assert (flow.sample(100, seed=0)[:, [0, 2]] > 0).all()
    x[[300, 350], 2] = [-1.0, 0.0]
    pattern = r"on a bound or beyond in 2 of 400 rows, first in row 300, column 2: -1, bounds \(0"
    with pytest.raises(ValueError, match=pattern):
        small(bounds=[(0, None), None, (0, None)]).fit(hr.rows.blocks([x[:250], x[250:]], buffer=100), **QUIET)
    with pytest.raises(ValueError, match=pattern):
        small(bounds=[(0, None), None, (0, None)]).fit(x, **QUIET)


def test_one_row_blocks_constant_columns_and_names():
    pandas = pytest.importorskip("pandas")
    x = streams.rows(120)[0]
    x[:, 1] = 3.0
    frames = [pandas.DataFrame(row[None], columns=["a", "mass", "c"]) for row in x]
    with pytest.warns(RuntimeWarning, match="x: column 'mass' is constant in the training part"):
        fit(frames)


def test_sources_that_cannot_be_read_twice_or_at_all_are_refused():
    for source, pattern in (
        ((block for block in [X]), "expected what can be iterated again.*generator; give the function"),
        (iter([X]), "list_iterator"),
        (X, "ndarray"),
        ("rows.csv", "str"),
        (3, "int"),
        ({"x": X}, "dict"),
    ):
        with pytest.raises(TypeError, match=f"source: .*{pattern}"):
            hr.rows.blocks(source)
    with pytest.raises(TypeError, match="source: expected a function that gives an iterable of blocks, got int"):
        fit(lambda: 3)
    with pytest.raises(TypeError, match="source: expected a function that gives an iterable of blocks, got ndarray"):
        fit(lambda: X)
    for one in (iter([X[:120], X[120:]]), (block for block in [X[:120], X[120:]])):
        with pytest.raises(TypeError, match="source: expected a new iterator each time, got the"):
            fit(lambda one=one: one)
    with pytest.raises(ValueError, match="expected the same rows each time that the stream is read, got none"):
        fit(counted([X[:120], X[120:]], [X[:120], X[120:]], []))
    with pytest.raises(TypeError, match=r"x in the block from row 0 on: .*; call x\.astype\('float64'\) if"):
        fit([X.astype("f2")])
    for buffer, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="buffer: expected an integer"):
            hr.rows.blocks([X], buffer=buffer)


def test_other_arguments_of_a_fit_of_a_stream():
    stream = hr.rows.blocks([X], buffer=50)
    with pytest.raises(ValueError, match="weights: expected None, because a stream of rows has its own"):
        small().fit(stream, weights=np.ones(200))
    with pytest.raises(ValueError, match="context: expected None, because a stream"):
        small(context=1).fit(stream, X[:, :1])
    with pytest.raises(ValueError, match=r"validation: expected at most 50 rows, the stream's buffer"):
        small().fit(X, validation=stream, **QUIET)
    reads = []

    def made():
        reads.append(1)
        return [X]

    for wrong in ({"epochs": -1}, {"learning_rate": 0.0}, {"schedule": "none"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            small().fit(hr.rows.blocks(made, buffer=50), **wrong, **QUIET)
    assert len(reads) == 3  # each fit is refused after at most one buffer of rows


def test_blocks_of_torch():
    torch = pytest.importorskip("torch")
    flow, other = small(), small()
    flow.fit(X, epochs=1, **QUIET)
    other.fit(hr.rows.blocks([torch.from_numpy(X[:120]), torch.from_numpy(X[120:])]), epochs=1, **QUIET)
    assert_array_equal(flow.parameters, other.parameters)


# --- files ------------------------------------------------------------------------------------------------------------


def test_mapped_rows_are_checked(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "three.npy", np.ones((2, 2, 2)))
    (tmp_path / "text.npy").write_text("hello")
    assert_array_equal(next(iter(hr.rows.memmap(str(tmp_path / "x.npy")))).x, X)
    with pytest.raises(FileNotFoundError):
        hr.rows.memmap(tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"x: expected an .npy file.*three.npy"):
        hr.rows.memmap(tmp_path / "three.npy")
    with pytest.raises(ValueError, match=r"x: .*text.npy: expected a NumPy file of numbers"):
        hr.rows.memmap(tmp_path / "text.npy")
    with pytest.raises(ValueError, match=r"weights: expected 200 rows, as x has, got shape \(199,\)"):
        hr.rows.memmap(X, weights=np.ones(199))
    with pytest.raises(TypeError, match=r"x: expected an array .* an .npy file's path"):
        hr.rows.memmap([1.0])
    stream = hr.rows.memmap(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", X[:50])
    with pytest.raises(ValueError, match=r"x.npy: expected 200 rows, as it began with"):
        list(stream)


def test_columns_of_parquet(tmp_path):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    folder = tmp_path / "t"
    folder.mkdir()
    columns = {"i": np.arange(10), "f": np.linspace(0, 1, 10, dtype="f4"), "d": np.linspace(0, 1, 10)}
    table = arrow.table({**columns, "text": ["a"] * 10, "b": np.arange(10) % 2 == 0})
    parquet.write_table(table, folder / "one.parquet", row_group_size=4)
    read = lambda *a, **k: next(iter(hr.rows.parquet(folder, *a, **k)))  # noqa: E731
    assert read(["f"]).x.dtype == np.float32
    assert read(["f", "i"]).x.dtype == np.float64
    assert_array_equal(read(["d", "b"]).x, np.stack([columns["d"], columns["i"] % 2 == 0], axis=1)[:4])
    block = read(["d"], context="f", weights="i")
    assert (block.context.dtype, block.weights.tolist()) == (np.float32, [0.0, 1.0, 2.0, 3.0])
    for arguments, error, pattern in (
        (
            {},
            ValueError,
            r"column 'text': expected numbers, got string; columns=\[0, 1, 2, 4\] takes",
        ),
        ({"columns": ["q"]}, ValueError, "got 'q', which is there 0 times; there are 'i', 'f'"),
        ({"columns": ["f"], "context": "f"}, ValueError, "expected different columns, got 'f' twice"),
        ({"columns": 3}, TypeError, "columns: expected names of columns, got int"),
        ({"columns": ["f"], "weights": ["i"]}, TypeError, "weights: expected the name of a column, got list"),
    ):
        with pytest.raises(error, match=pattern):
            hr.rows.parquet(folder, **arguments)
    parquet.write_table(arrow.table({"f": [1.0]}), folder / "two.parquet")
    with pytest.raises(ValueError, match=r"two.parquet: expected one column 'd', as .*one.parquet has, got none"):
        hr.rows.parquet(folder, ["d"])
    (folder / "two.parquet").write_text("hello")
    with pytest.raises(ValueError, match=r"two.parquet: not a Parquet file"):
        hr.rows.parquet(folder / "two.parquet")


def test_columns_of_text(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "one.csv").write_text("name,mass,ok,year\nSun,1.5,True,1\nVega,2.5,,NA\n")
    (folder / "two.csv").write_text("year,ok,mass,name,more\n7,False,3,Rigel,x\n")
    (folder / "notes.md").write_text("no table")
    stream = hr.rows.csv(folder, ["mass", "ok"], weights="year")
    blocks = list(stream)
    assert_array_equal(np.concatenate([block.x for block in blocks]), [[1.5, 1.0], [2.5, np.nan], [3.0, 0.0]])
    assert_array_equal(np.concatenate([block.weights for block in blocks]), [1.0, np.nan, 7.0])
    assert stream.of_table().kinds == ["float", "boolean"]
    assert (stream.called, stream.names) == (("mass", "ok"), ("column 'mass'", "column 'ok'"))
    (folder / "bare.txt").write_text("1 2 3\n4 5 6\n")
    assert_array_equal(
        hr.rows.csv(folder / "bare.txt", [2, 0], context=1, header="no").whole().x, [[3.0, 1.0], [6.0, 4.0]]
    )
    (folder / "decimal.tsv").write_text("1|2\n")
    assert_array_equal(hr.rows.csv(folder / "decimal.tsv", delimiter="|").whole().x, [[1.0, 2.0]])
    for path, arguments, error, pattern in (
        (
            "one.csv",
            {},
            ValueError,
            r"line 2, column 'name': expected a number, got 'Sun'; columns=\[1, 2, 3\]",
        ),
        ("one.csv", {"columns": ["q"]}, ValueError, "got 'q', which is there 0 times; there are 'name', 'mass'"),
        ("one.csv", {"columns": 1}, TypeError, "columns: expected names of columns, got int"),
        ("bare.txt", {"columns": 9, "header": "no"}, ValueError, "got 9, which is there 0 times; there are 0, 1, 2"),
        ("two.csv", {"header": "no"}, ValueError, "two.csv: line 1, column 0: expected a number, got 'year'"),
        ("none.csv", {}, FileNotFoundError, "none.csv"),
        ("*.md", {}, ValueError, "notes.md: expected a file that ends in"),
    ):
        with pytest.raises(error, match=pattern):
            list(hr.rows.csv(folder / path, **arguments))
    (folder / "three.csv").write_text("mass\n1\n")
    (folder / "two.csv").write_text("year\n7\n")
    with pytest.raises(ValueError, match=r"two.csv: expected one column 'mass', as .*three.csv has, got none"):
        hr.rows.csv([folder / "three.csv", folder / "two.csv"])


def test_files_by_paths_patterns_and_folders(tmp_path):
    x = streams.rows(90)[0]
    pytest.importorskip("pyarrow")
    streams.write_parquet(tmp_path / "t", x)
    folder = tmp_path / "t"
    for paths in (folder, str(folder / "*.parquet"), sorted(folder.iterdir()), [str(folder)]):
        blocks = list(hr.rows.parquet(paths))
        assert_array_equal(np.concatenate([block.x for block in blocks]), x)
    for paths, error in (
        (tmp_path / "none.parquet", FileNotFoundError),
        (tmp_path / "none*.parquet", FileNotFoundError),
        ([], ValueError),
        (3, TypeError),
    ):
        with pytest.raises(error):
            hr.rows.parquet(paths)


def test_missing_values_in_parquet_are_reported_with_their_row(tmp_path):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    column = np.arange(100.0).tolist()
    column[77] = None
    parquet.write_table(arrow.table({"a": column, "b": np.arange(100.0)}), tmp_path / "t.parquet", row_group_size=9)
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 100 rows, first in row 77"):
        small(features=2).fit(hr.rows.parquet(tmp_path / "t.parquet", buffer=10), **QUIET)


def test_partitions_by_folders_are_columns(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.dataset

    table = pyarrow.table({"a": np.arange(6.0), "year": np.repeat([2020, 2021], 3)})
    how = {"partitioning": pyarrow.dataset.partitioning(pyarrow.schema([("year", pyarrow.int64())]), flavor="hive")}
    pyarrow.dataset.write_dataset(table, tmp_path / "t", format="parquet", **how)
    dataset = pyarrow.dataset.dataset(tmp_path / "t", format="parquet", **how)
    from headrace.rows._as_stream import stream_of

    block = stream_of(dataset, "year").whole()
    assert_array_equal(block.x[:, 0], np.arange(6.0))
    assert_array_equal(block.context[:, 0], np.repeat([2020.0, 2021.0], 3))


def test_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[tables\]"'):
        hr.rows.parquet(tmp_path / "t.parquet")


def test_columns_of_frames_and_shapes_of_arrays_of_dask():
    dask = pytest.importorskip("dask.array")
    frames = pytest.importorskip("dask.dataframe")
    pandas = pytest.importorskip("pandas")
    frame = frames.from_pandas(pandas.DataFrame(X, columns=["a", "b", "c"]), npartitions=3)
    block = hr.rows.dask(frame, "b", "c").whole()
    assert_array_equal(block.x, X[:, :1])
    assert_array_equal(block.context, X[:, 1:2])
    assert_array_equal(block.weights, X[:, 2])
    for arguments, error, message in (
        ({"columns": ["q"]}, ValueError, "expected names of columns, got 'q', which is there 0 times; .*'a', 'b', 'c'"),
        ({"columns": ["a", "a"]}, ValueError, "expected different columns, got 'a' twice"),
        ({"columns": ["a", "b"], "context": "b"}, ValueError, "expected different columns, got 'b' twice"),
        ({"context": "b", "weights": "b"}, ValueError, "expected different columns, got 'b' twice"),
        ({"columns": 3}, TypeError, "columns: expected names of columns, got int"),
        ({"weights": ["a"]}, TypeError, "weights: expected the name of a column, got list"),
    ):
        with pytest.raises(error, match=message):
            hr.rows.dask(frame, **arguments)
    twice = pandas.DataFrame(X, columns=["a", "b", "b"])
    named_twice = frames.from_map(lambda rows: twice.iloc[rows], [slice(0, 90), slice(90, None)], meta=twice[:0])
    with pytest.raises(ValueError, match="got 'b', which is there 2 times"):
        hr.rows.dask(named_twice)
    assert_array_equal(hr.rows.dask(named_twice, columns="a").whole().x, X[:, :1])
    by_number = frames.from_pandas(pandas.DataFrame(X), npartitions=3)
    block = hr.rows.dask(by_number, columns=[2, 0], weights=1).whole()
    assert_array_equal(block.x, X[:, [2, 0]])
    assert_array_equal(block.weights, X[:, 1])
    with pytest.raises(TypeError, match="x: expected an array or a frame of Dask, got ndarray"):
        hr.rows.dask(X)
    array = dask.from_array(X)
    with pytest.raises(ValueError, match="columns: expected None"):
        hr.rows.dask(array, columns=["a"])
    with pytest.raises(ValueError, match=r"x: expected shape \(rows, features\), got \(200,\)"):
        hr.rows.dask(array[:, 0])
    with pytest.raises(ValueError, match="weights: expected 200 rows"):
        hr.rows.dask(array, None, np.ones(3))
    with pytest.raises(ValueError, match="context: expected 200 rows"):
        hr.rows.dask(array, dask.ones((3, 1)))
    with pytest.raises(TypeError, match="context: expected an array of Dask, as x is, got list"):
        hr.rows.dask(array, [1.0])


def test_importing_headrace_imports_neither_pyarrow_nor_dask():
    import subprocess

    code = "import sys, headrace as hr; hr.rows.blocks; print({'pyarrow', 'dask', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
