"""The probabilities of discrete columns: a masked network that outputs logits, log-softmax, and the fit of
the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._fit.clock import Clock
from headrace._fit.given_rows import Data
from headrace._fit.history import History, whole
from headrace._fit.moments import scale_of_context
from headrace._fit.plan import Plan, constant_decay
from headrace._fit.run import ArrayRun, HeldOut, RunArguments
from headrace._fit.source import ArrayRows
from headrace._flow.fit_arguments import Arguments
from headrace._flow.flow import Flow
from headrace._flow.transforms.masked import logits_network
from headrace._tables.discrete import Discrete

STREAM = 0x636C6173736573  # with the seed of a call, the seed of the values that choose classes
HIDDEN = (128, 128)  # hidden units of the network
RATE, AVERAGE, CLIP, PATIENCE, EPOCHS = 3e-3, 0.99, 5.0, 8, 200  # settings of the head's fit
HELD_OUT, LEAST_HELD_OUT, BATCHES, BATCH = 0.1, 50, 64, 128


class Head:
    """The probabilities of discrete columns, by log-softmax of a masked network's outputs, and their gradients.

    The network is in a flow of one additive transform, z = x + logits(x of earlier columns, context), so that files,
    dtypes and gradients (`to_latent_vjp`) are those of flows.
    """

    def __init__(self, columns: Sequence[Discrete], network: Flow, rows: int) -> None:
        """`rows`: the number of rows of the fit, which determines the probability of values that the fit
        had not seen.
        """
        self.columns, self.network, self.rows = tuple(columns), network, rows
        ends = np.cumsum([0, *(column.width for column in self.columns)]).tolist()
        self.parts = [slice(a, b) for a, b in pairwise(ends)]

    @classmethod
    def fresh(cls, columns: Sequence[Discrete], rows: int, context: Any, seed: int, dtype: Any) -> Head:
        """A head with fresh weights; `context`: context rows, whose moments standardise the context, or None."""
        levels = [i for i, column in enumerate(columns, start=1) for _ in range(column.width)]
        width, scale = (0, None) if context is None else (context.shape[1], scale_of_context(context))
        network = logits_network(levels, HIDDEN, context=width, seed=seed, dtype=dtype)
        return cls(columns, Flow([network], standardize_context=scale), rows)

    def opened(self, x: NDArray[Any]) -> tuple[NDArray[np.intp], Floats]:
        """Convert rows to class indices, shape (rows, discrete columns), and inputs of the network."""
        codes = np.stack([column.codes(x[:, column.column]) for column in self.columns], axis=1)
        parts = [column.inputs(codes[:, i], x[:, column.column]) for i, column in enumerate(self.columns)]
        return codes, np.concatenate(parts, axis=1)

    @property
    def given(self) -> list[int]:
        """Indices of the inputs that are context of the flow: for a count only that of its value, because its
        indicators overfit.
        """
        pairs = zip(self.columns, self.parts, strict=True)
        return [i for column, part in pairs for i in range(part.stop - 1 if column.is_count else part.start, part.stop)]

    def log_probs(self, inputs: Floats, context: Any, parameters: Any = None) -> list[Floats]:
        """Log probabilities of the classes of each column, given the inputs of earlier columns."""
        logits = self.network.to_latent(inputs, context, parameters=parameters)[0] - inputs
        return [column.log_probs(logits[:, part]) for column, part in zip(self.columns, self.parts, strict=True)]

    def of_rows(self, x: NDArray[Any], codes: NDArray[np.intp], inputs: Floats, context: Any) -> Floats:
        """The log probability of the discrete values of each row, including values that the fit had not seen."""
        total = np.zeros(len(x))
        for i, (column, each) in enumerate(zip(self.columns, self.log_probs(inputs, context), strict=True)):
            known = codes[:, i] >= 0
            picked = np.where(known, each[np.arange(len(x)), codes[:, i]], -np.inf)
            if column.step:  # the estimator of Krichevsky and Trofimov for unseen values
                new = 0.5 / (self.rows + 0.5)
                picked = np.where(known, picked + np.log1p(-new), np.log(new) + column.beyond(x[:, column.column]))
            total += picked
        return total

    def tails(self, codes: NDArray[np.intp], inputs: Floats, context: Any, uniforms: Floats) -> tuple[Floats, Floats]:
        """The probabilities below and above a random point within the class of each value, shape (rows, columns).

        A value that no training row had counts as larger than all others.
        """
        lower, upper = np.empty(codes.shape), np.empty(codes.shape)
        for i, (column, each) in enumerate(zip(self.columns, self.log_probs(inputs, context), strict=True)):
            new = 0.5 / (self.rows + 0.5) if column.step else 0.0
            shares = np.concatenate([(1.0 - new) * np.exp(each), np.full((len(codes), 1), new)], axis=1)
            at = np.where(codes[:, i] < 0, column.classes, codes[:, i])[:, None]
            within = np.take_along_axis(shares, at, 1)[:, 0] * uniforms[:, i]
            lower[:, i] = np.take_along_axis(shares.cumsum(axis=1) - shares, at, 1)[:, 0] + within
            upper[:, i] = np.take_along_axis(shares[:, ::-1].cumsum(axis=1)[:, ::-1], at, 1)[:, 0] - within
        return lower, upper

    def log_prob_and_slopes(self, inputs: Floats, context: Any, parameters: Any = None) -> tuple[Floats, NDArray[Any]]:
        """The log probability of the known classes of each row, and the gradient with respect to the logits."""
        total, slopes = np.zeros(len(inputs)), np.zeros_like(inputs)
        each = self.log_probs(inputs, context, parameters)
        for column, part, log_probs in zip(self.columns, self.parts, each, strict=True):
            at = slice(part.start, part.start + column.logits)
            classes = inputs[:, at]
            if column.classes == 2:
                classes = np.concatenate([1.0 - classes, classes], axis=1)
            total += (classes * log_probs).sum(axis=1)
            slopes[:, at] = (classes - np.exp(log_probs))[:, -column.logits :]
        return total, slopes

    def log_prob(self, inputs: Floats, context: Any = None, *, parameters: Any = None) -> Floats:
        """The log probability of each row's known classes."""
        return self.log_prob_and_slopes(inputs, context, parameters)[0]

    def gradient(self, inputs: Floats, slopes: NDArray[Any], context: Any = None) -> NDArray[Any]:
        """The gradient with respect to the parameters, from the gradient with respect to the logits."""
        cotangents = slopes.astype(self.network.dtype)
        (gradient,) = self.network.to_latent_vjp(inputs, cotangents, None, context, wrt="parameters")
        return np.asarray(gradient)

    def _start(self, inputs: Floats) -> None:
        """Set the biases so that a fresh head gives each class its share of the rows."""
        name = list(self.network.named_parameters())[-1]
        bias = np.zeros(self.parts[-1].stop)
        for column, part in zip(self.columns, self.parts, strict=True):
            at = slice(part.start, part.start + column.logits)
            counts = inputs[:, at].sum(axis=0) + 0.5
            bias[at] = np.log(counts) - (np.log(len(inputs) + 1.0 - counts) if column.classes == 2 else 0.0)
        self.network.set_parameter(name, bias.astype(self.network.dtype))

    def fit(
        self, inputs: Floats, context: Any, weights: Any, seed: int, clock: Clock, *, progress: bool = False
    ) -> History:
        """Train the head until the held-out loss no longer falls."""
        self._start(inputs)
        n, network, rng = len(inputs), self.network, np.random.default_rng([seed, STREAM])
        rows, caller = ArrayRows(Data(inputs.astype(network.dtype), context, weights)), network._interior.caller()
        share = min(max(int(HELD_OUT * n), LEAST_HELD_OUT), n // 3) / n
        train, judge = rows.split(share, rng, caller)
        size = min(max(train.size // BATCHES, 32), BATCH)
        how: dict[str, Any] = {"average": AVERAGE, "clip": CLIP, "patience": PATIENCE, "epochs": EPOCHS}
        how |= {"learning_rate": RATE, "weight_decay": constant_decay(n), "batch_size": size, "schedule": "constant"}
        held_out = None if judge is None else HeldOut(judge, density=self)
        plan, history = Plan.of(network, train.size, Arguments(**how), judged=judge is not None), History()
        arguments = RunArguments(held_out, plan, rng, caller, history, clock, what="fit classes")
        _Run(self, train, arguments).go(progress)
        return whole(history)

    def drawn(self, uniforms: Floats, context: Any) -> tuple[Floats, Floats]:
        """Sample the columns from uniform values by inverse CDFs; return values (NaN for the class of other values) and
        inputs.
        """
        inputs = np.zeros((len(uniforms), self.parts[-1].stop))
        values = np.empty((len(uniforms), len(self.columns)))
        for i, (column, part) in enumerate(zip(self.columns, self.parts, strict=True)):
            below = np.cumsum(np.exp(self.log_probs(inputs, context)[i]), axis=1)
            codes = np.minimum((uniforms[:, i : i + 1] >= below).sum(axis=1), column.classes - 1)
            values[:, i] = np.array([*column.values, *[np.nan] * column.rest])[codes]
            inputs[:, part] = column.inputs(codes, values[:, i])
        return values, inputs


class _Run(ArrayRun):
    """A running fit of a head, whose network is the flow of the run."""

    def __init__(self, head: Head, source: ArrayRows, arguments: RunArguments) -> None:
        self.head = head
        super().__init__(head.network, source, arguments)

    def _find_gradient(self, index: Any, log_prob: NDArray[Any]) -> None:
        """See `ArrayRun`; the gradient is that of the log probabilities of classes."""
        data = self.data.rows(index)
        log_prob[:], slopes = self.head.log_prob_and_slopes(data.x, data.context)
        slopes *= (-data.shares() / (self.mean_weight * index.size))[:, None]
        self.gradient[:] = self.head.gradient(data.x, slopes, data.context)
