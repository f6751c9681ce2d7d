"""Flows as parts of programs that use PyTorch: encoders, optimisers, loaders, several processes, zuko."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headrace as hr

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from headrace.torch import FlowModule, TransformModule  # noqa: E402
from torch_cases import Posterior, rows, simulated, trained  # noqa: E402

# ---- joint training --------------------------------------------------------------------------------------------------


def test_gradients_reach_the_encoder():
    """By the chain rule, the encoder's gradient is its vector-Jacobian product with the flow's gradient by context."""
    module, (theta, x) = Posterior(), simulated(40)
    module(theta, x).backward()
    context = module.encoder(x)
    by_context = module.flow.flow.log_prob_vjp(
        theta.numpy(), np.full(40, -1 / 40, np.float32), context.detach().numpy(), wrt="context"
    )[0]
    expected = torch.autograd.grad(context, list(module.encoder.parameters()), torch.from_numpy(by_context))
    for parameter, gradient in zip(module.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_encoder_and_flow_learn_together():
    module, (theta, x) = Posterior(), simulated(500)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    losses = trained(module, theta, x, 60, torch.optim.Adam(module.parameters(), 1e-2))
    assert losses[-1] < losses[0] - 1.0
    assert all((p != start[name]).any() for name, p in module.named_parameters())


def test_weight_decay_shrinks_matrices_alone():
    module = FlowModule(hr.MAF(3, transforms=1, hidden=(16,), seed=0))
    with torch.no_grad():
        module.vector.add_(0.3 * (module.vector != 0))
    before = module.vector.detach().clone()
    groups = module.parameter_groups(weight_decay=0.5)
    assert sum(p.numel() for group in groups for p in group["params"]) == module.vector.numel()
    optimiser = torch.optim.AdamW(groups, lr=0.1)
    (0.0 * module.log_prob(rows(5, 3)).sum()).backward()
    optimiser.step()
    shrunk = module.vector.detach() / before
    for begin, end, is_bias in module._entry.flow._program.parts():
        factor = shrunk[begin:end][before[begin:end] != 0]
        torch.testing.assert_close(factor, torch.full_like(factor, 1.0 if is_bias else 0.95))


@pytest.mark.parametrize("clear", ["optimiser", "module", "to_zero"])
def test_gradients_of_groups_are_cleared_and_accumulated(clear):
    module, x = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=0)), rows(20, 3)
    groups = module.parameter_groups(weight_decay=0.0)
    optimiser, leaves = torch.optim.SGD(groups, lr=0.1), [leaf for group in groups for leaf in group["params"]]
    expected = torch.autograd.grad(module.log_prob(x).mean(), module.vector)[0]
    for _ in range(2):
        for count in (1.0, 2.0):  # the gradients of two losses add up
            module.log_prob(x).mean().backward()
            torch.testing.assert_close(module.vector.grad, count * expected)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
        norm = torch.stack([leaf.grad.square().sum() for leaf in leaves]).sum().sqrt()
        torch.testing.assert_close(norm, torch.tensor(1e-3))
        {
            "optimiser": optimiser.zero_grad,
            "module": module.zero_grad,
            "to_zero": lambda: optimiser.zero_grad(set_to_none=False),
        }[clear]()


def test_groups_outlive_a_change_of_dtype_and_copies_have_their_own():
    module, x = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=0)), rows(20, 3)
    optimiser = torch.optim.SGD(module.parameter_groups(weight_decay=0.0), lr=0.1)
    module.double()
    for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        before = other.vector.detach().clone()
        own = optimiser if other is module else torch.optim.SGD(other.parameter_groups(weight_decay=0.0), lr=0.1)
        own.zero_grad()
        (-other.log_prob(x).mean()).backward()
        own.step()
        torch.testing.assert_close(other.vector.detach(), before - 0.1 * other.vector.grad)
        assert (other.vector.grad != 0).any()


def test_the_flows_own_optimiser_trains_a_module():
    module, x = FlowModule(hr.MAF(3, transforms=1, hidden=(16,), seed=0)), rows(300, 3) * 3 + 2
    flow = module.flow
    optimiser, losses, placed = hr.Adam(flow, learning_rate=2e-2), [], module._entry.at(module.vector)
    for _ in range(40):
        module.zero_grad()
        loss = -module.log_prob(x).mean()
        loss.backward()
        optimiser.step(module.vector.grad)
        module.flow = flow
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0
    np.testing.assert_array_equal(module.flow.parameters, flow.parameters)
    assert module._entry.at(module.vector) is placed  # the program has not been compiled again


def test_to_flow_returns_a_fitted_flow():
    module, x = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=0)), rows(300, 3) * 7 + 30
    flow, handle = module.flow, module._entry.handle
    flow.fit(x.numpy(), epochs=1, progress=False)
    module.flow = flow
    assert module._entry.handle == handle
    np.testing.assert_array_equal(module.log_prob(x).detach(), flow.log_prob(x.numpy()))
    with pytest.raises(ValueError, match="flow: expected features, context and parameters"):
        module.flow = hr.MAF(4)
    with pytest.raises(TypeError, match="flow: expected a Flow"):
        module.flow = flow.parameters


def test_a_backward_pass_through_a_flow_that_was_replaced_is_refused():
    """The replaced flow has another structure of the same sizes, in which the order of the coordinates is reversed."""
    module, x = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=0)), rows(5, 3)
    chain = module.flow.transforms
    other = hr.Flow([hr.transforms.Permutation([2, 1, 0]), *chain])
    loss = module.log_prob(x).sum()
    module.flow = other
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    np.testing.assert_array_equal(module.log_prob(x).detach(), other.log_prob(x.numpy()))
    module.log_prob(x).sum().backward()
    *_, expected = other.log_prob_vjp(x.numpy(), np.ones(5, np.float32))
    np.testing.assert_allclose(module.vector.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.programs
def test_a_pickle_without_headrace_names_the_missing_package(tmp_path):
    torch.save(FlowModule(hr.MAF(3, transforms=1, hidden=(8,))), tmp_path / "module.pt")
    code = """
