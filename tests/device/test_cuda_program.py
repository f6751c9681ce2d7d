"""Programs on a device: chains, hard inputs, weights, streams, memory and refusals of the compiled class.

Single transforms are tested on every core, in tests/networks, tests/vector and tests/derivatives.
"""

import copy
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import gradients
import headrace as hr
from cuda_twins import Twin
from program_cases import CHAINS, inputs_of


def masked(dense, activation="relu", **settings):
    """A masked autoregressive transform of the library, and its reference."""
    subject = gradients.masked(dense, activation, **settings)
    return subject.library, subject.judge(subject.arrays)


def rows_of(dense, n, dtype="float64"):
    context = cases.rows(n, dense.context, dtype, "context") if dense.context else None
    return cases.rows(n, dense.features, dtype), context


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name, device, dtype):
    """Values are compared with those of the chain on the CPU in float64, which other tests check."""
    flow = CHAINS[name](dtype)
    wide, twin = flow.astype("float64"), Twin(device, flow)
    given, context = inputs_of(flow, 41, dtype)
    wide_context = None if context is None else context.astype(float)
    for verb in ("to_data", "to_latent"):
        want = getattr(wide, verb)(given.astype(float), wide_context)
        cases.assert_matches(getattr(twin, verb)(given, context), want, given, dtype, depth=256)
    want = wide.log_prob(given.astype(float), wide_context)
    cases.assert_close(twin.log_prob(given, context), want, magnitude=10.0, depth=256)


BASES = {
    "standard normal": lambda n: hr.StandardNormal(n),
    "logistic": lambda n: hr.Logistic(n),
    "normal": lambda n: hr.Normal(n, 0.5, 2.0),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("features", [1, 5])
def test_samples_are_the_cpus(base, features, device, dtype):
    flow = hr.Flow(list(cases.randomise(hr.IAF(features, hidden=(9,), transforms=2)).transforms), BASES[base](features))
    flow = flow.astype(dtype)
    twin = Twin(device, flow)
    want, density = flow.sample_and_log_prob(70, seed=3)
    got, log_prob = twin.sample(70, seed=3)
    cases.assert_close(got, want, magnitude=10.0, depth=16)
    cases.assert_close(log_prob, density, magnitude=10.0, depth=16)
    cases.assert_same_bits(twin.sample(33, seed=3)[0], got[:33])
    assert not np.array_equal(twin.sample(70, seed=4)[0], got)


def test_any_strides_and_the_other_dtype(device, dtype):
    library, _ = masked(cases.made().astype(dtype))
    twin, other = Twin(device, library), np.dtype({"float32": "float64", "float64": "float32"}[dtype])
    wide = cases.rows(2 * 35, 3 * library.features, dtype)
    for given in (wide[::2, ::3], wide[34::-1, :7], np.asfortranarray(wide[:35, :7])):
        held = device.array(wide)  # the view is made on the device
        view = {1: held[::2, ::3], 2: held[34::-1, :7]}.get(1 if given.strides[1] > wide.itemsize * 2 else 2)
        if given.flags.f_contiguous:
            view = device.library.asfortranarray(held[:35, :7])
        value, log_det = device.empty((35, 7), dtype), device.empty((35,), dtype)
        results = {"value": device.tuple(value), "log_det": device.tuple(log_det)}
        twin.program.transform(False, device.tuple(view), **results, stream=device.stream)
        cases.assert_same_bits(device.numpy(value), twin.forward(np.ascontiguousarray(given))[0])
    given = cases.rows(35, library.features, "float32")  # both dtypes represent these values
    for got, want in zip(twin.forward(given.astype(other)), twin.forward(given.astype(dtype)), strict=True):
        cases.assert_same_bits(got, want)


@pytest.mark.parametrize("features", [1, 3, 4, 7])
def test_rows_at_any_address(features, device, dtype):
    """Kernels move sixteen bytes at a time where addresses allow it; results do not depend on the address."""
    flow = cases.randomise(hr.MAF(features, hidden=(9,), transforms=1, dtype=dtype))
    twin, rows = Twin(device, flow), cases.rows(37, features, dtype)
    want = twin.to_data(rows)
    for offset in (0, 1, 2):
        held, out = device.empty((37 * features + offset,), dtype), device.empty((37 * features + offset,), dtype)
        held[offset:] = device.array(rows).ravel()
        given, value = (a[offset:].reshape(37, features) for a in (held, out))
        log_det = device.empty((37,), dtype)
        tuples = [device.tuple(a) for a in (given, value, log_det)]
        twin.program.transform(False, *tuples, stream=device.stream)
        cases.assert_same_bits(device.numpy(value), want[0])
        cases.assert_same_bits(device.numpy(log_det), want[1])


def test_windows_of_the_last_layer(device, dtype):
    """A last layer with many parameters is computed in parts, each of which begins where the matrix's rows have the
    same length."""
    flow = hr.Flow(
        [cases.randomise(hr.transforms.MaskedAutoregressive(6, (120,), map="rq_spline", bins=8, dtype=dtype), 0.3)]
    )
    wide, twin, given = flow.astype("float64"), Twin(device, flow), cases.rows(35, 6, dtype)
    for verb in ("to_data", "to_latent"):
        want = getattr(wide, verb)(given.astype(float))
        cases.assert_matches(getattr(twin, verb)(given), want, given, dtype, depth=256)


def test_parameters_of_one_call(device, dtype):
    flow = cases.randomise(hr.MAF(4, hidden=(9,), transforms=2, dtype=dtype))
    other = cases.randomise(copy.copy(flow), 0.4, "other")
    twin, given = Twin(device, flow), cases.rows(40, 4, dtype)
    unmasked = other.parameters + (other.parameters == 0)  # padding is ignored
    got = twin.run(given, inverse=True, parameters=unmasked)
    for a, b in zip(got[:2], Twin(device, other).to_latent(given), strict=True):
        cases.assert_same_bits(a, b)


# --- memory of lines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "number", "limit", "in_shared"),
    [
        # The lines for 64 features and hidden layers of [256, 256]: slots twice, units of two layers, one window.
        (2 * 64 + 512 + 64, 4, 166_912, True),  # sm_80
        (2 * 64 + 512 + 64, 8, 166_912, False),
        (2 * 64 + 512 + 64, 8, 232_448, True),  # sm_90
        (2 * 784 + 1024 + 64, 4, 232_448, False),  # images
        (2 * 16, 4, 166_912, True),
    ],
)
def test_lines_are_in_shared_memory_where_they_fit(lines, number, limit, in_shared, emu):
    scratch = 8 * (8 * 36 + 2 * 32) * number  # bytes of kept sums and of two sums over each row
    want = scratch + (lines * 33 * number if in_shared else 0)
    assert emu.module.place(lines, 8, number, limit) == (in_shared, want)
    assert want <= limit


