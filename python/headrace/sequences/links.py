"""Links of a chain over time: each takes blocks of steps, (rows, steps, features), in either direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import library
from headrace._core import LEAST_ROWS, cpu

if TYPE_CHECKING:
    from headrace._flow.transforms.transform import Transform
    from headrace.sequences.settings import CausalSettings

Block = NDArray[Any]


class LinkCall(NamedTuple):
    """The arguments of a link: its parameters, the direction, and the blocks of steps that it reads."""

    parameters: NDArray[Any]
    inverse: bool  # from data to latent
    given: Block
    context: NDArray[Any] | None = None
    covariates: NDArray[Any] | None = None


@dataclass(frozen=True)
class Cotangent:
    """Cotangents of the results of a link, or of a chain; None for zero."""

    value: Block | None = None  # (rows, steps, features)
    log_det: Block | None = None  # (rows, steps)
    log_prob: Block | None = None  # (rows, steps): by log densities of steps, in place of the other two


@dataclass(frozen=True)
class LinkGradients:
    """Gradients by the arguments of a link; None for those not requested."""

    inputs: Block | None = None
    parameters: NDArray[Any] | None = None
    context: NDArray[Any] | None = None
    covariates: NDArray[Any] | None = None


class Link(Protocol):
    """One transform of the chain; each call passes its parameters."""

    has_network: bool  # whose weights are read fastest from the beginning of a cache line
    n_pairs: int  # words of pairs of weights in bf16, which a call reads behind the rounded weights of a network

    def round(self, parameters: NDArray[Any], to: NDArray[Any]) -> None:
        """Write parameters as calls read them, `n_pairs` more."""

    def state(self, rows: int) -> Any:
        """A fresh state for this many sequences; None for a link without one."""

    def run(self, call: LinkCall, state: Any) -> tuple[Block, Block]:
        """The other side, and the log-derivative of each step, (rows, steps)."""

    def runs_at_once(self, inverse: bool) -> bool:
        """Whether this direction makes all steps at once."""

    def vjp(
        self, call: LinkCall, cotangent: Cotangent, kinds: tuple[str, ...], result: Block | None = None
    ) -> LinkGradients:
        """Gradients from cotangents of values and log-derivatives; those by inputs are always present.

        `result`: the other side of the given block, if it is known.
        """


class NetworkLink:
    """A causal convolution, which the core computes, whatever the outputs of its network are."""

    has_network = True

    def __init__(
        self, settings: CausalSettings, structure: Any, dtype: np.dtype[Any], is_rounded: bool, **options: Any
    ) -> None:
        """`structure`: the network in the core; `is_rounded`: to bf16; `options`: what its outputs are for."""
        self._structure = structure
        self._n = int(structure.n_weights)
        self.n_pairs = int(structure.n_pairs) if is_rounded else 0
        self._reads_data = settings.reads == "data"
        self._outputs = settings.outputs
        self._context, self._covariates = bool(settings.context), bool(settings.covariates)
        self._dtype = dtype
        kind = cpu.CausalTransformF32 if dtype == np.float32 else cpu.CausalTransformF64
        self._core = kind(structure, self._reads_data, **options)

    def round(self, parameters: NDArray[Any], to: NDArray[Any]) -> None:
        """See `Link`."""
        end = self._n + self.n_pairs
        if self.n_pairs:
            self._structure.round(parameters[: self._n], to[:end])
        else:
            to[:end] = parameters[: self._n]
        to[end:] = parameters[self._n :]

    def state(self, rows: int) -> Any:
        """See `Link`."""
        return self._core.streams(rows)

    def runs_at_once(self, inverse: bool) -> bool:
        """See `Link`."""
        return inverse == self._reads_data

    def _own(self, call: LinkCall) -> dict[str, Any]:
        """The columns of the chain's inputs that this network reads."""
        return {
            "context": call.context if self._context else None,
            "covariates": call.covariates if self._covariates else None,
        }

    def _sides(self, call: LinkCall, state: Any, **more: Any) -> tuple[Block, Block]:
        """Both results of a run in either direction."""
        own = call.given.astype(self._dtype, copy=False)
        value, log_det = np.empty(own.shape, self._dtype), np.empty(own.shape[:2], self._dtype)
        verb = self._core.parallel if self.runs_at_once(call.inverse) else self._core.sequential
        verb(call.parameters, own, value, log_det, state=state, **self._own(call), **more)
        return value, log_det

    def _room(self, call: LinkCall, kinds: tuple[str, ...]) -> LinkGradients:
        """Memory for the gradients that are wanted."""

        def room(kind: str, has: bool, shape: Any) -> Any:
            return np.empty(shape, self._dtype) if has and kind in kinds else None

        context, covariates = (None if one is None else one.shape for one in (call.context, call.covariates))

        return LinkGradients(
            np.empty(call.given.shape, self._dtype),
            room("parameters", True, self._n),
            room("context", self._context, context),
            room("covariates", self._covariates, covariates),
        )

    def _back(self, call: LinkCall, read: Block, to: LinkGradients, **more: Any) -> None:
        """Gradients from the values of the side that the network sees."""
        self._core.vjp(
            call.parameters,
            read,
            grad_given=to.inputs,
            grad_weights=to.parameters,
            grad_context=to.context,
            grad_covariates=to.covariates,
            **self._own(call),
            **more,
        )

    def raw(self, call: LinkCall, state: Any) -> NDArray[Any]:
        """Outputs of the network, (rows, steps, outputs); the given block has values of the side that it sees."""
        own = call.given.astype(self._dtype, copy=False)
        raw = np.empty((*own.shape[:2], self._outputs), self._dtype)
        self._core.outputs(call.parameters, own, raw, state=state, **self._own(call))
        return raw


