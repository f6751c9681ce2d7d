"""PyTorch's own tensors on the simulated device of fake_cuda.py, so that `headrace.torch` runs on it unchanged.

A tensor claims to be on `cuda:0`, and its values are in the machine's memory. The CPU computes PyTorch's operators,
once all work that is queued on the current stream is done; headrace's operators for CUDA are called, and queue their
work. Autograd, hooks and modules are PyTorch's. PyTorch's C++ code takes the tensors for tensors on the CPU, where no
streams are recorded. Tensors that torch.func has wrapped, which headrace refuses beside parameters of a device, and
tensors that a compiler traces also count as tensors on the CPU.
"""

import types
import weakref
from contextlib import contextmanager

import numpy as np
import pytest

from fake_frameworks import Block

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils._pytree import tree_map_only  # noqa: E402

from headrace.torch import _autograd, _operators  # noqa: E402

KERNELS = {name: body for name, (_, body, _) in _operators._SCHEMAS.items()}
LOOKS = {"detach", "alias", "view", "expand", "select", "slice", "t", "transpose", "unsqueeze", "squeeze", "as_strided"}
LOOKS |= {"permute", "_unsafe_view", "_reshape_alias", "unbind", "split"}  # these operators make views


class Other(RuntimeError):
    """PyTorch's error for tensors on two devices."""


class DeviceTensor(torch.Tensor):
    """A tensor of PyTorch that claims to be on the simulated device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    is_cuda, is_cpu = True, False
    device = property(lambda self: torch.device("cuda", self.index))
    data_ptr = lambda self: self.inner.data_ptr()  # noqa: E731

    @staticmethod
    def __new__(cls, inner, block, machine, index=0):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device="cpu", **layout)
        self.inner, self.block, self.machine, self.index = inner, block, machine, index
        return self

    def __repr__(self):
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype}, on {self.device})"

    def record_stream(self, stream):
        """Delay reuse of the tensor's memory, once freed, until all work queued on the given stream is done."""
        machine = self.machine
        machine.record("record_stream", stream.cuda_stream)
        own, other = machine.queue(self.block.stream), machine.queue(stream.cuda_stream)
        if own is not other:
            weakref.finalize(self.block, lambda: own.add(lambda: other.run(len(other.work)))).atexit = False

    @classmethod
    def __torch_dispatch__(cls, function, kinds, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        space, name = function._schema.name.split("::")
        if space == "headrace":
            assert torch._C._dispatch_has_kernel_for_dispatch_key(function._schema.name, "CUDA")
            return KERNELS[name](*arguments, **keywords)
        mine = []
        tree_map_only(DeviceTensor, mine.append, (arguments, keywords))
        machine, index = mine[0].machine, mine[0].index
        if len({one.index for one in mine}) > 1:
            raise Other("Expected all tensors to be on the same device, but got several")
        tree_map_only(torch.Tensor, lambda t: _refuse_host(t, name), (arguments, keywords))
        goes = keywords.pop("device", None)
        is_empty = name.endswith(("empty", "empty_like", "empty_strided"))
        if name not in LOOKS and not is_empty:
            machine.queue(current(machine)).run()
        given, named = tree_map_only(DeviceTensor, lambda t: t.inner, (arguments, keywords))
        out = function(*given, **named)
        if function._schema.arguments and (info := function._schema.arguments[0].alias_info) and info.is_write:
            return arguments[0]
        if goes is not None and torch.device(goes).type == "cpu":
            return out
        blocks = {one.inner.untyped_storage().data_ptr(): one.block for one in mine}
        return tree_map_only(torch.Tensor, lambda t: _of(machine, t, blocks, index, is_empty), out)


def _refuse_host(tensor, name):
    """Refuse operands on another device, except for scalars."""
    if not isinstance(tensor, DeviceTensor) and tensor.ndim:
        raise Other(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({name})")
    return tensor


def _of(machine, tensor, blocks, index, is_empty):
    """A tensor on the device: a view if the tensor's memory belongs to the device, otherwise a copy in new memory,
    which stays NaN if the tensor is empty memory."""
    block = blocks.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
    if block is None:
        block, made = allocated(machine, tensor)
        tensor = made if is_empty else made.copy_(tensor)
    return DeviceTensor(tensor, block, machine, index)


def allocated(machine, like):
    """Memory on the current stream for a tensor with the shape and strides of `like`."""
    dtype = np.dtype(str(like.dtype).removeprefix("torch."))
    size = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True)) if like.numel() else 0
    block = Block(machine, max(size, 1) * dtype.itemsize, current(machine))
    return block, torch.from_numpy(block.array((max(size, 1),), dtype)).as_strided(like.shape, like.stride())


def current(machine):
    """The address of PyTorch's current stream on this machine."""
    return machine.of_torch[-1] if machine.of_torch else 0


def to_device(machine, tensor, index=0):
    """A copy of a tensor on the device, whose values are written on the current stream."""
    if not isinstance(tensor, torch.Tensor):
        tensor = torch.as_tensor(tensor)
    values = tensor.detach().clone()
    block, made = allocated(machine, values)
    machine.queue(current(machine)).add(lambda: made.copy_(values))
    return DeviceTensor(made, block, machine, index)


def moved(machine, module, index=0):
    """A copy of a module, as by `module.to("cuda")`, whose parameters are new objects, as on a real device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
        return module._apply(lambda tensor: to_device(machine, tensor, index))


def numbers(tensor):
    """The values of a tensor on the device, after the work of the tensor's stream."""
    assert isinstance(tensor, DeviceTensor), type(tensor)
    tensor.machine.wait(current(tensor.machine))
    return tensor.detach().inner.numpy().copy()


@contextmanager
def on(machine, stream):
    """A ``with`` block in which the given stream is PyTorch's current one."""
    machine.of_torch.append(stream.ptr)
    try:
        yield
    finally:
        machine.of_torch.pop()


@contextmanager
def in_torch(machine):
    """A ``with`` block in which PyTorch has the machine's streams, and the machine's tensors pass for ordinary ones."""
    machine.of_torch = []

    def current_stream(device=None):
        return types.SimpleNamespace(cuda_stream=current(machine))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "current_stream", current_stream)
        patch.setattr(torch.cuda, "empty_cache", lambda: machine.record("torch gives back"))
        patch.setattr(_autograd, "_PLAIN", (*_autograd._PLAIN, DeviceTensor))
        yield machine
