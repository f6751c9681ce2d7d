"""In couplings (eq. 35-36) the passive coordinates do not change, and determine the parameters of the others."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import map_cases
import reference
from cores import every_core
from pairs import pairwise

# Cases of (features, passive, context), with uneven sizes, orders that do not ascend, and sizes near a vector's.
SHAPES = [
    (2, (0,), 0),
    (3, (2, 0), 0),
    (5, (1, 3, 4), 2),
    (7, (4, 1), 3),
    (9, (0, 1, 2, 3), 0),
    (12, (11, 9, 7, 5, 3, 1), 0),
    (17, (0,), 1),
    (17, tuple(range(1, 17)), 1),
    (64, tuple(range(0, 64, 2)), 0),
]
OF_DEVICES = [(2, (0,), 0), (5, (1, 3, 4), 2), (17, (0,), 1)]
every_shape = pytest.mark.parametrize(("features", "passive", "context"), SHAPES)
every_formula = pytest.mark.parametrize("formula", cases.FORMULAS)


def network(features, passive, context=0, hidden=(20, 15), **keywords):
    return cases.dense_network(len(passive), hidden, features - len(passive), context, **keywords)


def pair(dense, passive, activation="relu", **settings):
    settings = {"outputs": dense.outputs, "layout": dense.layout} | settings
    library = hr.transforms.Coupling.from_dense(
        *dense.arrays,
        features=dense.features,
        passive=list(passive),
        context=dense.context,
        activation=activation,
        **settings,
    )
    return library, reference.Coupling(dense.network(activation), dense.features, passive, **settings)


@pairwise(activation=reference.ACTIVATIONS, scale=reference.LOG_SCALES, formula=cases.FORMULAS, dtype=cases.DTYPES)
def test_both_directions_match_the_reference_at_every_batch_size(formula, scale, activation, dtype):
    dense = network(7, (4, 1, 6), 2, key=(scale, activation)).astype(dtype)
    library, judge = pair(dense, (4, 1, 6), activation, formula=formula, scale=scale)
    rows = max(cases.BATCH_SIZES)
    given, context = cases.rows(rows, 7, dtype), cases.rows(rows, 2, dtype, "context")
    for direction in ("forward", "inverse"):
        value, log_det = getattr(judge, direction)(given, context)
        for n in cases.BATCH_SIZES:
            got = getattr(library, direction)(given[:n], context[:n])
            cases.assert_matches(got, (value[:n], log_det[:n]), given[:n], dtype)


@every_core(
    features__passive__context={"cpu": SHAPES, "device": OF_DEVICES},
    hidden={"cpu": [(), (20,), (33, 9, 18)], "device": [(20, 15)]},
    formula={"cpu": ["to_data"], "device": cases.FORMULAS},
    dtype=cases.DTYPES,
)
def test_every_shape_matches_the_reference(core, features, passive, context, hidden, formula, dtype):
    dense = network(features, passive, context, hidden).astype(dtype)
    library, judge = pair(dense, passive, formula=formula)
    for n in core.choose((1, 9, 101), (37,)):
        row_context = cases.rows(n, context, dtype, "context") if context else None
        cases.check_directions(library, judge, cases.rows(n, features, dtype), row_context, dtype, depth=6)


@pairwise(
    map=reference.MAPS,
    layout=["interleaved", "blocked"],
    reverse=[False, True],
    formula=cases.FORMULAS,
    dtype=cases.DTYPES,
    together=("map", "formula", "dtype"),
)
def test_maps_layouts_and_output_orders_match_the_reference(map, layout, reverse, formula, dtype):
    outputs = reference.MAPS[map].parameters[:: -1 if reverse else 1]
    dense = network(7, (6, 2), outputs=outputs, layout=layout, map=map).astype(dtype)
    library, judge = pair(dense, (6, 2), "tanh", map=map, formula=formula)
    cases.check_directions(library, judge, cases.rows(60, 7, dtype), None, dtype, depth=map_cases.depth_of(map))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@every_formula
def test_separate_networks_for_shift_and_scale_are_one_block_diagonal_network(formula, activation, dtype):
    """Networks of the functions ``mu`` and ``sigma`` (eq. 35) are stacked, with masks that keep them apart."""
    features, passive = 8, (0, 1, 2)
    shift = network(features, passive, hidden=(11, 6), outputs=("shift",), key=("mu",)).astype(dtype)
    scale = network(features, passive, hidden=(5, 9), outputs=("scale",), key=("sigma",)).astype(dtype)
    weights, masks = [np.vstack([shift.weights[0], scale.weights[0]])], [np.ones((16, 3), bool)]
    for mu, sigma in zip(shift.weights[1:], scale.weights[1:], strict=True):
        weight = np.full((len(mu) + len(sigma), mu.shape[1] + sigma.shape[1]), 7.0, dtype)  # masked values are ignored
        mask = np.zeros(weight.shape, bool)
        weight[: len(mu), : mu.shape[1]], mask[: len(mu), : mu.shape[1]] = mu, True
        weight[len(mu) :, mu.shape[1] :], mask[len(mu) :, mu.shape[1] :] = sigma, True
        weights.append(weight)
        masks.append(mask)
    biases = [np.concatenate(both) for both in zip(shift.biases, scale.biases, strict=True)]

    library = hr.transforms.Coupling.from_dense(
        weights,
        biases,
        masks,
        features=features,
        passive=list(passive),
        activation=activation,
        layout="blocked",
        formula=formula,
    )

    given = cases.rows(100, features, dtype)
    mu, raw = shift.network(activation)(given[:, :3]), scale.network(activation)(given[:, :3])
    log_sigma = reference.LOG_SCALES["soft_clamp"](raw, 1e-3)
    up = np.hstack([given[:, :3], mu + np.exp(log_sigma) * given[:, 3:]])
    down = np.hstack([given[:, :3], (given[:, 3:] - mu) * np.exp(-log_sigma)])
    log_det = log_sigma.sum(axis=1)
    there, back = (library.forward, library.inverse) if formula == "to_data" else (library.inverse, library.forward)
    cases.assert_matches(there(given), (up, log_det), given, dtype)
    cases.assert_matches(back(given), (down, -log_det), given, dtype)


@every_core(
    features__passive__context={"cpu": SHAPES, "device": OF_DEVICES},
    formula=cases.FORMULAS,
    dtype=cases.DTYPES,
)
def test_passive_coordinates_pass_through_bit_for_bit(core, features, passive, context, formula, dtype):
    dense = network(features, passive, context).astype(dtype)
    library, _ = pair(dense, passive, formula=formula)
    passive = list(passive)
    for n in core.choose((3, 101), (37,)):
        given = cases.rows(n, features, dtype)
        special = np.array([-0.0, 0.0, np.finfo(dtype).smallest_subnormal, -1e-30, 1e20, np.finfo(dtype).tiny], dtype)
        given[:, passive] = np.resize(special, (n, len(passive)))
        assert np.signbit(given[given == 0]).any()
        row_context = cases.rows(n, context, dtype, "context") if context else None
        for direction in (library.forward, library.inverse):
            cases.assert_same_bits(direction(given, row_context)[0][:, passive], given[:, passive])


def test_hard_inputs_match_the_reference(dtype):
    for activation in ("relu", "tanh"):
        dense = network(7, (0, 5, 3)).astype(dtype)
        library, judge = pair(dense, (0, 5, 3), activation)
        cases.check_directions(library, judge, cases.hard_rows(7, dtype), None, dtype, depth=16)


def test_no_masks_means_all_ones(dtype):
    dense = network(7, (0, 1, 2)).astype(dtype)
    library, _ = pair(dense, (0, 1, 2))
    other = hr.transforms.Coupling.from_dense(dense.weights, dense.biases, features=7, passive=[0, 1, 2])
    given = cases.rows(60, 7, dtype)
    for got, want in zip(other.forward(given), library.forward(given), strict=True):
        cases.assert_same_bits(got, want)
    assert all(np.asarray(mask).all() for mask in other.to_dense()[2])


def test_from_dense_keeps_no_reference_to_the_callers_arrays(dtype):
    dense = network(7, (4, 1)).astype(dtype)
    library, judge = pair(dense, (4, 1))
    given = cases.rows(20, 7, dtype)
    want = judge.forward(given)
    for array in (*dense.weights, *dense.biases):
        array[:] = 0
    cases.assert_matches(library.forward(given), want, given, dtype)


@pytest.mark.parametrize("change", [cases.pin_zeros, cases.kill_units])
def test_masks_with_zeros_and_dead_units_match_the_reference(change, dtype):
    dense = network(8, (7, 0, 3), 2, change=change).astype(dtype)
    library, judge = pair(dense, (7, 0, 3), "elu")
    given, context = cases.rows(60, 8, dtype), cases.rows(60, 2, dtype, "context")
    cases.check_directions(library, judge, given, context, dtype)


@pairwise(
    features__passive__context=SHAPES,
    layout=["interleaved", "blocked"],
    outputs=[("shift", "scale"), ("scale", "shift")],
    dtype=cases.DTYPES,
)
def test_to_dense_returns_the_arguments_of_from_dense(features, passive, context, layout, outputs, dtype):
    dense = network(features, passive, context, change=cases.pin_zeros, layout=layout, outputs=outputs).astype(dtype)
    library, _ = pair(dense, passive)
    weights, biases, masks = library.to_dense()
    for got, want, mask in zip(weights, dense.weights, dense.masks, strict=True):
        assert got.dtype == np.dtype(dtype)
        assert_array_equal(got, np.where(mask, want, 0))
    for got, want in zip(biases, dense.biases, strict=True):
        assert_array_equal(got, want)
    for got, want in zip(masks, dense.masks, strict=True):
        assert_array_equal(np.asarray(got, bool), want)


@pairwise(features__passive__context=SHAPES, formula=cases.FORMULAS, dtype=cases.DTYPES)
def test_constructed_couplings_match_the_reference(features, passive, context, formula, dtype):
    settings = {"formula": formula, "scale": "sigmoid", "slope": 1e-2}
    library = hr.transforms.Coupling(
        features,
        passive=list(passive),
        hidden=(24, 24),
        context=context,
        activation="softplus",
        seed=5,
        dtype=dtype,
        **settings,
    )
    assert (library.features, library.context, np.dtype(library.dtype)) == (features, context, np.dtype(dtype))
    cases.randomise(library)
    judge = cases.mirror_coupling(library, passive, "softplus", **settings)
    row_context = cases.rows(60, context, dtype, "context") if context else None
    cases.check_directions(library, judge, cases.rows(60, features, dtype), row_context, dtype, depth=8)


def test_no_passive_coordinate_leaves_a_conditioner_of_context_alone(dtype):
    dense = network(3, (), 2).astype(dtype)
    library, judge = pair(dense, ())
    given, context = cases.rows(60, 3, dtype), cases.rows(60, 2, dtype, "context")
    cases.check_directions(library, judge, given, context, dtype)


def test_context_may_be_one_row_for_all(dtype):
    dense = network(5, (1, 2), 3).astype(dtype)
    library, judge = pair(dense, (1, 2))
    given, context = cases.rows(50, 5, dtype), cases.rows(1, 3, dtype, "context")
    cases.check_directions(library, judge, given, context, dtype)
    cases.check_directions(library, judge, given, context[0], dtype)


def test_fresh_couplings_are_near_the_identity():
    library = hr.transforms.Coupling(9, passive=[0, 2, 4], context=1)
    z, context = cases.rows(100, 9, "float32"), cases.rows(100, 1, "float32", "context")
    for direction in (library.forward, library.inverse):
        value, log_det = direction(z, context)
        assert np.abs(value - z).max() < 0.3
        assert np.abs(log_det).max() < 0.3


@pytest.mark.parametrize("map", reference.MAPS)
@every_formula
def test_log_det_is_that_of_the_full_jacobian(map, formula):
    dense = network(6, (5, 1), 2, outputs=reference.MAPS[map].parameters, map=map)
    library, _ = pair(dense, (5, 1), "tanh", map=map, formula=formula)
    given, context = cases.rows(3, 6, "float64"), cases.rows(1, 2, "float64", "context")
    for direction in (library.forward, library.inverse):
        want = reference.log_det_by_differences(lambda p, f=direction: f(p, context)[0], given)
        assert_allclose(direction(given, context)[1], want, rtol=1e-6, atol=1e-7)


@every_shape
def test_each_direction_undoes_the_other(features, passive, context, dtype):
    dense = network(features, passive, context).astype(dtype)
    library, _ = pair(dense, passive, "silu")
    given = cases.rows(101, features, dtype)
    row_context = cases.rows(101, context, dtype, "context") if context else None
    for there, back in [(library.forward, library.inverse), (library.inverse, library.forward)]:
        value, log_det = there(given, row_context)
        returned, returned_log_det = back(value, row_context)
        stretch = np.maximum(1.0, np.abs(value).max(axis=1) / np.abs(given).max(axis=1)) * 10.0
        cases.assert_close(returned, given, magnitude=stretch)
        # Passive coordinates return bit for bit, so that both directions have equal parameters of the map.
        cases.assert_close(returned_log_det, -log_det, magnitude=np.sqrt(features))
