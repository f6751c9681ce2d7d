"""Splines whose bins have a least size: hard inputs, ends and tails, intervals, and refusals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import map_cases
import reference
from headrace._core import cpu
from pairs import pairwise

# The ends and the tails of each map by its name.
MAPS = {
    "rq_spline_nflows": ("one", "identity"),
    "rq_spline_free": ("free", "linear"),
    "rq_spline_flowjax": ("free", "identity"),
    "rq_spline_flowjax17": ("halved", "identity"),
    "rq_spline_circular": ("shared", "periodic"),
}
BOUNDS = [5.0, (0.0, 1.0), (-1.0, 3.0)]
JUDGES = {"forward": reference.coupling_forward, "inverse": reference.coupling_inverse}
KERNELS = map_cases.KERNELS
OTHER = {"forward": "inverse", "inverse": "forward"}
every_map = pytest.mark.parametrize("map", MAPS)
every_direction = pytest.mark.parametrize("direction", KERNELS)
every_bound = pytest.mark.parametrize("bound", BOUNDS, ids=str)


def ends_of(bound):
    return (-bound, bound) if np.isscalar(bound) else bound


def raw_parameters(map, n, bins, spread, dtype):
    """Return the raw parameters of n splines, one for each row."""
    shape = n, reference.MAPS[map].count(bins)
    return (spread * cases.rng("additive", map, *shape, spread).standard_normal(shape)).astype(dtype)


def through(direction, map, values, raw, kernels=KERNELS, **settings):
    """Apply the spline of each row to the row's values; return values and log-derivatives of all elements."""
    flat = np.ascontiguousarray(values, raw.dtype).reshape(-1, 1)
    params = np.ascontiguousarray(np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1])))
    value, log_derivative = kernels[direction](flat, params.reshape(len(flat), 1, -1), map, **settings)
    return value.reshape(values.shape), log_derivative.reshape(values.shape)


def knots_of(map, raw, **settings):
    return reference.additive_knots(raw, MAPS[map][0], **settings)


def hard_values(map, raw, direction, dtype, **settings):
    """Values on knots and beside them, in the middle of bins and outside of the interval; each row has its spline."""
    low, high = ends_of(settings["bound"])
    knots = knots_of(map, raw, **settings)[direction == "inverse"].astype(dtype)
    middle = (knots[:, 1:] + knots[:, :-1]) / 2
    size = high - low
    outside = [low - size, low - 1e-3 * size, high + 1e-3 * size, high + size, 1e-30, 0.0]
    far = [1e4, -1e4] if MAPS[map][1] != "periodic" else []
    others = np.tile(np.array([*outside, *far, np.finfo(dtype).smallest_subnormal], dtype), (len(raw), 1))
    return np.hstack([knots, np.nextafter(knots, -np.inf), np.nextafter(knots, np.inf), middle, others]).astype(dtype)


