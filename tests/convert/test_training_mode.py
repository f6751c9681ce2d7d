"""A model in training mode whose density differs in evaluation is refused, for all libraries alike."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import Draw, flowjax_flow, library, sbi_estimator, shaken, zuko_flow
from headrace import convert

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries

D = Draw(3, False)


def zuko_dropout(p=0.3):
    """Return a flow of zuko whose activation includes dropout, because zuko has no option for dropout."""
    torch = library("torch")

    def activation():
        return torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(p))

    return zuko_flow(D, activation=activation)


def nflows(*layers, **options):
    transforms, flows = library("nflows.transforms"), library("nflows.flows")
    own = transforms.MaskedAffineAutoregressiveTransform(D.features, 8, **options)
    chain = transforms.CompositeTransform([own, *(getattr(transforms, name)(D.features) for name in layers)])
    return flows.Flow(chain, library("nflows.distributions").StandardNormal([D.features]))


def glasflow(**norms):
    flows = library("glasflow.flows")
    return flows.RealNVP(D.features, 2, n_neurons=8, **norms)


def normflows(dropout=None):
    nf = library("normflows")
    net = nf.flows.MaskedAffineAutoregressive(D.features, 8, dropout_probability=dropout or 0.0)
    last = [] if dropout else [nf.flows.ActNorm((D.features,))]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(D.features, trainable=False), [net, *last])


def normflows_maf():
    """A network with dropout runs once to latents, but once a column to data, and omits other units each time."""
    nf = library("normflows")
    masked = nf.flows.MaskedAffineAutoregressive(D.features, 8, dropout_probability=0.2)
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(D.features), [nf.flows.Reverse(masked)])


def normflows_mlp():
    nf = library("normflows")
    mask = library("torch").arange(D.features) % 2.0
    nets = [nf.nets.MLP([D.features, 8, D.features], dropout=0.2) for _ in range(2)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(D.features), [nf.flows.MaskedAffineFlow(mask, *nets)])


def sbi(**options):
    return sbi_estimator(D, "maf", **options)


# Refused models: the model, the function of its library, and the path and the class of the layer in the message.
REFUSED = {
    "zuko, dropout": (
        zuko_dropout,
        "from_zuko",
        r"\.transform\.transforms\.0\.\S*: expected no dropout .* got Dropout\(p=0\.3",
    ),
    "nflows, batch norm in a block": (
        lambda: nflows(use_batch_norm=True),
        "from_nflows",
        r"\._transform\._transforms\.0\.\S*batch_norm_layers\.0: expected no batch norm .* got BatchNorm1d\(8",
    ),
    "nflows, batch norm": (
        lambda: nflows("BatchNorm"),
        "from_nflows",
        r"\._transform\._transforms\.1: expected no batch norm .* got BatchNorm\(",
    ),
    "nflows, act norm": (
        lambda: nflows("ActNorm"),
        "from_nflows",
        r"\._transform\._transforms\.1: expected no act norm that no rows have started .* got ActNorm\(",
    ),
    "nflows, dropout": (
        lambda: nflows(dropout_probability=0.1),
        "from_nflows",
        r"\._transform\._transforms\.0\.\S*dropout: expected no dropout .* got Dropout\(p=0\.1",
    ),
    "glasflow, batch norm": (
        lambda: glasflow(batch_norm_between_transforms=True),
        "from_glasflow",
        r"\._transform\.\S*: expected no batch norm .* got BatchNorm\(",
    ),
    "glasflow, dropout": (
        lambda: glasflow(dropout_probability=0.1, batch_norm_between_transforms=False, batch_norm_within_blocks=False),
        "from_glasflow",
        r"\._transform\.\S*: expected no dropout .* got Dropout\(",
    ),
    "normflows, act norm": (normflows, "from_normflows", r"\.flows\.1: expected no act norm that .* got ActNorm\("),
    "normflows, dropout": (
        lambda: normflows(0.2),
        "from_normflows",
        r"\.flows\.0\.\S*: expected no dropout .* got Dropout\(",
    ),
    "sbi, batch norm": (lambda: sbi(use_batch_norm=True), "from_sbi", r"\.net\.\S*: expected no batch norm"),
    "sbi, dropout": (lambda: sbi(dropout_probability=0.2), "from_sbi", r"\.net\.\S*: expected no dropout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_training_changes_are_refused_by_name(case):
    make, function, named = REFUSED[case]
    model = make()
    assert model.training  # new models of every library are in training mode
    message = r"^model" + named + r".*; call model\.eval\(\)"
    for call in (hr.accelerate, getattr(convert, function)):
        with pytest.raises(ValueError, match=message):
            call(model)
        with pytest.raises(ValueError, match=message):
            call(model, verify=False)
    assert model.training


@pytest.mark.parametrize("case", [case for case in REFUSED if "normflows, act norm" not in case and "zuko" not in case])
def test_models_in_evaluation_mode_are_taken(case):
    torch = library("torch")
    model = shaken(REFUSED[case][0](), 0).double().eval()
    x = torch.randn(20, D.features, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (one.log_prob(*given) for one, given in pairs(hr.accelerate(model), model, x))
    assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def pairs(ours, theirs, x):
    """Return both models with their arguments, which for estimators of sbi include a condition."""
    if not hasattr(theirs, "condition_shape"):
        return (ours, (x,)), (theirs, (x,))
    condition = library("torch").zeros(len(x), *theirs.condition_shape, dtype=x.dtype)
    return (ours, (x[None], condition)), (theirs, (x[None], condition))


def test_layers_that_training_does_not_change_are_taken_in_training_mode():
    """Training mode changes no dropout of 0, batch norm in evaluation, initialised act norm or embedding net."""
    torch = library("torch")
    started = nflows("ActNorm")
    started.log_prob(torch.randn(50, D.features))
    frozen = nflows("BatchNorm")
    frozen._transform._transforms[1].eval()
    for model in (nflows(dropout_probability=0.0), started, frozen, zuko_flow(D), zuko_dropout(0.0)):
        assert model.training
        if not hasattr(model, "log_prob"):  # a zuko flow returns a distribution when it is called
            hr.accelerate(model, verify=False)
            continue
        x = torch.randn(20, D.features)
        with torch.no_grad():
            assert_allclose(hr.accelerate(model).log_prob(x), model.log_prob(x), rtol=1e-4, atol=1e-4)
            assert hr.accelerate(model).training
    transforms, flows = library("nflows.transforms"), library("nflows.flows")
    net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2))
    own = transforms.MaskedAffineAutoregressiveTransform(3, 8, context_features=2)
    model = flows.Flow(own, library("nflows.distributions").StandardNormal([3]), embedding_net=net)
    assert hr.accelerate(model)._embedding_net[1].training


def test_flowjax():
    """Conditioners of flowjax accept any module of equinox as their activation, dropout included."""
    equinox, jax = library("equinox"), library("jax")
    model = flowjax_flow(D, "masked_autoregressive_flow", nn_activation=equinox.nn.Dropout(0.4))
    with pytest.raises(
        ValueError, match=r"^model\.bijection\S*: expected no dropout in training mode, .* got Dropout\("
    ):
        convert.from_flowjax(model)
    with pytest.raises(ValueError, match=r"equinox\.nn\.inference_mode"):
        convert.from_flowjax(model, verify=False)
    calm = equinox.nn.inference_mode(model)  # in inference mode dropout is the identity
    x = np.random.default_rng(0).standard_normal((20, D.features)).astype("float32")
    assert_allclose(convert.from_flowjax(calm).log_prob(x), calm.log_prob(jax.numpy.asarray(x)), rtol=1e-4, atol=1e-4)


KEPT = {
    "nflows, residual": lambda: nflows(dropout_probability=0.3),
    "nflows, feed-forward": lambda: nflows(dropout_probability=0.3, use_residual_blocks=False),
    "glasflow": lambda: glasflow(
        dropout_probability=0.2, batch_norm_between_transforms=False, batch_norm_within_blocks=False
    ),
    "normflows": normflows_maf,
    "normflows, MLP": normflows_mlp,
    "sbi": lambda: sbi(dropout_probability=0.2),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_dropout_that_is_kept_is_that_of_the_library(case):
    """Log densities of a row have the library's distribution over omitted units, in the same layers and shares."""
    torch = library("torch")
    torch.manual_seed(2)  # with these weights omitted units give more than ten values
    model = shaken(KEPT[case](), 0, 0.4).train()
    fast = hr.accelerate(model, dropout="keep")
    assert fast.training
    n = 20_000
    x = torch.linspace(-0.8, 0.6, D.features).expand(n, -1)
    torch.manual_seed(0)
    ours, theirs = (one.log_prob(*given).detach().ravel().double() for one, given in pairs(fast, model, x))
    assert len(ours.unique()) > 10
    errors = (ours.var() / n + theirs.var() / n).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 5 * errors
    levels = torch.linspace(0.1, 0.9, 5).double()
    at = theirs.quantile(levels)
    below = (ours[:, None] <= at + 1e-4).double().mean(0)  # 1e-4 allows for rounding
    assert (below > levels - 0.02).all()
    assert ((ours[:, None] < at - 1e-4).double().mean(0) < levels + 0.02).all()
    with torch.no_grad():  # evaluation and calls without gradients omit no units
        calm = [(one.log_prob(*given)) for one, given in pairs(fast, model.eval(), x[:3])]
    assert_allclose(*calm, rtol=1e-4, atol=1e-4)
    given = pairs(fast, model, x[:3])[0][1]
    assert_allclose(fast.eval().log_prob(*given).detach(), calm[0], rtol=1e-6)


