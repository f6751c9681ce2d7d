"""The nonparametric flow of Tabak and Vanden-Eijnden (2010): data are taken to a normal density in many small steps.

Each step turns the points by an orthogonal matrix and moves every coordinate by a map of its own, chosen so that the
log-likelihood of the points grows; points, not networks, say what it is. docs/dual_ascent.md tells the choices that the
notes leave open, and what they were measured to be worth.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace import _arguments as check
from headrace import _arrays, _device, _directions, _kinks, _marginals, training
from headrace._arrays import Array, Caller
from headrace._device_arrays import caller_of
from headrace._points import Points
from headrace._stored import Stored, storable
from headrace.bases import Base, Normal, StandardNormal
from headrace.elementwise import Elementwise
from headrace.flow import Flow
from headrace.rotation import Rotation
from headrace.transforms import MaskedAutoregressive, Standardize, Transform

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AscentFlow", "AscentHistory", "DualAscentFlow"]

Floats = NDArray[np.float64]

# Defaults, by docs/dual_ascent.md.
STEPS = {"spline": 600, "kink": 2000}  # of an ascent alone, at most
BINS = 40  # of its splines
RATE = 0.3  # how far towards the full marginal map a step goes, after the first
BOUND = 5.0  # standard deviations from which a spline is the identity
NEIGHBOURS = 800.0
PATIENCE = 60
ANCHORS = 1024  # rows among which centers are drawn
BLOCK = 32  # rows of a block of a rotation, where it has blocks
FEW_FEATURES = 128  # below, random rotations are dense
MOST_MARGINAL = 2**17  # rows that come from a device for the marginal maps of a step
STRIDE = 16  # steps that are queued on a device before what they gained is read
DIAGONAL = 8  # rows that the product takes at a time: a diagonal matrix in such blocks costs least

# Of one that is trained as a whole afterwards.
FEW_ROWS = 5000  # below, an ascent alone competes
REFINED_BINS = 8
REFINE_STEPS, REFINE_RATE = 12_000, 4e-3  # of the optimiser
MOST_BATCH = 256
COPIES, JITTER = 16, 0.03  # in up to three dimensions
MOST_COPIED = 150_000  # rows that the copies come to

_SLOPE = 1e-3  # of the maps of an ascent


def _layers(features: int) -> int:
    """Steps of a chain that is trained as a whole."""
    if features == 1:
        return 8
    return 48 if features <= 3 else 16


@dataclass
class AscentHistory:
    """What happened in an ascent. Log-likelihoods are means over the rows in nats, in the data's units."""

    log_likelihood: list[float] = field(default_factory=list)
    """Of the training rows; first after no step, where data are standardised, then after each."""
    validation_log_likelihood: list[float] = field(default_factory=list)
    """Of the rows held out; empty without any."""
    seconds: list[float] = field(default_factory=list)
    """Since the fit began."""
    best_step: int = 0
    """After which the flow was cut: the best on rows held out, or the last without any."""
    stopped: str = "steps"
    """Why the ascent ended: "steps" (all done), "patience" or "interrupted", the latter also after the ascent."""
    refinement: training.History | None = None
    """Of the joint training after the ascent, where there was one."""

    def __repr__(self) -> str:
        """The outcome."""
        judged = self.validation_log_likelihood or self.log_likelihood
        best = f"{judged[self.best_step]:.4f}" if judged else "none"
        return (
            f"AscentHistory(steps={max(len(judged) - 1, 0)}, best_step={self.best_step}, best={best}, "
            f"stopped={self.stopped!r}, refinement={self.refinement!r})"
        )


