import pytest

import c_library


@pytest.fixture(scope="session")
def library():
    """The library libheadrace in the folder of the module."""
    return c_library.Library()
