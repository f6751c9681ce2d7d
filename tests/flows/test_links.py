"""What lies between the networks of ready-made flows."""

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._links import LINKS, link_before

every_link = pytest.mark.parametrize("link", LINKS)


@every_link
def test_nothing_comes_before_the_first_network(link):
    assert link_before(0, link, 5) == ([], False)


def test_a_reversal_is_in_the_networks_themselves():
    assert [link_before(i, "reverse", 5) for i in range(4)] == [([], False), ([], True), ([], False), ([], True)]


def test_no_link_leaves_the_order():
    assert [link_before(i, "none", 5) for i in range(3)] == [([], False)] * 3


def test_linear_links_are_trained_and_begin_as_the_identity(dtype):
    for i in (1, 2):
        (link,), descending = link_before(i, "linear", 5, seed=3, dtype=dtype)
        assert descending == (i == 1)
        assert isinstance(link, hr.Linear)
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
def test_one_feature_has_nothing_to_link(link):
    assert link_before(1, link, 1)[0] == []


@pytest.mark.parametrize("link", ["lu", None, 3])
def test_other_links_are_refused(link):
    with pytest.raises(ValueError, match=r"^link: expected one of 'reverse', 'linear', 'random', 'none', got") as error:
        link_before(0, link, 5)
    cases.assert_says(error, repr(link))
