"""Conversions of a `state_dict` require the settings that it lacks, and give the results of conversions of models."""

import numpy as np
import pytest

from convert_cases import (
    Draw,
    library,
    nflows_flow,
    nflows_maf,
    nflows_mask,
    nflows_net,
    shaken,
    zuko_flow,
)
from headrace import convert

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

ROWS = 40


def rows(torch, model, d, log_prob):
    """Return rows and the log densities of the library, in the form of `verify=`."""
    x = torch.randn(ROWS, d.features, dtype=torch.float64)
    context = (torch.randn(ROWS, d.columns, dtype=torch.float64),) if d.columns else ()
    with torch.no_grad():
        return (x, log_prob(model, x, *context), *context)


def of_zuko(model, x, *context):
    return model(*context).log_prob(x)


def of_nflows(model, x, *context):
    return model.log_prob(x, *context)


def same(first, second):
    assert first.parameters.dtype == second.parameters.dtype
    np.testing.assert_allclose(first.parameters, second.parameters, rtol=1e-12, atol=1e-12)


ZUKO = {
    "maf": (lambda d: zuko_flow(d, randperm=True), {"slope": 1e-3}),
    "residual": (lambda d: zuko_flow(d, residual=True), {"slope": 1e-3}),
    "nsf": (lambda d: zuko_flow(d, "NSF", bins=d.bins), {"slope": 1e-3, "bound": 5.0}),
    "coupling": (lambda d: zuko_flow(d, "RealNVP"), {"slope": 1e-3}),
}


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", ZUKO)
def test_zuko(kind, context):
    torch = library("torch")
    library("zuko")
    make, needed = ZUKO[kind]
    d = Draw(11, context)
    model = shaken(make(d), 11).double()
    state = model.state_dict()
    known = rows(torch, model, d, of_zuko)
    settings = {"activation": "relu", **needed}
    flow = convert.from_zuko(state, verify=known, **settings)
    same(flow, convert.from_zuko(model))
    old = {key.replace("base.loc", "base._0").replace("base.scale", "base._1"): value for key, value in state.items()}
    same(convert.from_zuko(old, verify=False, **settings), flow)  # zuko 1.5 and older have these names
    for name in settings:
        with pytest.raises(ValueError, match=rf"^{name}: expected a value, because a state_dict does not record it; "):
            convert.from_zuko(state, verify=False, **{key: value for key, value in settings.items() if key != name})
    with pytest.raises(ValueError, match=r"^verify: .* differ by up to"):
        convert.from_zuko(state, verify=known, **{**settings, "slope": 1e-2})
    with pytest.raises(ValueError, match=r"^verify: a state_dict has no density to compare with"):
        convert.from_zuko(state, **settings)
    with pytest.raises(TypeError, match=r"^verify: expected \(x, log_prob"):
        convert.from_zuko(state, verify=known[:1], **settings)
    with pytest.raises(TypeError, match=r"^slope: expected none beside a model, which has it"):
        convert.from_zuko(model, slope=1e-3)


def coupling(d, kind, **options):
    def make(transforms, i):
        return getattr(transforms, kind)(nflows_mask(d, i), nflows_net(d, True), **options)

    return nflows_flow(d, make, lambda t: [t.LULinear(d.features), t.BatchNorm(d.features)])


def spline(d):
    return coupling(
        d,
        "PiecewiseRationalQuadraticCouplingTransform",
        num_bins=d.bins,
        tails="linear",
        tail_bound=2.5,
        apply_unconditional_transform=True,
    )


def sigmoid(a):
    return library("torch").sigmoid(a + 2) + 1e-3


LINKS = {"eps": 1e-3, "batch_norm_eps": 1e-5}
NFLOWS = {
    "residual": (lambda d: nflows_maf(d, True, batch_norm=True), {}),
    "feed-forward": (lambda d: nflows_maf(d, False, batch_norm=True, inverted=True), {}),
    "couplings": (lambda d: coupling(d, "AffineCouplingTransform"), {"scale_activation": sigmoid, **LINKS}),
    "splines": (spline, {"bound": 2.5, "min_bin": 1e-3, "slope": 1e-3, **LINKS}),
}


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", NFLOWS)
def test_nflows(kind, context, monkeypatch):
    torch = library("torch")
    library("nflows")
    monkeypatch.setattr(Draw, "one", lambda self, *options: options[0])
    make, needed = NFLOWS[kind]
    d = Draw(12, context)
    model = shaken(make(d), 12).double()
    state = model.state_dict()
    known = rows(torch, model, d, of_nflows)
    settings = {"activation": "relu", **needed}
    flow = convert.from_nflows(state, verify=known, **settings)
    same(flow, convert.from_nflows(model))
    for name in settings:
        with pytest.raises(ValueError, match=rf"^{name}: expected a value, because a state_dict does not record it; "):
            convert.from_nflows(state, verify=False, **{key: value for key, value in settings.items() if key != name})
    with pytest.raises(ValueError, match=r"^verify: .* differ by up to"):
        convert.from_nflows(state, verify=known, **{**settings, "activation": "tanh"})
    with pytest.raises(TypeError, match=r"^tail_bound: expected only activation, bound, "):
        convert.from_nflows(state, verify=False, tail_bound=3.0, **settings)


def test_parts_without_tensors_are_not_guessed():
    library("nflows")
    d = Draw(13, False)
    transforms = library("nflows.transforms")
    model = nflows_flow(d, lambda t, i: t.CompositeTransform([transforms.Tanh(), t.LULinear(d.features)]))
    with pytest.raises(NotImplementedError, match=r"_transforms\[0\]: expected a part with tensors, got one without"):
        convert.from_nflows(model.state_dict(), verify=False, eps=1e-3)
    with pytest.raises(
        TypeError, match=r"^model: expected a state_dict of a flow of zuko, got one with \['_transform'\]"
    ):
        convert.from_zuko(model.state_dict(), verify=False)
    with pytest.raises(TypeError, match=r"^model: expected a state_dict of tensors by name, got 'a': int"):
        convert.from_zuko({"a": 3}, verify=False)
