"""Flows of headrace for pocoMC's preconditioned Monte Carlo, in place of pocoMC's own flows.

    from headrace.integrations.pocomc import Sampler

    sampler = Sampler(prior, likelihood, flow="nsf6")  # all other arguments as in pocomc.Sampler

Each step of pocoMC's chains transforms latent to data, for which flows of pocoMC need a network pass per dimension.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from headrace._base.install import install

try:
    import pocomc
    import torch
except ImportError as error:
    raise ImportError(f"headrace.integrations.pocomc needs pocoMC: {install('pocomc')}") from error

from torch import Tensor

from headrace import MAF, NSF, RealNVP, StandardNormal
from headrace import Flow as HeadraceFlow
from headrace._base import arguments as check
from headrace._base.warn import fixed_epochs
from headrace._fit.history import whole

__all__ = ["Flow", "Sampler"]

KINDS: dict[str, Callable[..., HeadraceFlow]] = {"maf": MAF, "nsf": NSF, "realnvp": RealNVP}

# Arguments of pocoMC's `fit` that `headrace.Flow.fit` lacks, each with the value that disables it.
_WITHOUT = {"laplace_scale": None, "gaussian_scale": None, "noise": None, "shuffle": True}


class Flow:
    """The counterpart of `pocomc.Flow`, computed and trained by headrace.

    Args:
        n_dim: The number of dimensions.
        flow: A name in pocoMC's form, "nsf6", "maf3", "realnvp8", ...: the kind and the number of transforms, with
            pocoMC's sizes (three residual layers of 32 units, or of the power of two that is 3 n_dim or more); or a
            `headrace.Flow` without context and with a standard normal base, which is copied.
        fit: Arguments of `headrace.Flow.fit` that override the sampler's, such as ``{"learning_rate": 5e-3}``.
        **settings: Keywords of `headrace.NSF`, `headrace.MAF` or `headrace.RealNVP` that replace pocoMC's sizes:
            `hidden`, `seed`, ...

    Attributes:
        flow: The underlying `headrace.Flow`.

    Raises:
        TypeError, ValueError: a name is unknown, or a flow does not fit; the message has the argument's name.

    >>> import torch
    >>> flow = Flow(2, "maf3", seed=0)
    >>> u, log_det = flow.forward(torch.zeros(4, 2))
    >>> torch.allclose(flow.inverse(u)[0], torch.zeros(4, 2), atol=1e-5)
    True
    """

    def __init__(
        self, n_dim: int, flow: str | HeadraceFlow = "nsf6", *, fit: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        self.n_dim = check.integer("n_dim", n_dim, least=1)
        self.flow = _made(self.n_dim, flow, settings)
        self._fit = dict(fit or {})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform data to latent: ``(u, log_det)``, shapes (rows, n_dim) and (rows,), in the flow's dtype."""
        return self.flow.to_latent(x.detach())

    __call__ = forward

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Transform latent to data: ``(x, log_det)``, shapes (rows, n_dim) and (rows,), in the flow's dtype."""
        return self.flow.to_data(u.detach())

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density of each row, shape (rows,)."""
        return self.flow.log_prob(x.detach())

    def sample(self, size: int = 1) -> tuple[Tensor, Tensor]:
        """``(x, log_prob)``: draws and log densities; PyTorch's generator gives the seed (`torch.manual_seed`)."""
        return self.flow.sample_and_log_prob(int(size), seed=_seed(), like="torch")

    def fit(
        self,
        x: Tensor,
        weights: Tensor | None = None,
        validation_split: float = 0.0,
        epochs: int = 1000,
        batch_size: int = 1000,
        patience: int = 20,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        laplace_scale: None = None,
        gaussian_scale: None = None,
        annealing: bool = True,
        noise: None = None,
        shuffle: bool = True,
        clip_grad_norm: float = 1.0,
        verbose: int = 0,
    ) -> dict[str, list[float]]:
        """Train from the current parameters on, with `headrace.Flow.fit`; the arguments are pocoMC's.

        Differences from pocoMC: the gradient's norm is limited for the mean loss, and not for 1000 times the loss;
        parameters are a running mean of the optimiser's; the first fit sets shifts and scales of the dimensions; and if
        all epochs are worse than the start on held-out rows, the fit keeps the parameters of the start.

        Args:
            x: Shape (rows, n_dim).
            weights: Shape (rows,).
            validation_split: The share of rows **to train with**, as in pocoMC; the other rows are held out. 0 for no
                held-out rows.
            epochs: The most epochs.
            batch_size: The number of rows of a step.
            patience: The fit ends after 1.5 times this number of epochs without a new best.
            learning_rate: The rate at the start.
            weight_decay: The weight decay of AdamW, for matrices only.
            laplace_scale, gaussian_scale, noise: Only None; other penalties than `weight_decay` are refused.
            annealing: Whether to lower the learning rate on a plateau of the loss ("plateau" of `headrace.Flow.fit`).
            shuffle: Only True.
            clip_grad_norm: The largest norm of a gradient.
            verbose: Above 0 to show a progress bar.

        Returns:
            The losses of the epochs, "loss" and "val_loss".

        Raises:
            ValueError: a setting has no counterpart; the message has its name.
        """
        given = {"laplace_scale": laplace_scale, "gaussian_scale": gaussian_scale, "noise": noise, "shuffle": shuffle}
        for name, value in given.items():
            if value != _WITHOUT[name]:
                raise ValueError(f"{name}: expected {_WITHOUT[name]}, as flows of headrace are trained, got {value!r}")
        x, n = x.detach(), len(x)
        order = torch.randperm(n)
        cut = int(validation_split * n) if validation_split else n
        train, held = order[:cut], order[cut:]
        w, w_held = (None, None) if weights is None else (weights.detach()[train], weights.detach()[held])
        arguments: dict[str, Any] = {
            "validation": (x[held], None, w_held) if len(held) else None,
            "epochs": int(epochs),
            "batch_size": min(int(batch_size), cut),
            "patience": max(int(1.5 * patience), 1),
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "schedule": "plateau" if annealing else "constant",
            "clip": clip_grad_norm,
            "seed": _seed(),
            "progress": verbose > 0,
        }
        with fixed_epochs():
            history = whole(self.flow.fit(x[train], weights=w, **{**arguments, **self._fit}))
        return {"loss": list(history.train_loss), "val_loss": list(history.validation_loss)}


