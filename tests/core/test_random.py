"""Random samples are equal for batches of any size, depend on the seed, and have the distribution of the base."""

import math

import numpy as np
import pytest

import cases
import headrace as hr
import reference

NAMED = {"MAF": hr.MAF, "IAF": hr.IAF, "RealNVP": hr.RealNVP, "planar": hr.PlanarFlow, "radial": hr.RadialFlow}
BASES = {"normal": hr.StandardNormal, "logistic": hr.Logistic}
every_named = pytest.mark.parametrize("name", NAMED)
every_base = pytest.mark.parametrize("base", BASES)


def flow_of(name, dtype="float32", features=5):
    return cases.randomise(NAMED[name](features, transforms=2, hidden=(16, 16), dtype=dtype), 0.2)


def base_alone(base, features, dtype="float64"):
    """A flow without transforms, whose samples are those of its base."""
    return hr.Flow(
        transforms=[hr.transforms.MaskedAutoregressive(features, (4,), dtype=dtype)], base=BASES[base](features)
    )[:0]


@every_named
def test_a_sample_begins_with_every_smaller_sample(name, dtype):
    flow = flow_of(name, dtype)
    x, log_prob = flow.sample_and_log_prob(200, seed=9)
    for n in cases.BATCH_SIZES:
        head, head_log_prob = flow.sample_and_log_prob(n, seed=9)
        assert head.shape == (n, 5)
        if n >= 8:
            cases.assert_same_bits(head, x[:n])
            cases.assert_same_bits(head_log_prob, log_prob[:n])
        else:  # batches below 8 rows take a path that may round differently
            cases.assert_close(head, x[:n], depth=16)
            cases.assert_close(head_log_prob, log_prob[:n], magnitude=10.0, depth=16)


@every_base
def test_a_base_sample_begins_with_every_smaller_sample(base, dtype):
    flow = base_alone(base, 7, dtype)
    x = flow.sample(200, seed=9)
    assert x.dtype == np.dtype(dtype)
    for n in cases.BATCH_SIZES:
        cases.assert_close(flow.sample(n, seed=9), x[:n])


@every_named
def test_a_sample_is_the_base_sample_carried_to_the_data(name, dtype):
    flow = flow_of(name, dtype)
    z = flow[:0].sample(101, seed=3)
    x, log_det = flow.to_data(z)
    sample, log_prob = flow.sample_and_log_prob(101, seed=3)
    cases.assert_close(sample, x, depth=8)
    want = (-0.5 * z.astype(float) ** 2 - 0.5 * math.log(2 * math.pi)).sum(axis=1) - log_det
    cases.assert_close(log_prob, want, magnitude=10.0, depth=8)


@every_named
def test_seeds_choose_the_sample(name):
    flow = flow_of(name)
    cases.assert_same_bits(flow.sample(50, seed=1), flow.sample(50, seed=1))
    samples = [flow.sample(50, seed=seed) for seed in (0, 1, 2, 2**31, 2**32 + 1, 2**62)]
    for i, one in enumerate(samples):
        for other in samples[:i]:
            assert (one == other).mean() < 0.05


def test_samples_without_a_seed_differ():
    flow = flow_of("IAF")
    assert (flow.sample(50) == flow.sample(50)).mean() < 0.05


def test_the_seed_of_the_weights_is_not_the_seed_of_the_sample():
    one, other = (hr.IAF(3, transforms=1, seed=seed)[:0] for seed in (1, 2))
    cases.assert_same_bits(one.sample(20, seed=5), other.sample(20, seed=5))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_samples_are_the_same_for_any_number_of_threads(threads, set_threads):
    flow = flow_of("MAF")
    set_threads(3)
    want = flow.sample(1000, seed=6)
    set_threads(threads)
    cases.assert_same_bits(flow.sample(1000, seed=6), want)


@every_base
def test_samples_are_the_words_of_philox(base):
    """Samples follow the definition to all digits of float64: 32 leading bits of one stream, and 32 of the next."""
    seed, rows, columns = 2**40 + 7, 50, 8
    high, low = (reference.philox(seed, np.arange(rows), 0, columns, stream) for stream in (0, 1))
    if base == "logistic":
        bits = (high << np.uint64(32)) | low
        tail = 0.5 * uniform((bits << np.uint64(1)) >> np.uint64(32), (low << np.uint64(1)) & np.uint64(2**32 - 1))
        want = np.where(bits >> np.uint64(63), 1.0, -1.0) * (np.log1p(-tail) - np.log(tail))
    else:
        u = uniform(high, low)
        radius, angle = np.sqrt(-2.0 * np.log(u[:, ::2])), 2.0 * np.pi * u[:, 1::2]
        want = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(rows, columns)
    np.testing.assert_allclose(
        base_alone(base, columns, "float64").sample(rows, seed=seed), want, rtol=1e-13, atol=1e-13
    )


def uniform(high, low):
    """Return a value in (0, 1] from 64 bits."""
    return high * 2.0**-32 + (low * 2.0**-64 + 2.0**-65)


