"""Maps: invertible functions of one coordinate, each as a Python function, and the coupling kernels that apply them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import additive_spline as additive_splines
from . import dual_ascent as bent
from . import logistic_mixture as mixture
from . import rq_spline as spline
from .scales import LOG_SCALES


class Options(NamedTuple):
    """The settings of a map, besides its parameters."""

    scale: str = "soft_clamp"
    slope: float = 1e-3
    bound: float | tuple[float, float] = 5.0
    min_bin: float = 1e-3

    def log_scale(self, raw):
        return LOG_SCALES[self.scale](raw, self.slope)


class Map(NamedTuple):
    """A map's named parameters, in the order of the last axis of ``params``, and the map itself.

    A parameter is a single value, unless ``numbers`` has a function from the number of bins to the parameter's number
    of values. ``depth`` is the length of the map's arithmetic relative to an affine map's: a factor of allowed errors.
    """

    parameters: tuple[str, ...]
    apply: Callable  # (value, params, options, inverse) -> (value, log-derivative), all elementwise
    numbers: Callable | None = None
    depth: int = 1

    @property
    def has_bins(self):
        """Whether the number of parameters of a coordinate depends on the number of bins."""
        return self.numbers is not None

    def sizes(self, bins=8):
        """The number of values of each named parameter of one coordinate."""
        return dict.fromkeys(self.parameters, 1) if self.numbers is None else self.numbers(bins)

    def count(self, bins=8):
        """The number of parameters of a coordinate: the length of the last axis of ``params``."""
        return sum(self.sizes(bins).values())

    def bins(self, count):
        """The number of bins with which a coordinate has ``count`` parameters."""
        return next(bins for bins in range(2, 65) if self.count(bins) == count)


def affine(value, params, options, inverse):
    """The map ``shift + scale value``, and its inverse ``(value - shift) / scale`` (eq. 35-36 for one coordinate)."""
    shift, log_s = params[..., 0], options.log_scale(params[..., 1])
    if inverse:
        return (value - shift) * np.exp(-log_s), -log_s
    return shift + np.exp(log_s) * value, log_s


def additive(value, params, options, inverse):
    """The map ``shift + value``, and its inverse: the affine map of scale one."""
    shift = params[..., 0]
    return (value - shift if inverse else value + shift), np.zeros_like(value)


def spline_of(ends, tails, derivatives):
    """A spline whose bins have a least size, with `derivatives` more derivatives than bins."""
    apply, numbers = additive_splines.additive_spline(ends, tails), additive_splines.counts(derivatives)
    # Rounding errors of the ends of bins are relative to the interval, of which a bin may be only a thousandth.
    return Map(("width", "height", "derivative"), apply, numbers, depth=16)


MAPS = {
    "affine": Map(("shift", "scale"), affine),
    "additive": Map(("shift",), additive),
    "rq_spline": Map(
        ("width", "height", "derivative"), spline.rq_spline, spline.count, depth=8
    ),  # the map has a softmax, sums of knots, and quotients
    "rq_spline_nflows": spline_of("one", "identity", -1),
    "rq_spline_free": spline_of("free", "linear", 1),
    "rq_spline_flowjax": spline_of("free", "identity", 1),
    "rq_spline_flowjax17": spline_of("halved", "identity", 1),
    "rq_spline_circular": spline_of("shared", "periodic", 0),
    "dual_ascent": Map(bent.NAMES, bent.dual_ascent),
    "logistic_mixture": Map(mixture.NAMES, mixture.logistic_mixture, mixture.count, depth=2),
}


def arrange(out, active, map, outputs=None, layout="interleaved"):
    """A network's outputs as ``(rows, active, n_params)``, with parameters in the map's order.

    ``outputs`` has the parameters' names in the network's order. The layout "interleaved" lists all values of one
    coordinate after another; "blocked" lists, for one name after another, the values of all coordinates.
    """
    rows, outputs = len(out), outputs or MAPS[map].parameters
    sizes = MAPS[map].sizes(MAPS[map].bins(out.shape[1] // active))
    widths = [sizes[name] for name in outputs]
    if layout == "interleaved":
        parts = np.split(out.reshape(rows, active, sum(widths)), np.cumsum(widths)[:-1], axis=2)
    else:
        parts = np.split(out, active * np.cumsum(widths)[:-1], axis=1)
    named = {name: part.reshape(rows, active, sizes[name]) for name, part in zip(outputs, parts, strict=True)}
    return np.concatenate([named[name] for name in MAPS[map].parameters], axis=2)


def apply_map(value, params, map="affine", scale="soft_clamp", slope=1e-3, inverse=False, *, bound=5.0, min_bin=1e-3):
    """Apply a map to each coordinate of each row; returns ``(rows, n)`` and the summed log-derivatives ``(rows,)``."""
    value, params = np.asarray(value, np.float64), np.asarray(params, np.float64)
    value, log_derivative = MAPS[map].apply(value, params, Options(scale, slope, bound, min_bin), inverse)
    return value, log_derivative.sum(axis=1)


def coupling_forward(z, params, map="affine", scale="soft_clamp", slope=1e-3, *, bound=5.0, min_bin=1e-3):
    """Map latent to data, given each coordinate's parameters ``(rows, active, n_params)`` (eq. 35)."""
    return apply_map(z, params, map, scale, slope, bound=bound, min_bin=min_bin)


def coupling_inverse(x, params, map="affine", scale="soft_clamp", slope=1e-3, *, bound=5.0, min_bin=1e-3):
    """Map data to latent (eq. 36, with the brackets that the equation lacks: ``(x - shift) / scale``)."""
    return apply_map(x, params, map, scale, slope, inverse=True, bound=bound, min_bin=min_bin)
