"""Fits and scores of tables that are read from files.

    python -m bench.scale.streams [--rows 3000000] [--folder /tmp]

A table of float32 values is written once, as Parquet in ten files and as .npy. Each call then runs in another process:
a fit for two epochs and scores of all rows, of arrays in memory and of streams with a buffer of a tenth of the rows.
Rates are rows a second (of a fit: training rows times epochs over the time of the epochs alone, and over the whole
time). Memory is the peak of the process less its memory before the call, which for arrays includes the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.memory import MEGABYTE, forget_peak, resident
from bench.peers.client import ROOT, machine_facts, usable_cores

COLUMNS, FILES, EPOCHS = 10, 10, 2


def write(folder: Path, rows: int) -> None:
    """Write a table of correlated columns, some millions of rows at a time."""
    import pyarrow
    import pyarrow.parquet

    rng, mix = np.random.default_rng(0), np.random.default_rng(1).standard_normal((COLUMNS, COLUMNS))
    (folder / "table").mkdir()
    table = np.lib.format.open_memmap(folder / "x.npy", "w+", "float32", (rows, COLUMNS))
    edges = np.linspace(0, rows, FILES + 1).astype(int)
    for i in range(FILES):
        part = (rng.standard_normal((edges[i + 1] - edges[i], COLUMNS)) @ mix).astype("float32")
        table[edges[i] : edges[i + 1]] = part
        columns = {f"c{j}": part[:, j] for j in range(COLUMNS)}
        pyarrow.parquet.write_table(
            pyarrow.table(columns), folder / "table" / f"part-{i}.parquet", row_group_size=1 << 17
        )


def _flow(hidden: int) -> Any:
    import headrace as hr

    return hr.MAF(COLUMNS, transforms=3, hidden=(hidden, hidden))


def _fit(x: Any, hidden: int) -> tuple[float, float]:
    """The seconds of the epochs alone, and of the whole fit."""
    begin = time.perf_counter()
    history = _flow(hidden).fit(x, epochs=EPOCHS, progress=False)
    seconds = time.perf_counter() - begin
    return history.seconds[-1], seconds


def _array(folder: Path) -> Any:
    return np.load(folder / "x.npy")


def _stream(kind: str, folder: Path, rows: int) -> Any:
    import headrace as hr

    if kind == "parquet":
        return hr.rows.parquet(folder / "table", buffer=rows // 10)
    return hr.rows.memmap(folder / "x.npy", buffer=rows // 10)


def _score_array(folder: Path, rows: int, hidden: int) -> None:
    _flow(hidden).log_prob(_array(folder))


def _score_files(folder: Path, rows: int, hidden: int) -> None:
    from headrace._cli import cli

    _flow(hidden).save(folder / "flow.safetensors")
    with tempfile.TemporaryDirectory(dir=folder) as scores:
        code = cli.main(["score", str(folder / "flow.safetensors"), str(folder / "table"), "-o", scores, "--quiet"])
        assert code == 0


def measure(case: str, folder: Path, rows: int, hidden: int, threads: int) -> dict[str, float]:
    """Run and measure one call in this process."""
    import headrace as hr

    hr.set_num_threads(threads)
    what, kind = case.split(" ")
    if kind == "parquet":  # imported here, because the import takes time and memory
        import pyarrow.dataset
        import pyarrow.parquet  # noqa: F401
    given = _array(folder) if case == "fit array" else None
    _flow(8).fit(np.random.default_rng(0).standard_normal((2000, COLUMNS), np.float32), epochs=1, progress=False)
    forget_peak()
    before, begin = resident()[0], time.perf_counter()
    found: dict[str, float] = {}
    if what == "fit":
        alone, _ = _fit(_stream(kind, folder, rows) if given is None else given, hidden)
        found["epochs"] = 0.9 * rows * EPOCHS / alone
        seconds = time.perf_counter() - begin
        found["rate"] = 0.9 * rows * EPOCHS / seconds
    else:
        call: Callable[..., None] = _score_array if kind == "array" else _score_files
        call(folder, rows, hidden)
        found["rate"] = rows / (time.perf_counter() - begin)
    return {**found, "memory": (resident()[1] - before) / MEGABYTE}


CASES = ("fit array", "fit memmap", "fit parquet", "score array", "score parquet")


def arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--hidden", type=int, default=32, help="units of each of the two hidden layers")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=3, help="of which the best rate and the largest peak count")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the tables are made")
    parser.add_argument("--case", choices=CASES, help="run one case in this process and print it as JSON")
    return parser.parse_args()


def main() -> None:
    """Run all cases in turn and print a table."""
    o = arguments()
    if o.case is not None:
        print(json.dumps(measure(o.case, o.folder, o.rows, o.hidden, o.threads)))
        return
    with tempfile.TemporaryDirectory(dir=o.folder) as made:
        write(Path(made), o.rows)
        options = ["--rows", o.rows, "--hidden", o.hidden, "--threads", o.threads, "--folder", made]
        found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(o.repeats):
            for case in CASES:
                command = [sys.executable, "-m", "bench.scale.streams", "--case", case, *map(str, options)]
                run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                found[case].append(json.loads(run.stdout.splitlines()[-1]))
    machine = machine_facts(o.threads)
    print(f"{machine['cpu']}, {o.threads} threads, {o.rows:,} rows of {COLUMNS} float32, buffer {o.rows // 10:,}\n")
    lines = []
    for case, each in found.items():
        best = max(one["rate"] for one in each)
        array = max(one["rate"] for one in found[f"{case.split(' ')[0]} array"])
        epochs = max((one["epochs"] for one in each if "epochs" in one), default=None)
        peak = max(one["memory"] for one in each)
        epochs_text = "-" if epochs is None else f"{epochs:.3g}"
        lines.append([case, f"{best:.3g}", f"{best / array:.2f}", epochs_text, f"{peak:.0f} MB"])
    print("\n".join(report.table(["call", "rows/s", "of the array's", "in epochs alone", "peak beyond"], lines)))


if __name__ == "__main__":
    main()
