"""Pictures of the spectrograms of signals, side by side in one scale of decibels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace.plot._source import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24  # the most panels
RANGE = 80.0  # the loudest cell of all panels is this many decibels above the darkest colour


def spectrograms(signals: Mapping[str, Any], *, rate: float = 1.0, window: int = 256) -> Figure:
    """Draw the power of signals over time and frequency, for example of recordings and of samples of a flow.

    A cell is the squared modulus of the Fourier transform of a window of steps, weighted by Hann's function; windows
    begin a quarter of their length apart. All panels have one scale: 0 dB is the loudest cell of all panels, and cells
    at -80 dB or below have the darkest colour.

    Args:
        signals: A dict of signals by title, each of shape (steps,) or (steps, 1), at least as long as a window.
        rate: The number of steps per second, for axes in seconds and Hz; 1 for axes in steps and periods per step.
        window: The number of steps in a window, at least 4.

    Returns:
        A matplotlib ``Figure``, with a panel for each signal.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `signals` is not a mapping, or a signal is not an array of numbers.
        ValueError: there are no signals or too many, or a signal has another shape, values that are not finite, or
            fewer steps than a window.

    >>> import headrace as hr
    >>> flow = hr.WaveNet(layers=4, channels=8)
    >>> figure = hr.plot.spectrograms({"one": flow.sample(1, steps=2000, seed=0)[0]}, rate=8000)
    >>> figure.axes[0].get_title("left")
    'one'
    """
    require()
    steps_a_second = check.number("rate", rate, above=0.0, below=np.inf)
    size = check.integer("window", window, least=4)
    opened = _opened(signals, size)
    powers = [_power(one, size) for one in opened.values()]
    most = max(float(power.max()) for power in powers)
    from headrace.plot import _figure

    with _figure.styled():
        figure, axes = _figure.grid(len(opened), 4.4, 2.9, most=3)
        for axis, (title, one), power in zip(axes, opened.items(), powers, strict=True):
            shade = _decibels(power, most)
            extent = (0.0, len(one) / steps_a_second, 0.0, 0.5 * steps_a_second)
            drawn = axis.imshow(shade.T, "viridis", origin="lower", aspect="auto", extent=extent, vmin=-RANGE, vmax=0.0)
            units = ("steps", "periods a step") if steps_a_second == 1.0 else ("seconds", "Hz")
            axis.set(title=title, xlabel=units[0], ylabel=units[1])
        figure.colorbar(drawn, ax=axes, label="dB")
    return figure


def _opened(signals: Any, size: int) -> dict[str, NDArray[Any]]:
    """The checked signals by title, each of shape (steps,) and float64."""
    if not isinstance(signals, Mapping):
        raise TypeError(f"signals: expected a mapping from titles to signals, got {check.kind_of(signals)}")
    if not 0 < len(signals) <= MOST:
        raise ValueError(f"signals: expected 1 to {MOST} signals, got {len(signals)}")
    found = {}
    for title, given in signals.items():
        name, one = f"signals[{title!r}]", np.asarray(given)
        if one.dtype.kind not in "iuf":
            raise TypeError(f"{name}: expected an array of numbers, got {check.kind_of(given)}")
        if one.ndim == 2 and one.shape[1] == 1:
            one = one[:, 0]
        if one.ndim != 1:
            expected = "shape (steps,) or (steps, 1)"
            raise ValueError(f"{name}: expected {expected}, got {one.shape}; draw channels one by one")
        if len(one) < size:
            raise ValueError(f"{name}: expected at least {size} steps, those of a window, got {len(one)}")
        if not np.isfinite(one).all():
            raise ValueError(f"{name}: expected finite values, got a NaN or an infinity")
        found[str(title)] = one.astype(np.float64)
    return found


def _power(signal: NDArray[Any], size: int) -> NDArray[Any]:
    """The power of each window and frequency, shape (windows, size // 2 + 1)."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, size)[:: max(size // 4, 1)]
    return np.asarray(np.square(np.abs(np.fft.rfft(windows * np.hanning(size + 1)[:-1], axis=1))))


def _decibels(power: NDArray[Any], most: float) -> NDArray[Any]:
    """The power relative to `most`, in decibels, limited to -`RANGE` from below; -`RANGE` if all signals are silent."""
    least = 10.0 ** (-RANGE / 10.0)
    relative = power / most if most > 0.0 else np.zeros_like(power)
    return np.asarray(10.0 * np.log10(np.maximum(relative, least)))
