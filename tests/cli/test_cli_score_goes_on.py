"""Ctrl-C in the scores of one output: finished scores are kept, and the same command resumes."""

import json
import os
import signal
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import headrace as hr
from cli_cases import check_error, command, small_flow, table, written
from headrace._cli import kept_scores as partial
from headrace._cli.kept_scores import Scores
from headrace.rows import _files as _tables
from headrace.rows import _source, _text

pytestmark = pytest.mark.programs

ROWS, BLOCK = 500, 64


@pytest.mark.parametrize("first", [1, 2])
def test_statistics_of_blocks_are_those_of_all_rows(first):
    rows = np.array([-3.0, -1.5, np.nan, -7.0, 2.0, -np.inf, 0.5])
    found = Scores()
    for block in np.split(rows, [0, first, 3, 4]):
        found.add(block)
    finite = rows[np.isfinite(rows)]
    want = {"rows": 7, "not_finite": 2, "log_likelihood": finite.mean(), "least": -7.0, "most": 2.0}
    want["standard_error"] = finite.std(ddof=1) / np.sqrt(5)
    assert found.report() == pytest.approx(want)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_source, "BLOCK", BLOCK)
    monkeypatch.setattr(_text, "CHUNK", BLOCK)


def interrupted_in(monkeypatch, number, kind=hr.MAF):
    """Send Ctrl-C while block `number` of the scores is computed; return a list of the rows of each block."""
    asked, log_prob = [], kind.log_prob

    def stopped(self, x, *others, **named):
        asked.append(len(x))
        if len(asked) == number:
            signal.raise_signal(signal.SIGINT)
        return log_prob(self, x, *others, **named)

    monkeypatch.setattr(kind, "log_prob", stopped)
    return asked


def read(path, columns=(0,)):
    return _tables.open_table(path).read(list(columns)).astype("f4")


