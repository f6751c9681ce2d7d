"""A flow's compiled program in JAX: functions of matrices and their gradients, with rules for grad and vmap.

Rows of a mapped axis become rows of one run; mapped parameters are used one after another. The public functions
of `headrace.jax` turn arrays of any shape into matrices.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import compress
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from headrace import _core
from headrace._core import cpu
from headrace._flow.flow import Flow
from headrace.jax._tangents import Arrays, Flags, axes_of, folded, pushed, varying

_lock = threading.Lock()

_MOST_KEPT = 32  # the largest gradient by parameters to keep, in elements per element of the rows

_ONCE = (
    "only first derivatives in reverse mode are there: the compiled core of headrace has no derivatives of gradients"
)


class Structure:
    """A flow without its parameters: hashable, compared by identity, and static in code that JAX compiles.

    Values that are no parameters are part of the structure: permutations, standardisation, the scale of a context. A
    structure copies the flow, so that later changes of the flow do not affect it. `structure_of` returns the same
    structure for a flow until `fit` changes values that are no parameters.
    """

    target = "headrace"  # prefix of the names by which compiled code calls the core, on every platform

    def __init__(self, flow: Flow) -> None:
        """Copy a flow and register its program for compiled code."""
        self.flow = copy.copy(flow)
        self.features, self.context, self.dtype = flow.features, flow.context, np.dtype(flow.dtype)
        self.program = self.flow._program
        self.size: int = self.program.n_weights
        register()
        self.frozen = False
        self.original: Any = None
        self.handle: int = cpu.xla_open(self.program)
        self._closed = weakref.finalize(self, cpu.xla_close, self.dtype == np.float64, self.handle)
        self._known_to(_on_devices())
        self.directions: dict[tuple[bool, bool, bool, bool], Direction] = {}

    def _known_to(self, core: Any) -> None:
        """Register the structure with the module for CUDA devices under the same id, if that module exists."""
        if core is None:
            return
        is_double = self.dtype == np.float64
        parts = self.flow._made_for(core)
        core.xla_open(is_double, self.handle, *parts, self.program.weights(), self.flow.matmul)
        self._closed_on_devices = weakref.finalize(self, core.xla_close, is_double, self.handle)

    def __reduce__(self) -> Any:
        """A pickle of the flow, from which a structure is made again."""
        return _unpickled, (self.flow, self.frozen)

    def __deepcopy__(self, memo: dict[int, Any]) -> Structure:
        """Return the structure itself, because it is immutable."""
        return self

    def __copy__(self) -> Structure:
        """Return the structure itself, because it is immutable."""
        return self

    def __repr__(self) -> str:
        """The flow's class, sizes and dtype."""
        return f"Structure({type(self.flow).__name__}, features={self.features}, context={self.context}, {self.dtype})"

    def direction(self, inverse: bool, base: bool, value: bool, row: bool) -> Direction:
        """The function of one direction; equal arguments return the same object."""
        key = (inverse, base, value, row)
        found = self.directions.get(key)
        return self.directions.setdefault(key, Direction(self, *key)) if found is None else found


_of_programs: weakref.WeakValueDictionary[int, Structure] = weakref.WeakValueDictionary()


def structure_of(flow: Flow) -> Structure:
    """The structure of a flow on the CPU, which stays the same as long as the flow has the same program."""
    if flow.device != "cpu":
        raise ValueError(f"flow: expected one on the CPU, got {flow.device}; call .to('cpu')")
    with _lock:
        found = _of_programs.get(id(flow._program))
        if found is None:
            found = Structure(flow)
            found.original = flow._program  # keeps the id of the flow's program in use
            _of_programs[id(flow._program)] = found
        return found


@lru_cache(maxsize=1)
def _on_devices() -> Any:
    """The compiled module for CUDA devices; None without a usable device."""
    return None if _core.cuda_unavailable() else _core.cuda


@lru_cache(maxsize=1)
def register() -> None:
    """Register the core's handlers with JAX, once."""
    handlers = dict(cpu.xla_handlers)
    elsewhere = handlers.pop("elsewhere")  # raises an error with the remedy on other devices
    on_cuda = getattr(_on_devices(), "xla_handlers", {})
    try:
        for name, handler in handlers.items():
            places = {"cpu": handler, "CUDA": on_cuda.get(name, elsewhere), "ROCM": elsewhere}
            for platform, own in places.items():  # one name for all platforms: compiled functions then work on each
                jax.ffi.register_ffi_target(f"{Structure.target}_{name}", own, platform=platform)
    except Exception as error:  # jaxlib raises this error, whose class depends on its version
        why = f"got {jax.__version__}: {error}"
        raise ImportError(f"jax: expected 0.5 or newer, whose compiled code calls the core, {why}") from error


