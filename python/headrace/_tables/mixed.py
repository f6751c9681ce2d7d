"""A density of discrete and continuous columns: a masked network of logits, then a flow given the discrete values.

The density of a row is the product of a probability for each discrete column, given those before it and the context,
and of the density of its other numbers given all of these. A column with frequent or missing values has both: one class
for each such value, and one class for all other numbers, which have a density (Uria, Murray, Larochelle 2013 for the
order of columns; Papamakarios, Sterratt, Murray 2019 and sbi's MNLE for a categorical part before a flow).

A number that does not exist is a gate: it has one fixed value where the splines of all transforms are the identity, so
that it is not moved, reads as a constant, and adds to the log density a constant that is taken off again. For each
pattern of gates this is an exact flow of the remaining columns, and one fit serves all patterns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import files
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._base.stored import Stored, header_of, storable
from headrace._base.types import Floats
from headrace._base.warn import warn
from headrace._fit import marginals
from headrace._fit.ensemble import Ensemble
from headrace._fit.history import History
from headrace._fit.optimizer import Adam
from headrace._fit.plan import constant_decay
from headrace._flow.bases import StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import _Masked, logits_network

STREAM = 0x636C6173736573  # beside a seed: the uniform values that choose classes
HIDDEN, RATE, AVERAGE, CLIP = (128, 128), 3e-3, 0.99, 5.0  # of the network and of Adam
HELD_OUT, LEAST_HELD_OUT, PATIENCE, EPOCHS, BATCHES, BATCH = 0.1, 50, 8, 200, 64, 128  # of its fit
BEYOND = 1.0  # distance of a gate's latent value from the ends of the splines


@dataclass(frozen=True)
class Discrete:
    """A column with classes."""

    column: int
    """Of the rows."""
    values: tuple[float, ...]
    """The value of each class, ascending; NaN, for a missing number, is the last."""
    rest: bool = False
    """Whether all other numbers are one class more, and have a density."""
    step: float = 0.0
    """The gap of whole numbers; those beyond the outermost values have a small probability."""
    mean: float = 0.0
    scale: float = 1.0
    """Of whole numbers, which are inputs beside the columns of the classes."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.values) + self.rest

    @property
    def logits(self) -> int:
        """The number of logits: one for two classes, where the logit of the first class is 0."""
        return 1 if self.classes == 2 else self.classes

    @property
    def width(self) -> int:
        """The number of inputs of the network."""
        return self.logits + self.is_count

    @property
    def is_count(self) -> bool:
        """Whether the number itself is an input, too."""
        return self.step > 0.0 and self.classes > 2

    def codes(self, x: NDArray[Any]) -> NDArray[np.intp]:
        """The class of each value; -1 for a value without one."""
        known = np.array(self.values)
        numbers = known[~np.isnan(known)].astype(x.dtype)
        at = np.minimum(np.searchsorted(numbers, x), max(numbers.size - 1, 0))
        found = np.where(numbers[at] == x, at, -1) if numbers.size else np.full(len(x), -1)
        if self.rest:
            found = np.where(found < 0, len(known), found)
        return np.where(np.isnan(x), numbers.size if numbers.size < known.size else -1, found)

    def inputs(self, codes: NDArray[np.intp], x: NDArray[Any]) -> Floats:
        """Inputs of the network, shape (rows, width): columns of zeros and ones, and the number of a count."""
        found = np.zeros((len(codes), self.width))
        if self.classes == 2:
            found[:, 0] = codes == 1
        else:
            rows = np.flatnonzero(codes >= 0)
            found[rows, codes[rows]] = 1.0
        if self.is_count:
            found[:, -1] = np.nan_to_num((x - self.mean) / self.scale)
        return found

    def log_probs(self, logits: Floats) -> Floats:
        """Log probabilities of the classes, shape (rows, classes)."""
        if self.classes == 2:
            logits = np.concatenate([np.zeros_like(logits[:, :1]), logits[:, :1]], axis=1)
        logits = logits[:, : self.classes].astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def beyond(self, x: NDArray[Any]) -> Floats:
        """Log probabilities of whole numbers given that they lie beyond the outermost values: halved at each step."""
        low, high = np.nanmin(self.values), np.nanmax(self.values)
        sides = 1 if low == 0.0 else 2
        steps = np.where(x > high, x - high, low - x if sides == 2 else np.inf) / self.step
        is_one = (steps > 0) & (steps == np.round(steps))
        return np.where(is_one, -np.log(2.0) * np.where(is_one, steps, 0.0) - np.log(sides), -np.inf)


