"""The algorithm of the notes: sums of a step, kinks and bounds, and whole ascents against a plain loop."""

import numpy as np
import pytest

import cases
import headrace as hr
from ascent_cases import bent, every_rule, standardised
from headrace._core import cpu
from headrace.ops._points import Points
from reference import ascent


def test_points_in_float32_and_float64_agree():
    """A step's map, rotation and sums equal those of NumPy in float64; float32 differs by some roundings."""
    g = cases.rng("points")
    x, weights = g.standard_normal((100, 3)), g.random(100)
    maps = np.stack([g.uniform(-0.9, 0.9, 3), g.standard_normal(3), g.uniform(0.01, 1, 3)], axis=1)
    matrix, bias = g.standard_normal((3, 3)), g.standard_normal(3)
    next = np.stack([g.standard_normal(3), g.uniform(0.01, 1, 3)], axis=1)
    r = np.sqrt(maps[:, 2] + (x - maps[:, 1]) ** 2)
    want = (x + maps[:, 0] * r) @ matrix.T + bias
    want_log = 0.5 + np.log(1 + maps[:, 0] * (x - maps[:, 1]) / r).sum(1)
    r = np.sqrt(next[:, 1] + (want - next[:, 0]) ** 2)
    terms = [want, want**2, r, want * r, (want - next[:, 0]) / r, 1 / r**2]
    want_sums = np.stack([(weights[:, None] * term).sum(0) for term in terms], axis=1)
    for kind, relative in ((np.float64, 1e-12), (np.float32, 2e-4)):
        points = Points(x, weights, kind)
        sums = points.step(maps, 0.5, [matrix], bias, next)
        assert points.values().dtype == kind
        assert sums.dtype == np.float64
        np.testing.assert_allclose(points.values(), want, rtol=relative, atol=relative)
        np.testing.assert_allclose(points.log_jacobian(), want_log, rtol=relative, atol=relative)
        np.testing.assert_allclose(sums, want_sums, rtol=relative, atol=relative)
        assert points.step(maps, 0.5, [matrix], bias) is None
    assert x is not points.values()


@every_rule
@pytest.mark.parametrize("precision", [1.0, 2.5])
@pytest.mark.parametrize("features", [1, 3])
def test_same_seeds_give_the_numbers_of_the_plain_loop(rule, precision, features):
    """Rounding grows by less than a factor of 10 a step: a tolerance of 1e-9 leaves room after 30 steps."""
    x = bent(400, features)
    model = hr.DualAscentFlow.notes(precision, 30, rule=rule, neighbours=100.0, seed=7, dtype="float64")
    flow = model.fit(x, validation=None, progress=False)
    z, log_jacobian, likelihoods = ascent.ascend(standardised(x, precision), 30, 7, precision, 100.0, rule)
    got, log_det = flow.to_latent(x)
    scaled = -np.log(x.std(0) * np.sqrt(precision)).sum()
    np.testing.assert_allclose(got, z, atol=1e-9)
    np.testing.assert_allclose(log_det, log_jacobian + scaled, atol=1e-9)
    np.testing.assert_allclose(model.history.log_likelihood, likelihoods + scaled, atol=1e-9)


