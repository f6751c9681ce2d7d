"""`headrace report` writes a page about a density of a table; `headrace fit --held-out` sets rows apart."""

import csv
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from cli_cases import NAMES, SHORT, check_error, table, write_csv

pytestmark = pytest.mark.programs


def read(path):
    with open(path, newline="") as file:
        head, *rows = csv.reader(file)
    return head, np.array(rows, float)


def test_rows_held_out_are_a_tenth_that_the_fit_does_not_see(folder, run, result):
    """Rows in the file of --held-out are as in the table, and other values of these rows do not change the fit."""
    x = table(300).astype(np.float64).round(3)
    write_csv("t.csv", x, NAMES)
    how = ("--context", "age", "--held-out", "held.csv", *SHORT)
    report = result("fit", "t.csv", "-o", "a.safetensors", *how)
    head, held = read("held.csv")
    assert sorted(head) == sorted(NAMES)
    assert len(held) == 30
    assert report["training_rows"] + report["held_out_rows"] == 270
    columns = [head.index(name) for name in NAMES]
    which = [np.flatnonzero((x == row).all(axis=1))[0] for row in held[:, columns]]
    assert which == sorted(set(which))
    assert "0000000" not in (folder / "held.csv").read_text()
    x[which] += 100.0
    write_csv("t.csv", x, NAMES)
    assert run("fit", "t.csv", "-o", "b.safetensors", *how)[0] == 0
    a, b = hr.load("a.safetensors"), hr.load("b.safetensors")
    assert (a.parameters == b.parameters).all()
    assert run("diagnose", "a.safetensors", "held.csv")[0] == 0


def test_rows_of_a_long_table_and_of_one_with_whole_numbers(folder, run, result):
    x = np.column_stack([table(400)[:, :2], np.arange(400) % 7, np.arange(400)])
    write_csv("t.csv", x, ["a", "b", "count", "id"])
    for more in ((), ("--buffer", 100)):
        report = result("fit", "t.csv", "-o", "f.safetensors", "--held-out", "held.csv", *more, *SHORT)
        head, held = read("held.csv")
        assert head == ["a", "b", "count"]
        assert len(held) == 40
        assert (held[:, 2] == np.round(held[:, 2])).all()
        assert report["training_rows"] + report["held_out_rows"] == 360


def test_errors_of_rows_held_out(folder, run):
    write_csv("t.csv", table(20), NAMES)
    for arguments, message in (
        (("--held-out", "t.csv"), "--held-out: expected another file than t.csv"),
        (("-o", "f.csv", "--held-out", "f.csv"), "--held-out: expected another file than the --output"),
        (("--held-out", "held.txt"), "argument --held-out: expected a file that ends in .npy, .csv, .parquet"),
    ):
        code, _, err = run("fit", "t.csv", "-o", "f.safetensors", *arguments)
        assert code in (1, 2)
        assert message in err
    assert not (folder / "held.csv").exists()


