"""Make the API's pages, one for each class, function and module that a directive of docs/api.md names.

Sphinx calls it. The pages lie in docs/api/ and are not kept in the repository; each has the help with types, a table
of the methods of a class, and the examples that use it. In docs/api.md itself the directives become tables of links.

    python docs/make_api.py SITE    # checks a built site: no private names, no page of more than MOST_WORDS words
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
MOST_WORDS = 6000
WITHOUT = "Its library was not there when these pages were built: ``help`` has it."
BLOCK = re.compile(r"^```\{eval-rst\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRIVATE = re.compile(r"(?<![\w.])(?:\w+\.)*_[a-z]\w*")


@dataclass
class Entry:
    """A directive of docs/api.md."""

    kind: str
    """Such as "autoclass"."""
    name: str
    """With its module, such as "headrace.NSF"."""
    signature: str
    """What stands behind the name, in brackets."""
    module: str
    options: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name as code writes it: ``hr.NSF``, or the module's name where it is imported by itself."""
        own = ("headrace.torch", "headrace.jax", "headrace.sklearn", "headrace.convert", "headrace.integrations")
        return self.name if self.name.startswith(own) else re.sub(r"^headrace\b", "hr", self.name)

    @property
    def page(self) -> str:
        """The file's name without its suffix."""
        return self.title.removeprefix("hr.").removeprefix("headrace.")

    @property
    def object(self) -> Any:
        """The described object; None where it needs a library that is not installed."""
        try:
            if self.kind == "automodule":
                return importlib.import_module(self.name)
            place, _, last = self.name.rpartition(".")
            return getattr(importlib.import_module(place), last)
        except ImportError:
            return None


def entries(text: str) -> Iterator[tuple[re.Match[str], list[Entry]]]:
    """The blocks of docs/api.md, each with its directives."""
    module = "headrace"
    for block in BLOCK.finditer(text):
        found: list[Entry] = []
        for line in block[1].splitlines():
            directive = re.match(r"\.\. (auto\w+|currentmodule):: ([\w.]+)(\(.*\))?$", line)
            if directive is None:
                if line.strip():
                    found[-1].options.append(line.strip())
            elif directive[1] == "currentmodule":
                module = directive[2]
            else:
                name = directive[2] if directive[2].startswith("headrace") else f"{module}.{directive[2]}"
                found.append(Entry(directive[1], name, directive[3] or "", module))
        yield block, found


def sentence(thing: Any) -> str:
    """The first sentence of the help of an object, as reStructuredText."""
    if thing is None:
        return WITHOUT
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def methods(cls: type) -> Iterator[tuple[str, str]]:
    """Names and sentences of the public methods and properties of a class."""
    for name in dir(cls):
        thing = inspect.getattr_static(cls, name)
        owner = next((base for base in cls.__mro__ if name in vars(base)), object)
        if name.startswith("_") or owner.__module__.partition(".")[0] != "headrace":
            continue
        thing = getattr(thing, "__func__", thing)
        if (callable(thing) or isinstance(thing, property)) and (text := sentence(thing)):
            yield name, text


def table(rows: list[tuple[str, str]]) -> list[str]:
    """A table of two columns, as reStructuredText."""
    lines = [".. list-table::", "   :widths: 30 70", "   :class: methods", ""]
    for left, right in rows:
        lines += [f"   * - {left}", f"     - {right}"]
    return [*lines, ""]


def used_in(entry: Entry, sources: dict[str, tuple[str, str]]) -> list[str]:
    """Links to the pages whose code uses a name."""
    last = entry.title.removeprefix("hr.")
    name = re.compile(
        rf"\b(?:hr|headrace)\.{re.escape(last.removeprefix('headrace.'))}\b|\bimport .*\b{last.rpartition('.')[2]}\b"
    )
    return [f":doc:`{title} <{page}>`" for page, (title, code) in sources.items() if name.search(code)]


