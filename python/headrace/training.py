"""Training: `Flow.fit`, its defaults, and the history that it returns.

The defaults come from a search over learning rates, batch sizes, epochs, schedules and weight decays on real tables of
1000 to 1,000,000 rows; docs/notes/training.md lists them and the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace._fit.arguments import Arguments
from headrace._fit.fit import Fit
from headrace._fit.history import History
from headrace._fit.optimizer import Adam, Muon

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["Adam", "History", "Muon"]

EFFORTS: dict[str, Callable[[Any, Any, Any, Arguments], History]] = {}
"""Other ways to fit, by `effort`: `headrace._effort` adds "high", and imports the flows, which import this module."""


def fit(flow: Trainable, x: Any, context: Any, arguments: Arguments) -> History:
    """See `Flow.fit`; nothing of the flow changes before all arguments are checked."""
    if arguments.effort != "normal" or arguments.seconds is not None or arguments.keep:
        checked = arguments.checked()
        return EFFORTS["high"](flow, x, context, checked)
    history = History()

    def opened() -> Fit:
        if arguments.group is None:
            one = Fit(flow, history, arguments)
        else:
            from headrace.distributed.fit import SharedFit

            one = SharedFit(flow, history, arguments)
        one.open(x, context)
        return one

    return finished(flow, history, opened)


def finished(flow: Trainable, history: History, opened: Callable[[], Fit]) -> History:
    """Run a fit to its end, once `opened` has opened its rows; the flow is as before where nothing better came.

    Raises:
        KeyboardInterrupt: Ctrl-C before there are better weights.
    """
    with flow._interior.restored(unless=lambda: history.best_epoch > 0):
        try:
            one = opened()
            with one.caller.queue():
                one.go()
            flow._interior.name(one.names())
            if history.stopped not in ("interrupted", "time_budget"):
                one.kept.remove()
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        if history.stopped == "interrupted" and history.best_epoch == 0:
            raise KeyboardInterrupt  # without better weights there is nothing to return
    return history
