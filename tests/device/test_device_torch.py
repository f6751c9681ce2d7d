"""PyTorch modules on a device: PyTorch's tensors and autograd over the emulated kernels, on streams that queue work."""

import numpy as np
import pytest

import cases
import fake_cuda
import headrace as hr
from devices import in_place

torch = pytest.importorskip("torch")

import torch_device as there  # noqa: E402
from headrace.torch import FlowModule, TransformModule  # noqa: E402

ROWS, FEATURES, CONTEXT = 40, 3, 2
FLOWS = {
    "maf": lambda **how: hr.MAF(FEATURES, CONTEXT, transforms=2, hidden=(9,), activation="tanh", **how),
    "nsf": lambda **how: hr.NSF(FEATURES, CONTEXT, transforms=1, hidden=(9,), bins=4, **how),
    "iaf": lambda **how: hr.IAF(FEATURES, CONTEXT, transforms=2, hidden=(9,), activation="silu", **how),
}


@pytest.fixture(params=[False, True], ids=["alone", "others first"])
def machine(request, emu):
    made = fake_cuda.Machine(inner=lambda machine: emu.module, others_first=request.param)
    with in_place(made, own_torch=True), there.in_torch(made):
        yield made


def made(name, dtype="float64"):
    """A module on the CPU, whose parameters differ from their initial values."""
    flow = FLOWS[name](seed=1, dtype=dtype)
    vector = flow.parameters
    flow.parameters = vector + 0.2 * cases.rng("torch on a device").standard_normal(vector.size).astype(dtype)
    return FlowModule(flow)


def given(dtype="float64", one_context=False):
    x = cases.rows(ROWS, FEATURES, dtype)
    context = cases.rows(1 if one_context else ROWS, CONTEXT, dtype, "context")
    return torch.from_numpy(x), torch.from_numpy(context[0] if one_context else context)


def on_device(machine, *tensors):
    return [there.to_device(machine, tensor).requires_grad_(tensor.requires_grad) for tensor in tensors]


def close(got, want, dtype, depth=60):
    want = want.detach().numpy()
    cases.assert_close(there.numbers(got), want, magnitude=max(np.abs(want).max(initial=0.0), 1.0), depth=depth)


LOSSES = {
    "mean": lambda module, x, c: -module.log_prob(x, c).mean(),
    "weighed": lambda module, x, c: (torch.sin(x).sum(dim=1) * module.log_prob(x, c)).sum(),
    "latent": lambda module, x, c: sum(part.square().sum() for part in module.to_latent(x, c)),
    "data": lambda module, x, c: sum(part.square().sum() for part in module.to_data(x, c)),
    "noise": lambda module, x, c: _from_noise(module, x, c),
}


def _from_noise(module, x, c):
    """A function of samples and log densities that are computed from given noise, as `rsample_and_log_prob` does."""
    from headrace.torch import _autograd

    rows, log_prob = _autograd.run(x, c, module._own(), module._entry, inverse=False, of_log_prob=True)
    return (torch.cos(rows).sum(dim=1) * log_prob).sum()


# ---- values and gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FLOWS)
def test_values_are_those_of_the_cpu(machine, name, dtype):
    module, (x, context) = made(name, dtype), given(dtype)
    other = there.moved(machine, made(name, dtype))
    assert other.vector.device == torch.device("cuda", 0)
    for track in (torch.no_grad, torch.enable_grad):
        with track():
            for verb in ("log_prob", "to_latent", "to_data"):
                found = getattr(other, verb)(*on_device(machine, x, context))
                want = getattr(module, verb)(x, context)
                for a, b in zip(*((one if isinstance(one, tuple) else (one,)) for one in (found, want)), strict=True):
                    assert (a.device, a.dtype, a.shape) == (other.vector.device, b.dtype, b.shape)
                    close(a, b, dtype)
    assert machine.logged("run")
    assert machine.logged("gradient")  # a single run computes log densities and gradients


