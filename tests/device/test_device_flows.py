"""Flows and transforms that move to a simulated CUDA device and back, and errors where no device exists."""

import copy
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import cases
import headrace as hr
from array_cases import CONTEXT, FEATURES, made_flow
from device_cases import FLOWS, refuse, standardize
from devices import Library
from headrace import _core
from headrace._core import device as _device

X, C = cases.rows(30, FEATURES, "float32"), cases.rows(30, CONTEXT, "float32", "context")


@pytest.fixture
def cupy(machine):
    return Library("cupy", machine)


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_moves_there_and_back(cupy, name):
    flow = FLOWS[name]()
    if flow.parameters.size:
        flow = cases.randomise(flow)
    device = flow.to("cuda")
    assert (flow.device, device.device, type(device)) == ("cpu", "cuda:0", type(flow))
    for got, want in zip(device.to_latent(cupy.make(X)), flow.to_latent(X), strict=True):
        cases.assert_same_bits(got.get(), want)
    cases.assert_same_bits(device.sample(9, seed=2).get(), flow.sample(9, seed=2))
    back = device.to("cpu")
    assert back.device == "cpu"
    cases.assert_same_bits(back.parameters, flow.parameters)
    cases.assert_same_bits(back.log_prob(X), flow.log_prob(X))


@pytest.mark.parametrize("name", FLOWS)
def test_parts_of_a_flow_are_on_its_device(cupy, name):
    flow = FLOWS[name]()
    device = flow.to("cuda")
    for t, own in zip(device.transforms, flow.transforms, strict=True):
        assert t.device == "cuda:0"
        cases.assert_same_bits(t.inverse(cupy.make(X))[0].get(), own.inverse(X)[0])
        assert t.to("cpu").device == "cpu"
    part = device[: max(len(flow) - 1, 0)]
    assert part.device == "cuda:0"
    cases.assert_same_bits(part.log_prob(cupy.make(X)).get(), flow[: max(len(flow) - 1, 0)].log_prob(X))
    assert all(t.device == "cpu" for t in device.to("cpu").transforms)
    if flow.transforms:
        again = hr.Flow(device.transforms, flow.base)
        assert again.device == "cuda:0"
        cases.assert_same_bits(again.log_prob(cupy.make(X)).get(), flow.log_prob(X))


def test_a_part_is_compiled_once_on_the_device(cupy):
    """A part of a flow is compiled at its first use, whatever its number of transforms; parameters are read once and
    set once."""
    flow = hr.Flow([*(hr.transforms.Elementwise(FEATURES, map="dual_ascent") for _ in range(30)), standardize()])
    machine = cupy.machine
    device = flow.to("cuda")
    # The move compiles the flow at once, because memory may be short at the first use.
    assert machine.logged("program") == [("program", 0)]
    machine.log.clear()
    part = device[:20]
    assert len(device.transforms) == 31
    assert machine.logged("program") == []
    assert {words[1] for words in machine.logged("sync")} == {"host_weights"}
    machine.log.clear()
    log_prob = part.log_prob(cupy.make(X))
    part.sample(3, seed=1)
    assert machine.logged("program") == [("program", 0)]
    assert [words[1] for words in machine.logged("sync")] == ["set_host_weights"]
    cases.assert_same_bits(log_prob.get(), flow[:20].log_prob(X))


def test_a_copy_on_a_device_shares_no_parameters(cupy):
    flow = made_flow("float32", context=0)
    device = flow.to("cuda")
    others = [device.to("cuda:0"), copy.copy(device), copy.deepcopy(device), device.astype("float32"), flow]
    device.parameters = cupy.make(0.0 * flow.parameters)
    for other in others:
        cases.assert_same_bits(other.to("cpu").parameters, flow.parameters)
    assert not device.to("cpu").parameters.any()
    assert [other.device for other in others] == ["cuda:0"] * 4 + ["cpu"]


def test_transforms_without_parameters_take_either_dtype(cupy, dtype):
    for t in (standardize(), hr.transforms.Inverse(standardize()), hr.transforms.Permutation([1, 2, 3, 0])):
        device = t.to("cuda")
        assert device.dtype is None
        got = device.forward(cupy.make(X.astype(dtype)))
        assert got[0].dtype == np.dtype(dtype)
        cases.assert_same_bits(got[0].get(), t.forward(X.astype(dtype))[0])
        assert device.to("cpu").forward(X)[0].dtype == np.float32
    assert hr.transforms.Inverse(standardize()).to("cuda").transform.device == "cuda:0"


