"""Each example runs, in full or with small settings, and its claims are compared with its output."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import cases

pytestmark = [pytest.mark.programs, pytest.mark.long]

EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER = r"(-?\d+\.\d+)"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs an example as a user does, and returns its exit status and its output."""

    def go(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return end.value.code, capsys.readouterr().out

    return go


def load(name):
    """An example as a module, whose functions a test can call."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(pattern, text):
    """The numbers in a text where `pattern` has the mark #."""
    found = re.search(re.escape(pattern).replace(r"\#", NUMBER), text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return [float(group) for group in found.groups()]


def is_drawn(path, out):
    """Whether a picture was written; without Matplotlib, an example prints that it skips the picture."""
    return path.read_bytes().startswith(b"\x89PNG") if path.exists() else "picture: skipped" in out


def test_every_example_is_tested():
    files = (Path(__file__), Path(__file__).with_name("test_framework_examples.py"))
    tested = {name for f in files for name in re.findall(r'run\(\s*"(\w+)"', f.read_text(encoding="utf-8"))}
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}


def test_bounded_and_periodic(run):
    """Bounds improve the density and keep all samples inside; a Student base is better than a normal base."""
    status, out = run("bounded_and_periodic", "--epochs", 8, "--rows", 1500)
    assert status == 0, out
    free, beyond = re.search(r"any numbers +(-?[\d.]+) +([\d.]+) %", out).groups()
    known, none = re.search(r"a circle, a share, a speed +(-?[\d.]+) +([\d.]+) %", out).groups()
    assert float(known) > float(free) + 0.05
    assert float(none) == 0.0 < float(beyond)
    west, again, east = map(float, re.search(r"just east: (\S+) (\S+) (\S+)", out).groups())
    assert west == pytest.approx(again, abs=2e-3)
    assert west == pytest.approx(east, abs=2e-2)
    normal, student = (float(re.search(rf"{name} +(-?[\d.]+)", out)[1]) for name in ("StandardNormal", "StudentT"))
    assert student > normal + 0.05


def test_separate_modes(run):
    """A base with a component for each mode has no bridges between modes, unlike a normal base."""
    status, out = run("separate_modes", "--rows", 1500, "--epochs", 30)
    assert status == 0, out
    truth, normal, modes = (
        tuple(map(float, re.search(rf"{name} +(-?[\d.]+) +([\d.]+) %", out).groups()))
        for name in ("truth", "a normal base", "a base with three modes")
    )
    assert truth[0] > modes[0] > normal[0] + 0.1
    assert modes[1] < 0.2 * normal[1]
    example, rng = load("separate_modes"), cases.rng("modes")
    side = np.linspace(-9.0, 9.0, 901)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    assert np.exp(example.true_log_prob(grid)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1.0, abs=1e-3)
    assert example.share_between(example.draw_rows(20_000, rng)) < 1e-3


def test_few_rows(run):
    """A training of 200 epochs memorises few rows, and loses far more than a fit that chooses its epochs."""
    status, out = run("few_rows", "--tables", 1, "--rows", 40, 500)
    assert status == 0, out
    lost = re.findall(r"(the Gaussian|a flow, 200 epochs|a flow, as fit chooses) +(\S+) +(\S+)\n", out)
    assert len(lost) == 6
    assert float(lost[1][1]) > 2.0 * float(lost[2][1])  # the long training has memorised thirty rows
    example, rng = load("few_rows"), cases.rng("few rows")
    x, log_prob = example.bent(4, rng)
    z, z_log_prob = example.normal(4, cases.rng("few rows"))
    np.testing.assert_array_equal(log_prob, z_log_prob)  # the map keeps volumes
    np.testing.assert_allclose(x[:, 1], z[:, 1] + z[:, 0] ** 2)


def test_fit_density(run, tmp_path):
    """A flow is far better than the Gaussian after only three epochs."""
    status, out = run("fit_density", "--epochs", 3, "--output", tmp_path / "fit.png")
    assert status == 0
    assert numbers("that is # nats a star more than a Gaussian has", out)[0] > 0.7
    assert is_drawn(tmp_path / "fit.png", out)


def test_examples_need_public_names_alone():
    """An example imports only public modules of the package, so that a user can copy the script."""
    private = re.compile(
        r"\bheadrace\.\w*\b_|\b(?:headrace|hr)(?:\.\w+)*\._[a-z]|^from headrace\S* import _", re.MULTILINE
    )
    assert private.search("from headrace._cli import demo")
    assert private.search("hr.rows._csv.read()")
    assert not [path.name for path in EXAMPLES.glob("*.py") if private.search(path.read_text(encoding="utf-8"))]


def test_score_and_sample(run, tmp_path):
    status, out = run("score_and_sample", "--stars", 2000, "--dtype", "float64", "--output", tmp_path / "hr.png")
    assert status == 0
    reached, expected = numbers("mean log-likelihood # (expected #)", out)
    assert abs(reached - expected) < 2e-6
    assert is_drawn(tmp_path / "hr.png", out)


def test_conditional_density(run, tmp_path):
    """The share of 5993 stars in an interval has a standard deviation of 0.65 % if the interval's probability is 50 %,
    and of 0.39 % if the probability is 90 %."""
    status, out = run("conditional_density", "--epochs", 5, "--output", tmp_path / "density.png")
    assert status == 0
    flow, line, binned = numbers("flow #   normal around a line #   normals of 40 bins #", out)
    assert flow > binned + 0.2
    assert binned > line
    for share, tolerance in ((50, 3.0), (90, 2.0)):
        (inside,) = numbers(f"the central {share}% interval holds #%", out)
        assert abs(inside - share) < tolerance
    assert is_drawn(tmp_path / "density.png", out)


@pytest.mark.nightly  # by day, another test makes the picture in a shorter run
def test_simulation_based_inference(run):
    status, out = run("simulation_based_inference", "--epochs", 40)
    assert status == 0
    assert numbers("means apart by # standard deviations at most", out)[0] < 0.15
    least, most = numbers("variances # to # of the exact ones", out)
    assert 0.7 < least < 1.0 < most < 1.3
    divergence, error = numbers("KL(exact || flow), mean over measurements: # ± # nats", out)
    assert -3.0 * error < divergence < 0.03
    assert max(numbers("ranks of 2000 true parameters in 20 bins: χ² #, #, #", out)) < 43.8


def test_a_barely_fitted_posterior_is_detected(run, tmp_path):
    small = "--simulations", 2000, "--epochs", 1
    status, out = run("simulation_based_inference", *small, "--output", tmp_path / "posterior.png")
    assert status == 1
    assert is_drawn(tmp_path / "posterior.png", out)
    assert numbers("KL(exact || flow), mean over measurements: # ± # nats", out)[0] > 0.3


def test_the_exact_posterior_is_the_joint_density_over_the_evidence():
    """The exact log density is log p(θ) + log p(x | θ) - log p(x), by the three Gaussians of the simulator."""
    example, rng = load("simulation_based_inference"), cases.rng("posterior")
    theta, x = example.simulate(50, rng)

    def normal(away, covariance):
        square = np.einsum("ij,jk,ik->i", away, np.linalg.inv(covariance), away)
        return -0.5 * (square + np.linalg.slogdet(2.0 * np.pi * covariance)[1])

    noise = example.NOISE**2 * np.eye(example.MEASUREMENTS)
    joint = normal(theta, np.eye(example.PARAMETERS)) + normal(x - theta @ example.DESIGN.T, noise)
    evidence = normal(x, example.DESIGN @ example.DESIGN.T + noise)
    np.testing.assert_allclose(example.exact_log_prob(theta, x), joint - evidence, rtol=1e-10)


def test_uniform_ranks_pass_and_others_do_not():
    example, rng = load("simulation_based_inference"), cases.rng("ranks")
    uniform = rng.integers(0, example.DRAWS + 1, 2000)
    assert example.chi_squared(uniform) < example.CHI_SQUARED
    assert example.chi_squared(np.minimum(uniform, example.DRAWS - 10)) > example.CHI_SQUARED


def test_anomaly_scores(run, tmp_path):
    status, out = run("anomaly_scores", "--epochs", 40, "--output", tmp_path / "scores.png")
    assert status == 0
    assert is_drawn(tmp_path / "scores.png", out)
    flow, gaussian = (numbers(f"{name:8}  AUC #", out)[0] for name in ("flow", "Gaussian"))
    assert 0.78 < gaussian < 0.82  # the classes and the Mahalanobis distance do not depend on a fit
    assert flow > gaussian + 0.07


def test_missing_columns(run):
    """The share of 2000 rows in an interval of probability 90 % has a standard deviation of 0.7 %; the fit is short."""
    status, out = run("missing_columns", "--epochs", 8, "--draws", 100)
    assert status == 0
    flow, gaussian = (
        numbers(f"{name:8}  mean log density of what is missing #", out)[0] for name in ("flow", "Gaussian")
    )
    assert -18.8 < gaussian < -18.6  # the Gaussian does not depend on a fit
    assert flow > gaussian + 1.5
    shares = [float(share) for share in re.findall(r"draws in (\d+\.\d)% of rows", out)]
    assert len(shares) == 4
    assert max(abs(share - 90.0) for share in shares) < 4.0


def test_diagnosis(run, tmp_path):
    """A fit of two epochs is detected as wrong; a fit of 60 epochs passes, or nearly."""
    status, out = run("diagnosis", "--epochs", 60, "--output", tmp_path / "look.png")
    assert status == 0
    assert (tmp_path / "look.png").exists()
    short, long = (int(found) for found in re.findall(r"epochs: (\d+) of 11 tests speak against it", out))
    assert short >= 2 > long
    assert "coverage" in out[: out.index("what does not")]


def test_ensemble_spread(run):
    status, out = run("ensemble_spread", "--rows", 300, "--members", 3, "--epochs", 20)
    assert status == 0
    (truth,) = numbers("5000 new ones, # by the truth", out)
    average, best, ensemble = numbers("members # on average, the best #   ensemble #", out)
    assert truth > best >= average
    assert ensemble > average  # the ensemble is better than the average member by Jensen's inequality
    near, far = numbers("new rows #   places that no row comes from #", out)
    assert far > 3.0 * near > 0.0


def test_the_ring_s_density_is_its_own():
    """The ring's density integrates to one, and rows follow it."""
    example, rng = load("ensemble_spread"), cases.rng("ring")
    line = np.linspace(-5.0, 5.0, 1001)
    with np.errstate(divide="ignore"):
        density = np.exp(example.true_log_prob(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)))
    # The density jumps at the edges of the ring's gap, where the sum over the grid is less exact.
    assert density.sum() * (line[1] - line[0]) ** 2 == pytest.approx(1.0, abs=3e-3)
    x = example.draw_rows(20_000, rng)
    radius = np.hypot(*x.T)
    entropy = (
        0.5 * np.log(2 * np.pi * np.e)
        + np.log(example.WIDTH)
        + np.log(2 * (np.pi - example.GAP))
        + np.log(radius).mean()
    )
    assert example.true_log_prob(x).mean() == pytest.approx(-entropy, abs=0.02)


