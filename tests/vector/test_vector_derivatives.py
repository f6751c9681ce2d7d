"""Derivatives of planar and radial transforms against differences of the reference; see also gradients.HOLDERS."""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import reference
import vector_cases
from cores import every_core

every_variant = pytest.mark.parametrize("variant", vector_cases.VARIANTS)
every_verb = pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)
# Numbers of rows around tiles, and around the rows that are summed at once.
SIZES = (0, 1, 7, 8, 95, 96, 97, 191, 192, 193, 400)

# A tolerance for third derivatives of an inverse near its steepest point, which reach thousands.
STEEP = 1e-5


def step_for(variant):
    return gradients.KINKED_STEP if variant == "planar with leaky ReLU" else gradients.STEP


def subject_of(variant, features, *key, dtype="float64"):
    return gradients.vector(variant, vector_cases.raw(vector_cases.VARIANTS[variant][0], features, dtype, *key))


@pytest.mark.long
@every_core(
    variant=vector_cases.VARIANTS,
    verb=gradients.TRANSFORM_VERBS,
    features={"cpu": [1, 2, 3, 5, 8, 17, 40], "device": [4]},
)
def test_each_parameter_by_itself(core, variant, verb, features):
    for key in core.choose(range(3), range(1)):
        subject = subject_of(variant, features, "by itself", key)
        given = cases.rows(9, features, "float64", key)
        gradients.check(subject, verb, given, number_by_number=True, step=step_for(variant), least=10.0)


@every_core(
    variant=vector_cases.VARIANTS,
    verb=gradients.TRANSFORM_VERBS,
    features__context={"cpu": [(1, 1), (2, 3), (5, 2), (17, 4)], "device": [(4, 2)]},
)
def test_networks_of_the_context(core, variant, verb, features, context):
    subject = gradients.conditioned_vector(variant, features, context)
    given, columns = cases.rows(9, features, "float64"), cases.rows(9, context, "float64", "context")
    small = features < 5 and core.name == "cpu"
    gradients.check(subject, verb, given, columns, step=step_for(variant), number_by_number=small, least=10.0)
    gradients.check(subject, verb, given, columns[0], step=step_for(variant), least=10.0)


@every_variant
@every_verb
def test_every_batch_size(variant, verb):
    """Differences of the largest batch serve all sizes: a row's gradient depends on that row alone, and a parameter's
    gradient is a sum over rows."""
    subject = subject_of(variant, 4, "sizes")
    given = cases.rows(max(SIZES), 4, "float64")
    weights = gradients.cotangents(verb, max(SIZES), 4)
    judge, results = subject.judge(subject.arrays), gradients.VERBS[verb]
    step = step_for(variant)
    of_inputs = reference.row_gradient(lambda x: results(judge, x, None), given, weights, step)
    (directions,) = gradients.random_directions(subject.arrays, 1)
    along = reference.along(
        lambda *a: results(subject.judge(a), given, None), subject.arrays, directions, weights, step
    )
    for n in SIZES:
        got = getattr(subject.library, verb)(given[:n], *(w[:n] for w in weights))
        gradients.assert_rows_near(got[0], of_inputs[:n], STEEP)
        dense_gradient = gradients.dense_gradient(subject.library, got[1])
        terms = np.concatenate([(g * d).ravel() for g, d in zip(dense_gradient, directions, strict=True)])
        gradients.assert_near(terms.sum(), along[:n].sum(), STEEP, least=1.0 + np.linalg.norm(terms))
        assert n > 0 or not terms.any()


@every_variant
@every_verb
def test_float32_is_float64_rounded(variant, verb):
    for key in range(3):
        narrow = subject_of(variant, 6, key, dtype="float32").library
        for n in (1, 9, 97, 400):
            given = cases.rows(n, 6, "float32")
            gradients.check_float32(narrow, narrow.astype("float64"), verb, given, depth=64)
    narrow = gradients.conditioned_vector(variant, 6, 2, dtype="float32").library
    for n in (1, 9, 97, 400):
        given, context = cases.rows(n, 6, "float32"), cases.rows(n, 2, "float32", "context")
        gradients.check_float32(narrow, narrow.astype("float64"), verb, given, context, depth=256)


@every_variant
def test_an_inverse_has_the_gradients_of_the_other_direction(variant, dtype):
    subject = subject_of(variant, 4, dtype=dtype)
    given, inverse = cases.rows(33, 4, dtype), hr.transforms.Inverse(subject.library)
    for verb, other in (("forward_vjp", "inverse_vjp"), ("inverse_vjp", "forward_vjp")):
        want = gradients.call(subject.library, other, given)
        gradients.assert_same_gradients(gradients.call(inverse, verb, given), want)


def chained(kinds):
    """A flow of runs of transforms, with other transforms between the runs."""
    order, mean, std = [2, 0, 3, 1], np.linspace(-1.0, 1.0, 4), np.linspace(0.5, 2.0, 4)
    made = [subject_of(kind, 4, "chained", i) for i, kind in enumerate(kinds)]
    return gradients.chain(
        [
            *made[:3],
            gradients.permutation(order),
            *made[3:5],
            gradients.inverse(made[5]),
            gradients.permutation(order[::-1]),
            gradients.inverse(made[6]),
            gradients.standardize(mean, std),
            *made[7:],
        ],
        "normal",
    )


CHAINS = {
    "planar": ["planar"] * 9,
    "radial": ["radial"] * 9,
    "planar and radial": ["planar", "radial"] * 5,
}


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
def test_chains(kind, verb):
    """Each parameter is moved by itself in the chain with both maps; `test_each_parameter_by_itself` takes each map
    alone."""
    subject = chained(CHAINS[kind])
    given = cases.rows(9, 4, "float64")
    gradients.check(subject, verb, given, number_by_number=kind == "planar and radial", least=100.0)
    gradients.check(subject, verb, cases.rows(130, 4, "float64"), least=100.0)


