"""Gradients of the direction that computes one step after another: a student's density, a teacher's values.

The sequential direction is v = m⁻¹(u; p), where m computes all steps at once. Let a and b be the cotangents of v and of
its log-determinant, and u' and p' the resulting gradients by u and p. For the cotangents -u' and -b, m at v has the
gradients -a by v, and p' by p. Tests compare every gradient with those of m, which `test_sequence_gradients` compares
with differences of the reference.
"""

import copy

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from pairs import pairwise

# name -> (options, steps). Blocks of 16 steps and sums of 8 steps ahead are whole and partial; weights fill no whole
# vector.
NETWORKS = {
    "plain": ({}, 70),
    "one layer": ({"dilations": [1], "layers": None}, 9),
    "one step": ({}, 1),
    "four taps": ({"kernel": 4, "dilations": [3, 8, 9, 1], "layers": None}, 61),
    "whole vectors": ({"channels": 16, "skip": 32, "kernel": 2}, 400),
    "wide": ({"channels": 37, "skip": 21, "kernel": 2, "layers": 3}, 40),
    "three values": ({"features": 3, "layers": 3}, 40),
    "context": ({"context": 5}, 40),
    "covariates in frames": ({"covariates": 3, "hop": 7, "context": 2}, 90),
    "dilations beyond a window": ({"dilations": [1, 450, 2], "layers": None, "kernel": 2, "channels": 5}, 800),
}
MAPS = {
    "logistic_mixture": {"bins": 6},
    "affine": {"map": "affine"},
    "rq_spline": {"map": "rq_spline", "bins": 5, "bound": 8.0},
}
# The gradients of both directions have rounding errors, which grow with the number of later steps that read a step.
TOLERANCES = {"float64": 1e-11, "float32": 2e-4}


def calm(flow):
    """The flow with small outputs of its network and of inner flows, so that sequential values do not grow."""
    for name, array in flow.named_parameters().items():
        if "head.1" in name or ".inner." in name:
            flow.set_parameter(name, 0.2 * array)
    return flow


def flow_of(name, map, reads, dtype="float64"):
    options, steps = NETWORKS[name]
    return calm(sequence_cases.wavenet(name, map, **(options | MAPS[map] | {"dtype": dtype, "reads": reads}))), steps


def beside(flow, rows, steps):
    return sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, steps)


def kinds_of(flow):
    return ("inputs", "parameters") + ("context",) * bool(flow.context) + ("covariates",) * bool(flow.covariates)


def directions(flow, reads):
    """The sequential direction, its gradient, and the gradient of the parallel direction."""
    if reads == "latent":
        return flow.to_latent, flow.to_latent_vjp, flow.to_data_vjp
    return flow.to_data, flow.to_data_vjp, flow.to_latent_vjp


def assert_inverse(flow, reads, u, by_v, by_log_det, given, tolerance):
    run, back, other = directions(flow, reads)
    v, _ = run(u, *given)
    kinds = kinds_of(flow)
    found = back(u, by_v, by_log_det, *given, wrt=kinds)
    minus = None if by_log_det is None else -by_log_det
    want = other(v, -found[0], minus, *given, wrt=kinds)
    for kind, a, b in zip(kinds, found, want, strict=True):
        assert a.dtype == flow.dtype
        got, expected = (-b, by_v if by_v is not None else np.zeros_like(b)) if kind == "inputs" else (a, b)
        size = max(np.abs(expected).max(), np.abs(found[0]).max(), 1.0)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * size, err_msg=kind)


@pairwise(name=list(NETWORKS), map=list(MAPS), reads=cases.READS, dtype=cases.DTYPES)
def test_against_the_other_direction(name, map, reads, dtype):
    flow, steps = flow_of(name, map, reads, dtype)
    u = sequence_cases.sequences(3, steps, flow.features, dtype)
    draw = cases.rng("sequential", name, map)
    by_v = draw.standard_normal(u.shape).astype(dtype)
    by_log_det = draw.standard_normal(3).astype(dtype)
    given = beside(flow, 3, steps)
    for cotangents in ((by_v, by_log_det), (by_v, None), (None, by_log_det)):
        assert_inverse(flow, reads, u, *cotangents, given, TOLERANCES[dtype])


