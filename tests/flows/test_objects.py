"""Flows and transforms as Python objects: copies, current parameters, read-only attributes, refusals."""

import copy

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._core import cpu


def small_flow():
    base = hr.Normal(3, 1.0, 2.0)
    flow = hr.Flow(
        [
            hr.transforms.Inverse(hr.transforms.MaskedAutoregressive(3, hidden=(8,))),
            hr.transforms.Permutation([2, 0, 1]),
        ],
        base,
    )
    return cases.randomise(flow, 0.2, "objects")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_has_parameters_of_its_own(duplicate):
    flow = small_flow()
    kept, other = flow.parameters, duplicate(flow)
    other.parameters = 2 * kept
    assert (flow.parameters == kept).all()
    assert (other.parameters == 2 * kept).all()


def test_attributes_of_a_flow_are_current():
    flow = small_flow()
    named = flow.named_parameters()
    flow.parameters = 3 * flow.parameters
    weight = flow.transforms[0].transform.to_dense()[0][0]
    np.testing.assert_array_equal(weight, 3 * named["transforms.0.layers.0.weight"])
    np.testing.assert_allclose(flow.base.loc, 3 * named["base.loc"].astype("float64"), rtol=1e-6)
    np.testing.assert_allclose(np.log(flow.base.scale), 3 * named["base.log_scale"].astype("float64"), rtol=1e-5)


def test_fixed_values_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        hr.transforms.Standardize([0.0], [2.0]).mean[0] = 5.0


@pytest.mark.parametrize("scale", ["soft_clamp", "exp", "softplus", "sigmoid"])
@pytest.mark.parametrize("kind", [hr.transforms.MaskedAutoregressive, hr.transforms.Coupling])
def test_fresh_transforms_of_any_scale_are_near_the_identity(kind, scale):
    more = {"passive": [0, 2]} if kind is hr.transforms.Coupling else {}
    z = cases.rows(200, 4, "float64")
    x, log_det = kind(4, **more, scale=scale, dtype="float64").forward(z)
    assert np.abs(x - z).max() < 0.5
    assert np.abs(log_det).max() < 0.5
    assert np.abs(x - z).max() > 0


@pytest.mark.parametrize(
    ("reads", "active", "levels", "degrees"),
    [
        ([0] * 50, [0, 1], [1, 2], []),
        ([0, 1], [0, 0, 0], [1, 2], []),
        ([0, 2], [0, 1], [1, 2], []),
        ([0, 1], [0, 1], [0, 1], []),
        ([0, 1], [0, 1], [1, 2**31 - 1], []),
        ([0, 1], [0, 1], [1], []),
        ([0, 1], [0, 1], [1, 2], [[-5]]),
        ([0, 1], [0, 1], [1, 2], [[3]]),
    ],
)
def test_the_core_refuses_a_structure_that_it_could_not_run(reads, active, levels, degrees):
    options = cpu.MaskedOptions(
        features=2, context=0, reads=reads, active=active, map="affine", variant="exp", slope=1e-3, bins=8, bound=5.0,
        activation="relu", reads_data=True, formula_to_data=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match="expected"):
        cpu.MaskedTransform(options, levels, degrees)


@pytest.mark.parametrize(
    ("adds", "degrees", "message"),
    [
        ([-1, 0], [[0, 1], [0, 0]], r"layers\[1\].adds: unit 1 adds a unit of a higher degree than its own"),
        ([-1, 0], [[0, 1], [0]], r"layers\[1\].adds: expected an earlier hidden layer of the same width, got 0"),
        ([0, -1], [[0, 1], [0, 1]], r"layers\[0\].adds: expected an earlier hidden layer of the same width, got 0"),
        ([-2, -1], [[0, 1], [0, 1]], r"layers\[0\].adds: expected a layer, or -1 for none"),
        ([-1, 0, 0], [[0, 1]] * 3, r"layers\[2\].adds: expected a layer that no other one adds, got 0"),
        ([-1], [[0, 1]] * 2, "layers: expected one for each hidden layer"),
    ],
)
def test_the_core_refuses_added_layers_that_see_too_much(adds, degrees, message):
    """A file may contain any degrees; the core refuses those with which a coordinate would depend on itself."""

    def made(adds, degrees):
        hidden = [cpu.HiddenOptions("relu", added, "", "", 0.0) for added in adds]
        both = {"reads": [0, 1], "active": [0, 1]}
        return cpu.MaskedTransform(
            cpu.MaskedOptions(features=2, map="affine", variant="exp", hidden=hidden, **both), [1, 2], degrees
        )

    made([-1, 0], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=message):
        made(adds, degrees)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ({"context": "times"}, r"layers\[0\].context: expected 'add', 'gate' or nothing, got 'times'"),
        ({"dropout": 1.0}, r"layers\[0\].dropout: expected a number of at least 0 and below 1"),
        ({"dropout": float("nan")}, r"layers\[0\].dropout: expected a number of at least 0 and below 1"),
    ],
)
def test_the_core_refuses_hidden_layers_that_it_does_not_know(hidden, message):
    layer = {"activation": "relu", "adds": -1, "context": "", "context_activation": "", "dropout": 0.0, **hidden}
    both = {"reads": [0, 1], "active": [0, 1], "hidden": [cpu.HiddenOptions(**layer)]}
    options = cpu.MaskedOptions(features=2, context=1, map="affine", variant="exp", **both)
    with pytest.raises(ValueError, match=message):
        cpu.MaskedTransform(options, [1, 2], [[0, 1]])