import sys, torch
sys.modules["headrace"] = None  # as where it is not installed
torch.load(sys.argv[1], weights_only=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "module.pt")], capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "ModuleNotFoundError" in done.stderr
    assert "headrace" in done.stderr.splitlines()[-1]


def test_no_rows_and_one_row_have_gradients():
    module = FlowModule(hr.MAF(3, context=2, transforms=1, hidden=(8,), seed=0))
    for n in (0, 1):
        x, context = rows(n, 3).requires_grad_(), rows(n, 2).requires_grad_()
        gradients = torch.autograd.grad(module.log_prob(x, context).sum(), (x, context, module.vector))
        assert [g.shape for g in gradients] == [x.shape, context.shape, module.vector.shape]
        assert bool((gradients[2] != 0).any()) == (n > 0)
        drawn = module.rsample_and_log_prob((), context)
        assert [t.shape for t in drawn] == [(n, 3), (n,)]


# ---- distributions and transforms ------------------------------------------------------------------------------------


def test_draws_of_a_transform_are_scored_with_present_parameters():
    """Draws without gradients are scored with the present parameters, which may have changed since the draw; the
    scores have gradients."""
    module = TransformModule(hr.transforms.MaskedAutoregressive(3, (16,), seed=1))
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    density = torch.distributions.TransformedDistribution(base, [module()])
    x = density.sample((20,))
    (gradient,) = torch.autograd.grad(-density.log_prob(x).mean(), module.vector)
    assert (gradient != 0).any()
    before = density.log_prob(x)
    with torch.no_grad():
        module.vector.add_(0.1)
    assert not torch.equal(density.log_prob(x), before)


