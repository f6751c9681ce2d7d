"""No value on a device has a larger error, relative to 50 digits, than the recorded one (tests/support/digits.py)."""

import numpy as np
import pytest

import cores
import digits
import interpreted

RECORDED = digits.recorded()
OF_EMULATION = "PTX" if interpreted.FOLDER else "unfused"  # PTX, with and without the fusions of ptxas, has one record


@pytest.mark.optimised
def test_no_value_gets_worse_on_a_device(device, dtype):
    with cores.in_place(cores.OnDevice(device)):
        errors = digits.measured(dtype)
    if device.name == "emu":
        limits = RECORDED[f"{OF_EMULATION} {dtype}"]
    else:  # a card's compiler may fuse differently: the limit is a unit and twice the largest error
        limits = 1.0 + 2.0 * np.max([of_one for key, of_one in RECORDED.items() if key.endswith(dtype)], axis=0)
    assert not digits.worse(errors, limits)
