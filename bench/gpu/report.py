"""The report of `bench.gpu`: rows from measured times and from the card's rates, and the whole report as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import report
from bench.gpu.cases import Case, fit_step
from bench.peers.run import OURS, OWN, Cell, comparison, reaches
from bench.workloads import Workload

# ---- rows ------------------------------------------------------------------------------------------------------------


def floor_of(workload: Workload, floors: Mapping[str, Any]) -> dict[str, Any] | None:
    """The least seconds by arithmetic and by memory, and the larger of both; None if the card's rates are not known."""
    if not floors.get("copy") or not floors.get("products"):
        return None
    arithmetic, memory = workload.operations / floors["products"], workload.nbytes / floors["copy"]
    return {
        "arithmetic": arithmetic,
        "memory": memory,
        "seconds": max(arithmetic, memory),
        "bound": "arithmetic" if arithmetic > memory else "memory",
    }


def device_seconds(blocks: Sequence[Mapping[str, Any]]) -> float | None:
    """The seconds of a call by the device's clock, the median over the rounds; None without a run or a clock."""
    medians = [m for block in blocks if (m := block.get("device_median")) is not None]
    return statistics.median(medians) if medians else None


def row_of(case: Case, result: Mapping[str, Any], floors: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the report.

    Ratios compare times on the host, which every library has; a share is the floor over the time on the device.
    """
    workload, cells = case.workload, result["cells"]
    row: dict[str, Any] = {
        "name": workload.name,
        "flops": workload.flops,
        "operations": workload.operations,
        "bytes": workload.nbytes,
        "floor": floor_of(workload, floors),
        "cells": {library: cell.to_dict() for library, cell in cells.items()},
        "missing": result["missing"],
        "aim_ratio": case.ratio,
        "aim_share": case.share,
        **comparison(cells),
        **dict.fromkeys(("device_seconds", "share", "met")),
    }
    if OURS not in cells or cells[OURS].foreseen:
        return row
    ours = cells[OURS]
    row["device_seconds"] = device_seconds(ours.blocks)
    if row["floor"] is not None:
        row["share"] = row["floor"]["seconds"] / (row["device_seconds"] or ours.seconds)
    row["met"] = is_met(case, row)
    return row


def is_met(case: Case, row: Mapping[str, Any]) -> bool | None:
    """Whether the aim was reached; None if there is no aim, or if this card cannot judge it."""
    if case.ratio is not None:
        return reaches(row, case.ratio)
    if case.share is None or row["floor"] is None:
        return None
    allowed = row["floor"]["memory"] / case.share
    if row["floor"]["arithmetic"] > allowed:  # the card copies too fast for its arithmetic
        return None
    return (row["device_seconds"] or row["cells"][OURS]["seconds"]) <= allowed


def fit_row(rows: Sequence[Mapping[str, Any]], fits: Sequence[Workload], floors: Mapping[str, Any]) -> dict | None:
    """The row of one step of a fit, from the times of a short and a long fit; None where a time is missing."""
    found = {row["name"]: row["cells"].get(OURS) for row in rows}
    short, long = (found.get(fit.name) for fit in fits)
    if short is None or long is None or short["foreseen"] or long["foreseen"]:
        return None
    seconds = (long["seconds"] - short["seconds"]) / (fits[1].transforms - fits[0].transforms)
    if seconds <= 0:
        return None
    block = {"median": seconds, "device_median": None, "disturbed": False}
    cell = Cell(seconds, 1, blocks=[block])
    return row_of(Case(fit_step(*fits), share=1 / 1.5), {"cells": {OURS: cell}, "missing": {}}, floors)


# ---- Markdown --------------------------------------------------------------------------------------------------------


def stem(card: str, date: str) -> Path:
    """The path of the report, without its suffix."""
    return report.stem_of("gpu", card, date[:10])


def rate(value: float | None, unit: str, size: float) -> str:
    """A rate as text, for example ``2.71 TB/s``."""
    return "unknown" if not value else f"{value / size:.3g} {unit}"


def step_line(name: str, step: Mapping[str, Any]) -> str:
    """A step as an item of a list."""
    texts = [step[key] for key in ("reason", "verdict", "summary") if step.get(key)]
    took = f" in {step['seconds']:.0f} s" if "seconds" in step else ""
    words = {"late": "ended by its limit", "absent": "not run", "begun": "begun, and to be run again"}
    word = words.get(step["status"], step["status"])
    return f"- {name}: {word}{took}" + "".join(f"; {text}" for text in texts)


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """Lines about the card and the software."""
    lines = []
    if card.get("smi"):
        lines.append("- nvidia-smi: " + ", ".join(f"{name} {value}" for name, value in card["smi"].items()))
    if "headrace" in card:
        lines.append(f"- headrace {card['headrace']}, {card['installed']}; {card['info']}")
    versions = ", ".join(f"{name} {version}" for name, version in card.get("versions", {}).items())
    return [*lines, f"- Python {card.get('python', 'unknown')}; {versions}"]


def cell_text(cell: Mapping[str, Any] | None) -> str:
    """A library's time in the table."""
    if cell is None:
        return "-"
    return ("≈ " if cell["foreseen"] else "") + report.duration(cell["seconds"])


def library_text(row: Mapping[str, Any], library: str) -> str:
    """A library's time, with the device's time for a variant of headrace, which has no column for it."""
    cell = row["cells"].get(library)
    own = device_seconds(cell["blocks"]) if cell is not None and library in OWN and library != OURS else None
    return cell_text(cell) + ("" if own is None else f" ({report.duration(own)})")


def aim_text(row: Mapping[str, Any]) -> str:
    """The aim as text in the table."""
    if row["aim_ratio"] is not None:
        return f"≥ {row['aim_ratio']:g} x"
    return "-" if row["aim_share"] is None else f"≥ {row['aim_share']:.0%} of copy"


def table_row(row: Mapping[str, Any], libraries: Sequence[str]) -> list[str]:
    """A row of the table."""
    floor, own = row["floor"], row["device_seconds"]
    floor_text = "-" if floor is None else f"{report.duration(floor['seconds'])} ({floor['bound']})"
    return [
        row["name"],
        *(library_text(row, library) for library in (OURS, *libraries)),
        "-" if own is None else report.duration(own),
        floor_text,
        report.number(row["share"], ".0%"),
        *report.comparison(row),
        aim_text(row),
        report.met(row["met"]),
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    card, floors = results["card"], results["floors"]
    title = "Dry run on the CPU: these numbers mean nothing" if results["dry"] else card.get("card", "No card")
    lines = [f"# {title}", "", report.machine_line(results["machine"], results["date"]), "", *card_lines(card)]
    lines += ["", "## Steps", "", *(step_line(name, step) for name, step in results["steps"].items())]
    if results.get("calls"):
        lines.append(f"- commands so far: {', '.join(f'{seconds:.0f} s' for seconds in results['calls'])}")
    if floors:
        lines += [
            "",
            "## Rates of this card",
            "",
            f"- copy on the device, read and written: {rate(floors.get('copy'), 'TB/s', 1e12)}",
            f"- products of float32 matrices ({floors.get('products_by') or 'nothing'}): "
            f"{rate(floors.get('products'), 'TFLOP/s', 1e12)}; with TF32, for information: "
            f"{rate(floors.get('products_tf32'), 'TFLOP/s', 1e12)}",
            *(f"- right after: {name} {value}" for name, value in floors.get("smi", {}).items() if "clocks" in name),
        ]
    if results["libraries"]:
        facts = results["libraries"].items()
        lines += ["", "## Libraries", "", *(report.library_line(library, known) for library, known in facts)]
    if results["rows"]:
        libraries = [
            library
            for library, known in results["libraries"].items()
            if library != OURS and any(library in row["cells"] for row in results["rows"]) and known["present"]
        ]
        columns = ["workload", OURS, *libraries, "on the device", "floor", "of floor", "best peer / headrace", "band"]
        rows = [table_row(row, libraries) for row in results["rows"]]
        lines += ["", "## Workloads", "", *report.table([*columns, "aim", "met"], rows)]
        lines += ["", LEGEND]
        lines += [f"- {row['name']}: {name}: {reason}" for row in results["rows"] for name, reason in failures(row)]
    if results["not_run"]:
        lines += ["", "Not run yet, since the time was used up: " + ", ".join(results["not_run"]) + "."]
    return "\n".join([*lines, ""])


LEGEND = (
    "Median time of a call that is waited for, over the rounds; ≈: foreseen from one pass times the passes, not run; "
    "-: absent, unsupported or unknown. On the device: headrace by CUDA events; headrace_tf32, which is networks on "
    "tensor cores and no peer to exact ones, has it in brackets. headrace_jax is headrace inside of a function "
    "that JAX compiled, to be read beside flowjax. Floor: the larger of the operations over the rate of products and "
    "the bytes over the rate of copies. Ratios are of the times that are waited for, "
    "shares of the device's. An aim of a share is not judged where the operations alone take longer than it allows.\n"
)


def failures(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The libraries that a row lacks because they failed in it, each with the first line of the reason."""
    return [(name, reason.splitlines()[0]) for name, reason in row["missing"].items() if name in row["failed"]]
