"""Flows of sequences with random weights, and their references."""

import warnings

import numpy as np

import cases
import headrace as hr
import safetensors_reader
from headrace.sequences.arrays import Covariates
from headrace.sequences.crops import OpenSequences

SPREAD = 0.4  # the spread of weights: gates are far from their linear middle, and values stay of order one


def randomise(flow, *key):
    """Give a flow random weights and biases everywhere, so that an omitted tap, unit or bias changes results."""
    draw = cases.rng("sequence weights", *key)
    for name, array in flow.named_parameters().items():
        fan_in = max(int(np.prod(array.shape[1:])), 1)
        spread = SPREAD if array.ndim == 1 or "head.1" in name else 2.0 * SPREAD / np.sqrt(fan_in)
        flow.set_parameter(name, (spread * draw.standard_normal(array.shape)).astype(array.dtype))
    return flow


def wavenet(*key, **more):
    """A small `WaveNet` with random weights; by default it is a teacher (with a density) of one value a step."""
    options = {"layers": 5, "channels": 9, "kernel": 3, "skip": 11, "dtype": "float64"} | more
    return randomise(hr.WaveNet(options.pop("features", 1), **options), *key)


def chain(dtype="float64"):
    """A chain of transforms of rows and two transforms over time: one reads latent values, and one reads data."""
    over_time = [
        hr.CausalConvolution(2, channels=8, dilations=[1, 4], reads="latent", context=2, dtype=dtype),
        hr.CausalConvolution(2, channels=5, kernel=4, dilations=[3], covariates=3, hop=4, dtype=dtype),
    ]
    links = [hr.transforms.Permutation([1, 0]), hr.transforms.Linear(2, "random", seed=1, dtype=dtype)]
    ends = [hr.transforms.Standardize([5.0, -1.0], [2.0, 0.5])]
    transforms = [over_time[0], *links, over_time[1], *ends]
    return randomise(hr.SequenceFlow(transforms, hr.Normal(2), dtype=dtype), "chain")


def judge_of(flow, folder):
    """The reference of a flow, read from the flow's file in float64."""
    flow.astype("float64").save(folder / "judge")
    return safetensors_reader.read(folder / "judge")


def sequences(rows, steps, features=1, dtype="float64", *key):
    """Smooth sequences with jumps, of several time scales, like signals."""
    draw = cases.rng("sequences", rows, steps, features, *key)
    x = np.cumsum(0.3 * draw.standard_normal((rows, steps, features)), axis=1)
    return (x - 0.5 * x.mean(axis=1, keepdims=True) + 0.2 * draw.standard_normal(x.shape)).astype(dtype)


def context_of(flow, rows):
    """A row of context for each sequence, or None for a flow without context."""
    return cases.rows(rows, flow.context, flow.dtype, "context") if flow.context else None


