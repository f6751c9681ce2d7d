"""The core of causal networks: values against plain loops, and bits that depend on nothing but a position's field.

Streams of few rows, panels of many rows, windows and chunks have separate kernels. All kernels add the terms of a sum
in one order, so that the outputs of a position have the same bits in all of them: tests compare by `==`, never with a
tolerance.
"""

import itertools
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace._core import cpu

DTYPES = ("float32", "float64")
# Tolerances of raw outputs of order one: sums of some hundred products, in at most nine layers.
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


@dataclass
class Case:
    """The sizes of a network, random weights for it, and data that it can read."""

    inputs: int = 1
    channels: int = 8
    skip: int = 8
    kernel: int = 2
    dilations: tuple = (1, 2, 4, 8, 16)
    context: int = 0
    covariates: int = 0
    hop: int = 1
    dtype: str = "float32"
    network: object = field(init=False)

    def __post_init__(self):
        self.network = cpu.CausalConvolution(
            inputs=self.inputs,
            channels=self.channels,
            skip=self.skip,
            kernel=self.kernel,
            dilations=self.dilations,
            outputs=2 * self.inputs,
            context=self.context,
            covariates=self.covariates,
            hop=self.hop,
        )
        rng = np.random.default_rng(0)
        self.tensors = {
            name: (rng.standard_normal(shape) * (0.7 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1)).astype(
                self.dtype
            )
            for name, shape in self.network.tensors
        }
        self.weights = self.network.pack(list(self.tensors.values()))

    def transform(self, **options):
        made = cpu.CausalTransformF32 if self.dtype == "float32" else cpu.CausalTransformF64
        return made(self.network, True, **({"map": "affine", "variant": "exp"} | options))

    def data(self, rows, steps, seed=1):
        rng = np.random.default_rng(seed)
        frames = -(-steps // self.hop)
        beside = {}
        if self.context:
            beside["context"] = rng.standard_normal((rows, self.context)).astype(self.dtype)
        if self.covariates:
            beside["covariates"] = rng.standard_normal((rows, frames, self.covariates)).astype(self.dtype)
        return rng.standard_normal((rows, steps, self.inputs)).astype(self.dtype), beside

    def run(self, verb, given, transform=None, state=None, **beside):
        """The value, the log-derivative and the raw outputs of a call."""
        rows, steps, inputs = given.shape
        results = {
            "value": np.full((rows, steps, inputs), np.nan, self.dtype),
            "log_det": np.full((rows, steps), np.nan, self.dtype),
            "raw": np.full((rows, steps, 2 * inputs), np.nan, self.dtype),
        }
        getattr(transform or self.transform(), verb)(self.weights, given, **results, state=state, **beside)
        return results

    def reference(self, v, context=None, covariates=None):
        """The raw outputs of one sequence, by loops over positions in float64."""
        w = {name: tensor.astype(float) for name, tensor in self.tensors.items()}
        steps, k, v = len(v), self.kernel, v.astype(float)

        def taps(values, weight, dilation, shift):
            sums = np.zeros((steps, len(weight)))
            for t, tap in itertools.product(range(steps), range(k)):
                at = t - shift - (k - 1 - tap) * dilation
                if at >= 0:
                    sums[t] += weight[:, :, tap] @ values[at]
            return sums

        h = w["input.bias"] + taps(v, w["input.weight"], 1, 1)
        skip = np.zeros((steps, self.skip))
        for layer, dilation in enumerate(self.dilations):
            name = f"layers.{layer}."
            a = w[name + "gate.bias"] + taps(h, w[name + "gate.weight"], dilation, 0)
            if context is not None:
                a += w[name + "gate.context"] @ context
            if covariates is not None:
                products = covariates.astype(float) @ w[name + "gate.covariates"].T
                times, frames = np.arange(steps) / self.hop, np.arange(len(products))
                a += np.transpose([np.interp(times, frames, column) for column in products.T])
            z = np.tanh(a[:, : self.channels]) / (1 + np.exp(-a[:, self.channels :]))
            out = w[name + "out.bias"] + z @ w[name + "out.weight"].T
            skip += out[:, -self.skip :]
            if layer + 1 < len(self.dilations):
                h = h + out[:, : self.channels]
        hidden = np.maximum(0, w["head.0.bias"] + np.maximum(0, skip) @ w["head.0.weight"].T)
        return w["head.1.bias"] + hidden @ w["head.1.weight"].T


CASES = {
    "plain": {},
    "widths beside vectors": {"inputs": 2, "channels": 12, "skip": 20, "kernel": 3, "dilations": (1, 2, 9, 4)},
    "context": {"inputs": 2, "channels": 5, "skip": 7, "dilations": (1, 8), "context": 3},
    "covariates": {"inputs": 3, "channels": 16, "skip": 4, "kernel": 3, "dilations": (1, 16, 8), "covariates": 3},
    "frames": {"channels": 40, "skip": 33, "dilations": (1, 8, 2), "context": 2, "covariates": 4, "hop": 7},
}


@pytest.fixture(params=itertools.product(CASES, DTYPES), ids=" ".join)
def case(request):
    name, dtype = request.param
    return Case(**CASES[name], dtype=dtype)


def pieces(steps, lengths):
    """Yield slices that together cover `steps` steps; their lengths are `lengths`, repeated."""
    begin = 0
    for length in itertools.cycle(lengths):
        if begin == steps:
            return
        end = min(steps, begin + length)
        yield slice(begin, end)
        begin = end


def assert_same_bits(got, wanted, part=slice(None)):
    for name, result in got.items():
        np.testing.assert_array_equal(result, wanted[name][:, part], err_msg=name)


@pytest.mark.parametrize("steps", [1, 5, 150])
def test_outputs_are_those_of_plain_loops(case, steps):
    v, beside = case.data(2, steps)
    raw = case.run("parallel", v, **beside)["raw"]
    for row in range(2):
        wanted = case.reference(v[row], **{name: array[row] for name, array in beside.items()})
        np.testing.assert_allclose(raw[row], wanted, atol=TOLERANCE[case.dtype], rtol=TOLERANCE[case.dtype])


def test_the_map_is_that_of_ops(case):
    x, beside = case.data(3, 20)
    result = case.run("parallel", x, **beside)
    rows = x.reshape(60, -1)
    params = result["raw"].reshape(60, case.inputs, 2)
    z, log_det = hr.ops.coupling(rows, params, map="affine", scale="exp", direction="inverse")
    np.testing.assert_array_equal(result["value"].reshape(rows.shape), z)
    np.testing.assert_array_equal(result["log_det"].reshape(60), log_det)


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 40), (8, 9), (16, 70), (17, 3), (48, 150), (49, 20)])
def test_both_directions_and_all_pieces_have_the_same_bits(case, rows, steps):
    z, beside = case.data(rows, steps)
    whole = case.run("sequential", z, **beside)
    back = case.run("parallel", whole["value"], **beside)
    np.testing.assert_array_equal(back["raw"], whole["raw"])
    tolerance = 1e-3 if case.dtype == "float32" else 1e-10
    np.testing.assert_allclose(back["value"], z, atol=tolerance)
    np.testing.assert_allclose(back["log_det"], -whole["log_det"], atol=tolerance)
    for lengths in [(1, 7), (3, 65, 1, 8), (steps,)]:
        transform = case.transform()
        pushed, pulled, both = (transform.streams(rows) for _ in range(3))
        for i, part in enumerate(pieces(steps, lengths)):
            x = whole["value"][:, part]
            assert_same_bits(case.run("parallel", x, transform, pushed, **beside), back, part)
            assert_same_bits(case.run("sequential", z[:, part], transform, pulled, **beside), whole, part)
            verb, given, wanted = (("parallel", x, back), ("sequential", z[:, part], whole))[i % 2]
            both = restored(transform, both)
            assert_same_bits(case.run(verb, given, transform, both, **beside), wanted, part)
        assert pushed.position == pulled.position == both.position == steps
        np.testing.assert_array_equal(pushed.to_array(), pulled.to_array())
        np.testing.assert_array_equal(pushed.to_array(), both.to_array())


