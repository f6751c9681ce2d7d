"""The support of columns: both directions, at the data end and elsewhere, near the bounds, on them and beyond."""

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

BOUNDS = [(2.0, None), (None, -1.0), (-3.0, 0.5), None, (0.0, 1.0)]
MEAN, STD = np.linspace(-0.5, 0.5, 5), np.linspace(0.5, 2.0, 5)

every_verb = pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)


def inside(n, dtype, *key):
    """Return rows of the support, of which none is near a bound."""
    return reference.Support(BOUNDS).forward(cases.rows(n, 5, "float64", *key))[0].astype(dtype)


def as_last(base="standard normal", dtype="float64"):
    """A flow whose scale and support are applied when rows are loaded and stored."""
    parts = [
        gradients.masked(cases.made(features=5, hidden=(9,), context=2)),
        gradients.permutation([2, 0, 4, 1, 3]),
        gradients.standardize(MEAN, STD),
        gradients.support(BOUNDS),
    ]
    return gradients.chain(parts, base, dtype)


def elsewhere(base="standard normal", dtype="float64"):
    """A flow whose supports are separate steps: an inverse support, another support, and a scale at the data end."""
    outer = [(-9.0, None), None, (-20.0, 20.0), (None, 12.0), None]
    parts = [
        gradients.masked(cases.made(features=5, hidden=(9,), context=2)),
        gradients.support(outer),
        gradients.inverse(gradients.support([(-9.5, None), None, (-20.0, 20.5), (None, 12.5), None])),
        gradients.permutation([2, 0, 4, 1, 3]),
        gradients.standardize(MEAN, STD),
    ]
    return gradients.chain(parts, base, dtype)


FLOWS = {"as last": as_last, "elsewhere": elsewhere}
every_flow = pytest.mark.parametrize("name", FLOWS)


# --- values ---------------------------------------------------------------------------------------------------------


def test_both_directions_are_the_reference_s(dtype):
    t, judge = hr.transforms.Support(BOUNDS), reference.Support(BOUNDS)
    for n in cases.BATCH_SIZES:
        z, x = cases.rows(n, 5, dtype), inside(n, dtype)
        cases.assert_matches(t.forward(z), judge.forward(z), z, dtype)
        cases.assert_matches(t.inverse(x), judge.inverse(x), x, dtype)


def test_log_dets_are_those_of_the_jacobian():
    t, x = hr.transforms.Support(BOUNDS), inside(9, "float64")
    assert_allclose(t.inverse(x)[1], reference.log_det_by_differences(lambda a: t.inverse(a)[0], x), rtol=1e-8)
    z, log_det = t.inverse(x)
    back, log_det_back = t.forward(z)
    assert_allclose(back, x, rtol=1e-13)
    assert_allclose(log_det_back, -log_det, rtol=1e-13)


@every_flow
def test_flows_are_the_reference_s(name, dtype):
    made = FLOWS[name]()
    flow = made.library.astype(dtype)
    for n in cases.BATCH_SIZES:
        z, context = cases.rows(n, 5, dtype), cases.rows(n, 2, dtype, "context")
        want = made.judge(made.arrays).to_data(z, context)
        got = flow.to_data(z, context)
        cases.assert_close(got[0], want[0], depth=32)
        cases.assert_close(got[1], want[1], magnitude=10.0, depth=32)
        latent, log_det = flow.to_latent(want[0], context)  # rows are float64 for flows of any dtype
        cases.assert_close(latent, z, depth=256)
        cases.assert_close(log_det, -want[1], magnitude=10.0, depth=256)
        cases.assert_close(
            flow.log_prob(want[0], context),
            made.judge(made.arrays).log_prob(want[0], context),
            depth=256,
            magnitude=10.0,
        )


@every_flow
def test_a_device_computes_the_same(name, device, dtype):
    made = FLOWS[name]()
    flow = made.library.astype(dtype)
    twin, n = Twin(device, flow), 37
    z, context = cases.rows(n, 5, dtype), cases.rows(n, 2, dtype, "context")
    want = flow.to_data(z, context)
    for got, expected in zip(twin.forward(z, context), want, strict=True):
        cases.assert_close(got, expected, magnitude=10.0, depth=16)
    x = want[0]
    for got, expected in zip(twin.inverse(x, context), flow.to_latent(x, context), strict=True):
        cases.assert_close(got, expected, magnitude=10.0, depth=64)
    cases.assert_close(twin.log_prob(x, context), flow.log_prob(x, context), magnitude=10.0, depth=64)


def test_an_inverse_exchanges_the_directions(dtype):
    t, x, z = hr.transforms.Support(BOUNDS), inside(50, dtype), cases.rows(50, 5, dtype)
    for got, want in (
        (hr.transforms.Inverse(t).forward(x), t.inverse(x)),
        (hr.transforms.Inverse(t).inverse(z), t.forward(z)),
    ):
        for result, expected in zip(got, want, strict=True):
            cases.assert_close(result, expected, magnitude=10.0)


# --- near the bounds ------------------------------------------------------------------------------------------------