def test_bits_do_not_depend_on_where_lines_are(emu):
    """The wide network fits the shared memory of one architecture, but not that of the other."""
    dense = cases.made(features=30, hidden=(300, 150), gain=0.5, context=2)
    library, judge = masked(dense, "tanh")
    given, context = rows_of(dense, 35)
    found = []
    for architecture in (80, 90):
        emu.module.set_architecture(architecture)
        twin = Twin(emu, library)
        found.append([*twin.forward(given, context), *twin.inverse(given, context)])
    for a, b in zip(*found, strict=True):
        cases.assert_same_bits(a, b)
    cases.assert_matches(found[0][:2], judge.forward(given, context), given, "float64")


# --- hard inputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["of every kind", "of vector maps", "of turns and bent lines"])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_row_is_nan_and_does_not_change_the_others(name, poison, device, dtype):
    flow = CHAINS[name](dtype)
    twin = Twin(device, flow)
    given, context = inputs_of(flow, 40, dtype)
    bad = given.copy()
    bad[33, 2] = poison
    others = np.arange(40) != 33
    for verb in (twin.to_data, twin.to_latent, twin.from_noise, lambda *rows: (twin.log_prob(*rows),)):
        clean, got = (verb(x, context) for x in (given, bad))
        for a, b in zip(got, clean, strict=True):
            assert np.isnan(a[33]).any()
            cases.assert_same_bits(a[others], b[others])


