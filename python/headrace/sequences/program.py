"""What computes a chain over time: its links, its base density, and the vector of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._module import Block
from headrace.bases import Logistic, StandardNormal
from headrace.flow import Flow
from headrace.sequences.links import CausalLink, Cotangent, Link, LinkGradients, at_least_a_tile

__all__ = ["MOST_DRAWN_STEPS", "MOST_SAMPLES", "ChainGradients", "Cotangent", "SequenceProgram"]

ChainGradients = LinkGradients

Array = NDArray[Any]

# Noise is drawn for this many steps at a time. Sample i has its steps of block b in rows (b * 2^31 + i) * 64 + 0 ... 63
# of the generator: so that all samples' steps of one block are one call, and none depends on how many are drawn.
NOISE_STEPS, MOST_SAMPLES = 64, 2**31
MOST_DRAWN_STEPS = 2**32

_LINE = 64  # bytes


class SequenceProgram:
    """A chain with one vector of parameters: the base's, then each transform's, from latent to data.

    The vector is never changed but replaced: who computes keeps the one that was there when the call began.
    """

    def __init__(
        self, links: Sequence[Link], blocks: Sequence[Sequence[Block]], dtype: np.dtype[Any], base: Flow | None = None
    ) -> None:
        """`blocks` are the base's parameters and each link's; `base` is a flow without transforms."""
        self.links, self._base, self._dtype = tuple(links), base, dtype
        self.features = base.features if base is not None else 0
        self._blocks = [block for own in blocks for block in own]
        edges = np.cumsum([sum(block.size for block in own) for own in ((), *blocks)]).tolist()
        self._of_base, *self._own = (slice(*edge) for edge in pairwise(edges))
        self.n_weights: int = edges[-1]
        self._vector = self._aligned()

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> Array:
        """The parameters of now, which nobody writes to."""
        return self._vector

    def weights(self) -> Array:
        """A copy."""
        return self._vector.copy()

    def set_weights(self, values: Array) -> None:
        """Copy other ones in."""
        vector, start = self._aligned(), 0
        vector[:] = values
        for block in self._blocks:
            part = vector[start : start + block.size]
            part[:] = block.pack_named(block.named(part))  # what is no weight becomes zero
            start += block.size
        vector.flags.writeable = False
        self._vector = vector

    def _aligned(self) -> Array:
        """Memory for a vector in which the first network's weights begin at a cache line, where they are read fastest.

        Networks take whole lines, so that others begin at one too, if no other parameters are between.
        """
        first = next(own.start for link, own in zip(self.links, self._own, strict=True) if link.is_over_time)
        width = self._dtype.itemsize
        memory = np.zeros(self.n_weights + _LINE // width, self._dtype)
        begin = (-(memory.ctypes.data + first * width) % _LINE) // width
        return memory[begin : begin + self.n_weights]

    # ---- blocks of steps, (rows, steps, features) --------------------------------------------------------------------

    def states(self, rows: int) -> list[Any]:
        """The past of so many sequences that have not begun."""
        return [link.state(rows) for link in self.links]

    def run(
        self,
        vector: Array,
        inverse: bool,
        given: Array,
        context: Array | None,
        covariates: Array | None,
        states: Sequence[Any] | None,
    ) -> tuple[Array, Array]:
        """The other side of a block, and the log-derivative of each step; states go on by these steps."""
        value, log_det = given, np.zeros(given.shape[:2], self._dtype)
        order = range(len(self.links))
        for i in reversed(order) if inverse else order:
            state = None if states is None else states[i]
            value, own = self.links[i].run(vector[self._own[i]], inverse, value, context, covariates, state)
            log_det += own
        return value.astype(self._dtype, copy=False), log_det

    # ---- and back ----------------------------------------------------------------------------------------------------

    def check_parallel(self, inverse: bool, what: str) -> None:
        """Refuse derivatives of a direction that is made step after step."""
        for i, link in enumerate(self.links):
            if not link.runs_at_once(inverse):
                side, other = ("latent", "to_data_vjp") if inverse else ("data", "log_prob_vjp and to_latent_vjp")
                raise ValueError(
                    f"{what}: expected transforms whose steps are made at once in this direction, got transforms[{i}], "
                    f"which reads {side} values and makes them one after another; such a flow has {other}"
                )

    def vjp(
        self,
        vector: Array,
        inverse: bool,
        given: Array,
        context: Array | None,
        covariates: Array | None,
        cotangent: Cotangent,
        kinds: tuple[str, ...],
    ) -> tuple[Array, ChainGradients]:
        """Gradients of a block, and the log densities of its steps if the cotangent is by these, (rows, steps)."""
        order = list(range(len(self.links)))
        if inverse:
            order.reverse()
        values, log_prob = [given], np.zeros(given.shape[:2], self._dtype)
        sums = _Sums(np.zeros(self.n_weights) if "parameters" in kinds else None, kinds)
        by_log_prob, last = cotangent.log_prob, order[-1]
        fused = self._standard if by_log_prob is not None and isinstance(self.links[last], CausalLink) else None
        for i in order[:-1] if fused or by_log_prob is None else order:
            value, log_det = self.links[i].run(vector[self._own[i]], inverse, values[-1], context, covariates, None)
            values.append(value)
            log_prob += log_det
        by_value, by_log_det = cotangent.value, cotangent.log_det
        if by_log_prob is not None:
            by_log_det = by_log_prob
        if fused:
            link = self.links[last]
            assert isinstance(link, CausalLink)
            assert by_log_prob is not None
            z, log_det, found = link.log_prob_and_vjp(
                vector[self._own[last]], values[-1], context, covariates, by_log_prob, fused, kinds
            )
            log_prob += log_det
            by_value = sums.add(found, self._own[last])
            log_prob += self.log_base(vector, z)
            order.pop()
        elif by_log_prob is not None:
            log_base, by_value = self._base_vjp(vector, values.pop(), by_log_prob, sums)
            log_prob += log_base
        for i in reversed(order):
            own = Cotangent(value=by_value, log_det=by_log_det)
            value = values[order.index(i)]
            found = self.links[i].vjp(vector[self._own[i]], inverse, value, context, covariates, own, kinds)
            by_value = sums.add(found, self._own[i])
        return log_prob, sums.gradients(by_value)

    @property
    def _standard(self) -> str | None:
        """The base's name in the core, if it is one of those without parameters."""
        assert self._base is not None
        return {StandardNormal: "normal", Logistic: "logistic"}.get(type(self._base.base))

    def _base_vjp(self, vector: Array, z: Array, grad: Array, sums: _Sums) -> tuple[Array, Array]:
        """Log densities of latent steps, and the gradients by them."""
        assert self._base is not None
        own = self._base_parameters(vector)
        steps = at_least_a_tile(z.reshape(-1, z.shape[2]))
        n = z.shape[0] * z.shape[1]
        by_steps = np.zeros(len(steps), self._dtype)
        by_steps[:n] = grad.reshape(n)
        wrt = ("inputs",) if own is None or sums.parameters is None else ("inputs", "parameters")
        log_prob, found = self._base.log_prob_and_vjp(steps, by_steps, wrt=wrt, parameters=own)
        if len(found) > 1:
            assert sums.parameters is not None
            sums.parameters[self._of_base] += found[1]
        return log_prob[:n].reshape(z.shape[:2]), found[0][:n].reshape(z.shape)

    def parameters_of(self, vector: Array, link: int) -> Array:
        """Those of one link."""
        return vector[self._own[link]]

    def log_base(self, vector: Array, z: Array) -> Array:
        """The log density of each latent step under the base, (rows, steps)."""
        assert self._base is not None
        steps = z.reshape(-1, z.shape[2])
        log_prob = self._base.log_prob(at_least_a_tile(steps), parameters=self._base_parameters(vector))
        own: Array = log_prob[: len(steps)].reshape(z.shape[:2])
        return own

    def noise(self, vector: Array, seed: int, samples: range, begin: int, end: int) -> Array:
        """The latent steps from `begin` to `end` of these samples of a seed, (samples, steps, features)."""
        assert self._base is not None
        first, last = begin // NOISE_STEPS, -(-end // NOISE_STEPS)
        features = self._base.features
        drawn = np.empty((len(samples), (last - first) * NOISE_STEPS, features), self._dtype)
        for block in range(first, last):
            row = (block * MOST_SAMPLES + samples.start) * NOISE_STEPS
            own = self._base.sample(
                len(samples) * NOISE_STEPS, seed=seed, first_row=row, parameters=self._base_parameters(vector)
            )
            at = (block - first) * NOISE_STEPS
            drawn[:, at : at + NOISE_STEPS] = own.reshape(len(samples), NOISE_STEPS, features)
        return drawn[:, begin - first * NOISE_STEPS : end - first * NOISE_STEPS]

    def _base_parameters(self, vector: Array) -> Array | None:
        return vector[self._of_base] if self._of_base.stop else None


class _Sums:
    """Gradients that several links have a part in."""

    def __init__(self, parameters: Array | None, kinds: tuple[str, ...]) -> None:
        self.parameters = parameters
        self._context: Array | None = None
        self._covariates: Array | None = None
        self._inputs = "inputs" in kinds

    def add(self, found: LinkGradients, own: slice) -> Array | None:
        """Those of one link; what goes on to the next one."""
        if self.parameters is not None and found.parameters is not None:
            self.parameters[own] += found.parameters
        self._context = _sum(self._context, found.context)
        self._covariates = _sum(self._covariates, found.covariates)
        return found.inputs

    def gradients(self, inputs: Array | None) -> ChainGradients:
        """Of the chain."""
        return ChainGradients(inputs if self._inputs else None, self.parameters, self._context, self._covariates)


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b
