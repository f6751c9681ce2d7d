"""headrace.jax on a device: its handlers in XLA's CPU client over the emulated kernels, and on a card if there is one.

Results agree with the CPU's up to rounding. The emulation's memory is the host's, so that XLA's CPU client can run the
handlers for CUDA; the test provides the stream that the CPU client lacks.
"""

import functools
import gc
import types

import numpy as np
import pytest

import cuda_arrays
import headrace as hr
from headrace import _core, _cpu

jax = pytest.importorskip("jax", reason="jax is not installed")

from jax import numpy as jnp  # noqa: E402

import headrace.jax as hj  # noqa: E402
from headrace.jax import _calls as _xla  # noqa: E402

pytestmark = pytest.mark.usefixtures("wide")

STREAM = 0xABC0
LIMITS = {"float64": {"rtol": 1e-10, "atol": 1e-10}, "float32": {"rtol": 1e-4, "atol": 2e-5}}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "copy to host", "copy to device")


@functools.cache
def registered(module):
    """Register the emulation's handlers once a process, because XLA keeps handlers."""
    for name, handler in module.xla_handlers.items():
        jax.ffi.register_ffi_target(f"headrace_emulated_{name}", handler, platform="cpu")


@pytest.fixture
def emu(monkeypatch):
    """Make structures that are created in the test compute in the emulation, on `STREAM`."""
    module = cuda_arrays.load("emu").module
    _xla.register()  # the CPU's handlers have their usual names
    registered(module)
    monkeypatch.setattr(_xla, "_on_devices", lambda: module)
    monkeypatch.setattr(_xla.Structure, "target", "headrace_emulated")
    module.set_xla_stream(STREAM)
    module.schedule(cuda_arrays.ORDERS[cuda_arrays.order_of("jax", cuda_arrays.seed())])
    yield module
    module.set_xla_stream(0)
    module.schedule(0)


