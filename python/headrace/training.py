"""Training: the optimiser, and `Flow.fit` with held-out early stopping.

The defaults of `fit` come from a search over learning rates, batch sizes, epochs, schedules and weight decays on real
tables of 1000 to 1,000,000 rows; docs/training.md says on which, and what was found.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace import _arrays, _device
from headrace._arrays import Array, Caller
from headrace._core import cpu
from headrace.transforms import Standardize

if TYPE_CHECKING:
    from headrace.flow import Flow

__all__ = ["Adam", "History"]

SCHEDULES = ("cosine", "plateau", "constant")

_CHUNK = 1 << 16  # rows at a time where a pass over all would need a copy

# Defaults of a fit.
LEARNING_RATE, RATE_BY_UNITS = 5e-3, 1.28  # the latter over the units of the widest hidden layer, if that is less
DECAY_BY_ROWS, MOST_DECAY = 1e3, 1.0  # weight decay: the former over the rows
CLIP = 5.0
AVERAGE = 0.999
PATIENCE = 50
BATCHES, LEAST_BATCH, MOST_BATCH = 64, 32, 512  # so many batches an epoch, of so many rows
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 20_000, 10, 300


class Adam:
    """Adam (Kingma, Ba 2015) on the parameters of a flow, with the decoupled weight decay of AdamW.

    For those who write their own loop; `Flow.fit` uses it.

    Args:
        flow: Its parameters are updated in place.
        learning_rate: Can be set between steps.
        betas: Decay of the running means of the gradient and of its square.
        epsilon: Added to the root of the latter.
        weight_decay: The matrices of networks shrink by learning_rate · weight_decay in each step; biases and the
            base's parameters, which may have to be large, do not.
        clip: The largest norm of a gradient; longer ones are shortened to it. None: no limit.
        average: Decay of a running mean of the parameters, which `averaged` gives. At step t it is (1 + t) / (10 + t),
            if that is less, so that the mean soon forgets where it began. None: none is kept.

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
        """See the class."""
        if not hasattr(flow, "nll_and_grad"):
            raise TypeError(f"flow: expected a Flow, got {check.kind_of(flow)}")
        pair = tuple(betas) if np.iterable(betas) else ()
        if len(pair) != 2:
            raise TypeError(f"betas: expected two numbers, got {betas!r}")
        beta1, beta2 = (check.number(f"betas[{i}]", b, least=0.0, below=1.0) for i, b in enumerate(pair))
        self.learning_rate = check.number("learning_rate", learning_rate, above=0.0, below=math.inf)
        decay, limit, mean = regularisation(weight_decay, clip, average)
        epsilon = check.number("epsilon", epsilon, above=0.0, below=1.0)
        self._flow = flow
        self._program = flow._program
        kind: Any = cpu.AdamF32 if flow.dtype == np.float32 else cpu.AdamF64
        if flow._device is not None:
            kind = _device.Adam
        self._core = kind(self._program, beta1, beta2, epsilon, decay, limit, mean)

    def step(self, gradient: Array) -> float:
        """Take one step; returns the norm of the gradient before clipping.

        Where the norm is not finite, nothing changes. On a device the norm is a CuPy array of shape (), and nothing
        waits for it.

        Args:
            gradient: Shape (n,), as `Flow.nll_and_grad` gives it.
        """
        program = self._program
        if self._flow._program is not program:
            raise RuntimeError("flow: expected the one the optimiser was made for, but it was standardised since")
        caller = self._flow._caller()
        array = _arrays.shaped("gradient", gradient, (program.n_weights,), caller)
        rate = check.number("learning_rate", self.learning_rate, above=0.0, below=math.inf)
        ready = _arrays.ready(array, self._flow.dtype, caller)
        if self._flow._device is None:
            return self._core.step(ready, rate)  # type: ignore[no-any-return]
        norm = caller.scratch((1,), np.dtype(np.float64))
        caller.queued(self._core).step(ready, rate, norm)
        return norm[0]  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        """Refuse copies and pickles: moments belong to the parameters of one flow, and are kept where they are."""
        raise TypeError("Adam cannot be copied or pickled; make a new one for the copy of its flow")

    @property
    def averaged(self) -> Array:
        """The running mean of the parameters, shape (n,), a copy: often better on new data than the parameters."""
        return self._core.average()


