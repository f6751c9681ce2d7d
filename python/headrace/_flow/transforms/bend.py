"""The arguments of planar transforms and of flows of planar transforms."""

from typing import Annotated, TypedDict

from headrace._base import arguments as check
from headrace._base.keywords import argument
from headrace._core.maps import VECTOR_MAPS
from headrace._core.settings import NetworkKeywords

_NAMES = VECTOR_MAPS["planar"].variants
_SLOPE = "of leaky_relu below zero, between 0 and 1"


class Bend(TypedDict, total=False):
    """The shape of a planar transform's bend.

    Args:
        nonlinearity: h, "tanh" or "leaky_relu".
        negative_slope: Of leaky_relu below zero, between 0 and 1.
    """

    nonlinearity: Annotated[str, argument("tanh", check.one_of(*_NAMES), option=" or ".join(_NAMES))]
    negative_slope: Annotated[float, argument(0.2, check.real(above=0.0, below=1.0), option=_SLOPE)]


class PlanarBend(NetworkKeywords, Bend, total=False):
    """Keywords of a planar transform."""
