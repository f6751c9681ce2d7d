"""The C library has the bits of the module's results, for every kind of transform and base, in both dtypes."""

from pathlib import Path

import numpy as np
import pytest

import cases
import digits
import file_cases
import headrace as hr
from headrace import files

ROOT = Path(__file__).parents[2]

# Examples with logarithms that Python computes by NumPy, whose last bit may differ from the C library's.
BY_LOGARITHMS = ("student-t-fixed", "mixture-fixed", "ensemble")


def same(got, want, name, dtype):
    """Check that bits are equal, with NaN equal to NaN; results with NumPy's logarithms may differ in a few last
    bits."""
    if name in BY_LOGARITHMS and dtype == "float64":
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    else:
        np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype


def rows_and_context(module, rows, *key):
    x = cases.rows(rows, module.features, "float64", "c", *key)
    if rows > 2:
        x[1] *= 1e3
        x[2, 0] = np.nan
    context = cases.rows(rows, module.context, "float64", "c context", *key) if module.context else None
    return x, context


@pytest.mark.parametrize("rows", [1, 7, 40, 1000])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", file_cases.EXAMPLES)
def test_every_kind_equals_the_module(library, name, dtype, rows):
    module = file_cases.EXAMPLES[name](dtype)
    handle = library.open(files.to_bytes(module))
    assert (handle.features, handle.context, handle.dtype) == (module.features, module.context, module.dtype)
    x, context = rows_and_context(module, rows, name)
    one = None if context is None else context[:1]
    with np.errstate(all="ignore"):
        for own in (x, x.astype("float32")):
            for c in (context,) if context is None else (context, one):
                if isinstance(module, (hr.Flow, hr.Ensemble)):
                    same(handle.log_prob(own, c), module.log_prob(own, c), name, dtype)
                if isinstance(module, hr.Ensemble):
                    continue
                to_latent, to_data = (
                    (module.to_latent, module.to_data)
                    if isinstance(module, hr.Flow)
                    else (module.inverse, module.forward)
                )
                for got, want in zip(handle.to_latent(own, c), to_latent(own, c), strict=True):
                    same(got, want, name, dtype)
                for got, want in zip(handle.to_data(own, c), to_data(own, c), strict=True):
                    same(got, want, name, dtype)
        if isinstance(module, hr.Flow):
            score = module.log_prob_and_score(x, context)
            by_context = handle.gradient(x, context)
            for got, want in zip(by_context[:2], score, strict=True):
                same(got, want, name, dtype)
            if context is not None:
                want = module.log_prob_vjp(x, np.ones(rows, dtype), context, wrt="context")[0]
                same(by_context[2], want, name, dtype)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_maps_activations_and_densities_are_as_near_to_50_digits_as_the_modules(library, dtype):
    for case in digits.read_cases():
        flow = case.flow(dtype)
        found = case.results(dtype, library.open(files.to_bytes(flow)))
        for got, want in zip(found, case.results(dtype, flow), strict=True):
            by_logarithm = "mixture-fixed" if case.name in ("mixture", "student 5", "student 1000") else case.name
            same(got, want, by_logarithm, dtype)


@pytest.mark.parametrize("name", file_cases.EXAMPLES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_samples_are_those_of_the_module(library, name, dtype):
    module = file_cases.EXAMPLES[name](dtype)
    if not isinstance(module, (hr.Flow, hr.Ensemble)):
        return
    handle = library.open(files.to_bytes(module))
    for rows, first in ((1, None), (7, 3), (200, None), (200, 2**40)):
        context = cases.rows(rows, module.context, "float64", "c samples") if module.context else None
        seed = 2**64 - 1 - rows
        got = handle.sample(rows, seed, context, -1 if first is None else first)
        same(got, module.sample(rows, context, seed, first_row=first), name, dtype)
        wide = handle.sample(rows, seed, context, -1 if first is None else first, dtype="float64")
        same(wide, module.sample(rows, context, seed, first_row=first, dtype="float64"), name, dtype)
        x, log_prob = handle.sample(rows, seed, context, -1 if first is None else first, with_log_prob=True)
        same(x, got, name, dtype)
        if isinstance(module, hr.Flow):
            want = module.sample_and_log_prob(rows, context, seed, first_row=first)[1]
            same(log_prob, want, name, dtype)
        else:
            same(log_prob, module.log_prob(got, context), name, dtype)


@pytest.mark.parametrize("matmul", ["bf16", "bf16x3", "bf16x6", "bf16_tiles", "bf16x3_tiles", "bf16x6_tiles"])
def test_products_in_bf16_are_those_of_the_module(library, matmul):
    flow = file_cases.fitted(hr.MAF(3, 2, transforms=2, hidden=(8, 16)), "bf16").to("cpu", matmul)
    handle = library.open(files.to_bytes(flow))
    x, context = rows_and_context(flow, 40, matmul)
    same(handle.log_prob(x, context), flow.log_prob(x, context), matmul, "float32")
    same(handle.sample(40, 1, context), flow.sample(40, context, 1), matmul, "float32")


def test_files_of_older_versions_are_read(library):
    paths = [*(ROOT / "tests" / "files").glob("0.*/*.safetensors")]
    assert len(paths) > 20
    for path in paths:
        module, handle = hr.load(path), library.open(path)
        x, context = rows_and_context(module, 9, path.stem)
        with np.errstate(all="ignore"):
            if isinstance(module, (hr.Flow, hr.Ensemble)):
                same(handle.log_prob(x, context), module.log_prob(x, context), path.stem, "float64")
            else:
                same(handle.to_data(x, context)[0], module.forward(x, context)[0], path.stem, str(module.dtype))
