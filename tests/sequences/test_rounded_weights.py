"""Flows of sequences with weights in bf16: all results have the bits of a float32 flow with rounded weights.

Streams read pairs of weights in bf16, and all other calls read the rounded weights in float32. Results of streams and
of other calls are compared, by `==`, with those of an exact flow whose weights were rounded.
"""

import copy
import pickle

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from headrace._core import cpu
from pairs import pairwise
from reference.bf16 import LEAST_WEIGHT, rounded

# ROWS is one stream more than a panel; STEPS is more than a window, and more than the steps that are computed ahead.
ROWS, STEPS = 17, 70


def flow_of(name, dtype="float32"):
    """The flow named `name`; products have odd and even numbers of inputs, and every kind of input occurs."""
    more = {"channels": 9, "skip": 12, "kernel": 3, "dtype": dtype}
    if name == "teacher":
        return sequence_cases.wavenet(name, dilations=[1, 2, 5, 11, 8], **more)
    if name == "student":
        return sequence_cases.wavenet(name, reads="latent", map="affine", layers=4, transforms=2, **more)
    if name == "inner":
        inner = hr.NSF(3, context=4, transforms=2, hidden=(6,), link="random", dtype=dtype)
        return sequence_cases.wavenet(name, features=3, inner=inner, layers=4, **more)
    if name == "beside":
        return sequence_cases.wavenet(name, context=3, covariates=2, hop=6, layers=4, **(more | {"kernel": 2}))
    return sequence_cases.chain(dtype)


NAMES = ["teacher", "student", "inner", "beside", "chain"]


def is_rounded(name, array):
    """Whether a parameter is a weight of a product in a causal network; biases and weights of other transforms are
    not."""
    of_network = "inner." not in name and any(part in name for part in (".input.", ".gate.", ".out.", ".head."))
    return of_network and not name.endswith("bias") and array.ndim > 1


def with_rounded_weights(flow):
    """An exact flow whose parameters are the rounded weights."""
    flow = flow.to("cpu")
    for name, array in flow.named_parameters().items():
        if is_rounded(name, array):
            flow.set_parameter(name, rounded(array, LEAST_WEIGHT))
    return flow


def beside(flow, rows, steps=STEPS):
    return sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, steps)


@pytest.fixture(scope="module", params=NAMES)
def both(request):
    """A flow with weights in bf16, an exact flow with the rounded weights, and sequences."""
    flow = flow_of(request.param)
    return flow.to("cpu", "bf16"), with_rounded_weights(flow), sequence_cases.sequences(ROWS, STEPS, flow.features)


def test_some_weights_are_rounded(both):
    flow, exact, x = both
    names = [name for name, array in exact.named_parameters().items() if is_rounded(name, array)]
    assert names
    for name, array in flow.named_parameters().items():
        assert (array != exact.named_parameters()[name]).any() == (name in names)
    given = beside(flow, ROWS)
    assert (flow.log_prob(x, *given) != flow.to("cpu").log_prob(x, *given)).all()


@pytest.mark.parametrize("rows", [1, 2, 5, 15, 16, ROWS])
def test_densities_values_and_samples(both, rows):
    flow, exact, x = both
    own = flow.log_prob_steps(x[:rows], *beside(flow, rows))
    cases.assert_same_bits(own, exact.log_prob_steps(x[:rows], *beside(flow, rows)))
    for verb in ("to_latent", "to_data"):
        got, want = (getattr(f, verb)(x[:rows], *beside(flow, rows)) for f in (flow, exact))
        cases.assert_same_bits(got[0], want[0])
        cases.assert_same_bits(got[1], want[1])
    drawn = (f.sample(rows, STEPS, *beside(flow, rows), seed=3) for f in (flow, exact))
    cases.assert_same_bits(*drawn)


@pytest.mark.parametrize("rows", [1, 3])
def test_streams_and_continuations(both, rows):
    flow, exact, x = both
    context, covariates = beside(flow, rows)
    results = []
    for one in (flow, exact):
        stream = one.stream(rows, context=context, covariates=covariates)
        parts = [stream.push(x[:rows, :1]), stream.push(x[:rows, 1:30]), stream.pull(1, seed=2), stream.pull(9, seed=2)]
        again = one.stream(state=stream.state())
        paths = stream.copies(2).pull(7, seed=1)
        rest = one.given(x[:rows, :20], context, covariates).sample(2, steps=11, seed=4)
        results.append([*parts, again.pull(5, seed=2), paths, rest])
    for got, want in zip(*results, strict=True):
        cases.assert_same_bits(got, want)


