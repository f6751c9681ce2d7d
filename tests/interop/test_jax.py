"""headrace.jax: values and gradients against the flow's own, and what JAX makes of its functions."""

import copy
import dataclasses
import gc
import pickle
from functools import partial

import numpy as np
import pytest

import headrace as hr
from headrace import _cpu

jax = pytest.importorskip("jax", reason="jax is not installed")
optional = pytest.importorskip

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import headrace.jax as hj  # noqa: E402
from frameworks import NO_FLOWS  # noqa: E402
from headrace import _xla  # noqa: E402

COMPILED = hasattr(_cpu, "xla_handlers")

# By differences in float64: steps of 1e-6 leave some 1e-9 of error, and tanh has no kinks.
DIFFERENCES = {"order": 1, "modes": ["rev"], "eps": 1e-6, "atol": 1e-5, "rtol": 1e-5}
SAME = {"rtol": 1e-12, "atol": 1e-12}  # of float64 results that other blocks of rows may round otherwise


@pytest.fixture(autouse=True)
def wide():
    """Numbers of 64 bits, for these tests alone."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def made(family="MAF", context=2, features=3, dtype="float64", **settings):
    """A small flow with random parameters, whose base, context and data are no trivial ones."""
    flow = getattr(hr, family)(features, context, 2, (8, 8), activation="tanh", dtype=dtype, **settings)
    rng = np.random.default_rng(3)
    flow.parameters = 0.3 * rng.standard_normal(flow.parameters.size).astype(dtype)
    return flow


FLOWS = {
    "MAF": lambda: made(),
    "NSF": lambda: made("NSF"),
    "RealNVP": lambda: made("RealNVP"),
    "IAF": lambda: made("IAF"),
    "logistic": lambda: made(base=hr.Logistic(3)),
    "normal": lambda: made(base=hr.Normal(3, [1.0, 2.0, 3.0], 0.5)),
    "no context": lambda: made(context=0),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    """A flow of each family, base and kind of context."""
    return FLOWS[request.param]()


def arrays(flow, rows=5, seed=0):
    """Parameters without the padding, rows, and context or None."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.standard_normal((rows, flow.features)), flow.dtype)
    context = jnp.asarray(rng.standard_normal((rows, flow.context)), flow.dtype) if flow.context else None
    return jnp.asarray(flow.parameters), x, context


def numpy(*values):
    return [None if v is None else np.asarray(v) for v in values]


# ---- values ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FIXED)
def test_samples_of_other_bases_follow_the_flow(name, dtype):
    """Each column's distribution against the flow's own draws; the limit at a chance of one in a million."""
    rows, limit = 20_000, np.sqrt(-0.5 * np.log(0.5e-6) * 2 / 20_000)
    map = {} if name in ("student", "mixture") else {"map": "rq_spline", "bound": 1.0}
    for chain in ([], [hr.MaskedAutoregressive(3, (8,), seed=1, **map)]):
        flow = hr.Flow(chain, FIXED[name](), dtype=dtype)
        noise = np.random.default_rng(3).standard_normal(flow.parameters.size)
        flow.parameters = (0.3 * noise).astype(dtype)
        draw = jax.jit(lambda p, key, flow=flow: hj.sample_and_log_prob(flow, p, key, rows))
        x, log_q = draw(flow.parameters, jax.random.key(1))
        assert x.dtype == dtype
        kept = np.abs(x).max(axis=1) < 50
        again = hj.log_prob(flow, flow.parameters, x)
        np.testing.assert_allclose(log_q[kept], again[kept], rtol=1e-3, atol=5e-3)  # float32, there and back
        ours, theirs = np.sort(x, axis=0), np.sort(flow.sample(rows, seed=1), axis=0)
        for c in range(3):
            both = np.concatenate([ours[:, c], theirs[:, c]])
            shares = [np.searchsorted(own[:, c], both, side="right") / rows for own in (ours, theirs)]
            assert np.abs(np.subtract(*shares)).max() < limit
        ranks = np.asarray(x).argsort(axis=0).argsort(axis=0) / rows - 0.5
        between = (ranks.T @ ranks / rows)[np.triu_indices(3, 1)]
        if not chain and name == "mixture":
            assert between[0] > 0.01  # a row is of one component
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


