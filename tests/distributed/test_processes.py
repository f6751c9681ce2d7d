"""Ranks that are processes: gloo with two and three, MPI with two and three, and ranks that end or hang."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import ranks
from headrace.distributed.groups import local

pytestmark = pytest.mark.programs
RANK = Path(__file__).parent / "rank.py"
WAIT = 120.0  # the limit for a run in seconds, of which a run should take a few


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HEADRACE_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


class Ranks:
    """The processes of ranks, none of which outlives the test."""

    def __init__(self, commands):
        self.processes = [
            subprocess.Popen(
                command,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            for command in commands
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # children of the process keep its output open
            process.communicate(timeout=WAIT)

    def finish(self, which=None):
        """The output of the ranks, when they have ended."""
        chosen = self.processes if which is None else [self.processes[i] for i in which]
        return [process.communicate(timeout=WAIT)[0] for process in chosen]


def gloo(directory, size, work):
    pytest.importorskip("torch", reason="torch is not installed")
    command = [sys.executable, str(RANK), str(directory), "gloo"]
    return Ranks([[*command, str(rank), str(size), work] for rank in range(size)])


def mpi(directory, size, work):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert launcher, "mpi4py is installed, but no mpiexec"
    return Ranks([[launcher, "-n", str(size), sys.executable, str(RANK), str(directory), "mpi", "0", "0", work]])


def results(directory, which):
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in which]


@pytest.fixture(scope="module")
def want():
    """Digests of fits of this process alone."""
    sys.path.insert(0, str(RANK.parent))
    try:
        import rank
    finally:
        sys.path.pop(0)
    found = {}
    with ranks.small_chunks(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of repeated values
        for name, dtype in rank.WORK:
            found[f"{name} {dtype}"] = ranks.digest(ranks.fitted(name, dtype, local(), range(len(ranks.SIZES))))
        for name, dtype in [*rank.ASCENTS, ("splines", "float32")]:
            found[f"{name} {dtype}"] = ranks.digest(ranks.ascended(name, dtype, local(), range(len(ranks.SIZES))))
    return found


@pytest.mark.parametrize(
    ("start", "size"),
    [(gloo, 2), pytest.param(gloo, 3, marks=pytest.mark.nightly), (mpi, 2), (mpi, 3)],
    ids=["gloo 2", "gloo 3", "MPI 2", "MPI 3"],
)
def test_bits_are_those_of_one_process(start, size, want, tmp_path):
    with start(tmp_path, size, "fit") as started:
        printed = started.finish()
    assert all(process.returncode == 0 for process in started.processes), printed
    assignments = [name for name, shards in ranks.ASSIGNMENTS.items() if len(shards) == size]
    assert assignments
    for found in results(tmp_path, range(size)):
        cases = {case: bits for case, bits in want.items() if not case.startswith("splines")}
        assert found["bits"] == {f"{name} {case}": bits for name in assignments for case, bits in cases.items()}
        row = ranks.FIRST[5] + 3
        assert found["nan"] == (
            f"x: expected finite numbers, got NaN or infinity in 1 of {ranks.ROWS} rows, first in row {row}"
        )
        assert f"of {size}" in found["repr"]


def is_stopped(process):
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state in "Tt"


@pytest.mark.parametrize(("how", "size"), [("ends", 3), ("stops", 2), ("stuck", 2)])
def test_the_others_raise_when_a_rank_of_gloo(how, size, tmp_path):
    """If a rank is lost, all others raise an error within twice the timeout of 2 s, plus 1 s of grace, and end even if
    gloo's threads do not."""
    others = [rank for rank in range(size) if rank != 1]
    with gloo(tmp_path, size, how) as started:
        printed = started.finish(others)
        first = started.processes[1]
        if how == "stops":
            assert first.poll() is None
            assert is_stopped(first)
        else:
            assert first.wait(WAIT) == 1
    found = results(tmp_path, others)
    for one in found:
        assert one["error"] is not None, printed
        assert one["steps"] in (37, 38), one
        assert one["seconds"] < 2 * 2.0 + 1.0 + 1.0, one
        assert "got nothing from rank 1;" in one["error"], one
    assert all(process.poll() is not None for process in started.processes)
    assert [started.processes[rank].returncode for rank in others] == [0] * len(others), printed


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("refined", "ends"),
        *(pytest.param(*one, marks=pytest.mark.nightly) for one in (("notes", "ends"), ("splines", "stops"))),
    ],
)
def test_an_ascent_that_lost_a_rank_begins_anew_with_the_same_bits(name, how, want, tmp_path):
    """Errors of the remaining ranks name the lost rank in time; a new ascent of these ranks has the bits of an
    undisturbed one."""
    with gloo(tmp_path, 3, f"{how} {name}") as started:
        printed = started.finish([0, 2])
    for one in results(tmp_path, (0, 2)):
        assert one["error"] is not None, printed
        assert "got nothing from rank 1;" in one["error"], one
        assert one["seconds"] < 2 * 2.0 + 1.0 + 1.0, one
    again = tmp_path / "again"
    again.mkdir()
    with gloo(again, 2, f"ascent {name}") as started:
        printed = started.finish()
    assert all(process.returncode == 0 for process in started.processes), printed
    assert [found["bits"] for found in results(again, (0, 1))] == 2 * [want[f"{name} float32"]]


def test_the_others_raise_when_a_rank_of_mpi_stands_still(tmp_path):
    with mpi(tmp_path, 3, "stops") as started:
        until = time.monotonic() + WAIT
        while time.monotonic() < until and not all((tmp_path / f"rank{rank}.json").exists() for rank in (0, 2)):
            time.sleep(0.05)
        found = results(tmp_path, (0, 2))
        stopped = children(started.processes[0].pid)
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        started.finish()
    for one in found:
        assert "got nothing from rank 1" in one["error"], one
        assert one["seconds"] < 2 * 2.0 + 1.0 + 1.0, one
    assert not any(Path(f"/proc/{pid}").exists() for pid in stopped)


def children(pid):
    """The processes of ranks that a process has started, directly or through other processes."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += children(child)
            if str(RANK) in Path(f"/proc/{child}/cmdline").read_text() and Path(
                f"/proc/{child}/exe"
            ).resolve().name.startswith("python"):
                found.append(child)
    return found