@pairwise(reads=cases.READS, rows=[1, 2, 4, 7, 16, 19], kernel=[2, 3, 4], channels=[1, 2, 15, 16, 33])
def test_the_network_has_the_same_bits_in_both_directions(reads, rows, kernel, channels):
    """Outputs step by step, from pairs of bf16 weights, equal those of the finished sequence from float32 weights."""
    dilations = [1, 2, 4, 9, 16]
    t = hr.CausalConvolution(2, channels=channels, skip=3, kernel=kernel, dilations=dilations, reads=reads)
    sequence_cases.randomise(t, "raw")
    network = t._structure
    weights = np.empty(network.n_weights + network.n_pairs, np.float32)
    network.round(t.parameters, weights)
    core = cpu.CausalTransformF32(network, reads == "data", **t._settings.map_options())
    given = cases.rng("given", rows).standard_normal((rows, STEPS, 2)).astype(np.float32)
    value, back, log_det = np.empty_like(given), np.empty_like(given), np.empty(given.shape[:2], np.float32)
    raw, again, plain = (np.empty((rows, STEPS, 4), np.float32) for _ in range(3))
    core.sequential(weights, given, value, log_det, raw)
    core.parallel(weights, value, back, log_det, again)
    core.sequential(weights[: network.n_weights], given, value, log_det, plain)
    cases.assert_same_bits(raw, again)
    cases.assert_same_bits(raw, plain)
    assert raw.std() > 0.1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "chain"])
def test_gradients_are_those_at_the_rounded_weights(name):
    """Gradients of the flow "chain" are not tested, because neither of its directions computes all steps at once."""
    flow = flow_of(name)
    flow, exact = flow.to("cpu", "bf16"), with_rounded_weights(flow)
    x, given = sequence_cases.sequences(3, 40, flow.features), beside(flow, 3, 40)
    if name == "student":
        got, want = (f.to_data_vjp(x, np.ones_like(x), np.ones(3, np.float32)) for f in (flow, exact))
    else:
        got, want = (f.nll_and_grad(x, *given, wrt=("inputs", "parameters")) for f in (flow, exact))
    for a, b in zip(got, want, strict=True):
        cases.assert_same_bits(np.asarray(a), np.asarray(b))
    assert len(got[-1]) == len(flow.parameters)


def test_parameters_stay_in_float32_and_new_ones_are_rounded():
    flow = flow_of("teacher")
    own = flow.to("cpu", "bf16")
    x = sequence_cases.sequences(2, 30)
    cases.assert_same_bits(own.parameters, flow.parameters)
    other = sequence_cases.randomise(flow.to("cpu"), "other")
    want = with_rounded_weights(other)
    cases.assert_same_bits(own.log_prob(x, parameters=other.parameters), want.log_prob(x))
    own.parameters = other.parameters
    cases.assert_same_bits(own.log_prob(x), want.log_prob(x))
    cases.assert_same_bits(own.sample(1, 30, seed=0), want.sample(1, 30, seed=0))
    adam = hr.Adam(own, learning_rate=1e-3)
    adam.step(own.nll_and_grad(x)[1])
    assert (own.parameters != rounded(own.parameters, LEAST_WEIGHT)).any()
    stepped = flow.to("cpu")
    stepped.parameters = own.parameters
    cases.assert_same_bits(own.log_prob(x), with_rounded_weights(stepped).log_prob(x))


@pytest.mark.parametrize("name", NAMES)
def test_copies_pickles_and_files_keep_rounded_weights(name, tmp_path):
    flow = flow_of(name).to("cpu", "bf16")
    flow.save(tmp_path / "flow")
    x, given = sequence_cases.sequences(2, 20, flow.features), beside(flow, 2, 20)
    made = [hr.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow)), copy.copy(flow), copy.deepcopy(flow)]
    made.append(hr.SequenceFlow(flow.transforms, flow.base))
    for other in made:
        assert other.matmul == "bf16"
        cases.assert_same_bits(other.parameters, flow.parameters)
        cases.assert_same_bits(other.log_prob(x, *given), flow.log_prob(x, *given))
    exact = flow.to("cpu")
    assert exact.matmul == "exact"
    cases.assert_same_bits(exact.log_prob(x, *given), flow_of(name).log_prob(x, *given))
    over_time = [t for t in flow.transforms if isinstance(t, hr.CausalConvolution)]
    assert {t.matmul for t in over_time} == {"bf16"}
    assert "matmul='bf16'" in repr(flow)


