"""Tensors of normflows, glasflow and flowjax without their models, compared with conversions of the models."""

import re

import numpy as np
import pytest

from convert_cases import FLOWJAX, GLASFLOW, NORMFLOWS, Draw, glasflow_flow, library, normflows_flow, shaken
from headrace import convert

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

ROWS = 40


@pytest.fixture
def first(monkeypatch):
    """Let random models take the first option of each choice."""
    monkeypatch.setattr(Draw, "one", lambda self, *options: options[0])


def compared(name, model, d, log_prob, settings, kept=()):
    """Compare conversions of the tensors and of the model; check that each missing setting is required, and that
    `verify` detects wrong settings.
    """
    torch, take = library("torch"), getattr(convert, f"from_{name}")
    state = model.state_dict()
    x = torch.randn(ROWS, d.features, dtype=torch.float64)
    context = (torch.randn(ROWS, d.columns, dtype=torch.float64),) if d.columns else ()
    with torch.no_grad():
        known = (x, log_prob(model, x, *context), *context)
    flow = take(state, verify=known, **settings)
    same(flow, take(model), x, context)
    arrays = {key: value.numpy() for key, value in state.items()}  # NumPy arrays, as other readers of files return
    same(take(arrays, verify=False, **settings), flow, x, context)
    for missing in settings:
        with pytest.raises(ValueError, match=rf"^{missing}: expected a value, because a state_dict does not record it"):
            take(state, verify=False, **{key: value for key, value in settings.items() if key != missing})
    return state, known


def same(first, second, x, context):
    want = second.log_prob(x.numpy(), *(c.numpy() for c in context))
    np.testing.assert_allclose(first.log_prob(x.numpy(), *(c.numpy() for c in context)), want, rtol=1e-12, atol=1e-12)


NORMFLOWS_SETTINGS = {
    "AffineCouplingBlock (RealNVP), Permute": {"activation": "relu", "scale_map": "exp", "split_mode": "channel"},
    "MaskedAffineFlow (RealNVP, NICE), ActNorm, InvertibleAffine": {"activation": "relu"},
    "MaskedAffineAutoregressive (IAF)": {"activation": "relu"},
    "Reverse(MaskedAffineAutoregressive) (MAF)": {"activation": "relu"},
    "AutoregressiveRationalQuadraticSpline, LULinearPermute": {"activation": "relu", "bound": None},
    "CoupledRationalQuadraticSpline": {"activation": "relu", "bound": None},
}


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", NORMFLOWS_SETTINGS)
def test_normflows(kind, context, first):
    library("normflows")
    if context and "Reverse" not in kind and "IAF" not in kind and "Spline" not in kind:
        pytest.skip("that library has no context there")
    if context and "Reverse" in kind:
        pytest.skip("that library has no context there")
    seed = 17 if "Block" in kind else 16  # halves of four features have equal sizes
    d = Draw(seed, context)
    if "Block" in kind:
        d.features = 4
    model = shaken(NORMFLOWS[kind](d), seed).double()
    settings = {name: d.bound if name == "bound" else value for name, value in NORMFLOWS_SETTINGS[kind].items()}

    def log_prob(model, x, *context):
        return model.log_prob(x, *context)

    state, known = compared("normflows", model, d, log_prob, settings)
    with pytest.raises(ValueError, match=r"^verify: .* differ by up to"):
        convert.from_normflows(state, verify=known, **{**settings, "activation": "tanh"})
    with pytest.raises(TypeError, match=r"^slope: expected only activation, bound, scale_map, split_mode beside"):
        convert.from_normflows(state, verify=known, slope=1e-3, **settings)


def test_settings_that_normflows_does_not_record(first):
    nf = library("normflows")
    d = Draw(3, False)
    swap = normflows_flow(d, lambda nf, i: [nf.flows.Permute(d.features, "swap"), nf.flows.LULinearPermute(d.features)])
    with pytest.raises(NotImplementedError, match=r"^model\.flows\[0\]: expected a part with tensors, got one without"):
        convert.from_normflows(swap.state_dict(), verify=False)
    planar = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [nf.flows.Planar((2,))])
    with pytest.raises(NotImplementedError, match=r"^model\.flows\[0\]: expected a flow that is known, got one with"):
        convert.from_normflows(planar.state_dict(), verify=False)
    with pytest.raises(TypeError, match=r"^model: expected a state_dict of a flow of normflows, got one with \['a'\]"):
        convert.from_normflows({"a.b": np.zeros(2)}, verify=False)


