"""Transforms, each from the header and the tensors that its file has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .maps import SPLINES, apply_map, sizes_of
from .networks import by_coordinate, layers_of, levels_of, network
from .parts import Header, Pair, Tensors, Transform, constant
from .support import Support
from .vectors import planar, radial

__all__ = ["Permutation", "Standardize", "transform_of"]


class Permutation(Transform):
    """x[i] = z[order[i]]."""

    is_wide = True

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        """Rows and log-determinants."""
        order = list(self.header["order"])
        if not to_data:
            order = sorted(range(len(order)), key=order.__getitem__)
        return value[..., order], torch.zeros_like(value[..., 0])


class Standardize(Transform):
    """x = mean + std z, in float64."""

    is_wide = True

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return not any(self.header["mean"]) and all(std == 1.0 for std in self.header["std"])

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        """Rows and log-determinants."""
        if self.is_identity:
            return value, torch.zeros_like(value[..., 0])
        wide = value.double()
        mean, std = constant(self.header["mean"], wide), constant(self.header["std"], wide)
        log_det = std.log().sum().expand(wide.shape[:-1])
        return (mean + std * wide, log_det) if to_data else ((wide - mean) / std, -log_det)


class _ActNorm(Transform):
    shift: Tensor
    log_scale: Tensor

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        self._keep(tensors, "shift", "log_scale")

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        log_det = self.log_scale.sum().expand(value.shape[:-1])
        if to_data:
            return self.shift + self.log_scale.exp() * value, log_det
        return (value - self.shift) * (-self.log_scale).exp(), -log_det


class _Rotation(Transform):
    blocks: Tensor

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        self.register_buffer("blocks", tensors["blocks"])

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        sizes = self.header["blocks"]
        parts = self.blocks.split([n * n for n in sizes])
        matrix = torch.block_diag(*(part.reshape(n, n) for part, n in zip(parts, sizes, strict=True))).to(value.dtype)
        return functional.linear(value, matrix if to_data else matrix.T), torch.zeros_like(value[..., 0])


class _Linear(Transform):
    upper: Tensor
    lower: Tensor
    log_diagonal: Tensor
    shift: Tensor

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        self._keep(tensors, "upper", "lower", "log_diagonal", "shift")

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        order = list(self.header["order"])
        one = torch.eye(len(order), dtype=value.dtype, device=value.device)
        lower, upper = one + self.lower.tril(-1), one + self.upper.triu(1)
        signs = constant(self.header["signs"], value).to(value.dtype)
        log_det = self.log_diagonal.sum().expand(value.shape[:-1])
        if to_data:
            y = functional.linear(functional.linear(value, upper) * self.log_diagonal.exp(), lower)
            return signs * y[..., order] + self.shift, log_det
        y = (signs * (value - self.shift))[..., sorted(range(len(order)), key=order.__getitem__)]
        rows = y.reshape(-1, len(order)).T
        rows = torch.linalg.solve_triangular(lower, rows, upper=False, unitriangular=True)
        rows = rows * (-self.log_diagonal).exp()[:, None]
        rows = torch.linalg.solve_triangular(upper, rows, upper=True, unitriangular=True)
        return rows.T.reshape(value.shape), -log_det


class _Elementwise(Transform):
    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        self._keep(tensors, *tensors)

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        is_spline = self.header["map"] in SPLINES
        params = {name: one if is_spline else one[:, 0] for name, one in self.named_parameters()}
        built, log = apply_map(self.header, params, value, to_data != (self.header["formula"] == "to_data"))
        return built, log.sum(-1)


class _Gaussianize(Transform):
    """A fixed spline of each coordinate, and a shift and a scale before it."""

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        self.scale = Standardize(header, {})
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        if not to_data:
            wide, scale = self.scale.forward(value, context, to_data)
            built, log = apply_map(self.header, self._params(value.dtype), wide.to(value.dtype), False)
            return built, log.sum(-1) + scale
        built, log = apply_map(self.header, self._params(value.dtype), value, True)
        wide, scale = self.scale.forward(built, context, to_data)
        return wide, log.sum(-1) + scale

    def _params(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {name: one.to(dtype) for name, one in self.named_buffers(recurse=False)}


class _Masked(Transform):
    levels: Tensor

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        self.layers = layers_of(tensors)
        n, passive = header["features"], header.get("passive")
        self.passive = passive
        self.active = [c for c in range(n) if c not in set(passive or ())]
        levels = levels_of(header, self.layers, [*sizes_of(header).values()], n) if passive is None else [1] * n
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.passes = max(levels)

    def _mapped(self, read: Tensor, value: Tensor, context: Tensor | None, inverse: bool) -> Pair:
        given = context if self.header["context"] else None
        out = network(self.header, self.layers, read if given is None else torch.cat([read, given], -1), given)
        sizes = sizes_of(self.header)
        parts = by_coordinate(self.header, [*sizes.values()], out, len(self.active))
        is_spline = self.header["map"] in SPLINES
        params = {name: part if is_spline else part[..., 0] for name, part in zip(sizes, parts, strict=True)}
        return apply_map(self.header, params, value, inverse)

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        inverse = to_data != (self.header["formula"] == "to_data")
        if self.passive is not None:
            read = value[..., self.passive]
            built, log = self._mapped(read, value[..., self.active], context, inverse)
            order = [*self.passive, *self.active]
            whole = torch.cat([read, built], -1)[..., sorted(range(len(order)), key=order.__getitem__)]
            return whole, log.sum(-1)
        if (self.header["reads"] == "data") != to_data:
            built, log = self._mapped(value, value, context, inverse)
            return built, log.sum(-1)
        built = torch.zeros_like(value)
        for level in range(1, self.passes + 1):  # what is not settled yet stays 0, whatever it would be
            found, log = self._mapped(built, value, context, inverse)
            built = torch.where(self.levels == level, found, built)
        return built, log.sum(-1)


class _Vector(Transform):
    """`Planar` and `Radial`: all coordinates at once."""

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__(header, tensors)
        n = header["features"]
        self.sizes = {"w": n, "u": n, "b": 1} if header["kind"] == "Planar" else {"center": n, "alpha": 1, "beta": 1}
        if header["context"]:
            self.layers = layers_of(tensors)
        else:
            self._keep(tensors, *self.sizes)

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        if self.header["context"]:
            assert context is not None
            parts = list(network(self.header, self.layers, context, None).split([*self.sizes.values()], -1))
        else:
            parts = [getattr(self, name) for name in self.sizes]
        apply = planar if self.header["kind"] == "Planar" else radial
        built, log_det = apply(self.header, parts, value, not to_data)
        return built, log_det[..., 0]


_KINDS: dict[str, Any] = {
    "Permutation": Permutation,
    "Standardize": Standardize,
    "Support": Support,
    "ActNorm": _ActNorm,
    "Rotation": _Rotation,
    "Linear": _Linear,
    "Elementwise": _Elementwise,
    "Gaussianize": _Gaussianize,
    "MaskedAutoregressive": _Masked,
    "Coupling": _Masked,
    "Planar": _Vector,
    "Radial": _Vector,
}


def transform_of(header: Header, tensors: Tensors) -> Transform:
    """The transform of a header.

    An inverse is what it inverts, called the other way, and a transform on some columns is that, told which.
    """
    is_flipped, columns = False, None
    while header["kind"] in ("Inverse", "OnColumns"):
        if header["kind"] == "Inverse":
            is_flipped = not is_flipped
        else:
            own = list(header["columns"])
            columns = own if columns is None else [columns[c] for c in own]
        header = header["transform"]
    if header["kind"] not in _KINDS:
        raise ValueError(f"transforms: expected kinds {', '.join(_KINDS)}, got {header['kind']!r}")
    made: Transform = _KINDS[header["kind"]](header, tensors)
    made.is_flipped, made.columns = is_flipped, columns
    return made
