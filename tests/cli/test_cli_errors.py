"""An error of the command line is one line that names the fault, with its exit code."""

import os
import re
import sys

import numpy as np
import pytest

import headrace as hr
from cli_cases import SHORT, broken_zip, check_error, parquet_of, saved, small_flow, table, truncated, write
from headrace.rows import _files as _tables

pytestmark = pytest.mark.programs

# Refused tables: a function that writes the file, further options, and patterns in the line of the error.
BAD_TABLES = {
    "no file": (lambda: "none.csv", [], ["none.csv: No such file"]),
    "a folder": (
        lambda: os.mkdir("d.csv") or "d.csv",
        [],
        ["DATA: expected a folder with tables", "got none in d.csv"],
    ),
    "nothing in it": (lambda: write("t.csv", ""), [], ["t.csv", "got no lines"]),
    "comments alone": (lambda: write("t.csv", "# a\n\n"), [], ["t.csv", "got no lines"]),
    "names alone": (lambda: write("t.csv", "a,b\n"), [], ["t.csv", "at least one row"]),
    "a word": (lambda: write("t.csv", "a,b\n1,2\n3,x\n"), [], ["t.csv: line 3, column 'b'", "got 'x'; --columns"]),
    "a question mark": (
        lambda: write("t.csv", "a,b\n1,2\n3,?\n"),
        [],
        ["t.csv: row 1, column 'b'", "--missing drop"],
    ),
    "a column of text": (lambda: write("t.csv", "a,b\n1,x\n3,4\n"), [], ["line 2, column 'b'", "got 'x'; --columns"]),
    "a word, no names": (lambda: write("t.csv", "1,2\n3,x\n"), [], ["t.csv: line 2, column 1", "got 'x'"]),
    "a gap": (lambda: write("t.csv", "a,b\n1,2\n,3\n"), [], ["t.csv: row 1, column 'a'", "got NaN"]),
    "a short line": (lambda: write("t.csv", "a,b\n1,2\n\n3\n"), [], ["t.csv: line 4", "expected 2 columns", "got 1"]),
    "a long line": (lambda: write("t.csv", "a,b\n1,2\n3,4,5\n"), [], ["t.csv: line 3", "expected 2 columns", "got 3"]),
    "names or numbers": (lambda: write("t.csv", "a,2\n1,2\n"), [], ["t.csv: line 1", "--header yes"]),
    "names that count": (lambda: write("t.csv", "1,2,3\n4,5,6\n"), [], ["line 1 counts from 1 to 3", "--header yes"]),
    "names that count from 0": (
        lambda: write("t.csv", "0,1\n.5,2\n"),
        [],
        ["line 1 counts from 0", "--header no"],
    ),
    "names declared as values": (lambda: write("t.csv", "a,b\n1,2\n"), ["--header", "no"], ["line 1", "got 'a'"]),
    "another delimiter": (lambda: write("t.csv", "a;b\n1;2\n"), ["--delimiter", ","], ["line 2", "got '1;2'"]),
    "not UTF-8": (lambda: write("t.csv", b"a,b\n1,\xff\n"), [], ["t.csv", "UTF-8", "0xff"]),
    "an open quote": (
        lambda: write("t.csv", 'a,b\n1,2\n1,"2\n'),
        [],
        ["t.csv: line 3: expected the end of"],
    ),
    "an open quote in the names": (lambda: write("t.csv", 'a,"b\n1,2\n'), [], ["t.csv: line 1: expected the end of"]),
    "a line break in quotes": (
        lambda: write("t.csv", 'a,b\n1,2\n"1\n",2\n'),
        [],
        ["t.csv: line 3: expected the end of"],
    ),
    "digits without an end": (
        lambda: write("t.csv", "a,b\n" + "1" * 200_000 + ",2\n"),
        [],
        ["t.csv: expected finite numbers", "first in row 0, column 'a': inf; leave such rows out of the table"],
    ),
    "a number as Python writes it": (
        lambda: write("t.csv", "a,b\n1,2\n3,1_5\n"),
        [],
        ["line 3, column 'b'", "got '1_5'"],
    ),
    "a name of two columns": (
        lambda: write("t.csv", "a,a,c\n1,2,3\n"),
        [],
        ["t.csv: expected different", "'a' 2 times"],
    ),
    "a name of a feature and the context": (
        lambda: write("t.csv", "a,b,a\n1,2,3\n"),
        ["--columns", "0,1", "--context", 2],
        ["t.csv: expected different", "'a' 2 times"],
    ),
    "not a number": (lambda: write("t.csv", "a,b\n1,2\n3,nan\n"), [], ["t.csv: row 1, column 'b'", "got NaN"]),
    "infinity": (
        lambda: saved("t.npy", np.array([[1.0], [np.inf]])),
        [],
        ["t.npy: expected finite numbers", "first in row 1, column 0: inf"],
    ),
    "not a number in the context": (
        lambda: saved("t.npy", np.array([[1.0, np.nan]])),
        ["--context", 1],
        ["row 0, column 1", "got NaN"],
    ),
    "no NumPy file": (lambda: write("t.npy", "hello"), [], ["t.npy", "broken, foreign"]),
    "an empty NumPy file": (lambda: write("t.npy", ""), [], ["t.npy", "broken, foreign"]),
    "a short NumPy file": (lambda: truncated("t.npy", table()), [], ["t.npy", "broken, foreign"]),
    "a short archive": (lambda: truncated("t.npz", a=table()), [], ["t.npz", "broken, foreign"]),
    "a broken archive": (broken_zip, [], ["t.npz", "broken, foreign"]),
    "Python objects": (lambda: saved("t.npy", np.array([[{}]])), [], ["t.npy", "Python objects"]),
    "complex numbers": (lambda: saved("t.npy", np.ones((2, 2), complex)), [], ["t.npy", "complex128"]),
    "three dimensions": (lambda: saved("t.npy", np.ones((2, 2, 2))), [], ["t.npy", r"(2, 2, 2)"]),
    "no dimension": (lambda: saved("t.npy", np.ones(())), [], ["t.npy", "()"]),
    "two arrays": (lambda: saved("t.npz", a=table(), b=table()), [], ["--array", "'a', 'b'", "t.npz"]),
    "no such array": (lambda: saved("t.npz", a=table()), ["--array", "b"], ["--array", "'a'", "'b'"]),
    "no columns": (lambda: saved("t.npy", np.empty((3, 0))), [], ["t.npy", "at least one column"]),
    "no Parquet file": (lambda: write("t.parquet", "hello"), [], ["t.parquet", "not a Parquet file"]),
    "text in Parquet": (
        lambda: parquet_of(a=[1.0], b=["x"]),
        ["--columns", "a,b"],
        ["t.parquet: column 'b'", "got string; --columns"],
    ),
    "null in Parquet": (lambda: parquet_of(a=[1.0, None]), [], ["t.parquet: row 1, column 'a'", "got NaN"]),
    "no such column": (
        lambda: write("t.csv", "a,b\n1,2\n"),
        ["--columns", "a,c"],
        ["--columns", "t.csv", "'c'", "'a', 'b'"],
    ),
    "a column that is out of range": (lambda: saved("t.npy", table()), ["--columns", 3], ["'3'", "3 columns"]),
    "a column from the end": (lambda: saved("t.npy", table()), ["--columns=-1"], ["'-1'", "3 columns"]),
    "a range that is": (lambda: saved("t.npy", table()), ["--columns", "1:4"], ["'1:4'", "3 columns"]),
    "an empty range": (lambda: saved("t.npy", table()), ["--columns", "1:1"], ["'1:1'", "3 columns"]),
    "an empty name": (lambda: saved("t.npy", table()), ["--columns", "1,"], ["''", "3 columns"]),
    "a column twice": (lambda: saved("t.npy", table()), ["--columns", "0,0"], ["--columns", "column 0 twice"]),
    "a feature as context": (
        lambda: saved("t.npy", table()),
        ["--columns", "0,1", "--context", 1],
        ["different columns", "column 1 twice"],
    ),
    "context as weights": (
        lambda: saved("t.npy", table()),
        ["--weights", 1, "--context", 1],
        ["different columns", "column 1 twice"],
    ),
    "a name twice": (lambda: write("t.csv", "a,a\n1,2\n"), ["--columns", "a"], ["one column 'a'", "got 2"]),
    "two columns of weights": (lambda: saved("t.npy", table()), ["--weights", "0,1"], ["--weights", "got 2"]),
    "a weight below 0": (
        lambda: write("t.csv", "w,a\n1,2\n-1,3\n"),
        ["--weights", "w"],
        ["t.csv: column 'w'", "at least 0, got -1.0 at index 1"],
    ),
    "no weight above 0": (lambda: write("t.csv", "w,a\n0,2\n"), ["--weights", "w"], ["column 'w'", "got none"]),
    "an empty list of columns": (lambda: saved("t.npy", table()), ["--columns", ""], ["--columns", "got ''"]),
    "no columns of context": (lambda: saved("t.npy", table()), ["--context", ""], ["--context", "got ''"]),
    "no column of weights": (lambda: saved("t.npy", table()), ["--weights", ""], ["--weights", "got ''"]),
    "an array of one": (lambda: saved("t.npy", table()), ["--array", "a"], ["--array", ".npz", "t.npy"]),
    "a delimiter of numbers": (lambda: saved("t.npy", table()), ["--delimiter", ","], ["--delimiter", ".csv", "t.npy"]),
    "names of numbers": (lambda: saved("t.npy", table()), ["--header", "yes"], ["--header", ".csv", "t.npy"]),
    "nothing but context": (lambda: saved("t.npy", table()), ["--context", ":"], ["t.npy", "at least one column"]),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_reported_in_one_line(folder, run, case):
    make, options, patterns = BAD_TABLES[case]
    for json_too in ([], ["--json"]):
        name = make() if not json_too or case != "a folder" else "d.csv"
        outcome = run("fit", name, "-o", "f.safetensors", *options, *SHORT, *json_too)
        check_error(*outcome, patterns)
        assert not os.path.exists("f.safetensors")


# Refused calls: arguments after "headrace", where t.npy has three columns and the folder has two flows, and patterns.
BAD_CALLS = {
    "no folder for a flow": (["fit", "t.npy", "-o", "no/f.safetensors"], ["--output", "no/f.safetensors"]),
    "no folder for densities": (["score", "flow.safetensors", "t.npy", "-o", "no/s.npy"], ["--output", "no/s.npy"]),
    "no folder for samples": (["sample", "flow.safetensors", "-n", "1", "-o", "no/s.npy"], ["--output", "no/s.npy"]),
    "no folder for a picture": (["demo", "-o", "no/s.png"], ["--output", "no/s.png"]),
    "no flow": (["score", "none.safetensors", "t.npy"], ["FLOW: expected a file", "got no none.safetensors"]),
    "no flow to sample": (["sample", "none.safetensors", "-n", "1"], ["FLOW: ", "none.safetensors"]),
    "a table for a flow": (["sample", "t.npy", "-n", "1"], ["t.npy", "no safetensors file"]),
    "a transform": (["sample", "transform.safetensors", "-n", "1"], ["expected a flow", "Permutation"]),
    "too few columns": (["score", "flow.safetensors", "t.npy", "--columns", "0,1"], ["3 columns of features", "got 2"]),
    "context that a flow takes": (["score", "conditional.safetensors", "t.npy"], ["1 column of context", "got 0"]),
    "context that it does not": (
        ["score", "flow.safetensors", "t.npy", "--context", "0", "--columns", "1,2"],
        ["3 columns of features"],
    ),
    "no row of context": (
        ["sample", "conditional.safetensors", "-n", "1"],
        ["--context", "expected 1 number,", "got 0"],
    ),
    "a row of context": (["sample", "flow.safetensors", "-n", "1", "--context", "1"], ["expected none", "got 1"]),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_are_reported_in_one_line(folder, run, case):
    arguments, patterns = BAD_CALLS[case]
    np.save("t.npy", table())
    small_flow()
    small_flow("conditional.safetensors", context=1)
    hr.transforms.Permutation([1, 0]).save("transform.safetensors")
    check_error(*run(*arguments), patterns)


# Wrong usage: arguments, and patterns in the line of the error.
BAD_USAGE = {
    "no command but an option": (["--quiet"], ["required: COMMAND"]),
    "an unknown command": (["paint"], ["paint"]),
    "an unknown option": (["info", "--colour"], ["--colour"]),
    "no data": (["fit", "-o", "f"], ["DATA"]),
    "no output": (["fit", "t.npy"], ["--output"]),
    "an unknown format": (["fit", "t.xlsx", "-o", "f"], [".parquet", "'t.xlsx'"]),
    "an unknown flow": (["fit", "t.npy", "-o", "f", "--flow", "glow"], ["'glow'", "MAF"]),
    "epochs": (["fit", "t.npy", "-o", "f", "--epochs", "-1"], ["--epochs", "at least 0", "got -1"]),
    "transforms": (["fit", "t.npy", "-o", "f", "--transforms", "0"], ["--transforms", "at least 1", "got 0"]),
    "hidden": (["fit", "t.npy", "-o", "f", "--hidden", "8,x"], ["--hidden", "'8,x'"]),
    "hidden of nothing": (["fit", "t.npy", "-o", "f", "--hidden", "8,0"], ["--hidden", "at least 1, got 0"]),
    "batch size": (["fit", "t.npy", "-o", "f", "--batch-size", "1.5"], ["--batch-size", "'1.5'"]),
    "learning rate": (["fit", "t.npy", "-o", "f", "--learning-rate", "nan"], ["--learning-rate", "got nan"]),
    "validation": (["fit", "t.npy", "-o", "f", "--validation", "1"], ["--validation", "'1'"]),
    "patience": (["fit", "t.npy", "-o", "f", "--set", "patience=0"], ["--set: patience", "got 0"]),
    "dtype": (["fit", "t.npy", "-o", "f", "--dtype", "float16"], ["--dtype", "'float16'"]),
    "a seed": (["fit", "t.npy", "-o", "f", "--seed", "one"], ["--seed", "'one'"]),
    "a huge seed": (["sample", "f", "-n", "1", "--seed", str(2**64)], ["--seed", "below 2^64"]),
    "a huge number of rows": (["sample", "f", "-n", str(2**63)], ["--rows", "below 2^63"]),
    "a delimiter": (["fit", "t.csv", "-o", "f", "--delimiter", "ab"], ["--delimiter", "'ab'"]),
    "threads": (["info", "--threads", "0"], ["--threads", "'0'"]),
    "no number of rows": (["sample", "f"], ["--rows"]),
    "a number of rows": (["sample", "f", "-n", "-3"], ["--rows", "'-3'"]),
    "where to write": (["sample", "f", "-n", "1", "-o", "s.xlsx"], ["--output", "'s.xlsx'"]),
    "what to draw": (["demo", "-o", "s.gif"], ["--output", "'s.gif'"]),
    "a row of context": (["sample", "f", "-n", "1", "--context", "1", "inf"], ["--context", "'inf'"]),
    "rows in JSON": (["sample", "f", "-n", "1", "--json"], ["--json", "--output"]),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage(folder, run, case):
    arguments, patterns = BAD_USAGE[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.match(r"headrace( \w+)?: error: ", err)
    assert err.count("\n") == 1
    for pattern in patterns:
        assert pattern in err


def test_without_pyarrow(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write("t.parquet", "x")
    small_flow()
    np.save("t.npy", table())
    for arguments in (
        ["fit", "t.parquet", "-o", "f.safetensors"],
        ["score", "flow.safetensors", "t.npy", "-o", "s.parquet"],
    ):
        check_error(*run(*arguments), ['pip install ".[tables]"'])


def test_an_error_of_memory_has_a_message(folder, run, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(_tables, "open_table", fail)
    check_error(*run("fit", "t.npy", "-o", "f"), ["MemoryError"])


def test_a_mistake_in_the_program_is_not_hidden(folder, run, monkeypatch):
    def fail(*_, **__):
        raise KeyError("mistake")

    monkeypatch.setattr(_tables, "open_table", fail)
    with pytest.raises(KeyError, match="mistake"):
        run("fit", "t.npy", "-o", "f")


def test_help_and_version(run):
    assert run("--version") == (0, f"headrace {hr.__version__}\n", "")
    assert run("--include") == (0, f"{hr.config.include()}\n", "")
