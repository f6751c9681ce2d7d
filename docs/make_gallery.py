"""Make the gallery: run every example, and write a page for each with its picture, what it printed, and its source.

What needs a framework that is not installed is not run, and its page says so.

    python docs/make_gallery.py

Sphinx runs it too. What it makes lies in docs/gallery/ and is not kept in the repository; an example that did not
change since is not run again. ``sphinx-build -t no_examples`` makes the pages alone, for who looks at the text.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).resolve().parent

INDEX = """# Gallery

Pictures made by the scripts in `examples/` while these pages were built, with what the scripts print. Each runs in
under a minute on two cores.

{grids}
```{{toctree}}
:hidden:

{names}
```
"""

GRID = """::::{{grid}} 1 1 2 2
:gutter: 3

{cards}
::::
"""

CARD = """:::{{grid-item-card}} {title}
:link: {name}
:link-type: doc
{picture}
{subtitle}
:::
"""

PAGE = """# {title}

{subtitle}

{picture}{text}

{printed}

The script, `examples/{name}.py`:

```{{literalinclude}} {source}
:language: python
:start-at: from __future__
```

% made from {digest}
"""

PICTURE = """```{{image}} {name}.png
:alt: {title}
:class: on-white
```

"""

PRINTED = """What it prints:

```text
{printed}
```"""

FRAMEWORKS = ("torch", "jax", "numpyro")


def missing(example: Path) -> str | None:
    """A framework that an example imports and that is not installed."""
    imports = [n for n in ast.walk(ast.parse(example.read_text(encoding="utf-8"))) if isinstance(n, ast.Import)]
    found = {name.name for node in imports for name in node.names}
    return next((name for name in FRAMEWORKS if name in found and find_spec(name) is None), None)


def draws(example: Path) -> bool:
    """Whether an example makes a picture."""
    return "--output" in example.read_text(encoding="utf-8")


def describe(example: Path) -> dict[str, str]:
    """Title and subtitle, which a colon parts, and text of an example, from its docstring."""
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{example.name}: expected a docstring, got none")
    head, _, text = docstring.replace(" (data/README.md)", "").partition("\n")
    title, _, subtitle = head.partition(": ")
    return {"title": title.rstrip("."), "subtitle": subtitle[:1].upper() + subtitle[1:], "text": text.strip()}


# What takes minutes as a reader would run it is made in less for the gallery.
SHORTER = {
    "distillation": {"--steps": 2000, "--samples": 256, "--first-steps": 1000, "--hidden": "64,64", "--epochs": 60}
}


def run(example: Path, picture: Path) -> str:
    """Run an example; gives what it printed but for the line that names the picture."""
    command = [
        sys.executable,
        str(example),
        *(str(word) for pair in SHORTER.get(example.stem, {}).items() for word in pair),
        *(("--output", str(picture)) if draws(example) else ()),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or picture.exists() != draws(example):
        raise RuntimeError(f"{example.name} failed with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return "\n".join(line for line in done.stdout.rstrip().splitlines() if not line.startswith("picture:"))


LEFT_OUT = "(The examples were not run when this page was made.)"


def write(path: Path, text: str) -> None:
    """Write a file unless it has that text already, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def make(docs: Path = DOCS, run: Callable[[Path, Path], str] | None = run) -> None:
    """Bring docs/gallery/ up to date with examples/; `run` None leaves out what they print and draw."""
    examples = sorted((docs.parent / "examples").glob("*.py"))
    folder = docs / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.is_file() and old.stem not in {"index", *(example.stem for example in examples)}:
            old.unlink()
    with_picture, others = [], []  # in grids of their own, so that each is even
    for example in examples:
        name, page = example.stem, folder / f"{example.stem}.md"
        words = {"name": name, **describe(example)}
        absent = missing(example)
        digest = sha256(example.read_bytes() + Path(__file__).read_bytes() + str(absent).encode()).hexdigest()
        if not page.exists() or digest not in page.read_text(encoding="utf-8"):
            printed = f"It needs {absent}, which was not there when these pages were built."
            if absent is None:
                printed = LEFT_OUT if run is None else PRINTED.format(printed=run(example, folder / f"{name}.png"))
            picture = PICTURE.format(**words) if (folder / f"{name}.png").exists() else ""
            words |= {"source": os.path.relpath(example, folder), "digest": "" if run is None else digest}
            page.write_text(PAGE.format(picture=picture, printed=printed, **words), encoding="utf-8")
        picture = f":img-top: {name}.png\n" if (folder / f"{name}.png").exists() else ""
        (with_picture if picture else others).append(CARD.format(picture=picture, **words))
    names = "\n".join(example.stem for example in examples)
    grids = "\n".join(GRID.format(cards="\n".join(cards)) for cards in (with_picture, others) if cards)
    write(folder / "index.md", INDEX.format(grids=grids, names=names))


if __name__ == "__main__":
    make()
