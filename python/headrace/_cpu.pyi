"""The compiled core on the CPU (cpp/bindings)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._core import core

_Array = NDArray[Any]

__version__: str
commit: str

def isa() -> str: ...
def isa_of_tiles() -> str: ...
def isas() -> list[str]: ...
def isa_not_built() -> str: ...
def num_threads() -> int: ...
def process_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def borrow_team(run: int, size: int) -> None: ...
def limit_thread(n: int) -> int: ...
def fma_peak(seconds: float) -> float: ...
def maps() -> list[core.MapInfo]: ...
def vector_maps() -> list[tuple[str, str]]: ...
def activations() -> list[str]: ...

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
        bf16_kind: int = 0,
    ) -> None: ...
    def parts(self) -> list[tuple[int, int, bool]]: ...
    def weights(self) -> _Array: ...
    def set_weights(self, weights: _Array) -> None: ...

class ProgramF32(_Program): ...
class ProgramF64(_Program): ...

class _Adam(core.Adam):
    def average(self) -> _Array: ...
    def step(self, gradient: _Array, learning_rate: float) -> float: ...

class AdamF32(_Adam): ...
class AdamF64(_Adam): ...

class _Muon(_Adam):
    def __init__(
        self,
        program: Any,
        momentum: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        clip: float,
        average: float,
    ) -> None: ...

class MuonF32(_Muon): ...
class MuonF64(_Muon): ...

def muon_update(gradient: _Array, mean: _Array, momentum: float) -> tuple[_Array, _Array]: ...

class _Points(core.Points):
    def __init__(self, x: _Array, weights: _Array | None, keeps_log_jacobian: bool = True) -> None: ...
    def checked_rows(self) -> NDArray[np.int64]: ...
    def values(self) -> _Array: ...
    def squares(self) -> NDArray[np.float64]: ...
    def log_jacobian(self) -> NDArray[np.float64]: ...

class PointsF32(_Points): ...
class PointsF64(_Points): ...

class _Ascent(core.Ascent):
    def __init__(
        self,
        points: list[_Points],
        anchors: PointsF64,
        held_out: list[_Points],
        precision: float,
        neighbours: float,
        rule: str,
        most: int,
        checked: list[bool],
        held_out_checked: list[bool],
        sum: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> None: ...
    def terms(self) -> NDArray[np.float64]: ...

class AscentF32(_Ascent): ...
class AscentF64(_Ascent): ...

least_kink_width: float

def choose_kinks(
    sums: NDArray[np.float64], next: NDArray[np.float64], precision: float, total: float, rule: str
) -> NDArray[np.float64]: ...
def kink_square(center: float, precision: float, neighbours: float) -> float: ...

class CausalConvolution:
    def __init__(
        self,
        *,
        inputs: int,
        channels: int,
        skip: int,
        kernel: int,
        dilations: Sequence[int],
        outputs: int,
        context: int = 0,
        covariates: int = 0,
        hop: int = 1,
        is_companded: bool = False,
    ) -> None: ...
    @property
    def field(self) -> int: ...
    @property
    def n_pairs(self) -> int: ...
    def round(self, weights: _Array, to: _Array) -> None: ...
    def parts(self) -> list[tuple[int, int, bool]]: ...
    def pack(self, tensors: Sequence[_Array]) -> _Array: ...
    def unpack(self, packed: _Array) -> list[_Array]: ...
    @property
    def tensors(self) -> list[tuple[str, list[int]]]: ...
    @property
    def n_weights(self) -> int: ...

class _CausalStreams:
    @property
    def rows(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def numbers(self) -> int: ...
    def to_array(self) -> _Array: ...
    def set_array(self, numbers: _Array, position: int) -> None: ...

class CausalStreamsF32(_CausalStreams): ...
class CausalStreamsF64(_CausalStreams): ...

class _CausalTransform:
    def __init__(
        self,
        network: CausalConvolution,
        reads_data: bool,
        *,
        map: str = "",
        variant: str = "",
        slope: float = 1e-3,
        bins: int = 8,
        bound: float = 5.0,
        low: float | None = None,
        min_bin: float = 1e-3,
        formula_to_data: bool = True,
        inner: ProgramF32 | ProgramF64 | None = None,
        has_level: bool = False,
    ) -> None: ...
    def streams(self, rows: int) -> Any: ...
    def outputs(
        self,
        weights: _Array,
        given: _Array,
        raw: _Array,
        context: _Array | None = None,
        covariates: _Array | None = None,
        first_frame: int = 0,
        state: _CausalStreams | None = None,
    ) -> None: ...
    def parallel(
        self,
        weights: _Array,
        given: _Array,
        value: _Array | None = None,
        log_det: _Array | None = None,
        raw: _Array | None = None,
        context: _Array | None = None,
        covariates: _Array | None = None,
        first_frame: int = 0,
        state: _CausalStreams | None = None,
        inner_weights: _Array | None = None,
    ) -> None: ...
    sequential = parallel
    def vjp(
        self,
        weights: _Array,
        given: _Array,
        *,
        grad_value: _Array | None = None,
        grad_log_det: _Array | None = None,
        grad_raw: _Array | None = None,
        grad_log_prob: _Array | None = None,
        base: str = "",
        value: _Array | None = None,
        log_det: _Array | None = None,
        raw: _Array | None = None,
        grad_given: _Array | None = None,
        grad_weights: _Array | None = None,
        grad_context: _Array | None = None,
        grad_covariates: _Array | None = None,
        context: _Array | None = None,
        covariates: _Array | None = None,
        is_sequential: bool = False,
        slopes: _Array | None = None,
    ) -> None: ...

def predict_f32(
    coefficients: _Array, given: _Array, result: _Array, past: _Array | None = None, to_signal: bool = False
) -> None: ...

predict_f64 = predict_f32

class CausalTransformF32(_CausalTransform): ...
class CausalTransformF64(_CausalTransform): ...

class _ChainState:
    @property
    def rows(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def numbers(self) -> list[int]: ...
    def go_on(self, steps: int) -> None: ...
    def to_array(self, link: int) -> _Array: ...
    def set_array(self, link: int, numbers: _Array, position: int) -> None: ...

class ChainStateF32(_ChainState): ...
class ChainStateF64(_ChainState): ...
class ChainWeightsF32: ...
class ChainWeightsF64: ...

_Floats = NDArray[np.float64]
_Results = list[_Array] | _Array | None

def step_up(reflections: _Floats) -> _Floats: ...

class GivenSequences:
    def __init__(self, name: str, arrays: list[_Array] | _Array, columns: int, lengths: NDArray[np.intp]) -> None: ...
    def check(self, is_single: bool) -> None: ...

class _SequenceChain:
    def __init__(self, features: int, links: list[tuple[Any, ...]], base: ProgramF32 | ProgramF64 | None) -> None: ...
    def weights(self, parameters: _Array, filters: list[tuple[_Floats, _Floats, float]]) -> Any: ...
    def state(self, rows: int) -> Any: ...
    def run(
        self,
        weights: Any,
        inverse: bool,
        given: _Array,
        context: _Array | None,
        frames: _Array | None,
        state: _ChainState | None,
    ) -> tuple[_Array, _Array]: ...
    def run_link(
        self, weights: Any, link: int, inverse: bool, given: _Array, state: _ChainState | None
    ) -> tuple[_Array, _Array, _Array | None]: ...
    def outputs(
        self,
        weights: Any,
        given: _Array,
        context: _Array | None,
        frames: _Array | None,
        state: _ChainState | None,
        sizes: _Array | None,
    ) -> _Array: ...
    def log_base(self, weights: Any, z: _Array) -> _Array: ...
    def noise(self, weights: Any, seed: int, first: int, rows: int, begin: int, end: int) -> _Array: ...
    def scores(
        self,
        weights: Any,
        inverse: bool,
        given: GivenSequences,
        context: _Array | None,
        frames: list[_Array] | None,
        is_density: bool = True,
        scorer: Callable[..., _Array] | None = None,
        state: _ChainState | None = None,
        values: _Results = None,
        steps: _Results = None,
        totals: NDArray[np.float64] | None = None,
    ) -> None: ...
    def sample(
        self, weights: Any, seed: int, context: _Array | None, frames: list[_Array] | None, x: _Array
    ) -> None: ...
    def back(
        self,
        weights: Any,
        inverse: bool,
        given: GivenSequences,
        context: _Array | None,
        frames: list[_Array] | None,
        is_density: bool,
        by_rows: NDArray[np.float64] | None = None,
        by_steps: GivenSequences | None = None,
        by_values: GivenSequences | None = None,
        std: NDArray[np.float64] | None = None,
        inputs: _Results = None,
        parameters: NDArray[np.float64] | None = None,
        of_context: NDArray[np.float64] | None = None,
        of_frames: list[NDArray[np.float64]] | None = None,
        steps: _Results = None,
        totals: NDArray[np.float64] | None = None,
    ) -> float: ...

class SequenceChainF32(_SequenceChain): ...
class SequenceChainF64(_SequenceChain): ...

class _ChainStream:
    def __init__(self, chain: Any, weights: Any, state: Any, context: _Array | None) -> None: ...
    def set_frames(self, frames: _Array) -> None: ...
    def push(self, x: Any, latent: Any) -> Any: ...
    def pull(self, steps: Any, seed: Any, first: int) -> Any: ...
    def copies(self, n: int) -> Any: ...
    @property
    def state(self) -> _ChainState: ...

class ChainStreamF32(_ChainStream): ...
class ChainStreamF64(_ChainStream): ...

# The interface for compiled JAX code (cpp/bindings/xla.cpp).
xla_handlers: dict[str, Any]

def xla_open(program: ProgramF32 | ProgramF64) -> int: ...
def xla_close(is_double: bool, handle: int) -> bool: ...
def xla_count() -> int: ...

class ReadyCoupling:
    def __init__(self, *settings: Any, low: float, min_bin: float) -> None: ...
    def run(self, is_double: bool, rows: int, *addresses: int) -> None: ...
    def backward(self, is_double: bool, rows: int, *addresses: int) -> None: ...
