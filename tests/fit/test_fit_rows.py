"""Rows of a fit: how they are split and shuffled, their moments, warnings about their columns, and their memory."""

import os
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from fitting import QUIET, SHORT, gaussian, small
from headrace._arrays import row_parts
from headrace._arrays.caller import Caller
from headrace._arrays.row_parts import RowPart
from headrace._fit.given_rows import Data
from headrace._fit.source import ArrayRows

# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "held"), [(2, 1), (8, 4), (10, 9), (11, 7), (1000, 100), (1001, 37), (999, 998), (70000, 7000)]
)
def test_rows_held_out_and_rows_left_are_all_rows_once(rows, held):
    left, out = RowPart(rows, held, 17).all(), RowPart(rows, held, 17, out=True).all()
    assert (len(left), len(out)) == (rows - held, held)
    assert_array_equal(np.sort(np.concatenate([left, out])), np.arange(rows))
    assert (np.diff(left) > 0).all()
    assert (np.diff(out) > 0).all()


@pytest.mark.parametrize(
    ("rows", "share", "held"), [(1, 0.1, 0), (2, 0.1, 1), (4, 0.5, 2), (4, 0.99, 3), (4, 0, 0), (30, 0.1, 3)]
)
def test_a_share_holds_out_at_least_a_row_and_leaves_one(rows, share, held):
    """A share that rounds to zero rows holds out one of two or more rows; a share of 0 holds out none."""
    data = Data(np.zeros((rows, 1)), None, None)
    left, out = ArrayRows(data).split(share, np.random.default_rng(0), Caller())
    assert left.size == rows - held
    assert (out is None) == (held == 0)
    if out is not None:
        assert out.data is data
        assert_array_equal(np.sort(np.concatenate([left.part.all(), out.part.all()])), np.arange(rows))
        assert out.size == held


def test_every_row_is_held_out_as_often():
    """In 4000 splits that hold out 4 of 20 rows, each row is held out in a fifth of them, within five deviations."""
    times = np.zeros(20)
    for key in range(4000):
        times[RowPart(20, 4, key * 7919, out=True).all()] += 1
    assert abs(times - 800).max() < 5 * np.sqrt(4000 * 0.2 * 0.8)


def test_indices_of_a_huge_table_stay_within_64_bits():
    """Products of row indices and counts of rows do not overflow."""
    part = RowPart(1 << 32, 1 << 28, 5)
    rows = part.at(np.array([0, part.size - 1]))
    assert rows[0] in (0, 1)
    assert rows[1] in ((1 << 32) - 1, (1 << 32) - 2)


@pytest.mark.parametrize("rows", [1, 5, 3000, 20_001])
def test_an_order_has_every_row_once(rows, monkeypatch):
    monkeypatch.setattr(row_parts, "POOL", 4096)
    monkeypatch.setattr(row_parts, "BLOCK", 64)
    part = RowPart(rows)
    orders = [np.concatenate(list(part.shuffled(np.random.default_rng(seed)))) for seed in (0, 1)]
    for order in orders:
        assert_array_equal(np.sort(order), np.arange(rows))
    if rows > 5:
        assert (orders[0] != orders[1]).mean() > 0.9