def distribution(base, values):
    """Return the distribution function of the base at the values."""
    if base == "logistic":
        return np.exp(-np.logaddexp(0.0, -values))
    return 0.5 * np.vectorize(math.erfc)(-values / math.sqrt(2.0))


ROWS, COLUMNS = 40_000, 5


def draw(base, dtype="float64", seed=0):
    return base_alone(base, COLUMNS, dtype).sample(ROWS, seed=seed).astype(float)


@every_base
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_samples_pass_the_kolmogorov_smirnov_test(base, seed, dtype):
    """Each column, each tenth of the rows, and all values pass the test, whose limits fail about once in a million."""
    x = draw(base, dtype, seed)
    assert np.isfinite(x).all()
    for values in [*x.T, *x.reshape(10, -1), x.ravel()]:
        n = values.size
        ranks = distribution(base, np.sort(values))
        steps = np.arange(n + 1) / n
        distance = max(np.abs(ranks - steps[1:]).max(), np.abs(ranks - steps[:-1]).max())
        assert distance < math.sqrt(-0.5 * math.log(0.5e-6) / n)


@every_base
def test_moments_are_those_of_the_base(base, dtype):
    """Mean, variance, skewness and kurtosis of each column are right within five standard errors."""
    variance, kurtosis, sixth, eighth = {
        "normal": (1.0, 3.0, 15.0, 105.0),
        "logistic": (math.pi**2 / 3, 4.2, 279.0 / 7, 3429.0 / 5),
    }[base]
    x = draw(base, dtype) / math.sqrt(variance)
    for power, moment, spread in [
        (1, 0.0, 1.0),
        (2, 1.0, kurtosis - 1.0),
        (3, 0.0, sixth),
        (4, kurtosis, eighth - kurtosis**2),
    ]:
        error = (x**power).mean(axis=0) - moment
        assert np.abs(error).max() < 5.0 * math.sqrt(spread / ROWS)


@every_base
def test_tails_are_reached(base, dtype):
    """The largest of 200,000 values is outside these limits with a chance below one in ten thousand."""
    x = draw(base, dtype)
    low, high = {"normal": (3.8, 6.3), "logistic": (9.9, 22.0)}[base]
    for largest in (x.max(), -x.min()):
        assert low < largest < high


@every_base
def test_columns_and_rows_and_seeds_are_uncorrelated(base):
    x = draw(base)
    x = x / x.std(axis=0)
    limit = 5.0 / math.sqrt(ROWS)
    for values in (x, np.abs(x) - np.abs(x).mean(axis=0)):
        between_columns = values.T @ values / ROWS - np.diag((values**2).mean(axis=0))
        assert np.abs(between_columns).max() < limit
        for lag in (1, 2, 3, 4, 8, 16, 47, 48, 96, 256):  # lags around sizes of vectors and tiles
            assert np.abs((values[lag:] * values[:-lag]).mean(axis=0)).max() < limit
            assert np.abs((values[lag:, 1:] * values[:-lag, :-1]).mean(axis=0)).max() < limit
    other = draw(base, seed=1)
    assert np.abs((x * (other / other.std(axis=0))).mean(axis=0)).max() < limit


def test_hardly_any_value_is_drawn_twice():
    """A counter that repeats, or one shared by two columns, would give many equal values; 32 random bits may coincide
    by chance.
    """
    x = draw("normal")
    assert np.unique(x).size > 0.999 * x.size


def test_a_normal_base_is_shifted_and_scaled():
    loc, scale = np.array([5.0, -1.0, 0.0]), np.array([0.1, 2.0, 30.0])
    flow = hr.Flow(
        transforms=[hr.transforms.MaskedAutoregressive(3, (4,), dtype="float64")], base=hr.Normal(3, loc, scale)
    )[:0]
    standard = base_alone("normal", 3).sample(1000, seed=8)
    got = flow.sample(1000, seed=8)
    cases.assert_close((got - loc) / scale, standard, magnitude=60.0)


@pytest.mark.parametrize("features", [1, 2, 3, 16, 33])
def test_columns_differ_for_any_number_of_features(features):
    x = base_alone("normal", features).sample(64, seed=0)
    assert x.shape == (64, features)
    assert np.unique(x).size == x.size
    assert np.unique(np.abs(x)).size == x.size


def test_the_first_values_are_those_of_the_published_generator():
    """Values come from Random123's words of Philox-4x32-10 with counter and key 0, by Box and Muller's formula."""
    words = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], np.uint64)
    uniform = (words >> np.uint64(1)) * 2.0**-31 + 2.0**-33
    radius, angle = np.sqrt(-2.0 * np.log(uniform[::2])), 2.0 * np.pi * uniform[1::2]
    want = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(1, 4)
    np.testing.assert_allclose(hr.Flow([], hr.StandardNormal(4)).sample(1, seed=0), want, rtol=1e-6, atol=1e-6)
