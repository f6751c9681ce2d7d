"""Fixtures with a cluster of Dask, one for each file of tests that takes a fixture; other files need no Dask."""

import pytest


@pytest.fixture(scope="module")
def client():
    import dask_cases

    with dask_cases.processes() as found:
        yield found


@pytest.fixture(scope="module")
def local_cluster():
    import dask_cases

    with dask_cases.threads() as found:
        yield found
