"""The flow of a dual ascent, which is indexed by steps from the data's side, and the history of an ascent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._fit.history import History
from headrace._flow.bases import Base
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform


@public("headrace.ascent")
@dataclass
class AscentHistory:
    """The history of an ascent. Log-likelihoods are means over the rows in nats, in the data's units."""

    log_likelihood: list[float] = field(default_factory=list)
    """Log-likelihoods of the training rows as fitted: of the standardised data, then after each step."""
    validation_log_likelihood: list[float] = field(default_factory=list)
    """Log-likelihoods of the held-out rows; empty without held-out rows."""
    coordinates: list[NDArray[np.float64]] = field(default_factory=list, compare=False)  # `==` of arrays is an array
    """L of eq. 23 for each coordinate under each step's map, shape (features,): the mean over training rows of log φ'
    − λ φ²/2, and ½ log(λ/2π), in the latent side's units; NaN in columns without spread. Coordinates of kinks on the
    CPU; an empty list otherwise."""
    seconds: list[float] = field(default_factory=list)
    """For each log-likelihood the seconds since the fit began."""
    best_step: int = 0
    """The step after which the flow ends: the best one on held-out rows, or the last step without held-out rows."""
    stopped: str = "steps"
    """Why the ascent ended: "steps" (all done), "patience", "time_budget", "constant" (no column has a spread) or
    "interrupted" (Ctrl-C during the ascent or the joint training)."""
    lengths: dict[int, float] = field(default_factory=dict)
    """The held-out loss after the joint training for each number of steps that competed."""
    refinement: History | None = None
    """The history of the joint training after the ascent; None without a joint training."""
    refined: bool = False
    """Whether the flow is the result of the joint training. Otherwise it is the ascent up to `best_step`, which is kept
    if its loss on held-out rows is less."""

    def __repr__(self) -> str:
        """The number of steps, the best step and log-likelihood, the reason for the end, and the joint training."""
        judged = self.validation_log_likelihood or self.log_likelihood
        best = f"{judged[self.best_step]:.4f}" if judged else "none"
        return (
            f"AscentHistory(steps={max(len(judged) - 1, 0)}, best_step={self.best_step}, best={best}, "
            f"stopped={self.stopped!r}, refinement={self.refinement!r}, refined={self.refined})"
        )


@storable
class AscentFlow(Flow):
    """The flow of ascent steps that `DualAscentFlow.fit` returns.

    ``flow[:t]`` is the density ρ̃_t after t steps **from the data's side** (eq. 3-5): the standardised data pass
    the first t steps, and the base is the density of the results. The index of a plain `Flow` counts transforms from
    the latent side. ``len(flow)`` is the number of steps; `transforms` has the transforms of all steps, from latent to
    data like in every flow.

    Args:
        steps: The transforms of each step, in latent → data order; the first step is next to the data.
        standardize: The standardisation before the first step.
        base: The base; by default `StandardNormal`.
        support: The `Support` at the data end for bounded or periodic columns, or several, from latent to data; by
            default none.
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        steps: list[list[Transform]],
        standardize: Standardize,
        base: Base | None = None,
        *,
        support: Support | Sequence[Support] = (),
        dtype: DTypeLike = "float32",
    ) -> None:
        self._lengths = tuple(len(step) for step in steps)
        chain = [t for step in reversed(steps) for t in step]
        ends = (support,) if isinstance(support, Support) else support
        super().__init__([*chain, standardize, *ends], base, dtype=dtype)

    def __len__(self) -> int:
        """The number of steps."""
        return len(self._lengths)

    @overload
    def __getitem__(self, index: slice) -> AscentFlow: ...
    @overload
    def __getitem__(self, index: int) -> list[Transform]: ...
    def __getitem__(self, index: slice | int) -> Any:
        """``flow[:t]``: the flow after t steps from the data's side; ``flow[i]``: the transforms of one step.

        The transforms are copies; the transforms of one step are in latent → data order, on the CPU.
        """
        if not isinstance(index, slice):
            return self._by_step()[check.index("index", index, len(self))]
        if index.start not in (None, 0) or index.step not in (None, 1):
            raise TypeError(f"index: expected a slice flow[:t], or an int for one step, got {index!r}")
        return self._supported(self._support(), len(range(len(self))[index]))

    def _standardize(self) -> Standardize:
        """The standardisation before the first step, on the CPU."""
        found = self._chain[sum(self._lengths)]
        assert isinstance(found, Standardize)
        return found.to("cpu")

    def _support(self) -> list[Support]:
        """The supports as a list, on the CPU; empty for a flow without a support."""
        return [end.to("cpu") for end in self._chain[sum(self._lengths) + 1 :] if isinstance(end, Support)]

    def _supported(self, ends: Sequence[Support], count: int | None = None) -> AscentFlow:
        """The flow of the first `count` steps, by default of all steps, extended by the supports `ends`."""
        flow = AscentFlow(self._by_step()[:count], self._standardize(), self.base, support=ends, dtype=self._dtype)
        return self._placed_here(flow)

    def _by_step(self) -> list[list[Transform]]:
        """The transforms of each step, from the data's side, on the CPU."""
        chain, end, steps = list(self._transforms_on(None)), sum(self._lengths), []
        for length in self._lengths:
            steps.append(chain[end - length : end])
            end -= length
        return steps

    def _header(self) -> dict[str, Any]:
        return {**super()._header(), "steps": list(self._lengths)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        lengths = check.integers("steps", stored.items("steps"))
        self = super()._from_file(stored)
        ends = len(self._chain)
        while ends and isinstance(self._chain[ends - 1], Support):
            ends -= 1
        if sum(lengths) != ends - 1 or not isinstance(self._chain[ends - 1], Standardize):
            raise ValueError(f"steps: expected a sum of {ends - 1} and a Standardize behind them, got {sum(lengths)}")
        self._lengths = lengths
        return self

    def __repr__(self) -> str:
        """The class name, the number of features and of steps, and the base."""
        return f"AscentFlow(features={self.features}, steps={len(self)}, base={self._base!r})"
