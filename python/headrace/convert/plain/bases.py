"""Densities at the latent end, and draws from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .parts import Header, Tensors, constant

__all__ = ["Base"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def _normal(z: Tensor) -> Tensor:
    return -0.5 * z * z - _HALF_LOG_TWO_PI


def _logistic(z: Tensor) -> Tensor:
    return -z.abs() - 2.0 * (-z.abs()).exp().log1p()


def _uniform(z: Tensor) -> Tensor:
    inside: Tensor = (z - z) - math.log(2.0)
    return torch.where(z.abs() > 1.0, torch.full_like(z, -math.inf), inside)


def _student(z: Tensor, df: Tensor) -> Tensor:
    """In float64: log(1 + z²/ν) is multiplied by (ν + 1)/2, which may be large."""
    a = z.double().abs() / df.sqrt()
    logs = torch.where(a > 1e8, 2.0 * a.clamp(min=1.0).log(), (a.clamp(max=1e8) ** 2).log1p())
    x = 0.5 * df
    t = 1.0 / x.clamp(min=30.0)  # lgamma(x + ½) - lgamma(x) - ½ log x, of which large numbers would cancel
    series = t * (-1 / 8 + t * t * (1 / 192 + t * t * (-1 / 640 + t * t * (17 / 14336))))
    near = x.clamp(max=30.0)
    exact = torch.lgamma(near + 0.5) - torch.lgamma(near) - 0.5 * near.log()
    return torch.where(x > 30.0, series, exact) - _HALF_LOG_TWO_PI - 0.5 * (df + 1.0) * logs


_COLUMNS: dict[str, Callable[[Tensor], Tensor]] = {"normal": _normal, "logistic": _logistic, "uniform": _uniform}
_NAMES = {"StandardNormal": "normal", "Normal": "normal", "Logistic": "logistic", "Uniform": "uniform"}


class Base(nn.Module):
    """The density at the latent end."""

    def __init__(self, header: Header, tensors: Tensors) -> None:
        """From what the file has of it."""
        super().__init__()
        self.header = dict(header)
        known = (*_NAMES, "Independent", "StudentT", "NormalMixture")
        if header["kind"] not in known:
            raise ValueError(f"base: expected one of {', '.join(known)}, got {header['kind']!r}")
        for name, one in tensors.items():
            self.register_parameter(name, nn.Parameter(one))

    def _numbers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Location and log scale."""
        if self.header["trainable"]:
            return self.get_parameter("loc"), self.get_parameter("log_scale")
        return constant(self.header["loc"], like).to(like), constant(self.header["scale"], like).log().to(like)

    def _df(self, like: Tensor) -> Tensor:
        if self.header["trainable"]:
            return self.get_parameter("log_df").double().exp()
        return constant(self.header["df"], like)

    def _log_weights(self, like: Tensor) -> Tensor:
        if self.header["trainable"]:
            return self.get_parameter("logits").double().log_softmax(-1)
        weights = constant(self.header["weights"], like)
        return (weights / weights.sum()).log()

    def log_prob(self, z: Tensor) -> Tensor:
        """Of rows, shape (...)."""
        kind = self.header["kind"]
        if kind == "StudentT":
            return _student(z, self._df(z)).sum(-1).to(z.dtype)
        if kind == "Independent":
            columns = [_COLUMNS[name](z[..., c]) for c, name in enumerate(self.header["densities"])]
            return torch.stack(columns, -1).sum(-1)
        if kind == "NormalMixture":
            loc, log_scale = self._numbers(z)
            u = (z[..., None, :] - loc) * (-log_scale).exp()
            return (self._log_weights(z).to(z.dtype) + (_normal(u) - log_scale).sum(-1)).logsumexp(-1)
        if kind == "Normal":
            loc, log_scale = self._numbers(z)
            return (_normal((z - loc) * (-log_scale).exp()) - log_scale).sum(-1)
        return _COLUMNS[_NAMES[kind]](z).sum(-1)

    def draw(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Latent rows."""
        kind, told = self.header["kind"], {"dtype": like.dtype, "device": like.device}
        normal = torch.randn(*shape, **told)
        if kind == "StudentT":
            half = (0.5 * self._df(like)).expand(*shape)
            return (normal * (half / torch.distributions.Gamma(half, torch.ones_like(half)).sample()).sqrt()).to(like)
        if kind in ("Normal", "NormalMixture"):
            loc, log_scale = self._numbers(like)
            if kind == "NormalMixture":
                chosen = torch.multinomial(self._log_weights(like).exp(), math.prod(shape[:-1]), replacement=True)
                loc, log_scale = (one[chosen].reshape(*shape) for one in (loc, log_scale))
            return loc + log_scale.exp() * normal
        names = self.header.get("densities") or [_NAMES[kind]] * shape[-1]
        uniform = torch.rand(*shape, **told).clamp(torch.finfo(like.dtype).tiny, 1.0 - torch.finfo(like.dtype).eps)
        drawn = {"normal": normal, "logistic": uniform.logit(), "uniform": 2.0 * uniform - 1.0}
        return torch.stack([drawn[name][..., c] for c, name in enumerate(names)], -1)
