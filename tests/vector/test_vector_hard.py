"""Planar and radial transforms at the limits of their parameters and of the dtype."""

from functools import partial

import numpy as np
import pytest

import cases
import reference
import vector_cases
from pairs import pairwise

FEATURES = 5
PLANAR = ("planar", "planar with leaky ReLU")
every_variant = pytest.mark.parametrize("variant", vector_cases.VARIANTS)


def _planar(w=1.0, u=1.0, along=None, b=0.3):
    """Parameters with random w and u times these factors; with ``along``, u gets a part along w that makes w.u about
    that value."""
    ws, us = cases.rng("hard planar").standard_normal((2, FEATURES))
    us = u * us if along is None else along * ws / (ws @ ws) + u * us
    return np.concatenate([w * ws, us, [b]])


def _radial(alpha, beta):
    return np.concatenate([cases.rng("hard radial").standard_normal(FEATURES), [alpha, beta]])


TINY = (0.0, 1e-42, 1e-30, 1e-10)  # the second value is subnormal in float32
PLANAR_PARAMS = {
    **{f"w of {w:g}": _planar(w=w) for w in TINY},
    **{f"u of {u:g}": _planar(u=u) for u in (*TINY, 1e4)},
    **{f"w and u of {w:g}": _planar(w=w, u=w) for w in TINY},
    "w of 1e10": _planar(w=1e10),
    **{f"w.u of {a:g}": _planar(u=0.0, along=a) for a in (-1.0, -5.0, -30.0, -1e4, 1e4, 1e30)},
    **{f"w.u of {a:g} and more": _planar(along=a) for a in (-1.0, -5.0, -30.0, -1e4, 1e4)},
    "b of 1e6": _planar(b=1e6),
    "b of -1e30": _planar(b=-1e30),
}
RAW = (-1e30, -1e4, -30.0, 0.0, 30.0, 1e4, 1e6)
RADIAL_PARAMS = {f"alpha of {a:g}, beta of {b:g}": _radial(a, b) for a in RAW for b in RAW}
CASES = [(variant, name) for variant in PLANAR for name in PLANAR_PARAMS] + [("radial", name) for name in RADIAL_PARAMS]
every_case = pytest.mark.parametrize(("variant", "name"), CASES)


def params_of(variant, name, dtype):
    return (PLANAR_PARAMS if variant in PLANAR else RADIAL_PARAMS)[name].astype(dtype)


def rows_of(params, dtype):
    """Ordinary rows, small and large ones, the origin, a radial center and rows near the center."""
    ordinary, center = cases.rows(40, FEATURES, dtype), params[:FEATURES]
    near = [center + distance * ordinary[0] for distance in (0.0, 1e-30, 1e-6, 1e-3)]
    return np.concatenate([ordinary, 1e-3 * ordinary[:5], 1e6 * ordinary[:5], 0.0 * ordinary[:1], near]).astype(dtype)


def condition_of_u(params):
    """The condition number of the moved u with respect to u: most of a large u that points against w cancels."""
    w, u = params[:FEATURES].astype(float)[None], params[FEATURES:-1].astype(float)[None]
    moved = np.linalg.norm(reference.planar.moved_u(w, u)[0])
    return np.linalg.norm(u) / moved if moved > 0.0 else 1.0


def ops_of(variant, per_row):
    """Functions ``call(rows, params)`` of both directions of hr.ops, with one set of parameters or one for each row."""

    def direction(name, rows, params):
        return vector_cases.call(variant, name, rows, np.tile(params, (len(rows), 1)) if per_row else params)

    return partial(direction, "forward"), partial(direction, "inverse")


@pairwise(variant__name=CASES, per_row=[False, True], dtype=cases.DTYPES)
def test_edges_of_the_parameters(variant, name, per_row, dtype):
    """Values are right up to the rounding of rows and of raw parameters, and log-determinants up to that of rows."""
    params = params_of(variant, name, dtype)
    judge, rows = vector_cases.judge(variant, params), rows_of(params, dtype)
    condition = condition_of_u(params) if variant in PLANAR else 1.0
    forward, inverse = ops_of(variant, per_row)
    for direction, want in ((forward, judge.forward), (inverse, judge.inverse)):
        vector_cases.check(lambda x, f=direction: f(x, params), want, rows, dtype, depth=2, condition=condition)
    library = vector_cases.transform(variant, params)
    for direction, want in ((library.forward, judge.forward), (library.inverse, judge.inverse)):
        vector_cases.check(direction, want, rows, dtype, depth=2, condition=condition)