# ---- derivatives -----------------------------------------------------------------------------------------------------


def test_gradients_agree_with_differences(flow):
    p, x, c = arrays(flow, rows=4)
    given = (p, x) if c is None else (p, x, c)
    check_grads(lambda *a: hj.log_prob(flow, *a), given, **DIFFERENCES)
    check_grads(lambda *a: hj.to_latent(flow, *a), given, **DIFFERENCES)
    check_grads(lambda *a: hj.to_data(flow, *a), given, **DIFFERENCES)
    key = jax.random.key(0)
    check_grads(lambda p: hj.sample(flow, p, key, 4, c), (p,), **DIFFERENCES)
    check_grads(lambda p: hj.sample_and_log_prob(flow, p, key, 4, c), (p,), **DIFFERENCES)


@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("one_context", [False, True])
def test_each_choice_of_arguments_has_its_gradients(chosen, one_context):
    flow = made()
    p, x, c = arrays(flow)
    c = c[0] if one_context else c
    weights = jnp.arange(1.0, 6.0)

    def loss(*a):
        z, log_det = hj.to_latent(flow, *a)
        return (weights * hj.log_prob(flow, *a)).sum() + (z**2).sum() + log_det.sum()

    everything = jax.grad(loss, argnums=(0, 1, 2))(p, x, c)
    for i, got in zip(chosen, jax.jit(jax.grad(loss, argnums=chosen))(p, x, c), strict=True):
        np.testing.assert_allclose(got, everything[i], rtol=1e-10, atol=1e-10)
    by = flow.log_prob_vjp(np.asarray(x), np.asarray(weights), np.asarray(c), wrt=("parameters", "inputs", "context"))
    got = jax.grad(lambda *a: (weights * hj.log_prob(flow, *a)).sum(), argnums=(0, 1, 2))(p, x, c)
    for g, w in zip(got, by, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("most_kept", [0, 10**9])
def test_log_densities_and_gradients_come_from_one_run_where_memory_allows(monkeypatch, most_kept):
    monkeypatch.setattr(_xla, "_MOST_KEPT", most_kept)
    flow = made()
    p, x, c = arrays(flow)
    every = jax.jit(jax.grad(lambda w, *a: (w * hj.log_prob(flow, *a)).sum(), argnums=(1, 2, 3)))
    uneven, even = jnp.arange(1.0, 6.0), jnp.full(5, 0.3)
    kept = jax.eval_shape(lambda p: jax.vjp(lambda p: hj.log_prob(flow, p, x, c), p), p)[1]
    assert (sum(leaf.size for leaf in jax.tree.leaves(kept)) >= 2 * p.size) == (most_kept > 0)

    first = every(even, p, x, c)
    for weights, got in ((even, first), (uneven, every(uneven, p, x, c)), (even, every(even, p, x, c))):
        want = flow.log_prob_vjp(*numpy(x, weights, c), wrt=("parameters", "inputs", "context"))
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)
    # What a loss of other factors has left behind changes no bit.
    for g, w in zip(every(even, p, x, c), first, strict=True):
        np.testing.assert_array_equal(g, w)
    other = made()  # of which no loss is known yet
    for given in ((x, c), (x, c[:1]), (jnp.tile(x, (20, 1)), c[:1])):
        rows, contexts = given
        same = jnp.full(len(rows), 0.3)
        known, new = (
            jax.value_and_grad(lambda p, f=f, r=rows, c=contexts, w=same: (w * hj.log_prob(f, p, r, c)).sum())(p)
            for f in (flow, other)
        )
        for g, w in zip(known, new, strict=True):
            np.testing.assert_array_equal(g, w)
    for value in (0.0, np.nan, np.inf):
        weights = even.at[2].set(value)
        want = flow.log_prob_vjp(*numpy(x, weights, c), wrt=("parameters",))
        got = jax.grad(lambda p, w=weights: (w * hj.log_prob(flow, p, x, c)).sum())(p)
        np.testing.assert_allclose(got, want[0] if isinstance(want, tuple) else want, rtol=1e-10, atol=1e-10)
    none = jax.grad(lambda p: hj.log_prob(flow, p, x[:0], c[:0]).sum())(p)
    np.testing.assert_array_equal(none, np.zeros_like(p))
    each = jax.vmap(lambda w, x, c: jax.grad(lambda p: (w * hj.log_prob(flow, p, x, c)).sum())(p))
    stacks = jnp.stack([uneven, even]), jnp.stack([x, 2 * x]), jnp.stack([c, c])
    for g, *one in zip(each(*stacks), *stacks, strict=True):
        weights, rows, contexts = one
        np.testing.assert_allclose(g, every(weights, p, rows, contexts)[0], rtol=1e-10, atol=1e-10)


