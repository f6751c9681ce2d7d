"""Tables that the command line reads: every format has the same values, as a whole and in blocks."""

import re
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
from cli_cases import NAMES, small_flow, table, write_csv, write_parquet, written
from headrace._base import progress as _progress
from headrace._cli import writing as _writing
from headrace.rows import _columns, _source, _text
from headrace.rows import _files as _tables

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
def test_every_format_has_the_same_values(folder, name):
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
    monkeypatch.setattr(_text, "CHUNK", 7)
    x = table(50)
    write_csv("t.csv", x, NAMES)
    assert_array_equal(_tables.open_table("t.csv").read([0, 1, 2]), x)


def test_numbers_in_quotes_and_words_in_other_columns(folder):
    lines = ["name,a,b", '"Sirius, ""the dog""",1,"2.5"', "Vega , 3 ,1e-3", "#,4,5", 'x,"6",7']
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write("\r\n".join(lines))
    source = _tables.open_table("t.csv")
    assert source.names == ("name", "a", "b")
    assert_array_equal(source.read([1, 2]), [[1.0, 2.5], [3.0, 1e-3], [6.0, 7.0]])
    with pytest.raises(
        ValueError, match=r"line 2, column 'name': expected a number, got 'Sirius, .the dog.'; columns=\["
    ):
        source.read([0, 1])


OTHER_NUMBERS = {
    "Arabic digits": ("a,b\n1,2\n1,٢\n", "line 3, column 'b': expected a number, got '٢'"),
    "full-width digits": ("a,b\n1,２\n", "line 2, column 'b': expected a number, got '２'"),
    "a NUL in a number": ("a,b\n1,2\0\n", "line 2: expected text, got a NUL"),
    "decimal commas": (
        "a;b\n1,5;2\n",
        "line 2, column 'a': expected a number, got '1,5'; pandas.read_csv(FILE, sep=",
    ),
    "in quotes": (
        'a,b\n1,"0,12"\n',
        "line 2, column 'b': expected a number, got '0,12'; pandas.read_csv(FILE, sep=",
    ),
}


@pytest.mark.parametrize("name", OTHER_NUMBERS)
def test_numbers_are_those_of_ascii(folder, name):
    text, message = OTHER_NUMBERS[name]
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        _tables.open_table("t.csv").read([0, 1])


def test_words_of_other_alphabets_leave_numbers_as_they_are(folder):
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write("größe,ort\n1.5,Köln\n-2e3,Łódź\n")
    assert_array_equal(_tables.open_table("t.csv").read([0])[:, 0], [1.5, -2000.0])


