"""Bases with heavy tails, without tails, or with several modes: densities, derivatives, samples, and their limits."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import gradients
import headrace as hr
import reference
from cuda_twins import Twin

D = 5
DF = np.array([0.5, 1.0, 3.7, 30.0, 1e6])
LOC, SCALE = cases.rows(3, D, "float64", "loc"), np.exp(0.3 * cases.rows(3, D, "float64", "scale"))
SHARES = np.array([0.2, 0.5, 0.3])


def _mixture(**more):
    return hr.NormalMixture(D, 3, loc=LOC, scale=SCALE, weights=SHARES, **more)


KINDS = ["normal", "uniform", "logistic", "uniform", "normal"]
BASES = {
    "independent": (lambda: hr.Independent(KINDS), lambda a: reference.Independent(KINDS)),
    "uniform": (lambda: hr.Uniform(D), lambda a: reference.Uniform()),
    "student": (lambda: hr.StudentT(D, DF), lambda a: reference.StudentT(np.exp(a[0]))),
    "student, fixed": (lambda: hr.StudentT(D, DF, trainable=False), lambda a: reference.StudentT(DF)),
    "mixture": (_mixture, lambda a: reference.NormalMixture(a[0], a[1], np.exp(a[2]))),
    "mixture, fixed": (
        lambda: _mixture(trainable=False),
        lambda a: reference.NormalMixture(np.log(SHARES), LOC, SCALE),
    ),
}
NAMED = {"standard_normal": hr.StandardNormal, "normal": hr.Normal, "logistic": hr.Logistic, "student_t": hr.StudentT}
every_base = pytest.mark.parametrize("name", BASES)


def alone(name, dtype="float64"):
    """A flow without transforms over the base `name`."""
    return hr.Flow([], BASES[name][0](), dtype=dtype)


def judge_of(flow, name):
    return BASES[name][1]([a.astype(float) for a in flow.named_parameters().values()])


def latent(n, dtype, name, *key):
    """Return latent rows, which are inside of the interval if the base is uniform."""
    z = 1.5 * cases.rows(n, D, "float64", *key)
    return (np.tanh(z) if name in ("uniform", "independent") else z).astype(dtype)


def subject(name):
    """Return a base under a network with permutations, and a scale at the data end, with its reference."""
    parts = [
        gradients.permutation([3, 0, 4, 1, 2]),
        gradients.masked(cases.made(features=D, hidden=(9,), context=2)),
        gradients.permutation([2, 0, 4, 1, 3]),
        gradients.standardize(np.arange(5.0), np.arange(1.0, 6.0)),
    ]
    if name in ("uniform", "independent"):
        parts = parts[-1:]
    base, judge = BASES[name]
    flow = hr.Flow([part.library for part in parts], base(), dtype="float64")
    named = flow.named_parameters()
    own = [a for key, a in named.items() if key.startswith("base.")]

    def judge_all(arrays):
        chain, start = [], len(own)
        for part in parts:
            chain.append(part.judge(arrays[start : start + len(part.arrays)]))
            start += len(part.arrays)
        return reference.Flow(chain, judge(arrays))

    return gradients.Subject(flow, own + [a for part in parts for a in part.arrays], judge_all)


# --- densities ------------------------------------------------------------------------------------------------------


@every_base
def test_densities_are_the_reference_s(name, dtype, core):
    flow = alone(name, dtype)
    for n in cases.BATCH_SIZES:
        z = latent(n, dtype, name)
        cases.assert_close(flow.log_prob(z), judge_of(flow, name).log_prob(z.astype(float)), magnitude=10.0)


@every_base
def test_noise_and_latent_rows_are_those_of_the_base(name, dtype):
    """In a flow of a base alone the rows, their latents and the noise are equal."""
    flow = alone(name, dtype)
    z = latent(9, dtype, name)
    cases.assert_same_bits(flow.to_data(z)[0], z)
    assert not flow.to_latent(z)[1].any()
    cases.assert_same_bits(flow.sample(9, noise=z), z)
    x, log_prob = flow.sample_and_log_prob(50, seed=1)
    cases.assert_close(log_prob, flow.log_prob(x), magnitude=10.0)


def test_student_at_both_ends(dtype):
    z = np.linspace(-6.0, 6.0, 41)[:, None].astype(dtype)

    def log_prob(df):
        return hr.Flow([], hr.StudentT(1, df, trainable=False), dtype=dtype).log_prob(z).astype(float)

    wide = z.astype(float)[:, 0]
    cases.assert_close(log_prob(1.0).astype(dtype), -np.log(np.pi * (1.0 + wide**2)), magnitude=1.0)
    normal = -0.5 * wide**2 - 0.5 * math.log(2.0 * math.pi)
    # Student's log density is that of a normal + (z^4 - 2 z^2 - 1) / (4 df) + (3 z^4 - 2 z^6) / (12 df^2) + ...
    first = (wide**4 - 2.0 * wide**2 - 1.0) / 4e6 + (3.0 * wide**4 - 2.0 * wide**6) / 12e12
    cases.assert_close(log_prob(1e6).astype(dtype), normal + first, magnitude=10.0)
    cases.assert_close(log_prob(1e20).astype(dtype), normal, magnitude=10.0)


@pytest.mark.parametrize("df", [1e-3, 0.5, 1.0, 31.9, 32.0, 32.1, 1e3, 1e8, 1e15])
def test_the_constant_of_student_is_exact(df):
    """At 0 the density is compared with logarithms of Γ, or, where these cancel, with the asymptotic series."""
    got = hr.Flow([], hr.StudentT(1, df, trainable=False), dtype="float64").log_prob(np.zeros((9, 1)))
    if df < 1e5:
        want = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    else:
        want = -0.5 * math.log(2 * math.pi) - 1 / (4 * df)
    assert_allclose(got, want, rtol=1e-12 if df < 1e5 else 1e-15)


@pytest.mark.parametrize("df", [1.0, 1e12])
def test_far_rows_keep_every_digit(df):
    """log(1 + a²) of a = z/√ν becomes 2 log a only where the 1 is less than rounding: here a² is 1e8 and more."""
    z = np.logspace(3.9, 9, 200)[:, None] * math.sqrt(df)
    want = -0.5 * (df + 1.0) * np.log1p(np.square(z[:, 0] / math.sqrt(df)))
    log_prob = hr.Flow([], hr.StudentT(1, df, trainable=False), dtype="float64").log_prob(z)
    assert_allclose(log_prob - log_prob[0], want - want[0], rtol=1e-14, atol=1e-14 * np.abs(want).max())


def test_far_tails_have_a_density(dtype):
    """Log densities are finite where z² overflows in the dtype."""
    z = np.array([[1e30 if dtype == "float32" else 1e200]] * 9, dtype)
    flow = hr.Flow([], hr.StudentT(1, 3.0), dtype=dtype)
    constant = float(flow.log_prob(np.zeros((9, 1), dtype))[0])
    want = constant - 2.0 * (2.0 * np.log(float(z[0, 0])) - math.log(3.0))
    assert_allclose(flow.log_prob(z), want, rtol=1e-6 if dtype == "float32" else 1e-14)
    _, score = flow.log_prob_and_score(z)
    assert_allclose(score, -4.0 / z, rtol=1e-6)


def test_outside_of_the_interval_there_is_no_density(core, dtype):
    flow = hr.Flow([], hr.Uniform(2), dtype=dtype)
    x = np.zeros((9, 2), dtype)
    x[1], x[2, 1], x[3, 0] = [1.0, -1.0], np.nextafter(x.dtype.type(1), x.dtype.type(2)), np.nan
    got = flow.log_prob(x)
    assert_allclose(got[[0, 1, 4]], -2.0 * math.log(2.0), rtol=1e-6)
    assert got[2] == -np.inf
    assert np.isnan(got[3])


def test_an_empty_component_takes_no_part(core, dtype):
    with_one = hr.NormalMixture(2, 3, loc=[[0.0, 1.0], [np.pi, 0.0], [4.0, 4.0]], weights=[1.0, 0.0, 1.0])
    without = hr.NormalMixture(2, 2, loc=[[0.0, 1.0], [4.0, 4.0]])
    one, other = (hr.Flow([], base, dtype=dtype) for base in (with_one, without))
    z = 3.0 * cases.rows(50, 2, dtype)
    cases.assert_same_bits(one.log_prob(z), other.log_prob(z))
    assert one.named_parameters()["base.logits"][1] == -np.inf
    cases.assert_same_bits(one.sample(500, seed=0), other.sample(500, seed=0))
    loss, gradient = one.nll_and_grad(z)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    holder = hr.Flow([], hr.NormalMixture(2, 3), dtype=dtype)
    holder.parameters = gradient
    named = holder.named_parameters()
    assert named["base.logits"][1] == 0
    assert not named["base.loc"][1].any()
    assert not named["base.log_scale"][1].any()


def test_one_component_is_a_normal(dtype):
    loc, scale = np.array([[1.0, -2.0, 0.3]]), np.array([[0.5, 3.0, 1.0]])
    one = hr.Flow([], hr.NormalMixture(3, 1, loc=loc, scale=scale), dtype=dtype)
    other = hr.Flow([], hr.Normal(3, loc[0], scale[0]), dtype=dtype)
    z = 2.0 * cases.rows(50, 3, dtype)
    cases.assert_close(one.log_prob(z), other.log_prob(z), magnitude=10.0)
    cases.assert_close(one.sample(50, seed=3), other.sample(50, seed=3))  # both bases draw the same normal values


# --- derivatives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", gradients.FLOW_VERBS)
@every_base
def test_gradients(name, verb):
    made = subject(name)
    for n in (3, 97):
        z, context = latent(n, "float64", name), cases.rows(n, 2, "float64", "context")
        context = context if made.library.context else None
        given = z if verb == "to_data_vjp" else made.library.to_data(z, context)[0]
        gradients.check(made, verb, given, context, number_by_number=n == 3 and name != "mixture", least=10.0)


@pytest.mark.parametrize("name", ["student", "mixture"])
def test_each_parameter_separately(name):
    flow = alone(name)
    made = gradients.Subject(
        flow, list(flow.named_parameters().values()), lambda a: reference.Flow([], BASES[name][1](a))
    )
    gradients.check(made, "log_prob_vjp", latent(9, "float64", name), number_by_number=True)


@every_base
def test_gradients_on_a_device_are_the_reference_s(name, device):
    made = subject(name)
    z, context = latent(37, "float64", name), cases.rows(37, 2, "float64", "context")
    context = context if made.library.context else None
    given = made.library.to_data(z, context)[0]
    on_device = gradients.Subject(Twin(device, made.library), made.arrays, made.judge)
    gradients.check(on_device, "log_prob_vjp", given, context, least=10.0)


@every_base
def test_gradients_in_float32(name):
    made = subject(name)
    narrow = made.library.astype("float32")
    z, context = latent(37, "float64", name), cases.rows(37, 2, "float32", "context")
    context = context if narrow.context else None
    given = narrow.to_data(z.astype("float32"), context)[0]
    gradients.check_float32(narrow, narrow.astype("float64"), "log_prob_vjp", given, context)


def test_the_derivative_by_log_df_is_that_of_the_constant_near_zero_and_far_away():
    """The derivative is right where its terms cancel, and where z² / df is huge."""
    for df in (0.7, 5.0, 300.0, 1e7):
        flow = hr.Flow([], hr.StudentT(1, df), dtype="float64")
        for z in (0.0, 1e-4, 0.05, 0.24 * df**0.5, 0.26 * df**0.5, 3.0 * df**0.5, 1e9):
            rows = np.full((8, 1), z)
            holder = hr.Flow([], hr.StudentT(1), dtype="float64")
            holder.parameters = -flow.nll_and_grad(rows)[1]
            got = holder.named_parameters()["base.log_df"][0]
            u = z * z / df
            ends = [_log_density_constant(df * math.exp(h)) for h in (-1e-3, 1e-3)]
            constant = (ends[1] - ends[0]) / 2e-3
            # The bracket ν/2 (u/(1+u) - log(1+u)) + u/(2 (1+u)) is computed by its series where it cancels.
            bracket = -(u**2) / 2 + 2 * u**3 / 3 - 3 * u**4 / 4 if u < 1e-3 else u / (1 + u) - math.log1p(u)
            want = constant + df / 2 * bracket + 0.5 * u / (1 + u)
            assert got == pytest.approx(want, rel=1e-6, abs=1e-9)


def _log_density_constant(df):
    """Return the constant of Student's density by lgamma, or, where lgamma cancels, by its series."""
    if df > 1e5:
        return -0.5 * math.log(2 * math.pi) - 1 / (4 * df)
    return math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2


