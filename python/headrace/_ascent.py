"""A dual ascent while it runs: rows to fit and rows held out, and the steps that carry them to the base."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arrays, _device, _directions, _kinks, _marginals, training
from headrace._arrays import Caller
from headrace._points import Points
from headrace.ascent_flow import AscentFlow, AscentHistory
from headrace.bases import Normal, StandardNormal
from headrace.elementwise import Elementwise
from headrace.flow import Flow
from headrace.transforms import Standardize, Transform

if TYPE_CHECKING:
    from headrace.dual_ascent import DualAscentFlow

__all__ = ["Ascent", "Rows", "jittered"]

Floats = NDArray[np.float64]

# By docs/dual_ascent.md.
BOUND = 5.0  # standard deviations from which a spline is the identity
ANCHORS = 1024  # rows among which centers are drawn
BLOCK = 32  # rows of a block of a rotation, where it has blocks
FEW_FEATURES = 128  # below, random rotations are dense
STRIDE = 16  # steps that are queued on a device before what they gained is read
DIAGONAL = 8  # rows that the product takes at a time: a diagonal matrix in such blocks costs least

_SLOPE = 1e-3  # of the maps of an ascent


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass
class Rows:
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
    ) -> Rows:
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


def jittered(
    x: NDArray[Any], weights: NDArray[Any] | None, copies: int, spread: Any, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """So many copies of rows, each with noise of its own."""
    many = np.tile(x, (copies, 1))
    many += _arrays.library(x).asarray((spread * rng.standard_normal(many.shape)).astype(x.dtype))
    return many, None if weights is None else np.tile(weights, copies)


# ---- the ascent ------------------------------------------------------------------------------------------------------


class Ascent:
    """One ascent while it runs: points to fit and points held out, carried along."""

    def __init__(
        self, settings: DualAscentFlow, rows: Rows, rng: np.random.Generator, n_steps: int, bins: int, copies: int
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
            z, weights = jittered(z, weights, copies, settings.jitter / math.sqrt(settings.precision), rng)
        self.features = n = z.shape[1]
        default = {"kink": "random", "spline": "sliced" if n > 2 else "random"}[settings.map]
        self.directions = settings.directions or default
        many = self.directions == "random" and n >= FEW_FEATURES
        blocks = (settings.rotations or ("blocks" if many else "dense")) == "blocks"
        self.sizes = [min(BLOCK, n - start) for start in range(0, n, BLOCK)] if blocks else [n]
        self.weights = None if weights is None else weights.astype(np.float64)
        self.total = float(len(z)) if self.weights is None else float(self.weights.sum())
        self.shares = _marginals.Shares.of(self.weights, len(z))
        self.effective_rows = self.shares.rows * len(x) / len(z)  # copies make no more
        self.z = z
        self.library = _arrays.library(z)
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
            turn = self._turn(points.values() if self.directions == "sliced" else None, rng)
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

    def _turn(self, z: NDArray[Any] | None, rng: np.random.Generator) -> _directions.Turn:
        """The next one, for points that are there now, on which sliced directions depend."""
        if self.directions == "random":
            return _directions.random_turn(self.sizes, rng)
        assert z is not None
        return _directions.sliced_turn(z, self.sizes, rng, math.sqrt(self.settings.precision))

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

        def judged() -> tuple[float, float | None]:
            each = [
                self._log_likelihood(np.multiply(z, z, dtype=np.float64).sum(axis=1), log_jacobian, weights)
                for z, log_jacobian, weights in parts
            ]
            return each[0], each[1] if len(each) > 1 else None

        def move(links: list[Transform]) -> None:
            """All rows, by the inverses of the last, the last but one, and so on."""
            moves = [link if self.rows.device is None else link.to(repr(self.rows.device)) for link in links]
            for i, (z, log_jacobian, weights) in enumerate(parts):
                for link in reversed(moves):
                    z, log_det = link.inverse(z)
                    log_jacobian = log_jacobian + log_det
                parts[i] = (z, log_jacobian, weights)

        yield judged()
        for step in range(self.n_steps):
            turn = self._turn(parts[0][0], self.rng) if step else _directions.Turn.none(self.sizes)
            turns = turn.transforms()
            move(turns)
            z = parts[0][0]
            curves = [
                _marginals.normal_score(z[:, k].astype(np.float64) * unit, self.shares, bandwidth if step else 1.0)
                for k in range(n)
            ]
            if step:
                shrunk = [curve and curve.shrunk(s.rate) for curve in curves]
                maps: list[Transform] = [_spline(shrunk, self.bins, unit, s.dtype)]
            else:
                maps = _first_maps(curves, self.bins, unit, s.dtype)
            move(maps)
            self.steps.append([*maps, *turns])
            yield judged()


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
