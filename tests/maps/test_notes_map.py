"""The map of eq. 25 (docs/dual_ascent.md) in the parameters of the notes."""

import numpy as np
import pytest

import cases
import headrace as hr


def numbers(features=7):
    g = cases.rng("eq. 25")
    return {
        "sigma": g.uniform(-3.0, 0.9, features),
        "phi0": g.standard_normal(features),
        "gamma": g.uniform(-0.95, 0.95, features),
        "x0": g.standard_normal(features),
        "epsilon": 10 ** g.uniform(-1.0, 1.0, features),
    }


@pytest.mark.parametrize("formula", ["to_latent", "to_data"])
def test_values_are_those_of_the_notes_formula(formula, dtype):
    p, x = numbers(), cases.rows(50, 7, dtype)
    t = hr.transforms.Elementwise.from_notes(**p, formula=formula, dtype=dtype)
    w = (1 - p["sigma"]) * x - p["x0"]
    r = np.sqrt(p["epsilon"] ** 2 + w**2)
    want = (1 - p["sigma"]) * x + p["phi0"] + p["gamma"] * r
    slope = (1 - p["sigma"]) * (1 + p["gamma"] * w / r)
    got, log_det = (t.inverse if formula == "to_latent" else t.forward)(x)
    close = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(got, want, rtol=close, atol=close)
    np.testing.assert_allclose(log_det, np.log(slope).sum(axis=1), rtol=close, atol=10 * close)
    assert t.dtype == dtype


def test_the_inverse_undoes_the_map(dtype):
    p = numbers()
    back = hr.transforms.Elementwise.from_notes(**p, dtype=dtype).to_notes()
    assert list(back) == list(p)
    for name, want in p.items():
        np.testing.assert_allclose(back[name], want, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-5)


def test_zero_is_the_identity():
    t = hr.transforms.Elementwise.from_notes([0.0], [0.0], [0.0], [0.3], [1.0])
    x = np.linspace(-3, 3, 7)[:, None]
    np.testing.assert_allclose(t.inverse(x)[0], x, atol=1e-15)
    fresh = hr.transforms.Elementwise(2, map="dual_ascent", dtype="float64").to_notes()
    assert fresh["sigma"].tolist() == fresh["gamma"].tolist() == fresh["phi0"].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(fresh["epsilon"], 1.0, rtol=1e-12)


def test_steps_of_an_ascent_can_be_read():
    x = cases.rng("notes").gamma(2.0, size=(300, 2))
    flow = hr.DualAscentFlow.notes(steps=2, dtype="float64").fit(x, validation=None, progress=False)
    kinks = [t for t in flow.transforms if isinstance(t, hr.transforms.Elementwise)]
    for kink in kinks:
        p = kink.to_notes()
        again = hr.transforms.Elementwise.from_notes(**p)
        np.testing.assert_allclose(again.inverse(x)[0], kink.inverse(x)[0], rtol=1e-10)
        assert (np.abs(p["gamma"]) < 0.95).all()


@pytest.mark.parametrize(
    ("change", "patterns"),
    [
        ({"sigma": [1.0]}, ["sigma: ", "0.001"]),
        ({"sigma": [-2000.0]}, ["sigma: ", "-2000"]),
        ({"gamma": [1.0]}, ["gamma: ", "0.999", "1"]),
        ({"epsilon": [0.0]}, ["epsilon: ", "0.001"]),
        ({"epsilon": [-1.0]}, ["epsilon: "]),
        ({"phi0": [np.nan]}, ["phi0: "]),
        ({"x0": [1.0, 2.0]}, ["sigma: "]),
        ({"x0": "one"}, ["x0: "]),
        ({key: [] for key in ("sigma", "phi0", "gamma", "x0", "epsilon")}, ["sigma: ", "(1,)", "(0,)"]),
        ({"formula": "back"}, ["formula: "]),
        ({"slope": 2.0}, ["slope: "]),
        ({"dtype": "int8"}, ["dtype: "]),
    ],
)
def test_parameters_without_an_increasing_map_are_refused(change, patterns):
    given = {"sigma": [0.0], "phi0": [0.0], "gamma": [0.0], "x0": [0.0], "epsilon": [1.0]} | change
    with pytest.raises((TypeError, ValueError)) as error:
        hr.transforms.Elementwise.from_notes(**given)
    cases.assert_says(error, *patterns)


