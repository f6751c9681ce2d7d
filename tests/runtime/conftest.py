import pytest

import runtime_library


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    """The header, compiled once."""
    if runtime_library.compiler() is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("runtime")
    source = runtime_library.ROOT / "tests" / "runtime" / "library.cpp"
    return runtime_library.Library(runtime_library.compile_to(folder / "library.so", source, "-shared", "-fPIC"))
