"""Transforms whose parameters a masked network computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._arrays.caller import Array
from headrace._base import arguments as check
from headrace._base.keywords import documented, takes
from headrace._base.rng import Rng
from headrace._base.stored import Stored, storable
from headrace._base.types import Self, Unpack
from headrace._core.maps import MAPS
from headrace._core.settings import Autoregressive, Conditioner, DenseAutoregressive, DenseConditioner, Settings
from headrace._core.structure import MaskedNetwork, Staircase
from headrace._flow.transforms.dense import Dense, check_derivable, checked_dense, stored_dense, stored_staircase
from headrace._flow.transforms.network import Network, checked_activation
from headrace._flow.transforms.restriction import Mixed, Reads, Restriction, cut, joined
from headrace._flow.transforms.transform import OfBlock, Transform
from headrace._flow.transforms.verification import verify_inverse


class _Masked(OfBlock):
    """The common base class of transforms whose parameters a masked network computes."""

    def __init__(
        self, settings: Settings, masked: MaskedNetwork, dtype: np.dtype[Any], parameters: NDArray[Any]
    ) -> None:
        super().__init__(settings.features, settings.context, dtype)
        self._settings = settings
        self._block = self._network = masked
        self._take_parameters(parameters)

    def _map_of_network(self) -> str:
        return self._settings.map

    def _hidden(self) -> list[int]:
        return self._network.core.hidden

    def _networks(self) -> tuple[Network, ...]:
        return (self.network,)

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return {f"layers.{i}.mask": mask for i, mask in enumerate(self._network.masks())}

    def _header(self) -> dict[str, Any]:
        header, staircase = self._settings.header(), self._network.staircase
        if (network := self._network.described) is not None:
            header["network"] = network.header()
        if staircase is None:
            check_derivable(self._network.masks(), self._settings)
            return {**header, "levels": None, "degrees": None}
        return {**header, "levels": list(staircase.levels), "degrees": [list(d) for d in staircase.degrees]}

    def _cut(
        self, inputs: Sequence[int], outputs: Sequence[int], part: Restriction
    ) -> tuple[Settings, Dense, Staircase | None]:
        """The settings, layers and structure of a part; `inputs` and `outputs`: coordinates of the whole transform."""
        groups = MAPS[self._settings.map].groups(self._settings.bins)
        sizes = [groups[name] for name in self._settings.outputs]
        dense = Dense(*self.to_dense(), self._network.described, *self.context_to_dense())
        try:
            network = cut(dense, self._network.staircase, part, self._context, sizes, self._settings.layout)
        except Reads as error:
            output, column = error.args
            raise Mixed(f"makes coordinate {outputs[output]} from coordinate {inputs[column]}") from None
        return replace(self._settings, features=len(part.coordinates)), *network

    @property
    def network(self) -> Network:
        """The hidden layers of the network."""
        return self._network.described or Network.plain(self._network.core.hidden, self._settings.activation)

    def to_dense(self) -> tuple[list[NDArray[Any]], list[NDArray[Any]], list[NDArray[np.bool_]]]:
        """``(weights, biases, masks)``, lists with one array for each layer, as for `from_dense`; masked weights are
        zero.

        For layers that a context joins, see `context_to_dense`; for the settings of layers, see `network`.
        """
        weights, biases = self._network.unpack(self._vector())
        first = len(self._network.joined)
        return weights[first:], biases[first:], self._network.masks()

    def context_to_dense(self) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """``(context_weights, context_biases)`` of the layers that a context joins, for `from_dense`."""
        weights, biases = self._network.unpack(self._vector())
        first = len(self._network.joined)
        return weights[:first], biases[:first]

    def _described(self, keywords: str) -> str:
        network = self._network.described
        return f"{keywords}, " + (f"hidden={tuple(self._hidden())}" if network is None else f"network={network!r}")


@storable
@documented
class MaskedAutoregressive(_Masked):
    """A masked autoregressive transform: the parameters of each coordinate's map depend on the coordinates before it.

    With ``reads="data"`` (MAF; Papamakarios, Pavlakou, Murray 2017; eq. 37-38 of the notes) the conditioner reads x,
    with ``reads="latent"`` (IAF; Kingma et al. 2016; eq. 39-41) it reads z. With ``formula="to_data"`` the map is
    x = shift + scale · z, with ``formula="to_latent"`` the map is z = shift + scale · x. **Both directions cost one
    pass of the network**: hidden units are sorted by the last coordinate on which they depend, and each unit is
    computed once, after that coordinate.

    Args:
        features: The number of coordinates D.
        hidden: The units of each hidden layer, or a `headrace.Network`.
        context: The number of context columns.
        order: The coordinates from first to last, a permutation of 0, ..., D - 1; ascending by default.
        seed: The seed of the fresh weights.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".
        **conditioner: Settings of the map and of the network, the keywords of `Autoregressive`.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.MaskedAutoregressive(3, hidden=(16,), seed=1)
    >>> x, log_det = t.forward(np.ones((2, 3), "float32"))
    >>> z, _ = t.inverse(x)
    >>> x.shape, log_det.shape, bool(np.allclose(z, 1))
    ((2, 3), (2,), True)
    """

    @takes(Autoregressive, Settings)
    def __init__(
        self,
        features: int,
        hidden: Sequence[int] | Network = (64, 64),
        *,
        context: int = 0,
        order: Sequence[int] | None = None,
        seed: int | Sequence[int] = 0,
        rng: Rng = None,
        dtype: DTypeLike = "float32",
        **conditioner: Unpack[Autoregressive],
    ) -> None:
        described, settings_of_map = _hidden_layers(hidden, conditioner)
        settings = Settings(features=features, context=context, **settings_of_map)
        n = settings.features
        visit = check.permutation("order", range(n) if order is None else order, n)
        levels = [0] * n
        for level, coordinate in enumerate(visit, start=1):
            levels[coordinate] = level
        _fresh(self, settings, described, levels, seed, dtype)

    @classmethod
    @takes(DenseAutoregressive, Settings)
    def from_dense(
        cls,
        weights: Sequence[NDArray[Any]],
        biases: Sequence[NDArray[Any]],
        masks: Sequence[NDArray[Any]],
        *,
        network: Network | None = None,
        context_weights: Sequence[NDArray[Any]] = (),
        context_biases: Sequence[NDArray[Any]] = (),
        context: int = 0,
        verify: Sequence[Array] | None = None,
        **conditioner: Unpack[DenseAutoregressive],
    ) -> Self:
        """A transform with the exact weights of any masked autoregressive network.

        Any masks with which no coordinate depends on itself are allowed: levels and degrees are derived from the inputs
        that reach each unit. Weights at zeros of a mask stay zero.

        Args:
            weights: One array a layer, (out, in), all float32 or all float64; tensors that require gradients are
                copied without gradients. The first layer's columns are the features, then the context.
            biases: One array a layer, (out,).
            masks: One array a layer, in the shape of the layer's weights; non-zero where a weight counts.
            network: The hidden layers, if their settings differ; the activations are then those of `network`.
            context_weights, context_biases: Arrays (units, context) and (units,) for the layers of `network` that a
                context joins, in the order of the layers.
            context: See the class.
            verify: Results of the other library to compare with: ``(x, z, log_det)``, or with a context ``(x, z,
                log_det, context)``: some rows of data (rows, features), the latent values of these rows for this
                transform alone, and log \\|det dz/dx\\| (rows,). Libraries differ in more than weights, above all in
                splines: ``"rq_spline"`` has zuko's parametrisation; weights of nflows or normflows would be accepted
                without an error and define another density: they need ``"rq_spline_nflows"``.
            **conditioner: Settings of the map and of the network, the keywords of `DenseAutoregressive`.

        Raises:
            TypeError: weights, biases or `verify` have another type.
            ValueError: shapes do not fit; masks have a cycle (the message has two of its coordinates); or results
                differ from the arrays in `verify` by more than rounding (the message has the difference).
        """
        dense = checked_dense(weights, biases, masks, network, context_weights, context_biases, conditioner)
        context = check.integer("context", context)
        features = dense.weights[0].shape[1] - context
        if features < 1:
            columns = dense.weights[0].shape[1]
            raise ValueError(f"weights[0]: expected more columns than context={context}, got {columns}")
        settings = Settings(features=features, context=context, **_with_activation(network, conditioner))
        self = cls.__new__(cls)
        _from_dense(self, settings, dense, range(features), range(features))
        if verify is not None:
            verify_inverse(self, verify)
        return self

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        settings = Settings.from_file(stored)
        n = settings.features
        dense = stored_dense(stored, settings, n, n)
        self = cls.__new__(cls)
        _from_dense(self, settings, dense, range(n), range(n), stored_staircase(stored, settings, dense))
        return self

    def _part(self, kept: tuple[int, ...]) -> Transform:
        every, places = range(self._features), range(len(kept))
        settings, dense, staircase = self._cut(every, every, Restriction(kept, kept, kept))
        part = object.__new__(type(self))
        _from_dense(part, settings, dense, places, places, _fitting(settings, dense, places, places, staircase))
        return part

    def __repr__(self) -> str:
        """The class name, the sizes and the conventions."""
        s = self._settings
        more = self._described(f"reads={s.reads!r}, formula={s.formula!r}, {s!r}")
        return f"MaskedAutoregressive({self.features}, {more})"


@storable
@documented
class Coupling(_Masked):
    """A coupling transform (RealNVP; Dinh, Sohl-Dickstein, Bengio 2017; eq. 35-36 of the lecture notes).

    The conditioner reads the passive coordinates, which have the same bits on both sides, and computes the parameters
    of maps of all other coordinates; both directions are parallel.

    Args:
        features: The number of coordinates.
        passive: The coordinates that the conditioner reads; if empty, the conditioner reads only the context.
        hidden, context, seed, dtype: See `MaskedAutoregressive`.
        **conditioner: Settings of the map and of the network, the keywords of `Conditioner`.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Coupling(4, passive=[0, 2], hidden=(8,))
    >>> z = np.arange(8.0).reshape(2, 4)
    >>> x, _ = t.forward(z)
    >>> bool((x[:, [0, 2]] == z[:, [0, 2]]).all())
    True
    """

    @takes(Conditioner, Settings)
    def __init__(
        self,
        features: int,
        passive: Sequence[int],
        hidden: Sequence[int] | Network = (64, 64),
        *,
        context: int = 0,
        seed: int | Sequence[int] = 0,
        rng: Rng = None,
        dtype: DTypeLike = "float32",
        **conditioner: Unpack[Conditioner],
    ) -> None:
        described, settings_of_map = _hidden_layers(hidden, conditioner)
        settings = Settings(features=features, context=context, **settings_of_map)
        reads, active = _sides(passive, settings.features)
        level = 2 if reads else 1
        levels = [level] * settings.features
        for coordinate in reads:
            levels[coordinate] = 1
        degrees = [[level - 1] * size for size in described.units]
        network = _network(settings, reads, active, Staircase(levels, degrees), described)
        kind = check.float_dtype("dtype", dtype)
        self._passive = reads
        super().__init__(settings, network, kind, network.initial(check.seeds(seed), kind, settings.identity))

    @classmethod
    @takes(DenseConditioner, Settings)
    def from_dense(
        cls,
        weights: Sequence[NDArray[Any]],
        biases: Sequence[NDArray[Any]],
        masks: Sequence[NDArray[Any]] | None = None,
        *,
        features: int,
        passive: Sequence[int],
        network: Network | None = None,
        context_weights: Sequence[NDArray[Any]] = (),
        context_biases: Sequence[NDArray[Any]] = (),
        context: int = 0,
        verify: Sequence[Array] | None = None,
        **conditioner: Unpack[DenseConditioner],
    ) -> Self:
        """A transform with the exact weights of a coupling network; see `MaskedAutoregressive.from_dense`.

        The first layer's columns are the passive coordinates in the order of `passive`, then the context; the last
        layer's rows belong to the other coordinates in ascending order. Two separate networks for shift and scale (eq.
        35) are one network with block-diagonal masks and ``layout="blocked"``.

        Args:
            weights, biases, masks, network, context_weights, context_biases, context, verify: As in
                `MaskedAutoregressive.from_dense`; without masks every weight counts.
            features, passive: As in `Coupling`.
            **conditioner: Settings of the map and of the network, the keywords of `DenseConditioner`.
        """
        if masks is None:
            masks = [np.ones(np.shape(w), bool) for w in weights]
        dense = checked_dense(weights, biases, masks, network, context_weights, context_biases, conditioner)
        settings = Settings(features=features, context=context, **_with_activation(network, conditioner))
        reads, active = _sides(passive, settings.features)
        columns, got = len(reads) + settings.context, dense.weights[0].shape[1]
        if got != columns:
            raise ValueError(f"weights[0]: expected {columns} columns (passive, then context), got {got}")
        self = cls.__new__(cls)
        self._passive = reads
        _from_dense(self, settings, dense, reads, active)
        if verify is not None:
            verify_inverse(self, verify)
        return self

    def _header(self) -> dict[str, Any]:
        header = super()._header()
        del header["reads"]  # both sides have the same values of the passive coordinates
        return {**header, "passive": list(self._passive)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        settings = Settings.from_file(stored, reads="data")
        passive = stored.items("passive")
        dense = stored_dense(stored, settings, len(passive), max(settings.features - len(passive), 0))
        self = cls.__new__(cls)
        self._passive, active = _sides(passive, settings.features)
        _from_dense(self, settings, dense, self._passive, active, stored_staircase(stored, settings, dense))
        return self

    def _part(self, kept: tuple[int, ...]) -> Transform | None:
        places, all_active = {c: i for i, c in enumerate(kept)}, _sides(self._passive, self._features)[1]
        passive = tuple(places[c] for c in self._passive if c in places)
        active = tuple(i for i, c in enumerate(kept) if c not in self._passive)
        if not active:
            return None  # passive coordinates are unchanged
        inputs = [i for i, c in enumerate(self._passive) if c in places]
        outputs = [all_active.index(kept[i]) for i in active]
        settings, dense, staircase = self._cut(self._passive, all_active, Restriction(kept, inputs, outputs))
        part = object.__new__(type(self))
        part._passive = passive
        _from_dense(part, settings, dense, passive, active, _fitting(settings, dense, passive, active, staircase))
        return part

    def __repr__(self) -> str:
        """The class name, the sizes and the conventions."""
        s = self._settings
        more = self._described(f"formula={s.formula!r}, {s!r}")
        return f"Coupling({self.features}, passive={list(self._passive)}, {more})"


def logits_network(
    levels: Sequence[int], hidden: Sequence[int], *, context: int = 0, seed: int = 0, dtype: DTypeLike = "float32"
) -> MaskedAutoregressive:
    """The transform z = x + shift, where shifts depend on coordinates of lower levels; coordinates may share a level.

    Args:
        levels: The level of each coordinate, from 1 without gaps.
        hidden, context, seed, dtype: As in `MaskedAutoregressive`.
    """
    described, settings_of_map = _hidden_layers(hidden, {"map": "additive", "formula": "to_latent"})
    self = MaskedAutoregressive.__new__(MaskedAutoregressive)
    _fresh(self, Settings(features=len(levels), context=context, **settings_of_map), described, levels, seed, dtype)
    return self


# ---- helpers of the two masked transforms ---------------------------------------------------------------------------


def _fresh(
    self: MaskedAutoregressive, settings: Settings, described: Network, levels: Sequence[int], seed: Any, dtype: Any
) -> None:
    """Initialise a new transform with random weights.

    Hidden units have degrees that are spread evenly over 1 to D - 1, or with a context over 0 to D - 1.
    """
    every, last = range(len(levels)), max(levels)
    first = 0 if settings.context or last == 1 else 1
    degrees = [[first + i * (last - first) // size for i in range(size)] for size in described.units]
    network = _network(settings, every, every, Staircase(list(levels), degrees), described)
    kind = check.float_dtype("dtype", dtype)
    _Masked.__init__(self, settings, network, kind, network.initial(check.seeds(seed), kind, settings.identity))


def _sides(passive: Any, features: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The passive and the active coordinates of a coupling; at least one is active."""
    reads = check.coordinates("passive", passive, features)
    active = tuple(c for c in range(features) if c not in set(reads))
    if not active:
        raise ValueError(f"passive: expected to leave at least one of {features} coordinates, got all of them")
    return reads, active


