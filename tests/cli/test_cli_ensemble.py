"""Ensembles on the command line: several flows in one file, which the other commands read."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
from cli_cases import NAMES, SHORT, table, write_csv
from headrace._fit import run as _fit_run

pytestmark = pytest.mark.programs


def test_a_fit_of_several_is_that_of_python(folder, result):
    x = table()
    write_csv("t.csv", x, NAMES)
    report = result("fit", "t.csv", "-o", "e.safetensors", "--seed", 5, "--validation", 0.25, "--ensemble", 3, *SHORT)
    order = np.random.default_rng(5).permutation(200)
    train, held_out = x[np.sort(order[50:])], x[np.sort(order[:50])]
    want = hr.Ensemble([hr.NSF(NAMES, transforms=2, hidden=(8,), seed=5 + i) for i in range(3)])
    histories = want.fit(train, validation=(held_out,), epochs=3, seed=5, progress=False)
    loaded = hr.load("e.safetensors")
    assert hr.to_bytes(loaded) == hr.to_bytes(want)
    assert (report["members"], report["epochs"], report["stopped"]) == (3, 9, "epochs")
    assert report["best_epoch"] == [history.best_epoch for history in histories]
    assert report["still_falls"] == any(history.still_falls for history in histories)
    assert report["log_likelihood"] == pytest.approx(want.log_prob(held_out).mean(dtype="f8"), rel=1e-12)


def test_scores_and_samples(folder, run, result):
    x = table()
    write_csv("t.csv", x, NAMES)
    code, out, _ = run("fit", "t.csv", "-o", "e.safetensors", "--ensemble", 2, *SHORT)
    assert code == 0
    assert "2 members, 6 epochs in" in out
    ensemble = hr.load("e.safetensors")
    report = result("score", "e.safetensors", "t.csv", "-o", "s.csv")
    scores = np.loadtxt("s.csv", delimiter=",", skiprows=1, dtype="f4")
    assert (folder / "s.csv").read_text().startswith("log_prob,spread\n")
    assert_array_equal(scores, np.stack([ensemble.log_prob(x), ensemble.spread(x)], axis=1))
    assert report["log_likelihood"] == pytest.approx(ensemble.log_prob(x).mean(dtype="f8"), rel=1e-6)
    code, out, _ = run("score", "e.safetensors", "t.csv", "--quiet")
    assert_array_equal(np.loadtxt(out.splitlines(), delimiter=",", dtype="f4"), scores)
    result("sample", "e.safetensors", "-n", 20, "--seed", 3, "-o", "r.npy")
    assert_array_equal(np.load("r.npy"), ensemble.sample(20, seed=3, dtype="float64"))


def test_ctrl_c_saves_the_members_that_were_begun(folder, run, monkeypatch, set_threads):
    set_threads(1)  # with one thread members are fitted in turn
    passed = _fit_run.ArrayRun.one_pass
    fitted = []

    def one_pass(self):
        if self.flow not in fitted:
            fitted.append(self.flow)
        if len(fitted) == 2 and self.history.best_epoch > 0:  # the second member has better weights now
            raise KeyboardInterrupt
        return passed(self)

    monkeypatch.setattr(_fit_run.ArrayRun, "one_pass", one_pass)
    np.save("t.npy", table(2000))
    quick = ("--epochs", 30, "--transforms", 2, "--hidden", "8", "--learning-rate", 0.02, "--quiet")
    code, _, err = run("fit", "t.npy", "-o", "e.safetensors", "--ensemble", 3, *quick)
    assert code == 130
    assert "warning: fit: interrupted with 1 of 3 members not fitted" in err
    assert len(hr.load("e.safetensors")) == 2


def test_a_dual_ascent_is_one_flow(folder, run):
    np.save("t.npy", table())
    code, _, err = run("fit", "t.npy", "-o", "e.safetensors", "--flow", "DualAscentFlow", "--ensemble", 2)
    assert code == 2
    assert "argument --ensemble: --flow DualAscentFlow does not take it" in err


def test_a_time_budget_ends_a_fit(folder, run, result):
    np.save("t.npy", table())
    report = result("fit", "t.npy", "-o", "f.safetensors", "--time-budget", 1e-9, *SHORT)
    assert (report["stopped"], report["epochs"]) == ("time_budget", 0)
    assert np.isfinite(hr.load("f.safetensors").log_prob(table())).all()
    report = result("fit", "t.npy", "-o", "f.safetensors", "--time-budget", 1000, *SHORT)
    assert (report["stopped"], report["epochs"]) == ("epochs", 3)
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--time-budget", 0)
    assert code == 2
    assert "argument --time-budget: expected a number above 0 and below inf, got 0.0" in err


def test_high_effort_is_that_of_python(folder, result):
    """`--effort high` gives the flow of `fit(effort="high")` in Python, with residual blocks by default."""
    x = table(600)
    write_csv("t.csv", x, NAMES)
    report = result("fit", "t.csv", "-o", "f.safetensors", "--seed", 5, "--effort", "high", *SHORT)
    order = np.random.default_rng(5).permutation(600)
    train, held_out = x[np.sort(order[60:])], x[np.sort(order[:60])]
    want = hr.NSF(NAMES, transforms=2, hidden=(8,), residual=True, seed=5)
    history = want.fit(train, validation=(held_out,), epochs=3, seed=5, effort="high", progress=False)
    assert hr.to_bytes(hr.load("f.safetensors")) == hr.to_bytes(want)
    assert report["chosen"] == history.chosen


def test_members_have_a_file_of_their_own(folder, result):
    """The option --keep does not change the file of the flow, and writes the mixture of `fit(keep=True)` in Python."""
    x = table(600)
    write_csv("t.csv", x, NAMES)
    fit = ("fit", "t.csv", "--seed", 5, "--effort", "high", *SHORT)
    result(*fit, "-o", "f.safetensors", "--keep", "m.safetensors")
    result(*fit, "-o", "g.safetensors")
    assert (folder / "f.safetensors").read_bytes() == (folder / "g.safetensors").read_bytes()
    order = np.random.default_rng(5).permutation(600)
    train, held_out = x[np.sort(order[60:])], x[np.sort(order[:60])]
    want = hr.NSF(NAMES, transforms=2, hidden=(8,), residual=True, seed=5)
    history = want.fit(train, validation=(held_out,), epochs=3, seed=5, effort="high", keep=True, progress=False)
    kept = hr.load("m.safetensors")
    assert kept.feature_names == tuple(NAMES)
    assert_array_equal(kept.log_prob(x), history.members.log_prob(x))
    assert result("score", "m.safetensors", "t.csv", "-o", "s.csv")["rows"] == 600


@pytest.mark.costly
def test_a_choice_keeps_members_too(folder, result):
    write_csv("t.csv", table(600), NAMES)
    time = ("--auto", "--effort", "high", "--time-budget", 3)
    result("fit", "t.csv", *time, "-o", "f.safetensors", "--keep", "m.safetensors")
    assert len(hr.load("m.safetensors")) >= 2


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ((), 2, "argument --keep: expected --effort high with it"),
        (("--effort", "normal"), 2, "argument --keep: expected --effort high with it"),
        (("--effort", "high", "-o", "m.safetensors"), 1, "--keep: expected another file than the --output"),
        (("--effort", "high", "--keep", "t.csv"), 1, "--keep: "),
        (("--effort", "high", "--keep", "missing/m"), 1, "--keep: "),
        (("--effort", "high", "--keep", "-"), 2, "argument --keep: expected a file, got -, the standard output"),
    ],
    ids=str,
)
def test_keep_refuses_other_efforts(folder, run, given, code, message):
    write_csv("t.csv", table(600), NAMES)
    before = (folder / "t.csv").read_bytes()
    found, out, err = run("fit", "t.csv", "-o", "f.safetensors", "--keep", "m.safetensors", *given)
    assert (found, out) == (code, "")
    assert message in err
    assert (folder / "t.csv").read_bytes() == before
    assert not (folder / "f.safetensors").exists()