def restored(transform, state):
    """A new state that is restored from the arrays of the given one."""
    other = transform.streams(state.rows)
    other.set_array(state.to_array(), state.position)
    return other


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_threads_and_companions_do_not_matter(case, rows):
    v, beside = case.data(rows, 300)
    before = cpu.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            cpu.set_num_threads(threads)
            results.append(case.run("parallel", v, **beside) | {"x": case.run("sequential", v, **beside)["value"]})
    finally:
        cpu.set_num_threads(before)
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])
    alone = {name: array[-1:] for name, array in beside.items()}
    last = {name: result[-1:] for name, result in results[0].items()}
    assert_same_bits(case.run("parallel", v[-1:], **alone), last)
    np.testing.assert_array_equal(case.run("sequential", v[-1:], **alone)["value"], last["x"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 17])
def test_large_dilations_and_chunks_of_long_rows(dtype, rows):
    case = Case(kernel=3, dilations=(512, 1, 2), covariates=2, hop=10, dtype=dtype)
    steps = 9000 if rows == 1 else 1300
    z, beside = case.data(rows, steps)
    x = case.run("sequential", z, **beside)
    before = cpu.num_threads()
    try:
        cpu.set_num_threads(3)  # a row of 9000 steps is divided among the threads
        np.testing.assert_array_equal(case.run("parallel", x["value"], **beside)["raw"], x["raw"])
    finally:
        cpu.set_num_threads(before)
    if rows == 1:
        wanted = case.reference(x["value"][0, :1200], covariates=beside["covariates"][0])
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(x["raw"][0, :1200], wanted, atol=tolerance, rtol=tolerance)


