"""Flows of headrace in plain PyTorch: this folder imports PyTorch alone, and may be copied to where headrace is not.

    flow = load("flow.safetensors")  # a file of headrace, which the package safetensors opens
    log_prob = flow(x)

It computes what docs/files.md says with PyTorch's operators, so that autograd, `torch.export` and `torch.compile` take
it. A direction that builds one coordinate after another runs the network once for each. Names in a `state_dict` are
those of the tensors in a file.
"""

from __future__ import annotations

import json
import math
import os

import torch
from torch import Tensor, nn

from .bases import Base
from .parts import Header, Pair, Tensors, below, constant
from .support import Support
from .transforms import Permutation, Standardize, transform_of

__all__ = ["PlainFlow", "load"]


def load(path: str | os.PathLike[str]) -> PlainFlow:
    """The flow of a file that `headrace.Flow.save` wrote; needs the package safetensors."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return PlainFlow(
            json.loads(file.metadata()["headrace"]),
            {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
        )


class PlainFlow(nn.Module):
    """A flow, from what its file says of it.

    Rows have any leading dimensions, which a context's are broadcast against. A row with a NaN or an infinity gives
    NaN, and one on a bound of its support or beyond a log density of -inf.

    Args:
        header: The JSON object under the key "headrace" of the file's metadata.
        tensors: Those of the file by name.
    """

    _like: Tensor

    def __init__(self, header: Header, tensors: Tensors) -> None:
        """See the class."""
        super().__init__()
        if "transforms" not in header:
            raise ValueError(f"header: expected that of a flow, got one of {header.get('kind')}")
        if "matmul" in header:
            raise ValueError(f"matmul: expected a flow whose products are exact, got {header['matmul']!r}")
        self.features, self.context_features = int(header["features"]), int(header["context"])
        self.standardize_context = header["standardize_context"]
        dtype = {"float32": torch.float32, "float64": torch.float64}[header["dtype"]]
        self.register_buffer("_like", torch.empty(0, dtype=dtype), persistent=False)  # of rows, wherever it is moved
        self.base = Base(header["base"], below(tensors, "base."))
        parts = [transform_of(part, below(tensors, f"transforms.{i}.")) for i, part in enumerate(header["transforms"])]
        self.transforms = nn.ModuleList(parts)

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
        return torch.where(outside & x.isfinite().all(-1), torch.full_like(log_prob, -math.inf), log_prob)

    def to_latent(self, x: Tensor, context: Tensor | None = None) -> Pair:
        """``(z, log_det)``: shapes (..., features) and (...)."""
        z, log_det = self._run(x, context, False)
        outside = self._outside(x)
        if outside is not None:
            z = torch.where(outside[..., None], torch.full_like(z, math.nan), z)
            log_det = torch.where(outside, torch.full_like(log_det, math.nan), log_det)
        return z, log_det

    def to_data(self, z: Tensor, context: Tensor | None = None) -> Pair:
        """``(x, log_det)``: shapes (..., features) and (...)."""
        x, log_det = self._run(z, context, True)
        return next((t.inside(x) for t in self._data_end(False) if isinstance(t, Support)), x), log_det

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Draws by PyTorch's generator: shape (n, features), and (n, ..., features) for a context (..., columns)."""
        batch = () if context is None else context.shape[:-1]
        with torch.no_grad():
            return self.to_data(self.base.draw((n, *batch, self.features), self._like), context)[0]

    def _run(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        own = self._like.dtype
        if value.shape[-1] != self.features:
            raise ValueError(f"rows: expected shape (..., {self.features}), got {tuple(value.shape)}")
        columns = None if context is None else context.shape[-1]
        if columns != (self.context_features or None):
            raise ValueError(f"context: expected {self.context_features or None} columns, got {columns}")
        bad = (value - value).sum(-1).to(own)  # NaN in rows that are not finite, else 0
        if context is not None:
            batch = torch.broadcast_shapes(value.shape[:-1], context.shape[:-1])
            bad = bad + (context - context).sum(-1).to(own)
            value, context = value.expand(*batch, -1), context.expand(*batch, -1)
            if (scale := self.standardize_context) is not None:
                wide = context.double()
                context = (wide - constant(scale["mean"], wide)) / constant(scale["std"], wide)
            context = context.to(own)
        log_det = torch.zeros_like(value[..., 0], dtype=own)
        for t in self.transforms if to_data else reversed(self.transforms):
            given = value if t.is_wide else value.to(own)  # ends of the data are in float64
            value, more = t.run(given, context, to_data)
            log_det = log_det + more.to(own)
        bad = bad + (value - value).sum(-1).to(own) + (log_det - log_det)  # what overflowed is NaN altogether
        return value.to(own) + bad[..., None], log_det + bad

    def _data_end(self, passes: bool) -> list[nn.Module]:
        """Transforms from the data's end to the first that does something, permutations passed or not."""
        found: list[nn.Module] = []
        for t in reversed(self.transforms):
            if isinstance(t, Support) and not t.has_ends:
                continue
            if isinstance(t, Support) and not t.is_flipped:
                return [*found, t]
            is_passed = isinstance(t, Permutation) and passes and t.columns is None
            if not is_passed and not (isinstance(t, Standardize) and t.is_identity):
                return found
            found.append(t)
        return found

    def _outside(self, x: Tensor) -> Tensor | None:
        """Which rows have a number on a bound or beyond; None where there are no bounds at the data's side."""
        value = x
        for t in self._data_end(True):
            if isinstance(t, Support):
                return t.is_outside(value)
            value = t(value, None, t.is_flipped)[0]
        return None
