"""Tests of ``fit_to_density``: results, gradients, kept and skipped steps, and its estimates."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from headrace.variational.descent import PathStep
from headrace.variational.target import Contexts
from targets import COVARIANCE, MEAN, QUIET, SHORT, normal, plan_of

NO_CONTEXT = Contexts()

# --- results --------------------------------------------------------------------------------------------------------


def test_one_linear_iaf_fits_a_correlated_gaussian_exactly(dtype):
    """The family contains the optimum, at which the gradients' noise vanishes: the remaining error is from rounding and
    the last steps.

    A KL is proportional to the square of the weights' error: a KL of 1e-5 stands for errors of some 3e-3.
    """
    flow = hr.IAF(2, transforms=1, hidden=(), dtype=dtype)
    fit = hr.fit_to_density(flow, normal(log_z=3.0), steps=2000, samples=64, learning_rate=0.02, **QUIET)
    assert abs(fit.final.free_energy + 3.0) < 1e-5
    assert fit.final.standard_error < 1e-4
    assert_allclose(fit.final.log_z, 3.0, atol=1e-5)
    assert fit.final.effective_samples > 0.999 * fit.final.samples
    assert fit.history.stopped == "steps"
    x = flow.sample(200_000, seed=1).astype("float64")
    assert_allclose(x.mean(axis=0), MEAN, atol=0.02)  # the limit is five standard errors
    assert_allclose(np.cov(x.T), COVARIANCE, atol=0.04)


BUILDERS = {
    "MAF": lambda **k: hr.MAF(2, transforms=3, hidden=(24, 24), activation="silu", **k),
    "IAF": lambda **k: hr.IAF(2, transforms=3, hidden=(24, 24), activation="silu", **k),
    "RealNVP": lambda **k: hr.RealNVP(2, transforms=6, hidden=(24, 24), activation="silu", **k),
    "NSF": lambda **k: hr.NSF(2, transforms=3, hidden=(24, 24), **k),
    "NSF of couplings": lambda **k: hr.NSF(2, coupling=True, transforms=4, hidden=(24, 24), **k),
    "logistic base": lambda **k: hr.RealNVP(
        2, transforms=6, hidden=(24, 24), activation="silu", base=hr.Logistic(2), **k
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDERS)
def test_every_kind_of_flow_learns_a_bent_density(name):
    """For comparison, a Gaussian that is fitted to U2 has a KL of 0.7."""
    density = hr.densities.U2()
    flow = BUILDERS[name](seed=2)
    fit = hr.fit_to_density(flow, density, steps=1500, samples=128, learning_rate=5e-3, **QUIET)
    assert -0.001 < fit.final.free_energy + density.log_z < 0.15
    assert abs(fit.final.log_z - density.log_z) < 0.15


def test_muon_takes_the_steps_where_it_is_named(monkeypatch):
    steps, step = [], hr.Adam.step
    monkeypatch.setattr(hr.Adam, "step", lambda one, gradient: steps.append(type(one)) or step(one, gradient))
    density = hr.densities.U2()
    for name, kind in (("adam", hr.Adam), ("muon", hr.Muon)):
        steps.clear()
        flow = BUILDERS["NSF"](seed=2)
        fit = hr.fit_to_density(flow, density, optimizer=name, steps=200, samples=64, evaluated=8000, **QUIET)
        assert set(steps) == {kind}
        assert fit.final.free_energy < fit.history.free_energy[0] - 0.2
    with pytest.raises(ValueError, match="optimizer: expected one of 'adam', 'muon', got 'sgd'"):
        hr.fit_to_density(flow, density, optimizer="sgd", steps=1, **QUIET)


@pytest.mark.parametrize("estimator", ["sticking_the_landing", "plain"])
def test_a_trainable_base_alone_finds_mean_and_deviations(estimator):
    target = normal([3.0, -1.0], np.diag([4.0, 0.25]))
    flow = hr.Flow([], hr.Normal(2), dtype="float64")
    fit = hr.fit_to_density(flow, target, estimator=estimator, steps=3000, samples=64, learning_rate=0.02, **QUIET)
    assert abs(fit.final.free_energy) < (1e-6 if estimator == "sticking_the_landing" else 1e-3)
    assert_allclose(flow.base.loc, [3.0, -1.0], atol=0.03)
    assert_allclose(flow.base.scale, [2.0, 0.5], rtol=0.03)


@pytest.mark.long
def test_kl_on_u1_by_importance_sampling_agrees_with_quadrature():
    """KL by the trapezoidal rule on 601 x 601 points of [-6, 6]² agrees with that of 65,536 samples."""
    density = hr.densities.U1()
    flow = hr.RealNVP(2, transforms=6, hidden=(24, 24), activation="silu", dtype="float64", seed=2)
    fit = hr.fit_to_density(flow, density, steps=400, **QUIET)
    ticks = np.linspace(-6.0, 6.0, 601)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    log_q, log_p = flow.log_prob(grid), density.log_density(grid) - density.log_z
    cell = (ticks[1] - ticks[0]) ** 2
    assert abs(np.exp(log_q).sum() * cell - 1.0) < 1e-4  # quadrature errs at steep folds of the flow
    kl = (np.exp(log_q) * (log_q - log_p)).sum() * cell
    assert kl > 0.01
    assert abs(fit.final.free_energy + density.log_z - kl) < 4.0 * fit.final.standard_error
    assert abs(fit.final.kl - kl) < 4.0 * fit.final.kl_error + 4.0 * fit.final.log_z_error
    assert abs(fit.final.log_z - density.log_z) < 4.0 * fit.final.log_z_error


# --- gradients ------------------------------------------------------------------------------------------------------


def gradients(flow, density, landing, beta=1.0, repeats=40, samples=2000):
    """Independent estimates of the gradient, shape (repeats, n)."""
    step = PathStep(
        flow, lambda x, _: density(x), NO_CONTEXT, plan_of(flow, samples), np.random.default_rng(0), landing=landing
    )
    return np.array([step(0, beta).gradient.copy() for _ in range(repeats)])


@pytest.mark.long
@pytest.mark.parametrize("build", ["MAF", "IAF", "NSF"])
@pytest.mark.parametrize("landing", [True, False], ids=["landing", "plain"])
def test_gradients_are_unbiased(build, landing):
    """Gradients agree with differences of the free energy by quadrature, within 5 standard errors of 80,000 samples.

    The trapezoidal rule converges fast for functions that fall like a normal density; kinks of networks and splines
    leave an error of some 1e-3 at its 400² points.
    """
    flow = cases.randomise(BUILDERS[build](dtype="float64"), 0.15)
    density, beta = hr.densities.U2(), 0.7
    points = np.linspace(-7.0, 7.0, 400)
    noise = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    share = np.exp(-0.5 * np.square(noise).sum(axis=1)) / (2.0 * np.pi) * (points[1] - points[0]) ** 2

    def free_energy(parameters):
        x, log_det = flow.to_data(noise, parameters=parameters)
        return float((share * (-log_det - beta * density.log_density(x))).sum())

    found = gradients(flow, density, landing, beta)
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(found))
    chosen = cases.rng("chosen", build).choice(np.flatnonzero(error), 4, replace=False)
    for i in chosen:
        move = np.zeros_like(flow.parameters)
        move[i] = 1e-4
        want = (free_energy(flow.parameters + move) - free_energy(flow.parameters - move)) / 2e-4
        assert abs(mean[i] - want) < 5.0 * error[i] + 2e-3 * max(1.0, abs(want))


def test_sticking_the_landing_has_no_noise_where_the_flow_is_the_density():
    flow = cases.randomise(BUILDERS["IAF"](dtype="float64"), 0.1)
    other = flow.astype("float64")
    landing = gradients(flow, other.log_prob_and_score, landing=True, repeats=3, samples=200)
    plain = gradients(flow, other.log_prob_and_score, landing=False, repeats=3, samples=200)
    assert np.abs(landing).max() < 1e-12
    assert np.abs(plain).max() > 1e-2


# --- reproducibility ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(dtype, set_threads):
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        flow = BUILDERS["RealNVP"](dtype=dtype)
        settings = QUIET | {"steps": 5, "samples": 300, "evaluated": 1000, "seed": 4}
        results.append((hr.fit_to_density(flow, hr.densities.U1(), **settings), flow.parameters))
    (first, parameters), *others = results
    for fit, other in others:
        cases.assert_same_bits(other, parameters)
        assert fit.history.free_energy == first.history.free_energy
        assert fit.final == first.final


def test_different_seeds_differ():
    found = [hr.fit_to_density(BUILDERS["IAF"](), hr.densities.U1(), seed=s, **SHORT).history for s in (0, 1)]
    assert found[0].free_energy != found[1].free_energy


def test_the_history_is_of_each_step():
    settings = SHORT | {"steps": 10, "annealing": (0.2, 0.5), "learning_rate": 1e-3}
    history = hr.fit_to_density(BUILDERS["IAF"](), hr.densities.U1(), **settings).history
    for values in (history.free_energy, history.standard_error, history.skipped, history.seconds):
        assert len(values) == len(history) == 10
    assert_allclose(history.beta, np.minimum(1.0, 0.2 + np.arange(10) / 5.0))
    assert history.learning_rate[0] == 1e-3
    assert_allclose(history.learning_rate[5], 5e-4)
    assert (np.diff(history.seconds) > 0).all()
    constant = hr.fit_to_density(BUILDERS["IAF"](), hr.densities.U1(), **(settings | {"schedule": "constant"}))
    assert set(constant.history.learning_rate) == {1e-3}


def test_the_first_free_energy_is_that_of_the_given_flow():
    flow = BUILDERS["IAF"](dtype="float64")
    before = hr.free_energy(flow, hr.densities.U1(), samples=100_000, seed=5)
    history = hr.fit_to_density(flow, hr.densities.U1(), **(SHORT | {"samples": 20_000, "steps": 1})).history
    assert abs(history.free_energy[0] - before.free_energy) < 5.0 * history.standard_error[0]


def test_a_density_may_change_and_keep_its_arguments():
    kept, flows = [], [BUILDERS["IAF"](), BUILDERS["IAF"]()]

    def greedy(x):
        kept.append(x)
        found = normal()(x)
        x[:] = 0.0
        return found

    for flow, density in zip(flows, (normal(), greedy), strict=True):
        hr.fit_to_density(flow, density, **SHORT)
    cases.assert_same_bits(flows[0].parameters, flows[1].parameters)
    assert not any(x.any() for x in kept)


# --- PyTorch and JAX ------------------------------------------------------------------------------------------------


def installed(name):
    try:
        importlib.import_module(name)
    except ImportError:
        missing = True
    else:
        missing = False
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def torch_normal(x):
    import torch

    away = x - torch.tensor(MEAN, dtype=x.dtype)
    return -0.5 * (away @ torch.tensor(np.linalg.inv(COVARIANCE), dtype=x.dtype) * away).sum(dim=1)


def jax_normal(x):
    import jax.numpy as jnp

    away = x - jnp.asarray(MEAN, x.dtype)
    return -0.5 * (away @ jnp.asarray(np.linalg.inv(COVARIANCE), x.dtype) * away).sum(axis=1)


@pytest.mark.parametrize(
    ("gradient", "function"),
    [
        pytest.param("torch", torch_normal, marks=installed("torch")),
        pytest.param("jax", jax_normal, marks=installed("jax")),
    ],
)
def test_frameworks_compute_the_gradient(gradient, function):
    """Frameworks compute in float32, so that a few steps agree with NumPy's float64 gradients to some 1e-5."""
    fits = []
    for kind, target in ((gradient, function), ("returned", normal())):
        flow = BUILDERS["IAF"]()
        fits.append((hr.fit_to_density(flow, target, gradient=kind, **SHORT), flow.parameters))
    (one, one_parameters), (other, other_parameters) = fits
    shift = -0.5 * np.linalg.slogdet(2.0 * np.pi * COVARIANCE)[1]
    assert_allclose(np.array(one.history.free_energy), np.array(other.history.free_energy) + shift, atol=1e-3)
    assert_allclose(one_parameters, other_parameters, atol=1e-3)


