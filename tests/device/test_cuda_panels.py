"""The sequential direction of a network on a device: levels form panels; all warps begin the sums of a panel, and one
warp completes them."""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import network_cases
from cuda_twins import Twin
from pairs import pairwise
from program_cases import SIDES
from tensor_core_cases import ROUNDING, every_kind, small, whole

NARROW = 1000  # a number of multiprocessors for which any number of rows counts as few
SIZES = (1, 33)

# Networks by name, as keywords of cases.made(). Panels end in the middle of blocks of units and of sixteen terms.
STRUCTURES = {
    "levels that are no multiple of eight": {"features": 19, "hidden": (40, 37)},
    "one level more than a panel": {"features": 9, "hidden": (21,)},
    "levels of three coordinates": {"features": 31, "hidden": (50, 30), "per_level": 3},
    "a context": {"features": 18, "hidden": (33, 45), "context": 5},
    "more context than units": {"features": 10, "hidden": (9, 12), "context": 37},
    "no hidden layer": {"features": 21, "hidden": ()},
    "levels without units": {"features": 26, "hidden": (6, 5)},
    "zeros inside": {"features": 17, "hidden": (29, 28), "change": cases.pin_zeros},
    "dead units": {"features": 17, "hidden": (29, 28), "change": cases.kill_units},
    "units that read anything": {"features": 18, "hidden": (30, 26), "tangled": True},
    "panels of few levels, as weights would not fit": {"features": 12, "hidden": (190, 170)},
    "levels that all warps share": {"features": 6, "hidden": (310, 290)},
    "some levels that all warps share": {"features": 16, "hidden": (60, 60), "per_level": 1, "key": ("uneven",)},
}
FEATURES = 13  # the number of features of networks with joined layers


def structure(name, outputs=("shift", "scale"), **settings):
    """A network of the named structure in float64."""
    return cases.made(**({"outputs": outputs} | STRUCTURES[name] | settings))


def rows_of(dense, n, dtype):
    context = cases.rows(n, dense.context, dtype, "context") if dense.context else None
    return cases.rows(n, dense.features, dtype), context


def sequential(twin, reads):
    """The direction that is computed level by level, and the direction that is computed at once."""
    return (twin.forward, twin.inverse) if reads == "data" else (twin.inverse, twin.forward)


# --- the levels of panels
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "panels"),
    [
        (lambda: hr.MAF(64, hidden=(256, 256), transforms=1), [8] * 8),
        (lambda: hr.MAF(11, hidden=(16,), transforms=1), [8, 3]),
        (lambda: hr.MAF(1, hidden=(16,), transforms=1), [1]),
        (lambda: hr.NSF(10, hidden=(8, 8), transforms=1), [8, 2]),  # a window has room for eight coordinates
        # A panel can keep the weights of four levels.
        (lambda: hr.MAF(43, hidden=(512, 512), transforms=1), [5] + [4] * 9 + [2]),
        (lambda: hr.MAF(6, hidden=(300, 300), transforms=1), [1] + [0] * 5),  # the weights are too many for one warp
        (lambda: hr.MAF(10, context=3, hidden=hr.Network.residual((20,), context="gate"), transforms=1), [0, 8, 2]),
    ],
)
def test_which_levels_are_in_panels(flow, panels, emu):
    """A panel has as many levels as one warp can compute quickly; layers that read only the context precede all
    panels."""
    steps = [step.made_for(emu.module) for step in flow().transforms[0]._steps()]
    assert emu.module.panels(steps) == [panels]


# --- values -----------------------------------------------------------------------------------------------------------


@pairwise(name=STRUCTURES, reads__formula=SIDES, activation=["tanh", "relu"], n=SIZES, dtype=cases.DTYPES)
def test_every_structure(name, reads, formula, activation, n, device, dtype):
    subject = gradients.masked(structure(name), activation, reads=reads, formula=formula)
    judge = subject.judge(subject.arrays)
    given, context = rows_of(structure(name), n, dtype)
    cases.check_directions(Twin(device, subject.library, dtype), judge, given, context, dtype, depth=16)


