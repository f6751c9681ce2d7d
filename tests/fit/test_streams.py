"""Fits of streams against fits of arrays: equal bits where all rows fit in the buffer, otherwise equal steps."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import stream_cases as streams
from fitting import QUIET, moments, small
from headrace._fit import plan as _plan
from headrace._fit import run as _run
from headrace._fit import start as _start
from headrace._fit import streams as _streams
from headrace._fit.given_rows import Data
from headrace._fit.moments import Moments
from headrace._fit.source import ArrayRows
from headrace.rows import _sources as _sources
from headrace.rows._stream import Block

SOURCES = pytest.mark.parametrize("source", streams.SOURCES.values(), ids=streams.SOURCES)
KINDS = [(0, False), (2, True)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Let mapped arrays have parts of 128 rows, so that each array has several parts."""
    monkeypatch.setattr(_sources, "PART", 128)


def history_of(flow, *given, **settings):
    history = flow.fit(*given, **QUIET, **settings)
    return history.train_loss, history.validation_loss, history.best_epoch


# --- all rows in the buffer -------------------------------------------------------------------------------------------


@SOURCES
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize(("context", "weighted"), KINDS)
def test_a_stream_that_fits_in_its_buffer_has_the_bits_of_arrays(source, dtype, context, weighted, tmp_path):
    x, conditions, weights = streams.rows(1000, dtype, context, weighted)
    stream = source(tmp_path, x, conditions, weights, 1000)
    flow, other = small(dtype, context=context), small(dtype, context=context)
    want = history_of(flow, x, conditions, weights=weights, epochs=2)
    assert history_of(other, stream, epochs=2) == want
    assert_array_equal(flow.parameters, other.parameters)
    assert_array_equal(flow.transforms[-1].std, other.transforms[-1].std)


@pytest.mark.usefixtures("one_mixture")
def test_few_rows_of_a_stream_are_cross_validated_as_those_of_an_array():
    x = streams.rows(100)[0]
    flow, other = small(), small()
    flow.fit(x, **QUIET)
    history = other.fit(hr.rows.blocks([x[:60], x[60:]]), **QUIET)
    assert history.judged_by == "cross-validation"
    assert_array_equal(flow.parameters, other.parameters)


def test_objects_of_other_libraries_are_streams(tmp_path):
    x = streams.rows(1000)[0]
    flow = small()
    want = history_of(flow, x, epochs=1)
    dataset = pytest.importorskip("pyarrow.dataset")
    streams.write_parquet(tmp_path / "t", x)
    assert history_of(small(), dataset.dataset(tmp_path / "t"), epochs=1) == want
    table = dataset.dataset([streams.table_of(x[:400], None, None), streams.table_of(x[400:], None, None)])
    assert history_of(small(), table, epochs=1) == want


def test_arrays_of_dask_are_streams():
    dask = pytest.importorskip("dask.array")
    x, context, weights = streams.rows(1000, "float64", 2, True)
    want = history_of(small(context=2), x, context, weights=weights, epochs=1)
    many = dask.from_array(x, chunks=(300, 2)), dask.from_array(context, chunks=(500, 1))
    assert history_of(small(context=2), *many, weights=weights, epochs=1) == want
    unknown = dask.from_array(x, chunks=(300, 3))
    unknown = unknown[unknown[:, 0] > -1e9]  # Dask does not know the number of rows
    assert history_of(small(), unknown, epochs=1) == history_of(small(), x, epochs=1)


# --- the first pass ---------------------------------------------------------------------------------------------------


def opened(stream, context=0, support=None):
    data = _streams.StreamRows(stream, streams.FEATURES, context, support, True, False)
    return data.split(0.2, np.random.default_rng(5), None)


