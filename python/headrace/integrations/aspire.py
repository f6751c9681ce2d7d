"""Flows of headrace in place of aspire's own flows.

    from aspire import Aspire

    sampler = Aspire(..., flow_backend="headrace", flow_class="NSF")

If headrace is installed, aspire finds its flows by the name "headrace" (the entry points "aspire.flows").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.install import install

try:
    from array_api_compat import numpy as namespace
    from aspire.flows.base import Flow as AspireFlow
    from aspire.history import FlowHistory
    from aspire.transforms import BaseTransform
except ImportError as error:
    raise ImportError(f"headrace.integrations.aspire needs aspire: {install('aspire')}") from error

from headrace import IAF, MAF, NSF, Flow, RealNVP
from headrace._base import arguments as check
from headrace._base.warn import fixed_epochs
from headrace._fit.history import whole
from headrace.files import from_bytes, to_bytes

__all__ = ["HeadraceFlow"]

KINDS: dict[str, Callable[..., Flow]] = {"MAF": MAF, "IAF": IAF, "NSF": NSF, "RealNVP": RealNVP}

Pair = tuple[Any, Any]


class HeadraceFlow(AspireFlow):
    """A flow with the methods that aspire calls; rows are NumPy arrays, and results belong to the array namespace `xp`.

    Args:
        dims: The number of features.
        flow_class: "MAF", "IAF", "NSF" or "RealNVP", or a function from a number of features to a `headrace.Flow`.
        data_transform: aspire's transform of the data, fitted together with the flow.
        seed: The seed of the weights, the fits and the draws.
        device: "cpu" or None, because rows are NumPy arrays.
        dtype: The flow's dtype, "float32" or "float64"; None for float32.
        **settings: Keywords of the class: `transforms`, `hidden`, `residual`, ...

    Raises:
        TypeError, ValueError: an argument is not as expected; the message has its name.
    """

    xp = namespace

    def __init__(
        self,
        dims: int,
        flow_class: str | Callable[..., Flow] = "MAF",
        data_transform: Any = None,
        seed: int = 1234,
        device: Any = None,
        dtype: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(dims, device=device, data_transform=data_transform)
        by_name = isinstance(flow_class, str)
        make: Any = KINDS[check.choice("flow_class", flow_class, tuple(KINDS))] if by_name else flow_class
        kind = "float32" if dtype is None else check.float_dtype("dtype", str(dtype).removeprefix("torch.")).name
        if str("cpu" if device is None else device) != "cpu":
            raise ValueError(f"device: expected 'cpu' or None, as rows are NumPy's, got {str(device)!r}")
        self._generator = np.random.default_rng(check.integer("seed", seed))
        named = {"seed": self._seed(), "dtype": kind} if by_name else {}
        self.flow: Flow = make(dims, **named, **settings).to("cpu")

    def _seed(self) -> int:
        return int(self._generator.integers(2**62))

    def _rows(self, x: Any) -> NDArray[Any]:
        """Rows as a NumPy array of floats; float64 stays, because near a bound the data transform needs every digit."""
        rows = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
        return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)

    def fit(
        self,
        x: Any,
        n_epochs: int = 100,
        lr: float = 1e-3,
        batch_size: int = 500,
        validation_fraction: float = 0.2,
        clip_grad: float | None = None,
        lr_annealing: bool = False,
        **fit: Any,
    ) -> FlowHistory:
        """Fit the transform of the data, and train the flow with `headrace.Flow.fit`.

        All epochs are run, and the weights of the best epoch on held-out rows are kept, as in aspire.

        Args:
            x: Shape (rows, dims).
            n_epochs, lr, batch_size, validation_fraction, clip_grad: See aspire.
            lr_annealing: Whether the learning rate decreases by a cosine.
            **fit: Arguments of `headrace.Flow.fit` that override those of aspire, such as ``patience=20``.

        Returns:
            A history with the losses of the epochs.
        """
        rows = np.asarray(self.fit_data_transform(self._rows(x)))
        arguments: dict[str, Any] = {
            "epochs": n_epochs,
            "learning_rate": lr,
            "batch_size": batch_size,
            "validation": validation_fraction,
            "patience": n_epochs,
            "schedule": "cosine" if lr_annealing else "constant",
            "clip": clip_grad,
            "seed": self._seed(),
            "progress": False,
        }
        with fixed_epochs():
            history = whole(self.flow.fit(rows, **{**arguments, **fit}))
        losses = {"training_loss": history.train_loss, "validation_loss": history.validation_loss}
        return FlowHistory(**{name: [float(one) for one in values] for name, values in losses.items()})

    def log_prob(self, x: Any, xp: Any = namespace) -> Any:
        """The log density of each row, shape (rows,)."""
        inner, log_det = self.rescale(self._rows(x))
        return xp.asarray(self.flow.log_prob(np.asarray(inner)) + np.asarray(log_det))

    def sample_and_log_prob(self, n_samples: int, xp: Any = namespace) -> Pair:
        """`n_samples` draws, shape (n_samples, dims), and their log densities."""
        inner, log_prob = self.flow.sample_and_log_prob(n_samples, seed=self._seed(), dtype="float64")
        x, log_det = self.inverse_rescale(np.asarray(inner))
        return xp.asarray(np.asarray(x)), xp.asarray(np.asarray(log_prob) - np.asarray(log_det))

    def sample(self, n_samples: int, xp: Any = namespace) -> Any:
        """`n_samples` draws, shape (n_samples, dims)."""
        return self.sample_and_log_prob(n_samples, xp=xp)[0]

    def forward(self, x: Any, xp: Any = namespace) -> Pair:
        """Transform data to latent; return latent rows and log-determinants."""
        inner, before = self.rescale(self._rows(x))
        z, log_det = self.flow.to_latent(np.asarray(inner))
        return xp.asarray(z), xp.asarray(log_det + np.asarray(before))

    def inverse(self, z: Any, xp: Any = namespace) -> Pair:
        """Transform latent to data; return data and log-determinants."""
        inner, log_det = self.flow.to_data(self._rows(z))
        x, after = self.inverse_rescale(np.asarray(inner, np.float64))
        return xp.asarray(np.asarray(x)), xp.asarray(log_det + np.asarray(after))

    def save(self, h5_file: Any, path: str = "flow") -> None:
        """Write the flow's file, the transform of the data and the generator's state into a group of an HDF5 file."""
        group = h5_file.create_group(path)
        group.create_dataset("file", data=np.frombuffer(to_bytes(self.flow), np.uint8))
        group.attrs["dims"], group.attrs["generator"] = self.dims, json.dumps(self._generator.bit_generator.state)
        self.data_transform.save(group, "data_transform")

    @classmethod
    def load(cls, h5_file: Any, path: str = "flow") -> HeadraceFlow:
        """Read a group that `save` wrote; fits and draws continue as if without interruption."""
        group = h5_file[path]
        flow = from_bytes(group["file"][()].tobytes())
        transform = BaseTransform.load(group, "data_transform", strict=False)
        own = cls(int(group.attrs["dims"]), lambda dims: flow, data_transform=transform)
        own._generator.bit_generator.state = json.loads(group.attrs["generator"])
        return own
