"""Tables of mixed columns, and the three interfaces that take them: the estimator, `hr.auto` and the command line."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace import files
from headrace._cli import cli
from headrace._tables.density import TableDensity, of_file

RATE = 3.0
OF_FIT = "fit: "  # the beginning of the warnings of such short fits


def columns(rows=700, seed=0):
    """A table with a column of counts, one of truth values, one of floats and one constant column."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(RATE, rows)
    size = rng.standard_normal(rows) + 0.3 * count
    return {"count": count, "yes": rng.random(rows) < 0.3, "size": size, "unit": np.full(rows, 2.5)}


@dataclass
class Fitted:
    """The density that one interface has fitted, with its messages, scores and sample."""

    client: str
    density: TableDensity
    told: list[str]
    scores: Any
    sample: Any

    @property
    def kinds(self):
        return [one.kind for one in self.density.columns.used.columns]

    @property
    def widths(self):
        return [one.width for one in self.density.columns.used.columns]


def frame(table):
    return pytest.importorskip("pandas").DataFrame(table)


def of_estimator(table, folder, **how):
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    settings = {"transforms": 1, "hidden": (8,), "epochs": 3, "random_state": 0, "categories": None}
    density, told = _heard(lambda: estimator(**settings, **how).fit(frame(table)))
    return Fitted(
        "FlowDensity",
        density.as_table(),
        told,
        lambda rows: density.score_samples(frame(rows)),
        lambda n: density.sample(n, random_state=0),
    )


def of_auto(table, folder, **how):
    settings = {"families": ("maf",), "progress": False, "categories": None, **how}
    choice, told = _heard(lambda: hr.auto(frame(table), 0.2, **settings))
    return Fitted(
        "auto",
        choice.as_table(),
        told,
        lambda rows: choice.log_prob(frame(rows)),
        lambda n: np.asarray(choice.sample(n, seed=0)),
    )


def of_command_line(table, folder, **how):
    """Fit by the command line, on a Parquet file, which keeps the types of columns."""
    pytest.importorskip("pyarrow")
    flow, options = str(folder / "f"), []
    for name, value in {"categories": None, **how}.items():  # None is the default of the other interfaces
        options += [f"--{name}", _text(value)]

    def told_by(*words):
        with contextlib.redirect_stderr(io.StringIO()) as err, warnings.catch_warnings():
            warnings.simplefilter("always")
            code = cli.main([*map(str, words), "--quiet"])
        lines = [line.removeprefix("headrace: ") for line in err.getvalue().splitlines()]
        if code:
            raise ValueError(lines[-1].replace("--", ""))
        return [line for line in lines if not line.startswith(f"warning: {OF_FIT}")]

    def written(rows):
        frame(rows).to_parquet(folder / "t.parquet")
        return folder / "t.parquet"

    def scores(rows):
        for line in told_by("score", flow, written(rows), "-o", folder / "l.npy"):
            warnings.warn(line.removeprefix("warning: "), RuntimeWarning, stacklevel=2)
        return np.load(folder / "l.npy")

    def sample(n):
        told_by("sample", flow, "-n", n, "--seed", 0, "-o", folder / "s.npy")
        return np.load(folder / "s.npy")

    short = ("--epochs", 3, "--transforms", 1, "--hidden", 8)
    told = told_by("fit", written(table), "-o", flow, *options, *short)
    density = of_file(files.load(flow), files.read_notes(flow))
    if not isinstance(density, TableDensity):
        density = TableDensity(density, hr.plot._source.density_of(density).columns)
    return Fitted("command line", density, told, scores, sample)


CLIENTS = {"FlowDensity": of_estimator, "auto": of_auto, "command line": of_command_line}


def _heard(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    assert {one.filename for one in caught} <= {__file__}  # warnings name the line of the caller
    return result, [str(one.message) for one in caught if not str(one.message).startswith(OF_FIT)]


def _text(value):
    """The text of a command-line option for a Python value."""
    if value is None or isinstance(value, (str, int)):
        return "none" if value is None else str(value)
    if not isinstance(value, dict):
        return ",".join(value)
    ends = {
        name: one if isinstance(one, float) else ":".join("" if end is None else str(end) for end in one)
        for name, one in value.items()
    }
    return ",".join(f"{name}={one}" for name, one in ends.items())
