"""`hr.auto` for tables in their original form: whole numbers, truth values, constant columns, missing and repeated
values.
"""

import warnings

import numpy as np
import pytest

import headrace as hr
from headrace._arrays import frames
from headrace._flow.flow_errors import no_flow

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

QUICK = {"time_budget": 0.5, "families": ("maf",), "progress": False}
RATE = 3.0
LIBRARIES = {"pandas": pandas.DataFrame, "polars": polars.DataFrame}


def columns(rows=700, seed=0):
    rng = np.random.default_rng(seed)
    count = rng.poisson(RATE, rows)
    size = rng.standard_normal(rows) + 0.3 * count
    return {"count": count, "yes": rng.random(rows) < 0.3, "size": size, "unit": np.full(rows, 2.5)}


def with_gaps(library):
    """Each of the first three columns misses a value; and which rows do."""
    values = {name: column.tolist() for name, column in columns().items()}
    values["count"][2] = values["yes"][5] = values["size"][7] = None
    if library == "polars":
        return polars.DataFrame(values), [2, 5, 7]
    frame = pandas.DataFrame(values)  # truth values and None are objects in this frame
    frame["count"] = frame["count"].astype("Int64")
    return frame, [2, 5, 7]


@pytest.fixture(scope="module", params=LIBRARIES)
def chosen(request):
    """A table without gaps and the choice for it."""
    frame = LIBRARIES[request.param](columns())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return request.param, frame, hr.auto(frame, **QUICK)


def test_kinds_of_columns(chosen):
    _, _, choice = chosen
    table = choice.columns.table
    assert [one.kind for one in table.columns] == ["integer", "boolean", "float", "float"]
    assert [one.width for one in table.columns] == [1.0, 1.0, 0.0, 0.0]
    assert table.columns[3].constant == 2.5
    assert choice.flow.features == 3
    assert choice.diagnosis.names == ("count", "yes", "size")
    text = str(choice)
    assert "spread for the fits and rounded in samples: 'count', 'yes'." in text
    assert "kept aside and put back in samples: 'unit'." in text


@pytest.mark.parametrize("library", LIBRARIES)
def test_missing_values(library):
    frame, gaps = with_gaps(library)
    message = r"NaN in 3 of 700 rows \(column 'count' 1, column 'yes' 1, column 'size' 1\); missing='drop'"
    with pytest.raises(ValueError, match=message):
        hr.auto(frame, **QUICK)
    context = np.arange(700.0)
    context[9] = np.nan
    choice = hr.auto(frame, context=context, missing="drop", **QUICK)
    assert [one.kind for one in choice.columns.table.columns] == ["integer", "boolean", "float", "float"]
    context[9] = 0.0
    assert np.flatnonzero(np.isnan(choice.log_prob(frame, context))).tolist() == gaps
    with pytest.raises(ValueError, match="context: expected finite"):
        hr.auto(LIBRARIES[library](columns()), context=np.full(700, np.nan), **QUICK)


def test_arrays_noise_and_bounds():
    rng = np.random.default_rng(0)
    counts = rng.poisson(RATE, (600, 2))
    choice = hr.auto(counts, bounds=[(0, None), None], **QUICK)
    assert [one.kind for one in choice.columns.table.columns] == ["integer", "integer"]
    assert choice.sample(3000, seed=0)[:, 0].min() == 0.0  # zeros are on the bound, and no value is below it
    assert choice.columns.dtype == "float64"
    assert hr.auto(counts.astype(float), discrete=[1], spread={0: 0.5}, **QUICK).columns.table.columns[0].width == 0.5
    rounded = rng.standard_normal((600, 2)).round(1)
    with pytest.warns(RuntimeWarning, match="x: values repeat in column 0, column 1: spread by noise"):
        spread = hr.auto(rounded, **QUICK)
    with pytest.warns(DeprecationWarning, match=r"auto\(jitter=...\): spread= has the same meaning"):
        assert hr.auto(rounded, jitter=None, **QUICK).columns.table.is_plain
    assert [one.width for one in spread.columns.table.columns] == pytest.approx([0.1, 0.1])
    assert "Spread by noise, as values repeat: 0, 1." in str(spread)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "int8", "bool", "uint32[pyarrow]", "bool[pyarrow]", "UInt16"])
def test_whole_columns_of_every_dtype_are_read(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    column = pandas.Series([1, 0, 1]).astype(dtype)
    frame = pandas.DataFrame({"a": column, "b": [0.5, 1.5, 2.5]})
    assert frames.read("x", frame).tolist() == [[1.0, 0.5], [0.0, 1.5], [1.0, 2.5]]


def test_columns_in_another_order_are_refused(chosen):
    _, table, choice = chosen
    other = table[["yes", "count", "size", "unit"]]
    for call in (choice.log_prob, lambda x: hr.diagnose(choice, x, progress=False)):
        with pytest.raises(
            ValueError,
            match=r"x: expected the columns of the fit in their order, .* got them in the order 'yes', 'count'",
        ):
            call(other)
    renamed = hr.auto(table, names=["a", "b", "c", "d"], **QUICK)  # of a frame with other names
    assert np.isfinite(renamed.log_prob(table)).all()
    assert np.isfinite(choice.log_prob(table.to_numpy().astype(float))).all()  # arrays without names cannot be checked


def test_a_choice_in_place_of_a_flow_names_its_attributes(chosen):
    assert str(no_flow("a Flow", chosen[2])) == "flow: expected a Flow, got Choice; give its .flow"
