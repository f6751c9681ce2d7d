"""The command line and tables as they come: whole numbers, what is missing, constant and repeated columns."""

import json

import numpy as np
import pytest

import headrace as hr
from cli_cases import SHORT
from headrace import files

pytestmark = pytest.mark.programs


def rows(n=400):
    rng = np.random.default_rng(0)
    count = rng.poisson(3.0, n)
    return np.column_stack([count, rng.standard_normal(n) + 0.3 * count, np.full(n, 2.5)])


def write(path, x, names="count,size,unit"):
    np.savetxt(path, x, delimiter=",", header=names, comments="", fmt="%.10g")


def test_whole_and_constant_columns_come_back(folder, run, result):
    write("t.csv", rows())
    code, _, err = run("fit", "t.csv", "-o", "f.safetensors", "--discrete", "count", *SHORT)
    assert code == 0
    told = "t.csv: column 'unit' has one number in all rows (2.5), and is kept aside: "
    assert err.startswith("headrace: warning: " + told)
    assert len(err.splitlines()) == 1
    assert hr.load("f.safetensors").features == 2
    notes = files.read_notes("f.safetensors")
    assert json.loads(notes["columns"])["features"] == ["count", "size"]
    assert json.loads(notes["table"])["names"] == ["count", "size", "unit"]
    result("sample", "f.safetensors", "-n", 300, "--seed", 1, "-o", "s.csv")
    assert (folder / "s.csv").read_text().startswith("count,size,unit\n")
    drawn = np.loadtxt("s.csv", delimiter=",", skiprows=1)
    assert (drawn[:, 0] == np.round(drawn[:, 0])).all()
    assert (drawn[:, 2] == 2.5).all()
    result("score", "f.safetensors", "t.csv", "-o", "l.npy")
    table = np.load("l.npy")
    assert np.isfinite(table).all()
    x = rows()
    x[3, 2] = 0.0
    write("u.csv", x[:, [2, 0, 1]], "unit,count,size")  # in another order
    code, _, err = run("score", "f.safetensors", "u.csv", "-o", "m.npy")
    assert "u.csv: 1 of 400 rows differ from 2.5" in err
    other = np.load("m.npy")
    assert other[3] == -np.inf
    assert (np.delete(other, 3) == np.delete(table, 3)).all()
    assert result("diagnose", "f.safetensors", "t.csv")["rows"] == 400


def test_scores_of_whole_numbers_are_log_probabilities(folder, result):
    write("t.csv", rows(3000)[:, :1], "count")
    result("fit", "t.csv", "-o", "f", "--flow", "nsf", "--discrete", "count", "--epochs", 20, "--transforms", 2)
    write("v.csv", np.arange(-5.0, 40.0)[:, None], "count")
    result("score", "f", "v.csv", "-o", "l.npy")
    assert np.exp(np.load("l.npy").astype(float)).sum() == pytest.approx(1.0, abs=0.01)


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
    assert set(drawn["yes"].to_pylist()) == {0.0, 1.0}


def test_what_is_missing_is_counted_or_dropped(folder, run, result):
    lines = ["a,b", *(f"{i * 0.37 % 1},{(i * i) * 0.11 % 1}" for i in range(100))]
    lines[3], lines[9], lines[10] = "0.5,", "NA,0.3", ",nan"
    with open("t.csv", "w") as file:
        file.write("\n".join(lines) + "\n")
    code, _, err = run("fit", "t.csv", "-o", "f", *SHORT)
    assert code == 1
    assert "NaN in 3 of 100 rows (column 'a' 2, column 'b' 2); --missing drop leaves such rows out" in err
    loud = [word for word in SHORT if word != "--quiet"]
    code, out, err = run("fit", "t.csv", "-o", "f", "--missing", "drop", *loud, "--json")
    assert code == 0
    assert "t.csv: 3 of 100 rows miss a number and are left out" in err
    report = json.loads(out)
    assert report["training_rows"] + report["held_out_rows"] == 97
    with open("t.csv", "a") as file:
        file.write("0.5,many\n")
    assert (
        "line 102, column 'b': expected a number, got 'many'" in run("fit", "t.csv", "-o", "f", "--missing", "drop")[2]
    )


def test_nulls_of_parquet(folder, run):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"a": [1, None, 3] * 30, "b": [True, False, None] * 30, "c": list(np.arange(90.0) * 0.37 % 1)}
    parquet.write_table(arrow.table(columns), "t.parquet")
    assert "NaN in 60 of 90 rows (column 'a' 30, column 'b' 30)" in run("fit", "t.parquet", "-o", "f", *SHORT)[2]
    assert run("fit", "t.parquet", "-o", "f", "--missing", "drop", "--quiet", *SHORT)[0] == 0


def test_repeats_are_spoken_of_and_spread(folder, run):
    x = np.random.default_rng(0).standard_normal((300, 2))
    x[:, 0] = x[:, 0].round(1)
    write("t.csv", x, "a,b")
    said = run("fit", "t.csv", "-o", "f", *SHORT)[2]
    assert "values repeat in column 'a'" in said
    assert "--spread" in said
    assert run("fit", "t.csv", "-o", "f", "--spread", "auto", *SHORT)[2] == ""
    width = [one["width"] for one in json.loads(files.read_notes("f")["table"])["columns"]]
    assert width == pytest.approx([0.1, 0.0])
    for wrong, error in (
        (("--spread", "a"), "--spread: expected auto, or COLUMN=WIDTH"),
        (("--spread", "a=-1"), "--spread: expected auto, or COLUMN=WIDTH"),
        (("--spread", "a=1", "--discrete", "a"), "--spread: column 'a' has whole numbers"),
        (("--discrete", "q"), "--discrete: expected a column of t.csv"),
        (("--discrete", "a", "--columns", "b"), "--discrete: expected columns of features"),
    ):
        code, _, err = run("fit", "t.csv", "-o", "f", *wrong, *SHORT)
        assert code == 1
        assert error in err


def test_a_file_without_the_note_is_as_before(folder, result):
    write("t.csv", rows()[:, 1:2], "size")
    result("fit", "t.csv", "-o", "f", *SHORT)
    assert "table" not in files.read_notes("f")
    files.save(hr.load("f"), "g", {"table": '{"columns": [{"kind": "odd"}]}'})  # of somebody else
    assert result("score", "g", "t.csv", "-o", "l.npy")["rows"] == 400
