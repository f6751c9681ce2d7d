"""Clusters of Dask, one for each file that asks for one; only such a file needs Dask."""

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
