"""The selection of the collected tests that run: those of a device where one exists, those marked ``nightly`` where
``HEADRACE_NIGHTLY`` is set, and with ``--thin`` a few cases of each.

``--write-skipped FILE`` writes to a file the names of tests that were skipped for a missing package; ``pytest @FILE``
runs these alone, where the packages are installed.

``--one-in N`` keeps one test of N, for processors that are emulated; ``--part K`` chooses which one.

``--thin`` is for sanitizers, which look for invalid accesses to memory, whatever the results. With ``--thin`` some
cases of each test function run: each value of a parameter occurs in at least one case, and so does each pair of values
of the parameters that choose a kernel. Every shape, every hostile input and every message remains selected.

``--quick`` is the check of an installation, README's command: it keeps those cases of ``--thin`` whose tests are
neither ``emulated``, because no user's processor changes the device's sources, nor ``long``, nor ``costly``. ``--rest``
keeps all other cases.
"""

import functools
import itertools
import os
import re
import zlib
from pathlib import Path

import pytest

OF_A_KERNEL = ("map", "variant", "direction", "dtype", "device", "core")


NIGHTLY = bool(os.environ.get("HEADRACE_NIGHTLY"))
NOT_INSTALLED = ("is not installed", "could not import")  # reasons that tests and pytest.importorskip give

# Patterns of the reasons for which tests are skipped, with the step of `.ci/run` that runs these tests, or none. The
# first pattern that matches a reason counts.
CARD, NO_CASE = "a machine with a card", "nowhere: the parameters make no case"
STEPS = {
    "Chromium is not installed": "browser",
    "nvcc is not installed|HEADRACE_EMU_PTX": "ptx",
    "CuPy is not installed|built without (CUDA|HEADRACE_TESTS)|has no CUDA|no CUDA device|has a core of its own": CARD,
    "is not installed|could not import|SCIPY_ARRAY_API|PyTorch was built|of this PyTorch": "arrays",
    "HEADRACE_LARGE_FILES": "large",
    "global lock": "free-threads",
    "no Fortran compiler": "fortran",
    "no R$": "r",
    "no instruction for bf16|one kind of products|no kernels for tiles|no multiply-adds|have one build": "sets",
    "runs every instruction set": "aarch64",
    "no AddressSanitizer|AddressSanitizer ends": "sanitize",
    "no (C|C\\+\\+) compiler|no (pkg-config|nm|CMake)$": "cpp",
    "has no .ci|no clone": "tests",
    "reads /proc|shell scripts|Python 3.10 has none": "tests",
    "there is a card|no (timers|affinity|fork|bash)|not to be seen|glibc's|is in KiB": "tests",
    "has no context there|have three axes|without a line|read as float64|others than two words|one or two axes|"
    "not C-contiguous|empty parameter set": NO_CASE,
}
skipped = {}  # names of skipped tests and files, in order
reasons = set()  # reasons why tests were skipped
COLLECTED = pytest.StashKey[int]()  # the number of tests before any is deselected


def note_skipped(report):
    """Record the reason of a skipped test, and the test's name if a package is missing."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reasons.add(report.longrepr[2].removeprefix("Skipped: "))
        if any(r in report.longrepr[2] for r in NOT_INSTALLED):
            skipped[report.nodeid] = None


def step_of(reason):
    """The step of `.ci/run` in which tests that are skipped for the given reason run, or None."""
    return next((step for pattern, step in STEPS.items() if re.search(pattern, reason)), None)


@functools.cache
def no_device():
    """The reason why tests marked ``gpu`` cannot run, or an empty string."""
    try:
        from headrace import _cuda
    except ImportError:
        return "headrace was built without CUDA"
    return "" if _cuda.device_count() else _cuda.reason()


def whole(config):
    """Whether the arguments of pytest name a folder, or a file with tests of devices."""
    named = [Path(str(argument).split("::")[0]) for argument in config.args]
    return any(path.is_dir() or path.parent.name == "device" for path in named)


def deselect(config, items, away):
    """Remove the items of `away`, and report them to pytest as deselected."""
    if away:
        gone = set(map(id, away))
        items[:] = [item for item in items if id(item) not in gone]
        config.hook.pytest_deselected(items=away)


def is_one_in(n, name, part=0):
    """Whether a test is in part `part` of n parts of all tests, which are the same on every machine."""
    return zlib.crc32(name.encode()) % n == part


def mark_emulated(items):
    """Mark tests that run the CUDA sources in emulation, so that `-m "not emulated"` needs no emulation."""
    for item in items:
        if "emu" in getattr(item, "fixturenames", ()) or any(
            isinstance(value, str) and value == "emu" for value in values_of(item).values()
        ):
            item.add_marker("emulated")


def mark_costly(items):
    """Mark tests of pages and tools, and tests that compile the header for C++, which takes half a minute."""
    for item in items:
        of_header = any(str(value).startswith("('header'") for value in values_of(item).values())
        of_tools = item.path.parent.name == "tools" and item.path.name != "test_doctests.py"
        if of_header or of_tools or "runtime" in getattr(item, "fixturenames", ()):
            item.add_marker("costly")


def values_of(item):
    """The values of a case's parameters by name."""
    return getattr(getattr(item, "callspec", None), "params", {})


def superfluous(items):
    """The cases that ``--thin`` leaves out."""
    of_a_test = {}
    for item in items:
        of_a_test.setdefault(item.nodeid.split("[")[0], []).append(item)
    away = []
    for cases in of_a_test.values():
        kept = thinned([needs(item) for item in cases])
        away += [case for i, case in enumerate(cases) if i not in kept]
    return away


def split(items):
    """The cases that ``--quick`` keeps, and those that ``--rest`` keeps."""
    short = [item for item in items if not any(map(item.get_closest_marker, ("emulated", "long", "costly")))]
    quick = set(map(id, short)) - set(map(id, superfluous(short)))
    return [item for item in items if id(item) in quick], [item for item in items if id(item) not in quick]


def needs(item):
    """The reasons to keep a case: values of its parameters, and pairs of values of parameters that choose a kernel."""
    if not hasattr(item, "callspec"):
        return {"itself"}
    values = {name: repr(value) for name, value in item.callspec.params.items()}
    kernel = [(name, values[name]) for name in OF_A_KERNEL if name in values]
    return {*values.items(), *itertools.combinations(kernel, 2)}


def thinned(needs_of_cases):
    """The indices of cases that together meet all needs, chosen one by one: the case that meets most of the missing
    needs, or the earliest of several such cases."""
    missing, kept = set().union(*needs_of_cases), set()
    while missing:
        best = max(range(len(needs_of_cases)), key=lambda i: (len(needs_of_cases[i] & missing), -i))
        missing -= needs_of_cases[best]
        kept.add(best)
    return kept
