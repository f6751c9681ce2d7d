"""Interface between an adapter module and the worker.

Each adapter module `adapters/<library>.py` has

- ``DISTRIBUTIONS``: names of the installed distributions whose versions belong in a report;
- ``setup(threads, device)``: called once before the first model; imports the library (an ImportError means: absent, or
  that it has no such device);
- ``build(workload, device, **options) -> Model``: raises `UnsupportedError` for what the library cannot build with
  equal sizes;
- ``stopwatch(device) -> Stopwatch | None``, None if all calls of the library wait for their results: the stopwatch
  waits for the results of asynchronous calls.

A device is one of `devices.DEVICES`.

Modules import their library inside `setup` and `build` only, so that importing an adapter is always possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class UnsupportedError(Exception):
    """The library has no model of a workload's family, or none with equal layer sizes."""


def equal_width(hidden: Sequence[int]) -> int:
    """The common width of the hidden layers, for libraries that support only one width."""
    if not hidden or len(set(hidden)) != 1:
        raise UnsupportedError(f"hidden layers must have one common width, got {tuple(hidden)}")
    return hidden[0]


def _nothing(_verb: str, _argument: Any) -> None:
    pass


def _not_for_training(_rows: Any) -> Any:
    raise UnsupportedError("the model was not built for training")


def _not_there(_rows: Any) -> Any:
    raise UnsupportedError("the library has no such call for this model")


@dataclass
class Model:
    """A model as plain calls, named like the verbs; `sample` takes the number of rows, and other calls take rows.

    Each call returns when its result is complete; on a device, if the adapter has a stopwatch, when the call's work is
    queued.
    """

    log_prob: Callable[[Any], Any]
    sample: Callable[[int], Any]
    to_native: Callable[[Any], Any]  # NumPy float32 array -> the form of rows in calls; never timed
    to_numpy: Callable[[Any], Any]  # result, or one of a pair -> NumPy array or number; never timed
    passes: int = 1  # passes of the whole network in the sequential direction
    compile: Callable[[str, Any], None] = _nothing  # (verb, argument): prepares a call once, without running it
    train: Callable[[Any], Any] = _not_for_training  # one step of Adam on the rows; returns the loss before it
    forward: Callable[[Any], Any] = _not_there  # latent rows -> (rows, log-determinants)
    inverse: Callable[[Any], Any] = _not_there  # the way back
    fit_to_normal: Callable[[Any], Any] = _not_there  # one step of Adam on latent rows; returns the loss before it
    # One step of a dual ascent on the model's rows; returns the sums of the step.
    step: Callable[[Any], Any] = _not_there
    fit: Callable[[Any], Any] = _not_there  # a whole dual ascent on the model's rows -> the log-likelihood
