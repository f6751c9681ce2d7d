"""Links between the networks of ready-made flows."""

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._flow.mixing import LINKS, link_before

every_link = pytest.mark.parametrize("link", LINKS)


@every_link
def test_no_link_comes_before_the_first_network(link):
    assert link_before(0, link, 5) == ([], False)


def test_a_reversal_is_in_the_networks_themselves():
    assert [link_before(i, "reverse", 5) for i in range(4)] == [([], False), ([], True), ([], False), ([], True)]


def test_no_link_leaves_the_order():
    assert [link_before(i, "none", 5) for i in range(3)] == [([], False)] * 3


def test_linear_links_are_trained_and_begin_as_the_identity(dtype):
    for i in (1, 2):
        (link,), descending = link_before(i, "linear", 5, seed=3, dtype=dtype)
        assert descending == (i == 1)
        assert isinstance(link, hr.transforms.Linear)
        assert link.dtype == dtype
        assert np.array_equal(link.to_matrix()[0], np.eye(5))


def test_random_links_come_from_the_seed_and_the_place():
    def order(i, seed):
        (link,), descending = link_before(i, "random", 9, seed=seed)
        assert not descending
        return link.order

    assert order(1, 0) == order(1, 0)
    assert len({order(i, seed) for i in (1, 2, 3) for seed in (0, 1)}) == 6


@every_link
def test_flows_of_one_feature_have_no_links(link):
    assert link_before(1, link, 1)[0] == []


@pytest.mark.parametrize("link", ["lu", None, 3])
def test_other_links_are_refused(link):
    with pytest.raises(ValueError, match=r"^link: expected one of 'reverse', 'linear', 'random', 'none', got") as error:
        link_before(0, link, 5)
    cases.assert_says(error, repr(link))


# --- in ready-made flows ---------------------------------------------------------------------------------------------

FLOWS = {
    "maf": lambda n, **more: hr.MAF(n, transforms=3, hidden=(8,), **more),
    "iaf": lambda n, **more: hr.IAF(n, transforms=3, hidden=(8,), **more),
    "realnvp": lambda n, **more: hr.RealNVP(n, transforms=3, hidden=(8,), **more),
    "nsf": lambda n, **more: hr.NSF(n, transforms=3, hidden=(8,), bins=4, **more),
    "nsf of couplings": lambda n, **more: hr.NSF(n, transforms=3, hidden=(8,), bins=4, coupling=True, **more),
}
every_flow = pytest.mark.parametrize("name", FLOWS)


@every_flow
def test_reversed_orders_are_the_default(name):
    assert hr.to_bytes(FLOWS[name](4)) == hr.to_bytes(FLOWS[name](4, link="reverse"))


@every_flow
@every_link
def test_a_flow_has_its_links(name, link, dtype):
    flow = FLOWS[name](4, link=link, seed=2, dtype=dtype)
    kind = {"linear": hr.transforms.Linear, "random": hr.transforms.Permutation}.get(link)
    found = [type(t) for t in flow.transforms]
    network = found[0]
    between = [] if kind is None else [kind]
    assert found == [network, *between, network, *between, network, hr.transforms.Standardize]
    cases.randomise(flow, 0.2)
    z = cases.rows(50, 4, dtype)
    x, log_det = flow.to_data(z)
    back, log_det_back = flow.to_latent(x)
    cases.assert_close(back, z, magnitude=20.0, depth=64)
    cases.assert_close(log_det_back, -log_det, magnitude=20.0, depth=64)
    assert hr.to_bytes(hr.from_bytes(hr.to_bytes(flow))) == hr.to_bytes(flow)


@pytest.mark.parametrize("name", ["maf", "iaf", "nsf"])
@every_link
def test_orders_alternate_where_they_should(name, link):
    """The first coordinate of a network's order has constant parameters: the mask has only zeros in its rows."""
    flow = FLOWS[name](4, link=link)
    networks = [t for t in flow.transforms if isinstance(t, hr.transforms.MaskedAutoregressive)]
    first = []
    for t in networks:
        reads = np.linalg.multi_dot(
            [np.eye(len(t.to_dense()[2][-1])), *(m.astype(float) for m in t.to_dense()[2][::-1])]
        )
        rows = reads.reshape(4, -1, 4).sum(axis=(1, 2))
        first.append(int(np.argmin(rows)))
    assert first == ([0, 3, 0] if link in ("reverse", "linear") else [0, 0, 0])


@every_flow
def test_linear_links_are_fitted(name):
    x = cases.rows(300, 3, "float64") @ np.array([[1.0, 0.9, -0.5], [0.0, 0.4, 1.0], [0.0, 0.0, 0.3]])
    flow = FLOWS[name](3, link="linear")
    flow.fit(x, epochs=3, progress=False)
    links = [t for t in flow.transforms if isinstance(t, hr.transforms.Linear)]
    assert len(links) == 2
    assert all(np.abs(t.to_matrix()[0] - np.eye(3)).max() > 1e-3 for t in links)


@every_flow
def test_flows_refuse_other_links(name):
    with pytest.raises(ValueError, match=r"^link: expected one of 'reverse'"):
        FLOWS[name](4, link="glow")
