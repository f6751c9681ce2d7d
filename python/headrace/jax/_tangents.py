"""The tangent of a flow's run in JAX: a linear function that the core can only evaluate in reverse, as a JAX primitive.

`jax.custom_jvp` needs tangents, but the compiled core has only gradients. Tangents are therefore results of a
primitive without an implementation, which has a transpose: reverse mode never evaluates the primitive, and forward mode
raises an error. A function with a rule for gradients (`jax.custom_vjp`) would not suffice: JAX differentiates a mapped
function after mapping it, and would request one gradient by parameters for each element of the mapped axis. With the
primitive, rows of a mapped axis become rows of one tangent, and the gradient by common parameters takes one run.
"""

from __future__ import annotations

from itertools import compress
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arrays = tuple[Any, ...]
Flags = tuple[bool, ...]

NO_FORWARD = (
    "forward mode (jvp, jacfwd, linearize) of a flow: the compiled core of headrace has derivatives in reverse mode "
    "alone; call jax.grad, jax.vjp or jax.jacrev (of a function f of one result the derivative along v is "
    "jnp.vdot(jax.grad(f)(x), v)). Forward over reverse, as in jax.hessian, needs second derivatives, which are not "
    "there either"
)


def pushed(direction: Any, wanted: Flags, tangents: Arrays, given: Arrays, known: Arrays) -> Arrays:
    """The tangents of a direction's results, as results of the primitive.

    Args:
        direction: A `headrace.jax._calls.Direction`, whose method `transposed` returns gradients.
        wanted: Whether parameters, rows and context have tangents.
        tangents: The tangents of the arrays in `wanted`.
        given: The parameters, rows and context.
        known: The argument `known` of `Direction.transposed`.
    """
    results: Any = _tangent.bind(*tangents, *given, *known, direction=direction, wanted=wanted, axes=0)
    return tuple(results)


def folded(size: int, batched: Flags, given: Arrays) -> list[Any]:
    """The arrays of one run for all rows of a mapped axis, which is the first axis of the batched arrays.

    Args:
        size: The length of the mapped axis.
        batched: Whether each array has the mapped axis; the parameters do not have it.
        given: Parameters, rows, context, and further arrays with one entry for each row.
    """
    params, x, context, *by = given
    rows = x.shape[1] if batched[1] else x.shape[0]
    shared = not batched[2] and context.shape[0] == 1
    conditions = context if shared else _unfolded(context, batched[2], size, rows)
    by_row = (_unfolded(a, b, size, rows) for a, b in zip(by, batched[3:], strict=True))
    return [params, _unfolded(x, batched[1], size, rows), conditions, *by_row]


def _unfolded(array: Any, batched: bool, size: int, rows: int) -> Any:
    """An array (1 or rows, ...) of one row or of all rows, repeated to (size * rows, ...); a batched array begins with
    the axis of length `size`.
    """
    every = array if batched else array[None]
    return jnp.broadcast_to(every, (size, rows, *every.shape[2:])).reshape(size * rows, *every.shape[2:])


def axes_of(*arrays: Any) -> frozenset[str]:
    """The axes of `shard_map` along which any of these arrays is marked as different between devices."""
    found: frozenset[str] = frozenset()
    for array in arrays:
        kind = jax.typeof(array) if hasattr(jax, "typeof") else None
        kind = getattr(kind, "manual_axis_type", kind)  # JAX 0.10 wraps the type of the array
        found |= getattr(kind, "varying", getattr(kind, "vma", frozenset()))
    return found


def varying(array: Any, axes: frozenset[str]) -> Any:
    """The array marked as different on the devices along these axes of `shard_map`; its transpose sums over the axes.

    Without the mark, the gradient of an array that all devices share would be that of one device.
    """
    missing = tuple(sorted(axes - axes_of(array)))
    if not missing:
        return array
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(array, missing, to="varying")
    return jax.lax.pvary(array, missing)


# ---- the primitive ---------------------------------------------------------------------------------------------------

