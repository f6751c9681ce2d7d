"""Named flows. Each flow has a `Standardize` at its data end, which is the identity until a fit sets it.

The last transform of a flow with bounds or periodic columns is a `Support`.

A flow with periodic columns θ has the density p(x, θ) = p(x) p(θ | x), where p(θ | x) is continuous around each circle.
The flow's own transforms act on the columns x that are not periodic. Networks of x and the context compute the
parameters of shifts and circular splines, which follow, from latent to data, and act on the periodic columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.columns import by_column
from headrace._arrays.names import named_features
from headrace._base import arguments as check
from headrace._base.keywords import documented, taken_from, takes
from headrace._base.stored import storable
from headrace._base.types import Unpack
from headrace._core.settings import Affine
from headrace._flow.bases import Base, StandardNormal
from headrace._flow.bases_by_name import is_uniform, named_base, onto_itself, refuse_box, support_of_box
from headrace._flow.flow import Flow
from headrace._flow.flow_arguments import TABLES, AffineFlow, Linked, Named, PlanarKeywords, RadialKeywords, SplineFlow
from headrace._flow.mixing import link_before
from headrace._flow.tails import Independent, Uniform
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.network import Network
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.support import Support, circles_of, support_or_none
from headrace._flow.transforms.transform import Transform
from headrace._flow.transforms.vector import Planar, Radial

MOST_CIRCLES = 5  # the largest number of circle couplings in a PlanarFlow or RadialFlow

_OWN = ("activation", "last_activation", "residual", "dropout", "bins")  # settings also used on circles


@dataclass(frozen=True, eq=False)
class CircleSettings:
    """The settings of a flow's circle couplings."""

    transforms: Any  # the number of transforms
    seed: Any
    sizes: Mapping[str, Any]  # the settings `context`, `hidden` and `dtype`
    conditioner: Mapping[str, Any]


def wrapped(features: int, circles: Sequence[int]) -> Transform:
    """A map that wraps the values of circles into [-1, 1), the latent interval of one period."""
    return Support([None] * features, [(-1.0, 1.0) if c in circles else None for c in range(features)])


def circle_couplings(features: int, circles: Sequence[int], settings: CircleSettings) -> list[Transform]:
    """Couplings on [-1, 1) for the columns of `circles`, from latent to data, with networks that read the other
    columns.

    No network reads the value of a circle, which jumps at the ends of a period. Shears between the couplings make
    circles depend on each other.
    """
    line = [c for c in range(features) if c not in circles]
    key, count = check.integer("seed", settings.seed), check.integer("transforms", settings.transforms, least=1)
    shift: Any = {name: value for name, value in settings.conditioner.items() if name in _OWN}
    bend: Any = {"bins": shift.pop("bins")} if "bins" in shift else {}
    bend = {**shift, **bend, "map": "rq_spline_circular", "bound": 1.0, "formula": "to_latent"}
    shift |= {"map": "additive", "formula": "to_latent"}
    chain: list[Transform] = []
    for i in range(count):
        if i > 0 and len(circles) > 1:
            chain += _shear(features, circles, i - 1)
        chain.append(Coupling(features, line, seed=(key, i, 1), **settings.sizes, **bend))
        chain.append(Coupling(features, line, seed=(key, i, 2), **settings.sizes, **shift))
    return chain


def _shear(features: int, circles: Sequence[int], number: int) -> list[Transform]:
    """A linear map of circles by a matrix of integers with an inverse of integers.

    The shear maps a row, and the row shifted by a period, to the same point of the circles, and preserves volumes: the
    map is continuous around all circles, and a uniform density stays uniform. A shear with even `number` adds to each
    circle the value of the preceding circle, and the next shear is the inverse; splines between the two bend both
    circles, so that together the two shears shift a circle by a function of the preceding one. Every second pair of
    shears has the circles in reversed order.
    """
    n = len(circles)
    matrix: NDArray[np.float64] = np.eye(n) + np.eye(n, k=-1)
    if number % 2 == 1:
        matrix = np.linalg.inv(matrix).round().astype(np.float64)
    matrix = matrix if number % 4 < 2 else matrix[::-1, ::-1]
    left, scale, right = np.linalg.svd(matrix)
    std = np.ones(features)
    std[list(circles)] = scale
    return [
        wrapped(features, circles),  # wraps values, which would grow from shear to shear
        OnColumns(Rotation(right), circles, features),
        Standardize(np.zeros(features), std),
        OnColumns(Rotation(left), circles, features),
    ]


