"""The private parts of a flow of sequences that a fit uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._base import arguments as check
from headrace._flow.internals import Restorable
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import Support
from headrace.sequences.program import size_of, slices

if TYPE_CHECKING:
    from headrace._flow.bases import Base
    from headrace._flow.program.evaluation import Pair
    from headrace._flow.program.module import Program


class SequenceInterior(Restorable):
    """The private parts of a `SequenceFlow` that a fit uses, like `headrace._flow.internals.Interior` of a `Flow`."""

    on_device = False
    drops = False
    bends = False  # only fits of rows try the cosine schedule

    @property
    def parts(self) -> list[slice]:
        """For each transform, its slice of the vector of parameters."""
        return slices(*(size_of(t) for t in self.chain), first=self._flow._base_size())

    @property
    def support(self) -> Support | None:
        """The `Support` at the data end; None without one."""
        last = self.chain[-1]
        return last if isinstance(last, Support) else None

    @property
    def end(self) -> int:
        """The index of the last transform, or of the last before the `Support`."""
        return len(self.chain) - (1 if self.support is None else 2)

    @property
    def is_fresh(self) -> bool:
        """Whether the transform with the index `end` is a `Standardize` that is still the identity."""
        last = self.chain[self.end]
        return isinstance(last, Standardize) and last.is_identity

    @property
    def every(self) -> int:
        """The least number of steps that is a multiple of `every` of each adaptive prediction; 1 without any."""
        return math.lcm(*(getattr(t, "every", 1) for t in self.chain))

    @property
    def widest(self) -> int:
        """The number of units of the widest layer."""
        networks = (t._settings for t in self.chain if getattr(t, "is_network", False))
        return max((max(settings.channels, settings.skip) for settings in networks), default=0)

    def products(self, matmul: Any) -> str:
        """The precision of products in a fit, which is that of the flow; raises ValueError for another `matmul`."""
        matmul_of_flow: str = self._flow.matmul
        if matmul not in (None, matmul_of_flow):
            raise ValueError(
                f"matmul: expected None or {matmul_of_flow!r}, the flow's, got {matmul!r}; call .to('cpu', {matmul!r})"
            )
        return matmul_of_flow

    def stepping(self, matmul: str) -> tuple[Program, Callable[[], Any]]:
        """See `Interior.stepping`."""
        return self.program, lambda: None

    def set_starts(self, starts: dict[int, Any], context: Pair | None, base: Base | None = None) -> None:
        """Replace transforms by others with different parameters, and standardise the context.

        `starts`: the new transforms by their indices in the chain. A `base` replaces the flow's base, with initial
        parameters.
        """
        flow, vector = self._flow, self.vector()
        parts = [vector[: flow._base_size()] if base is None else base._initial(flow.dtype)]
        parts += [vector[part_of] if i not in starts else starts[i]._vector() for i, part_of in enumerate(self.parts)]
        chain = [t if i not in starts else starts[i]._bare() for i, t in enumerate(self.chain)]
        structure: dict[str, Any] = {"_chain": tuple(chain)}
        if context is not None:
            structure["_standardize_context"] = context
        if base is not None:
            structure["_base"] = base
        flow._take_parameters(np.concatenate([part.astype(flow.dtype) for part in parts]), **structure)

    def check_field(self, crop: int | None, longest: int) -> int | None:
        """The number of steps before a crop on which the crop's densities depend; None if they need all steps.

        Raises:
            ValueError: networks read latent values, which depend on all earlier steps, and `crop` is below `longest`.
        """
        reads = [t.reads for t in self.chain if getattr(t, "reads", "data") != "data"]
        if not reads:
            return int(self._flow.field)
        if crop is not None and crop < longest:
            raise ValueError(
                f"crop: expected None or at least {longest}, the steps of the longest sequence, because networks that "
                f"read latent values depend on all steps before, got {check.integer('crop', crop)}"
            )
        return None
