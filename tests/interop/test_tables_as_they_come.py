"""Frames with integers, truth values, missing values and constant columns as data and samples of `FlowDensity`."""

import datetime
import decimal
import pickle
import warnings

import numpy as np
import pytest
import scipy.stats

import headrace as hr
from headrace._tables import table as _table
from headrace._tables.table import Column, Table

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")

from headrace.sklearn import FitSettings, FlowDensity  # noqa: E402

SHORT = {"transforms": 2, "hidden": (16,), "fit": FitSettings(epochs=15), "random_state": 0, "categories": None}
RATE = 3.0


def frame(rows=1500, seed=0):
    rng = np.random.default_rng(seed)
    count = rng.poisson(RATE, rows)
    return pandas.DataFrame(
        {
            "count": count,
            "yes": rng.random(rows) < 0.3,
            "size": rng.standard_normal(rows) + 0.3 * count,
            "unit": np.full(rows, 2.5),
        }
    )


@pytest.fixture(scope="module")
def fitted():
    return FlowDensity(**SHORT).fit(frame())


def test_probabilities_of_whole_numbers():
    """Scores of a column of counts are log probabilities, whose exponentials sum to one."""
    count = frame(4000)[["count", "unit"]]
    density = FlowDensity("nsf", transforms=2, hidden=(16,), fit=FitSettings(epochs=40), random_state=0).fit(count)
    values = pandas.DataFrame({"count": np.arange(-5, 40), "unit": 2.5})
    share = np.exp(density.score_samples(values))
    assert share.sum() == pytest.approx(1.0, abs=0.01)  # the probability of a cell is an average over 16 points
    expected = scipy.stats.poisson.pmf(np.arange(-5, 40), RATE)
    assert np.abs(share - expected).max() < 0.03
    frequent = np.bincount(count["count"], minlength=8)[:8] / len(count)
    assert np.abs(share[5:13] - frequent).max() < 0.03


def test_a_row_alone_has_the_probability_that_it_has_among_others(fitted):
    x = frame(30, seed=3)
    assert (fitted.score_samples(x)[:1] == fitted.score_samples(x[:1])).all()


def test_missing_values_are_counted_by_column():
    x = frame(100)
    x["count"] = x["count"].astype("Int64")
    x.loc[[1, 2, 3], "count"] = pandas.NA
    x.loc[3, "size"] = np.nan
    with pytest.raises(ValueError, match=r"NaN in 3 of 100 rows \(column 'count' 3, column 'size' 1\); missing='drop'"):
        FlowDensity(**SHORT).fit(x)
    density = FlowDensity(missing="drop", **SHORT)
    density.fit(x, sample_weight=np.ones(100), context=np.arange(100.0))
    other = FlowDensity(**SHORT).fit(
        frame(100).drop([1, 2, 3]), sample_weight=np.ones(97), context=np.delete(np.arange(100.0), [1, 2, 3])
    )
    assert (density.flow_.parameters == other.flow_.parameters).all()
    scores = density.score_samples(x, np.arange(100.0))
    assert np.flatnonzero(np.isnan(scores)).tolist() == [1, 2, 3]
    with pytest.raises(
        ValueError, match=r"expected rows that miss no number, got none of 3 \(column .count. 3, column .size. 1\)"
    ):
        FlowDensity(missing="drop", **SHORT).fit(x.loc[[1, 2, 3]])


def test_the_noise_is_uniform_in_the_cell():
    table = Table((Column("integer", 10.0, 5.0), Column("float", 0.0)))
    x = np.column_stack([np.full(20_000, 15.0), np.zeros(20_000)])
    spread = table.spread(x)
    assert scipy.stats.kstest(spread[:, 0], "uniform", (10.0, 10.0)).pvalue > 1e-4
    assert (spread[:, 1] == 0).all()
    assert (table.back(spread) == x).all()
    for other in (Table(table.columns, seed=1).spread(x), table.spread(x, _table.LOOK)):
        assert np.mean(other[:, 0] == spread[:, 0]) < 0.01
    assert (table.spread(x) == spread).all()


