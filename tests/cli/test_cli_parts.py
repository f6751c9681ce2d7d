"""Scores of many tables are in one file, or in a folder with a file for each table, completed after a kill."""

import json
import os
import signal
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
from cli_cases import NAMES, check_error, command, small_flow, table, write_csv, written
from headrace._cli import kept_scores as _parts
from headrace._cli import writing as _writing
from headrace.rows import _files as _tables

pytestmark = pytest.mark.programs

KINDS = pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])


def parts(kind, rows=400, files=3, folder="data"):
    """Write tables into a folder, and return the rows of all tables."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    os.makedirs(folder, exist_ok=True)
    x = table(rows)
    for i, part in enumerate(np.array_split(x, files)):
        written(f"{folder}/part-{i}.{kind}", part)
    return x


def scores_in(folder, dtype="f4"):
    names = sorted(name for name in os.listdir(folder) if not name.endswith(".json"))
    tables = [_tables.open_table(os.path.join(folder, name)).read([0])[:, 0] for name in names]
    return names, np.concatenate(tables).astype(dtype)


@KINDS
def test_each_table_has_a_file_of_scores(folder, result, kind):
    flow, x = small_flow(), parts(kind)
    report = result("score", "flow.safetensors", "data", "-o", "scores/")
    names, found = scores_in("scores")
    assert names == [f"part-{i}.{kind}" for i in range(3)]
    want = flow.log_prob(x)
    assert_array_equal(found, want)
    assert (report["rows"], report["tables"], report["tables_done_before"]) == (400, 3, 0)
    assert report["log_likelihood"] == pytest.approx(want.mean(dtype=float), rel=1e-12)
    again = result("score", "flow.safetensors", "data", "-o", "scores/")
    assert again.pop("tables_done_before") == 3
    assert again == {name: value for name, value in report.items() if name != "tables_done_before"}


@KINDS
def test_several_tables_are_one(folder, result, kind):
    flow, x = small_flow(), parts(kind)
    for given in (["data"], [f"data/part-{i}.{kind}" for i in range(3)], [f"data/*.{kind}"]):
        assert result("score", "flow.safetensors", *given, "-o", "s.npy")["rows"] == 400
        assert_array_equal(np.load("s.npy"), flow.log_prob(x))
    result("fit", "data", "-o", "many.safetensors", "--epochs", 1, "--quiet")
    np.save("one.npy", x)
    result("fit", "one.npy", "-o", "one.safetensors", "--epochs", 1, "--quiet")
    assert_array_equal(hr.load("many.safetensors").parameters, hr.load("one.safetensors").parameters)


def test_formats_and_folders_below(folder, result):
    small_flow()
    for name in ("a", "b"):
        parts("npy", 60, 2, f"data/{name}")
    files = [f"data/{name}/part-{i}.npy" for name in "ab" for i in range(2)]
    result("score", "flow.safetensors", *files, "-o", "scores/", "--format", "csv")
    assert sorted(os.listdir("scores")) == ["a", "b", "headrace-score.json"]
    assert sorted(os.listdir("scores/a")) == ["part-0.npy.csv", "part-1.npy.csv"]
    np.savez("t.npz", x=table())
    result("score", "flow.safetensors", "t.npz", "-o", "of_archive/")
    assert sorted(os.listdir("of_archive")) == ["headrace-score.json", "t.npz.csv"]


def test_spreads_of_ensembles_and_columns_in_another_order(folder, result):
    ensemble = hr.Ensemble([hr.MAF(3, transforms=1, hidden=(8,), seed=seed) for seed in range(2)])
    ensemble.save("e.safetensors")
    x = parts("csv")
    write_csv("data/part-1.csv", np.array_split(x, 3)[1][:, [2, 0, 1]], [NAMES[i] for i in (2, 0, 1)])
    result("score", "e.safetensors", "data", "--columns", ",".join(NAMES), "-o", "scores/")
    found = np.concatenate([_tables.open_table(f"scores/part-{i}.csv").read([0, 1]) for i in range(3)])
    assert_array_equal(found[:, 0].astype("f4"), ensemble.log_prob(x))
    assert_array_equal(found[:, 1].astype("f4"), ensemble.spread(x))
    assert result("score", "e.safetensors", "data", "--columns", ",".join(NAMES), "-o", "s.npy")["rows"] == 400
    assert_array_equal(np.load("s.npy")[:, 0], ensemble.log_prob(x))


# --- going on ---------------------------------------------------------------------------------------------------------


def kept(folder):
    """Return the finished files of scores in a folder, with the inode of each."""
    return {name: os.stat(f"{folder}/{name}").st_ino for name in os.listdir(folder) if not name.endswith(".json")}


def killed_in(monkeypatch, number):
    """Let the process die when the scores of the `number`-th table are half written."""
    write, seen = _writing.write_parts, []

    class Killed(BaseException):
        pass

    def parts_of(parts):
        for part in parts:
            yield part[: len(part) // 2]
            raise Killed

    def die(path, names, parts):
        seen.append(path)
        write(path, names, parts_of(parts) if len(seen) == number else parts)

    monkeypatch.setattr(_writing, "write_parts", die)
    return Killed


@KINDS
@pytest.mark.parametrize("number", [1, 2, 3])
def test_scores_go_on_after_a_kill(folder, run, result, monkeypatch, kind, number):
    flow, x = small_flow(), parts(kind)
    with monkeypatch.context() as patched, pytest.raises(killed_in(patched, number)):
        run("score", "flow.safetensors", "data", "-o", "scores/")
    before = kept("scores")
    assert len(before) == number - 1
    report = result("score", "flow.safetensors", "data", "-o", "scores/")
    after = kept("scores")
    assert before.items() <= after.items()  # finished files are not written again
    assert_array_equal(scores_in("scores")[1], flow.log_prob(x))
    assert (report["rows"], report["tables_done_before"]) == (400, number - 1)


@pytest.mark.costly
def test_a_process_that_is_killed(folder, result):
    """After a kill at any moment existing files are whole, and the same command finishes the others."""
    hr.MAF(3, transforms=8, hidden=(128, 128)).save("flow.safetensors")
    parts("npy", 100_000, 20)
    process = command("score", "flow.safetensors", "data", "-o", "scores/", "--quiet", "--threads", 1)
    while not os.path.exists("scores/part-1.npy"):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = kept("scores")
    done = {name for name in before if name.endswith(".npy")}
    assert 2 <= len(done) < 20
    report = result("score", "flow.safetensors", "data", "-o", "scores/")
    assert (report["rows"], report["tables_done_before"]) == (100_000, len(done))
    after = kept("scores")
    assert len(after) == 20  # no temporary file is left
    assert all(after[name] == before[name] for name in done)
    want = hr.load("flow.safetensors").log_prob(np.load("data/part-7.npy"))
    assert_array_equal(np.load("scores/part-7.npy"), want)


def test_scores_of_anything_else_are_refused(folder, run, result):
    small_flow()
    other = hr.MAF(3, transforms=2, hidden=(8,), seed=3)
    other.save("other.safetensors")
    parts("npy")
    score = ("score", "flow.safetensors", "data", "-o", "scores/")
    result(*score)
    before = kept("scores")
    check_error(*run("score", "other.safetensors", "data", "-o", "scores/"), ["scores of the same flow", "scores"])
    check_error(*run(*score, "--columns", "2,1,0"), ["scores of the same --columns", "(None there, 2,1,0 here)"])
    x = np.load("data/part-1.npy")
    x[50, 1] += 1e-9
    np.save("data/part-1.npy", x)
    check_error(*run(*score), ["data/part-1.npy is another table", "scores/part-1.npy"])
    assert kept("scores") == before
    with open("scores/headrace-score.json") as file:
        record = json.load(file)
    del record["tables"]["part-1.npy"]
    with open("scores/headrace-score.json", "w") as file:
        json.dump(record, file)
    os.remove("scores/part-1.npy")
    assert result(*score)["tables_done_before"] == 2
    np.save("data/part-3.npy", x)  # a new table may be added
    assert result(*score)["tables_done_before"] == 3


def test_a_table_that_changes_while_it_is_read_is_reported(folder, run, monkeypatch):
    small_flow()
    parts("npy")
    mark = _parts.mark
    marks = []

    def changed(file):
        marks.append(file)
        return mark(file) + " now" * (len(marks) == 5)  # three marks before all tables, then one after each

    monkeypatch.setattr(_parts, "mark", changed)
    code, out, err = run("score", "flow.safetensors", "data", "-o", "scores/", "--quiet")
    check_error(code, out, err, ["data/part-1.npy: ", "while it was read"])
    assert list(kept("scores")) == ["part-0.npy"]


def test_scores_of_other_arrays_are_refused(folder, run, result):
    """If archives have several arrays, the folder of scores stores the name of the scored array."""
    flow, x = small_flow(), table(60)
    os.mkdir("data")
    for i in range(2):
        np.savez(f"data/part-{i}.npz", a=x[30 * i : 30 * (i + 1)], b=x[::-1][30 * i : 30 * (i + 1)])
    score = ("score", "flow.safetensors", "data", "-o", "scores/")
    check_error(*run(*score, "--quiet"), ["--array: expected one of 'a', 'b' of data/part-0.npz"])
    assert not os.path.exists("scores")
    result(*score, "--array", "a")
    assert_array_equal(scores_in("scores")[1], flow.log_prob(x))
    check_error(*run(*score, "--array", "b"), ["scores of the same --array", "(a there, b here)"])
    assert result(*score, "--array", "a")["tables_done_before"] == 2
    result("score", "flow.safetensors", "data", "-o", "other/", "--array", "b")
    assert_array_equal(scores_in("other")[1], flow.log_prob(x[::-1]))
    parts("npy")
    check_error(*run(*score[:-1], "mixed/", "--array", "a", "--quiet"), ["--array: expected a table in .npz"])


@pytest.mark.parametrize("size", [0, 10, 5000, 1 << 20, 8 << 20])
def test_marks_distinguish_tables(tmp_path, size):
    path = tmp_path / "t"
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    path.write_bytes(content)
    mark = _parts.mark(str(path))
    assert mark == _parts.mark(str(path))
    path.write_bytes(content + b"x")
    assert _parts.mark(str(path)) != mark
    path.write_bytes(content)
    # Changes of the first and the last byte of both ends, and of each sample between, change the mark.
    between = [size * i // (_parts.SAMPLES + 1) for i in range(1, _parts.SAMPLES + 1)]
    begins = [0, max(size - _parts.EDGE, 0), *between]
    lengths = [_parts.EDGE, _parts.EDGE, *[_parts.SAMPLE] * len(between)]
    for begin, length in zip(begins, lengths, strict=True):
        for place in (begin, min(begin + length, size) - 1) if size else ():
            with open(path, "r+b") as file:
                file.seek(place)
                file.write(bytes([content[place] ^ 1]))
                file.flush()
                assert _parts.mark(str(path)) != mark, place
                file.seek(place)
                file.write(content[place : place + 1])
    assert _parts.mark(str(path)) == mark


def test_folders_that_cannot_take_scores(folder, run, result):
    small_flow()
    parts("npy")
    os.mkdir("full")
    (folder / "full" / "notes.txt").write_text("mine")
    score = ("score", "flow.safetensors")
    check_error(*run(*score, "data", "-o", "full/"), ["expected an empty folder", "notes.txt"])
    check_error(*run(*score, "data", "-o", "data/"), ["expected another folder than that of the tables"])
    check_error(*run(*score, "data", "data", "-o", "scores/"), ["expected different tables", "twice"])
    os.mkdir("empty")
    check_error(*run(*score, "empty"), ["expected a folder with tables", "got none in empty"])
    check_error(*run(*score, "none-*.npy", "-o", "scores/"), ["DATA: expected some tables", "got none by none-*.npy"])
    os.mkdir("broken")
    (folder / "broken" / "headrace-score.json").write_text('{"format": 1}')
    check_error(*run(*score, "data", "-o", "broken/"), ["what an earlier `headrace score` wrote"])
    code, _, err = run(*score, "-", "-o", "scores/")
    assert (code, "a table from the standard input has no name" in err) == (2, True)
    code, _, err = run(*score, "data", "-o", "s.npy", "--format", "csv")
    assert (code, "--format: give a folder" in err) == (2, True)
    assert run(*score, "data", "-o", "no_slash")[0] == 2
    assert not os.path.exists("scores")


def test_incompatible_tables(folder, run):
    small_flow()
    parts("csv")
    lacks = "part-2.csv: expected one column {}, as data/part-0.csv has, got none"
    write_csv("data/part-2.csv", table(20)[:, :2], NAMES[:2])
    check_error(*run("fit", "data", "-o", "f.safetensors"), [lacks.format("'age'")])
    write_csv("data/part-2.csv", table(20), ["mass", "age", "size"])
    check_error(*run("fit", "data", "-o", "f.safetensors"), [lacks.format("'log_radius'")])
    write_csv("data/part-2.csv", table(20))
    check_error(*run("score", "flow.safetensors", "data"), ["part-2.csv: expected names of columns", "it has none"])
    check_error(*run("fit", "-", "data/part-0.csv", "-o", "f"), ["expected the standard input alone or files"])
    bad = table(20)
    bad[7, 1] = np.nan
    write_csv("data/part-2.csv", bad, NAMES)
    rows = 400 // 3 + 1 + 400 // 3
    check_error(*run("fit", "data", "-o", "f"), [f"data/part-0.csv and 2 more: row {rows + 7}, column 'log_radius'"])


def test_a_failed_table_leaves_no_file(folder, run, result):
    small_flow()
    parts("csv")
    (folder / "data" / "part-1.csv").write_text("mass,log_radius,age\n1,2,3\n1,2,x\n")
    code, out, err = run("score", "flow.safetensors", "data", "-o", "scores/", "--quiet")
    check_error(code, out, err, ["data/part-1.csv: line 3, column 'age'"])
    assert list(kept("scores")) == ["part-0.csv"]
