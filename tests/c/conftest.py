import pytest

import c_library


@pytest.fixture(scope="session")
def library():
    """The libheadrace beside the module."""
    return c_library.Library()
