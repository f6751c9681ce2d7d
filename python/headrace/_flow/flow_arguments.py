"""The arguments of the named flows, each with its type, default, option and meaning.

Each flow takes the arguments of `Sizes` by position, and the keywords of one of this module's last four classes. A type
that is more than a name is written as a string, which help shows unchanged.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypedDict

from numpy.typing import DTypeLike

from headrace._base import arguments as check
from headrace._base.keywords import argument
from headrace._base.rng import Rng
from headrace._core.settings import Affine, NetworkKeywords, Settings, Spline
from headrace._flow.bases import Base
from headrace._flow.bases_by_name import NAMES, is_uniform
from headrace._flow.mixing import LINKS
from headrace._flow.transforms.bend import Bend
from headrace._flow.transforms.network import Network
from headrace._flow.transforms.support import ColumnBounds, ColumnPeriods


def _units(name: str, value: Any) -> Any:
    return value if hasattr(value, "layers") else check.integers(name, value, least=1)


def _base(name: str, value: Any) -> Any:
    return (is_uniform(value), value)[1]  # `is_uniform` refuses unknown names of bases


class Sizes(TypedDict):
    """Arguments that flows take by position; positions and some defaults differ between flows.

    Args:
        features: Number of columns, or their names, such as ``list(frame)``: later frames need these columns in
            this order, and `bounds` and `periodic` accept names.
        context: Number of context columns.
        transforms: Number of transforms.
        hidden: The units of each hidden layer, or a `headrace.Network`.
    """

    features: Annotated["int | Iterable[str]", argument()]
    context: Annotated[int, argument(0)]
    transforms: Annotated[int, argument(5, check.whole(1), option="number of transforms")]
    hidden: Annotated["Sequence[int] | Network", argument((64, 64), _units, option="units of each hidden layer")]


class Linked(TypedDict, total=False):
    """The keyword `link` of flows of several networks.

    Args:
        link: The transforms between two networks: "reverse", no transform, because orders alternate; "linear", a
            trained linear map, which begins as the identity (`Linear`); "random", a permutation drawn by the seed
            (`Permutation`), instead of alternating orders; "none", no transform, and no alternating orders. In flows of
            couplings, even and odd coordinates alternate for any `link`, so that "reverse" and "none" are equivalent.
    """

    link: Annotated[str, argument("reverse", option=f"what lies between two networks: {', '.join(LINKS)}")]


class Named(TypedDict, total=False):
    """Arguments of every flow.

    Args:
        base: "standard_normal" (by default), "normal" (location and scale are trained), "logistic", "student_t" (heavy
            tails; degrees of freedom are trained), "uniform", or a `headrace.Base`. With "uniform", `MAF`, `IAF`,
            `RealNVP` and `NSF` consist of splines that map [-1, 1] onto itself (`rq_spline_free`), and a linear map
            from [-1, 1] to the bounds, of which each column needs two.
        bounds: For each column ``(low, high)``, with None for an end without a bound, or None; or a dict of the columns
            with bounds, by index or name; None for no bounds at all. See `Support`: no sample is outside of the bounds,
            a row on a bound or beyond has a `log_prob` of -inf, and `fit` refuses such rows. Over any base except
            "uniform" the density falls to 0 at a bound, so that importance sampling of a function without zeros at the
            bound is biased low: use ``base="uniform"`` for such a function.
        periodic: For each column the ends ``(low, high)`` of one period, or None; or a dict like that of `bounds`. The
            density is continuous around periodic columns. The flow's own transforms apply to all other columns. As many
            shifts and circular splines as there are transforms (at most five in `PlanarFlow` and `RadialFlow`) map the
            periodic columns, conditional on the other columns and the context, with networks of the same `hidden`
            (docs/conventions.md). The base of periodic columns is uniform. Shears of the circles let periodic columns
            depend on each other.
        seed: The seed of the fresh weights.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".
        matmul: How products of networks are computed: "exact", or for float32 "bf16", "bf16x3" or "bf16x6";
            "bf16_tiles", "bf16x3_tiles" and "bf16x6_tiles" sum in the order of AMX (docs/bf16.md).
    """

    base: Annotated[
        "Base | str | None", argument(None, _base, option=f"{', '.join(NAMES)}; by default standard_normal")
    ]
    bounds: Annotated["ColumnBounds | None", argument()]
    periodic: Annotated["ColumnPeriods | None", argument()]
    seed: Annotated[int, argument(0, check.integer)]
    rng: Rng
    dtype: Annotated["DTypeLike", argument("float32")]
    matmul: Annotated[str, argument("exact", option="products of networks: exact, or for float32 bf16, ...")]


class AffineFlow(Affine, Linked, Named, total=False):
    """Keywords of flows of affine transforms."""


class SplineFlow(Spline, Linked, Named, total=False):
    """Keywords of flows of splines.

    Args:
        coupling: Whether transforms are couplings, where even and odd coordinates take turns, instead of
            autoregressive.
    """

    coupling: Annotated[bool, argument(False, option="each half of the columns given the other, in turns")]


class RadialKeywords(NetworkKeywords, Named, total=False):
    """Keywords of flows of radial transforms."""


class PlanarKeywords(NetworkKeywords, Bend, Named, total=False):
    """Keywords of flows of planar transforms."""


TABLES = (Sizes, Linked, Named, Bend, Settings)
"""The tables that these classes inherit from."""
