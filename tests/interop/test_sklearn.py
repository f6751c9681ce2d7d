"""The estimator for scikit-learn: scikit-learn's checks of estimators, and cases that these checks leave out."""

import copy
import inspect
import pickle
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from headrace._fit import run  # noqa: E402
from headrace.sklearn import FLOWS, FitSettings, FlowDensity, FlowSettings  # noqa: E402
from sklearn_cases import estimator  # noqa: E402

pytestmark = pytest.mark.programs

SHORT = {"transforms": 2, "hidden": (8,), "epochs": 3, "random_state": 0}


def table(dtype="float64", rows=200):
    return cases.rows(rows, 2, dtype, "sklearn") * np.array([1.0, 5.0], dtype)


def not_expected(estimator):
    """Checks of scikit-learn that fail, because a row that is given twice is in other batches than a row of weight 2.

    If all rows are in one batch, repeated and weighted rows give equal fits, which another test checks.
    """
    reason = "steps are taken by batches of rows: a row given twice may be in two of them, and a row of weight 2 is not"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@pytest.mark.filterwarnings("ignore:X. values repeat:RuntimeWarning")  # iris data are rounded, so that values repeat
@parametrize_with_checks(
    [estimator(epochs=3), estimator("nsf", epochs=2, dtype="float32", validation=0.0, bins=4)],
    expected_failed_checks=not_expected,
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow(name):
    density = estimator(name, **SHORT).fit(table())
    assert type(density.flow_) is FLOWS[name]
    assert len(density.flow_) == 2 + 1
    assert density.history_.stopped == "epochs"


def test_the_estimator_has_the_bits_of_a_flow_s_fit():
    x = table()
    settings = {"epochs": 100, "batch_size": 50, "learning_rate": 0.1, "patience": 2, "validation": 0.25}
    density = estimator(**{**SHORT, **settings}).fit(x)
    assert density.history_.stopped == "patience"
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    flow = hr.NSF(2, transforms=2, hidden=(8,), seed=seed, dtype="float64")
    flow.fit(x, **settings, seed=seed, progress=False)
    assert_array_equal(density.flow_.parameters, flow.parameters)
    assert_array_equal(density.score_samples(x), flow.log_prob(x))
    assert density.score(x) == flow.log_prob(x).mean()


def test_dtypes():
    """A fit has the dtype of the data, unless an argument sets the dtype; rows to score may have another dtype."""
    for given, asked, wanted in (
        ("float32", None, "float32"),
        ("float64", None, "float64"),
        ("int64", None, "float64"),
        ("float64", "float32", "float32"),
        ("float32", "float64", "float64"),
    ):
        x = (10 * table()).astype(given)
        density = estimator(**SHORT, dtype=asked).fit(x)
        assert density.flow_.dtype == wanted
        assert density.score_samples(x).dtype == "float64"  # scikit-learn requires scores in float64
        assert density.sample(3).dtype == wanted


def test_a_row_alone_has_the_density_that_it_has_among_others():
    x = table("float32")
    density = estimator(epochs=3, random_state=0).fit(x)
    alone = np.concatenate([density.score_samples(x[i : i + 1]) for i in range(20)])
    assert_array_equal(alone, density.score_samples(x[:20]))
    assert_array_equal(density.score_samples(x[:7]), density.score_samples(x)[:7])


def test_random_state():
    x = table()
    one, same, other = (estimator(**{**SHORT, "random_state": state}).fit(x) for state in (1, 1, 2))
    assert_array_equal(one.score_samples(x), same.score_samples(x))
    assert not np.array_equal(one.score_samples(x), other.score_samples(x))
    assert_array_equal(one.sample(5, random_state=3), one.sample(5, random_state=3))
    state = np.random.RandomState(3)
    assert not np.array_equal(one.sample(5, state), one.sample(5, state))
    assert one.sample().shape == (1, 2)


def test_weights():
    """Rows of weight 0 do not affect a fit."""
    x, weights = table(), np.ones(200)
    weights[:50] = 0.0
    one = estimator(**SHORT).fit(x, sample_weight=weights)
    x[:50] = 99.0
    assert_array_equal(one.flow_.parameters, estimator(**SHORT).fit(x, sample_weight=weights).flow_.parameters)
    with pytest.warns(RuntimeWarning, match="one value is frequent in column 0"):
        assert not np.array_equal(one.flow_.parameters, estimator(**SHORT, categories=None).fit(x).flow_.parameters)


@pytest.mark.filterwarnings("ignore:X. values repeat:RuntimeWarning")
def test_a_weight_of_2_has_the_effect_of_a_row_given_twice():
    """All rows are in one batch, so that both fits differ only in the order of sums."""
    x = table()
    twice = np.arange(200) % 3 == 0
    how = {
        **SHORT,
        "spread": "none",
        "batch_size": 1000,
        "validation": None,
        "weight_decay": None,
        "gaussianize": False,
        "epochs": 20,
    }
    weighted = estimator(**how).fit(x, sample_weight=1.0 + twice)
    repeated = estimator(**how).fit(np.concatenate([x, x[twice]]))
    assert_allclose(weighted.score_samples(x), repeated.score_samples(x), rtol=1e-6, atol=1e-6)
    plain = estimator(**how).fit(x)
    assert np.abs(weighted.score_samples(x) - plain.score_samples(x)).max() > 1e-3


def test_unknown_keywords_name_the_known_ones_and_the_meant_one():
    for call, words in (
        (lambda: estimator("nsf", layers=3), "layers: expected a keyword of FlowDensity .*did you mean transforms"),
        (lambda: FitSettings(lr=1e-3), "did you mean learning_rate"),
        (lambda: estimator(seed=1), "did you mean random_state"),
        (lambda: estimator().sample(3, seed=1), r"FlowDensity.sample \(n_samples.*did you mean random_state"),
        (lambda: hr.MAF(2).sample(5, random_state=0), r"MAF.sample \(n, context, seed.*did you mean seed"),
        (lambda: hr.MAF(2).sample_and_log_prob(5, random_state=0), "did you mean seed"),
        (lambda: hr.Ensemble([hr.MAF(2)]).sample(5, random_state=0), "Ensemble.sample .*did you mean seed"),
    ):
        with pytest.raises(TypeError, match=words):
            call()
    assert "others" not in inspect.signature(hr.MAF.sample).parameters
    assert estimator().get_params()["random_state"] is None


def test_frames_and_names():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(np.abs(table()) + 0.1, columns=["age", "mass"])
    year = pd.DataFrame({"year": np.arange(200.0)})
    density = estimator(**SHORT, bounds={"mass": (0.0, None)}, periodic={0: (0.0, 50.0)}).fit(frame, context=year)
    assert density.flow_.feature_names == ("age", "mass")
    assert density.flow_.context_names == ("year",)
    assert density.flow_.transforms[-1].bounds == (None, (0.0, None))
    same = estimator(**SHORT, bounds=[None, (0.0, None)], periodic=[(0.0, 50.0), None]).fit(frame, context=year)
    assert_array_equal(density.score_samples(frame, year), same.score_samples(frame, year))
    with pytest.raises(ValueError, match=r"context: .* without 'year' and with 'day'"):
        density.score_samples(frame, year.rename(columns={"year": "day"}))
    with pytest.raises(ValueError, match=r"feature names should match|order"):
        density.score_samples(frame[["mass", "age"]], year)
    with pytest.raises(ValueError, match="bounds: expected a column of X, got 'weight'; there are 'age', 'mass'"):
        estimator(**SHORT, bounds={"weight": (0.0, None)}).fit(frame)
    constant = frame.assign(one=1.0)
    assert estimator(**SHORT).fit(constant).flow_.feature_names == ("age", "mass")
    assert clone(density).bounds == {"mass": (0.0, None)}


def test_pickles_hold_the_flow(tmp_path):
    import joblib

    x = table()
    density = estimator(**SHORT).fit(x)
    joblib.dump(density, tmp_path / "density.joblib")
    for again in (pickle.loads(pickle.dumps(density)), joblib.load(tmp_path / "density.joblib")):
        assert_array_equal(again.score_samples(x), density.score_samples(x))
        assert_array_equal(again.sample(9, random_state=1), density.sample(9, random_state=1))
        assert repr(again) == repr(density)
        assert again.history_.train_loss == density.history_.train_loss
    assert isinstance(density.flow_, hr.Flow)  # pickling has not changed the estimator
    assert pickle.loads(pickle.dumps(FlowDensity("maf"))).get_params() == FlowDensity("maf").get_params()


def test_clone_and_not_fitted():
    copy = clone(estimator(**SHORT).fit(table()))
    assert copy.get_params()["hidden"] == (8,)
    for call in (copy.score_samples, copy.score):
        with pytest.raises(NotFittedError):
            call(table())
    with pytest.raises(NotFittedError):
        copy.sample()


def test_in_a_pipeline():
    x = table() + 100.0
    pipeline = make_pipeline(StandardScaler(), estimator(**SHORT)).fit(x)
    scaled = pipeline[0].transform(x)
    assert_array_equal(pipeline.score_samples(x), pipeline[1].score_samples(scaled))
    assert pipeline.score(x) == pytest.approx(pipeline[1].flow_.log_prob(scaled).mean())


def test_in_a_grid_search():
    """The search finds that 0 epochs are too few for data that are far from normal, and refits with the best value."""
    x = table(rows=300)
    x[:, 1] = x[:, 0] ** 2 + 0.1 * x[:, 1]
    search = GridSearchCV(
        estimator(**{**SHORT, "hidden": (16, 16), "validation": 0.0}), {"fit__epochs": [0, 30]}, cv=3
    ).fit(x)
    assert search.best_params_ == {"fit__epochs": 30}
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    assert search.score(x) == search.best_estimator_.score(x)


@pytest.mark.costly
def test_in_other_processes():
    scores = cross_val_score(estimator(**SHORT), table(), cv=3, n_jobs=2)
    assert_allclose(scores, cross_val_score(estimator(**SHORT), table(), cv=3), rtol=1e-9)


def test_names_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=["a", "b"])
    density = estimator(**SHORT).fit(frame)
    assert density.n_features_in_ == 2
    assert density.feature_names_in_.tolist() == ["a", "b"]
    assert_array_equal(density.score_samples(frame), density.flow_.log_prob(table()))
    with pytest.raises(ValueError, match="feature names"):
        density.score_samples(frame[["b", "a"]])