def test_the_gaussian_s_conditional_density_is_the_joint_one_s():
    example, rng = load("missing_columns"), cases.rng("conditional")
    train = rng.standard_normal((500, 10)) @ rng.standard_normal((10, 10)) + 3.0
    mean, covariance = train.mean(axis=0), np.cov(train.T)

    def normal(away, covariance):
        square = np.einsum("ij,jk,ik->i", away, np.linalg.inv(covariance), away)
        return -0.5 * (square + np.linalg.slogdet(2.0 * np.pi * covariance)[1])

    x, k = train[:50], example.KNOWN
    want = normal(x - mean, covariance) - normal(x[:, :k] - mean[:k], covariance[:k, :k])
    np.testing.assert_allclose(example.gaussian_log_prob(train, x[:, :k], x[:, k:]), want, rtol=1e-8)


@pytest.mark.nightly  # by day, another test makes the picture in a shorter run
def test_dual_ascent(run, tmp_path, monkeypatch):
    """With few rows and steps the notes' algorithm lowers the KL, and splines trained as a whole are near the truth."""
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 1000)
    status, out = run("dual_ascent", "--rows", 2000, "--steps", 40, "--output", tmp_path / "ascent.png")
    assert status == 0
    (before,) = numbers("the notes' algorithm, 0 steps: #", out)
    assert before == pytest.approx(1.0, abs=0.2)  # KL to the normal density of equal mean and deviations
    after = float(re.findall(r"the notes' algorithm, \d+ steps: (\d+\.\d+)", out)[-1])
    assert after < before - 0.2
    (lost,) = numbers("trained as a whole: #", out)
    assert lost < 0.3
    assert is_drawn(tmp_path / "ascent.png", out)