def test_other_maps_have_no_such_parameters():
    with pytest.raises(ValueError, match="map: expected 'dual_ascent'"):
        hr.transforms.Elementwise(2).to_notes()
    with pytest.raises(ValueError, match="scale: "):
        hr.transforms.Elementwise(2, map="dual_ascent", scale="exp").to_notes()


# ---- near the largest number -----------------------------------------------------------------------------------------


def elementwise(dtype, formula="to_data", **raw):
    t = hr.transforms.Elementwise(1, map="dual_ascent", formula=formula, dtype=dtype)
    for name, value in raw.items():
        t.set_parameter(name, np.full((1, 1), value, dtype))
    return t


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_inverse_near_the_largest_number(sign, dtype):
    """A bend of 1 is γ = 0.706, with a slope of up to 1.706; rows share parameters, or have separate ones."""
    large = np.array([[sign * (3e38 if dtype == "float32" else 1.5e308)]], dtype)
    gamma = 0.999 / np.sqrt(2)
    want = (large / (1 + gamma)).astype(dtype)
    params = np.array([0, 0, sign, 0.5, 0], dtype).reshape(1, 1, 5)
    z, log_det = hr.ops.coupling(large, params, map="dual_ascent", direction="inverse")
    np.testing.assert_allclose(z, want, rtol=1e-5)
    np.testing.assert_allclose(log_det, -np.log(1 + gamma), rtol=1e-5)
    t = elementwise(dtype, bend=sign, center=0.5)
    z, log_det = t.inverse(large)
    np.testing.assert_allclose(z, want, rtol=1e-5)
    np.testing.assert_allclose(log_det, -np.log(1 + gamma), rtol=1e-5)
    assert hr.Flow([t], dtype=dtype).log_prob(large)[0] == -np.inf
    back, _ = t.forward(want)
    np.testing.assert_allclose(back, large, rtol=1e-5)
    back, _ = hr.ops.coupling(want, params, map="dual_ascent")
    np.testing.assert_allclose(back, large, rtol=1e-5)


def test_a_value_that_overflows_inside_is_not_the_centre(dtype):
    """A map alone gives infinity where an inner value overflows; in a chain the whole row is NaN."""
    large = np.array([[3e38 if dtype == "float32" else 1.5e308]], dtype)
    z, log_det = elementwise(dtype, bend=1.0, stretch=-3.0).inverse(large)
    assert np.isnan(z).all()
    assert np.isnan(log_det).all()
    params = np.array([-3.0, 0, 1.0, 0, 0], dtype).reshape(1, 1, 5)
    z, log_det = hr.ops.coupling(large, params, map="dual_ascent", direction="inverse")
    assert z[0, 0] == np.inf
    assert np.isfinite(log_det).all()


@pytest.mark.parametrize("width", [1e10, 1e13, 1e16, 1e25, 1e37])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0, 3.0])
def test_any_width(width, share, dtype):
    """The inverse is right whether ε² is representable or not, for values of the size of ε."""
    value = np.array([[share * width]], dtype)
    t = elementwise(dtype, bend=1.0, width=width)
    gamma, r = 0.999 / np.sqrt(2), width * np.hypot(1.0, share)
    got, log_det = t.forward(value)
    np.testing.assert_allclose(got, share * width + gamma * r, rtol=1e-5)
    np.testing.assert_allclose(log_det, np.log1p(gamma * share / np.hypot(1.0, share)), rtol=1e-5, atol=1e-6)
    back, _ = t.inverse(got)
    np.testing.assert_allclose(back, value, rtol=1e-5, atol=1e-5 * width)
