"""Ensembles, which are weighted mixtures of flows, and fits of many flows, each to its own table."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._arrays.kinds import A, Read
from headrace._arrays.names import Names
from headrace._arrays.shapes import Rows, drawn, opened
from headrace._base import arguments as check
from headrace._base.keywords import closed, refuse
from headrace._base.rng import Rng, takes_rng
from headrace._base.stored import Stored, header_of, storable
from headrace._base.types import Floats, Self
from headrace._base.warn import warn
from headrace._core import LEAST_ROWS
from headrace._fit.clock import Clock
from headrace._fit.history import History, is_interrupted
from headrace._fit.of_flows import OfFlows
from headrace._fit.side_by_side import Failed, threads_side_by_side
from headrace._fit.side_by_side import run as run_side_by_side
from headrace._flow.bases import Logistic, Normal, StandardNormal
from headrace._flow.flow import Flow
from headrace.rows._as_stream import is_stream

_STREAM = 0x656E73656D626C65  # with the seed of a call, the seed of the choice of members

# The distribution of noise for each class of base; a member with another base generates its noise in `Flow.sample`.
_NOISE: dict[type, Any] = {StandardNormal: StandardNormal, Normal: StandardNormal, Logistic: Logistic}


@storable
class Ensemble(OfFlows):
    """A density that is the weighted mean of several flows' densities: a deep ensemble (Lakshminarayanan et al. 2017).

    Flows that were fitted from different seeds agree where training rows are dense, and differ where training rows are
    sparse; `spread` measures the difference. The mean log-likelihood of an ensemble is at least the weighted mean of
    its members' log-likelihoods.

    Args:
        flows: At least one flow, with equal features, context, dtype and device, of any classes, which are copied.
        weights: A weight of at least 0 for each flow, not all 0, equal by default; the sum of weights becomes 1.

    >>> import numpy as np, headrace as hr
    >>> ensemble = hr.Ensemble([hr.MAF(2, transforms=2, hidden=(16,), seed=s) for s in range(3)])
    >>> x = np.random.default_rng(0).normal([1.0, -2.0], [1.0, 3.0], (500, 2))
    >>> histories = ensemble.fit(x, progress=False)
    >>> ensemble.log_prob(x).shape, ensemble.sample(10, seed=0).shape, len(histories)
    ((500,), (10, 2), 3)
    >>> far = np.array([[1.0, -2.0], [30.0, 60.0]])
    >>> bool(np.diff(ensemble.spread(far)) > 0)  # members disagree where there were no rows
    True
    """

    def __init__(self, flows: Sequence[Flow], weights: Any = None) -> None:
        self._set([copy.copy(flow) for flow in flows_of(flows)], weights)

    def _set(self, members: list[Flow], weights: Any) -> None:
        flows = flows_of(members)
        for name in ("features", "context", "dtype", "device", "matmul"):
            values = list(dict.fromkeys(getattr(flow, name) for flow in flows))
            if len(values) > 1:
                raise ValueError(f"flows: expected one {name}, got {', '.join(map(str, values))}")
        share = check.vector("weights", np.ones(len(flows)) if weights is None else weights, None)
        check.length("weights", share, len(flows))  # type: ignore[arg-type]
        if not ((share >= 0).all() and share.any()):
            raise ValueError(f"weights: expected numbers of at least 0, not all 0, got {share.tolist()}")
        self._flows, self._given = flows, share

    def _with(self, flows: tuple[Flow, ...]) -> Self:
        other = object.__new__(type(self))
        other._flows, other._given = flows, self._given
        return other

    # ---- structure -----------------------------------------------------------------------------------------------

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The members themselves, not copies: changing them changes the ensemble."""
        return self._flows

    @property
    def weights(self) -> Floats:
        """Weights of the members, shape (members,); their sum is 1."""
        scaled = self._given / self._given.max()
        return np.asarray(scaled / scaled.sum())

    @property
    def features(self) -> int:
        """Number of coordinates."""
        return self._flows[0].features

    @property
    def context(self) -> int:
        """Number of context columns, 0 for none."""
        return self._flows[0].context

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of parameters and results."""
        return self._flows[0].dtype

    @property
    def device(self) -> str:
        """The device of computations: "cpu" or a CUDA device, such as "cuda:0"."""
        return self._flows[0].device

    @property
    def matmul(self) -> str:
        """See `Flow.matmul`."""
        return self._flows[0].matmul

    @property
    def _names(self) -> Names:
        return self._flows[0]._names

    @_names.setter
    def _names(self, names: Names) -> None:
        for flow in self._flows:
            flow._names = names

    _advice = "an Ensemble; write each of its `flows`"

    @property
    def _parts(self) -> dict[str, Flow]:
        return {f"members.{i}": flow for i, flow in enumerate(self._flows)}

    def __len__(self) -> int:
        """Number of members."""
        return len(self._flows)

    def __iter__(self) -> Iterator[Flow]:
        """The members."""
        return iter(self._flows)

    @overload
    def __getitem__(self, index: slice) -> Ensemble: ...
    @overload
    def __getitem__(self, index: int) -> Flow: ...
    def __getitem__(self, index: slice | int) -> Flow | Ensemble:
        """``ensemble[i]``: a member; ``ensemble[:k]``: an ensemble of copies of some members, with their weights."""
        if isinstance(index, slice):
            return Ensemble(self._flows[index], self._given[index])
        return self._flows[check.index("index", index, len(self))]

    def __repr__(self) -> str:
        """The ensemble's sizes, its members' classes, and unequal weights."""
        kinds = ", ".join(dict.fromkeys(type(flow).__name__ for flow in self._flows))
        equal = "" if (self._given == self._given[0]).all() else f", weights={self.weights.round(4).tolist()}"
        return f"Ensemble({len(self)} of {kinds}, features={self.features}, context={self.context}{equal})"

    # ---- copies and files ----------------------------------------------------------------------------------------

    def to(self, device: str, matmul: str = "exact") -> Self:
        """A copy on another device; see `Flow.to`."""
        return self._with(tuple(flow.to(device, matmul) for flow in self._flows))

    def astype(self, dtype: DTypeLike) -> Self:
        """A copy with parameters and results of another dtype, 'float32' or 'float64'."""
        return self._with(tuple(flow.astype(dtype) for flow in self._flows))

    def __copy__(self) -> Self:
        """A copy that shares no parameters with this ensemble."""
        return self._with(tuple(copy.copy(flow) for flow in self._flows))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The result of `__copy__`; a deep copy of the attributes is unnecessary, because they cannot change."""
        return self.__copy__()

    def _header(self) -> dict[str, Any]:
        """See `headrace._base.stored`."""
        members = [header_of(flow) for flow in self._flows]
        return {"features": self.features, "context": self.context, "weights": self._given.tolist(), "members": members}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        """See `headrace._base.stored`."""
        sizes = stored.size("features", least=1), stored.size("context")
        weights, flows = stored.numbers("weights"), stored.children("members", Flow)
        self = object.__new__(cls)
        self._set(flows, weights)
        if (self.features, self.context) != sizes:
            raise ValueError(f"features, context: expected {(self.features, self.context)} of members, got {sizes}")
        return self

    # ---- evaluation ----------------------------------------------------------------------------------------------

    @overload
    def log_prob(self, x: Read, context: Any = None) -> NDArray[Any]: ...
    @overload
    def log_prob(self, x: A, context: Array | None = None, *, out: A | None = None) -> A: ...
    def log_prob(self, x: Array, context: Array | None = None, *, out: Array | None = None) -> Array:
        """Log density of each row under the mixture, in nats: log Σ weight · density.

        Args:
            x, context, out: As in `Flow.log_prob`.

        Returns:
            An array as `Flow.log_prob` returns it, in the members' dtype: -inf where the log densities of all members
            are -inf, NaN where a member's log density is NaN.
        """
        caller, rows, log_probs = self._log_probs(x, context)
        value = caller.output(out, self.dtype, rows.batch, (rows.array, rows.context))
        with caller.queue():
            value[...] = mixed(log_probs, self.weights).reshape(rows.batch)
        return caller.give(value)

    @overload
    def spread(self, x: Read, context: Any = None) -> NDArray[Any]: ...
    @overload
    def spread(self, x: A, context: Array | None = None) -> A: ...
    def spread(self, x: Array, context: Array | None = None) -> Array:
        """The weighted standard deviation of the members' log densities of each row, in nats.

        Do not trust the log density of a row whose spread is far above the spread of training rows.

        Args:
            x, context: As in `Flow.log_prob`.

        Returns: An array of shape (rows,), or of x's leading dimensions, in the members' dtype: 0 where all members
            have the same density, which may be 0; infinity where only some densities are 0; NaN where a density is NaN.
        """
        caller, rows, log_probs = self._log_probs(x, context)
        value = caller.empty(rows.batch, self.dtype)
        with caller.queue():
            value[...] = _spread(log_probs, self.weights).reshape(rows.batch)
        return caller.give(value)

    def _log_probs(self, x: Any, context: Any) -> tuple[Any, Rows, list[Any]]:
        """Log densities of each row under each member, in float64, on the members' device."""
        caller = self._flows[0]._caller()
        rows = opened(caller, "x", x, context, self.features, self.context, True)
        with caller.queue():
            assert rows.array is not None
            each = [flow.log_prob(rows.array, rows.context).astype(np.float64) for flow in self._flows]
        return caller, rows, each

    @takes_rng
    @closed
    def sample(
        self,
        n: int | Sequence[int],
        context: Array | None = None,
        seed: int | np.random.Generator | None = None,
        *,
        rng: Rng = None,
        first_row: int | None = None,
        dtype: DTypeLike | None = None,
        like: Any = None,
        **others: Any,
    ) -> Array:
        """Draw n rows, each from a member that is chosen at random by its weight.

        Row i depends only on the seed and on i, so that ``sample(n, seed=s)[:k]`` equals ``sample(k, seed=s)``; row i
        equals row i of the chosen member's ``sample(n, seed=s)``.

        Args:
            n, context, seed, first_row, dtype, like: As in `Flow.sample`.
        """
        refuse(self.sample, others)
        caller, dtype_of_flows = self._flows[0]._caller(), self.dtype
        if like is not None:
            caller.answer_like(like)
        key, kind = check.seed(seed), dtype_of_flows if dtype is None else check.float_dtype("dtype", dtype)
        rows = drawn(caller, n, context, self.features, self.context)
        if kind != dtype_of_flows and kind != np.float64:
            raise ValueError(f"dtype: expected 'float64', as the flows' own, got {dtype!r}; call .astype of them")
        value = caller.output(None, kind, rows.shape, (rows.context,))
        first = check.first_row(first_row, rows.rows)
        chosen = self._chosen(rows.rows, key, first or 0)
        with caller.queue():
            table, noise = value.reshape(rows.rows, self.features), dict[type, Any]()
            for i, flow in enumerate(self._flows):
                places = np.flatnonzero(chosen == i)
                if places.size:
                    padded = places if places.size >= LEAST_ROWS else np.resize(places, LEAST_ROWS)
                    index = _arrays.library(table).asarray(padded)
                    part = self._rows_of(flow, index, rows, (key, first), kind, noise)
                    table[index[: places.size]] = part[: places.size]
        return caller.give(value)

    def _chosen(self, rows: int, key: int, first: int) -> NDArray[np.intp]:
        """The index of the member from which each row is drawn; a row's index does not depend on `rows`."""
        edges = np.cumsum(self.weights)
        numbers = np.random.PCG64([key, _STREAM])  # the generator advances one step for each row
        drawn = np.random.Generator(numbers.advance(first)).random(rows)
        last = int(np.flatnonzero(self._given)[-1])  # because rounding may leave the last edge below 1
        return np.minimum(np.searchsorted(edges, drawn, side="right"), last)

    def _rows_of(
        self, flow: Flow, index: Any, rows: Rows, which: tuple[int, int | None], kind: Any, noise: dict[type, Any]
    ) -> Any:
        """The rows at `index` of a sample of the member `flow`; `noise` keeps noise, by its density, for other members.

        `which`: the seed and the index of the first row.
        """
        key, first = which
        context: Any = rows.context
        if is_one := context is not None and len(context) == 1:
            context = context[0]
        standard = _NOISE.get(type(flow.base))
        if standard is None:
            return flow.sample(rows.rows, context, seed=key, first_row=first, dtype=kind)[index]
        if standard not in noise:
            source = Flow([], standard(self.features), dtype=self.dtype)
            noise[standard] = source._on(flow._device).sample(rows.rows, seed=key, first_row=first)
        conditions = context if context is None or is_one else context[index]
        return flow.sample(len(index), conditions, noise=noise[standard][index], dtype=kind)

    # ---- training ------------------------------------------------------------------------------------------------

    @takes_rng
    def fit(
        self,
        x: Array,
        context: Array | None = None,
        *,
        weights: Array | None = None,
        bootstrap: bool = False,
        time_budget: float | None = None,
        seed: int = 0,
        rng: Rng = None,
        **settings: Any,
    ) -> list[History]:
        """Fit the members in place; member i gets exactly the weights of ``member.fit(x, seed=seed + i, ...)``.

        Seeds of a fit choose the order of rows and the held-out rows, but not the initial parameters: construct the
        members with different seeds. Small members are fitted side by side, with a thread each. Large members, and all
        members on a device, in a group or for a stream, are fitted one after another with all threads.

        Args:
            x, context, weights: As in `Flow.fit`.
            bootstrap: Whether each member is fitted to as many rows as x has, sampled with replacement (Efron 1979): a
                row that is sampled twice has twice its weight. Members then differ like fits to independent samples.
            time_budget: Seconds for all members, in equal parts; later members share the time that a member does not
                use.
            seed: The seed of the fit of member 0; member i is fitted with the seed ``seed + i``.
            **settings: All other arguments of `Flow.fit` except `checkpoint`, which ensembles do not have yet, and
                `effort`, whose value 'high' fits several flows itself.

        Returns:
            The history of each fit. After Ctrl-C, a warning tells how many members are not fitted: the first one whose
            weights have not improved and all later ones stay unchanged and have no history in the list.

        Raises:
            TypeError, ValueError: The errors of `Flow.fit`; after any error all members are unchanged.
            KeyboardInterrupt: Ctrl-C before the first member has better weights than before.
        """
        if settings.get("checkpoint") is not None:
            raise ValueError("checkpoint: expected None in a fit of an ensemble, whose state is not kept")
        if settings.get("effort", "normal") != "normal":
            raise ValueError(
                f"effort: expected 'normal' in a fit of an ensemble, got {settings['effort']!r}; fit one flow with "
                "effort='high', keep=True"
            )
        key, clock, n = check.integer("seed", seed), Clock(time_budget), len(self)
        threads = threads_side_by_side(self._flows, in_turn=settings.get("group") is not None or is_stream(x))

        def fitted(i: int, flow: Flow) -> History:
            drawn_weights = self._resampled(x, weights, key, i) if bootstrap else weights
            budget = clock.turn(i, n, threads) if clock.is_limited else None
            return flow.fit(x, context, weights=drawn_weights, seed=key + i, time_budget=budget, **settings)

        jobs = (partial(fitted, i, flow) for i, flow in enumerate(self._flows))
        histories: list[History] = []
        shown = bool(settings.get("progress", True))

        def has_history(i: int) -> bool:
            return i < len(histories)

        try:
            with ExitStack() as stack:
                for i, flow in enumerate(self._flows):
                    stack.enter_context(flow._interior.restored(unless=partial(has_history, i)))
                done = run_side_by_side(jobs, threads, total=n, progress=shown, is_interrupted=is_interrupted)
                if done.interrupted:
                    histories += done.leading()
                    raise KeyboardInterrupt
                histories += done.leading()
        except KeyboardInterrupt:
            if not histories:
                raise
        except Failed as failed:
            raise failed.error from None
        if (missing := n - len(histories)) > 0:
            warn(f"fit: interrupted with {missing} of {n} members not fitted; ensemble[:{n - missing}] is without them")
        return histories

    def _resampled(self, x: Any, weights: Any, key: int, member: int) -> Any:
        """Weights of the rows for the bootstrap: each row's weight times the row's count in a sample with replacement
        from the rows of weights above 0.
        """
        caller = self._flows[0]._caller()
        n = _arrays.matrix("x", x, self.features, caller, whole=True).shape[0]
        shares = _arrays.row_weights("weights", weights, n, caller)[0]
        with caller.queue():
            kept = np.arange(n) if shares is None else np.flatnonzero(_arrays.on_host(shares) > 0)
            rng = np.random.default_rng([key, _STREAM, member])
            counts = np.bincount(kept[rng.integers(kept.size, size=kept.size)], minlength=n) if n else np.empty(0)
            drawn = caller.empty((n,), np.dtype(np.float32) if shares is None else shares.dtype)
            drawn[...] = _arrays.library(drawn).asarray(counts, dtype=drawn.dtype)
            if shares is not None:
                drawn *= shares
        return caller.give(drawn)


