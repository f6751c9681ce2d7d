"""Masked autoregressive transforms: MAF (eq. 37-38), IAF (eq. 39-41), and the other two choices of `formula`,
`reads`."""

from dataclasses import dataclass

import numpy as np

from .maps import apply_map, arrange
from .network import Network, with_context


@dataclass(frozen=True)
class MaskedAutoregressive:
    """A transform in which ``formula`` names the side that is ``shift + scale * other side``, and ``reads`` names the
    side that the network sees.

    MAF is ``formula="to_data", reads="data"``: ``x_i = shift_i(x_<i) + scale_i(x_<i) z_i`` (eq. 37-38).
    IAF is ``formula="to_data", reads="latent"``: ``x_i = shift_i(z_<i) + scale_i(z_<i) z_i`` (eq. 39-41).
    """

    network: Network
    map: str = "affine"
    scale: str = "soft_clamp"
    slope: float = 1e-3
    formula: str = "to_data"
    reads: str = "data"
    bound: float | tuple[float, float] = 5.0
    min_bin: float = 1e-3
    outputs: tuple[str, ...] | None = None  # by default the map's order
    layout: str = "interleaved"

    def forward(self, z, context=None):
        return self._towards("data", z, context)

    def inverse(self, x, context=None):
        return self._towards("latent", x, context)

    def parameters(self, seen, context):
        """The network's outputs as ``(rows, features, n_params)``, with parameters in the map's order."""
        out = self.network(with_context(seen, context))
        return arrange(out, seen.shape[1], self.map, self.outputs, self.layout)

    def _towards(self, side, given, context):
        given = np.asarray(given, np.float64)
        inverse = self.formula != f"to_{side}"
        if self.reads != side:  # the network sees the given side
            return self._apply(given, self.parameters(given, context), inverse)
        built = np.zeros_like(given)
        log_det = np.zeros(len(given))
        # Each pass computes at least one more coordinate exactly, whatever the order.
        for _ in range(given.shape[1]):
            built, log_det = self._apply(given, self.parameters(built, context), inverse)
        return built, log_det

    def _apply(self, given, params, inverse):
        return apply_map(
            given, params, self.map, self.scale, self.slope, inverse, bound=self.bound, min_bin=self.min_bin
        )
