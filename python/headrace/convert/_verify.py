"""Verification of a converted flow: log densities of rows are compared with those of the source, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace._flow.flow import Flow
from headrace.convert._parts import Numbers

ROWS = 128

# In float64 the formulas of libraries lose digits where a bin is steep, but differ by less than 1e-9. In models that
# are not trained, a slope of 1e-4 in place of 1e-3 changes log densities by more than 1e-5.
LIMIT = 1e-7

# If a row's log density changes much with the row's rounding (tiny scales in a long chain), both flow and source lose
# digits. The loss is measured by the change of the source's log densities if rows change by NUDGE, relatively; an error
# of up to TIMES this change is allowed.
NUDGE, TIMES = 4 * float(np.finfo(np.float64).eps), 100.0


def rows_of(flow: Flow) -> tuple[Numbers, Numbers | None]:
    """Rows near to and far from the bulk of a flow's density, and a context for each row."""
    generator = np.random.default_rng(20)
    context: Numbers | None = None
    farther = np.where(np.arange(ROWS) % 4 == 3, 3.0, 1.0)[:, None]  # every second far row, and its context, is farther
    if flow.context:
        context = farther * generator.standard_normal((ROWS, flow.context))
        if flow.standardize_context is not None:
            mean, std = flow.standardize_context
            context = mean + std * context
    x = np.asarray(flow.sample(ROWS, context, seed=20), np.float64)
    usual = x[np.isfinite(x).all(axis=1)]
    if not len(usual):
        raise ValueError("verify: expected samples that are finite, got none")
    low, center, high = np.quantile(usual, [0.16, 0.5, 0.84], axis=0)  # robust against a heavy tail
    far = np.arange(ROWS) % 2 == 1
    x[far] = center + 1.25 * (high - low) * farther[far] * generator.standard_normal((int(far.sum()), flow.features))
    support = flow._interior.support
    for column, period in enumerate(() if support is None else support.periodic):
        if period is not None:  # libraries define the density on one period of an angle
            x[:, column] = period[0] + np.mod(x[:, column] - period[0], period[1] - period[0])
    return x, context


def verify(flow: Flow, source: Callable[[Numbers, Numbers | None], Numbers]) -> None:
    """Compare the log densities of a converted flow with those of the source.

    Args:
        flow: A flow in float64.
        source: A function of ``(x, context)`` that returns log densities computed by the other library.

    Raises:
        ValueError: some log densities differ by more than rounding, or most are not finite in the flow or the source.
    """
    x, context = rows_of(flow)
    want = np.asarray(source(x, context), np.float64)
    compare(flow, x, want, context, _limits(source, x, context, want))


def _limits(source: Callable[[Numbers, Numbers | None], Numbers], x: Numbers, context: Any, want: Numbers) -> Numbers:
    """The tolerance for rounding of each row's log density, relative for magnitudes above 1."""
    changes = np.zeros(ROWS)
    with np.errstate(invalid="ignore"):
        for signs in np.random.default_rng(21).choice([-1.0, 1.0], (4, *x.shape)):
            moved = np.asarray(source(x * (1.0 + NUDGE * signs), context), np.float64)
            changes = np.maximum(changes, np.abs(moved - want))
        limits: Numbers = LIMIT + TIMES * changes / np.maximum(1.0, np.abs(want))
    return limits


def verify_made(
    flow: Flow,
    log_prob: Callable[[Numbers, Numbers | None], Numbers],
    to_data: Callable[[Numbers, Numbers | None], Numbers] | None = None,
) -> None:
    """Compare an exported flow with the original flow, in float64.

    Args:
        flow: The flow, in any dtype.
        log_prob: A function of ``(x, context)`` that returns log densities of the export.
        to_data: A function of ``(z, context)`` that returns rows of data of the export; None: samples are not compared.

    Raises:
        ValueError: some values differ by more than rounding, or most are not finite in the flow or the export.
    """
    flow = flow.astype("float64")
    x, context = rows_of(flow)
    want = np.asarray(flow.log_prob(x, context))
    difference = "what was made does not compute what the flow does: this is a fault of headrace"
    got = np.asarray(log_prob(x, context))
    _compare(got, want, _limits(flow.log_prob, x, context, want), difference)
    if not np.array_equal(np.isneginf(got), np.isneginf(want)):
        raise ValueError(f"verify: expected a density of 0 where the flow's is 0, got others: {difference}")
    if to_data is not None:
        z = np.asarray(flow.to_latent(x, context)[0])
        ours, theirs = np.asarray(flow.to_data(z, context)[0]), to_data(z, context)
        known = np.isfinite(ours).all(axis=1)
        errors = (np.abs(theirs - ours) / (1.0 + np.abs(ours)))[known]
        if not (np.median(errors, axis=0) <= LIMIT).all():  # a few rows lose digits in steep regions
            wanted = f"the flow's rows of data to {LIMIT:g}, but they differ by up to {errors.max():.3g}"
            raise ValueError(f"verify: expected {wanted}: {difference}")


def compare(flow: Flow, x: Numbers, want: Numbers, context: Numbers | None, limits: Numbers) -> None:
    """Compare a flow's log densities with known values; `limits` are relative for magnitudes above 1.

    Raises:
        ValueError: some log densities differ by more than `limits`, or most are not finite in the flow or in `want`.
    """
    if want.shape != x.shape[:1]:
        raise ValueError(f"verify: expected {len(x)} log densities, one for each row, got shape {want.shape}")
    got = np.asarray(flow.log_prob(x, context), np.float64)
    difference = "a subclass, a hook or another version changes what its parts compute, or this is a fault of headrace"
    _compare(got, want, limits, difference)


def _compare(got: Numbers, want: Numbers, limits: Numbers, why: str) -> None:
    known = np.isfinite(want) & np.isfinite(got) & np.isfinite(limits)
    if known.sum() < max(1, len(want) // 2):
        counts = [int(np.isfinite(densities).sum()) for densities in (want, got)]
        counted = f"{counts[0]} from the source and {counts[1]} from what it was converted to"
        raise ValueError(f"verify: expected finite log densities of most of {len(want)} rows, got {counted}")
    difference = np.abs(got[known] - want[known])
    allowed = (limits * np.maximum(1.0, np.abs(want)))[known]
    if not (difference <= allowed).all():
        most = f"{difference[difference > allowed].max():.3g} nats on {len(want)} rows: {why}"
        wanted = f"the log densities of the source to {limits[known].min():g}"
        raise ValueError(f"verify: expected {wanted}, but they differ by up to {most}")
