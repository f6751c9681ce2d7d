"""Flows over the values of a step, with a causal network's outputs as context: values, bits and gradients."""

import copy

import numpy as np
import pytest

import cases
import headrace as hr
import reference
import sequence_cases
from pairs import pairwise

STEPS, ROWS = 40, 3
NETWORK = {"layers": 3, "channels": 7, "skip": 5, "kernel": 3}
# name -> (the number of values of a step, the flow over them, or its name in WaveNet)
INNER = {
    "maf": (3, "maf"),
    "nsf": (2, "nsf"),
    "one affine layer": (4, lambda dtype: hr.MAF(4, context=6, transforms=1, hidden=(9,), dtype=dtype)),
    "couplings": (3, lambda dtype: hr.NSF(3, context=2, transforms=2, hidden=(8,), coupling=True, dtype=dtype)),
    "linear between": (3, lambda dtype: hr.MAF(3, context=5, transforms=2, hidden=(8,), link="linear", dtype=dtype)),
    "one value": (1, lambda dtype: hr.MAF(1, context=3, transforms=2, hidden=(8,), dtype=dtype)),
}
SIDES = {"nothing": {}, "context": {"context": 2}, "covariates": {"covariates": 2, "hop": 6, "context": 1}}


def flow_of(name, side="nothing", dtype="float64", reads="data", transforms=1, **more):
    features, inner = INNER[name]
    given = inner if isinstance(inner, str) else inner(dtype)
    more |= {"features": features, "inner": given, "reads": reads, "transforms": transforms, "dtype": dtype}
    return sequence_cases.wavenet("inner", name, **NETWORK, **SIDES[side], **more)


def beside(flow, rows=ROWS, steps=STEPS):
    return sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, steps)


@pairwise(name=list(INNER), side=list(SIDES), reads=cases.READS, dtype=cases.DTYPES)
def test_both_directions_and_densities(name, side, reads, dtype, tmp_path):
    flow = flow_of(name, side, dtype, reads)
    judge = sequence_cases.judge_of(flow, tmp_path)
    given = beside(flow)
    z = 0.7 * cases.rng("z", name).standard_normal((ROWS, STEPS, flow.features)).astype(dtype)
    x, log_det = flow.to_data(z, *given)
    back, log_det_back = flow.to_latent(x, *given)
    # The values of the sequential direction are tested by the parallel direction, because each step accumulates the
    # errors of earlier steps.
    if reads == "data":
        pairs = [(z, log_det, -1.0), (back, log_det_back, 1.0)]
        want, want_log = judge.to_latent(x, *given)
    else:
        pairs = [(x, log_det, 1.0)]
        want, want_log = judge.to_data(z, *given)
    scale = np.exp(np.abs(want_log).max() / STEPS) * max(1.0, np.abs(want).max())
    for value, log, sign in pairs:
        cases.assert_close(value, want, magnitude=30 * scale, depth=40)
        magnitude = 30 * np.sqrt(STEPS) * max(np.abs(want_log).max(), 1.0)
        cases.assert_close(log, sign * want_log.sum(axis=1), magnitude=magnitude, depth=40)
    if reads == "data":
        steps = judge.log_prob_steps(x, *given)
        cases.assert_close(flow.log_prob_steps(x, *given), steps, magnitude=np.abs(steps).max(), depth=80)
        total = flow.log_prob(x, *given)
        cases.assert_close(total, steps.sum(axis=1), magnitude=np.sqrt(STEPS) * np.abs(steps).max(), depth=80)


def test_the_density_of_a_step_is_that_of_the_flow_with_the_outputs_as_context():
    """The network's outputs agree with the reference, and `Flow.log_prob` of a step, with these outputs as context, is
    the step's density."""
    flow = flow_of("maf", "context", prediction=0, companded=False)
    x, (context, _) = sequence_cases.sequences(ROWS, STEPS, 3), beside(flow)
    t = flow.transforms[0]
    network = reference.CausalNetwork(t.named_parameters(), (1, 2, 4))
    outputs = network(x, context)
    assert outputs.shape == (ROWS, STEPS, t.inner.context)
    want = t.inner.log_prob(x.reshape(-1, 3), outputs.reshape(-1, 5)).reshape(ROWS, STEPS)
    np.testing.assert_allclose(flow.log_prob_steps(x, context), want, rtol=1e-11, atol=1e-11)

    # The values of a step depend on each other: the mixed second derivative of the step's log density is not zero.
    def density(a, b):
        return flow.log_prob_steps(x + np.array([a, b, 0.0]) * (np.arange(STEPS) == 20)[:, None], context)[0, 20]

    mixed = density(1, 1) - density(1, 0) - density(0, 1) + density(0, 0)
    assert abs(mixed) > 1e-3


