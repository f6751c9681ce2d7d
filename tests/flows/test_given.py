"""Densities of some columns, and of the others given these, against integrals, Jacobians and the reference."""

import itertools
import pickle

import numpy as np
import pytest

import cases
import headrace as hr
import network_cases
import reference
import safetensors_reader
from devices import Library
from fitting import QUIET, gaussian
from headrace.transforms import Linear, MaskedAutoregressive
from pairs import pairwise

FLOWS = {"MAF": hr.MAF, "IAF": hr.IAF, "NSF": hr.NSF}
MAPS = list(reference.MAPS)


def one_order(name, dtype="float64", context=0, features=4, **more):
    flow = FLOWS[name](features, context, 3, (14, 11), link="none", dtype=dtype, **more)
    return cases.randomise(flow, 0.3, name)


def mixed_chain(dtype="float64", context=0):
    """A flow of all transforms with an order of columns, and of permutations; the order of the flow is 2, 0, 3, 1."""
    chain = [
        hr.transforms.MaskedAutoregressive(4, (9,), order=[1, 3, 0, 2], context=context, dtype=dtype),
        hr.transforms.Permutation([3, 2, 1, 0]),  # the order is now 2, 0, 3, 1
        hr.transforms.Inverse(
            hr.transforms.MaskedAutoregressive(4, (8, 7), order=[2, 0, 3, 1], context=context, dtype=dtype)
        ),
        hr.transforms.Elementwise(4, map="dual_ascent", dtype=dtype),
        hr.transforms.Coupling(4, [2, 0], (6,), context=context, dtype=dtype),
        hr.transforms.Inverse(hr.transforms.Permutation([1, 2, 3, 0])),
        hr.transforms.ActNorm(4, dtype=dtype),
        hr.transforms.Permutation([1, 2, 3, 0]),
        hr.transforms.Coupling(4, [3, 0, 2], (), map="rq_spline", formula="to_latent", dtype=dtype),
        hr.transforms.MaskedAutoregressive(4, (8,), order=[2, 0, 3, 1], reads="latent", map="rq_spline", dtype=dtype),
        hr.transforms.Standardize([3.0, -1.0, 0.5, 10.0], [2.0, 0.5, 1.0, 3.0]),
    ]
    scale = (np.array([0.5, -1.0]), np.array([2.0, 0.5])) if context else None
    base = hr.Normal(4, [0.1, -0.2, 0.3, 0.0], [1.0, 1.5, 0.7, 1.2])
    flow = hr.Flow(chain, base, dtype=dtype, standardize_context=scale)
    return cases.randomise(flow, 0.3, "mixed")


CHAIN = {1: [2], 2: [2, 0], 3: [0, 3, 2]}  # known columns of `mixed_chain`, in some order, by their number


def rows_of(flow, n=9):
    c = cases.rows(n, flow.context, flow.dtype, "context") if flow.context else None
    return flow.sample(n, c, seed=4), c


def judge_of(flow, folder):
    flow.astype("float64").save(folder / "judge")
    return safetensors_reader.read(folder / "judge")


def log_densities(judge, x, c, known, latent):
    """Return log p(known) and log p(others | known) of each row, from central differences of the reference."""
    rest = [i for i in range(x.shape[1]) if i not in known]
    latent_rest = [i for i in range(x.shape[1]) if i not in latent]
    found = []
    for i, row in enumerate(np.asarray(x, np.float64)):

        def to_latent(rows, own=None if c is None else c[i]):
            return judge.to_latent(rows, None if own is None else np.tile(own, (len(rows), 1)))[0]

        z, slopes = to_latent(row[None])[0], reference.jacobian(to_latent, row)
        assert np.abs(slopes[np.ix_(latent, rest)]).max() < 1e-9  # latents of known columns depend on no others
        terms = []
        for outputs, inputs in ((latent, known), (latent_rest, rest)):
            base = judge.base if hasattr(judge, "base") else judge.flow.base
            terms.append(_base_of(base, z, outputs) + np.linalg.slogdet(slopes[np.ix_(outputs, inputs)])[1])
        found.append(terms)
    return np.array(found).T


