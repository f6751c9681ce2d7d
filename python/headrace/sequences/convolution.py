"""A causal convolution over time as a transform of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.keywords import documented, takes
from headrace._base.rng import Rng
from headrace._base.stored import Stored, storable
from headrace._base.types import Self, Unpack
from headrace._core import cpu
from headrace._core.device import Device
from headrace._core.settings import MapShape, Settings
from headrace._core.structure import refuse_beyond_memory
from headrace._flow.flow import Flow
from headrace._flow.program.module import Block
from headrace.sequences.on_device import CausalLinkOnDevice
from headrace.sequences.program import Link, size_of
from headrace.sequences.sequential import OverTime
from headrace.sequences.settings import CausalSettings, Convolution

_HEAD_GAIN = 0.1  # relative scale of the last layer's fresh weights, for maps near the identity


class _CausalBlock:
    """The parameters of a causal network, as a vector and by name."""

    is_network = True
    has_dense_matrices = True

    def __init__(self, structure: Any) -> None:
        self.structure = structure

    @property
    def size(self) -> int:
        return int(self.structure.n_weights)

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        names = (name for name, _ in self.structure.tensors)
        return dict(zip(names, self.structure.unpack(packed), strict=True))

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        arrays = [np.require(named[name], requirements=("C", "A")) for name, _ in self.structure.tensors]
        return np.asarray(self.structure.pack(arrays))


@storable
@documented
class CausalConvolution(OverTime):
    """A transform of sequences: each step is mapped with parameters that a network computes from earlier steps.

    The network is that of WaveNet (van den Oord et al. 2016): layers of dilated convolutions over time, each with a
    gate tanh(a) · sigmoid(b), residual sums and skip sums. With ``reads="data"`` the network reads x: log densities of
    all steps are computed at once, and samples step by step. With ``reads="latent"`` (Parallel WaveNet's student; van
    den Oord et al. 2017) the network reads z, and samples are computed at once. **Both directions compute the same bits
    from the same values**, for any division into pieces and batches and any number of threads. The values of all layers
    before the first step are zero.

    With `inner`, the values of one step also depend on each other: outputs of the network are the context of a flow
    over the values of a step. Without `inner`, each value has a map with separate parameters.

    Weights are named as in ``torch.nn.Conv1d``, (outputs, inputs, taps), the oldest tap first; names of the inner
    flow's weights begin with ``inner.``.

    Args:
        **keywords: The keywords of `Convolution`.
        seed: The seed of the fresh weights.
        rng: A generator instead of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".

    Raises:
        TypeError: the inner flow is not a flow.
        ValueError: an option is out of range, weights do not fit in memory, or the inner flow has no context,
            another number of features, another dtype or another base.

    >>> import headrace as hr
    >>> t = hr.CausalConvolution(channels=8, dilations=[1, 2, 4], kernel=3)
    >>> t.field, t.named_parameters()["layers.1.gate.weight"].shape
    (17, (16, 8, 3))
    >>> t = hr.CausalConvolution(2, channels=8, dilations=[1, 2], inner=hr.MAF(2, context=6))
    >>> t.named_parameters()["head.1.weight"].shape  # to the six columns of the context
    (6, 8)
    """

    is_network = True
    _dtype: np.dtype[Any]

    @takes(Convolution, CausalSettings, Settings)
    def __init__(
        self,
        features: int = 1,
        *,
        seed: int | Sequence[int] = 0,
        rng: Rng = None,
        dtype: DTypeLike = "float32",
        **keywords: Unpack[Convolution],
    ) -> None:
        inner, of_map = keywords.get("inner"), keywords.keys() & MapShape.__annotations__
        if inner is not None and keywords.get("level"):
            raise ValueError("level: expected False beside an inner flow, whose parameters have no level, got True")
        if inner is not None and of_map:
            raise ValueError(f"{min(of_map)}: expected no setting of a map beside an inner flow, got {inner!r}")
        checked = CausalSettings(features=features, **keywords)  # type: ignore[arg-type]  # others once they are checked
        kind = check.float_dtype("dtype", dtype)
        if inner is not None and inner.dtype != kind:
            raise ValueError(f"inner: expected a flow of {kind}, as this is, got {inner.dtype}; use .astype")
        self._set(checked, kind)
        network = self._fresh(check.seeds(seed), kind)
        self._take_parameters(network if inner is None else np.concatenate([network, inner._vector()]))

    def _set(self, settings: CausalSettings, dtype: np.dtype[Any] | None) -> None:
        super().__init__(settings.features, settings.context, settings.covariates, settings.hop, dtype)
        widths = (settings.kernel * settings.channels + settings.context + settings.covariates, settings.channels)
        each = 2 * settings.channels * widths[0] + (settings.channels + settings.skip) * widths[1]
        rest = settings.skip * (settings.skip + settings.outputs)
        refuse_beyond_memory("channels, skip, kernel, dilations", len(settings.dilations) * each + rest)
        self._settings = settings
        self._structure = settings.structure()

    def _fresh(self, seeds: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Random weights that preserve the variance of values, and with which the map is close to the identity.

        The variance of residual sums grows by the same total for any number of layers.
        """
        rng = np.random.default_rng(list(seeds))
        layers = len(self._settings.dilations)
        arrays: dict[str, NDArray[Any]] = {}
        for name, shape in self._structure.tensors:
            if len(shape) == 1:
                arrays[name] = np.zeros(shape, dtype)
                continue
            gain = {"head.0.weight": np.sqrt(2.0), "head.1.weight": _HEAD_GAIN}.get(name, 1.0)
            if name.endswith("out.weight"):
                gain = 2.0 / np.sqrt(layers)  # a gated unit has about half of its input's standard deviation
            deviation = gain / np.sqrt(np.prod(shape[1:]))
            arrays[name] = (deviation * rng.standard_normal(shape)).astype(dtype)
        if self._settings.inner is None:
            arrays["head.1.bias"][:] = np.tile(self._identity(), self._settings.features)
        return _CausalBlock(self._structure).pack_named(arrays)

    def _identity(self) -> NDArray[np.float64]:
        """The initial raw parameters of a value; the means of a mixture are spread, because equal components stay
        equal.
        """
        values = np.array(self._settings.identity)
        if self._settings.map == "logistic_mixture":
            n = self._settings.bins
            values[n : 2 * n] = np.linspace(-1.0, 1.0, n)
        return np.append(values, 0.0) if self._settings.level else values

    def _blocks(self) -> list[tuple[str, Block]]:
        blocks: list[tuple[str, Block]] = [("", _CausalBlock(self._structure))]
        inner = self._settings.inner
        return blocks if inner is None else blocks + [(f"inner.{prefix}", block) for prefix, block in inner._blocks()]

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        inner = self._settings.inner
        return {} if inner is None else {f"inner.{name}": array for name, array in inner._fixed_arrays().items()}

    def _link(self, dtype: np.dtype[Any], products: str) -> Link:
        kind = cpu.CausalTransformF32 if dtype == np.float32 else cpu.CausalTransformF64
        if (bare := self._settings.inner) is None:
            options = self._settings.map_options()
        else:  # each call passes the inner flow's parameters
            options = {"inner": bare._remade(np.zeros(size_of(bare), dtype), dtype, None)._program}
        transform = kind(self._structure, self._settings.reads == "data", **options)
        return "network", transform, products == "bf16", self._settings.sizes

    def _link_on(self, device: Device, dtype: np.dtype[Any]) -> CausalLinkOnDevice:
        return CausalLinkOnDevice(self._settings, device, dtype)

    @property
    def field(self) -> int:
        """The number of earlier steps on which a step depends."""
        return int(self._structure.field)

    @property
    def reads(self) -> str:
        """The side that the network reads, "data" or "latent"."""
        return self._settings.reads

    def _with_sizes(self, seed: int) -> Self:
        """A copy with fresh weights, whose network reads running sizes in place of companded values."""
        other = type(self).__new__(type(self))
        other._set(replace(self._settings, sizes=True, companded=False), self._dtype)
        other._take_parameters(other._fresh([seed, 1], self._dtype))
        return other

    @property
    def reads_sizes(self) -> bool:
        """Whether the network reads running sizes of an `AdaptivePrediction`."""
        return self._settings.sizes

    @property
    def inner(self) -> Flow | None:
        """The flow of the values of a step, with a copy of the current parameters; None if each value has a map."""
        inner = self._settings.inner
        if inner is None:
            return None
        return inner._remade(self._vector()[self._structure.n_weights :], self._dtype, None)

    def _header(self) -> dict[str, Any]:
        return self._settings.header()

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        inner = stored.child("inner", Flow, "inner.") if stored.has("inner") else None
        settings = CausalSettings.from_file(stored, inner=inner)
        self = cls.__new__(cls)
        self._set(settings, stored.dtype)
        named = {name: stored.array(name, tuple(shape)) for name, shape in self._structure.tensors}
        network = _CausalBlock(self._structure).pack_named(named)
        self._take_parameters(network if inner is None else np.concatenate([network, inner._vector()]))
        return self

    def __repr__(self) -> str:
        """The options of the convolution."""
        return f"CausalConvolution({self._features}, {self._settings!r})"
