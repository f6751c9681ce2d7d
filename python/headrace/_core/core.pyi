"""The common signatures of the compiled cores: `_cpu` takes NumPy arrays, `_cuda` arrays of a device.

``_A`` is the type of a module's arrays. A call of `_cuda` has one more keyword, `stream`, the address of a
cudaStream_t, 0 for the default one, and if no other argument determines it, `device`: ``where``, empty on the CPU.
Adam's `memory`, which is on the host, has no stream: the call waits.

Only type checkers read this file; at run time there is no module of this name.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_A = TypeVar("_A", contravariant=True)

class Coupling(Protocol[_A]):
    def __call__(
        self,
        map: str,
        scale: str,
        slope: float,
        bound: float,
        bins: int,
        inverse: bool,
        input: _A,
        params: _A,
        value: _A,
        log_det: _A,
        low: float | None = None,
        min_bin: float = 1e-3,
        **where: int,
    ) -> None: ...

class CouplingBackward(Protocol[_A]):
    def __call__(
        self,
        map: str,
        scale: str,
        slope: float,
        bound: float,
        bins: int,
        inverse: bool,
        input: _A,
        params: _A,
        grad_value: _A,
        grad_log_det: _A,
        grad_input: _A,
        grad_params: _A,
        low: float | None = None,
        min_bin: float = 1e-3,
        **where: int,
    ) -> None: ...

class VectorMap(Protocol[_A]):
    def __call__(
        self,
        map: str,
        variant: str,
        slope: float,
        inverse: bool,
        input: _A,
        params: _A,
        value: _A,
        log_det: _A,
        **where: int,
    ) -> None: ...

class VectorMapBackward(Protocol[_A]):
    def __call__(
        self,
        map: str,
        variant: str,
        slope: float,
        inverse: bool,
        input: _A,
        params: _A,
        grad_value: _A,
        grad_log_det: _A,
        grad_input: _A,
        grad_params: _A,
        **where: int,
    ) -> None: ...

class Program(Protocol[_A]):
    """Calls of a program. Every result is optional, except that of `log_prob`."""

    def log_prob(
        self, x: _A, out: _A, context: _A | None = None, parameters: _A | None = None, **where: int
    ) -> None: ...
    def sample(
        self,
        rows: int,
        seed: int,
        first_row: int | None = None,
        value: _A | None = None,
        log_prob: _A | None = None,
        context: _A | None = None,
        parameters: _A | None = None,
        **where: int,
    ) -> None: ...
    def from_noise(
        self,
        noise: _A,
        value: _A | None = None,
        log_prob: _A | None = None,
        context: _A | None = None,
        parameters: _A | None = None,
        **where: int,
    ) -> None: ...
    def transform(
        self,
        inverse: bool,
        input: _A,
        value: _A | None = None,
        log_det: _A | None = None,
        context: _A | None = None,
        parameters: _A | None = None,
        **where: int,
    ) -> None: ...
    def gradient(
        self,
        inverse: bool,
        of_log_prob: bool,
        input: _A,
        index: _A | None = None,
        context: _A | None = None,
        grad_value: _A | None = None,
        grad_row: _A | None = None,
        row_scale: float = 1.0,
        value: _A | None = None,
        log_det: _A | None = None,
        log_prob: _A | None = None,
        grad_input: _A | None = None,
        grad_context: _A | None = None,
        grad_weights: _A | None = None,
        parameters: _A | None = None,
        dropout: int | None = None,
        **where: int,
    ) -> None: ...
    @property
    def n_weights(self) -> int: ...

class Adam:
    def __init__(
        self,
        program: Any,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        clip: float,
        average: float,
    ) -> None: ...
    def memory(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any]]: ...
    def set_memory(
        self, mean: NDArray[Any], square: NDArray[Any], average: NDArray[Any] | None, clock: NDArray[Any]
    ) -> None: ...

class Points:
    def step(
        self,
        maps: NDArray[np.float64],
        log_scale: float,
        matrix: NDArray[np.float64],
        shift: NDArray[np.float64],
        next: NDArray[np.float64] | None,
        blocks: list[int],
        order: list[int],
        **where: int,
    ) -> NDArray[np.float64] | None: ...

class Ascent:
    def kink(
        self,
        matrix: NDArray[np.float64],
        blocks: list[int],
        order: list[int],
        rows: list[int],
        drawn: list[float],
        **where: int,
    ) -> None: ...
    def finish(self, **where: int) -> None: ...
    def kinks(self, **where: int) -> NDArray[np.float64]: ...
    def log_likelihoods(self, **where: int) -> NDArray[np.float64]: ...

class HiddenOptions:
    def __init__(self, activation: str, adds: int, context: str, context_activation: str, dropout: float) -> None: ...

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
        low: float | None = None,
        min_bin: float = 1e-3,
        activation: str = "",
        hidden: Sequence[HiddenOptions] = (),
        reads_data: bool = True,
        formula_to_data: bool = True,
        unbiased: Sequence[int] = (),
    ) -> None: ...

class Transform:
    """A map and the conditioner that computes its parameters."""

    def pack(self, tensors: Sequence[NDArray[Any]]) -> NDArray[Any]: ...
    def unpack(self, packed: NDArray[Any]) -> list[NDArray[Any]]: ...
    @property
    def tensors(self) -> list[tuple[str, list[int]]]: ...
    @property
    def n_weights(self) -> int: ...

class MaskedTransform(Transform):
    def __init__(self, options: MaskedOptions, levels: Sequence[int], degrees: Sequence[Sequence[int]]) -> None: ...
    @staticmethod
    def from_masks(options: MaskedOptions, masks: Sequence[NDArray[np.bool_]]) -> MaskedTransform: ...
    def masks(self) -> list[NDArray[np.bool_]]: ...
    @property
    def hidden(self) -> list[int]: ...

class Step:
    """One step of a program, made by keywords (cpp/bindings/structure.cpp, headrace._core.steps)."""

class MapInfo:
    """A map of the core; a limit of 0 means that the map has no such limit."""

    @property
    def name(self) -> str: ...
    @property
    def scale(self) -> str: ...
    @property
    def meaning(self) -> str: ...
    def parameters(self, bins: int) -> list[tuple[str, int, str]]: ...
    @property
    def max_bins(self) -> int: ...
    @property
    def least_slope(self) -> float: ...
    @property
    def least_bin(self) -> float: ...