def _base_of(base, z, chosen):
    if isinstance(base, reference.Normal):
        base = reference.Normal(
            np.broadcast_to(base.loc, z.shape)[chosen], np.broadcast_to(base.scale, z.shape)[chosen]
        )
    return base.log_prob(z[None, chosen])[0]


# ---- against Jacobians of the reference ------------------------------------------------------------------------------


@pairwise(name=[*FLOWS, "mixed"], k=[1, 2, 3], context=[0, 2], dtype=cases.DTYPES)
def test_both_densities_are_those_of_the_reference(name, k, context, dtype, tmp_path):
    if name == "mixed":
        flow, known = mixed_chain(dtype, context), CHAIN[k]
    else:
        flow, known = one_order(name, dtype, context, base=hr.Logistic(4) if name == "NSF" else None), list(range(k))
    x, c = rows_of(flow)
    given = flow.given(x[:, known], c, columns=known)
    marginal, latent = flow.marginal(known), given._latent
    want, want_rest = log_densities(judge_of(flow, tmp_path), x, c, known, latent)
    rest = x[:, list(given.columns)]
    # Central differences of step 1e-5 have errors of 1e-10 times a third derivative, large in narrow bins of a spline.
    tolerance = 1e-5 if dtype == "float64" else 2e-4
    np.testing.assert_allclose(marginal.log_prob(x[:, known], c), want, rtol=0, atol=tolerance)
    np.testing.assert_allclose(given.log_prob(rest), want_rest, rtol=0, atol=tolerance)


@pairwise(name=[*FLOWS, "mixed"], k=[1, 2, 3], dtype=cases.DTYPES)
def test_a_draw_is_the_reference_s_at_its_own_latent_numbers(name, k, dtype, tmp_path):
    flow = mixed_chain(dtype) if name == "mixed" else one_order(name, dtype)
    known = CHAIN[k] if name == "mixed" else list(range(k))
    x, _ = rows_of(flow, 20)
    given, judge = flow.given(x[:, known], columns=known), judge_of(flow, tmp_path)
    padded = np.zeros_like(x, np.float64)
    padded[:, known] = x[:, known]
    z = hr.Flow([], flow.base, dtype=dtype).sample(20, seed=8).astype(np.float64)
    z[:, given._latent] = judge.to_latent(padded)[0][:, given._latent]
    want = judge.to_data(z)[0]
    np.testing.assert_allclose(want[:, known], x[:, known], rtol=0, atol=1e-4 if dtype == "float32" else 1e-9)
    drawn = given.sample(seed=8)
    cases.assert_close(drawn, want[:, list(given.columns)], magnitude=np.abs(want).max(), depth=60)


@pairwise(name=[*FLOWS, "mixed"], context=[0, 2], dtype=cases.DTYPES)
def test_draws_return_to_their_latents(name, context, dtype):
    flow = mixed_chain(dtype, context) if name == "mixed" else one_order(name, dtype, context)
    x, c = rows_of(flow, 40)
    known = [2, 0] if name == "mixed" else [0, 1]
    given = flow.given(x[:, known], c, columns=known)
    cases.assert_close(given.sample(seed=4), x[:, list(given.columns)], magnitude=np.abs(x).max(), depth=60)
    assert (given.sample(seed=5) != given.sample(seed=4)).any(axis=1).all()


# ---- against integrals -----------------------------------------------------------------------------------------------

LINE = np.linspace(-40.0, 40.0, 8001)


