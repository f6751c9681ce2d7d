"""Notes which tests reach a mark, in the file HEADRACE_REACHED: ``plant_faults.py`` puts marks where faults are."""

import os

known = set()


def at(mark):
    """Notes the test that runs, or that started this process, once; an import has no name. Gives None."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if (mark, test) not in known:
        known.add((mark, test))
        with open(os.environ["HEADRACE_REACHED"], "a") as file:
            file.write(f"{mark} {test}\n")
