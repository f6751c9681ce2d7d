"""The masked network of a transform: its structure in the core, and its weights in the user's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._core import cpu

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Staircase:
    """The structure of masks that were made from it: the level of each coordinate, the degree of each hidden unit."""

    levels: Sequence[int]
    degrees: Sequence[Sequence[int]]


def _made(core: Any, options: dict[str, Any], structure: Staircase | Sequence[NDArray[np.bool_]]) -> Any:
    checked = core.MaskedOptions(**options)
    if isinstance(structure, Staircase):
        return core.MaskedTransform(checked, structure.levels, structure.degrees)
    return core.MaskedTransform.from_masks(checked, structure)


class MaskedNetwork:
    """Structure of one masked transform; `rows` gives the place of the user's output rows in the core's order."""

    def __init__(
        self,
        options: dict[str, Any],
        structure: Staircase | Sequence[NDArray[np.bool_]],
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        """Make the structure from levels and degrees, or from masks.

        `options` are what the core's `MaskedOptions` take; `rows[i]` is the core's row for the user's row i, None if
        they agree.
        """
        self.options = options
        self.staircase = structure if isinstance(structure, Staircase) else None
        self.core: cpu.MaskedTransform = _made(cpu, options, structure)
        self.rows = rows
        self._back = None if rows is None else np.argsort(rows)

    def made_for(self, core: Any) -> Any:
        """The structure as a class of that core: each compiled module has its own, and all lay out weights alike."""
        return self.core if core is cpu else _made(core, self.options, self.staircase or self.core.masks())

    def _to_core(self, arrays: Arrays) -> Arrays:
        return arrays if self._back is None else [*arrays[:-1], arrays[-1][self._back]]

    def _to_user(self, arrays: Arrays) -> Arrays:
        return arrays if self.rows is None else [*arrays[:-1], arrays[-1][self.rows]]

    @property
    def size(self) -> int:
        """Numbers in the packed vector, padding included."""
        return self.core.n_weights

    def masks(self) -> list[NDArray[np.bool_]]:
        """Dense masks, (out, in)."""
        return self._to_user(self.core.masks())

    def pack(self, weights: Arrays, biases: Arrays) -> NDArray[Any]:
        """Dense layers to the vector that the kernels read; masked weights are dropped."""
        return self.core.pack(
            [np.require(w, requirements=("C", "A")) for w in self._to_core(weights)],
            [np.require(b, requirements=("C", "A")) for b in self._to_core(biases)],
        )

    def unpack(self, packed: NDArray[Any]) -> tuple[Arrays, Arrays]:
        """The way back; masked weights are zero."""
        layers = self.core.unpack(packed)
        return self._to_user([w for w, _ in layers]), self._to_user([b for _, b in layers])

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Dense parameters by name."""
        weights, biases = self.unpack(packed)
        named: dict[str, NDArray[Any]] = {}
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            named[f"layers.{i}.weight"] = w
            named[f"layers.{i}.bias"] = b
        return named

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """The way back from `named`."""
        n = len(named) // 2
        return self.pack([named[f"layers.{i}.weight"] for i in range(n)], [named[f"layers.{i}.bias"] for i in range(n)])

    def initial(self, seed: Sequence[int], dtype: np.dtype[Any], identity: tuple[float, ...]) -> NDArray[Any]:
        """Fresh weights: He's variance for the inputs that a unit really has, outputs close to the map's identity."""
        rng = np.random.default_rng(list(seed))
        weights, biases = [], []
        masks = self.masks()
        for i, mask in enumerate(masks):
            fan_in = np.maximum(mask.sum(axis=1, keepdims=True), 1)
            gain = 1e-2 if i == len(masks) - 1 else np.sqrt(2.0)
            weights.append((rng.standard_normal(mask.shape) * (gain / np.sqrt(fan_in)) * mask).astype(dtype))
            biases.append(np.zeros(mask.shape[0], dtype))
        biases[-1][:] = np.tile(identity, masks[-1].shape[0] // len(identity))
        return self.pack(weights, biases)