@pytest.mark.parametrize("name", CHAINS)
def test_a_poisoned_row_has_no_gradient_and_neither_have_the_parameters(name, device, dtype):
    flow = CHAINS[name](dtype)
    twin = Twin(device, flow)
    given, context = inputs_of(flow, 40, dtype)
    bad = given.copy()
    bad[5, 0] = np.nan
    wrt = gradients.every(context)
    clean, got = (
        dict(zip(wrt, twin.vjp(x, context, inverse=True, of_log_prob=True, wrt=wrt), strict=True)) for x in (given, bad)
    )
    others = np.arange(40) != 5
    for kind in set(wrt) - {"parameters"}:
        cases.assert_same_bits(got[kind][others], clean[kind][others])
        assert np.isnan(got[kind][5]).all()
    if flow.parameters.size:
        assert np.isnan(got["parameters"][clean["parameters"] != 0]).all()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("n", [1, 33, 70])
def test_gradients_of_chains(name, n, device, dtype):
    """Gradients are compared with those of the CPU in float64, which other tests compare with differences."""
    flow = CHAINS[name](dtype)
    wide, twin = flow.astype("float64"), Twin(device, flow)
    given, context = inputs_of(flow, n, dtype)
    for verb in gradients.FLOW_VERBS:
        wrt = gradients.every(context)
        cotangents = gradients.cotangents(verb, n, flow.features, dtype)
        wide_context = None if context is None else context.astype(float)
        wide_cotangents = [c.astype(float) for c in cotangents]
        want = getattr(wide, verb)(given.astype(float), *wide_cotangents, wide_context, wrt=wrt)
        got = getattr(twin, verb)(given, *cotangents, context, wrt=wrt)
        for a, b in zip(got, want, strict=True):
            gradients.assert_near(a, b, cases.tolerance(dtype, 256))


@pytest.mark.parametrize("map", ["dual_ascent", "rq_spline"])
def test_gradients_of_maps_of_each_coordinate(map, device, dtype):
    flow = hr.Flow([cases.randomise(hr.transforms.Elementwise(4, map=map, dtype=dtype), 0.5)], hr.Normal(4, 0.5, 2.0))
    wide, twin, given = flow.astype("float64"), Twin(device, flow), cases.rows(35, 4, dtype)
    for verb in gradients.FLOW_VERBS:
        cotangents = gradients.cotangents(verb, 35, 4, dtype)
        want = getattr(wide, verb)(given.astype(float), *(c.astype(float) for c in cotangents))
        got = getattr(twin, verb)(given, *cotangents, wrt=("inputs", "parameters"))
        for a, b in zip(got, want, strict=True):
            gradients.assert_near(a, b, cases.tolerance(dtype, 256))


@pytest.mark.parametrize("raw", [-30.0, 30.0])
def test_products_of_many_slopes_do_not_overflow(raw, device):
    """The product of a row's slopes, whose logarithm is taken, may be far beyond float32."""
    bent = hr.transforms.Elementwise(200, map="dual_ascent")
    bent.set_parameter("stretch", np.full((200, 1), raw, "f4"))
    flow = hr.Flow([bent], hr.StandardNormal(200))
    given = cases.rows(33, 200, "float32")
    want = flow.astype("float64").to_data(given.astype(float))
    assert np.abs(want[1]).min() > 100
    cases.assert_matches(Twin(device, flow).to_data(given), want, given, "float32", depth=16)


def test_a_bad_row_spoils_all_weights_as_on_the_cpu(device):
    flow = hr.Flow(
        [cases.randomise(hr.transforms.Elementwise(3, map="dual_ascent", dtype="float64"))], hr.Normal(3, 0.5, 2.0)
    )
    given = cases.rows(9, 3, "float64")
    given[4, 1] = np.nan
    by_value, by_log_det = gradients.cotangents("to_latent_vjp", 9, 3)
    want = flow.to_latent_vjp(given, by_value, by_log_det)[1]
    got = Twin(device, flow).to_latent_vjp(given, by_value, by_log_det, wrt=("inputs", "parameters"))[1]
    assert_array_equal(np.isnan(got), np.isnan(want))


