"""Elementwise maps whose rows share parameters: the prepared form against parameters for each row."""

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from headrace._core import cpu

PROGRAMS = {"float32": cpu.ProgramF32, "float64": cpu.ProgramF64}


def options(features, active, map="rq_spline"):
    return cpu.MaskedOptions(
        features=features,
        context=0,
        reads=[],
        active=active,
        map=map,
        variant="",
        slope=1e-3,
        bins=4,
        bound=5.0,
        activation="relu",
        reads_data=True,
        formula_to_data=True,
    )


@pytest.mark.parametrize("map", ["rq_spline", "dual_ascent"])
@pytest.mark.parametrize(("active", "levels"), [([0, 1, 2], [1, 1, 1]), ([2, 0, 1], [1, 1, 1]), ([0, 1, 2], [3, 1, 2])])
def test_coordinates_find_their_parameters_in_any_order(map, active, levels, dtype):
    core = cpu.MaskedTransform(options(3, active, map), levels, [])
    # Raw parameters have the order of coordinates in `active`.
    raw = cases.rng("order", map).standard_normal((3, reference.MAPS[map].count(4))).astype(dtype)
    program = PROGRAMS[dtype](3, 0, "", [cpu.NetworkStep(inverted=False, transform=core)], 0, [], [])
    bias = raw.reshape(-1)
    program.set_weights(core.pack([np.empty((bias.size, 0), dtype), bias]))
    z = cases.rows(40, 3, dtype)
    x, log_det = np.empty_like(z), np.empty(40, dtype)
    program.transform(False, z, x, log_det)
    params = np.broadcast_to(raw[np.argsort(active)], (40, *raw.shape)).copy()
    want, want_log_det = hr.ops.coupling(z, params, map=map)
    cases.assert_close(x, want, magnitude=8.0)
    cases.assert_close(log_det, want_log_det, magnitude=8.0)


def test_the_smallest_derivatives_do_not_underflow(dtype):
    t = hr.transforms.Elementwise(4, map="dual_ascent", slope=1e-6, formula="to_data", dtype=dtype)
    t.set_parameter("stretch", np.full((4, 1), -1e30, dtype))
    t.set_parameter("bend", np.full((4, 1), -1e20, dtype))
    log_det = t.forward(np.full((9, 4), 1e4, dtype))[1]
    np.testing.assert_allclose(log_det, 8 * np.log(1e-6), rtol=1e-2)