class Direction:
    """One direction of a program: a function ``(params, x, context) -> results``, differentiable once in reverse mode.

    The arrays have shapes (n,) (or (0,) for the structure's own parameters), (rows, features), and (rows, context) or
    (1, context). Results are the transformed rows, (rows, features), if `value`, and one number for each row, if `row`:
    the log density if the run includes `base`, otherwise the log-determinant.
    """

    def __init__(self, structure: Structure, inverse: bool, base: bool, value: bool, row: bool) -> None:
        self._structure = structure
        self.inverse, self.base, self.value, self.row = inverse, base, value, row
        self._run = differentiable_no_more(_by_rows(self._forward, parameters=False))
        self._gradients: dict[tuple[Any, ...], Callable[..., Arrays]] = {}
        function = jax.custom_jvp(self._run)
        function.defjvp(self._jvp, symbolic_zeros=True)
        self.call = jax.jit(function, inline=True)

    # ---- derivatives ---------------------------------------------------------------------------------------------

    def _jvp(self, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        """The results, and their tangents as a linear function that has only a transpose (`headrace.jax._tangents`)."""
        wanted = tuple(not isinstance(t, jax.custom_derivatives.SymbolicZero) for t in tangents)
        params, x, _ = primals
        # If results have one value a row, one run computes the values and the derivatives of their sum. In a scan each
        # iteration keeps the gradient by parameters: this run computes that gradient only if it is small compared with
        # the rows.
        by_sum = wanted[0] and params.size <= _MOST_KEPT * x.size
        known: Arrays = ()
        if self.value or (wanted[0] and not by_sum):
            results = self._run(*primals)
        else:
            row, *found = (self._unit(wanted) if by_sum else self._gradient(wanted, ones=True))(*primals)
            results, known = (row,), tuple(found)
        moved = tuple(compress(tangents, wanted))
        return results, pushed(self, wanted, moved, primals, known)

    def transposed(self, wanted: Flags, given: Arrays, known: Arrays, cotangents: Arrays) -> Arrays:
        """Gradients by the arrays in `wanted`, from cotangents of the results, where None means zero.

        Args:
            wanted: Whether gradients by parameters, rows and context are requested.
            given: The parameters, rows and context.
            known: Gradients of the sum of the rows' values that were computed with the values: a flag whether the
                gradient by parameters was computed, and this gradient, if it is requested; then the gradients by rows
                and context; an empty tuple if no gradients were computed.
            cotangents: One cotangent for each result.
        """
        if known:
            unit, by_row = known[: 2 * wanted[0]], known[2 * wanted[0] :]
            by: Arrays = tuple(cotangents[0][:, None] * k for k in by_row)
            if wanted[0]:
                by = (*self._scaled()(*given, cotangents[0], *unit), *by)
        else:
            present = tuple(c is not None for c in cotangents)
            by = self._gradient(wanted, present)(*given, *compress(cotangents, present))
        if wanted[2] and given[2].shape[0] != given[1].shape[0]:
            by = (*by[:-1], by[-1].sum(0, keepdims=True))
        return by

    def _unit(self, wanted: Flags) -> Callable[..., Arrays]:
        def made() -> Callable[..., Arrays]:
            unit: Any = jax.custom_batching.custom_vmap(partial(self._backward_of_sum, wanted))

            def rule(size: int, batched: Any, *given: Any) -> Any:
                """Rows of a mapped axis become rows of one run; the transpose computes gradients by parameters."""
                if batched[0]:
                    return _one_by_one(unit, batched, given)
                run = self._gradient((False, *wanted[1:]), ones=True)
                axes = tuple(0 if b else None for b in batched)
                row, *by = jax.vmap(run, axes, axis_size=size)(*given)
                none = (jnp.zeros((1,), row.dtype), jnp.zeros(given[0].shape, row.dtype))
                return (row, *none, *by), (True, False, False, *(True for _ in by))

            unit.def_vmap(rule)
            return unit

        return self._made(("unit", *wanted), made)

    def _scaled(self) -> Callable[..., Arrays]:
        return self._made(("scaled",), lambda: _by_rows(self._backward_of_factors, parameters=True))

    def _gradient(self, wanted: Flags, present: Flags = (), ones: bool = False) -> Callable[..., Arrays]:
        def made() -> Callable[..., Arrays]:
            return _by_rows(partial(self._backward, wanted, present, ones), parameters=wanted[0])

        return self._made(("gradient", *wanted, *present, ones), made)

    def _made(self, key: tuple[Any, ...], made: Callable[[], Callable[..., Arrays]]) -> Callable[..., Arrays]:
        if key not in self._gradients:
            self._gradients[key] = differentiable_no_more(made())
        return self._gradients[key]

    # ---- calls ---------------------------------------------------------------------------------------------------

    def _forward(self, params: Any, x: Any, context: Any) -> Arrays:
        """The results of one run."""
        rows, width = x.shape
        shapes = ((rows, width) if self.value else (0,), (rows,) if self.row else (0,))
        results = self._call("run", shapes, (params, x, context), {})
        return tuple(compress(results, (self.value, self.row)))

    def _gradient_shapes(self, params: Any, x: Any, context: Any) -> tuple[tuple[int, ...], ...]:
        return params.shape, x.shape, (x.shape[0], context.shape[1])

    def _backward(
        self, wanted: Flags, present: Flags, ones: bool, params: Any, x: Any, context: Any, *by: Any
    ) -> Arrays:
        """The requested gradients by parameters, rows and context; with `ones` the value of each row comes first."""
        left, none = iter(by), jnp.zeros((0,), x.dtype)
        parts = iter(present)
        by_value = next(left) if self.value and next(parts) else none
        by_row = next(left) if self.row and not ones and next(parts) else none
        all_shapes = self._gradient_shapes(params, x, context)
        by_argument = (s if w else (0,) for s, w in zip(all_shapes, wanted, strict=True))
        shapes = ((0,), (x.shape[0],) if ones else (0,), *by_argument)
        scale = 1.0 if ones or by_row is not none else 0.0
        results = self._call("gradient", shapes, (params, x, context, by_value, by_row), {"row_scale": scale})
        return tuple(compress(results[1:], (ones, *wanted)))

    def _backward_of_sum(self, wanted: Flags, params: Any, x: Any, context: Any) -> Arrays:
        """The value of each row, and gradients of the sum of all values.

        A flag whether the gradient by parameters was computed precedes the gradients, which are by parameters, rows and
        context.
        """
        parameters, *of_rows = self._gradient_shapes(params, x, context)
        by_rows = (s if w else (0,) for s, w in zip(of_rows, wanted[1:], strict=True))
        results = self._call("unit", [(x.shape[0],), (1,), parameters, *by_rows], (params, x, context), {})
        return tuple(compress(results, (True, True, *wanted)))

    def _backward_of_factors(self, params: Any, x: Any, context: Any, *by: Any) -> Arrays:
        """The gradient by parameters of the sum of the rows' values, each times a factor."""
        return self._call("scaled", [params.shape], (params, x, context, *by), {})

    def _call(self, kind: str, shapes: Any, arrays: Arrays, more: dict[str, float]) -> Arrays:
        structure, dtype = self._structure, self._structure.dtype
        axes = axes_of(*arrays)
        results = tuple(jax.ShapeDtypeStruct(s, dtype) for s in shapes)
        arrays = tuple(varying(a, axes) for a in arrays)
        call = jax.ffi.ffi_call(f"{structure.target}_{kind}_{dtype}", results, vmap_method="sequential")
        scale = {name: np.float64(value) for name, value in more.items()}
        handle = np.int64(structure.handle)
        found = call(*arrays, handle=handle, inverse=self.inverse, base=self.base, **scale)
        return tuple(varying(a, axes) for a in found)


def _by_rows(function: Callable[..., Arrays], parameters: bool) -> Callable[..., Arrays]:
    """Add a rule for vmap: examples become rows of one call, or are computed in a loop if their parameters differ."""
    mapped: Any = jax.custom_batching.custom_vmap(function)

    def rule(size: int, batched: Any, *given: Any) -> Any:
        if batched[0] or parameters:
            return _one_by_one(mapped, batched, given)
        params, x, context, *by = folded(size, batched, given)
        out = tuple(r.reshape(size, -1, *r.shape[1:]) for r in mapped(params, x, context, *by))
        return out, (True,) * len(out)

    mapped.def_vmap(rule)
    return mapped


def _one_by_one(function: Callable[..., Arrays], batched: Any, given: Arrays) -> tuple[Arrays, Flags]:
    """The results of a loop over the mapped axis, and for each result True, because it has the mapped axis."""

    def one(chosen: Arrays) -> Arrays:
        left = iter(chosen)
        return function(*(next(left) if b else a for a, b in zip(given, batched, strict=True)))

    out: Arrays = jax.lax.map(one, tuple(compress(given, batched)))
    return out, (True,) * len(out)


def differentiable_no_more(function: Callable[..., Arrays], of: str = "a flow") -> Callable[..., Arrays]:
    """A function with the same values, whose derivative raises an error; `of`: the subject of the message."""
    once: Any = jax.custom_jvp(function)

    def refuse(primals: Arrays, tangents: Arrays) -> Any:
        raise NotImplementedError(f"a second derivative of {of}: {_ONCE}")

    once.defjvp(refuse)
    return once


def _unpickled(flow: Flow, frozen: bool) -> Structure:
    structure = Structure(flow)
    structure.frozen = frozen
    return structure