def base_of_circles(base: Base | None, features: int, circles: Sequence[int]) -> Base:
    """The checked base, which must be uniform exactly on the circles; by default normal on all other columns."""
    want = ["uniform" if c in circles else "normal" for c in range(features)]
    if base is None:
        return Independent(want)
    got = list(base.densities) if isinstance(base, Independent) else None
    if isinstance(base, Uniform):
        got = ["uniform"] * base.features
    if got is None or [name == "uniform" for name in got] != [name == "uniform" for name in want]:
        raise ValueError(f"base: expected {Independent(want)!r}, uniform where periodic, got {base!r}")
    return base


DEFAULT = "nsf"  # the name of the flow that is fitted to a table by default


class _Named(Flow):
    """A flow of similar transforms, then circle couplings for periodic columns, `Standardize`, and `Support`."""

    def _make(
        self, made: Callable[[int], list[Transform]], features: int | Iterable[str], named: Any, circles: CircleSettings
    ) -> None:
        """Make the chain; `made` returns the transforms of n columns without a period, from n."""
        features, names = named_features(features)
        low_high, periods = (
            by_column(name, getattr(named, name), features, names.features, "features")
            for name in ("bounds", "periodic")
        )
        over_a_box, density = is_uniform(named.base), named_base(named.base, features)
        support = (support_of_box if over_a_box else support_or_none)(low_high, features, periods)
        around = circles_of(support)
        ends: list[Transform] = [] if over_a_box else [Standardize(np.zeros(features), np.ones(features))]
        if support is not None:
            ends.append(support)
        if isinstance(density, Base) and density.features != features:  # `Flow.__init__` refuses objects of other types
            raise ValueError(f"base: expected {features} features, as the flow has, got {density.features}")
        if around:
            line = [c for c in range(features) if c not in around]
            own = made(max(len(line), 1))  # called even for no columns, to check the arguments
            moved: list[Transform] = [OnColumns(t, line, features) for t in own if line]
            chain = [wrapped(features, around), *moved, *circle_couplings(features, around, circles)]
        else:
            chain = made(features)
        own_base = StandardNormal(features) if density is None else density
        if over_a_box:
            own_base = Uniform(features)
        elif around:
            own_base = base_of_circles(density, features, around)
        super().__init__([*chain, *ends], own_base, dtype=named.dtype, matmul=named.matmul)
        self._names = names


def _autoregressive(features: int, i: int, descending: bool, **settings: Any) -> Transform:
    """The i-th autoregressive transform, whose order of coordinates is descending or ascending."""
    order = range(features - 1, -1, -1) if descending else range(features)
    return MaskedAutoregressive(features, order=order, **settings)


def _coupling(features: int, i: int, descending: bool, **settings: Any) -> Transform:
    """The i-th coupling, where even and odd coordinates take turns; a single feature depends only on the context."""
    return Coupling(features, range(i % 2, features, 2) if features > 1 else (), **settings)


BOUNDED = "tanh"  # the last hidden layer's activation in affine flows (docs/notes/training.md)


def _bounded(hidden: Any, conditioner: Affine) -> Affine:
    """The settings, with a bounded last hidden layer by default, so that extreme rows have bounded outputs."""
    is_set = isinstance(hidden, Network) or conditioner.get("last_activation") is not None
    return conditioner if is_set else {**conditioner, "last_activation": BOUNDED}


class _Networks(_Named):
    """The common base class of flows of networks: MAF, IAF, RealNVP and NSF."""

    def _of(self, kind: Callable[..., Transform], sizes: tuple[Any, Any, Any, Any], keywords: Any, **more: Any) -> None:
        features, context, transforms, hidden = sizes
        if "map" not in more:  # the maps are affine
            keywords = _bounded(hidden, keywords)
        link, named = taken_from(Linked, keywords).link, taken_from(Named, keywords)
        shape = {"context": context, "hidden": hidden, "dtype": named.dtype}
        options = {**more, **onto_itself(named.base, link, keywords)}

        def made(columns: int) -> list[Transform]:
            key, chain = check.integer("seed", named.seed), list[Transform]()
            for i in range(check.integer("transforms", transforms, least=1)):
                before, descending = link_before(i, link, columns, seed=key, dtype=named.dtype)
                chain += [*before, kind(columns, i, descending, seed=(key, i), **shape, **options)]
            return chain

        self._make(made, features, named, CircleSettings(transforms, named.seed, shape, options))


