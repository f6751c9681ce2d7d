"""Flows as graphs of ONNX, which runtimes of many languages and devices compute: ``pip install ".[onnx]"``.

`headrace.Flow.to_onnx` and ``headrace export`` are the ways in. A graph has float32 inputs of any number of rows, and
holds the parallel direction of the verb alone. It is made from what the flow's file would say (docs/files.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from headrace import _arguments as check
from headrace._core import cpu
from headrace._core.device import BF16_PARTS
from headrace._install import install
from headrace._output import replacing
from headrace._stored import header_of

if find_spec("onnx") is None:
    raise ImportError(f"onnx: expected it to be installed: {install('onnx')}")

from headrace.onnx.bases import base_log_prob
from headrace.onnx.chain import Chain, Header
from headrace.onnx.graph import Graph, Value, where
from headrace.onnx.support import has_ends, inside, is_outside

__all__ = ["VERBS", "graph_of", "write"]

VERBS = ("log_prob", "to_latent", "to_data")


def write(flow: Any, path: str | os.PathLike[str], verb: str) -> None:
    """What `headrace.Flow.to_onnx` does."""
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise TypeError(f"path: expected a str or an os.PathLike of one, got {check.kind_of(path)}")
    data = graph_of(flow, verb).SerializeToString()
    with replacing(name) as stream:
        stream.write(data)


def graph_of(flow: Any, verb: str) -> Any:
    """The checked ``onnx.ModelProto`` of a verb; see `headrace.Flow.to_onnx`."""
    check.choice("verb", verb, VERBS)
    if flow.matmul in BF16_PARTS:
        raise ValueError(
            f"matmul: expected 'exact' for a graph, whose products are in float32, got {flow.matmul!r}; call .to('cpu')"
        )
    header = header_of(flow)
    features, columns, to_data = header["features"], header["context"], verb == "to_data"
    graph = Graph()
    given = graph.input("z" if to_data else "x", features)
    context = graph.input("context", columns) if columns else None
    bad = (given - given).sum(keep=True)  # NaN in rows that are not finite, else 0
    if context is not None:
        bad = bad + (context - context).sum(keep=True)
        if (scale := header["standardize_context"]) is not None:
            standard = Chain(graph, context, None, {}, verb)
            standard.standardize(scale["mean"], scale["std"], False)
            context = standard.value
    is_finite = bad.sum() >= 0.0  # NaN is not
    outside = None if to_data else _rows_outside(header["transforms"], given)
    if outside is not None:
        bad = bad + where(outside, float("nan"), 0.0).new_axis()
    arrays = {**flow.named_parameters(), **flow._fixed_arrays()}
    chain = Chain(graph, given, context, arrays, verb)
    numbered = list(enumerate(header["transforms"]))[:: 1 if to_data else -1]
    last = max((k for k, (_, part) in enumerate(numbered) if not _is_fixed(part)), default=-1) + 1
    for i, part in numbered[:last]:
        chain.run(part, f"transforms.{i}.", to_data, f"transforms[{i}]")
    # A row that overflowed is NaN altogether, but for what only its way out of the standardised units makes infinite.
    inner = sum(chain.logs, start=(chain.value * 0.0).sum())
    bad = bad + (chain.value - chain.value).sum(keep=True) + (inner - inner).new_axis()
    for i, part in numbered[last:]:
        chain.run(part, f"transforms.{i}.", to_data, f"transforms[{i}]")
    log_det = inner + bad.sum() + chain.log_det
    if verb == "log_prob":
        log_prob = base_log_prob(header["base"], chain) + log_det
        if outside is not None:
            log_prob = where(outside & is_finite, float("-inf"), log_prob)
        graph.output("log_prob", log_prob, None)
    else:
        value = chain.value
        if to_data and (support := _support_at_end(header["transforms"], passes_permutations=False)) is not None:
            value = inside(support[0], value)
        graph.output("x" if to_data else "z", value + bad, features)
        graph.output("log_det", log_det, None)
    return graph.model("headrace", cpu.__version__, {"headrace_verb": verb, "headrace_kind": header["kind"]})


def _rows_outside(transforms: Sequence[Header], given: Value) -> Value | None:
    """Which rows have a number on a bound or beyond; None where there are no bounds at the data's side."""
    found = _support_at_end(transforms, passes_permutations=True)
    if found is None:
        return None
    support, columns = found
    return is_outside(support, given.columns(columns))


def _support_at_end(transforms: Sequence[Header], *, passes_permutations: bool) -> tuple[Header, list[int]] | None:
    """The `Support` that rows come to first, and which of their columns its own are.

    But for what does nothing, and for permutations if these are to be passed.
    """
    columns: list[int] | None = None
    for part in reversed(transforms):
        is_flipped, inner = False, part
        while inner["kind"] == "Inverse":
            is_flipped, inner = not is_flipped, inner["transform"]
        columns = list(range(inner["features"])) if columns is None else columns
        if inner["kind"] == "Support":
            if has_ends(inner):
                return None if is_flipped else (inner, columns)
        elif inner["kind"] == "Permutation" and passes_permutations:
            order = inner["order"] if is_flipped else np.argsort(inner["order"]).tolist()
            columns = [columns[k] for k in order]
        elif inner["kind"] != "Standardize" or any(inner["mean"]) or any(s != 1.0 for s in inner["std"]):
            return None
    return None


def _is_fixed(header: Any) -> bool:
    """Whether it is one of those that the core leaves to storing a row."""
    return _is_fixed(header["transform"]) if header["kind"] == "Inverse" else header["kind"] in _FIXED


_FIXED = ("Standardize", "Permutation")
