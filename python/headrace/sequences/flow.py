"""A flow of sequences: a base density of independent steps, and a chain of transforms over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._base import arguments as check
from headrace._base.keywords import takes
from headrace._base.rng import Rng, takes_rng
from headrace._base.stored import Stored, header_of, header_of_scale, storable
from headrace._base.types import Self, Unpack
from headrace._fit.fit import finished
from headrace._fit.history import History
from headrace._flow.bases import Base, StandardNormal
from headrace._flow.chain import Chained, check_base
from headrace._flow.fit_arguments import Arguments, FitKeywords
from headrace._flow.flow import Flow
from headrace._flow.program.module import Program
from headrace._flow.transforms.transform import Transform
from headrace.sequences.arrays import Covariates
from headrace.sequences.continuation import Continuation, quantiles_of_base
from headrace.sequences.fit import SequenceFit
from headrace.sequences.gradients import SequenceDerivatives
from headrace.sequences.internals import SequenceInterior
from headrace.sequences.on_device import ProgramOnDevice, StepLinkOnDevice
from headrace.sequences.prediction import AdaptivePrediction
from headrace.sequences.program import MOST_DRAWN_STEPS, MOST_SAMPLES, Link, SequenceProgram, size_of
from headrace.sequences.quantised import Cells
from headrace.sequences.runs import Run
from headrace.sequences.sequential import OverTime
from headrace.sequences.stream import Stream


@storable
class SequenceFlow(Chained, SequenceDerivatives):
    """A density of sequences: log p(x) = Σ_t log p(x_t | x_<t), a sum over steps.

    A step has one or more values. Transforms are `CausalConvolution`, `LinearPrediction` and `AdaptivePrediction`,
    which read the past, and any transform of rows without context, such as `Standardize` and `Linear`, which is applied
    to each step.

    Sequences are an array (rows, steps, features), or (steps, features) for one; sequences of different lengths are a
    list of arrays. A context is one row for a whole sequence, shape (rows, context), or (context,) for all sequences.
    Covariates are known over time, also in advance: shape (rows, frames, covariates), or (frames, covariates) for all
    sequences, with a frame for each `hop` steps and as many frames as the steps need.

    Args:
        transforms: The transforms in latent → data order, with at least one `CausalConvolution`.
        base: The base density of one step; by default `StandardNormal`.
        dtype: "float32" or "float64"; by default that of the transforms.
        matmul: "exact", or for float32 "bf16", which rounds the weights of causal networks (docs/sequences.md); by
            default that of the convolutions.
        standardize_context: ``(mean, std)``, shape (context,) each: the networks read (context - mean) / std.

    >>> import numpy as np, headrace as hr
    >>> network, scale = hr.CausalConvolution(dilations=[1, 2], channels=8), hr.transforms.Standardize([5.0], [2.0])
    >>> flow = hr.SequenceFlow([network, scale])
    >>> x = flow.sample(3, steps=100, seed=0)
    >>> x.shape, flow.log_prob(x).shape, flow.log_prob_steps(x).shape
    ((3, 100, 1), (3,), (3, 100))
    """

    _moves = True
    _chooses_prediction = False  # whether a fit may replace the flow's linear prediction

    def __init__(
        self,
        transforms: Sequence[Any],
        base: Base | None = None,
        *,
        dtype: DTypeLike | None = None,
        matmul: str | None = None,
        standardize_context: tuple[Any, Any] | None = None,
    ) -> None:
        chain = _checked(transforms)
        base = StandardNormal(chain[0].features) if base is None else base
        check_base(base, chain)
        networks = [t for t in chain if _is_network(t)]
        context = _one("number of context columns", (t.context for t in networks), 0)
        covariates = _one("number of covariates", (t.covariates for t in networks), 0)
        hop = _one("hop", (t.hop for t in networks if t.covariates), 1)
        common = _one("dtype", (t.dtype.name for t in chain if t.dtype is not None), "", "; use .astype")
        products = _one("matmul", (t.matmul for t in networks), "", "; use .to")
        kind = check.float_dtype("dtype", common if dtype is None else dtype)
        super().__init__(base.features, context, covariates, hop, kind)
        self._place(None, products if matmul is None else matmul)
        self._join(chain, base, standardize_context)

    def _compile(self, dtype: np.dtype[Any]) -> Program:
        device, chain = self._device, self._chain
        blocks = [[block for _, block in part._blocks()] for part in (self._base, *chain)]
        base, scale = Flow([], self._base, dtype=dtype)._on(device), self._standardize_context
        if device is None:
            links = [t._link(dtype, self._products) if isinstance(t, OverTime) else _link_of(t, dtype) for t in chain]
            return SequenceProgram(links, blocks, self._features, dtype, base, scale)
        there = [
            t._link_on(device, dtype) if isinstance(t, OverTime) else StepLinkOnDevice(t, device, dtype) for t in chain
        ]
        return ProgramOnDevice(there, blocks, dtype, device, base, scale)

    def _header(self) -> dict[str, Any]:
        """See `headrace._base.stored`."""
        header = {
            "features": self._features,
            "base": header_of(self._base),
            "transforms": [header_of(t) for t in self._chain],
        }
        if self._standardize_context is not None:
            header["standardize_context"] = header_of_scale(self._standardize_context)
        return header

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        """See `headrace._base.stored`."""
        features = stored.size("features", least=1)
        self = cls.__new__(cls)  # a file has the chain itself, and not the arguments of a ready-made flow
        chain = stored.children("transforms", (OverTime, Transform))
        base = stored.child("base", Base, "base.")
        scale = stored.scale("standardize_context") if stored.has("standardize_context") else None
        SequenceFlow.__init__(self, chain, base, dtype=stored.dtype, standardize_context=scale)
        if self._features != features:
            raise ValueError(f"features: expected {self._features}, as base and transforms have, got {features}")
        return self

    # ---- structure ---------------------------------------------------------------------------------------------------

    @property
    def transforms(self) -> tuple[Any, ...]:
        """The transforms in latent → data order, with copies of the current parameters, on the CPU.

        With `standardize_context`, each transform expects a standardised context.
        """
        vector, parts = self._vector(), self._interior.parts
        return tuple(
            t._remade(vector[part], self._dtype, None, self._products if _is_network(t) else "exact")
            if size_of(t)
            else t
            for t, part in zip(self._chain, parts, strict=True)
        )

    @property
    def field(self) -> int:
        """The largest number of earlier steps on which a step's density depends: the receptive field."""
        return sum(t.field for t in self._chain if isinstance(t, OverTime))

    def __repr__(self) -> str:
        """The flow's sizes, base and transforms."""
        inner = "".join(f"\n  {t!r}," for t in self._chain)
        products = f", matmul={self._products!r}" if self._products != "exact" else ""
        head = f"{type(self).__name__}(features={self._features}, base={self._base!r}{products}"
        return f"{head}, transforms=[{inner}\n])"

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def log_prob(
        self,
        x: Array | Sequence[Array],
        context: Array | None = None,
        covariates: Array | Sequence[Array] | None = None,
        *,
        lengths: Sequence[int] | None = None,
        quantised: float | None = None,
        parameters: Array | None = None,
    ) -> Array:
        """Log density of each sequence, in nats: the sum of `log_prob_steps`.

        A long sequence is processed in parts, so that memory does not grow with its length.

        Args:
            x: Sequences, shape (rows, steps, features) or (steps, features), or a list of the latter of different
                lengths; float32 or float64, with `quantised` also integers.
            context: The context of each sequence, shape (rows, context), or (context,) for all sequences.
            covariates: Covariates, shape (rows, frames, covariates), or (frames, covariates) for all, or a list.
            lengths: The number of steps that count in each sequence of an array, shape (rows,); later steps have no
                effect.
            quantised: The step of a grid that x lies on, 1 for integers: the result is then the exact log
                **probability** of the cells from x - step/2 to x + step/2. Only flows of one `CausalConvolution` that
                reads data, on the base `Logistic`, such as a default `WaveNet`, take `quantised`.
            parameters: A vector, shape (n,), that replaces the flow's `parameters` for this call alone.

        Returns:
            The log densities, shape (rows,), or () for one sequence, in the framework of the given arrays.

        Raises:
            TypeError: arrays are of several frameworks, on another device, or of a dtype other than float32, float64
                and, with `quantised`, integers.
            ValueError: a wrong shape, a sequence without steps, values that are not finite, too few frames.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> flow.log_prob([np.zeros((100, 1)), np.zeros((30, 1))]).shape
        (2,)
        >>> pcm = np.zeros((100, 1), "int16")
        >>> bool(flow.log_prob(pcm, quantised=1) < 0)  # a log probability
        True
        """
        return self._scored(quantised, x, context, covariates, parameters, lengths).totals()

    def log_prob_steps(
        self,
        x: Array | Sequence[Array],
        context: Array | None = None,
        covariates: Array | Sequence[Array] | None = None,
        *,
        lengths: Sequence[int] | None = None,
        quantised: float | None = None,
        parameters: Array | None = None,
    ) -> Any:
        """Log density of each step given earlier steps, log p(x_t | x_<t); see `log_prob`.

        The negative log density of a step is a score of how unusual it is.

        Returns:
            The log densities, shape (rows, steps) or (steps,), or a list of arrays (steps,) for a list. Steps beyond
            `lengths` are 0.
        """
        return self._scored(quantised, x, context, covariates, parameters, lengths).steps()

    def to_latent(
        self,
        x: Array | Sequence[Array],
        context: Array | None = None,
        covariates: Array | Sequence[Array] | None = None,
        *,
        parameters: Array | None = None,
    ) -> tuple[Any, Array]:
        """The map from data to latent: ``(z, log_det)``, z shaped like x and log_det = log \\|det dz/dx\\|, (rows,).

        If a flow fits its data, the values of z are independent draws of the base: autocorrelations of z show where the
        flow does not fit.
        """
        return Run.opened(self, "x", x, context, covariates, parameters).both(True)

    def to_data(
        self,
        z: Array | Sequence[Array],
        context: Array | None = None,
        covariates: Array | Sequence[Array] | None = None,
        *,
        parameters: Array | None = None,
    ) -> tuple[Any, Array]:
        """The map from latent to data: ``(x, log_det)``, x shaped like z and log_det = log \\|det dx/dz\\|, (rows,)."""
        return Run.opened(self, "z", z, context, covariates, parameters).both(False)

    @takes_rng
    def sample(
        self,
        n: int,
        steps: int,
        context: Array | None = None,
        covariates: Array | None = None,
        seed: int | np.random.Generator | None = None,
        *,
        rng: Rng = None,
    ) -> Array:
        """Draw n sequences of `steps` steps, shape (n, steps, features).

        Args:
            n: The number of sequences.
            steps: The number of steps of each sequence.
            context, covariates: As in `log_prob`, for n sequences.
            seed: As in `Flow.sample`. Values do not depend on `n` and `steps`: ``sample(n, steps=t, seed=s)[:k, :m]``
                equals ``sample(k, steps=m, seed=s)``, bit for bit, and `Stream.pull` draws the same values.

        Returns:
            The sequences, in the framework of the context or the covariates; without these, in NumPy.

        >>> import headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> long, short = flow.sample(3, steps=50, seed=1), flow.sample(2, steps=20, seed=1)
        >>> bool((long[:2, :20] == short).all())
        True
        """
        count = check.integer("n", n, most=MOST_SAMPLES - 1)
        total = check.integer("steps", steps, least=1, most=MOST_DRAWN_STEPS)
        caller, key = self._caller(), check.seed(seed)
        rows = _arrays.context_rows(context, count, self._context, caller=caller)
        run = Run(self._program, caller, (count,), rows, Covariates(self, caller, covariates, (count,)))
        return run.drawn(total, key)

    # ---- continuations -----------------------------------------------------------------------------------------------

    def given(self, prefix: Array, context: Array | None = None, covariates: Array | None = None) -> Continuation:
        """The exact density of the steps after a prefix, as a `Continuation` that evaluates and draws them.

        Args:
            prefix: The earlier steps, shape (rows, steps, features) or (steps, features).
            context, covariates: As in `log_prob`; covariates have the frames of the prefix **and of the steps after
                it**.

        Returns:
            A `Continuation`. Later changes of the flow do not affect the `Continuation`.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> rest = flow.given(np.zeros((5, 200, 1)))
        >>> rest.sample(10, steps=30, seed=0).shape, rest.log_prob(np.zeros((5, 30, 1))).shape
        ((10, 5, 30, 1), (5,))
        >>> rest.forecast(30).interval(0.9)[0].shape
        (5, 30, 1)
        """
        if isinstance(prefix, (list, tuple)):
            raise TypeError(f"prefix: expected an array of sequences of one length, got {check.kind_of(prefix)}")
        return Continuation(self._run_of("prefix", prefix, context, covariates), quantiles_of_base(self))

    def stream(
        self,
        rows: int = 1,
        *,
        context: Array | None = None,
        covariates: Array | None = None,
        state: dict[str, NDArray[Any]] | None = None,
    ) -> Stream:
        """Sequences that proceed step by step: a `Stream` takes new steps by `push`, and draws steps by `pull`.

        Args:
            rows: The number of sequences that proceed together, step by step.
            context: As in `log_prob`.
            covariates: Frames from the first step on, as many as are known; `Stream.extend` adds further frames.
            state: A result of `Stream.state` to continue from; no other argument may be given with a state.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> x, stream = flow.sample(1, steps=100, seed=0), flow.stream()
        >>> parts = [stream.push(x[:, :70]), stream.push(x[:, 70:])]
        >>> bool((np.concatenate(parts, axis=1) == flow.log_prob_steps(x)).all())
        True
        """
        self._refuse_device("stream")
        program = self._program
        if state is not None:
            if rows != 1 or context is not None or covariates is not None:
                raise ValueError("state: expected None beside rows, context and covariates, which it has, got a state")
            return Stream.resumed(self, program, state)
        count = check.integer("rows", rows, least=1, most=2**31 - 1)
        caller = self._caller()
        frames = Covariates(self, caller, covariates, (count,))
        own_context = _arrays.context_rows(context, count, self._context, caller=caller)
        return Stream(self, Run(program, caller, (count,), own_context, frames))

    # ---- training ----------------------------------------------------------------------------------------------------

    @takes(FitKeywords, Arguments)
    def fit(
        self,
        x: Array | Sequence[Array],
        context: Array | None = None,
        covariates: Array | Sequence[Array] | None = None,
        *,
        crop: int | None = None,
        quantised: float | None = None,
        rng: Rng = None,
        **arguments: Unpack[FitKeywords],
    ) -> History:
        """Maximise the likelihood of sequences, and keep the weights that are best on sequences held out.

        The optimiser takes steps on crops: an epoch uses each step of the sequences once, in crops in a new order. Each
        crop is preceded by `field` further steps of weight zero, so that gradients are those of the crop's steps in the
        whole sequence. Losses are in nats per step.

        A `Standardize` at the flow's data end that is still the identity is set from the training steps, and context
        columns are standardised. In the first fit of a flow with an inner flow, a base `StandardNormal` is replaced by
        `StudentT` unless a short trial shows a loss on held-out steps or `gaussianize` is False. The first fit also
        replaces the linear prediction of a `WaveNet` of one feature by an `AdaptivePrediction`, with another network
        and thus other parameters, if there are 50,000 training steps and a short trial gains on held-out steps
        (`History.adaptive`). A few values that lie far from all others, such as clicks, are replaced by the outermost
        other values, with a warning.

        As in `Flow.fit`, a seed gives the same bits for any number of threads, a later fit never ends with a worse loss
        on held-out steps than it began with, and Ctrl-C keeps the best weights so far.

        Args:
            x: Sequences as in `log_prob`: shape (rows, steps, features) or (steps, features), or a list of arrays of
                different lengths, float32 or float64; with `quantised` also integers.
            context: The context of each sequence, shape (rows, context), or (context,) for all sequences.
            covariates: As in `log_prob`.
            crop: The largest number of steps in a crop; by default four times `field`, less for short series, and whole
                sequences for networks that read latent values.
            quantised: The step of a grid that x lies on, 1 for integers: each epoch adds new uniform noise of a cell to
                each value, because the density of values on a grid has no upper limit.
            **arguments: The arguments of `Flow.fit`, for which a row is a sequence. `weights` are weights of sequences,
                and `batch_size` is a number of crops, by default with about 16,384 steps in all. `validation` is
                sequences, ``(x, context, covariates, weights)``, or a share of all steps to hold out: whole sequences
                with at most twice that share if possible, or else **the end of each** sequence, given its earlier steps
                (`History.held_out`).

        Returns:
            The history: losses and times of epochs, the best epoch, and why the fit ended.

        Raises:
            TypeError: arrays are of several frameworks, not on the CPU, or of a dtype other than float32, float64 and,
                with `quantised`, integers.
            ValueError: a wrong shape, a sequence without steps, values that are not finite (the sequence and the
                step), too few frames, a group, a checkpoint of another fit, or a crop shorter than a sequence of a flow
                whose networks read latent values.
            OSError: a checkpoint cannot be written.
            KeyboardInterrupt: Ctrl-C before there are better weights.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> signal = np.cumsum(np.random.default_rng(0).standard_normal((2000, 1)), axis=0)
        >>> history = flow.fit([signal[:1500], signal[1500:]], progress=False)
        >>> history.judged_by, history.held_out
        ('held-out steps', {0: 150, 1: 50})
        """
        self._refuse_device("fit")
        given, history = Arguments(**arguments), History()

        def opened() -> SequenceFit:
            fit = SequenceFit(self, history, given, crop, quantised)
            fit.open(x, context, covariates)
            return fit

        of_sequences: Any = self  # a flow whose `_interior` is a `SequenceInterior`
        return finished(of_sequences, history, opened)

    @property
    def _interior(self) -> SequenceInterior:
        """The private parts of the flow that a fit uses, with the current parameters."""
        return SequenceInterior(self)

    def _scored(self, quantised: Any, x: Any, *arguments: Any) -> Any:
        """The run of a call that scores the steps of x by their density, or by the probability of cells."""
        if quantised is not None:
            self._refuse_device("quantised")
        run = Run.opened(self, "x", x, *arguments, integers=quantised is not None)
        if quantised is not None:
            run.cells = self._cells(quantised, run)
        return run

    def _cells(self, quantised: Any, run: Run) -> Any:
        return Cells(self, check.number("quantised", quantised, above=0.0, below=np.inf), run)

    def _run_of(self, *arguments: Any) -> Run:
        """The result of `Run.opened` for a call that is computed on the CPU alone."""
        self._refuse_device("sequences")
        return Run.opened(self, *arguments)

    def _refuse_device(self, what: str) -> None:
        """Raise ValueError on a device, for a call that is computed on the CPU alone."""
        if self._device is not None:
            raise ValueError(f"{what}: expected a flow on the CPU, got one on {self.device}; call .to('cpu')")


