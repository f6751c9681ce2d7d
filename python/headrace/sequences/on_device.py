"""Flows of sequences on a CUDA device: their links, their program and their calls, on CuPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import array_errors as errors
from headrace._core import device as _device
from headrace._core.device import Device, Kernels, OnStream
from headrace.sequences.arrays import Covariates, Sequences
from headrace.sequences.links import LinkCall, LinkGradients
from headrace.sequences.program import SequenceProgram
from headrace.sequences.runs import context_of

if TYPE_CHECKING:
    from headrace._arrays.device_caller import DeviceCaller
    from headrace._flow.flow import Flow
    from headrace._flow.program.module import Block
    from headrace.sequences.links import Link
    from headrace.sequences.settings import CausalSettings

CuPyArray = Any
Pair = tuple[CuPyArray, CuPyArray]


class _LinkOnDevice:
    """What links that are computed by `_cuda` have in common: no state between calls, and no gradients."""

    has_network = False
    n_pairs = 0

    def __init__(self, device: Device, dtype: np.dtype[Any]) -> None:
        """Both are the program's."""
        self._device, self._dtype = device, dtype

    def round(self, parameters: CuPyArray, to: CuPyArray) -> None:
        """See `Link`: there is nothing to round."""
        raise NotImplementedError

    def state(self, rows: int) -> None:
        """See `Link`."""

    def vjp(self, *arguments: Any, **more: Any) -> LinkGradients:
        """See `Link`: `SequenceFlow` refuses gradients on a device before."""
        raise NotImplementedError

    def _in_order(self, given: CuPyArray) -> CuPyArray:
        return self._device.cupy.ascontiguousarray(given, self._dtype)


class CausalLinkOnDevice(_LinkOnDevice):
    """A causal convolution whose outputs are parameters of a map of each value."""

    def __init__(self, settings: CausalSettings, device: Device, dtype: np.dtype[Any]) -> None:
        """Waits for its sizes to be on the device.

        Raises:
            ValueError: an inner flow, or a map that has no kernel there.
        """
        super().__init__(device, dtype)
        if settings.inner is not None:
            raise ValueError(
                "inner: expected None for a flow of sequences on a device, where only maps of each value are computed, "
                f"got {settings.inner!r}; call .to('cpu')"
            )
        kind = _device.cuda().CausalTransformF32 if dtype == np.float32 else _device.cuda().CausalTransformF64
        options = settings.network_options() | settings.map_options()
        self._reads_data = settings.reads == "data"
        self._context, self._covariates = bool(settings.context), bool(settings.covariates)
        self.core = device.retried(lambda: kind(**options, reads_data=self._reads_data, device=device.index))

    def runs_at_once(self, inverse: bool) -> bool:
        """See `Link`."""
        return inverse == self._reads_data

    def run(self, call: LinkCall, state: None) -> Pair:
        """See `Link`."""
        cupy = self._device.cupy
        queued = OnStream(self._device, self.core, self._device.current_stream())
        given = call.given
        value, log_det = cupy.empty(given.shape, self._dtype), cupy.empty(given.shape[:2], self._dtype)
        context = self._in_order(call.context) if self._context else None
        covariates = self._in_order(call.covariates) if self._covariates else None
        verb = queued.parallel if self.runs_at_once(call.inverse) else queued.sequential
        verb(self._in_order(call.parameters), given, value, log_det, context=context, covariates=covariates)
        return value, log_det


class PredictionLinkOnDevice(_LinkOnDevice):
    """Residuals of x with a gain, and x from residuals; the device makes the filter of its parameters, too."""

    def __init__(self, features: int, order: int, device: Device, dtype: np.dtype[Any]) -> None:
        """See `PredictionLink`."""
        super().__init__(device, dtype)
        self._shape = features, order

    def runs_at_once(self, inverse: bool) -> bool:
        """See `Link`."""
        return inverse

    def run(self, call: LinkCall, state: None) -> Pair:
        """See `Link`."""
        cupy = self._device.cupy
        result, log_gain = cupy.empty(call.given.shape, self._dtype), cupy.empty(self._shape[:1], np.dtype(np.float64))
        theta = self._in_order(call.parameters).reshape(self._shape)
        kernels = Kernels(self._device, self._device.current_stream())
        kernels.predict(theta, self._in_order(call.given), result, log_gain, not call.inverse)
        log_det = cupy.zeros(call.given.shape[:2], self._dtype)
        log_det += (log_gain.sum() * (1.0 if call.inverse else -1.0)).astype(self._dtype)
        return result, log_det


