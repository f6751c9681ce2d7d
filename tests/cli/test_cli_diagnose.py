"""`headrace diagnose`: its output, its page and its pictures."""

from dataclasses import replace

import numpy as np
import pytest

import headrace as hr
from cli_cases import NAMES, SHORT, check_error, table, write_csv
from headrace.diagnosis import run as _run

pytestmark = pytest.mark.programs


@pytest.fixture
def fitted(folder, run):
    """Fit a flow of two columns given a third, and write tables of its training rows and of new rows."""
    x = table(300)
    write_csv("t.csv", x[:200], NAMES)
    write_csv("held.csv", x[200:], NAMES)
    assert run("fit", "t.csv", "--context", "age", "-o", "f.safetensors", *SHORT)[0] == 0
    return x


def test_a_diagnosis_has_the_values_of_python(fitted, run, result):
    x, flow = fitted, hr.load("f.safetensors")
    report = result("diagnose", "f.safetensors", "held.csv", "--training", "t.csv", "--seed", 3)
    want = hr.diagnose(
        flow,
        x[200:, :2],
        x[200:, 2],
        training=(x[:200, :2], x[:200, 2]),
        names=NAMES[:2],
        context_names=NAMES[2:],
        seed=3,
    )
    want = replace(want, on_the_command_line=True)
    assert report["tests"] == want.summary()["tests"]
    assert report["worst"] == want.summary()["worst"]
    assert (report["p_value"], report["verdict"], report["file"]) == (want.p_value, want.verdict, None)
    code, out, _ = run("diagnose", "f.safetensors", "held.csv", "--training", "t.csv", "--seed", 3)
    assert (code, out) == (0, f"{want}\n")


def test_training_rows_are_refused_as_new_rows(fitted, run):
    outcome = run("diagnose", "f.safetensors", "t.csv", "--training", "t.csv")
    check_error(*outcome, ["--training: expected another file than t.csv"])


@pytest.mark.costly
def test_pages_and_pictures(fitted, run, folder):
    pytest.importorskip("matplotlib")
    for name, begin in (("d.html", b"<!DOCTYPE html>"), ("d.png", b"\x89PNG"), ("d.pdf", b"%PDF"), ("d.svg", b"<?xml")):
        code, out, err = run("diagnose", "f.safetensors", "held.csv", "-o", name)
        assert code == 0, err
        assert out.endswith(f"\nsaved to {name}\n")
        assert (folder / name).read_bytes().startswith(begin)


def test_weights(fitted, result):
    x = fitted
    write_csv("w.csv", np.column_stack([x[200:], np.arange(100.0)]), [*NAMES, "w"])
    report = result("diagnose", "f.safetensors", "w.csv", "--weights", "w")
    want = hr.diagnose(
        hr.load("f.safetensors"),
        x[200:, :2],
        x[200:, 2],
        weights=np.arange(100.0),
        names=NAMES[:2],
        context_names=NAMES[2:],
    )
    assert report["looked_at"] == want.looked_at < 100
    assert report["tests"] == replace(want, on_the_command_line=True).summary()["tests"]


def test_errors(fitted, run, folder, monkeypatch):
    for arguments, message in (
        (("held.csv", "-o", "d.txt"), "argument -o/--output: expected a file that ends in .html, .png, .pdf, .svg"),
        (("held.csv", "-o", "held.html/x.html"), "--output: expected an existing folder"),
        (("held.csv", "--columns", "mass"), "expected 2 columns of features, as f.safetensors has, got 1"),
        (("held.csv", "--training", "none.csv"), "none.csv"),
    ):
        code, out, err = run("diagnose", "f.safetensors", *arguments)
        assert code in (1, 2)
        assert message in err
        assert out == ""
    x = table(20)
    x[3, 0] = np.nan
    write_csv("nan.csv", x, NAMES)
    code, _, err = run("diagnose", "f.safetensors", "nan.csv")
    assert (code, "row 3, " in err, "in 1 of 20 rows" in err) == (1, True, True)
    write_csv("none.csv", x[:0], NAMES)
    for arguments in (("none.csv",), ("held.csv", "--training", "none.csv")):
        code, _, err = run("diagnose", "f.safetensors", *arguments)
        assert (code, "none.csv: expected at least one row, got none" in err) == (1, True)
    monkeypatch.setattr("headrace._cli.diagnose.can_draw", lambda: False)
    code, _, err = run("diagnose", "f.safetensors", "held.csv", "-o", "d.png")
    assert (code, "--output: pictures need matplotlib" in err) == (1, True)
    assert not (folder / "d.png").exists()


def test_ctrl_c_ends_with_the_tests_done(fitted, run, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_run, "two_samples", stop)
    code, out, _ = run("diagnose", "f.safetensors", "held.csv")
    assert code == 130
    assert "Interrupted: these are the tests done so far." in out
    assert "coverage" in out
