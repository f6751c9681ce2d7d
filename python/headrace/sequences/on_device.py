"""Flows of sequences on a CUDA device: the links of a chain, its program and its calls, on CuPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._core import LEAST_ROWS
from headrace._core import device as _device
from headrace._core.device import Device, Kernels, OnStream
from headrace.sequences.program import MOST_SAMPLES, NOISE_STEPS, packed, size_of, slices

if TYPE_CHECKING:
    from headrace._arrays.device_caller import DeviceCaller
    from headrace._flow.flow import Flow
    from headrace._flow.program.module import Block
    from headrace._flow.transforms.transform import Transform
    from headrace.sequences.runs import Run
    from headrace.sequences.settings import CausalSettings

CuPyArray = Any
Pair = tuple[CuPyArray, CuPyArray]


class CausalLinkOnDevice:
    """A causal convolution, without an inner flow, as a link of a chain on a device."""

    def __init__(self, settings: CausalSettings, device: Device, dtype: np.dtype[Any]) -> None:
        """Copy the network's sizes to the device; raise ValueError for an inner flow or a map without a kernel."""
        self._device, self._dtype = device, dtype
        if settings.inner is not None:
            raise ValueError(f"inner: expected None for sequences on a device, got {settings.inner!r}; call .to('cpu')")
        kind = _device.cuda().CausalTransformF32 if dtype == np.float32 else _device.cuda().CausalTransformF64
        options = settings.network_options() | settings.map_options()
        self._reads_data = settings.reads == "data"
        self._columns = settings.context, settings.covariates
        self.core = device.retried(lambda: kind(**options, reads_data=self._reads_data, device=device.index))

    def run(self, parameters: CuPyArray, inverse: bool, steps: CuPyArray, *beside: CuPyArray | None) -> Pair:
        """The transformed steps (rows, steps, features), and their log-derivatives (rows, steps).

        `inverse`: whether to map data to latent. `beside`: context and covariates.
        """
        device, cupy = self._device, self._device.cupy
        queued = OnStream(device, self.core, device.current_stream())
        value, log_det = cupy.empty(steps.shape, self._dtype), cupy.empty(steps.shape[:2], self._dtype)
        beside = tuple(
            _in_order(rows, device, self._dtype) if columns else None
            for rows, columns in zip(beside, self._columns, strict=True)
        )
        verb = queued.parallel if inverse == self._reads_data else queued.sequential
        verb(_in_order(parameters, device, self._dtype), steps, value, log_det, context=beside[0], covariates=beside[1])
        return value, log_det


class PredictionLinkOnDevice:
    """A linear prediction as a link of a chain on a device: a filter from x to scaled residuals, and back."""

    def __init__(self, features: int, order: int, device: Device, dtype: np.dtype[Any]) -> None:
        """A link for `features` columns, each predicted from `order` earlier steps."""
        self._device, self._dtype, self._shape = device, dtype, (features, order)

    def run(self, parameters: CuPyArray, inverse: bool, given: CuPyArray, *beside: CuPyArray | None) -> Pair:
        """See `CausalLinkOnDevice.run`."""
        cupy = self._device.cupy
        result, log_gain = cupy.empty(given.shape, self._dtype), cupy.empty(self._shape[:1], np.dtype(np.float64))
        theta, steps = (_in_order(array, self._device, self._dtype) for array in (parameters, given))
        kernels = Kernels(self._device, self._device.current_stream())
        kernels.predict(theta.reshape(self._shape), steps, result, log_gain, not inverse)
        log_det = cupy.zeros(given.shape[:2], self._dtype)
        log_det += (log_gain.sum() * (1.0 if inverse else -1.0)).astype(self._dtype)
        return result, log_det


