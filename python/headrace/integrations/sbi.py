"""Density estimators for sbi, trained by sbi or taken over from it.

    from headrace.integrations.sbi import posterior_nn

    trainer = NPE(prior=prior, density_estimator=posterior_nn("nsf"))

trains in sbi's own loop, embedding net included, and ``headrace.accelerate(posterior)`` takes over what is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from sbi.neural_nets.estimators.base import ConditionalDensityEstimator
from sbi.utils.sbiutils import standardizing_net
from torch import Tensor, nn

from headrace import _arguments as check
from headrace.convert import from_sbi
from headrace.flow import Flow
from headrace.flows import MAF, NSF, RealNVP
from headrace.torch import FlowModule
from headrace.transforms.fixed import Standardize

__all__ = ["FlowEstimator", "accelerate", "likelihood_nn", "posterior_nn"]

KINDS: dict[str, Callable[..., Flow]] = {"maf": MAF, "nsf": NSF, "realnvp": RealNVP}

Builder = Callable[[Tensor, Tensor], "FlowEstimator"]


class FlowEstimator(ConditionalDensityEstimator):
    """A conditional density estimator of sbi whose network is a `headrace.Flow`.

    Args:
        flow: Its context is what the embedding net gives.
        embedding_net: From conditions to contexts.
        input_shape: Of an input, (features,).
        condition_shape: Of a condition.
    """

    net: FlowModule

    def __init__(self, flow: Flow, embedding_net: nn.Module, input_shape: Any, condition_shape: Any) -> None:
        """See the class."""
        super().__init__(FlowModule(flow), torch.Size(input_shape), torch.Size(condition_shape))
        self._embedding_net = embedding_net

    @property
    def embedding_net(self) -> nn.Module:
        """From conditions to contexts."""
        return self._embedding_net

    def _context(self, condition: Tensor) -> Tensor | None:
        """What the embedding net gives for conditions, shape (..., columns); each is embedded once."""
        self._check_condition_shape(condition)
        if not self.net.context_features:
            return None
        lead = condition.shape[: condition.dim() - len(self.condition_shape)]
        embedded: Tensor = self._embedding_net(condition.reshape(-1, *self.condition_shape))
        return embedded.reshape(*lead, -1)

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
        """Log densities, shape (samples, batch).

        Args:
            input: Shape (samples, batch, features) or (batch, features).
            condition: Shape (batch, *condition_shape) or (samples, batch, *condition_shape); batches are broadcast.
            **kwargs: Are for other estimators.
        """
        wide, _, _ = self._broadcast_and_align(input, condition)
        return self.net.log_prob(wide, self._context(condition))

    def loss(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
        """Minus the log density, shape (batch,), which sbi minimises."""
        return -self.log_prob(input.unsqueeze(0), condition)[0]

    def sample_and_log_prob(self, sample_shape: torch.Size, condition: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Draws, shape (*sample_shape, batch, features), and their log densities, from one pass."""
        return self.net.rsample_and_log_prob(self._shape(sample_shape, condition), self._context(condition))

    def sample(self, sample_shape: torch.Size, condition: Tensor, **kwargs: Any) -> Tensor:
        """Draws, shape (*sample_shape, batch, features)."""
        with torch.no_grad():
            return self.sample_and_log_prob(sample_shape, condition)[0]

    def _shape(self, sample_shape: Any, condition: Tensor) -> tuple[int, ...]:
        """Leading dimensions that do not come with a context."""
        return tuple(sample_shape) if self.net.context_features else (*sample_shape, condition.shape[0])

    def inverse_transform(self, input: Tensor, condition: Tensor) -> Tensor:
        """Inputs to noise; leading dimensions of both are broadcast."""
        return self.net.to_latent(input, self._context(condition))[0]


