"""What the commands of the command line do; `headrace._cli.cli` reads their arguments."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace import _columns as about_columns
from headrace import files
from headrace._cli import bounds, tables
from headrace._cli.offered import FIT, FLOWS, Kind, settings
from headrace._output import check_writable, printable, refuse_inputs
from headrace._stored import MOST_FEATURES
from headrace.diagnosis.baselines import gaussian_log_prob

__all__ = [
    "INTERRUPTED",
    "OK",
    "STANDARD",
    "bench",
    "demo",
    "fit",
    "info",
]

OK, INTERRUPTED = 0, 130
STANDARD = "-"  # as a path: the standard input or output

Density = hr.Flow | hr.Ensemble

# ---- what a command says ---------------------------------------------------------------------------------------------


def _note(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        print(text, file=sys.stderr)


def _say(arguments: argparse.Namespace, report: dict[str, Any], lines: Sequence[str]) -> None:
    """The result, as one JSON object or as lines for people; beside a flow on the standard output it goes elsewhere."""
    text = json.dumps(_finite_or_null(report), allow_nan=False) if arguments.json else "\n".join(map(printable, lines))
    print(text, file=sys.stderr if getattr(arguments, "output", None) == STANDARD else sys.stdout)


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_null(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_null(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def _duration(seconds: float) -> str:
    """Three digits in a fitting unit."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _usage(arguments: argparse.Namespace, message: str) -> NoReturn:
    arguments.usage(message)
    raise AssertionError


