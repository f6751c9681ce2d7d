"""A constraint of numpyro for rows with columns between bounds, and the bijection from real vectors to such rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

Ends = tuple[float, ...]


def rectangle(low: Sequence[float], high: Sequence[float]) -> Any:
    """The constraint that each column lies between its bounds; an infinite bound does not constrain."""
    return _Rectangle(tuple(map(float, low)), tuple(map(float, high)))


class _Rectangle(constraints.Constraint):
    """Vectors whose columns lie between bounds.

    Bounds are Python floats, because the constraint is static in compiled code.
    """

    is_discrete = False
    event_dim = 1

    def __init__(self, low: Ends, high: Ends) -> None:
        self.low, self.high = low, high

    def __call__(self, x: Any) -> Any:
        """Whether each vector lies between the bounds, bounds included."""
        return ((x >= np.array(self.low)) & (x <= np.array(self.high))).all(-1)

    def feasible_like(self, prototype: Any) -> Any:
        """A vector inside of the bounds, broadcast to the shape of `prototype`."""
        return jnp.broadcast_to(_OntoRectangle(self)(jnp.zeros(len(self.low))), jnp.shape(prototype))

    def tree_flatten(self) -> Any:
        """No leaves, because the bounds are static."""
        return (), (self.low, self.high)

    @classmethod
    def tree_unflatten(cls, ends: tuple[Ends, Ends], leaves: Any) -> _Rectangle:
        """The constraint with static bounds: the inverse of `tree_flatten`."""
        return cls(*ends)

    def eq(self, other: object, static: bool = False) -> bool:
        """Whether another constraint has the same bounds."""
        return isinstance(other, _Rectangle) and (self.low, self.high) == (other.low, other.high)

    def __hash__(self) -> int:
        """A hash of the bounds."""
        return hash((self.low, self.high))


class _OntoRectangle(Transform):
    """y = low + (high - low) sigmoid(x), low + exp(x), high - exp(x) or x, as the finite bounds of a column require."""

    domain = constraints.real_vector

    def __init__(self, codomain: _Rectangle) -> None:
        self._codomain = codomain
        self._low, self._high = np.array(codomain.low), np.array(codomain.high)
        self._kinds = [np.isfinite(self._low) & np.isfinite(self._high)]
        self._kinds += [np.isfinite(self._low) & ~self._kinds[0], np.isfinite(self._high) & ~self._kinds[0]]
        self._from = np.where(np.isfinite(self._low), self._low, 0.0)
        self._to = np.where(np.isfinite(self._high), self._high, 0.0)

    @property
    def codomain(self) -> Any:
        """The constraint on the results."""
        return self._codomain

    def __call__(self, x: Any) -> Any:
        """Map real vectors to vectors between the bounds."""
        # x is 0 in columns without an exponential, because an overflow there would make gradients NaN.
        e = jnp.exp(jnp.where(self._kinds[1] | self._kinds[2], x, 0.0))
        inside = self._from + (self._to - self._from) * jax.nn.sigmoid(x)
        return jnp.select(self._kinds, [inside, self._from + e, self._to - e], x)

    def _inverse(self, y: Any) -> Any:
        both, low, high = self._kinds
        share = jnp.where(both, (y - self._from) / np.where(both, self._to - self._from, 1.0), 0.5)
        above, below = jnp.where(low, y - self._from, 1.0), jnp.where(high, self._to - y, 1.0)
        return jnp.select(self._kinds, [jax.scipy.special.logit(share), jnp.log(above), jnp.log(below)], y)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        """Log-determinants of the map from real vectors."""
        width = np.log(np.where(self._kinds[0], self._to - self._from, 1.0))
        inside = width - jax.nn.softplus(x) - jax.nn.softplus(-x)
        return jnp.select(self._kinds, [inside, x, x], jnp.zeros_like(x)).sum(-1)

    def tree_flatten(self) -> Any:
        """No leaves, because the codomain is static."""
        return (), self._codomain

    @classmethod
    def tree_unflatten(cls, codomain: _Rectangle, leaves: Any) -> _OntoRectangle:
        """The transform to a static codomain: the inverse of `tree_flatten`."""
        return cls(codomain)

    def eq(self, other: object, static: bool = False) -> bool:
        """Whether another transform has the same codomain."""
        return isinstance(other, _OntoRectangle) and self.codomain.eq(other.codomain)


biject_to.register(_Rectangle, _OntoRectangle)