@installed("torch")
def test_torch_takes_float64_and_any_function():
    flow = BUILDERS["IAF"](dtype="float64")

    def density(x):
        assert x.dtype.is_floating_point
        assert x.numpy(force=True).dtype == np.float64
        return -x.abs().sum(dim=1)

    assert len(hr.fit_to_density(flow, density, gradient="torch", **SHORT).history) == 20


@installed("jax")
def test_jax_has_to_have_64_bits_for_float64():
    import jax

    flow = BUILDERS["IAF"](dtype="float64")
    with pytest.raises(ValueError, match="jax_enable_x64"):
        hr.fit_to_density(flow, jax_normal, gradient="jax", **SHORT)
    jax.config.update("jax_enable_x64", True)
    try:
        assert len(hr.fit_to_density(flow, jax_normal, gradient="jax", **SHORT).history) == 20
    finally:
        jax.config.update("jax_enable_x64", False)


# --- kept weights ---------------------------------------------------------------------------------------------------


class Interrupting:
    """A density whose n-th call raises KeyboardInterrupt, or another exception."""

    def __init__(self, calls, error=KeyboardInterrupt):
        self.calls, self.error = calls, error

    def __call__(self, x):
        self.calls -= 1
        if self.calls == 0:
            raise self.error
        return normal()(x)


