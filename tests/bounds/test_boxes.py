"""Flows over a uniform base between bounds: splines of [-1, 1] onto itself, and a linear map to the columns."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import gradients
import headrace as hr
import reference
from cuda_twins import Twin

BOUNDS = [(2.0, 5.0), (-1e3, 1e3), (-3.0, 0.1), None, (0.0, 1.0)]
CUBE = [(0.0, 1.0)] * 4
MADE = {
    "maf": lambda **own: hr.MAF(4, **own),
    "iaf": lambda **own: hr.IAF(4, **own),
    "realnvp": lambda **own: hr.RealNVP(4, **own),
    "nsf": lambda **own: hr.NSF(4, **own),
    "nsf of couplings": lambda **own: hr.NSF(4, coupling=True, **own),
}
every_flow = pytest.mark.parametrize("name", MADE)


def latent(n, dtype, *key):
    """Return rows whose values are within [-1, 1] in columns with bounds."""
    return np.tanh(cases.rows(n, 5, "float64", "boxes", *key)).astype(dtype)


def box(name="nsf", dtype="float32", scale=0.3, **own):
    """Return a flow with random weights between bounds of which some are exact in no dtype, and the bounds."""
    ends = [(0.1, 0.7), (-3.0, 5.0), (1e3, 1.1e3), (0.0, 1.0)]
    made = MADE[name](bounds=ends, base="uniform", transforms=3, hidden=(8,), dtype=dtype, **own)
    return cases.randomise(made, scale, "box", name), np.array(ends)


# --- the linear map ---------------------------------------------------------------------------------------------------


def test_both_directions_are_the_reference_s(dtype):
    t, judge = hr.transforms.Support(BOUNDS, linear=True), reference.Support(BOUNDS, linear=True)
    for n in cases.BATCH_SIZES:
        z = latent(n, dtype)
        x = judge.forward(z)[0].astype(dtype)
        cases.assert_matches(t.forward(z), judge.forward(z), z, dtype)
        cases.assert_matches(t.inverse(x), judge.inverse(x), x, dtype)


def in_a_flow(as_last, dtype="float64"):
    """A chain whose support is applied when rows are loaded and stored (`as_last`), or in a separate step."""
    line = gradients.support(BOUNDS, linear=True)
    back = gradients.inverse(gradients.support([(1.5, 5.5), (-2e3, 2e3), (-3.5, 0.5), None, (-1.0, 2.0)], linear=True))
    ends = [] if as_last else [back, gradients.permutation([2, 0, 4, 1, 3])]
    standardize = gradients.standardize(np.linspace(-0.1, 0.1, 5), np.linspace(0.1, 0.2, 5))
    masked = gradients.masked(cases.made(features=5, hidden=(9,), context=2))
    return gradients.chain([masked, standardize, line, *ends], "standard normal", dtype)


@pytest.mark.parametrize("as_last", [True, False])
def test_a_device_computes_the_same(as_last, device, dtype):
    flow = in_a_flow(as_last).library.astype(dtype)
    twin, n = Twin(device, flow), 37
    z, context = cases.rows(n, 5, dtype), cases.rows(n, 2, dtype, "context")
    want = flow.to_data(z, context)
    for got, expected in zip(twin.forward(z, context), want, strict=True):
        cases.assert_close(got, expected, magnitude=1e3, depth=16)
    x = want[0]
    for got, expected in zip(twin.inverse(x, context), flow.to_latent(x, context), strict=True):
        cases.assert_close(got, expected, magnitude=100.0, depth=64)


@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
@pytest.mark.parametrize("as_last", [True, False])
def test_gradients(as_last, verb):
    made = in_a_flow(as_last)
    z, context = 0.3 * cases.rows(9, 5, "float64"), cases.rows(9, 2, "float64", "context")
    given = z if verb == "to_data_vjp" else made.library.to_data(z, context)[0]
    gradients.check(made, verb, given, context, least=10.0)


def test_copies_pickles_and_files():
    t = hr.transforms.Support(BOUNDS, linear=True)
    for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t)), hr.from_bytes(hr.to_bytes(t))):
        assert (other.bounds, other.linear) == (t.bounds, True)
        assert hr.to_bytes(other) == hr.to_bytes(t)
    assert repr(t).endswith("(0.0, 1.0)], linear=True)")
    assert b"linear" not in hr.to_bytes(hr.transforms.Support(BOUNDS))  # older versions read a file without `linear`
    with pytest.raises(TypeError, match="linear: expected True or False, got 1"):
        hr.transforms.Support(BOUNDS, linear=1)


# --- flows ------------------------------------------------------------------------------------------------------------


@every_flow
def test_samples_lie_inside_and_have_their_density(name, dtype, core):
    flow, ends = box(name, dtype)
    x, log_prob = flow.sample_and_log_prob(4000, seed=1)
    low, high = ends.T.astype(dtype)
    assert ((x > low) & (x < high)).all()
    again = flow.log_prob(x)
    assert np.isfinite(again).all()
    tolerance = {"float32": 2e-2, "float64": 1e-8}[dtype]  # float32 values near 1,100 are 1.2e-4 apart
    assert_allclose(again, log_prob, rtol=0, atol=tolerance)


@every_flow
def test_rows_near_a_bound_have_a_density_and_others_none(name, dtype, core):
    flow, ends = box(name, dtype, 1.0)
    rng = cases.rng("near", name)
    share = 10.0 ** rng.uniform(-9, -1, (5000, 4))
    share = np.where(rng.random(share.shape) < 0.5, share, 1.0 - share)
    x = np.clip((ends[:, 0] + share * np.diff(ends).T).astype(dtype), *(
        np.nextafter(end.astype(dtype), other.astype(dtype)) for end, other in (ends.T, ends.T[::-1])
    ))  # fmt: skip
    assert np.isfinite(flow.log_prob(x)).all()
    x[:4][np.eye(4, dtype=bool)] = ends[:, 0]
    x[4:8][np.eye(4, dtype=bool)] = ends[:, 1]
    x[8:12][np.eye(4, dtype=bool)] = ends[:, 1] + 1.0
    assert_array_equal(flow.log_prob(x)[:12], -np.inf)


def test_the_density_does_not_vanish_at_the_bounds_and_integrates_to_one():
    flow = cases.randomise(
        hr.NSF(2, bounds=[(-1.0, 3.0), (0.0, 0.5)], base="uniform", hidden=(8,), dtype="float64"), 0.5, "integral"
    )
    n = 1000
    middles = (np.arange(n) + 0.5) / n
    grid = np.stack(np.meshgrid(4.0 * middles - 1.0, 0.5 * middles, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(flow.log_prob(grid))
    assert density.mean() * 2.0 == pytest.approx(1.0, abs=1e-3)  # the midpoint rule has first-order errors at knots
    assert density.reshape(n, n)[[0, -1]].min() > 1e-4
    assert density.reshape(n, n)[:, [0, -1]].min() > 1e-4


@every_flow
def test_fresh_flows_are_about_uniform(name):
    flow = MADE[name](bounds=[(0.0, 2.0)] * 4, base="uniform")
    assert_allclose(flow.log_prob(flow.sample(500, seed=1)), -4 * np.log(2.0), atol=0.5)


def test_the_integral_over_the_unit_cube_is_not_biased():
    """The integral of the product of 2 x over the unit cube is 1, a usual test of integrators of collision events.

    Over a normal base the density falls to 0 at the bounds, where the variance of the importance weights is infinite:
    the estimate is 30 standard errors low.
    """

    def target(x):
        return np.log(2.0 * x).sum(axis=1), 1.0 / x

    def integral(base):
        flow = hr.NSF(4, coupling=True, transforms=3, hidden=(32,), bounds=CUBE, base=base)
        hr.fit_to_density(flow, target, steps=300, samples=256, progress=False)
        x, log_prob = flow.sample_and_log_prob(100_000, seed=3)
        weights = np.exp(target(x.astype(np.float64))[0] - log_prob)
        return weights.mean(), weights.std() / np.sqrt(weights.size)

    found, error = integral("uniform")
    assert abs(found - 1.0) < 3.0 * error
    assert error < 1e-3
    found, error = integral(None)
    assert found < 1.0 - 10.0 * error  # a normal base is biased


@every_flow
def test_a_fit_stays_between_the_bounds(name):
    rng = cases.rng("fit", name)
    u = rng.random((2000, 4))
    x = (u**2 * [1.0, 1.0, 3.0, 1.0] + [0.0, 0.0, 5.0, 0.0]).astype("f4")
    bounds = [(0.0, 1.0), (0.0, 1.0), (5.0, 8.0), (0.0, 1.0)]
    x = np.clip(x, 1e-6, None)
    x[:, 2] = np.clip(x[:, 2], 5.00001, None)
    flow = MADE[name](bounds=bounds, base="uniform", transforms=2, hidden=(16,))
    flow.fit(x[:1500], epochs=30, batch_size=100, progress=False)
    # A square of u has the density 1 / (2 u), of mean logarithm 1 - log 2; one column is three times as wide.
    assert flow.log_prob(x[1500:]).mean() == pytest.approx(4 * (1.0 - np.log(2.0)) - np.log(3.0), abs=0.4)
    drawn = flow.sample(1000, seed=0)
    assert ((drawn > [0, 0, 5, 0]) & (drawn < [1, 1, 8, 1])).all()
    again = hr.from_bytes(hr.to_bytes(flow))
    assert type(again) is type(flow)
    assert_array_equal(again.log_prob(x), flow.log_prob(x))
    assert flow.log_prob(np.zeros((1, 4), "f4")) == -np.inf
    with pytest.raises(ValueError, match="bounds"):
        flow.fit(np.zeros((100, 4), "f4"), progress=False)


def test_periodic_columns_beside_bounded_ones():
    flow = hr.NSF(
        3, 1, base="uniform", bounds=[None, (0.0, 1.0), (2.0, 3.0)], periodic=[(0.0, 24.0), None, None], dtype="float64"
    )
    flow = cases.randomise(flow, 0.2, "periods")
    context = cases.rows(200, 1, "float64")
    x = flow.to_data(np.tanh(cases.rows(200, 3, "float64")), context)[0]
    assert np.isfinite(flow.log_prob(x, context)).all()
    assert_allclose(flow.log_prob(x + np.array([24.0, 0.0, 0.0]), context), flow.log_prob(x, context), atol=1e-9)
    around = hr.NSF(2, base="uniform", periodic=[(0.0, 1.0)] * 2)
    assert np.isfinite(around.log_prob(np.float32([[0.0, 7.3]]))).all()


def test_modules_of_frameworks_take_flows_between_bounds():
    torch = pytest.importorskip("torch")
    from headrace.torch import FlowModule

    flow, _ = box("realnvp")
    x = flow.sample(50, seed=0)
    assert_array_equal(FlowModule(flow)().log_prob(torch.from_numpy(x)).detach().numpy(), flow.log_prob(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hr.NSF(2, base="uniform"), [r"bounds: expected \(low, high\) for each", "got None"]),
        (lambda: hr.MAF(2, base="uniform", bounds=[None, None]), [r"bounds: expected \(low, high\) for each"]),
        (lambda: hr.NSF(2, base="uniform", bounds=[(0, 1), (0, None)]), [r"bounds\[1\]: ", r"\(0.0, None\)"]),
        (lambda: hr.NSF(2, base="uniform", bounds=[(0, 1), None]), [r"bounds\[1\]: ", "got None"]),
        (lambda: hr.NSF(2, base="uniform", bounds=[(0, 1), (0, np.inf)]), [r"bounds\[1\]\[1\]: ", "finite"]),
        (lambda: hr.NSF(2, base="uniform", bounds=[(0, 1)]), ["bounds: expected 2"]),
        (lambda: hr.NSF(2, base="cauchy", bounds=CUBE[:2]), ["base: ", "'uniform'", "'cauchy'"]),
        (
            lambda: hr.MAF(2, base="uniform", bounds=CUBE[:2], map="affine"),
            ["map: expected 'rq_spline_free'", "affine"],
        ),
        (lambda: hr.RealNVP(2, base="uniform", bounds=CUBE[:2], map="rq_spline"), ["map: ", "'rq_spline'"]),
        (lambda: hr.NSF(2, base="uniform", bounds=CUBE[:2], bound=5.0), ["bound: expected 1.0", "5.0"]),
        (lambda: hr.NSF(2, base="uniform", bounds=CUBE[:2], link="linear"), ["link: ", "'linear'"]),
        (lambda: hr.PlanarFlow(2, base="uniform", bounds=CUBE[:2]), ["base: ", "PlanarFlow", "NSF"]),
        (lambda: hr.RadialFlow(2, base="uniform", bounds=CUBE[:2]), ["base: ", "RadialFlow", "NSF"]),
    ],
)
def test_contradictory_arguments_are_refused(make, words):
    with pytest.raises(ValueError) as error:  # the message names the fault
        make()
    cases.assert_says(error, *words)
