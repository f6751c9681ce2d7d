"""Flows of headrace for nessai's nested sampling, in place of nessai's own flows.

    from headrace.integrations.nessai import FlowProposal
    from nessai.flowsampler import FlowSampler

    sampler = FlowSampler(model, flow_proposal_class=FlowProposal)  # all other arguments as in nessai

`flow_config` describes the flow, and headrace trains the flow with `training_config`; nessai itself writes checkpoints
and weight files, and resumes runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from headrace._base.install import install

try:
    import torch
    from nessai.flowmodel.base import FlowModel as NessaiFlowModel
    from nessai.flows.base import BaseFlow
    from nessai.plot import plot_loss
    from nessai.proposal import FlowProposal as NessaiFlowProposal
except ImportError as error:
    raise ImportError(f"headrace.integrations.nessai needs nessai: {install('nessai')}") from error

from torch import Tensor

from headrace import MAF, NSF, Flow, RealNVP
from headrace._base import arguments as check
from headrace._base.warn import fixed_epochs
from headrace._fit.history import whole
from headrace.torch import FlowModule

__all__ = ["FlowModel", "FlowProposal", "NessaiFlow"]

KINDS: dict[str, Callable[..., Flow]] = {"realnvp": RealNVP, "maf": MAF, "nsf": NSF, "spline": NSF}
_DECAY = 0.01  # the weight decay of PyTorch's AdamW, the default without `optimiser_kwargs`


class NessaiFlow(FlowModule, BaseFlow):
    """A flow with the methods that nessai calls; ``flow_config={"flow": NessaiFlow, ...}`` makes such a flow.

    nessai's own loop can also train the module, for example in its importance nested sampler.

    Args:
        n_inputs: The number of features.
        n_neurons: The units of each hidden layer.
        n_blocks: The number of transforms.
        n_layers: The hidden layers of each transform's network.
        kind: "realnvp", "maf" or "nsf".
        context_features: The number of context columns; 0 or None for no context.
        activation: The name of an activation, or the function of `torch.nn.functional` that nessai makes of the name.
        distribution: Only None, because the base is the standard normal.
        **settings: Keywords of `headrace.RealNVP`, `headrace.MAF` or `headrace.NSF`.

    Raises:
        TypeError, ValueError: an argument is not as expected; the message has its name.
    """

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        n_blocks: int,
        n_layers: int,
        *,
        kind: str = "realnvp",
        context_features: int | None = None,
        activation: Any = "relu",
        distribution: None = None,
        **settings: Any,
    ) -> None:
        make = KINDS[check.choice("kind", kind, tuple(KINDS))]
        if distribution is not None:
            raise ValueError(f"distribution: expected None, for the standard normal, got {distribution!r}")

        def fresh() -> Flow:
            sizes = {"transforms": n_blocks, "hidden": (n_neurons,) * n_layers}
            named = {"activation": getattr(activation, "__name__", activation), "seed": int(torch.randint(2**62, ()))}
            return make(n_inputs, context=context_features or 0, **sizes, **(named | settings))

        super().__init__(fresh())
        self._fresh = fresh

    def reset_parameters(self) -> None:
        """Replace the flow by one with fresh weights."""
        device, dtype = self.vector.device, str(self.vector.dtype).removeprefix("torch.")
        self.flow = self._fresh().astype(dtype)
        self.to(device)

    def forward(  # type: ignore[override]  # the signatures of this class are nessai's
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Transform data to latent; return latent rows and log-determinants."""
        return self.to_latent(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform latent to data; return data and log-determinants."""
        return self.to_data(z, context)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`n` draws, shape (n, features); a context has one row for each draw."""
        return self.sample_and_log_prob(n, context)[0]

    def sample_and_log_prob(  # type: ignore[override]
        self, n: int, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`n` draws and their log densities."""
        z = self.sample_latent_distribution(n)
        x, log_det = self.inverse(z, context)
        return x, self.base_distribution_log_prob(z) - log_det

    def sample_latent_distribution(self, n: int, context: Tensor | None = None) -> Tensor:
        """`n` rows of the base, drawn by PyTorch's generator."""
        return self._noise((int(n), self.features))

    def base_distribution_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The log density of each latent row under the base."""
        return -0.5 * (z * z + np.log(2 * np.pi)).sum(dim=-1)

    def forward_and_log_prob(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The latent rows of data, and the log densities of the data."""
        z, log_det = self.forward(x, context)
        return z, self.base_distribution_log_prob(z) + log_det

    def freeze_transform(self) -> None:
        """Exclude all parameters from training."""
        self.requires_grad_(False)

    def unfreeze_transform(self) -> None:
        """Include all parameters in training again."""
        self.requires_grad_(True)


class FlowModel(NessaiFlowModel):
    """nessai's `FlowModel` with a flow of headrace, trained by `headrace.Flow.fit`.

    In `flow_config`, `ftype` is "realnvp", "maf", "nsf" or "spline"; `n_neurons` is by default twice the
    number of inputs, as in nessai, but at least 32; all other keys are settings of `headrace.RealNVP`, `headrace.MAF`
    or `headrace.NSF`. In `training_config`, `lr`, `batch_size`, `val_size`, `max_epochs`, `patience`, `clip_grad_norm`,
    `annealing` (by a cosine) and the `weight_decay` of `optimiser_kwargs` have nessai's meaning, and ``"fit"``
    has arguments of `headrace.Flow.fit` that override these. Noise, optimisers other than "adamw" and devices other
    than the CPU are refused.
    """

    def setup_from_input_dict(self, flow_config: Any, training_config: Any) -> None:
        """Set the flow and the training from configurations; see the class.

        Raises:
            ValueError: a setting has no counterpart; the message has its name.
        """
        own = dict(flow_config or {})
        kind = own.pop("ftype", None) or own.get("kind", "realnvp")
        own["kind"] = check.choice("ftype", str(kind).lower(), tuple(KINDS))
        own["flow"] = own.get("flow") or NessaiFlow
        if own.get("n_neurons") is None and own.get("n_inputs"):
            own["n_neurons"] = max(2 * own["n_inputs"], 32)
        super().setup_from_input_dict(own, training_config)
        words = self.training_config
        for name, expected in (("noise_type", None), ("noise_scale", None), ("optimiser", "adamw")):
            if words[name] != expected:
                raise ValueError(f"{name}: expected {expected!r} for flows of headrace, got {words[name]!r}")
        for name in ("device_tag", "inference_device_tag"):
            if str(words.get(name) or "cpu") != "cpu":
                raise ValueError(f"{name}: expected 'cpu', got {words[name]!r}")
        if unknown := sorted(set(self.optimiser_kwargs) - {"weight_decay"}):
            raise ValueError(f"optimiser_kwargs: expected weight_decay alone, got {unknown[0]!r}")

    def train(
        self,
        samples: Any,
        weights: Any = None,
        conditional: Any = None,
        max_epochs: int | None = None,
        patience: int | None = None,
        output: str | None = None,
        val_size: float | None = None,
        plot: bool = True,
    ) -> dict[str, list[float]]:
        """Train from the current parameters on; write the weights and a plot of the losses.

        Args:
            samples: Shape (rows, n_inputs).
            weights: Shape (rows,).
            conditional: Shape (rows, context_features).
            max_epochs, patience, val_size: Values that replace those of `training_config`; None keeps them.
            output: The folder for the weights and the plot.
            plot: Whether to make the plot.

        Returns:
            The losses of the epochs, "loss" and "val_loss"; the latter is NaN without held-out rows.
        """
        if not self.initialised:
            self.initialise()
        output = self.output if output is None else output
        os.makedirs(output, exist_ok=True)
        words = {**self.training_config}
        for name, value in (("max_epochs", max_epochs), ("patience", patience), ("val_size", val_size)):
            words[name] = words[name] if value is None else value
        arguments, train, held = self._arguments(words, len(samples))

        def part(chosen: Any) -> list[Any]:
            """The chosen rows, contexts and weights, as float64 arrays."""
            return [None if a is None else np.asarray(a, float)[chosen] for a in (samples, conditional, weights)]

        x, context, w = part(train)
        flow = self.model.flow
        arguments["validation"] = tuple(part(held)) if len(held) else None
        with fixed_epochs():
            history = whole(flow.fit(x, context, weights=w, **{**arguments, **words.get("fit", {})}))
        self.model.flow = flow
        self.model.eval()
        self.finalise()
        self.save_weights(os.path.join(output, "model.pt"))
        losses = {"loss": list(history.train_loss), "val_loss": list(history.validation_loss)}
        losses["val_loss"] = losses["val_loss"] or [np.nan] * len(losses["loss"])
        if plot:
            plot_loss(len(losses["loss"]), losses, filename=os.path.join(output, "loss.png"))
        return losses

    def _arguments(self, words: dict[str, Any], n: int) -> tuple[dict[str, Any], Any, Any]:
        """Arguments of `headrace.Flow.fit`, and indices of training and of held-out rows, drawn as nessai does."""
        order = self.rng.permutation(n)
        cut = int((1 - (words["val_size"] or 0)) * n)
        batch = words["batch_size"]
        arguments = {
            "epochs": words["max_epochs"],
            "batch_size": cut if batch in (None, "all") else min(batch, cut),
            "patience": words["patience"] + 1,  # nessai ends a fit after one more epoch without a new best
            "learning_rate": words["lr"],
            "weight_decay": self.optimiser_kwargs.get("weight_decay", _DECAY),
            "schedule": "cosine" if words["annealing"] else "constant",
            "clip": words["clip_grad_norm"] or None,
            "seed": int(self.rng.integers(2**62)),
            "progress": False,
        }
        return arguments, order[:cut], order[cut:]


class FlowProposal(NessaiFlowProposal):
    """nessai's `FlowProposal` with headrace's `FlowModel`, for ``FlowSampler(model, flow_proposal_class=...)``."""

    _FlowModelClass = FlowModel
