"""Show what the code of a page prints and draws, below each block.

The blocks of a page are run one after the other by a Python of their own, as a reader would copy them. Printed text
and each new matplotlib figure are put below the block that made them, before Sphinx reads the page. Results lie in
docs/gallery/pages/ and are not kept in the repository; a page that did not change is not run again.

    python docs/page_results.py docs/quickstart.md FOLDER
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from hashlib import sha256
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGES = (
    "index",
    "quickstart",
    "plots",
    "diagnosis",
    "tutorials/table",
    "tutorials/simulator",
    "tutorials/pytorch_model",
    "tutorials/signal",
    "tutorials/unnormalised",
)
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MOST_LINES = 60  # of what a block prints


def blocks(text: str) -> list[str]:
    """The blocks of Python of a page, in order."""
    return [textwrap.dedent(code) for _, code in BLOCK.findall(text)]


def execute(page: Path, folder: Path) -> None:
    """Run a page's blocks in this process; write results.json and the pictures to a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    made: list[Figure] = []  # kept here, because a page gives the same name to several
    begin = Figure.__init__

    def noted(self: Figure, *arguments: Any, **keywords: Any) -> None:
        begin(self, *arguments, **keywords)
        made.append(self)

    Figure.__init__ = noted  # type: ignore[method-assign]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    results = []
    for number, code in enumerate(blocks(page.read_text(encoding="utf-8"))):
        printed, pictures = io.StringIO(), []
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name}, block {number + 1}", "exec"), namespace)
        for i, figure in enumerate(made):
            if figure.axes:
                picture = f"{number}-picture-{i}.png"
                figure.savefig(folder / picture, dpi=100)
                pictures.append(picture)
        made.clear()
        results.append({"printed": printed.getvalue().rstrip(), "pictures": pictures})
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def results_of(page: Path, folder: Path) -> list[dict[str, Any]]:
    """What each block of a page gives: kept results where the page is as it was, else from a new Python."""
    text = page.read_text(encoding="utf-8")
    digest = sha256(text.encode() + Path(__file__).read_bytes()).hexdigest()
    mark = folder / "digest"
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [
            sys.executable,
            "-W",
            "ignore::RuntimeWarning",
            str(Path(__file__).resolve()),
            str(page),
            str(folder),
        ]
        with tempfile.TemporaryDirectory() as elsewhere:  # pages write files
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=elsewhere)
        if done.returncode:
            raise RuntimeError(f"{page}: its code failed with status {done.returncode}:\n{done.stderr}")
        mark.write_text(digest, encoding="utf-8")
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def with_results(text: str, results: list[dict[str, Any]], pictures: str) -> str:
    """A page with results below its blocks.

    Args:
        text: Of the page.
        results: One for each block, as `results_of` gives them.
        pictures: The folder of the pictures, as the page reaches it.

    >>> page = "```python" + chr(10) + "print(1)" + chr(10) + "```"
    >>> print(with_results(page, [{"printed": "1", "pictures": []}], ""))
    ```python
    print(1)
    ```
    <BLANKLINE>
    ```text
    1
    ```
    """
    remaining = iter(results)

    def extended(block: re.Match[str]) -> str:
        result = next(remaining)
        parts = [block[0]]
        if result["printed"]:
            lines = result["printed"].splitlines()
            shown = lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], "..."]
            parts.append("\n".join(["```text", *shown, "```"]))
        for picture in result["pictures"]:
            parts.append(f"```{{image}} {pictures}/{picture}\n:alt: The picture of this code\n:class: on-white\n```")
        return "\n\n".join(textwrap.indent(part, block[1]) if i else part for i, part in enumerate(parts))

    return BLOCK.sub(extended, text)


def add_results(app: Any, name: str, source: list[str]) -> None:
    """The handler of Sphinx's event ``source-read``."""
    if name in PAGES:
        folder = DOCS / "gallery" / "pages" / name
        results = results_of(DOCS / f"{name}.md", folder)
        source[0] = with_results(source[0], results, f"/gallery/pages/{name}")


if __name__ == "__main__":
    execute(Path(sys.argv[1]), Path(sys.argv[2]))
