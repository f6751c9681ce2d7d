"""Planar transforms whose parameters are large or small, and data of any scale.

Results in float32 are compared with float64. Rounded inputs determine a result only up to the *inherent* error, which
is the change of the float64 result when every input moves by half a unit in its last place. Results may differ by some
tens of the inherent error, because only a few moves are sampled.
"""

import warnings

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import vector_cases
from vector_cases import run_backward

HALF_UNIT, SAMPLES, ROWS = 2.0**-24, 8, 150
INHERENT_ERRORS, ROUNDINGS = 100.0, 3e-6
SCALES = (1e-3, 1.0, 10.0, 100.0, 1e3, 1e4)
PLANAR = ("planar", "planar with leaky ReLU")
every_planar = pytest.mark.parametrize("variant", PLANAR)
every_scale = pytest.mark.parametrize("scale", SCALES)
every_size = pytest.mark.parametrize("features", [2, 11])
both_directions = pytest.mark.parametrize("direction", ["forward", "inverse"])


def problem(features, scale, rows, params_rows):
    """Rows, raw parameters of this scale, and gradients of values and log-determinants, in float32."""
    generator = cases.rng("scales", features, scale)
    shapes = (rows, features), (params_rows, 2 * features + 1), (rows, features), (rows,)
    x, params, *weights = (generator.standard_normal(shape).astype("float32") for shape in shapes)
    return x, (scale * params).astype("float32"), *weights


def moved(arrays, key):
    """The arguments in float64, with each value moved half a unit up or down."""
    signs = cases.rng("moved", key)
    return [array * (1.0 + HALF_UNIT * signs.choice([-1.0, 1.0], array.shape)) for array in arrays]


def check_near(got, arrays, function):
    """Check that each row of each gradient (float32) is within the inherent error of ``function``, which computes in
    float64."""
    want = function(*(array.astype("float64") for array in arrays))
    others = [function(*moved(arrays, key)) for key in range(SAMPLES)]
    for i, (one, other) in enumerate(zip(got, want, strict=True)):
        assert one.dtype == np.float32
        inherent = np.max([np.abs(result[i] - other).max(axis=1) for result in others], axis=0)
        allowed = INHERENT_ERRORS * inherent + ROUNDINGS * np.abs(other).max(axis=1)
        error = np.abs(one - other).max(axis=1)
        assert (error <= allowed).all(), f"{(error / allowed).max():.3g} times what is allowed"


def backward_of(variant, direction):
    return lambda *arrays: vector_cases.call(variant, "vjp", *arrays, direction=direction)


@every_planar
@every_scale
@every_size
@both_directions
def test_gradients_of_planar_maps_with_parameters_of_any_scale(variant, scale, features, direction):
    arrays = problem(features, scale, ROWS, ROWS)
    backward = backward_of(variant, direction)
    check_near(backward(*arrays), arrays, backward)


@every_planar
@every_scale
@both_directions
def test_gradients_of_planar_maps_of_any_scale_on_a_device(variant, scale, direction, device):
    arrays = problem(5, scale, 40, 40)
    check_near(run_backward(device, variant, direction, arrays), arrays, backward_of(variant, direction))


@every_planar
@every_scale
@every_size
@both_directions
def test_gradients_of_planar_transforms_with_parameters_of_any_scale(variant, scale, features, direction):
    """All rows share the parameters: ready parameters are float64 rounded to float32, and gradients are sums over
    rows."""

    def vjp(x, params, *weights):
        made = vector_cases.transform(variant, params[0])
        by_input, by_params = getattr(made, f"{direction}_vjp")(x, *weights)
        return by_input, np.concatenate(gradients.dense_gradient(made, by_params))[None]

    for key in range(10):
        arrays = problem(features, scale * (1.0 + 0.1 * key), 1, 1)
        check_near(vjp(*arrays), arrays, vjp)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4])
@both_directions
def test_float64_gradients_at_any_scale_against_differences(scale, direction):
    """Gradients are compared where differences of a step and of twice the step agree, which fails at steep inverses."""
    x, params, *weights = (array.astype("float64") for array in problem(3, scale, 60, 60))
    got = hr.ops.vector_map_vjp(x, params, *weights, direction=direction, map="planar")[1]
    judge_of = lambda p: getattr(vector_cases.judge("planar", p), direction)(x)  # noqa: E731

    def total(p):
        value, log_det = judge_of(p)
        return (value * weights[0]).sum(axis=1) + log_det * weights[1]

    def difference(column, relative):
        step = np.zeros_like(params)
        step[:, column] = relative * np.maximum(np.abs(params[:, column]), 0.1)
        return (total(params + step) - total(params - step)) / (2.0 * step[:, column])

    largest = np.abs(got).max(axis=1)
    compared = 0
    for column in range(params.shape[1]):
        one, two = difference(column, 1e-6), difference(column, 2e-6)
        agree = np.abs(one - two) <= 1e-5 * largest
        compared += agree.sum()
        assert (np.abs(got[:, column] - one)[agree] <= 1e-4 * largest[agree]).all()
    assert compared >= 0.5 * params.size


@every_planar
@pytest.mark.parametrize("size", [1e-19, 1e-22, 1e-30, 1e-38, 1e-41])
@pytest.mark.parametrize("per_row", [False, True])
def test_a_short_w_moves_as_its_direction_says(variant, size, per_row):
    """One vector w has a square of 0 in float32, and another w is subnormal, with its rounding as the only error."""
    x, params, *weights = problem(4, 1.0, 30, 30)
    params[:, :4] *= np.float32(size)
    if not per_row:
        params = np.repeat(params[:1], 30, axis=0)
    given = params if per_row else params[0]
    for name in ("forward", "inverse"):
        want = getattr(vector_cases.judge(variant, params.astype("float64")), name)(x)
        got = vector_cases.call(variant, name, x, given)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    if size >= 1e-30:  # the gradient by w is of the size of 1 / w, and overflows for a shorter w
        backward = backward_of(variant, "inverse")
        arrays = x, params, *weights
        check_near(backward(*arrays), arrays, backward)


@pytest.mark.parametrize("scale", [1e-300, 1e-163, 1e-161, 1e-150, 1.0, 1e150, 1e154, 1e300])
def test_a_fit_standardises_data_of_any_scale(scale):
    z = cases.rows(200, 2, "float64") + np.array([0.5, 0.0])
    train = hr.MAF(2, dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The fit has one epoch, of rows from which little can be learned.
        warnings.filterwarnings("ignore", "fit: no epoch of")
        train.fit(z * scale, epochs=1, progress=False)
    plain = hr.MAF(2, dtype="float64")
    plain.fit(z, epochs=1, progress=False)
    np.testing.assert_allclose(train.transforms[-1].std / scale, plain.transforms[-1].std, rtol=1e-14)
    np.testing.assert_allclose(train.transforms[-1].mean / scale, plain.transforms[-1].mean, rtol=1e-13, atol=1e-15)
