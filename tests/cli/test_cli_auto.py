"""`headrace fit --auto` prints the table of densities, and saves the best density."""

import json

import numpy as np
import pytest

from headrace.choosing import run as run_of_choices

pytestmark = pytest.mark.programs


def write(path, x, names):
    np.savetxt(path, x, delimiter=",", header=names, comments="", fmt="%.10g")


@pytest.mark.costly
def test_auto(folder, run, result):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 2))
    x[:, 1] = 0.3 * x[:, 1] + x[:, 0] ** 2
    write("t.csv", x, "a,b")
    code, out, err = run("fit", "t.csv", "-o", "f.safetensors", "--auto", "--time-budget", 2)
    assert (code, err) == (0, "")
    assert "kernel density" in out
    assert "(headrace diagnose FLOW DATA looks at it" in out
    assert "result." not in out  # the command line has no object `result`
    assert "saved to f.safetensors" in out
    assert result("score", "f.safetensors", "t.csv", "-o", "l.npy")["rows"] == 800
    report = result("fit", "t.csv", "-o", "f.safetensors", "--auto", "--time-budget", 1, "--context", "b")
    assert report["context"] == 1
    assert report["table"][0]["name"] == report["name"]


UNUSED = {
    "--flow": "MAF", "--validation": 0.2, "--epochs": 3, "--ensemble": 3, "--transforms": 2,
    "--checkpoint": "c", "--set": "patience=2", "--learning-rate": 0.1, "--batch-size": 9,
}  # fmt: skip


@pytest.mark.parametrize("option", UNUSED)
def test_options_that_would_not_be_used_are_refused(folder, run, option):
    write("t.csv", np.zeros((5, 2)), "a,b")
    code, out, err = run("fit", "t.csv", "-o", "f", "--auto", option, UNUSED[option])
    assert (code, out) == (2, "")
    assert f"argument {option}: --auto does not take it" in err


@pytest.mark.costly
def test_the_number_of_rows_from_a_long_table_is_reported(folder, run, monkeypatch):
    monkeypatch.setattr("headrace._cli.fitting.JUDGES", 300)
    write("t.csv", np.random.default_rng(0).standard_normal((900, 2)), "a,b")
    long = ("fit", "t.csv", "-o", "f.safetensors", "--auto", "--time-budget", 0.5, "--buffer", 400)
    code, out, err = run(*long, "--json")
    assert code == 0
    assert "--auto looks at 300 of 900 rows, drawn evenly from all" in err
    report = json.loads(out)
    assert (report["rows"], report["rows_looked_at"]) == (900, 300)
    short = run("fit", "t.csv", "-o", "f.safetensors", "--auto", "--time-budget", 0.5)
    assert (short[0], short[2]) == (0, "")


def test_a_diagnosis_calls_columns_by_their_names(folder, run, monkeypatch):
    """Names of columns in a diagnosis are complete, with the quotes that some names have."""
    names, look = [], run_of_choices.search

    def watched(sample, called, *given, **others):
        names.append(called.features)
        return look(sample, called, *given, **others)

    monkeypatch.setattr(run_of_choices, "search", watched)
    rng = np.random.default_rng(0)
    np.savetxt("t.csv", rng.standard_normal((60, 2)), delimiter=",", header="'a',column b", comments="")
    assert run("fit", "t.csv", "-o", "f", "--auto", "--time-budget", 0.2)[0] == 0
    np.save("t.npy", rng.standard_normal((60, 2)))
    assert run("fit", "t.npy", "-o", "f", "--auto", "--time-budget", 0.2)[0] == 0
    assert names == [("'a'", "column b"), None]
