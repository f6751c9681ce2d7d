"""One list of maps in every layer: a map that is forgotten somewhere fails here."""

import pytest

import headrace as hr
import headrace._core
import reference


def test_core_python_and_reference_list_the_same_maps():
    assert sorted({name for name, *_ in headrace._core.cpu.maps()}) == sorted(hr.ops.MAPS) == sorted(reference.MAPS)


@pytest.mark.parametrize("map", reference.MAPS)
def test_every_map_builds_a_transform_with_its_number_of_parameters(map):
    transform = hr.MaskedAutoregressive(5, (8,), map=map)
    assert transform.to_dense()[0][-1].shape == (5 * reference.MAPS[map].count(), 8)
    transform = hr.Coupling(5, passive=[0, 1], hidden=(8,), map=map)
    assert transform.to_dense()[0][-1].shape == (3 * reference.MAPS[map].count(), 8)


@pytest.mark.parametrize("bins", [2, 3, 8, 64])
def test_the_number_of_bins_gives_the_number_of_parameters(bins):
    transform = hr.MaskedAutoregressive(5, (8,), map="rq_spline", bins=bins)
    assert transform.to_dense()[0][-1].shape == (5 * (3 * bins - 1), 8)
    transform = hr.Coupling(5, passive=[0, 1], hidden=(8,), map="rq_spline", bins=bins)
    assert transform.to_dense()[0][-1].shape == (3 * (3 * bins - 1), 8)
