"""Progress bars of work on a cluster of Dask, shown on a terminal."""

import io
import sys
import threading

import numpy as np
import pytest

import headrace as hr
from dask_cases import BATCH, CHUNKS, MAKE, SHARD, WAIT, context, dask, lazy, rows

# Dask and its libraries warn about sockets of killed workers, and about versions.
pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]


class Screen(io.StringIO):
    """A standard error stream that claims to be a terminal, or not."""

    def __init__(self, tty):
        super().__init__()
        self.isatty = lambda: tty


EITHER = pytest.mark.parametrize("tty", [True, False], ids=["a terminal", "no terminal"])


def screen_of(monkeypatch, tty):
    """Replace the standard error; a test calls this function itself, because pytest sets the stream before each
    test."""
    found = Screen(tty)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def short_fit(client, **more):
    arguments = {"client": client, "rows": SHARD, "epochs": 3, "validation": None, **BATCH, **more}
    hr.dask.fit(hr.MAF(3, hidden=(8,)), lazy(rows()), **arguments)


def short_ascent(client, **more):
    model = hr.DualAscentFlow.notes(steps=4)
    hr.dask.fit_ascent(model, lazy(rows()), client=client, rows=SHARD, **more)


@EITHER
@pytest.mark.filterwarnings("ignore:fit. a batch is")
@pytest.mark.parametrize("work", [short_fit, short_ascent])
def test_a_fit_shows_its_progress_on_a_terminal(work, tty, local_cluster, client, monkeypatch):
    screen = screen_of(monkeypatch, tty)
    texts = {short_fit: ["fit: 100%", "3/3", "epoch"], short_ascent: ["ascent: 100%", "4/4", "step", "train="]}[work]
    for cluster in (local_cluster, client):  # a cluster of threads, and a cluster of processes
        screen.truncate(0)
        work(cluster)
        shown = screen.getvalue()
        if screen.isatty():
            assert all(text in shown for text in texts), shown
        else:
            assert shown == ""
    screen.truncate(0)
    work(local_cluster, progress=False)
    assert screen.getvalue() == ""
    from headrace.dask import _bars as _shown

    assert not any(_shown._clients.values())


def test_two_fits_have_a_bar_each(monkeypatch, local_cluster):
    """Each message reaches the bar of the fit that sent it."""
    from headrace.dask import _bars as _shown

    heard = []
    monkeypatch.setattr(_shown.Shown, "hear", lambda self, message: heard.append((self.name, message["fit"])))
    monkeypatch.setattr(sys, "stderr", Screen(True))
    threads = [threading.Thread(target=short_ascent, args=(local_cluster,), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len({name for name, _ in heard}) == 2
    assert all(name == fit for name, fit in heard)


def test_a_bar_starts_over_with_a_fit_that_begins_again(monkeypatch):
    from headrace.dask import _bars as _shown

    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    one = _shown.Shown("name")

    def hear(rank, bar, n, closed=False):
        made = {"total": 10, "desc": f"fit {rank}{bar}", "unit": "epoch"}
        one.hear({"rank": rank, "bar": bar, "made": made, "n": n, "postfix": "train=1.5", "closed": closed})

    hear("a", 1, 4)
    hear("a", 1, 7)  # the bar shows its latest message
    one.draw()
    hear("b", 2, 10, closed=True)  # bar 2 of rank b ends, and bar 3 begins, before bar 2 is drawn
    hear("b", 3, 2)
    one.draw()
    one.draw()
    one.close()
    lines = [line for line in screen.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    last = {name: [line for line in lines if line.startswith(name)][-1] for name in ("fit a1", "fit b2", "fit b3")}
    assert "7/10" in last["fit a1"]
    assert "10/10" in last["fit b2"]
    assert "2/10" in last["fit b3"]
    assert "train=1.5" in last["fit b3"]
    assert "4/10" not in screen.getvalue()


@EITHER
@pytest.mark.parametrize("where", ["a cluster", "this process"])
def test_scores_show_their_rows(where, tty, local_cluster, monkeypatch):
    screen = screen_of(monkeypatch, tty)
    flow, x = MAKE["MAF"]("float32"), rows("float32")
    given = flow, lazy(x), context()
    if where == "a cluster":
        with local_cluster.as_current():
            found = hr.dask.log_prob(*given, progress=True)
    else:
        with dask.config.set(scheduler="threads"):
            found = hr.dask.log_prob(*given, progress=True)
    shown = screen.getvalue()
    if screen.isatty():
        assert "log_prob: 100%" in shown
        assert "3.00k/3.00k" in shown
        assert "row/s" in shown
    else:
        assert shown == ""
    assert found.chunks == (CHUNKS,)
    scores = found.compute(scheduler=local_cluster if where == "a cluster" else "threads")
    np.testing.assert_array_equal(scores, flow.log_prob(x, context()))


@EITHER
def test_scores_of_frames_show_their_parts_and_errors_come_through(tty, local_cluster, monkeypatch):
    screen = screen_of(monkeypatch, tty)
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    import dask.dataframe as dd

    flow = hr.MAF(3, hidden=(8,))
    frame = dd.from_pandas(pd.DataFrame(rows(), columns=list("abc")), npartitions=5)
    with local_cluster.as_current():
        found = hr.dask.log_prob(flow, frame, progress=True)
        np.testing.assert_array_equal(found.compute(), flow.log_prob(rows()))
        assert ("5/5" in screen.getvalue()) == screen.isatty()
        bad = lazy(rows()).map_blocks(lambda block: 1 / len(block) * block, dtype=float, meta=np.empty((0, 3)))
        with pytest.raises(ZeroDivisionError):
            hr.dask.log_prob(flow, bad, progress=True)


def test_messages_of_a_fit_arrive_while_another_fit_of_its_client_ends(monkeypatch):
    from headrace.dask import _bars as _shown

    class Client:
        """A client whose last finished call, to subscribe or to unsubscribe, decides whether it hears messages."""

        heard = True

        def subscribe_topic(self, topic, handler):
            self.heard = True

        def unsubscribe_topic(self, topic):
            ending.set()
            begun.wait(0.2)  # meanwhile the other fit begins, unless it has to wait
            self.heard = False

    client, ending, begun = Client(), threading.Event(), threading.Event()
    heard = []

    def first():
        with _shown.shown(client, "first", True):
            pass

    def second():
        ending.wait(WAIT)
        with _shown.shown(client, "second", True):
            begun.set()
            thread.join(WAIT)
            heard.append(client.heard)

    monkeypatch.setattr(sys, "stderr", Screen(True))
    monkeypatch.setattr(_shown._progress, "watched", lambda: True)
    thread, other = (threading.Thread(target=work, daemon=True) for work in (first, second))
    other.start()
    thread.start()
    other.join(WAIT)
    assert heard == [True]
