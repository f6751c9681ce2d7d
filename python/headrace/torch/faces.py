"""Flows with the methods of other libraries' models, so that code for those libraries runs unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headrace import Flow, StandardNormal
from headrace._base import array_errors as errors
from headrace.torch.distribution import BoundTransform, FlowDistribution
from headrace.torch.module import FlowModule

Convert = Callable[[Any], Flow]  # a function from a model of the other library to a flow


class _ZukoDistribution(FlowDistribution):
    """A distribution with the attributes `transform` and `base` of zuko's `NormalizingFlow`."""

    @property
    def transform(self) -> Any:
        """The transform from data to latent, zuko's direction."""
        return BoundTransform(self._module, self._context).inv

    @property
    def base(self) -> Any:
        """The base distribution of latent rows, which depends on no context."""
        flow = self._module._entry.flow
        if isinstance(flow._base, StandardNormal):
            loc = torch.zeros(flow.features).to(self._module._like())
            scale = torch.ones_like(loc)
        else:
            own = self._module.flow.base
            loc, scale = (torch.as_tensor(a).to(self._module._like()) for a in (own.loc, own.scale))
        normal = torch.distributions.Normal(loc, scale)
        return torch.distributions.Independent(normal, 1).expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """The distribution expanded to more leading dimensions."""
        wider = super().expand(batch_shape)
        return _ZukoDistribution(wider._module, wider._context, wider.batch_shape)


def _without_a_state(kind: Any) -> Any:
    return kind.__new__(kind)


class Replacing:
    """A replacement of a model, which also loads states of the original model."""

    _original: tuple[Any, Convert] | None = None  # a tuple, so that the model is no submodule

    def _module(self) -> FlowModule:
        """The `FlowModule` of the replacement: itself or one of its parts."""
        return self if isinstance(self, FlowModule) else getattr(self, "flow", None) or self.net  # type: ignore[attr-defined]

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The model's class, so that `isinstance` accepts the replacement; `type` returns its actual class."""
        return type(self) if self._original is None else type(self._original[0])

    def __reduce__(self) -> Any:
        """The state for pickles and copies, which otherwise refuse an object whose `__class__` is not its type."""
        own = getattr(self, "__getstate__", None)  # every object has this attribute from Python 3.11 on
        return _without_a_state, (type(self),), self.__dict__.copy() if own is None else own()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state of this module or a state of the model that it replaces.

        Raises:
            RuntimeError: the state has the keys of neither module; PyTorch's message has the keys.
        """
        if self._original is not None:
            model, convert = self._original
            named = model.state_dict()
            if named.keys() == state_dict.keys() and named.keys() != self.state_dict().keys():  # type: ignore[attr-defined]
                return self._load_original(copy.deepcopy(model), convert, state_dict)
        return super().load_state_dict(state_dict, strict, assign)  # type: ignore[misc]

    def _load_original(self, model: nn.Module, convert: Convert, state_dict: Mapping[str, Any]) -> Any:
        result = model.load_state_dict(state_dict)
        like = self._module()._like()
        self._module().flow = convert(model).astype(str(like.dtype).removeprefix("torch."))
        for theirs, ours in zip(outside(model), outside(self), strict=True):
            ours.load_state_dict(theirs.state_dict())
        return result


def outside(model: Any) -> list[nn.Module]:
    """A list of the model's embedding net, which is not part of the flow; [] for a model without such a net."""
    net = getattr(model, "embedding_net", None) or getattr(model, "_embedding_net", None)
    return [net] if isinstance(net, nn.Module) else []


def flow_and_context(model: Any, context: Any) -> tuple[Flow, Any]:
    """The flow of a module, a replacement or an estimator of sbi, and its context after the embedding net."""
    module = model if isinstance(model, FlowModule) else model._module()
    nets = outside(model)
    if context is not None and nets:
        rows = torch.as_tensor(context)
        rows = rows.to(module._like().device, module._like().dtype)
        shape = getattr(model, "condition_shape", rows.shape[-1:])
        with torch.no_grad():
            embedded = nets[0](rows.reshape(-1, *shape)).reshape(-1, module.context_features).cpu()
        context = embedded if isinstance(context, Tensor) else embedded.numpy()
    return module.flow, context


