"""Density estimators of headrace for sbi, trained by sbi or converted from sbi's own estimators.

    from headrace.integrations.sbi import posterior_nn

    trainer = NPE(prior=prior, density_estimator=posterior_nn("nsf"))

The estimator and its embedding net are trained in sbi's own loop. ``headrace.accelerate(posterior)`` converts a trained
model. ``headrace.accelerate(builder)`` makes a builder of sbi train sbi's architecture on headrace's core.
`FlowEstimator` turns a flow that `headrace.Flow.fit` trained into an estimator for sbi's posteriors. `run_sbc` computes
simulation-based calibration over thousands of observations in batches.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from sbi.neural_nets.estimators.base import ConditionalDensityEstimator
from sbi.utils.sbiutils import standardizing_net, within_support
from torch import Tensor, nn

from headrace import MAF, NSF, Flow, RealNVP
from headrace._base import arguments as check
from headrace._flow.transforms.fixed import Standardize
from headrace.convert import from_sbi
from headrace.convert._torch import keeping_dropout
from headrace.torch import FlowModule
from headrace.torch.faces import Replacing, same_mode

__all__ = ["FlowEstimator", "accelerate", "likelihood_nn", "posterior_nn", "run_sbc"]

KINDS: dict[str, Callable[..., Flow]] = {"maf": MAF, "nsf": NSF, "realnvp": RealNVP}

Builder = Callable[[Tensor, Tensor], "FlowEstimator"]


class FlowEstimator(Replacing, ConditionalDensityEstimator):
    """A conditional density estimator of sbi with a `headrace.Flow` as its network.

    ``DirectPosterior(FlowEstimator(flow), prior)`` is the posterior of a flow that was fitted to parameters with the
    data as context.

    Args:
        flow: A flow whose context is the output of the embedding net.
        embedding_net: A module from conditions to contexts; None if conditions are contexts.
        input_shape: The shape of an input; None for (features,).
        condition_shape: The shape of a condition; None for (context,).

    Raises:
        TypeError: `flow` is not a flow of headrace.
    """

    net: FlowModule

    def __init__(
        self, flow: Flow, embedding_net: nn.Module | None = None, input_shape: Any = None, condition_shape: Any = None
    ) -> None:
        module = FlowModule(flow)
        given = (flow.features,) if input_shape is None else input_shape
        condition = (flow.context,) if condition_shape is None else condition_shape
        super().__init__(module, torch.Size(given), torch.Size(condition))
        self._embedding_net = nn.Identity() if embedding_net is None else embedding_net

    @property
    def embedding_net(self) -> nn.Module:
        """The module from conditions to contexts."""
        return self._embedding_net

    def _context(self, condition: Tensor) -> Tensor | None:
        """The outputs of the embedding net for conditions, shape (..., columns); each condition is embedded once."""
        self._check_condition_shape(condition)
        if not self.net.context_features:
            return None
        lead = condition.shape[: condition.dim() - len(self.condition_shape)]
        embedded: Tensor = self._embedding_net(condition.reshape(-1, *self.condition_shape))
        return embedded.reshape(*lead, -1)

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
        """Log densities of inputs, shape (samples, batch).

        Args:
            input: Shape (samples, batch, features) or (batch, features).
            condition: Shape (batch, *condition_shape) or (samples, batch, *condition_shape); batches are broadcast.
            **kwargs: Ignored; other estimators of sbi have more arguments.
        """
        wide, _, _ = self._broadcast_and_align(input, condition)
        return self.net.log_prob(wide, self._context(condition))

    def loss(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
        """The negative log density of each input, shape (batch,), which sbi minimises."""
        return -self.log_prob(input.unsqueeze(0), condition)[0]

    def sample_and_log_prob(self, sample_shape: torch.Size, condition: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Draws, shape (*sample_shape, batch, features), and their log densities, from one run."""
        return self.net.rsample_and_log_prob(self._shape(sample_shape, condition), self._context(condition))

    def sample(self, sample_shape: torch.Size, condition: Tensor, **kwargs: Any) -> Tensor:
        """Draws without gradients, shape (*sample_shape, batch, features)."""
        with torch.no_grad():
            return self.sample_and_log_prob(sample_shape, condition)[0]

    def _shape(self, sample_shape: Any, condition: Tensor) -> tuple[int, ...]:
        """The leading dimensions that draws have and the context does not have."""
        return tuple(sample_shape) if self.net.context_features else (*sample_shape, condition.shape[0])

    def inverse_transform(self, input: Tensor, condition: Tensor) -> Tensor:
        """The noise of inputs; leading dimensions of inputs and conditions are broadcast."""
        return self.net.to_latent(input, self._context(condition))[0]


