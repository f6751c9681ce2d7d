"""Vector-Jacobian products: float64 against differences of the reference, and float32 against float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import cores
import gradients
import headrace as hr
import map_cases
import reference
from cores import every_core
from pairs import pairwise

SIDES = [(reads, formula) for reads in cases.READS for formula in cases.FORMULAS]
SIZES = (0, 1, 7, 8, 95, 96, 97, 191, 192, 193, 400)  # numbers of rows around tiles and around the rows of a sum
SMALL = {"features": 4, "hidden": (7, 6), "context": 2}
SMALLER = {"features": 3, "hidden": (5, 4), "context": 1}  # few parameters allow differences of each
MEAN, STD = np.array([1.0, -2.0, 0.5, 3.0]), np.array([2.0, 0.5, 1.0, 0.1])

every_side = pytest.mark.parametrize(("reads", "formula"), SIDES)
every_verb = pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)
every_flow_verb = pytest.mark.parametrize("verb", gradients.FLOW_VERBS)


def made(map="affine", dtype="float64", **keywords):
    return cases.made(outputs=reference.MAPS[map].parameters, bins=4, map=map, **keywords).astype(dtype)


def rows_of(dense, n, dtype="float64"):
    context = cases.rows(n, dense.context, dtype, "context") if dense.context else None
    return cases.rows(n, dense.features, dtype), context


def both_precisions(build):
    """Return the library's object of ``build("float32")``, and its float64 copy with the same values."""
    narrow = build("float32").library
    return narrow, narrow.astype("float64")


# --- masked autoregressive transforms -------------------------------------------------------------------------------


@pytest.mark.long
@pairwise(map=reference.MAPS, reads__formula=SIDES, verb=gradients.TRANSFORM_VERBS)
def test_each_parameter_separately(map, reads, formula, verb):
    dense = made(map, **SMALLER)
    subject = gradients.masked(dense, "tanh", map=map, reads=reads, formula=formula)
    gradients.check(subject, verb, *rows_of(dense, 9), number_by_number=True)


@every_core(map=reference.MAPS, reads__formula=SIDES, activation=reference.ACTIVATIONS)
def test_every_activation_and_map(core, map, reads, formula, activation):
    dense = made(map, key=(activation,), **SMALL)
    subject = gradients.masked(dense, activation, map=map, reads=reads, formula=formula)
    for verb in gradients.TRANSFORM_VERBS:
        for n in core.choose((1, 9), (9,)):  # the CPU has two paths, for few rows and for many
            gradients.check(subject, verb, *rows_of(dense, n), step=gradients.step_for(activation))


@pairwise(reads__formula=SIDES, scale=reference.LOG_SCALES, slope=[1e-3, 0.2])
def test_every_scale(reads, formula, scale, slope):
    dense = made(key=(scale,), **SMALL)
    subject = gradients.masked(dense, reads=reads, formula=formula, scale=scale, slope=slope)
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check(subject, verb, *rows_of(dense, 9))


@every_core(
    name=cases.NETWORKS,
    reads__formula={"cpu": SIDES, "device": [("data", "to_data"), ("latent", "to_data")]},
    product=cores.NAMES,
)
def test_every_kind_of_network(core, name, reads, formula):
    activation = "tanh" if name == "sixty-four features" else "relu"  # a thousand ReLUs would spoil differences
    dense = made(**cases.NETWORKS[name])
    subject = gradients.masked(dense, activation, reads=reads, formula=formula)
    for verb in gradients.TRANSFORM_VERBS:
        n = 3 if dense.features == 64 else 9
        gradients.check(subject, verb, *rows_of(dense, n), step=gradients.step_for(activation))


@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
@pytest.mark.parametrize("map", ["affine", "rq_spline"])
def test_layouts_and_orders_of_outputs(layout, map):
    outputs = reference.MAPS[map].parameters[::-1]
    dense = cases.made(outputs=outputs, layout=layout, bins=3, **SMALLER)
    subject = gradients.masked(dense, map=map)
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check(subject, verb, *rows_of(dense, 9), number_by_number=True)