@pairwise(map=MAPS, direction=KERNELS, bound=BOUNDS, bins=[2, 3, 8, 64], min_bin=[1e-3, 1e-2, 1e-6], dtype=cases.DTYPES)
def test_hard_splines_match_the_reference(map, direction, bound, bins, min_bin, dtype):
    # In float32 the positions of 64 knots, which are sums of sizes, have errors of about 1e-5 of the interval.
    settings = {"bound": bound, "min_bin": max(min_bin, 1e-4 if dtype == "float32" else 0.0), "slope": 1e-3}
    low, high = ends_of(bound)
    for spread in (0.0, 1e-30, 0.1, 1.0, 3.0, 30.0, 1e4):
        raw = raw_parameters(map, 8, bins, spread, dtype)
        values = hard_values(map, raw, direction, dtype, **settings)
        got = through(direction, map, values, raw, **settings)
        want = through(direction, map, values.astype(float), raw.astype(float), JUDGES, **settings)
        # Rounding errors of positions are relative to the size of the interval; the subtraction of periods adds errors
        # of equal size.
        middle, size = 0.5 * (low + high), high - low
        wide = values.astype(float)
        inside = np.clip(wide, low, high)
        if MAPS[map][1] == "periodic":
            inside = wide - np.round((wide - middle) / size) * size
        all_knots = [np.repeat(part[:, None], values.shape[1], axis=1) for part in knots_of(map, raw, **settings)]
        magnitudes = cases.spline_magnitudes(inside, None, dtype, inverse=direction == "inverse", knots=all_knots)
        for result, expected, magnitude in zip(got, want, magnitudes, strict=True):
            periods = 1.0 + np.abs(wide - middle) / size if MAPS[map][1] == "periodic" else 1.0
            cases.assert_close(
                result.ravel(), expected.ravel(), magnitude=(magnitude * periods).ravel(), depth=16 * max(1, bins // 8)
            )


@pairwise(map=MAPS, direction=KERNELS, bins=[2, 8, 64], dtype=cases.DTYPES, together=("map", "direction", "dtype"))
def test_huge_parameters_give_numbers(map, direction, bins, dtype):
    """Huge parameters make no intermediate value overflow, although derivatives are not bounded."""
    generator = cases.rng("huge", map, bins)
    count = reference.MAPS[map].count(bins)
    largest = 1e10 if MAPS[map][1] == "linear" else 1e30  # linear tails multiply `largest` by values far outside
    raw = (generator.choice([-1.0, 1.0], (40, count)) * generator.choice([0.0, 1.0, 1e4, largest], (40, count))).astype(
        dtype
    )
    raw[0], raw[1] = largest, -largest
    values = np.sort(np.concatenate([np.linspace(-5, 5, 301), [7.0, -7.0, 1e4, -1e4, 1e-30]])).astype(dtype)
    values = values + np.zeros((40, 1), dtype)
    value, log_derivative = through(direction, map, values, raw)
    assert np.isfinite(value).all()
    assert np.isfinite(log_derivative).all()


@pairwise(map=MAPS, direction=KERNELS, bins=[2, 8, 64], dtype=cases.DTYPES, together=("map", "direction", "dtype"))
def test_extreme_splines_have_finite_gradients(map, direction, bins, dtype):
    raw = np.concatenate([raw_parameters(map, 20, bins, s, dtype) for s in (0.0, 1e-30, 1.0, 30.0, 1e4)])
    values = hard_values(map, raw, direction, dtype, bound=5.0)
    params = np.ascontiguousarray(np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1])))
    ones = np.ones_like(values), np.ones(len(values), dtype)
    for gradient in hr.ops.coupling_vjp(values, params, *ones, map, direction=direction):
        assert np.isfinite(gradient).all()


@pairwise(map=MAPS, direction=KERNELS, bound=BOUNDS, bins=[2, 5, 64], min_bin=[1e-3, 1e-2])
def test_gradients_match_differences_of_the_reference(map, direction, bound, bins, min_bin):
    low, high = ends_of(bound)
    settings = {"bound": bound, "min_bin": min_bin, "slope": 1e-2}
    generator = cases.rng("gradients", map, bins)
    values = generator.uniform(low - 0.4 * (high - low), high + 0.4 * (high - low), (60, 2))
    params = generator.standard_normal((60, 2, reference.MAPS[map].count(bins)))
    grad_value, grad_log_det = generator.standard_normal((60, 2)), generator.standard_normal(60)
    got = hr.ops.coupling_vjp(values, params, grad_value, grad_log_det, map, direction=direction, **settings)
    judge = JUDGES[direction]

    def total(v, p):
        value, log_det = judge(v, p, map, **settings)
        return (grad_value * value).sum() + (grad_log_det * log_det).sum()

    step = 1e-6 * (high - low) / bins
    for array, gradient, h in ((values, got[0], step), (params, got[1], 1e-6)):
        picked = generator.choice(array.size, min(60, array.size), replace=False)
        for i in picked:
            moved = [array.copy(), array.copy()]
            moved[0].flat[i] += h
            moved[1].flat[i] -= h
            up, down = (total(m, params) if array is values else total(values, m) for m in moved)
            assert_allclose(gradient.flat[i], (up - down) / (2 * h), rtol=1e-3, atol=2e-5 * bins)


@every_map
@every_direction
@every_bound
def test_the_two_directions_undo_each_other(map, direction, bound):
    low, high = ends_of(bound)
    raw = raw_parameters(map, 30, 6, 2.0, "float64")
    values = np.linspace(low - 0.6 * (high - low), high + 0.6 * (high - low), 301) + np.zeros((30, 1))
    value, log_derivative = through(direction, map, values, raw, bound=bound)
    back, back_log = through(OTHER[direction], map, value, raw, bound=bound)
    assert_allclose(back, values, atol=1e-9 * (high - low))
    assert_allclose(back_log, -log_derivative, atol=1e-8)


