"""The operators by which `transforms.run` computes with PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Header = Mapping[str, Any]
Tensors = Mapping[str, Tensor]
Pair = tuple[Tensor, Tensor]


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); PyTorch's default is linear beyond 20, with an error of 2e-9."""
    return functional.softplus(x, threshold=40.0)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": functional.elu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "softplus": _softplus,
    "leaky_relu": functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class Operators:
    """Operators on tensors with any leading dimensions; `dtype` is the flow's dtype, though some values are float64."""

    library: Any = torch
    differentiates = True
    is_fixed = False  # whether tensors of a file are constants, from which results may be computed in advance
    softplus = staticmethod(_softplus)
    sigmoid, tanh, round, floor = map(staticmethod, (torch.sigmoid, torch.tanh, torch.round, torch.floor))
    exp, log, log1p, expm1 = map(staticmethod, (torch.exp, torch.log, torch.log1p, torch.expm1))
    sqrt, softsign = staticmethod(torch.sqrt), staticmethod(functional.softsign)
    hypot, where, equal = map(staticmethod, (torch.hypot, torch.where, torch.eq))
    wide, fixed = staticmethod(Tensor.double), staticmethod(Tensor.detach)  # in float64; without a derivative

    def __init__(self, dtype: torch.dtype, levels: Sequence[int] | None = None) -> None:
        """`levels`: the levels of coordinates of a masked transform."""
        self.dtype, self._levels = dtype, levels

    # ---- dtypes and constants ------------------------------------------------------------------------------------

    def narrow(self, x: Tensor, like: Tensor | None) -> Tensor:
        """x in the dtype of `like`, or of the flow if `like` is None."""
        return x.to(self.dtype if like is None else like.dtype)

    def param(self, x: Tensor, like: Tensor) -> Tensor:
        """A tensor of the file in the dtype of `like`."""
        return x.to(like.dtype)

    def wide_constant(self, numbers: Any, like: Tensor) -> Tensor:
        """Numbers as a float64 tensor, whatever the dtype of the module."""
        return torch.tensor(numbers, dtype=torch.float64, device=like.device)

    def rounded(self, numbers: Any, like: Tensor) -> Tensor:
        """Numbers as a tensor, rounded to the dtype of `like`."""
        return self.wide_constant(numbers, like).to(like.dtype)

    def flags(self, which: Sequence[bool], like: Tensor) -> Tensor:
        """Truth values."""
        return torch.tensor(which, device=like.device)

    def log_of_numbers(self, numbers: Sequence[float]) -> float:
        """The sum of the logarithms of `numbers`."""
        return math.fsum(map(math.log, numbers))

    def tiny(self, like: Tensor) -> float:
        """The least positive normal float in the dtype of `like`."""
        return float(torch.finfo(like.dtype).tiny)

    def epsilon(self, like: Tensor) -> float:
        """The distance from 1 to the next float in the dtype of `like`."""
        return float(torch.finfo(like.dtype).eps)

    def spoiled(self, log: Tensor, header: Header, params: Tensors) -> Tensor:
        """`log`, unchanged: it is computed from all parameters, and therefore NaN if a parameter is NaN."""
        return log

    # ---- choices and sums over the last axis ------------------------------------------------------------------------

    def clip(self, x: Tensor, low: Any, high: Any) -> Tensor:
        """Between two bounds."""
        return x.clamp(low, high)

    within = clip  # no result for a NaN is used

    def kept_within(self, x: Tensor, low: float, high: float) -> Tensor:
        """x limited to `low` and `high`, as by `within`, but with the derivative 1."""
        return x + (x.clamp(low, high) - x).detach()

    def zero_unless(self, condition: Tensor, x: Tensor) -> Tensor:
        """x, or zero where `condition` is false; the operator for ONNX keeps a NaN."""
        return torch.where(condition, x, 0.0)

    def highest(self, x: Tensor, other: Any) -> Tensor:
        """The larger of `x` and `other`."""
        return torch.maximum(x, other) if isinstance(other, Tensor) else x.clamp(min=other)

    def lowest(self, x: Tensor, other: Any) -> Tensor:
        """The smaller of `x` and `other`."""
        return torch.minimum(x, other) if isinstance(other, Tensor) else x.clamp(max=other)

    def sum(self, x: Tensor, keep: bool = False) -> Tensor:
        """Over the last axis."""
        return x.sum(-1, keepdim=keep)

    def any(self, x: Tensor) -> Tensor:
        """Whether any element along the last axis is true."""
        return x.any(-1)

    def largest(self, x: Tensor) -> Tensor:
        """The largest element along the last axis, which remains with length 1."""
        return x.amax(-1, keepdim=True)

    def norm(self, x: Tensor) -> Tensor:
        """The Euclidean norm over the last axis, which remains with length 1."""
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True)

    def softmax(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return x.softmax(-1)

    def logsumexp(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return x.logsumexp(-1)

    def sums_below(self, x: Tensor) -> Tensor:
        """For each element along the last axis the sum of all elements before it."""
        return functional.pad(x.cumsum(-1)[..., :-1], (1, 0))

    def last_not_above(self, edges: Tensor, target: Tensor, bins: int) -> Tensor:
        """The index, for `pick`, of the last bin whose lower edge is at or below `target`."""
        return (target[..., None] >= edges).sum(-1, keepdim=True).clamp(1, bins) - 1

    def pick(self, table: Tensor, here: Tensor) -> tuple[Tensor, ...]:
        """The values of the bin `here` in each row of a table."""
        rows, bins = table.shape[-2:]
        index = here[..., None, :].expand(*here.shape[:-1], rows, 1)
        return table.expand(*here.shape[:-1], rows, bins).gather(-1, index)[..., 0].unbind(-1)

    # ---- rows of a table: the axis before the last -------------------------------------------------------------------

    def lifted(self, x: Tensor) -> Tensor:
        """Values in the shape of results of `pick`."""
        return x

    lowered = lifted  # the inverse of `lifted`

    def stacked(self, rows: Sequence[Tensor]) -> Tensor:
        """A table of rows."""
        return torch.stack(list(rows), -2)

    def beside(self, tables: Sequence[Tensor]) -> Tensor:
        """One table with the rows of several tables."""
        return torch.cat(list(tables), -2)

    def halves(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """The first half and the second half of a table's rows."""
        first, second = table.chunk(2, -2)
        return first, second

    def row(self, table: Tensor, i: int) -> Tensor:
        """Row i of a table."""
        return table[..., i, :]

    # ---- columns -----------------------------------------------------------------------------------------------------

    def columns(self, x: Tensor, which: Sequence[int]) -> Tensor:
        """Columns of the last axis in the order of `which`."""
        return x[..., list(which)]

    def part(self, x: Tensor, begin: int, end: int) -> Tensor:
        """The columns from `begin` to before `end` of the last axis."""
        return x[..., begin:end]

    def without_last(self, x: Tensor) -> Tensor:
        """x without the last axis, which has one element."""
        return x[..., 0]

    def split(self, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Parts of x along the last axis, of the given sizes."""
        return list(x.split(list(sizes), -1))

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Concatenate along the last axis; other axes are broadcast."""
        # Shapes are compared first, because `broadcast_shapes` takes 0.1 ms.
        if any(part.shape[:-1] != parts[0].shape[:-1] for part in parts):
            batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
            parts = [part.expand(*batch, part.shape[-1]) for part in parts]
        return torch.cat(list(parts), -1)

    def reshaped(self, x: Tensor, *shape: int) -> Tensor:
        """x with the last axis divided into axes of the sizes `shape`."""
        return x.reshape(*x.shape[:-1], *shape)

    def rows_of_components(self, x: Tensor) -> Tensor:
        """Rows with a new axis, for components of a mixture, before the last axis."""
        return x[..., None, :]

    def settled(self, levels: Sequence[int], level: int, new: Tensor, old: Tensor) -> Tensor:
        """`new` for coordinates of the level `level`, and `old` for all other coordinates."""
        return torch.where(torch.tensor([each == level for each in levels], device=new.device), new, old)

    # ---- products ----------------------------------------------------------------------------------------------------

    def activation(self, name: str, x: Tensor) -> Tensor:
        """The activation with the name `name`, applied to x."""
        return _ACTIVATIONS[name](x)

    def dense(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The product of x with a matrix `weight`, (out, in), plus a bias."""
        return functional.linear(x, weight, bias)

    def affine(self, x: Tensor, shift: Tensor, log_scale: Tensor, to_data: bool) -> Pair:
        """x = shift + e^log_scale z."""
        if to_data:
            return shift + log_scale.exp() * x, log_scale.sum()
        return (x - shift) * (-log_scale).exp(), -log_scale.sum()

    def rotated(self, x: Tensor, blocks: Tensor, sizes: Sequence[int], to_data: bool) -> Tensor:
        """The product with a matrix of diagonal blocks or, in the direction to latent, with its transpose."""
        parts = blocks.split([n * n for n in sizes])
        matrix = torch.block_diag(*(part.reshape(n, n) for part, n in zip(parts, sizes, strict=True))).to(x.dtype)
        return functional.linear(x, matrix if to_data else matrix.T)

    def linear(self, x: Tensor, header: Header, tensors: Tensors, to_data: bool) -> Pair:
        """x = signs · y[order] + shift, y = lower · diagonal · upper · z."""
        wide = {name: tensors[name].to(x.dtype) for name in ("lower", "upper", "log_diagonal", "shift")}  # or float64
        order, log_diagonal = list(header["order"]), wide["log_diagonal"]
        unit = torch.eye(len(order), dtype=x.dtype, device=x.device)
        lower, upper = unit + wide["lower"].tril(-1), unit + wide["upper"].triu(1)
        signs, log_det = self.rounded(header["signs"], x), log_diagonal.sum()
        if to_data:
            y = functional.linear(functional.linear(x, upper) * log_diagonal.exp(), lower)
            return signs * y[..., order] + wide["shift"], log_det
        y = (signs * (x - wide["shift"]))[..., sorted(range(len(order)), key=order.__getitem__)]
        rows = y.reshape(-1, len(order)).T
        rows = torch.linalg.solve_triangular(lower, rows, upper=False, unitriangular=True)
        rows = rows * (-log_diagonal).exp()[:, None]
        rows = torch.linalg.solve_triangular(upper, rows, upper=True, unitriangular=True)
        return rows.T.reshape(x.shape), -log_det

    def levels(self, header: Header, tensors: Tensors) -> Sequence[int]:
        """The level of each coordinate of a masked transform."""
        assert self._levels is not None
        return self._levels

    # ---- parameters of bases -----------------------------------------------------------------------------------------

    def location(self, header: Header, tensors: Tensors, like: Tensor) -> Pair:
        """Location and log scale."""
        if header["trainable"]:
            return tensors["loc"], tensors["log_scale"]
        return self.rounded(header["loc"], like), self.wide_constant(header["scale"], like).log().to(like.dtype)

    def student(self, header: Header, tensors: Tensors, like: Tensor) -> Pair:
        """Degrees of freedom ν, and log Γ((ν + 1)/2) − log Γ(ν/2) − log(ν π)/2, in float64."""
        df = tensors["log_df"].double().exp() if header["trainable"] else self.wide_constant(header["df"], like)
        x = 0.5 * df
        t = 1.0 / x.clamp(min=30.0)  # a series for large x, where terms of lgamma(x + ½) - lgamma(x) - ½ log x cancel
        series = t * (-1 / 8 + t * t * (1 / 192 + t * t * (-1 / 640 + t * t * (17 / 14336))))
        near = x.clamp(max=30.0)
        exact = torch.lgamma(near + 0.5) - torch.lgamma(near) - 0.5 * near.log()
        return df, torch.where(x > 30.0, series, exact) - 0.5 * math.log(2.0 * math.pi)

    def log_weights(self, header: Header, tensors: Tensors, like: Tensor) -> Tensor:
        """Log weights of the components of a mixture."""
        if header["trainable"]:
            return tensors["logits"].double().log_softmax(-1).to(like.dtype)
        weights = self.wide_constant(header["weights"], like)
        return (weights / weights.sum()).log().to(like.dtype)