# ---- functions of the members' log densities -------------------------------------------------------------------------


def flows_of(flows: Any) -> tuple[Flow, ...]:
    """The flows in a sequence; raises ValueError for an empty sequence, TypeError for objects that are not flows."""
    if isinstance(flows, (Flow, str, bytes)) or not np.iterable(flows):
        raise TypeError(f"flows: expected a sequence of flows, got {check.kind_of(flows)}")
    members = tuple(flows)
    if not members:
        raise ValueError("flows: expected at least one, got none")
    for i, flow in enumerate(members):
        if not isinstance(flow, Flow):
            raise TypeError(f"flows[{i}]: expected a flow, got {check.kind_of(flow)}")
    return members


def mixed(log_probs: list[Any], weights: Floats) -> Any:
    """log Σ w eˡ for log densities l and weights w, without overflow; exact where all l are -inf or one weight is 1."""
    terms = [log_prob + np.log(weight) for log_prob, weight in zip(log_probs, weights, strict=True) if weight > 0]
    with np.errstate(invalid="ignore"):  # for rows with NaN
        return functools.reduce(np.logaddexp, terms)


def _spread(log_probs: list[Any], weights: Floats) -> Any:
    """The weighted standard deviation of log densities; 0 where all are equal, even if infinite."""
    counted = [log_prob for log_prob, weight in zip(log_probs, weights, strict=True) if weight > 0]
    share = _arrays.library(counted[0]).asarray(weights[weights > 0])[:, None]
    with np.errstate(invalid="ignore"):
        away = np.stack([np.where(densities == counted[0], 0.0, densities - counted[0]) for densities in counted])
        most = np.abs(away).max(axis=0)  # NaN where a log density is NaN
        unit = np.where(most > 0, most, 1.0)  # so that squares do not overflow
        square = np.square((away - (share * away).sum(axis=0)) / unit)
        return np.where(np.isinf(most), np.inf, unit * np.sqrt((share * square).sum(axis=0)))


