"""Dual ascent as a flow has its documented properties, also for hard data."""

import _thread
import threading
import time

import numpy as np
import pytest

import cases
import headrace as hr
from ascent_cases import bent, standardised
from headrace._arrays.caller import Caller
from headrace._fit import run as _fit_run
from headrace.ascent import directions as _directions
from headrace.ascent import kinks as _kink_ascent
from headrace.ascent import splines as _spline_ascent
from headrace.ascent import standardised_rows as _ascent_rows

# ---- the flow --------------------------------------------------------------------------------------------------------

MODELS = {
    "notes": lambda **more: hr.DualAscentFlow.notes(steps=40, neighbours=200.0, **more),
    "splines": lambda **more: hr.DualAscentFlow(steps=10, refine=False, **more),
    "refined": lambda **more: hr.DualAscentFlow(steps=4, refine=True, **more),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    """Let a joint training have a few steps."""
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 200)


@every_model
def test_log_det_is_that_of_the_whole_chain(name):
    """The log-determinant is compared with the determinant of central differences."""
    x = bent(300, 3)
    flow = MODELS[name](dtype="float64").fit(x, progress=False)
    points = x[:5]
    got = flow.to_latent(points)[1]
    for point, log_det in zip(points, got, strict=True):
        h = 1e-6 * np.eye(3)
        columns = [(flow.to_latent((point + s)[None])[0] - flow.to_latent((point - s)[None])[0])[0] / 2e-6 for s in h]
        assert log_det == pytest.approx(np.linalg.slogdet(np.array(columns))[1], abs=1e-5)


@every_model
@pytest.mark.parametrize("precision", [1.0, 4.0])
def test_a_slice_is_the_flow_after_its_steps(name, precision):
    """The history has the likelihood of the training rows by each slice, up to rounding in float64."""
    x = bent(300)
    model = MODELS[name](precision=precision, dtype="float64")
    if name == "refined":
        model = hr.DualAscentFlow(precision, 6, refine=False, dtype="float64")
    flow = model.fit(x, validation=None, progress=False)
    assert len(flow) == model.history.best_step
    for t in (0, 1, 3, len(flow)):
        assert len(flow[:t]) == t
        want = model.history.log_likelihood[t]
        assert flow[:t].log_prob(x).mean() == pytest.approx(want, abs=1e-9)
    z = flow[:0].to_latent(x)[0]
    np.testing.assert_allclose(z, standardised(x, precision), atol=1e-12)
    assert len(flow[:-1]) == len(flow) - 1
    assert type(flow[:2]) is hr.ascent.AscentFlow
    with pytest.raises(TypeError, match="index: expected a slice"):
        flow[1:]


@every_model
def test_precision_is_a_unit_of_the_latent_side(name):
    """An ascent of points at half the scale makes the same steps, and gives the same density."""
    x = bent(300)
    one, four = (MODELS[name](precision=p, dtype="float64").fit(x, progress=False) for p in (1.0, 4.0))
    tolerance = 0.05 if name == "refined" else 1e-6  # the optimiser depends on the unit of the latents
    np.testing.assert_allclose(four.log_prob(x).mean(), one.log_prob(x).mean(), atol=tolerance)
    assert four.base.scale.tolist() == [0.5, 0.5]
    if name != "refined":
        np.testing.assert_allclose(2.0 * four.to_latent(x)[0], one.to_latent(x)[0], atol=1e-6)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("features", [2, 5])
def test_a_thousand_steps_are_inverted(dtype, most, features):
    """Errors are in standard deviations of the data, whose rows are in three clusters."""
    g = cases.rng("clusters", features)
    x = g.choice([-3.0, 0.0, 4.0], (1000, 1)) * np.ones(features) + g.standard_normal((1000, features))
    model = hr.DualAscentFlow.notes(steps=1000, dtype=dtype)
    flow = model.fit(x, validation=None, progress=False)
    assert len(flow) == 1000
    z, log_det = flow.to_latent(x)
    back, log_det_back = flow.to_data(z)
    error = np.abs(back - x) / x.std(0)
    assert error.max() < most
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e3 * most)


