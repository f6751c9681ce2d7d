"""Embedding nets, which a model applies to the context: part of the converted flow, or left outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace.convert._parts import Numbers, Place, class_of, numbers

_NOTHING = (("builtins", "NoneType"), ("torch", "Identity"))


class Outside:
    """An embedding net in a conversion: the net's mean and scale become part of the flow, or the net stays outside.

    A net that shifts and scales columns, like sbi's z-scoring, becomes part of a flow (`Flow.standardize_context`). A
    net that does more than this scaling raises an error unless `embedding` is "outside".
    """

    def __init__(self, net: Any, embedding: str, place: Place) -> None:
        check.choice("embedding", embedding, ("inside", "outside"))
        self.scale: tuple[Numbers, Numbers] | None = None
        self.stays = embedding == "outside"
        if self.stays:
            return
        for i, part in enumerate(net if class_of(net) == ("torch", "Sequential") else [net]):
            if class_of(part) in _NOTHING:
                continue
            if class_of(part) == ("sbi", "Standardize") and self.scale is None and i == 0:
                self.scale = numbers(part._mean), numbers(part._std)
                continue
            package, kind = class_of(part)
            raise ValueError(
                f"{place.path}: expected an embedding net that shifts and scales, got one with {package}'s {kind}, "
                'which stays outside of a flow: say embedding="outside", and give the flow what this net makes of '
                "a context"
            )

    def standardize(self, contexts: Sequence[int]) -> tuple[Numbers, Numbers] | None:
        """Mean and standard deviation of a context; `contexts`: the number of context columns of each transform."""
        columns = max(contexts, default=0)
        if self.scale is None or not columns:
            return None
        mean, std = (np.broadcast_to(part, (columns,)).copy() for part in self.scale)
        return mean, std
