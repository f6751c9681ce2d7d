"""Refused arguments of sequences: every error names the argument, the expected value and the given one."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases


def x(rows=2, steps=10, features=1, dtype="float64"):
    return np.zeros((rows, steps, features), dtype)


def holed(value):
    array = x()
    array[1, 7] = value
    return array


def small(**more):
    return hr.WaveNet(layers=2, channels=4, dtype="float64", **more)


# Calls of a small flow by name, each with the error's type and words.
CALLS = {
    "no steps": (lambda f: f.log_prob(x(steps=0)), ValueError, ["x: expected at least one step"]),
    "no steps in a list": (
        lambda f: f.log_prob([x()[0], x(steps=0)[0]]),
        ValueError,
        [r"x\[1\]: expected at least one step"],
    ),
    "an empty list": (lambda f: f.log_prob([]), ValueError, ["x: expected at least one sequence", "an empty list"]),
    "a NaN": (
        lambda f: f.log_prob(holed(np.nan)),
        ValueError,
        ["x: expected finite numbers", r"got \[nan\] at step 7 of sequence 1"],
    ),
    "an infinity": (lambda f: f.to_latent(holed(-np.inf)), ValueError, [r"got \[-inf\] at step 7 of sequence 1"]),
    "a NaN in a list": (
        lambda f: f.log_prob([x()[0], holed(np.nan)[1]]),
        ValueError,
        [r"got \[nan\] at step 7 of sequence 1"],
    ),
    "a value beyond float32": (
        lambda _: hr.WaveNet(layers=2, channels=4).log_prob(holed(1e300)),
        ValueError,
        ["x: expected numbers that float32 holds", r"got \[1e\+300\] at step 7 of sequence 1"],
    ),
    "a value beyond float32 after a prefix": (
        lambda _: hr.WaveNet(layers=2, channels=4).given(holed(0.0)).log_prob(holed(-1e300)),
        ValueError,
        ["x: expected numbers that float32 holds", "step 7"],
    ),
    "a NaN in latent values": (lambda f: f.to_data(holed(np.nan)), ValueError, ["z: expected finite numbers"]),
    "a NaN in a prefix": (lambda f: f.given(holed(np.nan)), ValueError, ["prefix: expected finite numbers", "step 7"]),
    "a NaN in a push": (lambda f: f.stream(2).push(holed(np.nan)), ValueError, ["x: expected finite numbers"]),
    "other features": (
        lambda f: f.log_prob(x(features=2)),
        ValueError,
        [r"x: expected shape \(rows, steps, 1\)", r"got \(2, 10, 2\)"],
    ),
    "no axis of features": (lambda f: f.log_prob(x()[..., 0]), ValueError, [r"call x\[..., None\]"]),
    "one axis": (lambda f: f.log_prob(np.zeros(10)), ValueError, [r"x: expected shape", r"got \(10,\)"]),
    "mixed features": (
        lambda f: f.log_prob([x()[0], x(features=3)[0]]),
        ValueError,
        [r"x\[1\]: expected shape \(steps, 1\)", r"got \(10, 3\)"],
    ),
    "three axes in a list": (lambda f: f.log_prob([x()]), ValueError, [r"x\[0\]: expected shape \(steps, 1\)"]),
    "integers": (
        lambda f: f.log_prob(x(dtype="int16")),
        TypeError,
        ["x: expected dtype float32 or float64, got int16", "quantised=1", r"x.astype\('float64'\)"],
    ),
    "integers in a list": (lambda f: f.log_prob([x(dtype="int16")[0]]), TypeError, [r"x\[0\]: expected dtype"]),
    "text": (lambda f: f.log_prob("signal"), TypeError, ["x: expected an array", "got builtins.str"]),
    "None": (lambda f: f.log_prob(None), TypeError, ["x: expected an array", "got None"]),
    "complex": (lambda f: f.log_prob(x(dtype="complex128")), TypeError, ["x: expected dtype", "complex128"]),
    "a context where none is": (lambda f: f.log_prob(x(), np.zeros(2)), ValueError, ["context: expected None"]),
    "covariates where none are": (
        lambda f: f.log_prob(x(), None, np.zeros((10, 2))),
        ValueError,
        ["covariates: expected None, because this takes no covariates"],
    ),
    "lengths of another shape": (
        lambda f: f.log_prob(x(), lengths=[3]),
        ValueError,
        [r"lengths: expected shape \(2,\), got \(1,\)"],
    ),
    "a length beyond the steps": (
        lambda f: f.log_prob(x(), lengths=[3, 11]),
        ValueError,
        [r"lengths\[1\]: expected an integer from 1 to 10, got 11"],
    ),
    "a length of none": (lambda f: f.log_prob(x(), lengths=[0, 1]), ValueError, [r"lengths\[0\]", "got 0"]),
    "lengths beside a list": (lambda f: f.log_prob([x()[0]], lengths=[3]), ValueError, ["lengths: expected None"]),
    "parameters of another size": (
        lambda f: f.log_prob(x(), parameters=np.zeros(3)),
        ValueError,
        [r"parameters: expected shape \(\d+,\), got \(3,\)"],
    ),
    "no steps to draw": (lambda f: f.sample(1, steps=0), ValueError, ["steps: expected an integer from 1", "got 0"]),
    "fewer than no samples": (lambda f: f.sample(-1, steps=3), ValueError, ["n: expected an integer", "got -1"]),
    "a seed that is none": (lambda f: f.sample(1, steps=3, seed="a"), TypeError, ["seed: expected an integer"]),
    "a list as prefix": (lambda f: f.given([x()[0]]), TypeError, ["prefix: expected an array", "got list"]),
    "a continuation of other rows": (
        lambda f: f.given(x()).log_prob(x(rows=3)),
        ValueError,
        [r"x: expected shape \(\.\.\., 2, steps, 1\)", r"got \(3, 10, 1\)"],
    ),
    "a continuation of no steps": (lambda f: f.given(x()).sample(3, steps=0), ValueError, ["steps", "got 0"]),
    "a push of other rows": (
        lambda f: f.stream(3).push(x()),
        ValueError,
        [r"x: expected shape \(3, steps, 1\), got \(2, 10, 1\)"],
    ),
    "a stream of no rows": (
        lambda f: f.stream(0),
        ValueError,
        ["rows: expected an integer from 1 to 2147483647, got 0"],
    ),
    "no copies": (lambda f: f.stream().copies(0), ValueError, ["n: expected an integer from 1 to 2147483647, got 0"]),
    "a pull of no steps": (
        lambda f: f.stream().pull(0),
        ValueError,
        ["steps: expected an integer of at least 1, got 0"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    call, kind, words = CALLS[name]
    with pytest.raises(kind) as error:
        call(small())
    cases.assert_says(error, *words)


WITH_COVARIATES = {
    "none": (lambda f: f.log_prob(x(), np.zeros(2)), [r"covariates: expected shape \(frames, 3\)", "got None"]),
    "too few frames": (
        lambda f: f.log_prob(x(), np.zeros(2), np.zeros((2, 3))),
        ["covariates: expected at least 3 frames for 10 steps at 4 steps a frame, got 2"],
    ),
    "too few to draw": (
        lambda f: f.sample(2, 10, np.zeros(2), np.zeros((2, 3))),
        ["covariates: expected at least 3 frames for 10 steps", "got 2"],
    ),
    "too few for what follows": (
        lambda f: f.given(x(), np.zeros(2), np.zeros((3, 3))).sample(1, steps=10),
        ["covariates: expected at least 5 frames for 20 steps", "got 3"],
    ),
    "too few in a list": (
        lambda f: f.log_prob([x()[0], x()[0, :4]], np.zeros(2), [np.zeros((2, 3)), np.zeros((1, 3))]),
        ["covariates: expected at least 3 frames for 10 steps of sequence 0", "got 2"],
    ),
    "other columns": (
        lambda f: f.log_prob(x(), np.zeros(2), np.zeros((3, 2))),
        [r"covariates: expected shape \(frames, 3\) for all sequences, or \(2, frames, 3\), got \(3, 2\)"],
    ),
    "other rows": (lambda f: f.log_prob(x(), np.zeros(2), np.zeros((4, 3, 3))), [r"got \(4, 3, 3\)"]),
    "a NaN": (
        lambda f: f.log_prob(x(), np.zeros(2), np.full((3, 3), np.nan)),
        ["covariates: expected finite numbers"],
    ),
    "a list of other length": (
        lambda f: f.log_prob([x()[0]], np.zeros(2), [np.zeros((3, 3))] * 2),
        ["covariates: expected one array for each of 1 sequences, got 2"],
    ),
    "no context": (lambda f: f.log_prob(x(), None, np.zeros((3, 3))), [r"context: expected shape", "got None"]),
    "a context of other rows": (
        lambda f: f.log_prob(x(), np.zeros((3, 2)), np.zeros((3, 3))),
        [r"context: expected shape \(2, 2\), or \(2,\) for all rows, got \(3, 2\)"],
    ),
}


@pytest.mark.parametrize("name", WITH_COVARIATES)
def test_covariates_and_contexts(name):
    call, words = WITH_COVARIATES[name]
    with pytest.raises(ValueError, match="expected") as error:
        call(small(context=2, covariates=3, hop=4))
    cases.assert_says(error, *words)


OPTIONS = {
    "channels": (0, "channels: expected an integer from 1 to"),
    "skip": (0, "skip: expected an integer from 1 to"),
    "kernel": (1, "kernel: expected an integer from 2 to 32, got 1"),
    "dilations": ([1, 0], r"dilations\[1\]: expected an integer from 1 to"),
    "reads": ("both", "reads: expected one of 'data', 'latent', got 'both'"),
    "context": (-1, "context: expected an integer from 0 to"),
    "covariates": (-1, "covariates: expected an integer from 0 to"),
    "hop": (0, "hop: expected an integer from 1 to"),
    "dtype": ("float16", "dtype: expected 'float32' or 'float64'"),
    "map": ("wave", "map: expected one of"),
    "slope": (2.0, "slope: expected a number"),
    "features": (0, "features: expected an integer from 1 to"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    value, words = OPTIONS[name]
    with pytest.raises(ValueError, match=words):
        hr.CausalConvolution(**{"dilations": [1, 2], name: value})


def test_more_options():
    with pytest.raises(ValueError, match=r"dilations: expected 1 to 1024 of them, got 0"):
        hr.CausalConvolution(dilations=[])
    with pytest.raises(TypeError, match=r"dilations: expected a sequence of integers, got int 3"):
        hr.CausalConvolution(dilations=3)
    with pytest.raises(ValueError, match=r"channels, skip, kernel, dilations: expected a network whose weights fit"):
        hr.CausalConvolution(channels=8192, kernel=32, dilations=[1] * 1024)
    with pytest.raises(TypeError, match="formula: expected a keyword of CausalConvolution"):
        hr.CausalConvolution(formula="to_latent")
    with pytest.raises(ValueError, match="dilations: expected 3 of them, one for each of the layers, got 2"):
        hr.WaveNet(layers=3, dilations=[1, 2])
    with pytest.raises(TypeError, match=r"standardize: expected a tuple \(mean, std\), got float"):
        hr.WaveNet(standardize=1.0)
    with pytest.raises(ValueError, match=r"standardize\[1\]: expected finite numbers of at least"):
        hr.WaveNet(standardize=(0.0, -1.0))


CHAINS = {
    "none": (lambda t: [], "at least one CausalConvolution, got none"),
    "rows alone": (lambda t: [hr.transforms.Standardize([0.0], [1.0])], "at least one CausalConvolution, got none"),
    "no transform": (lambda t: [t, 3], r"transforms\[1\]: expected a transform of sequences or of rows, got int"),
    "a flow": (lambda t: [t, hr.MAF(1)], r"transforms\[1\]: expected a transform of sequences or of rows, got MAF"),
    "a context of a step": (
        lambda t: [t, hr.transforms.MaskedAutoregressive(1, context=2)],
        r"transforms\[1\]: expected a transform without context, got one of 2 columns",
    ),
    "other features": (
        lambda t: [t, hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])],
        r"transforms\[1\]: expected 1 features, as the base has, got 2",
    ),
    "other contexts": (
        lambda t: [hr.CausalConvolution(dilations=[1], context=n) for n in (1, 2)],
        r"transforms: expected one number of context columns, got \[1, 2\]",
    ),
    "other covariates": (
        lambda t: [hr.CausalConvolution(dilations=[1], covariates=n) for n in (1, 2)],
        r"transforms: expected one number of covariates, got \[1, 2\]",
    ),
    "other hops": (
        lambda t: [hr.CausalConvolution(dilations=[1], covariates=1, hop=n) for n in (2, 3)],
        r"transforms: expected one hop, got \[2, 3\]",
    ),
    "two dtypes": (
        lambda t: [t, hr.CausalConvolution(dilations=[1], dtype="float64")],
        r"transforms: expected one dtype, got \['float32', 'float64'\]",
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name):
    made, words = CHAINS[name]
    with pytest.raises((TypeError, ValueError), match=words):
        hr.SequenceFlow(made(hr.CausalConvolution(dilations=[1])))


def test_frameworks_may_not_mix():
    torch = pytest.importorskip("torch")
    flow = small(context=2)
    with pytest.raises(TypeError, match="context: expected a PyTorch tensor, as for x"):
        flow.log_prob(torch.zeros(2, 5, 1), np.zeros(2))


def test_a_refused_push_leaves_the_stream_where_it_was():
    flow = sequence_cases.wavenet("refused push")
    values = sequence_cases.sequences(2, 20)
    stream = flow.stream(2)
    stream.push(values[:, :10])
    bad = values[:, 10:].copy()
    bad[1, 9] = np.nan
    with pytest.raises(ValueError, match="at step 9 of sequence 1"):
        stream.push(bad)
    assert stream.position == 10
    cases.assert_same_bits(stream.push(values[:, 10:]), flow.log_prob_steps(values)[:, 10:])
