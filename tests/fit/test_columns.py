"""Columns that count the rows."""

import numpy as np
import pytest

import cases
from headrace._arrays.columns import about_index
from headrace._cli import cli

ROWS = 50


def table(first):
    return np.column_stack([cases.rng("columns").standard_normal((ROWS, 2)), first])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("start", [0, 1])
def test_a_column_that_counts(start, dtype):
    x = table(np.arange(start, start + ROWS)).astype(dtype)
    assert about_index(x[:, 2:]).startswith(f"column 0 ({start}, {start + 1}, {start + 2}, ...) looks like")
    assert about_index(x[:, 2:], ["time"]).startswith("column 'time' (")


def test_the_first_such_column_is_named():
    x = table(np.arange(ROWS))
    assert about_index(x).startswith("column 2 ")
    assert about_index(x, ["a", "b", ""]).startswith("column '' ")


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0"])
def test_a_shuffled_index_is_known_by_its_name(name):
    x = table(7 + cases.rng("columns shuffled").permutation(ROWS))
    assert "(different whole numbers)" in about_index(x, ["a", "b", name])
    assert about_index(x, ["a", "b", "identifier"]) is None
    assert about_index(x) is None


def test_long_float32_counters():
    """Numbers above 2^24 are rounded, as those of the column are."""
    x = np.arange(2**24 + 9, dtype="float64").astype("float32")[:, None]
    assert about_index(x) is not None


@pytest.mark.parametrize(
    "column", [np.ones(ROWS), np.arange(ROWS) + 2.0, np.arange(ROWS) * 2.0, np.arange(ROWS)[::-1], np.arange(ROWS) % 40]
)
def test_what_is_no_counter(column):
    assert about_index(table(column), ["a", "b", "c"]) is None


def test_values_of_a_nameless_column_that_repeat_or_have_fractions():
    assert about_index(table(np.arange(ROWS) % 40 + 5.0), ["a", "b", ""]) is None
    assert about_index(table(np.arange(ROWS) + 5.5), ["a", "b", ""]) is None


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_few_rows_count_by_accident(rows):
    assert about_index(np.arange(rows, dtype="float64")[:, None]) is None


def test_the_command_line_says_so(tmp_path, capsys):
    """On the standard error, unless the columns were chosen."""
    path, to = tmp_path / "saved.csv", str(tmp_path / "flow.safetensors")
    np.savetxt(path, table(np.arange(ROWS))[:, ::-1], delimiter=",", header=",a,b", comments="")
    command = ["fit", str(path), "-o", to, "--epochs", "1", "--transforms", "1", "--hidden", "4", "--quiet"]
    assert cli.main(command) == 0
    error = capsys.readouterr().err
    assert f"headrace: warning: {path}: column '' (0, 1, 2, ...) looks like the numbers of the rows" in error
    assert "--columns chooses other columns" in error
    assert cli.main([*command, "--columns", "a,b"]) == 0
    assert capsys.readouterr().err == ""