class ProgramOnDevice(SequenceProgram):
    """A chain on a device, whose calls queue work on CuPy's current stream.

    The vector of parameters is never changed but replaced. Another stream than that of its writer waits for that, and
    the vector is kept until the work of such a stream is done, because CuPy uses memory again in the order of one.
    """

    def __init__(
        self,
        links: Sequence[Link],
        blocks: Sequence[Sequence[Block]],
        dtype: np.dtype[Any],
        device: Device,
        base: Flow,
        scale: tuple[NDArray[Any], NDArray[Any]] | None,
    ) -> None:
        """As on the CPU; `base` and the transforms of links are on the device."""
        super().__init__(links, blocks, dtype, base)
        _ = base._program  # compiled here, where a lack of memory is expected
        self.device, self._library = device, device.cupy
        if scale is not None:
            self.scale = device.cupy.asarray(scale[0]), device.cupy.asarray(scale[1])
        ones = np.zeros(self.n_weights, bool)
        start = 0
        for block in self._blocks:
            named = block.named(np.zeros(block.size, dtype))
            ones[start : start + block.size] = block.pack_named({k: np.ones_like(a) for k, a in named.items()}) != 0
            start += block.size
        self._is_weight = device.cupy.asarray(ones)
        self._take(np.zeros(self.n_weights, dtype))
        device.current_stream().synchronize()  # so that these are there on every stream

    def _take(self, values: NDArray[Any]) -> None:
        vector = self.device.cupy.asarray(values)
        self._current = vector, self.device.current_stream()

    # ---- parameters

    def vector_on(self, stream: Any) -> CuPyArray:
        """The current parameters, for calls on this stream."""
        vector, writer = self._current
        if writer.ptr != stream.ptr:
            self.device.order(writer, stream)
            self.device.keep(stream, [vector])
        return vector

    def weights(self) -> CuPyArray:
        """A copy on the device, on CuPy's current stream."""
        stream = self.device.current_stream()
        with self.device.on(stream):
            return self.vector_on(stream).copy()

    def host_weights(self) -> NDArray[Any]:
        """A copy on the host; waits for all changes that are queued."""
        vector, writer = self._current
        with self.device.on(writer):
            host: NDArray[Any] = vector.get()
            return host

    def set_host_weights(self, values: NDArray[Any]) -> None:
        """Copy in from the host; entries that are no weights are zero."""
        with self.device.on(self.device.current_stream()):
            self.device.retried(lambda: self._take(np.ascontiguousarray(values, self._dtype)))

    def queued_on(self, stream: Any) -> _Assigned:
        """Its weights, to be set by work on this stream."""
        return _Assigned(self, stream)

    def set_on(self, stream: Any, values: CuPyArray) -> None:
        """Replace the parameters by a copy of these, of which entries that are no weights become zero."""
        with self.device.on(stream):
            vector = np.where(self._is_weight, values, self._dtype.type(0))
            self._current = vector, stream


class _Assigned:
    """The setter of a program's weights."""

    def __init__(self, program: ProgramOnDevice, stream: Any) -> None:
        self._program, self._stream = program, stream

    def set_weights(self, values: CuPyArray) -> None:
        """See `ProgramOnDevice.set_on`."""
        self._program.set_on(self._stream, values)


