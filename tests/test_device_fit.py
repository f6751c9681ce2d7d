"""Fits on a CUDA device: those of the CPU, and nothing waits inside of an epoch. On a device that is none."""

import gc

import numpy as np
import pytest

import cases
import headrace as hr
from devices import Library, either_order
from fitting import SHORT
from headrace import dual_ascent
from test_arrays import CONTEXT, FEATURES, made_flow

# Losses are sums over an epoch's rows there, over its batches' here.
CLOSE = 1e-6


def data(rows=200):
    x, context = cases.rows(rows, FEATURES, "float64"), cases.rows(rows, CONTEXT, "float64", "context")
    return x, context, np.linspace(0.0, 1.0, rows)


@pytest.mark.parametrize("validation", ["share", "none", "arrays"])
def test_the_fit_of_the_cpu(library, validation, dtype):
    x, context, weights = data()
    held_out = cases.rows(50, FEATURES, "float64", "held out"), cases.rows(50, CONTEXT, "float64", "held out")
    parts = {"share": 0.2, "none": None, "arrays": (*held_out, np.linspace(1.0, 2.0, 50))}[validation]
    flow = made_flow(dtype)
    device = flow.to("cuda")
    want = flow.fit(x, context, weights=weights, validation=parts, **SHORT)
    with library.on(library.machine.stream()):
        parts = tuple(map(library.make, parts)) if validation == "arrays" else parts
        arrays = [library.make(array) for array in (x, context, weights)]
        history = device.fit(*arrays[:2], weights=arrays[2], validation=parts, **SHORT)
    assert np.allclose(history.train_loss, want.train_loss, rtol=CLOSE)
    assert np.allclose(history.validation_loss, want.validation_loss, rtol=CLOSE)
    assert (history.best_epoch, history.stopped) == (want.best_epoch, want.stopped)
    # Means and deviations are sums of NumPy here and there.
    cases.assert_same_bits(device.to("cpu").parameters, flow.parameters)
    assert device.transforms[-1].mean.tolist() == flow.transforms[-1].mean.tolist()
    assert device.standardize_context[1].tolist() == flow.standardize_context[1].tolist()


@pytest.mark.parametrize("context", ["none", "one row"])
def test_other_contexts(machine, context):
    x, library = data()[0], Library("cupy", machine)
    row = None if context == "none" else np.array([0.5, -1.0])
    flow = made_flow("float32", context=0 if row is None else CONTEXT)
    device = flow.to("cuda")
    flow.fit(x, row, **SHORT)
    device.fit(library.make(x), None if row is None else library.make(row), **SHORT)
    cases.assert_same_bits(device.to("cpu").parameters, flow.parameters)


def waits_of(machine, epochs, batch_size, **settings):
    library, (x, _, weights) = Library("cupy", machine), data(400)
    flow = made_flow("float32", context=0).to("cuda")
    x, weights = library.make(x), library.make(weights + 0.1)
    machine.log.clear()
    flow.fit(x, weights=weights, **{**SHORT, "epochs": epochs, "batch_size": batch_size, **settings})
    return len(machine.said("sync")), len(machine.said("upload")), len(machine.said("step"))


@pytest.mark.parametrize(("validation", "an_epoch"), [(0.1, 3), (None, 2)])
def test_nothing_waits_inside_of_an_epoch(machine, validation, an_epoch):
    """An epoch reads its loss, whether all norms were finite, and the loss on rows held out; steps wait for nothing."""
    settings = {"validation": validation, "schedule": "cosine", "patience": None}
    waits, uploads, steps = waits_of(machine, 2, 100, **settings)
    more, more_uploads, more_steps = waits_of(machine, 2, 10, **settings)
    assert more_steps > 5 * steps
    assert (waits, uploads) == (more, more_uploads)
    longer, longer_uploads, _ = waits_of(machine, 5, 10, **settings)
    assert longer - more == 3 * an_epoch
    assert longer_uploads - more_uploads == 3  # the order of the rows


@either_order
def test_rows_may_go_once_a_fit_has_ended(machine, monkeypatch):
    """Also where it was interrupted: steps that are queued still read them, and the weights depend on it."""
    x, find = data()[0], hr.training._DeviceRun._find_gradient
    foreign = Library("exchanged", machine)

    def interrupted(self, index, log_prob):
        find(self, index, log_prob)
        if self.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(hr.training._DeviceRun, "_find_gradient", interrupted)
    kept, found = [], []
    for rows in (lambda: kept.append(Library("cupy", machine).make(x)) or kept[0], lambda: foreign.make(x)):
        flow = made_flow("float32", context=0).to("cuda")
        with machine.stream():
            assert flow.fit(rows(), validation=None, **SHORT).stopped == "interrupted"
            gc.collect()
            found.append(flow.parameters.get())
    cases.assert_same_bits(found[1], found[0])


def test_rows_that_are_not_finite(library):
    x, flow = data()[0], made_flow("float32", context=0)
    x[[17, 40], 1] = np.nan, np.inf
    device = flow.to("cuda")
    with pytest.raises(ValueError, match=r"x: expected finite numbers, got NaN or infinity in 2 of 200 rows.*row 17"):
        device.fit(library.make(x), **SHORT)
    with pytest.raises(ValueError, match=r"weights: expected finite numbers of at least 0, got -1.0 at index 3"):
        device.fit(
            library.make(data()[0]), weights=library.make(np.array([1.0, 1.0, 1.0, -1.0] + [1.0] * 196)), **SHORT
        )
    cases.assert_same_bits(device.to("cpu").parameters, flow.parameters)


