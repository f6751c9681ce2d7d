"""The base class of all transforms: evaluation in both directions, and derivatives.

`forward` and `inverse` return ``(value, log_det)``, where `log_det` has shape (rows,) and is the log of the absolute
Jacobian determinant of the direction that was called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._base.moved import renamed
from headrace._base.public import public
from headrace._core.steps import StepSpec
from headrace._flow.program import module as _module
from headrace._flow.program.evaluation import RowModule
from headrace._flow.program.module import Block, Program
from headrace._flow.transforms.network import Network
from headrace._flow.transforms.restriction import Mixed

Result = tuple[Array, Array]


@public("headrace.transforms")
class Transform(RowModule):
    """The base class of all transforms, which map rows in two directions."""

    def __init__(self, features: int, context: int, dtype: np.dtype[Any] | None) -> None:
        """Store the sizes and the dtype; the subclass calls `_take_parameters` afterwards."""
        super().__init__(features, context, dtype)
        self._programs: dict[np.dtype[Any], Program] = {}

    def forward(
        self, z: Array, context: Array | None = None, *, parameters: Array | None = None, out: Result | None = None
    ) -> Result:
        """Transform latent to data.

        Args:
            z: Shape (rows, features), float32 or float64, any strides; (features,) for one row, or any leading
                dimensions, which are also those of `log_det`.
            context: Shape (rows, context), or (context,) for all rows; any leading dimensions that broadcast.
            parameters: Shape (n,): a vector that replaces the transform's `parameters` in this call only.
            out: A pair ``(x, log_det)`` of arrays that receive the result and are returned, in the transform's dtype; x
                may be z itself.

        Returns:
            ``(x, log_det)``: shapes (rows, features) and (rows,); `log_det` is log \\|det dx/dz\\|. A row with a NaN or
            an infinity has the result NaN, and does not affect other rows.

        Raises:
            TypeError: an argument is not float32 or float64, not of the first array's framework, or not on the
                transform's device (docs/arrays.md).
            ValueError: a shape is wrong, a required context is missing, the transform takes no context, or `out`
                overlaps an input other than as z itself.

        >>> import numpy as np, headrace as hr
        >>> x, log_det = np.array([[1.0, 2.0]]), np.empty(1)
        >>> pair = hr.transforms.Standardize([0.0, 0.0], [2.0, 2.0]).forward(x, out=(x, log_det))
        >>> x.tolist(), log_det.round(4).tolist()
        ([[2.0, 4.0]], [1.3863])
        """
        return self._both(False, z, context, parameters, out)

    def inverse(
        self, x: Array, context: Array | None = None, *, parameters: Array | None = None, out: Result | None = None
    ) -> Result:
        """Transform data to latent: ``(z, log_det)`` with `log_det` = log \\|det dz/dx\\|; see `forward`."""
        return self._both(True, x, context, parameters, out)

    forward_vjp = RowModule._vjp_to_data
    inverse_vjp = RowModule._vjp_to_latent
    forward_and_vjp = renamed("forward_and_vjp", "forward_vjp", values=True)
    inverse_and_vjp = renamed("inverse_and_vjp", "inverse_vjp", values=True)

    def _program_and_dtype(self, dtype: np.dtype[Any]) -> tuple[Program, np.dtype[Any]]:
        if self._dtype is not None:
            return self._program, self._dtype
        native = _arrays.native_dtype(dtype)
        return self._program_for(native), native

    def _program_for(self, dtype: np.dtype[Any]) -> Program:
        """The program for rows of one dtype, compiled on first use; for transforms that have no dtype themselves."""
        if dtype not in self._programs:
            with _module._changes:  # only one of several threads compiles
                if dtype not in self._programs:
                    self._programs[dtype] = self._compile(dtype)
        return self._programs[dtype]

    def _take_parameters(self, parameters: NDArray[Any], *, program: Program = None, **structure: Any) -> None:
        super()._take_parameters(parameters, program=program, _programs={}, **structure)

    def _compile_waiting(self) -> Program:
        return super()._compile_waiting() if self._dtype is not None else self._program_for(np.dtype(np.float32))

    def _restricted(self, kept: tuple[int, ...], inverted: bool = False) -> tuple[Transform | None, tuple[int, ...]]:
        """The restriction of the transform to some coordinates, if these depend on no others; see `restriction`.

        Args:
            kept: The coordinates of x to keep, or with `inverted` of z, in the order of the result.
            inverted: Whether `kept` contains coordinates of z.

        Returns: The part, or None for the identity, and the coordinates of z (with `inverted`, of x) that belong to
            `kept`.

        Raises:
            Mixed: the coordinates depend on other coordinates.
        """
        if kept == tuple(range(self._features)):
            return self, kept
        return self._part(kept), kept

    def _part(self, kept: tuple[int, ...]) -> Transform | None:
        """The part for `_restricted`, if x and z have the same kept coordinates; None for the identity."""
        raise Mixed("makes each coordinate from all others")

    def _networks(self) -> tuple[Network, ...]:
        """The networks of the transform whose hidden layers have individual settings."""
        return ()

    def _map_of_network(self) -> str | None:
        """The name of the map whose parameters the transform's network computes; None without a network."""
        return None

    def _hidden(self) -> list[int]:
        """The units of the hidden layers of the transform's network; [] without a network."""
        return []


class OfBlock(Transform):
    """A transform with a single step and a single block of parameters."""

    _block: Any

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        return [self._block.step(inverted)]

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", self._block)]
