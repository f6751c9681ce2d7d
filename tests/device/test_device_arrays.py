"""Arrays of a simulated CUDA device as arguments and results: of the caller's library, on its stream, without
copies."""

import gc
import sys
import threading
from functools import partial

import numpy as np
import pytest

import cases
import fake_frameworks
import headrace as hr
import map_cases
import reference
from array_cases import CONTEXT, FEATURES, FLOW_CALLS, ROWS, TRANSFORM_CALLS, arrays, call_of, every_call, made_flow
from device_cases import map_all, refuse
from devices import Library, either_order
from headrace._core.device import device_at

HINTS = {
    "cupy": "cupy.asarray(context)",
    "torch": "torch.asarray(context, device='cuda:0')",
    "jax": "jax.numpy.asarray",
}


def on_device(library, given):
    return {key: library.make(array) for key, array in given.items()}


@every_call
@pytest.mark.parametrize(
    ("input_dtype", "dtype"), [("float32", "float32"), ("float64", "float32"), ("float32", "float64")]
)
def test_every_call_gives_the_bits_of_the_cpu_in_the_callers_library(library, kind, name, input_dtype, dtype):
    call, holder = call_of(kind, name, dtype)
    given = arrays(input_dtype, holder.parameters.size)
    want = call(holder, given)
    got = call(holder.to("cuda"), on_device(library, given))
    assert type(got) is type(want)
    for result, expected in zip(got, want, strict=True):
        opened = library.open(result)
        assert opened.shape == expected.shape
        assert opened.dtype == np.dtype(dtype)
        cases.assert_same_bits(opened, expected)


@every_call
def test_nothing_is_copied(library, kind, name):
    """Each address that the core receives is in the caller's array or in the result."""
    call, holder = call_of(kind, name, "float32")
    holder = holder.to("cuda")
    given = on_device(library, arrays("float32", holder.parameters.size))
    library.machine.log.clear()
    got = call(holder, given)
    places = {library.address(array) for array in (*given.values(), *got)}
    seen = [
        place for word in ("run", "gradient") for _, _, addresses in library.machine.logged(word) for place in addresses
    ]
    assert seen
    # Three of the calls allocate memory, for log densities that are summed, or for each row's gradient of a common
    # context; no other call does.
    assert len(set(seen) - places) == (name in ("nll_and_grad", "log_prob_vjp, one context", "inverse_vjp"))
    assert not library.machine.logged("upload")


@every_call
def test_work_is_queued_on_the_callers_stream_and_not_waited_for(library, kind, name):
    call, holder = call_of(kind, name, "float32")
    holder = holder.to("cuda")
    with library.on(library.machine.stream()):
        given = on_device(library, arrays("float32", holder.parameters.size))
        library.machine.log.clear()
        call(holder, given)
        words = ("run", "gradient")
        assert {entry[1] for word in words for entry in library.machine.logged(word)} == {library.current()}
        waits = len(library.machine.logged("sync"))
        # The host waits for the mean loss and for the check of weights.
        assert waits == (3 if name == "nll_and_grad" else 0)


def test_calls_without_arrays_are_on_cupys_stream(machine, dtype):
    flow = made_flow(dtype, context=0)
    device = flow.to("cuda")
    with machine.stream() as stream:
        machine.log.clear()
        got = device.sample(9, seed=4), *device.sample_and_log_prob(9, seed=4)
        assert [entry[1] for entry in machine.logged("run")] == [stream.ptr] * 2
        assert not machine.logged("sync")
        want = flow.sample(9, seed=4), *flow.sample_and_log_prob(9, seed=4)
        for result, expected in zip(got, want, strict=True):
            assert isinstance(result, machine.cupy.ndarray)
            cases.assert_same_bits(result.get(), expected)


@pytest.mark.parametrize("rows", [0, 1, 7, 100])
def test_any_number_of_rows(library, rows, dtype):
    flow, x = made_flow(dtype, context=0), cases.rows(rows, FEATURES, dtype)
    device = flow.to("cuda")
    cases.assert_same_bits(library.open(device.log_prob(library.make(x))), flow.log_prob(x))
    for got, want in zip(device.to_data(library.make(x)), flow.to_data(x), strict=True):
        cases.assert_same_bits(library.open(got), want)


