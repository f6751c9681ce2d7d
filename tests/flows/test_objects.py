"""Flows and transforms as Python objects: copies, current parameters, what is read-only, what is refused."""

import copy

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._core import cpu


def small_flow():
    base = hr.Normal(3, 1.0, 2.0)
    flow = hr.Flow([hr.Inverse(hr.MaskedAutoregressive(3, hidden=(8,))), hr.Permutation([2, 0, 1])], base)
    return cases.randomise(flow, 0.2, "objects")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_has_parameters_of_its_own(duplicate):
    flow = small_flow()
    kept, other = flow.parameters, duplicate(flow)
    other.parameters = 2 * kept
    assert (flow.parameters == kept).all()
    assert (other.parameters == 2 * kept).all()


def test_what_a_flow_shows_of_itself_is_current():
    flow = small_flow()
    named = flow.named_parameters()
    flow.parameters = 3 * flow.parameters
    weight = flow.transforms[0].transform.to_dense()[0][0]
    np.testing.assert_array_equal(weight, 3 * named["transforms.0.layers.0.weight"])
    np.testing.assert_allclose(flow.base.loc, 3 * named["base.loc"].astype("float64"), rtol=1e-6)
    np.testing.assert_allclose(np.log(flow.base.scale), 3 * named["base.log_scale"].astype("float64"), rtol=1e-5)


def test_fixed_numbers_cannot_be_changed_behind_a_program():
    with pytest.raises(ValueError, match="read-only"):
        hr.Standardize([0.0], [2.0]).mean[0] = 5.0


@pytest.mark.parametrize("scale", ["soft_clamp", "exp", "softplus", "sigmoid"])
@pytest.mark.parametrize("kind", [hr.MaskedAutoregressive, hr.Coupling])
def test_fresh_transforms_are_near_the_identity_whatever_the_scale(kind, scale):
    more = {"passive": [0, 2]} if kind is hr.Coupling else {}
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
def test_the_core_refuses_layers_that_add_what_they_may_not_see(adds, degrees, message):
    """A file may say any degrees; with these a coordinate would depend on itself."""

    def made(adds, degrees):
        hidden = [cpu.HiddenOptions("relu", added, "", "", 0.0) for added in adds]
        both = {"reads": [0, 1], "active": [0, 1]}
        return cpu.MaskedTransform(
            cpu.MaskedOptions(features=2, map="affine", variant="exp", hidden=hidden, **both), [1, 2], degrees
        )

    made([-1, 0], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=message):
        made(adds, degrees)


def test_masked_arrays_are_refused_and_other_subclasses_are_read_as_they_are():
    flow = hr.MAF(2)
    x = cases.rows(9, 2, "float64")
    with pytest.raises(TypeError, match=r"x: expected a NumPy array, got a masked array"):
        flow.log_prob(np.ma.masked_array(x, x > 0))
    np.testing.assert_array_equal(flow.log_prob(x.view(type("Own", (np.ndarray,), {}))), flow.log_prob(x))