# --- samples --------------------------------------------------------------------------------------------------------

ROWS = 20_000


def distribution(name, column, x):
    if name == "uniform" or (name == "independent" and KINDS[column] == "uniform"):
        return (x + 1.0) / 2.0
    if name == "independent" and KINDS[column] == "logistic":
        return 1.0 / (1.0 + np.exp(-x))
    if name == "independent":
        return 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2.0))
    if name.startswith("mixture"):
        parts = [
            0.5 * np.vectorize(math.erfc)(-(x - m) / s / math.sqrt(2))
            for m, s in np.stack([LOC, SCALE], axis=-1)[:, column]
        ]
        return SHARES @ np.stack(parts)
    df = DF[column]
    if df == 1.0:
        return 0.5 + np.arctan(x) / np.pi
    grid = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 200_001)[1:-1]  # density of t for z = √ν tan t: ∝ cos^(ν - 1)
    mass = np.cumsum(np.cos(grid) ** (df - 1.0))
    return np.interp(np.arctan(x / math.sqrt(df)), grid, mass / mass[-1])


@every_base
def test_samples_have_the_base_s_distribution(name, dtype):
    """Each column passes the test of Kolmogorov and Smirnov, by limits at a chance of about one in a million."""
    x = alone(name, dtype).sample(ROWS, seed=5).astype(float)
    assert np.isfinite(x).all()
    limit = math.sqrt(-0.5 * math.log(0.5e-6) / ROWS)
    for column, values in enumerate(x.T):
        if name.startswith("student") and DF[column] > 1e5:
            ranks = 0.5 * np.vectorize(math.erfc)(-np.sort(values) / math.sqrt(2.0))
        else:
            ranks = distribution(name, column, np.sort(values))
        assert np.abs(ranks - np.arange(ROWS) / ROWS).max() < limit