class Sampler(pocomc.Sampler):
    """`pocomc.Sampler` with a flow of headrace; all arguments except `flow` are those of `pocomc.Sampler`.

    A state file can be loaded by the class that wrote it, this class or `pocomc.Sampler`.

    Args:
        *args: Arguments of `pocomc.Sampler`.
        flow: A `Flow` of this module, or the argument `flow` of its constructor.
        **kwargs: Keywords of `pocomc.Sampler`.
    """

    def __init__(self, *args: Any, flow: str | HeadraceFlow | Flow = "nsf6", **kwargs: Any) -> None:
        super().__init__(*args, flow="maf3", **kwargs)  # a placeholder, because only zuko's flows are accepted
        self.flow = flow if isinstance(flow, Flow) else Flow(self.n_dim, flow)
        if self.flow.n_dim != self.n_dim:
            raise ValueError(f"flow: expected {self.n_dim} dimensions, as the prior has, got {self.flow.n_dim}")


def _made(n_dim: int, flow: Any, settings: dict[str, Any]) -> HeadraceFlow:
    if isinstance(flow, str):
        found = re.fullmatch(r"([a-z]+)(\d*)", flow)
        kind = found[1] if found else flow
        if kind not in KINDS:
            raise ValueError(f"flow: expected {', '.join(KINDS)} and a number of transforms, as 'nsf6', got {flow!r}")
        units = max(1 << (3 * n_dim - 1).bit_length(), 32)
        sizes: dict[str, Any] = {"hidden": (units,) * 3, "residual": True, **settings}
        if found and found[2]:
            sizes["transforms"] = int(found[2])
        return KINDS[kind](n_dim, **sizes)
    if not isinstance(flow, HeadraceFlow):
        raise TypeError(f"flow: expected a name, as 'nsf6', or a headrace.Flow, got {check.kind_of(flow)}")
    if settings:
        raise ValueError(f"{min(settings)}: expected no settings beside a flow of your own")
    if (flow.features, flow.context) != (n_dim, 0):
        raise ValueError(f"flow: expected {n_dim} features and no context, got {flow.features} and {flow.context}")
    if not isinstance(flow.base, StandardNormal):
        raise ValueError(f"flow: expected a standard normal base, for the sampler's steps, got {flow.base!r}")
    return flow.astype(flow.dtype)


def _seed() -> int:
    return int(torch.randint(2**62, ()))
