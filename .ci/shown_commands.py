"""The commands that README and CONTRIBUTING show: prints those of one page as a script, in the order of the page.

    python3 .ci/shown_commands.py README.md      prints commands that the nightly step `commands` runs in a clone

A command is a line of an indented or a fenced block, a cell of a table, or a name in backticks that begins as one.
`NOT_RUN` has all commands that are not run, each with a reason, and no command that a page no longer shows.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN = re.compile(
    r"^(?:[A-Z_]+=\S+ )*(?:pip|python3?|cmake|ctest|pytest|headrace|gdb|awk|export|sphinx-build|pre-commit|"
    r"[\w./]*\.ci/run|\. \S+|\S+/bin/\S+(?= ))(?: |$)"
)
PLAIN = ("headrace", "pip", "python")  # also words of sentences, so that alone they are no commands

IN_GATE = "the gate's own step runs it"
MINUTES = "minutes of every core, which the gate's step of the same tests spends already"
NOT_RUN = {
    "README.md": {
        "main job": "step readme",
        "tests": "step tests",
        "headrace report my.csv -o report.html": "tests/cli, with a small table",
        "headrace fit my.csv -o density.safetensors --held-out held_out.csv": "tests/tools/test_readme.py",
        "headrace diagnose density.safetensors held_out.csv -o report.html": "the same",
        "headrace score density.safetensors my.csv -o scores.csv": "the same",
        "headrace sample density.safetensors -n 1000 --seed 1 -o samples.csv": "the same",
        'python -m bench.settings --what "as it comes" --seeds 3 --data FOLDER': "hours, and tables of a folder",
    },
    "CONTRIBUTING.md": {
        "pytest -n auto": MINUTES,
        "pytest -n auto --quick": MINUTES,
        "gdb --args python -m pytest tests/maps/test_maps.py": "needs gdb, and somebody at the keyboard",
        "cmake --preset tsan && cmake --build --preset tsan && ctest --preset tsan": "step tsan",
        "cmake --preset ci && cmake --build --preset ci && ctest --preset ci": "step cpp",
        ".ci/run": IN_GATE,
        ".ci/run list": IN_GATE,
        ".ci/run asan": IN_GATE,
        ".ci/run docs": IN_GATE,
        ".ci/run tidy": IN_GATE,
        ".ci/run tidy-all": IN_GATE,
        ".ci/run ptx": IN_GATE,
        ".ci/run clang": "a nightly step of its own",
        ".ci/run aarch64": "the same",
        ".ci/run other-systems": "the same",
        ".ci/run free-threads": "the same",
        ".ci/run webassembly": "the same",
        ".ci/run fortran": "the same",
        ".ci/run r": "the same",
        "pre-commit install": "changes the clone's hooks, and needs pre-commit",
    },
}


def shown(page: str) -> list[str]:
    """All commands of a page; a command between comments that steps read has the name of the comment."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^<!-- (main job|tests) -->\n.*?^<!-- end -->", r"    \1", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^ {4}(main job|tests)$", text, flags=re.MULTILINE)
    in_python = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_python = line == "```python"
        elif not in_python:
            own = [line.strip(), *re.findall(r"`([^`\n]+)`", line)]
            found += [one for one in own if BEGIN.match(one) and one not in PLAIN]
    return list(dict.fromkeys(found))


def to_run(page: str) -> list[str]:
    """The commands of a page that a nightly run executes."""
    return [command for command in shown(page) if command not in NOT_RUN[page]]


if __name__ == "__main__":
    print("\n".join(to_run(sys.argv[1])))
