"""Values of ``headrace.ops``' couplings may have leading dimensions, and rows may share parameters."""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from cores import every_core

ACTIVE = 3
KERNELS = map_cases.KERNELS
SHAPES = [  # leading dimensions of the values, and of the parameters
    ((), ()),
    ((5,), ()),
    ((5,), (1,)),
    ((0,), ()),
    ((0, 4), (4,)),
    ((1, 1), ()),
    ((2, 4), (2, 4)),
    ((2, 4), (4,)),
    ((2, 4), (2, 1)),
    ((2, 1, 40), (1, 40)),
    ((3, 2, 4), (3, 1, 4)),
]
MAPS_AND_BINS = [
    (name, bins) for name, one in reference.MAPS.items() for bins in ((2, 5, 64) if one.has_bins else (0,))
]
every_shape = pytest.mark.parametrize(("leading", "shared"), SHAPES, ids=str)


def batch(leading, shared, map="affine", dtype="float64"):
    """Return values, parameters, cotangents, and the parameters of each row."""
    draw = cases.rng("shapes", *leading, map).standard_normal
    params = draw((*shared, ACTIVE, reference.MAPS[map].count(5)))
    arrays = 2.0 * draw((*leading, ACTIVE)), params, draw((*leading, ACTIVE)), draw(leading)
    value, params, *grads = (np.asarray(array, dtype) for array in arrays)
    rows = int(np.prod(leading))
    each = np.broadcast_to(params, (*leading, *params.shape[-2:])).reshape(rows, *params.shape[-2:])
    return value, params, grads, np.ascontiguousarray(each)


@every_core(
    shape=SHAPES,
    map=list(reference.MAPS),
    direction=map_cases.JUDGES,
    dtype=cases.DTYPES,
    together=("shape", "direction"),
)
def test_values_and_gradients_are_those_of_the_rows(core, shape, map, direction, dtype):
    """Values and gradients have the bits of single rows, except that gradients of shared parameters are sums."""
    value, params, (by_value, by_log_det), each = batch(*shape, map, dtype)
    flat = value.reshape(len(each), ACTIVE)
    got = KERNELS[direction](value, params, map)
    want = KERNELS[direction](flat, each, map)
    assert got[0].shape == value.shape
    assert got[1].shape == shape[0]
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result.reshape(expected.shape), expected)
    of_value, of_params = hr.ops.coupling_vjp(value, params, by_value, by_log_det, map, direction=direction)
    grads = by_value.reshape(flat.shape), by_log_det.reshape(len(each))
    want_value, want_params = hr.ops.coupling_vjp(flat, each, *grads, map, direction=direction)
    cases.assert_same_bits(of_value, want_value.reshape(value.shape))
    assert (of_params.shape, of_params.dtype) == (params.shape, params.dtype)
    leading, shared = shape
    full = want_params.reshape(*leading, *params.shape[-2:]).astype("float64")
    padded = (1,) * (len(leading) - len(shared)) + shared
    axes = tuple(i for i, (n, own) in enumerate(zip(leading, padded, strict=True)) if n != own)
    total = full.sum(axis=axes).reshape(params.shape)
    if leading == shared:
        cases.assert_same_bits(of_params, want_params.reshape(params.shape))
    else:  # sums are rounded once from float64
        allowed = np.finfo(dtype).eps * np.abs(full).sum(axis=axes).reshape(params.shape)
        assert (np.abs(of_params - total) <= allowed).all()


