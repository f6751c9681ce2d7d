"""The command line takes original tables: whole numbers, missing values, constant and repeated columns."""

import json
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from cli_cases import SHORT
from headrace import files
from headrace.diagnosis import run as run_of_diagnosis

pytestmark = pytest.mark.programs


def rows(n=400):
    rng = np.random.default_rng(0)
    count = rng.poisson(3.0, n)
    return np.column_stack([count, rng.standard_normal(n) + 0.3 * count, np.full(n, 2.5)])


def write(path, x, names="count,size,unit"):
    np.savetxt(path, x, delimiter=",", header=names, comments="", fmt="%.10g")


def test_types_of_files_are_known(folder, run):
    np.save("t.npy", rows()[:, :1].astype(np.int64))
    run("fit", "t.npy", "-o", "f", *SHORT)
    assert json.loads(files.read_notes("f")["table"])["columns"][0]["kind"] == "integer"
    run("fit", "t.npy", "-o", "f", "--discrete", "none", "--spread", "0=1", *SHORT)
    assert json.loads(files.read_notes("f")["table"])["columns"][0]["kind"] == "float"
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"yes": rows()[:, 0] > 3, "size": rows()[:, 1], "count": rows()[:, 0].astype(int)}
    parquet.write_table(arrow.table(columns), "t.parquet")
    run("fit", "t.parquet", "-o", "f", *SHORT)
    assert [one["kind"] for one in json.loads(files.read_notes("f")["table"])["columns"]] == [
        "boolean",
        "float",
        "integer",
    ]
    assert run("sample", "f", "-n", 50, "--seed", 0, "-o", "s.parquet")[0] == 0
    drawn = parquet.read_table("s.parquet")
    assert drawn.column_names == ["yes", "size", "count"]
    assert [str(kind) for kind in drawn.schema.types] == ["bool", "double", "int64"]
    assert set(drawn["yes"].to_pylist()) == {False, True}
    assert all(isinstance(one, int) for one in drawn["count"].to_pylist())


def test_text_of_truth_values(folder, run, result):
    """Truth values may have the form of pandas or of polars; a column of truth values and numbers is refused."""
    x = rows(300)
    words = np.where(x[:, 0] > 3, "True", "False")
    lines = ["yes,size", *(f"{word},{size:.6g}" for word, size in zip(words, x[:, 1], strict=True))]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    result("fit", "t.csv", "-o", "f", *SHORT)
    assert [one["kind"] for one in json.loads(files.read_notes("f")["table"])["columns"]] == ["boolean", "float"]
    result("sample", "f", "-n", 50, "--seed", 0, "-o", "s.csv")
    assert set(np.loadtxt("s.csv", delimiter=",", skiprows=1)[:, 0]) == {0.0, 1.0}
    write("numbers.csv", np.column_stack([x[:, 0] > 3, np.loadtxt(lines[1:], delimiter=",", usecols=1)]), "yes,size")
    for name in ("t", "numbers"):
        result("score", "f", f"{name}.csv", "-o", f"{name}.npy")
    assert (np.load("t.npy") == np.load("numbers.npy")).all()
    lines[7] = ",0.5"
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    assert run("fit", "t.csv", "-o", "f", "--missing", "drop", *SHORT)[0] == 0
    lines[7] = "2,0.5"
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    code, _, err = run("fit", "t.csv", "-o", "f", *SHORT)
    assert code == 1
    assert "line 2, column 'yes': expected a number, got '" in err


def test_lists_of_columns_are_checked(folder, run):
    write("t.csv", rows()[:, :2], "a,b")
    for wrong, error in (
        (("--spread", "a"), "--spread: expected auto, none, or COLUMN=WIDTH"),
        (("--spread", "a=-1"), "--spread: expected auto, none, or COLUMN=WIDTH"),
        (
            ("--spread", "a=1", "--discrete", "a"),
            "--spread: expected columns that are not whole",
        ),
        (("--discrete", "q"), "--discrete: expected a column of t.csv"),
        (("--discrete", "a", "--columns", "b"), "--discrete: expected columns of features"),
    ):
        code, _, err = run("fit", "t.csv", "-o", "f", *wrong, *SHORT)
        assert code == 1
        assert error in err


def test_columns_without_names_that_were_left_out_are_left_out_later(folder, run, result):
    x = rows()[:, 1:2] * [1.0, -2.0] + np.random.default_rng(1).standard_normal((400, 2))
    np.save("t.npy", np.column_stack([np.arange(400.0), x]))
    code, _, err = run("fit", "t.npy", "-o", "f", *SHORT)
    assert (code, "left out: column 0 (0, 1, 2, ...)" in err) == (0, True)
    assert json.loads(files.read_notes("f")["used"]) == {"columns": [1, 2], "of": 3}
    np.save("some.npy", x)
    for path in ("t.npy", "some.npy"):
        result("score", "f", path, "-o", f"l_{path}")
    assert (np.load("l_t.npy") == np.load("l_some.npy")).all()
    assert result("diagnose", "f", "t.npy")["rows"] == 400
    for wrong in ('{"columns": [1, 5], "of": 3}', '{"columns": [1], "of": 3}', '{"of": 3}', "[1, 2]", "no"):
        files.save(hr.Flow.load("f"), "g", {"used": wrong})
        assert "expected 2 columns of features, as g has, got 3" in run("score", "g", "t.npy")[2]