@pytest.mark.long
@pytest.mark.parametrize("features", [1, 2, 5])
def test_a_thousand_steps_are_inverted_in_far_tails(features):
    """Tails of log-normal rows, one of them at 19 deviations, are compressed, and stretched again by the inverse.

    Every step rounds in both directions, and later steps of the inverse stretch this rounding: in float32 up to 1e-3
    deviations were observed over some seeds, 2.3e-4 within three deviations; the bounds allow for other processors.
    """
    g = cases.rng("tails", features)
    x = np.exp(g.standard_normal((4000, features)))
    x[0] = x.mean(0) + 19.0 * x.std(0)
    flow = hr.DualAscentFlow.notes(steps=1000).fit(x, validation=None, progress=False)
    assert len(flow) == 1000
    away = np.abs((x - x.mean(0)) / x.std(0)).max(1)
    assert away.max() > 18.0

    def error(there, back):
        z = there.to_latent(x)[0].astype(back.dtype)
        return (np.abs(back.to_data(z)[0] - x) / x.std(0)).max(1)

    single = error(flow, flow)
    assert single[away < 3.0].max() < 5e-4
    assert single.max() < 3e-3
    exact = flow.astype("float64")
    assert error(flow, exact).max() < 1e-3
    assert error(exact, exact).max() < 1e-10


@every_model
def test_held_out_rows_choose_the_prefix(name):
    x = bent(300)
    model = MODELS[name](dtype="float64")
    flow = model.fit(x[:200], validation=x[200:], progress=False)
    history = model.history
    assert history.best_step == int(np.argmax(history.validation_log_likelihood))
    assert history.refined == (name == "refined")
    reached = flow.log_prob(x[200:]).mean()
    if name == "refined":
        assert history.refinement is not None
        assert reached == pytest.approx(-history.refinement.best_loss, abs=1e-9)
        assert reached >= max(history.validation_log_likelihood) - 1e-9
    else:
        assert history.refinement is None
        assert len(flow) == history.best_step
        assert reached == pytest.approx(max(history.validation_log_likelihood), abs=1e-9)
    assert len(history.seconds) == len(history.log_likelihood) == len(history.validation_log_likelihood)
    assert "best_step" in repr(history)


def test_patience_ends_an_ascent():
    model = hr.DualAscentFlow.notes(steps=2000, neighbours=2.0, patience=5)
    model.fit(bent(40), validation=0.5, progress=False)
    assert model.history.stopped == "patience"
    assert len(model.history.log_likelihood) == model.history.best_step + 6


@every_model
def test_seeds(name):
    x = bent(200)
    first, again, other = (MODELS[name](seed=seed).fit(x, progress=False).log_prob(x) for seed in (3, 3, 4))
    cases.assert_same_bits(first, again)
    assert not np.array_equal(first, other)


@every_model
def test_rows_of_no_weight_take_no_part(name):
    x = bent(200)
    junk = np.concatenate([x, 1e5 + x[:50]])
    weights = np.concatenate([np.full(200, 3.0), np.zeros(50)])
    plain = MODELS[name](dtype="float64").fit(x, progress=False)
    weighted = MODELS[name](dtype="float64").fit(junk, weights=weights, progress=False)
    np.testing.assert_allclose(weighted.log_prob(x), plain.log_prob(x), atol=1e-3 if name == "refined" else 1e-6)


@every_model
@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_weights_have_any_unit(name, unit):
    x, weights = bent(200), cases.rng("units").random(200) + 0.1
    flows = [
        MODELS[name](dtype="float64").fit(x, weights=weights * factor, validation=None, progress=False)
        for factor in (1.0, unit)
    ]
    want, got = (flow.log_prob(x) for flow in flows)
    np.testing.assert_allclose(got, want, atol=1e-2 if name == "refined" else 1e-6)


@pytest.mark.parametrize("weights", [None, np.full(300, 2.0)])
@pytest.mark.parametrize("copies", [0, 5])
def test_copies_make_kinks_no_narrower(copies, weights):
    """A kink contains a share of the different rows, among which copies do not count."""
    model, rng = hr.DualAscentFlow.notes(dtype="float64"), cases.rng("copies")
    rows = _ascent_rows.StandardisedRows.of(Caller(), bent(300), None, weights, None, rng, 1.0)
    assert _kink_ascent.KinkAscent(model, rows, rng, 3, copies).effective_rows == pytest.approx(300.0)


@every_model
def test_weights_count_rows(name):
    """A cluster with nine times the weight of another has nine times its density."""
    g = cases.rng("clusters")
    x = np.concatenate([g.normal(-5.0, 1.0, (300, 1)), g.normal(5.0, 1.0, (300, 1))])
    weights = np.repeat([9.0, 1.0], 300)
    model = MODELS[name](dtype="float64")
    if name == "notes":
        model = hr.DualAscentFlow.notes(steps=400, neighbours=50.0, dtype="float64")
    flow = model.fit(x, weights=weights, validation=None, progress=False)
    sides = flow.log_prob(np.array([[-5.0], [5.0]]))
    assert sides[0] - sides[1] == pytest.approx(np.log(9.0), abs=1.2)  # equal weights would give 0


