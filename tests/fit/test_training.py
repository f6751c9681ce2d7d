"""``fit``: the densities that it reaches, the weights that it keeps, the ends of fits, and reproducible bits."""

import _thread
import re
import threading
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
import reference
from fitting import COVARIANCE, FEATURES, MEAN, QUIET, SHORT, gaussian, gaussian_log_prob, loss_of, moments, small
from headrace._fit.run import Run

# --- results --------------------------------------------------------------------------------------------------------


def test_one_affine_transform_reaches_the_maximum_likelihood_of_a_gaussian(dtype):
    """Without hidden layers an autoregressive map can be any Gaussian in triangular form (its scales may depend on x).

    The optimum is the Gaussian with the moments of the training rows; 20 + 3 parameters fitted to 4000 rows cost about
    23 / 8000 = 3e-3 nats on other rows, and the tolerance is three times as large.
    """
    x, held_out = gaussian(4000).astype(dtype), gaussian(4000, "held out").astype(dtype)
    flow = hr.Flow(
        [
            hr.transforms.MaskedAutoregressive(FEATURES, (), dtype=dtype),
            hr.transforms.Standardize(np.zeros(3), np.ones(3)),
        ]
    )
    flow.fit(x, epochs=60, batch_size=200, learning_rate=2e-2, **QUIET)

    best = gaussian_log_prob(held_out, x.mean(axis=0), np.cov(x.T)).mean()
    assert abs(flow.log_prob(held_out).mean() - best) < 1e-2
    # In the middle of the data the flow is approximately a linear map, which has the covariance of the data.
    jacobian = reference.jacobian(lambda z: flow.astype("float64").to_data(z)[0], np.zeros(FEATURES))
    assert_allclose(jacobian @ jacobian.T, COVARIANCE, atol=0.15)
    centre = flow.to_data(np.zeros((1, FEATURES)))[0][0]
    assert_allclose(centre, MEAN, atol=0.15)


@pytest.mark.parametrize(
    ("build", "transforms"),
    [(hr.MAF, 4), (hr.IAF, 4), (hr.RealNVP, 4), (hr.NSF, 4), (hr.PlanarFlow, 16), (hr.RadialFlow, 16)],
)
def test_every_kind_of_flow_learns(build, transforms):
    """The rows are a ring; each flow is better on new rows by half a nat than the best Gaussian."""
    generator = cases.rng("ring")
    angle, radius = generator.uniform(0.0, 2.0 * np.pi, 3000), 2.0 + 0.2 * generator.standard_normal(3000)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype("float32")
    flow = build(2, transforms=transforms, hidden=(24, 24))
    flow.fit(x[:2000], validation=0.2, epochs=20, batch_size=100, learning_rate=5e-3, **QUIET)
    gaussian_best = gaussian_log_prob(x[2000:], x.mean(axis=0), np.cov(x.T)).mean()
    assert flow.log_prob(x[2000:]).mean() > gaussian_best + 0.5


def test_a_conditional_mean_is_recovered(dtype):
    generator = cases.rng("conditional")
    context = 5.0 + 3.0 * generator.standard_normal((3000, 1))
    x = np.hstack([2.0 * context, 10.0 - context]) + 0.3 * generator.standard_normal((3000, 2))
    flow = small(dtype, 2, context=1)
    flow.fit(x, context, epochs=30, batch_size=100, learning_rate=1e-2, **QUIET)
    for value in (2.0, 5.0, 8.0):
        sample = flow.sample(4000, np.array([value]), seed=1)
        assert_allclose(sample.mean(axis=0), [2.0 * value, 10.0 - value], atol=0.15)
        assert_allclose(sample.std(axis=0), 0.3, atol=0.1)


def test_a_trainable_base_and_weight_decay_take_part():
    x = 3.0 + 2.0 * cases.rows(500, FEATURES, "float64")
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(FEATURES, (8,), dtype="float64")], hr.Normal(FEATURES))
    flow.fit(x, epochs=40, batch_size=100, learning_rate=5e-2, **QUIET)
    assert loss_of(flow, x) < 7.0  # the loss is 6.3 for a Gaussian of scale two, about 20 for a fresh flow
    decayed, free = small("float64"), small("float64")
    decayed.fit(gaussian(500), weight_decay=10.0, **SHORT)
    free.fit(gaussian(500), weight_decay=0.0, **SHORT)
    assert np.linalg.norm(decayed.parameters) < 0.8 * np.linalg.norm(free.parameters)


