"""Backward passes of few rows on a device use narrow tiles, which occupy more multiprocessors and give the same
bits."""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import network_cases
from cuda_twins import Twin
from pairs import pairwise
from program_cases import CHAINS, inputs_of

WHOLE, NARROW = 1, 1000  # numbers of multiprocessors for which all tiles are whole, or narrow
PRODUCTS = ["exact", "tf32", "3xtf32"]
every_product = pytest.mark.parametrize("matmul", PRODUCTS)


@pytest.mark.parametrize(
    ("rows", "multiprocessors", "tile"),
    [
        (1, 132, 8),
        (1000, 132, 8),  # 125 narrow tiles in place of 32 whole ones
        (1000, 108, 8),  # 125 narrow tiles take two rounds
        (2112, 132, 8),  # 264 narrow tiles take two rounds
        (2113, 132, 32),
        (100_000, 132, 32),
        (9, 1, 8),
        (17, 1, 32),
    ],
)
def test_narrow_tiles_are_chosen_by_rows_and_multiprocessors(rows, multiprocessors, tile, emu):
    assert emu.module.rows_of_tile(rows, multiprocessors) == tile


def both(emu, twin, rows, call):
    """The results of a call in whole tiles, and in narrow tiles."""
    found = []
    for multiprocessors in (WHOLE, NARROW):
        assert emu.module.rows_of_tile(rows, multiprocessors) == (32 if multiprocessors == WHOLE else 8)
        emu.module.set_multiprocessors(multiprocessors)
        found.append(call(twin))
    return found


def assert_same(emu, twin, given, context, **settings):
    """Check that all results of a forward and backward pass have the same bits in whole and narrow tiles."""
    n = len(given)
    by_row = cases.rng("by row", n).standard_normal(n).astype(given.dtype)
    by_value = cases.rows(n, given.shape[1], given.dtype, "by value")
    wrt = (*gradients.every(context), "value", "log_det")
    for verb, wanted in (("to_data_vjp", wrt), ("to_latent_vjp", wrt)):
        whole, narrow = both(
            emu,
            twin,
            n,
            lambda t: getattr(t, verb)(given, by_value, by_row, context, wrt=wanted),  # noqa: B023
        )
        for a, b in zip(narrow, whole, strict=True):
            cases.assert_same_bits(a, b)
    wrt = (*gradients.every(context), "log_prob")
    whole, narrow = both(emu, twin, n, lambda t: t.log_prob_vjp(given, by_row, context, wrt=wrt))
    for a, b in zip(narrow, whole, strict=True):
        assert np.isfinite(a).all()
        cases.assert_same_bits(a, b)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("dtype", "matmul"), [("float64", "exact"), ("float32", "exact"), ("float32", "3xtf32")])
def test_chains_have_the_same_bits(name, matmul, emu, dtype):
    flow = CHAINS[name](dtype)
    assert_same(emu, Twin(emu, flow, matmul=matmul), *inputs_of(flow, 41, dtype))


@pairwise(name=cases.NETWORKS, reads=cases.READS, matmul=PRODUCTS, together=("reads", "matmul"))
def test_networks_have_the_same_bits(name, reads, matmul, emu):
    """Some layers have few sums, whose terms several warps share, and some have more sums than all warps compute in one
    round."""
    chosen = {"features": 5, "context": 2} | cases.NETWORKS[name]
    dense = cases.made(**chosen).astype("float32")
    flow = hr.Flow([gradients.masked(dense, "tanh", reads=reads).library])
    assert_same(emu, Twin(emu, flow, matmul=matmul), *inputs_of(flow, 17, "float32"))


@every_product
@pytest.mark.parametrize("hidden", [(300, 34), (64, 130), (129,)])
def test_wide_layers_have_the_same_bits(hidden, matmul, emu):
    """The layers have more blocks of sums than the 32 that a narrow tile computes at once, or so many that some warps
    are idle in the last round.
    """
    flow = cases.randomise(hr.MAF(43, hidden=hidden, transforms=1), 0.2)
    assert_same(emu, Twin(emu, flow, matmul=matmul), *inputs_of(flow, 17, "float32"))