@pytest.mark.parametrize(
    ("settings", "patterns"),
    [
        ({"flow": "glow"}, ["flow", "'maf'", "'glow'"]),
        ({"flow": None}, ["flow", "None"]),
        ({"transforms": 0}, ["transforms", "0"]),
        ({"hidden": (0,)}, ["hidden", "0"]),
        ({"epochs": -1}, ["epochs", "-1"]),
        ({"validation": 1.0}, ["validation", "1.0"]),
        ({"learning_rate": 0.0}, ["learning_rate", "0.0"]),
        ({"dtype": "float16"}, ["dtype", "float16"]),
        ({"flow": "maf", "bins": 4}, ["bins", "'maf'", "4"]),
        ({"flow": "planar", "coupling": True}, ["coupling", "'planar'", "True"]),
        ({"flow": "nsf", "bins": 1}, ["bins", "1"]),
        ({"base": "cauchy"}, ["base", "'logistic'", "'cauchy'"]),
        ({"weight_decay": -1.0}, ["weight_decay", "-1.0"]),
        ({"contamination": 0.0}, ["contamination", "above 0", "0.0"]),
        ({"contamination": 0.6}, ["contamination", "at most 0.5", "0.6"]),
        ({"random_state": "x"}, ["'x'"]),
    ],
)
def test_bad_settings_are_refused_by_fit(settings, patterns):
    density = estimator(**{**SHORT, **settings})
    with pytest.raises(ValueError) as error:
        density.fit(table())
    for pattern in patterns:
        assert pattern in str(error.value)


