"""The history of a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from headrace._base.public import public

NOT_KEPT = {"is_kept": False}  # metadata of fields that a checkpoint leaves out
LISTED = 4  # with this many held-out sequences or more, the representation omits them


@public("headrace.training")
@dataclass
class History:
    """The course of a fit. Losses are mean negative log-likelihoods in nats in the data's units, one for each epoch."""

    train_loss: list[float] = field(default_factory=list)
    """The mean training loss while the epoch ran."""
    validation_loss: list[float] = field(default_factory=list)
    """Validation loss after the epoch; empty without held-out rows."""
    learning_rate: list[float] = field(default_factory=list)
    """Learning rate at the end of the epoch."""
    seconds: list[float] = field(default_factory=list)
    """Seconds since the fit began."""
    cpu_seconds: list[float] = field(default_factory=list)
    """CPU seconds of the process since the fit began, of all threads and with everything that the fit has tried."""
    best_epoch: int = 0
    """The index of the epoch whose weights were kept, counted from 1; 0 if no epoch was better than the weights before
    the fit. An epoch that ended early may be the best one, although the lists do not have it."""
    best_loss: float = math.inf
    """The validation loss of the best epoch, or its training loss without validation. In long epochs of
    sequences, `best_loss` is the loss of a fixed sample of the held-out steps (docs/sequences.md)."""
    partial_epoch: float = 0.0
    """The finished share of an epoch that Ctrl-C or the time budget ended early; the lists do not have this epoch."""
    elapsed: float = field(default=0.0, compare=False)
    """Seconds of the whole fit, including an epoch that ended early."""
    stopped: str = "epochs"
    """The reason why the fit ended: "epochs" (all done), "patience", "time_budget", "interrupted" or "non-finite"."""
    weight_decay: float = math.nan
    """Weight decay of the weights that were kept."""
    schedule: str = "constant"
    """The schedule of the learning rate that led to the weights that were kept."""
    weight_decays: dict[float, float] = field(default_factory=dict)
    """The weight decays in the order of trial, each with its lowest validation loss; empty without held-out rows."""
    still_falls: bool = False
    """Whether held-out rows still gained when epochs or time were over: more than 0.01 nats in the last tenth of the
    epochs, or more than 0.2 nats since the trial that a default fit of many rows continues. More epochs may gain more.
    """
    judged_by: str = "training rows"
    """The criterion for the weights: "held-out rows", "held-out sequences", "held-out steps" (the ends of
    sequences), "cross-validation" or, with none of them, "training rows"."""
    held_out: dict[int, int] = field(default_factory=dict, metadata=NOT_KEPT)
    """In a fit of sequences, a dict from the index of each sequence with held-out steps to the number of these steps,
    which are all or the last ones."""
    gaussian: bool = False
    """Whether the flow ended as the Gaussian of the training rows, because no epoch was clearly better. If the fit is
    `gaussianized` too, the flow is a Gaussian copula: a Gaussian behind curves."""
    mixture: int = 0
    """The number of components of the mixture of normal densities that replaced the base in a fit of few rows, or 0. If
    `best_epoch` is 0, the flow is the mixture itself."""
    from_samples: bool = field(default=False, metadata=NOT_KEPT)
    """Whether a fit of few rows learned from samples of a mixture with a covariance for each component, which
    no base has. If True, `mixture` is the number of components, and the losses of epochs are losses on samples."""

    gaussianized: bool = False
    """Whether the fit made columns normal by one or two `headrace.transforms.Gaussianize` at the flow's data end; a
    `Gaussianize` that changes only tails does not count."""
    heavy_tails: bool = False
    """Whether the fit of a flow of sequences replaced its base by a `headrace.StudentT`, because held-out steps did
    not clearly lose."""
    adaptive: bool = False
    """Whether the fit of a `headrace.WaveNet` replaced its linear prediction by a `headrace.AdaptivePrediction`,
    because held-out steps gained."""
    residuals: dict[int, float] = field(default_factory=dict)
    """Columns that residuals replace in the networks, and the share of the variance in each residual, 1 - R²."""

    tried: dict[str, float] = field(default_factory=dict, metadata=NOT_KEPT)
    """With ``effort="high"``: the held-out losses of the flows, of their mixture and of the student, by name."""
    chosen: str = field(default="", metadata=NOT_KEPT)
    """With ``effort="high"``: the flow's origin, "student" or a member's name, whose fit other attributes describe."""
    fits: list[History] = field(default_factory=list, metadata=NOT_KEPT, compare=False)
    """With ``effort="high"``: the histories of the members, in order, each with its weight decay, curves and residual
    columns."""
    members: Any = field(default=None, metadata=NOT_KEPT, compare=False)
    """With ``effort="high"`` and ``keep=True``: the flows as a `headrace.Ensemble`, with their weights; else None."""

    @property
    def epochs(self) -> int:
        """The number of whole epochs."""
        return len(self.train_loss)

    @property
    def passes(self) -> float:
        """The number of epochs, including the share of an epoch that ended early."""
        return self.epochs + round(self.partial_epoch, 2) if self.partial_epoch else self.epochs

    @property
    def duration(self) -> float:
        """Seconds until the end of the last epoch, even if this epoch ended early."""
        return self.elapsed if self.partial_epoch or not self.seconds else self.seconds[-1]

    def __repr__(self) -> str:
        """A line with the number of epochs, the best epoch and its loss, the reason for the end, and the seconds."""
        held = f"held_out={self.held_out}, " if 0 < len(self.held_out) < LISTED else ""
        return (
            f"History(epochs={self.passes:.7g}, best_epoch={self.best_epoch}, best_loss={self.best_loss:.4f}, "
            f"stopped={self.stopped!r}, {held}{'still_falls=True, ' if self.still_falls else ''}"
            f"seconds={self.duration:.2f})"
        )


def is_interrupted(history: History) -> bool:
    """Whether Ctrl-C ended the fit."""
    return history.stopped == "interrupted"


def whole(history: History) -> History:
    """The unchanged history of a fit within another computation; raises KeyboardInterrupt if Ctrl-C ended the fit.

    After Ctrl-C a fit returns its best weights so far, which the computation would mistake for those of a finished fit.
    """
    if is_interrupted(history):
        raise KeyboardInterrupt
    return history


def kept_fields() -> list[str]:
    """The names of the fields that a checkpoint of a fit keeps."""
    return [field.name for field in fields(History) if field.metadata.get("is_kept", True)]
