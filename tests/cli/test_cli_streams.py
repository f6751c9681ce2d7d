"""The command line in a pipe takes tables and flows from the standard input, and writes to the standard output."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
from cli_cases import ENVIRONMENT, NAMES, SHORT, check_error, small_flow, table, write_csv
from headrace._cli import writing

pytestmark = pytest.mark.programs


@pytest.fixture
def given(monkeypatch):
    """A function that makes the contents of a file the standard input."""

    def give(path):
        with open(path, "rb") as file:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read())))

    return give


def test_a_table_from_the_standard_input(folder, run, result, given):
    x = table()
    write_csv("t.csv", x, NAMES)
    given("t.csv")
    result("fit", "-", "-o", "piped.safetensors", *SHORT)
    result("fit", "t.csv", "-o", "f.safetensors", *SHORT)
    assert_array_equal(hr.load("piped.safetensors").parameters, hr.load("f.safetensors").parameters)
    given("t.csv")
    code, out, _ = run("score", "f.safetensors", "-", "-o", "-")
    assert code == 0
    assert_array_equal(np.array(out.split(), np.float32), hr.load("f.safetensors").log_prob(x))
    assert sorted(path.name for path in folder.iterdir()) == ["f.safetensors", "piped.safetensors", "t.csv"]


def test_messages_name_the_standard_input(folder, run, given):
    for text, pattern in (
        ("a,b\n1,2\n1,x\n", "standard input: line 3, column 'b'"),
        ("", "standard input: expected a table"),
    ):
        (folder / "bad.csv").write_text(text)
        given("bad.csv")
        check_error(*run("fit", "-", "-o", "f.safetensors"), [pattern])


def test_a_flow_from_the_standard_input(folder, run, given):
    flow = small_flow(notes={"columns": '{"features": ["a", "b", "c"], "context": []}'})
    given("flow.safetensors")
    code, out, _ = run("sample", "-", "-n", 4, "--seed", 1)
    assert code == 0
    assert out.splitlines()[0] == "a,b,c"
    assert_array_equal(np.array([line.split(",") for line in out.split()[1:]], "f4"), flow.sample(4, seed=1))
    code, _, err = run("score", "-", "-")
    assert code == 2
    assert "standard input can be one of them" in err


@pytest.mark.costly
def test_a_pipe_of_three_commands(folder):
    """Each command pipes its flow to the next one; the report of a fit is on the standard error."""
    write_csv("t.csv", table(), NAMES)
    headrace = f"'{sys.executable}' -m headrace"
    line = (
        f"{headrace} fit - -o - --epochs 1 --hidden 8 --json --quiet < t.csv | {headrace} sample - -n 5 --seed 1 "
        f"| {headrace} fit - -o last.safetensors --epochs 1 --json --quiet"
    )
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    report, *_ = (line for line in run.stderr.splitlines() if not line.startswith("headrace: warning: "))
    assert json.loads(report)["training_rows"] == 180
    assert json.loads(run.stdout)["features"] == 3
    assert hr.load("last.safetensors").features == 3


@pytest.mark.parametrize("name", ["t.parquet", "t.npy"])
def test_the_standard_input_is_text(folder, run, given, name):
    writing.write_table(name, table(), NAMES)
    given(name)
    check_error(*run("fit", "-", "-o", "f.safetensors"), ["standard input: expected UTF-8 text", "from files alone"])