@every_base
def test_a_sample_begins_with_every_smaller_sample(name, dtype, core):
    flow = alone(name, dtype)
    x = flow.sample(200, seed=9)
    for n in cases.BATCH_SIZES:
        if n >= 8:
            cases.assert_same_bits(flow.sample(n, seed=9), x[:n])
        else:
            cases.assert_close(flow.sample(n, seed=9), x[:n])


@every_base
def test_both_dtypes_have_the_same_sample(name):
    """A row could have another component if its random value were at the boundary of two shares; no row here is."""
    narrow, wide = (alone(name, dtype).sample(500, seed=2) for dtype in ("float32", "float64"))
    keep = np.abs(wide) < 1e3
    assert_allclose(narrow[keep], wide[keep], rtol=2e-4, atol=1e-5)


@every_base
def test_a_device_draws_the_same(name, device, dtype):
    flow = alone(name, dtype)
    x, log_prob = Twin(device, flow).sample(100, seed=4)
    want = flow.sample(100, seed=4)
    keep = np.abs(want) < 1e4
    assert_allclose(x[keep], want[keep], rtol=1e-3 if dtype == "float32" else 1e-10, atol=1e-6)
    assert np.isfinite(log_prob).all()


@every_base
def test_columns_are_uncorrelated(name):
    """Columns are compared by ranks, because some bases have no variance; the mixture has two equal components."""
    if name.startswith("mixture"):
        x = hr.Flow([], hr.NormalMixture(D, 2, loc=np.zeros((2, D)), scale=1.0), dtype="float64").sample(ROWS, seed=1)
    else:
        x = alone(name).sample(ROWS, seed=1)
    ranks = x.argsort(axis=0).argsort(axis=0) / ROWS - 0.5
    for values in (ranks, np.abs(ranks) - 0.25):
        between = values.T @ values / ROWS - np.diag((values**2).mean(axis=0))
        assert np.abs(between).max() < 5.0 / math.sqrt(ROWS) / 12.0
        for lag in (1, 2, 4, 8, 48, 96):
            assert np.abs((values[lag:] * values[:-lag]).mean(axis=0)).max() < 5.0 / math.sqrt(ROWS) / 12.0


