"""``fit``: how data are standardised, the forms of its arguments, its history, its messages, and its refusals."""

import copy
import itertools
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from fitting import FEATURES, MEAN, QUIET, SHORT, gaussian, gaussian_log_prob, loss_of, moments, small

# --- standardisation ------------------------------------------------------------------------------------------------


def test_standardize_is_set_from_the_training_rows_and_their_weights():
    x, weights = gaussian(300) * [1.0, 100.0, 1e-3], cases.rng("weights").random(300)
    for given in (None, weights):
        flow = small()
        flow.fit(x, weights=given, validation=(gaussian(50, "other") * 9.0,), **SHORT)
        mean, std = moments(x, given)
        assert_allclose(flow.transforms[-1].mean, mean, rtol=1e-9)
        assert_allclose(flow.transforms[-1].std, std, rtol=1e-9)


def test_held_out_rows_take_no_part_in_standardisation():
    """With half of eight rows held out, the moments are those of one of the 70 subsets of four rows."""
    x = gaussian(8)
    flow = small()
    flow.fit(x, validation=0.5, **SHORT)
    got = np.array([flow.transforms[-1].mean, flow.transforms[-1].std])
    subsets = [moments(x[list(rows)]) for rows in itertools.combinations(range(8), 4)]
    assert sum(np.allclose(got, want, rtol=1e-9) for want in subsets) == 1


def test_a_second_fit_keeps_the_standardisation():
    flow = small(context=1)
    context = cases.rows(300, 1, "float64", "context")
    flow.fit(gaussian(300), context, **SHORT)
    standardize, kept = flow.transforms[-1], flow.standardize_context
    flow.fit(10.0 + 5.0 * gaussian(300, "second"), 7.0 + context, **SHORT)
    assert_array_equal(flow.transforms[-1].mean, standardize.mean)
    assert_array_equal(flow.transforms[-1].std, standardize.std)
    for got, want in zip(flow.standardize_context, kept, strict=True):
        assert_array_equal(got, want)


def test_context_is_standardised_likewise(dtype):
    flow = small(dtype, context=2)
    assert flow.standardize_context is None
    context = cases.rows(300, 2, "float64", "context") * [1e3, 1e-3] + [1e4, 5.0]
    weights = cases.rng("weights").random(300)
    flow.fit(gaussian(300), context, weights=weights, validation=None, **SHORT)
    mean, std = flow.standardize_context
    want_mean, want_std = moments(context, weights)
    assert_allclose(mean, want_mean, rtol=1e-9)
    assert_allclose(std, want_std, rtol=1e-9)
    # The fitted flow takes raw contexts; a flow of its transforms alone takes standardised contexts.
    x = gaussian(20, "x")
    plain = hr.Flow(flow.transforms)
    assert plain.standardize_context is None
    want = plain.log_prob(x, ((context[:20] - mean) / std).astype(dtype))
    cases.assert_close(flow.log_prob(x, context[:20]), want.astype(float), magnitude=10.0, depth=64)
    assert_allclose(copy.copy(flow).standardize_context[0], mean)
    assert_allclose(flow.astype("float64").standardize_context[1], std)


def test_gradients_for_a_standardised_context_are_those_of_the_given_one():
    flow = small("float64", context=2)
    context = cases.rows(100, 2, "float64", "context") * [50.0, 0.02]
    flow.fit(gaussian(100), context, **SHORT)
    x, ones = gaussian(5, "x"), np.ones(5)
    (got,) = flow.log_prob_vjp(x, ones, context[:5], wrt=("context",))
    for column, size in enumerate((50.0, 0.02)):
        step = np.zeros(2)
        step[column] = 1e-5 * size
        up, down = flow.log_prob(x, context[:5] + step), flow.log_prob(x, context[:5] - step)
        assert_allclose(got[:, column], (up - down) / (2.0 * step[column]), rtol=1e-4, atol=1e-4 / size)


def test_a_constant_column_gets_scale_one_and_a_warning():
    x = gaussian(200)
    x[:, 1] = 7.0
    flow = small("float64")
    with pytest.warns(Warning, match=r"constant") as caught:
        flow.fit(x, **SHORT)
    assert any("1" in str(warning.message) for warning in caught)  # the warning has the index of the column
    assert flow.transforms[-1].std[1] == 1.0
    assert_allclose(flow.transforms[-1].mean[1], 7.0)
    assert np.isfinite(flow.log_prob(x)).all()


def test_a_flow_without_standardize_stays_without():
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(FEATURES, (8,))])
    flow.fit(gaussian(200), **SHORT)
    assert len(flow) == 1
    fixed = hr.Flow([hr.transforms.MaskedAutoregressive(FEATURES, (8,)), hr.transforms.Standardize(MEAN, np.ones(3))])
    fixed.fit(gaussian(200), **SHORT)
    assert_array_equal(fixed.transforms[-1].mean, MEAN)


