"""Flows of sequences on a device: every call on arrays of each library, and refusals that name the reason.

A simulated device, which uses the CPU's core, runs streams in the worst allowed order; the same calls also run on the
emulated CUDA sources. Tests of the kernels alone are in test_cuda_sequences.py.
"""

import copy

import numpy as np
import pytest

import cases
import fake_cuda
import headrace as hr
import sequence_cases
from device_cases import refuse
from devices import Library, either_order, in_place

FLOWS = {
    "a teacher": lambda dtype: sequence_cases.wavenet("teacher", dtype=dtype),
    "of several values": lambda dtype: sequence_cases.wavenet("values", features=2, map="affine", dtype=dtype),
    "a student": lambda dtype: sequence_cases.wavenet(
        "student", reads="latent", transforms=2, layers=2, map="affine", dtype=dtype
    ),
    "context, covariates": lambda dtype: sequence_cases.wavenet(
        "beside", context=2, covariates=3, hop=4, layers=2, standardize_context=([1.0, 2.0], [3.0, 0.5]), dtype=dtype
    ),
    "bounds": lambda dtype: sequence_cases.wavenet("bounds", layers=2, bounds=[(-50.0, None)], dtype=dtype),
    "chain": sequence_cases.chain,
}
CALLS = {
    "log_prob": lambda f, x, *beside: [f.log_prob(x, *beside)],
    "log_prob_steps": lambda f, x, *beside: [f.log_prob_steps(x, *beside)],
    "to_latent": lambda f, x, *beside: f.to_latent(x, *beside),
    "to_data": lambda f, x, *beside: f.to_data(x, *beside),
    "sample": lambda f, x, *beside: [f.sample(x.shape[0], x.shape[1], *beside, seed=3)],
}
every_call = pytest.mark.parametrize("call", CALLS)
every_flow = pytest.mark.parametrize("name", FLOWS)


@pytest.fixture
def cupy(machine):
    return Library("cupy", machine)


@pytest.fixture
def emulated(emu):
    with in_place(fake_cuda.Machine(inner=lambda machine: emu.module)) as machine:
        yield Library("cupy", machine)


def given_of(flow, rows=3, steps=70):
    x = sequence_cases.sequences(rows, steps, flow.features, flow.dtype)
    return x, sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, steps)


def on(library, given):
    return [None if array is None else library.make(array) for array in given]


def assert_near(got, want):
    cases.assert_close(got, want, magnitude=np.abs(want).max(initial=1.0), depth=300)


@every_call
@every_flow
def test_calls_on_the_kernels(emulated, name, call, dtype):
    """Samples are compared in float64, because rounding errors of float32 grow over 70 steps."""
    flow = FLOWS[name](dtype)
    given = given_of(flow)
    if dtype == "float32" and call in ("sample", "to_data") and name != "a student":
        given = [None if array is None else array[:, :8] if array.ndim == 3 else array for array in given]
    want = CALLS[call](flow, *given)
    got = CALLS[call](flow.to("cuda"), *on(emulated, given))
    for result, expected in zip(got, want, strict=True):
        assert_near(emulated.open(result), expected)


@every_call
@every_flow
def test_every_call_takes_arrays_of_every_library(library, name, call):
    flow = FLOWS[name]("float32")
    given = given_of(flow)
    device = flow.to("cuda")
    arrays = on(library, given)
    if call == "sample":
        arrays[0] = given[0]  # the array gives the shape of the sample
        if given[1] is None and given[2] is None:  # calls without arrays return CuPy's arrays
            library = Library("cupy", library.machine)
    got = CALLS[call](device, *arrays)
    for result, expected in zip(got, CALLS[call](flow, *given), strict=True):
        assert_near(library.open(result), expected)


@either_order
@every_call
def test_streams_of_the_caller(cupy, call):
    """Arrays are made, and results are read, on a stream whose work another stream may overtake."""
    flow = FLOWS["context, covariates"]("float64")
    given, stream = given_of(flow), cupy.machine.stream()
    device = flow.to("cuda")
    want = CALLS[call](flow, *given)
    with cupy.on(stream):
        got = [cupy.open(result) for result in CALLS[call](device, *on(cupy, given))]
    for result, expected in zip(got, want, strict=True):
        assert_near(result, expected)


