"""Other readers of a file compared with 50 digits: the header, ONNX and plain PyTorch err little more than the core."""

import numpy as np
import pytest

import digits
from readers import REFUSED

pytestmark = pytest.mark.programs

MOST = {"header": 10.0, "plain": 60.0, "onnx": 100.0}  # limits, as multiples of the core's error plus one unit


def test_no_reader_errs_by_much_more_than_the_core(whole_reader):
    reader, first = whole_reader, 0
    limits = digits.recorded()[f"fused {whole_reader.dtype}"]
    for case in digits.read_cases():
        size = len(case.want) * len(case.x)
        limit, first = limits[first : first + size], first + size
        x, raw = case.arguments(reader.dtype)
        with np.errstate(all="ignore"):
            results = reader.run(case.flow(reader.dtype), case.verb, x, raw)
        if results is None:
            assert case.map_and_scale[0] in REFUSED
            continue
        errors = case.errors([one.reshape(-1) for one in results], least=1.0)
        if reader.name == "onnx" and case.name == "rq_spline_circular to_data":
            # The period ends in a bin of a thousandth of its length.
            errors[np.abs(np.tile(case.x[:, 0], 2)) == 5] = 0.0
        assert (errors <= MOST[reader.name] * (1.0 + limit)).all(), case.name
        assert np.median(errors) <= 2.0, case.name
