"""Fits of few rows: cross-validation chooses the initial density and the number of epochs, 0 if training does not help.

A fit of few rows begins at the best density that needs no training: a Gaussian or a small mixture of normal densities.
Cross-validation also chooses whether marginal curves transform the columns first (which makes a Gaussian a Gaussian
copula), and whether residuals replace columns that others nearly determine.

For clusters of different shapes, a mixture of normal densities with a covariance for each component needs fewer rows
than networks do. No base has full covariances, but a mixture can be the teacher of a flow, the student: any number of
samples of the mixture replaces the rows in the training of the student.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.row_parts import RowPart
from headrace._base import progress as _progress
from headrace._base.types import Floats
from headrace._fit import gaussian as _gaussian
from headrace._fit.clock import Clock
from headrace._fit.given_rows import Data, Index, Moments, outside
from headrace._fit.residuals import ALWAYS, TRIED, Residuals, behind, of_rows
from headrace._fit.run import HeldOut, Run
from headrace._fit.source import ArrayRows
from headrace._fit.starts import curves as _curves
from headrace._fit.starts import mixture as _mixture
from headrace._fit.starts.curves import mean_beyond
from headrace._flow.bases import Base, StandardNormal
from headrace._flow.fit_arguments import Arguments
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform

FOLDS = 5
WAIT = 25  # epochs without a new best


class Fold(RowPart):
    """A part of rows for cross-validation: one fold, which is every fifth row, or (`out=False`) all other folds."""

    def __init__(self, whole: RowPart, fold: int, *, out: bool) -> None:
        self.places = np.flatnonzero((np.arange(whole.size) % FOLDS == fold) == out).astype(np.int64)
        self.part, self.size = whole, self.places.size

    def at(self, places: Index) -> Index:
        """The indices, in the whole table, of the rows at some positions of this part."""
        return self.part.at(self.places[places])


def clearly_better(losses: NDArray[np.float64], than: NDArray[np.float64], weights: NDArray[np.float64]) -> bool:
    """Whether the mean of `losses` is below the mean of `than` by more than a standard error of the difference.

    Both arrays have the losses of the same rows. The test is the one-standard-error rule (Breiman et al. 1984).
    """
    return mean_beyond(than - losses, weights / weights.sum(), 1.0) > 0.0


def pooled(flow: Flow, source: ArrayRows, made: Callable[[Flow, ArrayRows], None]) -> NDArray[np.float64]:
    """The losses of the rows of each fold under a copy of the flow, which `made` fits to the other folds."""
    losses = []
    for fold in range(FOLDS):
        judge = HeldOut(source.of(Fold(source.part, fold, out=True)), flow._interior.on_device)
        other = copy.copy(flow)
        made(other, source.of(Fold(source.part, fold, out=False)))
        losses.append(-judge.log_probs(other))
    return np.concatenate(losses)


@dataclass(frozen=True)
class Chosen:
    """The result of cross-validation: losses of the rows that fits leave out, fold after fold."""

    epochs: int
    """The number of epochs after which the mean loss is lowest; 0 if it is lowest before the first epoch."""
    history: list[float]
    """The mean loss after each epoch up to the best one."""
    start: NDArray[np.float64]
    """The loss of each row before the first epoch."""
    best: NDArray[np.float64]
    """The loss of each row after the best epoch."""
    weights: NDArray[np.float64]
    """The weight of each row."""

    def mean(self, losses: NDArray[np.float64]) -> float:
        """The weighted mean of the losses of rows; infinity if the mean is not finite."""
        loss = float((losses * self.weights).sum() / self.weights.sum())
        return loss if math.isfinite(loss) else math.inf


def chosen_epochs(
    flow: Flow,
    source: ArrayRows,
    made: Callable[[Flow, ArrayRows], Run],
    most: int,
    clock: Clock,
    progress: bool = False,
) -> Chosen:
    """Choose the number of epochs by cross-validation: the one with the lowest mean loss of the rows left out.

    A fit for each fold leaves out the rows of the fold; all fits advance side by side, an epoch at a time. `made`
    prepares a flow for rows and returns its run; all runs share `clock`.
    """
    runs, judges = [], []
    for fold in range(FOLDS):
        runs.append(made(copy.copy(flow), source.of(Fold(source.part, fold, out=False))))
        judges.append(HeldOut(source.of(Fold(source.part, fold, out=True)), flow._interior.on_device))
    weights = np.concatenate([judge.weights() for judge in judges])

    def losses(parameters: Callable[[Run], Any]) -> NDArray[np.float64]:
        return -np.concatenate([j.log_probs(r.flow, parameters(r)) for r, j in zip(runs, judges, strict=True)])

    start = losses(lambda run: run.flow.parameters)
    chosen = Chosen(0, [], start, start, weights)
    history: list[float] = []
    with _progress.bar(most, "cross-validate", "epoch", progress, leave=False) as shown:
        for epoch in range(1, most + 1):
            passed = [run.one_pass() for run in runs]
            if clock.ran_out or not all(map(math.isfinite, passed)):
                break
            now = losses(Run.current)
            history.append(chosen.mean(now))
            shown.update()
            if history[-1] < chosen.mean(chosen.best):
                chosen = Chosen(epoch, list(history), start, now, weights)
            if epoch - chosen.epochs >= WAIT:
                break
    return chosen


Links = tuple[Transform, ...]

MOST_ROWS = 2000  # the most rows for a mixture as the base
LEAST_ROWS = 40


@dataclass(frozen=True)
class Beginning:
    """Settings of an initial density, which needs no training."""

    limit: float = ALWAYS
    """Columns with a 1 - R² below this limit are replaced by their residuals."""
    curves: bool = False
    components: int = 0
    """The number of components of a mixture; 0 for a Gaussian."""


@dataclass(frozen=True)
class Begun:
    """An initial density, fitted to some rows, as links and base of a flow."""

    links: Links
    base: Base | None
    residuals: Residuals
    has_curves: bool


def begun(source: ArrayRows, scale: Moments, context: Moments | None, dtype: Any, kind: Beginning, seed: int) -> Begun:
    """Fit an initial density to training rows. `scale`, `context`: moments of x and of contexts."""
    z, share, _ = standardised(source, scale)
    circles = circles_of(source.support)
    curves, residuals = inner_links(z, share, kind.limit, kind.curves, circles, dtype)
    inner = (*curves, *residuals.links)
    base: Base | None = None
    outer: Links
    if kind.components:
        mixture = _mixture.fitted(behind(z, inner), share, kind.components, seed)
        outer, base = mixture.links(), mixture.base()
    else:
        outer = _gaussian.decorrelating(source, *scale, context, dtype, inner)
    return Begun((*outer, *inner, Standardize(*scale)), base, residuals, bool(curves))


def best_beginnings(
    flow: Flow,
    source: ArrayRows,
    made: Callable[[Flow, ArrayRows, Beginning], None],
    scale: Moments,
    seed: int,
    clock: Clock,
    *,
    curves: Sequence[bool],
    mixes: bool,
) -> list[tuple[Beginning, Chosen]]:
    """Choose initial densities by cross-validation; return each with its losses of rows left out, the best one first.

    The best Gaussian without curves is first unless another density is better by more than the standard error of the
    difference.

    The result also has the best Gaussian and the best Gaussian without curves, because networks may do better over
    these densities. If no time is left, only the first Gaussian is returned.

    `made` fits an initial density with given settings to rows and puts it into a flow. `curves`: the values of
    `Beginning.curves` to try, in order. `mixes`: whether mixtures, which replace the base, are tried too.
    """
    z, share, _ = standardised(source, scale)
    circles, dtype = circles_of(source.support), flow.dtype
    limits = [ALWAYS]
    always, more = (of_rows(z, share, limit, circles, dtype) for limit in (ALWAYS, TRIED))
    if more.shares.keys() != always.shares.keys():
        limits.append(TRIED)

    weights = in_folds(share)

    def judged(kind: Beginning) -> tuple[Beginning, Chosen]:
        losses = pooled(flow, source, lambda one, rows: made(one, rows, kind))
        return kind, Chosen(0, [], losses, losses, weights)

    def loss(pair: tuple[Beginning, Chosen]) -> float:
        return pair[1].mean(pair[1].best)

    kinds = [Beginning(limit, has_curves) for limit in limits for has_curves in curves]
    gaussians = sorted((judged(kind) for i, kind in enumerate(kinds) if not i or clock.has(0.0)), key=loss)
    best = gaussians[:1]
    if mixes and can_mix(flow, source) and clock.has(0.0):
        limit = best[0][0].limit
        for has_curves in curves:
            kind = Beginning(limit, has_curves)
            components = _components(z, share, circles, dtype, kind, seed)
            best.append(judged(replace(kind, components=components)))
    best.sort(key=loss)
    plain = next((pair for pair in gaussians if not pair[0].curves), gaussians[0])
    if not clearly_better(best[0][1].best, plain[1].best, weights):
        best.insert(0, plain)
    return list(dict((best[0], gaussians[0], plain)).items())


def standardised(source: ArrayRows, scale: Moments) -> tuple[Floats, Floats, Floats]:
    """Standardised rows, their weights, and the log determinants of the map from the data to the standardised rows."""
    data, rows = source.data, source.library.asarray(source.part.all())
    x, slopes = _arrays.on_host(data.x[rows]).astype(np.float64), np.zeros(source.size)
    if source.support is not None:
        x, slopes = source.support.inverse(x)
    return (x - scale[0]) / scale[1], _arrays.on_host(data.shares(rows)), slopes - np.log(scale[1]).sum()


def can_mix(flow: Flow, source: ArrayRows) -> bool:
    """Whether a mixture of normal densities may replace the base of the flow in a fit to these rows."""
    features = flow.features
    return (
        type(flow._interior.base) is StandardNormal
        and not flow.context
        and not circles_of(source.support)
        and LEAST_ROWS <= source.size <= MOST_ROWS
        and features <= _gaussian.MOST_FEATURES
    )


def in_folds(values: Floats) -> Floats:
    """Reorder values of rows fold after fold, which is the order of the losses that `pooled` returns."""
    return np.concatenate([values[np.arange(len(values)) % FOLDS == fold] for fold in range(FOLDS)])


def inner_links(
    z: Floats, share: Floats, limit: float, curves: bool, circles: Sequence[int], dtype: Any
) -> tuple[Links, Residuals]:
    """Fit links to standardised rows: marginal curves if `curves`, and residuals of columns that others determine."""
    residuals = of_rows(z, share, limit, circles, dtype)
    return (_curves.of_few_rows(behind(z, residuals.links), share, circles) if curves else ()), residuals


@dataclass(frozen=True)
class Seen:
    """The rows that a mixture is fitted to and the rows left out, both mapped by links made from the former."""

    seen: Floats
    share: Floats
    unseen: Floats
    slopes: Floats
    """Log determinants of the links at the unseen rows."""

    @classmethod
    def of(
        cls, z: Floats, share: Floats, fold: int, limit: float, curves: bool, circles: Sequence[int], dtype: Any
    ) -> Seen:
        """Leave out the rows of a fold; the mixture is fitted to all other rows."""
        out = np.arange(len(z)) % FOLDS == fold
        links_inside, residuals = inner_links(z[~out], share[~out], limit, curves, circles, dtype)
        links, unseen, slopes = (*links_inside, *residuals.links), z[out], np.zeros(out.sum())
        for link in reversed(links):
            unseen, log_det = link.inverse(unseen)
            slopes = slopes + log_det
        return cls(behind(z[~out], links), share[~out], unseen, slopes)

    def losses(self, *arguments: Any, **settings: Any) -> Floats:
        """Losses of the rows left out, under a mixture fitted to the other rows, with arguments of `mixture.fitted`."""
        return -_mixture.fitted(self.seen, self.share, *arguments, **settings).log_prob(self.unseen) - self.slopes


def _components(z: Floats, share: Floats, circles: Sequence[int], dtype: Any, kind: Beginning, seed: int) -> int:
    """Choose the number of components by cross-validation: the one with the lowest loss of rows left out."""
    folds = [Seen.of(z, share, fold, kind.limit, kind.curves, circles, dtype) for fold in range(FOLDS)]
    numbers = _mixture.COMPONENTS
    losses = [in_folds(share) @ np.concatenate([fold.losses(number, seed) for fold in folds]) for number in numbers]
    return numbers[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


SAMPLES, BATCH, STEPS = 50_000, 512, 4000  # training of the student flow
JUDGED = 4000  # samples that judge the student flow
DECAY = 0.01
STARTS = 3  # starts of a mixture in cross-validation
UNGAINED = 1  # trials end after this many successive component counts without a gain
NUMBERS_OF_A_ROW = 2  # most parameters of a mixture for each row; with more, full covariances overfit


@dataclass(frozen=True)
class Teacher:
    """Settings of a mixture with a covariance for each component."""

    limit: float
    """Columns with a 1 - R² below this limit are replaced by their residuals."""
    curves: bool
    components: int
    prior: float
    """The number of additional rows of each component, which have the common covariance."""


@dataclass(frozen=True)
class Samples:
    """Samples of a teacher mixture: some to train a student on, others to judge the student by."""

    train: ArrayRows
    judge: ArrayRows
    loss: float
    """The loss of the teacher mixture on `judge`."""


def best_teacher(
    source: ArrayRows, scale: Moments, limit: float, curves: Sequence[bool], dtype: Any, seed: int, clock: Clock
) -> tuple[Teacher, Floats] | None:
    """Choose a mixture by cross-validation; return its settings and its losses of rows left out, in the data's units.

    The result is None if there are too few rows for a mixture, or no time is left.

    Args:
        source: The training rows.
        scale: Means and standard deviations of their columns.
        limit: Columns with a 1 - R² below this limit are replaced by their residuals.
        curves: The values of `Teacher.curves` to try, in order.
        dtype: The dtype of the flow.
        seed: The seed for the starts of each mixture.
        clock: The clock that ends the trials.
    """
    z, share, slopes = standardised(source, scale)
    weights, best, lowest = in_folds(share), None, math.inf
    for has_curves in curves:
        waited, least = 0, math.inf
        folds = [Seen.of(z, share, i, limit, has_curves, (), dtype) for i in range(FOLDS)]
        for components in _mixture.COMPONENTS_OF_FULL:
            numbers = components * z.shape[1] * (z.shape[1] + 3) // 2
            if waited == UNGAINED or numbers > NUMBERS_OF_A_ROW * len(z) or not clock.has(0.0):
                break
            waited += 1
            for prior in _mixture.PRIORS_OF_FULL:
                kind = Teacher(limit, has_curves, components, prior)
                each = [fold.losses(components, seed, prior, full=True, starts=STARTS) for fold in folds]
                losses = np.concatenate(each) - in_folds(slopes)
                loss = float(weights @ losses / weights.sum())
                if loss < least:
                    least, waited = loss, 0
                if loss < lowest:
                    best, lowest = (kind, losses), loss
    return best


def samples_of(teacher: Teacher, source: ArrayRows, scale: Moments, dtype: Any, seed: int) -> Samples:
    """Fit the teacher mixture to all rows, and return samples of it in the data's units."""
    z, share, _ = standardised(source, scale)
    curves, residuals = inner_links(z, share, teacher.limit, teacher.curves, (), dtype)
    links, support = (*curves, *residuals.links), source.support
    mixture = _mixture.fitted(behind(z, links), share, teacher.components, seed, teacher.prior, full=True)
    outer = (*links, Standardize(*scale), *(() if support is None else (support,)))

    def drawn(size: int, key: int) -> tuple[ArrayRows, Floats]:
        x = mixture.sample(size, np.random.default_rng([seed, key]))
        log_prob = mixture.log_prob(x)
        for link in outer:
            x, log_det = link.forward(x)
            log_prob = log_prob - log_det
        good = np.isfinite(x).all(axis=1) & np.isfinite(log_prob)
        if support is not None:
            good &= ~outside(x, support).any(axis=1)
        return ArrayRows(Data(source.library.asarray(x[good]), None, None, source.names, support)), log_prob[good]

    train, judge = drawn(SAMPLES, 0)[0], drawn(JUDGED, 1)
    return Samples(train, judge[0], -float(judge[1].mean()))


def arguments_of_student(arguments: Arguments, size: int) -> Arguments:
    """The arguments of a student's fit to `size` samples; values that the caller changed from their defaults stay."""
    batch = BATCH if arguments.batch_size is None else arguments.batch_size
    chosen: dict[str, Any] = {"epochs": max(round(STEPS * BATCH / size), 1), "batch_size": min(batch, size)}
    defaults = {"schedule": "cosine", "weight_decay": DECAY, "patience": None}
    chosen |= {name: value for name, value in defaults.items() if getattr(arguments, name) == getattr(Arguments, name)}
    return replace(arguments, **chosen)
