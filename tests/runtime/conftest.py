import pytest

import runtime_library
from readers import reader, whole_reader  # noqa: F401


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """The header, compiled once."""
    if runtime_library.compiler() is None:
        pytest.skip("no C++ compiler")
    return runtime_library.shared_library(tmp_path_factory)
