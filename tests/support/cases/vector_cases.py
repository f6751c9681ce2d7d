"""Planar and radial transforms of the library, each with its reference, shared by the tests of both."""

import numpy as np

import cases
import headrace as hr
import reference

VARIANTS = {
    "planar": ("planar", {}),
    "planar with leaky ReLU": ("planar", {"nonlinearity": "leaky_relu", "negative_slope": 0.15}),
    "radial": ("radial", {}),
}
CLASSES = {"planar": hr.transforms.Planar, "radial": hr.transforms.Radial}
FLOWS = {"planar": hr.PlanarFlow, "radial": hr.RadialFlow}


def sizes(map, features):
    """The number of values of each named parameter, in order."""
    return {
        "planar": {"w": features, "u": features, "b": 1},
        "radial": {"center": features, "alpha": 1, "beta": 1},
    }[map]


def count(map, features):
    return sum(sizes(map, features).values())


def raw(map, features, dtype, *key, rows=None):
    """Random raw parameters that move rows of order one by about one: one set for all rows, or one for each row."""
    shape = () if rows is None else (rows,)
    generator = cases.rng("raw", map, features, rows, *key)
    if map == "planar":
        w, u = 1.5 * generator.standard_normal((2, *shape, features)) / np.sqrt(features)
        parts = [w, 2.0 * u, 0.5 * generator.standard_normal((*shape, 1))]
    else:
        parts = [0.7 * generator.standard_normal((*shape, features)), 2.0 * generator.standard_normal((*shape, 2))]
    return np.concatenate(parts, axis=-1).astype(dtype)


def batch(variant, rows, features, dtype, *, per_row):
    """Values, parameters, and gradients of values and of log-determinants, all random."""
    params = raw(VARIANTS[variant][0], features, dtype, rows=rows if per_row else None)
    grad_log_det = cases.rng("row", rows).standard_normal(rows).astype(dtype)
    values = 1.5 * cases.rows(rows, features, dtype)
    return values, params, cases.rows(rows, features, dtype, "cotangent"), grad_log_det


def features_of(variant, params):
    n = params.shape[-1]
    return (n - 1) // 2 if VARIANTS[variant][0] == "planar" else n - 2


def call(variant, name, *arrays, **more):
    """Call a variant of `hr.ops.vector_map` in a direction; the name "vjp" calls its vector-Jacobian product."""
    map, settings = VARIANTS[variant]
    own = {"map": map, **settings, **more}
    if name == "vjp":
        return hr.ops.vector_map_vjp(*arrays, **own)
    return hr.ops.vector_map(*arrays, direction=name, **own)


def transform(variant, params):
    """The library's transform with the given raw parameters, which all rows share."""
    map, settings = VARIANTS[variant]
    features = features_of(variant, params)
    made = CLASSES[map](features, dtype=params.dtype, **settings)
    start = 0
    for name, size in sizes(map, features).items():
        made.set_parameter(name, params[start : start + size])
        start += size
    return made


def judge(variant, params):
    """The reference with the given raw parameters: one set for all rows, one for each row, or those of a network."""
    map, settings = VARIANTS[variant]
    return reference.VECTOR_MAPS[map](params, **settings)


def pair(variant, features, dtype, *key):
    """A transform with random parameters, and its reference."""
    params = raw(VARIANTS[variant][0], features, dtype, *key)
    return transform(variant, params), judge(variant, params)


def conditioned(variant, features, context, dtype, *key, hidden=(9, 8), activation="tanh"):
    """A transform whose network reads the context, and its reference."""
    map, settings = VARIANTS[variant]
    made = CLASSES[map](features, context=context, hidden=hidden, activation=activation, dtype=dtype, **settings)
    cases.randomise(made, 0.5, variant, *key)
    return made, mirror(made, activation)


def network(arrays, activation="tanh"):
    """The reference's network from a list in which weights and biases alternate."""
    masks = [np.ones(weight.shape, bool) for weight in arrays[0::2]]
    return reference.Network(arrays[0::2], arrays[1::2], masks, activation)


def mirror(transform, activation="relu"):
    """The reference of a transform with its present parameters."""
    arrays = list(transform.named_parameters().values())
    params = network(arrays, activation) if transform.context else np.concatenate(arrays)
    if isinstance(transform, hr.transforms.Radial):
        return reference.Radial(params)
    return reference.Planar(params, transform.nonlinearity, transform.negative_slope)


def gains(direction, given, step=1e-6):
    """The factors by which a direction enlarges errors of its input, in its value and in its log-determinant:
    ``(rows,)`` each.

    The factors are the largest norms of columns of the Jacobian, by differences of the reference, and at least one.
    """
    of_value, of_log_det = np.ones(len(given)), np.ones(len(given))
    for column in range(given.shape[1]):
        shift = np.zeros(given.shape[1])
        shift[column] = step
        up, down = direction(given + shift), direction(given - shift)
        of_value = np.maximum(of_value, np.linalg.norm(up[0] - down[0], axis=1) / (2.0 * step))
        of_log_det = np.maximum(of_log_det, np.abs(up[1] - down[1]) / (2.0 * step))
    return of_value, of_log_det


def check(direction, want_of, given, dtype, *, depth=1, condition=1.0, context=None):
    """Compare a direction of a transform with the reference: errors stay within a few roundings of the argument,
    enlarged by the gains.

    ``condition``: the factor from relative errors of raw parameters to errors of the vectors that the map adds to rows.
    """
    contexts = () if context is None else (context,)
    got, want = direction(given, *contexts), want_of(given, *contexts)
    assert got[0].dtype == got[1].dtype == np.dtype(dtype)
    assert (got[0].shape, got[1].shape) == (given.shape, given.shape[:1])
    assert np.isfinite(got[0]).all()
    assert np.isfinite(got[1]).all()
    of_value, of_log_det = gains(lambda x: want_of(x, *contexts), np.asarray(given, np.float64))
    places = given, want[0], condition * (want[0] - given), np.ones((len(given), 1))
    rounded_at = np.abs(np.hstack(places)).max(axis=1)
    allowed = cases.tolerance(dtype, depth)
    worst = (np.abs(got[0] - want[0]).max(axis=1) / (rounded_at * of_value)).max(initial=0.0)
    assert worst <= allowed, f"value: relative error {worst:.3g} > {allowed:.3g}"
    worst = (np.abs(got[1] - want[1]) / np.maximum(np.abs(want[1]), rounded_at * of_log_det)).max(initial=0.0)
    assert worst <= allowed, f"log_det: relative error {worst:.3g} > {allowed:.3g}"


def check_directions(library, reference, given, dtype, **more):
    check(library.forward, reference.forward, given, dtype, **more)
    check(library.inverse, reference.inverse, given, dtype, **more)


def settings_of(variant):
    """The module's arguments for a variant: the map, the nonlinearity, and the slope."""
    map, settings = VARIANTS[variant]
    nonlinearity = settings.get("nonlinearity", "tanh" if map == "planar" else "")
    return map, nonlinearity, settings.get("negative_slope", 0.2)


def run_backward(device, variant, direction, arrays, *, place=None):
    """The gradients ``(grad_input, grad_params)`` of a variant, computed by the device."""
    put = place or device.array
    results = [put(np.full_like(array, np.nan)) for array in arrays[:2]]
    given = [put(array) for array in arrays]
    device.module.vector_map_backward(
        *(*settings_of(variant), direction == "inverse"),
        *(device.tuple(array) for array in (*given, *results)),
        device=device.index,
        stream=device.stream,
    )
    return tuple(device.numpy(result).copy() for result in results)
