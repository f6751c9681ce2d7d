"""A transform that zuko lacks: a spline of each coordinate within an interval, and a straight line beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributions import Transform, constraints

from headrace.convert.plain.maps import apply_map
from headrace.convert.plain.operators import Operators


class Marginal(Transform):  # type: ignore[misc]
    """The spline of a `headrace.transforms.Gaussianize`, from data to latent.

    Args:
        header: The transform's settings in the form of a file's header.
        width, height, derivative: Raw parameters, each of shape (features, number of values).
    """

    domain = constraints.independent(constraints.real, 1)
    codomain = constraints.independent(constraints.real, 1)
    bijective = True

    def __init__(self, header: Mapping[str, Any], width: Tensor, height: Tensor, derivative: Tensor) -> None:
        super().__init__()
        self.header = header
        self.params = {"width": width, "height": height, "derivative": derivative}

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent rows and log-determinants in one call; zuko requires this method."""
        z, log = apply_map(Operators(x.dtype), self.header, self.params, x, False)
        return z, log.sum(-1)

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return apply_map(Operators(y.dtype), self.header, self.params, y, True)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log-determinant from data to latent."""
        return self.call_and_ladj(x)[1]