def test_parameters_are_cupys_and_come_from_every_library(library, dtype):
    flow = made_flow(dtype, context=0)
    device, want = flow.to("cuda"), (0.5 * flow.parameters).astype(dtype)
    parameters = device.parameters
    assert isinstance(parameters, library.machine.cupy.ndarray)
    cases.assert_same_bits(parameters.get(), flow.parameters)
    device.parameters = library.make(want.astype("float64"))
    cases.assert_same_bits(device.parameters.get(), want)

    def wrong():
        device.parameters = library.make(want[1:])

    refuse(wrong, "parameters:", f"({want.size},)", error=ValueError)


def test_named_parameters_are_of_the_host(cupy):
    flow = made_flow("float32", context=0)
    device = flow.to("cuda")
    for name, array in device.named_parameters().items():
        assert type(array) is np.ndarray
        cases.assert_same_bits(array, flow.named_parameters()[name])
        device.set_parameter(name, 2.0 * array)
        flow.set_parameter(name, 2.0 * array)
    cases.assert_same_bits(device.parameters.get(), flow.parameters)
    for got, want in zip(device.transforms[0].to_dense(), flow.transforms[0].to_dense(), strict=True):
        assert all(map(np.array_equal, got, want))
    name = next(iter(flow.named_parameters()))
    shape = flow.named_parameters()[name].shape
    copies = {"cupy": f"cupy.asnumpy({name})", "torch": f"{name}.cpu()", "jax": "jax.devices('cpu')[0]"}
    for library, call in copies.items():
        array = Library(library, cupy.machine).make(np.zeros(shape, "f4"))
        for given in (device, flow):
            with pytest.raises(TypeError, match="expected an array in the CPU's memory, wherever") as caught:
                given.set_parameter(name, array)
            assert str(caught.value).startswith(f"{name}:")
            assert call in str(caught.value)
            assert ".to('cuda')" not in str(caught.value)


def test_a_flow_of_a_device_is_saved(cupy, tmp_path):
    flow = hr.Flow([*made_flow("float32").transforms[:-1], standardize()], hr.Normal(FEATURES, 0.5, 2.0))
    device = flow.to("cuda")
    device.save(tmp_path / "flow.safetensors")
    flow.save(tmp_path / "same.safetensors")
    assert (tmp_path / "flow.safetensors").read_bytes() == (tmp_path / "same.safetensors").read_bytes()
    loaded = hr.load(tmp_path / "flow.safetensors")
    assert loaded.device == "cpu"
    cases.assert_same_bits(loaded.to("cuda").log_prob(cupy.make(X), cupy.make(C)).get(), flow.log_prob(X, C))
    assert repr(device) == repr(flow)
    assert device.base.loc.tolist() == [0.5] * FEATURES


def test_dtypes_change_on_the_device(cupy):
    flow = made_flow("float32", context=0)
    wide = flow.to("cuda").astype("float64")
    assert (wide.device, wide.dtype) == ("cuda:0", np.dtype("float64"))
    cases.assert_same_bits(wide.log_prob(cupy.make(X)).get(), flow.astype("float64").log_prob(X))


def test_standardised_context(cupy):
    flow = hr.MAF(FEATURES, CONTEXT, 1, (8,))
    flow = hr.Flow(flow.transforms, standardize_context=(np.array([1.0, -1.0]), np.array([2.0, 0.5])))
    got = flow.to("cuda").log_prob(cupy.make(X), cupy.make(C))
    cases.assert_same_bits(got.get(), flow.log_prob(X, C))


def test_transforms_of_two_devices_are_refused(machine):
    first, second = hr.transforms.Coupling(4, [0], (8,)), hr.transforms.Coupling(4, [1], (8,))
    for chain in ([first.to("cuda"), second], [first.to("cuda:0"), second.to("cuda:1")]):
        places = [t.device for t in chain]
        refuse(lambda chain=chain: hr.Flow(chain), "transforms:", "one device", *places, ".to", error=ValueError)


def test_adam(library, dtype):
    """The gradient's norm stays on the device, and nothing waits for it; if the norm is not finite, nothing changes."""
    flow, x = made_flow(dtype, context=0), cases.rows(50, FEATURES, dtype)
    device = flow.to("cuda")
    settings = {"clip": 0.5, "average": 0.9, "weight_decay": 0.1}
    adam, other = hr.Adam(device, 1e-2, **settings), hr.Adam(flow, 1e-2, **settings)
    for _ in range(3):
        gradient = device.nll_and_grad(library.make(x))[1]
        library.machine.log.clear()
        norm = adam.step(gradient)
        assert not library.machine.logged("sync")
        assert isinstance(norm, library.machine.cupy.ndarray)
        assert norm.shape == ()
        assert float(norm) == other.step(flow.nll_and_grad(x)[1])
    cases.assert_same_bits(device.parameters.get(), flow.parameters)
    cases.assert_same_bits(adam.averaged.get(), other.averaged)
    assert not np.isfinite(float(adam.step(library.make(np.full(flow.parameters.size, np.nan)))))
    cases.assert_same_bits(device.parameters.get(), flow.parameters)


