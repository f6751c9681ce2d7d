"""Tests of ``fit_to_density`` with many contexts: one flow for the posteriors of a whole table, or of a function that
draws contexts."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from headrace.variational.descent import PathStep
from headrace.variational.target import contexts_of
from targets import QUIET, SHORT, plan_of

# The model is x ~ N(0, 1) in two dimensions, with a context of two measurements M x + 0.5 noise.
M = np.array([[1.0, 0.5], [-0.3, 0.8]])
NOISE = 0.5
COVARIANCE = np.linalg.inv(np.eye(2) + M.T @ M / NOISE**2)
GAIN = COVARIANCE @ M.T / NOISE**2
EVIDENCE = M @ M.T + NOISE**2 * np.eye(2)
TABLE = np.random.default_rng(5).multivariate_normal(np.zeros(2), EVIDENCE, size=400)


def joint(x, context):
    """The model's log p(x, context), whose exponential integrates over x to the evidence, and its gradient by x."""
    away = (context.astype(np.float64) - x @ M.T) / NOISE
    value = -0.5 * np.square(x).sum(axis=1) - 0.5 * np.square(away).sum(axis=1) - 2.0 * np.log(2.0 * np.pi * NOISE)
    return value, away @ M / NOISE - x


def log_evidence(context):
    half = 0.5 * np.linalg.slogdet(2.0 * np.pi * EVIDENCE)[1]
    return -0.5 * ((context @ np.linalg.inv(EVIDENCE)) * context).sum(axis=-1) - half


def torch_joint(x, context):
    import torch

    away = (context - x @ torch.tensor(M, dtype=x.dtype).T) / NOISE
    return -0.5 * (x**2).sum(dim=1) - 0.5 * (away**2).sum(dim=1) - 2.0 * np.log(2.0 * np.pi * NOISE)


def jax_joint(x, context):
    import jax.numpy as jnp

    away = (context - x @ jnp.asarray(M, x.dtype).T) / NOISE
    return -0.5 * (x**2).sum(axis=1) - 0.5 * (away**2).sum(axis=1) - 2.0 * np.log(2.0 * np.pi * NOISE)


def linear(dtype="float64", **settings):
    """The flow x = L z + B context + shift, which represents each of the posteriors exactly."""
    return hr.IAF(2, context=2, transforms=1, hidden=(), dtype=dtype, **settings)


def bent(dtype="float64", seed=0):
    return hr.IAF(2, context=2, transforms=2, hidden=(16,), activation="silu", dtype=dtype, seed=seed)


def drawn(rows, generator):
    return generator.multivariate_normal(np.zeros(2), EVIDENCE, size=rows)


# --- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [TABLE, drawn], ids=["table", "function"])
def test_one_flow_fits_the_posterior_of_every_context(dtype, context):
    """The flow can equal every posterior, and has gradients without noise there: a KL of 1e-4 corresponds to errors of
    1e-2 in weights.
    """
    flow = linear(dtype)
    fit = hr.fit_to_density(flow, joint, context, steps=1500, samples=64, learning_rate=0.02, **QUIET)
    assert abs(fit.final.kl) < 1e-4
    assert fit.final.samples == 65_536 - (65_536 % -256)
    assert fit.final.effective_samples > 0.999 * fit.final.samples
    # These four contexts are not in the table.
    for row in np.random.default_rng(6).multivariate_normal(np.zeros(2), EVIDENCE, size=4):
        found = hr.free_energy(flow, joint, row, samples=2000)
        assert abs(found.free_energy + log_evidence(row)) < 1e-3
        x = flow.sample(100_000, row, seed=1).astype("float64")
        assert_allclose(x.mean(axis=0), GAIN @ row, atol=0.015)
        assert_allclose(np.cov(x.T), COVARIANCE, atol=0.01)


