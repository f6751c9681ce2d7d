"""Linear maps by triangular factors: any invertible matrix, both directions, and gradients by each parameter."""

import copy
import pickle

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import reference
from cuda_twins import Twin

every_verb = pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)


def orthogonal(n, sign, *key):
    matrix = hr.transforms.Rotation.random(n, seed=cases.rng("orthogonal", n, *key)).matrix.copy()
    matrix[0] *= sign * np.sign(np.linalg.det(matrix))
    return matrix


MATRICES = {
    "orthogonal": orthogonal(6, 1.0),
    "a reflection": orthogonal(6, -1.0),
    "a negative determinant": orthogonal(5, -1.0) @ np.diag([0.1, 1.0, 3.0, 10.0, 0.5]) @ orthogonal(5, 1.0, 2),
    "minus one": np.array([[-1.0]]),
    "one number": np.array([[0.3]]),
    "minus the identity": -np.eye(4),
    "a permutation": np.eye(5)[[3, 0, 4, 1, 2]],
    "zero first": np.array([[0, 2], [1, 1]]),
    "of many": orthogonal(40, -1.0),
    "of huge numbers": 1e20 * orthogonal(3, 1.0),
    "of tiny numbers": 1e-20 * orthogonal(3, -1.0),
}
every_matrix = pytest.mark.parametrize("name", MATRICES)


def shift_of(matrix):
    return np.linspace(-1.0, 2.0, len(matrix)) * np.abs(matrix).max()


def subject(name, dtype="float64"):
    return hr.transforms.Linear.from_matrix(MATRICES[name], shift_of(MATRICES[name]), dtype=dtype)


def judge_of(t):
    return gradients.linear(t).judge(list(t.named_parameters().values()))


def randomised(features, dtype, order="random"):
    return cases.randomise(
        hr.transforms.Linear(features, order, seed=features, dtype=dtype), 0.5 / features**0.5, "linear"
    )


# --- matrices -------------------------------------------------------------------------------------------------------


@every_matrix
def test_a_matrix_comes_back(name, dtype):
    """The matrix comes back up to the rounding of its factors: in float64, up to some units in the last place."""
    t, matrix = subject(name, dtype), MATRICES[name]
    a, b = t.to_matrix()
    assert a.dtype == b.dtype == np.float64
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(a / scale, matrix / scale, rtol=0, atol=64 * np.finfo(dtype).eps)
    np.testing.assert_allclose(b, shift_of(matrix).astype(dtype), rtol=0)
    np.testing.assert_allclose(a, judge_of(t).matrix, rtol=1e-13, atol=1e-14 * scale)
    assert hr.transforms.Linear.from_matrix(a, b, dtype=dtype).signs == t.signs


@pytest.mark.parametrize("name", ["minus one", "minus the identity", "a permutation"])
def test_signed_permutations_come_back_exactly(name, dtype):
    assert np.array_equal(subject(name, dtype).to_matrix()[0], MATRICES[name])


@pytest.mark.parametrize("features", [1, 2, 3, 17])
def test_random_matrices_come_back(features):
    """The error of the matrix is that of the factors times their condition number."""
    for seed in range(20):
        matrix = cases.rng("random", features, seed).standard_normal((features, features))
        a, _ = hr.transforms.Linear.from_matrix(matrix, dtype="float64").to_matrix()
        np.testing.assert_allclose(a, matrix, rtol=0, atol=1e-13 * np.abs(matrix).max())


def test_signs_are_in_the_permutation_alone():
    t = subject("a reflection")
    assert -1 in t.signs
    assert set(t.named_parameters()) == {"upper", "log_diagonal", "lower", "shift"}
    sign = np.prod(t.signs) * np.linalg.det(np.eye(6)[list(t.order)])
    assert sign == pytest.approx(-1.0)
    assert np.abs(t.named_parameters()["lower"]).max() <= 1.0  # the largest pivots come first