def test_float64_rows_keep_their_distance_to_a_bound_in_a_float32_flow():
    flow = hr.Flow(
        [hr.transforms.Standardize([0.0], [1.0]), hr.transforms.Support([(1e6, 1e6 + 1.0)])], dtype="float32"
    )
    for x in ([[1e6 + 1e-9]], [[1e6 + 1.0 - 1e-9]]):
        z, log_det = flow.to_latent(np.array(x))
        want = reference.Support([(1e6, 1e6 + 1.0)]).inverse(np.array(x))
        assert_allclose(z, want[0], rtol=1e-6)
        assert_allclose(log_det, want[1], rtol=1e-6)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bounds", [(0.1, None), (None, 0.1), (0.1, 0.3), (-1e30, 1e30), (5.0, 5.000001)], ids=str)
def test_no_sample_lies_on_a_bound_or_beyond(bounds, wide, dtype, core):
    """Latent rows so far out that each is rounded to a bound give samples inside; 0.1 and 0.3 are exact in no dtype."""
    low, high = (-np.inf if bounds[0] is None else bounds[0], np.inf if bounds[1] is None else bounds[1])
    flow = hr.Flow([hr.transforms.Standardize([0.0], [30.0]), hr.transforms.Support([bounds])], dtype=dtype)
    z = np.concatenate([np.linspace(-20.0, 2.5, 40), np.linspace(-2.5, 20.0, 40)])[:, None].astype(dtype)
    if bounds[0] is None or bounds[1] is None:
        z = z[np.abs(z[:, 0] * 30.0) < 80.0] if dtype == "float32" else z  # beyond 80, e^y overflows in float32
        z = np.concatenate([z, np.array([[-2.9 if bounds[1] is None else 2.9]], dtype)])
    x = flow.sample(len(z), noise=z, dtype="float64" if wide else None)
    assert x.dtype == (np.float64 if wide else dtype)
    assert (x.astype(np.float64) > low).all()
    assert (x.astype(np.float64) < high).all()
    assert ((x > low) & (x < high)).all()  # NumPy rounds the bound to the dtype of x
    if bounds[0] is not None and bounds != (-1e30, 1e30):
        assert x.min() == np.nextafter(x.dtype.type(low), x.dtype.type(np.inf))
    assert np.isfinite(flow.log_prob(x)).all()
    small_batch = flow.sample(3, noise=z[:3], dtype="float64" if wide else None)  # small batches have a separate path
    assert ((small_batch > low) & (small_batch < high)).all()


def test_bounds_without_a_float32_between_give_their_middle():
    flow = hr.Flow([hr.transforms.Support([(1e9, 1e9 + 1.0)])], dtype="float32")
    assert (flow.sample(20, seed=0) == np.float32(1e9)).all()
    wide = flow.sample(20, seed=0, dtype="float64")
    assert ((wide > 1e9) & (wide < 1e9 + 1.0)).all()


def test_rows_outside_have_no_density(core, dtype):
    flow = hr.MAF(3, 1, transforms=1, hidden=(6,), bounds=[(0.0, None), None, (0.0, 1.0)], dtype=dtype)
    good = [0.5, -7.0, 0.25]
    for n in (5, 40):  # few rows and many take different paths
        x, context = np.tile(np.array(good, dtype), (n, 1)), np.zeros((n, 1), dtype)
        x[1, 0], x[2, 2], x[3] = 0.0, 1.5, [-1.0, np.nan, 2.0]
        context[0], x[0, 0] = np.nan, -1.0
        got = flow.log_prob(x, context)
        assert_array_equal(got[1:3], -np.inf)
        assert np.isnan(got[[0, 3]]).all()  # a row with NaN has no density, not even zero
        assert_array_equal(got[4:], flow.log_prob(np.tile(np.array(good, dtype), (n, 1)), 0 * context[4:5])[4:])
        z, log_det = flow.to_latent(x, context)
        assert np.isnan(z[:4]).all()
        assert np.isnan(log_det[:4]).all()
        assert np.isfinite(z[4:]).all()
        _, score = flow.log_prob_and_score(x, context)
        assert np.isnan(score[:4]).all()
        assert np.isfinite(score[4:]).all()


def test_a_bound_is_rounded_to_the_dtype_of_the_rows(core, dtype):
    """The float32 nearest to 0.1 is above 0.1: on the bound 0.1 in a float32 row, and inside in a float64 row."""
    flow = hr.Flow([hr.transforms.Support([(0.1, None), (None, -0.1)])], dtype=dtype)
    for n in (3, 40):
        x = np.tile(np.array([[0.5, -0.5]], np.float32), (n, 1))
        x[1, 0], x[2, 1] = 0.1, -0.1
        assert_array_equal(flow.log_prob(x)[[1, 2]], -np.inf)
        assert np.isnan(flow.to_latent(x)[0][[1, 2]]).all()
        wide = x.astype(np.float64)
        assert np.isfinite(flow.log_prob(wide)).all()
        assert np.isfinite(flow.to_latent(wide)[0]).all()


