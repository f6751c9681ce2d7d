"""Muon on convolutions over time against NumPy in float64: a matrix has a row for each unit, and a column for each
input and tap; Adam moves biases and inner flows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from adam_cases import adamw
from fitting import QUIET
from reference import muon as reference

STEPS, RATE, NORM = 3, 0.01, 1.2
SMALL = {"layers": 3, "channels": 6, "kernel": 3, "skip": 5}


def wavenet(dtype):
    return hr.WaveNet(dtype=dtype, seed=1, **SMALL)


def with_inner(dtype):
    inner = hr.MAF(2, context=3, transforms=1, hidden=(8,), dtype=dtype)
    network = hr.CausalConvolution(2, channels=6, skip=5, dilations=(1, 2, 4), inner=inner, seed=2, dtype=dtype)
    return hr.SequenceFlow([network])


FLOWS = {"a WaveNet": wavenet, "an inner flow": with_inner}


def gradients(flow):
    generator, n = cases.rng("muon of sequences"), flow.parameters.size
    return generator.standard_normal((STEPS, n)).astype(flow.dtype)


def of_vector(flow, vector):
    before = flow.parameters
    flow.parameters = vector.astype(flow.dtype)
    named = flow.named_parameters()
    flow.parameters = before
    return named


@pytest.mark.parametrize("settings", [{}, {"clip": 2.0, "momentum": 0.8, "weight_decay": 0.3}], ids=["defaults", "set"])
@pytest.mark.parametrize("name", FLOWS)
def test_steps_match_the_reference(name, settings, dtype):
    flow = FLOWS[name](dtype)
    start, given = flow.named_parameters(), gradients(flow)
    clip = settings.get("clip")
    want = of_vector(flow, adamw(flow.parameters, given, [RATE] * STEPS, clip=clip)[-1])
    matrices = [key for key, value in start.items() if key.endswith("weight") and "inner." not in key]
    assert len(matrices) > SMALL["layers"]
    for key in matrices:
        shape = start[key].shape
        muon = reference.Muon(np.ones((shape[0], int(np.prod(shape[1:]))), bool), NORM, settings.get("momentum", 0.95))
        want[key] = start[key].astype(float)
        for gradient in given:
            share = 1.0 if clip is None else min(1.0, clip / np.linalg.norm(gradient.astype(float)))
            one = share * of_vector(flow, gradient)[key].astype(float)
            want[key] *= 1.0 - RATE * settings.get("weight_decay", 0.0)
            want[key] -= RATE * muon.direction(one.reshape(shape[0], -1)).reshape(shape)
    muon = hr.Muon(flow, RATE, **settings)
    for gradient in given:
        muon.step(gradient)
    # In float32 the squares of singular values have the rounding of the largest one, which matters to square matrices.
    allowed = STEPS * RATE * NORM * (2e-4 if dtype == "float32" else 1e-12)
    for key, value in flow.named_parameters().items():
        # Weight decay of all other parameters is tested with Adam.
        if key in matrices or key.endswith("bias") or not settings:
            assert_allclose(value, want[key], rtol=0, atol=allowed if key in matrices else 0.1 * allowed, err_msg=key)


def test_the_same_bits_for_any_number_of_threads_and_after_a_copied_state(dtype, set_threads):
    ends = []
    for threads in (1, 3):
        set_threads(threads)
        flow = wavenet(dtype)
        muon = hr.Muon(flow, RATE, clip=2.0, average=0.9, weight_decay=0.1)
        for i, gradient in enumerate(gradients(flow)):
            if i == 1 and threads == 3:
                memory, muon = muon._core.memory(), hr.Muon(flow, RATE, clip=2.0, average=0.9, weight_decay=0.1)
                muon._core.set_memory(*memory)
            muon.step(gradient)
        ends.append((flow.parameters, muon.averaged))
    for one, other in zip(*ends, strict=True):
        cases.assert_same_bits(one, other)


def test_fits_of_sequences_take_muon_by_name(dtype):
    x, fitted = cases.rng("an autoregression").standard_normal((4, 300, 1)).cumsum(axis=1) * 0.1, {}
    for optimizer in ("adam", "muon"):
        flow = wavenet(dtype)
        history = flow.fit(x.astype(dtype), epochs=4, optimizer=optimizer, learning_rate=1e-2, **QUIET)
        fitted[optimizer] = flow.parameters
        assert np.isfinite(history.best_loss)
    assert (fitted["adam"] != fitted["muon"]).any()
