"""Ensembles: the density of the mixture, the spread of the members, samples, and fits of the members."""

import copy
import pickle

import numpy as np
import pytest

import cases
import file_cases
import headrace as hr
import safetensors_reader
from device_cases import data
from devices import Library
from fitting import QUIET, gaussian, small

WEIGHTS = (0.2, 0.5, 0.3)


def ensemble_of(dtype="float32", context=0, features=3, weights=WEIGHTS):
    """An ensemble of different classes and bases, whose members are far enough apart to differ clearly."""
    makers = (
        lambda: hr.MAF(features, context, 2, (8,), dtype=dtype),
        lambda: hr.NSF(features, context, 2, (7,), base=hr.Logistic(features), dtype=dtype),
        lambda: hr.RealNVP(features, context, 2, (6,), base=hr.Normal(features, 0.5, 1.5), dtype=dtype),
    )
    return hr.Ensemble([cases.randomise(make(), 0.3, i) for i, make in enumerate(makers)], weights)


def inputs(dtype, context, rows=40):
    x = 2.0 * cases.rows(rows, 3, dtype, "ensemble")
    return x, cases.rows(rows, context, dtype, "context") if context else None


def lines(*means, weights=None):
    """An ensemble whose members are normal densities of one coordinate, with the means `means` and deviation 1."""
    flows = [hr.Flow([hr.transforms.Standardize([mean], [1.0])], dtype="float64") for mean in means]
    return hr.Ensemble(flows, weights)


# ---- the density -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("weights", [None, WEIGHTS, (3.0, 0.0, 1.0)])
def test_density_and_spread_are_those_of_the_reference(context, weights, dtype, tmp_path):
    """The reference reads the densities of the mixture from its file alone."""
    ensemble = ensemble_of(dtype, context, weights=weights)
    x, c = inputs(dtype, context)
    ensemble.save(tmp_path / "file")
    judge = safetensors_reader.read(tmp_path / "file")
    magnitude = np.abs(judge.log_probs(x, c)).max()
    cases.assert_close(ensemble.log_prob(x, c), judge.log_prob(x, c), magnitude=magnitude, depth=12)
    cases.assert_close(ensemble.spread(x, c), judge.spread(x, c), magnitude=magnitude, depth=12)


def test_one_member_is_the_flow_to_the_last_bit(dtype):
    flow = cases.randomise(small(dtype), 0.3)
    ensemble = hr.Ensemble([flow])
    x = cases.rows(50, 3, dtype)
    cases.assert_same_bits(ensemble.log_prob(x), flow.log_prob(x))
    assert not ensemble.spread(x).any()
    cases.assert_same_bits(ensemble.sample(50, seed=3), flow.sample(50, seed=3))


def test_the_density_integrates_to_one():
    ensemble = ensemble_of("float64", features=2)
    line = np.linspace(-30.0, 30.0, 1201)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    assert np.exp(ensemble.log_prob(grid)).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1.0, abs=2e-3)


def test_infinities_and_nan_are_exact_and_stay_in_their_rows():
    far = lines(0.0, 0.0, 1e150)
    x = np.array([[0.0], [1e200], [np.nan], [1e150], [np.inf]])
    log_prob, spread = far.log_prob(x), far.spread(x)
    assert log_prob[1] == -np.inf  # all members have a density of 0 at this row
    assert np.isnan(log_prob[[2, 4]]).all()
    assert np.isnan(spread[[2, 4]]).all()
    assert log_prob[0] == pytest.approx(np.log(2 / 3) - 0.5 * np.log(2 * np.pi), abs=1e-15)
    assert log_prob[3] == pytest.approx(np.log(1 / 3) - 0.5 * np.log(2 * np.pi), abs=1e-15)
    assert spread[1] == 0.0
    same = lines(0.0, 3.0)
    assert same.spread(np.array([[1e200]])) == 0.0  # both log densities are -inf at this row
    assert lines(0.0, 1e200, weights=[1.0, 1.0]).spread(np.array([[0.0]])) == np.inf


