"""A Standardize, or its inverse, at any place of a chain: densities and samples know about it."""

import numpy as np
import pytest

import cases
import headrace as hr
import reference

FEATURES = 3
MEAN, STD = np.array([3.0, -1.0, 0.5]), np.array([2.0, 0.25, 1.5])


def chain(place, inverted, dtype):
    """A chain of two networks with a (perhaps inverted) Standardize at `place`, and its reference."""
    networks = [cases.made(features=FEATURES, key=(k,)).astype(dtype) for k in ("a", "b")]
    library = [hr.MaskedAutoregressive.from_dense(*n.arrays, activation="tanh") for n in networks]
    judge = [reference.MaskedAutoregressive(n.network("tanh")) for n in networks]
    library.insert(place, hr.Inverse(hr.Standardize(MEAN, STD)) if inverted else hr.Standardize(MEAN, STD))
    judge.insert(
        place, reference.Inverse(reference.Standardize(MEAN, STD)) if inverted else reference.Standardize(MEAN, STD)
    )
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
def test_a_sample_is_the_base_sample_pushed_through(place, inverted, dtype):
    flow, judge = chain(place, inverted, dtype)
    for n in (5, 101):
        z = flow[:0].sample(n, seed=3)
        x, log_prob = flow.sample_and_log_prob(n, seed=3)
        cases.assert_close(x, judge.to_data(z)[0], magnitude=100.0, depth=64)
        cases.assert_close(log_prob, judge.log_prob(x), magnitude=100.0, depth=64)


def test_a_mean_far_larger_than_the_scale_cancels_nowhere():
    x = np.float32(1000.0) + np.linspace(-0.01, 0.01, 41, dtype="float32")[:, None]
    want = (x.astype("float64") - 1000.0) / 3e-3
    behind_a_permutation = hr.Flow([hr.Standardize([1000.0], [3e-3]), hr.Permutation([0])])
    before_a_network = hr.Flow([hr.MaskedAutoregressive(1, map="additive"), hr.Standardize([1000.0], [3e-3])])
    assert np.abs(behind_a_permutation.to_latent(x)[0] - want).max() < 1e-6
    assert np.abs(before_a_network.to_latent(x)[0] - want).max() < 0.2  # the fresh shift; the digits come from x
    base = hr.Flow([], hr.Normal(1, 1000.0, 3e-3, trainable=False))
    want_log_prob = -0.5 * want[:, 0] ** 2 - 0.5 * np.log(2 * np.pi) - np.log(3e-3)
    assert np.abs(base.log_prob(x) - want_log_prob).max() < 1e-5
