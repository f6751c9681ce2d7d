"""Diagnoses of sequences: right densities pass, and each kind of wrong density is named."""

import numpy as np
import pytest

import cases
import headrace as hr
from headrace.diagnosis import picture

AR = [0.8]


def autoregression(rows, steps, *key, noise=None):
    e = cases.rng("diagnosis", rows, steps, *key).standard_normal((rows, steps)) if noise is None else noise
    x = np.zeros((rows, steps))
    for t in range(steps):
        x[:, t] = (AR[0] * x[:, t - 1] if t else 0.0) + e[:, t]
    return x[..., None]


def flow_of(reflection, scale=1.0, base=None):
    """A flow of first-order prediction whose residual is exactly z / scale."""
    network = hr.CausalConvolution(channels=1, dilations=[1], map="affine", dtype="float64")
    network.set_parameter("head.1.weight", np.zeros_like(network.named_parameters()["head.1.weight"]))
    t = hr.LinearPrediction.of_reflections([[reflection]], "float64")
    gain = 1.0 / np.sqrt(1.0 - reflection**2)
    return hr.SequenceFlow([network, t, hr.transforms.Standardize([0.0], [gain * scale])], base)


def test_the_right_density_passes():
    x = autoregression(20, 300, "right")
    d = hr.diagnose_sequences(flow_of(0.8), x)
    assert not d.misses
    assert d.p_value > 0.05
    assert (d.sequences, d.steps, d.kind) == (20, 6000, "SequenceFlow")
    np.testing.assert_allclose(d.nats, flow_of(0.8).log_prob(x).sum() / 6000, rtol=1e-12)
    assert 0 < d.error < 0.05
    assert d.autocorrelation.shape == d.autocorrelation_of_sizes.shape == (40, 1)
    assert np.abs(d.autocorrelation).max() < 0.06
    assert d.integral_transform.sum() == 6000
    assert "nats a step" in str(d)
    assert (d.grade, repr(d)) == ("very good", f"SequenceDiagnosis(SequenceFlow, steps=6000: {d.verdict})")


def test_dependence_on_the_past_that_a_density_lacks_is_found():
    d = hr.diagnose_sequences(flow_of(0.0, 1.0 / 0.6), autoregression(20, 300, "past"))
    assert "autocorrelation" in {one.name for one in d.misses}
    np.testing.assert_allclose(d.autocorrelation[0], 0.8, atol=0.05)
    assert d.grade == "wrong"  # the past explains ln(1 / 0.6) nats of a step
    np.testing.assert_allclose(d.size.nats, -np.log(0.6), atol=0.05)
    assert "that 1 steps before" in next(one.sentence for one in d.misses if one.name == "autocorrelation")


def test_a_level_that_is_not_followed_is_found():
    draw = cases.rng("level")
    level = np.exp(0.8 * np.repeat(draw.standard_normal((20, 6)), 50, axis=1))
    noise = level * draw.standard_normal((20, 300))
    d = hr.diagnose_sequences(flow_of(0.8, noise.std()), autoregression(20, 300, noise=noise))
    names = {one.name for one in d.misses}
    assert "autocorrelation of sizes" in names
    assert d.size.nats > 0.1
    assert d.loudness[0][2] > d.loudness[-1][2]  # quiet steps have high densities although the level is not followed
    assert len(d.loudness) == 5
    assert all(a[1] <= b[0] for a, b in zip(d.loudness, d.loudness[1:], strict=False))


@pytest.mark.costly
def test_a_wrong_shape_is_found():
    noise = cases.rng("shape").laplace(0.0, 1.0 / np.sqrt(2.0), (20, 300))
    d = hr.diagnose_sequences(flow_of(0.8), autoregression(20, 300, noise=noise))
    assert {one.name for one in d.misses} >= {"latent coordinates"}
    logistic = hr.diagnose_sequences(flow_of(0.8, base=hr.Logistic(1)), autoregression(20, 300, "logistic"))
    assert {one.name for one in logistic.misses} >= {"latent coordinates"}


def test_lists_contexts_and_covariates():
    flow = hr.WaveNet(2, layers=2, channels=4, context=1, covariates=1, hop=5)
    x = [cases.rng("list", n).standard_normal((n, 2)) for n in (60, 1, 30)]
    frames = [np.zeros((-(-len(one) // 5), 1)) for one in x]
    d = hr.diagnose_sequences(flow, x, np.zeros((3, 1)), covariates=frames)
    assert d.steps == 91
    assert d.autocorrelation.shape == (40, 2)
    assert {one.name for one in d.tests} >= {"independence"}
    one = hr.diagnose_sequences(hr.WaveNet(layers=2, channels=4), x[0][:, :1])
    assert (one.sequences, one.steps) == (1, 60)


def test_errors():
    flow = hr.WaveNet(layers=2, channels=4)
    with pytest.raises(TypeError, match=r"covariates: expected a keyword of diagnose \(flow, .*, got 'covariates'"):
        hr.diagnose(hr.MAF(1), np.zeros((30, 1)), covariates=np.ones(2))
    with pytest.raises(ValueError, match="x: expected shape"):
        hr.diagnose_sequences(flow, np.zeros(30))


def test_the_verdict_is_the_second_printed_paragraph(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("headrace._base.layout.WIDEST", 1000)
    x = autoregression(4, 300, "verdict")
    for reflection, beginning in ((0.8, "Very good: "), (0.0, "Wrong: at least ")):
        found = hr.diagnose_sequences(flow_of(reflection), x)
        assert found.verdict.startswith(beginning)
        shown = str(found).splitlines()[2 : 2 + len(found.sentences)]
        assert found.summary()["verdict"] == found.verdict == " ".join(shown)


def test_the_picture_has_every_cell():
    figure = pytest.importorskip("matplotlib.figure").Figure
    found = hr.diagnose_sequences(flow_of(0.8), autoregression(2, 100, "picture"))
    axis = figure().subplots()
    picture._shares(axis, found.integral_transform)
    values, edges, _ = axis.patches[-1].get_data()
    np.testing.assert_allclose(values, found.integral_transform[:, 0] / 200)
    np.testing.assert_allclose(edges, np.linspace(0, 1, 21))


def test_integers_have_no_density():
    with pytest.raises(
        TypeError, match="x: expected floats, because latent values are those of a density, got integers"
    ):
        hr.diagnose_sequences(hr.WaveNet(layers=2, channels=4), np.zeros((2, 50, 1), "int16"))
