"""A framework that is too old is refused by name, with the remedy, before a function of it is used."""

import importlib
import subprocess
import sys

import pytest

from headrace._base import arguments as check


@pytest.mark.parametrize("found", ["2.4.1", "1.13.0+cpu", "0.9"])
def test_old_versions_are_refused(found):
    with pytest.raises(ImportError, match=r'torch: expected version 2\.5 or newer, got .*pip install "torch>=2\.5"'):
        check.framework("torch", found, (2, 5))


@pytest.mark.parametrize("found", ["2.5.0", "2.13.0+cpu", "3.0", "2.5rc1", "2.5.0a0+git1"])
def test_new_versions_are_accepted(found):
    check.framework("torch", found, (2, 5))


@pytest.mark.programs
@pytest.mark.parametrize(("name", "old"), [("torch", "2.4.1"), ("jax", "0.4.38")])
def test_importing_checks(name, old):
    pytest.importorskip(name, reason=f"{name} is not installed")
    assert importlib.import_module(f"headrace.{name}")
    code = f"import {name}; {name}.__version__ = {old!r}; import headrace.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    assert f"ImportError: {name}: expected version" in done.stderr