@pytest.fixture(params=["emu", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request):
    """A function that moves arrays to the memory of the device on which headrace.jax computes."""
    if request.param == "emu":
        request.getfixturevalue("emu")
        yield lambda *values: values
        return
    if reason := _core.cuda_unavailable():
        pytest.skip(reason)
    try:
        device = jax.devices("cuda")[0]
    except RuntimeError as error:
        pytest.skip(str(error))
    with jax.default_device(device):
        yield lambda *values: jax.device_put(values, device)


def made(family="MAF", context=2, features=3, dtype="float64", **settings):
    """A small flow with random parameters."""
    flow = getattr(hr, family)(features, context, 2, (8, 8), activation="tanh", dtype=dtype, **settings)
    rng = np.random.default_rng(3)
    flow.parameters = 0.3 * rng.standard_normal(flow.parameters.size).astype(dtype)
    return flow


def arrays(flow, rows=5, seed=0):
    """The parameters, rows, and context or None, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, flow.features)).astype(flow.dtype)
    context = rng.standard_normal((rows, flow.context)).astype(flow.dtype) if flow.context else None
    return flow.parameters, x, context


FLOWS = {
    "MAF": lambda **given: made(**given),
    "NSF": lambda **given: made("NSF", **given),
    "RealNVP": lambda **given: made("RealNVP", **given),
    "IAF": lambda **given: made("IAF", **given),
    "logistic": lambda **given: made(base=hr.Logistic(3), **given),
    "normal": lambda **given: made(base=hr.Normal(3, [1.0, 2.0, 3.0], 0.5), **given),
    "no context": lambda **given: made(context=0, **given),
}

CASES = [(name, "float64") for name in FLOWS] + [("MAF", "float32"), ("NSF", "float32")]


def all_close(got, want, dtype):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.shape == np.shape(w)
        np.testing.assert_allclose(g, w, **LIMITS[str(dtype)])


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_values_are_those_of_the_flow(place, name, dtype):
    flow = FLOWS[name](dtype=dtype)
    p, x, c = arrays(flow, rows=37)  # 37 rows are two tiles, the second of them partial
    given = place(p, x, *(() if c is None else (c,)))
    all_close(jax.jit(lambda *a: hj.log_prob(flow, *a))(*given), flow.log_prob(x, c), dtype)
    for verb in ("to_latent", "to_data"):
        got = jax.jit(lambda *a, verb=verb: getattr(hj, verb)(flow, *a))(*given)
        all_close(got, getattr(flow, verb)(x, c), dtype)


def test_parameters_are_those_given_and_a_frozen_module_has_its_own(place):
    flow = made()
    p, x, c = arrays(flow)
    own, rows, contexts = place(0.5 * p, x, c)
    all_close(hj.log_prob(flow, own, rows, contexts), flow.log_prob(x, c, parameters=0.5 * p), "float64")
    frozen = hj.freeze(flow)
    flow.parameters = 0 * p
    all_close(jax.jit(frozen.log_prob)(rows, contexts), flow.log_prob(x, c, parameters=p), "float64")
    score = jax.jit(jax.vmap(jax.grad(frozen.log_prob)))(rows, contexts)
    flow.parameters = p
    all_close(score, flow.log_prob_and_score(x, c)[1], "float64")


def test_samples_are_the_noise_of_the_key_under_the_base(place):
    flow = made()
    p, _, c = arrays(flow, rows=40)
    own, contexts = place(p, c)
    x, log_q = jax.jit(lambda p, c: hj.sample_and_log_prob(flow, p, jax.random.key(3), 40, c))(own, contexts)
    noise = np.asarray(jax.random.normal(jax.random.key(3), (40, 3), jnp.float64))
    all_close(x, flow.sample(40, c, noise=noise), "float64")
    all_close(log_q, flow.log_prob(np.asarray(x), c), "float64")
    np.testing.assert_array_equal(x, hj.sample(flow, own, jax.random.key(3), 40, contexts))


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("weights", ["even", "uneven"])
def test_gradients_are_those_of_the_flow(place, name, dtype, weights):
    """Gradients of log densities: by parameters, with equal and with different factors of rows, and by rows alone."""
    flow = FLOWS[name](dtype=dtype)
    p, x, c = arrays(flow, rows=37)
    factors = np.full(37, 0.3) if weights == "even" else np.linspace(-1.0, 2.0, 37)
    factors = factors.astype(dtype)
    argument = (0, 1) if c is None else (0, 1, 2)
    given = place(p, x, *(() if c is None else (c,)))

    def loss(*a):
        return (factors * hj.log_prob(flow, *a)).sum()

    wrt = ("parameters", "inputs", "context")[: len(argument)]
    want = flow.log_prob_vjp(x, factors, c, wrt=wrt)
    all_close(jax.jit(jax.grad(loss, argument))(*given), want, dtype)
    all_close(jax.jit(jax.grad(loss, 1))(*given), want[1], dtype)


@pytest.mark.parametrize("verb", ["to_latent", "to_data"])
@pytest.mark.parametrize("most_kept", [0, 10**9])
@pytest.mark.parametrize("one_context", [False, True])
def test_gradients_of_values_are_those_of_the_cpu(place, monkeypatch, verb, most_kept, one_context):
    monkeypatch.setattr(_xla, "_MOST_KEPT", most_kept)
    flow = made()
    p, x, c = arrays(flow, rows=9)
    c = c[0] if one_context else c

    def loss(structure, *a):
        value, log_det = getattr(hj, verb)(structure, *a)
        return (value**2).sum() + log_det.sum() + hj.log_prob(structure, *a).sum()

    def gradients(structure, given):
        return jax.jit(jax.value_and_grad(lambda *a: loss(structure, *a), (0, 1, 2)))(*given)

    got = gradients(hj.structure(flow), place(p, x, c))
    with jax.default_device(jax.devices("cpu")[0]):
        want = gradients(on_cpu(flow), (p, x, c))
    all_close(got, want, "float64")


def on_cpu(flow):
    """A structure of the flow that computes on the CPU even where a fixture selects the device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_xla.Structure, "target", "headrace")
        patch.setattr(_xla, "_on_devices", lambda: None)
        structure = _xla.Structure(flow)
    structure.target = "headrace"
    return structure


