"""Training: `Flow.fit`, its defaults, and the history that it returns.

The defaults come from a search over learning rates, batch sizes, epochs, schedules and weight decays on real tables of
1000 to 1,000,000 rows; docs/notes/training.md says on which, and what was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace._fit.checkpoint import Checkpoint
from headrace._fit.fit import Fit
from headrace._fit.history import History
from headrace._fit.optimizer import Adam

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["Adam", "History"]

# Defaults of a fit.
CLIP = 5.0
AVERAGE = 0.999
PATIENCE = 50
CHECKPOINT_EVERY = 60.0  # seconds


def fit(
    flow: Trainable,
    x: Any,
    context: Any,
    *,
    weights: Any,
    validation: Any,
    seed: Any,
    progress: bool,
    time_budget: Any = None,
    checkpoint: Any,
    checkpoint_every: Any,
    group: Any = None,
    **plan: Any,
) -> History:
    """See `Flow.fit`; nothing of the flow changes before all arguments are checked."""
    history = History()
    with flow._interior.restored(unless=lambda: history.best_epoch >= 0):
        try:
            if group is None:
                kept = Checkpoint(checkpoint, checkpoint_every)
                one = Fit(flow, history, seed, time_budget, kept, plan)
            else:
                from headrace.distributed.fit import SharedFit

                one = SharedFit(flow, history, seed, time_budget, checkpoint, checkpoint_every, plan, group)
            one.open(x, context, weights, validation, progress)
            with one.caller.queue():
                one.go(progress)
            if history.stopped not in ("interrupted", "time_budget"):
                one.kept.remove()
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        if history.stopped == "interrupted" and history.best_epoch < 0:
            raise KeyboardInterrupt  # without better weights there is nothing to return
    return history
