"""The support of a flow: a constraint of `torch.distributions`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from headrace._flow.flow import Flow
from headrace._flow.support_ends import Ends, ends_of, periodic_of


class _HasDensity(constraints.Constraint):
    """Rows with a density above 0, of a flow on a support that is no product of intervals; it has no bijection."""

    event_dim = 1

    def __init__(self, log_prob: Callable[[Tensor], Tensor]) -> None:
        self._log_prob = log_prob
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each row has a density."""
        with torch.no_grad():
            return self._log_prob(value) > -math.inf


def support_of(flow: Flow, like: Tensor, log_prob: Callable[[Tensor], Tensor]) -> Any:
    """The constraint on rows of a flow, with its current parameters.

    Args:
        flow: On any device.
        like: A tensor of the dtype and on the device that the ends are to have.
        log_prob: The flow's, which decides where the support is no product of intervals.
    """
    ends = ends_of(flow)
    known = [pair for pair in ends if pair is not None]
    if len(known) < len(ends):
        return _HasDensity(log_prob)
    circles = periodic_of(flow)
    kinds = [_kind(pair, c in circles) for c, pair in enumerate(known)]
    runs = [[c for c, _ in run] for _, run in groupby(enumerate(kinds), key=lambda pair: pair[1])]
    parts = [_constraint(kinds[run[0]], [known[c] for c in run], like) for run in runs]
    if len(parts) == 1:
        return constraints.real_vector if kinds[0] == "real" else constraints.independent(parts[0], 1)
    return constraints.independent(constraints.cat(parts, dim=-1, lengths=[len(run) for run in runs]), 1)


def _kind(ends: Ends, is_circle: bool) -> str:
    low, high = map(math.isfinite, ends)
    if is_circle:
        return "half_open_interval"  # one period
    return {(False, False): "real", (True, False): "greater_than", (False, True): "less_than"}.get(
        (low, high), "interval"
    )


def _constraint(kind: str, ends: Sequence[Ends], like: Tensor) -> Any:
    if kind == "real":
        return constraints.real
    low, high = (torch.tensor(side, dtype=like.dtype, device=like.device) for side in zip(*ends, strict=True))
    given = {"greater_than": (low,), "less_than": (high,)}.get(kind, (low, high))
    return getattr(constraints, kind)(*given)
