"""Values and samples of headrace.jax against those of the flow, and refusals."""

import numpy as np
import pytest

import headrace as hr

jax = pytest.importorskip("jax", reason="jax is not installed")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import headrace.jax as hj  # noqa: E402
from frameworks import NO_FLOWS  # noqa: E402
from jax_cases import DIFFERENCES, SAME, arrays, made, numpy  # noqa: E402

pytestmark = pytest.mark.usefixtures("wide")


@pytest.mark.parametrize("compiled", [False, True])
def test_values_are_those_of_the_flow(flow, compiled):
    p, x, c = arrays(flow)
    call = jax.jit if compiled else lambda f: f
    np.testing.assert_allclose(call(lambda p: hj.log_prob(flow, p, x, c))(p), flow.log_prob(*numpy(x, c)), **SAME)
    for name in ("to_latent", "to_data"):
        got = call(lambda p, name=name: getattr(hj, name)(flow, p, x, c))(p)
        for g, w in zip(got, getattr(flow, name)(*numpy(x, c)), strict=True):
            np.testing.assert_allclose(g, w, **SAME)


def test_parameters_are_those_given(flow):
    p, x, c = arrays(flow)
    other = np.asarray(p) * 0.5
    got = hj.log_prob(flow, other, x, c)
    np.testing.assert_allclose(got, flow.log_prob(*numpy(x, c), parameters=other), **SAME)
    assert np.abs(np.asarray(got) - flow.log_prob(*numpy(x, c))).max() > 1e-3


