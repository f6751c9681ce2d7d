"""Arrays with any strides are read right; errors of wrong arguments give the name, the expectation and the value."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cases
import headrace as hr
from pairs import pairwise

# --- shapes, strides and precisions ---------------------------------------------------------------------------------

# Functions that make an array of n rows and d columns with the strides of their name, from an array that may be larger.
STRIDES = {
    "rows first": lambda make, n, d: make(n, d),
    "columns first": lambda make, n, d: np.asfortranarray(make(n, d)),
    "rows backwards": lambda make, n, d: make(n, d)[::-1],
    "columns backwards": lambda make, n, d: make(n, d)[:, ::-1],
    "both backwards": lambda make, n, d: make(n, d)[::-1, ::-1],
    "every other row": lambda make, n, d: make(2 * n, d)[::2],
    "every third column": lambda make, n, d: make(n, 3 * d)[:, ::3],
    "a block of columns": lambda make, n, d: make(n, d + 5)[:, 2 : 2 + d],
    "one row for all": lambda make, n, d: np.broadcast_to(make(1, d), (n, d)),
    "one column for all": lambda make, n, d: np.broadcast_to(make(n, 1), (n, d)),
    "one number for all": lambda make, n, d: np.broadcast_to(make(1, 1), (n, d)),
    "transposed and sliced": lambda make, n, d: make(2 * d, 3 * n).T[::3, 1::2],
    "unaligned": lambda make, n, d: unaligned(make(n, d)),
    "not writable": lambda make, n, d: locked(make(n, d)),
}


def unaligned(array):
    """Return a copy that starts at an address that is no multiple of the size of its values."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def locked(array):
    array.flags.writeable = False
    return array


def array_of(strides, n, columns, dtype, *key):
    array = STRIDES[strides](lambda rows, cols: cases.rows(rows, cols, dtype, *key), n, columns)
    assert array.shape == (n, columns)
    return array