def test_outputs_depend_on_the_field_alone(case):
    field, steps = case.network.field, 80
    assert field == case.kernel + (case.kernel - 1) * sum(case.dilations)
    v, beside = case.data(1, steps)
    raw = case.run("parallel", v, **beside)["raw"]
    moved = v.copy()
    moved[0, steps - 2 - field] += 1
    np.testing.assert_array_equal(case.run("parallel", moved, **beside)["raw"][0, -1], raw[0, -1])
    moved = v.copy()
    moved[0, steps - 1 - field] += 1
    assert (case.run("parallel", moved, **beside)["raw"][0, -1] != raw[0, -1]).any()
    moved = v.copy()
    moved[0, 40:] = np.nan
    np.testing.assert_array_equal(case.run("parallel", moved, **beside)["raw"][0, :41], raw[0, :41])


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows_of_few_steps(dtype):
    case = Case(inputs=2, kernel=3, dilations=(1, 4, 16), context=2, dtype=dtype)
    v, beside = case.data(200, 20)
    long = case.run("parallel", v, **beside)
    for steps in (1, 3, 15):
        assert_same_bits(case.run("parallel", v[:, :steps], **beside), long, slice(steps))
        x = case.run("sequential", long["value"][:, :steps], **beside)
        np.testing.assert_array_equal(case.run("parallel", x["value"], **beside)["raw"], x["raw"])


def test_copies_of_a_state_go_on_alike(case):
    z, beside = case.data(20, 90)
    transform = case.transform()
    state = transform.streams(20)
    first = np.ascontiguousarray(z[:, :50])
    case.run("sequential", first, transform, state, **beside)
    chosen = [3, 19, 3, 0]
    copies = state.rows_of(chosen)
    rest = case.run("sequential", z[:, 50:], transform, state, **beside)
    own = {name: array[chosen] for name, array in beside.items()}
    again = case.run("sequential", z[chosen][:, 50:], transform, copies, **own)
    assert_same_bits(again, {name: result[chosen] for name, result in rest.items()})