def _link_of(t: Transform, dtype: np.dtype[Any]) -> Link:
    """A transform of rows as a link of the chain, which is applied to each step with the parameters of each call."""
    if t.dtype is not None:
        return "steps", t._remade(np.zeros(size_of(t), dtype), dtype, None)._program, None
    other = np.dtype(np.float64 if dtype == np.float32 else np.float32)
    return "steps", t._program_for(dtype), t._program_for(other)


def _checked(transforms: Any) -> tuple[Any, ...]:
    """The transforms as a tuple; raises an error for transforms that a `SequenceFlow` does not support."""
    if not np.iterable(transforms):
        raise TypeError(f"transforms: expected a sequence of transforms, got {check.kind_of(transforms)}")
    chain = tuple(transforms)
    for i, t in enumerate(chain):
        if not isinstance(t, (OverTime, Transform)):
            raise TypeError(f"transforms[{i}]: expected a transform of sequences or of rows, got {check.kind_of(t)}")
        if isinstance(t, Transform) and t.context:
            raise ValueError(f"transforms[{i}]: expected a transform without context, got one of {t.context} columns")
        if isinstance(t, Transform):
            t._require_plain(f"transforms[{i}]")
        sizes = getattr(t, "reads_sizes", False)
        if sizes and not (i + 1 < len(chain) and isinstance(chain[i + 1], AdaptivePrediction)):
            after = "nothing" if i + 1 == len(chain) else repr(chain[i + 1])
            raise ValueError(f"transforms[{i + 1}]: expected an AdaptivePrediction behind sizes=True, got {after}")
    if not any(_is_network(t) for t in chain):
        raise ValueError("transforms: expected at least one CausalConvolution, got none")
    return chain


def _is_network(t: Any) -> bool:
    return isinstance(t, OverTime) and t.is_network


def _one(what: str, values: Any, default: Any, advice: str = "") -> Any:
    """The only value among `values` other than 0 and "", or the default; raises ValueError for several values."""
    distinct = sorted({value for value in values if value})
    if len(distinct) > 1:
        raise ValueError(f"transforms: expected one {what}, got {distinct}{advice}")
    return distinct[0] if distinct else default
