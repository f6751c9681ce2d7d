"""The Python code of README and of the documentation's pages runs as a reader would copy it, page by page."""

import ast
import builtins
import re
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

import cuda_arrays
import headrace as hr

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
OURS = (ROOT, ROOT / "tests", SUPPORT, SUPPORT / "cases", SUPPORT / "fakes")  # where a reader has nothing
PAGES = [page for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))] if "gallery" not in page.parts]

# A page that imports one of these is only read without it.
OPTIONAL = {"torch", "jax", "pandas", "sklearn", "scipy", "zuko", "nflows", "sbi", "pocomc", "nessai", "numpyro"}
OPTIONAL |= {"aspire", "dask", "pymc"}


def blocks(page):
    """The fenced blocks of Python, in order, those inside of lists too."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


WITH_CODE = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if blocks(page)]


def imported(code):
    """The packages that a page imports, anywhere."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def bound(tree):
    """Every name that code gives a value to, functions and their arguments included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (name.asname or name.name.split(".")[0] for name in node.names)


def names_without_a_value(codes):
    """What the blocks use before any of them gave it a value."""
    known = set(vars(builtins))
    for code in codes:
        tree = ast.parse(code)
        known |= set(bound(tree))
        yield from (n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id not in known)


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # as a reader would run it
@pytest.mark.parametrize("page", WITH_CODE)
def test_python_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, one after the other, in an empty folder, with nothing imported and no repository.

    An ascent's joint training is shorter than a reader's.
    """
    codes = blocks(page)
    needed = set(imported("\n".join(codes)))
    missing = sorted(name for name in needed & OPTIONAL if find_spec(name) is None)
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    if "cupy" in needed:
        cuda_arrays.load("gpu")  # skips, with the reason, where there is no device
    monkeypatch.setattr("headrace.ascent.contest.REFINE_STEPS", 200)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p or ".").resolve() not in OURS])
    names = {"__name__": "__main__"}
    for i, code in enumerate(codes):
        exec(compile(code, f"{page.name}, python block {i}", "exec"), names)


@pytest.mark.parametrize("page", WITH_CODE)
def test_python_can_be_read(page):
    """What is not run everywhere, as it needs a card or a package, compiles at least and uses names that are there."""
    codes = blocks(page)
    assert not list(names_without_a_value(codes))
    for node in ast.walk(ast.parse("\n".join(codes))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hr":
            absent = node.attr in OPTIONAL and find_spec(node.attr) is None  # headrace.jax, without JAX
            assert absent or hasattr(hr, node.attr), f"hr.{node.attr}"
    assert not {"bench", "tests"} & set(imported("\n".join(codes))), "not part of the package"


def test_names_without_a_value_are_found():
    assert list(names_without_a_value(["import numpy as np\nx = np.ones(3)", "y = x + z"])) == ["z"]
    assert list(names_without_a_value(["flow.save('a')", "flow = 1"])) == ["flow"]
    assert not list(names_without_a_value(["def f(a):\n    return print(a)", "f(1)"]))