# --- reproducibility and weights ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(dtype, set_threads):
    x, context = gaussian(700), cases.rows(700, 1, "float64", "context")
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        flow = small(dtype, context=1, transforms=2)
        results.append((flow.fit(x, context, validation=0.2, seed=5, **SHORT), flow.parameters))
    history, parameters = results[0]
    for other, other_parameters in results[1:]:
        cases.assert_same_bits(other_parameters, parameters)
        assert other.train_loss == history.train_loss
        assert other.validation_loss == history.validation_loss


def test_different_seeds_differ():
    parameters = []
    for seed in (0, 1):
        flow = small()
        flow.fit(gaussian(300), seed=seed, **SHORT)
        parameters.append(flow.parameters)
    assert np.abs(parameters[0] - parameters[1]).max() > 1e-4


def test_weights_are_repeated_rows():
    """Weighted and repeated rows differ only in the order of sums where each batch has all rows.

    Adam divides each gradient by a running root mean square of that gradient. For standardised rows the gradient of the
    first shift is mere rounding, so that after a few steps even float64 results agree only to about 1e-6.
    """
    x, times = gaussian(60), cases.rng("times").integers(1, 4, 60)
    held_out = gaussian(40, "held out")
    settings = QUIET | {"epochs": 10, "batch_size": 1000, "learning_rate": 1e-3, "validation": held_out}
    weighted, repeated = small("float64"), small("float64")
    one = weighted.fit(x, weights=times.astype(float), **settings)
    other = repeated.fit(np.repeat(x, times, axis=0), **settings)
    assert_allclose(one.train_loss, other.train_loss, rtol=1e-4)
    assert_allclose(one.validation_loss, other.validation_loss, rtol=1e-4)
    assert_allclose(one.train_loss[0], other.train_loss[0], rtol=1e-9)
    assert_allclose(weighted.transforms[-1].std, repeated.transforms[-1].std, rtol=1e-12)


def test_rows_of_weight_zero_take_no_part():
    x, held_out = gaussian(60), gaussian(40, "held out")
    wrong = np.vstack([x, 1e3 + 50.0 * gaussian(30, "wrong")])
    weights = np.repeat([2.0, 0.0], [60, 30])
    settings = QUIET | {"epochs": 10, "batch_size": 1000, "learning_rate": 1e-3, "validation": held_out}
    ignoring, plain = small("float64"), small("float64")
    one, other = ignoring.fit(wrong, weights=weights, **settings), plain.fit(x, **settings)
    assert_allclose(one.train_loss, other.train_loss, rtol=1e-4)
    assert_allclose(one.validation_loss, other.validation_loss, rtol=1e-4)
    assert_allclose(one.train_loss[0], other.train_loss[0], rtol=1e-9)
    assert_allclose(ignoring.transforms[-1].mean, plain.transforms[-1].mean, rtol=1e-12)


def test_weights_change_the_fitted_density():
    """Samples of two clouds, whose weights are nine to one, have the weighted mean."""
    x = np.vstack([cases.rows(300, 2, "float64"), 10.0 + cases.rows(300, 2, "float64", "other")])
    flow = small("float64", 2)
    flow.fit(x, weights=np.repeat([9.0, 1.0], 300), epochs=30, batch_size=100, learning_rate=1e-2, **QUIET)
    assert_allclose(flow.sample(4000, seed=1).mean(axis=0), [1.0, 1.0], atol=0.5)


# --- kept weights ---------------------------------------------------------------------------------------------------


def overfit(validation, **keywords):
    flow = hr.MAF(FEATURES, transforms=2, hidden=(128, 128))
    history = flow.fit(
        gaussian(60), validation=validation, batch_size=20, learning_rate=5e-3, weight_decay=None, **QUIET, **keywords
    )
    return flow, history