def test_the_moons_have_the_density_that_they_are_drawn_from():
    """The density integrates to one, and its mean logarithm over rows agrees with quadrature."""
    example = load("dual_ascent")
    side = np.linspace(-2.0, 3.0, 180), np.linspace(-1.5, 2.0, 180)
    grid = np.stack(np.meshgrid(*side), axis=2).reshape(-1, 2)
    log_prob = example.true_log_prob(grid)
    cell = (side[0][1] - side[0][0]) * (side[1][1] - side[1][0])
    assert np.exp(log_prob).sum() * cell == pytest.approx(1.0, abs=1e-3)
    rows = example.true_log_prob(example.draw_rows(20_000, cases.rng("moons")))
    assert rows.mean() == pytest.approx((np.exp(log_prob) * log_prob).sum() * cell, abs=4 * rows.std() / 20_000**0.5)


def test_the_area_counts_pairs():
    """Of the six pairs of scores, three are in ascending order and one has equal scores."""
    area = load("anomaly_scores").area
    assert area(np.array([1.0, 3.0, 4.0]), np.array([2.0, 4.0])) == pytest.approx(3.5 / 6)
    assert area(np.zeros(5), np.ones(3)) == 1.0


def test_the_events_are_those_of_the_telescope():
    gammas, hadrons = load("anomaly_scores").load_events()
    assert gammas.shape == (12332, 10)
    assert hadrons.shape == (6688, 10)
    for events in (gammas, hadrons):
        assert np.isfinite(events).all()
        assert events[:, 8].min() >= 0.0  # the angle alpha, in degrees
        assert events[:, 8].max() <= 90.0


