"""Scores and samples of arrays and frames of Dask have the bits of a single call."""

import numpy as np
import pytest

import headrace as hr
from dask_cases import CHUNKS, MAKE, context, da, lazy, rows

# Dask and its libraries warn about sockets of killed workers, and about versions.
pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chunks", [CHUNKS, (3, 0, 2990, 7), (1,) * 9 + (2991,)])
def test_scores_have_the_bits_of_one_call(chunks, dtype, local_cluster):
    flow = MAKE["MAF"](dtype)
    x, c = rows(dtype), context()
    found = hr.dask.log_prob(flow, lazy(x, chunks), c)
    assert found.dtype == dtype
    assert found.chunks == (chunks,)
    np.testing.assert_array_equal(local_cluster.compute(found).result(), flow.log_prob(x, c))
    shared = hr.dask.log_prob(flow, da.from_array(x, chunks=(chunks, (2, 1))), c[0])
    np.testing.assert_array_equal(local_cluster.compute(shared).result(), flow.log_prob(x, c[0]))


@pytest.mark.parametrize("n", [1, 5, 7, 8, 9])
def test_scores_of_few_rows(n, local_cluster):
    flow, x = hr.MAF(3, hidden=(8,)), rows()[:n]
    found = local_cluster.compute(hr.dask.log_prob(flow, da.from_array(x, chunks=(2, 3)))).result()
    np.testing.assert_array_equal(found, flow.log_prob(x))


@pytest.mark.parametrize("n", [0, 5, 1000])
def test_samples_have_the_bits_of_one_call(n, local_cluster):
    flow, c = hr.MAF(3, 2, hidden=(8,)), context()[:n]
    found = hr.dask.sample(flow, n, 7, c, chunks=300)
    assert found.shape == (n, 3)
    np.testing.assert_array_equal(local_cluster.compute(found).result(), flow.sample(n, c, 7, first_row=0))
    found = hr.dask.sample(flow, n, 7, c[0] if n else np.zeros(2), chunks=64, dtype="float64")
    want = flow.sample(n, c[0] if n else np.zeros(2), 7, first_row=0, dtype="float64")
    got = local_cluster.compute(found).result()
    assert got.dtype == found.dtype == np.float64
    np.testing.assert_array_equal(got, want)


def test_columns_are_chosen_as_those_of_a_stream():
    """Names of columns may have any type; a name that is given twice is refused."""
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    frame = dd.from_pandas(pd.DataFrame(rows()), npartitions=3)  # the columns are called 0, 1, 2
    flow = hr.MAF(2, 1, hidden=(8,))
    found = hr.dask.log_prob(flow, frame, 2).compute()
    np.testing.assert_array_equal(found.to_numpy(), flow.log_prob(rows()[:, :2], rows()[:, 2:]))
    with pytest.raises(ValueError, match="different columns, got 2 twice"):
        hr.dask.log_prob(flow, frame, 2, columns=[1, 2])
    with pytest.raises(ValueError, match="got 7, which is there 0 times"):
        hr.dask.log_prob(flow, frame, 7)
