"""The program of a chain over time: its links, its base density, and the vector of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from headrace._base.types import Array
from headrace._flow.bases import Logistic, StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.program.module import Block
from headrace.sequences.links import CausalLink, Cotangent, Link, LinkCall, LinkGradients, at_least_a_tile

ChainGradients = LinkGradients


# Noise is drawn for blocks of this many steps. Sample i has its steps of block b in rows (b * 2^31 + i) * 64 + 0 ... 63
# of the generator: so that all samples' steps of one block are one call, and none depends on the number of samples.
NOISE_STEPS, MOST_SAMPLES = 64, 2**31
MOST_DRAWN_STEPS = 2**32

_LINE = 64  # bytes


class SequenceProgram:
    """A chain with one vector of parameters: the base's, then each transform's, from latent to data.

    The vector is never changed but replaced: a call keeps the vector from its start. Calls read the vector of
    `read_by_calls`, which is another one if weights are rounded to bf16: behind a network's rounded weights it has
    their pairs.
    """

    _library: Any = np  # which makes arrays

    def __init__(
        self,
        links: Sequence[Link],
        blocks: Sequence[Sequence[Block]],
        dtype: np.dtype[Any],
        base: Flow | None = None,
        scale: tuple[Array, Array] | None = None,
    ) -> None:
        """`blocks` are the base's parameters and each link's; `base` is a flow without transforms.

        `scale`: mean and standard deviation of the context's columns, which links read standardised.
        """
        self.links, self._base, self._dtype, self.scale = tuple(links), base, dtype, scale
        self.features = base.features if base is not None else 0
        self._blocks = [block for own in blocks for block in own]
        sizes = [sum(block.size for block in own) for own in blocks]
        self._of_base, *self._own = _slices(sizes)
        _, *self._read = _slices([sizes[0], *(n + link.n_pairs for n, link in zip(sizes[1:], links, strict=True))])
        self.n_weights: int = self._own[-1].stop
        self._vector = self._aligned(self._own)
        self._read_vector = self.read_by_calls(self._vector)

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> Array:
        """The current parameters as calls read them, a read-only vector."""
        return self._read_vector

    def read_by_calls(self, parameters: Array) -> Array:
        """These parameters, a vector of `n_weights`, as calls read them: with networks' weights rounded."""
        if self._read == self._own:
            return parameters
        vector = self._aligned(self._read)
        vector[self._of_base] = parameters[self._of_base]
        for link, own, read in zip(self.links, self._own, self._read, strict=True):
            link.round(np.ascontiguousarray(parameters[own]), vector[read])
        vector.flags.writeable = False
        return vector

    def weights(self) -> Array:
        """A copy of the current parameters."""
        return self._vector.copy()

    def set_weights(self, values: Array) -> None:
        """Replace the parameters by a copy of these."""
        vector, start = self._aligned(self._own), 0
        vector[:] = values
        for block in self._blocks:
            part = vector[start : start + block.size]
            part[:] = block.pack_named(block.named(part))  # entries that are no weights become zero
            start += block.size
        vector.flags.writeable = False
        self._vector, self._read_vector = vector, self.read_by_calls(vector)

    def _aligned(self, slices: Sequence[slice]) -> Array:
        """Memory for a vector in which the first network's weights begin at a cache line, where they are read fastest.

        Networks take whole lines, so that others begin at one too, if no other parameters are between.
        """
        first = next((own.start for link, own in zip(self.links, slices, strict=True) if link.has_network), 0)
        width, size = self._dtype.itemsize, slices[-1].stop
        memory = np.zeros(size + _LINE // width, self._dtype)
        begin = (-(memory.ctypes.data + first * width) % _LINE) // width
        return memory[begin : begin + size]

    # ---- blocks of steps, (rows, steps, features) --------------------------------------------------------------------

    def states(self, rows: int) -> list[Any]:
        """States for this many sequences before their first step."""
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
        """The other side of a block, and the log-derivative of each step; states advance by these steps."""
        value, log_det = given, self._library.zeros(given.shape[:2], self._dtype)
        order, context = range(len(self.links)), self.standardised(context)
        for i in reversed(order) if inverse else order:
            state = None if states is None else states[i]
            call = LinkCall(vector[self._read[i]], inverse, value, context, covariates)
            value, own = self.links[i].run(call, state)
            log_det += own
        return value.astype(self._dtype, copy=False), log_det

    # ---- derivatives -------------------------------------------------------------------------------------------------

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
        """Gradients of a block, and the log densities of its steps if the cotangent is of these, (rows, steps)."""
        order, context = list(range(len(self.links))), self.standardised(context)
        if inverse:
            order.reverse()
        values, log_prob = [given], np.zeros(given.shape[:2], self._dtype)

        def call(i: int, value: Array) -> LinkCall:
            return LinkCall(vector[self._read[i]], inverse, value, context, covariates)

        sums = _Sums(np.zeros(self.n_weights) if "parameters" in kinds else None, kinds)
        by_log_prob, last = cotangent.log_prob, order[-1]
        at_once = isinstance(self.links[last], CausalLink) and self.links[last].runs_at_once(inverse)
        fused = self._standard if by_log_prob is not None and at_once else None
        for i in order[:-1] if fused or by_log_prob is None else order:
            value, log_det = self.links[i].run(call(i, values[-1]), None)
            values.append(value)
            log_prob += log_det
        by_value, by_log_det = cotangent.value, cotangent.log_det
        if by_log_prob is not None:
            by_log_det = by_log_prob
        if fused:
            link = self.links[last]
            assert isinstance(link, CausalLink)
            assert by_log_prob is not None
            z, log_det, found = link.log_prob_and_vjp(call(last, values[-1]), by_log_prob, fused, kinds)
            log_prob += log_det
            by_value = sums.add(found, self._own[last])
            log_prob += self.log_base(vector, z)
            order.pop()
        elif by_log_prob is not None:
            log_base, by_value = self._base_vjp(vector, values[-1], by_log_prob, sums)
            log_prob += log_base
        for i in reversed(order):
            own = Cotangent(value=by_value, log_det=by_log_det)
            value, *more = values[order.index(i) :]
            result = more[0] if more else None
            found = self.links[i].vjp(call(i, value), own, kinds, result)
            by_value = sums.add(found, self._own[i])
        return log_prob, self._of_given_context(sums.gradients(by_value))

    def _of_given_context(self, found: ChainGradients) -> ChainGradients:
        """Convert gradients by the standardised context to gradients by the given one."""
        if self.scale is None or found.context is None:
            return found
        return replace(found, context=(found.context / self.scale[1]).astype(self._dtype))

    @property
    def _standard(self) -> str | None:
        """The base's name in the core, if it has no parameters there."""
        assert self._base is not None
        return {StandardNormal: "normal", Logistic: "logistic"}.get(type(self._base.base))

    def _base_vjp(self, vector: Array, z: Array, grad: Array, sums: _Sums) -> tuple[Array, Array]:
        """Log densities of latent steps, and the gradients by the steps."""
        assert self._base is not None
        own = self._base_parameters(vector)
        steps = at_least_a_tile(z.reshape(-1, z.shape[2]))
        n = z.shape[0] * z.shape[1]
        by_steps = np.zeros(len(steps), self._dtype)
        by_steps[:n] = grad.reshape(n)
        wrt = ("inputs",) if own is None or sums.parameters is None else ("inputs", "parameters")
        log_prob, found = self._base.log_prob_vjp(steps, by_steps, wrt=wrt, parameters=own, values=True)
        if len(found) > 1:
            assert sums.parameters is not None
            sums.parameters[self._of_base] += found[1]
        return log_prob[:n].reshape(z.shape[:2]), found[0][:n].reshape(z.shape)

    def standardised(self, context: Array | None) -> Array | None:
        """The context that links read, in the dtype of the flow."""
        if context is None or self.scale is None:
            return context
        mean, std = self.scale
        own: Array = ((context.astype(np.float64) - mean) / std).astype(self._dtype)
        return own

    def parameters_of(self, vector: Array, link: int) -> Array:
        """The parameters of one link as calls read them."""
        return vector[self._read[link]]

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
        drawn: Array = self._library.empty((len(samples), (last - first) * NOISE_STEPS, features), self._dtype)
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


def _slices(sizes: Sequence[int]) -> list[slice]:
    """Adjacent slices of these sizes."""
    return [slice(*edge) for edge in pairwise(np.cumsum([0, *sizes]).tolist())]


class _Sums:
    """Sums of gradients over several links."""

    def __init__(self, parameters: Array | None, kinds: tuple[str, ...]) -> None:
        self.parameters = parameters
        self._context: Array | None = None
        self._covariates: Array | None = None
        self._inputs = "inputs" in kinds

    def add(self, found: LinkGradients, own: slice) -> Array | None:
        """Add the gradients of one link; returns the cotangent of the next one."""
        if self.parameters is not None and found.parameters is not None:
            self.parameters[own] += found.parameters
        self._context = _sum(self._context, found.context)
        self._covariates = _sum(self._covariates, found.covariates)
        return found.inputs

    def gradients(self, inputs: Array | None) -> ChainGradients:
        """The gradients of the chain."""
        return ChainGradients(inputs if self._inputs else None, self.parameters, self._context, self._covariates)


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b
