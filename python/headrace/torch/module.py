"""Flows and transforms as PyTorch modules, whose parameters are one vector, or a tensor for each matrix and bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace import Flow, files
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._core.device import BF16_KINDS
from headrace._flow.flow_errors import no_flow
from headrace._flow.transforms.transform import Transform
from headrace.torch import _autograd
from headrace.torch import distribution as _noise
from headrace.torch._operators import Compiled
from headrace.torch.distribution import BoundTransform, FlowDistribution


class Layers(nn.Module):
    """The parameters of a flow under the names and in the shapes of its files, as a tree of modules.

    Hidden units are in their original order, and not in the core's order by degree. Entries that a mask leaves out are
    zero, are never read, and have gradients of zero.

    Args:
        flow: A flow on the CPU, whose parameters are copied.
    """

    entries: Tensor

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        vector, begin, count = flow.parameters, 0, 1  # entry 0 is a zero, which padding reads
        found: list[np.ndarray[Any, Any]] = []
        self._ordered: list[tuple[nn.Module, str]] = []
        for prefix, block in flow._blocks():
            dense = block.named(vector[begin : begin + block.size])
            counts = {}
            for name, array in dense.items():
                counts[name] = np.arange(count, count + array.size, dtype=np.float64).reshape(array.shape)
                count += array.size
                self._add(prefix + name, torch.tensor(array))
            found.append(np.asarray(block.pack_named(counts)))
            begin += block.size
        packed = np.concatenate(found)
        entries = packed.astype(np.int64)
        assert (entries == packed).all(), "a block whose packed form is not a selection of its dense entries"
        used = np.flatnonzero(entries)
        assert len(np.unique(entries[used])) == len(used), "a dense entry that stands twice in the vector"
        self.register_buffer("entries", torch.from_numpy(entries), persistent=False)

    def _add(self, name: str, value: Tensor) -> None:
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            child = module._modules[part]
            assert child is not None
            module = child
        module.register_parameter(leaf, nn.Parameter(value))
        self._ordered.append((module, leaf))

    def dense(self) -> list[Tensor]:
        """The current tensors in the vector's order: parameters, or the results of parametrisations."""
        found = ((module._parameters.get(leaf), module, leaf) for module, leaf in self._ordered)
        return [getattr(module, leaf) if p is None else p for p, module, leaf in found]  # module attributes are slow

    def vector(self) -> Tensor:
        """The parameters as the core's vector, a differentiable function of all tensors."""
        dense = self.dense()
        zero = dense[0].new_zeros(1)
        return torch.cat([zero, *(t.reshape(-1) for t in dense)]).index_select(0, self.entries)

    @torch.no_grad()
    def assign(self, vector: Tensor) -> None:
        """Copy the values of a core's vector into the tensors."""
        dense = self.dense()
        flat = vector.new_zeros(1 + sum(t.numel() for t in dense))
        flat[self.entries] = vector
        begin = 1
        for t in dense:
            t.copy_(flat[begin : begin + t.numel()].reshape(t.shape))
            begin += t.numel()


_PLAIN = (torch.float32, torch.float64)


