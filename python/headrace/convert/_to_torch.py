"""Flows of headrace as modules of plain PyTorch."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.stored import header_of
from headrace._core.device import BF16_KINDS
from headrace._flow.flow import Flow
from headrace.convert._parts import Numbers
from headrace.convert._verify import verify_made

if TYPE_CHECKING:
    from headrace.convert.plain import PlainFlow


def to_torch(flow: Flow, *, verify: bool = True) -> PlainFlow:
    """A flow as a module of PyTorch operators, with the same density and the same parameters.

    The module has `log_prob` (which a call of the module computes), `to_latent`, `to_data` and `sample`, on any device
    that PyTorch has, with PyTorch's autograd, `torch.compile` and `torch.export`. The module's code is
    ``headrace.convert.plain``, which imports only PyTorch: a copy of this folder opens files of `Flow.save` on systems
    without headrace. All transforms, maps and bases convert. PyTorch determines the speed: a direction that
    computes one coordinate after another runs the network once for each coordinate.

    Args:
        flow: Any `Flow`, but not an `Ensemble`.
        verify: Whether to compare log densities and samples of some rows with the flow's.

    Returns:
        A `headrace.convert.plain.PlainFlow` in the flow's dtype, on the CPU.

    Raises:
        TypeError: `flow` is not a `Flow`, or has a part of a class that files do not support.
        ValueError: densities or rows differ by more than rounding, or the flow has products in bf16.
    """
    import torch

    from headrace.convert.plain import PlainFlow

    flow, header, arrays = opened_flow(flow)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    module = PlainFlow({**header, "dtype": str(flow.dtype)}, tensors)
    if verify:
        wide = copy.deepcopy(module).double()

        def called(method: Any, rows: Numbers, context: Numbers | None) -> Numbers:
            context_tensor = None if context is None else torch.from_numpy(context)
            with torch.no_grad():
                result = method(torch.from_numpy(rows), context_tensor)
            return np.asarray((result if isinstance(result, torch.Tensor) else result[0]).numpy())

        verify_made(flow, partial(called, wide.log_prob), partial(called, wide.to_data))
    return module


def opened_flow(flow: Any, dtype: str | None = None) -> tuple[Flow, dict[str, Any], dict[str, Any]]:
    """A flow on the CPU, perhaps in another dtype, the header of its file, and copies of the file's arrays by name."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow: expected a headrace.Flow, got {check.kind_of(flow)}")
    if flow.matmul in BF16_KINDS:
        raise ValueError(f"matmul: expected 'exact', as in PyTorch, got {flow.matmul!r}; call flow.to('cpu')")
    flow = flow.to("cpu") if dtype is None else flow.to("cpu").astype(dtype)
    arrays = {**flow.named_parameters(), **flow._fixed_arrays()}
    return flow, header_of(flow), {name: np.array(array) for name, array in arrays.items()}