@pytest.mark.parametrize("one_context", [False, True], ids=["contexts", "one context"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_those_of_the_cpu(machine, name, loss, one_context):
    """Gradients with respect to rows, contexts and parameters are computed twice: the second backward pass adds to
    the gradients of the first."""
    if loss == "noise" and one_context:
        one_context = False
    module, other = made(name), there.moved(machine, made(name))
    x, context = (tensor.requires_grad_() for tensor in given(one_context=one_context))
    its = on_device(machine, x, context)
    for _ in range(2):
        LOSSES[loss](module, x, context).backward()
        LOSSES[loss](other, *its).backward()
    for got, want in zip((*its, other.vector), (x, context, module.vector), strict=True):
        assert got.grad.device == other.vector.device
        close(got.grad, want.grad, "float64", depth=300)


@pytest.mark.parametrize("wrt", [(0,), (1,), (2,), (0, 2)], ids=["rows", "contexts", "parameters", "rows, parameters"])
def test_only_requested_gradients_are_computed(machine, wrt):
    module, other = made("maf"), there.moved(machine, made("maf"))
    x, context = given()
    ours, its = (x, context, module.vector), (*on_device(machine, x, context), other.vector)
    for group in (ours, its):
        for i, tensor in enumerate(group):
            tensor.requires_grad_(i in wrt)
    want = torch.autograd.grad(module.log_prob(*ours[:2]).sum(), [ours[i] for i in wrt])
    machine.log.clear()
    got = torch.autograd.grad(other.log_prob(*its[:2]).sum(), [its[i] for i in wrt])
    for a, b in zip(got, want, strict=True):
        close(a, b, "float64", depth=300)
    assert len(machine.logged("gradient")) == 1  # a single run computes the gradients of both arguments


def test_an_optimiser_of_pytorch_trains_on_the_device(machine):
    x, context = given()
    losses = []
    for place in (None, machine):
        module = made("maf")
        rows = (x, context)
        if place is not None:
            module, rows = there.moved(machine, module), on_device(machine, x, context)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2, foreach=False)
        losses.append([])
        for _ in range(4):
            optimiser.zero_grad()
            loss = LOSSES["mean"](module, *rows)
            loss.backward()
            optimiser.step()
            losses[-1].append(float(loss.detach()))
    assert np.allclose(*losses, rtol=1e-9)
    assert losses[0][3] < losses[0][0]


def test_transforms_and_flows_of_present_parameters(machine):
    transform = hr.transforms.MaskedAutoregressive(FEATURES, (9,), seed=1, dtype="float64")
    module, other = TransformModule(transform), there.moved(machine, TransformModule(transform))
    (x, _), (y, _) = given(), on_device(machine, *given())
    close(other()(y), module()(x), "float64")
    flow = there.moved(machine, made("maf")).flow
    assert flow.device == "cuda:0"
    assert np.allclose(flow.to("cpu").parameters, made("maf").flow.parameters)


def test_calls_through_the_dispatcher_have_the_same_results(machine, monkeypatch):
    """PyTorch's dispatcher receives the calls when they are traced or recorded."""
    from headrace.torch import _autograd

    module, other = made("maf"), there.moved(machine, made("maf"))
    x, context = (tensor.requires_grad_() for tensor in given())
    its = on_device(machine, x, context)
    monkeypatch.setattr(_autograd, "is_plain", lambda *tensors: False)
    for loss in ("mean", "weighed", "data"):
        LOSSES[loss](module, x, context).backward()
        LOSSES[loss](other, *its).backward()
    for got, want in zip((*its, other.vector), (x, context, module.vector), strict=True):
        close(got.grad, want.grad, "float64", depth=300)


# ---- streams -------------------------------------------------------------------------------------------------------


def test_work_is_queued_on_pytorch_s_stream_and_not_waited_for(machine):
    module, want = there.moved(machine, made("maf")), made("maf")
    x, context = given()
    with there.on(machine, side := machine.stream()):
        its = on_device(machine, x, context)
        module = there.moved(machine, made("maf"))
        machine.finish()  # waits until the program exists
        with torch.no_grad():
            module.log_prob(*its)
            machine.log.clear()
            found = module.log_prob(*its)
        assert {words[1] for words in machine.logged("run")} == {side.ptr}
        assert not machine.logged("sync")
        assert np.isnan(found.inner.numpy()).all()  # the results are not written yet
        close(found, want.log_prob(x, context), "float64")
        loss = module.log_prob(*its).sum()
        machine.log.clear()
        loss.backward()
        assert {words[1] for words in machine.logged("gradient")} <= {side.ptr}


def test_memory_of_another_stream_is_not_used_again_too_early(machine):
    """A tensor is made on one stream, read on another, and freed at once."""
    module, want = there.moved(machine, made("maf")), made("maf")
    x, context = given()
    machine.finish()
    its = on_device(machine, x, context)
    machine.finish()
    with there.on(machine, machine.stream()), torch.no_grad():
        found = module.log_prob(*its)
        del its
        machine.wait(0)  # the stream on which the memory was allocated and is freed
        close(found, want.log_prob(x, context), "float64")
    assert machine.logged("record_stream")


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_tensors_elsewhere_or_of_another_kind_are_refused(machine):
    module = there.moved(machine, made("maf"))
    x, context = given()
    y, condition = on_device(machine, x, context)
    for verb in (module.log_prob, module.to_data, module.to_latent):
        with pytest.raises(ValueError, match=r": expected a tensor on cuda:0, as the parameters, got cpu"):
            verb(x, condition)
        with pytest.raises(ValueError, match=r"context: expected a tensor on cuda:0, as the parameters, got cpu"):
            verb(y, context)
        with pytest.raises(ValueError, match=r": expected a tensor on cuda:0, as the parameters, got cuda:1"):
            verb(there.to_device(machine, x, 1), condition)
        with pytest.raises(TypeError, match=r": expected dtype float32 or float64, got torch.int64"):
            verb(there.to_device(machine, x.long()), condition)
        with pytest.raises(ValueError, match=r": expected shape \(..., 3\), got \(40, 2\)"):
            verb(condition, condition)
    with pytest.raises(ValueError, match=r"x: expected a tensor on cpu, as the parameters, got cuda:0"):
        made("maf").log_prob(y, context)
    with pytest.raises(TypeError, match=r"dtype: expected torch.float32 or torch.float64, got torch.float16"):
        made("maf").half()


def test_a_second_derivative_is_refused(machine):
    module = there.moved(machine, made("maf"))
    y, condition = on_device(machine, *given())
    y.requires_grad_()
    (score,) = torch.autograd.grad(module.log_prob(y, condition).sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="headrace gives first derivatives"):
        score.square().sum().backward()


def test_other_dtypes_are_those_of_the_parameters(machine):
    """Autocast makes tensors of other dtypes."""
    module, want = there.moved(machine, made("maf", "float32")), made("maf", "float32")
    x, context = given("float32")
    y, condition = on_device(machine, x.half(), context)
    with torch.no_grad():
        close(module.log_prob(y, condition), want.log_prob(x.half(), context), "float32")


def test_products_in_bf16_are_refused_on_a_device(machine):
    module = there.moved(machine, FlowModule(made("maf", "float32").flow.to("cpu", "bf16")))
    y, condition = on_device(machine, *given("float32"))
    with pytest.raises(ValueError, match=r"matmul: expected float32 on the CPU for bf16"):
        module.log_prob(y, condition)


def test_a_failed_allocation_raises_a_memory_error(machine, emu):
    module, want = there.moved(machine, made("maf")), made("maf")
    x, context = given()
    its = on_device(machine, x, context)
    with torch.no_grad():
        module.log_prob(*its)
        machine.wait(0)
        emu.module.fail_allocation(1)
        with pytest.raises(MemoryError):
            there.numbers(module.to_data(*its)[0])
        emu.module.fail_allocation(0)
        close(module.log_prob(*its), want.log_prob(x, context), "float64")