def test_a_member_of_weight_zero_has_no_effect():
    broken = hr.Flow([hr.transforms.Elementwise(1, map="affine", dtype="float64")])
    broken.set_parameter("transforms.0.shift", np.array([[np.nan]]))
    good = hr.Flow([hr.transforms.Standardize([0.0], [1.0])], dtype="float64")
    ensemble, x = hr.Ensemble([good, broken], [1.0, 0.0]), np.array([[0.5]])
    assert ensemble.log_prob(x) == good.log_prob(x)
    assert ensemble.spread(x) == 0.0
    assert np.isfinite(ensemble.sample(200, seed=0)).all()
    assert np.isnan(hr.Ensemble([good, broken]).log_prob(x)).all()


def test_shapes_and_out(dtype):
    ensemble = ensemble_of(dtype, context=2)
    x, c = inputs(dtype, 2)
    log_prob = ensemble.log_prob(x, c)
    batch = ensemble.log_prob(x.reshape(4, 10, 3), c.reshape(4, 10, 2))
    cases.assert_same_bits(batch.reshape(40), log_prob)
    assert ensemble.log_prob(x[0], c[0]).shape == ensemble.spread(x[0], c[0]).shape == ()
    assert ensemble.log_prob(x[:0], c[:0]).shape == (0,)
    out = np.empty(40, dtype)
    assert ensemble.log_prob(x, c, out=out) is out
    cases.assert_same_bits(out, log_prob)
    assert log_prob.dtype == ensemble.spread(x, c).dtype == dtype
    with pytest.raises(ValueError, match=r"^context: expected shape"):
        ensemble.log_prob(x)


def test_answers_are_in_the_caller_s_framework(framework):
    ensemble, (x, _) = ensemble_of("float64"), inputs("float64", 0)
    given = framework.make(x)
    for verb in (ensemble.log_prob, ensemble.spread):
        assert isinstance(verb(given), framework.gives)
        cases.assert_same_bits(framework.open(verb(given)), verb(x))


# ---- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [0, 2])
def test_a_row_depends_on_seed_and_number_alone(context, dtype, set_threads):
    ensemble = ensemble_of(dtype, context)
    _, c = inputs(dtype, context, 300)
    part = (lambda n: None) if c is None else (lambda n: c[:n])
    whole = ensemble.sample(300, part(300), seed=5)
    for n in (0, 1, 7, 8, 100):
        cases.assert_same_bits(ensemble.sample(n, part(n), seed=5), whole[:n])
    set_threads(3)
    cases.assert_same_bits(ensemble.sample(300, part(300), seed=5), whole)
    assert (ensemble.sample(300, part(300), seed=6) != whole).any(axis=1).all()


@pytest.mark.parametrize("wide", [False, True])
def test_a_drawn_row_is_that_of_its_member(wide, dtype):
    ensemble = ensemble_of(dtype)
    more = {"dtype": "float64"} if wide else {}
    whole = ensemble.sample(2000, seed=9, **more)
    assert whole.dtype == ("float64" if wide else dtype)
    each = [flow.sample(2000, seed=9, **more) for flow in ensemble]
    near = np.stack([np.abs(rows - whole).max(axis=1) < 1e-4 for rows in each])
    assert near.any(axis=0).all()
    counts = near.sum(axis=1)
    assert (np.abs(counts - 2000 * np.array(WEIGHTS)) < 5 * np.sqrt(2000 * 0.25)).all()  # five standard deviations


def test_rows_follow_the_density():
    """Samples of two normal densities far apart have the right counts, means and deviations on each side."""
    x = lines(-10.0, 10.0, weights=[3.0, 1.0]).sample(40_000, seed=0)
    left = x[x < 0]
    assert abs(left.size / 40_000 - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 40_000)
    assert abs(left.mean() + 10.0) < 5 / np.sqrt(30_000)
    assert abs(left.std() - 1.0) < 5 / np.sqrt(2 * 30_000)
    assert abs(x[x > 0].mean() - 10.0) < 5 / np.sqrt(10_000)


