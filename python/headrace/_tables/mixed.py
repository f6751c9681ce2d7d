"""A density of discrete and continuous columns: a masked network of logits, then a flow given the discrete values.

The density of a row is the product of the probability of each discrete value, given earlier ones and the context, and
the density of the other values given all discrete values and the context. A column with frequent or missing values has
a class for each of these, and one class for all other values, which have a density (Uria, Murray, Larochelle 2013 for
the order of columns; Papamakarios, Sterratt, Murray 2019 and sbi's MNLE for a categorical part before a flow).

In the flow, a value without a density is replaced by a fixed value, the gate, at which the splines of all transforms
are the identity. The gate stays unchanged, is a constant input of the networks, and adds a constant to the log density,
which is subtracted again. For each pattern of gates the flow is an exact flow of the remaining columns, and one fit
serves all patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._base.stored import Stored, header_of, storable
from headrace._base.types import Floats
from headrace._base.warn import warn
from headrace._fit.ensemble import Ensemble
from headrace._fit.of_flows import OfFlows
from headrace._flow.bases import StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.transforms.masked import _Masked
from headrace._tables.discrete import Discrete
from headrace._tables.head import STREAM, Head

BEYOND = 1.0  # distance of a gate's latent value from the ends of the splines


@dataclass(frozen=True)
class Gate:
    """A column of the flow in which a fixed value replaces values without a density, such as missing ones."""

    column: int
    """The index of the column in the flow."""
    discrete: int
    """The discrete column whose last class has continuous values."""
    value: float
    """The value that replaces a value without a density."""
    log_density: float
    """The contribution of `value` to the flow's log density."""


