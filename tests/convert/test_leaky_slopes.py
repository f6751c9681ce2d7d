"""Leaky ReLUs of any slope in other libraries become two units each, with the same densities.

Log densities and latents agree to 1e-11 in float64 and to 1e-4 in float32, of 1 + their size, because sums have twice
the terms in another order; latents of the library return to rows of data to 1e-8 and 1e-3.
"""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose

from convert_cases import library, shaken
from headrace import convert
from headrace.convert._parts import Layers, Leaky, Place, activation_of

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations within the libraries

N, ROWS = 3, 40
LIMITS = {"float64": (1e-11, 1e-8), "float32": (1e-4, 1e-3)}


def zuko_maf(slope, **more):
    torch = library("torch")
    made = partial(torch.nn.LeakyReLU, slope)
    return library("zuko").flows.MAF(N, 2, transforms=2, hidden_features=(8, 8), activation=made, **more)


def nflows_flow(make):
    library("nflows")
    from nflows import distributions, flows

    return flows.Flow(make(), distributions.StandardNormal([N]))


def nflows_made(slope, **more):
    from torch.nn import functional

    def make():
        from nflows import transforms

        leaky = partial(functional.leaky_relu, negative_slope=slope)
        return transforms.MaskedAffineAutoregressiveTransform(N, 8, num_blocks=2, activation=leaky, **more)

    return nflows_flow(make)


def nflows_coupling(slope):
    from torch.nn import functional

    def make():
        from nflows import transforms
        from nflows.nn import nets

        leaky = partial(functional.leaky_relu, negative_slope=slope)

        def net(inputs, outputs):
            return nets.ResidualNet(inputs, outputs, 8, context_features=2, num_blocks=2, activation=leaky)

        return transforms.AffineCouplingTransform([1, 0, 1], net)

    return nflows_flow(make)


def normflows_block(slope):
    nf = library("normflows")
    flows = [nf.flows.AffineCouplingBlock(nf.nets.MLP([2, 8, 8, 4], leaky=slope)), nf.flows.Permute(4, "swap")]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(4), flows)


def normflows_masked(slope):
    nf, torch = library("normflows"), library("torch")
    mask = torch.tensor([1.0, 0.0, 1.0])
    nets = [nf.nets.MLP([N, 8, 8, N], leaky=slope) for _ in range(2)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(N), [nf.flows.MaskedAffineFlow(mask, *nets)])


MODELS = {
    "MAF of zuko": (zuko_maf, 2),
    "MAF of zuko, residual": (partial(zuko_maf, residual=True), 2),
    "coupling of zuko": (partial(zuko_maf, passes=2), 2),
    "MADE of nflows": (nflows_made, 0),
    "MADE of nflows, feed-forward": (partial(nflows_made, use_residual_blocks=False), 0),
    "MADE of nflows, batch norm": (partial(nflows_made, use_batch_norm=True), 0),
    "coupling of nflows, gates": (nflows_coupling, 2),
    "coupling of normflows": (normflows_block, 0),
    "masked flow of normflows": (normflows_masked, 0),
}


def calls(model, x, given):
    """Return the latents and the log densities of a model."""
    if hasattr(model, "q0"):
        return model.inverse(x, *given), model.log_prob(x, *given)
    if hasattr(model, "_transform"):
        return model._transform(x, *given)[0], model.log_prob(x, *given)
    found = model(*given)
    return found.transform(x), found.log_prob(x)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", MODELS)
def test_the_density_is_the_model_s(name, dtype):
    torch = library("torch")
    make, columns = MODELS[name]
    model = shaken(make(0.2), 3)
    model = model.double() if dtype == "float64" else model
    converter = {"zuko": convert.from_zuko, "nflows": convert.from_nflows, "normflows": convert.from_normflows}
    flow = converter[type(model).__module__.split(".")[0]](model)
    assert flow.dtype == dtype
    context = np.random.default_rng(1).standard_normal((ROWS, columns)).astype(dtype) if columns else None
    x = np.asarray(flow.sample(ROWS, context, seed=4, dtype=dtype))
    x[::3] *= 1.5
    with torch.no_grad():
        given = [] if context is None else [torch.from_numpy(context)]
        z, log_prob = (one.numpy() for one in calls(model, torch.from_numpy(x), given))
    limit, back = LIMITS[dtype]
    assert_allclose(flow.log_prob(x, context), log_prob, rtol=limit, atol=limit)
    assert_allclose(flow.to_latent(x, context)[0], z, rtol=limit, atol=limit)
    assert_allclose(flow.to_data(z, context)[0], x, rtol=back, atol=back)


def test_a_context_that_the_activation_bends_is_refused():
    library("torch")
    library("nflows")
    with pytest.raises(NotImplementedError, match="activation: expected one of headrace's for a context"):
        convert.from_nflows(shaken(nflows_made(0.2, context_features=2), 3))


@pytest.mark.parametrize("slope", [0.3, 0.1, 0.0, 0.01, 1.0, -0.5])
def test_slopes_are_recognised_by_values(slope):
    torch = library("torch")
    found = activation_of(Place("a", "to_data"), torch.nn.LeakyReLU(slope))
    plain = {0.0: "relu", 0.01: "leaky_relu", 1.0: "identity"}.get(slope)
    assert found == plain if plain else (isinstance(found, Leaky) and found.slope == slope)


def test_a_layer_that_other_layers_add_keeps_its_units():
    """Layers that are added to each other keep their units, and an extra layer makes two units of each sum."""
    layers, own = Layers(), np.random.default_rng(0)
    first = layers.hidden(own.standard_normal((4, 2)), None)
    layers.hidden(own.standard_normal((4, 4)), None, adds=first, activation=Leaky.of(0.2))
    layers.outputs(own.standard_normal((1, 4)), None)
    assert [layer.units for layer in layers.layers] == [4, 4, 8]
    assert [len(bias) for bias in layers.biases] == [4, 4, 8, 1]
    assert layers.layers[1].activation == "identity"
    assert layers.weights[-1].shape == (1, 8)
