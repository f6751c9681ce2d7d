"""Ready-made flows. Each has a `Standardize` at its data end, the identity until it is fitted.

After it comes a `Support`, where there are bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._arrays.columns import by_column
from headrace._arrays.names import named_features
from headrace._base import arguments as check
from headrace._base.keywords import documented, takes
from headrace._base.stored import storable
from headrace._core.settings import Affine, Autoregressive, Conditioner, NetworkKeywords, Settings, Spline
from headrace._flow.bases import Base, StandardNormal
from headrace._flow.bases_by_name import is_uniform, named_base
from headrace._flow.flow import Flow
from headrace._flow.mixing import link_before
from headrace._flow.periodic import MOST_CIRCLES, CircleSettings, base_of_circles, circle_couplings, wrapped
from headrace._flow.tails import Uniform
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.network import Network
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.support import ColumnBounds, ColumnPeriods, circles_of, support_or_none
from headrace._flow.transforms.transform import Transform
from headrace._flow.transforms.vector import Planar, Radial
from headrace._flow.uniform_base import onto_itself, refuse_box, support_of_box

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT = "nsf"  # the flow where a table is fitted and none is named


class _Named(Flow):
    """A flow of equal transforms, circle couplings if it has periodic columns, a `Standardize`, perhaps a `Support`."""

    def __init__(
        self,
        made: Callable[[int], list[Transform]],
        features: int | Iterable[str],
        base: Base | str | None,
        bounds: ColumnBounds | None,
        periodic: ColumnPeriods | None,
        dtype: DTypeLike,
        matmul: str,
        circles: CircleSettings,
    ) -> None:
        """`made` takes the number of columns that are not periodic, and gives their transforms."""
        features, names = named_features(features)
        low_high, periods = (
            by_column(name, value, features, names.features, "features")
            for name, value in (("bounds", bounds), ("periodic", periodic))
        )
        over_a_box, given = is_uniform(base), named_base(base, features)
        support = (support_of_box if over_a_box else support_or_none)(low_high, features, periods)
        around = circles_of(support)
        ends: list[Transform] = [] if over_a_box else [Standardize(np.zeros(features), np.ones(features))]
        if support is not None:
            ends.append(support)
        if isinstance(given, Base) and given.features != features:  # Flow refuses other types
            raise ValueError(f"base: expected {features} features, as the flow has, got {given.features}")
        if around:
            line = [c for c in range(features) if c not in around]
            own = made(max(len(line), 1))  # also without any, because it checks its arguments
            moved: list[Transform] = [OnColumns(t, line, features) for t in own if line]
            chain = [wrapped(features, around), *moved, *circle_couplings(features, around, circles)]
        else:
            chain = made(features)
        own_base = StandardNormal(features) if given is None else given
        if over_a_box:
            own_base = Uniform(features)
        elif around:
            own_base = base_of_circles(given, features, around)
        super().__init__([*chain, *ends], own_base, dtype=dtype, matmul=matmul)
        self._names = names


def _autoregressive(
    features: int, transforms: Any, link: Any, seed: Any, sizes: Any, **conditioner: Unpack[Autoregressive]
) -> list[Transform]:
    """Networks and the links between them; with the link "reverse", their order of coordinates alternates."""
    key, n = check.integer("seed", seed), features
    orders = (range(n), range(n - 1, -1, -1))
    chain: list[Transform] = []
    for i in range(check.integer("transforms", transforms, least=1)):
        before, descending = link_before(i, link, n, seed=key, dtype=sizes["dtype"])
        chain += [*before, MaskedAutoregressive(n, order=orders[descending], seed=(key, i), **sizes, **conditioner)]
    return chain


def _couplings(
    features: int, transforms: Any, link: Any, seed: Any, sizes: Any, **conditioner: Unpack[Conditioner]
) -> list[Transform]:
    """Couplings in which even and odd coordinates take turns; one feature is conditioned only on the context."""
    key = check.integer("seed", seed)
    passive = (range(0, features, 2), range(1, features, 2)) if features > 1 else ((), ())
    chain: list[Transform] = []
    for i in range(check.integer("transforms", transforms, least=1)):
        before, _ = link_before(i, link, features, seed=key, dtype=sizes["dtype"])
        chain += [*before, Coupling(features, passive[i % 2], seed=(key, i), **sizes, **conditioner)]
    return chain


BOUNDED = "tanh"  # activation of the last hidden layer of affine flows (docs/notes/training.md)


def _bounded(hidden: Any, conditioner: Affine) -> Affine:
    """Settings with a bounded last layer by default: outputs of a network stay bounded for far rows."""
    is_set = isinstance(hidden, Network) or conditioner.get("last_activation") is not None
    return conditioner if is_set else {**conditioner, "last_activation": BOUNDED}


class _Affine(_Named):
    """The base of MAF and IAF: all but the side that is read."""

    _reads: str

    @takes(Affine, Settings)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] | Network = (64, 64),
        *,
        link: str = "reverse",
        base: Base | str | None = None,
        bounds: ColumnBounds | None = None,
        periodic: ColumnPeriods | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        matmul: str = "exact",
        **conditioner: Unpack[Affine],
    ) -> None:
        sizes = {"context": context, "hidden": hidden, "dtype": dtype}
        options = onto_itself(base, link, _bounded(hidden, conditioner))

        def made(columns: int) -> list[Transform]:
            return _autoregressive(columns, transforms, link, seed, sizes, reads=self._reads, **options)

        super().__init__(
            made, features, base, bounds, periodic, dtype, matmul, CircleSettings(transforms, seed, sizes, options)
        )


@storable
@documented
class MAF(_Affine):
    """Masked autoregressive flow (Papamakarios, Pavlakou, Murray 2017): x_i = μ(x_<i) + σ(x_<i) z_i, eq. 37-38.

    The order of the coordinates alternates between ascending and descending, unless `link` differs. Density and
    sampling each cost one pass.

    Args:
        features: Number of columns, or their names, such as ``list(frame)``: a frame given later needs these columns in
            this order, and `bounds` and `periodic` take names.
        context: Number of context columns.
        transforms: Number of transforms.
        hidden: Units of each hidden layer, or a `headrace.Network`.
        link: The transforms between two networks: "reverse", none, since orders alternate; "linear", a trained linear
            map, which begins as the identity (`Linear`); "random", a permutation by the seed (`Permutation`), in the
            place of alternating orders; "none", nothing, and no alternating orders.
        base: "standard_normal" (by default), "normal" (location and scale are trained), "logistic", "student_t" (heavy
            tails; degrees of freedom are trained), "uniform", or a `headrace.Base`. "uniform" has splines of [-1, 1]
            onto itself for all transforms (`rq_spline_free`) and a line from there to the bounds, of which each column
            needs two.
        bounds: For each column ``(low, high)``, with None for an end without a bound, or None; or a dict of the columns
            with bounds, by index or name; None for no bounds at all. See `Support`: no sample lies outside, a row on a
            bound or beyond has a `log_prob` of -inf, and `fit` refuses such rows. Over a base that is not "uniform" the
            density falls to 0 at a bound, so that importance sampling of a function that does not is biased low: take
            ``base="uniform"`` there.
        periodic: For each column ``(low, high)``, one period of it, or None, or a dict like that of `bounds`: columns
            around which the density is continuous. The flow's own transforms are of the other columns. Given these and
            the context, the periodic ones go through as many shifts and circular splines as there are transforms, with
            networks of the same `hidden` (docs/conventions.md). Their base is uniform. Dependences between them are
            left to shears of the circles.
        seed: Of the fresh weights.
        dtype: "float32" or "float64".
        matmul: How products of networks are computed: "exact", or for float32 "bf16", "bf16x3" or "bf16x6"
            (docs/bf16.md).
        **conditioner: Settings of the transforms, `Affine`.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.MAF(features=4, transforms=2, hidden=(16, 16))
    >>> x, log_prob = flow.sample_and_log_prob(1000, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    _reads = "data"


@storable
@documented
class IAF(_Affine):
    """Inverse autoregressive flow (Kingma et al. 2016): x_i = μ(z_<i) + σ(z_<i) z_i, eq. 39-41.

    Args:
        features, context, transforms, hidden, link, base, bounds, periodic, seed, dtype, matmul: See `MAF`.
        **conditioner: Settings of the transforms, `Affine`.

    >>> import headrace as hr
    >>> hr.IAF(features=4, transforms=2, hidden=(16,)).sample(5, seed=0).shape
    (5, 4)
    """

    _reads = "latent"


@storable
@documented
class RealNVP(_Named):
    """Coupling flow (Dinh, Sohl-Dickstein, Bengio 2017), eq. 35-36: even and odd coordinates take turns.

    Args:
        features, context, transforms, hidden, base, bounds, periodic, seed, dtype, matmul: See `MAF`.
        link: See `MAF`. Even and odd coordinates take turns with any; "reverse" and "none" are the same.
        **conditioner: Settings of the transforms, `Affine`.

    >>> import headrace as hr
    >>> hr.RealNVP(features=4, transforms=4, hidden=(16,)).sample(5, seed=0).shape
    (5, 4)
    """

    @takes(Affine, Settings)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 8,
        hidden: Sequence[int] | Network = (64, 64),
        *,
        link: str = "reverse",
        base: Base | str | None = None,
        bounds: ColumnBounds | None = None,
        periodic: ColumnPeriods | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        matmul: str = "exact",
        **conditioner: Unpack[Affine],
    ) -> None:
        sizes = {"context": context, "hidden": hidden, "dtype": dtype}
        options = onto_itself(base, link, _bounded(hidden, conditioner))

        def made(columns: int) -> list[Transform]:
            return _couplings(columns, transforms, link, seed, sizes, **options)

        super().__init__(
            made, features, base, bounds, periodic, dtype, matmul, CircleSettings(transforms, seed, sizes, options)
        )


