"""Accelerated models take the place of the originals, with the methods of the originals."""

import copy
import functools
import io
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import Draw, glasflow_flow, library, nflows_maf, normflows_made, shaken, zuko_flow

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries


@pytest.fixture
def torch():
    return library("torch")


def near(ours, theirs):
    assert ours.shape == theirs.shape
    assert_allclose(ours.detach(), theirs.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("context", [False, True])
def test_zuko(torch, context):
    library("zuko")
    d = Draw(5, context)
    model = shaken(zuko_flow(d), 5).double()
    fast = hr.accelerate(model)
    c = torch.randn(4, d.columns, dtype=torch.float64) if context else None
    x = torch.randn(7, 4, d.features, dtype=torch.float64)
    ours, theirs = fast(c), model(c)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    near(ours.log_prob(x), theirs.log_prob(x))
    for a, b in zip(ours.transform.call_and_ladj(x), theirs.transform.call_and_ladj(x), strict=True):
        near(a, b)
    z = ours.transform(x)
    near(ours.transform.inv(z), x)
    near(ours.base.log_prob(z[0]), theirs.base.log_prob(z[0]))
    near(fast.transform(c)(x), model.transform(c)(x))
    near(fast.base(c).log_prob(z[0]), model.base(c).log_prob(z[0]))
    assert ours.sample((6, 2)).shape == theirs.sample((6, 2)).shape
    drawn, log_prob = ours.rsample_and_log_prob((6,))
    near(theirs.log_prob(drawn), log_prob)


@pytest.mark.parametrize("context", [False, True])
def test_nflows(torch, context):
    library("nflows")
    d = Draw(6, context)
    model = nflows_maf(d, True)
    if context:
        model._embedding_net = torch.nn.Linear(3, d.columns)
    model = shaken(model, 6).double()
    fast = hr.accelerate(model)
    c = torch.randn(5, 3, dtype=torch.float64) if context else None
    x = torch.randn(5, d.features, dtype=torch.float64)
    near(fast.log_prob(x, c), model.log_prob(x, c))
    near(fast.transform_to_noise(x, c), model.transform_to_noise(x, c))
    plain, rows = copy.deepcopy(model).float(), c if c is None else c.float()  # the library samples in float32 alone
    drawn, log_prob = fast.sample_and_log_prob(4, c)
    assert drawn.shape == fast.sample(4, c).shape == plain.sample(4, rows).shape
    assert log_prob.shape == plain.sample_and_log_prob(4, rows)[1].shape
    rows = None if c is None else c.repeat_interleave(4, dim=0)
    near(log_prob.reshape(-1), model.log_prob(drawn.reshape(-1, d.features), rows))


@pytest.mark.parametrize("context", [False, True])
def test_normflows(torch, context):
    library("normflows")
    d = Draw(7, context)
    model = shaken(normflows_made(d, False), 7).double()
    fast = hr.accelerate(model)
    given = (torch.randn(5, d.columns, dtype=torch.float64),) if context else ()
    x = torch.randn(5, d.features, dtype=torch.float64)
    near(fast.log_prob(x, *given), model.log_prob(x, *given))
    near(fast.inverse(x, *given), model.inverse(x, *given))
    near(fast.forward(x, *given), model.forward(x, *given))
    near(fast.forward_kld(x, *given), -model.log_prob(x, *given).mean())  # the library sums in float32
    near(fast.forward_and_log_det(*fast.inverse_and_log_det(x, *given)[:1], *given)[0], x)
    drawn, log_prob = fast.sample(5, *given)
    near(log_prob, model.log_prob(drawn, *given))


@pytest.mark.parametrize("context", [False, True])
def test_glasflow(torch, context):
    library("glasflow")
    d = Draw(8, context)
    model = shaken(glasflow_flow(d, "RealNVP"), 8).double()
    fast = hr.accelerate(model)
    c = torch.randn(5, d.columns, dtype=torch.float64) if context else None
    x = torch.randn(5, d.features, dtype=torch.float64)
    near(fast.log_prob(x, conditional=c), model.log_prob(x, conditional=c))
    for verb in ("forward", "forward_and_log_prob"):
        for a, b in zip(getattr(fast, verb)(x, conditional=c), getattr(model, verb)(x, conditional=c), strict=True):
            near(a, b)
    z, _ = fast(x, conditional=c)
    near(fast.inverse(z, conditional=c)[0], x)
    near(fast.base_distribution_log_prob(z), model.base_distribution_log_prob(z))
    drawn, log_prob = fast.sample_and_log_prob(5, conditional=c)
    near(log_prob, model.log_prob(drawn, conditional=c))
    assert fast.sample(5, conditional=c).shape == (5, d.features)


def test_gradients_reach_contexts_and_copies_are_independent(torch):
    library("zuko")
    d = Draw(9, True)
    model = shaken(zuko_flow(d), 9).double()
    fast = hr.accelerate(model)
    x = torch.randn(5, d.features, dtype=torch.float64)
    grads = []
    for one in (model, fast):
        c = torch.linspace(-1, 1, 5 * d.columns, dtype=torch.float64).reshape(5, -1).requires_grad_()
        one(c).log_prob(x).sum().backward()
        grads.append(c.grad)
    near(*grads)
    before = fast(c).log_prob(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    near(fast(c).log_prob(x), before)
    for again in (copy.deepcopy(fast), reloaded(torch, fast)):
        near(again(c).log_prob(x), before)


def reloaded(torch, module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_random_numbers_are_those_of_pytorch(torch):
    library("zuko")
    fast = hr.accelerate(shaken(zuko_flow(Draw(10, False)), 10))
    torch.manual_seed(1)
    first = fast().sample((5,))
    torch.manual_seed(1)
    assert torch.equal(fast().sample((5,)), first)
    assert not np.array_equal(fast().sample((5,)), first)


class Target:
    """A correlated density with a known log density."""

    def log_prob(self, x, context=None):
        shift = 0.0 if context is None else context.sum(-1, keepdim=True)
        return -0.5 * ((x - shift) ** 2).sum(-1) - 0.1 * x.prod(-1) ** 2


@pytest.mark.parametrize("context", [False, True])
def test_losses_of_normflows_by_draws(torch, context, monkeypatch):
    library("normflows")
    d = Draw(7, context)
    model = shaken(normflows_made(d, False), 7)
    model.p = Target()
    fast = hr.accelerate(model)
    rows = (torch.randn(400, d.columns),) if context else ()
    x, log_q = fast.sample(400, *rows)
    near_enough = {"rtol": 1e-3, "atol": 1e-3}  # both libraries sum in float32
    assert_allclose(log_q.detach(), model.log_prob(x, *rows).detach(), **near_enough)
    z = model.inverse(x, *rows)
    fixed = (x, log_q)

    class Drawn:  # a base that gives both libraries equal samples
        def __call__(self, n, context=None):
            return z.detach(), self.log_prob(z.detach())

        def log_prob(self, z, context=None):
            return fast.q0.log_prob(z)

    monkeypatch.setattr(fast, "sample", lambda n, *c: fixed)
    assert isinstance(fast.p, Target)
    monkeypatch.delattr(model, "q0", raising=False)
    model._modules.pop("q0", None)
    model.q0 = Drawn()
    for score in (True, False):
        ours = fast.reverse_kld(400, *rows, beta=0.7, score_fn=score)
        assert_allclose(ours.detach(), model.reverse_kld(400, *rows, beta=0.7, score_fn=score).detach(), **near_enough)
    if not context:
        for alpha, doubly in ((0.5, False), (2.0, False), (0.5, True), (2.0, True)):
            ours = fast.reverse_alpha_div(400, alpha, doubly)
            theirs = model.reverse_alpha_div(400, alpha, doubly)
            assert_allclose(ours.detach(), theirs.detach(), **near_enough)
    y = z.detach()
    for flow in fast.flows:
        y, _ = flow(y, *rows)
    assert_allclose(y.detach(), x.detach(), **near_enough)


def test_a_loss_without_score_has_the_gradient_of_the_path_alone(torch):
    library("normflows")
    model = shaken(normflows_made(Draw(7, False), False), 7).double()
    model.p = Target()
    fast = hr.accelerate(model)
    torch.manual_seed(0)
    loss = fast.reverse_kld(4000, score_fn=False)
    (by_path,) = torch.autograd.grad(loss, fast.flow.vector)
    torch.manual_seed(0)
    (whole,) = torch.autograd.grad(fast.reverse_kld(4000), fast.flow.vector)
    assert torch.isfinite(by_path).all()
    # The gradients differ by the mean of the score over the samples, which is zero up to noise.
    assert 0 < (by_path - whole).norm() < 0.5 * whole.norm()
    fast.p = None
    with pytest.raises(AttributeError, match="p: expected a model with a target"):
        fast.reverse_kld()


def test_parts_of_nflows(torch):
    library("nflows")
    d = Draw(6, True)
    model = nflows_maf(d, True)
    model._embedding_net = torch.nn.Linear(3, d.columns)
    model = shaken(model, 6).double()
    fast = hr.accelerate(model)
    c, x = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, d.features, dtype=torch.float64)
    embedded = model._embedding_net(c)
    z, log_det = fast._transform(x, context=embedded)
    for ours, theirs in zip((z, log_det), model._transform(x, context=embedded), strict=True):
        near(ours, theirs)
    near(fast._transform.inverse(z, context=embedded)[0], x)
    near(fast._distribution.log_prob(z), model._distribution.log_prob(z))
    assert fast._distribution.sample(6).shape == (6, d.features)


@pytest.mark.parametrize("name", ["zuko", "nflows", "normflows", "glasflow"])
def test_states_that_the_model_saved_are_loaded(torch, name):
    library(name)
    d = Draw(6, False)
    make = {
        "zuko": lambda: zuko_flow(d),
        "nflows": lambda: nflows_maf(d, True),
        "normflows": lambda: normflows_made(d, False),
        "glasflow": lambda: glasflow_flow(d, "RealNVP"),
    }[name]
    model = shaken(make(), 6).double().eval()
    fast = hr.accelerate(model)
    other = shaken(copy.deepcopy(model), 9)
    file = io.BytesIO()
    torch.save(other.state_dict(), file)
    file.seek(0)
    fast.load_state_dict(torch.load(file))
    x = torch.randn(5, d.features, dtype=torch.float64)
    ours, theirs = ((m(None) if name == "zuko" else m) for m in (fast, other))
    near(ours.log_prob(x), theirs.log_prob(x))
    again = hr.accelerate(model)
    again.load_state_dict(fast.state_dict())
    near((again(None) if name == "zuko" else again).log_prob(x), theirs.log_prob(x))
    with pytest.raises(RuntimeError):
        fast.load_state_dict({"nothing": x})
    assert copy.deepcopy(fast).state_dict().keys() == fast.state_dict().keys()


@pytest.mark.parametrize("name", ["zuko", "nflows", "normflows", "glasflow"])
def test_an_accelerated_model_is_an_instance_of_its_class(torch, name, tmp_path):
    library(name)
    made = {
        "zuko": lambda: zuko_flow(Draw(5, False)),
        "nflows": lambda: nflows_maf(Draw(6, False), True),
        "normflows": lambda: normflows_made(Draw(7, False), False),
        "glasflow": lambda: glasflow_flow(Draw(8, False), "RealNVP"),
    }
    model = shaken(made[name](), 5).double().eval()
    fast = hr.accelerate(model)
    assert isinstance(fast, type(model))
    assert isinstance(fast, torch.nn.Module)
    assert type(fast) is not type(model)
    x = torch.randn(7, Draw({"zuko": 5, "nflows": 6, "normflows": 7, "glasflow": 8}[name], False).features).double()

    def log_prob(model):
        return model().log_prob(x) if name == "zuko" else model.log_prob(x)

    others = [copy.deepcopy(fast), torch.compile(fast, backend="eager")]
    if name != "glasflow":  # models of glasflow have a lambda, which pickle refuses
        torch.save(fast, tmp_path / "fast.pt")
        others += [pickle.loads(pickle.dumps(fast)), torch.load(tmp_path / "fast.pt", weights_only=False)]
    for again in others:
        assert isinstance(again, torch.nn.Module)
        near(log_prob(again), log_prob(model))
    assert isinstance(copy.deepcopy(fast), type(model))
    state = fast.state_dict()
    copied = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(0.9)
    copied.load_state_dict(state)
    near(log_prob(copied), log_prob(model))

    @functools.singledispatch
    def kind(thing):
        return "another"

    kind.register(type(model), lambda thing: "the model's")
    assert kind(fast) == "the model's"