def test_functions_for_flows_on_the_cpu_name_the_remedy(machine):
    flow, other = made_flow("float32", context=0), hr.IAF(FEATURES, transforms=1, hidden=(8,))
    device, words = flow.to("cuda"), ("on the CPU", "cuda:0", ".to('cpu')")
    refuse(lambda: hr.fit_to_density(device, hr.densities.U1()), "flow:", *words, error=ValueError)
    refuse(lambda: hr.free_energy(device, hr.densities.U1()), "flow:", *words, error=ValueError)
    refuse(lambda: hr.distill(device, other), "teacher:", *words, error=ValueError)
    refuse(lambda: hr.distill(other, device), "student:", *words, error=ValueError)


# --- devices ----------------------------------------------------------------------------------------------------------


def test_names_of_devices(machine):
    t = standardize()
    assert [t.to(name).device for name in ("cpu", "cuda", "cuda:0", "cuda:1")] == ["cpu", "cuda:0", "cuda:0", "cuda:1"]
    machine.device = 1  # the current device of CuPy
    assert t.to("cuda").device == "cuda:1"
    for name in ("gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:0:1", "cpu:0", "CUDA", "", None, 0, "cuda:²"):
        refuse(lambda name=name: t.to(name), "device:", "'cuda:0'", repr(name), error=ValueError)
    refuse(lambda: t.to("cuda:2"), "device:", "'cuda:2'", "2 in all", error=hr.CudaUnavailable)


def test_no_device(machine):
    machine.devices = 0
    refuse(lambda: standardize().to("cuda"), "no device is plugged in", error=hr.CudaUnavailable)
    assert standardize().to("cpu").device == "cpu"
    assert "no device is plugged in (built for 90-real, CUDA 13.0)" in hr.info()["cuda"]
    x = Library("torch", machine).make(X)
    refuse(lambda: made_flow("float32", context=0).log_prob(x), "x:", "x.cpu()", "no device is plugged in")
    refuse(lambda: hr.ops.vector_map(x, x, map="radial"), "value:", "value.cpu()", "no device is plugged in")


def test_a_build_without_the_module(machine, monkeypatch):
    monkeypatch.setattr(_core, "cuda", None)
    monkeypatch.setattr(_core, "_missing", "it was built without its CUDA module")
    refuse(lambda: standardize().to("cuda"), "built without its CUDA module", error=hr.CudaUnavailable)
    assert hr.info()["cuda"] == "not available: it was built without its CUDA module"


