"""``headrace info``: facts about this build and machine, or about a flow in a file."""

from __future__ import annotations

import platform
from argparse import Namespace
from typing import Any

import numpy as np

import headrace as hr
from headrace._base.install import rebuild
from headrace._base.layout import Grid
from headrace._cli.commands import Density, _load_any
from headrace._cli.screen import OK, say
from headrace._cli.signals import Signal
from headrace._tables.density import Columns


def info(arguments: Namespace) -> int:
    """Print facts about this build and machine, or about a flow in a file."""
    if arguments.flow is not None:
        return _of_flow(arguments)
    facts = {**hr.info(), "python": platform.python_version(), "numpy": np.__version__, "system": platform.platform()}
    missing = f"this processor has {facts['isa_not_built']}, which was not built ({rebuild('HEADRACE_SETS=ALL')})"
    commit = f" ({facts['commit']})" if facts["commit"] else ""
    rows = [
        ("headrace", f"{facts['version']}{commit}"),
        ("instruction set", f"{facts['isa']} (of {', '.join(facts['isas'])})"),
        *([("", missing)] if facts["isa_not_built"] else []),
        ("bf16 products", f"{facts['bf16']}; in tiles by {facts['bf16_tiles']}"),
        ("threads", str(facts["threads"])),
        ("CUDA", facts["cuda"]),
        ("Python, NumPy", f"{facts['python']}, {facts['numpy']}"),
        ("system", facts["system"]),
    ]
    say(arguments, facts, [Grid((), rows, wraps=(1,))])
    return OK


def _of_flow(arguments: Namespace) -> int:
    flow, notes = _load_any(arguments.flow)
    sizes = {name: getattr(flow, name) for name in ("features", "context")}
    facts: dict[str, Any] = {"file": arguments.flow, "kind": type(flow).__name__, **sizes}
    facts |= {"dtype": None if flow.dtype is None else flow.dtype.name, "parameters": flow.n_parameters}
    if isinstance(flow, hr.SequenceFlow):
        facts["field"] = flow.field
        if (signal := Signal.of_notes(notes)) is not None:
            facts |= {"rate": signal.rate, "channels": flow.features, "bits": signal.bits}
    elif isinstance(flow, Density) and (columns := Columns.of_notes(notes, flow)).names is not None:
        facts |= {"feature_names": list(columns.names), "context_names": list(columns.context_names or ())}
    rows = [(facts["file"], facts["kind"]), *((name, f"{facts[name]:,}") for name in ("features", "context"))]
    rows += [("dtype", str(facts["dtype"])), ("parameters", f"{facts['parameters']:,}")]
    if "field" in facts:
        seconds = f", {facts['field'] / facts['rate']:.3g} s" if "rate" in facts else ""
        rows.append(("field", f"{facts['field']:,} steps{seconds}"))
    if "rate" in facts:
        rows.append(("signals", f"{facts['rate']:,} Hz, {facts['bits']} bits, channels: {facts['channels']}"))
    for name, what in (("feature_names", "features"), ("context_names", "context")):
        if facts.get(name):
            rows.append((f"names of the {what}", ", ".join(facts[name])))
    say(arguments, facts, [Grid((), rows, wraps=(1,))])
    return OK