def transforms_of(features, context, dtype):
    """Return a transform of each sort, with random weights."""
    maf = cases.made(features=features, hidden=(14, 11), context=context).astype(dtype)
    library = {
        "MAF": hr.transforms.MaskedAutoregressive.from_dense(*maf.arrays, context=context),
        "IAF": hr.transforms.MaskedAutoregressive.from_dense(
            *maf.arrays, context=context, reads="latent", activation="tanh"
        ),
    }
    if features > 1:
        passive = list(range(features - 1, features // 2 - 1, -1))
        net = cases.dense_network(len(passive), (14, 11), features - len(passive), context).astype(dtype)
        library["coupling"] = hr.transforms.Coupling.from_dense(
            *net.arrays, features=features, passive=passive, context=context
        )
    return library


@given(
    strides=st.sampled_from(sorted(STRIDES)),
    context_strides=st.sampled_from(sorted(STRIDES)),
    n=st.integers(0, 110),
    features=st.integers(1, 12),
    context=st.integers(0, 3),
    input_dtype=st.sampled_from(cases.DTYPES),
    context_dtype=st.sampled_from(cases.DTYPES),
    dtype=st.sampled_from(cases.DTYPES),
)
def test_transforms_read_any_strides_and_either_precision(
    strides, context_strides, n, features, context, input_dtype, context_dtype, dtype
):
    """Results have the bits of those for a contiguous copy in the precision of the transform."""
    z = array_of(strides, n, features, input_dtype)
    row_context = array_of(context_strides, n, context, context_dtype, "context") if context else None
    plain = np.array(z, dtype, order="C")
    plain_context = np.array(row_context, dtype, order="C") if context else None
    for transform in transforms_of(features, context, dtype).values():
        for direction in (transform.forward, transform.inverse):
            got, want = direction(z, row_context), direction(plain, plain_context)
            assert got[0].shape == (n, features)
            for result, expected in zip(got, want, strict=True):
                cases.assert_same_bits(result, expected)
                assert result.flags.c_contiguous
                assert result.flags.writeable
                assert not np.may_share_memory(result, z)


@pairwise(
    strides=STRIDES,
    input_dtype=cases.DTYPES,
    name=["MAF", "IAF", "RealNVP", "PlanarFlow", "RadialFlow"],
    dtype=cases.DTYPES,
)
def test_flows_read_any_strides_and_either_precision(strides, input_dtype, name, dtype):
    flow = cases.randomise(getattr(hr, name)(5, context=2, transforms=2, hidden=(12, 12), dtype=dtype))
    for n in (3, 60):
        x, context = array_of(strides, n, 5, input_dtype), array_of(strides, n, 2, input_dtype, "context")
        plain, plain_context = np.array(x, dtype, order="C"), np.array(context, dtype, order="C")
        for verb in (flow.to_latent, flow.to_data, lambda *inputs: (flow.log_prob(*inputs),)):
            for got, want in zip(verb(x, context), verb(plain, plain_context), strict=True):
                assert got.dtype == np.dtype(dtype)
                # Standardisation at the data end subtracts in the input's precision, before the conversion to the dtype
                # of the flow, so that one rounding may differ.
                cases.assert_close(got, want.astype(float), magnitude=10.0)
        cases.assert_same_bits(flow.sample(n, context, seed=1), flow.sample(n, plain_context, seed=1))


@pytest.mark.parametrize("strides", STRIDES)
def test_permutation_and_standardize_read_any_strides(strides, dtype):
    for n in (0, 3, 60):
        x = array_of(strides, n, 5, dtype)
        plain = np.array(x, order="C")
        for transform in (
            hr.transforms.Permutation([4, 2, 0, 1, 3]),
            hr.transforms.Standardize(np.arange(5.0), np.arange(1.0, 6.0)),
        ):
            for direction in (transform.forward, transform.inverse):
                for got, want in zip(direction(x), direction(plain), strict=True):
                    cases.assert_same_bits(got, want)


@pytest.mark.parametrize("strides", [name for name in STRIDES if not name.startswith("one ")])
def test_from_dense_reads_any_strides(strides, dtype):
    dense = cases.made(features=5, hidden=(14, 11)).astype(dtype)
    weights = [array_of(strides, *weight.shape, dtype) for weight in dense.weights]
    plain = [np.array(weight, order="C") for weight in weights]
    masks = [np.asfortranarray(mask)[::-1][::-1] for mask in dense.masks]
    z = cases.rows(20, 5, dtype)
    want = hr.transforms.MaskedAutoregressive.from_dense(plain, dense.biases, dense.masks).forward(z)
    got = hr.transforms.MaskedAutoregressive.from_dense(weights, dense.biases, masks).forward(z)
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result, expected)


def test_foreign_byte_order_is_refused_or_read_right(dtype):
    transform = transforms_of(5, 0, dtype)["MAF"]
    z = cases.rows(20, 5, dtype)
    want = transform.forward(z)
    try:
        got = transform.forward(z.astype(z.dtype.newbyteorder("S")))
    except (TypeError, ValueError):
        return
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result, expected)


@pytest.mark.parametrize("n", [3, 60])
def test_inputs_are_not_changed(n, dtype):
    z, context = cases.rows(n, 5, dtype), cases.rows(n, 2, dtype, "context")
    kept, kept_context = z.copy(), context.copy()
    for transform in transforms_of(5, 2, dtype).values():
        transform.forward(z, context)
        transform.inverse(z, context)
    for name in ("MAF", "IAF", "RealNVP", "PlanarFlow", "RadialFlow"):
        flow = getattr(hr, name)(5, context=2, transforms=2, hidden=(12, 12), dtype=dtype)
        flow.log_prob(z, context)
        flow.to_data(z, context)
    cases.assert_same_bits(z, kept)
    cases.assert_same_bits(context, kept_context)


# --- refusals: arrays -----------------------------------------------------------------------------------------------

