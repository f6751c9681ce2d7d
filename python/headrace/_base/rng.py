"""The argument ``rng`` beside ``seed``, by SPEC 7 of Scientific Python: an integer, a sequence or a NumPy generator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from headrace._base import arguments as check

F = TypeVar("F", bound=Callable[..., Any])

# The type is a string, because `import numpy` does not import `numpy.random`, which would take a tenth more time.
Rng: TypeAlias = "int | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None"

EXPECTED = "an integer, a sequence of integers, a SeedSequence, a BitGenerator or a Generator of NumPy"


def seed_of(rng: Any, bits: int) -> int:
    """The seed for `rng`: the integer itself, or an integer of `bits` bits drawn from a generator or sequence.

    A draw changes a generator's state; an equal sequence or SeedSequence always gives an equal seed.
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
    """The keywords of a call, in which ``rng`` is replaced by the ``seed`` that it determines."""
    rng = keywords.pop("rng", None)
    if rng is None:
        return keywords
    if keywords.get("seed") is not None:
        raise TypeError(f"rng: expected one of seed and rng in {owner}, got both")
    return {**keywords, "seed": seed_of(rng, bits)}


def takes_rng(function: F) -> F:
    """A decorator that replaces the argument ``rng`` of a call by ``seed`` before the function receives it."""

    @functools.wraps(function)
    def called(*given: Any, **keywords: Any) -> Any:
        if "rng" in keywords:
            keywords = seeded(function.__qualname__, keywords, 63)
        return function(*given, **keywords)

    return called  # type: ignore[return-value]
