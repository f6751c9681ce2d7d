"""A map that is only in the emulation's list, with its entry and its reference, is supported by the whole core.

An addition that needs more than the recipe (docs/notes/recipes.md), or a kernel, call or file that names maps, fails
here. Readers of files that contain formulas of maps name maps, as the recipe states, and refuse the added map. The
formula of the added map is in tests/cuda_emulation/polyline.hpp and tests/support/added_map.py.
"""

import numpy as np
import pytest

import added_map
import cases
import gradients
import headrace as hr
import map_cases
import reference
import runtime_library
import safetensors_reader
from pairs import pairwise

MAP = added_map.NAME
DIRECTIONS = ("forward", "inverse")
SHAPES = [(0, 3), (1, 1), (33, 5), (100, 33), (2, 2049)]
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_side = pairwise(reads=cases.READS, formula=cases.FORMULAS)


@pytest.fixture(autouse=True)
def core(emu):
    with added_map.added(emu) as found:
        yield found


def test_the_library_itself_lacks_the_added_map(core):
    assert MAP in {one.name for one in core.maps()}
    assert MAP not in {one.name for one in hr._core.cpu.maps()}


# --- alone ------------------------------------------------------------------------------------------------------------


@pairwise(shape=SHAPES, direction=DIRECTIONS, bins=[2, 5, 6], dtype=cases.DTYPES)
def test_values_match_the_reference(shape, direction, bins, dtype):
    values, params, *_ = map_cases.gradient_batch(*shape, MAP, dtype, bins=bins)
    settings = {"slope": 1e-2, "bound": 2.0}
    got = map_cases.KERNELS[direction](values, params, MAP, **settings)
    want = map_cases.JUDGES[direction](values, params, MAP, **settings)
    cases.assert_matches(got, want, values, dtype, depth=map_cases.depth_of(MAP))


@pairwise(shape=[(0, 3), (1, 1), (33, 5), (9, 33)], direction=DIRECTIONS, bins=[2, 5, 6])
def test_gradients_match_differences(shape, direction, bins):
    values, params, *cotangents = arrays = map_cases.gradient_batch(*shape, MAP, bins=bins)
    got = hr.ops.coupling_vjp(*arrays, MAP, direction=direction)
    map_cases.assert_gradients(got, map_cases.differences(direction, values, params, cotangents, MAP))


@every_direction
def test_float32_gradients_match_those_of_float64(direction):
    narrow = map_cases.gradient_batch(97, 5, MAP, "float32", bins=4)
    got = hr.ops.coupling_vjp(*narrow, MAP, direction=direction)
    want = hr.ops.coupling_vjp(*(array.astype(float) for array in narrow), MAP, direction=direction)
    map_cases.assert_gradients(got, want, allowed=cases.tolerance("float32", map_cases.depth_of(MAP, 8)))


# --- its parameters from a network ------------------------------------------------------------------------------------


@pairwise(reads=cases.READS, formula=cases.FORMULAS, layout=["interleaved", "blocked"], dtype=cases.DTYPES)
def test_a_masked_network(reads, formula, layout, dtype):
    dense = cases.made(context=2, outputs=("slope", "shift"), layout=layout, bins=5, gain=0.7).astype(dtype)
    subject = gradients.masked(dense, "tanh", map=MAP, reads=reads, formula=formula)
    given, context = cases.rows(37, dense.features, dtype), cases.rows(37, 2, dtype, "context")
    cases.check_directions(subject.library, subject.judge(subject.arrays), given, context, dtype, depth=64)


@every_side
def test_gradients_of_a_masked_network(reads, formula):
    dense = cases.made(features=4, hidden=(7, 6), context=2, outputs=("shift", "slope"), bins=4)
    subject = gradients.masked(dense, "tanh", map=MAP, reads=reads, formula=formula)
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check(subject, verb, cases.rows(9, 4, "float64"), cases.rows(9, 2, "float64", "context"))


@pytest.mark.parametrize("formula", cases.FORMULAS)
def test_a_coupling(formula):
    dense = cases.dense_network(2, (7, 6), 3, outputs=("shift", "slope"), bins=4)
    subject = gradients.coupling(dense, (3, 0), "tanh", map=MAP, formula=formula)
    given = cases.rows(9, 5, "float64")
    cases.check_directions(subject.library, subject.judge(subject.arrays), given, None, "float64", depth=64)
    for verb in gradients.TRANSFORM_VERBS:
        gradients.check(subject, verb, given)


# --- the added map with parameters for all rows -----------------------------------------------------------------------


