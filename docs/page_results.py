"""Write what the code of a page prints and draws below each block of it.

    python docs/page_results.py                   # pages whose code changed since
    python docs/page_results.py quickstart        # these; --all for all

The blocks of a page are run one after the other by a Python process of their own, as a reader would copy them. Printed
text and each new matplotlib figure are written into the page itself, between two comments, so that a code host shows
them, too, and the documentation is built without any run. Numbers differ by processor in their last digits. A test
fails where the code of a page is newer than its results.
"""

from __future__ import annotations

import base64
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
NOTEBOOKS = ("tutorials/simulator",)
"""Pages that are written as notebooks, too."""

PICTURES = "images/pages"
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
RESULT = re.compile(r"\n\n *<!-- result -->.*?<!-- end of the result -->", re.DOTALL)
DIGEST = re.compile(r"\n<!-- results of ([0-9a-f]+) -->\n$")
MOST_LINES = 60  # of what a block prints
DPI = 80


def blocks(text: str) -> list[str]:
    """The blocks of Python of a page, in order."""
    return [textwrap.dedent(code) for _, code in BLOCK.findall(text)]


def digest_of(text: str) -> str:
    """The digest of a page's code, which the page records."""
    return sha256("\n".join(blocks(text)).encode()).hexdigest()[:16]


def is_fresh(text: str) -> bool:
    """Whether a page shows the results of its present code."""
    kept = DIGEST.search(text)
    return kept is not None and kept[1] == digest_of(text)


def execute(page: Path, folder: Path) -> None:
    """Run a page's blocks in this process; write results.json and the pictures to a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from make_gallery import shrink
    from matplotlib.figure import Figure

    made: list[Figure] = []  # a list, because a page gives the same name to several figures
    begin = Figure.__init__

    def noted(self: Figure, *arguments: Any, **keywords: Any) -> None:
        begin(self, *arguments, **keywords)
        made.append(self)

    save = Figure.savefig

    def saved(self: Figure, *arguments: Any, **keywords: Any) -> None:
        save(self, *arguments, **keywords)
        if keywords.get("format") == "svg" and self in made:
            made.remove(self)  # a part of a page of HTML

    Figure.__init__ = noted  # type: ignore[method-assign]
    Figure.savefig = saved  # type: ignore[assignment, method-assign]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    results = []
    for number, code in enumerate(blocks(page.read_text(encoding="utf-8"))):
        printed, pictures = io.StringIO(), []
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name}, block {number + 1}", "exec"), namespace)
        for i, figure in enumerate(made):
            if figure.axes:
                picture = f"{page.stem}-{number}-{i}.png"
                save(figure, folder / picture, dpi=DPI)
                shrink(folder / picture)
                pictures.append(picture)
        made.clear()
        results.append({"printed": printed.getvalue().rstrip(), "pictures": pictures})
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def results_of(page: Path, folder: Path) -> list[dict[str, Any]]:
    """Run a page in a new Python, and return what each block prints and draws; pictures are in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = str(Path(__file__).resolve())
    command = [sys.executable, "-W", "ignore::RuntimeWarning", script, "--run", str(page.resolve()), str(folder)]
    with tempfile.TemporaryDirectory() as elsewhere:  # pages write files
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=elsewhere)
    if done.returncode:
        raise RuntimeError(f"{page}: its code failed with status {done.returncode}:\n{done.stderr}")
    results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (folder / "results.json").unlink()
    return results


def without_results(text: str) -> str:
    """A page without results, as its author wrote it."""
    return DIGEST.sub("", RESULT.sub("", text))


def with_results(text: str, results: list[dict[str, Any]], pictures: str) -> str:
    """A page with new results below its blocks, in place of old ones.

    Args:
        text: The page's text.
        results: A result for each block, as `results_of` returns them.
        pictures: The folder of the pictures, relative to the page.

    >>> page = "```python" + chr(10) + "print(1)" + chr(10) + "```" + chr(10)
    >>> shown = with_results(page, [{"printed": "1", "pictures": []}], "")
    >>> print(shown[:-40])
    ```python
    print(1)
    ```
    <BLANKLINE>
    <!-- result -->
    <BLANKLINE>
    ```text
    1
    ```
    <BLANKLINE>
    <!-- end of the result -->
    <BLANKLINE>
    >>> without_results(shown) == page, is_fresh(shown)
    (True, True)
    """
    remaining = iter(results)

    def extended(block: re.Match[str]) -> str:
        result = next(remaining)
        parts = []
        if result["printed"]:
            lines = [line.rstrip() for line in result["printed"].splitlines()]
            shown = lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], "..."]
            parts.append("\n".join(["```text", *shown, "```"]))
        parts += [f"![The picture of this code]({pictures}/{picture})" for picture in result["pictures"]]
        if not parts:
            return block[0]
        parts = ["<!-- result -->", *parts, "<!-- end of the result -->"]
        return "\n\n".join([block[0], *(textwrap.indent(part, block[1]) for part in parts)])

    text = without_results(text)
    return BLOCK.sub(extended, text) + f"\n<!-- results of {digest_of(text)} -->\n"


def notebook(text: str, pictures: Path) -> str:
    """A page as a notebook, with the results that the page contains.

    Args:
        text: The page's text.
        pictures: The folder of the page's pictures.
    """
    cells: list[dict[str, Any]] = []
    text, end = DIGEST.sub("\n", text), 0
    pattern = re.compile(rf"{BLOCK.pattern}({RESULT.pattern})?", re.MULTILINE | re.DOTALL)
    for found in [*pattern.finditer(text), None]:
        words = text[end : found.start() if found else None].strip()
        # Links lead to pages, which lie beside the notebook.
        words = re.sub(r" \[The same as a notebook\]\(\S+\)\.", "", words)
        if words:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": words})
        if found is not None:
            shown = found[3] or ""
            outputs: list[dict[str, Any]] = [
                {"name": "stdout", "output_type": "stream", "text": printed}
                for printed in re.findall(r"```text\n(.*?)```", shown, re.DOTALL)
            ]
            for name in re.findall(r"!\[[^\]]*\]\(\S*?([^/)]+\.png)\)", shown):
                png = base64.b64encode((pictures / name).read_bytes()).decode()
                outputs.append({"data": {"image/png": png}, "metadata": {}, "output_type": "display_data"})
            code = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": outputs}
            cells.append({**code, "source": textwrap.dedent(found[2]).rstrip()})
            end = found.end()
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def renew(name: str) -> None:
    """Run the code of a page, and write its results into it."""
    page, folder = DOCS / f"{name}.md", DOCS / PICTURES
    for old in folder.glob(f"{page.stem}-*.png"):
        old.unlink()
    results = results_of(page, folder)
    text = page.read_text(encoding="utf-8")
    page.write_text(with_results(text, results, os.path.relpath(folder, page.parent)), encoding="utf-8")
    if name in NOTEBOOKS:
        made = notebook(page.read_text(encoding="utf-8"), folder)
        page.with_suffix(".ipynb").write_text(made, encoding="utf-8")
    print(f"{name}: written", flush=True)


def main(arguments: list[str]) -> None:
    """Renew the pages that the command line names, or else those whose code has changed."""
    if arguments[:1] == ["--run"]:
        execute(Path(arguments[1]), Path(arguments[2]))
        return
    names = PAGES if arguments in ([], ["--all"]) else arguments
    for name in names:
        if arguments or not is_fresh((DOCS / f"{name}.md").read_text(encoding="utf-8")):
            renew(name)


if __name__ == "__main__":
    main(sys.argv[1:])
