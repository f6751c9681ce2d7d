"""Sums of floats by integers, independent of the order of the terms.

Single values are summed exactly: each is an integer times 2^-1074, written in 32-bit digits, of which an int64 can sum
2^30 without a carry. All entries of a gradient have one scale, so that each entry is one int64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.group import Group
from headrace._base.types import Floats

Integers = NDArray[np.int64]

_LOWEST = -1074  # the exponent of the last bit of a float64
_WORDS = (1024 - _LOWEST) // 32 + 3  # the number of digits of a value, with digits for carries
_NAN, _INF, _MINUS_INF = _WORDS, _WORDS + 1, _WORDS + 2  # the indices of the counts of NaN, infinity and minus infinity
DIGITS = _WORDS + 3


def digits_of(values: Any) -> Integers:
    """The digits, shape (columns, DIGITS), of the sums over rows of values of shape (rows, columns)."""
    values = np.asarray(values, np.float64)
    _rows, columns = values.shape
    digits = np.zeros((columns, DIGITS), np.int64)
    finite = np.isfinite(values)
    if not finite.all():
        digits[:, _NAN] = np.isnan(values).sum(axis=0)
        digits[:, _INF], digits[:, _MINUS_INF] = (values == np.inf).sum(axis=0), (values == -np.inf).sum(axis=0)
        values = np.where(finite, values, 0.0)
    exponent = np.maximum(np.frexp(values)[1] - 53, _LOWEST)
    whole = np.ldexp(values, -exponent)
    sign, size = np.sign(whole).astype(np.int64), np.abs(whole).astype(np.int64)
    word, shift = np.divmod((exponent - _LOWEST).astype(np.int64), 32)
    low, high = (size & 0xFFFFFFFF) << shift, (size >> 32) << shift
    first = np.arange(columns) * DIGITS + word
    flat = digits.reshape(-1)
    for away, part in enumerate((low & 0xFFFFFFFF, (low >> 32) + (high & 0xFFFFFFFF), high >> 32)):
        np.add.at(flat, (first + away).ravel(), (sign * part).ravel())
    return digits


def _add_digits(total: Integers, value: float) -> None:
    """Add the digits of one value to those of a sum, shape (DIGITS,), without the arrays that `digits_of` makes."""
    if not math.isfinite(value):
        total[_NAN if math.isnan(value) else _INF if value > 0 else _MINUS_INF] += 1
        return
    exponent = max(math.frexp(value)[1] - 53, _LOWEST)
    whole = int(math.ldexp(value, -exponent))
    word, shift = divmod(exponent - _LOWEST, 32)
    sign, size = (-1 if whole < 0 else 1), abs(whole) << shift
    for away in range(3):
        total[word + away] += sign * (size >> 32 * away & 0xFFFFFFFF)


def value_of(digits: Integers) -> float:
    """The float64 nearest to a sum, from its digits of shape (DIGITS,)."""
    *words, nans, infinities, minus_infinities = digits.tolist()
    if nans or (infinities and minus_infinities):
        return math.nan
    if infinities or minus_infinities:
        return math.inf if infinities else -math.inf
    total = 0
    for word in reversed(words):
        total = (total << 32) + word
    try:
        return total / (1 << -_LOWEST)  # a quotient of integers is rounded once
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def exact_sum(group: Group, values: Any) -> Floats:
    """The sums over the rows of all ranks, shape (columns,), each rounded once, of values of shape (rows, columns)."""
    return np.array([value_of(digits) for digits in group.sum(digits_of(values))])


class FixedSum:
    """A sum of gradients as int64, with the sum of losses and the number of gradients that were too large.

    A gradient times 2^exponent is rounded to integers below 2^51 by adding a constant, which is so large that float64
    sums are integers. The exponent leaves room for gradients 2^7 times those of the preceding step, whose largest entry
    has a relative error of at most 2^-44.
    """

    _LIMIT = 2.0**51
    _ROUNDING = 1.5 * 2.0**52
    _OFFSET = int(np.float64(_ROUNDING).view(np.int64))
    _KEPT = 44
    _BLOCK = 1 << 15  # the number of entries that are added at a time, which fit in the cache

    def __init__(self, size: int) -> None:
        """An empty sum of gradients with `size` entries."""
        self.size = size
        self.parts: Integers = np.zeros(size + DIGITS + 1, np.int64)
        self._scaled = np.empty(min(size, self._BLOCK))
        self._is_empty = True

    @classmethod
    def exponent_for(cls, largest: float) -> int:
        """The exponent of the scale for gradients with this largest entry."""
        return min(max(cls._KEPT - math.frexp(largest)[1], -1000), 1000)

    def clear(self) -> None:
        """Set the sum to zero."""
        self.parts[self.size :] = 0
        self._is_empty = True  # the first gradient overwrites `parts`

    def add(self, gradient: NDArray[Any], exponent: int) -> None:
        """Add a gradient; a gradient that is too large or not finite is counted."""
        scale = math.ldexp(1.0, exponent)
        least, most = (float(end(initial=0.0)) * scale for end in (gradient.min, gradient.max))
        self.parts[-1] += not (least > -self._LIMIT and most < self._LIMIT)  # comparisons with NaN are false
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, self.size, self._BLOCK):
                part = gradient[begin : begin + self._BLOCK]
                whole = self.parts[begin : begin + part.size]
                scaled = whole.view(np.float64) if self._is_empty else self._scaled[: part.size]
                scaled[:] = part
                scaled *= scale
                scaled += self._ROUNDING
                digits = scaled.view(np.int64)
                digits -= self._OFFSET
                if not self._is_empty:
                    whole += digits
        self._is_empty = False

    def add_loss(self, loss: float) -> None:
        """Add a loss to the sum of losses."""
        _add_digits(self.parts[self.size : -1], loss)

    def over(self, group: Group) -> None:
        """Sum over all ranks, including those that added no gradient."""
        if self._is_empty:
            self.parts[: self.size] = 0
        self.parts, self._is_empty = group.sum(self.parts), False

    @property
    def is_too_large(self) -> bool:
        """Whether any gradient was too large or not finite."""
        return bool(self.parts[-1])

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return value_of(self.parts[self.size : -1])

    def read(self, gradient: NDArray[Any], exponent: int) -> None:
        """Write the sum to `gradient`, rounded to its dtype."""
        scale = math.ldexp(1.0, -exponent)
        for begin in range(0, self.size, self._BLOCK):
            part = self.parts[begin : min(begin + self._BLOCK, self.size)]
            scaled = self._scaled[: part.size]
            scaled[:] = part
            scaled *= scale
            gradient[begin : begin + part.size] = scaled

    def exponent_after(self, gradient: NDArray[Any], exponent: int) -> int:
        """The exponent for the next step, from the largest entry of the sum; `gradient`: the result of `read`."""
        largest = max(float(gradient.max(initial=0.0)), -float(gradient.min(initial=0.0)))
        if math.frexp(largest)[0] == 0.5 or not 1e-30 < largest < 1e30:  # rounding may have changed the power of 2
            entries = self.parts[: self.size]
            whole = max(int(entries.max(initial=0)), -int(entries.min(initial=0)))
            if not whole:
                return exponent
            largest = math.ldexp(whole, -exponent)
        return self.exponent_for(largest)