def test_one_compiled_function_is_differentiated_in_several_ways():
    flow = made()
    p, x, c = arrays(flow)
    call = jax.jit(lambda p, x: hj.to_data(flow, p, x, c))
    for i in (0, 1, 0):
        check_grads(lambda x, i=i: call(p, x)[i], (x,), **DIFFERENCES)
        check_grads(lambda p, i=i: call(p, x)[i], (p,), **DIFFERENCES)
    back = [jax.vjp(lambda x, i=i: call(p, x)[i], x)[1] for i in (0, 1)]
    by_both = jax.vjp(lambda p, x: call(p, x), p, x)[1]
    values = [b(jnp.ones(s))[0] for b, s in zip(back, ((5, 3), (5,)), strict=True)]
    np.testing.assert_allclose(sum(values), by_both((jnp.ones((5, 3)), jnp.ones(5)))[1], rtol=1e-10, atol=1e-12)


def test_second_derivatives_and_forward_mode_are_refused_with_the_reason():
    flow = made()
    p, x, c = arrays(flow)

    def f(x):
        return hj.log_prob(flow, p, x, c).sum()

    def g(x):
        return hj.to_data(flow, p, x, c)[0].sum()

    for function in (f, g):
        with pytest.raises(NotImplementedError, match="only first derivatives"):
            jax.grad(lambda x, function=function: jax.grad(function)(x).sum())(x)
        with pytest.raises(NotImplementedError, match="only first derivatives"):
            jax.hessian(function)(x)
        push = partial(jax.jvp, function)
        for forward in (jax.jacfwd(function), jax.jit(jax.jacfwd(function)), lambda x, push=push: push((x,), (x,))):
            with pytest.raises(NotImplementedError, match=r"reverse mode alone; call .*jax\.jacrev"):
                forward(x)
        # Raised by JAX, after headrace was called; docs/jax.md has this text, for those who look for it.
        with pytest.raises(TypeError, match=r"can't apply forward-mode autodiff \(jvp\) to a custom_vjp function"):
            jax.jvp(jax.jit(function), (x,), (x,))
        with pytest.raises(TypeError, match=r"can't apply forward-mode autodiff \(jvp\) to a custom_vjp function"):
            jax.jvp(lambda x, f=function: jax.lax.scan(lambda s, _: (s + f(x), None), 0.0, None, 2)[0], (x,), (x,))
        eps = 1e-4
        ahead = (function(x + eps * x) - function(x - eps * x)) / (2 * eps)
        np.testing.assert_allclose(jnp.vdot(jax.grad(function)(x), x), ahead, rtol=1e-6)  # what the message says


# ---- transformations -------------------------------------------------------------------------------------------------


def test_vmap_over_rows_and_contexts_is_a_loop(flow):
    p, x, c = arrays(flow, rows=6)
    x, c = x.reshape(2, 3, 3), None if c is None else c.reshape(2, 3, 2)

    def each(x, c):
        z, log_det = hj.to_latent(flow, p, x, c)
        return hj.log_prob(flow, p, x, c), z, log_det, jax.grad(lambda x: hj.log_prob(flow, p, x, c).sum())(x)

    for ways in ((0, 0), (0, None), (None, 0), (1, 1)):
        if c is None and ways != (0, 0):
            continue

        def chosen(array, way, i):
            return array if way is None or array is None else jnp.take(array, i, axis=way)

        n = 3 if ways == (1, 1) else 2
        given = (x if ways[0] is not None else x[0], c if c is None or ways[1] is not None else c[0])
        got = jax.jit(jax.vmap(each, in_axes=(ways[0], None if c is None else ways[1])))(*given)
        want = [each(chosen(given[0], ways[0], i), chosen(given[1], ways[1], i)) for i in range(n)]
        for g, w in zip(got, zip(*want, strict=True), strict=True):
            np.testing.assert_allclose(g, np.stack(w), rtol=1e-10, atol=1e-10)