def test_overfitting_is_stopped_and_the_best_weights_are_kept():
    held_out = gaussian(60, "held out")
    flow, history = overfit(held_out, epochs=400, patience=15)
    assert history.stopped == "patience"
    assert len(history.validation_loss) < 400
    assert history.best_loss == min(history.validation_loss) == history.validation_loss[history.best_epoch - 1]
    assert len(history.validation_loss) - history.best_epoch == 15
    assert history.validation_loss[-1] > history.best_loss + 0.1
    assert_allclose(loss_of(flow, held_out), history.best_loss, rtol=1e-5)
    assert history.train_loss[-1] < history.best_loss - 0.5


def test_without_held_out_rows_the_last_weights_are_kept():
    for validation in (None, 0):
        flow, history = overfit(validation, epochs=30)
        assert history.stopped == "epochs"
        assert len(history.train_loss) == 30
        assert loss_of(flow, gaussian(60)) < history.train_loss[0]
        assert_allclose(loss_of(flow, gaussian(60)), history.train_loss[-1], atol=0.5)


def test_the_text_of_a_history_has_its_attributes():
    """The text of a history has names and values of attributes; for `seconds` the text has the last value."""
    history = overfit(gaussian(60), epochs=3)[1]
    shown = dict(re.findall(r"(\w+)=([^,)]+)", repr(history)))
    assert history.epochs == len(history.train_loss) == 3
    assert shown.pop("seconds") == f"{history.seconds[-1]:.2f}"
    assert shown.keys() >= {"epochs", "best_epoch", "best_loss", "stopped"}
    for name, text in shown.items():
        value = getattr(history, name)
        assert text == (f"{value:.4f}" if isinstance(value, float) else repr(value))


def test_ctrl_c_keeps_the_best_weights():
    """A real interrupt, 0.7 s after the start of a fit of many seconds, leaves the best weights."""
    x, held_out = gaussian(100), gaussian(50, "held out")
    flow = small()
    timer = threading.Timer(0.7, _thread.interrupt_main)
    timer.start()
    try:
        history = flow.fit(
            x, validation=held_out, epochs=10**5, batch_size=20, learning_rate=1e-3, patience=10**5, **QUIET
        )
    except KeyboardInterrupt:
        pytest.fail("the interrupt came out of fit")
    finally:
        timer.cancel()
        timer.join()
    assert history.stopped == "interrupted"
    assert len(history.validation_loss) >= 1
    assert history.best_loss <= min(history.validation_loss)  # the interrupted epoch may be the best
    assert_allclose(loss_of(flow, held_out), history.best_loss, rtol=1e-5)


@pytest.mark.parametrize("validation", [gaussian(50, "held out"), None], ids=["held out", "none"])
def test_a_loss_that_is_not_finite_stops_with_a_message_and_finite_weights(validation):
    x = gaussian(100)
    flow = small(scale="exp", transforms=3)
    with pytest.warns(Warning, match="loss.*(nan|inf|finite)"):
        history = flow.fit(x, epochs=50, batch_size=20, learning_rate=1e4, clip=None, validation=validation, **QUIET)
    assert history.stopped == "non-finite"
    assert len(history.train_loss) < 50
    assert np.isfinite(flow.parameters).all()
    assert np.isfinite(flow.log_prob(x)).all()


# --- the weight decay -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_held_out_rows_choose_the_weight_decay():
    """With equally many rows, a table of noise needs much weight decay, and a thin ring little."""
    generator = cases.rng("thin ring")
    angle, radius = generator.uniform(0.0, 2.0 * np.pi, 4000), 2.0 + 0.03 * generator.standard_normal(4000)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    chosen = {}
    for name, rows in (("ring", ring), ("noise", cases.rows(4000, 2, "float64"))):
        x, held_out = rows[:1000], rows[1000:2000]
        flow = hr.NSF(2, transforms=3, hidden=(32, 32))
        history = flow.fit(x, validation=held_out, epochs=150, **QUIET)
        constant = hr.NSF(2, transforms=3, hidden=(32, 32))
        constant_history = constant.fit(x, validation=held_out, epochs=150, weight_decay=None, **QUIET)
        assert constant_history.weight_decay == 1.0
        assert list(constant_history.weight_decays) == [1.0]
        assert history.best_loss <= constant_history.best_loss + 0.05
        if history.best_epoch:  # if rows are noise, fresh weights may be the best
            assert history.weight_decays[history.weight_decay] == min(history.weight_decays.values())
            decided = history.weight_decays[history.weight_decay]
            if isinstance(flow.transforms[0], hr.transforms.Gaussianize):  # tails are added after training
                assert_allclose(loss_of(hr.Flow(flow.transforms[1:]), held_out), decided, rtol=1e-5, atol=1e-5)
            else:
                assert decided == history.best_loss
        assert list(history.weight_decays) == [1.0, 0.2, 0.04, 0.008][: len(history.weight_decays)]
        assert_allclose(loss_of(flow, held_out), history.best_loss, rtol=1e-5, atol=1e-5)
        chosen[name] = history, constant_history
    assert chosen["ring"][0].weight_decay < 0.5 <= chosen["noise"][0].weight_decay
    assert chosen["ring"][0].best_loss < chosen["ring"][1].best_loss - 0.1


