"""Paths of reports, and formats of values in their tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.peers.client import ROOT, machine_facts


def stem(kind: str, threads: int) -> Path:
    """The path of a report without its suffix, for example ``bench/results/peers_amd-epyc_2t``."""
    return stem_of(kind, machine_facts(threads)["cpu"], f"{threads}t")


def stem_of(kind: str, machine: str, more: str) -> Path:
    """The path of a report on a processor or card of this name."""
    name = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    return ROOT / "bench" / "results" / f"{kind}_{name}_{more}"


def write(path: Path, report: dict, text: str) -> None:
    """Write the measured values to ``<path>.json`` and the text to ``<path>.md``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(Path(f"{path}.json"), json.dumps(_without_folders(report), indent=1) + "\n")
    _replace(Path(f"{path}.md"), text)


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: a process that ends meanwhile leaves the old file."""
    path.with_name(f"{path.name}.new").write_text(text)
    path.with_name(f"{path.name}.new").replace(path)


def _without_folders(value: Any) -> Any:
    """The value with only the last part of every absolute path, because reports are read on other machines."""
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def machine_line(machine: dict, date: str) -> str:
    """The machine and the date as one sentence."""
    sets = ", ".join(machine["instruction_sets"])
    return f"{machine['cpu']}, {machine['cores']} cores ({sets}), {machine['system']}, {date}."


def library_line(library: str, facts: dict) -> str:
    """Facts about one library, as an item of a list; `facts` is a worker's answer to ``hello``."""
    if not facts["present"]:
        return f"- {library}: absent ({facts['reason']})"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    isa = facts["facts"].get("isa")
    return f"- {library}: {versions}, Python {facts['python']}" + (f", set {isa}" if isa else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return [*head, *("| " + " | ".join(row) + " |" for row in rows)]


def comparison(row: dict) -> list[str]:
    """The time of the best peer as a multiple of headrace's, and the range of single rounds, as two columns."""
    if row["ratio"] is None:
        return ["-", "-"]
    return [f"{row['ratio']:.2f} ({row['best_peer']})", "{:.2f} - {:.2f}".format(*row["band"])]


def duration(seconds: float) -> str:
    """Seconds in a suitable unit, with three digits."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def number(value: float | None, form: str) -> str:
    """A value as text in a format, or ``-`` for None and NaN."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def met(value: bool | None) -> str:
    """A word for whether an aim was met; None means that it cannot be judged."""
    return {True: "yes", False: "no", None: "-"}[value]