def test_vmap_over_one_row_each_and_one_context_for_all():
    flow = made()
    p, x, c = arrays(flow, rows=6)
    got = jax.vmap(lambda x: hj.log_prob(flow, p, x, c[0]))(x)
    np.testing.assert_allclose(got, hj.log_prob(flow, p, x, c[0]), **SAME)
    score = jax.vmap(jax.value_and_grad(lambda x, c: hj.log_prob(flow, p, x, c)))(x, c)
    want = flow.log_prob_and_score(*numpy(x, c))
    for g, w in zip(score, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)
    twice = jax.vmap(jax.vmap(lambda x, c: hj.log_prob(flow, p, x, c), (0, None)), (None, 0))(x, c)
    np.testing.assert_allclose(twice, flow.log_prob(np.asarray(x), np.asarray(c)[:, None]), **SAME)


def test_vmap_over_parameters_and_of_their_gradients():
    flow = made()
    p, x, c = arrays(flow, rows=4)
    stack = jnp.stack([p, 0.5 * p, 0.1 * p])
    got = jax.jit(jax.vmap(lambda p: hj.log_prob(flow, p, x, c)))(stack)
    np.testing.assert_allclose(got, [hj.log_prob(flow, q, x, c) for q in stack], **SAME)

    def gradient(p, x, c):
        return jax.grad(lambda p: hj.log_prob(flow, p, x, c).sum())(p)

    got = jax.vmap(gradient, (0, None, None))(stack, x, c)
    np.testing.assert_allclose(got, [gradient(q, x, c) for q in stack], rtol=1e-10, atol=1e-10)
    each = jax.vmap(gradient, (None, 0, 0))(p, x, c)
    np.testing.assert_allclose(each, [gradient(p, *rows) for rows in zip(x, c, strict=True)], rtol=1e-10, atol=1e-10)
    inside = jax.grad(lambda p: jax.vmap(lambda x, c: hj.log_prob(flow, p, x, c))(x, c).sum())(p)
    np.testing.assert_allclose(inside, gradient(p, x, c), rtol=1e-10, atol=1e-10)


def test_scan_and_checkpoint():
    flow = made()
    p, x, c = arrays(flow)

    def moved(x, step):
        x = x + step * jax.grad(lambda x: hj.log_prob(flow, p, x, c).sum())(x)
        return x, hj.log_prob(flow, p, x, c)

    final, values = jax.jit(lambda x: jax.lax.scan(moved, x, jnp.full(4, 0.1)))(x)
    loop = x
    for i in range(4):
        loop, value = moved(loop, 0.1)
        np.testing.assert_allclose(values[i], value, rtol=1e-10)
    np.testing.assert_allclose(final, loop, rtol=1e-10)

    def chained(p, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(hj.to_data(flow, p, x, c)[0]), None), x, None, length=3)[0].sum()

    for argument in (0, 1):
        plain = jax.grad(chained, argument)(p, x)
        saved = jax.jit(jax.grad(jax.checkpoint(chained), argument))(p, x)
        np.testing.assert_allclose(saved, plain, rtol=1e-10, atol=1e-12)
    check_grads(chained, (p, x), **DIFFERENCES)


# ---- modules ---------------------------------------------------------------------------------------------------------