@pytest.mark.parametrize("input_dtype", ["float64", "float32"])
def test_data_far_from_zero_are_learnt_as_well(input_dtype):
    """Near a mean of 1e6 float32 has steps of 0.06; float64 rows lose no digits in a float32 flow."""
    near, held_out = gaussian(1000), gaussian(1000, "held out")
    flow = small()
    with pytest.warns(RuntimeWarning, match="float32 has fewer than four digits"):
        flow.fit((near + 1e6).astype(input_dtype), epochs=30, batch_size=100, learning_rate=1e-2, **QUIET)
    log_prob = flow.log_prob((held_out + 1e6).astype(input_dtype))
    assert log_prob.dtype == np.float32
    best = gaussian_log_prob(held_out, near.mean(axis=0), np.cov(near.T)).mean()
    assert abs(log_prob.mean() - best) < 0.1


# --- history and forms of arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
def test_history_has_one_number_an_epoch(schedule):
    flow = small()
    history = flow.fit(gaussian(200), schedule=schedule, epochs=6, batch_size=64, learning_rate=1e-2, **QUIET)
    for numbers in (history.train_loss, history.validation_loss, history.learning_rate, history.seconds):
        assert len(numbers) == 6
        assert all(isinstance(number, float) and np.isfinite(number) for number in numbers)
    assert history.stopped == "epochs"
    assert history.best_loss == min(history.validation_loss) == history.validation_loss[history.best_epoch - 1]
    assert all(seconds >= 0.0 for seconds in history.seconds)
    assert max(history.learning_rate) <= 1e-2 * (1.0 + 1e-6)
    assert history.train_loss[-1] < history.train_loss[0]
    if schedule == "constant":
        assert history.learning_rate == [1e-2] * 6
    if schedule == "cosine":
        assert history.learning_rate[-1] < 0.5 * max(history.learning_rate)


def test_losses_are_in_nats_of_the_data():
    """A scale of 1000 in each of three columns costs 3 log 1000 nats, although the fit standardises all columns."""
    x, held_out = gaussian(300), gaussian(100, "held out")
    one = small("float64").fit(x, validation=held_out, **SHORT)
    other = small("float64").fit(1e3 * x, validation=1e3 * held_out, **SHORT)
    shift = 3.0 * np.log(1e3)
    assert_allclose(np.array(other.train_loss) - shift, one.train_loss, atol=1e-4)
    assert_allclose(np.array(other.validation_loss) - shift, one.validation_loss, atol=1e-4)


