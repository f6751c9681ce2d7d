"""What tells one fit from another: its settings, its flow, its rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import files
from headrace._fit.rows import Data, Part, checksum
from headrace._fit.streams import StreamData

if TYPE_CHECKING:
    from headrace._fit.plan import Plan
    from headrace._interior import Trainable

__all__ = ["fingerprint", "of_settings"]


def fingerprint(
    flow: Trainable, data: Data, given: tuple[Data, Part] | None, checked: Plan, seed: int, plan: dict[str, Any]
) -> dict[str, str]:
    """What has to be the same for a fit to go on, each with its name; rows by a checksum of all their numbers."""
    told = {**of_settings(flow, checked, seed, plan), **_of_rows("", data)}
    if given is not None:
        told["rows held out"] = str(given[1].size)
        if given[0] is not data:
            told |= _of_rows("validation ", given[0])
    return told


def of_settings(flow: Trainable, checked: Plan, seed: int, plan: dict[str, Any]) -> dict[str, str]:
    """All of it but rows."""
    module: Any = flow
    structure, numbers = files.checksums(module)
    told = {name: _text(value) for name, value in plan.items()}
    told |= {f"{name} as chosen": _text(value) for name, value in asdict(checked).items() if told.get(name) == "None"}
    told |= {"seed": str(seed), "batches of an epoch": str(checked.batches)}
    told |= {"device": "a CUDA device" if flow._interior.on_device else "the CPU", "matmul": module.matmul}
    return told | {"structure of the flow": structure, "parameters at the start": numbers}


def _text(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def _of_rows(prefix: str, data: Data) -> dict[str, str]:
    if isinstance(data, StreamData):
        return {**data.fingerprint, "buffer": str(data.buffer)}
    parts = {"x": data.x, "context": data.context, "weights": data.weights}
    return {prefix + name: "none" if array is None else _of_array(array) for name, array in parts.items()}


def _of_array(array: Any) -> str:
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}, checksum {checksum(array):08x}"
