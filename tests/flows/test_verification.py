"""`from_dense(verify=)` compares results of another library before it trusts that library's weights."""

import numpy as np
import pytest

import cases
import headrace as hr
import reference

FEATURES, CONTEXT, BINS = 3, 2, 5


def network(map="affine", context=0, dtype="float64", coupling=False):
    """Return random weights, biases and masks as another library may have them."""
    rng = cases.rng("verify", map, context, coupling)
    each = reference.MAPS[map].count(BINS)
    seen, made = (1, FEATURES - 1) if coupling else (FEATURES, FEATURES)
    if coupling:
        hidden, out = np.ones((8, seen + context)), np.ones((made, 8))
    else:
        degree = np.arange(8) % FEATURES
        hidden = np.hstack([np.arange(FEATURES) < degree[:, None], np.ones((8, context), bool)])
        out = degree <= np.arange(FEATURES)[:, None]
    masks = [hidden.astype(float), np.repeat(out, each, axis=0).astype(float)]
    dense = cases.fill(masks, rng, features=FEATURES, context=context).astype(dtype)
    return dense.arrays


def made(arrays, context, coupling, **more):
    more = {"map": "affine", "bins": BINS, "context": context, "activation": "tanh", **more}
    if coupling:
        return hr.transforms.Coupling.from_dense(*arrays, features=FEATURES, passive=[1], **more)
    return hr.transforms.MaskedAutoregressive.from_dense(*arrays, **more)


def known(transform, dtype="float64", rows=20):
    """Results in place of another library's: those of the transform itself, which is loaded without a check."""
    x = cases.rows(rows, FEATURES, dtype, "verify")
    given = (cases.rows(rows, CONTEXT, dtype, "verify context"),) if transform.context else ()
    return (x, *transform.inverse(x, *given), *given)


@pytest.mark.parametrize("coupling", [False, True])
@pytest.mark.parametrize("context", [0, CONTEXT])
@pytest.mark.parametrize("map", ["affine", "rq_spline"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_conventions_pass(map, context, coupling, dtype):
    arrays = network(map, context, dtype, coupling)
    results = known(made(arrays, context, coupling, map=map), dtype)
    made(arrays, context, coupling, map=map, verify=results)
    rounded = [array.astype("float32") for array in results]
    made(arrays, context, coupling, map=map, verify=rounded)  # float32 results of a library are accepted


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": "exp"},
        {"slope": 1e-4},
        {"formula": "to_latent"},
        {"outputs": ("scale", "shift")},
        {"layout": "blocked"},
    ],
)
@pytest.mark.parametrize("coupling", [False, True])
def test_other_conventions_raise_with_the_difference(settings, coupling):
    arrays = network(coupling=coupling)
    results = known(made(arrays, 0, coupling))
    if settings == {"layout": "blocked"} and not coupling:
        arrays = (arrays[0], arrays[1], [arrays[2][0], np.tile(arrays[2][1][::2], (2, 1))])
    with pytest.raises(
        ValueError,
        match=r"^verify: expected the results of the other library to 1\.5e-08, but .*layout='blocked' where",
    ) as error:
        made(arrays, 0, coupling, **settings, verify=results)
    x, z, log_det = results
    got = made(arrays, 0, coupling, **settings).inverse(x)
    for name, want, value in (("z", z, got[0]), ("log_det", log_det, got[1])):
        difference = np.abs(want - value).max()
        assert (f"{name} differs by up to {difference:.3g}" in str(error.value)) == (difference > 1e-6)