@pairwise(map=MAPS, formula=["to_data", "to_latent"], reads=["data", "latent"])
def test_a_marginal_is_the_integral_over_the_others(map, formula, reads):
    """A sum over a grid gives the integral over one column; densities are smooth but for kinks at knots of splines."""
    chain = [
        hr.transforms.MaskedAutoregressive(2, (8,), map=map, formula=formula, reads=reads, seed=i, dtype="float64")
        for i in range(2)
    ]
    flow = cases.randomise(hr.Flow(chain), 0.2, map)
    for at in (-1.3, 0.2, 2.1):
        grid = np.stack([np.full(LINE.size, at), LINE], axis=1)
        density = np.exp(flow.log_prob(grid))
        total = density.sum() * (LINE[1] - LINE[0])  # at the ends the density is 0
        assert np.exp(flow.marginal(1).log_prob(np.array([at]))) == pytest.approx(total, rel=2e-4)
        given = flow.given(np.array([at]))
        np.testing.assert_allclose(np.exp(given.log_prob(LINE[:, None])), density / total, rtol=4e-4, atol=1e-12)


def test_a_marginal_of_three_columns_is_a_double_integral():
    flow = one_order("MAF", features=3, map="affine")
    line = np.linspace(-25.0, 25.0, 601)
    plane = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    step = (line[1] - line[0]) ** 2
    for at in (-0.8, 0.9):
        cube = np.concatenate([np.full((*plane.shape[:2], 1), at), plane], axis=-1)
        total = np.exp(flow.log_prob(cube)).sum() * step
        assert np.exp(flow.marginal(1).log_prob(np.array([at]))) == pytest.approx(total, rel=1e-4)
        assert np.exp(flow.given(np.array([at])).log_prob(plane)).sum() * step == pytest.approx(1.0, rel=1e-4)


def test_a_linear_flow_s_conditional_is_the_gaussian_s():
    """For x = L z the conditional mean and covariance are known; 40,000 samples agree within five standard errors."""
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(3, (), map="affine", dtype="float64")])
    cases.randomise(flow, 0.5, "linear")
    name, shifts_alone = "transforms.0.layers.0.weight", np.array([[1.0], [0.0]] * 3)  # scales are constant
    flow.set_parameter(name, flow.named_parameters()[name] * shifts_alone)
    origin, *ends = flow.to_data(np.vstack([np.zeros(3), np.eye(3)]))[0]
    factor = (np.array(ends) - origin).T
    covariance, a = factor @ factor.T, np.array([1.3])
    gain = covariance[1:, :1] / covariance[0, 0]
    mean = origin[1:] + gain @ (a - origin[:1])
    left = covariance[1:, 1:] - gain @ covariance[:1, 1:]
    x = flow.given(a).sample(40_000, seed=0)
    assert (np.abs(x.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(left) / 40_000)).all()
    np.testing.assert_allclose(np.cov(x.T), left, atol=5 * left.max() * np.sqrt(2 / 40_000))


# ---- parts of networks ------------------------------------------------------------------------------------


def closed_sets(masks, features, n_params, adds=None):
    """Yield, for each coordinate, this coordinate and all coordinates on which it depends, in a random order."""
    reach = reference.reads(masks, adds)[:, :features].reshape(features, n_params, features).any(axis=1)
    for i in range(features):
        found = {i}
        while (more := found | set(np.flatnonzero(reach[sorted(found)].any(axis=0)))) != found:
            found = more
        yield tuple(int(c) for c in cases.rng("order", i).permutation(sorted(found)))


def check_part(transform, judge, kept, context):
    part, others = transform._restricted(kept)
    assert others == kept
    x = cases.rows(6, transform.features, "float64", "part")
    c = cases.rows(6, context, "float64", "context") if context else None
    z, log_det = part.inverse(x[:, list(kept)], c)
    want = judge.inverse(x, c)[0]
    np.testing.assert_allclose(z, want[:, list(kept)], rtol=0, atol=1e-9 * max(1.0, np.abs(want).max()))
    for i, row in enumerate(x):
        own = None if c is None else c[i]
        slopes = reference.jacobian(
            lambda r, own=own: judge.inverse(r, None if own is None else np.tile(own, (len(r), 1)))[0], row
        )
        assert log_det[i] == pytest.approx(np.linalg.slogdet(slopes[np.ix_(kept, kept)])[1], abs=1e-5)
    return part