def test_ctrl_c_keeps_the_best_weights():
    flow = BUILDERS["IAF"]()
    before = hr.free_energy(flow, normal()).free_energy
    fit = hr.fit_to_density(flow, Interrupting(400), steps=10**6, **QUIET)
    assert fit.history.stopped == "interrupted"
    assert fit.final is None
    assert 390 <= len(fit.history) < 400
    assert hr.free_energy(flow, normal()).free_energy < before - 0.5
    assert fit.history.kept_step == len(fit.history)


def test_an_error_of_the_density_comes_out_and_weights_are_finite():
    flow = BUILDERS["IAF"]()
    before = flow.parameters
    with pytest.raises(ZeroDivisionError):
        hr.fit_to_density(flow, Interrupting(50, ZeroDivisionError), steps=60, **QUIET)
    assert np.isfinite(flow.parameters).all()
    assert (flow.parameters != before).any()


@pytest.mark.long
def test_a_fit_never_ends_worse_than_it_began():
    flow = BUILDERS["RealNVP"](dtype="float64")
    hr.fit_to_density(flow, hr.densities.U1(), steps=600, **QUIET)
    before, parameters = hr.free_energy(flow, hr.densities.U1()).free_energy, flow.parameters
    with pytest.warns(RuntimeWarning, match="smaller learning_rate"):
        fit = hr.fit_to_density(flow, hr.densities.U1(), steps=40, learning_rate=3.0, clip=None, seed=1, **QUIET)
    assert fit.history.kept_step < 10
    assert hr.free_energy(flow, hr.densities.U1()).free_energy < before + 0.5
    assert fit.history.kept_step > 0 or (flow.parameters == parameters).all()


