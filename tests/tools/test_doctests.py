"""Examples in docstrings give what they show. A module is imported when its test runs, and not by every worker."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "headrace"
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ImportError as error:  # of a framework's modules, which say how it is installed
        pytest.skip(f"could not import {name}: {error}")
    monkeypatch.chdir(tmp_path)
    failed, ran = doctest.testmod(module)
    assert not failed
    assert ran, f"{name} has examples that doctest does not find"


def test_modules_with_examples_are_found():
    assert len(MODULES) > 40
    assert {"headrace._flow.flow", "headrace.ops", "headrace._flow.transforms.masked"} <= set(MODULES)
