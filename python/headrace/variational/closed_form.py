"""KL between two affine autoregressive flows with the same order of coordinates, in closed form for each coordinate.

The student draws x_i = μ_i + σ_i z_i and the teacher has x_i ~ N(m_i, t_i²), conditional on the coordinates before i.
In the teacher's latent space u_i = a_i + b_i z_i with a_i = (μ_i - m_i) / t_i and b_i = σ_i / t_i, functions of the
coordinates before i. With normal bases the conditional KL of a coordinate is ½(a² + b² - 1) - log b, and by the chain
rule the mean of the sum over all coordinates is the KL of the flows. Unlike an average of ½u² over samples, the terms
have no noise from z_i.

A chain of links leads from z to u: the student's transforms forward, then the teacher's inverted. The network of a link
reads the input of the link, and its outputs are the coefficients of an affine map. Networks are computed in the
student's precision, everything else in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import ops
from headrace._base.types import Floats
from headrace._core.device import BF16_KINDS
from headrace._flow.bases import Normal, StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace.variational.descent import DescentPlan, Rng, StepOutcome, noise_of, seed_of
from headrace.variational.target import Contexts

Draw = Callable[[int], "tuple[Floats, NDArray[Any] | None]"]


def why_not(teacher: Flow, student: Flow) -> str:
    """The reason why two flows have no KL in closed form; "" if there is a closed form."""
    n = student.features
    reads = np.zeros((n, n))  # whether a coordinate depends on another coordinate in any transform
    for name, flow, side in (("teacher", teacher, "data"), ("student", student, "latent")):
        interior = flow._interior
        if flow.matmul in BF16_KINDS:
            return f"the {name}'s products are in bf16"  # this module copies networks without bf16
        if not isinstance(interior.base, (StandardNormal, Normal)):
            return f"the {name}'s base {interior.base!r} is not normal"
        for t in interior.chain:
            if isinstance(t, Standardize):
                continue
            if not isinstance(t, MaskedAutoregressive) or t._settings.map not in ("affine", "additive"):
                return f"the {name}'s {t!r} is not affine autoregressive"
            if t._settings.reads != side:
                return f"a transform of the {name} reads {t._settings.reads}, not {side}"
            reads += _dependence(t)
    base = student._interior.base
    if isinstance(base, Normal) and base.trainable:
        return "the student's base is trained"
    for _ in range(n):  # a coordinate that depends on no remaining coordinate is next in the common order
        free = ~reads.any(axis=1)
        reads[:, free] = 0.0
    if reads.any():
        return "the transforms have no order of the coordinates in common"
    return ""


def _dependence(t: MaskedAutoregressive) -> Floats:
    """Whether coordinate i's parameters depend on coordinate j, as 0 or 1, shape (features, features)."""
    masks = t._network.core.masks()
    reach = np.eye(masks[0].shape[1])[:, : t.features]
    for mask in masks:
        reach = (mask @ reach > 0).astype(np.float64)
    return np.asarray(reach.reshape(t.features, -1, t.features).max(axis=1))


class _Fixed:
    """A link h' = A + B h, coordinate by coordinate, with constant coefficients A and B."""

    def __init__(self, shift: Floats, scale: Floats) -> None:
        self.shift, self.scale = shift, scale

    def forth(self, h: Floats, context: Floats | None) -> tuple[Floats, Floats]:
        """The values h' and log B of the link."""
        return self.shift + self.scale * h, np.broadcast_to(np.log(self.scale), h.shape)

    def back(self, by_h: Floats, by_log_b: Floats) -> tuple[Floats, NDArray[Any] | None]:
        """The gradient with respect to h, and None, because a fixed link has no parameters."""
        return by_h * self.scale, None


class _Conditional:
    """A link h' = A + B h, where A and B are computed from outputs of a masked network."""

    def __init__(self, t: MaskedAutoregressive, dtype: np.dtype[Any], *, forward: bool) -> None:
        s, self.core, n = t._settings, t._network.core, t.features
        self.dtype = dtype
        self.of_map, self.trained = s.map_keywords(), forward
        self.direction = "forward" if forward == (s.formula == "to_data") else "inverse"
        tensors, network = self.core.unpack(t.astype(dtype).parameters), t.network
        layers = list(zip(tensors[::2], tensors[1::2], strict=True))
        joined, own = layers[: len(network.joined)], layers[len(network.joined) :]
        self.network = Coupling.from_dense(
            [w for w, _ in own],
            [b for _, b in own],
            self.core.masks(),
            features=n + n * s.n_params,
            passive=range(n),
            network=network,
            context_weights=[w for w, _ in joined],
            context_biases=[b for _, b in joined],
            map="additive",
            context=s.context,
        )
        self.reads_context = s.context > 0

    def assign(self, packed: NDArray[Any]) -> None:
        """Replace the weights by packed weights in the layout of the transform's parameters."""
        self.network.parameters = self.network._network.core.pack(self.core.unpack(packed))

    def forth(self, h: Floats, context: Floats | None) -> tuple[Floats, Floats]:
        rows, n = h.shape
        self.given = np.zeros((rows, self.network.features), self.dtype)
        self.given[:, :n] = h
        self.context = context if self.reads_context else None
        outputs, _ = self.network.forward(self.given, self.context)
        self.elements = self.given[:, :n].reshape(-1, 1)
        self.params = outputs[:, n:].reshape(h.size, 1, -1)
        value, log_b = ops.coupling(self.elements, self.params, direction=self.direction, **self.of_map)
        return value.reshape(h.shape).astype(np.float64), log_b.reshape(h.shape).astype(np.float64)

    def back(self, by_h: Floats, by_log_b: Floats) -> tuple[Floats, NDArray[Any] | None]:
        rows, n = by_h.shape
        by_value, by_log_det = by_h.astype(self.dtype).reshape(-1, 1), by_log_b.astype(self.dtype).reshape(-1)
        own, by_params = ops.coupling_vjp(
            self.elements, self.params, by_value, by_log_det, direction=self.direction, **self.of_map
        )
        cotangent = np.zeros_like(self.given)
        cotangent[:, n:] = by_params.reshape(rows, -1)
        wrt = ("inputs", "parameters") if self.trained else ("inputs",)
        by_given, *by_weights = self.network.forward_vjp(self.given, cotangent, None, self.context, wrt=wrt)
        packed = None
        if self.trained:
            packed = self.core.pack(self.network._network.core.unpack(by_weights[0]))
        return own.reshape(rows, n).astype(np.float64) + by_given[:, :n], packed


