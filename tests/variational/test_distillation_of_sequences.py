"""Tests of ``distill_sequences``: a teacher in closed form, both objectives, spectra of signals, and refusals."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
import sequence_cases
from headrace.variational import over_time
from headrace.variational.divergence_over_time import Divergence, Inputs
from headrace.variational.spectra import Magnitudes, Spectrum, range_of_levels, strength_of_pitch
from targets import QUIET, plan_of

# The process x_t = 2 r cos(w) x_{t-1} - r^2 x_{t-2} + e_t, scaled to the deviation DEVIATION.
DAMPING, ANGLE, DEVIATION = 0.95, 0.4, 2.0
A1, A2 = 2.0 * DAMPING * math.cos(ANGLE), -(DAMPING**2)
RATE = 1.2e-2


def autoregression(deviation=DEVIATION):
    """The autoregression as a flow: a linear prediction, and a network of zeros, which ignores the past."""
    network = hr.CausalConvolution(channels=1, dilations=[1], map="affine")
    for name, array in network.named_parameters().items():
        network.set_parameter(name, np.zeros_like(array))
    prediction = hr.LinearPrediction.of_reflections([[A1 / (1.0 - A2), A2]])
    return hr.SequenceFlow([network, prediction, hr.transforms.Standardize([0.0], [deviation])])


def pupil(**more):
    options = {"layers": 6, "channels": 16, "kernel": 3, "map": "affine", "transforms": 2} | more
    return hr.WaveNet(reads="latent", **options)


def small(key, reads, **more):
    """A small flow of sequences with random weights, in float64."""
    more = {"map": "affine"} | more
    if reads == "latent":
        more = {"transforms": 2} | more
    options = {"layers": 3, "channels": 5, "skip": 4, "reads": reads, "dtype": "float64"}
    return sequence_cases.randomise(hr.WaveNet(more.pop("features", 1), **(options | more)), key)


# --- results --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_student_of_an_autoregression():
    """The student's KL is below 0.02 nats a step, and its deviation within 5 % of that of the process, by a formula."""
    teacher = autoregression()
    before = teacher.parameters
    student, report = hr.distill_sequences(teacher, pupil(), steps=500, samples=8, learning_rate=RATE, **QUIET)
    assert report.estimator == "closed_form"
    assert report.kl < 0.02
    assert len(report.history) == 500
    assert student.transforms[-1].std == DEVIATION  # the student has the teacher's scale
    cases.assert_same_bits(teacher.parameters, before)

    x = student.sample(48, steps=1500, seed=3)
    log_q = student.log_prob(x).astype(np.float64)
    v = np.pad(x[..., 0].astype(np.float64), [(0, 0), (2, 0)])
    gain = DEVIATION * math.sqrt((1.0 - (A1 / (1.0 - A2)) ** 2) * (1.0 - A2**2))
    residual = (v[:, 2:] - A1 * v[:, 1:-1] - A2 * v[:, :-2]) / gain
    log_p = (-0.5 * residual**2 - math.log(gain) - 0.5 * math.log(2.0 * math.pi)).sum(axis=1)
    assert -1e-3 < (log_q - log_p).mean() / 1500 < 0.02
    assert_allclose(x[:, 300:].std(), DEVIATION, rtol=0.05)
    assert (x[:, 301:] * x[:, 300:-1]).mean() / x[:, 300:].var() == pytest.approx(A1 / (1.0 - A2), abs=0.01)


@pytest.mark.long
def test_a_student_of_a_mixture():
    """The student learns from samples, because a mixture has no closed form."""
    teacher = sequence_cases.wavenet("teacher of a mixture", layers=2, prediction=4, dtype="float32")
    student = pupil(layers=3, map="logistic_mixture", bins=4)
    student, report = hr.distill_sequences(teacher, student, steps=150, length=128, learning_rate=RATE, **QUIET)
    assert report.estimator == "pathwise"
    energy = report.history.free_energy
    assert np.mean(energy[-10:]) < 0.2 * energy[0]
    x = student.sample(64, steps=128, seed=5)
    excess = (student.log_prob(x) - teacher.log_prob(x)).astype(np.float64) / 128
    assert abs(excess.mean() - report.kl) < 5.0 * (report.kl_error + excess.std() / 8.0)