def test_a_stage_begins_with_the_best_weights_so_far(monkeypatch):
    began = []
    begin_stage = Run._begin_stage

    def recorded(run):
        if run.stages.index:
            began.append((run.flow.parameters, run.best))
        begin_stage(run)

    monkeypatch.setattr(Run, "_begin_stage", recorded)
    small(transforms=2).fit(gaussian(300), epochs=60, patience=6, batch_size=32, learning_rate=1e-2, **QUIET)
    assert began
    for weights, best in began:
        cases.assert_same_bits(weights, best)


def test_the_choice_of_a_decay_has_the_same_bits_for_any_number_of_threads(set_threads):
    found = []
    for threads in (1, 3):
        set_threads(threads)
        flow = small(transforms=2)
        history = flow.fit(gaussian(300), epochs=60, patience=6, batch_size=32, learning_rate=1e-2, **QUIET)
        found.append((history.weight_decays, history.validation_loss, flow.parameters))
    assert len(found[0][0]) > 1
    assert found[0][:2] == found[1][:2]
    cases.assert_same_bits(found[0][2], found[1][2])


@pytest.mark.parametrize("keywords", [{"validation": None}, {"schedule": "cosine"}, {"patience": None}])
def test_a_decay_that_nothing_can_choose_is_that_of_the_rows(keywords):
    history = small().fit(gaussian(2000), epochs=2, **QUIET, **keywords)
    rows = 2000 if "validation" in keywords else 1800
    assert history.weight_decay == 1000 / rows
    assert set(history.weight_decays) <= {1000 / rows}


# --- few rows -------------------------------------------------------------------------------------------------------


@pytest.mark.costly
@pytest.mark.parametrize("build", [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF])
@pytest.mark.parametrize("rows", [50, 300, 1000])
def test_rows_of_a_gaussian_are_fitted_no_worse_than_by_one(build, rows, request):
    """A flow is worse than the Gaussian of the same rows by at most 0.15 nats with 50 rows, and 0.05 with 300 or more.

    The choice among mixtures does not depend on the flow: only fits of MAFs choose among all mixtures.
    """
    if build is not hr.MAF:
        request.getfixturevalue("one_mixture")
    root = cases.rng("root").standard_normal((5, 5))
    x, new = (cases.rows(n, 5, "float64", key) @ root for n, key in ((rows, "x"), (4000, "new")))
    flow = build(5, transforms=2, hidden=(16,))
    history = flow.fit(x, **QUIET)
    best = gaussian_log_prob(new, x.mean(axis=0), np.cov(x.T)).mean()
    assert flow.log_prob(new).mean(dtype=float) > best - (0.15 if rows == 50 else 0.05)
    assert history.judged_by == ("held-out rows" if rows == 1000 else "cross-validation")


@pytest.mark.costly
def test_few_rows_that_are_no_gaussian_are_learnt():
    """For two clusters far apart, cross-validation chooses a flow that leaves the Gaussian, or begins as a mixture."""
    rows = cases.rows(2400, 2, "float64") * 0.1 + np.where(np.arange(2400) % 2, 1.0, -1.0)[:, None]
    x, new = rows[:400], rows[400:]
    flow = hr.NSF(2, transforms=3, hidden=(32, 32))
    history = flow.fit(x, **QUIET)
    assert not history.gaussian
    assert (history.judged_by, history.stopped) == ("cross-validation", "epochs")
    assert history.mixture or history.best_epoch
    assert len(history.validation_loss) == len(history.train_loss) == history.best_epoch
    assert not history.best_epoch or history.best_loss == history.validation_loss[-1]
    assert flow.log_prob(new).mean() > gaussian_log_prob(new, x.mean(axis=0), np.cov(x.T)).mean() + 0.5
    assert_allclose(loss_of(flow, new), history.best_loss, atol=0.3)