def _output_rows(settings: Settings, active: int) -> NDArray[np.intp] | None:
    """The index in the core's order, coordinate by coordinate, of each of the user's output rows; None if all agree."""
    groups = MAPS[settings.map].groups(settings.bins)
    start = dict(zip(groups, np.cumsum([0, *groups.values()])[:-1], strict=True))
    first = np.arange(active)[:, None] * settings.n_params
    # `blocks` has an array of shape (coordinate, parameter) for each name of parameters.
    blocks = [first + start[name] + np.arange(groups[name]) for name in settings.outputs]
    flat = joined(blocks, settings.layout)
    return None if (flat == np.arange(flat.size)).all() else flat.astype(np.intp)


def _hidden_layers(hidden: Any, conditioner: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
    """The hidden layers from a constructor's arguments, and the other settings."""
    rest = dict(conditioner)
    if isinstance(hidden, Network):
        for name in ("activation", "last_activation", "residual", "dropout"):
            if name in rest:
                raise TypeError(f"{name}: expected none beside a Network, which says what it is, got {rest[name]!r}")
        return hidden, _with_activation(hidden, rest)
    make = Network.residual if rest.pop("residual", False) else Network.plain
    network = make(hidden, rest.get("activation", "relu"), dropout=rest.pop("dropout", 0.0))
    last = rest.pop("last_activation", None)
    if last is not None and len(network):
        *below, end = network
        network = Network([*below, replace(end, activation=checked_activation("last_activation", last))])
        rest["activation"] = network.common_activation or rest.get("activation", "relu")
    return network, rest


def _with_activation(network: Network | None, conditioner: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the activation that all layers of a network share, or "relu" without a common one."""
    return dict(conditioner) if network is None else {**conditioner, "activation": network.common_activation or "relu"}


def _options(
    settings: Settings, reads: Sequence[int], active: Sequence[int], described: Network | None
) -> dict[str, Any]:
    """Options of the core; equal layers are described by their activation alone, as in files of older versions."""
    is_plain = described is None or described.common_activation is not None
    return settings.options(reads, active) | ({} if is_plain else {"network": described})


def _network(
    settings: Settings, reads: Sequence[int], active: Sequence[int], staircase: Staircase, described: Network | None
) -> MaskedNetwork:
    """The network with masks by which a unit reads all units and inputs of at most its degree."""
    options = _options(settings, reads, active, described)
    return MaskedNetwork(options, staircase, _output_rows(settings, len(active)))


def _fitting(
    settings: Settings, dense: Dense, reads: Sequence[int], active: Sequence[int], staircase: Staircase | None
) -> Staircase | None:
    """The staircase if its masks equal those of `dense`; otherwise None, so that files keep the masks."""
    if staircase is None:
        return None
    made = _network(settings, reads, active, staircase, dense.network).masks()
    return staircase if all(map(np.array_equal, made, dense.masks)) else None


def _from_dense(
    self: _Masked,
    settings: Settings,
    dense: Dense,
    reads: Sequence[int],
    active: Sequence[int],
    staircase: Staircase | None = None,
) -> None:
    """Initialise a transform with dense layers; the structure is `staircase`, or by default that of the masks."""
    at, each, outputs = len(dense.weights) - 1, settings.n_params, dense.weights[-1].shape[0]
    if outputs != len(active) * each:
        expected = f"{len(active) * each} rows, {each} for each of {len(active)} coordinates"
        raise ValueError(f"weights[{at}]: expected {expected}, got {outputs}")
    for i, w in enumerate(dense.context_weights):
        if w.shape[1] != settings.context:
            raise ValueError(f"context_weights[{i}]: expected {settings.context} columns, got {w.shape[1]}")
    if staircase is not None:
        network = _network(settings, reads, active, staircase, dense.network)
        for i, (mask, made) in enumerate(zip(dense.masks, network.masks(), strict=True)):
            if not np.array_equal(mask, made):
                raise ValueError(f"masks[{i}]: expected the one that levels and degrees make, got another")
    else:
        rows = _output_rows(settings, len(active))
        masks = list(dense.masks)
        if rows is not None:
            masks[-1] = np.ascontiguousarray(masks[-1][np.argsort(rows)])
        network = MaskedNetwork(_options(settings, reads, active, dense.network), masks, rows)
    packed = network.pack([*dense.context_weights, *dense.weights], [*dense.context_biases, *dense.biases])
    _Masked.__init__(self, settings, network, dense.weights[0].dtype, packed)
