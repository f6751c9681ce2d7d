"""One dense parameter for each matrix and bias of a flow, and the vector of the core as a gather of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace._flow.flow import Flow


class Layers(nn.Module):
    """The parameters of a flow under the names and in the shapes of its files, as a tree of modules.

    Units are in the order of the flow's maker, and not in the order by degree of the core. Entries that a mask leaves
    out are zero, are not read, and have gradients of zero.

    Args:
        flow: On the CPU; its parameters are copied.
    """

    entries: Tensor

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        vector, begin, count = flow.parameters, 0, 1  # entry 0 is the zero that padding reads
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
        """The current tensors in the order of the vector: parameters, or results of a parametrisation."""
        found = ((module._parameters.get(leaf), module, leaf) for module, leaf in self._ordered)
        return [getattr(module, leaf) if p is None else p for p, module, leaf in found]  # attributes are slow

    def vector(self) -> Tensor:
        """The vector of the core, with gradients by all parameters."""
        dense = self.dense()
        zero = dense[0].new_zeros(1)
        return torch.cat([zero, *(t.reshape(-1) for t in dense)]).index_select(0, self.entries)

    @torch.no_grad()
    def assign(self, vector: Tensor) -> None:
        """Copy the values of a vector in."""
        dense = self.dense()
        flat = vector.new_zeros(1 + sum(t.numel() for t in dense))
        flat[self.entries] = vector
        begin = 1
        for t in dense:
            t.copy_(flat[begin : begin + t.numel()].reshape(t.shape))
            begin += t.numel()
