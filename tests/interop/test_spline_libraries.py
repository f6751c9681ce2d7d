"""Splines with parameters of other libraries: expected values are those of the libraries, in both directions.

The libraries use textbook formulas, which lose digits where a bin is steep; 1e-9 is still far below any difference
between two parametrisations.
"""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
import map_cases
import reference

N, BINS = 400, 8
KERNELS = map_cases.KERNELS
every_direction = pytest.mark.parametrize("direction", KERNELS)


def library(name):
    """A module, imported without its warnings; the test is skipped where the module is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def numbers(map, low, high, seed=0):
    """Values around an interval, and raw parameters of one spline for each value."""
    generator = np.random.default_rng(seed)
    outside = 0.0 if map == "rq_spline_circular" else 0.3 * (high - low)  # libraries do not wrap values around
    values = generator.uniform(low - outside, high + outside, N)
    return values, 1.5 * generator.standard_normal((N, reference.MAPS[map].count(BINS)))


def check(direction, map, values, raw, want, **settings):
    got = KERNELS[direction](values[:, None], raw[:, None, :].copy(), map, **settings)
    assert_allclose(got[0][:, 0], np.asarray(want[0]), rtol=1e-9, atol=1e-9)
    assert_allclose(got[1], np.asarray(want[1]), rtol=1e-9, atol=1e-9)


def split(torch, raw):
    return [torch.from_numpy(part.copy()) for part in np.split(raw, [BINS, 2 * BINS], axis=1)]


TORCH = {
    "nflows": ("nflows.transforms.splines.rational_quadratic",),
    "normflows": ("normflows.utils.splines",),
}


@every_direction
@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize(("bound", "least"), [(1.0, 1e-3), (3.0, 1e-2)])
def test_linear_tails(name, direction, bound, least):
    torch = library("torch")
    splines = library(TORCH[name][0])
    values, raw = numbers("rq_spline_nflows", -bound, bound)
    want = splines.unconstrained_rational_quadratic_spline(
        torch.from_numpy(values),
        *split(torch, raw),
        inverse=direction == "inverse",
        tails="linear",
        tail_bound=bound,
        min_bin_width=least,
        min_bin_height=least,
        min_derivative=1e-3,
    )
    check(direction, "rq_spline_nflows", values, raw, want, bound=bound, min_bin=least)


@every_direction
@pytest.mark.parametrize("name", TORCH)
def test_no_tails_on_the_unit_interval(name, direction):
    torch = library("torch")
    splines = library(TORCH[name][0])
    values, raw = numbers("rq_spline_free", 0.0, 1.0)
    values = np.clip(values, 0.001, 0.999)
    want = splines.rational_quadratic_spline(
        torch.from_numpy(values), *split(torch, raw), inverse=direction == "inverse"
    )
    check(direction, "rq_spline_free", values, raw, want, bound=(0.0, 1.0))


@every_direction
def test_circular_tails_of_normflows(direction):
    torch = library("torch")
    splines = library("normflows.utils.splines")
    values, raw = numbers("rq_spline_circular", -np.pi, np.pi)
    want = splines.unconstrained_rational_quadratic_spline(
        torch.from_numpy(values),
        *split(torch, raw),
        inverse=direction == "inverse",
        tails="circular",
        tail_bound=np.pi,
    )
    check(direction, "rq_spline_circular", values, raw, want, bound=np.pi)


@pytest.fixture
def jax():
    """Give JAX 64-bit values during one test."""
    jax = library("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


@every_direction
@pytest.mark.parametrize("interval", [(0.0, 1.0), (-2.0, 5.0)])
@pytest.mark.parametrize(
    ("slopes", "map", "kept"),
    [
        ("unconstrained", "rq_spline_free", slice(None)),
        ("identity", "rq_spline_nflows", slice(1, -1)),
        ("circular", "rq_spline_circular", slice(None, -1)),
    ],
)
def test_boundary_slopes_of_distrax(jax, direction, interval, slopes, map, kept):
    """distrax always takes K + 1 raw derivatives, of which 0 gives the derivative 1, for any boundary slopes."""
    distrax = library("distrax")
    low, high = interval
    values, _ = numbers(map, low, high)
    params = 1.5 * np.random.default_rng(1).standard_normal((N, 3 * BINS + 1))
    theirs = distrax.RationalQuadraticSpline(jax.numpy.asarray(params), low, high, boundary_slopes=slopes)
    call = theirs.inverse_and_log_det if direction == "inverse" else theirs.forward_and_log_det
    derivatives = params[:, 2 * BINS :][:, kept] + np.log(np.expm1(1 - 1e-4))
    raw = np.concatenate([params[:, : 2 * BINS], derivatives], axis=1)
    settings = {"bound": interval, "slope": 1e-4, "min_bin": 1e-4 / (high - low)}
    check(direction, map, values, raw, call(jax.numpy.asarray(values)), **settings)


@every_direction
@pytest.mark.parametrize("interval", [4.0, (-1.0, 2.0)], ids=str)
def test_splines_of_flowjax(jax, direction, interval):
    """A single spline is compared, because flowjax keeps the parameters as arrays of an object."""
    bijections, paramax, equinox = library("flowjax.bijections"), library("paramax"), library("equinox")
    low, high = (-interval, interval) if np.isscalar(interval) else interval
    values, raw = numbers("rq_spline_flowjax", low, high)
    raw[:] = raw[0]
    spline = bijections.RationalQuadraticSpline(knots=BINS - 1, interval=interval)
    arrays = [jax.numpy.asarray(part) for part in np.split(raw[0], [BINS, 2 * BINS])]
    spline = equinox.tree_at(lambda s: (s.x_pos.arr, s.y_pos.arr, s.derivatives.args[0]), spline, tuple(arrays))
    plain = paramax.unwrap(spline)
    call = plain.inverse_and_log_det if direction == "inverse" else plain.transform_and_log_det
    want = jax.vmap(call)(jax.numpy.asarray(values))
    check(direction, "rq_spline_flowjax", values, raw, want, bound=interval, min_bin=1e-3 / (high - low))


@every_direction
def test_splines_of_zuko(direction):
    torch = library("torch")
    zuko = library("zuko")
    values, raw = numbers("rq_spline", -5.0, 5.0)
    theirs = zuko.transforms.MonotonicRQSTransform(*split(torch, raw))
    call = theirs.inv.call_and_ladj if direction == "inverse" else theirs.call_and_ladj
    check(direction, "rq_spline", values, raw, call(torch.from_numpy(values)))


# --- whole transforms -------------------------------------------------------------------------------------------------


def arrays_of(linears):
    """The weights, biases and masks of another library's masked layers."""
    take = lambda name: [getattr(linear, name).detach().numpy() for linear in linears]  # noqa: E731
    return take("weight"), take("bias"), [mask != 0 for mask in take("mask")]


