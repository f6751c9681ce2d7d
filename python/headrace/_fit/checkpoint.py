"""The state of a fit in a file, from which a repeated call continues the fit bit for bit.

A state is stored between two steps of the optimiser. The generator's state before an epoch and the number of finished
batches determine the rows of later batches. A resumed fit draws the epoch's order of rows again, skips the finished
batches, and computes the remaining ones with the same bits.
"""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import files
from headrace._arrays import caller as _arrays
from headrace._base import arguments as check
from headrace._base.output import check_writable
from headrace._fit import clock as _clock
from headrace._fit.history import kept_fields

FORMAT = 5  # in format 1, epochs count from 0; in 2, no stage starts again; in 3, only the last stage; in 4, trials are
# stages
_KEY = "headrace_checkpoint"
_OF_RUN = ("rate", "rate_factor", "spent", "lowest", "lowest_epoch", "start_tried")
_OF_STAGES = ("index", "is_cosine", "was_cosine", "begin", "end", "best_epoch", "before", "lowest", "halfway", "paused")


@dataclass
class _Pass:
    """The state of a run when its current epoch began. Only the optimiser's step count tells which batches are
    finished, because Ctrl-C may interrupt any line.
    """

    random: Any  # the generator's state before the epoch
    epoch: int
    step: int  # the fit's step count at the first batch
    clock: int  # the optimiser's step count at the first batch
    under_way: tuple[int, float, float]  # a batch, the epoch's sum of losses before the batch, and the sum with it


