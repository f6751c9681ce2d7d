"""Record the tests that reach a mark in the file HEADRACE_REACHED: ``plant_faults.py`` puts a mark where a fault would
be."""

import os

known = set()


def at(mark):
    """Record once that the running test, or the test that started this process, reaches a mark; outside of tests, as in
    an import, the test's name is empty."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if (mark, test) not in known:
        known.add((mark, test))
        with open(os.environ["HEADRACE_REACHED"], "a") as file:
            file.write(f"{mark} {test}\n")
