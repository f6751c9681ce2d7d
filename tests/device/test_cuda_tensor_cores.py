"""Matrix products of networks on tensor cores: the products themselves, rounded factors, and exact values.

Small whole numbers are exact in TF32, and their sums do not depend on the order: tensor cores return the bits of exact
products for them. Other values are compared with NumPy in float64, which for TF32 rounds factors in the same way; three
products of split factors ("3xtf32") are as near as those of float32.
"""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import network_cases
from cuda_twins import Twin
from pairs import pairwise
from program_cases import SIDES, SIZES
from tensor_core_cases import ROUNDING, WIDE, every_kind, one_product, rounded, small, whole


def twins(device, library, matmul="tf32"):
    """The transform with products on tensor cores, and the transform with exact products."""
    return Twin(device, library, matmul=matmul), Twin(device, library)


def assert_all_same(got, want):
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result, expected)


def grid(device, name, matmul, context=0, **settings):
    """A network, coordinates and context whose values are all exact in TF32."""
    chosen = {"context": context} | (cases.NETWORKS | {"wide": WIDE})[name] | {"outputs": ("shift",)}
    dense = small(cases.made(**chosen))
    library = gradients.masked(dense, "relu", map="additive", **settings).library
    context = whole(37, dense.context, "context") if dense.context else None
    return twins(device, library, matmul), whole(37, dense.features), context


@pairwise(name=[*cases.NETWORKS, "wide"], reads__formula=SIDES, matmul=["tf32", "3xtf32"])
def test_every_kind_of_network(name, matmul, reads, formula, device):
    (fast, exact), known, context = grid(device, name, matmul, reads=reads, formula=formula)
    # The network's inputs are known in one direction, and computed in the other.
    parallel, sequential = ("forward", "inverse") if reads == "latent" else ("inverse", "forward")
    built = getattr(fast, parallel)(known, context)
    assert_all_same(built, getattr(exact, parallel)(known, context))
    again, _ = getattr(fast, sequential)(built[0], context)
    assert np.array_equal(again, known)


@pairwise(name=[*cases.NETWORKS, "wide"], reads__formula=SIDES, matmul=["tf32", "3xtf32"])
def test_every_networks_gradients(name, matmul, reads, formula, device):
    (fast, exact), known, context = grid(device, name, matmul, context=2, reads=reads, formula=formula)
    verb = "forward_vjp" if reads == "latent" else "inverse_vjp"
    by_value, by_row = whole(37, fast.features, "value"), whole(37, 1, "row")[:, 0]
    given = known, by_value, by_row, context
    wrt = ("inputs", "parameters", "context")
    assert_all_same(getattr(fast, verb)(*given, wrt=wrt), getattr(exact, verb)(*given, wrt=wrt))


@every_kind
@pytest.mark.parametrize("n", SIZES)
def test_every_size_of_batch(n, matmul, device):
    (fast, exact), known, _ = grid(device, "three layers", matmul, reads="data", formula="to_data")
    assert_all_same(fast.inverse(known[:n]), exact.inverse(known[:n]))


@pytest.mark.long
@every_kind
def test_lines_in_global_memory(matmul, device):
    """The lines of a network that does not fit a block's shared memory are in global memory."""
    dense = small(cases.made(3, (1700, 100, 200), outputs=("shift",)))
    fast, exact = twins(device, gradients.masked(dense, "relu", map="additive", reads="data").library, matmul)
    known = whole(33, 3)
    assert_all_same(fast.inverse(known), exact.inverse(known))


def assert_a_product(got, added, left, right):
    """Check that ``got`` is ``added`` plus the product of rounded factors, up to float32's roundings of sums."""
    magnitude = np.abs(left) @ np.abs(right) + np.abs(added) + 1
    assert np.all(np.abs(got - (added + rounded(left) @ rounded(right))) <= 8 * np.finfo("float32").eps * magnitude)
    unrounded = np.abs(got - (added + left.astype(float) @ right)) / magnitude
    assert np.all(unrounded <= 2.1 * ROUNDING)  # a product has two factors
    assert np.quantile(unrounded, 0.9) > 0.1 * ROUNDING  # the check shows that factors were rounded


