"""The accuracy of curves in graphs of ONNX."""

import numpy as np
import pytest

import cases
import headrace as hr
from onnx_cases import Session

pytestmark = pytest.mark.programs


@pytest.mark.parametrize("law", ["cauchy", "lognormal", "t3"])
def test_curves_of_heavy_tails_are_as_exact_as_in_float64(law, tmp_path):
    """The outer knots lie so far apart that float32 has too few digits between the inner knots."""
    rng = cases.rng("heavy tails")
    draws = {
        "cauchy": lambda: rng.standard_cauchy((3000, 2)),
        "lognormal": lambda: np.exp(2.0 * rng.standard_normal((3000, 2))),
        "t3": lambda: rng.standard_t(3, (3000, 2)),
    }
    x = draws[law]().astype("f4")
    flow = hr.NSF(2, transforms=2, hidden=(16,))
    assert flow.fit(x, epochs=2, gaussianize=True, progress=False).gaussianized
    want = flow.astype("float64").log_prob(x.astype(np.float64))
    got = Session(flow, "log_prob", tmp_path / "flow.onnx")(x)
    assert np.abs(got - want).max() < 5e-5  # ten times the measured error, and a hundredth of the error in float32
