"""What the adapters of torch libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.peers.adapter import Model


def setup(threads: int) -> None:
    """Import torch and set its threads."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)


def inference_model(
    module: Any, log_prob: Callable[[Any], Any], sample: Callable[[int], Any], passes: int, **options: Any
) -> Model:
    """The model of a module in evaluation mode, called without any gradient bookkeeping."""
    import torch

    module.eval()
    module.requires_grad_(False)
    return Model(
        log_prob=torch.inference_mode()(log_prob),
        sample=torch.inference_mode()(sample),
        to_native=torch.from_numpy,
        to_numpy=lambda result: result.numpy(),
        passes=passes,
        **options,
    )