def test_turned_data_are_as_good_on_average():
    """Random rotations do not depend on axes: whitened data reach the same likelihood before and after a rotation."""
    x = standardised(bent(500))
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    angle = 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reached = []
    for data in (white, white @ turn.T):
        models = [hr.DualAscentFlow.notes(steps=100, seed=seed, dtype="float64") for seed in range(6)]
        for model in models:
            model.fit(data, validation=None, progress=False)
        reached.append([model.history.log_likelihood[-1] for model in models])
    gained = np.mean(reached) + 1 + np.log(2 * np.pi)
    spread = np.std(reached, axis=1).max() * np.sqrt(2 / 6)
    assert gained > 0.1
    assert abs(np.diff(np.mean(reached, axis=1))[0]) < 4 * spread


@pytest.mark.parametrize("ending", [".safetensors"])
@every_model
def test_files_keep_steps(name, ending, tmp_path):
    x = bent(200)
    flow = MODELS[name]().fit(x, progress=False)
    path = tmp_path / f"flow{ending}"
    flow.save(path)
    loaded = hr.load(path)
    assert type(loaded) is hr.ascent.AscentFlow
    assert len(loaded) == len(flow)
    cases.assert_same_bits(loaded.log_prob(x), flow.log_prob(x))
    cases.assert_same_bits(loaded[:2].log_prob(x), flow[:2].log_prob(x))


def test_a_flow_can_be_trained_further():
    x = bent(400)
    flow = hr.DualAscentFlow.notes(steps=5, dtype="float64").fit(x, validation=None, progress=False)
    before = flow.log_prob(x).mean()
    flow.fit(x, validation=None, epochs=20, learning_rate=1e-2, average=None, progress=False)
    assert flow.log_prob(x).mean() > before + 0.02
    assert len(flow) == 5


@every_model
def test_an_interruption_keeps_the_best_prefix(name, monkeypatch):
    x = bent(200)
    what = ("headrace.ascent.directions.random_rotation", _directions.random_rotation)
    calls = []

    def interrupted(features, rng):
        calls.append(features)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return what[1](features, rng)

    monkeypatch.setattr(what[0], interrupted)
    model = MODELS[name]()
    flow = model.fit(x, progress=False)
    assert model.history.stopped == "interrupted"
    assert len(flow) == model.history.best_step <= 3
    assert np.isfinite(flow.log_prob(x)).all()


def test_ctrl_c_in_an_ascent_keeps_the_best_so_far():
    """A real interrupt in the core keeps all finished steps, and the history ends with the last finished step."""
    x = bent(2000)
    model = hr.DualAscentFlow.notes(steps=100_000, patience=None, dtype="float64")
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    begin = time.perf_counter()
    flow = model.fit(x, validation=None, progress=False)
    seconds = time.perf_counter() - begin
    history = model.history
    assert history.stopped == "interrupted"
    assert history.seconds[-1] < 0.5 * seconds + 2.0
    assert len(flow) == history.best_step == len(history.log_likelihood) - 1
    assert len(history.coordinates) == len(flow)
    assert flow.log_prob(x).mean() == pytest.approx(history.log_likelihood[-1], abs=1e-5)


def test_a_ctrl_c_in_the_joint_training_without_better_weights_keeps_the_ascent():
    """A real interrupt comes after three epochs, none of which is better on these held-out rows."""
    x = bent(400)
    model = hr.DualAscentFlow(steps=2, refine=True)
    epochs = []

    def finished(run, *arguments):
        epochs.append(run)
        if len(epochs) == 3:
            _thread.interrupt_main()
        return finish(run, *arguments)

    finish = _fit_run.Run._finish_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 10**6)
        patch.setattr(_fit_run.Run, "_finish_epoch", finished)
        flow = model.fit(x[:300], validation=x[300:], progress=False)
    history = model.history
    assert 3 <= len(epochs) <= 6
    assert epochs[0].history.best_epoch == 0
    assert history.stopped == "interrupted"
    assert history.refinement is None
    assert len(flow) == history.best_step
    assert flow.log_prob(x[300:]).mean() == pytest.approx(max(history.validation_log_likelihood), abs=1e-5)
    assert "interrupted" in repr(history)