@pytest.mark.parametrize("map", ["affine", "rq_spline"])
@every_side
@every_verb
def test_every_batch_size(map, reads, formula, verb):
    """Differences of the largest batch serve all sizes: gradients of rows are independent, and are summed."""
    dense = made(map, **SMALL)
    subject = gradients.masked(dense, "silu", map=map, reads=reads, formula=formula)
    given, context = rows_of(dense, max(SIZES))
    weights = gradients.cotangents(verb, max(SIZES), 4)
    judge, results = subject.judge(subject.arrays), gradients.VERBS[verb]
    of_inputs = reference.row_gradient(lambda x, c: results(judge, x, c), given, weights, beside=context)
    (directions,) = gradients.random_directions(subject.arrays, 1)
    along = reference.along(lambda *a: results(subject.judge(a), given, context), subject.arrays, directions, weights)
    for n in SIZES:
        got = getattr(subject.library, verb)(given[:n], *(w[:n] for w in weights), context[:n])
        gradients.assert_rows_near(got[0], of_inputs[:n])
        dense_gradient = gradients.dense_gradient(subject.library, got[1])
        terms = np.concatenate([(g * d).ravel() for g, d in zip(dense_gradient, directions, strict=True)])
        gradients.assert_near(terms.sum(), along[:n].sum(), least=1.0 + np.linalg.norm(terms))
        assert n > 0 or not terms.any()


@pairwise(map=reference.MAPS, reads__formula=SIDES, activation=["relu", "gelu"])
def test_float32_is_float64_rounded(map, reads, formula, activation):
    narrow, wide = both_precisions(
        lambda dtype: gradients.masked(made(map, dtype, **SMALL), activation, map=map, reads=reads, formula=formula)
    )
    for verb in gradients.TRANSFORM_VERBS:
        for n in (1, 9, 97, 400):
            given, context = rows_of(made(map, **SMALL), n, "float32")
            gradients.check_float32(narrow, wide, verb, given, context, depth=map_cases.depth_of(map, 32))


@pytest.mark.parametrize("name", ["sixteen features", "sixty-four features", "hidden wider than a tile", "tangled"])
@pytest.mark.parametrize("reads", cases.READS)
def test_float32_is_float64_rounded_in_larger_networks(name, reads):
    narrow, wide = both_precisions(
        lambda dtype: gradients.masked(cases.made(**cases.NETWORKS[name]).astype(dtype), "tanh", reads=reads)
    )
    given = cases.rows(97, narrow.features, "float32")
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check_float32(narrow, wide, verb, given, depth=512)


def test_context_of_one_row_for_all_adds_up_over_the_rows():
    dense = made(**SMALL)
    subject = gradients.masked(dense)
    given, context = rows_of(dense, 97)
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check(subject, verb, given, context[0])
        one = gradients.call(subject.library, verb, given, context[0])
        assert one["context"].shape == (2,)
        full = gradients.call(subject.library, verb, given, np.tile(context[0], (97, 1)))
        assert full["context"].shape == (97, 2)
        assert_allclose(one["context"], full["context"].sum(axis=0), rtol=1e-10, atol=1e-10)
        same = gradients.call(subject.library, verb, given, context[:1])
        cases.assert_same_bits(same["context"].reshape(2), one["context"])


# --- other transforms -----------------------------------------------------------------------------------------------

COUPLINGS = [(2, (0,), 0), (5, (1, 3, 4), 2), (7, (4, 1), 3), (9, (0, 1, 2, 3), 0), (3, (), 2)]


@every_core(
    features__passive__context={"cpu": COUPLINGS, "device": [(6, (0,), 2), (6, (1, 3, 4), 2)]},
    map=reference.MAPS,
    formula=cases.FORMULAS,
    activation=["relu", "gelu"],
)
def test_couplings(core, features, passive, context, map, formula, activation):
    outputs, active = reference.MAPS[map].parameters, features - len(passive)
    dense = cases.dense_network(len(passive), (9, 8), active, context, outputs=outputs, bins=4, map=map)
    subject = gradients.coupling(dense, passive, activation, map=map, formula=formula)
    for verb in gradients.TRANSFORM_VERBS:
        step = gradients.step_for(activation)
        gradients.check(subject, verb, *rows_of(dense, 9), step=step)
        gradients.check(subject, verb, *rows_of(dense, 2), step=step, number_by_number=features == 2)
    narrow, wide = both_precisions(
        lambda dtype: gradients.coupling(dense.astype(dtype), passive, activation, map=map, formula=formula)
    )
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check_float32(narrow, wide, verb, *rows_of(dense, 97, "float32"), depth=256)


