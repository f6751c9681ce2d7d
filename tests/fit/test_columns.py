"""A fit recognises columns that count the rows, and columns of identifiers."""

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._cli import cli
from headrace._tables.facts import Held
from headrace._tables.identifiers import identifiers

ROWS = 50


def table(first):
    return np.column_stack([cases.rng("columns").standard_normal((ROWS, 2)), first])


def found(x, names=None):
    return identifiers(x, Held(x, [None] * x.shape[1]), names)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("start", [0, 1])
def test_a_column_that_counts(start, dtype):
    x = table(np.arange(start, start + ROWS)).astype(dtype)
    assert found(x) == {2: f"{start}, {start + 1}, {start + 2}, ..."}


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0"])
def test_a_shuffled_index_is_recognised_by_its_name(name):
    x = table(7 + 1000 * cases.rng("columns shuffled").permutation(ROWS))[:20]
    assert found(x, ["a", "b", name]) == {2: "another whole number in each row"}
    assert found(x, ["a", "b", "star"]) == found(x) == {}


IDENTIFIERS = {
    "all whole numbers of a range, shuffled": (lambda rng: rng.permutation(ROWS) + 700.0, "star"),
    "by name": (lambda rng: rng.choice(10**6, ROWS, replace=False), "kepid"),
    "by name, in the plural": (lambda rng: rng.choice(10**6, ROWS, replace=False), "star_ids"),
    "of 64 bits": (lambda rng: rng.choice(2**52, ROWS, replace=False) * 2.0**8, "source"),
}
OTHERS = {
    "measured whole numbers": (lambda rng: rng.choice(10**6, ROWS, replace=False), "income"),
    "fractions": (lambda rng: rng.permutation(ROWS) + 0.5, "id"),
    "one that repeats": (lambda rng: np.append(np.arange(7, 6 + ROWS), 7), "id"),
    "ones": (lambda rng: np.ones(ROWS), "id"),
    "years": (lambda rng: rng.integers(1900, 2000, ROWS), "year"),
}


@pytest.mark.parametrize("name", [*IDENTIFIERS, *OTHERS])
def test_identifiers_have_another_whole_number_in_each_row(name):
    make, label = {**IDENTIFIERS, **OTHERS}[name]
    x = table(make(cases.rng("identifiers")).astype(float))
    assert found(x, ["a", "b", label]) == ({2: "another whole number in each row"} if name in IDENTIFIERS else {})
    few = x[: ROWS - 1]
    assert found(few, ["a", "b", label]) == {}


def test_long_float32_counters():
    """A float32 column that counts beyond 2^24 is recognised, although float32 rounds its values."""
    assert found(np.arange(2**24 + 9, dtype="float64").astype("float32")[:, None])


@pytest.mark.parametrize("column", [np.arange(9) + 2.0, np.arange(9) * 2.0, np.arange(9)[::-1], np.arange(9) % 4])
def test_columns_that_are_no_counters(column):
    assert found(np.column_stack([column, column])) == {}


@pytest.mark.parametrize("rows", [1, 4])
def test_few_rows_count_by_accident(rows):
    assert found(np.arange(rows, dtype="float64")[:, None]) == {}


def test_the_command_line_names_columns_left_out(tmp_path, capsys):
    """On standard error, the command line names the columns that are left out, unless `--columns` chooses columns."""
    path, to = tmp_path / "saved.csv", str(tmp_path / "flow.safetensors")
    np.savetxt(path, table(np.arange(ROWS))[:, ::-1], delimiter=",", header=",a,b", comments="")
    command = ["fit", str(path), "-o", to, "--epochs", "1", "--transforms", "1", "--hidden", "4", "--quiet"]
    assert cli.main(command) == 0
    error = capsys.readouterr().err
    assert error == f"headrace: warning: {path}: left out: column '' (0, 1, 2, ...); --columns chooses others\n"
    assert hr.load(to).feature_names == ("a", "b")
    assert cli.main([*command, "--columns", "a,b"]) == 0
    assert capsys.readouterr().err == ""