class StepLinkOnDevice:
    """A transform of rows as a link of a chain on a device, applied to each step separately."""

    def __init__(self, transform: Transform, device: Device, dtype: np.dtype[Any]) -> None:
        """A link of a transform without context; `run` takes the parameters."""
        if transform.dtype is None:
            transform = transform._on(device)
        else:
            transform = transform._remade(np.zeros(size_of(transform), dtype), dtype, device)
        transform._program_and_dtype(dtype)  # compiled now, so that no later call fails for lack of memory
        self._transform = transform

    def run(self, parameters: CuPyArray, inverse: bool, given: CuPyArray, *beside: CuPyArray | None) -> Pair:
        """See `CausalLinkOnDevice.run`."""
        verb = self._transform.inverse if inverse else self._transform.forward
        steps = given.reshape(-1, given.shape[2])
        value, log_det = verb(_at_least_a_tile(steps), parameters=parameters if len(parameters) else None)
        return value[: len(steps)].reshape(given.shape), log_det[: len(steps)].reshape(given.shape[:2])


def _in_order(array: CuPyArray, device: Device, dtype: np.dtype[Any]) -> CuPyArray:
    return device.cupy.ascontiguousarray(array, dtype)


def _at_least_a_tile(rows: CuPyArray) -> CuPyArray:
    """The rows, filled up to `LEAST_ROWS` with the first row, so that bits do not depend on the number of rows."""
    if not 0 < len(rows) < LEAST_ROWS:
        return rows
    tile = _arrays.library(rows).empty((LEAST_ROWS, rows.shape[1]), rows.dtype)
    tile[:] = rows[0]
    tile[: len(rows)] = rows
    return tile


LinkOnDevice = CausalLinkOnDevice | PredictionLinkOnDevice | StepLinkOnDevice