def test_vmap_scan_and_no_rows(place):
    flow = made()
    p, x, c = arrays(flow, rows=6)
    own, rows, contexts = place(p, x, c)
    got = jax.vmap(lambda x, c: hj.log_prob(flow, own, x, c))(rows, contexts)
    all_close(got, flow.log_prob(x, c), "float64")
    stack = jnp.stack([own, 0.5 * own])
    got = jax.jit(jax.vmap(lambda p: hj.log_prob(flow, p, rows, contexts)))(stack)
    all_close(got, np.stack([flow.log_prob(x, c, parameters=q) for q in (p, 0.5 * p)]), "float64")

    def moved(x, _):
        return x + 0.1 * jax.grad(lambda x: hj.log_prob(flow, own, x, contexts).sum())(x), None

    final = jax.jit(lambda x: jax.lax.scan(moved, x, None, length=3)[0])(rows)
    loop = x
    for _ in range(3):
        loop = loop + 0.1 * flow.log_prob_and_score(loop, c)[1]
    all_close(final, loop, "float64")
    value, none = jax.value_and_grad(lambda p: hj.log_prob(flow, p, rows[:0], contexts[:0]).sum())(own)
    assert value == 0
    np.testing.assert_array_equal(none, np.zeros_like(p))


def test_training_steps_are_those_of_the_cpu(place):
    flow = made(context=0)
    _, x, _ = arrays(flow, rows=40)

    def trained(module, rows):
        @jax.jit
        def step(module):
            loss, gradient = jax.value_and_grad(lambda m: -m.log_prob(rows).mean())(module)
            return jax.tree.map(lambda p, g: p - 0.1 * g, module, gradient), loss

        losses = []
        for _ in range(4):
            module, loss = step(module)
            losses.append(loss)
        return module.params, np.array(losses)

    module = hj.FlowModule(flow)
    got = trained(jax.tree.map(lambda a: place(a)[0], module), place(x)[0])
    with jax.default_device(jax.devices("cpu")[0]):
        cpu = jax.tree.map(lambda _: jnp.asarray(flow.parameters), module)
        vars(cpu)["structure"] = on_cpu(flow)
        want = trained(cpu, x)
    all_close(got, want, "float64")


# ---- devices and streams ---------------------------------------------------------------------------------------------


def test_work_is_on_the_given_stream_without_waiting(emu):
    """Only the first call of a flow waits, because it copies the flow to the device."""
    flow = made()
    p, x, c = map(jnp.asarray, arrays(flow, rows=40))  # with 40 rows, calls may keep gradients by parameters
    calls = [
        jax.jit(lambda p, x: hj.log_prob(flow, p, x, c)),
        jax.jit(lambda p, x: hj.to_data(flow, p, x, c)),
        jax.jit(jax.grad(lambda p, x: hj.log_prob(flow, p, x, c).mean(), (0, 1))),
        jax.jit(jax.grad(lambda p, x: (x[:, 0] * hj.log_prob(flow, p, x, c)).sum())),
    ]
    emu.log()
    for call in calls:
        jax.block_until_ready(call(p, x))
    assert set(WAITS) & {name for name, _ in emu.log()}  # an earlier call has copied the first flow
    for call in calls:
        jax.block_until_ready(call(p, x))
        log = emu.log()
        assert "launch" in {name for name, _ in log}
        assert {stream for _, stream in log} == {STREAM}
        assert not set(WAITS) & {name for name, _ in log}, log
        assert not any("pageable" in name for name, _ in log)


def test_memory_is_given_back(emu):
    flow = made()
    p, x, c = map(jnp.asarray, arrays(flow))
    gradient = jax.jit(jax.grad(lambda p: hj.log_prob(flow, p, x, c).sum()))
    jax.block_until_ready(gradient(p))
    before = emu.allocated()
    jax.block_until_ready(gradient(p))
    assert emu.allocated() == before


def test_unused_structures_leave_the_device(emu):
    jax.clear_caches()
    gc.collect()
    counts, before = (_cpu.xla_count(), emu.xla_count()), emu.allocated()
    modules = [hj.freeze(made(context=0)) for _ in range(2)]
    for module in modules:
        jax.block_until_ready(module.log_prob(jnp.ones((2, 3))))
    assert (_cpu.xla_count() - counts[0], emu.xla_count() - counts[1]) == (2, 2)
    assert emu.allocated() > before
    del modules, module
    jax.clear_caches()
    gc.collect()
    assert (_cpu.xla_count(), emu.xla_count()) == counts
    assert emu.allocated() == before