def test_factors_are_rounded_and_sums_are_not(device):
    twin, weights, bias, x, context = one_product(device)
    z, log_det = twin.inverse(x, context)
    assert_a_product(z, x - bias, np.hstack([x, context]), -weights.T)
    assert np.all(log_det == 0)


def test_the_backward_pass_on_tensor_cores(device):
    """Gradients of inputs and context by a backward pass; sums over rows are tested in test_cuda_row_sums.py."""
    twin, weights, _, x, context = one_product(device)
    grad, by_row = cases.rows(37, 19, "float32", "grad"), np.zeros(37, "float32")
    by_x, by_context = twin.inverse_vjp(x, grad, by_row, context, wrt=("inputs", "context"))
    assert_a_product(np.hstack([by_x, by_context]), np.pad(grad, ((0, 0), (0, 4))), grad, -weights)


def errors(twin, x, weights):
    """Errors of the product in a coupling's layer, in units of the sum of its terms' magnitudes."""
    given = np.hstack([x, np.zeros((len(x), len(weights)), "float32")])
    got = -twin.inverse(given)[0][:, x.shape[1] :]
    left, right = x.astype(float), weights.T.astype(float)
    return np.abs(got - left @ right) / (np.abs(left) @ np.abs(right))


@pytest.mark.parametrize("signs", ["both", "one"])
@pytest.mark.parametrize("terms", [16, 100, 512])
def test_three_products_are_as_near_as_float32s_own(terms, signs, device):
    """In short sums, in which the rounding of a term counts for most, errors may be up to twice those of float32, but
    are not those of TF32."""
    generator = cases.rng("split", terms, signs)
    draw = lambda *shape: generator.standard_normal(shape).astype("float32")  # noqa: E731
    weights, x = draw(24, terms), draw(64, terms)
    if signs == "one":
        weights, x = np.abs(weights), np.abs(x)
    library = hr.transforms.Coupling.from_dense(
        [weights], [np.zeros(24, "float32")], features=terms + 24, passive=range(terms), map="additive"
    )
    exact, split, rounded_ = (errors(Twin(device, library, matmul=m), x, weights) for m in ("exact", "3xtf32", "tf32"))
    allowed = 2 if terms < 100 else 1
    assert np.sqrt(np.mean(split**2)) <= allowed * np.sqrt(np.mean(exact**2))
    assert split.max() <= max(allowed * exact.max(), 2 * np.finfo("float32").eps)
    assert np.median(rounded_) > 50 * np.median(split)  # the check shows that the test distinguishes the two products


@pytest.mark.long
@pytest.mark.parametrize("kind", [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF])
def test_flows_are_as_near_as_factors_of_11_bits_allow(kind, device):
    flow = cases.randomise(kind(6, transforms=3, hidden=(24, 20), activation="tanh"), 0.2)  # slopes of ReLU may jump
    fast, exact = twins(device, flow)
    x = cases.rows(70, 6, "float32")
    difference = np.abs(fast.log_prob(x) - exact.log_prob(x))
    assert 0 < np.median(difference) < difference.max() < 64 * ROUNDING
    for got, want in zip(fast.sample(70, seed=3), exact.sample(70, seed=3), strict=True):
        assert 0 < np.abs(got - want).max() < 64 * ROUNDING
    wrt = "inputs", "parameters", "log_prob"
    by_row = np.ones(70, "float32")
    for got, want in zip(fast.log_prob_vjp(x, by_row, wrt=wrt), exact.log_prob_vjp(x, by_row, wrt=wrt), strict=True):
        # A point may cross a knot, where slopes jump.
        assert 0 < np.quantile(np.abs(got - want), 0.95) < 8 * ROUNDING * np.abs(want).max()


