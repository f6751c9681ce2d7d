"""Flows as modules of PyTorch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import bases, transforms
from .networks import levels_of
from .operators import Operators
from .support import inside, is_outside

Header = Mapping[str, Any]
Tensors = Mapping[str, Tensor]
Pair = tuple[Tensor, Tensor]


def load(path: str | os.PathLike[str]) -> PlainFlow:
    """Load a flow from a file of `headrace.Flow.save`; requires the package safetensors."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return PlainFlow(json.loads(file.metadata()["headrace"]), tensors)


class _Part(nn.Module):
    """A transform or base from a file: its header and tensors, in nested modules by the parts of tensors' names."""

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__()
        self.header = dict(header)
        is_fixed = transforms.inner_of(header)[0]["kind"] in ("Rotation", "Gaussianize")
        self._names = list(tensors)
        for name, tensor in tensors.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            if is_fixed or leaf == "mask":
                module.register_buffer(leaf, tensor)
            else:
                module.register_parameter(leaf, nn.Parameter(tensor))

    def tensors(self) -> dict[str, Tensor]:
        """The current tensors, by the names that they have in the file."""
        parts: dict[str, Any] = {}
        for name in self._names:
            parts[name] = self
            for part in name.split("."):
                parts[name] = getattr(parts[name], part)
        return parts


class _Transform(_Part):
    """One transform; a call with ``to_data=True`` maps latent to data."""

    def __init__(self, header: Header, tensors: Tensors) -> None:
        inner = transforms.inner_of(header)[0]
        if inner["kind"] not in transforms.KINDS:
            raise ValueError(f"transforms: expected kinds {', '.join(transforms.KINDS)}, got {inner['kind']!r}")
        super().__init__(header, tensors)
        is_masked = inner["kind"] == "MaskedAutoregressive"
        self.levels = levels_of(torch.eye, inner, tensors) if is_masked else None

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool, dtype: torch.dtype) -> Any:
        operators = Operators(dtype, self.levels)
        return transforms.run(operators, self.header, self.tensors(), value, context, to_data)


class _Base(_Part):
    """The base density, at the latent end of a flow."""

    def __init__(self, header: Header, tensors: Tensors) -> None:
        if header["kind"] not in bases.KINDS:
            raise ValueError(f"base: expected one of {', '.join(bases.KINDS)}, got {header['kind']!r}")
        super().__init__(header, tensors)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of rows, shape (...)."""
        return bases.log_prob(Operators(z.dtype), self.header, self.tensors(), z)

    def draw(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Latent rows."""
        kind, options, o = self.header["kind"], {"dtype": like.dtype, "device": like.device}, Operators(like.dtype)
        normal = torch.randn(*shape, **options)
        if kind == "StudentT":
            half = (0.5 * o.student(self.header, self.tensors(), like)[0]).expand(*shape)
            return (normal * (half / torch.distributions.Gamma(half, torch.ones_like(half)).sample()).sqrt()).to(like)
        if kind in ("Normal", "NormalMixture"):
            loc, log_scale = o.location(self.header, self.tensors(), like)
            if kind == "NormalMixture":
                weights = o.log_weights(self.header, self.tensors(), like.double()).exp()
                chosen = torch.multinomial(weights, math.prod(shape[:-1]), replacement=True)
                loc, log_scale = (part[chosen].reshape(*shape) for part in (loc, log_scale))
            return loc + log_scale.exp() * normal
        names = self.header.get("densities") or [bases.NAMES[kind]] * shape[-1]
        uniform = torch.rand(*shape, **options).clamp(torch.finfo(like.dtype).tiny, 1.0 - torch.finfo(like.dtype).eps)
        drawn = {"normal": normal, "logistic": uniform.logit(), "uniform": 2.0 * uniform - 1.0}
        return torch.stack([drawn[name][..., c] for c, name in enumerate(names)], -1)