@SOURCES
@pytest.mark.parametrize(("context", "weighted"), KINDS)
def test_the_first_pass_measures_the_training_rows_and_holds_out_those_of_arrays(source, context, weighted, tmp_path):
    x, conditions, weights = streams.rows(1000, "float64", context, weighted)
    found, judge = opened(source(tmp_path, x, conditions, weights, 400), context)
    want, want_judge = ArrayRows(Data(x, conditions, weights)).split(0.2, np.random.default_rng(5), None)
    assert (found.size, judge.size) == (want.size, want_judge.size)
    index, out, held_out = want.part.all(), want_judge.part.all(), judge.data
    assert_array_equal(held_out.x, x[out])
    own = None if weights is None else weights[index]
    for of_context, table in ((False, x), *[(True, conditions)] * bool(context)):
        for got, true in zip(found.moments(of_context=of_context), moments(table[index], own), strict=True):
            assert_allclose(got, true, rtol=1e-13, atol=1e-15)
    if weighted:
        assert_array_equal(held_out.weights, weights[out])
        assert found.weight() == pytest.approx(weights[index].sum(), rel=1e-14)
    if context:
        assert_array_equal(held_out.context, conditions[out])
    (some,) = found.standing().parts()
    assert_array_equal(some.x, x[index])  # a sample of fewer than 65,536 rows has all rows


def test_no_more_rows_are_held_out_than_the_buffer_holds(tmp_path):
    x = streams.rows(1000)[0]
    train, judge = opened(hr.rows.blocks([x], buffer=50))
    assert (train.size, len(judge.data.x)) == (950, 50)


