"""A causal convolution whose network gives the context of a flow over the values of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.sequences.links import Block, Cotangent, LinkGradients, NetworkLink, at_least_a_tile, with_zeros

if TYPE_CHECKING:
    from headrace.flow import Flow
    from headrace.sequences.settings import CausalSettings

__all__ = ["InnerLink"]


class InnerLink(NetworkLink):
    """Outputs of the network are the context of an inner flow, whose parameters come after the network's."""

    def __init__(self, settings: CausalSettings, structure: Any, dtype: np.dtype[Any], is_rounded: bool) -> None:
        """See `NetworkLink`. The inner flow's products are exact."""
        bare = settings.inner
        size = sum(block.size for _, block in bare._blocks())
        self._flow: Flow = bare._remade(np.zeros(size, dtype), dtype, None)  # each call gives its parameters
        super().__init__(settings, structure, dtype, is_rounded, inner=self._flow._program)

    def _split(self, parameters: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Those of the network, with pairs, and of the inner flow."""
        end = self._n + self.n_pairs
        return parameters[:end], parameters[end:]

    def run(
        self,
        parameters: NDArray[Any],
        inverse: bool,
        given: Block,
        context: NDArray[Any] | None,
        covariates: NDArray[Any] | None,
        state: Any,
    ) -> tuple[Block, Block]:
        """See `Link`."""
        network, inner = self._split(parameters)
        own = self._own(context, covariates)
        return self._sides(inverse, network, given, state, inner_weights=inner, **own)

    def vjp(
        self,
        parameters: NDArray[Any],
        inverse: bool,
        given: Block,
        context: NDArray[Any] | None,
        covariates: NDArray[Any] | None,
        cotangent: Cotangent,
        kinds: tuple[str, ...],
    ) -> LinkGradients:
        """See `Link`.

        The chain rule: gradients by the inner flow's context are those by the network's outputs, and what the network
        reads has a gradient through both.
        """
        network, inner = self._split(parameters)
        own = given.astype(self._dtype, copy=False)
        raw = self.raw(network, own, context, covariates, None)
        n = own.shape[0] * own.shape[1]
        steps, contexts = (at_least_a_tile(array.reshape(n, array.shape[2])) for array in (own, raw))
        value = None if cotangent.value is None else with_zeros(cotangent.value.reshape(n, -1), len(steps))
        log_det = None if cotangent.log_det is None else with_zeros(cotangent.log_det.reshape(n), len(steps))
        verb = self._flow.to_latent_vjp if inverse else self._flow.to_data_vjp
        by_parameters = "parameters" in kinds
        wrt = ("inputs", "context", "parameters") if by_parameters else ("inputs", "context")
        by_steps, by_contexts, *by_inner = verb(steps, value, log_det, contexts, wrt=wrt, parameters=inner)
        found = self._room(own, context, covariates, kinds)
        by_raw = np.ascontiguousarray(by_contexts[:n].reshape(raw.shape))
        self._back(network, own, context, covariates, found, grad_raw=by_raw)
        assert found.inputs is not None
        return replace(
            found,
            inputs=found.inputs + by_steps[:n].reshape(own.shape),
            parameters=np.concatenate([found.parameters, *by_inner]) if found.parameters is not None else None,
        )
