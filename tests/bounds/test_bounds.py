"""The argument `bounds` of all flows: standardisation and refusals of a fit, samples, and gains."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import reference

NAMED = {
    "MAF": hr.MAF,
    "IAF": hr.IAF,
    "RealNVP": hr.RealNVP,
    "NSF": hr.NSF,
    "planar": hr.PlanarFlow,
    "radial": hr.RadialFlow,
}
BOUNDS = [(10.0, None), (0.0, 1.0), None, (None, -2.0)]
LOW, HIGH = np.array([10.0, 0.0, -np.inf, -np.inf]), np.array([np.inf, 1.0, np.inf, -2.0])
every_named = pytest.mark.parametrize("name", NAMED)


def rows(n=400, dtype="float64", *key):
    """Return dependent columns on the support, whose unbounded values are not centred at 0."""
    y = cases.rows(n, 4, "float64", "bounded", *key)
    y[:, 1] += np.sin(2.0 * y[:, 0])
    return reference.Support(BOUNDS).forward(0.7 * y + [3.0, -1.0, 5.0, 0.5])[0].astype(dtype)


def fitted(name="MAF", dtype="float32", **more):
    flow = NAMED[name](4, transforms=2, bounds=BOUNDS, dtype=dtype, **more)
    flow.fit(rows(), epochs=3, progress=False)
    return flow


def inside(x):
    return bool(((x > LOW) & (x < HIGH)).all())


@every_named
def test_named_flows_fit_sample_and_are_saved(name, dtype, tmp_path):
    flow = fitted(name, dtype)
    x, log_prob = flow.sample_and_log_prob(2000, seed=0)
    assert inside(x)
    cases.assert_close(flow.log_prob(x), log_prob, magnitude=20.0, depth=256)
    *_, standardize, support = flow.transforms
    assert isinstance(standardize, hr.transforms.Standardize)
    assert support.bounds == tuple(BOUNDS)
    flow.save(tmp_path / "flow")
    cases.assert_same_bits(hr.load(tmp_path / "flow").log_prob(x), flow.log_prob(x))


def test_a_fit_standardises_unbounded_values():
    flow, x = fitted(), rows()
    standardize = flow.transforms[-2]
    y = reference.Support(BOUNDS).inverse(x)[0]
    assert_allclose(standardize.mean, y.mean(axis=0), atol=0.2)  # y includes held-out rows
    flow = hr.MAF(4, transforms=1, bounds=BOUNDS)
    flow.fit(x, validation=None, epochs=0, progress=False)
    assert_allclose(flow.transforms[-2].mean, y.mean(axis=0), rtol=1e-12)
    assert_allclose(flow.transforms[-2].std, y.std(axis=0), rtol=1e-12)
    mean = flow.transforms[-2].mean
    flow.fit(x + np.array([5.0, 0.0, 5.0, -5.0]), epochs=1, progress=False)  # a later fit keeps the mean
    assert_array_equal(flow.transforms[-2].mean, mean)


def test_densities_integrate_to_one():
    """The trapezoidal rule in the unbounded value integrates over the support of each column."""
    x = reference.Support([(0.0, 1.0)]).forward(0.8 + cases.rows(300, 1, "float64"))[0]
    flow = hr.NSF(1, transforms=1, hidden=(8,), bounds=[(0.0, 1.0)], dtype="float64")
    flow.fit(x, epochs=5, progress=False)
    y = np.linspace(-25.0, 25.0, 20_001)[:, None]
    grid, log_det = reference.Support([(0.0, 1.0)]).forward(y)
    mass = np.exp(flow.log_prob(grid) + log_det)
    assert mass.sum() * (y[1, 0] - y[0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert_array_equal(flow.log_prob(np.array([[0.0], [1.0], [-1.0]])), -np.inf)


def test_bounds_gain_beside_a_free_flow():
    """A gamma density of shape 1 has most of its mass near 0, below which a flow without bounds also has density."""
    x = cases.rng("gamma").gamma(1.0, 2.0, (3000, 1))
    test = cases.rng("gamma", "test").gamma(1.0, 2.0, (3000, 1))
    scores = {}
    for name, bounds in (("bounded", [(0.0, None)]), ("free", None)):
        flow = hr.NSF(1, transforms=1, hidden=(16,), bounds=bounds)
        flow.fit(x, epochs=15, progress=False)
        scores[name] = flow.log_prob(test).mean()
    true = (-test / 2.0 - np.log(2.0)).mean()
    assert scores["bounded"] > true - 0.04
    assert scores["bounded"] > scores["free"] + 0.04


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_refuses_rows_on_a_bound_or_beyond(dtype):
    x = rows(200, dtype)
    x[[7, 90, 150], [1, 0, 3]] = [1.0, 9.0, -2.0]
    flow = hr.MAF(4, transforms=1, hidden=(4,), bounds=BOUNDS)
    before = flow.parameters
    words = (
        r"x: expected numbers between their bounds.* in 3 of 200 rows, first in row 7, column 1: 1, bounds \(0.0, 1.0\)"
    )
    with pytest.raises(ValueError, match="^" + words):
        flow.fit(x, progress=False)
    with pytest.raises(ValueError, match="^validation " + words):
        flow.fit(rows(), validation=x, progress=False)
    cases.assert_same_bits(flow.parameters, before)
    assert flow.transforms[-2].is_identity
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 200 rows"):
        flow.fit(x, progress=False)


def test_columns_are_named():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"age": [1.0, 2.0, 0.0], "share": [0.5, 0.1, 0.2]})
    flow = hr.MAF(2, transforms=1, hidden=(4,), bounds=[(0.0, None), (0.0, 1.0)])
    with pytest.raises(ValueError, match=r"in 1 of 3 rows, first in row 2, column 'age': 0"):
        flow.fit(table, progress=False)


def test_float32_rows_that_are_the_bound_in_float32_are_on_it():
    flow = hr.MAF(1, transforms=1, hidden=(4,), bounds=[(0.1, None)])
    x = np.array([[0.2], [0.1]], np.float32)  # the float32 nearest to 0.1 is above 0.1
    assert flow.log_prob(x)[1] == -np.inf
    with pytest.raises(ValueError, match="in 1 of 2 rows, first in row 1"):
        flow.fit(x, progress=False)
    assert np.isfinite(flow.log_prob(x.astype(np.float64))).all()


@pytest.mark.filterwarnings("ignore:x. column 0 is constant")  # far from a bound the values are constant
def test_bounds_that_overflow_in_float32():
    """A bound that is infinite in float32 has no effect, or excludes all rows."""
    x = cases.rng("wide").uniform(0.1, 0.9, (100, 1)).astype(np.float32)
    for bounds in ((-1e300, None), (None, 1e300), (1e-60, 1.0)):
        flow = hr.MAF(1, transforms=1, hidden=(4,), bounds=[bounds])
        flow.fit(x, epochs=1, progress=False)
        assert np.isfinite(flow.log_prob(x)).all()
    flow = hr.MAF(1, transforms=1, hidden=(4,), bounds=[(1e39, None)])
    with pytest.raises(ValueError, match="in 100 of 100 rows"):
        flow.fit(x, progress=False)
    assert_array_equal(flow.log_prob(x), -np.inf)


def test_a_fit_warns_of_bounds_with_few_float32_values_between():
    x = 1e9 + cases.rng("narrow").uniform(0.1, 0.9, (100, 2))
    narrow = {"transforms": 1, "hidden": (4,), "bounds": [None, (1e9, 1e9 + 1.0)]}
    with pytest.warns(RuntimeWarning) as warned:
        hr.MAF(2, **narrow).fit(x, epochs=1, progress=False)
    (message,) = (str(w.message) for w in warned if "ends" in str(w.message))
    assert "ends of column 1 (column 1: (1000000000.0, 1000000001.0)); draw by sample(dtype='float64')" in message
    with pytest.warns(RuntimeWarning, match=r"few numbers .*subtract a constant from rows and bounds"):
        hr.MAF(1, transforms=1, hidden=(4,), bounds=[(1e9, 1e9 + 6e4)]).fit(
            (1e9 + 6e4 * (x[:, 1:] - 1e9)).astype(np.float32), epochs=1, progress=False
        )


@pytest.mark.filterwarnings("error")
def test_bounds_with_room_give_no_warning():
    x, once = cases.rng("room").uniform(0.1, 0.9, (100, 2)), {"epochs": 1, "validation": None, "progress": False}
    hr.MAF(2, transforms=1, hidden=(4,), bounds=[(0.0, 1.0), (-1e6, 1e6)]).fit(x, **once)
    far = np.column_stack([x[:, 0], 1e9 + x[:, 1]])
    bounds = [(0.0, 1.0), (1e9, 1e9 + 1.0)]
    hr.MAF(2, transforms=1, hidden=(4,), bounds=bounds, dtype="float64").fit(far, **once)


def test_a_constant_column_is_shifted_off_its_support():
    x = rows(100)
    x[:, 1] = 0.1
    flow = hr.MAF(4, transforms=1, hidden=(4,), bounds=BOUNDS)
    with pytest.warns(RuntimeWarning, match="column 1 is constant in the training part"):
        flow.fit(x, epochs=1, progress=False)
    assert_allclose(flow.transforms[-2].mean[1], np.log(0.1 / 0.9), rtol=1e-12)
    assert flow.transforms[-2].std[1] == 1.0
    assert inside(flow.sample(200, seed=0))


def test_a_row_on_a_bound_is_refused_with_any_weight():
    """A row on a bound, like a row that is not finite, is refused even if its weight is 0."""
    x, weights = rows(100), np.ones(100)
    x[7, 1], weights[7] = 1.0, 0.0
    with pytest.raises(ValueError, match="in 1 of 100 rows, first in row 7, column 1"):
        hr.MAF(4, transforms=1, hidden=(4,), bounds=BOUNDS).fit(x, weights=weights, progress=False)
    model = hr.DualAscentFlow(steps=2, bounds=BOUNDS)
    with pytest.raises(ValueError, match="in 1 of 100 rows, first in row 7, column 1"):
        model.fit(x, weights=weights, progress=False)


def test_members_and_conditionals_keep_bounds(tmp_path):
    flow = hr.MAF(4, transforms=1, hidden=(8,), link="none", bounds=BOUNDS, seed=1)
    both = hr.Ensemble([flow, hr.MAF(4, transforms=1, hidden=(8,), bounds=BOUNDS, seed=2)])
    both.fit(rows(200), epochs=1, progress=False)
    assert inside(both.sample(500, seed=0))
    x = rows(4, "float32", "bad")
    x[1, 0], x[2, 1], x[3, 2] = 9.0, 1.0, np.nan
    got = both.log_prob(x)
    assert np.isfinite(got[0])
    assert_array_equal(got[1:3], -np.inf)
    assert np.isnan(got[3])
    rest = flow.given(x[:, :1])  # the second row has no density, and no conditional density
    y = rest.log_prob(x[:, 1:])
    assert np.isfinite(y[0])
    assert np.isnan(y[[1, 3]]).all()
    assert y[2] == -np.inf
    drawn = rest.sample(50, seed=0)
    assert np.isnan(drawn[:, 1]).all()
    assert ((drawn[:, [0, 2, 3]] > LOW[1:]) & (drawn[:, [0, 2, 3]] < HIGH[1:])).all()


def test_copies_keep_bounds():
    flow, x = fitted(), rows(20)
    same = [pickle.loads(pickle.dumps(flow)), copy.copy(flow), copy.deepcopy(flow), flow.to("cpu")]
    for other in (*same, hr.Flow(flow.transforms, flow.base)):
        cases.assert_same_bits(other.log_prob(x), flow.log_prob(x))
        assert other.transforms[-1].bounds == tuple(BOUNDS)
    cases.assert_close(flow.log_prob(x), flow.astype("float64").log_prob(x), magnitude=20.0, depth=256)


@pytest.mark.parametrize(
    ("bounds", "kind", "words"),
    [
        (np.array([[0.0, 1.0]] * 3), ValueError, ["bounds: ", "expected 2", "got 3"]),
        ([None], ValueError, ["bounds: ", "expected 2", "got 1"]),
        ([None] * 3, ValueError, ["bounds: ", "expected 2", "got 3"]),
        ([(0, 0), None], ValueError, [r"bounds\[0\]: ", "low below high"]),
        ([(0, np.inf), None], ValueError, [r"bounds\[0\]\[1\]: ", "None for no bound"]),
        (3, TypeError, ["bounds: ", "sequence", "int"]),
    ],
    ids=str,
)
@every_named
def test_wrong_bounds_are_refused(name, bounds, kind, words):
    with pytest.raises(kind) as error:
        NAMED[name](2, bounds=bounds)
    cases.assert_says(error, *words)


def test_no_bounds_add_nothing():
    flow = hr.MAF(2, transforms=1, hidden=(4,), bounds=[None, (None, None)])
    assert isinstance(flow.transforms[-1], hr.transforms.Standardize)


@pytest.mark.usefixtures("one_mixture")
def test_few_rows_are_fitted_with_the_gaussian_of_unbounded_numbers():
    flow = hr.MAF(4, transforms=1, hidden=(4,), bounds=BOUNDS)
    history = flow.fit(rows(60), progress=False)
    assert history.judged_by == "cross-validation"
    assert isinstance(flow.transforms[-1], hr.transforms.Support)
    assert inside(flow.sample(500, seed=0))
    assert np.isfinite(flow.log_prob(rows(50, "float64", "more"))).all()


@pytest.mark.parametrize("map", ["spline", "kink"])
def test_dual_ascent(map, tmp_path):
    x = rows()
    more = {"refine": False} if map == "spline" else {}
    model = hr.DualAscentFlow(map=map, steps=8, bounds=BOUNDS, **more)
    flow = model.fit(x, validation=rows(100, "float64", "held out"), progress=False)
    samples, log_prob = flow.sample_and_log_prob(1000, seed=0)
    assert inside(samples)
    cases.assert_close(flow.log_prob(samples), log_prob, magnitude=50.0, depth=256)
    same = hr.DualAscentFlow(map=map, steps=8, **more).fit(
        reference.Support(BOUNDS).inverse(x)[0],
        validation=reference.Support(BOUNDS).inverse(rows(100, "float64", "held out"))[0],
        progress=False,
    )
    y, log_det = reference.Support(BOUNDS).inverse(x)
    assert_allclose(flow.log_prob(x), same.log_prob(y) + log_det, rtol=1e-3, atol=1e-2)
    assert len(flow[:1]) == 1
    assert isinstance(flow[:1].transforms[-1], hr.transforms.Support)
    flow.save(tmp_path / "flow")
    cases.assert_same_bits(hr.load(tmp_path / "flow").log_prob(x), flow.log_prob(x))
    assert len(hr.load(tmp_path / "flow")) == len(flow)
    x[3, 1] = 0.0
    with pytest.raises(ValueError, match=r"^x: expected numbers between .* in 1 of 400 rows, first in row 3, column 1"):
        model.fit(x, progress=False)
    with pytest.raises(ValueError, match=r"^bounds: expected 3 of them"):
        model.fit(x[:, :3], progress=False)


def test_distillation_keeps_the_scales_of_the_same_bounds_alone():
    teacher = fitted()
    same = hr.IAF(4, transforms=1, hidden=(8,), bounds=BOUNDS)
    hr.distill(teacher, same, steps=2, samples=64, progress=False)
    assert_array_equal(same.transforms[-2].mean, teacher.transforms[-2].mean)
    other = hr.IAF(4, transforms=1, hidden=(8,), bounds=[(11.0, None), *BOUNDS[1:]])
    hr.distill(teacher, other, steps=2, samples=64, progress=False)
    assert other.transforms[-2].is_identity


@pytest.mark.parametrize(
    ("bounds", "got"),
    [(None, "none"), ([(9.0, None), *BOUNDS[1:]], r"\(9.0, None\)"), ([(None, 11.0), *BOUNDS[1:]], r"\(None, 11.0\)")],
)
def test_distillation_refuses_samples_beyond_the_teacher_s_bounds(bounds, got):
    student = hr.IAF(4, transforms=1, hidden=(8,), bounds=bounds)
    words = rf"^student: expected the teacher's bounds \(10.0, None\) in column 0, got {got}"
    with pytest.raises(ValueError, match=words):
        hr.distill(fitted(), student, steps=2, samples=64, progress=False)
    free = hr.MAF(4, transforms=1, hidden=(8,))
    hr.distill(free, hr.IAF(4, transforms=1, hidden=(8,), bounds=BOUNDS), steps=2, samples=64, progress=False)


def test_distillation_of_an_angle_needs_one_period():
    more = {"transforms": 1, "hidden": (6,), "coupling": True}
    teacher = hr.NSF(2, **more, periodic=[(0.0, 24.0), None])
    same = hr.NSF(2, **more, periodic=[(0.0, 24.0), None], seed=1)
    _, report = hr.distill(teacher, same, steps=5, samples=64, progress=False)
    assert np.isfinite(report.kl)
    with pytest.raises(ValueError, match=r"^student: expected .* bounds \(0.0, 24.0\) in column 0, got none"):
        hr.distill(teacher, hr.NSF(2, **more), steps=2, samples=64, progress=False)


@pytest.mark.parametrize("base", [hr.StudentT(4), hr.Independent(["normal", "logistic"] * 2)], ids=repr)
def test_some_columns_keep_their_bounds(base):
    """Densities equal sums over the other columns: p(first two) = p(all) / p(others given the first two)."""
    flow = hr.MAF(4, transforms=1, hidden=(8,), link="none", bounds=BOUNDS, base=base, dtype="float64")
    flow.fit(rows(), epochs=2, progress=False)
    part = flow.marginal([0, 1])
    assert part.transforms[-1].bounds == tuple(BOUNDS[:2])
    x = rows(50, "float64", "part")
    rest = flow.given(x[:, :2])
    assert_allclose(part.log_prob(x[:, :2]) + rest.log_prob(x[:, 2:]), flow.log_prob(x), rtol=1e-9)


def test_the_estimator_takes_bounds():
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    x = rows(dtype="float32")
    density = estimator(transforms=1, hidden=(8,), bounds=BOUNDS, epochs=2, random_state=0).fit(x)
    assert inside(density.sample(200, random_state=0))
    outside = np.array([[9.0, 0.5, 0.0, -3.0]], np.float32)
    assert density.score_samples(outside) == -np.inf
    assert density.predict(outside).tolist() == [-1]
    with pytest.raises(ValueError, match="in 1 of 401 rows"):
        density.fit(np.concatenate([x, outside]))