def test_constant_columns(machine):
    x, flow = data()[0], made_flow("float32", context=0).to("cuda")
    x[:, 2] = 7.0
    with pytest.warns(RuntimeWarning, match=r"x: 1 columns are constant in the training part \(2\)"):
        flow.fit(Library("cupy", machine).make(x), **SHORT)
    assert (flow.transforms[-1].mean[2], flow.transforms[-1].std[2]) == (7.0, 1.0)


def test_a_fit_that_leaves_the_numbers(machine, monkeypatch):
    """It is seen at the end of the epoch; the weights are those of before."""
    flow, library = made_flow("float32", context=0).to("cuda"), Library("cupy", machine)
    before = flow.parameters.get()
    step = hr.training._DeviceRun._find_gradient

    def spoilt(self, index, log_prob):
        step(self, index, log_prob)
        if self.step == 1:
            self.gradient[...] = np.nan

    monkeypatch.setattr(hr.training._DeviceRun, "_find_gradient", spoilt)
    x = library.make(data()[0])
    with pytest.warns(RuntimeWarning, match="the loss became nan in epoch 0"):
        history = flow.fit(x, **SHORT)
    assert history.stopped == "non-finite"
    assert history.train_loss == []
    cases.assert_same_bits(flow.to("cpu").parameters, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("word", ["step", "run_gradient", "upload", "sync"])
def test_an_error_or_interrupt_leaves_the_best_weights(machine, error, word):
    """Whenever it comes after the first epoch: the flow is what it was then or better, and it goes on to work."""
    library, x = Library("cupy", machine), data()[0]
    flow = made_flow("float32", context=0).to("cuda")
    passes = hr.training._DeviceRun._pass

    def interrupted(self):
        if len(self.history.train_loss) == 1:
            machine.fail[word] = error("out of memory")
        return passes(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hr.training._DeviceRun, "_pass", interrupted)
        if error is KeyboardInterrupt:
            assert flow.fit(library.make(x), **SHORT).stopped == "interrupted"
        else:
            with pytest.raises(MemoryError, match="out of memory"):
                flow.fit(library.make(x), **SHORT)
    assert np.isfinite(flow.log_prob(library.make(x)).get()).all()
    flow.fit(library.make(x), **SHORT)


# --- dual ascent ------------------------------------------------------------------------------------------------------

ASCENTS = {
    "splines": lambda dtype: hr.DualAscentFlow(steps=4, refine=False, dtype=dtype),
    "copies": lambda dtype: hr.DualAscentFlow(steps=3, refine=False, copies=2, precision=2.0, dtype=dtype),
    "joint training": lambda dtype: hr.DualAscentFlow(steps=2, refine=True, dtype=dtype),
    "notes": lambda dtype: hr.DualAscentFlow.notes(steps=6, dtype=dtype),
    "notes, sliced": lambda dtype: hr.DualAscentFlow.notes(steps=4, kinks=2, directions="sliced", dtype=dtype),
}


@pytest.mark.parametrize("ascent", ASCENTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_ascent_of_the_cpu(library, ascent, weighted, dtype, monkeypatch):
    monkeypatch.setattr(dual_ascent, "REFINE_STEPS", 50)
    x, _, weights = data(300)
    x[:, 1] += x[:, 0] ** 2
    model, other = ASCENTS[ascent](dtype), ASCENTS[ascent](dtype)
    want = model.fit(x, weights=weights if weighted else None, progress=False)
    with library.on(library.machine.stream()):
        flow = other.fit(library.make(x), weights=library.make(weights) if weighted else None, progress=False)
    assert flow.device == "cuda:0"
    assert type(flow) is hr.AscentFlow
    assert len(flow) == len(want)
    assert np.allclose(other.history.log_likelihood, model.history.log_likelihood, rtol=CLOSE)
    cases.assert_same_bits(flow.to("cpu").log_prob(x), want.log_prob(x))
    part = flow[:1]
    assert part.device == "cuda:0"
    cases.assert_same_bits(part.to("cpu").log_prob(x), want[:1].log_prob(x))


def test_marginal_maps_of_many_rows_are_made_from_some(machine, monkeypatch):
    monkeypatch.setattr(dual_ascent, "MOST_MARGINAL", 1000)
    library, (x, _, weights) = Library("cupy", machine), data(3000)
    seen = []
    score = dual_ascent._marginals.normal_score

    def counted(column, shares, bandwidth):
        seen.append((type(column), column.size, None if shares is None else shares.size))
        return score(column, shares, bandwidth)

    monkeypatch.setattr(dual_ascent._marginals, "normal_score", counted)
    model = hr.DualAscentFlow(steps=3, refine=False)
    model.fit(library.make(x), weights=library.make(weights + 0.5), progress=False)
    assert set(seen) == {(np.ndarray, 1000, 1000)}
    assert model.history.log_likelihood[-1] > model.history.log_likelihood[0]


def test_an_interrupted_ascent_is_on_the_device(machine):
    library, (x, _, _) = Library("cupy", machine), data(300)
    model = hr.DualAscentFlow.notes(steps=50)
    machine.fail["points step"] = KeyboardInterrupt()
    flow = model.fit(library.make(x), progress=False)
    assert model.history.stopped == "interrupted"
    assert (flow.device, len(flow)) == ("cuda:0", 0)


def test_an_ascent_by_arrays_of_the_cpu_stays_there(machine):
    flow = hr.DualAscentFlow.notes(steps=2).fit(data()[0], progress=False)
    assert flow.device == "cpu"
    assert not machine.log
