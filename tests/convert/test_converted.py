"""Flows of other libraries, of random sizes, options, bounds and orders, against their conversions.

Expected values are those of the source, in float64 and float32. Latents of the source are compared with headrace's, and
have to return to their rows of data: the inverse of the source loses digits that headrace's keeps.
"""

import copy
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from convert_cases import CASES, NO_CONTEXT, Draw, library, shaken
from headrace import convert
from pairs import pairwise

pytestmark = [
    pytest.mark.programs,
    pytest.mark.filterwarnings("ignore"),  # deprecations within the libraries
]

ROWS = 60
TORCH = ("zuko", "nflows", "normflows", "glasflow", "sbi")
CONVERTERS = {name: getattr(convert, f"from_{name}") for name in CASES}

# Rounding of the source's formulas in its dtype; splines divide by the sizes of bins, and lose more digits.
LIMITS = {"float64": 1e-12, "float32": 1e-5}
SPLINE_LIMITS = {"float64": 1e-11, "float32": 2e-4}
SBI_LIMIT = 1e-8  # the constant of sbi's normal density is float32, for any dtype of the model

ALL = [(name, kind) for name, (known, _) in CASES.items() for kind in known]
REFUSED = [(name, kind) for name, (_, refused) in CASES.items() for kind in refused]


def context_of(d, name, seed=1):
    n = max(d.columns, 1) if name == "sbi" else d.columns
    return np.random.default_rng(seed).standard_normal((ROWS, n)) if n else None


def density(name, model, dtype):
    """Return a function of ``(x, context)`` with ``(z, log_det, log_prob)``, each None where the library lacks it."""
    if name == "flowjax":
        import jax.numpy as jnp

        def of_flowjax(x, context):
            given = None if context is None else jnp.asarray(context, dtype)
            log_prob = library("equinox").filter_jit(lambda model, x, c: model.log_prob(x, c))
            return None, None, np.asarray(log_prob(model, jnp.asarray(x, dtype), given))

        return of_flowjax
    torch = library("torch")

    def of_torch(x, context):
        x = torch.from_numpy(x.astype(dtype))
        context = None if context is None else torch.from_numpy(context.astype(dtype))
        with torch.no_grad():
            z, log_det, log_prob = TORCH_CALLS[name](model, x, context)
        return [None if one is None else one.numpy() for one in (z, log_det, log_prob)]

    return of_torch


def of_zuko(model, x, context):
    found = model(context)
    z, log_det = found.transform.call_and_ladj(x)
    own = found.base.base_dist
    if hasattr(own, "low"):  # headrace's uniform base is on [-1, 1]
        half = 0.5 * (own.high - own.low)
        z, log_det = (z - own.mean) / half, log_det - half.log().sum(-1)
    return z, log_det, found.log_prob(x)


def of_nflows(model, x, context):
    return *model._transform(x, context), model.log_prob(x, context)


def of_normflows(model, x, context):
    given = () if context is None else (context,)
    return model.inverse(x, *given), None, model.log_prob(x, *given)  # the library sums log-determinants in float32


def of_sbi(model, x, context):
    return None, None, model.log_prob(x[None], context)[0]


TORCH_CALLS = {
    "zuko": of_zuko, "nflows": of_nflows, "glasflow": of_nflows, "normflows": of_normflows, "sbi": of_sbi,
}  # fmt: skip


def made(name, kind, d):
    model = CASES[name][0][kind](d)
    return shaken(model, d.seed) if name in TORCH else model


def compared(name, kind, seed, context, dtype):
    if context and kind in NO_CONTEXT:
        pytest.skip("that library has no context there")
    d = Draw(seed, context)
    model = made(name, kind, d)
    if name in TORCH and dtype == "float64":
        model = model.double()
    flow = CONVERTERS[name](model)
    assert flow.dtype == dtype
    assert flow.features == d.features
    given = context_of(d, name)
    x = np.asarray(flow.sample(ROWS, given, seed=3, dtype=dtype)).astype(dtype)
    x[::3] *= 1.5
    x = within_circles(kind, x)
    z, log_det, log_prob = density(name, model, dtype)(x, given)
    exact = (z, log_det, log_prob)
    if name in TORCH and dtype == "float32":  # the rounding of the source is no error of headrace
        exact = density(name, copy.deepcopy(model).double(), "float64")(x, rounded(given))
    limit = SBI_LIMIT if name == "sbi" and dtype == "float64" else (SPLINE_LIMITS if is_spline(kind) else LIMITS)[dtype]
    close(flow.log_prob(x, given), log_prob, exact[2], limit)
    if z is None:
        return
    ours = flow.to_latent(x, given)
    close(ours[0], z, exact[0], limit)
    if log_det is not None:
        close(ours[1], log_det, exact[1], limit)
    back = flow.to_data(z, given)
    errors = np.abs(back[0] - x) / (1.0 + np.abs(x))  # in a steep region a latent row's rounding is magnified
    assert np.median(errors) <= 30 * limit
    if dtype == "float64":
        assert errors.max() <= 1e4 * limit
        assert_allclose(back[1], -ours[1], atol=1e4 * limit, rtol=1e3 * limit)


