"""Flows of headrace in plain PyTorch: this folder imports only PyTorch, and may be copied to systems without headrace.

    flow = load("flow.safetensors")  # a file of headrace, which the package safetensors opens
    log_prob = flow(x)

The module computes the formulas of docs/files.md by PyTorch's operators: autograd, `torch.export` and `torch.compile`
support it. A direction that computes one coordinate after another runs the network once for each coordinate. Names in
the module's `state_dict` are the names of tensors in a file.

The formulas of all transforms are in `transforms.py`, which needs no library, and from which headrace also makes graphs
of ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flow import PlainFlow, load

__all__ = ["PlainFlow", "load"]


def __getattr__(name: str) -> Any:
    """Import names of `flow.py`, which imports PyTorch, on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import flow

    return getattr(flow, name)
