"""A fit that was stopped goes on from its file, bit for bit; files of other fits, and broken ones, are refused."""

import os
import subprocess
import sys
import textwrap
from dataclasses import fields

import numpy as np
import pytest

import cases
import headrace as hr
from fitting import QUIET, gaussian, small
from headrace import files
from headrace._fit import checkpoint as _checkpoint
from headrace._fit import given_rows as _rows
from headrace._fit import plan as _plan
from headrace._fit import run as _run
from pairs import pairwise

X = gaussian(600)
WEIGHTS = cases.rng("checkpoint").uniform(0.5, 1.5, 600)
CONTEXT = cases.rng("checkpoint").normal(size=(600, 2))

# Fits with more state than the number of steps: stages of weight decay, patience, schedules, no held-out rows, dropout.
FITS = {
    "staged decay": {"epochs": 14, "patience": 4, "learning_rate": 2e-2},
    "patience": {"epochs": 300, "patience": 2, "weight_decay": 0.1, "learning_rate": 5e-2},
    "plateau": {"epochs": 8, "patience": 3, "schedule": "plateau", "learning_rate": 0.1, "weights": WEIGHTS},
    "cosine": {"epochs": 5, "schedule": "cosine", "validation": None},
    "Muon": {"epochs": 5, "schedule": "cosine", "optimizer": "muon", "weight_decay": 0.1},
    "no average": {"epochs": 5, "average": None, "clip": None, "validation": (X[:60],)},
    "a cosine after it": {"learning_rate": 2e-2, "batch_size": 180},
    "a Gaussian after it": {"patience": 1, "weight_decay": 1.0, "learning_rate": 1e-2, "batch_size": 180},
}
CONDITIONAL = {"epochs": 5, "context": CONTEXT}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Let fits without `epochs` have at most 6 epochs, and let fits of 100 rows try a cosine schedule."""
    monkeypatch.setattr(_plan, "MOST_EPOCHS", 6)
    monkeypatch.setattr(_plan, "MANY_FOR_COSINE", 100)
    monkeypatch.setattr("headrace._fit.fit.STEPS", 12)  # a trial has 12 steps


def flow_for(name, dtype):
    if name == "conditional":
        return hr.MAF(3, 2, 2, (12,), dropout=0.2, link="linear", dtype=dtype, seed=3)
    if name == "a cosine after it":
        return hr.NSF(3, transforms=1, hidden=(12,), dtype=dtype, seed=3)
    return hr.Flow(
        [
            *small(dtype, transforms=2).transforms[:-1],
            hr.transforms.ActNorm(3, dtype=dtype),
            small(dtype).transforms[-1],
        ]
    )


def fit(name, dtype, **more):
    flow = flow_for(name, dtype)
    keywords = CONDITIONAL if name == "conditional" else FITS[name]
    return flow, flow.fit(X, **keywords, **QUIET, **more)


def assert_same_fit(one, other):
    (flow, history), (other_flow, other_history) = one, other
    cases.assert_same_bits(flow.parameters, other_flow.parameters)
    assert repr(flow) == repr(other_flow)
    for field in fields(history):
        if field.name in ("seconds", "cpu_seconds"):
            seconds = getattr(history, field.name)
            assert len(seconds) == len(getattr(other_history, field.name))
            assert (np.diff(seconds) > 0).all()
        elif field.name != "elapsed":  # the elapsed seconds differ between runs
            np.testing.assert_equal(getattr(history, field.name), getattr(other_history, field.name), field.name)


class Killed(BaseException):
    """An exception that the library does not handle, in place of the end of the process."""


class Kill:
    """Stops a fit at a chosen step, before or after the optimiser takes the step."""

    def __init__(self, monkeypatch, error):
        self.steps, self.at, self.error, whole = 0, None, error, _run.Adam.step

        def step(adam, gradient):
            self.steps += 1
            if self.steps == self.at and self.before:
                raise self.error
            norm = whole(adam, gradient)
            if self.steps == self.at:
                raise self.error
            return norm

        monkeypatch.setattr(_run.Adam, "step", step)

    def after(self, steps, before=False):
        self.steps, self.at, self.before = 0, steps, before


@pairwise(name=[*FITS, "conditional"], every=[0.0, "epoch", "3 epochs"], dtype=["float32", "float64"])
def test_a_fit_goes_on_from_any_step(name, every, dtype, tmp_path, monkeypatch):
    """A fit that is killed at random steps, again and again, ends like a fit that was never killed."""
    kill, path = Kill(monkeypatch, Killed()), tmp_path / "fit.state"
    want = fit(name, dtype)
    rng, total = cases.rng("kill", name, str(every), dtype), kill.steps
    kills, least = 0, min(50 if every == 0.0 else 100, total // 2)
    while True:
        kill.after(int(rng.integers(least, least + total)), bool(rng.integers(2)))
        try:
            got = fit(name, dtype, checkpoint=path, checkpoint_every=every)
            break
        except Killed:
            kills += 1
    assert not path.exists()
    assert_same_fit(got, want)
    if every == 0.0:
        kill.after(total - 1)
        with pytest.raises(Killed):
            fit(name, dtype, checkpoint=path, checkpoint_every=every)
        kill.after(0)
        assert_same_fit(fit(name, dtype, checkpoint=path), want)
        assert kill.steps <= 2 or name in ("staged decay", "patience", "a Gaussian after it")
        assert kill.steps < total / 2


def test_a_fit_of_shifts_and_scales_goes_on_as_its_trials_chose(dtype, tmp_path, monkeypatch):
    """A fit that is killed again and again after its trials goes on without new trials."""
    monkeypatch.setattr("headrace._fit.trials.AFFINE", ((2.0, 1.0, 1.5),))
    kill, path = Kill(monkeypatch, Killed()), tmp_path / "fit.state"

    def fitted(**more):
        flow = small(dtype, transforms=2)
        return flow, flow.fit(X, batch_size=180, **QUIET, **more)

    want, kept = fitted(), {"checkpoint": path, "checkpoint_every": 0.0}
    total = kill.steps
    assert want[1].schedule == "cosine"
    for steps in (total - 4, 2):
        kill.after(steps)
        with pytest.raises(Killed):
            fitted(**kept)
    kill.after(0)
    assert_same_fit(fitted(**kept), want)
    assert kill.steps == 4  # the resumed fit makes no trials, and takes the last four steps


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("steps", [1, 18, 19, 60])
def test_an_interrupted_fit_goes_on(steps, before, dtype, tmp_path, monkeypatch):
    """Ctrl-C writes the state immediately, for any interval of checkpoints, even between a step and its count."""
    kill, path = Kill(monkeypatch, KeyboardInterrupt()), tmp_path / "fit.state"
    want = fit("staged decay", dtype)
    total = kill.steps
    kill.after(steps, before)
    kept = {"checkpoint": path, "checkpoint_every": 1e9}
    if steps == 1:  # after one step no weights are better than those of the fresh flow
        with pytest.raises(KeyboardInterrupt):
            fit("staged decay", dtype, **kept)
    else:
        assert fit("staged decay", dtype, **kept)[1].stopped == "interrupted"
    assert path.exists() or (steps, before) == (1, True)
    kill.after(0)
    assert_same_fit(fit("staged decay", dtype, checkpoint=path), want)
    assert kill.steps == total - steps + before
    assert not path.exists()


def test_an_interruption_between_epochs_keeps_the_last_one(tmp_path, monkeypatch):
    path, whole, want = tmp_path / "fit.state", _run.Run._finish_epoch, fit("cosine", "float32")

    def interrupted(self, epoch, loss):
        if epoch == 4:
            raise KeyboardInterrupt
        return whole(self, epoch, loss)

    monkeypatch.setattr(_run.Run, "_finish_epoch", interrupted)
    assert fit("cosine", "float32", checkpoint=path)[1].stopped == "interrupted"
    assert files.load_state(str(path), "headrace_checkpoint")[0]["epoch"] == 3
    monkeypatch.setattr(_run.Run, "_finish_epoch", whole)
    assert_same_fit(fit("cosine", "float32", checkpoint=path), want)


CHILD = """
import os, sys
import numpy as np
import headrace as hr
from headrace._fit import run
path, dtype, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps, whole = 0, run.Adam.step
def step(adam, gradient):
    global steps
    steps += 1
    if steps == at:
        os._exit(9)
    return whole(adam, gradient)
