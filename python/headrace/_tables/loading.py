"""`headrace.load` and `headrace.from_bytes` with their types: `files`, which reads, imports no class that it makes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from headrace import files
from headrace._base.warn import warn
from headrace._fit.ensemble import Ensemble
from headrace._tables.density import TableDensity, of_file

if TYPE_CHECKING:
    from headrace._flow.flow import Flow
    from headrace._flow.transforms.transform import Transform
    from headrace.sequences.convolution import CausalConvolution
    from headrace.sequences.flow import SequenceFlow
    from headrace.sequences.prediction import LinearPrediction

Loaded: TypeAlias = "Flow | Ensemble | TableDensity | SequenceFlow | Transform | CausalConvolution | LinearPrediction"


def load(path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Loaded:
    return _told(of_file(files.load(path, allow_non_finite=allow_non_finite), files.read_notes(path)), os.fspath(path))


def from_bytes(data: bytes, *, allow_non_finite: bool = False) -> Loaded:
    return _told(of_file(files.from_bytes(data, allow_non_finite=allow_non_finite), files.notes_of_bytes(data)), "data")


def _told(found: Any, name: str) -> Loaded:
    if isinstance(found, TableDensity):
        warn(
            f"{name}: gives the density of the rows of its table, as they come; the flow of treated columns, which 0.5 "
            f"gave, is its .flow, or {'Ensemble' if isinstance(found.flow, Ensemble) else 'Flow'}.load",
            FutureWarning,
        )
    return cast("Loaded", found)


load.__doc__, from_bytes.__doc__ = files.load.__doc__, files.from_bytes.__doc__
