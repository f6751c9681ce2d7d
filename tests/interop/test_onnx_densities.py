"""Graphs of ONNX: where rounding must not lead, and how exact curves are."""

import numpy as np
import pytest

import cases
import headrace as hr
from onnx_cases import Session

pytestmark = pytest.mark.programs


@pytest.mark.parametrize("map", ["rq_spline", "rq_spline_nflows", "rq_spline_free", "rq_spline_flowjax"])
@pytest.mark.parametrize("optimised", [True, False])
def test_no_rounding_leads_off_a_uniform_base(map, optimised, tmp_path):
    """Rows of the whole interval, its ends included, as those that were scaled to it have."""
    chain = [hr.MaskedAutoregressive(2, (8,), map=map, bound=1.0, formula="to_latent", seed=s) for s in range(4)]
    flow = cases.randomise(hr.Flow(chain, hr.Uniform(2)), 0.5, "edges", map)
    rng = cases.rng("edges")
    x = np.tanh(cases.rows(20_000, 2, "float64", "edges")).astype("f4")
    x[:10_000] = (1.0 - 10.0 ** rng.uniform(-9, -2, (10_000, 2))) * rng.choice([-1.0, 1.0], (10_000, 2))
    x[:200] = rng.choice([-1.0, 1.0], (200, 2))
    want = flow.log_prob(x)
    assert np.isfinite(want).all()
    got = Session(flow, "log_prob", tmp_path / "flow.onnx", optimised)(x)
    assert np.isfinite(got).all()
    outside = 2.0 * x[:200]
    for log_prob in (flow.log_prob, Session(flow, "log_prob", tmp_path / "flow.onnx", optimised)):
        assert np.isneginf(log_prob(outside)).all()


@pytest.mark.parametrize("law", ["cauchy", "lognormal", "t3"])
def test_curves_of_heavy_tails_are_as_exact_as_in_float64(law, tmp_path):
    """Knots lie so far apart that float32 has too few digits between the inner ones."""
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
    assert np.abs(got - want).max() < 5e-5  # ten times what was found, and a hundredth of what float32 loses
