"""`headrace.load` and `headrace.from_bytes` with their types: `files`, which reads, imports no class that it makes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, TypeAlias

from headrace import files

if TYPE_CHECKING:
    from headrace._fit.ensemble import Ensemble
    from headrace._flow.flow import Flow
    from headrace._flow.transforms.transform import Transform

Loaded: TypeAlias = "Flow | Ensemble | Transform"


class _Load(Protocol):
    def __call__(self, path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Loaded: ...


class _FromBytes(Protocol):
    def __call__(self, data: bytes, *, allow_non_finite: bool = False) -> Loaded: ...


load: _Load = files.load
from_bytes: _FromBytes = files.from_bytes