@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
@pytest.mark.parametrize("name", [name for name in cases.NETWORKS if "sixty" not in name])
def test_part_of_any_network(name, layout):
    """Parts of networks are right even for masks of other libraries: dead units, zeros, subsets that are not nested."""
    dense = cases.made(**cases.NETWORKS[name], layout=layout, outputs=("scale", "shift"), gain=0.7).astype("float64")
    settings = {"activation": "tanh", "outputs": ("scale", "shift"), "layout": layout}
    transform = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=dense.context, **settings)
    network = reference.Network(*dense.arrays, "tanh")
    judge = reference.MaskedAutoregressive(network, outputs=("scale", "shift"), layout=layout)
    masks = dense.masks
    if layout == "blocked":
        last = masks[-1].reshape(2, dense.features, -1).swapaxes(0, 1)
        masks = [*masks[:-1], last.reshape(masks[-1].shape)]
    for kept in itertools.islice(closed_sets(masks, dense.features, 2), 6):
        check_part(transform, judge, kept, dense.context)


@pytest.mark.parametrize("name", network_cases.NETWORKS)
def test_part_of_layers_that_add_and_are_gated(name):
    """Parts of networks are right where units add another unit that reads fewer coordinates."""
    dense, network, joins = network_cases.made(name)
    found = network_cases.subject(dense, network, joins)
    judge = found.judge(found.arrays)
    for kept in closed_sets(dense.masks, dense.features, 2, [layer.adds for layer in network]):
        check_part(found.library, judge, kept, dense.context)


def test_inputs_that_a_unit_sees_by_an_added_unit_alone():
    """Where a unit's product reads nothing, coordinate 1 needs coordinate 0 through the added unit alone."""
    one_by_one = np.eye(3, dtype=bool)
    earlier = np.repeat(np.tri(3, k=-1, dtype=bool), 2, axis=0)
    masks = [one_by_one, np.zeros((3, 3), bool), earlier]
    dense = cases.fill(masks, cases.rng("adds"), features=3).astype("float64")
    network = hr.Network([hr.Layer(3, "tanh"), hr.Layer(3, "tanh", adds=0)])
    transform = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, network=network)
    with pytest.raises(ValueError, match=r"^makes coordinate 1 from coordinate 0$"):
        transform._restricted((1,))
    x = cases.rows(9, 3, "float64")
    for kept in ((0,), (0, 1), (1, 0)):
        part, _ = transform._restricted(kept)
        np.testing.assert_allclose(part.inverse(x[:, kept])[0], transform.inverse(x)[0][:, kept], rtol=0, atol=1e-12)


@pytest.mark.parametrize("map", MAPS)
@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
def test_parts_keep_each_map_s_rows(map, layout):
    outputs = reference.MAPS[map].parameters[::-1]
    dense = cases.made(4, (8,), outputs=outputs, layout=layout, bins=5, map=map, gain=0.5).astype("float64")
    own = {"map": map, "outputs": outputs, "layout": layout}
    transform = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, bins=5, **own)
    judge = reference.MaskedAutoregressive(reference.Network(*dense.arrays), **own)
    x = cases.rows(20, 4, "float64")
    for size in (1, 2, 3):
        for kept in itertools.permutations(range(4), size):
            try:
                part, _ = transform._restricted(kept)
            except ValueError:
                continue
            np.testing.assert_allclose(
                part.inverse(x[:, list(kept)])[0], judge.inverse(x)[0][:, list(kept)], rtol=0, atol=1e-9
            )