def test_nonlinear_networks_learn_from_contexts_far_from_one():
    """Contexts are 1000 plus multiples of 0.001: the flow standardises them by the table."""
    flow, unit = bent(seed=1), 1e-3

    def far(x, context):
        return joint(x, (context - 1000.0) / unit)

    fit = hr.fit_to_density(flow, far, 1000.0 + unit * TABLE, steps=800, samples=128, learning_rate=5e-3, **QUIET)
    mean, std = flow.standardize_context
    assert_allclose((mean - 1000.0) / unit, TABLE.mean(axis=0), rtol=1e-6)
    assert_allclose(std / unit, TABLE.std(axis=0), rtol=1e-6)
    assert fit.final.kl < 0.05
    hr.fit_to_density(flow, far, 1000.0 + 2.0 * unit * TABLE, **SHORT)
    assert_allclose(flow.standardize_context, (mean, std))


def test_estimates_are_means_over_contexts_and_not_of_pairs():
    """For q = N(0, 1) and p = e^c N(c, 1), KL is c²/2 and log Z is c; weights of pairs would give the log of the mean
    of e^c."""
    flow = hr.IAF(1, context=1, transforms=1, hidden=(), dtype="float64")
    flow.parameters = np.zeros_like(flow.parameters)
    table = np.array([[-1.0], [0.2], [1.0]])

    def density(x, context):
        away = context - x
        return (context - 0.5 * away**2)[:, 0] - 0.5 * np.log(2.0 * np.pi), away

    def many(n, generator):
        return generator.standard_normal((n, 1))

    found = hr.free_energy(flow, density, table, samples=60_000)
    assert (found.samples, found.skipped) == (60_000, 0)
    assert abs(found.kl - 0.5 * np.square(table).mean()) < 4.0 * found.kl_error < 0.05
    assert abs(found.log_z - table.mean()) < 4.0 * found.log_z_error < 0.05
    assert abs(found.free_energy - (0.5 * np.square(table) - table).mean()) < 4.0 * found.standard_error < 0.05
    # For a context c the deviation of -log w = c²/2 - c + c (c - x) is |c|, and the table has three contexts.
    assert_allclose(found.standard_error, np.sqrt(np.square(table).mean() / 60_000), rtol=0.03)
    assert_allclose(found.effective_samples, 20_000 * np.exp(-np.square(table)).sum(), rtol=0.05)
    some = hr.free_energy(flow, density, many, samples=60_000)
    assert (found.contexts, some.contexts) == (3, 244)
    assert_allclose(some.standard_error, np.sqrt(1.5 / 244), rtol=0.25)  # for 244 contexts, with var(c²/2 - c) = 3/2
    assert abs(some.kl - 0.5) < 4.0 * some.kl_error
    # 400 samples are spread over 20 contexts, the differences of which increase the standard error.
    estimates = [hr.free_energy(flow, density, many, samples=400, seed=i) for i in range(9)]
    assert {(one.contexts, one.samples) for one in estimates} == {(20, 400)}
    assert_allclose(np.mean([one.standard_error for one in estimates]), np.sqrt(1.5 / 20), rtol=0.3)
    assert abs(np.mean([one.free_energy for one in estimates]) - 0.5) < 4.0 * np.sqrt(1.5 / 180)
    assert "contexts=20" in repr(estimates[0])
    one = hr.free_energy(flow, density, many, samples=3)
    assert one.contexts == 1
    assert np.isnan(one.standard_error)
    assert "contexts" not in repr(hr.free_energy(flow, density, np.array([0.5]), samples=500))


# --- a step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoiled", [False, True])
def test_the_gradient_is_that_of_the_mean_over_its_own_noise_and_contexts(spoiled):
    """The plain estimator is the derivative of one fixed sum, with which central differences agree to some 1e-7."""
    flow, seen = cases.randomise(bent(), 0.2), []

    def target(x, context):
        seen.append(context)
        value, slope = joint(x, context)
        value[: 5 if spoiled else 0] = np.nan
        return value, slope

    contexts = replace(contexts_of(flow, TABLE), repeats=4)
    step = PathStep(flow, target, contexts, plan_of(flow, 64, skip=0.2), np.random.default_rng(2), landing=False)
    found, noise = step(0, 1.0), step.paths.noise
    (context,) = seen
    keep = slice(5 if spoiled else 0, None)
    assert found.skipped == (5 if spoiled else 0)

    def free_energy(parameters):
        x, log_det = flow.to_data(noise[keep], context[keep], parameters=parameters)
        return float((-log_det - joint(x, context[keep])[0]).mean())

    for i in cases.rng("chosen").choice(np.flatnonzero(found.gradient), 12, replace=False):
        move = np.zeros_like(flow.parameters)
        move[i] = 1e-5
        want = (free_energy(flow.parameters + move) - free_energy(flow.parameters - move)) / 2e-5
        assert_allclose(found.gradient[i], want, rtol=1e-6, atol=1e-7)