def test_an_overflow_is_nan_and_spoils_no_other_row(core, dtype):
    t = hr.transforms.Support([(0.0, None), (None, 0.0), (0.0, 1.0)])
    z = np.zeros((20, 3), dtype)
    z[3, 0], z[4, 1], z[5, 2] = 800.0, -800.0, 800.0
    x, log_det = t.forward(z)
    assert np.isnan(x[3:5]).all()
    assert np.isnan(log_det[3:5]).all()
    assert x[5, 2] == np.nextafter(x.dtype.type(1), x.dtype.type(0))
    others = [i for i in range(20) if i not in (3, 4, 5)]
    assert_array_equal(x[others], t.forward(z[others])[0])


# --- derivatives ----------------------------------------------------------------------------------------------------


@every_verb
def test_gradients(verb, dtype):
    made = gradients.support(BOUNDS)
    given = cases.rows(9, 5, "float64") if verb == "forward_vjp" else inside(9, "float64")
    gradients.check(made, verb, given, least=10.0)
    narrow = given.astype("float32")
    want = gradients.call(made.library, verb, narrow.astype(float))["inputs"]
    got = gradients.call(made.library, verb, narrow, dtype="float32")["inputs"]
    assert got.dtype == np.float32
    gradients.assert_rows_near(got, want, 1e-4)


@pytest.mark.parametrize("base", ["standard normal", "normal", "logistic"])
@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
@every_flow
def test_gradients_of_flows(name, verb, base):
    made = FLOWS[name](base)
    z, context = cases.rows(9, 5, "float64"), cases.rows(9, 2, "float64", "context")
    given = z if verb == "to_data_vjp" else made.library.to_data(z, context)[0]
    gradients.check(made, verb, given, context, least=10.0)


@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
@every_flow
def test_gradients_on_a_device(name, verb, device):
    made = FLOWS[name]("normal")
    z, context = cases.rows(9, 5, "float64"), cases.rows(9, 2, "float64", "context")
    given = z if verb == "to_data_vjp" else made.library.to_data(z, context)[0]
    on_device = gradients.Subject(Twin(device, made.library), made.arrays, made.judge)
    gradients.check(on_device, verb, given, context, least=10.0)


@every_flow
def test_a_recorded_run_has_the_same_values(name, core, dtype):
    flow = FLOWS[name]("normal").library.astype(dtype)
    for n in (5, 40):
        context = cases.rows(n, 2, dtype, "context")
        x = flow.to_data(cases.rows(n, 5, dtype), context)[0]
        want = flow.log_prob(x, context)
        cases.assert_close(flow.log_prob_and_score(x, context)[0], want, depth=64, magnitude=10.0)
        assert flow.nll_and_grad(x, context)[0] == pytest.approx(-want.mean(dtype=np.float64), rel=1e-5)


# --- copies, files, refusals --------------------------------------------------------------------------------------


def test_copies_pickles_and_files(tmp_path):
    t = hr.transforms.Support(BOUNDS)
    t.save(tmp_path / "support")
    for other in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t)), hr.load(tmp_path / "support")):
        assert other.bounds == t.bounds
        assert hr.to_bytes(other) == hr.to_bytes(t)
    assert repr(t).startswith("Support([(2.0, None), (None, -1.0), ")


def test_no_bounds_are_the_identity(dtype):
    t, x = hr.transforms.Support([None, (None, None)]), cases.rows(9, 2, dtype)
    assert t.is_identity
    cases.assert_same_bits(t.forward(x)[0], x)
    assert not t.forward(x)[1].any()


@pytest.mark.parametrize(
    ("bounds", "kind", "words"),
    [
        ([(1.0, 0.0)], ValueError, [r"bounds\[0\]: ", "low below high", r"\(1.0, 0.0\)"]),
        ([None, (2, 2)], ValueError, [r"bounds\[1\]: ", "low below high"]),
        ([(0.0, np.inf)], ValueError, [r"bounds\[0\]\[1\]: ", "None for no bound", "inf"]),
        ([(np.nan, None)], ValueError, [r"bounds\[0\]\[0\]: ", "finite", "nan"]),
        ([(-1e308, 1.7e308)], ValueError, [r"bounds\[0\]: ", "width"]),
        ([(0.0, 1.0, 2.0)], ValueError, [r"bounds\[0\]: ", "two numbers"]),
        ([0.0, 1.0], TypeError, [r"bounds\[0\]: ", r"\(low, high\) or None", "float"]),
        ([("a", None)], TypeError, [r"bounds\[0\]\[0\]: ", "number or None", "'a'"]),
        ([("0", None)], TypeError, [r"bounds\[0\]\[0\]: ", "number or None", "str '0'"]),
        ([(None, 10**400)], ValueError, [r"bounds\[0\]\[1\]: ", "finite", "inf"]),
        ([(True, None)], TypeError, [r"bounds\[0\]\[0\]: ", "bool"]),
        ([], ValueError, ["bounds: ", "one for each column"]),
        (None, TypeError, ["bounds: ", "sequence", "NoneType"]),
        ("ab", TypeError, ["bounds: ", "sequence", "str"]),
    ],
    ids=str,
)
def test_wrong_bounds_are_refused(bounds, kind, words):
    with pytest.raises(kind) as error:
        hr.transforms.Support(bounds)
    cases.assert_says(error, *words)