@pytest.mark.parametrize("map", list(MAPS))
@pytest.mark.parametrize("reads", cases.READS)
def test_against_a_dense_solve_of_the_reference(map, reads, tmp_path):
    """The implicit function theorem with matrices: derivatives of the reference by differences, and one solve."""
    flow = calm(sequence_cases.wavenet("dense", map, **MAPS[map], reads=reads, layers=3, channels=5, context=2))
    steps, h = 12, 1e-6
    u, (context, _) = sequence_cases.sequences(1, steps), beside(flow, 1, steps)
    run, back, _ = directions(flow, reads)
    v, _ = run(u, context)
    draw = cases.rng("dense")
    by_v, by_log_det = draw.standard_normal(v.shape), draw.standard_normal(1)

    def reference(v, parameters=None):
        own = copy.copy(flow)
        own.parameters = flow.parameters if parameters is None else parameters
        judge = sequence_cases.judge_of(own, tmp_path)
        value, log_det = judge.to_data(v, context) if reads == "latent" else judge.to_latent(v, context)
        return np.concatenate([value.reshape(-1), [log_det.sum()]])

    columns = [
        (reference(v + h * e.reshape(v.shape)) - reference(v - h * e.reshape(v.shape))) / (2 * h) for e in np.eye(steps)
    ]
    rates = np.array(columns)  # [v, result]
    by_u = np.linalg.solve(rates[:, :steps], by_v.reshape(-1) - by_log_det * rates[:, steps])
    got_u, got_parameters = back(u, by_v, by_log_det, context)
    np.testing.assert_allclose(got_u.reshape(-1), by_u, rtol=0, atol=1e-6 * np.abs(by_u).max())
    mask = copy.copy(flow)
    mask.parameters = np.ones(flow.parameters.size)
    direction = draw.standard_normal(flow.parameters.size) * (mask.parameters != 0)
    ends = [reference(v, flow.parameters + sign * h * direction) for sign in (1, -1)]
    by_direction = (ends[0] - ends[1]) / (2 * h)
    want = -by_u @ by_direction[:steps] - by_log_det[0] * by_direction[steps]
    assert abs(got_parameters @ direction - want) <= 1e-6 * np.linalg.norm(got_parameters)


def chains():
    student = sequence_cases.wavenet("student", reads="latent", transforms=3, layers=3, channels=5, context=2)
    teacher = sequence_cases.wavenet("teacher", transforms=2, layers=3, channels=5, map="affine")
    return {"student": student, "teacher": teacher, "both": sequence_cases.chain()}


@pytest.mark.parametrize("name", ["student", "teacher", "both"])
def test_each_value_through_chains(name):
    """Gradients by each value agree with central differences in both directions, for chains of one or both kinds."""
    flow = calm(chains()[name])
    u, given = sequence_cases.sequences(2, 10, flow.features), beside(flow, 2, 10)
    draw = cases.rng("chain of both")
    by_v, by_log_det = draw.standard_normal(u.shape), draw.standard_normal(2)
    for run, back in ((flow.to_latent, flow.to_latent_vjp), (flow.to_data, flow.to_data_vjp)):

        def number(u, run=run):
            value, log_det = run(u, *given)
            return (value * by_v).sum() + (log_det * by_log_det).sum()

        (gradient,) = back(u, by_v, by_log_det, *given, wrt="inputs")
        for index in np.ndindex(u.shape):
            step = np.zeros_like(u)
            step[index] = 1e-6
            difference = (number(u + step) - number(u - step)) / 2e-6
            np.testing.assert_allclose(gradient[index], difference, rtol=0, atol=1e-6 * np.abs(gradient).max())


