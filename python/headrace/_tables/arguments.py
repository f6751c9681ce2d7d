"""Arguments for the treatment of a table in its original form: whole numbers, noise, missing values and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headrace._arrays import columns as _columns
from headrace._base import arguments as check
from headrace._flow.transforms.support import Support, support_or_none
from headrace._tables import classes
from headrace._tables import table as _table
from headrace._tables.facts import Seen


@dataclass(frozen=True)
class Treatment:
    """Arguments for the treatment of the columns of a table."""

    discrete: Any = "auto"
    """Columns of whole numbers: "auto" for columns of integer dtypes, None, or columns by index or name."""
    spread: Any = "auto"
    """Noise for repeated values: "auto", "none" or None, a width, or widths by index or name."""
    missing: str = "refuse"
    """"refuse" or "drop" rows with missing values, or "model" them."""
    bounds: Any = None
    periodic: Any = None
    """Periods: one for each column, or by index or name."""
    names: Sequence[str] | None = None
    """Names of the columns."""
    seed: int = 0
    """The seed of the noise."""
    texts: Sequence[str] = ()
    """Labels of text columns that were left out of the rows, for a warning."""
    keep: bool = False
    """Whether the caller chose the columns, so that no column is left out."""
    x_name: str = "x"
    """The name of the rows in messages."""
    dashes: str = ""
    """The prefix of names of arguments in messages: "--" on the command line."""
    categories: Any = None
    """Columns with a probability for each value: "auto", None or columns by index or name."""
    gates: bool = True
    """Whether a column with a density may also have values with a probability."""
    labels: Mapping[Any, tuple[str, ...]] = field(default_factory=dict)
    """Labels of text columns, which are stored as codes, by index or name."""

    def checked(self, features: int) -> Treatment:
        """The arguments with bounds and periods as lists, which have an entry for each of `features` columns."""
        check.choice(f"{self.dashes}missing", self.missing, _table.MISSING)
        ends = {
            name: _columns.by_column(f"{self.dashes}{name}", getattr(self, name), features, self.names, self.x_name)
            for name in ("bounds", "periodic")
        }
        return replace(self, **ends)

    def support(self, features: int) -> Support:
        """The support of all columns."""
        return support_or_none(self.bounds, features, self.periodic) or Support([None] * features)

    def mentioned(self, features: int) -> set[int]:
        """The columns that `discrete`, `spread`, `bounds` or `periodic` names, which are therefore never left out."""
        places = {i for ends in (self.bounds, self.periodic) for i, pair in enumerate(ends or ()) if pair is not None}
        for name, value in (("discrete", self.discrete), ("spread", self.spread)):
            if isinstance(value, Mapping) or (np.iterable(value) and not isinstance(value, str)):
                places |= set(_columns.chosen(self.dashes + name, value, features, self.names, self.x_name))
        return places

    def learn(self, seen: Seen, by_dtype: Sequence[str] | None, left_out: Mapping[int, str]) -> _table.Table:
        """Learn the treatment of each column from rows: its kind, its noise and its classes.

        Args:
            seen: Statistics of the rows, without missing values unless these are modelled.
            by_dtype: Kinds of the columns by their dtypes, as from `frames.kinds_of`.
            left_out: Columns that the density leaves out, each with a description of its values.
        """
        features, names = seen.features, self.names
        support, kinds = self.support(features), self._kinds(by_dtype, features)
        ends: dict[str, Any] = {"bounds": support.bounds, "periodic": support.periodic, "left_out": left_out}
        ends |= {"names": names, "x_name": self.x_name}
        widths: list[float | None] = [None] * features
        option = f"{self.dashes}spread"
        if isinstance(self.spread, Mapping):
            places = _columns.chosen(option, self.spread, features, names, self.x_name)
            for i, width in zip(places, self.spread.values(), strict=True):
                if kinds[i] != "float":
                    label = _columns.label(i, names)
                    raise ValueError(f"{option}: expected columns that are not whole numbers, got {label}")
                widths[i] = check.number(option, width, above=0.0, below=np.inf)
        elif self.spread not in (None, "none"):
            if isinstance(self.spread, str) and self.spread != "auto":
                raise ValueError(f"{option}: expected 'auto', 'none', a width or a dict of widths, got {self.spread!r}")
            fixed = None if self.spread == "auto" else check.number(option, self.spread, above=0.0, below=np.inf)
            plain = classes.classified(_table.Table.learn(seen, kinds, widths, **ends), seen, self)
            ties = _table.repeating(seen.some, plain)
            for i, gap in zip(ties, seen.smallest_gaps(ties) if fixed is None else [fixed] * len(ties), strict=True):
                widths[i] = gap
        learnt = classes.classified(_table.Table.learn(seen, kinds, widths, **ends), seen, self)
        return replace(learnt, missing=self.missing, seed=self.seed)

    def _kinds(self, by_dtype: Sequence[str] | None, features: int) -> list[str]:
        """The kind of each column, "float", "integer" or "boolean"."""
        discrete = self.discrete
        if isinstance(discrete, str) and discrete != "auto":
            raise ValueError(f"{self.dashes}discrete: expected 'auto', None or a list of columns, got {discrete!r}")
        kinds = ["float"] * features
        if discrete is None:
            return kinds
        if isinstance(discrete, str):
            return kinds if by_dtype is None else list(by_dtype)
        for i in _columns.chosen(f"{self.dashes}discrete", discrete, features, self.names, self.x_name):
            kinds[i] = by_dtype[i] if by_dtype is not None and by_dtype[i] != "float" else "integer"
        return kinds
