"""A transform of some columns, which leaves all others unchanged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OnColumns:
    transform: Any
    columns: Sequence

    def _apply(self, run, value, context):
        value = np.array(value, np.float64)
        value[:, list(self.columns)], log_det = run(value[:, list(self.columns)], context)
        return value, log_det

    def forward(self, z, context=None):
        return self._apply(self.transform.forward, z, context)

    def inverse(self, x, context=None):
        return self._apply(self.transform.inverse, x, context)
