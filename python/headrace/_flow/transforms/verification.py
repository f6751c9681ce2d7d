"""Comparison of a transform's results with the results of the library from which its weights come."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._flow.transforms.transform import Transform

WANTED = "(x, z, log_det), or (x, z, log_det, context) with context"


def verify_inverse(transform: Transform, known: Any) -> None:
    """Compare a transform's inverse with known results; see `MaskedAutoregressive.from_dense`.

    Raises:
        ValueError: values are not finite, or z or log_det differ by more than rounding, which is half of the coarser
            dtype's digits, relative to values above 1.
    """
    if not isinstance(known, (tuple, list)) or len(known) != 3 + bool(transform.context):
        given = f"{len(known)} values" if isinstance(known, (tuple, list)) else type(known).__name__
        raise TypeError(f"verify: expected {WANTED}, got {given}")
    x = _arrays.matrix("verify[0]", known[0], transform.features)
    rows = len(x)
    if not rows:
        raise ValueError("verify[0]: expected at least one row, got none")
    context: Any = _arrays.context_rows(known[3], rows, transform.context, "verify[3]") if transform.context else None
    wanted = {
        "z": _arrays.shaped("verify[1]", known[1], x.shape),
        "log_det": _arrays.shaped("verify[2]", known[2], (rows,)),
    }
    for i, array in enumerate((x, *wanted.values())):
        if not np.isfinite(array).all():
            raise ValueError(f"verify[{i}]: expected finite numbers, got NaN or infinity")
    dtypes = [transform.dtype, x.dtype, *(array.dtype for array in wanted.values())]
    limit = max(float(np.finfo(dtype).eps) ** 0.5 for dtype in dtypes)
    if context is not None:
        context = np.broadcast_to(context, (rows, transform.context))
    largest: dict[str, float] = {}
    worst = 0
    for (name, want), got in zip(wanted.items(), transform.inverse(x, context), strict=True):
        difference = np.abs(np.asarray(got, np.float64) - want).reshape(rows, -1)
        scaled = difference / np.maximum(np.abs(want.astype(np.float64)).reshape(rows, -1), 1.0)
        if not (scaled <= limit).all():
            worst = worst if largest else int(np.nan_to_num(scaled, nan=np.inf).max(axis=1).argmax())
            largest[name] = float(difference.max())
    if largest:
        found = " and ".join(f"{name} differs by up to {value:.3g}" for name, value in largest.items())
        raise ValueError(
            f"verify: expected the results of the other library to {limit:.1e}, but {found} (row {worst}): the weights "
            "mean something else there; map, scale, slope, formula, reads, outputs and layout say what they mean "
            "(docs/conventions.md), such as layout='blocked' where all outputs of one name come before the next name's"
        )
