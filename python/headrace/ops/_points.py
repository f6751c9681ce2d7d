"""Points that a dual ascent carries from data to latent, with their log-Jacobians."""

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
    """Rows between data and latent, with their log-Jacobians, which start at 0.

    A step maps each coordinate by x + g sqrt(e2 + (x - x0)²), then all of them by a linear map, and computes sums for
    the choice of the next step, in one pass over the rows. Sums are added up in float64, and have the same bits for any
    number of threads. On a CUDA device work is queued on CuPy's current stream, and only the sums of a step are waited
    for; `_device.ascent` moves points there without waiting.

    Args:
        x: Shape (rows, n), float32 or float64: where the points start; copied.
        weights: Shape (rows,): the weight of each row in the sums; 1 by default.
        dtype: float32 or float64, of the positions.
        keeps_log_jacobian: Whether each row's log-Jacobian is kept. Without it a step on the CPU writes less memory,
            and `Chosen` has their sums.
    """

    def __init__(
        self,
        x: NDArray[Any],
        weights: NDArray[Any] | None = None,
        dtype: Any = np.float32,
        *,
        keeps_log_jacobian: bool = True,
    ) -> None:
        """See the class; `compiled` is its class in `_cpu` or `_device`."""
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
            maps: Shape (n, 3): g, x0 and e2 of each coordinate; \\|g\\| at most 0.999, e2 > 0. Where g is 0 nothing
                bends.
            log_scale: log \\|det matrix\\|.
            blocks: Square matrices on the diagonal of the matrix, which is 0 elsewhere; one is the whole matrix.
            bias: Shape (n,).
            next: Shape (n, 2): x0 and e2 of the next step; None for no sums.
            order: Each coordinate once; None for all as they are.

        Returns:
            Shape (n, 6): for each coordinate, as it is now, the weighted sums of x, x², r, x r, q and 1 / r², with
            r = sqrt(e2 + (x - x0)²) and q = (x - x0) / r.
        """
        numbers, sizes = np.concatenate([np.ravel(block) for block in blocks]), [len(block) for block in blocks]
        places = list(range(len(bias)) if order is None else order)
        return self.compiled.step(maps, log_scale, numbers, bias, next, sizes, places)

    def checked_rows(self) -> NDArray[np.int64]:
        """Some rows, evenly spread, for which `Chosen` has a separate log-likelihood; on the CPU."""
        return self.compiled.checked_rows()

    def values(self) -> NDArray[Any]:
        """The current points, shape (rows, n)."""
        return self.compiled.values()

    def squares(self) -> Floats:
        """Squares of the points' distances from 0, shape (rows,), in float64."""
        return self.compiled.squares()

    def log_jacobian(self) -> Floats:
        """log \\|det\\| of the way so far, shape (rows,), in float64."""
        return self.compiled.log_jacobian()


class Chosen:
    """Kinks that the core chooses while points move, each in the pass that takes all rows through the kink before it.

    On a device only reads wait.

    Args:
        points: Points that choose the kinks, with their weights, part by part; on a device one part.
        anchors: In float64: where centers may be.
        held_out: Points that are carried along, part by part; none without any.
        sums: Adds the sums of the parts, and those of other processes.
        precision: λ.
        neighbours: Rows that a kink's width holds, over twice the number of rows.
        rule: "newton" or "gradient".
        most: Kinks of a coordinate that can be chosen.
        checked: Of which parts the checked rows count, of `points` and of `held_out`; by default of all.
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
        """Move all points by the kinks chosen last, turn them to ``blocks x[order]``, and choose the next kinks.

        The center of coordinate k is where row rows[k] of the anchors then is, or drawn[k] where rows[k] is -1.
        """
        numbers, sizes = np.concatenate([np.ravel(block) for block in blocks]), [len(block) for block in blocks]
        self.compiled.kink(numbers, sizes, list(order), rows, drawn)

    def finish(self) -> None:
        """Move all points by the kinks that were chosen last; no further kinks can be chosen."""
        self.compiled.finish()

    def kinks(self) -> Floats:
        """Shape (count, n, 5): a, b, c, center and ε² of each kink."""
        return self.compiled.kinks()

    def log_likelihoods(self) -> Floats:
        """Log-likelihoods before each kink, and after the last of a finished ascent, up to constants of units and base.

        Shape (count, 4): of the points, of the held-out points (NaN without any), and of the checked rows of either; on
        a device (count, 2).
        """
        return self.compiled.log_likelihoods()

    def terms(self) -> Floats:
        """Shape (kinks, n, 2): means of log φ' and φ² of each kink that the rows have gone through; on the CPU."""
        return self.compiled.terms()
