"""The nonparametric flow of Tabak and Vanden-Eijnden (2010): data are taken to a normal density in many small steps.

Each step turns the points by an orthogonal matrix and moves every coordinate by a map of its own, chosen so that the
log-likelihood of the points grows; points, not networks, determine it. docs/dual_ascent.md has the choices that the
notes leave open, and their measured gains.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from headrace import _arguments as check
from headrace import training
from headrace._arrays.caller import Array
from headrace._arrays.device_caller import caller_of
from headrace._arrays.frames import labels_of
from headrace._fit import given_rows as _rows
from headrace._fit import plan
from headrace._fit.clock import Clock
from headrace._held_out import names_of
from headrace._streams.given import arrays_of, stream_of
from headrace._tables.columns import by_column
from headrace._tables.names import Names
from headrace.ascent.ascent import Ascent
from headrace.ascent.circles import counted, cut_open
from headrace.ascent.flow import AscentFlow, AscentHistory
from headrace.ascent.kinks import KinkAscent
from headrace.ascent.splines import SplineAscent
from headrace.ascent.standardised_rows import StandardisedRows, off_support
from headrace.transforms.masked import MaskedAutoregressive
from headrace.transforms.rotation import Rotation
from headrace.transforms.support import ColumnBounds, ColumnPeriods, Support, support_or_none
from headrace.transforms.transform import Transform

if TYPE_CHECKING:
    from typing_extensions import Self

    from headrace.distributed.groups import Group

__all__ = ["DualAscentFlow"]

# Defaults, by docs/dual_ascent.md.
STEPS = {"spline": 600, "kink": 2000}  # of an ascent without a joint training, at most
BINS = 40  # of an ascent's splines
RATE = 0.3  # the share of the full marginal map in a step, after the first
NEIGHBOURS = 800.0
PATIENCE = 60

# Shares of a time budget.
ASCENDING = 0.2  # for the ascent before a joint training
REFINING = 0.6  # of the rest, for the joint training where another ascent competes

# Defaults of an ascent that is trained as a whole afterwards.
COMPETES_BELOW = 5000  # below, an ascent without a joint training competes
REFINED_BINS = 8
REFINE_STEPS, REFINE_RATE = 12_000, 4e-3  # of the optimiser
MOST_BATCH = 256
COPIES, JITTER = 16, 0.03  # in up to three dimensions
MOST_COPIED = 150_000  # rows with all copies


def _layers(features: int) -> int:
    """Steps of a chain that is trained as a whole."""
    if features == 1:
        return 8
    return 48 if features <= 3 else 16


class DualAscentFlow:
    """Density estimation by dual ascent of the log-likelihood (Tabak, Vanden-Eijnden 2010), section 2 of the notes.

    Data are standardised. Then each step rotates the points by an orthogonal matrix and maps each coordinate
    separately, so that the log-likelihood L of eq. 23 grows. Rows held out decide when to stop, and the best prefix is
    kept.
    **The defaults are not the notes' algorithm but what was found to be better** (docs/dual_ascent.md): a step maps
    coordinates by splines that make their marginals normal, first along the data's own axes; a short chain of steps
    is then trained as a whole by `Flow.fit`. `DualAscentFlow.notes` is the algorithm of the notes.

    Args:
        precision: λ, of the normal density N(0, 1/λ) that the data are taken to; 1e-6 to 1e6.
        steps: Steps at most; by default 600 ("spline") or 2000 ("kink"), and 48 (up to three features) or 16 where
            they are trained as a whole.
        map: "spline": marginal maps from kernel densities; "kink": eq. 25, a line that bends.
        rule: How a kink is chosen. "newton": Newton's step of the concave parametrisation, shortened where a lower
            bound of L requires it, so that no step makes L less; "gradient": along the gradient (eq. 24), as far as
            the same bound grows.
        kinks: Kinks of a coordinate and step, one after another.
        neighbours: Rows that a kink's width holds, under a normal density (n_p).
        directions: "random": orthogonal matrices drawn evenly; "sliced": turned to where marginals are far from
            normal. By default "sliced" for splines in more than two dimensions. Splines take the data's axes first.
        rotations: "dense": any orthogonal matrix; "blocks": one with dense blocks of 32 rows on its diagonal, after a
            random permutation of the coordinates, so that a step costs a row 32 n multiply-adds instead of n². By
            default "blocks" for random directions of at least 128 features.
        bandwidth: Of the kernel densities, in units of 1.06 rows^-0.2; by default 2 from five features on, otherwise 1.
        rate: How far towards the full marginal map a spline goes, 0 to 1, after the first step, which goes all the way.
        bins: Bins of a spline, 3 to 64; by default 40, and 8 where the steps are trained as a whole.
        copies: Noisy copies of each training row; 0 for the rows themselves. By default 16
            for the joint training in up to three dimensions (fewer from 10,000 rows on), otherwise 0.
        jitter: Standard deviation of this noise, in units of the columns'.
        refine: Whether to train the steps as a whole after the ascent, which itself then takes rows as they are. By
            default splines are; with fewer than 5000 training rows a longer ascent of finer splines competes on the
            rows held out, and without any it replaces the training.
        patience: Steps without a new best on held-out rows after which the ascent ends; None for no end.
        bounds: Of the columns, as in `MAF`: the ascent takes the rows off their support first.
        periodic: For each column ``(low, high)``, one period of it, or None. As rotations mix all columns, a circle is
            cut where its rows are rarest and taken to the line between the two ends of the cut. So all dependence is
            kept, and the density is normalised around the circle, but **it need not be continuous at the cut**, where
            it has few rows. The named flows, as `MAF`, have densities that are continuous everywhere.
        seed: Of all that is drawn.
        dtype: "float32" or "float64".

    >>> import numpy as np, headrace as hr
    >>> x = np.random.default_rng(0).standard_normal((2000, 2))
    >>> x[:, 1] += x[:, 0] ** 2
    >>> flow = hr.DualAscentFlow.notes(steps=50).fit(x, progress=False)
    >>> bool(flow.log_prob(x).mean() > flow[:0].log_prob(x).mean() + 0.1)
    True
    """

    def __init__(
        self,
        precision: float = 1.0,
        steps: int | None = None,
        *,
        map: str = "spline",
        rule: str = "newton",
        kinks: int = 1,
        neighbours: float = NEIGHBOURS,
        directions: str | None = None,
        rotations: str | None = None,
        bandwidth: float | None = None,
        rate: float = RATE,
        bins: int | None = None,
        copies: int | None = None,
        jitter: float = JITTER,
        refine: bool | None = None,
        patience: int | None = PATIENCE,
        bounds: ColumnBounds | None = None,
        periodic: ColumnPeriods | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        self.precision = check.number("precision", precision, least=1e-6, below=1e6)
        self.map = check.choice("map", map, ("spline", "kink"))
        self.rule = check.choice("rule", rule, ("newton", "gradient"))
        self.refine = (None if self.map == "spline" else False) if refine is None else bool(refine)
        self.steps = None if steps is None else check.integer("steps", steps)
        self.kinks = check.integer("kinks", kinks, least=1, most=64)
        self.neighbours = check.number("neighbours", neighbours, above=0.0, below=math.inf)
        self.directions = None if directions is None else check.choice("directions", directions, ("random", "sliced"))
        self.rotations = None if rotations is None else check.choice("rotations", rotations, ("dense", "blocks"))
        self.bandwidth = None if bandwidth is None else check.number("bandwidth", bandwidth, above=0.0, below=math.inf)
        self.rate = check.number("rate", rate, above=0.0, below=math.nextafter(1.0, 2.0))
        self.bins = None if bins is None else check.integer("bins", bins, least=3, most=64)
        self.copies = None if copies is None else check.integer("copies", copies)
        self.jitter = check.number("jitter", jitter, least=0.0, below=math.inf)
        self.patience = None if patience is None else check.integer("patience", patience, least=1)
        self.bounds, self.periodic = _checked(bounds, periodic)
        self.seed = check.integer("seed", seed)
        self.dtype = check.float_dtype("dtype", dtype)
        self.history = AscentHistory()
        """The history of the last fit."""

    @classmethod
    def notes(cls, precision: float = 1.0, steps: int | None = None, **changes: Any) -> Self:
        """The algorithm of the notes (2.5): random rotations and one kink a coordinate; arguments as in the class.

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
        """Fit rows; a new flow each time, on the device of the rows. Ctrl-C ends the fit and keeps the best so far.

        That is a prefix of the ascent, or the weights of the joint training.

        Args:
            x: Shape (rows, features), float32 or float64, any strides. Or a stream (`headrace.rows`): an ascent carries
                its rows along in memory, so that a sample of the buffer's size represents more rows, drawn
                evenly, with a warning.
            context: None: an ascent takes none.
            weights: Shape (rows,): weights of the rows, not negative; rows of weight 0 take no part.
            validation: The share of rows to hold out, or rows of your own: ``x_val`` or ``(x_val, None,
                weights_val)``; None for none, and then all steps are kept.
            time_budget: Seconds that all of this may take, about: an ascent ends before a step that would exceed its
                share (a fifth where the steps are trained as a whole afterwards), and the joint training in its time.
                Such a fit is not the same twice.
            progress: Whether to show a bar on the standard error.
            group: The group of the fit, as in `Flow.fit`: x and the others are then dicts of the shards that this rank
                holds, ``{number: array}``, and all ranks get the same flow.

        Raises:
            TypeError: not arrays of one framework where this computes, of float32 or float64 (docs/arrays.md).
            ValueError: a wrong shape, a context, or rows with a NaN or an infinity, or on a bound or beyond (their
                number and the first one).
            KeyboardInterrupt: Ctrl-C before the first step that is kept; `history` is then as before the call.
            headrace.distributed.GroupError: a rank of the group did not answer in time.
        """
        clock = Clock(time_budget)
        if group is not None:
            if clock.is_limited:
                raise ValueError("time_budget: expected None with a group, whose bits do not depend on time")
            return self._fit_together(x, context, weights, validation, clock, bool(progress), group)
        return self._fit(x, context, weights, validation, clock, bool(progress))

    def _fit_together(
        self, x: Any, context: Any, weights: Any, validation: Any, clock: Clock, progress: bool, group: Group
    ) -> AscentFlow:
        from headrace.ascent.shared_rows import shared_rows
        from headrace.distributed.named import shared_names

        rows, ends = shared_rows(self, group, x, context, weights, validation)
        named = shared_names(group, x, None, Names())
        rng = np.random.default_rng(self.seed)
        flow = self._chosen(rows, rng, clock, progress and group.rank == 0)
        if ends:
            flow = flow._supported(ends)
        flow._interior.name(named)
        return flow

    def _fit(self, x: Any, context: Any, weights: Any, validation: Any, clock: Clock, progress: bool) -> AscentFlow:
        if (stream := stream_of(x, context, weights)) is not None:
            some = stream.some(self.seed)
            if stream.rows is not None and stream.rows > len(some):
                _rows.warn(
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
                ends = cut_open(support, counted(support, array), self.dtype)
                array, validation = off_support(ends, array, validation, caller, names)
            rows = StandardisedRows.of(
                caller, array, context, weights, validation, rng, self.precision, self.seed, self.dtype
            )
            flow = self._chosen(rows, rng, clock, progress)
            if ends:
                flow = flow._supported(ends)
            if caller.device is not None:
                flow = flow.to(repr(caller.device))
        flow._interior.name(named)
        return flow

    def support(self, features: int, names: Sequence[str] | None) -> Support | None:
        """The support of this number of columns, with these names if they are known."""
        own = (("bounds", self.bounds), ("periodic", self.periodic))
        bounds, periodic = (by_column(name, value, features, names) for name, value in own)
        return support_or_none(bounds, features, periodic)

    def _chosen(self, rows: StandardisedRows, rng: np.random.Generator, clock: Clock, progress: bool) -> AscentFlow:
        """The best of the competing fits."""
        is_small = rows.count < COMPETES_BELOW
        refine = not is_small or rows.judge is not None if self.refine is None else self.refine
        first = clock.share(ASCENDING) if refine else clock
        flow, history = self._ascended(rows, rng, refine, first, progress)
        if history.stopped == "interrupted" and history.best_step == 0:
            raise KeyboardInterrupt  # there is no step to return
        self.history = history
        if not refine or self.history.stopped in ("interrupted", "constant") or not clock.has(0.0):
            return flow
        rivals = self.refine is None and is_small
        try:
            flow, refinement = self._refined(flow, rows, rng, clock.share(REFINING) if rivals else clock, progress)
            if refinement.stopped == "interrupted":
                raise KeyboardInterrupt
            if rivals and clock.has(0.0):
                rival, history = self._ascended(rows, rng, False, clock, progress)
                judged = history.validation_log_likelihood  # empty where it was interrupted at once
                if judged and judged[history.best_step] > -refinement.best_loss:
                    flow, self.history = rival, history
                if history.stopped == "interrupted":
                    raise KeyboardInterrupt
        except KeyboardInterrupt:  # also if it came outside of the fits: the flow so far is complete
            self.history.stopped = "interrupted"
        return flow

    def _ascended(
        self, rows: StandardisedRows, rng: np.random.Generator, refine: bool, clock: Clock, progress: bool
    ) -> tuple[AscentFlow, AscentHistory]:
        """The best prefix of an ascent, and its history."""
        alone, n = STEPS[self.map], len(rows.mean)
        steps = (_layers(n) if refine else alone) if self.steps is None else self.steps
        bins = (REFINED_BINS if refine else BINS) if self.bins is None else self.bins
        arguments = (self, rows, rng, steps, 0 if refine else self.copies or 0)
        ascent: Ascent = KinkAscent(*arguments) if self.map == "kink" else SplineAscent(*arguments, bins=bins)
        return ascent.go(progress, clock), ascent.history

    def _refined(
        self, flow: AscentFlow, rows: StandardisedRows, rng: np.random.Generator, clock: Clock, progress: bool
    ) -> tuple[AscentFlow, training.History]:
        """Train all steps together; linear maps that start as the identity stand in for turns of the rotations."""
        n = flow.features
        steps = [_with_shears(step, n, self.dtype) for step in flow._by_step()]
        refined = AscentFlow(steps, flow._standardize(), flow.base, dtype=self.dtype)
        if rows.device is not None:
            refined = refined.to(repr(rows.device))
        copies, count = 0 if self.copies is None else self.copies, rows.count
        if self.copies is None and n <= 3:
            copies = min(COPIES, MOST_COPIED // count)
        x, weights, held_out = rows.to_refine(copies, self.jitter, rng)
        batch = min(max(rows.count // plan.BATCHES, plan.LEAST_BATCH), MOST_BATCH)
        refinement = _fit_quietly(
            refined,
            x,
            weights=weights,
            validation=held_out,
            epochs=min(max(1, round(REFINE_STEPS * batch / (count * max(copies, 1)))), plan.MOST_EPOCHS),
            batch_size=batch,
            learning_rate=REFINE_RATE,
            schedule="cosine",
            average=None,
            patience=None,
            time_budget=max(clock.left(), 1e-9) if clock.is_limited else None,
            seed=self.seed,
            progress=progress,
            group=rows.group,
        )
        self.history.refinement = refinement
        return refined, refinement

    def __repr__(self) -> str:
        """The settings."""
        return (
            f"DualAscentFlow(precision={self.precision:g}, map={self.map!r}, steps={self.steps}, refine={self.refine})"
        )


def _fit_quietly(flow: AscentFlow, x: Any, **settings: Any) -> training.History:
    """Fit, in a group without the warning about small batches, because callers cannot change the batch here."""
    if settings["group"] is None:
        return flow.fit(x, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: a batch is")
        return flow.fit(x, **settings)


def _with_shears(step: list[Transform], features: int, dtype: np.dtype[Any]) -> list[Transform]:
    """A step with shears between its maps and its rotation."""
    at = next(i for i, link in enumerate(step) if isinstance(link, Rotation))
    return [*step[:at], *_shears(features, dtype), *step[at:]]


def _shears(features: int, dtype: np.dtype[Any]) -> list[Transform]:
    """Linear maps with triangular matrices of unit diagonal, upper and lower, which start as the identity."""
    if features == 1:
        return []
    orders = (range(features), range(features - 1, -1, -1))
    shears: list[Transform] = [
        MaskedAutoregressive(features, (), map="additive", formula="to_latent", order=order, dtype=dtype)
        for order in orders
    ]
    for shear in shears:
        shear.parameters = 0.0 * shear.parameters
    return shears


def _checked(bounds: Any, periodic: Any) -> tuple[Any, Any]:
    """Bounds and periods, checked; the columns of dicts are known with the rows alone."""
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