def test_the_core_refuses_arrays_that_do_not_fit():
    both = {"reads": [0, 1], "active": [0, 1], "map": "affine", "variant": "exp"}
    options = cpu.MaskedOptions(features=2, activation="relu", **both)
    masks = [np.tril(np.ones((2, 2), bool), -1), np.repeat(np.tril(np.ones((2, 2), bool)), 2, axis=0)]
    made = cpu.MaskedTransform.from_masks(options, masks)
    with pytest.raises(ValueError, match="masks: sizes do not fit the transform"):
        cpu.MaskedTransform.from_masks(options, masks[:1])
    layers = [cpu.HiddenOptions("relu", -1, "", "", 0.0)] * 2
    with pytest.raises(ValueError, match="layers: expected one for each hidden layer"):
        cpu.MaskedTransform.from_masks(cpu.MaskedOptions(features=2, hidden=layers, **both), masks)
    weights, biases = [np.zeros(m.shape, "float32") for m in masks], [np.zeros(len(m), "float32") for m in masks]
    tensors = [weights[0], biases[0], weights[1], biases[1]]
    made.pack(tensors)
    with pytest.raises(ValueError, match="tensors: expected 4, got 3"):
        made.pack(tensors[:3])
    with pytest.raises(ValueError, match=r"layers\.1\.weight: expected an aligned array of its shape"):
        made.pack([*tensors[:2], np.zeros((3, 2), "float32"), np.zeros(3, "float32")])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context_mean": [0.0], "context_std": [1.0]}, "context_scale: expected a mean and a std"),
        ({"base_steps": 1}, "base_steps: expected at most the number of steps"),
        ({"features": 0}, "features: expected at least 1"),
    ],
)
def test_the_core_refuses_a_program_that_it_could_not_run(changed, message, dtype):
    options = {"features": 2, "context": 0, "base": "normal", "steps": [], "base_steps": 0}
    options |= {"context_mean": [], "context_std": []}
    program = cpu.ProgramF32 if dtype == "float32" else cpu.ProgramF64
    program(**options)
    with pytest.raises(ValueError, match=message):
        program(**options | changed)


def test_the_core_has_products_in_bf16_in_float32_alone():
    options = {"features": 2, "context": 0, "base": "normal", "steps": [], "base_steps": 0}
    options |= {"context_mean": [], "context_std": []}
    cpu.ProgramF32(**options, bf16_kind=2)
    with pytest.raises(ValueError, match="bf16_kind: expected none but in a program of float32"):
        cpu.ProgramF64(**options, bf16_kind=2)


def test_masked_arrays_are_refused_and_other_subclasses_are_read_as_they_are():
    flow = hr.MAF(2)
    x = cases.rows(9, 2, "float64")
    with pytest.raises(TypeError, match=r"x: expected a NumPy array, got a masked array"):
        flow.log_prob(np.ma.masked_array(x, x > 0))
    np.testing.assert_array_equal(flow.log_prob(x.view(type("Own", (np.ndarray,), {}))), flow.log_prob(x))


def test_a_flow_has_at_most_four_base_classes():
    assert 1 < len([base for base in hr.Flow.__mro__[1:] if base.__module__.startswith("headrace")]) <= 4