@pytest.mark.nightly  # by day, another test makes the picture in a shorter run
def test_energies(run, tmp_path):
    """A flow of 2 planar transforms does not fit a ring; flows of 32 planar transforms or of networks nearly do."""
    status, out = run("energies", "--steps", 800, "--energies", "U1", "--output", tmp_path / "energies.png")
    assert status == 0
    kl = {label: numbers(f"  {label:15} KL  #", out)[0] for label in ("planar, K = 2", "planar, K = 32", "NSF")}
    assert kl["planar, K = 2"] > 0.5
    assert -0.01 < kl["planar, K = 32"] < 0.1
    assert -0.01 < kl["NSF"] < 0.2
    assert is_drawn(tmp_path / "energies.png", out)


def test_continuous_flow(run, tmp_path):
    """KL falls for the whole equation and along single directions, and the estimates of the last KL by points agree
    within four standard errors."""
    pytest.importorskip("scipy")
    status, out = run("continuous_flow", "--cells", 40, "--directions", 12, "--output", tmp_path / "flow.png")
    assert status in (0, None)
    falls = re.findall(r"KL\(rho_t \|\| mu\) (\S+) to (\S+), by points (\S+) ± (\S+)", out)
    assert len(falls) == 2
    first, last = re.search(r"a fit to 5000 rows lacks (\S+) to (\S+) after", out).groups()
    assert 0.0 < float(last) < 0.2 * float(first)
    for first, last, points, error in np.array(falls, float):
        assert last < 0.3 * first
        assert abs(points - last) < 4.0 * error
    assert is_drawn(tmp_path / "flow.png", out)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dual_ascent", ["--rows", 300, "--steps", 8]),
        ("energies", ["--steps", 20, "--energies", "U1"]),
        (
            "distillation",
            ["--epochs", 1, "--steps", 3, "--first-steps", 3, "--samples", 32, "--hidden", "8", "--drawn", 500],
        ),
    ],
)
def test_pictures_of_examples_that_run_at_night(run, tmp_path, monkeypatch, name, arguments):
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 100)
    _, out = run(name, *arguments, "--output", tmp_path / "picture.png")
    assert is_drawn(tmp_path / "picture.png", out)