def test_a_base_that_gives_no_noise_of_a_known_kind_is_drawn_by_its_flow(monkeypatch, dtype):
    ensemble = ensemble_of(dtype, 2)
    _, c = inputs(dtype, 2, 100)
    want = ensemble.sample(100, c, seed=1), ensemble.sample(100, c[0], seed=1)
    monkeypatch.setattr("headrace._fit.ensemble._NOISE", {})
    for got, rows in zip((ensemble.sample(100, c, seed=1), ensemble.sample(100, c[0], seed=1)), want, strict=True):
        cases.assert_close(got, rows, magnitude=np.abs(rows).max(), depth=12)


def test_shapes_of_samples():
    ensemble = ensemble_of("float32", 2)
    c = cases.rows(4, 2, "float32")
    assert ensemble.sample((5,), c, seed=0).shape == (5, 4, 3)
    assert ensemble.sample(6, c[0], seed=0).shape == (6, 3)
    with pytest.raises(ValueError, match=r"dtype: expected 'float64', as the flows' own, got 'float32'"):
        ensemble.astype("float64").sample(3, c[0], dtype="float32")
    with pytest.raises(TypeError, match=r"^seed: expected an integer"):
        ensemble.sample(3, c[0], seed="1")


# ---- on a device -----------------------------------------------------------------------------------------------------


def test_results_on_a_device_are_those_of_the_cpu(machine):
    cupy = Library("cupy", machine)
    ensemble, (x, c) = ensemble_of("float32", 2), inputs("float32", 2)
    device = ensemble.to("cuda")
    assert (device.device, ensemble.device, type(device)) == ("cuda:0", "cpu", hr.Ensemble)
    for verb in ("log_prob", "spread"):
        got = getattr(device, verb)(cupy.make(x), cupy.make(c))
        cases.assert_close(cupy.open(got), getattr(ensemble, verb)(x, c), magnitude=30.0)
    cases.assert_same_bits(cupy.open(device.sample(40, cupy.make(c), seed=2)), ensemble.sample(40, c, seed=2))
    back = device.to("cpu")
    cases.assert_same_bits(back.log_prob(x, c), ensemble.log_prob(x, c))


def test_a_fit_on_a_device_with_drawn_rows(machine):
    cupy = Library("cupy", machine)
    x, context, weights = data()
    ensemble = hr.Ensemble([hr.MAF(x.shape[1], context.shape[1], 1, (8,), seed=s) for s in range(2)])
    device = ensemble.to("cuda")
    settings = {"bootstrap": True, "epochs": 1, **QUIET}
    want = ensemble.fit(x, context, weights=weights, **settings)
    got = device.fit(cupy.make(x), cupy.make(context), weights=cupy.make(weights), **settings)
    for one, other in zip(got, want, strict=True):
        assert np.allclose(one.train_loss, other.train_loss, rtol=1e-5)


# ---- fits ------------------------------------------------------------------------------------------------------------


def fresh(members=3):
    return hr.Ensemble([small(seed=s) for s in range(members)])


def test_members_are_fitted_as_flows_are():
    x, ensemble = gaussian(300), fresh()
    histories = ensemble.fit(x, epochs=2, seed=7, **QUIET)
    for i, member in enumerate(ensemble):
        flow = small(seed=i)
        history = flow.fit(x, epochs=2, seed=7 + i, **QUIET)
        cases.assert_same_bits(member.parameters, flow.parameters)
        assert histories[i].train_loss == history.train_loss


