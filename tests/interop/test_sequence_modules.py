"""Flows of sequences as modules of PyTorch and JAX: values, gradients, training."""

import numpy as np
import pytest

import headrace as hr
import sequence_cases

OPTIONS = {"layers": 2, "channels": 4, "skip": 3, "kernel": 2, "context": 2, "covariates": 2, "hop": 3, "map": "affine"}


def beside(flow, rows=2, steps=8):
    return sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, steps)


def case(reads="data", rows=2, steps=8, **more):
    flow = sequence_cases.wavenet("modules", reads=reads, **(OPTIONS | more))
    x = sequence_cases.sequences(rows, steps)
    return flow, x, *beside(flow, rows, steps)


@pytest.mark.parametrize("reads", ["data", "latent"])
def test_torch_gradcheck(reads):
    torch = pytest.importorskip("torch")
    from headrace.torch import SequenceModule

    flow, *arrays = case(reads)
    module = SequenceModule(flow)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]

    vector = torch.tensor(flow.parameters, requires_grad=True)
    # The verbs compute densities of all steps at once, and values of one step after another.
    for verb in ("log_prob_steps", "log_prob", "to_data", "to_latent"):

        def number(vector, *given, verb=verb):
            module._parameters["vector"] = vector
            return getattr(module, verb)(*given)

        # Derivatives by inputs are checked one by one. Derivatives by thousands of parameters are checked together in a
        # product with random unit vectors, which divides an error of a single derivative by about 100. PyTorch's fast
        # mode multiplies `atol` by the sums of the random vectors, some 200. Differences have errors of a few 1e-8.
        assert torch.autograd.gradcheck(number, (vector.detach(), *tensors), atol=1e-6)
        assert torch.autograd.gradcheck(number, (vector, *tensors), atol=2e-9, rtol=1e-7, fast_mode=True)


@pytest.mark.parametrize("inner", [False, True])
def test_torch_trains_a_student_by_its_density(inner):
    torch = pytest.importorskip("torch")
    from headrace.torch import SequenceModule

    more = {"features": 2, "map": None} if inner else {}
    options = {k: v for k, v in (OPTIONS | more).items() if v is not None}
    flow = sequence_cases.wavenet("student", reads="latent", transforms=2, **(options | {"dtype": "float32"}))
    x = sequence_cases.sequences(2, 8, flow.features, "float32")
    given = [torch.tensor(a) for a in (x, *beside(flow))]
    module = SequenceModule(flow)
    (-module.log_prob(*given).sum()).backward()
    (want,) = flow.log_prob_vjp(x, -np.ones(2, "float32"), *beside(flow), wrt="parameters")
    np.testing.assert_allclose(module.vector.grad.numpy(), want, rtol=0, atol=2e-6 * np.abs(want).max())


def test_torch_losses_of_all_kinds():
    torch = pytest.importorskip("torch")
    from headrace.torch import SequenceModule

    flow, x, context, covariates = case(dtype="float32")
    module = SequenceModule(flow)
    given = [torch.tensor(a) for a in (x.astype("float32"), context, covariates)]
    np.testing.assert_array_equal(module.log_prob(*given).detach().numpy(), flow.log_prob(*[t.numpy() for t in given]))
    for weights in (torch.ones(2), torch.tensor([1.0, -2.0])):  # equal weights need one run, unequal weights need two
        module.zero_grad()
        (module.log_prob(*given) * weights).sum().backward()
        (want,) = flow.log_prob_vjp(
            *[given[0].numpy(), weights.numpy()], *[t.numpy() for t in given[1:]], wrt="parameters"
        )
        np.testing.assert_allclose(module.vector.grad.numpy(), want, rtol=0, atol=2e-6 * np.abs(want).max())
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = -module(*given).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(
        module.flow.parameters, module.vector.detach().numpy() * (module.flow.parameters != 0)
    )
    other = SequenceModule(flow)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.vector, module.vector)


