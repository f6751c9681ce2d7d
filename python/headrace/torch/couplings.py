"""Couplings whose parameters come from the caller's network: the maps of `headrace.ops`, with gradients.

Graphs of `torch.compile`, `torch.export` and `torch.jit.trace` contain couplings as PyTorch operators.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from headrace._base import array_errors as errors
from headrace._base.keywords import type_text
from headrace._base.types import Unpack
from headrace._core import cpu
from headrace.ops import _couplings
from headrace.ops._couplings import Keywords, Settings, settings_of, takes_settings
from headrace.torch import _autograd, _operators


@takes_settings
def coupling(
    value: Tensor, params: Tensor, map: str = "affine", *, direction: str = "forward", **settings: Unpack[Keywords]
) -> tuple[Tensor, Tensor]:
    """Apply one map to every element, differentiably by values and parameters (docs/ops.md).

    Gradients are those of `headrace.ops.coupling_vjp`: first derivatives in reverse mode. Gradients are also available
    in `torch.func.grad` and `torch.func.vmap`, where mapped examples are rows of one call. `torch.compile` compiles a
    coupling without a graph break, also with ``fullgraph=True``. In `torch.autocast` 16-bit tensors become float32, and
    so does the result.

    Args:
        value: Shape (..., active): z of the direction "forward", x of "inverse".
        params: Shape (..., active, n_params), of the dtype and on the device of `value`, as a network returns them, or
            (active, n_params) for all rows: see `headrace.ops.coupling`. Tensors that are not contiguous are copied.
        map: A name in `headrace.ops.MAPS`.
        direction: "forward", latent to data, or "inverse".
        **settings: See `headrace.ops.coupling`.

    Returns:
        ``(value, log_det)``: the transformed values and their log-determinants, shapes (..., active) and (...).

    Raises:
        TypeError: the tensors are not dense, or not of one dtype, float32 or float64, on one device.
        ValueError: a shape is wrong, or a keyword is no setting of the map.
        RuntimeError: a second derivative or a derivative in forward mode is requested.

    >>> import torch, headrace.torch
    >>> z, params = torch.ones(4, 2), torch.zeros(4, 2, 23, requires_grad=True)
    >>> x, log_det = headrace.torch.coupling(z, params, "rq_spline")
    >>> log_det.sum().backward()
    >>> x.shape, log_det.shape, params.grad.shape
    (torch.Size([4, 2]), torch.Size([4]), torch.Size([4, 2, 23]))
    """
    if (ready := _ready(value, params, map, direction, settings)) is not None:
        if torch.is_grad_enabled() and (value.requires_grad or params.requires_grad):
            return _RunAtOnce.apply(value, params, ready)
        return _run_at_once(value.contiguous(), params.contiguous(), ready[0])
    inverse = _couplings.is_inverse(direction)
    for name, given in (("value", value), ("params", params)):
        if not isinstance(given, Tensor):
            raise errors.wrong_kind(name, "a PyTorch tensor", errors.type_of(given))
        if given.layout is not torch.strided:
            raise errors.not_dense(name, given.layout)
    if torch.is_autocast_enabled(value.device.type):  # like PyTorch's own float32 operations
        value, params = (of.float() if of.dtype in (torch.bfloat16, torch.float16) else of for of in (value, params))
    how = *settings_of(map, settings), inverse
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return _operators.ops.coupling(value, params, *_typed(*how))
    return _Run.apply(value, params, how)


# ---- a shorter path for rows in the core's layout, each with its parameters ------------------------------------------

Ready = tuple[Any, "How"]
"""The coupling of the core, and its settings as arguments of the operators."""


def _ready(value: Any, params: Any, map: Any, direction: Any, settings: Keywords) -> Ready | None:
    """The coupling for the core; None if arguments have to be checked, copied, repeated, traced or refused."""
    if not (isinstance(value, Tensor) and isinstance(params, Tensor) and _autograd.is_plain(value, params)):
        return None
    shape, dtype = params.shape, value.dtype
    is_usual = dtype == params.dtype and dtype in _FLOATS and shape[:-1] == value.shape and len(shape) > 1
    if not (is_usual and value.is_cpu and params.is_cpu and value.layout is params.layout is torch.strided):
        return None
    if value.is_neg() or params.is_neg():
        return None
    try:
        return _compiled(map, direction, shape[-2], shape[-1], **settings)
    except (TypeError, ValueError):  # `coupling` raises the error, with the shapes
        return None


@functools.lru_cache(256, typed=True)
def _compiled(map: str, direction: str, active: int, n_params: int, **settings: Any) -> Ready:
    inverse, how = _couplings.is_inverse(direction), settings_of(map, settings)  # type: ignore[arg-type]
    before, named = _couplings.arguments(how, "value", (1, active), (1, active, n_params))
    return cpu.ReadyCoupling(*before, inverse, active, n_params, **named), (*how, inverse)


_FLOATS = (torch.float32, torch.float64)


def _run_at_once(value: Tensor, params: Tensor, coupling: Any) -> tuple[Tensor, Tensor]:
    """Run the core on dense tensors; return values and log-determinants."""
    out, log_det = torch.empty_like(value), value.new_empty(value.shape[:-1])
    addresses = value.data_ptr(), params.data_ptr(), out.data_ptr(), log_det.data_ptr()
    coupling.run(value.dtype is torch.float64, log_det.numel(), *addresses)
    return out, log_det


class _RunAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, params: Tensor, ready: Ready) -> tuple[Tensor, Tensor]:
        ctx.ready = ready
        ctx.save_for_backward(value, params)
        return _run_at_once(value.contiguous(), params.contiguous(), ready[0])

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_log_det: Tensor) -> Any:
        value, params = ctx.saved_tensors
        if torch.is_grad_enabled() or not _autograd.is_plain(grad_value, grad_log_det):
            by_value, by_params = _Pull.apply(value, params, grad_value, grad_log_det, ctx.ready[1])
        elif _autograd.is_batched_the_old_way(grad_value, grad_log_det):
            raise RuntimeError(_autograd.NO_BATCHED_GRADS)
        else:
            given = value, params, grad_value.resolve_neg(), grad_log_det.resolve_neg()
            dense = [tensor.contiguous() for tensor in given]
            by_value, by_params = torch.empty_like(dense[0]), torch.empty_like(dense[1])
            addresses = [tensor.data_ptr() for tensor in (*dense, by_value, by_params)]
            ctx.ready[0].backward(value.dtype is torch.float64, grad_log_det.numel(), *addresses)
        of_value, of_params, _ = ctx.needs_input_grad
        return by_value if of_value else None, by_params if of_params else None, None


# ---- the operators ---------------------------------------------------------------------------------------------------

# After the tensors, operators take the keywords of `coupling`, and whether the direction is "inverse".
How = tuple[Any, ...]
_TYPES = {"float | tuple[float, float]": "float[]", "int | None": "int?"}
_TEXTS = {name: type_text(one) for name, one in Keywords.__annotations__.items()}
_HOW = ", ".join(["str map", *(f"{_TYPES.get(one, one)} {name}" for name, one in _TEXTS.items()), "bool inverse"])
_BOUND = Settings._fields.index("bound")


def _typed(*how: Any) -> tuple[Any, ...]:
    """The settings of a coupling in the types that operators take."""
    bound = how[_BOUND]
    return *how[:_BOUND], list(bound) if isinstance(bound, (tuple, list)) else [bound], *how[_BOUND + 1 :]


def _settings(*keywords: Any) -> Any:
    settings = Settings(*keywords)
    is_one = isinstance(settings.bound, list) and len(settings.bound) == 1
    return settings._replace(bound=settings.bound[0]) if is_one else settings


def _computed(value: Tensor, params: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    *keywords, inverse = how
    return _couplings.run("value", value.contiguous(), params.contiguous(), _settings(*keywords), inverse=inverse)


def _pulled(
    value: Tensor, params: Tensor, grad_value: Tensor, grad_log_det: Tensor, *how: Any
) -> tuple[Tensor, Tensor]:
    *keywords, inverse = how
    given, grads = (value.contiguous(), params.contiguous()), (grad_value.contiguous(), grad_log_det.contiguous())
    return _couplings.pull(*given, *grads, _settings(*keywords), inverse=inverse)


def _empty_results(value: Tensor, params: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    return value.new_empty(value.shape), value.new_empty(value.shape[:-1])


def _empty_gradients(value: Tensor, params: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return value.new_empty(value.shape), params.new_empty(params.shape)


# ---- derivatives -----------------------------------------------------------------------------------------------------


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, params: Tensor, how: How) -> tuple[Tensor, Tensor]:
        if _autograd.is_plain(value, params):
            return _computed(value, params, *how)
        return _operators.ops.coupling(value, params, *_typed(*how))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        value, params, ctx.how = inputs
        ctx.save_for_backward(value, params)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_log_det: Tensor) -> Any:
        by_value, by_params = _Pull.apply(*ctx.saved_tensors, grad_value, grad_log_det, ctx.how)
        of_value, of_params = ctx.needs_input_grad[:2]
        return by_value if of_value else None, by_params if of_params else None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_autograd.NO_FORWARD)

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor, params: Tensor, how: How) -> Any:
        return _run_of_all(_Run.apply, info.batch_size, in_dims, value, params, how)


class _Pull(_autograd.Last):
    """The gradients of a coupling as a function that vmap can map."""

    @staticmethod
    def forward(
        value: Tensor, params: Tensor, grad_value: Tensor, grad_log_det: Tensor, how: How
    ) -> tuple[Tensor, Tensor]:
        if _autograd.is_batched_the_old_way(grad_value, grad_log_det):
            raise RuntimeError(_autograd.NO_BATCHED_GRADS)
        if _autograd.is_plain(value, params, grad_value, grad_log_det):
            return _pulled(value, params, grad_value, grad_log_det, *how)
        return _operators.ops.coupling_vjp(value, params, grad_value, grad_log_det, *_typed(*how))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return _pull_of_all(_Pull.apply, info.batch_size, in_dims, *arguments)


# ---- mapped examples as rows of one call -----------------------------------------------------------------------------


def _run_of_all(call: Any, n: int, in_dims: Any, value: Tensor, params: Tensor, *how: Any) -> Any:
    return call(_in_front(n, value, in_dims[0]), _aligned(n, value, params, in_dims), *how), (0, 0)


def _pull_of_all(
    call: Any, n: int, in_dims: Any, value: Tensor, params: Tensor, grad_value: Tensor, grad_log_det: Tensor, *how: Any
) -> Any:
    own = params.shape if in_dims[1] is None else params.movedim(in_dims[1], 0).shape[1:]
    others = (_in_front(n, t, d) for t, d in zip((grad_value, grad_log_det), in_dims[2:4], strict=True))
    by_value, by_params = call(_in_front(n, value, in_dims[0]), _aligned(n, value, params, in_dims), *others, *how)
    return (by_value, by_params.reshape(n, *own)), (0, 0)


def _in_front(n: int, tensor: Tensor, dim: int | None) -> Tensor:
    """A tensor with its mapped dimension in front; a tensor without that dimension is repeated for all examples."""
    return tensor.expand(n, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _aligned(n: int, value: Tensor, params: Tensor, in_dims: Any) -> Tensor:
    """Parameters with the mapped dimension in front, followed by dimensions of 1 if the values have more dimensions."""
    moved = _in_front(n, params, in_dims[1])
    missing = value.ndim + (in_dims[0] is None) - (moved.ndim - 1)
    return moved.reshape(n, *(1,) * max(missing, 0), *moved.shape[1:])


# ---- derivatives of the operators themselves -------------------------------------------------------------------------

# Exported graphs call the operators without the autograd functions of this module.


def _setup_of_operator(ctx: Any, inputs: Any, output: Any) -> None:
    value, params, *how = inputs
    _Run.setup_context(ctx, (value, params, tuple(how)), output)


def _backward_of_operator(ctx: Any, *grads: Tensor) -> Any:
    by_value, by_params, _ = _Run.backward(ctx, *grads)
    return by_value, by_params, *[None] * len(ctx.how)


def _define(name: str, schema: str, body: Any, fake: Any, mapped: Any, backward: Any, setup: Any = None) -> None:
    _operators.define(name, f"({schema}, {_HOW}) -> (Tensor, Tensor)", body, fake)
    library = _operators.library
    torch.library.register_autograd(f"headrace::{name}", backward, setup_context=setup, lib=library)
    call = getattr(_operators.ops, name)
    rule = lambda info, in_dims, *arguments: mapped(call, info.batch_size, in_dims, *arguments)  # noqa: E731
    torch.library.register_vmap(f"headrace::{name}", rule, lib=library)


_OF_VALUES = (_computed, _empty_results, _run_of_all, _backward_of_operator, _setup_of_operator)
_define("coupling", "Tensor value, Tensor params", *_OF_VALUES)
_OF_GRADIENTS = (_pulled, _empty_gradients, _pull_of_all, _autograd.Last.backward)
_define("coupling_vjp", "Tensor value, Tensor params, Tensor grad_value, Tensor grad_log_det", *_OF_GRADIENTS)