def regularisation(weight_decay: Any, clip: Any, average: Any) -> tuple[float, float, float]:
    """Checked, and as the core takes them: 0 for none."""
    return (
        check.number("weight_decay", weight_decay, least=0.0, below=math.inf),
        0.0 if clip is None else check.number("clip", clip, above=0.0, below=math.inf),
        0.0 if average is None else check.number("average", average, above=0.0, below=1.0),
    )


def default_rate(flow: Flow) -> float:
    """The default learning rate, which depends on the widest hidden layer."""
    units = max((n for t in flow._chain for n in t._hidden()), default=1)
    return min(LEARNING_RATE, RATE_BY_UNITS / units)


def cosine(done: float) -> float:
    """The factor of the cosine schedule, from 1 to next to nothing, when this share is done."""
    return max(0.5 * (1.0 + math.cos(math.pi * done)), 1e-3)


@dataclass
class History:
    """What happened in a fit. Losses are mean negative log-likelihoods in nats, one an epoch, in the data's units."""

    train_loss: list[float] = field(default_factory=list)
    """While the epoch ran."""
    validation_loss: list[float] = field(default_factory=list)
    """After the epoch, on the rows held out; empty without any."""
    learning_rate: list[float] = field(default_factory=list)
    """At the end of the epoch."""
    seconds: list[float] = field(default_factory=list)
    """Since the fit began."""
    best_epoch: int = -1
    """Whose weights were kept, counted from 0; -1: none was better than the weights that the fit began with. One that
    was interrupted counts, though it is in no list."""
    best_loss: float = math.inf
    """The validation loss of these weights, or the epoch's training loss without validation."""
    stopped: str = "epochs"
    """Why it ended: "epochs" (all done), "patience", "interrupted" or "non-finite"."""

    def __repr__(self) -> str:
        """The outcome."""
        return (
            f"History(epochs={len(self.train_loss)}, best_epoch={self.best_epoch}, best_loss={self.best_loss:.4f}, "
            f"stopped={self.stopped!r}, seconds={self.seconds[-1] if self.seconds else 0.0:.2f})"
        )


@dataclass
class _Data:
    """Rows with their context and weights, all checked."""

    x: NDArray[Any]
    context: NDArray[Any] | None
    weights: NDArray[Any] | None

    def rows(self, index: NDArray[np.int64]) -> _Data:
        index = _arrays.library(self.x).asarray(index)
        context = self.context
        if context is not None and context.shape[0] == self.x.shape[0]:
            context = context[index]
        return _Data(self.x[index], context, None if self.weights is None else self.weights[index])


