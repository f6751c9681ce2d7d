"""Subjects of tests of derivatives: a library object, its dense parameters, and the reference with these parameters."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import cases
import headrace as hr
import reference
import vector_cases

# A central difference errs by h^2 / 6 times a third derivative and by eps / h times a value (reference/derivatives.py).
# Values in these tests reach some tens, and third derivatives thousands along directions that move all weights at once;
# therefore the step is below eps^(1/3). With this step, differences have errors of some 1e-9, and 1e-6 allows for a
# deep chain. ReLU has kinks, at which no difference is right, but no third derivatives elsewhere; therefore ReLU has a
# smaller step, with which a random row straddles the kink of one of a hundred pre-activations less than once in ten
# thousand rows.
STEP, KINKED_STEP = 1e-6, 1e-7
DIFFERENCES = 1e-6

VERBS: dict[str, Callable] = {
    "forward_vjp": lambda judge, given, context: judge.forward(given, context),
    "inverse_vjp": lambda judge, given, context: judge.inverse(given, context),
    "to_data_vjp": lambda judge, given, context: judge.to_data(given, context),
    "to_latent_vjp": lambda judge, given, context: judge.to_latent(given, context),
    "log_prob_vjp": lambda judge, given, context: (judge.log_prob(given, context),),
}
TRANSFORM_VERBS = ("forward_vjp", "inverse_vjp")
FLOW_VERBS = ("to_data_vjp", "to_latent_vjp", "log_prob_vjp")


@dataclass(frozen=True)
class Subject:
    library: Any
    arrays: list  # the arrays of library.named_parameters(), in order
    judge: Callable  # arrays -> the reference with these parameters

    @property
    def features(self):
        return self.library.features


def network_of(dense, activation):
    return lambda arrays: reference.Network(arrays[0::2], arrays[1::2], dense.masks, activation)


def layers_of(dense):
    return [array for pair in zip(dense.weights, dense.biases, strict=True) for array in pair]


def masked(dense, activation="tanh", **settings):
    settings = {"outputs": dense.outputs, "layout": dense.layout} | settings
    library = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays,
        activation=activation,
        context=dense.context,
        **settings,
        **bins_of(dense, dense.features, **settings),
    )
    network = network_of(dense, activation)
    return Subject(library, layers_of(dense), lambda a: reference.MaskedAutoregressive(network(a), **settings))


def coupling(dense, passive, activation="tanh", **settings):
    settings = {"outputs": dense.outputs, "layout": dense.layout} | settings
    sizes = {"features": dense.features, "passive": list(passive), "context": dense.context}
    bins = bins_of(dense, dense.features - len(passive), **settings)
    library = hr.transforms.Coupling.from_dense(*dense.arrays, activation=activation, **sizes, **settings, **bins)
    network = network_of(dense, activation)

    def judge(arrays):
        return reference.Coupling(network(arrays), dense.features, passive, **settings)

    return Subject(library, layers_of(dense), judge)


def bins_of(dense, active, map="affine", **settings):
    """The keyword ``bins`` for a map that has bins; no keyword for any other map."""
    return {"bins": reference.MAPS[map].bins(len(dense.biases[-1]) // active)}


def vector(variant, params):
    """A planar or radial transform with one set of parameters for all rows."""
    names = vector_cases.sizes(vector_cases.VARIANTS[variant][0], vector_cases.features_of(variant, params))
    arrays = np.split(params, np.cumsum(list(names.values()))[:-1])
    judge = lambda a: vector_cases.judge(variant, np.concatenate(a))  # noqa: E731
    return Subject(vector_cases.transform(variant, params), arrays, judge)


def conditioned_vector(variant, features, context, activation="tanh", dtype="float64"):
    """A planar or radial transform whose network reads the context."""
    library, _ = vector_cases.conditioned(variant, features, context, dtype, activation=activation)
    arrays = list(library.named_parameters().values())
    return Subject(library, arrays, lambda a: vector_cases.judge(variant, vector_cases.network(a, activation)))


def inverse(subject):
    return Subject(
        hr.transforms.Inverse(subject.library), subject.arrays, lambda a: reference.Inverse(subject.judge(a))
    )


def linear(transform):
    """A linear map with its factors as parameters."""
    fixed = {"order": transform.order, "signs": transform.signs}
    return _by_name(transform, lambda named: reference.Linear(**named, **fixed))


def inverse_linear(transform):
    """The inverse of a linear map, whose parameters are listed in another order."""
    fixed = {"order": transform.order, "signs": transform.signs}
    return _by_name(
        hr.transforms.Inverse(transform), lambda named: reference.Inverse(reference.Linear(**named, **fixed))
    )


def act_norm(transform):
    return _by_name(transform, lambda named: reference.Standardize(named["shift"], np.exp(named["log_scale"])))


def _by_name(library, judge):
    named = library.named_parameters()
    return Subject(library, list(named.values()), lambda a: judge(dict(zip(named, a, strict=True))))


def permutation(order):
    return Subject(hr.transforms.Permutation(order), [], lambda _: reference.Permutation(order))


def standardize(mean, std):
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    return Subject(hr.transforms.Standardize(mean, std), [], lambda _: reference.Standardize(mean, std))


def support(bounds, *, linear=False):
    return Subject(hr.transforms.Support(bounds, linear=linear), [], lambda _: reference.Support(bounds, linear=linear))


def gaussianize(data, latent, slopes):
    return Subject(
        hr.transforms.Gaussianize(data, latent, slopes), [], lambda _: reference.Gaussianize(data, latent, slopes)
    )


def chain(subjects, base="standard normal", dtype="float64"):
    """A flow of the given transforms; the base "normal" is trainable, "fixed normal" is not."""
    features = subjects[0].features
    loc, scale = np.linspace(-1.0, 1.0, features), np.linspace(0.5, 2.0, features)
    bases = {
        "standard normal": (hr.StandardNormal(features), reference.StandardNormal()),
        "logistic": (hr.Logistic(features), reference.Logistic()),
        "fixed normal": (hr.Normal(features, loc, scale, trainable=False), reference.Normal(loc, scale)),
        "normal": (hr.Normal(features, loc, scale), None),
    }
    library, fixed = bases[base]
    own = [] if fixed else [loc, np.log(scale)]

    def judge(arrays):
        density = fixed or reference.Normal(arrays[0], np.exp(arrays[1]))
        parts, start = [], len(own)
        for subject in subjects:
            parts.append(subject.judge(arrays[start : start + len(subject.arrays)]))
            start += len(subject.arrays)
        return reference.Flow(parts, density)

    flow = hr.Flow([subject.library for subject in subjects], library, dtype=dtype)
    return Subject(flow, own + [array for subject in subjects for array in subject.arrays], judge)


# --- calls ----------------------------------------------------------------------------------------------------------


def cotangents(verb, n, features, dtype="float64"):
    """Random gradients of the results of a verb."""
    of_row = cases.rng("of a row", n).standard_normal(n).astype(dtype)
    return (of_row,) if verb == "log_prob_vjp" else (cases.rows(n, features, dtype, "cotangent"), of_row)


def every(context):
    return ("inputs", "parameters") if context is None else ("inputs", "parameters", "context")


def call(library, verb, given, context=None, *, wrt=None, dtype="float64", **keywords):
    """The gradients of a verb by name, for random cotangents."""
    wrt = every(context) if wrt is None else wrt
    given_gradients = cotangents(verb, len(given), library.features, dtype)
    results = getattr(library, verb)(given, *given_gradients, context, wrt=wrt, **keywords)
    assert isinstance(results, tuple)
    return dict(zip(wrt, results, strict=True))


def dense_gradient(library, vector):
    """A gradient vector, which has the layout of the parameters, as dense arrays in the order of named_parameters()."""
    assert vector.shape == library.parameters.shape
    if library.dtype is None or not vector.size:
        return []
    holder = copy.copy(library)
    holder.parameters = vector
    return list(holder.named_parameters().values())


# --- comparisons ----------------------------------------------------------------------------------------------------


def assert_near(got, want, allowed=DIFFERENCES, least=1.0):
    """Compare by the error relative to the largest value of the array, or to ``least`` if that is larger."""
    want = np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.isfinite(want).all()
    error = np.abs(np.asarray(got, np.float64) - want).max(initial=0.0)
    worst = error / np.abs(want).max(initial=least)
    assert worst <= allowed, f"relative error {worst:.3g} > {allowed:.3g}"


def assert_rows_near(got, want, allowed=DIFFERENCES, least=1.0):
    """Compare rows by the error relative to the largest value of each row, or to ``least`` if that is larger."""
    assert got.shape == want.shape
    for got_row, want_row in zip(got, want, strict=True):
        assert_near(got_row, want_row, allowed, least)


def check(subject, verb, given, context=None, *, number_by_number=False, least=1.0, step=STEP):
    """Compare all float64 gradients of a verb with differences of the reference; gradients by parameters are compared
    along three directions.

    ``number_by_number``: compare along each parameter alone instead, at two evaluations for each parameter.
    """
    library, arrays = subject.library, [np.asarray(a, np.float64) for a in subject.arrays]
    given_gradients = cotangents(verb, len(given), subject.features)
    results, unmoved = VERBS[verb], subject.judge(arrays)
    got = call(library, verb, given, context)
    assert all(gradient.dtype == np.float64 for gradient in got.values())

    by_row = context if context is not None and context.ndim == 2 else None
    function = lambda x, c=context: results(unmoved, x, c)  # noqa: E731
    want = reference.row_gradient(function, given, given_gradients, step, beside=by_row)
    assert_rows_near(got["inputs"], want, least=least)
    if context is not None and by_row is None:
        (want,) = reference.gradient(lambda c: results(unmoved, given, c), [context], given_gradients, step)
        assert_near(got["context"], want, least=least)
    elif context is not None:
        want = reference.row_gradient(lambda c, x: results(unmoved, x, c), context, given_gradients, step, beside=given)
        assert_rows_near(got["context"], want, least=least)

    dense = dense_gradient(library, got["parameters"])
    moved = lambda *a: results(subject.judge(a), given, context)  # noqa: E731
    if number_by_number:
        for result, want in zip(dense, reference.gradient(moved, arrays, given_gradients, step), strict=True):
            assert_near(result, want, least=least)
        return
    for directions in random_directions(arrays):
        want = reference.along(moved, arrays, directions, given_gradients, step).sum()
        terms = np.concatenate([np.zeros(1), *((g * d).ravel() for g, d in zip(dense, directions, strict=True))])
        assert_near(terms.sum(), want, least=max(least, float(np.linalg.norm(terms))))


def random_directions(arrays, n=3):
    """Random directions in the space of all parameters; each has a component along every entry of a gradient."""
    generator = cases.rng("directions", [np.shape(a) for a in arrays])
    return [[generator.standard_normal(np.shape(a)) for a in arrays] for _ in range(n)] if arrays else []


def step_for(activation):
    return KINKED_STEP if activation in ("relu", "leaky_relu") else STEP


def check_float32(narrow, wide, verb, given, context=None, *, depth=64):
    """Compare all float32 gradients of a verb with those of float64, which are checked elsewhere, up to rounding.

    ``given`` and ``context`` are float32; ``narrow`` and ``wide`` have equal parameters. A gradient passes all layers
    twice, forward and backward, and the gradient of a parameter is a sum over all rows.
    """
    got = call(narrow, verb, given, context, dtype="float32")
    wide_context = None if context is None else context.astype(float)
    given_gradients = [g.astype(float) for g in cotangents(verb, len(given), narrow.features, "float32")]
    wrt = every(context)
    want = dict(
        zip(wrt, getattr(wide, verb)(given.astype(float), *given_gradients, wide_context, wrt=wrt), strict=True)
    )
    allowed = cases.tolerance("float32", depth)
    for name, gradient in got.items():
        assert gradient.dtype == np.float32
        if name == "parameters":
            pairs = zip(dense_gradient(narrow, gradient), dense_gradient(wide, want[name]), strict=True)
            for one, other in pairs:
                assert_near(one, other, allowed)
        else:
            assert_rows_near(gradient, want[name], allowed)


# --- flows for the rules of derivatives ----------------------------------------------------------------------

HOLDER_FEATURES = 5


def _maf(dtype, **settings):
    dense = cases.made(features=HOLDER_FEATURES, hidden=(18, 15), context=2).astype(dtype)
    return hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=2, **settings)


def mixed_flow(dtype):
    """A flow with every kind of transform."""
    net = cases.dense_network(2, (18, 15), 3, 2).astype(dtype)
    more = {"context": 2, "dtype": dtype, "hidden": (16, 16)}
    spline = hr.transforms.MaskedAutoregressive(HOLDER_FEATURES, map="rq_spline", bins=5, formula="to_latent", **more)
    return hr.Flow(
        [
            _maf(dtype, activation="gelu", reads="latent"),
            hr.transforms.Permutation([2, 4, 0, 1, 3]),
            hr.transforms.Inverse(_maf(dtype, formula="to_latent", scale="softplus")),
            hr.transforms.Coupling.from_dense(*net.arrays, features=HOLDER_FEATURES, passive=[3, 0], context=2),
            cases.randomise(spline, 0.3),
            hr.transforms.Standardize(np.arange(5.0), np.arange(1.0, 6.0)),
        ],
        hr.Normal(HOLDER_FEATURES, 0.5, 2.0),
    )


def linear_flow(dtype):
    """A flow of networks, with norms and linear links between networks; one link reverses orientation."""
    n = HOLDER_FEATURES
    matrix = cases.rng("links").standard_normal((n, n))
    chain = [
        _maf(dtype),
        hr.transforms.Inverse(
            hr.transforms.Linear.from_matrix(-matrix if np.linalg.det(matrix) > 0 else matrix, np.ones(n), dtype=dtype)
        ),
        hr.transforms.ActNorm(n, dtype=dtype),
        hr.transforms.Linear(n, "random", seed=1, dtype=dtype),
        hr.transforms.Coupling(n, [3, 0], (9,), context=2, dtype=dtype),
        hr.transforms.Linear(n, dtype=dtype),
        hr.transforms.Standardize(np.arange(5.0), np.arange(1.0, 6.0)),
    ]
    return cases.randomise(hr.Flow(chain, hr.Normal(n, 0.5, 2.0)), 0.2)


def vector_flow(dtype):
    """A flow of planar and radial transforms in runs, with a network or a permutation between runs."""
    planar = [hr.transforms.Planar(HOLDER_FEATURES, seed=i, dtype=dtype) for i in range(4)]
    radial = [hr.transforms.Radial(HOLDER_FEATURES, seed=i, dtype=dtype) for i in range(3)]
    chain = [
        *planar[:2],
        hr.transforms.Permutation([2, 4, 0, 1, 3]),
        planar[2],
        hr.transforms.Inverse(planar[3]),
        _maf(dtype, activation="gelu", reads="latent"),
        *radial[:2],
        hr.transforms.Radial(HOLDER_FEATURES, context=2, hidden=(9,), dtype=dtype),
        hr.transforms.Permutation([1, 0, 3, 2, 4]),
        radial[2],
        hr.transforms.Standardize(np.arange(5.0), np.arange(1.0, 6.0)),
    ]
    return cases.randomise(hr.Flow(chain, hr.Normal(HOLDER_FEATURES, 0.5, 2.0)), 0.6)


def around_flow(dtype):
    """A flow of two circles, which shears join, and three other columns."""
    flow = hr.MAF(
        HOLDER_FEATURES,
        2,
        transforms=2,
        hidden=(9,),
        periodic=[None, (-3.0, 3.0), None, (-2.5, 2.5), None],
        activation="tanh",
        dtype=dtype,
    )
    return cases.randomise(flow, 0.2)


def _conditioned(kind, dtype, **settings):
    return cases.randomise(kind(HOLDER_FEATURES, context=2, hidden=(18, 15), dtype=dtype, **settings), 0.4)


HOLDERS = {
    "MAF": _maf,
    "IAF": lambda dtype: _maf(dtype, reads="latent", activation="silu"),
    "spline": lambda dtype: mixed_flow(dtype).transforms[4],
    "coupling": lambda dtype: mixed_flow(dtype).transforms[3],
    "inverse": lambda dtype: mixed_flow(dtype).transforms[2],
    "planar": lambda dtype: _conditioned(hr.transforms.Planar, dtype, activation="tanh"),
    "planar with leaky ReLU": lambda dtype: _conditioned(hr.transforms.Planar, dtype, nonlinearity="leaky_relu"),
    "radial": lambda dtype: _conditioned(hr.transforms.Radial, dtype),
    "flow": mixed_flow,
    "flow of vector maps": vector_flow,
    "flow of linear links": linear_flow,
    "flow around circles": around_flow,
}
_FLOWS = ("flow", "flow of vector maps", "flow of linear links", "flow around circles")
CALLS = [(name, verb) for name in HOLDERS if name not in _FLOWS for verb in TRANSFORM_VERBS]
CALLS += [(name, verb) for name in _FLOWS for verb in FLOW_VERBS]


def holder_inputs(n, dtype):
    return cases.rows(n, HOLDER_FEATURES, dtype), cases.rows(n, 2, dtype, "context")


def assert_same_gradients(got, want):
    assert list(got) == list(want)
    for name, gradient in got.items():
        cases.assert_same_bits(gradient, want[name])
