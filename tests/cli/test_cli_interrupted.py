"""The command line as a process of its own: Ctrl-C, and readers that go away."""

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
from headrace._cli import tables as _tables
from headrace._fit import run as _fit_run

pytestmark = pytest.mark.programs


def test_ctrl_c_in_a_fit_saves_the_best_weights(folder, run, monkeypatch):
    np.save("t.npy", table())
    passes, whole = [], _fit_run.Run.one_pass

    def interrupted(self):
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(_fit_run.Run, "one_pass", interrupted)
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", "--epochs", 9, "--quiet", "--json")
    assert code == 130
    assert json.loads(out)["stopped"] == "interrupted"
    assert err == "headrace: interrupted: the best weights so far were saved\n"
    assert hr.load("f.safetensors").features == 3


def test_a_fit_goes_on_from_its_checkpoint(folder, run, monkeypatch):
    np.save("t.npy", table(600))
    fit = ("fit", "t.npy", "--epochs", 6, "--transforms", 1, "--hidden", "8", "--quiet", "--checkpoint", "fit.state")
    assert run(*fit, "-o", "want.safetensors")[0] == 0
    passes, whole = [], _fit_run.Run.one_pass

    def interrupted(self):
        passes.append(1)
        if len(passes) == 4:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(_fit_run.Run, "one_pass", interrupted)
    assert run(*fit, "-o", "f.safetensors")[0] == 130
    assert os.path.exists("fit.state")
    code, _, err = run(*fit, "-o", "f.safetensors", "--seed", 1)
    assert code == 1
    assert "seed: 0 there, 1 here" in err
    assert run(*fit, "-o", "f.safetensors", "--checkpoint-every", "2 epochs")[0] == 0
    assert len(passes) == 4 + 3
    assert not os.path.exists("fit.state")
    with open("want.safetensors", "rb") as want, open("f.safetensors", "rb") as got:
        assert want.read() == got.read()
    assert run(*fit, "-o", "f.safetensors", "--checkpoint-every", "0 epochs")[0] == 2
    assert run("fit", "t.npy", "--flow", "dual-ascent", "-o", "f.safetensors", "--checkpoint", "fit.state")[0] == 2
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--checkpoint", "t.npy")
    assert code == 1
    assert "--checkpoint: expected another file than t.npy" in err


def test_ctrl_c_elsewhere(folder, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tables, "open_table", interrupt)
    assert run("fit", "t.npy", "-o", "f.safetensors") == (130, "", "headrace: interrupted\n")
    assert not os.path.exists("f.safetensors")


def test_a_process_of_its_own(folder):
    process = command("info", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["version"] == hr.__version__
    process = command("score", "none.safetensors", "t.npy")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err


def test_a_signal_to_a_process_that_fits(folder):
    np.save("t.npy", table())
    forever = ("--epochs", 10**7, "--patience", 10**7, "--checkpoint", "fit.state", "--checkpoint-every", "epoch")
    process = command("fit", "t.npy", "-o", "f.safetensors", *forever)
    while not os.path.exists("fit.state"):  # an epoch is over
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved to f.safetensors" in out
    assert err.endswith("headrace: interrupted: the best weights so far were saved\n")
    assert hr.load("f.safetensors").features == 3


def test_a_reader_that_goes_away(folder):
    small_flow()
    process = command("sample", "flow.safetensors", "-n", 200_000, "--seed", 1)
    assert process.stdout.readline().count(",") == 2
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
    process = command("info")
    process.stdout.close()  # before anything was written: only the last flush can fail
    time.sleep(0)
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