def test_steps_that_diverge_are_reported_and_leave_finite_weights():
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(2, (16,), scale="exp") for _ in range(3)])
    with pytest.warns(RuntimeWarning, match="fit_to_density: .*(NaN or infinite|rose).*smaller learning_rate"):
        fit = hr.fit_to_density(flow, normal(), steps=50, learning_rate=1e4, clip=None, **QUIET)
    assert fit.history.stopped in ("non-finite", "steps")
    assert np.isfinite(flow.parameters).all()
    assert np.isfinite(fit.final.free_energy)


def test_without_an_average_the_weights_themselves_are_kept():
    flows = [BUILDERS["IAF"](), BUILDERS["IAF"]()]
    for flow, average in zip(flows, (None, 0.999), strict=True):
        hr.fit_to_density(flow, normal(), average=average, **SHORT)
    assert (flows[0].parameters != flows[1].parameters).any()


def test_no_steps_change_nothing():
    flow = BUILDERS["IAF"]()
    before = flow.parameters
    fit = hr.fit_to_density(flow, normal(), steps=0, samples=16, evaluated=100, **QUIET)
    cases.assert_same_bits(flow.parameters, before)
    assert len(fit.history) == 0
    assert fit.final.samples == 100
    assert "StepHistory" in repr(fit)


