"""The compiled core on CUDA devices (cuda/bindings), where it was built.

What it shares with `_cpu` is in `_core/core.pyi`. An array on the device is told as `_core.device.Device.told` does.
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
def driver_version() -> int: ...
def runtime_version() -> int: ...
def architectures() -> str: ...
def give_back(device: int) -> None: ...

coupling: core.Coupling[_Array]
coupling_backward: core.CouplingBackward[_Array]
vector_map: core.VectorMap[_Array]
vector_map_backward: core.VectorMapBackward[_Array]

HiddenOptions = core.HiddenOptions
MaskedOptions = core.MaskedOptions
Transform = core.Transform
MaskedTransform = core.MaskedTransform
NetworkStep = core.NetworkStep
PermutationStep = core.PermutationStep
RotationStep = core.RotationStep
StandardizeStep = core.StandardizeStep
SupportStep = core.SupportStep
MarginalStep = core.MarginalStep
DensityStep = core.DensityStep

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