def test_a_sample_stands_for_many_rows(monkeypatch):
    monkeypatch.setattr(_streams, "CHUNK", 100)
    x = streams.rows(1000)[0]
    found, _ = opened(hr.rows.blocks([x], buffer=400))
    train = ArrayRows(Data(x, None, None)).split(0.2, np.random.default_rng(5), None)[0].part
    some = found.standing()
    assert some.size == 100
    assert_array_equal(some.data.x, x[train.at(np.arange(100) * train.size // 100)])


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e154, 1e300])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_of_blocks_are_those_of_all_rows(scale, offset):
    """Moments are right where squares of values overflow or underflow, and beside an offset of 1e6 deviations, where a
    sum of squares would lose all digits.
    """
    rng = cases.rng("moments")
    x = scale * (offset + rng.standard_normal((1000, 2)) * [1.0, 3.0])
    share = rng.uniform(0.0, 2.0, 1000)
    sums = Moments()
    for block in np.split(np.arange(1000), [1, 2, 500, 930]):
        sums.add(x[block], share[block])
    mean, std, half = sums.found()
    want_mean, want_std = (scale * values for values in moments(x / scale, share))
    assert_allclose(mean, want_mean, rtol=1e-14, atol=1e-14 * scale)
    assert_allclose(std, want_std, rtol=1e-9 if offset else 1e-13)
    assert_array_equal(half, x.max(axis=0) / 2 - x.min(axis=0) / 2)
    assert sums.weight == pytest.approx(share.sum(), rel=1e-14)


def test_moments_over_all_of_float64():
    sums = Moments()
    sums.add(np.array([[-1.7e308]]), np.ones(1))
    sums.add(np.array([[1.7e308]]), np.ones(1))
    mean, std, _ = sums.found()
    assert_allclose((mean[0], std[0]), (0.0, 1.7e308))


# --- an epoch ---------------------------------------------------------------------------------------------------------


@SOURCES
@pytest.mark.parametrize("buffer", [1, 7, 130, 999])
def test_an_epoch_has_every_training_row_once_with_its_context_and_weight(source, buffer, tmp_path):
    x, conditions, weights = streams.rows(1000, "float64", 2, True)
    data, judge = opened(source(tmp_path, x, conditions, weights, buffer), 2)
    bounds = [0, 10, 11, 200, data.size]
    batches = [list(data.batches(np.random.default_rng(seed), bounds)) for seed in (0, 0, 1)]
    assert [len(batch.x) for batch in batches[0]] == list(np.diff(bounds))
    index = np.flatnonzero(weights > 0)
    index = index[~np.isin(x[index, 1], judge.data.x[:, 1])]
    orders = []
    for found in batches:
        got = Block.joined([Block(batch.x, batch.context, batch.weights) for batch in found])
        order = np.argsort(x[:, 1])[np.searchsorted(np.sort(x[:, 1]), got.x[:, 1])]  # indices of the rows by values
        assert_array_equal(np.sort(order), index)
        assert_array_equal(got.x, x[order])
        assert_array_equal(got.context, conditions[order])
        assert_array_equal(got.weights, weights[order])
        orders.append(order)
    assert_array_equal(orders[0], orders[1])
    if buffer > 100:
        assert (orders[0] != orders[2]).mean() > 0.9


def test_rows_are_mixed_over_the_whole_buffer():
    """Rows pass through a buffer of 100 rows: whenever half of the buffer leaves, a row stays with probability 1/2."""
    blocks = [Block(np.arange(i, i + 10.0)[:, None]) for i in range(0, 10_000, 10)]
    out = Block.joined(list(_streams._mixed(blocks, 100, np.random.default_rng(0)))).x[:, 0]
    assert_array_equal(np.sort(out), np.arange(10_000.0))
    stays = (np.arange(10_000) - out + 100)[100:9800]  # the rows that enter while a row stays
    assert stays.min() >= 1
    assert stays.mean() == pytest.approx(100, rel=0.05)
    assert (stays > 200).mean() == pytest.approx(0.5**4 * 1.5, rel=0.25)  # rows leave by fifties
    assert len(np.unique(out[5000:5050] // 50)) >= 4
    # Of two neighbouring rows, the earlier one leaves first in about half of the orders.
    turns = 0
    for seed in range(200):
        out = Block.joined(list(_streams._mixed(blocks[:20], 100, np.random.default_rng(seed)))).x[:, 0]
        turns += np.flatnonzero(out == 50.0)[0] < np.flatnonzero(out == 51.0)[0]
    assert 70 < turns < 130


def test_parts_come_in_random_order(tmp_path):
    x = streams.rows(5000)[0]
    streams.write_parquet(tmp_path / "t", x, group=100)
    stream = hr.rows.parquet(tmp_path / "t", buffer=50)
    data, _ = _streams.StreamRows(stream, 3, 0, None, False, False).split(None, np.random.default_rng(0), None)
    first = next(data.batches(np.random.default_rng(0), [0, 200, 5000])).x
    places = np.searchsorted(x[:, 1][np.argsort(x[:, 1])], first[:, 1])
    rows = np.argsort(x[:, 1])[places]
    assert len(np.unique(rows // 100)) <= 6
    assert np.ptp(rows) > 1000


# --- fits of more rows than the buffer holds --------------------------------------------------------------------------


def same_order(monkeypatch, x, orders):
    """Record the order of rows in fits of streams, and let fits of arrays repeat this order."""
    number = {value: i for i, value in enumerate(x[:, 1])}
    of_stream = _streams.StreamRun.batches

    def noted(self):
        for index in of_stream(self):
            orders.append(np.array([number[value] for value in self.data.x[:, 1]]))
            yield index

    def repeated(self):
        for _ in range(len(self.bounds) - 1):
            yield orders.pop(0)

    monkeypatch.setattr(_streams.StreamRun, "batches", noted)
    monkeypatch.setattr(_run.ArrayRun, "batches", repeated)


@SOURCES
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize(("context", "weighted"), KINDS)
def test_steps_of_a_stream_are_those_of_arrays_in_that_order(source, dtype, context, weighted, tmp_path, monkeypatch):
    """Losses and parameters have equal bits without weights; with weights, whose sum is rounded, they are close."""
    x, conditions, weights = streams.rows(1500, dtype, context, weighted)
    flow = small(dtype, context=context)
    flow.fit(x, conditions, weights=weights, epochs=1, **QUIET)  # standardises both flows alike
    other = copy.copy(flow)
    orders = []
    same_order(monkeypatch, x, orders)
    stream = source(tmp_path, x, conditions, weights, 400)
    settings = {"epochs": 3, "batch_size": 100, "seed": 2, "weight_decay": "auto"}
    got = history_of(other, stream, **settings)
    assert orders
    want = history_of(flow, x, conditions, weights=weights, **settings)
    assert not orders
    if weighted:
        assert_allclose(got[0] + got[1], want[0] + want[1], rtol=1e-12 if dtype == "float64" else 1e-6)
        assert_allclose(other.parameters, flow.parameters, atol=1e-9 if dtype == "float64" else 1e-4)
    else:
        assert got == want
        assert_array_equal(flow.parameters, other.parameters)


@pytest.mark.parametrize("kind", ["share", "rows", "stream", "none"])
def test_held_out_rows_of_any_kind(kind, monkeypatch):
    x, own = streams.rows(1500)[0], streams.rows(200)[0]
    flow = small()
    flow.fit(x, epochs=1, **QUIET)
    other = copy.copy(flow)
    same_order(monkeypatch, x, [])
    validation = {"share": 0.2, "rows": own, "stream": own, "none": None}[kind]
    given = hr.rows.blocks([own[:50], own[50:]]) if kind == "stream" else validation
    got = history_of(other, hr.rows.blocks([x], buffer=400), epochs=2, validation=given)
    assert got == history_of(flow, x, epochs=2, validation=validation)
    assert_array_equal(flow.parameters, other.parameters)


def test_a_fresh_flow_of_a_stream_is_as_good_as_of_an_array():
    """Fits of a stream and of an array start alike; other batches change the density of new rows by some hundredths."""
    x, new = streams.rows(6000)[0], streams.rows(3000)[0]
    reached = []
    for given in (x, hr.rows.blocks([x], buffer=1000)):
        flow = hr.MAF(3, transforms=2, hidden=(16,), link="linear")
        flow.fit(given, epochs=15, **QUIET)
        reached.append(flow.log_prob(new).mean(dtype=float))
        assert_allclose(flow.transforms[-1].mean, x.mean(axis=0), atol=0.05)
    assert abs(reached[0] - reached[1]) < 0.05


def test_act_norms_start_from_rows_of_the_stream():
    x = streams.rows(3000)[0]
    flows = [hr.Flow([hr.transforms.ActNorm(3), hr.transforms.MaskedAutoregressive(3)]) for _ in range(2)]
    for flow, given in zip(flows, (x, hr.rows.blocks([x], buffer=500)), strict=True):
        flow.fit(given, epochs=0, **QUIET)
    for name, value in flows[0].named_parameters().items():
        assert_allclose(flows[1].named_parameters()[name], value, rtol=1e-5, atol=1e-6)


def test_the_gaussian_start_of_a_stream_is_that_of_an_array(monkeypatch):
    """Gaussians of a stream and of an array are fitted to the same rows, at most 65,536, and agree up to rounding; a
    flow that does not become better than its Gaussian ends as the Gaussian.
    """
    monkeypatch.setattr(_start, "_is_kept", lambda *_: False)
    monkeypatch.setattr(_plan, "STEPS", 10)
    monkeypatch.setattr(_plan, "LEAST_EPOCHS", 1)
    x = streams.rows(3000)[0]
    flow, other = small("float64"), small("float64")
    flow.fit(x, **QUIET)
    history = other.fit(hr.rows.blocks([x], buffer=700), **QUIET)
    assert history.gaussian
    assert len(flow.transforms) == len(other.transforms) == 5
    assert_allclose(other.log_prob(x), flow.log_prob(x), rtol=1e-6)


def test_too_few_held_out_rows_give_a_warning_because_a_stream_is_not_cross_validated(monkeypatch):
    monkeypatch.setattr(_run.ArrayRun, "one_pass", lambda self: 0.0)
    monkeypatch.setattr(_streams.StreamRun, "one_pass", lambda self: 0.0, raising=False)
    x = streams.rows(300)[0]
    with pytest.warns(RuntimeWarning, match="30 held-out rows are too few to judge by"):
        small().fit(hr.rows.blocks([x], buffer=100), patience=1, **QUIET)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    x = streams.rows(2000)[0]
    found = []
    for seed in (3, 3, 4):
        flow = small()
        flow.fit(hr.rows.blocks([x[:700], x[700:]], buffer=500), epochs=2, seed=seed, **QUIET)
        found.append(flow.parameters)
    assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_ensembles_ascents_and_estimators_take_streams():
    x = streams.rows(3000)[0]
    stream = hr.rows.blocks([x[:1000], x[1000:]], buffer=800)
    ensemble = hr.Ensemble([small(seed=i) for i in range(2)])
    assert len(ensemble.fit(stream, epochs=1, **QUIET)) == 2
    alone = small(seed=1)
    alone.fit(stream, epochs=1, seed=1, **QUIET)
    assert_array_equal(ensemble[1].parameters, alone.parameters)
    with pytest.raises(TypeError, match="x: expected an array"):
        ensemble.fit(stream, bootstrap=True)
    with pytest.warns(RuntimeWarning, match=r"800 of 3,000 rows, drawn evenly"):
        flow = hr.DualAscentFlow(steps=3, refine=False).fit(stream, **QUIET)
    some = stream.some(0)
    assert_array_equal(flow.parameters, hr.DualAscentFlow(steps=3, refine=False).fit(some.x, **QUIET).parameters)
    whole = hr.DualAscentFlow(steps=3, refine=False).fit(hr.rows.blocks([x]), **QUIET)
    assert_array_equal(whole.parameters, hr.DualAscentFlow(steps=3, refine=False).fit(x, **QUIET).parameters)


def test_an_estimator_takes_a_stream():
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    x, context, weights = streams.rows(3000, "float64", 1, True)
    settings = {"epochs": 2, "transforms": 1, "hidden": (8,), "random_state": 0}
    stream = hr.rows.memmap(x, context, weights, buffer=10_000)
    one, other = estimator(**settings), estimator(**settings)
    one.fit(stream)
    other.fit(x, sample_weight=weights, context=context)
    assert_array_equal(one.score_samples(x, context), other.score_samples(x, context))
    assert one.offset_ == other.offset_
    assert one.n_features_in_ == 3
    fitted = estimator(**settings).fit(hr.rows.memmap(x, buffer=1000))
    assert (fitted.decision_function(x) < 0).mean() == pytest.approx(0.1, abs=0.03)


# --- a fit that is stopped --------------------------------------------------------------------------------------------


def test_a_fit_of_a_stream_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    x = streams.rows(2000)[0]
    path = tmp_path / "fit.state"
    settings = {"epochs": 3, "batch_size": 100, "checkpoint": path, "checkpoint_every": 0.0, **QUIET}

    def stream():
        return hr.rows.memmap(x, buffer=300)

    want = hr.MAF(3, transforms=1, hidden=(16,), dropout=0.1)
    kept = want.fit(stream(), **settings)
    steps, find = [], _run.ArrayRun._find_gradient

    def interrupted(self, *arguments):
        steps.append(1)
        if len(steps) == 25:
            raise KeyboardInterrupt
        find(self, *arguments)

    monkeypatch.setattr(_run.ArrayRun, "_find_gradient", interrupted)
    assert hr.MAF(3, transforms=1, hidden=(16,), dropout=0.1).fit(stream(), **settings).stopped == "interrupted"
    assert path.exists()
    with pytest.raises(ValueError, match="buffer: 300 there, 301 here"):
        hr.MAF(3, transforms=1, hidden=(16,), dropout=0.1).fit(hr.rows.memmap(x, buffer=301), **settings)
    changed = x.copy()
    changed[1234, 1] += 1e-9
    with pytest.raises(ValueError, match=r"x: float64 .*checksum"):
        hr.MAF(3, transforms=1, hidden=(16,), dropout=0.1).fit(hr.rows.memmap(changed, buffer=300), **settings)
    again = hr.MAF(3, transforms=1, hidden=(16,), dropout=0.1)
    history = again.fit(stream(), **settings)
    assert history.train_loss == kept.train_loss
    assert len(steps) < 25 + 54
    assert_array_equal(again.parameters, want.parameters)
    assert not path.exists()


def test_the_bar_has_the_total_of_rows(capsys, monkeypatch):
    monkeypatch.setattr("headrace._base.progress.watched", lambda: True)
    x = streams.rows(3000)[0]
    small().fit(hr.rows.memmap(x, buffer=500), epochs=2)
    shown = capsys.readouterr().err
    assert "/3.00k" in shown  # the bar of the first pass counts all rows
    assert "/2.70k" in shown  # the bar of an epoch counts only training rows
    assert "2/2" in shown


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("known", [False, True], ids=["of unknown length", "of known length"])
def test_rows_are_read_as_often_as_the_guide_says(known, weighted, monkeypatch):
    """Before the epochs all rows are read once, or twice with weights or an unknown length, besides a first block."""
    reads, whole = [], _sources.Mapped._read
    x, _, w = streams.rows(1000, weighted=weighted)
    stream = hr.rows.memmap(x, None, w, buffer=100)
    parts = len(stream._sizes)
    assert parts > 3
    if not known:
        stream._sizes = [None] * parts

    def read(mapped, part):
        for block in whole(mapped, part):
            reads.append(part)
            yield block

    monkeypatch.setattr(_sources.Mapped, "_read", read)
    small().fit(stream, epochs=2, **QUIET)
    looks = 1 if known else 2
    assert len(reads) == looks + parts * ((2 if weighted or not known else 1) + 2)


def test_no_bar_is_shown_without_a_terminal(capsys):
    small().fit(hr.rows.memmap(streams.rows(300)[0], buffer=50), epochs=1)  # progress is on, but stderr is no terminal
    _streams.check_stream(hr.rows.memmap(streams.rows(300)[0]), None, True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda w: 0.0 * w, "weights: expected at least one number above 0, got none"),
        (lambda w: 1e300 * w, r"weights: expected a sum between 1e-300 and 1e300, got \d"),
        (lambda w: np.where(np.arange(300) == 170, -1.0, w), "weights: .* of at least 0, got -1.0 at index 170"),
    ],
    ids=["none above 0", "a huge sum", "one below 0"],
)
def test_a_stream_is_checked_for_weights_as_a_fit_checks_them(of, message):
    x, _, w = streams.rows(300, weighted=True)

    def stream(weights):
        parts = zip(streams.cut(x, (90,)), [None] * 4, streams.cut(weights, (90,)), strict=True)
        return hr.rows.blocks(list(parts), buffer=50)

    with pytest.raises(ValueError, match=message):
        _streams.check_stream(stream(of(w)), None, False)
    with pytest.raises(ValueError, match=message):
        small().fit(stream(of(w)), epochs=1, **QUIET)
    _streams.check_stream(stream(w), None, False)


def test_parts_of_a_stream():
    stream = hr.rows.blocks([streams.rows(1000)[0]], buffer=100)
    x = streams.rows(1000)[0]
    assert stream.rows is None
    assert stream.count() == stream.rows == 1000
    rest, out = stream.split(0.25, seed=1)
    assert (rest.count(), len(out)) == (900, 100)  # the buffer holds 100 rows
    together = np.concatenate([*(block.x for block in rest), out.x])
    assert_array_equal(together[np.argsort(together[:, 1])], x[np.argsort(x[:, 1])])
    assert stream.split(0.0) == (stream, None)
    assert len(stream.some()) == 100
    assert len(rest.some(0, 30)) == 30
    assert len(stream.some(0, 5000)) == 1000
    assert "1,000 rows" in repr(stream)
