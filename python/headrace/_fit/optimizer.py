"""The optimisers Adam and Muon, with decoupled weight decay, clipped gradients and a running mean of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array, Caller
from headrace._base import arguments as check
from headrace._base.public import public
from headrace._core import cpu
from headrace._core import device as _device
from headrace._flow.fit_arguments import OPTIMIZER_NAMES, SCHEDULES
from headrace._flow.flow import Flow


class VectorAdam:
    """Adam in NumPy, for flows for which the core has no optimiser.

    Args:
        flow: The flow whose `parameters` each step replaces.
        decays: A mask of the parameters that weight decay shrinks, shape (n,).
        beta1, beta2, epsilon, weight_decay, clip, average: As in `Adam`, with 0 in place of None.
    """

    def __init__(
        self,
        flow: Any,
        decays: NDArray[np.bool_],
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
        clip: float,
        average: float,
    ) -> None:
        self._flow, self._decays = flow, decays
        self._beta1, self._beta2, self._clip = beta1, beta2, clip
        self._weight_decay, self._decay = weight_decay, average
        self._epsilon = max(epsilon, float(np.finfo(flow.dtype).tiny))  # 0 / 0 is NaN
        start = flow.parameters
        self._mean, self._square = np.zeros_like(start), np.zeros_like(start)
        self._average: Array | None = start.copy() if average else None
        self._steps = 0

    def memory(self) -> tuple[Array, Array, Array | None, Array]:
        """Copies of both moments and of the running mean of the parameters, and the clock, as in the core.

        The clock is an array: both betas to the power of the number of steps, and the number of steps.
        """
        clock = np.array([self._beta1**self._steps, self._beta2**self._steps, self._steps])
        average = None if self._average is None else self._average.copy()
        return self._mean.copy(), self._square.copy(), average, clock

    def set_memory(self, mean: Array, square: Array, average: Array | None, clock: Array) -> None:
        """Restore the state that `memory` returned."""
        self._mean, self._square, self._steps = mean.copy(), square.copy(), int(clock[2])
        self._average = None if average is None else average.copy()

    def step(self, gradient: Array, learning_rate: float) -> float:
        """Take one step, and return the norm of the gradient. If the norm is not finite, nothing changes."""
        norm = math.sqrt(float(np.square(gradient, dtype=np.float64).sum()))
        if not math.isfinite(norm):
            return norm
        self._steps += 1
        dtype, t = self._mean.dtype.type, self._steps
        moved = self._flow.parameters
        self._move(moved, gradient * dtype(self._clip / norm if 0.0 < self._clip < norm else 1.0), learning_rate)
        self._flow.parameters = moved
        if self._average is not None:
            gain = 1.0 - min(self._decay, (1.0 + t) / (10.0 + t))
            self._average += dtype(gain) * (self._flow.parameters - self._average)
        return norm

    def _move(self, parameters: Array, g: Array, learning_rate: float) -> None:
        """Change the parameters in place, from the clipped gradient `g`."""
        dtype, t = self._mean.dtype.type, self._steps
        self._mean += dtype(1.0 - self._beta1) * (g - self._mean)
        self._square += dtype(1.0 - self._beta2) * (g * g - self._square)
        rate = dtype(learning_rate / (1.0 - self._beta1**t))
        root = np.sqrt(self._square * dtype(1.0 / (1.0 - self._beta2**t))) + dtype(self._epsilon)
        if self._weight_decay:
            parameters[self._decays] *= dtype(1.0 - learning_rate * self._weight_decay)
        parameters -= self._mean * rate / root

    def average(self) -> Array:
        """A copy of the running mean of the parameters."""
        if self._average is None:
            raise ValueError("average: expected a decay when the optimiser was made, got None")
        return np.array(self._average)


class VectorMuon(VectorAdam):
    """Muon in NumPy, for flows for which the core has no optimiser.

    Args:
        flow: As in `VectorAdam`.
        matrices: For each matrix an array of its shape, with the indices of its entries in the parameters.
        momentum: The decay of the running mean of the matrices' gradient, as in `Muon`.
        decays, options: As in `VectorAdam`.
    """

    def __init__(
        self, flow: Any, matrices: list[NDArray[np.intp]], momentum: float, decays: NDArray[np.bool_], *options: float
    ) -> None:
        super().__init__(flow, decays, *options)
        self._matrices, self._momentum = matrices, momentum

    def _move(self, parameters: Array, g: Array, learning_rate: float) -> None:
        """See `VectorAdam`; mean squares of the gradients of matrices stay zero."""
        dtype = parameters.dtype.type
        shrink = dtype(1.0 - learning_rate * self._weight_decay)
        moved = []
        for matrix in self._matrices:
            update, mean = cpu.muon_update(g[matrix], self._mean[matrix], self._momentum)
            moved.append((matrix, parameters[matrix] * shrink - update * dtype(learning_rate), mean))
        super()._move(parameters, g, learning_rate)
        for matrix, values, mean in moved:
            parameters[matrix], self._mean[matrix], self._square[matrix] = values, mean, dtype(0.0)


LEARNING_RATE, RATE_BY_UNITS = 5e-3, 1.28  # the rate is at most RATE_BY_UNITS / units of the widest layer
MUON_RATE_OVER_TIME = 2e-2  # reasons: docs/notes/sequences.md


@public()
class Adam:
    """Adam (Kingma, Ba 2015) on the parameters of a flow, with the decoupled weight decay of AdamW.

    `Flow.fit` uses this optimiser; a caller's training loop can use it, too.

    Args:
        flow: The flow whose parameters are updated in place.
        learning_rate: The learning rate, an attribute that can change between steps.
        betas: Decays of the running means of the gradient and of its square.
        epsilon: Added to the root of the mean square of the gradient.
        weight_decay: The matrices of networks shrink by learning_rate · weight_decay in each step; biases and the
            base's parameters, which may have to be large, do not shrink.
        clip: The largest norm of a gradient; a gradient with a larger norm is scaled down. None: no limit.
        average: Decay of a running mean of the parameters, which `averaged` returns. The decay at step t is at most (1
            + t) / (10 + t), so that the mean soon forgets the initial parameters. None: no running mean.

    >>> import numpy as np, headrace as hr
    >>> flow, x = hr.MAF(2, transforms=2, hidden=(16,)), np.random.default_rng(0).normal(3.0, 1.0, (256, 2))
    >>> adam = hr.Adam(flow, learning_rate=1e-2)
    >>> before, _ = flow.nll_and_grad(x)
    >>> for _ in range(50):
    ...     loss, gradient = flow.nll_and_grad(x)
    ...     norm = adam.step(gradient)
    >>> loss < before
    True
    """

    def __init__(
        self,
        flow: Flow,
        learning_rate: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = None,
        average: float | None = None,
    ) -> None:
        if not hasattr(flow, "nll_and_grad"):
            raise TypeError(f"flow: expected a Flow or a SequenceFlow, got {check.kind_of(flow)}")
        pair = tuple(betas) if np.iterable(betas) else ()
        if len(pair) != 2:
            raise TypeError(f"betas: expected two numbers, got {betas!r}")
        beta1, beta2 = (check.number(f"betas[{i}]", b, least=0.0, below=1.0) for i, b in enumerate(pair))
        self.learning_rate = check.number("learning_rate", learning_rate, above=0.0, below=math.inf)
        decay, limit, mean = regularisation(weight_decay, clip, average)
        epsilon = check.number("epsilon", epsilon, above=0.0, below=1.0)
        self._flow = flow
        self._program: Any = None
        self._core: Any = self._opened(beta1, beta2, epsilon, decay, limit, mean)

    def _opened(self, *options: float) -> Any:
        """The optimiser of the core for a flow of rows, or the optimiser that a flow of sequences makes."""
        flow: Any = self._flow
        if is_sequential(flow):
            return flow._optimiser(*options)
        self._program = flow._interior.program
        kind: Any = cpu.AdamF32 if flow.dtype == np.float32 else cpu.AdamF64
        if flow._interior.on_device:
            kind = _device.Adam
        return kind(self._program, *options)

    def step(self, gradient: Array) -> float:
        """Take one step, and return the norm of the gradient before clipping.

        If the gradient's norm is not finite, nothing changes. On a device the norm is a CuPy array of shape (), and the
        call does not wait for the step.

        Args:
            gradient: The gradient of a loss, shape (n,), such as `Flow.nll_and_grad` returns.
        """
        rate = check.number("learning_rate", self.learning_rate, above=0.0, below=math.inf)
        if self._program is None:
            caller = Caller()
            array = _arrays.shaped("gradient", gradient, self._flow.parameters.shape, caller)
            return self._core.step(_arrays.ready(array, self._flow.dtype, caller), rate)
        program, now = self._program, self._flow._interior
        if now.program is not program:
            raise RuntimeError("flow: expected the one the optimiser was made for, but it was standardised since")
        caller = now.caller()
        array = _arrays.shaped("gradient", gradient, (program.n_weights,), caller)
        ready = _arrays.ready(array, self._flow.dtype, caller)
        if not now.on_device:
            return self._core.step(ready, rate)
        norm = caller.scratch((1,), np.dtype(np.float64))
        caller.queued(self._core).step(ready, rate, norm)
        return norm[0]

    def __reduce__(self) -> Any:
        """Raise TypeError for copies and pickles, because moments belong to the parameters of one flow."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled; make a new one for the copy of its flow")

    @property
    def averaged(self) -> Array:
        """A copy of the running mean of the parameters, (n,), which is often better on new data than the parameters."""
        return self._core.average()