@pytest.mark.parametrize("kind", CHAINS)
def test_the_likelihood_of_a_chain(kind, dtype):
    flow = chained(CHAINS[kind]).library.astype(dtype)
    x, weights = cases.rows(300, 4, dtype), cases.rng("weights").random(300) + 0.01
    nll, gradient = flow.nll_and_grad(x, weights=weights)
    shares = weights / weights.sum()
    np.testing.assert_allclose(nll, -(shares * flow.log_prob(x)).sum(), rtol=cases.tolerance(dtype, 16))
    (want,) = flow.log_prob_vjp(x, -shares, wrt=("parameters",))
    gradients.assert_near(gradient, want.astype(float), cases.tolerance(dtype, 256))


# --- edges ----------------------------------------------------------------------------------------------------------


@every_verb
@pytest.mark.parametrize("scale", [1e-10, 1e-3, 0.0])
def test_a_very_short_w(verb, scale):
    """For w = 0 only u and b act; u is moved along the direction of w, whatever the length of w."""
    params = vector_cases.raw("planar", 3, "float64")
    params[:3] *= scale
    subject = gradients.vector("planar", params)
    given = cases.rows(9, 3, "float64")
    if scale:  # differences by a tiny w would need equally tiny steps
        library, judge = subject.library, subject.judge(subject.arrays)
        weights = gradients.cotangents(verb, 9, 3)
        got = getattr(library, verb)(given, *weights)
        results = gradients.VERBS[verb]
        want = reference.row_gradient(lambda x: results(judge, x, None), given, weights, 1e-6)
        gradients.assert_rows_near(got[0], want)
        u_and_b = lambda u, b: results(subject.judge([params[:3], u, b]), given, None)  # noqa: E731
        want = reference.gradient(u_and_b, subject.arrays[1:], weights, 1e-6)
        for one, other in zip(gradients.dense_gradient(library, got[1])[1:], want, strict=True):
            gradients.assert_near(one, other)
    else:
        for gradient in gradients.call(subject.library, verb, given).values():
            assert np.isfinite(gradient).all()


@every_verb
@pytest.mark.parametrize("along", [-1e4, -20.0, -4.0, 0.0, 4.0, 100.0])
def test_w_u_at_its_bound_and_far_from_it(verb, along):
    w, b = cases.rng("bound").standard_normal(3), np.array([0.4])
    params = np.concatenate([w, along * w / (w @ w) + cases.rng("across").standard_normal(3), b])
    given = cases.rows(9, 3, "float64")
    # Where h is steep and the slope is 1e-3, third derivatives of the inverse reach 1e9.
    mild = {"forward_vjp": 10.0, "inverse_vjp": 1e4 if along < 0.0 else 100.0}[verb] * max(1.0, abs(along) / 10.0)
    gradients.check(gradients.vector("planar", params), verb, given, number_by_number=True, least=mild, step=1e-7)


@every_verb
@pytest.mark.parametrize(("alpha", "beta"), [(-30.0, 2.0), (2.0, -30.0), (-30.0, -30.0), (1e3, 0.0), (0.0, 1e3)])
def test_alpha_and_beta_at_their_bounds(verb, alpha, beta):
    params = np.array([0.3, -0.2, 0.5, alpha, beta])
    given = cases.rows(9, 3, "float64")
    least = max(100.0, abs(beta), abs(alpha))
    gradients.check(gradients.vector("radial", params), verb, given, number_by_number=True, least=least)


@every_verb
@pytest.mark.parametrize("per_row", [False, True])
def test_at_the_center_a_radial_transform_has_a_finite_gradient(verb, per_row, dtype):
    """At the center the value is smooth; the log-determinant has the tip of a cone, whose slopes have mean zero."""
    params = np.array([0.25, -0.5, 0.0, 2.0], dtype)
    library = vector_cases.transform("radial", params)
    given = np.tile(params[:2], (9, 1))
    grad_value, grad_log_det = gradients.cotangents(verb, 9, 2, dtype)
    if per_row:
        by_given, by_params = hr.ops.vector_map_vjp(
            given, np.tile(params, (9, 1)), grad_value, grad_log_det, direction=verb.removesuffix("_vjp"), map="radial"
        )
    else:
        by_given, by_params = getattr(library, verb)(given, grad_value, grad_log_det)
    assert np.isfinite(by_params).all()
    stretch = float(reference.positive(2.0))
    want = grad_value * (stretch if verb == "forward_vjp" else 1.0 / stretch)
    np.testing.assert_allclose(by_given, want, rtol=cases.tolerance(dtype, 1))


@every_variant
@every_verb
@pytest.mark.parametrize("size", [1e6, 1e30])
def test_rows_far_away(variant, verb, size):
    """Far from the origin tanh is constant, a radial map the identity, and a leaky ReLU a line: gradients have no
    larger errors than those of rows at 10."""
    params = vector_cases.raw(vector_cases.VARIANTS[variant][0], 4, "float32")
    library = vector_cases.transform(variant, params)
    rows = cases.rows(30, 4, "float64")
    weights = gradients.cotangents(verb, 30, 4, "float32")
    got = getattr(library, verb)((size * rows).astype("float32"), *weights)[0]
    want = getattr(library.astype("float64"), verb)(1e6 * rows, *weights)[0]
    gradients.assert_rows_near(got, want, 1e-5, least=10.0)