class Head:
    """The probabilities of discrete columns: log-softmax of the outputs of a masked network, and their gradient.

    The network is a flow of one additive transform, z = x + logits(x of the columns before, context), so that files,
    dtypes and products are those of flows, and its gradient is one call of `to_latent_vjp`.
    """

    def __init__(self, columns: Sequence[Discrete], network: Flow, rows: int) -> None:
        """`rows`: those of the fit, from which the probability of a new value follows."""
        self.columns, self.network, self.rows = tuple(columns), network, rows
        ends = np.cumsum([0, *(one.width for one in self.columns)]).tolist()
        self.parts = [slice(a, b) for a, b in pairwise(ends)]

    @classmethod
    def fresh(cls, columns: Sequence[Discrete], rows: int, context: Any, seed: int, dtype: Any) -> Head:
        """With fresh weights; `context`: rows by which it is standardised, or None."""
        levels = [i for i, one in enumerate(columns, start=1) for _ in range(one.width)]
        scale, width = None, 0
        if context is not None:
            std = context.std(axis=0, dtype=np.float64)
            scale, width = (context.mean(axis=0, dtype=np.float64), np.where(std > 0, std, 1.0)), context.shape[1]
        network = logits_network(levels, HIDDEN, context=width, seed=seed, dtype=dtype)
        return cls(columns, Flow([network], standardize_context=scale), rows)

    def opened(self, x: NDArray[Any]) -> tuple[NDArray[np.intp], Floats]:
        """Classes, shape (rows, discrete columns), and the inputs of the network."""
        codes = np.stack([one.codes(x[:, one.column]) for one in self.columns], axis=1)
        parts = [one.inputs(codes[:, i], x[:, one.column]) for i, one in enumerate(self.columns)]
        return codes, np.concatenate(parts, axis=1)

    @property
    def given(self) -> list[int]:
        """The inputs that the flow reads: of a count only the number, because columns for each value overfit."""
        pairs = zip(self.columns, self.parts, strict=True)
        return [i for one, part in pairs for i in range(part.stop - 1 if one.is_count else part.start, part.stop)]

    def log_probs(self, inputs: Floats, context: Any) -> list[Floats]:
        """Log probabilities of the classes of each column, given the inputs before it."""
        return self._of(self.network.to_latent(inputs, context)[0] - inputs)

    def _of(self, logits: Floats) -> list[Floats]:
        return [one.log_probs(logits[:, part]) for one, part in zip(self.columns, self.parts, strict=True)]

    def log_prob(self, x: NDArray[Any], codes: NDArray[np.intp], inputs: Floats, context: Any) -> Floats:
        """Log probability of each row's classes."""
        total = np.zeros(len(x))
        for i, (one, each) in enumerate(zip(self.columns, self.log_probs(inputs, context), strict=True)):
            known = codes[:, i] >= 0
            picked = np.where(known, each[np.arange(len(x)), codes[:, i]], -np.inf)
            if one.step:  # the estimator of Krichevsky and Trofimov for a value that no row had
                new = 0.5 / (self.rows + 0.5)
                picked = np.where(known, picked + np.log1p(-new), np.log(new) + one.beyond(x[:, one.column]))
            total += picked
        return total

    def nll_and_grad(
        self, codes: NDArray[np.intp], inputs: Floats, context: Any = None, weights: Any = None
    ) -> tuple[float, NDArray[Any]]:
        """The weighted mean of -log probability over rows with known classes, and its gradient by the parameters."""
        share = np.ones(len(codes)) if weights is None else np.asarray(weights, np.float64)
        share, rows = share / share.sum(), np.arange(len(codes))
        loss, by_logits = 0.0, np.zeros(inputs.shape)
        logits = self.network.to_latent(inputs, context)[0] - inputs
        for i, (one, part, each) in enumerate(zip(self.columns, self.parts, self._of(logits), strict=True)):
            loss -= float(share @ each[rows, codes[:, i]])
            slope = np.exp(each)
            slope[rows, codes[:, i]] -= 1.0
            by_logits[:, part.start : part.start + one.logits] = (slope * share[:, None])[:, -one.logits :]
        (gradient,) = self.network.to_latent_vjp(
            inputs, by_logits.astype(self.network.dtype), None, context, wrt="parameters"
        )
        return loss, gradient

    def _start(self, codes: NDArray[np.intp]) -> None:
        """Biases by which fresh weights give each class its share of the rows."""
        name = list(self.network.named_parameters())[-1]
        bias = np.zeros(self.parts[-1].stop)
        for i, (one, part) in enumerate(zip(self.columns, self.parts, strict=True)):
            logits = np.log(np.bincount(codes[:, i], minlength=one.classes) + 0.5)
            logits -= logits[0] if one.classes == 2 else 0.0
            bias[part.start : part.start + one.logits] = logits[-one.logits :]
        self.network.set_parameter(name, bias.astype(self.network.dtype))

    def fit(self, codes: NDArray[np.intp], inputs: Floats, context: Any, weights: Any, seed: int) -> tuple[float, int]:
        """Train until held-out rows stop gaining; their mean loss, and the number of epochs."""
        self._start(codes)
        n, rng, network = len(codes), np.random.default_rng([seed, STREAM]), self.network
        inputs = inputs.astype(network.dtype)
        order = rng.permutation(n)
        held = min(max(int(HELD_OUT * n), LEAST_HELD_OUT), n // 3)
        test, train = order[:held], order[held:]

        def part(rows: NDArray[np.intp]) -> tuple[Any, ...]:
            own = None if weights is None else weights[rows]
            return codes[rows], inputs[rows], None if context is None else context[rows], own

        judged, size = part(test) if held else None, min(max(len(train) // BATCHES, 32), BATCH)
        adam = Adam(network, RATE, weight_decay=constant_decay(n), average=AVERAGE, clip=CLIP)
        best, kept, epoch, last = np.inf, network.parameters, 0, 0
        while epoch < EPOCHS and epoch - last <= PATIENCE:
            epoch += 1
            rng.shuffle(train)
            for start in range(0, len(train), size):
                adam.step(self.nll_and_grad(*part(train[start : start + size]))[1])
            now = network.parameters
            network.parameters = averaged = adam.averaged
            loss = self.nll_and_grad(*judged)[0] if judged else -float(epoch == 1)
            network.parameters = now
            if loss < best:
                best, kept, last = loss, averaged, epoch
        network.parameters = kept
        return best, last

    def drawn(self, uniforms: Floats, context: Any) -> tuple[Floats, Floats]:
        """Values of the columns, NaN for numbers of the last class, and inputs, from uniform values by inverse CDFs."""
        inputs = np.zeros((len(uniforms), self.parts[-1].stop))
        values = np.empty((len(uniforms), len(self.columns)))
        for i, (one, part) in enumerate(zip(self.columns, self.parts, strict=True)):
            below = np.cumsum(np.exp(self.log_probs(inputs, context)[i]), axis=1)
            codes = np.minimum((uniforms[:, i : i + 1] >= below).sum(axis=1), one.classes - 1)
            values[:, i] = np.array([*one.values, *[np.nan] * one.rest])[codes]
            inputs[:, part] = one.inputs(codes, values[:, i])
        return values, inputs


@dataclass(frozen=True)
class Gate:
    """A column of the flow whose number may not exist."""

    column: int
    """Of the flow."""
    discrete: int
    """The discrete column whose last class is that of numbers."""
    value: float
    """The number that stands for none."""
    log_density: float
    """Its part of the log density, beside the flow's."""


@storable
class MixedDensity:
    """The density of discrete and continuous columns: probabilities by a masked network, then a flow given them.

    `FlowDensity` makes it. Rows have codes 0, 1, ... for labels, and NaN for missing numbers where these are modelled.

    Args:
        head: The probabilities of the discrete columns.
        flow: The flow of the continuous columns, with the head's context and inputs as its context; None without any.
        continuous: The columns of the flow.
        gates: Those whose numbers may not exist.
    """

    def __init__(
        self, head: Head, flow: Flow | Ensemble | None, continuous: Sequence[int], gates: Sequence[Gate] = ()
    ) -> None:
        self.head, self.flow, self.continuous, self.gates = head, flow, list(continuous), tuple(gates)
        self._names = Names()

    # ---- structure

    @property
    def features(self) -> int:
        """The number of columns."""
        return len(self.continuous) + sum(not one.rest for one in self.head.columns)

    @property
    def context(self) -> int:
        """The number of context columns."""
        return self.head.network.context

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of parameters and results."""
        return self.head.network.dtype

    device, matmul = "cpu", "exact"

    @property
    def n_parameters(self) -> int:
        """The number of trained parameters."""
        return sum(part.n_parameters for part in self._parts.values())

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """See `Flow.feature_names`."""
        return self._names.features

    @property
    def context_names(self) -> tuple[str, ...] | None:
        """See `Flow.context_names`."""
        return self._names.context

    @property
    def _parts(self) -> dict[str, Any]:
        return {"network": self.head.network, **({} if self.flow is None else {"flow": self.flow})}

    def named_parameters(self) -> dict[str, NDArray[Any]]:
        """Dense copies of the parameters by name."""
        return {f"{part}.{k}": v for part, own in self._parts.items() for k, v in own.named_parameters().items()}

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return {f"{part}.{k}": v for part, own in self._parts.items() for k, v in own._fixed_arrays().items()}

    def __repr__(self) -> str:
        """Sizes."""
        gates = f", {len(self.gates)} gates" if self.gates else ""
        return f"MixedDensity({len(self.head.columns)} discrete columns, {self.flow!r}{gates})"

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, which `headrace.load` reads."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> MixedDensity:
        """Read a file that has such a density; see `Flow.load`."""
        return files.load_as(cls, path, allow_non_finite)

    def __reduce__(self) -> Any:
        """Pickle the bytes of a file, as flows do."""
        return files.unpickled, (files.to_bytes(self), self.device, self.matmul)

    def to(self, device: str, matmul: str = "exact") -> MixedDensity:
        """Itself: there is no device for it yet."""
        if device != "cpu":
            raise ValueError(f"device: expected 'cpu' for a density of discrete columns, got {device!r}")
        return self

    def to_onnx(self, path: str | os.PathLike[str], verb: str = "log_prob") -> None:
        """Refused: a graph is that of one flow, `Flow.to_onnx`."""
        raise TypeError("flow: expected one flow for a graph, got a MixedDensity; its `flow` is one")

    def _notes(self) -> dict[str, str]:
        return self._names.notes()

    def _with_notes(self, notes: Mapping[str, Any]) -> MixedDensity:
        self._names = Names.of_notes(notes, self.features, self.context)
        return self

    def _header(self) -> dict[str, Any]:
        columns = [
            {**vars(one), "values": [None if np.isnan(value) else value for value in one.values]}
            for one in self.head.columns
        ]
        return {
            "features": self.features,
            "context": self.context,
            "rows": self.head.rows,
            "columns": columns,
            "continuous": self.continuous,
            "gates": [vars(one) for one in self.gates],
            "network": header_of(self.head.network),
            "flow": None if self.flow is None else header_of(self.flow),
        }

    @classmethod
    def _from_file(cls, stored: Stored) -> MixedDensity:
        sizes = stored.size("features", least=1), stored.size("context")
        rows, whole, number = stored.size("rows"), check.integer, check.number
        ends: dict[str, Any] = {"above": -np.inf, "below": np.inf}
        columns, gates = [], []
        for entry in stored.items("columns"):
            values = [np.nan if v is None else number("values", v, **ends) for v in entry["values"]]
            own = [number(name, entry[name], **ends) for name in ("step", "mean", "scale")]
            columns.append(Discrete(whole("column", entry["column"]), tuple(values), entry["rest"] is True, *own))
        continuous = [whole("continuous", c, most=sizes[0] - 1) for c in stored.items("continuous")]
        for entry in stored.items("gates"):
            at = whole("column", entry["column"], most=max(len(continuous) - 1, 0))
            of = whole("discrete", entry["discrete"], most=len(columns) - 1)
            gates.append(Gate(at, of, *(number(name, entry[name], **ends) for name in ("value", "log_density"))))
        network = stored.child("network", Flow, "network.")
        flow = stored.child("flow", (Flow, Ensemble), "flow.") if continuous else stored.take("flow")
        self = cls(Head(columns, network, rows), flow, continuous, gates)
        width, contexts = self.head.parts[-1].stop, sizes[1] + len(self.head.given)
        places = sorted([*continuous, *(one.column for one in columns if not one.rest)])
        fits = flow is None or (flow.features, flow.context) == (len(continuous), contexts)
        if (network.features, network.context) != (width, sizes[1]) or places != [*range(sizes[0])] or not fits:
            raise ValueError("columns, continuous: expected those of the network and of the flow")
        return self

    # ---- evaluation

    def log_prob(self, x: Any, context: Any = None) -> NDArray[Any]:
        """The log probability of discrete values plus the log density of the others, shape (rows,).

        A row with a new label has -inf, with a warning.
        """
        rows = np.asarray(x)
        context = self._context(context, len(rows))
        codes, inputs = self.head.opened(rows)
        new = [bool((codes[:, i] < 0).any() and not one.step) for i, one in enumerate(self.head.columns)]
        if any(new):
            column = self.head.columns[new.index(True)].column
            label = f"column {column}" if self.feature_names is None else f"column {self.feature_names[column]!r}"
            unknown = (codes < 0).any(axis=1).sum()
            warn(f"x: {unknown} of {len(rows)} rows have a value in {label} that no row to fit had, or in others")
        total = self.head.log_prob(rows, codes, inputs, context)
        if self.flow is not None:
            values, constant = self._gated(rows, codes)
            total += np.asarray(self.flow.log_prob(values, self._given(inputs, context)), np.float64) - constant
        return total.astype(self.dtype) if rows.dtype == np.float32 else total

    def spread(self, x: Any, context: Any = None) -> NDArray[Any]:
        """How far the members of an ensemble differ in the density of the numbers; see `Ensemble.spread`."""
        if not isinstance(self.flow, Ensemble):
            raise ValueError("ensemble: expected a number of flows for a spread, got None")
        return self.flow.spread(*self._flow_arguments(np.asarray(x), context))

    def _context(self, context: Any, rows: int) -> Any:
        if context is None or not self.context:
            return None
        given = np.asarray(context)
        return np.broadcast_to(given, (rows, given.shape[-1])) if given.ndim == 1 else given

    def _given(self, inputs: Floats, context: Any) -> NDArray[Any]:
        """The context of the flow."""
        inputs = inputs[:, self.head.given]
        return inputs if context is None else np.concatenate([context, inputs], axis=1)

    def _gated(self, rows: NDArray[Any], codes: NDArray[np.intp]) -> tuple[NDArray[Any], Floats]:
        """Rows of the flow, and the part of their log density that is not theirs."""
        values, constant = rows[:, self.continuous].astype(np.float64), np.zeros(len(rows))
        for gate in self.gates:
            closed = codes[:, gate.discrete] != self.head.columns[gate.discrete].classes - 1
            values[closed, gate.column] = gate.value
            constant[closed] += gate.log_density
        return values, constant

    def _flow_arguments(self, x: NDArray[Any], context: Any = None, *others: Any) -> tuple[Any, ...]:
        """Rows and context of the flow, and other arrays."""
        codes, inputs = self.head.opened(x)
        return self._gated(x, codes)[0], self._given(inputs, self._context(context, len(x))), *others

    def of_numbers(self, x: NDArray[Any], context: Any = None, *others: Any) -> tuple[Any, ...]:
        """The arguments of `flow` and other arrays, for rows of which all numbers exist."""
        codes = self.head.opened(x)[0]
        last = [one.classes - 1 if one.rest else None for one in self.head.columns]
        there = np.all([codes[:, i] == k if k is not None else codes[:, i] >= 0 for i, k in enumerate(last)], axis=0)
        parts = (None if part is None else np.asarray(part)[there] for part in (context, *others))
        return self._flow_arguments(x[there], *parts)

    def probabilities(self, column: int, x: Any, context: Any = None) -> Floats:
        """Probabilities of the classes of a discrete column given all other columns, shape (rows, classes).

        Args:
            column: Without numbers that have a density.
            x: Rows whose value in the column does not count.
            context: As in `log_prob`.
        """
        one = next((one for one in self.head.columns if one.column == column and not one.rest), None)
        if one is None:
            raise ValueError(f"column: expected a discrete column, got {column}")
        rows = np.array(x, np.float64)
        each = np.empty((len(rows), one.classes))
        for i, value in enumerate(one.values):
            rows[:, column] = value
            each[:, i] = self.log_prob(rows, context)
        each = np.exp(each - each.max(axis=1, keepdims=True))
        return np.asarray(each / each.sum(axis=1, keepdims=True))

    def sample(
        self, n: Any, context: Any = None, seed: Any = None, *, first_row: int | None = None, dtype: Any = None
    ) -> NDArray[Any]:
        """Draw n rows: each depends only on the seed and its index. No row has a value that the fit had not seen.

        Args:
            n, context, seed, first_row: As in `Flow.sample`.
            dtype: Of the rows; float64 by default where labels have codes.
        """
        key, rows = check.seed(seed), check.integer("n", n)
        given, count, first = self._context(context, rows), len(self.head.columns), first_row or 0
        bits = np.random.PCG64([key, STREAM]).advance(first * count)  # each value takes one step
        values, inputs = self.head.drawn(np.random.Generator(bits).random((rows, count)), given)
        drawn = np.empty((rows, self.features), self.dtype if dtype is None else dtype)
        if self.flow is not None:
            drawn[:, self.continuous] = self._flow_rows(inputs, self._given(inputs, given), key, first)
        for i, one in enumerate(self.head.columns):
            is_known = np.arange(rows) if not one.rest else self._closed(i, inputs)
            drawn[is_known, one.column] = values[is_known, i]
        return drawn

    def _closed(self, i: int, inputs: Floats) -> NDArray[np.intp]:
        """Rows whose class in a column with numbers is another one than that of these."""
        last = self.head.parts[i].start + self.head.columns[i].logits - 1
        return np.flatnonzero(inputs[:, last] == 0.0)

    def _flow_rows(self, inputs: Floats, given: NDArray[Any], key: int, first: int) -> NDArray[Any]:
        assert self.flow is not None
        if not self.gates:
            return np.asarray(self.flow.sample(len(given), given, seed=key, first_row=first, dtype="float64"))
        flows = (self.flow,) if isinstance(self.flow, Flow) else self.flow.flows
        member = np.zeros(len(given), int) if len(flows) == 1 else self.flow._chosen(len(given), key, first)  # type: ignore[union-attr]
        source = Flow([], StandardNormal(len(self.continuous)), dtype="float64")
        noise = np.asarray(source.sample(len(given), seed=key, first_row=first))
        for gate in self.gates:
            noise[self._closed(gate.discrete, inputs), gate.column] = _beyond(flows[0])
        every = [flow.sample(len(given), given, noise=noise, dtype="float64") for flow in flows]
        return np.asarray(np.stack(every)[member, np.arange(len(given))])


# ---- fits ------------------------------------------------------------------------------------------------------------


def can_gate(flow: Flow) -> bool:
    """Whether all transforms leave a far coordinate as it is: splines with lines beyond their ends."""
    interior = flow._interior
    inner = interior.chain[: len(interior.chain) - (interior.support is not None) - len(interior.links)]
    is_line = all(isinstance(t, _Masked) and t._settings.map == "rq_spline" for t in inner)
    return is_line and type(interior.base) is StandardNormal and interior.standardize is not None


def _beyond(flow: Flow) -> float:
    """A latent value at which all splines are the identity."""
    return max(float(np.max(t._settings.bound)) for t in flow._chain if isinstance(t, _Masked)) + BEYOND


def _start(flow: Flow, x: Floats, exists: NDArray[np.bool_], weights: Any, seed: int) -> None:
    """Standardise a flow, and give it marginal curves, by the numbers that exist."""
    rng, filled, support = np.random.default_rng([seed, STREAM]), x.copy(), flow._interior.support
    for c in range(x.shape[1]):
        there = x[exists[:, c], c]
        filled[~exists[:, c], c] = rng.choice(there, int((~exists[:, c]).sum()))
    line = filled if support is None else np.asarray(support.inverse(filled)[0], np.float64)
    mean, std = line.mean(axis=0), line.std(axis=0)
    std[std == 0.0] = 1.0
    own = None if weights is None else np.asarray(weights, np.float64)
    links = marginals.of_sample(marginals.Sample((line - mean) / std, own))
    flow._interior.rescale((*links, Standardize(mean, std)), None)


def _gates_of(flow: Flow, columns: Mapping[int, int]) -> list[Gate]:
    """The gates of columns of a started flow, by their discrete columns."""
    ends: list[Any] = [*flow._interior.links]
    if flow._interior.support is not None:
        ends.append(flow._interior.support)
    alone = Flow(ends, StandardNormal(flow.features), dtype=flow.dtype)
    value = np.asarray(alone.to_data(np.full((8, flow.features), _beyond(flow)))[0], np.float64)
    found = []
    for column, discrete in columns.items():
        part = value[:, [column]]
        log_density = float(alone.marginal([column]).astype("float64").log_prob(part)[0])
        found.append(Gate(column, discrete, float(part[0, 0]), log_density))
    return found


def context_scale(given: NDArray[Any], first: int = 0) -> tuple[Floats, Floats]:
    """Means and deviations of context columns, 1 for columns of zeros and ones from `first` on.

    Standardised columns of rare classes would be large, and networks overfit them.
    """
    mean, std = given.mean(axis=0, dtype=np.float64), given.std(axis=0, dtype=np.float64)
    is_flag: NDArray[np.bool_] = np.asarray(np.isin(given, (0.0, 1.0)).all(axis=0))
    is_flag[:first] = False
    std[is_flag | (std == 0.0)] = 1.0
    return mean, std


def fitted(
    x: NDArray[Any],
    context: Any,
    weights: Any,
    columns: Sequence[Discrete],
    make: Callable[[list[int], int], Any],
    seed: int,
    **how: Any,
) -> tuple[MixedDensity, Any]:
    """Fit the probabilities of discrete columns, then the flow of the others; its history too.

    Args:
        x, context, weights: Rows, as `Flow.fit` takes them; NaN where a column has the class of missing numbers.
        columns: The discrete columns.
        make: Makes a fresh flow, or an ensemble, of these columns and of this number of context columns.
        seed: Of the fit.
        **how: Other arguments of the flow's fit.
    """
    if weights is not None:
        there = np.asarray(weights) > 0
        x, weights = x[there], np.asarray(weights)[there]
        context = None if context is None else context[there]
    taken = {one.column for one in columns if not one.rest}
    continuous = [c for c in range(x.shape[1]) if c not in taken]
    width = 0 if context is None else context.shape[1]
    size = Head(columns, None, len(x)).given  # type: ignore[arg-type]
    flow = make(continuous or [0], width + len(size))
    head = Head.fresh(columns, len(x), context, seed, flow.dtype)
    codes, inputs = head.opened(x)
    loss, epochs = head.fit(codes, inputs, context, weights, seed)
    density = MixedDensity(head, flow if continuous else None, continuous)
    if not continuous:
        return density, History(best_loss=loss, best_epoch=epochs)
    gated = {continuous.index(one.column): i for i, one in enumerate(columns) if one.rest}
    given, members = density._given(inputs, context), getattr(flow, "flows", (flow,))
    scale = context_scale(given, width)
    for one in members:
        if gated:
            exists = np.ones((len(x), len(continuous)), bool)
            for c, i in gated.items():
                exists[:, c] = codes[:, i] == columns[i].classes - 1
            _start(one, x[:, continuous].astype(np.float64), exists, weights, seed)
        one._interior.rescale(None, scale)
    density.gates = tuple(_gates_of(members[0], gated)) if gated else ()
    if isinstance(how.get("validation"), tuple):
        rows, *rest = how["validation"]
        how["validation"] = density._flow_arguments(rows, *rest)
    rows, given = density._flow_arguments(x, context)
    return density, flow.fit(rows, given, weights=weights, seed=seed, **how)
