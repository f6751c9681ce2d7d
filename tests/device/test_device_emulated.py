"""The Python layer over the emulated CUDA sources: their kernels compute what the CPU's core computes in
`test_device_arrays.py` and other tests of simulated devices."""

from functools import partial

import numpy as np
import pytest

import cases
import fake_cuda
import headrace as hr
import reference
from array_cases import FEATURES, arrays, call_of, every_call, made_flow
from device_cases import assert_follows, data, map_all
from devices import Library, in_place
from fitting import SHORT
from headrace._core.maps import VECTOR_MAPS


@pytest.fixture
def emulated(emu):
    """CuPy's arrays on a simulated device whose kernels are emulated."""
    with in_place(fake_cuda.Machine(inner=lambda machine: emu.module)) as machine:
        yield Library("cupy", machine)


@every_call
def test_every_call(emulated, kind, name, dtype):
    call, holder = call_of(kind, name, dtype)
    given = arrays(dtype, holder.parameters.size)
    want = call(holder, given)
    got = call(holder.to("cuda"), {key: emulated.make(array) for key, array in given.items()})
    for result, expected in zip(got, want, strict=True):
        cases.assert_close(emulated.open(result), expected, magnitude=np.abs(expected).max(), depth=30)


@pytest.mark.parametrize("map", [*reference.MAPS, *reference.VECTOR_MAPS])
def test_functional_kernels(emulated, map, dtype):
    z, grad, rows = cases.rows(40, 3, dtype), cases.rows(40, 3, dtype, "grad"), np.linspace(-1.0, 1.0, 40).astype(dtype)
    count = (3, reference.MAPS[map].count(5)) if map in reference.MAPS else (VECTOR_MAPS[map].n_params(3),)
    params = cases.rng("params").standard_normal((40, *count)).astype(dtype)
    kind = "vector_map" if map in reference.VECTOR_MAPS else "coupling"
    run, pull = getattr(hr.ops, kind), getattr(hr.ops, f"{kind}_vjp")
    run_back = partial(run, direction="inverse")
    for call, given in ((run, (z, params)), (run_back, (z, params)), (pull, (z, params, grad, rows))):
        for got, want in zip(call(*map_all(emulated.make, given), map), call(*given, map), strict=True):
            cases.assert_close(emulated.open(got), want, magnitude=np.abs(want).max(), depth=30)


def test_a_sample_is_that_of_the_cpu(emulated, dtype):
    flow = made_flow(dtype, context=0)
    cases.assert_close(flow.to("cuda").sample(100, seed=5).get(), flow.sample(100, seed=5), magnitude=4.0, depth=30)


def test_a_fit_follows_that_of_the_cpu(emulated):
    """Rounding errors in float64 stay far below the tolerance."""
    x, context, weights = data()
    flow = made_flow("float64")
    device = flow.to("cuda")
    want = flow.fit(x, context, weights=weights, **SHORT)
    got = device.fit(emulated.make(x), emulated.make(context), weights=emulated.make(weights), **SHORT)
    assert np.allclose(got.train_loss, want.train_loss, rtol=1e-9)
    assert np.allclose(got.validation_loss, want.validation_loss, rtol=1e-9)
    assert np.allclose(device.to("cpu").parameters, flow.parameters, atol=1e-8)


@pytest.mark.parametrize("map", ["kink", "spline"])
def test_an_ascent_follows_that_of_the_cpu(emulated, map):
    """The ascent is in float64: directions are chosen by sorting, and rounding in float32 would change the order."""
    x = data(300)[0]
    x[:, 1] += x[:, 0] ** 2
    directions = {"kink": "sliced", "spline": None}[map]
    model = hr.DualAscentFlow(steps=2, refine=False, map=map, directions=directions, dtype="float64")
    want = model.fit(x, progress=False)
    log_likelihood = model.history.log_likelihood
    flow = model.fit(emulated.make(x), progress=False)
    assert np.allclose(model.history.log_likelihood, log_likelihood, rtol=1e-9)
    assert np.allclose(flow.to("cpu").log_prob(x), want.log_prob(x), atol=1e-8)
    assert flow.device == "cuda:0"


@pytest.mark.long
@pytest.mark.parametrize("weighted", [False, True])
def test_kinks_follow_those_of_the_cpu(emulated, weighted, dtype):
    x, _, weights = data(300)
    x[:, 1] += x[:, 0] ** 2
    weights = weights**4 if weighted else None
    other, model = (hr.DualAscentFlow.notes(steps=20, kinks=2, dtype=dtype) for _ in range(2))
    want = other.fit(x, weights=weights, progress=False)
    there = weights if weights is None else emulated.make(weights)
    assert_follows(model, model.fit(emulated.make(x), weights=there, progress=False), other, want, x, dtype)


def test_out_of_memory(emulated, emu):
    flow, x = made_flow("float32", context=0), cases.rows(50, FEATURES, "float32")
    device, array = flow.to("cuda"), emulated.make(x)
    emulated.machine.wait(0)
    emu.module.fail_allocation(1)
    with pytest.raises(MemoryError):
        emulated.open(device.log_prob_and_score(array)[0])
    emu.module.fail_allocation(0)
    cases.assert_close(emulated.open(device.log_prob(array)), flow.log_prob(x), magnitude=10.0, depth=30)


def test_three_products_in_tf32_on_request(emulated):
    """The setting "3xtf32" reaches the kernels: results differ, but by no more than roundings of float32."""
    x, context, _ = data()
    flow = made_flow("float32")
    given = [emulated.make(array) for array in (x, context)]
    split, exact = flow.to("cuda", matmul="3xtf32"), flow.to("cuda")
    got, want = (f.log_prob(*given).get() for f in (split, exact))
    assert 0 < np.abs(got - want).max() < 1e-4
    assert split.matmul == "3xtf32"


def test_tf32_on_request(emulated):
    """The setting "tf32" reaches the kernels: results differ by roundings of factors, and so do results of a fit."""
    x, context, weights = data()
    flow = made_flow("float32")
    given = [emulated.make(array) for array in (x, context)]
    fast, exact = flow.to("cuda", matmul="tf32"), flow.to("cuda")
    got, want = (f.log_prob(*given).get() for f in (fast, exact))
    assert 0 < np.abs(got - want).max() < 0.05
    losses = [f.fit(*given, weights=emulated.make(weights), **SHORT).train_loss for f in (fast, exact)]
    assert np.allclose(*losses, atol=0.05)
    assert not np.array_equal(*losses)
    assert fast.matmul == "tf32"
    mixed = flow.to("cuda")  # only the steps of this fit have products in TF32
    history = mixed.fit(*given, weights=emulated.make(weights), matmul="tf32", **SHORT)
    assert history.train_loss == losses[0]
    assert mixed.matmul == "exact"