def covariates_of(flow, rows, steps):
    """As many frames of covariates as the steps need, or None for a flow without covariates."""
    frames = -(-steps // flow.hop)
    if not flow.covariates:
        return None
    return cases.rng("covariates", rows, frames).standard_normal((rows, frames, flow.covariates)).astype(flow.dtype)


def _alone(dtype):
    transform = hr.CausalConvolution(2, channels=5, dilations=[1, 7], covariates=2, hop=9, skip=3, dtype=dtype)
    return randomise(transform, "convolution")


def _with_inner_flow(dtype):
    inner = hr.NSF(3, context=4, transforms=2, hidden=(6,), link="random", dtype=dtype)
    return wavenet("inner", features=3, inner=inner, layers=2, dtype=dtype)


def _student(dtype):
    return wavenet("student", reads="latent", map="affine", layers=2, transforms=3, dtype=dtype)


def _spline(dtype):
    more = {"context": 2, "map": "rq_spline", "bins": 4, "bound": 6.0, "standardize": (1.5, 0.25)}
    return wavenet("spline", dtype=dtype, **more)


# Examples by name: each function makes an example from a dtype. A new kind of flow needs a line in EXAMPLES, and
# files, which tests/files/make.py writes.
def _prediction(dtype):
    return randomise(hr.LinearPrediction(2, order=3, dtype=dtype), "prediction")


EXAMPLES = {
    "chain": chain,
    "student": _student,
    "convolution": _alone,
    "prediction": _prediction,
    "spline": _spline,
    "inner": _with_inner_flow,
}


def _audio(dtype):
    """A default `WaveNet`, with data so far from zero that float32 cannot hold their digits."""
    return wavenet("audio", layers=4, standardize=(123456.7, 0.25), dtype=dtype)


def _on_student(dtype):
    base = hr.StudentT(2, [1.0, 4.0])
    ends = [
        hr.transforms.Standardize([1.0, 2.0], [2.0, 1.0]),
        hr.transforms.Permutation([1, 0]),
        hr.transforms.Rotation.random(2, seed=1),
    ]
    network = hr.CausalConvolution(2, channels=16, skip=5, kernel=3, dilations=[1, 3, 9], map="affine", dtype=dtype)
    return randomise(
        hr.SequenceFlow([network, hr.transforms.ActNorm(2, dtype=dtype), *ends], base, dtype=dtype), "student's t"
    )


def _in_bf16(dtype):
    flow = wavenet("bf16", features=2, channels=21, skip=16, layers=3, dtype="float32")
    return flow.to("cpu", "bf16") if dtype == "float32" else flow.astype("float64")


def _bounded(dtype):
    options = {"features": 2, "layers": 3, "inner": None, "map": "affine", "dtype": dtype}
    return wavenet("bounded", bounds=[(0.0, None), (-1.0, 3.0)], standardize=([0.3, 0.1], [0.7, 1.2]), **options)


PIECES = (1, 7, 1, 30, 2)  # the numbers of steps that calls of a stream take: single steps, and windows


def streamed(flow, rows, steps=41, dtype=None):
    """The tuple (sequences, context, covariates) for a stream of a flow: sequences are in the range of its data."""
    x = sequences(rows, steps, flow.features, dtype or flow.dtype)
    if isinstance(flow.transforms[-1], hr.transforms.Support):
        x = flow.transforms[-1].forward(x.reshape(-1, flow.features))[0].reshape(x.shape)
    shift = flow.transforms[-1].mean if isinstance(flow.transforms[-1], hr.transforms.Standardize) else 0.0
    return (x + shift).astype(x.dtype), context_of(flow, rows), covariates_of(flow, rows, steps)


def cut(x):
    """Cut steps into pieces of the lengths `PIECES`."""
    return np.split(x, np.cumsum(PIECES)[:-1], axis=1)


# EXAMPLES, and flows without files in the repository, for tests of readers of files and of streams.
READ = EXAMPLES | {"mixture": _audio, "student-t": _on_student, "bf16": _in_bf16, "bounded": _bounded}


def adaptive(dtype):
    """A flow whose network reads the running sizes of the `AdaptivePrediction` after it."""
    network = hr.CausalConvolution(2, channels=6, dilations=[1, 2, 9], sizes=True, dtype=dtype)
    prediction = hr.AdaptivePrediction(2, order=5, window=30, every=7, floor=0.01, ceiling=3.0, start=0.4, damping=0.9)
    flow = hr.SequenceFlow([network, prediction, hr.transforms.Standardize([0.5, 1.0], [2.0, 0.7])])
    return randomise(flow, "adaptive")


IN_CORE = READ | {"adaptive": adaptive}  # files that the C library reads and headrace.hpp refuses


def inputs_of(module):
    """Sequences, context and covariates for the results of an example."""
    rows, steps = 2, 20
    flow = flow_of(module)
    x = sequences(rows, steps, flow.features, flow.dtype)
    return x, context_of(flow, rows), covariates_of(flow, rows, steps)


def results_of(module, x, context, covariates):
    """The results of an example for the given sequences, by name, as float64."""
    flow = flow_of(module)
    z, log_det = flow.to_latent(x, context, covariates)
    results = {"log_prob": flow.log_prob_steps(x, context, covariates), "z": z, "log_det": log_det}
    return {name: np.asarray(array, np.float64) for name, array in results.items()}


def flow_of(module):
    if isinstance(module, hr.CausalConvolution):
        return hr.SequenceFlow([module])
    if isinstance(module, hr.LinearPrediction):  # a flow needs at least one network
        network = hr.CausalConvolution(module.features, channels=1, dilations=[1], map="affine", dtype=module.dtype)
        return hr.SequenceFlow([network, module])
    return module


# The options of a WaveNet that fits quickly.
SHORT = {"layers": 3, "channels": 4, "kernel": 3, "skip": 5}


def autoregression(steps, *key):
    """An autoregression x_t = 1.5 x_{t-1} - 0.8 x_{t-2} + e_t, whose entropy rate is that of the noise e."""
    noise = cases.rng("noise", steps, *key).standard_normal(steps + 200)
    x = np.zeros(steps + 200)
    for t in range(2, len(x)):
        x[t] = 1.5 * x[t - 1] - 0.8 * x[t - 2] + noise[t]
    return x[200:, None]


def fitted(flow, x, *others, **more):
    """Fit a flow briefly and return the history; the warning that no epoch improved on the start is ignored."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: no epoch of")
        return flow.fit(x, *others, **{"epochs": 2, "progress": False} | more)


def opened(flow, arrays, context=None, covariates=None, weights=None, quantised=None):
    caller = flow._caller()
    own = Covariates(flow, caller, covariates, (len(arrays),))
    return OpenSequences(arrays, context, own, weights, flow.hop, quantised, flow.dtype)