def test_the_probability_of_a_cell_is_its_integral():
    table = Table(
        (Column("integer", 2.0, 0.0), Column("integer", 1.0, 0.0), Column("float"), Column("float", constant=1.0))
    )
    x = np.array([[4.0, 1.0, 0.3, 1.0], [0.0, -2.0, 1.0, 1.0]])
    normal = scipy.stats.norm

    def log_prob(rows, context):
        return normal.logpdf(rows / [2.0, 2.0, 1.0]).sum(axis=1) - 2 * np.log(2.0)  # the deviations are 2, 2 and 1

    cells = [normal.cdf((x[:, i] + h) / 2) - normal.cdf((x[:, i] - h) / 2) for i, h in ((0, 1.0), (1, 0.5))]
    expected = np.log(cells[0]) + np.log(cells[1]) + normal.logpdf(x[:, 2])
    assert np.allclose(table.log_prob(log_prob, x, None), expected, atol=0.02)
    for columns in (2, 3, 7):
        places = _table._places(columns)
        # Each part of a cell occurs once in each column.
        assert (np.sort(places, axis=0) == np.sort(places[:, :1], axis=0)).all()
        assert np.allclose(places.sum(axis=0), 0.0)
    one = Table((Column("integer", 1.0, 0.0),))
    exact = np.log(normal.cdf(1.5) - normal.cdf(0.5))
    assert one.log_prob(lambda r, c: normal.logpdf(r[:, 0]), np.array([[1.0]]), None) == pytest.approx(exact, abs=1e-3)


def test_discrete_by_name_and_by_dtype():
    x = frame(200)
    none = FlowDensity(discrete=None, **SHORT)
    with pytest.warns(RuntimeWarning, match="values repeat in column 'count': spread by noise"):
        none.fit(x[["count", "size"]])
    assert none.table_.columns[0] == Column("float", 1.0, 0.0, step=1.0)
    assert FlowDensity(discrete=None, spread="none", **SHORT).fit(x[["count", "size"]]).table_.is_plain
    tens = np.column_stack([10.0 * np.arange(100) % 70, np.random.default_rng(0).standard_normal(100)])
    density = FlowDensity(discrete=[0], **SHORT).fit(tens)
    assert density.table_.columns[0] == Column("integer", 10.0, 0.0)
    assert FlowDensity(**SHORT).fit(np.random.default_rng(0).poisson(3, (100, 2))).table_.columns[1].kind == "integer"
    for wrong, error in (
        ({"discrete": "some"}, "discrete: expected 'auto', None or a list"),
        ({"discrete": ["a"]}, "discrete: expected a column of X"),
        ({"spread": -1.0}, "spread: expected a number above 0"),
        ({"spread": "all"}, "spread: expected 'auto', 'none', a width or a dict of widths, got 'all'"),
        ({"spread": {"count": 1.0}}, "whole numbers, got column 'count'"),
        ({"missing": "fill"}, "missing: expected one of"),
    ):
        with pytest.raises(ValueError, match=error):
            FlowDensity(**wrong, **SHORT).fit(x)


def test_polars_frames():
    polars = pytest.importorskip("polars")
    x = polars.DataFrame({"a": [1, 2, 3] * 30, "b": np.random.default_rng(0).standard_normal(90)})
    density = FlowDensity(**SHORT).fit(x)
    assert density.table_.columns[0].kind == "integer"
    drawn = density.sample(3, random_state=0, as_frame=True)
    assert isinstance(drawn, polars.DataFrame)
    assert drawn.columns == ["a", "b"]


def test_all_columns_constant_are_fitted_and_put_back():
    with pytest.warns(RuntimeWarning, match="constant"):
        density = FlowDensity(**SHORT).fit(np.full((20, 2), [1.0, 7.5]))
    assert density.flow_.features == 2
    assert (density.sample(50, random_state=0) == [1.0, 7.5]).all()
    assert np.isfinite(density.score_samples([[1.0, 7.5]])).all()
    with pytest.warns(RuntimeWarning, match="differ from 1, the one value"):
        assert density.score_samples([[1.5, 7.5]]) == -np.inf