def moved(fast, direction, size):
    """Return a copy of a model, with parameters moved along a direction."""
    torch, other = library("torch"), copy.deepcopy(fast)
    with torch.no_grad():
        other.flow.vector.add_(size * direction)
    return other


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [1.0, -2.0, 0.5, 3.0]], ids=["equal", "of rows"])
@pytest.mark.parametrize("context", ["each", "one"])
def test_gradients_are_those_of_the_units_that_were_kept(weights, context):
    """If rows have different weights, gradients need a second run, which omits the units of the first."""
    torch = library("torch")
    fast = hr.accelerate(
        shaken(nflows(dropout_probability=0.3, context_features=2), 1).double().train(), dropout="keep"
    )
    x, w = torch.randn(4, D.features, dtype=torch.float64), torch.tensor(weights).double()
    c = torch.randn((2,) if context == "one" else (4, 2), dtype=torch.float64).requires_grad_()

    def loss(one, context):
        torch.manual_seed(3)
        return (w * one.log_prob(x, context)).sum()

    loss(fast, c).backward()
    loss(fast, c.detach()).backward()  # a loss that weighs rows needs a second run
    gradient = fast.flow.vector.grad / 2
    direction = torch.randn(gradient.shape, dtype=torch.float64)
    up, down = (loss(moved(fast, direction, size), c).item() for size in (1e-6, -1e-6))
    assert_allclose((up - down) / 2e-6, float(gradient @ direction), rtol=1e-6)
    aside = torch.randn(c.shape, dtype=torch.float64)
    up, down = (loss(fast, (c + size * aside).detach()).item() for size in (1e-6, -1e-6))
    assert_allclose((up - down) / 2e-6, float((c.grad * aside).sum()), rtol=1e-6)


