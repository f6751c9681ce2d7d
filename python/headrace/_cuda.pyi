"""The compiled core on CUDA devices (cuda/bindings), where it was built.

Signatures are those of `_cpu` with each array on the device replaced by what `_device.told` says of it, and one
argument more: `stream`, the address of a cudaStream_t, 0 for the default one. Work is queued there and not waited for,
except where a result or an argument is an array of the host. Functions of the module, and points, which are made of
arrays, take the `device` of these before the stream; other objects know it.

Memory that cannot be had is a MemoryError, any other error of CUDA a `CudaError`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Alike in both modules, which have classes of their own (cpp/bindings/structure.cpp).
from headrace._cpu import MaskedOptions as MaskedOptions
from headrace._cpu import MaskedTransform as MaskedTransform

_Array = tuple[int, tuple[int, ...], tuple[int, ...], str]  # address, shape, strides in bytes, name of the dtype

class CudaError(RuntimeError): ...

def device_count() -> int: ...
def reason() -> str: ...
def device_name(device: int) -> str: ...
def driver_version() -> int: ...
def runtime_version() -> int: ...
def architectures() -> str: ...
def coupling(
    map: str,
    scale: str,
    slope: float,
    bound: float,
    bins: int,
    inverse: bool,
    input: _Array,
    params: _Array,
    value: _Array,
    log_det: _Array,
    device: int,
    stream: int,
) -> None: ...
def coupling_backward(
    map: str,
    scale: str,
    slope: float,
    bound: float,
    bins: int,
    inverse: bool,
    input: _Array,
    params: _Array,
    grad_value: _Array,
    grad_log_det: _Array,
    grad_input: _Array,
    grad_params: _Array,
    device: int,
    stream: int,
) -> None: ...
def vector_map(
    map: str,
    variant: str,
    slope: float,
    inverse: bool,
    input: _Array,
    params: _Array,
    value: _Array,
    log_det: _Array,
    device: int,
    stream: int,
) -> None: ...
def vector_map_backward(
    map: str,
    variant: str,
    slope: float,
    inverse: bool,
    input: _Array,
    params: _Array,
    grad_value: _Array,
    grad_log_det: _Array,
    grad_input: _Array,
    grad_params: _Array,
    device: int,
    stream: int,
) -> None: ...

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
        tf32: bool,
        device: int,
    ) -> None: ...
    def run(
        self,
        inverse: bool,
        input: _Array | None,
        rows: int,
        seed: int,
        context: _Array | None,
        value: _Array | None,
        log_det: _Array | None,
        log_prob: _Array | None,
        parameters: _Array | None,
        stream: int,
    ) -> None: ...
    def run_gradient(
        self,
        inverse: bool,
        input: _Array,
        index: _Array | None,
        context: _Array | None,
        of_log_prob: bool,
        grad_value: _Array | None,
        grad_row: _Array | None,
        row_scale: float,
        log_prob: _Array | None,
        grad_input: _Array | None,
        grad_context: _Array | None,
        grad_weights: _Array | None,
        parameters: _Array | None,
        value: _Array | None,
        log_det: _Array | None,
        stream: int,
    ) -> None: ...
    @property
    def n_weights(self) -> int: ...
    def weights(self, out: _Array, stream: int) -> None: ...
    def set_weights(self, weights: _Array, stream: int) -> None: ...
    def host_weights(self) -> NDArray[Any]: ...
    def set_host_weights(self, weights: NDArray[Any]) -> None: ...

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
    def average(self, out: _Array, stream: int) -> None: ...
    def step(self, gradient: _Array, learning_rate: float, norm: _Array | None, stream: int) -> None: ...

class AdamF32(_Adam): ...
class AdamF64(_Adam): ...

class _Points:
    def __init__(self, x: _Array, weights: _Array | None, device: int, stream: int) -> None: ...
    def step(
        self,
        maps: NDArray[np.float64],
        log_scale: float,
        matrix: NDArray[np.float64],
        shift: NDArray[np.float64],
        next: NDArray[np.float64] | None,
        blocks: list[int],
        order: list[int],
        stream: int,
    ) -> NDArray[np.float64] | None: ...
    def values(self, out: _Array, stream: int) -> None: ...
    def squares(self, out: _Array, stream: int) -> None: ...
    def log_jacobian(self, out: _Array, stream: int) -> None: ...

class PointsF32(_Points): ...
class PointsF64(_Points): ...

class _Ascent:
    def __init__(
        self,
        points: _Points,
        anchors: PointsF64,
        held_out: _Points | None,
        total: float,
        held_out_total: float,
        precision: float,
        neighbours: float,
        rule: str,
        most: int,
        stream: int,
    ) -> None: ...
    def kink(
        self,
        matrix: NDArray[np.float64],
        blocks: list[int],
        order: list[int],
        rows: list[int],
        drawn: list[float],
        stream: int,
    ) -> None: ...
    def finish(self, stream: int) -> None: ...
    def kinks(self, stream: int) -> NDArray[np.float64]: ...
    def log_likelihoods(self, stream: int) -> NDArray[np.float64]: ...

class AscentF32(_Ascent): ...
class AscentF64(_Ascent): ...
