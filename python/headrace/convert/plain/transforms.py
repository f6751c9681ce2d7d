"""The formula of each transform, from the header and the tensors of a file, for arrays of any library.

The argument `o` has the operators of an array library; no code in this module depends on a library. The operators of
PyTorch are in `operators.py`, and the operators of ONNX graphs in `headrace.onnx.operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .maps import apply_map, is_spline
from .networks import by_coordinate, knot_rows, network
from .support import has_ends, to_support
from .vectors import planar, radial

Header = Mapping[str, Any]
Tensors = Mapping[str, Any]
Pair = tuple[Any, Any]  # rows, and the log-determinant of each row, or one for all rows


def below(tensors: Tensors, prefix: str) -> dict[str, Any]:
    """The tensors whose names start with a prefix, by names without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def inner_of(header: Header, *around: str) -> tuple[Header, bool]:
    """The transform inside of all wrappers, or of wrappers of the kinds `around`; and whether wrappers invert it."""
    is_flipped = False
    while header["kind"] in (around or ("Inverse", "OnColumns")):
        is_flipped, header = is_flipped != (header["kind"] == "Inverse"), header["transform"]
    return header, is_flipped


def run(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    """Apply a transform in one direction; rows may be float64 whatever the dtype of the flow."""
    kind = header["kind"]
    if kind == "Inverse":
        return run(o, header["transform"], tensors, value, context, not to_data)
    if kind == "OnColumns":
        columns = list(header["columns"])
        rest = [c for c in range(header["features"]) if c not in set(columns)]
        moved, log_det = run(o, header["transform"], tensors, o.columns(value, columns), context, to_data)
        parts = [o.narrow(o.columns(value, rest), moved), moved] if rest else [moved]
        return o.columns(o.joined(parts), _inverse([*rest, *columns])), log_det
    if kind not in _WIDE:
        value = o.narrow(value, None)
    return KINDS[kind](o, header, tensors, value, context, to_data)


def support_at_end(chain: Sequence[Header], *, passes_permutations: bool) -> tuple[Header, list[int]] | None:
    """The `Support` that data pass first, and the indices of its columns in the data; None without a `Support`.

    Transforms without effect at the data end are skipped, and with `passes_permutations` also permutations.
    """
    columns: list[int] | None = None
    for part in reversed(chain):
        inner, is_flipped = inner_of(part, "Inverse")
        columns = list(range(inner["features"])) if columns is None else columns
        if inner["kind"] == "Support":
            if has_ends(inner):
                return None if is_flipped else (inner, columns)
        elif inner["kind"] == "Permutation" and passes_permutations:
            columns = [columns[k] for k in (inner["order"] if is_flipped else _inverse(inner["order"]))]
        elif inner["kind"] != "Standardize" or not _is_identity(inner):
            return None
    return None


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _permutation(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    order = list(header["order"])
    return o.columns(value, order if to_data else _inverse(order)), 0.0


def _is_identity(header: Header) -> bool:
    """Whether a `Standardize` is the identity."""
    return not any(header["mean"]) and all(std == 1.0 for std in header["std"])


def standardized(o: Any, mean: Any, std: Any, value: Any, to_data: bool) -> Any:
    """Standardise values, or undo it (`to_data`), in float64, so that data far from zero keep all their digits."""
    wide = o.wide(value)
    mean, std = o.wide_constant(mean, wide), o.wide_constant(std, wide)
    return wide * std + mean if to_data else (wide - mean) / std


def _standardize(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    if _is_identity(header):
        return value, 0.0
    log_det = o.log_of_numbers(header["std"])
    return standardized(o, header["mean"], header["std"], value, to_data), log_det if to_data else -log_det


def _support(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    if not has_ends(header):
        return value, 0.0
    built, logs = to_support(o, header, o.wide(value), to_data)
    narrow = o.narrow(built, None)
    return built, o.narrow(o.sum(logs), None) + o.sum(narrow - narrow)  # overflow spoils the row


def _act_norm(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    return o.affine(value, tensors["shift"], tensors["log_scale"], to_data)


def _rotation(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    return o.rotated(value, tensors["blocks"], header["blocks"], to_data), 0.0


def _linear(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    return o.linear(value, header, tensors, to_data)


def _elementwise(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    params = {name: o.param(tensor if is_spline(header) else tensor[:, 0], value) for name, tensor in tensors.items()}
    return _mapped(o, header, params, value, to_data)


def _mapped(o: Any, header: Header, params: Tensors, value: Any, to_data: bool) -> Pair:
    inverse = to_data != (header["formula"] == "to_data")
    built, log = apply_map(o, header, params, value, inverse)
    return built, o.sum(o.spoiled(log, header, params))


def _gaussianize(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    """A fixed spline of each coordinate, then a shift and a scale at the data end, in float64 as in the core."""
    steps = [_elementwise, _standardize]
    total: Any = 0.0
    for step in steps if to_data else steps[::-1]:
        value, log_det = step(o, header, tensors, o.wide(value), context, to_data)
        total = total + log_det
    return value, total


def _masked(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    n, passive = header["features"], header.get("passive")
    active = [c for c in range(n) if c not in set(passive or ())]
    condition = context if header["context"] else None

    def mapped(read: Any, side: Any) -> Pair:
        read = read if condition is None else o.joined([read, condition])
        if is_spline(header) and o.is_fixed:
            out = network(o, header, tensors, read, condition, knot_rows(header, len(active)))
            return _mapped(o, header, {"knots": o.reshaped(out, len(active), 4, header["bins"])}, side, to_data)
        parts = by_coordinate(o, header, network(o, header, tensors, read, condition), len(active))
        params = parts if is_spline(header) else {name: o.without_last(part) for name, part in parts.items()}
        return _mapped(o, header, params, side, to_data)

    if passive is not None:
        read = o.columns(value, passive)
        built, log = mapped(read, o.columns(value, active) if passive else value)
        return (o.columns(o.joined([read, built]), _inverse([*passive, *active])) if passive else built), log
    if (header["reads"] == "data") != to_data:
        return mapped(value, value)
    built, levels = value * 0.0, o.levels(header, tensors)
    for level in range(1, max(levels) + 1):  # coordinates of higher levels are still 0
        moved, log = mapped(built, value)
        built = o.settled(levels, level, moved, built)
    return built, log


def _vector(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, to_data: bool) -> Pair:
    n, is_planar = header["features"], header["kind"] == "Planar"
    sizes = {"w": n, "u": n, "b": 1} if is_planar else {"center": n, "alpha": 1, "beta": 1}
    if header["context"]:
        params = o.split(network(o, header, tensors, context, None), [*sizes.values()])
    else:
        params = [o.param(tensors[name], value) for name in sizes]
    built, log_det = (planar if is_planar else radial)(o, header, params, value, not to_data)
    return built, o.sum(log_det)


KINDS: dict[str, Callable[..., Pair]] = {
    "Permutation": _permutation,
    "Standardize": _standardize,
    "Support": _support,
    "ActNorm": _act_norm,
    "Rotation": _rotation,
    "Linear": _linear,
    "Elementwise": _elementwise,
    "Gaussianize": _gaussianize,
    "MaskedAutoregressive": _masked,
    "Coupling": _masked,
    "Planar": _vector,
    "Radial": _vector,
}
_WIDE = ("Permutation", "Standardize", "Support", "Gaussianize")  # accept float64 rows whatever the flow's dtype
