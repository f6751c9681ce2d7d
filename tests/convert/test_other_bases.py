"""Bases of other libraries that headrace has, maps around flows, and nets within modules, against the library.

All comparisons are in float64: log densities of far rows and of the flow's own samples to 1e-11 of 1 + |log p|, the
rounding of splines in `test_converted`, and gradients by rows to 1e-8 of 1 + |gradient|.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library, shaken
from headrace import convert

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries

N = 3
LIMIT, GRADIENT_LIMIT = 1e-11, 1e-8


def rows_of(flow, context=None):
    """Return samples of a flow, of which every third row is moved further out."""
    x = np.asarray(flow.sample(40, context, seed=4, dtype="float64"))
    x[::3] *= 1.4
    if any(getattr(flow.transforms[-1], "periodic", ())):
        x = np.mod(x + np.pi, 2.0 * np.pi) - np.pi
    return x


@pytest.fixture(autouse=True)
def rows_outside_have_a_density(monkeypatch):
    """Switch off PyTorch's check of arguments, so that rows outside of a support have a density of 0."""
    monkeypatch.setattr(library("torch").distributions.Distribution, "_validate_args", False)


def compared(model, converter, columns=0):
    """Compare a model in float64 with its flow: log densities, and gradients of the accelerated model."""
    torch = library("torch")
    model = model.double().eval()
    flow = converter(model)
    assert flow.dtype == "float64"
    context = np.random.default_rng(1).standard_normal((40, columns)) if columns else None
    x = torch.from_numpy(rows_of(flow, context)).requires_grad_()
    given = [] if context is None else [torch.from_numpy(context)]
    want = log_prob_of(model, x, given)
    got = np.asarray(flow.log_prob(x.detach().numpy(), context))
    inside = np.isfinite(want.detach().numpy())
    assert inside.sum() > 20
    assert_allclose(got, want.detach().numpy(), rtol=LIMIT, atol=LIMIT)
    (wanted,) = torch.autograd.grad(want[inside].sum(), x)
    y = x.detach().clone().requires_grad_()
    fast = log_prob_of(hr.accelerate(model), y, given)
    (found,) = torch.autograd.grad(fast[inside].sum(), y)
    assert_allclose(found.numpy(), wanted.numpy(), rtol=GRADIENT_LIMIT, atol=GRADIENT_LIMIT)
    return flow


def log_prob_of(model, x, given):
    if callable(getattr(model, "log_prob", None)):
        return model.log_prob(x, *given)
    return model(*given).log_prob(x)


# ---- zuko ------------------------------------------------------------------------------------------------------------


def zuko_on(base, context=0):
    zuko = library("zuko")
    library("torch").manual_seed(3)
    maf = zuko.flows.MAF(N, context, transforms=2, hidden_features=(12,))
    return zuko.lazy.Flow(maf.transform.transforms, base)


def zuko_bases():
    torch, zuko = library("torch"), library("zuko")
    torch.manual_seed(5)
    fixed = zuko.lazy.UnconditionalDistribution

    def students(df, loc, scale):
        return torch.distributions.Independent(torch.distributions.StudentT(df, loc, scale), 1)

    lower = torch.eye(N) + torch.tril(0.5 * torch.randn(N, N), -1)
    df, loc, scale = torch.tensor([2.0, 4.0, 9.0]), torch.randn(N), 0.5 + torch.rand(N)
    return {
        "box": (fixed(zuko.distributions.BoxUniform, -torch.ones(N), 1.0 + scale, buffer=True), hr.Uniform),
        "students": (fixed(students, df, loc, scale), hr.StudentT),
        "fixed students": (fixed(students, df, torch.zeros(N), torch.ones(N), buffer=True), hr.StudentT),
        "correlated": (fixed(torch.distributions.MultivariateNormal, loc, scale_tril=lower), hr.StandardNormal),
        "mixture": (zuko.mixtures.GMM(N, components=4, covariance_type="diagonal"), hr.NormalMixture),
        "tied mixture": (zuko.mixtures.GMM(N, components=3, covariance_type="spherical", tied=True), hr.NormalMixture),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["box", "students", "fixed students", "correlated", "mixture", "tied mixture"])
def test_bases_of_zuko(name):
    base, kind = zuko_bases()[name]
    flow = compared(zuko_on(base), convert.from_zuko)
    assert isinstance(flow.base, kind)
    if name == "fixed students":
        assert flow.base.trainable is False


