"""The parts of a fit with a group, each compared with the plain fit's part or with a formula."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import ranks
from fitting import gaussian, loss_of
from headrace._fit import gaussian as _gaussian
from headrace._fit import given_rows as _rows
from headrace._fit import run as _fit_run
from headrace._fit.few_rows import clearly_better
from headrace._fit.given_rows import Data
from headrace._fit.history import History
from headrace._fit.run import HeldOut
from headrace._fit.source import ArrayRows
from headrace._fit.start import Start, gaussian_links, not_worse_than_a_gaussian
from headrace.distributed.groups import local
from headrace.distributed.shards import opened, split
from ranks import ASSIGNMENTS, ROWS, SIZES, cut, on_ranks, together

ALL = range(len(SIZES))


@pytest.fixture(autouse=True)
def chunks():
    with ranks.small_chunks():
        yield


def parts_of(array, *ends):
    """The shards of an array that is cut before the rows with the indices `ends`; None for None."""
    return None if array is None else dict(enumerate(np.split(array, ends)))


# ---- start of a fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ends", [(), (100, 100, 305)], ids=["one shard", "four shards"])
def test_correlations_are_those_of_a_plain_fit(ends, weighted):
    """Each shard has a multiple of five rows, so that folds of the rows are those of the plain fit."""
    x, w = gaussian(500, "folds"), ranks.weights()[:500] + 0.1 if weighted else None
    flow = hr.MAF(3, hidden=(8,), dtype="float64")
    table = opened(local(), 3, 0, flow._caller(), parts_of(x, *ends), None, parts_of(w, *ends))
    Start.of(flow, table, say=False).set(flow, table)
    standard = flow._interior.standardize
    *found, _ = gaussian_links(flow, table, ())
    true = _gaussian.decorrelating(ArrayRows(Data(x, None, w)), standard.mean, standard.std)
    assert len(found) == len(true) == 3
    z = cases.rng("decorrelated").standard_normal((50, 3))
    one, other = (hr.Flow(links, dtype="float64").to_data(z) for links in (found, true))
    assert np.abs(other[0] - z).max() > 0.5  # the columns are correlated
    for a, b in zip(one, other, strict=True):
        assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("assignment", ["one", "three"])
@pytest.mark.parametrize("weighted", [False, True])
def test_act_norms_start_as_in_a_plain_fit(weighted, assignment):
    x, c, w = ranks.rows(), ranks.context(), ranks.weights() if weighted else None

    def made():
        maf = hr.MAF(3, 2, 2, (12,), dtype="float64", seed=2)
        first, second, *rest = maf.transforms
        norms = [hr.transforms.ActNorm(3, dtype="float64") for _ in range(2)]
        flow = hr.Flow([first, norms[0], second, norms[1], *rest])
        rng = cases.rng("act norms")
        start = flow.parameters
        start[:] = np.where(start == 0.0, start, start + 0.2 * rng.standard_normal(start.size))
        flow.parameters = start  # with these parameters, transforms move rows
        return flow

    arguments = {"epochs": 0, "validation": None, "batch_size": ROWS, "progress": False}
    plain = made()
    plain.fit(x, c, weights=w, **arguments)

    def work(group, mine):
        flow = made()
        given = {} if w is None else {"weights": cut(w, mine)}
        flow.fit(cut(x, mine), cut(c, mine), group=group, **given, **arguments)
        return flow

    want = [t for t in plain.transforms if isinstance(t, hr.transforms.ActNorm)]
    assert all(t.is_started for t in want)
    for flow in together(ASSIGNMENTS[assignment], work):
        found = [t for t in flow.transforms if isinstance(t, hr.transforms.ActNorm)]
        for one, other in zip(found, want, strict=True):
            assert one.is_started
            assert_allclose(one.parameters, other.parameters, rtol=1e-9, atol=1e-12)


# ---- losses and comparisons ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["a share", "rows of one's own"])
def test_the_loss_of_held_out_rows_is_their_weighted_mean(own, weighted):
    x, c, w = ranks.rows(), ranks.context(), ranks.weights() if weighted else None
    flow = hr.MAF(3, 2, hidden=(8,), dtype="float64")
    table = opened(local(), 3, 2, flow._caller(), cut(x, ALL), cut(c, ALL), w if w is None else cut(w, ALL))
    judge_x, judge_w = ranks.rows("judge"), w
    given = 0.3
    if own:
        given = tuple(None if a is None else cut(a, ALL) for a in (judge_x, c, judge_w))
    judge = split(table, given, flow._caller())[1]
    held = HeldOut(judge)
    if own:
        true = loss_of(flow, judge_x, c, judge_w)
    else:
        at = np.concatenate([s.first + s.part.all() for s in judge.shards])
        assert 200 < len(at) < 300
        true = loss_of(flow, x[at], c[at], None if w is None else w[at])
    assert held.loss(flow) == pytest.approx(true, rel=1e-12)
    other = 0.9 * flow.parameters
    assert held.loss(flow, other) != pytest.approx(true, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_flow_has_to_beat_the_gaussian_by_the_rule_of_a_plain_fit(weighted):
    """The rule is Breiman's of one standard error, over all shards together; with more rows a smaller gain suffices."""
    rng = cases.rng("beats", weighted)
    x = rng.standard_normal((4000, 2))
    x[:, 1] += 0.1 * (x[:, 0] ** 2 - 1.0)  # the density is nearly normal
    flow = hr.MAF(2, transforms=1, hidden=(8,), dtype="float64")
    table = opened(local(), 2, 0, flow._caller(), parts_of(x, 1000, 2500))
    Start.of(flow, table, say=False).set(flow, table)
    start, links = flow._interior.vector(), gaussian_links(flow, table, ())
    flow.fit(x, epochs=15, validation=None, progress=False)
    gaussian_flow = copy.copy(flow)
    gaussian_flow._interior.rescale(links, None, _gaussian.quietened(gaussian_flow, start))
    kept = []
    for i in range(14):
        rows = np.sort(rng.choice(4000, 60 + 60 * i, replace=False))
        w = rng.uniform(0.1, 3.0, rows.size) if weighted else None
        cuts = (7, 7, rows.size // 2)
        given = parts_of(x[rows], *cuts), None, parts_of(w, *cuts)
        judge = split(table, given, flow._caller())[1]
        tried, history = copy.copy(flow), History(best_loss=1.5, best_epoch=3)
        arguments = HeldOut(judge), history, start, links, 1
        not_worse_than_a_gaussian(tried, *arguments, by_default=True, has_curves=False)
        fitted, simple = (-one.log_prob(x[rows]).astype(float) for one in (flow, gaussian_flow))
        counts = np.ones(rows.size) if w is None else w
        kept.append(clearly_better(fitted, simple, counts))
        assert history.gaussian is not kept[-1]
        if kept[-1]:
            assert (history.best_loss, history.best_epoch) == (1.5, 3)
            assert_array_equal(tried.log_prob(x[:50]), flow.log_prob(x[:50]))
        else:
            assert history.best_epoch == 0
            assert history.best_loss == pytest.approx(np.average(simple, weights=counts), rel=1e-12)
            assert_array_equal(tried.log_prob(x[:50]), gaussian_flow.log_prob(x[:50]))
    assert 2 < sum(kept) < 12  # some of the fits beat the Gaussian, and some do not


def test_an_interrupted_rank_sends_no_more_messages(monkeypatch):
    """Other ranks may be at any step, so that sums for rows held out would mix with other sums."""
    asked, at, whole = [], [], _fit_run.Adam.step

    class Group:
        rank, size = 0, 1

        def sum(self, part):
            asked.append("sum")
            return part

        def maximum(self, part):
            asked.append("maximum")
            return part

        def broadcast(self, part, root=0):
            asked.append("broadcast")
            return part

    def step(adam, gradient):
        at.append(len(asked))
        if len(at) == 30:
            raise KeyboardInterrupt
        return whole(adam, gradient)

    monkeypatch.setattr(_fit_run.Adam, "step", step)
    flow = hr.MAF(3, hidden=(8,))
    history = flow.fit(cut(ranks.rows(), ALL), group=Group(), epochs=50, **ranks.BATCH)
    assert history.stopped == "interrupted"
    assert len(history.validation_loss) == 2  # a loss for each complete epoch
    assert len(asked) == at[-1]
    assert history.best_loss == min([history.best_loss, *history.validation_loss])


# ---- dropout ---------------------------------------------------------------------------------------------------------


def test_dropout_changes_the_fit():
    """Weights, rows and order are equal in both fits, which differ only in dropout."""

    def fitted(dropout):
        flow = hr.MAF(3, hidden=(12,), dropout=dropout, seed=1)
        history = flow.fit(cut(ranks.rows(), ALL), group=local(), epochs=2, validation=None, **ranks.BATCH)
        return flow.parameters, history.train_loss

    (none, loss), (some, other) = fitted(0.0), fitted(0.5)
    assert none.shape == some.shape
    assert np.abs(none - some).max() > 1e-3
    assert other[-1] > loss[-1]  # a fit with half of the units is harder


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_drops_by_the_seed_of_its_chunk(dtype):
    """The gradient of one chunk of a batch is that of the core with the chunk's seed, which no other chunk has."""
    from headrace.distributed.run import SharedRun

    found, whole = [], SharedRun._find_gradient_in

    def spied(run, data, index, rows, log_prob, dropout):
        whole(run, data, index, rows, log_prob, dropout)
        gradients = []
        for seed in (dropout, None):
            again = np.empty_like(run.gradient)
            run.program.gradient(
                inverse=True,
                of_log_prob=True,
                input=data.x,
                index=index,
                row_scale=-1.0 / rows,
                log_prob=np.empty_like(log_prob),
                grad_weights=again,
                dropout=seed,
            )
            gradients.append(again)
        found.append((run.gradient.copy(), *gradients, dropout))

    flow = hr.MAF(3, hidden=(12,), dropout=0.5, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedRun, "_find_gradient_in", spied)
        flow.fit({0: ranks.rows()[:64]}, group=local(), epochs=2, validation=None, batch_size=32, progress=False)
    seeds = [one[3] for one in found]
    assert len(set(seeds)) == 4  # two chunks in each of two epochs; an extra gradient repeats the first seed
    for gradient, right, without, _ in found:
        assert_array_equal(gradient, right)
        assert (gradient != without).any()


# ---- checksums of rows -----------------------------------------------------------------------------------------------


def checksum(group, mine, x, c, w):
    given = cut(x, mine), cut(c, mine), None if w is None else cut(w, mine)
    return opened(group, 3, 2, hr.MAF(3, 2)._caller(), *given).fingerprint()["rows"]


def test_a_checksum_sees_every_number_and_no_rank(monkeypatch):
    monkeypatch.setattr(_rows, "CHUNK", 64)  # rows are summed by chunks, up to the last one
    x, c, w = ranks.rows(), ranks.context(), ranks.weights()
    want = checksum(local(), ALL, x, c, w)
    assert want.endswith(f" over {ROWS} rows in {len(SIZES)} shards")
    for assignment in ASSIGNMENTS.values():
        assert together(assignment, lambda group, mine: checksum(group, mine, x, c, w)) == [want] * len(assignment)
    for which, array in enumerate((x, c, w)):
        for row in (0, 199, 200, 300, ROWS - 1):
            given = [x, c, w]
            given[which] = array.copy()
            at = (row, 1) if array.ndim == 2 else row
            given[which][at] = np.nextafter(given[which][at], 5.0)
            assert checksum(local(), ALL, *given) != want
    others = [(x, c, None), (x.astype("f4").astype("f8"), c, w), (x, c[::-1], w), (x[::-1], c, w)]
    assert len({want, *(checksum(local(), ALL, *given) for given in others)}) == 5
    exact = np.round(x)
    assert checksum(local(), ALL, exact, c, w) != checksum(local(), ALL, exact.astype("f4"), c, w)


def test_a_state_of_other_rows_is_refused_on_all_ranks(tmp_path, monkeypatch):
    path, whole, x = tmp_path / "fit.state", _fit_run.Adam.step, ranks.rows()

    class Killed(BaseException):
        pass

    def step(adam, gradient):
        if path.exists():
            raise Killed
        return whole(adam, gradient)

    arguments = {"epochs": 3, "checkpoint": path, "checkpoint_every": 0.0, **ranks.BATCH}
    monkeypatch.setattr(_fit_run.Adam, "step", step)
    with pytest.raises(Killed):
        hr.MAF(3, hidden=(8,)).fit(cut(x, ALL), group=local(), **arguments)
    monkeypatch.setattr(_fit_run.Adam, "step", whole)
    other = x.copy()
    other[-1, 2] += 1.0
    for found in on_ranks(
        2,
        lambda group: hr.MAF(3, hidden=(8,)).fit(cut(other, ASSIGNMENTS["two"][group.rank]), group=group, **arguments),
    ):
        assert isinstance(found, ValueError)
        assert "(rows: " in str(found)
