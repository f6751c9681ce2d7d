"""A new argument of a public function takes an entry in a table and the file that uses the argument, at most two files.

The test adds a toy argument for each kind of function to a copy of the package: the argument's signature, help, check
and option follow from the tables.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import headrace as hr

pytestmark = pytest.mark.costly

PACKAGE = Path(hr.__file__).parent
USE = "__import__('builtins').toys.append({})"
LINE = '    {0}: Annotated[int | None, argument(None, check.whole(1), option="of {0}")]\n'
ENTRY = "        {0}: A toy.\n"

# Edits of each toy, as (file, a line of this file, text): entries of tables go before the line, and the last edit,
# which uses the toy's value, goes after the line.
EDITS = {
    "fit": [
        ("_flow/fit_arguments.py", "    keep: bool\n", "    {0}: int | None\n"),
        ("_flow/fit_arguments.py", "        keep: Of effort=", ENTRY),
        (
            "_flow/fit_arguments.py",
            "    keep: bool = argument(",
            '    {0}: int | None = argument(None, check.whole(1), option="of {0}")\n',
        ),
        ("_fit/plan.py", "        a = arguments.checked()\n", "a.{0}"),
    ],
    "flow": [
        ("_flow/flow_arguments.py", "        seed: The seed of the fresh weights.\n", ENTRY),
        ("_flow/flow_arguments.py", "    seed: Annotated[int, ", LINE),
        ("_flow/flows.py", "        features, names = named_features(features)\n", "named.{0}"),
    ],
    "descent": [
        ("variational/arguments.py", "        seed: A value from 0 to 2^64 - 1", ENTRY),
        ("variational/arguments.py", "    seed: Annotated[int, ", LINE),
        ("variational/fit.py", "    given = taken_from(ToDensity, keywords)\n", "given.{0}"),
    ],
    "student": [
        ("variational/distill.py", "        temperature: The student", ENTRY),
        ("variational/arguments.py", "    temperature: Annotated[float, ", LINE),
        ("variational/distill.py", "    args = taken_from(Distilled, keywords)\n", "args.{0}"),
    ],
    "pupil": [
        ("variational/over_time.py", "        power: The weight of the relative", ENTRY),
        ("variational/arguments.py", "    power: Annotated[float | None, ", LINE),
        ("variational/over_time.py", "    arguments = taken_from(DistilledOverTime, keywords)\n", "arguments.{0}"),
    ],
    "look": [
        ("diagnosis/run.py", "        seed: The seed of all draws", ENTRY),
        ("diagnosis/arguments.py", "    seed: Annotated[int, ", LINE),
        ("diagnosis/run.py", "    settings = taken_from(Diagnosed, keywords)\n", "settings.{0}"),
    ],
    "search": [
        ("choosing/run.py", "        seed: The seed of held-out rows, of fresh", ENTRY),
        ("choosing/arguments.py", "    seed: Annotated[int, ", LINE),
        ("choosing/run.py", "    args = taken_from(OfSearch, keywords)\n", "args.{0}"),
    ],
    "ascent": [
        ("ascent/dual_ascent.py", "        seed: The seed of all random draws of a fit.\n", ENTRY),
        (
            "ascent/dual_ascent.py",
            "    seed: int = argument(",
            '    {0}: int | None = argument(None, check.whole(1), option="of {0}")\n',
        ),
        ("ascent/dual_ascent.py", "        vars(self).update(checked_fields(self))\n", "self.{0}"),
    ],
    "wave": [
        ("sequences/wavenet.py", "        seed: The seed of the fresh weights.\n", ENTRY),
        ("sequences/wavenet.py", "    seed: Annotated[int, ", LINE),
        ("sequences/wavenet.py", "        n = check.integer(", "settings.{0}"),
    ],
}
WITH_OPTION = ("fit", "flow", "ascent", "wave")

SCRIPT = """
import builtins, inspect, json
builtins.toys = []
import numpy as np
import headrace as hr
from headrace._base.keywords import meanings
from headrace._cli.flow_options import set_groups

