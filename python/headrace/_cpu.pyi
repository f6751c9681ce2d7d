"""The compiled core on the CPU (cpp/bindings)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def isa() -> str: ...
def isas() -> list[str]: ...
def num_threads() -> int: ...
def process_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def limit_thread(n: int) -> int: ...
def fma_peak(seconds: float) -> float: ...
def maps() -> list[tuple[str, str]]: ...
def map_traits() -> dict[str, tuple[int, float]]: ...
def vector_maps() -> list[tuple[str, str]]: ...
def activations() -> list[str]: ...
def coupling(
    map: str,
    scale: str,
    slope: float,
    bound: float,
    bins: int,
    inverse: bool,
    input: NDArray[Any],
    params: NDArray[Any],
    value: NDArray[Any],
    log_det: NDArray[Any],
) -> None: ...
def coupling_backward(
    map: str,
    scale: str,
    slope: float,
    bound: float,
    bins: int,
    inverse: bool,
    input: NDArray[Any],
    params: NDArray[Any],
    grad_value: NDArray[Any],
    grad_log_det: NDArray[Any],
    grad_input: NDArray[Any],
    grad_params: NDArray[Any],
) -> None: ...
def vector_map(
    map: str,
    variant: str,
    slope: float,
    inverse: bool,
    input: NDArray[Any],
    params: NDArray[Any],
    value: NDArray[Any],
    log_det: NDArray[Any],
) -> None: ...
def vector_map_backward(
    map: str,
    variant: str,
    slope: float,
    inverse: bool,
    input: NDArray[Any],
    params: NDArray[Any],
    grad_value: NDArray[Any],
    grad_log_det: NDArray[Any],
    grad_input: NDArray[Any],
    grad_params: NDArray[Any],
) -> None: ...

class HiddenOptions:
    def __init__(self, activation: str, adds: int, context: str, context_activation: str) -> None: ...

class MaskedOptions:
    def __init__(
        self,
        *,
        features: int = 0,
        context: int = 0,
        reads: Sequence[int] = (),
        active: Sequence[int] = (),
        map: str = "",
        variant: str = "",
        slope: float = 1e-3,
        bins: int = 8,
        bound: float = 5.0,
        activation: str = "",
        hidden: Sequence[HiddenOptions] = (),
        reads_data: bool = True,
        formula_to_data: bool = True,
        unbiased: Sequence[int] = (),
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
    @property
    def hidden(self) -> list[int]: ...

class _Program:
    def __init__(
        self,
        features: int,
        context: int,
        base: str,
        steps: Sequence[tuple[Any, ...]],
        base_steps: int,
        context_mean: Sequence[float],
        context_std: Sequence[float],
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
        parameters: NDArray[Any] | None,
    ) -> None: ...
    def run_gradient(
        self,
        inverse: bool,
        input: NDArray[Any],
        index: NDArray[np.int64] | None,
        context: NDArray[Any] | None,
        of_log_prob: bool,
        grad_value: NDArray[Any] | None,
        grad_row: NDArray[Any] | None,
        row_scale: float,
        log_prob: NDArray[Any] | None,
        grad_input: NDArray[Any] | None,
        grad_context: NDArray[Any] | None,
        grad_weights: NDArray[Any] | None,
        parameters: NDArray[Any] | None,
        value: NDArray[Any] | None = None,
        log_det: NDArray[Any] | None = None,
    ) -> None: ...
    @property
    def n_weights(self) -> int: ...
    def weights(self) -> NDArray[Any]: ...
    def set_weights(self, weights: NDArray[Any]) -> None: ...

class ProgramF32(_Program): ...
class ProgramF64(_Program): ...

class _Adam:
    def __init__(
        self,
        program: _Program,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        clip: float,
        average: float,
    ) -> None: ...
    def average(self) -> NDArray[Any]: ...
    def step(self, gradient: NDArray[Any], learning_rate: float) -> float: ...

class AdamF32(_Adam): ...
class AdamF64(_Adam): ...

class _Points:
    def __init__(self, x: NDArray[Any], weights: NDArray[Any] | None, keeps_log_jacobian: bool = True) -> None: ...
    def checked_rows(self) -> NDArray[np.int64]: ...
    def step(
        self,
        maps: NDArray[np.float64],
        log_scale: float,
        matrix: NDArray[np.float64],
        shift: NDArray[np.float64],
        next: NDArray[np.float64] | None,
        blocks: list[int],
        order: list[int],
    ) -> NDArray[np.float64] | None: ...
    def values(self) -> NDArray[Any]: ...
    def squares(self) -> NDArray[np.float64]: ...
    def log_jacobian(self) -> NDArray[np.float64]: ...

class PointsF32(_Points): ...
class PointsF64(_Points): ...

class _Ascent:
    def __init__(
        self,
        points: _Points,
        anchors: PointsF64,
        held_out: _Points | None,
        precision: float,
        neighbours: float,
        rule: str,
        most: int,
    ) -> None: ...
    def kink(
        self,
        matrix: NDArray[np.float64],
        blocks: list[int],
        order: list[int],
        rows: list[int],
        drawn: list[float],
    ) -> None: ...
    def finish(self) -> None: ...
    def kinks(self) -> NDArray[np.float64]: ...
    def log_likelihoods(self) -> NDArray[np.float64]: ...
    def terms(self) -> NDArray[np.float64]: ...

class AscentF32(_Ascent): ...
class AscentF64(_Ascent): ...

def choose_kinks(
    sums: NDArray[np.float64], next: NDArray[np.float64], precision: float, total: float, rule: str
) -> NDArray[np.float64]: ...
def kink_square(center: float, precision: float, neighbours: float) -> float: ...

# Only where it was built with the headers of jaxlib (cpp/bindings/xla.cpp).
xla_handlers: dict[str, Any]

def xla_open(program: ProgramF32 | ProgramF64) -> int: ...
def xla_close(is_double: bool, handle: int) -> bool: ...
def xla_count() -> int: ...
