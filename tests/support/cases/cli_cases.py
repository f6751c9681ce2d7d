"""Tables, signals, flows and processes that the tests of the command line share, and the fixtures of these tests."""

import json
import os
import subprocess
import sys
import wave

import numpy as np
import pytest

import cases
import headrace as hr
from headrace import files
from headrace._cli import cli

NAMES = ["mass", "log_radius", "age"]
SHORT = ("--epochs", 3, "--transforms", 2, "--hidden", "8", "--quiet")
RATE = 8000  # steps a second of signals


@pytest.fixture
def run(capsys, set_threads, monkeypatch):
    """Run a command line in this process; return the exit code and the texts of stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def go(*arguments):
        code = cli.main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


@pytest.fixture
def result(run):
    """A function that runs a command line with --json, which must succeed, and returns the printed object."""

    def go(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return go


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty temporary folder, which is the current folder during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(rows=200):
    """A table of three columns that depend on each other, in float64."""
    x = cases.rows(rows, 3, "float64", "command line")
    x[:, 1] += np.sin(2 * x[:, 0])
    return 2.0 + x * [1.0, 10.0, 0.1]


def write_csv(path, x, names=None, delimiter=",", fmt="%.17g"):
    header = delimiter.join(names) if names else ""
    np.savetxt(path, x, fmt=fmt, delimiter=delimiter, header=header, comments="")


def small_flow(path="flow.safetensors", features=3, context=0, notes=None, **options):
    flow = hr.MAF(features, context=context, transforms=2, hidden=(8,), **options)
    flow.parameters = 0.3 * cases.rng("flow").standard_normal(flow.parameters.size).astype(flow.dtype)
    files.save(flow, path, notes)
    return flow


def write_parquet(path, x, names):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table(list(x.T), names=names), path)


def written(path, x, names=NAMES):
    """Write a table to a file in the format of the path's suffix; a text file has a line of names, if there are any."""
    kind = path.rpartition(".")[2]
    if kind == "npy":
        np.save(path, x)
    elif kind == "csv":
        write_csv(path, x, names)
    else:
        write_parquet(path, x, names or [f"x{i}" for i in range(x.shape[1])])
    return path


def write(name, text):
    with open(name, "w" if isinstance(text, str) else "wb") as file:
        file.write(text)
    return name


def saved(name, *arrays, **named):
    (np.save if name.endswith("npy") else np.savez)(name, *arrays, **named)
    return name


def truncated(name, *arrays, **named):
    saved(name, *arrays, **named)
    with open(name, "rb") as file:
        content = file.read()
    return write(name, content[: len(content) - 20])


def broken_zip():
    name = saved("t.npz", a=table())
    with open(name, "r+b") as file:
        file.seek(300)
        file.write(b"\0" * 300)
    return name


def parquet_of(**columns):
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    pyarrow.parquet.write_table(pyarrow.table(columns), "t.parquet")
    return "t.parquet"


def check_error(code, out, err, patterns):
    assert (code, out) == (1, "")
    assert err.startswith("headrace: error: ")
    assert len(err.splitlines()) == 1
    for pattern in patterns:
        assert pattern in err


# The environment variables for other processes that import headrace.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(hr.__file__))}


def command(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def write_wave(path, x, rate=RATE, width=2):
    with wave.open(path, "wb") as file:
        file.setnchannels(x.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(x.tobytes())
    return path
