"""Sets the version of the project in every file that has it (docs/releases.md).

    python3 .ci/cut_version.py 0.5.0         from 0.5.0.dev0: of the changes only "In short" stays, where it exists
    python3 .ci/cut_version.py 0.6.0.dev0    afterwards: adds an empty section to the changelog for the next version

The script builds, commits and tags nothing.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNRELEASED = "## Unreleased\n"


def numbers(version: str) -> tuple[int, ...]:
    """The three numbers of a version such as 0.5.0 or 0.5.0.dev0."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.dev0)?", version)
    if not found:
        raise SystemExit(f"version: expected one like 0.5.0 or 0.6.0.dev0, got {version}")
    return tuple(int(n) for n in found.groups()[:3])


def replaced(text: str, old: str, new: str, name: str) -> str:
    """The text of a file with the line of its version replaced; the line must occur once."""
    if text.count(old) != 1:
        raise SystemExit(f"{name}: expected {old.strip()!r} once, got it {text.count(old)} times")
    return text.replace(old, new)


def cut(root: Path, version: str, day: datetime.date) -> None:
    """Set the version in all files, or in none after an error."""
    project, citation, recipe, changelog = "pyproject.toml", "CITATION.cff", "conda/recipe.yaml", "CHANGELOG.md"
    texts = {name: (root / name).read_text(encoding="utf-8") for name in (project, citation, recipe, changelog)}
    current = re.findall(r'^version = "(.*)"$', texts[project], flags=re.MULTILINE)[0]
    if version.endswith(".dev0"):
        if current.endswith(".dev0") or numbers(version) <= numbers(current):
            raise SystemExit(f"version: expected a higher one after one that was cut, got {version} after {current}")
        old = re.findall(r"^## .*\n", texts[changelog], flags=re.MULTILINE)[0]
        new = f"{UNRELEASED}\n{old}"
    else:
        if current != f"{version}.dev0":
            raise SystemExit(f"version: expected one that is in development, {current} without .dev0, got {version}")
        # Headings inside the section "In short" move up a level, because the section's own heading is removed.
        short = rf"(?ms)(?<=^{UNRELEASED}\n).*?^### In short\n\n[^\n]*\n\n(.*?)(?=^## )"
        log = texts[changelog]
        texts[changelog] = re.sub(short, lambda section: section[1].replace("\n#### ", "\n### "), log, count=1)
        old, new = UNRELEASED, f"## {version} ({day.isoformat()})\n"
    texts[changelog] = replaced(texts[changelog], old, new, changelog)
    texts[project] = replaced(texts[project], f'\nversion = "{current}"\n', f'\nversion = "{version}"\n', project)
    texts[citation] = replaced(texts[citation], f"\nversion: {current}\n", f"\nversion: {version}\n", citation)
    texts[recipe] = replaced(texts[recipe], f'\n  version: "{current}"\n', f'\n  version: "{version}"\n', recipe)
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    numbers(sys.argv[1])
    cut(ROOT, sys.argv[1], datetime.datetime.now(datetime.timezone.utc).date())