class PlainFlow(nn.Module):
    """A flow, from its file.

    Rows have any leading dimensions, and leading dimensions of a context are broadcast against these. A row with a NaN
    or an infinity gives NaN; a row on a bound of the support or beyond has a log density of -inf.

    Args:
        header: The JSON object under the key "headrace" of the file's metadata.
        tensors: Arrays of the file by name.
    """

    _like: Tensor

    def __init__(self, header: Header, tensors: Tensors) -> None:
        super().__init__()
        if "transforms" not in header:
            raise ValueError(f"header: expected that of a flow, got one of {header.get('kind')}")
        if "matmul" in header:
            raise ValueError(f"matmul: expected a flow whose products are exact, got {header['matmul']!r}")
        self.features, self.context_features = int(header["features"]), int(header["context"])
        self.standardize_context = header["standardize_context"]
        dtype = {"float32": torch.float32, "float64": torch.float64}[header["dtype"]]
        self.register_buffer("_like", torch.empty(0, dtype=dtype), persistent=False)  # dtype and device of rows
        self.base = _Base(header["base"], transforms.below(tensors, "base."))
        parts = [(part, transforms.below(tensors, f"transforms.{i}.")) for i, part in enumerate(header["transforms"])]
        self.transforms = nn.ModuleList(_Transform(*part) for part in parts)
        self.support = transforms.support_at_end(header["transforms"], passes_permutations=True)
        self.support_of_rows = transforms.support_at_end(header["transforms"], passes_permutations=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of each row in nats: shape (...) for rows (..., features)."""
        z, log_det = self.to_latent(x, context)
        log_prob = self.base.log_prob(z) + log_det
        outside = self._outside(x)
        if outside is None:
            return log_prob
        outside = outside & x.isfinite().all(-1)
        if context is not None:
            outside = outside & context.isfinite().all(-1)
        return torch.where(outside, -math.inf, log_prob)

    def to_latent(self, x: Tensor, context: Tensor | None = None) -> Pair:
        """``(z, log_det)``: shapes (..., features) and (...)."""
        z, log_det = self._run(x, context, False)
        outside = self._outside(x)
        if outside is not None:
            z, log_det = torch.where(outside[..., None], math.nan, z), torch.where(outside, math.nan, log_det)
        return z, log_det

    def to_data(self, z: Tensor, context: Tensor | None = None) -> Pair:
        """``(x, log_det)``: shapes (..., features) and (...)."""
        x, log_det = self._run(z, context, True)
        support = self.support_of_rows
        return (x if support is None else inside(Operators(x.dtype), support[0], x)), log_det

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draws by PyTorch's generator: shape (n, features), and (n, ..., features) for a context (..., columns)."""
        batch = () if context is None else context.shape[:-1]
        with torch.no_grad():
            return self.to_data(self.base.draw((n, *batch, self.features), self._like), context)[0]

    def _run(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        dtype = self._like.dtype
        if value.shape[-1] != self.features:
            raise ValueError(f"rows: expected shape (..., {self.features}), got {tuple(value.shape)}")
        columns = None if context is None else context.shape[-1]
        if columns != (self.context_features or None):
            raise ValueError(f"context: expected {self.context_features or None} columns, got {columns}")
        bad = (value - value).sum(-1).to(dtype)  # NaN for rows that are not finite, else 0
        if context is not None:
            batch = torch.broadcast_shapes(value.shape[:-1], context.shape[:-1])
            bad = bad + (context - context).sum(-1).to(dtype)
            value, context = value.expand(*batch, -1), context.expand(*batch, -1)
            if (scale := self.standardize_context) is not None:
                context = transforms.standardized(Operators(dtype), scale["mean"], scale["std"], context, False)
            context = context.to(dtype)
        log_det = torch.zeros_like(value[..., 0], dtype=dtype)
        for t in self.transforms if to_data else reversed(self.transforms):
            value, more = t(value, context, to_data, dtype)
            log_det = log_det + (more.to(dtype) if isinstance(more, Tensor) else more)
        bad = bad + (value - value).sum(-1).to(dtype) + (log_det - log_det)  # an overflow makes the whole row NaN
        return value.to(dtype) + bad[..., None], log_det + bad

    def _outside(self, x: Tensor) -> Tensor | None:
        """A mask of rows with a value on a bound or beyond it; None for a flow without bounds at the data end."""
        if self.support is None:
            return None
        header, columns = self.support
        return is_outside(Operators(x.dtype), header, x[..., columns])
