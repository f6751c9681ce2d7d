"""One list of maps in every layer, and one of vector maps: one that is forgotten somewhere fails here."""

import numpy as np
import pytest

import headrace as hr
import headrace._core
import reference
import vector_cases
from headrace import _stored
from headrace._core.maps import VECTOR_MAPS


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


def test_core_python_and_reference_list_the_same_vector_maps():
    core = headrace._core.cpu.vector_maps()
    assert sorted({name for name, _ in core}) == sorted(VECTOR_MAPS) == sorted(reference.VECTOR_MAPS)
    assert core == [(name, variant) for name, map in VECTOR_MAPS.items() for variant in map.variants]
    tested = {(name, settings.get("nonlinearity")) for name, settings in vector_cases.VARIANTS.values()}
    assert len(tested) == len(core), "vector_cases.VARIANTS lacks a variant"


@pytest.mark.parametrize("map", reference.VECTOR_MAPS)
def test_every_vector_map_has_a_transform_a_flow_kernels_and_files(map):
    name = map.capitalize()
    transform, flow = getattr(hr, name)(4), getattr(hr, f"{name}Flow")(4, transforms=2)
    assert {kind: _stored.KINDS[kind] for kind in (name, f"{name}Flow")} == {
        name: type(transform),
        f"{name}Flow": type(flow),
    }
    assert type(transform) is vector_cases.CLASSES[map]
    assert type(flow) is vector_cases.FLOWS[map]
    assert {type(t) for t in flow.transforms[:2]} == {type(transform)}
    assert {f"{map}_{verb}" for verb in ("forward", "inverse", "backward")} <= set(hr.ops.__all__)
    groups = VECTOR_MAPS[map].groups(4)
    assert {key: array.size for key, array in transform.named_parameters().items()} == groups
    assert groups == vector_cases.sizes(map, 4)
    params = np.concatenate(list(transform.named_parameters().values()))
    x, _ = getattr(hr.ops, f"{map}_forward")(np.ones((3, 4), "f4"), params)
    assert x.shape == (3, 4)
