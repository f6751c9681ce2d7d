"""Accelerated models that were trained are restored as models of their library."""

import copy
import functools

import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import (
    CASES,
    NO_CONTEXT,
    Draw,
    library,
    nflows_flow,
    nflows_maf,
    nflows_mask,
    nflows_net,
    normflows_flow,
    sbi_estimator,
    shaken,
    zuko_flow,
)
from pairs import pairwise

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries

# GATHERED: models of docs/convert.md whose conversions only move parameters.
GATHERED = {
    "zuko": (
        "MAF",
        "MAF, `randperm=True`",
        "MAF, `residual=True`",
        "MAF, `adjacency`",
        "NSF",
        "NSF, `passes=2` (coupling)",
        "NICE, RealNVP",
        "NICE with shifts alone",
    ),
    "nflows": ("MAF with residual blocks", "MAF with feed-forward blocks", "MAF inverted (IAF)", "NSF, autoregressive"),
    "normflows": ("MaskedAffineAutoregressive (IAF)", "Reverse(MaskedAffineAutoregressive) (MAF)"),
    "sbi": ("maf_rqs", "zuko_maf", "zuko_nsf", "zuko_nice"),
}


def zuko_inverted(d):
    flow = zuko_flow(d)
    return library("zuko").lazy.Flow([t.inv for t in flow.transform.transforms], flow.base)


def nflows_couplings(kind, d, **options):
    net = functools.partial(nflows_net, d)
    make = lambda t, i: getattr(t, kind)(nflows_mask(d, i), net(), **options)  # noqa: E731
    return nflows_flow(d, make, lambda t: [t.ReversePermutation(d.features), t.ActNorm(d.features)])


def nflows_ready(d):
    kind = d.one(*(getattr(library("nflows.flows"), n) for n in ("MaskedAutoregressiveFlow", "SimpleRealNVP")))
    return kind(d.features, d.units, d.transforms, 2)


