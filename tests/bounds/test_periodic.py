"""Periodic columns: the transform, a flow of couplings, and refusals; `test_periodic_flows.py` tests all flows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr

PERIODS = [(-np.pi, np.pi), None, (0.0, 24.0), None]
BOUNDS = [None, (0.0, None), None, None]
LOW, HIGH = np.array([-np.pi, 0.0, 0.0, -np.inf]), np.array([np.pi, np.inf, 24.0, np.inf])
WIDTH = np.array([2 * np.pi, 0.0, 24.0, 0.0])


def rows(n=600, dtype="float64", *key):
    """Return rows with an angle and an hour, whose peaks are on their seams and depend on other columns."""
    y = cases.rows(n, 4, "float64", "periodic", *key)
    x = np.column_stack([np.pi + 0.4 * y[:, 0] + 0.3 * y[:, 3], np.exp(y[:, 1]), 2.0 * y[:, 2] + y[:, 3], y[:, 3]])
    for c in (0, 2):
        x[:, c] = LOW[c] + np.mod(x[:, c] - LOW[c], WIDTH[c])
    return x.astype(dtype)


def fresh(dtype="float64", **more):
    settings = {"transforms": 2, "hidden": (12,), "coupling": True, "bounds": BOUNDS, "periodic": PERIODS}
    return hr.NSF(4, dtype=dtype, **{**settings, **more})


def moved(dtype="float64", **more):
    """Return a flow far from the identity, with scales set by a fit."""
    flow = fresh(dtype, **more)
    context = cases.rows(600, flow.context, "float64", "fit context") if flow.context else None
    flow.fit(rows(), context, epochs=1, progress=False)
    return cases.randomise(flow, 0.4, "periodic")


# --- the transform ----------------------------------------------------------------------------------------------------


def test_columns_are_wrapped_to_a_circle(dtype, core):
    t = hr.transforms.Support(None, [(0.0, 24.0)])
    for n in (5, 40):
        x = np.linspace(-60.0, 60.0, n)[:, None].astype(dtype)
        z, log_det = t.inverse(x)
        want = 2.0 * np.mod(x.astype(float) / 24.0, 1.0) - 1.0
        near = np.abs(np.mod(z - want + 1.0, 2.0) - 1.0)  # differences are taken around the seam
        assert near.max() < 1e-5 if dtype == "float32" else near.max() < 1e-12
        assert ((z >= -1.0) & (z < 1.0)).all()
        assert_allclose(log_det, np.log(2.0 / 24.0), rtol=1e-6)
        back, log_det = t.forward(np.linspace(-3.0, 3.0, n)[:, None].astype(dtype))
        assert ((back >= 0.0) & (back < 24.0)).all()
        assert_allclose(log_det, np.log(24.0 / 2.0), rtol=1e-6)


def test_just_below_a_period_is_its_end(core, dtype):
    """Values slightly below 0 wrap to values that are rounded to 1, which is also the start of a period."""
    t = hr.transforms.Support(None, [(0.0, 1.0)])
    x = np.array([[-1e-30], [-1e-12], [np.finfo(dtype).tiny], [0.0], [-0.0], [-7.0], [1e30], [-1e30], [1e19]], dtype)
    for given in (x, x[:3]):
        z = t.inverse(given)[0]
        assert ((z >= -1.0) & ((z < 1.0) if dtype == "float64" else (z <= 1.0))).all()


@pytest.mark.parametrize("period", [(-np.pi, np.pi), (0.1, 0.3), (0.0, 1.0)])
def test_results_lie_in_one_period(period, dtype):
    t = hr.transforms.Support(None, [period])
    z = np.concatenate([np.linspace(-1.0, 1.0, 100), np.nextafter([-1.0, 1.0, 1.0], [0.0, 0.0, 2.0])])[:, None]
    x = t.forward(z.astype(dtype))[0]
    assert (x.astype(float) >= period[0] - np.spacing(x.dtype.type(period[1]))).all()
    assert (x < x.dtype.type(period[1])).all()


def test_gradients_of_a_period():
    t = hr.transforms.Support([None, (0.0, None)], [(0.0, 5.0), None])
    given = np.abs(cases.rows(9, 2, "float64")) % 1.0 + 0.1
    (got,) = t.inverse_vjp(given, np.ones((9, 2)), 2.0 * np.ones(9), wrt=("inputs",))
    assert_allclose(got[:, 0], 2.0 / 5.0)
    assert_allclose(got[:, 1], (1.0 - 2.0) / given[:, 1])
    (got,) = t.forward_vjp(given, np.ones((9, 2)), 2.0 * np.ones(9), wrt=("inputs",))
    assert_allclose(got[:, 0], 5.0 / 2.0)
    assert_allclose(got[:, 1], np.exp(given[:, 1]) + 2.0)


# --- flows ------------------------------------------------------------------------------------------------------------


def test_a_row_shifted_by_a_period_has_the_same_density(dtype):
    flow = moved(dtype)
    x = rows(50, dtype, "more")
    for shift in ([1, 0, 0, 0], [0, 0, -1, 0], [2, 0, 3, 0]):
        there = (x + np.array(shift) * WIDTH).astype(dtype)
        cases.assert_close(flow.log_prob(there), flow.log_prob(x), magnitude=20.0, depth=512)


@pytest.mark.parametrize("column", [0, 2])
def test_the_density_is_continuous_across_the_seam(column):
    """A step of 1e-6 of a period to either side of the seam changes the density little, and its slope little."""
    flow = moved()
    x = rows(40, "float64", "seam")
    step = 1e-6 * WIDTH[column]
    left, seam, right = (x.copy() for _ in range(3))
    left[:, column], seam[:, column], right[:, column] = HIGH[column] - step, LOW[column], LOW[column] + step
    values = [flow.log_prob(each) for each in (left, seam, right)]
    before, after = values[1] - values[0], values[2] - values[1]
    assert np.abs(before).max() < 1e-3
    scores = [flow.log_prob_and_score(each)[1][:, column] for each in (left, right)]
    assert_allclose(scores[0], scores[1], rtol=1e-2, atol=1e-2 * np.abs(scores[0]).max())
    assert np.abs(after).max() < 1e-3


def test_samples_have_their_density(dtype):
    flow = moved(dtype)
    x, log_prob = flow.sample_and_log_prob(500, seed=0)
    assert ((x >= LOW.astype(dtype)) & (x < HIGH.astype(dtype))).all()
    assert (x[:, 1] > 0).all()
    cases.assert_close(flow.log_prob(x), log_prob, magnitude=50.0, depth=2048)


def test_the_density_of_an_angle_integrates_to_one():
    flow = moved(context=1)
    grid = np.linspace(-np.pi, np.pi, 4001)[:-1]
    fixed = hr.NSF(1, 1, transforms=2, hidden=(8,), coupling=True, periodic=[(-np.pi, np.pi)], dtype="float64")
    fixed = cases.randomise(fixed, 0.2)
    for value in (-1.0, 2.0):
        mass = np.exp(fixed.log_prob(grid[:, None], np.array([value]))).sum() * (grid[1] - grid[0])
        assert mass == pytest.approx(1.0, abs=1e-3)
    assert np.isfinite(flow.log_prob(rows(9), np.zeros(1))).all()


@pytest.mark.parametrize("verb", ["log_prob_vjp", "to_latent_vjp"])
def test_gradients_by_parameters(verb):
    """Gradients are compared with differences of the flow, whose values other tests compare with the reference."""
    flow = moved()
    x = rows(30, "float64", "gradients")
    by_z, by_row = cases.rows(30, 4, "float64", "by z"), cases.rows(30, 1, "float64", "by row")[:, 0]
    given = (by_row,) if verb == "log_prob_vjp" else (by_z, by_row)

    def number(parameters):
        if verb == "log_prob_vjp":
            return (flow.log_prob(x, parameters=parameters) * by_row).sum()
        z, log_det = flow.to_latent(x, parameters=parameters)
        return (z * by_z).sum() + (log_det * by_row).sum()

    (gradient,) = getattr(flow, verb)(x, *given, wrt=("parameters",))
    for i in range(3):
        direction = cases.rng("direction", i).standard_normal(gradient.size) * (flow.parameters != 0)
        h = 1e-6
        want = (number(flow.parameters + h * direction) - number(flow.parameters - h * direction)) / (2 * h)
        assert gradient @ direction == pytest.approx(want, rel=2e-4, abs=1e-4)


def test_a_fit_finds_peaks_on_a_seam():
    """A fit is better than a flow that treats an angle as a value on a line, and close to the truth."""
    rng = cases.rng("von Mises")
    draw = lambda: np.column_stack([rng.vonmises(np.pi, 3.0, 2000), rng.standard_normal(2000)])  # noqa: E731
    x, test = draw(), draw()
    flow = hr.NSF(2, transforms=2, hidden=(16,), coupling=True, periodic=[(-np.pi, np.pi), None])
    flow.fit(x, epochs=12, progress=False)
    true = 3.0 * np.cos(test[:, 0] - np.pi) - np.log(2 * np.pi * np.i0(3.0)) - 0.5 * test[:, 1] ** 2
    true = (true - 0.5 * np.log(2 * np.pi)).mean()
    assert flow.log_prob(test).mean() > true - 0.05
    assert flow.transforms[-2].mean[0] == 0.0
    assert flow.transforms[-2].std[0] == 1.0


def test_files_and_devices_keep_periodic_columns(tmp_path, dtype):
    flow = moved(dtype)
    flow.save(tmp_path / "flow")
    other = hr.load(tmp_path / "flow")
    x = rows(20, dtype)
    cases.assert_same_bits(other.log_prob(x), flow.log_prob(x))
    assert other.base.densities == ("uniform", "normal", "uniform", "normal")
    assert "periodic=[(-3.14" in repr(other.transforms[-1])


def test_all_columns_may_be_periodic():
    flow = hr.NSF(2, transforms=1, hidden=(4,), coupling=True, periodic=[(0.0, 1.0)] * 2, base=hr.Uniform(2))
    x = flow.sample(200, seed=0)
    assert ((x >= 0.0) & (x < 1.0)).all()
    assert_allclose(flow.log_prob(x), 0.0, atol=0.2)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: fresh(periodic=[(0, 1)]), ValueError, ["periodic: ", "expected 4"]),
        (lambda: fresh(periodic=5), TypeError, ["periodic: ", "sequence", "int"]),
        (lambda: hr.transforms.Support(None, 5), TypeError, ["periodic: ", "sequence", "int"]),
        (lambda: hr.transforms.Support(None, [(0, 1), "ab"]), TypeError, [r"periodic\[1\]: ", "str"]),
        (lambda: fresh(periodic=[(0, None), None, None, None]), ValueError, [r"periodic\[0\]: ", "both ends"]),
        (lambda: fresh(periodic=[(1, 0), None, None, None]), ValueError, [r"periodic\[0\]: ", "low below high"]),
        (lambda: fresh(periodic=[None, (0, 1), None, None]), ValueError, [r"periodic\[1\]: ", "has bounds"]),
        (lambda: fresh(base=hr.StandardNormal(4)), ValueError, ["base: ", "Independent"]),
        (lambda: fresh(base=hr.Independent(["normal"] * 4)), ValueError, ["base: ", "uniform where periodic"]),
        (lambda: hr.Independent("normal"), TypeError, ["densities: "]),
        (lambda: hr.Independent(["cauchy"]), ValueError, [r"densities\[0\]: ", "'cauchy'"]),
    ],
)
def test_wrong_periods_are_refused(make, kind, words):
    with pytest.raises(kind) as error:
        make()
    cases.assert_says(error, *words)


def test_no_network_reads_an_angle():
    flow = moved()
    x = rows(30, "float64", "blind")
    other = x.copy()
    other[:, [0, 2]] = rows(30, "float64", "others")[:, [0, 2]]
    assert_array_equal(flow.to_latent(x)[0][:, [1, 3]], flow.to_latent(other)[0][:, [1, 3]])


def test_the_estimator_takes_periods():
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    x = rows(dtype="float32")
    settings = {"transforms": 1, "hidden": (8,), "epochs": 1, "random_state": 0, "bounds": BOUNDS, "periodic": PERIODS}
    density = estimator("nsf", coupling=True, **settings).fit(x)
    assert density.flow_.transforms[-1].periodic == tuple(PERIODS)
    drawn = density.sample(200, random_state=0)
    assert ((drawn[:, [0, 2]] >= LOW[[0, 2]].astype("f4")) & (drawn[:, [0, 2]] < HIGH[[0, 2]].astype("f4"))).all()
    there = (x + np.float32([0.0, 0.0, 24.0, 0.0])).astype("float32")
    # Shifted rows have other float32 digits.
    assert_allclose(density.score_samples(there), density.score_samples(x), atol=1e-2)


@pytest.mark.parametrize("kind", ["maf", "iaf", "realnvp", "nsf", "planar", "radial"])
def test_the_estimator_takes_periods_with_every_flow(kind):
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    settings = {"transforms": 1, "epochs": 1, "random_state": 0, "bounds": BOUNDS, "periodic": PERIODS}
    density = estimator(kind, hidden=(8,), **settings).fit(rows(dtype="float32"))
    drawn = density.sample(200, random_state=0)
    assert ((drawn[:, [0, 2]] >= LOW[[0, 2]].astype("f4")) & (drawn[:, [0, 2]] < HIGH[[0, 2]].astype("f4"))).all()