ROWS = np.zeros((4, 5), "f4")
# Bad arrays by name: the argument for five features, and words of the message beside the argument's name.
BAD_ARRAYS = {
    "a list of lists of different lengths": ([[0.0] * 5, [0.0]], ["one length"]),
    "a list of words": ([["a"] * 5], ["real numbers", "<U1"]),
    "a number": (1.0, [r"\(\)"]),
    "None": (None, ["None"]),
    "a string": ("rows", ["str"]),
    "half precision": (ROWS.astype("f2"), ["float32", "float16"]),
    "complex numbers": (ROWS.astype("c16"), ["float32", "complex128"]),
    "objects": (ROWS.astype(object), ["float32", "object"]),
    "one axis": (ROWS[0, :4], [r"\(5,\)", r"\(4,\)"]),
    "three axes": (ROWS[None, :, :4], [r"\b5\b", r"\(1, 4, 4\)"]),
    "no axis": (np.float32(1.0) * np.ones((), "f4"), []),
    "too few columns": (ROWS[:, :4], [r"\b5\b", r"\(4, 4\)|\b4\b"]),
    "too many columns": (np.zeros((4, 6), "f4"), [r"\b5\b", r"\(4, 6\)|\b6\b"]),
    "no columns": (np.zeros((4, 0), "f4"), [r"\b5\b", r"\(4, 0\)|\b0\b"]),
}
BAD_CONTEXTS = {
    "none where one is needed": (None, [r"\b3\b"]),
    "complex numbers": (np.zeros((4, 3), complex), ["float32", "complex128"]),
    "objects": (np.zeros((4, 3), object), ["float32", "object"]),
    "three axes": (np.zeros((2, 5, 3)), [r"\b4\b", r"\(2, 5, 3\)"]),
    "too few columns": (np.zeros((4, 2)), [r"\b3\b", r"\(4, 2\)|\b2\b"]),
    "too many columns": (np.zeros((4, 5)), [r"\b3\b", r"\(4, 5\)|\b5\b"]),
    "too few rows": (np.zeros((3, 3)), [r"\b4\b", r"\(3, 3\)|\b3\b"]),
    "too many rows": (np.zeros((8, 3)), [r"\b4\b", r"\(8, 3\)|\b8\b"]),
    "one row too short": (np.zeros(2), [r"\b3\b", r"\(2,\)|\b2\b"]),
    "no rows": (np.zeros((0, 3)), [r"\b4\b", r"\(0, 3\)|\b0\b"]),
}
TRANSFORMS = {
    "MaskedAutoregressive": lambda context: hr.transforms.MaskedAutoregressive(5, (8,), context=context),
    "Coupling": lambda context: hr.transforms.Coupling(5, passive=[0, 1], hidden=(8,), context=context),
    "Inverse": lambda context: hr.transforms.Inverse(hr.transforms.MaskedAutoregressive(5, (8,), context=context)),
    "Permutation": lambda context: hr.transforms.Permutation([1, 0, 3, 2, 4]),
    "Standardize": lambda context: hr.transforms.Standardize(np.zeros(5), np.ones(5)),
}
CONDITIONAL = ("MaskedAutoregressive", "Coupling", "Inverse")


@functools.cache
def calls(context=0):
    """Return, by name, every method that takes rows, with the name of the argument for rows."""
    methods = {}
    for name, build in TRANSFORMS.items():
        if context and name not in CONDITIONAL:
            continue
        methods[f"{name}.forward"] = build(context).forward, "z"
        methods[f"{name}.inverse"] = build(context).inverse, "x"
    flow = hr.MAF(5, context=context, transforms=2, hidden=(8,))
    methods["Flow.log_prob"] = flow.log_prob, "x"
    methods["Flow.to_latent"] = flow.to_latent, "x"
    methods["Flow.to_data"] = flow.to_data, "z"
    return methods


@pytest.mark.parametrize("method", calls())
@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_bad_rows_are_refused(method, bad):
    call, argument = calls()[method]
    array, words = BAD_ARRAYS[bad]
    with pytest.raises((TypeError, ValueError)) as error:
        call(array)
    cases.assert_says(error, rf"\b{argument}\b", *words)


