"""The fit of a density of discrete and continuous columns: first of the probabilities, then of the conditional flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._fit import marginals
from headrace._fit.clock import Clock
from headrace._fit.ensemble import Ensemble
from headrace._fit.moments import scale_of_context
from headrace._fit.residuals import behind
from headrace._flow.bases import StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import _Masked
from headrace._tables.classes import discretes
from headrace._tables.discrete import Discrete
from headrace._tables.head import STREAM, Head
from headrace._tables.mixed import Gate, MixedDensity, beyond
from headrace._tables.table import Column
from headrace.rows._stream import Block, Stream

OF_HEAD = 0.5  # largest share of a time budget for the fit of probabilities


def can_gate(flow: Flow | Ensemble) -> bool:
    """Whether all transforms leave a far coordinate unchanged, because they are splines, which are the identity
    beyond their ends.
    """
    interior = (flow if isinstance(flow, Flow) else flow.flows[0])._interior
    inner = interior.chain[: len(interior.chain) - (interior.support is not None) - len(interior.links)]
    is_line = all(isinstance(t, _Masked) and t._settings.map == "rq_spline" for t in inner)
    return is_line and type(interior.base) is StandardNormal and interior.standardize is not None


def _start(flow: Flow, x: Floats, exists: NDArray[np.bool_], weights: Any, seed: int) -> None:
    """Standardise a flow, and add marginal curves, both by the values that `exists` marks."""
    rng, filled, support = np.random.default_rng([seed, STREAM]), x.copy(), flow._interior.support
    for c in range(x.shape[1]):
        there = x[exists[:, c], c]
        filled[~exists[:, c], c] = rng.choice(there, int((~exists[:, c]).sum()))
    line = filled if support is None else np.asarray(support.inverse(filled)[0], np.float64)
    mean, std = line.mean(axis=0), line.std(axis=0)
    std[std == 0.0] = 1.0
    shares = None if weights is None else np.asarray(weights, np.float64)
    sample = marginals.Sample((line - mean) / std, shares)
    tails = marginals.tails_of(sample)
    curves = marginals.of_sample(replace(sample, rows=behind(sample.rows, tails)))
    flow._interior.rescale((*curves, *tails, Standardize(mean, std)), None)


def _gates_of(flow: Flow, columns: Mapping[int, int]) -> list[Gate]:
    """The gates of a flow after `_start`; `columns`: the discrete column of each gate, by the flow's column."""
    ends: list[Any] = [*flow._interior.links]
    if flow._interior.support is not None:
        ends.append(flow._interior.support)
    alone = Flow(ends, StandardNormal(flow.features), dtype=flow.dtype)
    value = np.asarray(alone.to_data(np.full((8, flow.features), beyond(flow)))[0], np.float64)
    gates = []
    for column, discrete in columns.items():
        part = value[:, [column]]
        log_density = float(alone.marginal([column]).astype("float64").log_prob(part)[0])
        gates.append(Gate(column, discrete, float(part[0, 0]), log_density))
    return gates


def fit_table(
    train: Block | Stream, columns: Sequence[Column], make: Callable[..., Any], seed: int, **how: Any
) -> tuple[Any, Any]:
    """Fit a density of treated rows; return the density and the history.

    Args:
        train: The training rows.
        columns: The treatment of the columns.
        make: As in `fitted`.
        seed: The seed of the fit.
        **how: Other arguments of `fitted`, or of the flow's fit.
    """
    x: Any
    x, context, weights = (train, None, None) if isinstance(train, Stream) else train.arrays()
    like = next(iter(train)) if isinstance(train, Stream) else train
    if like is train and (classes := discretes(columns, like.x)):
        return fitted(x, context, weights, classes, make, seed, **how)
    flow = make([*range(like.x.shape[1])], 0 if like.context is None else like.context.shape[1])
    history = flow.fit(x, context=context, weights=weights, seed=seed, **how)
    return flow[: len(history)] if isinstance(history, list) else flow, history


def fitted(
    x: NDArray[Any],
    context: Any,
    weights: Any,
    columns: Sequence[Discrete],
    make: Callable[[list[int], int], Any],
    seed: int,
    *,
    time_budget: Any = None,
    progress: bool = False,
    **how: Any,
) -> tuple[MixedDensity, Any]:
    """Fit the probabilities of discrete columns, then the flow of the other columns; return the density and the last
    history.

    Args:
        x, context, weights: Rows as in `Flow.fit`; NaN for modelled missing values.
        columns: The discrete columns.
        make: Returns a fresh flow, or an ensemble, from a list of columns and a number of context columns.
        seed: The seed of the fit.
        time_budget, progress: As in `Flow.fit`, for both fits together.
        **how: Other arguments of the flow's fit.
    """
    if weights is not None:
        there = np.asarray(weights) > 0
        x, weights = x[there], np.asarray(weights)[there]
        context = None if context is None else context[there]
    clock = Clock(time_budget)
    taken = {column.column for column in columns if not column.rest}
    continuous = [c for c in range(x.shape[1]) if c not in taken]
    width = sum(column.width if not column.is_count else 1 for column in columns)
    flow = make(continuous or [0], width + (0 if context is None else context.shape[1]))
    head = Head.fresh(columns, len(x), context, seed, flow.dtype)
    codes, inputs = head.opened(x)
    history = head.fit(inputs, context, weights, seed, clock.share(OF_HEAD), progress=progress)
    density = MixedDensity(head, flow if continuous else None, continuous)
    if not continuous:
        return density, history
    gated = {continuous.index(column.column): i for i, column in enumerate(columns) if column.rest}
    members = getattr(flow, "flows", (flow,))
    scale = scale_of_context(density.given(inputs, context))
    for member in members:
        if gated:
            exists = np.ones((len(x), len(continuous)), bool)
            for c, i in gated.items():
                exists[:, c] = codes[:, i] == columns[i].classes - 1
            _start(member, x[:, continuous].astype(np.float64), exists, weights, seed)
        member._interior.rescale(None, scale)
    density.gates = tuple(_gates_of(members[0], gated)) if gated else ()
    if isinstance(how.get("validation"), tuple):
        rows, *rest = how["validation"]
        how["validation"] = density.of_flow(rows, *rest)
    of_flow = density.of_flow(x, context)
    budget = max(clock.left(), 1e-9) if clock.is_limited else None
    history = flow.fit(*of_flow, weights=weights, seed=seed, time_budget=budget, progress=progress, **how)
    if isinstance(history, list):
        density.flow = flow[: len(history)]  # members that were fitted before Ctrl-C
    return density, history