def test_frames_with_one_name_twice_are_refused():
    frames = pytest.importorskip("pandas")
    x = frames.DataFrame(np.zeros((9, 3)), columns=["a", "a", "b"])
    with pytest.raises(ValueError, match="x: expected columns of different names, got 'a' twice"):
        hr.MAF(3).fit(x)
    with pytest.raises(ValueError, match="context: expected columns of different names, got 'a' twice"):
        hr.MAF(1, 3).log_prob(np.zeros((9, 1)), x)
    # Integers as labels of columns are not names.
    assert hr.MAF(3).log_prob(x.set_axis([0, 0, 1], axis=1)).shape == (9,)


def test_rows_of_weight_zero_do_not_decide_the_kind_of_a_column():
    x = np.column_stack([np.r_[np.zeros(50), np.full(50, 2.0)], np.random.default_rng(0).standard_normal(100)])
    density = FlowDensity(**SHORT).fit(x, sample_weight=np.r_[np.zeros(50), np.ones(50)])
    assert density.table_.columns[0].constant == 2.0


def test_an_ensemble_of_a_table():
    density = FlowDensity(ensemble=2, missing="drop", **SHORT).fit(frame(200))
    assert density.spread_samples(frame(5)).shape == (5,)
    some = frame(5).astype(float)
    some.loc[2, "unit"] = np.nan
    assert np.flatnonzero(np.isnan(density.spread_samples(some))).tolist() == [2]
    assert density.sample(5, random_state=0).shape == (5, 4)