def test_bad_data():
    x = table()
    density = estimator(**SHORT).fit(x)
    for bad, message in ((np.full((3, 2), np.nan), "NaN"), (np.full((3, 2), np.inf), "infinity"), (x[:0], "0 sample")):
        with pytest.raises(ValueError, match=message):
            estimator(**SHORT).fit(bad)
        with pytest.raises(ValueError, match=message):
            density.score_samples(bad)
    with pytest.raises(ValueError, match="2 features"):
        density.score_samples(x[:, :1])
    with pytest.raises(ValueError, match="sample_weight"):
        density.fit(x, sample_weight=-np.ones(200))
    with pytest.raises(ValueError, match="sample_weight"):
        density.fit(x, sample_weight=np.ones(199))
    with pytest.raises(ValueError, match="n: expected"):
        density.sample(-1)


def test_one_row_and_one_column():
    density = estimator(**SHORT)
    with pytest.warns(RuntimeWarning, match="constant"):
        density.fit(np.ones((1, 1)))
    assert np.isfinite(density.score_samples(np.ones((1, 1)))).all()


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "headrace.sklearn")
    with pytest.raises(ImportError, match=r'pip install "\.\[sklearn\]"'):
        import headrace.sklearn  # noqa: F401


# ---- arguments of flows and `fit` ------------------------------------------------------------------------------------


