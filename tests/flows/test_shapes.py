"""Results for leading dimensions and broadcast contexts are those of single rows, or of rows repeated by hand."""

import numpy as np
import pytest

import cases
import headrace as hr

D, C = 3, 2
X = cases.rows(20, D, "float64").reshape(4, 5, D)
CONTEXT = cases.rows(20, C, "float64", "context").reshape(4, 5, C)
RTOL = 1e-12  # in float64 fewer than eight rows take another path through the core


def made(context=C, base=None):
    flow = hr.NSF(D, context=context, transforms=2, hidden=(8,), dtype="float64", base=base)
    return cases.randomise(flow, 0.3, "shapes")


def repeated(x, context):
    """Return rows and contexts as two matrices, and the leading dimensions."""
    batch = np.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    n = int(np.prod(batch, dtype=int))
    pair = np.broadcast_to(x, (*batch, D)), np.broadcast_to(context, (*batch, C))
    return pair[0].reshape(n, D).copy(), pair[1].reshape(n, C).copy(), batch


# Rows and contexts that are broadcast against each other, by name.
PAIRS = {
    "two axes": (X, CONTEXT),
    "two axes, one context": (X, CONTEXT[0, 0]),
    "two axes, contexts of the last": (X, CONTEXT[0]),
    "two axes, contexts of the first": (X, CONTEXT[:, :1]),
    "rows against contexts": (X[0, :, None], CONTEXT[0, :4]),
    "one row, one context": (X[0, 0], CONTEXT[0, 0]),
    "one row, many contexts": (X[0, 0], CONTEXT[0]),
    "one row with an axis, many contexts": (X[0, :1], CONTEXT.reshape(-1, C)),
    "more axes of the context": (X[0], CONTEXT),
    "no rows": (X[:0], CONTEXT[:0]),
    "not contiguous": (X.transpose(1, 0, 2), CONTEXT.transpose(1, 0, 2)[..., ::-1]),
    "a matrix": (X.reshape(-1, D), CONTEXT.reshape(-1, C)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_values(pair):
    flow, (x, context) = made(), PAIRS[pair]
    rows, contexts, batch = repeated(x, context)
    log_prob = flow.log_prob(x, context)
    assert log_prob.shape == batch
    np.testing.assert_allclose(log_prob.ravel(), flow.log_prob(rows, contexts), rtol=RTOL)
    for method in (flow.to_data, flow.to_latent, flow.transforms[0].forward, flow.transforms[0].inverse):
        for got, expected in zip(method(x, context), method(rows, contexts), strict=True):
            assert got.shape == batch + expected.shape[1:]
            np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=RTOL, atol=1e-13)


@pytest.mark.parametrize("pair", PAIRS)
def test_gradients_of_broadcast_arguments_are_sums(pair):
    flow, (x, context) = made(), PAIRS[pair]
    rows, contexts, batch = repeated(x, context)
    wrt, n = ("inputs", "parameters", "context"), len(rows)
    by_value, by_row = cases.rows(n, D, "float64", "by value"), cases.rows(n, 1, "float64", "by row")[:, 0]
    calls = {
        flow.log_prob_vjp: ((by_row.reshape(batch),), (by_row,)),
        flow.to_data_vjp: ((by_value.reshape(*batch, D), by_row.reshape(batch)), (by_value, by_row)),
        flow.to_latent_vjp: ((by_value.reshape(*batch, D), None), (by_value, None)),
        flow.transforms[1].inverse_vjp: ((None, by_row.reshape(batch)), (None, by_row)),
    }
    for method, (given, plain) in calls.items():
        got = method(x, *given, context, wrt=wrt)
        by_rows, by_parameters, by_contexts = method(rows, *plain, contexts, wrt=wrt)
        for gradient, expected, like in ((got[0], by_rows, x), (got[2], by_contexts, context)):
            assert gradient.shape == like.shape
            np.testing.assert_allclose(gradient, summed(expected, batch, like.shape), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(got[1], by_parameters, rtol=1e-9, atol=1e-11)


def summed(gradient, batch, shape):
    """Sum a gradient over the axes that broadcasting added."""
    gradient = gradient.reshape(*batch, shape[-1])
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 != gradient.shape[i])
    return gradient.sum(axis=axes, keepdims=True)


@pytest.mark.parametrize("pair", [name for name in PAIRS if name != "no rows"])
def test_scores_and_losses(pair):
    flow, (x, context) = made(), PAIRS[pair]
    rows, contexts, batch = repeated(x, context)
    log_prob, score = flow.log_prob_and_score(x, context)
    expected = flow.log_prob_and_score(rows, contexts)
    assert (log_prob.shape, score.shape) == (batch, (*batch, D))
    np.testing.assert_allclose(log_prob.ravel(), expected[0], rtol=RTOL)
    np.testing.assert_allclose(score.reshape(-1, D), expected[1], rtol=1e-9, atol=1e-11)
    weights = np.arange(1.0, 1 + len(rows))
    loss, gradient = flow.nll_and_grad(x, context, weights.reshape(batch))
    plain = flow.nll_and_grad(rows, contexts, weights)
    np.testing.assert_allclose(loss, plain[0], rtol=RTOL)
    np.testing.assert_allclose(gradient, plain[1], rtol=1e-9, atol=1e-11)


def test_one_column_of_context_needs_no_axis():
    flow = hr.MAF(D, context=1, transforms=2, hidden=(8,), dtype="float64")
    x, context = X.reshape(-1, D), CONTEXT.reshape(-1, C)[:, 0]
    np.testing.assert_array_equal(flow.log_prob(x, context), flow.log_prob(x, context[:, None]))
    np.testing.assert_array_equal(flow.sample(20, context, seed=1), flow.sample(20, context[:, None], seed=1))
    by_context = flow.log_prob_vjp(x, np.ones(20), context, wrt="context")[0]
    assert by_context.shape == (20,)
    np.testing.assert_array_equal(
        by_context, flow.log_prob_vjp(x, np.ones(20), context[:, None], wrt="context")[0][:, 0]
    )
    flow.fit(x, context, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("n", "context", "shape"),
    [
        (20, CONTEXT.reshape(-1, C), (20,)),
        (20, CONTEXT[0, 0], (20,)),
        (20, CONTEXT[0, :1], (20,)),
        ((20,), CONTEXT[0, 0], (20,)),
        ((7,), CONTEXT[0], (7, 5)),
        ((7, 2), CONTEXT[:, 0], (7, 2, 4)),
        ((7,), CONTEXT, (7, 4, 5)),
        ((), CONTEXT, (4, 5)),
        ((), CONTEXT[0, 0], ()),
        ((3, 0), CONTEXT[0], (3, 0, 5)),
        (np.array([4, 5]), CONTEXT[0, 0], (4, 5)),
    ],
)
def test_samples_of_a_shape(n, context, shape):
    flow = made()
    x, log_prob = flow.sample_and_log_prob(n, context, seed=1)
    assert (x.shape, log_prob.shape) == ((*shape, D), shape)
    np.testing.assert_array_equal(flow.sample(n, context, seed=1), x)
    np.testing.assert_allclose(flow.log_prob(x, context), log_prob, rtol=1e-9)
    out = np.empty((*shape, D))
    assert flow.sample(n, context, seed=1, out=out) is out
    np.testing.assert_array_equal(out, x)


def test_samples_of_a_shape_without_context():
    flow = made(context=0)
    np.testing.assert_array_equal(flow.sample((4, 5), seed=1), flow.sample(20, seed=1).reshape(4, 5, D))


def test_shapes_that_cannot_be_broadcast_are_refused():
    flow = made()
    for x, context in (
        (X, CONTEXT[:3]),
        (X[0], CONTEXT[0, :4]),
        (X, CONTEXT[0, 0, :1]),
        (X, np.ones(())),
    ):
        with pytest.raises(ValueError, match="context: expected shape"):
            flow.log_prob(x, context)
    for x in (X[..., :2], np.ones(())):
        with pytest.raises(ValueError, match=r"x: expected shape \(rows, 3\), \(3,\) or \(\.\.\., 3\), got"):
            flow.log_prob(x, CONTEXT)
    with pytest.raises(ValueError, match=r"for 20 draws for each row of the context call sample\(\(20,\), context\)"):
        flow.sample(20, CONTEXT[0])
    with pytest.raises(ValueError, match="context: expected None"):
        made(context=0).sample((3,), CONTEXT)
    with pytest.raises(ValueError, match="context: expected shape"):
        flow.sample((3,))
    with pytest.raises(TypeError, match=r"n\[0\]: expected an integer"):
        flow.sample((3.5,), CONTEXT)
    with pytest.raises(ValueError, match=r"grad_x: expected shape \(4, 5, 3\)"):
        flow.to_data_vjp(X, X[0], None, CONTEXT)


def test_results_are_written_over_rows_of_any_dimensions():
    flow = made()
    expected = flow.to_latent(X, CONTEXT)
    x, log_det = X.copy(), np.empty((4, 5))
    given = x, log_det
    assert flow.to_latent(x, CONTEXT, out=given) is given
    np.testing.assert_array_equal(x, expected[0])
    np.testing.assert_array_equal(log_det, expected[1])
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        flow.to_latent(x[0, 0], CONTEXT[0], out=(x[0], log_det[0]))  # one row of x is broadcast


def test_every_framework(framework):
    if framework.name == "pandas":
        pytest.skip("frames have one or two axes")
    flow, x, context = made(), framework.make(X), framework.make(CONTEXT)
    log_prob = flow.log_prob(x, context)
    np.testing.assert_array_equal(framework.open(log_prob), flow.log_prob(X, CONTEXT))
    one = flow.log_prob(framework.make(X[0, 0]), framework.make(CONTEXT[0, 0]))
    assert framework.open(one).shape == ()
    by_context = flow.log_prob_vjp(x, log_prob, framework.make(CONTEXT[0]), wrt=("context",))[0]
    assert framework.open(by_context).shape == (5, C)
    assert framework.open(flow.sample((7,), context, seed=1)).shape == (7, 4, 5, D)


def test_on_a_device(library):
    flow = made().astype("float32")
    there, x, context = flow.to("cuda"), X.astype("f4"), CONTEXT.astype("f4")
    log_prob = there.log_prob(library.make(x), library.make(context[0]))
    np.testing.assert_allclose(library.open(log_prob), flow.log_prob(x, context[0]), rtol=1e-6)
    by_x, by_context = there.log_prob_vjp(
        library.make(x), log_prob, library.make(context[0]), wrt=("inputs", "context")
    )
    expected = flow.log_prob_vjp(x, flow.log_prob(x, context[0]), context[0], wrt=("inputs", "context"))
    np.testing.assert_allclose(library.open(by_x), expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(library.open(by_context), expected[1], rtol=1e-4, atol=1e-4)
    drawn = there.sample((7,), library.make(context[0]), seed=1)
    np.testing.assert_allclose(library.open(drawn), flow.sample((7,), context[0], seed=1), rtol=1e-4, atol=1e-5)


# ---- transforms by index -------------------------------------------------------------------------------------------


def test_transforms_are_reached_by_their_index():
    flow = made()
    assert [hr.to_bytes(t) for t in flow] == [hr.to_bytes(t) for t in flow.transforms]
    assert hr.to_bytes(flow[-1]) == hr.to_bytes(flow.transforms[-1])
    for index in (len(flow), -len(flow) - 1):
        with pytest.raises(IndexError, match="index: expected"):
            flow[index]
    with pytest.raises(TypeError, match="index: expected"):
        flow[1:]
    with pytest.raises(TypeError, match="index: expected"):
        flow["0"]


def test_steps_of_an_ascent_are_reached_by_their_index():
    flow = hr.DualAscentFlow.notes(steps=3).fit(cases.rows(200, 2, "float64"), progress=False)
    steps = [*flow]
    assert len(steps) == len(flow)
    assert [hr.to_bytes(t) for t in steps[0]] == [hr.to_bytes(t) for t in flow[:1].transforms[:-1]]


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: hr.MAF(10, context=4, transforms=5, hidden=(64, 64)), None),
        (lambda: hr.RealNVP(5, transforms=3, hidden=(8,)), None),
        (lambda: hr.Flow([hr.transforms.Inverse(hr.transforms.MaskedAutoregressive(5, (8,)))]), None),
        (
            lambda: hr.Flow(
                [hr.transforms.Planar(3), hr.transforms.Radial(3), hr.transforms.Permutation([2, 1, 0])], hr.Normal(3)
            ),
            7 + 5 + 6,
        ),
        (lambda: hr.transforms.Rotation.random(4, 0), 0),
        (lambda: hr.transforms.Elementwise(2, map="affine"), 4),
        (lambda: hr.transforms.Linear(5), 25 + 5),
        (
            lambda: hr.Flow([hr.transforms.Inverse(hr.transforms.Linear(5, "random")), hr.transforms.ActNorm(5)]),
            30 + 10,
        ),
        (lambda: hr.transforms.Linear.from_matrix([[-2.0]]), 2),
    ],
)
def test_parameters_are_counted_without_padding(make, count):
    """Entries of a matrix that stay zero after an assignment are no parameters."""
    module = make()
    if count is None:
        module.parameters = np.ones_like(module.parameters)
        count = sum(int(np.count_nonzero(a)) for a in module.named_parameters().values())
    assert module.n_parameters == count


