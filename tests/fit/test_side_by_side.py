"""Several fits at a time, each in a thread: the bits of a loop of fits, one bar, Ctrl-C, errors and warnings."""

import sys
import threading

import numpy as np
import pytest

import cases
import headrace as hr
from fitting import QUIET, gaussian, small
from headrace._core import cpu
from headrace._fit import run as _run
from headrace._fit import side_by_side
from headrace._fit.clock import Clock
from headrace._fit.side_by_side import threads_side_by_side
from interrupts import ctrl_c
from terminal import Stream

pytestmark = pytest.mark.filterwarnings("ignore:fit. no epoch:RuntimeWarning", "ignore:flows.*no epoch:RuntimeWarning")
SHORT = QUIET | {"epochs": 3}


@pytest.fixture(autouse=True)
def _tiny_flows_side_by_side(monkeypatch):
    """Let even flows of few parameters be fitted in several threads."""
    monkeypatch.setattr(side_by_side, "TINY", 0)


def state(flow):
    return hr.to_bytes(flow)


def members():
    return [small(seed=i) for i in range(3)]


def many():
    """Flows and tables of different sizes, dtypes and classes."""
    rng = cases.rng("many")
    flows = [
        hr.MAF(2, transforms=2, hidden=(8,)),
        hr.NSF(3, context=2, transforms=1, hidden=(8,), dtype="float64"),
        hr.RealNVP(4, transforms=2, hidden=(8,), bounds=[(0.0, None)] + 3 * [None]),
        hr.MAF(1, transforms=1, hidden=(8,)),
    ]
    tables = [
        rng.standard_normal((700, 2)).astype("f4"),
        (rng.standard_normal((300, 3)), rng.standard_normal((300, 2)), rng.random(300)),
        (np.abs(rng.standard_normal((120, 4))),),
        rng.standard_normal((200, 1)),
    ]
    return flows, tables


def one_after_another(flows, tables, **settings):
    found = []
    for flow, table in zip(flows, tables, strict=True):
        x, *others = table if isinstance(table, tuple) else (table,)
        found.append(flow.fit(x, **dict(zip(("context", "weights"), others, strict=False)), **settings))
    return found


@pytest.fixture
def together(monkeypatch):
    """Let two fits wait for each other at their first epochs."""
    met, passed, here = threading.Barrier(2), _run.ArrayRun.one_pass, threading.local()

    def one_pass(self):
        if not hasattr(here, "was"):
            here.was = met.wait(timeout=60)
        return passed(self)

    monkeypatch.setattr(_run.ArrayRun, "one_pass", one_pass)


def test_members_have_the_bits_of_fits_in_turn(set_threads):
    x, flows = gaussian(600), members()
    want = [flow.fit(x, seed=4 + i, **SHORT) for i, flow in enumerate(flows)]
    for threads in (1, 2, 3):
        ensemble = hr.Ensemble(members())
        set_threads(threads)
        histories = ensemble.fit(x, seed=4, **SHORT)
        assert hr.get_num_threads() == threads
        for history, expected in zip(histories, want, strict=True):
            assert history.validation_loss == expected.validation_loss
        assert [state(flow) for flow in ensemble] == [state(flow) for flow in flows]


@pytest.mark.costly
@pytest.mark.usefixtures("one_mixture")
def test_many_fits_have_the_bits_of_fits_in_turn(set_threads):
    """Fits in several threads have the bits of fits in turn, with curves, few rows, context, weights and bounds."""
    others, tables = many()
    settings = QUIET | {"patience": 2, "batch_size": 256}
    want = one_after_another(others, tables, **settings)
    for threads in (1, 2, 4):
        flows, _ = many()
        set_threads(threads)
        histories = hr.fit_many(flows, iter(tables), **settings)
        for history, expected in zip(histories, want, strict=True):
            assert (history.train_loss, history.judged_by) == (expected.train_loss, expected.judged_by)
        assert [state(flow) for flow in flows] == [state(flow) for flow in others]


@pytest.mark.usefixtures("together")
def test_two_fits_run_at_a_time(set_threads):
    """Two fits that wait for each other end; in a loop the first fit would wait in vain."""
    set_threads(2)
    hr.Ensemble(members()[:2]).fit(gaussian(300), **SHORT)


def test_a_table_is_asked_for_when_a_thread_is_free(set_threads):
    asked, ended, held = 0, 0, []

    class Counted(hr.MAF):
        def fit(self, *given, **more):
            nonlocal ended
            history = super().fit(*given, **more)
            ended += 1
            return history

    def tables():
        nonlocal asked
        for i in range(6):
            held.append(asked - ended)
            asked += 1
            yield gaussian(100, i)

    set_threads(2)
    hr.fit_many([Counted(3, transforms=1, hidden=(8,), seed=i) for i in range(6)], tables(), **SHORT)
    assert (asked, ended) == (6, 6)
    assert max(held) <= 1  # no more than one earlier table is in memory