def keywords(function):
    return {name: p for name, p in inspect.signature(function).parameters.items() if name != "self"}


def test_the_estimator_takes_arguments_of_flows_and_fits():
    """Every argument of flows and `fit` is an argument of the estimator, except for those that the data determine."""
    ours = FlowDensity().get_params()
    own = {name.rpartition("__")[2] for name in ours}
    by_data = {"features", "context", "x", "weights", "seed", "rng"}
    for make in FLOWS.values():
        assert keywords(make.__init__).keys() - by_data <= own
    fit = keywords(hr.Flow.fit)
    for name in fit.keys() - by_data - {"progress", "matmul"}:
        assert ours[f"fit__{name}"] == fit[name].default, name
    of_flows = {name for make in FLOWS.values() for name in keywords(make.__init__).keys() - by_data}
    assert all(ours.get(name, ours.get(f"settings__{name}")) is None for name in of_flows)
    assert len(FlowDensity().get_params(deep=False)) <= 24


def test_settings_are_objects_that_others_may_share():
    fit = FitSettings(epochs=7)
    one, other = FlowDensity(fit=fit), clone(FlowDensity("maf", fit=fit))
    one.set_params(fit__learning_rate=1e-3, settings__dropout=0.1, transforms=4)
    assert (one.get_params()["fit__epochs"], one.get_params()["fit__learning_rate"], one.transforms) == (7, 1e-3, 4)
    assert one.get_params()["settings__dropout"] == 0.1
    assert (fit.learning_rate, other.get_params()["fit__learning_rate"]) == (None, None)
    assert other.set_params(settings=FlowSettings(scale="exp"), fit=None).get_params()["settings__scale"] == "exp"
    assert other.get_params()["fit"] is None
    assert callable(one.fit)
    with pytest.raises(ValueError, match="lerning_rate"):
        one.set_params(fit__lerning_rate=1e-3)


def test_earlier_names_work_with_a_warning():
    """Earlier names of arguments of fits and flows, and of `spread`, work in the constructor and in a grid."""
    x = table()
    with pytest.warns(FutureWarning, match=r"epochs, dropout: give fit=FitSettings\(epochs=...\), settings=.* 0\.7"):
        old = FlowDensity(transforms=2, hidden=(8,), epochs=3, dropout=0.0, random_state=0)
    assert_array_equal(old.fit(x).flow_.parameters, estimator(**SHORT, dropout=0.0).fit(x).flow_.parameters)
    with pytest.warns(FutureWarning, match="learning_rate: give fit=FitSettings"):
        old.set_params(learning_rate=1e-4)
    assert (old.get_params()["fit__learning_rate"], old.get_params()["fit__epochs"]) == (1e-4, 3)
    with pytest.warns(FutureWarning, match="jitter: give spread"):
        assert FlowDensity(jitter=None).spread == "none"


def test_a_misspelt_parameter_is_refused():
    with pytest.raises(TypeError, match="hiden"):
        estimator(hiden=(8,))
    with pytest.raises(ValueError, match="hiden"):
        FlowDensity().set_params(hiden=(8,))


