"""Write values.npz: arguments of each elementwise map, activation and density, and their results to 50 digits.

    python tests/digits/make.py

This program needs mpmath, and nothing of headrace: its formulas are written from public pages. Arguments are float32
values, exact in either dtype. For a function f the file has

    f.x        (n,) given values            f.raw      (n, k) raw parameters of the map, a column each
    f.value    (n,) results, as text        f.log_det  (n,) log-derivatives, as text; maps alone

A map has two entries, "rq_spline to_data" and "rq_spline to_latent". `f.raw` of an activation is its argument, and x is
0. Densities have no raw parameters. tests/support/digits.py measures errors against these results.
"""

import zlib
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mpf

mpmath.mp.dps = 70  # inverses of steep splines lose a few digits

SLOPE, LEAST_BIN, BOUND, BINS = mpf(2) ** -10, mpf(2) ** -10, mpf(5), 4
LIMIT = mpmath.log(1 / SLOPE)
POSITIVE_LEAST = mpf("0.001")


def sigmoid(a):
    return 1 / (1 + mpmath.exp(-a))


def softplus(a):
    return mpmath.log1p(mpmath.exp(a))


def soft_clamp(raw, limit=LIMIT):
    return raw / (1 + abs(raw) / limit)


LOG_SCALES = {
    "soft_clamp": soft_clamp,
    "exp": lambda raw: raw,
    "softplus": lambda raw: mpmath.log(softplus(raw) + SLOPE),
    "sigmoid": lambda raw: mpmath.log(sigmoid(raw + 2) + SLOPE),
}


# ---- maps: (value, raw parameters, whether the map is solved) -> (value, log-derivative) ----


def affine(scale):
    def apply(value, raw, inverse):
        shift, log_scale = raw[0], LOG_SCALES[scale](raw[1])
        if inverse:
            return (value - shift) * mpmath.exp(-log_scale), -log_scale
        return shift + mpmath.exp(log_scale) * value, log_scale

    return apply


def additive(value, raw, inverse):
    return (value - raw[0] if inverse else value + raw[0]), mpf(0)


def dual_ascent(value, raw, inverse):
    """The map is x -> a (x + gamma hypot(epsilon, x - center)) + shift."""
    stretch, shift, bend, center, width = raw
    log_a = soft_clamp(stretch)
    gamma = (1 - SLOPE) * bend / mpmath.sqrt(1 + bend**2)
    epsilon = POSITIVE_LEAST + softplus(width + mpmath.log(mpmath.expm1(1 - POSITIVE_LEAST)))
    w = value - center
    if inverse:  # w solves w + gamma hypot(epsilon, w) = t
        t = (value - shift) * mpmath.exp(-log_a) - center
        w = (t - gamma * mpmath.sqrt(t**2 + epsilon**2 * (1 - gamma**2))) / (1 - gamma**2)
    r = mpmath.sqrt(epsilon**2 + w**2)
    log_derivative = log_a + mpmath.log1p(gamma * w / r)
    if inverse:
        return w + center, -log_derivative
    return mpmath.exp(log_a) * (value + gamma * r) + shift, log_derivative


def logistic_mixture(value, raw, inverse):
    """The map to data solves z = logit F(x), where F is a mixture of logistic distributions."""
    weights = [mpmath.exp(w) for w in raw[:BINS]]
    means, scales = raw[BINS : 2 * BINS], [mpmath.exp(soft_clamp(r)) for r in raw[2 * BINS :]]

    def logit_and_slope(x):
        u = [(x - mean) / scale for mean, scale in zip(means, scales, strict=True)]
        below = sum(w * sigmoid(a) for w, a in zip(weights, u, strict=True))
        above = sum(w * sigmoid(-a) for w, a in zip(weights, u, strict=True))
        density = sum(w * sigmoid(a) * sigmoid(-a) / s for w, a, s in zip(weights, u, scales, strict=True))
        return mpmath.log(below / above), density * (1 / below + 1 / above)

    if inverse:
        z, slope = logit_and_slope(value)
        return z, mpmath.log(slope)
    places = [mean + scale * value for mean, scale in zip(means, scales, strict=True)]
    low, high = min(places), max(places)
    for _ in range(mpmath.mp.prec + 20):  # each bisection halves the interval
        middle = (low + high) / 2
        low, high = (middle, high) if logit_and_slope(middle)[0] < value else (low, middle)
    return low, -mpmath.log(logit_and_slope(low)[1])