class Checkpoint:
    """The file to which a `headrace._fit.run.Run` writes the state of a fit; without a path no file is written."""

    stays = False
    """Whether the file stays after the fit, so that a repeated call of the same fit ends at once."""

    def __init__(self, path: Any, every: Any) -> None:
        """`path`, `every`: the arguments `checkpoint` and `checkpoint_every` of `Flow.fit`."""
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
        if path is not None and not isinstance(name, str):
            raise TypeError(f"checkpoint: expected a str or an os.PathLike of one, got {check.kind_of(path)}")
        self.path = name
        self.writes = name is not None
        self.seconds, self.epochs = _interval(every)
        self.fingerprint: dict[str, str] = {}
        self._found: tuple[dict[str, Any], dict[str, NDArray[Any]]] | None = None
        self._held: tuple[dict[str, Any], dict[str, NDArray[Any]]] | None = None
        self._pass: _Pass | None = None
        self._skip, self._partial = 0, 0.0
        self._written = (0, 0)  # epoch and batches of the state in the file
        self._last = time.monotonic()

    def open(self, fingerprint: dict[str, str]) -> None:
        """Read an existing file without changing the flow; raise ValueError for the state of another fit."""
        if self.path is None:
            return
        check_writable("checkpoint", self.path)
        self.fingerprint = fingerprint
        if not os.path.exists(self.path):
            return
        try:
            state, arrays = files.load_state(self.path, _KEY)
            if state.get("format") != FORMAT:
                raise files.FileFormatError(f"{self.path}: format {state.get('format')!r}, expected {FORMAT}")
        except files.FileFormatError as error:
            raise files.FileFormatError(f"checkpoint: expected the state of a fit, or no file yet: {error}") from error
        there = {"gaussianize": "False", "optimizer": "'adam'", **state["fit"]}  # defaults for earlier files
        differing = [name for name in {**there, **fingerprint} if there.get(name) != fingerprint.get(name)]
        if differing:
            text = "; ".join(f"{name}: {there.get(name)} there, {fingerprint.get(name)} here" for name in differing)
            raise ValueError(
                f"checkpoint: expected the fit whose state is in {self.path}, got another one ({text}); repeat that "
                "call with a flow made as then, or remove the file"
            )
        self._found = state, arrays

    def known(self, name: str) -> Any:
        """The attribute `name` of the stored fit's history; False if the file lacks it; None without a stored fit."""
        return None if self._found is None else self._found[0]["history"].get(name, False)

    @property
    def residuals(self) -> list[int] | None:
        """The columns that the stored fit has replaced by residuals; None without a stored fit."""
        if self._found is None:
            return None
        columns = self._found[1].get("history.residuals")
        return [] if columns is None else [int(column) for column in columns.reshape(-1, 2)[:, 0]]

    @property
    def chosen(self) -> dict[str, Any]:
        """Fields of a `Plan` with which the stored fit continues: learning rate, weight decay, first and last epoch;
        empty without a stored fit.
        """
        if self._found is None:
            return {}
        state = self._found[0]
        rate, decay = state["run"]["rate"], state["history"]["weight_decay"]
        kept = {"learning_rate": rate, "weight_decay": decay, "begun": state["stages"]["begin"]}
        return {name: _read(value) for name, value in {**kept, "epochs": state["stages"]["end"]}.items()}

    def remove(self) -> None:
        """Remove the file of a finished fit; if `stays`, write the fit's last state to the file instead."""
        if self.stays and self._held is not None and _place(self._held[0]) > self._written:
            self._write(*self._held)
        elif self.path is not None and self.writes and not self.stays:
            with suppress(FileNotFoundError):
                os.unlink(self.path)

    # ---- calls of a run ------------------------------------------------------------------------------------------

    def resume(self, run: Any) -> int:
        """Restore the run from the stored state; return the number of finished epochs, 0 without a stored state."""
        if self._found is None:
            return 0
        state, arrays = self._found
        _restore(run, state, arrays)
        self._skip, self._partial = state["batches"], float.fromhex(state["partial"])
        self._written = state["epoch"], state["batches"]
        self._found = None
        return int(state["epoch"])

    def pass_begins(self, run: Any) -> tuple[int, float]:
        """Note the beginning of an epoch; return the number of batches to skip after a resumption, and their loss."""
        if self.path is None:
            return 0, 0.0
        skip, partial, self._skip, self._partial = self._skip, self._partial, 0, 0.0
        clock = int(run.adam._core.memory()[3][2])
        epoch = run.history.epochs
        random = run.rng.bit_generator.state
        self._pass = _Pass(random, epoch, run.step - skip, clock - skip, (skip, partial, partial))
        return skip, partial

    def step_begins(self, batch: int, before: float, after: float) -> None:
        """Note that the optimiser is about to take the step of a batch."""
        if self._pass is not None:
            self._pass.under_way = batch, before, after

    def step_ends(self, run: Any) -> None:
        """Write the state after a step, if `checkpoint_every` seconds have passed since the last write."""
        if self.writes and self._pass is not None and time.monotonic() - self._last >= self.seconds:
            self._write(*self._of_pass(run, self._pass))

    def pass_ends(self) -> None:
        """Note that all batches of an epoch are finished: an interruption no longer stores a state within it."""
        self._pass = None

    def epoch_ends(self, run: Any) -> None:
        """Write the state after an epoch if `checkpoint_every` has passed; else keep this state for an interruption."""
        if not self.writes:
            return
        epoch = run.history.epochs
        self._held = _state(run, run.rng.bit_generator.state, epoch, run.step, 0, 0.0, run.adam._core.memory())
        if epoch - self._written[0] >= self.epochs or time.monotonic() - self._last >= self.seconds:
            self._write(*self._held)

    def interrupted(self, run: Any) -> None:
        """Write the state on Ctrl-C: on a CPU the current state, on a device the state after the last epoch."""
        if not self.writes:
            return
        if self._pass is not None and not run.flow._interior.on_device:
            self._held = self._of_pass(run, self._pass)
        if self._held is not None and _place(self._held[0]) > self._written:
            self._write(*self._held)

    def _of_pass(self, run: Any, now: _Pass) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        memory = run.adam._core.memory()
        done = int(memory[3][2]) - now.clock
        batch, before, after = now.under_way
        partial = before if done == batch else after
        return _state(run, now.random, now.epoch, now.step + done, done, partial, memory)

    def _write(self, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        assert self.path is not None
        files.save_state(self.path, _KEY, {"format": FORMAT, "fit": self.fingerprint, **state}, arrays)
        self._written, self._last, self._held = _place(state), time.monotonic(), None


def _place(state: dict[str, Any]) -> tuple[int, int]:
    return state["epoch"], state["batches"]


def _interval(every: Any) -> tuple[float, float]:
    """The least seconds and the least epochs between two writes of the file; one of these two values is infinite."""
    if isinstance(every, str):
        match = re.fullmatch(r"(?:(\d{1,9}) )?epochs?", every)
        if not match or match[1] == "0":
            raise ValueError(f"checkpoint_every: expected seconds, 'epoch' or as '10 epochs', got {every!r}")
        return math.inf, int(match[1] or 1)
    return check.number("checkpoint_every", every, least=0.0, below=math.inf), math.inf


# ---- a run as arrays -------------------------------------------------------------------------------------------------


def _state(
    run: Any, random: Any, epoch: int, step: int, batches: int, partial: float, memory: Any
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    mean, square, average, clock = memory
    arrays = {"weights": run.flow._interior.vector(), "best": _arrays.on_host(run.best).copy()}
    arrays |= {"adam.mean": mean, "adam.square": square, "adam.clock": clock}
    if average is not None:
        arrays["adam.average"] = average
    history: dict[str, Any] = {}
    for name in kept_fields():
        value = getattr(run.history, name)
        if isinstance(value, (list, dict)):
            listed = list(value.items()) if isinstance(value, dict) else value
            arrays[f"history.{name}"] = np.array(listed, np.float64)
        else:
            history[name] = _as_json(value)
    state = {
        "epoch": epoch,
        "batches": batches,
        "partial": float(partial).hex(),
        "step": step,
        "seconds": (_clock.now() - run.begin).hex(),
        "random": _as_json(random),
        "run": {name: _as_json(getattr(run, name)) for name in _OF_RUN} | _as_json(run.also_kept(int(clock[2]))),
        "stages": {name: _as_json(getattr(run.stages, name)) for name in _OF_STAGES},
        "history": history,
    }
    return state, arrays


def _restore(run: Any, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    for name in _OF_RUN:
        setattr(run, name, _read(state["run"][name]))
    for name in _OF_STAGES:
        setattr(run.stages, name, _read(state["stages"][name]))
    for name in kept_fields():
        value = getattr(run.history, name)
        if isinstance(value, list):
            setattr(run.history, name, arrays.get(f"history.{name}", np.empty(0)).tolist())
        elif isinstance(value, dict):
            pairs = arrays.get(f"history.{name}", np.empty(0)).reshape(-1, 2).tolist()
            keys = int if name == "residuals" else float  # the keys are columns
            setattr(run.history, name, {keys(key): one for key, one in pairs})
        elif name in state["history"]:
            setattr(run.history, name, _read(state["history"][name]))
    run.step = state["step"]
    run.begin = _clock.now() - float.fromhex(state["seconds"])
    run.clock.cpu_begin = _clock.cpu() - max(run.history.cpu_seconds, default=0.0)
    run.rng.bit_generator.state = _read(state["random"])
    run.flow.parameters = run.library.asarray(arrays["weights"])
    run.best = run.library.asarray(arrays["best"])
    run._begin_stage()
    run.adam._core.set_memory(
        arrays["adam.mean"], arrays["adam.square"], arrays.get("adam.average"), arrays["adam.clock"]
    )
    run.restored(_read(state["run"]), int(arrays["adam.clock"][2]))


def _as_json(value: Any) -> Any:
    """A value as exact JSON: floats in hexadecimal, integers of any length as text."""
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return {"integer": str(int(value))}
    if isinstance(value, (float, np.floating)):
        return {"float": float(value).hex()}
    return str(value)


def _read(value: Any) -> Any:
    """The inverse of `_as_json`: the value that a piece of JSON describes."""
    if isinstance(value, dict):
        if value.keys() == {"integer"}:
            return int(value["integer"])
        if value.keys() == {"float"}:
            return float.fromhex(value["float"])
        return {name: _read(inner) for name, inner in value.items()}
    return value
