"""The conditioner: a dense network whose weights are multiplied by masks."""

from dataclasses import dataclass

import numpy as np

from .activations import ACTIVATIONS


@dataclass(frozen=True)
class Hidden:
    """The options of a hidden layer besides its product; `Network` describes them."""

    activation: str = "relu"
    adds: int | None = None
    context: str | None = None
    context_activation: str = "identity"


@dataclass(frozen=True)
class Network:
    """A network: dense weights ``(out, in)``, biases ``(out,)`` and masks, a list of each; the last layer has no
    activation.

    ``hidden`` describes each hidden layer, if layers have options: the layer's product is added to, or multiplied by,
    the activated product of the context alone (the last ``context`` columns of the inputs; ``joins`` has the weights
    and biases, in order); the sum of an earlier layer, before activation, may be added to the result. ``factors``
    multiply the values of each hidden layer, as dropout does.
    """

    weights: list
    biases: list
    masks: list
    activation: str = "relu"
    hidden: list | None = None
    joins: list = ()
    context: int = 0
    factors: list | None = None

    def __call__(self, inputs):
        inputs = value = np.asarray(inputs, np.float64)
        hidden = self.hidden or [Hidden(self.activation)] * (len(self.weights) - 1)
        context, joins, sums = inputs[:, inputs.shape[1] - self.context :], iter(self.joins), []
        for layer, (weight, bias, mask) in enumerate(zip(self.weights, self.biases, self.masks, strict=True)):
            dense = np.where(mask, np.asarray(weight, np.float64), 0.0)
            value = value @ dense.T + np.asarray(bias, np.float64)
            if layer == len(hidden):
                return value
            this = hidden[layer]
            if this.context is not None:
                by, shift = (np.asarray(a, np.float64) for a in next(joins))
                joined = ACTIVATIONS[this.context_activation](context @ by.T + shift)
                value = value * joined if this.context == "gate" else value + joined
            if this.adds is not None:
                value = value + sums[this.adds]
            sums.append(value)
            value = ACTIVATIONS[this.activation](value) * (1.0 if self.factors is None else self.factors[layer])
        raise AssertionError("one layer more than hidden ones")


def reads(masks, adds=None):
    """The inputs on which each output can depend according to the masks, as booleans ``(outputs, inputs)``.

    ``adds``: for each hidden layer, the layer whose sums are added to the layer's sums, or None.
    """
    reached = []
    for layer, mask in enumerate(masks):
        seen = (np.asarray(mask, int) @ reached[-1].astype(int)) > 0 if reached else np.asarray(mask, bool)
        if adds is not None and layer < len(adds) and adds[layer] is not None:
            seen = seen | reached[adds[layer]]
        reached.append(seen)
    return reached[-1]


def with_context(values, context):
    """The columns of the first layer: features, then context; one row of context serves all rows."""
    if context is None:
        return values
    context = np.atleast_2d(np.asarray(context, np.float64))
    return np.hstack([values, np.broadcast_to(context, (len(values), context.shape[1]))])
