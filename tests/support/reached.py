"""Record the tests that reach a mark, in the file HEADRACE_REACHED: ``plant_faults.py`` puts marks where faults are."""

import os

known = set()


def at(mark):
    """Record the running test, or the test that started this process, once; an import has no name. Returns None."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if (mark, test) not in known:
        known.add((mark, test))
        with open(os.environ["HEADRACE_REACHED"], "a") as file:
            file.write(f"{mark} {test}\n")
