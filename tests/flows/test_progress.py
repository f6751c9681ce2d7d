"""Long calls show bars on a terminal and in a notebook alone; Ctrl-C keeps the finished part."""

import sys

import numpy as np
import pytest

import headrace as hr
from headrace._base import progress as _progress
from terminal import Stream

X = np.random.default_rng(0).standard_normal((300, 2))


CALLS = {
    "fit": (lambda p: hr.MAF(2, hidden=(8,)).fit(X, epochs=2, progress=p), ["fit", "2/2", "epoch"]),
    "ascent": (lambda p: hr.DualAscentFlow(steps=2, refine=False).fit(X, progress=p), ["ascent", "2/2", "step"]),
    "density": (
        lambda p: hr.fit_to_density(hr.IAF(2), hr.densities.U1(), steps=3, samples=16, evaluated=0, progress=p),
        ["fit_to_density", "3/3", "step"],
    ),
    "distill": (
        lambda p: hr.distill(hr.MAF(2), hr.IAF(2), steps=3, samples=16, first_steps=0, evaluated=0, progress=p),
        ["distill", "3/3", "step"],
    ),
    "diagnose": (lambda p: hr.diagnose(hr.MAF(2), X, progress=p), ["diagnose", "7/7", "test"]),
    "auto": (
        lambda p: hr.auto(X, time_budget=0.3, families=("maf",), progress=p),
        ["auto", "MAF 3x[32,32]", "best so far", "100%", "0 of 0 s, MAF"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bar_on_a_terminal_and_nothing_elsewhere(name, monkeypatch, capsys):
    call, texts = CALLS[name]
    for tty, progress in ((False, True), (True, False)):
        stream = Stream(tty)
        monkeypatch.setattr(sys, "stderr", stream)
        call(progress)
        assert stream.text == ""
    stream = Stream(True)
    monkeypatch.setattr(sys, "stderr", stream)
    call(True)
    for text in texts:
        assert text in stream.text
    assert capsys.readouterr().out == ""


def test_a_notebook_shows_bars(monkeypatch):
    stream = type("OutStream", (Stream,), {"__module__": "ipykernel.iostream"})(False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert _progress.watched()
    monkeypatch.setattr(sys, "stderr", None)
    assert not _progress.watched()


def test_ctrl_c_in_the_last_estimate_keeps_the_fit(monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("headrace.variational.fit.estimate", interrupted)
    monkeypatch.setattr("headrace.variational.distill.estimate", interrupted)
    flow = hr.IAF(2)
    fit = hr.fit_to_density(flow, hr.densities.U1(), steps=5, samples=16, progress=False)
    assert (fit.history.stopped, fit.final, len(fit.history)) == ("interrupted", None, 5)
    student, report = hr.distill(hr.MAF(2), hr.IAF(2), steps=3, samples=16, progress=False)
    assert report.history.stopped == "interrupted"
    assert report.estimates is None
    assert student.features == 2


def test_ctrl_c_in_a_diagnosis_keeps_the_tests_that_are_done(monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("headrace.diagnosis.run.coverage", interrupted)
    found = hr.diagnose(hr.MAF(2), X)
    assert found.interrupted
    assert len(found.tests) == 5


def test_a_bar_can_be_sent_elsewhere(monkeypatch):
    """A worker of a cluster sends the states of a bar as a few messages, of which the last reports the end."""
    monkeypatch.setattr(sys, "stderr", stream := Stream(True))
    heard = []
    with _progress.sent_to(heard.append):
        hr.MAF(2, hidden=(8,)).fit(X, epochs=4, progress=True)
        hr.MAF(2, hidden=(8,)).fit(X, epochs=4, progress=False)
    assert stream.text == ""
    assert heard[0]["n"] == 0
    assert heard[0]["made"] == {"total": 4, "desc": "fit", "unit": "epoch"}
    assert (heard[-1]["n"], heard[-1]["closed"]) == (4, True)
    assert "train" in heard[-1]["postfix"]
    assert len({message["bar"] for message in heard}) == 1
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    with _progress.sent_to(heard.append), _progress.bar(3, "rows", "row", True, initial=1) as bar:
        bar.update()
        bar.set_postfix({"a": "b"})
    assert [message["n"] for message in heard[-4:]] == [1, 2, 2, 2]
    with _progress.sent_to(None):
        assert _progress.bar(3, "rows", "row", False).disable


def shown_by(call, monkeypatch):
    """Return the messages of the bars of a call, by the name of the bar."""
    heard = []
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    with _progress.sent_to(heard.append):
        call()
    bars = {}
    for message in heard:
        bars.setdefault(message["made"]["desc"], []).append(message)
    return bars


@pytest.mark.costly
def test_every_phase_of_a_fit_has_a_bar(monkeypatch):
    """Bars count columns with marginal maps, steps of a trial of these maps, epochs, and epochs of cross-validation."""
    x = np.random.default_rng(0).standard_normal((3000, 2)) ** 3
    bars = shown_by(lambda: hr.MAF(2, hidden=(8,)).fit(x, progress=True, patience=4), monkeypatch)
    assert list(bars) == ["marginals", "try marginals", "fit"]
    assert bars["marginals"][-1]["n"] == bars["marginals"][0]["made"]["total"] == 2
    assert bars["try marginals"][-1]["n"] == bars["try marginals"][0]["made"]["total"]
    decays = [message["postfix"].partition("decay=")[2] for message in bars["fit"] if message["postfix"]]
    assert len(set(decays)) > 1
    assert all(messages[-1]["closed"] for messages in bars.values())
    bars = shown_by(lambda: hr.MAF(2, hidden=(8,)).fit(x[:100], progress=True), monkeypatch)
    assert bars["cross-validate"][-1]["n"] >= 25
    assert bars["cross-validate"][-1]["closed"]


@pytest.mark.costly
def test_a_time_budget_counts_seconds(monkeypatch):
    x = np.random.default_rng(0).standard_normal((1000, 2))
    own = {"epochs": 10**6, "patience": None, "time_budget": 1.5, "gaussianize": False}
    bars = shown_by(lambda: hr.MAF(2, hidden=(8,)).fit(x, progress=True, **own), monkeypatch)
    made = bars["fit"][0]["made"]
    assert (made["total"], made["unit"]) == (1.5, "s")
    counted = [message["n"] for message in bars["fit"]]
    assert counted == sorted(counted)
    assert counted[len(counted) // 2] < 1.4
    assert counted[-1] == pytest.approx(1.5)
    assert "epoch=" in bars["fit"][-1]["postfix"]