@pytest.mark.parametrize("n", [2**59, 10**30, (2**40, 2**40), (0, 2**62)])
def test_samples_beyond_the_size_of_arrays_are_refused(n):
    with pytest.raises(ValueError, match=r"^n: expected at most 576460752303423488 numbers in a sample, got shape \("):
        hr.MAF(2).sample(n)


def test_sums_of_weights_that_overflow_are_refused():
    flow, x = hr.MAF(2, dtype="float64"), np.ones((4, 2))
    for weight in (1e308, 1e-310):
        with pytest.raises(ValueError, match=r"^weights: expected a sum between 1e-300 and 1e300, got"):
            flow.nll_and_grad(x, weights=np.full(4, weight))
    wanted = flow.nll_and_grad(x)
    for weight in (1e299, 1e-299):
        loss, gradient = flow.nll_and_grad(x, weights=np.full(4, weight))
        assert abs(loss - wanted[0]) < 1e-12
        np.testing.assert_allclose(gradient, wanted[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_three_to_seven_rows_of_a_small_flow_take_the_path_of_many(dtype):
    flow = cases.randomise(hr.MAF(5, hidden=(20, 18), dtype=dtype))
    x = cases.rows(40, 5, dtype)
    want = flow.log_prob(x)
    for n in (3, 5, 7):
        cases.assert_same_bits(flow.log_prob(x[:n]), want[:n])
