"""Calls without enough memory raise errors: each allocation of the core fails in turn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import runtime_library

pytestmark = [
    pytest.mark.programs,
    pytest.mark.costly,
    pytest.mark.skipif(runtime_library.compiler() is None, reason="no C++ compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="no LD_PRELOAD, not to be seen elsewhere"),
]

TESTS = Path(__file__).parents[1]


def judged(*arguments):
    """Return the number of calls, and the number of failed allocations, of tests/support/allocations.py."""
    script = TESTS / "support" / "allocations.py"
    path = os.pathsep.join([*map(str, [TESTS, TESTS / "support", TESTS / "support" / "cases"]), *sys.path])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return map(int, re.search(r"(\d+) calls, (\d+) failed allocations", run.stdout).groups())


@pytest.mark.parametrize(
    "words", [["rq_spline exp"], ["step of dual ascent"], ["ensemble float32"], ["C: "]], ids="; ".join
)
def test_each_failed_allocation_is_an_error_and_loses_nothing(words):
    calls, failed = judged("--every", "4", *words)
    assert calls > 1
    assert failed > calls


@pytest.mark.nightly
def test_each_allocation_of_every_kernel():
    calls, failed = judged("--every", "8")
    assert calls > 200
    assert failed > 10 * calls
