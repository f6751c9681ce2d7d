"""Frames of other libraries, and floats of other byte orders and widths, have the results of float64 arrays."""

import datetime
import tracemalloc

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._flow.program import evaluation as _evaluation

FLOW = hr.MAF(3, transforms=2, hidden=(8,), dtype="float64")
X = cases.rows(40, 3, "float64")
NAMES = "abc"


def pandas_frames():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    plain = pd.DataFrame(X, columns=[*NAMES])
    yield plain.astype("Float64")
    yield plain.astype({"a": "Float64"})
    yield plain.astype({"b": ">f8"})
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    yield plain.astype("double[pyarrow]")


def polars_frames():
    pl = pytest.importorskip("polars", reason="polars is not installed")
    frame = pl.DataFrame({name: X[:, i] for i, name in enumerate(NAMES)})
    yield frame
    yield pl.concat([frame[:11], frame[11:]], rechunk=False)


def arrow_tables():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pa.table({name: X[:, i] for i, name in enumerate(NAMES)})
    yield table
    yield pa.concat_tables([table[:11], table[11:]])
    yield table.to_batches()[0]


@pytest.mark.parametrize("frames", [pandas_frames, polars_frames, arrow_tables])
def test_frames(frames):
    for frame in frames():
        got = FLOW.log_prob(frame)
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, FLOW.log_prob(X))
        np.testing.assert_array_equal(FLOW.nll_and_grad(frame)[1], FLOW.nll_and_grad(X)[1])


def test_columns_of_both_widths():
    mixed = X.copy()
    mixed[:, 0] = mixed[:, 0].astype("f4")
    columns = {name: mixed[:, i].astype("f4" if i == 0 else "f8") for i, name in enumerate(NAMES)}
    for library, make in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")):
        module = pytest.importorskip(library, reason=f"{library} is not installed")
        np.testing.assert_array_equal(FLOW.log_prob(getattr(module, make)(columns)), FLOW.log_prob(mixed))


def test_columns_are_contexts_and_weights():
    flow = hr.MAF(3, context=1, dtype="float64")
    context = np.abs(X[:, 0])
    for library, make in (
        ("pandas", "Series"),
        ("polars", "Series"),
        ("pyarrow", "array"),
        ("pyarrow", "chunked_array"),
    ):
        module = pytest.importorskip(library, reason=f"{library} is not installed")
        column = getattr(module, make)([context] if make == "chunked_array" else context)
        np.testing.assert_array_equal(flow.log_prob(X, column), flow.log_prob(X, context))
        assert flow.nll_and_grad(X, column, column)[0] == flow.nll_and_grad(X, context, context)[0]


def test_missing_values_are_nan():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    pl = pytest.importorskip("polars", reason="polars is not installed")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    columns = {name: [1.0, None if name == "b" else 2.0] for name in NAMES}
    nullable = pd.DataFrame({name: pd.array(column, "Float64") for name, column in columns.items()})
    for frame in (nullable, pl.DataFrame(columns), pa.table(columns)):
        np.testing.assert_array_equal(np.isnan(FLOW.log_prob(frame)), [False, True])


def test_columns_without_numbers_are_refused_by_name():
    pl = pytest.importorskip("polars", reason="polars is not installed")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for values, kind, advice in (
        (["u", "v"], "String|string", "encode its categories as context"),
        ([datetime.date(2000, 1, 1)] * 2, "Date|date32", "seconds since a date"),
    ):
        columns = {"a": [1.0, 2.0], "n": values, "c": [1.0, 2.0]}
        for make in (pl.DataFrame, pa.table):
            with pytest.raises(TypeError, match=f"x: expected columns of numbers, got ({kind}).* in column 'n'") as e:
                FLOW.log_prob(make(columns))
            assert advice in str(e.value)


def test_all_objects_that_numpy_can_read():
    class Lazy:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            if self.array is None:
                raise RuntimeError("the file is closed")
            return self.array

    np.testing.assert_array_equal(FLOW.log_prob(Lazy(X)), FLOW.log_prob(X))
    np.testing.assert_array_equal(FLOW.log_prob(Lazy(np.ones((4, 3), int))), FLOW.log_prob(np.ones((4, 3))))
    with pytest.raises(TypeError, match="x: expected dtype float32 or float64, got complex128"):
        FLOW.log_prob(Lazy(np.ones((4, 3), complex)))
    with pytest.raises(TypeError, match=r"x: expected an array that NumPy can read, got .*Lazy \(the file is closed\)"):
        FLOW.log_prob(Lazy(None))
    with pytest.raises(TypeError, match="out: expected a NumPy array or a PyTorch tensor to write into"):
        FLOW.log_prob(X, out=Lazy(np.empty(40)))
    dask = pytest.importorskip("dask.array", reason="dask is not installed")
    np.testing.assert_array_equal(FLOW.log_prob(dask.from_array(X, chunks=(7, 3))), FLOW.log_prob(X))


@pytest.mark.parametrize("dtype", [">f4", ">f8", "g", ">g"])
@pytest.mark.parametrize("rows", [0, 1, 7, 40])
def test_floats_of_other_widths_and_byte_orders(dtype, rows, monkeypatch):
    """Rows are converted block by block, and no row depends on the size of blocks."""
    monkeypatch.setattr(_evaluation, "_BLOCK", 10)
    x = X[:rows].astype(dtype)
    plain = x.astype("f4" if dtype == ">f4" else "f8")
    calls = (
        FLOW.log_prob,
        lambda x: FLOW.to_latent(x)[0],
        lambda x: FLOW.to_data(x)[1],
        lambda x: FLOW.log_prob_and_score(x)[1],
        lambda x: FLOW.transforms[0].forward(x)[0],
        lambda x: hr.transforms.Standardize([1.0] * 3, [2.0] * 3).inverse(x)[0],
        lambda x: FLOW.log_prob(x.reshape(-1, 1, 3)),
        lambda x: FLOW.log_prob(x, out=np.empty(rows)),
    )
    for call in calls:
        got, expected = call(x), call(plain)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    if rows > 8:
        flow, other = hr.MAF(3, transforms=1, hidden=(4,)), hr.MAF(3, transforms=1, hidden=(4,))
        flow.fit(x, epochs=2, progress=False)
        other.fit(plain, epochs=2, progress=False)
        np.testing.assert_array_equal(flow.parameters, other.parameters)


def test_context_of_other_floats(monkeypatch):
    monkeypatch.setattr(_evaluation, "_BLOCK", 10)
    flow, context = hr.MAF(3, context=3, dtype="float64"), X[::-1]
    for c in (context, context[0]):
        expected = flow.log_prob(X, c)
        for x in (X, X.astype(">f8")):
            np.testing.assert_array_equal(flow.log_prob(x, c.astype(">f8")), expected)


def test_no_second_copy_of_a_big_endian_table():
    x = np.zeros((400_000, 3), ">f8")
    tracemalloc.start()
    FLOW.log_prob(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000 * 8 + 3 * 65_536 * 3 * 8  # memory of the result and of a few blocks


def test_results_are_not_written_to_other_floats():
    with pytest.raises(TypeError, match="out: expected dtype float64, got >f8"):
        FLOW.log_prob(X, out=np.empty(40, ">f8"))
