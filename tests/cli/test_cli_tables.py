"""Tables that the command line reads: every format gives the same numbers."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
from cli_cases import NAMES, SHORT, table, write_csv, write_parquet
from headrace._cli import tables as _tables

pytestmark = pytest.mark.programs

WRITERS = {
    "t.npy": lambda path, x: np.save(path, x),
    "fortran.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "one.npz": lambda path, x: np.savez(path, stars=x),
    "plain.csv": lambda path, x: write_csv(path, x),
    "names.csv": lambda path, x: write_csv(path, x, NAMES),
    "quoted.csv": lambda path, x: write_csv(path, x, ['"mass, in suns"', '"log ""radius"""', "age"]),
    "semicolon.csv": lambda path, x: write_csv(path, x, NAMES, ";"),
    "t.tsv": lambda path, x: write_csv(path, x, NAMES, "\t"),
    "space.txt": lambda path, x: write_csv(path, x, None, "  "),
    "t.parquet": lambda path, x: write_parquet(path, x, NAMES),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_numbers(folder, name):
    x = table()
    WRITERS[name](name, x)
    source = _tables.open_table(name)
    assert source.n_columns == 3
    assert_array_equal(source.read([0, 1, 2]), x)
    assert_array_equal(source.read([2, 0]), x[:, [2, 0]])


def test_text_with_comments_blank_lines_and_a_byte_order_mark(folder):
    with open("t.csv", "w", encoding="utf-8-sig") as file:
        file.write("# made by hand, in 3 parts\n\na,b\n1,2\n\n# more\n3,1e-3\n")
    source = _tables.open_table("t.csv")
    assert source.names == ("a", "b")
    assert_array_equal(source.read([0, 1]), [[1.0, 2.0], [3.0, 1e-3]])


def test_long_text_is_read_in_parts(folder, monkeypatch):
    monkeypatch.setattr(_tables, "_CHUNK", 7)
    x = table(50)
    write_csv("t.csv", x, NAMES)
    assert_array_equal(_tables.open_table("t.csv").read([0, 1, 2]), x)


def test_float32_stays_and_other_numbers_become_float64(folder):
    for kind, wanted in (("f4", "f4"), ("f2", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8")):
        np.save("t.npy", np.ones((2, 3), kind))
        assert _tables.open_table("t.npy").read([0, 1, 2]).dtype == wanted
    np.save("t.npy", np.arange(4.0))
    assert _tables.open_table("t.npy").read([0]).shape == (4, 1)


def test_columns_by_name_number_and_range(folder):
    write_csv("t.csv", table(), NAMES)
    source = _tables.open_table("t.csv")
    assert source.select("--columns", "age,mass") == [2, 0]
    assert source.select("--columns", "2, 0:2") == [2, 0, 1]
    assert source.select("--columns", ":") == [0, 1, 2]
    assert source.select("--columns", "1:") == [1, 2]
    write_csv("digits.csv", table(), ["2", "x", "y"])
    assert _tables.open_table("digits.csv", header="yes").select("--columns", "2") == [0]  # a name before a number


def test_columns_of_the_same_name_go_by_their_places(folder, result):
    """What a fit remembers of names would not tell them apart."""
    write_csv("t.csv", table(), ["a", "b", "a"])
    result("fit", "t.csv", "--context", 1, "-o", "f.safetensors", *SHORT)
    flow, x = hr.load("f.safetensors"), table()
    report = result("score", "f.safetensors", "t.csv", "--context", 1)
    assert report["log_likelihood"] == pytest.approx(flow.log_prob(x[:, [0, 2]], x[:, 1]).mean(dtype=float), rel=1e-12)


def test_digits_give_back_the_same_number(folder):
    for dtype in cases.DTYPES:
        x = (table() * 1e-7).astype(dtype)
        for name in ("t.csv", "t.npy", "t.parquet"):
            _tables.write_table(name, x, NAMES)
            assert_array_equal(_tables.open_table(name).read([0, 1, 2]).astype(dtype), x)
