"""`FlowRegressor`: conditional densities of responses as an estimator of scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from headrace._regression.regressor import _weighed
from headrace._regression.trees import Boosting, Forest
from headrace.sklearn import FitSettings, FlowRegressor

SHORT = {"hidden": (16,), "random_state": 0}
BATCHES = "steps are taken by batches of rows: a row given twice may be in two of them, and a row of weight 2 is not"


def table(n=700, seed=0):
    """Features and a response: one feature changes the mean, one the scale, and one has no effect."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (n, 3))
    return x, np.sin(3.0 * x[:, 0]) + (0.1 + 0.3 * (x[:, 1] > 0)) * rng.standard_normal(n)


@pytest.fixture(scope="module")
def model():
    return FlowRegressor(**SHORT).fit(*table())


@pytest.mark.costly
@parametrize_with_checks(
    [FlowRegressor(hidden=(4,), settings=FitSettings(epochs=2), random_state=0)],
    expected_failed_checks=lambda one: {
        "check_sample_weight_equivalence_on_dense_data": BATCHES,
        "check_sample_weight_equivalence_on_sparse_data": BATCHES,
    },
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.costly
def test_the_density_of_a_response(model):
    """The density integrates to one, agrees with `cdf`, and is near the true density."""
    x, _ = table(3, seed=5)
    y = np.linspace(-4.0, 4.0, 4001)
    for row in x:
        rows = np.tile(row, (len(y), 1))
        density, below = np.exp(model.log_prob(rows, y)), model.cdf(rows, y)
        assert np.trapezoid(density, y) == pytest.approx(1.0, abs=2e-3)
        assert_allclose(np.cumsum(density) * (y[1] - y[0]), below, rtol=0, atol=0.03)
    x, y = table(2000, seed=6)
    scale = 0.1 + 0.3 * (x[:, 1] > 0)
    truth = (-0.5 * np.square((y - np.sin(3.0 * x[:, 0])) / scale) - np.log(scale * np.sqrt(2.0 * np.pi))).mean()
    assert truth - 0.35 < model.score(x, y) < truth
    assert model.score(x, y) > FlowRegressor(trees=False, settings=FitSettings(epochs=1), **SHORT).fit(*table()).score(
        x, y
    )


def test_quantiles_are_the_inverse_of_the_distribution_function(model):
    x, _ = table(50, seed=2)
    levels = [0.05, 0.5, 0.9]
    found = model.predict_quantiles(x, levels)
    assert found.shape == (50, 3)
    for level, values in zip(levels, found.T, strict=True):
        assert_allclose(model.cdf(x, values), level, rtol=0, atol=1e-5)
    # The two levels, 0.5 - 0.5 * 0.9 and 0.05, differ in their last bit.
    assert_allclose(model.predict_interval(x, 0.9)[:, 0], model.predict_quantiles(x, 0.05)[:, 0], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="levels: expected numbers between 0 and 1"):
        model.predict_quantiles(x, [0.0])


@pytest.mark.costly
def test_intervals_hold_their_share_of_rows(model):
    x, y = table(2000, seed=7)
    low, high = model.predict_interval(x, 0.8).T
    assert ((low < y) & (y < high)).mean() == pytest.approx(0.8, abs=0.05)


def test_means_and_samples(model):
    x, _y = table(40, seed=3)
    drawn = model.sample(x, 4000, random_state=1)
    assert drawn.shape == (40, 4000)
    assert_allclose(drawn.mean(axis=1), model.predict(x), rtol=0, atol=0.06)
    assert_allclose(model.cdf(x, model.predict(x, point="median")), 0.5, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="point: expected"):
        model.predict(x, point="mode")
    assert_allclose(np.quantile(drawn, 0.9, axis=1), model.predict_quantiles(x, 0.9)[:, 0], rtol=0, atol=0.08)
    assert_array_equal(model.sample(x, 5, random_state=1), model.sample(x, 5, random_state=1))


@pytest.mark.costly
def test_features_of_training_rows_come_from_other_rows():
    """The response is independent of x: features from trees that were grown with a row would reveal its response."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((600, 3)), rng.standard_normal((600, 1))
    boosting, forest = Boosting(x, y, None, rng), Forest(x, y, None, 0)
    assert abs(np.corrcoef(boosting.training[:, 0], y[:, 0])[0, 1]) < 0.15
    assert np.corrcoef(boosting.features(x)[:, 0], y[:, 0])[0, 1] > 0.3
    quantiles = forest.quantiles(forest.training)
    assert abs(np.corrcoef(quantiles[:, 3], y[:, 0])[0, 1]) < 0.15
    assert (np.diff(quantiles, axis=1) >= 0.0).all()
    weights = forest.weights(x)
    assert_allclose(np.asarray(weights.sum(axis=1)).ravel(), 1.0)
    assert_allclose(weights @ y[:, 0], forest.model.predict(x))


def test_weights_of_members():
    """The member with the higher density gets most of the weight, and weights below a hundredth become 0."""
    rng = np.random.default_rng(0)
    good = rng.standard_normal(500)
    found = _weighed({"a": good, "b": good - 3.0, "c": good - 9.0}, None)
    assert found["a"] > 0.95
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.costly
def test_several_responses():
    x, y = table()
    both = np.stack([y, y + 0.1 * np.random.default_rng(1).standard_normal(len(y))], axis=1)
    model = FlowRegressor(transforms=2, **SHORT).fit(x, both)
    assert "forest" not in model.weights_
    assert model.predict(x[:4]).shape == (4, 2)
    assert_allclose(model.predict(x[:4], point="median"), model.predict_quantiles(x[:4], [0.5])[:, 0])
    assert model.predict_quantiles(x[:4], [0.1, 0.5, 0.9]).shape == (4, 3, 2)
    drawn = model.sample(x[:4], 300, random_state=0)
    assert drawn.shape == (4, 300, 2)
    assert np.corrcoef(drawn[0].T)[0, 1] > 0.5
    with pytest.raises(ValueError, match="cdf: expected a model of one response, got several"):
        model.cdf(x, y)


def test_frames_pipelines_and_clones():
    pandas = pytest.importorskip("pandas")
    x, y = table(400)
    frame = pandas.DataFrame(x, columns=["a", "b", "c"])
    frame["kind"] = np.where(x[:, 2] > 0, "high", "low")
    frame.loc[::7, "a"] = np.nan
    y = y + 2.0 * (x[:, 2] > 0)
    model = clone(FlowRegressor(**SHORT)).fit(frame, y)
    other = frame.assign(kind=np.where(x[:, 2] > 0, "low", "high"))
    assert model.score(frame, y) > model.score(other, y) + 0.5
    assert make_pipeline(StandardScaler(), FlowRegressor(trees=False, **SHORT)).fit(x, y).predict(x).shape == (400,)


@pytest.mark.filterwarnings("ignore:fit. held-out rows prefer a Gaussian")
def test_a_response_with_a_frequent_value():
    """A response with a frequent value causes a warning that names the value, at which the density has a spike."""
    x, y = table(100)
    model = FlowRegressor(trees=False, settings=FitSettings(epochs=1), **SHORT)
    words = rf"y: one value is frequent in response 1 \(0 in {(y <= 0.0).sum()} of 100 rows"
    with pytest.warns(RuntimeWarning, match=words):
        model.fit(x, np.stack([y, np.maximum(y, 0.0)], axis=1))


@pytest.mark.filterwarnings("ignore:fit. held-out rows prefer a Gaussian")
def test_responses_to_score_have_the_shape_of_the_fit():
    x, y = table(100)
    model = FlowRegressor(trees=False, settings=FitSettings(epochs=1), **SHORT).fit(x, y)
    for method in (model.log_prob, model.cdf):
        with pytest.raises(ValueError, match=r"y: expected shape \(5,\), got \(4,\)"):
            method(x[:5], y[:4])


@pytest.mark.filterwarnings("ignore:fit. held-out rows prefer a Gaussian")
def test_a_new_label_has_zeros_in_all_columns_of_its_feature():
    pandas = pytest.importorskip("pandas")
    x, y = table(100)
    frame = pandas.DataFrame({"a": x[:, 0], "kind": np.where(x[:, 2] > 0, "high", "low")})
    model = FlowRegressor(trees=False, settings=FitSettings(epochs=1), **SHORT).fit(frame, y)
    other = frame.assign(kind="odd")
    flow, raw = model.flows_["raw"], np.column_stack([x[:, 0], np.zeros((100, 2))])
    assert_array_equal(model.log_prob(other, y), flow.log_prob(y[:, None], raw))