def within_circles(kind, x):
    """Return angles between -π and π, beyond which zuko's densities do not continue periodically."""
    return (np.mod(x + np.pi, 2.0 * np.pi) - np.pi).astype(x.dtype) if "NCSF" in kind else x


def is_spline(kind):
    return re.search(r"NC?SF|Spline|rqs|nsf|Quadratic", kind) is not None


def rounded(context):
    return None if context is None else context.astype("float32").astype("float64")


def close(ours, theirs, exact, limit):
    """Check that headrace's error is at most five times that of the source, apart from rounding."""
    size = 1.0 + np.abs(exact)
    own, other = (np.abs(a - exact) / size for a in (ours, theirs))
    assert own.max() <= 30 * limit + 5 * other.max(), f"{own.max():.3g}, and the source {other.max():.3g}"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("context", [False, True], ids=["alone", "context"])
@pytest.mark.parametrize(("name", "kind"), [case for case in ALL if case[0] in ("zuko", "nflows", "normflows")])
def test_hidden_models_of_pytorch(name, kind, context, dtype):
    library(name)
    for seed in range(3):
        compared(name, kind, seed + 10 * context, context, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "kind"), [case for case in ALL if case[0] in ("glasflow", "sbi")])
def test_hidden_models_of_their_users(name, kind, dtype):
    library(name)
    for seed in range(2):
        compared(name, kind, seed, name == "sbi" or seed == 1, dtype)


@pytest.mark.parametrize("context", [False, True], ids=["alone", "context"])
@pytest.mark.parametrize(("name", "kind"), [case for case in ALL if case[0] in ("zuko", "nflows")])
def test_log_densities_to_rounding(name, kind, context):
    """Errors are at most 1e-12 and 1e-5 of 1 + |log p|, in addition to the digits that the source loses.

    The source may lose three times the difference between its results in float32 and float64, and in float64 the effect
    of a row's last bits.
    """
    library(name)
    if context and kind in NO_CONTEXT:
        pytest.skip("that library has no context there")
    d = Draw(10 * context + context, context)
    model = made(name, kind, d)
    wide = copy.deepcopy(model).double()
    flow = CONVERTERS[name](model)
    given = context_of(d, name)
    given = given if given is None else given.astype("float32")
    x = np.asarray(flow.sample(ROWS, given, seed=3)).astype("float32")
    x[::3] *= 1.5
    x = within_circles(kind, x)
    exact_rows, exact_context = x.astype("float64"), None if given is None else given.astype("float64")
    exact = density(name, wide, "float64")(exact_rows, exact_context)[2]
    size = 1.0 + np.abs(exact)
    lost = np.abs(density(name, model, "float32")(x, given)[2] - exact) / size
    assert (np.abs(flow.log_prob(x, given) - exact) / size <= LIMITS["float32"] + 3.0 * lost.max()).all()
    signs = np.random.default_rng(4).choice([-1.0, 1.0], x.shape)
    moved = density(name, wide, "float64")(exact_rows * (1.0 + 2.0**-52 * signs), exact_context)[2]
    lost = np.abs(moved - exact) / size
    found = np.abs(CONVERTERS[name](wide).log_prob(exact_rows, exact_context) - exact) / size
    assert (found <= LIMITS["float64"] + 3.0 * lost.max()).all(), found.max()


@contextmanager
def jax_numbers(dtype):
    """Let JAX have 64-bit values for the dtype float64, and 32-bit values otherwise."""
    jax = library("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pairwise(kind=CASES["flowjax"][0], context=[False, True], dtype=["float32", "float64"])
def test_hidden_models_of_flowjax(kind, context, dtype):
    """Only pairs of options are tested, because JAX compiles each of its models for seconds."""
    library("flowjax")
    with jax_numbers(dtype):
        compared("flowjax", kind, 4 + context, context, dtype)


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_unknown_parts_are_refused_with_class_and_path(name, kind):
    library(name)
    if name == "nflows" and "MADE" in kind:
        library("nflows.nn.nde")
    model = CASES[name][1][kind](Draw(2, False))
    model = model.eval() if hasattr(model, "eval") else model
    with pytest.raises((NotImplementedError, TypeError), match=r"^(model[\w.\[\]]*): expected .*, got "):
        CONVERTERS[name](model)


# ---- the page --------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"


def rows_of_the_page():
    """Return the tables of docs/convert.md: for each library the parts that convert, and the others."""
    found, name = {}, None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if title := re.fullmatch(r"### (\w+)", line):
            name = title[1]
            found[name] = ([], [])
        elif name and (row := re.fullmatch(r"\| (.+?) \| (yes|no)\b.*\|", line)):
            found[name][row[2] == "no"].append(row[1])
        elif line.startswith("## "):
            name = None
    return found


def test_the_page_has_the_tested_parts():
    assert rows_of_the_page() == {name: (list(known), list(refused)) for name, (known, refused) in CASES.items()}
