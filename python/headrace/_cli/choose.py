"""``headrace fit --auto``: many flows are tried within a time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

__all__ = ["SECONDS", "choose"]

SECONDS = 60.0


def choose(
    arguments: argparse.Namespace, rows: tuple[Any, Any, Any], bounds: Any, names: Sequence[str] | None
) -> tuple[Any, dict[str, Any], list[str]]:
    """The best flow, a report on all, and its lines; `rows` are x, context and weights."""
    from headrace.choosing import auto

    x, context, weights = rows
    choice = auto(
        x,
        SECONDS if arguments.time_budget is None else arguments.time_budget,
        context=context,
        weights=weights,
        bounds=bounds,
        names=names,
        dtype=arguments.dtype,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    sizes = {"features": choice.flow.features, "context": choice.flow.context}
    return choice.flow, {"file": arguments.output, **sizes, **choice.summary()}, choice.lines()
