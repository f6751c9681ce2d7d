"""Pictures of the history of a fit: losses by epoch or by step, and the epoch or step that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.pictures import BLUE, GREY, ORANGE
from headrace._fit.history import History
from headrace.ascent.flow import AscentHistory
from headrace.plot._planes import unit_interval
from headrace.plot._source import require
from headrace.variational.descent import StepHistory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24  # the most panels
FIRST = 0.1  # this share of losses, the first ones, does not determine the limits of the axis


def history(fit: Any, across: str = "epochs") -> Figure:
    """Draw the losses of a fit, the epoch or step that was kept, and why the fit ended.

    Args:
        fit: A `History`, a list of histories (of an ensemble), a fitted `FlowDensity`, an `AscentHistory`, a
            `DualAscentFlow` after its fit, a `StepHistory`, a `DensityFit` or a `Distillation`.
        across: "epochs", for epochs or steps; or "cpu_seconds", for the CPU seconds of the process since the fit began,
            by which fits with different settings can be compared. Only a `History` has CPU seconds.

    Returns:
        A matplotlib ``Figure``, with a panel for each fit.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument has another type or value.

    >>> import numpy as np, headrace as hr
    >>> fit = hr.MAF(2).fit(np.random.default_rng(0).standard_normal((600, 2)), progress=False)
    >>> axis = hr.plot.history(fit).axes[0]
    >>> [len(line.get_xdata()) == fit.epochs for line in axis.lines[:2]]
    [True, True]
    """
    require()
    fits, by = _opened(fit), check.choice("across", across, ("epochs", "cpu_seconds"))
    if by == "cpu_seconds" and not all(isinstance(one, History) for one in fits):
        raise ValueError(f"across: expected 'epochs' for what is no History, got {across!r}")
    from headrace.plot import _figure

    with _figure.styled():
        figure, axes = _figure.grid(len(fits), 4.4, 3.2, most=3)
        for i, (axis, one) in enumerate(zip(axes, fits, strict=True)):
            _DRAWN[type(one)](axis, one, *(() if by == "epochs" else (one.cpu_seconds,)))
            if len(fits) > 1:
                axis.set_title(f"{i}: " + axis.get_title("left"))
    return figure


def _opened(fit: Any) -> list[Any]:
    """The histories in a history, a fitted object, or a list of histories."""
    found = fit
    for name in ("history_", "history"):
        if not isinstance(found, tuple(_DRAWN)) and hasattr(found, name):
            found = getattr(found, name)
    many = list(found) if isinstance(found, (list, tuple)) else [found]
    if isinstance(found, AscentHistory) and found.refinement is not None:
        many.append(found.refinement)
    if not all(type(one) in _DRAWN for one in many):
        raise TypeError(f"fit: expected a History, or what has one, got {check.kind_of(fit)}")
    if not 0 < len(many) <= MOST:
        raise ValueError(f"fit: expected 1 to {MOST} histories, got {len(many)}")
    return many


def _epochs(axis: Any, one: History, seconds: Sequence[float] | None = None) -> None:
    train, held = np.array(one.train_loss), np.array(one.validation_loss)
    at = np.arange(1, max(len(train), len(held)) + 1) if seconds is None else np.array(seconds)
    train, held = train[: len(at)], held[: len(at)]  # cross-validation may judge more epochs than the fit has
    axis.plot(at[: len(train)], train, _mark(train), color=GREY, linewidth=1.2, label="training rows, running")
    axis.plot(at[: len(held)], held, _mark(held), color=BLUE, linewidth=1.6, label=one.judged_by)
    if 0 < one.best_epoch <= len(held):
        kept = one.best_epoch - 1
        axis.plot(at[kept], held[kept], "o", color=ORANGE, label=f"kept: epoch {one.best_epoch}")
    elif np.isfinite(one.best_loss):
        origin = "a Gaussian" if one.gaussian else "what it began with" if one.best_epoch == 0 else "the last weights"
        axis.axhline(one.best_loss, color=ORANGE, linewidth=1.0, linestyle="--", label=f"kept: {origin}")
    _finish(axis, "epoch" if seconds is None else "CPU seconds", "loss, nats a row", one.stopped, [train, held])


def _steps(axis: Any, one: StepHistory) -> None:
    energy = np.array(one.free_energy)
    label = "free energy of the steps"
    axis.plot(np.arange(len(energy)), energy, _mark(energy), color=BLUE, linewidth=1.0, label=label)
    if np.isfinite(one.lowest_free_energy):
        dashed = {"linewidth": 1.0, "linestyle": "--", "label": "lowest of those judged"}
        axis.axhline(one.lowest_free_energy, color=ORANGE, **dashed)
        axis.axvline(one.kept_step, color=ORANGE, linewidth=1.0, linestyle=":", label=f"kept: step {one.kept_step}")
    _finish(axis, "step", "free energy, nats", one.stopped, [energy])


def _ascent(axis: Any, one: AscentHistory) -> None:
    train, held = np.array(one.log_likelihood), np.array(one.validation_log_likelihood)
    axis.plot(np.arange(len(train)), -train, _mark(train), color=GREY, linewidth=1.2, label="training rows")
    axis.plot(np.arange(len(held)), -held, _mark(held), color=BLUE, linewidth=1.6, label="held-out rows")
    if 0 <= one.best_step < len(held):
        axis.plot(one.best_step, -held[one.best_step], "o", color=ORANGE, label=f"kept: step {one.best_step}")
    _finish(axis, "step of the ascent", "loss, nats a row", one.stopped, [-train, -held])


def _mark(values: Any) -> str:
    return "o-" if len(values) == 1 else "-"


def _finish(axis: Any, across: str, up: str, stopped: str, curves: Sequence[Any]) -> None:
    """Label the axes, and set limits by all losses but the first ones, which may be huge."""
    from headrace.plot._figure import limit_ticks

    values = np.concatenate([curve[int(FIRST * len(curve)) :] for curve in curves])
    values = values[np.isfinite(values)]
    axis.set(xlabel=across, ylabel=up, title=f"stopped: {stopped}")
    limit_ticks(axis, 5, 5)
    axis.xaxis.get_major_locator().set_params(integer="seconds" not in across)
    if values.size:
        low, high = unit_interval(values.min(), values.max())
        axis.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    else:
        axis.text(0.5, 0.5, "nothing was done", ha="center", va="center", color=GREY, transform=axis.transAxes)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, loc="upper right")


_DRAWN: dict[type, Any] = {History: _epochs, StepHistory: _steps, AscentHistory: _ascent}
