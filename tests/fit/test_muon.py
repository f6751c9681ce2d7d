"""Steps of Muon, by blocks of masks or whole matrices, against NumPy in float64; other parameters follow Adam."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from adam_cases import adamw, flow_of, numbers_that_count
from fitting import QUIET, gaussian, small
from reference import muon as reference

STEPS, RATE, NORM = 4, 0.01, 1.2


def nsf(features, hidden, dtype, **more):
    return hr.NSF(features, transforms=1, hidden=hidden, dtype=dtype, **more)


def linear(dtype):
    masked = hr.transforms.MaskedAutoregressive(4, hidden=(12,), dtype=dtype)
    return hr.Flow(
        [
            hr.transforms.Linear(4, dtype=dtype),
            masked,
            hr.transforms.Coupling(4, hidden=(), passive=[0, 1], dtype=dtype),
        ]
    )


def with_zeros(dtype):
    """A flow whose masks have zeros inside of the staircase."""
    generator = cases.rng("zeros in masks")
    first, last = generator.random((12, 4)) < 0.7, generator.random((8, 12)) < 0.7
    first[:4, 1:] = first[4:8, 2:] = first[8:, 3:] = False
    last[:2] = last[2:4, 4:] = last[4:6, 8:] = False
    masks = [first, last]
    ones, zeros = [mask.astype(dtype) for mask in masks], [np.zeros(len(mask), dtype) for mask in masks]
    return hr.Flow([hr.transforms.MaskedAutoregressive.from_dense(ones, zeros, masks, map="affine")])


FLOWS = {
    "a context and a base": flow_of,
    "8 and 23 rows": lambda dtype: nsf(9, (64, 64), dtype),
    "32 and 23 rows": lambda dtype: nsf(3, (64, 64), dtype),
    "1 and 2 rows": lambda dtype: hr.MAF(17, transforms=2, hidden=(24, 24), dtype=dtype),
    "residual blocks": lambda dtype: nsf(5, (20, 20), dtype, residual=True),
    "whole matrices": lambda dtype: hr.RealNVP(6, 2, transforms=2, hidden=(40, 33), dtype=dtype),
    "linear layers": linear,
}


def made(name, dtype):
    return cases.randomise(FLOWS[name](dtype), 0.1)


def masks(flow):
    """The masks of the matrices of networks with hidden layers, by name."""
    ones = copy.copy(flow)
    ones.parameters = np.ones_like(flow.parameters)
    named = ones.named_parameters()
    place = {name: name.rpartition("layers.")[0] for name in named}
    return {
        name: value != 0
        for name, value in named.items()
        if name.endswith("weight") and "layers." in name and f"{place[name]}layers.1.weight" in named
    }


def of_vector(flow, vector):
    """Return the arrays, by name, of a vector in the order of the parameters."""
    other = copy.copy(flow)
    other.parameters = vector.astype(flow.dtype)
    return other.named_parameters()


def expected(flow, gradients, *, momentum=0.95, weight_decay=0.0, clip=None):
    """Return the parameters, by name, that steps with the learning rate RATE reach in NumPy."""
    start, shapes = flow.named_parameters(), masks(flow)
    by_adam = of_vector(flow, adamw(flow.parameters, gradients, [RATE] * len(gradients), clip=clip)[-1])
    matrices = {name: reference.Muon(mask, NORM, momentum) for name, mask in shapes.items()}
    now = {name: start[name].astype(float) for name in matrices}
    for gradient in gradients:
        norm = np.linalg.norm(gradient.astype(float))
        share = 1.0 if clip is None else min(1.0, clip / norm)
        for name, one in of_vector(flow, gradient).items():
            if name in matrices:
                now[name] *= 1.0 - RATE * weight_decay
                now[name] -= RATE * matrices[name].direction(share * one.astype(float))
    return by_adam | now


def plain_gradients(flow, n=STEPS):
    """Gradients with entries of one size: clipping by the norm of all differs from clipping by a matrix's norm."""
    generator, counts = cases.rng("muon"), numbers_that_count(flow)
    return (generator.standard_normal((n, flow.parameters.size)) * counts).astype(flow.dtype)


