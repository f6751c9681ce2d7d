"""ONNX graphs of flows, run by onnxruntime and compared with the core."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

VERBS = ("log_prob", "to_latent", "to_data")


class Session:
    """The graph of one verb of a flow in onnxruntime, with or without onnxruntime's optimisations."""

    def __init__(self, flow, verb, path, optimised=True):
        flow.to_onnx(path, verb)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._first = "z" if verb == "to_data" else "x"

    def __call__(self, given, context=None):
        """Run the graph; return one array, or the value and the log-determinant."""
        inputs = {self._first: np.asarray(given, np.float32)}
        if context is not None:
            inputs["context"] = np.asarray(context, np.float32)
        results = self._session.run(None, inputs)
        return results if len(results) > 1 else results[0]


def errors(flow, verb, got, want, given, context):
    """The errors of each row and result, relative to the largest magnitude in the row and to the terms of its sums."""
    pairs = [(got, want)] if verb == "log_prob" else zip(got, want, strict=True)
    with np.errstate(all="ignore"):
        latent = given if verb == "to_data" else flow.to_latent(given, context)[0]
        size = 1.0 + np.square(np.asarray(latent, np.float64)).max(axis=1, initial=0.0)
    found = []
    for g, w in pairs:
        assert g.dtype == np.float32
        assert g.shape == w.shape
        g, w = (np.asarray(a, np.float64).reshape(len(a), int(np.prod(a.shape[1:]))) for a in (g, w))
        least = np.maximum(size, np.abs(w).max(axis=1, initial=0.0))
        with np.errstate(all="ignore"):  # no warnings for rows that are not finite
            found.append(np.abs(g - w).max(axis=1, initial=0.0) / least)
    return np.array(found)


def assert_alike(flow, verb, path, given, context=None, *, tolerance=1e-5, optimised=True):
    got = Session(flow, verb, path, optimised)(given, context)
    worst = errors(flow, verb, got, getattr(flow, verb)(given, context), given, context).max(initial=0.0)
    assert worst <= tolerance, f"{verb}: {worst:.3g}"
