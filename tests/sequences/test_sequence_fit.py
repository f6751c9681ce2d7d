"""Fits of sequences: exact gradients of crops, and the arguments and the loop of `Flow.fit`."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from headrace._base import progress
from headrace._core import cpu
from headrace._fit import plan
from headrace._fit.optimizer import Adam
from headrace._fit.plan import MANY_FOR_COSINE
from headrace._flow.fit_arguments import Arguments
from headrace.sequences import fit as sequence_fit
from headrace.sequences.crops import Crops, HeldSequences, Stretch, spread
from headrace.sequences.fit import _TRIAL
from sequence_cases import SHORT, autoregression, fitted, opened

RATE = 0.5 * np.log(2 * np.pi * np.e)


# ---- crops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [1, 7, 30, 200])
@pytest.mark.parametrize("parts", ["x", "context", "covariates", "all"])
def test_gradients_of_crops_add_up_to_that_of_whole_sequences(crop, parts):
    more = {}
    if parts in ("context", "all"):
        more["context"] = 2
    if parts in ("covariates", "all"):
        more |= {"covariates": 2, "hop": 5}
    flow = sequence_cases.wavenet("crops", parts, **SHORT | {"dilations": [1, 2, 1]} | more)
    arrays = [sequence_cases.sequences(1, n, 1, "float64", i)[0] for i, n in enumerate((90, 23, 4))]
    context = sequence_cases.context_of(flow, 3)
    covariates = None
    if flow.covariates:
        covariates = [cases.rng("frames", n).standard_normal((-(-n // flow.hop), 2)) for n in (90, 23, 4)]
    weights = np.array([1.0, 2.0, 0.5])
    given = opened(flow, arrays, context, covariates, weights)
    crops = Crops(given, given.whole(), crop, flow.field)
    assert crops.size == 117
    total, gradient, counted = 0.0, np.zeros_like(flow.parameters), [np.zeros(n) for n in (90, 23, 4)]
    n = 0
    for some in crops.epoch(5, min(3, crops.count)):
        batch = crops.batch(some, np.random.default_rng(0))
        n += len(some)
        share = batch.weights.sum()
        nll, own = flow.nll_and_grad(batch.x, batch.context, batch.covariates, weights=batch.weights)
        total, gradient = total + share * nll, gradient + share * own
        for one in some:
            assert 0 < one.steps <= crop
            counted[one.sequence][one.begin : one.end] += 1
    assert n == crops.count
    assert all((own == 1).all() for own in counted)
    share = sum(w * len(array) for w, array in zip(weights, arrays, strict=True))
    padded = np.zeros((3, 90, 1))
    of_steps = np.zeros((3, 90))
    for i, array in enumerate(arrays):
        padded[i, : len(array)] = array
        of_steps[i, : len(array)] = weights[i]
    lengths = [90, 23, 4]
    frames = covariates and [np.concatenate([own, np.repeat(own[-1:], 18 - len(own), axis=0)]) for own in covariates]
    whole, expected = flow.nll_and_grad(padded, context, frames, weights=of_steps, lengths=lengths)
    # The losses are equal up to the order of terms in sums.
    np.testing.assert_allclose(total / share, whole, rtol=1e-12)
    np.testing.assert_allclose(gradient / share, expected, rtol=1e-9, atol=1e-11)


def test_held_out_steps_have_the_densities_of_whole_sequences():
    flow = sequence_cases.wavenet("held", **SHORT | {"dilations": [1, 2, 4]})
    x = sequence_cases.sequences(1, 300, 1, "float64", "held")[0]
    given = opened(flow, [x])
    held = HeldSequences(given, [Stretch(0, 250, 300)], flow.field, 0)
    np.testing.assert_allclose(held.loss(flow), -flow.log_prob_steps(x)[250:].mean(), rtol=1e-12)


def test_epochs_differ_and_borders_move():
    flow = sequence_cases.wavenet("epochs", **SHORT)
    given = opened(flow, [np.zeros((100, 1)), np.zeros((64, 1))])
    crops = Crops(given, given.whole(), 30, flow.field)
    first, again, other = (list(crops.epoch(key, 2)) for key in (1, 1, 2))
    assert first == again
    assert {one.begin for some in first for one in some} != {one.begin for some in other for one in some}


def test_noise_of_cells_is_drawn_anew():
    flow = sequence_cases.wavenet("cells", **SHORT)
    x = cases.rng("integers").integers(-5, 6, (50, 1))
    crops = Crops(opened(flow, [x], quantised=2.0), [Stretch(0, 0, 50)], 50, flow.field)
    one, other = (crops.batch([Stretch(0, 0, 50)], np.random.default_rng(seed)).x[0] for seed in (0, 1))
    assert (np.abs(one - x) <= 1.0).all()
    assert np.abs(one - x).max() > 0.8
    assert (one != other).all()


# ---- held-out steps -------------------------------------------------------------------------------------------------


# ---- fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_reaches_the_entropy_rate_of_an_autoregression(dtype):
    x = [7.0 + 3.0 * autoregression(n, "fit") for n in (3000, 500, 2000, 1500, 40, 2500, 1200, 900)]
    flow = hr.WaveNet(layers=4, channels=16, dtype=dtype)
    history = flow.fit(x, epochs=12, progress=False)
    test = 7.0 + 3.0 * autoregression(20_000, "test")
    loss = -flow.log_prob(test) / len(test)
    own = RATE + np.log(3.0) + 0.5 * np.mean(cases.rng("noise", 20_000, "test").standard_normal(20_200)[200:] ** 2 - 1)
    # A loss below the entropy rate would mean that the network reads the future; a short fit comes within 0.03 nats.
    assert own - 1e-3 < loss < own + 0.03
    assert history.best_epoch > 0
    assert history.validation_loss[history.best_epoch - 1] == history.best_loss
    assert flow.standardize_context is None
    np.testing.assert_allclose(flow.transforms[-1].std[0], 3.0 * 2.8, rtol=0.2)


def test_several_features_are_standardised_by_themselves():
    x = [np.hstack([autoregression(300, i), 100.0 + 1e-2 * autoregression(300, "second", i)]) for i in range(5)]
    flow = hr.WaveNet(2, layers=3, channels=8)
    with pytest.warns(RuntimeWarning, match="fewer than four digits of a standard deviation in feature 1"):
        fitted(flow, x, validation=x[-1:])
    joined = np.concatenate(x)
    np.testing.assert_allclose(flow.transforms[-1].mean, joined.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(flow.transforms[-1].std, joined.std(axis=0), rtol=1e-12)
    before = flow.transforms[-1].std
    fitted(flow, [2.0 * one for one in x])  # a later fit keeps the standardisation
    assert (flow.transforms[-1].std == before).all()


def test_contexts_are_standardised():
    flow = hr.WaveNet(**SHORT, context=2)
    context = np.column_stack([np.arange(6.0) + 1e6, np.full(6, 3.0)])
    with pytest.warns(RuntimeWarning, match="context: column 1 is constant"):
        fitted(flow, np.stack([autoregression(100, i) for i in range(6)]), context, validation=None)
    mean, std = flow.standardize_context
    np.testing.assert_allclose(mean, [1e6 + 2.5, 3.0], rtol=1e-12)
    np.testing.assert_allclose(std, [np.arange(6.0).std(), 1.0], rtol=1e-12)


def test_integers_are_fitted_on_their_grid():
    x = np.round(20 * autoregression(3000, "pcm")).astype("int16")
    flow = hr.WaveNet(**SHORT)
    fitted(flow, x, quantised=1, epochs=6)
    bits = -flow.log_prob(x, quantised=1) / len(x) / np.log(2)
    assert bits < (RATE + np.log(20)) / np.log(2) + 0.3
    with pytest.raises(TypeError, match="x: expected dtype float32 or float64, got int16"):
        flow.fit(x)


def test_networks_of_the_latent_side_take_whole_sequences():
    x = [autoregression(n, "latent") for n in (60, 40)]
    flow = hr.WaveNet(layers=2, channels=4, map="affine", reads="latent", transforms=2)
    history = fitted(flow, x, validation=None)
    assert history.train_loss[1] < history.train_loss[0]
    with pytest.raises(ValueError, match="crop: expected None or at least 60, the steps of the longest sequence"):
        flow.fit(x, crop=59)


def test_bits_depend_neither_on_threads_nor_on_the_batch_of_a_judge():
    x = [autoregression(n, "threads") for n in (400, 300, 200)]
    found = []
    for n in (1, 2):
        before = cpu.num_threads()
        cpu.set_num_threads(n)
        try:
            flow = hr.WaveNet(**SHORT)
            history = fitted(flow, x, seed=3)
        finally:
            cpu.set_num_threads(before)
        found.append((flow.parameters, history.validation_loss))
    assert (found[0][0] == found[1][0]).all()
    assert found[0][1] == found[1][1]


def test_a_repeated_fit_has_the_same_bits_and_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    x = [autoregression(n, "kept") for n in (400, 300, 200)]
    more = {"epochs": 4, "crop": 50, "schedule": "cosine", "average": 0.9}
    whole = hr.WaveNet(**SHORT)
    expected = fitted(whole, x, **more)
    path = tmp_path / "fit.state"
    step, taken = Adam.step, []

    def counted(adam, gradient):
        taken.append(1)
        if len(taken) == 7:
            raise RuntimeError("stop")
        return step(adam, gradient)

    monkeypatch.setattr(Adam, "step", counted)
    with pytest.raises(RuntimeError, match="stop"):
        fitted(hr.WaveNet(**SHORT), x, checkpoint=path, checkpoint_every=0.0, **more)
    monkeypatch.setattr(Adam, "step", step)
    assert path.exists()
    with pytest.raises(ValueError, match=r"checkpoint: expected the fit whose state is in .* crop: 50 there, 60 here"):
        fitted(hr.WaveNet(**SHORT), x, checkpoint=path, **more | {"crop": 60})
    with pytest.raises(ValueError, match="x: float64, 3 of 900 rows"):
        fitted(hr.WaveNet(**SHORT), x[::-1], checkpoint=path, **more)
    flow = hr.WaveNet(**SHORT)
    history = fitted(flow, x, checkpoint=path, **more)
    assert (flow.parameters == whole.parameters).all()
    assert history.train_loss == expected.train_loss
    assert history.validation_loss == expected.validation_loss
    assert not path.exists()


def test_an_interrupted_fit_keeps_the_best_or_leaves_the_flow(monkeypatch):
    x = [autoregression(n, "stop") for n in (400, 300, 200)]
    step, taken = Adam.step, []

    def counted(adam, gradient):
        taken.append(1)
        if len(taken) == stop:
            raise KeyboardInterrupt
        return step(adam, gradient)

    monkeypatch.setattr(Adam, "step", counted)
    flow = hr.WaveNet(**SHORT)
    before, stop = flow.parameters, 1
    with pytest.raises(KeyboardInterrupt):
        flow.fit(x, progress=False)
    assert (flow.parameters == before).all()
    assert flow.transforms[-1].is_identity
    taken.clear()
    stop = 300
    history = flow.fit(x, epochs=1000, crop=50, patience=1000, progress=False)
    assert history.stopped == "interrupted"
    assert history.best_epoch > 0


LONG = {"epochs": 2, "crop": 30, "batch_size": 3, "average": None, "learning_rate": 0.02}


@pytest.fixture
def long_epochs(monkeypatch):
    """Let epochs of small signals count as long, so that a fit judges weights within epochs, on held-out samples."""
    monkeypatch.setattr(sequence_fit, "WORK", 1.5e6)
    monkeypatch.setattr(sequence_fit, "EIGHTH", 1)


def judged(monkeypatch):
    """A list to which each judgement of a fit adds the number of steps of its sample, and its loss."""
    losses, loss = [], HeldSequences.loss

    def noted(held, flow, parameters=None):
        losses.append((held.size, loss(held, flow, parameters)))
        return losses[-1][1]

    monkeypatch.setattr(HeldSequences, "loss", noted)
    return losses


def test_long_epochs_are_judged_on_a_sample_every_few_steps(long_epochs, monkeypatch):
    x = [autoregression(n, "long") for n in (900, 700, 500, 300)]
    losses, flow = judged(monkeypatch), hr.WaveNet(**SHORT)
    history = fitted(flow, x, **LONG)
    steps = sum(history.held_out.values())
    batches = -(-sum(-(-(len(one) - history.held_out.get(i, 0)) // 30) for i, one in enumerate(x)) // 3)
    every = max(2 * batches // 20, 1)
    assert len(losses) == 1 + 2 * -(-batches // every)  # judged at the start, within and after both epochs
    assert {size for size, _ in losses} == {losses[0][0]}
    assert losses[0][0] < steps
    assert history.best_loss == min(loss for _, loss in losses)
    assert history.validation_loss == [losses[-(-batches // every)][1], losses[-1][1]]
    own = judged(monkeypatch)
    short = fitted(hr.WaveNet(**SHORT), x, **LONG | {"validation": None})
    assert not own
    assert short.best_epoch == 2


def test_pieces_are_spread_over_all_stretches():
    stretches = [Stretch(0, 5, 105), Stretch(2, 0, 30), Stretch(3, 0, 50)]
    assert spread(stretches, 40, 1) == stretches
    assert spread(stretches, 40, 2) == [Stretch(0, 5, 45), Stretch(0, 85, 105), Stretch(3, 0, 40)]
    assert spread(stretches, 200, 2) == [stretches[0], stretches[2]]


def test_a_sample_of_held_out_steps_is_spread_over_them_and_given_the_steps_before():
    flow = hr.WaveNet(**SHORT)
    given = opened(flow, [autoregression(n, "sample") for n in (500, 200, 90)])
    held = HeldSequences(given, [Stretch(0, 100, 500), Stretch(1, 150, 200), Stretch(2, 0, 90)], flow.field, 0)
    each = np.split(held.log_probs(flow), [400, 450])
    sample = held.sample(40, 200)
    pieces = [each[0][:40], each[0][120:160], each[0][240:280], each[0][360:400], each[2][:40]]
    assert (sample.log_probs(flow) == np.concatenate(pieces)).all()
    assert held.sample(40, 10_000) is held
    whole = HeldSequences(given, given.whole(), None, 0).sample(40, 400)
    assert whole.size == 590  # the sample contains every second sequence


def test_a_long_epoch_goes_on_from_its_checkpoint_with_equal_bits(long_epochs, tmp_path, monkeypatch):
    x = [autoregression(n, "kept") for n in (600, 500, 300)]
    whole = hr.WaveNet(**SHORT)
    expected = fitted(whole, x, **LONG)
    step, taken = Adam.step, []

    def stopped(adam, gradient):
        taken.append(1)
        if len(taken) % 5 == 0:
            raise RuntimeError("stop")
        return step(adam, gradient)

    monkeypatch.setattr(Adam, "step", stopped)
    for _ in range(100):
        flow = hr.WaveNet(**SHORT)
        try:
            history = fitted(flow, x, checkpoint=tmp_path / "state", checkpoint_every=0.0, **LONG)
            break
        except RuntimeError:
            pass
    assert len(taken) > 30
    assert (flow.parameters == whole.parameters).all()
    assert (history.best_loss, history.validation_loss) == (expected.best_loss, expected.validation_loss)


def test_an_interruption_within_a_long_epoch_keeps_the_best_and_counts_the_steps(long_epochs, monkeypatch):
    x = [autoregression(n, "break") for n in (900, 700, 500, 300)]
    step, taken, losses = Adam.step, [], judged(monkeypatch)

    def stopped(adam, gradient):
        taken.append(1)
        if len(taken) == 12:
            raise KeyboardInterrupt
        return step(adam, gradient)

    monkeypatch.setattr(Adam, "step", stopped)
    history = fitted(hr.WaveNet(**SHORT), x, **LONG)
    batches = round(11 / history.partial_epoch)
    assert (history.stopped, history.best_epoch, history.epochs) == ("interrupted", 1, 0)
    assert history.best_loss == min(loss for _, loss in losses[1:]) < losses[0][1]
    assert history.partial_epoch == 11 / batches
    assert history.elapsed > 0.0
    assert repr(history).startswith(f"History(epochs={11 / batches:.2g}")
    assert repr(history).endswith(f"seconds={history.elapsed:.2f})")


def test_the_bar_of_a_fit_counts_steps_and_has_losses_of_training(long_epochs):
    x, sent = [autoregression(n, "bar") for n in (900, 700)], []
    with progress.sent_to(sent.append):
        history = hr.WaveNet(**SHORT).fit(x, **LONG)
    bars = [one for one in sent if one["made"]["desc"] == "fit"]
    total = bars[0]["made"]["total"]
    assert bars[0]["made"]["unit"] == "step"
    assert bars[-1]["n"] == total > 2 * history.epochs
    assert "train=" in bars[1]["postfix"]  # the bar shows losses from the first step on
    assert f"held out={history.validation_loss[-1]:.3f}" in bars[-1]["postfix"]


@pytest.mark.costly
def test_a_bar_with_a_time_budget_has_seconds_and_losses():
    sent = []
    with progress.sent_to(sent.append):
        hr.WaveNet(**SHORT).fit(autoregression(2000, "bar"), epochs=1000, time_budget=1.5, patience=None)
    bars = [one for one in sent if one["made"]["desc"] == "fit"]
    assert bars[-1]["n"] == bars[0]["made"]["total"] == 1.5
    assert all(text in bars[-1]["postfix"] for text in ("train=", "held out=", "epoch="))


def test_default_numbers_of_steps_and_schedules():
    x = autoregression(MANY_FOR_COSINE * 5 // 4, "cosine")
    history = fitted(hr.WaveNet(**SHORT), x, epochs=None, time_budget=0.4)
    assert (history.stopped, history.schedule) == ("time_budget", "constant")


@pytest.mark.parametrize("is_short", [True, False])
def test_few_steps_choose_a_weight_decay_and_keep_the_best(is_short, monkeypatch):
    monkeypatch.setattr(plan, "LEAST_DECAY", 0.02 if is_short else 1.0)  # 1.0 exceeds the decay, 1000 / 2000 steps
    x, flow = autoregression(2000, "decays"), hr.WaveNet(**SHORT)
    history = fitted(flow, x, epochs=60, patience=4, learning_rate=0.02)
    assert (len(history.weight_decays) > 1) == is_short
    assert history.best_loss == history.weight_decays[history.weight_decay] == min(history.weight_decays.values())
    np.testing.assert_allclose(history.best_loss, -flow.log_prob_steps(x)[-history.held_out[0] :].mean(), rtol=1e-5)


def test_a_time_budget_and_patience():
    x = [autoregression(n, "time") for n in (900, 300, 200)]
    history = fitted(hr.WaveNet(**SHORT), x, epochs=100_000, patience=None, time_budget=0.4)
    assert history.stopped == "time_budget"
    history = fitted(hr.WaveNet(**SHORT), x, epochs=2000, patience=2, weight_decay=0.0, learning_rate=0.05)
    assert history.stopped == "patience"


# ---- signals far from zero, and outliers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "scale"), [(1e7, 1.0), (1e9, 1.0), (0.0, 1e-300)])
def test_float64_signals_are_standardised_before_they_become_float32(offset, scale):
    x, test = autoregression(3000, "far"), autoregression(5000, "far test")
    plain, flow = hr.WaveNet(**SHORT), hr.WaveNet(**SHORT)
    expected = fitted(plain, x, epochs=5)
    with pytest.warns(RuntimeWarning, match=r"fewer than four digits .* draw from a flow of dtype='float64'"):
        history = fitted(flow, offset + scale * x, epochs=5)
    np.testing.assert_allclose(history.best_loss, expected.best_loss + np.log(scale), atol=0.02)
    moved = offset + scale * test
    reached = flow.log_prob_steps(moved)
    np.testing.assert_allclose(reached.mean() + np.log(scale), plain.log_prob_steps(test).mean(), atol=0.02)
    stream = flow.stream()
    pushed = np.concatenate([stream.push(moved[None, :1000]), stream.push(moved[None, 1000:])], axis=1)
    assert (pushed[0] == reached).all()
    drawn = flow.astype("float64").sample(1, steps=5000, seed=0)
    np.testing.assert_allclose(((drawn - offset) / scale).std(), x.std(), rtol=0.2)


def test_signals_in_float32_far_from_zero_give_a_warning():
    with pytest.warns(RuntimeWarning, match="given in float32, which has lost the rest"):
        fitted(hr.WaveNet(**SHORT), (1e6 + autoregression(300)).astype("float32"))


@pytest.mark.parametrize("place", [1500, 2950])  # a step that is trained on, and one that is held out
@pytest.mark.parametrize("size", [1e4, -1e9])
def test_a_click_costs_nothing(place, size):
    x, test = autoregression(3000, "click"), autoregression(5000, "click test")
    plain, flow = hr.WaveNet(**SHORT), hr.WaveNet(**SHORT)
    fitted(plain, x, epochs=5)
    clicked = x.copy()
    clicked[place] = size
    with pytest.warns(
        RuntimeWarning, match=f"x: 1 value lies far .* in feature 0 at step {place} of sequence 0; the fit"
    ):
        history = fitted(flow, clicked, epochs=5)
    assert history.best_epoch > 0
    assert flow.log_prob(test) / len(test) > plain.log_prob(test) / len(test) - 0.02
    assert clicked[place, 0] == size  # the caller's array is unchanged


def test_clicks_of_several_sizes_and_sequences_are_taken_at_once():
    x = [np.hstack([autoregression(3000, i, j) for j in range(2)]) for i in range(2)]
    x[0][7, 1], x[1][8, 1], x[1][2000, 1] = 1e20, -1e9, 1e5
    flow = hr.WaveNet(2, layers=3, channels=4)
    given = opened(flow, x)
    with pytest.warns(
        RuntimeWarning, match=r"x: 3 values lie far .* first 1e\+20 in feature 1 at step 7 of sequence 0"
    ):
        given.limit("")
    assert (given.arrays[0][:, 0] == x[0][:, 0]).all()
    assert max(np.abs(one).max() for one in given.arrays) < 20.0
    changed = [np.argwhere(one != own).tolist() for one, own in zip(x, given.arrays, strict=True)]
    assert changed == [[[7, 1]], [[8, 1], [2000, 1]]]


def test_integers_stay_on_their_grid_beside_a_click():
    x = np.round(5 * autoregression(3000, "grid")).astype("int16")
    x[77] = -32768
    given = opened(hr.WaveNet(**SHORT), [x], quantised=1.0)
    with pytest.warns(RuntimeWarning, match="-32768 in feature 0 at step 77"):
        given.limit("")
    assert given.arrays[0].dtype == np.int16
    assert -100 < given.arrays[0][77] < np.delete(x, 77).min() + 10


@pytest.mark.parametrize("kind", ["heavy tails", "many", "silence", "a level"])
def test_other_far_values_than_clicks_are_kept(kind):
    rng = cases.rng("no click")
    x = {
        "heavy tails": rng.standard_cauchy((5000, 1)),
        "many": np.where(rng.random((5000, 1)) < 0.02, 1e4, rng.standard_normal((5000, 1))),
        "silence": (np.arange(5000) == 3000.0)[:, None] * 1e4,
        "a level": np.repeat([0.0, 1e6], [4000, 1000])[:, None] + rng.standard_normal((5000, 1)),
    }[kind]
    given = opened(hr.WaveNet(**SHORT), [x])
    given.limit("")
    assert given.arrays[0] is x


def shocks(steps, df, *key):
    """Four channels with memory and Student's t noise; df of infinity is for a normal distribution."""
    rng = cases.rng("shocks", steps, *key)
    noise = rng.standard_normal((steps, 4)) / (np.sqrt(rng.chisquare(df, (steps, 1)) / df) if df < np.inf else 1.0)
    x, mixing = np.zeros((steps, 4)), np.eye(4) + 0.5 * np.eye(4, k=1)
    for t in range(1, steps):
        x[t] = 0.7 * x[t - 1] + noise[t] @ mixing
    return x