@pytest.mark.parametrize("method", calls(context=3))
@pytest.mark.parametrize("bad", BAD_CONTEXTS)
def test_bad_contexts_are_refused(method, bad):
    call, _ = calls(context=3)[method]
    context, words = BAD_CONTEXTS[bad]
    with pytest.raises((TypeError, ValueError)) as error:
        call(ROWS, context)
    cases.assert_says(error, r"\bcontext\b", *words)


@pytest.mark.parametrize("bad", BAD_CONTEXTS)
def test_bad_contexts_of_a_sample_are_refused(bad):
    flow = hr.MAF(5, context=3, transforms=2, hidden=(8,))
    context, words = BAD_CONTEXTS[bad]
    for verb in (flow.sample, flow.sample_and_log_prob):
        with pytest.raises((TypeError, ValueError)) as error:
            verb(4, context)
        cases.assert_says(error, r"\bcontext\b", *words)


@pytest.mark.parametrize("method", calls())
def test_a_context_that_nothing_reads_is_refused(method):
    call, _ = calls()[method]
    with pytest.raises((TypeError, ValueError), match=r"\bcontext\b"):
        call(ROWS, np.zeros((4, 2), "f4"))


# --- refusals: settings ---------------------------------------------------------------------------------------------

W = [np.ones((4, 3)), np.ones((6, 4))]  # three features, 4 hidden units, two parameters a feature
B = [np.zeros(4), np.zeros(6)]
M = [np.zeros((4, 3), bool), np.zeros((6, 4), bool)]


def from_dense(weights=W, biases=B, masks=M, **keywords):
    return hr.transforms.MaskedAutoregressive.from_dense(weights, biases, masks, **keywords)


def dense_coupling(weights=W, biases=B, masks=None, features=6, passive=(0, 1, 2), **keywords):
    return hr.transforms.Coupling.from_dense(
        weights, biases, masks, features=features, passive=list(passive), **keywords
    )


