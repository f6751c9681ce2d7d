"""The kernels of causal networks on a device: values against the reference, and bits that depend on nothing but the
row.

Rows share tiles and panels, long rows are computed in parts, and many steps in several launches; small arrays reach all
these cases in the emulation, which has little memory. Tests of whole flows are in test_device_sequences.py.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

import cases
import reference
from cuda_arrays import unaligned
from headrace._core import cpu
from pairs import pairwise

VERBS = ("parallel", "sequential")


@dataclass
class Case:
    """A causal network of the given sizes with random weights, its map, and data."""

    dtype: str = "float32"
    inputs: int = 1
    channels: int = 5
    skip: int = 7
    kernel: int = 2
    dilations: tuple = (1, 2, 4)
    context: int = 0
    covariates: int = 0
    hop: int = 1
    is_companded: bool = False
    reads_data: bool = True
    map: str = "affine"
    variant: str = "soft_clamp"
    bins: int = 3
    has_level: bool = False
    weights: np.ndarray = field(init=False)

    def __post_init__(self):
        self.outputs = self.inputs * (reference.MAPS[self.map].count(self.bins) + self.has_level)
        structure = cpu.CausalConvolution(**self.sizes())
        draw = cases.rng("cuda sequences", self.channels, self.kernel, self.map)
        tensors = {}
        for name, shape in structure.tensors:
            fan_in = max(int(np.prod(shape[1:])), 1)
            spread = 0.3 if len(shape) == 1 else 0.8 / np.sqrt(fan_in)
            tensors[name] = (spread * draw.standard_normal(shape)).astype(self.dtype)
        self.weights = structure.pack(list(tensors.values()))
        network = reference.CausalNetwork(tensors, self.dilations, self.hop, self.is_companded)
        options = reference.Options(scale=self.variant)
        reads = "data" if self.reads_data else "latent"
        self.judge = reference.CausalTransform(network, self.map, reads, options, self.has_level)

    def sizes(self):
        names = ("inputs", "channels", "skip", "kernel", "dilations", "context", "covariates", "hop", "is_companded")
        return {name: getattr(self, name) for name in names} | {"outputs": self.outputs}

    def made(self, device, index=None, **other):
        kind = {"float32": device.module.CausalTransformF32, "float64": device.module.CausalTransformF64}[self.dtype]
        settings = {"map": self.map, "variant": self.variant if self.map == "affine" else "", "slope": 1e-3}
        settings |= {"bins": self.bins, "bound": 5.0, "low": None, "min_bin": 1e-3, "has_level": self.has_level}
        settings |= {"reads_data": self.reads_data, "device": device.index if index is None else index}
        return kind(**(self.sizes() | settings | other))

    def data(self, rows, steps):
        draw = cases.rng("cuda sequences data", rows, steps, self.inputs)
        given = draw.standard_normal((rows, steps, self.inputs)).astype(self.dtype)
        frames = -(-steps // self.hop)
        context = draw.standard_normal((rows, self.context)).astype(self.dtype) if self.context else None
        covariates = draw.standard_normal((rows, frames, self.covariates)).astype(self.dtype)
        return given, context, covariates if self.covariates else None

    def run(self, device, verb, given, context=None, covariates=None, place=None):
        """The value, the log-derivative and the network's raw outputs of a call."""
        put = place or device.array
        rows, steps, inputs = given.shape
        results = [device.empty(shape, self.dtype) for shape in ((rows, steps, inputs), (rows, steps))]
        results.append(device.empty((rows, steps, self.outputs), self.dtype))
        arrays = [put(self.weights), put(given)]
        beside = [None if array is None else put(array) for array in (context, covariates)]
        described = map(device.tuple, (*arrays, *results, *beside))
        getattr(self.made(device), verb)(*described, stream=device.stream)
        return [device.numpy(array).copy() for array in results]

    def reference(self, verb, given, context=None, covariates=None):
        to_data = self.reads_data == (verb == "sequential")
        return getattr(self.judge, "forward" if to_data else "inverse")(given, context, covariates)


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        cases.assert_same_bits(one, other)


