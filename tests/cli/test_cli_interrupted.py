"""The command line as a separate process: Ctrl-C, and readers that end early."""

import json
import os
import signal
import time

import numpy as np
import pytest

import headrace as hr
from cli_cases import (
    command,
    small_flow,
    table,
)
from headrace import files
from headrace._fit import checkpoint as _checkpoint
from headrace._fit import marginals as _marginals
from headrace._fit import run as _fit_run
from headrace._fit import start as _start
from headrace.ascent.splines import SplineAscent
from headrace.choosing.candidates import Trial
from headrace.rows import _files as _tables
from interrupts import ctrl_c

pytestmark = pytest.mark.programs


FAST = ("--flow", "MAF", "--transforms", 2, "--hidden", "16", "--learning-rate", 0.02, "--quiet")


def is_better(run, *_):
    """Whether a run has better weights than those of the fresh flow."""
    return run.history.best_epoch > 0


def test_ctrl_c_in_a_fit_saves_the_best_weights(folder, run, monkeypatch):
    np.save("t.npy", table(2000))
    ctrl_c(monkeypatch, _fit_run.ArrayRun, "one_pass", is_better)
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", "--epochs", 50, *FAST, "--json")
    assert code == 130
    assert json.loads(out)["stopped"] == "interrupted"
    assert err == "headrace: interrupted: the best weights so far were saved\n"
    assert hr.load("f.safetensors").features == 3


def test_a_fit_goes_on_from_its_checkpoint(folder, run, monkeypatch):
    np.save("t.npy", table(600))
    fit = ("fit", "t.npy", "--epochs", 6, "--transforms", 1, "--hidden", "8", "--quiet", "--checkpoint", "fit.state")
    assert run(*fit, "-o", "want.safetensors")[0] == 0
    passes, whole = [], _fit_run.ArrayRun.one_pass

    def interrupted(self):
        passes.append(1)
        if len(passes) == 4:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(_fit_run.ArrayRun, "one_pass", interrupted)
    assert run(*fit, "-o", "f.safetensors")[0] == 130
    assert os.path.exists("fit.state")
    code, _, err = run(*fit, "-o", "f.safetensors", "--seed", 1)
    assert code == 1
    assert "seed: 0 there, 1 here" in err
    assert run(*fit, "-o", "f.safetensors", "--set", "checkpoint_every=2 epochs")[0] == 0
    assert len(passes) == 4 + 3
    assert not os.path.exists("fit.state")
    with open("want.safetensors", "rb") as want, open("f.safetensors", "rb") as got:
        assert want.read() == got.read()
    assert run(*fit, "-o", "f.safetensors", "--set", "checkpoint_every=0 epochs")[0] == 1
    assert run("fit", "t.npy", "--flow", "DualAscentFlow", "-o", "f.safetensors", "--checkpoint", "fit.state")[0] == 2
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--checkpoint", "t.npy")
    assert code == 1
    assert "--checkpoint: expected another file than t.npy" in err


def test_ctrl_c_outside_of_a_fit(folder, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tables, "open_table", interrupt)
    message = "headrace: interrupted: no weights better than fresh ones yet, nothing was saved\n"
    assert run("fit", "t.npy", "-o", "f.safetensors") == (130, "", message)
    assert not os.path.exists("f.safetensors")
    assert run("score", "f.safetensors", "t.npy")[0] == 1
    with open("f.safetensors", "wb") as file:
        file.write(hr.to_bytes(hr.MAF(3)))
    assert run("score", "f.safetensors", "t.npy") == (130, "", "headrace: interrupted\n")


MOMENTS = {
    "reading": (_tables, "open_table"),
    "choosing marginal curves": (_marginals, "gaussianizing"),
    "in the trial of marginal curves": (_marginals, "gain"),
    "after standardising": (_start, "start_act_norms"),
    "judging the start": (_fit_run.HeldOut, "loss"),
    "in the first epoch": (_fit_run.ArrayRun, "batches"),
}


