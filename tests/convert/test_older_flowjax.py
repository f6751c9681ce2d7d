"""Files of flowjax 14 to 17, which current versions of JAX do not run.

`made/` has these files and log densities of rows, by this program in environments of ``pip install "flowjax==17.2.1"
"jax<0.8"`` and of ``pip install "flowjax==14.0.0" "jax==0.4.30" "equinox==0.11.5"``, whose `version` is 17 and 14.
flowjax 15.1.0 with jax 0.4.33 and equinox 0.11.6, and 16.0.0 with 0.4.35 and 0.11.8, write the bytes of 14.0.0 in each
file:

    jax.config.update("jax_enable_x64", True)
    spline = RationalQuadraticSpline(knots=6, interval=4)
    x, c = np.array(jr.normal(jr.key(2), (8, 3))), np.array(jr.normal(jr.key(3), (8, 2)))
    kinds = {"affine": (masked_autoregressive_flow, None), "spline": (masked_autoregressive_flow, spline)}
    for name, (make, transformer) in {**kinds, "coupling": (coupling_flow, spline)}.items():
        log_probs = []
        for invert in (False, True):
            base = Normal(jnp.zeros(3))
            sizes = {"flow_layers": 2, "nn_width": 5, "cond_dim": 2, "invert": invert}
            flow = make(jr.key(0), base_dist=base, transformer=transformer, **sizes)
            arrays, rest = eqx.partition(flow, eqx.is_inexact_array)
            leaves, tree = jax.tree.flatten(arrays)
            moved = [a + 0.3 * jr.normal(jr.fold_in(jr.key(1), i), a.shape) for i, a in enumerate(leaves)]
            flow = eqx.combine(jax.tree.unflatten(tree, moved), rest)
            log_probs.append(np.array(flow.log_prob(x, c)))
        eqx.tree_serialise_leaves(f"flowjax_{version}_{name}.eqx", flow)
        np.savez(f"flowjax_{version}_{name}.npz", x=x, c=c, inverse=log_probs[0], lp=log_probs[1])
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from headrace import convert

MADE = Path(__file__).parent / "made"


def known(version, name, log_prob="lp"):
    with np.load(MADE / f"flowjax_{version}_{name}.npz") as file:
        return file["x"], file[log_prob], file["c"]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("name", ["affine", "spline", "coupling"])
@pytest.mark.parametrize("version", [14, 17])
def test_flows_are_read(version, name, invert):
    x, log_prob, context = verify = known(version, name, "lp" if invert else "inverse")
    transformer = "affine" if name == "affine" else {"knots": 6, "interval": 4}
    settings = {"activation": "relu", "transformer": transformer, "invert": invert, "verify": verify}
    flow = convert.from_flowjax(MADE / f"flowjax_{version}_{name}.eqx", **settings)
    assert_allclose(flow.log_prob(x, context), log_prob, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("version", [14, 17])
def test_another_softmax_adjust_differs(version):
    transformer = {"knots": 6, "interval": 4, "softmax_adjust": 0.1}
    settings = {"activation": "relu", "transformer": transformer, "invert": True, "verify": known(version, "spline")}
    with pytest.raises(ValueError, match=r"verify: .* differ by up to"):
        convert.from_flowjax(MADE / f"flowjax_{version}_spline.eqx", **settings)


def test_refusals():
    settings = {"activation": "relu", "transformer": {"knots": 7, "interval": 4}, "invert": True, "verify": False}
    with pytest.raises(NotImplementedError, match="expected leaves of a masked_autoregressive_flow"):
        convert.from_flowjax(MADE / "flowjax_17_spline.eqx", **settings)
    settings["transformer"] = SimpleNamespace(knots=6)
    with pytest.raises(ValueError, match=r"transformer: expected the arguments of the spline, such as \{'knots': 6"):
        convert.from_flowjax(MADE / "flowjax_17_spline.eqx", **settings)
