"""Derivatives of flows: gradients from one forward and backward run, with the values of that run on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._base import arguments as check
from headrace._base.moved import renamed
from headrace._flow.program.evaluation import WRT, Cotangents, Evaluated, Gradients, Opened, Pair, kinds_of


class Derivatives(Evaluated):
    """The derivatives of a `Flow`."""

    _dtype: np.dtype[Any]

    def log_prob_and_score(self, x: Array, context: Array | None = None, *, parameters: Array | None = None) -> Pair:
        """``(log_prob, score)``, shapes (rows,) and (rows, features): the log density and its gradient by x.

        With other leading dimensions, and where x is broadcast against the context, each log density has its score.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.Flow([hr.Standardize([0.0], [2.0])], dtype="float64")
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
        """Vector-Jacobian product of `log_prob`: gradients of a scalar from its gradient by the log densities.

        Args:
            x, context, parameters: As in `log_prob`.
            grad_log_prob: Shape (rows,), or that of the log densities.
            wrt: The gradients to give, in this order: "inputs", in the shape of x; "parameters" (n,), as in
                `parameters`; "context", in its shape. The gradient of a broadcast array is the sum over its uses.
            values: Whether to return ``(log_prob, gradients)`` from the one run.

        Returns:
            A tuple of arrays. A row with a NaN or an infinity makes its own gradient NaN, and all of the parameters'.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.Flow([hr.Standardize([0.0], [2.0])], dtype="float64")
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
        caller, rows, program, dtype, vector = opened
        kinds = kinds_of(wrt)
        log_prob = caller.empty(rows.batch, dtype) if values else None
        gradients = self._backward(
            caller, program, dtype, rows, cotangents, kinds, vector, inverse=True, log_prob=log_prob
        )
        return None if log_prob is None else caller.give(log_prob), gradients

    to_data_vjp = Evaluated._vjp_to_data
    to_latent_vjp = Evaluated._vjp_to_latent
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
        """The mean negative log-likelihood in nats, and its gradient, shape (n,), as in `parameters`.

        Memory beyond the input does not grow with the rows, but for one number a row. The gradient has the same bits
        for any number of threads. A row with a NaN or an infinity makes both NaN. On a device this waits for the mean.

        Args:
            x, context, parameters: As in `log_prob`; at least one row.
            weights: Shape (rows,), or that of the log densities: weights of the rows in the mean, not negative; all 1
                by default.
            wrt: The gradients to give after the mean, in this order; see `log_prob_vjp`.
            dropout: The seed of the units that layers with `dropout` omit, 0 to 2^64 - 1, another one for each step;
                the choice depends only on the seed, the row and the unit. None: they omit nothing.

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
        caller, rows, program, dtype, vector = self._opened("x", x, context, parameters)
        weights, total = _arrays.row_weights("weights", weights, rows.rows, caller, rows.batch)
        if rows.rows == 0:
            raise ValueError(f"x: expected at least one row, got shape {rows.shape}")
        kinds = kinds_of(wrt)
        log_prob = caller.scratch((rows.rows,), dtype)
        cotangents = Cotangents(row=weights, row_scale=-1.0 / total, of_log_prob=True)
        gradients = self._backward(
            caller,
            program,
            dtype,
            rows,
            cotangents,
            kinds,
            vector,
            inverse=True,
            log_prob=log_prob,
            dropout=None if dropout is None else check.integer("dropout", dropout, most=2**64 - 1),
        )
        return -caller.weighted_sum(log_prob, weights) / total, *gradients
