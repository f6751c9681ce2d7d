"""The command line models columns of text in a table by a probability for each value."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from cli_cases import SHORT
from headrace.rows import _text

pytestmark = pytest.mark.programs
KINDS = ("oak", "elm, wet", "fir")


def lines(n=600, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.choice(KINDS, n, p=[0.5, 0.3, 0.2])
    rain = np.where(rng.random(n) < 0.4, 0.0, rng.standard_normal(n) + 2.0)
    size = rng.standard_normal(n) + 0.5 * rain + 2.0 * (kind == "oak")
    return [[kind[i], f"{rain[i]:.6g}", f"{size[i]:.6g}", f"id{i}"] for i in range(n)]


def write(path, rows, names=("kind", "rain", "size", "name")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def scores(run, table):
    code, out, err = run("score", "f", table, "--quiet")
    assert code == 0, err
    return np.array(out.split(), float)


def test_text_has_a_probability(folder, run, result):
    """By default, the labels in a table with text are part of scores, samples and diagnoses."""
    write("t.csv", lines())
    code, out, err = run("fit", "t.csv", "-o", "f", "--held-out", "h.csv", *SHORT)
    assert code == 0, err
    assert "left out: column 'name' (text)" in err
    assert "Gaussian" not in out  # no Gaussian has a density of labels
    with pytest.warns(FutureWarning):
        table = hr.load("f")
    assert isinstance(table.flow, hr.MixedDensity)
    assert table.columns.table.columns[1].values == (0.0,)
    head, *held = read("h.csv")
    assert head == ["kind", "rain", "size"]
    assert len(held) == 60
    assert {row[0] for row in held} <= {*KINDS}
    found = scores(run, "h.csv")
    pandas = pytest.importorskip("pandas")
    np.testing.assert_allclose(found, table.log_prob(pandas.read_csv("h.csv")), rtol=1e-6)
    assert run("sample", "f", "-n", 400, "--seed", 1, "-o", "s.csv")[0] == 0
    drawn = read("s.csv")[1:]
    assert {row[0] for row in drawn} == {*KINDS}
    assert np.mean([row[0] == "oak" for row in drawn]) == pytest.approx(0.5, abs=0.1)
    assert np.isfinite(scores(run, "s.csv")).all()
    seen = result("diagnose", "f", "h.csv")
    assert seen["rows"] == len(held)
    assert seen["discrete"] == ["kind", "rain (frequent or missing values)"]


def test_a_fit_reads_a_table_equally_often_for_any_number_of_columns(folder, run, monkeypatch):
    """The first lines are read once to determine the kinds of all columns, whatever the number of columns."""
    looks, cells = [], _text.Text._cells
    monkeypatch.setattr(_text.Text, "_cells", lambda *rest: looks.append(rest) or cells(*rest))
    counts = []
    for columns in (3, 30):
        rows = np.random.default_rng(0).standard_normal((80, columns))
        write(
            "t.csv", [["oak", *map("{:.6g}".format, row)] for row in rows], ["kind", *(f"x{i}" for i in range(columns))]
        )
        looks.clear()
        assert run("fit", "t.csv", "-o", "f", *SHORT)[0] == 0
        counts.append(len(looks))
    assert counts[0] == counts[1] > 0


def test_labels_that_no_row_of_the_fit_has(folder, run):
    write("t.csv", lines())
    run("fit", "t.csv", "-o", "f", *SHORT)
    rows = lines()[:20]
    known = scores(run, "t.csv")[:20]
    rows[3][0] = "ash"
    write("new.csv", rows)
    code, out, err = run("score", "f", "new.csv")
    assert code == 0
    assert "1 of 20 rows have a value in column 'kind' that no row to fit had" in err
    found = np.array(out.split(), float)
    assert found[3] == -np.inf
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(known, 3))


def test_missing_values_have_a_probability(folder, run):
    rows = lines()
    for row in rows[::5]:
        row[0] = "NA"
    for row in rows[::7]:
        row[2] = ""
    write("t.csv", rows)
    assert "expected no missing values" in run("fit", "t.csv", "-o", "f", *SHORT)[2]
    assert run("fit", "t.csv", "-o", "f", "--missing", "model", *SHORT)[0] == 0
    assert np.isfinite(scores(run, "t.csv")).all()
    run("sample", "f", "-n", 500, "--seed", 1, "-o", "s.csv")
    drawn = read("s.csv")[1:]
    assert np.mean([row[0] == "" for row in drawn]) == pytest.approx(0.2, abs=0.1)
    assert np.mean([row[2] == "nan" for row in drawn]) == pytest.approx(1 / 7, abs=0.1)


@pytest.mark.parametrize("missing", ["drop", "model"])
def test_scores_are_those_of_python_to_the_last_bit(folder, run, missing):
    """Scores are those of Python for labels, a frequent value, repeated values that get noise, and missing values."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(1)
    rows = [[kind, rain, size, f"{rng.normal():.1f}"] for kind, rain, size, _ in lines()]
    rows[3][2] = rows[8][2] = ""
    names = ("kind", "rain", "size", "tenths")
    write("t.csv", rows, names)
    assert run("fit", "t.csv", "-o", "f", "--missing", missing, *SHORT)[0] == 0
    with pytest.warns(FutureWarning):
        table = hr.load("f")
    kinds = table.columns.used.columns
    assert (len(kinds[0].labels), kinds[1].values[0], kinds[3].width > 0.0) == (3, 0.0, True)
    write("new.csv", rows[:200], names)
    want = table.log_prob(pandas.read_csv("new.csv"))
    assert np.isnan(want).sum() == (2 if missing == "drop" else 0)
    assert run("score", "f", "new.csv", "-o", "s.npy", "--quiet")[0] == 0
    np.testing.assert_array_equal(np.load("s.npy"), want)