def test_samples_share_a_context_as_often_as_asked():
    seen = []

    def density(x, context):
        seen.append(context.copy())
        context[:] = np.nan  # the function may change its context
        return joint(x, seen[-1])

    for repeats in (1, 16):
        seen.clear()
        hr.fit_to_density(linear(), density, TABLE, per_context=repeats, **SHORT)
        steps = [c for c in seen if len(c) == 64]
        assert len(steps) == 20
        for rows in steps:
            groups = rows.reshape(-1, repeats, 2)
            assert (groups == groups[:, :1]).all()
            # Contexts are drawn with replacement, from 400.
            assert len(np.unique(groups[:, 0], axis=0)) > 0.6 * len(groups)
            assert np.isin(rows, TABLE).all()
        judged = [c for c in seen if len(c) == 8 * 64]
        assert len(judged) == 21
        assert all((c == judged[0]).all() for c in judged)


@pytest.mark.parametrize("gradient", ["torch", "jax"])
def test_frameworks_take_contexts_in_the_flows_dtype(gradient):
    pytest.importorskip(gradient)
    seen = []
    function = {"torch": torch_joint, "jax": jax_joint}[gradient]

    def density(x, context):
        seen.append((str(x.dtype), str(context.dtype)))
        return function(x, context)

    flows = [bent("float32"), bent("float32")]
    fits = [
        hr.fit_to_density(flow, f, TABLE, gradient=g, **SHORT)
        for flow, f, g in zip(flows, (density, joint), (gradient, "returned"), strict=True)
    ]
    assert {name.removeprefix("torch.") for pair in seen for name in pair} == {"float32"}
    assert_allclose(fits[0].history.free_energy, fits[1].history.free_energy, rtol=1e-4, atol=1e-4)
    assert_allclose(flows[0].parameters, flows[1].parameters, atol=1e-3)


@pytest.mark.parametrize("context", [TABLE, drawn], ids=["table", "function"])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(dtype, context, set_threads):
    settings = QUIET | {"steps": 5, "samples": 300, "per_context": 3, "evaluated": 1000}
    flows, fits = [], []
    for threads, seed in ((1, 4), (3, 4), (1, 5)):
        set_threads(threads)
        flows.append(bent(dtype))
        fits.append(hr.fit_to_density(flows[-1], joint, context, seed=seed, **settings))
    cases.assert_same_bits(flows[0].parameters, flows[1].parameters)
    assert fits[0].history.free_energy == fits[1].history.free_energy
    assert fits[0].final == fits[1].final
    assert fits[0].history.free_energy[0] != fits[2].history.free_energy[0]


def test_one_row_takes_either_kind_of_function():
    row, flows = TABLE[0], [linear(), linear()]
    hr.fit_to_density(flows[0], joint, row, **SHORT)
    hr.fit_to_density(flows[1], lambda x: joint(x, row), row, **SHORT)
    cases.assert_same_bits(flows[0].parameters, flows[1].parameters)
    assert flows[0].standardize_context is None


def test_ctrl_c_keeps_the_weights_and_the_history():
    flow, calls = linear(), iter(range(10**6))

    def density(x, context):
        if next(calls) == 400:
            raise KeyboardInterrupt
        return joint(x, context)

    before = hr.free_energy(flow, joint, TABLE, samples=2000).free_energy
    fit = hr.fit_to_density(flow, density, TABLE, steps=10**6, learning_rate=0.02, **QUIET)
    assert fit.history.stopped == "interrupted"
    assert fit.final is None
    assert len(fit.history) == fit.history.kept_step == 399
    assert len(fit.history.standard_error) == 399
    assert hr.free_energy(flow, joint, TABLE, samples=2000).free_energy < before - 0.3