def spline(shares, derivative, ends, tails):
    def apply(value, raw, inverse):
        widths, heights, rest = raw[:BINS], raw[BINS : 2 * BINS], raw[2 * BINS :]
        inner, one = [derivative(r) for r in rest], mpf(1)
        d = {"one": [one, *inner, one], "free": inner, "shared": [*inner, *inner[:1]]}[ends]
        turns = mpmath.nint(value / (2 * BOUND)) * 2 * BOUND if tails == "periodic" else mpf(0)
        value -= turns
        if abs(value) > BOUND:
            if tails == "identity":
                return value, mpf(0)
            end, slope = (-BOUND, d[0]) if value < 0 else (BOUND, d[-1])
            log_slope = -mpmath.log(slope) if inverse else mpmath.log(slope)
            return end + (value - end) * mpmath.exp(log_slope), log_slope
        x, y = edges(shares(widths)), edges(shares(heights))
        given = y if inverse else x
        k = min(sum(value >= knot for knot in given[1:-1]), BINS - 1)
        width, height = x[k + 1] - x[k], y[k + 1] - y[k]
        steep = height / width
        bend = d[k] + d[k + 1] - 2 * steep
        if inverse:
            up = value - y[k]
            a, b, c = height * (steep - d[k]) + up * bend, height * d[k] - up * bend, -steep * up
            t = 2 * c / (-b - mpmath.sqrt(b * b - 4 * a * c))
        else:
            t = (value - x[k]) / width
        below = steep + bend * t * (1 - t)
        slope = steep**2 * (d[k + 1] * t**2 + 2 * steep * t * (1 - t) + d[k] * (1 - t) ** 2) / below**2
        if inverse:
            return x[k] + width * t + turns, -mpmath.log(slope)
        return y[k] + height * (steep * t**2 + d[k] * t * (1 - t)) / below + turns, mpmath.log(slope)

    return apply


def edges(shares):
    ends = [mpf(0)]
    for share in shares:
        ends.append(ends[-1] + share)
    return [2 * BOUND * end - BOUND for end in ends[:-1]] + [BOUND]


def softmax(raw):
    parts = [mpmath.exp(r) for r in raw]
    return [part / sum(parts) for part in parts]


def clamped_shares(raw):
    return softmax([soft_clamp(r, LIMIT / 2) for r in raw])


def least_shares(raw):
    return [LEAST_BIN + (1 - BINS * LEAST_BIN) * share for share in softmax(raw)]


def halved_shares(raw):
    least = [LEAST_BIN / 2, *[LEAST_BIN] * (BINS - 2), LEAST_BIN / 2]
    return [one + (1 - (BINS - 1) * LEAST_BIN) * share for one, share in zip(least, softmax(raw), strict=True)]


def clamped_derivative(raw):
    return mpmath.exp(soft_clamp(raw))


def least_derivative(raw):
    return SLOPE + softplus(raw)


MAPS = {  # each map with its number of raw parameters
    **{f"affine {scale}": (affine(scale), 2) for scale in LOG_SCALES},
    "additive": (additive, 1),
    "dual_ascent": (dual_ascent, 5),
    "logistic_mixture": (logistic_mixture, 3 * BINS),
    "rq_spline": (spline(clamped_shares, clamped_derivative, "one", "identity"), 3 * BINS - 1),
    "rq_spline_nflows": (spline(least_shares, least_derivative, "one", "identity"), 3 * BINS - 1),
    "rq_spline_free": (spline(least_shares, least_derivative, "free", "linear"), 3 * BINS + 1),
    "rq_spline_flowjax": (spline(least_shares, least_derivative, "free", "identity"), 3 * BINS + 1),
    "rq_spline_circular": (spline(least_shares, least_derivative, "shared", "periodic"), 3 * BINS),
    "rq_spline_flowjax17": (spline(halved_shares, least_derivative, "free", "identity"), 3 * BINS + 1),
}

