"""Flows as modules of PyTorch, compared with the flows themselves, with finite differences and by PyTorch's checks."""

import copy
import functools
import io
import pickle

import numpy as np
import pytest

import headrace as hr

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad, gradcheck  # noqa: E402
from torch.func import functional_call, grad, jacrev, vmap  # noqa: E402

from frameworks import NO_FLOWS  # noqa: E402
from headrace.torch import FlowModule, TransformModule, _autograd  # noqa: E402

FAMILIES = {
    "maf": lambda **kw: hr.MAF(3, transforms=2, hidden=(9, 8), activation="tanh", **kw),
    "iaf": lambda **kw: hr.IAF(3, transforms=2, hidden=(9,), activation="silu", **kw),
    "realnvp": lambda **kw: hr.RealNVP(3, transforms=3, hidden=(9,), activation="tanh", **kw),
    "nsf": lambda **kw: hr.NSF(3, transforms=2, hidden=(9,), activation="tanh", bins=4, **kw),
}
CONTEXT = 2


def changed(flow, seed=0):
    """The flow, with parameters that differ from their initial values."""
    vector = flow.parameters
    flow.parameters = (vector + 0.2 * np.random.default_rng(seed).standard_normal(vector.size)).astype(vector.dtype)
    return flow


def module_of(name, context=CONTEXT, dtype="float64"):
    return FlowModule(changed(FAMILIES[name](context=context, seed=1, dtype=dtype)))


