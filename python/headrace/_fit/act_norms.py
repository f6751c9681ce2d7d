"""The data-dependent start of a flow's ActNorms."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._arrays.caller import library
from headrace._fit.rows import CHUNK, Data, Part, moments
from headrace._interior import Trainable
from headrace.transforms.act_norm import ActNorm

__all__ = ["start_act_norms"]


def start_act_norms(flow: Trainable, data: Data, train: Part) -> None:
    """Set each ActNorm that no fit has set, so that training rows leave it with mean 0 and standard deviation 1.

    From the data's side on, as what one is given depends on those before it. At most `CHUNK` rows stand for all.
    """
    if not any(isinstance(t, ActNorm) and not t.is_started for t in flow._interior.chain):
        return
    transforms = flow.transforms
    waiting = [i for i, t in enumerate(transforms) if isinstance(t, ActNorm) and t._waits()]
    if not waiting:
        return
    data, train = data.standing_for(train)
    size = min(train.size, CHUNK)
    rows = data.rows(train.at(np.arange(size, dtype=np.int64) * train.size // size))
    x, context = rows.x, _standardized(flow, rows.context)
    started: dict[int, ActNorm] = {}
    for i in range(len(transforms) - 1, waiting[0] - 1, -1):
        t = transforms[i]
        if i in waiting:
            mean, std = moments("x", x, rows.weights, Part(size), say=False)
            known = np.isfinite(mean) & np.isfinite(std)  # a flow may overflow before it is fitted
            t = started[i] = t._started_at(np.where(known, mean, 0.0), np.where(known, std, 1.0))
        x = t.inverse(x, context if t.context else None)[0]
    flow._interior.start(started)


def _standardized(flow: Trainable, context: Any) -> Any:
    """Context rows as the flow's transforms read them."""
    if context is None or flow.standardize_context is None:
        return context
    asarray = library(context).asarray
    mean, std = flow.standardize_context
    return (context - asarray(mean)) / asarray(std)
