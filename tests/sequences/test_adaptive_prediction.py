"""Backward-adaptive linear prediction, compared with a reference by the conventions: bits, gradients, files and
draws."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import sequence_cases
from headrace._base import progress
from headrace._core import cpu
from headrace._fit import marginals as _marginals
from headrace._fit.optimizer import Adam
from headrace.sequences import fit as sequence_fit
from headrace.sequences.arrays import Covariates
from headrace.sequences.crops import Crops, OpenSequences

NETWORK = {"dilations": [1, 2, 1], "channels": 4, "kernel": 3, "skip": 5}
SHORT = {"order": 6, "window": 50, "every": 7, "floor": 1e-3, "ceiling": 4.0, "start": 0.3, "damping": 0.97}


def signal(steps, *key):
    """A resonance whose frequency and level change, with a span of silence, shape (steps, 1)."""
    noise = cases.rng("adaptive", steps, *key).standard_normal(steps)
    x, t = np.zeros(steps + 2), np.arange(steps)
    angle, level = 0.3 + 0.2 * np.sin(t / 300.0), np.exp(1.5 * np.sin(t / 170.0))
    for i in range(steps):
        x[i + 2] = 1.9 * np.cos(angle[i]) * x[i + 1] - 0.9 * x[i] + level[i] * noise[i]
    x[steps // 3 : steps // 3 + 90] = 0.0
    return 0.2 * x[2:, None]


def reference(x, order, window, every, floor, ceiling, start, damping):
    """The residuals z, log-derivatives and logarithms of running sizes of one column, from docs/conventions.md
    alone."""
    t = np.arange(window)
    shape = np.sin(np.pi / 2 * np.minimum((t + 0.5) / (0.85 * window), 1.0))
    falls = t > 0.93 * window
    shape[falls] *= np.cos(np.pi / 2 * (t[falls] - 0.93 * window) / (0.07 * window + 1.0))
    padded, errors = np.concatenate([np.zeros(window), x]), np.full(320 + len(x), start)
    lags = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    z, logs = np.zeros(len(x)), np.zeros((len(x), 3))
    for i in range(len(x)):
        if i % every == 0:
            own = shape * padded[i : i + window]
            r = np.array([own[k:] @ own[: window - k] for k in range(order + 1)])
            r[0] = r[0] * (1.0 + 1e-5) + window * floor**2
            a = np.linalg.solve(r[lags], r[1:]) * damping ** np.arange(1, order + 1)
        error = x[i] - a @ padded[i + window - order : i + window][::-1]
        sizes = [errors[i + 320 - n : i + 320].mean() for n in (8, 40, 320)]
        logs[i] = np.log(np.clip(sizes, floor, ceiling))
        errors[i + 320] = abs(error)
        z[i] = error / np.exp(logs[i, 1])
    return z, -logs[:, 1], logs


def adaptive_flow(features=1, dtype="float64", seed=0, **more):
    """A flow whose network has random weights and reads running sizes."""
    network = hr.CausalConvolution(features, sizes=True, dtype=dtype, **NETWORK | more)
    scale = hr.transforms.Standardize([0.1] * features, [0.7] * features)
    flow = hr.SequenceFlow([network, hr.AdaptivePrediction(features, **SHORT), scale])
    return sequence_cases.randomise(flow, "adaptive", features, seed)


@pytest.mark.parametrize("options", [SHORT, {}], ids=["short", "default"])
def test_values_derivatives_and_sizes_are_those_of_the_conventions(options):
    t = hr.AdaptivePrediction(2, **options)
    x = np.concatenate([signal(1500, 0), signal(1500, 1)], axis=1)
    core = cpu.SequenceChainF64(2, [t._link(np.dtype("float64"), "exact")], None)
    weights = core.weights(np.zeros(0), [])
    z, log_det, sizes = core.run_link(weights, 0, True, x[None], None)
    columns = [reference(one, t.order, t.window, t.every, t.floor, t.ceiling, t.start, t.damping) for one in x.T]
    assert_allclose(z[0], np.stack([one[0] for one in columns], axis=1), rtol=1e-7, atol=1e-7)
    assert_allclose(log_det[0], sum(one[1] for one in columns), rtol=1e-9, atol=1e-9)
    assert_allclose(sizes[0], np.concatenate([one[2] for one in columns], axis=1), rtol=1e-9, atol=1e-9)
    back, other, again = core.run_link(weights, 0, False, z, None)
    assert_allclose(back[0], x, rtol=1e-9, atol=1e-9)
    assert_allclose(other, -log_det, atol=1e-9)
    assert_allclose(again, sizes, atol=1e-9)


def test_log_determinants_are_those_of_the_jacobian():
    flow, x = adaptive_flow(2), np.concatenate([signal(70, 2), signal(70, 3)], axis=1)
    step, columns = 1e-6, []
    for i in range(40, 64):
        for c in range(2):
            moved = np.zeros_like(x)
            moved[i, c] = step
            ends = [flow.to_latent(x + sign * moved)[0][40:64].reshape(-1) for sign in (1, -1)]
            columns.append((ends[0] - ends[1]) / (2 * step))
    jacobian = np.array(columns).T
    assert_array_equal(np.triu(jacobian, 2), 0.0)  # values of one step are independent given the past
    expected = np.log(np.abs(np.diag(jacobian))).sum()
    own = flow.log_prob_steps(x) + 0.5 * np.square(flow.to_latent(x)[0]).sum(axis=1) + np.log(2 * np.pi)
    assert_allclose(own[40:64].sum(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_bits_are_those_of_any_pieces_directions_and_streams(dtype, rows):
    flow, steps = adaptive_flow(dtype=dtype), 300
    x = flow.sample(rows, steps, seed=3)
    expected = flow.log_prob_steps(x)
    pushed, pulled = flow.stream(rows), flow.stream(rows)
    found, drawn = [], []
    for begin, end in ((0, 1), (1, 8), (8, 140), (140, 141), (141, 300)):
        found.append(pushed.push(x[:, begin:end]))
        drawn.append(pulled.pull(end - begin, seed=3))
        state = pulled.state()
        pulled = flow.stream(state=state)
    assert_array_equal(np.concatenate(found, axis=1), expected)
    assert_array_equal(np.concatenate(drawn, axis=1), x)
    at_once = flow.stream(rows)
    at_once.push(x)
    for a, b, c in zip(*(one.state().values() for one in (pushed, at_once, pulled)), strict=True):
        assert_array_equal(a, b)
        assert_allclose(a, c, rtol=1e-2, atol=1e-3)  # sampled steps are rounded once more
    assert_array_equal(flow.sample(rows, 120, seed=3), x[:, :120])
    assert_array_equal(flow.log_prob_steps(x[-1]), expected[-1])
    lists = flow.log_prob_steps([x[0], x[rows - 1, :77]])
    assert_array_equal(lists[1], expected[rows - 1, :77])
    z, log_det = flow.to_latent(x)
    again, other = flow.to_data(z)
    assert_allclose(again, x, rtol=1e-3 if dtype == "float32" else 1e-9, atol=1e-4)
    assert_allclose(other, -log_det, rtol=1e-3)


def test_a_step_depends_on_its_field_alone():
    flow, x = adaptive_flow(), signal(1200, 4)
    begin = 1000 - flow.field
    begin -= begin % SHORT["every"]
    assert_array_equal(flow.log_prob_steps(x)[1000:], flow.log_prob_steps(x[begin:])[1000 - begin :])
    moved = x.copy()
    moved[1000:] += 1.0
    assert_array_equal(flow.log_prob_steps(moved)[:1000], flow.log_prob_steps(x)[:1000])


@pytest.mark.parametrize("features", [1, 2])
def test_gradients_are_finite_differences(features):
    flow = adaptive_flow(features, context=2)
    x = np.stack([np.concatenate([signal(60, 5 + i, c) for c in range(features)], axis=1) for i in range(2)])
    context, grad = cases.rng("context").standard_normal((2, 2)), cases.rng("grad").standard_normal((2, 60))
    wrt = ("inputs", "parameters", "context")
    found = flow.log_prob_vjp(x, grad, context, wrt=wrt)
    # A gradient by parameters alone needs no gradient by inputs, and has the same bits.
    assert_array_equal(flow.log_prob_vjp(x, grad, context, wrt=("parameters",))[0], found[1])

    def loss(x, parameters, context):
        return (grad * flow.log_prob_steps(x, context, parameters=parameters)).sum()

    rng, size, given = cases.rng("directions"), 1e-6, (x, flow.parameters, context)
    for i, gradient in enumerate(found):
        for _ in range(3):
            direction = rng.standard_normal(given[i].shape)
            moved = [[*given] for _ in range(2)]
            for one, sign in zip(moved, (1, -1), strict=True):
                one[i] = given[i] + sign * size * direction
            expected = (loss(*moved[0]) - loss(*moved[1])) / (2 * size)
            assert_allclose((gradient * direction).sum(), expected, rtol=2e-5, atol=2e-5)
    grad_z, grad_log_det = rng.standard_normal(x.shape), rng.standard_normal(2)
    (by_x,) = flow.to_latent_vjp(x, grad_z, grad_log_det, context, wrt=("inputs",))
    direction = rng.standard_normal(x.shape)
    ends = [flow.to_latent(x + sign * size * direction, context) for sign in (1, -1)]
    expected = (grad_z * (ends[0][0] - ends[1][0])).sum() + (grad_log_det * (ends[0][1] - ends[1][1])).sum()
    assert_allclose((by_x * direction).sum(), expected / (2 * size), rtol=2e-5, atol=2e-5)


def test_gradients_by_each_step_are_finite_differences():
    """Some of the steps are at a new solution of the filter, at a bound of the scale, or in silence."""
    flow, x = adaptive_flow(), signal(120, 7)
    x[70:90] *= 50.0
    grad = np.ones((1, 120))
    (by_x,) = flow.log_prob_vjp(x[None], grad, wrt="inputs")
    size = 1e-7
    for t in (0, 3, 48, 49, 50, 69, 75, 90, 119):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[t] += sign * size
            ends.append(flow.log_prob_steps(moved).sum())
        assert_allclose(by_x[0, t, 0], (ends[0] - ends[1]) / (2 * size), rtol=1e-4, atol=1e-4)


def test_gradients_of_drawn_steps_are_refused_by_name():
    flow, x = adaptive_flow(), signal(30, 7)
    with pytest.raises(ValueError, match="to_data_vjp: expected a flow without an AdaptivePrediction"):
        flow.to_data_vjp(x, x, None, wrt=("parameters",))


@pytest.mark.parametrize("start", [0.01, 0.5, 30.0])
def test_first_steps_have_the_scale_of_the_start(start):
    prediction, x = hr.AdaptivePrediction(**SHORT | {"start": start}), np.full((1, 60, 1), 0.8)
    core = cpu.SequenceChainF64(1, [prediction._link(np.dtype("float64"), "exact")], None)
    z, _, sizes = core.run_link(core.weights(np.zeros(0), []), 0, True, x, None)
    scale = min(start, SHORT["ceiling"])
    assert_allclose(np.exp(sizes[0, 0]), scale)
    assert_allclose(z[0, 0], 0.8 / scale)
    assert_allclose(np.exp(sizes[0, 1, 1]), min((39 * start + 0.8) / 40, SHORT["ceiling"]))
    assert f"start={start:g}" in repr(prediction)


def test_a_fit_begins_with_the_size_of_first_residuals():
    rng = cases.rng("start")
    quiet = [np.concatenate([np.full(40, 0.01), np.ones(400)])[:, None] * rng.standard_normal((440, 1)) for _ in "abcd"]
    found = hr.AdaptivePrediction().bounded(quiet, [0] * 4, None)
    mean = np.mean([np.abs(x[:40]).mean() for x in quiet])
    assert 3 * mean < found.start < 0.25  # the upper limit excludes the mean of all steps, which is about 0.8
    whole = hr.AdaptivePrediction().bounded([np.concatenate(quiet)[40:440]], [0], None)
    assert 0.6 < whole.start < 1.0
    short = hr.AdaptivePrediction().bounded([x[:30] for x in quiet], [0] * 4, None)
    assert short.start == short.ceiling or short.start < 0.01
    assert short.ceiling < 0.02


def test_pieces_have_the_bounds_of_the_whole():
    x, prediction = signal(4000, "pieces"), hr.AdaptivePrediction()
    assert prediction.field < 840
    whole, pieces = prediction.bounded([x], [0], None), prediction.bounded([x[:2000], x[1160:]], [0, 840], None)
    for name in ("floor", "ceiling", "start"):
        assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-9)


def test_a_recording_that_begins_quietly_has_the_ceiling_of_all_of_it(monkeypatch):
    x = np.concatenate([0.01 * signal(6000, "fade"), signal(6000, "fade")])
    found = []
    for most, piece in ((2**18, 2**13), (3000, 500)):
        monkeypatch.setattr(sequence_fit, "_BOUNDING", most)
        monkeypatch.setattr(sequence_fit, "_PIECE", piece)
        flow = hr.WaveNet(adaptive=True, **SMALL)
        flow.fit(x, epochs=0, progress=False)
        found.append(flow.transforms[1].ceiling)
    assert_allclose(found[1], found[0], rtol=0.5)


def test_sizes_need_an_adaptive_prediction_next_to_the_network():
    network = hr.CausalConvolution(sizes=True, **NETWORK)
    with pytest.raises(ValueError, match=r"transforms\[1\]: expected an AdaptivePrediction behind .* got nothing"):
        hr.SequenceFlow([network])
    with pytest.raises(ValueError, match=r"transforms\[1\]: .* got LinearPrediction\(1, order=3\)"):
        hr.SequenceFlow([network, hr.LinearPrediction(order=3), hr.AdaptivePrediction()])
    with pytest.raises(ValueError, match="covariates: expected 0 beside sizes=True, got 2"):
        hr.CausalConvolution(sizes=True, covariates=2)
    with pytest.raises(ValueError, match="window: "):
        hr.AdaptivePrediction(order=30, window=30)
    with pytest.raises(ValueError, match="damping: expected a number above 0 and below 1"):
        hr.AdaptivePrediction(damping=1.1)
    assert hr.AdaptivePrediction(damping=1).damping == 1.0
    with pytest.raises(ValueError, match="start: expected a number above 0"):
        hr.AdaptivePrediction(start=0)
    with pytest.raises(ValueError, match="adaptive: expected False beside"):
        hr.WaveNet(adaptive=True, prediction=8)
    with pytest.raises(ValueError, match="expected transforms with kernels on a device"):
        hr.AdaptivePrediction()._link_on(None, np.dtype("float32"))


def test_files_keep_an_adaptive_prediction(tmp_path):
    flow = adaptive_flow(dtype="float32")
    flow.save(tmp_path / "flow.safetensors")
    loaded, x = hr.load(tmp_path / "flow.safetensors"), signal(200, 8)
    assert_array_equal(loaded.log_prob_steps(x), flow.log_prob_steps(x))
    assert_array_equal(loaded.sample(2, 50, seed=1), flow.sample(2, 50, seed=1))
    assert repr(loaded) == repr(flow)


def test_cells_of_integers_sum_to_one_and_are_integrals_of_the_density():
    flow = hr.WaveNet(layers=2, channels=4, adaptive=True, dtype="float64", standardize=(0.0, 9.0))
    sequence_cases.randomise(flow, "cells")
    past = np.round(30 * signal(150, 9))
    cells = np.arange(-400, 401)
    rows = np.concatenate([np.repeat(past[None], len(cells), axis=0), cells[:, None, None]], axis=1)
    log_prob = flow.log_prob_steps(rows, quantised=1)[:, -1]
    assert_allclose(np.exp(log_prob).sum(), 1.0, atol=1e-6)
    fine = rows[395:406].repeat(200, axis=0)
    fine[:, -1, 0] += np.tile((np.arange(200) + 0.5) / 200 - 0.5, 11)
    means = np.exp(flow.log_prob_steps(fine)[:, -1]).reshape(11, 200).mean(axis=1)
    assert_allclose(np.exp(log_prob[395:406]), means, rtol=1e-4)
    stream = flow.stream()
    whole = flow.log_prob_steps(past, quantised=1)
    parts = [stream.push(past[None, begin:end], quantised=1)[0] for begin, end in ((0, 70), (70, 71), (71, 150))]
    assert_array_equal(np.concatenate(parts), whole)


# ---- fits ------------------------------------------------------------------------------------------------------------

SMALL = {"layers": 3, "channels": 4, "kernel": 3, "skip": 5}
TRIED = {"epochs": 2, "batch_size": 4, "progress": False}


@pytest.fixture
def tries(monkeypatch):
    """Make even fits of short signals try an adaptive prediction."""
    monkeypatch.setattr(sequence_fit, "LEAST_ADAPTIVE", 1000)
    monkeypatch.setattr(_marginals, "TRIED", 1)


def test_a_fit_takes_an_adaptive_prediction_where_held_out_steps_gain(tries, tmp_path):
    x = [signal(4000, "fit", i) for i in range(4)]
    flow, plain = hr.WaveNet(**SMALL), hr.WaveNet(**SMALL)
    history, other = flow.fit(x, **TRIED), plain.fit(x, gaussianize=False, **TRIED)
    assert (history.adaptive, other.adaptive) == (True, False)
    network, prediction, scale = flow.transforms
    assert network.reads_sizes
    assert isinstance(prediction, hr.AdaptivePrediction)

    assert prediction.floor == 1e-3 * prediction.ceiling
    assert prediction.floor < prediction.start < prediction.ceiling
    assert 0.01 < prediction.ceiling < np.abs(np.concatenate(x)).max() / scale.std[0]
    assert type(plain.transforms[1]) is hr.LinearPrediction
    assert history.best_loss < other.best_loss
    held = [one[-history.held_out.get(i, 0) :] for i, one in enumerate(x)]
    # The loss is less than that of a normal density.
    assert history.best_loss < np.log(np.concatenate(held).std()) + 1.42
    flow.save(tmp_path / "flow")
    assert_array_equal(hr.load(tmp_path / "flow").sample(2, 50, seed=1), flow.sample(2, 50, seed=1))
    more = flow.fit(x, **TRIED)
    # A second fit keeps the held-out steps and the bounds of the first fit.
    assert more.best_loss <= history.best_loss + 1e-6
    assert flow.transforms[1].floor == prediction.floor


def test_a_fit_leaves_a_flow_whose_held_out_steps_do_not_gain(tries):
    noise = cases.rng("white").standard_normal((4000, 1))
    x = noise[1:] + 0.9 * noise[:-1]  # a signal with one spectrum and one level
    flow, plain = hr.WaveNet(**SMALL), hr.WaveNet(**SMALL)
    history, other = flow.fit(x, **TRIED), plain.fit(x, gaussianize=False, **TRIED)
    assert not history.adaptive
    assert_array_equal(flow.parameters, plain.parameters)
    assert history.validation_loss == other.validation_loss


def test_the_bar_of_a_trial_counts_steps_and_has_losses_of_both_kinds(tries, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    x, sent = [signal(4000, "fit", i) for i in range(4)], []
    with progress.sent_to(sent.append):
        hr.WaveNet(**SMALL).fit(x, **TRIED | {"progress": True})
    bars = [one for one in sent if one["made"]["desc"] == "try adaptive prediction"]
    assert bars[0]["made"] | {"total": None} == {
        "total": None, "desc": "try adaptive prediction", "unit": "step", "leave": False
    }  # fmt: skip
    counts = [one["n"] for one in bars]
    assert sorted(set(counts)) == list(range(bars[0]["made"]["total"] + 1))
    assert counts[-1] >= 2 * sequence_fit._SHORT
    shown = [one["postfix"] for one in bars if one["n"] == 1]
    assert math.isfinite(float(shown[0].partition("train=")[2]))
    assert "held out=" in bars[-1]["postfix"]
    assert bars[-1]["closed"]


def test_batches_of_a_trial_are_hardly_filled_up(tries, monkeypatch):
    lengths, own, seen = np.geomspace(250, 2000, 160).astype(int), sequence_fit.CropRun._loss_of, []
    x = [cases.rng("many", n).standard_normal((n, 1)) for n in lengths]

    def counted(run, batch):
        if len(seen) == 2 * sequence_fit._SHORT:  # the trials with and without an adaptive prediction have ended
            raise RuntimeError("stop")
        seen.append((int((batch.weights > 0).sum()), int((batch.x != 0).sum()), batch.x.size))
        return own(run, batch)

    monkeypatch.setattr(sequence_fit.CropRun, "_loss_of", counted)
    monkeypatch.setattr(sequence_fit, "FIELDS", 0.25)  # crops are so short that an epoch has hundreds
    with pytest.raises(RuntimeError, match="stop"):
        hr.WaveNet(**SMALL).fit(x, **TRIED)
    counts, filled, size = np.sum(seen, axis=0)
    assert filled > 0.6 * size
    assert counts < 0.25 * lengths.sum()  # both trials together use only some crops


def test_a_trial_takes_steps_of_the_whole_recording(tries, monkeypatch):
    x, own, taken = signal(30_000, "long"), sequence_fit.SequenceFit._trial_run_of, []

    def noted(*arguments):
        run = own(*arguments)
        taken.append(run.source)
        return run

    monkeypatch.setattr(sequence_fit.SequenceFit, "_trial_run_of", noted)
    monkeypatch.setattr(sequence_fit, "FIELDS", 0.25)
    hr.WaveNet(**SMALL).fit(x, **TRIED | {"epochs": 1})
    assert len(taken) == 2
    for source in taken:
        begins = [one.begin for one in source.stretches]
        assert min(begins) == 0
        assert 20_000 < max(begins) < 27_000
        assert source.size < 15_000


def test_trials_go_by_adam_for_any_optimizer_of_the_fit(tries, monkeypatch):
    step, steps, found = Adam.step, [], {}
    monkeypatch.setattr(
        Adam, "step", lambda one, gradient: steps.append((type(one), one.learning_rate)) or step(one, gradient)
    )
    for optimizer in ("adam", "muon"):
        steps.clear()
        hr.WaveNet(**SMALL).fit(signal(4000, "fit", 0), optimizer=optimizer, **TRIED)
        found[optimizer] = list(steps)
    of_trials = [kind for kind, _ in found["muon"]].index(hr.Muon)
    assert of_trials >= 2 * sequence_fit._SHORT
    assert found["muon"][:of_trials] == found["adam"][:of_trials]
    assert {kind for kind, _ in found["muon"][of_trials:]} == {hr.Muon}


def test_a_fit_with_an_adaptive_prediction_goes_on_from_its_checkpoint(tries, tmp_path, monkeypatch):
    x = [signal(3000, "kept", i) for i in range(3)]
    whole = hr.WaveNet(**SMALL)
    expected = whole.fit(x, **TRIED)
    step, taken = Adam.step, []

    def stopped(adam, gradient):
        taken.append(1)
        if len(taken) == 2 * sequence_fit._SHORT + 5:  # the trials with and without an adaptive prediction have ended
            raise RuntimeError("stop")
        return step(adam, gradient)

    monkeypatch.setattr(Adam, "step", stopped)
    with pytest.raises(RuntimeError, match="stop"):
        hr.WaveNet(**SMALL).fit(x, checkpoint=tmp_path / "state", checkpoint_every=0.0, **TRIED)
    flow = hr.WaveNet(**SMALL)
    history = flow.fit(x, checkpoint=tmp_path / "state", **TRIED)
    assert history.adaptive
    assert_array_equal(flow.parameters, whole.parameters)
    assert history.validation_loss == expected.validation_loss


def test_a_budget_of_few_steps_has_no_trial(tries, monkeypatch):
    x, own, runs = [signal(4000, "fit", i) for i in range(4)], sequence_fit.SequenceFit._trial_run_of, []

    def counted(*arguments):
        runs.append(arguments[3])
        return own(*arguments)

    monkeypatch.setattr(sequence_fit.SequenceFit, "_trial_run_of", counted)
    for seconds, is_tried in ((0.2, False), (1e-3, True)):  # budgets that suffice for 500 and for 100,000 steps
        runs.clear()
        monkeypatch.setattr(sequence_fit.SequenceFit, "_seconds_of_step", lambda *_, each=seconds: each)
        monkeypatch.setattr(sequence_fit, "_SHORT", 16 if is_tried else 80)
        history = hr.WaveNet(**SMALL).fit(x, time_budget=100.0, **TRIED)
        assert history.adaptive == is_tried
        assert len(runs) == 2 * is_tried
        assert not any(clock.is_limited for clock in runs)  # a number of steps, and no clock, ends each trial


def test_crops_have_the_gradients_of_whole_sequences():
    flow, x = adaptive_flow(), signal(1500, "crops")
    own = Covariates(flow, flow._caller(), None, (1,))
    given = OpenSequences([x], None, own, None, 1, None, flow.dtype)
    given.every = flow._interior.every
    crops = Crops(given, given.whole(), 200, flow.field)
    total = np.zeros(flow.parameters.size)
    for batch in crops.epoch(3, 4):
        made = crops.batch(batch, cases.rng("unused"))
        share = made.weights.sum()
        total += share * flow.nll_and_grad(made.x, weights=made.weights)[1]
    assert_allclose(total / 1500, flow.nll_and_grad(x)[1], rtol=1e-9, atol=1e-12)
