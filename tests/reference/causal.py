"""Dilated causal convolutions over time (WaveNet, van den Oord et al. 2016), and the transforms that they condition."""

from dataclasses import dataclass, field

import numpy as np

from .activations import sigmoid
from .maps import MAPS, Options


@dataclass(frozen=True)
class CausalNetwork:
    """A network that computes the raw parameters of step t from the values before t.

    ``arrays`` have the names and shapes of named_parameters(); a convolution has shape (outputs, inputs, taps), the
    oldest tap first. Before the first step every layer's history is zero, not only the values that the first layer
    reads.
    """

    arrays: dict
    dilations: tuple[int, ...]
    hop: int = 1
    companded: bool = False

    def __call__(self, values, context=None, covariates=None):
        """Map ``(rows, T, inputs)`` to ``(rows, T, outputs)``."""
        get = {name: np.asarray(array, np.float64) for name, array in self.arrays.items()}
        values = np.asarray(values, np.float64)
        if self.companded:
            values = np.concatenate([values, np.arcsinh(512.0 * values) / np.arcsinh(512.0)], axis=2)
        shifted = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
        hidden = convolved(shifted, get["input.weight"], 1) + get["input.bias"]
        skip = 0.0
        for i, dilation in enumerate(self.dilations):
            name = f"layers.{i}"
            a = convolved(hidden, get[f"{name}.gate.weight"], dilation) + get[f"{name}.gate.bias"]
            if context is not None:
                a = a + (np.asarray(context, np.float64) @ get[f"{name}.gate.context"].T)[:, None, :]
            if covariates is not None:
                frames = np.asarray(covariates, np.float64) @ get[f"{name}.gate.covariates"].T
                a = a + interpolated(frames, values.shape[1], self.hop)
            width = a.shape[2] // 2
            o = (np.tanh(a[..., :width]) * sigmoid(a[..., width:])) @ get[f"{name}.out.weight"].T
            o = o + get[f"{name}.out.bias"]
            if i + 1 < len(self.dilations):
                hidden = hidden + o[..., :width]
                o = o[..., width:]
            skip = skip + o
        for i in range(2):
            skip = np.maximum(skip, 0.0) @ get[f"head.{i}.weight"].T + get[f"head.{i}.bias"]
        return skip


def convolved(values, weight, dilation):
    """A causal, dilated convolution: step t sees t, t - dilation, ...; values before the first step are zero."""
    steps, taps = values.shape[1], weight.shape[2]
    total = 0.0
    for tap in range(taps):
        back = (taps - 1 - tap) * dilation
        seen = np.zeros_like(values)
        seen[:, back:] = values[:, : max(steps - back, 0)]
        total = total + seen @ weight[:, :, tap].T
    return total


def interpolated(frames, steps, hop):
    """Frames, one every ``hop`` steps, interpolated at each step: linearly between two frames, and constant after the
    last frame."""
    at = np.arange(steps)
    first, part = at // hop, (at % hop / hop)[:, None]
    after = np.minimum(first + 1, frames.shape[1] - 1)
    return (1.0 - part) * frames[:, first] + part * frames[:, after]


@dataclass(frozen=True)
class CausalTransform:
    """The transform ``x_t = map(z_t)``, with parameters from the steps before t on the side that the network reads.

    Values are ``(rows, T, channels)``; log-derivatives ``(rows, T)`` are those of the direction called.
    """

    network: CausalNetwork
    map: str = "affine"
    reads: str = "data"
    options: Options = field(default_factory=Options)
    level: bool = False

    def forward(self, z, context=None, covariates=None):
        return self._towards("data", z, context, covariates)

    def inverse(self, x, context=None, covariates=None):
        return self._towards("latent", x, context, covariates)

    def parameters(self, seen, context=None, covariates=None):
        raw = self.network(seen, context, covariates)
        return raw.reshape(*seen.shape, -1)

    def _towards(self, side, given, context, covariates):
        given, inverse = np.asarray(given, np.float64), side == "latent"
        if self.reads != side:  # the network sees the given side
            return self._apply(given, self.parameters(given, context, covariates), inverse)
        built, log_det = np.zeros_like(given), np.zeros(given.shape[:2])
        for t in range(given.shape[1]):  # the whole network runs once a step
            params = self.parameters(built[:, : t + 1], context, covariates)[:, t:]
            built[:, t : t + 1], log_det[:, t : t + 1] = self._apply(given[:, t : t + 1], params, inverse)
        return built, log_det

    def _apply(self, value, params, inverse):
        level, scale = 0.0, 1.0
        if self.level:  # with a level, x = e^level map(z)
            params, level = params[..., :-1], np.clip(params[..., -1], -13.0, 2.0)
            scale = np.exp(level)
        if inverse:
            value, log_derivative = MAPS[self.map].apply(value / scale, params, self.options, inverse)
            return value, (log_derivative - level).sum(axis=2)
        value, log_derivative = MAPS[self.map].apply(value, params, self.options, inverse)
        return value * scale, (log_derivative + level).sum(axis=2)


