"""`headrace.jax.stack`: flows of one architecture side by side, each with rows of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax import numpy as jnp

from headrace import files
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._flow.flow import Flow
from headrace._flow.flow_errors import no_flow
from headrace._flow.transforms.fixed import Permutation, Standardize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.transform import Transform
from headrace.jax._calls import Structure, structure_of

_AFFINE = (Linear, Permutation, Rotation, Standardize)


class _Ends:
    """The fixed maps of each flow: x = matrix @ inner x + shift, and the scale of the context; in float64."""

    def __init__(self, flows: Sequence[Flow]) -> None:
        maps = [_affine(flow) for flow in flows]
        n, columns = flows[0].features, flows[0].context
        self.shift = np.stack([shift for shift, _ in maps])
        inverses = [np.linalg.inv(matrix) for _, matrix in maps]
        self.inverse = np.stack(inverses).reshape(-1, n, n)
        self.log_det = np.array([np.linalg.slogdet(matrix)[1] for matrix in inverses])
        scales = [flow.standardize_context or (np.zeros(columns), np.ones(columns)) for flow in flows]
        self.mean, self.std = (np.stack(part) for part in zip(*scales, strict=True))


def _fixed_end(flow: Flow) -> list[Transform]:
    """The transforms at the data end that are affine and have no parameters."""
    end: list[Transform] = []
    for transform in reversed(flow.transforms):
        if not isinstance(transform, _AFFINE) or Flow([transform]).n_parameters:
            break
        end.insert(0, transform)
    return end if len(end) < len(flow.transforms) else end[1:]


def _affine(flow: Flow) -> tuple[Any, Any]:
    n, end = flow.features, _fixed_end(flow)
    if not end:
        return np.zeros(n), np.eye(n)
    points = np.vstack([np.zeros(n), np.eye(n)])
    shift, *images = np.asarray(Flow(end).astype("float64").to_data(points)[0])
    return shift, (np.array(images) - shift).T


def _inner(flow: Flow) -> Flow:
    return Flow(flow.transforms[: len(flow.transforms) - len(_fixed_end(flow))], flow.base).astype(str(flow.dtype))


def stack(flows: Sequence[Flow]) -> Stack:
    """Flows of one architecture as one pytree, whose calls take rows of each flow: a product over events, for example.

    The flows may differ in parameters and in maps that `fit` sets: standardisation, rotations and other affine maps at
    the data end, and the scale of the context. One call compiles once, for any number of flows.

    Args:
        flows: At least one, on the CPU, alike but for the above.

    Raises:
        TypeError: no flows.
        ValueError: flows that differ otherwise; the message has the index of the first.

    >>> import jax, headrace as hr, headrace.jax
    >>> events = headrace.jax.stack([hr.MAF(3, seed=i) for i in range(4)])
    >>> rows = jax.numpy.zeros((4, 10, 3))  # ten of each event
    >>> jax.jit(lambda s, x: s.log_prob(x))(events, rows).shape
    (4, 10)
    """
    if isinstance(flows, (Flow, str)) or not isinstance(flows, Sequence) or not flows:
        raise TypeError(f"flows: expected a sequence of flows, got {check.kind_of(flows)}")
    for flow in flows:
        if not isinstance(flow, Flow):
            raise no_flow("a sequence of flows", flow)
    inner = [_inner(flow) for flow in flows]
    first, *others = (files.structure_checksum(flow) for flow in inner)
    unlike = [i for i, other in enumerate(others, 1) if other != first or inner[i].dtype != inner[0].dtype]
    if unlike:
        given = (" ".join(repr(inner[i]).split()) for i in (0, unlike[0]))
        raise ValueError(
            f"flows: expected flows that differ in parameters and affine maps at the data end alone, got {next(given)} "
            f"and, at index {unlike[0]}, {next(given)}"
        )
    params = jnp.asarray(np.stack([flow.parameters for flow in inner]))
    return Stack(params, structure_of(inner[0]), _Ends(flows))


@jax.tree_util.register_pytree_node_class
class Stack:
    """Flows side by side; see `stack`.

    Attributes:
        params: The one leaf, shape (flows, n).
    """

    _log_prob: ClassVar[Callable[..., Any]]  # of one flow, `headrace.jax.log_prob`, which is made after this

    def __init__(self, params: Any, structure: Structure, ends: _Ends) -> None:
        self.params, self._structure, self._ends = params, structure, ends

    def __len__(self) -> int:
        """Number of flows."""
        return len(self._ends.shift)

    def tree_flatten(self) -> tuple[Any, Any]:
        """The leaf, and the static part."""
        return (self.params,), (self._structure, self._ends)

    @classmethod
    def tree_unflatten(cls, fixed: Any, leaves: Any) -> Stack:
        """The inverse of `tree_flatten`."""
        return cls(*leaves, *fixed)

    def with_params(self, params: Any) -> Stack:
        """A stack with other parameters, shape (flows, n)."""
        if params.shape != self.params.shape:
            raise errors.wrong_shape("params", self.params.shape, params.shape)
        return Stack(params, self._structure, self._ends)

    def log_prob(self, x: Any, context: Any = None) -> jax.Array:
        """Log density of each row in the flow at its index, in nats.

        Args:
            x: Shape (flows, ..., features).
            context: Shape (flows, ..., context), if the flows read one; the dimensions between are broadcast.

        Returns:
            Shape (flows, ...).
        """
        own, ends = self._structure, self._ends
        for name, value, columns in (("x", x, own.features), ("context", context, own.context)):
            given = getattr(value, "shape", None)
            if (value is not None or columns) and (
                given is None or len(given) < 2 or (given[0], given[-1]) != (len(self), columns)
            ):
                got = check.kind_of(value) if given is None else given
                raise errors.wrong_shape(name, f"({len(self)}, ..., {columns})" if columns else "None", got)

        def of_one(params: Any, x: Any, context: Any, shift: Any, inverse: Any, mean: Any, std: Any) -> Any:
            given = None if context is None else (context - mean) / std
            return self._log_prob(own, params, jnp.matmul(x - shift, inverse.T), given)

        fixed = [jnp.asarray(a, own.dtype) for a in (ends.shift, ends.inverse, ends.mean, ends.std)]
        axes = (0, 0, None if context is None else 0, 0, 0, 0, 0)
        found: jax.Array = jax.vmap(of_one, axes)(self.params, x, context, *fixed)
        return found + jnp.asarray(ends.log_det, own.dtype).reshape(-1, *[1] * (found.ndim - 1))
