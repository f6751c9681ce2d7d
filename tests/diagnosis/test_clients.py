"""Diagnoses of posteriors of sbi, estimators and accelerated models, in place of a flow."""

import numpy as np
import pytest

import headrace as hr
from convert_cases import Draw, library, nflows_maf, sbi_estimator, shaken

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries


@pytest.fixture
def torch():
    return library("torch")


def drawn(model, context, seed=0):
    """One sample of the model for each row of the context."""
    torch = library("torch")
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.sample((1,), context)[0]


@pytest.mark.parametrize("kind", ["plain", "accelerated", "posterior"])
def test_a_posterior_of_sbi_is_diagnosed(torch, kind):
    posteriors, utils = library("sbi.inference.posteriors"), library("sbi.utils")
    d = Draw(6, True)
    net = torch.nn.Sequential(torch.nn.Linear(d.columns, 4), torch.nn.Tanh())
    estimator = shaken(sbi_estimator(d, "zuko_maf", embedding=net), 6, 0.4)
    x = torch.randn(300, d.columns)
    theta = drawn(estimator, x)
    model = hr.accelerate(estimator) if kind == "accelerated" else estimator
    if kind == "posterior":
        box = utils.BoxUniform(-1e3 * torch.ones(d.features), 1e3 * torch.ones(d.features))
        model = posteriors.DirectPosterior(estimator, box)
    found = hr.diagnose(model, theta, x, progress=False)
    with torch.no_grad():
        want = estimator.log_prob(theta[None], x)[0].mean().item()
    assert found.log_prob.mean() == pytest.approx(want, rel=1e-4)
    assert found.p_value > 1e-3
    wrong = hr.diagnose(model, theta, x.flip(0) + 2.0, progress=False)  # x belongs to other parameters than theta
    assert wrong.log_prob.mean() < want - 0.5
    library("matplotlib")
    figure = hr.plot.corner(model, context=x[0], draws=500)
    ranges = np.array([axis.get_xlim() for axis in figure.axes[-d.features :]])
    many = drawn(estimator, x[:1].expand(500, -1))
    centers, spread = many.median(0).values.numpy(), many.std(0).numpy()
    assert (ranges[:, 0] < centers + spread).all()
    assert (ranges[:, 1] > centers - spread).all()


def test_an_accelerated_model_with_an_embedding_net_is_diagnosed(torch):
    library("nflows")
    d = Draw(6, True)
    model = nflows_maf(d, True)
    model._embedding_net = torch.nn.Linear(3, d.columns)
    fast = hr.accelerate(shaken(model, 6))
    c = torch.randn(200, 3)
    with torch.no_grad():
        x = fast.sample(1, c)[:, 0]
        want = fast.log_prob(x, c).mean().item()
    found = hr.diagnose(fast, x, c, progress=False)
    assert found.log_prob.mean() == pytest.approx(want, rel=1e-4)
    again = hr.diagnose(fast.flow, x.numpy(), fast._embedding_net(c).detach().numpy(), progress=False)
    assert np.allclose(again.log_prob, found.log_prob)


def test_several_estimators_are_refused(torch):
    library("sbi.inference.posteriors")
    from sbi.inference.posteriors import EnsemblePosterior

    with pytest.raises(TypeError, match="flow: expected one density estimator, got 0"):
        hr.diagnose(object.__new__(EnsemblePosterior), np.zeros((5, 2)))