def test_a_module_is_a_pytree_of_one_leaf():
    flow = made()
    module = hj.FlowModule(flow)
    p, x, c = arrays(flow)
    assert [leaf.shape for leaf in jax.tree.leaves(module)] == [p.shape]
    assert jax.tree.structure(module) == jax.tree.structure(hj.FlowModule(flow))
    gradient = jax.jit(jax.grad(lambda m: m.log_prob(x, c).sum()))(module)
    moved = jax.tree.map(lambda a, g: a + 0.1 * g, module, gradient)
    want = flow.log_prob_vjp(np.asarray(x), np.ones(5), np.asarray(c), wrt="parameters")[0]
    np.testing.assert_allclose(moved.params, p + 0.1 * want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moved.to_flow().log_prob(*numpy(x, c)), moved.log_prob(x, c), **SAME)
    ((path, _),) = jax.tree_util.tree_leaves_with_path(module)
    assert jax.tree_util.keystr(path) == ".params"
    with pytest.raises(AttributeError, match="with_params"):
        module.params = p
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        np.testing.assert_array_equal(other.log_prob(x, c), module.log_prob(x, c))


def test_a_module_is_a_dataclass_that_can_be_replaced():
    module, (p, x, c) = hj.FlowModule(made()), arrays(made())
    assert [field.name for field in dataclasses.fields(module)] == ["params", "structure"]
    halved = jax.jit(lambda m, p: dataclasses.replace(m, params=0.5 * p))(module, p)
    np.testing.assert_array_equal(halved.params, 0.5 * p)
    np.testing.assert_array_equal(halved.log_prob(x, c), hj.log_prob(module.structure, 0.5 * p, x, c))
    assert jax.tree.structure(halved) == jax.tree.structure(module)
    frozen = module.freeze()
    assert dataclasses.replace(frozen).structure is frozen.structure
    turned = dataclasses.replace(module, structure=hj.structure(made()))
    np.testing.assert_array_equal(turned.log_prob(x, c), module.log_prob(x, c))
    with pytest.raises(ValueError, match=r"params: expected shape \(\d+,\), got \(3,\)"):
        dataclasses.replace(module, params=p[:3])
    with pytest.raises(TypeError, match="params: expected an array"):
        dataclasses.replace(module, structure=made(), params=None)
    with pytest.raises(TypeError, match="flow: expected no flow beside params and structure"):
        hj.FlowModule(made(), params=p)


def test_a_module_keeps_what_it_was_made_of():
    flow = hr.MAF(2, transforms=2, hidden=(8,), dtype="float64")
    module, x = hj.FlowModule(flow), jnp.ones((3, 2))
    call = jax.jit(lambda x: module.log_prob(x))
    before = np.asarray(call(x))
    flow.parameters = 0.5 * flow.parameters
    np.testing.assert_array_equal(hj.FlowModule(flow).params, flow.parameters)
    assert hj.FlowModule(flow).structure is module.structure
    flow.fit(np.random.default_rng(0).normal(5.0, 2.0, (200, 2)), epochs=1, progress=False)
    gc.collect()
    np.testing.assert_array_equal(call(x), before)
    assert np.abs(np.asarray(hj.FlowModule(flow).log_prob(x)) - before).max() > 0.01


def test_a_frozen_module_has_no_leaf_and_the_same_numbers():
    flow = made()
    p, x, c = arrays(flow)
    for frozen in (hj.freeze(flow), hj.FlowModule(flow).freeze(), pickle.loads(pickle.dumps(hj.freeze(flow)))):
        assert not jax.tree.leaves(frozen)
        np.testing.assert_array_equal(frozen.log_prob(x, c), hj.log_prob(flow, p, x, c))
        score = jax.jit(jax.vmap(jax.grad(frozen.log_prob)))(x, c)
        np.testing.assert_allclose(score, flow.log_prob_and_score(*numpy(x, c))[1], rtol=1e-10, atol=1e-12)
        check_grads(frozen.to_data, (x, c), **DIFFERENCES)
        np.testing.assert_array_equal(frozen.to_flow().parameters, flow.parameters)
        with pytest.raises(TypeError, match="params: expected None"):
            hj.log_prob(frozen.structure, p, x, c)
    flow.parameters = np.zeros_like(flow.parameters)
    assert np.abs(np.asarray(frozen.log_prob(x, c)) - flow.log_prob(*numpy(x, c))).max() > 1e-3