class RunOnDevice:
    """One checked call on a device; see `Run`. Nothing in it waits."""

    def __init__(
        self,
        program: ProgramOnDevice,
        caller: DeviceCaller,
        batch: tuple[int, ...],
        context: CuPyArray | None,
        covariates: CuPyArray | None,
        vector: CuPyArray | None = None,
        given: CuPyArray | None = None,
    ) -> None:
        """`given` is (rows, steps, features), context (rows | 1, columns), covariates (rows | 1, frames, columns)."""
        self._program, self._caller, self._batch = program, caller, batch
        self._context, self._covariates, self._given, self._own = context, covariates, given, vector

    @classmethod
    def opened(
        cls,
        program: ProgramOnDevice,
        caller: DeviceCaller,
        flow: Any,
        name: str,
        value: Any,
        context: Any,
        covariates: Any,
        parameters: Any,
        lengths: Any,
    ) -> RunOnDevice:
        """The checked arguments of a call of a flow."""
        if isinstance(value, (list, tuple)) or lengths is not None:
            other = f"lengths: expected None for sequences on {flow.device}"
            what = other if lengths is not None else f"{name}: expected an array of sequences on {flow.device}, no list"
            raise ValueError(f"{what}; call once for those of each length, or .to('cpu') of the flow")
        given = Sequences(caller, name, value, flow.features)
        rows = context_of(caller, context, flow.context, given.batch)
        frames = frames_of(caller, covariates, flow, given.batch, given.steps)
        vector = None
        if parameters is not None:
            array = _arrays.shaped("parameters", parameters, (program.n_weights,), caller)
            vector = _arrays.ready(array, flow.dtype, caller)
        return cls(program, caller, given.batch, rows, frames, vector, given.array)

    def log_prob(self, part: None = None) -> CuPyArray:
        """Log densities of steps, (rows, steps)."""
        z, log_det = self._sides(True, self._given)
        return log_det + self._program.log_base(self._vector, z)

    def totals(self, scorer: Callable[[None], CuPyArray]) -> Any:
        """Sums over the steps of each sequence, in float64, for the caller."""
        with self._caller.queue():
            scores = scorer(None)
            result = self._caller.empty((len(scores),), scores.dtype)
            Kernels(self._program.device, self._caller.stream).sum_steps(scores, result)
        return self._shaped(result, self._batch)

    def steps(self, scorer: Callable[[None], CuPyArray]) -> Any:
        """Scores of each step, for the caller."""
        with self._caller.queue():
            scores = scorer(None)
            return self._copied(scores, (*self._batch, scores.shape[1]))

    def both(self, inverse: bool) -> tuple[Any, Any]:
        """The other side and its log-determinant, for the caller."""
        with self._caller.queue():
            value, log_det = self._sides(inverse, self._given)
            side = self._copied(value, (*self._batch, *value.shape[1:]))
        return side, self.totals(lambda _: log_det)

    def drawn(self, steps: int, key: int) -> Any:
        """Samples of this many steps, (rows, steps, features), for the caller."""
        (rows,) = self._batch
        with self._caller.queue():
            noise = self._program.noise(self._vector, key, range(rows), 0, steps)
            x, _ = self._sides(False, noise)
            return self._copied(x, x.shape)

    @property
    def _vector(self) -> CuPyArray:
        return self._program.vector_on(self._caller.stream) if self._own is None else self._own

    def _sides(self, inverse: bool, given: Any) -> Pair:
        return self._program.run(self._vector, inverse, given, self._context, self._covariates, None)

    def _copied(self, array: CuPyArray, shape: tuple[int, ...]) -> Any:
        """The same values in memory of the caller's framework."""
        result = self._caller.empty(shape, array.dtype)
        result[...] = array.reshape(shape)
        return self._caller.give(result)

    def _shaped(self, array: CuPyArray, shape: tuple[int, ...]) -> Any:
        if shape == array.shape:
            return self._caller.give(array)
        with self._caller.queue():
            return self._copied(array, shape)


def frames_of(caller: DeviceCaller, value: Any, flow: Any, batch: tuple[int, ...], steps: int) -> CuPyArray | None:
    """Covariates of a call, (rows, frames, columns) or (1, frames, columns) for all sequences, as many as it needs."""
    columns = flow.covariates
    if isinstance(value, (list, tuple)):
        raise errors.wrong_kind("covariates", f"an array on {flow.device}", "a list", "pad them to one length")
    array = Covariates.opened(caller, value, columns, batch)
    if array is None:
        return None
    with caller.queue():
        rows = int(np.prod(array.shape[:-2]))
        found = array.reshape(rows, *array.shape[-2:])
    Covariates.check_frames(found.shape[1], steps, flow.hop)
    return found
