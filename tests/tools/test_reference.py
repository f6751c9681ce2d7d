"""Tests of the reference: values computed by hand, finite differences, and inverses."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import reference

SETTINGS = [(reads, formula) for reads in cases.READS for formula in cases.FORMULAS]


def masked(dense, activation="tanh", **settings):
    settings = {"outputs": dense.outputs, "layout": dense.layout} | settings
    return reference.MaskedAutoregressive(dense.network(activation), **settings)


def test_activations_have_their_known_values():
    a = np.array([-1e30, -2.0, 0.0, 1.0, 1e30])
    known = {
        "relu": [0.0, 0.0, 0.0, 1.0, 1e30],
        "tanh": [-1.0, -0.964027580075817, 0.0, 0.761594155955765, 1.0],
        "elu": [-1.0, -0.864664716763387, 0.0, 1.0, 1e30],
        "silu": [0.0, -0.238405844044235, 0.0, 0.731058578630005, 1e30],
        "gelu": [0.0, -0.045500263896358, 0.0, 0.841344746068543, 1e30],
        "gelu_tanh": [0.0, -0.045402305912225, 0.0, 0.841191990608277, 1e30],
        "softplus": [0.0, 0.126928011042972, 0.693147180559945, 1.313261687518223, 1e30],
        "leaky_relu": [-1e28, -0.02, 0.0, 1.0, 1e30],
        "sigmoid": [0.0, 0.119202922022118, 0.5, 0.731058578630005, 1.0],
        "identity": [-1e30, -2.0, 0.0, 1.0, 1e30],
    }
    assert list(known) == list(reference.ACTIVATIONS)
    for name, values in known.items():
        assert_allclose(reference.ACTIVATIONS[name](a), values, rtol=1e-14, atol=1e-15)


def test_scales_have_their_known_values():
    assert_allclose(np.exp(reference.LOG_SCALES["soft_clamp"](np.array([-1e30, 0.0, 1e30]), 1e-3)), [1e-3, 1.0, 1e3])
    assert_allclose(reference.LOG_SCALES["soft_clamp"](math.log(1e3), 1e-3), math.log(1e3) / 2)
    assert reference.LOG_SCALES["exp"](-3.5, 1e-3) == -3.5
    assert_allclose(np.exp(reference.LOG_SCALES["softplus"](np.array([-800.0, 0.0]), 1e-3)), [1e-3, math.log(2) + 1e-3])
    assert_allclose(np.exp(reference.LOG_SCALES["sigmoid"](np.array([-2.0, 800.0]), 1e-3)), [0.501, 1.001])


def test_a_hand_worked_network_and_both_formulas():
    # The network is x_0 = z_0 + 1, hidden h = relu(2 x_0 - 1), shift_1 = 3 h, log scale_1 = 0.5 h.
    weights = [np.array([[2.0, 9.0]]), np.array([[9.0], [9.0], [3.0], [0.5]])]
    biases = [np.array([-1.0]), np.array([1.0, 0.0, 0.0, 0.0])]
    masks = [np.array([[True, False]]), np.array([[False], [False], [True], [True]])]
    network = reference.Network(weights, biases, masks)
    assert_array_equal(reference.reads(masks), [[False, False], [False, False], [True, False], [True, False]])
    point = np.array([[1.0, 2.0]])
    h, g = 3.0, 1.0  # the hidden unit at x_0 = 2 and at x_0 = 1

    maf = reference.MaskedAutoregressive(network, scale="exp")
    value, log_det = maf.forward(point)
    assert_allclose(value, [[2.0, 3 * h + math.exp(0.5 * h) * 2.0]])
    assert_allclose(log_det, [0.5 * h])
    value, log_det = maf.inverse(point)
    assert_allclose(value, [[0.0, (2.0 - 3 * g) * math.exp(-0.5 * g)]])
    assert_allclose(log_det, [-0.5 * g])

    iaf = reference.MaskedAutoregressive(network, scale="exp", reads="latent")
    value, log_det = iaf.forward(point)
    assert_allclose(value, [[2.0, 3 * g + math.exp(0.5 * g) * 2.0]])
    assert_allclose(log_det, [0.5 * g])

    backwards = reference.MaskedAutoregressive(network, scale="exp", formula="to_latent")
    value, log_det = backwards.inverse(point)
    assert_allclose(value, [[2.0, 3 * g + math.exp(0.5 * g) * 2.0]])
    assert_allclose(log_det, [0.5 * g])


@pytest.mark.parametrize(("reads", "formula"), SETTINGS)
@pytest.mark.parametrize("name", [name for name in cases.NETWORKS if name != "sixty-four features"])
def test_masked_directions_undo_each_other_and_log_det_is_the_jacobian(name, reads, formula):
    dense = cases.made(**cases.NETWORKS[name])
    transform = masked(dense, reads=reads, formula=formula)
    z = cases.rows(4, dense.features, "float64", name)
    context = cases.rows(4, dense.context, "float64", name) if dense.context else None

    x, log_det = transform.forward(z, context)
    back, back_log_det = transform.inverse(x, context)

    assert_allclose(back, z, rtol=1e-10, atol=1e-10)
    assert_allclose(back_log_det, -log_det, rtol=1e-10, atol=1e-10)
    for row in range(4):
        row_context = context[row] if dense.context else None
        want = reference.log_det_by_differences(lambda p, c=row_context: transform.forward(p, c)[0], z[row : row + 1])
        assert_allclose(log_det[row : row + 1], want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", reference.LOG_SCALES)
def test_the_sequential_loop_equals_solving_coordinate_by_coordinate(scale):
    dense = cases.made(features=6, hidden=(15, 15))
    transform = masked(dense, scale=scale)
    z = cases.rows(1, 6, "float64")
    depends = reference.reads(dense.masks)[::2]
    x, solved = np.zeros(6), set()
    while len(solved) < 6:
        ready = [i for i in range(6) if i not in solved and set(np.flatnonzero(depends[i])) <= solved]
        for i in ready:
            shift, raw = transform.parameters(x[None], None)[0, i]
            x[i] = shift + math.exp(reference.LOG_SCALES[scale](raw, 1e-3)) * z[0, i]
            solved.add(i)
    assert_allclose(transform.forward(z)[0][0], x, rtol=1e-14, atol=1e-14)


def test_a_hand_worked_spline():
    """Two bins of width one and heights 1/2 and 3/2 have slopes 1/2 and 3/2; the derivative is one at all knots."""
    limit, clamped = math.log(1e3), math.log(1.0 / 3.0) / 2.0  # the shares of the two heights are 1 : 3
    raw = clamped / (1.0 - 2.0 * abs(clamped) / limit)
    params = np.array([0.0, 0.0, raw, -raw, 0.0])
    x, y, derivatives = reference.spline_knots(params, bound=1.0)
    assert_allclose(x, [-1.0, 0.0, 1.0])
    assert_allclose(y, [-1.0, -0.5, 1.0])
    assert_allclose(derivatives, [1.0, 1.0, 1.0])
    # Half way through a bin of slope s the value is at (s / 4 + 1 / 4) / (s + (2 - 2 s) / 4) of the bin's height, that
    # is one half, and the derivative is s^2 (2 s + 2) / 4 / ((s + 1) / 2)^2 = 2 s^2 / (s + 1).
    points = np.array([[-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]])
    want = np.array([[-3.0, -1.0, -0.75, -0.5, 0.25, 1.0, 3.0]])
    value, log_derivative = reference.MAPS["rq_spline"].apply(
        points, np.tile(params, (1, 7, 1)), reference.Options(bound=1.0), False
    )
    assert_allclose(value, want)
    assert_allclose(np.exp(log_derivative), [[1.0, 1.0, 1.0 / 3.0, 1.0, 9.0 / 5.0, 1.0, 1.0]])
    back, log_det = reference.coupling_inverse(want, np.tile(params, (1, 7, 1)), "rq_spline", bound=1.0)
    assert_allclose(back, points)
    assert_allclose(log_det, -log_derivative.sum(axis=1))


@pytest.mark.parametrize("bins", [2, 3, 8, 64])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_splines_undo_themselves_and_their_log_derivative_is_that_of_differences(bins, spread):
    generator = cases.rng("splines", bins)
    params = spread * generator.standard_normal((60, 5, 3 * bins - 1))
    points = 3.0 * generator.standard_normal((60, 5))
    value, log_det = reference.coupling_forward(points, params, "rq_spline")
    back, back_log_det = reference.coupling_inverse(value, params, "rq_spline")
    assert_allclose(back, points, atol=1e-8)
    assert_allclose(back_log_det, -log_det, atol=1e-5)
    if spread <= 1.0:
        step = 1e-7
        up = reference.coupling_forward(points + step, params, "rq_spline")[0]
        down = reference.coupling_forward(points - step, params, "rq_spline")[0]
        assert_allclose(np.log((up - down) / (2.0 * step)).sum(axis=1), log_det, atol=1e-5)


def test_differences_of_known_functions():
    """The functions are ``sum_j w_j sin(x_j)`` and its cube, whose gradients are known."""
    x, w = cases.rows(6, 3, "float64"), np.array([1.0, -2.0, 0.5])
    grad = cases.rng("cotangent").standard_normal(6)

    def function(x, w):
        total = np.sin(x) @ w
        return total, np.stack([total**3, x[:, 0]], axis=1)

    total = np.sin(x) @ w
    pair = np.stack([grad, 2.0 * grad], axis=1)
    outer = grad + 3.0 * total**2 * grad
    of_x = outer[:, None] * np.cos(x) * w
    of_x[:, 0] += 2.0 * grad
    assert_allclose(reference.row_gradient(lambda p: function(p, w), x, (grad, pair)), of_x, rtol=1e-8, atol=1e-8)
    (of_w,) = reference.gradient(lambda p: function(x, p), [w], (grad, pair))
    assert_allclose(of_w, outer @ np.sin(x), rtol=1e-8, atol=1e-8)
    both = reference.along(function, [x, w], [np.ones((6, 3)), w], (grad, pair))
    assert_allclose(both, of_x.sum(axis=1) + outer * total, rtol=1e-8, atol=1e-8)
    assert_allclose(reference.row_gradient(lambda p: function(p, w), x, (None, None)), np.zeros((6, 3)))


@pytest.mark.parametrize("map", reference.MAPS)
@pytest.mark.parametrize("formula", cases.FORMULAS)
def test_coupling_undoes_itself_and_log_det_is_the_jacobian(map, formula):
    outputs = reference.MAPS[map].parameters
    dense = cases.dense_network(3, (11, 9), 4, outputs=outputs, map=map)
    transform = reference.Coupling(dense.network("tanh"), 7, [5, 0, 2], map=map, formula=formula, outputs=outputs)
    z = cases.rows(5, 7, "float64")

    x, log_det = transform.forward(z)

    assert_array_equal(x[:, [5, 0, 2]], z[:, [5, 0, 2]])
    assert_allclose(transform.inverse(x)[0], z, rtol=1e-12, atol=1e-12)
    want = reference.log_det_by_differences(lambda p: transform.forward(p)[0], z)
    assert_allclose(log_det, want, rtol=1e-7, atol=1e-8)


def test_layouts_and_output_orders_name_the_same_parameters():
    dense = cases.made(features=4)
    z = cases.rows(3, 4, "float64")
    want = masked(dense).parameters(z, None)
    swap = np.array([1, 0, 3, 2, 5, 4, 7, 6])
    block = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    for rows, settings in [
        (swap, {"outputs": ("scale", "shift")}),
        (block, {"layout": "blocked"}),
        (np.roll(block, 4), {"layout": "blocked", "outputs": ("scale", "shift")}),
    ]:
        weights, biases, masks = ([*arrays[:-1], arrays[-1][rows]] for arrays in dense.arrays)
        other = reference.MaskedAutoregressive(reference.Network(weights, biases, masks, "tanh"), **settings)
        # The order of rows may change the order of sums in a matrix product; therefore the bits may differ.
        assert_allclose(other.parameters(z, None), want, rtol=1e-14, atol=1e-14)


def test_bases_integrate_to_one():
    grid = np.linspace(-40.0, 40.0, 80001)[:, None]
    for base in (reference.StandardNormal(), reference.Normal(1.5, 0.7), reference.Logistic()):
        assert_allclose(np.exp(base.log_prob(grid)).sum() * 1e-3, 1.0, rtol=1e-9)


def test_a_flow_of_one_dimension_integrates_to_one():
    dense = cases.made(features=1, hidden=(4,), context=1)
    flow = reference.Flow(
        [
            masked(dense),
            reference.Inverse(masked(dense, formula="to_latent")),
            reference.Standardize(np.array([3.0]), np.array([2.0])),
        ],
        reference.Logistic(),
    )
    grid = np.linspace(-150.0, 150.0, 300001)[:, None]
    assert_allclose(np.exp(flow.log_prob(grid, np.array([0.4]))).sum() * 1e-3, 1.0, rtol=1e-6)


def test_permutation_and_standardize_follow_their_definitions():
    z = np.array([[10.0, 20.0, 30.0]])
    assert_array_equal(reference.Permutation([2, 0, 1]).forward(z)[0], [[30.0, 10.0, 20.0]])
    assert_array_equal(reference.Permutation([2, 0, 1]).inverse(z)[0], [[20.0, 30.0, 10.0]])
    standardize = reference.Standardize(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert_array_equal(standardize.inverse(z)[0], [[9.0, 9.0, 6.75]])
    assert_allclose(standardize.inverse(z)[1], [-math.log(8.0)])
    assert_array_equal(standardize.forward(standardize.inverse(z)[0])[0], z)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_random_networks_are_autoregressive_and_not_trivial(name):
    dense = cases.made(**cases.NETWORKS[name])
    depends = reference.reads(dense.masks).reshape(dense.features, len(dense.outputs), -1).any(axis=1)
    depends, on_context = depends[:, : dense.features], depends[:, dense.features :]
    power = np.linalg.matrix_power(depends.astype(float), dense.features)
    assert not power.any()  # the matrix is nilpotent, so that there are no cycles
    if dense.features > 2:
        assert depends.sum() >= dense.features - 1
        order = np.argsort(depends.sum(axis=1), kind="stable")
        # The order of the coordinates is not the natural one.
        assert order.tolist() != list(range(dense.features))
    if dense.context:
        assert on_context.any()
