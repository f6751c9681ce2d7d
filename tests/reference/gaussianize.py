"""Fixed marginal splines: a rational quadratic function through given points, with straight lines beyond them."""

from dataclasses import dataclass

import numpy as np

from .rq_spline import evaluate, find_bin


@dataclass(frozen=True)
class Gaussianize:
    """A spline for each column: ``data`` and ``slopes`` have shape (features, knots), ``latent`` has shape (knots,)."""

    data: np.ndarray
    latent: np.ndarray
    slopes: np.ndarray

    def forward(self, z, context=None):
        return self._run(np.asarray(z, np.float64), inverse=True)

    def inverse(self, x, context=None):
        return self._run(np.asarray(x, np.float64), inverse=False)

    def _run(self, given, inverse):
        x, slopes = np.asarray(self.data, float), np.asarray(self.slopes, float)
        y = np.broadcast_to(self.latent, x.shape)
        knots = [np.broadcast_to(a, (*given.shape, a.shape[1])) for a in (x, y, slopes)]
        side, other = (y, x) if inverse else (x, y)
        inside = np.clip(given, side[:, 0], side[:, -1])
        result, log_derivative = evaluate(find_bin(inside, *knots, inverse), inside, inverse)
        for end, is_beyond in ((0, given < side[:, 0]), (-1, given > side[:, -1])):
            slope = 1.0 / slopes[:, end] if inverse else slopes[:, end]
            line = other[:, end] + (given - side[:, end]) * slope
            result = np.where(is_beyond, line, result)
            log_derivative = np.where(is_beyond, np.log(slope), log_derivative)
        return result, log_derivative.sum(axis=1)
