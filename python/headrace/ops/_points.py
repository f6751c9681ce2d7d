"""Points that a dual ascent moves from data to latent, with their log-Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.sums import Sums
from headrace._base.types import Floats
from headrace._core import cpu
from headrace._core import device as _device


class Points:
    """Rows that steps move from data to latent, with their log-Jacobians, which are 0 before the first step.

    A step maps each coordinate by x + g sqrt(e2 + (x - x0)²), then all coordinates by a linear map, and computes sums
    for the choice of the next step, in one pass over the rows. The sums are float64, and have the same bits for any
    number of threads. On a CUDA device the work is queued on CuPy's current stream, and calls wait only for the sums of
    a step; `_device.ascent` moves points without waiting.

    Args:
        x: Shape (rows, n), float32 or float64: the rows at the start, which are copied.
        weights: Shape (rows,): the weight of each row in the sums; 1 by default.
        dtype: The dtype of the points, float32 or float64.
        keeps_log_jacobian: Whether each row's log-Jacobian is kept. With False, a step on the CPU writes less memory,
            and only `Chosen` has sums of log-Jacobians.
    """

    def __init__(
        self,
        x: NDArray[Any],
        weights: NDArray[Any] | None = None,
        dtype: Any = np.float32,
        *,
        keeps_log_jacobian: bool = True,
    ) -> None:
        """Copy the rows; the attribute `compiled` is an object of `_cpu` or `_device`."""
        self.dtype = kind = np.dtype(dtype)
        counts = None if weights is None else _arrays.ready(weights, kind)
        if isinstance(x, np.ndarray):
            made = cpu.PointsF32 if kind == np.float32 else cpu.PointsF64
            self.compiled: Any = made(x, counts, keeps_log_jacobian)
        else:
            self.compiled = _device.Points(x, counts, kind)

    def step(
        self,
        maps: Floats,
        log_scale: float,
        blocks: Sequence[Floats],
        bias: Floats,
        next: Floats | None = None,
        order: Sequence[int] | None = None,
    ) -> Floats | None:
        """Move all points by the maps, then by ``z = matrix x[order] + bias``.

        Args:
            maps: Shape (n, 3): g, x0 and e2 of each coordinate; \\|g\\| at most 0.999, e2 > 0. Where g is 0, the map is
                the identity.
            log_scale: The value of log \\|det matrix\\|.
            blocks: Square matrices on the diagonal of the matrix, which is 0 elsewhere; a single block is the whole
                matrix.
            bias: Shape (n,).
            next: Shape (n, 2): x0 and e2 of the next step; None for no sums.
            order: A permutation of the coordinates; None for the ascending order.

        Returns:
            An array (n, 6): for each coordinate after the step, the weighted sums of x, x², r, x r, q and 1 / r², with
            r = sqrt(e2 + (x - x0)²) and q = (x - x0) / r.
        """
        numbers, sizes = np.concatenate([np.ravel(block) for block in blocks]), [len(block) for block in blocks]
        places = list(range(len(bias)) if order is None else order)
        return self.compiled.step(maps, log_scale, numbers, bias, next, sizes, places)

    def checked_rows(self) -> NDArray[np.int64]:
        """The indices of evenly spread rows, for which `Chosen` returns separate log-likelihoods; on the CPU only."""
        return self.compiled.checked_rows()

    def values(self) -> NDArray[Any]:
        """The current points, shape (rows, n)."""
        return self.compiled.values()

    def squares(self) -> Floats:
        """The squared distances of the points from 0, shape (rows,), in float64."""
        return self.compiled.squares()

    def log_jacobian(self) -> Floats:
        """The log-Jacobian log \\|det\\| of all steps so far, shape (rows,), in float64."""
        return self.compiled.log_jacobian()


class Chosen:
    """Kinks that the core chooses while points move, each in the pass that takes all rows through the preceding kink.

    On a device, only methods of `Chosen` that return results wait.

    Args:
        points: The points that determine the kinks, with their weights, part by part; on a device a single part.
        anchors: Points in float64 at which centers may lie.
        held_out: Points that the kinks move but that do not determine kinks, part by part; may be empty.
        sums: The object that adds the sums of all parts and of all processes.
        precision: The precision λ of the base.
        neighbours: The number of rows within a kink's width, divided by twice the number of rows.
        rule: "newton" or "gradient".
        most: The largest number of kinks of a coordinate.
        checked: For the parts of `points` and of `held_out`, whether their checked rows count; by default all do.
    """

    def __init__(
        self,
        points: Sequence[Points],
        anchors: Points,
        held_out: Sequence[Points],
        sums: Sums,
        *,
        precision: float,
        neighbours: float,
        rule: str,
        most: int,
        checked: tuple[list[bool], list[bool]] | None = None,
    ) -> None:
        own, others = ([one.compiled for one in of] for of in (points, held_out))
        rules = precision, neighbours, rule, most
        if isinstance(anchors.compiled, _device.Points):
            self.compiled: Any = _device.ascent(own[0], anchors.compiled, others[0] if others else None, *rules)
            return

        def total(parts: Floats) -> Floats:
            return sums.sum(parts, np.zeros(parts.shape[1]))

        is_double = any(one.dtype == np.float64 for one in (*points, *held_out))
        kind = cpu.AscentF64 if is_double else cpu.AscentF32
        checks = checked or ([True] * len(own), [True] * len(others))
        self.compiled = kind(own, anchors.compiled, others, *rules, *checks, total)

    def kink(self, blocks: Sequence[Floats], order: Sequence[int], rows: list[int], drawn: list[float]) -> None:
        """Move all points by the last chosen kinks, map the results x to ``blocks x[order]``, and choose the next
        kinks.

        The kink of coordinate k has its center at row rows[k] of the anchors, or at drawn[k] if rows[k] is -1.
        """
        numbers, sizes = np.concatenate([np.ravel(block) for block in blocks]), [len(block) for block in blocks]
        self.compiled.kink(numbers, sizes, list(order), rows, drawn)

    def finish(self) -> None:
        """Move all points by the last chosen kinks; no further kinks can be chosen."""
        self.compiled.finish()

    def kinks(self) -> Floats:
        """The parameters a, b, c, center and ε² of each kink, shape (count, n, 5)."""
        return self.compiled.kinks()

    def log_likelihoods(self) -> Floats:
        """Log-likelihoods before each kink, and at the end of a finished ascent, up to constants of units and base.

        The array has shape (count, 4): for points, held-out points (NaN if there are none), and the checked rows of
        both; on a device the shape is (count, 2).
        """
        return self.compiled.log_likelihoods()

    def terms(self) -> Floats:
        """The means over rows of log φ' and φ² for each kink φ so far, shape (kinks, n, 2); on the CPU only."""
        return self.compiled.terms()