@pytest.mark.parametrize("name", CHAINS)
def test_single_gradients_are_those_of_all(name, device):
    flow = CHAINS[name]("float64")
    twin, (given, context) = Twin(device, flow), inputs_of(flow, 35, "float64")
    wrt = gradients.every(context)
    cotangents = gradients.cotangents("to_latent_vjp", 35, flow.features)
    together = dict(zip(wrt, twin.to_latent_vjp(given, *cotangents, context, wrt=wrt), strict=True))
    for kind in wrt:
        (alone,) = twin.to_latent_vjp(given, *cotangents, context, wrt=(kind,))
        cases.assert_same_bits(alone, together[kind])


def test_lanes_past_the_last_row_may_overflow(device):
    """The network's units overflow for zeros, which are the inputs of lanes past the last row, and not for the rows'
    inputs."""
    masks = [np.array([[True, False]]), np.array([[True]]), np.array([[False], [False], [True], [True]])]
    weights = [np.array([[-1e30, 0.0]]), np.array([[1e30]]), np.array([[0.0], [0.0], [0.5], [0.1]])]
    biases = [np.array([1e30]), np.zeros(1), np.zeros(4)]
    arrays = [[a.astype("f4") for a in kind] for kind in (weights, biases)]
    twin = Twin(device, hr.transforms.MaskedAutoregressive.from_dense(*arrays, masks))
    given = np.ones((5, 2), "f4")
    for gradient in twin.inverse_vjp(given, given, np.ones(5, "f4"), wrt=("inputs", "parameters")):
        assert np.isfinite(gradient).all()


def test_no_rows_have_a_gradient_of_zero(device, dtype):
    flow = gradients.mixed_flow(dtype)
    given, context = inputs_of(flow, 0, dtype)
    by_input, by_parameters = Twin(device, flow).vjp(given, context, inverse=True, of_log_prob=True)
    assert by_input.shape == (0, flow.features)
    assert_array_equal(by_parameters, np.zeros_like(by_parameters))


def test_rows_are_computed_in_groups(device, dtype):
    """In the emulation many rows are several groups of the tape, and sums continue from one group to the next."""
    flow = cases.randomise(hr.MAF(5, hidden=(40, 40), transforms=2, dtype=dtype), 0.2)
    given = cases.rows(420, 5, dtype)
    twin, wide = Twin(device, flow), flow.astype("float64")
    log_prob, by_input, by_parameters = twin.vjp(
        given, inverse=True, of_log_prob=True, row_scale=-1 / 420, wrt=("log_prob", "inputs", "parameters")
    )
    value, want = wide.nll_and_grad(given.astype(float))
    assert -log_prob.mean(dtype=float) == pytest.approx(value, rel=cases.tolerance(dtype))
    gradients.assert_near(by_parameters, want, cases.tolerance(dtype, 64), least=np.abs(want).max())
    assert by_input.shape == given.shape


def test_chosen_rows(device, dtype):
    flow = cases.randomise(hr.MAF(4, context=2, hidden=(9,), transforms=2, dtype=dtype))
    twin = Twin(device, flow)
    given, context = inputs_of(flow, 50, dtype)
    by_row, index = cases.rng("of rows").standard_normal(50).astype(dtype), np.array([3, 49, 3, 0, 17], np.int64)
    got = twin.vjp(given, context, inverse=True, by_row=by_row, of_log_prob=True, index=index)
    want = twin.vjp(given[index], context[index], inverse=True, by_row=by_row[index], of_log_prob=True)
    for a, b in zip(got, want, strict=True):
        cases.assert_same_bits(a, b)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverse", [False, True])
def test_a_backward_run_returns_its_values_too(inverse, device, dtype):
    flow = gradients.mixed_flow(dtype)
    twin, (given, context) = Twin(device, flow), inputs_of(flow, 70, dtype)
    value, log_det, _ = twin.vjp(given, context, inverse=inverse, wrt=("value", "log_det", "inputs"))
    expected = twin.run(given, context, inverse=inverse)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]  # the backward pass reads units that were stored rounded
    np.testing.assert_allclose(value, expected[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_det, expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("features", [1, 3, 40])
def test_results_in_float64_have_one_rounding_less(features, device):
    data_end = hr.transforms.Standardize([1.7e9] * features, [30.0] * features)
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(features, hidden=(6,)), data_end])
    twin = Twin(device, flow)
    wide, log_prob = twin.sample(50, seed=1, wide=True)
    assert_array_equal(wide.astype("f4"), twin.sample(50, seed=1)[0])
    assert len(np.unique(wide[:, 0])) > 45
    np.testing.assert_allclose(twin.log_prob(wide), log_prob, rtol=1e-5, atol=1e-4 * features)
    with pytest.raises(ValueError, match="value: expected the program's dtype on the latent side"):
        twin.run(wide, inverse=True, wide=True)