class ProgramOnDevice:
    """A chain on a device, whose calls queue work on CuPy's current stream.

    A change of parameters replaces the vector of parameters, and never writes to it. A CUDA stream that reads the
    vector waits for the stream that wrote it, and the vector is kept until the reading stream's work is done, because
    CuPy reuses memory in the order of one stream.
    """

    def __init__(
        self,
        links: Sequence[LinkOnDevice],
        blocks: Sequence[Sequence[Block]],
        dtype: np.dtype[Any],
        device: Device,
        base: Flow,
        scale: tuple[NDArray[Any], NDArray[Any]] | None,
    ) -> None:
        """The arguments are those of `SequenceProgram`, with `base` and `links` on the device."""
        self.device, self.features, self._links, self._base, self.dtype = device, base.features, links, base, dtype
        _ = base._program  # compiled now, so that no later call fails for lack of memory
        self._of_base, *self._own = slices(*(sum(block.size for block in part) for part in blocks))
        self.n_weights: int = self._own[-1].stop
        self._scale = None if scale is None else (device.cupy.asarray(scale[0]), device.cupy.asarray(scale[1]))
        ones = packed([block for of_link in blocks for block in of_link], np.ones(self.n_weights), dtype)
        self._is_weight = device.cupy.asarray(ones != 0)
        self._take(np.zeros(self.n_weights, dtype))
        device.current_stream().synchronize()  # every stream can read the copies from now on

    # ---- calls, which queue work without waiting for it

    def score(
        self,
        run: Run,
        inverse: bool,
        *,
        is_density: bool = True,
        values: Any = None,
        steps: Any = None,
        totals: Any = None,
    ) -> None:
        """See `SequenceProgram`."""
        value, scores = self.run(run.vector, inverse, run.given.array, *run.inputs())
        if is_density:
            scores = scores + self.log_base(run.vector, value)
        for to, result in ((values, value), (steps, scores)):
            if to is not None:
                to[...] = result.reshape(to.shape)
        if totals is not None:
            Kernels(self.device, self.device.current_stream()).sum_steps(scores, totals)

    def sums(self, rows: int) -> CuPyArray:
        """See `SequenceProgram`."""
        return self.device.retried(lambda: self.device.cupy.empty((rows,), self.dtype))

    def draw(self, run: Run, key: int, x: CuPyArray) -> None:
        """See `SequenceProgram`."""
        x[...] = self.run(run.vector, False, self.noise(run.vector, key, *x.shape[:2]), *run.inputs())[0]

    def standardised(self, context: CuPyArray | None) -> CuPyArray | None:
        """The context as networks read it: standardised if the program has a `scale`."""
        if context is None or self._scale is None:
            return context
        mean, std = self._scale
        return ((context.astype(np.float64) - mean) / std).astype(self.dtype)

    # ---- blocks of steps, (rows, steps, features)

    def run(
        self, vector: CuPyArray, inverse: bool, steps: CuPyArray, context: CuPyArray | None, frames: CuPyArray | None
    ) -> Pair:
        """A block of steps mapped through the chain, and the log-derivative of each step."""
        value, log_det = steps, self.device.cupy.zeros(steps.shape[:2], self.dtype)
        order = range(len(self._links))
        for i in reversed(order) if inverse else order:
            value, log_slope = self._links[i].run(vector[self._own[i]], inverse, value, context, frames)
            log_det += log_slope
        return value.astype(self.dtype, copy=False), log_det

    def log_base(self, vector: CuPyArray, z: CuPyArray) -> CuPyArray:
        """The log density of each latent step under the base, (rows, steps)."""
        steps = z.reshape(-1, z.shape[2])
        log_prob = self._base.log_prob(_at_least_a_tile(steps), parameters=self._base_parameters(vector))
        return log_prob[: len(steps)].reshape(z.shape[:2])

    def noise(self, vector: CuPyArray, seed: int, rows: int, steps: int) -> CuPyArray:
        """Latent steps drawn from the base with a seed, (rows, steps, features), independent of `rows` and `steps`."""
        blocks, features = -(-steps // NOISE_STEPS), self.features
        drawn = self.device.cupy.empty((rows, blocks * NOISE_STEPS, features), self.dtype)
        for block in range(blocks):
            first = block * MOST_SAMPLES * NOISE_STEPS
            latent = self._base.sample(
                rows * NOISE_STEPS, seed=seed, first_row=first, parameters=self._base_parameters(vector)
            )
            at = block * NOISE_STEPS
            drawn[:, at : at + NOISE_STEPS] = latent.reshape(rows, NOISE_STEPS, features)
        return drawn[:, :steps]

    def _base_parameters(self, vector: CuPyArray) -> CuPyArray | None:
        return vector[self._of_base] if self._of_base.stop else None

    # ---- parameters

    def _take(self, values: NDArray[Any]) -> None:
        vector = self.device.cupy.asarray(values)
        self._current = vector, self.device.current_stream()

    def read_by_calls(self, parameters: CuPyArray) -> CuPyArray:
        """The parameters in the form that calls read, which on a device is the vector itself."""
        return parameters

    def vector_of(self, caller: DeviceCaller) -> CuPyArray:
        """The current parameters, readable on the stream of the caller."""
        return self._vector_on(caller.stream)

    def _vector_on(self, stream: Any) -> CuPyArray:
        vector, writer = self._current
        if writer.ptr != stream.ptr:
            self.device.order(writer, stream)
            self.device.keep(stream, [vector])
        return vector

    def weights(self) -> CuPyArray:
        """A copy of the parameters on the device, on CuPy's current stream."""
        stream = self.device.current_stream()
        with self.device.on(stream):
            return self._vector_on(stream).copy()

    def host_weights(self) -> NDArray[Any]:
        """A copy of the parameters on the host, after waiting for all queued changes."""
        vector, writer = self._current
        with self.device.on(writer):
            return vector.get()

    def set_host_weights(self, values: NDArray[Any]) -> None:
        """Replace the parameters by a copy of a vector on the host."""
        with self.device.on(self.device.current_stream()):
            self.device.retried(lambda: self._take(np.ascontiguousarray(values, self.dtype)))

    def queued_on(self, stream: Any) -> SimpleNamespace:
        """An object whose method `set_weights` replaces the parameters, as work queued on `stream`."""
        return SimpleNamespace(set_weights=partial(self._set_on, stream))

    def _set_on(self, stream: Any, values: CuPyArray) -> None:
        """Replace the parameters by a copy of `values`, with zero for entries that are not weights."""
        with self.device.on(stream):
            vector = np.where(self._is_weight, values, self.dtype.type(0))
            self._current = vector, stream