def test_one_context_and_covariates_for_all_rows():
    case = Case(**CASES["frames"])
    v, beside = case.data(18, 40)
    one = {name: array[:1] for name, array in beside.items()}
    all_rows = {name: np.repeat(array, 18, 0) for name, array in one.items()}
    for verb in ("parallel", "sequential"):
        assert_same_bits(case.run(verb, v, **one), case.run(verb, v, **all_rows))


def test_frames_may_begin_at_those_of_the_call():
    case = Case(**CASES["frames"])
    v, beside = case.data(2, 40)
    whole = case.run("parallel", v, **beside)
    transform = case.transform()
    state = transform.streams(2)
    case.run("parallel", v[:, :20], transform, state, **beside)
    later = {"context": beside["context"], "covariates": np.ascontiguousarray(beside["covariates"][:, 2:])}
    rest = case.run("parallel", v[:, 20:], transform, state, first_frame=2, **later)
    assert_same_bits(rest, whole, slice(20, None))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_in_any_strides_and_of_the_other_dtype(dtype):
    case = Case(inputs=2, dtype=dtype)
    v, _ = case.data(3, 30)
    wanted = case.run("parallel", v)
    turned = np.asfortranarray(np.repeat(v, 2, 1))[:, ::2]
    assert_same_bits(case.run("parallel", turned), wanted)
    single = v.astype("float32")
    assert_same_bits(case.run("parallel", single.astype("float64")), case.run("parallel", single.astype(dtype)))


@pytest.mark.parametrize("rows", [1, 5, 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_inner_flow_has_the_outputs_as_its_context(dtype, rows):
    case = Case(inputs=3, dtype=dtype)
    layer = hr.transforms.MaskedAutoregressive(3, (8,), context=6, dtype=dtype, seed=2)
    layer.parameters = 0.5 * np.random.default_rng(3).standard_normal(layer.parameters.size).astype(dtype)
    transform = case.transform(map="", variant="", inner=layer._program)
    z, _ = case.data(rows, 70)
    pulled = case.run("sequential", z, transform)
    pushed = case.run("parallel", pulled["value"], transform)
    np.testing.assert_array_equal(pushed["raw"], pulled["raw"])
    np.testing.assert_allclose(pushed["value"], z, atol=1e-3 if dtype == "float32" else 1e-10)
    flat = pulled["value"].reshape(-1, 3), pulled["raw"].reshape(-1, 6)
    latent, log_det = layer.inverse(flat[0], context=flat[1])
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(pushed["value"].reshape(-1, 3), latent, atol=tolerance)
    np.testing.assert_allclose(pushed["log_det"].reshape(-1), log_det, atol=tolerance)
    state = transform.streams(rows)
    for part in pieces(70, (1, 9, 20)):
        assert_same_bits(case.run("parallel", pulled["value"][:, part], transform, state), pushed, part)


def test_tensors_and_the_vector_of_weights(case):
    names = [name for name, _ in case.network.tensors]
    assert len(set(names)) == len(names)
    again = case.network.unpack(case.weights)
    for name, tensor in zip(names, again, strict=True):
        np.testing.assert_array_equal(tensor, case.tensors[name], err_msg=name)
    parts = case.network.parts()
    assert parts[0][0] == 0
    assert parts[-1][1] == case.network.n_weights == case.weights.size
    assert all(end == begin for (_, end, _), (begin, _, _) in itertools.pairwise(parts))
    assert np.count_nonzero(case.weights) == sum(np.count_nonzero(tensor) for tensor in again)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": 0}, "inputs: expected from 1 to"),
        ({"channels": 0}, "channels: expected from 1 to"),
        ({"skip": 0}, "skip: expected from 1 to"),
        ({"kernel": 1}, "kernel: expected from 2 to 32, got 1"),
        ({"kernel": 33}, "kernel: expected from 2 to 32, got 33"),
        ({"dilations": ()}, "dilations: expected one for each"),
        ({"dilations": (1, 0)}, "dilations: expected from 1 to"),
        ({"hop": 0}, "hop: expected from 1 to"),
        ({"channels": 1 << 20}, "channels, skip: expected fewer weights"),
    ],
)
def test_impossible_sizes_of_networks_are_refused(changed, message):
    sizes = {"inputs": 1, "channels": 4, "skip": 4, "kernel": 2, "dilations": (1, 2), "outputs": 2}
    with pytest.raises(ValueError, match=message):
        cpu.CausalConvolution(**sizes | changed)