@pytest.mark.nightly  # by day, another test makes the picture in a shorter run
def test_distillation(run):
    """With a tenth of the steps and a small student, every transform is near its counterpart, and the flow within a
    nat."""
    small = (
        "--epochs",
        20,
        "--steps",
        400,
        "--first-steps",
        400,
        "--samples",
        128,
        "--hidden",
        "48,48",
        "--drawn",
        5000,
    )
    status, out = run("distillation", *small)
    assert status in (0, 1)  # with few steps the result may miss the limit of 0.3 nats
    alone = numbers("each transform alone from its counterpart: #, #, #, #, # nats", out)
    assert max(alone) < 0.7
    kl, error = numbers("KL(student || teacher): # ± # nats", out)
    assert 0.0 < kl < 1.5
    assert error < 0.1
    teacher, student = (numbers(f"events held out, {name}: #", out)[0] for name in ("teacher", "student"))
    assert student > teacher - 3.0
    assert numbers("medians apart by # at most", out)[0] < 0.3
    assert re.search(r"student, IAF +[\d,]+ +[\d,]+\n", out)
    # The divergence of a fit by likelihood is finite.
    assert numbers("KL(teacher || student) #, distilled", out)[0] > 0.0


@pytest.mark.nightly  # by day, another test makes the picture in a shorter run
def test_two_moons_posterior(run):
    status, out = run("two_moons_posterior", "--epochs", 20)
    assert status == 0
    at_origin, error = numbers("KL(exact || flow) for x = 0: # ± # nats", out)
    assert -3.0 * error < at_origin < 0.3
    mean, error, prior = numbers("mean over measurements: # ± # nats, of the prior #", out)
    assert -3.0 * error < mean < 0.3
    assert prior > 5.0
    outside, upper = numbers("# outside of the prior, # in the upper crescent", out)
    assert outside < 0.02
    assert abs(upper - 0.5) < 0.1


def test_a_barely_fitted_posterior_of_the_moons_is_detected(run, tmp_path):
    small = "--simulations", 1000, "--epochs", 1
    status, out = run("two_moons_posterior", *small, "--output", tmp_path / "moons.png")
    assert status == 1
    assert is_drawn(tmp_path / "moons.png", out)
    assert numbers("mean over measurements: #", out)[0] > 1.0


def test_the_exact_posterior_of_the_moons_integrates_to_one():
    """The posterior integrates to one, even where the prior cuts the half circle; log p(x) is that of the simulator.

    A sum over 1500² cells has an error of some 5e-3 from the edges of the half circle.
    """
    example, rng = load("two_moons_posterior"), cases.rng("moons posterior")
    ticks = (np.arange(1500) + 0.5) / 750 - 1.0
    theta = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    _, measured = example.simulate(3, rng)
    edges = np.array([[0.3, 0.2], [-1.08, -0.13]])  # points of the half circle whose θ is outside of the prior
    for x in (*measured, *edges):
        assert np.isfinite(example.log_evidence(x[None])).all()
        total = np.exp(example.exact_log_prob(theta, x[None])).sum() / 750**2
        assert total == pytest.approx(1.0, abs=1e-2)
    theta, x = example.exact_sample(4000, rng), np.zeros((1, 2))
    exact = example.exact_log_prob(theta, x)
    assert np.isfinite(exact).all()
    radius_entropy = 0.5 * np.log(2.0 * np.pi * np.e) + np.log(0.01)
    # The entropy in polar coordinates is the sum of entropies of r, of a and of the two signs, and the mean of log r.
    entropy = radius_entropy + np.log(np.pi) + np.log(0.1) - 0.5 * 0.01 + np.log(2.0)
    assert -exact.mean() == pytest.approx(entropy, abs=5.0 * exact.std() / 4000**0.5)


