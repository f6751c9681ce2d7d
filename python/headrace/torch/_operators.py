"""PyTorch operators on compiled flows, with rules for autograd, vmap, compile and export.

The schema of an operator can only contain tensors and numbers, so that a flow is passed as the index of its entry in a
table. The table does not keep the flow in memory: the caller does. Operators are defined by `torch.library.Library`,
which imports no compiler.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace import Flow, files
from headrace._core.device import BF16_KINDS, MATMULS

_NUMPY: dict[Any, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_table: weakref.WeakValueDictionary[int, Compiled] = weakref.WeakValueDictionary()
_lock = threading.Lock()  # locks _table in Pythons without a global lock
# The first index is random: a graph that another process exported must find no module here rather than a wrong one.
_numbers = itertools.count(secrets.randbits(61) + 1)


class Compiled:
    """A flow for the operators, with parameters of any dtype and device; a copy is a new entry of the flows' table."""

    def __init__(self, flow: Flow, matmul: str) -> None:
        self.handle = next(_numbers)
        self.matmul = matmul
        self.one_run = True  # whether one run has densities and gradients; False after a loss weighs rows differently
        self.replace(flow)
        with _lock:
            _table[self.handle] = self

    def replace(self, flow: Flow) -> None:
        """Replace the flow by another one of the same sizes."""
        if {flow.matmul, self.matmul} & BF16_KINDS.keys():  # products in bf16 define the density, those in tf32 do not
            self.matmul = flow.matmul
        self.flow = flow.to("cpu", flow.matmul if flow.matmul in BF16_KINDS else "exact")
        self.n_parameters: int = self.flow._program.n_weights  # compiles the chain, which torch.compile cannot trace
        self.mark = self._of_what_is_fixed()
        self._placed: dict[tuple[torch.dtype, torch.device], Flow] = {}

    def at(self, parameters: Tensor) -> Flow:
        """The flow in the dtype and on the device of these parameters."""
        place = parameters.dtype, parameters.device
        found = self._placed.get(place)
        if found is None:
            if parameters.dtype not in _NUMPY:
                raise TypeError(f"parameters: expected float32 or float64, got {parameters.dtype}; call .float()")
            if self.matmul in BF16_KINDS and (parameters.is_cuda or parameters.dtype != torch.float32):
                got = f"{parameters.dtype} on {parameters.device}"
                raise ValueError(f"matmul: expected float32 on the CPU for bf16, got {got}; take flow.to('cpu')")
            known = MATMULS["cuda" if parameters.is_cuda else "cpu"]
            matmul = self.matmul if self.matmul in known and parameters.dtype == torch.float32 else "exact"
            found = self.flow.astype(_NUMPY[parameters.dtype]).to(str(parameters.device), matmul)
            return self._placed.setdefault(place, found)  # another thread may have stored a flow
        return found

    def _of_what_is_fixed(self) -> float:
        """A number, exact in float64, that identifies the flow's structure and standardisation."""
        try:
            structure = files.structure_checksum(self.flow)
        except (TypeError, ValueError):  # a class that files cannot store
            structure = str(self.handle)
        return float(int.from_bytes(hashlib.blake2b(structure.encode(), digest_size=6).digest(), "little"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(self.flow, self.matmul)

    def __reduce__(self) -> Any:
        return _restored, (files.to_bytes(self.flow), self.matmul)


def _restored(content: bytes, matmul: str) -> Compiled:
    return Compiled(files.from_bytes(content), matmul)


def compiled(handle: int) -> Compiled:
    """The entry with this handle; an error if its module no longer exists."""
    with _lock:
        found = _table.get(handle)
    if found is None:
        got = f"{handle}; a graph that was compiled or exported needs the FlowModule that it was made from"
        raise RuntimeError(f"handle: expected that of a module that lives, got {got}")
    return found


# ---- bodies of the operators -----------------------------------------------------------------------------------------


def _on_host(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _placed(handle: int, parameters: Tensor) -> tuple[Any, Callable[[Tensor | None], Any]]:
    """The program on the parameters' device, and a function that converts tensors to arrays on PyTorch's stream."""
    flow = compiled(handle).at(parameters)
    if parameters.is_cpu:
        return flow._program, _on_host
    caller: Any = flow._caller()
    caller.answer_like(parameters.detach())
    return caller.queued(
        flow._program
    ), lambda tensor: None if tensor is None else caller.open("tensor", tensor.detach())


def _as_rows(context: Tensor | None) -> Tensor | None:
    return context[None] if context is not None and context.ndim == 1 else context


def log_prob(x: Tensor, context: Tensor | None, parameters: Tensor, handle: int) -> Tensor:
    """Log densities of rows, shape (rows,)."""
    program, opened = _placed(handle, parameters)
    log_prob = parameters.new_empty(x.shape[0])
    own = {"context": opened(_as_rows(context)), "parameters": opened(parameters.contiguous())}
    program.log_prob(opened(x), opened(log_prob), **own)
    return log_prob


def run(
    value: Tensor, context: Tensor | None, parameters: Tensor, handle: int, inverse: bool, of_log_prob: bool
) -> tuple[Tensor, Tensor]:
    """Rows mapped to latent or to data, with log-determinants, or with the log densities of rows made from noise."""
    program, opened = _placed(handle, parameters)
    out, number = parameters.new_empty(value.shape), parameters.new_empty(value.shape[0])
    own = {"context": opened(_as_rows(context)), "parameters": opened(parameters.contiguous())}
    if of_log_prob:
        program.from_noise(opened(value), value=opened(out), log_prob=opened(number), **own)
    else:
        program.transform(inverse, opened(value), value=opened(out), log_det=opened(number), **own)
    return out, number


def vjp(
    value: Tensor,
    context: Tensor | None,
    parameters: Tensor,
    grad_value: Tensor | None,
    grad_row: Tensor | None,
    handle: int,
    inverse: bool,
    of_log_prob: bool,
    wrt: list[bool],
    log_prob: Tensor | None = None,
    dropout: int | None = None,
) -> list[Tensor]:
    """Gradients by the inputs, from gradients by the resulting rows and by their log-determinants or log densities.

    The log densities are written to `log_prob`. `dropout` is a seed, as in `Flow.nll_and_grad`.
    """
    program, opened = _placed(handle, parameters)
    context, rows = _as_rows(context), value.shape[0]
    context_shape = None if context is None else (rows, context.shape[1])
    shapes = value.shape, context_shape, parameters.shape
    found = [
        parameters.new_empty(s) if wanted and s is not None else None for s, wanted in zip(shapes, wrt, strict=True)
    ]
    program.gradient(
        inverse=inverse,
        of_log_prob=of_log_prob,
        input=opened(value),
        context=opened(context),
        grad_value=opened(grad_value),
        grad_row=opened(grad_row),
        log_prob=opened(log_prob),
        **dict(zip(("grad_input", "grad_context", "grad_weights"), map(opened, found), strict=True)),
        parameters=opened(parameters.contiguous()),
        dropout=dropout,
    )
    by_context = found[1]
    if by_context is not None and context is not None and context.shape[0] != rows:  # one context for all rows
        found[1] = by_context.sum(0, keepdim=True, dtype=torch.float64).to(by_context.dtype)
    return [gradient for gradient in found if gradient is not None]


# ---- definitions -----------------------------------------------------------------------------------------------------

library = torch.library.Library("headrace", "DEF")


def _gradients_like(value: Tensor, context: Tensor | None, parameters: Tensor, *rest: Any) -> list[Tensor]:
    given = value, _as_rows(context), parameters
    return [
        parameters.new_empty(t.shape) for t, wanted in zip(given, rest[-1], strict=True) if wanted and t is not None
    ]


# For each operator the schema, the body, and a body for tensors without values, where only shapes matter.
_SCHEMAS: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    "log_prob": (
        "(Tensor x, Tensor? context, Tensor parameters, int handle) -> Tensor",
        log_prob,
        lambda x, context, parameters, *rest: parameters.new_empty(x.shape[0]),
    ),
    "run": (
        "(Tensor value, Tensor? context, Tensor parameters, int handle, bool inverse, bool of_log_prob) "
        "-> (Tensor, Tensor)",
        run,
        lambda x, context, parameters, *rest: (parameters.new_empty(x.shape), parameters.new_empty(x.shape[0])),
    ),
    "vjp": (
        "(Tensor value, Tensor? context, Tensor parameters, Tensor? grad_value, Tensor? grad_row, int handle, "
        "bool inverse, bool of_log_prob, bool[3] wrt) -> Tensor[]",
        vjp,
        _gradients_like,
    ),
}


def define(name: str, schema: str, body: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define an operator; `fake` is its body for tensors without values."""
    library.define(name + schema)
    for key in ("CPU", "CUDA"):
        library.impl(name, body, key)
    torch.library.register_fake(f"headrace::{name}", fake, lib=library)


for _name, _parts in _SCHEMAS.items():
    define(_name, *_parts)

ops = torch.ops.headrace  # the operators, called by PyTorch's dispatcher, which tracing needs