def test_weights_are_set_and_read(device, dtype):
    flow = cases.randomise(hr.MAF(4, hidden=(9,), transforms=2, dtype=dtype))
    program = Twin(device, flow).program
    assert program.n_weights == flow.parameters.size
    assert_array_equal(program.host_weights(), flow.parameters)
    held, out = (
        device.array(np.arange(1, program.n_weights + 1, dtype=dtype)),
        device.empty((program.n_weights,), dtype),
    )
    program.set_weights(device.tuple(held), device.stream)
    program.weights(device.tuple(out), device.stream)
    flow.parameters = np.arange(1.0, program.n_weights + 1)
    assert_array_equal(device.numpy(out), flow.parameters)  # padding stays zero


def test_ready_parameters_follow_the_weights(device):
    flow = cases.randomise(hr.PlanarFlow(3, transforms=2, dtype="float64"))
    twin, given = Twin(device, flow), cases.rows(9, 3, "float64")
    before = twin.to_data(given)[0]
    other = cases.randomise(copy.copy(flow), 0.7, "other")
    twin.program.set_host_weights(other.parameters)
    after = twin.to_data(given)[0]
    assert not np.array_equal(before, after)
    cases.assert_close(after, other.to_data(given)[0])


# --- streams and memory -----------------------------------------------------------------------------------------------

WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "cudaFree"}


def queued(emu, call):
    """The calls of the CUDA runtime, (name, stream), that a function makes."""
    emu.module.log()
    call()
    return emu.module.log()


def test_no_call_waits_and_all_work_is_on_the_stream(emu):
    flow = gradients.mixed_flow("float32")
    twin = Twin(emu, flow)
    given, context = inputs_of(flow, 40, "float32")
    arrays = [given, context, np.empty_like(given), np.empty(40, "f4"), np.empty(twin.program.n_weights, "f4")]
    x, c, value, row, weights = map(emu.tuple, arrays)
    stream = 7 << 8
    calls = [
        lambda: twin.program.log_prob(x, row, context=c, stream=stream),
        lambda: twin.program.sample(40, 5, value=value, log_prob=row, context=c, parameters=weights, stream=stream),
        lambda: twin.program.gradient(
            True, True, x, context=c, log_prob=row, grad_input=value, grad_weights=weights, stream=stream
        ),
        lambda: twin.program.weights(weights, stream),
        lambda: twin.program.set_weights(weights, stream),
    ]
    twin.program.host_weights()  # waits until all earlier work is done
    for call in calls:
        names = queued(emu, call)
        assert not WAITS & {name for name, _ in names}
        launched = [(name, s) for name, s in names if "Event" not in name and "Attribute" not in name]
        assert launched
        assert {s for name, s in launched} == {stream}


def test_uses_of_the_weights_wait_for_each_other_on_the_device(emu):
    """On the caller's stream, and never on the host, a reader of weights waits for the last writer, and a writer waits
    for the last writer and all later readers."""
    program = Twin(emu, cases.randomise(hr.MAF(3, hidden=(5,), transforms=1))).program
    weights = np.zeros(program.n_weights, "f4")
    one, other, third = (np.arange(1, 4) << 8).tolist()
    weights_tuple = emu.tuple(weights)

    def waits(call):
        names = queued(emu, call)
        assert {s for name, s in names if name == "cudaEventRecord"} <= {one, other, third}
        return [s for name, s in names if name == "cudaStreamWaitEvent"]

    made = len(
        waits(lambda: program.set_weights(weights_tuple, one))
    )  # waits for the constructor's work, which is on another stream
    assert made >= 1
    assert waits(lambda: program.weights(weights_tuple, other)) == [other]
    assert waits(lambda: program.weights(weights_tuple, third)) == [third]
    # A writer also waits for both readers and for the last use of its own stream, whose event the writer may reuse.
    assert len(waits(lambda: program.set_weights(weights_tuple, one))) == made + 2 + 2


