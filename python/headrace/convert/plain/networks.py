"""Networks: masked linear layers, skip connections, and contexts that join layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .maps import sizes_of
from .splines import SPLINES, unit_of

Header = Mapping[str, Any]
Tensors = Mapping[str, Any]
Rows = tuple[list[int], list[float]]  # indices of rows, where -1 means a row of zeros, and a factor for each row


def n_layers(tensors: Tensors) -> int:
    """The number of layers, of which all but the last are hidden."""
    count = 0
    while f"layers.{count}.weight" in tensors:
        count += 1
    return count


def hidden_of(header: Header, tensors: Tensors) -> Sequence[Header]:
    """The settings of each hidden layer."""
    return header.get("network") or [{"activation": header["activation"]}] * (n_layers(tensors) - 1)


def _product(o: Any, tensors: Tensors, name: str, value: Any, rows: Rows | None = None) -> Any:
    weight, mask, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.mask"), tensors[f"{name}.bias"]
    weight = weight if mask is None else o.library.where(mask, weight, 0.0)
    if rows is not None:
        weight, bias = o.scaled_rows(weight, *rows), o.scaled_rows(bias, *rows)
    return o.dense(value, weight, bias)


def network(o: Any, header: Header, tensors: Tensors, value: Any, context: Any, rows: Rows | None = None) -> Any:
    """A network's outputs. `value`: the columns that the first layer reads; `rows`: rows of the last layer."""
    sums: list[Any] = []
    for i, layer in enumerate(hidden_of(header, tensors)):
        total = _product(o, tensors, f"layers.{i}", value)
        if (join := layer.get("context")) is not None:
            of_context = _product(o, tensors, f"layers.{i}.context", context)
            joined = o.activation(layer["context_activation"], of_context)
            total = total * joined if join == "gate" else total + joined
        if (adds := layer.get("adds")) is not None:
            total = total + sums[adds]
        sums.append(total)
        value = o.activation(layer["activation"], total)
    return _product(o, tensors, f"layers.{n_layers(tensors) - 1}", value, rows)


def by_coordinate(o: Any, header: Header, out: Any, active: int) -> dict[str, Any]:
    """Outputs, (..., rows), as an array (..., active, size) for each named parameter of a map."""
    sizes = sizes_of(header)
    if header["layout"] == "interleaved":
        parts = o.split(o.reshaped(out, active, sum(sizes.values())), [*sizes.values()])
    else:
        blocks = o.split(out, [active * size for size in sizes.values()])
        parts = [o.reshaped(part, active, size) for part, size in zip(blocks, sizes.values(), strict=True)]
    return dict(zip(sizes, parts, strict=True))


def rows_of(header: Header, active: int) -> dict[str, list[list[int]]]:
    """The rows of the last layer for each named parameter and each coordinate."""
    sizes = sizes_of(header)
    total, start, rows = sum(sizes.values()), 0, {}
    for name, size in sizes.items():
        first, step = (start, total) if header["layout"] == "interleaved" else (active * start, size)
        rows[name] = [[first + i * step + k for k in range(size)] for i in range(active)]
        start += size
    return rows


def knot_rows(header: Header, active: int) -> Rows:
    """The rows of the last layer whose outputs are the values of `splines.knots_of`, one coordinate after another."""
    names, ends, indices = rows_of(header, active), SPLINES[header["map"]].ends, []
    for width, height, raw in zip(names["width"], names["height"], names["derivative"], strict=True):
        if ends == "one":
            lower, upper = [-1, *raw], [*raw, -1]
        elif ends in ("free", "halved"):
            lower, upper = raw[:-1], raw[1:]
        else:
            lower, upper = raw, [*raw[1:], raw[0]]
        indices += [*width, *height, *lower, *upper]
    return indices, [unit for _ in range(active) for unit in unit_of(header) for _ in range(header["bins"])]


def reads_of(eye: Any, header: Header, tensors: Tensors) -> list[set[int]]:
    """For each coordinate the columns of the first layer on which the map's parameters depend, from masks."""
    hidden, seen = hidden_of(header, tensors), eye(tensors["layers.0.weight"].shape[1]) > 0
    reached: list[Any] = []
    for i in range(n_layers(tensors)):
        seen = (tensors[f"layers.{i}.mask"] * 1.0) @ (seen * 1.0) > 0
        if i < len(hidden) and (adds := hidden[i].get("adds")) is not None:
            seen = seen | reached[adds]
        reached.append(seen)
    columns = [{c for c, is_read in enumerate(row) if is_read} for row in seen.tolist()]
    n = header["features"]
    by_name = rows_of(header, n).values()
    return [set().union(*(columns[row] for rows in by_name for row in rows[i])) for i in range(n)]


def levels_of(eye: Any, header: Header, tensors: Tensors) -> list[int]:
    """The number of passes after which each coordinate is final: 1 for a coordinate that depends on no other."""
    n, reads = header["features"], reads_of(eye, header, tensors)
    levels = [1] * n
    for _ in range(n):
        before, levels = levels, [1 + max((levels[c] for c in reads[i] if c < n), default=0) for i in range(n)]
        if before == levels:
            break
    return levels
