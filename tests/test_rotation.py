"""Rotations: the product itself, what is no rotation, and the measure of random ones."""

import numpy as np
import pytest

import cases
import headrace as hr


@pytest.mark.parametrize("features", [1, 2, 3, 17, 64])
def test_both_directions_are_the_products(features, dtype):
    matrix = hr.Rotation.random(features, seed=features).matrix
    t = hr.Rotation(matrix)
    for rows in cases.BATCH_SIZES:
        z = cases.rows(rows, features, dtype)
        for got, want in ((t.forward(z), z @ matrix.T), (t.inverse(z), z @ matrix)):
            cases.assert_matches(got, (want, np.zeros(rows)), z, dtype)
            assert not got[1].any()


def test_a_reflection_counts(dtype):
    z = cases.rows(9, 2, dtype)
    x, log_det = hr.Rotation([[0, 1], [1, 0]]).forward(z)
    np.testing.assert_allclose(x, z[:, ::-1], rtol=1e-6)
    assert not log_det.any()


def test_there_and_back(dtype):
    t = hr.Rotation.random(10, seed=0)
    z = cases.rows(50, 10, dtype)
    cases.assert_close(t.inverse(t.forward(z)[0])[0], z)


def test_gradients_turn_back(dtype):
    t = hr.Rotation.random(5, seed=1)
    z, grad = cases.rows(20, 5, dtype), cases.rows(20, 5, dtype, "grad")
    (got,) = t.forward_vjp(z, grad, np.ones(20, dtype), wrt=("inputs",))
    cases.assert_close(got, grad.astype(float) @ t.matrix)
    (got,) = t.inverse_vjp(z, grad, np.ones(20, dtype), wrt=("inputs",))
    cases.assert_close(got, grad.astype(float) @ t.matrix.T)


def test_a_poisoned_row_leaves_all_others_alone(dtype):
    t = hr.Rotation.random(4, seed=2)
    z = cases.rows(50, 4, dtype)
    want = t.forward(z)
    z[20, 1] = np.nan
    got = t.forward(z)
    others = np.arange(50) != 20
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
        assert np.isnan(result[20]).all()


def test_random_ones_are_even():
    """Haar's measure: entries of mean 0 and variance 1/n, both signs of the determinant, seeds that count."""
    matrices = np.array([hr.Rotation.random(3, seed=s).matrix for s in range(2000)])
    np.testing.assert_allclose(
        matrices.transpose(0, 2, 1) @ matrices, np.broadcast_to(np.eye(3), (2000, 3, 3)), atol=1e-12
    )
    assert np.abs(matrices.mean(0)).max() < 5 / np.sqrt(3 * 2000)
    np.testing.assert_allclose((matrices**2).mean(0), 1 / 3, atol=0.04)
    assert abs(np.mean(np.linalg.det(matrices) > 0) - 0.5) < 0.06
    assert np.array_equal(matrices[0], hr.Rotation.random(3, seed=0).matrix)
    assert not np.array_equal(matrices[0], matrices[1])


def test_the_matrix_is_kept_in_double_precision_and_to_itself():
    given = hr.Rotation.random(3, seed=0).matrix.copy()
    t = hr.Rotation(given)
    assert t.matrix.dtype == np.float64
    given[0] = 7.0
    assert t.matrix[0, 0] != 7.0
    with pytest.raises(ValueError, match="read-only"):
        t.matrix[0, 0] = 1.0
    assert t.parameters.size == 0
    assert repr(t) == "Rotation(3 x 3)"


@pytest.mark.parametrize(
    ("matrix", "kind", "words"),
    [
        (np.eye(2) * 1.001, ValueError, ["orthogonal", "0.002"]),
        ([[1.0, 0.0], [1.0, 0.0]], ValueError, ["orthogonal"]),
        (np.full((2, 2), np.nan), ValueError, ["orthogonal", "nan"]),
        (np.ones((2, 3)), ValueError, [r"\(n, n\)", r"\(2, 3\)"]),
        (np.ones(4), ValueError, [r"\(4,\)"]),
        (np.ones((0, 0)), ValueError, [r"\(0, 0\)"]),
        (np.eye(2, dtype=complex), TypeError, ["array of numbers", "complex"]),
        ("eye", TypeError, ["array of numbers", "str"]),
        (None, TypeError, ["array of numbers", "NoneType"]),
    ],
    ids=str,
)
def test_what_is_no_rotation_is_refused(matrix, kind, words):
    with pytest.raises(kind) as error:
        hr.Rotation(matrix)
    cases.assert_says(error, "matrix: ", *words)


@pytest.mark.parametrize("features", [0, -1, 2.5, 2**13 + 1])
def test_sizes_are_checked(features):
    with pytest.raises((TypeError, ValueError), match="features: expected"):
        hr.Rotation.random(features)