def test_both_objectives_have_one_mean():
    teacher, student = small("t", "data", prediction=3), small("s", "latent")
    inputs = Inputs(teacher, 30, None, None, None)
    batch = inputs.draw(4000, cases.rng("batch"))
    closed, drawn = (
        Divergence(teacher, student, 30, is_closed=is_closed).forth(None, batch, 4000)[1] for is_closed in (True, False)
    )
    apart = closed - drawn
    assert abs(apart.mean()) < 4.0 * apart.std() / math.sqrt(len(apart))
    assert closed.std() < drawn.std()  # the closed form averages over each step's value


# --- gradients ------------------------------------------------------------------------------------------------------

PAIRS = {
    "closed form": ({"prediction": 3}, {}, True),
    "closed form, other bases": (
        {"base": hr.Normal(1, 0.3, 1.4)},
        {"base": hr.Normal(1, -0.2, 0.7, trainable=False), "map": "additive"},
        True,
    ),
    "closed form, levels": ({"level": True}, {"level": True}, True),
    "affine, from samples": ({}, {}, False),
    "mixtures": (
        {"map": "logistic_mixture", "bins": 3},
        {"map": "logistic_mixture", "bins": 2},
        False,
    ),
    "several values": ({"features": 2, "inner": "maf", "map": None}, {"features": 2}, False),
    "context": ({"context": 2}, {"context": 2}, True),
    "covariates": ({"covariates": 3, "hop": 4}, {"covariates": 3, "hop": 4}, True),
}


def setting(name, is_paired=False):
    of_teacher, of_student, is_closed = PAIRS[name]
    teacher, student = small("teacher", "data", **of_teacher), small("student", "latent", **of_student)
    draw, length = cases.rng("inputs", name), 13
    context = draw.standard_normal((5, 2)) if teacher.context else None
    covariates = draw.standard_normal((6, 9, 3)) if teacher.covariates else None
    signals = draw.standard_normal((6, 20, teacher.features)) if is_paired else None
    inputs = Inputs(teacher, length, context, covariates, signals)
    return Divergence(teacher, student, length, is_closed=is_closed), inputs.draw(4, draw)


def slope_of(function, at, along, step=1e-5):
    return (function(at + step * along) - function(at - step * along)) / (2.0 * step)


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_against_differences(name):
    divergence, batch = setting(name)
    at = divergence.student.parameters
    along = cases.rng("along", name).standard_normal(at.shape) / math.sqrt(at.size)
    divergence.forth(None, batch, 4)
    found = divergence.back(batch, 1.0, 1.0, None) @ along

    wanted = slope_of(lambda parameters: divergence.forth(parameters, batch, 4)[1].mean(), at, along)
    assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


def test_the_weight_of_the_divergence_and_of_the_density():
    """The objective equals log q minus a share of log p, computed by public methods of the flows."""
    divergence, batch = setting("mixtures")
    teacher, student = divergence.teacher, divergence.student
    z = student._program.core.noise(student._program.vector.core, batch.seed, 0, 4, 0, 13)
    at, beta, weight = student.parameters, 0.6, 0.3
    along = cases.rng("beta").standard_normal(at.shape) / math.sqrt(at.size)

    def objective(parameters):
        x, log_det = student.to_data(z, parameters=parameters)
        return weight * (-log_det - beta * teacher.log_prob(x)).mean() / 13

    divergence.forth(None, batch, 4)
    assert_allclose(
        divergence.back(batch, beta, weight, None) @ along, slope_of(objective, at, along), rtol=1e-6, atol=1e-8
    )


def test_the_weight_of_the_density_in_closed_form():
    """With weight 0 only the entropy remains, and the gradient is linear in the weight."""
    divergence, batch = setting("closed form")
    student, at = divergence.student, divergence.student.parameters
    z = student._program.core.noise(student._program.vector.core, batch.seed, 0, 4, 0, 13)
    along = cases.rng("beta").standard_normal(at.shape) / math.sqrt(at.size)
    divergence.forth(None, batch, 4)
    none, half, full = (divergence.back(batch, beta, 1.0, None) @ along for beta in (0.0, 0.5, 1.0))
    wanted = slope_of(lambda p: -student.to_data(z, parameters=p)[1].mean() / 13, at, along)
    assert_allclose(none, wanted, rtol=1e-6, atol=1e-8)
    assert_allclose(half, 0.5 * (none + full), rtol=1e-10)


