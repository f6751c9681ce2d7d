"""Tables that do not fit in memory: kinds of columns, and noise that depends on the index of the row."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
import stream_cases as streams
from headrace._tables import table as _table
from headrace._tables.facts import LOOKED_AT, Held, Passed
from headrace._tables.stream import Present, Treated
from headrace._tables.table import Column, Table

pytestmark = pytest.mark.filterwarnings("ignore:X. values repeat")
SHORT = {"transforms": 1, "hidden": (8,), "random_state": 0}
CUTS = ((1,), (37, 0, 1, 200), (999,), (10**6,))


def rows(n=2000, dtype="float64"):
    rng = np.random.default_rng(0)
    count = 10.0 * rng.poisson(3.0, n) + 5.0
    columns = [count, rng.random(n) < 0.3, rng.standard_normal(n).round(1), np.full(n, 2.5), rng.standard_normal(n)]
    return np.column_stack(columns).astype(dtype)


def blocks(x, sizes, weights=None, buffer=300):
    if weights is None:
        return hr.rows.blocks(streams.cut(x, sizes), buffer=buffer)
    parts = zip(streams.cut(x, sizes), streams.cut(weights, sizes), strict=True)
    return hr.rows.blocks([(block, None, share) for block, share in parts], buffer=buffer)


def passed(stream, bounds=None):
    seen = Passed(stream, bounds)
    for block in stream:
        seen.add(block)
    return seen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_depends_on_the_index_of_a_row(dtype):
    """Blocks of any sizes get the noise that the whole table gets, for fits and diagnoses."""
    kept = Column(), Column("float", 0.1, bounds=(None, 1.0)), Column("float", constant=2.5), Column()
    table = Table((Column("integer", 10.0, 5.0), Column("boolean", 1.0), *kept[1:3], kept[3]), seed=7)
    x = rows(dtype=dtype)
    for purpose in (_table.FIT, _table.LOOK):
        want = table.spread(x, purpose)
        assert (want[:, :3] != x[:, :3]).mean() > 0.99
        for first, last in ((0, 1), (1, 2), (700, 1300), (1999, 2000), (2000, 2000)):
            assert_array_equal(table.spread(x[first:last], purpose, first_row=first), want[first:last])
    want = table.spread(x)
    for sizes in CUTS:
        stream = Treated(blocks(x, sizes), table)
        for _ in range(2):  # two passes of the stream
            assert_array_equal(np.concatenate([block.x for block in stream]), want)
    mapped = Treated(hr.rows.memmap(x, buffer=300), table)
    rest, held = mapped.split(0.1, seed=3)
    numbers = mapped._drawn(200, 3)
    assert_array_equal(held.x, want[numbers])
    assert_array_equal(np.concatenate([block.x for block in rest]), np.delete(want, numbers, axis=0))


def test_parts_of_a_stream_have_the_index_of_their_first_row(tmp_path):
    """A stream reads its parts in the order of an epoch, which is random."""
    x = np.random.default_rng(1).integers(0, 5, (2000, 3)).astype(float)
    table = Table((Column("integer", 1.0),) * 3, seed=1)
    streams.write_parquet(tmp_path / "t", x)
    stream = Treated(hr.rows.parquet(tmp_path / "t", buffer=500), table)
    begins = np.concatenate([[0], np.cumsum(stream._sizes)])
    assert len(begins) > 10
    for part in np.random.default_rng(0).permutation(len(stream._sizes)):
        found = np.concatenate([block.x for block in stream.read(int(part))])
        assert_array_equal(found, table.spread(x)[begins[part] : begins[part + 1]])


@pytest.mark.parametrize("weighted", [False, True])
def test_one_pass_finds_the_kinds_of_rows_in_memory(weighted):
    x = rows()
    weights = np.where(np.arange(len(x)) % 5 == 0, 0.0, 1.0) if weighted else None
    if weighted:
        x[::5, 0] = 0.5  # every fifth row has weight 0
    bounds = [(None, 100.0), *[None] * 4]
    held, free = (Held(x if weights is None else x[weights > 0], ends) for ends in (bounds, [None] * 5))
    kinds, widths = ["integer", "boolean", "float", "float", "float"], [None, None, 0.1, None, None]
    for sizes in CUTS:
        seen = passed(blocks(x, sizes, weights), bounds)
        assert [seen.facts(i, whole=True) for i in range(2)] == [held.facts(i, whole=True) for i in range(2)]
        assert seen.facts(0, whole=True).beyond.count > 0
        seen = passed(blocks(x, sizes, weights))
        assert Table.learn(seen, kinds, widths) == Table.learn(free, kinds, widths)
        assert Table.learn(seen, kinds, widths).columns[0].width == 10.0
        assert_array_equal(seen.some, held.some)
        assert seen.smallest_gaps([2]) == held.smallest_gaps([2]) == [pytest.approx(0.1)]
        assert passed(blocks(x, sizes, weights, buffer=2000)).smallest_gaps([2, 4]) == held.smallest_gaps([2, 4])


def test_fractional_values_and_values_beyond_bounds_are_counted():
    x = rows()
    x[[7, 50], 0] = 0.5, 1.5
    x[9, 1] = 3.0
    for sizes in CUTS:
        seen = passed(blocks(x, sizes), [None, (0.0, 1.0), None, None, None])
        with pytest.raises(ValueError, match=r"column 0: expected whole numbers, .*got 0.5; numbers .*: 2 of 2,000"):
            Table.learn(seen, ["integer", "float", "float", "float", "float"], [None] * 5)
        with pytest.raises(ValueError, match=r"column 1: expected whole numbers from 0.0 to 1.0, got 3; .*: 1 of 2,00"):
            Table.learn(
                seen,
                ["float", "boolean", "float", "float", "float"],
                [None] * 5,
                bounds=[None, (0.0, 1.0), *[None] * 3],
            )


def test_repeats_are_sought_in_all_rows_in_little_memory():
    x = np.random.default_rng(0).standard_normal((100_000, 2))
    x[50_000:, 1] = 0.0
    found = [passed(blocks(x, sizes)) for sizes in ((1000,), (7777, 3))]
    for seen in found:
        assert LOOKED_AT <= len(seen.some) <= 2 * LOOKED_AT
        assert _table.repeating(seen.some, Table.learn(seen, ["float"] * 2, [None] * 2)) == [1]
    assert_array_equal(found[0].some, found[1].some)


def test_the_values_kept_for_a_gap_are_limited():
    x = np.arange(5000.0)[::-1, None] ** 2
    assert passed(blocks(x, (100,), buffer=40)).smallest_gaps([0]) == [1.0]
    assert passed(blocks(np.ones((50, 1)), (100,), buffer=40)).smallest_gaps([0]) == [None]


def test_rows_with_a_missing_value():
    x = rows()
    x[[3, 1000, 1999], [0, 4, 2]] = np.nan
    good = ~np.isnan(x).any(axis=1)
    for sizes in CUTS:
        stream = Present(blocks(x, sizes))
        assert_array_equal(np.concatenate([block.x for block in stream]), x[good])
        assert stream.left_out == 3
        table = Table((Column("integer", 10.0, 5.0), *(Column(),) * 4))
        assert_array_equal(np.concatenate([block.x for block in Treated(stream, table)]), table.spread(x[good]))


# ---- the estimator -------------------------------------------------------------------------------------------------


def density(validation=0.1, **others):
    sklearn = pytest.importorskip("headrace.sklearn")
    return sklearn.FlowDensity(
        fit=sklearn.FitSettings(epochs=2, validation=validation), **{**SHORT, "categories": None, **others}
    )


def test_an_estimator_of_a_long_stream_has_the_table_of_one_in_memory(monkeypatch):
    sklearn = pytest.importorskip("headrace.sklearn")
    x, fitted, fit = rows(), [], sklearn.Flow.fit

    def watched(self, given, *others, **named):
        fitted.append(given if isinstance(given, np.ndarray) else np.concatenate([block.x for block in given]))
        return fit(self, given, *others, **named)

    monkeypatch.setattr(sklearn.Flow, "fit", watched)
    how = {"discrete": [0, 1], "spread": "auto"}
    whole = density(**how).fit(x)
    found = [density(**how).fit(blocks(x, sizes)) for sizes in CUTS[1:]]
    for each, seen in zip(found, fitted[1:], strict=True):
        assert each.table_ == whole.table_
        assert [one.width for one in each.table_.columns] == pytest.approx([10.0, 1.0, 0.1, 0.0, 0.0])
        assert_array_equal(seen, fitted[0])
    drawn = found[0].sample(500, random_state=1)
    assert (drawn[:, 1] % 1 == 0).all()
    assert (drawn[:, 0] % 10 == 5).all()
    assert (drawn[:, 3] == 2.5).all()
    assert np.isfinite(found[0].score_samples(x)).all()
    assert (found[0].decision_function(x) < 0).mean() == pytest.approx(0.1, abs=0.05)


def test_a_stream_that_fits_is_a_table_in_memory():
    x = rows()
    long, whole = density(discrete=[0]).fit(blocks(x, (99,), buffer=5000)), density(discrete=[0]).fit(x)
    assert long.table_ == whole.table_
    assert_array_equal(long.flow_.parameters, whole.flow_.parameters)
    assert long.offset_ == whole.offset_


@pytest.mark.parametrize("source", ["arrays", "mapped", "pandas", "parquet", "dask"])
def test_dtypes_decide_which_columns_are_whole(source, tmp_path):
    pandas = pytest.importorskip("pandas")
    x = rows(600)
    frame = pandas.DataFrame({"count": x[:, 0].astype(int), "yes": x[:, 1] > 0, "size": x[:, 4]})
    want = ["integer", "boolean", "float"]
    if source == "arrays":
        stream, want = hr.rows.blocks([x[:, :2].astype(int), x[:10, :2].astype(np.int16)], buffer=99), ["integer"] * 2
    elif source == "mapped":
        np.save(tmp_path / "x.npy", x[:, :2].astype(int))
        stream, want = hr.rows.memmap(tmp_path / "x.npy", buffer=99), ["integer"] * 2
    elif source == "pandas":
        stream = hr.rows.blocks([frame[:300], frame[300:]], buffer=99)
    elif source == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(tmp_path / "x.parquet")
        stream = hr.rows.parquet(tmp_path / "x.parquet", buffer=99)
    else:
        stream = hr.rows.dask(pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=3), buffer=99)
    for buffer in (99, 5000):
        stream.buffer = buffer
        found = density().fit(stream)
        assert [one.kind for one in found.table_.columns] == want
        drawn = found.sample(100, random_state=0)
        assert (drawn[:, :2] == drawn[:, :2].round()).all()
    if len(want) == 3:
        assert list(found.sample(3, random_state=0, as_frame=True).columns) == ["count", "yes", "size"]
        assert density(discrete=["count"]).fit(stream).table_.columns[1].kind == "float"
        assert not hasattr(found, "feature_names_in_")  # kinds of columns of arrays are decided without a warning
    flow = hr.MAF(len(want), transforms=1, hidden=(4,))
    flow.fit(stream, epochs=1, progress=False)  # the stream passes through the estimator unchanged
    assert flow.feature_names == (("count", "yes", "size") if len(want) == 3 else None)


def test_rows_to_judge_by_and_rows_that_miss_a_number():
    x = rows()
    x[5, 0] = np.nan
    with pytest.raises(ValueError, match="first in row 5"):
        density(discrete=[0]).fit(blocks(x, (99,)))
    good = np.delete(x, 5, axis=0)
    judges = (good[:200], hr.rows.blocks([good[:200]]))
    found = [density(discrete=[0], missing="drop", validation=v).fit(blocks(x, (99,))) for v in judges]
    same = (98, *[99] * 20)  # blocks without row 5, of sizes that keep the order of sums
    found.append(density(discrete=[0], validation=judges[0]).fit(blocks(good, same)))
    assert found[0].history_.best_epoch > 0
    for each in found[1:]:
        assert_array_equal(each.flow_.parameters, found[0].flow_.parameters)
    assert np.isnan(found[0].score_samples(x)[5])


def test_bounds_of_whole_numbers_and_warnings():
    x = rows()
    bounds = [(5, None), (0, 1), None, None, None]
    found = density(discrete=[0, 1], bounds=bounds, spread=0.1).fit(blocks(x, (99,)))
    assert found.flow_.transforms[-1].bounds == ((0.0, None), (-0.5, 1.5), None, None)
    assert found.sample(500, random_state=0)[:, 0].min() >= 5
    with pytest.raises(ValueError, match=r"column 0: expected whole numbers from 15.0 to None, got 5"):
        density(discrete=[0], bounds=[(15, None), *[None] * 4]).fit(blocks(x, (99,)))
    with pytest.warns(RuntimeWarning, match="X: values repeat in column 2"):
        density(discrete=[0, 1]).fit(blocks(x, (99,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "fit: no epoch of")
        density(discrete=[0, 1], spread="none").fit(blocks(x, (99,)))
    x[:, 4] = np.arange(len(x))
    with pytest.warns(RuntimeWarning, match=r"left out: column 4 \(0, 1, 2, "):
        density(discrete=[0, 1], spread="auto").fit(blocks(x, (99,)))
