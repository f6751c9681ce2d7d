"""Sums over rows on tensor cores, which are gradients with respect to weights.

Each ``sum`` of these tests is one entry of the gradient: over the rows, products of a unit's gradient and an input.
Errors are relative to the sum of the products' magnitudes.
"""

import numpy as np
import pytest

import cases
import cuda_arrays
import gradients
import headrace as hr
from cuda_twins import Twin
from pairs import pairwise
from program_cases import CHAINS, SIZES, inputs_of
from tensor_core_cases import WIDE, every_kind, one_product, rounded, small, whole

UNIT = 2.0**-24  # half a unit in the last place of float32, by which rounding to nearest errs

# A factor of "3xtf32" is the sum of two values of 11 bits. Such a sum lacks at most the last bit of the float32 (2 UNIT
# for each factor), and the product of the two small values is left out (2^-11 squared). Tensor cores truncate twice,
# some 2 UNIT each time, when they add the large product to the small ones. Sums of eight rows are added in float32 for
# up to 128 rows, and sums of 128 rows are added in float64.
FACTORS = (2 * 2 + 4) * UNIT
CUT_OFF = 4 * UNIT


def bound(n):
    return FACTORS + CUT_OFF + min(-(-n // 8), 16) * UNIT


def layer(inputs, units):
    """A coupling whose network is one layer: the gradient with respect to its weights is minus a sum of products."""
    arrays = [np.zeros((units, inputs), "float32")], [np.zeros(units, "float32")]
    return hr.transforms.Coupling.from_dense(*arrays, features=inputs + units, passive=range(inputs), map="additive")


def sums(library, device, matmul, x, grad):
    """The gradients with respect to weights and to biases."""
    n, units = grad.shape
    given = np.hstack([x, np.zeros((n, units), "float32")])
    by_value = np.hstack([np.zeros_like(x), grad])
    twin = Twin(device, library, matmul=matmul)
    (vector,) = twin.inverse_vjp(given, by_value, np.zeros(n, "float32"), wrt=("parameters",))
    weights, biases = gradients.dense_gradient(library, vector)
    return -weights, -biases


def errors(got, left, right):
    left, right = left.astype(float), right.astype(float)
    return np.abs(got - left @ right) / (np.abs(left) @ np.abs(right))


@pytest.mark.parametrize("signs", ["both", "one"])
@pytest.mark.parametrize("n", [1, 16, 100, 128, 700])
def test_three_products_are_as_near_as_float32s_own(n, signs, device):
    """For few rows, errors of three products may be a few times those of products that are rounded once, within
    FACTORS."""
    generator = cases.rng("sums over rows", n, signs)
    x, grad = (generator.standard_normal((n, k)).astype("float32") for k in (70, 37))
    if signs == "one":
        x, grad = np.abs(x), np.abs(grad)
    library = layer(70, 37)
    got = {matmul: sums(library, device, matmul, x, grad) for matmul in ("exact", "3xtf32", "tf32")}
    exact, split, one = (errors(got[matmul][0], grad.T, x) for matmul in got)
    assert split.max() <= bound(n)
    if n >= 100:  # the rounding of tensor cores toward zero does not average out in sums of one sign
        least = 0 if signs == "both" else 1.25 * UNIT
        assert np.sqrt(np.mean(split**2)) <= max(np.sqrt(np.mean(exact**2)), least)
    assert one.max() <= 2.1 * 2.0**-11  # a product has two factors
    assert np.median(one) > 20 * np.median(split)  # the check shows that the test distinguishes the two settings
    for matmul in got:  # gradients of biases are sums of float32
        assert errors(got[matmul][1][:, None], grad.T, np.ones((n, 1))).max() <= bound(n)


def test_factors_are_rounded_and_sums_are_not(device):
    """Each factor of a product is rounded to the nearest value of TF32; sums are not rounded to TF32."""
    twin, weights, _, x, context = one_product(device)
    grad = cases.rows(37, 19, "float32", "grad")
    (vector,) = twin.inverse_vjp(x, grad, np.zeros(37, "float32"), context, wrt=("parameters",))
    got, biases = gradients.dense_gradient(twin.library, vector)
    read = np.hstack([x, context])
    seen = weights != 0
    magnitude = np.abs(grad.T) @ np.abs(read)
    error = np.abs(got + rounded(grad.T) @ rounded(read)) / magnitude
    assert error[seen].max() <= 16 * 2.0**-23  # tensor cores truncate each sum of four terms
    unrounded = errors(-got, grad.T, read)[seen]
    assert np.quantile(unrounded, 0.9) > 0.1 * 2.0**-11  # the check shows that factors were rounded
    assert np.all(got[~seen] == 0)
    assert errors(-biases[:, None], grad.T, np.ones((37, 1))).max() <= bound(37)


def whole_network(device, matmul, **settings):
    """Networks of whole numbers, with and without tensor cores: whole numbers are exact in TF32, and sums of whole
    numbers do not depend on the order."""
    dense = small(cases.made(**(WIDE | {"outputs": ("shift",)} | settings)))
    library = gradients.masked(dense, "relu", map="additive", reads="data").library
    return Twin(device, library, matmul=matmul), Twin(device, library)


@pytest.mark.parametrize("matmul", ["exact", "3xtf32"])
def test_a_block_sums_several_tiles(matmul, emu, monkeypatch):
    """A block overwrites its shared memory only when all threads have read the memory: every order of threads must give
    the same bits."""
    monkeypatch.setattr(cuda_arrays, "EVERY_ORDER", True)
    x, grad = cases.rows(9000, 3, "float32", "x"), cases.rows(9000, 2, "float32", "grad")
    weights, _ = sums(layer(3, 2), emu, matmul, x, grad)
    assert errors(weights, grad.T, x).max() <= bound(9000)


@every_kind
@pytest.mark.parametrize("n", [*SIZES, 15, 16, 17, 129, 300])
def test_numbers_of_rows(n, matmul, device):
    """The numbers of rows lie around sixteen, around a tile, and around the number of rows that are added in float32;
    300 rows are two groups on the emulated device.
    """
    fast, exact = whole_network(device, matmul, hidden=(170, 70), features=9)
    given = whole(n, 9), whole(n, 9, "value"), whole(n, 1, "row")[:, 0]
    for got, want in zip(
        *(twin.inverse_vjp(*given, wrt=("parameters", "inputs")) for twin in (fast, exact)), strict=True
    ):
        cases.assert_same_bits(got, want)


@pairwise(features=[1, 2, 31, 33, 65], hidden=[(1,), (31, 33), (64, 65), ()], matmul=["tf32", "3xtf32"])
def test_every_size_of_layer(features, hidden, matmul, device):
    """Sizes lie around 32, the side of a warp's square of sums, and around 64, the side of a block's square."""
    fast, exact = whole_network(device, matmul, features=features, hidden=hidden, context=3)
    given = whole(35, features), whole(35, features, "value"), whole(35, 1, "row")[:, 0], whole(35, 3, "context")
    for got, want in zip(*(twin.inverse_vjp(*given, wrt=("parameters",)) for twin in (fast, exact)), strict=True):
        cases.assert_same_bits(got, want)


@every_kind
def test_bits_depend_on_no_order_and_no_card(matmul, emu, monkeypatch):
    """`Twin` compares the orders of threads; architectures are compared here.

    Layers are wider than a block's square of 64, and the rows exceed a group.
    """
    monkeypatch.setattr(cuda_arrays, "EVERY_ORDER", True)
    flow = cases.randomise(hr.MAF(5, hidden=(66, 66), transforms=1), 0.3)
    x, found = cases.rows(300, 5, "float32"), []
    for architecture in (80, 90):
        emu.module.set_architecture(architecture)
        twin = Twin(emu, flow, matmul=matmul)
        found += twin.log_prob_vjp(x, np.ones(300, "float32"), wrt=("parameters",))
    cases.assert_same_bits(*found)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("n", [1, 33, 70])
def test_gradients_of_chains(name, n, device):
    """Gradients by three products are as near to the CPU's in float64 as exact products have to be."""
    flow = CHAINS[name]("float32")
    wide, twin = flow.astype("float64"), Twin(device, flow, matmul="3xtf32")
    given, context = inputs_of(flow, n, "float32")
    wrt, by_row = gradients.every(context), cases.rng("by row", n).standard_normal(n).astype("float32")
    wide_context = None if context is None else context.astype(float)
    want = wide.log_prob_vjp(given.astype(float), by_row.astype(float), wide_context, wrt=wrt)
    for a, b in zip(twin.log_prob_vjp(given, by_row, context, wrt=wrt), want, strict=True):
        gradients.assert_near(a, b, cases.tolerance("float32", 256))


def test_against_differences(device):
    """Differences are those of the density in float64, along random directions in the space of all parameters."""
    flow = cases.randomise(hr.MAF(6, transforms=3, hidden=(24, 20), activation="tanh"), 0.2)
    x = cases.rows(70, 6, "float32")
    (got,) = Twin(device, flow, matmul="3xtf32").log_prob_vjp(x, np.ones(70, "float32"), wrt=("parameters",))
    wide = flow.astype("float64")
    center, step = wide.parameters.copy(), 1e-5
    is_weight = center != 0
    for k in range(3):
        direction = np.where(is_weight, cases.rng("direction", k).standard_normal(center.size), 0)
        ends = []
        for sign in (1, -1):
            wide.parameters = center + sign * step * direction
            ends.append(wide.log_prob(x.astype(float)).sum())
        terms = got.astype(float) * direction
        # The errors of a gradient's entries are relative to the largest entry, and add up at random.
        allowed = cases.tolerance("float32", 16) * np.linalg.norm(direction) * np.abs(got).max()
        assert abs((ends[0] - ends[1]) / (2 * step) - terms.sum()) <= allowed < 0.01 * np.linalg.norm(terms)


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_leaves_the_weights_no_gradient(bad, matmul, device):
    flow = cases.randomise(hr.MAF(5, transforms=2, hidden=(20,)), 0.2)
    twin = Twin(device, flow, matmul=matmul)
    x, ones = cases.rows(40, 5, "float32"), np.ones(40, "float32")
    clean = twin.log_prob_vjp(x, ones, wrt=("inputs", "parameters"))
    assert np.isfinite(clean[1]).all()
    x[11, 2] = bad
    got = twin.log_prob_vjp(x, ones, wrt=("inputs", "parameters"))
    assert np.isnan(got[1][clean[1] != 0]).all()
    cases.assert_same_bits(np.delete(got[0], 11, 0), np.delete(clean[0], 11, 0))


@every_kind
def test_lanes_past_the_last_row_may_overflow(matmul, device):
    """The network's units overflow for zeros, which are the inputs of lanes past the last row, and not for the rows'
    inputs."""
    huge = 2.0**100  # exact in TF32
    masks = [np.array([[True, False]]), np.array([[True]]), np.array([[False], [False], [True], [True]])]
    weights = [np.array([[-huge, 0.0]]), np.array([[huge]]), np.array([[0.0], [0.0], [0.5], [0.1]])]
    biases = [np.array([huge]), np.zeros(1), np.zeros(4)]
    arrays = [[a.astype("f4") for a in kind] for kind in (weights, biases)]
    twin = Twin(device, hr.transforms.MaskedAutoregressive.from_dense(*arrays, masks), matmul=matmul)
    for n in (5, 20):
        given = np.ones((n, 2), "f4")
        for gradient in twin.inverse_vjp(given, given, np.ones(n, "f4"), wrt=("inputs", "parameters")):
            assert np.isfinite(gradient).all()


@every_kind
def test_no_rows_have_a_gradient_of_zero(matmul, device):
    flow = gradients.mixed_flow("float32")
    given, context = inputs_of(flow, 0, "float32")
    by_input, by_parameters = Twin(device, flow, matmul=matmul).vjp(given, context, inverse=True, of_log_prob=True)
    assert by_input.shape == (0, flow.features)
    assert np.array_equal(by_parameters, np.zeros_like(by_parameters))