def test_an_order_of_a_large_table_reads_few_blocks_at_a_time(monkeypatch):
    """A table that is larger than memory is read in whole blocks."""
    monkeypatch.setattr(row_parts, "POOL", 4096)
    monkeypatch.setattr(row_parts, "BLOCK", 64)
    pools = list(RowPart(50_000).shuffled(np.random.default_rng(0)))
    assert max(pool.size for pool in pools) <= 4096
    for pool in pools[:-1]:
        assert len(np.unique(pool // 64)) == 4096 // 64
        assert np.ptp(pool) > 25_000  # the blocks of a pool come from all over the table


def test_batches_do_not_depend_on_pools(monkeypatch):
    x = gaussian(3000)
    found = []
    for pool, block in ((1 << 18, 1 << 10), (512, 16)):
        monkeypatch.setattr(row_parts, "POOL", pool)
        monkeypatch.setattr(row_parts, "BLOCK", block)
        flow = small("float64")
        history = flow.fit(x, epochs=2, batch_size=700, learning_rate=1e-3, weight_decay=None, **QUIET)
        found.append(history.train_loss)
    assert_allclose(found[0], found[1], rtol=0.02)


# --- moments and columns ----------------------------------------------------------------------------------------------


def moments_of(x, weights=None):
    return ArrayRows(Data(x, None, weights)).moments()


@pytest.mark.parametrize("scale", [1e-200, 1e-162, 1e-30, 1.0, 1e154, 1e200, 1e300])
def test_deviations_of_any_size(scale):
    """Moments are right for values whose squares overflow or underflow float64."""
    x = scale * cases.rows(500, 3, "float64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, std = moments_of(x)
    assert_allclose(mean / scale, (x / scale).mean(axis=0), rtol=1e-9, atol=1e-12)
    assert_allclose(std / scale, (x / scale).std(axis=0), rtol=1e-12)


def test_a_column_over_all_of_float64():
    x = np.array([[-1.7e308], [1.7e308]])
    mean, std = moments_of(x)
    assert_allclose((mean[0], std[0]), (0.0, 1.7e308))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_fit_of_deviations_of_any_size(scale):
    x = 3.0 * scale + scale * cases.rows(300, 2, "float64")
    flow = hr.MAF(2, transforms=1, hidden=(8,), dtype="float64")
    flow.fit(x, **SHORT)
    assert_allclose(flow.transforms[-1].std / scale, (x / scale).std(axis=0), rtol=0.1)
    assert np.isfinite(flow.log_prob(x)).all()


def test_moments_of_many_rows_are_those_of_blocks_over_the_table(monkeypatch):
    monkeypatch.setattr(row_parts, "MOMENT_ROWS", 1 << 14)
    monkeypatch.setattr(row_parts, "MOMENT_BLOCK", 16)
    x = np.linspace(0.0, 1.0, 100_000)[:, None] + 0.1 * cases.rows(100_000, 1, "float64")
    rows = np.concatenate(list(RowPart(len(x)).spread()))
    assert rows.size == 1 << 14
    assert len(np.unique(rows)) == rows.size
    mean, std = moments_of(x)
    assert_allclose(mean, x.mean(axis=0), atol=5e-3)
    assert_allclose(std, x.std(axis=0), rtol=1e-2)


def test_constant_columns_are_named():
    pandas = pytest.importorskip("pandas")
    x = gaussian(200)
    x[:, 1] = 7.0
    with pytest.warns(RuntimeWarning, match=r"x: column 1 is constant in the training part; it is shifted"):
        small("float64").fit(x, **SHORT)
    x[:, 2] = 8.0
    frame = pandas.DataFrame(x, columns=["a", "mass", "time"])
    with pytest.warns(RuntimeWarning, match=r"x: column 'mass', column 'time' are constant .*; they are shifted"):
        small("float64").fit(frame, **SHORT)


def test_columns_whose_spread_float32_cannot_hold_are_named():
    """A column of time stamps near 1.7e9 is named, because float32 has steps of 128 seconds there."""
    pandas = pytest.importorskip("pandas")
    x = gaussian(300)
    x[:, 2] = 1.7e9 + 30.0 * x[:, 2]
    with pytest.warns(RuntimeWarning, match=r"standard deviation in column 2 \(.*steps of 128\).*dtype='float64'"):
        small().fit(x, **SHORT)
    with pytest.warns(RuntimeWarning, match=r"column 'time'.*"):
        small().fit(pandas.DataFrame(x, columns=["a", "b", "time"]), **SHORT)
    with pytest.warns(RuntimeWarning, match="given in float32"):
        small("float64").fit(x.astype("float32"), **SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "fit: held-out rows prefer")  # very short fits warn
        small("float64").fit(x, **SHORT)
        x[:, 2] = 1e3 + x[::-1, 0]
        small().fit(x, **SHORT)


def test_warnings_name_the_line_that_called():
    x = gaussian(200)
    x[:, 1] = 7.0
    with pytest.warns(RuntimeWarning, match="constant") as caught:
        small("float64").fit(x, **SHORT)
    assert caught[0].filename == __file__


# --- memory and time --------------------------------------------------------------------------------------------------

FIT = """
    import sys, time
    import numpy as np
    import headrace as hr
    from headrace._fit import run as _fit_run

    def anonymous():
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    class Enough(Exception):
        pass

    steps, most, begin, find = 0, 0.0, 0.0, _fit_run.ArrayRun._find_gradient

    def counted(self, index, log_prob):
        global steps, most, first
        if steps == 0:
            first = time.perf_counter() - begin
        steps += 1
        if steps % 20 == 1:
            most = max(most, anonymous())
        if steps == 200:
            raise Enough
        find(self, index, log_prob)

    _fit_run.ArrayRun._find_gradient = counted
    rows, columns = int(sys.argv[2]), 10
    x = np.memmap(sys.argv[1], np.float32, "r", shape=(rows, columns))
    flow = hr.MAF(columns, transforms=2, hidden=(16,))
    warm_up = np.random.default_rng(0).standard_normal((1000, columns)).astype("float32")
    hr.MAF(columns, transforms=2, hidden=(16,)).fit(warm_up, epochs=1, progress=False)
    before, steps, most, begin = anonymous(), 0, 0.0, time.perf_counter()
    try:
        flow.fit(x, progress=False, validation=float(sys.argv[3]))
    except Enough:
        pass
    print(most - before, first)
"""


def measured(folder, rows, validation=0.1):
    """Fit `rows` rows in a new process; return its anonymous memory in MiB, and the seconds before the first step."""
    generator, path = np.random.default_rng(0), folder / "rows.f32"
    block = generator.standard_normal((1 << 16, 10)).astype(np.float32)
    with open(path, "wb") as file:
        for start in range(0, rows, len(block)):
            block[0] += 1e-3
            file.write(block[: rows - start].tobytes())
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FIT), str(path), str(rows), str(validation)],
        check=True,
        capture_output=True,
        text=True,
    )
    memory, seconds = map(float, run.stdout.split())
    return memory, seconds