def test_one_function_is_lowered_alike_for_every_platform():
    """On each platform a call runs the handler that is registered there under its name, with the same handle."""
    flow = made()
    p, x, c = map(jnp.asarray, arrays(flow, rows=40))
    traced = jax.jit(jax.grad(lambda p, x: hj.log_prob(flow, p, x, c).sum(), (0, 1))).trace(p, x)
    number = f"handle = {hj.structure(flow).handle} : i64"
    for platform in ("cpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "@headrace_unit_float64" in text
        assert "@headrace_scaled_float64" in text
        assert text.count(number) == 2
        assert "callback" not in text


@pytest.mark.parametrize("usable", [False, True])
def test_devices_have_handlers_of_their_own_where_headrace_can_use_them(monkeypatch, usable):
    registered, core = {}, types.SimpleNamespace(xla_handlers={name: f"cuda {name}" for name in _cpu.xla_handlers})

    def register(name, handler, platform):
        registered[name, platform] = handler

    monkeypatch.setattr(_xla, "_on_devices", lambda: core if usable else None)
    monkeypatch.setattr(jax.ffi, "register_ffi_target", register)
    _xla.register.__wrapped__()
    elsewhere = _cpu.xla_handlers["elsewhere"]
    for name in ("run_float32", "gradient_float64", "unit_float32", "scaled_float64"):
        assert registered[f"headrace_{name}", "cpu"] is _cpu.xla_handlers[name]
        assert registered[f"headrace_{name}", "CUDA"] == (f"cuda {name}" if usable else elsewhere)
        assert registered[f"headrace_{name}", "ROCM"] is elsewhere


def test_calls_for_a_device_without_its_module_name_the_remedy():
    jax.ffi.register_ffi_target("headrace_test_elsewhere", _cpu.xla_handlers["elsewhere"], platform="cpu")
    call = jax.ffi.ffi_call("headrace_test_elsewhere", jax.ShapeDtypeStruct((2,), "float32"))
    with pytest.raises(Exception, match=r"UNIMPLEMENTED.*`headrace info` says why.*jax.devices\('cpu'\)"):
        jax.block_until_ready(call(np.ones(2, "float32")))


def test_the_module_for_devices_is_used_where_it_works(monkeypatch):
    on_devices = _xla._on_devices.__wrapped__
    core = types.SimpleNamespace(xla_handlers={}, reason=lambda: "")
    monkeypatch.setattr(_core, "cuda", core)
    assert on_devices() is core
    core.reason = lambda: "no CUDA device"
    assert on_devices() is None
    monkeypatch.setattr(_core, "cuda", None)
    assert on_devices() is None


# ---- errors ----------------------------------------------------------------------------------------------------------


def called(structure, p, x, c=None):
    return jax.block_until_ready(jax.jit(lambda p, x: hj.log_prob(structure, p, x, c))(p, x))


def test_a_failed_allocation_is_repeated_after_memory_was_freed(emu):
    flow = made(context=0)
    p, x, _ = arrays(flow)
    want = called(flow, p, x)  # the first call copies the flow to the device
    trims = emu.trims()
    emu.fail_allocation(1)
    np.testing.assert_array_equal(called(flow, p, x), want)
    assert emu.trims() == trims + 1
    emu.fail_allocation(1, 2)
    with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED.*headrace: device memory of \d+ bytes: out of memory"):
        called(flow, p, x)
    emu.fail_allocation(0)
    np.testing.assert_array_equal(called(flow, p, x), want)
    other = made(context=0)
    emu.fail_allocation(4, 2)  # the allocation fails while the flow is copied to the device
    with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):
        called(other, p, x)
    emu.fail_allocation(0)
    np.testing.assert_array_equal(called(other, p, x), want)


def test_a_freed_flow_is_an_error_with_the_reason(emu):
    flow = made(context=0)
    p, x, _ = arrays(flow)
    structure = hj.structure(flow)
    call = jax.jit(lambda p, x: hj.log_prob(structure, p, x)).lower(p, x).compile()
    call(p, x)
    structure._closed_on_devices()
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*headrace: the flow that this was compiled for is gone"):
        jax.block_until_ready(call(p, x))


