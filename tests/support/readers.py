"""Readers of a flow's file without the core, with one interface: graphs of ONNX, headrace.hpp, plain PyTorch, zuko."""

import numpy as np
import pytest

import headrace as hr

# Tolerances relative to the terms of a row's sums, because each reader adds the terms in another order.
LIMITS = {"float32": 1e-5, "float64": 1e-12}

REFUSED = ("logistic_mixture",)  # maps that the interpreter behind PyTorch, ONNX and zuko refuses by name


class _Reader:
    """A reader of files with ``reader.log_prob(flow, x, context)`` and other verbs: their results are arrays of
    `dtype`, or None if the reader lacks the flow or the verb."""

    def __init__(self, request, name, dtype):
        self.request, self.name, self.dtype = request, name, dtype

    def log_prob(self, flow, x, context=None):
        found = self.run(flow, "log_prob", x, context)
        return None if found is None else found[0]

    def to_latent(self, flow, x, context=None):
        return self.run(flow, "to_latent", x, context)

    def to_data(self, flow, z, context=None):
        return self.run(flow, "to_data", z, context)


def _lacking(error, *reasons):
    """Return None for an error whose message contains one of the reasons; raise any other error."""
    if not any(reason in str(error) for reason in reasons):
        raise error


class _Onnx(_Reader):
    def run(self, flow, verb, given, context):
        from onnx_cases import Session

        try:
            session = Session(flow, verb, self.request.getfixturevalue("tmp_path") / "flow.onnx")
        except ValueError as error:
            return _lacking(error, "expected a parallel direction", "map: expected one of")
        found = session(given, context)
        return found if isinstance(found, list) else [found]


class _Header(_Reader):
    def run(self, flow, verb, given, context):
        loaded = self.request.getfixturevalue("runtime").load(hr.to_bytes(flow), self.dtype)
        found = getattr(loaded, verb)(np.asarray(given, self.dtype), context)
        return [one.astype(self.dtype) for one in (found if isinstance(found, tuple) else (found,))]


class _Plain(_Reader):
    def run(self, flow, verb, given, context):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        from headrace import convert

        tensors = [None if one is None else torch.from_numpy(np.array(one, self.dtype)) for one in (given, context)]
        try:
            with torch.no_grad():
                found = getattr(convert.to_torch(flow, verify=False), verb)(*tensors)
        except ValueError as error:
            return _lacking(error, "map: expected one of")
        return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]


class _Zuko(_Reader):
    def run(self, flow, verb, given, context):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("zuko", reason="zuko is not installed")
        from headrace import convert

        try:
            model = convert.to_zuko(flow, verify=False)
        except NotImplementedError as error:
            return _lacking(error, "headrace's to_torch has it")
        x, c = (None if one is None else torch.from_numpy(np.array(one, self.dtype)) for one in (given, context))
        with torch.no_grad():
            density = model(c)
            if verb == "log_prob":
                return [density.log_prob(x).numpy()]
            transform = density.transform if verb == "to_latent" else density.transform.inv
            return [one.numpy() for one in transform.call_and_ladj(x)]


KINDS = {"onnx": _Onnx, "header": _Header, "plain": _Plain, "zuko": _Zuko}
EACH = [
    pytest.param((name, dtype), id=f"{name}-{dtype}")
    for name in KINDS
    for dtype in (("float32",) if name == "onnx" else ("float64",) if name == "zuko" else ("float32", "float64"))
]


@pytest.fixture(params=EACH)
def reader(request):
    name, dtype = request.param
    return KINDS[name](request, name, dtype)


@pytest.fixture(params=[one for one in EACH if not one.id.startswith("zuko")])
def whole_reader(request):
    """The readers that support rows that are not finite, bounds, and every base."""
    name, dtype = request.param
    return KINDS[name](request, name, dtype)


def errors_of(flow, verb, found, want, given, context=None):
    """The largest error of each row, relative to the largest magnitude among its results and the terms of its sums."""
    with np.errstate(all="ignore"):
        latent = given if verb == "to_data" else flow.to_latent(given, context)[0]
        size = 1.0 + np.square(np.asarray(latent, np.float64)).max(axis=1, initial=0.0)
    worst = np.zeros(len(given))
    for g, w in zip(found, want, strict=True):
        assert g.shape == w.shape
        g, w = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (g, w))
        with np.errstate(all="ignore"):  # no warnings for rows that are not finite
            least = np.maximum(size, np.abs(w).max(axis=1, initial=0.0))
            worst = np.maximum(worst, np.abs(g - w).max(axis=1, initial=0.0) / least)
    return worst


def assert_alike(reader, flow, verb, given, context=None):
    """Check that a reader's results agree with the core's; return whether the reader has this flow and verb."""
    found = reader.run(flow, verb, given, context)
    if found is None:
        return False
    want = getattr(flow, verb)(given, context)
    want = list(want) if isinstance(want, tuple) else [want]
    assert [one.dtype for one in found] == [one.dtype for one in want]
    worst = errors_of(flow, verb, found, want, given, context).max(initial=0.0)
    assert worst <= LIMITS[reader.dtype], f"{verb}: {worst:.3g}"
    return True