# --- numbers that are not finite ------------------------------------------------------------------------------------


def spoiled(share, value=np.nan, gradient=0.0):
    """The normal density, spoiled for a share of the samples: those farthest along the first coordinate."""

    def log_density(x):
        log_p, slope = normal()(x)
        worst = np.argsort(x[:, 0])[len(x) - int(share * len(x)) :]
        log_p[worst] += value
        slope[worst] += gradient
        return log_p, slope

    return log_density


@pytest.mark.parametrize("estimator", ["sticking_the_landing", "plain"])
@pytest.mark.parametrize("bad", [(np.nan, 0.0), (np.inf, 0.0), (-np.inf, 0.0), (0.0, np.nan), (0.0, -np.inf)])
def test_samples_that_are_not_finite_are_skipped_counted_and_reported(bad, estimator):
    flow = BUILDERS["IAF"]()
    with pytest.warns(RuntimeWarning, match=r"fit_to_density: .* in 120 of 1280 samples, which were left out"):
        fit = hr.fit_to_density(flow, spoiled(0.1, *bad), estimator=estimator, **SHORT)
    assert fit.history.skipped == [6] * 20
    assert np.isfinite(fit.history.free_energy).all()
    assert np.isfinite(flow.parameters).all()


def test_skipped_samples_take_no_part_in_the_gradient():
    """The gradient is that of all samples that are not skipped."""
    flow = cases.randomise(BUILDERS["MAF"](dtype="float64"), 0.1)
    step = PathStep(
        flow,
        lambda x, _: spoiled(0.25)(x),
        NO_CONTEXT,
        plan_of(flow, 64, skip=0.5),
        np.random.default_rng(3),
        landing=False,
    )
    found = step(0, 1.0)
    assert found.skipped == 16
    assert found.excess.shape == (48,)
    noise = step.paths.noise
    x, _ = flow.to_data(noise)
    kept = np.sort(np.argsort(x[:, 0])[:48])
    _, slope = normal()(x[kept])
    (want,) = flow.to_data_vjp(noise[kept], -slope / 48, np.full(48, -1.0 / 48), wrt=("parameters",))
    assert_allclose(found.gradient, want, rtol=1e-9, atol=1e-12)


def test_too_many_samples_that_are_not_finite_are_an_error_with_the_first_of_them():
    flow = BUILDERS["IAF"]()
    with pytest.raises(ValueError, match="log_density: ") as error:
        hr.fit_to_density(flow, spoiled(0.2), **SHORT)
    cases.assert_says(error, r"at most 6 of 64", "got 12 in step 0", r"x = \[", "log density nan")
    with pytest.raises(ValueError, match="at most 0 of 64"):
        hr.fit_to_density(flow, spoiled(0.05), skip=0.0, **SHORT)
    assert np.isfinite(flow.parameters).all()


# --- estimates ------------------------------------------------------------------------------------------------------


def test_the_estimate_of_a_normal_by_a_normal_is_known():
    """For N(0, 1) against N(m, 1), KL is m²/2, and the effective number of samples is e^-m² times their number."""
    flow, m = hr.Flow([], hr.StandardNormal(1), dtype="float64"), 0.5
    found = hr.free_energy(flow, normal([m], [[1.0]], log_z=2.0), samples=200_000, seed=3)
    assert abs(found.free_energy - (0.5 * m * m - 2.0)) < 4.0 * found.standard_error
    assert abs(found.log_z - 2.0) < 4.0 * found.log_z_error
    assert abs(found.kl - 0.5 * m * m) < 4.0 * found.kl_error
    assert_allclose(found.standard_error, m / np.sqrt(200_000), rtol=0.02)
    assert_allclose(found.log_z_error, np.sqrt(np.expm1(m * m) / 200_000), rtol=0.05)
    assert_allclose(found.kl_error, np.sqrt((np.expm1(m * m) - m * m) / 200_000), rtol=0.1)
    assert_allclose(found.effective_samples, 200_000 * np.exp(-m * m), rtol=0.02)
    assert (found.samples, found.skipped) == (200_000, 0)


