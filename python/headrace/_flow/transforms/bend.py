"""The keywords of planar and radial transforms, and of flows of planar transforms."""

from collections.abc import Sequence
from typing import Annotated, TypedDict

from numpy.typing import DTypeLike

from headrace._base import arguments as check
from headrace._base.keywords import argument
from headrace._base.rng import Rng
from headrace._core.maps import VECTOR_MAPS
from headrace._core.settings import NetworkKeywords

_NAMES = VECTOR_MAPS["planar"].variants
_SLOPE = "of leaky_relu below zero, between 0 and 1"


class Bend(TypedDict, total=False):
    """Keywords that set the shape of a planar transform's bend.

    Args:
        nonlinearity: The function h, "tanh" or "leaky_relu".
        negative_slope: The slope of leaky_relu below zero, between 0 and 1.
    """

    nonlinearity: Annotated[str, argument("tanh", check.one_of(*_NAMES), option=" or ".join(_NAMES))]
    negative_slope: Annotated[float, argument(0.2, check.real(above=0.0, below=1.0), option=_SLOPE)]


class Vector(NetworkKeywords, total=False):
    """Keywords of a radial transform.

    Args:
        context: The number of context columns; a network that reads these columns, if any, computes the parameters.
        hidden: The units of each hidden layer of the network that reads the context.
        seed: The seed of the fresh parameters.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".
    """

    context: Annotated[int, argument(0)]
    hidden: Annotated["Sequence[int]", argument((64, 64))]
    seed: Annotated["int | Sequence[int]", argument(0)]
    rng: Rng
    dtype: Annotated["DTypeLike", argument("float32")]


class PlanarVector(Vector, Bend, total=False):
    """Keywords of a planar transform."""