_OF_A_TABLE = ("context", "weights")
_OF_ONE = ("checkpoint", "group")
_PLAIN = (TypeError, ValueError, RuntimeError)  # errors whose only argument is a message


def fit_many(
    flows: Sequence[Flow],
    tables: Iterable[Any],
    *,
    time_budget: float | None = None,
    progress: bool = True,
    **settings: Any,
) -> list[History]:
    """Fit each flow in place to its own table; the results equal those of ``flows[i].fit(tables[i], ...)`` bit for bit.

    Flows are fitted side by side, with one thread each, where this is faster than fits one after another with all
    threads: if they are on the CPU, some have 10,000 parameters or more, and either no layer has more than 128 units,
    or the flows are at least half as many as the threads. Flows may differ in class, size, features and dtype.

    Args:
        flows: At least one flow, and none of them twice.
        tables: An iterable with a table for each flow: ``x``, ``(x, context)`` or ``(x, context, weights)`` as in
            `Flow.fit`. A table is fetched when a thread is free for it, so that a generator needs the memory of as
            many tables as there are threads.
        time_budget: Seconds for all flows, in equal parts; time that a flow does not use is divided among later flows.
        progress: Whether to show one bar on the standard error.
        **settings: All other arguments of `Flow.fit` except `checkpoint` and `group`, the same for each flow. All flows
            are fitted with the same `seed` and differ by their initial parameters.

    Returns:
        The history of each fit. The call needs the memory of the tables, twice that of the flows, and that of the
        running fits.

    Raises:
        TypeError, ValueError: The errors of `Flow.fit`, with the index of the flow; also if `flows` has a flow twice,
            or `tables` does not have one table for each flow. After any error all flows are unchanged.
        KeyboardInterrupt: Ctrl-C, after which all flows are unchanged.

    >>> import numpy as np, headrace as hr
    >>> rng = np.random.default_rng(0)
    >>> tables = [rng.exponential(1.0 + i, (600, 1 + i)) for i in range(3)]
    >>> flows = [hr.NSF(x.shape[1], transforms=2, hidden=(16,)) for x in tables]
    >>> histories = hr.fit_many(flows, tables, progress=False)
    >>> [history.judged_by for history in histories]
    ['held-out rows', 'held-out rows', 'held-out rows']
    """
    checked = _checked(flows)
    for name in _OF_A_TABLE:
        if settings.get(name) is not None:
            raise ValueError(f"{name}: expected None, as each table has its own as (x, context, weights), got one")
    for name in _OF_ONE:
        if settings.get(name) is not None:
            raise ValueError(f"{name}: expected None in a fit of many flows, got {settings[name]!r}")
    if isinstance(tables, (str, bytes)) or not np.iterable(tables):
        raise TypeError(f"tables: expected a sequence or an iterator of tables, got {check.kind_of(tables)}")
    if isinstance(tables, Sized) and len(tables) != len(checked):
        raise ValueError(f"tables: expected {len(checked)}, one for each flow, got {len(tables)}")
    threads, clock, streams = threads_side_by_side(checked), Clock(time_budget), Lock()

    def fitted(i: int, flow: Flow, table: Any) -> History:
        x, *parts = table if isinstance(table, tuple) else (table,)
        of_table = dict(zip(_OF_A_TABLE, parts, strict=False))
        if len(parts) > len(_OF_A_TABLE):
            raise ValueError(f"expected x, (x, context) or (x, context, weights), got {1 + len(parts)} parts")
        if clock.is_limited:
            of_table["time_budget"] = clock.turn(i, len(checked), threads)
        if not is_stream(x):
            return flow.fit(x, progress=progress, **of_table, **settings)
        with streams:  # because several streams may read one file
            return flow.fit(x, progress=progress, **of_table, **settings)

    def jobs() -> Iterator[Any]:
        waiting = iter(tables)
        for i, flow in enumerate(checked):
            try:
                table = next(waiting)
            except StopIteration:
                raise ValueError(f"tables: expected {len(checked)}, one for each flow, got {i}") from None
            yield partial(fitted, i, flow, table)
            del table
        if next(waiting, None) is not None:
            raise ValueError(f"tables: expected {len(checked)}, one for each flow, got more")

    with ExitStack() as stack:
        for flow in checked:
            stack.enter_context(flow._interior.restored())
        try:
            done = run_side_by_side(
                jobs(),
                threads,
                total=len(checked),
                progress=progress,
                is_interrupted=is_interrupted,
                named=lambda i, message: f"flows[{i}]: {message}",
            )
        except Failed as failed:
            error = failed.error
            if type(error) in _PLAIN:
                raise type(error)(f"flows[{failed.index}], tables[{failed.index}]: {error}") from error
            raise error from None
        if done.interrupted:
            raise KeyboardInterrupt
    return done.leading()


def _checked(flows: Any) -> list[Flow]:
    members = list(flows_of(flows))
    first: dict[int, int] = {}
    for i, flow in enumerate(members):
        if first.setdefault(id(flow), i) != i:
            raise ValueError(f"flows[{i}]: expected each flow once, got that of index {first[id(flow)]} again")
    return members
