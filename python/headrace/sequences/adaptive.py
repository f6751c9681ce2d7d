"""Linear prediction by the spectrum of the past, and a running scale, as a transform of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._core import cpu
from headrace._flow.program.module import Block
from headrace.sequences.program import Link
from headrace.sequences.sequential import OverTime
from headrace.sequences.settings import MOST_STEPS, MOST_UNITS, RUNNING

if TYPE_CHECKING:
    from typing_extensions import Self

    from headrace._base.types import Array

_SIZES, _NUMBERS = ("order", "window", "every"), ("floor", "ceiling", "start", "damping")
BEYOND = 1e-3  # the share of steps whose running size is above the ceiling that a fit sets
_SCALE, _LONGEST = 40, 320  # steps of the scale and of the longest running size: cpp/core/sequences/adaptive.hpp


@storable
class AdaptivePrediction(OverTime):
    """A transform of sequences: data are a prediction by the steps before and a filter computed from them, plus a
    scaled residual.

    x[t] = Σᵢ a[i] x[t − i] + s[t] z[t], each feature separately. Each `every` steps from the first one, the
    coefficients a are solved again (Levinson 1947) from the autocorrelation of the `window` steps before, so that they
    follow a spectrum that changes; s[t] is the mean size of the last 40 residuals before t, from `floor` to `ceiling`.
    Both are functions of the past alone: there are no parameters. A `CausalConvolution` with ``sizes=True`` at its
    latent side reads logarithms of three running sizes, of 8, 40 and 320 steps.

    Before the first step x is zero, and the sizes of residuals are `start`. From data to latent all gradients are
    supported, through the solutions; from latent to data none.

    Args:
        features: Number of values in each step.
        order: Steps before that take part in a prediction.
        window: Steps before that determine its coefficients.
        every: Steps from one solution to the next.
        floor: The least running size, in units of x. Its square is also added to the variance of each step of the
            window, so that rounding and silence have a solution.
        ceiling: The largest running size.
        start: The size of each residual before the first step.
        damping: Its power i is a factor of a[i], from 0 to 1. With 1, resonances of drawn steps become sharper from
            solution to solution, and signals become too loud.

    Raises:
        ValueError: an option out of its range.

    >>> import headrace as hr
    >>> network = hr.CausalConvolution(dilations=[1, 2], channels=8, sizes=True)
    >>> flow = hr.SequenceFlow([network, hr.AdaptivePrediction(order=8, window=160)])
    >>> flow.sample(2, steps=50, seed=0).shape
    (2, 50, 1)
    """

    def __init__(
        self,
        features: int = 1,
        *,
        order: int = 24,
        window: int = 480,
        every: int = 20,
        floor: float = 1e-3,
        ceiling: float = 10.0,
        start: float = 1.0,
        damping: float = 0.997,
    ) -> None:
        super().__init__(check.integer("features", features, least=1, most=MOST_UNITS), 0, 0, 1, None)
        self.order = check.integer("order", order, least=1, most=MOST_UNITS)
        self.window = check.integer("window", window, least=self.order + 1, most=MOST_STEPS)
        self.every = check.integer("every", every, least=1, most=MOST_STEPS)
        self.floor = check.number("floor", floor, above=0.0, below=np.inf)
        self.ceiling = check.number("ceiling", ceiling, least=self.floor, below=np.inf)
        self.start = check.number("start", start, above=0.0, below=np.inf)
        self.damping = check.number("damping", damping, above=0.0, below=np.nextafter(1.0, 2.0))

    @property
    def field(self) -> int:
        """The number of steps before a step on which it depends."""
        return self.window + self.every - 1 + _LONGEST

    @property
    def is_identity(self) -> bool:
        """Whether its bounds and start are the defaults: as long as that is so, `SequenceFlow.fit` sets them."""
        return (self.floor, self.ceiling, self.start) == (1e-3, 10.0, 1.0)

    def bounded(self, values: list[Array], step: float | None) -> Self:
        """This transform with bounds and start for standardised sequences, (steps, features) each, on a grid or
        without.

        The ceiling is the running size of 40 steps that one step in a thousand exceeds: above it, a network has learned
        too little to bring a drawn signal back. The floor is a thousandth of the ceiling, or the size of rounding
        noise. The start is the mean size of the first 40 residuals of the sequences, among which the mean of all steps
        is one.
        """
        given = self._header()
        probe = type(self)(**given | {"start": self.floor})
        core: Any = cpu.SequenceChainF64(self.features, [probe._link(np.dtype(np.float64), "exact")], None)
        weights = core.weights(np.zeros(0), [])
        logs = [core.run_link(weights, 0, True, x[None].astype(np.float64), None)[2][0, :, 1::RUNNING] for x in values]
        sizes = np.exp(np.concatenate(logs))
        ceiling = float(np.quantile(sizes, 1.0 - BEYOND))
        floor = 1e-3 * ceiling if step is None else min(step / 6.0, ceiling)
        first = [sizes.mean(), *(float(np.exp(one[_SCALE]).mean()) for one in logs if len(one) > _SCALE)]
        start = min(max(float(np.mean(first)), floor), ceiling)
        return type(self)(**given | {"floor": floor, "ceiling": ceiling, "start": start})

    def _vector(self) -> NDArray[Any]:
        return np.zeros(0)

    def _blocks(self) -> list[tuple[str, Block]]:
        return []

    def _link(self, dtype: np.dtype[Any], products: str) -> Link:
        return "adaptive", *(getattr(self, name) for name in (*_SIZES, *_NUMBERS))

    def _header(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("features", *_SIZES, *_NUMBERS)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        sizes = {name: stored.size(name, least=1) for name in ("features", *_SIZES)}
        return cls(**sizes, **{name: stored.take(name) for name in _NUMBERS})

    def __repr__(self) -> str:
        """The options."""
        named = ", ".join(f"{name}={value:.7g}" for name, value in self._header().items() if name != "features")
        return f"AdaptivePrediction({self._features}, {named})"