ACTIVATIONS = {
    "relu": lambda a: max(a, mpf(0)),
    "tanh": mpmath.tanh,
    "elu": lambda a: a if a > 0 else mpmath.expm1(a),
    "silu": lambda a: a * sigmoid(a),
    "gelu": lambda a: a * mpmath.erfc(-a / mpmath.sqrt(2)) / 2,
    "gelu_tanh": lambda a: a * sigmoid(2 * mpmath.sqrt(2 / mpmath.pi) * (a + mpf("0.044715") * a**3)),
    "softplus": softplus,
    "leaky_relu": lambda a: a if a >= 0 else a / 100,
    "sigmoid": sigmoid,
    "identity": lambda a: a,
}


# ---- densities ----


def normal(z, loc=0, scale=1):
    return -(((z - loc) / scale) ** 2) / 2 - mpmath.log(scale) - mpmath.log(2 * mpmath.pi) / 2


def student(df):
    df = mpf(df)
    constant = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(df * mpmath.pi) / 2
    return lambda z: constant - (df + 1) / 2 * mpmath.log1p(z * z / df)


def mixture(z):
    """The mixture has weights 1/4, 1/4, 1/2, means -2, 0, 3 and standard deviations 1/2, 1, 2."""
    parts = ((mpf(1) / 4, -2, mpf(1) / 2), (mpf(1) / 4, 0, mpf(1)), (mpf(1) / 2, 3, mpf(2)))
    return mpmath.log(sum(weight * mpmath.exp(normal(z, loc, scale)) for weight, loc, scale in parts))


DENSITIES = {
    "standard normal": normal,
    "normal": lambda z: normal(z, mpf("-1.25"), mpf("0.25")),
    "logistic": lambda z: -abs(z) - 2 * mpmath.log1p(mpmath.exp(-abs(z))),
    "uniform": lambda z: -mpmath.log(2) if abs(z) <= 1 else -mpmath.inf,
    "cauchy": student(1),
    "student 5": student(5),
    "student 1000": student(1000),
    "mixture": mixture,
}


# ---- arguments and the file ----


def generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def given_values(name, n, spread):
    """Return values, some 0, some tiny, some huge, and others of the order of one."""
    rng = generator(name)
    hard = np.array([0, 1e-30, 1e-6, 0.03125, 0.5, 1, 5, 5.0009765625, 12.5, 100, 10000])
    many = rng.standard_normal(n - 2 * len(hard)) * rng.choice([0.1, 1, 3, spread], n - 2 * len(hard))
    return np.concatenate([hard, -hard, many]).astype(np.float32)


def raw_parameters(name, n, k):
    """Return raw parameters that are multiples of 1/64, which compress well."""
    rng = generator(f"raw {name}")
    spread = rng.choice([0.125, 1, 4], (n, 1))
    return (np.round(64 * np.clip(spread * rng.standard_normal((n, k)), -8, 8)) / 64).astype(np.float32)


def text(numbers):
    return np.array([mpmath.nstr(number, 50) for number in numbers], "S")


def entries():
    for name, (apply, k) in MAPS.items():
        for verb in ("to_data", "to_latent"):
            key = f"{name} {verb}"
            x, raw = given_values(key, 150, 3), raw_parameters(key, 150, k)
            if name == "logistic_mixture":  # values are logits; up to 60 float32 has both F and 1 - F
                x = np.clip(x, -60, 60)
            exact = [[mpf(float(number)) for number in row] for row in np.column_stack([x, raw])]
            results = [apply(row[0], row[1:], verb == "to_latent") for row in exact]
            value, log_det = zip(*results, strict=True)
            yield key, {"x": x, "raw": raw, "value": text(value), "log_det": text(log_det)}
    for name, function in ACTIVATIONS.items():
        raw = given_values(name, 120, 30)
        value = text([function(mpf(float(a))) for a in raw])
        yield name, {"x": np.zeros_like(raw), "raw": raw[:, None], "value": value}
    for name, density in DENSITIES.items():
        x = given_values(name, 120, 10)
        yield name, {"x": x, "value": text([density(mpf(float(v))) for v in x])}


if __name__ == "__main__":
    arrays = {f"{name}.{part}": array for name, parts in entries() for part, array in parts.items()}
    path = Path(__file__).with_name("values.npz")
    np.savez_compressed(path, **arrays)
    count = sum(array.size for array in arrays.values() if array.dtype.kind == "S")
    print(f"{path}: {count} values of {len({key.partition('.')[0] for key in arrays})} functions")
