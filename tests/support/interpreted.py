"""Tests of the emulation on nvcc's PTX, which an interpreter executes in place of the host's code
(tests/cuda_emulation/ptx), never on a card.

``HEADRACE_EMU_PTX`` names the folder with the PTX, which ``tests/cuda_emulation/ptx/make FOLDER`` fills.
``HEADRACE_EMU_PTX_CONTRACT=1`` fuses products and sums as ptxas does; ``HEADRACE_EMU_PTX_ORDER`` is the order of
threads of every launch, as in ``emu::schedule``. A forbidden access fails the test that launched the kernel, unless
this file lists the access. Each process writes a report to the folder ``HEADRACE_EMU_PTX_REPORT``. Run as a program
with the folder of reports, this file judges all reports: each kernel must have run on several blocks, some lanes of a
block must have had no work, and every entry of the lists must have occurred.
"""

import atexit
import collections
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = os.environ.get("HEADRACE_EMU_PTX")
REPORT = os.environ.get("HEADRACE_EMU_PTX_REPORT")
CONTRACTED = os.environ.get("HEADRACE_EMU_PTX_CONTRACT") == "1"


class Known(NamedTuple):
    """A known finding: part of the kernel's name, the kind, the number of lines of PTX with the finding, and the
    reason.

    ``always``: whether the finding occurs in every order of threads, and also in a run of only a few cases of each
    test.
    """

    kernel: str
    kind: str
    lines: int
    reason: str
    always: bool = True


KNOWN: list[Known] = []

ONE_BLOCK = {
    "start<": "the state of an optimiser, one thread",
    "decide<": "an optimiser's decision, from the sums of all blocks",
    "judge(": "an ascent's log-likelihood, from the sums of all blocks",
    "prepare_set": "the parameters that all rows share, one warp",
}
"""Kernels that are launched with one block by design, each with the reason."""

WITHOUT_CONTRACTION: dict[str, str] = {}
"""Tests that fail unless ptxas fuses products and sums, each with the reason."""


def known():
    """The known findings, in the form that the module takes."""
    return [(one.kernel, one.kind, one.lines) for one in KNOWN]


def begin(module):
    """Give the module the known findings, and write the module's report when the process ends."""
    if not FOLDER:
        return
    module.ptx_know(known())
    if REPORT:
        Path(REPORT).mkdir(parents=True, exist_ok=True)
        atexit.register(lambda: Path(REPORT, f"{os.getpid()}.json").write_text(json.dumps(module.ptx_report())))


def mark(items):
    """Mark the tests that fail without contraction as expected failures."""
    if not FOLDER or CONTRACTED:
        return
    for item in items:
        for name, reason in WITHOUT_CONTRACTION.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def merged(reports):
    """The reports of all processes together: for each kernel sums of counts and the largest number of blocks, and the
    known findings that occurred.
    """
    kernels, known = {}, set()
    for report in reports:
        known |= {tuple(one) for one in report["known"]}
        for name, one in report["kernels"].items():
            none = {"launches": 0, "most_blocks": 0, "ragged": 0, "executed": collections.Counter()}
            kernel = kernels.setdefault(name, none)
            kernel["launches"] += one["launches"]
            kernel["ragged"] += one["ragged"]
            kernel["most_blocks"] = max(kernel["most_blocks"], one["most_blocks"])
            for warp in one["warps"]:
                kernel["executed"].update(warp["executed"])
    return kernels, known


def complaints(kernels, known, one_block=ONE_BLOCK, listed=KNOWN):
    """Lines about kernels that did not run as they should, and about entries of the lists that no longer occur."""
    found = []
    for name, kernel in sorted(kernels.items()):
        is_single = any(part in name for part in one_block)
        if not kernel["launches"]:
            found.append(f"no test launched {name}")
        elif is_single and kernel["most_blocks"] > 1:
            found.append(f"more than one block, though ONE_BLOCK lists it: {name}")
        elif not is_single and not kernel["ragged"]:
            found.append(f"no launch of several blocks with lanes that have no work: {name}")
    found += [
        f"ONE_BLOCK: no kernel is called {part}" for part in one_block if not any(part in name for name in kernels)
    ]
    found += [f"a known finding that did not occur: {one.kernel}: {one.kind}" for one in listed if one[:2] not in known]
    return found


def main(folder, which="all"):
    """Judge the reports in a folder: those of ``all`` tests in several orders, or those of ``few`` tests in one
    order."""
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        print(f"no reports in {folder}")
        return 1
    kernels, known = merged(json.loads(file.read_text()) for file in files)
    launches = sum(kernel["launches"] for kernel in kernels.values())
    executed = sum((kernel["executed"] for kernel in kernels.values()), collections.Counter())
    total = sum(executed.values()) or 1
    shares = ", ".join(f"{name} {n / total:.1%}" for name, n in executed.most_common())
    print(f"*** {len(kernels)} kernels of nvcc's PTX, {launches} launches, {total / 1e6:.0f} million instructions")
    print(f"*** of warps, executed by an interpreter, never on a card: {shares}")
    Path(folder, "merged").write_text(json.dumps(kernels, indent=1))
    found = complaints(kernels, known, listed=[one for one in KNOWN if one.always or which == "all"])
    for one in found:
        print(one)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
