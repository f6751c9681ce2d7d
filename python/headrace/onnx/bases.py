"""Log densities of bases as parts of a graph; what depends on their parameters alone is computed when exporting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from headrace.onnx.chain import Chain, Header
from headrace.onnx.graph import Value, concatenate, where

__all__ = ["base_log_prob"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_INFINITE = float("-inf")

Floats = NDArray[np.float64]


def base_log_prob(base: Header, chain: Chain) -> Value:
    """Of the rows at the chain's latent end, shape (rows,)."""
    kind = base["kind"]
    if kind not in _BASES:
        raise ValueError(f"base: expected a base that ONNX export knows, got a {kind}")
    return _BASES[kind](base, chain)


# ---- columns ---------------------------------------------------------------------------------------------------------


def _normal(z: Value) -> Value:
    return z * z * -0.5 - _HALF_LOG_TWO_PI


def _logistic(z: Value) -> Value:
    size = abs(z)
    tails: Value = -size - 2.0 * (1.0 + (-size).exp()).log()
    return tails


def _uniform(z: Value) -> Value:
    return where(abs(z) > 1.0, _INFINITE, z * 0.0 - math.log(2.0))


_COLUMNS: Mapping[str, Callable[[Value], Value]] = {"normal": _normal, "logistic": _logistic, "uniform": _uniform}


def _independent(base: Header, chain: Chain) -> Value:
    names = base["densities"]
    parts = []
    for name in dict.fromkeys(names):
        columns = [c for c, own in enumerate(names) if own == name]
        parts.append(_COLUMNS[name](chain.value.columns(columns)))
    return concatenate(parts).sum()


def _scaled(base: Header, chain: Chain) -> Value:
    """`Normal`."""
    before = chain.log_det
    if base["trainable"]:
        chain.affine(chain.arrays["base.loc"], chain.arrays["base.log_scale"], False)
        chain.value = chain.value + (chain.value - chain.value)  # a step as others: what overflows is NaN
    else:
        chain.affine(np.array(base["loc"]), np.log(base["scale"]), False)
    total: Value = _normal(chain.value).sum() + (chain.log_det - before)
    return total


# ---- Student's t -----------------------------------------------------------------------------------------------------


def student_constant(df: Floats) -> Floats:
    """log Γ((ν + 1)/2) − log Γ(ν/2) − log(ν π)/2, for every ν > 0, as the core has it (cpp/math/density.hpp)."""
    x = 0.5 * df
    shift = np.ceil(np.maximum(16.0 - x, 0.0))
    product = np.ones_like(x)
    for k in range(16):  # Γ(x + 1) = x Γ(x)
        product *= np.where(k < shift, (x + k) / (x + k + 0.5), 1.0)
    t = 1.0 / (x + shift)
    series = np.polynomial.polynomial.polyval(t * t, _SERIES) * t
    constant: Floats = series + np.log(product) + 0.5 * np.log((x + shift) / x) - _HALF_LOG_TWO_PI
    return constant


_SERIES = [-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984]


def _student(base: Header, chain: Chain) -> Value:
    """In float64: log(1 + z²/ν) is multiplied by (ν + 1)/2, which may be large."""
    if base["trainable"]:
        df = np.exp(chain.arrays["base.log_df"].astype(np.float64))
    else:
        df = np.array(base["df"], np.float64)
    graph = chain.graph

    def numbers(array: Any) -> Value:
        return graph.constant(array, np.float64)

    a = (abs(chain.value) * (1.0 / np.sqrt(df))).cast(TensorProto.DOUBLE)  # what overflows is infinitely unlikely
    square, one = a * a, numbers(1.0)
    above = square + one
    lost = above - one  # of the square, what the sum kept
    exact = above.log() * where(lost > numbers(0.0), square / where(lost > numbers(0.0), lost, one), one)
    logs = where(above > one, where(a > numbers(1e8), a.log() * numbers(2.0), exact), square)
    total = (numbers(student_constant(df)) - logs * numbers(0.5 * (df + 1.0))).sum()
    return total.cast(TensorProto.FLOAT)


# ---- a mixture -------------------------------------------------------------------------------------------------------


def _mixture(base: Header, chain: Chain) -> Value:
    if base["trainable"]:
        logits, loc, log_scale = (
            chain.arrays[f"base.{name}"].astype(np.float64) for name in ("logits", "loc", "log_scale")
        )
    else:
        with np.errstate(divide="ignore"):
            logits = np.log(np.array(base["weights"], np.float64))
        loc, log_scale = np.array(base["loc"], np.float64), np.log(base["scale"])
    logits = logits - logits.max()
    log_weights = logits - np.log(np.exp(logits).sum())
    kept = np.exp(log_weights).astype(np.float32) > 0  # a component of weight 0 takes no part
    loc, log_scale = loc[kept], log_scale[kept]
    constants = log_weights[kept] - _HALF_LOG_TWO_PI * base["features"] - log_scale.sum(axis=1)
    rows = chain.value.reshape(1, base["features"])
    u = (rows - loc[None]) * np.exp(-log_scale)[None]
    terms = (u * u).sum() * -0.5 + constants
    top = terms.max()
    top = where(top < float(np.finfo(np.float32).min), 0.0, top)  # all are infinitely unlikely
    total: Value = ((terms - top).exp().sum(keep=True).log() + top).sum()
    return total


_BASES: Mapping[str, Callable[[Header, Chain], Value]] = {
    "StandardNormal": lambda base, chain: _normal(chain.value).sum(),
    "Logistic": lambda base, chain: _logistic(chain.value).sum(),
    "Uniform": lambda base, chain: _uniform(chain.value).sum(),
    "Normal": _scaled,
    "Independent": _independent,
    "StudentT": _student,
    "NormalMixture": _mixture,
}
