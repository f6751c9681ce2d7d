"""Models of sbi and of `headrace.torch` that contain a flow; this module imports neither sbi nor PyTorch."""

from __future__ import annotations

import importlib
from typing import Any


def opened(model: Any, context: Any) -> tuple[Any, Any]:
    """The flow in a model of sbi or `headrace.torch`, and its context; other arguments are returned unchanged."""
    kinds = type(model).__mro__
    is_of_sbi = any(kind.__module__.split(".")[0] == "sbi" for kind in kinds)
    is_module = any(kind.__module__ in ("headrace.torch.module", "headrace.torch.faces") for kind in kinds)
    if is_of_sbi:
        model = importlib.import_module("headrace.integrations.sbi").estimator_in(model)
    if not (is_of_sbi or is_module):
        return model, context
    return importlib.import_module("headrace.torch.faces").flow_and_context(model, context)