def test_no_cupy(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # None makes Python's import fail
    _device.device_at.cache_clear()
    refuse(lambda: standardize().to("cuda"), "CuPy", ".[cuda13]", error=hr.CudaUnavailable)


def test_facts_about_devices(machine):
    assert hr.info()["cuda"] == (
        "cuda:0 Fake 0 of compute capability 9.0, cuda:1 Fake 1 of compute capability 9.0 "
        "(built for 90-real, CUDA 13.0, driver for CUDA 13.1)"
    )


def test_one_of_two_devices_cannot_be_used(machine):
    machine.reasons[0] = "Tesla T4 has compute capability 7.5, and headrace needs 8.0"
    _device.device_at.cache_clear()
    for name in ("cuda", "cuda:0"):
        refuse(lambda name=name: standardize().to(name), "cuda:0: Tesla T4", "7.5", "8.0", error=hr.CudaUnavailable)
    x = Library("torch", machine).make(X)
    refuse(lambda: hr.ops.vector_map(x, x, map="radial"), "cuda:0: Tesla T4", error=hr.CudaUnavailable)
    assert standardize().to("cuda:1").device == "cuda:1"
    assert hr.info()["cuda"].startswith(f"cuda:0 (not usable: {machine.reasons[0]}), cuda:1 Fake 1 of")


def test_kernels_that_the_driver_compiles_are_announced_once(machine):
    machine.without_code = {1}
    _device.device_at.cache_clear()
    message = (
        "cuda:1, Fake 1, has compute capability 9.0, and headrace was built for 90-real: the driver compiles kernels"
    )
    with pytest.warns(RuntimeWarning, match=message) as warned:
        standardize().to("cuda:1")
    assert [w.filename for w in warned] == [__file__]  # the line of the caller
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        standardize().to("cuda:1")
        standardize().to("cuda:0")


def test_streams_of_other_libraries_before_cupy_14(machine, monkeypatch):
    monkeypatch.delattr(machine.cupy.cuda.Stream, "from_external")
    machine.cupy.cuda.ExternalStream = lambda address, device: SimpleNamespace(ptr=address, device_id=device)
    stream = _device.device_at(1).stream_at(77)
    assert (stream.ptr, stream.device_id) == (77, 1)


def test_streams_of_other_libraries_are_of_the_device(machine):
    """CuPy assumes that another library's stream belongs to the current device."""
    stream = _device.device_at(1).stream_at(77)
    assert (stream.ptr, stream.device_id) == (77, 1)
    assert machine.device == 0


@pytest.mark.parametrize("matmul", ["tf32", "3xtf32"])
@pytest.mark.parametrize("name", FLOWS)
def test_matmul_is_kept_by_copies_and_parts_of_a_flow(cupy, name, matmul):
    flow = FLOWS[name]()
    fast = flow.to("cuda:1", matmul=matmul)
    assert (flow.matmul, fast.matmul, fast.device) == ("exact", matmul, "cuda:1")
    made = [*fast.transforms, copy.copy(fast), copy.deepcopy(fast), fast.astype("float32"), fast[:0]]
    if flow.transforms:
        inverse = hr.transforms.Inverse(fast.transforms[0])
        made += [hr.Flow(fast.transforms, flow.base), inverse, inverse.transform]
    assert all((part.matmul, part.device) == (matmul, "cuda:1") for part in made)
    programs = cupy.machine.logged("program")
    assert programs  # the programs in the log have the setting, too
    assert all(words == ("program", 1, matmul) for words in programs)
    assert fast.to("cuda:1").matmul == fast.to("cpu").matmul == "exact"
    assert cupy.machine.logged("program")[-1] == ("program", 1)


def test_matmul_is_kept_by_prefixes_of_an_ascent(cupy):
    ascent = hr.DualAscentFlow.notes(steps=2, patience=None).fit(X, validation=None, progress=False)
    part = ascent.to("cuda:1", matmul="tf32")[:1]
    assert (len(part), part.matmul, part.device) == (1, "tf32", "cuda:1")


def test_flows_of_one_device_may_differ_in_matmul(cupy):
    device = _device.device_at(0)
    assert _device.device_named("cuda:0") is device
    fast = _device.device_named("cuda:0", "tf32")
    assert fast is hr.MAF(3).to("cuda", matmul="tf32")._device
    assert fast is not _device.device_named("cuda:0", "3xtf32")
    fast.keep(fast.current_stream(), ["what a call held"])
    cupy.machine.finish()
    device.let_go()
    assert not fast._kept


def test_parts_of_a_flow_that_compute_differently_are_refused(cupy):
    parts = [hr.transforms.MaskedAutoregressive(3, (5,)).to("cuda", matmul) for matmul in ("exact", "tf32")]
    with pytest.raises(ValueError, match=r"transforms: expected one matmul, got \['exact', 'tf32'\]; use .to"):
        hr.Flow(parts)


def test_tf32_is_refused_on_the_cpu_and_in_float64(cupy):
    flow = hr.MAF(3, hidden=(5,))
    with pytest.raises(ValueError, match=r"matmul: expected 'exact', .* or 'bf16x6_tiles' on the CPU, got 'tf32'"):
        flow.to("cpu", matmul="tf32")
    with pytest.raises(ValueError, match=r"matmul: expected .*'exact'.*'tf32'.*'3xtf32'.*, got 'bf16'"):
        flow.to("cuda", matmul="bf16")
    message = (
        r"dtype, matmul: expected float32 or 'exact', got float64 and 'tf32'; call .astype\('float32'\), or .to\(cuda:0"
    )
    with pytest.raises(ValueError, match=message):
        flow.astype("float64").to("cuda", matmul="tf32")
    with pytest.raises(ValueError, match=message):
        flow.to("cuda", matmul="tf32").astype("float64")
    with pytest.raises(ValueError, match=message):
        hr.Flow(flow.to("cuda", matmul="tf32").transforms, dtype="float64")


def test_transforms_without_networks_take_either_dtype_with_tf32(cupy):
    turn = hr.transforms.Rotation.random(FEATURES, 0)
    fast = turn.to("cuda", matmul="tf32")
    for x in (X, X.astype("float64")):
        cases.assert_same_bits(fast.forward(cupy.make(x))[0].get(), turn.forward(x)[0])
