"""`ActNorm`, the elementwise affine map that a fit sets from its rows: its values, and which fits set it or keep it."""

import copy

import numpy as np
import pytest

import cases
import gradients
import headrace as hr

MEAN, STD = np.array([5.0, -300.0, 0.01]), np.array([2.0, 40.0, 1e-3])


def rows(n=400, *key):
    return MEAN + STD * cases.rows(n, 3, "float64", "act norm", *key)


def started(flow, x, context=None, **more):
    """Fit for no epochs, so that the flow keeps the values with which a fit to all rows starts."""
    flow.fit(x, context, validation=None, epochs=0, progress=False, **more)
    return flow


def assert_standard(z, weights=None, allowed=1e-5):
    mean = np.average(z, axis=0, weights=weights)
    np.testing.assert_allclose(mean, 0.0, atol=allowed)
    np.testing.assert_allclose(np.average((z - mean) ** 2, axis=0, weights=weights), 1.0, atol=2 * allowed)


def norms_of(flow):
    return [t for t in flow.transforms if isinstance(t, hr.transforms.ActNorm)]


# --- values and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)
def test_values_and_gradients(verb, dtype):
    t = cases.randomise(hr.transforms.ActNorm(3, dtype=dtype), 0.5)
    made = gradients.act_norm(t)
    for n in cases.BATCH_SIZES:
        cases.check_directions(t, made.judge(made.arrays), cases.rows(n, 3, dtype), None, dtype)
    wide = gradients.act_norm(t.astype("float64"))
    gradients.check(wide, verb, cases.rows(9, 3, "float64"), number_by_number=True)


def test_a_fresh_act_norm_is_the_identity(dtype):
    x = cases.rows(9, 3, dtype)
    z, log_det = hr.transforms.ActNorm(3, dtype=dtype).inverse(x)
    cases.assert_same_bits(z, x)
    assert not log_det.any()


# --- the start of a fit ---------------------------------------------------------------------------------------------


def test_a_fit_standardises_the_outputs_of_an_act_norm(dtype):
    x = rows()
    flow = started(hr.Flow([hr.transforms.ActNorm(3, dtype=dtype)]), x)
    assert norms_of(flow)[0].is_started
    named = flow.named_parameters()
    np.testing.assert_allclose(named["transforms.0.shift"], x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.exp(named["transforms.0.log_scale"]), x.std(axis=0), rtol=1e-5)
    assert_standard(flow.to_latent(x)[0].astype(float), allowed=1e-4)


def test_each_act_norm_of_a_chain_is_started():
    """A fit standardises the outputs of each ActNorm in a chain, even where random networks separate the ActNorms."""
    n, x = 3, rows()
    context = 7.0 + 2.0 * cases.rows(400, 2, "float64", "context")
    chain = [
        hr.transforms.ActNorm(n, dtype="float64"),
        cases.randomise(hr.transforms.Coupling(n, [0], (8,), context=2, dtype="float64"), 0.6),
        hr.transforms.ActNorm(n, dtype="float64"),
        cases.randomise(hr.transforms.MaskedAutoregressive(n, (8,), context=2, dtype="float64"), 0.6),
        hr.transforms.ActNorm(n, dtype="float64"),
        hr.transforms.Standardize(np.zeros(n), np.ones(n)),
    ]
    flow = started(hr.Flow(chain), x, context)
    value, given = x, (context - flow.standardize_context[0]) / flow.standardize_context[1]
    for t in reversed(flow.transforms):
        value = t.inverse(value, given if t.context else None)[0]
        if isinstance(t, hr.transforms.ActNorm):
            assert_standard(value)
    assert not any(t.is_started for t in chain if isinstance(t, hr.transforms.ActNorm)), (
        "the caller's own are left alone"
    )


def test_weights_count(dtype):
    x, weights = rows(), cases.rng("weights").uniform(0.0, 2.0, 400)
    weights[:50] = 0.0
    x[:50] = 1e6
    flow = started(hr.Flow([hr.transforms.ActNorm(3, dtype=dtype)]), x, weights=weights)
    assert_standard(flow.to_latent(x)[0].astype(float)[50:], weights[50:], allowed=1e-4)