@pytest.mark.parametrize("options", [("--categories", "none"), ("--buffer", 50)])
def test_text_is_left_out(folder, run, options):
    """Text is left out on request, and for a table longer than the buffer."""
    write("t.csv", [row[:3] for row in lines()], ("kind", "rain", "size"))
    code, _, err = run("fit", "t.csv", "-o", "f", *options, *SHORT)
    assert code == 0, err
    assert "left out: column 'kind' (text)" in err
    with pytest.warns(FutureWarning):
        assert not isinstance(hr.load("f").flow, hr.MixedDensity)


@pytest.mark.costly
def test_text_has_a_probability_beside_a_chosen_density(folder, run):
    """`--auto`, like `headrace.auto`, searches for a density of numbers given labels; frequent values have no gates."""
    write("t.csv", lines(), ("kind", "rain", "size", "name"))
    short = ("--auto", "--time-budget", 0.5, "--quiet")
    code, out, err = run("fit", "t.csv", "-o", "f", "--held-out", "h.csv", *short)
    assert code == 0, err
    assert "left out: column 'name' (text)" in err
    assert "A probability for each value: 'kind'." in out
    with pytest.warns(FutureWarning):
        table = hr.load("f")
    assert isinstance(table.flow, hr.MixedDensity)
    assert (table.flow.continuous, table.flow.feature_names) == ([1, 2], ("kind", "rain", "size"))
    assert np.isfinite(scores(run, "h.csv")).all()
    assert run("sample", "f", "-n", 200, "--seed", 1, "-o", "s.csv")[0] == 0
    assert {row[0] for row in read("s.csv")[1:]} == {*KINDS}
    assert run("fit", "t.csv", "-o", "f", "--categories", "none", *short)[0] == 0
    with pytest.warns(FutureWarning):
        assert hr.load("f").flow.feature_names == ("rain", "size")


def test_values_have_probabilities_on_request(folder, run):
    write("t.csv", [row[1:3] for row in lines()], ("rain", "size"))
    run("fit", "t.csv", "-o", "f", "--categories", "none", *SHORT)
    plain = Path("f").read_bytes()
    run("fit", "t.csv", "-o", "f", *SHORT)
    assert Path("f").read_bytes() == plain
    run("fit", "t.csv", "-o", "f", "--categories", "auto", *SHORT)
    with pytest.warns(FutureWarning):
        assert len(hr.load("f").flow.gates) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--auto", "--missing", "model"), "argument --missing: --auto does not take model"),
        (("--flow", "DualAscentFlow", "--missing", "model"), "argument --missing: --flow DualAscentFlow does not take"),
        (("--categories", "size,kind", "--columns", "size"), "--categories: expected columns of features"),
    ],
)
def test_refusals(folder, run, options, message):
    write("t.csv", lines())
    code, _, err = run("fit", "t.csv", "-o", "f", *options)
    assert code != 0
    assert message in err


def test_files_that_cannot_hold_text_are_refused(folder, run):
    write("t.csv", lines())
    run("fit", "t.csv", "-o", "f", *SHORT)
    assert "s.npy: expected .csv or .parquet for columns of text" in run("sample", "f", "-n", 3, "-o", "s.npy")[2]
    error = run("export", "f", "-o", "f.onnx")[2]
    assert "expected one flow for a graph, got a MixedDensity, whose discrete columns no graph has" in error


def test_parquet(folder, run):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = lines()
    columns = {"kind": [row[0] for row in rows], "size": [float(row[2]) for row in rows]}
    columns["kind"][0] = None
    parquet.write_table(arrow.table(columns), "t.parquet")
    assert run("fit", "t.parquet", "-o", "f", "--missing", "drop", *SHORT)[0] == 0
    run("sample", "f", "-n", 50, "--seed", 1, "-o", "s.parquet")
    drawn = parquet.read_table("s.parquet")
    assert set(drawn["kind"].to_pylist()) == {*KINDS}
    assert np.isfinite(scores(run, "s.parquet")).all()


def test_labels_of_several_files(folder, run):
    """A fit of several files has the labels of all files, in any order of the columns."""
    rows = lines()
    write("a.csv", [row[:3] for row in rows[:300] if row[0] != "fir"], ("kind", "rain", "size"))
    write("b.csv", [row[2::-1] for row in rows[300:]], ("size", "rain", "kind"))
    assert run("fit", "a.csv", "b.csv", "-o", "f", *SHORT)[0] == 0
    with pytest.warns(FutureWarning):
        assert hr.load("f").columns.table.columns[0].labels == tuple(sorted(KINDS))
    assert np.isfinite(scores(run, "b.csv")).all()


def test_members_have_a_spread(folder, run):
    write("t.csv", lines())
    assert run("fit", "t.csv", "-o", "f", "--ensemble", 2, *SHORT)[0] == 0
    assert run("score", "f", "t.csv", "-o", "scores.csv", "--quiet")[0] == 0
    head, *found = read("scores.csv")
    assert head == ["log_prob", "spread"]
    assert (np.array(found, float)[:, 1] > 0.0).all()


def test_the_script_of_a_report_fits_labels(folder, run, monkeypatch):
    for module in ("pandas", "sklearn", "matplotlib"):
        pytest.importorskip(module)
    write("t.csv", lines())
    assert run("report", "t.csv", "-o", "r.html", "--time-budget", 2, "--quiet")[0] == 0
    spec = importlib.util.spec_from_file_location("made_by_a_report", "r.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "made_by_a_report", module)
    spec.loader.exec_module(module)
    assert isinstance(module.density.flow_, hr.MixedDensity)
    assert module.diagnosis.features == 3