VIEWS = {
    "transposed": lambda table: table.T[3:23, 2:6],
    "every third row": lambda table: table[::3][:20, :4],
    "every other column": lambda table: table[:20, 1:9:2],
    "a block": lambda table: table[5:25, 3:7],
    "backwards": lambda table: table[25:5:-1, 3:7],
    "one row for all": lambda table: np.broadcast_to(table[3, :4], (20, 4)),
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_strides(library, view, dtype):
    flow, table = made_flow(dtype, context=0), cases.rows(60, 60, dtype)
    device, want = flow.to("cuda"), flow.log_prob(np.ascontiguousarray(VIEWS[view](table)))
    array = library.make(table, VIEWS[view])
    library.machine.log.clear()
    got = device.log_prob(array)
    assert library.machine.logged("run")[0][2][0] == library.address(array)
    cases.assert_same_bits(library.open(got), want)


@pytest.mark.parametrize("map", reference.MAPS)
def test_functional_kernels(library, map, dtype):
    z, grad = cases.rows(ROWS, 3, dtype), cases.rows(ROWS, 3, dtype, "grad")
    params = cases.rng("params").standard_normal((ROWS, 3, reference.MAPS[map].count(5))).astype(dtype)
    rows = cases.rng("rows").standard_normal(ROWS).astype(dtype)
    for call, given in [
        *((kernel, (z, params)) for kernel in map_cases.KERNELS.values()),
        (hr.ops.coupling_vjp, (z, params, grad, rows)),
    ]:
        with library.on(library.machine.stream()):
            for got, want in zip(call(*map_all(library.make, given), map), call(*given, map), strict=True):
                cases.assert_same_bits(library.open(got), want)


@pytest.mark.parametrize("shared", [(), (2,), (4, 1), (4, 2)], ids=str)
def test_couplings_of_any_leading_dimensions(library, shared, dtype):
    """Parameters that rows share are repeated in the framework's memory, and their gradients are summed there."""
    draw = cases.rng("leading").standard_normal
    arrays = draw((4, 2, 3)), draw((*shared, 3, 2)), draw((4, 2, 3)), draw((4, 2))
    z, params, grad, grad_rows = (array.astype(dtype) for array in arrays)
    calls = [
        *((kernel, (z, params)) for kernel in map_cases.KERNELS.values()),
        (hr.ops.coupling_vjp, (z, params, grad, grad_rows)),
        (hr.ops.coupling, (z[0, 0], params.reshape(-1, 3, 2)[0])),
    ]
    for call, given in calls:
        with library.on(library.machine.stream()):
            for got, want in zip(call(*map_all(library.make, given)), call(*given), strict=True):
                assert library.open(got).shape == want.shape
                cases.assert_same_bits(library.open(got), want)


@pytest.mark.parametrize("map", ["planar", "radial"])
def test_functional_kernels_of_whole_rows(library, map, dtype):
    z, grad = cases.rows(ROWS, 3, dtype), cases.rows(ROWS, 3, dtype, "grad")
    params = cases.rng("params").standard_normal({"planar": 7, "radial": 5}[map]).astype(dtype)
    rows = cases.rng("rows").standard_normal(ROWS).astype(dtype)
    for call, given in [
        (hr.ops.vector_map, (z, params)),
        (partial(hr.ops.vector_map, direction="inverse"), (z, params)),
        (hr.ops.vector_map_vjp, (z, params, grad, rows)),
    ]:
        for got, want in zip(call(*map_all(library.make, given), map), call(*given, map), strict=True):
            cases.assert_same_bits(library.open(got), want)


def test_a_step_of_dual_ascent(library, dtype):
    g = cases.rng("step")
    z, weights = cases.rows(50, 3, dtype), g.uniform(0.5, 2.0, 50).astype(dtype)
    maps = np.stack([g.uniform(-0.9, 0.9, 3), g.standard_normal(3), g.uniform(0.1, 1.0, 3)], axis=1)
    given = maps, g.standard_normal((3, 3)), g.standard_normal(3), maps[:, 1:].copy()
    want = hr.ops.dual_ascent_step(z, *given, weights=weights)
    got = hr.ops.dual_ascent_step(library.make(z), *map_all(library.make, given), weights=library.make(weights))
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(library.open(result), expected)


# --- streams and lifetimes --------------------------------------------------------------------------------------------


@either_order
def test_arrays_may_be_deleted_right_after_the_call(library, dtype):
    """The memory of a deleted array becomes NaN as soon as the memory is free, while the call's work is still
    queued."""
    flow, x = made_flow(dtype), cases.rows(ROWS, FEATURES, dtype)
    context = cases.rows(ROWS, CONTEXT, dtype, "context")
    vector = (0.1 * cases.rng("parameters").standard_normal(flow.parameters.size)).astype("float64")
    want = flow.to_latent(x, context, parameters=vector)
    device = flow.to("cuda")
    with library.on(library.machine.stream()):
        # The parameters are converted for a float32 flow, and the converted copy is deleted, too.
        given = {"x": library.make(x), "context": library.make(context), "parameters": library.make(vector)}
        got = device.to_latent(given["x"], given["context"], parameters=given["parameters"])
        given.clear()
        gc.collect()
        library.machine.cupy.empty((ROWS, FEATURES), dtype)
        for result, expected in zip(got, want, strict=True):
            cases.assert_same_bits(library.open(result), expected)


def test_arrays_kept_for_a_call_are_released_once_it_is_done(machine):
    flow, library = made_flow("float32", context=0).to("cuda"), Library("exchanged", machine)
    kept = flow._device._kept
    for _ in range(3):
        flow.log_prob(library.make(cases.rows(ROWS, FEATURES, "float32")))
    assert len(kept) == 3
    machine.finish()
    flow.log_prob(library.make(cases.rows(ROWS, FEATURES, "float32")))
    assert len(kept) == 1


def test_releases_of_kept_arrays_may_nest(machine):
    """The release of an object may release a call's arrays, and Python's garbage collector may run at any time."""
    device, stream = device_at(0), machine.stream()

    class Owner:
        def __del__(self):
            device.keep(stream, ["what a call held that has ended"])

    class Event:
        @property
        def done(self):
            device.keep(stream, ["what the collector found meanwhile"])
            return True

    device.keep(stream, [Owner()])
    device._kept.append((Event(), ["a call's arrays"]))
    machine.queue(stream.ptr).add(lambda: None)  # objects that are kept from now on wait for this work
    thread = threading.Thread(target=device.let_go, daemon=True)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive()
    assert sorted(things for _, things in device._kept) == [
        ["what a call held that has ended"],
        ["what the collector found meanwhile"],
    ]


def in_a_thread(function):
    """The result of the function in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@either_order
def test_one_flow_on_the_default_streams_of_two_threads(machine):
    """The default streams of both threads have the handle 2."""
    flow, other = made_flow("float32", context=0), made_flow("float32", context=0)
    other.parameters = 0.5 * flow.parameters
    device, library, x = flow.to("cuda"), Library("cupy", machine), cases.rows(50, 4, "float32")
    own = machine.cupy.cuda.Stream.of(2)

    def assign():
        with own:
            device.parameters = library.make(other.parameters)
        return machine.queue(2)

    def evaluate():
        with own:
            return device.log_prob(library.make(x)).get()

    assert in_a_thread(assign) is not machine.queue(2)
    cases.assert_same_bits(in_a_thread(evaluate), other.log_prob(x))
    cases.assert_same_bits(evaluate(), other.log_prob(x))


def test_streams_of_one_handle_are_one_except_those_of_threads(machine):
    device, of = device_at(0), machine.cupy.cuda.Stream.of
    for first, then, waits in ((1, 1, 0), (77, 77, 0), (2, 2, 1), (1, 2, 1), (2, 77, 1)):
        machine.log.clear()
        device.order(of(first), of(then))
        assert machine.logged("wait") == [("wait", then, first)] * waits


@either_order
def test_a_tensor_of_another_stream_is_kept_until_the_call_is_done(machine):
    """PyTorch reuses a tensor's memory in the order of the stream that the tensor was made on."""
    flow, library, x = made_flow("float32", context=0), Library("torch", machine), cases.rows(ROWS, 4, "float32")
    device, first, second = flow.to("cuda"), machine.stream(), machine.stream()
    with library.on(first):
        tensor = library.make(x)
    second.wait_event(recorded(machine, first))
    with library.on(second):
        got = device.log_prob(tensor)
        assert machine.logged("record_stream") == [("record_stream", second.ptr)]
        del tensor
        gc.collect()
        cases.assert_same_bits(library.open(got), flow.log_prob(x))


def recorded(machine, stream):
    event = machine.cupy.cuda.Event()
    event.record(stream)
    return event


@either_order
def test_the_stream_of_an_array_interface_is_waited_for(machine):
    flow, library, x = made_flow("float32", context=0), Library("interface", machine), cases.rows(9, 4, "float32")
    device = flow.to("cuda")
    with machine.stream() as stream:
        array = library.make(x)
        machine.log.clear()
        got = device.log_prob(array)
        assert machine.logged("wait") == [("wait", stream.ptr, library.producer.ptr)]
        assert not machine.logged("sync")
        cases.assert_same_bits(library.open(got), flow.log_prob(x))


@pytest.mark.parametrize("stream_of_array", [None, "own"])
def test_no_stream_is_waited_for_without_a_name(machine, stream_of_array):
    """An array interface without a stream promises that the producer's work is done, and work of the producer on the
    call's stream precedes the call."""
    flow, x = made_flow("float32", context=0).to("cuda"), cases.rows(9, 4, "float32")
    with machine.stream() as stream:
        flow.log_prob(fake_frameworks.Interface(x, None, stream.ptr if stream_of_array else None))
        assert not machine.logged("wait")


def test_stream_0_of_an_array_interface_has_no_meaning(machine):
    flow, x = made_flow("float32", context=0).to("cuda"), cases.rows(9, 4, "float32")
    refuse(lambda: flow.log_prob(fake_frameworks.Interface(x, None, 0)), "x:", "stream", "ambiguous", error=ValueError)


@pytest.mark.parametrize("name", ["jax", "exchanged"])
def test_dlpack_gets_the_stream(machine, name):
    library, flow = Library(name, machine), made_flow("float32", context=0).to("cuda")
    for stream in (machine.stream(), machine.cupy.cuda.Stream.of(0)):
        with stream:
            flow.log_prob(library.make(cases.rows(9, 4, "float32")))
        assert machine.logged("lend")[-1] == ("lend", stream.ptr or 1)  # DLPack's value 1 stands for the default stream


@either_order
def test_one_flow_on_two_streams(machine):
    """A call on one stream reads weights that were set on another, and later changes do not disturb the call."""
    flow, other = made_flow("float32", context=0), made_flow("float32", context=0)
    other.parameters = 0.5 * flow.parameters
    device, library, x = flow.to("cuda"), Library("cupy", machine), cases.rows(50, 4, "float32")
    first, second = machine.stream(), machine.stream()
    with first:
        before = device.log_prob(library.make(x))
    with second:
        device.parameters = library.make(other.parameters)
    with first:
        after = device.log_prob(library.make(x))
        cases.assert_same_bits(before.get(), flow.log_prob(x))
        cases.assert_same_bits(after.get(), other.log_prob(x))


# --- out= -------------------------------------------------------------------------------------------------------------

OWN = pytest.mark.parametrize("name", ["cupy", "torch"])


@OWN
def test_out_is_written_and_returned(machine, name, dtype):
    flow, library, x = made_flow(dtype, context=0), Library(name, machine), cases.rows(ROWS, FEATURES, dtype)
    device, out = flow.to("cuda"), library.make(np.zeros(ROWS, dtype))
    assert device.log_prob(library.make(x), out=out) is out
    cases.assert_same_bits(library.open(out), flow.log_prob(x))
    pair = library.make(x), library.make(np.zeros(ROWS, dtype))
    assert device.to_latent(pair[0], out=pair) is pair  # the output may be the call's input
    for got, want in zip(pair, flow.to_latent(x), strict=True):
        cases.assert_same_bits(library.open(got), want)
    assert len(machine.logged("written")) == (3 if name == "torch" else 0)
    drawn = library.make(np.zeros((7, FEATURES), dtype))
    assert device.sample(7, seed=1, out=drawn) is drawn
    cases.assert_same_bits(library.open(drawn), flow.sample(7, seed=1))


@OWN
def test_out_that_does_not_fit_is_refused(machine, name):
    flow, library = made_flow("float32", context=0).to("cuda"), Library(name, machine)
    x = library.make(cases.rows(ROWS, FEATURES, "float32"))
    for out, words, error in [
        (library.make(np.zeros(ROWS)), ["out:", "float32", "float64"], TypeError),
        (library.make(np.zeros(ROWS + 1, "f4")), ["out:", "(20,)", "(21,)"], ValueError),
        (library.make(np.zeros(2 * ROWS, "f4"), lambda a: a[::2]), ["out:", "C-contiguous"], ValueError),
        (np.zeros(ROWS, "f4"), ["out:", "CPU's memory", "cuda:0"], TypeError),
    ]:
        refuse(lambda out=out: flow.log_prob(x, out=out), *words, error=error)
    table = library.make(cases.rows(ROWS + 1, FEATURES, "float32"))
    owner = table.data if name == "cupy" else table.block
    first, second = (library.around(part, owner) for part in (host_of(table)[1:], host_of(table)[:-1]))
    pair = first, library.make(np.zeros(ROWS, "f4"))
    refuse(lambda: flow.to_latent(second, out=pair), "out:", "overlap", error=ValueError)


def host_of(array):
    return array.on_cpu if hasattr(array, "on_cpu") else array.array


def test_arrays_that_are_only_read_are_not_written(machine):
    flow = made_flow("float32", context=0).to("cuda")
    for name, word in [("jax", "JAX arrays cannot be written to"), ("exchanged", "to write into")]:
        library = Library(name, machine)
        x, out = library.make(cases.rows(ROWS, 4, "float32")), library.make(np.zeros(ROWS, "f4"))
        refuse(lambda x=x, out=out: flow.log_prob(x, out=out), "out:", word)


def test_read_only_memory_is_read(machine):
    flow, x = made_flow("float32", context=0), cases.rows(9, 4, "float32")
    got = flow.to("cuda").log_prob(fake_frameworks.Interface(x, None, None, read_only=True))
    cases.assert_same_bits(got.get(), flow.log_prob(x))


# --- refusals ---------------------------------------------------------------------------------------------------------


def on_second(library, values):
    """An array on the second device, cuda:1."""
    machine, values = library.machine, np.asarray(values)
    block = fake_frameworks.Block(machine, values.nbytes, 0)
    array = block.array(values.shape, values.dtype)
    array[...] = values
    if library.name == "cupy":
        return machine.cupy.ndarray.over(array, block, 1)
    if library.name == "torch":
        return sys.modules["torch"].Tensor(array, block, 1)
    return fake_frameworks.Exchanged(machine, array, block, library.producer, index=1)


@pytest.mark.parametrize("name", ["cupy", "torch", "exchanged"])
def test_arrays_on_another_device(machine, name):
    flow, library = made_flow("float32").to("cuda"), Library(name, machine)
    x, context = cases.rows(9, 4, "float32"), cases.rows(9, 2, "float32")
    words = "cuda:0", "cuda:1", ".to('cuda:1')"
    refuse(lambda: flow.log_prob(on_second(library, x), library.make(context)), "x:", *words)
    refuse(lambda: flow.log_prob(library.make(x), on_second(library, context)), "context:", *words)
    got = made_flow("float32").to("cuda:1").log_prob(on_second(library, x), on_second(library, context))
    machine.finish()
    cases.assert_same_bits(host_of(got), made_flow("float32").log_prob(x, context))
    assert machine.logged("program")[-1] == ("program", 1)


def test_arrays_of_the_cpu(library):
    flow = made_flow("float32").to("cuda")
    x, context = cases.rows(9, 4, "float32"), cases.rows(9, 2, "float32")
    words = "cuda:0", "a NumPy array in the CPU's memory", ".to('cpu')"
    refuse(lambda: flow.log_prob(x, library.make(context)), "x:", "cupy.asarray(x)", *words)
    refuse(lambda: flow.log_prob(library.make(x), context), "context:", "cupy.asarray(context)", *words)
    refuse(lambda: flow.sample(9, context), "context:", *words)
    host = fake_frameworks.Exchanged(library.machine, x, x, None, kind=fake_frameworks.CPU)
    refuse(lambda: flow.log_prob(host, library.make(context)), "x:", "CPU's memory", ".to('cpu')")
    cupys = "of CuPy, PyTorch or JAX)", "cupy.asarray(x"
    refuse(lambda: flow.log_prob([[1.0] * 4] * 9, library.make(context)), "x:", "builtins.list", *cupys)
    refuse(lambda: flow.log_prob(np.float32(1.0), library.make(context)), "x:", "numpy.float32", *cupys)
    refuse(lambda: flow.log_prob(None, library.make(context)), "x:", "got None")
    second = made_flow("float32").to("cuda:1")
    refuse(lambda: second.log_prob(x, context), "x:", "`with cupy.cuda.Device(1)`: cupy.asarray(x)", ".to('cpu')")

    def assign():
        flow.parameters = flow.to("cpu").parameters

    refuse(assign, "parameters:", "cupy.asarray(parameters)")
    refuse(lambda: hr.Adam(flow).step(np.zeros(flow.parameters.size, "f4")), "gradient:", "cupy.asarray(gradient)")


def test_a_tensor_and_an_array_of_jax_on_the_cpu(machine):
    flow = made_flow("float32", context=0).to("cuda")
    tensor = sys.modules["torch"].Tensor(np.zeros((3, 4), "f4"), None)
    tensor.device = fake_frameworks.FakeDevice("cpu", None)
    refuse(lambda: flow.log_prob(tensor), "x:", "a tensor on cpu", "x.to('cuda:0')")
    array = sys.modules["jax"].Array(np.zeros((3, 4), "f4"), None)
    array.devices = lambda: {fake_frameworks.FakeDevice("cpu", 0)}
    refuse(lambda: flow.log_prob(array), "x:", "an array on cpu:0", "jax.device_put(x, jax.devices('gpu')[0])")


def test_arrays_of_the_device_for_a_flow_on_the_cpu(library):
    flow, x = made_flow("float32", context=0), cases.rows(9, 4, "float32")
    refuse(lambda: flow.log_prob(library.make(x)), "x:", "CPU's memory", ".to('cuda')")
    refuse(lambda: hr.ops.coupling(x, library.make(np.zeros((9, 4, 2), "f4"))), "params:", "CPU's memory")


@pytest.mark.parametrize("first", HINTS)
@pytest.mark.parametrize("second", HINTS)
def test_arrays_of_two_libraries(machine, first, second):
    one, other = Library(first, machine), Library(second, machine)
    flow, x = made_flow("float32").to("cuda"), one.make(cases.rows(9, 4, "float32"))
    context = other.make(cases.rows(9, 2, "float32"))
    if first == second:
        flow.log_prob(x, context)
    else:
        refuse(lambda: flow.log_prob(x, context), "context:", ", as for x, got ", HINTS[first])


def test_advice_names_the_device_of_the_flow_first(machine):
    flow, cupy, torch = made_flow("float32").to("cuda:1"), Library("cupy", machine), Library("torch", machine)
    x, context = cases.rows(9, 4, "float32"), cases.rows(9, 2, "float32")
    call = "torch.asarray(context, device='cuda:1')"
    refuse(lambda: flow.log_prob(on_second(torch, x), on_second(cupy, context)), "context:", call)
    call = "`with cupy.cuda.Device(1)`: cupy.asarray(context)"
    refuse(lambda: flow.log_prob(on_second(cupy, x), on_second(torch, context)), "context:", call)


@pytest.mark.parametrize("name", ["exchanged", "interface"])
def test_foreign_arrays_count_as_cupys(machine, name):
    flow, foreign, own = made_flow("float32"), Library(name, machine), Library("cupy", machine)
    x, context = cases.rows(9, 4, "float32"), cases.rows(9, 2, "float32")
    got = flow.to("cuda").log_prob(foreign.make(x), own.make(context))
    cases.assert_same_bits(own.open(got), flow.log_prob(x, context))
    tensor = Library("torch", machine).make(x)
    words = "context:", "cupy.from_dlpack(context)"
    refuse(lambda: flow.to("cuda").log_prob(tensor, foreign.make(context)), *words)


@pytest.mark.parametrize("kind", ["float16", "complex64"])
def test_other_types_of_numbers(library, kind):
    flow, x = made_flow("float32", context=0).to("cuda"), np.ones((9, 4)).astype(kind)
    refuse(lambda: flow.log_prob(library.make(x)), "x:", "float32 or float64", kind)


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "bool"])
def test_integers_are_converted_there(library, kind):
    flow = made_flow("float32", context=0)
    x = np.arange(36).reshape(9, 4).astype(kind)
    got = flow.to("cuda").log_prob(library.make(x))
    cases.assert_same_bits(library.open(got), flow.log_prob(x.astype("f8")))


