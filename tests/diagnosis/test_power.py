"""Planted misfits of known size are found by the tests that look for them, and named."""

import numpy as np
import pytest

import cases
import headrace as hr

ROWS = 5000


def standard(features, **options):
    return hr.Flow([hr.transforms.Standardize(np.zeros(features), np.ones(features))], dtype="float64", **options)


def normal_rows(*name, rows=ROWS, features=4):
    return cases.rng("power", *name).standard_normal((rows, features))


def by_name(diagnosis, name):
    return next(one for one in diagnosis.tests if one.name == name)


def test_a_right_density_passes():
    diagnosis = hr.diagnose(standard(4), normal_rows("right"), training=normal_rows("right", "training"))
    assert diagnosis.misses == ()
    assert diagnosis.p_value > 0.05
    assert "Nothing speaks against it at the 5 % level" in diagnosis.verdict
    assert diagnosis.grade == "very good"


def test_a_scale_that_is_10_percent_off():
    """The deviation of 5000 rows has a standard error of 1 %: the fault of 10 % is ten standard errors."""
    x = normal_rows("scale", 0) * [1.0, 1.0, 1.1, 1.0]
    diagnosis = hr.diagnose(standard(4), x, seed=0)
    assert by_name(diagnosis, "latent coordinates").p_value < 1e-12
    assert diagnosis.verdict.count("Least right: column 2, whose spread is ") == 1
    assert diagnosis.grade == "very good"


def test_a_missed_correlation_of_a_tenth():
    """A correlation of 5000 rows has a standard error of 0.014: the fault of 0.1 is about seven standard errors."""
    x = normal_rows("correlation", 0)
    x[:, 3] = 0.1 * x[:, 1] + np.sqrt(0.99) * x[:, 3]
    found = by_name(hr.diagnose(standard(4), x, seed=0), "independence")
    assert found.misses
    assert found.p_value < 1e-4
    assert "latent column 1 and latent column 3 have correlation 0." in found.sentence


def test_a_shift_of_a_tenth():
    x = normal_rows("shift") + np.array([0.0, 0.1, 0.0, 0.0])
    found = by_name(hr.diagnose(standard(4), x), "latent coordinates")
    assert found.misses
    assert "latent column 1 has mean 0." in found.sentence


@pytest.mark.costly
def test_a_uniform_coordinate_of_mean_0_and_deviation_1():
    """A uniform coordinate with the mean and the spread of a normal one differs in its shape."""
    x = normal_rows("shape")
    x[:, 0] = cases.rng("uniform").uniform(-np.sqrt(3.0), np.sqrt(3.0), ROWS)
    found = by_name(hr.diagnose(standard(4), x), "latent coordinates")
    assert found.p_value < 1e-12
    assert "lie in the middle half" in found.sentence


@pytest.mark.costly
def test_dependence_of_sizes_and_of_a_bend():
    x = normal_rows("sizes")
    scale = np.exp(0.3 * (np.abs(x[:, 0]) - 0.8))
    x[:, 1] *= scale / np.sqrt(np.square(scale).mean())
    found = by_name(hr.diagnose(standard(4), x), "independence")
    assert found.p_value < 1e-6
    assert "the sizes of latent column 0 and latent column 1" in found.sentence
    x = normal_rows("bend")
    x[:, 2] = 0.2 * (np.square(x[:, 0]) - 1.0) / np.sqrt(2.0) + np.sqrt(0.96) * x[:, 2]
    found = by_name(hr.diagnose(standard(4), x), "independence")
    assert found.p_value < 1e-6
    assert "latent column 2 and the size of latent column 0" in found.sentence


def test_heavy_tails_are_far_rows():
    x = normal_rows("tails")
    x[77, 3] = 7.0
    diagnosis = hr.diagnose(standard(4), x)
    assert by_name(diagnosis, "farthest number").p_value < 1e-6
    assert "latent column 3 of row 77" in by_name(diagnosis, "farthest number").sentence
    assert (diagnosis.worst[0].row, diagnosis.worst[0].coordinate, diagnosis.worst[0].value) == (77, 3, 7.0)


def test_a_mixture_along_no_coordinate():
    """The rows are two clusters along the diagonal of four columns, whose marginals are nearly normal."""
    x = normal_rows("clusters")
    side = np.where(cases.rng("sides").random(ROWS) < 0.5, 1.0, -1.0)
    along = np.full(4, 0.5)
    x += np.outer(0.9 * side + (np.sqrt(1 - 0.81) - 1.0) * (x @ along), along)
    diagnosis = hr.diagnose(standard(4), x)
    assert by_name(diagnosis, "random directions").misses
    assert by_name(diagnosis, "distance from the middle").misses


@pytest.mark.costly
def test_context_that_the_density_does_not_use():
    rng = cases.rng("ignored")
    context = rng.gamma(1.0, size=(ROWS, 2))
    x = rng.standard_normal((ROWS, 3))
    x[:, 1] = 0.1 * (context[:, 1] - 1.0) + np.sqrt(0.99) * x[:, 1]
    flow = hr.RealNVP(3, context=2, transforms=1, hidden=(4,), dtype="float64")
    flow.parameters = np.zeros(flow.parameters.size)
    diagnosis = hr.diagnose(flow, x, context)
    found = by_name(diagnosis, "dependence on the context")
    assert found.p_value < 1e-5
    assert "context column 1" in found.sentence
    right = hr.diagnose(flow, normal_rows("used", features=3), context)
    assert right.misses == ()
    # The test of the context does not find a shift, which is a fault of another kind.
    shifted = hr.diagnose(flow, normal_rows("used", features=3) + 1.0, context)
    assert not by_name(shifted, "dependence on the context").misses