@pytest.mark.parametrize(
    ("flow", "moment"),
    [
        *(("default", moment) for moment in MOMENTS),
        ("ensemble", "in the first epoch"),
        ("stream", "after standardising"),
        ("stream", "judging the start"),
    ],
)
def test_ctrl_c_before_there_are_better_weights_leaves_the_file(flow, moment, folder, run, monkeypatch):
    np.save("t.npy", np.exp((table(2000) - 2.0) * [1.0, 0.1, 10.0]))  # skewed: the fit tries marginal maps
    small_flow("good.safetensors")
    with open("good.safetensors", "rb") as file:
        before = file.read()
    more = {"default": (), "ensemble": ("--ensemble", 2), "stream": ("--buffer", 500, "--epochs", 2)}[flow]
    calls = ctrl_c(monkeypatch, *MOMENTS[moment])
    result = run("fit", "t.npy", "-o", "good.safetensors", "--quiet", "--json", *more)
    assert calls
    assert result[:2] == (130, "")
    assert result[2].splitlines()[-1] == (
        "headrace: interrupted: no weights better than fresh ones yet, nothing was saved; good.safetensors is as it was"
    )
    with open("good.safetensors", "rb") as file:
        assert file.read() == before
    assert sorted(os.listdir()) == ["good.safetensors", "t.npy"]


def test_ctrl_c_before_the_first_step_of_an_ascent_leaves_the_file(folder, run, monkeypatch):
    np.save("t.npy", table())
    small_flow("good.safetensors")
    with open("good.safetensors", "rb") as file:
        before = file.read()
    calls = ctrl_c(monkeypatch, SplineAscent, "taken")
    code, out, err = run("fit", "t.npy", "-o", "good.safetensors", "--flow", "DualAscentFlow", "--quiet")
    assert (code, out) == (130, "")
    assert calls
    assert err.endswith("good.safetensors is as it was\n")
    with open("good.safetensors", "rb") as file:
        assert file.read() == before


@pytest.mark.parametrize(("begun", "code"), [(0, False), (1, True)])
def test_ctrl_c_in_a_search_saves_the_tried_density(begun, code, folder, run, monkeypatch):
    """Ctrl-C in a search saves the best density so far, if a density besides the Gaussian has been tried."""
    np.save("t.npy", table(2000))
    small_flow("good.safetensors")
    with open("good.safetensors", "rb") as file:
        before = file.read()
    trials = []

    def is_next(trial, *_):
        trials.append(trial)
        return len(trials) > begun

    calls = ctrl_c(monkeypatch, Trial, "go", is_next)
    assert run("fit", "t.npy", "-o", "good.safetensors", "--auto", "--time-budget", 4, "--quiet")[0] == 130
    assert calls
    with open("good.safetensors", "rb") as file:
        assert (file.read() != before) == code


@pytest.mark.costly
def test_a_separate_process(folder):
    process = command("info", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["version"] == hr.__version__
    process = command("score", "none.safetensors", "t.npy")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err


def test_a_signal_to_a_process_that_fits(folder):
    np.save("t.npy", table(2000))
    forever = (
        "--epochs",
        10**7,
        "--set",
        f"patience={10**7}",
        "--checkpoint",
        "fit.state",
        "--set",
        "checkpoint_every=epoch",
    )
    process = command("fit", "t.npy", "-o", "f.safetensors", *FAST, *forever)
    best = 0
    while not best:  # the loop waits for an epoch better than the fresh weights
        assert process.poll() is None
        time.sleep(0.01)
        if os.path.exists("fit.state"):
            state, _ = files.load_state("fit.state", _checkpoint._KEY)
            best = _checkpoint._read(state["history"]["best_epoch"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved to f.safetensors" in out
    assert err.endswith("headrace: interrupted: the best weights so far were saved\n")
    assert hr.load("f.safetensors").features == 3


@pytest.mark.costly
def test_a_reader_that_ends_early(folder):
    small_flow()
    process = command("sample", "flow.safetensors", "-n", 200_000, "--seed", 1)
    assert process.stdout.readline().count(",") == 2
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
    process = command("info")
    process.stdout.close()  # stdout is closed before any output: only the last flush can fail
    time.sleep(0)
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
