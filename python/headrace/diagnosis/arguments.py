"""The arguments of `headrace.diagnose` other than flow and rows; the docstring of `diagnose` has their meanings."""

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from headrace._arrays.caller import Array
from headrace._base import arguments as check
from headrace._base.keywords import argument
from headrace._base.rng import Rng


class Diagnosed(TypedDict, total=False):
    """Keywords of `diagnose`."""

    weights: Annotated["Array | None", argument()]
    training: Annotated[Any, argument()]
    names: Annotated["Sequence[str] | None", argument()]
    context_names: Annotated["Sequence[str] | None", argument()]
    seed: Annotated[int, argument(0, check.whole(most=2**63 - 1))]
    rng: Rng
    progress: Annotated[bool, argument(True)]