def normflows_blocks(d):
    def make(nf, i):
        net = nf.nets.MLP([(d.features + 1) // 2, d.units, 2 * (d.features // 2)])
        return [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(d.features, "swap"), nf.flows.ActNorm(d.features)]

    return normflows_flow(d, make)


def normflows_masks(d):
    def make(nf, i):
        kept = library("torch").tensor([float(j % 2 == i % 2) for j in range(d.features)])
        net = lambda: nf.nets.MLP([d.features, d.units, d.features])  # noqa: E731
        return [nf.flows.MaskedAffineFlow(kept, net(), net())]

    return normflows_flow(d, make)


def normflows_spline(kind, d):
    columns = {"num_context_channels": d.columns or None}
    return normflows_flow(d, lambda nf, i: [getattr(nf.flows, kind)(d.features, 2, d.units, **columns)])


def glasflow_plain(kind, d, **options):
    norms = {"batch_norm_within_blocks": False, "batch_norm_between_transforms": False}
    flows = library("glasflow.flows.autoregressive" if "Autoregressive" in kind else "glasflow.flows")
    columns = {"n_conditional_inputs": d.columns or None}
    return getattr(flows, kind)(d.features, d.transforms, n_neurons=d.units, **norms, **columns, **options)


_TAILS = {"num_bins": 6, "tails": "linear", "tail_bound": 3.0}

# PARTLY: models whose conversions only move parameters if some layer or option of docs/convert.md is left out.
PARTLY = {
    ("zuko", "MAF inverted (IAF), fixed affine maps, rotations, LU maps, permutations"): zuko_inverted,
    ("nflows", "NSF of couplings"): functools.partial(
        nflows_couplings, "PiecewiseRationalQuadraticCouplingTransform", **_TAILS
    ),
    ("nflows", "RealNVP"): functools.partial(nflows_couplings, "AffineCouplingTransform"),
    ("nflows", "NICE"): functools.partial(nflows_couplings, "AdditiveCouplingTransform"),
    ("nflows", "MaskedAutoregressiveFlow, SimpleRealNVP"): nflows_ready,
    ("normflows", "AffineCouplingBlock (RealNVP), Permute"): normflows_blocks,
    ("normflows", "MaskedAffineFlow (RealNVP, NICE), ActNorm, InvertibleAffine"): normflows_masks,
    **{
        ("normflows", page): functools.partial(normflows_spline, kind)
        for page, kind in {
            "CoupledRationalQuadraticSpline": "CoupledRationalQuadraticSpline",
            "AutoregressiveRationalQuadraticSpline, LULinearPermute": "AutoregressiveRationalQuadraticSpline",
        }.items()
    },
    ("glasflow", 'RealNVP, `scale_activation="nflows"`'): functools.partial(
        glasflow_plain, "RealNVP", scale_activation="nflows"
    ),
    ("glasflow", "RealNVP, `volume_preserving=True`"): functools.partial(
        glasflow_plain, "RealNVP", volume_preserving=True
    ),
    **{
        ("glasflow", kind): functools.partial(glasflow_plain, kind, **options)
        for kind, options in {
            "CouplingNSF": {},
            "MaskedAffineAutoregressiveFlow": {},
            "MaskedPiecewiseRationalQuadraticAutoregressiveFlow": _TAILS,
        }.items()
    },
    ("sbi", "maf"): functools.partial(sbi_estimator, kind="maf", use_batch_norm=False),
}
# FOLDED: models that compute parameters from several others. OTHERS: models with constants, and models that need a
# weight twice.
FOLDED = {
    "nflows": {
        "MAF with batch norm in blocks": "BatchNorm1d",
        "NSF of couplings": "LULinear|BatchNorm1d",
        "RealNVP": "LULinear|BatchNorm1d",
        "NICE": "LULinear|BatchNorm1d",
        "linear maps: LU, QR, SVD, naive, Householder, pointwise affine": ".*QRLinear",
        "batch and activation normalisation between transforms": "BatchNorm",
        "MaskedAutoregressiveFlow, SimpleRealNVP": "Linear, BatchNorm1d",
    },
    "normflows": {
        "MaskedAffineFlow (RealNVP, NICE), ActNorm, InvertibleAffine": "InvertibleAffine",
        "AutoregressiveRationalQuadraticSpline, LULinearPermute": "_LULinear",
        "CoupledRationalQuadraticSpline": "_LULinear",
        'Planar, `act="leaky_relu"`': "Planar",
    },
    "glasflow": dict.fromkeys(CASES["glasflow"][0], ".*BatchNorm"),
    "sbi": {"maf": "BatchNorm1d, MaskedLinear", "nsf": "LULinear"},
}
OTHERS = {
    "zuko": {
        "MAF inverted (IAF), fixed affine maps, rotations, LU maps, permutations": "as constants",
        "NCSF": "several",
    },
    "normflows": {"AffineCouplingBlock (RealNVP), Permute": "as constants"},
}
MAKERS = {(name, kind): CASES[name][0][kind] for name, kinds in GATHERED.items() for kind in kinds} | PARTLY


@pytest.fixture
def torch():
    return library("torch")


def trained(torch, fast, seed=1):
    """Return the model with its parameters moved, as an optimiser moves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return fast


def log_prob(name, model, x, c):
    if name == "zuko":
        return model(c).log_prob(x)
    if name == "sbi":
        return model.log_prob(x[None], c)[0]
    return model.log_prob(x, *([] if c is None else [c]))


@pairwise(model=[f"{name}: {kind}" for name, kind in MAKERS], context=[False, True], dtype=["float32", "float64"])
def test_a_trained_model_is_restored_in_its_library(torch, model, context, dtype):
    name, kind = model.split(": ", 1)
    context = (context or name == "sbi") and kind not in NO_CONTEXT
    d = Draw(6, context)
    torch.manual_seed(d.seed)
    model = shaken(MAKERS[name, kind](d), 6).to(getattr(torch, dtype))
    fast = trained(torch, hr.accelerate(model))
    back = hr.restore(fast)
    plain = copy.deepcopy(model)
    plain.load_state_dict(back.state_dict())  # `plain` is a model of the library
    assert type(back) is type(plain) is type(model)
    assert next(back.parameters()).dtype == getattr(torch, dtype)
    x = torch.randn(20, d.features).double()
    c = torch.randn(20, d.columns).double() if context else None
    theirs = log_prob(name, plain.double(), x, c)
    ours = log_prob(name, copy.deepcopy(fast).double(), x, c)
    assert_allclose(ours.detach(), theirs.detach(), rtol=1e-6, atol=1e-6)
    before = log_prob(name, copy.deepcopy(model).double(), x, c)
    assert (before - theirs).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in FOLDED.items() for kind in kinds])
def test_folded_layers_are_refused_by_name(torch, name, kind):
    model = shaken(CASES[name][0][kind](Draw(4, name == "sbi")), 4)
    fast = hr.accelerate(model)
    with pytest.raises(NotImplementedError, match=rf"^model\.\S+: expected layers .* ({FOLDED[name][kind]})"):
        hr.restore(fast)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in OTHERS.items() for kind in kinds])
def test_models_without_a_counterpart_are_refused_once_trained(torch, name, kind):
    model = shaken(CASES[name][0][kind](Draw(4, False)), 4).double()
    hr.restore(hr.accelerate(model))
    with pytest.raises((NotImplementedError, ValueError), match=f"^model: expected .* {OTHERS[name][kind]}"):
        hr.restore(trained(torch, hr.accelerate(model)))


def test_each_kind_of_the_page_is_restored_or_refused():
    own = set(MAKERS) | {(name, kind) for one in (FOLDED, OTHERS) for name, kinds in one.items() for kind in kinds}
    libraries = set(CASES) - {"flowjax"}  # `accelerate` takes no models of flowjax
    assert own == {(name, kind) for name in libraries for kind in CASES[name][0]}


def test_constants_must_not_change(torch):
    settings = {"batch_norm_between_transforms": False, "linear_transform": None}
    model = shaken(library("glasflow").RealNVP(4, 2, **settings), 8).double()
    plain = hr.restore(hr.accelerate(model))
    assert_allclose(*(m._transform._transforms[0].transform_net.final_layer.bias.detach() for m in (plain, model)))
    with pytest.raises(NotImplementedError, match="has as constants"):
        hr.restore(trained(torch, hr.accelerate(model)))


def test_another_fixed_part_is_refused(torch):
    library("zuko")
    fast = hr.accelerate(shaken(zuko_flow(Draw(5, False)), 5).double())
    flow = fast.flow
    last = hr.transforms.Standardize([1.0] * flow.features, [2.0] * flow.features)
    fast.flow = hr.Flow([*flow.transforms, last], flow.base)
    with pytest.raises(ValueError, match="the flow's fixed part"):
        hr.restore(fast)


def test_parts_of_a_module(torch):
    zuko = library("zuko")

    class Encoded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(5, 2)
            self.density = zuko.flows.NSF(3, 2, transforms=2)
            self.others = torch.nn.ModuleList([zuko.flows.MAF(3, 2), torch.nn.Linear(2, 2)])

        def forward(self, x, y):
            c = self.net(y)
            return self.density(c).log_prob(x) + self.others[0](self.others[1](c)).log_prob(x)

    model = Encoded()
    fast = hr.accelerate(model)
    assert type(fast) is Encoded
    assert type(model.density) is zuko.flows.NSF
    assert type(fast.density) is type(fast.others[0]) is not zuko.flows.NSF
    assert hr.accelerate(fast.density) is fast.density
    x, y = torch.randn(7, 3), torch.randn(7, 5)
    assert_allclose(fast(x, y).detach(), model(x, y).detach(), rtol=1e-5, atol=1e-5)
    fast(x, y).sum().backward()
    assert fast.net.weight.grad.abs().sum() > 0
    model.load_state_dict(hr.restore(trained(torch, fast)).state_dict())
    assert_allclose(fast(x, y).detach(), model(x, y).detach(), rtol=1e-5, atol=1e-5)
    model.others[0] = zuko.flows.NAF(3, 2)
    with pytest.raises(NotImplementedError, match=r"^model\.others\.0: model\.transform"):
        hr.accelerate(model)
    with pytest.raises(TypeError, match="accelerated: expected a model that headrace"):
        hr.restore(model)


def test_an_embedding_net_is_restored_too(torch):
    library("nflows")
    d = Draw(6, True)
    model = nflows_maf(d, True)
    model._embedding_net = torch.nn.Linear(3, d.columns)
    model = shaken(model, 6)
    fast = trained(torch, hr.accelerate(model))
    x, c = torch.randn(9, d.features), torch.randn(9, 3)
    back = hr.restore(fast)
    assert_allclose(back.log_prob(x, c).detach(), fast.log_prob(x, c).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context", [False, True])
def test_a_realnvp_of_nessai(torch, context):
    flows = library("nessai.flows.realnvp")
    settings = {"linear_transform": "permutation", "batch_norm_between_layers": False}
    columns = {"context_features": 2} if context else {}
    model = shaken(flows.RealNVP(4, 16, 3, 2, **settings, **columns), 3).double()
    fast = hr.accelerate(model)
    assert isinstance(fast, flows.RealNVP)
    x = torch.randn(6, 4).double()
    c = {"context": torch.randn(6, 2).double()} if context else {}
    for verb in ("log_prob", "forward", "inverse", "forward_and_log_prob"):
        ours, theirs = (getattr(m, verb)(x, **c) for m in (fast, model))
        for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (ours, theirs)), strict=True):
            assert_allclose(a.detach(), b.detach(), rtol=1e-9, atol=1e-9)
    drawn, lp = fast.sample_and_log_prob(6, **c)
    assert_allclose(lp.detach(), model.log_prob(drawn, **c).detach(), rtol=1e-9, atol=1e-9)
    assert fast.sample_latent_distribution(3).shape == (3, 4)
    fast.freeze_transform()
    assert not any(p.requires_grad for p in fast.parameters())
    fast.unfreeze_transform()
    fast.finalise()
    fast.to("cpu")
    assert fast.device == "cpu"
    back = hr.restore(trained(torch, fast))
    assert_allclose(back.log_prob(x, **c).detach(), fast.log_prob(x, **c).detach(), rtol=1e-6, atol=1e-6)


def test_matrices_that_a_model_keeps_in_another_dtype(torch):
    library("nflows")
    transforms, flows, distributions = (library(f"nflows.{part}") for part in ("transforms", "flows", "distributions"))
    linear = transforms.LULinear(3, using_cache=True)
    model = flows.Flow(linear, distributions.StandardNormal([3])).eval()
    x = torch.randn(4, 3)
    model.log_prob(x)  # the first call stores a matrix in float32 in the model
    assert_allclose(hr.accelerate(model).log_prob(x).detach(), model.log_prob(x).detach(), rtol=1e-5, atol=1e-5)

    class Mixed(transforms.ReversePermutation):
        def train(self, mode=True):
            return super().train(mode)

    model._transform = transforms.CompositeTransform([Mixed(3), linear])
    model._distribution.log_prob = lambda z, context=None: (z.float() @ torch.ones(3, 3, dtype=torch.float64)).sum(-1)
    with pytest.raises(ValueError, match=r"got an error of the model's own code: .*dtype"):
        hr.convert.from_nflows(model)