def posterior_nn(
    model: str = "nsf", *, embedding_net: nn.Module | None = None, z_score: bool = True, **settings: Any
) -> Builder:
    """A builder for sbi's `NPE(density_estimator=...)`: estimators of the density of parameters given data.

    Args:
        model: "nsf", "maf" or "realnvp".
        embedding_net: A module from data to contexts, trained with the flow.
        z_score: Whether to shift and scale parameters and data by the means and standard deviations of the first rows.
        **settings: Keywords of `headrace.NSF`, `headrace.MAF` or `headrace.RealNVP`: `hidden`, `transforms`, `seed`,
            ...
    """
    return _builder(model, embedding_net, z_score, settings, given=1)


def likelihood_nn(
    model: str = "maf", *, embedding_net: nn.Module | None = None, z_score: bool = True, **settings: Any
) -> Builder:
    """A builder for sbi's `NLE(density_estimator=...)`: estimators of data given parameters; see `posterior_nn`."""
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
            standardize = Standardize(wide.mean(dim=0).cpu().numpy(), std.cpu().numpy())
            flow = Flow([*flow.transforms[:-1], standardize], flow.base)
        estimator = FlowEstimator(flow, net, values.shape[1:], condition.shape[1:])
        estimator.to(values.device)
        return estimator

    return build


def accelerate(model: Any, *, verify: bool = True, dropout: str = "refuse") -> Any:
    """A model of sbi converted to headrace's core; see `headrace.accelerate`.

    A posterior is copied except for its estimators, which are converted. `DirectPosterior` has one estimator;
    posteriors by MCMC, rejection, importance sampling or variational inference have one estimator in their potential,
    and ensembles have several estimators.

    For a builder, such as the result of `sbi.neural_nets.posterior_nn`, the result is a builder, whose estimators have
    the architecture and the fresh weights of sbi's estimators, and are trained on headrace's core.

    Args:
        model: An estimator, a posterior, or a builder: a function of parameters and data that returns an estimator.
        verify: See `headrace.convert.from_sbi`.
        dropout: See `headrace.accelerate`.

    Raises:
        TypeError: the model is not an estimator, and contains no estimator.
        NotImplementedError, ValueError: see `headrace.convert.from_sbi`; a builder returns a model in training mode.
    """
    if isinstance(model, ConditionalDensityEstimator):
        return _estimator(model, verify, dropout)
    found = estimators_of(model)
    if not found and callable(model) and not isinstance(model, (nn.Module, type)):

        def build(batch_theta: Tensor, batch_x: Tensor, **settings: Any) -> FlowEstimator:
            made = model(batch_theta, batch_x, **settings)
            if not isinstance(made, ConditionalDensityEstimator):
                raise TypeError(
                    'model: expected a builder of a density estimator, such as sbi\'s posterior_nn("nsf"), got one of '
                    f"{check.kind_of(made)}"
                )
            return _estimator(made.train(), verify, dropout)  # layers that differ in training mode are refused

        return build
    if not found:
        raise TypeError(
            f"model: expected a density estimator, a posterior or a builder of sbi, got {check.kind_of(model)}"
        )
    memo: dict[int, Any] = {id(one): _estimator(one, verify, dropout) for one in found}
    return copy.deepcopy(model, memo)


def estimators_of(posterior: Any) -> list[ConditionalDensityEstimator]:
    """The density estimators inside of a posterior, each once."""
    inner = [*getattr(posterior, "posteriors", ()), getattr(posterior, "potential_fn", None)]
    names = ("posterior_estimator", "likelihood_estimator")
    own = [getattr(part, name, None) for part in (posterior, *inner) for name in names]
    own += [one for part in getattr(posterior, "posteriors", ()) for one in estimators_of(part)]
    return list({id(one): one for one in own if isinstance(one, ConditionalDensityEstimator)}.values())


def estimator_in(model: Any) -> FlowEstimator:
    """The estimator of a posterior, or the given estimator, on headrace's core."""
    found = [model] if isinstance(model, ConditionalDensityEstimator) else estimators_of(model)
    if len(found) != 1:
        raise TypeError(f"flow: expected one density estimator, got {len(found)} in {check.kind_of(model)}")
    return found[0] if isinstance(found[0], FlowEstimator) else _estimator(found[0], True)


def _estimator(model: Any, verify: bool, dropout: str = "refuse") -> FlowEstimator:
    convert: Any = functools.partial(from_sbi, embedding="outside")
    if dropout == "keep":
        convert = functools.partial(keeping_dropout, convert)
    flow = convert(model, verify=verify)
    made = FlowEstimator(flow, copy.deepcopy(model.embedding_net), model.input_shape, model.condition_shape)
    made._original = (copy.deepcopy(model), convert)
    made.net._keeps_dropout = dropout == "keep"
    return same_mode(made, model)


