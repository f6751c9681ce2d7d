"""From where a distributed fit starts: what it standardises, its ActNorms, and the Gaussian that it has to beat."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._fit import act_norms as _act_norms
from headrace._fit import gaussian as _gaussian
from headrace._fit import rows as _rows
from headrace._fit.rows import CHUNK, Data
from headrace.distributed.exact import exact_sum
from headrace.distributed.groups import Group
from headrace.distributed.shards import Table
from headrace.transforms.fixed import Standardize
from headrace.transforms.support import circles_of
from headrace.transforms.transform import Transform

if TYPE_CHECKING:
    from headrace._fit.history import History
    from headrace._interior import Trainable

__all__ = ["decorrelating", "not_worse_than", "shared_moments", "standardize"]

Floats = NDArray[np.float64]
Weighted = Callable[[], Iterator[tuple[Floats, Floats]]]
"""Rows of this rank, some at a time, and their weights; it can be asked for twice."""


def shared_moments(group: Group, columns: int, parts: Weighted) -> tuple[Floats, Floats, Floats]:
    """Weighted mean and standard deviation of each column over all ranks, and half its range.

    As `headrace._fit.rows.moments` does it, but for that all rows count; a column without spread has 0.
    """
    low, high, total = np.full(columns, np.inf), np.full(columns, -np.inf), [[0.0]]
    for values, share in parts():
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        total.append([float(share.sum())])
    low, high = -group.maximum(-low), group.maximum(high)
    weight = float(exact_sum(group, total)[0])
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    unit = np.where(half > 0, half, 1.0)

    def mean_of(what: Callable[[Floats], Floats]) -> Floats:
        sums = [(what((values - middle) / unit) * share[:, None]).sum(axis=0) for values, share in parts()]
        return exact_sum(group, [np.zeros(columns), *sums]) / weight

    mean = mean_of(lambda z: z)
    square = mean_of(lambda z: np.square(z - mean))
    return middle + unit * mean, unit * np.sqrt(square), half


def weights_of(data: Data) -> Floats:
    """1 each where there are none."""
    return np.ones(len(data.x)) if data.weights is None else data.weights.astype(np.float64)


def moments_of(
    name: str, table: Table, of: Callable[[Data], Floats], labels: tuple[str, ...], say: bool
) -> tuple[Floats, Floats]:
    """Mean and standard deviation of training rows; 1 for a constant column."""
    columns = len(labels)

    def parts() -> Iterator[tuple[Floats, Floats]]:
        for data in table.training():
            yield of(data), weights_of(data)

    return _rows.settled(name, *shared_moments(table.group, columns, parts), labels, say)


def standardize(
    flow: Trainable,
    table: Table,
    say: bool,
    marginals: Callable[[Floats, Floats], tuple[Transform, ...]] = lambda mean, std: (),
) -> None:
    """Set what a fit standardises, unless an earlier one has; `marginals` tells what comes before a mean and a std."""
    interior, columns = flow._interior, None
    links: tuple[Transform, ...] | None = None
    support = interior.support
    first = next((shard.data for shard in table.shards), None)
    names = tuple(f"column {i}" for i in range(flow.features)) if first is None else first.names
    if interior.is_fresh:

        def unbounded(data: Data) -> Floats:
            values = data.x.astype(np.float64)
            return values if support is None else support.inverse(values)[0]

        mean, std = moments_of("x", table, unbounded, names, say)
        circles = circles_of(support)
        mean[circles], std[circles] = 0.0, 1.0
        here = any(shard.data.x.dtype == np.float32 for shard in table.shards)
        single = bool(table.group.maximum(np.array([here], np.int64))[0])
        weighed = table.effective_rows()
        if say:
            _rows.warn_of_weights(weighed, table.rows)
            nothing = np.empty((0, flow.features), np.float32 if single else np.float64)
            _rows.warn_of_offsets(Data(nothing, None, None, names, support), mean, std, flow.dtype)
        links = (*marginals(mean, std), Standardize(mean, std))
    if flow.context and flow.standardize_context is None:
        labels = tuple(f"column {i}" for i in range(flow.context))
        columns = moments_of("context", table, lambda data: np.asarray(data.context, np.float64), labels, say)
        ends = np.full((2, flow.context), -np.inf)  # the least ones with the other sign
        for data in table.training():
            least, largest = _rows.inner_ends(np.asarray(data.context, np.float64), columns)
            ends = np.maximum(ends, np.stack([-least, largest]))
        ends = table.group.maximum(ends)
        if say:
            _rows.warn_of_far_contexts((-ends[0], ends[1]), columns[1])
    if links is not None or columns is not None:
        interior.rescale(links, columns)
    _start_act_norms(flow, table)


def _start_act_norms(flow: Trainable, table: Table) -> None:
    """As `headrace._fit.act_norms.start_act_norms`, of rows on all ranks."""
    if not (places := _act_norms.waiting(flow)):
        return
    rows = list(table.training(CHUNK))

    def moments_of(at: Sequence[Any]) -> tuple[Floats, Floats]:
        def parts() -> Iterator[tuple[Floats, Floats]]:
            for x, data in zip(at, rows, strict=True):
                if len(x):
                    yield x.astype(np.float64), weights_of(data)

        return _rows.settled("x", *shared_moments(table.group, flow.features, parts), (), say=False)

    _act_norms.start(flow, places, rows, moments_of)


def decorrelating(flow: Trainable, table: Table, curves: Sequence[Transform] = ()) -> tuple[Transform, ...]:
    """As `headrace._fit.gaussian.decorrelating`; a row's fold goes by its place in its shard."""
    support, standard = flow._interior.support, flow._interior.standardize
    assert standard is not None
    folds, scale = _gaussian.FOLDS, flow.standardize_context if flow.context <= _gaussian.MOST_FEATURES else None
    contexts = 0 if scale is None else flow.context
    if not _gaussian.serves(flow.features, contexts, table.size, support):
        return ()
    n = flow.features + contexts
    sums = [np.zeros(folds * (n * n + 1))]
    for data in table.training(CHUNK):
        z = _gaussian.joined(data, slice(None), standard.mean, standard.std, scale, curves)
        moments, weight = _gaussian.second_moments(z, weights_of(data))
        sums.append(np.concatenate([moments.ravel(), weight]))
    found = exact_sum(table.group, sums)
    return _gaussian.links_of(found[:-folds].reshape(folds, n, n), found[-folds:], contexts, flow.dtype)