@pytest.mark.skipif(not COMPILED, reason="built without the headers of jaxlib")
def test_compiled_code_of_a_flow_that_is_gone_says_so():
    flow, x = made(context=0), jnp.ones((2, 3))
    structure = hj.structure(flow)
    call = jax.jit(lambda p, x: hj.log_prob(structure, p, x)).lower(jnp.asarray(flow.parameters), x).compile()
    p = jnp.asarray(flow.parameters)
    assert np.isfinite(call(p, x)).all()
    structure._closed()
    with pytest.raises(Exception, match="is gone"):
        call(p, x).block_until_ready()
    assert not _cpu.xla_close(True, structure.handle)


@pytest.mark.skipif(not COMPILED, reason="built without the headers of jaxlib")
def test_structures_that_nobody_has_are_closed():
    before = _cpu.xla_count()
    modules = [hj.freeze(made(context=0)) for _ in range(3)]
    assert _cpu.xla_count() >= before + 3
    del modules
    gc.collect()
    assert _cpu.xla_count() <= before


# ---- training --------------------------------------------------------------------------------------------------------


def test_optax_adam_is_ours():
    optax = optional("optax", reason="optax is not installed")
    flow = made(context=0)
    _, x, _ = arrays(flow, rows=64)
    module = hj.FlowModule(flow)
    optimiser = optax.adam(1e-2)
    state = optimiser.init(module)

    @jax.jit
    def step(module, state):
        loss, gradient = jax.value_and_grad(lambda m: -m.log_prob(x).mean())(module)
        change, state = optimiser.update(gradient, state)
        return optax.apply_updates(module, change), state, loss

    adam = hr.Adam(flow, 1e-2, clip=None, average=None, weight_decay=0.0)
    for _ in range(20):
        module, state, loss = step(module, state)
        nll, gradient = flow.nll_and_grad(np.asarray(x))
        np.testing.assert_allclose(loss, nll, rtol=1e-7)
        adam.step(gradient)
    np.testing.assert_allclose(module.params, flow.parameters, rtol=1e-6, atol=1e-7)


# ---- what is refused -------------------------------------------------------------------------------------------------


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
        (TypeError, "x: expected float32 or float64, got int32", lambda f, p, x, c: (f, p, x.astype("int32"), c)),
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
    for wrong, said in NO_FLOWS:
        with pytest.raises(TypeError, match=f"flow: expected a headrace flow .*got {said}"):
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


def test_nuts_samples_a_flow():
    numpyro = optional("numpyro", reason="numpyro is not installed")
    flow = hr.MAF(2, transforms=1, hidden=(4,), base=hr.Normal(2, [1.0, -2.0], [0.5, 2.0]), dtype="float64")
    prior = hj.freeze(flow)  # weights at the start make it nearly its base
    exact = flow.sample(100_000, seed=0)

    def potential(z):
        return -prior.log_prob(z)

    kernel = numpyro.infer.NUTS(potential_fn=potential)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=300, num_samples=2000, progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=jnp.zeros(2))
    draws = np.asarray(mcmc.get_samples())
    # Some 700 independent draws at least: five standard errors of their mean, and of their standard deviation.
    assert (np.abs(draws.mean(0) - exact.mean(0)) < 5 * exact.std(0) / np.sqrt(700)).all()
    np.testing.assert_allclose(draws.std(0), exact.std(0), rtol=5 / np.sqrt(2 * 700))


def test_equinox_trains_a_module_inside_of_its_own():
    eqx = optional("equinox", reason="equinox is not installed")
    flow = made()

    class Amortised(eqx.Module):
        embed: eqx.nn.Linear
        flow: hj.FlowModule

        def __call__(self, x, y):
            return self.flow.log_prob(x, self.embed(y))

    model = Amortised(eqx.nn.Linear(4, 2, key=jax.random.key(0)), hj.FlowModule(flow))
    _, x, _ = arrays(flow)
    y = jnp.ones((5, 4))
    loss = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: -jax.vmap(m)(x, y).mean()))
    first, gradient = loss(model)
    assert np.abs(gradient.embed.weight).max() > 0
    assert np.abs(gradient.flow.params).max() > 0
    assert loss(eqx.apply_updates(model, jax.tree.map(lambda g: -1e-2 * g, gradient)))[0] < first
