"""Across the border without copies: NumPy, PyTorch and JAX read the same memory, and one flow reads and fills it.

The example prints addresses. Rows are made once, each framework opens them in place, and the flow scores them there:
results are arrays of the framework, with equal bits. The core writes a result into memory of a framework (`out=`, or
memory that the next framework opens). Sharing has limits: JAX opens only aligned memory in place, and other frameworks
can only read arrays of JAX.

    python examples/frameworks_without_copies.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import jax
import numpy as np
import torch
from jax import numpy as jnp

import headrace as hr


def address(array: object) -> int:
    """The address of an array's first value."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    if isinstance(array, torch.Tensor):
        return int(array.data_ptr())
    return int(array.unsafe_buffer_pointer())  # type: ignore[attr-defined]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; an assertion fails where something was copied."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args(arguments)

    flow = hr.NSF(features=4, seed=0)
    noise = np.random.default_rng(0).standard_normal(flow.parameters.size, np.float32)
    flow.parameters = flow.parameters + 0.03 * noise
    x_torch = torch.randn(options.rows, 4, generator=torch.Generator().manual_seed(0))
    x_numpy = x_torch.numpy()
    x_jax = jnp.from_dlpack(x_torch)  # needs aligned memory, which PyTorch's is and NumPy's need not be
    opened = {"NumPy": x_numpy, "PyTorch": x_torch, "JAX": x_jax}
    print(f"rows, {x_numpy.nbytes / 1e6:.1f} MB, opened by each framework:")
    for name, array in opened.items():
        print(f"  {name:8} {address(array):#x}")
    assert len({address(array) for array in opened.values()}) == 1

    print("log densities, computed from these rows:")
    scores = {name: flow.log_prob(array) for name, array in opened.items()}
    for name, score in scores.items():
        print(f"  {name:8} {address(score):#x}  {type(score).__module__.split('.')[0]}, mean {float(score.mean()):.4f}")
    assert isinstance(scores["PyTorch"], torch.Tensor)
    assert isinstance(scores["JAX"], jax.Array)
    for score in scores.values():
        np.testing.assert_array_equal(np.asarray(score), scores["NumPy"])

    score_numpy = np.asarray(scores["JAX"])  # a view, which NumPy may only read, because JAX's arrays do not change
    assert address(score_numpy) == address(scores["JAX"])
    assert not score_numpy.flags.writeable
    score_torch = torch.from_numpy(scores["NumPy"])
    assert address(score_torch) == address(scores["NumPy"])
    print("JAX's result as a NumPy array, NumPy's as a tensor: same addresses")

    memory = torch.empty(options.rows, 4)
    z, _ = flow.to_latent(x_torch, out=(memory, torch.empty(options.rows)))
    print(f"to_latent into a tensor that was there: {address(memory):#x}, and its result {address(z):#x}")
    assert address(z) == address(memory)
    z_jax = jnp.from_dlpack(memory)
    assert address(z_jax) == address(memory)
    x_again, _ = flow.to_data(z_jax)
    print(f"  read there by JAX, and taken back to data within {float(jnp.abs(x_again - x_jax).max()):.1e}")
    assert float(jnp.abs(x_again - x_jax).max()) < 1e-2
    return 0


if __name__ == "__main__":
    sys.exit(main())