def same_mode(face: Any, model: Any) -> Any:
    """The replacement on the model's device, and in training mode if the model is in training mode."""
    device = next((p.device for p in model.parameters()), None)
    return face.to(device).train(model.training)


class ZukoFace(Replacing, FlowModule):
    """A flow with the calls of `zuko.flows.Flow`: ``flow(context)`` is a distribution with a `transform`."""

    def forward(self, c: Tensor | None = None) -> _ZukoDistribution:
        """The distribution of rows conditional on the context."""
        return _ZukoDistribution(self, c)

    def transform(self, c: Tensor | None = None) -> Any:
        """The transform from data to latent for the context; the attribute is called, as in zuko."""
        return self(c).transform

    def base(self, c: Tensor | None = None) -> Any:
        """The base distribution of latent rows."""
        return self(c).base


class _Face(Replacing, nn.Module):
    """A module that contains a flow, with the methods of another library."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = FlowModule(flow)


class _Base:
    """The base distribution of latent rows, with the methods of nflows and normflows."""

    def __init__(self, module: FlowModule) -> None:
        self._module = module

    def _density(self) -> Any:
        return ZukoFace.forward(self._module).base

    def log_prob(self, z: Tensor, context: Any = None) -> Tensor:
        """The log density of latent rows, which depends on no context."""
        return self._density().log_prob(z)

    def sample(self, num_samples: int = 1, context: Any = None) -> Tensor:
        """Latent rows drawn from the base, shape (num_samples, features)."""
        return self._density().rsample((num_samples,))

    def __call__(self, num_samples: int = 1, context: Any = None) -> tuple[Tensor, Tensor]:
        """Latent rows drawn from the base, and their log densities."""
        z = self.sample(num_samples)
        return z, self.log_prob(z)

    forward = __call__


class _Transforms:
    """All transforms of a flow as a single transform, in the direction of nflows or of normflows."""

    def __init__(self, forward: Any, inverse: Any) -> None:
        self.forward, self.inverse = forward, inverse

    def __call__(self, value: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The transformed rows and their log-determinants, in the direction of `forward`."""
        return self.forward(value, context)


class NflowsFace(_Face):
    """A flow with the methods of `nflows.flows.Flow` and the model's embedding net."""

    def __init__(self, flow: Flow, embedding_net: nn.Module) -> None:
        super().__init__(flow)
        self._embedding_net = embedding_net

    @property
    def _transform(self) -> _Transforms:
        """All transforms as one, from data to latent; its context is an output of the embedding net."""
        return _Transforms(self.flow.to_latent, self.flow.to_data)

    @property
    def _distribution(self) -> _Base:
        """The base distribution of latent rows."""
        return _Base(self.flow)

    def _embedded(self, context: Any) -> Tensor | None:
        if context is None or not self.flow.context_features:
            return None
        return self._embedding_net(torch.as_tensor(context))

    def log_prob(self, inputs: Any, context: Any = None) -> Tensor:
        """Log density of each row, shape (rows,)."""
        return self.flow.log_prob(torch.as_tensor(inputs), self._embedded(context))

    def sample_and_log_prob(self, num_samples: int, context: Any = None) -> tuple[Tensor, Tensor]:
        """Draws of shape (num_samples, features) or (contexts, num_samples, features), and their log densities."""
        embedded = self._embedded(context)
        x, log_prob = self.flow.rsample_and_log_prob((num_samples,), embedded)
        if context is None:
            return x, log_prob
        if embedded is None:
            raise errors.takes_no_context()
        return x.transpose(0, 1), log_prob.transpose(0, 1)

    def sample(self, num_samples: int, context: Any = None, batch_size: int | None = None) -> Tensor:
        """The draws of `sample_and_log_prob`; `batch_size` has no effect, because batches are not needed."""
        return self.sample_and_log_prob(num_samples, context)[0]

    def transform_to_noise(self, inputs: Any, context: Any = None) -> Tensor:
        """The latent rows of data."""
        return self.flow.to_latent(torch.as_tensor(inputs), self._embedded(context))[0]


