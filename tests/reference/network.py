"""The conditioner: a dense network whose weights are multiplied by masks."""

from dataclasses import dataclass

import numpy as np

from .activations import ACTIVATIONS


@dataclass(frozen=True)
class Network:
    """Dense weights ``(out, in)``, biases ``(out,)`` and masks, a list of each; the last layer has no activation."""

    weights: list
    biases: list
    masks: list
    activation: str = "relu"

    def __call__(self, inputs):
        value = np.asarray(inputs, np.float64)
        last = len(self.weights) - 1
        for layer, (weight, bias, mask) in enumerate(zip(self.weights, self.biases, self.masks, strict=True)):
            dense = np.where(mask, np.asarray(weight, np.float64), 0.0)
            value = value @ dense.T + np.asarray(bias, np.float64)
            if layer < last:
                value = ACTIVATIONS[self.activation](value)
        return value


def reads(masks):
    """Which inputs each output can depend on: ``(outputs, inputs)`` of booleans, by following the masks."""
    reached = np.asarray(masks[0], bool)
    for mask in masks[1:]:
        reached = (np.asarray(mask, int) @ reached.astype(int)) > 0
    return reached


def with_context(values, context):
    """Columns of the first layer: features, then context; one row of context serves all rows."""
    if context is None:
        return values
    context = np.atleast_2d(np.asarray(context, np.float64))
    return np.hstack([values, np.broadcast_to(context, (len(values), context.shape[1]))])