SIZES = {
    "plain": {},
    "three taps": {"kernel": 3, "dilations": (1, 3), "channels": 17, "skip": 33},
    "one layer": {"dilations": (2,), "channels": 1, "skip": 1},
    "far back": {"dilations": (1, 150), "channels": 3},
    "several values": {"inputs": 3, "kernel": 4, "dilations": (2, 1)},
    "context": {"context": 2, "inputs": 2},
    "covariates": {"covariates": 3, "hop": 4, "context": 2},
    "a frame a step": {"covariates": 1},
    "two scales": {"is_companded": True, "inputs": 2},
}
MAPS = {
    "affine": {},
    "exp": {"variant": "exp"},
    "additive": {"map": "additive"},
    "mixture": {"map": "logistic_mixture"},
    "level": {"has_level": True, "variant": "softplus"},
    "mixture with level": {"map": "logistic_mixture", "has_level": True},
}


@pairwise(
    size=SIZES,
    map=["affine", "mixture", "level"],
    rows=[1, 3, 11],
    reads_data=[True, False],
    verb=VERBS,
    dtype=cases.DTYPES,
)
def test_values_are_those_of_the_reference(device, size, map, rows, reads_data, verb, dtype):
    case = Case(dtype, reads_data=reads_data, **SIZES[size], **MAPS[map])
    data = case.data(rows, 330 if size == "far back" and verb == "parallel" else 37)
    value, log_det, _ = case.run(device, verb, *data)
    want = case.reference(verb, *data)
    # A step depends on all steps before it, and accumulates their rounding errors.
    depth = 20 if verb == "parallel" else 100
    cases.assert_close(value, want[0], magnitude=4.0, depth=depth)
    cases.assert_close(log_det, want[1], magnitude=4.0, depth=depth)


@pairwise(map=MAPS, verb=VERBS, dtype=cases.DTYPES)
def test_every_map(device, map, verb, dtype):
    case = Case(dtype, inputs=2, dilations=(1,), **MAPS[map])
    data = case.data(3, 12)
    value, log_det, _ = case.run(device, verb, *data)
    want = case.reference(verb, *data)
    cases.assert_close(value, want[0], magnitude=4.0, depth=50)
    cases.assert_close(log_det, want[1], magnitude=4.0, depth=50)


@pairwise(size=SIZES, dtype=cases.DTYPES, reads_data=[True, False])
def test_both_directions_have_the_same_outputs(device, size, dtype, reads_data):
    case = Case(dtype, reads_data=reads_data, **SIZES[size])
    given, *beside = case.data(3, 37)
    built, _, raw = case.run(device, "sequential", given, *beside)
    cases.assert_same_bits(case.run(device, "parallel", built, *beside)[2], raw)