def test_an_autoregressive_transform_of_nflows():
    torch = library("torch")
    autoregressive = library("nflows.transforms.autoregressive")
    torch.manual_seed(1)
    theirs = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        features=4,
        hidden_features=16,
        num_bins=BINS,
        tails="linear",
        tail_bound=3.0,
        num_blocks=1,
        use_residual_blocks=False,
        activation=torch.tanh,
    ).double()
    net = theirs.autoregressive_net
    x = 2.0 * torch.randn(60, 4, dtype=torch.float64)
    with torch.no_grad():
        net.final_layer.weight *= 3.0  # the knots are far from equally spaced
        z, log_det = theirs(x)
    ours = hr.transforms.MaskedAutoregressive.from_dense(
        *arrays_of([net.initial_layer, net.blocks[0].linear, net.final_layer]),
        map="rq_spline_nflows",
        bins=BINS,
        bound=3.0,
        activation="tanh",
        formula="to_latent",
        verify=(x.numpy(), z.numpy(), log_det.numpy()),
    )
    # The inverse of nflows, one coordinate after another, loses more than half of its digits here.
    got = ours.forward(z.numpy())
    assert_allclose(got[0], x.numpy(), atol=1e-6)
    assert_allclose(got[1], -log_det.numpy(), atol=1e-6)


def test_a_coupling_of_nflows_whose_network_has_its_sizes_divided():
    """nflows divides raw widths and heights by the root of the number of hidden units; here the rows of the last layer
    are divided."""
    torch = library("torch")
    coupling = library("nflows.transforms.coupling")
    torch.manual_seed(2)
    hidden = 12

    class Net(torch.nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.hidden_features = hidden
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(inputs, hidden), torch.nn.SiLU(), torch.nn.Linear(hidden, outputs)
            )

        def forward(self, x, context=None):
            return self.layers(x)

    theirs = coupling.PiecewiseRationalQuadraticCouplingTransform(
        mask=[1, 0, 1, 0, 1], transform_net_create_fn=Net, num_bins=BINS, tails="linear", tail_bound=3.0
    ).double()
    layers = theirs.transform_net.layers
    x = 2.0 * torch.randn(60, 5, dtype=torch.float64)
    with torch.no_grad():
        layers[2].weight *= 20.0
        z, log_det = theirs(x)
    weights, biases = ([getattr(layers[i], name).detach().numpy() for i in (0, 2)] for name in ("weight", "bias"))
    # The outputs are listed coordinate by coordinate: K widths, K heights, K - 1 derivatives.
    divided = np.tile(np.repeat([hidden**-0.5, 1.0], [2 * BINS, BINS - 1]), 3)
    weights[1], biases[1] = weights[1] * divided[:, None], biases[1] * divided
    hr.transforms.Coupling.from_dense(
        weights,
        biases,
        features=5,
        passive=[1, 3],
        map="rq_spline_nflows",
        bins=BINS,
        bound=3.0,
        activation="silu",
        formula="to_latent",
        verify=(x.numpy(), z.numpy(), log_det.numpy()),
    )
