"""The attribute `FlowModule(flow)().support`, by which samplers and guides choose their bijection."""

import math

import numpy as np
import pytest

import cases
import headrace as hr

torch = pytest.importorskip("torch")

from torch.distributions import biject_to, constraints  # noqa: E402

from headrace.torch import FlowModule  # noqa: E402

BOUNDS = [(0.0, 1.0), None, (2.0, None), (None, -1.0), (-3.0, 5.0)]
TWO_PI = 2.0 * math.pi


def module_of(flow):
    return FlowModule(cases.randomise(flow, 0.3))


def spline(map="rq_spline"):
    return hr.transforms.Coupling(2, passive=[0], map=map, bound=1.0, hidden=(4,))


# Flows by name, each with the ends of its columns.
FLOWS = {
    "bounds": (lambda: hr.NSF(5, bounds=BOUNDS, transforms=2, hidden=(8,)), BOUNDS),
    "one kind": (lambda: hr.MAF(2, bounds=[(0, 1), (-2, 3)], transforms=1, hidden=(8,)), [(0, 1), (-2, 3)]),
    "half-lines": (lambda: hr.MAF(2, bounds=[(0, None), (1, None)], transforms=1, hidden=(8,)), [(0, None), (1, None)]),
    "periods": (
        lambda: hr.NSF(
            3, bounds=[(0, 1), None, None], periodic=[None, (0, TWO_PI), (-1, 1)], transforms=1, hidden=(8,)
        ),
        [(0, 1), (0, TWO_PI), (-1, 1)],
    ),
    "a uniform base": (lambda: hr.Flow([], hr.Uniform(2)), [(-1, 1), (-1, 1)]),
    "splines of a uniform base": (
        lambda: hr.Flow([spline(), hr.transforms.Inverse(spline())], hr.Uniform(2)),
        [(-1, 1)] * 2,
    ),
    "free splines": (
        lambda: hr.Flow([hr.transforms.MaskedAutoregressive(2, (4,), map="rq_spline_free", bound=1.0)], hr.Uniform(2)),
        [(-1, 1)] * 2,
    ),
    "splines, permuted, scaled": (
        lambda: hr.Flow(
            [spline(), hr.transforms.Permutation([1, 0]), hr.transforms.Standardize([3.0, -4.0], [2.0, 5.0])],
            hr.Uniform(2),
        ),
        [(1, 5), (-9, 1)],
    ),
    "a uniform base before bounds": (
        lambda: hr.Flow([hr.transforms.Support([(0.0, None), (0.0, 1.0)])], hr.Uniform(2)),
        [(math.exp(-1), math.e), (1 / (1 + math.e), 1 / (1 + math.exp(-1)))],
    ),
    "one uniform column": (
        lambda: hr.Flow([hr.transforms.Coupling(2, passive=[0], hidden=(4,))], hr.Independent(["uniform", "normal"])),
        [(-1, 1), None],
    ),
    "on some columns": (
        lambda: hr.Flow(
            [hr.transforms.OnColumns(spline(), [2, 0], 3)], hr.Independent(["uniform", "normal", "uniform"])
        ),
        [(-1, 1), None, (-1, 1)],
    ),
}


def limits(ends):
    """The lower and upper ends of columns, infinite where a column has no end."""
    pairs = [pair or (None, None) for pair in ends]
    low = np.array([-np.inf if low is None else low for low, _ in pairs])
    return low, np.array([np.inf if high is None else high for _, high in pairs])


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_support_is_where_the_density_is_positive(name, dtype):
    make, ends = FLOWS[name]
    module = module_of(make().astype(dtype))
    support = module().support
    low, high = limits(ends)
    drawn = module().sample((2000,))
    assert support.check(drawn).all()
    assert support.check(drawn).shape == (2000,)
    near = drawn[:1].numpy().repeat(2 * len(ends), axis=0)
    for c in range(len(ends)):  # points a little inside of each end, and a little outside
        span = high[c] - low[c] if np.isfinite(high[c] - low[c]) else 1.0
        for row, end, inward in ((2 * c, low[c], 1e-3), (2 * c + 1, high[c], -1e-3)):
            if np.isfinite(end):
                near[row, c] = end + inward * span
    inside = torch.from_numpy(near)
    assert support.check(inside).all()
    assert (module().log_prob(inside) > -math.inf).all()
    for c in range(len(ends)):
        for row, end, outward in ((2 * c, low[c], -1e-3), (2 * c + 1, high[c], 1e-3)):
            if np.isfinite(end):
                outside = inside[row].clone()
                outside[c] = end + outward * max(abs(end), 1.0)
                assert not support.check(outside)
                if name != "periods" or c == 0:  # the density continues around a circle
                    assert module().log_prob(outside) == -math.inf