def test_parts_of_constructed_networks_are_staircases():
    """Weights of a part of a network are stored as in a fresh transform, and files contain levels and degrees."""
    for k in range(1, 7):
        part, _ = hr.transforms.MaskedAutoregressive(7, (20, 20), context=2)._restricted(tuple(range(k)))
        assert part._network.staircase is not None
        assert max(part._network.staircase.levels) == k
    part, _ = hr.transforms.MaskedAutoregressive(7, (24, 18), order=[6, 5, 4, 3, 2, 1, 0])._restricted((6, 5, 4))
    assert list(part._network.staircase.levels) == [1, 2, 3]
    assert part._hidden() == [12, 9]  # the part has the units of degrees 1 to 3, of six degrees


def test_the_first_column_without_context_reads_nothing():
    flow = one_order("MAF")
    first = flow.marginal(1)
    assert first.features == 1
    assert np.ptp(first.log_prob(np.full((9, 1), 0.3))) == 0.0


# ---- shapes, frameworks, devices -------------------------------------------------------------------------------------


def test_shapes(dtype):
    flow = one_order("MAF", dtype, context=2)
    x, c = rows_of(flow, 6)
    many, one = flow.given(x[:, :2], c), flow.given(x[0, :2], c[0])
    assert (many.shape, one.shape, many.features, many.columns, many.known) == ((6,), (), 2, (2, 3), (0, 1))
    assert many.sample(seed=0).shape == (6, 2)
    assert many.sample(5, seed=0).shape == (5, 6, 2)
    assert many.sample((5, 3), seed=0).shape == (5, 3, 6, 2)
    assert one.sample(seed=0).shape == (2,)
    assert one.sample(5, seed=0).shape == (5, 2)
    assert one.sample(0, seed=0).shape == (0, 2)
    assert flow.given(x[:0, :2], c[:0]).sample(seed=0).shape == (0, 2)
    assert many.log_prob(many.sample(5, seed=0)).shape == (5, 6)
    assert one.log_prob(x[:, 2:]).shape == (6,)
    assert one.log_prob(x[0, 2:]).shape == ()
    shared = flow.given(x[:, :2], c[0])
    np.testing.assert_allclose(shared.log_prob(x[:, 2:])[0], many.log_prob(x[:, 2:])[0], rtol=1e-5)
    cube = flow.given(x[:, :2].reshape(2, 3, 2), c.reshape(2, 3, 2))
    cases.assert_same_bits(cube.log_prob(x[:, 2:].reshape(2, 3, 2)).ravel(), many.log_prob(x[:, 2:]))
    cases.assert_same_bits(cube.sample((4,), seed=1).reshape(4, 6, 2), many.sample((4,), seed=1))
    assert repr(many) == "Conditional(columns=[2, 3] given [0, 1], shape=(6,))"
    assert many.sample(seed=0).dtype == many.log_prob(x[:, 2:]).dtype == dtype
    for draw in range(3):  # each sample belongs to the known columns of its row
        own = many.sample(3, seed=2)[draw]
        np.testing.assert_allclose(
            many.log_prob(own), flow.log_prob(np.hstack([x[:, :2], own]), c) - flow.marginal(2).log_prob(x[:, :2], c),
            rtol=0, atol=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize("base", [None, hr.Normal(4, 0.5, 2.0)])
def test_rows_far_from_zero_in_float64(base):
    """Rows are like time stamps: samples of a float32 flow become float64 in the units of the data."""
    chain = [hr.transforms.MaskedAutoregressive(4, (8,)), hr.transforms.Standardize([1.7e9] * 4, [30.0] * 4)]
    flow = cases.randomise(hr.Flow(chain, base), 0.3)
    x = flow.sample(50, seed=3, dtype="float64")
    drawn = flow.given(x[:, :2]).sample(seed=3, dtype="float64")
    assert drawn.dtype == np.float64
    np.testing.assert_allclose(drawn, x[:, 2:], rtol=0, atol=0.01)


def test_answers_are_in_the_caller_s_framework(framework):
    flow = one_order("NSF")
    x, _ = rows_of(flow)
    given, want = flow.given(framework.make(x[:, :2])), flow.given(x[:, :2])
    cases.assert_same_bits(framework.open(given.sample(3, seed=1)), want.sample(3, seed=1))
    cases.assert_same_bits(framework.open(given.log_prob(framework.make(x[:, 2:]))), want.log_prob(x[:, 2:]))


def test_marginals_and_conditionals_on_a_device(machine):
    cupy = Library("cupy", machine)
    flow = one_order("MAF", "float32", 2, base=hr.Normal(4, 0.5, 2.0))
    x, c = rows_of(flow, 30)
    given = flow.to("cuda").given(cupy.make(x[:, :2]), cupy.make(c))
    want = flow.given(x[:, :2], c)
    cases.assert_close(cupy.open(given.sample(2, seed=1)), want.sample(2, seed=1), magnitude=30.0)
    cases.assert_close(cupy.open(given.log_prob(cupy.make(x[:, 2:]))), want.log_prob(x[:, 2:]), magnitude=30.0)
    assert flow.to("cuda").marginal(2).device == "cuda:0"


# ---- hard inputs, and refusals --------------------------------------------------------------------------------


def test_a_row_that_is_not_finite_spoils_itself_alone(dtype):
    flow = one_order("MAF", dtype)
    x, _ = rows_of(flow, 12)
    clean = flow.given(x[:, :2])
    spoilt = x.copy()
    spoilt[3, 1], spoilt[5, 0] = np.nan, np.inf
    given = flow.given(spoilt[:, :2])
    for got, want in (
        (given.sample(seed=1), clean.sample(seed=1)),
        (given.log_prob(x[:, 2:]), clean.log_prob(x[:, 2:])),
    ):
        assert np.isnan(got[[3, 5]]).all()
        good = [0, 1, 2, 4, *range(6, 12)]
        cases.assert_same_bits(got[good], want[good])


def test_densities_of_zero():
    flow = hr.Flow(
        [hr.transforms.MaskedAutoregressive(2, ()), hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])], dtype="float64"
    )
    far = np.array([1e200])
    assert flow.given(np.zeros(1)).log_prob(far) == -np.inf
    assert np.isnan(flow.given(far).log_prob(np.zeros(1)))  # a row of density 0 has no conditional density