@either_order
def test_weights_that_are_set_on_one_stream_are_read_on_another(cupy):
    flow, other = FLOWS["a student"]("float64"), FLOWS["a student"]("float64")
    device, x = flow.to("cuda"), given_of(flow)[0]
    want = 0.5 * flow.parameters
    first, second = cupy.machine.stream(), cupy.machine.stream()
    with cupy.on(first):
        device.parameters = cupy.make(want)
    with cupy.on(second):
        got = cupy.open(device.log_prob(cupy.make(x)))
    other.parameters = want
    assert_near(got, other.log_prob(x))
    cases.assert_same_bits(device.to("cpu").parameters, other.parameters)


def test_calls_do_not_wait(cupy):
    flow = FLOWS["context, covariates"]("float32")
    arrays, device = on(cupy, given_of(flow)), flow.to("cuda")
    for call in CALLS.values():
        cupy.machine.log.clear()
        call(device, *arrays)
        assert not cupy.machine.logged("sync")


@every_flow
def test_flows_of_sequences_move_to_a_device_and_back(cupy, name, tmp_path):
    flow = FLOWS[name]("float32")
    device = flow.to("cuda")
    assert (flow.device, device.device, device.matmul, type(device)) == ("cpu", "cuda:0", "exact", type(flow))
    x, context, covariates = given_of(flow)
    for back in (device.to("cpu"), device.to("cuda:0").to("cpu")):
        assert back.device == "cpu"
        cases.assert_same_bits(back.parameters, flow.parameters)
        cases.assert_same_bits(back.log_prob(x, context, covariates), flow.log_prob(x, context, covariates))
    for other in (copy.copy(device), device.astype("float64")):
        assert other.device == "cuda:0"
        assert_near(other.to("cpu").parameters, flow.parameters)
    device.save(tmp_path / "flow.safetensors")
    cases.assert_same_bits(hr.load(tmp_path / "flow.safetensors").parameters, flow.parameters)
    assert [t.device for t in device.transforms] == ["cpu"] * len(flow.transforms)
    assert repr(device) == repr(flow)


def test_parameters(cupy, dtype):
    flow = FLOWS["context, covariates"](dtype)
    device, (x, context, covariates) = flow.to("cuda"), given_of(flow)
    cases.assert_same_bits(device.parameters.get(), flow.parameters)
    for name, array in device.named_parameters().items():
        cases.assert_same_bits(array, flow.named_parameters()[name])
    other = np.full(flow.parameters.size, 0.01, dtype)
    device.parameters = cupy.make(other)
    flow.parameters = other  # entries of the vector that are no weights become zero
    cases.assert_same_bits(device.parameters.get(), flow.parameters)
    vector = (0.5 * flow.parameters).astype(dtype)
    got = device.log_prob(*on(cupy, (x, context, covariates)), parameters=cupy.make(vector))
    assert_near(cupy.open(got), flow.log_prob(x, context, covariates, parameters=vector))
    device.set_parameter("transforms.0.input.bias", flow.named_parameters()["transforms.0.input.bias"] + 1)
    assert (device.named_parameters()["transforms.0.input.bias"] > 0.5).all()


def test_shapes_of_calls(cupy):
    flow = FLOWS["context, covariates"]("float64")
    device, (x, context, covariates) = flow.to("cuda"), given_of(flow, 6, 20)
    want = flow.log_prob(x, context, covariates)
    one = device.log_prob(*on(cupy, (x[0], context[0], covariates[0])))
    assert one.shape == ()
    assert_near(cupy.open(one).reshape(1), want[:1])
    shaped = (x.reshape(2, 3, 20, 1), context.reshape(2, 3, 2), covariates.reshape(2, 3, 5, 3))
    steps = device.log_prob_steps(*on(cupy, shaped))
    assert steps.shape == (2, 3, 20)
    z, log_det = device.to_latent(*on(cupy, shaped))
    assert (z.shape, log_det.shape) == ((2, 3, 20, 1), (2, 3))
    assert_near(cupy.open(device.log_prob(*on(cupy, shaped))).reshape(6), want)
    assert device.log_prob(*on(cupy, (x[:0], context[:0], covariates[:0]))).shape == (0,)
    shared = flow.log_prob(x, context[0], covariates[0])
    assert_near(cupy.open(device.log_prob(*on(cupy, (x, context[0], covariates[0])))), shared)