# Arguments: tangents, parameters, rows, context, and known gradients. If parameters are mapped, each element of the
# mapped axis has a separate gradient, so that the axis cannot become rows: all arguments then begin with `axes` such
# axes.

_tangent = Primitive("headrace_tangent")
_tangent.multiple_results = True


def _refused(*_: Any, **__: Any) -> Any:
    raise NotImplementedError(NO_FORWARD)


def _parts(wanted: Flags, arguments: Any) -> tuple[Any, Any, Any]:
    """The tangents, the three arrays, and the known gradients, from all arguments."""
    n = sum(wanted)
    return arguments[:n], arguments[n : n + 3], arguments[n + 3 :]


def _abstract_results(*arguments: Any, direction: Any, wanted: Flags, axes: int) -> list[Any]:
    """The results' shapes: that of the rows for the tangent by value, without the last axis for the tangent by row."""
    _, (_, x, _), _ = _parts(wanted, arguments)
    more = {}
    if getattr(x, "sharding", None) is not None:  # the sharding has an entry for each axis
        more["sharding"] = x.sharding.update(spec=jax.sharding.PartitionSpec(*x.sharding.spec[: x.ndim - 1]))
    return list(compress((x, x.update(shape=x.shape[:-1], **more)), (direction.value, direction.row)))


def _mapped(arguments: Any, dims: Any, *, direction: Any, wanted: Flags, axes: int) -> tuple[Any, list[int]]:
    """The tangents for all elements of a mapped axis."""
    batched = [d is not None for d in dims]
    size = next(a.shape[d] for a, d in zip(arguments, dims, strict=True) if d is not None)
    front = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(arguments, dims, strict=True)]
    _, given, known = _parts(wanted, front)
    have = _parts(wanted, batched)
    unit = 2 * (bool(known) and wanted[0])  # the number of known arrays that belong to the parameters
    if axes or have[1][0] or (wanted[0] and have[0][0]) or any(have[2][:unit]):
        every = [a if b else jnp.broadcast_to(a, (size, *a.shape)) for a, b in zip(front, batched, strict=True)]
        results = _tangent.bind(*every, direction=direction, wanted=wanted, axes=axes + 1)
        return results, [0] * len(results)
    rows = given[1].shape[-2]
    # A context of one row for all rows is not repeated if its tangent has one row, too.
    shared = given[2].shape[-2] == 1 and not have[1][2] and not (wanted[2] and have[0][-1])
    arrays = [
        a if of_parameters or (shared and of_context) else _unfolded(a, b, size, rows)
        for a, b, of_parameters, of_context in zip(
            front,
            batched,
            (*compress((True, False, False), wanted), True, False, False, *(i < unit for i in range(len(known)))),
            (*compress((False, False, True), wanted), False, False, True, *(False for _ in known)),
            strict=True,
        )
    ]
    results = _tangent.bind(*arrays, direction=direction, wanted=wanted, axes=0)
    return [r.reshape(size, rows, *r.shape[1:]) for r in results], [0] * len(results)


def _transposed(cotangents: Any, *arguments: Any, direction: Any, wanted: Flags, axes: int) -> list[Any]:
    """The gradients by the tangents, from cotangents of the results."""
    tangents, given, known = _parts(wanted, arguments)
    present = tuple(type(c) is not ad.Zero for c in cotangents)
    if not any(present):
        return [None] * len(arguments)

    def run(given: Arrays, known: Arrays, by: Arrays) -> Arrays:
        left = iter(by)
        every = tuple(next(left) if p else None for p in present)
        return direction.transposed(wanted, given, known, every)

    for _ in range(axes):
        run = jax.vmap(run)
    gradients = run(tuple(given), tuple(known), tuple(compress(cotangents, present)))
    given_back = (g if ad.is_undefined_primal(t) else None for g, t in zip(gradients, tangents, strict=True))
    return [*given_back, *(None for _ in (*given, *known))]


_tangent.def_impl(_refused)
_tangent.def_abstract_eval(_abstract_results)
mlir.register_lowering(_tangent, _refused)
batching.primitive_batchers[_tangent] = _mapped
ad.primitive_transposes[_tangent] = _transposed
