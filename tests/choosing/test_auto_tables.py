"""`hr.auto` of tables as they come: whole numbers, truth values, constant columns, missing and repeated values."""

import warnings

import numpy as np
import pytest

import headrace as hr
from headrace import files
from headrace._arrays import frames
from headrace._arrays.names import Names
from headrace._fit.flow_errors import no_flow
from headrace._tables import table as _table

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

QUICK = {"seconds": 0.5, "families": ("maf",), "progress": False}
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
    frame = pandas.DataFrame(values)  # truth values and None are objects there
    frame["count"] = frame["count"].astype("Int64")
    return frame, [2, 5, 7]


@pytest.fixture(scope="module", params=LIBRARIES)
def chosen(request):
    """A table without gaps and what was chosen for it."""
    frame = LIBRARIES[request.param](columns())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return request.param, frame, hr.auto(frame, **QUICK)


def test_what_columns_are(chosen):
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


def test_samples_come_back_undone(chosen):
    library, frame, choice = chosen
    drawn = choice.sample(2000, seed=1)
    assert drawn.shape == (2000, 4)
    assert (drawn[:, :2] == np.round(drawn[:, :2])).all()
    assert set(np.unique(drawn[:, 1])) == {0.0, 1.0}
    assert (drawn[:, 3] == 2.5).all()
    assert abs(drawn[:, 0].mean() - RATE) < 0.6
    sampled = choice.sample(20, seed=1, as_frame=True)
    assert type(sampled) is type(frame)
    assert list(sampled.columns) == list(frame.columns)
    assert [str(one).lower() for one in sampled.dtypes] == [
        str(one).lower() for one in frame.dtypes
    ] or library == "pandas"
    assert (np.asarray(sampled, np.float64) == choice.sample(20, seed=1)).all()
    assert (choice.flow.sample(20, seed=1)[:, 0] != np.round(choice.flow.sample(20, seed=1)[:, 0])).any()


def test_log_densities_are_log_probabilities_of_whole_numbers(chosen):
    _, frame, choice = chosen
    table, x = choice.columns.table, np.column_stack([*columns().values()])
    given = choice.log_prob(frame)
    assert (given == table.log_prob(choice.flow.log_prob, x, None)).all()
    other = frame.clone() if hasattr(frame, "clone") else frame.copy()
    other = other.with_columns(unit=polars.lit(7.0)) if hasattr(other, "with_columns") else other.assign(unit=7.0)
    with pytest.warns(RuntimeWarning, match=r"differ from 2.5"):
        assert (choice.log_prob(other) == -np.inf).all()
    with pytest.raises(ValueError, match="x: expected rows of 4 columns"):
        choice.log_prob(x[:, :3])


def test_files_know_the_table(chosen, tmp_path):
    _, _, choice = chosen
    path = tmp_path / "f.safetensors"
    choice.save(path)
    notes = files.read_notes(path)
    kept = _table.kept_in(notes, 3)
    assert kept == choice.columns.table
    assert _table.names_in(notes, kept) == ["count", "yes", "size", "unit"]
    assert Names.of_notes(notes, 3, 0) == Names(("count", "yes", "size"), ())
    again = hr.load(path).sample(30, seed=4, dtype="float64")
    assert (kept.back(again) == choice.sample(30, seed=4)).all()


def test_a_diagnosis_and_pictures_take_the_choice(chosen, tmp_path):
    _, _, choice = chosen
    other = type(chosen[1])(columns(400, seed=5))
    diagnosis = hr.diagnose(choice, other, training=chosen[1], progress=False)
    assert diagnosis.names == ("count", "yes", "size")
    assert diagnosis.rows == 400
    assert not diagnosis.copies
    pytest.importorskip("matplotlib")
    figure = hr.plot.corner(choice, other, draws=500)
    assert "unit" in {axis.get_xlabel() for axis in figure.axes}


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


def test_arrays_jitter_and_bounds():
    rng = np.random.default_rng(0)
    counts = rng.poisson(RATE, (600, 2))
    choice = hr.auto(counts, bounds=[(0, None), None], **QUICK)
    assert [one.kind for one in choice.columns.table.columns] == ["integer", "integer"]
    assert choice.sample(3000, seed=0)[:, 0].min() == 0.0  # zeros are on the bound, and nothing is below it
    assert choice.columns.dtype == "float64"
    assert hr.auto(counts.astype(float), discrete=[1], jitter={0: 0.5}, **QUICK).columns.table.columns[0].width == 0.5
    rounded = rng.standard_normal((600, 2)).round(1)
    with pytest.warns(RuntimeWarning, match="x: values repeat in column 0"):
        hr.auto(rounded, **QUICK)
    spread = hr.auto(rounded, jitter="auto", **QUICK)
    assert [one.width for one in spread.columns.table.columns] == pytest.approx([0.1, 0.1])
    assert "Spread by noise, as values repeat: 0, 1." in str(spread)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"missing": "ignore"}, "missing: expected one of"),
        ({"discrete": "all"}, "discrete: expected 'auto'"),
        ({"discrete": ["no"]}, "discrete: expected a column of x, got 'no'"),
        ({"discrete": ["size"]}, "x: column 'size': expected whole numbers"),
        ({"jitter": {"count": 0.1}}, "jitter: expected columns that are not whole numbers, got column 'count'"),
        ({"names": ["a"]}, "names: expected 4"),
    ],
)
def test_what_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        hr.auto(pandas.DataFrame(columns()), **{**QUICK, **wrong})


def test_text_is_refused_by_its_column():
    frame = pandas.DataFrame({**columns(), "who": ["a"] * 700})
    with pytest.raises(TypeError, match=r"x: expected columns of numbers, got .* in column 'who'"):
        hr.auto(frame, **QUICK)
    with pytest.raises(TypeError, match=r"x: expected columns of numbers, got .* in column 'who'"):
        hr.auto(polars.DataFrame({**columns(), "who": ["a"] * 700}), **QUICK)


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
    renamed = hr.auto(table, names=["a", "b", "c", "d"], **QUICK)  # of a frame that calls them otherwise
    assert np.isfinite(renamed.log_prob(table)).all()
    assert np.isfinite(choice.log_prob(table.to_numpy().astype(float))).all()  # who has no names cannot be checked


def test_another_constant_is_named(chosen):
    _, table, choice = chosen
    rows = table.to_numpy().astype(float)
    rows[0, 3] = 1.0
    with pytest.warns(RuntimeWarning, match=r"x: 1 of 700 rows differ from 2.5, .* column 'unit'") as caught:
        assert choice.log_prob(rows)[0] == -np.inf
    assert caught[0].filename == __file__


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_table_of_gaps_alone_says_where_they_are(library):
    frame = LIBRARIES[library]({**columns(), "gap": np.full(700, np.nan)})
    with pytest.raises(ValueError, match=r"rows that miss no number, got none of 700 \(column 'gap' 700\)$"):
        hr.auto(frame, missing="drop", **QUICK)


def test_a_choice_instead_of_a_flow_is_refused_by_its_contents(chosen):
    assert str(no_flow("a Flow", chosen[2])) == "flow: expected a Flow, got Choice; give its .flow"