_Link = _Fixed | _Conditional


class ConditionalStep:
    """The gradient of the KL between the coordinates' conditional densities, in closed form."""

    def __init__(self, teacher: Flow, student: Flow, draw: Draw, plan: DescentPlan) -> None:
        """Prepare flows that `why_not` accepts; `draw` returns rows of z and their context."""
        self.student, self.draw, self.plan = student, draw, plan
        self.scales = [flow.standardize_context for flow in (student, teacher)]
        dtype = student.dtype
        self.own = [*_of_base(student, forward=True), *(_link(t, dtype, forward=True) for t in student.transforms)]
        theirs = [_link(t, dtype, forward=False) for t in reversed(teacher.transforms)]
        self.theirs = [*theirs, *_of_base(teacher, forward=False)]

    def __call__(self, number: int, beta: float) -> StepOutcome:
        """The gradient of the KL at one step."""
        rows = self.plan.samples
        z, context = self.draw(rows)
        kl = self.kl(z, context, self.student.parameters)
        good = np.isfinite(kl)
        skipped = rows - int(np.count_nonzero(good))
        if skipped > math.floor(self.plan.skip * rows):
            return StepOutcome(np.empty(0), skipped, None)
        if skipped:
            context = context[good] if context is not None and len(context) == rows > 1 else context
            kl = self.kl(z[good], context, self.student.parameters)
        return StepOutcome(kl, skipped, self._back(beta))

    def kl(self, z: Floats, context: NDArray[Any] | None, parameters: NDArray[Any]) -> Floats:
        """The KL of each row: the sum over the coordinates' conditional densities."""
        start = 0
        for link in self.own:
            if isinstance(link, _Conditional):
                link.assign(parameters[start : start + link.core.n_weights])
                start += link.core.n_weights
        h, log_b = z, np.zeros_like(z)
        for links, scale in zip((self.own, self.theirs), self.scales, strict=True):
            columns = None if context is None else context.astype(np.float64)
            if columns is not None and scale is not None:
                columns = (columns - scale[0]) / scale[1]
            for link in links:
                h, more = link.forth(h, columns)
                log_b = log_b + more
        self.z, self.b = z, np.exp(log_b)
        self.a = h - self.b * z
        return np.asarray((0.5 * (self.a * self.a + self.b * self.b - 1.0) - log_b).sum(axis=1))

    def _back(self, beta: float) -> NDArray[Any]:
        """The gradient, by the student's parameters, of the mean of ½β(a² + b²) - log σ + β log t, where b = σ / t."""
        share = 1.0 / max(len(self.z), 1)
        by_h = beta * share * self.a
        by_log_b = beta * share * self.b * (self.b - self.a * self.z)
        for link in reversed(self.theirs):
            by_h, _ = link.back(by_h, by_log_b - beta * share)
        parts = []
        for link in reversed(self.own):
            by_h, packed = link.back(by_h, by_log_b - share)
            if packed is not None:
                parts.append(packed)
        return np.concatenate([np.empty(0), *reversed(parts)]).astype(self.student.dtype)


def draw_of(flow: Flow, contexts: Contexts, rng: Rng) -> Draw:
    """A function that draws noise of a flow, in float64, and a context for the noise."""

    def draw(rows: int) -> tuple[Floats, NDArray[Any] | None]:
        return noise_of(flow, rows, seed_of(rng)).astype(np.float64), contexts(rows, rng)

    return draw


def _of_base(flow: Flow, *, forward: bool) -> list[_Link]:
    base = flow.base
    if not isinstance(base, Normal):
        return []
    return [_Fixed(base.loc, base.scale) if forward else _Fixed(-base.loc / base.scale, 1.0 / base.scale)]


def _link(t: Any, dtype: np.dtype[Any], *, forward: bool) -> _Link:
    if isinstance(t, Standardize):
        return _Fixed(t.mean, t.std) if forward else _Fixed(-t.mean / t.std, 1.0 / t.std)
    return _Conditional(t, dtype, forward=forward)
