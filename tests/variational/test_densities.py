"""The four energies: values by the formulas, gradients, integrals, and refusals."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr

ENERGIES = [hr.densities.U1, hr.densities.U2, hr.densities.U3, hr.densities.U4]


def energy(name, z1, z2):
    """The energy U(z) as in the paper (its table 1), with the confinement of U2 to U4."""
    w1 = np.sin(2.0 * np.pi * z1 / 4.0)
    w2 = 3.0 * np.exp(-0.5 * ((z1 - 1.0) / 0.6) ** 2)
    w3 = 3.0 / (1.0 + np.exp(-(z1 - 1.0) / 0.3))

    def heap(t, width):
        return np.exp(-0.5 * (t / width) ** 2)

    if name == "U1":
        ring = 0.5 * ((np.sqrt(z1**2 + z2**2) - 2.0) / 0.4) ** 2
        return ring - np.log(heap(z1 - 2.0, 0.6) + heap(z1 + 2.0, 0.6))
    confinement = 0.5 * (np.maximum(np.abs(z1) - 4.0, 0.0) / 0.5) ** 2
    if name == "U2":
        return 0.5 * ((z2 - w1) / 0.4) ** 2 + confinement
    if name == "U3":
        return -np.log(heap(z2 - w1, 0.35) + heap(z2 - w1 + w2, 0.35)) + confinement
    return -np.log(heap(z2 - w1, 0.4) + heap(z2 - w1 + w3, 0.35)) + confinement


@pytest.mark.parametrize("build", ENERGIES)
def test_the_values_are_those_of_the_formulas(build, dtype):
    x = (1.5 * cases.rows(500, 2, "float64")).astype(dtype)
    density = build()
    wide = x.astype("float64")
    assert_allclose(density.log_density(x), -energy(density.name, wide[:, 0], wide[:, 1]), rtol=1e-12, atol=1e-12)
    value, gradient = density(x)
    assert value.dtype == gradient.dtype == np.float64
    cases.assert_same_bits(value, density.log_density(x))


@pytest.mark.parametrize("build", ENERGIES)
def test_gradients_agree_with_differences(build):
    """Central differences with steps of 1e-5 have errors of some 1e-9 times the third derivatives, which reach 1e3."""
    density, x, step = build(), 2.5 * cases.rows(500, 2, "float64"), 1e-5
    _, gradient = density.log_density_and_gradient(x)
    for column in (0, 1):
        move = step * np.eye(2)[column]
        difference = (density.log_density(x + move) - density.log_density(x - move)) / (2.0 * step)
        assert_allclose(gradient[:, column], difference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", ENERGIES)
def test_the_integrals_are_those_of_quadrature(build):
    """The edges of quadrature panels are integers, because the energies have kinks where z1 is -4 or 4; the density
    beyond 9 is below e^-50.
    """
    density, total = build(), 0.0
    points, weights = np.polynomial.legendre.leggauss(150)

    def nodes(low, high):
        return low + 0.5 * (high - low) * (points + 1.0), 0.5 * (high - low) * weights

    for ends in itertools.pairwise([-7.0, -4.0, -2.0, 0.0, 2.0, 4.0, 7.0]):
        for others in ((-9.0, -3.0), (-3.0, 0.0), (0.0, 3.0), (3.0, 9.0)):
            (z1, by_z1), (z2, by_z2) = nodes(*ends), nodes(*others)
            grid = np.stack(np.meshgrid(z1, z2, indexing="ij"), axis=-1).reshape(-1, 2)
            total += by_z1 @ np.exp(density.log_density(grid)).reshape(150, 150) @ by_z2
    assert_allclose(np.log(total), density.log_z, atol=1e-7)


def test_the_integral_of_u1_by_another_quadrature_to_all_digits():
    """In polar coordinates, the trapezoidal rule is exact for the periodic angle, and Gauss-Legendre for the radius."""
    points, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(0.0, 8.0, 41)
    radius = (edges[:-1, None] + 0.1 * (points + 1.0)).ravel()
    angle = 2.0 * np.pi * np.arange(400) / 400
    x = np.stack([np.outer(radius, np.cos(angle)).ravel(), np.outer(radius, np.sin(angle)).ravel()], axis=1)
    height = np.exp(hr.densities.U1().log_density(x)).reshape(radius.size, angle.size)
    total = (np.tile(0.1 * weights, 40) * radius * height.mean(axis=1)).sum() * 2.0 * np.pi
    assert_allclose(np.log(total), hr.densities.U1().log_z, rtol=1e-13)


@pytest.mark.parametrize("build", ENERGIES)
def test_hard_rows(build):
    """Far from the origin the density is 0, and its gradient is not NaN; only rows that are not finite give NaN or
    -infinity."""
    density = build()
    far = np.array([[1e30, 0.0], [0.0, -1e30], [1e-30, 1e-30], [0.0, 0.0], [-0.0, 5e-324]])
    value, gradient = density(far)
    assert not np.isnan(value).any()
    assert not np.isnan(gradient).any()
    assert (value[:2] < -1e50).all()
    assert np.isfinite(value[2:]).all()
    bad, _ = density(np.array([[0.5, 0.5], [np.nan, 0.0], [0.0, np.inf], [1.0, np.nan]]))
    assert np.isfinite(bad[0])
    assert not np.isfinite(bad[1:]).any()
    empty = density(np.empty((0, 2)))
    assert empty[0].shape == (0,)
    assert empty[1].shape == (0, 2)


def test_u1_is_smooth_enough_at_the_origin():
    _, gradient = hr.densities.U1()(np.zeros((1, 2)))
    assert_allclose(gradient, 0.0, atol=1e-12)


@pytest.mark.parametrize("build", ENERGIES)
def test_wrong_rows_are_refused(build):
    for given in (np.zeros((3, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"x: expected shape \(rows, 2\)"):
            build()(given)
    for given in ([[0.0, 0.0]], np.zeros((2, 2), int)):
        with pytest.raises(TypeError, match=r"\bx: expected"):
            build()(given)
    assert "log_z" in repr(build())
