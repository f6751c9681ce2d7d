"""Flows of headrace in plain PyTorch: this folder imports PyTorch alone, and may be copied to where headrace is not.

    flow = load("flow.safetensors")  # a file of headrace, which the package safetensors opens
    log_prob = flow(x)

It computes what docs/files.md says with PyTorch's operators, so that autograd, `torch.export` and `torch.compile` take
it. A direction that builds one coordinate after another runs the network once for each. Names in a `state_dict` are
those of the tensors in a file.

What a file means is in `transforms.py`, which is of no library: graphs of ONNX are made by it too, without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flow import PlainFlow, load

__all__ = ["PlainFlow", "load"]


def __getattr__(name: str) -> Any:
    """Those of `flow.py`, which imports PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import flow

    return getattr(flow, name)