def test_errors_of_moments_without_a_formula_have_an_estimate():
    density = FlowModule(hr.MAF(3, context=2, transforms=1, hidden=(8,), seed=1))(rows(5, 2))
    assert repr(density) == "FlowDistribution(MAF, batch_shape=(5,), event_shape=(3,))"
    calls = [density.entropy, lambda: density.cdf(rows(3))]
    calls += [lambda name=name: getattr(density, name) for name in ("mean", "mode", "variance", "stddev")]
    for call in calls:
        with pytest.raises(NotImplementedError, match=r"a flow has no formula for it; (estimate it by samples|go up)"):
            call()
    with pytest.raises(NotImplementedError, match=r"icdf: .* quantiles of a column are those of its samples"):
        density.icdf(rows(3))
    for draw in (density.sample, density.rsample, density.rsample_and_log_prob):
        with pytest.raises(TypeError, match="sample_shape: expected a tuple of ints, got 5"):
            draw(5)
    normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    for p, q in ((density, normal), (normal, density), (density, density)):
        with pytest.raises(NotImplementedError, match=r"kl_divergence: .*\(log_p - q\.log_prob\(x\)\)\.mean\(0\)"):
            torch.distributions.kl_divergence(p, q)


def test_the_estimates_of_messages_are_right():
    """The code in error messages estimates properties of a distribution, which are compared with known ones."""
    density = FlowModule(hr.Flow([hr.transforms.Standardize([1.0, 2.0], [0.5, 3.0])]))()
    torch.manual_seed(0)
    known = torch.distributions.Independent(
        torch.distributions.Normal(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])), 1
    )
    for name, limit in (("mean", 0.1), ("variance", 0.5), ("entropy", 0.1), ("cdf", 0.02)):
        with pytest.raises(NotImplementedError) as error:
            {"entropy": density.entropy, "cdf": lambda: density.cdf(known.mean)}.get(
                name, lambda name=name: getattr(density, name)
            )()
        expression = str(error.value).split("by samples, as ")[1]
        found = eval(expression, {"distribution": density, "value": known.mean})
        want = 0.25 if name == "cdf" else known.entropy() if name == "entropy" else getattr(known, name)
        torch.testing.assert_close(found, torch.as_tensor(want), rtol=0, atol=limit)
    other = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    x, log_p = density.rsample_and_log_prob((10_000,))
    estimate = (log_p - other.log_prob(x)).mean(0)
    torch.testing.assert_close(estimate, torch.distributions.kl_divergence(known, other), rtol=0, atol=0.3)


def test_a_transform_for_many_contexts_draws_for_each():
    module, context = TransformModule(hr.transforms.MaskedAutoregressive(3, (16,), context=2, seed=1)), rows(5, 2)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    density = torch.distributions.TransformedDistribution(base, [module(context)])
    assert (density.batch_shape, density.event_shape) == ((5,), (3,))
    x = density.rsample((4,))
    assert x.shape == (4, 5, 3)
    assert len(torch.unique(x[..., 0])) == 20  # every draw has different noise
    assert density.log_prob(x).shape == (4, 5)


def test_modules_take_the_place_of_zukos():
    zuko = pytest.importorskip("zuko")
    flow = hr.MAF(3, context=2, transforms=1, hidden=(16,), seed=1)
    flow.parameters = flow.parameters + 0.1
    module, context, x = TransformModule(flow.transforms[0]), rows(5, 2), rows(5, 3)
    base = zuko.lazy.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(3), torch.ones(3))
    theirs = zuko.lazy.Flow(zuko.lazy.LazyInverse(module), base)
    expected = torch.from_numpy(hr.Flow([flow.transforms[0]]).log_prob(x.numpy(), context.numpy()))
    torch.testing.assert_close(theirs(context).log_prob(x).detach(), expected, rtol=1e-5, atol=1e-5)
    drawn, log_prob = theirs(context).rsample_and_log_prob((7,))
    torch.testing.assert_close(theirs(context).log_prob(drawn), log_prob, rtol=1e-4, atol=1e-4)
    log_prob.sum().backward()
    assert (module.vector.grad != 0).any()


