"""Flows inside PyTorch: modules and distributions with exact gradients by inputs, context and parameters.

>>> import torch, headrace as hr
>>> from headrace.torch import FlowModule
>>> module = FlowModule(hr.MAF(2, context=3, seed=0))
>>> x, context = torch.randn(5, 2), torch.randn(5, 3, requires_grad=True)
>>> loss = -module.log_prob(x, context).mean()
>>> loss.backward()
>>> context.grad.shape, module.vector.grad.shape == module.vector.shape
(torch.Size([5, 3]), True)
"""

from __future__ import annotations

from headrace._base import arguments as check
from headrace._base.install import install

try:
    import torch
except ImportError as error:
    raise ImportError(f"headrace.torch needs PyTorch 2.5 or newer: {install('torch')}") from error

check.framework("torch", torch.__version__, (2, 5))

from headrace.torch import _threads  # noqa: E402
from headrace.torch.couplings import coupling  # noqa: E402
from headrace.torch.distribution import FlowDistribution  # noqa: E402
from headrace.torch.module import FlowModule, TransformModule  # noqa: E402
from headrace.torch.sequences import SequenceModule  # noqa: E402

_threads.borrow()

__all__ = ["FlowDistribution", "FlowModule", "SequenceModule", "TransformModule", "coupling"]