def not_worse_than(
    flow: Trainable,
    judge: Table,
    history: History,
    start: NDArray[Any],
    links: tuple[Transform, ...],
    own: int = 1,
    has_curves: bool = False,
    by_default: bool = True,
) -> None:
    """Put the Gaussian of the training rows in place of weights that are not clearly better (Breiman's rule).

    Not `by_default`, with epochs given, the Gaussian has to be the one that is clearly better. `own`: so many links the
    fit has put at the data end. `has_curves`: whether those of the Gaussian have some, too.
    """
    other = copy.copy(flow)
    other._interior.rescale(links, None, _gaussian.quietened(other, start), replaced=own)
    found = []
    for data in judge.judging():
        fitted, simple = (-one.log_prob(data.x, data.context).astype(np.float64) for one in (flow, other))
        found.append((fitted, simple, weights_of(data)))
    group = judge.group

    def total(of: Callable[[Floats, Floats, Floats], Any]) -> float:
        return float(exact_sum(group, [[0.0], *([float(of(*part))] for part in found)])[0])

    weight = total(lambda fitted, simple, w: w.sum())
    mean = total(lambda fitted, simple, w: (w / weight * (simple - fitted)).sum())
    square = total(lambda fitted, simple, w: np.square(w / weight * (simple - fitted - mean)).sum())
    if math.isfinite(mean) and mean > math.sqrt(square) * (1.0 if by_default else -1.0):
        return
    flow._interior.become(other)
    history.best_epoch, history.gaussian, history.gaussianized = -1, True, has_curves
    history.best_loss = total(lambda fitted, simple, w: (w * simple).sum()) / weight
