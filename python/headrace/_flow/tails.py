"""Base densities with heavy tails, without tails, or with several modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.rng import Rng, takes_rng
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.bases import Base

_PADDING = 16  # the core pads the vector of parameters to a multiple of this size
MOST_COMPONENTS = 4096


class _Numbers:
    """The layout of a base's raw parameters: one named array after another in the vector."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.n = sum(int(np.prod(shape)) for shape in shapes.values())

    @property
    def size(self) -> int:
        return -(-self.n // _PADDING) * _PADDING

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(packed[: self.n], ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        flat = [named[name].ravel() for name in self.shapes]
        return np.concatenate([*flat, np.zeros(self.size - self.n, flat[0].dtype)])


class _Stepped(Base):
    """A base that the core evaluates as a step with raw parameters, which may be trained."""

    name = "density"
    _columns: list[str]  # the core's names of the columns' densities; empty for a joint density of all columns
    _components = 0

    @property
    def moves_noise(self) -> bool:  # type: ignore[override]
        """Whether samples are functions of noise; not if parameters that determine the draws are trained."""
        return not self.trainable

    def _block(self) -> _Numbers:
        return _Numbers({name: array.shape for name, array in self._start.items()})

    def _steps(self) -> list[StepSpec]:
        numbers = self._block()
        fixed = [] if self.trainable else [float(v) for array in self._start.values() for v in array.ravel()]
        return [
            StepSpec("DensityStep", columns=self._columns, components=self._components, n_raw=numbers.n, fixed=fixed)
        ]

    def _standard(self) -> tuple[str, list[StepSpec]]:
        return self.name, self._steps()

    def _trained(self, packed: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        return {name: array.astype(np.float64) for name, array in self._block().named(packed).items()}


@storable
class Uniform(_Stepped):
    """Independent coordinates, uniform on [-1, 1], for maps of [-1, 1] onto itself, like splines of ``bound=1``.

    A row with a coordinate outside of [-1, 1] has a log density of -inf.

    Args:
        features: The number of coordinates.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.Flow([], hr.Uniform(2), dtype="float64")
    >>> flow.log_prob(np.array([[0.5, -1.0], [0.5, 1.5]])).round(4).tolist()
    [-1.3863, -inf]
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self._columns, self._start = ["uniform"] * self.features, {}

    def _part(self, kept: Sequence[int]) -> Uniform:
        return Uniform(len(kept))


COLUMNS = ("normal", "logistic", "uniform")


@storable
class Independent(_Stepped):
    """Independent coordinates, each with one of three standard densities.

    Args:
        densities: For each coordinate "normal", "logistic", or "uniform" (on [-1, 1]).

    >>> import headrace as hr
    >>> hr.Flow([], hr.Independent(["normal", "uniform"])).sample(5, seed=0).shape
    (5, 2)
    """

    def __init__(self, densities: Sequence[str]) -> None:
        if isinstance(densities, str) or not isinstance(densities, Sequence):
            raise TypeError(f"densities: expected a sequence of names, got {check.kind_of(densities)}")
        super().__init__(len(densities))
        self.densities = tuple(check.choice(f"densities[{i}]", name, COLUMNS) for i, name in enumerate(densities))
        self._columns, self._start = list(self.densities), {}

    def _part(self, kept: Sequence[int]) -> Independent:
        return Independent([self.densities[c] for c in kept])

    def _header(self) -> dict[str, Any]:
        return {**super()._header(), "densities": list(self.densities)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, densities = stored.size("features", least=1), stored.items("densities")
        check.length("densities", densities, features)
        return cls(densities)

    def __repr__(self) -> str:
        """The densities of the coordinates."""
        return f"Independent({list(self.densities)})"


@storable
class StudentT(_Stepped):
    """Independent coordinates with Student's t distribution, whose tails fall as \\|z\\|^-(df + 1).

    Args:
        features: The number of coordinates.
        df: Degrees of freedom, a number or an array (features,): positive. 1 gives the Cauchy distribution, and the
            limit of infinite df is the normal distribution.
        trainable: Whether log df is a parameter of the flow ("base.log_df").

    Samples are drawn by Bailey's polar method (1994). For df below 0.3 some samples are beyond float32, and their rows
    are NaN.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.Flow([], hr.StudentT(1, df=1.0), dtype="float64")
    >>> flow.log_prob(np.array([[0.0], [1.0]])).round(4).tolist()  # -log(pi), -log(2 pi)
    [-1.1447, -1.8379]
    """

    def __init__(self, features: int, df: Any = 5.0, *, trainable: bool = True) -> None:
        super().__init__(features)
        self.df = check.vector("df", df, self.features, positive=True)
        self.trainable = bool(trainable)
        self._columns, self._start = ["student"] * self.features, {"log_df": np.log(self.df)}

    def _check(self, dtype: np.dtype[Any]) -> None:
        most = float(np.finfo(dtype).max)
        if self.df.max() > most:
            raise ValueError(f"df: expected at most {most:g} in {dtype}, got {self.df.max():g}; take StandardNormal")

    def _part(self, kept: Sequence[int]) -> StudentT:
        return StudentT(len(kept), self.df[list(kept)], trainable=self.trainable)

    def _with_parameters(self, packed: NDArray[Any]) -> StudentT:
        return StudentT(self.features, np.exp(self._trained(packed)["log_df"])) if self.trainable else self

    def _header(self) -> dict[str, Any]:
        header = {**super()._header(), "trainable": self.trainable}
        return header if self.trainable else {**header, "df": self.df.tolist()}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, trainable = stored.size("features", least=1), stored.flag("trainable")
        if not trainable:
            df = stored.numbers("df")
            check.length("df", df, features)
            return cls(features, df, trainable=False)
        start = {"log_df": stored.array("log_df", (features,))}
        self = cls(features)
        self._start = start  # keeps the file's values, which `df` may refuse
        return self


@storable
class NormalMixture(_Stepped):
    """A mixture of normal densities: each row comes from one component, whose coordinates are independent.

    Args:
        features: The number of coordinates D.
        components: The number of components K.
        loc: The means, shape (components, features); by default drawn from a standard normal density.
        scale: The standard deviations, a number or an array (components, features); positive.
        weights: The shares of the components, shape (components,), not negative, scaled to a sum of 1; by default
            equal. A component of share 0 has no rows, and training leaves its share at 0.
        trainable: Whether shares, means and deviations are parameters of the flow: "base.logits" (K,), the shares by a
            softmax, "base.loc" and "base.log_scale" (K, D).
        seed: The seed of means that are drawn at random.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.

    >>> import numpy as np, headrace as hr
    >>> base = hr.NormalMixture(1, 2, loc=[[-3.0], [3.0]], scale=0.5, weights=[1.0, 3.0])
    >>> x = hr.Flow([], base).sample(10_000, seed=0)
    >>> round(float((x > 0).mean()), 2)
    0.75
    """

    @takes_rng
    def __init__(
        self,
        features: int,
        components: int,
        *,
        loc: Any = None,
        scale: Any = 1.0,
        weights: Any = None,
        trainable: bool = True,
        seed: int = 0,
        rng: Rng = None,
    ) -> None:
        super().__init__(features)
        self.components = check.integer("components", components, least=1, most=MOST_COMPONENTS)
        shape = (self.components, self.features)
        if loc is None:
            loc = np.random.default_rng(check.integer("seed", seed)).standard_normal(shape)
        self.loc = _table("loc", loc, shape)
        self.scale = _table("scale", scale, shape, positive=True)
        self.weights = check.vector("weights", 1.0 if weights is None else weights, self.components)
        if not ((self.weights >= 0).all() and 0 < self.weights.sum() < np.inf):
            raise ValueError(f"weights: expected numbers of at least 0, some above it, got {self.weights.tolist()}")
        self.trainable = bool(trainable)
        self._columns, self._components = [], self.components
        with np.errstate(divide="ignore"):
            logits = np.log(self.weights)
        self._start = {"logits": logits, "loc": self.loc, "log_scale": np.log(self.scale)}

    def _with_parameters(self, packed: NDArray[Any]) -> NormalMixture:
        if not self.trainable:
            return self
        named = self._trained(packed)
        weights, scale = np.exp(named["logits"] - named["logits"].max()), np.exp(named["log_scale"])
        return NormalMixture(self.features, self.components, loc=named["loc"], scale=scale, weights=weights)

    def _header(self) -> dict[str, Any]:
        header = {**super()._header(), "components": self.components, "trainable": self.trainable}
        if self.trainable:
            return header
        numbers = {"weights": self.weights, "loc": self.loc, "scale": self.scale}
        return {**header, **{name: array.tolist() for name, array in numbers.items()}}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, trainable = stored.size("features", least=1), stored.flag("trainable")
        components = check.integer("components", stored.take("components"), least=1, most=MOST_COMPONENTS)
        if not trainable:
            arrays: dict[str, Any] = {name: stored.numbers(name) for name in ("weights", "loc", "scale")}
            for name in arrays:
                check.length(name, arrays[name], components)
            return cls(features, components, **arrays, trainable=False)
        shape = (components, features)
        start = {"logits": stored.array("logits", shape[:1])}
        start |= {name: stored.array(name, shape) for name in ("loc", "log_scale")}
        self = cls(features, components, loc=np.zeros(shape))
        self._start = start
        return self

    def __repr__(self) -> str:
        """The numbers of coordinates and of components."""
        return f"NormalMixture({self.features}, {self.components})"


def _table(name: str, value: Any, shape: tuple[int, int], *, positive: bool = False) -> NDArray[np.float64]:
    """A finite, read-only float64 copy of an array of this shape, or of one value for all entries."""
    values = check.real_array(name, value)
    if values.shape not in ((), shape):
        raise ValueError(f"{name}: expected a number or shape {shape}, got {values.shape}")
    array = np.array(np.broadcast_to(values, shape), np.float64)
    if not np.isfinite(array).all() or (positive and not (array >= np.finfo(np.float64).tiny).all()):
        raise ValueError(f"{name}: expected finite{' positive' if positive else ''} numbers, got others")
    array.flags.writeable = False
    return array