TRIED = {"epochs": None, "patience": 2}


@pytest.mark.costly
def test_steps_of_several_values_have_heavy_tails_where_held_out_steps_do():
    more, found = {"layers": 3, "channels": 8}, {}
    for name, steps, df in (("t", 3000, 2.0), ("normal", 12_000, np.inf), ("kept", 3000, 2.0)):
        found[name] = hr.WaveNet(4, **more)
        gaussianize = "auto" if name != "kept" else False
        history = fitted(found[name], shocks(steps, df), gaussianize=gaussianize, **TRIED)
        assert history.heavy_tails is (name == "t")
        assert type(found[name].base) is (hr.StudentT if name == "t" else hr.StandardNormal)
    test = shocks(5000, 2.0, "test")
    steps, kept = (found[name].log_prob_steps(test) for name in ("t", "kept"))
    assert steps.mean() > kept.mean() + 0.05
    assert kept.min() < 3 * steps.min() < 0
    loaded = hr.from_bytes(hr.to_bytes(found["t"]))
    assert (loaded.log_prob_steps(test) == steps).all()
    again = fitted(found["t"], shocks(500, 2.0, "more"))
    assert not again.heavy_tails  # a fit that finds its base already trained reports no heavy tails


@pytest.mark.parametrize(("epochs", "is_tried"), [(256, True), (255, False)])
def test_short_series_try_heavy_tails_where_trials_take_a_tenth(epochs, is_tried):
    fit = sequence_fit.SequenceFit(
        hr.WaveNet(4, layers=2, channels=4), hr.training.History(), Arguments(epochs=epochs, progress=False), None, None
    )
    fit.open(shocks(700, 2.0), None)
    fit.checked = fit.planned()
    assert fit.checked.batches == 5
    assert fit._tries_tails() == is_tried


