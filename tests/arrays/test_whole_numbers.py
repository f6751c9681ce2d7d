"""Integers, truth values and lists as rows have the results of equal values in float64."""

import copy

import numpy as np
import pytest

import cases
import frameworks
import headrace as hr
from headrace._flow.program import evaluation as _evaluation

ROWS = np.random.default_rng(0).integers(-3, 4, (40, 3))
LABELS = np.arange(40) % 2
FLOW = hr.NSF(3, context=1, transforms=2, hidden=(8,))
SHORT = {"epochs": 2, "progress": False}

# Calls of every method that takes rows, by name.
VERBS = {
    "log_prob": lambda flow, x, c: flow.log_prob(x, c),
    "to_latent": lambda flow, x, c: flow.to_latent(x, c)[0],
    "to_data": lambda flow, x, c: flow.to_data(x, c)[1],
    "score": lambda flow, x, c: flow.log_prob_and_score(x, c)[1],
    "gradient": lambda flow, x, c: flow.nll_and_grad(x, c)[1],
    "sample": lambda flow, x, c: flow.sample(40, c, seed=1),
    "forward": lambda flow, x, c: flow.transforms[0].forward(x, c)[0],
}
DTYPES = ("int64", "int32", "int8", "uint8", "bool")


def floats(array):
    return np.asarray(array).astype("f8")


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("verb", VERBS)
def test_integers_have_the_results_of_floats(framework, verb):
    found = frameworks.load(framework)
    for dtype in DTYPES:
        x, labels = ROWS.astype(dtype), LABELS.astype(dtype)[:, None]
        expected = VERBS[verb](FLOW, floats(x), floats(labels))
        got = VERBS[verb](FLOW, found.make(x), found.make(labels))
        cases.assert_same_bits(found.open(got), expected)


def test_integers_are_converted_block_by_block(monkeypatch):
    expected = FLOW.log_prob(floats(ROWS), floats(LABELS))
    monkeypatch.setattr(_evaluation, "_BLOCK", 10)
    cases.assert_same_bits(FLOW.log_prob(ROWS, LABELS), expected)
    cases.assert_same_bits(FLOW.log_prob(ROWS.T.copy().T[::-1], LABELS[::-1]), expected[::-1])
    cases.assert_same_bits(FLOW.log_prob(ROWS.reshape(4, 10, 3), LABELS.reshape(4, 10, 1)), expected.reshape(4, 10))


def test_a_transform_without_a_dtype_gives_float64():
    moved, log_det = hr.transforms.Standardize([1.0] * 3, [2.0] * 3).inverse(ROWS)
    assert moved.dtype == log_det.dtype == np.float64
    np.testing.assert_array_equal(moved, (ROWS - 1.0) / 2.0)


@pytest.mark.parametrize("verb", VERBS)
def test_lists(verb):
    expected = VERBS[verb](FLOW, floats(ROWS), floats(LABELS)[:, None])
    got = VERBS[verb](FLOW, ROWS.tolist(), LABELS[:, None].tolist())
    assert type(got) is np.ndarray
    cases.assert_same_bits(got, expected)


def test_a_list_has_no_framework():
    """A list beside a tensor does not change the framework of the results."""
    torch = frameworks.load("torch").module
    got = FLOW.log_prob(torch.from_numpy(floats(ROWS)), LABELS[:, None].tolist())
    assert isinstance(got, torch.Tensor)
    cases.assert_same_bits(got.numpy(), FLOW.log_prob(floats(ROWS), floats(LABELS)))
    assert isinstance(FLOW.log_prob(ROWS.tolist(), torch.from_numpy(LABELS)), torch.Tensor)


def test_a_number_is_a_context_of_one_column():
    cases.assert_same_bits(FLOW.sample(9, 1, seed=2), FLOW.sample(9, np.ones(1), seed=2))
    cases.assert_same_bits(FLOW.log_prob(ROWS, 1), FLOW.log_prob(floats(ROWS), np.ones(1)))
    one, other = copy.copy(FLOW), copy.copy(FLOW)
    one.fit(ROWS, 1, **SHORT)
    other.fit(floats(ROWS), np.ones(1), **SHORT)
    cases.assert_same_bits(one.parameters, other.parameters)
    with pytest.raises(ValueError, match=r"context: expected .*\(2,\)|context: expected shape \(9, 2\)"):
        hr.MAF(3, context=2).sample(9, 1)


@pytest.mark.parametrize("make", [np.asarray, lambda a: a.tolist()])
def test_fits(make):
    one, other = copy.copy(FLOW), copy.copy(FLOW)
    weights = LABELS + 1
    one.fit(make(ROWS), make(LABELS), weights=make(weights), validation=(make(ROWS), make(LABELS)), **SHORT)
    other.fit(floats(ROWS), floats(LABELS), weights=floats(weights), validation=(floats(ROWS), floats(LABELS)), **SHORT)
    cases.assert_same_bits(one.parameters, other.parameters)


def test_columns_of_frames():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    pl = pytest.importorskip("polars", reason="polars is not installed")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    columns = {"n": ROWS[:, 0], "flag": ROWS[:, 1] > 0, "y": ROWS[:, 2].astype("f8")}
    x = np.stack([floats(one) for one in columns.values()], axis=1)
    expected = FLOW.log_prob(x, floats(LABELS))
    objects = pd.DataFrame(columns).assign(y=pd.Series(columns["y"].tolist(), dtype=object))
    nullable = pd.DataFrame(columns).astype({"n": "Int64", "flag": "boolean"})
    for frame in (pd.DataFrame(columns), objects, nullable, pl.DataFrame(columns), pa.table(columns)):
        cases.assert_same_bits(FLOW.log_prob(frame, LABELS), expected)
    nullable.loc[3, "n"] = pd.NA
    assert np.flatnonzero(np.isnan(FLOW.log_prob(nullable, LABELS))).tolist() == [3]


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_strict_functions_refuse_them(framework):
    found = frameworks.load(framework)
    params = found.make(np.ones((6, 4, 2), "f4"))
    for dtype in ("int64", "bool"):
        with pytest.raises(TypeError, match=r"^value: expected dtype float32 or float64, got .*(int|bool)"):
            hr.ops.coupling(found.make(np.ones((6, 4), dtype)), params)
    with pytest.raises(TypeError, match=r"^value: expected an array .*list; call np.asarray\(value, dtype='float64'\)"):
        hr.ops.coupling([[1.0]], params)
    with pytest.raises(TypeError, match=r"^out: expected dtype float32 or float64, got int64"):
        FLOW.log_prob(ROWS, LABELS, out=np.empty(40, "i8"))


def test_sequences_refuse_integers_without_a_grid():
    flow = hr.WaveNet(1, layers=2, channels=4)
    pcm = np.arange(12)[None, :, None]
    for one in (pcm, pcm.astype("i2"), pcm.astype(bool), [[[1], [2]]], [[[1], [2]], [[3]]]):
        with pytest.raises(TypeError, match="quantised=1"):
            flow.log_prob(one)
