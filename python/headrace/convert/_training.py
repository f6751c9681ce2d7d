"""Refusal of models with layers in training mode whose density differs in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def refuse_training(layers: Iterable[tuple[str, Any]]) -> None:
    """Raise ValueError for batch norm, dropout and uninitialised act norms in training mode, with the layer's path.

    Args:
        layers: Pairs of a path and a layer, of PyTorch or equinox; no package is imported.

    Raises:
        ValueError: a layer in training mode computes other values in evaluation mode.
    """
    for place, layer in layers:
        trains = getattr(layer, "training", not getattr(layer, "inference", True))
        if trains and (kind := changed_by_training(layer)):
            keep = ', or headrace.accelerate(model, dropout="keep")' if kind == "dropout" else ""
            raise ValueError(
                f"model{place}: expected no {kind} in training mode, where the density is another than in "
                f"evaluation, got {layer!r}; call model.eval() (for flowjax: equinox.nn.inference_mode){keep}"
            )


def changed_by_training(layer: Any) -> str:
    """The description of a layer that computes other values in training mode; empty for any other layer."""
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    if any("Dropout" in kind for kind in kinds):
        return "dropout" if layer.p > 0 else ""
    if any("BatchNorm" in kind for kind in kinds):
        return "batch norm"
    started = [getattr(layer, flag) for flag in ("initialized", "data_dep_init_done") if hasattr(layer, flag)]
    return "act norm that no rows have started" if "ActNorm" in kinds and not all(started) else ""
