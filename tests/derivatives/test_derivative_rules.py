"""Rules of vector-Jacobian products: any requested gradients, equal bits, parameters of one call, and refusals."""

import copy
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import gradients
import headrace as hr
from pairs import pairwise

FEATURES = gradients.HOLDER_FEATURES
SUBSETS = [s for n in range(1, 4) for s in itertools.permutations(("inputs", "parameters", "context"), n)]
every_call = pytest.mark.parametrize(("name", "verb"), gradients.CALLS)


# --- requested products ---------------------------------------------------------------------------------------------


@every_call
def test_any_subset_in_any_order_has_the_same_bits(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    for n in (3, 97):
        given, context = gradients.holder_inputs(n, dtype)
        want = gradients.call(holder, verb, given, context)
        for wrt in SUBSETS:
            got = gradients.call(holder, verb, given, context, wrt=wrt)
            assert tuple(got) == wrt
            for what, gradient in got.items():
                cases.assert_same_bits(gradient, want[what])
        for what, gradient in gradients.call(holder, verb, given, context, wrt=["context", "inputs"]).items():
            cases.assert_same_bits(gradient, want[what])


@every_call
def test_inputs_and_parameters_are_the_default(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    given, context = gradients.holder_inputs(33, dtype)
    got = getattr(holder, verb)(given, *gradients.cotangents(verb, 33, FEATURES), context)
    want = gradients.call(holder, verb, given, context, wrt=("inputs", "parameters"))
    assert len(got) == 2
    for gradient, expected in zip(got, want.values(), strict=True):
        cases.assert_same_bits(gradient, expected)
    assert got[0].shape == given.shape
    assert got[1].shape == holder.parameters.shape


@every_call
def test_shapes_and_dtypes(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    for n in (0, 1, 50):
        got = gradients.call(holder, verb, *gradients.holder_inputs(n, dtype))
        assert [g.shape for g in got.values()] == [(n, FEATURES), holder.parameters.shape, (n, 2)]
        assert all(g.dtype == np.dtype(dtype) and g.flags.writeable and g.flags.c_contiguous for g in got.values())
        assert n or not got["parameters"].any()


@pytest.mark.parametrize(("name", "verb"), [call for call in gradients.CALLS if call[1] != "log_prob_vjp"])
def test_none_is_a_cotangent_of_zero(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    given, context = gradients.holder_inputs(33, dtype)
    full = gradients.cotangents(verb, 33, FEATURES, dtype)
    for present in itertools.product((False, True), repeat=len(full)):
        some = [g if here else None for g, here in zip(full, present, strict=True)]
        zero = [g if here else np.zeros_like(g) for g, here in zip(full, present, strict=True)]
        wrt = gradients.every(context)
        got = getattr(holder, verb)(given, *some, context, wrt=wrt)
        want = getattr(holder, verb)(given, *zero, context, wrt=wrt)
        for gradient, expected in zip(got, want, strict=True):
            assert_array_equal(gradient, expected)
        assert any(present) or not any(gradient.any() for gradient in got)


def test_cotangents_of_ones_and_of_parts_add_up():
    """A vector-Jacobian product is linear in the cotangents."""
    holder = gradients.mixed_flow("float64")
    given, context = gradients.holder_inputs(33, "float64")
    grad_x, grad_log_det = gradients.cotangents("to_data_vjp", 33, FEATURES)
    both = holder.to_data_vjp(given, 2.0 * grad_x, -3.0 * grad_log_det, context)
    value, log_det = (
        holder.to_data_vjp(given, grad_x, None, context),
        holder.to_data_vjp(given, None, grad_log_det, context),
    )
    for total, one, other in zip(both, value, log_det, strict=True):
        np.testing.assert_allclose(total, 2.0 * one - 3.0 * other, rtol=1e-9, atol=1e-9 * np.abs(total).max())


# --- bits -----------------------------------------------------------------------------------------------------------


@every_call
def test_the_same_bits_for_any_number_of_threads(name, verb, dtype, set_threads):
    holder = gradients.HOLDERS[name](dtype)
    for n in (97, 1000):
        results = []
        for threads in (1, 2, 3, 5):
            set_threads(threads)
            results.append(gradients.call(holder, verb, *gradients.holder_inputs(n, dtype)))
        for other in results[1:]:
            gradients.assert_same_gradients(other, results[0])


def test_nll_and_grad_has_the_same_bits_for_any_number_of_threads(dtype, set_threads):
    holder = gradients.mixed_flow(dtype)
    x, context = gradients.holder_inputs(1000, dtype)
    results = []
    for threads in (1, 2, 3, 5):
        set_threads(threads)
        results.append(holder.nll_and_grad(x, context, np.linspace(0.1, 2.0, 1000)))
    for nll, gradient in results[1:]:
        assert nll == results[0][0]
        cases.assert_same_bits(gradient, results[0][1])


@every_call
def test_a_rows_gradient_has_the_same_bits_beside_any_companions(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    given, context = gradients.holder_inputs(600, dtype)
    weights = gradients.cotangents(verb, 600, FEATURES, dtype)
    wrt = ("inputs", "context")
    want = getattr(holder, verb)(given, *weights, context, wrt=wrt)
    for n, start in itertools.product((8, 9, 97, 193), (0, 5, 300)):
        part = slice(start, start + n)
        got = getattr(holder, verb)(given[part], *(w[part] for w in weights), context[part], wrt=wrt)
        for gradient, expected in zip(got, want, strict=True):
            cases.assert_same_bits(gradient, expected[part])
    got = getattr(holder, verb)(given[5:9], *(w[5:9] for w in weights), context[5:9], wrt=wrt)
    for gradient, expected in zip(got, want, strict=True):  # few rows take a path that may round differently
        gradients.assert_near(gradient, expected[5:9].astype(float), cases.tolerance(dtype, 512))


STRIDES = {
    "columns first": np.asfortranarray,
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "a block of a larger array": lambda a: np.pad(a, [(2, 1)] * a.ndim)[(slice(2, -1),) * a.ndim],
    "not writable": lambda a: np.broadcast_to(a, a.shape),
}


@pairwise(strides=STRIDES, name__verb=gradients.CALLS, dtype=cases.DTYPES)
def test_any_strides_and_either_precision_of_cotangents(name, verb, strides, dtype):
    holder, change = gradients.HOLDERS[name](dtype), STRIDES[strides]
    for n in (3, 97):
        given, context = gradients.holder_inputs(n, dtype)
        weights = gradients.cotangents(verb, n, FEATURES, "float32")  # float32 values are exact in both precisions
        want = getattr(holder, verb)(given, *weights, context, wrt=gradients.every(context))
        for weight_dtype in cases.DTYPES:
            changed = [change(w.astype(weight_dtype)) for w in weights]
            got = getattr(holder, verb)(change(given), *changed, change(context), wrt=gradients.every(context))
            for gradient, expected in zip(got, want, strict=True):
                cases.assert_same_bits(gradient, expected)


@every_call
def test_float32_inputs_of_a_float64_flow_are_read_exactly(name, verb):
    holder = gradients.HOLDERS[name]("float64")
    given, context = gradients.holder_inputs(33, "float32")
    want = gradients.call(holder, verb, given.astype(float), context.astype(float), dtype="float32")
    gradients.assert_same_gradients(gradients.call(holder, verb, given, context, dtype="float32"), want)


@every_call
def test_arguments_are_not_changed(name, verb, dtype):
    holder = gradients.HOLDERS[name](dtype)
    arrays = [*gradients.holder_inputs(33, dtype), *gradients.cotangents(verb, 33, FEATURES, dtype)]
    kept, parameters = [a.copy() for a in arrays], holder.parameters
    for array in arrays:
        array.flags.writeable = False
    getattr(holder, verb)(arrays[0], *arrays[2:], arrays[1], wrt=("inputs", "parameters", "context"))
    for array, before in zip([*arrays, holder.parameters], [*kept, parameters], strict=True):
        cases.assert_same_bits(array, before)


# --- the functional form --------------------------------------------------------------------------------------------


def test_parameters_may_be_given_for_one_call(dtype):
    holder, other = gradients.mixed_flow(dtype), gradients.mixed_flow(dtype)
    vector = holder.parameters + (0.05 * cases.rng("other").standard_normal(holder.parameters.size)).astype(dtype)
    other.parameters = vector
    kept = holder.parameters
    for n in (3, 97):
        given, context = gradients.holder_inputs(n, dtype)
        for verb in ("log_prob", "to_data", "to_latent", "log_prob_and_score", "nll_and_grad"):
            got = getattr(holder, verb)(given, context, parameters=vector)
            want = getattr(other, verb)(given, context)
            pairs = zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]
            for result, expected in pairs:
                cases.assert_same_bits(np.asarray(result), np.asarray(expected))
        for verb in gradients.FLOW_VERBS:
            got = gradients.call(holder, verb, given, context, parameters=vector)
            gradients.assert_same_gradients(got, gradients.call(other, verb, given, context))
            assert np.abs(got["inputs"] - gradients.call(holder, verb, given, context)["inputs"]).max() > 1e-3
    cases.assert_same_bits(holder.parameters, kept)


def test_given_parameters_under_a_mask_or_in_padding_have_no_effect(dtype):
    holder = gradients.mixed_flow(dtype)
    trial = copy.copy(holder)
    trial.parameters = np.ones_like(holder.parameters)
    wild = np.where(trial.parameters == 0, 1e20, holder.parameters).astype(dtype)
    given, context = gradients.holder_inputs(97, dtype)
    cases.assert_same_bits(holder.log_prob(given, context, parameters=wild), holder.log_prob(given, context))
    for verb in gradients.FLOW_VERBS:
        got = gradients.call(holder, verb, given, context, parameters=wild)
        gradients.assert_same_gradients(got, gradients.call(holder, verb, given, context))


def test_bad_parameters_for_one_call_are_refused():
    holder = gradients.mixed_flow("float32")
    given, context = gradients.holder_inputs(9, "float32")
    size = holder.parameters.size
    for bad, words in [
        (np.zeros(size + 1, "f4"), [rf"\b{size}\b", rf"\b{size + 1}\b"]),
        (np.zeros((1, size), "f4"), [rf"\b{size}\b"]),
        (np.zeros(size, int), ["int64"]),
        ([0.0] * size, ["list"]),
    ]:
        for verb in ("log_prob", "to_data", "to_latent", "log_prob_and_score", "nll_and_grad"):
            with pytest.raises((TypeError, ValueError)) as error:
                getattr(holder, verb)(given, context, parameters=bad)
            cases.assert_says(error, "parameters", *words)


# --- refusals -------------------------------------------------------------------------------------------------------

ARGUMENTS = {"forward_vjp": "grad_x", "inverse_vjp": "grad_z", "to_data_vjp": "grad_x", "to_latent_vjp": "grad_z"}
BAD_WRT = {
    "nothing": ((), ["inputs", "parameters", "context"]),
    "an unknown name": (("inputs", "weights"), ["inputs", "parameters", "context", "weights"]),
    "a number": (3, []),
    "a name twice": (("inputs", "inputs"), ["inputs"]),
}


@every_call
def test_bad_cotangents_are_refused_by_name(name, verb):
    holder = gradients.HOLDERS[name]("float32")
    given, context = gradients.holder_inputs(4, "float32")
    names = (ARGUMENTS[verb], "grad_log_det") if verb in ARGUMENTS else ("grad_log_prob",)
    good = gradients.cotangents(verb, 4, FEATURES, "float32")
    for place, argument in enumerate(names):
        shape = str(good[place].shape).replace("(", r"\(").replace(")", r"\)")
        for bad, words in [
            (good[place].tolist(), ["list"]),
            (good[place].astype(int), ["float32", "int64"]),
            (good[place][:3], [shape, r"\(3,"]),
            (good[place][None], [shape, r"\(1, 4"]),
        ]:
            arguments = [bad if i == place else g for i, g in enumerate(good)]
            with pytest.raises((TypeError, ValueError)) as error:
                getattr(holder, verb)(given, *arguments, context)
            cases.assert_says(error, rf"\b{argument}\b", *words)


@every_call
@pytest.mark.parametrize("bad", BAD_WRT)
def test_bad_choices_of_gradients_are_refused(name, verb, bad):
    holder = gradients.HOLDERS[name]("float32")
    given, context = gradients.holder_inputs(4, "float32")
    wrt, words = BAD_WRT[bad]
    with pytest.raises((TypeError, ValueError)) as error:
        getattr(holder, verb)(given, *gradients.cotangents(verb, 4, FEATURES), context, wrt=wrt)
    cases.assert_says(error, "wrt", *words)


def test_the_gradient_by_a_missing_context_is_refused():
    holder = hr.MAF(FEATURES, transforms=1, hidden=(8,))
    x = cases.rows(4, FEATURES, "float32")
    with pytest.raises((TypeError, ValueError), match="context"):
        holder.log_prob_vjp(x, np.ones(4), wrt=("inputs", "context"))


BAD_WEIGHTS = {
    "too few": (np.ones(3), [r"\(4,\)|\b4\b", r"\(3,\)|\b3\b"]),
    "two axes": (np.ones((4, 1)), [r"\(4, 1\)"]),
    "complex numbers": (np.ones(4, complex), ["complex128"]),
    "a list of words": (["a"] * 4, ["real numbers", "<U1"]),
    "below zero": (np.array([1.0, -1.0, 1.0, 1.0]), ["-1"]),
    "NaN": (np.array([1.0, np.nan, 1.0, 1.0]), ["nan"]),
    "all zero": (np.zeros(4), ["0|zero|positive"]),
}


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
def test_bad_weights_are_refused(bad):
    weights, words = BAD_WEIGHTS[bad]
    with pytest.raises((TypeError, ValueError)) as error:
        gradients.mixed_flow("float32").nll_and_grad(*gradients.holder_inputs(4, "float32"), weights)
    cases.assert_says(error, "weights", *words)


@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
def test_bad_rows_and_contexts_are_refused(verb):
    holder = gradients.mixed_flow("float32")
    given, context = gradients.holder_inputs(4, "float32")
    weights = gradients.cotangents(verb, 4, FEATURES)
    argument = "z" if verb == "to_data_vjp" else "x"
    for bad in (given[:, :4], given.astype(complex), given[:, :4].tolist(), None):
        with pytest.raises((TypeError, ValueError), match=rf"\b{argument}\b"):
            getattr(holder, verb)(bad, *weights, context)
    for bad in (None, context[:, :1], context[:3], context.astype(complex)):
        with pytest.raises((TypeError, ValueError), match=r"\bcontext\b"):
            getattr(holder, verb)(given, *weights, bad)