def test_a_constant_column_is_shifted_and_not_scaled():
    x = rows()
    x[:, 1] = 42.0
    flow = started(hr.Flow([hr.transforms.ActNorm(3, dtype="float64")]), x)
    named = flow.named_parameters()
    assert named["transforms.0.shift"][1] == 42.0
    assert named["transforms.0.log_scale"][1] == 0.0


def test_training_rows_alone_count():
    x = rows()
    flow = hr.Flow([hr.transforms.ActNorm(3, dtype="float64")])
    flow.fit(x, validation=x + 1e4, epochs=0, progress=False)
    assert_standard(flow.to_latent(x)[0])


def test_a_later_fit_keeps_an_act_norm(tmp_path):
    flow = started(hr.Flow([hr.transforms.ActNorm(3, dtype="float64")]), rows())
    before = flow.parameters
    for other in (flow, copy.copy(flow), hr.from_bytes(hr.to_bytes(flow))):
        cases.assert_same_bits(started(other, 10.0 * rows()).parameters, before)


def test_parameters_of_the_caller_are_kept():
    norm = hr.transforms.ActNorm(3, dtype="float64")
    norm.set_parameter("shift", np.array([1.0, 0.0, 0.0]))
    flow = started(hr.Flow([norm, hr.transforms.Inverse(hr.transforms.ActNorm(3, dtype="float64"))]), rows())
    cases.assert_same_bits(flow[0].parameters, norm.parameters)
    assert not norms_of(flow)[0].is_started
    assert not flow[1].parameters.any()  # the ActNorm inside of an Inverse stays the identity


def test_parameters_set_back_to_the_identity_are_kept():
    flow = started(hr.Flow([hr.transforms.ActNorm(3, dtype="float64")]), rows())
    flow.parameters = np.zeros_like(flow.parameters)
    assert not started(flow, rows()).parameters.any()


def test_an_overflow_before_a_fit_leaves_the_identity():
    wild = hr.transforms.Elementwise(3, map="affine", scale="exp")
    wild.set_parameter("scale", np.full((3, 1), -200.0))
    flow = started(hr.Flow([hr.transforms.ActNorm(3), wild]), rows())
    assert not flow[0].parameters.any()


def test_a_fit_goes_on_from_started_act_norms():
    flow = hr.Flow(
        [
            hr.transforms.ActNorm(3),
            hr.transforms.Coupling(3, [0], (8,)),
            hr.transforms.ActNorm(3),
            hr.transforms.Coupling(3, [1, 2], (8,)),
        ]
    )
    flow = hr.Flow([*flow.transforms, hr.transforms.ActNorm(3)])
    x = rows(1000)
    history = flow.fit(x, epochs=3, progress=False)
    assert len(history.train_loss) == 3
    best = -(np.log(STD) + 0.5 + 0.5 * np.log(2 * np.pi)).sum()
    assert abs(flow.log_prob(x).mean() - best) < 0.1


@pytest.mark.usefixtures("one_mixture")
def test_few_rows_and_the_gaussian_that_stands_in():
    """Cross-validation sets the ActNorms for each fold by itself; in a flow that ends as the Gaussian of its rows, the
    ActNorms are the identity.
    """
    chain = [
        hr.transforms.ActNorm(3),
        hr.transforms.Coupling(3, [0], (8,)),
        hr.transforms.ActNorm(3),
        hr.transforms.Standardize(np.zeros(3), np.ones(3)),
    ]
    for n in (60, 700):
        flow, x = hr.Flow(chain), rows(n)
        flow.fit(x, progress=False)
        assert all(norm.is_started for norm in norms_of(flow))
        best = -(np.log(STD) + 0.5 + 0.5 * np.log(2 * np.pi)).sum()
        assert abs(flow.log_prob(rows(4000, "new")).mean() - best) < 0.3


@pytest.mark.parametrize(
    ("given", "words"),
    [({"features": 0}, ["features: ", "0"]), ({"dtype": "float16"}, ["dtype: ", "float16"])],
    ids=str,
)
def test_wrong_arguments_are_refused(given, words):
    with pytest.raises((TypeError, ValueError)) as error:
        hr.transforms.ActNorm(**{"features": 3, **given})
    cases.assert_says(error, *words)
