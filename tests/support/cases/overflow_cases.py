"""Flows whose units or parameters overflow, and checks that other evaluations agree with the core."""

import numpy as np

import headrace as hr


def check_units(activation, sign, to_latent_of):
    """Check ``to_latent_of(flow)(x)`` on rows for which an activation maps an infinity to a finite value."""
    flow = _coupling(10.0 * sign, 0.1, activation=activation)
    x = np.array([[1e38, 0.5], [1.0, 0.5]] * 4, "f")
    for w, g in zip(_of_core(flow, x), to_latent_of(flow)(x), strict=True):
        np.testing.assert_array_equal(np.isfinite(g), np.isfinite(w))
        finite = np.isfinite(w).reshape(len(w), -1).all(axis=1)
        np.testing.assert_allclose(g[finite], w[finite], rtol=1e-5, atol=1e-5)


def check_parameters_of_splines(map, to_latent_of):
    """Check that NaN parameters make a row's results NaN, even where its value lies outside the spline's interval."""
    flow = _coupling(10.0, 1.0, map=map, activation=None)
    x = np.array([[1e38, 9.0], [0.1, 9.0], [0.1, 0.5]] * 3, "f")
    want = _of_core(flow, x)
    assert np.isnan(want[1][0])
    for w, g in zip(want, to_latent_of(flow)(x), strict=True):
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))


def _coupling(first, last, **settings):
    t = hr.transforms.Coupling(2, [0], (4,), **settings)
    outputs = t.named_parameters()["layers.1.bias"].size
    t.set_parameter("layers.0.weight", np.full((4, 1), first, "f"))
    t.set_parameter("layers.1.weight", np.full((outputs, 4), last, "f"))
    return hr.Flow([t])


def _of_core(flow, x):
    with np.errstate(all="ignore"):
        return flow.to_latent(x)