@pytest.mark.parametrize("validation", [0.25, None])
def test_an_interruption_within_an_epoch_of_the_joint_training(validation, monkeypatch):
    passes = []

    def interrupted(run):
        passes.append(run)
        if len(passes) == 4:
            raise KeyboardInterrupt
        return one(run)

    one = _fit_run.ArrayRun.one_pass
    monkeypatch.setattr(_fit_run.ArrayRun, "one_pass", interrupted)
    x = bent(300)
    model = hr.DualAscentFlow(steps=2, copies=0, refine=True)
    flow = model.fit(x, validation=validation, progress=False)
    assert model.history.stopped == model.history.refinement.stopped == "interrupted"
    assert len(model.history.refinement.train_loss) == 3
    assert np.isfinite(flow.log_prob(x)).all()
    assert flow.log_prob(x).mean() > flow[:0].log_prob(x).mean()


@pytest.mark.parametrize(
    "where",
    [
        "headrace.ascent.competing_fits._with_shears",
        "headrace.ascent.standardised_rows.jittered",
        "headrace._fit.start.Start.set",
    ],
)
def test_an_interruption_before_the_joint_training_keeps_the_ascent(where, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    x = bent(300)
    want = hr.DualAscentFlow(steps=3, bins=8, refine=False).fit(x, progress=False)
    monkeypatch.setattr(where, interrupted)
    model = hr.DualAscentFlow(steps=3, refine=True)
    flow = model.fit(x, progress=False)
    assert model.history.stopped == "interrupted"
    assert model.history.refinement is None
    cases.assert_same_bits(flow.log_prob(x), want.log_prob(x))


@pytest.mark.parametrize("after", [0, 2])
def test_an_interruption_of_the_ascent_that_competes_keeps_the_better_flow(after, monkeypatch):
    """Ctrl-C comes at the start of the second ascent, or after two of its splines."""
    started = []

    def interrupted(ascent):
        started.append(ascent)
        steps = splines(ascent)
        for _ in range(len(ascent.steps) + 10**3 if len(started) == 1 else after):
            try:
                yield next(steps)
            except StopIteration:
                return
        raise KeyboardInterrupt

    splines = _spline_ascent.SplineAscent.taken
    monkeypatch.setattr(_spline_ascent.SplineAscent, "taken", interrupted)
    x = bent(300)
    model = hr.DualAscentFlow(steps=4)
    flow = model.fit(x[:200], validation=x[200:], progress=False)
    assert len(started) == 2
    assert model.history.stopped == "interrupted"
    reached = [max(ascent.history.validation_log_likelihood, default=-np.inf) for ascent in started]
    assert flow.log_prob(x[200:]).mean() >= max(reached) - 1e-5


# ---- hard data -------------------------------------------------------------------------------------------------------


def hard():
    g = cases.rng("hard data")
    outlier = g.standard_normal((200, 2))
    outlier[17] = 1e6
    return {
        "one row": g.standard_normal((1, 2)),
        "two rows": g.standard_normal((2, 2)),
        "fewer rows than features": g.standard_normal((4, 9)),
        "one feature": g.gamma(1.0, size=(200, 1)),
        "duplicates": np.repeat(g.standard_normal((4, 2)), 50, axis=0),
        "two values": g.choice([0.0, 1.0], (200, 2)),
        "equal columns": np.repeat(g.standard_normal((200, 1)), 2, axis=1),
        "an outlier": outlier,
        "tiny numbers": 1e-30 * g.standard_normal((200, 2)),
        "huge numbers": 1e30 * g.standard_normal((200, 2)),
    }


@pytest.mark.parametrize("data", hard())
@every_model
@pytest.mark.filterwarnings("ignore:x. ")  # constant columns and repeated values cause warnings
def test_hard_data_give_a_finite_density(name, data, dtype):
    x = hard()[data]
    flow = MODELS[name](dtype=dtype).fit(x, progress=False)
    assert flow.features == x.shape[1]
    assert np.isfinite(flow.log_prob(x)).all()
    assert np.isfinite(flow.sample(100, seed=0)).all()


@pytest.mark.filterwarnings("ignore:x. column .* constant")
@pytest.mark.parametrize("validation", [None, 0.1, 0.9, 0.0])
def test_one_row_and_any_share(validation):
    flow = hr.DualAscentFlow().fit(np.zeros((1, 3)), validation=validation, progress=False)
    assert np.isfinite(flow.log_prob(np.zeros((1, 3)))).all()


@every_model
def test_a_constant_column_is_warned_of(name):
    x = bent(200)
    x[:, 0] = 7.0
    with pytest.warns(RuntimeWarning, match=r"x: column .* is constant") as caught:
        flow = MODELS[name]().fit(x, progress=False)
    assert caught[0].filename == __file__
    assert np.isfinite(flow.log_prob(x)).all()


def test_arrays_of_other_libraries():
    torch, pandas = pytest.importorskip("torch"), pytest.importorskip("pandas")
    x = bent(100)
    fitted = [MODELS["notes"]().fit(given, progress=False) for given in (x, torch.tensor(x), pandas.DataFrame(x))]
    for flow in fitted[1:]:
        cases.assert_same_bits(flow.log_prob(x), fitted[0].log_prob(x))
    tensor = torch.tensor(x)
    assert isinstance(fitted[0].log_prob(tensor), torch.Tensor)
    assert MODELS["notes"]().fit(tensor, weights=torch.ones(100), validation=tensor, progress=False).features == 2


BAD_FITS = {
    "a list of words": (([["a"]],), {}, TypeError, ["x: expected a list of real numbers", "<U1"]),
    "a vector": ((np.zeros(3),), {}, ValueError, [r"x: expected shape \(rows, features\)", r"\(3,\)"]),
    "no columns": ((np.zeros((3, 0)),), {}, ValueError, ["at least one feature", r"\(3, 0\)"]),
    "no rows": ((np.zeros((0, 2)),), {}, ValueError, ["x: expected at least one row", r"\(0, 2\)"]),
    "complex numbers": ((np.zeros((3, 2), complex),), {}, TypeError, ["x: expected dtype", "complex128"]),
    "a context": ((np.zeros((3, 2)), np.zeros((3, 1))), {}, ValueError, ["context: expected None", "no context"]),
    "weights of another length": ((np.zeros((3, 2)),), {"weights": np.ones(2)}, ValueError, [r"weights: .*\(3,\)"]),
    "a weight below zero": (
        (np.zeros((3, 2)),),
        {"weights": np.array([1.0, -1.0, 1.0])},
        ValueError,
        ["weights: ", "-1.0 at index 1"],
    ),
    "held-out rows of other width": ((np.zeros((3, 2)),), {"validation": np.zeros((3, 3))}, ValueError, ["validation"]),
    "a share of one": ((np.zeros((3, 2)),), {"validation": 1.0}, ValueError, ["validation: ", "1.0"]),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_wrong_rows_are_refused_by_a_fit(name):
    arguments, keywords, kind, words = BAD_FITS[name]
    with pytest.raises(kind) as error:
        hr.DualAscentFlow().fit(*arguments, **keywords, progress=False)
    cases.assert_says(error, *words)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted(poison):
    x = bent(50)
    x[[7, 9], 1] = poison
    with pytest.raises(ValueError, match="x: expected finite numbers") as error:
        hr.DualAscentFlow().fit(x, progress=False)
    cases.assert_says(error, "2 of 50 rows", "first in row 7")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"precision": 0.0}, ["precision: ", "0.0"]),
        ({"precision": "one"}, ["precision: expected a number"]),
        ({"precision": float("nan")}, ["precision: ", "nan"]),
        ({"steps": -1}, ["steps: ", "-1"]),
        ({"steps": 1.5}, ["steps: expected an integer"]),
        ({"map": "affine"}, ["map: ", "'spline', 'kink'", "'affine'"]),
        ({"rule": "euler"}, ["rule: ", "'newton', 'gradient'"]),
        ({"kinks": 0}, ["kinks: ", "0"]),
        ({"neighbours": 0.0}, ["neighbours: ", "0.0"]),
        ({"directions": "pca"}, ["directions: ", "'random', 'sliced'"]),
        ({"rotations": "hadamard"}, ["rotations: ", "'dense', 'blocks'", "hadamard"]),
        ({"bandwidth": -1.0}, ["bandwidth: ", "-1.0"]),
        ({"rate": 0.0}, ["rate: ", "0.0"]),
        ({"rate": 1.5}, ["rate: ", "1.5"]),
        ({"bins": 2}, ["bins: ", "from 3 to 64", "2"]),
        ({"copies": -1}, ["copies: ", "-1"]),
        ({"jitter": -0.1}, ["jitter: ", "-0.1"]),
        ({"patience": 0}, ["patience: ", "0"]),
        ({"seed": -1}, ["seed: ", "-1"]),
        ({"dtype": "int32"}, ["dtype: ", "float32", "int32"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_refused(keywords, words):
    with pytest.raises((TypeError, ValueError)) as error:
        hr.DualAscentFlow(**keywords)
    cases.assert_says(error, *words)