@pairwise(formula=cases.FORMULAS, dtype=cases.DTYPES)
def test_elementwise(formula, dtype):
    t = hr.transforms.Elementwise(3, map=MAP, formula=formula, bins=5, bound=2.0, dtype=dtype)
    z = cases.rows(40, 3, dtype)
    x, log_det = t.forward(z)  # a fresh map is the identity
    cases.assert_close(x, z)
    cases.assert_close(log_det, np.zeros(40))
    raw = cases.rng("elementwise", MAP).standard_normal((3, 6)).astype(dtype)
    t.set_parameter("shift", raw[:, :1])
    t.set_parameter("slope", raw[:, 1:])
    params = np.broadcast_to(raw, (40, 3, 6))
    there, back = DIRECTIONS if formula == "to_data" else DIRECTIONS[::-1]
    for got, judge in ((t.forward(z), there), (t.inverse(z), back)):
        want = map_cases.JUDGES[judge](z, params, MAP, bound=2.0)
        cases.assert_matches(got, want, z, dtype, depth=24)
    gradients_of = t.forward_vjp(z, z, log_det, wrt=("inputs", "parameters"))
    by_row = hr.ops.coupling_vjp(z, params.copy(), z, log_det, MAP, direction=there, bound=2.0)
    cases.assert_close(gradients_of[0], by_row[0].astype(float), magnitude=10.0, depth=64)
    named = gradients.dense_gradient(t, gradients_of[1])
    for got, want in zip(named, np.split(by_row[1].astype(float).sum(axis=0), [1], axis=1), strict=True):
        cases.assert_close(got, want, magnitude=100.0, depth=64)


# --- descriptions of objects ------------------------------------------------------------------------------------------


def foreign():
    """A transform whose network has the outputs in another order than the map."""
    dense = cases.made(4, (8,), outputs=("slope", "shift"), layout="blocked", bins=3).astype("float32")
    settings = {"outputs": dense.outputs, "layout": dense.layout}
    return hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, map=MAP, bins=3, **settings)


KINDS = {
    "foreign": foreign,
    "masked": lambda: hr.transforms.MaskedAutoregressive(4, (8,), map=MAP, bins=3),
    "coupling": lambda: hr.transforms.Coupling(4, [1], (8,), map=MAP, bins=3),
    "elementwise": lambda: hr.transforms.Elementwise(4, map=MAP, bins=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_and_repr(kind, tmp_path):
    flow = cases.randomise(hr.Flow([KINDS[kind]()]))
    assert f"map='{MAP}'" in repr(flow)
    flow.save(tmp_path / "saved.safetensors")
    loaded = hr.load(tmp_path / "saved.safetensors")
    assert repr(loaded) == repr(flow)
    cases.assert_same_bits(loaded.parameters, flow.parameters)
    x = cases.rows(11, 4, "float32")
    for got, want in zip(loaded.to_latent(x), flow.to_latent(x), strict=True):
        cases.assert_same_bits(got, want)
    judge = safetensors_reader.read(tmp_path / "saved.safetensors")
    cases.assert_matches(flow.to_latent(x), judge.to_latent(x), x, "float32", depth=64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"bins": 7}, ["bins", "from 2 to 6", "7"]), ({"slope": 1e-6}, ["slope", "1e-05", "1e-06"])],
)
def test_properties_of_the_map_are_respected(settings, words):
    with pytest.raises(ValueError, match="expected") as error:
        hr.transforms.MaskedAutoregressive(4, (8,), map=MAP, **settings)
    cases.assert_says(error, *words)


# --- readers that contain formulas of the maps ------------------------------------------------------------------------


def test_graphs_refuse_the_added_map_by_name(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises((NotImplementedError, ValueError), match=MAP):
        hr.Flow([KINDS["masked"]()]).to_onnx(tmp_path / "flow.onnx")


def test_modules_of_pytorch_alone_refuse_the_added_map_by_name():
    pytest.importorskip("torch")
    with pytest.raises((NotImplementedError, ValueError), match=MAP):
        hr.convert.to_torch(hr.Flow([KINDS["masked"]()]))


@pytest.mark.programs
@pytest.mark.skipif(runtime_library.compiler() is None, reason="no C++ compiler")
def test_the_header_refuses_the_added_map_by_name(tmp_path_factory):
    library = runtime_library.shared_library(tmp_path_factory)
    with pytest.raises(runtime_library.Refused, match=rf"map: expected one of .*, got '{MAP}'"):
        library.load(hr.to_bytes(hr.Flow([KINDS["masked"]()])), "float64")


def test_ops_find_the_bins_from_the_number_of_parameters():
    with pytest.raises(ValueError, match="params"):
        hr.ops.coupling(np.zeros((2, 3)), np.zeros((2, 3, 8)), MAP)
    assert reference.MAPS[MAP].bins(5) == 4
