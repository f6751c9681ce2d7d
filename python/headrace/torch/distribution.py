"""Flows and transforms in the classes of `torch.distributions`: a distribution with its support, and a transform."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution, constraints
from torch.distributions import Transform as TorchTransform
from torch.distributions.kl import register_kl
from torch.distributions.transforms import _InverseTransform

from headrace import Base, Flow, Independent, Logistic, Normal, NormalMixture, StandardNormal, StudentT, Uniform
from headrace._flow.support_ends import Ends, ends_of, periodic_of


class _HasDensity(constraints.Constraint):
    """The constraint that a density is above 0, for supports other than products of intervals; without a bijection."""

    event_dim = 1

    def __init__(self, log_prob: Callable[[Tensor], Tensor]) -> None:
        self._log_prob = log_prob
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each row has a density above 0."""
        with torch.no_grad():
            return self._log_prob(value) > -math.inf


def support_of(flow: Flow, like: Tensor, log_prob: Callable[[Tensor], Tensor]) -> Any:
    """The constraint on the rows of a flow with its current parameters.

    Args:
        flow: A flow on any device.
        like: A tensor with the dtype and the device for the ends of intervals.
        log_prob: The flow's log density, which defines the support if that is no product of intervals.
    """
    ends = ends_of(flow)
    known = [pair for pair in ends if pair is not None]
    if len(known) < len(ends):
        return _HasDensity(log_prob)
    circles = periodic_of(flow)
    kinds = [_kind(pair, c in circles) for c, pair in enumerate(known)]
    runs = [[c for c, _ in run] for _, run in groupby(enumerate(kinds), key=lambda pair: pair[1])]
    parts = [_constraint(kinds[run[0]], [known[c] for c in run], like) for run in runs]
    if len(parts) == 1:
        return constraints.real_vector if kinds[0] == "real" else constraints.independent(parts[0], 1)
    return constraints.independent(constraints.cat(parts, dim=-1, lengths=[len(run) for run in runs]), 1)


def _kind(ends: Ends, is_circle: bool) -> str:
    low, high = map(math.isfinite, ends)
    if is_circle:
        return "half_open_interval"  # an interval of one period
    named = {(False, False): "real", (True, False): "greater_than", (False, True): "less_than"}
    return named.get((low, high), "interval")


def _constraint(kind: str, ends: Sequence[Ends], like: Tensor) -> Any:
    if kind == "real":
        return constraints.real
    low, high = (torch.tensor(side, dtype=like.dtype, device=like.device) for side in zip(*ends, strict=True))
    given = {"greater_than": (low,), "less_than": (high,)}.get(kind, (low, high))
    return getattr(constraints, kind)(*given)