def test_a_density_of_zero_counts_for_log_z_but_nan_does_not():
    flow = hr.Flow([], hr.StandardNormal(1), dtype="float64")
    standard = normal([0.0], [[1.0]])

    def half(x):
        value, slope = standard(x)
        return np.where(x[:, 0] > 0.0, value, -np.inf), slope

    found = hr.free_energy(flow, half, samples=50_000)
    assert found.samples == 50_000
    assert abs(found.log_z - np.log(0.5)) < 4.0 * found.log_z_error
    assert abs(found.free_energy) < 1e-12

    def broken(x):
        value, slope = standard(x)
        return np.where(x[:, 0] > 0.0, value, np.nan), slope

    found = hr.free_energy(flow, broken, samples=1000)
    assert found.skipped + found.samples == 1000
    assert 400 < found.skipped < 600
    assert "skipped" in repr(found)
    nothing = hr.free_energy(flow, lambda x: (np.full(len(x), -np.inf), x), samples=10)
    assert np.isnan(nothing.log_z)
    assert nothing.effective_samples == 0.0


def test_huge_log_densities_do_not_overflow():
    flow = hr.Flow([], hr.StandardNormal(1), dtype="float64")
    for shift in (1e4, -1e4):
        found = hr.free_energy(flow, normal([0.3], [[1.0]], log_z=shift), samples=1000)
        assert abs(found.log_z - shift) < 0.1
    assert hr.free_energy(flow, normal([0.0], [[1.0]]), samples=1).samples == 1


# --- context, progress ----------------------------------------------------------------------------------------------


def test_a_flow_with_context_is_fitted_for_one_row():
    flow = hr.IAF(2, context=1, transforms=2, hidden=(16,), dtype="float64")
    row = np.array([0.7])
    fit = hr.fit_to_density(flow, normal(), row, steps=1500, samples=64, learning_rate=5e-3, **QUIET)
    assert fit.final.free_energy < 0.02
    assert_allclose(flow.sample(20_000, row, seed=1).mean(axis=0), MEAN, atol=0.1)
    assert hr.free_energy(flow, normal(), row, samples=100).samples == 100


def test_progress_is_a_bar_on_stderr_or_nothing(capsys, monkeypatch):
    monkeypatch.setattr("headrace._base.progress.watched", lambda: True)
    hr.fit_to_density(BUILDERS["IAF"](), normal(), **SHORT)
    assert capsys.readouterr() == ("", "")
    hr.fit_to_density(BUILDERS["IAF"](), normal(), **(SHORT | {"progress": True}))
    out, err = capsys.readouterr()
    assert out == ""
    assert "20/20" in err


# --- refusals -------------------------------------------------------------------------------------------------------

