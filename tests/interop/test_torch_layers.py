"""The option FlowModule(flow, layers=True), with one dense parameter for each matrix and bias."""

import copy
import io

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr

torch = pytest.importorskip("torch", reason="torch is not installed")

from headrace.torch import FlowModule  # noqa: E402

FLOWS = {
    "maf": lambda: hr.MAF(4, context=2, hidden=(8, 9), transforms=2, seed=0, dtype="float64"),
    "nsf": lambda: hr.NSF(4, context=2, hidden=(8,), transforms=2, seed=0, dtype="float64"),
    "residual": lambda: hr.MAF(4, context=2, hidden=(8, 8), residual=True, transforms=2, seed=0, dtype="float64"),
    "realnvp": lambda: hr.RealNVP(4, context=2, hidden=(8,), transforms=2, seed=0, dtype="float64"),
    "linear, a base with parameters": lambda: hr.Flow(
        [hr.transforms.Linear(4), *hr.MAF(4, context=2, hidden=(8,), transforms=1, seed=0).transforms],
        base=hr.StudentT(4, 5.0),
    ).astype("float64"),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    made = FLOWS[request.param]()
    made.parameters = made.parameters + 0.2 * np.random.default_rng(0).standard_normal(made.parameters.size)
    return made


def rows(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


class LogProb(torch.nn.Module):
    """A module whose forward pass is a log density."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, c):
        return self.module.log_prob(x, c)


def test_values_and_gradients_are_those_of_the_vector(flow):
    dense, plain = FlowModule(flow, layers=True), FlowModule(flow)
    x, c = rows(5, 4), rows(5, 2, seed=1)
    assert torch.equal(dense.vector, plain.vector)
    assert torch.equal(dense.log_prob(x, c), plain.log_prob(x, c))
    dense.log_prob(x, c).sum().backward()
    plain.log_prob(x, c).sum().backward()
    names = dict(dense.layers.named_parameters())
    begin, seen = 0, 0
    for prefix, block in flow._blocks():
        for name, array in block.named(plain.vector.grad.numpy()[begin : begin + block.size]).items():
            assert_array_equal(names[prefix + name].grad.numpy(), array)
            seen += 1
        begin += block.size
    assert seen == len(names)
    torch.manual_seed(0)
    draws = dense(c).sample((3,))
    torch.manual_seed(0)
    assert torch.equal(draws, plain(c).sample((3,)))


def test_gradients_against_finite_differences(flow):
    module = FlowModule(flow, layers=True)
    x, c = rows(3, 4), rows(3, 2, seed=1)
    names = ["module.layers." + name for name, _ in module.layers.named_parameters()]
    scored = LogProb(module)

    def loss(*tensors):
        return torch.func.functional_call(scored, dict(zip(names, tensors, strict=True)), (x, c))

    tensors = tuple(p.detach().clone().requires_grad_() for p in module.layers.parameters())
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss(*tensors).sum(), tensors[-2:]))
    assert torch.autograd.gradcheck(loss, tensors, atol=1e-6, rtol=1e-5)


def test_entries_outside_of_masks_stay_zero_and_a_step_of_each_matrix_is_kept(flow):
    module = FlowModule(flow, layers=True)
    before = {name: p.detach().clone() for name, p in module.layers.named_parameters()}
    groups = module.parameter_groups(0.1)
    assert sum(len(group["params"]) for group in groups) == len(before)
    assert all(p.ndim > 1 for p in groups[0]["params"])
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    x, c = rows(50, 4), rows(50, 2, seed=1)
    for _ in range(3):
        optimiser.zero_grad()
        (-module.log_prob(x, c).mean()).backward()
        optimiser.step()
    moved = 0
    for name, p in module.layers.named_parameters():
        outside = before[name] == 0
        assert (p.detach()[outside] == 0).all()
        moved += bool((p.detach() != before[name]).any())
    assert moved >= len(before) // 2
    trained = module.flow
    assert_allclose(trained.log_prob(x.numpy(), c.numpy()), module.log_prob(x, c).detach(), rtol=1e-12)
    assert_array_equal(trained.parameters, module.vector.detach().numpy())


def test_copies_states_dtypes_and_assignment(flow):
    module = FlowModule(flow, layers=True)
    x, c = rows(5, 4), rows(5, 2, seed=1)
    want = module.log_prob(x, c)
    assert torch.equal(copy.deepcopy(module).log_prob(x, c), want)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = FlowModule(copy.copy(flow), layers=True)
    with torch.no_grad():
        for p in other.layers.parameters():
            p.zero_()
    assert not torch.equal(other.log_prob(x, c), want)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.log_prob(x, c), want)
    assert_allclose(copy.deepcopy(module).float().log_prob(x.float(), c.float()).detach(), want.detach(), rtol=1e-3)
    with pytest.raises(TypeError, match=r"expected torch\.float32 or torch\.float64, got torch\.float16"):
        module.half()
    changed = copy.copy(flow)
    changed.parameters = 0.5 * flow.parameters
    module.flow = changed
    assert torch.equal(module.vector, torch.from_numpy(changed.parameters))
    with pytest.raises(TypeError, match="layers: expected True or False, got 'yes'"):
        FlowModule(flow, layers="yes")


def test_weight_norm_and_other_parametrisations_of_a_matrix():
    flow = hr.MAF(3, hidden=(8,), transforms=1, seed=0)
    module = FlowModule(flow, layers=True)
    x = rows(20, 3).float()
    want = module.log_prob(x)
    layer = module.layers.transforms.get_submodule("0").layers.get_submodule("1")
    torch.nn.utils.parametrizations.weight_norm(layer, "weight")
    assert_allclose(module.log_prob(x).detach(), want.detach(), rtol=1e-4, atol=1e-5)
    module.log_prob(x).sum().backward()
    assert {name.rsplit(".", 1)[-1] for name, p in module.named_parameters() if p.grad is not None} >= {
        "original0",
        "original1",
    }


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*jit.trace.*:DeprecationWarning")
@pytest.mark.parametrize("layers", [False, True])
def test_torch_jit_trace_passes_its_own_check(layers):
    module = FlowModule(FLOWS["nsf"](), layers=layers)
    x, c = rows(5, 4), rows(5, 2, seed=1)
    scored = LogProb(module)
    traced = torch.jit.trace(scored, (x, c))  # PyTorch compares two traces, and their values with those of the module
    more, contexts = rows(9, 4, seed=2), rows(9, 2, seed=3)
    assert torch.equal(traced(more, contexts), scored(more, contexts))
    gradients = [torch.autograd.grad(m(more, contexts).sum(), tuple(module.parameters())) for m in (traced, scored)]
    for got, want in zip(*gradients, strict=True):
        assert_allclose(got, want, rtol=1e-10, atol=1e-10)

    class ToLatent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x, c):
            return self.module.to_latent(x, c)

    for got, want in zip(
        torch.jit.trace(ToLatent(), (x, c))(more, contexts), module.to_latent(more, contexts), strict=True
    ):
        assert torch.equal(got, want)