def test_samples_are_those_of_their_seed(cupy):
    device = FLOWS["a teacher"]("float64").to("cuda")
    long, short = (device.sample(n, steps=steps, seed=1).get() for n, steps in ((3, 130), (2, 70)))
    cases.assert_same_bits(long[:2, :70], short)


def test_wrong_arguments(cupy):
    flow = FLOWS["context, covariates"]("float32")
    device, (x, context, covariates) = flow.to("cuda"), given_of(flow)
    there = on(cupy, (x, context, covariates))
    refuse(lambda: device.log_prob(x, *there[1:]), "x: expected an array on cuda:0")
    refuse(lambda: device.log_prob(there[0], context, there[2]), "context:", "cuda:0")
    refuse(lambda: device.log_prob(*there[:2]), "covariates: expected shape", "got None", error=ValueError)
    short = cupy.make(covariates[:, :10])
    refuse(lambda: device.log_prob(*there[:2], short), "covariates: expected at least 18 frames", error=ValueError)
    refuse(lambda: device.log_prob(cupy.make(x[..., 0]), *there[1:]), "x: expected shape", error=ValueError)
    refuse(lambda: device.log_prob([there[0]], *there[1:]), "x: expected an array of sequences", error=ValueError)
    refuse(lambda: device.log_prob(*there, lengths=[3, 4, 5]), "lengths: expected None", error=ValueError)


def test_methods_of_the_cpu_alone_are_refused(cupy):
    flow = FLOWS["a teacher"]("float32")
    device, x = flow.to("cuda"), cupy.make(given_of(flow)[0])
    words = ("on the CPU", "cuda:0", ".to('cpu')")
    for name, call in {
        "fit": lambda: device.fit(x),
        "stream": lambda: device.stream(),
        "sequences": lambda: device.given(x),
        "quantised": lambda: device.log_prob(x, quantised=1),
        "flow": lambda: hr.Adam(device, 1e-3),
        "teacher": lambda: hr.distill_sequences(device, flow),
    }.items():
        refuse(call, f"{name}: expected", *words, error=ValueError)
    for call in (device.nll_and_grad, device.log_prob_and_score):
        refuse(lambda call=call: call(x), "sequences: expected", *words, error=ValueError)


def test_networks_without_kernels_are_refused_by_name(emulated):
    spline, inner = (sequence_cases.EXAMPLES[name]("float32") for name in ("spline", "inner"))
    refuse(lambda: spline.to("cuda"), "map: expected one without a spline", "rq_spline", error=ValueError)
    refuse(lambda: inner.to("cuda"), "inner: expected None", ".to('cpu')", error=ValueError)
    rounded = sequence_cases.wavenet("rounded", dtype="float32").to("cpu", "bf16")
    assert rounded.to("cuda").matmul == "exact"


def test_out_of_memory(emulated, emu):
    flow = FLOWS["a teacher"]("float32")
    device, x = flow.to("cuda"), given_of(flow)[0]
    array = emulated.make(x)
    emulated.machine.wait(0)
    emu.module.fail_allocation(1)
    with pytest.raises(MemoryError):
        emulated.open(device.log_prob(array))
    emu.module.fail_allocation(0)
    assert_near(emulated.open(device.log_prob(array)), flow.log_prob(x))


def test_modules_of_pytorch_are_on_the_cpu():
    pytest.importorskip("torch")
    import headrace.torch

    with in_place(fake_cuda.Machine(), own_torch=True):
        device = FLOWS["a teacher"]("float32").to("cuda")
        refuse(lambda: headrace.torch.SequenceModule(device), "flow: expected a flow on the CPU", error=ValueError)


def test_a_flow_of_sequences_is_diagnosed_on_the_cpu(cupy):
    flow = FLOWS["a student"]("float64")
    x = given_of(flow, 4, 300)[0]
    assert hr.diagnose_sequences(flow.to("cuda"), x).p_value == hr.diagnose_sequences(flow, x).p_value
