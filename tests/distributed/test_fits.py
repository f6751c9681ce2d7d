"""Fits with a group have equal bits for any number of ranks and any assignment of shards, and are good fits."""

import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
import ranks
from fitting import COVARIANCE, MEAN, gaussian, gaussian_log_prob, loss_of, moments
from headrace._fit import run as _fit_run
from headrace.distributed import exact
from headrace.distributed import run as _run
from headrace.distributed.groups import local
from headrace.distributed.run import Chunks
from headrace.distributed.shards import opened
from pairs import pairwise
from ranks import ASSIGNMENTS, CHUNK, FITS, ROWS, SIZES, cut, digest, fitted, on_ranks, together

ALL = range(len(SIZES))
_want = {}


@pytest.fixture(autouse=True)
def chunks():
    with ranks.small_chunks():
        yield


def want(name, dtype):
    if (name, dtype) not in _want:
        _want[name, dtype] = digest(fitted(name, dtype, local(), ALL))
    return _want[name, dtype]


@pairwise(name=list(FITS), assignment=[name for name in ASSIGNMENTS if name != "one"], dtype=["float32", "float64"])
def test_bits_do_not_depend_on_ranks(name, assignment, dtype):
    found = together(ASSIGNMENTS[assignment], lambda group, mine: digest(fitted(name, dtype, group, mine)))
    assert found == [want(name, dtype)] * len(found)


def test_bits_depend_on_shards():
    flow, other = (hr.MAF(3, hidden=(8,)) for _ in range(2))
    flow.fit(ranks.rows(), group=local(), epochs=1, **ranks.BATCH)  # one shard
    other.fit(cut(ranks.rows(), ALL), group=local(), epochs=1, **ranks.BATCH)
    assert (flow.parameters != other.parameters).any()
    assert abs(loss_of(flow, ranks.rows()) - loss_of(other, ranks.rows())) < 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_batches_take_the_steps_of_a_plain_fit(dtype):
    """If all rows are in one batch, no rows are chosen, and fits differ only by roundings of sums and of standardised
    columns."""
    arguments = {"epochs": 4, "batch_size": ROWS, "validation": None, "average": None, "progress": False}
    x, w, c = ranks.rows(), ranks.weights(), ranks.context()
    plain, shared = (hr.MAF(3, 2, 2, (12,), dtype=dtype) for _ in range(2))
    history = plain.fit(x, c, weights=w, **arguments)
    other = shared.fit(cut(x, ALL), cut(c, ALL), weights=cut(w, ALL), group=local(), **arguments)
    assert len(history.train_loss) == 4
    assert_allclose(other.train_loss, history.train_loss, rtol={"float32": 1e-5, "float64": 1e-12}[dtype])
    # Adam divides by the size of a gradient, so that a gradient near 0 makes rounding errors large in float32.
    assert_allclose(shared.parameters, plain.parameters, rtol=0, atol={"float32": 2e-3, "float64": 1e-9}[dtype])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_standardised_by_all_ranks(weighted):
    x, w = 1e6 + ranks.rows(), ranks.weights() if weighted else None
    given = {} if w is None else {"weights": w}

    def work(group, mine):
        flow = hr.MAF(3, hidden=(8,))
        own = {name: cut(one, mine) for name, one in given.items()}
        flow.fit(cut(x, mine), group=group, epochs=0, validation=None, progress=False, **own)
        last = flow.transforms[-1]
        return np.stack([last.mean, last.std])

    for found in together(ASSIGNMENTS["two"], work):
        assert_allclose(found, moments(x, w), rtol=1e-12)


def test_a_fit_finds_the_density():
    flow = hr.MAF(3, hidden=(16,))
    rows = gaussian(4000, "shared")
    parts = dict(enumerate(np.array_split(rows, 5)))
    history = flow.fit(parts, group=local(), epochs=15, batch_size=4 * CHUNK, progress=False)
    new = gaussian(2000, "new")
    assert loss_of(flow, new) < -gaussian_log_prob(new, MEAN, COVARIANCE).mean() + 0.05
    assert history.judged_by == "held-out rows"
    assert history.best_loss == min(history.validation_loss)