class GlasflowFace(_Face):
    """A flow with the methods of `glasflow.flows.Flow`; the argument `conditional` has a row for each draw."""

    def forward(self, x: Tensor, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform data to latent: ``(z, log_det)``."""
        return self.flow.to_latent(x, conditional)

    def inverse(self, z: Tensor, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform latent to data: ``(x, log_det)``."""
        return self.flow.to_data(z, conditional)

    def log_prob(self, inputs: Tensor, conditional: Tensor | None = None) -> Tensor:
        """The log density of each row, shape (rows,)."""
        return self.flow.log_prob(inputs, conditional)

    def base_distribution_log_prob(self, z: Tensor) -> Tensor:
        """The log density of latent rows, shape (rows,)."""
        return _Base(self.flow).log_prob(z)

    def forward_and_log_prob(self, x: Tensor, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform data to latent: the latent rows, and the log density of the data."""
        z, log_det = self.flow.to_latent(x, conditional)
        return z, self.base_distribution_log_prob(z) + log_det

    def sample_and_log_prob(self, N: int, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`N` draws, or one draw for each row of `conditional`, and the log densities of the draws."""
        return self.flow.rsample_and_log_prob((N,) if conditional is None else (), conditional)

    def sample(self, num_samples: int, conditional: Tensor | None = None) -> Tensor:
        """The draws of `sample_and_log_prob`."""
        return self.sample_and_log_prob(num_samples, conditional)[0]


def _by_context(name: str) -> Any:
    """A method of `GlasflowFace` whose argument `conditional` is named `context`, as in nessai."""

    def call(self: Any, value: Any, context: Tensor | None = None) -> Any:
        return getattr(GlasflowFace, name)(self, value, context)

    call.__doc__ = getattr(GlasflowFace, name).__doc__
    return call


class NessaiFace(GlasflowFace):
    """A flow with the methods of nessai's `NFlow`."""

    device: Any = None
    forward, inverse, log_prob = map(_by_context, ("forward", "inverse", "log_prob"))
    forward_and_log_prob, sample_and_log_prob = map(_by_context, ("forward_and_log_prob", "sample_and_log_prob"))
    sample = _by_context("sample")

    def to(self, device: Any = None, *others: Any, **named: Any) -> Any:
        """Move the flow, and store the device in an attribute, as nessai does."""
        if not others and not named and isinstance(device, (str, torch.device)):
            self.device = device
        return super().to(device, *others, **named)

    def base_distribution_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The log density of latent rows; the context is ignored."""
        return super().base_distribution_log_prob(z)

    def sample_latent_distribution(self, n: int, context: Tensor | None = None) -> Tensor:
        """Latent rows drawn from the base; the context is ignored."""
        return _Base(self.flow).sample(n)

    def freeze_transform(self) -> None:
        """Exclude the parameters from training."""
        self.flow.requires_grad_(False)

    def unfreeze_transform(self) -> None:
        """Include the parameters in training again."""
        self.flow.requires_grad_(True)

    def finalise(self) -> None:
        """Do nothing: the base has no constant to estimate."""

    end_iteration = finalise


class NormflowsFace(_Face):
    """The methods of `normflows.NormalizingFlow`, or of normflows' conditional flow if a context is passed.

    Args:
        flow: The converted flow.
        target: The model's target `p`, with a method `log_prob`, for losses on samples of the flow.
    """

    def __init__(self, flow: Flow, target: Any = None) -> None:
        super().__init__(flow)
        self.p = target

    @property
    def q0(self) -> _Base:
        """The base distribution of latent rows."""
        return _Base(self.flow)

    @property
    def flows(self) -> list[_Transforms]:
        """A list of one transform, which consists of all transforms of the model."""
        return [_Transforms(self.flow.to_data, self.flow.to_latent)]

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Transform latent to data, without log-determinants."""
        return self.flow.to_data(z, context)[0]

    def forward_and_log_det(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform latent to data: ``(x, log_det)``."""
        return self.flow.to_data(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Transform data to latent, without log-determinants."""
        return self.flow.to_latent(x, context)[0]

    def inverse_and_log_det(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform data to latent: ``(z, log_det)``."""
        return self.flow.to_latent(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log density of each row, shape (rows,)."""
        return self.flow.log_prob(x, context)

    def forward_kld(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The negative mean log density of the rows, which training minimises."""
        return -self.flow.log_prob(x, context).mean()

    def sample(self, num_samples: int = 1, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`num_samples` draws, or one draw for each row of the context, and the log densities of the draws."""
        return self.flow.rsample_and_log_prob((num_samples,) if context is None else (), context)

    def reverse_kld(self, num_samples: int = 1, beta: float = 1.0, score_fn: bool = True) -> Tensor:
        """An estimate of KL(flow ‖ target) from draws of the flow, as in normflows.

        Args:
            num_samples: The number of draws.
            beta: The factor of the target's log densities.
            score_fn: Whether gradients of log densities by the parameters alone, at fixed draws, are included (arXiv
                1703.09194).
        """
        return self._reverse_kld(num_samples, None, beta, score_fn)

    def _reverse_kld(self, num_samples: int, context: Tensor | None, beta: float, score_fn: bool) -> Tensor:
        x, log_q, log_p = self._drawn(num_samples, context)
        if not score_fn:
            log_q = self._log_prob_of_constant_parameters(x, context)
        return log_q.mean() - beta * log_p.mean()

    def reverse_alpha_div(self, num_samples: int = 1, alpha: float = 1, dreg: bool = False) -> Tensor:
        """An estimate of the alpha divergence from draws of the flow, as in normflows.

        Args:
            num_samples: The number of draws.
            alpha: The order of the divergence.
            dreg: Whether gradients are doubly reparametrised (arXiv 1810.04152).
        """
        x, log_q, log_p = self._drawn(num_samples, None)
        if not dreg:
            sign = float(alpha > 1) - float(alpha < 1)
            return sign * torch.logsumexp(alpha * (log_p - log_q), 0)
        fixed = (log_p - log_q).detach()
        share = torch.softmax(alpha * fixed, 0) * num_samples
        weights = (1 - alpha) * share + alpha * share**2
        return -alpha * (weights * (log_p - self._log_prob_of_constant_parameters(x, None))).mean()

    def _drawn(self, num_samples: int, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Draws of the flow, their log densities, and the log densities of the target."""
        if self.p is None:
            raise AttributeError("p: expected a model with a target, got none; set model.p to one with log_prob")
        x, log_q = self.sample(num_samples) if context is None else self.sample(num_samples, context)
        return x, log_q, self.p.log_prob(x) if context is None else self.p.log_prob(x, context=context)

    def _log_prob_of_constant_parameters(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Log densities with gradients by the rows only."""
        return self.flow._log_prob(x, context, self.flow._own().detach())

    def save(self, path: Any) -> None:
        """Save the module's state in a file."""
        torch.save(self.state_dict(), path)

    def load(self, path: Any) -> None:
        """Load the module's state from a file."""
        self.load_state_dict(torch.load(path))


class ConditionalNormflowsFace(NormflowsFace):
    """A flow with the methods of `normflows.ConditionalNormalizingFlow`."""

    def reverse_kld(  # type: ignore[override]
        self, num_samples: int = 1, context: Tensor | None = None, beta: float = 1.0, score_fn: bool = True
    ) -> Tensor:
        """An estimate like `NormflowsFace.reverse_kld`, with a row of the context for each draw."""
        return self._reverse_kld(num_samples, context, beta, score_fn)
