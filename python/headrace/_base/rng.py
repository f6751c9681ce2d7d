"""``rng=`` beside ``seed=``, by SPEC 7 of Scientific Python: integers, sequences of them, and objects of NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from headrace._base import arguments as check

F = TypeVar("F", bound=Callable[..., Any])

# A string, because NumPy imports `numpy.random` on first use only, which takes a tenth of the time of `import numpy`.
Rng: TypeAlias = "int | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None"

EXPECTED = "an integer, a sequence of integers, a SeedSequence, a BitGenerator or a Generator of NumPy"


def seed_of(rng: Any, bits: int) -> int:
    """The seed that belongs to `rng`: the integer that it is, or one of `bits` bits drawn from it.

    A generator draws it, and its state moves on; the same sequence, or SeedSequence, always has the same.
    """
    if isinstance(rng, np.random.BitGenerator):
        rng = np.random.Generator(rng)
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**bits))
    if np.iterable(rng) and not isinstance(rng, (str, bytes)):
        rng = np.random.SeedSequence(list(check.integers("rng", rng)))
    if isinstance(rng, np.random.SeedSequence):
        return int(rng.generate_state(1, np.uint64)[0]) >> (64 - bits)
    return check.integer("rng", rng, expected=EXPECTED)


def seeded(owner: str, keywords: dict[str, Any], bits: int) -> dict[str, Any]:
    """Keywords of a call with a seed instead of `rng`."""
    rng = keywords.pop("rng", None)
    if rng is None:
        return keywords
    if keywords.get("seed") is not None:
        raise TypeError(f"rng: expected one of seed and rng in {owner}, got both")
    return {**keywords, "seed": seed_of(rng, bits)}


def takes_rng(function: F) -> F:
    """Give a function, which names ``rng`` beside ``seed``, the seed alone."""

    @functools.wraps(function)
    def called(*given: Any, **keywords: Any) -> Any:
        if "rng" in keywords:
            keywords = seeded(function.__qualname__, keywords, 63)
        return function(*given, **keywords)

    return called  # type: ignore[return-value]
