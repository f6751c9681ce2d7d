"""Sums as integers: the float64 next to the true sum in any order, and gradients to 2^-44 of their largest entry."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import cases
from headrace.distributed import exact
from headrace.distributed.exact import DIGITS, FixedSum, digits_of, exact_sum, value_of
from headrace.distributed.groups import local

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=300, deadline=None)
@given(st.lists(FINITE, max_size=20))
def test_a_sum_is_rounded_once(values):
    found = value_of(digits_of(np.array(values).reshape(-1, 1))[0])
    true = sum(map(Fraction, values), Fraction(0))
    try:
        want = float(true)
    except OverflowError:
        want = math.inf if true > 0 else -math.inf
    assert found == want


def test_columns_do_not_mix_and_no_order_matters():
    rng = cases.rng("exact")
    values = rng.standard_normal((500, 4)) * 2.0 ** rng.integers(-300, 300, (500, 4))
    whole = digits_of(values)
    assert_array_equal(digits_of(values[rng.permutation(500)]), whole)
    assert_array_equal(digits_of(values[:123]) + digits_of(values[123:]), whole)
    assert exact_sum(local(), values).tolist() == [math.fsum(column) for column in values.T]
    assert exact_sum(local(), np.zeros((0, 2))).tolist() == [0.0, 0.0]
    assert whole.shape == (4, DIGITS)


def test_extreme_numbers():
    least, most = 5e-324, np.finfo(np.float64).max
    assert value_of(digits_of([[least]] * 3)[0]) == 3 * least
    assert value_of(digits_of([[most], [-most], [least]])[0]) == least
    assert value_of(digits_of([[most], [most], [-most]])[0]) == most
    assert value_of(digits_of([[most], [most]])[0]) == math.inf
    assert value_of(digits_of([[-0.0]])[0]) == 0.0


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([math.inf, 1.0], math.inf),
        ([-math.inf, 1.0], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 1.0], math.nan),
    ],
)
def test_numbers_that_are_not_finite_spoil_their_column_alone(values, want):
    found = exact_sum(local(), np.stack([values, np.ones(2)], axis=1))
    np.testing.assert_equal(found, [want, 2.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 1000, FixedSum._BLOCK + 7])
def test_gradients_add_up(size, dtype):
    rng = cases.rng("fixed", size, dtype)
    gradients = (rng.standard_normal((5, size)) * 10.0 ** rng.uniform(-6, 3, size)).astype(dtype)
    of = FixedSum(size)
    of.clear()
    exponent = FixedSum.exponent_for(float(np.abs(gradients).max()))
    for i, gradient in enumerate(gradients):
        of.add(gradient, exponent)
        of.add_loss(0.1 * i)
    found = np.empty(size, dtype)
    of.read(found, exponent)
    assert not of.is_too_large
    assert of.loss == math.fsum(0.1 * i for i in range(5))
    true, largest = gradients.astype(np.longdouble).sum(axis=0), float(np.abs(gradients).max())
    # Each gradient is rounded to 2^-44 of the largest entry (or twice that), and then the sum of gradients is rounded.
    error = 5 * 0.5 * 2.0**-43 * largest + np.finfo(dtype).eps / 2 * np.abs(true)
    assert (np.abs(found - true) <= error).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**8, -(2.0**8)])
def test_sums_that_are_too_large_are_detected(value, dtype):
    of = FixedSum(40_000)
    exponent = FixedSum.exponent_for(0.999)
    for at in (0, 39_999):
        of.clear()
        gradient = np.zeros(40_000, dtype)
        gradient[at] = value
        of.add(gradient, exponent)
        assert of.is_too_large
        of.clear()
        gradient[at] = 2.0**7 - 1
        of.add(gradient, exponent)
        assert not of.is_too_large


@pytest.mark.parametrize("largest", [5e-324, 1e-300, 1.0, 1e300])
def test_exponents_fit(largest):
    of = FixedSum(1)
    exponent = FixedSum.exponent_for(largest)
    of.clear()
    of.add(np.array([largest]), exponent)
    assert not of.is_too_large
    found = np.empty(1)
    of.read(found, exponent)
    assert found[0] == pytest.approx(largest, rel=2.0**-43, abs=2.0**-1000)
    assert exact.FixedSum._BLOCK % 8 == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=64), max_size=6))
def test_losses_add_up_as_all_numbers_do(values):
    of = FixedSum(0)
    of.clear()
    for value in values:
        of.add_loss(value)
    assert_array_equal(of.parts[:-1], digits_of(np.array(values).reshape(-1, 1))[0])


def test_ranks_without_a_gradient_add_nothing():
    of, found = FixedSum(3), np.empty(3)
    for clear in (False, True):  # an accumulator before its first gradient, and one after another gradient
        if clear:
            of.clear()
        of.over(local())
        of.read(found, 40)
        assert of.exponent_after(found, 40) == 40  # the exponent stays
        assert found.tolist() == [0.0, 0.0, 0.0]
        assert (of.loss, of.is_too_large) == (0.0, False)
        of.clear()
        of.add(np.array([1.0, -2.0, 0.5]), 40)
        of.over(local())
        of.read(found, 40)
        assert found.tolist() == [1.0, -2.0, 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "largest", [1.0, 1.5, 1.0 - 2.0**-30, -1.0 + 2.0**-30, -(2.0**100) * 1.1, 3e-40, 2.0**-44, 0.75, -0.5, 1e38]
)
def test_the_next_exponent_goes_by_the_sum_before_rounding(largest, dtype):
    """A float32 just below a power of two is rounded to that power, which has another exponent."""
    of, found = FixedSum(5), np.zeros(5, dtype)
    exponent = FixedSum.exponent_for(largest)
    of.clear()
    of.add(np.array([0.0, largest, 0.25 * largest, 0.0, -0.1 * largest]), exponent)
    of.read(found, exponent)
    whole = max(abs(int(one)) for one in of.parts[:5])
    assert of.exponent_after(found, exponent) == FixedSum.exponent_for(math.ldexp(whole, -exponent)) == exponent
