"""Make the gallery: run examples, and write a page for each with its picture, what it printed, and its source.

    python docs/make_gallery.py             # those that changed since their page was made
    python docs/make_gallery.py examples/energies.py    # these

Pages and pictures lie in docs/gallery/ and are kept in the repository, so that the documentation is built without any
run. An example that needs a framework that is not installed keeps its page. A test fails where a page is older than
its example.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent

THEMES = {
    "Stars and showers": (
        "fit_density",
        "score_and_sample",
        "conditional_density",
        "anomaly_scores",
        "missing_columns",
    ),
    "Posteriors": (
        "simulation_based_inference",
        "two_moons_posterior",
        "embedded_posterior",
        "vae_posteriors",
        "neutra",
    ),
    "Whether to trust a fit": ("diagnosis", "ensemble_spread", "few_rows", "choosing"),
    "Bounds, angles, separate modes": ("bounded_and_periodic", "separate_modes"),
    "Densities without samples": ("energies", "distillation"),
    "Dual ascent": ("dual_ascent", "continuous_flow"),
    "Signals": ("speech", "seismometer", "returns"),
    "Arrays": ("frameworks_without_copies",),
}
PANEL = {"fit_density": 2, "score_and_sample": 1, "continuous_flow": 2, "dual_ascent": 1, "choosing": 1}
"""The axes of a figure that stand for it in the list, where they are not the first."""

THUMBNAIL = (260, 200)  # pixels at most
COLOURS = 96  # of a picture: a file of a third of the size

INDEX = """# Gallery

Scripts of `examples/` with their pictures and outputs. All but two run in under a minute on two cores.

{themes}

```{{toctree}}
:hidden:

{names}
```
"""

PAGE = """# {title}

{sentence}

{picture}{text}

{printed}[examples/{name}.py](../../examples/{name}.py):

```{{literalinclude}} ../../examples/{name}.py
:language: python
:start-at: from __future__
```

% made from {digest}
"""

PRINTED = """Output (the last digits depend on the processor):

```text
{printed}
```