class CausalLink(NetworkLink):
    """Outputs of the network are parameters of a map of each value."""

    def __init__(self, settings: CausalSettings, structure: Any, dtype: np.dtype[Any], is_rounded: bool) -> None:
        """See `NetworkLink`."""
        super().__init__(settings, structure, dtype, is_rounded, **settings.map_options())

    def run(self, call: LinkCall, state: Any) -> tuple[Block, Block]:
        """See `Link`."""
        return self._sides(call, state)

    def vjp(
        self, call: LinkCall, cotangent: Cotangent, kinds: tuple[str, ...], result: Block | None = None
    ) -> LinkGradients:
        """See `Link`."""
        gradients = self._room(call, kinds)
        is_sequential = not self.runs_at_once(call.inverse)
        read = call.given
        if is_sequential:
            read = self.run(call, None)[0] if result is None else result
        self._back(
            *(call, read.astype(self._dtype, copy=False), gradients),
            grad_value=cotangent.value,
            grad_log_det=cotangent.log_det,
            is_sequential=is_sequential,
        )
        return gradients

    def log_prob_and_vjp(
        self, call: LinkCall, grad_log_prob: Block, base: str, kinds: tuple[str, ...]
    ) -> tuple[Block, Block, LinkGradients]:
        """Latent steps under a standard base, log-derivatives, and gradients from those by their log densities."""
        gradients = self._room(call, kinds)
        own = call.given.astype(self._dtype, copy=False)
        value, log_det = np.empty(own.shape, self._dtype), np.empty(own.shape[:2], self._dtype)
        self._back(
            *(call, own, gradients),
            grad_log_prob=grad_log_prob,
            base=base,
            value=value,
            log_det=log_det,
        )
        return value, log_det, gradients


class StepLink:
    """A transform of rows, applied to each step by itself."""

    has_network = False
    n_pairs = 0

    def __init__(self, transform: Transform) -> None:
        """None, because a row-wise link takes no context."""
        self._transform = transform

    def round(self, parameters: NDArray[Any], to: NDArray[Any]) -> None:
        """See `Link`."""
        to[:] = parameters

    def state(self, rows: int) -> None:
        """See `Link`."""

    def run(self, call: LinkCall, state: Any) -> tuple[Block, Block]:
        """See `Link`."""
        verb = self._transform.inverse if call.inverse else self._transform.forward
        given, parameters = call.given, call.parameters
        steps = given.reshape(-1, given.shape[2])
        value, log_det = verb(at_least_a_tile(steps), parameters=parameters if len(parameters) else None)
        return value[: len(steps)].reshape(given.shape), log_det[: len(steps)].reshape(given.shape[:2])

    def runs_at_once(self, inverse: bool) -> bool:
        """See `Link`."""
        return True

    def vjp(
        self, call: LinkCall, cotangent: Cotangent, kinds: tuple[str, ...], result: Block | None = None
    ) -> LinkGradients:
        """See `Link`."""
        verb = self._transform.inverse_vjp if call.inverse else self._transform.forward_vjp
        given, parameters = call.given, call.parameters
        steps = at_least_a_tile(given.reshape(-1, given.shape[2]))
        n = given.shape[0] * given.shape[1]
        value = None if cotangent.value is None else with_zeros(cotangent.value.reshape(n, -1), len(steps))
        log_det = None if cotangent.log_det is None else with_zeros(cotangent.log_det.reshape(n), len(steps))
        wrt = ("inputs", "parameters") if len(parameters) and "parameters" in kinds else ("inputs",)
        found = verb(steps, value, log_det, wrt=wrt, parameters=parameters if len(parameters) else None)
        return LinkGradients(found[0][:n].reshape(given.shape), found[1] if len(found) > 1 else None)


def with_zeros(rows: NDArray[Any], n: int) -> NDArray[Any]:
    """The rows, and zeros behind them up to n."""
    if len(rows) == n:
        return rows
    return np.concatenate([rows, np.zeros((n - len(rows), *rows.shape[1:]), rows.dtype)])


def at_least_a_tile(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, followed by copies of the first one if they are few, so that bits do not depend on their number."""
    if not 0 < len(rows) < LEAST_ROWS:
        return rows
    tile: NDArray[Any] = library(rows).empty((LEAST_ROWS, rows.shape[1]), rows.dtype)
    tile[:] = rows[0]
    tile[: len(rows)] = rows
    return tile
