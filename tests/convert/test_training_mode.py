"""A model in training mode whose density differs in evaluation is refused, for all libraries alike."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import Draw, flowjax_flow, library, sbi_estimator, shaken, zuko_flow
from headrace import convert

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries

D = Draw(3, False)


def zuko_dropout(p=0.3):
    """An activation with dropout, which zuko itself lacks."""
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


def sbi(**options):
    return sbi_estimator(D, "maf", **options)


# The model, the function of its library, and the path and the class of the layer that the message names.
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
    assert model.training  # the state in which every library makes a model
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
    """Estimators of sbi take a condition too."""
    if not hasattr(theirs, "condition_shape"):
        return (ours, (x,)), (theirs, (x,))
    condition = library("torch").zeros(len(x), *theirs.condition_shape, dtype=x.dtype)
    return (ours, (x[None], condition)), (theirs, (x[None], condition))


def test_layers_that_training_does_not_change_are_taken_in_training_mode():
    """Dropout of 0, a batch norm in evaluation mode, an act norm that some rows have started; embedding nets."""
    torch = library("torch")
    started = nflows("ActNorm")
    started.log_prob(torch.randn(50, D.features))
    frozen = nflows("BatchNorm")
    frozen._transform._transforms[1].eval()
    for model in (nflows(dropout_probability=0.0), started, frozen, zuko_flow(D), zuko_dropout(0.0)):
        assert model.training
        if not hasattr(model, "log_prob"):  # zuko's is called
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
    """Its conditioners accept any module of equinox as their activation."""
    equinox, jax = library("equinox"), library("jax")
    model = flowjax_flow(D, "masked_autoregressive_flow", nn_activation=equinox.nn.Dropout(0.4))
    with pytest.raises(
        ValueError, match=r"^model\.bijection\S*: expected no dropout in training mode, .* got Dropout\("
    ):
        convert.from_flowjax(model)
    with pytest.raises(ValueError, match=r"equinox\.nn\.inference_mode"):
        convert.from_flowjax(model, verify=False)
    calm = equinox.nn.inference_mode(model)  # where dropout is the identity
    x = np.random.default_rng(0).standard_normal((20, D.features)).astype("float32")
    assert_allclose(convert.from_flowjax(calm).log_prob(x), calm.log_prob(jax.numpy.asarray(x)), rtol=1e-4, atol=1e-4)
