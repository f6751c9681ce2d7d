"""The network of a `headrace.CausalConvolution` in PyTorch: all steps at once, or step after step with the layers' past
kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

Arrays = dict[str, NDArray[Any]]


def _log_scale(raw: torch.Tensor) -> torch.Tensor:
    """The logarithm of a scale from a raw value, by the soft clamp of slope 1e-3."""
    return raw / (1.0 + raw.abs() / np.log(1e3))


class Network(nn.Module):
    """A causal network of one value a step, with an affine map."""

    def __init__(self, arrays: Arrays, dilations: tuple[int, ...], by_convolutions: bool = False) -> None:
        """Register the arrays, which are named as those of a `headrace.CausalConvolution`."""
        super().__init__()
        self.by_convolutions = by_convolutions
        self.dilations, self.names = dilations, list(arrays)
        for name, array in arrays.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(torch.tensor(array)))

    def of(self, name: str) -> torch.Tensor:
        """A tensor by the name that headrace has for it."""
        own: torch.Tensor = getattr(self, name.replace(".", "_"))
        return own

    def raw(self, x: torch.Tensor) -> torch.Tensor:
        """The raw parameters of all steps, (rows, steps, 2), from values (rows, steps, 1).

        Layers are products of matrices over the last axis, or convolutions: the faster way depends on the processor.
        """
        past = F.pad(x[:, :-1], (0, 0, 1, 0))
        h, axis = (past.transpose(1, 2), 1) if self.by_convolutions else (past, 2)
        skip: Any = 0.0
        h = self._causal(h, "input", 1)
        for i, dilation in enumerate(self.dilations):
            a, b = self._causal(h, f"layers.{i}.gate", dilation).chunk(2, axis)
            out = self._pointwise(torch.tanh(a) * torch.sigmoid(b), f"layers.{i}.out")
            if i + 1 < len(self.dilations):
                own, out = out.split([h.shape[axis], out.shape[axis] - h.shape[axis]], axis)
                h = h + own
            skip = skip + out
        for i in range(2):
            skip = self._pointwise(F.relu(skip), f"head.{i}")
        return skip.transpose(1, 2) if self.by_convolutions else skip

    def _pointwise(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.of(f"{name}.weight"), self.of(f"{name}.bias")
        return F.conv1d(x, weight[..., None], bias) if self.by_convolutions else F.linear(x, weight, bias)

    def _causal(self, x: torch.Tensor, name: str, dilation: int) -> torch.Tensor:
        weight, bias = self.of(f"{name}.weight"), self.of(f"{name}.bias")
        taps, before = weight.shape[2], (weight.shape[2] - 1) * dilation
        if self.by_convolutions:
            return F.conv1d(F.pad(x, (before, 0)), weight, bias, dilation=dilation)
        padded, steps = F.pad(x, (0, 0, before, 0)), x.shape[1]
        seen = torch.cat([padded[:, k * dilation : k * dilation + steps] for k in range(taps)], -1)
        return F.linear(seen, weight.permute(0, 2, 1).reshape(len(weight), -1), bias)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log densities of each step, (rows, steps)."""
        shift, raw = self.raw(x).unbind(-1)
        log = _log_scale(raw)
        z = (x[..., 0] - shift) * torch.exp(-log)
        return -0.5 * z * z - log - 0.5 * np.log(2.0 * np.pi)

    def draw(self, noise: torch.Tensor) -> torch.Tensor:
        """A sample of a student, which reads the noise: all steps at once, (rows, steps)."""
        shift, raw = self.raw(noise).unbind(-1)
        return shift + torch.exp(_log_scale(raw)) * noise[..., 0]


class Cached(nn.Module):
    """The network step after step, with the past of each layer in a ring."""

    def __init__(self, network: Network, rows: int) -> None:
        """Make rings for a number of streams."""
        super().__init__()
        weight = network.of("input.weight")
        channels, _, self.kernel = weight.shape
        self.dilations = network.dilations
        self.rings = [torch.zeros((self.kernel - 1) * d, rows, channels) for d in self.dilations]
        self.lines: list[tuple[torch.Tensor, ...]] = []
        self.input = (weight[:, 0].T.contiguous(), network.of("input.bias"))
        for i in range(len(self.dilations)):
            gate, out = network.of(f"layers.{i}.gate.weight"), network.of(f"layers.{i}.out.weight")
            taps = gate.permute(2, 1, 0).reshape(-1, gate.shape[0]).contiguous()
            own = (network.of(f"layers.{i}.gate.bias"), out.T.contiguous(), network.of(f"layers.{i}.out.bias"))
            self.lines.append((taps, *own))
        self.head = [(network.of(f"head.{i}.weight").T.contiguous(), network.of(f"head.{i}.bias")) for i in range(2)]

    def forward(self, noise: torch.Tensor, past: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The next value of each stream, which also enters the rings."""
        h = torch.addmm(self.input[1], past, self.input[0])
        skip = torch.zeros_like(h)
        for i, dilation in enumerate(self.dilations):
            slots = (self.kernel - 1) * dilation
            taps = [
                self.rings[i].index_select(0, ((t + k * dilation) % slots).view(1))[0] for k in range(self.kernel - 1)
            ]
            gate, gate_bias, out, out_bias = self.lines[i]
            a, b = torch.addmm(gate_bias, torch.cat([*taps, h], 1), gate).chunk(2, 1)
            self.rings[i].index_copy_(0, (t % slots).view(1), h[None])
            o = torch.addmm(out_bias, torch.tanh(a) * torch.sigmoid(b), out)
            if i + 1 < len(self.dilations):
                h, o = h + o[:, : h.shape[1]], o[:, h.shape[1] :]
            skip = skip + o
        for weight, bias in self.head:
            skip = torch.addmm(bias, F.relu(skip), weight)
        x = skip[:, 0] + torch.exp(_log_scale(skip[:, 1])) * noise
        return x, torch.cat([past[:, 1:], x[:, None]], 1), t + 1


def drawn(step: Any, noise: torch.Tensor, kernel: int) -> torch.Tensor:
    """A sample of each stream, (steps, rows)."""
    past, t = torch.zeros(noise.shape[1], kernel), torch.zeros((), dtype=torch.long)
    values = []
    for one in noise:
        x, past, t = step(one, past, t)
        values.append(x)
    return torch.stack(values)