class FlowDistribution(Distribution):
    """The distribution of rows conditional on one context or on many; `FlowModule` returns it when called.

    >>> import torch, headrace as hr, headrace.torch
    >>> from torch.distributions import biject_to
    >>> flow = hr.torch.FlowModule(hr.NSF(2, transforms=1, hidden=(8,), bounds=[(0.0, 1.0), None]))
    >>> bijection = biject_to(flow().support)  # a sampler's, from unbounded rows
    >>> flow().support.check(bijection(torch.randn(5, 2))).tolist()
    [True, True, True, True, True]
    """

    has_rsample = True
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # as the base class has it

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """The constraint on rows: the support of each column is the real line, an interval or a half-line.

        The support of a periodic column is one period of the density, which integrates to 1 over a period.
        `torch.distributions.biject_to` accepts the constraint, except if transforms that mix the columns follow a base
        with bounds (`headrace.Uniform`): the constraint then checks rows by their density, and has no bijection.
        """
        module = self._module
        return support_of(module._current(), module._like(), self.log_prob)

    def __init__(self, module: Any, context: Tensor | None = None, batch_shape: torch.Size | None = None) -> None:
        if batch_shape is None:
            batch_shape = torch.Size() if context is None else context.shape[:-1]
        self._module, self._context = module, context
        super().__init__(batch_shape, torch.Size([module.features]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """The distribution expanded to more leading dimensions."""
        shape, context = torch.Size(batch_shape), self._context
        if _broadcast(shape, self.batch_shape) != shape:
            raise ValueError(f"batch_shape: expected one that {tuple(self.batch_shape)} expands to, got {tuple(shape)}")
        if context is not None:
            context = context.expand(*shape, context.shape[-1])
        return FlowDistribution(self._module, context, shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each row in nats, shape ``(..., *batch_shape)``."""
        value = self._module._checked("value", value, self._module.features, self._module._like())
        shape = _broadcast(value.shape[:-1], self.batch_shape)
        if shape is None:
            expected = f"leading dimensions that broadcast with the batch_shape {tuple(self.batch_shape)}"
            raise ValueError(f"value: expected {expected}, got {tuple(value.shape[:-1])}")
        return self._module.log_prob(value.expand(*shape, value.shape[-1]), self._context)

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Draws and their log densities from one run, both differentiable."""
        try:
            lead = torch.Size(sample_shape)
        except TypeError:
            raise TypeError(f"sample_shape: expected a tuple of ints, got {sample_shape!r}") from None
        shape = tuple(lead) if self._context is not None else (*lead, *self.batch_shape)
        return self._module.rsample_and_log_prob(shape, self._context)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Differentiable draws, shape ``(*sample_shape, *batch_shape, features)``."""
        return self.rsample_and_log_prob(sample_shape)[0]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without gradients, shape ``(*sample_shape, *batch_shape, features)``."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _no_formula(self, name: str, estimate: str) -> NotImplementedError:
        return NotImplementedError(f"{name}: a flow has no formula for it; estimate it by samples, as {estimate}")

    @property
    def mean(self) -> Tensor:
        """Raise NotImplementedError, because flows have no formula for the mean; the message has an estimator."""
        raise self._no_formula("mean", "distribution.sample((10_000,)).mean(0)")

    @property
    def mode(self) -> Tensor:
        """Raise NotImplementedError, because flows have no formula for the mode; the message has an alternative."""
        raise NotImplementedError("mode: a flow has no formula for it; go up log_prob from its best sample")

    @property
    def variance(self) -> Tensor:
        """Raise NotImplementedError, because flows have no formula for the variance; the message has an estimator."""
        raise self._no_formula("variance", "distribution.sample((10_000,)).var(0)")

    def entropy(self) -> Tensor:
        """Raise NotImplementedError; the message has an estimator of the entropy."""
        raise self._no_formula("entropy", "-distribution.rsample_and_log_prob((10_000,))[1].mean(0)")

    def cdf(self, value: Tensor) -> Tensor:
        """Raise NotImplementedError; the message has an estimator of the distribution function."""
        raise self._no_formula("cdf", "(distribution.sample((10_000,)) <= value).all(-1).float().mean(0)")

    def icdf(self, value: Tensor) -> Tensor:
        """Raise NotImplementedError, because a row has no single quantile."""
        raise NotImplementedError("icdf: a row has no one quantile; quantiles of a column are those of its samples")

    def __repr__(self) -> str:
        """The flow's class and the shapes."""
        flow, batch, event = self._module._entry.flow, tuple(self.batch_shape), tuple(self.event_shape)
        return f"{type(self).__name__}({type(flow).__name__}, batch_shape={batch}, event_shape={event})"


_KL = (
    "kl_divergence: a flow has no formula for it; estimate it by samples of p, which for a flow are x, log_p = "
    "p.rsample_and_log_prob((10_000,)), as (log_p - q.log_prob(x)).mean(0)"
)


@register_kl(FlowDistribution, Distribution)
@register_kl(Distribution, FlowDistribution)
@register_kl(FlowDistribution, FlowDistribution)  # otherwise both other pairs would match
def _no_kl(p: Distribution, q: Distribution) -> Tensor:
    raise NotImplementedError(_KL)


def _broadcast(*shapes: torch.Size) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        return None


class BoundTransform(TorchTransform):
    """A transform from latent to data for one context or many; `TransformModule` returns it when called."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, module: Any, context: Tensor | None = None) -> None:
        super().__init__()
        self._module, self._context = module, context
        self._last: Any = None

    def _both(self, name: str, value: Tensor, to_data: bool) -> Any:
        out, log_det = self._module._transformed(name, value, self._context, to_data)
        pair, sign = ((value, out), 1.0) if to_data else ((out, value), -1.0)
        self._last = (*pair, self._state(), sign, log_det)
        return out, log_det

    def _state(self) -> tuple[Any, ...]:
        vector = self._module.vector
        version = None if torch.compiler.is_compiling() else vector._version  # traces cannot compare tensors' versions
        return vector, version, torch.is_grad_enabled()

    def _call(self, x: Tensor) -> Tensor:
        return self._both("x", x, True)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self._both("y", y, False)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log of the absolute Jacobian determinant of the map from x to y, reused from the last call if possible."""
        if self._last is not None:
            last_x, last_y, state, sign, log_det = self._last
            now = self._state()
            if x is last_x and y is last_y and state[0] is now[0] and state[1:] == now[1:]:
                return sign * log_det
        return self._both("x", x, True)[1]

    def forward_shape(self, shape: Any) -> torch.Size:
        """The shape of results: leading dimensions broadcast against those of the context."""
        lead = torch.Size() if self._context is None else self._context.shape[:-1]
        return torch.broadcast_shapes(torch.Size(shape[:-1]), lead) + torch.Size(shape[-1:])

    inverse_shape = forward_shape

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The data of latent rows and the log-determinants from one run, with the signature of zuko's transforms."""
        return self._both("x", x, True)

    @property
    def inv(self) -> Any:
        """The inverse transform, from data to latent."""
        return _Inverse(self)

    def with_cache(self, cache_size: int = 1) -> BoundTransform:
        """The transform itself, which caches log-determinants but no values, because parameters change."""
        return self

    def __eq__(self, other: object) -> bool:
        """Whether both transforms have the same module and the same context, by identity."""
        return isinstance(other, BoundTransform) and self._module is other._module and self._context is other._context

    def __hash__(self) -> int:
        """A hash of the identities of module and context."""
        return hash((id(self._module), id(self._context)))


class _Inverse(_InverseTransform):
    """The inverse of a `BoundTransform`, with the method of zuko's transforms."""

    def call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The latent rows of data and the log-determinants from one run."""
        return self._inv._both("y", y, False)


def draw(base: Base, shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> Tensor:
    """Rows drawn from a base's standard density, which has no trained parameters; the base later transforms the rows.

    Args:
        base: A base whose trained parameters, if any, only transform drawn rows.
        shape: Shape (..., features).
        dtype: The dtype of the rows. Densities with heavy tails are drawn in float64.
        device: The device of the rows.
    """

    def wide(numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=device)

    if isinstance(base, (StandardNormal, Normal)):
        return torch.randn(shape, dtype=dtype, device=device)
    if isinstance(base, (Logistic, Uniform)):
        return _column("logistic" if isinstance(base, Logistic) else "uniform", shape, device).to(dtype)
    if isinstance(base, Independent):
        noise = torch.empty(shape, dtype=torch.float64, device=device)
        for name in dict.fromkeys(base.densities):
            places = [c for c, own in enumerate(base.densities) if own == name]
            noise[..., places] = _column(name, (*shape[:-1], len(places)), device)
        return noise.to(dtype)
    if isinstance(base, StudentT):
        return distributions.StudentT(wide(base.df), validate_args=False).sample(shape[:-1]).to(dtype)
    if isinstance(base, NormalMixture):
        which = distributions.Categorical(wide(base.weights)).sample(shape[:-1])
        normal = torch.randn(shape, dtype=torch.float64, device=device)
        return (wide(base.loc)[which] + wide(base.scale)[which] * normal).to(dtype)
    raise TypeError(f"base: expected one of headrace's own, got {base!r}")


def _column(name: str, shape: tuple[int, ...], device: Any) -> Tensor:
    """Draws of one of the standard densities of `Independent`, in float64."""
    if name == "normal":
        return torch.randn(shape, dtype=torch.float64, device=device)
    uniform = torch.rand(shape, dtype=torch.float64, device=device)
    # `uniform` is below 1 and may be 0, where `eps` keeps the logit finite.
    return torch.logit(uniform, eps=2.0**-54) if name == "logistic" else 2.0 * uniform - 1.0