@pytest.mark.parametrize("map", ["rq_spline", "affine"])
def test_maps_of_many_coordinates_have_the_same_bits(map, emu):
    """The eight warps of a narrow tile add a row's log-determinant in a fixed order of coordinates."""
    flow = hr.Flow([cases.randomise(hr.transforms.MaskedAutoregressive(37, (20,), map=map), 0.3)], hr.Logistic(37))
    assert_same(emu, Twin(emu, flow), *inputs_of(flow, 18, "float32"))


@every_product
@pytest.mark.parametrize("name", network_cases.NETWORKS)
def test_joined_layers_have_the_same_bits(name, matmul, emu):
    flow = cases.randomise(hr.MAF(5, context=2, transforms=1, hidden=hr.Network(network_cases.NETWORKS[name])), 0.4)
    assert_same(emu, Twin(emu, flow, matmul=matmul), *inputs_of(flow, 20, "float32"))


def test_rows_with_bounds_have_the_same_bits(emu):
    flow = cases.randomise(hr.MAF(11, transforms=1, hidden=(9,)), 0.3)
    bounds = [(0.0, 1.0), (0.0, None), (None, None)] * 3 + [(None, 2.0), (None, None)]
    bounded = hr.Flow([*flow.transforms, hr.transforms.Support(bounds)], flow.base)
    x = np.asarray(bounded.sample(19, seed=2), "float32")
    assert_same(emu, Twin(emu, bounded), x, None)


def test_results_of_a_single_output_have_the_same_bits(emu):
    name = "values that are left out in training"
    flow = cases.randomise(hr.MAF(5, transforms=1, hidden=hr.Network(network_cases.NETWORKS[name])), 0.4)
    x, index = cases.rows(60, 5, "float32"), np.arange(59, 20, -1)
    call = lambda t: t.vjp(  # noqa: E731
        x, inverse=True, of_log_prob=True, dropout=7, index=index, wrt=("inputs", "parameters", "log_prob")
    )
    whole, narrow = both(emu, Twin(emu, flow), len(index), call)
    for a, b in zip(narrow, whole, strict=True):
        cases.assert_same_bits(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_spoils_only_itself(bad, emu):
    """A row that is not finite affects no other row, not even in the same narrow tile and tape."""
    emu.module.set_multiprocessors(NARROW)
    flow = cases.randomise(hr.MAF(5, transforms=2, hidden=(20,)), 0.2)
    twin, x, ones = Twin(emu, flow), cases.rows(40, 5, "float32"), np.ones(40, "float32")
    clean = twin.log_prob_vjp(x, ones, wrt=("inputs", "parameters"))
    x[11, 2] = bad
    got = twin.log_prob_vjp(x, ones, wrt=("inputs", "parameters"))
    assert np.isnan(got[1][clean[1] != 0]).all()
    cases.assert_same_bits(np.delete(got[0], 11, 0), np.delete(clean[0], 11, 0))


def test_a_row_alone_has_the_bits_that_it_has_among_others(emu):
    flow = cases.randomise(hr.MAF(5, transforms=2, hidden=(20,)), 0.2)
    twin, x = Twin(emu, flow), cases.rows(70, 5, "float32")
    emu.module.set_multiprocessors(WHOLE)
    (together,) = twin.log_prob_vjp(x, np.ones(70, "float32"), wrt=("inputs",))
    emu.module.set_multiprocessors(NARROW)
    for k in (0, 9, 69):
        (alone,) = twin.log_prob_vjp(x[k : k + 1], np.ones(1, "float32"), wrt=("inputs",))
        cases.assert_same_bits(alone, together[k : k + 1])