@pytest.mark.costly
def test_a_flow_that_became_a_gaussian_is_saved_and_fitted_again():
    x = gaussian(300)
    flow = hr.MAF(FEATURES, transforms=2, hidden=(16,))
    history = flow.fit(x, **QUIET)
    assert history.gaussian
    assert history.best_epoch == 0
    assert_allclose(history.best_loss, loss_of(flow, x), atol=0.1)
    again = hr.from_bytes(hr.to_bytes(flow))
    cases.assert_same_bits(again.log_prob(x), flow.log_prob(x))
    assert not again.fit(x, epochs=2, **QUIET).gaussian
    assert len(again) == len(flow)


def test_own_held_out_rows_that_are_too_few_give_a_warning():
    with pytest.warns(RuntimeWarning, match="fit: 20 held-out rows are too few to judge by"):
        small().fit(gaussian(100), validation=gaussian(20, "own"), **QUIET)


@pytest.mark.parametrize("rows", [1, 2, 9, 10])
def test_very_few_rows_leave_a_gaussian(rows):
    flow = hr.NSF(FEATURES, transforms=1, hidden=(8,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns of one row are constant
        flow.fit(gaussian(rows), **QUIET)
    assert np.isfinite(flow.log_prob(gaussian(100))).all()


# --- effects that defaults must not have ------------------------------------------------------------------------------


def test_the_default_decay_leaves_a_trainable_base_alone():
    """The flow has a trainable base and no Standardize, so that the mean must be able to become large."""
    x = np.array([10.0, -3.0]) + np.array([1.0, 4.0]) * cases.rows(1000, 2, "float64", "far")
    flow = hr.Flow([], hr.Normal(2), dtype="float64")
    flow.fit(x, epochs=300, learning_rate=0.05, **QUIET)
    mean, std = moments(x)
    np.testing.assert_allclose(flow.base.loc, mean, atol=0.3)
    np.testing.assert_allclose(flow.base.scale, std, rtol=0.1)


def test_a_second_fit_never_ends_worse_on_the_same_held_out_rows():
    x, held_out = gaussian(500), gaussian(200, "held out")
    flow = small("float64")
    first = flow.fit(x, validation=held_out, epochs=60, learning_rate=1e-2, **QUIET)
    before = flow.parameters
    second = flow.fit(x, validation=held_out, epochs=1, batch_size=8, learning_rate=1.0, **QUIET)
    assert second.best_epoch == 0
    assert second.best_loss == first.best_loss
    cases.assert_same_bits(flow.parameters, before)


def test_a_plateau_without_held_out_rows_goes_by_the_training_loss():
    """The learning rate is halved after each third of the patience in which no epoch was the best so far."""
    history = small("float64").fit(
        gaussian(100), validation=None, schedule="plateau", patience=9, epochs=60, learning_rate=0.05, **QUIET
    )
    rate, lowest, waited, want = 0.05, np.inf, 0, []
    for loss in history.train_loss:
        want.append(rate)
        waited = 0 if loss < lowest else waited + 1
        lowest = min(loss, lowest)
        if waited and waited % 3 == 0:
            rate /= 2
    assert want[-1] < want[0]
    assert_allclose(history.learning_rate, want, rtol=1e-12)


def test_held_out_rows_that_are_never_finite_are_reported():
    with pytest.warns(RuntimeWarning, match="held-out loss was never finite"):
        history = small("float32").fit(gaussian(100), validation=np.full((5, FEATURES), 1e30), epochs=2, **QUIET)
    assert history.best_epoch == 0


def test_a_lone_row_of_context_is_not_standardised():
    flow = small("float64", context=2)
    flow.fit(gaussian(100), np.array([3.0, 4.0]), epochs=1, **QUIET)
    assert flow.standardize_context is None