"""

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
    """Title, a sentence and text of an example, from its docstring: the sentence is what follows a colon in the title.

    Where no colon is, the sentence is the first of the text.
    """
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{example.name}: expected a docstring, got none")
    head, _, text = re.sub(r"\s*\(data/README\.md\)", "", docstring).partition("\n")
    title, _, sentence = head.partition(": ")
    if not sentence:
        sentence, *rest = re.split(r"(?<=\.)\s+", text.strip(), maxsplit=1)
        sentence, text = " ".join(sentence.split()), "".join(rest)
    text = text.strip()
    return {"title": title.rstrip("."), "sentence": sentence[:1].upper() + sentence[1:], "text": text}


# What takes minutes as a reader would run it is made in less for the gallery.
SHORTER = {
    "distillation": {"--steps": 2000, "--samples": 256, "--first-steps": 1000, "--hidden": "64,64", "--epochs": 60}
}


def run(example: Path, picture: Path) -> str:
    """Run an example; gives what it printed but for the line that names the picture."""
    command = [
        sys.executable,
        __file__,
        "--draw",
        str(example),
        *(str(word) for pair in SHORTER.get(example.stem, {}).items() for word in pair),
        *(("--output", str(picture)) if draws(example) else ()),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or picture.exists() != draws(example):
        raise RuntimeError(f"{example.name} failed with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return "\n".join(line for line in done.stdout.rstrip().splitlines() if not line.startswith("picture:"))


def draw_small(example: Path, arguments: Sequence[str]) -> None:
    """Run an example in this process; its picture has few colours, and one panel of it is kept beside."""
    output = Path(arguments[arguments.index("--output") + 1]) if "--output" in arguments else None
    if output is not None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure

        save = Figure.savefig

        def saved(self: Figure, path: Any, **keywords: Any) -> None:
            save(self, path, **{**keywords, "dpi": 90})
            axis = self.axes[PANEL.get(example.stem, 0)]
            box = axis.get_tightbbox()
            small = output.with_name(f"{output.stem}-panel.png")
            save(self, small, dpi=90, bbox_inches=box.transformed(self.dpi_scale_trans.inverted()).padded(0.05))
            shrink(small, THUMBNAIL)

        Figure.savefig = saved  # type: ignore[assignment, method-assign]
    sys.argv = [str(example), *arguments]
    try:
        runpy.run_path(str(example), run_name="__main__")
    finally:
        if output is not None and output.exists():
            shrink(output)


def shrink(path: Path, size: tuple[int, int] | None = None) -> None:
    """Reduce a picture to a few colours, and to a size in pixels."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
    if size is not None:
        small.thumbnail(size, Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def digest_of(example: Path) -> str:
    """The digest of an example, which its page records."""
    return sha256(example.read_bytes()).hexdigest()[:16]


def is_fresh(example: Path, docs: Path = DOCS) -> bool:
    """Whether the page of an example was made from its present source."""
    page = docs / "gallery" / f"{example.stem}.md"
    return page.exists() and f"made from {digest_of(example)}\n" in page.read_text(encoding="utf-8")


def index(examples: Sequence[Path], folder: Path, themes: dict[str, tuple[str, ...]] | None = None) -> str:
    """The list of all examples by theme, each with a panel of its picture and a sentence."""
    themes = THEMES if themes is None else themes
    words = {example.stem: describe(example) for example in examples}
    listed = [name for names in themes.values() for name in names]
    if sorted(listed) != sorted(words):
        raise ValueError(f"THEMES: expected each example once, got {sorted(set(listed) ^ set(words))} in one of both")
    parts = []
    for theme, names in themes.items():
        rows = ["| | |", "| --- | --- |"]
        for name in names:
            title, sentence = words[name]["title"], words[name]["sentence"]
            panel = f"{name}-panel.png"
            shown = f"[![{title}]({panel})]({name}.md)" if (folder / panel).exists() else ""
            rows.append(f"| {shown} | **[{title}]({name}.md)**<br>{sentence} |")
        parts.append("\n".join([f"## {theme}", "", *rows]))
    return INDEX.format(themes="\n\n".join(parts), names="\n".join(listed))


def make(
    docs: Path = DOCS,
    run: Callable[[Path, Path], str] = run,
    names: Sequence[str] = (),
    themes: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """Bring docs/gallery/ up to date with examples/, `names` in any case."""
    examples = sorted((docs.parent / "examples").glob("*.py"))
    folder = docs / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.stem.removesuffix("-panel") not in {"index", *(example.stem for example in examples)}:
            old.unlink()
    failed = []
    for example in examples:
        name, absent = example.stem, missing(example)
        if (is_fresh(example, docs) and name not in names) or (names and name not in names):
            continue
        if absent is not None:
            print(f"{name}: kept, because it needs {absent}")
            continue
        for picture in (f"{name}.png", f"{name}-panel.png"):
            (folder / picture).unlink(missing_ok=True)
        words = {"name": name, **describe(example), "printed": "", "picture": ""}
        try:
            printed = run(example, folder / f"{name}.png")
        except RuntimeError as error:
            failed.append(error)
            continue
        if printed:
            words["printed"] = PRINTED.format(printed=printed)
        if (folder / f"{name}.png").exists():
            words["picture"] = f"![{words['title']}]({name}.png)\n\n"
        (folder / f"{name}.md").write_text(PAGE.format(digest=digest_of(example), **words), encoding="utf-8")
        print(f"{name}: made", flush=True)
    (folder / "index.md").write_text(index(examples, folder, themes), encoding="utf-8")
    if failed:
        raise RuntimeError("\n\n".join(map(str, failed)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--draw"]:
        draw_small(Path(sys.argv[2]), sys.argv[3:])
    else:
        make(names=[Path(name).stem for name in sys.argv[1:]])
