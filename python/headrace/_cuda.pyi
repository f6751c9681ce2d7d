"""The compiled core on CUDA devices (cuda/bindings), where it was built.

What it shares with `_cpu` is in `_core/core.pyi`. `_core.device.Device.as_argument` describes an array on the device.
Work is queued on the `stream` and not waited for, except where a result or an argument is an array of the host.
Functions of the module, and points, which are made of arrays, take the `device` of these before the stream; other
objects know it.

Memory that cannot be had is a MemoryError, any other error of CUDA a `CudaError`.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from headrace._core import core

_Array = tuple[int, tuple[int, ...], tuple[int, ...], str]  # address, shape, strides in bytes, name of the dtype

class CudaError(RuntimeError): ...

def device_count() -> int: ...
def reason() -> str: ...
def device_name(device: int) -> str: ...
def device_capability(device: int) -> str: ...
def device_reason(device: int) -> str: ...
def is_compiled_by_driver(device: int) -> bool: ...
def driver_version() -> int: ...
def runtime_version() -> int: ...
def architectures() -> str: ...
def give_back(device: int) -> None: ...
def predict(
    theta: _Array, given: _Array, result: _Array, log_gain: _Array, to_signal: bool, device: int, stream: int
) -> None: ...
def sum_steps(scores: _Array, totals: _Array, device: int, stream: int) -> None: ...

class _CausalTransform:
    def __init__(
        self,
        *,
        inputs: int,
        channels: int,
        skip: int,
        kernel: int,
        dilations: Sequence[int],
        outputs: int,
        context: int,
        covariates: int,
        hop: int,
        is_companded: bool,
        reads_data: bool,
        map: str,
        variant: str,
        slope: float,
        bins: int,
        bound: float,
        low: float | None,
        min_bin: float,
        has_level: bool,
        device: int,
    ) -> None: ...
    @property
    def n_weights(self) -> int: ...
    @property
    def device(self) -> int: ...
    def parallel(
        self,
        weights: _Array,
        given: _Array,
        value: _Array | None = None,
        log_det: _Array | None = None,
        raw: _Array | None = None,
        context: _Array | None = None,
        covariates: _Array | None = None,
        *,
        stream: int,
    ) -> None: ...
    def sequential(
        self,
        weights: _Array,
        given: _Array,
        value: _Array | None = None,
        log_det: _Array | None = None,
        raw: _Array | None = None,
        context: _Array | None = None,
        covariates: _Array | None = None,
        *,
        stream: int,
    ) -> None: ...

class CausalTransformF32(_CausalTransform): ...
class CausalTransformF64(_CausalTransform): ...

coupling: core.Coupling[_Array]
coupling_backward: core.CouplingBackward[_Array]
vector_map: core.VectorMap[_Array]
vector_map_backward: core.VectorMapBackward[_Array]

HiddenOptions = core.HiddenOptions
MaskedOptions = core.MaskedOptions
Transform = core.Transform
MaskedTransform = core.MaskedTransform

class _Program(core.Program[_Array]):
    def __init__(
        self,
        features: int,
        context: int,
        base: str,
        steps: Sequence[core.Step],
        base_steps: int,
        context_mean: Sequence[float],
        context_std: Sequence[float],
        matmul: str,
        device: int,
    ) -> None: ...
    @property
    def device(self) -> int: ...
    def weights(self, out: _Array, stream: int) -> None: ...
    def set_weights(self, weights: _Array, stream: int) -> None: ...
    def host_weights(self) -> NDArray[Any]: ...
    def set_host_weights(self, weights: NDArray[Any]) -> None: ...

class ProgramF32(_Program): ...
class ProgramF64(_Program): ...

class _Adam(core.Adam):
    def average(self, out: _Array, stream: int) -> None: ...
    def step(self, gradient: _Array, learning_rate: float, norm: _Array | None, stream: int) -> None: ...

class AdamF32(_Adam): ...
class AdamF64(_Adam): ...

class _Points(core.Points):
    def __init__(self, x: _Array, weights: _Array | None, device: int, stream: int) -> None: ...
    def values(self, out: _Array, stream: int) -> None: ...
    def squares(self, out: _Array, stream: int) -> None: ...
    def log_jacobian(self, out: _Array, stream: int) -> None: ...

class PointsF32(_Points): ...
class PointsF64(_Points): ...

class _Ascent(core.Ascent):
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

class AscentF32(_Ascent): ...
class AscentF64(_Ascent): ...