def test_columns_keep_their_own_density_wherever_a_chain_has_them(core, dtype):
    """Each column keeps the samples of its density in the base, although a coupling puts its passive columns first."""
    for base in (hr.StudentT(D, DF, trainable=False), hr.Independent(KINDS)):
        coupling = hr.transforms.Coupling(D, [1, 4], (4,), map="additive")
        flow = hr.Flow([coupling], base, dtype=dtype)
        flow.parameters = np.zeros(flow.parameters.size, dtype)  # the coupling is the identity
        for n in (3, 40):
            cases.assert_same_bits(flow.sample(n, seed=6), hr.Flow([], base, dtype=dtype).sample(n, seed=6))


def test_all_columns_of_a_row_are_of_one_component(core, dtype):
    """Columns of a row have one component, although they may be in different blocks of random values."""
    loc = np.array([[-50.0], [50.0]]) * np.ones((2, 9))
    flow = hr.Flow([], hr.NormalMixture(9, 2, loc=loc), dtype=dtype)
    for n in (7, 300):
        right = flow.sample(n, seed=2) > 0
        assert (right == right[:, :1]).all()
        assert 0 < right[:, 0].sum() < n


# --- training and objects -------------------------------------------------------------------------------------------


def test_degrees_of_freedom_are_found():
    x = hr.Flow([], hr.StudentT(2, [2.0, 30.0]), dtype="float64").sample(20_000, seed=0)
    flow = hr.Flow([], hr.StudentT(2), dtype="float64")
    flow.fit(x, epochs=15, learning_rate=0.02, progress=False)
    assert_allclose(flow.base.df[0], 2.0, rtol=0.1)
    assert flow.base.df[1] > 15.0


