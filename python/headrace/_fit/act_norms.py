"""The data-dependent start of a flow's ActNorms."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._arrays.caller import library
from headrace._fit.source import RowSource
from headrace._flow.internals import Trainable
from headrace._flow.transforms.act_norm import ActNorm
from headrace.rows._held_out import CHUNK


def waiting(flow: Trainable) -> list[int]:
    """The indices of the ActNorms that no fit has set."""
    if not any(isinstance(t, ActNorm) and not t.is_started for t in flow._interior.chain):
        return []
    return [i for i, t in enumerate(flow.transforms) if isinstance(t, ActNorm) and t._waits()]


def start_act_norms(flow: Trainable, source: RowSource) -> None:
    """Set each of these ActNorms so that its outputs over training rows have mean 0 and standard deviation 1.

    At most `CHUNK` rows represent all. They are set from the data's side on, because the inputs of one depend on those
    before it.
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
            known = np.isfinite(mean) & np.isfinite(std)  # a flow may overflow before it is fitted
            t = started[i] = t._started_at(np.where(known, mean, 0.0), np.where(known, std, 1.0))
        at = [t.inverse(x, context if t.context else None)[0] for x, context in zip(at, contexts, strict=True)]
    flow._interior.start(started)


def _standardized(flow: Trainable, context: Any) -> Any:
    """Context rows as inputs of the flow's transforms."""
    if context is None or flow.standardize_context is None:
        return context
    asarray = library(context).asarray
    mean, std = flow.standardize_context
    return (context - asarray(mean)) / asarray(std)
