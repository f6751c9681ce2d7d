"""Writes tests/files/<version>/: a file of each kind as this version writes it, and results of the file for some rows.

Run the program once for a version, and keep the files:

    PYTHONPATH=tests:tests/support:tests/support/cases python tests/files/make.py

The files of a version are never written again, because users have files of that version.
"""

import json
import sys
from pathlib import Path

import file_cases
import headrace as hr
import sequence_cases


def make(folder):
    """Write every example in both dtypes, with inputs and results beside each file."""
    folder.mkdir()
    for name, dtype, module in made(file_cases.EXAMPLES):
        given = dict(zip(("x", "context"), file_cases.inputs_of(module), strict=True))
        keep(folder / f"{name}-{dtype}", module, given, file_cases.results_of(module, **given))
    (folder / "sequences").mkdir()
    for name, dtype, module in made(sequence_cases.EXAMPLES):
        given = dict(zip(("x", "context", "covariates"), sequence_cases.inputs_of(module), strict=True))
        keep(folder / "sequences" / f"{name}-{dtype}", module, given, sequence_cases.results_of(module, **given))
    print(f"{folder}: {len(list(folder.rglob('*.*')))} files", file=sys.stderr)


def made(examples):
    for name, example in examples.items():
        for dtype in ("float32", "float64"):
            yield name, dtype, example(dtype)


def keep(path, module, given, results):
    module.save(f"{path}.safetensors")
    inputs = {name: None if array is None else array.astype("float64").tolist() for name, array in given.items()}
    Path(f"{path}.json").write_text(json.dumps({**inputs, **{name: array.tolist() for name, array in results.items()}}))


if __name__ == "__main__":
    make(Path(__file__).parent / hr.__version__)