ROWS = np.zeros((64, 2))
BAD = {
    "no flow": ({"flow": 3}, ["flow", "int"]),
    "no function": ({"log_density": 3.0}, ["log_density", "function", "float"]),
    "another way to a gradient": ({"gradient": "numpy"}, ["gradient", "returned", "torch", "jax", "numpy"]),
    "another estimator": ({"estimator": "score"}, ["estimator", "sticking_the_landing", "plain", "score"]),
    "steps below zero": ({"steps": -1}, ["steps", "-1"]),
    "steps of a fraction": ({"steps": 1.5}, ["steps", r"1\.5"]),
    "no samples": ({"samples": 0}, ["samples", r"\b0\b"]),
    "a learning rate of zero": ({"learning_rate": 0.0}, ["learning_rate", r"\b0"]),
    "an unknown schedule": ({"schedule": "plateau"}, ["schedule", "cosine", "constant", "plateau"]),
    "annealing of one number": ({"annealing": 0.1}, ["annealing", "start, share", r"0\.1"]),
    "annealing of no length": ({"annealing": (0.1, 0.0)}, [r"annealing\[1\]", r"0\.0"]),
    "annealing from below zero": ({"annealing": (-0.1, 1.0)}, [r"annealing\[0\]", r"-0\.1"]),
    "a decay below zero": ({"weight_decay": -1.0}, ["weight_decay", "-1"]),
    "a clip of zero": ({"clip": 0.0}, ["clip", r"\b0"]),
    "an average of one": ({"average": 1.0}, ["average", r"\b1"]),
    "skipping all": ({"skip": 1.0}, ["skip", r"1\.0"]),
    "a negative estimate": ({"evaluated": -5}, ["evaluated", "-5"]),
    "a seed of a string": ({"seed": "a"}, ["seed", "'a'"]),
    "context that nothing reads": ({"context": np.zeros(1)}, ["context", "None"]),
    "one array": ({"log_density": lambda x: x[:, 0]}, ["log_density", "tuple", "ndarray", "torch"]),
    "three arrays": ({"log_density": lambda x: (x[:, 0], x, x)}, ["log_density", "tuple of 3"]),
    "values in a column": ({"log_density": lambda x: (x[:, :1], x)}, ["first result", r"\(\d+,\)", r"\(\d+, 1\)"]),
    "gradients too few": ({"log_density": lambda x: (x[:, 0], x[:, :1])}, ["second result", r"\(\d+, 2\)"]),
    "values of integers": ({"log_density": lambda x: (np.zeros(len(x), int), x)}, ["first result", "int64"]),
    "values in a list": ({"log_density": lambda x: (x[:, 0].tolist(), x)}, ["first result", "list"]),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_refused_by_name_and_change_nothing(name):
    keywords, words = BAD[name]
    flow = BUILDERS["IAF"]()
    kept = flow.parameters
    with pytest.raises((TypeError, ValueError)) as error:
        hr.fit_to_density(**({"flow": flow, "log_density": normal()} | SHORT | keywords))
    cases.assert_says(error, *words)
    cases.assert_same_bits(flow.parameters, kept)


def test_wrong_context_is_refused():
    flow = hr.IAF(2, context=2, transforms=1, hidden=(8,))
    for context, words in (
        (None, [r"context: expected one row, shape \(2,\)", r"a table, shape \(rows, 2\)", "None"]),
        (np.zeros(3), ["context", r"\(3,\)"]),
        (np.array([0.0, np.nan]), ["context", "finite", "nan"]),
    ):
        with pytest.raises(ValueError) as error:
            hr.fit_to_density(flow, normal(), context, **SHORT)
        cases.assert_says(error, *words)


@installed("torch")
def test_wrong_results_of_torch_are_refused():
    import torch

    for function, words in (
        (lambda x: x, ["shape", r"\(\d+,\)", r"\(\d+, 2\)"]),
        (lambda x: x.sum(), ["shape", r"\(\)"]),
        (lambda x: x.detach().sum(dim=1), ["depends on the rows"]),
        (lambda x: torch.zeros(len(x)), ["depends on the rows"]),
        (lambda x: x.detach().numpy()[:, 0], ["torch.Tensor", "ndarray"]),
    ):
        with pytest.raises((TypeError, ValueError), match="log_density") as error:
            hr.fit_to_density(BUILDERS["IAF"](), function, gradient="torch", **SHORT)
        cases.assert_says(error, *words)


@installed("jax")
def test_wrong_results_of_jax_are_refused():
    for function in (lambda x: x, lambda x: x.sum()):
        with pytest.raises(ValueError, match=r"log_density: expected it to give shape \(\d+,\)"):
            hr.fit_to_density(BUILDERS["IAF"](), function, gradient="jax", **SHORT)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_missing_framework_is_named(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ImportError, match=rf'^gradient=.{name}.: needs .*pip install "\.\[{name}\]"'):
        hr.fit_to_density(BUILDERS["IAF"](), normal(), gradient=name, **SHORT)
