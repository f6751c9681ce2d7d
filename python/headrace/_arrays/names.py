"""Names of a flow's columns, from the frames of its fit; later frames must have these names, and files store them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace._arrays import frames
from headrace._base import arguments as check

NOTE = "columns"  # the key of the names in a file's metadata


@dataclass(frozen=True)
class Names:
    """The names of a flow's columns and of its context columns; None if unknown."""

    features: tuple[str, ...] | None = None
    context: tuple[str, ...] | None = None

    @classmethod
    def of_frames(cls, x: Any, context: Any, features: int, contexts: int) -> Names:
        """The names of the columns of two frames; None for arrays."""
        labels = (frames.names_of(x, features), frames.names_of(context, contexts))
        return cls(*(None if names is None else tuple(names) for names in labels))

    def or_those_of(self, other: Names) -> Names:
        """The names of this object, or the names of `other` where these are unknown."""
        return Names(self.features or other.features, self.context or other.context)

    def of_columns(self, columns: Iterable[int]) -> Names:
        """The names of the columns at some indices, and all names of the context."""
        return replace(self, features=self.features and tuple(self.features[i] for i in columns))

    def check(self, name: str, value: Any) -> None:
        """Refuse a frame, the argument `name`, whose column names differ from the known names or have another order.

        Raises:
            ValueError: the frame's names differ from the known names, or have another order.
        """
        known = {"x": self.features, "context": self.context}.get(name.removeprefix("validation "))
        if known is not None and (labels := frames.labels_of(value)) is not None:
            refuse_others(name, labels, known)

    def notes(self) -> dict[str, str]:
        """The entry of the names in a file's metadata; {} if all names are unknown."""
        if not (self.features or self.context):
            return {}
        features, context = (None if names is None else list(names) for names in (self.features, self.context))
        return {NOTE: json.dumps({"features": features, "context": context})}

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any], features: int, contexts: int) -> Names:
        """The names in a file's metadata for these numbers of columns; unknown if they are missing or do not fit."""
        try:
            entry = json.loads(notes.get(NOTE, "null"))
            lists = entry["features"], entry["context"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls()
        if not all(
            names is None or are_names(names, count) for names, count in zip(lists, (features, contexts), strict=True)
        ):
            return cls()
        return cls(*(None if names is None else tuple(names) for names in lists))


def refuse_others(argument: str, labels: Sequence[str], known: Sequence[str]) -> None:
    """Refuse column names that differ from the known names, or have another order.

    Raises:
        ValueError: the names differ; the message lists missing and new names.
    """
    if tuple(labels) == tuple(known):
        return
    missing, new = _without(known, labels), _without(labels, known)
    differences = [f"{what} {_listed(names)}" for what, names in (("without", missing), ("with", new)) if names]
    raise ValueError(
        f"{argument}: expected the columns of the fit in their order, {_listed(known)}, got them "
        + (" and ".join(differences) or f"in the order {_listed(labels)}; choose them by name, {argument}[[...]]")
    )


def named_features(features: Any) -> tuple[int, Names]:
    """The number and the names of columns, from a number, where names are unknown, or from a list of names."""
    if isinstance(features, (str, bytes)) or not np.iterable(features):
        return check.integer("features", features, least=1), Names()
    labels = list(features)
    if not labels or not all(isinstance(name, str) for name in labels):
        raise TypeError(f"features: expected the number of columns, or their names, got {labels[:8]!r}")
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise ValueError(f"features: expected different names, got {twice!r} twice")
    return len(labels), Names(tuple(map(str, labels)))


def _without(names: Sequence[str], excluded: Sequence[str]) -> list[str]:
    return [name for name in names if name not in excluded]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more


def are_names(names: Any, count: int) -> bool:
    """Whether an entry of a file is a list of `count` strings."""
    return isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
