"""The compiled core on the CPU (cpp/bindings)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def isa() -> str: ...
def isas() -> list[str]: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def fma_peak(seconds: float) -> float: ...
def maps() -> list[tuple[str, str, int]]: ...
def activations() -> list[str]: ...
def coupling(
    map: str,
    scale: str,
    slope: float,
    inverse: bool,
    input: NDArray[Any],
    params: NDArray[Any],
    value: NDArray[Any],
    log_det: NDArray[Any],
) -> None: ...

class MaskedOptions:
    def __init__(
        self,
        *,
        features: int,
        context: int,
        reads: Sequence[int],
        active: Sequence[int],
        map: str,
        scale: str,
        slope: float,
        activation: str,
        reads_data: bool,
        formula_to_data: bool,
    ) -> None: ...

class MaskedTransform:
    def __init__(self, options: MaskedOptions, levels: Sequence[int], degrees: Sequence[Sequence[int]]) -> None: ...
    @staticmethod
    def from_masks(options: MaskedOptions, masks: Sequence[NDArray[np.bool_]]) -> MaskedTransform: ...
    def pack(self, weights: Sequence[NDArray[Any]], biases: Sequence[NDArray[Any]]) -> NDArray[Any]: ...
    def unpack(self, packed: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]: ...
    def masks(self) -> list[NDArray[np.bool_]]: ...
    @property
    def n_weights(self) -> int: ...

class _Program:
    def __init__(
        self, features: int, context: int, base: str, steps: Sequence[tuple[Any, ...]], base_steps: int = 0
    ) -> None: ...
    def run(
        self,
        inverse: bool,
        input: NDArray[Any] | None,
        rows: int,
        seed: int,
        context: NDArray[Any] | None,
        value: NDArray[Any] | None,
        log_det: NDArray[Any] | None,
        log_prob: NDArray[Any] | None,
    ) -> None: ...
    @property
    def n_weights(self) -> int: ...
    def weights(self) -> NDArray[Any]: ...
    def set_weights(self, weights: NDArray[Any]) -> None: ...

class ProgramF32(_Program): ...
class ProgramF64(_Program): ...
