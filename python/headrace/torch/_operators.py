"""Operators of PyTorch on compiled flows, and what autograd, vmap, compile and export must know of them.

A schema holds tensors and numbers alone, so that a flow goes in as the number of its entry in a table. The table does
not keep it: whoever calls does. Operators are defined through `torch.library.Library`, which imports no compiler.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace import files
from headrace.flow import Flow

__all__ = ["Compiled", "compiled"]

WRT = ("inputs", "context", "parameters")

_NUMPY = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_table: weakref.WeakValueDictionary[int, Compiled] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class Compiled:
    """A flow for operators, in whatever dtype and on whatever device its parameters come; a copy is another entry."""

    def __init__(self, flow: Flow) -> None:
        self.handle = next(_numbers)
        self._flows: dict[tuple[torch.dtype, torch.device], Flow] = {}
        self._flow = flow
        _table[self.handle] = self

    def flow(self, parameters: Tensor) -> Flow:
        """That for parameters of this dtype, where they are."""
        place = parameters.dtype, parameters.device
        found = self._flows.get(place)
        if found is None:
            if parameters.dtype not in _NUMPY:
                raise TypeError(f"parameters: expected float32 or float64, got {parameters.dtype}; call .float()")
            found = self._flow.astype(_NUMPY[parameters.dtype])
            found = self._flows[place] = found.to(str(parameters.device), found.matmul if found.device != "cpu" else "exact")
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(self._flow)

    def __reduce__(self) -> Any:
        return _restored, (files.to_bytes(self._flow),)


def _restored(content: bytes) -> Compiled:
    return Compiled(files.from_bytes(content))


def compiled(handle: int) -> Compiled:
    """The entry of this number."""
    found = _table.get(handle)
    if found is None:
        raise RuntimeError(
            f"handle: expected that of a module that lives, got {handle}; a graph that was compiled or exported needs "
            "the FlowModule that it was made from"
        )
    return found


# ---- what the operators do --------------------------------------------------------------------------------------------


def _host(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().numpy()


def _matrix(context: Tensor | None) -> Any:
    array = _host(context)
    return array if array is None or array.ndim == 2 else array[None]


def _log_prob(x: Tensor, context: Tensor | None, parameters: Tensor, handle: int) -> Tensor:
    flow = compiled(handle).flow(parameters)
    if not parameters.is_cpu:
        return flow.log_prob(x, context, parameters=parameters)  # type: ignore[no-any-return]
    out = parameters.new_empty(x.shape[0])
    flow._program.run(
        True, _host(x), x.shape[0], 0, _matrix(context), None, None, out.numpy(), _host(parameters.contiguous())
    )
    return out


def _transform(value: Tensor, context: Tensor | None, parameters: Tensor, handle: int, to_data: bool) -> tuple[Tensor, Tensor]:
    flow = compiled(handle).flow(parameters)
    if not parameters.is_cpu:
        verb = flow.to_data if to_data else flow.to_latent
        return verb(value, context, parameters=parameters)
    out, log_det = parameters.new_empty(value.shape), parameters.new_empty(value.shape[0])
    flow._program.run(
        *(not to_data, _host(value), value.shape[0], 0, _matrix(context)),
        *(out.numpy(), log_det.numpy(), None, _host(parameters.contiguous())),
    )
    return out, log_det


def _generate(noise: Tensor, context: Tensor | None, parameters: Tensor, handle: int) -> tuple[Tensor, Tensor]:
    """Rows made from noise under the base, with their log densities."""
    flow = compiled(handle).flow(parameters)
    if not parameters.is_cpu:
        return flow.sample_and_log_prob(noise.shape[0], context, noise=noise, parameters=parameters)
    x, log_prob = parameters.new_empty(noise.shape), parameters.new_empty(noise.shape[0])
    flow._program.run(
        *(False, _host(noise), noise.shape[0], 0, _matrix(context)),
        *(x.numpy(), None, log_prob.numpy(), _host(parameters.contiguous())),
    )
    return x, log_prob


def _vjp(
    value: Tensor,
    context: Tensor | None,
    parameters: Tensor,
    grad_value: Tensor | None,
    grad_row: Tensor | None,
    handle: int,
    inverse: bool,
    of_log_prob: bool,
    wrt: list[bool],
) -> list[Tensor]:
    """Gradients from those by the resulting rows and by their log-determinants, or log densities."""
    return _there_and_back(value, context, parameters, grad_value, grad_row, handle, inverse, of_log_prob, wrt, None)


def _log_prob_and_unit(
    x: Tensor, context: Tensor | None, parameters: Tensor, handle: int, wrt: list[bool]
) -> list[Tensor]:
    """Log densities, and the gradients of their sum, from one run."""
    out = parameters.new_empty(x.shape[0])
    gradients = _there_and_back(x, context, parameters, None, None, handle, True, True, wrt, out)
    return [out, *gradients]


def _there_and_back(
    value: Tensor,
    context: Tensor | None,
    parameters: Tensor,
    grad_value: Tensor | None,
    grad_row: Tensor | None,
    handle: int,
    inverse: bool,
    of_log_prob: bool,
    wrt: list[bool],
    log_prob: Tensor | None,
) -> list[Tensor]:
    flow, rows = compiled(handle).flow(parameters), value.shape[0]
    if context is not None and context.ndim == 1:
        context = context[None]
    repeated = context is not None and context.shape[0] == 1 != rows
    shapes = (value.shape, (rows, flow.context), parameters.shape)
    found = [parameters.new_empty(shape) if wanted else None for shape, wanted in zip(shapes, wrt, strict=True)]
    opened: Any = _host
    program: Any = flow._program
    if not parameters.is_cpu:
        from headrace._device_arrays import DeviceCaller

        caller: Any = flow._caller()
        assert isinstance(caller, DeviceCaller)
        opened = lambda tensor: None if tensor is None else caller.open("tensor", tensor.detach())  # noqa: E731
        opened(value)
        program = caller.queued(program)
    program.run_gradient(
        inverse,
        opened(value),
        None,
        opened(context),
        of_log_prob,
        None if grad_value is None else opened(grad_value),
        None if grad_row is None else opened(grad_row),
        1.0,
        None if log_prob is None else opened(log_prob),
        *(None if gradient is None else opened(gradient) for gradient in found),
        opened(parameters.contiguous()),
    )
    by_context = found[1]
    if by_context is not None and repeated:
        found[1] = by_context.sum(0, keepdim=True, dtype=torch.float64).to(by_context.dtype)
    return [gradient for gradient in found if gradient is not None]


# ---- definitions ------------------------------------------------------------------------------------------------------

_library = torch.library.Library("headrace", "DEF")
_SCHEMAS = {
    "log_prob": ("(Tensor x, Tensor? context, Tensor parameters, int handle) -> Tensor", _log_prob),
    "transform": (
        "(Tensor value, Tensor? context, Tensor parameters, int handle, bool to_data) -> (Tensor, Tensor)",
        _transform,
    ),
    "generate": ("(Tensor noise, Tensor? context, Tensor parameters, int handle) -> (Tensor, Tensor)", _generate),
    "vjp": (
        "(Tensor value, Tensor? context, Tensor parameters, Tensor? grad_value, Tensor? grad_row, int handle, "
        "bool inverse, bool of_log_prob, bool[3] wrt) -> Tensor[]",
        _vjp,
    ),
    "log_prob_and_unit": (
        "(Tensor x, Tensor? context, Tensor parameters, int handle, bool[3] wrt) -> Tensor[]",
        _log_prob_and_unit,
    ),
}
for _name, (_schema, _body) in _SCHEMAS.items():
    _library.define(_name + _schema)
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _body, _key)

log_prob = torch.ops.headrace.log_prob.default
transform = torch.ops.headrace.transform.default
generate = torch.ops.headrace.generate.default
vjp = torch.ops.headrace.vjp.default
log_prob_and_unit = torch.ops.headrace.log_prob_and_unit.default


def _gradient_like(value: Tensor, context: Tensor | None, parameters: Tensor, wrt: list[bool]) -> list[Tensor]:
    context_shape = None if context is None else (1, *context.shape) if context.ndim == 1 else context.shape
    shapes = (value.shape, context_shape, parameters.shape)
    return [parameters.new_empty(shape) for shape, wanted in zip(shapes, wrt, strict=True) if wanted and shape is not None]


@torch.library.register_fake("headrace::log_prob", lib=_library)
def _(x: Tensor, context: Tensor | None, parameters: Tensor, handle: int) -> Tensor:
    return parameters.new_empty(x.shape[0])


@torch.library.register_fake("headrace::transform", lib=_library)
def _(value: Tensor, context: Tensor | None, parameters: Tensor, handle: int, to_data: bool) -> tuple[Tensor, Tensor]:
    return parameters.new_empty(value.shape), parameters.new_empty(value.shape[0])


@torch.library.register_fake("headrace::generate", lib=_library)
def _(noise: Tensor, context: Tensor | None, parameters: Tensor, handle: int) -> tuple[Tensor, Tensor]:
    return parameters.new_empty(noise.shape), parameters.new_empty(noise.shape[0])


@torch.library.register_fake("headrace::vjp", lib=_library)
def _(
    value: Tensor,
    context: Tensor | None,
    parameters: Tensor,
    grad_value: Tensor | None,
    grad_row: Tensor | None,
    handle: int,
    inverse: bool,
    of_log_prob: bool,
    wrt: list[bool],
) -> list[Tensor]:
    return _gradient_like(value, context, parameters, wrt)


@torch.library.register_fake("headrace::log_prob_and_unit", lib=_library)
def _(x: Tensor, context: Tensor | None, parameters: Tensor, handle: int, wrt: list[bool]) -> list[Tensor]:
    return [parameters.new_empty(x.shape[0]), *_gradient_like(x, context, parameters, wrt)]