@every_direction
@every_bound
def test_a_circular_spline_moves_a_period_by_a_period(direction, bound):
    low, high = ends_of(bound)
    period = high - low
    raw = raw_parameters("rq_spline_circular", 30, 5, 1.0, "float64")
    values = np.linspace(low, high, 101) + np.zeros((30, 1))
    value, log_derivative = through(direction, "rq_spline_circular", values, raw, bound=bound)
    for turns in (-3, 1, 1000):
        moved, moved_log = through(direction, "rq_spline_circular", values + turns * period, raw, bound=bound)
        assert_allclose(moved, value + turns * period, atol=1e-9 * period)
        assert_allclose(moved_log, log_derivative, atol=1e-7)
    assert_allclose(value[:, [0, -1]], np.tile([low, high], (30, 1)), atol=1e-12 * period)
    assert_allclose(log_derivative[:, 0], log_derivative[:, -1], atol=1e-9)


@every_direction
def test_straight_tails_keep_value_and_derivative(direction):
    raw = raw_parameters("rq_spline_free", 30, 5, 1.0, "float64")
    _, _, derivatives = knots_of("rq_spline_free", raw)
    ends = np.log(derivatives[:, [0, -1]]) * (1 if direction == "forward" else -1)
    for far in (1e-9, 1.0, 100.0):
        values = np.tile([-5.0 - far, 5.0 + far], (30, 1))
        value, log_derivative = through(direction, "rq_spline_free", values, raw)
        assert_allclose(log_derivative, ends, atol=1e-12)
        assert_allclose(value, np.sign(values) * (5.0 + far * np.exp(ends)), rtol=1e-12)


@every_direction
@pytest.mark.parametrize("map", ["rq_spline_nflows", "rq_spline_flowjax", "rq_spline_flowjax17"])
def test_outside_of_the_interval_is_the_identity(map, direction, dtype):
    raw = raw_parameters(map, 10, 5, 1.0, dtype)
    values = np.array([[-1.5, 3.0001, 1e4, -1e30, 1e30]], dtype) + np.zeros((10, 1), dtype)
    value, log_derivative = through(direction, map, values, raw, bound=(-1.0, 3.0))
    cases.assert_same_bits(value, values)
    assert not log_derivative.any()


@every_map
@every_direction
def test_nan_and_infinite_parameters_spoil_their_own_element(map, direction, dtype):
    """Parameters of NaN or infinity also spoil values for which the spline is the identity."""
    count = reference.MAPS[map].count(4)
    for bad in (np.nan, np.inf, -np.inf):
        raw = np.zeros((count + 1, count), dtype)
        raw[np.arange(count), np.arange(count)] = bad
        value, log_derivative = through(direction, map, np.tile(np.array([0.3, 7.0], dtype), (count + 1, 1)), raw)
        assert np.isnan(value[:-1]).all()
        assert np.isnan(log_derivative[:-1]).all()
        assert np.isfinite(value[-1]).all()
        assert np.isfinite(log_derivative[-1]).all()


@every_map
def test_nan_stays_nan(map, dtype):
    raw = raw_parameters(map, 1, 8, 1.0, dtype)
    for direction in KERNELS:
        value, _ = through(direction, map, np.array([[np.nan, 1.0]], dtype), raw)
        assert np.isnan(value[0, 0])
        assert np.isfinite(value[0, 1])


@pairwise(map=MAPS, kind=["masked", "coupling"], layout=["interleaved", "blocked"], bins=[3, 8], dtype=cases.DTYPES)
def test_networks_give_their_parameters_in_any_order(map, kind, layout, bins, dtype):
    outputs = ("derivative", "width", "height")
    settings = {"map": map, "outputs": outputs, "layout": layout, "bound": (-4.0, 5.0), "min_bin": 0.01}
    sizes = [reference.MAPS[map].sizes(bins)[name] for name in outputs]
    generator = cases.rng("additive networks", map, kind)
    rows = 5 if kind == "masked" else 3
    columns = 5 if kind == "masked" else 2
    n = rows * sum(sizes)
    masks = [np.ones((7, columns), bool), np.ones((n, 7), bool)]
    if kind == "masked":
        degrees = np.arange(7) % 4 + 1
        masks[0] = degrees[:, None] >= np.arange(1, 6)
        of_row = np.repeat(np.arange(1, 6), sum(sizes))
        if layout == "blocked":
            of_row = np.concatenate([np.repeat(np.arange(1, 6), size) for size in sizes])
        masks[1] = of_row[:, None] > degrees
    weights = [(0.7 * generator.standard_normal(m.shape) * m).astype(dtype) for m in masks]
    biases = [(0.7 * generator.standard_normal(len(m))).astype(dtype) for m in masks]
    network = reference.Network(weights, biases, masks, "relu")
    if kind == "masked":
        library = hr.transforms.MaskedAutoregressive.from_dense(weights, biases, masks, bins=bins, **settings)
        judge = reference.MaskedAutoregressive(network, **settings)
    else:
        library = hr.transforms.Coupling.from_dense(
            weights, biases, masks, features=5, passive=[4, 1], bins=bins, **settings
        )
        judge = reference.Coupling(network, 5, [4, 1], **settings)
    cases.check_directions(library, judge, 2.0 * cases.rows(33, 5, dtype), None, dtype, depth=256)
    back = library.to_dense()
    for got, want in zip((*back[0], *back[1]), (*weights, *biases), strict=True):
        assert_array_equal(got, want)


