"""The argument `out=`: results are written to the caller's array and nowhere else, and an array that would be read
after it was written is refused."""

import numpy as np
import pytest

import cases
import frameworks
import headrace as hr

FEATURES, CONTEXT = 5, 2
WRITABLE = ("numpy", "torch")


def made_flow(dtype, context=CONTEXT, kind=hr.MAF):
    return cases.randomise(kind(FEATURES, context, 2, (12, 12), dtype=dtype))


def made_transforms(dtype):
    maf = cases.randomise(hr.transforms.MaskedAutoregressive(FEATURES, (12,), context=CONTEXT, dtype=dtype))
    coupling = cases.randomise(hr.transforms.Coupling(FEATURES, [0, 3], (12,), context=CONTEXT, dtype=dtype))
    fixed = [hr.transforms.Permutation([2, 0, 3, 1, 4]), hr.transforms.Standardize(np.arange(5.0), np.arange(1.0, 6.0))]
    return [maf, coupling, hr.transforms.Inverse(maf), *fixed]


def given_of(holder, rows, dtype):
    """Rows and, for objects with a context, a context."""
    x = cases.rows(rows, FEATURES, dtype)
    return [x, cases.rows(rows, CONTEXT, dtype, "context")] if holder.context else [x]


def pairs(dtype):
    """Pairs (method that returns a value and its log_det, whether it takes a context) of each flow and transform."""
    flows = [made_flow(dtype), made_flow(dtype, kind=hr.IAF), made_flow(dtype, 0, hr.RealNVP)]
    methods = [(flow, method) for flow in flows for method in (flow.to_data, flow.to_latent)]
    return methods + [(t, method) for t in made_transforms(dtype) for method in (t.forward, t.inverse)]


def filled(shape, dtype):
    return np.full(shape, 7.0, dtype)


@pytest.fixture(params=WRITABLE)
def writable(request):
    return frameworks.load(request.param)


# --- written and returned ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 97])
def test_pairs_are_written_into_the_arrays_given(writable, rows, dtype):
    for holder, method in pairs(dtype):
        given = given_of(holder, rows, dtype)
        want = method(*given)
        out = writable.make(filled((rows, FEATURES), dtype)), writable.make(filled(rows, dtype))
        got = method(*map(writable.make, given), out=out)
        assert got is out
        for array, expected in zip(out, want, strict=True):
            cases.assert_same_bits(np.asarray(array), expected)


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 97])
def test_densities_and_samples_are_written_into_the_arrays_given(writable, rows, dtype):
    flow = made_flow(dtype)
    x, context = given_of(flow, rows, dtype)
    log_prob, drawn = writable.make(filled(rows, dtype)), writable.make(filled((rows, FEATURES), dtype))
    assert flow.log_prob(writable.make(x), writable.make(context), out=log_prob) is log_prob
    cases.assert_same_bits(np.asarray(log_prob), flow.log_prob(x, context))
    assert flow.sample(rows, writable.make(context), seed=4, out=drawn) is drawn
    cases.assert_same_bits(np.asarray(drawn), flow.sample(rows, context, seed=4))
    both = writable.make(filled((rows, FEATURES), dtype)), log_prob
    assert flow.sample_and_log_prob(rows, writable.make(context), seed=5, out=both) is both
    for array, expected in zip(both, flow.sample_and_log_prob(rows, context, seed=5), strict=True):
        cases.assert_same_bits(np.asarray(array), expected)


def test_a_sample_without_arrays_is_of_the_framework_of_out(writable, dtype):
    flow, out = made_flow(dtype, context=0), writable.make(filled((9, FEATURES), dtype))
    assert flow.sample(9, seed=1, out=out) is out
    cases.assert_same_bits(np.asarray(out), flow.sample(9, seed=1))


@pytest.mark.parametrize("input_dtype", cases.DTYPES)
def test_the_input_may_have_another_dtype_and_any_strides(writable, input_dtype, dtype):
    flow = made_flow(dtype, context=0)
    x = cases.rows(FEATURES, 60, input_dtype).T
    out = writable.make(filled(60, dtype))
    flow.log_prob(writable.make(x.T).T, out=out)
    cases.assert_same_bits(np.asarray(out), flow.log_prob(x))


