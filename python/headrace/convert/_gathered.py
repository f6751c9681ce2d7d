"""The inverse of conversions: parameters of a converted flow are written back to the model.

A conversion copies each parameter of a model to an index of the flow's parameters, unchanged or shifted and scaled.
Conversions of changed models show the index of each parameter, so that readers of a library's parts need no functions
that write parts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._flow.flow import Flow
from headrace.convert._parts import Numbers
from headrace.convert._verify import LIMIT, rows_of

_PROBES = 3
_NEAR = 1e-9  # the tolerance of ratios of changes, which differ far more between different parameters
_SAME = 1e-6  # the tolerance of log densities, and of differences between copies of one parameter of the model
_INSTEAD = "keep the flow (Flow.save), or headrace.convert.to_torch of it"


def write_back(model: Any, convert: Callable[..., Flow], flow: Flow) -> None:
    """Set the parameters of a model of PyTorch to those of a flow that was converted from the model and then trained.

    Raises:
        NotImplementedError: parameters of the flow have no counterpart in the model, for example of folded layers.
        ValueError: training changed copies of one parameter of the model to different values, or the density differs.
    """
    import torch

    wide = copy.deepcopy(model).cpu().double().eval()
    named = dict(wide.named_parameters())
    begins = np.cumsum([0, *(p.numel() for p in named.values())])
    first = np.concatenate([p.detach().numpy().ravel() for p in named.values()])

    def filled(values: Numbers) -> Flow:
        with torch.no_grad():
            for p, begin in zip(named.values(), begins[:-1], strict=True):
                p.copy_(torch.from_numpy(values[begin : begin + p.numel()].copy()).reshape(p.shape))
        return convert(wide, verify=False)

    generator = np.random.default_rng(24)
    start = filled(first).parameters
    moved = [first + generator.choice([-1.0, 1.0], first.shape) * generator.uniform(0.05, 0.2, first.shape)]
    moved += [first + generator.uniform(-0.2, 0.2, first.shape) for _ in range(_PROBES - 1)]
    theirs = np.stack([values - first for values in moved])
    ours = np.stack([filled(values).parameters - start for values in moved])
    source = _sources(theirs, ours)
    now = np.asarray(flow.parameters, np.float64)
    is_constant = ~ours.any(axis=0)
    if (source < 0)[~is_constant].any():
        raise _folded(wide, named, begins, source)
    if not np.allclose(now[is_constant], start[is_constant], rtol=_SAME):
        which = f"that {type(model).__name__} has as constants, as of a scale that is cut off"
        raise NotImplementedError(f"model: expected no trained values {which}, got some; {_INSTEAD}")
    factor = ours[0, ~is_constant] / theirs[0, source[~is_constant]]
    target, of = (now - start)[~is_constant] / factor, source[~is_constant]
    values = first.copy()
    values[of] += target
    if not np.allclose((values - first)[of], target, rtol=_SAME, atol=_SAME):
        where = f"where {type(model).__name__} has one parameter and the flow several"
        raise ValueError(f"model: expected equal values {where}, got some that training moved apart; {_INSTEAD}")
    made = filled(values)
    convert(wide)  # compares the density of the converted flow with that of the changed model
    x, context = rows_of(made)
    want = np.asarray(flow.astype("float64").log_prob(x, context))
    got = np.asarray(made.log_prob(x, context))
    usual = np.isfinite(want)
    difference = np.abs(got - want)[usual]
    if not (difference <= (_SAME + LIMIT) * np.maximum(1.0, np.abs(want[usual]))).all():
        away = f"{difference.max():.3g} nats: the flow's fixed part, such as its standardisation, is another one"
        raise ValueError(f"model: expected restored log densities to {_SAME:g}, but they differ by up to {away}")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(named[name])


def _sources(theirs: Numbers, ours: Numbers) -> NDArray[np.intp]:
    """For each parameter of the flow, the index of the model's parameter that determines it, or -1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, wanted = theirs[1:] / theirs[0], ours[1:] / ours[0]
    order = np.argsort(ratios[0], kind="stable")
    near = np.searchsorted(ratios[0], wanted[0], sorter=order)
    source = np.full(ours.shape[1], -1)
    for step in (-1, 0):
        index = order[np.clip(near + step, 0, len(order) - 1)]
        difference = np.abs(ratios[:, index] - wanted)
        fits = (difference <= _NEAR * (1.0 + np.abs(wanted))).all(axis=0)
        source[fits] = index[fits]
    return source


def _folded(model: Any, named: dict[str, Any], begins: NDArray[np.int64], source: NDArray[np.intp]) -> Exception:
    """An error that names the layers of the model without a parameter in the flow."""
    counts = np.diff(np.searchsorted(np.sort(source), begins))
    parts = {}
    for name, count in zip(named, counts, strict=True):
        path = name.rpartition(".")[0]
        if not count and "embedding_net" not in path:
            parts[path] = type(model.get_submodule(path)).__name__
    path = next(iter(parts), "")
    kinds = ", ".join(dict.fromkeys(parts.values())) or type(model).__name__
    got = f"{kinds}, which are folded into others; {_INSTEAD}"
    return NotImplementedError(f"model.{path}: expected layers whose parameters a flow has one by one, got {got}")