def test_a_conditional_does_not_change_the_flow():
    flow = one_order("MAF")
    x, _ = rows_of(flow)
    known = x[:, :2].copy()
    given, other = flow.given(known), flow.given(x[:, :2])
    want = other.sample(seed=1), other.log_prob(x[:, 2:])
    flow.parameters = 0.0 * flow.parameters
    known[...] = 0.0
    cases.assert_same_bits(given.sample(seed=1), want[0])
    cases.assert_same_bits(given.log_prob(x[:, 2:]), want[1])


def test_a_marginal_is_a_flow_of_its_own(tmp_path):
    flow = one_order("MAF", "float32", 2)
    x, c = rows_of(flow, 200)
    part = flow.marginal([1, 0])
    assert (part.features, part.context, part.dtype) == (2, 2, np.float32)
    part.save(tmp_path / "part")
    again = hr.load(tmp_path / "part")
    cases.assert_same_bits(again.log_prob(x[:, [1, 0]], c), part.log_prob(x[:, [1, 0]], c))
    assert hr.to_bytes(pickle.loads(pickle.dumps(part))) == hr.to_bytes(part)
    before = flow.parameters
    assert part.fit(x[:, [1, 0]], c, epochs=1, **QUIET).stopped == "epochs"
    cases.assert_same_bits(flow.parameters, before)
    cases.assert_close(
        flow.marginal([1, 0]).log_prob(x[:, [1, 0]], c),
        flow.marginal(2).log_prob(x[:, :2], c),
        magnitude=20.0,
        depth=12,
    )


def rotated():
    """Return a flow to which a fit of few rows gave the correlations of a Gaussian."""
    flow = hr.MAF(3, transforms=1, hidden=(8,), link="none")
    with np.errstate(all="ignore"):
        flow.fit(gaussian(100), **QUIET)
    return flow