class _Module(nn.Module):
    """The common base of `FlowModule` and `TransformModule`."""

    vector: Tensor  # a parameter; with `layers` it is computed by `__getattr__`
    layers: Layers | None

    def __init__(self, flow: Flow, layers: bool = False) -> None:
        super().__init__()
        self._entry = Compiled(flow, flow.matmul)
        if layers:
            self.layers = Layers(self._entry.flow).to(flow.device)
        else:
            self.layers = None
            self.vector = nn.Parameter(torch.from_numpy(self._entry.flow.parameters).to(flow.device))
        # A number that identifies the fixed part, to detect that PyTorch stacks tensors of different modules; the
        # number is no part of a state, because a state contains the whole fixed part.
        self._mark = torch.tensor(self._entry.mark, dtype=torch.float64, device=flow.device)
        self.register_buffer("structure", self._mark, persistent=False)
        self._leaves: list[tuple[Tensor, int, int, bool]] = []

    def __getstate__(self) -> dict[str, Any]:
        """The state for a copy, without the tensors that `parameter_groups` returned."""
        return {**self.__dict__, "_leaves": []}

    def __getattr__(self, name: str) -> Any:
        """The vector of parameters, computed with `layers`; AttributeError for missing attributes."""
        if name == "vector":
            layers = self._modules.get("layers")
            if isinstance(layers, Layers):
                return layers.vector()
        return super().__getattr__(name)

    @property
    def features(self) -> int:
        """The number of features of the rows."""
        return self._entry.flow.features

    @property
    def context_features(self) -> int:
        """The number of context columns; 0 for none."""
        return self._entry.flow.context

    def _like(self) -> Tensor:
        """A tensor with the dtype and the device of the parameters."""
        return self.vector if self.layers is None else self.layers.dense()[0]

    def _current(self) -> Flow:
        """A flow with the current parameters."""
        flow = self._entry.at(self.vector).__copy__()
        flow.parameters = self.vector.detach()
        return flow

    def _become(self, name: str, flow: Flow) -> None:
        own = self._entry.flow
        sizes = [(f.features, f.context, f._program.n_weights) for f in (own, flow)]
        if sizes[0] != sizes[1]:
            expected = f"features, context and parameters {sizes[0]}, as this module has"
            raise ValueError(f"{name}: expected {expected}, got {sizes[1]}")
        self._entry.replace(flow)
        self._set_mark()

    def get_extra_state(self) -> Tensor:
        """The fixed part (structure, standardisation, masks, matrices) in the bytes of a file, as a uint8 tensor."""
        return torch.frombuffer(bytearray(files.to_bytes(self._entry.flow)), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Restore the fixed part from a `state_dict`; a flow of other sizes raises an error."""
        self._become("state_dict", files.from_bytes(bytes(state.cpu().numpy())))

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimiser with decoupled weight decay: the networks' matrices, which decay, and all other
        parameters.

        With `layers` the groups consist of the parameters of `layers`, and parameters with two axes decay. Without
        `layers` the groups' tensors are views of `vector`, with gradients that are views of `vector.grad`: clipping or
        reducing `vector.grad` in place also changes the views. An optimiser must not have the vector itself in addition
        to its views.

        Args:
            weight_decay: The weight decay of the matrices.
        """
        if self.layers is not None:
            tensors = list(self.layers.parameters())
            matrices, biases = [t for t in tensors if t.ndim > 1], [t for t in tensors if t.ndim < 2]
            return [{"params": matrices, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
        if not self._leaves:
            for begin, end, is_bias in self._entry.flow._program.parts():
                self._leaves.append((self.vector.detach()[begin:end].requires_grad_(), begin, end, is_bias))
            self.vector.register_hook(self._forget_old_gradient)
            self.vector.register_post_accumulate_grad_hook(self._share_gradient)
        weights, biases = ([leaf for leaf, *_, is_bias in self._leaves if is_bias == kind] for kind in (False, True))
        return [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]

    def _forget_old_gradient(self, gradient: Tensor) -> None:
        if self._leaves[0][0].grad is None:  # the optimiser has cleared the gradients
            self.vector.grad = None

    def _share_gradient(self, vector: Tensor) -> None:
        for leaf, begin, end, _ in self._leaves:
            leaf.grad = vector.grad[begin:end]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Apply `.to`, `.double` and similar methods, which replace the vector's memory.

        Raises:
            TypeError: `.half`, `.bfloat16` or another dtype was requested: the core computes in float32 and float64
                only.
        """
        like = self._like()
        wanted = fn(torch.empty(0, dtype=like.dtype, device=like.device)).dtype
        if wanted not in (torch.float32, torch.float64):
            got = f"{wanted}; leave this module out, or take bf16 in its products: flow.to(matmul='bf16')"
            raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {got}")
        super()._apply(fn, recurse)
        self._set_mark()
        for leaf, begin, end, _ in self._leaves:
            leaf.grad = None
            leaf.data = self.vector.detach()[begin:end]
        return self

    def _set_mark(self) -> None:
        """Set the mark of the fixed part again after `.float()` rounded it or `to_empty` lost it."""
        mark = self._buffers["structure"]
        assert mark is not None
        self._mark = self._buffers["structure"] = mark.to(torch.float64).fill_(self._entry.mark)

    def _check_mark(self, mark: Any) -> None:
        """Refuse a buffer of another structure in place of the module's own, for example in `functional_call`."""
        if torch.compiler.is_compiling():  # the compiler traces the module itself
            return
        while torch._C._functorch.is_functorch_wrapped_tensor(mark):
            mark = torch._C._functorch.get_unwrapped(mark)
        if type(mark) is Tensor and not mark.is_meta and bool((mark != self._entry.mark).any()):
            raise ValueError(
                "structure: expected the state of modules that differ in `vector` alone, got others: their transforms, "
                "orders, standardisation or matmul are not this module's, and torch.func.stack_module_state would "
                "give all of them these. Call each module by itself; headrace.Ensemble is a mixture of any flows"
            )

    def _own(self) -> Tensor:
        """The tensor `vector`, by a shorter path if possible, because a lookup of a module's attributes is slow."""
        mark = self._buffers.get("structure")
        if mark is not self._mark:
            self._check_mark(mark)
        found = self._parameters.get("vector")
        vector = self.vector if found is None else found
        n = self._entry.n_parameters
        if vector.shape != (n,):
            raise errors.wrong_shape("vector", f"({n},), as the module was made with", vector.shape)
        return vector

    def _opened(
        self, name: str, value: Tensor, context: Tensor | None, vector: Tensor
    ) -> tuple[Tensor, Tensor | None, torch.Size]:
        """Rows, a context for each row or one for all, and the shape of results that have one value for each row."""
        flow = self._entry.flow
        features, columns = flow._features, flow._context
        value = self._checked(name, value, features, vector)
        if context is None or not columns:
            if context is not None:
                raise errors.takes_no_context(got=check.kind_of(context))
            if columns:
                raise errors.wrong_shape("context", errors.context_shape(columns), "None")
            return (value if value.ndim == 2 else value.reshape(-1, features)), None, value.shape[:-1]
        context = self._checked("context", context, columns, vector)
        lead, own = value.shape[:-1], context.shape[:-1]
        if lead == own and value.ndim == 2:
            return value, context, lead
        try:
            batch = torch.broadcast_shapes(lead, own)
        except RuntimeError:
            expected = f"leading dimensions that broadcast with {tuple(lead)} of {name}"
            raise ValueError(f"context: expected {expected}, got {tuple(own)}") from None
        if own != batch and own.numel() == 1:
            context = context.reshape(columns)
        else:
            context = context.expand(*batch, columns).reshape(-1, columns)
        return value.expand(*batch, features).reshape(-1, features), context, batch

    def _checked(self, name: str, value: Any, columns: int, vector: Tensor) -> Tensor:
        """A tensor of rows, checked, in float32 or float64."""
        if not isinstance(value, Tensor):
            raise errors.wrong_kind(name, "a tensor", check.kind_of(value))
        if value.layout is not torch.strided:
            raise errors.not_dense(name, value.layout)
        if value.ndim == 0 or value.shape[-1] != columns:
            raise errors.wrong_shape(name, f"(..., {columns})", value.shape, errors.labels_advice(name, value.dtype))
        if value.device != vector.device:
            raise ValueError(f"{name}: expected a tensor on {vector.device}, as the parameters, got {value.device}")
        if value.dtype in _PLAIN:
            return value
        if not value.dtype.is_floating_point:
            raise errors.wrong_dtype(name, value.dtype, "{}.float()")
        return value.to(vector.dtype)  # autocast made the tensor

    def _bound(self, context: Any) -> Tensor | None:
        """The context of a distribution or transform, checked when it is passed and not at the first use."""
        if context is None:
            return None
        if not self.context_features:
            raise errors.takes_no_context(got=check.kind_of(context))
        self._checked("context", context, self.context_features, self._own())
        return context

    def _shape(self, sample_shape: Any, context: Tensor | None) -> tuple[int, ...]:
        """The shape of draws: that of the samples, then the leading dimensions of the context."""
        try:
            shape = torch.Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        except TypeError:
            raise TypeError(f"sample_shape: expected an int or a tuple of ints, got {sample_shape!r}") from None
        context = self._bound(context)
        lead = () if context is None else context.shape[:-1]
        return (*shape, *lead, self.features)

    def _transformed(self, name: str, value: Tensor, context: Tensor | None, to_data: bool) -> tuple[Tensor, Tensor]:
        vector = self._own()
        rows, own, batch = self._opened(name, value, context, vector)
        out, log_det = _autograd.run(rows, own, vector, self._entry, not to_data, of_log_prob=False)
        return out.reshape(*batch, out.shape[-1]), log_det.reshape(batch)


class FlowModule(_Module):
    """A flow as a PyTorch module.

    Only ``vector`` is trained: one parameter in the layout of `Flow.parameters`. With ``layers=True`` each matrix and
    bias is a dense parameter instead, for optimisers by matrix, learning rates by layer, weight norms and Bayesian
    wrappers: ``layers.transforms.0.layers.0.weight`` and so on, the names in files. Each call with ``layers=True``
    makes the vector anew. The `state_dict` also has the fixed part (structure, standardisation, masks). Modules can be
    copied, pickled, moved by ``.to`` and ``.double``, compiled and trained by any optimiser.

    Args:
        flow: The flow, whose parameters are copied: flow and module can then change independently.
        layers: Whether each matrix and bias is a separate parameter.

    >>> import torch, headrace as hr
    >>> module = FlowModule(hr.MAF(3, seed=0))
    >>> module.log_prob(torch.zeros(4, 5, 3)).shape
    torch.Size([4, 5])
    >>> module().rsample((2,)).shape
    torch.Size([2, 3])
    """

    _keeps_dropout = False  # whether `log_prob` omits units in training, after an acceleration with dropout="keep"

    def __init__(self, flow: Flow, *, layers: bool = False) -> None:
        if not isinstance(flow, Flow):
            raise no_flow("a Flow", flow)
        if not isinstance(layers, bool):
            raise TypeError(f"layers: expected True or False, got {layers!r}")
        super().__init__(flow, layers)

    @property
    def flow(self) -> Flow:
        """A copy of the flow with the current parameters; an assigned flow must have the same sizes, and is copied."""
        return self._current()

    @flow.setter
    def flow(self, flow: Flow) -> None:
        if not isinstance(flow, Flow):
            raise no_flow("a Flow", flow)
        own = self._entry.flow
        fixed = ("_chain", "_base", "_standardize_context")
        rounded = {flow.matmul, own.matmul} & BF16_KINDS.keys()
        if rounded or any(getattr(flow, name) is not getattr(own, name) for name in fixed):
            self._become("flow", flow)  # a fit may change structure and standardisation
        vector = torch.as_tensor(flow._vector())
        if self.layers is not None:
            self.layers.assign(vector.to(self.layers.entries.device))
            return
        with torch.no_grad():
            self.vector.copy_(vector)

    def forward(self, context: Tensor | None = None) -> FlowDistribution:
        """The distribution of rows conditional on the context, shape (..., context)."""
        return FlowDistribution(self, self._bound(context))

    def __getattr__(self, name: str) -> Any:
        """AttributeError for missing attributes; the error for `fit` refers to the flow's method."""
        if name == "fit":
            raise AttributeError(
                "FlowModule has no fit: call module.flow.fit(x) on a flow, then FlowModule(flow), or train "
                "module.parameters() by an optimiser of PyTorch"
            )
        return super().__getattr__(name)

    def log_prob(
        self, x: Tensor | None = None, context: Tensor | None = None, *, inputs: Tensor | None = None
    ) -> Tensor:
        """The log density of each row in nats, shape (...).

        Args:
            x: Shape (..., features).
            context: Shape (..., context), broadcast against x, or (context,) for all rows.
            inputs: The name of x in nflows: pass either `x` or `inputs`.
        """
        if inputs is not None:
            if x is not None:
                raise TypeError("inputs: expected None beside x, got a tensor")
            x = inputs
        if x is None:
            raise TypeError("x: expected a tensor, got None")
        return self._log_prob(x, context, self._own())

    def _log_prob(self, x: Tensor, context: Tensor | None, vector: Tensor) -> Tensor:
        rows, own, batch = self._opened("x", x, context, vector)
        drops = self._keeps_dropout and self.training and torch.is_grad_enabled()
        seed = int(torch.randint(2**63 - 1, ())) if drops else None
        out = _autograd.log_prob(rows, own, vector, self._entry, seed)
        return out if len(batch) == 1 else out.reshape(batch)

    def to_latent(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform data to latent: ``(z, log_det)``, shapes (..., features) and (...)."""
        return self._transformed("x", x, context, False)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform latent to data: ``(x, log_det)``, shapes (..., features) and (...)."""
        return self._transformed("z", z, context, True)

    def rsample_and_log_prob(
        self, sample_shape: int | tuple[int, ...] = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws and their log densities from one run, both differentiable; see `rsample`."""
        noise = self._noise(self._shape(sample_shape, context))
        vector = self._own()
        rows, own, batch = self._opened("noise", noise, context, vector)
        x, log_prob = _autograd.run(rows, own, vector, self._entry, inverse=False, of_log_prob=True)
        return x.reshape(*batch, self.features), log_prob.reshape(batch)

    def rsample(self, sample_shape: int | tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        """Draws that are differentiable by parameters and context.

        The shape is `sample_shape`, an int or a tuple of ints, then the leading dimensions of the context, then
        (features,).
        Random numbers come from PyTorch's generator, which `torch.manual_seed` seeds.

        Raises:
            ValueError: the base is a `StudentT` or a `NormalMixture` with trained parameters, which determine how
                values are drawn: draws have no derivatives by such parameters. `sample` accepts such a base.
        """
        return self.rsample_and_log_prob(sample_shape, context)[0]

    def sample(self, sample_shape: int | tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        """Draws without gradients; arguments as in `rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape, context)

    def sample_and_log_prob(
        self, sample_shape: int | tuple[int, ...] = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws and their log densities from one run, without gradients; arguments as in `rsample`."""
        with torch.no_grad():
            return self.rsample_and_log_prob(sample_shape, context)

    def _noise(self, shape: tuple[int, ...]) -> Tensor:
        """Rows of the standard density that the base transforms."""
        base = self._entry.flow._base
        if not base.moves_noise and not torch.is_grad_enabled():
            base = self.flow.base  # the base with its current parameters
        elif not base.moves_noise:
            got = f"{base!r}, whose parameters are trained; draw by sample or torch.no_grad, or make it trainable=False"
            raise ValueError(f"base: expected one whose draws are functions of its parameters, got {got}")
        like = self._like()
        return _noise.draw(base, shape, like.dtype, like.device)

    def extra_repr(self) -> str:
        """The flow, for the module's repr."""
        return repr(self._entry.flow)


class TransformModule(_Module):
    """A transform as a PyTorch module; a call returns a transform of `torch.distributions`, from latent to data.

    Args:
        transform: The transform, whose parameters are copied.

    >>> import torch, headrace as hr
    >>> module = TransformModule(hr.transforms.MaskedAutoregressive(3, (16,), seed=0))
    >>> base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    >>> density = torch.distributions.TransformedDistribution(base, [module()])
    >>> density.log_prob(density.rsample((4,))).shape
    torch.Size([4])
    """

    def __init__(self, transform: Transform) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: expected a transform, got {check.kind_of(transform)}")
        super().__init__(Flow([transform]))

    @property
    def transform(self) -> Transform:
        """A transform with the current parameters."""
        return self._current().transforms[0]

    def forward(self, context: Tensor | None = None) -> BoundTransform:
        """The transform for a context, shape (..., context)."""
        return BoundTransform(self, self._bound(context))

    def extra_repr(self) -> str:
        """The transform, for the module's repr."""
        return repr(self._entry.flow.transforms[0])