def posterior_nn(
    model: str = "nsf", *, embedding_net: nn.Module | None = None, z_score: bool = True, **settings: Any
) -> Builder:
    """What `NPE(density_estimator=...)` of sbi takes: an estimator of parameters given data.

    Args:
        model: "nsf", "maf" or "realnvp".
        embedding_net: From data to contexts, trained with the flow.
        z_score: Whether to shift and scale parameters and data by means and standard deviations of the first rows.
        **settings: Of `headrace.NSF`, `headrace.MAF` or `headrace.RealNVP`: `hidden`, `transforms`, `seed`, ...
    """
    return _builder(model, embedding_net, z_score, settings, given=1)


def likelihood_nn(
    model: str = "maf", *, embedding_net: nn.Module | None = None, z_score: bool = True, **settings: Any
) -> Builder:
    """What `NLE(density_estimator=...)` of sbi takes: an estimator of data given parameters; see `posterior_nn`."""
    return _builder(model, embedding_net, z_score, settings, given=0)


def _builder(
    model: str, embedding_net: nn.Module | None, z_score: bool, settings: dict[str, Any], given: int
) -> Builder:
    make = KINDS[check.choice("model", model, tuple(KINDS))]

    def build(theta: Tensor, x: Tensor) -> FlowEstimator:
        condition, values = ((theta, x), (x, theta))[given]
        parts = [standardizing_net(condition)] if z_score else []
        if embedding_net is not None:
            parts.append(copy.deepcopy(embedding_net))
        elif condition.ndim > 2:
            parts.append(nn.Flatten())
        net = nn.Sequential(*parts)
        with torch.no_grad():
            columns = net.eval()(condition[:2]).shape[-1]
        net.train()
        flow = make(values.shape[1], context=columns, dtype=str(values.dtype).removeprefix("torch."), **settings)
        if z_score:
            wide = values.double()
            std = wide.std(dim=0)
            std = torch.where(std > 0, std, torch.ones_like(std))
            flow = Flow(
                [*flow.transforms[:-1], Standardize(wide.mean(dim=0).cpu().numpy(), std.cpu().numpy())], flow.base
            )
        estimator = FlowEstimator(flow, net, values.shape[1:], condition.shape[1:])
        estimator.to(values.device)
        return estimator

    return build


def accelerate(model: Any, *, verify: bool = True) -> Any:
    """A density estimator or a posterior of sbi that computes with headrace; see `headrace.accelerate`.

    Of a posterior all is copied but its estimators, which are converted. `DirectPosterior` has one; posteriors by MCMC,
    rejection, importance sampling or variational inference have one in their potential, and ensembles several.

    Args:
        model: The estimator, or the posterior.
        verify: See `headrace.convert.from_sbi`.

    Raises:
        TypeError: no estimator, or none inside.
        NotImplementedError, ValueError: see `headrace.convert.from_sbi`.
    """
    if isinstance(model, ConditionalDensityEstimator):
        return _estimator(model, verify)
    found = _estimators(model)
    if not found:
        raise TypeError(f"model: expected a density estimator or a posterior of sbi, got {check.kind_of(model)}")
    memo: dict[int, Any] = {id(one): _estimator(one, verify) for one in found}
    return copy.deepcopy(model, memo)


def _estimators(posterior: Any) -> list[ConditionalDensityEstimator]:
    inner = [*getattr(posterior, "posteriors", ()), getattr(posterior, "potential_fn", None)]
    names = ("posterior_estimator", "likelihood_estimator")
    own = [getattr(part, name, None) for part in (posterior, *inner) for name in names]
    own += [one for part in getattr(posterior, "posteriors", ()) for one in _estimators(part)]
    return list({id(one): one for one in own if isinstance(one, ConditionalDensityEstimator)}.values())


def _estimator(model: Any, verify: bool) -> FlowEstimator:
    flow = from_sbi(model, embedding="outside", verify=verify)
    net = copy.deepcopy(model.embedding_net) if model.embedding_net is not None else nn.Identity()
    made = FlowEstimator(flow, net, model.input_shape, model.condition_shape)
    device = next((p.device for p in model.parameters()), None)
    made.to(device).train(model.training)
    return made