def test_rows_held_out_are_the_share_asked_for_and_no_training_rows():
    table = opened(local(), 3, 0, hr.MAF(3)._caller(), cut(ranks.rows(), ALL), seed=4)
    from headrace.distributed.shards import split

    train, judge = split(table, 0.25, hr.MAF(3)._caller())
    assert judge.size == round(0.25 * ROWS) == ROWS - train.size
    seen = [row for part in (train, judge) for shard in part.shards for row in shard.first + shard.part.all()]
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize("batch_rows", [1, CHUNK - 1, CHUNK, 5 * CHUNK, 10 * ROWS])
def test_an_epoch_takes_every_row_once(batch_rows):
    table = opened(local(), 3, 0, hr.MAF(3)._caller(), cut(ranks.rows(), ALL))
    of = Chunks(table, min(batch_rows, ROWS))
    for epoch in (0, 1):
        batches = list(of.epoch(epoch))
        assert len(batches) == of.batches
        rows = []
        for chunk in (chunk for batch in batches for chunk in batch):
            assert 0 < chunk.end - chunk.begin <= CHUNK
            order = of.order_of(chunk.shard, epoch)
            rows += [ranks.FIRST[chunk.shard] + int(i) for i in order[chunk.begin : chunk.end]]
        assert sorted(rows) == list(range(ROWS))
        sizes = [sum(chunk.end - chunk.begin for chunk in batch) for batch in batches]
        assert max(sizes) <= 2 * min(batch_rows, ROWS)
    first, second = ([chunk.number for batch in of.epoch(epoch) for chunk in batch] for epoch in (0, 1))
    assert first != second or of.batches == 1


def test_chunks_of_many_rows_take_little_memory_and_time():
    """A chunk is a pair of indices: a billion rows are two million chunks of 512 rows each."""
    taken = np.full(300, 65_536)
    table = SimpleNamespace(taken=taken, size=int(taken.sum()), seed=0)
    tracemalloc.start()
    try:
        of = Chunks(table, 64 * CHUNK)
        assert of.count == 300 * 65_536 // CHUNK
        first = next(of.epoch(0))
        assert len(first) == 64
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 30 * of.count  # at most 30 bytes a chunk
    numbers = np.array([0, 2047, 2048, of.count - 1])
    for number, chunk in zip(numbers.tolist(), of.some(numbers), strict=True):
        assert chunk.number == number
        assert (chunk.shard, chunk.begin) == divmod(number * CHUNK, 65_536)
        assert chunk.end - chunk.begin == CHUNK