def test_the_error_of_an_unsupported_mixture_has_advice():
    zuko = library("zuko")
    with pytest.raises(
        NotImplementedError, match=r"^model\.base\.base: expected normal .* without correl.*; train a flow"
    ):
        convert.from_zuko(zuko_on(zuko.mixtures.GMM(N)))
    with pytest.raises(NotImplementedError, match=r"^model\.base: expected a base without a context, .* hr\.NSF with"):
        convert.from_zuko(zuko_on(zuko.mixtures.GMM(N, 2), 2))
    mixed, nsf = zuko.flows.NCSF(N), zuko.flows.NSF(N)
    mixed.transform.transforms.append(nsf.transform.transforms[0])
    with pytest.raises(
        NotImplementedError, match=r"transform: expected circular .* alone, .*; train hr\.NSF with period"
    ):
        convert.from_zuko(mixed)
    inverted = zuko.flows.NCSF(N)
    inverted.transform = zuko.lazy.LazyInverse(inverted.transform)
    with pytest.raises(NotImplementedError, match=r"expected a circular transform that is not inverted"):
        convert.from_zuko(inverted)


@pytest.mark.parametrize("columns", [0, 2])
@pytest.mark.parametrize("features", [1, 3])
def test_circular_flows_of_zuko(features, columns):
    """Columns become periodic; log densities and gradients of the accelerated model are equal within a period."""
    zuko = library("zuko")
    model = shaken(zuko.flows.NCSF(features, columns, transforms=2, hidden_features=(8,)), 5, 0.2)
    flow = compared(model, convert.from_zuko, columns)
    assert flow.transforms[-1].periodic == ((-np.pi, np.pi),) * features
    assert isinstance(flow.base, hr.Uniform)


# ---- normflows -------------------------------------------------------------------------------------------------------


def normflows_on(base, *flows):
    nf = library("normflows")
    library("torch").manual_seed(3)
    own = [shaken(nf.flows.CoupledRationalQuadraticSpline(N, 1, 8, reverse_mask=i == 1), i, 0.3) for i in range(2)]
    return nf.NormalizingFlow(base, list(flows) or own)


@pytest.mark.parametrize("trainable", [True, False])
def test_mixtures_of_normflows(trainable):
    nf = library("normflows")
    rng = np.random.default_rng(2)
    base = nf.distributions.GaussianMixture(
        4, N, rng.standard_normal((4, N)), rng.uniform(0.3, 2.0, (4, N)), [1.0, 2.0, 3.0, 4.0], trainable
    )
    flow = compared(normflows_on(base), convert.from_normflows)
    assert isinstance(flow.base, hr.NormalMixture)
    assert flow.base.trainable is trainable


def test_a_mixture_in_float64_does_not_decide_the_dtype():
    """A mixture of normflows is float64 by default, although the transforms are float32."""
    nf = library("normflows")
    flow = convert.from_normflows(normflows_on(nf.distributions.GaussianMixture(2, N)).eval())
    assert flow.dtype == "float32"


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (-3.0, 3.0)])
def test_a_uniform_base_of_normflows(ends):
    """Log densities of normflows differ by the rounding of a constant in float32."""
    torch, nf = library("torch"), library("normflows")
    model = normflows_on(nf.distributions.base.Uniform(N, *ends)).double().eval()
    flow = convert.from_normflows(model)
    assert isinstance(flow.base, hr.Uniform)
    x = rows_of(flow)
    with torch.no_grad():
        want = model.log_prob(torch.from_numpy(x)).numpy()
    constant = -N * np.log(ends[1] - ends[0])
    lost = abs(constant) * 2.0**-23
    assert_allclose(flow.log_prob(x), want, rtol=LIMIT, atol=LIMIT + lost)
    assert np.isfinite(want).sum() > 20
    assert np.isneginf(want).any()


def own_normal(encoder, scale, shape=(N,)):
    """A base of a caller's class, whose scale is a function of the second half of the encoder's values."""
    torch, nf = library("torch"), library("normflows")

    class Response(nf.distributions.BaseDistribution):
        def __init__(self):
            super().__init__()
            self.shape, self.context_encoder = shape, encoder

        def log_prob(self, z, context=None):
            mean, raw = self.context_encoder(context).chunk(2, -1)
            return torch.distributions.Normal(mean, scale(raw)).log_prob(z).sum(-1)

    return Response()