@pytest.mark.parametrize(
    ("matrix", "kind", "words"),
    [
        (np.zeros((2, 2)), ValueError, ["condition number below", "inf"]),
        (np.ones((3, 3)), ValueError, ["condition number below"]),
        (np.diag([1.0, 1e-8]), ValueError, ["condition number below 8.39e\\+06 for float32", "1e\\+08"]),
        (np.full((2, 2), np.nan), ValueError, ["finite"]),
        (np.diag([1.0, np.inf]), ValueError, ["finite"]),
        (np.ones((2, 3)), ValueError, [r"\(n, n\)", r"\(2, 3\)"]),
        (np.ones(4), ValueError, [r"\(4,\)"]),
        (np.ones((0, 0)), ValueError, [r"\(0, 0\)"]),
        (1e-40 * np.eye(2), ValueError, ["float32 holds", "underflow"]),
        (1e39 * np.eye(2), ValueError, ["float32 holds", "overflow"]),
        (np.eye(2, dtype=complex), TypeError, ["array of numbers", "complex"]),
        ("eye", TypeError, ["array of numbers", "str"]),
        (None, TypeError, ["array of numbers", "NoneType"]),
    ],
    ids=str,
)
def test_singular_and_wrong_matrices_are_refused(matrix, kind, words):
    with pytest.raises(kind) as error:
        hr.transforms.Linear.from_matrix(matrix)
    cases.assert_says(error, "^matrix: ", *words)


def test_a_matrix_that_elimination_loses_is_refused():
    """Wilkinson's matrix is well conditioned, but the entries of its factors double with each row."""

    def wilkinson(n):
        matrix = np.eye(n) - np.tril(np.ones((n, n)), -1)
        matrix[:, -1] = 1.0
        return matrix

    assert np.linalg.cond(wilkinson(60)) < 100
    with pytest.raises(ValueError, match=r"^matrix: expected one that elimination with row pivoting takes apart"):
        hr.transforms.Linear.from_matrix(wilkinson(60))
    np.testing.assert_allclose(hr.transforms.Linear.from_matrix(wilkinson(9)).to_matrix()[0], wilkinson(9), atol=1e-4)


@pytest.mark.parametrize(
    ("shift", "words"),
    [([1.0], [r"\(2,\)", r"\(1,\)"]), ([1.0, np.nan], ["finite", "nan"]), ([1e39, 0.0], ["float32 holds"])],
    ids=str,
)
def test_wrong_shifts_are_refused(shift, words):
    with pytest.raises(ValueError, match=r"^shift: ") as error:
        hr.transforms.Linear.from_matrix(np.eye(2), shift)
    cases.assert_says(error, *words)


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [None, "random"])
@pytest.mark.parametrize("features", [1, 2, 3, 17, 64])
def test_both_directions_are_the_reference_s(features, order, dtype):
    t = randomised(features, dtype, order)
    for rows in cases.BATCH_SIZES:
        cases.check_directions(t, judge_of(t), cases.rows(rows, features, dtype), None, dtype, depth=16)


@every_matrix
def test_matrices_act_as_products(name, dtype):
    t, matrix, shift = subject(name, dtype), MATRICES[name], shift_of(MATRICES[name])
    z, scale = cases.rows(37, len(matrix), dtype), np.abs(MATRICES[name]).max()
    x, log_det = t.forward(z)
    cases.assert_close(x / scale.astype(dtype), (z @ matrix.T + shift) / scale, magnitude=10.0)
    cases.assert_close(log_det, np.full(37, np.linalg.slogdet(matrix / scale)[1] + len(matrix) * np.log(scale)))
    back, log_det_back = t.inverse(x)
    cases.assert_close(back, z, magnitude=10.0, depth=16)
    np.testing.assert_array_equal(log_det_back, -log_det)


@every_matrix
def test_a_device_computes_the_same(name, device, dtype):
    t = subject(name, dtype)
    given = cases.rows(37, t.features, dtype)
    scale = np.abs(MATRICES[name]).max()
    for direction, rows in (("forward", given), ("inverse", (given * scale).astype(dtype))):
        got, want = getattr(Twin(device, t), direction)(rows), getattr(judge_of(t), direction)(rows)
        size = scale if direction == "forward" else 1.0
        cases.assert_close((got[0] / size).astype(dtype), want[0] / size, magnitude=10.0, depth=16)
        cases.assert_close(got[1], want[1], magnitude=10.0)