def test_modes_are_found():
    true = hr.NormalMixture(2, 2, loc=[[-2.0, 0.0], [2.0, 1.0]], scale=0.3, weights=[0.3, 0.7])
    x = hr.Flow([], true, dtype="float64").sample(5000, seed=0)
    flow = hr.Flow([], hr.NormalMixture(2, 2, seed=3), dtype="float64")
    flow.fit(x, epochs=60, learning_rate=0.03, progress=False)
    best = hr.Flow([], true, dtype="float64").log_prob(x).mean()
    assert best - flow.log_prob(x).mean() < 0.01
    assert_allclose(np.sort(flow.base.weights / flow.base.weights.sum()), [0.3, 0.7], atol=0.03)


@pytest.mark.parametrize("name", ["student", "mixture"])
def test_a_fit_to_a_density_refuses_trained_parameters_of_student_and_mixtures(name):
    flow = hr.Flow([hr.transforms.Coupling(D, [0], (4,))], BASES[name][0]())
    with pytest.raises(ValueError, match=r"^flow: expected a base whose samples are functions.*trainable=False"):
        hr.fit_to_density(flow, lambda x: (-0.5 * (x**2).sum(axis=1), -x), steps=1, progress=False)
    fixed = hr.Flow([hr.transforms.Coupling(D, [0], (4,))], BASES[f"{name}, fixed"][0]())
    hr.fit_to_density(fixed, lambda x: (-0.5 * (x**2).sum(axis=1), -x), steps=2, samples=64, progress=False)


