"""Candidate densities of a search, simple densities to compare them with, and resumable trials of candidates."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace._fit.ensemble import Ensemble
from headrace._fit.gaussian import decorrelating
from headrace._fit.given_rows import Data
from headrace._fit.high_effort import with_effort
from headrace._fit.source import ArrayRows
from headrace._fit.starts.kernels import KernelDensity
from headrace._flow.flow import Flow
from headrace._flow.flows import MAF, NSF, RealNVP, base_of_circles, wrapped
from headrace._flow.tails import NormalMixture
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.support import Bounds, Periods, Support, circles_of
from headrace._flow.transforms.transform import Transform
from headrace.ascent.dual_ascent import DualAscentFlow
from headrace.choosing.sample import Sample
from headrace.diagnosis.likelihood import weighted_mean

MOST_POINTS = 2000  # the most kernels of a kernel density


def gaussian(sample: Sample, support: Support | None, dtype: Any, *, say: bool = False) -> Flow:
    """The Gaussian of the rows, which are first mapped from their bounds to the real line; the covariance is
    regularised.
    """
    rows, circles = ArrayRows(Data(sample.x, None, sample.weights, (), support)), circles_of(support)
    mean, std = rows.moments(say=say)
    mean[circles], std[circles] = 0.0, 1.0
    ends: list[Transform] = [Standardize(mean, std), *([] if support is None else [support])]
    if not circles:
        return Flow([*decorrelating(rows, mean, std), *ends], dtype=dtype)
    line = [c for c in range(mean.size) if c not in circles]
    links: list[Transform] = []
    if line:
        constrained = ArrayRows(Data(rows.data.unbounded(slice(None))[:, line], None, sample.weights))
        links = [_among(link, line, mean.size) for link in decorrelating(constrained, mean[line], std[line])]
    return Flow([*links, *ends], base_of_circles(None, mean.size, circles), dtype=dtype)


def _among(link: Transform, line: Sequence[int], features: int) -> Transform:
    """Turn a transform of the columns in `line` into a transform of all columns."""
    if not isinstance(link, Standardize):
        return OnColumns(link, line, features)
    mean, std = np.zeros(features), np.ones(features)
    mean[line], std[line] = link.mean, link.std
    return Standardize(mean, std)


def linear_gaussian(features: int, context: int, support: Support | None, dtype: Any) -> Flow:
    """An unfitted normal density whose mean is linear in the context."""
    circles = circles_of(support)
    line = [c for c in range(features) if c not in circles]
    ends: list[Transform] = [Standardize(np.zeros(features), np.ones(features))]
    ends += [] if support is None else [support]
    if not line:  # a uniform density, which ignores the context
        shift = Coupling(features, [], (), map="additive", context=context, dtype=dtype)
        return Flow([wrapped(features, circles), shift, *ends], base_of_circles(None, features, circles), dtype=dtype)
    line_map = MaskedAutoregressive(len(line), (), map="additive", context=context, dtype=dtype)
    chain: list[Transform] = [Elementwise(len(line), map="affine", dtype=dtype), line_map]
    if not circles:
        return Flow([*chain, *ends], dtype=dtype)
    moved = [OnColumns(t, line, features) for t in chain]
    return Flow([*moved, *ends], base_of_circles(None, features, circles), dtype=dtype)


def kernels(sample: Sample, support: Support | None, dtype: Any, seed: int) -> Flow | None:
    """A kernel density of at most 2000 normal kernels with the covariance of the rows; None if the rows lie in a plane.

    The result is also None for columns with periods, because a normal kernel is not continuous around a circle.
    """
    if circles_of(support):
        return None
    x = sample.x if support is None else support.inverse(sample.x.astype(np.float64))[0]
    points, share = np.asarray(x, np.float64), sample.weights
    if len(points) > MOST_POINTS:
        chosen = np.random.default_rng([seed, 0x6B6465]).choice(len(points), MOST_POINTS, replace=False)
        points, share = points[chosen], None if share is None else share[chosen]
    if len(points) < 3:
        return None
    try:
        density = KernelDensity.of(points, share)
        linear = Linear.from_matrix(density.factor, density.centre, dtype=dtype)
    except (np.linalg.LinAlgError, ValueError):  # the rows lie in a plane, up to rounding
        return None
    components: dict[str, Any] = {"loc": density.white, "scale": density.bandwidth, "weights": density.weights}
    base = NormalMixture(points.shape[1], len(points), **components, trainable=False)
    return Flow([linear, *([] if support is None else [support])], base, dtype=dtype)


FAMILIES = ("maf", "nsf", "realnvp", "dual-ascent")
MOST_ASCENT = 64  # the most features of a dual ascent

# The number of transforms and the hidden layers of each family, for three sizes: small, default, and large.
_SIZES: dict[str, tuple[Any, list[tuple[int, tuple[int, ...]]]]] = {
    "maf": (MAF, [(3, (32, 32)), (5, (64, 64)), (8, (128, 128))]),
    "nsf": (NSF, [(3, (32, 32)), (5, (64, 64)), (5, (128, 128))]),
    "realnvp": (RealNVP, [(4, (32, 32)), (8, (64, 64)), (8, (128, 128))]),
}
_DEFAULT = ("nsf", 1)  # the family and size of the default flow of `headrace fit` and `FlowDensity`


@dataclass(frozen=True)
class Setting:
    """The settings that all candidates of a search share."""

    features: int
    context: int
    bounds: Bounds | None
    periodic: Periods | None
    dtype: Any
    seed: int


@dataclass(frozen=True)
class Candidate:
    """A density of a certain family and size that a search may try."""

    name: str
    """The name in tables, such as "NSF 5x[128,128]"."""
    make: Callable[[], Any]
    is_ascent: bool = False
    is_default: bool = False
    """Whether the candidate is the flow of a fit without a choice."""
    effort: str = "normal"
    keep: bool = False
    """Whether the fit keeps the mixture that the flow learns; see `Flow.fit`."""


def candidates(families: tuple[str, ...], setting: Setting, *, is_small: bool) -> list[Candidate]:
    """All candidates for a search; for a small sample only small ones and the default. Candidates that equal a Gaussian
    are left out.
    """
    tried = []
    # With one feature, without context and periods, an affine flow is a single affine map.
    alone = setting.features == 1 and not setting.context and not any(setting.periodic or ())
    for family in families:
        if family == "dual-ascent":
            if not setting.context and setting.features <= MOST_ASCENT:
                tried.append(Candidate("dual ascent", _ascent(setting), True))
            continue
        kind, sizes = _SIZES[family]
        if alone and kind is not NSF:
            continue
        for i, (transforms, hidden) in enumerate(sizes):
            is_default = (family, i) == _DEFAULT
            if is_small and i > 0 and not is_default:
                continue
            name = f"{kind.__name__} {transforms}x[{','.join(map(str, hidden))}]"
            tried.append(Candidate(name, _network(kind, transforms, hidden, setting), is_default=is_default))
    return tried


def with_high_effort(setting: Setting, keep: bool) -> Candidate:
    """The candidate for a fit with high effort, which follows the search; its flow can learn the mixture of several
    flows.
    """
    transforms, hidden = _SIZES[_DEFAULT[0]][1][_DEFAULT[1]]
    more = with_effort("high", ("residual",))
    make = _network(NSF, transforms, hidden, setting, **more)
    return Candidate("NSF, high effort", make, effort="high", keep=keep)


def _network(kind: Any, transforms: int, hidden: tuple[int, ...], setting: Setting, **more: Any) -> Callable[[], Any]:
    return lambda: kind(**vars(setting), transforms=transforms, hidden=hidden, **more)


def _ascent(setting: Setting) -> Callable[[], Any]:
    ends: dict[str, Any] = {"bounds": setting.bounds, "periodic": setting.periodic}
    return lambda: DualAscentFlow(**ends, seed=setting.seed, dtype=setting.dtype)


def chosen_by(flow: Any, rows: Sample) -> float:
    """The criterion of the search: the mean log-likelihood of rows under a flow, or -inf in place of NaN."""
    mean = weighted_mean(rows.log_prob(flow), rows.weights)[0]
    return mean if mean == mean else -float("inf")


@dataclass
class Trial:
    """A running trial of a candidate in a search."""

    candidate: Candidate
    seed: int
    flow: Flow | None = None
    """The current flow; None before the first fit."""
    chosen_by: float = -float("inf")
    """The mean log-likelihood of the choosing rows; see `parted`."""
    seconds: float = 0.0
    stopped: str = "not begun"
    """The reason why the last fit ended."""
    rounds: int = 0
    dropped: bool = False
    """Whether the search continued without this trial."""
    members: Ensemble | None = None
    """The mixture that the flow has learnt, if the mixture is kept."""

    @property
    def is_over(self) -> bool:
        """Whether the fit has ended, so that more time would change nothing."""
        return self.stopped not in ("not begun", "time_budget")

    def go(self, fitted: Sample, choosing: Sample | None, seconds: float, folder: str | None = None) -> None:
        """Fit for `seconds` seconds; continue the previous fit of this trial if `folder` has the state of that fit.

        Raises:
            KeyboardInterrupt: after Ctrl-C; weights that are better than fresh ones are kept.
        """
        from time import perf_counter

        begin = perf_counter()
        held = None if choosing is None else (choosing.x, choosing.context, choosing.weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the first round has issued the warnings about the rows
            try:
                flow, self.stopped = self._fit(fitted, held, seconds, folder)
            except KeyboardInterrupt:  # the flow of the previous round stays
                self.stopped = "interrupted"
                raise
        self.rounds += 1
        self.seconds += perf_counter() - begin
        if choosing is None:
            self.flow = flow
        else:
            reached = chosen_by(flow, choosing)
            if self.flow is None or not self.candidate.is_ascent or reached > self.chosen_by:
                self.flow, self.chosen_by = flow, reached
        if self.stopped == "interrupted":
            raise KeyboardInterrupt

    def _fit(self, fitted: Sample, held: Any, seconds: float, folder: str | None) -> tuple[Flow, str]:
        made = self.candidate.make()
        options: dict[str, Any] = {"weights": fitted.weights, "time_budget": seconds, "progress": False}
        if held is not None:
            options["validation"] = held
        if self.candidate.is_ascent:
            flow = made.fit(fitted.x, **options)
            refinement = made.history.refinement
            over = "time_budget" in (made.history.stopped, None if refinement is None else refinement.stopped)
            return flow, "time_budget" if over else made.history.stopped
        if self.candidate.effort == "high":
            options |= {"effort": "high", "keep": self.candidate.keep}
        elif folder is not None:
            options |= {"checkpoint": os.path.join(folder, f"{self.candidate.name}.state"), "checkpoint_every": 1e9}
        history = made.fit(fitted.x, fitted.context, seed=self.seed, **options)
        self.members = history.members
        return made, history.stopped
