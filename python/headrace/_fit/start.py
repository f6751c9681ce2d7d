"""The start of a fit: standardisation, ActNorms and marginal curves; and the Gaussian that a trained flow must beat."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import library
from headrace._arrays.row_parts import CHUNK
from headrace._base.types import Floats
from headrace._base.warn import PREFERRED, warn
from headrace._fit import gaussian as _gaussian
from headrace._fit import given_rows as _rows
from headrace._fit import marginals as _marginals
from headrace._fit.few_rows import Beginning, Begun, begun
from headrace._fit.given_rows import Moments
from headrace._fit.history import History
from headrace._fit.run import FALLING, HeldOut
from headrace._fit.source import ArrayRows, RowSource
from headrace._flow.flow import Flow
from headrace._flow.transforms.act_norm import ActNorm
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform


def waiting(flow: Flow) -> list[int]:
    """The indices of the ActNorms that no fit has set."""
    if not any(isinstance(t, ActNorm) and not t.is_started for t in flow._interior.chain):
        return []
    return [i for i, t in enumerate(flow.transforms) if isinstance(t, ActNorm) and t._waits()]


def start_act_norms(flow: Flow, source: RowSource) -> None:
    """Set each of the `waiting` ActNorms so that its outputs over training rows have mean 0 and standard deviation 1.

    Outputs are measured on a sample of at most `CHUNK` rows. ActNorms are set one after another from the data's side,
    because the inputs of an ActNorm depend on the ActNorms between it and the data.
    """
    if not (places := waiting(flow)):
        return
    rows = list(source.parts(CHUNK))
    transforms = flow.transforms
    at: list[Any] = [part.x for part in rows]
    contexts = [_standardized(flow, part.context) for part in rows]
    started: dict[int, ActNorm] = {}
    for i in range(len(transforms) - 1, places[0] - 1, -1):
        t = transforms[i]
        if i in places:
            assert isinstance(t, ActNorm)
            now = [(x.astype(np.float64), part.shares()) for x, part in zip(at, rows, strict=True)]
            mean, std = source.moments_of(now, flow.features)
            known = np.isfinite(mean) & np.isfinite(std)  # an unfitted flow may overflow
            t = started[i] = t._started_at(np.where(known, mean, 0.0), np.where(known, std, 1.0))
        at = [t.inverse(x, context if t.context else None)[0] for x, context in zip(at, contexts, strict=True)]
    flow._interior.start(started)


def _standardized(flow: Flow, context: Any) -> Any:
    """Standardise context rows as the flow does for its transforms."""
    if context is None or flow.standardize_context is None:
        return context
    asarray = library(context).asarray
    mean, std = flow.standardize_context
    return (context - asarray(mean)) / asarray(std)


@dataclass
class Start:
    """The standardisation of a fit, as means and standard deviations; None where an earlier fit has standardised."""

    x: Moments | None
    context: Moments | None
    linear: tuple[Transform, ...] = ()
    """Links that replace columns by residuals, next to the standardised data."""

    @classmethod
    def of(cls, flow: Flow, source: RowSource, *, say: bool = True) -> Start:
        """Measure the training rows. `say`: whether to warn of weights, of repeated values and of too few digits."""
        say = say and source.is_first
        context = x = None
        if flow.standardize_context is None and source.columns(of_context=True):
            context = source.moments(of_context=True, say=say)
        if flow._interior.is_fresh:
            mean, std = x = source.moments(say=say)
            effective, circles = source.effective_rows(), circles_of(source.support)
            mean[circles], std[circles] = 0.0, 1.0  # angles are in [-1, 1), and have no mean
            if say:
                _rows.warn_of_weights(effective, source.rows)
                _rows.warn_of_spikes(source)
                _rows.warn_of_offsets(source.names, source.support, source.is_float32, x, flow.dtype)
        return cls(x, context)

    def set(self, flow: Flow, source: RowSource, marginals: tuple[Transform, ...] = ()) -> None:
        """Give a flow this standardisation and the marginal curves, and initialise its ActNorms on training rows."""
        links = None if self.x is None else (*marginals, *self.linear, Standardize(*self.x))
        if links is not None or self.context is not None:
            flow._interior.rescale(links, self.context)
        start_act_norms(flow, source)

    def begin(self, flow: Flow, source: ArrayRows, kind: Beginning, seed: int) -> Begun:
        """Turn a fresh flow into the initial density with the settings `kind`, fitted to few rows without training."""
        assert self.x is not None
        interior = flow._interior
        scale = flow.standardize_context if self.context is None else self.context
        begun_at = begun(source, self.x, scale, flow.dtype, kind, seed)
        quiet = _gaussian.quietened(flow, interior.vector())
        interior.rescale(begun_at.links, self.context, quiet, base=begun_at.base)
        start_act_norms(flow, source)
        return begun_at


def shared_curves(
    source: RowSource, links: tuple[Gaussianize, ...], features: int, required: bool | None
) -> tuple[Gaussianize, ...]:
    """The curves of the first process, broadcast to all; raises ValueError if required curves are missing."""
    n = features
    numbers = np.zeros((_marginals.LINKS, 2 * n + 2, _marginals.MOST))  # the last row is the number of knots
    for rows, link in zip(numbers, links, strict=False):
        rows[:-1, : link.latent.size] = np.concatenate([link.data, link.slopes, link.latent[None]])
        rows[-1] = link.latent.size
    curves = []
    for rows in source.broadcast(numbers):
        if count := int(rows[-1, 0]):
            rows = np.ascontiguousarray(rows[:, :count])
            curves.append(Gaussianize(rows[:n], rows[-2], rows[n : 2 * n]))
    if required and not curves:
        raise ValueError(_marginals.NO_GAIN)
    return tuple(curves)


def gaussian_links(flow: Flow, source: RowSource, curves: tuple[Transform, ...]) -> tuple[Transform, ...]:
    """Links with which a standardised flow becomes the Gaussian of training rows on the latent side of `curves`."""
    standardize = flow._interior.standardize
    assert standardize is not None
    known = standardize.mean, standardize.std, flow.standardize_context, flow.dtype
    return (*_gaussian.decorrelating(source, *known, curves), *curves, standardize)


def not_worse_than_a_gaussian(
    flow: Flow,
    held_out: HeldOut,
    history: History,
    start: NDArray[Any],
    links: tuple[Transform, ...],
    own: int,
    *,
    by_default: bool,
    has_curves: bool,
) -> None:
    """Replace a flow by the Gaussian of the training rows unless the flow is better by more than a standard error.

    The criterion is the one-standard-error rule (Breiman et al. 1984). If the caller gave the number of epochs, a flow
    that gained stays, with a warning where the Gaussian is clearly better.

    Args:
        flow: The trained flow.
        held_out: The held-out rows.
        history: The history of the fit.
        start: The parameters before the fit.
        links: The links of the Gaussian.
        own: The number of links that the fit has put at the data end.
        by_default: Whether the number of epochs is a default; if not, only a clearly better Gaussian replaces the flow.
        has_curves: Whether the links of the Gaussian include marginal curves.
    """
    other = copy.copy(flow)
    other._interior.rescale(links, None, _gaussian.quietened(other, start), replaced=own)
    losses, total, weight = list(held_out.losses(flow, other)), held_out.source.total, held_out.weight
    if _is_kept(held_out, losses, by_default):
        return
    loss, simple = (total(float((of[-1] * of[i]).sum()) for of in losses) / weight for i in range(2))
    if history.best_epoch and not by_default:
        if loss - simple > FALLING and flow._interior.is_over_a_bell and held_out.source.is_first:
            warn(
                f"{PREFERRED}: their mean log-likelihood is {-loss:.3f} nats under the flow and {-simple:.3f} nats "
                "under the Gaussian of the training rows; leave out epochs=, so that fit chooses how long to train, "
                "and ends as the Gaussian where that is better; or train for longer"
            )
        return
    flow._interior.become(other)
    history.best_epoch, history.gaussian = 0, True
    history.gaussianized &= has_curves
    history.best_loss = simple


def _is_kept(held_out: HeldOut, losses: list[tuple[Floats, ...]], by_default: bool) -> bool:
    """Whether the fitted flow stays. `losses`: for each part losses under the flow and the Gaussian, and weights."""
    total, weight = held_out.source.total, held_out.weight
    if total(float(not np.isfinite(fitted).all()) for fitted, _, _ in losses):
        return False
    with np.errstate(invalid="ignore"):  # losses of the Gaussian may be infinite
        mean = total(float((w / weight * (simple - fitted)).sum()) for fitted, simple, w in losses)
        square = total(float(np.square(w / weight * (simple - fitted - mean)).sum()) for fitted, simple, w in losses)
    error = math.sqrt(square)
    return mean > error if by_default else not -mean > error
