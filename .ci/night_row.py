"""Write the row of one shard of the night into docs/notes/nights.md: result and machine of its last complete run.

    python3 .ci/night_row.py STEP RESULT SECONDS CORE_SECONDS

A shard is a step of `.ci/run nightly` beyond the gate. RESULT is the exit status of this step.
"""

import datetime
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "notes" / "nights.md"


def processor() -> str:
    """The name of the processor, with its family and model, because several models share a name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    values = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    if not values:
        return platform.machine()
    return f"{values['model name']} ({values['cpu family']}/{values['model']})"


def with_row(page: str, step: str, cells: list[str]) -> str:
    """The page with the row of the step replaced, or added; rows are in alphabetical order."""
    lines = page.rstrip("\n").split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("| ---")) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    rows = {line.split("|")[1].strip(): line for line in lines[start:end]}
    rows[step] = f"| {' | '.join([step, *cells])} |"
    return "\n".join([*lines[:start], *(rows[name] for name in sorted(rows)), *lines[end:]]) + "\n"


def main() -> None:
    """Write the row of the step named on the command line."""
    step, result, seconds, core = sys.argv[1:]
    commit = subprocess.run(
        ["git", "rev-parse", "--short=8", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    verdict = "passed" if result == "0" else f"failed ({result})"
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    cells = [verdict, commit.stdout.strip(), today, seconds, core, processor()]
    PAGE.write_text(with_row(PAGE.read_text(), step, cells))


if __name__ == "__main__":
    main()