@pytest.mark.parametrize("precision", [1.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_and_curvature_are_those_of_differences(precision, weighted):
    """Derivatives of the likelihood follow from the six sums; central differences of 1e-4 have errors of about 1e-7."""
    g = cases.rng("curvature")
    x, weights = g.gamma(2.0, size=(500, 1)) - 1.5, g.random(500) if weighted else None
    center, epsilon = 0.4, 0.3
    next = np.array([[center, epsilon**2]])
    identity = np.array([[0.0, 0.0, 1.0]])
    sums = Points(x, weights, np.float64).step(identity, 0.0, [np.eye(1)], np.zeros(1), next)
    total = 500.0 if weights is None else weights.sum()
    gradient, slopes, values = ascent.derivatives(x[:, 0], center, epsilon, precision, weights)
    x_mean, xx, r, xr, q, inverse = sums[0] / total
    np.testing.assert_allclose(gradient, [1 - precision * xx, -precision * x_mean, q - precision * xr], atol=1e-12)
    rr, qq = epsilon**2 + xx - 2 * center * x_mean + center**2, 1 - epsilon**2 * inverse
    np.testing.assert_allclose(slopes, [[1, 0, q], [0, 0, 0], [q, 0, qq]], atol=1e-12)
    np.testing.assert_allclose(values / precision, [[xx, x_mean, xr], [x_mean, 1, r], [xr, r, rr]], atol=1e-12)

    def at(moved):
        return ascent.likelihood(*moved, x[:, 0], center, epsilon, precision, weights)

    h, start = 1e-4, np.array([1.0, 0.0, 0.0])
    steps = h * np.eye(3)
    first = [(at(start + s) - at(start - s)) / (2 * h) for s in steps]
    second = [
        [(at(start + s + t) - at(start + s - t) - at(start - s + t) + at(start - s - t)) / (4 * h * h) for t in steps]
        for s in steps
    ]
    np.testing.assert_allclose(gradient, first, atol=1e-6)
    np.testing.assert_allclose(-(slopes + values), second, atol=1e-5)
    assert np.linalg.eigvalsh(slopes + values).min() > 0


@every_rule
def test_no_step_makes_the_likelihood_less_than_its_bound(rule):
    """The bound of a step comes from sums, for data from nearly normal to two far points, and any center and width."""
    g = cases.rng("bound")
    longest = 0.0
    for trial in range(200):
        kind = trial % 4
        x = (g.standard_normal(300), g.gamma(0.3, size=300), g.choice([-1.0, 1.2], 300), g.standard_t(1.5, 300))[kind]
        x = (x - x.mean()) / x.std() * g.choice([0.2, 1.0, 4.0]) + g.choice([0.0, 2.0])
        center, epsilon = g.standard_normal(), 10 ** g.uniform(-2.5, 0)
        next = np.array([[center, epsilon**2]])
        sums = Points(x[:, None], None, np.float64).step(
            np.array([[0.0, 0.0, 1.0]]), 0.0, [np.eye(1)], np.zeros(1), next
        )
        a, b, c, *_, least = cpu.choose_kinks(sums, next, 1.0, 300.0, rule)[0]
        np.testing.assert_allclose((a, b, c), ascent.chosen(x, center, epsilon, 1.0, rule), rtol=1e-3, atol=1e-3)
        gain = ascent.likelihood(a, b, c, x, center, epsilon, 1.0) - ascent.likelihood(1, 0, 0, x, center, epsilon, 1.0)
        assert least >= 0
        assert gain >= least - 1e-12
        assert abs(c) < a
        longest = max(longest, abs(a - 1) + abs(c))
    assert longest > 0.5  # the bound was positive for some steps


@every_rule
@pytest.mark.parametrize("kinks", [1, 3])
def test_the_likelihood_of_the_rows_grows_in_every_step(rule, kinks):
    model = hr.DualAscentFlow.notes(steps=60, rule=rule, kinks=kinks, dtype="float64")
    model.fit(bent(), validation=None, progress=False)
    gains = np.diff(model.history.log_likelihood)
    assert len(gains) == 60
    assert gains.min() >= -1e-13
    assert gains.sum() > 0.1


def test_a_normal_density_has_no_kink_to_gain():
    """Quantiles of N(0, 1/λ) satisfy Stein's identities: ⟨x⟩ = 0, λ⟨x²⟩ = 1, ⟨q⟩ = λ⟨x r⟩ for any center and width."""
    from statistics import NormalDist

    precision, share = 2.5, (np.arange(200_000) + 0.5) / 200_000
    x = np.array([NormalDist().inv_cdf(s) for s in share])[:, None] / np.sqrt(precision)
    for center, epsilon in [(0.0, 0.1), (0.7, 0.5), (-2.0, 0.02)]:
        next = np.array([[center, epsilon**2]])
        sums = Points(x, None, np.float64).step(np.array([[0.0, 0.0, 1.0]]), 0.0, [np.eye(1)], np.zeros(1), next)
        a, b, c = cpu.choose_kinks(sums, next, precision, float(len(x)), "gradient")[0, :3]
        assert np.abs([a - 1, b, c]).max() < 1e-4  # finitely many quantiles miss the tails


def test_at_convergence_steins_identities_hold_for_the_rows():
    """After a long ascent of one coordinate the gradient of any kink wide enough is less than the noise of the rows."""
    x = bent(2000, 1)
    flow = hr.DualAscentFlow.notes(steps=400, dtype="float64").fit(x, validation=None, progress=False)
    z = flow.to_latent(x)[0]
    assert abs(z.mean()) < 5e-3
    assert abs((z**2).mean() - 1.0) < 5e-3
    for center in (-1.0, 0.0, 1.0):
        r = np.hypot(0.5, z - center)
        gradient = ascent.derivatives(z[:, 0], center, 0.5, 1.0)[0]
        assert np.abs(gradient).max() < 1 / np.sqrt(2000)
        assert abs(((z - center) / r - z * r).mean()) < 1 / np.sqrt(2000)


def test_the_width_holds_its_neighbours():
    """The width ε of a kink contains its neighbours: rows of a normal density within ε of the center."""
    x = cases.rng("width").standard_normal(1_000_000)
    for center in (0.0, 1.0, -2.0):
        epsilon = cpu.kink_square(center, 1.0, 2000.0 / 2e6) ** 0.5
        assert (np.abs(x - center) < epsilon).sum() == pytest.approx(2000, rel=0.1)
        scaled = cpu.kink_square(center / 2, 4.0, 2000.0 / 2e6) ** 0.5
        assert scaled == pytest.approx(max(epsilon / 2, 2e-3))
        assert scaled == pytest.approx(ascent.width(center / 2, 1e6, 4.0, 2000.0), rel=1e-12)
    assert cpu.kink_square(30.0, 1.0, 2000.0 / 2e6) == 1.0
