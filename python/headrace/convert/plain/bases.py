"""Log densities of bases, at the latent end of a flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)

COLUMNS: dict[str, Callable[[Any, Any], Any]] = {
    "normal": lambda o, z: z * z * -0.5 - _HALF_LOG_TWO_PI,
    "logistic": lambda o, z: -abs(z) - 2.0 * o.log1p((-abs(z)).exp()),
    "uniform": lambda o, z: o.where(abs(z) > 1.0, -math.inf, (z - z) - math.log(2.0)),
}
NAMES = {"StandardNormal": "normal", "Logistic": "logistic", "Uniform": "uniform"}
KINDS = (*NAMES, "Normal", "Independent", "StudentT", "NormalMixture")


def log_prob(o: Any, header: Mapping[str, Any], tensors: Mapping[str, Any], z: Any) -> Any:
    """Log density of latent rows, shape (...)."""
    kind = header["kind"]
    if kind == "Independent":
        names, parts = header["densities"], []
        for name in dict.fromkeys(names):
            parts.append(COLUMNS[name](o, o.columns(z, [c for c, density in enumerate(names) if density == name])))
        return o.sum(o.joined(parts))
    if kind == "StudentT":
        df, constant = o.student(header, tensors, z)
        return _student(o, df, constant, z)
    if kind == "NormalMixture":
        loc, log_scale = o.location(header, tensors, z)
        u = (o.rows_of_components(z) - loc) * o.exp(-log_scale)
        constants = o.log_weights(header, tensors, z) - log_scale.sum(-1) - _HALF_LOG_TWO_PI * header["features"]
        return o.logsumexp(o.sum(u * u) * -0.5 + constants)
    if kind == "Normal":
        u, log_det = o.affine(z, *o.location(header, tensors, z), False)
        if header["trainable"]:
            u = u + (u - u)  # NaN for an overflow, as in other steps
        return o.sum(COLUMNS["normal"](o, u)) + log_det
    return o.sum(COLUMNS[NAMES[kind]](o, z))


def _student(o: Any, df: Any, constant: Any, z: Any) -> Any:
    """The log density of Student's t; in float64, because the factor (ν + 1)/2 of log(1 + z²/ν) may be large."""
    a = o.wide(abs(z) * (1.0 / o.sqrt(df)))  # rows that overflow have the log density -inf
    near = o.lowest(a, 1e8)
    logs = o.where(a > 1e8, 2.0 * o.highest(a, 1.0).log(), o.log1p(near * near))
    return o.narrow(o.sum(constant - 0.5 * (df + 1.0) * logs), z)
