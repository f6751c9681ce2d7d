"""Values on which gradients must not depend: masked weights, padding, unseen coordinates, NaN in other rows."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import gradients
import headrace as hr
import reference
from pairs import pairwise

FEATURES = gradients.HOLDER_FEATURES
POISONS = [np.nan, np.inf, -np.inf]
every_call = pytest.mark.parametrize(("name", "verb"), gradients.CALLS)


# --- masks ----------------------------------------------------------------------------------------------------------


@every_call
def test_entries_that_stay_zero_have_no_gradient(name, verb, dtype):
    """An entry that is zero after an assignment of ones is padding or a masked weight, and has no gradient."""
    holder = gradients.HOLDERS[name](dtype)
    trial = copy.copy(holder)
    trial.parameters = np.ones_like(holder.parameters)
    for n in (3, 97):
        gradient = gradients.call(holder, verb, *gradients.holder_inputs(n, dtype))["parameters"]
        assert not gradient[trial.parameters == 0].any()
        assert gradient[trial.parameters != 0].any()


@pairwise(
    change=[cases.pin_zeros, cases.kill_units, None], tangled=[False, True], reads=cases.READS, dtype=cases.DTYPES
)
def test_masked_weights_and_dead_units_have_no_gradient(change, tangled, reads, dtype):
    dense = cases.made(features=8, hidden=(24, 20), context=2, change=change, tangled=tangled).astype(dtype)
    library = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=2, reads=reads, activation="tanh")
    given, context = cases.rows(33, 8, dtype), cases.rows(33, 2, dtype, "context")
    live = dense.masks[-1].any(axis=0)  # units of the last hidden layer that some output reads
    for verb in gradients.TRANSFORM_VERBS:
        gradient = gradients.call(library, verb, given, context)["parameters"]
        first, _, second, bias, last, _ = gradients.dense_gradient(library, gradient)
        for array, mask in zip((first, second, last), dense.masks, strict=True):
            assert not array[~mask].any()
        assert not second[~live].any()
        assert not bias[~live].any()
        assert last.any()


@pairwise(map=reference.MAPS, reads=cases.READS, formula=cases.FORMULAS, dtype=cases.DTYPES)
def test_nothing_leaks_through_masks(reads, formula, map, dtype):
    """The cotangent of one coordinate reaches the arguments of that coordinate; other gradients may have any value."""
    outputs = reference.MAPS[map].parameters
    dense = cases.made(features=6, hidden=(20, 20), outputs=outputs, bins=3, map=map).astype(dtype)
    library = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, reads=reads, formula=formula, map=map, bins=3
    )
    depends = reference.reads(dense.masks).reshape(6, -1, 6).any(axis=1)
    reached = np.linalg.matrix_power(np.eye(6) + depends, 6) > 0  # row i marks i and all inputs of i
    given = cases.rows(97, 6, dtype)
    for verb in gradients.TRANSFORM_VERBS:
        for i in range(6):
            grad_value = np.zeros_like(given)
            grad_value[:, i] = 1.0
            of_inputs, of_parameters = getattr(library, verb)(given, grad_value, None)
            assert of_inputs[:, i].all()
            assert not of_inputs[:, ~reached[i]].any()
            moved = given.copy()
            moved[:, ~reached[i]] += 1.0
            for got, want in zip(
                getattr(library, verb)(moved, grad_value, None), (of_inputs, of_parameters), strict=True
            ):
                assert_array_equal(got, want)
            last = gradients.dense_gradient(library, of_parameters)[-2].reshape(6, -1)
            assert not last[~reached[i]].any()


def test_a_coupling_leaks_nothing_between_its_active_coordinates(dtype):
    dense = cases.dense_network(2, (9, 8), 3).astype(dtype)
    library = hr.transforms.Coupling.from_dense(*dense.arrays, features=5, passive=[3, 0])
    given = cases.rows(97, 5, dtype)
    for verb in gradients.TRANSFORM_VERBS:
        for column, i in enumerate((1, 2, 4)):
            grad_value = np.zeros_like(given)
            grad_value[:, i] = 1.0
            of_inputs, of_parameters = getattr(library, verb)(given, grad_value, None)
            others = [j for j in (1, 2, 4) if j != i]
            assert not of_inputs[:, others].any()
            last = gradients.dense_gradient(library, of_parameters)[-2].reshape(3, -1)
            assert not np.delete(last, column, axis=0).any()
        grad_value = np.zeros_like(given)
        grad_value[:, 3] = 2.0  # this passive coordinate is copied, and no other depends on it
        of_inputs, of_parameters = getattr(library, verb)(given, grad_value, None)
        assert_array_equal(of_inputs, grad_value)
        assert not of_parameters.any()


# --- rows of NaN and infinity ---------------------------------------------------------------------------------------


@pairwise(name__verb=gradients.CALLS, poison=POISONS, where=["given", "context"], dtype=cases.DTYPES)
def test_a_poisoned_row_is_nan_and_leaves_all_other_rows_alone(name, verb, poison, where, dtype):
    holder = gradients.HOLDERS[name](dtype)
    for n, row in ((1, 0), (5, 2), (97, 0), (200, 99)):
        given, context = gradients.holder_inputs(n, dtype)
        want = gradients.call(holder, verb, given, context)
        (given if where == "given" else context)[row, 1] = poison
        got = gradients.call(holder, verb, given, context)
        others = np.arange(n) != row
        for what in ("inputs", "context"):
            cases.assert_same_bits(got[what][others], want[what][others])
            assert np.isnan(got[what][row]).any()
        trial = copy.copy(holder)
        trial.parameters = np.ones_like(holder.parameters)
        assert np.isnan(got["parameters"][trial.parameters != 0]).all()
        gradients.assert_same_gradients(
            gradients.call(holder, verb, *gradients.holder_inputs(n, dtype)), want
        )  # clean rows still have clean gradients


@every_call
def test_a_poisoned_cotangent_leaves_all_other_rows_alone(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    given, context = gradients.holder_inputs(97, dtype)
    weights = gradients.cotangents(verb, 97, FEATURES, dtype)
    want = getattr(holder, verb)(given, *weights, context)
    for weight in weights:
        weight[40] = np.nan
    got = getattr(holder, verb)(given, *weights, context)
    others = np.arange(97) != 40
    cases.assert_same_bits(got[0][others], want[0][others])
    assert np.isnan(got[0][40]).any()


def test_a_poisoned_row_makes_the_whole_mean_nan(dtype):
    x, context = gradients.holder_inputs(97, dtype)
    x[13, 2] = np.nan
    nll, gradient = gradients.mixed_flow(dtype).nll_and_grad(x, context)
    assert np.isnan(nll)
    assert np.isnan(gradient).any()
    log_prob, score = gradients.mixed_flow(dtype).log_prob_and_score(x, context)
    assert np.isnan(log_prob).nonzero()[0].tolist() == [13]
    assert np.isnan(score).any(axis=1).nonzero()[0].tolist() == [13]
