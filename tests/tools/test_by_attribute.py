"""Modules that need another package are attributes of headrace; an error names the command that installs it."""

import importlib.util
import subprocess
import sys

import pytest

MODULES = {
    "torch": ("torch", "FlowModule"),
    "sklearn": ("sklearn", "FlowDensity"),
    "jax": ("jax", "FlowModule"),
    "continuum": ("scipy", "Grid"),
    "convert": (None, "from_zuko"),
    "dask": (None, "fit"),
    "distributed": (None, "local"),
    "plot": (None, "corner"),
}


def after_import_of_headrace(code):
    """Run code in a new Python process that has imported only headrace."""
    command = [sys.executable, "-c", f"import sys, headrace as hr\n{code}"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", MODULES)
def test_modules_load_by_attribute(name):
    package, member = MODULES[name]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    code = (
        f"assert 'headrace.{name}' not in sys.modules; assert callable(hr.{name}.{member}); print(hr.{name}.__name__)"
    )
    done = after_import_of_headrace(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"headrace.{name}\n", "")


@pytest.mark.parametrize("name", [name for name, (package, _) in MODULES.items() if package])
def test_without_the_package_the_command_that_installs_it_is_named(name):
    """Both the access to the attribute and the import of the module raise an error if the package is missing."""
    package, member = MODULES[name]
    code = f"""
import importlib
sys.modules[{package!r}] = None
for load in (lambda: hr.{name}.{member}, lambda: importlib.import_module("headrace.{name}")):
    try:
        load()
    except ImportError as error:
        print(error)
"""
    done = after_import_of_headrace(code)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith(f"headrace.{name} needs ")
    assert f'pip install ".[{name}]"' in first


def test_other_attributes_are_errors_of_attributes():
    done = after_import_of_headrace("print(hasattr(hr, 'tensorflow'))\nhr.tensorflow")
    assert done.stdout == "False\n"
    assert done.stderr.endswith("AttributeError: module 'headrace' has no attribute 'tensorflow'\n")
