"""Calibration of p-values: for right densities, each test has a p-value of 0.05 or less in 5 % of cases."""

import numpy as np
import pytest

import cases
import headrace as hr
from headrace.diagnosis import bands, calibration, classifier, latent
from headrace.diagnosis.findings import holm
from headrace.diagnosis.judged_rows import Looked, opened
from headrace.diagnosis.latent import scores

stats = pytest.importorskip("scipy.stats")

SEEDS = 400
LABELS = [str(i) for i in range(4)]


def calibrated(p_values, exact=True):
    """Check shares of small p-values against limits that an exact test exceeds once in 1000 times; for a conservative
    test, check only the upper limits."""
    p_values = np.asarray(p_values)
    for level in (0.05, 0.2, 0.5):
        low, high = stats.binom.ppf([0.0005, 0.9995], p_values.size, level)
        found = (p_values <= level).sum()
        assert found <= high, f"{found} of {p_values.size} at {level}"
        assert not exact or found >= low, f"{found} of {p_values.size} at {level}"


def looked(x, context=None, training=None, training_context=None):
    names = tuple(map(str, range(x.shape[1])))
    return Looked(x, context, None, np.arange(len(x)), training, training_context, names)


def right_flow(mean, std, dtype="float64"):
    return hr.Flow([hr.transforms.Standardize(mean, std)], dtype=dtype)


LATENT = {
    # Each coordinate has three of the 12 p-values, which depend on each other, and p-values of directions that are not
    # orthogonal depend on each other: Bonferroni's correction is conservative.
    "coordinates": (lambda score, i: latent.coordinates(score, LABELS), False),
    "directions": (latent.directions, False),
    "radii": (lambda score, i: latent.radii(score), True),
    "farthest": (lambda score, i: latent.farthest(score, LABELS, np.arange(len(score))), True),
    "correlations": (lambda score, i: latent.correlations(score, LABELS)[0], False),
    "context": (
        lambda score, i: latent.dependence_on_context(
            score, cases.rng("context", i).gamma(1.0, size=(len(score), 2)), LABELS
        ),
        False,
    ),
}


@pytest.mark.parametrize("rows", [9, 120])
@pytest.mark.parametrize("name", LATENT)
def test_latent_tests(name, rows):
    test, exact = LATENT[name]
    rng = cases.rng("right rows", name, rows)
    p = [test(rng.standard_normal((rows, 4)), i).p_value for i in range(SEEDS)]
    calibrated(p, exact)
    assert np.mean(np.asarray(p) <= 0.5) > 0.1  # not all of the conservative p-values are large


BASES = {
    "normal": lambda: hr.StandardNormal(2),
    "of its own scale": lambda: hr.Normal(2, [1.0, -2.0], [0.5, 3.0]),
    "logistic": lambda: hr.Logistic(2),
    "uniform": lambda: hr.Uniform(2),
    "independent": lambda: hr.Independent(["uniform", "logistic", "normal"]),
    "student": lambda: hr.StudentT(2, [1.5, 6.0]),
    "mixture": lambda: hr.NormalMixture(
        3, 3, loc=[[-2, 0, 1], [2, 2, -1], [0, 0, 0]], scale=[[1, 0.5, 1], [0.3, 1, 1], [2, 2, 0.1]], weights=[1, 2, 3]
    ),
}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("scipy", [False, True])
def test_scores_of_bases_are_standard_normal(name, scipy, monkeypatch):
    """Scores of rows from a base are standard normal in each coordinate, and, except for mixtures, independent."""
    if not scipy:
        monkeypatch.setattr("headrace.diagnosis.latent.find_spec", lambda name: None)
    base = BASES[name]()
    labels = list(map(str, range(base.features)))
    score = scores(base, hr.Flow([], base, dtype="float64").sample(4000, seed=5), 0)
    for found in (
        latent.coordinates(score, labels),
        latent.correlations(score, labels)[0],
        latent.radii(score),
        latent.farthest(score, labels, np.arange(4000)),
    ):
        assert found.p_value > 0.003, found
    z = hr.Flow([], base, dtype="float64").sample(200, seed=6)
    first = scores(base, z, 0)[np.argsort(z[:, 0]), 0]
    assert (np.diff(first) >= 0).all()  # scores are monotone even where 1 - P is rounded to 0
    off = scores(base, 1.1 * hr.Flow([], base, dtype="float64").sample(4000, seed=5), 0)
    assert latent.coordinates(off, labels).p_value < 1e-3
    whole = hr.Flow([], base, dtype="float64")
    assert not hr.diagnose(whole, whole.sample(500, seed=1)).misses


def test_scores_of_a_trained_base_are_those_of_its_parameters():
    flow = hr.Flow([], hr.StudentT(2, 3.0), dtype="float64")
    flow.set_parameter("base.log_df", np.log([40.0, 1.0]))
    x = flow.sample(3000, seed=1)
    assert not hr.diagnose(flow, x).misses
    assert hr.diagnose(hr.Flow([], hr.StudentT(2, 3.0), dtype="float64"), x).misses


