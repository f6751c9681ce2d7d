from pathlib import Path

import pytest

import runtime_library
import web_runtime
from readers import reader, whole_reader  # noqa: F401


def pytest_collection_modifyitems(config, items):
    """Run only tests of the header's results where the header is compiled to WebAssembly."""
    if not web_runtime.compiler():
        return
    here = Path(__file__).parent
    others = [item for item in items if here in item.path.parents and "runtime" not in item.fixturenames]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """The functions of the header, compiled once."""
    if runtime_library.compiler() is None and not web_runtime.compiler():
        pytest.skip("no C++ compiler")
    return runtime_library.shared_library(tmp_path_factory)
