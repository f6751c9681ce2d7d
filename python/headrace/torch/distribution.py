"""Modules as what `torch.distributions` knows: a distribution, and a transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions import Transform as TorchTransform


__all__ = ["BoundTransform", "FlowDistribution"]


class FlowDistribution(Distribution):
    """The distribution of rows given one context or many; `FlowModule` makes it."""

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # as the base class has it
    support = constraints.real_vector

    def __init__(self, module: Any, context: Tensor | None = None, batch_shape: torch.Size | None = None) -> None:
        """See the class."""
        if batch_shape is None:
            batch_shape = torch.Size() if context is None else context.shape[:-1]
        self._module, self._context = module, context
        super().__init__(batch_shape, torch.Size([module.features]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """The same for more leading dimensions."""
        shape, context = torch.Size(batch_shape), self._context
        if context is not None:
            context = context.expand(*shape, context.shape[-1])
        elif torch.broadcast_shapes(shape, self.batch_shape) != shape:
            raise ValueError(f"batch_shape: expected one that {tuple(self.batch_shape)} expands to, got {tuple(shape)}")
        return FlowDistribution(self._module, context, shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each row, shape (..., *batch_shape)."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return self._module.log_prob(value.expand(*shape, value.shape[-1]), self._context)  # type: ignore[no-any-return]

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Draws and their log densities from one run, both with gradients."""
        shape = tuple(sample_shape) if self._context is not None else (*sample_shape, *self.batch_shape)
        return self._module.rsample_and_log_prob(shape, self._context)  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with gradients, shape (*sample_shape, *batch_shape, features)."""
        return self.rsample_and_log_prob(sample_shape)[0]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The same without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class BoundTransform(TorchTransform):
    """A transform from latent to data, for one context or many; `TransformModule` makes it."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, module: Any, context: Tensor | None = None) -> None:
        """See the class."""
        super().__init__(cache_size=1)
        self._module, self._context = module, context
        self._last: tuple[Any, Any, Any] = (None, None, None)

    def _both(self, name: str, value: Tensor, to_data: bool) -> tuple[Tensor, Tensor]:
        return self._module._transformed(name, value, self._context, to_data)  # type: ignore[no-any-return]

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._both("x", x, True)
        self._last = (x, y, log_det)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._both("y", y, False)
        self._last = (x, y, -log_det)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log of the absolute Jacobian determinant at x, from latent to data."""
        last_x, last_y, log_det = self._last
        if x is last_x and y is last_y:
            return log_det  # type: ignore[no-any-return]
        return self._both("x", x, True)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value and its log-determinant from one run, as zuko's transforms have it."""
        return self._both("x", x, True)

    @property
    def inv(self) -> Any:
        """From data to latent."""
        inverse: Any = super().inv
        inverse.call_and_ladj = self._inverse_and_ladj
        return inverse

    def _inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._both("y", y, False)

    def with_cache(self, cache_size: int = 1) -> BoundTransform:
        """The same: the last call is remembered anyway."""
        return self

    def __eq__(self, other: object) -> bool:
        """The same module and context."""
        return isinstance(other, BoundTransform) and self._module is other._module and self._context is other._context

    def __hash__(self) -> int:
        """By identity of both."""
        return hash((id(self._module), id(self._context)))
