"""Memory of fits and scores of streams does not grow with the rows."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import headrace as hr
from cli_cases import ENVIRONMENT

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

COLUMNS = 20
LARGE = pytest.mark.skipif("HEADRACE_LARGE_FILES" not in os.environ, reason="takes minutes: set HEADRACE_LARGE_FILES=1")

PROGRAM = """
    import re, sys
    import numpy as np
    import headrace as hr

    def most():  # MiB
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

    def forget():
        open("/proc/self/clear_refs", "w").write("5")

    rows, columns = int(sys.argv[1]), 20

    def made():
        rng = np.random.default_rng(0)
        block = rng.standard_normal((50_000, columns), np.float32)
        for begin in range(0, rows, len(block)):
            block[:, 0] += 1e-3
            yield block[: rows - begin]

    flow = hr.MAF(columns, transforms=1, hidden=(8,))
    warm_up = hr.rows.blocks([next(made())[:2000]], buffer=1000)
    hr.MAF(columns, transforms=1, hidden=(8,)).fit(warm_up, epochs=1, progress=False)
    {first}
    forget()
    before = most()
    {call}
    print(most() - before)
"""


def grown(call, *arguments, first="pass"):
    """Run a call in a new process, and return its peak memory in MiB beyond the memory after the statement `first`."""
    program = textwrap.dedent(PROGRAM).replace("{call}", call).replace("{first}", first)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "HEADRACE_NUM_THREADS": "1"},
    )
    return float(done.stdout.split()[-1])


FIT = "flow.fit(hr.rows.blocks(made, buffer=50_000), epochs=1, batch_size=4096, progress=False)"


@pytest.mark.costly
def test_a_fit_of_blocks_takes_the_memory_of_its_buffer():
    """A million rows take 76 MiB, a buffer 3.8 MiB: a fit keeps two buffers, a sample of the rows, and work arrays."""
    assert grown(FIT, 1_000_000) < 60.0


@LARGE
def test_a_fit_of_gigabytes_takes_the_same():
    """A fit of thirty million rows, 2.2 GiB, stays below the bound for a million rows."""
    assert grown(FIT, 30_000_000) < 60.0


MAPPED = "flow.fit(hr.rows.memmap(sys.argv[2], buffer=50_000), epochs=1, batch_size=65536, progress=False)"


@LARGE
def test_a_fit_of_a_sparse_file_of_gigabytes(tmp_path):
    rows = 30_000_000
    sparse(tmp_path / "x.npy", rows)
    assert grown(MAPPED, rows, tmp_path / "x.npy") < 60.0


PARQUET = (
    'assert cli.main(["fit", sys.argv[2], "-o", sys.argv[3], "--buffer", "50000", "--epochs", "1", "--quiet", '
    '"--transforms", "1", "--hidden", "8", "--batch-size", "4096"]) == 0'
)


@pytest.mark.costly
@pytest.mark.parametrize("way", ["command line", pytest.param("Python", marks=pytest.mark.nightly)])
def test_a_fit_of_parquet(way, tmp_path):
    """Two million rows take 153 MiB, in row groups of 1.9 MiB; Arrow keeps a few groups and unused memory."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    (tmp_path / "table").mkdir()
    rng = np.random.default_rng(0)
    written = tmp_path / "table" / "0.parquet"
    columns = {f"c{j}": rng.standard_normal(250_000, np.float32) for j in range(COLUMNS)}
    parquet.write_table(pyarrow.table(columns), written, row_group_size=25_000)
    for i in range(1, 8):
        os.link(written, tmp_path / "table" / f"{i}.parquet")
    first = "import pyarrow.parquet, pyarrow.dataset; from headrace._cli import cli"
    if way == "command line":
        assert grown(PARQUET, 50_000, tmp_path / "table", tmp_path / "flow.safetensors", first=first) < 115.0
        return
    stream = "flow.fit(hr.rows.parquet(sys.argv[2], buffer=50_000), epochs=1, batch_size=4096, progress=False)"
    assert grown(stream, 50_000, tmp_path / "table", first=first) < 115.0


SCORE = 'from headrace._cli import cli; assert cli.main(["score", *sys.argv[2:5], "--quiet"]) == 0'


def sparse(path, rows):
    """A sparse file of zeros, which takes no space on the disk."""
    with open(path, "wb") as file:
        described = {"descr": "<f4", "fortran_order": False, "shape": (rows, COLUMNS)}
        np.lib.format.write_array_header_1_0(file, described)
        file.truncate(file.tell() + rows * COLUMNS * 4)


@pytest.mark.parametrize("rows", [1_500_000, pytest.param(40_000_000, marks=LARGE, id="gigabytes")])
def test_scores_in_a_folder_take_memory_that_does_not_grow(tmp_path, rows):
    """Scores of a file of 114 MiB, or of 3 GiB if large files are tested, are written while later rows are read."""
    hr.MAF(COLUMNS, transforms=1, hidden=(8,)).save(tmp_path / "flow")
    sparse(tmp_path / "x.npy", rows)
    os.mkdir(tmp_path / "scores")
    assert grown(SCORE, rows, tmp_path / "flow", tmp_path / "x.npy", f"--output={tmp_path}/scores") < 60.0
    assert np.load(tmp_path / "scores" / "x.npy", mmap_mode="r").shape == (rows,)
