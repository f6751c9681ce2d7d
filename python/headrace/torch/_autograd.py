"""Derivatives of the operators, for `backward` and for torch.func's grad, vmap and jacrev.

Rows do not depend on each other, so that a batch dimension of vmap becomes more rows. The parameters' gradient is a sum
over rows: if vmap requires a separate gradient for each example, each example needs a separate call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from headrace.torch import _operators as operators

NO_SECOND = (
    "headrace gives first derivatives: the gradient of a gradient was asked for (create_graph=True, a Hessian, a "
    "penalty on the score), which its kernels do not have; detach the gradient, or use another flow for that term"
)

NO_FORWARD = (
    "headrace gives derivatives in reverse mode: forward mode was asked for (jvp, jacfwd, and hessian, which is jacfwd "
    "of jacrev), which its kernels do not have; use grad, vjp or jacrev, once"
)

NO_BATCHED_GRADS = (
    "is_grads_batched: expected False, because the operators of headrace have no rule for PyTorch's older vmap "
    "(torch.autograd.functional.jacobian with vectorize=True has it too); call torch.func.jacrev or torch.func.vmap"
)


NO_DROPOUT = (
    "dropout: expected a call of log_prob by itself, because a seed is drawn for each, got one inside of "
    "torch.compile, torch.func or a trace; call model.eval(), which omits no units"
)


class Last(torch.autograd.Function):
    """A gradient whose derivative raises an error; without this class, a second derivative would be zero."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(NO_SECOND)


class _First(Last):
    """Gradients, unchanged, that raise an error if PyTorch differentiates them again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count] if tensor is not None)


def first(gradients: list[Tensor], causes: tuple[Tensor | None, ...]) -> list[Tensor]:
    """Gradients by the tensors `causes`, which raise an error if PyTorch differentiates them again."""
    if not torch.is_grad_enabled():
        return gradients
    return list(_First.apply(len(gradients), *gradients, *causes))


def spread(gradients: list[Tensor], wrt: list[bool], inputs: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """For each input its gradient in the input's dtype and shape, or None."""
    found = iter(gradients)
    out: list[Tensor | None] = []
    for wanted, tensor in zip(wrt, inputs, strict=True):
        if not wanted or tensor is None:
            out.append(None)
            continue
        gradient = next(found)
        gradient = gradient if gradient.dtype == tensor.dtype else gradient.to(tensor.dtype)
        out.append(gradient if gradient.shape == tensor.shape else gradient.reshape(tensor.shape))
    return out


def _wanted(ctx: Any) -> list[bool]:
    return [bool(needed) for needed in ctx.needs_input_grad[:3]]


class _Vjp(Last):
    """The vector-Jacobian product for vmap; `log`: True for a log density, False for values and log-determinants."""

    @staticmethod
    def forward(  # without `*options`, because PyTorch 2.13 counts the arguments' names
        x: Any, context: Any, vector: Any, by_value: Any, by_row: Any, handle: int, inverse: bool, log: bool, wrt: Any
    ) -> tuple[Tensor, ...]:
        if is_batched_the_old_way(by_value, by_row):
            raise RuntimeError(NO_BATCHED_GRADS)
        return tuple(operators.ops.vjp(x, context, vector, by_value, by_row, handle, inverse, log, wrt))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        context, wrt = arguments[1], arguments[-1]
        one_context = context is not None and context.ndim - (in_dims[1] is not None) == 1
        return _vmapped(_Vjp, 5, wrt[2] or (wrt[1] and one_context), info, in_dims, *arguments)


def _select(tensors: Any, dims: Any, i: int) -> list[Any]:
    return [t if t is None or d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)]


def _folded(n: int, tensors: Any, dims: Any) -> tuple[list[Any], int]:
    """The tensors with the batch dimension merged into their rows, and the number of rows of an example."""
    value, context, parameters, *others = tensors
    rows = value.shape[1 if dims[0] == 0 else 0] if value.ndim == 3 else value.shape[0]

    def fold(tensor: Any, dim: Any, keeps_one: bool = False) -> Any:
        if tensor is None:
            return None
        if keeps_one and dim is None and tensor.ndim == 1:
            return tensor
        moved = tensor.movedim(dim, 0) if dim is not None else tensor.expand(n, *tensor.shape)
        if keeps_one and moved.ndim == 2:  # an example has one context for all its rows
            moved = moved[:, None].expand(n, rows, moved.shape[-1])
        return moved.reshape(n * rows, *moved.shape[2:])

    dim_value, dim_context, _, *other_dims = dims
    folded = [fold(value, dim_value), fold(context, dim_context, True), parameters]
    return folded + [fold(t, d) for t, d in zip(others, other_dims, strict=True)], rows