def without_context(features, context):
    """A standard normal density that takes context and ignores it."""
    flow = hr.RealNVP(features, context=context, transforms=1, hidden=(4,), dtype="float64")
    flow.parameters = np.zeros(flow.parameters.size)
    return flow


def test_ranks_of_a_column_that_is_too_wide():
    """The flow's deviation of column 1 is 15 % too small: values lie too often outside of the middle of draws."""
    rng = cases.rng("wide")
    x, context = rng.standard_normal((2000, 3)) * [1.0, 1.15, 1.0], rng.standard_normal((2000, 1))
    diagnosis = hr.diagnose(without_context(3, 1), x, context, names=["a", "b", "c"])
    found = by_name(diagnosis, "ranks among draws")
    assert found.p_value < 1e-3
    assert found.sentence.startswith("column b lies below the middle of draws")
    counts, (low, high) = diagnosis.column_histogram("b")
    assert counts.sum() == 2000
    assert max(counts[0], counts[-1]) > high
    counts, (low, high) = diagnosis.column_histogram(2)
    assert low <= counts.min() <= counts.max() <= high
    with pytest.raises(ValueError, match="one of 'a', 'b', 'c', got 'd'"):
        diagnosis.column_histogram("d")
    with pytest.raises(ValueError, match="with context"):
        hr.diagnose(standard(3), x[:50]).column_histogram(0)


def test_distances_see_a_context_that_is_ignored():
    """The prior in place of a posterior has right shares of all regions and right ranks."""
    rng = cases.rng("prior")
    context = rng.standard_normal((2000, 2))
    x = np.sqrt(0.5) * (context + rng.standard_normal((2000, 2)))
    for seed in range(3):
        diagnosis = hr.diagnose(without_context(2, 2), x, context, seed=seed)
        assert by_name(diagnosis, "distance to random points").p_value < 1e-6
        assert by_name(diagnosis, "ranks among draws").p_value > 0.001
        assert by_name(diagnosis, "coverage").p_value > 0.001


def test_coverage_of_a_density_that_is_too_narrow():
    """If deviations are 10 % too small, regions that should contain 90 % of the rows contain 86 %."""
    x = normal_rows("narrow") * 1.1
    diagnosis = hr.diagnose(standard(4), x)
    found = by_name(diagnosis, "coverage")
    assert found.p_value < 1e-6
    held = (diagnosis.regions <= 0.9).mean()
    chi = np.square(normal_rows("narrow") * 1.1).sum(axis=1) <= 7.779  # the 90 % quantile of χ² with df = 4
    assert held == pytest.approx(chi.mean(), abs=0.03)
    assert f"50 % and 90 % of the rows hold {(diagnosis.regions <= 0.5).mean():.1%} and {held:.1%}" in found.sentence


@pytest.mark.costly
@pytest.mark.parametrize("trees", [False, True])
def test_a_classifier_recognises_rows_of_another_density(trees, monkeypatch):
    if trees:
        pytest.importorskip("sklearn")
    else:
        monkeypatch.setattr("headrace.diagnosis.classifier.find_spec", lambda name: None)
    x = normal_rows("bent", features=2)
    x[:, 1] = 0.6 * (np.square(x[:, 0]) - 1.0) + 0.5 * x[:, 1]
    flow = hr.Flow([hr.transforms.Standardize(x.mean(axis=0), x.std(axis=0))], dtype="float64")
    found = by_name(hr.diagnose(flow, x), "classifier")
    assert found.p_value < 1e-12
    assert "knows the row in" in found.sentence


@pytest.mark.parametrize("tree", [False, True])
def test_memorised_rows(tree, monkeypatch):
    """A density of narrow kernels at the 100 training rows is found to memorise rows, and the right density is not."""
    if not tree:
        monkeypatch.setattr("headrace.diagnosis.classifier.find_spec", lambda name: None)
    training, x = normal_rows("memory", rows=100, features=2), normal_rows("new", rows=300, features=2)
    kernels = hr.Ensemble(
        [hr.Flow([hr.transforms.Standardize(row, [0.01, 0.01])], dtype="float64") for row in training]
    )
    diagnosis = hr.diagnose(kernels, x, training=training)
    found = by_name(diagnosis, "memorised rows")
    assert found.p_value < 1e-30
    assert "in 9" in found.sentence or "in 100.0%" in found.sentence
    assert diagnosis.copies == 0
    assert not by_name(hr.diagnose(standard(2), x, training=training), "memorised rows").misses


def test_training_rows_among_those_held_out_are_counted():
    training = normal_rows("leak", rows=200, features=2)
    x = np.concatenate([normal_rows("fresh", rows=100, features=2), training[:30]])
    diagnosis = hr.diagnose(standard(2), x, training=training)
    assert diagnosis.copies == 30
    assert "30 rows of x can be found in the training rows" in str(diagnosis)


def test_a_fit_to_few_rows_is_found_out_and_one_to_many_is_not():
    """After a short fit the latent rows of a flow are wrong; the true density of the same rows passes."""
    rng = cases.rng("real fit")
    mixing = np.array([[1.0, 0.0], [0.8, 0.6]])
    rows = rng.standard_normal((4000, 2)) @ mixing.T
    flow = hr.RealNVP(2, transforms=2, hidden=(8,), dtype="float64")
    flow.fit(rows[:40], epochs=1, progress=False)
    assert hr.diagnose(flow, rows[2000:]).misses
    truth = hr.Flow([hr.transforms.Linear.from_matrix(mixing)], dtype="float64")
    assert not hr.diagnose(truth, rows[2000:]).misses