def test_settings_reach_the_flow_and_its_fit():
    x = table()
    own = {"flow": "nsf", "coupling": True, "bins": 5, "bound": 3.0, "activation": "tanh", "slope": 1e-2}
    of_fit = {"weight_decay": 0.5, "clip": 0.1, "average": None, "schedule": "cosine", "batch_size": 20}
    density = estimator(**{**SHORT, **own, **of_fit}).fit(x)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    own.pop("flow")
    flow = hr.NSF(2, transforms=2, hidden=(8,), seed=seed, dtype="float64", **own)
    flow.fit(x, epochs=3, seed=seed, progress=False, **of_fit)
    assert_array_equal(density.flow_.parameters, flow.parameters)


@pytest.mark.parametrize(
    ("given", "kind"), [("logistic", hr.Logistic), ("normal", hr.Normal), (None, hr.StandardNormal)]
)
def test_bases_by_name(given, kind):
    assert type(estimator(**SHORT, base=given).fit(table()).flow_.base) is kind


def test_a_base_of_the_caller():
    base = hr.Normal(2, loc=[1.0, 2.0], scale=3.0, trainable=False)
    density = clone(estimator(**SHORT, base=base)).fit(table())
    assert_array_equal(density.flow_.base.loc, [1.0, 2.0])
    again = pickle.loads(pickle.dumps(density))
    assert_array_equal(again.flow_.base.loc, [1.0, 2.0])
    assert_array_equal(again.base.scale, [3.0, 3.0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda base: pickle.loads(pickle.dumps(base))])
def test_a_trainable_base_can_be_copied(duplicate):
    """A trainable base is copied by `clone`, and for the processes of a grid search."""
    base = hr.Normal(2, loc=[1.0, -1.0], scale=2.0)
    flows = [hr.MAF(2, transforms=2, hidden=(8,), base=each) for each in (base, duplicate(base))]
    assert_array_equal(flows[0].parameters, flows[1].parameters)
    assert_array_equal(flows[0].sample(9, seed=1), flows[1].sample(9, seed=1))


def test_a_grid_over_arguments_of_flows_and_fits():
    grid = {"fit__weight_decay": [0.0, 1.0], "activation": ["relu", "tanh"], "base": [None, "logistic"]}
    search = GridSearchCV(estimator(**SHORT), grid, cv=2).fit(table())
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ---- context ---------------------------------------------------------------------------------------------------------


def with_context(columns=1, rows=400):
    c = cases.rng("sklearn context").uniform(-1.0, 1.0, (rows, columns))
    return c[:, :1] * [3.0, -2.0] + 0.1 * cases.rows(rows, 2, "float64", "sklearn context"), c


def test_context():
    x, c = with_context()
    density = estimator(**{**SHORT, "epochs": 30}).fit(x, context=c)
    assert density.n_context_ == density.flow_.context == 1
    assert_array_equal(density.score_samples(x, c), density.flow_.log_prob(x, c))
    assert density.score(x, context=c) > density.score(x, context=c[::-1]) + 1.0  # the density depends on the context
    assert_array_equal(density.score_samples(x[:3], c[:3]), density.score_samples(x, c)[:3])
    assert density.score(x, context=c) == density.score_samples(x, c).mean()
    assert_array_equal(density.decision_function(x, context=c), density.score_samples(x, c) - density.offset_)
    drawn = density.sample(400, random_state=0, context=c)
    assert density.score(drawn, context=c) > density.score(drawn, context=c[::-1]) + 1.0
    again = pickle.loads(pickle.dumps(density))
    assert_array_equal(again.score_samples(x, c), density.score_samples(x, c))