# Bad settings by name: a call, and words of the message, for the argument, the expected and the given value.
BAD_SETTINGS = {
    "features of zero": (lambda: hr.transforms.MaskedAutoregressive(0), ["features", r"\b0\b"]),
    "features below zero": (lambda: hr.transforms.MaskedAutoregressive(-2), ["features", "-2"]),
    "features of a fraction": (lambda: hr.transforms.MaskedAutoregressive(2.5), ["features", r"2\.5|float"]),
    "features of a string": (lambda: hr.transforms.MaskedAutoregressive("3"), ["features", "'3'|str"]),
    "a hidden layer of zero": (lambda: hr.transforms.MaskedAutoregressive(3, (8, 0)), ["hidden", r"\b0\b"]),
    "a hidden layer below zero": (lambda: hr.transforms.MaskedAutoregressive(3, (-8,)), ["hidden", "-8"]),
    "a hidden layer of a fraction": (lambda: hr.transforms.MaskedAutoregressive(3, (2.5,)), ["hidden", r"2\.5|float"]),
    "hidden of a string": (lambda: hr.transforms.MaskedAutoregressive(3, "64"), ["hidden", "64|str"]),
    "an unknown side": (lambda: hr.transforms.MaskedAutoregressive(3, reads="both"), ["reads", "latent", "both"]),
    "an unknown formula": (lambda: hr.transforms.MaskedAutoregressive(3, formula="up"), ["formula", "to_latent", "up"]),
    "an unknown map": (lambda: hr.transforms.MaskedAutoregressive(3, map="cubic"), ["map", "affine", "cubic"]),
    "an unknown scale": (lambda: hr.transforms.MaskedAutoregressive(3, scale="relu"), ["scale", "soft_clamp", "relu"]),
    "an unknown activation": (
        lambda: hr.transforms.MaskedAutoregressive(3, activation="sin"),
        ["activation", "tanh", "sin"],
    ),
    "a slope of zero": (lambda: hr.transforms.MaskedAutoregressive(3, slope=0.0), ["slope", r"\b0"]),
    "a slope below zero": (lambda: hr.transforms.MaskedAutoregressive(3, slope=-0.5), ["slope", r"-0\.5"]),
    "a slope of one": (lambda: hr.transforms.MaskedAutoregressive(3, slope=1.0), ["slope", r"\b1"]),
    "a slope of NaN": (lambda: hr.transforms.MaskedAutoregressive(3, slope=float("nan")), ["slope", "nan"]),
    "a context below zero": (lambda: hr.transforms.MaskedAutoregressive(3, context=-1), ["context", "-1"]),
    "a context of a fraction": (lambda: hr.transforms.MaskedAutoregressive(3, context=1.5), ["context", r"1\.5|float"]),
    "an integer dtype": (lambda: hr.transforms.MaskedAutoregressive(3, dtype="int32"), ["dtype", "float32", "int32"]),
    "half precision": (lambda: hr.transforms.MaskedAutoregressive(3, dtype="float16"), ["dtype", "float32", "float16"]),
    "an order too short": (
        lambda: hr.transforms.MaskedAutoregressive(3, order=[0, 1]),
        ["order", r"\b3\b", r"\b2\b|\[0, 1\]"],
    ),
    "an order that repeats": (lambda: hr.transforms.MaskedAutoregressive(3, order=[0, 1, 1]), ["order", r"\b1\b"]),
    "an order out of range": (lambda: hr.transforms.MaskedAutoregressive(3, order=[0, 1, 3]), ["order", r"\b3\b"]),
    "an order below zero": (lambda: hr.transforms.MaskedAutoregressive(3, order=[0, 1, -1]), ["order", "-1"]),
    "passive that repeats": (lambda: hr.transforms.Coupling(4, passive=[1, 1]), ["passive", r"\b1\b"]),
    "passive out of range": (lambda: hr.transforms.Coupling(4, passive=[0, 4]), ["passive", r"\b4\b"]),
    "passive below zero": (lambda: hr.transforms.Coupling(4, passive=[-1]), ["passive", "-1"]),
    "passive of fractions": (lambda: hr.transforms.Coupling(4, passive=[0.5]), ["passive", r"0\.5|float"]),
    "coupling, unknown map": (lambda: hr.transforms.Coupling(4, passive=[0], map="cubic"), ["map", "affine", "cubic"]),
    "coupling, unknown scale": (
        lambda: hr.transforms.Coupling(4, passive=[0], scale="no"),
        ["scale", "soft_clamp", "no"],
    ),
    "coupling, integer dtype": (
        lambda: hr.transforms.Coupling(4, passive=[0], dtype="int8"),
        ["dtype", "float32", "int8"],
    ),
    "permutation that repeats": (lambda: hr.transforms.Permutation([0, 0, 1]), ["order", r"\b0\b"]),
    "permutation out of range": (lambda: hr.transforms.Permutation([0, 3, 1]), ["order", r"\b3\b"]),
    "permutation of a number": (lambda: hr.transforms.Permutation(3), ["order", r"\b3\b|int"]),
    "a std of zero": (lambda: hr.transforms.Standardize(np.zeros(2), np.array([1.0, 0.0])), ["std", r"\b0"]),
    "a std below zero": (lambda: hr.transforms.Standardize(np.zeros(2), np.array([1.0, -3.0])), ["std", "-3"]),
    "a std of NaN": (lambda: hr.transforms.Standardize(np.zeros(2), np.array([1.0, np.nan])), ["std", "nan"]),
    "a mean of infinity": (lambda: hr.transforms.Standardize(np.array([np.inf, 0.0]), np.ones(2)), ["mean", "inf"]),
    "mean and std of two lengths": (
        lambda: hr.transforms.Standardize(np.zeros(3), np.ones(2)),
        ["std", r"\b3\b", r"\b2\b"],
    ),
    "inverse of no transform": (lambda: hr.transforms.Inverse("MAF"), ["transform", "str|'MAF'"]),
    "normal, scale of zero": (lambda: hr.Normal(2, 0.0, 0.0), ["scale", r"\b0"]),
    "normal, scale below zero": (lambda: hr.Normal(2, 0.0, np.array([1.0, -3.0])), ["scale", "-3"]),
    "normal, loc too long": (lambda: hr.Normal(2, np.zeros(3)), ["loc", r"\b2\b", r"\b3\b"]),
    "standard normal of nothing": (lambda: hr.StandardNormal(0), ["features", r"\b0\b"]),
    "logistic of a fraction": (lambda: hr.Logistic(1.5), ["features", r"1\.5|float"]),
    "weights of one array": (lambda: from_dense(weights=W[0]), ["weights"]),
    "no weights": (lambda: from_dense([], [], []), ["weights"]),
    "fewer biases than weights": (lambda: from_dense(biases=B[:1]), ["biases", r"\b2\b", r"\b1\b"]),
    "fewer masks than weights": (lambda: from_dense(masks=M[:1]), ["masks", r"\b2\b", r"\b1\b"]),
    "a bias too short": (lambda: from_dense(biases=[B[0][:3], B[1]]), ["biases", r"\b4\b", r"\b3\b"]),
    "a mask of another shape": (
        lambda: from_dense(masks=[M[0], M[1].T]),
        ["masks", r"\(6, 4\)", r"\(4, 6\)"],
    ),
    "a weight of one axis": (lambda: from_dense(weights=[W[0].ravel(), W[1]]), ["weights", r"\(12,\)"]),
    "layers that do not meet": (
        lambda: from_dense([W[0], np.ones((6, 5))], B, [M[0], np.zeros((6, 5), bool)]),
        ["weights", r"\b4\b", r"\b5\b"],
    ),
    "outputs that do not fit": (
        lambda: from_dense([W[0], W[1][:5]], [B[0], B[1][:5]], [M[0], M[1][:5]]),
        ["weights", r"\b6\b", r"\b5\b"],
    ),
    "integer weights": (lambda: from_dense(weights=[w.astype(int) for w in W]), ["weights", "float32", "int64"]),
    "weights of two dtypes": (
        lambda: from_dense(weights=[W[0].astype("f4"), W[1]]),
        ["weights", "float32", "float64"],
    ),
    "more context than columns": (lambda: from_dense(context=4), ["context", r"\b4\b", r"\b3\b"]),
    "an unknown layout": (lambda: from_dense(layout="mixed"), ["layout", "interleaved", "mixed"]),
    "an unknown output": (lambda: from_dense(outputs=("shift", "power")), ["outputs", "scale", "power"]),
    "an output twice": (lambda: from_dense(outputs=("shift", "shift")), ["outputs", "scale", "shift"]),
    "an output too few": (lambda: from_dense(outputs=("shift",)), ["outputs", "scale", "shift"]),
    "from_dense, unknown activation": (lambda: from_dense(activation="sin"), ["activation", "tanh", "sin"]),
    "from_dense, unknown side": (lambda: from_dense(reads="both"), ["reads", "latent", "both"]),
    "dense coupling, wrong columns": (lambda: dense_coupling(passive=(0, 1)), ["weights", r"\b2\b", r"\b3\b"]),
    "dense coupling, wrong rows": (lambda: dense_coupling(features=7), ["weights", r"\b8\b", r"\b6\b"]),
    "dense coupling, passive out of range": (lambda: dense_coupling(passive=(0, 1, 6)), ["passive", r"\b6\b"]),
    "threads of zero": (lambda: hr.set_num_threads(0), [r"\bn\b|threads", r"\b0\b"]),
    "threads below zero": (lambda: hr.set_num_threads(-1), [r"\bn\b|threads", "-1"]),
    "threads of a string": (lambda: hr.set_num_threads("2"), [r"\bn\b|threads", "str|'2'"]),
    "threads of a fraction": (lambda: hr.set_num_threads(1.5), [r"\bn\b|threads", r"1\.5|float"]),
    "MAF of nothing": (lambda: hr.MAF(0), ["features", r"\b0\b"]),
    "MAF of no transforms below zero": (lambda: hr.MAF(3, transforms=-1), ["transforms", "-1"]),
    "IAF of an unknown activation": (lambda: hr.IAF(3, activation="sin"), ["activation", "tanh", "sin"]),
    "planar of nothing": (lambda: hr.transforms.Planar(0), ["features", r"\b0\b"]),
    "planar of too much": (lambda: hr.transforms.Planar(2**30), ["features", str(2**24), str(2**30)]),
    "planar, unknown nonlinearity": (
        lambda: hr.transforms.Planar(3, nonlinearity="relu"),
        ["nonlinearity", "tanh", "relu"],
    ),
    "planar, no slope": (lambda: hr.transforms.Planar(3, negative_slope=0.0), ["negative_slope", r"\b0\b", r"\b1\b"]),
    "planar, steep slope": (lambda: hr.transforms.Planar(3, negative_slope=1.0), ["negative_slope", r"\b0\b", r"1\.0"]),
    "planar, slope of words": (lambda: hr.transforms.Planar(3, negative_slope="flat"), ["negative_slope", "str"]),
    "planar, a layer of nothing": (lambda: hr.transforms.Planar(3, context=2, hidden=(4, 0)), ["hidden", r"\b0\b"]),
    "planar, integer dtype": (lambda: hr.transforms.Planar(3, dtype="int8"), ["dtype", "float32", "int8"]),
    "radial of a fraction": (lambda: hr.transforms.Radial(1.5), ["features", r"1\.5|float"]),
    "radial, context below zero": (lambda: hr.transforms.Radial(3, context=-1), ["context", "-1"]),
    "radial, unknown activation": (lambda: hr.transforms.Radial(3, activation="sin"), ["activation", "tanh", "sin"]),
    "radial, seed of words": (lambda: hr.transforms.Radial(3, seed="x"), ["seed"]),
    "planar flow of no transforms": (lambda: hr.PlanarFlow(3, 0), ["transforms", r"\b0\b"]),
    "radial flow of nothing": (lambda: hr.RadialFlow(0), ["features", r"\b0\b"]),
    "RealNVP of an integer dtype": (lambda: hr.RealNVP(3, dtype="int64"), ["dtype", "float32", "int64"]),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_refused(name):
    call, words = BAD_SETTINGS[name]
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    cases.assert_says(error, *words)


def test_a_refused_number_of_threads_changes_nothing():
    before = hr.get_num_threads()
    with pytest.raises(ValueError, match="-3"):
        hr.set_num_threads(-3)
    assert hr.get_num_threads() == before


# --- refusals: flows and parameters ---------------------------------------------------------------------------------


def masked(features=5, context=0):
    return hr.transforms.MaskedAutoregressive(features, (8,), context=context)


def flow_of(*transforms, base=None):
    return hr.Flow(transforms=list(transforms), base=base or hr.StandardNormal(5))


BAD_FLOWS = {
    "transforms of two widths": (lambda: flow_of(masked(), masked(4)), ["transforms", r"\b5\b", r"\b4\b"]),
    "a permutation of another width": (
        lambda: flow_of(masked(), hr.transforms.Permutation([0, 1, 2])),
        ["transforms", r"\b5\b", r"\b3\b"],
    ),
    "a base of another width": (lambda: flow_of(masked(), base=hr.Logistic(4)), ["base", r"\b5\b", r"\b4\b"]),
    "two widths of context": (
        lambda: flow_of(masked(context=1), masked(context=2)),
        ["context", r"\b1\b", r"\b2\b"],
    ),
    "something else than a transform": (lambda: flow_of(masked(), "MAF"), ["transforms", "str|'MAF'"]),
    "a class instead of a transform": (lambda: flow_of(hr.transforms.Permutation), ["transforms", "type|Permutation"]),
    "no base": (lambda: hr.Flow(transforms=[masked()], base=5), ["base", "int"]),
}


@pytest.mark.parametrize("name", BAD_FLOWS)
def test_bad_flows_are_refused(name):
    call, words = BAD_FLOWS[name]
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    cases.assert_says(error, *words)


BAD_SAMPLES = {
    "a number below zero": ({"n": -1}, [r"\bn\b", "-1"]),
    "a fraction": ({"n": 2.5}, [r"\bn\b", r"2\.5|float"]),
    "a string": ({"n": "5"}, [r"\bn\b", "str|'5'"]),
    "a seed of a string": ({"n": 5, "seed": "a"}, ["seed", "numpy.random.Generator or None", "str|'a'"]),
    "a seed of a fraction": ({"n": 5, "seed": 1.5}, ["seed", r"1\.5|float"]),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_are_refused(name):
    flow = flow_of(masked())
    arguments, words = BAD_SAMPLES[name]
    for verb in (flow.sample, flow.sample_and_log_prob):
        with pytest.raises((TypeError, ValueError)) as error:
            verb(**arguments)
        cases.assert_says(error, *words)


@pytest.mark.parametrize("kind", ["transform", "flow"])
def test_bad_parameters_are_refused_and_change_nothing(kind):
    holder = (
        masked() if kind == "transform" else flow_of(masked(), hr.transforms.Permutation([4, 3, 2, 1, 0]), masked())
    )
    cases.randomise(holder)
    kept, size = holder.parameters, holder.parameters.size
    for bad, words in [
        (np.zeros(size + 1, "f4"), [rf"\b{size}\b", rf"\b{size + 1}\b"]),
        (np.zeros(size - 1, "f4"), [rf"\b{size}\b", rf"\b{size - 1}\b"]),
        (np.zeros((1, size), "f4"), [rf"\b{size}\b"]),
        (np.zeros(size, complex), ["complex128"]),
        (np.zeros(size, object), ["object"]),
        (None, ["None"]),
    ]:
        with pytest.raises((TypeError, ValueError)) as error:
            holder.parameters = bad
        cases.assert_says(error, "parameters", *words)
    cases.assert_same_bits(holder.parameters, kept)


@pytest.mark.parametrize("kind", ["transform", "flow"])
def test_bad_named_parameters_are_refused_and_change_nothing(kind):
    holder = masked() if kind == "transform" else flow_of(masked(), masked())
    cases.randomise(holder)
    kept = holder.parameters
    name, array = next((n, a) for n, a in holder.named_parameters().items() if a.ndim == 2)
    rows, columns = array.shape
    with pytest.raises((KeyError, ValueError)) as error:
        holder.set_parameter("nothing of that name", array)
    cases.assert_says(error, "nothing of that name", name)
    for bad, words in [
        (array[:-1], [rf"\({rows}, {columns}\)", rf"\({rows - 1}, {columns}\)"]),
        (array.T, [rf"\({rows}, {columns}\)", rf"\({columns}, {rows}\)"]),
        (array.astype(complex), ["complex128"]),
        (None, ["None"]),
    ]:
        with pytest.raises((TypeError, ValueError)) as error:
            holder.set_parameter(name, bad)
        cases.assert_says(error, *words)
    cases.assert_same_bits(holder.parameters, kept)


@pytest.mark.parametrize("dtype", ["int32", "float16", "double precision"])
def test_a_flow_of_another_dtype_is_refused(dtype):
    flow = flow_of(masked())
    with pytest.raises((TypeError, ValueError), match="dtype"):
        flow.astype(dtype)
    assert np.dtype(flow.dtype) == np.float32


@pytest.mark.parametrize("index", [0.5, "all", None])
def test_a_flow_is_not_cut_at_something_else_than_a_number(index):
    flow = flow_of(masked(), masked())
    with pytest.raises((TypeError, ValueError)):
        flow[:index] if index is not None else flow[None]


@pytest.mark.parametrize("name", ["with_log_prob", "verb"])
def test_drawing_takes_its_documented_keywords_alone(name):
    flow = hr.MAF(2, transforms=1, hidden=(4,))
    for draw in (flow.sample, flow.sample_and_log_prob):
        with pytest.raises(TypeError, match=f"{name}: expected a keyword of MAF.{draw.__name__} "):
            draw(3, **{name: True})
