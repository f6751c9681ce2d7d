"""Examples in docstrings have the results that they show.

A module is imported when its test runs, and not in every worker of pytest.
"""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "headrace"
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


class Finder(doctest.DocTestFinder):
    """Finds the classes of a module even if their `__module__` is a public module."""

    def _from_module(self, module, object):
        if not inspect.isclass(object):
            return super()._from_module(module, object)
        nodes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
        # Classes of the same name are distinguished by the first lines of their docstrings.
        first = inspect.cleandoc(object.__doc__ or "\n").splitlines()[:1]
        return any(
            node.name == object.__name__ and (ast.get_docstring(node) or "").splitlines()[:1] == first for node in nodes
        )


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ImportError as error:  # a framework is missing; the message names the command that installs it
        pytest.skip(f"could not import {name}: {error}")
    monkeypatch.chdir(tmp_path)
    tests = Finder().find(module, name)
    assert sum(len(test.examples) for test in tests) == inspect.getsource(module).count(">>> "), "examples not found"
    for test in tests:
        assert not doctest.DocTestRunner().run(test).failed


def test_modules_with_examples_are_found():
    assert len(MODULES) > 40
    assert {"headrace._flow.flow", "headrace.ops", "headrace._flow.transforms.masked"} <= set(MODULES)
