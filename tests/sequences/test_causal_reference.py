"""The reference of sequences agrees with values computed by hand, is causal, and is invertible."""

import numpy as np
import pytest

import cases
import reference


def network(*key, inputs=1, channels=3, skip=4, kernel=2, dilations=(1, 2), outputs=2, context=0, covariates=0, hop=1):
    draw = cases.rng("causal", inputs, channels, skip, kernel, dilations, *key)
    shapes = {"input.weight": (channels, inputs, kernel), "input.bias": (channels,)}
    for i in range(len(dilations)):
        units = skip if i + 1 == len(dilations) else channels + skip
        own = {"gate.weight": (2 * channels, channels, kernel), "gate.bias": (2 * channels,)}
        own |= {"out.weight": (units, channels), "out.bias": (units,)}
        own |= {"gate.context": (2 * channels, context)} if context else {}
        own |= {"gate.covariates": (2 * channels, covariates)} if covariates else {}
        shapes |= {f"layers.{i}.{name}": shape for name, shape in own.items()}
    shapes |= {"head.0.weight": (skip, skip), "head.0.bias": (skip,)}
    shapes |= {"head.1.weight": (outputs, skip), "head.1.bias": (outputs,)}
    arrays = {name: 0.5 * draw.standard_normal(shape) for name, shape in shapes.items()}
    return reference.CausalNetwork(arrays, tuple(dilations), hop)


def test_a_hand_worked_network():
    arrays = {
        "input.weight": np.array([[[2.0, 3.0]]]),
        "input.bias": np.array([0.5]),
        "layers.0.gate.weight": np.array([[[0.1, 0.2]], [[0.3, -0.1]]]),
        "layers.0.gate.bias": np.array([0.05, -0.2]),
        "layers.0.out.weight": np.array([[1.5]]),
        "layers.0.out.bias": np.array([0.25]),
        "head.0.weight": np.array([[2.0]]),
        "head.0.bias": np.array([-0.1]),
        "head.1.weight": np.array([[1.0], [-3.0]]),
        "head.1.bias": np.array([0.0, 1.0]),
    }
    raw = reference.CausalNetwork(arrays, (2,))(np.array([[[1.0], [-2.0], [4.0], [7.0]]]))[0]
    v = [1.0, -2.0, 4.0]  # step t sees t - 2 and t - 1, by the older tap and the newer one
    hidden = [0.5, 0.5 + 3 * v[0], 0.5 + 2 * v[0] + 3 * v[1], 0.5 + 2 * v[1] + 3 * v[2]]
    for t, now in enumerate(hidden):
        old = hidden[t - 2] if t >= 2 else 0.0  # before the first step hidden values are 0
        z = np.tanh(0.05 + 0.1 * old + 0.2 * now) / (1.0 + np.exp(0.2 - 0.3 * old + 0.1 * now))
        top = max(2.0 * max(0.25 + 1.5 * z, 0.0) - 0.1, 0.0)
        np.testing.assert_allclose(raw[t], [top, 1.0 - 3.0 * top], rtol=1e-14)


@pytest.mark.parametrize(("kernel", "dilations"), [(2, (1, 2, 4)), (3, (1, 3)), (4, (5,))])
def test_a_step_sees_its_field_and_nothing_else(kernel, dilations):
    own, field = network(kernel=kernel, dilations=dilations), kernel + (kernel - 1) * sum(dilations)
    for name in (f"layers.{len(dilations) - 1}.out.bias", "head.0.bias"):
        own.arrays[name] += 5.0  # every unit of the head is active, so that every change shows
    x = cases.rng("field").standard_normal((1, field + 5, 1))
    base = own(x)
    for at in range(x.shape[1] - 1):
        moved = x.copy()
        moved[0, at] += 1.0
        changed = np.flatnonzero(np.abs(own(moved) - base)[0].max(axis=1) > 0)
        assert changed[0] == at + 1
        assert changed[-1] == at + field or at + field >= x.shape[1]


def test_covariates_are_interpolated_between_frames_and_the_last_one_is_held():
    frames = np.array([[[0.0], [4.0], [2.0]]])
    found = reference.causal.interpolated(frames, 11, 4)[0, :, 0]
    np.testing.assert_allclose(found, [0, 1, 2, 3, 4, 3.5, 3, 2.5, 2, 2, 2])


@pytest.mark.parametrize("reads", cases.READS)
@pytest.mark.parametrize("map", ["affine", "rq_spline", "logistic_mixture"])
def test_directions_undo_each_other_and_log_det_is_the_jacobian(reads, map):
    bins, features = 4, 2
    outputs = features * reference.MAPS[map].count(bins)
    net = network(inputs=features, outputs=outputs, context=2, covariates=3, hop=2)
    transform = reference.CausalTransform(net, map, reads)
    draw = cases.rng("directions", reads, map)
    z, context = draw.standard_normal((2, 5, features)), draw.standard_normal((2, 2))
    covariates = draw.standard_normal((2, 3, 3))
    x, log_det = transform.forward(z, context, covariates)
    back, log_det_back = transform.inverse(x, context, covariates)
    np.testing.assert_allclose(back, z, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)

    def flat(rows):
        shape = (len(rows), 5, features)
        own = np.repeat(context[:1], len(rows), axis=0), np.repeat(covariates[:1], len(rows), axis=0)
        return transform.forward(rows.reshape(shape), *own)[0].reshape(len(rows), -1)

    jacobian = reference.jacobian(flat, z[0].reshape(-1))
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det[0].sum(), atol=1e-6)
    steps = jacobian.reshape(5, features, 5, features)
    assert all(np.abs(steps[t, :, t + 1 :]).max(initial=0.0) < 1e-9 for t in range(5))  # no step reads later steps
