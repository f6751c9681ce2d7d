"""Evaluation of flows and transforms: checks of arguments, calls of the core, and results in the caller's framework."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array, Caller
from headrace._arrays.shapes import Rows, drawn, flat, opened, summed
from headrace._base import arguments as check
from headrace._base.keywords import refuse
from headrace._core import cpu
from headrace._core import device as _device
from headrace._core.steps import StepSpec
from headrace._flow.program.module import Parametrised, Program

Pair = tuple[Array, Array]
Gradients = tuple[Array, ...]
Opened = tuple[Caller, Rows, Program, "np.dtype[Any]", "NDArray[Any] | None"]  # the dtype of the results

WRT = ("inputs", "parameters")

_BLOCK = 1 << 16  # rows that are converted at a time from another byte order or dtype


@dataclass(frozen=True, eq=False)
class Cotangents:
    """Gradients of a scalar by the results of a run; None in `value` is zero, and None in `row` is one in each row."""

    value: NDArray[Any] | None = None  # the gradient by the values
    row: NDArray[Any] | None = None  # the gradient by the log-determinants, or by the log-densities
    row_scale: float = 1.0  # a factor of `row`
    of_log_prob: bool = False

    @classmethod
    def of_pair(cls, names: tuple[str, str], value: Any, row: Any, rows: Rows, features: int, caller: Caller) -> Any:
        """The checked cotangents of values and of log-determinants, where None is zero."""
        if value is not None:
            value = _arrays.shaped(names[0], value, (*rows.batch, features), caller)
            value = value.reshape(rows.rows, features)
        if row is None:
            return cls(value, None, 0.0)
        return cls(value, cls.of_rows(names[1], row, rows, caller))

    @staticmethod
    def of_rows(name: str, value: Any, rows: Rows, caller: Caller) -> NDArray[Any]:
        """The checked cotangent with one value for each row."""
        return _arrays.shaped(name, value, rows.batch, caller).reshape(rows.rows)


def kinds_of(wrt: Any, options: tuple[str, ...] = ("inputs", "parameters", "context")) -> tuple[str, ...]:
    """The checked names of the variables in `wrt`."""
    given = (wrt,) if isinstance(wrt, str) else tuple(wrt) if np.iterable(wrt) else (wrt,)
    kinds = tuple(check.choice("wrt", kind, options) for kind in given)
    if not kinds or len(set(kinds)) != len(kinds):
        raise ValueError(f"wrt: expected different names out of {options}, at least one, got {wrt!r}")
    return kinds


class RowModule(Parametrised):
    """The base class of transforms and flows of rows: a list of steps that rows pass in either direction."""

    @abc.abstractmethod
    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        """The steps of the program, from latent to data."""

    def _base_steps(self) -> tuple[str, list[StepSpec]] | None:
        """The standard density of a flow's base, and the steps from this density to the base; None for a transform."""
        return None

    def _context_scale(self) -> tuple[list[float], list[float]]:
        """The mean and the standard deviation by which context columns are standardised; empty lists for none."""
        return [], []

    def _compile(self, dtype: np.dtype[Any]) -> Program:
        """A program for the CPU or the device; see `Parametrised`."""
        arguments = self._made_for(cpu if self._device is None else _device.cuda())
        if self._device is not None:
            return _device.Program(self._device, dtype, *arguments)
        if self._products in _device.BF16_KINDS:
            return cpu.ProgramF32(*arguments, bf16_kind=_device.BF16_KINDS[self._products])
        return (cpu.ProgramF32 if dtype == np.float32 else cpu.ProgramF64)(*arguments)

    def _made_for(self, core: Any) -> tuple[int, int, str, list[Any], int, list[float], list[float]]:
        """The arguments of a program's constructor, with steps of the compiled module `core`."""
        steps, base, base_steps = self._steps(), "", 0
        if (of_base := self._base_steps()) is not None:
            base, first = of_base
            steps, base_steps = [*first, *steps], len(first)
        made = [step.made_for(core) for step in steps]
        return self._features, self._context, base, made, base_steps, *self._context_scale()

    def _program_and_dtype(self, dtype: np.dtype[Any]) -> tuple[Program, np.dtype[Any]]:
        """The program for rows of this dtype, and the dtype of the program's results."""
        assert self._dtype is not None
        return self._program, self._dtype

    def _opened(self, name: str, value: Any, context: Any, parameters: Any, raw: bool = False) -> Opened:
        """The checked arguments that all methods share: rows, context, and a vector that replaces the parameters."""
        caller = self._caller()
        rows = opened(caller, name, value, context, self._features, self._context, raw)
        assert rows.array is not None
        program, dtype = self._program_and_dtype(rows.array.dtype)
        vector = None if parameters is None else self._own_parameters(parameters, program, dtype, caller)
        return caller, rows, program, dtype, vector

    def _own_parameters(self, value: Any, program: Program, dtype: np.dtype[Any], caller: Caller) -> NDArray[Any]:
        """The checked vector that replaces the parameters, contiguous and in the dtype of the program."""
        array = _arrays.shaped("parameters", value, (program.n_weights,), caller)
        return _arrays.ready(array, dtype, caller)

    def _run(
        self,
        caller: Caller,
        verb: Callable[..., None],
        inputs: tuple[Any, ...],
        results: tuple[NDArray[Any] | None, ...],
        rows: Rows,
        vector: NDArray[Any] | None,
    ) -> None:
        """Run the core once, or block by block if rows have to be converted.

        The method `verb` of a program takes the input, results, context and parameters by position: keywords would take
        0.3 us more, a fifteenth of a call with one row.
        """
        n, context = rows.rows, rows.context
        if len(rows.batch) != 1:
            results = tuple(None if a is None else a.reshape(n, *a.shape[len(rows.batch) :]) for a in results)
        if not caller.foreign:
            verb(*inputs, *results, context, vector)
            return
        *how, array = inputs
        for part in _blocks(n):
            context_part = context if context is None or len(context) == 1 else context[part]
            verb(
                *how,
                _arrays.native(array[part]),
                *(None if a is None else a[part] for a in results),
                context_part,
                vector,
            )

    def _both(self, inverse: bool, values: Any, context: Any, parameters: Any, out: Any) -> Pair:
        """The values and log-determinants of one direction: the inverse of x, or the forward map of z."""
        name = "x" if inverse else "z"
        caller, rows, program, dtype, vector = self._opened(name, values, context, parameters, True)
        array = rows.array
        shape = rows.shape if rows.shape[:-1] == rows.batch else (*rows.batch, self._features)
        inputs = (array, rows.context, vector)
        value, log_det = caller.output_pair(out, dtype, shape, rows.batch, inputs, in_place=name)
        self._run(caller, caller.queued(program).transform, (inverse, array), (value, log_det), rows, vector)
        return caller.give_pair(value, log_det)

    def _sample(
        self,
        verb: Callable[..., Any],
        with_log_prob: bool,
        n: Any,
        context: Any,
        seed: Any,
        like: Any,
        /,
        *,
        first_row: Any = None,
        parameters: Any = None,
        noise: Any = None,
        dtype: Any = None,
        out: Any = None,
        **unknown: Any,
    ) -> Any:
        """Samples from a program with a base, and on request their log densities; see `Flow.sample`."""
        if unknown:
            refuse(verb, unknown)
        caller, width = self._caller(), self._features
        assert self._dtype is not None
        flow_dtype = self._dtype
        if like is not None:
            caller.answer_like(like)
        key = check.seed(seed)
        rows = drawn(caller, n, context, width, self._context)
        first = check.first_row(first_row, rows.rows)
        if noise is not None:
            if first is not None:
                raise ValueError(f"first_row: expected None beside noise, which is of these rows already, got {first}")
            opened_noise = _arrays.shaped("noise", noise, rows.shape, caller)
            with caller.queue():
                rows.array = opened_noise.reshape(rows.rows, width)
        kind = flow_dtype if dtype is None else check.float_dtype("dtype", dtype)
        if kind != flow_dtype and kind != np.float64:
            raise ValueError(f"dtype: expected 'float64', as the flow's own, got {dtype!r}; call .astype of the flow")
        vector = None if parameters is None else self._own_parameters(parameters, self._program, flow_dtype, caller)
        inputs = (rows.array, rows.context, vector)
        log_prob: Any = None
        if with_log_prob:
            x, log_prob = caller.output_pair(out, flow_dtype, rows.shape, rows.batch, inputs, first_dtype=kind)
        else:
            x = caller.output(out, kind, rows.shape, inputs)
        program = caller.queued(self._program)
        if noise is None:
            self._run(caller, program.sample, (rows.rows, key, first), (x, log_prob), rows, vector)
        else:
            self._run(caller, program.from_noise, (rows.array,), (x, log_prob), rows, vector)
        return caller.give_pair(x, log_prob) if with_log_prob else caller.give(x)

    def _vjp_to_data(
        self,
        z: Array,
        grad_x: Array | None,
        grad_log_det: Array | None,
        context: Array | None = None,
        *,
        wrt: Sequence[str] = WRT,
        parameters: Array | None = None,
        values: bool = False,
    ) -> Gradients:
        """The vector-Jacobian product from latent to data, of a flow's `to_data` or a transform's `forward`.

        Args:
            z, context, parameters: The arguments of `to_data` or `forward`.
            grad_x: The gradient of a scalar by x, in the shape of x, or None for zero.
            grad_log_det: The gradient of the same scalar by log_det, in the shape of log_det, or None for zero.
            wrt: Names of the gradients to return, in the order of the result: "inputs", in the shape of z; "parameters"
                (n,), as in `parameters`; "context", in the context's shape. The gradient of a broadcast array is the
                sum over its repetitions.
            values: Whether to return ``((x, log_det), gradients)`` from one run.

        Returns:
            A tuple of arrays. A NaN or an infinity in a row makes gradients by this row and by parameters NaN.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.MAF(3, transforms=2, hidden=(8,))
        >>> grad_z, grad_parameters = flow.to_data_vjp(np.ones((5, 3)), np.ones((5, 3)), np.ones(5))
        >>> grad_z.shape, grad_parameters.shape == flow.parameters.shape
        ((5, 3), True)
        >>> t = hr.transforms.Standardize([0.0], [3.0])
        >>> (x, log_det), (grad_z,) = t.forward_vjp(np.ones((1, 1)), np.ones((1, 1)), None, wrt="inputs", values=True)
        >>> x.tolist(), grad_z.tolist()
        ([[3.0]], [[3.0]])
        """
        return self._both_vjp(False, z, grad_x, grad_log_det, context, wrt, parameters, values)

    def _vjp_to_latent(
        self,
        x: Array,
        grad_z: Array | None,
        grad_log_det: Array | None,
        context: Array | None = None,
        *,
        wrt: Sequence[str] = WRT,
        parameters: Array | None = None,
        values: bool = False,
    ) -> Gradients:
        """Vector-Jacobian product of `to_latent` or `inverse`, from data to latent; arguments as in `to_data_vjp`."""
        return self._both_vjp(True, x, grad_z, grad_log_det, context, wrt, parameters, values)

    def _both_vjp(
        self,
        inverse: bool,
        given: Any,
        grad_value: Any,
        grad_log_det: Any,
        context: Any,
        wrt: Any,
        parameters: Any,
        values: bool,
    ) -> Gradients:
        name, of_value = ("x", "grad_z") if inverse else ("z", "grad_x")
        opened = caller, rows, _, dtype, _ = self._opened(name, given, context, parameters)
        names = (of_value, "grad_log_det")
        cotangents = Cotangents.of_pair(names, grad_value, grad_log_det, rows, self._features, caller)
        kinds = kinds_of(wrt)
        if not values:
            return self._backward(opened, cotangents, kinds, inverse=inverse)
        value = caller.empty((*rows.batch, self._features), dtype)
        log_det = caller.empty(rows.batch, dtype)
        gradients = self._backward(opened, cotangents, kinds, inverse=inverse, value=value, log_det=log_det)
        return caller.give_pair(value, log_det), gradients

    def _backward(
        self,
        opened: Opened,
        cotangents: Cotangents,
        kinds: tuple[str, ...],
        *,
        inverse: bool,
        value: NDArray[Any] | None = None,
        log_det: NDArray[Any] | None = None,
        log_prob: NDArray[Any] | None = None,
        dropout: int | None = None,
    ) -> Gradients:
        """Run the program forward and back; return the gradients in the order of `kinds`."""
        caller, rows, program, dtype, vector = opened
        if "context" in kinds and rows.context is None:
            raise ValueError("wrt: expected no 'context', because this takes no context, got 'context'")
        n, batch = rows.rows, rows.batch
        shapes = {"inputs": rows.shape, "context": rows.context_shape}
        made_in = {**shapes, "context": rows.context_given}  # the shapes of the gradients that are returned
        made: dict[str, Any] = {}
        core: dict[str, Any] = dict.fromkeys(("inputs", "context", "parameters"))
        for kind in kinds:
            if kind == "parameters":
                core[kind] = made[kind] = caller.empty((program.n_weights,), dtype)
            elif shapes[kind][:-1] == batch:
                made[kind] = caller.empty(made_in[kind], dtype)
                core[kind] = made[kind].reshape(n, shapes[kind][-1])
            else:  # the argument was broadcast
                core[kind] = caller.scratch((n, shapes[kind][-1]), dtype)
        given = (rows.array, None, rows.context)  # without an index, all rows are used
        by = (cotangents.value, cotangents.row, cotangents.row_scale)
        results = (flat(value, n, self._features), flat(log_det, n), flat(log_prob, n))
        # The arguments of `gradient` are positional, because keywords would take 1 us more, a tenth of a call with one
        # row.
        queued, asked = caller.queued(program), (vector, dropout)
        queued.gradient(inverse, cotangents.of_log_prob, *given, *by, *results, *core.values(), *asked)
        for kind in kinds:
            if kind not in made:
                with caller.queue():
                    total = summed(core[kind], batch, shapes[kind])
                    made[kind] = caller.empty(made_in[kind], dtype)
                    made[kind][...] = total.reshape(made_in[kind])
        return tuple(caller.give(made[kind]) for kind in kinds)


def _blocks(rows: int) -> Iterator[slice]:
    """Slices of about `_BLOCK` of n rows; no slice is so short that another kernel would compute it."""
    count = max(1, round(rows / _BLOCK))
    edges = [rows * i // count for i in range(count + 1)]
    for begin, end in pairwise(edges):
        yield slice(begin, end)
