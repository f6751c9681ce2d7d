"""Cells of spectrograms are compared with SciPy's, and their axes with the signals."""

import numpy as np
import pytest
import scipy.signal

import headrace as hr

pytest.importorskip("matplotlib")


def tone(frequency, steps=3000, rate=8000, size=1.0):
    return size * np.sin(2 * np.pi * frequency * np.arange(steps) / rate)


@pytest.mark.parametrize("window", [64, 255])
def test_cells_are_those_of_scipy(window):
    rng = np.random.default_rng(0)
    given = {"noise": rng.standard_normal(2000), "a tone": 30.0 * tone(1000)[:, None]}
    figure = hr.plot.spectrograms(given, rate=8000, window=window)
    figure.draw_without_rendering()
    powers = []
    for x in given.values():
        _, _, found = scipy.signal.stft(
            x.ravel(), window="hann", nperseg=window, noverlap=window - window // 4, boundary=None, padded=False
        )
        powers.append(np.abs(found) ** 2)
    most = max(power.max() for power in powers)
    for axis, (title, x), power in zip(figure.axes, given.items(), powers, strict=False):
        shade = np.asarray(axis.images[0].get_array())
        wanted = np.maximum(10.0 * np.log10(power / most), -80.0)
        assert shade.shape == wanted.shape
        np.testing.assert_allclose(shade, wanted, atol=1e-6)
        assert axis.get_title("left") == title
        assert axis.get_xlim() == (0.0, len(x) / 8000)
        assert axis.get_ylim() == (0.0, 4000.0)
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("seconds", "Hz")
    assert len(figure.axes) == 3  # two panels have a bar of colours


def test_a_whisper_is_darker():
    """All panels have one scale: a tenth of the amplitude is 20 dB less."""
    figure = hr.plot.spectrograms({"voice": tone(1000), "whisper": tone(1000, size=0.1)}, rate=8000)
    loud, quiet = (np.asarray(axis.images[0].get_array()).max() for axis in figure.axes[:2])
    assert (loud, quiet) == (0.0, pytest.approx(-20.0, abs=1e-9))


def test_integers_silence_and_steps():
    figure = hr.plot.spectrograms({"silence": np.zeros((300, 1), "i2")})
    assert (np.asarray(figure.axes[0].images[0].get_array()) == -80.0).all()
    assert figure.axes[0].get_xlabel() == "steps"


@pytest.mark.parametrize(
    ("signals", "options", "error", "pattern"),
    [
        ([1.0], {}, TypeError, "signals: expected a mapping"),
        ({}, {}, ValueError, "signals: expected 1 to 24 signals, got 0"),
        ({"a": np.zeros((300, 2))}, {}, ValueError, r"signals\['a'\]: expected shape .*got \(300, 2\)"),
        ({"a": np.zeros(255)}, {}, ValueError, "expected at least 256 steps"),
        ({"a": np.full(300, np.nan)}, {}, ValueError, "expected finite values"),
        ({"a": ["x"] * 300}, {}, TypeError, "expected an array of numbers"),
        ({"a": np.zeros(300)}, {"rate": 0.0}, ValueError, "rate: expected"),
        ({"a": np.zeros(300)}, {"window": 3}, ValueError, "window: expected"),
    ],
)
def test_errors(signals, options, error, pattern):
    with pytest.raises(error, match=pattern):
        hr.plot.spectrograms(signals, **options)
