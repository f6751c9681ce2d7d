"""Maps of each coordinate by itself have the values of the coupling kernels with one set of parameters."""

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from pairs import pairwise

every_map = pytest.mark.parametrize("map", reference.MAPS)
every_formula = pytest.mark.parametrize("formula", cases.FORMULAS)
FEATURES, BINS = 3, 5


def made(map, formula, dtype, spread=0.7, **more):
    """Return a transform with random raw parameters, and the parameters, shape (features, parameters a coordinate)."""
    t = hr.transforms.Elementwise(FEATURES, map=map, formula=formula, bins=BINS, dtype=dtype, **more)
    raw = (spread * cases.rng("elementwise", map).standard_normal((FEATURES, reference.MAPS[map].count(BINS)))).astype(
        dtype
    )
    sizes = reference.MAPS[map].sizes(BINS)
    for name, part in zip(sizes, np.split(raw, np.cumsum([*sizes.values()])[:-1], axis=1), strict=True):
        t.set_parameter(name, part)
    return t, raw


@pairwise(
    map=reference.MAPS,
    formula=cases.FORMULAS,
    rows=cases.BATCH_SIZES,
    dtype=cases.DTYPES,
    together=("map", "formula", "dtype"),
)
def test_both_directions_match_the_reference(map, formula, rows, dtype):
    t, raw = made(map, formula, dtype)
    z = cases.rows(rows, FEATURES, dtype)
    params = np.broadcast_to(raw.astype(float), (rows, *raw.shape))
    there, back = reference.coupling_forward, reference.coupling_inverse
    if formula == "to_latent":
        there, back = back, there
    for got, judge in ((t.forward(z), there), (t.inverse(z), back)):
        cases.assert_matches(got, judge(z, params, map), z, dtype, depth=24)


@every_map
@every_formula
def test_fresh_elementwise_maps_are_the_identity(map, formula, dtype):
    t = hr.transforms.Elementwise(4, map=map, formula=formula, dtype=dtype)
    z = cases.rows(20, 4, dtype)
    x, log_det = t.forward(z)
    cases.assert_close(x, z)
    cases.assert_close(log_det, np.zeros(20))


@every_map
@every_formula
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_those_of_differences(map, formula, direction):
    """Gradients by inputs and parameters agree with central differences in float64."""
    t, _ = made(map, formula, "float64")
    z = 0.8 * cases.rows(7, FEATURES, "float64", "differences")
    grad, grad_log = cases.rows(7, FEATURES, "float64", "grad"), cases.rows(7, 1, "float64", "grad log")[:, 0]

    def number(z, parameters):
        moved = t.astype("float64")
        moved.parameters = parameters
        value, log_det = getattr(moved, direction)(z)
        return (grad * value).sum() + grad_log @ log_det

    by_inputs, by_parameters = getattr(t, f"{direction}_vjp")(z, grad, grad_log)
    h, start = 1e-6, t.parameters
    for index in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[index] = h
        want = (number(z + step, start) - number(z - step, start)) / (2 * h)
        assert by_inputs[index] == pytest.approx(want, abs=2e-6, rel=2e-6)
    used = np.flatnonzero(pack_of(t))
    for i in used:
        step = np.zeros_like(start)
        step[i] = h
        want = (number(z, start + step) - number(z, start - step)) / (2 * h)
        assert by_parameters[i] == pytest.approx(want, abs=2e-6, rel=2e-6)
    rest = np.ones(start.size, bool)
    rest[used] = False
    assert not by_parameters[rest].any()


def pack_of(t):
    """The parameter vector in which every parameter is 1 and padding is 0."""
    other = t.astype(t.dtype)
    other.parameters = np.zeros_like(t.parameters)
    for name, value in t.named_parameters().items():
        other.set_parameter(name, np.ones_like(value))
    return other.parameters


