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
from headrace._fit.optimizer import Adam

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["Adam", "History"]


def fit(flow: Trainable, x: Any, context: Any, arguments: Arguments) -> History:
    """See `Flow.fit`; nothing of the flow changes before all arguments are checked."""

    def opened(history: History) -> Fit:
        if arguments.group is None:
            one = Fit(flow, history, arguments)
        else:
            from headrace.distributed.fit import SharedFit

            one = SharedFit(flow, history, arguments)
        one.open(x, context)
        return one

    return completed(flow, opened)


def completed(flow: Trainable, opened: Callable[[History], Fit]) -> History:
    """The history of a fit that `opened` prepares; an exception leaves the flow as it was, unless there is better."""
    history = History()
    with flow._interior.restored(unless=lambda: history.best_epoch > 0):
        try:
            one = opened(history)
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