@pairwise(base=["own", "trained"], map=list(MAPS), dtype=cases.DTYPES)
def test_density_of_a_student(base, map, dtype):
    """Gradients by all arguments agree with differences of the density in float64, for densities of steps and of
    sequences."""
    more = {"base": hr.Normal(1, trainable=True)} if base == "trained" else {}
    options = {"reads": "latent", "transforms": 3, "layers": 3, "context": 2, "covariates": 2, "hop": 3, "dtype": dtype}
    flow = calm(sequence_cases.wavenet("density", map, **options, **MAPS[map], **more))
    x, given = sequence_cases.sequences(2, 30, 1, dtype), beside(flow, 2, 30)
    kinds, draw = kinds_of(flow), cases.rng("density")
    weights = draw.standard_normal((2, 30)).astype(dtype)
    values, gradients = flow.log_prob_vjp(x, weights, *given, wrt=kinds, values=True)
    np.testing.assert_array_equal(values, flow.log_prob_steps(x, *given))
    wide = flow.astype("float64")
    mask = copy.copy(wide)
    mask.parameters = np.ones(flow.parameters.size)
    names = ("inputs", "context", "covariates", "parameters")
    arrays = {n: a.astype("float64") for n, a in zip(names, (x, *given, wide.parameters), strict=True)}
    for kind, gradient in zip(kinds, gradients, strict=True):
        direction = draw.standard_normal(gradient.shape)
        if kind == "parameters":
            direction *= mask.parameters != 0  # padding stays zero

        def number(h, kind=kind, direction=direction):
            x, context, covariates, parameters = (arrays | {kind: arrays[kind] + h * direction}).values()
            return float((wide.log_prob_steps(x, context, covariates, parameters=parameters) * weights).sum())

        difference = (number(1e-7) - number(-1e-7)) / 2e-7
        exact = float((gradient.astype("float64") * direction).sum())
        size = np.linalg.norm(gradient.astype("float64")) * max(1.0, np.sqrt(direction.size) / 30)
        assert abs(difference - exact) <= {"float64": 3e-6, "float32": 3e-3}[dtype] * max(size, 1.0), kind


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("features", [1, 2])
def test_bits_depend_on_nothing_else(dtype, features):
    """Bits depend neither on threads nor, for the values of one sequence, on other sequences."""
    options = {"context": 2, "covariates": 3, "hop": 7, "features": features, "map": "affine", "reads": "latent"}
    flow = calm(sequence_cases.wavenet("bits", **options, dtype=dtype))
    x, (context, covariates) = sequence_cases.sequences(21, 430, features, dtype), beside(flow, 21, 430)
    kinds, ones = kinds_of(flow), np.ones(21, dtype)
    runs = []
    for threads in (1, 2, 3):
        with hr.threads(threads):
            runs.append(flow.log_prob_vjp(x, ones, context, covariates, wrt=kinds))
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            cases.assert_same_bits(a, b)
    for rows in (slice(2, 3), slice(0, 5), slice(3, 12)):
        some = flow.log_prob_vjp(x[rows], ones[rows], context[rows], covariates[rows], wrt=kinds)
        for kind, a, b in zip(kinds, runs[0], some, strict=True):
            if kind != "parameters":
                cases.assert_same_bits(a[rows], b)


