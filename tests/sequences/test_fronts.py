"""Companded inputs and levels of causal convolutions: against the reference, at their clamps, and in files."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from headrace.sequences.settings import LEVELS
from pairs import pairwise

MAPS = {
    "logistic_mixture": {"map": "logistic_mixture", "bins": 4},
    "affine": {"map": "affine"},
    "rq_spline": {"map": "rq_spline", "bins": 5, "bound": 4.0},
}
FRONTS = {"companded": {"companded": True}, "level": {"level": True}, "both": {"companded": True, "level": True}}
TOLERANCES = {"float64": 1e-10, "float32": 2e-4}


def flow_of(map, front, reads, dtype, features=2):
    more = {"companded": False, "level": False, "prediction": 0, "reads": reads, "layers": 3, "channels": 6}
    own = more | MAPS[map] | FRONTS[front] | {"features": features, "dtype": dtype, "transforms": 1}
    flow = sequence_cases.wavenet(map, front, reads, **own)
    # Small weights, so that values of the sequential direction do not grow.
    for name, array in flow.named_parameters().items():
        if "head.1" in name:
            flow.set_parameter(name, 0.3 * array)
    return flow


@pairwise(map=list(MAPS), front=list(FRONTS), reads=["data", "latent"], dtype=cases.DTYPES, rows=[1, 3, 20])
def test_densities_with_companded_inputs_and_levels_are_the_reference_s(map, front, reads, dtype, rows, tmp_path):
    flow = flow_of(map, front, reads, dtype)
    x = sequence_cases.sequences(rows, 60, 2, dtype)
    judge = sequence_cases.judge_of(flow, tmp_path)
    for verb in ("to_latent", "to_data"):
        value, log_det = getattr(flow, verb)(x)
        expected, steps = getattr(judge, verb)(x)
        np.testing.assert_allclose(value, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
        np.testing.assert_allclose(log_det, steps.sum(axis=1), rtol=TOLERANCES[dtype], atol=60 * TOLERANCES[dtype])


@pairwise(map=list(MAPS), front=list(FRONTS), reads=["data", "latent"], verb=["to_latent", "to_data"])
def test_gradients_are_differences(map, front, reads, verb):
    flow = flow_of(map, front, reads, "float64")
    draw = cases.rng("front", map, front, verb)
    given = sequence_cases.sequences(2, 40, 2, "float64")
    by_value, by_log_det = draw.standard_normal(given.shape), draw.standard_normal(2)
    own = flow.parameters
    mask = np.zeros_like(own)
    flow.parameters = np.ones_like(own)
    mask[:] = flow.parameters != 0
    flow.parameters = own

    def total(x, parameters):
        value, log_det = getattr(flow, verb)(x, parameters=parameters)
        return float((value * by_value).sum() + (log_det * by_log_det).sum())

    found = getattr(flow, f"{verb}_vjp")(given, by_value, by_log_det)
    h = 1e-7
    for arrays, gradient in zip((given, own), found, strict=True):
        direction = draw.standard_normal(arrays.shape)
        if arrays is own:
            direction *= mask
            ends = [total(given, own + sign * h * direction) for sign in (1, -1)]
        else:
            ends = [total(given + sign * h * direction, own) for sign in (1, -1)]
        size = float(np.abs(gradient * direction).sum())
        # A central difference errs by h² and by its rounding, 1e-16 / h times the sum.
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * h), atol=2e-6 * size)


def test_levels_are_clamped():
    flow = flow_of("affine", "level", "data", "float64", 1)
    x = sequence_cases.sequences(1, 30, 1, "float64")
    index = flow.named_parameters()["transforms.0.head.1.bias"].shape[0] - 1
    scales = []
    for level in (LEVELS[0] - 5.0, LEVELS[0] + 1.0, LEVELS[1] - 1.0, LEVELS[1] + 5.0):
        for name in ("weight", "bias"):
            array = flow.named_parameters()[f"transforms.0.head.1.{name}"]
            array[:] = 0.0
            if name == "bias":
                array[index] = level
            flow.set_parameter(f"transforms.0.head.1.{name}", array)
        z, log_det = flow.to_latent(x)
        scales.append(-log_det[0] / 30)
        np.testing.assert_allclose(z, x * np.exp(-scales[-1]), rtol=1e-12)
        gradient = flow.nll_and_grad(x)[1]
        named = flow.named_parameters()
        flow.parameters = gradient
        by_level = flow.named_parameters()["transforms.0.head.1.bias"][index]
        for name, array in named.items():
            flow.set_parameter(name, array)
        assert (by_level == 0.0) == (not LEVELS[0] <= level <= LEVELS[1])
    np.testing.assert_allclose(scales, [-13.0, -12.0, 1.0, 2.0], rtol=1e-12)


def test_with_levels_other_parameters_do_not_depend_on_the_scale():
    """If the level is a constant c, data times e^c have the latent values of the data."""
    flow = flow_of("logistic_mixture", "level", "data", "float64", 1)
    for name in ("input.weight", "head.1.weight"):  # without these weights, parameters do not depend on the inputs
        flow.set_parameter(f"transforms.0.{name}", 0.0 * flow.named_parameters()[f"transforms.0.{name}"])
    x = sequence_cases.sequences(1, 30, 1, "float64")
    z, log_det = flow.to_latent(x)
    bias = flow.named_parameters()["transforms.0.head.1.bias"]
    bias[-1] -= 9.0
    flow.set_parameter("transforms.0.head.1.bias", bias)
    small, log_det_small = flow.to_latent(x * np.exp(-9.0))
    np.testing.assert_allclose(small, z, rtol=1e-9)
    np.testing.assert_allclose(log_det_small, log_det + 30 * 9.0, rtol=1e-9)


def test_probabilities_of_cells_add_up():
    """The probabilities of all cells of the last step sum to one, through a level and a linear prediction."""
    flow = sequence_cases.wavenet("cells of a front", layers=2, channels=4, prediction=3, standardize=(3.0, 2.0))
    assert [type(t).__name__ for t in flow.transforms] == ["CausalConvolution", "LinearPrediction", "Standardize"]
    past = cases.rng("past").integers(-6, 12, (20, 1))
    grid = np.arange(-4000, 4001)
    x = np.repeat(past[None], len(grid), axis=0)
    x[:, -1, 0] = grid
    last = flow.log_prob_steps(x, quantised=1)[:, -1]
    np.testing.assert_allclose(np.exp(last).sum(), 1.0, rtol=1e-5)  # mixtures have long tails
    fine = flow.log_prob_steps(x + 0.0, quantised=1e-4)[:, -1] - np.log(1e-4)
    np.testing.assert_allclose(fine, flow.log_prob_steps(x + 0.0)[:, -1], rtol=1e-4, atol=1e-4)


def test_files_have_companded_and_level_only_where_they_are_true(tmp_path):
    plain = hr.CausalConvolution(channels=3, dilations=[1], map="affine")
    assert not {"companded", "level"} & plain._header().keys()
    own = hr.CausalConvolution(channels=3, dilations=[1], map="affine", companded=True, level=True)
    assert {"companded": True, "level": True}.items() <= own._header().items()
    own.save(tmp_path / "own")
    back = hr.load(tmp_path / "own")
    assert (back.parameters == own.parameters).all()
    assert back._header() == own._header()
    assert "level=True, companded=True" in repr(own)


def test_refused_values_of_companded_and_level():
    for name in ("companded", "level"):
        with pytest.raises(TypeError, match=f"{name}: expected True or False, got"):
            hr.CausalConvolution(**{name: 1})
    with pytest.raises(ValueError, match="level: expected False beside an inner flow"):
        hr.CausalConvolution(2, inner=hr.MAF(2, context=3), level=True)
    with pytest.raises(ValueError, match="prediction: expected"):
        hr.WaveNet(prediction=-1)


def test_defaults_of_wavenet():
    kinds = [type(t).__name__ for t in hr.WaveNet(layers=2).transforms]
    assert kinds == ["CausalConvolution", "LinearPrediction", "Standardize"]
    kinds = [type(t).__name__ for t in hr.WaveNet(layers=2, prediction=0).transforms]
    assert kinds == ["CausalConvolution", "Standardize"]
    student = hr.WaveNet(layers=2, reads="latent", map="affine")
    assert [type(t).__name__ for t in student.transforms] == [*["CausalConvolution"] * 3, "Standardize"]
    assert not student.transforms[0]._settings.level
    assert not hr.WaveNet(2, layers=2).transforms[0]._settings.level  # an inner flow has no level