@pytest.mark.parametrize("is_paired", [False, True])
def test_gradients_of_spectra(is_paired):
    divergence, batch = setting("covariates", is_paired)
    spectrum = Spectrum(Magnitudes(8), is_paired=is_paired)
    signals = cases.rng("signals").standard_normal((4, 13, 1)) if batch.signals is None else batch.signals
    target, at = spectrum.target(signals), divergence.student.parameters
    along = cases.rng("along").standard_normal(at.shape) / math.sqrt(at.size)
    x, _ = divergence.forth(None, batch, 4)
    same = np.array([True, False, True]) if is_paired else None
    energy, by_x = spectrum.energy_and_grad(x, target, same)
    assert energy == spectrum.energy(x, target, same)
    assert spectrum.energy(x, target, None) == spectrum.distance(x, target)
    found = divergence.back(batch, 1.0, 0.0, by_x) @ along
    wanted = slope_of(lambda p: spectrum.energy(divergence.forth(p, batch, 4)[0], target, same), at, along, 1e-6)
    assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("window", "steps"), [(8, 21), (2, 5), (6, 6)])
def test_magnitudes_and_their_gradient(window, steps):
    """Magnitudes agree with the definition of the transform, and gradients with differences."""
    draw, magnitudes = cases.rng("stft", window), Magnitudes(window)
    x = draw.standard_normal((3, steps, 2))
    found = magnitudes.of(x)
    hann = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    for i in range(found.shape[1]):
        frame = x[:, i * magnitudes.hop : i * magnitudes.hop + window]
        for k in range(window // 2 + 1):
            wave = np.exp(-2j * np.pi * k * np.arange(window) / window)
            assert_allclose(found[:, i, :, k], abs((frame * (hann * wave)[:, None]).sum(axis=1)), atol=1e-12)
    grad, along = draw.standard_normal(found.shape), draw.standard_normal(x.shape)
    wanted = slope_of(lambda value: (grad * magnitudes.of(value)).sum(), x, along, 1e-6)
    assert_allclose((magnitudes.vjp(x, grad) * along).sum(), wanted, rtol=1e-6)
    assert (magnitudes.vjp(np.zeros_like(x), grad) == 0.0).all()


def test_the_energy_of_spectra_is_least_where_samples_have_the_law_of_signals():
    """The distance alone is least for noise of 0.77 of the amplitude: 1 + s² = 2^(2/3), by Rayleigh's law."""
    draw, spectrum = cases.rng("energy"), Spectrum(Magnitudes(16), is_paired=True)
    rows, steps = 400, 64
    target = spectrum.target(np.repeat(draw.standard_normal((rows // 2, steps, 1)), 2, axis=0))
    x, same = draw.standard_normal((rows, steps, 1)), np.arange(rows - 1) % 2 == 0
    scales = np.array([0.6, math.sqrt(2.0 ** (2.0 / 3.0) - 1.0), 0.9, 1.0, 1.1, 1.3])
    distances, energies = (
        [f(s * x, target, own) for s in scales] for f, own in ((spectrum.energy, None), (spectrum.energy, same))
    )
    assert np.argmin(distances) == 1
    assert np.argmin(energies) == 3


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_spectra_alone_set_the_level():
    """The teacher has a tenth of the amplitude, and the student's objective has only spectra of signals."""
    teacher, signals = autoregression(0.2), autoregression(2.0).sample(20, steps=700, seed=1)
    options = {"steps": 120, "samples": 8, "length": 256, "learning_rate": RATE, "signals": signals}
    _, report = hr.distill_sequences(teacher, pupil(), first_steps=120, **options, **QUIET)
    assert abs(report.level) < 1.5
    assert report.spectrum < 0.25
    _, whisper = hr.distill_sequences(teacher, pupil(), first_steps=0, power=1e-6, **options, **QUIET)
    assert whisper.level < -15.0
    assert whisper.excess > 0.0
    assert whisper.kl < report.kl


def test_signals_go_with_their_covariates():
    teacher = small("teacher", "data", covariates=3, hop=4)
    draw = cases.rng("with covariates")
    frames = [draw.standard_normal((n, 3)) for n in (8, 5)]
    signals = [np.repeat(f[:, :1], 4, axis=0)[: 4 * len(f) - 1] for f in frames]
    inputs = Inputs(teacher, 10, None, frames, signals)
    batch = inputs.draw(200, draw)
    assert batch.covariates.shape == (200, 3, 3)
    cases.assert_same_bits(batch.signals[..., 0], np.repeat(batch.covariates[:, :, 0], 4, axis=1)[:, :10])
    assert len(np.unique(batch.signals[:, 0, 0])) > 5  # samples begin at any offset
    twice = inputs.draw_twice(7, draw)
    assert twice.same.tolist() == [True, False, True, False, True, False]
    for array in (twice.covariates, twice.signals):
        cases.assert_same_bits(array[0:6:2], array[1:6:2])
        assert (array[1] != array[2]).any()
    kept = twice.some(np.array([True, False, True, True, False, True, True]))
    assert kept.same.tolist() == [False, True, False, False]
    _, report = hr.distill_sequences(
        *(teacher, small("student", "latent", covariates=3, hop=4)),
        **({"covariates": frames, "signals": signals, "length": 10, "steps": 3, "samples": 4} | QUIET),
    )
    assert np.isfinite([report.kl, report.spectrum, report.level, report.excess]).all()


def test_noise_of_the_right_colour_has_neither_the_range_of_levels_nor_the_pitch():
    """The signals are voiced bursts and pauses; the noise has the same spectrum on average."""
    draw, t = cases.rng("figures"), np.arange(16_000)
    buzz = (np.sin(0.08 * t) + 0.5 * np.sin(0.16 * t) + 0.3 * np.sin(0.24 * t)) * np.exp(2.0 * np.sin(t / 400.0))
    speech = (buzz + 0.01 * draw.standard_normal(t.size)).reshape(4, 4000, 1)
    phases = np.exp(2j * np.pi * draw.random((4, 2001, 1)))
    noise = np.fft.irfft(np.abs(np.fft.rfft(draw.standard_normal(speech.shape), axis=1)) * phases, axis=1)
    envelope = np.sqrt(np.square(np.abs(np.fft.rfft(speech, axis=1))).mean(axis=0, keepdims=True))
    smooth = np.apply_along_axis(lambda one: np.convolve(one, np.ones(201) / 201, "same"), 1, envelope)
    noise = np.fft.irfft(np.fft.rfft(noise, axis=1) * smooth, axis=1)
    assert range_of_levels(speech, 160) > 25.0
    assert range_of_levels(noise, 160) < 12.0
    assert strength_of_pitch(speech, 320) > 0.95
    assert strength_of_pitch(noise, 320) < 0.8
    louder = range_of_levels(10.0 * speech, 160)
    assert_allclose(louder, range_of_levels(speech, 160), rtol=1e-9)


def test_a_report_has_the_figures_of_student_teacher_and_signals():
    teacher, student = autoregression(), pupil(layers=2)
    signals = np.concatenate([0.1 * teacher.sample(4, steps=700, seed=1), teacher.sample(4, steps=700, seed=2)], axis=1)
    _, report = hr.distill_sequences(teacher, student, signals=signals, length=1400, steps=2, samples=4, **QUIET)
    assert report.level_range.signals > 15.0 > 8.0 > report.level_range.teacher > report.level_range.student
    assert f"level_range={report.level_range.student:.3g} (teacher" in repr(report)
    assert 0.0 < report.pitch.teacher < 1.0
    _, short = hr.distill_sequences(teacher, student, signals=signals, length=600, steps=1, samples=2, **QUIET)
    assert short.level_range is short.pitch is None


def fading_pupil(**more):
    """White noise whose first 300 steps are 40 dB quieter: a layer reads a constant, before which it has zeros."""
    network = hr.CausalConvolution(channels=1, kernel=2, dilations=[300, 1], map="affine", reads="latent", **more)
    weights = {name: np.zeros_like(array) for name, array in network.named_parameters().items()}
    weights["input.bias"][0], weights["layers.0.gate.weight"][0, 0, 0], weights["layers.0.gate.bias"][1] = 10, 10, 10
    weights["layers.0.out.weight"][1, 0] = weights["head.0.weight"][0, 0] = 1.0
    weights["head.1.weight"][1, 0], weights["head.1.bias"][1] = 20.0, -20.0
    for name, array in weights.items():
        network.set_parameter(name, array)
    return hr.SequenceFlow([network, hr.transforms.Standardize([0.0], [1.0])])


FADING = {"length": 700, "steps": 1, "samples": 4, "learning_rate": 1e-9} | QUIET


def test_samples_that_fade_in_have_the_range_of_levels_of_later_steps():
    assert range_of_levels(fading_pupil().sample(4, 700, seed=0), 160) > 35.0
    signals = autoregression().sample(4, steps=700, seed=1)
    _, report = hr.distill_sequences(autoregression(), fading_pupil(), signals=signals, **FADING)
    assert 0.0 < report.level_range.student < 3.0
    assert report.pitch.student < 0.4


def test_samples_with_covariates_fade_in_as_well():
    """Ranges of levels leave out the first half of samples with covariates, and of signals with equal covariates."""
    teacher = small("fade", "data", covariates=1, hop=10)
    signals, frames = cases.rng("fade").standard_normal((3, 700, 1)), np.zeros((3, 70, 1))
    signals[:, :350] *= 1e-3
    student = fading_pupil(covariates=1, hop=10)
    _, report = hr.distill_sequences(teacher, student, covariates=frames, signals=signals, **FADING)
    assert 0.0 < max(report.level_range.student, report.level_range.signals) < 3.0


def test_the_range_of_levels_of_signals_is_that_of_all():
    """The range covers ten short quiet signals and a long loud one, which short random crops of all signals missed."""
    loud = autoregression().sample(1, steps=7000, seed=1)
    quiet = 0.01 * autoregression().sample(10, steps=700, seed=2)
    inputs = Inputs(autoregression(), 700, None, None, [*quiet, *loud])
    frames = inputs.frames(320, 31)
    assert frames.shape == (21, 320, 1)  # every second frame: 2 in a quiet signal, 21 in the loud one
    cases.assert_same_bits(frames[:11], np.concatenate([quiet[:, :320], loud[:, :320]]))
    cases.assert_same_bits(frames[-1], loud[0, 6400:6720])
    assert len(inputs.frames(320, 41)) == 41
    _, report = hr.distill_sequences(autoregression(), pupil(layers=2), signals=[*quiet, *loud], **FADING)
    assert report.level_range.signals > 35.0


# --- the loop -------------------------------------------------------------------------------------------------------


def test_the_same_seed_has_the_same_bits(set_threads):
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        student, report = hr.distill_sequences(
            autoregression(), pupil(layers=2), steps=4, samples=6, length=100, seed=4, **QUIET
        )
        results.append((student.parameters, report.kl))
    for parameters, kl in results[1:]:
        cases.assert_same_bits(parameters, results[0][0])
        assert kl == results[0][1]


def test_ctrl_c_keeps_the_best_weights(monkeypatch):
    before, calls = over_time.SequenceStep.__call__, [0]

    def interrupted(self, number, beta):
        calls[0] += 1
        if calls[0] == 40:
            raise KeyboardInterrupt
        return before(self, number, beta)

    monkeypatch.setattr(over_time.SequenceStep, "__call__", interrupted)
    student = pupil(layers=2)
    fresh = student.parameters
    student, report = hr.distill_sequences(autoregression(), student, steps=60, samples=4, length=64, **QUIET)
    assert report.history.stopped == "interrupted"
    assert math.isnan(report.kl)
    assert (student.parameters != fresh).any()
    calls[0] = 39
    student = pupil(layers=2)
    with pytest.raises(KeyboardInterrupt):
        hr.distill_sequences(autoregression(), student, steps=60, samples=4, length=64, **QUIET)
    cases.assert_same_bits(student.parameters, fresh)


def test_samples_that_are_not_finite_are_left_out():
    """One of eight samples, made NaN by its context, is left out; two such samples, above a fifth, give no gradient."""
    teacher, student = small("t", "data", context=1), small("s", "latent", context=1)
    context = np.zeros((1, 1))
    inputs = Inputs(teacher, 9, context, None, None)
    divergence = Divergence(teacher, student, 9, is_closed=True)
    for skip, bad in ((0.2, 1), (0.2, 2)):
        step = over_time.SequenceStep(divergence, inputs, plan_of(student, 8, skip), None, 0.0, 0, cases.rng("nan"))
        draw = inputs.draw

        def spoilt(rows, rng, draw=draw, bad=bad):
            batch = draw(rows, rng)
            batch.context[:bad] = np.nan
            return batch

        step.inputs = type("Spoilt", (), {"draw": staticmethod(spoilt)})
        outcome = step(0, 1.0)
        assert outcome.skipped == bad
        if bad == 1:
            assert np.isfinite(outcome.gradient).all()
            assert len(outcome.excess) == 7
        else:
            assert outcome.gradient is None


# --- refusals -------------------------------------------------------------------------------------------------------

BAD = {
    "a flow of rows for teacher": ({"teacher": hr.MAF(1)}, ["teacher", "SequenceFlow", "MAF"]),
    "a flow of rows for student": ({"student": hr.IAF(1)}, ["student", "SequenceFlow", "IAF"]),
    "a teacher that reads latent": ({"teacher": pupil(layers=1)}, ["teacher", "read data", "latent"]),
    "a student that reads data": ({"student": autoregression()}, ["student", "read latent", "data"]),
    "other features": ({"student": pupil(features=2)}, ["student", r"\b1 features", r"\b2\b"]),
    "other covariates": ({"student": pupil(covariates=2)}, ["student", "covariates", r"\b0\b", r"\b2\b"]),
    "a trained base": ({"student": pupil(base=hr.Normal(1))}, ["student", "base", "Normal"]),
    "a closed form of mixtures": (
        {"student": pupil(map="logistic_mixture", bins=2), "estimator": "closed_form"},
        ["estimator", "closed_form", "student", "Logistic"],
    ),
    "a temperature": ({"temperature": 0.5}, ["temperature", "keyword of distill_sequences"]),
    "a power without signals": ({"power": 2.0}, ["power", "signals"]),
    "first steps without signals": ({"first_steps": 1}, ["first_steps", "signals", r"\b1\b"]),
    "short signals": ({"signals": np.zeros((2, 50, 1)), "length": 60}, ["signals", r"\b60\b", r"\b50\b"]),
    "signals of NaN": ({"signals": np.full((2, 50, 1), np.nan), "length": 20}, ["signals", "finite", "nan"]),
    "covariates that nothing reads": ({"covariates": np.zeros((9, 1))}, ["covariates", "None"]),
    "a length of one": ({"length": 1}, ["length", r"\b2\b", r"\b1\b"]),
    "context that nothing reads": ({"context": np.zeros((5, 1))}, ["context", "None"]),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_arguments_of_distillation(name):
    more, words = BAD[name]
    given = {"teacher": autoregression(), "student": pupil(layers=1), "steps": 1} | QUIET | more
    before = given["student"].parameters
    with pytest.raises((TypeError, ValueError)) as error:
        hr.distill_sequences(
            given.pop("teacher"), given["student"], **{k: v for k, v in given.items() if k != "student"}
        )
    cases.assert_says(error, *words)
    cases.assert_same_bits(given["student"].parameters, before)


@pytest.mark.parametrize("name", ["length", "covariates", "signals", "power"])
def test_arguments_of_sequences_are_refused_for_flows_of_rows(name):
    with pytest.raises(TypeError, match=rf"{name}: expected a keyword of distill \(teacher, .*, got '{name}'"):
        hr.distill(hr.MAF(2), hr.IAF(2), steps=1, **QUIET, **{name: 3})


def test_few_frames():
    teacher, student = (small(key, key, covariates=2, hop=5) for key in ("data", "latent"))
    with pytest.raises(ValueError, match="covariates: expected at least 4 frames for 20 steps") as error:
        hr.distill_sequences(teacher, student, covariates=np.zeros((2, 3, 2)), length=20, steps=1, **QUIET)
    cases.assert_says(error, "got 3", "sequence 0")