def test_a_student_learns_with_contexts_that_a_function_draws():
    teacher, student = linear(), linear(seed=1)
    hr.fit_to_density(teacher, joint, TABLE, steps=300, samples=64, learning_rate=0.02, **QUIET)
    _, report = hr.distill(teacher, student, drawn, steps=600, samples=64, learning_rate=0.02, **QUIET)
    assert report.kl < 1e-3


# --- refusals -------------------------------------------------------------------------------------------------------

BAD = {
    "no context": ({"context": None}, ["context", "one row", "table", "function", "None"]),
    "a table too wide": ({"context": np.zeros((5, 3))}, ["context", r"\(rows, 2\)", r"\(5, 3\)"]),
    "three axes": ({"context": np.zeros((5, 3, 2))}, ["context", r"\(5, 3, 2\)"]),
    "no rows": ({"context": np.zeros((0, 2))}, ["context", "at least one row", r"\(0, 2\)"]),
    "NaN": ({"context": np.array([[0.0, 1.0], [np.nan, 2.0]])}, ["context", "finite", "row 1", "nan"]),
    "complex numbers": ({"context": np.zeros((5, 2), complex)}, ["context", "complex128"]),
    "a flow that reads none": ({"flow": hr.IAF(2)}, ["context", "None", "reads no context", "ndarray"]),
    "a function of rows": ({"log_density": lambda x: (x[:, 0], x)}, ["log_density", "rows and of their", r"\(x\)"]),
    "a function of three": ({"log_density": lambda x, c, d: 0}, ["log_density", "contexts", r"\(x, c, d\)"]),
    "one row and none": ({"context": np.zeros(2), "log_density": lambda: 0}, ["log_density", "of rows", r"\(\)"]),
    "too few": ({"context": lambda n, g: np.zeros((n - 1, 2))}, ["context's result", r"\(8192, 2\)", r"\(8191, 2\)"]),
    "a drawn list": ({"context": lambda n, g: [[0.0, 0.0]] * n}, ["context's result", "list"]),
    "a drawn NaN": ({"context": lambda n, g: np.full((n, 2), np.nan)}, ["context's result", "finite", "row 0"]),
    "a share of none": ({"per_context": 0}, ["per_context", r"\b0\b"]),
    "no divisor": ({"per_context": 7}, ["per_context", "divisor", "64", r"\b7\b"]),
    "sharing one row": ({"per_context": 2, "context": np.zeros(2)}, ["per_context", "expected 1", r"\b2\b"]),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_contexts_are_refused_by_name_and_change_nothing(name):
    keywords, words = BAD[name]
    arguments = {"flow": linear()} | keywords
    flow = arguments["flow"]
    kept = flow.parameters
    with pytest.raises((TypeError, ValueError)) as error:
        hr.fit_to_density(**({"log_density": joint, "context": TABLE} | SHORT | arguments))
    cases.assert_says(error, *words)
    cases.assert_same_bits(flow.parameters, kept)


def test_a_function_of_contexts_needs_a_flow_that_reads_some():
    with pytest.raises(TypeError, match=r"log_density: expected a function of rows alone.*no context, got one of"):
        hr.fit_to_density(hr.IAF(2), joint, **SHORT)
    with pytest.raises(ValueError, match=r"context: expected None.*no context"):
        hr.fit_to_density(hr.IAF(2), joint, drawn, **SHORT)


def test_a_sample_that_is_not_finite_is_shown_with_its_context():
    def density(x, context):
        value, slope = joint(x, context)
        return np.where(context[:, 0] > 0.0, np.nan, value), slope

    with pytest.raises(ValueError, match=r"first at x = \[.*\], context = \[\d.*\]: log density nan"):
        hr.fit_to_density(linear(), density, TABLE, **SHORT)