def test_pickles_keep_the_table_and_old_ones_load(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert again.table_ == fitted.table_
    assert (again.score_samples(frame(20)) == fitted.score_samples(frame(20))).all()
    old = FlowDensity(**SHORT).fit(np.random.default_rng(0).standard_normal((50, 2)))
    state = old.__getstate__()
    for name in ("table_", "_frame", "discrete", "spread", "missing"):
        state.pop(name)
    loaded = object.__new__(FlowDensity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded.__setstate__(state)
    assert loaded.sample(3, random_state=0).shape == (3, 2)
    assert loaded.get_params()["missing"] == "refuse"


def test_a_table_is_kept_as_json():
    table = Table((Column("integer", 2.0, 1.0), Column("float", constant=3.0), Column("boolean", 1.0)))
    assert Table.of_header(table.header()) == table
    assert Table.of_header(table.header()[1:2]).kept == [0]  # all columns of this table are constant
    for wrong in ([], "x", [{"kind": "odd"}], [{**table.header()[0], "width": -1.0}]):
        with pytest.raises((ValueError, TypeError, KeyError)):
            Table.of_header(wrong)


def test_repeats_of_continuous_numbers_are_not_reported():
    x = np.random.default_rng(0).standard_normal((1000, 2))
    plain = Table((Column(), Column()))
    assert _table.about_repeats(x, plain, None) == []
    spiked = x.copy()
    spiked[:60, 1] = 0.0
    assert "column 1" in _table.about_repeats(spiked, plain, None)[0]
    assert _table.about_repeats(spiked[:40], plain, None) == []


# ---- rows beside those of the fit ------------------------------------------------------------------------------------


def test_a_plain_table_is_not_copied():
    x = np.zeros((5, 2))
    plain = Table((Column(), Column()))
    assert plain.spread(x) is x
    assert plain.back(x) is x
    assert plain.without_constants(x) is x


def test_rows_that_miss_a_number_are_outliers():
    """Values may be missing in any column, even in the constant one."""
    x = frame(200)
    density = FlowDensity(missing="drop", **SHORT).fit(x)
    some = x.astype(float).iloc[:40].copy()
    some.loc[3, "size"] = np.nan
    some.loc[5, "unit"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "fit: no epoch of")
        scores = density.score_samples(some)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [3, 5]
    assert (density.predict(some)[[3, 5]] == -1).all()
    others = np.delete(np.arange(40), [3, 5])
    assert (density.predict(some)[others] == np.where(scores[others] >= density.offset_, 1, -1)).all()
    assert density.score(some) == pytest.approx(scores[others].mean())
    refusing = FlowDensity(**SHORT).fit(x)
    for verb in (refusing.predict, refusing.score_samples):
        with pytest.raises(ValueError, match="NaN"):
            verb(some)
    with pytest.raises(ValueError, match="NaN in 2 of 40 rows"):
        FlowDensity(**SHORT).fit(some)
    assert FlowDensity(missing="drop", **SHORT).fit(some).table_.columns[3].constant == 2.5


def test_validation_rows_are_treated_as_those_to_fit(monkeypatch):
    import headrace as hr

    seen, fit = [], hr.Flow.fit

    def watched(self, x, context=None, **given):
        seen.append((x, given["validation"]))
        return fit(self, x, context, **given)

    monkeypatch.setattr(hr.Flow, "fit", watched)
    x, held = frame(300), frame(80, seed=5).astype(float)
    held.loc[7, "size"] = np.nan
    weights = np.arange(80.0)
    FlowDensity(missing="drop", **{**SHORT, "fit": FitSettings(epochs=15, validation=(held, None, weights))}).fit(x)
    (rows, (given, context, own)) = seen[0]
    assert (rows.shape, given.shape, context) == ((300, 3), (79, 3), None)
    assert (own == np.delete(weights, 7)).all()
    expected = np.delete(held.to_numpy(float), 7, axis=0)
    assert (np.round(given[:, 0]) == expected[:, 0]).all()
    assert (given[:, 0] != expected[:, 0]).all()
    assert (given[:, 2] == expected[:, 2]).all()
    with pytest.raises(ValueError, match=r"validation: expected rows of 4 columns, got shape \(5, 2\)"):
        FlowDensity(**{**SHORT, "fit": FitSettings(epochs=15, validation=np.zeros((5, 2)))}).fit(x)
    with pytest.raises(ValueError, match="validation: row 7, column 'size': expected no missing values"):
        FlowDensity(**{**SHORT, "fit": FitSettings(epochs=15, validation=held)}).fit(x)


def test_periodic_whole_numbers_wrap_around():
    hours = Column("integer", 1.0, 0.0, None, None, (0.0, 24.0))
    assert hours.back(np.array([-0.4, 23.4, 23.6, 24.0, 11.5])).tolist() == [0.0, 23.0, 0.0, 0.0, 12.0]
    x = np.column_stack([np.arange(200) % 23, np.random.default_rng(0).standard_normal(200)])
    periodic = {"discrete": [0], "flow": "nsf", "coupling": True}
    density = FlowDensity(periodic=[(0, 24), None], **periodic, **SHORT).fit(x)
    assert density.table_.columns[0] == hours
    assert set(np.unique(density.sample(3000, random_state=0)[:, 0])) <= set(range(24))
    scores = density.score_samples(np.array([[0.0, 0.1], [24.0, 0.1], [-24.0, 0.1]]))
    assert scores == pytest.approx(scores[0], abs=1e-3)
    fives = np.column_stack([np.arange(200) % 4 * 5, x[:, 1]])
    narrow = FlowDensity(periodic=[(0, 24), None], **periodic, **SHORT).fit(fives)
    assert narrow.table_.columns[0].width == 1.0  # cells of width 5 would not fit into a day
    with pytest.raises(ValueError, match="X: column 0: expected a whole period"):
        FlowDensity(periodic=[(0.0, 6.5), None], **periodic, **SHORT).fit(x)


def test_rows_whose_context_misses_a_number_are_left_out_with_it():
    x = np.arange(12.0).reshape(6, 2)
    context, weights = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0]), np.array([1.0, 1.0, 1.0, 1.0, np.nan, 1.0])
    x[0, 1] = np.nan
    table = Table((Column(), Column()), missing="drop")
    seen = table.to_look_at(x, context, weights, names=None, x_name="x")
    for part, whole in zip(seen, (x, context, weights), strict=True):
        np.testing.assert_array_equal(part, whole[[1, 3, 5]])
    strict = Table((Column(), Column()))
    with pytest.raises(ValueError, match="NaN in 1 of 6 rows"):
        strict.to_look_at(x, context, weights, names=None, x_name="x")
    kept = strict.to_look_at(x[1:], context[1:], None, names=None, x_name="x")  # a context is checked where it is read
    np.testing.assert_array_equal(kept[1], context[1:])


