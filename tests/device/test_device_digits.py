"""No value on a device has a larger error, compared with 50 digits, than is recorded (tests/support/digits.py)."""

import numpy as np
import pytest

import cores
import digits
import interpreted

RECORDED = digits.recorded()
OF_EMULATION = "PTX" if interpreted.FOLDER else "unfused"  # on PTX with and without the fusions of ptxas


@pytest.mark.optimised
def test_no_value_gets_worse_on_a_device(device, dtype):
    with cores.in_place(cores.OnDevice(device)):
        errors = digits.measured(dtype)
    if device.name == "emu":
        limits = RECORDED[f"{OF_EMULATION} {dtype}"]
    else:  # another compiler may fuse other products and sums: those of all processors, doubled
        limits = 1.0 + 2.0 * np.max([of_one for key, of_one in RECORDED.items() if key.endswith(dtype)], axis=0)
    assert not digits.worse(errors, limits)