@pytest.mark.parametrize(("map", "bins"), MAPS_AND_BINS)
@pytest.mark.parametrize("direction", map_cases.JUDGES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_an_element_has_the_same_bits_alone_and_among_others(map, bins, direction, dtype):
    """Parameters of one element are copied singly, those of many in vectors, the last of which may be partial."""
    rows = 91
    draw = cases.rng("alone", map, bins).standard_normal
    shapes = (rows, 1), (rows, 1, reference.MAPS[map].count(bins)), (rows, 1), (rows,)
    value, params, *grads = (draw(shape).astype(dtype) for shape in shapes)

    def results(part):
        given, by = (value[part], params[part]), (grad[part] for grad in grads)
        return *KERNELS[direction](*given, map), *hr.ops.coupling_vjp(*given, *by, map, direction=direction)

    alone = [results(slice(row, row + 1)) for row in range(rows)]
    for result, expected in zip(results(slice(None)), zip(*alone, strict=True), strict=True):
        cases.assert_same_bits(result, np.concatenate(expected))


@pytest.mark.parametrize("direction", map_cases.JUDGES)
def test_the_gradient_of_shared_parameters_matches_differences(direction):
    value, params, (by_value, by_log_det), _ = batch((7, 4), (4,), "rq_spline")
    _, got = hr.ops.coupling_vjp(value, params, by_value, by_log_det, "rq_spline", direction=direction)
    step, judge = reference.STEP, map_cases.JUDGES[direction]

    def loss(moved):
        full = np.broadcast_to(moved, (7, *moved.shape)).reshape(28, *moved.shape[1:])
        result, log_det = judge(value.reshape(28, ACTIVE), full, "rq_spline")
        return (result * by_value.reshape(28, ACTIVE)).sum() + (log_det * by_log_det.reshape(28)).sum()

    for index in np.ndindex(*params.shape):
        up, down = params.copy(), params.copy()
        up[index] += step
        down[index] -= step
        # Differences have an error of eps^(2/3) = 4e-11 of sums of some hundred terms.
        assert abs((loss(up) - loss(down)) / (2 * step) - got[index]) <= 1e-6 * max(1.0, np.abs(got).max())


@every_shape
@pytest.mark.parametrize("direction", map_cases.JUDGES)
def test_out_has_the_shapes_of_the_results(direction, leading, shared, dtype):
    value, params, (by_value, by_log_det), _ = batch(leading, shared, dtype=dtype)
    want = KERNELS[direction](value, params)
    own = value.copy()
    out = own, np.full(leading, 7, dtype)
    assert KERNELS[direction](own, params, out=out) is out  # `out` may be the input
    for result, expected in zip(out, want, strict=True):
        cases.assert_same_bits(result, expected)
    want = hr.ops.coupling_vjp(value, params, by_value, by_log_det, direction=direction)
    out = np.full_like(value, 7), np.full_like(params, 7)
    assert hr.ops.coupling_vjp(value, params, by_value, by_log_det, direction=direction, out=out) is out
    for result, expected in zip(out, want, strict=True):
        cases.assert_same_bits(result, expected)


def test_gradients_of_shared_parameters_have_the_same_bits_for_any_number_of_threads(dtype, set_threads):
    value, params, grads, _ = batch((5000, 4), (4,), "rq_spline", dtype)
    found = []
    for threads in (1, 2, 5):
        set_threads(threads)
        found.append(hr.ops.coupling_vjp(value, params, *grads, "rq_spline")[1])
    for other in found[1:]:
        cases.assert_same_bits(other, found[0])


def test_cotangents_and_outputs_of_other_shapes_are_refused():
    value, params, (by_value, by_log_det), _ = batch((2, 4), ())
    with pytest.raises(ValueError, match=r"grad_value: expected shape \(2, 4, 3\), got \(8, 3\)"):
        hr.ops.coupling_vjp(value, params, by_value.reshape(8, 3), by_log_det)
    with pytest.raises(ValueError, match=r"grad_log_det: expected shape \(2, 4\), got \(8,\)"):
        hr.ops.coupling_vjp(value, params, by_value, by_log_det.reshape(8))
    with pytest.raises(ValueError, match=r"out\[1\]: expected shape \(3, 2\), got \(2, 4, 3, 2\)"):
        hr.ops.coupling_vjp(value, params, by_value, by_log_det, out=(value.copy(), np.empty((2, 4, 3, 2))))
    with pytest.raises(
        ValueError, match=r"params: expected shape \(2, 4, 3, 2\), or \(3, 2\) for all rows, got \(2, 3, 2\)"
    ):
        hr.ops.coupling(value, np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match=r"params: expected shape \(3, 2\), got \(1, 3, 2\)"):
        hr.ops.coupling(value[0, 0], params[None])