def test_the_bent_line_is_eq_25(dtype):
    """The map is (1 - σ) x + φ0 + γ sqrt(ε² + ((1 - σ) x - x0)²) for the parameters of eq. 25 (docs/dual_ascent.md)."""
    sigma, shift, gamma, center, epsilon, slope = 0.3, -0.4, 0.6, 0.8, 0.25, 1e-3
    t = hr.transforms.Elementwise(1, map="dual_ascent", dtype=dtype)
    log_a, share = np.log(1 - sigma), gamma / (1 - slope)
    raw = {
        "stretch": log_a / (1 - abs(log_a) / np.log(1 / slope)),
        "shift": shift,
        "bend": share / np.sqrt(1 - share**2),
        "center": center / (1 - sigma),
        "width": np.log(np.expm1(epsilon / (1 - sigma) - 1e-3)) - np.log(np.expm1(1 - 1e-3)),
    }
    for name, number in raw.items():
        t.set_parameter(name, np.array([[number]]))
    x = np.linspace(-4, 4, 50)[:, None].astype(dtype)
    w = (1 - sigma) * x.astype(float) - center
    r = np.sqrt(epsilon**2 + w**2)
    want = (1 - sigma) * x + shift + gamma * r
    want_log = np.log((1 - sigma) * (1 + gamma * w / r))
    cases.assert_matches(t.inverse(x), (want, want_log[:, 0]), x, dtype)


def test_a_bent_line_that_is_nearly_flat_on_one_side_is_inverted(dtype):
    """|γ| is as close to 1 as possible; the inverse loses the digits that the flat side has lost already."""
    t = hr.transforms.Elementwise(1, map="dual_ascent", formula="to_latent", dtype=dtype)
    for sign in (1.0, -1.0):
        t.set_parameter("bend", np.array([[sign * 1e4]]))
        x = np.linspace(-30, 30, 301)[:, None].astype(dtype)
        z, log_det = t.inverse(x)
        back, log_det_back = t.forward(z)
        flattest = np.exp(-log_det.astype(float).min())
        assert flattest > 500
        np.testing.assert_allclose(back, x, atol=flattest * 30 * 8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(log_det_back, -log_det, atol=flattest * 30 * 8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tiny_and_huge_rows_stay_finite(size, dtype):
    for map in reference.MAPS:
        t, _ = made(map, "to_latent", dtype)
        x = (size * cases.rows(9, FEATURES, dtype)).astype(dtype)
        for value, log_det in (t.forward(x), t.inverse(x)):
            assert np.isfinite(value).all()
            assert np.isfinite(log_det).all()


@every_map
def test_a_poisoned_row_leaves_all_others_alone(map, dtype):
    t, _ = made(map, "to_latent", dtype)
    x = cases.rows(50, FEATURES, dtype)
    want = t.inverse(x)
    x[20, 1] = np.nan
    got = t.inverse(x)
    others = np.arange(50) != 20
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
        assert np.isnan(result[20]).any()


def test_a_flow_of_elementwise_maps_is_fitted():
    """A flow of elementwise maps is fitted to two independent skewed coordinates."""
    g = cases.rng("skewed")
    x = np.expm1(g.standard_normal((2000, 2)))
    flow = hr.Flow(
        [
            hr.transforms.Elementwise(2),
            hr.transforms.Elementwise(2, map="dual_ascent"),
            hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0]),
        ]
    )
    before = flow.log_prob(x).mean()
    history = flow.fit(x, epochs=30, progress=False)
    assert history.best_epoch > 0
    assert flow.log_prob(x).mean() > before + 0.5


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"features": 0}, ["features: ", "0"]),
        ({"map": "planar"}, ["map: ", "dual_ascent", "'planar'"]),
        ({"formula": "backwards"}, ["formula: ", "'to_latent'", "'backwards'"]),
        ({"bins": 1}, ["bins: ", "from 2 to 64", "1"]),
        ({"bins": 65}, ["bins: ", "65"]),
        ({"bound": 0.0}, ["bound: ", "0.0"]),
        ({"slope": 0.0}, ["slope: ", "0.0"]),
        ({"slope": 1e-9, "map": "rq_spline"}, ["slope: ", "1e-09"]),
        ({"scale": "tanh"}, ["scale: ", "'tanh'"]),
        ({"dtype": "float16"}, ["dtype: ", "float16"]),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(keywords, words):
    with pytest.raises((TypeError, ValueError)) as error:
        hr.transforms.Elementwise(**{"features": 2, **keywords})
    cases.assert_says(error, *words)


def test_wrong_arrays_are_refused():
    t = hr.transforms.Elementwise(2)
    for shape in ((3,), (3, 1), (3, 3)):
        with pytest.raises(ValueError, match=r"x: expected shape \(rows, 2\)"):
            t.inverse(np.zeros(shape))
    with pytest.raises(KeyError, match="width"):
        t.set_parameter("center", np.zeros((2, 1)))
    with pytest.raises(ValueError, match="width"):
        t.set_parameter("width", np.zeros((1, 8)))
    assert repr(t) == "Elementwise(2, map='rq_spline', formula='to_latent')"
