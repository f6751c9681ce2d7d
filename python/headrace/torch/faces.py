"""Flows with the methods of other libraries' models, so that code written for these runs unchanged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headrace import _array_errors as errors
from headrace.bases import StandardNormal
from headrace.flow import Flow
from headrace.torch.distribution import BoundTransform, FlowDistribution
from headrace.torch.module import FlowModule

__all__ = ["GlasflowFace", "NflowsFace", "NormflowsFace", "ZukoFace"]


class _ZukoDistribution(FlowDistribution):
    """With the parts that zuko's `NormalizingFlow` has."""

    @property
    def transform(self) -> Any:
        """The transform from data to latent, zuko's direction."""
        return BoundTransform(self._module, self._context).inv

    @property
    def base(self) -> Any:
        """The density of latent rows, which depends on no context."""
        flow = self._module._entry.flow
        if isinstance(flow._base, StandardNormal):
            loc = torch.zeros(flow.features).to(self._module.vector)
            scale = torch.ones_like(loc)
        else:
            own = self._module.flow.base
            loc, scale = (torch.as_tensor(a).to(self._module.vector) for a in (own.loc, own.scale))
        normal = torch.distributions.Normal(loc, scale)
        return torch.distributions.Independent(normal, 1).expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """The distribution for more leading dimensions."""
        wider = super().expand(batch_shape)
        return _ZukoDistribution(wider._module, wider._context, wider.batch_shape)


class ZukoFace(FlowModule):
    """A flow that is called as `zuko.flows.Flow` is: ``flow(context)`` gives a distribution with a `transform`."""

    def forward(self, c: Tensor | None = None) -> _ZukoDistribution:
        """The distribution of rows given the context."""
        return _ZukoDistribution(self, c)


class _Face(nn.Module):
    """A flow as a part of a module with other methods."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = FlowModule(flow)


class NflowsFace(_Face):
    """The methods of `nflows.flows.Flow`; the embedding net is the model's."""

    def __init__(self, flow: Flow, embedding_net: nn.Module) -> None:
        """See the class."""
        super().__init__(flow)
        self._embedding_net = embedding_net

    def _embedded(self, context: Any) -> Tensor | None:
        if context is None or not self.flow.context_features:
            return None
        embedded: Tensor = self._embedding_net(torch.as_tensor(context))
        return embedded

    def log_prob(self, inputs: Any, context: Any = None) -> Tensor:
        """Log density of each row, shape (rows,)."""
        return self.flow.log_prob(torch.as_tensor(inputs), self._embedded(context))

    def sample_and_log_prob(self, num_samples: int, context: Any = None) -> tuple[Tensor, Tensor]:
        """Draws, shape (num_samples, features), or (contexts, num_samples, features), and their log densities."""
        embedded = self._embedded(context)
        x, log_prob = self.flow.rsample_and_log_prob((num_samples,), embedded)
        if context is None:
            return x, log_prob
        if embedded is None:
            raise errors.takes_no_context()
        return x.transpose(0, 1), log_prob.transpose(0, 1)

    def sample(self, num_samples: int, context: Any = None, batch_size: int | None = None) -> Tensor:
        """Only the draws; there is no need for batches."""
        return self.sample_and_log_prob(num_samples, context)[0]

    def transform_to_noise(self, inputs: Any, context: Any = None) -> Tensor:
        """Data to latent."""
        return self.flow.to_latent(torch.as_tensor(inputs), self._embedded(context))[0]


class GlasflowFace(_Face):
    """The methods of `glasflow.flows.Flow`: a conditional has a row for each draw."""

    def forward(self, x: Tensor, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent: ``(z, log_det)``."""
        return self.flow.to_latent(x, conditional)

    def inverse(self, z: Tensor, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data: ``(x, log_det)``."""
        return self.flow.to_data(z, conditional)

    def log_prob(self, inputs: Tensor, conditional: Tensor | None = None) -> Tensor:
        """Log density of each row."""
        return self.flow.log_prob(inputs, conditional)

    def base_distribution_log_prob(self, z: Tensor) -> Tensor:
        """Log density of latent rows."""
        log_prob: Tensor = ZukoFace.forward(self.flow).base.log_prob(z)
        return log_prob

    def forward_and_log_prob(self, x: Tensor, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent, and the log density of the data."""
        z, log_det = self.flow.to_latent(x, conditional)
        return z, self.base_distribution_log_prob(z) + log_det

    def sample_and_log_prob(self, N: int, conditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws and their log densities."""
        return self.flow.rsample_and_log_prob((N,) if conditional is None else (), conditional)

    def sample(self, num_samples: int, conditional: Tensor | None = None) -> Tensor:
        """Draws."""
        return self.sample_and_log_prob(num_samples, conditional)[0]


class NormflowsFace(_Face):
    """The methods of `normflows.NormalizingFlow` and its conditional one: a context has a row for each draw."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latent to data."""
        return self.flow.to_data(z, context)[0]

    def forward_and_log_det(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data: ``(x, log_det)``."""
        return self.flow.to_data(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Data to latent."""
        return self.flow.to_latent(x, context)[0]

    def inverse_and_log_det(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent: ``(z, log_det)``."""
        return self.flow.to_latent(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of each row."""
        return self.flow.log_prob(x, context)

    def forward_kld(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Minus the mean log density, which training minimises."""
        return -self.flow.log_prob(x, context).mean()

    def sample(self, num_samples: int = 1, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws and their log densities."""
        return self.flow.rsample_and_log_prob((num_samples,) if context is None else (), context)
