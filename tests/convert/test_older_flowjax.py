"""Files of flowjax 17.2.1, which today's JAX does not run.

`made/` has them, and log densities of rows, by this in an environment of ``pip install "flowjax==17.2.1" "jax<0.8"``:

    jax.config.update("jax_enable_x64", True)
    for name, transformer in (("affine", None), ("spline", RationalQuadraticSpline(knots=6, interval=4))):
        base = Normal(jnp.zeros(3))
        sizes = {"flow_layers": 2, "nn_width": 5, "cond_dim": 2}
        flow = masked_autoregressive_flow(jr.key(0), base_dist=base, transformer=transformer, **sizes)
        arrays, rest = eqx.partition(flow, eqx.is_inexact_array)
        leaves, tree = jax.tree.flatten(arrays)
        moved = [a + 0.3 * jr.normal(jr.fold_in(jr.key(1), i), a.shape) for i, a in enumerate(leaves)]
        flow = eqx.combine(jax.tree.unflatten(tree, moved), rest)
        eqx.tree_serialise_leaves(f"flowjax_17_{name}.eqx", flow)
        x, c = np.array(jr.normal(jr.key(2), (8, 3))), np.array(jr.normal(jr.key(3), (8, 2)))
        np.savez(f"flowjax_17_{name}.npz", x=x, c=c, lp=np.array(flow.log_prob(x, c)))
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from headrace import convert

MADE = Path(__file__).parent / "made"


def known(name):
    with np.load(MADE / f"flowjax_17_{name}.npz") as file:
        return file["x"], file["lp"], file["c"]


def test_affine_flows_are_read():
    x, log_prob, context = verify = known("affine")
    settings = {"activation": "relu", "transformer": "affine", "invert": True}
    flow = convert.from_flowjax(MADE / "flowjax_17_affine.eqx", verify=verify, **settings)
    assert_allclose(flow.log_prob(x, context), log_prob, rtol=1e-12, atol=1e-12)


def test_splines_are_read():
    x, log_prob, context = verify = known("spline")
    settings = {"activation": "relu", "transformer": {"knots": 6, "interval": 4}, "invert": True}
    flow = convert.from_flowjax(MADE / "flowjax_17_spline.eqx", verify=verify, **settings)
    assert_allclose(flow.log_prob(x, context), log_prob, rtol=1e-12, atol=1e-12)
    settings["transformer"] = {"knots": 6, "interval": 4, "softmax_adjust": 0.1}
    with pytest.raises(ValueError, match=r"verify: .* differ by up to"):
        convert.from_flowjax(MADE / "flowjax_17_spline.eqx", verify=verify, **settings)


def test_refusals():
    settings = {"activation": "relu", "transformer": {"knots": 7, "interval": 4}, "invert": True, "verify": False}
    with pytest.raises(NotImplementedError, match="expected leaves of a masked_autoregressive_flow"):
        convert.from_flowjax(MADE / "flowjax_17_spline.eqx", **settings)
    settings["transformer"] = SimpleNamespace(knots=6)
    with pytest.raises(ValueError, match=r"transformer: expected the arguments of the spline, such as \{'knots': 6"):
        convert.from_flowjax(MADE / "flowjax_17_spline.eqx", **settings)