def test_all_forms_of_validation_rows():
    x, context, weights = gaussian(200), cases.rows(200, 1, "float64", "context"), np.linspace(0.1, 1.0, 200)
    held_out, held_context, held_weights = (
        gaussian(50, "v"),
        cases.rows(50, 1, "float64", "v"),
        np.linspace(1.0, 3.0, 50),
    )
    flow = small("float64")
    for validation in (held_out, (held_out,), held_out.astype("float32")):
        history = copy.copy(flow).fit(x, validation=validation, **SHORT)
        assert len(history.validation_loss) == 3
    for validation, w in [((held_out, held_context), None), ((held_out, held_context, held_weights), held_weights)]:
        conditional = small("float64", context=1)
        history = conditional.fit(x, context, weights=weights, validation=validation, **SHORT)
        assert_allclose(loss_of(conditional, held_out, held_context, w), history.best_loss, rtol=1e-9)
    history = small("float64", context=1).fit(x, context, validation=(held_out, np.array([0.5])), **SHORT)
    assert np.isfinite(history.best_loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one context for all rows is constant
        history = small("float64", context=1).fit(x, np.array([0.5]), validation=None, **SHORT)
    assert np.isfinite(history.train_loss).all()


def test_no_epochs_change_no_parameters():
    flow = small()
    kept = flow.parameters
    history = flow.fit(gaussian(100), epochs=0, **QUIET)
    assert history.train_loss == history.validation_loss == history.learning_rate == []
    assert history.seconds == history.cpu_seconds == []
    assert (history.stopped, history.best_epoch) == ("epochs", 0)  # epoch 0 is the state before the first step
    cases.assert_same_bits(flow.parameters, kept)
    history = flow.fit(gaussian(100), epochs=1, **QUIET)
    assert len(history.train_loss) == len(history.validation_loss) == 1
    assert history.best_epoch == 1
    assert np.abs(flow.parameters - kept).max() > 0


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_few_rows_are_fitted_without_a_crash(n):
    """Fits of one to nine rows end with finite densities; one row has no spread, so that its columns are constant."""
    flow = small("float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = flow.fit(gaussian(n), validation=None, **SHORT)
        assert len(history.train_loss) == 3
        if n > 1:
            small("float64").fit(gaussian(n), validation=0.5, **SHORT)
    assert np.isfinite(flow.parameters).all()
    assert np.isfinite(flow.log_prob(gaussian(n))).all()


def test_given_arrays_are_not_changed():
    arrays = gaussian(100), cases.rows(100, 1, "float64", "context"), np.linspace(0.1, 1.0, 100)
    kept = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    small(context=1).fit(arrays[0], arrays[1], weights=arrays[2], **SHORT)
    for array, before in zip(arrays, kept, strict=True):
        cases.assert_same_bits(array, before)


# --- messages -------------------------------------------------------------------------------------------------------


def test_progress_is_a_bar_on_stderr_or_nothing(capsys, monkeypatch):
    monkeypatch.setattr("headrace._base.progress.watched", lambda: True)
    pytest.importorskip("tqdm")
    settings = SHORT | {"progress": False}
    small().fit(gaussian(100), **settings)
    assert capsys.readouterr() == ("", "")
    small().fit(gaussian(100), **(settings | {"progress": True}))
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err


def test_without_progress_nothing_is_printed(capfd):
    small().fit(gaussian(100), **SHORT)
    assert capfd.readouterr() == ("", "")


def test_rows_that_are_not_finite_are_refused_with_their_number_and_the_first(dtype):
    x, context = gaussian(100).astype(dtype), cases.rows(100, 1, dtype, "context")
    x[17, 1], x[40], x[99, 2] = np.nan, np.inf, -np.inf
    flow = small(context=1)
    kept = flow.parameters
    with pytest.raises(ValueError, match=r"\bx\b") as error:
        flow.fit(x, context, **SHORT)
    cases.assert_says(error, r"\b3\b", r"\b17\b")
    context[[23, 56]] = np.nan
    with pytest.raises(ValueError, match=r"\bcontext\b") as error:
        flow.fit(gaussian(100), context, **SHORT)
    cases.assert_says(error, r"\b2\b", r"\b23\b")
    cases.assert_same_bits(flow.parameters, kept)
    assert not flow.transforms[-1].mean.any()
    assert flow.standardize_context is None


X = gaussian(20)
BAD = {
    "rows of a list of words": ({"x": [["a", "b", "c"]]}, [r"\bx\b", "real numbers"]),
    "rows of complex numbers": ({"x": X.astype(complex)}, [r"\bx\b", "complex128"]),
    "too few columns": ({"x": X[:, :2]}, [r"\bx\b", r"\b3\b", r"\b2\b"]),
    "no rows": ({"x": X[:0]}, [r"\bx\b", r"\b0\b|no "]),
    "context that nothing reads": ({"context": np.zeros((20, 1))}, ["context"]),
    "weights too few": ({"weights": np.ones(19)}, ["weights", r"\b20\b", r"\b19\b"]),
    "weights below zero": ({"weights": np.linspace(-1.0, 1.0, 20)}, ["weights", "-1"]),
    "weights of NaN": ({"weights": np.full(20, np.nan)}, ["weights", "nan"]),
    "weights all zero": ({"weights": np.zeros(20)}, ["weights"]),
    "a share of all": ({"validation": 1.0}, ["validation", r"1\.0"]),
    "a share below zero": ({"validation": -0.1}, ["validation", r"-0\.1"]),
    "a share of a string": ({"validation": "some"}, ["validation", "some|str"]),
    "held-out rows of two columns": ({"validation": X[:, :2]}, ["validation", r"\b3\b", r"\b2\b"]),
    "a tuple of four": (
        {"validation": (X, None, None, None)},
        ["validation", "tuple", "ndarray, None"],
    ),
    "held-out context that nothing reads": ({"validation": (X, np.zeros((20, 1)))}, ["validation", "context"]),
    "epochs below zero": ({"epochs": -1}, ["epochs", "-1"]),
    "epochs of a fraction": ({"epochs": 2.5}, ["epochs", r"2\.5|float"]),
    "batches of nothing": ({"batch_size": 0}, ["batch_size", r"\b0\b"]),
    "batches of a fraction": ({"batch_size": 2.5}, ["batch_size", r"2\.5|float"]),
    "a learning rate of zero": ({"learning_rate": 0.0}, ["learning_rate", r"\b0"]),
    "a learning rate of NaN": ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
    "an unknown schedule": ({"schedule": "step"}, ["schedule", "cosine", "plateau", "constant", "step"]),
    "a decay below zero": ({"weight_decay": -1.0}, ["weight_decay", "-1"]),
    "a clip of zero": ({"clip": 0.0}, ["clip", r"\b0"]),
    "patience of a fraction": ({"patience": 2.5}, ["patience", r"2\.5|float"]),
    "a seed of a string": ({"seed": "a"}, ["seed", "str|'a'"]),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_refused_by_name_and_change_nothing(name):
    keywords, words = BAD[name]
    flow = small()
    kept = flow.parameters
    with pytest.raises((TypeError, ValueError)) as error:
        flow.fit(**({"x": X} | SHORT | keywords))
    cases.assert_says(error, *words)
    cases.assert_same_bits(flow.parameters, kept)
    assert not flow.transforms[-1].mean.any()


def test_a_flow_that_needs_context_is_not_fitted_without():
    flow = small(context=1)
    with pytest.raises(ValueError, match=r"\bcontext\b"):
        flow.fit(X, **SHORT)
    with pytest.raises((TypeError, ValueError), match=r"\bvalidation\b"):
        flow.fit(X, np.ones((20, 1)), validation=X, **SHORT)