def test_torch_refusals():
    torch = pytest.importorskip("torch")
    from headrace.torch import SequenceModule

    with pytest.raises(TypeError, match="flow: expected a SequenceFlow, got"):
        SequenceModule(hr.MAF(2))
    flow, x, context, covariates = case()
    module = SequenceModule(flow)
    given = [torch.tensor(a) for a in (x, context, covariates)]
    with pytest.raises(TypeError, match="x: expected a tensor"):
        module.log_prob(x, *given[1:])
    tensor = given[0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(module.log_prob(tensor, *given[1:]).sum(), tensor, create_graph=True)
    with pytest.raises(RuntimeError, match="headrace gives first derivatives"):
        grad.sum().backward()


def test_jax_values_and_gradients():
    jax = pytest.importorskip("jax")
    import headrace.jax

    flow, x, context, covariates = case(dtype="float32")
    module = headrace.jax.SequenceModule(flow)
    given = [np.asarray(a, "float32") for a in (x, context, covariates)]
    weights = np.asarray([1.0, -2.0], "float32")
    value = jax.jit(lambda m, *a: m.log_prob(*a))(module, *given)
    np.testing.assert_allclose(value, flow.log_prob(*given), rtol=1e-6)

    def loss(module, x, context, covariates):
        return (module.log_prob(x, context, covariates) * weights).sum()

    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(module, *given)
    kinds = ("parameters", "inputs", "context", "covariates")
    want = flow.log_prob_vjp(given[0], weights, *given[1:], wrt=kinds)
    for kind, a, b in zip(kinds, (found[0].params, *found[1:]), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max(), err_msg=kind)
    moved = module.with_params(module.params - 1e-3 * found[0].params)
    assert float(loss(moved, *given)) < float(loss(module, *given))
    np.testing.assert_array_equal(module.to_flow().parameters, flow.parameters)
    with pytest.raises(TypeError, match="flow: expected a SequenceFlow, got"):
        headrace.jax.SequenceModule(hr.MAF(2))
    with pytest.raises(ValueError, match="context: expected 2 columns, got"):
        module.log_prob(given[0], None, given[2])


@pytest.mark.parametrize("kind", ["inner flow", "student", "student with inner flows"])
def test_jax_gradients(kind):
    """Gradients pass through a flow over the values of a step, and through the density of a sequential direction."""
    jax = pytest.importorskip("jax")
    import headrace.jax

    options = {"layers": 2, "channels": 4, "context": 2, "covariates": 2, "hop": 3, "dtype": "float32"}
    options |= {"reads": "latent", "transforms": 2} if "student" in kind else {}
    features = 1 if kind == "student" else 2
    flow = sequence_cases.wavenet("jax", kind, features=features, **options)
    given = [sequence_cases.sequences(2, 8, features, "float32"), *beside(flow)]
    weights = np.asarray([1.0, -2.0], "float32")

    def loss(module, *given):
        return (module.log_prob(*given) * weights).sum()

    module = headrace.jax.SequenceModule(flow)
    value, found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(module, *given)
    assert float(value) == pytest.approx(float((flow.log_prob(*given) * weights).sum()), rel=1e-5)
    kinds = ("parameters", "inputs", "context", "covariates")
    want = flow.log_prob_vjp(given[0], weights, *given[1:], wrt=kinds)
    for name, a, b in zip(kinds, (found[0].params, *found[1:]), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max(), err_msg=name)
    # The slope of the loss along its gradient, by differences, is the gradient's norm.
    wide, step = flow.astype("float64"), 1e-6
    size = np.linalg.norm(want[0].astype("float64"))
    direction = want[0] / size
    ends = [
        float((wide.log_prob(*given, parameters=wide.parameters + sign * step * direction) * weights).sum())
        for sign in (1.0, -1.0)
    ]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(size, rel=2e-3)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "clip": 0.5, "average": 0.9}])
def test_adam_is_that_of_torch(options):
    torch = pytest.importorskip("torch")
    flow, *given = case()
    before = flow.parameters
    adam = hr.Adam(flow, learning_rate=1e-2, **options)
    vector = torch.tensor(before, requires_grad=True)
    matrices = hr.WaveNet(**(OPTIONS | {"dtype": "float64"}))
    for name, array in matrices.named_parameters().items():
        is_matrix = array.ndim > 1 and "reflection" not in name  # the array is a matrix of a network
        matrices.set_parameter(name, np.full_like(array, is_matrix))
    decays = torch.tensor(matrices.parameters != 0)
    other = torch.optim.AdamW([vector], 1e-2, weight_decay=0.0)
    averaged = before
    for t in range(1, 6):
        _, gradient = flow.nll_and_grad(*given)
        norm = adam.step(gradient)
        assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)
        scale = min(1.0, options.get("clip", np.inf) / norm)
        with torch.no_grad():
            vector[decays] *= 1.0 - 1e-2 * options.get("weight_decay", 0.0)
        vector.grad = torch.tensor(gradient * scale)
        other.step()
        np.testing.assert_allclose(flow.parameters, vector.detach().numpy(), rtol=0, atol=1e-12)
        averaged = averaged + (1.0 - min(0.9, (1.0 + t) / (10.0 + t))) * (flow.parameters - averaged)
    if "average" in options:
        np.testing.assert_allclose(adam.averaged, averaged, rtol=0, atol=1e-12)