def nflows_spline(x, raw, bound=5.0, least=1e-3):
    """Return edges and slopes of nflows' splines: softmax with a least bin, softplus with a least derivative."""

    def softmax(a):
        e = np.exp(a - a.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    widths, heights = (
        2.0 * bound * (least + (1.0 - least * BINS) * softmax(part))
        for part in (raw[..., :BINS], raw[..., BINS : 2 * BINS])
    )
    inner = least + np.log1p(np.exp(raw[..., 2 * BINS :]))
    return [np.pad(part, [(0, 0), (1, 0)]).cumsum(axis=-1) - bound for part in (widths, heights)], np.pad(
        inner, [(0, 0), (1, 1)], constant_values=1.0
    )


def test_splines_of_nflows_with_other_conventions_are_refused():
    """Weights of a spline by nflows' formulas have the right shapes: they load without `verify`, and fail with it."""
    raw = cases.rng("verify nflows").standard_normal(3 * BINS - 1)
    arrays = [np.zeros((len(raw), 1))], [raw], [np.zeros((len(raw), 1))]
    x = np.linspace(-4.0, 4.0, 30)[:, None]
    (edges_x, edges_y), slopes = nflows_spline(x, np.tile(raw, (30, 1)))
    k = (x >= edges_x[:, :-1]).sum(axis=1)[:, None] - 1
    left, right, low, high, d0, d1 = (
        np.take_along_axis(part, k + step, axis=1)
        for part, step in ((edges_x, 0), (edges_x, 1), (edges_y, 0), (edges_y, 1), (slopes, 0), (slopes, 1))
    )
    s, t = (high - low) / (right - left), (x - left) / (right - left)
    below = s + (d0 + d1 - 2.0 * s) * t * (1.0 - t)
    z = low + (high - low) * (s * t**2 + d0 * t * (1.0 - t)) / below
    slope = s**2 * (d1 * t**2 + 2.0 * s * t * (1.0 - t) + d0 * (1.0 - t) ** 2) / below**2
    settings = {"map": "rq_spline", "bins": BINS, "formula": "to_latent"}
    hr.transforms.MaskedAutoregressive.from_dense(*arrays, **settings)  # weights of nflows load without an error
    with pytest.raises(ValueError, match=r"^verify: .* z differs by up to .* and log_det differs by up to "):
        hr.transforms.MaskedAutoregressive.from_dense(*arrays, **settings, verify=(x, z, np.log(slope[:, 0])))


@pytest.mark.parametrize(
    ("spoil", "kind", "pattern"),
    [
        (lambda k: k[:2], TypeError, r"verify: expected \(x, z, log_det\).*got 2 values"),
        (lambda k: k[0], TypeError, "verify: expected .*got ndarray"),
        (lambda k: (k[0][:, :2], *k[1:]), ValueError, r"verify\[0\]: expected shape \(rows, 3\)"),
        (lambda k: (k[0], k[1][:5], k[2]), ValueError, r"verify\[1\]: expected shape \(20, 3\), got \(5, 3\)"),
        (lambda k: (k[0], k[1], k[1]), ValueError, r"verify\[2\]: expected shape \(20,\)"),
        (lambda k: tuple(a[:0] for a in k), ValueError, r"verify\[0\]: expected at least one row"),
        (lambda k: (k[0].astype(int), *k[1:]), TypeError, r"verify\[0\]: expected dtype float32 or float64"),
        (lambda k: (k[0], k[1] * np.nan, k[2]), ValueError, r"verify\[1\]: expected finite numbers, got NaN"),
        (
            lambda k: (k[0], k[1], np.full_like(k[2], np.inf)),
            ValueError,
            r"verify\[2\]: expected finite numbers, got NaN or infinity",
        ),
        (lambda k: (*k, k[0]), TypeError, "verify: expected .*got 4 values"),
    ],
)
def test_wrong_values_of_verify(spoil, kind, pattern):
    arrays = network()
    with pytest.raises(kind, match=pattern):
        made(arrays, 0, False, verify=spoil(known(made(arrays, 0, False))))


def test_context_is_compared_too():
    arrays = network(context=CONTEXT)
    x, z, log_det, context = known(made(arrays, CONTEXT, False))
    with pytest.raises(ValueError, match=r"^verify: expected the results"):
        made(arrays, CONTEXT, False, verify=(x, z, log_det, context[::-1].copy()))
    with pytest.raises(TypeError, match="got 3 values"):
        made(arrays, CONTEXT, False, verify=(x, z, log_det))
    one = made(arrays, CONTEXT, False).inverse(x, context[0])
    made(arrays, CONTEXT, False, verify=(x, *one, context[0]))


def test_tensors_of_the_other_library():
    torch = pytest.importorskip("torch")
    arrays = network()
    results = [torch.from_numpy(array) for array in known(made(arrays, 0, False))]
    made(arrays, 0, False, verify=results)