@storable
class AscentFlow(Flow):
    """A flow of ascent steps, as `DualAscentFlow.fit` makes it.

    ``flow[:t]`` is the density ρ̃_t after t steps **from the data's side** (eq. 3-5): data standardised, taken through
    the first t steps, and held against the base. A plain `Flow` counts from the latent side. ``len(flow)`` counts
    steps; `transforms` lists what they consist of, from latent to data as in every flow.

    Args:
        steps: For each step its transforms, in latent → data order; the first step is next to the data.
        standardize: What comes before the first step.
        base: By default `StandardNormal`.
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        steps: list[list[Transform]],
        standardize: Standardize,
        base: Base | None = None,
        *,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        self._lengths = tuple(len(step) for step in steps)
        chain = [t for step in reversed(steps) for t in step]
        super().__init__([*chain, standardize], base, dtype=dtype)

    def __len__(self) -> int:
        """Number of steps."""
        return len(self._lengths)

    def __getitem__(self, index: slice) -> AscentFlow:
        """``flow[:t]``: the flow after t steps from the data's side, with copies of their parameters."""
        if not isinstance(index, slice) or index.start not in (None, 0) or index.step not in (None, 1):
            raise TypeError(f"index: expected a slice flow[:t], got {index!r}; use flow.transforms for single ones")
        t = len(range(len(self))[index])
        flow = AscentFlow(self._by_step()[:t], self._standardize(), self.base, dtype=self._dtype)
        return flow if self._device is None else flow._on(self._device)

    def _standardize(self) -> Standardize:
        """What comes before the first step, on the CPU."""
        last = self._chain[-1]
        assert isinstance(last, Standardize)
        return last if last._device is None else last.to("cpu")

    def _by_step(self) -> list[list[Transform]]:
        """The transforms of each step, from the data's side, on the CPU."""
        chain, end, steps = list(self._transforms_on(None)), len(self._chain) - 1, []
        for length in self._lengths:
            steps.append(chain[end - length : end])
            end -= length
        return steps

    def _header(self) -> dict[str, Any]:
        return {**super()._header(), "steps": list(self._lengths)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        lengths = check.integers("steps", stored.items("steps"))
        self = super()._from_file(stored)
        if sum(lengths) + 1 != len(self._chain) or not isinstance(self._chain[-1], Standardize):
            raise ValueError(
                f"steps: expected numbers of transforms that add up to {len(self._chain) - 1}, and a Standardize "
                f"after them, got {sum(lengths)}"
            )
        self._lengths = lengths
        return self

    def __repr__(self) -> str:
        """Sizes and base."""
        return f"AscentFlow(features={self.features}, steps={len(self)}, base={self._base!r})"


class DualAscentFlow:
    """Density estimation by dual ascent of the log-likelihood (Tabak, Vanden-Eijnden 2010), section 2 of the notes.

    Data are standardised. Then each step turns the points by an orthogonal matrix and maps every coordinate for
    itself, so that the log-likelihood L of eq. 23 grows. Rows held out say when to stop, and the best prefix is kept.

    **The defaults are not the notes' algorithm but what was found to be better** (docs/dual_ascent.md): a step maps
    coordinates by splines that make their marginals normal, first along the data's own axes; a short chain of steps
    is then trained as a whole by `Flow.fit`. `DualAscentFlow.notes` is the algorithm of the notes.

    Args:
        precision: λ, of the normal density N(0, 1/λ) that the data are taken to; 1e-6 to 1e6.
        steps: Steps at most; by default 600 ("spline") or 2000 ("kink"), and 48 (up to three features) or 16 where
            they are trained as a whole.
        map: "spline": marginal maps from kernel densities; "kink": eq. 25, a line that bends.
        rule: How a kink is chosen. "newton": Newton's step of the concave parametrisation, shortened where a lower
            bound of L asks for it, so that no step makes L less; "gradient": along the gradient (eq. 24), as far as
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
        copies: Training rows are taken so many times, each time with noise of its own; 0 for as they are. By default 16
            for the joint training in up to three dimensions (fewer from 10,000 rows on), otherwise 0.
        jitter: Standard deviation of this noise, in units of the columns'.
        refine: Whether to train the steps as a whole after the ascent, which itself then takes rows as they are. By
            default splines are; with fewer than 5000 training rows a longer ascent of finer splines competes on the
            rows held out, and without any it is taken alone.
        patience: Steps without a new best on held-out rows after which the ascent ends; None for no end.
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
        self.seed = check.integer("seed", seed)
        self.dtype = check.float_dtype("dtype", dtype)
        self.history = AscentHistory()
        """Of the last fit."""

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
        progress: bool = True,
    ) -> AscentFlow:
        """Fit rows; a new flow each time, on the device of the rows. Ctrl-C ends the fit and keeps the best so far.

        That is a prefix of the ascent, or the weights of the joint training.

        Args:
            x: Shape (rows, features), float32 or float64, any strides.
            context: None: an ascent takes none.
            weights: Shape (rows,): weights of the rows, not negative; rows of weight 0 take no part.
            validation: The share of rows to hold out, or rows of your own: ``x_val`` or ``(x_val, None,
                weights_val)``; None for none, and then all steps are kept.
            progress: Whether to show a bar on the standard error.

        Raises:
            TypeError: not arrays of one framework where this computes, of float32 or float64 (docs/arrays.md).
            ValueError: a wrong shape, a context, or rows with a NaN or an infinity (their number and the first one).
        """
        return self._fit(x, context, weights, validation, bool(progress))

    def _fit(self, x: Any, context: Any, weights: Any, validation: Any, progress: bool) -> AscentFlow:
        caller = caller_of(x)
        array = caller.open("x", x)
        if array.ndim != 2 or not array.shape[1]:
            raise ValueError(f"x: expected shape (rows, features) with at least one feature, got {array.shape}")
        rng = np.random.default_rng(self.seed)
        with caller.queue():
            rows = _Rows.of(caller, array.shape[1], x, context, weights, validation, rng, self.precision)
            flow = self._chosen(rows, rng, progress)
            if caller.device is not None:
                flow = flow.to(repr(caller.device))
        return flow

    def _chosen(self, rows: _Rows, rng: np.random.Generator, progress: bool) -> AscentFlow:
        """The best of what there is to try."""
        few = rows.train.size < FEW_ROWS
        refine = not few or rows.held_out is not None if self.refine is None else self.refine
        flow, self.history = self._ascended(rows, rng, refine, progress)
        if not refine or self.history.stopped == "interrupted":
            return flow
        try:
            flow, refinement = self._refined(flow, rows, rng, progress)
            if refinement.stopped == "interrupted":
                raise KeyboardInterrupt
            if self.refine is None and few:
                rival, history = self._ascended(rows, rng, False, progress)
                judged = history.validation_log_likelihood  # empty where it was interrupted at once
                if judged and judged[history.best_step] > -refinement.best_loss:
                    flow, self.history = rival, history
                if history.stopped == "interrupted":
                    raise KeyboardInterrupt
        except KeyboardInterrupt:  # also where none of the fits saw it: the flow so far is whole
            self.history.stopped = "interrupted"
        return flow

    def _ascended(
        self, rows: _Rows, rng: np.random.Generator, refine: bool, progress: bool
    ) -> tuple[AscentFlow, AscentHistory]:
        """The best prefix of an ascent, and what happened."""
        alone, n = STEPS[self.map], len(rows.mean)
        steps = (_layers(n) if refine else alone) if self.steps is None else self.steps
        bins = (REFINED_BINS if refine else BINS) if self.bins is None else self.bins
        ascent = _Ascent(self, rows, rng, steps, bins, 0 if refine else self.copies or 0)
        return ascent.go(progress), ascent.history

    def _refined(
        self, flow: AscentFlow, rows: _Rows, rng: np.random.Generator, progress: bool
    ) -> tuple[AscentFlow, training.History]:
        """Train all steps together; linear maps that start as the identity stand in for turns of the rotations."""
        n = flow.features
        steps = [_with_shears(step, n, self.dtype) for step in flow._by_step()]
        refined = AscentFlow(steps, flow._standardize(), flow.base, dtype=self.dtype)
        if rows.device is not None:
            refined = refined.to(repr(rows.device))
        x, weights = rows.given(rows.train)
        copies = 0 if self.copies is None else self.copies
        if self.copies is None and n <= 3:
            copies = min(COPIES, MOST_COPIED // len(x))
        if copies:
            x, weights = _jittered(x, weights, copies, self.jitter * rows.std * math.sqrt(1 / self.precision), rng)
        held_out = None
        if rows.held_out is not None:
            held_out = (rows.held_out.x, None, rows.held_out.weights)
        batch = min(max(rows.train.size // training.BATCHES, training.LEAST_BATCH), MOST_BATCH)
        self.history.refinement = refinement = refined.fit(
            x,
            weights=weights,
            validation=held_out,
            epochs=min(max(1, round(REFINE_STEPS * batch / len(x))), training.MOST_EPOCHS),
            batch_size=batch,
            learning_rate=REFINE_RATE,
            schedule="cosine",
            average=None,
            patience=None,
            seed=self.seed,
            progress=progress,
        )
        return refined, refinement

    def __repr__(self) -> str:
        """The choices."""
        return (
            f"DualAscentFlow(precision={self.precision:g}, map={self.map!r}, steps={self.steps}, refine={self.refine})"
        )


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """Rows to fit and rows held out, with what standardises them."""

    data: training._Data
    train: NDArray[np.int64]
    held_out: training._Data | None
    mean: Floats
    std: Floats
    device: Any  # as of a `Caller`

    @classmethod
    def of(
        cls,
        caller: Caller,
        features: int,
        x: Any,
        context: Any,
        weights: Any,
        validation: Any,
        rng: Any,
        precision: float,
    ) -> _Rows:
        shape = Flow([], StandardNormal(features))  # says how many columns there are
        data = training._open("", shape, caller, x, context, weights)
        train, held_out = training._split(shape, data, validation, rng, caller)
        mean, std = training._moments("x", data.x, data.weights, train)
        return cls(data, train, held_out, mean, std * math.sqrt(precision), caller.device)

    def given(self, index: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Rows as they were given, and their weights."""
        part = self.data.rows(index)
        return part.x, part.weights

    def standardised(self, x: NDArray[Any]) -> Floats:
        asarray = _arrays.library(x).asarray
        result: Floats = (x.astype(np.float64) - asarray(self.mean)) / asarray(self.std)
        return result


def _jittered(
    x: NDArray[Any], weights: NDArray[Any] | None, copies: int, spread: Any, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """So many copies of rows, each with noise of its own."""
    many = np.tile(x, (copies, 1))
    many += _arrays.library(x).asarray((spread * rng.standard_normal(many.shape)).astype(x.dtype))
    return many, None if weights is None else np.tile(weights, copies)


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


# ---- the ascent ------------------------------------------------------------------------------------------------------


class _Ascent:
    """One ascent while it runs: points to fit and points held out, carried along."""

    def __init__(
        self, settings: DualAscentFlow, rows: _Rows, rng: np.random.Generator, n_steps: int, bins: int, copies: int
    ) -> None:
        self.settings, self.rows, self.rng = settings, rows, rng
        self.n_steps, self.bins = n_steps, bins
        self.history = AscentHistory()
        self.steps: list[list[Transform]] = []
        self.queued: _device.Ascent | None = None  # what decides on a device instead, and the turns it was told
        self.turns: list[_directions.Turn] = []
        x, weights = rows.given(rows.train)
        z = rows.standardised(x)
        if copies:
            z, weights = _jittered(z, weights, copies, settings.jitter / math.sqrt(settings.precision), rng)
        self.features = n = z.shape[1]
        default = {"kink": "random", "spline": "sliced" if n > 2 else "random"}[settings.map]
        self.directions = settings.directions or default
        many = self.directions == "random" and n >= FEW_FEATURES
        blocks = (settings.rotations or ("blocks" if many else "dense")) == "blocks"
        self.sizes = [min(BLOCK, n - start) for start in range(0, n, BLOCK)] if blocks else [n]
        self.weights = None if weights is None else weights.astype(np.float64)
        self.total = float(len(z)) if self.weights is None else float(self.weights.sum())
        square = 1.0 if self.weights is None else float(np.square(self.weights).sum())
        self.effective_rows = len(x) if self.weights is None else self.total**2 / square
        self.z = z
        self.library = _arrays.library(z)
        self.for_marginals = None  # the rows that marginal maps are made from; None for all
        if rows.device is not None and len(z) > MOST_MARGINAL:
            self.for_marginals = self.library.asarray(np.sort(rng.permutation(len(z))[:MOST_MARGINAL]))
        self.constant = 0.5 * self.features * math.log(settings.precision / (2.0 * math.pi)) - np.log(rows.std).sum()

    def flow(self) -> AscentFlow:
        """The steps up to the best."""
        s, n = self.settings, self.features
        base = StandardNormal(n) if s.precision == 1.0 else Normal(n, scale=s.precision**-0.5, trainable=False)
        standardize = Standardize(self.rows.mean, self.rows.std)
        best = self.history.best_step
        steps = self.steps[:best] if self.queued is None else self._read_steps(self.queued, best)
        return AscentFlow(steps, standardize, base, dtype=s.dtype)

    def go(self, progress: bool) -> AscentFlow:
        """All steps, or as many as patience allows; then the best prefix, whatever happens."""
        from tqdm import tqdm

        s, history, begin = self.settings, self.history, time.perf_counter()
        bar = tqdm(total=self.n_steps, desc="ascent", unit="step", disable=not progress)
        try:
            for log_likelihood, held_out in self._steps():
                history.log_likelihood.append(log_likelihood)
                history.seconds.append(time.perf_counter() - begin)
                step = len(history.log_likelihood) - 1
                judged = history.validation_log_likelihood
                if held_out is None:
                    history.best_step = step
                else:
                    judged.append(held_out)
                    if held_out > judged[history.best_step]:
                        history.best_step = step
                bar.set_postfix({"train": f"{log_likelihood:.3f}"}, refresh=False)
                bar.update(min(step, 1))
                if s.patience is not None and step - history.best_step >= s.patience:
                    history.stopped = "patience"
                    break
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        finally:
            bar.close()
        return self.flow()

    def _steps(self) -> Any:
        """All steps; before the first and after each the log-likelihoods."""
        if self.settings.map == "spline":
            return self._splines()
        on_device = self.rows.device is not None and self.directions == "random"  # sliced ones need the points here
        return self._kinks_on_device() if on_device else self._kinks()

    def _log_likelihood(self, squares: Floats, log_jacobian: NDArray[Any], weights: NDArray[Any] | None) -> float:
        """The mean over rows at these squares of the distance from 0."""
        terms = log_jacobian.astype(np.float64, copy=False) - 0.5 * self.settings.precision * squares
        total = len(terms) if weights is None else float(weights.sum(dtype=np.float64))
        return _arrays.weighted_sum(terms, weights) / total + float(self.constant)

    def _held_out(self) -> Floats:
        assert self.rows.held_out is not None
        return self.rows.standardised(self.rows.held_out.x)

    # ---- kinks

    def _kinks(self) -> Any:
        """Steps of the notes; after each the log-likelihoods."""
        s, n, rng = self.settings, self.features, self.rng
        points = Points(self.z, self.weights, s.dtype)
        anchors = Points(_arrays.on_host(self._anchors()), None, np.float64)
        parties = [points, anchors]
        held_out = None
        if self.rows.held_out is not None:
            held_out = Points(self._held_out(), None, s.dtype)
            parties.append(held_out)

        def judged() -> tuple[float, float | None]:
            own = self._log_likelihood(points.squares(), points.log_jacobian(), self.weights)
            if held_out is None:
                return own, None
            assert self.rows.held_out is not None
            weights = self.rows.held_out.weights
            return own, self._log_likelihood(held_out.squares(), held_out.log_jacobian(), weights)

        yield judged()
        for _ in range(self.n_steps):
            turn = self._turn(points.values().astype(np.float64) if self.directions == "sliced" else None, rng)
            maps, scale, matrix, bias, order = np.zeros((n, 3)), 0.0, turn.blocks, np.zeros(n), turn.order
            maps[:, 2] = 1.0
            links = turn.transforms()
            for _ in range(s.kinks):
                for party in parties[1:]:
                    party.step(maps, scale, matrix, bias, None, order)
                rows, drawn = self._centers(rng)
                center = np.where(rows < 0, drawn, anchors.values()[np.maximum(rows, 0), np.arange(n)])
                epsilon = _kinks.width(center, self.effective_rows, s.neighbours, s.precision)
                following = np.stack([center, epsilon * epsilon], axis=1)
                sums = points.step(maps, scale, matrix, bias, following, order)
                assert sums is not None
                a, b, c, _ = _kinks.bent_line(sums / self.total, following, s.precision, s.rule)
                maps = np.stack([c / a, center, epsilon * epsilon], axis=1)
                cuts = range(DIAGONAL, n, DIAGONAL)
                matrix = [np.diag(part) for part in np.split(a, cuts)]
                scale, bias, order = float(np.log(a).sum()), b, None
                links.insert(0, _kink(a, b, c / a, center, epsilon, s.dtype))
            for party in parties:
                party.step(maps, scale, matrix, bias)
            self.steps.append(links)
            yield judged()

    def _kinks_on_device(self) -> Any:
        """The same where all rows are on a device, which chooses the kinks itself: only log-likelihoods are waited for.

        They are read every so many steps, whose random numbers come from a copy of the generator: the fit's own is at
        each step where it would be if no other had been queued.
        """
        s, none = self.settings, _directions.Turn.none([1] * self.features)
        points, anchors = Points(self.z, self.weights, s.dtype), Points(self._anchors(), None, np.float64)
        held_out, held_out_total = None, 1.0
        if self.rows.held_out is not None:
            z, weights = self._held_out(), self.rows.held_out.weights
            held_out = Points(z, weights, s.dtype)
            held_out_total = float(len(z) if weights is None else weights.sum(dtype=np.float64))
        self.queued = ascent = _device.Ascent(
            points.compiled,
            anchors.compiled,
            None if held_out is None else held_out.compiled,
            total=self.total,
            held_out_total=held_out_total,
            precision=s.precision,
            rows=self.effective_rows,
            neighbours=s.neighbours,
            rule=s.rule,
            most=self.n_steps * s.kinks,
        )
        ahead = copy.deepcopy(self.rng)
        states, read = [ahead.bit_generator.state], 0
        for step in range(1, self.n_steps + 2):  # one more, as a kink tells what those before it have gained
            if step <= self.n_steps:
                self.turns.append(self._turn(None, ahead))
                for turn in [self.turns[-1], *[none] * (s.kinks - 1)]:
                    rows, drawn = self._centers(ahead)
                    ascent.kink(turn.blocks, turn.places(), rows.tolist(), drawn.tolist())
                states.append(ahead.bit_generator.state)
            else:
                ascent.finish()
            if step > self.n_steps or step % STRIDE == 0:
                found = ascent.log_likelihoods()[:: s.kinks] + float(self.constant)
                for own, others in found[read:].tolist():
                    self.rng.bit_generator.state = states[read]
                    yield own, None if held_out is None else others
                    read += 1

    def _read_steps(self, ascent: _device.Ascent, count: int) -> list[list[Transform]]:
        """The first steps of those that a device has taken, which are waited for."""
        each, steps = self.settings.kinks, []
        kinks = ascent.kinks()[: count * each].transpose(0, 2, 1)
        for i, turn in enumerate(self.turns[:count]):
            links = turn.transforms()
            for a, b, c, center, square in kinks[i * each : (i + 1) * each]:
                links.insert(0, _kink(a, b, c / a, center, np.sqrt(square), self.settings.dtype))
            steps.append(links)
        return steps

    def _anchors(self) -> Floats:
        """Some of the points as they are at the start, where they are."""
        anchors: Floats = self.z[self.library.asarray(self.rng.permutation(len(self.z))[:ANCHORS])]
        return anchors

    def _centers(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        """Of the next kinks: half of them where that row of the anchors is, half at numbers drawn from the base.

        Where it is a number the row is -1.
        """
        n = self.features
        rows = rng.integers(min(ANCHORS, len(self.z)), size=(n,))
        drawn = rng.standard_normal((n,)) / math.sqrt(self.settings.precision)
        return np.where(rng.random(n) < 0.5, rows, -1), drawn

    def _turn(self, z: Floats | None, rng: np.random.Generator) -> _directions.Turn:
        """The next one, for points that are there now, on which sliced directions depend."""
        if self.directions == "random":
            return _directions.random_turn(self.sizes, rng)
        assert z is not None
        return _directions.sliced_turn(z * math.sqrt(self.settings.precision), self.sizes, rng)

    # ---- splines

    def _splines(self) -> Any:
        """Steps of marginal maps; after each the log-likelihoods."""
        s, n = self.settings, self.features
        unit = math.sqrt(s.precision)  # of the base's standard deviations
        bandwidth = s.bandwidth or (2.0 if n >= 5 else 1.0)
        zeros = self.library.zeros
        parts = [(self.z.astype(s.dtype), zeros(len(self.z)), self.weights)]
        if self.rows.held_out is not None:
            z = self._held_out().astype(s.dtype)
            parts.append((z, zeros(len(z)), self.rows.held_out.weights))
        shares = None if self.weights is None else self._for_marginals(self.weights)

        def judged() -> tuple[float, float | None]:
            each = [
                self._log_likelihood(np.multiply(z, z, dtype=np.float64).sum(axis=1), log_jacobian, weights)
                for z, log_jacobian, weights in parts
            ]
            return each[0], each[1] if len(each) > 1 else None

        yield judged()
        for step in range(self.n_steps):
            z = parts[0][0].astype(np.float64)
            turn = self._turn(z, self.rng) if step else _directions.Turn.none(self.sizes)
            turned = turn.of_rows(self._for_marginals(z))
            curves = [
                _marginals.normal_score(turned[:, k] * unit, shares, bandwidth if step else 1.0) for k in range(n)
            ]
            maps = _first_maps(curves, self.bins, unit, s.dtype) if step == 0 else []
            if step:
                shrunk = [curve and curve.shrunk(s.rate) for curve in curves]
                maps = [_spline(shrunk, self.bins, unit, s.dtype)]
            links: list[Transform] = [*maps, *turn.transforms()]
            moves = [link if self.rows.device is None else link.to(repr(self.rows.device)) for link in links]
            for i, (points, log_jacobian, weights) in enumerate(parts):
                for move in reversed(moves):
                    points, log_det = move.inverse(points)
                    log_jacobian = log_jacobian + log_det
                parts[i] = (points, log_jacobian, weights)
            self.steps.append(links)
            yield judged()

    def _for_marginals(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Those rows that marginal maps are made from, on the host."""
        return _arrays.on_host(rows if self.for_marginals is None else rows[self.for_marginals])


def _kink(a: Floats, b: Floats, gamma: Floats, center: Floats, epsilon: Floats, dtype: Any) -> Elementwise:
    """The bent lines a x + b + a γ sqrt(ε² + (x - center)²) as a transform: its raw parameters."""
    limit = math.log(1.0 / _SLOPE)
    log_a, share = np.log(a), gamma / (1.0 - _SLOPE)
    above = epsilon - 1e-3
    raw = {
        "stretch": log_a / (1.0 - np.abs(log_a) / limit),
        "shift": b,
        "bend": share / np.sqrt(1.0 - share * share),
        "center": center,
        "width": above + np.log(-np.expm1(-above)) - math.log(math.expm1(1.0 - 1e-3)),
    }
    return _elementwise(raw, dtype, "dual_ascent")


def _spline(curves: list[Any], bins: int, unit: float, dtype: Any) -> Elementwise:
    """Splines of the curves, which are in units of the base's standard deviation."""
    packed = np.stack([_marginals.spline_parameters(curve, bins, BOUND, _SLOPE) for curve in curves])
    raw = {"width": packed[:, :bins], "height": packed[:, bins : 2 * bins], "derivative": packed[:, 2 * bins :]}
    return _elementwise(raw, dtype, "rq_spline", bins=bins, bound=BOUND / unit)


def _elementwise(raw: dict[str, Floats], dtype: Any, map: str, **settings: Any) -> Elementwise:
    columns = [values.reshape(len(values), -1) for values in raw.values()]
    made = Elementwise(len(columns[0]), map=map, formula="to_latent", slope=_SLOPE, dtype=dtype, **settings)
    for name, values in zip(raw, columns, strict=True):
        made.set_parameter(name, values.astype(dtype))
    return made


def _first_maps(curves: list[Any], bins: int, unit: float, dtype: Any) -> list[Transform]:
    """Full marginal maps: a bent line with the curve's straight ends, then a spline for the rest."""
    kinks: list[tuple[float, ...]] = []
    rest: list[_marginals.Curve | None] = []
    for curve in curves:
        if curve is None:
            kinks.append((1.0, 0.0, 0.0, 0.0, 1.0))
            rest.append(None)
            continue
        a, b, gamma, center, epsilon = _marginals.kink_parameters(curve)
        kinks.append((a, b, gamma, center, epsilon))
        w = curve.x - center
        r = np.hypot(epsilon, w)
        rest.append(_marginals.Curve(a * (curve.x + gamma * r) + b, curve.y, curve.slope / (a * (1.0 + gamma * w / r))))
    a, b, gamma, center, epsilon = np.array(kinks).T
    epsilon = np.maximum(epsilon / unit, _kinks.LEAST_WIDTH)
    bent = _kink(a, b / unit, gamma, center / unit, epsilon, dtype)
    return [_spline(rest, bins, unit, dtype), bent]