def shares(mask, dtype):
    """Bounds of the errors of the entries of a matrix, in units of its largest singular value.

    In float32 squares of singular values are rounded relative to the largest square. The bounds are larger for blocks
    with tiny singular values, which nearly square random blocks have.
    """
    allowed = np.full(mask.shape, 1e-12 if dtype == "float64" else 1e-5)
    if dtype == "float32":
        for block in reference.staircase(mask):
            rows, columns = allowed[block].shape
            if 2 * abs(rows - columns) < max(rows, columns):
                allowed[block] = 2e-4
    return allowed


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.3, "clip": 2.0, "momentum": 0.8}], ids=["defaults", "set"])
@pytest.mark.parametrize("name", FLOWS)
def test_steps_match_the_reference(name, settings, dtype):
    flow = made(name, dtype)
    gradients = plain_gradients(flow)
    want, shapes = expected(flow, gradients, **settings), masks(flow)
    assert shapes
    if name == "linear layers":
        assert len(want) > len(shapes) + 4  # most parameters take steps of Adam
    muon = hr.Muon(flow, RATE, **settings)
    for gradient in gradients:
        assert_allclose(muon.step(gradient), np.linalg.norm(gradient.astype(float)), rtol=1e-5)
    rounding = 1e-6 if dtype == "float32" else 1e-14
    for key, value in flow.named_parameters().items():
        if key in shapes:
            allowed = STEPS * RATE * NORM * shares(shapes[key], dtype) + rounding * np.abs(want[key])
            assert (np.abs(value - want[key]) <= allowed).all(), key
        elif not settings:  # the decay of other matrices is tested with Adam
            assert_allclose(value, want[key], rtol=rounding, atol=10 * rounding * STEPS * RATE, err_msg=key)


@pytest.mark.parametrize("name", FLOWS)
def test_updates_are_orthogonal_block_by_block(name, dtype):
    flow = made(name, dtype)
    before = flow.named_parameters()
    hr.Muon(flow, 1.0).step(plain_gradients(flow, 1)[0])
    after, seen = flow.named_parameters(), 0
    for key, mask in masks(flow).items():
        update = (after[key] - before[key]).astype(float)
        assert not update[~mask].any()
        for block in reference.staircase(mask):
            values = np.linalg.svd(update[block], compute_uv=False) / NORM
            is_square = np.diff(update[block].shape) == 0  # the least singular value of a square block may be tiny
            assert (values < 1.21).all()
            assert (values[: -1 if is_square else None] > 0.65).all()  # Muon leaves singular values of 0.68 to 1.21
            seen += 1
    assert seen


def test_zeros_inside_the_staircase_stay_zero(dtype):
    """Masked weights stay zero for any gradient, and their gradient does not affect other weights."""
    flow = cases.randomise(with_zeros(dtype), 0.3)
    other, counts = copy.copy(flow), numbers_that_count(flow)
    one, two = hr.Muon(flow, 0.1, weight_decay=0.1), hr.Muon(other, 0.1, weight_decay=0.1)
    for gradient in plain_gradients(flow):
        one.step(np.where(counts, gradient, 3.0).astype(dtype))
        two.step(gradient)
        assert not flow.parameters[~counts].any()
    assert flow.parameters[counts].all()
    cases.assert_same_bits(flow.parameters[counts], other.parameters[counts])


def test_padding_stays_zero(dtype):
    flow = made("32 and 23 rows", dtype)
    muon, counts = hr.Muon(flow, 0.1, average=0.9), numbers_that_count(flow)
    for _ in range(3):
        muon.step(np.ones_like(flow.parameters))
    assert not flow.parameters[~counts].any()
    assert not muon.averaged[~counts].any()
    mean, _, _, _ = muon._core.memory()
    assert not mean[~counts & (flow.parameters == 0)][: counts.argmin()].any()


def test_the_same_bits_for_any_number_of_threads(dtype, set_threads):
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        flow = made("8 and 23 rows", dtype)
        muon = hr.Muon(flow, RATE, clip=2.0, average=0.9)
        norms = [muon.step(gradient) for gradient in plain_gradients(flow, 3)]
        results.append((norms, flow.parameters, muon.averaged))
    for norms, parameters, averaged in results[1:]:
        assert norms == results[0][0]
        cases.assert_same_bits(parameters, results[0][1])
        cases.assert_same_bits(averaged, results[0][2])


def test_moments_of_dead_units_become_zero(dtype):
    """Moments of units without a gradient become zero and never denormal; other units of a block still learn."""
    flow = made("8 and 23 rows", dtype)
    muon, counts = hr.Muon(flow, 1e-3), numbers_that_count(flow)
    gradient = plain_gradients(flow, 1)[0] * dtype_of(dtype)(1e-8)
    muon.step(gradient)
    dead = np.zeros(flow.parameters.size, bool)
    dead[::2] = True
    for _ in range(2500):
        muon.step(np.where(dead, 0.0, gradient).astype(dtype))
    mean, square, _, _ = muon._core.memory()
    tiny = np.finfo(dtype).tiny
    for moment in (mean, square):
        assert not ((np.abs(moment) < tiny) & (moment != 0)).any()
    if dtype == "float32":
        assert not mean[dead].any()
    assert mean[counts & ~dead].all()
    assert np.isfinite(flow.parameters).all()