def test_a_fresh_one_only_reorders(dtype):
    z = cases.rows(9, 5, dtype)
    for order in (None, [3, 1, 4, 0, 2], "random"):
        t = hr.transforms.Linear(5, order, dtype=dtype)
        x, log_det = t.forward(z)
        cases.assert_same_bits(x, np.ascontiguousarray(z[:, list(t.order)]))
        assert not log_det.any()
        cases.assert_same_bits(t.inverse(x)[0], z)


def test_random_orders_come_from_the_seed():
    orders = {hr.transforms.Linear(9, "random", seed=seed).order for seed in (0, 1, (1, 2))}
    assert len(orders) == 3
    assert hr.transforms.Linear(9, "random", seed=1).order in orders


def test_an_inverse_exchanges_the_directions(dtype):
    t = subject("a negative determinant", dtype)
    other, x = hr.transforms.Inverse(t), cases.rows(50, 5, dtype)
    for got, want in ((other.forward(x), t.inverse(x)), (other.inverse(x), t.forward(x))):
        cases.assert_same_bits(got[0], want[0])
        cases.assert_same_bits(got[1], want[1])
    cases.assert_same_bits(other.transform.parameters, t.parameters)
    twice = hr.transforms.Inverse(other)
    cases.assert_same_bits(twice.forward(x)[0], t.forward(x)[0])
    for name, value in t.named_parameters().items():
        cases.assert_same_bits(other.named_parameters()[name], value)
        cases.assert_same_bits(twice.named_parameters()[name], value)
    other.set_parameter("shift", np.arange(5.0))
    assert np.array_equal(other.transform.to_matrix()[1], np.arange(5.0))


def test_a_poisoned_row_leaves_all_others_alone(dtype):
    t, x = subject("a negative determinant", dtype), cases.rows(50, 5, dtype)
    want = t.inverse(x)
    x[20, 1] = np.nan
    got, others = t.inverse(x), np.arange(50) != 20
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
        assert np.isnan(result[20]).all()


# --- gradients ------------------------------------------------------------------------------------------------------


@every_verb
@pytest.mark.parametrize("features", [1, 2, 5])
def test_each_parameter_by_itself(features, verb):
    made = gradients.linear(randomised(features, "float64"))
    gradients.check(made, verb, cases.rows(9, features, "float64"), number_by_number=True)


@every_verb
@pytest.mark.parametrize("build", [gradients.linear, gradients.inverse_linear])
def test_gradients_where_signs_change(build, verb):
    made = build(subject("a negative determinant"))
    for n in (1, 9, 97):
        gradients.check(made, verb, cases.rows(n, 5, "float64"), number_by_number=n == 9, least=10.0)


@every_verb
def test_gradients_on_a_device(verb, device):
    made = gradients.linear(subject("a negative determinant"))
    on_device = gradients.Subject(Twin(device, made.library), made.arrays, made.judge)
    gradients.check(on_device, verb, cases.rows(9, 5, "float64"), number_by_number=True, least=10.0)


@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
def test_gradients_in_a_flow(verb):
    parts = [
        gradients.linear(randomised(4, "float64")),
        gradients.act_norm(cases.randomise(hr.transforms.ActNorm(4, dtype="float64"), 0.3)),
        gradients.masked(cases.made(features=4, hidden=(9,), context=2)),
        gradients.inverse_linear(randomised(4, "float64", None)),
        gradients.standardize(np.arange(4.0), np.arange(1.0, 5.0)),
    ]
    flow = gradients.chain(parts, "normal")
    gradients.check(flow, verb, cases.rows(9, 4, "float64"), cases.rows(9, 2, "float64", "context"))


def test_there_is_one_shift_alone():
    """Two of the three factors have no biases, so that neither gradients nor steps reach entries for them."""
    flow = hr.Flow([randomised(4, "float64")])
    _, gradient = flow.nll_and_grad(cases.rows(50, 4, "float64"))
    assert np.count_nonzero(gradient) == flow.n_parameters == 4 * 4 + 4
    flow.parameters = np.ones_like(flow.parameters)
    assert np.count_nonzero(flow.parameters) == flow.n_parameters
    flow.fit(2.0 + cases.rows(200, 4, "float64"), epochs=2, progress=False)
    assert np.count_nonzero(flow.parameters) == flow.n_parameters


