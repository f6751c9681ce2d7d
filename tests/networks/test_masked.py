"""Masked autoregressive transforms in both directions: MAF (eq. 37-38), IAF (eq. 39-41) and the other combinations."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import map_cases
import reference
from cores import every_core
from headrace._core.settings import Settings
from headrace._core.structure import MaskedNetwork, Staircase
from pairs import pairwise
from program_cases import SIZES

SIDES = [(reads, formula) for reads in cases.READS for formula in cases.FORMULAS]
every_side = pytest.mark.parametrize(("reads", "formula"), SIDES)
every_network = pytest.mark.parametrize("name", cases.NETWORKS)


def pair(dense, activation="relu", **settings):
    """Return one network twice: in the library and in the reference."""
    settings = {"outputs": dense.outputs, "layout": dense.layout} | settings
    library = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, activation=activation, context=dense.context, **settings
    )
    return library, reference.MaskedAutoregressive(dense.network(activation), **settings)


def inputs(dense, n, dtype):
    context = cases.rows(n, dense.context, dtype, "context") if dense.context else None
    return cases.rows(n, dense.features, dtype), context


# --- values against the reference -----------------------------------------------------------------------------------


@every_core(
    activation=reference.ACTIVATIONS,
    scale=reference.LOG_SCALES,
    reads__formula=SIDES,
    sizes={"cpu": [cases.BATCH_SIZES], "device": [(n,) for n in SIZES]},
    dtype=cases.DTYPES,
)
def test_both_directions_match_the_reference_at_every_batch_size(core, reads, formula, scale, activation, sizes, dtype):
    dense = cases.made(context=2, key=(scale, activation)).astype(dtype)
    library, judge = pair(dense, activation, reads=reads, formula=formula, scale=scale)
    given, context = inputs(dense, max(sizes), dtype)
    for direction in ("forward", "inverse"):
        value, log_det = getattr(judge, direction)(given, context)
        for n in sizes:
            got = getattr(library, direction)(given[:n], context[:n])
            cases.assert_matches(got, (value[:n], log_det[:n]), given[:n], dtype)


@every_core(name=cases.NETWORKS, reads__formula=SIDES, dtype=cases.DTYPES)
def test_every_kind_of_network_matches_the_reference(core, name, reads, formula, dtype):
    dense = cases.made(**cases.NETWORKS[name]).astype(dtype)
    library, judge = pair(dense, reads=reads, formula=formula)
    depth = 16 if dense.features == 64 and core.name == "cpu" else 4
    for n in core.choose((1, 9, 101), (37,)):
        cases.check_directions(library, judge, *inputs(dense, n, dtype), dtype, depth=depth)


@pairwise(
    name=["three layers", "zeros inside the staircase", "tangled with context", "one feature"],
    layout=["interleaved", "blocked"],
    outputs=[("shift", "scale"), ("scale", "shift")],
    reads=cases.READS,
    dtype=cases.DTYPES,
)
def test_layouts_and_output_orders_match_the_reference(layout, outputs, name, reads, dtype):
    dense = cases.made(**cases.NETWORKS[name], layout=layout, outputs=outputs).astype(dtype)
    library, judge = pair(dense, "tanh", reads=reads)
    cases.check_directions(library, judge, *inputs(dense, 50, dtype), dtype)


@every_core(
    map=reference.MAPS,
    layout=["interleaved", "blocked"],
    reads__formula=SIDES,
    dtype=cases.DTYPES,
)
def test_every_map_matches_the_reference(core, map, layout, reads, formula, dtype):
    dense = cases.made(context=1, outputs=reference.MAPS[map].parameters, layout=layout, map=map).astype(dtype)
    library, judge = pair(dense, "elu", map=map, reads=reads, formula=formula)
    given, context = inputs(dense, core.choose(101, 37), dtype)
    cases.check_directions(library, judge, given, context, dtype, depth=map_cases.depth_of(map))


def test_the_additive_map_has_exactly_no_log_det(dtype):
    dense = cases.made(outputs=("shift",)).astype(dtype)
    library, _ = pair(dense, map="additive")
    for direction in (library.forward, library.inverse):
        assert not direction(cases.rows(60, 7, dtype))[1].any()


@pytest.mark.parametrize("slope", [0.3, 1e-2, 1e-6])
@pytest.mark.parametrize("scale", reference.LOG_SCALES)
def test_the_slope_is_the_references(scale, slope, dtype):
    dense = cases.made(gain=2.0).astype(dtype)
    library, judge = pair(dense, scale=scale, slope=slope)
    given, _ = inputs(dense, 33, dtype)
    cases.check_directions(library, judge, given, None, dtype, depth=8)


def test_hard_inputs_match_the_reference(core, dtype):
    """Rows may be zero, huge, tiny or subnormal; each row is judged at its scale."""
    for activation in ("relu", "tanh"):
        for reads, formula in SIDES:
            dense = cases.made(hidden=(17, 13), key=(activation,)).astype(dtype)
            library, judge = pair(dense, activation, reads=reads, formula=formula)
            given = cases.hard_rows(7, dtype)
            cases.check_directions(library, judge, given, None, dtype, depth=16)


def test_context_may_be_one_row_for_all(core, dtype):
    dense = cases.made(context=3).astype(dtype)
    library, judge = pair(dense)
    given, context = inputs(dense, 50, dtype)
    for one in (context[0], context[:1]):
        cases.check_directions(library, judge, given, one, dtype)
        for direction in (library.forward, library.inverse):
            for got, want in zip(direction(given, one), direction(given, np.tile(context[0], (50, 1))), strict=True):
                cases.assert_same_bits(got, want)


# --- masks ----------------------------------------------------------------------------------------------------------


@pairwise(
    name=cases.NETWORKS,
    layout=["interleaved", "blocked"],
    outputs=[("shift", "scale"), ("scale", "shift")],
    dtype=cases.DTYPES,
)
def test_to_dense_returns_the_arrays_of_from_dense(name, layout, outputs, dtype):
    dense = cases.made(**cases.NETWORKS[name], layout=layout, outputs=outputs).astype(dtype)
    library, _ = pair(dense)
    weights, biases, masks = library.to_dense()
    assert len(weights) == len(biases) == len(masks) == len(dense.weights)
    for got, want, mask in zip(weights, dense.weights, dense.masks, strict=True):
        assert got.dtype == np.dtype(dtype)
        assert_array_equal(got, np.where(mask, want, 0))
    for got, want in zip(biases, dense.biases, strict=True):
        assert got.dtype == np.dtype(dtype)
        assert_array_equal(got, want)
    for got, want in zip(masks, dense.masks, strict=True):
        assert_array_equal(np.asarray(got, bool), want)


def test_weights_under_a_mask_have_no_effect(dtype):
    dense = cases.made(change=cases.pin_zeros).astype(dtype)
    wild = [np.where(mask, w, np.dtype(dtype).type(1e20)) for w, mask in zip(dense.weights, dense.masks, strict=True)]
    given, _ = inputs(dense, 20, dtype)
    library, _ = pair(dense)
    other = hr.transforms.MaskedAutoregressive.from_dense(wild, dense.biases, dense.masks)
    for direction in ("forward", "inverse"):
        for got, want in zip(getattr(other, direction)(given), getattr(library, direction)(given), strict=True):
            cases.assert_same_bits(got, want)


def test_from_dense_keeps_no_reference_to_the_callers_arrays(dtype):
    dense = cases.made().astype(dtype)
    library, judge = pair(dense)
    given, _ = inputs(dense, 20, dtype)
    want = judge.forward(given)
    for array in (*dense.weights, *dense.biases):
        array[:] = 0
    cases.assert_matches(library.forward(given), want, given, dtype)


def add_path(masks, unit, source, row):
    """Make ``unit`` of each hidden layer a part of a separate path, from coordinate ``source`` to output ``row``."""
    for mask in masks[:-1]:
        mask[unit] = False
    for mask in masks[1:]:
        mask[:, unit] = False
    masks[0][unit, source] = masks[1][unit, unit] = masks[2][row, unit] = True


@pytest.mark.parametrize(("features", "cycle"), [(2, (1, 0)), (7, (5, 2)), (9, (3, 8, 6))])
def test_a_cycle_is_refused_naming_two_of_its_coordinates(features, cycle):
    order = [*cycle, *(i for i in range(features) if i not in cycle)]
    generator = cases.rng("cycle", features)
    masks = cases.autoregressive_masks(cases.levels_of(order), (12, 10), 0, generator)
    for unit, (source, target) in enumerate(zip(cycle, [*cycle[1:], cycle[0]], strict=True)):
        add_path(masks, unit, source, row=2 * target)
    dense = cases.fill(masks, generator)
    with pytest.raises(ValueError, match="mask") as error:
        hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays)
    named = {int(number) for number in re.findall(r"\b\d+\b", str(error.value))}
    assert len(named & set(cycle)) >= 2


@pytest.mark.parametrize("features", [1, 4])
def test_a_coordinate_that_reads_itself_is_refused(features):
    dense = cases.made(features=features, hidden=(9, 8))
    add_path(dense.masks, 3, features - 1, row=2 * features - 1)  # only its own scale reads the coordinate
    with pytest.raises(ValueError, match=rf"\b{features - 1}\b"):
        hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays)


# --- the ordinary constructor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "hidden", "order", "context"),
    [
        (7, (40, 40), None, 0),
        (7, (40, 40), (3, 1, 6, 0, 2, 5, 4), 0),
        (6, (32,), (5, 4, 3, 2, 1, 0), 2),
        (5, (), None, 1),
        (12, (5, 4), None, 0),
        (1, (8, 8), None, 2),
        (1, (8,), None, 0),
    ],
)
@every_side
def test_constructed_transforms_match_the_reference(features, hidden, order, context, reads, formula, dtype):
    settings = {"reads": reads, "formula": formula, "scale": "softplus", "slope": 1e-2}
    library = hr.transforms.MaskedAutoregressive(
        features, hidden, context=context, order=order, activation="silu", seed=3, dtype=dtype, **settings
    )
    assert (library.features, library.context, np.dtype(library.dtype)) == (features, context, np.dtype(dtype))
    cases.randomise(library)
    judge = cases.mirror_masked(library, "silu", **settings)
    given = cases.rows(60, features, dtype)
    row_context = cases.rows(60, context, dtype, "context") if context else None
    cases.check_directions(library, judge, given, row_context, dtype)


@pytest.mark.parametrize("order", [None, (3, 1, 6, 0, 2, 5, 4), (6, 5, 4, 3, 2, 1, 0)])
@pytest.mark.parametrize("hidden", [(), (40,), (40, 40, 40)])
def test_each_coordinate_depends_on_all_before_it_in_the_order_and_on_the_context(order, hidden):
    library = hr.transforms.MaskedAutoregressive(7, hidden, order=order, context=2)
    depends = reference.reads(library.to_dense()[2]).reshape(7, 2, 9).all(axis=1)
    place = np.argsort(range(7) if order is None else order)
    assert_array_equal(depends[:, :7], place[None, :] < place[:, None])
    assert depends[:, 7:].all()


def test_hidden_layers_narrower_than_the_features_lose_no_order():
    library = hr.transforms.MaskedAutoregressive(12, (3, 2), order=tuple(range(11, -1, -1)))
    depends = reference.reads(library.to_dense()[2]).reshape(12, 2, 12).any(axis=1)
    assert depends.any()
    assert not np.tril(depends).any()  # in this order coordinate 11 comes first


@every_side
def test_fresh_transforms_are_near_the_identity(reads, formula):
    library = hr.transforms.MaskedAutoregressive(8, (64, 64), reads=reads, formula=formula, context=2)
    z, context = cases.rows(100, 8, "float32"), cases.rows(100, 2, "float32", "context")
    for direction in (library.forward, library.inverse):
        value, log_det = direction(z, context)
        assert np.abs(value - z).max() < 0.3
        assert np.abs(log_det).max() < 0.3


def test_fresh_hidden_units_bend_at_different_places():
    """Biases are uniform within one over the root of a unit's number of inputs: the scaled deviation is 1 / sqrt(3).

    The deviation of 512 biases has a standard error of 2 %, and their mean one of 0.026.
    """
    transform = hr.transforms.MaskedAutoregressive(8, (512, 512), map="additive", context=2, dtype="float64", seed=3)
    _, biases, masks = transform.to_dense()
    for bias, mask in zip(biases[:-1], masks[:-1], strict=True):
        share = bias * np.sqrt(mask.sum(axis=1))
        assert np.abs(share).max() <= 1.0
        assert abs(share.std() * np.sqrt(3.0) - 1.0) < 0.1
        assert abs(share.mean()) < 0.1
    assert_array_equal(biases[-1], 0.0)  # a fresh map is the identity


def test_seeds_choose_the_weights():
    def weights(seed):
        return hr.transforms.MaskedAutoregressive(5, (16, 16), seed=seed).parameters

    assert_array_equal(weights(1), weights(1))
    assert np.abs(weights(1) - weights(2)).max() > 1e-3


# --- laws -----------------------------------------------------------------------------------------------------------


@every_network
@every_side
def test_log_det_is_that_of_the_full_jacobian(name, reads, formula):
    dense = cases.made(**cases.NETWORKS[name])
    library, _ = pair(dense, "tanh", reads=reads, formula=formula)
    given, context = inputs(dense, 3, "float64")
    for direction in (library.forward, library.inverse):
        for row in range(3):
            here = None if context is None else context[row]
            want = reference.log_det_by_differences(lambda p, c=here, f=direction: f(p, c)[0], given[row : row + 1])
            got = direction(given[row : row + 1], here)[1]
            assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pairwise(name=cases.NETWORKS, reads__formula=SIDES, dtype=cases.DTYPES)
def test_each_direction_undoes_the_other(name, reads, formula, dtype):
    dense = cases.made(**cases.NETWORKS[name]).astype(dtype)
    library, _ = pair(dense, "gelu", reads=reads, formula=formula)
    given, context = inputs(dense, 101, dtype)
    for there, back in [(library.forward, library.inverse), (library.inverse, library.forward)]:
        value, log_det = there(given, context)
        returned, returned_log_det = back(value, context)
        # Rounding of the intermediate value is multiplied by the stretch of the transform.
        stretch = np.maximum(1.0, np.abs(value).max(axis=1) / np.abs(given).max(axis=1)) * 10.0
        cases.assert_close(returned, given, magnitude=stretch, depth=16)
        cases.assert_close(returned_log_det, -log_det, magnitude=stretch, depth=16)


@pytest.mark.parametrize("scale", reference.LOG_SCALES)
def test_iaf_is_the_inverse_of_a_maf_with_the_same_network(scale, dtype):
    """In ``x = mu(z) + sigma(z) z`` an exchange of the names of x and z turns an IAF into the inverse of a MAF."""
    dense = cases.made(context=2).astype(dtype)
    iaf, _ = pair(dense, scale=scale, reads="latent", formula="to_data")
    maf, judge = pair(dense, scale=scale, reads="data", formula="to_latent")
    given, context = inputs(dense, 60, dtype)
    swapped = hr.transforms.Inverse(maf)
    cases.assert_matches(iaf.forward(given, context), judge.inverse(given, context), given, dtype)
    cases.assert_matches(swapped.forward(given, context), judge.inverse(given, context), given, dtype)
    cases.assert_matches(iaf.inverse(given, context), judge.forward(given, context), given, dtype)
    cases.assert_matches(swapped.inverse(given, context), judge.forward(given, context), given, dtype)


@pytest.mark.parametrize("scale", ["soft_clamp", "exp"])
@pytest.mark.parametrize("reads", cases.READS)
def test_mu_and_sigma_in_one_formula_are_minus_mu_over_sigma_and_one_over_sigma_in_the_other(scale, reads, dtype):
    """``x = mu + sigma z`` and ``z = -mu/sigma + (1/sigma) x`` are one transform (eq. 39-41).

    One network has both formulas where the scale of a coordinate is constant, or where its shift is zero.
    """
    constant_scale, no_shift = cases.made(key=("constant",)), cases.made(key=("no shift",))
    constant_scale.weights[-1][1::2] = 0.0
    no_shift.weights[-1][0::2] = no_shift.biases[-1][0::2] = 0.0
    for dense in (constant_scale, no_shift):
        sigma = np.exp(reference.LOG_SCALES[scale](dense.biases[-1][1::2], 1e-3))
        weights, biases = [w.copy() for w in dense.weights], [b.copy() for b in dense.biases]
        weights[-1][0::2] /= -sigma[:, None]
        biases[-1][0::2] /= -sigma
        weights[-1][1::2] *= -1.0  # both scales are inverted by the sign of the raw output
        biases[-1][1::2] *= -1.0
        _, judge = pair(dense, scale=scale, reads=reads, formula="to_data")
        other = hr.transforms.MaskedAutoregressive.from_dense(
            [w.astype(dtype) for w in weights],
            [b.astype(dtype) for b in biases],
            dense.masks,
            scale=scale,
            reads=reads,
            formula="to_latent",
        )
        given, _ = inputs(dense, 60, dtype)
        # The reference has the weights in float64, so that errors include the rounding of the weights to the dtype.
        cases.check_directions(other, judge, given, None, dtype, depth=16)


@every_side
def test_later_coordinates_change_no_bit_of_earlier_ones(reads, formula, dtype):
    dense = cases.made(features=9, hidden=(30, 30)).astype(dtype)
    library, _ = pair(dense, reads=reads, formula=formula)
    depends = reference.reads(dense.masks).reshape(9, 2, 9).any(axis=1)
    given, _ = inputs(dense, 60, dtype)
    reached = np.linalg.matrix_power(np.eye(9) + depends, 9) > 0  # row i marks i and all coordinates that i depends on
    for direction in (library.forward, library.inverse):
        want = direction(given)[0]
        for column in range(9):
            moved = given.copy()
            moved[:, column] += 1
            got = direction(moved)[0]
            cases.assert_same_bits(got[:, ~reached[:, column]], want[:, ~reached[:, column]])
            assert (got[:, column] != want[:, column]).all()


# --- rows without a bias ----------------------------------------------------------------------------------------------


def options_of(features, **more):
    settings = Settings(features=features, scale="exp")
    return settings.options(range(features), range(features)) | more


@pytest.mark.parametrize("as_masks", [False, True])
def test_biases_that_are_no_weights_are_zero(as_masks, dtype):
    """Biases of rows 1 and 4 are zero for any packed values; other weights, and zeros of masks, are unchanged."""
    masks = cases.autoregressive_masks([1, 0, 2], (), 0, cases.rng("unbiased"))
    masks[0][4] &= np.array([True, False, True])
    structure = masks if as_masks else Staircase([2, 1, 3], [])
    network = MaskedNetwork(options_of(3, unbiased=[1, 4]), structure)
    weight, bias = np.ones((6, 3), dtype), np.arange(1, 7).astype(dtype)
    (packed_weight,), (packed_bias,) = network.unpack(network.pack([weight], [bias]))
    assert packed_bias.tolist() == [1.0, 0.0, 3.0, 4.0, 0.0, 6.0]
    assert np.array_equal(packed_weight, network.masks()[0].astype(dtype))
    if as_masks:
        assert np.array_equal(network.masks()[0], masks[0])


@pytest.mark.parametrize("row", [-1, 6])
def test_rows_without_a_bias_must_exist(row):
    with pytest.raises(ValueError, match=r"^unbiased: expected rows of the last layer"):
        MaskedNetwork(options_of(3, unbiased=[row]), Staircase([1, 2, 3], []))
