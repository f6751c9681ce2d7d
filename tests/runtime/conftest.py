import pytest

import runtime_library
from readers import reader, whole_reader  # noqa: F401


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """The header, compiled once."""
    if runtime_library.compiler() is None:
        pytest.skip("no C++ compiler")
    source = runtime_library.ROOT / "tests" / "runtime" / "library.cpp"
    built = runtime_library.compiled_once(tmp_path_factory, "library.so", source, "-shared", "-fPIC")
    return runtime_library.Library(built)
