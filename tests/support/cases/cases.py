"""Seeded inputs, random networks, hard inputs and tolerances, shared by all tests."""

import itertools
import re
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.testing import assert_array_equal

import reference

READS = ("data", "latent")
FORMULAS = ("to_data", "to_latent")
DTYPES = ("float32", "float64")

# Kernels take rows in tiles: a multiple of the vector width, at most 96 rows in float32 and 48 in float64. Below 3 rows
# small networks have a separate path. BATCH_SIZES has 0, 1, 2, and each edge of a tile with its neighbours.
BATCH_SIZES = (0, 1, 2, 3, 7, 8, 9, 47, 48, 49, 95, 96, 97, 200)
TILED_SIZES = tuple(n for n in BATCH_SIZES if n >= 8)


def rng(*key):
    """A generator whose seed is a checksum of the key, so that its values do not depend on the order of tests."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def curves(features, knots, *key):
    """The ``(data, latent, slopes)`` of random increasing curves, steep and flat, in columns of different widths."""
    draw = rng(features, knots, *key)
    steps = draw.random((features, knots)) + 0.05
    data = (
        np.cumsum(steps, axis=1) * np.linspace(0.1, 3.0, features)[:, None] - np.linspace(-2.0, 5.0, features)[:, None]
    )
    latent = np.linspace(-2.5, 2.5, knots) + 0.2 * draw.random(knots) / knots
    chords = np.log(np.diff(latent) / np.diff(data, axis=1))
    around = np.concatenate([chords[:, :1], 0.5 * (chords[:, 1:] + chords[:, :-1]), chords[:, -1:]], axis=1)
    return data, latent, np.exp(around + draw.normal(0.0, 0.3, (features, knots)))


# --- tolerances -----------------------------------------------------------------------------------------------------


def tolerance(dtype, depth=4):
    """The largest error allowed, relative to the largest magnitude of the case.

    The rounding error grows with the precision's eps, the number of layers a value has passed (``depth``) and the scale
    of the values. A layer is a dot product of at most some tens of terms and one special function: 32 eps allow for
    both in float32, and 1024 eps in float64, whose longer polynomials may lose a few ulp more. For the usual four
    layers the tolerance is 1.5e-5 in float32 and 9e-13 in float64.
    """
    dtype = np.dtype(dtype)
    layer = {"float32": 32, "float64": 1024}[dtype.name] * np.finfo(dtype).eps
    return float(depth * layer)


def assert_close(got, want, *, magnitude=1.0, depth=4):
    """Compare with the reference: an error may be ``tolerance`` times the largest magnitude in its row.

    ``magnitude`` (a scalar, or one value per row) is the least magnitude to which errors are relative: the magnitude of
    the values whose sum is the result, such as the inputs of a row or the terms of a sum.
    """
    want = np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.isfinite(want).all(), "the reference must be finite where it judges"
    largest = np.abs(want).reshape(len(want), int(np.prod(want.shape[1:]))).max(axis=1, initial=1.0)
    error = np.abs(got.astype(np.float64) - want)
    assert not np.isnan(error).any()
    worst = (error.T / np.maximum(largest, magnitude)).max(initial=0.0)
    assert worst <= tolerance(got.dtype, depth), f"relative error {worst:.3g} > {tolerance(got.dtype, depth):.3g}"


def assert_matches(got, want, given, dtype, *, depth=4):
    """Compare ``(value, log_det)`` of a transform with those of the reference."""
    value, log_det = got
    assert value.dtype == log_det.dtype == np.dtype(dtype)
    assert value.shape == given.shape
    assert log_det.shape == given.shape[:1]
    largest = np.abs(np.asarray(given, np.float64)).max(axis=1, initial=0.0)
    assert_close(value, want[0], magnitude=largest, depth=depth)
    # Each coordinate adds one term to a log-determinant, and each term is rounded at its own magnitude.
    assert_close(log_det, want[1], magnitude=np.sqrt(given.shape[1]), depth=depth)


def spline_magnitudes(given, params, dtype, *, slope=1e-3, bound=5.0, inverse=False, knots=None):
    """The magnitudes to which errors of a spline are relative: ``(value, log-derivative)``, two arrays with one
    magnitude for each element.

    The locations of knots and the values are rounded at the scale of the bound. In the value, a rounding error is
    multiplied by the map's steepness, and in the log-derivative by the slope of the log-derivative. With s the mean
    slope of a bin and d0, d1 the derivatives at its knots, the derivative stays below the largest of d0, d1 and 2 s,
    above the smallest of d0, d1 and 4 s^2 / (2 s + d0 + d1), and the log-derivative changes by at most some
    (d0 + d1) / s + s / min(d0, d1) within the bin. Rounding may also choose a neighbouring bin. ``knots``: the knots of
    the spline, if the map is not "rq_spline".
    """
    x, y, derivatives = reference.spline_knots(params, slope, bound) if knots is None else knots
    left, right = x[..., 0], x[..., -1]
    bound = np.maximum(np.abs(left), np.abs(right))
    given, params = np.asarray(given, np.float64), np.asarray(params, np.float64)
    value, log_derivative = np.abs(given), np.ones_like(given)
    for shift in (-1.0, 0.0, 1.0):
        moved = np.clip(given + shift * bound * tolerance(dtype), left, right)
        _, _, width, height, d0, d1 = reference.find_bin(moved, x, y, derivatives, inverse)
        steep = height / width
        top = np.maximum(np.maximum(d0, d1), 2.0 * steep)
        low = np.minimum(np.minimum(d0, d1), 4.0 * steep**2 / (2.0 * steep + d0 + d1))
        stretch = np.maximum(1.0, 1.0 / low if inverse else top)
        bend = 1.0 + (d0 + d1) / steep + steep / np.minimum(d0, d1)
        value = np.maximum(value, bound * stretch)
        log_derivative = np.maximum(log_derivative, bend * bound / width * (stretch if inverse else 1.0))
    return value, log_derivative


def check_directions(library, judge, given, context, dtype, depth=4):
    """Compare both directions of a transform with its reference."""
    assert_matches(library.forward(given, context), judge.forward(given, context), given, dtype, depth=depth)
    assert_matches(library.inverse(given, context), judge.inverse(given, context), given, dtype, depth=depth)


def assert_same_bits(got, want):
    """Check that two arrays are equal bit for bit: -0 differs from 0, and a NaN equals a NaN with the same bits."""
    assert got.dtype == want.dtype
    bits = np.dtype(f"u{got.dtype.itemsize}")
    assert_array_equal(np.ascontiguousarray(got).view(bits), np.ascontiguousarray(want).view(bits))


# --- inputs ---------------------------------------------------------------------------------------------------------


def rows(n, features, dtype, *key):
    """Rows of independent standard normal values."""
    return rng("rows", n, features, *key).standard_normal((n, features)).astype(dtype)


def hard_rows(features, dtype):
    """Rows of zeros of both signs, huge, tiny, subnormal and mixed values, with ordinary rows between them."""
    dtype = np.dtype(dtype)
    subnormal = np.finfo(dtype).smallest_subnormal * 3
    ordinary = rows(4, features, dtype, "hard")
    signs = np.where(np.arange(features) % 2, -1, 1).astype(dtype)
    mixed = np.resize(np.array([1e30, -1e-30, 1.0, subnormal, -0.0], dtype), features)
    single = np.zeros(features, dtype)
    single[0] = -1e30
    return np.array(
        [
            ordinary[0],
            np.zeros(features),
            -np.zeros(features),
            ordinary[1],
            1e30 * signs,
            -1e30 * signs,
            1e-30 * signs,
            ordinary[2],
            subnormal * signs,
            mixed,
            single,
            ordinary[3],
        ],
        dtype,
    )


# --- networks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """The arguments of ``from_dense``: one array a layer; columns of the first layer are features, then context."""

    weights: list
    biases: list
    masks: list
    features: int
    context: int
    outputs: tuple[str, ...]
    layout: str

    def astype(self, dtype):
        return replace(
            self, weights=[w.astype(dtype) for w in self.weights], biases=[b.astype(dtype) for b in self.biases]
        )

    @property
    def arrays(self):
        return self.weights, self.biases, self.masks

    def network(self, activation):
        return reference.Network(self.weights, self.biases, self.masks, activation)


def fill(masks, generator, *, gain=1.0, features=0, context=0, outputs=("shift", "scale"), layout="interleaved"):
    """Random weights for masks: pre-activations of order one, and outputs of order ``gain / 2``.

    Even masked weights are random, because no result may depend on them.
    """
    weights, biases = [], []
    for layer, mask in enumerate(masks):
        spread = gain * (0.5 if layer == len(masks) - 1 else 1.0)
        fan_in = max(1.0, mask.sum(axis=1).mean()) if mask.size else 1.0
        weights.append(spread / np.sqrt(fan_in) * generator.standard_normal(mask.shape))
        biases.append(0.3 * generator.standard_normal(mask.shape[0]))
    return Dense(weights, biases, list(masks), features, context, outputs, layout)


def sizes_of(outputs, bins=8, map=None):
    """The number of values of each output in the given map, or in the smallest map that has all of ``outputs``."""
    having = [name for name, map in reference.MAPS.items() if set(map.parameters) >= set(outputs)]
    map = map or min(having, key=lambda name: len(reference.MAPS[name].parameters))
    return [reference.MAPS[map].sizes(bins)[name] for name in outputs]


def per_parameter(mask, sizes, layout):
    """Repeat each row of a mask, one per coordinate, for all values of the coordinate's outputs, in the
    order that ``layout`` names."""
    if layout == "interleaved":
        return np.repeat(mask, sum(sizes), axis=0)
    return np.vstack([np.repeat(mask, size, axis=0) for size in sizes])


def levels_of(order, per_level=1):
    """The level of each coordinate: every ``per_level`` consecutive coordinates of the list ``order`` share a level."""
    levels = np.empty(len(order), int)
    levels[list(order)] = np.arange(len(order)) // per_level
    return levels


def autoregressive_masks(levels, hidden, context, generator, sizes=(1, 1), layout="interleaved"):
    """Masks by levels of coordinates and random degrees of units: a unit of degree d reads levels below d."""
    levels = np.asarray(levels)
    seen, masks = levels + 1, []
    seen = np.concatenate([seen, np.zeros(context, int)])  # units of every degree read the context
    for width in hidden:
        degrees = generator.integers(0, levels.max() + 1, width)
        masks.append(degrees[:, None] >= seen[None, :])
        seen = degrees
    masks.append(per_parameter(levels[:, None] >= seen[None, :], sizes, layout))
    return masks


def tangled_masks(features, hidden, context, generator, sizes=(1, 1), layout="interleaved"):
    """Masks with no structure beyond that of an autoregression: units read arbitrary subsets of their inputs, and
    outputs depend on earlier coordinates.

    The subsets that units read are not nested, so that no choice of degrees reproduces these masks.
    """
    order = generator.permutation(features)
    place = np.empty(features, int)
    place[order] = np.arange(features)
    masks, columns = [], features + context
    for width in hidden:
        mask = generator.random((width, columns)) < 1.6 / columns
        if not masks and context:
            mask[:, features:] = generator.random((width, context)) < 0.5
        masks.append(mask)
        columns = width
    reach = reference.reads(masks)[:, :features]
    earlier = place[None, :] < place[:, None]
    allowed = np.array([[not (unit & ~earlier[i]).any() for unit in reach] for i in range(features)])
    masks.append(per_parameter(allowed, sizes, layout))
    return masks


def pin_zeros(masks, generator, share=0.3):
    """Remove a random share of the connections, which puts zeros inside the staircase of the masks."""
    return [mask & (generator.random(mask.shape) > share) for mask in masks]


def kill_units(masks, generator):
    """Change masks so that each hidden layer has one unit that reads nothing, and one that nothing reads."""
    masks = [mask.copy() for mask in masks]
    for before, after in itertools.pairwise(masks):
        constant, unread = generator.choice(before.shape[0], 2, replace=False)
        before[constant] = False
        after[:, unread] = False
    return masks


def made(
    features=7,
    hidden=(17, 24, 13),
    context=0,
    *,
    per_level=1,
    outputs=("shift", "scale"),
    layout="interleaved",
    bins=8,
    map=None,
    change=None,
    tangled=False,
    gain=1.4,
    key=(),
):
    """A random masked network in a random order of coordinates, with random degrees."""
    generator = rng("made", features, hidden, context, per_level, outputs, layout, tangled, *key)
    sizes = sizes_of(outputs, bins, map)
    if tangled:
        masks = tangled_masks(features, hidden, context, generator, sizes, layout)
    else:
        levels = levels_of(generator.permutation(features), per_level)
        masks = autoregressive_masks(levels, hidden, context, generator, sizes, layout)
    if change is not None:
        masks = change(masks, generator)
    return fill(masks, generator, gain=gain, features=features, context=context, outputs=outputs, layout=layout)


def dense_network(
    inputs,
    hidden,
    active,
    context=0,
    *,
    outputs=("shift", "scale"),
    layout="interleaved",
    bins=8,
    map=None,
    change=None,
    gain=1.4,
    key=(),
):
    """A random unmasked network for a coupling, which reads ``inputs`` passive coordinates and the context."""
    generator = rng("dense", inputs, hidden, active, context, outputs, layout, *key)
    widths = [inputs + context, *hidden, active * sum(sizes_of(outputs, bins, map))]
    masks = [np.ones((out, into), bool) for into, out in itertools.pairwise(widths)]
    if change is not None:
        masks = change(masks, generator)
    features = inputs + active
    return fill(masks, generator, gain=gain, features=features, context=context, outputs=outputs, layout=layout)


# Kinds of networks that users may pass to ``from_dense``: name -> keywords of made().
NETWORKS = {
    "no hidden layer": {"hidden": ()},
    "one hidden layer": {"hidden": (20,)},
    "three layers": {},
    "hidden narrower than the features": {"features": 12, "hidden": (5, 7, 4)},
    "hidden wider than a tile": {"features": 9, "hidden": (101, 70)},
    "three coordinates a level": {"features": 8, "per_level": 3},
    "two levels": {"features": 9, "per_level": 5, "hidden": (18, 11)},
    "zeros inside the staircase": {"features": 9, "change": pin_zeros},
    "dead units": {"change": kill_units},
    "dead units and zeros": {"change": lambda masks, g: kill_units(pin_zeros(masks, g), g)},
    "tangled": {"features": 8, "hidden": (24, 20), "tangled": True},
    "tangled with context": {"features": 8, "hidden": (24, 20), "context": 2, "tangled": True},
    "context": {"context": 3},
    "context and zeros": {"context": 3, "change": pin_zeros},
    "wide context": {"features": 3, "context": 21, "hidden": (16, 16)},
    "two features": {"features": 2, "hidden": (9, 9)},
    "one feature": {"features": 1, "hidden": (6, 5)},
    "one feature with context": {"features": 1, "hidden": (6, 5), "context": 2},
    "sixteen features": {"features": 16, "hidden": (32, 32)},
    "sixty-four features": {"features": 64, "hidden": (96, 80), "gain": 1.0},
}


# --- references of the library's transforms -------------------------------------------------------------------------


def mirror_network(transform, activation, last=None):
    """The reference of a transform's network; ``last``: another activation for the last hidden layer."""
    weights, biases, masks = transform.to_dense()
    hidden = [reference.Hidden(activation) for _ in weights[:-1]]
    if hidden and last is not None:
        hidden[-1] = reference.Hidden(last)
    return reference.Network(weights, biases, masks, hidden=hidden)


def mirror_masked(transform, activation="relu", last=None, **settings):
    """The reference of a `MaskedAutoregressive` that the ordinary constructor made, from its dense weights."""
    return reference.MaskedAutoregressive(mirror_network(transform, activation, last), **settings)


def mirror_coupling(transform, passive, activation="relu", last=None, **settings):
    network = mirror_network(transform, activation, last)
    return reference.Coupling(network, transform.features, passive, **settings)


def randomise(holder, spread=0.25, *key):
    """Give a transform or flow random parameters: new ones are near the identity, which hides most mistakes."""
    size = holder.parameters.size
    holder.parameters = (spread * rng("parameters", size, *key).standard_normal(size)).astype(holder.dtype)
    return holder


# --- error messages -------------------------------------------------------------------------------------------------


def assert_says(error, *patterns):
    """Check that the message matches each pattern: the argument's name, the expected value and the given one."""
    message = str(error.value)
    missing = [pattern for pattern in patterns if not re.search(pattern, message)]
    assert not missing, f"{missing} not found in: {message}"