def log_prob_of(shape):
    return one_order("MAF").given(X).log_prob(np.zeros(shape))


class OwnBase(hr.Base):
    """A base whose coordinates may depend on each other."""

    name = "normal"


X = np.zeros((5, 2))
ORDER = r" In a flow of one order, as hr\.MAF\(\d, link='none'\) or hr\.NSF"
REFUSED = {
    "two orders": (lambda: hr.MAF(4).given(X), r"^columns: .*got \[0, 1\]: transforms\[3\], of the class "
                   r"MaskedAutoregressive, makes coordinate 0 from coordinate 2\." + ORDER),
    "couplings": (lambda: hr.RealNVP(4).given(X), r"of the class Coupling, makes coordinate 0 from coordinate"),
    "links": (lambda: hr.MAF(4, link="linear").given(X), r"MaskedAutoregressive, makes|Linear, makes each coordinate"),
    "a linear map": (lambda: hr.Flow([Linear(4)]).given(X), r"of the class Linear, makes each coordinate"),
    "planar": (lambda: hr.PlanarFlow(4).given(X), r"\[31\], of the class Planar, makes each coordinate from all"),
    "radial": (lambda: hr.RadialFlow(4).given(X), r"of the class Radial, makes each coordinate from all others"),
    "a rotation": (lambda: hr.Flow([hr.transforms.Rotation.random(4)]).given(X), r"of the class Rotation, makes each"),
    "few rows": (lambda: rotated().given(X), r"Rotation, makes each .* others; a fit of few rows puts it"),
    "an order that is not the columns'": (
        lambda: hr.Flow([MaskedAutoregressive(3, (8,), order=[2, 1, 0])]).given(X), "makes coordinate 0 from coord"),
    "a base of one's own": (lambda: hr.Flow([], OwnBase(3)).given(X), r"^columns: .*got one on OwnBase"),
    "all columns": (lambda: one_order("MAF").given(np.zeros((5, 4))), r"^x: expected fewer than 4 columns, got 4"),
    "more columns": (lambda: one_order("MAF").given(np.zeros((5, 6))), r"^columns\[4\]: expected .* from 0 to 3"),
    "no columns": (lambda: one_order("MAF").given(np.zeros((5, 0))), r"^columns: expected at least one, got none"),
    "a column twice": (lambda: one_order("MAF").given(X, columns=[1, 1]), r"^columns: expected different coordinates"),
    "another number": (lambda: one_order("MAF").given(X, columns=[0]), r"^x: expected shape \(rows, 1\)"),
    "no context": (lambda: one_order("MAF", context=1).given(X), r"^context: expected shape"),
    "columns of the rest": (lambda: log_prob_of((5, 3)), r"^rest: expected shape \(\.\.\., 2\)"),
    "rows of the rest": (lambda: log_prob_of((4, 2)), r"^rest: expected shapes that broadcast"),
    "a marginal of none": (lambda: one_order("MAF").marginal(0), r"^columns: expected an integer from 1 to 4, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refused_columns(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_flow_of_the_other_order_has_a_density_of_its_last_columns():
    flow = cases.randomise(
        hr.Flow([hr.transforms.MaskedAutoregressive(3, (8,), order=[2, 1, 0], dtype="float64")]), 0.3
    )
    x = flow.sample(9, seed=2)
    given = flow.given(x[:, [2, 1]], columns=[2, 1])
    np.testing.assert_allclose(given.sample(seed=2), x[:, :1], atol=1e-12)
    assert given.columns == (0,)


def test_all_columns_in_another_order():
    flow = one_order("MAF")
    x, _ = rows_of(flow)
    np.testing.assert_allclose(flow.marginal([3, 1, 0, 2]).log_prob(x[:, [3, 1, 0, 2]]), flow.log_prob(x), atol=1e-12)
    assert hr.MAF(4).marginal(4).log_prob(x).shape == (9,)  # all columns together have a marginal in any flow