@pairwise(name=network_cases.NETWORKS, reads__formula=SIDES, n=SIZES, dtype=cases.DTYPES)
def test_joined_layers(name, reads, formula, n, device, dtype):
    dense, network, joins = network_cases.made(name, features=FEATURES)
    subject = network_cases.subject(dense, network, joins, reads=reads, formula=formula)
    judge = subject.judge(subject.arrays)
    given, context = network_cases.rows_of(dense, n, dtype)
    cases.check_directions(Twin(device, subject.library, dtype), judge, given, context, dtype, depth=16)


@pytest.mark.parametrize("kind", [hr.MAF, hr.IAF, hr.NSF])
@pytest.mark.parametrize("settings", [{}, {"context": 3}], ids=["", "context"])
def test_flows_are_the_cpus(kind, settings, device, dtype):
    """Flows of maps with one, two and many parameters, in several transforms, have the CPU's values."""
    flow = cases.randomise(kind(11, transforms=3, hidden=(24, 20), dtype=dtype, **settings), 0.2)
    wide, twin = flow.astype("float64"), Twin(device, flow)
    given = cases.rows(33, 11, dtype)
    context = cases.rows(33, 3, dtype, "context") if settings else None
    wide_context = None if context is None else context.astype(float)
    for verb in ("to_data", "to_latent"):
        want = getattr(wide, verb)(given.astype(float), wide_context)
        cases.assert_matches(getattr(twin, verb)(given, context), want, given, dtype, depth=64)


@pytest.mark.parametrize("architecture", [80, 90])
def test_the_wide_lines_in_global_memory(architecture, emu):
    """The bits are equal, whether the lines of the wide network are in shared or in global memory."""
    dense = structure("levels that are no multiple of eight").astype("float32")
    flow = hr.Flow(
        [gradients.masked(dense, reads="data").library, hr.transforms.MaskedAutoregressive(19, hidden=(900, 800))]
    )
    flow = cases.randomise(flow, 0.1)
    given = cases.rows(33, 19, "float32")
    emu.module.set_architecture(architecture)
    got = Twin(emu, flow).to_data(given)
    emu.module.set_architecture(90)
    want = Twin(emu, flow).to_data(given)
    for a, b in zip(got, want, strict=True):
        cases.assert_same_bits(a, b)


# --- bits -------------------------------------------------------------------------------------------------------------


def assert_same_shifts(twin, reads, context):
    """Check that the sequential direction turns zeros into shifts, and that the parallel direction turns these shifts
    into exact zeros."""
    level_by_level, at_once = sequential(twin, reads)
    zeros = np.zeros((33, twin.features), twin.dtype)
    shifts, _ = level_by_level(zeros, context)
    again, _ = at_once(shifts, context)
    assert np.abs(shifts).max() > 0.1
    assert np.array_equal(again, zeros)


@pairwise(name=STRUCTURES, reads__formula=SIDES, dtype=cases.DTYPES)
def test_both_directions_have_the_same_shifts(name, reads, formula, device, dtype):
    """With exact products, both directions add the terms of a sum in the same order."""
    dense = structure(name, outputs=("shift",))
    library = gradients.masked(dense, "tanh", map="additive", reads=reads, formula=formula).library
    _, context = rows_of(dense, 33, dtype)
    assert_same_shifts(Twin(device, library, dtype), reads, context)


@pairwise(name=network_cases.NETWORKS, reads__formula=SIDES, dtype=cases.DTYPES)
def test_both_directions_have_the_same_shifts_of_joined_layers(name, reads, formula, device, dtype):
    dense, network, joins = network_cases.made(name, features=FEATURES, outputs=("shift",))
    library = network_cases.subject(dense, network, joins, map="additive", reads=reads, formula=formula).library
    _, context = network_cases.rows_of(dense, 33, dtype)
    assert_same_shifts(Twin(device, library, dtype), reads, context)