def test_ranks_with_neighbouring_shards_share_every_batch():
    """Every batch has a chunk for each rank, because shards are equally large."""
    x = np.zeros((8 * 160, 3))
    table = opened(local(), 3, 0, hr.MAF(3)._caller(), {i: x[160 * i : 160 * i + 160] for i in range(8)})
    of = Chunks(table, 2 * CHUNK)
    assert of.of_a_batch == 2
    for batch in of.epoch(0):
        assert sorted(chunk.shard // 4 for chunk in batch) == [0, 1]


# ---- the exponent ----------------------------------------------------------------------------------------------------


def test_gradients_that_grow_too_fast_are_summed_once_more(monkeypatch):
    """Exponents leave room for gradients to grow by 2^7; in this test exponents are 9 too large for most steps."""
    right = fitted("MAF", "float64", local(), ALL)[0].parameters
    redone, largest, whole = [], _run.SharedRun._largest, _run.SharedRun._find_gradient_of
    monkeypatch.setattr(_run.SharedRun, "_largest", lambda *arguments: redone.append(1) or largest(*arguments))
    monkeypatch.setattr(_run.SharedRun, "_find_gradient_of", lambda *arguments: whole(*arguments) + 9)
    flow, history = fitted("MAF", "float64", local(), ALL)
    assert len(redone) > 10
    found = together(ASSIGNMENTS["two"], lambda group, mine: digest(fitted("MAF", "float64", group, mine)))
    assert found == [digest((flow, history))] * 2
    assert_allclose(flow.parameters, right, rtol=0, atol=1e-7)


def test_the_exponent_is_known_beforehand(monkeypatch):
    redone, whole = [], _run.SharedRun._largest
    monkeypatch.setattr(_run.SharedRun, "_largest", lambda *arguments: redone.append(1) or whole(*arguments))
    fitted("MAF", "float32", local(), ALL)
    assert len(redone) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_the_fit_on_all_ranks():
    def work(group, mine):
        flow = hr.MAF(3, hidden=(8,), dtype="float32")
        history = flow.fit(
            cut(ranks.rows(), mine), group=group, epochs=20, learning_rate=1e30, clip=None, **ranks.BATCH
        )
        return history.stopped, digest((flow, history))

    found = together(ASSIGNMENTS["three"], work)
    assert found[0][0] == "non-finite"
    assert found[0] == found[1] == found[2]


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_a_step_sends_eight_bytes_a_weight():
    sent = {}

    def work(group, mine):
        flow = hr.MAF(3, hidden=(8,))
        flow.fit(cut(ranks.rows(), mine), group=group, epochs=1, validation=None, **ranks.BATCH)
        sent[group.rank] = group.sent
        return flow.parameters.size

    size = together(ASSIGNMENTS["two"], work)[0]
    step = 8 * (size + exact.DIGITS + 1)
    batches = -(-sum(-(-rows // CHUNK) for rows in SIZES) // 3)
    assert sent[0].count(step) == batches
    assert sent[0] == sent[1]


# ---- the state of a fit in a file ------------------------------------------------------------------------------------


class Killed(BaseException):
    """An exception that stands for the end of the process, such as a kill."""


@pairwise(name=["MAF", "staged decay", "dropout"], assignment=["one", "an empty one"], dtype=["float32", "float64"])
def test_a_fit_goes_on_from_any_step_on_other_ranks(name, assignment, dtype, tmp_path, monkeypatch):
    path, whole, steps = tmp_path / "fit.state", _fit_run.Adam.step, []

    def step(adam, gradient):
        if len(steps) == 17:
            raise Killed
        steps.append(1)
        return whole(adam, gradient)

    monkeypatch.setattr(_fit_run.Adam, "step", step)
    with pytest.raises(Killed):
        fitted(name, dtype, local(), ALL, checkpoint=path, checkpoint_every=0.0)
    monkeypatch.setattr(_fit_run.Adam, "step", whole)
    assert path.exists()
    kept = {"checkpoint": path, "checkpoint_every": 0.0}
    found = together(ASSIGNMENTS[assignment], lambda group, mine: digest(fitted(name, dtype, group, mine, **kept)))
    assert found == [want(name, dtype)] * len(found)
    assert not path.exists()


@pytest.mark.parametrize("who", [0, 1, "both"])
def test_ranks_with_files_of_their_own_go_on_from_the_newest(who, tmp_path, monkeypatch):
    right = want("MAF", "float32")
    whole, steps, stop = _fit_run.Adam.step, [], {"after": math.inf}

    def step(adam, gradient):
        if len(steps) >= stop["after"]:
            raise Killed
        steps.append(1)
        return whole(adam, gradient)

    def kept(rank):
        return {"checkpoint": _run.OwnFile(str(tmp_path / f"{rank}.state")), "checkpoint_every": 0.0}

    monkeypatch.setattr(_fit_run.Adam, "step", step)
    for rank, after in {0: [(0, 17)], 1: [(1, 17)], "both": [(0, 7), (1, 17)]}[who]:
        stop["after"] = len(steps) + after
        with pytest.raises(Killed):
            fitted("MAF", "float32", local(), ALL, **kept(rank))
    stop["after"], before = math.inf, len(steps)
    found = together(
        ASSIGNMENTS["two"], lambda group, mine: digest(fitted("MAF", "float32", group, mine, **kept(group.rank)))
    )
    assert found == [right] * 2
    taken = len(steps) - before
    steps.clear()
    fitted("MAF", "float32", local(), ALL)
    assert taken == 2 * (len(steps) - 17)
    assert not list(tmp_path.iterdir())


def test_the_state_of_another_fit_is_refused_on_all_ranks(tmp_path, monkeypatch):
    path, whole = tmp_path / "fit.state", _fit_run.Adam.step
    monkeypatch.setattr(
        _fit_run.Adam,
        "step",
        lambda *arguments: (_ for _ in ()).throw(Killed()) if path.exists() else whole(*arguments),
    )
    with pytest.raises(Killed):
        fitted("MAF", "float32", local(), ALL, checkpoint=path, checkpoint_every=0.0)
    monkeypatch.setattr(_fit_run.Adam, "step", whole)
    found = on_ranks(
        2, lambda group: fitted("MAF", "float32", group, ASSIGNMENTS["two"][group.rank], checkpoint=path, seed=1)
    )
    assert all(isinstance(one, ValueError) and "seed: 0 there, 1 here" in str(one) for one in found), found


def test_each_chunk_has_dropout_of_its_own():
    seeds = []
    run = _run.SharedRun.__new__(_run.SharedRun)
    run.drops, run.table = True, opened(local(), 3, 0, hr.MAF(3)._caller(), cut(ranks.rows(), ALL))
    chunks = Chunks(run.table, CHUNK)
    for chunk in chunks.some(np.arange(chunks.count)):
        seeds += [run._dropout_of(chunk, epoch) for epoch in (0, 1)]
    assert len(set(seeds)) == len(seeds)


def test_shards_cover_a_table():
    x = np.arange(23.0).reshape(-1, 1)
    found = [hr.distributed.shards(x, ranks.Rank(rank, 3, None, None), rows=4) for rank in range(3)]
    assert sorted(n for part in found for n in part) == list(range(6))
    assert_array_equal(np.concatenate([part for of in found for part in of.values()]), x)
    assert np.shares_memory(found[0][0], x)
    assert hr.distributed.shards(x[:0], local()) == {}


def frames(x, names, mine):
    """The shards of this rank as frames, except for the last shard of the table, which is an array."""
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    found = cut(x, mine)
    return {n: part if n == 5 else pd.DataFrame(part, columns=names) for n, part in found.items()}


@pytest.mark.parametrize("name", ["two", "an empty one", "three"])
def test_all_ranks_have_the_names_of_frames(name):
    """Even a rank without a frame has the names of columns; the bits are those of a fit to arrays."""

    def work(group, mine):
        flow = hr.MAF(3, 2, hidden=(8,))
        context = frames(ranks.context(), ["u", "v"], mine)
        flow.fit(frames(ranks.rows(), list("abc"), mine), context, group=group, epochs=1, **ranks.BATCH)
        return flow.feature_names, flow.context_names, flow.parameters.tobytes()

    plain = hr.MAF(3, 2, hidden=(8,))
    plain.fit(cut(ranks.rows(), ALL), cut(ranks.context(), ALL), group=local(), epochs=1, **ranks.BATCH)
    found = together(ASSIGNMENTS[name], work)
    assert found == [(("a", "b", "c"), ("u", "v"), plain.parameters.tobytes())] * len(found)
    assert plain.feature_names is None


def test_frames_of_other_names_are_refused_on_all_ranks():
    def of_ranks(names, flow_names=3):
        def work(group, mine):
            flow, own = hr.MAF(flow_names, hidden=(8,)), names[group.rank]
            try:
                flow.fit(frames(ranks.rows(), own, mine), group=group, epochs=1, **ranks.BATCH)
            except ValueError as error:
                return str(error)

        return together(ASSIGNMENTS["two"], work)

    for message in of_ranks([list("abc"), list("acb")]):
        assert "x: expected the columns of the fit in their order, 'a', 'b', 'c', got them in the order" in message
    for message in of_ranks([list("abc")] * 2, ["a", "b", "d"]):
        assert "x of shard" in message
        assert "without 'd' and with 'c'" in message


def test_an_ascent_of_a_group_has_names():
    def work(group, mine):
        model = hr.DualAscentFlow(steps=2, refine=False)
        flow = model.fit(frames(ranks.rows(), list("abc"), mine), group=group, progress=False)
        return flow.feature_names

    assert together(ASSIGNMENTS["two"], work) == [("a", "b", "c")] * 2