@pytest.mark.filterwarnings("ignore")  # warnings of Pyro
def test_distributions_work_in_pyro():
    """A flow is a likelihood, and a guide whose densities come with its draws; gradients reach the flow and the
    encoder."""
    pyro = pytest.importorskip("pyro", reason="pyro is not installed")
    from pyro.contrib.zuko import ZukoToPyro

    flow = FlowModule(hr.MAF(3, context=2, transforms=1, hidden=(8,), seed=1))
    encoder, measured = torch.nn.Linear(4, 2), rows(5, 4)

    def guide():
        with pyro.plate("rows", 5):
            return pyro.sample("z", ZukoToPyro(flow(encoder(measured))))

    trace = pyro.poutine.trace(guide).get_trace()
    node = trace.nodes["z"]
    trace.compute_log_prob()
    assert (node["value"].shape, node["log_prob"].shape) == ((5, 3), (5,))
    torch.testing.assert_close(node["log_prob"], flow.log_prob(node["value"], encoder(measured)), rtol=1e-4, atol=1e-4)
    seen = rows(5, 3, seed=3)
    conditioned = pyro.poutine.trace(pyro.condition(guide, {"z": seen})).get_trace()
    torch.testing.assert_close(conditioned.log_prob_sum(), flow.log_prob(seen, encoder(measured)).sum())

    def model():
        with pyro.plate("rows", 5):
            pyro.sample("z", pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1))

    loss = pyro.infer.Trace_ELBO().differentiable_loss(model, guide)
    gradients = torch.autograd.grad(loss, [flow.vector, encoder.weight])
    assert all(torch.isfinite(g).all() and (g != 0).any() for g in gradients)


# ---- ensembles -------------------------------------------------------------------------------------------------------


class Scorer(torch.nn.Module):
    """A module with a flow as a part."""

    def __init__(self, flow):
        super().__init__()
        self.flow = FlowModule(flow)

    def forward(self, x):
        return self.flow.log_prob(x)


def stacked(modules, base=None):
    """The modules as one function, by the code of PyTorch's tutorial on ensembles."""
    base = copy.deepcopy(modules[0]).to("meta") if base is None else base
    parameters, buffers = torch.func.stack_module_state(modules)
    call = lambda p, b, x: torch.func.functional_call(base, (p, b), (x,))  # noqa: E731
    return lambda x: torch.func.vmap(call, (0, 0, None))(parameters, buffers, x)


def small(seed, order=(0, 1, 2)):
    return hr.Flow(
        [hr.transforms.Permutation(list(order)), *hr.MAF(3, transforms=1, hidden=(8,), seed=seed).transforms]
    )


def fitted(seed):
    flow = hr.MAF(3, transforms=1, hidden=(8,), seed=seed)
    return flow.fit(rows(200, 3, seed=seed).numpy() * 3 + seed, epochs=1, progress=False, seed=seed) and flow


@pytest.mark.parametrize("change", [lambda m: m, torch.nn.Module.double, copy.deepcopy], ids=["made", "double", "copy"])
def test_modules_of_one_structure_are_an_ensemble(change):
    modules = [change(Scorer(small(seed))) for seed in range(3)]
    x = rows(10, 3).to(modules[0].flow.vector.dtype)
    for base in (None, modules[1]):
        for got, module in zip(stacked(modules, base)(x), modules, strict=True):
            torch.testing.assert_close(got, module(x))
    own = modules[0].state_dict()
    assert sorted(own) == ["flow._extra_state", "flow.vector"]


@pytest.mark.parametrize(
    "other",
    [lambda: small(1, (2, 1, 0)), lambda: small(1).to("cpu", "bf16"), lambda: hr.Flow(small(1).transforms[1:])],
    ids=["order", "matmul", "transforms"],
)
def test_an_ensemble_of_other_structures_is_refused(other):
    modules = [Scorer(small(0)), Scorer(other())]
    for base in (None, *modules):
        with pytest.raises(ValueError, match="structure: expected the state of modules that differ in `vector` alone"):
            stacked(modules, base)(rows(10, 3))


