"""The argument ``rng`` beside ``seed``, by SPEC 7 of Scientific Python: integers, sequences, NumPy generators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from headrace._base import arguments as check

F = TypeVar("F", bound=Callable[..., Any])

# A string, because `import numpy` does not import `numpy.random`, which would add a tenth to the time of the import.
Rng: TypeAlias = "int | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None"

EXPECTED = "an integer, a sequence of integers, a SeedSequence, a BitGenerator or a Generator of NumPy"


def seed_of(rng: Any, bits: int) -> int:
    """The seed for `rng`: the integer itself, or an integer of `bits` bits drawn from a generator or sequence.

    Drawing changes the state of a generator; the same sequence or SeedSequence always has the same seed.
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
    """The keywords of a call, with ``rng`` replaced by the seed that it determines."""
    rng = keywords.pop("rng", None)
    if rng is None:
        return keywords
    if keywords.get("seed") is not None:
        raise TypeError(f"rng: expected one of seed and rng in {owner}, got both")
    return {**keywords, "seed": seed_of(rng, bits)}


def takes_rng(function: F) -> F:
    """Let a function that has ``seed`` and ``rng`` receive the seed only."""

    @functools.wraps(function)
    def called(*given: Any, **keywords: Any) -> Any:
        if "rng" in keywords:
            keywords = seeded(function.__qualname__, keywords, 63)
        return function(*given, **keywords)

    return called  # type: ignore[return-value]