def test_arguments_that_do_not_fit_the_network_are_refused():
    case = Case(context=2, covariates=1, hop=4)
    v, beside = case.data(2, 10)
    transform = case.transform()

    def refused(message, weights=None, given=v, **changed):
        with pytest.raises(ValueError, match=message):
            transform.parallel(case.weights if weights is None else weights, given, **beside | changed)

    refused("weights: ", weights=case.weights[:-1])
    refused("weights: ", weights=case.weights.astype("float64"))
    refused("given: ", given=v[0])
    refused("given: ", given=v.astype(int))
    refused("given: ", given=np.repeat(v, 2, 2))
    refused("context: ", context=None)
    refused("context: ", context=beside["context"][:, :1])
    refused("covariates: ", covariates=None)
    refused("covariates: expected a frame", covariates=beside["covariates"][:, :2].copy())
    refused("covariates: expected a frame", first_frame=1)
    refused("value: ", value=np.zeros((2, 10), "float32"))
    refused("raw: ", raw=np.zeros((2, 10, 1), "float32"))
    refused("state: expected one of as many rows", state=transform.streams(3))
    refused("state: expected one of this network", state=Case(channels=9).transform().streams(2))
    with pytest.raises(ValueError, match="outputs: expected 23"):
        case.transform(map="rq_spline", variant="", bins=8)
    with pytest.raises(ValueError, match="expected a transform with a map"):
        case.transform(map="", variant="").parallel(case.weights, v, **beside)


def test_a_state_is_for_one_call_at_a_time():
    case = Case(channels=32, skip=32)
    transform = case.transform()
    state = transform.streams(1)
    z = np.zeros((1, 20_000, 1), "float32")
    wanted = case.run("sequential", z)["value"]
    refusals, parts = [], []

    def pull():
        value = np.empty_like(z)
        try:
            transform.sequential(case.weights, z, value=value, state=state)
        except ValueError as error:
            refusals.append(str(error))
        else:
            parts.append(value)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.position == len(parts) * 20_000
    assert all("another call has it" in refusal for refusal in refusals)
    assert any((part == wanted).all() for part in parts)


INTERRUPTED = """
import signal, sys
import numpy as np
from headrace._core import cpu
network = cpu.CausalConvolution(inputs=1, channels=32, skip=32, kernel=2, dilations=[1, 2, 4] * 4, outputs=2)
weights = network.pack([np.zeros(shape, "float32") for _, shape in network.tensors])
transform = cpu.CausalTransformF32(network, True, map="affine", variant="exp")
state = transform.streams(1)
z = np.zeros((1, 50_000_000, 1), "float32")
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    transform.sequential(weights, z, value=z, state=state)
except KeyboardInterrupt:
    try:
        state.to_array()
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no timers that send signals")
def test_a_state_cannot_be_used_after_an_interrupted_call():
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True, timeout=120)
    assert "interrupted" in ran.stdout


PROMISES = "both_directions or plain_loops or large_dilations or streams_and_continuations or densities_values"


@pytest.mark.parametrize("choice", ["--thin", pytest.param("-q", id="all", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("isa", cpu.isas()[:-1])
def test_every_instruction_set_passes_these_tests(isa, choice):
    """Each instruction set runs this file and the tests of rounded weights in one process.

    By day only the best instruction set runs all cases, and at night all other sets do.
    """
    files = __file__, Path(__file__).with_name("test_rounded_weights.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", choice, "-p", "no:cacheprovider", *files, "-k", PROMISES]
    environment = os.environ | {"HEADRACE_ISA": isa}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stdout