# --- copies, files, fits --------------------------------------------------------------------------------------


def test_parameters_by_name(dtype):
    t = hr.transforms.Linear(3, [2, 0, 1], dtype=dtype)
    given = {
        "upper": np.arange(9.0).reshape(3, 3),
        "log_diagonal": np.array([0.0, 1.0, -1.0]),
        "lower": -np.arange(9.0).reshape(3, 3),
        "shift": np.array([5.0, 6.0, 7.0]),
    }
    for name, value in given.items():
        t.set_parameter(name, value)
    wanted = {**given, "upper": np.triu(given["upper"], 1), "lower": np.tril(given["lower"], -1)}
    for name, value in t.named_parameters().items():
        assert value.dtype == dtype
        assert np.array_equal(value, wanted[name])
    assert np.array_equal(t.to_matrix()[1], given["shift"])
    assert np.array_equal(t.forward(np.zeros((1, 3)))[0][0], given["shift"].astype(dtype))
    with pytest.raises(KeyError, match="upper, log_diagonal, lower, shift"):
        t.set_parameter("matrix", np.eye(3))
    with pytest.raises(ValueError, match="lower"):
        t.set_parameter("lower", np.zeros(3))


def test_copies_pickles_and_files(tmp_path):
    t = subject("a reflection", "float32")
    t.save(tmp_path / "linear")
    for other in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t)), hr.load(tmp_path / "linear")):
        assert hr.to_bytes(other) == hr.to_bytes(t)
        assert (other.order, other.signs) == (t.order, t.signs)
        cases.assert_same_bits(other.parameters, t.parameters)
    wide = t.astype("float64")
    assert np.array_equal(wide.to_matrix()[0], t.to_matrix()[0])
    assert repr(hr.transforms.Linear(3)) == "Linear(3)"
    assert repr(hr.transforms.Linear(3, [2, 0, 1])) == "Linear(3, order=[2, 0, 1])"


def test_part_of_a_flow(dtype):
    links = [subject("a negative determinant", dtype), hr.transforms.Linear(5, "random", dtype=dtype)]
    flow = hr.Flow([links[0], hr.transforms.Coupling(5, [0], (6,), dtype=dtype), links[1]])
    x = cases.rows(9, 5, dtype)
    cases.assert_same_bits(flow[:1].to_data(x)[0], links[0].forward(x)[0])
    cases.assert_same_bits(flow[0].parameters, links[0].parameters)
    assert flow[2].order == links[1].order
    assert {"transforms.0.upper", "transforms.2.shift"} < set(flow.named_parameters())


def test_a_fit_finds_correlations():
    """Correlated Gaussian coordinates are a linear map of the base: the fit comes within some thousandths of a nat."""
    matrix = np.array([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [-2.0, 1.0, 0.2]])
    x = cases.rows(4000, 3, "float64") @ matrix.T
    flow = hr.Flow([hr.transforms.Linear(3), hr.transforms.Standardize(np.zeros(3), np.ones(3))])
    flow.fit(x, epochs=30, weight_decay=0.0, progress=False)
    true = reference.StandardNormal().log_prob(np.linalg.solve(matrix, x.T).T) - np.linalg.slogdet(matrix)[1]
    assert true.mean() - flow.log_prob(x).mean() < 0.01


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"features": 0}, ["features: ", "0"]),
        ({"features": 2**13 + 1}, ["features: ", "8192", "8193"]),
        ({"order": [0, 0, 1]}, ["order: ", "exactly once"]),
        ({"order": [0, 1]}, ["order: "]),
        ({"order": "reverse"}, ["order: ", "'random'", "'reverse'"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
        ({"dtype": "float16"}, ["dtype: ", "float16"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(given, words):
    with pytest.raises((TypeError, ValueError)) as error:
        hr.transforms.Linear(**{"features": 3, **given})
    cases.assert_says(error, *words)
