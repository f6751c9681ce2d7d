"""A transform of some columns changes these as the transform alone does; all others pass bit for bit, on every core."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import reference
from file_cases import EXAMPLES
from safetensors_reader import read

FEATURES, COLUMNS, CONTEXT = 7, (5, 0, 3, 6), 2
OTHERS = [c for c in range(FEATURES) if c not in COLUMNS]


def foreign(dtype):
    """A transform whose masks cannot be made from degrees."""
    dense = cases.made(4, (9, 8), CONTEXT, change=cases.pin_zeros).astype(dtype)
    return hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=CONTEXT, activation="tanh")


def linear(dtype):
    matrix = cases.rng("on columns").standard_normal((4, 4))
    matrix[0] *= -np.sign(np.linalg.det(matrix))  # the determinant is negative
    return hr.transforms.Linear.from_matrix(matrix, np.arange(4.0), dtype=dtype)


def made(kind, *given, spread=0.3, **more):
    return lambda dtype: cases.randomise(kind(*given, **more, dtype=dtype), spread, kind.__name__)


INNER = {
    "autoregressive": made(hr.transforms.MaskedAutoregressive, 4, (9,), context=CONTEXT, order=[2, 0, 3, 1]),
    "its other side": made(hr.transforms.MaskedAutoregressive, 4, (9,), reads="latent", context=CONTEXT),
    "splines": made(hr.transforms.MaskedAutoregressive, 4, (9,), map="rq_spline", bins=4, formula="to_latent"),
    "masks of others": foreign,
    "coupling": made(hr.transforms.Coupling, 4, [3, 1], (6,), context=CONTEXT),
    "coupling that reads nothing": made(hr.transforms.Coupling, 4, [], (6,)),
    "linear": linear,
    "norm": made(hr.transforms.ActNorm, 4),
    "marginal maps": made(hr.transforms.Elementwise, 4, map="rq_spline", bins=4, bound=3.0),
    "planar": made(hr.transforms.Planar, 4, spread=0.6),
    "planar with context": made(hr.transforms.Planar, 4, context=CONTEXT, hidden=(6,), spread=0.6),
    "radial": made(hr.transforms.Radial, 4, spread=0.6),
    "radial with context": made(hr.transforms.Radial, 4, context=CONTEXT, hidden=(6,), spread=0.6),
    "permutation": lambda dtype: hr.transforms.Permutation([2, 0, 3, 1]),
    "rotation": lambda dtype: hr.transforms.Rotation.random(4, seed=1),
    "rotation in blocks": lambda dtype: hr.transforms.Rotation.random(4, seed=1, block=3),
    "inverse": lambda dtype: hr.transforms.Inverse(made(hr.transforms.MaskedAutoregressive, 4, (9,))(dtype)),
    "itself": lambda dtype: hr.transforms.OnColumns(made(hr.transforms.Coupling, 3, [1], (6,))(dtype), [3, 0, 1], 4),
}
every_inner = pytest.mark.parametrize("name", INNER)


def subject(name, dtype="float64"):
    return hr.transforms.OnColumns(INNER[name](dtype), COLUMNS, FEATURES)


def judge_of(t, folder):
    """Return the reference, from the file of the transform alone."""
    t.transform.save(folder / "inner")
    return reference.OnColumns(read(folder / "inner"), COLUMNS)


def given(t, n, dtype):
    context = cases.rows(n, t.context, dtype, "context") if t.context else None
    return cases.rows(n, FEATURES, dtype, "on columns"), context


@every_inner
@pytest.mark.parametrize("n", [3, 40])
def test_both_directions(core, name, n, dtype, tmp_path):
    t = subject(name, dtype)
    judge, (x, context) = judge_of(t, tmp_path), given(t, n, dtype)
    for verb in ("forward", "inverse"):
        got = getattr(t, verb)(x, context)
        for result, want in zip(got, getattr(judge, verb)(x, context), strict=True):
            cases.assert_close(result, want, magnitude=np.abs(want).max(), depth=128)
        assert_array_equal(got[0][:, OTHERS], x[:, OTHERS])


@every_inner
def test_gradients(core, name):
    """Gradients by the columns are those of the transform alone; gradients by other columns pass unchanged."""
    t, n = subject(name), 33
    x, context = given(t, n, "float64")
    by_value, by_row = cases.rows(n, FEATURES, "float64", "by value"), cases.rows(n, 1, "float64", "by row")[:, 0]
    wrt = ("inputs", "parameters", "context") if t.context else ("inputs", "parameters")
    for verb in ("forward_vjp", "inverse_vjp"):
        got = getattr(t, verb)(x, by_value, by_row, context, wrt=wrt)
        columns = list(COLUMNS)
        inner = (np.ascontiguousarray(x[:, columns]), np.ascontiguousarray(by_value[:, columns]), by_row, context)
        want = getattr(t.transform, verb)(*inner, wrt=wrt)
        assert_allclose(got[0][:, columns], want[0], rtol=1e-9, atol=1e-9)
        assert_array_equal(got[0][:, OTHERS], by_value[:, OTHERS])
        for mine, own in zip(got[1:], want[1:], strict=True):
            assert_allclose(mine, own, rtol=1e-9, atol=1e-9 * np.abs(own).max(initial=1.0))


@every_inner
def test_in_a_chain_between_networks(core, name, dtype):
    """Permutations move columns in a chain, and the chain has the results of its transforms one after another."""
    chain = [
        made(hr.transforms.MaskedAutoregressive, FEATURES, (9,))(dtype),
        hr.transforms.Permutation([3, 1, 6, 0, 2, 5, 4]),
        subject(name, dtype),
        made(hr.transforms.Coupling, FEATURES, [2, 5], (9,))(dtype),
    ]
    flow = hr.Flow(chain)
    x, context = given(flow, 40, dtype)
    want, total = x, 0.0
    for t in reversed(chain):
        want, log_det = t.inverse(want, context if t.context else None)
        total = total + log_det
    got, log_det = flow.to_latent(x, context)
    cases.assert_close(got, want, magnitude=np.abs(want).max(), depth=64)
    cases.assert_close(log_det, total, magnitude=30.0, depth=64)
    back = flow.to_data(got, context)[0]
    cases.assert_close(back, x, magnitude=10.0 + np.abs(want).max(), depth=512)


@pytest.mark.parametrize("matmul", ["bf16", "bf16x6"])
def test_products_in_bf16_are_those_of_the_transform_alone(matmul):
    t = subject("autoregressive", "float32").to("cpu", matmul)
    x, context = given(t, 40, "float32")
    alone = t.transform.inverse(np.ascontiguousarray(x[:, list(COLUMNS)]), context)
    assert t.transform.matmul == matmul
    assert_array_equal(t.inverse(x, context)[0][:, list(COLUMNS)], alone[0])


@every_inner
def test_copies_files_and_other_dtypes(name, dtype, tmp_path):
    t = subject(name, dtype)
    x, context = given(t, 20, dtype)
    want = t.forward(x, context)
    t.save(tmp_path / "t")
    for other in (copy.copy(t), pickle.loads(pickle.dumps(t)), hr.load(tmp_path / "t"), t.to("cpu")):
        for got, own in zip(other.forward(x, context), want, strict=True):
            cases.assert_same_bits(got, own)
        assert other.columns == COLUMNS
    assert repr(t).startswith("OnColumns(")
    if t.dtype is not None:
        assert list(t.named_parameters()) == list(t.transform.named_parameters())
        wide = t.astype("float64")
        got = wide.forward(x, context)[0].astype(dtype)
        cases.assert_close(got, want[0], magnitude=np.abs(want[0]).max(), depth=64)


def test_parameters_are_those_of_the_inner_transform():
    inner = made(hr.transforms.Coupling, 2, [0], (4,))("float64")
    t = hr.transforms.OnColumns(inner, [2, 0], 3)
    t.set_parameter("layers.0.bias", np.arange(4.0))
    assert_array_equal(t.transform.named_parameters()["layers.0.bias"], np.arange(4.0))
    assert not (inner.named_parameters()["layers.0.bias"] == np.arange(4.0)).all()


def test_marginals():
    """Marginals exist for columns outside of the inner transform, and for its columns that depend on no others."""
    own = made(hr.transforms.MaskedAutoregressive, 3, (8,), order=[1, 0, 2])("float64")
    flow = hr.Flow([hr.transforms.OnColumns(own, [4, 1, 2], 5), hr.transforms.Elementwise(5, dtype="float64")])
    x = cases.rows(40, 5, "float64", "marginals")
    whole = flow.to_latent(x)[0]
    for columns in ([0, 3], [1], [4, 1], [3, 1, 4], [2, 4, 1, 0]):
        part = flow.marginal(columns)
        assert_allclose(part.to_latent(np.ascontiguousarray(x[:, columns]))[0], whole[:, columns], atol=1e-12)
    with pytest.raises(ValueError, match=r"OnColumns, makes coordinate .* counted among its columns \[4, 1, 2\]"):
        flow.marginal([4])
    shuffled = hr.Flow(
        [
            hr.transforms.OnColumns(hr.transforms.Permutation([1, 2, 0]), [4, 1, 2], 5),
            hr.transforms.Elementwise(5, dtype="float64"),
        ]
    )
    assert shuffled.marginal([1, 0]).features == 2


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: hr.transforms.OnColumns("x", [0], 1), TypeError, ["transform: ", "str"]),
        (
            lambda: hr.transforms.OnColumns(hr.transforms.ActNorm(2), [0], 3),
            ValueError,
            ["columns: expected 2", "got 1"],
        ),
        (lambda: hr.transforms.OnColumns(hr.transforms.ActNorm(2), [0, 0], 3), ValueError, ["columns: ", "different"]),
        (lambda: hr.transforms.OnColumns(hr.transforms.ActNorm(2), [0, 3], 3), ValueError, ["columns"]),
        (lambda: hr.transforms.OnColumns(hr.transforms.ActNorm(2), [0, 1], 0), ValueError, ["features: "]),
        (
            lambda: hr.transforms.OnColumns(hr.transforms.ActNorm(2), [0, 1], 2**33),
            ValueError,
            ["features: ", "16777216"],
        ),
        (
            lambda: hr.transforms.OnColumns(hr.transforms.Support([(0, 1)]), [0], 2),
            ValueError,
            ["transform: expected no Standardize"],
        ),
        (lambda: hr.transforms.OnColumns(hr.transforms.Standardize([1.0], [2.0]), [0], 2), ValueError, ["transform: "]),
        (
            lambda: hr.transforms.OnColumns(EXAMPLES["gaussianize-alone"](None), [0, 1, 2], 4),
            ValueError,
            ["transform: "],
        ),
        (
            lambda: hr.transforms.OnColumns(
                hr.transforms.Inverse(hr.transforms.OnColumns(hr.transforms.Support([(0, 1)]), [0], 2)), [0, 1], 3
            ),
            ValueError,
            ["transform: "],
        ),
    ],
)
def test_refused_columns_and_transforms(make, kind, words):
    with pytest.raises(kind) as error:
        make()
    cases.assert_says(error, *words)