@pytest.mark.parametrize("name", ["linear", "network", "subclass", "module", "module of one layer", "own"])
def test_a_normal_base_of_normflows_that_depends_on_a_context(name):
    torch, nf = library("torch"), library("normflows")
    torch.manual_seed(2)

    class Response(nf.distributions.base.ConditionalDiagGaussian):
        def __init__(self):
            super().__init__(N, nf.nets.MLP([2, 5, 2 * N]))

    encoders = {
        "linear": lambda: torch.nn.Linear(2, 2 * N),
        "network": lambda: nf.nets.MLP([2, 5, 2 * N]),
        "module": lambda: net_of_the_caller(2, 2 * N),
        "module of one layer": lambda: net_of_the_caller(2, 2 * N, inner=torch.nn.Linear(2, 2 * N)),
    }
    if name == "own":
        base = own_normal(net_of_the_caller(2, 2 * N), torch.exp)
    else:
        base = Response() if name == "subclass" else nf.distributions.base.ConditionalDiagGaussian(N, encoders[name]())
    flows = [nf.flows.MaskedAffineAutoregressive(N, 8, context_features=2), nf.flows.LULinearPermute(N)]
    flow = compared(nf.ConditionalNormalizingFlow(base, flows), convert.from_normflows, 2)
    assert flow.transforms[0].context == 2


def test_an_own_base_with_another_formula_is_refused():
    """Without rows to compare, a base of a caller's class is refused even if its formula is right."""
    torch, nf = library("torch"), library("normflows")

    def model(scale=torch.exp, encoder=None, **options):
        base = own_normal(encoder or net_of_the_caller(2, 2 * N), scale, **options)
        return nf.ConditionalNormalizingFlow(base, [nf.flows.LULinearPermute(N)])

    with pytest.raises(ValueError, match=r"^verify: expected the log densities of the source .* differ by up to"):
        convert.from_normflows(model(torch.nn.functional.softplus))
    refused = r"^model\.q0: expected a DiagGaussian, .*Response, a BaseDistribution with a log_prob of its own; train a"
    with pytest.raises(NotImplementedError, match=refused):
        convert.from_normflows(model(), verify=False)
    with pytest.raises(NotImplementedError, match=refused):
        convert.from_normflows(model(shape=N))
    with pytest.raises(NotImplementedError, match=r"^model\.q0\.context_encoder: expected an MLP .*Net; use normfl"):
        convert.from_normflows(model(encoder=net_of_the_caller(2, 2 * N, factor=2.0)))


def test_planar_maps_of_normflows():
    torch, nf = library("torch"), library("normflows")
    torch.manual_seed(1)
    leaky = [nf.flows.Planar((N,), act="leaky_relu") for _ in range(4)]
    compared(normflows_on(nf.distributions.DiagGaussian(N), *leaky), convert.from_normflows)
    back = nf.flows.Reverse(nf.flows.Planar((N,)))
    compared(normflows_on(nf.distributions.DiagGaussian(N), back), convert.from_normflows)
    base = nf.distributions.DiagGaussian(N)
    with pytest.raises(NotImplementedError, match=r"^model\.flows\[0\]\.act: expected 'leaky_relu', or a Reverse"):
        convert.from_normflows(normflows_on(base, nf.flows.Planar((N,))))
    wide = nf.flows.Planar((N,), act="leaky_relu", u=torch.zeros(1, N), w=torch.zeros(1, N))
    with pytest.raises(ValueError, match=r"^model\.flows\[0\]: expected w other than 0"):
        convert.from_normflows(normflows_on(base, wide))


# ---- nflows ----------------------------------------------------------------------------------------------------------


def nflows_on(base, columns=0, make=None):
    flows, transforms = library("nflows.flows"), library("nflows.transforms")
    torch = library("torch")
    torch.manual_seed(3)
    parts = [transforms.MaskedAffineAutoregressiveTransform(N, 8, columns or None)]
    if make is not None:
        parts = [transforms.AffineCouplingTransform(torch.tensor([1, -1, 1]), make) for _ in range(2)]
    return flows.Flow(transforms.CompositeTransform(parts), base)


def nflows_encoder(name):
    nn = library("torch").nn
    made = {
        "linear": lambda: nn.Linear(2, 2 * N),
        "network": lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2 * N)),
        "module": lambda: net_of_the_caller(2, 2 * N),
        "none": lambda: None,
    }
    return made[name]()