LINKS = {"eps": 1e-3, "batch_norm_eps": 1e-5}
GLASFLOW_SETTINGS = {
    "RealNVP": {"scale_activation": "nflows_general", **LINKS},
    'RealNVP, `scale_activation="nflows"`': {"scale_activation": "nflows", "batch_norm_eps": 1e-5},
    'RealNVP, `scale_activation="log1"`, "log2", ...': {
        "scale_activation": ("log1", "log2", "log3"), "batch_norm_eps": 1e-5,  # `first` takes the first option
    },
    "RealNVP, `volume_preserving=True`": {"batch_norm_eps": 1e-5},
    "CouplingNSF": {"bound": None, "min_bin": 1e-3, "slope": 1e-3, **LINKS},
    "MaskedAffineAutoregressiveFlow": {"scale_activation": "softplus", "batch_norm_eps": 1e-5},
    "MaskedPiecewiseRationalQuadraticAutoregressiveFlow": {
        "bound": None, "min_bin": 1e-3, "slope": 1e-3, "batch_norm_eps": 1e-5,
    },
}  # fmt: skip


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", GLASFLOW)
def test_glasflow(kind, context, first, monkeypatch):
    library("glasflow")
    d = Draw(18, context)
    if kind in ("RealNVP", "CouplingNSF"):  # models have both sorts of links in turn
        links = {"linear_transform": "lu" if context else "svd"}
        options = {"num_bins": d.bins, "tail_bound": d.bound} if kind == "CouplingNSF" else {}
        model = glasflow_flow(d, kind, **options, **links)
    else:
        model = GLASFLOW[kind](d)
    model = shaken(model, 18).double()
    settings = {name: d.bound if name == "bound" else value for name, value in GLASFLOW_SETTINGS[kind].items()}
    if isinstance(choices := settings.get("scale_activation"), tuple):
        settings["scale_activation"] = Draw(18, context).one(*choices)

    def log_prob(model, x, *context):
        return model.log_prob(x, conditional=context[0] if context else None)

    state, known = compared("glasflow", model, d, log_prob, {"activation": "relu", **settings})
    if "scale_activation" in settings:
        other = {**settings, "scale_activation": "nflows" if settings["scale_activation"] != "nflows" else "softplus"}
        with pytest.raises(ValueError, match=r"^verify: .* differ by up to"):
            convert.from_glasflow(state, verify=known, activation="relu", **other)
        with pytest.raises(ValueError, match=r"^scale_activation: expected one of"):
            convert.from_glasflow(state, verify=known, activation="relu", **{**settings, "scale_activation": "log9"})
        without = {name: value for name, value in settings.items() if name != "scale_activation"}
        with pytest.raises(
            ValueError,
            match=r"^scale_activation: expected a value, because a state_dict does not record it.* glasflow has",
        ):
            convert.from_glasflow(state, verify=known, activation="relu", **without)
    with pytest.raises(TypeError, match=r"^maf_scale: expected only activation, .* beside a state_dict"):
        convert.from_glasflow(state, verify=known, activation="relu", maf_scale="softplus", **settings)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (0, "masked_autoregressive_flow"),
        (5, "coupling_flow of RationalQuadraticSpline"),
        (1, "`nn_activation=jax.nn.gelu`, the approximation by tanh"),
        *(pytest.param(i, kind, marks=pytest.mark.nightly) for i, kind in enumerate(FLOWJAX) if 0 < i < 4),
    ],
)
def test_flowjax(number, kind, first, tmp_path):
    dtype, context = ("float32", "float64")[number % 2], number % 3 > 0
    jax, equinox = library("jax"), library("equinox")
    library("flowjax")
    d = Draw(19 + context, context)
    with jax.enable_x64(dtype == "float64"):
        model = FLOWJAX[kind](d)
        spline = library("flowjax.bijections").RationalQuadraticSpline(knots=d.bins, interval=(-d.bound, d.bound))
        equinox.tree_serialise_leaves(tmp_path / "flow.eqx", model)
        leaves = [leaf for leaf in jax.tree_util.tree_leaves(model) if equinox.is_array(leaf)]
        x = np.random.default_rng(0).standard_normal((ROWS, d.features)).astype(dtype)
        c = np.random.default_rng(1).standard_normal((ROWS, d.columns)).astype(dtype) if context else None
        known = (x, np.asarray(model.log_prob(jax.numpy.asarray(x), None if c is None else jax.numpy.asarray(c))))
    settings = {
        "activation": "gelu_tanh" if "gelu" in kind else "relu",
        "transformer": spline if "Rational" in kind else "affine",
        "invert": "invert=False" not in kind,
    }
    known = (*known, c) if context else known
    flow = convert.from_flowjax(tmp_path / "flow.eqx", verify=known, **settings)
    assert flow.dtype == dtype
    want = convert.from_flowjax(model, verify=False)
    # Offsets of outputs are rounded once by headrace, and in flowjax by each function that computes them.
    rounding = {"rtol": 0.0, "atol": 2e-7 if dtype == "float32" else 1e-15}
    np.testing.assert_allclose(flow.parameters, want.parameters, **rounding)
    assert np.array_equal(convert.from_flowjax(leaves, verify=False, **settings).parameters, flow.parameters)
    if "Rational" in kind:
        named = {**settings, "transformer": {"knots": d.bins, "interval": d.bound}}
        same = convert.from_flowjax(leaves, verify=False, **named)
        np.testing.assert_allclose(same.parameters, flow.parameters, **rounding)
    for missing in settings:
        with pytest.raises(ValueError, match=rf"^{missing}: expected a value, because a state_dict does not record it"):
            convert.from_flowjax(leaves, verify=False, **{k: v for k, v in settings.items() if k != missing})
    with pytest.raises(ValueError, match=r"^verify: .* differ by up to"):
        convert.from_flowjax(leaves, verify=known, **{**settings, "activation": "tanh"})
    with pytest.raises(NotImplementedError, match=r"^model: expected leaves of a masked_autoregressive_flow .*, got"):
        convert.from_flowjax(leaves[:-1], verify=False, **settings)
    with pytest.raises(ValueError, match=r"^verify: a state_dict has no density to compare with"):
        convert.from_flowjax(leaves, **settings)


def test_arrays_that_are_none():
    library("flowjax")
    with pytest.raises(TypeError, match=r"^model\[0\]: expected an array, got int"):
        convert.from_flowjax([3], verify=False)
    with pytest.raises(NotImplementedError, match=re.escape("model: expected weights (layers, units, inputs), got")):
        convert.from_flowjax([np.zeros(3)], verify=False, activation="relu", transformer="affine", invert=True)