def test_a_diagnosis_takes_the_estimator(monkeypatch):
    """A diagnosis treats rows as the fit does: rows of the fit get the fit's noise, and other rows get other noise."""
    from headrace.diagnosis import run

    seen, opened = [], run.opened
    monkeypatch.setattr(run, "opened", lambda *given: seen.append(given) or opened(*given))
    x, others = frame(300), frame(200, seed=4)
    density = FlowDensity(missing="drop", **SHORT).fit(x)
    others = others.astype(float)
    others.loc[9, "size"] = np.nan
    found = hr.diagnose(density, others, weights=np.arange(200.0), training=x, progress=False)
    _, _, rows, context, weights, (training, _), names, *_ = seen[0]
    assert (training == density.table_.spread(x.to_numpy(float))).all()
    assert (rows.shape, context, names) == ((199, 3), None, ("count", "yes", "size"))
    assert (weights == np.delete(np.arange(200.0), 9)).all()
    assert (np.round(rows[:, 0]) == others["count"].drop(9)).all()
    assert (found.rows, found.features, found.copies) == (199, 3, 0)
    # Training rows are recognised although a diagnosis adds different noise.
    with pytest.warns(RuntimeWarning, match="300 of 300 are training rows"):
        again = hr.diagnose(density, x.copy(), training=x, names=["a", "b", "c", "d"], progress=False)
    assert (again.copies, again.of_training) == (300, True)
    assert seen[1][6] == ("a", "b", "c")
    conditional = FlowDensity(**SHORT).fit(x, context=np.arange(300.0))
    hr.diagnose(conditional, x, [3.0], training=(x, np.arange(300.0)), progress=False)
    assert seen[2][3].shape == (300, 1)
    with pytest.raises(ValueError, match="context: expected shape"):
        hr.diagnose(conditional, x, progress=False)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_column_without_numbers_is_named(library):
    make = pytest.importorskip(library).DataFrame
    values = {name: column.tolist() for name, column in frame(60).items()}
    with pytest.raises(TypeError, match=r"X: expected columns of numbers, got .* in column 'who'"):
        FlowDensity(**SHORT).fit(make({**values, "who": [datetime.date(2020, 1, 1)] * 60}))
    with pytest.warns(RuntimeWarning, match=r"X: left out: column 'who' \(text\)$"):
        density = FlowDensity(**SHORT).fit(make({**values, "who": ["a"] * 60}))
    assert (density.score_samples(make({**values, "who": ["b"] * 60})) == density.score_samples(make(values))).all()
    if library == "polars":
        with pytest.raises(TypeError, match=r"a polars.LazyFrame; call X.collect\(\)"):
            FlowDensity(**SHORT).fit(make(values).lazy())
        with pytest.raises(TypeError, match=r"a polars.LazyFrame; call x.collect\(\)"):
            hr.auto(make(values).lazy(), 0.1)


def test_truth_values_with_missing_ones_in_object_columns():
    x = frame(60)
    x["yes"] = [None, *x["yes"].tolist()[1:]]
    x["count"] = x["count"].astype(object)
    assert [str(dtype) for dtype in x.dtypes[:2]] == ["object", "object"]
    density = FlowDensity(missing="drop", **SHORT).fit(x)
    assert [one.kind for one in density.table_.columns] == ["integer", "boolean", "float", "float"]


def test_warnings_name_the_line_of_the_user():
    x = frame(100)
    x["size"] = x["size"].round(1)
    with pytest.warns(RuntimeWarning, match="values repeat in column 'size'") as caught:
        density = FlowDensity(**SHORT).fit(x)
    with pytest.warns(RuntimeWarning, match="rows differ from 2.5") as other:
        density.score_samples(x.assign(unit=3.0))
    with pytest.warns(RuntimeWarning, match="left out: column 'number'") as index:
        FlowDensity(**SHORT).fit(frame(100).assign(number=range(100)))
    assert {one.filename for one in (*caught, *other, *index)} == {__file__}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_decimals_are_floats(library):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip(library)
    values = {"price": [decimal.Decimal(i) / 100 for i in range(59)] + [None], "size": np.sqrt(np.arange(60.0))}
    kind = pyarrow.decimal128(10, 2)
    table = pyarrow.table({"price": pyarrow.array(values["price"], kind), "size": values["size"]})
    if library == "pandas":
        table = table.to_pandas(types_mapper=pandas.ArrowDtype)
    elif library == "polars":
        table = pytest.importorskip("polars").from_arrow(table)
    choice = hr.auto(table, 0.2, families=("maf",), missing="drop", progress=False)
    assert [one.kind for one in choice.columns.table.columns] == ["float", "float"]
    assert np.flatnonzero(np.isnan(choice.log_prob(table))).tolist() == [59]