def test_lists_are_refused_for_a_flow_on_a_device(machine):
    flow = made_flow("float32", context=0)
    refuse(lambda: flow.to("cuda").log_prob([[1.0] * 4]), "x:", "list", "cupy.asarray(x, dtype='float64')")


def test_wrong_shapes(library):
    flow = made_flow("float32", context=0).to("cuda")
    x = library.make(cases.rows(9, 3, "float32"))
    refuse(lambda: flow.log_prob(x), "x:", "(rows, 4)", "(9, 3)", error=ValueError)


@pytest.mark.parametrize("name", ["cupy", "interface"])
def test_values_at_unaligned_addresses(machine, name):
    flow, library = made_flow("float32", context=0).to("cuda"), Library(name, machine)
    odd = library.make(np.zeros(9 * 4 * 4 + 4, np.uint8), lambda a: a[1:145].view("f4").reshape(9, 4))
    refuse(lambda: flow.log_prob(odd), "x:", "aligned", error=ValueError)


def test_a_masked_array_interface(machine):
    flow, x = made_flow("float32", context=0).to("cuda"), cases.rows(9, 4, "float32")
    refuse(lambda: flow.log_prob(fake_frameworks.Interface(x, None, None, mask=x)), "x:", "mask")


def test_a_library_whose_export_of_memory_fails(machine):
    flow, array = made_flow("float32", context=0).to("cuda"), Library("exchanged", machine).make(np.ones((9, 4), "f4"))
    machine.fail["lend"] = BufferError("it is lent to somebody else")
    refuse(lambda: flow.log_prob(array), "x:", "Exchanged", "DLPack", "lent to somebody else")