@pairwise(size=SIZES, verb=VERBS, dtype=cases.DTYPES)
def test_bits_depend_neither_on_other_rows_nor_on_later_steps(device, size, verb, dtype):
    case = Case(dtype, **SIZES[size])
    given, context, covariates = case.data(11, 50)
    whole = case.run(device, verb, given, context, covariates)
    for rows, steps in ((slice(3, 4), 50), (slice(2, 11), 19)):
        frames = -(-steps // case.hop)
        some = (
            None if covariates is None else np.ascontiguousarray(covariates[rows])
        )  # every row has all frames, because the last frame is held
        assert covariates is None or frames <= some.shape[1]
        part = given[rows, :steps], None if context is None else np.ascontiguousarray(context[rows]), some
        assert_same(case.run(device, verb, *part), [array[rows, :steps] for array in whole])


def test_parts_of_a_long_row_are_those_of_the_reference(device):
    """Each part of a long row begins with a warm-up. Every kernel has several blocks, the last of which have fewer
    positions."""
    for dtype in cases.DTYPES:
        case = Case(dtype, **SIZES["far back"], **MAPS["mixture with level"])
        data = case.data(2, 300)
        value, log_det, _ = case.run(device, "parallel", *data)
        want = case.reference("parallel", *data)
        cases.assert_close(value, want[0], magnitude=4.0, depth=20)
        cases.assert_close(log_det, want[1], magnitude=4.0, depth=20)


@pytest.mark.parametrize("verb", VERBS)
def test_one_row_of_context_and_covariates_is_for_all(device, verb, dtype):
    case = Case(dtype, context=2, covariates=3, hop=5)
    given, context, covariates = case.data(11, 23)
    want = case.run(device, verb, given, *(np.repeat(array[:1], 11, axis=0) for array in (context, covariates)))
    assert_same(case.run(device, verb, given, context[:1], covariates[:1]), want)


@pairwise(size=["plain", "covariates", "several values"], verb=VERBS, dtype=cases.DTYPES)
def test_the_order_of_threads_does_not_matter(device, size, verb, dtype):
    case = Case(dtype, **SIZES[size], **MAPS["mixture with level"])
    data = case.data(11, 20)
    first, *others = device.in_each_order(lambda: case.run(device, verb, *data), every=True)
    for other in others:
        assert_same(other, first)


@pytest.mark.parametrize("verb", VERBS)
def test_any_strides_and_either_float_type_are_read(device, verb, dtype):
    case = Case(dtype, inputs=2)
    given, *_ = case.data(3, 20)
    want = case.run(device, verb, given)
    wide = device.array(np.zeros((3, 41, 5), dtype))
    wide[:, 1::2, 1::2] = device.array(given)
    turned = device.array(np.ascontiguousarray(given.transpose(2, 0, 1))).transpose(1, 2, 0)
    backwards = device.array(np.ascontiguousarray(given[:, ::-1]))[:, ::-1]
    for place in (lambda array: unaligned(device, array), lambda array: device.array(array)):
        assert_same(case.run(device, verb, given, place=place), want)
    for array in (wide[:, 1::2, 1::2], turned, backwards):
        pick = lambda one, array=array: array if one is given else device.array(one)  # noqa: E731
        assert_same(case.run(device, verb, given, place=pick), want)
    if dtype == "float32":
        exact = lambda one: device.array(one, "float64" if one is given else None)  # noqa: E731
        assert_same(case.run(device, verb, given, place=exact), want)


@pytest.mark.parametrize("verb", VERBS)
def test_layers_wider_than_shared_memory(device, verb):
    case = Case("float64", channels=390, skip=3, dilations=(1,))
    data = case.data(2, 3)
    value, log_det, _ = case.run(device, verb, *data)
    want = case.reference(verb, *data)
    cases.assert_close(value, want[0], magnitude=4.0, depth=20)
    cases.assert_close(log_det, want[1], magnitude=4.0, depth=20)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize("verb", VERBS)
def test_empty_arrays(device, verb, shape):
    case = Case()
    assert [array.size for array in case.run(device, verb, *case.data(*shape))] == [0, 0, 0]


def test_a_row_that_is_not_finite_spoils_only_itself(device, dtype):
    case = Case(dtype)
    given, *_ = case.data(11, 30)
    spoiled = given.copy()
    spoiled[4, 10] = np.nan
    for verb in VERBS:
        want, got = case.run(device, verb, given), case.run(device, verb, spoiled)
        assert_same([np.delete(array, 4, axis=0) for array in got], [np.delete(array, 4, axis=0) for array in want])
        assert_same([array[4, :10] for array in got], [array[4, :10] for array in want])
        assert np.isnan(got[0][4, 10:]).all() == (verb == "sequential")
        assert np.isnan(got[0][4, 10])


# ---- prediction and sums ---------------------------------------------------------------------------------------------


def predicted(device, theta, given, to_signal):
    result, log_gain = device.empty(given.shape, given.dtype), device.empty(theta.shape[:1], "float64")
    arrays = [device.array(theta), device.array(given), result, log_gain]
    device.module.predict(*map(device.tuple, arrays), to_signal, device=device.index, stream=device.stream)
    return device.numpy(result).copy(), device.numpy(log_gain).copy()


def assert_predicts(device, shape, order, to_signal, dtype):
    draw = cases.rng("prediction", *shape, order)
    theta = (0.4 * draw.standard_normal((shape[2], order))).astype(dtype)
    given = draw.standard_normal(shape).astype(dtype)
    got, log_gain = predicted(device, theta, given, to_signal)
    judge = reference.LinearPrediction(theta)
    want, log_det = judge.forward(given) if to_signal else judge.inverse(given)
    cases.assert_close(got, want, magnitude=8.0, depth=20)
    np.testing.assert_allclose(-log_gain.sum() if to_signal else log_gain.sum(), log_det[0, 0], rtol=1e-10, atol=1e-12)


@pairwise(
    shape__order=[((2, 30, 1), 1), ((3, 9, 2), 12), ((2, 40, 3), 5), ((1, 1, 1), 3)],
    to_signal=[False, True],
    dtype=cases.DTYPES,
)
def test_prediction(device, shape, order, to_signal, dtype):
    assert_predicts(device, shape, order, to_signal, dtype)


def test_prediction_of_many_columns(device):
    """The columns are several blocks, the last of which have fewer columns."""
    for dtype in cases.DTYPES:
        for to_signal in (False, True):
            assert_predicts(device, (2, 5, 130), 2, to_signal, dtype)


@pytest.mark.parametrize("shape", [(3, 70), (5, 1000), (1, 1), (4, 0), (0, 3)])
def test_sums_over_steps(device, shape, dtype):
    scores = cases.rng("sums", *shape).standard_normal(shape).astype(dtype)
    totals = device.empty(shape[:1], dtype)
    given = device.array(scores)
    device.module.sum_steps(device.tuple(given), device.tuple(totals), device=device.index, stream=device.stream)
    want = scores.astype("float64").sum(axis=1)
    np.testing.assert_allclose(device.numpy(totals), want, rtol=1e-6 if dtype == "float32" else 1e-12, atol=1e-12)


# ---- refusals, memory, streams ---------------------------------------------------------------------------------------


def test_unsupported_networks_are_refused(device):
    case = Case()
    for map in ("rq_spline", "rq_spline_free"):
        with pytest.raises(ValueError, match=f"map: expected one without a spline.*got {map}"):
            case.made(device, map=map, variant="")
    with pytest.raises(ValueError, match="outputs: expected 2, the parameters"):
        case.made(device, outputs=3)
    with pytest.raises(ValueError, match="kernel: expected from 2 to 32, got 1"):
        case.made(device, kernel=1)
    with pytest.raises(device.module.CudaError, match="device: invalid device ordinal"):
        case.made(device, index=99)


def test_wrong_arguments_are_refused(device):
    """The compiled class refuses wrong arguments, even without Python's checks."""
    case = Case(context=2, covariates=3, hop=4)
    made, (given, context, covariates) = case.made(device), case.data(3, 9)
    good = {"weights": case.weights, "given": given, "context": context, "covariates": covariates}
    good |= {"value": given, "log_det": given[..., 0], "raw": np.zeros((3, 9, 2), "f4")}
    wrong = {
        "weights": (case.weights[1:], case.weights.astype("f8")),
        "given": (given[..., 0], given[..., [0, 0]], given.astype(int)),
        "context": (None, context[:2], context.astype("f8"), np.repeat(context, 2, axis=1)[:, ::2]),
        "covariates": (None, covariates[:2], covariates[:, :2], covariates.astype("f8"), covariates[..., :2]),
        "value": (given[:, :8], given.astype("f8")),
        "log_det": (given, given[..., 0].T),
        "raw": (given,),
    }
    for name, values in wrong.items():
        for value in values:
            held = {key: None if one is None else device.array(one) for key, one in (good | {name: value}).items()}
            if value is not None and not value.flags.c_contiguous and name != "given":
                held[name] = device.array(value.T).T
            with pytest.raises(ValueError, match=f"^{name}:"):
                made.parallel(**{key: device.tuple(one) for key, one in held.items()}, stream=device.stream)


def test_allocations_that_fail(emu):
    case = Case(context=2, covariates=3)
    data, made = case.data(3, 9), case.made(emu)
    del made
    for verb in VERBS:
        for missing in range(1, 5):
            emu.module.fail_allocation(missing)
            with pytest.raises(MemoryError, match="device memory"):
                case.run(emu, verb, *data)
            emu.module.fail_allocation(0)
    assert emu.module.allocated() == 0


@pytest.mark.parametrize("verb", VERBS)
def test_everything_is_queued_on_the_stream_that_was_given(emu, verb):
    case = Case(context=2, covariates=3)
    data = case.data(3, 9)
    emu.stream = 64
    try:
        emu.module.log()
        case.run(emu, verb, *data)
        assert {stream for call, stream in emu.module.log() if call in ("launch", "copy", "cudaMemsetAsync")} == {64}
        emu.module.set_captured(64)
        with pytest.raises(RuntimeError, match="CUDA graph"):
            case.run(emu, verb, *data)
    finally:
        emu.stream = 0


def test_no_call_waits(emu):
    case = Case(context=2, covariates=3)
    given, context, covariates = case.data(11, 40)
    made, arrays = case.made(emu), [case.weights, given, given.copy(), given[..., 0].copy(), None, context, covariates]
    described = [emu.tuple(array) for array in arrays]
    emu.module.log()
    for verb in VERBS:
        getattr(made, verb)(*described, stream=0)
    calls = {call for call, _ in emu.module.log()}
    assert not any("Synchronize" in call or call == "copy to host" for call in calls), calls