@pytest.mark.parametrize("values", [[0, 2**53], [-(2**62), 2**62], [0, 2**64 - 1]])
def test_whole_numbers_with_others_between_them_that_floats_lack_are_refused(values):
    dtype = np.uint64 if values[1] >= 2**63 else np.int64
    x = pandas.DataFrame({"id": np.array(values * 40, dtype), "size": np.linspace(0.0, 1.0, 80)})
    with pytest.raises(ValueError, match=r"column 'id': expected whole numbers less than 2\^53 apart"):
        FlowDensity(**SHORT).fit(x)
    near = pandas.DataFrame({"id": np.array([0, 2**52] * 40), "size": x["size"]})
    drawn = FlowDensity(**{**SHORT, "fit": FitSettings(epochs=1)}).fit(near).sample(50)
    assert not np.fmod(drawn[:, 0], 2.0**52).any()
    with pytest.warns(RuntimeWarning, match="values repeat in column 'id'"):
        assert FlowDensity(**{**SHORT, "fit": FitSettings(epochs=1)}, discrete=None).fit(x).flow_.features == 2


def test_streams_refuse_such_whole_numbers_too():
    x = np.column_stack([np.tile([0.0, 2.0**53], 100), np.sqrt(np.arange(200.0))])
    with pytest.raises(ValueError, match=r"column 0: expected whole numbers less than 2\^53 apart.* and 9007199254"):
        FlowDensity(**SHORT, discrete=[0]).fit(hr.rows.blocks([x[:120], x[120:]], buffer=50))


def test_fractional_values_have_no_probability(fitted):
    x = frame(3).astype({"count": float})
    x.iloc[1, 0] = 3.5
    with pytest.warns(RuntimeWarning, match="X: 1 of 3 rows are not whole in column 'count', as 3.5, .* is -inf"):
        got = fitted.score_samples(x)
    assert got[1] == -np.inf
    want = fitted.score_samples(frame(3))
    assert got[[0, 2]].tolist() == want[[0, 2]].tolist()
    # The probabilities of whole values have the same sum if rows with fractional values are scored as well.
    quarters = np.arange(-8.0, 60.0) / 4
    rows = pandas.DataFrame({"count": quarters, "yes": False, "size": 0.0, "unit": 2.5})
    whole = rows[quarters == np.trunc(quarters)]
    with pytest.warns(RuntimeWarning, match="are not whole"):
        total = np.exp(fitted.score_samples(rows)).sum()
    assert total == pytest.approx(np.exp(fitted.score_samples(whole)).sum(), rel=1e-12)


def test_the_table_of_an_estimator_prints_the_treatment_of_each_column(monkeypatch):
    """The lines have the names of columns, where columns have names, and are no wider than the terminal."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    x = np.stack([rng.poisson(4.0, 200), rng.random(200), np.full(200, 3.5)], axis=1)
    frame = pd.DataFrame({"count": x[:, 0].astype(int), "share": x[:, 1], "unit": x[:, 2]})
    printed = str(FlowDensity(bounds=[None, (0.0, 1.0), None], spread={"share": 0.1}, **SHORT).fit(frame).table_)
    assert printed.splitlines() == [
        "column  kind     in a fit",
        "count   integer  noise 1 wide, samples are rounded",
        "share   float    noise 0.1 wide, from 0 to 1",
        "unit    float    always 3.5: kept aside",
    ]
    monkeypatch.setenv("COLUMNS", "30")
    narrow = FlowDensity(discrete=[0], **SHORT).fit(x).table_
    assert max(map(len, str(narrow).splitlines())) <= 30
    assert "samples are" in str(narrow)
