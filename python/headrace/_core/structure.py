"""The masked network of a transform: its structure in the core, and its weights in the user's order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._core import cpu
from headrace._core.steps import StepSpec

Arrays = list[NDArray[Any]]

BLOCK_GAIN = 0.5  # the gain of initial weights at the end of a residual block, in place of sqrt(2)


@dataclass(frozen=True, eq=False)
class Staircase:
    """The structure that determines masks: the level of each coordinate, and the degree of each hidden unit."""

    levels: Sequence[int]
    degrees: Sequence[Sequence[int]]


def _made(core: Any, options: dict[str, Any], structure: Staircase | Sequence[NDArray[np.bool_]]) -> Any:
    settings = dict(options)
    network: Any = settings.pop("network", None)
    checked = core.MaskedOptions(**settings, hidden=[] if network is None else network.core_layers(core))
    if isinstance(structure, Staircase):
        return core.MaskedTransform(checked, structure.levels, structure.degrees)
    return core.MaskedTransform.from_masks(checked, structure)


def _check_size(options: dict[str, Any], structure: Staircase) -> None:
    """Refuse layers whose weights cannot fit in memory."""
    first, last = len(options.get("reads", ())) + options.get("context", 0), len(options["active"])
    sizes = [first, *map(len, structure.degrees), last]
    layers = f", of layers of {', '.join(map(str, sizes))} values"
    refuse_beyond_memory("features, hidden", sum(a * b for a, b in pairwise(sizes)), layers)


def refuse_beyond_memory(names: str, weights: int, of: str = "") -> None:
    """Refuse weights that cannot fit in memory, because the system would end the process without an error."""
    needed = np.dtype(np.float32).itemsize * weights
    if needed > (most := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise ValueError(
            f"{names}: expected a network whose weights fit in the {most / 2**30:.3g} GiB of memory, got at "
            f"least {needed / 2**30:.3g} GiB{of}"
        )


class MaskedNetwork:
    """The structure of one masked transform; `rows` is the index in the core of each of the user's output rows."""

    is_network = True  # the optimiser applies weight decay to matrices of networks

    def __init__(
        self,
        options: dict[str, Any],
        structure: Staircase | Sequence[NDArray[np.bool_]],
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        """Make the structure from levels and degrees, or from masks.

        `options` are arguments of the core's `MaskedOptions`, and ``network``, a `headrace.Network`, or None if all
        layers are alike; `rows[i]` is the core's output row for the user's output row i; None if the orders are equal.

        The core's list of layers begins with the layers that read only the context, which have no masks.
        """
        self.options = options
        self.described: Any = options.get("network")  # a `headrace.Network`, which headers of files contain
        self.joined = () if self.described is None else self.described.joined
        self.staircase = structure if isinstance(structure, Staircase) else None
        if self.staircase is not None:
            _check_size(options, self.staircase)
        self.core: cpu.MaskedTransform = _made(cpu, options, structure)
        self.rows = rows
        self._back = None if rows is None else np.argsort(rows)

    def among(self, columns: Sequence[int], features: int) -> MaskedNetwork:
        """The network for wider rows: coordinate i of the network is the column `columns[i]` of `features` columns.

        Levels, degrees and the layout of weights stay unchanged; all other columns have the level 1.
        """
        sides = {side: [columns[c] for c in self.options.get(side, [])] for side in ("reads", "active")}
        structure: Staircase | Sequence[NDArray[np.bool_]] = self.core.masks()
        if (inner := self.staircase) is not None:
            levels = [1] * features
            for c, level in zip(columns, inner.levels, strict=True):
                levels[c] = level
            structure = Staircase(levels, inner.degrees)
        return MaskedNetwork({**self.options, **sides, "features": features}, structure, self.rows)

    def made_for(self, core: Any) -> Any:
        """The structure as an object of a compiled module's class; all modules have the same layout of weights."""
        if isinstance(self.core, core.MaskedTransform):
            return self.core
        return _made(core, self.options, self.staircase or self.core.masks())

    def step(self, inverted: bool = False) -> StepSpec:
        """The step of a program that has this network."""
        return StepSpec("NetworkStep", inverted=inverted, transform=self)

    def _to_core(self, arrays: Arrays) -> Arrays:
        return arrays if self._back is None else [*arrays[:-1], arrays[-1][self._back]]

    def _to_user(self, arrays: Arrays) -> Arrays:
        return arrays if self.rows is None else [*arrays[:-1], arrays[-1][self.rows]]

    @property
    def size(self) -> int:
        """The number of values in the packed vector, padding included."""
        return self.core.n_weights

    def masks(self) -> list[NDArray[np.bool_]]:
        """The dense masks of the layers, each of shape (out, in)."""
        return self._to_user(self.core.masks())

    def pack(self, weights: Arrays, biases: Arrays) -> NDArray[Any]:
        """The packed vector for the kernels, from dense layers without their masked weights."""
        pairs = zip(self._to_core(weights), self._to_core(biases), strict=True)
        return self.core.pack([np.require(array, requirements=("C", "A")) for pair in pairs for array in pair])

    def unpack(self, packed: NDArray[Any]) -> tuple[Arrays, Arrays]:
        """The dense weights and biases of a packed vector; masked weights are zero."""
        tensors = self.core.unpack(packed)
        return self._to_user(tensors[::2]), self._to_user(tensors[1::2])

    def names(self) -> list[str]:
        """The names of the tensors in the core's order: each layer's weights, then its biases."""
        return [name for name, _ in self.core.tensors]

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The dense parameters of a packed vector, by name."""
        layers = zip(*self.unpack(packed), strict=True)
        return dict(zip(self.names(), (array for layer in layers for array in layer), strict=True))

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """The packed vector of dense parameters by name: the inverse of `named`."""
        arrays = [named[name] for name in self.names()]
        return self.pack(arrays[::2], arrays[1::2])

    def initial(
        self, seed: Sequence[int], dtype: np.dtype[Any], identity: tuple[float, ...], *, biases_of: float = 1.0
    ) -> NDArray[Any]:
        """Random initial weights, with He's variance for the unmasked inputs, and outputs close to the map's identity.

        Hidden units have uniform biases, within `biases_of` over the square root of their number of inputs, so that not
        all units bend at the mean of the rows (docs/notes/training.md). Products added to another layer's sums are
        small, so that the sums do not grow from block to block.
        """
        rng = np.random.default_rng(list(seed))
        masks = self.masks()
        context = [np.ones((self.core.hidden[i], self.options["context"]), bool) for i in self.joined]
        gains = [1.0] * len(context) + [np.sqrt(2.0)] * (len(masks) - 1) + [1e-2]
        for i, layer in enumerate(self.described or ()):
            if layer.adds is not None:
                gains[len(context) + i] = BLOCK_GAIN
        weights, biases = [], []
        for gain, mask in zip(gains, [*context, *masks], strict=True):
            fan_in = np.maximum(mask.sum(axis=1, keepdims=True), 1)
            weights.append((rng.standard_normal(mask.shape) * (gain / np.sqrt(fan_in)) * mask).astype(dtype))
            biases.append(np.zeros(mask.shape[0], dtype))
        for bias, mask in zip(biases[len(context) : -1], masks, strict=False):  # drawn last, to keep 0.4.0's weights
            bias[:] = biases_of * rng.uniform(-1.0, 1.0, bias.size) / np.sqrt(np.maximum(mask.sum(axis=1), 1))
        biases[-1][:] = np.tile(identity, masks[-1].shape[0] // len(identity))
        return self.pack(weights, biases)
