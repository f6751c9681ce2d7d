"""Flows of flowtorch 0.8 from their `state_dict`.

`made/` has two flows and log densities of rows, from this program with ``pip install torch flowtorch==0.8``:

    torch.set_default_dtype(torch.float64)
    for name in ("affine", "spline"):
        torch.manual_seed(0)
        net = lambda: P.DenseAutoregressive(hidden_dims=(6, 5), nonlinearity=torch.nn.Tanh)
        if name == "affine":
            layer = lambda: B.AffineAutoregressive(net())
        else:
            layer = lambda: B.SplineAutoregressive(net(), count_bins=5, bound=3.0, order="quadratic")
        base = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
        flow = D.Flow(base, B.Compose(bijectors=[layer(), layer()]))
        with torch.no_grad():
            for p in flow.parameters():
                p += (0.8 if name == "affine" else 0.5) * torch.randn(p.shape)
        x = torch.randn(12, 3) * (1.5 if name == "affine" else 0.8)
        rows = {"x": x.numpy(), "lp": flow.log_prob(x).detach().numpy()}
        np.savez_compressed(f"flowtorch_08_{name}.npz", **rows, **flow.state_dict())
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from headrace import convert

MADE = Path(__file__).parent / "made"
SETTINGS = {"affine": {}, "spline": {"order": "quadratic", "bound": 3.0}}


def made(name):
    with np.load(MADE / f"flowtorch_08_{name}.npz") as file:
        state = dict(file)
    return state, state.pop("x"), state.pop("lp")


@pytest.mark.parametrize("name", SETTINGS)
def test_log_densities_are_those_of_flowtorch(name):
    state, x, log_prob = made(name)
    flow = convert.from_flowtorch(state, verify=(x, log_prob), activation="tanh", **SETTINGS[name])
    assert_allclose(flow.log_prob(x), log_prob, rtol=1e-12, atol=1e-12)
    bare = {key.removeprefix("bijector."): value for key, value in state.items()}
    same = convert.from_flowtorch(bare, verify=False, activation="tanh", **SETTINGS[name])
    assert np.array_equal(same.parameters, flow.parameters)
    narrow = {key: value.astype("f4") if value.dtype == "f8" else value for key, value in state.items()}
    assert convert.from_flowtorch(narrow, verify=False, activation="tanh", **SETTINGS[name]).dtype == "float32"


def test_scales_within_their_limits_need_no_layer_of_their_own():
    state, x, _ = made("affine")
    for i in (0, 1):
        state[f"bijector.bijectors.{i}._params_fn.layers.4.weight"] *= 0.1
        state[f"bijector.bijectors.{i}._params_fn.layers.4.bias"] *= 0.1
    inside = convert.from_flowtorch(state, verify=False, activation="tanh")
    assert "relu" not in repr(inside)
    unbounded = convert.from_flowtorch(state, verify=False, activation="silu")
    assert "relu" in repr(unbounded)
    assert np.isfinite(inside.log_prob(x)).all()


def test_refusals():
    state, x, log_prob = made("spline")
    with pytest.raises(TypeError, match=r"model: expected a state_dict, as model.state_dict\(\) gives it, got int"):
        convert.from_flowtorch(3)
    with pytest.raises(ValueError, match=r"activation: expected a value, .* flowtorch has nonlinearity=torch.nn.ReLU"):
        convert.from_flowtorch(state, verify=False)
    with pytest.raises(ValueError, match="verify: a state_dict has no density"):
        convert.from_flowtorch(state, activation="tanh", **SETTINGS["spline"])
    with pytest.raises(NotImplementedError, match=r"bijectors\[0\]: expected a spline of order 'quadratic'.* got 'lin"):
        convert.from_flowtorch(state, verify=False, activation="tanh", order="linear", bound=3.0)
    with pytest.raises(ValueError, match=r"verify: .* differ by up to"):
        convert.from_flowtorch(state, verify=(x, log_prob), activation="tanh", order="quadratic", bound=4.0)
    skipping = {**state, "bijector.bijectors.1._params_fn.layers.5.weight": np.zeros((42, 3))}
    with pytest.raises(NotImplementedError, match=r"bijectors\[1\]: .*no skip connections, got layers \[0, 2, 4, 5\]"):
        convert.from_flowtorch(skipping, verify=False, activation="tanh", **SETTINGS["spline"])
    lacking = {key: value for key, value in state.items() if "bijectors.0" not in key}
    with pytest.raises(NotImplementedError, match=r"bijectors\[0\]: expected a part with tensors, got one without"):
        convert.from_flowtorch(lacking, verify=False, activation="tanh", **SETTINGS["spline"])
    with pytest.raises(NotImplementedError, match=r"expected a DenseAutoregressive, got a part with \['params'\]"):
        convert.from_flowtorch({"params.0": np.zeros(3)}, verify=False, activation="tanh")