# ---- tables in -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Names:
    """What the columns of a flow were called in the table that it was fitted to; a note in its file."""

    features: list[str]
    context: list[str]

    @property
    def are_different(self) -> bool:
        """Whether each names one column."""
        return len({*self.features, *self.context}) == len(self.features) + len(self.context)

    @classmethod
    def of_notes(cls, notes: dict[str, str], flow: Density) -> _Names | None:
        """None where there are none, or none that fit."""
        try:
            note = json.loads(notes.get("columns", "null"))
            names = cls(note["features"], note["context"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        for part, size in ((names.features, flow.features), (names.context, flow.context)):
            if not isinstance(part, list) or len(part) != size or not all(isinstance(name, str) for name in part):
                return None
        return names


def _open(arguments: argparse.Namespace, path: str | None = None) -> tables.Source:
    return tables.open_table(
        path or arguments.data, array=arguments.array, delimiter=arguments.delimiter, header=arguments.header
    )


def _columns(
    source: tables.Source,
    arguments: argparse.Namespace,
    *,
    weights: str | None = None,
    names: _Names | None = None,
) -> list[list[int]]:
    """The columns of features, context and weights.

    What was not chosen are the columns of the same names as in the fit, if both tables have names and no two of these
    are the same, or else no context and all other columns as features.
    """
    remembered = names if names and source.names and names.are_different else None
    weight = [] if weights is None else source.select("--weights", weights)
    if len(weight) > 1:
        raise ValueError(f"--weights: expected one column, got {len(weight)}")
    context: list[int] = []
    if arguments.context is not None:
        context = source.select("--context", arguments.context)
    elif remembered:
        context = [source.find("--context", name) for name in remembered.context]
    taken = {*context, *weight}
    if arguments.columns is not None:
        features = source.select("--columns", arguments.columns)
    elif remembered:
        features = [source.find("--columns", name) for name in remembered.features]
    else:
        features = [i for i in range(source.n_columns) if i not in taken]
    if len({*features, *taken}) < len(features) + len(context) + len(weight):
        twice = next(i for i in (*features, *weight) if (features + context + weight).count(i) > 1)
        raise ValueError(
            f"--columns, --context, --weights: expected different columns, got {source.label(twice)} twice"
        )
    if not features:
        raise ValueError(f"{source.path}: expected at least one column of features, got none")
    return [features, context, weight]


def _read(source: tables.Source, columns: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
    """The columns of each list, from one read."""
    ends = np.cumsum([len(part) for part in columns])[:-1]
    return np.split(source.read([i for part in columns for i in part]), ends, axis=1)


def _check_rows(source: tables.Source, columns: Sequence[int], values: NDArray[Any], what: str, least: float) -> None:
    """Refuse numbers that are not finite, or are below a limit, by row and column."""
    bad = ~(np.isfinite(values) & (values >= least))
    rows = np.flatnonzero(bad.any(axis=1))
    if rows.size:
        column = int(bad[rows[0]].argmax())
        raise ValueError(
            f"{source.path}: row {rows[0]}, {source.label(columns[column])}: expected {what}, got "
            f"{values[rows[0], column]:g}; rows like this: {rows.size} of {len(values)}; the first row has number 0"
        )


def _warn_of_constants(source: tables.Source, columns: Sequence[int], rows: NDArray[Any] | None) -> None:
    """Name the columns of which the rows to fit have one number alone; `Flow.fit` would give their places."""
    if rows is None:
        return
    constant = [i for i, low, high in zip(columns, rows.min(axis=0), rows.max(axis=0), strict=True) if low == high]
    if constant:
        more = f" and {len(constant) - 1} more" if len(constant) > 1 else ""
        has, its = ("have", "their") if more else ("has", "its")
        warnings.warn(
            f"{source.path}: {source.label(constant[0])}{more} {has} one number in all rows to fit, so that {its} "
            "spread is unknown; --columns leaves columns out",
            RuntimeWarning,
            stacklevel=3,
        )


# ---- info ------------------------------------------------------------------------------------------------------------


def info(arguments: argparse.Namespace) -> int:
    """Print facts about this build and machine."""
    facts = {**hr.info(), "python": platform.python_version(), "numpy": np.__version__, "system": platform.platform()}
    lines = [
        f"headrace         {facts['version']}",
        f"instruction set  {facts['isa']} (this machine has {', '.join(facts['isas'])})",
        f"threads          {facts['threads']}",
        f"CUDA             {facts['cuda']}",
        f"Python, NumPy    {facts['python']}, {facts['numpy']}",
        f"system           {facts['system']}",
    ]
    _say(arguments, facts, lines)
    return OK


# ---- fit -------------------------------------------------------------------------------------------------------------


def fit(arguments: argparse.Namespace) -> int:
    """Fit a flow to a table, print its held-out likelihood beside a Gaussian's, and save it."""
    kind = FLOWS[arguments.flow]
    every = (*settings(), *FIT)
    options = {name: getattr(arguments, name) for name in every if getattr(arguments, name) is not None}
    for name in options:
        if name not in kind.takes:
            _usage(arguments, f"argument --{name.replace('_', '-')}: --flow {arguments.flow} does not take it")
    if arguments.ensemble is not None and kind.model is not None:
        _usage(arguments, f"argument --ensemble: --flow {arguments.flow} does not take it")
    if arguments.periodic is not None and not (arguments.flow == "nsf" and arguments.coupling):
        _usage(arguments, "argument --periodic: --flow nsf --coupling alone takes it")
    _check_output(arguments, arguments.data)
    if arguments.checkpoint is not None:
        others = [path for path in (arguments.data, arguments.output) if path != STANDARD]
        refuse_inputs("--checkpoint", arguments.checkpoint, others)
        check_writable("--checkpoint", arguments.checkpoint)
    source = _open(arguments)
    columns = _columns(source, arguments, weights=arguments.weights)
    for part, what in zip(columns, ("features", "context"), strict=False):
        if len(part) > MOST_FEATURES:
            raise ValueError(f"{source.path}: expected at most {MOST_FEATURES} columns of {what}, got {len(part)}")
    x, context, weight = _read(source, columns)
    if not len(x):
        raise ValueError(f"{source.path}: expected at least one row, got none")
    names = None if source.names is None else [source.names[i] for i in columns[0]]
    if arguments.columns is None and (message := about_columns.about_index(x, names)):
        warnings.warn(f"{source.path}: {message}{tables.OTHERS}", RuntimeWarning, stacklevel=2)
    _check_rows(source, columns[0], x, "a finite number", -math.inf)
    if arguments.bounds is not None or arguments.periodic is not None:
        support = bounds.read(source, columns[0], arguments.bounds, arguments.periodic)
        bounds.check_rows(source, columns[0], x, support)
        options["bounds"] = support.bounds
        if any(support.periodic):
            options["periodic"] = support.periodic
    _check_rows(source, columns[1], context, "a finite number", -math.inf)
    _check_rows(source, columns[2], weight, "a finite weight of at least 0", 0.0)
    if columns[2] and not weight.any():
        raise ValueError(f"{source.path}: {source.label(columns[2][0])}: expected a weight above 0, got none")
    if columns[1]:
        options["context"] = len(columns[1])
    if columns[1] and "context" not in kind.takes:
        _usage(arguments, f"argument --context: --flow {arguments.flow} does not take it")
    data = _Rows(x, context if columns[1] else None, weight[:, 0] if columns[2] else None)
    train, held_out = data.split(arguments.validation, arguments.seed)
    for part, rows in zip(columns, (train.x, train.context), strict=False):
        _warn_of_constants(source, part, rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* constant in the training part", category=RuntimeWarning)
        flow, outcome = (_ascend if kind.model else _train)(kind, arguments, options, train, held_out)
    notes = {"dtype": x.dtype.name}
    if source.names is not None:
        chosen = _Names(*([source.names[i] for i in part] for part in columns[:2]))
        notes["columns"] = json.dumps(asdict(chosen))
    if arguments.output == STANDARD:
        sys.stdout.buffer.write(hr.to_bytes(flow, notes))
        sys.stdout.buffer.flush()
    else:
        files.save(flow, arguments.output, notes)

    judged, reached, gaussian = _likelihoods(flow, train, held_out)
    report = {
        "file": arguments.output,
        "flow": arguments.flow,
        "features": flow.features,
        "context": flow.context,
        "training_rows": len(train.x),
        "held_out_rows": 0 if held_out is None else len(held_out.x),
        "log_likelihood": reached,
        "gaussian_log_likelihood": gaussian,
        **outcome,
        "seed": arguments.seed,
    }
    where = f"of {_counted(len(judged.x), 'row')} {'to fit' if held_out is None else 'held out'}"
    lines = [
        f"mean log-likelihood {where}, nats a row: {arguments.flow} {reached:.4f}   Gaussian {gaussian:.4f}",
        f"{_work(outcome)}; saved to {arguments.output}",
    ]
    _say(arguments, report, lines)
    if outcome["stopped"] == "interrupted":
        print("headrace: interrupted: the best weights so far were saved", file=sys.stderr)
        return INTERRUPTED
    return OK


def _likelihoods(flow: Density, train: _Rows, held_out: _Rows | None) -> tuple[_Rows, float, float]:
    """The rows that judge, and the mean log-likelihoods that the flow and a Gaussian reach there."""
    judged = train if held_out is None else held_out
    reached = judged.mean(flow.log_prob(judged.x, judged.context))
    try:
        gaussian = judged.mean(
            gaussian_log_prob(
                train.x,
                judged.x,
                weights=train.weights,
                context=None if train.context is None or judged.context is None else (train.context, judged.context),
            )
        )
    except np.linalg.LinAlgError:
        gaussian = math.nan  # the training rows lie in a plane: there is none
    return judged, reached, gaussian


def _train(
    kind: Kind, arguments: argparse.Namespace, options: dict[str, Any], train: _Rows, held_out: _Rows | None
) -> tuple[Density, dict[str, Any]]:
    """A flow fitted by `Flow.fit`, or several of them, and what the report says of it."""
    own = {name: value for name, value in options.items() if name not in FIT}
    members = [
        kind.make(train.x.shape[1], seed=arguments.seed + i, dtype=arguments.dtype, **own)
        for i in range(arguments.ensemble or 1)
    ]
    flow: Density = members[0] if arguments.ensemble is None else hr.Ensemble(members)
    found = flow.fit(
        train.x,
        train.context,
        weights=train.weights,
        validation=None if held_out is None else (held_out.x, held_out.context, held_out.weights),
        seed=arguments.seed,
        progress=not arguments.quiet,
        **{name: options[name] for name in FIT if name in options},
    )
    histories = found if isinstance(found, list) else [found]
    if any(history.stopped == "non-finite" and history.best_epoch < 0 for history in histories):
        raise RuntimeError("the fit went wrong in its first epoch and nothing was saved; try a smaller --learning-rate")
    if isinstance(flow, hr.Flow):
        return flow, _outcome(histories[0])
    each = [_outcome(history) for history in histories]
    total: dict[str, Any] = {key: sum(one[key] for one in each) for key in ("epochs", "seconds")}
    total |= {"best_epoch": [one["best_epoch"] for one in each], "stopped": each[-1]["stopped"]}
    return flow[: len(each)], {"members": len(each), **total}


def _ascend(
    kind: Kind, arguments: argparse.Namespace, options: dict[str, Any], train: _Rows, held_out: _Rows | None
) -> tuple[hr.Flow, dict[str, Any]]:
    """The same by `DualAscentFlow.fit`."""
    assert kind.model is not None
    model = kind.model(seed=arguments.seed, dtype=arguments.dtype, **options)
    flow = model.fit(
        train.x,
        weights=train.weights,
        validation=None if held_out is None else (held_out.x, None, held_out.weights),
        progress=not arguments.quiet,
    )
    history = model.history
    report = _outcome(history.refinement or hr.History())
    report["seconds"] += history.seconds[-1] if history.seconds else 0.0
    if history.refinement is None or history.stopped == "interrupted":
        report["stopped"] = history.stopped
    steps = {"steps": max(len(history.log_likelihood) - 1, 0), "best_step": history.best_step}
    return flow, {**steps, **report}


def _outcome(history: hr.History) -> dict[str, Any]:
    return {
        "epochs": len(history.train_loss),
        "best_epoch": history.best_epoch,
        "stopped": history.stopped,
        "seconds": history.seconds[-1] if history.seconds else 0.0,
    }


def _work(outcome: dict[str, Any]) -> str:
    """What was done, in words."""
    time_taken, best = _duration(outcome["seconds"]), outcome["best_epoch"]
    if "steps" in outcome:
        steps = f"{_counted(outcome['steps'], 'step')}, the best was {outcome['best_step']}"
        return f"{steps}, and {_counted(outcome['epochs'], 'epoch')} in {time_taken}"
    if "members" in outcome:
        return f"{_counted(outcome['members'], 'member')}, {_counted(outcome['epochs'], 'epoch')} in {time_taken}"
    told = "none better than fresh weights" if best < 0 else f"the best was {best}"
    return f"{_counted(outcome['epochs'], 'epoch')} in {time_taken}, {told}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


@dataclass(frozen=True)
class _Rows:
    """Rows with their context and weights."""

    x: NDArray[Any]
    context: NDArray[Any] | None
    weights: NDArray[Any] | None

    def split(self, share: float, seed: int) -> tuple[_Rows, _Rows | None]:
        """Rows to fit and rows held out, chosen here so that the Gaussian sees the same; weight 0 is left out."""
        used = np.arange(len(self.x)) if self.weights is None else np.flatnonzero(self.weights > 0)
        held = min(max(round(share * used.size), 1), used.size - 1) if share > 0 else 0
        if held <= 0:
            return self._take(used), None
        order = np.random.default_rng(seed).permutation(used)
        return self._take(np.sort(order[held:])), self._take(np.sort(order[:held]))

    def _take(self, index: NDArray[np.int64]) -> _Rows:
        return _Rows(self.x[index], *(None if part is None else part[index] for part in (self.context, self.weights)))

    def mean(self, log_prob: NDArray[Any]) -> float:
        """The weighted mean."""
        return float(np.average(log_prob.astype(np.float64), weights=self.weights))


# ---- score and sample ------------------------------------------------------------------------------------------------


def _load(path: str) -> tuple[Density, dict[str, str]]:
    """A flow, or an ensemble of flows, and the notes in its file."""
    if path == STANDARD:
        data = sys.stdin.buffer.read()
        flow, notes = hr.from_bytes(data), files.notes_of_bytes(data)
    else:
        flow, notes = hr.load(path), files.read_notes(path)
    if not isinstance(flow, Density):
        raise TypeError(f"{path}: expected a flow, got a {type(flow).__name__}")
    return flow, notes


def _check_output(arguments: argparse.Namespace, *inputs: str) -> None:
    """Say before the work what would stop the output from being written."""
    if arguments.output is None or arguments.output == STANDARD:
        return
    refuse_inputs("--output", arguments.output, [path for path in inputs if path != STANDARD])
    check_writable("--output", arguments.output)
    if _is_standard_output(arguments.output):  # the report would go to the file that is replaced
        raise ValueError(f"--output: expected another file than the standard output, or -, got {arguments.output}")


def _is_standard_output(path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no such file, or no file behind the standard output
        return False


def _columns_for(
    flow: Density, notes: dict[str, str], arguments: argparse.Namespace, *, data: str | None = None, weights: Any = None
) -> tuple[Any, Any]:
    """A table that is open, and which of its columns a flow takes: features, context and weights."""
    source = _open(arguments, data)
    columns = _columns(source, arguments, weights=weights, names=_Names.of_notes(notes, flow))
    for kind, wanted, chosen in (("features", flow.features, columns[0]), ("context", flow.context, columns[1])):
        if len(chosen) != wanted:
            option = "--columns" if kind == "features" else "--context"
            raise ValueError(
                f"{source.path}: expected {wanted} columns of {kind}, as {arguments.flow} has, got {len(chosen)}; "
                f"choose them with {option}"
            )
    return source, columns


def _rows_for(
    flow: Density, notes: dict[str, str], arguments: argparse.Namespace, *, data: str | None = None, weights: Any = None
) -> tuple[tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None], list[str] | None]:
    """Rows of a table as a flow takes them, x, context and weights; and what its features are called there."""
    source, columns = _columns_for(flow, notes, arguments, data=data, weights=weights)
    x, context, weight = _read(source, columns)
    names = None if source.names is None else [source.names[i] for i in columns[0]]
    return (x, context if flow.context else None, weight[:, 0] if columns[2] else None), names


# ---- bench and demo --------------------------------------------------------------------------------------------------


def bench(arguments: argparse.Namespace) -> int:
    """Time a dozen workloads, beside what this machine can do at most."""
    from headrace._cli import bench as _bench

    _note(arguments, "measuring this machine's peaks, then each workload")
    budget, megabytes = (0.05, 64) if arguments.quick else (1.0, 256)
    roofline = _bench.Roofline(_bench.multiply_add_peak(4 * budget), _bench.copy_bandwidth(megabytes))
    facts = hr.info()
    if not arguments.json:
        print(f"headrace {facts['version']}, instruction set {facts['isa']}, threads: {facts['threads']}, float32")
        print(f"roofline: {roofline.gflops:.0f} GFLOP/s multiply-add in registers, {roofline.gb:.1f} GB/s copying\n")
        print(f"{'workload':<44}{'time':>9}{'rows/s':>12}{'GFLOP/s':>9}{'GB/s':>8}   of roofline")
    made = []
    for one in _bench.run(roofline, budget):
        made.append(one)
        if not arguments.json:
            print(
                f"{one.name:<44}{_duration(one.seconds):>9}{one.rows_per_second:>12.3g}{one.gflops:>9.3g}"
                f"{one.gb_per_second:>8.2g}   {one.share:>4.0%} ({one.bound})",
                flush=True,
            )
    if arguments.json:
        report = {**facts, "peak_gflops": roofline.gflops, "copy_gb_per_second": roofline.gb}
        _say(arguments, {**report, "workloads": [asdict(one) for one in made]}, [])
    return OK


def demo(arguments: argparse.Namespace) -> int:
    """Fit the Hertzsprung-Russell diagram, and draw it."""
    from headrace._cli import demo as stars

    picture = arguments.output or "hr_diagram.png"
    check_writable("--output", picture)
    drawable = stars.can_draw()
    if arguments.output and not drawable:
        raise ImportError(f"--output: {stars.NO_MATPLOTLIB}")

    train, held_out = stars.load_stars()
    _note(arguments, f"fitting {len(train):,} stars, and scoring {len(held_out):,} others")
    start = time.perf_counter()
    results, flows, bandwidth = stars.compare(
        train, held_out, epochs=arguments.epochs or stars.EPOCHS, seed=arguments.seed, progress=not arguments.quiet
    )
    if drawable:
        stars.draw(picture, train, flows, results, arguments.seed)
    else:
        _note(arguments, f"no picture: {stars.NO_MATPLOTLIB}")
    report = {
        "training_rows": len(train),
        "held_out_rows": len(held_out),
        "log_likelihood": {result.name: result.log_likelihood for result in results},
        "standard_error": {result.name: result.error for result in results},
        "seconds": {result.name: result.seconds for result in results},
        "bandwidth": bandwidth,
        "seed": arguments.seed,
        "picture": picture if drawable else None,
    }
    lines = [
        f"Hertzsprung-Russell diagram: {len(train):,} stars to fit, {len(held_out):,} held out",
        "mean log-likelihood of the stars held out, nats a star, in units of the standard deviations:",
        *(
            f"  {one.name:<15}{one.log_likelihood:8.4f} ± {one.error:.4f}   {_duration(one.seconds):>8}"
            for one in results
        ),
        f"kernel density: Gaussian kernels with the data's covariance, {bandwidth:.3g} times as wide, which is best on "
        "stars",
        "kept back from those to fit; ± is the spread over the stars held out, and most of it is common to all",
        *([f"picture: {picture}"] if drawable else []),
        f"{time.perf_counter() - start:.1f} s in all, threads: {hr.get_num_threads()}",
    ]
    _say(arguments, report, lines)
    return OK
