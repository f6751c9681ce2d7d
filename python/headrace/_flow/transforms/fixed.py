"""Transforms without parameters: permutations and standardisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.program.module import Block
from headrace._flow.transforms.transform import Transform


class Fixed(Transform):
    """A transform without parameters: results have the dtype of the argument, and each dtype has its own program."""

    def __init__(self, features: int) -> None:
        """`features`: the number of coordinates."""
        super().__init__(features, 0, None)
        self._take_parameters(np.zeros(0, np.float32))

    def _blocks(self) -> list[tuple[str, Block]]:
        return []


@storable
class Permutation(Fixed):
    """A transform that reorders coordinates: forward computes ``x[:, i] = z[:, order[i]]``; log_det is 0.

    A permutation inside of a flow takes no time, because it only changes indices in the compiled chain.

    >>> import numpy as np, headrace as hr
    >>> hr.transforms.Permutation([2, 0, 1]).forward(np.array([[10.0, 11.0, 12.0]]))[0].tolist()
    [[12.0, 10.0, 11.0]]
    """

    def __init__(self, order: Sequence[int]) -> None:
        """`order`: a permutation of 0, ..., features - 1."""
        self.order = check.permutation("order", order)
        super().__init__(len(self.order))

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        return [StepSpec("PermutationStep", order=self._sources(inverted))]

    def _restricted(self, kept: tuple[int, ...], inverted: bool = False) -> tuple[Transform | None, tuple[int, ...]]:
        order = self._sources(inverted)
        return None, tuple(order[i] for i in kept)

    def _sources(self, inverted: bool) -> list[int]:
        """The index of the source coordinate for each coordinate of the result."""
        return np.argsort(self.order).tolist() if inverted else list(self.order)

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "order": list(self.order)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, order = stored.size("features", least=1), stored.items("order")
        check.length("order", order, features)
        return cls(order)

    def __repr__(self) -> str:
        """The class name and the order."""
        return f"Permutation({list(self.order)})"


@storable
class Standardize(Fixed):
    """x = mean + std · z for each coordinate, so that inverse maps data to mean 0 and standard deviation 1.

    At the data end of a flow the subtraction is computed in float64 for any dtype of the flow, so that data far from
    zero stay precise. The mean and the standard deviation are not trainable.

    Args:
        mean, std: Shape (features,); std is positive.

    >>> import numpy as np, headrace as hr
    >>> hr.transforms.Standardize([1.0, 2.0], [1.0, 4.0]).inverse(np.array([[1.0, 6.0]]))[0].tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean = check.vector("mean", mean, None)
        self.std = check.vector("std", std, self.mean.size, positive=True)
        super().__init__(self.mean.size)

    @property
    def is_identity(self) -> bool:
        """Whether the transform is the identity, which `Flow.fit` replaces at the data end of a flow."""
        return not self.mean.any() and bool((self.std == 1).all())

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        if self.is_identity:
            return []
        return [StepSpec("StandardizeStep", inverted=inverted, mean=self.mean.tolist(), std=self.std.tolist())]

    def _part(self, kept: tuple[int, ...]) -> Transform:
        return Standardize(self.mean[list(kept)], self.std[list(kept)])

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, mean, std = stored.size("features", least=1), stored.numbers("mean"), stored.numbers("std")
        check.length("mean", mean, features)
        return cls(mean, std)

    def __repr__(self) -> str:
        """The class name, the mean and the standard deviation."""
        return f"Standardize(mean={self.mean.tolist()}, std={self.std.tolist()})"