def test_the_last_fit_takes_the_threads_that_others_have_left(monkeypatch, set_threads):
    found, passed = {}, _run.ArrayRun.one_pass

    def one_pass(self):
        found.setdefault(id(self.flow), []).append(cpu.num_threads())
        return passed(self)

    monkeypatch.setattr(_run.ArrayRun, "one_pass", one_pass)
    set_threads(2)
    short, long = small(seed=0), small(seed=1)
    hr.fit_many([short, long], [gaussian(60), gaussian(20000)], epochs=8, validation=None, **QUIET)
    assert set(found[id(short)]) == {1}
    assert found[id(long)][0] == 1
    assert found[id(long)][-1] == 2


def test_the_number_of_fits_at_a_time(set_threads):
    set_threads(8)
    large = [hr.MAF(2, hidden=(512,), seed=i) for i in range(4)]
    assert threads_side_by_side(members()) == 3
    assert threads_side_by_side(large) == 4
    assert threads_side_by_side(large[:3]) == 1
    assert threads_side_by_side(members()[:1]) == 1
    assert threads_side_by_side(members(), in_turn=True) == 1


def test_tiny_flows_go_one_after_another(monkeypatch, set_threads):
    set_threads(8)
    middle = [hr.MAF(4, hidden=(64, 64), seed=i) for i in range(2)]
    least = max(flow.parameters.size for flow in members())
    assert least < middle[0].parameters.size
    for tiny, found in ((least, 3), (least + 1, 1)):
        monkeypatch.setattr(side_by_side, "TINY", tiny)
        assert threads_side_by_side(members()) == found
        assert threads_side_by_side([*members(), *middle]) == 5


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_leaves_all_flows_as_they_were(threads, monkeypatch, set_threads):
    set_threads(threads)
    flows, tables = members(), [gaussian(400, i) for i in range(3)]
    before = [state(flow) for flow in flows]
    calls = ctrl_c(monkeypatch, _run.ArrayRun, "_finish_epoch", lambda run, epoch, loss: epoch == 2)
    with pytest.raises(KeyboardInterrupt):
        hr.fit_many(flows, tables, epochs=500, **QUIET)
    assert calls
    assert [state(flow) for flow in flows] == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("headrace")]


def test_ctrl_c_keeps_members_with_better_weights(monkeypatch, set_threads):
    set_threads(2)
    ensemble = hr.Ensemble([small(seed=i, transforms=2) for i in range(4)])
    before = [state(flow) for flow in ensemble]
    better = threading.Barrier(2)

    def when(run, epoch, loss):
        if epoch == 4:
            better.wait(timeout=60)  # now both members have better weights than at their start
        return epoch == 4

    ctrl_c(monkeypatch, _run.ArrayRun, "_finish_epoch", when)
    x = np.exp(gaussian(2000) / 2.0)
    with pytest.warns(RuntimeWarning, match="interrupted with 2 of 4 members not fitted"):
        histories = ensemble.fit(x, epochs=500, learning_rate=1e-2, **QUIET)
    assert [history.stopped for history in histories] == ["interrupted"] * 2
    after = [state(flow) for flow in ensemble]
    assert after[2:] == before[2:]
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_names_the_flow_and_leaves_all_as_they_were(threads, set_threads):
    set_threads(threads)
    flows, tables = members(), [gaussian(200), gaussian(200), gaussian(200)]
    tables[1][7, 1] = np.nan
    before = [state(flow) for flow in flows]
    with pytest.raises(
        ValueError, match=r"^flows\[1\], tables\[1\]: x: expected finite numbers, got NaN .* row 7, column 1: nan; "
    ):
        hr.fit_many(flows, tables, **SHORT)
    assert [state(flow) for flow in flows] == before
    ensemble = hr.Ensemble(flows)
    with pytest.raises(ValueError, match=r"^x: expected finite numbers"):
        ensemble.fit(tables[1], **SHORT)
    assert [state(flow) for flow in ensemble] == before


@pytest.mark.parametrize("threads", [1, 2])
def test_names_of_frames_are_undone_after_an_error(threads, set_threads):
    pandas = pytest.importorskip("pandas")
    set_threads(threads)
    flows = members()[:2]
    with pytest.raises(ValueError, match=r"^flows\[1\], tables\[1\]"):
        hr.fit_many(flows, [pandas.DataFrame(gaussian(100), columns=list("abc")), np.zeros((3, 2))], **SHORT)
    assert flows[0].feature_names is None


@pytest.mark.parametrize("threads", [1, 2])
def test_warnings_name_the_flow_and_the_caller_s_line(threads, set_threads):
    set_threads(threads)
    tables = [gaussian(300), gaussian(300)]
    tables[1][:, 2] = 5.0
    with pytest.warns(RuntimeWarning, match=r"^flows\[1\]: x: column 2 is constant") as caught:
        hr.fit_many(members()[:2], tables, **SHORT)
    assert {one.filename for one in caught} == {__file__}
    with pytest.warns(RuntimeWarning, match="^x: column 2 is constant") as caught:
        hr.Ensemble(members()[:2]).fit(tables[1], **SHORT)
    assert {one.filename for one in caught} == {__file__}


