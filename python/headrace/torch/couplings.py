"""Couplings whose parameters come from a network of your own: the maps of `headrace.ops`, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headrace import _array_errors as errors
from headrace import _couplings
from headrace._couplings import Settings
from headrace.torch import _autograd

__all__ = ["coupling"]


def coupling(
    value: Tensor,
    params: Tensor,
    map: str = "affine",
    *,
    direction: str = "forward",
    scale: str = "soft_clamp",
    slope: float = 1e-3,
    bound: float | tuple[float, float] = 5.0,
    bins: int | None = None,
    min_bin: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """One map for every element, differentiable by values and parameters (docs/ops.md).

    Gradients are those of `headrace.ops.coupling_backward`: first ones, in reverse mode. They are there under
    `torch.func.grad` too, and under `torch.func.vmap`, where mapped examples are rows of one call. Graphs of
    `torch.compile` break here.

    Args:
        value: Shape (..., active): z of the direction "forward", x of "inverse".
        params: Shape (..., active, n_params), of the same dtype and device, as a network emits them, or (active,
            n_params) for all rows: see `headrace.ops.coupling_forward`. Tensors that are not contiguous are copied.
        map: A name in `headrace.ops.MAPS`.
        direction: "forward", latent to data, or "inverse".
        scale, slope, bound, bins, min_bin: See `headrace.ops.coupling_forward`.

    Returns:
        ``(value, log_det)`` of the other side, shapes (..., active) and (...).

    Raises:
        TypeError: not tensors of one dtype, float32 or float64, on one device.
        ValueError: a wrong shape, or a keyword that the map cannot have.
        RuntimeError: a second derivative, or one in forward mode.

    >>> import torch, headrace.torch
    >>> z, params = torch.ones(4, 2), torch.zeros(4, 2, 23, requires_grad=True)
    >>> x, log_det = headrace.torch.coupling(z, params, "rq_spline")
    >>> log_det.sum().backward()
    >>> x.shape, log_det.shape, params.grad.shape
    (torch.Size([4, 2]), torch.Size([4]), torch.Size([4, 2, 23]))
    """
    inverse = _couplings.is_inverse(direction)
    for name, given in (("value", value), ("params", params)):
        if not isinstance(given, Tensor):
            raise errors.wrong_kind(name, "a PyTorch tensor", errors.type_of(given))
    made: tuple[Tensor, Tensor] = _Run.apply(value, params, Settings(map, scale, slope, bound, bins, min_bin), inverse)
    return made


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, params: Tensor, settings: Settings, inverse: bool) -> tuple[Tensor, Tensor]:
        return _couplings.run("value", value.contiguous(), params.contiguous(), settings, inverse=inverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        value, params, ctx.settings, ctx.inverse = inputs
        ctx.save_for_backward(value, params)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_log_det: Tensor) -> Any:
        found = _Pull.apply(*ctx.saved_tensors, grad_value, grad_log_det, ctx.settings, ctx.inverse)
        wanted = ctx.needs_input_grad[:2]
        return *(gradient if needed else None for gradient, needed in zip(found, wanted, strict=True)), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_autograd.NO_FORWARD)

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor, params: Tensor, *rest: Any) -> Any:
        mapped = _in_front(info.batch_size, value, in_dims[0]), _aligned(info.batch_size, value, params, in_dims)
        return _Run.apply(*mapped, *rest), (0, 0)


class _Pull(torch.autograd.Function):
    """The gradients, as a function that vmap can map and that has no derivatives of its own."""

    @staticmethod
    def forward(
        value: Tensor, params: Tensor, grad_value: Tensor, grad_log_det: Tensor, settings: Settings, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        if _autograd.is_batched_the_old_way(grad_value, grad_log_det):
            raise RuntimeError(_autograd.NO_BATCHED_GRADS)
        grads = grad_value.contiguous(), grad_log_det.contiguous()
        return _couplings.pull(value.contiguous(), params.contiguous(), *grads, settings, inverse=inverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(_autograd.NO_SECOND)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, value: Tensor, params: Tensor, grad_value: Tensor, grad_log_det: Tensor, *rest: Any
    ) -> Any:
        n = info.batch_size
        own = params.shape if in_dims[1] is None else params.movedim(in_dims[1], 0).shape[1:]
        others = (_in_front(n, t, d) for t, d in zip((grad_value, grad_log_det), in_dims[2:4], strict=True))
        mapped = _in_front(n, value, in_dims[0]), _aligned(n, value, params, in_dims), *others
        by_value, by_params = _Pull.apply(*mapped, *rest)
        return (by_value, by_params.reshape(n, *own)), (0, 0)


def _in_front(n: int, tensor: Tensor, dim: int | None) -> Tensor:
    """A tensor with its mapped dimension in front; one that is the same for all examples is repeated."""
    return tensor.expand(n, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _aligned(n: int, value: Tensor, params: Tensor, in_dims: Any) -> Tensor:
    """Parameters with the mapped dimension in front, and dimensions of 1 behind it where the values have more."""
    moved = _in_front(n, params, in_dims[1])
    missing = value.ndim + (in_dims[0] is None) - (moved.ndim - 1)
    return moved.reshape(n, *(1,) * max(missing, 0), *moved.shape[1:])