@dataclass(frozen=True)
class LinearPrediction:
    """The filter x_t = sum over i of a_i x_{t-i} + z_t / g of each channel by itself, from reflection coefficients
    tanh(theta).

    The coefficients are those of the polynomial that the step-up recursion builds (Markel, Gray 1976), and g^2 is the
    variance of an autoregressive process of these coefficients whose residual has variance 1.
    """

    theta: np.ndarray  # (channels, order)

    def filters(self):
        for theta in np.asarray(self.theta, np.float64):
            k = np.tanh(theta)
            polynomial = np.ones(1)  # the polynomial 1 - sum a_i D^i
            for one in k:
                grown = np.append(polynomial, 0.0)
                polynomial = grown - one * grown[::-1]
            yield -polynomial[1:], 1.0 / np.sqrt(np.prod(1.0 - k**2))

    def forward(self, z, context=None, covariates=None):
        z = np.asarray(z, np.float64)
        x, log_det = np.zeros_like(z), np.zeros(z.shape[:2])
        for c, (a, gain) in enumerate(self.filters()):
            for t in range(z.shape[1]):
                x[:, t, c] = z[:, t, c] / gain
                for i in range(min(len(a), t)):
                    x[:, t, c] += a[i] * x[:, t - 1 - i, c]
            log_det -= np.log(gain)
        return x, log_det

    def inverse(self, x, context=None, covariates=None):
        x = np.asarray(x, np.float64)
        z, log_det = x.copy(), np.zeros(x.shape[:2])
        for c, (a, gain) in enumerate(self.filters()):
            for i in range(min(len(a), x.shape[1] - 1)):
                z[:, i + 1 :, c] -= a[i] * x[:, : -1 - i, c]
            z[..., c] *= gain
            log_det += np.log(gain)
        return z, log_det


@dataclass(frozen=True)
class CausalFlow(CausalTransform):
    """A transform whose raw parameters are the context of a flow over the channels of a step, instead of parameters of
    a map."""

    inner: object = None

    def parameters(self, seen, context=None, covariates=None):
        return self.network(seen, context, covariates)

    def _apply(self, value, params, inverse):
        verb = self.inner.to_latent if inverse else self.inner.to_data
        result, log_det = verb(value.reshape(-1, value.shape[2]), params.reshape(-1, params.shape[2]))
        return result.reshape(value.shape), log_det.reshape(value.shape[:2])


@dataclass(frozen=True)
class PerStep:
    """A transform of the channels of a step, applied to each step."""

    transform: object

    def forward(self, z, context=None, covariates=None):
        return self._each(self.transform.forward, z)

    def inverse(self, x, context=None, covariates=None):
        return self._each(self.transform.inverse, x)

    @staticmethod
    def _each(verb, value):
        value = np.asarray(value, np.float64)
        result, log_det = verb(value.reshape(-1, value.shape[2]), None)
        return result.reshape(value.shape), log_det.reshape(value.shape[:2])


@dataclass(frozen=True)
class SequenceFlow:
    """A flow of sequences: transforms in the order latent to data, over a base whose steps are independent."""

    transforms: list
    base: object

    def to_data(self, z, context=None, covariates=None):
        value, log_det = np.asarray(z, np.float64), 0.0
        for transform in self.transforms:
            value, step = transform.forward(value, context, covariates)
            log_det = log_det + step
        return value, log_det

    def to_latent(self, x, context=None, covariates=None):
        value, log_det = np.asarray(x, np.float64), 0.0
        for transform in reversed(self.transforms):
            value, step = transform.inverse(value, context, covariates)
            log_det = log_det + step
        return value, log_det

    def log_prob_steps(self, x, context=None, covariates=None):
        """The log densities ``log p(x_t | x_<t)``, shape ``(rows, T)``.

        Each step's latent values depend on the data up to that step, with a triangular Jacobian.
        """
        z, log_det = self.to_latent(x, context, covariates)
        return self.base.log_prob(z.reshape(-1, z.shape[2])).reshape(z.shape[:2]) + log_det

    def log_prob(self, x, context=None, covariates=None):
        return self.log_prob_steps(x, context, covariates).sum(axis=1)
