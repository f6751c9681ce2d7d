"""The base and the transforms of a flow of rows or of sequences, whose parameters form one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._flow.bases import Base
from headrace._flow.program.evaluation import Pair
from headrace._flow.program.module import Block, Parametrised, Program


def check_base(base: Any, chain: Sequence[Any]) -> None:
    """Refuse an object that is no base, or a base and transforms with different numbers of features."""
    if not isinstance(base, Base):
        raise TypeError(f"base: expected a base density, got {check.kind_of(base)}")
    for i, t in enumerate(chain):
        if t.features != base.features:
            raise ValueError(f"transforms[{i}]: expected {base.features} features, as the base has, got {t.features}")


class Chained(Parametrised):
    """The common base class of flows of rows and flows of sequences."""

    _dtype: np.dtype[Any]
    _base: Base
    _chain: tuple[Any, ...]
    _standardize_context: Pair | None

    def _join(self, chain: Sequence[Any], base: Base, scale: tuple[Any, Any] | None) -> None:
        """Store the structure and the parameters of transforms and a base, and the scale of the context."""
        self._chain = tuple(t._bare() for t in chain)
        self._base = base
        self._standardize_context = None
        if scale is not None:
            self._standardize_context = check.mean_and_std("standardize_context", scale, self._context)
        self._take_parameters(np.concatenate([base._initial(self._dtype), *(t._vector() for t in chain)]))

    def _take_parameters(self, parameters: NDArray[Any], *, program: Program = None, **structure: Any) -> None:
        self._base._check(self._dtype)
        super()._take_parameters(parameters, program=program, **structure)

    def _blocks(self) -> list[tuple[str, Block]]:
        blocks = [(f"base.{prefix}", block) for prefix, block in self._base._blocks()]
        for i, t in enumerate(self._chain):
            blocks += [(f"transforms.{i}.{prefix}", block) for prefix, block in t._blocks()]
        return blocks

    def _base_size(self) -> int:
        return sum(block.size for _, block in self._base._blocks())

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return {f"transforms.{i}.{name}": m for i, t in enumerate(self._chain) for name, m in t._fixed_arrays().items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters and results."""
        return self._dtype

    @property
    def base(self) -> Base:
        """The base density of a row or of a step, with a copy of the current parameters."""
        return self._base._with_parameters(self._vector()[: self._base_size()])

    @property
    def standardize_context(self) -> Pair | None:
        """``(mean, std)`` by which context columns are standardised, shape (context,) each, or None; `fit` sets it."""
        return self._standardize_context