def test_shapes_of_context():
    x, c = with_context()
    density = estimator(**SHORT).fit(x, context=c[:, 0])
    assert_array_equal(density.flow_.parameters, estimator(**SHORT).fit(x, context=c.tolist()).flow_.parameters)
    wanted = density.score_samples(x, np.full((400, 1), 0.5))
    assert_array_equal(density.score_samples(x, [0.5]), wanted)
    assert_array_equal(density.score_samples(x, np.full(400, 0.5)), wanted)
    assert_array_equal(density.score_samples(x[:1], [0.5]), wanted[:1])
    assert density.sample(5, context=[0.5]).shape == (5, 2)
    x, c = with_context(3)
    density = estimator(**SHORT).fit(x, context=c)
    assert_array_equal(density.score_samples(x, c[0]), density.score_samples(x, np.tile(c[0], (400, 1))))
    for call in (
        lambda: density.score_samples(x),
        lambda: density.sample(5),
        lambda: density.score_samples(x, c[:5]),
        lambda: density.score_samples(x, c[:, :2]),
        lambda: density.predict(x, context=np.full((400, 3), np.nan)),
        lambda: estimator(**SHORT).fit(x, context=c[:5]),
        lambda: estimator(**SHORT).fit(x, context=c[None]),
        lambda: estimator(**SHORT).fit(x).score_samples(x, c),
    ):
        with pytest.raises(ValueError, match=r"context|dim 3"):
            call()


def test_context_in_a_grid_search():
    """scikit-learn passes a context to `fit` and `score` by its metadata routing."""
    x, c = with_context()
    with sklearn.config_context(enable_metadata_routing=True):
        density = estimator(**SHORT).set_fit_request(context=True).set_score_request(context=True)
        search = GridSearchCV(density, {"fit__epochs": [0, 30]}, cv=2).fit(x, context=c)
    assert search.best_params_ == {"fit__epochs": 30}
    assert search.best_estimator_.n_context_ == 1


# ---- outliers --------------------------------------------------------------------------------------------------------


def test_outliers():
    x = table()
    density = estimator(**SHORT, contamination=0.2).fit(x)
    scores = density.score_samples(x)
    assert density.offset_ == np.quantile(scores, 0.2)
    assert_array_equal(density.decision_function(x), scores - density.offset_)
    assert_array_equal(density.predict(x), np.where(scores < density.offset_, -1, 1))
    assert (density.predict(x) == -1).sum() == 40
    assert density.predict([[50.0, 50.0], [0.0, 0.0]]).tolist() == [-1, 1]
    assert_array_equal(estimator(**SHORT, contamination=0.2).fit_predict(x), density.predict(x))


def test_the_share_of_outliers_goes_by_weights():
    x, weights = table(), np.ones(200)
    weights[:100] = 0.0
    density = estimator(**SHORT, contamination=0.25).fit(x, sample_weight=weights)
    assert (density.predict(x[100:]) == -1).sum() == 25


# ---- an index among the columns --------------------------------------------------------------------------------------


