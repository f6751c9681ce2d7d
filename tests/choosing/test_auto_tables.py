"""`hr.auto` takes tables in their original form: whole numbers, truth values, constant columns, missing values and
values that repeat.
"""

import dataclasses
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
from headrace._arrays import frames
from headrace._flow.flow_errors import no_flow

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

QUICK = {"time_budget": 0.5, "families": ("maf",), "progress": False}
SIMPLE = {"time_budget": 300.0, "families": ("dual-ascent",), "progress": False}  # dual ascent takes no context
RATE = 3.0
LIBRARIES = {"pandas": pandas.DataFrame, "polars": polars.DataFrame}


def columns(rows=700, seed=0):
    rng = np.random.default_rng(seed)
    count = rng.poisson(RATE, rows)
    size = rng.standard_normal(rows) + 0.3 * count
    return {"count": count, "yes": rng.random(rows) < 0.3, "size": size, "unit": np.full(rows, 2.5)}


def with_gaps(library):
    """Return a table whose first three columns miss a value each, and the indices of the rows that miss a value."""
    values = {name: column.tolist() for name, column in columns().items()}
    values["count"][2] = values["yes"][5] = values["size"][7] = None
    if library == "polars":
        return polars.DataFrame(values), [2, 5, 7]
    frame = pandas.DataFrame(values)  # truth values with None are objects
    frame["count"] = frame["count"].astype("Int64")
    return frame, [2, 5, 7]


@pytest.fixture(scope="module", params=LIBRARIES)
def chosen(request):
    """Return the name of a library, its table without gaps, and the choice for this table."""
    frame = LIBRARIES[request.param](columns())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return request.param, frame, hr.auto(frame, **QUICK)


def test_kinds_of_columns(chosen):
    _, _, choice = chosen
    table = choice.columns.table
    assert [one.kind for one in table.columns] == ["integer", "boolean", "float", "float"]
    assert [one.width for one in table.columns] == [1.0, 0.0, 0.0, 0.0]
    assert table.columns[1].values == (0.0, 1.0)
    assert table.columns[3].constant == 2.5
    assert choice.flow.features == 3
    assert choice.diagnosis.names == ("count", "size")
    text = str(choice)
    assert "A probability for each value: 'yes'." in text
    assert "spread for the fits and rounded in samples: 'count'." in text
    assert "kept aside and put back in samples: 'unit'." in text


def labelled(rows):
    """Labels, truth values, and normal values that depend on both; log-likelihoods of the first two, and of all."""
    rng = np.random.default_rng(rows)
    kind = rng.random(rows) < 0.7
    share = np.where(kind, 0.9, 0.2)
    yes = rng.random(rows) < share
    noise = rng.standard_normal(rows)
    table = {"kind": np.where(kind, "blue", "azure"), "yes": yes, "size": 2.0 * kind - yes + 0.5 * noise}
    law = np.log(np.where(kind, 0.7, 0.3) * np.where(yes, share, 1.0 - share))
    return table, law, law - 0.5 * np.square(noise) - np.log(0.5 * np.sqrt(2.0 * np.pi))


@pytest.mark.parametrize(("rows", "near"), [(3000, 0.2), (300, 0.5)])  # fits to few rows are less exact
def test_labels_have_probabilities_beside_the_density_of_numbers(rows, near, tmp_path):
    table, _, true = labelled(rows)
    frame = pandas.DataFrame(table)
    choice = hr.auto(frame, **SIMPLE)
    assert isinstance(choice.flow, hr.MixedDensity)
    assert choice.flow.feature_names == ("kind", "yes", "size")
    assert_allclose(choice.table[0].log_likelihood, true.mean(), atol=4.0 * true.std() / np.sqrt(0.1 * rows))
    scores = choice.log_prob(frame)
    assert np.abs(scores - true).mean() < near
    choice.save(tmp_path / "f")
    with pytest.warns(FutureWarning):
        assert_array_equal(hr.load(tmp_path / "f").log_prob(frame), scores.astype("float32"))
    drawn = choice.sample(4000, seed=0, as_frame=True)
    assert set(drawn["kind"]) == {"azure", "blue"}
    assert abs((drawn["kind"] == "blue").mean() - (frame["kind"] == "blue").mean()) < 0.05
    assert abs(drawn["yes"][drawn["kind"] == "azure"].mean() - frame["yes"][frame["kind"] == "azure"].mean()) < 0.1
    assert abs(drawn["size"][drawn["kind"] == "blue"].mean() - frame["size"][frame["kind"] == "blue"].mean()) < near
    assert hr.diagnose(choice, frame, progress=False).names == ("size",)


@pytest.mark.parametrize("rows", [3000, 300])
def test_a_table_of_labels_alone(rows):
    table, law, _ = labelled(rows)
    choice = hr.auto(pandas.DataFrame(table)[["kind", "yes"]], **SIMPLE)
    assert choice.diagnosis is None
    assert [one.name for one in choice.table] == ["probabilities of classes"]
    assert_allclose(choice.table[0].log_likelihood, law.mean(), atol=4.0 * law.std() / np.sqrt(0.1 * rows))
    assert "All columns have classes, so that nothing else was tried." in str(choice)
    assert set(choice.sample(50, seed=0, as_frame=True)["kind"]) == {"azure", "blue"}


def test_columns_of_classes_are_chosen():
    frame = pandas.DataFrame(labelled(300)[0])
    with pytest.warns(RuntimeWarning, match="x: left out: column 'kind' \\(text\\)"):
        choice = hr.auto(frame, categories=None, **QUICK)
    assert isinstance(choice.flow, hr.Flow)
    assert [one.width for one in choice.columns.table.columns] == [1.0, 0.0]
    with pytest.raises(ValueError, match="categories: expected 'auto', None or a list of columns, got 'some'"):
        hr.auto(frame, categories="some", **QUICK)
    with pytest.raises(ValueError, match="missing: expected one of 'refuse', 'drop', got 'model'"):
        hr.auto(frame, missing="model", **QUICK)


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
    assert choice.sample(3000, seed=0)[:, 0].min() == 0.0  # zeros are on the bound, and no sample is below 0
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
    renamed = hr.auto(table, names=["a", "b", "c", "d"], **QUICK)  # `names` replaces the names of the frame
    assert np.isfinite(renamed.log_prob(table)).all()
    assert np.isfinite(choice.log_prob(table.to_numpy().astype(float))).all()  # arrays have no names to check


def test_a_choice_in_place_of_a_flow_names_its_attributes(chosen):
    of_numbers = dataclasses.replace(chosen[2], flow=chosen[2].flow.flow)
    assert str(no_flow("a Flow", of_numbers)) == "flow: expected a Flow, got Choice; give its .flow"