def test_a_seed_of_pytorch_gives_the_same_units_and_each_call_others():
    torch = library("torch")
    fast = hr.accelerate(nflows(dropout_probability=0.3), dropout="keep")
    with torch.no_grad():
        fast.flow.vector.add_(0.3 * torch.randn(fast.flow.vector.shape))
    x = torch.randn(20, D.features)

    def drawn(one):
        torch.manual_seed(5)
        return one.log_prob(x), one.log_prob(x)

    first, second = drawn(fast)
    assert not torch.equal(first, second)
    assert not torch.equal(first.detach(), fast.eval().log_prob(x).detach())
    fast.train()
    loaded = hr.accelerate(nflows(dropout_probability=0.3), dropout="keep")
    loaded.load_state_dict(hr.restore(fast).state_dict())  # `hr.restore` gives a state of nflows
    for again in (pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast), loaded, hr.accelerate(fast)):
        assert_allclose(drawn(again)[0].detach(), first.detach(), rtol=1e-4)
    assert hr.restore(fast).training
    assert fast.flow.flow._interior.drops  # `Flow.fit` reads this attribute


def test_a_builder_of_sbi_keeps_dropout():
    torch = library("torch")
    library("sbi")
    from sbi.neural_nets import posterior_nn

    builder = hr.accelerate(posterior_nn("maf", dropout_probability=0.4), dropout="keep")
    theta, x = torch.randn(50, 3), torch.randn(50, 2)
    estimator = builder(theta, x)
    assert not torch.equal(estimator.loss(theta, x), estimator.loss(theta, x))
    inside = hr.accelerate(torch.nn.ModuleList([nflows(dropout_probability=0.3)]), dropout="keep")[0]
    rows = torch.randn(50, D.features)
    assert not torch.equal(inside.log_prob(rows), inside.log_prob(rows))


def test_dropout_that_cannot_be_kept_is_refused():
    torch = library("torch")
    message = r"^model\.transform\.\S+: expected a dropout behind the activation of a hidden layer, got Dropout\(p=0\.3"
    with pytest.raises(NotImplementedError, match=message):
        hr.accelerate(zuko_dropout(), dropout="keep")
    # A leaky ReLU becomes two units, between which dropout cannot be shared.
    with pytest.raises(NotImplementedError, match="expected a dropout behind the activation"):
        hr.accelerate(nflows(dropout_probability=0.3, activation=torch.nn.LeakyReLU(0.2)), dropout="keep")
    with pytest.raises(ValueError, match=r"^dropout: expected one of .*'keep'.*, got 'drop'"):
        hr.accelerate(nflows(), dropout="drop")
    with pytest.raises(ValueError, match="expected no batch norm in training mode"):
        hr.accelerate(nflows("BatchNorm", dropout_probability=0.3), dropout="keep")
    with pytest.raises(ValueError, match=r'got Dropout.*or headrace\.accelerate\(model, dropout="keep"\)'):
        hr.accelerate(nflows(dropout_probability=0.3))
    fast = hr.accelerate(nflows(dropout_probability=0.3), dropout="keep")
    state = dict(fast.named_parameters())

    def loss(state):
        return torch.func.functional_call(fast.flow, {"vector": state["flow.vector"]}, (), {}).log_prob(x).sum()

    x = torch.randn(4, D.features)
    with pytest.raises(RuntimeError, match=r"^dropout: expected a call of log_prob by itself"):
        torch.func.grad(loss)(state)
