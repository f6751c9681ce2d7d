"""Elementwise maps, activations and densities against 50 digits: no value has a larger error than the recorded one."""

import numpy as np
import pytest

import cases
import digits
import headrace as hr

RECORDED = digits.recorded()


def test_the_table_has_every_map_activation_and_density():
    functions = digits.read_cases()
    assert sum(values.size for case in functions for values, _ in case.want) == len(RECORDED["fused float32"]) >= 5000
    assert {case.map_and_scale for case in functions if case.is_map} == {
        (one.name, one.scale) for one in hr._core.cpu.maps()
    }
    assert {case.name for case in functions if case.is_activation} == set(hr._core.cpu.activations())
    assert {case.name for case in functions if case.is_density} == set(digits.BASES)


@pytest.mark.optimised
@pytest.mark.parametrize("isa", hr.info()["isas"])
def test_no_value_gets_worse_on_an_instruction_set(isa, tmp_path):
    found = digits.measured_by(isa, tmp_path / "errors.npz")
    for dtype, errors in found.items():
        assert not digits.worse(errors, RECORDED[f"{digits.record_of(isa)} {dtype}"])


@pytest.mark.optimised
def test_a_few_rows_have_the_errors_of_many(dtype):
    """With one column sums have one term, so that paths for few rows and for many have equal results."""
    for case in digits.read_cases():
        for got, want in zip(case.results(dtype, rows=3), case.results(dtype), strict=True):
            cases.assert_same_bits(got, want)


def test_one_value_that_gets_worse_is_named():
    limits = RECORDED["fused float32"].copy()
    errors = limits.copy()
    errors[7] += 1.0
    (line,) = digits.worse(errors, limits)
    assert line.startswith("affine soft_clamp to_data, value 7 of x = ")


def test_errors_are_right_beyond_float64():
    """Even in float64, references of 50 digits show errors of a fraction of a unit in the last place."""
    (case,) = (case for case in digits.read_cases() if case.name == "tanh")
    high, low = case.want[0]
    nearest = case.errors([high])
    np.testing.assert_allclose(nearest, np.abs(low) / (np.finfo(float).eps * np.maximum(np.abs(high), 2.3e-308)))
    assert 0.1 < nearest.max() <= 0.5
    # The neighbour on the side away from the exact value has a larger error.
    beside = case.errors([np.nextafter(high, np.where(low < 0, np.inf, -np.inf))])
    assert (beside > nearest).all()
    assert 1.0 < beside.max() <= 1.5