def test_a_file_without_the_note_is_as_before(folder, result):
    write("t.csv", rows()[:, 1:2], "size")
    result("fit", "t.csv", "-o", "f", *SHORT)
    assert "table" not in files.read_notes("f")
    files.save(hr.Flow.load("f"), "g", {"table": '{"columns": [{"kind": "odd"}]}'})  # another program wrote this note
    assert result("score", "g", "t.csv", "-o", "l.npy")["rows"] == 400


# ---- whole numbers within bounds or periodic ------------------------------------------------------------------------


def kept(path):
    return json.loads(files.read_notes(path)["table"])


def test_kinds_are_those_that_all_files_agree_on(folder, run):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    x = rows(60)
    for i, count in enumerate((x[:, 0].astype(int), x[:, 0] + 0.5)):
        named = {"yes": x[:, 0] > 3, "count": count, "size": x[:, 1]}
        names = ["yes", "count", "size"][:: 1 - 2 * i]  # the second file has another order
        parquet.write_table(pyarrow.table({name: named[name] for name in names}), f"t{i}.parquet")
    code, _, err = run("fit", "t0.parquet", "t1.parquet", "-o", "f", *SHORT)
    assert code == 0, err
    assert [one["kind"] for one in kept("f")["columns"]] == ["boolean", "float", "float"]


# ---- contents of a file ----------------------------------------------------------------------------------------------


def test_missing_rows_are_left_out_later_too(folder, run, result):
    x = rows(200)
    write("t.csv", x)
    lines = (folder / "t.csv").read_text().splitlines()
    lines[4], lines[7] = "3,,2.5", "2,0.5,nan"  # the second value is missing in the constant column
    (folder / "u.csv").write_text("\n".join(lines) + "\n")
    assert run("fit", "u.csv", "-o", "f", "--discrete", "count", *SHORT)[0] == 1
    dropped = ("--discrete", "count", "--missing", "drop")
    loud = [word for word in SHORT if word != "--quiet"]
    code, _, err = run("fit", "u.csv", "-o", "f", *dropped, *loud)
    assert (code, "u.csv: 2 of 200 rows miss a number and are left out" in err) == (0, True)
    assert kept("f")["missing"] == "drop"
    result("score", "f", "u.csv", "-o", "l.npy")
    assert np.flatnonzero(np.isnan(np.load("l.npy"))).tolist() == [3, 6]
    _, out, err = run("diagnose", "f", "u.csv", "--json")
    assert json.loads(out)["rows"] == 198
    assert "u.csv: 2 of 200 rows miss a number and are left out, as in the fit" in err
    assert run("fit", "t.csv", "-o", "g", "--discrete", "count", *SHORT)[0] == 0
    assert "expected a number, got ''" in run("diagnose", "g", "u.csv")[2]
    x[7, 2] = np.nan
    np.save("v.npy", x)
    assert "column 'unit': expected no missing values" in run("diagnose", "g", "v.npy", "--columns", "0,1,2")[2]
    write("w.csv", np.where(np.arange(200)[:, None] == 9, [1.0, 0.0, 7.0], rows(200)))
    assert (
        "w.csv: 1 of 200 rows differ from 2.5, the one value that column 'unit' had" in run("diagnose", "g", "w.csv")[2]
    )


def test_truth_values_are_seen_below_a_first_row_that_misses_one(folder, run):
    lines = [f"{i % 2 == 0},{x[1]}" for i, x in enumerate(rows(80))]
    lines[0] = lines[0].replace("True", "")
    (folder / "t.csv").write_text("\n".join(["flag,size", *lines]) + "\n")
    assert run("fit", "t.csv", "-o", "f", "--missing", "drop", *SHORT)[0] == 0
    assert [one["kind"] for one in kept("f")["columns"]] == ["boolean", "float"]


def test_a_diagnosis_sees_the_noise_of_the_fit(folder, run, monkeypatch):
    """A diagnosis adds the fit's noise to the rows of the fit, and different noise to other rows."""
    x = np.column_stack([rows(300), np.where(np.arange(300) % 7 == 0, 0.0, 1.0)])
    write("t.csv", x, "count,size,unit,w")
    seen, fit = [], hr.MAF.fit

    def watched(self, x, **others):
        seen.append(x)
        return fit(self, x, **others)

    monkeypatch.setattr(hr.Flow, "fit", watched)
    weighted = ("--weights", "w", "--discrete", "count", "--seed", 5, "--validation", 0)
    assert run("fit", "t.csv", "-o", "f", *weighted, *SHORT)[0] == 0
    assert kept("f")["seed"] == 5
    looked, opened = [], run_of_diagnosis.opened
    monkeypatch.setattr(run_of_diagnosis, "opened", lambda *parts: looked.append(parts) or opened(*parts))
    Path("same.csv").write_bytes(Path("t.csv").read_bytes())
    assert run("diagnose", "f", "t.csv", "--training", "same.csv", "--weights", "w", "--seed", 3)[0] == 0
    _, _, found, _, _, (training, _), *_ = looked[0]
    assert (training[x[:, 3] > 0] == seen[0]).all()
    assert (np.round(found[:, 0]) == x[:, 0]).all()
    assert (found[:, 0] != training[:, 0]).all()
    assert np.allclose(found[:, 1], x[:, 1], atol=1e-8)  # numbers in text have ten digits