def test_captured_and_missing_streams_are_refused(emu):
    flow = made(context=0)
    p, x, _ = arrays(flow)
    want = called(flow, p, x)
    emu.set_captured(STREAM)
    try:
        with pytest.raises(Exception, match="headrace: stream: expected one that no CUDA graph is captured from"):
            called(flow, p, x)
    finally:
        emu.set_captured(0)
    emu.set_xla_stream(None)
    with pytest.raises(Exception, match="headrace: XLA has no stream for this call"):
        called(flow, p, x)
    emu.set_xla_stream(STREAM)
    np.testing.assert_array_equal(called(flow, p, x), want)


def test_products_in_bf16_are_refused_on_a_device(emu):
    flow = made(context=0, dtype="float32").to("cpu", matmul="bf16")
    p, x, _ = arrays(flow)
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*got matmul='bf16', which is of the CPU; call .to\('cpu'\)"):
        called(flow, p, x)
    assert np.isfinite(called(flow.to("cpu"), p, x)).all()


def raw(handle, arrays, shapes, kind="run", dtype="float64", **more):
    """Call a handler with arguments that headrace.jax never passes."""
    results = [jax.ShapeDtypeStruct(s, dtype) for s in shapes]
    call = jax.ffi.ffi_call(f"headrace_emulated_{kind}_{dtype}", results)
    attributes = {"handle": np.int64(handle), "inverse": True, "base": True, **more}
    return jax.block_until_ready(jax.jit(lambda *a: call(*a, **attributes))(*arrays))


def test_shapes_are_checked_in_every_call(emu):
    flow = made()
    p, x, c = map(jnp.asarray, arrays(flow))
    structure = hj.structure(flow)
    handle, none = structure.handle, jnp.zeros((0,))
    good = raw(handle, (p, x, c), [(0,), (5,)])[1]
    all_close(good, flow.log_prob(np.asarray(x), np.asarray(c)), "float64")
    wrong = [
        ("x: expected", (p, x[:, :2], c), [(0,), (5,)]),
        ("context: expected", (p, x, c[:3]), [(0,), (5,)]),
        ("params: the vector has the wrong size", (p[:7], x, c), [(0,), (5,)]),
        ("value: expected", (p, x, c), [(4, 3), (5,)]),
        ("expected a number for each row", (p, x, c), [(0,), (4,)]),
    ]
    for message, given, shapes in wrong:
        with pytest.raises(Exception, match=f"INVALID_ARGUMENT.*headrace: {message}"):
            raw(handle, given, shapes)
    gradients = [(0,), (0,), p.shape, (4, 3), (0,)]
    with pytest.raises(Exception, match="gradients: expected the shapes"):
        raw(handle, (p, x, c, none, none), gradients, "gradient", row_scale=np.float64(1.0))
    with pytest.raises(Exception, match="cotangent: expected a number"):
        raw(handle, (p, x, c, none, x[0]), [(0,), (5,), (0,), (0,), (0,)], "gradient", row_scale=np.float64(1.0))
    with pytest.raises(Exception, match="gradients: expected the shapes"):
        raw(handle, (p, x, c), [(5,), (1,), (3,), (0,), (0,)], "unit")
    with pytest.raises(Exception, match=r"Wrong|wrong|buffer|expected"):  # XLA itself raises an error for a wrong dtype
        raw(handle, (p.astype("float32"), x, c), [(0,), (5,)])


def test_a_handle_is_opened_once_and_weights_are_checked(emu):
    flow = made(context=0)
    structure = hj.structure(flow)
    parts = flow._made_for(emu)
    with pytest.raises(ValueError, match="handle: expected one that is not open"):
        emu.xla_open(True, structure.handle, *parts, flow.parameters, "exact")
    with pytest.raises(ValueError, match="weights: expected a contiguous vector in the flow's dtype"):
        emu.xla_open(True, 5, *parts, flow.parameters.astype("float32"), "exact")
    assert emu.xla_open(True, 5, *parts, flow.parameters[:3], "exact") is None
    p, x, _ = arrays(flow)
    with pytest.raises(Exception, match="headrace: weights: the vector has the wrong size"):
        raw(5, (p, x, jnp.zeros((0,))), [(0,), (5,)])
    assert emu.xla_close(True, 5)
    assert not emu.xla_close(True, 5)