@dataclass(frozen=True)
class _Plan:
    """The arguments of a fit, checked, with defaults that depend on the rows and the flow."""

    epochs: int
    batches: int  # of an epoch
    learning_rate: float
    schedule: str
    weight_decay: float
    clip: float | None
    average: float | None
    patience: int

    @classmethod
    def of(
        cls,
        flow: Flow,
        rows: int,
        *,
        epochs: Any,
        batch_size: Any,
        learning_rate: Any,
        schedule: Any,
        weight_decay: Any,
        clip: Any,
        average: Any,
        patience: Any,
    ) -> _Plan:
        size = min(max(rows // BATCHES, LEAST_BATCH), MOST_BATCH)
        if batch_size is not None:
            size = check.integer("batch_size", batch_size, least=1)
        batches = -(-rows // min(size, rows))
        passes = min(max(-(-STEPS // batches), LEAST_EPOCHS), MOST_EPOCHS)
        if epochs is not None:
            passes = check.integer("epochs", epochs)
        rate = default_rate(flow) if learning_rate is None else learning_rate
        decay = min(MOST_DECAY, DECAY_BY_ROWS / rows) if weight_decay is None else weight_decay
        regularisation(decay, clip, average)
        return cls(
            passes,
            batches,
            check.number("learning_rate", rate, above=0.0, below=math.inf),
            check.choice("schedule", schedule, SCHEDULES),
            decay,
            clip,
            average,
            check.integer("patience", patience, least=1) if patience is not None else passes + 1,
        )


def fit(
    flow: Flow,
    x: Any,
    context: Any,
    *,
    weights: Any,
    validation: Any,
    seed: Any,
    progress: bool,
    **plan: Any,
) -> History:
    """See `Flow.fit`; nothing of the flow changes before all arguments are checked."""
    rng = np.random.default_rng(check.integer("seed", seed))
    caller = flow._caller()
    data = _open("", flow, caller, x, context, weights)
    with caller.queue():
        train, held_out = _split(flow, data, validation, rng, caller)
        checked = _Plan.of(flow, train.size, **plan)
        _standardize(flow, data, train)
        kind = _Run if flow._device is None else _DeviceRun
        run = kind(flow, data, train, held_out, checked, rng, caller)
        run.go(progress)
    return run.history


class _Run:
    """One fit while it runs."""

    def __init__(
        self,
        flow: Flow,
        data: _Data,
        train: NDArray[np.int64],
        held_out: _Data | None,
        plan: _Plan,
        rng: np.random.Generator,
        caller: Caller,
    ) -> None:
        self.flow, self.data, self.train, self.held_out = flow, data, train, held_out
        self.plan, self.rng, self.history, self.caller = plan, rng, History(), caller
        self.adam = Adam(flow, plan.learning_rate, weight_decay=plan.weight_decay, clip=plan.clip, average=plan.average)
        self.program = caller.queued(flow._program)
        self.best = flow.parameters
        self.lowest, self.lowest_epoch = math.inf, -1  # of the loss that the schedule goes by
        self.begin = time.perf_counter()
        self.step = 0
        self.rate_factor = 1.0  # of the plateau schedule
        self.bounds = [train.size * i // plan.batches for i in range(plan.batches + 1)]
        self.library = _arrays.library(data.x)
        self.mean_weight = 1.0
        if data.weights is not None:
            self.mean_weight = float(data.weights[self.library.asarray(train)].mean(dtype=np.float64))
        self.held_weight = 0.0
        if held_out is not None:
            weights = held_out.weights
            self.held_weight = float(len(held_out.x) if weights is None else weights.sum(dtype=np.float64))
        self.gradient = self.library.empty(flow._program.n_weights, flow.dtype)
        self.log_prob = self.library.empty(self._log_probs(), flow.dtype)

    def _log_probs(self) -> int:
        """How many log densities are kept at a time: those of a batch."""
        return -(-self.train.size // self.plan.batches)

    def go(self, progress: bool) -> None:
        """All epochs, then the best weights, whatever happens."""
        from tqdm import tqdm

        history, bar = self.history, tqdm(total=self.plan.epochs, desc="fit", unit="epoch", disable=not progress)
        message = ""
        try:
            self._keep_if_best(-1)
            for epoch in range(self.plan.epochs):
                loss = self._pass()
                if not math.isfinite(loss):
                    history.stopped = "non-finite"
                    message = f"the loss became {loss} in epoch {epoch} at learning rate {self.adam.learning_rate:.3g}"
                    break
                if not self._finish_epoch(epoch, loss):
                    break
                losses = {"train": f"{loss:.3f}"}
                if history.validation_loss:
                    losses["held out"] = f"{history.validation_loss[-1]:.3f}"
                bar.set_postfix(losses, refresh=False)
                bar.update()
            else:
                if history.validation_loss and not math.isfinite(history.best_loss):
                    message = "the held-out loss was never finite"
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            self._keep_if_best(len(history.train_loss))  # an epoch may be long
        finally:
            self.flow.parameters = self.best
            bar.close()
        if message:
            kept = f"those of epoch {history.best_epoch}" if history.best_epoch >= 0 else "those it began with"
            advice = "; try a smaller learning_rate" if history.stopped == "non-finite" else ""
            warnings.warn(f"fit: {message}; the weights are {kept}{advice}", RuntimeWarning, stacklevel=4)

    def _keep_if_best(self, epoch: int) -> float:
        """Try the current weights on held-out rows, and keep them if they are the best; without any, the last are."""
        first = epoch < 0
        weights = self.flow.parameters if self.plan.average is None or first else self.adam.averaged
        if self.held_out is None:
            self.best = weights
            self.history.best_epoch = epoch
            return math.nan
        loss = self._held_out_loss(weights)
        if loss < self.history.best_loss:
            self.best = weights
            self.history.best_loss, self.history.best_epoch = loss, epoch
        return loss

    def _finish_epoch(self, epoch: int, loss: float) -> bool:
        """Whether to go on."""
        history, patience = self.history, self.plan.patience
        judged = self._keep_if_best(epoch)
        if self.held_out is None:
            history.best_loss = judged = loss
        else:
            history.validation_loss.append(judged)
        history.train_loss.append(loss)
        history.learning_rate.append(self.adam.learning_rate)
        history.seconds.append(time.perf_counter() - self.begin)
        if judged < self.lowest:
            self.lowest, self.lowest_epoch = judged, epoch
        waited = epoch - self.lowest_epoch
        if self.plan.schedule == "plateau" and waited and waited % max(1, patience // 3) == 0:
            self.rate_factor /= 2
        if self.held_out is not None and epoch - history.best_epoch >= patience:
            history.stopped = "patience"
            return False
        return True

    def _pass(self) -> float:
        """One pass over the training rows in a new order; the mean loss, as the weights were at each batch."""
        weights = self.data.weights
        order = self.rng.permutation(self.train)
        total = 0.0
        for begin, end in pairwise(self.bounds):
            index, log_prob = order[begin:end], self.log_prob[: end - begin]
            self._find_gradient(index, log_prob)
            batch_loss = _arrays.weighted_sum(log_prob, None if weights is None else weights[index])
            self.adam.learning_rate = self._rate()
            if not math.isfinite(batch_loss) or not math.isfinite(self.adam.step(self.gradient)):
                return math.nan
            self.step += 1
            total -= batch_loss
        return total / (self.mean_weight * order.size)

    def _find_gradient(self, index: NDArray[np.int64], log_prob: NDArray[Any]) -> None:
        """That of the mean loss over a batch, beside the log densities of its rows."""
        data = self.data
        self.program.run_gradient(
            True,  # from data to latent
            data.x,
            index,
            data.context,
            True,  # of the log density
            None,
            data.weights,
            -1.0 / (self.mean_weight * index.size),
            log_prob,
            None,
            None,
            self.gradient,
            None,
        )

    def _rate(self) -> float:
        rate = self.plan.learning_rate * self.rate_factor
        if self.plan.schedule == "cosine":
            rate *= cosine(self.step / (self.plan.epochs * self.plan.batches))
        return rate

    def _held_out_loss(self, parameters: NDArray[Any]) -> float:
        assert self.held_out is not None
        log_prob = self.flow.log_prob(self.held_out.x, self.held_out.context, parameters=parameters)
        loss = -_arrays.weighted_sum(log_prob, self.held_out.weights) / self.held_weight
        return loss if math.isfinite(loss) else math.inf


class _DeviceRun(_Run):
    """The same on a CUDA device. Nothing waits inside of a pass: what happened in it is read at its end."""

    def _log_probs(self) -> int:
        """Those of all rows."""
        return self.train.size

    def _pass(self) -> float:
        weights, empty = self.data.weights, self.library.empty
        order = self.library.asarray(self.rng.permutation(self.train))
        norms, adam = empty(self.plan.batches, np.float64), self.caller.queued(self.adam._core)
        for i, (begin, end) in enumerate(pairwise(self.bounds)):
            self._find_gradient(order[begin:end], self.log_prob[begin:end])
            self.adam.learning_rate = self._rate()
            adam.step(self.gradient, self.adam.learning_rate, norms[i : i + 1])
            self.step += 1
        total = -_arrays.weighted_sum(self.log_prob, None if weights is None else weights[order])
        return total / (self.mean_weight * order.size) if bool(np.isfinite(norms).all()) else math.nan


# ---- before the first step ------------------------------------------------------------------------------------------


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, rows, _CHUNK))


def _open(prefix: str, flow: Flow, caller: Caller, x: Any, context: Any, weights: Any) -> _Data:
    """Check rows: shapes, and that all numbers are finite."""
    array = _arrays.matrix(f"{prefix}x", x, flow.features, caller)
    rows = array.shape[0]
    if rows == 0:
        raise ValueError(f"{prefix}x: expected at least one row, got shape {array.shape}")
    columns = _arrays.context_rows(context, rows, flow.context, f"{prefix}context", caller)
    with caller.queue():
        _finite(f"{prefix}x", array)
        if columns is not None:
            _finite(f"{prefix}context", columns)
    return _Data(array, columns, _arrays.row_weights(f"{prefix}weights", weights, rows, caller)[0])


def _finite(name: str, array: NDArray[Any]) -> None:
    bad = [part.start + np.flatnonzero(~np.isfinite(array[part]).all(axis=1)) for part in _chunks(array.shape[0])]
    rows = np.concatenate(bad)
    if rows.size:
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in {rows.size} of {array.shape[0]} rows, first in "
            f"row {rows[0]}"
        )


def _split(
    flow: Flow, data: _Data, validation: Any, rng: np.random.Generator, caller: Caller
) -> tuple[NDArray[np.int64], _Data | None]:
    """Rows to train on, in ascending order, and rows held out."""
    rows = np.arange(data.x.shape[0], dtype=np.int64)
    if data.weights is not None:
        rows = _arrays.on_host(np.flatnonzero(data.weights > 0)).astype(np.int64)
    if validation is None:
        return rows, None
    if isinstance(validation, (int, float, np.number)) and not isinstance(validation, bool):
        share = check.number("validation", validation, least=0.0, below=1.0)
        held = min(round(share * rows.size), rows.size - 1)
        if share > 0 and rows.size > 1:
            held = max(held, 1)
        if held <= 0:
            return rows, None
        order = rng.permutation(rows)
        return np.sort(order[held:]), data.rows(np.sort(order[:held]))
    parts = validation if isinstance(validation, tuple) else (validation,)
    if not 1 <= len(parts) <= 3 or not _arrays.is_array(parts[0]):
        kinds = ", ".join(check.kind_of(part) for part in parts)
        raise TypeError(f"validation: expected a share, x, or a tuple (x, context, weights), got {kinds}")
    return rows, _open("validation ", flow, caller, *parts, *(None,) * (3 - len(parts)))


def _standardize(flow: Flow, data: _Data, train: NDArray[np.int64]) -> None:
    """Set what a fit standardises, unless an earlier one has."""
    last = flow._chain[-1] if flow._chain else None
    standardize = None
    if isinstance(last, Standardize) and last.is_identity:
        standardize = Standardize(*_moments("x", data.x, data.weights, train))
    columns = None
    one_row = data.context is not None and data.context.shape[0] == 1 != data.x.shape[0]  # says nothing of a spread
    if data.context is not None and flow.standardize_context is None and not one_row:
        columns = _moments("context", data.context, data.weights, train)
    if standardize is not None or columns is not None:
        flow._rescale(standardize, columns)


def _moments(
    name: str, array: NDArray[Any], weights: NDArray[Any] | None, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation of each column in float64, in two passes; 1 for a constant column."""
    library = _arrays.library(array)

    def parts() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for part in _chunks(rows.size):
            chosen = library.asarray(rows[part])
            share = library.ones(chosen.size) if weights is None else weights[chosen].astype(np.float64)
            yield array[chosen].astype(np.float64), share[:, None]

    low = _arrays.on_host(np.stack([values.min(axis=0) for values, _ in parts()]).min(axis=0))
    high = _arrays.on_host(np.stack([values.max(axis=0) for values, _ in parts()]).max(axis=0))
    # In units, powers of two, in which squares neither under- nor overflow.
    unit = np.ldexp(1.0, np.frexp(np.maximum(np.abs(low), np.abs(high)))[1] - 1)
    units = library.asarray(unit)
    total = float(sum(share.sum() for _, share in parts()))
    # Not by matrix products, whose order of summation would depend on the threads of the BLAS.
    zero = library.zeros(array.shape[1])
    mean = sum(((values / units * share).sum(axis=0) for values, share in parts()), zero) / total
    square = sum(((np.square(values / units - mean) * share).sum(axis=0) for values, share in parts()), zero) / total
    mean, std = unit * _arrays.on_host(mean), unit * np.sqrt(_arrays.on_host(square))
    constant = np.flatnonzero((low == high) | ~(std > np.finfo(np.float64).tiny))
    if constant.size:
        warnings.warn(
            f"{name}: {constant.size} columns are constant in the training part ({_listing(constant)}); they are "
            "shifted, not scaled",
            RuntimeWarning,
            stacklevel=5,
        )
    std[constant] = 1.0
    return mean, std


def _listing(numbers: NDArray[Any]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
