"""Flows as ONNX graphs, which runtimes of many languages and devices compute: ``pip install ".[onnx]"``.

`headrace.Flow.to_onnx` and ``headrace export`` write graphs. A graph has float32 inputs with any number of rows, and
computes one method, in its parallel direction only. Graphs are made from the contents of the flow's file
(docs/files.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from headrace._base import arguments as check
from headrace._base.install import install
from headrace._base.output import replacing
from headrace._base.stored import header_of
from headrace._core import cpu
from headrace._core.device import BF16_KINDS
from headrace._flow.program.module import is_of_sequences

if find_spec("onnx") is None:
    raise ImportError(f"onnx: expected it to be installed: {install('onnx')}")

from headrace.convert.plain import bases, transforms
from headrace.convert.plain.support import inside, is_outside
from headrace.onnx.graph import Graph, Value, where
from headrace.onnx.operators import Operators

__all__ = ["VERBS", "graph_of", "write"]

VERBS = ("log_prob", "to_latent", "to_data")


def write(flow: Any, path: str | os.PathLike[str], verb: str) -> None:
    """Write the graph of a flow's method to a file; see `headrace.Flow.to_onnx`."""
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise TypeError(f"path: expected a str or an os.PathLike of one, got {check.kind_of(path)}")
    data = graph_of(flow, verb).SerializeToString()
    with replacing(name) as stream:
        stream.write(data)


def graph_of(flow: Any, verb: str) -> Any:
    """The checked ``onnx.ModelProto`` of a flow's method; see `headrace.Flow.to_onnx`."""
    check.choice("verb", verb, VERBS)
    if is_of_sequences(flow):
        raise TypeError(f"flow: expected a flow of rows, got {check.kind_of(flow)}, which is one of sequences")
    if flow.matmul in BF16_KINDS:
        raise ValueError(f"matmul: expected 'exact', as in a graph, got {flow.matmul!r}; call .to('cpu')")
    header = header_of(flow)
    features, columns, to_data = header["features"], header["context"], verb == "to_data"
    graph = Graph()
    o = Operators(graph, verb)
    given = graph.input("z" if to_data else "x", features)
    context = graph.input("context", columns) if columns else None
    bad = (given - given).sum(keep=True)  # NaN for rows that are not finite, otherwise 0
    if context is not None:
        bad = bad + (context - context).sum(keep=True)
        if (scale := header["standardize_context"]) is not None:
            context = o.narrow(transforms.standardized(o, scale["mean"], scale["std"], context, False), None)
    is_finite = bad.sum() >= 0.0  # a comparison with NaN is false
    bounds = transforms.support_at_end(header["transforms"], passes_permutations=True)
    outside = None if to_data or bounds is None else is_outside(o, bounds[0], given.columns(bounds[1]))
    if outside is not None:
        bad = bad + where(outside, float("nan"), 0.0).new_axis()
    arrays = {**flow.named_parameters(), **flow._fixed_arrays()}
    numbered = list(enumerate(header["transforms"]))[:: 1 if to_data else -1]
    last = max((k for k, (_, part) in enumerate(numbered) if not _is_fixed(part)), default=-1) + 1
    chain = _Chain(o, given, context, arrays)
    for i, part in numbered[:last]:
        chain.run(part, i, to_data)
    # A row that overflows has only NaN values, except if only the last transforms, such as a standardisation, overflow.
    value, inner = o.narrow(chain.value, None), sum(chain.logs, start=(given * 0.0).sum())
    bad = bad + (value - value).sum(keep=True) + (inner - inner).new_axis()
    for i, part in numbered[last:]:
        chain.run(part, i, to_data)
    value, log_det = o.narrow(chain.value, None), inner + bad.sum() + chain.log_det
    if verb == "log_prob":
        if (kind := header["base"]["kind"]) not in bases.KINDS:
            raise ValueError(f"base: expected a base that ONNX export knows, got a {kind}")
        log_prob = bases.log_prob(o, header["base"], transforms.below(arrays, "base."), value) + log_det
        if outside is not None:
            log_prob = where(outside & is_finite, float("-inf"), log_prob)
        graph.output("log_prob", log_prob, None)
    else:
        bounds = transforms.support_at_end(header["transforms"], passes_permutations=False)
        if to_data and bounds is not None:
            value = inside(o, bounds[0], value)
        graph.output("x" if to_data else "z", value + bad, features)
        graph.output("log_det", log_det, None)
    return graph.model("headrace", cpu.__version__, {"headrace_verb": verb, "headrace_kind": header["kind"]})


class _Chain:
    """Rows between two transforms: their coordinates, and the log-determinants of all transforms so far."""

    def __init__(self, o: Operators, value: Value, context: Value | None, arrays: Mapping[str, Any]) -> None:
        self.o, self.value, self.context, self.arrays = o, value, context, arrays
        self.logs: list[Value] = []  # terms of the log-determinant with one value a row
        self.log_det = 0.0  # the sum of terms that all rows share

    def run(self, header: Mapping[str, Any], i: int, to_data: bool) -> None:
        """Add the transform at index i of the flow to the graph."""
        o, self.o.place = self.o, f"transforms[{i}]"
        if (kind := transforms.inner_of(header)[0]["kind"]) not in transforms.KINDS:
            raise ValueError(f"{o.place}: expected a transform that ONNX export knows, got a {kind}")
        own = transforms.below(self.arrays, f"transforms.{i}.")
        self.value, log_det = transforms.run(o, header, own, self.value, self.context, to_data)
        if isinstance(log_det, Value):
            self.logs.append(o.narrow(log_det, None))
        else:
            self.log_det += log_det


def _is_fixed(header: Any) -> bool:
    """Whether a transform is a fixed map that the core computes when it stores a row."""
    return _is_fixed(header["transform"]) if header["kind"] == "Inverse" else header["kind"] in _FIXED


_FIXED = ("Standardize", "Permutation")
