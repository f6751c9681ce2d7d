"""Files that the command line writes are whole, replace no input, and have harmless names of columns."""

import csv
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
from cli_cases import ENVIRONMENT, NAMES, SHORT, check_error, command, small_flow, table, write, write_csv
from headrace import files
from headrace._cli import writing as _writing
from headrace.rows import _files as _tables

pytestmark = pytest.mark.programs

READS = {
    "fit": (["fit", "t.csv", "-o"], "t.csv"),
    "score, the table": (["score", "flow.safetensors", "t.csv", "-o"], "t.csv"),
    "score, the flow": (["score", "flow.csv", "t.csv", "-o"], "flow.csv"),
    "sample": (["sample", "flow.csv", "-n", "3", "-o"], "flow.csv"),
}


@pytest.mark.parametrize("link", ["the same name", "another way to it", "a symbolic link", "a hard link"])
@pytest.mark.parametrize("case", READS)
def test_inputs_are_not_overwritten(folder, run, case, link):
    arguments, read = READS[case]
    write_csv("t.csv", table(), NAMES)
    small_flow()
    small_flow("flow.csv")
    before = (folder / read).read_bytes()
    output = {"the same name": read, "another way to it": f"../{folder.name}/{read}"}.get(link, "link.csv")
    if link == "a symbolic link":
        (folder / output).symlink_to(read)
    if link == "a hard link":
        os.link(read, output)
    options = [*SHORT] if case == "fit" else []
    check_error(*run(*arguments, output, *options), ["--output: expected another file than", read, output])
    assert (folder / read).read_bytes() == before


def test_an_output_that_is_no_file_is_refused_before_the_work(folder, run, monkeypatch):
    np.save("t.npy", table())
    os.mkdir("d.csv")
    os.mkfifo("pipe.csv")
    small_flow()
    monkeypatch.setattr(_tables, "open_table", None)
    for name in ("d.csv", "pipe.csv"):
        for arguments in (["fit", "t.npy"], ["score", "flow.safetensors", "t.npy"]):
            check_error(*run(*arguments, "-o", name), ["expected a", "file", name])


