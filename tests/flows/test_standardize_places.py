"""A Standardize or its inverse anywhere in a chain gives the densities and samples of the reference."""

import numpy as np
import pytest

import cases
import headrace as hr
import reference

FEATURES = 3
MEAN, STD = np.array([3.0, -1.0, 0.5]), np.array([2.0, 0.25, 1.5])


def chain(place, inverted, dtype, order=None):
    """Return a chain of two networks with a (perhaps inverted) Standardize at `place`, and its reference.

    `order`: the order of a permutation at the data end.
    """
    networks = [cases.made(features=FEATURES, key=(k,)).astype(dtype) for k in ("a", "b")]
    library = [hr.transforms.MaskedAutoregressive.from_dense(*n.arrays, activation="tanh") for n in networks]
    judge = [reference.MaskedAutoregressive(n.network("tanh")) for n in networks]
    library.insert(
        place,
        hr.transforms.Inverse(hr.transforms.Standardize(MEAN, STD))
        if inverted
        else hr.transforms.Standardize(MEAN, STD),
    )
    judge.insert(
        place, reference.Inverse(reference.Standardize(MEAN, STD)) if inverted else reference.Standardize(MEAN, STD)
    )
    if order is not None:
        library.append(hr.transforms.Permutation(order))
        judge.append(reference.Permutation(order))
    return hr.Flow(library), reference.Flow(judge, reference.StandardNormal())


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_log_prob_matches_the_reference(place, inverted, dtype):
    flow, judge = chain(place, inverted, dtype)
    for n in (1, 101):
        x = cases.rows(n, FEATURES, dtype)
        cases.assert_close(flow.log_prob(x), judge.log_prob(x), magnitude=100.0, depth=64)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_sample_is_the_transformed_base_sample(place, inverted, dtype):
    flow, judge = chain(place, inverted, dtype)
    for n in (5, 101):
        z = flow[:0].sample(n, seed=3)
        x, log_prob = flow.sample_and_log_prob(n, seed=3)
        cases.assert_close(x, judge.to_data(z)[0], magnitude=100.0, depth=64)
        cases.assert_close(log_prob, judge.log_prob(x), magnitude=100.0, depth=64)


@pytest.mark.parametrize("inverted", [False, True])
def test_columns_may_change_places_at_the_data_end(inverted, dtype):
    """Rows are loaded and stored with the mean and deviation of each column, also behind a permutation."""
    flow, judge = chain(2, inverted, dtype, order=[2, 0, 1])
    x, log_prob = flow.sample_and_log_prob(41, seed=3)
    cases.assert_close(x, judge.to_data(flow[:0].sample(41, seed=3))[0], magnitude=100.0, depth=64)
    cases.assert_close(log_prob, judge.log_prob(x), magnitude=100.0, depth=64)
    cases.assert_close(flow.log_prob(x), judge.log_prob(x), magnitude=100.0, depth=64)


def far_from_zero():
    """Return rows exact in float32, although mean / scale is 3e5, and their standardised values."""
    x = np.float32(1000.0) + np.linspace(-0.01, 0.01, 41, dtype="float32")[:, None]
    return x, (x.astype("float64") - 1000.0) / 3e-3


def identity_network():
    """Return a transform that changes no bit; a Standardize on its latent side is no longer at the data end."""
    network = hr.transforms.MaskedAutoregressive(1, map="additive", hidden=(4,))
    network.parameters = np.zeros_like(network.parameters)
    return network


@pytest.mark.parametrize("rows", [5, 41])
@pytest.mark.parametrize(
    "behind", [[], [hr.transforms.Permutation([0])], [identity_network()]], ids=["end", "moved", "middle"]
)
def test_a_mean_far_larger_than_the_scale_cancels_nowhere(behind, rows):
    x, want = (a[:rows] for a in far_from_zero())
    z, _ = hr.Flow([hr.transforms.Standardize([1000.0], [3e-3]), *behind]).to_latent(x)
    assert np.abs(z - want).max() < 1e-6
    flow = hr.Flow(behind, hr.Normal(1, 1000.0, 3e-3, trainable=False))
    want_log_prob = -0.5 * want[:, 0] ** 2 - 0.5 * np.log(2 * np.pi) - np.log(3e-3)
    assert np.abs(flow.log_prob(x) - want_log_prob).max() < 1e-5