@public()
class Muon(Adam):
    """Muon (Jordan 2024): orthogonal steps for the matrices of networks, steps of Adam for all other parameters.

    The step of a matrix is its Nesterov momentum with the singular values replaced by about 1, by five Newton-Schulz
    iterations. In a masked network, the units of each degree read the same inputs and have a separate orthogonal step,
    so that masks stay exact. In couplings, each layer has one matrix (docs/training.md).

    Args:
        flow: The flow, on the CPU, whose parameters are updated in place.
        learning_rate: The learning rate of all parameters, which can change between steps. The step of a matrix of any
            shape has singular values of about 1.2 times the rate.
        momentum: Decay of the running mean of the matrices' gradient.
        betas, epsilon: Settings for the parameters that are not in matrices, as in `Adam`.
        weight_decay: As in `Adam`. Only the product of decay and learning rate matters.
        clip, average: As in `Adam`.

    >>> import numpy as np, headrace as hr
    >>> flow, x = hr.MAF(2, transforms=2, hidden=(16,)), np.random.default_rng(0).normal(3.0, 1.0, (256, 2))
    >>> muon = hr.Muon(flow)
    >>> before, _ = flow.nll_and_grad(x)
    >>> for _ in range(50):
    ...     loss, gradient = flow.nll_and_grad(x)
    ...     norm = muon.step(gradient)
    >>> loss < before
    True
    """

    def __init__(
        self,
        flow: Flow,
        learning_rate: float = LEARNING_RATE,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = None,
        average: float | None = None,
    ) -> None:
        self._momentum = check.number("momentum", momentum, least=0.0, below=1.0)
        super().__init__(
            flow, learning_rate, betas=betas, epsilon=epsilon, weight_decay=weight_decay, clip=clip, average=average
        )

    def _opened(self, *options: float) -> Any:
        refuse_muon("flow", self._flow)
        flow: Any = self._flow
        if is_sequential(flow):
            return flow._optimiser(*options, momentum=self._momentum)
        self._program = flow._interior.program
        kind: Any = cpu.MuonF32 if flow.dtype == np.float32 else cpu.MuonF64
        return kind(self._program, self._momentum, *options)


