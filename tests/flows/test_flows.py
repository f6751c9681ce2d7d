"""Flows: a base, a chain of transforms, and the change of variables (eq. 26-27)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import reference
import vector_cases
from pairs import pairwise

NAMED = {"MAF": hr.MAF, "IAF": hr.IAF, "RealNVP": hr.RealNVP, "planar": hr.PlanarFlow, "radial": hr.RadialFlow}
READS = {"MAF": "data", "IAF": "latent"}
every_named = pytest.mark.parametrize("name", NAMED)
FEATURES = 5


def named(name, dtype="float32", *, features=FEATURES, context=0, transforms=3, activation="relu", random=True):
    """Return a flow, one of NAMED, with random parameters."""
    flow = NAMED[name](
        features, context=context, transforms=transforms, hidden=(24, 24), activation=activation, seed=1, dtype=dtype
    )
    return cases.randomise(flow, 0.2, name) if random else flow


def passive_columns(coupling, context):
    """The columns that a coupling with random parameters does not change."""
    z = cases.rows(20, coupling.features, coupling.dtype, "passive")
    x, _ = coupling.forward(z, context)
    return [i for i in range(coupling.features) if (x[:, i] == z[:, i]).all()]


def mirror(flow, name, activation="relu"):
    """Return the reference of a flow, one of NAMED, from the dense weights of its transforms."""
    context = np.ones(flow.context, flow.dtype) if flow.context else None
    transforms = []
    for transform in flow.transforms:
        if isinstance(transform, hr.transforms.MaskedAutoregressive):
            transforms.append(cases.mirror_masked(transform, activation, "tanh", reads=READS[name]))
        elif isinstance(transform, (hr.transforms.Planar, hr.transforms.Radial)):
            transforms.append(vector_cases.mirror(transform, activation))
        elif isinstance(transform, hr.transforms.Coupling):
            passive = passive_columns(transform, context)
            transforms.append(cases.mirror_coupling(transform, passive, activation, "tanh"))
        else:
            assert isinstance(transform, hr.transforms.Standardize)  # a Standardize is the identity until a fit sets it
    return reference.Flow(transforms, reference.StandardNormal())


def mixed(dtype, base=None, context=2):
    """Return a chain with all sorts of transforms, and its reference."""
    maf = cases.made(features=FEATURES, context=context, key=("maf",)).astype(dtype)
    iaf = cases.made(features=FEATURES, context=context, per_level=2, key=("iaf",)).astype(dtype)
    coupling = cases.dense_network(2, (9, 8), FEATURES - 2, context, layout="blocked").astype(dtype)
    order, mean, std = [3, 0, 4, 1, 2], np.array([1.0, -2.0, 0.5, 0.0, 3.0]), np.array([2.0, 0.5, 1.0, 4.0, 0.1])
    both = {"activation": "tanh", "context": context}
    library = hr.Flow(
        transforms=[
            hr.transforms.MaskedAutoregressive.from_dense(*iaf.arrays, reads="latent", **both),
            hr.transforms.Permutation(order),
            hr.transforms.Coupling.from_dense(
                *coupling.arrays, features=FEATURES, passive=[4, 1], layout="blocked", **both
            ),
            hr.transforms.Inverse(
                hr.transforms.MaskedAutoregressive.from_dense(
                    *maf.arrays, formula="to_latent", scale="softplus", **both
                )
            ),
            hr.transforms.Permutation(order[::-1]),
            hr.transforms.MaskedAutoregressive.from_dense(*maf.arrays, **both),
            hr.transforms.Standardize(mean, std),
        ],
        base=base or hr.StandardNormal(FEATURES),
    )
    judge = [
        reference.MaskedAutoregressive(iaf.network("tanh"), reads="latent"),
        reference.Permutation(order),
        reference.Coupling(coupling.network("tanh"), FEATURES, [4, 1], layout="blocked"),
        reference.Inverse(reference.MaskedAutoregressive(maf.network("tanh"), formula="to_latent", scale="softplus")),
        reference.Permutation(order[::-1]),
        reference.MaskedAutoregressive(maf.network("tanh")),
        reference.Standardize(mean, std),
    ]
    return library, reference.Flow(judge, reference.StandardNormal())


def check_log_prob(got, want, dtype, depth):
    assert got.dtype == np.dtype(dtype)
    cases.assert_close(got, want, magnitude=10.0, depth=depth)


# --- density --------------------------------------------------------------------------------------------------------


@pairwise(name=NAMED, context=[0, 2], activation=["relu", "tanh"], dtype=cases.DTYPES)
def test_named_flows_match_the_reference(name, context, activation, dtype):
    flow = named(name, dtype, context=context, activation=activation)
    judge = mirror(flow, name, activation)
    assert (flow.features, flow.context, np.dtype(flow.dtype)) == (FEATURES, context, np.dtype(dtype))
    assert len(judge.transforms) == 3
    x = cases.rows(101, FEATURES, dtype)
    row_context = cases.rows(101, context, dtype, "context") if context else None

    check_log_prob(flow.log_prob(x, row_context), judge.log_prob(x, row_context), dtype, depth=32)
    cases.assert_matches(flow.to_latent(x, row_context), judge.to_latent(x, row_context), x, dtype, depth=32)
    cases.assert_matches(flow.to_data(x, row_context), judge.to_data(x, row_context), x, dtype, depth=32)


@pytest.mark.parametrize("context", [0, 2])
def test_a_chain_of_every_transform_matches_the_reference(context, dtype):
    flow, judge = mixed(dtype, context=context)
    assert len(flow) == 7
    for n in (0, 1, 9, 101):
        z = cases.rows(n, FEATURES, dtype)
        row_context = cases.rows(n, context, dtype, "context") if context else None
        cases.assert_matches(flow.to_data(z, row_context), judge.to_data(z, row_context), z, dtype, depth=64)
        x = judge.to_data(z, row_context)[0].astype(dtype)
        cases.assert_matches(flow.to_latent(x, row_context), judge.to_latent(x, row_context), x, dtype, depth=64)
        check_log_prob(flow.log_prob(x, row_context), judge.log_prob(x, row_context), dtype, depth=128)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_named_flows_take_every_activation(activation):
    for name in NAMED:
        flow = named(name, "float64", activation=activation)
        x = cases.rows(20, FEATURES, "float64")
        check_log_prob(flow.log_prob(x), mirror(flow, name, activation).log_prob(x), "float64", depth=32)


@pairwise(name=NAMED, features=[1, 2, 3], dtype=cases.DTYPES)
def test_few_features_match_the_reference(name, features, dtype):
    flow = named(name, dtype, features=features, context=1)
    x, context = cases.rows(50, features, dtype), cases.rows(50, 1, dtype, "context")
    judge = mirror(flow, name)
    check_log_prob(flow.log_prob(x, context), judge.log_prob(x, context), dtype, depth=32)
    cases.assert_matches(flow.to_data(x, context), judge.to_data(x, context), x, dtype, depth=32)


@every_named
def test_the_density_of_one_feature_integrates_to_one(name):
    flow = named(name, "float64", features=1, context=1)
    grid = np.linspace(-60.0, 60.0, 60001)[:, None]
    for context in (-1.0, 0.7):
        density = np.exp(flow.log_prob(grid, np.array([context])))
        assert_allclose(density.sum() * 2e-3, 1.0, rtol=1e-6)


def test_a_linear_additive_iaf_is_a_gaussian_of_full_covariance():
    """``x = z + L z + b`` with L strictly lower triangular has mean b and covariance ``(1 + L)(1 + L)^T``."""
    generator = cases.rng("linear")
    lower, bias = np.tril(generator.standard_normal((6, 6)), -1), generator.standard_normal(6)
    mask = np.tril(np.ones((6, 6), bool), -1)
    transform = hr.transforms.MaskedAutoregressive.from_dense(
        [lower], [bias], [mask], map="additive", outputs=("shift",), reads="latent"
    )
    flow = hr.Flow(transforms=[transform], base=hr.StandardNormal(6))
    x = 2.0 * cases.rows(40, 6, "float64")
    covariance = (np.eye(6) + lower) @ (np.eye(6) + lower).T
    away = x - bias
    want = -0.5 * (away * np.linalg.solve(covariance, away.T).T).sum(axis=1) - 3.0 * np.log(2.0 * np.pi)
    assert_allclose(flow.log_prob(x), want, rtol=1e-10)


@every_named
def test_log_prob_is_the_base_density_plus_the_log_det(name, dtype):
    flow = named(name, dtype)
    x = cases.rows(60, FEATURES, dtype)
    z, log_det = flow.to_latent(x)
    want = reference.StandardNormal().log_prob(z.astype(float)) + log_det
    check_log_prob(flow.log_prob(x), want, dtype, depth=8)


@every_named
def test_context_may_be_one_row_for_all(name, dtype):
    flow = named(name, dtype, context=3)
    judge = mirror(flow, name)
    x, context = cases.rows(50, FEATURES, dtype), cases.rows(1, 3, dtype, "context")
    for one in (context, context[0]):
        check_log_prob(flow.log_prob(x, one), judge.log_prob(x, one), dtype, depth=32)
        cases.assert_matches(flow.to_data(x, one), judge.to_data(x, one), x, dtype, depth=32)


# --- samples and their density --------------------------------------------------------------------------------------


@pairwise(name=NAMED, n=[1, 9, 101], context=[0, 2], dtype=cases.DTYPES)
def test_samples_come_with_their_own_density(name, n, context, dtype):
    flow = named(name, dtype, context=context)
    row_context = cases.rows(n, context, dtype, "context") if context else None
    x, log_prob = flow.sample_and_log_prob(n, row_context, seed=4)
    assert (x.shape, x.dtype) == ((n, FEATURES), np.dtype(dtype))
    # The tolerance is large because the reference inverts x, and the flow's stretch multiplies rounding errors.
    check_log_prob(log_prob, mirror(flow, name).log_prob(x, row_context), dtype, depth=256)
    cases.assert_same_bits(flow.sample(n, row_context, seed=4), x)


def test_samples_of_a_mixed_chain_come_with_their_own_density(dtype):
    flow, judge = mixed(dtype)
    context = cases.rows(60, 2, dtype, "context")
    x, log_prob = flow.sample_and_log_prob(60, context, seed=11)
    check_log_prob(log_prob, judge.log_prob(x, context), dtype, depth=1024)


def test_conditional_samples_follow_their_context():
    """Samples of one feature, shifted by ten times the context, stay within 6 of the shift."""
    mask = np.array([[False, True], [False, True]])
    transform = hr.transforms.MaskedAutoregressive.from_dense(
        [np.array([[0.0, 10.0], [0.0, 0.0]])], [np.zeros(2)], [mask], context=1
    )
    flow = hr.Flow(transforms=[transform], base=hr.StandardNormal(1))
    context = np.arange(100.0)[:, None]
    x = flow.sample(100, context, seed=2)
    assert np.abs(x - 10.0 * context).max() < 6.0
    assert np.abs(flow.sample(100, np.array([3.0]), seed=2) - 30.0).max() < 6.0


# --- bases ----------------------------------------------------------------------------------------------------------


def empty_chain(base):
    """Return a float64 flow of the base alone, without transforms: a chain that is cut before its first transform."""
    features = base.features
    transform = hr.transforms.MaskedAutoregressive(features, (4,), dtype="float64")
    return hr.Flow(transforms=[transform], base=base)[:0]


@pytest.mark.parametrize(
    ("base", "judge"),
    [
        (hr.StandardNormal(3), reference.StandardNormal()),
        (hr.Normal(3, 1.5, 0.7), reference.Normal(1.5, 0.7)),
        (
            hr.Normal(3, np.array([1.0, -2.0, 0.0]), np.array([0.1, 1.0, 30.0]), trainable=False),
            reference.Normal(np.array([1.0, -2.0, 0.0]), np.array([0.1, 1.0, 30.0])),
        ),
        (hr.Logistic(3), reference.Logistic()),
    ],
    ids=["standard normal", "normal of two numbers", "normal of two arrays", "logistic"],
)
def test_bases_match_the_reference(base, judge):
    flow = empty_chain(base)
    assert len(flow) == 0
    x = 3.0 * cases.rows(101, 3, "float64")
    x[7], x[8], x[9] = 1e4, -1e4, 0.0
    assert base.features == flow.features == 3
    assert_allclose(flow.log_prob(x), judge.log_prob(x), rtol=1e-12)
    value, log_det = flow.to_data(x)
    cases.assert_same_bits(value, x)
    assert not log_det.any()


@pytest.mark.parametrize("base", ["normal", "logistic"])
def test_flows_on_other_bases_match_the_reference(base, dtype):
    loc, scale = np.linspace(-1.0, 1.0, FEATURES), np.linspace(0.5, 2.0, FEATURES)
    library, judge = {
        "normal": (hr.Normal(FEATURES, loc, scale), reference.Normal(loc, scale)),
        "logistic": (hr.Logistic(FEATURES), reference.Logistic()),
    }[base]
    flow, chain = mixed(dtype, library)
    x, context = cases.rows(60, FEATURES, dtype), cases.rows(60, 2, dtype, "context")
    want = reference.Flow(chain.transforms, judge).log_prob(x, context)
    cases.assert_close(flow.log_prob(x, context), want, magnitude=10.0, depth=128)
    sample, log_prob = flow.sample_and_log_prob(60, context, seed=1)
    want = reference.Flow(chain.transforms, judge).log_prob(sample, context)
    cases.assert_close(log_prob, want, magnitude=10.0, depth=1024)


def test_a_trainable_normal_adds_its_parameters_to_the_flow():
    def flow(trainable):
        transform = hr.transforms.MaskedAutoregressive(4, (8,))
        return hr.Flow(transforms=[transform], base=hr.Normal(4, 0.5, 2.0, trainable=trainable))

    fixed, trainable = flow(False), flow(True)
    assert trainable.parameters.size > fixed.parameters.size
    more = set(trainable.named_parameters()) - set(fixed.named_parameters())
    assert sum(trainable.named_parameters()[name].size for name in more) == 8
    x = cases.rows(30, 4, "float32")
    before = trainable.log_prob(x)
    assert_allclose(before, fixed.log_prob(x), rtol=1e-5)
    for name in more:
        trainable.set_parameter(name, trainable.named_parameters()[name] + np.float32(0.25))
    assert np.abs(trainable.log_prob(x) - before).max() > 1e-2


# --- parts ----------------------------------------------------------------------------------------------------------


@every_named
def test_slices_are_flows_of_the_first_transforms(name):
    flow = named(name, "float64")
    judge = mirror(flow, name)
    z = cases.rows(40, FEATURES, "float64")
    for t in range(len(flow) + 1):
        part = flow[:t]
        assert isinstance(part, hr.Flow)
        assert len(part) == t
        assert np.dtype(part.dtype) == np.float64
        want = reference.Flow(judge.transforms[:t], judge.base)
        cases.assert_matches(part.to_data(z), want.to_data(z), z, "float64", depth=32)
        check_log_prob(part.log_prob(z), want.log_prob(z), "float64", depth=32)


@every_named
def test_the_transforms_of_a_flow_make_up_the_flow(name, dtype):
    flow = named(name, dtype)
    value = cases.rows(40, FEATURES, dtype)
    got, log_det = flow.to_data(value)
    total = np.zeros(40)
    for transform in flow.transforms:
        value, step = transform.forward(value)
        total += step
    cases.assert_close(got, value, depth=16)
    cases.assert_close(log_det, total, depth=16)


@every_named
def test_named_flows_end_in_an_identity_at_the_data_side(name):
    flow = named(name)
    assert isinstance(flow.transforms[-1], hr.transforms.Standardize)
    assert len(flow) == len(flow.transforms) == 4
    x = cases.rows(20, FEATURES, "float64")
    value, log_det = flow.transforms[-1].inverse(x)
    assert_array_equal(value, x)
    assert not log_det.any()


def test_orders_alternate_inside_maf_and_iaf():
    for flow in (hr.MAF(5, transforms=3), hr.IAF(5, transforms=3)):
        natural = np.tril(np.ones((5, 5), bool), -1)
        for index, transform in enumerate(flow.transforms[:3]):
            depends = reference.reads(transform.to_dense()[2]).reshape(5, 2, 5).any(axis=1)
            assert_array_equal(depends, natural if index % 2 == 0 else natural.T)


def test_every_coordinate_is_active_somewhere_in_realnvp():
    flow = named("RealNVP", transforms=2)
    passive = [set(passive_columns(transform, None)) for transform in flow.transforms[:2]]
    assert all(0 < len(columns) < FEATURES for columns in passive)
    assert not passive[0] & passive[1]


@every_named
def test_fresh_flows_are_near_the_identity(name, dtype):
    flow = NAMED[name](8, context=2, dtype=dtype)
    x, context = cases.rows(200, 8, dtype), cases.rows(200, 2, dtype, "context")
    z, log_det = flow.to_latent(x, context)
    assert np.abs(z - x).max() < 0.5
    assert np.abs(log_det).max() < 0.5
    assert np.abs(flow.log_prob(x, context) - reference.StandardNormal().log_prob(x.astype(float))).max() < 2.0


@pytest.mark.parametrize("kind", [hr.MAF, hr.IAF, hr.RealNVP])
def test_log_densities_of_rows_far_out_stay_moderate(kind):
    """Log densities 15 deviations out are -800 to -5e4, by seed; a ReLU as last activation would give -5e7 to -1e28."""
    rng = cases.rng("far out")
    x = rng.standard_normal((2000, 4))
    x[:, 1] += x[:, 0] ** 2
    x[:, 2] *= np.exp(0.7 * x[:, 0])
    x[:, 3] += 0.3 * x[:, 1] * x[:, 2]
    flow = kind(4, transforms=5, hidden=(64, 64), seed=1)
    flow.fit(x, epochs=20, progress=False)
    far = np.array([[-15.0, 15.0, -15.0, 15.0]]) * x.std(axis=0)
    assert -1e6 < flow.log_prob(far)[0] < -100.0
    assert flow.log_prob(x).mean() > -5.9  # the best Gaussian has -7


def test_a_last_activation_is_that_of_the_last_layer_alone():
    assert [layer.activation for layer in hr.MAF(3, hidden=(8, 9, 7), activation="elu")[0].network] == [
        "elu",
        "elu",
        "tanh",
    ]
    flow = hr.RealNVP(3, hidden=(8, 9), last_activation="silu")
    assert [layer.activation for layer in flow[0].network] == ["relu", "silu"]
    blocks = hr.IAF(3, hidden=(8,), residual=True)[0].network
    assert [(layer.activation, layer.adds) for layer in blocks] == [("relu", None), ("relu", None), ("tanh", 0)]
    assert [layer.activation for layer in hr.NSF(3)[0].network] == ["relu", "relu"]
    assert hr.MAF(3, hidden=(8,))[0].network == hr.Network.plain((8,), "tanh")
    assert hr.MAF(3, hidden=())[0].network == hr.Network([])
    described = hr.Network([hr.Layer(8), hr.Layer(8)])
    assert hr.MAF(3, hidden=described)[0].network == described  # a Network describes all layers
    with pytest.raises(TypeError, match="last_activation: expected none beside a Network"):
        hr.MAF(3, hidden=described, last_activation="tanh")


@every_named
def test_the_seed_chooses_the_parameters(name):
    one, same, other = (NAMED[name](6, seed=seed).parameters for seed in (5, 5, 6))
    assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_permutation_follows_its_definition(dtype):
    order = [2, 0, 3, 1]
    transform, judge = hr.transforms.Permutation(order), reference.Permutation(order)
    assert transform.features == 4
    z = cases.rows(30, 4, dtype)
    for direction in ("forward", "inverse"):
        value, log_det = getattr(transform, direction)(z)
        cases.assert_same_bits(value, getattr(judge, direction)(z)[0].astype(dtype))
        assert (log_det.shape, log_det.dtype) == ((30,), np.dtype(dtype))
        assert not log_det.any()


def test_standardize_follows_its_definition(dtype):
    mean, std = np.array([10.0, -3.0, 0.0]), np.array([5.0, 0.01, 1.0])
    transform, judge = hr.transforms.Standardize(mean, std), reference.Standardize(mean, std)
    assert transform.features == 3
    z = cases.rows(30, 3, dtype)
    cases.assert_matches(transform.forward(z), judge.forward(z), z, dtype)
    x = judge.forward(z)[0].astype(dtype)
    value, log_det = transform.inverse(x)
    want, want_log_det = judge.inverse(x)
    cases.assert_close(value, want, magnitude=np.abs(x / std).max(axis=1))
    cases.assert_close(log_det, want_log_det)
    assert value.dtype == log_det.dtype == np.dtype(dtype)


def test_offset_data_keep_their_precision():
    """A float32 flow keeps the precision of float64 data at a million plus or minus one, because the mean is subtracted
    before rows become float32.
    """
    dense = cases.made(features=FEATURES).astype("float32")
    mean, std = np.full(FEATURES, 1e6), np.linspace(0.5, 2.0, FEATURES)
    flow = hr.Flow(
        transforms=[hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays), hr.transforms.Standardize(mean, std)],
        base=hr.StandardNormal(FEATURES),
    )
    assert np.dtype(flow.dtype) == np.float32
    judge = reference.Flow(
        [reference.MaskedAutoregressive(dense.network("relu")), reference.Standardize(mean, std)],
        reference.StandardNormal(),
    )
    for n in (3, 60):
        x = 1e6 + cases.rows(n, FEATURES, "float64")
        value, log_det = flow.to_latent(x)
        want, want_log_det = judge.to_latent(x)
        assert value.dtype == np.float32
        cases.assert_close(value, want, depth=8)
        cases.assert_close(log_det, want_log_det, depth=8)
        check_log_prob(flow.log_prob(x), judge.log_prob(x), "float32", depth=16)


def test_inverse_exchanges_the_directions(dtype):
    dense = cases.made(context=2).astype(dtype)
    transform = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=2)
    inverse, twice = hr.transforms.Inverse(transform), hr.transforms.Inverse(hr.transforms.Inverse(transform))
    judge = reference.MaskedAutoregressive(dense.network("relu"))
    assert (inverse.features, inverse.context, np.dtype(inverse.dtype)) == (7, 2, np.dtype(dtype))
    given, context = cases.rows(60, 7, dtype), cases.rows(60, 2, dtype, "context")
    cases.assert_matches(inverse.forward(given, context), judge.inverse(given, context), given, dtype)
    cases.assert_matches(inverse.inverse(given, context), judge.forward(given, context), given, dtype)
    cases.assert_matches(twice.forward(given, context), judge.forward(given, context), given, dtype)


# --- parameters -----------------------------------------------------------------------------------------------------


def holders(dtype):
    """Return a transform or flow of each class that has parameters, by name."""
    return {
        "MaskedAutoregressive": hr.transforms.MaskedAutoregressive(5, (19, 12), context=2, dtype=dtype),
        "Coupling": hr.transforms.Coupling(5, passive=[3, 0], hidden=(19, 12), context=2, dtype=dtype),
        "Inverse": hr.transforms.Inverse(hr.transforms.MaskedAutoregressive(5, (19, 12), context=2, dtype=dtype)),
        "Flow": mixed(dtype)[0],
        **{name: named(name, dtype, context=2, random=False) for name in NAMED},
    }


def evaluate(holder):
    forward = holder.to_data if isinstance(holder, hr.Flow) else holder.forward
    z = cases.rows(40, 5, holder.dtype)
    return forward(z, cases.rows(40, 2, holder.dtype, "context"))[0]


every_holder = pytest.mark.parametrize("name", holders("float32"))


@every_holder
def test_parameters_are_copied_out(name, dtype):
    holder = cases.randomise(holders(dtype)[name])
    parameters, value = holder.parameters, evaluate(holder)
    assert parameters.ndim == 1
    assert parameters.dtype == np.dtype(dtype)
    kept = parameters.copy()
    parameters[:] = 0
    for array in holder.named_parameters().values():
        array[...] = 0
    assert_array_equal(holder.parameters, kept)
    cases.assert_same_bits(evaluate(holder), value)


@every_holder
def test_parameters_are_copied_in(name, dtype):
    holder = holders(dtype)[name]
    fresh = evaluate(holder)
    new = (0.2 * cases.rng("new").standard_normal(holder.parameters.size)).astype(dtype)
    holder.parameters = new
    value, kept = evaluate(holder), holder.parameters
    assert np.abs(value - fresh).max() > 1e-3
    new[:] = 0
    assert_array_equal(holder.parameters, kept)
    cases.assert_same_bits(evaluate(holder), value)


@every_holder
def test_reading_and_assigning_back_changes_nothing(name, dtype):
    holder = cases.randomise(holders(dtype)[name])
    kept, value = holder.parameters, evaluate(holder)
    holder.parameters = kept
    cases.assert_same_bits(holder.parameters, kept)
    cases.assert_same_bits(evaluate(holder), value)


@every_holder
def test_named_parameters_are_the_parameters(name, dtype):
    """Dense arrays of one object, set one by one in another object, make both objects equal."""
    source, target = cases.randomise(holders(dtype)[name]), holders(dtype)[name]
    arrays = source.named_parameters()
    assert all(array.dtype == np.dtype(dtype) for array in arrays.values())
    for key, array in arrays.items():
        target.set_parameter(key, array)
    assert list(target.named_parameters()) == list(arrays)
    for key, array in target.named_parameters().items():
        assert_array_equal(array, arrays[key])
    cases.assert_same_bits(evaluate(target), evaluate(source))
    assert_array_equal(target.parameters, source.parameters)


@pytest.mark.parametrize("kind", ["masked", "coupling"])
def test_named_parameters_hold_the_dense_weights_and_biases(kind, dtype):
    if kind == "masked":
        dense = cases.made(context=2, change=cases.pin_zeros, layout="blocked").astype(dtype)
        transform = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=2, layout="blocked")
    else:
        dense = cases.dense_network(3, (9, 8), 4, 2, change=cases.pin_zeros).astype(dtype)
        transform = hr.transforms.Coupling.from_dense(*dense.arrays, features=7, passive=[6, 0, 1], context=2)
    arrays = list(transform.named_parameters().values())
    wanted = [np.where(mask, w, 0) for w, mask in zip(dense.weights, dense.masks, strict=True)] + dense.biases
    assert len(arrays) == len(wanted)
    for want in wanted:
        assert any(array.shape == want.shape and (array == want).all() for array in arrays)


def test_set_parameter_changes_that_parameter_alone(dtype):
    transform = cases.randomise(hr.transforms.MaskedAutoregressive(5, (19, 12), dtype=dtype))
    z = cases.rows(40, 5, dtype)
    for key, before in transform.named_parameters().items():
        others = {name: array for name, array in transform.named_parameters().items() if name != key}
        value = transform.forward(z)[0]
        transform.set_parameter(key, -2 * before)
        after = transform.named_parameters()
        assert_array_equal(after.pop(key), -2 * before)
        assert all((after[name] == others[name]).all() for name in others)
        assert np.abs(transform.forward(z)[0] - value).max() > 1e-3
        judge = cases.mirror_masked(transform)
        cases.assert_matches(transform.forward(z), judge.forward(z), z, dtype, depth=64)


def test_masked_weights_stay_zero_after_any_assignment(dtype):
    dense = cases.made(change=cases.pin_zeros).astype(dtype)
    transform = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays)
    transform.parameters = np.full(transform.parameters.size, 0.125, dtype)
    weights, biases, masks = transform.to_dense()
    for weight, mask, want in zip(weights, masks, dense.masks, strict=True):
        assert_array_equal(np.asarray(mask, bool), want)
        assert_array_equal(weight, np.where(want, 0.125, 0.0))
    for bias in biases:
        assert_array_equal(bias, np.full_like(bias, 0.125))
    z = cases.rows(40, 7, dtype)
    judge = cases.mirror_masked(transform)
    cases.assert_matches(transform.forward(z), judge.forward(z), z, dtype, depth=8)
    cases.assert_matches(transform.inverse(z), judge.inverse(z), z, dtype, depth=8)


@every_named
def test_astype_changes_the_precision_and_nothing_else(name):
    flow = named(name, "float32")
    wide = flow.astype("float64")
    assert (np.dtype(flow.dtype), np.dtype(wide.dtype)) == (np.float32, np.float64)
    for got, want in zip(wide.named_parameters().values(), flow.named_parameters().values(), strict=True):
        assert got.dtype == np.float64
        assert_array_equal(got, want)
    x = cases.rows(60, FEATURES, "float64")
    check_log_prob(wide.log_prob(x), mirror(wide, name).log_prob(x), "float64", depth=32)
    narrow = wide.astype("float32")
    x = x.astype("float32")
    cases.assert_same_bits(narrow.log_prob(x), flow.log_prob(x))
    kept = flow.parameters
    wide.parameters = np.zeros(wide.parameters.size)
    assert_array_equal(flow.parameters, kept)


@pytest.mark.parametrize("make", [hr.MAF, hr.IAF, hr.NSF, hr.RealNVP, hr.PlanarFlow, hr.RadialFlow])
def test_a_base_that_does_not_fit_is_named(make):
    with pytest.raises(ValueError, match=r"^base: expected 2 features, as the flow has, got 3"):
        make(2, base=hr.StandardNormal(3))
    with pytest.raises(TypeError, match=r"^base: expected a base density, got list"):
        make(2, base=[])