def test_drawn_rows_are_weights(dtype, set_threads):
    """A bootstrap draws as many rows as have positive weight, from these rows; draws differ by member and seed."""
    set_threads(1)  # with one thread members are fitted in turn
    x, weights = gaussian(200).astype(dtype), np.linspace(0.0, 2.0, 200).astype(dtype)
    weights[50:60] = 0.0
    ensemble, seen = fresh(), []
    for flow in ensemble:
        flow.fit = lambda x, context, *, weights, seed, **more: seen.append(weights) or hr.training.History()
    ensemble.fit(x, bootstrap=True, seed=1)
    ensemble.fit(x, bootstrap=True, seed=1, weights=weights)
    ensemble.fit(x, bootstrap=True, seed=2)
    plain, weighted, other = seen[:3], seen[3:6], seen[6:]
    for one in plain:
        assert one.sum() == 200
        assert set(np.unique(one)) <= set(range(10))
        assert abs((one == 0).mean() - np.exp(-1)) < 0.15
    for one in weighted:
        counts = one[weights > 0] / weights[weights > 0]
        assert not one[weights == 0].any()
        assert counts.sum() == pytest.approx((weights > 0).sum(), rel=1e-5)
        np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    for others in (plain[1:] + plain[:1], other):
        assert not any(np.array_equal(a, b) for a, b in zip(plain, others, strict=True))
    ensemble.fit(x, bootstrap=True, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(seen[-3:], plain, strict=True))


def test_drawn_rows_in_the_caller_s_framework(framework):
    x = gaussian(100)
    ensemble, again = fresh(2), fresh(2)
    ensemble.fit(framework.make(x), bootstrap=True, epochs=1, **QUIET)
    again.fit(x, bootstrap=True, epochs=1, **QUIET)
    for one, other in zip(ensemble, again, strict=True):
        cases.assert_same_bits(one.parameters, other.parameters)


def test_ctrl_c_leaves_later_members_as_they_are(set_threads):
    set_threads(1)  # with one thread members are fitted in turn
    ensemble = fresh()
    before = ensemble[2].parameters
    fit = ensemble[1].fit
    ensemble[1].fit = lambda *given, **more: setattr(found := fit(*given, **more), "stopped", "interrupted") or found
    with pytest.warns(RuntimeWarning, match=r"^fit: interrupted with 1 of 3 members not fitted; ensemble\[:2\]"):
        histories = ensemble.fit(gaussian(100), epochs=1, **QUIET)
    assert [history.stopped for history in histories] == ["epochs", "interrupted"]
    cases.assert_same_bits(ensemble[2].parameters, before)


def test_members_differ_where_there_were_no_rows():
    ensemble = fresh()
    x = gaussian(500)
    ensemble.fit(x, epochs=8, **QUIET)
    inside, outside = np.median(ensemble.spread(x)), np.median(ensemble.spread(x.mean(0) + 8.0 * (x - x.mean(0))))
    assert outside > 5.0 * inside
    assert ensemble.log_prob(x).mean() >= np.mean([flow.log_prob(x).mean() for flow in ensemble]) - 1e-5


def test_an_unknown_setting_is_refused_before_anything_changes():
    ensemble = fresh(1)
    with pytest.raises(TypeError, match="bootstrapped"):
        ensemble.fit(gaussian(100), bootstrapped=True)
    with pytest.raises(ValueError, match=r"^weights: expected shape"):
        ensemble.fit(gaussian(100), bootstrap=True, weights=np.ones(3))
    with pytest.raises(TypeError, match=r"^seed"):
        ensemble.fit(gaussian(100), seed=0.5)
    cases.assert_same_bits(ensemble[0].parameters, small().parameters)


# ---- the object ------------------------------------------------------------------------------------------------------