OPTIMIZERS: dict[str, type[Adam]] = dict(zip(OPTIMIZER_NAMES, (Adam, Muon), strict=True))
"""The optimisers of `Flow.fit`."""


def is_sequential(flow: Any) -> bool:
    """Whether a flow is a flow of sequences, which has optimisers of its own."""
    return hasattr(flow, "_optimiser")


def takes_muon(flow: Flow) -> bool:
    """Whether short fits by Muon may choose the settings of a fit: true for flows of rows on the CPU."""
    return not is_sequential(flow) and not flow._interior.on_device


def refuse_muon(name: str, flow: Flow) -> None:
    """Raise ValueError for a flow on a device, which has no Muon; `name`: the argument to name in the message."""
    if flow._interior.on_device:
        raise ValueError(f"{name}: expected a flow on the CPU for Muon, got one on a CUDA device; call flow.to('cpu')")


def regularisation(weight_decay: Any, clip: Any, average: Any) -> tuple[float, float, float]:
    """Check the settings, and return them in the form for the core, with 0 in place of None."""
    return (
        check.number("weight_decay", weight_decay, least=0.0, below=math.inf),
        0.0 if clip is None else check.number("clip", clip, above=0.0, below=math.inf),
        0.0 if average is None else check.number("average", average, above=0.0, below=1.0),
    )


def default_rate(flow: Flow, optimizer: str = "adam") -> float:
    """The default learning rate, by the widest hidden layer; constant for flows of sequences with Muon."""
    if optimizer == "muon" and is_sequential(flow):
        return MUON_RATE_OVER_TIME
    return min(LEARNING_RATE, RATE_BY_UNITS / max(flow._interior.widest, 1))


def scheduled(schedule: str, done: Callable[[], float]) -> float:
    """The factor of the learning rate by a schedule; `done` returns the finished share of all steps."""
    curve = SCHEDULES[schedule]
    return 1.0 if curve is None else curve(done())