def rows(*shape, dtype=torch.float64, requires_grad=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_(requires_grad)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


# ---- values ----------------------------------------------------------------------------------------------------------


def test_verbs_are_those_of_the_flow(family):
    module, x, context = module_of(family), rows(20, 3), rows(20, CONTEXT, seed=1)
    flow = module.flow
    with torch.no_grad():
        np.testing.assert_array_equal(module.log_prob(x, context), flow.log_prob(x.numpy(), context.numpy()))
        for ours, theirs in ((module.to_latent, flow.to_latent), (module.to_data, flow.to_data)):
            for a, b in zip(ours(x, context), theirs(x.numpy(), context.numpy()), strict=True):
                np.testing.assert_array_equal(a, b)


def test_leading_dimensions_and_contexts_broadcast():
    module = module_of("maf")
    x, context = rows(4, 1, 3), rows(5, CONTEXT, seed=1)
    got = module.log_prob(x, context)
    assert got.shape == (4, 5)
    for i in range(4):
        for j in range(5):
            torch.testing.assert_close(got[i, j], module.log_prob(x[i, 0], context[j]))
    assert module.log_prob(rows(3), rows(CONTEXT)).shape == ()
    z, log_det = module.to_latent(rows(0, 3), rows(CONTEXT))
    assert (z.shape, log_det.shape) == ((0, 3), (0,))


def test_a_distribution_draws_and_scores():
    module = module_of("maf")
    context = rows(5, CONTEXT)
    density = module(context)
    assert (density.batch_shape, density.event_shape, density.has_rsample) == ((5,), (3,), True)
    torch.manual_seed(3)
    x, log_prob = density.rsample_and_log_prob((200,))
    assert x.shape == (200, 5, 3)
    # The two densities are from two runs, forward and backward.
    torch.testing.assert_close(log_prob, density.log_prob(x), rtol=1e-8, atol=1e-8)
    torch.manual_seed(3)
    assert torch.equal(density.sample((200,)), x)
    assert not density.sample().requires_grad
    wider = module(context[0]).expand((7, 2))
    assert wider.sample().shape == (7, 2, 3)
    assert wider.log_prob(rows(3)).shape == (7, 2)
    assert module_of("maf", 0)().expand((7,)).rsample((2,)).shape == (2, 7, 3)


@pytest.mark.parametrize("base", [hr.Normal(3, trainable=True), hr.Logistic(3), hr.StandardNormal(3)], ids=repr)
def test_reparametrised_draws_follow_the_flow(base):
    flow = changed(hr.MAF(3, transforms=1, hidden=(8,), base=base, dtype="float32", seed=1), 2)
    module = FlowModule(flow)
    torch.manual_seed(0)
    x, log_prob = module.rsample_and_log_prob((20_000,))
    torch.testing.assert_close(log_prob, module.log_prob(x), rtol=1e-3, atol=2e-3)  # errors of a round trip in float32
    theirs = flow.sample(20_000, seed=1)
    spread = theirs.std(axis=0) / np.sqrt(10_000)  # the standard error of a difference of two means
    assert (np.abs(x.detach().numpy().mean(0) - theirs.mean(0)) < 5 * spread).all()
    x.sum().backward()
    assert torch.isfinite(module.vector.grad).all()
    assert (module.vector.grad != 0).any()


KINDS = ["normal", "uniform", "logistic"]
FIXED = {
    "uniform": lambda: hr.Uniform(3),
    "independent": lambda: hr.Independent(KINDS),
    "student": lambda: hr.StudentT(3, [1.5, 4.0, 1e6], trainable=False),
    "mixture": lambda: hr.NormalMixture(
        3, 2, loc=[[-4.0, 0.0, 1.0], [4.0, 3.0, 1.0]], scale=[[0.5, 1.0, 2.0]] * 2, weights=[0.2, 0.8], trainable=False
    ),
}


def largest_gap(a, b):
    """The largest differences of the two distribution functions (Kolmogorov, Smirnov), one for each column."""
    both = np.sort(np.concatenate([a, b]), axis=0)
    shares = [
        [np.searchsorted(np.sort(x[:, c]), both[:, c], side="right") / len(x) for c in range(x.shape[1])]
        for x in (a, b)
    ]
    return np.abs(np.subtract(*shares)).max(axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FIXED)
def test_draws_of_other_bases_follow_the_flow(name, dtype):
    """Each column's distribution is compared with that of the flow's samples; equal distributions exceed the
    limit with a probability of one in a million."""
    base = FIXED[name]()
    rows, limit = 20_000, np.sqrt(-0.5 * np.log(0.5e-6) * 2 / 20_000)
    plain = hr.Flow([], base, dtype=dtype)
    torch.manual_seed(0)
    x = FlowModule(plain).sample((rows,)).numpy()
    assert x.dtype == dtype
    assert (largest_gap(x, plain.sample(rows, seed=1)) < limit).all()
    ranks = x.argsort(axis=0).argsort(axis=0) / rows - 0.5
    between = (ranks.T @ ranks / rows)[np.triu_indices(3, 1)]
    if name == "mixture":
        assert between[0] > 0.01  # columns depend on each other through the component of the row
    else:
        assert np.abs(between).max() < 5.0 / np.sqrt(rows) / 12.0
    map = {} if name in ("student", "mixture") else {"map": "rq_spline", "bound": 1.0}
    chain = [hr.transforms.MaskedAutoregressive(3, (8,), context=1, seed=1, **map)]
    flow = changed(hr.Flow(chain, base, dtype=dtype), 2)
    module = FlowModule(flow)
    context = torch.ones(1, dtype=module.vector.dtype)
    x, log_prob = module.rsample_and_log_prob((rows,), context)
    kept = x.abs().amax(dim=1) < 50
    again = module.log_prob(x, context)
    torch.testing.assert_close(log_prob[kept], again[kept], rtol=1e-3, atol=5e-3)  # errors of a round trip in float32
    theirs = flow.sample(rows, context.numpy(), seed=1)
    assert (largest_gap(x.detach().numpy(), theirs) < limit).all()
    torch.tanh(x).sum().backward()
    assert torch.isfinite(module.vector.grad).all()
    assert (module.vector.grad != 0).any()


@pytest.mark.parametrize("base", [hr.StudentT(3, [1.5, 4.0, 9.0]), hr.NormalMixture(3, 2, seed=4)], ids=repr)
def test_trained_parameters_of_drawing_are_followed_without_gradients_alone(base):
    flow = changed(hr.Flow([], base, dtype="float64"), 5)
    module = FlowModule(hr.Flow([], base, dtype="float64"))
    module.flow = flow
    for draw in (module.rsample, module().rsample):
        with pytest.raises(ValueError, match=r"^base: expected one whose draws .*trainable=False") as error:
            draw((3,))
        assert type(base).__name__ in str(error.value)
    torch.manual_seed(0)
    rows = 20_000
    x = module.sample((rows,))
    assert not x.requires_grad
    limit = np.sqrt(-0.5 * np.log(0.5e-6) * 2 / rows)
    assert (largest_gap(x.numpy(), flow.sample(rows, seed=1)) < limit).all()
    assert module().sample((2, 4)).shape == (2, 4, 3)


# ---- derivatives -----------------------------------------------------------------------------------------------------


def weights_of(module, count=25):
    """The indices of some entries of the vector that are weights."""
    places = torch.from_numpy(np.flatnonzero(module.flow.parameters))
    return places[:: max(1, len(places) // count)]


@pytest.mark.parametrize("verb", ["log_prob", "to_latent", "to_data", "rsample"])
def test_gradients_against_finite_differences(family, verb):
    module = module_of(family)
    x, context = rows(9, 3, requires_grad=True), rows(9, CONTEXT, requires_grad=True, seed=1)
    places = weights_of(module)
    part = module.vector.detach()[places].requires_grad_()

    def call(x, context, part):
        vector = module.vector.detach().index_put((places,), part)
        if verb == "rsample":
            torch.manual_seed(0)
            return functional_call(module, {"vector": vector}, (context,)).rsample_and_log_prob()
        return functional_call(Verb(module, verb), {"module.vector": vector}, (x, context))

    assert gradcheck(call, (x, context, part), atol=1e-6)


TRANSFORMS = {
    "act_norm": lambda: hr.transforms.ActNorm(3),
    "coupling": lambda: hr.transforms.Coupling(3, [1], (5,), context=CONTEXT, map="rq_spline", activation="tanh"),
    "elementwise": lambda: hr.transforms.Elementwise(3, map="rq_spline"),
    "coupling of all": lambda: hr.transforms.Coupling(3, [], (5,), context=CONTEXT, activation="tanh"),
    "inverse": lambda: hr.transforms.Inverse(
        hr.transforms.MaskedAutoregressive(3, (5,), context=CONTEXT, activation="tanh")
    ),
    "linear": lambda: hr.transforms.Linear(3),
    "permutation": lambda: hr.transforms.Permutation([2, 0, 1]),
    "planar": lambda: hr.transforms.Planar(3, nonlinearity="tanh", context=CONTEXT, hidden=(5,)),
    "radial": lambda: hr.transforms.Radial(3),
    "rotation": lambda: hr.transforms.Rotation(np.linalg.qr(np.eye(3) + np.tri(3))[0]),
    "standardize": lambda: hr.transforms.Standardize([1.0, 2.0, 3.0], [0.5, 1.0, 2.0]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_of_every_transform_against_finite_differences(name):
    flow = changed(hr.Flow([TRANSFORMS[name]()]).astype("float64"))
    module = FlowModule(flow)
    given = [rows(5, 3, requires_grad=True)]
    if flow.context:
        given.append(rows(5, CONTEXT, requires_grad=True, seed=1))
    vector = module.vector.detach().requires_grad_()
    for verb in ("log_prob", "to_latent", "to_data"):

        def call(vector, *given, verb=verb):
            return functional_call(Verb(module, verb), {"module.vector": vector}, given)

        assert gradcheck(call, (vector, *given), atol=1e-6)


class Verb(torch.nn.Module):
    """A module whose forward pass is one verb of another module."""

    def __init__(self, module, verb):
        super().__init__()
        self.module, self.verb = module, verb

    def forward(self, *arguments):
        return getattr(self.module, self.verb)(*arguments)


@pytest.mark.parametrize("one_context", [False, True])
def test_one_run_and_two_give_the_same_gradients(family, one_context):
    module, x = module_of(family), rows(30, 3, requires_grad=True)
    context = rows(CONTEXT, requires_grad=True) if one_context else rows(30, CONTEXT, requires_grad=True)
    losses = {"mean": lambda v: -v.mean(), "weighted": lambda v: (v * torch.arange(30)).sum()}
    for loss in losses.values():
        found = []
        for one_run in (True, False):
            module._entry.one_run = one_run
            found.append(torch.autograd.grad(loss(module.log_prob(x, context)), (x, context, module.vector)))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not module._entry.one_run  # a loss with different factors of rows takes two runs


def test_transforms_of_torch_func(family):
    module, x, context = module_of(family), rows(9, 3), rows(9, CONTEXT, seed=1)
    score = vmap(grad(lambda x, c: module.log_prob(x, c)))(x, context)
    expected = module.flow.log_prob_vjp(x.numpy(), np.ones(9), context.numpy(), wrt="inputs")[0]
    torch.testing.assert_close(score, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)

    def of_row(vector, x, c):
        return functional_call(Verb(module, "log_prob"), {"module.vector": vector}, (x, c))

    each = vmap(grad(of_row), (None, 0, 0))(module.vector.detach(), x, context)
    whole = module.flow.log_prob_vjp(x.numpy(), np.ones(9), context.numpy(), wrt="parameters")[0]
    torch.testing.assert_close(each.sum(0), torch.from_numpy(whole), rtol=1e-9, atol=1e-9)

    jacobian = jacrev(lambda z: module.to_data(z, context[0])[0])(x[0])
    log_det = module.to_data(x[0], context[0])[1]
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det, rtol=1e-8, atol=1e-8)

    ensemble = torch.stack([module.vector.detach(), 0.9 * module.vector.detach()])
    both = vmap(of_row, (0, None, None))(ensemble, x, context)
    torch.testing.assert_close(both[0], module.log_prob(x, context))


@pytest.mark.parametrize("verb", ["to_data", "to_latent", "rsample_and_log_prob"])
@pytest.mark.parametrize("one_context", [False, True])
def test_the_shorter_path_has_the_same_bits(monkeypatch, verb, one_context):
    """The shorter path serves both passes where nothing is traced or transformed; mapped gradients take the longer
    path."""
    module, x = module_of("iaf"), rows(9, 3, requires_grad=True)
    context = rows(*(() if one_context else (9,)), CONTEXT, seed=1, requires_grad=True)
    wrt = (context, module.vector) if verb == "rsample_and_log_prob" else (x, context, module.vector)
    weights = rows(4, 9, 3, seed=2)
    found = []
    for is_plain in (_autograd.is_plain, lambda *tensors: False):
        monkeypatch.setattr(_autograd, "is_plain", is_plain)
        torch.manual_seed(3)
        if verb == "rsample_and_log_prob":
            value, number = getattr(module, verb)((9,) if one_context else (), context)
        else:
            value, number = getattr(module, verb)(x, context)
        loss = (weights[0] * value).sum() + (weights[1, :, 0] * number).sum()
        with torch.no_grad():
            again = module.to_data(x, context) if verb == "to_data" else ()
        each = vmap(lambda w, v=value: torch.autograd.grad(v, wrt, w, retain_graph=True))(weights)
        found.append((value, number, *again, *torch.autograd.grad(loss, wrt), *each))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("verb", ["log_prob", "to_data"])
@pytest.mark.parametrize("one_run", [False, True])
def test_gradients_of_many_losses_at_once(verb, one_run):
    """`torch.func` computes the gradients of many losses; PyTorch's older `is_grads_batched` raises an error that
    names `torch.func`."""
    module, x, context = module_of("maf"), rows(6, 3, requires_grad=True), rows(6, CONTEXT, seed=1, requires_grad=True)
    module._entry.one_run = one_run
    out, wrt = getattr(module, verb)(x, context), (x, context, module.vector)
    out = out if verb == "log_prob" else out[1]
    eye = torch.eye(6).double()
    found = vmap(lambda w: torch.autograd.grad(out, wrt, w, retain_graph=True))(eye)
    for i in range(6):
        for got, want in zip(found, torch.autograd.grad(out[i], wrt, retain_graph=True), strict=True):
            torch.testing.assert_close(got[i], want, rtol=1e-9, atol=1e-9)
    with pytest.raises(RuntimeError, match=r"is_grads_batched: .*torch\.func\.vmap"):
        torch.autograd.grad(out, wrt, eye, is_grads_batched=True)


@pytest.mark.parametrize("verb", ["log_prob", "to_data"])
def test_second_derivatives_are_refused_with_the_reason(verb):
    module, x = module_of("maf", 0), rows(9, 3, requires_grad=True)
    value = getattr(module, verb)(x)
    value = value if verb == "log_prob" else value[0]
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives"):
        first.square().sum().backward()


@pytest.mark.parametrize("verb", ["log_prob", "to_data"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch warns at its first jvp
def test_forward_mode_is_refused_with_the_reason(verb):
    """Forward mode is refused even under no_grad, which leaves it enabled: without the error, a tangent would be
    lost.
    """
    module, x = module_of("maf", 0), rows(9, 3)

    def call(x):
        value = getattr(module, verb)(x)
        return value if verb == "log_prob" else value[0]

    for derive in (torch.func.jacfwd(call), torch.func.hessian(call), lambda x: torch.func.jvp(call, (x,), (x,))):
        with pytest.raises(RuntimeError, match="reverse mode"):
            derive(x)
    for grad_enabled in (True, False):
        with (
            forward_ad.dual_level(),
            torch.set_grad_enabled(grad_enabled),
            pytest.raises(RuntimeError, match="reverse"),
        ):
            call(forward_ad.make_dual(x, x))


# ---- PyTorch's own checks --------------------------------------------------------------------------------------------


def test_operators_pass_opcheck():
    module = module_of("maf")
    vector, handle = module.vector.detach(), module._entry.handle
    names = torch.ops.headrace
    wrt = [True, True, True]
    for x in (rows(9, 3), rows(3, 9).T, rows(1, 3).expand(9, 3), rows(0, 3)):
        n = len(x)
        context = rows(n, CONTEXT)
        torch.library.opcheck(names.log_prob.default, (x, context, vector, handle))
        for of_log_prob in (False, True):
            torch.library.opcheck(names.run.default, (x, context, vector, handle, False, of_log_prob))
        arguments = (x, context, vector, rows(n, 3), rows(n), handle, False, False, wrt)
        torch.library.opcheck(names.vjp.default, arguments)
    wanted = rows(9, 3, requires_grad=True), rows(9, CONTEXT, requires_grad=True), vector.clone().requires_grad_()
    torch.library.opcheck(names.log_prob.default, (*wanted, handle))
    torch.library.opcheck(names.run.default, (*wanted, handle, True, False))
    # Rows are float32 for float64 parameters, and all rows share one context.
    x, context = rows(9, 3).float(), rows(CONTEXT)
    torch.library.opcheck(names.log_prob.default, (x, context, vector, handle))


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compiled_and_exported():
    module, x, context = module_of("maf", dtype="float32"), rows(20, 3).float(), rows(20, CONTEXT).float()
    step = torch.compile(lambda x, c: -module.log_prob(x, c).mean(), fullgraph=True)
    x.requires_grad_()
    (compiled,) = torch.autograd.grad(step(x, context), x)
    (eager,) = torch.autograd.grad(-module.log_prob(x, context).mean(), x)
    torch.testing.assert_close(compiled, eager)
    exported = torch.export.export(Verb(module, "log_prob"), (x.detach(), context))
    torch.testing.assert_close(exported.module()(x.detach(), context), module.log_prob(x, context).detach())


def test_an_exported_graph_has_gradients():
    """The exported graph calls operators without the module, and gradients have to pass through these operators."""
    module, x, context = module_of("maf"), rows(20, 3), rows(20, CONTEXT, requires_grad=True, seed=1)
    weights = rows(20, 3, seed=2)
    for verb in ("log_prob", "to_data", "to_latent"):
        graph = torch.export.export(Verb(module, verb), (x, context.detach())).module()
        found = []
        for call, vector in (
            (graph, dict(graph.named_parameters())["module.vector"]),
            (Verb(module, verb), module.vector),
        ):
            out = call(x, context)
            loss = (weights[:, 0] * out).sum() if verb == "log_prob" else (weights * out[0]).sum() + out[1].sum()
            found.append(torch.autograd.grad(loss, (context, vector), create_graph=True))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        with pytest.raises(RuntimeError, match="first derivatives"):
            found[0][0].square().sum().backward()


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.nightly)])
def test_a_distribution_and_a_transform_compile_whole(backend):
    """The distribution and the transform are one graph each; inductor takes seconds, and is tested by day only in the
    test of a step."""
    compiled = functools.partial(torch.compile, fullgraph=True, backend=backend)
    transform = TransformModule(hr.transforms.MaskedAutoregressive(3, (8,), context=CONTEXT, seed=1, dtype="float64"))
    module, x, context = module_of("maf"), rows(20, 3), rows(20, CONTEXT)
    base = torch.distributions.Independent(torch.distributions.Normal(rows(3) * 0, torch.ones(3).double()), 1)

    def of_transform(x, context):
        return torch.distributions.TransformedDistribution(base, [transform(context)]).log_prob(x)

    for call in (lambda x, c: module(c).log_prob(x), of_transform, lambda x, c: transform(c).inv.call_and_ladj(x)[1]):
        torch.testing.assert_close(compiled(call)(x, context), call(x, context))
    drawn, log_prob = compiled(lambda c: module(c).rsample_and_log_prob((4,)))(context)
    torch.testing.assert_close(log_prob, module(context).log_prob(drawn), rtol=1e-8, atol=1e-8)


def test_autocast_inference_mode_hooks_and_checkpointing():
    module, x = module_of("maf", 0, "float32"), rows(20, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = torch.nn.functional.linear(x, torch.eye(3))
        assert half.dtype == torch.bfloat16
        assert module.log_prob(half).dtype == torch.float32
    with torch.inference_mode():
        assert torch.equal(module.log_prob(x), module.log_prob(x))
    seen = []
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module().log_prob(x)
    x.requires_grad_()
    plain = torch.autograd.grad(module.log_prob(x).sum(), x)[0]
    kept = torch.utils.checkpoint.checkpoint(module.log_prob, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(kept.sum(), x)[0], plain)
    assert seen == ["forward"]


# ---- copies, states, training ----------------------------------------------------------------------------------------


def test_copies_pickles_and_states():
    module, x, context = module_of("nsf"), rows(20, 3), rows(20, CONTEXT)
    expected = module.log_prob(x, context)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert torch.equal(other.log_prob(x, context), expected)
        assert other._entry.handle != module._entry.handle
        with torch.no_grad():
            other.vector.mul_(0.5)
        assert torch.equal(module.log_prob(x, context), expected)
    fresh = FlowModule(FAMILIES["nsf"](context=CONTEXT, seed=9, dtype="float64"))
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh.log_prob(x, context), expected)
    with pytest.raises((RuntimeError, ValueError), match="state_dict"):
        module_of("maf").load_state_dict(module.state_dict())


def test_the_state_has_the_standardisation_of_a_fit():
    x = rows(500, 3).numpy() * 7 + 30
    flow = hr.MAF(3, transforms=1, hidden=(8,), seed=0)
    start = FlowModule(flow)
    flow.fit(x, epochs=1, progress=False)
    fitted = FlowModule(flow)
    start.load_state_dict(fitted.state_dict())
    assert torch.equal(start.log_prob(torch.from_numpy(x)), fitted.log_prob(torch.from_numpy(x)))


def test_dtypes_follow_the_parameters():
    module = module_of("maf", 0, "float32")
    x = rows(20, 3)
    single = module.log_prob(x)
    assert single.dtype == torch.float32
    double = module.double().log_prob(x)
    assert (double.dtype, module.flow.dtype) == (torch.float64, np.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


def test_training_with_groups_is_training_with_the_flows_own_optimiser():
    x = rows(400, 3).float() * torch.tensor([1.0, 2.0, 0.5]) + 1
    flow = hr.MAF(3, transforms=2, hidden=(16,), seed=0)
    module = FlowModule(flow)
    ours = hr.Adam(flow, learning_rate=1e-2, weight_decay=0.1)
    theirs = torch.optim.AdamW(module.parameter_groups(weight_decay=0.1), lr=1e-2)
    for _ in range(30):
        loss, gradient = flow.nll_and_grad(x.numpy())
        ours.step(gradient)
        theirs.zero_grad()
        other = -module.log_prob(x).mean()
        other.backward()
        theirs.step()
        assert abs(loss - other.item()) < 1e-3
    np.testing.assert_allclose(module.flow.parameters, flow.parameters, rtol=0, atol=2e-3)


def test_transforms_stand_in_torch_distributions():
    transform = hr.transforms.MaskedAutoregressive(3, (16,), context=CONTEXT, seed=1, dtype="float64")
    vector = transform.parameters
    transform.parameters = vector + 0.2 * np.random.default_rng(0).standard_normal(vector.size)
    module, context = TransformModule(transform), rows(CONTEXT)
    base = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros(3).double(), torch.ones(3).double()), 1
    )
    density = torch.distributions.TransformedDistribution(base, [module(context)])
    flow = hr.Flow([transform])
    x = density.rsample((50,))
    expected = flow.log_prob(x.detach().numpy(), context.numpy())
    torch.testing.assert_close(density.log_prob(x).detach(), torch.from_numpy(expected), rtol=1e-8, atol=1e-8)
    y, log_det = module(context).call_and_ladj(rows(5, 3))
    back, other = module(context).inv.call_and_ladj(y)
    torch.testing.assert_close(back, rows(5, 3), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(other, -log_det, rtol=1e-8, atol=1e-8)


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_errors_name_the_argument():
    module = module_of("maf")
    x, context = rows(5, 3), rows(5, CONTEXT)
    with pytest.raises(TypeError, match="flow: expected a Flow"):
        FlowModule(hr.transforms.Permutation([1, 0]))
    for wrong, message in NO_FLOWS:
        with pytest.raises(TypeError, match=f"flow: expected a Flow, got {message}"):
            FlowModule(wrong())
        with pytest.raises(TypeError, match=message):
            module.flow = wrong()
    with pytest.raises(TypeError, match="x: expected a tensor"):
        module.log_prob(x.numpy(), context)
    with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., 3\), got \(5, 2\)"):
        module.log_prob(context, context)
    with pytest.raises(ValueError, match=r"context: expected shape \(\.\.\., 2\), or \(2,\) for all rows, got None"):
        module.log_prob(x)
    with pytest.raises(ValueError, match="context: expected leading dimensions"):
        module.log_prob(x, rows(4, CONTEXT))
    with pytest.raises(TypeError, match="x: expected dtype float32 or float64"):
        module.log_prob(x.long(), context)
    with pytest.raises(ValueError, match="x: expected a tensor on cpu"):
        module.log_prob(x.to("meta"), context)
    draw = functools.partial(module.sample, ())
    for wrong, error, message in (
        (list(context), TypeError, "expected a tensor"),
        (x, ValueError, r"expected shape \(\.\.\., 2\)"),
        (context.to("meta"), ValueError, "expected a tensor on cpu"),
    ):
        for call in (module, draw):
            with pytest.raises(error, match=f"context: {message}"):
                call(wrong)
    plain = module_of("maf", 0)
    for call in (plain, lambda c: plain.log_prob(x, c), lambda c: plain.sample((), c)):
        with pytest.raises(ValueError, match="context: expected None, because this takes no context, got"):
            call(context)
    with pytest.raises(ValueError, match=r"value: expected leading dimensions .*batch_shape \(5,\), got \(4,\)"):
        module(context).log_prob(rows(4, 3))
    for density in (module(context), module_of("maf", 0)().expand((5,))):
        with pytest.raises(ValueError, match=r"batch_shape: expected one that \(5,\) expands to, got \(4,\)"):
            density.expand((4,))
    handle = module._entry.handle
    del module, draw
    with pytest.raises(RuntimeError, match="handle: expected that of a module that lives"):
        torch.ops.headrace.log_prob(x, context, torch.zeros(1).double(), handle)
