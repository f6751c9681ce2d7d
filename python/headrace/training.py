"""Training: `Flow.fit`, its defaults, and the history that it returns.

The defaults come from a search over learning rates, batch sizes, epochs, schedules and weight decays on real tables of
1000 to 1,000,000 rows; docs/notes/training.md has the search and its results.
"""

from __future__ import annotations

import importlib
from typing import Any

from headrace._fit.fit import Fit, finished
from headrace._fit.history import History
from headrace._fit.optimizer import Adam, Muon
from headrace._flow.fit_arguments import EFFORTS, Arguments
from headrace._flow.flow import Flow

__all__ = ["Adam", "History", "Muon"]


def fit(flow: Flow, x: Any, context: Any, arguments: Arguments) -> History:
    """Fit a flow; see `Flow.fit`. The flow stays unchanged until all arguments are checked."""
    if arguments.effort != "normal" or arguments.keep:
        checked = arguments.checked()
        effort = importlib.import_module(EFFORTS["high"])
        return effort.fit_with_high_effort(flow, x, context, checked)
    history = History()

    def opened() -> Fit:
        if arguments.group is None:
            one = Fit(flow, history, arguments)
        else:
            from headrace.distributed.run import SharedFit

            one = SharedFit(flow, history, arguments)
        one.open(x, context)
        return one

    return finished(flow, history, opened)
