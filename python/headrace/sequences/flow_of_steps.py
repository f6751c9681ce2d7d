"""A causal convolution whose network gives the context of a flow over the values of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.sequences.links import (
    Block,
    Cotangent,
    LinkCall,
    LinkGradients,
    NetworkLink,
    at_least_a_tile,
    with_zeros,
)

if TYPE_CHECKING:
    from headrace._flow.flow import Flow
    from headrace.sequences.settings import CausalSettings


class InnerLink(NetworkLink):
    """Outputs of the network are the context of an inner flow, whose parameters come after the network's."""

    def __init__(self, settings: CausalSettings, structure: Any, dtype: np.dtype[Any], is_rounded: bool) -> None:
        """See `NetworkLink`. The inner flow's products are exact."""
        bare = settings.inner
        size = sum(block.size for _, block in bare._blocks())
        self._flow: Flow = bare._remade(np.zeros(size, dtype), dtype, None)  # each call gives its parameters
        super().__init__(settings, structure, dtype, is_rounded, inner=self._flow._program)

    def _split(self, call: LinkCall) -> tuple[LinkCall, NDArray[Any]]:
        """The call with the parameters of the network alone, with pairs, and those of the inner flow."""
        end = self._n + self.n_pairs
        return call._replace(parameters=call.parameters[:end]), call.parameters[end:]

    def run(self, call: LinkCall, state: Any) -> tuple[Block, Block]:
        """See `Link`."""
        network, inner = self._split(call)
        return self._sides(network, state, inner_weights=inner)

    def vjp(
        self, call: LinkCall, cotangent: Cotangent, kinds: tuple[str, ...], result: Block | None = None
    ) -> LinkGradients:
        """See `Link`.

        The chain rule: gradients by the inner flow's context are those by the network's outputs, and what the network
        reads has a gradient through both. In the sequential direction the network reads the values of the result, so
        their gradients come first, from the last step to the first: a linear recursion, which needs the derivatives of
        each step's values by the outputs.
        """
        network, inner = self._split(call)
        own = call.given.astype(self._dtype, copy=False)
        read = own
        is_sequential = not self.runs_at_once(call.inverse)
        if is_sequential:
            found = self.run(call, None)[0] if result is None else result
            read = found.astype(self._dtype, copy=False)
        raw = self.raw(network._replace(given=read), None)
        steps = _Steps(self._flow, call.inverse, own, raw, inner)
        gradients = self._room(call, kinds)
        wrt = ("inputs", "parameters") if "parameters" in kinds else ("inputs",)
        if is_sequential:
            slopes, starts = steps.slopes(), steps.vjp(None, cotangent.log_det, ("context",))[0]
            more = {"grad_value": cotangent.value, "grad_raw": starts, "slopes": slopes, "is_sequential": True}
            self._back(network, read, gradients, **more)
            by_steps, *by_inner = steps.vjp(gradients.inputs, cotangent.log_det, wrt)
        else:
            by_steps, by_raw, *by_inner = steps.vjp(cotangent.value, cotangent.log_det, (wrt[0], "context", *wrt[1:]))
            self._back(network, own, gradients, grad_raw=by_raw)
            assert gradients.inputs is not None
            by_steps = gradients.inputs + by_steps
        return replace(
            gradients,
            inputs=by_steps,
            parameters=None if gradients.parameters is None else np.concatenate([gradients.parameters, *by_inner]),
        )


class _Steps:
    """The inner flow on the steps of a block: as rows, of which there are never fewer than a tile."""

    def __init__(
        self, flow: Flow, inverse: bool, given: Block, contexts: NDArray[Any], parameters: NDArray[Any]
    ) -> None:
        """The arguments of the inner flow, (rows, steps, values) and (rows, steps, columns)."""
        self._verb = flow.to_latent_vjp if inverse else flow.to_data_vjp
        self._batch, self._parameters = given.shape[:2], parameters
        self._n = self._batch[0] * self._batch[1]
        self._given, self._contexts = (
            at_least_a_tile(array.reshape(self._n, array.shape[2])) for array in (given, contexts)
        )

    def vjp(self, value: Block | None, log_det: Block | None, wrt: tuple[str, ...]) -> list[NDArray[Any]]:
        """Gradients in the order of wrt: of steps, (rows, steps, columns), and by parameters."""
        n, all_rows = self._n, len(self._given)
        value = None if value is None else with_zeros(value.reshape(n, -1), all_rows)
        log_det = None if log_det is None else with_zeros(log_det.reshape(n), all_rows)
        found = self._verb(self._given, value, log_det, self._contexts, wrt=wrt, parameters=self._parameters)
        return [
            own if kind == "parameters" else np.ascontiguousarray(own[:n].reshape(*self._batch, -1))
            for kind, own in zip(wrt, found, strict=True)
        ]

    def slopes(self) -> NDArray[Any]:
        """Derivatives of each value by the context, (rows, steps, values * columns)."""
        features, columns = self._given.shape[1], self._contexts.shape[1]
        slopes = np.empty((*self._batch, features, columns), self._given.dtype)
        for i in range(features):
            value = np.zeros((*self._batch, features), self._given.dtype)
            value[..., i] = 1.0
            (slopes[:, :, i],) = self.vjp(value, None, ("context",))
        return slopes.reshape(*self._batch, features * columns)