@every_base
def test_bases_of_flows_have_the_current_parameters(name):
    flow = cases.randomise(alone(name), 0.3)
    base = flow.base
    other = hr.Flow([], base, dtype="float64")
    z = latent(20, "float64", name)
    assert_allclose(other.log_prob(z), flow.log_prob(z), rtol=1e-12)
    assert repr(base).startswith(f"{type(base).__name__}(")
    assert_array_equal(flow.astype("float32").astype("float64").base.features, D)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: hr.StudentT(2, 0.0), ValueError, ["df: ", "at least"]),
        (lambda: hr.StudentT(2, np.inf), ValueError, ["df: ", "finite"]),
        (lambda: hr.StudentT(2, [1.0, 2.0, 3.0]), ValueError, ["df: ", r"\(2,\)", r"\(3,\)"]),
        (lambda: hr.StudentT(0), ValueError, ["features: "]),
        (lambda: hr.Uniform(0), ValueError, ["features: "]),
        (lambda: hr.NormalMixture(2, 0), ValueError, ["components: "]),
        (lambda: hr.NormalMixture(2, 2, weights=[1.0, -1.0]), ValueError, ["weights: ", "at least 0"]),
        (lambda: hr.NormalMixture(2, 2, weights=[0.0, 0.0]), ValueError, ["weights: ", "above"]),
        (lambda: hr.NormalMixture(2, 2, loc=[1.0, 2.0]), ValueError, ["loc: ", r"\(2, 2\)", r"\(2,\)"]),
        (lambda: hr.NormalMixture(2, 2, scale=0.0), ValueError, ["scale: ", "positive"]),
        (lambda: hr.NormalMixture(2, 2, loc="a"), TypeError, ["loc: ", "str"]),
    ],
)
def test_wrong_arguments_are_refused(make, kind, words):
    with pytest.raises(kind) as error:
        make()
    cases.assert_says(error, *words)


def test_degrees_of_freedom_beyond_the_dtype_are_refused():
    """Degrees of freedom above the range of float32 would be infinite, and log densities NaN."""
    for trainable in (True, False):
        base = hr.StudentT(2, 1e39, trainable=trainable)
        with pytest.raises(ValueError, match=r"df: expected at most 3.4\d+e\+38 in float32, got 1e\+39"):
            hr.Flow([], base)
        flow = hr.Flow([], base, dtype="float64")
        assert_allclose(flow.log_prob(np.zeros((1, 2))), -np.log(2 * np.pi), rtol=1e-15)
    with pytest.raises(ValueError, match="df: expected at most"):
        hr.Flow([], hr.StudentT(2, 1e39), dtype="float64").astype("float32")
    assert np.isfinite(hr.Flow([], hr.StudentT(2, 1e38)).sample(100, seed=0)).all()


@pytest.mark.parametrize("make", [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF, hr.PlanarFlow, hr.RadialFlow])
@pytest.mark.parametrize("name", NAMED)
def test_flows_take_bases_by_name(make, name):
    """A base by its name gives the bits of the base as an object."""
    x = cases.rng("named").standard_normal((20, 2))
    named, given = (make(2, transforms=1, hidden=(4,), base=base) for base in (name, NAMED[name](2)))
    np.testing.assert_array_equal(named.log_prob(x), given.log_prob(x))
    assert repr(named) == repr(given)
    assert named.parameters.size == given.parameters.size


def test_other_names_of_bases_are_refused():
    with pytest.raises(
        ValueError, match=r"base: expected a base density or one of 'standard_normal', .*, got 'cauchy'"
    ):
        hr.PlanarFlow(2, base="cauchy")
    with pytest.raises(ValueError, match=r"base: expected Independent.* uniform where periodic"):
        hr.NSF(2, base="student_t", periodic=[(0.0, 1.0), None])