@pytest.mark.costly
def test_a_fit_with_heavy_tails_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    x, more = shocks(2000, 2.0), {"layers": 2, "channels": 4}
    whole, path = hr.WaveNet(4, **more), tmp_path / "fit.state"
    expected = fitted(whole, x, **TRIED)
    step, taken, stop = Adam.step, [], 2 * _TRIAL + 60

    def counted(adam, gradient):
        taken.append(1)
        if len(taken) == stop:
            raise RuntimeError("stop")
        return step(adam, gradient)

    monkeypatch.setattr(Adam, "step", counted)
    with pytest.raises(RuntimeError, match="stop"):
        fitted(hr.WaveNet(4, **more), x, checkpoint=path, checkpoint_every=0.0, **TRIED)
    assert path.exists()
    taken.clear()
    monkeypatch.setattr("headrace._fit.marginals.gain", None)  # a second trial would fail
    monkeypatch.setattr(Adam, "step", step)
    flow = hr.WaveNet(4, **more)
    history = fitted(flow, x, checkpoint=path, **TRIED)
    assert (flow.parameters == whole.parameters).all()
    assert (history.heavy_tails, history.validation_loss) == (True, expected.validation_loss)


# ---- errors ---------------------------------------------------------------------------------------------------------

X = [autoregression(60), autoregression(50)]
WRONG = {
    "no sequences": (lambda: ([],), {}, ValueError, "x: expected at least one sequence"),
    "a row": (lambda: (np.zeros(50),), {}, ValueError, "x: expected shape .rows, steps, 1."),
    "no steps": (lambda: ([X[0], X[0][:0]],), {}, ValueError, "x.1.: expected at least one step"),
    "mixed": (lambda: ([X[0], np.zeros((5, 2))],), {}, ValueError, r"x.1.: expected shape \(steps, 1\)"),
    "NaN": (
        lambda: ([X[0], np.where(np.arange(50) == 7, np.nan, X[1][:, 0])[:, None]],),
        {},
        ValueError,
        r"x: expected finite numbers, got \[nan\] at step 7 of sequence 1",
    ),
    "context": (lambda: (X, np.zeros((2, 1))), {}, ValueError, "context"),
    "covariates": (lambda: (X, None, [np.zeros((9, 1))] * 2), {}, ValueError, "covariates: expected None"),
    "crop": (lambda: (X,), {"crop": 0}, ValueError, "crop: expected an integer of at least 1"),
    "quantised": (lambda: (X,), {"quantised": -1}, ValueError, "quantised: expected"),
    "group": (lambda: (X,), {"group": object()}, ValueError, "group: expected None, because one process"),
    "effort": (lambda: (X,), {"effort": "high"}, ValueError, "effort: expected 'normal'"),
    "gaussianize": (lambda: (X,), {"gaussianize": True}, ValueError, "gaussianize: expected False or 'auto'"),
    "matmul": (lambda: (X,), {"matmul": "bf16"}, ValueError, "matmul: expected None or 'exact'"),
    "weights": (lambda: (X,), {"weights": np.ones(3)}, ValueError, r"weights: expected shape \(2,\)"),
    "validation": (lambda: (X,), {"validation": "x"}, TypeError, "validation: expected a share, x or"),
    "held NaN": (
        lambda: (X,),
        {"validation": [np.full((5, 1), np.nan)]},
        ValueError,
        "validation x: expected finite numbers",
    ),
    "keyword": (lambda: (X,), {"n_epochs": 3}, TypeError, "n_epochs: expected a keyword of WaveNet.fit .*epochs"),
    "epochs": (lambda: (X,), {"epochs": -1}, ValueError, "epochs: expected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_of_fits_name_the_fault(name):
    made, more, kind, message = WRONG[name]
    flow = hr.WaveNet(**SHORT)
    before = flow.parameters
    with pytest.raises(kind, match=message):
        flow.fit(*made(), progress=False, **more)
    assert (flow.parameters == before).all()
    assert flow.transforms[-1].is_identity


def test_frames_that_are_missing_are_named():
    flow = hr.WaveNet(**SHORT, covariates=1, hop=10)
    with pytest.raises(ValueError, match="covariates: expected at least 5 frames for 50 steps of sequence 1"):
        flow.fit(X, None, [np.zeros((6, 1)), np.zeros((4, 1))], progress=False)
