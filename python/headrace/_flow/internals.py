"""`Interior`: the private interface of a flow for a fit, an ascent or a distillation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._core.device import MATMULS, matmul_on_cpu, refuse_wide
from headrace._flow.bases import Base, Logistic, Normal, StandardNormal
from headrace._flow.program.evaluation import Pair
from headrace._flow.program.module import Block, Program
from headrace._flow.tails import Independent
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.restriction import chain_of
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform

STRUCTURE = ("_chain", "_standardize_context", "_base")
"""The attributes of a flow, apart from the parameters, that a fit may change."""


class Restorable:
    """The private interface of a flow of rows or of sequences, with the state that a failed fit restores."""

    def __init__(self, flow: Any) -> None:
        """`flow`: a `headrace._flow.flow.Flow` or a `SequenceFlow`, whose modules import this module."""
        self._flow = flow
        self.chain: tuple[Any, ...] = flow._chain  # the structure of the transforms, without parameters
        self.caller: Callable[[], Caller] = flow._caller  # makes a `Caller` that opens arrays for the flow's device
        self.vector: Callable[[], NDArray[Any]] = flow._vector  # returns a copy of the parameters on the host

    @property
    def program(self) -> Program:
        """The flow's compiled program, which is replaced if the structure changes."""
        return self._flow._program

    @property
    def names(self) -> Names:
        """The names of the columns, which are empty for flows of sequences."""
        return Names()

    def name(self, names: Names) -> None:
        """Set the names of the columns; flows of sequences ignore names."""

    @contextmanager
    def restored(self, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """A context manager that restores the flow's state if its block raises, also after Ctrl-C.

        `unless`: returns whether the flow has a state that is kept although the block raises.
        """
        flow = self._flow
        structure = {name: getattr(flow, name) for name in STRUCTURE}
        program, vector = flow.__dict__.get("_program"), self.vector()  # the program may not be compiled yet
        names = self.names
        try:
            yield
        except BaseException:
            if not unless():
                flow._take_parameters(vector, program=program, **structure)
                if self.names is not names:
                    self.name(names)
            raise


class Interior(Restorable):
    """The private interface of a flow of rows, with its chain and base at the time of `Flow._interior`."""

    def __init__(self, flow: Any) -> None:
        """`flow`: a `headrace._flow.flow.Flow`."""
        super().__init__(flow)
        self.base: Base = flow._base  # the structure of the base, without parameters
        self.on_device: bool = flow._device is not None

    @property
    def standardize(self) -> Standardize | None:
        """The `Standardize` at the data end, or next to a `Support` at the data end; None without a `Standardize`."""
        last = self.chain[self._end - 1] if self._end else None
        return last if isinstance(last, Standardize) else None

    @property
    def links(self) -> tuple[Transform, ...]:
        """The transforms at the data end that a fit sets: curves, residual columns, and at last `standardize`."""
        first = self._end - 1
        while first > 1 and isinstance(linear := self.chain[first - 1], Linear) and not linear.trainable:
            first -= 2  # a fixed Linear, and the Standardize before it, of the residual columns
        while first > 0 and isinstance(self.chain[first - 1], Gaussianize):
            first -= 1
        return self.chain[max(first, 0) : self._end] if self.standardize is not None else ()

    @property
    def is_over_a_bell(self) -> bool:
        """Whether the base has one mode and identically distributed columns, like the normal distribution.

        For a flow with periodic columns, whose base is uniform, only the remaining columns count.
        """
        last = self.chain[-1] if self.chain else None
        if isinstance(self.base, Independent) and isinstance(last, Support):
            periods = last.periodic
            others = {one for one, period in zip(self.base.densities, periods, strict=True) if period is None}
            return any(periods) and others in ({"normal"}, {"logistic"})
        return isinstance(self.base, (StandardNormal, Normal, Logistic))

    @property
    def support(self) -> Support | None:
        """The `Support` at the data end, on the flow's device; None without a `Support`."""
        if self._end == len(self.chain):
            return None
        return self._flow.transforms[-1]

    @property
    def order(self) -> tuple[int, ...] | None:
        """The columns 0, 1, ..., if for each n the first n columns depend on no later columns; otherwise None."""
        transforms, features = self._flow._transforms_on(None), self._flow.features
        try:
            for n in range(1, features):
                chain_of(transforms, range(n))
        except ValueError:
            return None
        return tuple(range(features))

    @property
    def _end(self) -> int:
        """The number of transforms before the `Support`; the number of all transforms without a `Support`."""
        n = len(self.chain)
        return n - 1 if n and isinstance(self.chain[-1], Support) else n

    @property
    def is_fresh(self) -> bool:
        """Whether the flow has a `Standardize` at the data end that no fit has set."""
        last = self.standardize
        return last is not None and last.is_identity

    @property
    def widest(self) -> int:
        """The number of units of the widest hidden layer; 0 without hidden layers."""
        return max((n for t in self.chain for n in t._hidden()), default=0)

    @property
    def bends(self) -> bool:
        """Whether any network computes the parameters of a map other than a shift and a scale, such as a spline."""
        return any(t._map_of_network() not in (None, "affine", "additive") for t in self.chain)

    @property
    def drops(self) -> bool:
        """Whether any layer has dropout."""
        networks = (network for t in self.chain for network in t._networks())
        return any(layer.dropout for network in networks for layer in network)

    @property
    def names(self) -> Names:
        """The names of the columns of the flow; see `Restorable`."""
        return self._flow._names

    def name(self, names: Names) -> None:
        """Set the names of the flow's columns; see `Restorable`."""
        self._flow._names = names

    def products(self, matmul: Any) -> str:
        """The checked setting of networks' products in steps of a fit: `matmul`, or by default the flow's setting."""
        flow = self._flow
        if matmul is None:
            return flow.matmul
        found = check.choice("matmul", matmul, MATMULS["cuda"]) if self.on_device else matmul_on_cpu(matmul)
        refuse_wide(flow.dtype, found, ".astype('float32')")
        return found

    def stepping(self, matmul: str) -> tuple[Program, Callable[[], Any]]:
        """The program for gradients of steps, and a function that returns a step's parameters or None."""
        program = self.program
        if matmul == self._flow.matmul:
            return program, lambda: None
        twin: Program = self._flow.to(self._flow.device, matmul)._program
        return twin, program.weights if self.on_device else lambda: program

    def blocks(self) -> list[Block]:
        """The blocks of the flow's parameters, in the order of the vector."""
        return [block for _, block in self._flow._blocks()]

    def rescale(
        self,
        links: tuple[Transform, ...] | None,
        context: Pair | None,
        parameters: NDArray[Any] | None = None,
        *,
        replaced: int = 1,
        base: Base | None = None,
    ) -> None:
        """Set the standardisation of data (`links`) or of the context, and `parameters` if given.

        The links replace `standardize` and transforms before it, `replaced` transforms in all. Parameters of links
        follow the flow's parameters in the vector; the replaced transforms must have no parameters. A `base` replaces
        the flow's base; neither base may have parameters.
        """
        structure: dict[str, Any] = {}
        if parameters is None:
            parameters = self.vector()
        if links is not None:
            new = tuple(link._bare() for link in links)
            structure["_chain"] = (*self.chain[: self._end - replaced], *new, *self.chain[self._end :])
            parameters = np.concatenate([parameters, *(link._vector().astype(self._flow.dtype) for link in links)])
        if context is not None:
            structure["_standardize_context"] = context
        if base is not None:
            structure["_base"] = base
        self._flow._take_parameters(parameters, **structure)

    def precede(self, links: tuple[Transform, ...]) -> None:
        """Add transforms without parameters at the latent end of the chain."""
        self._flow._take_parameters(self.vector(), _chain=(*(link._bare() for link in links), *self.chain))

    def become(self, other: Any) -> None:
        """Take over the structure, the standardisation and the parameters of another flow, such as a fitted copy."""
        structure = {name: getattr(other, name) for name in STRUCTURE}
        self._flow._take_parameters(other._vector(), **structure)

    def start(self, started: Mapping[int, Transform]) -> None:
        """Replace transforms of the chain, by index, by transforms of equal class and size, with their parameters."""
        flow = self._flow
        vector = self.vector()[: flow._base_size()]
        parts = [started.get(i, t)._vector() for i, t in enumerate(flow._transforms_on(None))]
        flow._chain = tuple(started[i]._bare() if i in started else t for i, t in enumerate(flow._chain))
        flow._put_parameters(np.concatenate([vector, *parts]))