run.Adam.step = step
x = np.random.default_rng(0).standard_normal((700, 2)) ** 3
flow = hr.NSF(2, transforms=2, hidden=(8,), dtype=dtype)
history = flow.fit(x, epochs=9, patience=4, checkpoint=path, checkpoint_every=0.02, progress=False)
np.savez(path + ".npz", parameters=flow.parameters, losses=history.validation_loss, train=history.train_loss,
         decays=list(history.weight_decays.items()), best=[history.best_epoch, history.best_loss])
print(steps, history.stopped)
"""


@pytest.mark.costly
@pytest.mark.programs
def test_a_process_that_ends_at_once(tmp_path):
    dtype = "float32"  # the tests above have both dtypes

    def run(path, at):
        arguments = [sys.executable, "-c", textwrap.dedent(CHILD), str(path), dtype, str(at)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=300)

    whole = run(tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    total = int(whole.stdout.split()[0])
    rng = cases.rng("os._exit", dtype)
    path = tmp_path / "parts"
    for at in rng.integers(40, total // 2, 2):
        assert run(path, at).returncode == 9
        assert path.exists()
    last = run(path, 0)
    assert last.returncode == 0, last.stderr
    assert int(last.stdout.split()[0]) < total
    with np.load(tmp_path / "whole.npz") as want, np.load(tmp_path / "parts.npz") as got:
        for name in want.files:
            cases.assert_same_bits(got[name], want[name])
    assert sorted(os.listdir(tmp_path)) == ["parts.npz", "whole.npz"]  # temporary files and states are gone


@pytest.mark.costly
@pytest.mark.usefixtures("one_mixture")
def test_few_rows_begin_anew_with_the_same_bits(tmp_path, monkeypatch):
    """Cross-validation writes no checkpoint, so that a killed fit of few rows begins again."""
    path, x = tmp_path / "fit.state", gaussian(60)
    keywords = QUIET | {"learning_rate": 2e-2}
    want = small()
    history = want.fit(x, **keywords)
    kill = Kill(monkeypatch, Killed())
    kill.after(30)
    with pytest.raises(Killed):
        small().fit(x, **keywords, checkpoint=path, checkpoint_every=0)
    assert not path.exists()
    kill.after(0)
    flow = small()
    assert_same_fit((flow, flow.fit(x, **keywords, checkpoint=path)), (want, history))


def stopped(path, monkeypatch, x=X, **more):
    """Write the checkpoint of a fit that Ctrl-C stops at its twentieth step."""
    with monkeypatch.context() as patch:
        Kill(patch, KeyboardInterrupt()).after(20)
        fit_other(path, x=x, **more)
    assert path.exists()


def fit_other(path, flow=None, x=X, context=None, **more):
    flow = small() if flow is None else flow
    keywords = {"epochs": 5, "learning_rate": 1e-2, **QUIET, **more}
    return flow.fit(x, context, checkpoint=path, **keywords)


def test_another_fit_is_refused_with_the_difference(tmp_path, monkeypatch):
    path = tmp_path / "fit.state"
    monkeypatch.setattr(_rows, "CHUNK", 100)  # the checksum of the rows is computed in chunks, up to the last row
    stopped(path, monkeypatch)
    held = path.read_bytes()
    moved = X.copy()
    moved[599, 2] = np.nextafter(moved[599, 2], 0)
    others = {
        "epochs: 5 there, 6 here": {"epochs": 6},
        "learning_rate: 0.01 there, 0.02 here": {"learning_rate": 0.02},
        "seed: 0 there, 1 here": {"seed": 1},
        "rows held out: 60 there, 120 here": {"validation": 0.2},
        "batch_size: None there, 50 here": {"batch_size": 50},
        "optimizer: 'auto' there, 'muon' here": {"optimizer": "muon"},
        "structure of the flow": {"flow": small(transforms=2)},
        "parameters at the start": {"flow": small(seed=1)},
        r"x: float64 \(600, 3\), checksum": {"x": moved},
        r"weights: none there, float64 \(600,\)": {"weights": WEIGHTS},
        r"validation x: None there, float64 \(600, 3\)": {"validation": (X,)},
    }
    for difference, other in others.items():
        flow = other.pop("flow", small())
        before = flow.parameters
        with pytest.raises(ValueError, match=f"checkpoint: expected the fit whose state is in .*{difference}"):
            fit_other(path, flow, **other)
        cases.assert_same_bits(flow.parameters, before)
        assert flow.transforms[-1].is_identity
    assert path.read_bytes() == held
    fit_other(path, learning_rate=np.float64(1e-2), epochs=np.int64(5))  # NumPy scalars equal plain numbers
    assert not path.exists()


def test_other_files_than_states_are_refused_and_stay(tmp_path):
    path = tmp_path / "flow.safetensors"
    small().save(path)
    held = path.read_bytes()
    for content in (held, b"", b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(hr.FileFormatError, match="checkpoint: expected the state of a fit"):
            fit_other(path)
        assert path.read_bytes() == content


def test_a_damaged_state_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "fit.state"
    stopped(path, monkeypatch)
    held = bytearray(path.read_bytes())
    held[-3] ^= 1
    path.write_bytes(held)
    with pytest.raises(hr.FileFormatError, match="damaged"):
        fit_other(path)
    path.write_bytes(held[:-7])
    with pytest.raises(hr.FileFormatError, match=r"checkpoint: .*expected"):
        fit_other(path)


def test_arguments(tmp_path):
    flow = small()
    for wrong, error in ((-1.0, ValueError), ("0 epochs", ValueError), ("soon", ValueError), (None, TypeError)):
        with pytest.raises(error, match="checkpoint_every: expected"):
            flow.fit(X, checkpoint=tmp_path / "a", checkpoint_every=wrong, **QUIET)
    with pytest.raises(TypeError, match="checkpoint: expected a str"):
        flow.fit(X, checkpoint=b"a", **QUIET)
    with pytest.raises(TypeError, match="checkpoint: expected a str"):
        flow.fit(X, checkpoint=3, **QUIET)
    with pytest.raises(FileNotFoundError, match="checkpoint: expected an existing folder"):
        flow.fit(X, checkpoint=tmp_path / "none" / "a", **QUIET)
    assert flow.transforms[-1].is_identity


def test_intervals():
    assert _checkpoint._interval("epoch") == (np.inf, 1)
    assert _checkpoint._interval("1 epoch") == (np.inf, 1)
    assert _checkpoint._interval("20 epochs") == (np.inf, 20)
    assert _checkpoint._interval(2) == (2.0, np.inf)


def test_a_checkpoint_is_written_at_each_interval(tmp_path, monkeypatch):
    written, whole = [], files.save_state
    monkeypatch.setattr(files, "save_state", lambda *a: written.append(a[2]["epoch"]) or whole(*a))
    fit_other(tmp_path / "a", epochs=7, checkpoint_every="3 epochs")
    assert written == [3, 6]
    written.clear()
    fit_other(tmp_path / "a", epochs=3, checkpoint_every=1e9)
    assert written == []
    fit_other(tmp_path / "a", epochs=2, checkpoint_every=0, batch_size=100)
    assert written == [0] * 6 + [1] * 7 + [2]


def test_a_failed_write_ends_the_fit_with_its_best_weights(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_state", full)
    flow = small()
    with pytest.raises(OSError, match="No space"):
        fit_other(tmp_path / "a", flow, checkpoint_every="epoch")
    assert not flow.transforms[-1].is_identity


def test_the_state_of_adam(dtype):
    """An optimiser that takes over the state of another takes the same later steps."""
    flow = small(dtype, transforms=2)
    other = small(dtype, transforms=2)
    x = gaussian(100)
    one, two = (hr.Adam(f, 1e-2, average=0.9, clip=1.0, weight_decay=0.1) for f in (flow, other))
    for _ in range(3):
        one.step(flow.nll_and_grad(x)[1])
    other.parameters = flow.parameters
    two._core.set_memory(*one._core.memory())
    for _ in range(3):
        assert one.step(flow.nll_and_grad(x)[1]) == two.step(other.nll_and_grad(x)[1])
    cases.assert_same_bits(other.parameters, flow.parameters)
    cases.assert_same_bits(two.averaged, one.averaged)
    mean, square, average, clock = one._core.memory()
    assert clock[2] == 6
    with pytest.raises(ValueError, match="memory: a vector has the wrong size or dtype"):
        two._core.set_memory(mean[1:], square, average, clock)
    with pytest.raises(ValueError, match="memory: expected an average"):
        two._core.set_memory(mean, square, None, clock)
    with pytest.raises(ValueError, match="memory: expected a clock"):
        two._core.set_memory(mean, square, average, clock[:2])


def test_a_time_budget_and_a_checkpoint(tmp_path):
    """A fit that ends by its time budget leaves its checkpoint, and goes on with a new budget."""
    path, losses = tmp_path / "fit.state", []
    for _ in range(3):
        history = fit_other(path, epochs=10**6, patience=None, time_budget=0.3, checkpoint_every=1e9)
        assert history.stopped == "time_budget"
        losses.append(len(history.train_loss))
    assert losses[0] < losses[1] < losses[2]
    with pytest.raises(ValueError, match="checkpoint: expected None in a fit of an ensemble"):
        hr.Ensemble([small(), small(seed=1)]).fit(X, checkpoint=path, **QUIET)