def test_float32_stays_and_other_numbers_become_float64(folder):
    for kind, wanted in (("f4", "f4"), ("f2", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8")):
        np.save("t.npy", np.ones((2, 3), kind))
        assert _tables.open_table("t.npy").read([0, 1, 2]).dtype == wanted
    np.save("t.npy", np.arange(4.0))
    assert _tables.open_table("t.npy").read([0]).shape == (4, 1)


def test_columns_by_name_number_and_range(folder):
    write_csv("t.csv", table(), NAMES)
    source = _tables.open_table("t.csv")
    assert _columns.select(source, "--columns", "age,mass") == [2, 0]
    assert _columns.select(source, "--columns", "2, 0:2") == [2, 0, 1]
    assert _columns.select(source, "--columns", ":") == [0, 1, 2]
    assert _columns.select(source, "--columns", "1:") == [1, 2]
    write_csv("digits.csv", table(), ["2", "x", "y"])
    assert _columns.select(_tables.open_table("digits.csv", header="yes"), "--columns", "2") == [
        0
    ]  # a name has priority over an index


def test_digits_restore_the_same_value(folder):
    for dtype in cases.DTYPES:
        x = (table() * 1e-7).astype(dtype)
        for name in ("t.csv", "t.npy", "t.parquet"):
            _writing.write_table(name, x, NAMES)
            assert_array_equal(_tables.open_table(name).read([0, 1, 2]).astype(dtype), x)


# --- tables in blocks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 15, 16, 100, 107])
@pytest.mark.parametrize("name", ["t.npy", "t.csv", "t.parquet"])
def test_blocks_are_the_table(folder, monkeypatch, name, rows):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if (rows, name) == (0, "t.csv"):
        pytest.skip("text without a line is no table")
    monkeypatch.setattr(_source, "BLOCK", 10)
    monkeypatch.setattr(_text, "CHUNK", 10)
    x = table(max(rows, 1))[:rows]
    source = _tables.open_table(written(name, x, None))
    for columns in ([0, 1, 2], [2, 0], []):
        blocks = list(source.blocks(columns))
        assert all(len(block) >= 8 for block in blocks) or len(blocks) == 1
        assert len(blocks) >= rows // 20
        assert_array_equal(np.concatenate(blocks), x[:, columns])
        assert_array_equal(source.read(columns), x[:, columns])


@pytest.mark.parametrize("made", [np.asfortranarray, lambda x: x[:, 0], lambda x: x.astype(">f4"), np.int16])
def test_blocks_of_any_array(folder, monkeypatch, made):
    monkeypatch.setattr(_source, "BLOCK", 10)
    x = made(table(50))
    np.save("t.npy", x)
    source = _tables.open_table("t.npy")
    assert_array_equal(np.concatenate(list(source.blocks(range(source.n_columns)))), x.reshape(50, -1))


def test_a_null_in_a_later_block_is_reported_with_its_row(folder, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    monkeypatch.setattr(_source, "BLOCK", 10)
    column = [1.0] * 40
    column[33] = None
    pyarrow.parquet.write_table(arrow.table({"a": column}), "t.parquet")
    with pytest.raises(ValueError, match="row 33, column 'a': expected a number, got null"):
        list(_tables.open_table("t.parquet").blocks([0]))


def test_a_file_that_got_shorter_is_reported(folder):
    np.save("t.npy", table(100))
    source = _tables.open_table("t.npy")
    np.save("t.npy", table(50))
    with pytest.raises(ValueError, match="expected 100 rows, as it began with"):
        list(source.blocks([0]))


@pytest.mark.parametrize("name", ["s.npy", "s.csv", "s.parquet"])
def test_scores_of_a_table_in_blocks_have_the_same_bits(folder, result, monkeypatch, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    flow, x = small_flow(), table(204)
    x[77] = np.nan
    np.save("t.npy", x)
    monkeypatch.setattr(_source, "BLOCK", 20)
    report = result("score", "flow.safetensors", "t.npy", "-o", name)
    want = flow.log_prob(x)
    assert_array_equal(_tables.open_table(name).read([0])[:, 0].astype(want.dtype), want)
    if name == "s.npy":
        assert np.load(name).shape == (204,)
        assert np.load(name).dtype == np.float32
    finite = np.delete(want, 77).astype(float)
    assert (report["rows"], report["not_finite"]) == (204, 1)
    assert report["log_likelihood"] == pytest.approx(finite.mean(), rel=1e-12)
    assert report["standard_error"] == pytest.approx(finite.std(ddof=1) / np.sqrt(203), rel=1e-12)


@pytest.mark.parametrize("name", ["s.npy", "s.csv", "s.parquet"])
def test_scores_by_an_ensemble_in_blocks_have_two_columns(folder, result, monkeypatch, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    ensemble, x = hr.Ensemble([hr.MAF(3, transforms=1, hidden=(8,), seed=seed) for seed in range(2)]), table(204)
    ensemble.save("e.safetensors")
    np.save("t.npy", x)
    monkeypatch.setattr(_source, "BLOCK", 20)
    result("score", "e.safetensors", "t.npy", "-o", name)
    want = np.stack([ensemble.log_prob(x), ensemble.spread(x)], axis=1)
    assert_array_equal(_tables.open_table(name).read([0, 1]).astype(want.dtype), want)


MEASURED = """
import resource, sys
from headrace._cli import cli
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = cli.main(["score", "flow.safetensors", sys.argv[1], "-o", "s.npy", "--quiet"])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.costly
@pytest.mark.programs
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB")
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_scores_take_memory_that_does_not_grow_with_the_rows(folder, kind):
    """A table of 1.5 million rows and 8 float64 columns takes 92 MiB, and a block 4 MiB."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    hr.MAF(8, transforms=1, hidden=(8,)).save("flow.safetensors")
    rows = np.random.default_rng(0).standard_normal((1_500_000, 8))
    written(f"t.{kind}", rows, None)
    done = subprocess.run([sys.executable, "-c", MEASURED, f"t.{kind}"], check=True, capture_output=True, text=True)
    code, grown = done.stdout.splitlines()[-1].split()
    assert int(code) == 0
    assert int(grown) < (45 if kind == "npy" else 90) * 1024  # the limit of Parquet includes the memory of pyarrow
    assert np.load("s.npy", mmap_mode="r").shape == (1_500_000,)


def test_scores_show_a_bar_on_a_terminal(folder, run, monkeypatch):
    """The bar shows the finished part, the rate and the remaining time, in rows of a single table or in tables."""
    small_flow("f")
    for name in ("a.npy", "b.npy"):
        np.save(name, table(60_000))
    monkeypatch.setattr(_source, "BLOCK", 8192)
    bar = _progress.bar
    monkeypatch.setattr(_progress, "bar", lambda *given, **how: bar(*given, mininterval=0.0, miniters=1, **how))
    for arguments, shown in ((("a.npy", "-o", "l.npy"), "60.0k/60.0k"), (("a.npy", "b.npy", "-o", "s/"), "2/2 [")):
        assert "score" not in run("score", "f", *arguments)[2]  # no bar is shown in a pipe
        monkeypatch.setattr("headrace._base.progress.watched", lambda: True)
        arguments = [argument.replace("s/", "t/") for argument in arguments]
        err = run("score", "f", *arguments)[2]
        assert "score: " in err
        assert shown in err
        assert "row/s" in err or "table/s" in err
        assert "score" not in run("score", "f", *arguments, "--quiet")[2]
        monkeypatch.setattr("headrace._base.progress.watched", lambda: False)