@pytest.mark.costly
def test_parts_of_a_long_sequence():
    """A long sequence is computed in parts, and gradients pass from part to part."""
    flow = calm(sequence_cases.wavenet("parts", layers=12, channels=48, kernel=2, map="affine", reads="latent"))
    steps = 4000  # a tape of 32 MB has about 2000 steps
    u = sequence_cases.sequences(1, steps)
    draw = cases.rng("parts")
    by_v, by_log_det = draw.standard_normal(u.shape), draw.standard_normal(1)
    assert_inverse(flow, "latent", u, by_v, by_log_det, (None, None), TOLERANCES["float64"])
    # If the second half has no weight, gradients of the first half have the bits of a call with the first half alone.
    by_v[:, steps // 2 :] = 0.0
    (whole,) = flow.to_latent_vjp(u, by_v, None, wrt="inputs")
    (short,) = flow.to_latent_vjp(u[:, : steps // 2], by_v[:, : steps // 2], None, wrt="inputs")
    cases.assert_same_bits(whole[:, : steps // 2], short)
    assert not whole[:, steps // 2 :].any()


INNER = {
    "maf": (3, "maf"),
    "nsf": (2, "nsf"),
    "couplings": (3, lambda dtype: hr.NSF(3, context=2, transforms=2, hidden=(8,), coupling=True, dtype=dtype)),
    "one value": (1, lambda dtype: hr.MAF(1, context=3, transforms=2, hidden=(8,), dtype=dtype)),
}


def inner_flow(name, reads, dtype="float64", **more):
    features, inner = INNER[name]
    own = inner if isinstance(inner, str) else inner(dtype)
    options = {"layers": 3, "channels": 7, "skip": 5, "kernel": 3, "features": features, "inner": own} | more
    return calm(sequence_cases.wavenet("inner", name, reads=reads, dtype=dtype, **options))


@pairwise(name=list(INNER), side=["nothing", "covariates"], reads=cases.READS, dtype=cases.DTYPES)
def test_inner_flows_against_the_other_direction(name, side, reads, dtype):
    flow = inner_flow(name, reads, dtype, **({"context": 1, "covariates": 2, "hop": 6} if side != "nothing" else {}))
    u = sequence_cases.sequences(3, 35, flow.features, dtype)
    draw = cases.rng("inner", name)
    by_v, by_log_det = draw.standard_normal(u.shape).astype(dtype), draw.standard_normal(3).astype(dtype)
    given = beside(flow, 3, 35)
    for cotangents in ((by_v, by_log_det), (None, by_log_det), (by_v, None)):
        assert_inverse(flow, reads, u, *cotangents, given, TOLERANCES[dtype])


@pytest.mark.parametrize("reads", cases.READS)
def test_inner_flows_have_the_same_bits_alone_and_on_any_threads(reads):
    flow = inner_flow("maf", reads, "float32")
    u = sequence_cases.sequences(9, 20, 3, "float32")
    _, back, _ = directions(flow, reads)
    by_v, by_log_det = np.ones_like(u), np.ones(9, "float32")
    with hr.threads(1):
        whole = back(u, by_v, by_log_det)
    with hr.threads(3):
        for a, b in zip(whole, back(u, by_v, by_log_det), strict=True):
            cases.assert_same_bits(a, b)
    for rows in (1, 4):
        (own,) = back(u[:rows], by_v[:rows], by_log_det[:rows], wrt="inputs")
        cases.assert_same_bits(own, whole[0][:rows])


def test_lists_and_lengths():
    flow = calm(sequence_cases.wavenet("lists", layers=3, reads="latent"))
    x = sequence_cases.sequences(3, 30)
    parts = [x[0], x[1, :4], x[2, :17]]
    by_x, by_parameters = flow.log_prob_vjp(parts, np.ones(3))
    alone = [flow.log_prob_vjp(one, np.ones(())) for one in parts]
    for got, (want, _) in zip(by_x, alone, strict=True):
        cases.assert_same_bits(got, want)
    want = sum(own for _, own in alone)
    np.testing.assert_allclose(by_parameters, want, rtol=0, atol=1e-12 * np.abs(want).max())
    padded, _ = flow.log_prob_vjp(x, np.ones(3), lengths=[30, 4, 17])
    for got, own in zip(padded, by_x, strict=True):
        cases.assert_same_bits(got[: len(own)], own)
        assert not got[len(own) :].any()


def test_a_student_learns_by_its_likelihood():
    flow = hr.WaveNet(layers=3, channels=8, map="affine", reads="latent", transforms=2, seed=0)
    x = sequence_cases.sequences(8, 100, 1, "float32")
    adam, first = hr.Adam(flow, learning_rate=1e-2), flow.nll_and_grad(x)[0]
    for _ in range(30):
        adam.step(flow.nll_and_grad(x)[1])
    assert flow.nll_and_grad(x)[0] < first - 0.05
