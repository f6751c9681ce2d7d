"""Gradients of each map of a coordinate through PyTorch, against finite differences in float64."""

import numpy as np
import pytest

import headrace as hr

torch = pytest.importorskip("torch")

from headrace.torch import FlowModule  # noqa: E402

SPLINES = ("", "_circular", "_free", "_nflows", "_flowjax", "_flowjax17")
MAPS = ("additive", *(f"rq_spline{name}" for name in SPLINES))


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow_of(kind, map):
    if kind == "elementwise":
        chain = [hr.transforms.Elementwise(3, map=map, dtype="float64")]
    elif kind == "coupling":
        chain = [hr.transforms.Coupling(3, [1], (5,), context=2, map=map, activation="tanh", seed=1, dtype="float64")]
    else:
        chain = [
            hr.transforms.MaskedAutoregressive(3, (5,), context=2, map=map, activation="tanh", seed=1, dtype="float64")
        ]
    flow = hr.Flow(chain)
    flow.parameters = flow.parameters + 0.2 * np.random.default_rng(0).standard_normal(flow.parameters.size)
    return flow


def check(module, verb, x, context=None):
    """Check the derivative along one random direction of all arguments together, where an error in any gradient
    shows."""
    given = [t for t in (x, context) if t is not None]
    given, vector = [t.clone().requires_grad_() for t in given], module.vector
    direction = [rows(*t.shape, seed=9 + i) for i, t in enumerate((*given, vector))]
    start = vector.detach().clone()

    def value(step):
        with torch.no_grad():
            vector.copy_(start + step * direction[-1])
        out = getattr(module, verb)(*(t + step * d for t, d in zip(given, direction, strict=False)))
        out = (out,) if verb == "log_prob" else out
        return sum((rows(*o.shape, seed=20 + i) * o).sum() for i, o in enumerate(out))

    with torch.no_grad():
        by_difference = (value(1e-6) - value(-1e-6)) / 2e-6
    gradients = torch.autograd.grad(value(0.0), (*given, vector))
    by_gradient = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    torch.testing.assert_close(by_gradient, by_difference, rtol=1e-6, atol=1e-6)
    assert all((g != 0).any() for g in gradients)


@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "elementwise"])
@pytest.mark.parametrize("map", [*MAPS, "dual_ascent"])
def test_gradients_of_every_map(kind, map):
    module = FlowModule(flow_of(kind, map))
    x = 0.7 * rows(5, 3)
    context = None if kind == "elementwise" else rows(5, 2, seed=1)
    for verb in ("log_prob", "to_latent", "to_data"):
        check(module, verb, x, context)


@pytest.mark.parametrize("map", ["kink", "spline"])
def test_gradients_of_a_fitted_ascent(map):
    """The module is made from the flow that `DualAscentFlow.fit` returns."""
    x = rows(300, 2).numpy() ** 3
    ascent = hr.DualAscentFlow(map=map, steps=3, refine=False, dtype="float64", seed=0).fit(x, progress=False)
    assert len(ascent) > 0
    check(FlowModule(ascent), "log_prob", rows(5, 2))
    check(FlowModule(ascent), "to_data", rows(5, 2))
