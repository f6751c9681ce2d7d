"""`headrace.jax.stack`: several flows, each with its own rows, in one call for each structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax import numpy as jnp

from headrace import Flow, files
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._flow.flow_errors import no_flow
from headrace.jax._calls import structure_of
from headrace.transforms import Gaussianize, Linear, Permutation, Rotation, Standardize, Support, Transform

_AFFINE = (Linear, Permutation, Rotation, Standardize)


class _Parts:
    """A flow's parts from the data end: affine maps and fixed curves in turn, then a flow with the parameters."""

    def __init__(self, flow: Flow) -> None:
        chain = list(flow.transforms)
        affine: list[list[Transform]] = [[]]
        self.curves: list[Flow] = []
        self.ends = chain[-1]._ends() if chain and isinstance(chain[-1], Support) else None
        while len(chain) > 1 and not Flow(chain[-1:]).n_parameters:
            link = chain[-1]
            if isinstance(link, _AFFINE):
                affine[-1].insert(0, link)
            elif isinstance(link, Gaussianize) or (link is flow.transforms[-1] and self.ends is not None):
                curve, *before = link.trained(flow.dtype) if isinstance(link, Gaussianize) else (link,)
                self.curves.append(Flow([curve]).astype(str(flow.dtype)))
                affine[-1][:0] = before
                affine.append([])
            else:
                break
            chain.pop()
        self.affine = [_affine(flow.features, maps) for maps in affine]
        self.core = Flow(chain, flow.base).astype(str(flow.dtype))
        self.scale = flow.standardize_context or (np.zeros(flow.context), np.ones(flow.context))
        self.key = tuple(files.structure_checksum(one) for one in (self.core, *self.curves))


def _affine(n: int, maps: list[Transform]) -> tuple[Any, Any, Any]:
    """The shift, inverse and log-determinant of maps from data to latent, y = inverse @ (x - shift); float64."""
    if not maps:
        return np.zeros(n), np.eye(n), np.zeros(())
    points = np.vstack([np.zeros(n), np.eye(n)])
    shift, *images = np.asarray(Flow(maps).astype("float64").to_data(points)[0])
    inverse = np.linalg.inv((np.array(images) - shift).T)
    return shift, inverse, np.linalg.slogdet(inverse)[1]


class _Group:
    """Flows of one structure: their indices, their common parts, and the fixed parts of each flow."""

    def __init__(self, indices: Sequence[int], parts: Sequence[_Parts]) -> None:
        first = parts[0]
        self.indices = np.array(indices)
        self.params = jnp.asarray(np.stack([one.core.parameters for one in parts]))
        self.structure, self.curves = structure_of(first.core), [structure_of(curve) for curve in first.curves]
        self.ends = first.ends if first.curves else None  # the bounds, outside of which rows have no latent value
        of_each = [(one.affine, [curve.parameters for curve in one.curves], one.scale) for one in parts]
        self.fixed = jax.tree.map(lambda *a: np.stack(a).astype(first.core.dtype), *of_each)


def stack(flows: Sequence[Flow]) -> Stack:
    """A pytree of several flows, whose calls take rows for each flow, for example one flow for each event.

    Flows that differ only in parameters and in settings of `fit` at the data end (standardisation, rotations,
    curves of a `Gaussianize`, the scale of the context) form one group: one call of the core, and one leaf. Other
    flows, such as flows with and without a `Gaussianize`, with other networks or with fixed mixtures as bases, are in
    separate groups. A stack is compiled once, for any number of flows.

    Args:
        flows: At least one flow, on the CPU; all have the same features, context and dtype.

    Raises:
        TypeError: the argument is no sequence of flows.
        ValueError: flows differ in features, context or dtype; the message has the index of the first flow that
            differs.

    >>> import jax, headrace as hr, headrace.jax
    >>> events = headrace.jax.stack([hr.MAF(3, seed=i) for i in range(4)])
    >>> rows = jax.numpy.zeros((4, 10, 3))  # ten of each event
    >>> jax.jit(lambda s, x: s.log_prob(x))(events, rows).shape
    (4, 10)
    """
    if isinstance(flows, (Flow, str)) or not isinstance(flows, Sequence) or not flows:
        raise TypeError(f"flows: expected a sequence of flows, got {check.kind_of(flows)}")
    for i, flow in enumerate(flows):
        if not isinstance(flow, Flow):
            raise no_flow("a sequence of flows", flow)
        for name in ("features", "context", "dtype"):
            expected, given = getattr(flows[0], name), getattr(flow, name)
            if given != expected:
                raise ValueError(f"flows[{i}]: expected {name} {expected}, as flows[0] has, got {given}")
    parts = [_Parts(flow) for flow in flows]
    indices: dict[Any, list[int]] = {}
    for i, one in enumerate(parts):
        indices.setdefault(one.key, []).append(i)
    groups = tuple(_Group(own, [parts[i] for i in own]) for own in indices.values())
    return Stack(tuple(group.params for group in groups), groups)


