"""Affine coupling, the transform of RealNVP (eq. 35-36)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .maps import apply_map, arrange
from .network import Network, with_context


@dataclass(frozen=True)
class Coupling:
    """A coupling whose ``passive`` coordinates are unchanged, and determine the parameters of all other coordinates."""

    network: Network
    features: int
    passive: Sequence[int]
    map: str = "affine"
    scale: str = "soft_clamp"
    slope: float = 1e-3
    formula: str = "to_data"
    bound: float | tuple[float, float] = 5.0
    min_bin: float = 1e-3
    outputs: tuple[str, ...] | None = None  # by default the map's order
    layout: str = "interleaved"

    def forward(self, z, context=None):
        return self._apply(z, context, inverse=self.formula != "to_data")

    def inverse(self, x, context=None):
        return self._apply(x, context, inverse=self.formula != "to_latent")

    def _apply(self, given, context, inverse):
        given = np.asarray(given, np.float64)
        active = [i for i in range(self.features) if i not in self.passive]
        out = self.network(with_context(given[:, list(self.passive)], context))
        params = arrange(out, len(active), self.map, self.outputs, self.layout)
        value = given.copy()
        value[:, active], log_det = apply_map(
            given[:, active], params, self.map, self.scale, self.slope, inverse, bound=self.bound, min_bin=self.min_bin
        )
        return value, log_det