@storable
@documented
class MAF(_Networks):
    """Masked autoregressive flow (Papamakarios, Pavlakou, Murray 2017): x_i = μ(x_<i) + σ(x_<i) z_i, eq. 37-38.

    The order of the coordinates alternates between ascending and descending, unless `link` sets other orders. Density
    and sampling each cost one pass of the networks.

    Args:
        **keywords: The keywords of `AffineFlow`.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.MAF(features=4, transforms=2, hidden=(16, 16))
    >>> x, log_prob = flow.sample_and_log_prob(1000, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    @takes(AffineFlow, *TABLES)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] | Network = (64, 64),
        **keywords: Unpack[AffineFlow],
    ) -> None:
        self._of(_autoregressive, (features, context, transforms, hidden), keywords, reads="data")


@storable
@documented
class IAF(_Networks):
    """Inverse autoregressive flow (Kingma et al. 2016): x_i = μ(z_<i) + σ(z_<i) z_i, eq. 39-41.

    Args:
        **keywords: The keywords of `AffineFlow`.

    >>> import headrace as hr
    >>> hr.IAF(features=4, transforms=2, hidden=(16,)).sample(5, seed=0).shape
    (5, 4)
    """

    @takes(AffineFlow, *TABLES)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] | Network = (64, 64),
        **keywords: Unpack[AffineFlow],
    ) -> None:
        self._of(_autoregressive, (features, context, transforms, hidden), keywords, reads="latent")


@storable
@documented
class RealNVP(_Networks):
    """Coupling flow (Dinh, Sohl-Dickstein, Bengio 2017), eq. 35-36: even and odd coordinates take turns.

    Args:
        **keywords: The keywords of `AffineFlow`.

    >>> import headrace as hr
    >>> hr.RealNVP(features=4, transforms=4, hidden=(16,)).sample(5, seed=0).shape
    (5, 4)
    """

    @takes(AffineFlow, *TABLES)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 8,
        hidden: Sequence[int] | Network = (64, 64),
        **keywords: Unpack[AffineFlow],
    ) -> None:
        self._of(_coupling, (features, context, transforms, hidden), keywords)


@storable
@documented
class NSF(_Networks):
    """Neural spline flow (Durkan, Bekasov, Murray, Papamakarios 2019): the maps of the coordinates are splines.

    A monotone rational-quadratic spline maps each coordinate from data to latent, so that evaluating a density needs no
    square root. The flow is autoregressive like a `MAF` (density and sampling each cost one pass), or has couplings
    like `RealNVP`. Splines act within [-bound, bound] of the standardised data and are the identity outside.

    Args:
        **keywords: The keywords of `SplineFlow`.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.NSF(features=3, transforms=2, hidden=(16,))
    >>> x, log_prob = flow.sample_and_log_prob(100, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    @takes(SplineFlow, *TABLES)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] | Network = (64, 64),
        **keywords: Unpack[SplineFlow],
    ) -> None:
        kind = _coupling if keywords.pop("coupling", False) else _autoregressive
        self._of(kind, (features, context, transforms, hidden), keywords, map="rq_spline", formula="to_latent")


class _Vectors(_Named):
    """The common base class of flows of planar and of radial transforms."""

    def _of(self, kind: Callable[..., Transform], sizes: tuple[Any, Any, Any, Any], keywords: Any, **more: Any) -> None:
        features, context, transforms, hidden = sizes
        named = taken_from(Named, keywords)
        refuse_box(named.base, type(self).__name__)
        shape = {"context": context, "hidden": hidden, "dtype": named.dtype}
        count = check.integer("transforms", transforms, least=1)

        def made(columns: int) -> list[Transform]:
            return [kind(columns, seed=(named.seed, i), **shape, **keywords) for i in range(count)]

        circles = CircleSettings(min(count, MOST_CIRCLES), named.seed, shape, keywords)
        self._make(made, features, named, circles)


@storable
@documented
class PlanarFlow(_Vectors):
    """A chain of planar transforms (Rezende, Mohamed 2015), eq. 28-29; see `Planar`.

    Both directions are exact, so that the flow can be fitted to rows as well as to a density.

    Args:
        hidden: The units of the networks that read the context, one network for each transform (none without a
            context), and of the networks of periodic columns.
        **keywords: The keywords of `PlanarKeywords`.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.PlanarFlow(features=2, transforms=8)
    >>> x, log_prob = flow.sample_and_log_prob(1000, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    @takes(PlanarKeywords, *TABLES)
    def __init__(
        self,
        features: int | Iterable[str],
        transforms: int = 32,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        **keywords: Unpack[PlanarKeywords],
    ) -> None:
        self._of(Planar, (features, context, transforms, hidden), keywords)


@storable
@documented
class RadialFlow(_Vectors):
    """A chain of radial transforms (Rezende, Mohamed 2015), eq. 30-31; see `Radial`.

    Args:
        hidden: The units of the networks that read the context, one network for each transform (none without a
            context), and of the networks of periodic columns.
        **keywords: The keywords of `RadialKeywords`.

    >>> import headrace as hr
    >>> hr.RadialFlow(features=2, transforms=8).sample(5, seed=0).shape
    (5, 2)
    """

    @takes(RadialKeywords, *TABLES)
    def __init__(
        self,
        features: int | Iterable[str],
        transforms: int = 32,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        **keywords: Unpack[RadialKeywords],
    ) -> None:
        self._of(Radial, (features, context, transforms, hidden), keywords)