@pytest.mark.parametrize("out", ["npy", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_scores_go_on_where_ctrl_c_ended_them(folder, run, result, monkeypatch, kind, out):
    if out == "parquet":
        pytest.importorskip("pyarrow")
    flow, x = small_flow(), table(ROWS)
    want = flow.log_prob(x)
    score = ("score", "flow.safetensors", written(f"t.{kind}", x), "-o", f"s.{out}")
    with monkeypatch.context() as patched:
        interrupted_in(patched, 4)
        code, output, err = run(*score, "--json", "--quiet")
    assert code == 130
    assert err == (
        f"headrace: interrupted: the scores of the first {3 * BLOCK} rows are kept in s.partial.{out}; "
        "the same command goes on from there\n"
    )
    report = json.loads(output)
    assert (report["rows"], report["file"], report["interrupted"]) == (3 * BLOCK, f"s.partial.{out}", True)
    assert report["log_likelihood"] == pytest.approx(want[: 3 * BLOCK].mean(dtype=float), rel=1e-12)
    assert_array_equal(read(f"s.partial.{out}")[:, 0], want[: 3 * BLOCK])
    assert not os.path.exists(f"s.{out}")
    with monkeypatch.context() as patched:  # Ctrl-C again, in the second new block
        asked = interrupted_in(patched, 2)
        code, _, err = run(*score)
        assert (code, asked) == (130, [BLOCK, BLOCK])
    assert f"going on after {3 * BLOCK} rows, whose scores are in s.partial.{out}" in err
    with monkeypatch.context() as patched:
        asked = interrupted_in(patched, -1)
        report = result(*score)
        assert sum(asked) == ROWS - 4 * BLOCK  # no score is computed twice
    assert (report["rows"], report["file"], report["interrupted"]) == (ROWS, f"s.{out}", False)
    assert report["log_likelihood"] == pytest.approx(want.mean(dtype=float), rel=1e-12)
    assert_array_equal(read(f"s.{out}")[:, 0], want)
    assert not [name for name in os.listdir() if "partial" in name or "headrace" in name]


def test_blocks_of_another_size(folder, run, monkeypatch):
    """If the size of blocks has changed, a block of which only some rows are finished is computed as a whole."""
    flow, x = small_flow(), table(ROWS)
    np.save("t.npy", x)
    score = ("score", "flow.safetensors", "t.npy", "-o", "s.npy", "--quiet")
    with monkeypatch.context() as patched:
        interrupted_in(patched, 4)
        assert run(*score)[0] == 130
    monkeypatch.setattr(_source, "BLOCK", 100)
    asked = interrupted_in(monkeypatch, -1)
    assert run(*score)[0] == 0
    assert sum(asked) == ROWS - 100
    assert_array_equal(np.load("s.npy"), flow.log_prob(x))


def test_an_old_output_stays_until_the_scores_are_whole(folder, run, monkeypatch):
    small_flow()
    np.save("t.npy", table(ROWS))
    os.symlink("old.npy", "link.npy")
    np.save("old.npy", np.zeros(3))
    score = ("score", "flow.safetensors", "t.npy", "-o", "link.npy", "--quiet")
    with monkeypatch.context() as patched:
        interrupted_in(patched, 2)
        assert run(*score)[0] == 130
    assert len(np.load("old.npy")) == 3
    assert len(np.load("old.partial.npy")) == BLOCK
    with monkeypatch.context() as patched:  # Ctrl-C before a new block: old scores stay
        interrupted_in(patched, 1)
        assert run(*score) == (130, "", "headrace: interrupted\n")
    assert len(np.load("old.partial.npy")) == BLOCK
    assert run(*score)[0] == 0
    assert len(np.load("old.npy")) == ROWS
    assert not os.path.exists("old.partial.json")


def test_ctrl_c_before_any_scores_leaves_nothing(folder, run, monkeypatch):
    small_flow()
    np.save("t.npy", table(ROWS))
    for options in (("-o", "s.npy"), ()):
        with monkeypatch.context() as patched:
            interrupted_in(patched, 1)
            result = run("score", "flow.safetensors", "t.npy", "--quiet", *options)
        assert result == (130, "", "headrace: interrupted\n")
    assert sorted(os.listdir()) == ["flow.safetensors", "t.npy"]


def test_a_signal_while_scores_are_written_waits(folder, run, monkeypatch):
    """A block that is being written is whole before Ctrl-C ends the command."""
    flow, x, written_parts = small_flow(), table(ROWS), []
    np.save("t.npy", x)
    write = np.savetxt

    def interrupted(file, values, **how):
        written_parts.append(len(values))
        if len(written_parts) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        write(file, values, **how)

    with monkeypatch.context() as patched:
        patched.setattr(np, "savetxt", interrupted)
        assert run("score", "flow.safetensors", "t.npy", "-o", "s.csv", "--quiet")[0] == 130
    assert_array_equal(read("s.partial.csv")[:, 0], flow.log_prob(x)[: 2 * BLOCK])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ensembles_tables_in_parts_and_the_standard_input(folder, run, result, monkeypatch):
    ensemble = hr.Ensemble([hr.MAF(3, transforms=1, hidden=(8,), seed=seed) for seed in range(2)])
    ensemble.save("e.safetensors")
    x = table(ROWS)
    for i, part in enumerate(np.array_split(x, 3)):
        written(f"part-{i}.csv", part)
    score = ("score", "e.safetensors", *[f"part-{i}.csv" for i in range(3)], "-o", "s.npy", "--quiet")
    with monkeypatch.context() as patched:
        interrupted_in(patched, 5, hr.Ensemble)
        assert run(*score)[0] == 130
    assert np.load("s.partial.npy").shape[1] == 2
    result(*score)
    want = np.stack([ensemble.log_prob(x), ensemble.spread(x)], axis=1)
    assert_array_equal(np.load("s.npy"), want)
    import io
    import sys

    with open("part-0.csv", "rb") as file:
        content = file.read()
    for number in (2, -1):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            interrupted_in(patched, number, hr.Ensemble)
            code, _, err = run("score", "e.safetensors", "-", "-o", "i.npy")
            assert code == (130 if number > 0 else 0), err
    assert_array_equal(np.load("i.npy"), want[: len(np.load("i.npy"))])


def test_scores_of_anything_else_are_refused(folder, run, monkeypatch):
    small_flow()
    hr.MAF(3, transforms=2, hidden=(8,), seed=3).save("other.safetensors")
    x = table(ROWS)
    np.save("t.npy", x)
    score = ("score", "flow.safetensors", "t.npy", "-o", "s.npy", "--quiet")
    with monkeypatch.context() as patched:
        interrupted_in(patched, 3)
        assert run(*score)[0] == 130
    refused = "--output: expected scores of the same {} in s.partial.npy"
    check_error(*run("score", "other.safetensors", *score[2:]), [refused.format("flow"), "remove s.partial.npy"])
    check_error(*run(*score, "--columns", "2,1,0"), [refused.format("--columns"), "(None there, 2,1,0 here)"])
    x[400, 1] += 1e-9
    np.save("t.npy", x)
    check_error(*run(*score), [refused.format("tables")])
    os.remove("s.partial.json")
    check_error(*run(*score), ["as an earlier `headrace score` left them, got others"])
    os.remove("s.partial.npy")
    assert run(*score)[0] == 0
    np.save("s.partial.npy", x)
    check_error(*run("score", "flow.safetensors", "s.partial.npy", "-o", "s.npy"), ["--output: expected another file"])


def test_scores_on_the_standard_output_come_as_they_are_made(folder, run, monkeypatch):
    flow, x = small_flow(), table(ROWS)
    np.save("t.npy", x)
    with monkeypatch.context() as patched:
        interrupted_in(patched, 4)
        code, out, err = run("score", "flow.safetensors", "t.npy")
    assert code == 130
    assert_array_equal(np.array(out.split(), "f4"), flow.log_prob(x)[: 3 * BLOCK])
    message = f"these are of the first {3 * BLOCK} rows; with -o FILE the same command goes on"
    assert err.startswith(f"headrace: interrupted: {message}\n{3 * BLOCK} rows: mean log density")
    code, out, _ = run("score", "flow.safetensors", "t.npy", "--quiet")
    assert_array_equal(np.array(out.split(), "f4"), flow.log_prob(x))


@pytest.mark.costly
def test_a_process_that_is_interrupted(folder, result):
    hr.MAF(3, transforms=8, hidden=(128, 128)).save("flow.safetensors")
    np.save("t.npy", table(2_000_000))
    score = ("score", "flow.safetensors", "t.npy", "-o", "s.npy", "--threads", 1)
    process = command(*score)
    while not (there := [name for name in os.listdir() if name.endswith(".tmp")]) or not os.path.getsize(there[0]):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "are kept in s.partial.npy; the same command goes on from there" in err
    done = np.load("s.partial.npy", mmap_mode="r").shape[0]
    assert 0 < done < 2_000_000
    assert f"{done:,} rows: mean log density" in out
    want = hr.load("flow.safetensors").log_prob(np.load("t.npy")[done - 100 : done])
    assert_array_equal(np.load("s.partial.npy")[-100:], want)


@pytest.mark.parametrize("patience", [1, 2])
def test_a_waiting_write_is_ended_by_one_further_interrupt(patience):
    """The first interrupt after `patience` others ends a waiting write, because by then the written part is whole."""
    with partial.Watch(patience) as watch:
        parts = watch.until(iter([np.zeros(3), np.ones(3)]))
        next(parts)
        for _ in range(patience):
            signal.raise_signal(signal.SIGINT)
        assert watch.stopped
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