@pytest.mark.parametrize("change", [cases.pin_zeros, cases.kill_units])
def test_couplings_with_zeros_and_dead_units(change):
    dense = cases.dense_network(3, (9, 8), 4, 2, change=change)
    subject = gradients.coupling(dense, (6, 0, 3))
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check(subject, verb, *rows_of(dense, 9), number_by_number=True)


@pytest.mark.parametrize("reads", cases.READS)
def test_an_inverse_has_the_gradients_of_the_other_direction(reads, dtype):
    dense = made(dtype=dtype, **SMALL)
    subject = gradients.masked(dense, reads=reads)
    inverse = gradients.inverse(subject)
    given, context = rows_of(dense, 33, dtype)
    pairs = [("forward_vjp", "inverse_vjp"), ("inverse_vjp", "forward_vjp")]
    for verb, other in pairs:
        want = gradients.call(subject.library, other, given, context)
        for name, gradient in gradients.call(inverse.library, verb, given, context).items():
            cases.assert_same_bits(gradient, want[name])
        if dtype == "float64":
            gradients.check(inverse, verb, given, context)


@every_verb
def test_transforms_without_parameters(verb, dtype):
    given = cases.rows(33, 4, dtype)
    for subject in (gradients.permutation([2, 0, 3, 1]), gradients.standardize(MEAN, STD)):
        for transform in (subject, gradients.inverse(subject)):
            got = gradients.call(transform.library, verb, given)
            assert got["parameters"].shape == (0,)
            assert got["inputs"].dtype == np.dtype(dtype)
            cotangents = gradients.cotangents(verb, 33, 4)
            judge = transform.judge([])
            want = reference.row_gradient(lambda x, j=judge: gradients.VERBS[verb](j, x, None), given, cotangents)
            gradients.assert_rows_near(got["inputs"], want, gradients.DIFFERENCES)


# --- flows ----------------------------------------------------------------------------------------------------------


def chain_of(name, dtype="float64", base="standard normal"):
    """A chain of all sorts of transforms; Standardize is at the data end, in the middle, in both places or nowhere."""
    maf = made(dtype=dtype, key=("maf",), **SMALL)
    spline = made("rq_spline", dtype=dtype, key=("spline",), **SMALL)
    net = cases.dense_network(2, (7,), 2, 2, key=("net",)).astype(dtype)
    middle = {"middle": [gradients.standardize(MEAN, STD)], "both": [gradients.standardize(STD, STD[::-1])]}
    end = [gradients.permutation([3, 1, 0, 2])] if name == "behind a permutation" else []
    end += [gradients.standardize(MEAN, STD)] if name in ("end", "both", "behind a permutation") else []
    subjects = [
        gradients.masked(maf, "gelu", reads="latent"),
        gradients.permutation([2, 0, 3, 1]),
        gradients.inverse(gradients.masked(maf, formula="to_latent", scale="softplus")),
        *middle.get(name, []),
        gradients.coupling(net, (3, 1)),
        gradients.masked(spline, "silu", map="rq_spline", formula="to_latent"),
        *end,
    ]
    return gradients.chain(subjects, base, dtype)


PLACES = ["none", "middle", "end", "both", "behind a permutation"]
BASES = ["standard normal", "logistic", "fixed normal", "normal"]


@pytest.mark.parametrize("place", PLACES)
@every_flow_verb
def test_flows_with_standardize_anywhere(place, verb):
    subject = chain_of(place)
    for n in (1, 9):
        context = cases.rows(n, 2, "float64", "context")
        given = cases.rows(n, 4, "float64")
        if verb != "to_data_vjp":  # rows need a positive density
            given = subject.judge(subject.arrays).to_data(given, context)[0]
        gradients.check(subject, verb, given, context, least=10.0)


@every_core(base={"cpu": BASES, "device": ["logistic", "normal"]}, verb=gradients.FLOW_VERBS, product=cores.NAMES)
def test_flows_on_every_base(core, base, verb):
    subject = chain_of("end", base=base)
    given, context = 3.0 * cases.rows(9, 4, "float64"), cases.rows(9, 2, "float64", "context")
    gradients.check(subject, verb, given, context, least=10.0)
    if verb != "log_prob_vjp" and base == "normal":  # these products do not depend on the base
        gradient = gradients.call(subject.library, verb, given, context)["parameters"]
        assert not any(g.any() for g in gradients.dense_gradient(subject.library, gradient)[:2])