def test_an_ensemble_of_fits_on_other_rows_is_refused():
    """Flows that were fitted to different rows have different standardisations, and a stacked module has only one."""
    modules, x = [Scorer(fitted(seed)) for seed in range(2)], rows(10, 3)
    with pytest.raises(ValueError, match=r"standardisation .*headrace\.Ensemble"):
        stacked(modules)(x)
    loaded = Scorer(hr.MAF(3, transforms=1, hidden=(8,)))
    loaded.load_state_dict(modules[1].state_dict())
    with pytest.raises(ValueError, match="structure: expected"):
        stacked([modules[0], loaded])(x)
    torch.testing.assert_close(stacked([loaded, modules[1]])(x)[0], modules[1](x))
    assigned = Scorer(small(0))
    assigned.flow = FlowModule(modules[1].flow.flow)
    torch.testing.assert_close(stacked([modules[1], assigned])(x)[1], modules[1](x))


def test_an_average_of_modules_is_a_module():
    """The average has copies of the module's buffers, which are not averaged."""
    module, x = Scorer(small(0)), rows(10, 3)
    average = torch.optim.swa_utils.AveragedModel(module, use_buffers=True)
    for _ in range(3):
        average.update_parameters(module)
    torch.testing.assert_close(average(x), module(x))
    torch.testing.assert_close(stacked([module, average.module])(x)[1], module(x))
    empty = Scorer(small(0)).to("meta").to_empty(device="cpu")
    empty.load_state_dict(module.state_dict())
    torch.testing.assert_close(stacked([module, empty])(x)[1], module(x))


# ---- processes -------------------------------------------------------------------------------------------------------


PROGRAM = Path(__file__).with_name("torch_processes.py")


def alone(*arguments):
    """Run a program of tests that fork, in a process without other threads.

    pytest's process has threads of JAX, Dask and other packages, and a fork keeps the locks that these threads hold.
    """
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.programs
@pytest.mark.parametrize("kind", ["module", "accelerated"])
def test_loaders_workers_compute(kind):
    if kind == "accelerated":
        pytest.importorskip("nflows", reason="nflows is not installed")
    alone("loader", kind)


@pytest.mark.programs
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without its processes")
@pytest.mark.parametrize("groups", ["one group", "groups"])
def test_two_processes_are_one_with_the_whole_batch(tmp_path, groups):
    alone("halves", tmp_path, groups)


@pytest.mark.programs
def test_an_exported_graph_takes_no_module_of_another_process(tmp_path):
    """The graph must not compute with a module of the other process that has the same index and sizes, but another
    order of coordinates.
    """
    code = """
import sys, torch, headrace as hr
from headrace.torch import FlowModule
class Scored(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = FlowModule(flow)
    def forward(self, x):
        return self.flow.log_prob(x)
what, path = sys.argv[1:]
chain, x = hr.MAF(3, transforms=1, hidden=(8,), seed=0).transforms, torch.ones(2, 3)
if what == "write":
    torch.export.save(torch.export.export(Scored(hr.Flow([hr.transforms.Permutation([0, 1, 2]), *chain])), (x,)), path)
else:
    other = Scored(hr.Flow([hr.transforms.Permutation([2, 0, 1]), *chain]))
    print(torch.export.load(path).module()(x))
"""
    done = [
        subprocess.run([sys.executable, "-c", code, what, str(tmp_path / "graph.pt2")], capture_output=True, text=True)
        for what in ("write", "read")
    ]
    assert not done[0].returncode, done[0].stderr
    assert "handle: expected that of a module that lives" in done[1].stderr


