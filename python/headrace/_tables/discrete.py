"""A column with a probability for each value: classes, inputs of the network, and whole numbers beyond the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats


@dataclass(frozen=True)
class Discrete:
    """A column with classes."""

    column: int
    """The index of the column in the rows."""
    values: tuple[float, ...]
    """The value of each class, ascending; NaN, for missing values, is the last."""
    rest: bool = False
    """Whether all other values are one additional class, and have a density."""
    step: float = 0.0
    """The gap between whole numbers; whole numbers beyond the outermost values have a small probability."""
    mean: float = 0.0
    scale: float = 1.0
    """Scale of whole numbers, which are network inputs in addition to the columns of the classes."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.values) + self.rest

    @property
    def logits(self) -> int:
        """The number of logits: one for each class, but a single one for two classes, the first of which has the logit
        0.
        """
        return 1 if self.classes == 2 else self.classes

    @property
    def width(self) -> int:
        """The number of network inputs for this column."""
        return self.logits + self.is_count

    @property
    def is_count(self) -> bool:
        """Whether the value is a network input in addition to the indicators of classes."""
        return self.step > 0.0 and self.classes > 2

    def codes(self, x: NDArray[Any]) -> NDArray[np.intp]:
        """The class of each value; -1 for a value without a class."""
        known = np.array(self.values)
        numbers = known[~np.isnan(known)].astype(x.dtype)
        at = np.minimum(np.searchsorted(numbers, x), max(numbers.size - 1, 0))
        codes = np.where(numbers[at] == x, at, -1) if numbers.size else np.full(len(x), -1)
        if self.rest:
            codes = np.where(codes < 0, len(known), codes)
        return np.where(np.isnan(x), numbers.size if numbers.size < known.size else -1, codes)

    def inputs(self, codes: NDArray[np.intp], x: NDArray[Any]) -> Floats:
        """Inputs of the network, shape (rows, width): indicators of the classes and, for counts, the standardised
        value.
        """
        inputs = np.zeros((len(codes), self.width))
        if self.classes == 2:
            inputs[:, 0] = codes == 1
        else:
            rows = np.flatnonzero(codes >= 0)
            inputs[rows, codes[rows]] = 1.0
        if self.is_count:
            inputs[:, -1] = np.nan_to_num((x - self.mean) / self.scale)
        return inputs

    def log_probs(self, logits: Floats) -> Floats:
        """Log probabilities of the classes, shape (rows, classes)."""
        if self.classes == 2:
            logits = np.concatenate([np.zeros_like(logits[:, :1]), logits[:, :1]], axis=1)
        logits = logits[:, : self.classes].astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def beyond(self, x: NDArray[Any]) -> Floats:
        """Log probabilities of whole numbers, given that they are beyond the classes; each step outwards halves a
        probability.
        """
        low, high = np.nanmin(self.values), np.nanmax(self.values)
        sides = 1 if low == 0.0 else 2
        steps = np.where(x > high, x - high, low - x if sides == 2 else np.inf) / self.step
        is_one = (steps > 0) & (steps == np.round(steps))
        return np.where(is_one, -np.log(2.0) * np.where(is_one, steps, 0.0) - np.log(sides), -np.inf)
