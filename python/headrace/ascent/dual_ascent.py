"""The nonparametric flow of Tabak and Vanden-Eijnden (2010), which maps data to a normal density in many small steps.

Each step rotates the points by an orthogonal matrix and maps every coordinate separately, so that the log-likelihood
of the points grows; the points determine the maps, without a network. docs/dual_ascent.md has the choices that the
lecture notes leave open, and the measured gain of each.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._arrays.caller import Array
from headrace._arrays.columns import by_column
from headrace._arrays.device_caller import caller_of
from headrace._arrays.frames import labels_of
from headrace._arrays.names import Names
from headrace._arrays.row_parts import names_of
from headrace._base import arguments as check
from headrace._base.group import Group
from headrace._base.keywords import argument, checked_fields
from headrace._base.public import public
from headrace._base.rng import Rng, seed_of
from headrace._base.types import Self
from headrace._base.warn import warn
from headrace._fit.clock import Clock
from headrace._fit.ensemble import Ensemble
from headrace._flow.transforms.support import ColumnBounds, ColumnPeriods, Support, support_or_none
from headrace.ascent.competing_fits import best_fit
from headrace.ascent.flow import AscentFlow, AscentHistory
from headrace.ascent.standardised_rows import StandardisedRows, counted, cut_open, off_support
from headrace.rows._as_stream import arrays_of, stream_of

# Defaults from docs/dual_ascent.md.
RATE = 0.3  # the share of the full marginal map that each step after the first applies
NEIGHBOURS = 800.0
PATIENCE = 60
JITTER = 0.03


@public()
@dataclass(repr=False, eq=False)
class DualAscentFlow:
    """Density estimation by dual ascent of the log-likelihood (Tabak, Vanden-Eijnden 2010; lecture notes, section 2).

    The data are standardised. Each step of the ascent rotates the points by an orthogonal matrix and maps each
    coordinate separately, so that the log-likelihood L of eq. 23 grows. Held-out rows decide when the ascent stops, and
    the flow keeps the best prefix of its steps. **The defaults are better by measurement than the algorithm of the
    notes** (docs/dual_ascent.md): a step maps coordinates by splines that make their marginals normal, first along the
    data's own axes; a short chain of steps is then trained jointly by `Flow.fit`. `DualAscentFlow.notes` returns the
    settings of the notes.

    Args:
        precision: The precision λ of the normal density N(0, 1/λ) to which the data are mapped; 1e-6 to 1e6.
        steps: The largest number of steps; by default 600 ("spline") or 2000 ("kink"). With a joint training: 48 up to
            three features, and otherwise 16, or from 5000 training rows on 16, 32 or 48, whichever has the least loss
            on held-out rows (`history.lengths` has the losses).
        map: "spline": marginal maps from kernel densities; "kink": lines with a smooth kink (eq. 25).
        rule: The choice of a kink. "newton": Newton's step of the concave parametrisation, shortened where a lower
            bound of L requires it, so that no step decreases L; "gradient": a step along the gradient (eq. 24), as far
            as the same lower bound grows.
        kinks: The number of kinks of each coordinate in one step, applied one after another.
        neighbours: The number of rows within a kink's width under a normal density (n_p).
        directions: "random": orthogonal matrices drawn uniformly; "sliced": directions along which marginals are far
            from normal. By default "sliced" for splines in more than two dimensions. The first splines act along the
            data's axes.
        rotations: "dense": any orthogonal matrix; "blocks": an orthogonal matrix with dense blocks of 32 rows on its
            diagonal, after a random permutation of the coordinates, so that a step costs a row 32 n multiply-adds
            instead of n². By default "blocks" for random directions of at least 128 features.
        bandwidth: The width of the kernel densities, in units of 1.06 rows^-0.2; by default 2 for five or more
            features, otherwise 1.
        rate: The share of the full marginal map that a spline takes, 0 to 1; the first step takes the full map.
        bins: Bins of a spline, 3 to 64; by default 40, and with a joint training 8, or above three features 4 (3 with
            fewer than 5000 training rows).
        copies: The number of noisy copies of each training row; 0 for the rows themselves. By default 16
            for the joint training in up to three dimensions (fewer from 10,000 rows on), otherwise 0.
        jitter: The standard deviation of the noise of `copies`, in units of the columns' standard deviations.
        refine: Whether to train the steps jointly after the ascent, which then takes the rows without noise. By default
            the steps of splines are trained jointly; with fewer than 5000 training rows a longer ascent of finer
            splines competes on the held-out rows, and without held-out rows such an ascent replaces the joint training.
        patience: Steps without a new best on held-out rows after which the ascent ends; None for no limit.
        bounds: The bounds of the columns, as in `MAF`: the ascent first maps the rows to unbounded values.
        periodic: For each column the ends ``(low, high)`` of one period, or None. Because rotations mix all columns, a
            circle is cut where its rows are rarest and mapped to the line between the two ends of the cut. Dependences
            on periodic columns are therefore kept, and the density is normalised around the circle, but **need not be
            continuous at the cut**, where there are few rows. The named flows, such as `MAF`, have densities that are
            continuous everywhere.
        seed: The seed of all random draws of a fit.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".

    >>> import numpy as np, headrace as hr
    >>> x = np.random.default_rng(0).standard_normal((2000, 2))
    >>> x[:, 1] += x[:, 0] ** 2
    >>> flow = hr.DualAscentFlow.notes(steps=50).fit(x, progress=False)
    >>> bool(flow.log_prob(x).mean() > flow[:0].log_prob(x).mean() + 0.1)
    True
    """

    precision: float = argument(1.0, check.real(1e-6, below=1e6), option=True)
    steps: int | None = argument(None, check.integer, option=True)
    _: KW_ONLY
    map: str = argument("spline", check.one_of("spline", "kink"), option=True)
    rule: str = argument(
        "newton", check.one_of("newton", "gradient"), option="how a kink is chosen: newton or gradient"
    )
    kinks: int = argument(1, check.whole(1, 64), option=True)
    neighbours: float = argument(NEIGHBOURS, check.real(above=0.0), option=True)
    directions: str | None = argument(None, check.one_of("random", "sliced"), option=True)
    rotations: str | None = argument(None, check.one_of("dense", "blocks"), option=True)
    bandwidth: float | None = argument(None, check.real(above=0.0), option=True)
    rate: float = argument(RATE, check.real(above=0.0, below=math.nextafter(1.0, 2.0)), option=True)
    bins: int | None = argument(None, check.whole(3, 64), option=True)
    copies: int | None = argument(None, check.integer, option=True)
    jitter: float = argument(JITTER, check.real(0.0), option=True)
    refine: bool | None = argument(None, lambda name, value: bool(value), option=True)
    patience: int | None = argument(PATIENCE, check.whole(1), option=True)
    bounds: ColumnBounds | None = argument()
    periodic: ColumnPeriods | None = argument()
    seed: int = argument(0, check.integer)
    dtype: DTypeLike = argument("float32", check.float_dtype)
    rng: InitVar[Rng] = None

    def __post_init__(self, rng: Rng) -> None:
        """Check all arguments."""
        self.seed = self.seed if rng is None else seed_of(rng, 31)
        vars(self).update(checked_fields(self))
        self.refine = False if self.refine is None and self.map == "kink" else self.refine
        self.bounds, self.periodic = _checked(self.bounds, self.periodic)
        self.history = AscentHistory()
        """The history of the last fit."""

    @classmethod
    def notes(cls, precision: float = 1.0, steps: int | None = None, **changes: Any) -> Self:
        """Settings for the algorithm of the notes (2.5): random rotations, and one kink for each coordinate and step.

        >>> import headrace as hr
        >>> hr.DualAscentFlow.notes(rule="gradient").map
        'kink'
        """
        return cls(precision, steps, **{"map": "kink", "directions": "random", "refine": False, **changes})

    def fit(
        self,
        x: Array,
        context: None = None,
        *,
        weights: Array | None = None,
        validation: Any = 0.1,
        time_budget: float | None = None,
        progress: bool = True,
        group: Group | None = None,
    ) -> AscentFlow:
        """Fit a new flow to rows, on the device of the rows. Ctrl-C ends the fit and keeps the best flow so far.

        The result is a prefix of the ascent, or the flow with the parameters of the joint training.

        Args:
            x: Shape (rows, features), float32 or float64, any strides. Or x is a stream (`headrace.rows`): an ascent
                keeps its rows in memory, so that an even sample of the buffer's size represents a longer stream, with a
                warning.
            context: Only None, because an ascent takes no context.
            weights: Shape (rows,): weights of the rows, not negative; rows of weight 0 take no part.
            validation: The share of rows to hold out, or rows of the caller: ``x_val`` or ``(x_val, None,
                weights_val)``; None holds out no rows, and the flow then keeps all steps.
            time_budget: Seconds for the whole fit, approximately: an ascent ends before a step that would exceed its
                share (a fifth if a joint training follows), and the joint training ends within the rest. Two fits with
                a time budget may differ.
            progress: Whether to show a bar on the standard error.
            group: The group of the fit, as in `Flow.fit`: the array arguments are then dicts of the shards that this
                rank holds, ``{number: array}``, and all ranks get the same flow.

        Raises:
            TypeError: the arrays are not float32 or float64 of one framework, where the fit computes (docs/arrays.md).
            ValueError: an array has a wrong shape, there is a context, or rows have a NaN or an infinity, or lie on a
                bound or beyond (the message has the number of such rows and the first index).
            KeyboardInterrupt: Ctrl-C was pressed before the first step that is kept; `history` then stays unchanged.
            headrace.distributed.GroupError: a rank of the group did not answer in time.
        """
        clock = Clock(time_budget)
        if group is not None:
            if clock.is_limited:
                raise ValueError("time_budget: expected None with a group, whose bits do not depend on time")
            return self._fit_together(x, context, weights, validation, clock, bool(progress), group)
        return self._fit(x, context, weights, validation, clock, bool(progress))

    def fit_members(
        self, x: Array, members: int = 4, *, time_budget: float | None = None, **arguments: Any
    ) -> Ensemble:
        """Fit several flows, each with its own seed and held-out rows; return their mixture with equal weights.

        The loss of a single fit above three columns is mostly variance, which a mixture reduces.

        Args:
            x: As in `fit`.
            members: The number of flows, at least 1; member i has the seed ``seed + i``.
            time_budget: Seconds for all members together, approximately.
            **arguments: Further arguments of `fit`.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed before the first member was complete; a later Ctrl-C ends the fit with
                fewer members.

        >>> import numpy as np, headrace as hr
        >>> x = np.random.default_rng(0).standard_normal((1000, 2))
        >>> len(hr.DualAscentFlow.notes(steps=20).fit_members(x, 2, progress=False).flows)
        2
        """
        check.integer("members", members, least=1)
        clock = Clock(time_budget)
        flows: list[AscentFlow] = []
        for i in range(members):
            member = copy.copy(self)
            member.seed = self.seed + i
            budget = max(clock.left(), 1e-9) / (members - i) if clock.is_limited else None
            try:
                flows.append(member.fit(x, time_budget=budget, **arguments))
            except KeyboardInterrupt:
                if not flows:
                    raise
                break
            self.history = member.history
            if self.history.stopped == "interrupted":
                break
        return Ensemble(flows)

    def _fit_together(
        self, x: Any, context: Any, weights: Any, validation: Any, clock: Clock, progress: bool, group: Group
    ) -> AscentFlow:
        from headrace.ascent.standardised_rows import shared_rows
        from headrace.distributed.shards import shared_names

        rows, ends = shared_rows(self, group, x, context, weights, validation)
        named = shared_names(group, x, None, Names())
        rng = np.random.default_rng(self.seed)
        flow = self._best(rows, ends, rng, clock, progress and group.rank == 0)
        flow._interior.name(named)
        return flow

    def _fit(self, x: Any, context: Any, weights: Any, validation: Any, clock: Clock, progress: bool) -> AscentFlow:
        if (stream := stream_of(x, context, weights)) is not None:
            some = stream.some(self.seed)
            if stream.rows is not None and stream.rows > len(some):
                warn(
                    f"x: {len(some):,} of {stream.rows:,} rows, drawn evenly, stand for all, as an ascent holds its "
                    "rows in memory; a larger buffer of the stream takes more"
                )
            x, context, weights = some.x, some.context, some.weights
        validation = arrays_of(validation)
        named = Names(labels_of(x) if stream is None else stream.called)
        caller = caller_of(x)
        array = caller.open("x", x, whole=True)
        rng = np.random.default_rng(self.seed)
        with caller.queue():
            ends: tuple[Support, ...] = ()
            support = self.support(array.shape[1], named.features) if array.ndim == 2 else None
            if support is not None:
                names = names_of(x, array.shape[1])
                dtype = check.float_dtype("dtype", self.dtype)
                ends = cut_open(support, counted(support, array), dtype)
                array, validation = off_support(ends, array, validation, caller, names)
            rows = StandardisedRows.of(
                caller, array, context, weights, validation, rng, self.precision, self.seed, self.dtype
            )
            flow = self._best(rows, ends, rng, clock, progress)
            if caller.device is not None:
                flow = flow.to(repr(caller.device))
        flow._interior.name(named)
        return flow

    def support(self, features: int, names: Sequence[str] | None) -> Support | None:
        """The `Support` for `features` columns, with their names if known; None without bounds and periods."""
        own = (("bounds", self.bounds), ("periodic", self.periodic))
        bounds, periodic = (by_column(name, value, features, names) for name, value in own)
        return support_or_none(bounds, features, periodic)

    def _best(
        self, rows: StandardisedRows, ends: Any, rng: np.random.Generator, clock: Clock, progress: bool
    ) -> AscentFlow:
        """The best of the competing fits, extended by the supports `ends`."""
        fitted = best_fit(self, rows, rng, clock, progress)
        self.history = fitted.history
        return fitted.flow._supported(ends) if ends else fitted.flow

    def __repr__(self) -> str:
        """The class name and the main settings."""
        return (
            f"DualAscentFlow(precision={self.precision:g}, map={self.map!r}, steps={self.steps}, refine={self.refine})"
        )


def _checked(bounds: Any, periodic: Any) -> tuple[Any, Any]:
    """The checked bounds and periods; dicts stay unchanged, because only a fit's rows have the names of columns."""
    if isinstance(bounds, Mapping) or isinstance(periodic, Mapping):
        for name, value in (("bounds", bounds), ("periodic", periodic)):
            pairs = list(value.values()) if isinstance(value, Mapping) else value
            if pairs:
                Support(*((pairs, None) if name == "bounds" else (None, pairs)))
        return bounds, periodic
    if bounds is None and periodic is None:
        return None, None
    support = Support(bounds, periodic)
    return None if bounds is None else support.bounds, None if periodic is None else support.periodic