def test_choosing(run, tmp_path):
    """The best density beats a Gaussian, the table contains all candidates, and the picture is written."""
    pytest.importorskip("matplotlib")
    status, out = run("choosing", "--rows", 1500, "--seconds", 2, "--output", tmp_path / "p.png")
    assert status == 0, out
    for name in ("MAF", "NSF", "RealNVP", "dual ascent", "Gaussian", "kernel density"):
        assert name in out
    assert "150 rows that no fit and no choice has seen" in out
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_returns(run, tmp_path):
    """On returns from a simulated GARCH process, the flow and the GARCH model are better than a normal density, and
    near each other."""
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    status, out = run("returns", "--made", "--seeds", 1, "--epochs", 60, "--output", tmp_path / "returns.png")
    assert status == 0, out
    normal, garch, flow = (
        numbers(f"  {name} #", out)[0]
        for name in ("normal density       ", "GARCH(1, 1), t       ", "WaveNet, 1 seeds    ")
    )
    assert garch > normal
    assert flow > normal
    assert flow > garch - 0.05
    assert is_drawn(tmp_path / "returns.png", out)


def test_made_returns_have_the_variance_of_their_process():
    """The mean variance is 0.02 / (1 - 0.1 - 0.88) = 1; returns of successive days are uncorrelated, and their sizes
    are not."""
    r = load("returns").made_returns(100_000, seed=0)
    assert r.var() == pytest.approx(1.0, abs=0.1)
    assert np.mean(r[1:] * r[:-1]) == pytest.approx(0.0, abs=0.03)
    assert np.corrcoef(np.abs(r[1:]), np.abs(r[:-1]))[0, 1] > 0.1


def test_seismometer(run, tmp_path):
    """On simulated noise the flow learns the spectrum, against which a weak oscillation stands out."""
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    status, out = run("seismometer", "--made", "--epochs", 2, "--output", tmp_path / "s.png")
    assert status == 0, out
    flow, usual = (numbers(f"  {name}AUC #", out)[0] for name in ("flow      ", "STA/LTA   "))
    assert flow > max(usual, 0.8)
    assert is_drawn(tmp_path / "s.png", out)


def test_the_area_of_windows_and_means_before():
    example = load("seismometer")
    assert example.area(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    np.testing.assert_allclose(example.mean_before(np.array([2.0, 4.0, 6.0]), 2), [1.0, 3.0, 5.0])
    x = example.made_noise(60_000, seed=1)
    noisy, places = example.with_events(x, seed=2)
    assert len(places) == example.EVENTS
    changed = np.flatnonzero(noisy != x)
    assert np.isin(changed // (5 * example.WINDOW), places // (5 * example.WINDOW)).all()


def test_speech(run, tmp_path):
    """On simulated signals a linear prediction is good, and a flow also learns the two scales of the noise."""
    pytest.importorskip("matplotlib")
    status, out = run("speech", "--made", "--recordings", 4, "--epochs", 2, "--output", tmp_path / "speech.png")
    assert status == 0, out
    names = "independent, normal", "linear prediction", "WaveNet"
    normal, linear, reached = (float(re.search(rf"{name} +([\d.]+)", out)[1]) for name in names)
    assert normal > linear > reached
    assert is_drawn(tmp_path / "speech.png", out)
