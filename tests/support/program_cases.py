"""Programs on a device: sizes of batches, and every way of reading a formula's sides."""

import pytest

import cases

SIZES = (0, 1, 31, 32, 33, 70)  # around a tile of 32 rows
SIDES = [(reads, formula) for reads in cases.READS for formula in cases.FORMULAS]
every_side = pytest.mark.parametrize(("reads", "formula"), SIDES)
