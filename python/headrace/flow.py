"""A flow: a base density and a chain of transforms from latent to data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace import _arguments as check
from headrace import _arrays
from headrace._module import Block, Module
from headrace.bases import Base, StandardNormal
from headrace.transforms import Transform

__all__ = ["Flow"]

Pair = tuple[NDArray[Any], NDArray[Any]]


class Flow(Module):
    """A density ρ(x) = base(z(x)) · |det dz/dx| (eq. 26-27 of the notes).

    The whole chain is one compiled program: a tile of rows runs through all transforms while it is in cache. The flow
    copies the parameters of its transforms; `transforms` gives them back with the current values.

    Args:
        transforms: In latent → data order; all parametric ones of one dtype.
        base: By default `StandardNormal`.
        dtype: "float32" or "float64"; by default that of the transforms.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.Flow([hr.Permutation([1, 0]), hr.Standardize([5.0, 0.0], [1.0, 2.0])], dtype="float64")
    >>> flow.log_prob(np.array([[5.0, 0.0]])).round(4).tolist()  # -log(2 pi) - log 2
    [-2.531]
    """

    _dtype: np.dtype[Any]

    def __init__(
        self, transforms: Sequence[Transform], base: Base | None = None, *, dtype: DTypeLike | None = None
    ) -> None:
        """See the class."""
        if not np.iterable(transforms):
            raise TypeError(f"transforms: expected a sequence of transforms, got {check.kind_of(transforms)}")
        chain = tuple(transforms)
        for i, t in enumerate(chain):
            if not isinstance(t, Transform):
                raise TypeError(f"transforms[{i}]: expected a transform, got {check.kind_of(t)}")
        if base is None:
            if not chain:
                raise ValueError("base: expected a base density where there are no transforms, got None")
            base = StandardNormal(chain[0].features)
        if not isinstance(base, Base):
            raise TypeError(f"base: expected a base density, got {check.kind_of(base)}")
        for i, t in enumerate(chain):
            if t.features != base.features:
                raise ValueError(
                    f"transforms[{i}]: expected {base.features} features, as the base has, got {t.features}"
                )
        contexts = sorted({t.context for t in chain if t.context})
        if len(contexts) > 1:
            raise ValueError(f"transforms: expected one number of context columns, got {contexts}")
        dtypes = {t.dtype for t in chain if t.dtype is not None}
        if len(dtypes) > 1:
            raise ValueError(f"transforms: expected one dtype, got {sorted(map(str, dtypes))}; use .astype")
        own = dtypes.pop() if dtypes else np.dtype(np.float32)
        kind = own if dtype is None else check.float_dtype("dtype", dtype)
        super().__init__(base.features, contexts[0] if contexts else 0, kind)
        self._chain = chain
        self._base = base
        self._set_program()

    def _set_program(self) -> None:
        parts = [self._base._initial(self._dtype), *(t.parameters for t in self._chain)]
        self._program = self._compile(self._dtype, np.concatenate(parts))

    def _steps(self, inverted: bool = False) -> list[tuple[Any, ...]]:
        return [step for t in self._chain for step in t._steps()]

    def _blocks(self) -> list[tuple[str, Block]]:
        blocks = [(f"base.{prefix}", block) for prefix, block in self._base._blocks()]
        for i, t in enumerate(self._chain):
            blocks += [(f"transforms.{i}.{prefix}", block) for prefix, block in t._blocks()]
        return blocks

    def _base_steps(self) -> tuple[str, list[tuple[Any, ...]]]:
        return self._base.name, self._base._steps()

    # ---- structure ---------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of parameters and results."""
        return self._dtype

    @property
    def base(self) -> Base:
        """The base density, with a copy of the current parameters."""
        return self._base._with_parameters(self.parameters[: self._base_size()])

    def _base_size(self) -> int:
        return sum(block.size for _, block in self._base._blocks())

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms in latent → data order, with copies of the current parameters."""
        vector, start = self.parameters, self._base_size()
        chain: list[Transform] = []
        for t in self._chain:
            size = sum(block.size for _, block in t._blocks())
            chain.append(t._with_parameters(vector[start : start + size], self._dtype) if size else t)
            start += size
        return tuple(chain)

    def __len__(self) -> int:
        """Number of transforms."""
        return len(self._chain)

    def __getitem__(self, index: slice) -> Flow:
        """``flow[:t]``: the flow of the first t transforms, with copies of their parameters."""
        if not isinstance(index, slice) or index.start not in (None, 0) or index.step not in (None, 1):
            raise TypeError(f"index: expected a slice flow[:t], got {index!r}; use flow.transforms for single ones")
        flow = Flow(self.transforms[index], self._base, dtype=self._dtype)
        vector = flow.parameters
        size = self._base_size()
        vector[:size] = self.parameters[:size]
        flow._program.set_weights(vector)
        return flow

    def __repr__(self) -> str:
        """Sizes, base and transforms."""
        inner = "".join(f"\n  {t!r}," for t in self._chain)
        return f"{type(self).__name__}(features={self.features}, base={self._base!r}, transforms=[{inner}\n])"

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def log_prob(self, x: NDArray[Any], context: NDArray[Any] | None = None) -> NDArray[Any]:
        """Log density of each row, in nats per row.

        Args:
            x: Shape (rows, features), float32 or float64, any strides.
            context: Shape (rows, context), or (context,) for all rows (the same row repeated may differ by rounding).

        Returns:
            Shape (rows,). A row with a NaN or an infinity gives NaN and changes no other row.

        Raises:
            TypeError: not a NumPy array of float32 or float64.
            ValueError: a wrong shape, or context where none is taken or none where it is.
        """
        array, rows, context = self._open("x", x, context)
        out = np.empty(rows, self._dtype)
        self._program.run(True, array, rows, 0, context, None, None, out)
        return out

    def to_latent(self, x: NDArray[Any], context: NDArray[Any] | None = None) -> Pair:
        """Data to latent: ``(z, log_det)``, shapes (rows, features) and (rows,), log_det = log \\|det dz/dx\\|."""
        return self._transform("x", x, context, inverse=True)

    def to_data(self, z: NDArray[Any], context: NDArray[Any] | None = None) -> Pair:
        """Latent to data: ``(x, log_det)``, shapes (rows, features) and (rows,), log_det = log \\|det dx/dz\\|."""
        return self._transform("z", z, context, inverse=False)

    def sample(self, n: int, context: NDArray[Any] | None = None, seed: int | None = None) -> NDArray[Any]:
        """Draw n rows, shape (n, features).

        Args:
            n: Number of rows.
            context: Shape (n, context), or (context,) for all rows.
            seed: 0 to 2^64 - 1; None draws one. A number depends on seed, row and column alone, so that
                ``sample(n, seed=s)[:k]`` equals ``sample(k, seed=s)`` for any number of threads (for k < 8, where rows
                take another path, up to rounding).

        >>> import headrace as hr
        >>> flow = hr.MAF(3, seed=0)
        >>> bool((flow.sample(100, seed=1)[:10] == flow.sample(10, seed=1)).all())
        True
        """
        rows, key, context = self._open_sample(n, context, seed)
        out = np.empty((rows, self._features), self._dtype)
        self._program.run(False, None, rows, key, context, out, None, None)
        return out

    def sample_and_log_prob(self, n: int, context: NDArray[Any] | None = None, seed: int | None = None) -> Pair:
        """``(sample(n), its log_prob)`` in one pass; see `sample`."""
        rows, key, context = self._open_sample(n, context, seed)
        out, log_prob = np.empty((rows, self._features), self._dtype), np.empty(rows, self._dtype)
        self._program.run(False, None, rows, key, context, out, None, log_prob)
        return out, log_prob

    def _open(self, name: str, value: Any, context: Any) -> tuple[_arrays.Matrix, int, _arrays.Matrix | None]:
        array = _arrays.matrix(name, value, self._features)
        rows = array.shape[0]
        return array, rows, _arrays.context_rows(context, rows, self._context)

    def _open_sample(self, n: Any, context: Any, seed: Any) -> tuple[int, int, _arrays.Matrix | None]:
        rows = check.integer("n", n)
        key = int.from_bytes(os.urandom(8), "little") if seed is None else check.integer("seed", seed, most=2**64 - 1)
        return rows, key, _arrays.context_rows(context, rows, self._context)

    def _transform(self, name: str, value: Any, context: Any, *, inverse: bool) -> Pair:
        array, rows, context = self._open(name, value, context)
        out, log_det = np.empty((rows, self._features), self._dtype), np.empty(rows, self._dtype)
        self._program.run(inverse, array, rows, 0, context, out, log_det, None)
        return out, log_det