def _vmapped(function: Any, count: int, one_by_one: bool, info: Any, in_dims: Any, *arguments: Any) -> Any:
    """Map a function of `count` tensors and of options: examples are rows of one call, or each has its own call."""
    tensors, dims, options = arguments[:count], in_dims[:count], arguments[count:]
    if one_by_one or dims[2] is not None:  # each example has its own parameters
        each = [function.apply(*_select(tensors, dims, i), *options) for i in range(info.batch_size)]
        if isinstance(each[0], Tensor):
            return torch.stack(each), 0
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0,) * len(each[0])
    folded, rows = _folded(info.batch_size, tensors, dims)
    outs = function.apply(*folded, *options)
    if isinstance(outs, Tensor):
        return outs.reshape(info.batch_size, rows), 0
    return tuple(out.reshape(info.batch_size, rows, *out.shape[1:]) for out in outs), (0,) * len(outs)


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, context: Tensor | None, parameters: Tensor, handle: int) -> Tensor:
        return operators.ops.log_prob(x, context, parameters, handle)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.handle = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, context, parameters = ctx.saved_tensors
        wrt = _wanted(ctx)
        made = _Vjp.apply(x, context, parameters, None, grad, ctx.handle, True, True, wrt)
        return *spread(made, wrt, (x, context, parameters)), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return _vmapped(_LogProb, 3, False, info, in_dims, *arguments)


class _LogProbInOneRun(torch.autograd.Function):
    """Log densities, and the gradients of their sum: most losses have these gradients, times a factor.

    Gradients by rows are multiplied by the rows' factors, which may differ. The parameters' gradient is a sum over
    rows: factors that differ between rows need a second run, and `entry.one_run` becomes False.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, context: Any, parameters: Any, entry: Any, wrt: list[bool], dropout: Any) -> Tensor:
        out = parameters.new_empty(len(x))
        unit = operators.vjp(x, context, parameters, None, None, entry.handle, True, True, wrt, out, dropout)
        ctx.entry, ctx.wrt, ctx.dropout = entry, wrt, dropout
        ctx.save_for_backward(x, context, parameters, *unit)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, context, parameters, *unit = ctx.saved_tensors
        wrt = ctx.wrt
        if not is_plain(grad) or is_batched_the_old_way(grad):  # a traced or batched gradient has no values to read
            if ctx.dropout is not None:
                raise RuntimeError(NO_DROPOUT)
            made = _Vjp.apply(x, context, parameters, None, grad, ctx.entry.handle, True, True, wrt)
            return *spread(made, wrt, (x, context, parameters)), None, None, None
        gradients = [u * grad[:, None] for u in unit[: len(unit) - wrt[2]]]
        if wrt[2]:
            if len(grad) == 0 or grad.stride() == (0,) or len(grad) == 1 or bool((grad == grad[0]).all()):
                gradients.append(unit[-1] * (grad[0] if len(grad) else 0))
            else:
                ctx.entry.one_run = False
                options = ctx.entry.handle, True, True, [False, False, True]
                gradients += operators.vjp(x, context, parameters, None, grad, *options, dropout=ctx.dropout)
        gradients = first(gradients, (x, context, parameters, grad))
        return *spread(gradients, wrt, (x, context, parameters)), None, None, None


class _Run(torch.autograd.Function):
    """Rows mapped to latent or to data, with log densities if `of_log_prob`, otherwise with log-determinants."""

    @staticmethod
    def forward(
        value: Tensor, context: Tensor | None, parameters: Tensor, handle: int, inverse: bool, of_log_prob: bool
    ) -> tuple[Tensor, Tensor]:
        return operators.ops.run(value, context, parameters, handle, inverse, of_log_prob)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.handle, ctx.inverse, ctx.of_log_prob = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_number: Tensor) -> Any:
        value, context, parameters = ctx.saved_tensors
        wrt = _wanted(ctx)
        options = ctx.handle, ctx.inverse, ctx.of_log_prob, wrt
        made = _Vjp.apply(value, context, parameters, grad_value, grad_number, *options)
        return *spread(made, wrt, (value, context, parameters)), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return _vmapped(_Run, 3, False, info, in_dims, *arguments)


class _PlainRun(torch.autograd.Function):
    """The same function as `_Run`, by a shorter path to the core, without tracing or function transforms."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, context: Any, parameters: Tensor, entry: Any, inverse: bool, of_log_prob: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.entry, ctx.inverse, ctx.of_log_prob = entry, inverse, of_log_prob
        ctx.save_for_backward(value, context, parameters)
        return operators.run(value, context, parameters, entry.handle, inverse, of_log_prob)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_number: Tensor) -> Any:
        value, context, parameters = ctx.saved_tensors
        wrt, options = _wanted(ctx), (ctx.entry.handle, ctx.inverse, ctx.of_log_prob)
        given = value, context, parameters, grad_value, grad_number
        if is_plain(grad_value, grad_number) and not is_batched_the_old_way(grad_value, grad_number):
            made = first(operators.vjp(*given, options[0], options[1], options[2], wrt), given)
        else:  # mapped gradients, for example
            made = list(_Vjp.apply(*given, *options, wrt))
        return *spread(made, wrt, (value, context, parameters)), None, None, None


