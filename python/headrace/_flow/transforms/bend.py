"""The arguments of planar and radial transforms, and of flows of planar transforms."""

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
    """The shape of a planar transform's bend.

    Args:
        nonlinearity: h, "tanh" or "leaky_relu".
        negative_slope: Of leaky_relu below zero, between 0 and 1.
    """

    nonlinearity: Annotated[str, argument("tanh", check.one_of(*_NAMES), option=" or ".join(_NAMES))]
    negative_slope: Annotated[float, argument(0.2, check.real(above=0.0, below=1.0), option=_SLOPE)]


class Vector(NetworkKeywords, total=False):
    """Keywords of a radial transform.

    Args:
        context: Number of context columns; then the parameters come from a network that reads them.
        hidden: Units of each hidden layer of that network; without context there is none.
        seed: Of the fresh parameters.
        rng: Instead of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".
    """

    context: Annotated[int, argument(0)]
    hidden: Annotated["Sequence[int]", argument((64, 64))]
    seed: Annotated["int | Sequence[int]", argument(0)]
    rng: Rng
    dtype: Annotated["DTypeLike", argument("float32")]


class PlanarVector(Vector, Bend, total=False):
    """Keywords of a planar transform."""