@jax.tree_util.register_pytree_node_class
class Stack:
    """Several flows as one pytree; `headrace.jax.stack` makes it.

    Attributes:
        params: The leaves, a tuple of one array of shape (flows of the group, n) for each group.
        indices: The indices of the flows of each group, a tuple of arrays.
    """

    # The functions `log_prob` and `to_latent` of `headrace.jax` for one flow, which are defined later.
    _log_prob: ClassVar[Callable[..., Any]]
    _to_latent: ClassVar[Callable[..., Any]]

    def __init__(self, params: tuple[Any, ...], groups: tuple[_Group, ...]) -> None:
        self.params, self._groups = params, groups
        self.indices = tuple(group.indices for group in groups)

    def __len__(self) -> int:
        """The number of flows."""
        return sum(map(len, self.indices))

    def tree_flatten(self) -> tuple[Any, Any]:
        """The leaves, and the static groups."""
        return self.params, self._groups

    @classmethod
    def tree_unflatten(cls, groups: Any, leaves: Any) -> Stack:
        """The stack of groups and leaves: the inverse of `tree_flatten`."""
        return cls(tuple(leaves), groups)

    def with_params(self, params: Sequence[Any]) -> Stack:
        """A stack of the same groups with other parameters, a tuple of arrays like `params`."""
        expected, given = ([getattr(one, "shape", None) for one in of] for of in (self.params, params))
        if given != expected:
            raise errors.wrong_shape("params", f"a tuple of arrays {expected}", str(given))
        return Stack(tuple(params), self._groups)

    def log_prob(self, x: Any, context: Any = None) -> jax.Array:
        """The log density of each row in nats, for the flow at the row's first index.

        Args:
            x: Shape (flows, ..., features).
            context: Shape (flows, ..., context), if the flows read a context; the dimensions between are broadcast.

        Returns:
            An array of shape (flows, ...).
        """
        own = self._groups[0].structure
        for name, value, columns in (("x", x, own.features), ("context", context, own.context)):
            given = getattr(value, "shape", None)
            if (value is not None or columns) and (
                given is None or len(given) < 2 or (given[0], given[-1]) != (len(self), columns)
            ):
                got = check.kind_of(value) if given is None else given
                raise errors.wrong_shape(name, f"({len(self)}, ..., {columns})" if columns else "None", got)
        if len(self._groups) == 1:
            return self._of_group(self._groups[0], self.params[0], x, context)
        found = [
            self._of_group(group, params, *(None if a is None else jnp.asarray(a)[group.indices] for a in (x, context)))
            for group, params in zip(self._groups, self.params, strict=True)
        ]
        return jnp.concatenate(found)[np.argsort(np.concatenate(self.indices))]

    def _of_group(self, group: _Group, params: Any, x: Any, context: Any) -> Any:
        def of_one(params: Any, x: Any, context: Any, fixed: Any) -> Any:
            affine, curves, (mean, std) = fixed
            y, total = x, 0.0
            for i, (shift, inverse, log_det) in enumerate(affine):
                y, total = jnp.matmul(y - shift, inverse.T), total + log_det
                if i < len(curves):
                    y, moved = self._to_latent(group.curves[i], curves[i], y)
                    total += moved
            given = None if context is None else (context - mean) / std
            found = self._log_prob(group.structure, params, y, given) + total
            if group.ends is None:
                return found
            low, high = (jnp.asarray(end, found.dtype) for end in group.ends)
            is_outside = ((x <= low) | (x >= high)).any(-1) & jnp.isfinite(x).all(-1)
            return jnp.where(is_outside, -jnp.inf, found)

        return jax.vmap(of_one, (0, 0, None if context is None else 0, 0))(params, x, context, group.fixed)