class _Backward:
    """A function whose `jvp` raises an error with the reason. PyTorch's compiler accepts no function with `jvp`."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(NO_FORWARD)


class _EagerLogProb(_Backward, _LogProb):
    pass


class _EagerRun(_Backward, _Run):
    pass


_PLAIN = (Tensor, torch.nn.Parameter, type(None))


def is_batched_the_old_way(*gradients: Tensor | None) -> bool:
    """Whether `torch.autograd.grad` runs with `is_grads_batched`, during which no function transform is active."""
    is_batched = torch._C._functorch.is_legacy_batchedtensor
    return not torch.compiler.is_compiling() and any(is_batched(g) for g in gradients if g is not None)


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether no tracing, function transform or dispatch mode is active, so that the dispatcher can be skipped."""
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return False
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
    )


def log_prob(x: Tensor, context: Tensor | None, parameters: Tensor, entry: Any, dropout: int | None = None) -> Tensor:
    """Log densities of rows, shape (rows,); `dropout`: a seed, used where gradients are computed."""
    if is_plain(x, context, parameters):
        if not torch.is_grad_enabled():
            return operators.log_prob(x, context, parameters, entry.handle)
        wrt = [x.requires_grad, context is not None and context.requires_grad, parameters.requires_grad]
        if dropout is not None and context is not None:
            context = context.expand(len(x), -1)
        one_context = context is not None and context.ndim == 1
        once = dropout is not None or entry.one_run or not wrt[2]
        if any(wrt) and once and not (wrt[1] and one_context):
            return _LogProbInOneRun.apply(x, context, parameters, entry, wrt, dropout)
    elif dropout is not None:
        raise RuntimeError(NO_DROPOUT)
    if torch.jit.is_tracing():
        return operators.ops.log_prob(x, context, parameters, entry.handle)
    traced = _LogProb if torch.compiler.is_compiling() else _EagerLogProb
    return traced.apply(x, context, parameters, entry.handle)


def run(
    value: Tensor, context: Tensor | None, parameters: Tensor, entry: Any, inverse: bool, of_log_prob: bool
) -> tuple[Tensor, Tensor]:
    """Rows mapped to latent or to data; log densities of rows from noise if `of_log_prob`, else log-determinants."""
    if torch.jit.is_tracing():
        return operators.ops.run(value, context, parameters, entry.handle, inverse, of_log_prob)
    if not is_plain(value, context, parameters):
        traced = _Run if torch.compiler.is_compiling() else _EagerRun
        return traced.apply(value, context, parameters, entry.handle, inverse, of_log_prob)
    if torch.is_grad_enabled():
        return _PlainRun.apply(value, context, parameters, entry, inverse, of_log_prob)
    return operators.run(value, context, parameters, entry.handle, inverse, of_log_prob)


# ---- derivatives of the operators themselves -------------------------------------------------------------------------

# Exported graphs call the operators without the autograd functions of this module.


for _name, _backward, _setup in (
    ("log_prob", _LogProb.backward, _LogProb.setup_context),
    ("run", _Run.backward, _Run.setup_context),
    ("vjp", Last.backward, None),
):
    torch.library.register_autograd(f"headrace::{_name}", _backward, setup_context=_setup, lib=operators.library)
