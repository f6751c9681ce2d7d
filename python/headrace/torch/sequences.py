"""Flows of sequences as PyTorch modules, with gradients by sequences, context, covariates and parameters."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from headrace import files
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace.sequences.flow import SequenceFlow
from headrace.torch._autograd import first, spread

_KINDS = ("inputs", "context", "covariates", "parameters")


def _wanted(flags: Any) -> tuple[str, ...]:
    return tuple(kind for kind, needed in zip(_KINDS, flags, strict=True) if needed)


def _detached(tensors: Any) -> list[Any]:
    return [None if t is None else t.detach() for t in tensors]


class _LogProb(torch.autograd.Function):
    """Log densities, and the gradients of their sum: most losses have these gradients, times a factor.

    If factors differ between sequences or between steps, the gradients need a second run.
    """

    @staticmethod
    def forward(
        ctx: Any, flow: SequenceFlow, verb: str, x: Tensor, context: Any, covariates: Any, vector: Any
    ) -> Tensor:
        given = (x, context, covariates, vector)
        ctx.flow, ctx.flags = flow, [t is not None and t.requires_grad for t in given]
        own_x, own_context, own_covariates, own_vector = _detached(given)
        ones = torch.ones(x.shape[:-2] if verb == "log_prob" else x.shape[:-1], dtype=getattr(torch, flow.dtype.name))
        options: dict[str, Any] = {"wrt": _wanted(ctx.flags), "parameters": own_vector, "values": True}
        out, unit = flow.log_prob_vjp(own_x, ones, own_context, own_covariates, **options)
        ctx.save_for_backward(*given, *unit)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        given, unit = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        with torch.no_grad():
            if grad.numel() == 0 or bool((grad == grad.reshape(-1)[0]).all()):
                factor = grad.reshape(-1)[0] if grad.numel() else grad.sum()
                found = [u * factor for u in unit]
            else:
                x, context, covariates, vector = _detached(given)
                more: dict[str, Any] = {"wrt": _wanted(ctx.flags), "parameters": vector}
                found = list(ctx.flow.log_prob_vjp(x, grad.detach().contiguous(), context, covariates, **more))
        return None, None, *spread(first(found, (*given, grad)), ctx.flags, given)


class _Run(torch.autograd.Function):
    """Sequences mapped to latent or to data, with their log-determinants."""

    @staticmethod
    def forward(ctx: Any, flow: SequenceFlow, verb: str, *given: Any) -> tuple[Tensor, Tensor]:
        ctx.vjp = getattr(flow, f"{verb}_vjp")
        ctx.save_for_backward(*given)
        *arrays, vector = _detached(given)
        return getattr(flow, verb)(*arrays, parameters=vector)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_log_det: Tensor) -> Any:
        given = ctx.saved_tensors
        flags = list(ctx.needs_input_grad[2:])
        value, context, covariates, vector = _detached(given)
        grads = [grad_value.detach().contiguous(), grad_log_det.detach().contiguous()]
        found = list(ctx.vjp(value, *grads, context, covariates, wrt=_wanted(flags), parameters=vector))
        return None, None, *spread(first(found, (*given, grad_value, grad_log_det)), flags, given)


class SequenceModule(nn.Module):
    """A flow of sequences as a PyTorch module on the CPU.

    Only ``vector`` is trained: one parameter in the layout of `SequenceFlow.parameters`. Any optimiser trains it.
    Second derivatives and rules for `torch.func` are not supported.

    Args:
        flow: The flow, whose parameters are copied: flow and module can then change independently.

    >>> import torch, headrace as hr
    >>> from headrace.torch import SequenceModule
    >>> module = SequenceModule(hr.WaveNet(layers=4, channels=8))
    >>> loss = -module.log_prob(torch.zeros(2, 50, 1)).mean()
    >>> loss.backward()
    >>> module.vector.grad.shape == module.vector.shape
    True
    """

    vector: nn.Parameter

    def __init__(self, flow: SequenceFlow) -> None:
        super().__init__()
        if not isinstance(flow, SequenceFlow):
            raise TypeError(f"flow: expected a SequenceFlow, got {check.kind_of(flow)}")
        flow._refuse_device("flow")
        self._flow = copy(flow)
        self.vector = nn.Parameter(torch.from_numpy(flow.parameters))

    @property
    def flow(self) -> SequenceFlow:
        """A copy of the flow with the current parameters, to sample and save."""
        flow = self._flow.astype(self._kind())
        flow.parameters = self.vector.detach().numpy()
        return flow

    def log_prob(self, x: Tensor, context: Tensor | None = None, covariates: Tensor | None = None) -> Tensor:
        """The log density of each sequence in nats, shape (rows,).

        Args:
            x: Shape (rows, steps, features), or (steps, features).
            context, covariates: As in `SequenceFlow.log_prob`.
        """
        return self._call("log_prob", x=x, context=context, covariates=covariates)

    def log_prob_steps(self, x: Tensor, context: Tensor | None = None, covariates: Tensor | None = None) -> Tensor:
        """The log density of each step conditional on the steps before it, shape (rows, steps)."""
        return self._call("log_prob_steps", x=x, context=context, covariates=covariates)

    def to_latent(
        self, x: Tensor, context: Tensor | None = None, covariates: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Transform data to latent: ``(z, log_det)``."""
        return self._call("to_latent", x=x, context=context, covariates=covariates)

    def to_data(
        self, z: Tensor, context: Tensor | None = None, covariates: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Transform latent to data: ``(x, log_det)``."""
        return self._call("to_data", z=z, context=context, covariates=covariates)

    def forward(self, x: Tensor, context: Tensor | None = None, covariates: Tensor | None = None) -> Tensor:
        """An alias of `log_prob`."""
        return self.log_prob(x, context, covariates)

    def _kind(self) -> str:
        return str(self.vector.dtype).removeprefix("torch.")

    def _current(self) -> SequenceFlow:
        """The flow in the parameters' dtype; each call passes the parameters themselves."""
        if self._flow.dtype.name != self._kind():
            self._flow = self._flow.astype(self._kind())
        return self._flow

    def _checked(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise errors.wrong_kind(name, "a tensor", check.kind_of(value))
        if value.device.type != "cpu" or self.vector.device.type != "cpu":
            got = f"{value.device} and {self.vector.device}"
            raise TypeError(f"{name}: expected a tensor and a module on the CPU for sequences, got {got}")
        return value

    def _call(self, verb: str, **arguments: Any) -> Any:
        """A differentiable call if a tensor requires a gradient, else the flow's own call, which stores nothing."""
        flow, given = self._current(), [self._checked(name, tensor) for name, tensor in arguments.items()]
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*given, self.vector)):
            function = _LogProb if verb.startswith("log_prob") else _Run
            return function.apply(flow, verb, *given, self.vector)
        return getattr(flow, verb)(*_detached(given), parameters=self.vector.detach())

    def get_extra_state(self) -> Tensor:
        """The flow with everything but the current parameters, in the bytes of a file, as a uint8 tensor."""
        return torch.frombuffer(bytearray(files.to_bytes(self._flow)), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Restore the flow from a `state_dict`; a flow with another number of parameters raises an error."""
        flow = files.from_bytes(bytes(state.cpu().numpy()))
        if not isinstance(flow, SequenceFlow) or flow._program.n_weights != self._flow._program.n_weights:
            expected = f"a SequenceFlow of {self._flow._program.n_weights} numbers"
            raise ValueError(f"state_dict: expected {expected}, got {flow!r}")
        self._flow = flow

    def extra_repr(self) -> str:
        """The flow, for the module's repr."""
        return repr(self._flow)
