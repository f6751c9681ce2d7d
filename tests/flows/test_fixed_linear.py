"""Linear maps that are not trained: both directions against the matrix, derivatives, files, and some of the columns."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from cores import every_core

N = 5


def matrix():
    """A matrix that permutes, scales and mixes columns slightly."""
    scales = np.array([[-1.0], [0.5], [2.0], [1.0], [-3.0]])
    return np.eye(N)[[2, 0, 4, 1, 3]] * scales + 0.2 * cases.rng("fixed linear").standard_normal((N, N))


def shear():
    """Return a matrix for which x₁ and x₄ are z₁ and z₄ plus multiples of other coordinates."""
    a = np.eye(N)
    a[1, [0, 3]], a[4, [2, 3]] = [2.0, 1.0 / 3.0], [-1.0, 1e3]
    return a


SHIFT = np.array([0.5, 0.0, -1.0, 2.0, 1e-3])


@every_core(rows={"cpu": [3, 40], "device": [3, 40]}, inverted=[False, True])
def test_both_directions_are_those_of_the_matrix(core, rows, inverted, dtype):
    t = hr.transforms.Linear.from_matrix(matrix(), SHIFT, dtype="float64", trainable=False)
    # The tolerance allows for sums of 5 products, and for entries of the inverse matrix of up to 3.
    z, eps = cases.rows(rows, N, dtype), 100 * np.finfo(dtype).eps
    expected = z.astype("float64") @ matrix().T + SHIFT
    x, log_det = (hr.transforms.Inverse(t).inverse if inverted else t.forward)(z)
    assert x.dtype == dtype
    assert_allclose(x, expected, rtol=eps, atol=eps)
    assert_allclose(log_det, np.linalg.slogdet(matrix())[1], rtol=eps)
    back, log_det = (hr.transforms.Inverse(t).forward if inverted else t.inverse)(x)
    assert_allclose(back, z, rtol=eps, atol=eps)
    assert_allclose(log_det, -np.linalg.slogdet(matrix())[1], rtol=eps)


@every_core(rows={"cpu": [2, 40], "device": [2, 40]})
def test_gradients_are_those_of_the_matrix(core, rows, dtype):
    t = hr.transforms.Linear.from_matrix(matrix(), SHIFT, dtype="float64", trainable=False)
    z, grad, eps = cases.rows(rows, N, dtype), cases.rows(rows, N, dtype, "grad"), 100 * np.finfo(dtype).eps
    (found,) = t.forward_vjp(z, grad, None, wrt=("inputs",))
    assert_allclose(found, grad.astype("float64") @ matrix(), rtol=eps, atol=eps)
    (found,) = t.inverse_vjp(z, grad, None, wrt=("inputs",))
    assert_allclose(found, grad.astype("float64") @ np.linalg.inv(matrix()), rtol=eps, atol=eps)


def test_coordinates_that_a_shear_leaves_keep_their_bits(dtype):
    """Products with 1 and 0 are exact, and the inverse of a shear has the off-diagonal entries with opposite signs."""
    t, z = hr.transforms.Linear._shear(shear()), cases.rows(300, N, dtype)
    assert_array_equal(t.to_matrix()[0], shear())
    for x, log_det in (t.forward(z), t.inverse(z)):
        assert_array_equal(x[:, [0, 2, 3]], z[:, [0, 2, 3]])
        assert_array_equal(log_det, np.zeros(300, dtype))
    x = t.forward(z)[0]
    rounding = 4 * np.finfo(dtype).eps * (np.abs(z).astype("float64") @ np.abs(shear()).T)
    assert (np.abs(t.inverse(x)[0].astype("float64") - z) <= rounding).all()


def test_a_fixed_map_has_no_parameters_and_keeps_the_input_s_dtype():
    t = hr.transforms.Linear.from_matrix(matrix(), trainable=False)
    assert (t.dtype, t.parameters.size, t.named_parameters(), t.trainable) == (None, 0, {}, False)
    assert repr(t) == f"Linear(5, order={list(t.order)}, trainable=False)"
    assert hr.transforms.Linear(3, trainable=False).forward(np.ones((1, 3)))[0].tolist() == [[1.0, 1.0, 1.0]]
    flow = hr.Flow([hr.transforms.Coupling(N, [0], (4,)), t])
    assert flow.parameters.size == hr.transforms.Coupling(N, [0], (4,)).parameters.size


def test_files_keep_the_matrix_to_the_bit(dtype):
    flow = cases.randomise(
        hr.Flow([hr.transforms.Coupling(N, [0], (4,), dtype=dtype), hr.transforms.Linear._shear(shear())]), 0.2, "filed"
    )
    again = hr.from_bytes(hr.to_bytes(flow))
    assert not again[1].trainable
    x = cases.rows(50, N, dtype)
    assert_array_equal(again.log_prob(x), flow.log_prob(x))
    assert_array_equal(again.sample(20, seed=0), flow.sample(20, seed=0))
    wide = flow.astype("float64")
    assert_allclose(hr.from_bytes(hr.to_bytes(wide)).log_prob(x), wide.log_prob(x))


def test_a_file_with_another_flag_is_refused():
    bytes_ = hr.to_bytes(hr.Flow([hr.transforms.Linear._shear(shear())]))
    flag = b'\\"trainable\\":false'
    assert flag in bytes_
    with pytest.raises(hr.FileFormatError):
        hr.from_bytes(bytes_.replace(flag, flag.replace(b"false", b"3.141")))


def test_parts_need_the_coordinates_that_they_are_made_from():
    flow = hr.Flow([hr.transforms.Linear._shear(shear())])
    part = flow.marginal([0, 3, 1])
    x = cases.rows(20, N, "float64")
    a = shear()[np.ix_([0, 3, 1], [0, 3, 1])]
    expected = -0.5 * np.square(np.linalg.solve(a, x[:, [0, 3, 1]].T)).sum(axis=0) - 1.5 * np.log(2 * np.pi)
    assert_allclose(part.log_prob(x[:, [0, 3, 1]]), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="makes coordinate 1 from coordinate 3"):
        flow.marginal([0, 1])


def test_a_subset_of_columns_is_refused():
    with pytest.raises(ValueError, match=r"transform: expected no Linear\(trainable=False\)"):
        hr.transforms.OnColumns(hr.transforms.Linear._shear(shear()), [6, 0, 3, 1, 4], 7)
