"""Distributions of flowjax that transform a flow, bases that headrace has, and planar maps.

Expected values are flowjax's in float64: log densities of far rows and of the flow's own samples to 1e-11 of 1 + |log
p|, and gradients by rows to 1e-7 of 1 + |gradient|.
"""

from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library
from headrace import convert

pytestmark = [
    pytest.mark.programs,
    pytest.mark.filterwarnings("ignore"),  # dependencies of flowjax warn
]

N = 3


@contextmanager
def wide():
    """Switch JAX to 64-bit values."""
    jax = library("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture
def bijections():
    library("flowjax")
    with wide():
        yield library("flowjax.bijections")


def flow_on(base, **options):
    import jax

    flows = library("flowjax.flows")
    return flows.coupling_flow(jax.random.key(0), base_dist=base, flow_layers=1, nn_width=8, nn_depth=1, **options)


def normal():
    import jax.numpy as jnp

    return library("flowjax.distributions").Normal(jnp.zeros(N), jnp.ones(N))


def around(*made, **options):
    return library("flowjax.distributions").Transformed(flow_on(normal(), **options), *made)


def compared(model, columns=0):
    import equinox
    import jax
    import jax.numpy as jnp

    flow = convert.from_flowjax(model)
    assert flow.dtype == "float64"
    context = np.random.default_rng(1).standard_normal((40, columns)) if columns else None
    x = np.asarray(flow.sample(40, context, seed=4))
    x[::3] = np.median(x, axis=0) + 1.2 * (x[::3] - np.median(x, axis=0))
    given = () if context is None else (jnp.asarray(context),)
    log_prob = equinox.filter_jit(lambda x: model.log_prob(x, *given))
    want = np.asarray(log_prob(jnp.asarray(x)))
    inside = np.isfinite(want)
    assert inside.sum() > 20
    got = np.asarray(flow.log_prob(x, context))
    assert_allclose(got, want, rtol=1e-11, atol=1e-11)
    if columns:
        return flow
    rows = jnp.asarray(x[inside])
    wanted = np.asarray(equinox.filter_jit(jax.grad(lambda x: model.log_prob(x).sum()))(rows))
    torch, modules = library("torch"), library("headrace.torch")
    y = torch.from_numpy(x[inside]).requires_grad_()
    (found,) = torch.autograd.grad(modules.FlowModule(flow).log_prob(y).sum(), y)
    assert_allclose(found.numpy(), wanted, rtol=1e-7, atol=1e-7)
    return flow


def kinds(flow):
    return [type(t).__name__ for t in flow.transforms]


def bases():
    import equinox
    import jax.numpy as jnp

    d, b = library("flowjax.distributions"), library("flowjax.bijections")
    rng = np.random.default_rng(0)
    lower = np.tril(0.4 * rng.standard_normal((N, N)), -1) + np.eye(N)
    many = equinox.filter_vmap(d.Normal)(
        jnp.asarray(rng.standard_normal((4, N))), jnp.asarray(rng.uniform(0.5, 1, (4, N)))
    )
    return {
        "StudentT": (d.StudentT(jnp.array([3.0, 4, 9]), jnp.ones(N), 2 * jnp.ones(N)), hr.StudentT),
        "Cauchy": (d.Cauchy(jnp.zeros(N)), hr.StudentT),
        "Uniform": (d.Uniform(-3 * jnp.ones(N), jnp.array([3.0, 3, 2])), hr.Uniform),
        "MultivariateNormal": (d.MultivariateNormal(jnp.ones(N), jnp.asarray(lower @ lower.T)), hr.StandardNormal),
        "Logistic": (d.Logistic(jnp.zeros(N), 0.7 * jnp.ones(N)), hr.Logistic),
        "VmapMixture": (d.VmapMixture(many, jnp.array([1.0, 2, 3, 4])), hr.NormalMixture),
        "a transformed one": (d.Transformed(normal(), b.Affine(jnp.ones(N), 2 * jnp.ones(N))), hr.Normal),
    }


@pytest.mark.parametrize(
    "name", ["StudentT", "Cauchy", "Uniform", "MultivariateNormal", "Logistic", "VmapMixture", "a transformed one"]
)
def test_bases(bijections, name):
    base, kind = bases()[name]
    flow = compared(flow_on(base))
    assert isinstance(flow.base, kind)
    if name == "Cauchy":
        assert flow.base.trainable is False


def test_a_base_that_headrace_does_not_have(bijections):
    import jax.numpy as jnp

    base = library("flowjax.distributions").Gumbel(jnp.zeros(N))
    with pytest.raises(NotImplementedError, match=r"^model\.base_dist\.base_dist: .*_StandardGumbel; train a flow of"):
        convert.from_flowjax(flow_on(base))


def columns(b, name):
    """Return bijections around a flow, and the classes of the transforms at the data end of its conversion."""
    import jax.numpy as jnp
    import paramax

    ones, fixed = jnp.ones(N), paramax.non_trainable
    made = {
        "a standardisation": lambda: (b.Affine(ones, 2 * ones), ["ActNorm"]),
        "a fixed one, inverted": lambda: (fixed(b.Invert(b.Affine(ones, 2 * ones))), ["Standardize"]),
        "Sigmoid": lambda: (b.Sigmoid((N,)), ["Support"]),
        "Exp": lambda: (b.Exp((N,)), ["Support"]),
        "Tanh": lambda: (b.Tanh((N,)), ["Standardize", "Support"]),
        "Sigmoid and back": lambda: (
            b.Chain([b.Sigmoid((N,)), b.Invert(b.Sigmoid((N,)))]),
            ["Support", "Inverse"],
        ),
        "Stack": lambda: (b.Stack([b.Sigmoid(), b.Identity(), b.Exp()]), ["Support"]),
        "Concatenate": lambda: (b.Concatenate([b.Sigmoid((2,)), b.Tanh((1,))]), ["Standardize", "Support"]),
        "chains in Stack": lambda: (
            b.Stack(
                [
                    b.Chain([b.Sigmoid(), fixed(b.Affine(2.0, 3.0))]),
                    b.Affine(1.0, 2.0),
                    b.Chain([fixed(b.Affine(0.0, 0.5)), b.Exp(), fixed(b.Affine(1.0, 4.0))]),
                ]
            ),
            ["Standardize", "Standardize", "OnColumns", "Support"],
        ),
        "a preparation of data, inverted": lambda: (
            b.Invert(
                b.Stack(
                    [
                        b.Chain([fixed(b.Affine(-2.0, 0.3)), b.Invert(b.Sigmoid())]),
                        b.Invert(b.Exp()),
                        b.Chain([b.Scale(jnp.array(0.5)), b.Loc(jnp.array(1.0))]),
                    ]
                )
            ),
            ["OnColumns", "OnColumns", "Support"],
        ),
    }
    return made[name]()


AROUND = [
    "a standardisation", "a fixed one, inverted", "Sigmoid", "Exp", "Tanh", "Sigmoid and back", "Stack", "Concatenate",
    "chains in Stack", "a preparation of data, inverted",
]  # fmt: skip


@pytest.mark.parametrize("name", AROUND)
def test_maps_around_a_flow(bijections, name):
    made, end = columns(bijections, name)
    flow = compared(around(made))
    assert kinds(flow)[-len(end) :] == end


def test_fixed_lines_move_the_ends_of_a_support(bijections):
    made, _ = columns(bijections, "chains in Stack")
    support = convert.from_flowjax(around(made)).transforms[-1]
    assert support.bounds == ((2.0, pytest.approx(5.0)), None, (1.0, None))


def test_around_a_flow_with_a_condition(bijections):
    made, _ = columns(bijections, "Stack")
    flow = compared(around(made, cond_dim=2), 2)
    assert flow.context == 2


def test_merged_transforms_are_the_same(bijections):
    made, _ = columns(bijections, "a standardisation")
    model = around(made)
    x = np.random.default_rng(0).standard_normal((20, N))
    nested, merged = convert.from_flowjax(model), convert.from_flowjax(model.merge_transforms())
    assert_allclose(nested.log_prob(x), merged.log_prob(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda b: b.SoftPlus((N,)),
            r"^model\.bijection: expected .* got flowjax's SoftPlus; its like here is Exp; or",
        ),
        (lambda b: b.LeakyTanh(3, (N,)), r"^model\.bijection: expected .* LeakyTanh; train a flow .* bounds="),
        (
            lambda b: b.Stack([b.SoftPlus(), b.Identity(), b.Exp()]),
            r"^model\.bijection\.bijections\[0\]: expected one of .* for single columns, got flowjax's SoftPlus; its",
        ),
        (
            lambda b: b.Vmap(b.RationalQuadraticSpline(knots=3, interval=2), axis_size=N),
            r"^model\.bijection: expected .* Vmap; write bijections of single columns out as Stack",
        ),
    ],
    ids=["SoftPlus", "LeakyTanh", "within Stack", "Vmap"],
)
def test_errors_of_other_maps_have_advice(bijections, make, message):
    with pytest.raises(NotImplementedError, match=message):
        convert.from_flowjax(around(make(bijections)))