@pytest.mark.parametrize("name", FLOWS)
def test_the_bijection_reaches_the_whole_support(name):
    """The density of unbounded rows under the bijection has mass 1: importance weights of a wide normal density have
    mean 1."""
    make, ends = FLOWS[name]
    module = FlowModule(make().astype("float64"))  # with the weights of a new flow, no importance weight is large
    bijection = biject_to(module().support)
    generator = torch.Generator().manual_seed(0)
    u = 2.0 * torch.randn(200_000, len(ends), dtype=torch.float64, generator=generator)
    x = bijection(u)
    log_q = torch.distributions.Normal(0.0, 2.0).log_prob(u).sum(-1)
    with torch.no_grad():
        weights = (module().log_prob(x) + bijection.log_abs_det_jacobian(u, x) - log_q).exp()
    error = weights.std() / math.sqrt(len(u))
    assert error < 0.05
    assert abs(weights.mean() - 1.0) < 4 * error
    torch.testing.assert_close(bijection.inv(x), u, rtol=1e-6, atol=1e-6)


def test_flows_without_bounds_have_the_constraint_of_real_vectors():
    for flow in (hr.MAF(2), hr.Flow([hr.transforms.Linear(3)], hr.StudentT(3)), hr.Flow([], hr.Logistic(1))):
        assert FlowModule(flow)().support is constraints.real_vector


def test_support_that_is_no_product_of_intervals():
    """If transforms mix the columns of a cube, rows are checked by their density, and there is no bijection."""
    for mixes in (
        hr.transforms.Linear.from_matrix(np.array([[1.0, 0.5], [0.0, 1.0]])),
        hr.transforms.Coupling(2, passive=[0], hidden=(4,)),
    ):
        module = module_of(hr.Flow([mixes], hr.Uniform(2)))
        support = module().support
        assert support.event_dim == 1
        drawn = module().sample((500,))
        # in float32 a row on the edge may come out beyond the edge
        assert support.check(drawn).double().mean() > 0.99
        assert torch.equal(support.check(drawn + 5.0), module().log_prob(drawn + 5.0) > -math.inf)
        assert not support.check(drawn + 50.0).any()
        with pytest.raises(NotImplementedError):
            biject_to(support)


def test_the_support_follows_the_present_parameters():
    module = FlowModule(hr.Flow([hr.transforms.Elementwise(1, map="affine")], hr.Uniform(1), dtype="float64"))
    before = module().support.base_constraint.upper_bound.item()
    with torch.no_grad():
        module.vector += 0.5
    after = module().support.base_constraint.upper_bound.item()
    flow = module._current()
    assert before != after
    assert after == flow.to_data(np.ones((1, 1)))[0].item()


def test_contexts_and_expanded_distributions():
    flow = hr.MAF(2, context=1, transforms=1, hidden=(8,), bounds=[(0, 1), None])
    distribution = FlowModule(flow)(torch.zeros(4, 1))
    for one in (distribution, distribution.expand((3, 4))):
        assert one.support.check(one.sample()).shape == one.batch_shape
        assert one.support.event_dim == 1


@pytest.mark.programs
def test_a_guide_of_pyro_stays_inside():
    """Pyro's guides depend on the support of a site: for a support of all reals the loss is infinite."""
    pyro = pytest.importorskip("pyro")
    from pyro.contrib.zuko import ZukoToPyro
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoDiagonalNormal

    class Site(ZukoToPyro):
        """A distribution of Pyro, which by itself has neither support nor sample."""

        @property
        def support(self):
            return self.dist.support

        def sample(self, sample_shape=()):
            return self.dist.sample(sample_shape)

    module = FlowModule(hr.MAF(2, transforms=1, hidden=(8,), bounds=[(2.0, 3.0), (0.0, None)]))
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = AutoDiagonalNormal(lambda: pyro.sample("x", Site(module())))
    svi = SVI(guide.model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step() for _ in range(300)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-50:]) < np.mean(losses[:50])
    drawn = torch.stack([guide()["x"] for _ in range(50)])
    assert module().support.check(drawn).all()
