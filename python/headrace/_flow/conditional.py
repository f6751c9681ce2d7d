"""The density of a flow's other columns where some are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._arrays.shapes import opened
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng


@public()
class Conditional:
    """The density of the unknown columns for each row of known ones; `Flow.given` makes it.

    It is exact: the known columns determine their latent coordinates, and all others are free. It keeps the flow as it
    was then.
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
        """Flows: the whole one, its chain on a standard base, one of only its base, and that of the known columns.

        `latent` are the latent coordinates that belong to these.
        """
        caller = flow._caller()
        caller.names = flow._names.of_columns(known)
        rows = opened(caller, "x", x, context, len(known), flow.context)
        assert rows.array is not None
        self._flow, self._chain, self._base = flow, chain, base
        self._known, self._latent = list(known), list(latent)
        self._rest = [i for i in range(flow.features) if i not in set(known)]
        self._like = None if caller._framework is _arrays.NUMPY and flow._device is None else x
        with caller.queue():
            self._x = rows.array.copy()
            self._context = None if rows.context is None else rows.context.copy()
            own = self._context if marginal.context else None
            self._z = marginal.to_latent(self._x, own)[0]
            self._log_prob = marginal.log_prob(self._x, own)
        self._batch = rows.batch

    @property
    def known(self) -> tuple[int, ...]:
        """The columns that are known, in the order in which they were given."""
        return tuple(self._known)

    @property
    def columns(self) -> tuple[int, ...]:
        """The others, ascending, in the order in which rows have them."""
        return tuple(self._rest)

    @property
    def features(self) -> int:
        """Number of the others."""
        return len(self._rest)

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading dimensions of the known columns: () for one row, (rows,) for many."""
        return self._batch

    def __repr__(self) -> str:
        """The columns and the rows."""
        return f"Conditional(columns={self._rest} given {self._known}, shape={self._batch})"

    def log_prob(self, rest: Array) -> Array:
        """Log density of the other columns given the known ones, in nats: log p(all) - log p(known).

        Args:
            rest: Shape (..., features), its leading dimensions broadcast against `shape`: with one row known, any
                number of rows; with many, one for each of them, or several, (draws, rows, features).

        Returns:
            Shape of the leading dimensions, in the flow's dtype. NaN where the known columns have density 0 or are not
            finite.

        Raises:
            TypeError, ValueError: As in `Flow.log_prob`.
        """
        caller = self._flow._caller()
        given, k = caller.open("rest", rest, whole=True), len(self._known)
        if not given.ndim or given.shape[-1] != self.features:
            raise errors.wrong_shape("rest", f"(..., {self.features})", given.shape)
        try:
            batch = np.broadcast_shapes(given.shape[:-1], self._batch)
        except ValueError:
            raise ValueError(
                f"rest: expected leading dimensions that broadcast against {self._batch}, of what is known, got "
                f"{given.shape}"
            ) from None
        value = caller.empty(batch, self._flow.dtype)
        with caller.queue():
            full = _arrays.library(given).empty(
                (*batch, self._flow.features), np.result_type(given.dtype, self._x.dtype)
            )
            full[..., self._rest] = given
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
        """Draw the other columns.

        Args:
            n: How many draws for each row that is known, or a shape of them; () for one each.
            seed: As in `Flow.sample`: draw i of all rows uses the noise of row i there. So draws of
                ``flow.sample(rows, seed=s)`` come back where their own columns are known, up to rounding.
            dtype: As in `Flow.sample`.

        Returns:
            Shape ``(*n, *shape, features)``, in the framework of the known columns.
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
            if self._context is None or len(self._context) == 1:
                context = None if self._context is None else self._context[0]
                x = self._chain.sample((draws, rows), context, noise=z, dtype=kind)
            else:
                x = self._chain.sample((draws,), self._context, noise=z, dtype=kind)
            value[...] = x[..., self._rest].reshape(value.shape)
        return caller.give(value)

    def _context_of_batch(self) -> Any:
        if self._context is None or len(self._context) == 1:
            return None if self._context is None else self._context[0]
        return self._context.reshape(*self._batch, self._context.shape[1])