def test_scores_of_a_base_that_is_known_by_draws_alone():
    """Scores of an unknown base agree with its distribution function, up to the error of 200,000 draws."""

    class Other(hr.Logistic):
        """A base of a class that `scores` does not know."""

    z = hr.Flow([], hr.Logistic(2), dtype="float64").sample(500, seed=3)
    z[0], z[1] = 300.0, -300.0
    near, exact = scores(Other(2), z, 0), scores(hr.Logistic(2), z, 0)
    assert np.isfinite(near).all()
    middle = np.abs(exact) < 2.0
    assert np.abs(near - exact)[middle].max() < 0.03
    assert (near[0] > 4.0).all()
    assert (near[1] < -4.0).all()


def test_far_logistic_values_keep_their_probability():
    """The probability P(Z > 40) is e^-40 up to 1e-17, far below the spacing of numbers near 1."""
    score = scores(hr.Logistic(1), np.array([[40.0], [-40.0]]), 0)
    far = stats.norm.isf(np.exp(-40.0))
    np.testing.assert_allclose(score[:, 0], [far, -far], rtol=1e-10)


@pytest.mark.parametrize("conditional", [False, True])
def test_coverage(conditional):
    flow = hr.RealNVP(2, context=1, transforms=1, hidden=(4,), dtype="float64") if conditional else None
    p, regions = [], []
    for i in range(SEEDS):
        rng = cases.rng("coverage", conditional, i)
        context = rng.standard_normal((40, 1)) if conditional else None
        own = flow if conditional else right_flow([1.0, -1.0], [2.0, 0.5])
        x = own.sample(40, context, seed=rng)
        finding, region = calibration.coverage(own, looked(x, context), own.log_prob(x, context), i)
        p.append(finding.p_value)
        regions.append(region)
    calibrated(p)
    # With 16,000 values, a deviation of a hundredth would be detected.
    assert stats.kstest(np.concatenate(regions), "uniform").pvalue > 1e-3


