"""Flows as graphs of ONNX, which runtimes of many languages and devices compute: ``pip install "headrace[onnx]"``.

`headrace.Flow.to_onnx` and ``headrace export`` are the ways in. A graph has float32 inputs of any number of rows, and
holds the parallel direction of the verb alone. It is made from what the flow's file would say (docs/files.md).
"""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import Any

import numpy as np

from headrace import _arguments as check
from headrace._core import cpu
from headrace._output import replacing
from headrace._stored import header_of

if find_spec("onnx") is None:
    raise ImportError('onnx: expected it to be installed, as pip install "headrace[onnx]" does')

from headrace.onnx.chain import Chain
from headrace.onnx.graph import Graph, Value

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
        graph.output("log_prob", _base_log_prob(header["base"], chain) + log_det, None)
    else:
        graph.output("x" if to_data else "z", chain.value + bad, features)
        graph.output("log_det", log_det, None)
    return graph.model("headrace", cpu.__version__, {"headrace_verb": verb, "headrace_kind": header["kind"]})


def _is_fixed(header: Any) -> bool:
    """Whether it is one of those that the core leaves to storing a row."""
    return _is_fixed(header["transform"]) if header["kind"] == "Inverse" else header["kind"] in _FIXED


_FIXED = ("Standardize", "Permutation")


def _base_log_prob(base: Any, chain: Chain) -> Value:
    n = base["features"]
    kind = base["kind"]
    before = chain.log_det
    if kind == "Normal":
        if base["trainable"]:
            chain.affine(chain.arrays["base.loc"], chain.arrays["base.log_scale"], False)
            chain.value = chain.value + (chain.value - chain.value)  # a step as others: what overflows is NaN
        else:
            chain.affine(np.array(base["loc"]), np.log(base["scale"]), False)
    elif kind not in ("StandardNormal", "Logistic"):
        raise ValueError(f"base: expected a base that ONNX export knows, got a {kind}")
    z: Value = chain.value
    if kind == "Logistic":
        size = abs(z)
        tails: Value = -size - 2.0 * (1.0 + (-size).exp()).log()
        return tails.sum()
    squares: Value = z * z * -0.5
    total: Value = squares.sum() + (chain.log_det - before - 0.5 * n * math.log(2.0 * math.pi))
    return total
