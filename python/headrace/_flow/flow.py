"""Flows, which consist of a base density and a chain of transforms from latent to data; and conditional densities
of some columns of a flow given the others.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import DTypeLike

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array, Caller, named
from headrace._arrays.names import Names
from headrace._arrays.shapes import opened
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.keywords import ATTRIBUTES, takes
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace._base.stored import Stored, header_of, header_of_scale, storable
from headrace._core.device import Device, matmul_on_cpu
from headrace._core.steps import StepSpec
from headrace._flow.bases import Base, Logistic, StandardNormal
from headrace._flow.chain import Chained, check_base
from headrace._flow.density import Density
from headrace._flow.fit_arguments import Arguments, FitKeywords
from headrace._flow.transforms.restriction import chain_of, columns_of
from headrace._flow.transforms.transform import Transform

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from headrace._flow.internals import Interior
    from headrace.training import History


@public()
class Conditional:
    """The density of the unknown columns for each row of known columns, as returned by `Flow.given`.

    The density is exact: the known columns determine their latent coordinates, and all other coordinates are free. A
    `Conditional` keeps the parameters that the flow had when `Flow.given` was called.
    """

    def __init__(
        self,
        flow: Any,
        chain: Any,
        base: Any,
        marginal: Any,
        latent: Sequence[int],
        known: Sequence[int],
        x: Any,
        context: Any,
    ) -> None:
        """`flow`: the whole flow; `chain`: the transforms over a standard base; `base`: a flow of the base alone.

        `marginal`: the flow of the known columns; `latent`: the latent coordinates of these columns.
        """
        caller = flow._caller()
        caller.names = flow._names.of_columns(known)
        rows = opened(caller, "x", x, context, len(known), flow.context)
        assert rows.array is not None
        self._flow, self._chain, self._base = flow, chain, base
        self._known, self._latent = list(known), list(latent)
        self._rest = [i for i in range(flow.features) if i not in set(known)]
        self._like = None if caller._framework is _arrays.NUMPY else x
        with caller.queue():
            self._x = rows.array.copy()
            self._context = None if rows.context is None else rows.context.copy()
            reads = self._context if marginal.context else None
            self._z = marginal.to_latent(self._x, reads)[0]
            self._log_prob = marginal.log_prob(self._x, reads)
        self._batch = rows.batch

    @property
    def known(self) -> tuple[int, ...]:
        """The known columns, in the order of the argument `columns` of `Flow.given`."""
        return tuple(self._known)

    @property
    def columns(self) -> tuple[int, ...]:
        """The unknown columns in ascending order, which is their order in samples and in the rows of `log_prob`."""
        return tuple(self._rest)

    @property
    def features(self) -> int:
        """The number of unknown columns."""
        return len(self._rest)

    @property
    def shape(self) -> tuple[int, ...]:
        """The leading dimensions of the array of known columns: () for one row, (rows,) for several."""
        return self._batch

    def __repr__(self) -> str:
        """The unknown and the known columns, and the shape of the rows."""
        return f"Conditional(columns={self._rest} given {self._known}, shape={self._batch})"

    def log_prob(self, rest: Array) -> Array:
        """The log density of the unknown columns given the known ones, in nats: log p(all) - log p(known).

        Args:
            rest: Shape (..., features), whose leading dimensions are broadcast against `shape`: with one known row, any
                number of rows; with several known rows, one row for each, (rows, features), or several for each,
                (draws, rows, features).

        Returns:
            An array with the broadcast leading dimensions, in the flow's dtype. A value is NaN if the known columns of
            its row have density 0 or are not finite.

        Raises:
            TypeError, ValueError: an argument is not as expected, as in `Flow.log_prob`.
        """
        caller = self._flow._caller()
        values, k = caller.open("rest", rest, whole=True), len(self._known)
        if not values.ndim or values.shape[-1] != self.features:
            raise errors.wrong_shape("rest", f"(..., {self.features})", values.shape)
        try:
            batch = np.broadcast_shapes(values.shape[:-1], self._batch)
        except ValueError:
            raise ValueError(f"rest: expected shapes that broadcast to {self._batch}, got {values.shape}") from None
        value = caller.empty(batch, self._flow.dtype)
        with caller.queue():
            dtype = np.result_type(values.dtype, self._x.dtype)
            full = _arrays.library(values).empty((*batch, self._flow.features), dtype)
            full[..., self._rest] = values
            full[..., self._known] = self._x.reshape(*self._batch, k)
            with np.errstate(invalid="ignore"):
                value[...] = self._flow.log_prob(full, self._context_of_batch()) - self._log_prob.reshape(self._batch)
        return caller.give(value)

    @takes_rng
    def sample(
        self,
        n: int | Sequence[int] = (),
        seed: int | np.random.Generator | None = None,
        *,
        rng: Rng = None,
        dtype: DTypeLike | None = None,
    ) -> Array:
        """Draw the unknown columns.

        Args:
            n: The number of draws for each known row, or a shape of draws; () for one draw for each known row.
            seed: As in `Flow.sample`: of R known rows, draw i of row r uses the noise of row i * R + r of
                ``flow.sample(n * R, seed=s)``, which is therefore reproduced, up to rounding, from its known columns.
            dtype: As in `Flow.sample`.

        Returns:
            An array of shape ``(*n, *shape, features)``, in the framework of the known columns.
        """
        caller, key = self._flow._caller(), check.seed(seed)
        if self._like is not None:
            caller.answer_like(self._like)
        each = check.integers("n", n) if np.iterable(n) else (check.integer("n", n),)
        batch, rows = (*each, *self._batch), math.prod(self._batch)
        draws, width = math.prod(each), self._flow.features
        kind = self._flow.dtype if dtype is None else check.float_dtype("dtype", dtype)
        z = self._base.sample(draws * rows, seed=key)
        value = caller.empty((*batch, self.features), kind)
        with caller.queue():
            z = z.reshape(draws, rows, width)
            z[..., self._latent] = self._z.astype(z.dtype)
            is_one = self._context is None or len(self._context) == 1
            shape, context = ((draws, rows), self._context_of_batch()) if is_one else ((draws,), self._context)
            x = self._chain.sample(shape, context, noise=z, dtype=kind)
            value[...] = x[..., self._rest].reshape(value.shape)
        return caller.give(value)

    def _context_of_batch(self) -> Any:
        if self._context is None or len(self._context) == 1:
            return None if self._context is None else self._context[0]
        return self._context.reshape(*self._batch, self._context.shape[1])


@storable
class Flow(Chained, Density):
    """A density ρ(x) = base(z(x)) · |det dz/dx| (eq. 26-27 of the lecture notes, docs/references.md).

    The whole chain is one program: a tile of rows passes through all transforms while the tile is in cache. The program
    is compiled on first use. The flow copies the parameters of its transforms; `transforms` returns the transforms with
    the current values.

    Args:
        transforms: The transforms in latent → data order; all transforms with parameters must have one dtype.
        base: The base; by default `StandardNormal`.
        dtype: "float32" or "float64"; by default the transforms' dtype.
        standardize_context: ``(mean, std)``, shape (context,) each, by which the networks' context is
            standardised, (context - mean) / std; `fit` sets it.
        matmul: How products of networks are computed on the CPU, "exact", "bf16", "bf16_tiles", ...; see
            `to`. By default the transforms' own setting.

    >>> import numpy as np, headrace as hr
    >>> chain = [hr.transforms.Permutation([1, 0]), hr.transforms.Standardize([5.0, 0.0], [1.0, 2.0])]
    >>> flow = hr.Flow(chain, dtype="float64")
    >>> flow.log_prob(np.array([[5.0, 0.0]])).round(4).tolist()  # -log(2 pi) - log 2
    [-2.531]
    """

    _called = Names()  # the names of the columns of x and of the context

    if not TYPE_CHECKING:  # type checkers do not see this method, so that they report missing attributes

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError; for a method's name in another library, the message names headrace's method."""
            instead = f"; call {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{instead}")

    def __init__(
        self,
        transforms: Sequence[Transform],
        base: Base | None = None,
        *,
        dtype: DTypeLike | None = None,
        standardize_context: tuple[Any, Any] | None = None,
        matmul: str | None = None,
    ) -> None:
        if not np.iterable(transforms):
            raise TypeError(f"transforms: expected a sequence of transforms, got {check.kind_of(transforms)}")
        chain = tuple(transforms)
        for i, t in enumerate(chain):
            if not isinstance(t, Transform):
                raise TypeError(f"transforms[{i}]: expected a transform, got {check.kind_of(t)}")
        if base is None:
            if not chain:
                raise ValueError("base: expected a base density where there are no transforms, got None")
            base = StandardNormal(chain[0].features)
        check_base(base, chain)
        contexts = sorted({t.context for t in chain if t.context})
        if len(contexts) > 1:
            raise ValueError(f"transforms: expected one number of context columns, got {contexts}")
        dtypes = {t.dtype for t in chain if t.dtype is not None}
        if len(dtypes) > 1:
            raise ValueError(f"transforms: expected one dtype, got {sorted(map(str, dtypes))}; use .astype")
        common = dtypes.pop() if dtypes else np.dtype(np.float32)
        kind = common if dtype is None else check.float_dtype("dtype", dtype)
        for name in ("device", "matmul"):
            settings = list(dict.fromkeys(getattr(t, name) for t in chain))
            if len(settings) > 1:
                raise ValueError(f"transforms: expected one {name}, got {settings}; use .to")
        super().__init__(base.features, contexts[0] if contexts else 0, kind)
        device, products = (chain[0]._device, chain[0]._products) if chain else (None, "exact")
        if matmul is not None:
            products = matmul_on_cpu(matmul)
            if device is not None:
                raise ValueError(f"matmul: expected none beside transforms on {device!r}, got {matmul!r}; use .to")
        self._place(device, products)
        self._join(chain, base, standardize_context)

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        return [step for t in self._chain for step in t._steps()]

    def _base_steps(self) -> tuple[str, list[StepSpec]]:
        return self._base.name, self._base._steps()

    def _context_scale(self) -> tuple[list[float], list[float]]:
        mean, std = self._standardize_context or (np.empty(0), np.empty(0))
        return mean.tolist(), std.tolist()

    @property
    def _interior(self) -> Interior:
        """The flow's private interface, which fits use beside its public methods."""
        from headrace._flow.internals import Interior

        return Interior(self)

    def _header(self) -> dict[str, Any]:
        """The flow's settings in JSON types; see `headrace._base.stored`."""
        return {
            "features": self._features,
            "context": self._context,
            "standardize_context": header_of_scale(self._standardize_context),
            "base": header_of(self._base),
            "transforms": [header_of(t) for t in self._chain],
        }

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        """The flow that a file's header describes; see `headrace._base.stored`."""
        features, context = stored.size("features", least=1), stored.size("context")
        scale = stored.scale("standardize_context")
        self = cls.__new__(cls)  # a file has a named flow's chain, not its arguments
        chain, base = stored.children("transforms", Transform), stored.child("base", Base, "base.")
        Flow.__init__(self, chain, base, dtype=stored.dtype, standardize_context=scale)
        if (self._features, self._context) != (features, context):
            sizes = self._features, self._context
            raise ValueError(f"features, context: expected {sizes}, got {(features, context)}")
        return self

    # ---- structure ---------------------------------------------------------------------------------------------

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns, from the frame of the fit or from the argument `features`; None without names.

        Frames in later calls need the same columns in the same order; arrays have no names, and their order is not
        checked.
        """
        return self._names.features

    @property
    def context_names(self) -> tuple[str, ...] | None:
        """The names of the context's columns, if the context was a frame in the fit; otherwise None."""
        return self._names.context or None

    def _notes(self) -> dict[str, str]:
        return Names(self._names.features, self._names.context if self._context else ()).notes()

    def _with_notes(self, notes: Mapping[str, Any]) -> Self:
        self._names = Names.of_notes(notes, self._features, self._context)
        return self

    @property
    def _names(self) -> Names:
        return self._called

    @_names.setter
    def _names(self, names: Names) -> None:
        self._called = names
        self._place(self._device, self._products)

    def _place(self, device: Device | None, products: str = "exact") -> None:
        """Set the device; calls on the CPU also check the column names of frames. See `Parametrised`."""
        super()._place(device, products)
        if device is None and (self._called.features or self._called.context):
            self._caller = named(self._called)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms in latent → data order, with copies of the current parameters, on the flow's device.

        With `standardize_context`, the transforms expect a standardised context.
        """
        return self._transforms_on(self._device, self._products)

    def _transforms_on(self, device: Device | None, products: str = "exact") -> tuple[Transform, ...]:
        vector, start = self._vector(), self._base_size()
        chain: list[Transform] = []
        for t in self._chain:
            size = sum(block.size for _, block in t._blocks())
            same = not size and t._device is device and t._products == products
            part, dtype = vector[start : start + size], self._dtype if size else t.dtype
            chain.append(t if same else t._remade(part, dtype, device, products))
            start += size
        return tuple(chain)

    def __len__(self) -> int:
        """The number of transforms."""
        return len(self._chain)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the transforms ``flow[0]``, ``flow[1]``, ..."""
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: slice) -> Flow: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: slice | int) -> Any:
        """``flow[:t]``: the flow of the first t transforms; ``flow[i]``: one transform. Both copy the parameters.

        >>> import headrace as hr
        >>> flow = hr.Flow([hr.transforms.Permutation([1, 0]), hr.transforms.Planar(2)])
        >>> flow[0], len(flow[:1]), len([*flow])
        (Permutation([1, 0]), 1, 2)
        """
        if not isinstance(index, slice):
            return self.transforms[check.index("index", index, len(self))]
        if index.start not in (None, 0) or index.step not in (None, 1):
            raise TypeError(f"index: expected a slice flow[:t], or an int for one transform, got {index!r}")
        chain = self._transforms_on(None)[index]  # on the CPU; the new flow is moved to the device once
        scale = self._standardize_context if any(t.context for t in chain) else None
        flow = Flow(chain, self._base, dtype=self._dtype, standardize_context=scale)
        vector, size = flow._vector(), self._base_size()
        vector[:size] = self._vector()[:size]
        flow._put_parameters(vector)
        return self._placed_here(flow)

    def __repr__(self) -> str:
        """The class name, the sizes, the base and the transforms."""
        context = f", {self.context} of context" if self.context else ""
        products = f", matmul {self._products}" if self._products != "exact" else ""
        head = f"{type(self).__name__} of {self.features} features{context}, {self._dtype.name}{products}"
        lines = [f"base {self._base!r}", *_repeated([repr(t) for t in self._chain])]
        return "".join([f"<{head}", *(f"\n  {line}" for line in lines), ">"])

    # ---- other formats ----------------------------------------------------------------------------------------------

    def to_onnx(self, path: str | os.PathLike[str], verb: str = "log_prob") -> None:
        """Write one method of the flow as an ONNX graph (opset 17), for runtimes of many languages and devices.

        Inputs are float32: "x" (rows, features), or "z" for "to_data", and "context" (rows, context) if the flow
        takes a context. Outputs are "log_prob", or "z" or "x" and "log_det", with the shapes that the method returns.

        Args:
            path: The path of the file, such as flow.onnx.
            verb: The method: "log_prob", "to_latent" or "to_data".

        Raises:
            ImportError: onnx is not installed: ``pip install ".[onnx]"``.
            TypeError: `path` is no path.
            ValueError: `verb` is no such method, or the method computes coordinates one after another, like "to_data"
                of a `MAF`.
        """
        from headrace import onnx

        onnx.write(self, path, verb)

    # ---- marginal and conditional densities -------------------------------------------------------------------------

    def marginal(self, columns: int | Sequence[int]) -> Flow:
        """The exact marginal density of some columns, as a flow, if these columns depend on no others in the chain.

        Args:
            columns: The number of the first columns to keep, or the columns in the order of the result. In a flow with
                one order of columns, such as ``MAF(..., link="none")``, the first k columns depend on no later columns,
                for any k.

        Raises:
            ValueError: the columns depend on other columns; the message names the transform that mixes the columns.

        >>> import numpy as np, headrace as hr
        >>> hr.MAF(4, link="none").marginal(2).log_prob(np.zeros((3, 2))).shape
        (3,)
        """
        chosen = columns_of(columns, self._features)
        flow = self._marginal(chosen)[0]
        flow._names = self._names.of_columns(chosen)
        return flow

    def _marginal(self, columns: tuple[int, ...]) -> tuple[Flow, tuple[int, ...]]:
        """The marginal of some columns, and the latent coordinates that belong to these columns."""
        chain, latent = chain_of(self._transforms_on(None), columns)
        return self._made_of(chain, self.base._part(latent)), latent

    def _made_of(self, chain: Sequence[Transform], base: Base) -> Flow:
        """A flow of the transforms `chain` and of `base`, with this flow's dtype, device and scale of the context."""
        scale = self._standardize_context if any(t.context for t in chain) else None
        return self._placed_here(Flow(chain, base, dtype=self._dtype, standardize_context=scale))

    def given(self, x: Array, context: Array | None = None, *, columns: Sequence[int] | None = None) -> Conditional:
        """The exact conditional density of the other columns if some columns are known, for samples and log densities.

        The result needs no search: log p(other | known) = log p(all) - log p(known), and a draw costs one
        run of the network.

        Args:
            x: The known values, shape (rows, k), or (k,) for one row, or any leading dimensions.
            context: As in `log_prob`.
            columns: The columns of x; by default the first k. Known columns must not depend on other columns; see
                `marginal`.

        Returns: A `Conditional` of the unknown columns in ascending order, with the flow's present parameters.

        Raises:
            TypeError, ValueError: an argument is not as expected, as in `log_prob` and `marginal`.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.MAF(4, link="none")
        >>> rest = flow.given(np.zeros(2))
        >>> rest.sample(100, seed=0).shape, rest.log_prob(np.ones((5, 2))).shape
        ((100, 2), (5,))
        >>> flow.given(np.zeros((7, 2))).sample(seed=0).shape  # one draw for each row
        (7, 2)
        """
        if columns is None:
            caller = self._caller() if self._device is not None else Caller()  # `Caller` checks no column names
            shape = caller.open("x", x, whole=True).shape
            columns = range(shape[-1] if shape else 0)
        known = columns_of(columns, self._features)
        if len(known) == self._features:
            raise ValueError(f"x: expected fewer than {self._features} columns, got {len(known)}")
        marginal, latent = self._marginal(known)
        base = self.base
        standard = type(base) in (StandardNormal, Logistic)  # whether the base's noise equals the latent rows
        whole = copy.copy(self)
        chain = whole if standard else self._made_of(self._transforms_on(None), StandardNormal(self._features))
        return Conditional(whole, chain, self._made_of([], base), marginal, latent, known, x, context)

    # ---- training ------------------------------------------------------------------------------------------------

    @takes(FitKeywords, Arguments)
    def fit(
        self, x: Array, context: Array | None = None, *, rng: Rng = None, **arguments: Unpack[FitKeywords]
    ) -> History:
        """Maximise the likelihood of rows, and keep the weights that are best on held-out rows.

        Held-out rows also judge the initial weights, so that a second fit never ends with worse weights.

        A `Standardize` at the flow's data end is set from the training rows if it still is the identity. The training
        rows also set the standardisation of context columns and initialise each `ActNorm`. A later fit sets no
        standardisation or `ActNorm` again. The same seed gives the same bits for any number of threads. Ctrl-C ends the
        fit and keeps the best weights so far.

        Without `epochs`, cross-validation is used if fewer than 50 rows are held out. A flow that is not clearly better
        on held-out rows than the Gaussian of the training rows becomes that Gaussian, correlations included; with a
        context, the Gaussian's mean is linear in the context (docs/training.md). With `epochs` the fitted flow is kept,
        with a warning if held-out rows prefer the Gaussian.

        Args:
            x: Shape (rows, features), float32 or float64, any strides; at most 65,536 rows are copied at a time (but a
                pandas frame of several blocks is copied whole). The array may be a memory-mapped file. Or x is a stream
                of rows, with its own context and weights: from `headrace.rows`, a data set of pyarrow, or a Dask array
                or frame (docs/scale.md).
            context: Shape (rows, context), or (context,) for all rows.
            rng: A generator or seed in place of `seed`; see `Flow.sample`.
            **arguments: The fields of `headrace._flow.fit_arguments.Arguments`.

        Returns:
            A `History` of the losses, the times and the choices of the fit.

        Raises:
            TypeError: the arrays are not float32 or float64, not of one framework, or not on the flow's device
                (docs/arrays.md).
            ValueError: a shape is wrong, rows have a NaN or an infinity or lie on a bound or beyond (the message counts
                these), or the checkpoint is of another fit; with a group, also errors of other ranks, and shards or
                arguments that do not agree.
            OSError: the checkpoint cannot be written.
            KeyboardInterrupt: Ctrl-C was pressed before any weights were better than the initial weights; the flow is
                unchanged.
            headrace.distributed.GroupError: a rank did not answer in time.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.MAF(2, transforms=2, hidden=(16,))
        >>> x = np.random.default_rng(0).normal([1.0, -2.0], [1.0, 3.0], (500, 2))
        >>> history = flow.fit(x, progress=False)
        >>> history.judged_by, flow.log_prob(x).shape
        ('held-out rows', (500,))
        """
        from headrace import training

        return training.fit(self, x, context, Arguments(**arguments))


def _repeated(lines: list[str]) -> list[str]:
    """The lines in order, where repeats of a line, or of two alternating lines, appear once with their count.

    >>> _repeated(["a", "b", "a", "b", "c", "c", "d"])
    ['2 x (', '  a', '  b', ')', '2 x c', 'd']
    """
    result, at = [], 0
    while at < len(lines):
        runs = []
        for period in (1, 2):
            unit, count = lines[at : at + period], 1
            while lines[at + count * period : at + (count + 1) * period] == unit:
                count += 1
            runs.append((count * period if count > 1 else 1, -period, count))
        _, period, count = max(runs)
        unit = lines[at : at - period]
        if count == 1:
            result.append(lines[at])
            at += 1
            continue
        result += [f"{count} x {unit[0]}"] if len(unit) == 1 else [f"{count} x (", *(f"  {line}" for line in unit), ")"]
        at += count * len(unit)
    return result