# ---- calibration -----------------------------------------------------------------------------------------------------

MOST_TRIES = 10_000  # the most draws for a draw inside of the prior: if all lie outside, an error is raised


def run_sbc(
    thetas: Tensor,
    xs: Tensor,
    posterior: Any,
    num_posterior_samples: int = 1000,
    reduce_fns: str = "marginals",
    *,
    rows: int = 200_000,
) -> tuple[Tensor, Tensor]:
    """Simulation-based calibration, or expected coverage, of many observations, as in `sbi.diagnostics.run_sbc`.

    One call draws for many observations, and each draw outside of the prior is repeated for its own
    observation, so that an observation with many such draws does not delay the others. Ranks need no normalised
    density. sbi's `check_sbc`, `sbc_rank_plot` and similar functions take the results.

    Args:
        thetas: Shape (observations, parameters), drawn from the prior.
        xs: Shape (observations, *condition_shape), simulated with `thetas`. Observations with a NaN or an infinity are
            left out.
        posterior: A `DirectPosterior`, which is converted by `accelerate` if necessary.
        num_posterior_samples: The number of draws for each observation.
        reduce_fns: "marginals" for the ranks of each parameter (Talts and others 2018), or "log_prob" for the ranks of
            the density, which is expected coverage (Hermans and others 2022).
        rows: The most draws of one call, which are in memory together.

    Returns:
        ``(ranks, dap_samples)``: the numbers of draws below the true values, of parameters or of the density, shape
        (observations, parameters) or (observations, 1), and one draw for each observation, shape (observations,
        parameters).

    Raises:
        TypeError: `posterior` is no `DirectPosterior`.
        ValueError: shapes or names do not fit.
        RuntimeError: for an observation, nearly all draws lie outside of the prior.
    """
    check.choice("reduce_fns", reduce_fns, ("marginals", "log_prob"))
    draws = check.integer("num_posterior_samples", num_posterior_samples, least=1)
    if not hasattr(posterior, "posterior_estimator"):
        raise TypeError(f"posterior: expected a DirectPosterior of sbi, got {check.kind_of(posterior)}")
    if len(thetas) != len(xs):
        raise ValueError(f"xs: expected {len(thetas)} observations, as thetas has, got {len(xs)}")
    if not isinstance(posterior.posterior_estimator, FlowEstimator):
        posterior = accelerate(posterior)
    estimator, prior = posterior.posterior_estimator, posterior.prior
    usable = xs.isfinite().reshape(len(xs), -1).all(dim=1)
    thetas, xs = thetas[usable], xs[usable]
    ranks, first = [], []
    with torch.no_grad():
        for at in torch.arange(len(xs)).split(max(1, check.integer("rows", rows, least=1) // draws)):
            theta, x = thetas[at], xs[at]
            drawn = _inside(estimator, prior, draws, x, at)
            if reduce_fns == "log_prob":
                values, own = estimator.log_prob(drawn, x), estimator.log_prob(theta[None], x)
                ranks.append((values < own).sum(dim=0)[:, None])
            else:
                ranks.append((drawn < theta).sum(dim=0))
            first.append(drawn[0])
    return torch.cat(ranks).to(torch.get_default_dtype()), torch.cat(first)


def _inside(estimator: Any, prior: Any, draws: int, x: Tensor, numbers: Tensor) -> Tensor:
    """Draws inside of the prior, shape (draws, observations, parameters)."""
    found: Tensor = estimator.sample((draws,), condition=x)
    if prior is None:
        return found
    n = found.shape[-1]
    outside = ~within_support(prior, found.reshape(-1, n)).reshape(draws, len(x))
    tries = 1
    while outside.any():
        where = outside.nonzero()
        if tries >= MOST_TRIES:
            got = f"none of {tries} for observation {int(numbers[where[0, 1]])}: its density lies outside"
            raise RuntimeError(f"posterior: expected draws inside of the prior, got {got}")
        more = min(max(1, outside.numel() // len(where)), 1000)
        fresh = estimator.sample((more,), condition=x[where[:, 1]])
        fits = within_support(prior, fresh.reshape(-1, n)).reshape(more, len(where))
        done = fits.any(dim=0)
        chosen = fresh[fits.int().argmax(dim=0), torch.arange(len(where))]  # the first draw inside the prior, if any
        found[where[done, 0], where[done, 1]] = chosen[done]
        outside[where[done, 0], where[done, 1]] = False
        tries += more
    return found