def dtype_of(name):
    return np.dtype(name).type


def test_a_gradient_of_zeros_moves_nothing_and_a_huge_one_is_orthogonal_too(dtype):
    flow = made("whole matrices", dtype)
    before = flow.parameters
    hr.Muon(flow, 1.0).step(np.zeros_like(before))
    cases.assert_same_bits(flow.parameters, before)
    (gradient,) = plain_gradients(flow, 1)
    huge, other = gradient * dtype_of(dtype)(2.0**100), copy.copy(flow)
    hr.Muon(flow, RATE).step(huge)
    hr.Muon(other, RATE).step(gradient)
    wanted = other.named_parameters()
    for name in masks(flow):
        assert_allclose(flow.named_parameters()[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing(dtype):
    flow = made("32 and 23 rows", dtype)
    (gradient,) = plain_gradients(flow, 1)
    muon, before = hr.Muon(flow, 1.0), flow.parameters
    gradient[7] = np.nan
    assert not np.isfinite(muon.step(gradient))
    cases.assert_same_bits(flow.parameters, before)
    assert not any(moment.any() for moment in muon._core.memory()[:2])


def test_steps_of_real_gradients_lower_the_loss(dtype):
    flow = made("a context and a base", dtype)
    x, context = 2.0 + cases.rows(200, 4, dtype), cases.rows(200, 1, dtype, "context")
    muon, losses = hr.Muon(flow, 0.02, clip=10.0), []
    for _ in range(60):
        nll, gradient = flow.nll_and_grad(x, context)
        losses.append(nll)
        muon.step(gradient)
    assert losses[-1] < losses[0] - 1.0


def test_the_state_of_an_optimiser_is_copied_to_another(dtype):
    flow, other = small(dtype, transforms=2), small(dtype, transforms=2)
    x = gaussian(100)
    one, two = (hr.Muon(f, 1e-2, average=0.9, clip=1.0, weight_decay=0.1) for f in (flow, other))
    for _ in range(3):
        one.step(flow.nll_and_grad(x)[1])
    other.parameters = flow.parameters
    two._core.set_memory(*one._core.memory())
    for _ in range(3):
        assert one.step(flow.nll_and_grad(x)[1]) == two.step(other.nll_and_grad(x)[1])
    cases.assert_same_bits(other.parameters, flow.parameters)
    cases.assert_same_bits(two.averaged, one.averaged)


def test_fit_takes_muon_by_name(dtype):
    x, fitted = gaussian(600), {}
    for optimizer in ("adam", "muon"):
        flow = small(dtype, transforms=2)
        history = flow.fit(x, epochs=12, optimizer=optimizer, learning_rate=2e-2, **QUIET)
        fitted[optimizer] = flow.parameters, history.best_loss
    assert (fitted["adam"][0] != fitted["muon"][0]).any()
    assert abs(fitted["adam"][1] - fitted["muon"][1]) < 0.3  # both losses are near the Gaussian's entropy


REFUSED = {
    "no flow": (lambda: hr.Muon("flow"), ["flow", "str"]),
    "a momentum of one": (lambda: hr.Muon(small(), momentum=1.0), ["momentum", "1.0"]),
    "a momentum below zero": (lambda: hr.Muon(small(), momentum=-0.5), ["momentum", "-0.5"]),
    "an optimizer of another name": (
        lambda: small().fit(gaussian(60), optimizer="sgd", **QUIET),
        ["optimizer", "'adam', 'muon'", "'sgd'"],
    ),
    "a copy": (lambda: copy.copy(hr.Muon(small())), ["Muon cannot be copied"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_are_refused(name):
    call, words = REFUSED[name]
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    cases.assert_says(error, *words)


def test_a_device_is_refused_by_name(library):
    flow = small().to("cuda")
    with pytest.raises(ValueError, match=r"flow: expected a flow on the CPU for Muon.*to\('cpu'\)"):
        hr.Muon(flow)
    with pytest.raises(ValueError, match="optimizer: expected a flow on the CPU for Muon"):
        flow.fit(library.make(gaussian(600)), optimizer="muon", **QUIET)