@pytest.mark.costly
def test_a_report_writes_all_files(folder, run, monkeypatch):
    """A table may have text, identifiers and missing values; the script makes the density of the report."""
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(3)
    with open("stars.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "kind", "mass", "magnitude"])
        for i, (a, b) in enumerate(rng.standard_normal((500, 2))):
            writer.writerow([f"1{i:03d}7", f"HD {7 * i}", f"{a:.5f}" if i % 50 else "", f"{a * a + b:.5f}"])
    code, out, err = run("report", "stars.csv", "-o", "stars.html", "--time-budget", 2, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["grade"] in ("very good", "usable")
    assert report["files"] == {
        "page": "stars.html",
        "density": "stars.safetensors",
        "rows held out": "stars.held_out.csv",
        "script": "stars.py",
    }
    head, held = read("stars.held_out.csv")
    assert (head, held.shape) == (["mass", "magnitude"], (49, 2))
    assert report["rows"] == 49
    text = (folder / "stars.html").read_text(encoding="utf-8")
    assert "<h2>The same in Python</h2>" in text
    assert "rows of training: 441" in text
    density = hr.Flow.load("stars.safetensors")
    assert (density.feature_names, density.features) == (("mass", "magnitude"), 2)
    mean = density.log_prob(held.astype(np.float32)).mean()
    assert mean == pytest.approx(report["likelihoods"][0]["mean"], abs=1e-4)
    pytest.importorskip("sklearn")
    (folder / "stars.safetensors").unlink()
    script = (folder / "stars.py").read_text()
    assert "hr.rows.csv('stars.csv', ['mass', 'magnitude'])" in script
    made = runpy.run_path("stars.py")
    assert len(made["held_out"]) == 50
    assert made["diagnosis"].likelihoods[0].mean == pytest.approx(mean, abs=0.4)
    assert hr.Flow.load("stars.safetensors").features == 2


@pytest.mark.costly
def test_a_report_given_a_context_and_weights(folder, run):
    x = np.column_stack([table(300), np.ones(300)])
    np.savetxt("t.txt", x)
    code, out, err = run("report", "t.txt", "-o", "t.html", "--context", 2, "--weights", 3, "--time-budget", 1)
    assert code == 0, err
    assert "given 1 number of context" in out
    assert "script: t.py" in out
    pytest.importorskip("sklearn")
    assert runpy.run_path("t.py")["diagnosis"].context == 1


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_script_treats_columns_as_the_file(folder, run, kind):
    """The script treats columns as the file does: whole numbers with a gap, truth values, frequent zeros."""
    pandas = pytest.importorskip("pandas")
    for needed in ("matplotlib", "pyarrow", "sklearn"):
        pytest.importorskip(needed)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((600, 3)).astype(np.float64)
    counts = pandas.Series(x[:, 0])
    if kind == "parquet":
        counts = (200 * counts).round().clip(-300, 300).astype("Int64")
    counts[7] = None
    rain = np.where(rng.random(600) < 0.3, 0.0, x[:, 1] + 3.0)
    frame = pandas.DataFrame({"count": counts, "is_wet": x[:, 2] > 0.5, "rain": rain, "size": x[:, 2]})
    getattr(frame, f"to_{kind}")(f"t.{kind}", index=False)
    code, _, err = run("report", f"t.{kind}", "-o", "t.html", "--time-budget", 1)
    assert code == 0, err
    with pytest.warns(FutureWarning):
        columns = hr.load("t.safetensors").columns.table.columns
    assert [one.kind for one in columns] == ["integer" if kind == "parquet" else "float", "boolean", "float", "float"]
    assert (columns[1].values, columns[2].values, columns[2].rest) == ((0.0, 1.0), (0.0,), True)
    assert runpy.run_path("t.py")["density"].table_.columns == columns


@pytest.mark.costly
def test_a_report_of_text_and_truth_values_alone(folder, run):
    """Text and truth values are judged by their probabilities, and the script makes the same density."""
    for needed in ("matplotlib", "pandas", "sklearn"):
        pytest.importorskip(needed)
    flags = np.random.default_rng(4).random(300) < 0.4
    columns = {"wet": flags, "kind": ["xyz"[i % 3] for i in range(300)]}
    with open("t.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    code, out, err = run("report", "t.csv", "-o", "t.html", "--time-budget", 1)
    assert code == 0, err
    assert "a density of 2 columns, judged by 30 rows held out" in out
    assert "shares of values" in Path("t.html").read_text(encoding="utf-8")
    with pytest.warns(FutureWarning):
        table = hr.load("t.safetensors").columns.table.columns
    assert [(one.kind, one.values) for one in table] == [("boolean", (0.0, 1.0)), ("category", (0.0, 1.0, 2.0))]
    assert runpy.run_path("t.py")["density"].table_.columns == table


def test_wrong_arguments_of_a_report(folder, run):
    np.save("t.npy", table(20))
    write_csv("t.csv", table(20), NAMES)
    for arguments, message in (
        (("t.npy", "-o", "t.html"), "argument DATA: expected one table (.csv"),
        (("t.csv", "t.csv", "-o", "t.html"), "argument DATA: expected one table (.csv"),
        (("t.csv", "-o", "none/t.html"), "--output: expected an existing folder"),
        (("t.csv", "-o", "t.pdf"), "argument -o/--output: expected a file that ends in .html"),
    ):
        code, out, err = run("report", *arguments)
        assert (code in (1, 2), out) == (True, "")
        assert message in err
    write_csv("t.held_out.csv", table(20), NAMES)
    check_error(*run("report", "t.held_out.csv", "-o", "t.html"), ["expected another file than t.held_out.csv"])