@pytest.mark.programs
def test_imports_leave_out_torch_and_its_compiler():
    """headrace does not import PyTorch, and headrace.torch does not import PyTorch's compiler, even in the first
    call."""
    code = """
import sys, time, headrace as hr
assert "torch" not in sys.modules
import headrace.torch, torch
module, x = headrace.torch.FlowModule(hr.MAF(3)), torch.zeros(2, 3)
start = time.perf_counter()
(-module.log_prob(x).mean()).backward()
assert "torch._dynamo" not in sys.modules
print(time.perf_counter() - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert float(done.stdout) < 1.0  # the call takes 0.01 s; an import of the compiler would take 5 s


# ---- products in bf16 ------------------------------------------------------------------------------------------------


def test_products_in_bf16_are_part_of_the_density():
    exact = hr.MAF(3, transforms=2, hidden=(16,), seed=1)
    exact.parameters = exact.parameters + 0.3 * np.random.default_rng(0).standard_normal(exact.parameters.size).astype(
        "f4"
    )
    rounded = exact.to("cpu", "bf16")
    x = rows(50, 3)
    want = {flow.matmul: torch.as_tensor(flow.log_prob(x.numpy())) for flow in (exact, rounded)}
    assert not torch.equal(want["bf16"], want["exact"])
    module = FlowModule(rounded)
    for one in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert one.flow.matmul == "bf16"
        with torch.no_grad():
            assert torch.equal(one.log_prob(x), want["bf16"])
    for start, other in ((exact, rounded), (rounded, exact)):
        assigned, loaded = FlowModule(start), FlowModule(start)
        assigned.flow = other
        loaded.load_state_dict(FlowModule(other).state_dict())
        for one in (assigned, loaded):
            assert one.flow.matmul == other.matmul
            with torch.no_grad():
                assert torch.equal(one.log_prob(x), want[other.matmul])
    with pytest.raises(ValueError, match="matmul: expected float32 on the CPU for bf16"):
        module.double().log_prob(x.double())


def test_a_vector_of_another_length_is_refused():
    module = FlowModule(hr.MAF(2, transforms=1, hidden=(4,)))
    n = module.vector.numel()
    module.vector = torch.nn.Parameter(torch.zeros(n - 1))
    for call in (lambda: module().log_prob(torch.zeros(3, 2)), lambda: module().rsample((3,))):
        with pytest.raises(ValueError, match=rf"vector: expected shape \({n},\).*got \({n - 1},\)"):
            call()


def test_sparse_rows_are_refused_by_name():
    module = FlowModule(hr.MAF(2, 1, transforms=1, hidden=(4,)))
    rows, context = torch.ones(3, 2), torch.ones(3, 1)
    with pytest.raises(TypeError, match=r"value: expected a dense tensor, got layout torch.sparse_coo; call value\."):
        module(context).log_prob(rows.to_sparse())
    with pytest.raises(TypeError, match="context: expected a dense tensor"):
        module(context.to_sparse())


def test_a_module_draws_a_number_of_rows():
    module = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=1))
    assert module.sample(5).shape == module.sample((5,)).shape == (5, 3)
    with pytest.raises(TypeError, match=r"sample_shape: expected an int or a tuple of ints, got 2\.5"):
        module.sample(2.5)


def test_names_of_other_libraries():
    module = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=1))
    x = rows(4, 3)
    assert torch.equal(module.log_prob(inputs=x), module.log_prob(x))
    with pytest.raises(TypeError, match="inputs: expected None beside x"):
        module.log_prob(x, inputs=x)
    with pytest.raises(TypeError, match="x: expected a tensor, got None"):
        module.log_prob()
    torch.manual_seed(3)
    draws, log_prob = module.sample_and_log_prob(5)
    assert not draws.requires_grad
    torch.testing.assert_close(module.log_prob(draws), log_prob, rtol=1e-5, atol=1e-5)
    with pytest.raises(AttributeError, match=r"call module\.flow\.fit\(x\) on a flow"):
        module.fit(x)
    with pytest.raises(AttributeError, match="no attribute 'train_it'"):
        module.train_it(x)


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.bfloat16, lambda m: m.to(torch.float16)])
def test_narrow_floats_are_refused_before_anything_is_converted(convert):
    module = FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=1))
    model = nn.Sequential(module)
    with pytest.raises(TypeError, match=r"dtype: expected torch\.float32 or torch\.float64, got torch\.b?float16"):
        convert(model)
    assert module.vector.dtype == torch.float32
    assert model.double()[0].vector.dtype == torch.float64