def test_each_parameter_of_a_trainable_base_is_learned():
    dense = made(features=3, hidden=(5,))
    subject = gradients.chain([gradients.masked(dense)], "normal")
    gradients.check(subject, "log_prob_vjp", 2.0 * cases.rows(30, 3, "float64"), number_by_number=True)


@pytest.mark.parametrize("base", BASES)
@every_flow_verb
def test_float32_flows_are_float64_flows_rounded(base, verb):
    narrow, wide = both_precisions(lambda dtype: chain_of("end", dtype, base))
    given, context = cases.rows(97, 4, "float32"), cases.rows(97, 2, "float32", "context")
    if verb != "to_data_vjp":
        given = wide.to_data(given.astype(float), context.astype(float))[0].astype("float32")
    gradients.check_float32(narrow, wide, verb, given, context, depth=4096)


@pytest.mark.parametrize("base", BASES)
def test_the_score_is_the_gradient_of_log_prob(base, dtype):
    flow = chain_of("end", dtype, base).library
    for n in (0, 1, 9, 97):
        x, context = cases.rows(n, 4, dtype), cases.rows(n, 2, dtype, "context")
        log_prob, score = flow.log_prob_and_score(x, context)
        assert log_prob.shape == (n,)
        assert score.shape == (n, 4)
        assert log_prob.dtype == score.dtype == np.dtype(dtype)
        cases.assert_close(log_prob, flow.log_prob(x, context).astype(float), magnitude=10.0, depth=16)
        (want,) = flow.log_prob_vjp(x, np.ones(n, dtype), context, wrt=("inputs",))
        allowed = 1e-9 if dtype == "float64" else cases.tolerance(dtype, 256)
        gradients.assert_rows_near(score, want.astype(float), allowed)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [1, 9, 193, 400])
def test_nll_and_grad_is_the_weighted_mean(weighted, n, dtype):
    flow = chain_of("end", dtype, "normal").library
    x, context = cases.rows(n, 4, dtype), cases.rows(n, 2, dtype, "context")
    weights = cases.rng("weights", n).random(n) + 0.01 if weighted else None
    shares = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    nll, gradient = flow.nll_and_grad(x, context, weights)
    assert isinstance(nll, float)
    assert gradient.dtype == np.dtype(dtype)
    allowed = 1e-9 if dtype == "float64" else cases.tolerance(dtype, 256)
    assert_allclose(nll, -(shares * flow.log_prob(x, context)).sum(), rtol=allowed)
    (want,) = flow.log_prob_vjp(x, -shares, context, wrt=("parameters",))
    gradients.assert_near(gradient, want.astype(float), allowed)


NAMED = {
    "MAF": (hr.MAF, {}, {"reads": "data"}),
    "IAF": (hr.IAF, {}, {"reads": "latent"}),
    "RealNVP": (hr.RealNVP, {}, {}),
    "NSF": (hr.NSF, {"bins": 5}, {"map": "rq_spline", "formula": "to_latent"}),
    "coupling NSF": (hr.NSF, {"bins": 5, "coupling": True}, {"map": "rq_spline", "formula": "to_latent"}),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("features", [1, 2, 5])
def test_named_flows(name, features):
    build, keywords, settings = NAMED[name]
    flow = build(features, context=1, transforms=2, hidden=(8, 7), activation="tanh", dtype="float64", **keywords)
    cases.randomise(flow, 0.4)
    masks = [transform.to_dense()[2] for transform in flow.transforms[:2]]

    def judge(arrays):
        transforms = []
        for i, mask in enumerate(masks):
            layers = arrays[6 * i : 6 * i + 6]
            network = reference.Network(layers[0::2], layers[1::2], mask, "tanh")
            if name in ("RealNVP", "coupling NSF"):
                passive = list(range(i % 2, features, 2)) if features > 1 else []
                transforms.append(reference.Coupling(network, features, passive, **settings))
            else:
                transforms.append(reference.MaskedAutoregressive(network, **settings))
        return reference.Flow(transforms, reference.StandardNormal())

    subject = gradients.Subject(flow, list(flow.named_parameters().values()), judge)
    x, context = cases.rows(9, features, "float64"), cases.rows(9, 1, "float64", "context")
    for verb in gradients.FLOW_VERBS:
        gradients.check(subject, verb, x, context)
