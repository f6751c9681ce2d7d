"""The envelopes of signals in the benchmark of conditioned students: the filter has an inverse, and its parts have
the expected values."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.sequences.conditioned import __main__ as conditioned
from bench.sequences.conditioned import envelope

RNG = cases.rng("envelope")


def vowel(steps, period=64):
    """Pulses through two resonances, with some noise, as integers."""
    x = np.where(np.arange(steps) % period == 0, 3000.0, 0.0) + 30.0 * RNG.standard_normal(steps)
    for angle, radius in ((0.5, 0.96), (1.3, 0.92)):
        y = np.zeros(steps)
        for t in range(steps):
            y[t] = x[t] + 2 * radius * np.cos(angle) * y[t - 1] * (t > 0) - radius**2 * y[t - 2] * (t > 1)
        x = 0.3 * y
    return np.round(x)


def test_signals_and_excitations_determine_each_other():
    x = vowel(3037)
    own = envelope.frames(x)
    assert own.shape == (len(x) // envelope.HOP + 1, envelope.COLUMNS)
    assert np.abs(own[:, 1:-2]).max() < 1.0  # reflections of a stable filter are below 1
    e, level = envelope.excitation(x, own)
    assert_allclose(envelope.signal(e, own), x, atol=1e-7 * np.abs(x).max())
    # The map is triangular, with exp(-level) on its diagonal.
    steps = [200, 1733]
    for t in steps:
        moved = x.copy()
        moved[t] += 1.0
        other, _ = envelope.excitation(moved, own)
        assert_allclose(other[:t], e[:t])
        assert_allclose(other[t] - e[t], np.exp(-level[t]), rtol=1e-7)


def test_an_excitation_is_white_and_of_unit_level():
    x = vowel(8000)
    own = envelope.frames(x)
    e, _ = envelope.excitation(x, own)
    inner = e[400:-400]
    assert 0.8 < inner.std() < 1.2
    assert abs(np.corrcoef(inner[1:], inner[:-1])[0, 1]) < 0.1 < np.corrcoef(x[1:], x[:-1])[0, 1]
    assert_allclose(np.exp(own[10:-10, -1]).mean(), 64.0, rtol=0.05)
    assert own[10:-10, -2].min() > 0.6
    noise = envelope.frames(np.round(300.0 * RNG.standard_normal(8000)))
    assert noise[:, -2].mean() < 0.5
    assert_allclose(np.exp(noise[10:-10, 0]).mean(), 300.0, rtol=0.1)


def test_silence_has_a_level():
    own = envelope.frames(np.zeros(500) + RNG.random(500) - 0.5)
    assert np.isfinite(own).all()
    assert np.isfinite(envelope.columns(own)).all()


def test_the_table_of_students():
    """A student that is the identity makes white noise; real excitations have level 0 and spectral distance 0."""
    options = {"map": "affine", "channels": 4, **conditioned.GIVEN}
    teacher = hr.WaveNet(layers=3, base=hr.StandardNormal(1), prediction=0, **options)
    student = hr.WaveNet(reads="latent", layers=2, transforms=1, **options)
    for name in ("head.1.weight", "head.1.bias"):
        array = student.named_parameters()[f"transforms.0.{name}"]
        student.set_parameter(f"transforms.0.{name}", np.zeros_like(array))
    files = [conditioned.Spoken.of(vowel(n).astype("int16"), np.random.default_rng(n)) for n in (1500, 2600)]
    real = conditioned.judged(teacher, files, None)
    assert real.level == pytest.approx(0.0, abs=1e-3)
    assert real.spectra == pytest.approx(0.0, abs=1e-4)
    noise = conditioned.judged(teacher, files, conditioned.white)
    same = conditioned.judged(teacher, files, conditioned.by_student(student))
    assert same.kl == pytest.approx(noise.kl, abs=4 * (noise.error + same.error) + 0.05)
    assert noise.spectra > 0.3
    own = conditioned.judged(teacher, files, conditioned.by_teacher(teacher))
    assert own.kl == pytest.approx(0.0, abs=1e-4)
    steps = sum(len(one.e) for one in files)
    log_prob = sum(float(teacher.log_prob(one.e, covariates=one.covariates)) for one in files)
    shifted = (log_prob - sum(one.level.sum() for one in files)) / steps + conditioned.RANGE
    assert real.nats == pytest.approx(shifted, rel=1e-5)
