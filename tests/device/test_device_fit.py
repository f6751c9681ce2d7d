"""Fits on a simulated CUDA device have the results of the CPU's fits, and nothing waits within an epoch."""

import gc

import numpy as np
import pytest

import cases
import headrace as hr
from array_cases import CONTEXT, FEATURES, made_flow
from device_cases import FOLDED, assert_follows, data
from devices import Library, either_order
from fitting import SHORT
from headrace._fit import run as _fit_run
from headrace.ascent import ascent as _ascent
from headrace.ascent import competing_fits as contest
from headrace.ascent import kinks as _kink_ascent
from headrace.ops import _points as _points
from pairs import pairwise

# The tolerance of losses: a device sums them over an epoch's rows, and the CPU over the epoch's batches.
CLOSE = 1e-6


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
    # On both devices NumPy computes the means and deviations.
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


def test_a_stream_is_read_on_the_cpu(machine):
    with pytest.raises(TypeError, match=r"x: expected an array on the flow's device, got a stream; call .to\('cpu'\)"):
        made_flow("float32", context=0).to("cuda").fit(hr.rows.blocks([data()[0]]), **SHORT)


def test_norms_start_as_on_the_cpu(machine):
    """The rows of both fits are equal; the inner norm gets them through networks, whose rounding differs on a
    device."""
    (x, context, weights), library = data(), Library("cupy", machine)
    networks = made_flow("float32").transforms
    norms = [hr.transforms.ActNorm(FEATURES), hr.transforms.ActNorm(FEATURES)]
    flow = hr.Flow([norms[0], networks[0], norms[1], *networks[1:]])
    device = flow.to("cuda")
    settings = {**SHORT, "epochs": 0}
    flow.fit(x, context, weights=weights, **settings)
    device.fit(*map(library.make, (x, context)), weights=library.make(weights), **settings)
    started = [t for t in device.to("cpu").transforms if isinstance(t, hr.transforms.ActNorm)]
    assert [t.is_started for t in started] == [True, True]
    assert all(t.parameters.any() for t in started)
    np.testing.assert_allclose(device.to("cpu").parameters, flow.parameters, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gaussianize", ["auto", True])
def test_marginals_are_made_normal_as_on_the_cpu(machine, gaussianize):
    x, library = np.exp(cases.rows(600, FEATURES, "float64", "skewed")), Library("cupy", machine)
    flow = made_flow("float64", context=0)
    device, settings = flow.to("cuda"), {"gaussianize": gaussianize, "epochs": 250, "patience": 3, "progress": False}
    assert flow.fit(x, **settings).gaussianized
    assert device.fit(library.make(x), **settings).gaussianized
    curves = [
        [t for t in one.transforms if isinstance(t, hr.transforms.Gaussianize)] for one in (flow, device.to("cpu"))
    ]
    assert [len(one) for one in curves] == [1, 1]
    np.testing.assert_allclose(curves[1][0].data, curves[0][0].data, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(device.to("cpu").log_prob(x), flow.log_prob(x), atol=1e-5)


def waits_of(machine, epochs, batch_size, **settings):
    library, (x, _, weights) = Library("cupy", machine), data(400)
    flow = made_flow("float32", context=0).to("cuda")
    x, weights = library.make(x), library.make(weights + 0.1)
    machine.log.clear()
    flow.fit(x, weights=weights, **{**SHORT, "epochs": epochs, "batch_size": batch_size, **settings})
    return len(machine.logged("sync")), len(machine.logged("upload")), len(machine.logged("step"))


@pytest.mark.parametrize(("validation", "an_epoch"), [(0.1, 3), (None, 2)])
def test_nothing_waits_inside_of_an_epoch(machine, validation, an_epoch):
    """An epoch reads three values from the device: its loss, whether all norms were finite, and the loss on rows held
    out; no step waits."""
    settings = {"validation": validation, "schedule": "cosine", "patience": None}
    waits, uploads, steps = waits_of(machine, 2, 100, **settings)
    more, more_uploads, more_steps = waits_of(machine, 2, 10, **settings)
    assert more_steps > 5 * steps
    assert (waits, uploads) == (more, more_uploads)
    longer, longer_uploads, _ = waits_of(machine, 5, 10, **settings)
    assert longer - more == 3 * an_epoch
    assert longer_uploads - more_uploads == 3  # each epoch uploads the order of the rows


@either_order
def test_rows_may_go_once_a_fit_has_ended(machine, monkeypatch):
    """Queued steps read the rows even after an interrupt, so that the rows are kept until these steps are done."""
    x, find = data()[0], _fit_run.DeviceRun._find_gradient
    foreign = Library("exchanged", machine)

    def interrupted(self, index, log_prob):
        find(self, index, log_prob)
        if self.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_fit_run.DeviceRun, "_find_gradient", interrupted)
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
    with pytest.warns(RuntimeWarning, match=r"x: column 2 is constant in the training part; it is shifted"):
        flow.fit(Library("cupy", machine).make(x), **SHORT)
    assert (flow.transforms[-1].mean[2], flow.transforms[-1].std[2]) == (7.0, 1.0)


def test_a_loss_that_is_not_finite_ends_a_fit(machine, monkeypatch):
    """The loss is read at the end of the epoch; the flow keeps the best weights of earlier epochs."""
    flow, library = made_flow("float32", context=0).to("cuda"), Library("cupy", machine)
    before = flow.parameters.get()
    step = _fit_run.DeviceRun._find_gradient

    def spoilt(self, index, log_prob):
        step(self, index, log_prob)
        if self.step == 1:
            self.gradient[...] = np.nan

    monkeypatch.setattr(_fit_run.DeviceRun, "_find_gradient", spoilt)
    x = library.make(data()[0])
    with pytest.warns(RuntimeWarning, match="the loss became nan in epoch 1"):
        history = flow.fit(x, **SHORT)
    assert history.stopped == "non-finite"
    assert history.train_loss == []
    cases.assert_same_bits(flow.to("cpu").parameters, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("word", ["step", "gradient", "upload", "sync"])
def test_an_error_or_interrupt_leaves_the_best_weights(machine, error, word):
    """After an error the flow is at least as good as after the first epoch, and can be fitted again."""
    library, x = Library("cupy", machine), data()[0]
    flow = made_flow("float32", context=0).to("cuda")
    passes = _fit_run.DeviceRun.one_pass
    again = ("step", "gradient") if error is MemoryError else ()  # calls that the second fit also makes

    def interrupted(self):
        if len(self.history.train_loss) == 1:
            machine.fail[word] = [error("out of memory")] * (2 if word in again else 1)
        return passes(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit_run.DeviceRun, "one_pass", interrupted)
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
    "notes, sliced": lambda dtype: hr.DualAscentFlow.notes(steps=4, kinks=2, directions="sliced", dtype=dtype),
}


@pairwise(ascent=ASCENTS, weighted=[False, True], dtype=cases.DTYPES)
def test_the_ascent_of_the_cpu(library, ascent, weighted, dtype, monkeypatch):
    monkeypatch.setattr(contest, "REFINE_STEPS", 50)
    x, _, weights = data(300)
    x[:, 1] += x[:, 0] ** 2
    model, other = ASCENTS[ascent](dtype), ASCENTS[ascent](dtype)
    want = model.fit(x, weights=weights if weighted else None, progress=False)
    with library.on(library.machine.stream()):
        flow = other.fit(library.make(x), weights=library.make(weights) if weighted else None, progress=False)
    assert flow.device == "cuda:0"
    assert type(flow) is hr.ascent.AscentFlow
    assert len(flow) == len(want)
    assert np.allclose(other.history.log_likelihood, model.history.log_likelihood, rtol=CLOSE)
    cases.assert_same_bits(flow.to("cpu").log_prob(x), want.log_prob(x))
    part = flow[:1]
    assert part.device == "cuda:0"
    cases.assert_same_bits(part.to("cpu").log_prob(x), want[:1].log_prob(x))


NOTES = {
    "few steps": {"steps": 6},
    "a stride": {"steps": _kink_ascent.STRIDE},
    "more": {"steps": 40, "kinks": 3},
    "until patience ends": {"steps": 300, "patience": 12, "rule": "gradient"},
    "another precision": {"steps": 20, "precision": 2.5, "neighbours": 30.0},
    "copies": {"steps": 18, "copies": 2},
    "none": {"steps": 0},
    "no end": {"steps": 34, "patience": None},
}


@pytest.mark.parametrize("notes", NOTES)
@pytest.mark.parametrize("weighted", [False, True])
def test_kinks_are_those_of_the_cpu(machine, notes, weighted, dtype):
    """Weights change the widths of kinks, by Kish's effective number of rows, and the held-out log-likelihoods."""
    library, (x, _, weights) = Library("cupy", machine), data(300)
    x[:, 1] += x[:, 0] ** 2
    weights = weights**4 if weighted else None
    other, model = (hr.DualAscentFlow.notes(dtype=dtype, **NOTES[notes]) for _ in range(2))
    want = other.fit(x, weights=weights, progress=False)
    with library.on(machine.stream()):
        flow = model.fit(library.make(x), weights=weights if weights is None else library.make(weights), progress=False)
        assert_follows(model, flow, other, want, x, dtype)
    assert flow.device == "cuda:0"
    if notes == "until patience ends":
        assert other.history.stopped == "patience"
        assert (len(other.history.log_likelihood) - 1) % _kink_ascent.STRIDE


@pytest.mark.parametrize("weighted", [False, True])
def test_kinks_with_given_rows_held_out(machine, weighted, dtype):
    library, (x, _, weights) = Library("cupy", machine), data(300)
    x[:, 1] += x[:, 0] ** 2
    parts = (x[::3] * 1.1, None, weights[::3] ** 3) if weighted else x[::3] * 1.1
    placed = (library.make(parts[0]), None, library.make(parts[2])) if weighted else library.make(parts)
    for own, its in ((parts, placed), (None, None)):
        other, model = (hr.DualAscentFlow.notes(steps=20, dtype=dtype) for _ in range(2))
        want = other.fit(x, validation=own, progress=False)
        flow = model.fit(library.make(x), validation=its, progress=False)
        assert_follows(model, flow, other, want, x, dtype)


def test_kinks_of_many_features_turn_in_blocks(machine, dtype):
    library, x = Library("cupy", machine), cases.rows(200, _ascent.DENSE_BELOW + 2, dtype)
    x += 0.3 * np.roll(x, 1, axis=1) ** 2
    other, model = (hr.DualAscentFlow.notes(steps=18, dtype=dtype) for _ in range(2))
    want, flow = other.fit(x, progress=False), model.fit(library.make(x), progress=False)
    # The tolerance is relative, because log-likelihoods are sums over the features.
    assert np.allclose(model.history.log_likelihood, other.history.log_likelihood, rtol=FOLDED[dtype])
    assert len(flow) == len(want)


def test_numbers_drawn_ahead_do_not_count(machine, monkeypatch):
    """Random numbers after an ascent, such as the noise of copies, do not depend on the number of steps that the device
    computed ahead."""
    monkeypatch.setattr(contest, "REFINE_STEPS", 50)
    library, (x, _, _) = Library("cupy", machine), data(300)
    x[:, 1] += x[:, 0] ** 2
    settings = {"steps": 300, "patience": 12, "refine": True, "copies": 2, "dtype": "float64"}
    other, model = (hr.DualAscentFlow.notes(**settings) for _ in range(2))
    want, flow = other.fit(x, progress=False), model.fit(library.make(x), progress=False)
    assert other.history.stopped == "patience"
    assert np.allclose(model.history.refinement.train_loss, other.history.refinement.train_loss, rtol=1e-9)
    assert np.allclose(flow.to("cpu").log_prob(x), want.log_prob(x), atol=1e-8)


def test_steps_of_kinks_are_queued_in_strides(machine):
    """Log-likelihoods are read once a stride, and at the end for the last steps; then the kinks of the best prefix are
    read."""
    library, (x, _, _) = Library("cupy", machine), data(300)
    waits = {}
    for steps in (_kink_ascent.STRIDE - 1, 3 * _kink_ascent.STRIDE + 1):
        x_there = library.make(x)
        machine.log.clear()
        hr.DualAscentFlow.notes(steps=steps, kinks=2, patience=None).fit(x_there, progress=False)
        assert len(machine.logged("kink")) == 2 * steps
        assert not machine.logged("points step")
        waits[steps] = len(machine.logged("sync"))
        assert machine.logged("sync").count(("sync", "kinks")) == 1
    assert waits[3 * _kink_ascent.STRIDE + 1] - waits[_kink_ascent.STRIDE - 1] == 3


def test_sliced_directions_read_the_points_and_the_last_kinks(machine):
    library, (x, _, _) = Library("cupy", machine), data(300)
    x[:, 1] += x[:, 0] ** 2
    other, model = (hr.DualAscentFlow.notes(steps=4, directions="sliced", dtype="float64") for _ in range(2))
    want, flow = other.fit(x, progress=False), model.fit(library.make(x), progress=False)
    assert len(machine.logged("kink")) == 4
    assert np.allclose(flow.to("cpu").log_prob(x), want.log_prob(x), atol=1e-10)


def test_marginal_maps_bring_no_rows_to_the_host(machine):
    """The host reads once which rows have a weight, and for each step only counts, because random directions need no
    points."""
    library, (x, _, weights) = Library("cupy", machine), data(6000)
    whole = {}
    for steps in (1, 4):
        machine.log.clear()
        model = hr.DualAscentFlow(steps=steps, refine=False, directions="random")
        model.fit(library.make(x), weights=library.make(weights + 0.5), validation=None, progress=False)
        assert model.history.log_likelihood[-1] > model.history.log_likelihood[0]
        got = [words[2] for words in machine.logged("sync") if words[1] == "get"]
        whole[steps] = sum(size >= 3000 for size in got)
        assert 2048 in got
    assert whole[4] == whole[1]


def test_an_ascent_that_is_interrupted_before_its_first_step(machine):
    library, (x, _, _) = Library("cupy", machine), data(300)
    model = hr.DualAscentFlow.notes(steps=50)
    machine.fail["kink"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        model.fit(library.make(x), progress=False)


def test_an_interrupt_between_two_kinks_keeps_the_read_prefix(machine, monkeypatch):
    library, (x, _, _) = Library("cupy", machine), data(300)
    x[:, 1] += x[:, 0] ** 2
    want = hr.DualAscentFlow.notes(steps=_kink_ascent.STRIDE - 1, kinks=2, dtype="float64")
    want = want.fit(x, validation=None, progress=False)
    kink, queued = _points.Chosen.kink, []

    def interrupted(self, *arguments):
        kink(self, *arguments)
        queued.append(arguments)
        if len(queued) == 2 * _kink_ascent.STRIDE + 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_points.Chosen, "kink", interrupted)
    model = hr.DualAscentFlow.notes(steps=50, kinks=2, dtype="float64")
    flow = model.fit(library.make(x), validation=None, progress=False)
    assert model.history.stopped == "interrupted"
    assert flow.device == "cuda:0"
    assert len(flow) == len(want) == model.history.best_step
    assert np.allclose(flow.to("cpu").log_prob(x), want.log_prob(x), atol=1e-10)


def test_a_part_of_an_ascent_is_compiled_once_on_the_device(machine):
    library, (x, _, _) = Library("cupy", machine), data(300)
    flow = hr.DualAscentFlow.notes(steps=20).fit(library.make(x), validation=None, progress=False)
    machine.log.clear()
    part = flow[:12]
    assert machine.logged("program") == []
    got = part.log_prob(library.make(x))
    part.sample(3, seed=1)
    assert machine.logged("program") == [("program", 0)]
    cases.assert_same_bits(got.get(), part.to("cpu").log_prob(x))
    assert (part.device, len(part)) == ("cuda:0", 12)
    cases.assert_same_bits(part.to("cpu").log_prob(x), flow.to("cpu")[:12].log_prob(x))


def test_an_ascent_without_enough_memory_raises_a_memory_error(machine):
    library, (x, _, _) = Library("cupy", machine), data(300)
    for word in ("ascent", "kink", "finish"):
        failed = MemoryError("device memory of 9 bytes: out of memory")
        machine.fail[word] = [failed, failed] if word == "ascent" else failed
        with pytest.raises(MemoryError, match="out of memory"):
            hr.DualAscentFlow.notes(steps=5).fit(library.make(x), progress=False)


def test_an_ascent_by_arrays_of_the_cpu_stays_there(machine):
    flow = hr.DualAscentFlow.notes(steps=2).fit(data()[0], progress=False)
    assert flow.device == "cpu"
    assert not machine.log


def test_a_fit_goes_on_from_its_checkpoint(machine, dtype, tmp_path, monkeypatch):
    """After Ctrl-C within an epoch the fit continues from the state at the start of the epoch, which is kept until the
    epoch ends."""
    (x, context, weights), library = data(), Library("cupy", machine)
    arrays, path = [library.make(array) for array in (x, context, weights)], tmp_path / "fit.state"
    settings = {**SHORT, "epochs": 5, "validation": 0.2, "schedule": "plateau", "patience": 3}

    def fit(**more):
        device = made_flow(dtype).to("cuda")
        return device, device.fit(*arrays[:2], weights=arrays[2], **settings, **more)

    want, history = fit()
    passes, whole = [], _fit_run.DeviceRun._find_gradient

    def interrupted(self, index, log_prob):
        passes.append(self.step)
        if len(passes) == 3 * self.plan.batches + 2:
            raise KeyboardInterrupt
        return whole(self, index, log_prob)

    with monkeypatch.context() as patch:
        patch.setattr(_fit_run.DeviceRun, "_find_gradient", interrupted)
        assert fit(checkpoint=path)[1].stopped == "interrupted"
    assert path.exists()
    counted = []
    monkeypatch.setattr(_fit_run.DeviceRun, "_find_gradient", lambda *a: counted.append(1) or whole(*a))
    got, again = fit(checkpoint=path)
    assert len(counted) == 2 * (len(passes) - 2) // 3
    cases.assert_same_bits(got.to("cpu").parameters, want.to("cpu").parameters)
    for name in ("train_loss", "validation_loss", "learning_rate", "best_epoch", "best_loss", "stopped"):
        assert getattr(again, name) == getattr(history, name), name
    assert not path.exists()
