"""Seconds of `headrace report` on a table of 20,000 rows with labels, an identifier and missing values.

    python -m bench.diagnosis.report [--rows N] [--seconds S]

The table has ten columns: an identifier, two of labels, and seven of numbers that depend on the labels and on one
another, two of them with missing values. The program prints the seconds by the clock and of the processor, from the
start of the command's process to its end, and the longest pause in the output to its standard error, a terminal.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import resource
import struct
import subprocess
import sys
import tempfile
import termios
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

KEY = 0x7265706F
NAMES = ("id", "kind", "site", "t", "a", "b", "c", "d", "e", "f")
SHIFTS = {"red": -1.5, "green": 0.0, "blue": 2.0}
SITES = ("north", "south", "east", "west")


def made(rows: int) -> list[tuple[str, ...]]:
    """The rows of the table, as text."""
    rng = np.random.default_rng(KEY)
    kind, site = rng.choice(list(SHIFTS), rows, p=[0.5, 0.3, 0.2]), rng.choice(SITES, rows)
    t = rng.uniform(-3.0, 3.0, rows)
    a = np.array([SHIFTS[one] for one in kind]) + rng.standard_normal(rows)
    b = np.sin(2.0 * t) + 0.3 * rng.standard_normal(rows)
    c = np.exp(0.5 * a + 0.4 * rng.standard_normal(rows))
    d = 0.6 * np.square(b) + 0.5 * rng.standard_normal(rows)
    e = np.where(rng.random(rows) < 0.4, -2.0, 2.0) + 0.7 * rng.standard_normal(rows) + 0.3 * d
    f = rng.standard_t(4, rows) + 0.5 * a
    for column, share in ((c, 0.02), (f, 0.03)):
        column[rng.random(rows) < share] = np.nan
    numbers = [["" if value != value else f"{value:.6g}" for value in one] for one in (t, a, b, c, d, e, f)]
    identifiers = [str(one) for one in 100_000 + rng.permutation(rows)]
    return list(zip(identifiers, kind, site, *numbers, strict=True))


def processor(pid: int) -> float:
    """The processor seconds that a running process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def watched(command: list[str]) -> tuple[list[tuple[float, float, str]], float, float]:
    """The outputs of a program to a terminal, each with its clock time and processor time, and both times at the
    end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))  # the terminal's rows and columns of text
    began, found = time.perf_counter(), []
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while True:
            try:
                text = os.read(ours, 1 << 16).decode(errors="replace")
            except OSError:  # the program has closed its end of the terminal
                break
            if not text:
                break
            found.append((time.perf_counter() - began, processor(process.pid), text))
    os.close(ours)
    if process.returncode:
        raise RuntimeError("".join(text for *_, text in found))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, time.perf_counter() - began, used.ru_utime + used.ru_stime


def main(arguments: Any = None) -> None:
    """Print the seconds, and the longest pauses with the last line before each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, help="time budget of the fit; by default the command's")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        table.write_text("\n".join(map(",".join, (NAMES, *made(given.rows)))) + "\n")
        command = [sys.executable, "-m", "headrace", "report", str(table), "-o", f"{folder}/page.html"]
        command += [] if given.seconds is None else ["--time-budget", str(given.seconds)]
        found, clock, used = watched(command)
    print(f"{given.rows:,} rows: {clock:.1f} s by the clock, {used:.1f} s of the processor")
    ends = [*found, (clock, used, "")]
    pauses = [(b[1] - a[1], b[0] - a[0], a[2]) for a, b in pairwise(ends)]
    for seconds, waited, text in sorted(pauses, reverse=True)[:3]:
        last = text.replace("\r", "\n").strip().rpartition("\n")[2]
        print(f"pause of {seconds:.1f} s of the processor, {waited:.1f} s by the clock, after: {last[:30]}")


if __name__ == "__main__":
    main()
