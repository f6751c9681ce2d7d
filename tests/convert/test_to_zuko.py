"""Flows of headrace become flows of zuko, and back again."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
import reference
from convert_cases import Draw, library, shaken, zuko_flow
from headrace import convert

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

torch = library("torch")
zuko = library("zuko")


def fitted(flow):
    x = 3.0 + 2.0 * cases.rows(100, flow.features, "float64", "fit")
    context = 1.0 + 5.0 * cases.rows(100, flow.context, "float64", "context") if flow.context else None
    flow.fit(x, context, epochs=1, progress=False)
    return cases.randomise(flow, 0.2, "zuko")


FLOWS = {
    "maf": lambda dtype: hr.MAF(4, transforms=2, hidden=(9, 8), dtype=dtype),
    "maf of a context": lambda dtype: hr.MAF(3, 2, transforms=2, hidden=(9,), dtype=dtype),
    "maf in random orders": lambda dtype: hr.MAF(5, transforms=2, hidden=(9,), link="random", dtype=dtype),
    "maf with linear links": lambda dtype: hr.MAF(3, transforms=2, hidden=(9,), link="linear", dtype=dtype),
    "residual maf": lambda dtype: hr.MAF(
        3, 1, transforms=2, hidden=hr.Network.residual((9, 9), pre_activation=False), dtype=dtype
    ),
    "iaf": lambda dtype: hr.IAF(3, transforms=2, hidden=(9,), dtype=dtype),
    "nsf": lambda dtype: hr.NSF(3, 1, transforms=2, hidden=(9,), bins=5, bound=4.0, dtype=dtype),
    "nsf of couplings": lambda dtype: hr.NSF(3, transforms=2, hidden=(9,), coupling=True, dtype=dtype),
    "realnvp": lambda dtype: hr.RealNVP(4, 2, transforms=3, hidden=(9,), base=hr.Normal(4), dtype=dtype),
    "one feature": lambda dtype: hr.MAF(1, transforms=2, hidden=(5,), dtype=dtype),
    "one feature of a context": lambda dtype: hr.NSF(1, 2, transforms=2, hidden=(5,), bins=4, dtype=dtype),
    "marginals": lambda dtype: hr.Flow(
        [
            hr.transforms.Inverse(hr.transforms.Gaussianize(*cases.curves(4, 5, "inner"))),
            hr.transforms.MaskedAutoregressive(4, (9,), dtype=dtype),
            hr.transforms.Gaussianize(*cases.curves(4, 9)),
            hr.transforms.Standardize(np.zeros(4), np.ones(4)),
        ]
    ),
    "many": lambda dtype: hr.Flow(
        [
            hr.transforms.Coupling(4, [3, 1], (6,), context=1, map="additive", activation="silu", dtype=dtype),
            hr.transforms.Inverse(
                hr.transforms.MaskedAutoregressive(4, (7,), order=[2, 0, 3, 1], formula="to_latent", dtype=dtype)
            ),
            hr.transforms.Permutation([2, 0, 3, 1]),
            hr.transforms.Elementwise(4, map="rq_spline", bins=4, bound=6.0, dtype=dtype),
            hr.transforms.Inverse(hr.transforms.Elementwise(4, map="affine", dtype=dtype)),
            hr.transforms.Rotation.random(4, seed=1),
            hr.transforms.Inverse(hr.transforms.Linear(4, "random", seed=1, dtype=dtype)),
            hr.transforms.Coupling(4, [], (5,), context=1, dtype=dtype),
            hr.transforms.ActNorm(4, dtype=dtype),
            hr.transforms.Inverse(hr.transforms.Standardize([0.1, -0.2, 1e-3, 1 / 3], [0.7, 1.1, 2 / 3, 1.0])),
        ],
        hr.Normal(4, [0.1, 0, 0, 1], [1, 2, 3, 4], trainable=False),
    ),
}  # fmt: skip


def made(name, dtype):
    flow = FLOWS[name](dtype)
    return cases.randomise(flow, 0.2, name) if name == "many" else fitted(flow)


def rows_of(flow, n=40):
    context = 1.0 + cases.rows(n, flow.context, str(flow.dtype), "c") if flow.context else None
    x = np.asarray(flow.sample(n, context, seed=3))
    x[::3] *= 1.3
    return x, context


def density(model, x, context):
    with torch.no_grad():
        return model(None if context is None else torch.from_numpy(context)).log_prob(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FLOWS)
def test_densities_samples_and_the_inverse(name, dtype):
    flow = made(name, dtype)
    model = convert.to_zuko(flow)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    x, context = rows_of(flow)
    limit = {"float32": 1e-4, "float64": 1e-11}[dtype]
    want = flow.log_prob(x, context)
    assert np.abs(density(model, x, context) - want).max() <= limit * (1.0 + np.abs(want).max())
    c = None if context is None else torch.from_numpy(context)
    with torch.no_grad():
        transform = model(c).transform
        z = transform(torch.from_numpy(x))
        back = transform.inv(z)
    assert_allclose(z, flow.to_latent(x, context)[0], rtol=10 * limit, atol=10 * limit * (1 + np.abs(z).max()))
    assert np.median(np.abs(back.numpy() - x) / (1.0 + np.abs(x))) <= 10 * limit
    again = convert.from_zuko(model)
    assert_allclose(again.log_prob(x, context), want, rtol=limit, atol=limit * (1.0 + np.abs(want).max()))


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_activations(activation):
    units = {"hidden": (8, 7), "activation": activation, "last_activation": activation}
    flow = cases.randomise(hr.MAF(3, transforms=1, dtype="float64", **units), 2.0)
    x, _ = rows_of(flow)
    model = convert.to_zuko(flow)
    assert_allclose(density(model, x, None), flow.log_prob(x), rtol=1e-11, atol=1e-11)
    networks = [t.network for t in convert.from_zuko(model).transforms if hasattr(t, "network")]
    assert {layer.activation for network in networks for layer in network.layers} == {activation}


@pytest.mark.parametrize("kind", ["MAF", "NSF", "RealNVP"])
@pytest.mark.parametrize("context", [False, True])
def test_a_flow_of_zuko_is_restored_unchanged(kind, context):
    d = Draw(4, context)
    model = shaken(zuko_flow(d, kind), 4).double()
    back = convert.to_zuko(convert.from_zuko(model))
    names, found = dict(model.state_dict()), dict(back.state_dict())
    for name, value in names.items():
        if name.endswith("order") or name.startswith("base"):
            continue
        mask = names.get(name.replace("weight", "mask"), 1) if name.endswith("weight") else 1
        assert_allclose(found[name], value * mask, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["maf", "nsf of couplings", "realnvp"])
def test_a_flow_of_zuko_can_be_pickled_and_trained(name):
    flow = made(name, "float64")
    model, context = convert.to_zuko(flow), None if not flow.context else torch.ones(flow.context).double()
    data = pickle.dumps(model)
    assert (b"headrace" in data) == (name == "maf")
    x = torch.from_numpy(flow.sample(50, None if context is None else context.numpy(), seed=1)) + 2.0
    again = pickle.loads(data)
    assert_allclose(again(context).log_prob(x).detach(), model(context).log_prob(x).detach(), rtol=1e-12)
    optimizer = torch.optim.Adam(again.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = -again(context).log_prob(x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: hr.MAF(2, scale="softplus"), r"transforms\[\d\]\.map: expected affine with the scale soft_clamp"),
        (lambda: hr.MAF(2, bounds=[(0, 1), None]), r"transforms\[\d\]: expected .*, got Support"),
        (lambda: hr.PlanarFlow(2, transforms=1), r"transforms\[0\]: expected .*, got Planar"),
        (lambda: hr.RealNVP(2, base=hr.Logistic(2)), r"base: expected StandardNormal, Normal or Uniform"),
        (lambda: hr.MAF(2, hidden=(8, 8), residual=True), r"transforms\[\d\]\.network\[1\]: expected residual blocks"),
        (
            lambda: hr.MAF(
                2, 1, hidden=hr.Network([hr.Layer(5, "tanh", context="add", context_activation="identity")])
            ),
            r"transforms\[\d\]\.network: expected a context that the first layer alone reads",
        ),
        (
            lambda: hr.Flow([hr.transforms.Coupling(2, [0], (5,), map="rq_spline_nflows", bins=4)]),
            r"transforms\[0\]\.map: expected .*, got rq_spline_nflows",
        ),
    ],
)
def test_unsupported_parts_are_refused_with_their_path(make, where):
    with pytest.raises(NotImplementedError, match=rf"^{where}.*to_torch has it"):
        convert.to_zuko(make())