def test_matmul_of_constructors():
    wavenet = hr.WaveNet(layers=2, channels=4, matmul="bf16", seed=1)
    assert wavenet.matmul == wavenet.transforms[0].matmul == "bf16"
    x = sequence_cases.sequences(2, 9)
    again = hr.WaveNet(layers=2, channels=4, seed=1).to("cpu", "bf16")
    cases.assert_same_bits(again.log_prob(x), wavenet.log_prob(x))
    t = hr.CausalConvolution(channels=4, dilations=[1])
    assert hr.SequenceFlow([t], matmul="bf16").matmul == "bf16"
    assert hr.SequenceFlow([t.to("cpu", "bf16")]).matmul == "bf16"
    assert hr.SequenceFlow([t.to("cpu", "bf16")], matmul="exact").matmul == "exact"


def test_small_weights_and_those_that_are_not_finite():
    """Weights below 2^-47 become zero, as in products of rows; NaN spoils only the results of its flow."""
    t = hr.CausalConvolution(channels=3, dilations=[1, 2])
    values = np.array([2.0**-47, 2.0**-48, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, np.inf, -np.inf, np.nan, -1e-40, 3e38, 0])
    weights = np.zeros(t._structure.n_weights, np.float32)
    of_gate = weights[16 * 2 + 16 :][: len(values)]
    of_gate[:] = values
    to = np.empty(t._structure.n_weights + t._structure.n_pairs, np.float32)
    t._structure.round(weights, to)
    want = np.array([2.0**-47, 0, 1.0, 1.0 + 2.0**-6, np.inf, -np.inf, np.nan, 0, 3e38, 0], np.float32)
    want[8] = rounded(np.float32(3e38), LEAST_WEIGHT)
    cases.assert_same_bits(to[16 * 2 + 16 :][: len(values)], want)
    flow = flow_of("teacher").to("cpu", "bf16")
    vector = flow.parameters
    vector[:] = np.nan
    flow.parameters = vector
    assert np.isnan(flow.sample(1, 20, seed=0)).any()


REFUSED = {
    "of float64": (
        lambda: flow_of("teacher", "float64").to("cpu", "bf16"),
        "dtype, matmul: expected float32 or 'exact'",
    ),
    "made in float64": (lambda: hr.WaveNet(dtype="float64", matmul="bf16"), "dtype, matmul: expected float32"),
    "to float64": (lambda: flow_of("teacher").to("cpu", "bf16").astype("float64"), "dtype, matmul: expected float32"),
    "of several parts": (
        lambda: flow_of("teacher").to("cpu", "bf16x3"),
        "matmul: expected one of 'exact', 'bf16', got",
    ),
    "of a device": (lambda: hr.WaveNet(matmul="tf32"), "matmul: expected one of 'exact', 'bf16', got 'tf32'"),
    "of two kinds": (
        lambda: hr.SequenceFlow([hr.CausalConvolution(), hr.CausalConvolution().to("cpu", "bf16")]),
        r"transforms: expected one matmul, got \['bf16', 'exact'\]; use .to",
    ),
    "of a transform of rows": (
        lambda: hr.SequenceFlow(
            [hr.CausalConvolution(2), hr.transforms.MaskedAutoregressive(2, (4,)).to("cpu", "bf16")]
        ),
        r"transforms\[1\]: expected one on the CPU with exact products",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_values_of_matmul(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_vector_of_another_size_is_refused():
    t = hr.CausalConvolution(channels=3, dilations=[1])
    network = t._structure
    core = cpu.CausalTransformF32(network, True, **t._settings.map_options())
    x, raw = np.zeros((1, 4, 1), np.float32), np.zeros((1, 4, 2), np.float32)
    for size in (network.n_weights - 16, network.n_weights + 16, network.n_weights + network.n_pairs + 16):
        with pytest.raises(ValueError, match="weights: the vector has the wrong size"):
            core.outputs(np.zeros(size, np.float32), x, raw)
    with pytest.raises(ValueError, match="to: expected a contiguous float32 vector, with room for pairs"):
        network.round(t.parameters, np.zeros(network.n_weights, np.float32))
    with pytest.raises(ValueError, match="weights: expected a contiguous float32 vector"):
        network.round(t.parameters[:-1], np.zeros(network.n_weights + network.n_pairs, np.float32))