@pytest.mark.costly
@pytest.mark.programs
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_fit_of_a_file_takes_no_memory_that_grows_with_its_rows(tmp_path):
    """Two million rows take 76 MiB; two lists of 8-byte indices and a copy of the held-out rows would take 38 MiB."""
    memory, _ = measured(tmp_path, 2_000_000)
    assert memory < 25.0


@pytest.mark.programs
@pytest.mark.skipif("HEADRACE_LARGE_FILES" not in os.environ, reason="writes 2.3 GiB: set HEADRACE_LARGE_FILES=1")
def test_the_first_step_of_a_large_file_comes_soon(tmp_path):
    """A fit of 60 million rows, 2.2 GiB, judges held-out rows before its first step, on a busy machine within 60 s."""
    memory, seconds = measured(tmp_path, 60_000_000)
    assert memory < 60.0
    assert seconds < 60.0


def test_rows_without_weight_are_left_out_of_both_parts():
    weights = np.where(np.arange(200) % 3 == 0, 0.0, 1.0)
    data = Data(gaussian(200), None, weights)
    train, held_out = ArrayRows(data).split(0.2, np.random.default_rng(0), Caller())
    together = np.concatenate([train.part.all(), held_out.part.all()])
    assert_array_equal(np.sort(together), np.flatnonzero(weights))


@pytest.mark.parametrize(
    ("rows", "dtype", "advice"),
    [
        ("float32", "float64", "subtract a constant before they become float32"),
        ("float64", "float32", r"or draw by sample\(dtype='float64'\)"),
        ("float64", "float64", None),
    ],
)
def test_advice_on_columns_far_from_zero_names_the_type_that_lost_digits(rows, dtype, advice):
    """Near 10⁶ float32 has steps of 0.06: float32 rows have lost digits before a fit; float32 samples lose digits."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((300, 2)) * [1.0, 5.0] + [0.0, 1e6]).astype(rows)
    flow = hr.MAF(2, transforms=1, hidden=(4,), dtype=dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flow.fit(x, epochs=1, progress=False)
    found = [str(one.message) for one in caught if "fewer than four digits" in str(one.message)]
    assert len(found) == (advice is not None)
    assert all(re.search(advice, one) for one in found)