@storable
class MixedDensity(OfFlows):
    """The density of discrete and continuous columns: probabilities by a masked network, then a conditional flow.

    `FlowDensity` makes such densities. Rows have codes 0, 1, ... for labels, and NaN for modelled missing values.

    Args:
        head: The probabilities of the discrete columns.
        flow: The flow of the continuous columns, whose context is the head's context and inputs; None without such
            columns.
        continuous: The indices of the columns of the flow.
        gates: The gates: columns of the flow in which values may lack a density.
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
        return len(self.continuous) + sum(not column.rest for column in self.head.columns)

    @property
    def context(self) -> int:
        """The number of context columns."""
        return self.head.network.context

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of parameters and results."""
        return self.head.network.dtype

    device, matmul = "cpu", "exact"
    _advice = "a MixedDensity, whose discrete columns no graph has; write its `flow`"

    @property
    def _parts(self) -> dict[str, Any]:
        return {"network": self.head.network, **({} if self.flow is None else {"flow": self.flow})}

    def __repr__(self) -> str:
        """A short description: the number of discrete columns, the flow, and the number of gates."""
        gates = f", {len(self.gates)} gates" if self.gates else ""
        return f"MixedDensity({len(self.head.columns)} discrete columns, {self.flow!r}{gates})"

    # ---- files

    def to(self, device: str, matmul: str = "exact") -> MixedDensity:
        """Return the density itself: no device is supported yet."""
        if device != "cpu":
            raise ValueError(f"device: expected 'cpu' for a density of discrete columns, got {device!r}")
        return self

    def _header(self) -> dict[str, Any]:
        columns = [
            {**vars(column), "values": [None if np.isnan(value) else value for value in column.values]}
            for column in self.head.columns
        ]
        sizes = {"features": self.features, "context": self.context, "rows": self.head.rows}
        parts = {"columns": columns, "continuous": self.continuous, "gates": [vars(gate) for gate in self.gates]}
        flow = None if self.flow is None else header_of(self.flow)
        return {**sizes, **parts, "network": header_of(self.head.network), "flow": flow}

    @classmethod
    def _from_file(cls, stored: Stored) -> MixedDensity:
        sizes = stored.size("features", least=1), stored.size("context")
        rows, columns, gates = check.integer("rows", stored.take("rows"), least=0), [], []
        for part in stored.parts("columns"):
            values = [np.nan if value is None else float(value) for value in part.numbers("values")]
            numbers = {name: part.number(name) for name in ("step", "mean", "scale")}
            columns.append(Discrete(part.size("column"), tuple(values), part.flag("rest"), **numbers))
        continuous = [check.integer("continuous", c, most=sizes[0] - 1) for c in stored.items("continuous")]
        for part in stored.parts("gates"):
            at = check.integer("column", part.take("column"), most=max(len(continuous) - 1, 0))
            of = check.integer("discrete", part.take("discrete"), most=len(columns) - 1)
            gates.append(Gate(at, of, part.number("value"), part.number("log_density")))
        network = stored.child("network", Flow, "network.")
        flow = stored.child("flow", (Flow, Ensemble), "flow.") if continuous else stored.take("flow")
        self = cls(Head(columns, network, rows), flow, continuous, gates)
        width, contexts = self.head.parts[-1].stop, sizes[1] + len(self.head.given)
        places = sorted([*continuous, *(column.column for column in columns if not column.rest)])
        fits = flow is None or (flow.features, flow.context) == (len(continuous), contexts)
        if (network.features, network.context) != (width, sizes[1]) or places != [*range(sizes[0])] or not fits:
            raise ValueError("columns, continuous: expected those of the network and of the flow")
        return self

    # ---- evaluation

    def log_prob(self, x: Any, context: Any = None) -> NDArray[Any]:
        """The log probability of discrete values plus the log density of the other values, shape (rows,).

        The result is -inf, with a warning, for a row with a label that the fit had not seen.
        """
        rows = np.asarray(x)
        context = self._context(context, len(rows))
        codes, inputs = self.head.opened(rows)
        unknown = (codes < 0) & ~np.isnan(rows[:, [c.column for c in self.head.columns]].astype(np.float64))
        new = [bool(unknown[:, i].any() and not c.step) for i, c in enumerate(self.head.columns)]
        if any(new):
            column = self.head.columns[new.index(True)].column
            label, count = _columns.label(column, self.feature_names), unknown.any(axis=1).sum()
            warn(f"x: {count} of {len(rows)} rows have a value in {label} that no row to fit had, or in others")
        total = self.head.of_rows(rows, codes, inputs, context)
        if self.flow is not None:
            values, constant = self._gated(rows, codes)
            total += np.asarray(self.flow.log_prob(values, self.given(inputs, context)), np.float64) - constant
        return total.astype(self.dtype) if rows.dtype == np.float32 else total

    def spread(self, x: Any, context: Any = None) -> NDArray[Any]:
        """The spread of an ensemble's log densities of continuous values; see `Ensemble.spread`."""
        if not isinstance(self.flow, Ensemble):
            raise ValueError("ensemble: expected a number of flows for a spread, got None")
        return self.flow.spread(*self.of_flow(np.asarray(x), context))

    def _context(self, context: Any, rows: int) -> Any:
        if context is None or not self.context:
            return None
        conditions = np.asarray(context)
        if self.context == 1 and conditions.shape == (rows,):
            return conditions[:, None]
        return np.broadcast_to(conditions, (rows, conditions.shape[-1])) if conditions.ndim == 1 else conditions

    def given(self, inputs: Floats, context: Any) -> NDArray[Any]:
        """The context of the flow: the context of the rows, followed by network inputs of the discrete values."""
        inputs = inputs[:, self.head.given]
        return inputs if context is None else np.concatenate([context, inputs], axis=1)

    def _gated(self, rows: NDArray[Any], codes: NDArray[np.intp]) -> tuple[NDArray[Any], Floats]:
        """Rows of the flow, with gates in place of values without a density, and the contribution of gates to the log
        density.
        """
        values, constant = rows[:, self.continuous].astype(np.float64), np.zeros(len(rows))
        for gate in self.gates:
            closed = codes[:, gate.discrete] != self.head.columns[gate.discrete].classes - 1
            values[closed, gate.column] = gate.value
            constant[closed] += gate.log_density
        return values, constant

    def of_flow(self, x: NDArray[Any], context: Any = None, *others: Any) -> tuple[Any, ...]:
        """Convert rows and context to those of the flow; return them, followed by `others` unchanged."""
        codes, inputs = self.head.opened(x)
        return self._gated(x, codes)[0], self.given(inputs, self._context(context, len(x))), *others

    def exists(self, codes: NDArray[np.intp]) -> NDArray[np.bool_]:
        """A mask of the rows whose classes are known and whose values in the flow's columns all have a density."""
        least = [column.classes - 1 if column.rest else 0 for column in self.head.columns]
        return np.asarray((codes >= least).all(axis=1))

    def of_numbers(self, x: NDArray[Any], context: Any = None, *others: Any) -> tuple[Any, ...]:
        """The result of `of_flow` for only the rows that `exists` selects."""
        there = self.exists(self.head.opened(x)[0])
        return self.of_flow(x[there], *(None if part is None else part[there] for part in (context, *others)))

    def as_numbers(self, x: NDArray[Any]) -> Floats:
        """The rows as numbers: the values of the flow, with gates for those without a density, and the context of the
        flow.
        """
        return np.concatenate(self.of_flow(x), axis=1)

    def probabilities(self, column: int, x: Any, context: Any = None) -> Floats:
        """Probabilities of the classes of a discrete column given all other columns, shape (rows, classes).

        Args:
            column: A column without continuous values.
            x: Rows whose value in the column does not matter.
            context: As in `log_prob`.
        """
        c = next((c for c in self.head.columns if c.column == column and not c.rest), None)
        if c is None:
            raise ValueError(f"column: expected a discrete column, got {column}")
        rows = np.array(x, np.float64)
        each = np.empty((len(rows), c.classes))
        for i, value in enumerate(c.values):
            rows[:, column] = value
            each[:, i] = self.log_prob(rows, context)
        each = np.exp(each - each.max(axis=1, keepdims=True))
        return np.asarray(each / each.sum(axis=1, keepdims=True))

    def sample(
        self, n: Any, context: Any = None, seed: Any = None, *, first_row: int | None = None, dtype: Any = None
    ) -> NDArray[Any]:
        """Draw n rows; each row depends only on the seed and on its index. No row has a discrete value that the fit had
        not seen.

        Args:
            n, context, seed, first_row: As in `Flow.sample`.
            dtype: The dtype of the rows, by default that of the density.
        """
        key, rows = check.seed(seed), check.integer("n", n)
        conditions, count, first = self._context(context, rows), len(self.head.columns), first_row or 0
        bits = np.random.PCG64([key, STREAM]).advance(first * count)  # one step of the generator for each value
        values, inputs = self.head.drawn(np.random.Generator(bits).random((rows, count)), conditions)
        drawn = np.empty((rows, self.features), self.dtype if dtype is None else dtype)
        if self.flow is not None:
            drawn[:, self.continuous] = self._flow_rows(inputs, self.given(inputs, conditions), key, first)
        for i, column in enumerate(self.head.columns):
            is_known = np.arange(rows) if not column.rest else self._closed(i, inputs)
            drawn[is_known, column.column] = values[is_known, i]
        return drawn

    def _closed(self, i: int, inputs: Floats) -> NDArray[np.intp]:
        """Indices of the rows whose value in discrete column `i` has a class of its own; the column's last class is for
        all other values, which have a density.
        """
        last = self.head.parts[i].start + self.head.columns[i].logits - 1
        return np.flatnonzero(inputs[:, last] == 0.0)

    def _flow_rows(self, inputs: Floats, conditions: NDArray[Any], key: int, first: int) -> NDArray[Any]:
        assert self.flow is not None
        if not self.gates:
            return np.asarray(self.flow.sample(len(conditions), conditions, seed=key, first_row=first, dtype="float64"))
        flows = (self.flow,) if isinstance(self.flow, Flow) else self.flow.flows
        member = np.zeros(len(conditions), int) if len(flows) == 1 else self.flow._chosen(len(conditions), key, first)  # type: ignore[union-attr]
        source = Flow([], StandardNormal(len(self.continuous)), dtype="float64")
        noise = np.asarray(source.sample(len(conditions), seed=key, first_row=first))
        for gate in self.gates:
            noise[self._closed(gate.discrete, inputs), gate.column] = beyond(flows[0])
        every = [flow.sample(len(conditions), conditions, noise=noise, dtype="float64") for flow in flows]
        return np.asarray(np.stack(every)[member, np.arange(len(conditions))])


def beyond(flow: Flow) -> float:
    """A latent value at which all splines are the identity."""
    return max(float(np.max(t._settings.bound)) for t in flow._chain if isinstance(t, _Masked)) + BEYOND
