"""Maps from unbounded values to a column's interval: e^y from one bound; between two, the logistic function or a
line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Support:
    """A map to supports: ``bounds`` has for each column (low, high), with None for no bound, or None, and ``periodic``
    has for each column a period, or None.

    ``linear``: whether a line maps [-1, 1] to an interval.
    """

    bounds: Sequence
    periodic: Sequence | None = None
    linear: bool = False

    def forward(self, z, context=None):
        z = np.asarray(z, np.float64)
        x, log_det = z.copy(), np.zeros(len(z))
        for c, (low, high) in enumerate(pair or (None, None) for pair in self.bounds):
            y = z[:, c]
            if low is not None and high is not None and self.linear:
                x[:, c] = low + (high - low) * (y + 1.0) / 2.0
                log_det += np.log((high - low) / 2.0)
            elif low is not None and high is not None:
                x[:, c] = low + (high - low) / (1.0 + np.exp(-y))
                log_det += np.log(high - low) - np.logaddexp(0.0, y) - np.logaddexp(0.0, -y)
            elif low is not None:
                x[:, c] = low + np.exp(y)
                log_det += y
            elif high is not None:
                x[:, c] = high - np.exp(-y)
                log_det -= y
        for c, (low, high) in self._periods():
            x[:, c] = low + (high - low) * np.mod((z[:, c] + 1.0) / 2.0, 1.0)
            log_det += np.log((high - low) / 2.0)
        return x, log_det

    def inverse(self, x, context=None):
        x = np.asarray(x, np.float64)
        z, log_det = x.copy(), np.zeros(len(x))
        for c, (low, high) in enumerate(pair or (None, None) for pair in self.bounds):
            below = None if low is None else x[:, c] - low
            above = None if high is None else high - x[:, c]
            if below is not None and above is not None and self.linear:
                z[:, c] = (below - above) / (high - low)
                log_det += np.log(2.0 / (high - low))
            elif below is not None and above is not None:
                z[:, c] = np.log(below / above)
                log_det += np.log(1.0 / below + 1.0 / above)
            elif below is not None:
                z[:, c] = np.log(below)
                log_det -= np.log(below)
            elif above is not None:
                z[:, c] = -np.log(above)
                log_det -= np.log(above)
        for c, (low, high) in self._periods():
            z[:, c] = 2.0 * np.mod((x[:, c] - low) / (high - low), 1.0) - 1.0
            log_det += np.log(2.0 / (high - low))
        return z, log_det

    def _periods(self):
        return [(c, period) for c, period in enumerate(self.periodic or ()) if period is not None]