@pytest.mark.parametrize("along", [-5.0, -30.0, -1e4])
@pytest.mark.parametrize("per_row", [False, True])
def test_at_the_bound_a_planar_map_agrees_with_its_determinant(along, per_row, dtype):
    """Near w.z + b = 0 the map shrinks along w by 1e-3, because nearly all of u along w is removed.

    The nonlinearity tanh departs from its tangent by a third of the square of a step, and 1 - 0.999 has rounding errors
    relative to 1.
    """
    params, step = _planar(along=along, b=0.0).astype(dtype), 2.0**-10
    w = params[:FEATURES].astype(float)
    forward, _ = ops_of("planar", per_row)
    x, log_det = forward(np.stack([step * w / (w @ w), np.zeros(FEATURES)]).astype(dtype), params)
    want = np.exp(log_det[1])
    assert 0.999e-3 < want < 0.02
    assert abs((x[0] - x[1]) @ w / step - want) <= step**2 + 8 * FEATURES * np.finfo(dtype).eps


@pytest.mark.parametrize("name", RADIAL_PARAMS)
def test_the_center_is_a_fixed_point(name, dtype):
    params = params_of("radial", name, dtype)
    center = params[None, :FEATURES]
    want = FEATURES * (np.log(reference.positive(params[-1])) - np.log(reference.positive(params[-2])))
    for direction, sign in zip(ops_of("radial", per_row=False), (1.0, -1.0), strict=True):
        value, log_det = direction(center, params)
        np.testing.assert_array_equal(value, center)
        np.testing.assert_allclose(log_det, sign * want, *2 * [cases.tolerance(dtype, 1)])


@pairwise(
    variant=vector_cases.VARIANTS,
    size=[1e6, 1e18, 1e30],
    per_row=[False, True],
    dtype=cases.DTYPES,
    together=("variant", "per_row", "dtype"),
)
def test_rows_far_away(variant, size, per_row, dtype):
    params = vector_cases.raw(vector_cases.VARIANTS[variant][0], FEATURES, dtype)
    judge, rows = vector_cases.judge(variant, params), (size * cases.rows(60, FEATURES, "float64")).astype(dtype)
    for direction, name in zip(ops_of(variant, per_row), ("forward", "inverse"), strict=True):
        (value, log_det), want = direction(rows, params), getattr(judge, name)(rows)
        largest = np.abs(np.hstack([rows, want[0]])).max(axis=1)
        condition = 1e3 if variant == "planar with leaky ReLU" else 30.0
        assert (np.abs(value - want[0]).max(axis=1) / largest).max() <= cases.tolerance(dtype, 1) * condition
        np.testing.assert_allclose(log_det, want[1], rtol=cases.tolerance(dtype, 2), atol=cases.tolerance(dtype, 2))


@every_variant
@pytest.mark.parametrize("features", [1, 3, FEATURES])
def test_huge_tiny_and_mixed_rows_give_finite_results(variant, features, dtype):
    params = vector_cases.raw(vector_cases.VARIANTS[variant][0], features, dtype)
    library, given = vector_cases.transform(variant, params), cases.hard_rows(features, dtype)
    ones = np.ones_like(given), np.ones(len(given), dtype)
    for direction in ("forward", "inverse"):
        value, log_det = getattr(library, direction)(given)
        assert np.isfinite(value).all()
        assert np.isfinite(log_det).all()
        by_given, by_parameters = getattr(library, f"{direction}_vjp")(given, *ones)
        assert np.isfinite(by_given).all()
        if variant == "radial":
            assert np.isfinite(by_parameters).all()


@pairwise(
    variant=vector_cases.VARIANTS,
    poison=[np.nan, np.inf, -np.inf],
    per_row=[False, True],
    dtype=cases.DTYPES,
    together=("variant", "per_row", "dtype"),
)
def test_a_poisoned_row_of_hr_ops_leaves_all_others_alone(variant, poison, per_row, dtype):
    params = vector_cases.raw(vector_cases.VARIANTS[variant][0], FEATURES, dtype)
    for direction in ops_of(variant, per_row):
        for n, row in ((1, 0), (5, 2), (65, 64), (200, 99)):
            clean = cases.rows(n, FEATURES, dtype)
            given, others = clean.copy(), np.arange(n) != row
            given[row, 3] = poison
            got, want = direction(given, params), direction(clean, params)
            for result, expected in zip(got, want, strict=True):
                cases.assert_same_bits(result[others], expected[others])
            assert not np.isfinite(got[0][row]).all()


@every_variant
def test_a_poisoned_parameter_set_leaves_the_rows_of_others_alone(variant, dtype):
    given, clean, *_ = vector_cases.batch(variant, 97, FEATURES, dtype, per_row=True)
    params = clean.copy()
    params[40] = np.nan
    for name in ("forward", "inverse"):
        others = np.arange(97) != 40
        pairs = zip(*(vector_cases.call(variant, name, given, one) for one in (params, clean)), strict=True)
        for got, want in pairs:
            cases.assert_same_bits(got[others], want[others])
            assert np.isnan(got[40]).all()


@every_variant
def test_parameters_of_nan_make_all_rows_nan(variant, dtype):
    params = np.full(vector_cases.count(vector_cases.VARIANTS[variant][0], 3), np.nan, dtype)
    library = vector_cases.transform(variant, params)
    for direction in (library.forward, library.inverse):
        for result in direction(cases.rows(20, 3, dtype)):
            assert np.isnan(result).all()
