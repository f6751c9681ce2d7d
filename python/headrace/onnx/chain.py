"""Each transform as a part of a graph, from what its file says of it (docs/files.md): a header, and arrays by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from headrace._core.maps import MAPS, VECTOR_MAPS
from headrace.onnx.conditioner import Arrays, network, reads_coordinates
from headrace.onnx.graph import Graph, Value, concatenate
from headrace.onnx.maps import apply_map
from headrace.onnx.support import from_support, to_support
from headrace.onnx.vectors import planar, radial

__all__ = ["Chain", "Header"]

Header = Mapping[str, Any]
Rows = list[int]


class Chain:
    """A row on its way through the transforms: its coordinates, and the logarithm of the determinant so far."""

    def __init__(self, graph: Graph, value: Value, context: Value | None, arrays: Arrays, verb: str) -> None:
        """At its start; `value` are rows of float32."""
        self.graph, self.value, self.context, self.arrays, self.verb = graph, value, context, arrays, verb
        self.logs: list[Value] = []  # one number a row each
        self.log_det = 0.0  # what is the same for all rows
        self._exact: tuple[Value, Value] | None = None  # a value that was narrowed last, and what it was before

    def run(self, header: Header, prefix: str, to_data: bool, place: str) -> None:
        """One transform, in one direction."""
        kind = header["kind"]
        if kind == "Inverse":
            self.run(header["transform"], prefix, not to_data, place)
        elif kind == "OnColumns":
            self._on_columns(header, prefix, to_data, place)
        elif kind in ("MaskedAutoregressive", "Coupling"):
            self._masked(header, prefix, to_data, place)
        elif kind in _STEPS:
            _STEPS[kind](self, header, prefix, to_data)
        else:
            raise ValueError(f"{place}: expected a transform that ONNX export knows, got a {kind}")

    def _scale(self, log_det: float, to_data: bool) -> None:
        self.log_det += log_det if to_data else -log_det

    def _on_columns(self, header: Header, prefix: str, to_data: bool, place: str) -> None:
        columns = list(header["columns"])
        rest = [c for c in range(header["features"]) if c not in set(columns)]
        others = self.value.columns(rest) if rest else None
        self.value = self.value.columns(columns)
        self.run(header["transform"], prefix, to_data, place)
        parts = [self.value] if others is None else [others, self.value]
        self.value = concatenate(parts).columns(np.argsort([*rest, *columns]).tolist())

    def _permutation(self, header: Header, prefix: str, to_data: bool) -> None:
        order = header["order"]
        self.value = self.value.columns(order if to_data else np.argsort(order).tolist())

    def _wide(self) -> Value:
        """The coordinates in float64, as they were before the last step narrowed them if that had them so."""
        if self._exact is not None and self._exact[0] is self.value:
            return self._exact[1]
        return self.value.cast(TensorProto.DOUBLE)

    def _narrow(self, wide: Value) -> None:
        self.value = wide.cast(TensorProto.FLOAT)
        self._exact = self.value, wide

    def standardize(self, mean: Any, std: Any, to_data: bool) -> None:
        """In float64, so that data far from zero lose nothing but what their own float32 had lost."""
        mean, std = (self.graph.constant(np.asarray(a, np.float64), np.float64) for a in (mean, std))
        wide = self._wide()
        wide = wide.apply("Mul", std).apply("Add", mean) if to_data else wide.apply("Sub", mean).apply("Div", std)
        self._narrow(wide)

    def _support(self, header: Header, prefix: str, to_data: bool) -> None:
        wide, logs = (to_support if to_data else from_support)(header, self._wide())
        self._narrow(wide)
        if logs is not None:
            self.logs.append(logs.sum().cast(TensorProto.FLOAT))
            self.logs.append((self.value - self.value).sum())  # what overflows spoils the row

    def _standardize(self, header: Header, prefix: str, to_data: bool) -> None:
        mean, std = np.array(header["mean"]), np.array(header["std"])
        if mean.any() or (std != 1.0).any():
            self.standardize(mean, std, to_data)
            self._scale(float(np.log(std).sum()), to_data)

    def _act_norm(self, header: Header, prefix: str, to_data: bool) -> None:
        self.affine(self.arrays[prefix + "shift"], self.arrays[prefix + "log_scale"], to_data)

    def affine(self, shift: NDArray[Any], log_scale: NDArray[Any], to_data: bool) -> None:
        """x = shift + e^log_scale · z."""
        log_scale = log_scale.astype(np.float64)
        scale = np.exp(log_scale if to_data else -log_scale)
        self.value = self.value * scale + shift if to_data else (self.value - shift) * scale
        self._scale(float(log_scale.sum()), to_data)

    def _rotation(self, header: Header, prefix: str, to_data: bool) -> None:
        numbers, n, start, at = self.arrays[prefix + "blocks"], header["features"], 0, 0
        matrix = np.zeros((n, n))
        for size in header["blocks"]:
            matrix[at : at + size, at : at + size] = numbers[start : start + size * size].reshape(size, size)
            start, at = start + size * size, at + size
        self._product(matrix if to_data else matrix.T, np.zeros(n))

    def _linear(self, header: Header, prefix: str, to_data: bool) -> None:
        upper, lower, log_diagonal, shift = (
            self.arrays[prefix + name].astype(np.float64) for name in ("upper", "lower", "log_diagonal", "shift")
        )
        one, order, signs = np.eye(len(shift)), list(header["order"]), np.array(header["signs"])
        factors = np.tril(lower, -1) + one, np.exp(log_diagonal)[:, None] * (np.triu(upper, 1) + one)
        matrix = signs[:, None] * (factors[0] @ factors[1])[order]
        self._scale(float(log_diagonal.sum()), to_data)
        if to_data:
            self._product(matrix, shift)
        else:  # subtracted first, as the triangular solutions of the core do
            self.value = self.value - shift
            self._product(np.linalg.inv(matrix), np.zeros(len(shift)))

    def _product(self, matrix: NDArray[Any], bias: NDArray[Any]) -> None:
        self.value = self.value.dense(matrix, bias)

    def _elementwise(self, header: Header, prefix: str, to_data: bool) -> None:
        self.value, logs = self._map_of_columns(header, prefix, to_data, self.value)
        self.logs.append(logs)

    def _map_of_columns(self, header: Header, prefix: str, to_data: bool, value: Value) -> tuple[Value, Value]:
        """A map of each column by parameters of its own, and the sum of the logarithms of its derivatives."""
        groups = MAPS[header["map"]].groups(header["bins"])
        params = {}
        for name in groups:
            table = self.arrays[prefix + name]
            params[name] = self.graph.constant(table[None] if _is_spline(header) else table[None, :, 0])
        built, logs = apply_map(header, params, value, to_data != (header["formula"] == "to_data"))
        return built, logs.sum()

    def _curves(self, header: Header, prefix: str, to_data: bool) -> None:
        """The splines of a `Gaussianize`, in float64 as in the core: knots of heavy tails lie far apart."""
        with self.graph.in_float64():
            wide, logs = self._map_of_columns(header, prefix, to_data, self._wide())
        self._narrow(wide)
        self.logs.append(logs.cast(TensorProto.FLOAT))

    def _gaussianize(self, header: Header, prefix: str, to_data: bool) -> None:
        steps = [self._curves, self._standardize]
        for step in steps if to_data else steps[::-1]:
            step(header, prefix, to_data)

    def _masked(self, header: Header, prefix: str, to_data: bool, place: str) -> None:
        n, is_coupling = header["features"], header["kind"] == "Coupling"
        reads = header["passive"] if is_coupling else list(range(n))
        active = [c for c in range(n) if c not in set(reads)] if is_coupling else list(range(n))
        reads_built = not is_coupling and (header["reads"] == "data") == to_data
        if reads_built and reads_coordinates(header, self.arrays, prefix, n):
            self._refuse(header, place)
        inputs = [self.value.columns(reads)] if is_coupling else [self.value]
        context = self.context if header["context"] else None
        if context is not None:
            inputs.append(context)
        rows = _rows_of(header, len(active))
        out = network(header, self.arrays, prefix, concatenate(inputs), context, [r for part in rows for r in part])
        parts = out.split([len(part) for part in rows])
        groups = MAPS[header["map"]].groups(header["bins"])
        shaped = [
            part.reshape(len(active), size) if _is_spline(header) else part
            for part, size in zip(parts, groups.values(), strict=True)
        ]
        inverse = to_data != (header["formula"] == "to_data")
        given = self.value.columns(active) if is_coupling else self.value
        built, logs = apply_map(header, dict(zip(groups, shaped, strict=True)), given, inverse)
        self.logs.append(logs.sum())
        self.value = built
        if reads and is_coupling:
            where = np.argsort([*reads, *active]).tolist()
            self.value = concatenate([inputs[0], built]).columns(where)

    def _refuse(self, header: Header, place: str) -> None:
        side = "to_data" if header["reads"] == "data" else "to_latent"
        others = "log_prob or to_latent" if side == "to_data" else "to_data"
        raise ValueError(
            f"verb: expected a parallel direction, got {self.verb!r}, for which {place} (MaskedAutoregressive, "
            f"reads={header['reads']!r}) builds one coordinate after another. Export {others}, or a flow that is "
            "parallel that way (couplings are both ways; hr.distill makes one of another); headrace.hpp computes all"
        )

    def _vector(self, header: Header, prefix: str, to_data: bool) -> None:
        groups = VECTOR_MAPS[header["kind"].lower()].groups(header["features"])
        if header["context"]:
            assert self.context is not None
            rows = range(sum(groups.values()))
            params = network(header, self.arrays, prefix, self.context, None, rows)
        else:
            params = self.graph.constant(np.concatenate([self.arrays[prefix + name] for name in groups])[None])
        apply = planar if header["kind"] == "Planar" else radial
        self.value, log_det = apply(header, params, self.value, not to_data)
        self.logs.append(log_det.sum())


_STEPS: dict[str, Callable[[Chain, Header, str, bool], None]] = {
    "Permutation": Chain._permutation,
    "Standardize": Chain._standardize,
    "Support": Chain._support,
    "ActNorm": Chain._act_norm,
    "Rotation": Chain._rotation,
    "Linear": Chain._linear,
    "Elementwise": Chain._elementwise,
    "Gaussianize": Chain._gaussianize,
    "Planar": Chain._vector,
    "Radial": Chain._vector,
}


def _is_spline(header: Header) -> bool:
    return str(header["map"]).startswith("rq_spline")


def _rows_of(header: Header, active: int) -> list[Rows]:
    """For each parameter of the map, in the map's order, the last layer's rows: coordinate by coordinate."""
    groups = MAPS[header["map"]].groups(header["bins"])
    total, start, starts = sum(groups.values()), 0, {}
    for name in header["outputs"]:
        starts[name] = start
        start += groups[name]
    if header["layout"] == "interleaved":
        return [[k * total + starts[name] + i for k in range(active) for i in range(n)] for name, n in groups.items()]
    return [[active * starts[name] + k * n + i for k in range(active) for i in range(n)] for name, n in groups.items()]