def test_the_settings_are_shown_and_kept():
    t = hr.transforms.MaskedAutoregressive(2, (4,), map="rq_spline_circular", bins=5, bound=(0, 1), min_bin=0.01)
    assert "map='rq_spline_circular', bins=5, bound=(0, 1), min_bin=0.01" in repr(t)
    again = hr.from_bytes(hr.to_bytes(t))
    assert repr(again) == repr(t)
    x = cases.rows(9, 2, "float32")
    for got, want in zip(again.forward(x), t.forward(x), strict=True):
        cases.assert_same_bits(got, want)
    header = t._header()
    assert (header["bound"], header["min_bin"]) == ([0.0, 1.0], 0.01)
    # Files with the default least bin have only keys of files of earlier versions.
    header = hr.transforms.MaskedAutoregressive(2, (4,), map="rq_spline")._header()
    assert "min_bin" not in header
    assert header["bound"] == 5.0


BAD = {
    "bins that do not fit": ({"min_bin": 0.2, "bins": 5}, ["min_bin", "below 0.2"]),
    "a least bin of zero": ({"min_bin": 0.0}, ["min_bin", "1e-06"]),
    "a least bin of NaN": ({"min_bin": float("nan")}, ["min_bin", "nan"]),
    "a least bin of a string": ({"min_bin": "small"}, ["min_bin", "str"]),
    "an empty interval": ({"bound": (1.0, 1.0)}, [r"bound\[1\]", "above 1"]),
    "an interval the wrong way round": ({"bound": (1.0, -1.0)}, [r"bound\[1\]", "-1"]),
    "three ends": ({"bound": (0.0, 1.0, 2.0)}, ["bound", "two"]),
    "an infinite interval": ({"bound": (-float("inf"), 1.0)}, [r"bound\[0\]", "inf"]),
    "a bound below zero": ({"bound": -1.0}, ["bound", "-1"]),
}


@every_map
@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(map, name):
    settings, words = BAD[name]
    bins = settings.get("bins", 8)
    values, params = np.zeros((2, 3)), np.zeros((2, 3, reference.MAPS[map].count(bins)))
    makers = [
        lambda: hr.transforms.MaskedAutoregressive(3, map=map, **settings),
        lambda: hr.transforms.Coupling(3, [0], map=map, **settings),
        lambda: hr.transforms.Elementwise(3, map=map, **settings),
        lambda: hr.ops.coupling(values, params, map, **settings),
        lambda: hr.ops.coupling_vjp(values, params, values, np.zeros(2), map, **settings),
    ]
    for maker in makers:
        with pytest.raises((TypeError, ValueError)) as error:
            maker()
        cases.assert_says(error, *words)


def test_the_old_spline_has_a_symmetric_interval():
    with pytest.raises(ValueError, match=r"bound: expected one number for map 'rq_spline'.* got \(0, 1\)"):
        hr.transforms.MaskedAutoregressive(3, map="rq_spline", bound=(0, 1))


@every_map
def test_the_core_refuses_bad_settings_itself(map):
    values, params = np.zeros((2, 3)), np.zeros((2, 3, reference.MAPS[map].count(8)))
    out = np.empty((2, 3)), np.empty(2)
    call = [map, "exp", 1e-3, 5.0, 8, False, values, params, *out]
    cpu.coupling(*call, low=0.0, min_bin=0.1)
    for bad in ({"low": 5.0}, {"low": float("nan")}, {"low": -float("inf")}, {"min_bin": 0.125}, {"min_bin": 0.0}):
        with pytest.raises(ValueError, match=r"low|min_bin"):
            cpu.coupling(*call, **bad)
    with pytest.raises(ValueError, match="low"):
        cpu.coupling("rq_spline", "exp", 1e-3, 5.0, 8, False, values, np.zeros((2, 3, 23)), *out, low=0.0)
