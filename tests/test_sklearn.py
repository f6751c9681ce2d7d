"""The estimator for scikit-learn: scikit-learn's own checks, and what they do not cover."""

import pickle
import sys

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

from headrace.sklearn import FLOWS, FlowDensity  # noqa: E402

SHORT = {"transforms": 2, "hidden": (8,), "epochs": 3, "random_state": 0}


def table(dtype="float64", rows=200):
    return cases.rows(rows, 2, dtype, "sklearn") * np.array([1.0, 5.0], dtype)


@parametrize_with_checks([FlowDensity(epochs=3), FlowDensity("nsf", epochs=2, dtype="float32", validation=0.0)])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow(name):
    density = FlowDensity(name, **SHORT).fit(table())
    assert type(density.flow_) is FLOWS[name]
    assert len(density.flow_) == 2 + 1
    assert density.history_.stopped == "epochs"


def test_it_is_the_fit_of_python():
    x = table()
    settings = {"epochs": 100, "batch_size": 50, "learning_rate": 0.1, "patience": 2, "validation": 0.25}
    density = FlowDensity(**{**SHORT, **settings}).fit(x)
    assert density.history_.stopped == "patience"
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    flow = hr.MAF(2, transforms=2, hidden=(8,), seed=seed, dtype="float64")
    flow.fit(x, **settings, seed=seed, progress=False)
    assert_array_equal(density.flow_.parameters, flow.parameters)
    assert_array_equal(density.score_samples(x), flow.log_prob(x))
    assert density.score(x) == flow.log_prob(x).mean()


def test_dtypes():
    """That of the data unless one was asked for; the other type of data is read as it is."""
    for given, asked, wanted in (
        ("float32", None, "float32"),
        ("float64", None, "float64"),
        ("int64", None, "float64"),
        ("float64", "float32", "float32"),
        ("float32", "float64", "float64"),
    ):
        x = (10 * table()).astype(given)
        density = FlowDensity(**SHORT, dtype=asked).fit(x)
        assert density.flow_.dtype == wanted
        assert density.score_samples(x).dtype == wanted
        assert density.sample(3).dtype == wanted


def test_a_row_alone_has_the_density_that_it_has_among_others():
    x = table("float32")
    density = FlowDensity(epochs=3, random_state=0).fit(x)
    alone = np.concatenate([density.score_samples(x[i : i + 1]) for i in range(20)])
    assert_array_equal(alone, density.score_samples(x[:20]))
    assert_array_equal(density.score_samples(x[:7]), density.score_samples(x)[:7])


def test_random_state():
    x = table()
    one, same, other = (FlowDensity(**{**SHORT, "random_state": state}).fit(x) for state in (1, 1, 2))
    assert_array_equal(one.score_samples(x), same.score_samples(x))
    assert not np.array_equal(one.score_samples(x), other.score_samples(x))
    assert_array_equal(one.sample(5, random_state=3), one.sample(5, random_state=3))
    state = np.random.RandomState(3)
    assert not np.array_equal(one.sample(5, state), one.sample(5, state))
    assert one.sample().shape == (1, 2)


def test_weights():
    """Rows of weight 0 take no part."""
    x, weights = table(), np.ones(200)
    weights[:50] = 0.0
    one = FlowDensity(**SHORT).fit(x, sample_weight=weights)
    x[:50] = 99.0
    assert_array_equal(one.flow_.parameters, FlowDensity(**SHORT).fit(x, sample_weight=weights).flow_.parameters)
    assert not np.array_equal(one.flow_.parameters, FlowDensity(**SHORT).fit(x).flow_.parameters)


def test_pickles_hold_the_flow(tmp_path):
    import joblib

    x = table()
    density = FlowDensity(**SHORT).fit(x)
    joblib.dump(density, tmp_path / "density.joblib")
    for again in (pickle.loads(pickle.dumps(density)), joblib.load(tmp_path / "density.joblib")):
        assert_array_equal(again.score_samples(x), density.score_samples(x))
        assert_array_equal(again.sample(9, random_state=1), density.sample(9, random_state=1))
        assert again.get_params() == density.get_params()
        assert again.history_.train_loss == density.history_.train_loss
    assert isinstance(density.flow_, hr.Flow)  # pickling did not change it
    assert pickle.loads(pickle.dumps(FlowDensity("nsf"))).get_params() == FlowDensity("nsf").get_params()


def test_clone_and_not_fitted():
    copy = clone(FlowDensity(**SHORT).fit(table()))
    assert copy.get_params()["hidden"] == (8,)
    for call in (copy.score_samples, copy.score):
        with pytest.raises(NotFittedError):
            call(table())
    with pytest.raises(NotFittedError):
        copy.sample()


def test_in_a_pipeline():
    x = table() + 100.0
    pipeline = make_pipeline(StandardScaler(), FlowDensity(**SHORT)).fit(x)
    scaled = pipeline[0].transform(x)
    assert_array_equal(pipeline.score_samples(x), pipeline[1].score_samples(scaled))
    assert pipeline.score(x) == pytest.approx(pipeline[1].flow_.log_prob(scaled).mean())


def test_in_a_grid_search():
    """The search finds that no epochs are too few for data that are no Gaussian, and refits what it found."""
    x = table(rows=300)
    x[:, 1] = x[:, 0] ** 2 + 0.1 * x[:, 1]
    search = GridSearchCV(FlowDensity(**{**SHORT, "validation": 0.0}), {"epochs": [0, 30]}, cv=3).fit(x)
    assert search.best_params_ == {"epochs": 30}
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    assert search.score(x) == search.best_estimator_.score(x)


def test_in_other_processes():
    x = table()
    scores = cross_val_score(FlowDensity(**SHORT), x, cv=3, n_jobs=2)
    assert_allclose(scores, cross_val_score(FlowDensity(**SHORT), x, cv=3), rtol=1e-9)


def test_names_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=["a", "b"])
    density = FlowDensity(**SHORT).fit(frame)
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
        ({"random_state": "x"}, ["'x'"]),
    ],
)
def test_bad_settings_are_told_by_fit(settings, patterns):
    density = FlowDensity(**{**SHORT, **settings})
    with pytest.raises(ValueError) as error:
        density.fit(table())
    for pattern in patterns:
        assert pattern in str(error.value)


def test_bad_data():
    x = table()
    density = FlowDensity(**SHORT).fit(x)
    for bad, message in ((np.full((3, 2), np.nan), "NaN"), (np.full((3, 2), np.inf), "infinity"), (x[:0], "0 sample")):
        with pytest.raises(ValueError, match=message):
            FlowDensity(**SHORT).fit(bad)
        with pytest.raises(ValueError, match=message):
            density.score_samples(bad)
    with pytest.raises(ValueError, match="2 features"):
        density.score_samples(x[:, :1])
    with pytest.raises(ValueError, match="weights"):
        density.fit(x, sample_weight=-np.ones(200))
    with pytest.raises(ValueError, match="sample_weight"):
        density.fit(x, sample_weight=np.ones(199))
    with pytest.raises(ValueError, match="n: expected"):
        density.sample(-1)


def test_one_row_and_one_column():
    density = FlowDensity(**SHORT)
    with pytest.warns(RuntimeWarning, match="constant"):
        density.fit(np.ones((1, 1)))
    assert np.isfinite(density.score_samples(np.ones((1, 1)))).all()


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "headrace.sklearn")
    with pytest.raises(ImportError, match=r'pip install "headrace\[sklearn\]"'):
        import headrace.sklearn  # noqa: F401