@pytest.mark.parametrize("reads", cases.READS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", ["maf", "nsf", "couplings"])
def test_bits_do_not_depend_on_rows_parts_or_streams(name, dtype, reads):
    """Even fewer than 8 rows have the bits of many rows, because a step's flow always runs on whole tiles."""
    flow = flow_of(name, "context", dtype, reads)
    x, (context, _) = sequence_cases.sequences(20, STEPS, flow.features, dtype), beside(flow, 20)
    steps = flow.log_prob_steps(x, context)
    for rows in (1, 2, 7, 8, 19):
        cases.assert_same_bits(flow.log_prob_steps(x[:rows], context[:rows]), steps[:rows])
        cases.assert_same_bits(flow.log_prob_steps(x[:rows, :11], context[:rows]), steps[:rows, :11])
        stream = flow.stream(rows, context=context[:rows])
        parts = [stream.push(x[:rows, part]) for part in (slice(0, 1), slice(1, 9), slice(9, 10), slice(10, None))]
        cases.assert_same_bits(np.concatenate(parts, axis=1), steps[:rows])
    drawn = flow.sample(20, STEPS, context, seed=3)
    for rows in (1, 5, 9):
        cases.assert_same_bits(flow.sample(rows, STEPS, context[:rows], seed=3), drawn[:rows])
        stream = flow.stream(rows, context=context[:rows])
        parts = [stream.pull(n, seed=3) for n in (1, 2, 30, STEPS - 33)]
        cases.assert_same_bits(np.concatenate(parts, axis=1), drawn[:rows])


def test_continuations_and_states():
    flow = flow_of("nsf", "covariates")
    context, covariates = beside(flow)
    x = sequence_cases.sequences(ROWS, STEPS, 2)
    rest = flow.given(x[:, :25], context, covariates)
    cases.assert_same_bits(rest.log_prob_steps(x[:, 25:]), flow.log_prob_steps(x, context, covariates)[:, 25:])
    assert rest.sample(4, steps=10, seed=0).shape == (4, ROWS, 10, 2)
    stream = flow.stream(ROWS, context=context, covariates=covariates)
    stream.push(x[:, :25])
    again = flow.stream(state=stream.state())
    cases.assert_same_bits(again.push(x[:, 25:]), stream.copies(1).push(x[:, 25:]))


def test_parameters_by_name_copies_and_dtypes():
    flow = flow_of("maf")
    named = flow.named_parameters()
    name = "transforms.0.inner.transforms.0.layers.0.weight"
    assert named[name].shape == (64, 3 + 5)
    x = sequence_cases.sequences(2, 20, 3)
    before, other = flow.log_prob(x), copy.copy(flow)
    other.set_parameter(name, 0.5 * named[name])
    cases.assert_same_bits(flow.log_prob(x), before)
    assert (other.log_prob(x) != before).all()
    cases.assert_same_bits(flow.log_prob(x, parameters=other.parameters), other.log_prob(x))
    inner = other.transforms[0].inner
    assert type(inner) is hr.MAF
    cases.assert_same_bits(inner.named_parameters()["transforms.0.layers.0.weight"], 0.5 * named[name])
    single = flow.astype("float32")
    assert single.transforms[0].inner.dtype == np.float32
    np.testing.assert_allclose(single.log_prob(x), before, rtol=1e-4)
    assert flow.n_parameters == sum(t.n_parameters for t in flow.transforms)


def test_an_inner_flow_is_copied():
    inner = hr.MAF(2, context=3, transforms=1, hidden=(4,), dtype="float64")
    flow = hr.WaveNet(2, layers=2, channels=4, inner=inner, dtype="float64")
    x = sequence_cases.sequences(1, 10, 2)
    before = flow.log_prob(x)
    inner.parameters = inner.parameters + 1.0
    cases.assert_same_bits(flow.log_prob(x), before)


@pairwise(name=list(INNER), side=list(SIDES), dtype=cases.DTYPES)
def test_gradients_against_differences(name, side, dtype):
    flow = flow_of(name, side, dtype)
    x, given = sequence_cases.sequences(ROWS, STEPS, flow.features, dtype), beside(flow)
    draw = cases.rng("inner gradient", name)
    weights = draw.standard_normal((ROWS, STEPS)).astype(dtype)
    kinds = ("inputs", "parameters") + ("context",) * bool(flow.context) + ("covariates",) * bool(flow.covariates)
    values, gradients = flow.log_prob_vjp(x, weights, *given, wrt=kinds, values=True)
    np.testing.assert_array_equal(values, flow.log_prob_steps(x, *given))
    wide = flow.astype("float64")
    mask = copy.copy(wide)
    mask.parameters = np.ones(flow.parameters.size)
    names = ("inputs", "context", "covariates", "parameters")
    values = (x, *given, wide.parameters)
    arrays = {n: None if a is None else a.astype("float64") for n, a in zip(names, values, strict=True)}
    for kind, gradient in zip(kinds, gradients, strict=True):
        assert gradient.dtype == dtype
        direction = draw.standard_normal(gradient.shape)
        if kind == "parameters":
            direction *= mask.parameters != 0  # padding stays zero

        def number(h, kind=kind, direction=direction):
            moved = arrays | {kind: arrays[kind] + h * direction}
            log_prob = wide.log_prob_steps(
                moved["inputs"], moved["context"], moved["covariates"], parameters=moved["parameters"]
            )
            return float((log_prob * weights).sum())

        h = 1e-6
        difference = (number(h) - number(-h)) / (2 * h)
        exact = float((gradient.astype("float64") * direction).sum())
        size = np.linalg.norm(gradient.astype("float64")) * max(1.0, np.sqrt(direction.size) / 30)
        # A central difference has errors by rounding, divided by h, and by kinks of rectifiers, as in
        # test_sequence_gradients.
        assert abs(difference - exact) <= {"float64": 3e-6, "float32": 3e-3}[dtype] * max(size, 1.0), kind


@pytest.mark.parametrize("reads", cases.READS)
def test_gradients_of_both_sides(reads):
    """Gradients of the parallel direction by each value pass through two convolutions."""
    flow = flow_of("nsf", "context", reads=reads, transforms=2)
    x, (context, _) = sequence_cases.sequences(2, 9, 2), beside(flow, 2)
    draw = cases.rng("both sides")
    by_value, by_log_det = draw.standard_normal(x.shape), draw.standard_normal(2)
    run, back = (flow.to_latent, flow.to_latent_vjp) if reads == "data" else (flow.to_data, flow.to_data_vjp)
    (gradient,) = back(x, by_value, by_log_det, context, wrt="inputs")

    def number(x):
        value, log_det = run(x, context)
        return (value * by_value).sum() + (log_det * by_log_det).sum()

    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        difference = (number(x + step) - number(x - step)) / 2e-6
        np.testing.assert_allclose(gradient[index], difference, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_gradients_by_values_have_the_same_bits_alone(dtype):
    flow = flow_of("maf", dtype=dtype)
    x = sequence_cases.sequences(9, 5, 3, dtype)
    whole = flow.log_prob_vjp(x, np.ones(9), wrt="inputs")[0]
    for rows in (1, 2, 4):
        cases.assert_same_bits(flow.log_prob_vjp(x[:rows], np.ones(rows), wrt="inputs")[0], whole[:rows])


def test_any_number_of_threads():
    flow = flow_of("nsf", "context")
    x, (context, _) = sequence_cases.sequences(50, STEPS, 2), beside(flow, 50)
    weights = cases.rng("threads").standard_normal(50)

    def results():
        by = flow.log_prob_vjp(x, weights, context, wrt=("inputs", "parameters", "context"))
        return [flow.log_prob_steps(x, context), flow.sample(50, STEPS, context, seed=1), *by]

    with hr.threads(1):
        want = results()
    with hr.threads(3):
        for a, b in zip(results(), want, strict=True):
            cases.assert_same_bits(a, b)


def test_gradients_of_lists():
    flow = flow_of("maf")
    x = sequence_cases.sequences(3, 30, 3)
    parts = [x[0], x[1, :4], x[2, :17]]
    by_x, by_parameters = flow.log_prob_vjp(parts, np.ones(3))
    alone = [flow.log_prob_vjp(one, np.ones(())) for one in parts]
    for got, (want, _) in zip(by_x, alone, strict=True):
        cases.assert_same_bits(got, want)
    want = sum(own for _, own in alone)
    np.testing.assert_allclose(by_parameters, want, rtol=0, atol=1e-12 * np.abs(want).max())


def test_modules_of_frameworks_have_these_gradients():
    torch = pytest.importorskip("torch")
    from headrace.torch import SequenceModule

    flow = flow_of("maf")
    x = sequence_cases.sequences(2, 8, 3)
    given = torch.tensor(x, requires_grad=True)
    module = SequenceModule(flow)
    module.log_prob(given).sum().backward()
    by_x, by_parameters = flow.log_prob_vjp(x, np.ones(2))
    np.testing.assert_array_equal(given.grad.numpy(), by_x)
    (own,) = module.parameters()
    np.testing.assert_array_equal(own.grad.numpy(), by_parameters)


def test_training_lowers_the_loss():
    flow = hr.WaveNet(2, layers=3, channels=8, seed=0)
    x = sequence_cases.sequences(8, 100, 2, "float32")
    x[..., 1] = x[..., 0] ** 2 / 2  # the two values of a step depend on each other
    adam, first = hr.Adam(flow, learning_rate=1e-2, weight_decay=1e-3), flow.nll_and_grad(x)[0]
    for _ in range(30):
        adam.step(flow.nll_and_grad(x)[1])
    assert flow.nll_and_grad(x)[0] < first - 0.5


def test_default_inner_flows_of_wavenet():
    def inner(*features, **more):
        return hr.WaveNet(*features, layers=2, channels=6, **more).transforms[0].inner

    assert inner() is None
    assert type(inner(2)) is hr.NSF
    assert inner(2).context == 6
    assert inner(2, skip=9).context == 9
    assert type(inner(2, inner="maf", reads="latent")) is hr.MAF
    assert type(inner(1, inner="nsf")) is hr.NSF
    for more in ({"map": "affine"}, {"bins": 5}, {"map": "rq_spline", "bound": 3.0}):
        assert inner(2, **more) is None
    assert isinstance(hr.WaveNet(2, layers=2).base, hr.StandardNormal)
    assert isinstance(hr.WaveNet(2, layers=2, bins=5).base, hr.Logistic)
    a, b = (t.inner.parameters for t in hr.WaveNet(2, layers=2, transforms=2).transforms[:2])
    assert (a != b).any()


REFUSED = {
    "no flow": (3, TypeError, "inner: expected a headrace.Flow with context, got int"),
    "without context": (hr.MAF(2), ValueError, "inner: expected a flow with context"),
    "other features": (hr.MAF(3, context=4), ValueError, "inner: expected a flow of 2 features, got 3"),
    "another dtype": (hr.MAF(2, 4, dtype="float64"), ValueError, "inner: expected a flow of float32.* got float64"),
    "another base": (hr.MAF(2, 4, base=hr.Normal(2)), ValueError, "inner: expected a flow on StandardNormal"),
    "rounded products": (hr.MAF(2, 4, matmul="bf16"), ValueError, "inner: expected one on the CPU with exact"),
    "a transform": (hr.transforms.MaskedAutoregressive(2, context=4), TypeError, "inner: expected a headrace.Flow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_inner_flows(name):
    inner, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        hr.CausalConvolution(2, dilations=[1], inner=inner)


def test_refused_combinations_with_inner_flows():
    inner = hr.MAF(2, context=4)
    with pytest.raises(ValueError, match="bins: expected no setting of a map beside an inner flow"):
        hr.CausalConvolution(2, dilations=[1], inner=inner, map="rq_spline", bins=5)
    with pytest.raises(ValueError, match="map: expected no setting of a map beside an inner flow"):
        hr.WaveNet(2, layers=2, inner="nsf", map="affine")
    with pytest.raises(ValueError, match="inner: expected one of 'nsf', 'maf', got 'iaf'"):
        hr.WaveNet(2, layers=2, inner="iaf")
    flow = hr.WaveNet(2, layers=2, base=hr.Logistic(2))
    with pytest.raises(ValueError, match=r"quantised: expected None but .* without an inner flow"):
        flow.log_prob(np.zeros((5, 2), "int16"), quantised=1)