def test_parameters_of_one_call_are_a_use_of_the_program(emu):
    """A call with separate parameters still reads the program's steps, so that the program must not free its memory
    before the call is done."""
    flow = cases.randomise(hr.PlanarFlow(3, transforms=2))
    twin = Twin(emu, flow)
    x, log_det = np.zeros((4, 3), "f4"), np.zeros(4, "f4")
    own, stream = flow.parameters, 7 << 8
    args = {"log_det": emu.tuple(log_det), "parameters": emu.tuple(own), "stream": stream}
    assert ("cudaEventRecord", stream) in queued(emu, lambda: twin.program.transform(True, emu.tuple(x), **args))
    emu.module.fail_allocation(2)
    emu.module.log()
    with pytest.raises(MemoryError):
        twin.program.transform(True, emu.tuple(x), **args)
    emu.module.fail_allocation(0)
    assert ("cudaEventRecord", stream) in emu.module.log()  # an event marks the work before the failure


def test_a_stream_that_a_graph_is_captured_from_is_refused(emu):
    """The call fails before any work is queued on the stream, so that the capture records no work of the call."""
    flow = gradients.mixed_flow("float32")
    twin, (captured, other) = Twin(emu, flow), ((7 << 8), (9 << 8))
    given, context = inputs_of(flow, 40, "float32")
    arrays = [given, context, np.empty(40, "f4"), np.empty(twin.program.n_weights, "f4")]
    x, c, row, weights = map(emu.tuple, arrays)
    calls = [
        lambda stream: twin.program.log_prob(x, row, context=c, stream=stream),
        lambda stream: twin.program.log_prob(x, row, context=c, parameters=weights, stream=stream),
        lambda stream: twin.program.gradient(
            True, True, x, context=c, log_prob=row, grad_weights=weights, stream=stream
        ),
        lambda stream: twin.program.weights(weights, stream),
        lambda stream: twin.program.set_weights(weights, stream),
    ]
    twin.program.weights(weights, other)
    for call in calls:
        emu.module.set_captured(captured)
        for stream in (captured, 0):  # work of the default stream would belong to the capture too
            emu.module.log()
            with pytest.raises(emu.module.CudaError, match="one that no CUDA graph is captured from"):
                call(stream)
            assert not [name for name, _ in emu.module.log() if name != "cudaEventRecord"]
        call(other)
        emu.module.set_captured(0)
        call(captured)


def test_a_program_gives_its_memory_back(emu):
    before = emu.module.allocated()
    twin = Twin(emu, gradients.mixed_flow("float64"))
    assert emu.module.allocated() > before
    given, context = inputs_of(twin, 40, "float64")
    held = emu.module.allocated()
    twin.to_data(given, context)
    twin.vjp(given, context, inverse=True, of_log_prob=True)
    assert emu.module.allocated() == held
    del twin
    assert emu.module.allocated() == before


def test_a_call_without_memory_raises_and_the_program_stays_usable(emu):
    """A call raises MemoryError whichever of its allocations fails, and the program still gives the same results."""
    twin = Twin(emu, gradients.mixed_flow("float64"))
    given, context = inputs_of(twin, 40, "float64")
    want = twin.vjp(given, context, inverse=True, of_log_prob=True)
    held = emu.module.allocated()
    for nth in itertools.count(1):
        emu.module.fail_allocation(nth)
        try:
            twin.vjp(given, context, inverse=True, of_log_prob=True)
            break
        except MemoryError as error:
            assert "bytes" in str(error)  # noqa: PT017
        finally:
            emu.module.fail_allocation(0)
        assert emu.module.allocated() == held
        for a, b in zip(twin.vjp(given, context, inverse=True, of_log_prob=True), want, strict=True):
            cases.assert_same_bits(a, b)
    assert nth > 3


# --- refusals of the compiled class -----------------------------------------------------------------------------------


def test_a_missing_device_is_refused(emu):
    flow = hr.MAF(3, hidden=(5,), transforms=1)
    steps = [step.made_for(emu.module) for step in flow._steps()]
    with pytest.raises(emu.module.CudaError, match="device"):
        emu.module.ProgramF32(3, 0, "normal", steps, 0, [], [], "exact", 1)