@pytest.mark.parametrize("reads", cases.READS)
def test_both_directions_have_the_same_scales(reads, device, dtype):
    """The sequential and the parallel direction add the logarithms of up to eight coordinates in the same order."""
    dense = cases.made(8, (64, 70))
    library = gradients.masked(dense, map="affine", reads=reads, formula="to_data").library
    level_by_level, at_once = sequential(Twin(device, library, dtype), reads)
    ones = np.where(np.arange(8) % 2 == 0, 1, -1).astype(dtype) * np.ones((33, 1), dtype)
    built, log_det = level_by_level(ones)
    _, back = at_once(built)
    assert np.abs(log_det).max() > 0.1
    assert np.array_equal(log_det, -back)


@every_kind
@pairwise(name=STRUCTURES, reads__formula=SIDES)
def test_tensor_cores_begin_the_same_sums(name, reads, formula, matmul, device):
    """Sums of whole numbers do not depend on the order, and whole numbers are exact in TF32: the bits are those of
    exact products.
    """
    dense = small(structure(name, outputs=("shift",)))
    library = gradients.masked(dense, "relu", map="additive", reads=reads, formula=formula).library
    known = whole(33, dense.features)
    context = whole(33, dense.context, "context") if dense.context else None
    level_by_level, at_once = sequential(Twin(device, library, matmul=matmul), reads)
    exact, _ = sequential(Twin(device, library), reads)
    built, _ = at_once(known, context)
    again, _ = level_by_level(built, context)
    assert np.array_equal(again, known)
    cases.assert_same_bits(again, exact(built, context)[0])


@pytest.mark.parametrize(("matmul", "allowed"), [("3xtf32", 64 * 2.0**-23), ("tf32", 64 * ROUNDING)])
@pytest.mark.parametrize("name", ["levels that are no multiple of eight", "a context", "levels of three coordinates"])
def test_products_on_tensor_cores_are_near(name, matmul, allowed, device):
    dense = structure(name, gain=0.7).astype("float32")
    library = gradients.masked(dense, "tanh", reads="data").library
    given, context = rows_of(dense, 33, "float32")
    got, want = (Twin(device, library, matmul=kind).forward(given, context) for kind in (matmul, "exact"))
    for a, b in zip(got, want, strict=True):
        assert 0 < np.abs(a - b).max() < allowed * np.abs(b).max()


@pairwise(name=STRUCTURES, matmul=["exact", "tf32", "3xtf32"], reads=cases.READS)
def test_a_rows_bits_do_not_depend_on_others(name, matmul, reads, device):
    """A row has the same bits alone and among others, one of which is not finite."""
    dense = structure(name, gain=0.7).astype("float32")
    level_by_level, _ = sequential(Twin(device, gradients.masked(dense, reads=reads).library, matmul=matmul), reads)
    given, context = rows_of(dense, 33, "float32")
    want = level_by_level(given, context)
    given[5, dense.features // 2] = np.nan
    got = level_by_level(given, context)
    last = (given[32:], None if context is None else context[32:])
    for a, b, alone in zip(got, want, level_by_level(*last), strict=True):
        assert np.isnan(a[5]).all()
        cases.assert_same_bits(np.delete(a, 5, 0), np.delete(b, 5, 0))
        cases.assert_same_bits(alone, b[32:])


@pairwise(name=STRUCTURES, matmul=["exact", "tf32", "3xtf32"], reads=cases.READS)
def test_narrow_tiles_have_the_same_bits(name, matmul, reads, emu):
    """In the backward pass of narrow tiles, a quarter of a warp replaces the warp, and continues sums by itself."""
    dense = structure(name, gain=0.7).astype("float32")
    twin = Twin(emu, gradients.masked(dense, reads=reads).library, matmul=matmul)
    given, context = rows_of(dense, 13, "float32")
    by_value, by_row = cases.rows(13, dense.features, "float32", "by value"), np.ones(13, "float32")
    wrt = (*gradients.every(context), "value", "log_det")
    verb = twin.forward_vjp if reads == "data" else twin.inverse_vjp
    found = []
    for multiprocessors in (1, NARROW):
        emu.module.set_multiprocessors(multiprocessors)
        found.append(verb(given, by_value, by_row, context, wrt=wrt))
    for a, b in zip(*found, strict=True):
        assert np.isfinite(a).all()
        cases.assert_same_bits(a, b)