def test_views_are_written_through_and_the_rest_is_left(writable, dtype):
    flow, table, sums = made_flow(dtype, 0), filled((30, FEATURES), dtype), filled(30, dtype)
    whole = writable.make(table), writable.make(sums)
    flow.sample_and_log_prob(9, seed=2, out=(whole[0][11:20], whole[1][3:12]))
    table[11:20], sums[3:12] = flow.sample_and_log_prob(9, seed=2)
    for array, expected in zip(whole, (table, sums), strict=True):
        cases.assert_same_bits(np.asarray(array), expected)


@pytest.mark.parametrize("map", ["affine", "rq_spline"])
def test_functional_kernels_write_tensors(map, dtype):
    torch = frameworks.load("torch").module
    z = cases.rows(20, 3, dtype)
    params = cases.rng("params").standard_normal((20, 3, 2 if map == "affine" else 14)).astype(dtype)
    tensors, want = [torch.from_numpy(z.copy()), torch.from_numpy(params)], hr.ops.coupling(z, params, map)
    out = tensors[0], torch.empty(20, dtype=tensors[0].dtype)
    assert hr.ops.coupling(*tensors, map, out=out) is out
    for array, expected in zip(out, want, strict=True):
        cases.assert_same_bits(array.numpy(), expected)


# --- in place ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [*cases.BATCH_SIZES, 1000])
def test_a_value_may_overwrite_its_input(writable, rows, dtype):
    for holder, method in pairs(dtype):
        given = given_of(holder, rows, dtype)
        want = method(*given)
        x, *context = (writable.make(array.copy()) for array in given)
        out = x, writable.make(filled(rows, dtype))
        assert method(x, *context, out=out) is out
        for array, expected in zip(out, want, strict=True):
            cases.assert_same_bits(np.asarray(array), expected)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_in_place_with_many_threads(threads, set_threads):
    flow = made_flow("float32", 0)
    x = cases.rows(5003, FEATURES, "float32")
    want = flow.to_data(x)
    set_threads(threads)
    got = flow.to_data(x, out=(x, np.empty(5003, "f4")))
    for array, expected in zip(got, want, strict=True):
        cases.assert_same_bits(array, expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


def memory(dtype="float32"):
    """A vector of random values, from which overlapping arrays are cut."""
    return cases.rng("memory").standard_normal(1000).astype(dtype)


def cut(array, start, rows, columns=FEATURES):
    return array[start : start + rows * columns].reshape(rows, columns)


def overlaps():
    """name -> (x, context, out) of to_latent in float32, where `out` would overwrite values before they are read."""
    m, n, square = memory(), memory(), memory()[:25].reshape(5, 5)

    def fresh(*shape):
        return np.zeros(shape, "f4")

    return {
        "one number later": (cut(m, 0, 20), cut(n, 0, 20, 2), (cut(m, 1, 20), fresh(20))),
        "one row earlier": (cut(m, 5, 20), cut(n, 0, 20, 2), (cut(m, 0, 20), fresh(20))),
        "upside down": (cut(m, 0, 20)[::-1], cut(n, 0, 20, 2), (cut(m, 0, 20), fresh(20))),
        "transposed": (square.T, cut(n, 0, 5, 2), (square, fresh(5))),
        "the same place in float64": (m[:200].view("f8").reshape(20, 5), cut(n, 0, 20, 2), (cut(m, 0, 20), fresh(20))),
        "the same place, fewer rows read": (
            np.broadcast_to(cut(m, 0, 1), (20, 5)),
            cut(n, 0, 20, 2),
            (cut(m, 0, 20), fresh(20)),
        ),
        "the context": (cut(m, 0, 20), cut(n, 50, 20, 2), (cut(n, 0, 20), fresh(20))),
        "log_det in the input": (cut(m, 0, 20), cut(n, 0, 20, 2), (fresh(20, 5), m[30:50])),
        "log_det in the context": (cut(m, 0, 20), cut(n, 0, 20, 2), (fresh(20, 5), n[:20])),
        "log_det in the value": (cut(m, 0, 20), cut(n, 0, 20, 2), (cut(m, 200, 20), m[299:319])),
        "log_det in the value, in place": (cut(m, 0, 20), cut(n, 0, 20, 2), (cut(m, 0, 20), m[80:100])),
    }


@pytest.mark.parametrize("name", overlaps())
def test_overlaps_are_refused(name):
    x, context, out = overlaps()[name]
    before = [array.copy() for array in (x, context, *out)]
    with pytest.raises(ValueError) as error:
        made_flow("float32").to_latent(x, context, out=out)
    cases.assert_says(error, "^out: ", "overlap", "x itself")
    for array, kept in zip((x, context, *out), before, strict=True):
        cases.assert_same_bits(array, kept)


def test_overlaps_of_tensors_are_refused():
    torch, flow = frameworks.load("torch").module, made_flow("float32", 0)
    numbers = torch.ones(101)
    with pytest.raises(ValueError, match=r"^out: .*overlap"):
        flow.to_latent(numbers[:100].view(20, 5), out=(numbers[1:].view(20, 5), torch.empty(20)))
    square = torch.ones(5, 5)
    with pytest.raises(ValueError, match=r"^out: .*overlap"):
        flow.to_latent(square.T, out=(square, torch.empty(5)))


def test_overlaps_of_densities_and_samples_are_refused(dtype):
    flow, m = made_flow(dtype), memory(dtype)
    vector, rows = np.zeros(flow.parameters.size, dtype), np.empty(20, dtype)
    x, context = cut(m, 0, 20), cut(m, 200, 20, 2)
    for call in (
        lambda: flow.log_prob(x, context, out=m[10:30]),
        lambda: flow.log_prob(x, context, out=m[239:259]),
        lambda: flow.log_prob(x, context, parameters=vector, out=vector[:20]),
        lambda: flow.sample(20, context, out=cut(m, 150, 20)),
        lambda: flow.sample_and_log_prob(20, context, out=(cut(m, 300, 20), m[399:419])),
        lambda: flow.to_data(x, context, parameters=vector, out=(vector[:100].reshape(20, 5), rows)),
    ):
        with pytest.raises(ValueError, match=r"^out: .*overlap"):
            call()
    # Neighbouring arrays do not overlap.
    flow.log_prob(x, context, out=m[100:120])
    flow.sample_and_log_prob(20, context, out=(cut(m, 100, 20), m[240:260]))


ROWS = 6
# name -> (out[0] of to_latent in float32, words of the message)
BAD_VALUES = {
    "another dtype": (np.empty((ROWS, FEATURES)), [r"out\[0\]", "float32", "float64"]),
    "integers": (np.empty((ROWS, FEATURES), int), [r"out\[0\]", "float32", "int64"]),
    "too few rows": (np.empty((ROWS - 1, FEATURES), "f4"), [r"out\[0\]", r"\(6, 5\)", r"\(5, 5\)"]),
    "columns first": (np.empty((FEATURES, ROWS), "f4").T, [r"out\[0\]", "C-contiguous", "strides"]),
    "every other row": (np.empty((2 * ROWS, FEATURES), "f4")[::2], [r"out\[0\]", "C-contiguous"]),
    "unaligned": (np.empty(ROWS * FEATURES * 4 + 1, "u1")[1:].view("f4").reshape(6, 5), [r"out\[0\]", "aligned"]),
    "read-only": (np.zeros((ROWS, FEATURES), "f4"), [r"out\[0\]", "writable", "read-only"]),
    "a list": ([[0.0] * FEATURES] * ROWS, [r"out\[0\]", "list"]),
    "none": (None, [r"out\[0\]", "None"]),
    "a masked array": (np.ma.zeros((ROWS, FEATURES), "f4"), [r"out\[0\]", "masked"]),
}
BAD_VALUES["read-only"][0].flags.writeable = False


@pytest.mark.parametrize("bad", BAD_VALUES)
def test_bad_outputs_are_refused(bad):
    value, words = BAD_VALUES[bad]
    flow = made_flow("float32", 0)
    x = cases.rows(ROWS, FEATURES, "float32")
    for method in (flow.to_latent, flow.transforms[0].inverse):
        with pytest.raises((TypeError, ValueError)) as error:
            method(x, out=(value, np.empty(ROWS, "f4")))
        cases.assert_says(error, *words)
    if value is not None:
        with pytest.raises((TypeError, ValueError)) as error:
            flow.sample(ROWS, out=value)
        cases.assert_says(error, *(word.replace(r"\[0\]", "") for word in words))


@pytest.mark.parametrize("out", [np.empty((6, 5), "f4"), [np.empty((6, 5), "f4"), np.empty(6, "f4")], (1, 2, 3), "ab"])
def test_a_pair_is_a_tuple_of_two(out):
    flow = made_flow("float32", 0)
    x = cases.rows(ROWS, FEATURES, "float32")
    calls = [flow.to_latent, flow.to_data, *(getattr(flow.transforms[0], name) for name in ("forward", "inverse"))]
    for call in [*(lambda call=call: call(x, out=out) for call in calls), lambda: flow.sample_and_log_prob(6, out=out)]:
        with pytest.raises(TypeError) as error:
            call()
        cases.assert_says(error, "^out:", "tuple of two", type(out).__name__)


def test_arrays_that_cannot_be_written_to_are_refused(dtype):
    flow, x = made_flow(dtype, 0), cases.rows(ROWS, FEATURES, dtype)
    jax, pandas = frameworks.load("jax"), frameworks.load("pandas")
    for given, out in [
        (x, jax.make(np.zeros(ROWS, dtype))),
        (jax.make(np.ones((ROWS, FEATURES), "f4")), jax.make(np.zeros(ROWS, "f4"))),
        (jax.make(np.ones((ROWS, FEATURES), "f4")), np.zeros(ROWS, dtype)),
    ]:
        with pytest.raises(TypeError) as error:
            flow.log_prob(given, out=out)
        cases.assert_says(error, "^out: expected None", "JAX", "cannot be written")
    for call in (
        lambda: flow.log_prob(x, out=pandas.make(np.zeros(ROWS, dtype))),
        lambda: flow.sample(ROWS, out=pandas.make(np.zeros((ROWS, FEATURES), dtype))),
    ):
        with pytest.raises(TypeError) as error:
            call()
        cases.assert_says(error, "^out:", "NumPy array or a PyTorch tensor", "pandas")


def test_outputs_of_another_framework_are_refused():
    torch, flow = frameworks.load("torch").module, made_flow("float32", 0)
    x = cases.rows(ROWS, FEATURES, "float32")
    with pytest.raises(TypeError) as error:
        flow.log_prob(x, out=torch.empty(ROWS))
    cases.assert_says(error, "^out:", "NumPy array", "as for x", "PyTorch tensor", r"np\.asarray\(out\)")
    with pytest.raises(TypeError) as error:
        flow.to_data(torch.from_numpy(x), out=(torch.empty(ROWS, FEATURES), np.empty(ROWS, "f4")))
    cases.assert_says(error, r"^out\[1\]:", "PyTorch tensor", "as for z", "NumPy array", r"torch\.asarray\(out\[1\]\)")
    with pytest.raises(TypeError) as error:
        flow.sample_and_log_prob(ROWS, out=(torch.empty(ROWS, FEATURES), np.empty(ROWS, "f4")))
    cases.assert_says(error, r"^out\[1\]:", "PyTorch tensor", r"as for out\[0\]", "NumPy array")


# --- autograd ---------------------------------------------------------------------------------------------------------


def test_autograd_refuses_tensors_that_were_overwritten():
    """A gradient needs the overwritten values, so that autograd has to raise its error."""
    torch, flow = frameworks.load("torch").module, made_flow("float32", 0)
    x, weight = torch.ones(9, FEATURES), torch.ones(9, requires_grad=True)
    for write in (
        lambda out: flow.log_prob(x, out=out),
        lambda out: flow.to_data(x, out=(torch.empty(9, FEATURES), out)),
    ):
        kept = torch.ones(9)
        loss = (weight * kept).sum()
        write(kept)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_tensors_of_inference_mode_are_written():
    torch, flow = frameworks.load("torch").module, made_flow("float32", 0)
    with torch.inference_mode():
        out = torch.empty(9, FEATURES)
        flow.sample(9, seed=1, out=out)
        cases.assert_same_bits(out.numpy(), flow.sample(9, seed=1))
