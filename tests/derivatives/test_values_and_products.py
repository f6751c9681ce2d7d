"""Values and vector-Jacobian products of one run, parameters for one call, and samples from noise of the caller."""

import numpy as np
import pytest

import cases
import headrace as hr

D, C, N = 4, 2, 30
X = cases.rows(N, D, "float64")
CONTEXT = cases.rows(N, C, "float64", "context")
BY_VALUE, BY_ROW = cases.rows(N, D, "float64", "by value"), cases.rows(N, 1, "float64", "by row")[:, 0]
WRT = ("context", "inputs", "parameters")
FLOWS = {
    "maf": lambda: hr.MAF(D, context=C, transforms=2, hidden=(8,), dtype="float64"),
    "splines, a base of its own": lambda: hr.NSF(
        D, context=C, transforms=2, hidden=(8,), dtype="float64", base=hr.Normal(D, 0.5, 2.0)
    ),
    "couplings, logistic": lambda: hr.RealNVP(
        D, context=C, transforms=2, hidden=(8,), dtype="float64", base=hr.Logistic(D)
    ),
    "planar": lambda: hr.PlanarFlow(D, context=C, hidden=(8,), transforms=3, dtype="float64"),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    return cases.randomise(FLOWS[request.param](), 0.3, request.param)


def assert_close(got, expected):
    """Compare results in float64: runs that record values for a product differ from others by rounding."""
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def assert_pairs(got, value, gradients):
    assert_close(got[0], value)
    assert len(got[1]) == len(gradients)
    for one, other in zip(got[1], gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_values_and_products_are_those_of_two_calls(flow):
    options = {"wrt": WRT, "parameters": flow.parameters * 0.9}
    given = {"parameters": options["parameters"]}
    got = flow.log_prob_vjp(X, BY_ROW, CONTEXT, **options, values=True)
    assert_pairs(got, flow.log_prob(X, CONTEXT, **given), flow.log_prob_vjp(X, BY_ROW, CONTEXT, **options))
    for name in ("to_data", "to_latent"):
        pull = getattr(flow, f"{name}_vjp")
        pair, gradients = pull(X, BY_VALUE, BY_ROW, CONTEXT, **options, values=True)
        expected = getattr(flow, name)(X, CONTEXT, **given)
        assert_close(pair[1], expected[1])
        assert_pairs((pair[0], gradients), expected[0], pull(X, BY_VALUE, BY_ROW, CONTEXT, **options))


def test_values_and_products_of_transforms_and_with_parameters_of_one_call(flow):
    for t in flow.transforms:
        context = CONTEXT if t.context else None
        vector = t.parameters * 0.9
        other = t.__copy__()
        if len(vector):
            other.parameters = vector
        for name in ("forward", "inverse"):
            wrt = WRT if t.context else WRT[1:]
            options = {"wrt": wrt, "parameters": vector, "values": True}
            pair, gradients = getattr(t, f"{name}_vjp")(X, BY_VALUE, BY_ROW, context, **options)
            value, log_det = getattr(t, name)(X, context, parameters=vector)
            for got, expected in zip((value, log_det), getattr(other, name)(X, context), strict=True):
                np.testing.assert_array_equal(got, expected)
            assert_close(pair[0], value)
            assert_close(pair[1], log_det)
            plain = getattr(other, f"{name}_vjp")(X, BY_VALUE, BY_ROW, context, wrt=wrt)
            for got, expected in zip(gradients, plain, strict=True):
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "t",
    [
        hr.transforms.Permutation([1, 0]),
        hr.transforms.Standardize([1.0, 2.0], [3.0, 4.0]),
        hr.transforms.Rotation.random(2, 0),
    ],
)
def test_transforms_without_parameters_take_none(t, dtype):
    x = cases.rows(9, 2, dtype)
    got = t.forward(x, parameters=np.empty(0, dtype))
    np.testing.assert_array_equal(got[0], t.forward(x)[0])
    with pytest.raises(ValueError, match=r"parameters: expected shape \(0,\)"):
        t.forward(x, parameters=np.empty(1, dtype))


def test_the_core_checks_arrays_for_values():
    program = hr.MAF(D, transforms=1, hidden=(8,), dtype="float32")._program
    x, by = np.ones((N, D), "f4"), np.empty((N, D), "f4")

    def run(value=None, log_det=None):
        program.gradient(False, False, x, value=value, log_det=log_det, grad_input=by)

    run(np.empty((N, D), "f4"), np.empty(N, "f4"))
    for value in (np.empty((N - 1, D), "f4"), np.empty((N, D + 1), "f4"), np.empty(N * D, "f4"), np.empty((N, D), int)):
        with pytest.raises(ValueError, match="value: expected"):
            run(value)
    for log_det in (np.empty(N - 1, "f4"), np.empty((N, 1), "f4"), np.empty(N)):
        with pytest.raises(ValueError, match="log_det: expected"):
            run(None, log_det)
    with pytest.raises(ValueError, match="value: expected the program's dtype on the latent side"):
        program.transform(True, x, np.empty((N, D)))


def test_losses_with_chosen_gradients(flow):
    weights = np.abs(BY_ROW)
    loss, *gradients = flow.nll_and_grad(X, CONTEXT, weights, wrt=WRT)
    plain = flow.nll_and_grad(X, CONTEXT, weights)
    assert len(plain) == 2
    assert loss == plain[0]
    np.testing.assert_array_equal(gradients[2], plain[1])
    expected = flow.log_prob_vjp(X, -weights / weights.sum(), CONTEXT, wrt=WRT)
    for got, by in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(got, by, rtol=1e-9, atol=1e-12)
    step = 1e-6 * cases.rows(N, C, "float64", "step")
    moved = [flow.nll_and_grad(X, CONTEXT + s * step, weights)[0] for s in (1, -1)]
    np.testing.assert_allclose((moved[0] - moved[1]) / 2, (gradients[0] * step).sum(), rtol=1e-5, atol=1e-12)


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_from_given_noise(flow):
    base = hr.Logistic(D) if isinstance(flow.base, hr.Logistic) else hr.StandardNormal(D)
    noise = hr.Flow([], base, dtype="float64").sample(N, seed=1)
    expected, log_prob = flow.sample_and_log_prob(N, CONTEXT, seed=1)
    np.testing.assert_allclose(flow.sample(N, CONTEXT, noise=noise), expected, rtol=1e-12, atol=1e-12)
    got = flow.sample_and_log_prob((), CONTEXT, noise=noise)
    np.testing.assert_allclose(got[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got[1], log_prob, rtol=1e-12)
    with pytest.raises(ValueError, match=r"noise: expected shape \(29, 4\), got \(30, 4\)"):
        flow.sample(N - 1, CONTEXT[:-1], noise=noise)


def test_samples_with_parameters_of_one_call(flow):
    other, vector = flow.__copy__(), flow.parameters * 0.9
    other.parameters = vector
    for got, expected in zip(
        flow.sample_and_log_prob(N, CONTEXT, seed=1, parameters=vector),
        other.sample_and_log_prob(N, CONTEXT, seed=1),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


def test_seeds_come_from_a_generator_too():
    flow, rng = hr.MAF(D), np.random.default_rng(3)
    first, second = flow.sample(N, seed=rng), flow.sample(N, seed=rng)
    key = int(np.random.default_rng(3).integers(2**64, dtype=np.uint64))
    np.testing.assert_array_equal(first, flow.sample(N, seed=key))
    assert (first != second).any()
    with pytest.raises(TypeError, match="seed: expected"):
        flow.sample(N, seed=np.random.RandomState(0))


def test_samples_answer_in_a_framework(framework):
    flow = hr.MAF(D, dtype="float64")
    like = framework.make(np.ones((2, 2)))
    expected = flow.sample(N, seed=1)
    np.testing.assert_array_equal(framework.open(flow.sample(N, seed=1, like=like)), expected)
    if framework.name != "pandas":
        for name in (framework.name, framework.module):
            got = flow.sample_and_log_prob(N, seed=1, like=name)
            np.testing.assert_array_equal(framework.open(got[0]), expected)
            assert framework.open(got[1]).shape == (N,)
        if framework.name != "numpy":
            with pytest.raises(TypeError, match=r"noise: expected a (PyTorch tensor|JAX array), as for like, got"):
                flow.sample(N, like=like, noise=np.ones((N, D)))
    with pytest.raises(ValueError, match="like: expected one of"):
        flow.sample(N, like="tensorflow")
    with pytest.raises(TypeError, match="like: expected an array"):
        flow.sample(N, like=3)


def test_tensors_without_a_required_gradient():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    flow = hr.MAF(D, context=C, dtype="float64")
    x, context, vector = (torch.tensor(a).requires_grad_() for a in (X, CONTEXT, flow.parameters))
    with torch.no_grad():
        got = flow.log_prob(x, context, parameters=vector)
        flow.parameters = vector
    assert not got.requires_grad
    np.testing.assert_array_equal(got.numpy(), flow.log_prob(X, CONTEXT))
    with torch.inference_mode():
        np.testing.assert_array_equal(flow.log_prob(x, context).numpy(), got.numpy())
    with pytest.raises(TypeError, match=r"x: .* call x\.detach\(\), or do this under torch\.no_grad\(\)"):
        flow.log_prob(x, context)


def far_flow(features=1, transforms=2):
    """A flow of time stamps whose spread is half a minute."""
    flow = hr.MAF(features, transforms=transforms, hidden=(8,))
    chain = [*flow.transforms[:-1], hr.transforms.Standardize([1.7e9] * features, [30.0] * features)]
    return hr.Flow(chain)


@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.parametrize("features", [1, 3, 40])
def test_samples_far_from_zero_have_all_digits_in_float64(features, rows):
    flow = far_flow(features)
    x, log_prob = flow.sample_and_log_prob(rows, seed=1, dtype="float64")
    assert (x.dtype, log_prob.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(flow.sample(rows, seed=1, dtype="float64"), x)
    np.testing.assert_array_equal(flow.sample(rows, seed=1), x.astype("f4"))
    assert len(np.unique(x[:, 0])) > 0.99 * rows
    assert len(np.unique(x[:, 0].astype("f4"))) < 0.1 * rows + 5
    # Rows become float32 after the mean is subtracted, so that a standardised coordinate has seven digits.
    np.testing.assert_allclose(flow.log_prob(x), log_prob, rtol=1e-5, atol=1e-4 * features)
    z = flow.to_latent(x)[0]
    np.testing.assert_allclose(flow.sample(rows, noise=z, dtype="float64"), x, rtol=0, atol=30 * 1e-4)


def test_samples_of_float32_flows_may_be_float64_alone():
    wide = hr.MAF(2, dtype="float64")
    np.testing.assert_array_equal(wide.sample(9, seed=1, dtype="float64"), wide.sample(9, seed=1))
    with pytest.raises(ValueError, match=r"dtype: expected 'float64', as the flow's own, got 'float32'"):
        wide.sample(9, dtype="float32")
    flow, out = hr.MAF(2), np.empty((9, 2))
    assert flow.sample(9, seed=1, dtype="float64", out=out) is out
    np.testing.assert_array_equal(out.astype("f4"), flow.sample(9, seed=1))
    with pytest.raises(TypeError, match="out: expected dtype float64, got float32"):
        flow.sample(9, dtype="float64", out=np.empty((9, 2), "f4"))


def test_values_and_products_on_a_device(library):
    flow = far_flow(3)
    there = flow.to("cuda")
    x, log_prob = (library.open(a) for a in there.sample_and_log_prob(N, seed=1, dtype="float64", like=library.make(X)))
    expected = flow.sample_and_log_prob(N, seed=1, dtype="float64")
    np.testing.assert_allclose(x, expected[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(log_prob, expected[1], rtol=1e-5)
    z, ones = np.ones((N, 3), "f4"), np.ones(N, "f4")
    given = (library.make(z), library.make(z), library.make(ones))
    pair, gradients = there.to_data_vjp(*given, values=True)
    plain = flow.to_data_vjp(z, z, ones, values=True)
    for got, want in zip((*pair, *gradients), (*plain[0], *plain[1]), strict=True):
        np.testing.assert_allclose(library.open(got), want, rtol=1e-4, atol=1e-4)


def test_a_vector_that_changes_in_place_is_read_anew():
    """The core keeps a copy of a vector between calls, and must not take a changed vector for the kept one."""
    flow = hr.MAF(3, transforms=2, hidden=(8,), seed=0)
    other = hr.MAF(3, transforms=2, hidden=(8,), seed=0)
    x, vector = np.full((20, 3), 0.5, np.float32), flow.parameters
    last = np.flatnonzero(vector)[-1]
    for change in (0.0, 0.1, 0.1, -0.2):
        vector[last] += change
        other.parameters = vector
        for _ in range(2):
            np.testing.assert_array_equal(flow.log_prob(x, parameters=vector), other.log_prob(x))
    np.testing.assert_array_equal(flow.log_prob(x), hr.MAF(3, transforms=2, hidden=(8,), seed=0).log_prob(x))
    noisy = vector + np.where(vector == 0, np.float32(1.0), np.float32(0.0))  # padding and masked entries become 1
    other.parameters = noisy
    np.testing.assert_array_equal(flow.log_prob(x, parameters=noisy), other.log_prob(x))
