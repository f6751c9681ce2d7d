"""Writes tests/files/<version>/: a file of each kind as this version writes it, and what it makes of some rows.

Run once for a version, and keep what it wrote:

    PYTHONPATH=tests:tests/support:tests/support/cases python tests/files/make.py

What a version wrote is never written again. It is what people have on their disks.
"""

import json
import sys
from pathlib import Path

import file_cases
import headrace as hr


def make(folder):
    """Every example in both dtypes; rows and results beside them."""
    folder.mkdir()
    for name, example in file_cases.EXAMPLES.items():
        for dtype in ("float32", "float64"):
            module = example(dtype)
            module.save(folder / f"{name}-{dtype}.safetensors")
            x, context = file_cases.inputs_of(module)
            expected = {
                "x": x.astype("float64").tolist(),
                "context": None if context is None else context.astype("float64").tolist(),
                **{key: array.tolist() for key, array in file_cases.results_of(module, x, context).items()},
            }
            (folder / f"{name}-{dtype}.json").write_text(json.dumps(expected))
    print(f"{folder}: {len(list(folder.iterdir()))} files", file=sys.stderr)


if __name__ == "__main__":
    make(Path(__file__).parent / hr.__version__)
