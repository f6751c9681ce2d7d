"""Flows in JAX: pure functions and a pytree that can be compiled, differentiated and mapped (docs/jax.md).

Compiled code calls the core without Python: on the CPU, and on XLA's stream of CUDA devices that headrace can use.
Calls of `SequenceModule`, and of `coupling` on devices, go back to Python.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.install import install

try:
    import jax
    from jax import numpy as jnp
except ImportError as error:
    raise ImportError(f"headrace.jax needs JAX 0.5 or newer: {install('jax')}") from error

check.framework("jax", jax.__version__, (0, 5))

from headrace import Base, Flow, Independent, Logistic, NormalMixture, StudentT, Uniform  # noqa: E402
from headrace._base.types import Self  # noqa: E402
from headrace._flow.flow_errors import no_flow  # noqa: E402
from headrace.jax._calls import Structure, structure_of  # noqa: E402
from headrace.jax._couplings import coupling  # noqa: E402
from headrace.jax._sequences import SequenceModule  # noqa: E402
from headrace.jax._stack import Stack, stack  # noqa: E402
from headrace.jax._tangents import axes_of, varying  # noqa: E402

__all__ = [
    "FlowModule",
    "SequenceModule",
    "Stack",
    "Structure",
    "coupling",
    "freeze",
    "log_prob",
    "sample",
    "sample_and_log_prob",
    "stack",
    "structure",
    "to_data",
    "to_latent",
]

Shape = tuple[int, ...]


def structure(flow: Flow) -> Structure:
    """A flow without its parameters: hashable and static, the first argument of the functions of this module.

    A flow has the same structure until `fit` sets its standardisation, which is part of the structure. Compiled code
    works only while its structure exists: keep a reference to the structure, to the flow's `FlowModule` or to a
    function that uses either.

    Raises:
        TypeError: `flow` is not a flow.
        ValueError: the flow is on a CUDA device, or of float64 while `jax_enable_x64` is off.
    """
    return _structure(flow)


def log_prob(flow: Flow | Structure, params: Any, x: Any, context: Any = None) -> jax.Array:
    """The log density of each row, in nats: a pure function of its arrays.

    Args:
        flow: A `structure`, or a flow, whose structure is used and whose parameters are ignored.
        params: Shape (n,) in the flow's dtype, as `flow.parameters`; None for the parameters of a frozen structure
            (`freeze`).
        x: Shape (..., features), float32 or float64.
        context: Shape (..., context) if the flow reads one; leading dimensions are broadcast against those of x.

    Returns:
        An array with the leading dimensions of x and context, in the flow's dtype.

    Raises:
        TypeError, ValueError: an argument is not as expected; raised while tracing, with the argument's name.

    >>> import jax, headrace as hr, headrace.jax
    >>> flow = hr.MAF(3, context=2, seed=0)
    >>> x, context = jax.numpy.zeros((4, 3)), jax.numpy.ones(2)
    >>> jax.jit(lambda p, x: headrace.jax.log_prob(flow, p, x, context))(flow.parameters, x).shape
    (4,)
    """
    rows = _Rows(flow, params, "x", x, context)
    return rows.numbers(rows.run(inverse=True, base=True, value=False, row=True)[0])


def to_latent(flow: Flow | Structure, params: Any, x: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
    """Transform data to latent: ``(z, log_det)``, shapes (..., features) and (...); arguments as in `log_prob`."""
    rows = _Rows(flow, params, "x", x, context)
    value, row = rows.run(inverse=True, base=False, value=True, row=True)
    return rows.vectors(value), rows.numbers(row)


def to_data(flow: Flow | Structure, params: Any, z: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
    """Transform latent to data: ``(x, log_det)``, shapes (..., features) and (...); arguments as in `log_prob`."""
    rows = _Rows(flow, params, "z", z, context)
    value, row = rows.run(inverse=False, base=False, value=True, row=True)
    return rows.vectors(value), rows.numbers(row)


def sample(flow: Flow | Structure, params: Any, key: Any, n: int | Sequence[int], context: Any = None) -> jax.Array:
    """Draw n rows, shape (n, features), differentiable by parameters and context.

    The noise comes from `jax.random` and the key, so that draws differ from those of `Flow.sample`.

    Args:
        flow, params: As in `log_prob`.
        key: A key of `jax.random`.
        n: The number of rows, or the shape of the draws for each row of the context; results then have the shape
            ``(*n, ..., features)``.
        context: With a number of rows, shape (n, context), or (context,) for all rows.

    Raises:
        ValueError: the base is a `StudentT` or a `NormalMixture` with trained parameters, which determine how values
            are drawn: draws have no derivatives by such parameters.

    >>> import jax, headrace as hr, headrace.jax
    >>> flow = hr.MAF(3, context=2, seed=0)
    >>> headrace.jax.sample(flow, flow.parameters, jax.random.key(0), (10,), jax.numpy.ones((5, 2))).shape
    (10, 5, 3)
    """
    rows = _drawn(flow, params, key, n, context)
    return rows.vectors(rows.run(inverse=False, base=True, value=True, row=False)[0])


def sample_and_log_prob(
    flow: Flow | Structure, params: Any, key: Any, n: int | Sequence[int], context: Any = None
) -> tuple[jax.Array, jax.Array]:
    """``(sample(...), their log_prob)`` from one run, both differentiable; arguments as in `sample`."""
    rows = _drawn(flow, params, key, n, context)
    value, row = rows.run(inverse=False, base=True, value=True, row=True)
    return rows.vectors(value), rows.numbers(row)


Stack._log_prob, Stack._to_latent = staticmethod(log_prob), staticmethod(to_latent)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(init=False, repr=False, eq=False)
class FlowModule:
    """A flow as a pytree: its parameters are the only leaf, and its structure is static.

    All functions of pytrees accept a module: jit, grad, vmap, scan, optimisers. A module is immutable; `with_params`
    returns a new module, and so do `jax.tree.map` and `dataclasses.replace`.

    Args:
        flow: A flow on the CPU. Later changes of the flow do not affect the module.
        params, structure: Pass both in place of `flow`, as `dataclasses.replace` does.

    Attributes:
        params: Shape (n,); None in a frozen module.
        structure: The flow without its parameters; see `structure`.

    >>> import jax, headrace as hr, headrace.jax
    >>> module = headrace.jax.FlowModule(hr.MAF(3, seed=0))
    >>> loss = lambda module, x: -module.log_prob(x).mean()
    >>> jax.jit(jax.grad(loss))(module, jax.numpy.ones((10, 3))).params.shape == module.params.shape
    True
    """

    params: Any
    structure: Structure

    def __init__(self, flow: Flow | None = None, *, params: Any = None, structure: Structure | None = None) -> None:
        if flow is None and structure is not None:
            own = _structure(structure)
            _params(own, params)
        elif params is not None or structure is not None:
            raise TypeError("flow: expected no flow beside params and structure; see with_params, dataclasses.replace")
        else:
            own, given = _structure(flow), cast("Flow", flow)
            params = jnp.array(given.parameters, own.dtype)
        vars(self).update(structure=own, params=params)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise AttributeError, because compiled code would not notice an assignment."""
        raise AttributeError(f"{name}: a FlowModule does not change; call .with_params(params)")

    def __repr__(self) -> str:
        """The structure and the shape of the parameters."""
        size = "frozen" if self.structure.frozen else f"params {getattr(self.params, 'shape', self.params)}"
        return f"FlowModule({self.structure!r}, {size})"

    def tree_flatten_with_keys(self) -> tuple[Any, Structure]:
        """The leaf with its key, and the structure."""
        return ((jax.tree_util.GetAttrKey("params"), self.params),), self.structure

    def tree_flatten(self) -> tuple[Any, Structure]:
        """The leaf without its key, and the structure."""
        return (self.params,), self.structure

    @classmethod
    def tree_unflatten(cls, structure: Structure, leaves: Any) -> Self:
        """The module of a structure and a leaf: the inverse of `tree_flatten`."""
        self = object.__new__(cls)
        vars(self).update(structure=structure, params=leaves[0])
        return self

    def with_params(self, params: Any) -> FlowModule:
        """A module of the same structure with other parameters, shape (n,)."""
        _params(self.structure, params)
        return FlowModule.tree_unflatten(self.structure, (params,))

    def freeze(self) -> FlowModule:
        """A module without a leaf, whose parameters are part of the structure; see `headrace.jax.freeze`."""
        return freeze(self)

    def to_flow(self) -> Flow:
        """A new flow with the module's parameters, for example to save it."""
        own = self.structure
        if self.params is None:
            return own.flow.astype(own.dtype)
        if isinstance(self.params, jax.core.Tracer):
            raise TypeError("params: expected numbers, got a tracer; call to_flow outside of jit, grad and vmap")
        return own.flow._with_parameters(np.array(self.params, own.dtype), own.dtype)

    def log_prob(self, x: Any, context: Any = None) -> jax.Array:
        """The log density of each row; see `headrace.jax.log_prob`."""
        return log_prob(self.structure, self.params, x, context)

    def to_latent(self, x: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
        """Transform data to latent; see `headrace.jax.to_latent`."""
        return to_latent(self.structure, self.params, x, context)

    def to_data(self, z: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
        """Transform latent to data; see `headrace.jax.to_data`."""
        return to_data(self.structure, self.params, z, context)

    def sample(self, key: Any, n: int | Sequence[int], context: Any = None) -> jax.Array:
        """Draws; see `headrace.jax.sample`."""
        return sample(self.structure, self.params, key, n, context)

    def sample_and_log_prob(self, key: Any, n: int | Sequence[int], context: Any = None) -> tuple[jax.Array, jax.Array]:
        """Draws and their log densities; see `headrace.jax.sample_and_log_prob`."""
        return sample_and_log_prob(self.structure, self.params, key, n, context)


def freeze(flow: Flow | FlowModule) -> FlowModule:
    """A module whose parameters are constants of the structure, with no leaf, no gradient, and no copy in a call.

    Only final flows should be frozen, such as a prior or a transport map for a sampler. Each call of `freeze` makes a
    new structure, for which JAX compiles again.
    """
    if isinstance(flow, FlowModule):
        flow = flow.to_flow()
    _structure(flow)  # this checks the flow
    own = Structure(flow)
    own.frozen = True
    return FlowModule.tree_unflatten(own, (None,))


# ---- shapes ----------------------------------------------------------------------------------------------------------


class _Rows:
    """The checked input of one call: matrices in the core's form, and the shape of results."""

    def __init__(self, flow: Any, params: Any, name: str, x: Any, context: Any) -> None:
        own = self.structure = _structure(flow)
        self.params = _params(own, params)
        array = _array(name, x, own)
        if not array.shape or array.shape[-1] != own.features:
            raise errors.wrong_shape(name, f"(..., {own.features})", array.shape)
        given = _context(own, context)
        try:
            self.batch = jnp.broadcast_shapes(array.shape[:-1], given.shape[:-1])
        except ValueError:
            expected = f"{(*array.shape[:-1], own.context)}, or one that broadcasts"
            raise errors.wrong_shape("context", expected, given.shape) from None
        self.x = _matrix(array, self.batch)
        self.context = given.reshape(1, -1) if math.prod(given.shape[:-1]) == 1 else _matrix(given, self.batch)

    def run(self, **direction: bool) -> tuple[Any, ...]:
        """The requested results of a run: the transformed rows, and one value for each row."""
        arrays = (self.params, self.x, self.context)
        axes = axes_of(*arrays)  # gradients of arrays that devices share are summed over these axes
        call = self.structure.direction(**direction).call
        return call(*(varying(a, axes) for a in arrays))

    def numbers(self, row: Any) -> Any:
        """One value for each row, in the shape of the rows' leading dimensions."""
        return row.reshape(self.batch)

    def vectors(self, value: Any) -> Any:
        """The features of each row, in the shape of the rows."""
        return value.reshape(*self.batch, self.structure.features)


def _drawn(flow: Any, params: Any, key: Any, n: Any, context: Any) -> _Rows:
    own = _structure(flow)
    if type(n) is not int and np.iterable(n) and not isinstance(n, (str, bytes)):
        batch = check.integers("n", n)
        batch = (*batch, *_context(own, context).shape[:-1])
    else:
        batch = (check.integer("n", n),)
        shape = _context(own, context).shape
        if len(shape) > 2 or (len(shape) == 2 and shape[0] not in (1, batch[0])):
            advice = f"for {batch[0]} draws for each row of the context call with n=({batch[0]},)"
            raise errors.wrong_shape("context", errors.context_shape(own.context, batch), shape, advice)
    base = own.flow._base
    if not base.moves_noise:
        got = f"{base!r}, whose trained parameters decide how; draw by Flow.sample, or make it with trainable=False"
        raise ValueError(f"base: expected one whose draws are functions of its parameters, got {got}")
    try:
        noise = _noise(base, key, (*batch, own.features), own.dtype)
    except TypeError as error:
        raise TypeError(f"key: expected a key of jax.random, got {check.kind_of(key)}: {error}") from None
    return _Rows(own, params, "noise", noise, context)


def _noise(base: Base, key: Any, shape: Shape, dtype: Any) -> Any:
    """Rows of the standard density of a base, whose parameters are not trained, or only shift and scale noise."""
    if isinstance(base, Independent):
        names = tuple(dict.fromkeys(base.densities))
        places = [[c for c, own in enumerate(base.densities) if own == name] for name in names]
        keys = jax.random.split(key, len(names))
        parts = [_DRAWS[n](k, (*shape[:-1], len(p)), dtype) for n, k, p in zip(names, keys, places, strict=True)]
        return jnp.concatenate(parts, axis=-1)[..., np.argsort(np.concatenate(places))]
    if isinstance(base, StudentT):
        return jax.random.t(key, jnp.asarray(base.df, dtype), shape, dtype)
    if isinstance(base, NormalMixture):
        which, normal = jax.random.split(key)
        with np.errstate(divide="ignore"):
            chosen = jax.random.categorical(which, jnp.asarray(np.log(base.weights), dtype), shape=shape[:-1])
        loc, scale = jnp.asarray(base.loc, dtype), jnp.asarray(base.scale, dtype)
        return loc[chosen] + scale[chosen] * jax.random.normal(normal, shape, dtype)
    names_of = {Logistic: "logistic", Uniform: "uniform"}
    return _DRAWS[names_of.get(type(base), "normal")](key, shape, dtype)


def _uniform(key: Any, shape: Shape, dtype: Any) -> Any:
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


_DRAWS = {"normal": jax.random.normal, "logistic": jax.random.logistic, "uniform": _uniform}


def _structure(flow: Any) -> Structure:
    if isinstance(flow, Structure):
        own = flow
    elif isinstance(flow, Flow):
        own = structure_of(flow)
    else:
        raise no_flow("a headrace flow or a structure of headrace.jax", flow)
    if own.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(errors.too_wide_for_jax("flow", "flow"))
    return own


def _array(name: str, value: Any, own: Structure) -> Any:
    """A JAX array in the structure's dtype."""
    if not isinstance(value, (jax.Array, np.ndarray, np.floating)):
        raise errors.wrong_kind(name, "an array of JAX or NumPy", check.kind_of(value))
    if value.dtype not in (np.float32, np.float64):
        raise errors.wrong_dtype(name, value.dtype, f"{{}}.astype('{own.dtype}')")
    return jnp.asarray(value, own.dtype)


def _params(own: Structure, params: Any) -> Any:
    if params is None:
        if own.frozen:
            return jnp.zeros((0,), own.dtype)
        raise TypeError("params: expected an array, as flow.parameters, got None; headrace.jax.freeze(flow) needs none")
    if own.frozen:
        raise TypeError("params: expected None, because this structure is frozen with its own, got an array")
    if not isinstance(params, (jax.Array, np.ndarray)):
        raise errors.wrong_kind("params", "an array of JAX or NumPy", check.kind_of(params))
    if params.dtype != own.dtype:
        raise errors.wrong_dtype("params", params.dtype, expected=f"the flow's {own.dtype}")
    if params.shape != (own.size,):
        raise errors.wrong_shape("params", f"({own.size},)", params.shape)
    return jnp.asarray(params)


def _context(own: Structure, context: Any) -> Any:
    """The context as an array (..., context); (0,) for flows without context."""
    if own.context == 0:
        if context is not None:
            raise errors.takes_no_context()
        return jnp.zeros((0,), own.dtype)
    if context is None:
        raise errors.wrong_shape("context", errors.context_shape(own.context), "None")
    array = _array("context", context, own)
    if own.context == 1 and array.ndim == 1 and array.shape != (1,):
        array = array[:, None]
    if not array.shape or array.shape[-1] != own.context:
        raise errors.wrong_shape("context", errors.context_shape(own.context), array.shape)
    return array


def _matrix(array: Any, batch: Shape) -> Any:
    """The matrix (rows, columns) of an array that is broadcast to (*batch, columns)."""
    if array.shape[:-1] == batch and len(batch) == 1:
        return array
    columns = array.shape[-1]
    return jnp.broadcast_to(array, (*batch, columns)).reshape(math.prod(batch), columns)