def test_an_index_column_is_left_out_with_a_warning():
    pandas = pytest.importorskip("pandas")
    x = np.column_stack([np.arange(200.0), table()])
    with pytest.warns(RuntimeWarning, match=r"^X: left out: column 0 \(0, 1, 2, \.\.\.\); discrete=\[0\] keeps it"):
        density = estimator(**SHORT).fit(x)
    assert density.flow_.features == 2
    assert_array_equal(density.score_samples(x), density.score_samples(x[:, 1:]))
    assert density.sample(3, random_state=0).shape == (3, 2)
    assert estimator(**SHORT, discrete=[0]).fit(x).flow_.features == 3
    frame = pandas.DataFrame(x, columns=["Unnamed: 0", "a", "b"])
    with pytest.warns(RuntimeWarning, match=r"^X: left out: column 'Unnamed: 0' \(0, 1, 2, \.\.\.\)"):
        estimator(**SHORT).fit(frame)
    with pytest.warns(RuntimeWarning, match=r"column 'Unnamed: 0' \(another whole number in each row\)"):
        estimator(**SHORT).fit(frame.sample(frac=0.5, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "fit: no epoch of")
        estimator(**SHORT).fit(frame[["a", "b"]])


def test_one_row_of_context_for_all():
    x, c = with_context(2)
    density = estimator(**SHORT).fit(x, context=c)
    for one in (c[0], c[:1], c[:1].tolist()):
        for n in (1, 5, 20):
            scores = density.score_samples(x[:n], one)
            np.testing.assert_allclose(scores, density.score_samples(x[:n], np.repeat(c[:1], n, axis=0)), rtol=1e-12)
        assert density.sample(3, random_state=0, context=one).shape == (3, 2)


def test_errors_name_the_argument():
    x, _ = with_context()
    for bad in (0.5, np.zeros((400, 1, 1))):
        with pytest.raises(ValueError, match=r"^context: expected shape"):
            estimator(**SHORT).fit(x, context=bad)
    with pytest.raises(ValueError, match=r"^sample_weight: expected numbers of at least 0, got -1"):
        estimator(**SHORT).fit(x, sample_weight=-np.ones(400))
    with pytest.raises(ValueError, match=r"^base: expected 2 features, as the flow has, got 3"):
        estimator(**SHORT, base=hr.Normal(3)).fit(x)


# ---- ensembles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", [False, True])
def test_an_ensemble_is_that_of_python(bootstrap):
    x = table()
    density = estimator(**SHORT, ensemble=3, bootstrap=bootstrap).fit(x)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    want = hr.Ensemble([hr.NSF(2, transforms=2, hidden=(8,), seed=seed + i, dtype="float64") for i in range(3)])
    want.fit(x, epochs=3, seed=seed, bootstrap=bootstrap, progress=False)
    assert_array_equal(density.score_samples(x), want.log_prob(x))
    assert_array_equal(density.spread_samples(x), want.spread(x))
    assert_array_equal(density.sample(20, random_state=1), pickle.loads(pickle.dumps(density)).sample(20, 1))
    assert [history.stopped for history in density.history_] == ["epochs"] * 3
    alone = np.array([density.score_samples(row[None])[0] for row in x[:5]])
    assert_array_equal(alone, density.score_samples(x)[:5])
    assert (density.predict(x) == -1).mean() == pytest.approx(0.1, abs=0.01)


def test_an_ensemble_with_context():
    x = table()
    density = estimator(**SHORT, ensemble=2).fit(x[:, :1], context=x[:, 1:])
    assert density.spread_samples(x[:, :1], x[:, 1:]).shape == (200,)
    assert density.sample(4, context=[[0.0]]).shape == (4, 1)


def test_members_without_a_fit_are_left_out(monkeypatch, set_threads):
    set_threads(1)  # members are fitted one after another
    fit = hr.NSF.fit

    def interrupted(self, *given, **more):
        history = fit(self, *given, **more)
        history.stopped = "interrupted"
        return history

    monkeypatch.setattr(hr.NSF, "fit", interrupted)
    with pytest.warns(RuntimeWarning, match="2 of 3 members not fitted"):
        density = estimator(**SHORT, ensemble=3).fit(table())
    assert len(density.flow_) == 1


def test_refused_arguments_of_an_ensemble():
    x = table()
    for settings, message in (
        ({"ensemble": 0}, "^ensemble: expected an integer of at least 1, got 0"),
        ({"bootstrap": True}, "^bootstrap: expected False without an ensemble, got True"),
    ):
        with pytest.raises(ValueError, match=message):
            estimator(**SHORT, **settings).fit(x)
    with pytest.raises(ValueError, match=r"^ensemble: expected a number of flows for a spread, got None"):
        estimator(**SHORT).fit(x).spread_samples(x)


def test_a_checkpoint_reaches_the_fit(tmp_path, monkeypatch):
    """A fit goes on from its checkpoint after Ctrl-C in its second epoch, before any better weights."""
    passes, whole = [], run.ArrayRun.one_pass

    def interrupted(self):
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt
        return whole(self)

    want = estimator(**SHORT).fit(table())
    monkeypatch.setattr(run.ArrayRun, "one_pass", interrupted)
    density = estimator(**SHORT, checkpoint=tmp_path / "fit.state", checkpoint_every="epoch")
    with pytest.raises(KeyboardInterrupt):
        density.fit(table())
    assert (tmp_path / "fit.state").exists()
    assert_array_equal(clone(density).fit(table()).flow_.parameters, want.flow_.parameters)
    assert len(passes) == 2 + 2
    assert not (tmp_path / "fit.state").exists()
