import pytest

import c_library


@pytest.fixture(scope="session")
def library():
    """libheadrace, as it is beside the module."""
    return c_library.Library()