def test_an_ensemble_is_a_sequence_of_copies():
    flow = small()
    ensemble = hr.Ensemble([flow, flow])
    assert len(ensemble) == 2
    assert [*ensemble] == list(ensemble.flows)
    assert ensemble[-1] is ensemble.flows[1]
    ensemble[0].parameters = ensemble[0].parameters + 1.0
    assert (ensemble[1].parameters == flow.parameters).all()
    assert (ensemble[0].parameters != flow.parameters).any()
    with pytest.raises(IndexError, match=r"^index: expected -2 to 1, got 2"):
        ensemble[2]


def test_parts_and_weights():
    ensemble = ensemble_of()
    np.testing.assert_allclose(ensemble.weights, WEIGHTS, rtol=1e-15)
    part = ensemble[1:]
    np.testing.assert_allclose(part.weights, [0.625, 0.375], rtol=1e-15)
    assert isinstance(part, hr.Ensemble)
    assert repr(ensemble) == "Ensemble(3 of MAF, NSF, RealNVP, features=3, context=0, weights=[0.2, 0.5, 0.3])"
    assert repr(fresh()) == "Ensemble(3 of MAF, features=3, context=0)"
    assert ensemble.n_parameters == sum(flow.n_parameters for flow in ensemble)
    np.testing.assert_allclose(hr.Ensemble([small()] * 2, [1e308, 1e308]).weights, [0.5, 0.5])


def test_copies_types_and_pickles_are_ensembles():
    ensemble = ensemble_of()
    x, _ = inputs("float32", 0)
    for again in (copy.copy(ensemble), copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        assert hr.to_bytes(again) == hr.to_bytes(ensemble)
        cases.assert_same_bits(again.log_prob(x), ensemble.log_prob(x))
        again[0].parameters = again[0].parameters + 1.0
        assert hr.to_bytes(again) != hr.to_bytes(ensemble)
    wide = ensemble.astype("float64")
    assert wide.dtype == np.float64
    cases.assert_close(ensemble.log_prob(x), wide.log_prob(x), magnitude=50.0, depth=12)


REFUSED = {
    "a flow": (lambda: hr.Ensemble(small()), TypeError, r"^flows: expected a sequence of flows, got MAF"),
    "none": (lambda: hr.Ensemble([]), ValueError, r"^flows: expected at least one, got none"),
    "no flow": (lambda: hr.Ensemble([small(), 1]), TypeError, r"^flows\[1\]: expected a flow, got int"),
    "nested": (lambda: hr.Ensemble([fresh()]), TypeError, r"^flows\[0\]: expected a flow, got Ensemble"),
    "features": (lambda: hr.Ensemble([small(), small(features=2)]), ValueError, r"^flows: expected one features"),
    "context": (lambda: hr.Ensemble([small(), small(context=2)]), ValueError, r"^flows: expected one context"),
    "dtypes": (lambda: hr.Ensemble([small(), small("float64")]), ValueError, r"expected one dtype, got float32, float"),
    "a weight too few": (lambda: hr.Ensemble([small()] * 2, [1.0]), ValueError, r"^weights: expected 2 values, got 1"),
    "a negative weight": (lambda: hr.Ensemble([small()] * 2, [2.0, -1.0]), ValueError, r"^weights: .* at least 0"),
    "no weight": (lambda: hr.Ensemble([small()] * 2, [0.0, 0.0]), ValueError, r"^weights: .* not all 0"),
    "a weight of NaN": (lambda: hr.Ensemble([small()], [np.nan]), ValueError, r"^weights: expected finite"),
    "weights of text": (lambda: hr.Ensemble([small()], "a"), TypeError, r"^weights: expected a one-dim"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_members_and_weights(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_the_example_of_files_is_an_ensemble():
    assert isinstance(file_cases.EXAMPLES["ensemble"]("float32"), hr.Ensemble)


def test_graphs_are_those_of_one_flow(tmp_path):
    with pytest.raises(
        TypeError, match="flow: expected one flow for a graph, got an Ensemble; write each of its `flows`"
    ):
        hr.Ensemble([hr.MAF(2)]).to_onnx(tmp_path / "flow.onnx")