def test_samples_are_the_noise_of_the_key_under_the_base(flow):
    p, _, c = arrays(flow, rows=50)
    key = jax.random.key(3)
    x, log_q = hj.sample_and_log_prob(flow, p, key, 50, c)
    draw = jax.random.logistic if isinstance(flow._base, hr.Logistic) else jax.random.normal
    noise = np.asarray(draw(key, (50, 3), jnp.float64))
    np.testing.assert_allclose(x, flow.sample(50, *numpy(c), noise=noise), **SAME)
    np.testing.assert_allclose(log_q, flow.log_prob(*numpy(x, c)), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(x, hj.sample(flow, p, key, 50, c))


@pytest.mark.parametrize(
    ("x", "context", "shape"),
    [
        ((3,), (2,), ()),
        ((3,), (7, 2), (7,)),
        ((4, 5, 3), (5, 2), (4, 5)),
        ((4, 5, 3), (4, 1, 2), (4, 5)),
        ((0, 3), (2,), (0,)),
    ],
)
def test_shapes_are_broadcast(x, context, shape):
    flow = made()
    rng = np.random.default_rng(0)
    x, context = rng.standard_normal(x), rng.standard_normal(context)
    got = hj.log_prob(flow, flow.parameters, x, context)
    assert got.shape == shape
    np.testing.assert_allclose(got, flow.log_prob(x, context), **SAME)
    z, log_det = hj.to_latent(flow, flow.parameters, x, context)
    assert (z.shape, log_det.shape) == ((*shape, 3), shape)
    by = jax.grad(lambda p, c: hj.log_prob(flow, p, x, c).sum(), argnums=(0, 1))(jnp.asarray(flow.parameters), context)
    wanted = flow.log_prob_vjp(x, np.ones(shape), context, wrt=("parameters", "context"))
    for g, w in zip(by, wanted, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


FIXED = {
    "uniform": lambda: hr.Uniform(3),
    "independent": lambda: hr.Independent(["logistic", "normal", "uniform"]),
    "student": lambda: hr.StudentT(3, [1.5, 4.0, 1e6], trainable=False),
    "mixture": lambda: hr.NormalMixture(
        3, 2, loc=[[-4.0, 0.0, 1.0], [4.0, 3.0, 1.0]], scale=[[0.5, 1.0, 2.0]] * 2, weights=[0.2, 0.8], trainable=False
    ),
}


@pytest.mark.parametrize(("name", "dtype"), [*zip(FIXED, ["float32", "float64"] * 2, strict=True)])
def test_samples_of_other_bases_follow_the_flow(name, dtype):
    """Each column's distribution is compared with that of the flow's samples; equal distributions exceed the
    limit with a probability of one in a million."""
    rows, limit = 20_000, np.sqrt(-0.5 * np.log(0.5e-6) * 2 / 20_000)
    map = {} if name in ("student", "mixture") else {"map": "rq_spline", "bound": 1.0}
    for chain in ([], [hr.transforms.MaskedAutoregressive(3, (8,), seed=1, **map)]):
        flow = hr.Flow(chain, FIXED[name](), dtype=dtype)
        noise = np.random.default_rng(3).standard_normal(flow.parameters.size)
        flow.parameters = (0.3 * noise).astype(dtype)
        draw = jax.jit(lambda p, key, flow=flow: hj.sample_and_log_prob(flow, p, key, rows))
        x, log_q = draw(flow.parameters, jax.random.key(1))
        assert x.dtype == dtype
        kept = np.abs(x).max(axis=1) < 50
        again = hj.log_prob(flow, flow.parameters, x)
        np.testing.assert_allclose(log_q[kept], again[kept], rtol=1e-3, atol=5e-3)  # errors of a round trip in float32
        ours, theirs = np.sort(x, axis=0), np.sort(flow.sample(rows, seed=1), axis=0)
        for c in range(3):
            both = np.concatenate([ours[:, c], theirs[:, c]])
            shares = [np.searchsorted(own[:, c], both, side="right") / rows for own in (ours, theirs)]
            assert np.abs(np.subtract(*shares)).max() < limit
        ranks = np.asarray(x).argsort(axis=0).argsort(axis=0) / rows - 0.5
        between = (ranks.T @ ranks / rows)[np.triu_indices(3, 1)]
        if not chain and name == "mixture":
            assert between[0] > 0.01  # columns depend on each other through the component of the row
        elif not chain:
            assert np.abs(between).max() < 5.0 / np.sqrt(rows) / 12.0
    if dtype == "float64":
        check_grads(lambda p: hj.sample_and_log_prob(flow, p, jax.random.key(2), 4), (flow.parameters,), **DIFFERENCES)


@pytest.mark.parametrize("base", [hr.StudentT(3), hr.NormalMixture(3, 2)], ids=repr)
def test_trained_parameters_of_drawing_are_refused(base):
    flow = hr.Flow([], base, dtype="float64")
    with pytest.raises(ValueError, match=r"^base: expected one whose draws .*Flow.sample.*trainable=False"):
        hj.sample(flow, flow.parameters, jax.random.key(0), 3)


def test_samples_of_a_shape():
    flow = made()
    draws = hj.sample(flow, flow.parameters, jax.random.key(0), (10, 2), jnp.ones((5, 2)))
    assert draws.shape == (10, 2, 5, 3)
    assert hj.sample(flow, flow.parameters, jax.random.key(0), 4, jnp.ones(2)).shape == (4, 3)


def test_float32_reads_float64_and_answers_in_its_dtype():
    flow = made(dtype="float32")
    x, c = jnp.ones((4, 3), jnp.float64), jnp.ones(2, jnp.float32)
    assert hj.log_prob(flow, flow.parameters, x, c).dtype == jnp.float32
    gradient = jax.grad(lambda x: hj.log_prob(flow, flow.parameters, x, c).sum())(x)
    assert gradient.dtype == jnp.float64


@pytest.mark.parametrize(
    ("error", "message", "given"),
    [
        (TypeError, "flow: expected a headrace flow", lambda f, p, x, c: (3, p, x, c)),
        (TypeError, "params: expected an array, as flow.parameters, got None", lambda f, p, x, c: (f, None, x, c)),
        (
            TypeError,
            "params: expected the flow's float64, got float32",
            lambda f, p, x, c: (f, p.astype("float32"), x, c),
        ),
        (ValueError, r"params: expected shape \(\d+,\), got \(3,\)", lambda f, p, x, c: (f, p[:3], x, c)),
        (TypeError, "x: expected dtype float32 or float64, got int32", lambda f, p, x, c: (f, p, x.astype("int32"), c)),
        (TypeError, "x: expected an array of JAX or NumPy, got list", lambda f, p, x, c: (f, p, [1.0], c)),
        (ValueError, r"x: expected shape \(..., 3\), got \(5, 2\)", lambda f, p, x, c: (f, p, x[:, :2], c)),
        (ValueError, r"context: expected shape \(..., 2\).* got None", lambda f, p, x, c: (f, p, x, None)),
        (ValueError, r"context: expected shape \(..., 2\).* got \(5, 1\)", lambda f, p, x, c: (f, p, x, c[:, :1])),
        (ValueError, r"context: expected shape \(5, 2\), or one that broadcasts", lambda f, p, x, c: (f, p, x, c[:3])),
    ],
)
def test_bad_arguments_are_named_while_tracing(error, message, given):
    flow = made()
    arguments = given(flow, *arrays(flow))
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: hj.log_prob(*arguments))


def test_other_bad_arguments():
    flow = made()
    p, x, _ = arrays(flow)
    for wrong, named in NO_FLOWS:
        with pytest.raises(TypeError, match=f"flow: expected a headrace flow .*got {named}"):
            hj.FlowModule(wrong())
    with pytest.raises(ValueError, match="context: expected None"):
        hj.log_prob(made(context=0), hj.FlowModule(made(context=0)).params, x, jnp.ones(2))
    with pytest.raises(TypeError, match="key: expected a key"):
        hj.sample(flow, p, "key", 3, jnp.ones(2))
    with pytest.raises(ValueError, match=r"n: .*|got -1"):
        hj.sample(flow, p, jax.random.key(0), -1, jnp.ones(2))
    with pytest.raises(ValueError, match="for 3 draws for each row"):
        hj.sample(flow, p, jax.random.key(0), 3, jnp.ones((2, 2)))
    with pytest.raises(TypeError, match="to_flow outside of jit"):
        jax.jit(lambda m: m.to_flow().parameters)(hj.FlowModule(flow))
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match="jax_enable_x64"):
        hj.FlowModule(flow)
