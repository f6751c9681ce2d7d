"""The fingerprint of a fit: its settings and its flow."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from headrace import files
from headrace._fit.plan import Plan
from headrace._flow.internals import Trainable


def of_settings(flow: Trainable, checked: Plan, seed: int, plan: dict[str, Any]) -> dict[str, str]:
    """Everything that has to be equal for a fit to go on, except rows, each with its name."""
    module: Any = flow
    structure, numbers = files.checksums(module)
    found = {name: _text(value) for name, value in plan.items() if name != "matmul"}
    found |= {f"{name} as chosen": _text(value) for name, value in asdict(checked).items() if found.get(name) == "None"}
    found |= {"seed": str(seed), "batches of an epoch": str(checked.batches)}
    found |= {"device": "a CUDA device" if flow._interior.on_device else "the CPU", "matmul": module.matmul}
    if checked.matmul != module.matmul:
        found["matmul of steps"] = checked.matmul
    return found | {"structure of the flow": structure, "parameters at the start": numbers}


def _text(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)