@pytest.mark.parametrize("name", network_cases.NETWORKS)
def test_units_are_rounded_alike_where_they_are_stored_and_where_they_are_read(name, device):
    """A run that is not recorded rounds units when it stores them, and a recorded run when products read them; sums and
    gates keep all digits."""
    flow = cases.randomise(hr.MAF(5, context=2, transforms=1, hidden=hr.Network(network_cases.NETWORKS[name])), 0.4)
    fast, exact = twins(device, flow)
    x, context = cases.rows(50, 5, "float32"), cases.rows(50, 2, "float32", "context")
    got = fast.log_prob(x, context)
    (recorded,) = fast.log_prob_vjp(x, np.ones(50, "float32"), context, wrt=("log_prob",))
    want = exact.log_prob(x, context)
    # The check shows that the test distinguishes rounded from exact products.
    assert np.median(np.abs(got - want)) > 64 * np.finfo("float32").eps
    # A unit that differs in its last bit, because kernels differ in their multiply-adds, may be rounded the other way.
    assert np.quantile(np.abs(got - recorded), 0.8) <= 16 * np.finfo("float32").eps * np.abs(want).max()


def test_round_trips_on_tensor_cores(device):
    """Round trips have the errors of TF32, because a value that is recovered up to its last bit may be rounded the
    other way."""
    flow = cases.randomise(hr.MAF(6, transforms=3, hidden=(24, 20)), 0.2)
    fast, _ = twins(device, flow)
    x = cases.rows(300, 6, "float32")
    z, log_det = fast.to_latent(x)
    again, back = fast.to_data(z)
    for got, want in ((again, x), (back, -log_det)):
        assert np.abs(got - want).max() < 16 * ROUNDING
        assert np.median(np.abs(got - want)) < 16 * np.finfo("float32").eps


@every_kind
@pytest.mark.parametrize("reads", cases.READS)
def test_hard_rows(reads, matmul, device):
    """For huge, tiny and subnormal values, results are finite where those of exact products are, and no row changes
    another."""
    dense = cases.made(7, gain=0.5).astype("float32")
    fast, exact = twins(device, gradients.masked(dense, "relu", reads=reads).library, matmul)
    given = cases.hard_rows(7, "float32")
    for direction in ("forward", "inverse"):
        got, want = (getattr(twin, direction)(given) for twin in (fast, exact))
        ordinary = np.abs(given).max(axis=1) < 10
        for result, expected in zip(got, want, strict=True):
            assert np.array_equal(np.isfinite(result), np.isfinite(expected))
            assert np.abs(result - expected)[ordinary].max() < 64 * ROUNDING
        alone = [getattr(fast, direction)(row[None]) for row in given]
        for k, result in enumerate(got):
            cases.assert_same_bits(result, np.concatenate([values[k] for values in alone]))


def test_turns_are_exact(device):
    flow = hr.Flow([hr.transforms.Rotation.random(9, seed=1)])
    fast, exact = twins(device, flow)
    assert_all_same(fast.to_latent(cases.rows(40, 9, "float32")), exact.to_latent(cases.rows(40, 9, "float32")))


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_spoils_only_itself(bad, matmul, device):
    flow = cases.randomise(hr.MAF(5, transforms=2, hidden=(20,)), 0.2)
    fast, _ = twins(device, flow, matmul)
    x = cases.rows(40, 5, "float32")
    want = fast.log_prob(x)
    x[11, 2] = bad
    got = fast.log_prob(x)
    assert np.isnan(got[11])
    cases.assert_same_bits(np.delete(got, 11), np.delete(want, 11))


@pytest.mark.parametrize(
    ("dtype", "matmul", "message"),
    [
        ("float64", "3xtf32", "expected 'exact' in float64, got '3xtf32'"),
        ("float32", "fp8", "expected 'exact', 'tf32' or '3xtf32', got 'fp8'"),
    ],
)
def test_unsupported_settings_are_refused(dtype, matmul, message, emu):
    with pytest.raises(ValueError, match=f"matmul: {message}"):
        Twin(emu, hr.MAF(3, hidden=(5,), dtype=dtype), matmul=matmul)
