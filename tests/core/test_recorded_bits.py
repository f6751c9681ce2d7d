"""Results of this machine and compiler against the recorded ones of GCC on x86-64-v4 (tests/support/recorded.py)."""

from pathlib import Path

import numpy as np
import pytest

import headrace as hr
import recorded

FOUND = recorded.results()
with np.load(Path(__file__).with_name("recorded.npz")) as file:
    WANTED = dict(file)

EXACT = [key for key in WANTED if key.endswith(f" {recorded.ROWS}")]

# Sums of small batches have as many partial sums as the processor has lanes, and x86-64-v2 rounds every product; a
# steep spline magnifies these differences.
MOST_UNITS = {"NSF": 40}
MOST_UNITS_OF_OTHERS = 8


def test_every_result_was_recorded():
    assert sorted(FOUND) == sorted(WANTED)
    assert len(EXACT) == 4 * (2 * len(recorded.FLOWS) + len(recorded.BF16))


@pytest.mark.optimised
@pytest.mark.skipif(hr.info()["isa"] == "v2", reason="x86-64-v2 has no multiply-adds")
@pytest.mark.parametrize("key", EXACT)
def test_eight_rows_or_more_have_the_recorded_bits(key):
    differ = (FOUND[key] != WANTED[key]).sum()
    assert not differ, f"{differ} of {FOUND[key].size} differ, the first compiler and processor agree on all"


@pytest.mark.parametrize("key", [key for key in WANTED if key.split()[0] not in recorded.BF16])
def test_results_lie_within_rounding_of_the_recorded_ones(key):
    found, want = FOUND[key], WANTED[key]
    assert found.dtype == want.dtype
    assert recorded.units(found, want).max() <= MOST_UNITS.get(key.split()[0], MOST_UNITS_OF_OTHERS)