@pytest.mark.parametrize("name", ["n" * 252 + ".csv", "loop.csv", "nowhere.csv", "nothing/t.csv", "/proc/t.csv"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(folder, run, monkeypatch, name):
    np.save("t.npy", table())
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "nowhere.csv").symlink_to("nothing/t.csv")
    small_flow()
    before = sorted(os.listdir())
    monkeypatch.setattr(_tables, "open_table", None)
    for arguments in (["fit", "t.npy"], ["score", "flow.safetensors", "t.npy"]):
        check_error(*run(*arguments, "-o", name), ["--output: expected a"])
    assert sorted(os.listdir()) == before


def test_the_file_behind_the_standard_output_is_not_replaced(folder):
    np.save("t.npy", table())
    with open("out.csv", "wb") as out:
        call = [sys.executable, "-m", "headrace", "fit", "t.npy", "-o", "out.csv", *map(str, SHORT)]
        done = subprocess.run(call, env=ENVIRONMENT, stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, (folder / "out.csv").read_bytes()) == (1, b"")
    check_error(1, "", done.stderr, ["--output: expected another file than the standard output", "out.csv"])


@pytest.mark.costly
@pytest.mark.parametrize("name", ["s.csv", "s.npy", "s.parquet"])
def test_a_full_disk_leaves_the_old_file(folder, name):
    """A limit on the size of files simulates a full disk."""
    small_flow()
    write(name, "old")
    os.chmod(name, 0o640)
    script = """
import resource, signal, sys
from headrace._cli import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(cli.main(["sample", "flow.safetensors", "-n", "1000", "-o", sys.argv[1]]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, name], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    check_error(run.returncode, run.stdout, run.stderr, [])
    assert (folder / name).read_bytes() == b"old"
    assert sorted(os.listdir()) == sorted(["flow.safetensors", name])
    assert run_whole("sample", "flow.safetensors", "-n", 1000, "-o", name) == 0
    assert os.stat(name).st_mode & 0o777 == 0o640


def run_whole(*arguments):
    process = command(*arguments)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.costly
def test_a_full_disk_behind_the_standard_output(folder):
    small_flow()
    for arguments in (["sample", "flow.safetensors", "-n", "20000"], ["info"]):
        with open("/dev/full", "w") as full:
            run = subprocess.run(
                [sys.executable, "-m", "headrace", *arguments, *["--quiet"]],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env=ENVIRONMENT,
            )
        check_error(run.returncode, "", run.stderr, ["standard output: No space left on device"])


def test_a_full_disk_is_reported_with_the_name_of_the_file(folder, run, monkeypatch):
    small_flow()
    np.save("t.npy", table())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    check_error(*run("score", "flow.safetensors", "t.npy", "-o", "s.csv"), ["s.csv: No space left on device"])
    assert sorted(os.listdir()) == ["flow.safetensors", "t.npy"]


def test_a_checkpoint_is_not_the_output(folder, run):
    np.save("t.npy", table())
    for path in ("f.safetensors", f"../{folder.name}/f.safetensors"):
        arguments = ["fit", "t.npy", "-o", "f.safetensors", "--checkpoint", path]
        check_error(*run(*arguments, *SHORT), ["--checkpoint: expected another file than the --output"])
        assert os.listdir() == ["t.npy"]


def test_scores_of_no_rows(folder, run):
    small_flow()
    np.save("t.npy", table()[:0])
    assert run("score", "flow.safetensors", "t.npy", "-o", "s.csv") == (0, "0 rows: there is nothing to score\n", "")


HARMFUL = ["=1+1", "+a", "-b", "@sum(c)", " =d", "\x1b[31mred", "two\nlines", "right\u202eleft", "x=y", "größe"]
HARMLESS = ["'=1+1", "'+a", "'-b", "'@sum(c)", "'=d", "?[31mred", "two?lines", "right?left", "x=y", "größe"]


def test_names_of_columns_do_no_harm_in_a_spreadsheet_or_a_terminal(folder, run):
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(HARMFUL)
        np.savetxt(file, np.random.default_rng(0).normal(size=(20, len(HARMFUL))), delimiter=",")
    code, out, err = run("fit", "t.csv", "-o", "f.safetensors", *SHORT)
    assert code == 0, err
    assert run("sample", "f.safetensors", "-n", 2, "-o", "s.csv")[0] == 0
    written = (folder / "s.csv").read_text("utf-8")
    for text in (written, run("sample", "f.safetensors", "-n", 2)[1]):
        assert next(csv.reader(text.splitlines())) == HARMLESS
    assert run("score", "f.safetensors", "t.csv", "-o", "s.npy")[0] == 0  # the file of the flow has the names unchanged
    write("bad.csv", "a,b\n1,\x1b[31mred\n")
    write("\x1b[31m.csv", "a,b\n1,x\n")
    for name in ("bad.csv", "\x1b[31m.csv", "none\x1b.csv"):
        _, out, err = run("fit", name, "-o", "f.safetensors")
        assert "\x1b" not in out + err


def test_columns_of_the_same_name_in_parquet_are_named(folder, run):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    x = table()
    parquet.write_table(pyarrow.table(list(x.T), names=["a", "b", "a"]), "t.parquet")
    check_error(
        *run("fit", "t.parquet", "-o", "f.safetensors"), ["t.parquet: expected different names of columns, got 'a' 2"]
    )
    assert run("fit", "t.parquet", "-o", "f.safetensors", "--columns", "b", *SHORT)[0] == 0
    # A file of an older version may have equal names of columns.
    files.save(hr.MAF(3), "f.safetensors", {"columns": json.dumps({"features": ["a", "b", "a"], "context": []})})
    patterns = ["s.parquet: expected different names of columns", "'a' 2 times"]
    check_error(*run("sample", "f.safetensors", "-n", 3, "-o", "s.parquet"), patterns)
    assert not os.path.exists("s.parquet")


def test_more_columns_than_a_file_may_have_are_refused_before_the_fit(folder, run, monkeypatch):
    monkeypatch.setattr(hr.MAF, "fit", None)
    np.save("t.npy", np.ones((2, 2**17 + 1), "f4"))
    check_error(*run("fit", "t.npy", "-o", "f.safetensors"), ["t.npy: expected at most 131072 columns of features"])
    context = ["--columns", "0", "--context", "1:"]
    np.save("t.npy", np.ones((2, 2**17 + 2), "f4"))
    check_error(*run("fit", "t.npy", "-o", "f.safetensors", *context), ["at most 131072 columns of context"])


def test_a_table_keeps_its_values_beside_harmless_names(folder):
    x = table(5)
    _writing.write_table("t.csv", x, ["=a", "b", "c"])
    assert_array_equal(_tables.open_table("t.csv").read([0, 1, 2]), x)