def test_tensors_that_require_a_gradient_and_tracers(machine):
    flow = made_flow("float32", context=0).to("cuda")
    tensor = Library("torch", machine).make(np.ones((9, 4), "f4"))
    tensor.requires_grad = True
    refuse(lambda: flow.log_prob(tensor), "x:", "x.detach()", "_vjp")
    array = Library("jax", machine).make(np.ones((9, 4), "f4"))
    array.is_deleted = lambda: True
    refuse(lambda: flow.log_prob(array), "x:", "deleted")
    refuse(lambda: hr.ops.vector_map(array, array, map="radial"), "value:", "deleted")
    refuse(lambda: hr.DualAscentFlow.notes(steps=1).fit(array, progress=False), "x:", "deleted")


def test_results_of_64_bits_that_jax_would_narrow(machine, monkeypatch):
    monkeypatch.setattr(sys.modules["jax"].config, "jax_enable_x64", False)
    flow, x = made_flow("float64", context=0).to("cuda"), Library("jax", machine).make(cases.rows(9, 4, "float32"))
    refuse(lambda: flow.log_prob(x), "float64", "jax_enable_x64", ".astype('float32')")
    # Calls without a result on the device are accepted.
    assert len(flow.fit(x, epochs=1, progress=False).train_loss) == 1


def test_the_calls_are_those_of_the_cpu():
    assert len(FLOW_CALLS) + len(TRANSFORM_CALLS) == 17