@pytest.mark.parametrize(("slope", "invert"), [(None, True), (0.3, True), (0.3, False)])
def test_planar_flows(bijections, slope, invert):
    model = planar(negative_slope=slope, invert=invert)
    flow = compared(model)
    assert any("Planar" in repr(t) for t in flow.transforms)


def planar(**options):
    import equinox
    import jax

    made = library("flowjax.flows").planar_flow(jax.random.key(1), base_dist=normal(), flow_layers=2, **options)
    arrays, rest = equinox.partition(made, equinox.is_inexact_array)
    moved = jax.tree_util.tree_map(lambda a: a + 0.6 * jax.random.normal(jax.random.key(3), a.shape), arrays)
    return equinox.combine(moved, rest)


def test_planar_flows_that_are_refused(bijections):
    with pytest.raises(NotImplementedError, match=r"negative_slope: expected a number, or an inverted flow"):
        convert.from_flowjax(planar(invert=False))
    with pytest.raises(
        NotImplementedError, match=r"conditioner: expected none, got equinox's MLP; train hr\.transforms\.Planar with"
    ):
        convert.from_flowjax(planar(cond_dim=2, width_size=8, depth=1))


def test_activations_that_headrace_does_not_have_are_named(bijections):
    import functools

    import jax

    with pytest.raises(NotImplementedError, match=r"activation: expected one of .*; train with one of these"):
        convert.from_flowjax(flow_on(normal(), nn_activation=jax.nn.mish))
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)  # the slope is verified
    assert "relu" in repr(convert.from_flowjax(flow_on(normal(), nn_activation=leaky)).transforms)
    exact = functools.partial(jax.nn.gelu, approximate=False)
    assert "'gelu'" in repr(convert.from_flowjax(flow_on(normal(), nn_activation=exact)).transforms)
    assert "'gelu_tanh'" in repr(convert.from_flowjax(flow_on(normal(), nn_activation=jax.nn.gelu)).transforms)
