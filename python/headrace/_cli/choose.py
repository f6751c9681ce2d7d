"""``headrace fit --auto``: many flows are tried within a time."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace._base.layout import Block

if TYPE_CHECKING:
    from headrace.choosing.result import Choice

SECONDS = 60.0


def choose(
    arguments: argparse.Namespace, rows: Sequence[Any], options: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[Choice, dict[str, Any], list[Block]]:
    """The choice, a report on all, and its text; `rows` are x, context and weights, `options` those of a fit."""
    from headrace._arrays.names import Names
    from headrace._fit.clock import Clock
    from headrace.choosing import run
    from headrace.choosing.result import SIMPLE
    from headrace.choosing.sample import Sample

    clock = Clock(options.get("time_budget", SECONDS))
    ends = {"bounds": options.get("bounds"), "periodic": options.get("periodic")}
    choice = run.search(
        Sample(*rows),
        Names(None if names is None else tuple(names)),
        clock,
        **{**ends, "dtype": arguments.dtype, "effort": options.get("effort", "normal")},
        keep=arguments.keep is not None,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    tried = (one for one in choice.table if one.name not in SIMPLE)
    if choice.interrupted and all(math.isnan(one.log_likelihood) for one in tried):
        raise KeyboardInterrupt  # a Gaussian takes no search, and must not replace a searched flow's file
    more = "headrace diagnose FLOW DATA looks at it with rows that it has not seen"
    sizes = {"features": choice.flow.features, "context": choice.flow.context}
    return choice, {"file": arguments.output, **sizes, **choice.summary()}, choice.blocks(more)