@storable
@documented
class NSF(_Named):
    """Neural spline flow (Durkan, Bekasov, Murray, Papamakarios 2019): the coordinates' maps are splines.

    A monotone rational-quadratic spline takes each coordinate from data to latent, so that a density needs no square
    root. Autoregressive like a `MAF` (density and sampling each cost one pass), or of couplings like `RealNVP`. Splines
    act within [-bound, bound] of the standardised data and are the identity outside.

    Args:
        features, context, transforms, hidden, base, bounds, periodic, seed, dtype, matmul: See `MAF`.
        link: See `MAF`, and of couplings `RealNVP`.
        coupling: Whether even and odd coordinates take turns, instead of each being conditioned on all before it.
        **conditioner: Settings of the transforms, `Spline`.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.NSF(features=3, transforms=2, hidden=(16,))
    >>> x, log_prob = flow.sample_and_log_prob(100, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    @takes(Spline, Settings)
    def __init__(
        self,
        features: int | Iterable[str],
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] | Network = (64, 64),
        *,
        coupling: bool = False,
        link: str = "reverse",
        base: Base | str | None = None,
        bounds: ColumnBounds | None = None,
        periodic: ColumnPeriods | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        matmul: str = "exact",
        **conditioner: Unpack[Spline],
    ) -> None:
        sizes = {"context": context, "hidden": hidden, "dtype": dtype}
        kind = _couplings if coupling else _autoregressive
        options = {"map": "rq_spline", "formula": "to_latent", **onto_itself(base, link, conditioner)}

        def made(columns: int) -> list[Transform]:
            return kind(columns, transforms, link, seed, sizes, **options)

        circles = CircleSettings(transforms, seed, sizes, conditioner)
        super().__init__(made, features, base, bounds, periodic, dtype, matmul, circles)


@storable
@documented
class PlanarFlow(_Named):
    """Planar transforms one after another (Rezende, Mohamed 2015), eq. 28-29; see `Planar`.

    Both directions are exact, so that it can be fitted to rows as well as to a density.

    Args:
        features, context, bounds, seed, dtype, matmul: See `MAF`.
        base: See `MAF`, but for "uniform".
        periodic: See `MAF`; with at most five shifts and circular splines.
        transforms: Number of transforms.
        hidden: Of the networks that read the context, one a transform, which are not there without context; and of
            those of periodic columns.
        nonlinearity, negative_slope: See `Planar`.
        **network: Settings of these networks, `NetworkKeywords`.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.PlanarFlow(features=2, transforms=8)
    >>> x, log_prob = flow.sample_and_log_prob(1000, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    @takes(NetworkKeywords, Settings)
    def __init__(
        self,
        features: int | Iterable[str],
        transforms: int = 32,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        *,
        nonlinearity: str = "tanh",
        negative_slope: float = 0.2,
        base: Base | str | None = None,
        bounds: ColumnBounds | None = None,
        periodic: ColumnPeriods | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        matmul: str = "exact",
        **network: Unpack[NetworkKeywords],
    ) -> None:
        refuse_box(base, type(self).__name__)
        key = check.integer("seed", seed)
        sizes: Any = {"context": context, "hidden": hidden, "dtype": dtype}
        own: Any = {"nonlinearity": nonlinearity, "negative_slope": negative_slope}
        count = check.integer("transforms", transforms, least=1)

        def made(columns: int) -> list[Transform]:
            return [Planar(columns, seed=(key, i), **sizes, **own, **network) for i in range(count)]

        circles = CircleSettings(min(count, MOST_CIRCLES), seed, sizes, network)
        super().__init__(made, features, base, bounds, periodic, dtype, matmul, circles)


@storable
@documented
class RadialFlow(_Named):
    """Radial transforms one after another (Rezende, Mohamed 2015), eq. 30-31; see `Radial`.

    Args:
        features, context, transforms, hidden, base, bounds, periodic, seed, dtype, matmul: See `PlanarFlow`.
        **network: Settings of the networks, `NetworkKeywords`.

    >>> import headrace as hr
    >>> hr.RadialFlow(features=2, transforms=8).sample(5, seed=0).shape
    (5, 2)
    """

    @takes(NetworkKeywords, Settings)
    def __init__(
        self,
        features: int | Iterable[str],
        transforms: int = 32,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        *,
        base: Base | str | None = None,
        bounds: ColumnBounds | None = None,
        periodic: ColumnPeriods | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        matmul: str = "exact",
        **network: Unpack[NetworkKeywords],
    ) -> None:
        refuse_box(base, type(self).__name__)
        key = check.integer("seed", seed)
        sizes: Any = {"context": context, "hidden": hidden, "dtype": dtype}
        count = check.integer("transforms", transforms, least=1)

        def made(columns: int) -> list[Transform]:
            return [Radial(columns, seed=(key, i), **sizes, **network) for i in range(count)]

        circles = CircleSettings(min(count, MOST_CIRCLES), seed, sizes, network)
        super().__init__(made, features, base, bounds, periodic, dtype, matmul, circles)