def sources(docs: Path) -> dict[str, tuple[str, str]]:
    """Title and code of the pages of the gallery, of tutorials and of the quick start."""
    found = {}
    for example in sorted((docs.parent / "examples").glob("*.py")):
        text = example.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].partition(":")[0].rstrip(".")
        found[f"/gallery/{example.stem}"] = (title.replace(" (data/README.md)", ""), text)
    for page in [docs / "quickstart.md", *sorted((docs / "tutorials").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"^ *```python\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL))
        found["/" + page.relative_to(docs).with_suffix("").as_posix()] = (text.partition("\n")[0].lstrip("# "), code)
    return found


def page_of(entry: Entry, known: dict[str, tuple[str, str]]) -> str:
    """The page of a class, a function or a module."""
    thing = entry.object
    lines = [entry.title, "=" * len(entry.title), "", f".. currentmodule:: {entry.module}", ""]
    help_of = [f".. {entry.kind}:: {entry.name}{entry.signature}", *(f"   {option}" for option in entry.options), ""]
    if thing is None:
        lines += [WITHOUT, ""]
    elif inspect.isclass(thing) and not issubclass(thing, BaseException):
        rows = [(f":py:obj:`{name} <{entry.name}.{name}>`", text) for name, text in methods(thing)]
        if ":no-members:" in entry.options:
            owner = next(base.__name__ for base in thing.__mro__ if base.__name__ in ("Flow", "SequenceFlow"))
            rows = [(left.replace(f"<{entry.name}.", f"<headrace.{owner}."), text) for left, text in rows]
            lines += [*help_of, ".. rubric:: Methods", "", *table(rows)]
        else:
            lines += [".. rubric:: Methods and properties", "", *(table(rows) if rows else []), *help_of]
            if not rows:
                lines.remove(".. rubric:: Methods and properties")
    elif inspect.ismodule(thing):
        names = next((o.partition(": ")[2] for o in entry.options if o.startswith(":members: ")), "")
        public = names.split(", ") if names else getattr(thing, "__all__", [])
        rows = [(f":py:obj:`{name} <{entry.name}.{name}>`", sentence(getattr(thing, name))) for name in public]
        lines += [*table(rows), *help_of]
    else:
        lines += help_of
    if links := used_in(entry, known):
        lines += [".. rubric:: Examples that use it", "", *(f"- {link}" for link in links), ""]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Write a file unless it has that text already, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def make(docs: Path = DOCS) -> None:
    """Write the pages, and remove those that docs/api.md no longer names."""
    folder = docs / "api"
    folder.mkdir(exist_ok=True)
    known, made = sources(docs), {}
    for _, group in entries((docs / "api.md").read_text(encoding="utf-8")):
        for entry in group:
            if entry.page in made:
                raise ValueError(f"{entry.title} and {made[entry.page]}: expected different names of pages")
            made[entry.page] = entry.title
            write(folder / f"{entry.page}.rst", page_of(entry, known))
    for old in folder.glob("*.rst"):
        if old.stem not in made:
            old.unlink()


def with_tables(text: str) -> str:
    """docs/api.md with a table of links instead of each block of directives."""
    pages = []
    for block, group in list(entries(text)):
        rows = [(f":doc:`{entry.title} <api/{entry.page}>`", sentence(entry.object)) for entry in group]
        pages += [entry.page for entry in group]
        text = text.replace(block[0], "\n".join(["```{eval-rst}", *table(rows), "```"]) if rows else "", 1)
    listed = "\n".join(f"api/{page}" for page in pages)
    return f"{text}\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def add_tables(app: Sphinx, name: str, source: list[str]) -> None:
    """The handler of Sphinx's event ``source-read``."""
    if name == "api":
        source[0] = with_tables(source[0])


def wrong(site: Path) -> list[str]:
    """A line for each private name that the built pages show as code, and for each page that is too long."""
    problems, pages = [], sorted((site / "api").glob("*.html"))
    for page in pages:
        article = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
        text = article[0] if article else ""
        code = re.sub(r"<[^>]*>", "", " ".join(re.findall(r"<code.*?</code>|<dt.*?</dt>", text, re.DOTALL)))
        problems += [f"{page.name}: {name}: a private name" for name in sorted(set(PRIVATE.findall(unescape(code))))]
        words = len(re.sub(r"<[^>]*>", " ", text).split())
        if words > MOST_WORDS:
            problems.append(f"{page.name}: expected at most {MOST_WORDS} words, got {words}")
    return problems if pages else [f"{site}: expected pages of the API, found none"]


if __name__ == "__main__":
    problems = wrong(Path(sys.argv[1]))
    print("\n".join(problems) if problems else "the API has no private names and no long pages")
    sys.exit(bool(problems))