def test_ranks_among_draws():
    flow = hr.RealNVP(2, context=2, transforms=1, hidden=(4,), dtype="float64")
    columns, points, ranks, near = [], [], [], []
    for i in range(SEEDS):
        rng = cases.rng("ranks", i)
        context = rng.standard_normal((40, 2))
        x = flow.sample(40, context, seed=rng)
        (of_columns, of_points), places, distances = calibration.calibration(flow, looked(x, context), i)
        columns.append(of_columns.p_value)
        points.append(of_points.p_value)
        ranks.append(places.ravel())
        near.append(distances)
    calibrated(points)
    calibrated(columns, exact=False)  # conservative by Bonferroni
    for uniform in (np.concatenate(ranks), np.concatenate(near)):
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_trees_take_one_thread(monkeypatch):
    """Threads of OpenMP wait for each other in a busy loop, for minutes where other processes use the cores."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    pools = pytest.importorskip("threadpoolctl")
    seen, fit = [], ensemble.HistGradientBoostingClassifier.fit

    def watched(model, *arguments):
        seen.extend(pool["num_threads"] for pool in pools.threadpool_info() if pool["user_api"] == "openmp")
        return fit(model, *arguments)

    monkeypatch.setattr(ensemble.HistGradientBoostingClassifier, "fit", watched)
    x = cases.rng("trees").standard_normal((200, 2))
    with pools.threadpool_limits(3, user_api="openmp"):
        hr.diagnose(hr.Flow([], hr.StandardNormal(2), dtype="float64"), x)
    assert seen
    assert set(seen) == {1}


def test_coverage_where_log_densities_are_equal():
    """Half of the draws have the log density of the row where a density is flat: equal values are put in a random
    order."""

    class Flat:
        """A density with two values."""

        def sample(self, shape, context, seed, dtype):
            return seed.random((*shape, 1))

        def log_prob(self, x, context=None):
            return np.floor(2.0 * np.asarray(x)[..., 0])

    p = []
    for i in range(SEEDS):
        x = cases.rng("flat", i).random((40, 1))
        p.append(calibration.coverage(Flat(), looked(x), Flat().log_prob(x), i)[0].p_value)
    calibrated(p)


def test_the_classifier_without_scikit_learn(monkeypatch):
    """Shares of 30 pairs are discrete, so that a p-value below a level is at most as frequent as that level."""
    monkeypatch.setattr(classifier, "find_spec", lambda name: None)
    flow, p = right_flow([1.0, -1.0], [2.0, 0.5]), []
    for i in range(SEEDS):
        p.append(classifier.two_samples(flow, looked(flow.sample(60, seed=i)), i)[0].p_value)
    calibrated(p, exact=False)
    assert np.mean(np.asarray(p) <= 0.6) > 0.4


@pytest.mark.long
@pytest.mark.parametrize("times", [60, pytest.param(150, marks=pytest.mark.nightly)])
def test_the_classifier_with_scikit_learn(times):
    pytest.importorskip("sklearn")
    flow, p = right_flow([1.0, -1.0], [2.0, 0.5]), []
    for i in range(times):
        p.append(classifier.two_samples(flow, looked(flow.sample(80, seed=i)), i)[0].p_value)
    calibrated(p, exact=False)


@pytest.mark.parametrize("tree", [False, True])
def test_memorised_rows(tree, monkeypatch):
    if not tree:
        monkeypatch.setattr(classifier, "find_spec", lambda name: None)
    flow, p = right_flow([1.0, -1.0], [2.0, 0.5]), []
    for i in range(SEEDS):
        x = flow.sample(150, seed=i)
        p.append(classifier.nearer(flow, looked(x[:60], training=x[60:]), i)[0].p_value)
    calibrated(p, exact=False)
    assert np.mean(np.asarray(p) <= 0.6) > 0.4


@pytest.mark.costly
def test_all_tests_together(monkeypatch):
    """At most 5 % of right densities are rejected, even with weights, by which rows are resampled."""
    monkeypatch.setattr(classifier, "find_spec", lambda name: None)
    flow, p = right_flow([1.0, -1.0], [2.0, 0.5]), []
    for i in range(250):
        x = flow.sample(220, seed=i)
        weights = cases.rng("weights", i).random(120) if i % 2 else None
        p.append(hr.diagnose(flow, x[:120], weights=weights, training=x[120:], seed=i).p_value)
    calibrated(p, exact=False)


def test_weights_make_the_density_that_they_describe():
    """Rows of N(0, 1) with the weights N(1, 1) / N(0, 1) pass as rows of N(1, 1); without the weights they do not."""
    wrong, p = 0, []
    for i in range(100):
        x = cases.rng("weighted", i).standard_normal((1500, 1))
        weights = np.exp(x[:, 0])
        rows = opened(1, 0, x, None, weights, None, None, i)
        p.append(latent.coordinates(x[rows.index] - 1.0, LABELS).p_value)
        wrong += latent.coordinates(x - 1.0, LABELS).p_value < 1e-6
        assert 20 < rows.index.size < 400
    calibrated(p, exact=False)
    assert wrong == 100


def test_bands_hold_the_whole_curve():
    at = np.linspace(0.0, 1.0, 101)
    rng = cases.rng("curves")
    for rows, curves in ((30, 1), (500, 1), (500, 5)):
        inside = sum(
            all(
                (np.abs(bands.curve(rng.random(rows)) - at) <= bands.curve_band(rows, curves)).all()
                for _ in range(curves)
            )
            for _ in range(SEEDS)
        )
        low, high = stats.binom.ppf([0.0005, 0.9995], SEEDS, 0.95)
        assert low <= inside <= (high if rows > 100 else SEEDS)  # a curve of few rows has few levels


def test_bands_hold_the_whole_histogram():
    rng = cases.rng("histograms")
    low, high = bands.histogram_band(400, 20)
    counts = rng.multinomial(400, np.full(20, 0.05), SEEDS)
    inside = ((counts >= low) & (counts <= high)).all(axis=1).sum()
    assert inside >= stats.binom.ppf(0.0005, SEEDS, 0.95)
    narrower = ((counts > low) & (counts < high)).all(axis=1).sum()
    assert narrower < stats.binom.ppf(0.9995, SEEDS, 0.95)


@pytest.mark.parametrize("histograms", [3, 40])
def test_bands_hold_all_of_several_histograms(histograms):
    low, high = bands.histogram_band(400, 20, histograms=histograms)
    counts = cases.rng("several histograms", histograms).multinomial(400, np.full(20, 0.05), (SEEDS, histograms))
    inside = ((counts >= low) & (counts <= high)).all(axis=(1, 2)).sum()
    assert inside >= stats.binom.ppf(0.0005, SEEDS, 0.95)
    alone = bands.histogram_band(400, 20)
    assert low < alone[0]
    assert alone[1] < high


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([1.0, 0.9]) == [1.0, 1.0]


def test_the_expected_interval_of_the_farthest_value():
    """The farthest of 200 values lies in the stated interval in 95 % of draws."""
    farthest = np.abs(cases.rng("farthest").standard_normal((20_000, 200))).max(axis=1)
    low, high = np.quantile(farthest, [0.025, 0.975])
    sentence = latent.farthest(np.tile([0.0, 3.0], (100, 1)), LABELS, np.arange(100)).sentence
    interval = sentence.split("where ")[1].split(" are expected")[0].split(" to ")
    assert [float(number) for number in interval] == pytest.approx([low, high], abs=0.05)


def test_p_values_of_one_latent_value_by_hand():
    """At 1.96 the p-values are 0.05 for the mean, twice 0.05 for the square, and 0.05 for A²; the least of the three
    is multiplied by three."""
    z = stats.norm.isf(0.025)
    assert latent.coordinates(np.array([[z]]), LABELS).p_value == pytest.approx(0.15, rel=1e-9)
    assert latent.farthest(np.array([[z, 0.0]]), LABELS, np.arange(1)).p_value == pytest.approx(2 * (1 - 0.95**2))
    assert latent.radii(np.array([[z, 0.0]])).p_value == pytest.approx(1 - abs(1 - 2 * np.exp(-(z**2) / 2)))
