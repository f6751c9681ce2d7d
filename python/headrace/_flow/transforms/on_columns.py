"""A transform of some columns, which leaves the other columns unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.stored import Stored, header_of, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._core.structure import MaskedNetwork
from headrace._flow.program.module import Block
from headrace._flow.transforms.around import Around, checked, inner_of
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.restriction import Mixed
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform


@storable
class OnColumns(Around):
    """A transform of some coordinates, which keeps the bits of all other coordinates. Its parameters are copied.

    Args:
        transform: Any transform except `Standardize`, `Support` and `Gaussianize`, which have settings for each column,
            and except a `Linear` that is not trainable.
        columns: The coordinates of the row that become coordinates 0, 1, ... of the transform, one for each of these,
            all different.
        features: The number of all coordinates.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.OnColumns(hr.transforms.Permutation([1, 0]), columns=[0, 2], features=3)
    >>> t.forward(np.array([[1.0, 2.0, 3.0]]))[0].tolist()
    [[3.0, 2.0, 1.0]]
    """

    columns: tuple[int, ...]
    """The coordinates that the transform moves."""

    def __init__(self, transform: Transform, columns: Sequence[int], features: int) -> None:
        inner = inner_of(checked(transform))
        if isinstance(inner, Linear) and not inner.trainable:
            raise ValueError(f"transform: expected no Linear(trainable=False), got {transform!r}; give it all columns")
        if isinstance(inner, (Standardize, Support, Gaussianize)):
            raise ValueError(f"transform: expected no Standardize, Support or Gaussianize, got {transform!r}")
        n = check.integer("features", features, least=1, most=2**24)
        self.columns = check.coordinates("columns", columns, n)
        if len(self.columns) != transform.features:
            raise ValueError(f"columns: expected {transform.features}, as many as it moves, got {len(self.columns)}")
        self._networks_here: dict[int, tuple[MaskedNetwork, MaskedNetwork]] = {}
        super().__init__(transform, n)

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        return [widened for step in self._transform._steps(inverted) for widened in self._among_all(step)]

    def _among_all(self, step: StepSpec) -> list[StepSpec]:
        """The steps among all columns that are equivalent to a step of the transform."""
        n, columns, fields = self._features, self.columns, step.fields
        if step.kind == "PermutationStep":
            order = [*range(n)]
            for c, source in zip(columns, fields["order"], strict=True):
                order[c] = columns[source]
            return [StepSpec(step.kind, order=order)]
        if step.kind == "NetworkStep":
            return [StepSpec(step.kind, **{**fields, "transform": self._network(fields["transform"])})]
        assert step.kind == "RotationStep"
        # A rotation's matrix is block diagonal, so that permutations move `columns` to the front and back.
        first = [*columns, *(c for c in range(n) if c not in set(columns))]
        rest = n - len(columns)
        matrix, blocks = np.concatenate([fields["matrix"], np.ones(rest)]), [*fields["blocks"], *[1] * rest]
        turn = StepSpec(step.kind, **{**fields, "matrix": matrix, "blocks": blocks})
        back = [int(i) for i in np.argsort(first)]
        return [StepSpec("PermutationStep", order=first), turn, StepSpec("PermutationStep", order=back)]

    def _network(self, network: MaskedNetwork) -> MaskedNetwork:
        """A copy of a network with the same layout of weights, which reads and moves `columns` among all columns."""
        if id(network) not in self._networks_here:
            self._networks_here[id(network)] = network, network.among(self.columns, self._features)
        return self._networks_here[id(network)][1]

    def _blocks(self) -> list[tuple[str, Block]]:
        return self._transform._blocks()

    def _restricted(self, kept: tuple[int, ...], inverted: bool = False) -> tuple[Transform | None, tuple[int, ...]]:
        if kept == tuple(range(self._features)):
            return self, kept
        places_of = {c: i for i, c in enumerate(self.columns)}
        places = [i for i, c in enumerate(kept) if c in places_of]
        if not places:
            return None, kept
        try:
            part, needed = self.transform._restricted(tuple(places_of[kept[i]] for i in places), inverted)
        except Mixed as error:
            raise Mixed(f"{error}, counted among its columns {list(self.columns)}") from None
        left = list(kept)
        for place, other in zip(places, needed, strict=True):
            left[place] = self.columns[other]
        return None if part is None else OnColumns(part, places, len(kept)), tuple(left)

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "columns": list(self.columns), "transform": header_of(self._transform)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, columns = stored.size("features", least=1), stored.items("columns")
        return cls(stored.child("transform", Transform), columns, features)

    def __repr__(self) -> str:
        """The transform, its columns and the number of all columns."""
        return f"OnColumns({self._transform!r}, {list(self.columns)}, {self._features})"
