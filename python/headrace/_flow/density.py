"""The public methods of a density of rows: log densities, latent rows, data rows, samples, and derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._arrays.kinds import A, Read, S
from headrace._base import arguments as check
from headrace._base.keywords import closed_but_for
from headrace._base.moved import renamed
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Unpack
from headrace._flow.program.evaluation import WRT, Cotangents, Gradients, Opened, Pair, RowModule, kinds_of

Count: TypeAlias = "int | Sequence[int]"
Seed: TypeAlias = "int | np.random.Generator | None"


class Given(TypedDict, total=False):
    """Keywords that `log_prob`, `to_latent`, `to_data` and `sample` share."""

    parameters: Array | None
    out: Any


class Draws(Given, total=False):
    """Keywords of `Density.sample` and `sample_and_log_prob`, apart from `like`."""

    rng: Rng
    first_row: int | None
    noise: Array | None
    dtype: DTypeLike | None


class Density(RowModule):
    """The methods of a `Flow` for evaluation, sampling and derivatives; results have the type of the arguments."""

    _dtype: np.dtype[Any]

    @overload
    def log_prob(self, x: NDArray[S], context: Any = None, **how: Unpack[Given]) -> NDArray[S]: ...
    @overload
    def log_prob(self, x: Read, context: Any = None, **how: Unpack[Given]) -> NDArray[Any]: ...
    @overload
    def log_prob(self, x: A, context: Any = None, **how: Unpack[Given]) -> A: ...
    def log_prob(
        self, x: Array, context: Array | None = None, *, parameters: Array | None = None, out: Array | None = None
    ) -> Array:
        """The log density of each row, in nats.

        Args:
            x: Shape (rows, features), float32 or float64, any strides; (features,) for one row, or any leading
                dimensions.
            context: Shape (rows, context), or (context,) for all rows (which may round differently from repeated rows);
                (rows,) for a single column. The context's leading dimensions are broadcast against those of x.
            parameters: Shape (n,): a vector that replaces the flow's own `parameters` in this call only; entries that
                are no weights (padding, masked entries) count as zero.
            out: Shape (rows,) in the flow's dtype: an array without overlap that receives the result and is returned.

        Returns:
            An array of shape (rows,), or of x's leading dimensions, in the framework of the arguments. A row with a NaN
            or an infinity has the result NaN, and does not affect other rows.

        Raises:
            TypeError: an argument is not float32 or float64, not of the first array's framework, or not on the flow's
                device (docs/arrays.md).
            ValueError: a shape is wrong, a required context is missing, or the flow takes no context.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.MAF(3, context=2)
        >>> flow.log_prob(np.zeros((4, 5, 3)), np.zeros((5, 2))).shape, flow.log_prob(np.zeros(3), np.zeros(2)).shape
        ((4, 5), ())
        """
        caller, rows, program, _, vector = self._opened("x", x, context, parameters, True)
        log_prob = caller.output(out, self._dtype, rows.batch, (rows.array, rows.context, vector))
        self._run(caller, caller.queued(program).log_prob, (rows.array,), (log_prob,), rows, vector)
        return caller.give(log_prob)

    @overload
    def to_latent(self, x: NDArray[S], context: Any = None, **how: Unpack[Given]) -> tuple[NDArray[S], NDArray[S]]: ...
    @overload
    def to_latent(self, x: Read, context: Any = None, **how: Unpack[Given]) -> tuple[NDArray[Any], NDArray[Any]]: ...
    @overload
    def to_latent(self, x: A, context: Any = None, **how: Unpack[Given]) -> tuple[A, A]: ...
    def to_latent(
        self, x: Array, context: Array | None = None, *, parameters: Array | None = None, out: Pair | None = None
    ) -> Pair:
        """Transform data to latent: ``(z, log_det)``, (rows, features) and (rows,), log_det = log \\|det dz/dx\\|.

        The results have the leading dimensions of x, broadcast against the context's, as in `log_prob`. `out` is a pair
        ``(z, log_det)`` of arrays in the flow's dtype that receive the result and are returned; z may be x itself.
        """
        return self._both(True, x, context, parameters, out)

    @overload
    def to_data(self, z: NDArray[S], context: Any = None, **how: Unpack[Given]) -> tuple[NDArray[S], NDArray[S]]: ...
    @overload
    def to_data(self, z: Read, context: Any = None, **how: Unpack[Given]) -> tuple[NDArray[Any], NDArray[Any]]: ...
    @overload
    def to_data(self, z: A, context: Any = None, **how: Unpack[Given]) -> tuple[A, A]: ...
    def to_data(
        self, z: Array, context: Array | None = None, *, parameters: Array | None = None, out: Pair | None = None
    ) -> Pair:
        """Transform latent to data: ``(x, log_det)``, (rows, features) and (rows,), log_det = log \\|det dx/dz\\|.

        The results have the leading dimensions of z, broadcast against the context's, as in `log_prob`. `out` is a pair
        ``(x, log_det)`` of arrays in the flow's dtype that receive the result and are returned; x may be z itself.
        """
        return self._both(False, z, context, parameters, out)

    @overload
    def sample(self, n: Count, context: NDArray[S], seed: Seed = None, **how: Unpack[Draws]) -> NDArray[S]: ...
    @overload
    def sample(
        self, n: Count, context: Read | float | None = None, seed: Seed = None, **how: Unpack[Draws]
    ) -> NDArray[Any]: ...
    @overload
    def sample(self, n: Count, context: A, seed: Seed = None, **how: Unpack[Draws]) -> A: ...
    @overload
    def sample(
        self, n: Count, context: Any = None, seed: Seed = None, *, like: Any = None, **how: Unpack[Draws]
    ) -> Any: ...
    @takes_rng
    @closed_but_for(Draws)
    def sample(
        self,
        n: int | Sequence[int],
        context: Array | None = None,
        seed: int | np.random.Generator | None = None,
        *,
        like: Any = None,
        **how: Any,
    ) -> Array:
        """Draw n rows, shape (n, features), in the framework of the context; by default NumPy, or CuPy on a device.

        Args:
            n: The number of rows; or the shape of the draws **for each row of the context**. With a shape n, the
                result's shape is n, then the leading dimensions of the context, then (features,), as in
                torch.distributions. ``n=()`` makes one draw for each row.
            context: If n is a number, shape (n, context), or (context,) for all rows.
            seed: 0 to 2^64 - 1; None for a random seed; or a `numpy.random.Generator`, which supplies a seed. A sampled
                value depends only on the seed, the row and the column, so that ``sample(n, seed=s)[:k]`` equals
                ``sample(k, seed=s)`` for any number of threads (for k < 8 up to rounding).
            rng: Instead of `seed`: an integer, which is the seed; a sequence of integers or a
                `numpy.random.SeedSequence`, which determines a seed; or a `numpy.random.Generator` or `BitGenerator`,
                which supplies one (SPEC 7 of Scientific Python).
            first_row: The index k of the first row, from 0 to 2^63 - 1 - n, in the endless sample of the seed:
                ``sample(n, seed=s, first_row=k)`` has the bits of ``sample(m, seed=s)[k : k + n]`` for any m of at
                least 8, and costs n rows (docs/scale.md). With `first_row`, `context` has only the n rows from k on. If
                n is a shape, k counts rows in the order of the result.
            parameters: As in `log_prob`.
            noise: Values that replace random draws, in the shape of the result: independent **standard normal** values
                for the bases `StandardNormal` and `Normal` (which scales and shifts the noise), standard logistic
                values for `Logistic`, and values of the base itself for all other bases.
            dtype: "float64", or by default the flow's dtype. With "float64", samples of a float32 flow are scaled to
                the data's units in float64, which data far from zero need, such as time stamps.
            like: An array, or the name of a framework ("numpy", "torch", "jax"; "cupy" on a device) for the result.
            out: An array in the shape and dtype of the result, without overlap, that receives the result and is
                returned.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.MAF(3, context=2, seed=0)
        >>> bool((flow.sample(100, np.ones(2), seed=1)[:10] == flow.sample(10, np.ones(2), seed=1)).all())
        True
        >>> part = flow.sample(40, np.ones(2), seed=1, first_row=60)
        >>> bool((part == flow.sample(100, np.ones(2), seed=1)[60:]).all())
        True
        >>> flow.sample((100,), np.ones((5, 2))).shape  # 100 draws for each of 5 contexts
        (100, 5, 3)
        """
        return self._sample(self.sample, False, n, context, seed, like, **how)

    @takes_rng
    @closed_but_for(Draws)
    def sample_and_log_prob(
        self,
        n: int | Sequence[int],
        context: Array | None = None,
        seed: int | np.random.Generator | None = None,
        *,
        like: Any = None,
        **how: Unpack[Draws],
    ) -> Pair:
        """``(x, log_prob)``: n sampled rows and their log densities from one run; see `sample`.

        The log densities are in the flow's dtype, for any dtype of the rows. `out` is a pair of arrays.
        """
        return self._sample(self.sample_and_log_prob, True, n, context, seed, like, **how)

    # ---- derivatives ----------------------------------------------------------------------------------------------

    def log_prob_and_score(self, x: Array, context: Array | None = None, *, parameters: Array | None = None) -> Pair:
        """``(log_prob, score)``, shapes (rows,) and (rows, features): the log density and its gradient by x.

        If x is broadcast against the context, the score has one row for each log density.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.Flow([hr.transforms.Standardize([0.0], [2.0])], dtype="float64")
        >>> flow.log_prob_and_score(np.array([[3.0]]))[1].tolist()  # -x / 4
        [[-0.75]]
        """
        opened = self._opened("x", x, context, parameters)
        rows = opened[1]
        rows.shape = (*rows.batch, self._features)
        log_prob, (score,) = self._of_log_prob(opened, Cotangents(of_log_prob=True), ("inputs",))
        return log_prob, score

    def log_prob_vjp(
        self,
        x: Array,
        grad_log_prob: Array,
        context: Array | None = None,
        *,
        wrt: Sequence[str] = WRT,
        parameters: Array | None = None,
        values: bool = False,
    ) -> Gradients:
        """The vector-Jacobian product of `log_prob`: gradients of a scalar, from the gradient by the log densities.

        Args:
            x, context, parameters: As in `log_prob`.
            grad_log_prob: The scalar's gradient by the log densities, in their shape.
            wrt: Names of the gradients to return, in order: "inputs", in the shape of x; "parameters" (n,), as in
                `parameters`; "context", in the context's shape. The gradient of a broadcast array is the sum over its
                repetitions.
            values: Whether to return ``(log_prob, gradients)`` from one run.

        Returns:
            A tuple of arrays. A NaN or an infinity in a row makes gradients by this row and by parameters NaN.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.Flow([hr.transforms.Standardize([0.0], [2.0])], dtype="float64")
        >>> log_prob, (by_x,) = flow.log_prob_vjp(np.array([[3.0]]), np.array([2.0]), wrt="inputs", values=True)
        >>> by_x.tolist()
        [[-1.5]]
        """
        opened = self._opened("x", x, context, parameters)
        row = Cotangents.of_rows("grad_log_prob", grad_log_prob, opened[1], opened[0])
        log_prob, gradients = self._of_log_prob(opened, Cotangents(row=row, of_log_prob=True), wrt, values)
        return (log_prob, gradients) if values else gradients

    def _of_log_prob(
        self, opened: Opened, cotangents: Cotangents, wrt: Any, values: bool = True
    ) -> tuple[Any, Gradients]:
        caller, rows, _, dtype, _ = opened
        kinds = kinds_of(wrt)
        log_prob = caller.empty(rows.batch, dtype) if values else None
        gradients = self._backward(opened, cotangents, kinds, inverse=True, log_prob=log_prob)
        return None if log_prob is None else caller.give(log_prob), gradients

    to_data_vjp = RowModule._vjp_to_data
    to_latent_vjp = RowModule._vjp_to_latent
    log_prob_and_vjp = renamed("log_prob_and_vjp", "log_prob_vjp", values=True)
    to_data_and_vjp = renamed("to_data_and_vjp", "to_data_vjp", values=True)
    to_latent_and_vjp = renamed("to_latent_and_vjp", "to_latent_vjp", values=True)

    def nll_and_grad(
        self,
        x: Array,
        context: Array | None = None,
        weights: Array | None = None,
        *,
        wrt: Sequence[str] = ("parameters",),
        parameters: Array | None = None,
        dropout: int | None = None,
    ) -> tuple[Any, ...]:
        """The mean negative log-likelihood in nats, and its gradient by the parameters, shape (n,).

        Memory beyond the arguments grows by one value for each row. The gradient has the same bits for any number of
        threads. A row with a NaN or an infinity makes the mean and the gradient NaN. On a CUDA device the call waits
        for the mean.

        Args:
            x, context, parameters: As in `log_prob`; at least one row.
            weights: Shape (rows,), or the shape of the log densities: weights of the rows in the mean, not negative; by
                default all 1.
            wrt: Names of the gradients to return after the mean; see `log_prob_vjp`.
            dropout: The seed of the units that layers with `dropout` omit, 0 to 2^64 - 1, different for each step; the
                choice of units depends only on the seed, the row and the unit. None: no unit is omitted.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.MAF(2, context=3)
        >>> x, context = np.random.default_rng(0).standard_normal((100, 2)), np.ones((100, 3))
        >>> loss, gradient = flow.nll_and_grad(x, context)
        >>> gradient.shape == flow.parameters.shape
        True
        >>> loss, gradient, by_context = flow.nll_and_grad(x, context, wrt=("parameters", "context"))
        >>> by_context.shape
        (100, 3)
        """
        opened = caller, rows, _, dtype, _ = self._opened("x", x, context, parameters)
        weights, total = _arrays.row_weights("weights", weights, rows.rows, caller, rows.batch)
        if rows.rows == 0:
            raise ValueError(f"x: expected at least one row, got shape {rows.shape}")
        kinds = kinds_of(wrt)
        log_prob = caller.scratch((rows.rows,), dtype)
        cotangents = Cotangents(row=weights, row_scale=-1.0 / total, of_log_prob=True)
        seed = None if dropout is None else check.integer("dropout", dropout, most=2**64 - 1)
        gradients = self._backward(opened, cotangents, kinds, inverse=True, log_prob=log_prob, dropout=seed)
        return -caller.weighted_sum(log_prob, weights) / total, *gradients