x, quiet = np.random.default_rng(0).standard_normal((60, 2)), {"progress": False}
flow, other = hr.MAF(2, transforms=1, hidden=(4,)), hr.IAF(2, transforms=1, hidden=(4,))
teacher, student = (hr.WaveNet(layers=1, channels=2, map="affine", prediction=0, reads=s) for s in ("data", "latent"))
calls = {
    "fit": (hr.Flow.fit, lambda **k: flow.fit(x, epochs=1, **quiet, **k)),
    "flow": (hr.NSF, lambda **k: hr.NSF(2, transforms=1, **k)),
    "descent": (
        hr.fit_to_density,
        lambda **k: hr.fit_to_density(flow, hr.densities.U1(), steps=1, samples=4, evaluated=0, **quiet, **k),
    ),
    "student": (hr.distill, lambda **k: hr.distill(flow, other, steps=1, samples=4, evaluated=0, **quiet, **k)),
    "pupil": (
        hr.distill_sequences,
        lambda **k: hr.distill_sequences(teacher, student, steps=1, samples=2, length=8, **quiet, **k),
    ),
    "look": (hr.diagnose, lambda **k: hr.diagnose(flow, x, **quiet, **k)),
    "search": (hr.auto, lambda **k: hr.auto(x, 0.1, families=("maf",), **quiet, **k)),
    "ascent": (hr.DualAscentFlow, lambda **k: hr.DualAscentFlow(**k)),
    "wave": (hr.WaveNet, lambda **k: hr.WaveNet(layers=1, channels=2, **k)),
}
helps = {form.split("=")[0]: text for group in set_groups().values() for form, text in group.items()}
found = {}
for name, (function, call) in calls.items():
    toy = f"toy_{name}"
    argument = inspect.signature(function).parameters[toy]
    toys.clear()
    call(**{toy: np.int64(3)})
    arrived = [one for one in toys if one is not None]
    try:
        call(**{toy: 0})
        error = ""
    except ValueError as refused:
        error = str(refused)
    meaning = meanings(inspect.getdoc(function)).get(toy)
    found[name] = [str(argument.annotation), argument.default, meaning, arrived[:1], error, helps.get(toy)]
print(json.dumps(found))
"""


def edited(folder):
    """A copy of the package with all toy arguments, and the files that each of them changes."""
    copy = folder / "headrace"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.dylib", "*.pyd", "__pycache__"))
    for library in [*PACKAGE.glob("*.so"), *PACKAGE.glob("*.dylib"), *PACKAGE.glob("*.pyd")]:
        os.symlink(library, copy / library.name)
    files = {}
    for name, edits in EDITS.items():
        for place, (path, anchor, line) in enumerate(edits):
            text = (copy / path).read_text(encoding="utf-8")
            assert text.count(anchor) == 1, (path, anchor)
            is_use = place == len(edits) - 1
            new = line.format(f"toy_{name}")
            start = text.index(anchor)
            if is_use:
                indent = anchor[: len(anchor) - len(anchor.lstrip())]
                start, new = text.index("\n", start) + 1, f"{indent}{USE.format(new)}\n"
            (copy / path).write_text(text[:start] + new + text[start:], encoding="utf-8")
            files.setdefault(name, set()).add(path)
    return files


def test_a_new_argument_takes_at_most_two_files(tmp_path):
    files = edited(tmp_path)
    assert {name: len(paths) for name, paths in files.items() if len(paths) > 2} == {}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() == EDITS.keys()
    for name, (annotation, default, meaning, arrived, error, option) in found.items():
        assert (annotation, default, meaning, arrived) == ("int | None", None, "A toy.", [3]), name
        assert error == f"toy_{name}: expected an integer of at least 1, got 0"
        assert option == (f"of toy_{name}" if name in WITH_OPTION else None)