@pytest.mark.parametrize("threads", [1, 2])
def test_one_bar_for_all(threads, monkeypatch, set_threads):
    set_threads(threads)
    seen = []

    class Shown:
        n = 0.0

        def __enter__(self):
            return self

        def __exit__(self, *given):
            seen.append(self.n)

        def set_postfix_str(self, text):
            seen.append((self.n, text))

    made = []
    bar = side_by_side._progress.bar

    def faked(*given, **more):
        if given[2] == "flow":
            made.append(given)
            return Shown()
        return bar(*given, **more)

    monkeypatch.setattr(side_by_side._progress, "bar", faked)
    hr.Ensemble(members()).fit(gaussian(500), epochs=3, progress=True)
    assert made == [(3, "fit", "flow", True)]
    assert seen[-1] == 3.0
    assert any("held out" in text for _, text in seen[:-1])


def test_a_terminal_has_one_line(monkeypatch, set_threads):
    set_threads(2)
    monkeypatch.setattr(sys, "stderr", shown := Stream(tty=True))
    hr.fit_many(members(), [gaussian(200)] * 3, epochs=2)
    assert "epoch" not in shown.text
    assert "3.0/3" in shown.text
    assert shown.text.count("\n") == 1


def test_members_share_a_time_budget(set_threads):
    clock = Clock(100.0)
    clock.left = lambda: 60.0
    assert [clock.turn(i, 5, 2) for i in range(5)] == [20.0, 20.0, 30.0, 30.0, 60.0]
    assert [clock.turn(i, 3, 1) for i in range(3)] == [20.0, 30.0, 60.0]
    set_threads(2)
    histories = hr.fit_many(members(), [gaussian(300)] * 3, time_budget=1e-6, **QUIET)
    assert [history.stopped for history in histories] == ["time_budget"] * 3


def test_streams_are_read_one_at_a_time(set_threads):
    set_threads(2)
    reading, overlap = threading.Lock(), []

    class Blocks:
        def __init__(self, rows):
            self.rows = rows

        def __iter__(self):
            overlap.append(not reading.acquire(blocking=False))
            try:
                yield from np.array_split(self.rows, 4)
            finally:
                reading.release()

    tables = [gaussian(400, i) for i in range(2)]
    flows, others = members()[:2], members()[:2]
    streams = [hr.rows.blocks(Blocks(table), buffer=100) for table in tables]
    hr.fit_many(flows, streams, **SHORT)
    assert overlap
    assert not any(overlap)
    for flow, table in zip(others, tables, strict=True):
        flow.fit(hr.rows.blocks(Blocks(table), buffer=100), **SHORT)
    assert [state(flow) for flow in flows] == [state(flow) for flow in others]


REFUSED = {
    "a flow alone": (lambda f, t: hr.fit_many(f[0], t), TypeError, "flows: expected a sequence of flows"),
    "no flow": (lambda f, t: hr.fit_many([], []), ValueError, "flows: expected at least one, got none"),
    "another object": (lambda f, t: hr.fit_many([f[0], 3], t[:2]), TypeError, r"flows\[1\]: expected a flow, got int"),
    "a flow twice": (
        lambda f, t: hr.fit_many([f[0], f[1], f[0]], t),
        ValueError,
        r"flows\[2\]: expected each flow once, got that of index 0 again",
    ),
    "no tables": (lambda f, t: hr.fit_many(f, 3), TypeError, "tables: expected a sequence"),
    "fewer tables": (lambda f, t: hr.fit_many(f, t[:2]), ValueError, "tables: expected 3, one for each flow, got 2"),
    "fewer from an iterator": (lambda f, t: hr.fit_many(f, iter(t[:2]), **SHORT), ValueError, "tables: expected 3.*2"),
    "more from an iterator": (lambda f, t: hr.fit_many(f[:2], iter(t), **SHORT), ValueError, "tables: .*got more"),
    "context": (lambda f, t: hr.fit_many(f, t, context=t[0]), ValueError, "context: expected None, as each table"),
    "checkpoint": (lambda f, t: hr.fit_many(f, t, checkpoint="a"), ValueError, "checkpoint: expected None"),
    "parts": (lambda f, t: hr.fit_many(f, [(1, 2, 3, 4)] * 3), ValueError, r"flows\[0\].*: expected x, .*4 parts"),
    "a keyword": (lambda f, t: hr.fit_many(f, t, epoch=3), TypeError, r"flows\[0\].*: epoch: expected a keyword"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_arguments_of_fit_many(name):
    call, error, message = REFUSED[name]
    flows, tables = members(), [gaussian(100)] * 3
    before = [state(flow) for flow in flows]
    with pytest.raises(error, match=f"^{message}"):
        call(flows, tables)
    assert [state(flow) for flow in flows] == before