@pytest.mark.parametrize("name", ["linear", "network", "module", "none"])
def test_bases_of_nflows_that_depend_on_a_context(name):
    kind = library("nflows.distributions.normal").ConditionalDiagonalNormal
    library("torch").manual_seed(0)
    columns = 2 * N if name == "none" else 2
    flow = compared(nflows_on(kind([N], nflows_encoder(name)), columns), convert.from_nflows, columns)
    assert flow.transforms[0].context == columns


def test_errors_of_refused_bases_of_nflows_have_advice():
    torch = library("torch")
    kind = library("nflows.distributions.normal").ConditionalDiagonalNormal

    class Scaled(library("nflows.distributions").StandardNormal):
        def _log_prob(self, inputs, context):
            return super()._log_prob(2.0 * inputs, context) + N * np.log(2.0)

    with pytest.raises(NotImplementedError, match=r"a StandardNormal with a _log_prob of its own; train a flow of"):
        convert.from_nflows(nflows_on(Scaled([N])))
    mixed = library("nflows.distributions.mixture").MADEMoG(N, 8, 2)
    with pytest.raises(NotImplementedError, match=r"^model\._distribution: expected .*MADEMoG; train a flow of"):
        convert.from_nflows(nflows_on(mixed, 2))
    net = library("nflows.nn.nets").ResidualNet(2, 2 * N, 8)
    with pytest.raises(
        NotImplementedError, match=r"_context_encoder: expected a Linear.*ResidualNet; make the encoder"
    ):
        convert.from_nflows(nflows_on(kind([N], net), 2))
    with pytest.raises(NotImplementedError, match=r"_context_encoder: expected a Linear.*function; make the encoder"):
        convert.from_nflows(nflows_on(kind([N], lambda c: torch.cat([c, 2 * c], -1)), N))


# ---- nets within modules ---------------------------------------------------------------------------------------------


def net_of_the_caller(inputs, outputs, columns=0, factor=1.0, inner=None):
    torch = library("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = [torch.nn.Linear(inputs + columns, 9), torch.nn.Tanh(), torch.nn.Linear(9, outputs)]
            self.net = inner or torch.nn.Sequential(*layers)

        def forward(self, x, context=None):
            return factor * self.net(torch.cat([x, context], -1) if columns else x)

    return Net()


@pytest.mark.parametrize("columns", [0, 2])
def test_a_module_that_holds_one_sequential(columns):
    base = library("nflows.distributions").StandardNormal([N])
    flow = compared(
        nflows_on(base, columns, lambda i, o: net_of_the_caller(i, o, columns)), convert.from_nflows, columns
    )
    assert flow.context == columns


def test_modules_around_others_nets():
    nf, base = library("normflows"), library("nflows.distributions").StandardNormal([N])
    nets = library("nflows.nn.nets")
    compared(
        nflows_on(base, 0, lambda i, o: net_of_the_caller(i, o, inner=nets.MLP([i], [o], [8, 8]))), convert.from_nflows
    )
    block = nf.flows.AffineCouplingBlock(net_of_the_caller(2, 2))
    compared(normflows_on(nf.distributions.DiagGaussian(N), block), convert.from_normflows)


def test_a_module_that_does_more_is_refused():
    """A module that computes more is refused even where rows are not compared."""
    nf, base = library("normflows"), library("nflows.distributions").StandardNormal([N])
    model = nflows_on(base, 0, lambda i, o: net_of_the_caller(i, o, factor=2.0))
    with pytest.raises(
        NotImplementedError, match=r"transform_net: expected a ResidualNet, .*Net; use a ResidualNet, or"
    ):
        convert.from_nflows(model, verify=False)
    block = nf.flows.AffineCouplingBlock(net_of_the_caller(2, 2, factor=2.0))
    with pytest.raises(NotImplementedError, match=r"param_map: expected an MLP .*; use normflows' MLP, or a module"):
        convert.from_normflows(normflows_on(nf.distributions.DiagGaussian(N), block), verify=False)


@pytest.mark.parametrize("name", ["nflows's MLP", "torch's Linear"])
def test_a_net_that_takes_no_context_is_refused_by_name(name):
    """A net without context is refused, because nflows' couplings raise a TypeError with such a net."""
    nets, base = library("nflows.nn.nets"), library("nflows.distributions").StandardNormal([N])
    linear = library("torch").nn.Linear
    model = nflows_on(base, 0, lambda i, o: linear(i, o) if "Linear" in name else nets.MLP([i], [o], [8]))
    with pytest.raises(NotImplementedError, match=rf"transform_net: expected a network that takes .* {name}; use a"):
        convert.from_nflows(model)
