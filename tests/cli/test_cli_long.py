"""Tables longer than the buffer are read again in each epoch of a fit, and never as a whole."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
from cli_cases import NAMES, SHORT, check_error, table, write_csv, written
from headrace import files
from headrace.rows import _joined, _source, _text

pytestmark = pytest.mark.programs


@pytest.fixture
def whole(monkeypatch):
    """A list of the numbers of rows that are read together."""
    sizes, opened = [], _joined.Columns._opened

    def noted(self, *given):
        block = opened(self, *given)
        sizes.append(len(block))
        return block

    monkeypatch.setattr(_joined.Columns, "_opened", noted)
    monkeypatch.setattr(_source, "BLOCK", 64)
    monkeypatch.setattr(_text, "CHUNK", 64)
    return sizes


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_a_long_table_is_fitted_as_a_stream(folder, result, whole, kind):
    """A fit of a long table is as good as one in memory, on as many held-out rows."""
    x = table(3000)
    path = written(f"t.{kind}", x)
    settings = ("--epochs", 8, "--transforms", 2, "--hidden", "16", "--quiet")
    short = result("fit", path, "-o", "short.safetensors", *settings)
    whole.clear()
    long = result("fit", path, "-o", "long.safetensors", "--buffer", 500, *settings)
    assert max(whole) <= 64
    for key in ("training_rows", "held_out_rows", "features", "epochs", "stopped"):
        assert long[key] == short[key], key
    assert long["log_likelihood"] == pytest.approx(short["log_likelihood"], abs=0.15)
    assert long["gaussian_log_likelihood"] == pytest.approx(short["gaussian_log_likelihood"], abs=0.15)
    flow = hr.load("long.safetensors")
    assert flow.log_prob(x).mean() == pytest.approx(hr.load("short.safetensors").log_prob(x).mean(), abs=0.1)
    again = result("fit", path, "-o", "again.safetensors", "--buffer", 500, *settings)
    assert again["log_likelihood"] == long["log_likelihood"]
    assert_array_equal(hr.load("again.safetensors").parameters, flow.parameters)


def test_context_weights_bounds_and_members(folder, result):
    x = np.abs(table(1500))
    x = np.concatenate([x, np.where(np.arange(1500) % 5 == 0, 0.0, 1.0)[:, None]], axis=1)
    write_csv("t.csv", x, [*NAMES, "w"])
    options = ("--context", "age", "--weights", "w", "--bounds", "mass=0:", "--buffer", 300, "--ensemble", 2)
    report = result("fit", "t.csv", "-o", "f.safetensors", *options, *SHORT)
    assert report["context"] == 1
    assert report["members"] == 2
    ensemble = hr.load("f.safetensors")
    assert (ensemble.sample(50, np.ones(1), seed=0)[:, 0] > 0).all()
    assert_allclose(ensemble[0].standardize_context[0], x[x[:, 3] > 0, 2].mean(), rtol=0.05)
    scored = result("score", "f.safetensors", "t.csv", "-o", "s.npy")
    assert scored["rows"] == 1500


def test_an_ascent_takes_some_rows(folder, run):
    written("t.npy", table(1500))
    code, out, err = run(
        "fit",
        "t.npy",
        "--flow",
        "DualAscentFlow",
        "--set",
        "steps=2",
        "--set",
        "refine=false",
        "--buffer",
        400,
        "-o",
        "f",
        "--json",
    )
    assert code == 0, err
    assert "400 of 1,350 rows" in err  # a tenth of the rows is held out
    assert json.loads(out)["steps"] == 2


def test_a_long_fit_goes_on_from_its_checkpoint(folder, run, result, monkeypatch):
    from headrace._fit import streams as _streams

    written("t.npy", table(1500))
    fit = (
        "fit",
        "t.npy",
        "--buffer",
        300,
        "--epochs",
        4,
        "--transforms",
        1,
        "--hidden",
        8,
        "--checkpoint",
        "fit.state",
    )
    result(*fit, "-o", "want.safetensors", "--quiet")
    passes, batches = [], _streams.StreamRun.batches

    def interrupted(self):
        passes.append(1)
        for i, index in enumerate(batches(self)):
            if len(passes) == 3 and i == 5:
                raise KeyboardInterrupt
            yield index

    monkeypatch.setattr(_streams.StreamRun, "batches", interrupted)
    assert run(*fit, "-o", "f.safetensors", "--quiet")[0] == 130
    assert os.path.exists("fit.state")
    result(*fit, "-o", "f.safetensors", "--quiet")
    assert len(passes) == 3 + 2
    with open("want.safetensors", "rb") as want, open("f.safetensors", "rb") as got:
        assert want.read() == got.read()


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_a_fault_of_a_long_table_is_reported_with_its_row(folder, run, kind):
    x = table(1000)
    x[777, 1] = np.nan
    path = written(f"t.{kind}", x)
    fit = ("fit", path, "-o", "f.safetensors", "--buffer", 300, "--quiet")
    check_error(*run(*fit), [f"{path}: x: expected finite numbers", "in 1 of 1000 rows, first in row 777"])
    x[777, 1] = 0.0
    x[333, 2] = -5.0
    written(path, x)
    check_error(*run(*fit, "--bounds", "2=0:"), ["in 1 of 1000 rows, first in row 333, column"])
    check_error(*run(*fit, "--weights", "2"), ["weights: expected finite numbers of at least 0, got -5.0 at index 333"])
    assert not os.path.exists("f.safetensors")


def test_columns_without_information_are_reported(folder, run):
    x = table(1000)
    x[:, 0] = np.arange(1000)
    x[:, 2] = 7.0
    written("t.npy", x)
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--buffer", 300, *SHORT)
    assert code == 0
    assert "t.npy: left out: column 0 (0, 1, 2, ...); --columns chooses others" in err
    assert "column 2 has one number in all rows (7), and is kept aside" in err
    assert hr.Flow.load("f.safetensors").features == 1


def counted(rows=1000):
    """Return counts with gaps of two, truth values, sizes to one digit, and a constant column."""
    rng = np.random.default_rng(0)
    count = 2.0 * rng.poisson(2.0, rows)
    size = (rng.standard_normal(rows) + count).round(1)
    return np.column_stack([count, rng.random(rows) < 0.3, size, np.full(rows, 2.5)])


COUNTED = ("--discrete", "0,1", "--spread", "2=0.1")


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_a_long_table_gets_the_noise_of_one_in_memory(folder, run, result, whole, monkeypatch, kind):
    """Rows of a fit have the same values in memory and in a long file; samples invert the treatment of columns."""
    x = counted()
    path = written(f"t.{kind}", x, None)
    rows, fit = [], hr.Flow.fit

    def watched(self, x, **named):
        rows.append(x if isinstance(x, np.ndarray) else np.concatenate([block.x for block in x]))
        return fit(self, x, **named)

    monkeypatch.setattr(hr.Flow, "fit", watched)
    held = ("--validation", 0, "--seed", 3)
    for name, options in (("short", ()), ("long", ("--buffer", 150))):
        assert run("fit", path, "-o", name, *COUNTED, *options, *held, *SHORT)[0] == 0
    assert_array_equal(rows[1], rows[0])
    assert (rows[0] != x[:, :3]).mean() > 0.99
    assert max(whole[1:]) <= 64 or kind == "npy"
    notes = [files.read_notes(name) for name in ("short", "long")]
    assert notes[0]["table"] == notes[1]["table"]
    assert [one["width"] for one in json.loads(notes[1]["table"])["columns"]] == [2.0, 1.0, 0.1, 0.0]
    result("sample", "long", "-n", 300, "--seed", 1, "-o", "s.npy")
    drawn = np.load("s.npy")
    assert (drawn[:, 0] % 2 == 0).all()
    assert (drawn[:, 1] % 1 == 0).all()
    assert (drawn[:, 3] == 2.5).all()
    result("score", "long", path, "-o", "l.npy")
    assert np.isfinite(np.load("l.npy")).all()
    again = Path(path).with_stem("again")  # the training table must be another file
    again.write_bytes(Path(path).read_bytes())
    report = result("diagnose", "long", path, "--training", str(again), "--quiet")
    assert report["rows"] == 1000


def test_a_long_table_may_have_missing_values_and_bounds(folder, run, result):
    x = counted()
    x[[5, 700], [0, 2]] = np.nan
    np.save("t.npy", x)
    np.save("good.npy", np.delete(x, [5, 700], axis=0))
    bounds = ("--bounds", "0=0:,1=0:1", "--buffer", 150)
    code, out, err = run("fit", "t.npy", "-o", "f", "--missing", "drop", *COUNTED, *bounds, *SHORT[:-1], "--json")
    assert code == 0, err
    assert "t.npy: 2 of 1,000 rows miss a number and are left out" in err
    report = json.loads(out)
    assert report["training_rows"] + report["held_out_rows"] == 998
    result("fit", "good.npy", "-o", "g", *COUNTED, *bounds, *SHORT)
    assert_array_equal(hr.Flow.load("f").parameters, hr.Flow.load("g").parameters)
    assert hr.Flow.load("f").transforms[-1].bounds == ((-1.0, None), (-0.5, 1.5), None)
    result("score", "f", "t.npy", "-o", "l.npy")
    assert np.flatnonzero(np.isnan(np.load("l.npy"))).tolist() == [5, 700]
    wrong = ("--discrete", "0", "--buffer", 150)
    check_error(*run("fit", "t.npy", "-o", "h", *wrong, "--quiet"), ["t.npy: x: expected finite numbers"])
    several = [
        (("--bounds", "0=1:"), "column 0: expected whole numbers from 1.0 to None, got 0"),
        (("--discrete", "0,2"), "column 2: expected whole numbers, as discrete says, got "),
        (("--bounds", "2=0:"), "x: expected numbers"),
    ]
    for options, message in several:
        check_error(*run("fit", "good.npy", "-o", "h", *wrong, *options, "--quiet"), [f"good.npy: {message}"])


@pytest.mark.costly
def test_auto_looks_at_a_long_table_with_its_noise(folder, run, result):
    np.save("t.npy", counted())
    fit = ("fit", "t.npy", "--auto", "--time-budget", 3, "-o", "f", *COUNTED, "--buffer", 150, "--quiet")
    code, _, err = run(*fit)
    assert code == 0, err
    result("sample", "f", "-n", 100, "--seed", 1, "-o", "s.npy")
    assert (np.load("s.npy")[:, 0] % 2 == 0).all()


def test_a_table_from_the_standard_input_may_be_long(folder, result, monkeypatch):
    import io
    import sys

    write_csv("t.csv", table(1000), NAMES)
    with open("t.csv", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read())))
    report = result("fit", "-", "-o", "f.safetensors", "--buffer", 300, *SHORT)
    assert report["training_rows"] + report["held_out_rows"] == 1000
