"""Fixed marginal splines: both directions, derivatives, devices, files, and fits of flows with such splines."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import gradients
import headrace as hr
import hostile_files
import reference
from cuda_twins import Twin

FEATURES, KNOTS = 5, 9
CURVES = cases.curves(FEATURES, KNOTS)
LOW, HIGH = CURVES[0][:, 0], CURVES[0][:, -1]


def rows(n, dtype, *key):
    """Return rows within the range of the curves, and beyond both ends."""
    share = cases.rng(n, *key).uniform(-0.3, 1.3, (n, FEATURES))
    return (LOW + share * (HIGH - LOW)).astype(dtype)


def made(base="standard normal", dtype="float64"):
    """A flow with a curve before its last standardisation, and the inverse of another curve between networks."""
    parts = [
        gradients.masked(cases.made(features=FEATURES, hidden=(9,), context=2)),
        gradients.inverse(gradients.gaussianize(*cases.curves(FEATURES, 4, "inner"))),
        gradients.permutation([2, 0, 4, 1, 3]),
        gradients.masked(cases.made(features=FEATURES, hidden=(7,), context=2)),
        gradients.gaussianize(*CURVES),
        gradients.standardize(np.linspace(-0.5, 0.5, FEATURES), np.linspace(0.5, 2.0, FEATURES)),
    ]
    return gradients.chain(parts, base, dtype)


# --- values ---------------------------------------------------------------------------------------------------------


def test_both_directions_are_the_reference_s(core, dtype):
    """Slopes of a curve differ by a factor of about 50, which may multiply an error in x to that in z."""
    t, judge = hr.transforms.Gaussianize(*CURVES), reference.Gaussianize(*CURVES)
    for n in cases.BATCH_SIZES:
        x = rows(n, dtype)
        z = judge.inverse(x)[0].astype(dtype)
        for got, want in ((t.inverse(x), judge.inverse(x)), (t.forward(z), judge.forward(z))):
            cases.assert_close(got[0], want[0], depth=64)
            cases.assert_close(got[1], want[1], magnitude=10.0, depth=64)


def test_the_curve_goes_through_its_points_with_its_slopes():
    data, latent, slopes = CURVES
    t = hr.transforms.Gaussianize(*CURVES)
    z, log_det = t.inverse(data.T.copy())
    assert_allclose(z, np.tile(latent[:, None], FEATURES), atol=1e-13)
    assert_allclose(log_det, np.log(slopes).sum(axis=0), atol=1e-12)
    assert_allclose(t.data, data, atol=1e-15)


def test_log_dets_are_those_of_the_jacobian():
    t, x = hr.transforms.Gaussianize(*CURVES), rows(9, "float64")
    assert_allclose(t.inverse(x)[1], reference.log_det_by_differences(lambda a: t.inverse(a)[0], x), atol=1e-6)
    z, log_det = t.inverse(x)
    back, log_det_back = t.forward(z)
    assert_allclose(back, x, atol=1e-12)
    assert_allclose(log_det_back, -log_det, atol=1e-11)


def test_one_row_is_that_of_many(core, dtype):
    t, x = hr.transforms.Gaussianize(*CURVES), rows(60, dtype)
    whole = t.inverse(x)
    for i in (0, 59):
        for got, want in zip(t.inverse(x[i : i + 1]), whole, strict=True):
            assert_allclose(got[0], want[i], rtol=cases.tolerance(dtype), atol=cases.tolerance(dtype))


def test_flows_are_the_reference_s(dtype):
    flow = made()
    library, judge = flow.library.astype(dtype), flow.judge(flow.arrays)
    for n in cases.BATCH_SIZES:
        x, context = rows(n, dtype), cases.rows(n, 2, dtype, "context")
        want = judge.to_latent(x, context)
        cases.assert_close(library.to_latent(x, context)[0], want[0], depth=256)
        cases.assert_close(library.to_latent(x, context)[1], want[1], magnitude=10.0, depth=256)
        z = want[0].astype(dtype)
        cases.assert_close(library.to_data(z, context)[0], judge.to_data(z, context)[0], depth=256)


def test_a_device_computes_the_same(device, dtype):
    flow = made().library.astype(dtype)
    twin, n = Twin(device, flow), 37
    x, context = rows(n, dtype), cases.rows(n, 2, dtype, "context")
    z = flow.to_latent(x, context)[0]
    for got, want in zip(twin.inverse(x, context), flow.to_latent(x, context), strict=True):
        cases.assert_close(got, want, magnitude=10.0, depth=64)
    for got, want in zip(twin.forward(z, context), flow.to_data(z, context), strict=True):
        cases.assert_close(got, want, magnitude=10.0, depth=64)


def test_far_rows_and_values_that_are_not_finite(core, dtype):
    t = hr.transforms.Gaussianize(*CURVES)
    x = rows(20, dtype)
    x[3, 1], x[4, 0], x[5] = np.nan, np.inf, 1e30
    z, log_det = t.inverse(x)
    assert np.isnan(z[3]).all()
    assert np.isnan(log_det[3])
    assert np.isnan(z[4]).all()
    assert np.isnan(log_det[4])
    assert_allclose(z[5], reference.Gaussianize(*CURVES).inverse(x[5:6])[0][0], rtol=1e-5)
    others = [i for i in range(20) if i not in (3, 4, 5)]
    assert_allclose(z[others], t.inverse(x[others])[0], rtol=cases.tolerance(dtype), atol=cases.tolerance(dtype))


# --- derivatives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)
def test_gradients(verb, dtype):
    one = gradients.gaussianize(*CURVES)
    given = rows(9, "float64")
    if verb == "forward_vjp":
        given = one.library.inverse(given)[0]
    gradients.check(one, verb, given, least=10.0)
    narrow = given.astype("float32")
    want = gradients.call(one.library, verb, narrow.astype(float))["inputs"]
    got = gradients.call(one.library, verb, narrow, dtype="float32")["inputs"]
    assert got.dtype == np.float32
    gradients.assert_rows_near(got, want, 1e-4)


@pytest.mark.parametrize("base", ["standard normal", "normal"])
@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
def test_gradients_of_flows(verb, base):
    flow = made(base)
    x, context = rows(9, "float64", "flows"), cases.rows(9, 2, "float64", "context")
    given = cases.rows(9, FEATURES, "float64") if verb == "to_data_vjp" else x
    gradients.check(flow, verb, given, context, least=10.0)


@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
def test_gradients_on_a_device(verb, device):
    flow = made("normal")
    x, context = rows(9, "float64", "flows"), cases.rows(9, 2, "float64", "context")
    given = cases.rows(9, FEATURES, "float64") if verb == "to_data_vjp" else x
    on_device = gradients.Subject(Twin(device, flow.library), flow.arrays, flow.judge)
    gradients.check(on_device, verb, given, context, least=10.0)


# --- copies, files, refusals --------------------------------------------------------------------------------------


def test_copies_pickles_and_files_have_the_same_bits(tmp_path):
    t, x = hr.transforms.Gaussianize(*CURVES), rows(30, "float64")
    t.save(tmp_path / "t")
    want = t.inverse(x)
    for other in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t)), hr.load(tmp_path / "t")):
        assert hr.to_bytes(other) == hr.to_bytes(t)
        for got, expected in zip(other.inverse(x), want, strict=True):
            assert_array_equal(got, expected)
    assert repr(t) == "Gaussianize(5 columns, 9 knots)"


def test_some_columns_alone():
    t, x = hr.transforms.Gaussianize(*CURVES), rows(30, "float64")
    assert_array_equal(t._part((3, 1)).inverse(x[:, [3, 1]])[0], t.inverse(x)[0][:, [3, 1]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, z, s: (d[:, :-1], z, s), ["data", "shape (features, 9)", "(5, 8)"]),
        (lambda d, z, s: (d, z, s[:4]), ["slopes", "shape (5, 9)", "(4, 9)"]),
        (lambda d, z, s: (d, z, -s), ["slopes", "positive"]),
        (lambda d, z, s: (d, z[::-1], s), ["latent", "ascend"]),
        (lambda d, z, s: (np.where(np.arange(9) == 4, d[:, 3:4], d), z, s), ["data", "ascend", "row 0"]),
        (lambda d, z, s: (d, z[:2], s), ["data", "shape (features, 2)"]),
        (lambda d, z, s: (d[:, :2], z[:2], s[:, :2]), ["latent", "from 3 to 65", "2"]),
        (lambda d, z, s: (np.where(d == d.max(), np.nan, d), z, s), ["data", "finite"]),
    ],
)
def test_wrong_curves_are_refused(change, words):
    with pytest.raises(ValueError) as caught:
        hr.transforms.Gaussianize(*change(*CURVES))
    for word in words:
        assert word in str(caught.value)


def test_a_file_with_impossible_curves_is_refused():
    t = hr.transforms.Gaussianize(*CURVES)
    hostile_files.refused(hostile_files.with_header(t, hostile_files.set_at("formula", to="to_data")), "formula")
    hostile_files.refused(hostile_files.with_header(t, hostile_files.set_at("min_bin", to=1e-3)), "min_bin")

    def bend(tensors):
        tensors["height"][1, 2] += 0.5

    def spoil(tensors):
        tensors["width"][0, 0] = np.inf

    hostile_files.refused(hostile_files.with_tensors(t, bend), "height", "all columns")
    hostile_files.refused(hostile_files.with_tensors(t, spoil), "width", "finite")
