"""The keywords of `headrace.auto`, whose docstring explains them."""

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import numpy as np
from numpy.typing import DTypeLike

from headrace._arrays.caller import Array
from headrace._base import arguments as check
from headrace._base.keywords import argument
from headrace._base.rng import Rng
from headrace._flow.fit_arguments import EFFORTS
from headrace._flow.transforms.support import ColumnBounds, ColumnPeriods
from headrace.choosing.candidates import FAMILIES


def _families(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not np.iterable(value):
        raise TypeError(f"{name}: expected a sequence of {', '.join(FAMILIES)}, got {check.kind_of(value)}")
    return tuple(dict.fromkeys(check.choice(name, one, FAMILIES) for one in value))


class OfTable(TypedDict, total=False):
    """Keywords of `headrace.auto` about reading the table."""

    context: Annotated["Array | None", argument()]
    weights: Annotated["Array | None", argument()]
    names: Annotated["Sequence[str] | None", argument()]
    discrete: Annotated[Any, argument("auto")]
    spread: Annotated[Any, argument("auto")]
    missing: Annotated[str, argument("refuse", check.one_of("refuse", "drop"))]
    categories: Annotated[Any, argument("auto")]


class OfSearch(TypedDict, total=False):
    """Keywords of `headrace.auto` about the search for a density."""

    families: Annotated["Sequence[str]", argument(FAMILIES, _families)]
    bounds: Annotated["ColumnBounds | None", argument()]
    periodic: Annotated["ColumnPeriods | None", argument()]
    dtype: Annotated["DTypeLike", argument("float32", check.float_dtype)]
    effort: Annotated[str, argument("normal", check.one_of(*EFFORTS))]
    keep: Annotated[bool, argument(False, check.truth)]
    seed: Annotated[int, argument(0, check.whole(most=2**31 - 1))]
    rng: Rng
    progress: Annotated[bool, argument(True)]


class AutoKeywords(OfTable, OfSearch, total=False):
    """All keywords of `headrace.auto`."""
