"""Arrays of every layout, and calls that the C library refuses by a code and a message that names the argument."""

import ctypes
import subprocess
import sys
import threading

import numpy as np
import pytest

import c_library
import cases
import headrace as hr
from c_library import Refused, View, view
from headrace import files


@pytest.fixture(scope="module", params=cases.DTYPES)
def flow(request):
    return cases.randomise(hr.NSF(3, 2, transforms=2, hidden=(8,), dtype=request.param), 0.2, "c calls")


@pytest.fixture(scope="module")
def handle(library, flow):
    return library.open(files.to_bytes(flow))


@pytest.fixture(scope="module")
def x():
    return cases.rows(50, 3, "float64", "c calls")


@pytest.fixture(scope="module")
def context():
    return cases.rows(50, 2, "float64", "c contexts")


def spread(array, row=1, column=1, reverse=False):
    """Equal values in memory with gaps, or in reverse order."""
    n, m = array.shape
    big = np.full((row * n, column * m), 99, array.dtype)
    out = big[::row, ::column]
    out = out[::-1] if reverse else out
    out[...] = array
    return out


LAYOUTS = {
    "rows apart": lambda a: spread(a, row=3),
    "columns apart": lambda a: spread(a, column=2),
    "both apart, from the end": lambda a: spread(a, 2, 3, reverse=True),
    "column by column": np.asfortranarray,
    "one of many": lambda a: np.concatenate([a, a, a], axis=1)[:, a.shape[1] : 2 * a.shape[1]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_rows_are_read_and_written_in_any_layout(handle, x, context, layout, dtype):
    own = handle.dtype
    x, context = x.astype(dtype), context.astype(dtype)
    want = [handle.log_prob(x, context), *handle.to_latent(x, context), *handle.gradient(x, context)]
    given, c = LAYOUTS[layout](x), LAYOUTS[layout](context)
    log_prob = LAYOUTS[layout](np.zeros((50, 1), own))
    handle.call("log_prob", given, c, log_prob)
    np.testing.assert_array_equal(log_prob[:, 0], want[0])
    z, log_det = LAYOUTS[layout](np.zeros((50, 3), own)), LAYOUTS[layout](np.zeros((50, 1), own))
    handle.call("to_latent", given, c, z, log_det)
    np.testing.assert_array_equal(z, want[1])
    np.testing.assert_array_equal(log_det[:, 0], want[2])
    by_x, by_c = LAYOUTS[layout](np.zeros((50, 3), own)), LAYOUTS[layout](np.zeros((50, 2), own))
    handle.call("gradient", given, c, log_prob, by_x, by_c)
    np.testing.assert_array_equal(by_x, want[4])
    np.testing.assert_array_equal(by_c, want[5])


def test_values_between_the_strides_do_not_change(handle, x, context):
    big = np.full((50, 7), 99, handle.dtype)
    handle.call("to_latent", x, context, big[:, 1:6:2], None)
    assert (big[:, ::2] == 99).all()
    np.testing.assert_array_equal(big[:, 1:6:2], handle.to_latent(x, context)[0])


def test_one_row_may_be_the_input_of_all(handle, x, context):
    repeated = np.broadcast_to(x[:1], (50, 3))
    np.testing.assert_array_equal(handle.log_prob(repeated, context), handle.log_prob(repeated.copy(), context))
    backwards = x[::-1]
    np.testing.assert_array_equal(handle.log_prob(backwards, context), handle.log_prob(x[::-1].copy(), context))


def test_results_in_double_of_a_model_of_float(library, x, context):
    flow = cases.randomise(hr.MAF(3, 2, transforms=1, hidden=(8,)), 0.2, "c wide")
    handle = library.open(files.to_bytes(flow))
    for dtype in cases.DTYPES:
        out = np.zeros(50, dtype)
        handle.call("log_prob", x, context, out)
        np.testing.assert_array_equal(out, flow.log_prob(x, context))
    z, wide = np.zeros((50, 3)), np.zeros((50, 3))
    handle.call("to_latent", x, context, z, None)
    np.testing.assert_array_equal(z, flow.to_latent(x, context)[0])
    handle.call("to_data", z, context, wide, None)
    np.testing.assert_array_equal(wide.astype("float32"), flow.to_data(z, context)[0])


def test_a_result_may_replace_its_input(handle, x, context):
    z = handle.to_latent(x.astype(handle.dtype), context)[0]
    for make in (np.ascontiguousarray, np.asfortranarray, lambda a: spread(a, 2, 2)):
        place = make(x.astype(handle.dtype))
        handle.call("to_latent", place, context, place, None)
        np.testing.assert_array_equal(place, z)
    memory = np.zeros(156, handle.dtype)  # the output begins one row later, or one value later
    for shift in (1, 3, 5):
        memory[:150] = x.astype(handle.dtype).ravel()
        handle.call("to_latent", memory[:150].reshape(50, 3), context, memory[shift : shift + 150].reshape(50, 3), None)
        np.testing.assert_array_equal(memory[shift : shift + 150].reshape(50, 3), z)


def test_no_rows_are_no_error(handle):
    none = np.zeros((0, 3), handle.dtype)
    handle.call("log_prob", none, np.zeros((0, 2)), np.zeros(0, handle.dtype))
    handle.call("to_data", none, np.zeros((1, 2)), none, np.zeros(0, handle.dtype))
    handle.call("gradient", none, np.zeros((1, 2)), None, none, None)
    handle.draw(1, -1, np.zeros((1, 2)), none, None)


def with_(array, **changes):
    """A copy of a view with changed members."""
    changed = view(array)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


FAR = 2**61
REFUSALS = {
    "no rows given": (lambda x, c, out: (None, c, out), "BAD_ARGUMENT", "x: expected rows, got NULL"),
    "no place for results": (lambda x, c, out: (x, c, None), "BAD_ARGUMENT", "log_prob: expected memory, got NULL"),
    "null data": (
        lambda x, c, out: (with_(x, data=None), c, out),
        "BAD_ARGUMENT",
        "x: data: expected memory, got NULL",
    ),
    "null results": (lambda x, c, out: (x, c, with_(out, data=None)), "BAD_ARGUMENT", "log_prob: data: expected mem"),
    "columns": (lambda x, c, out: (x[:, :2], c, out), "BAD_ARGUMENT", "x: expected 3 columns, got 2"),
    "negative rows": (lambda x, c, out: (with_(x, rows=-1), c, out), "BAD_ARGUMENT", "x: rows: expected at least 0"),
    "fewer results": (lambda x, c, out: (x, c, out[:49]), "BAD_ARGUMENT", "log_prob: expected 50 rows, got 49"),
    "a dtype": (lambda x, c, out: (with_(x, dtype=7), c, out), "BAD_DTYPE", "x: dtype: expected HEADRACE_FLOAT32 or"),
    "no dtype": (lambda x, c, out: (x, c, with_(out, dtype=0)), "BAD_DTYPE", "log_prob: dtype: expected .*, got 0"),
    "no context": (lambda x, c, out: (x, None, out), "BAD_CONTEXT", "context: expected 2 columns, got NULL"),
    "context columns": (lambda x, c, out: (x, x, out), "BAD_CONTEXT", "context: expected 2 columns, got 3"),
    "context rows": (lambda x, c, out: (x, c[:7], out), "BAD_CONTEXT", "context: expected 1 row or 50, got 7"),
    "far strides": (lambda x, c, out: (with_(x, row_stride=FAR), c, out), "BAD_ARGUMENT", "x: expected strides with"),
    "far columns": (lambda x, c, out: (with_(x, column_stride=-FAR), c, out), "BAD_ARGUMENT", "x: expected strides w"),
    "one place for all": (lambda x, c, out: (x, c, with_(out, row_stride=0)), "OVERLAP", "log_prob: expected strides"),
    "unaligned": (lambda x, c, out: (with_(x, data=x.ctypes.data + 1), c, out), "BAD_ARGUMENT", "x: data: .* aligned"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_arguments_have_a_code_and_a_message(handle, x, context, name):
    given, code, message = REFUSALS[name]
    out = np.full(50, 77, handle.dtype)
    with pytest.raises(Refused, match=message) as refused:
        handle.call("log_prob", *given(x, context, out))
    assert refused.value.code == code
    assert (out == 77).all()


@pytest.mark.parametrize(
    "overlap",
    [
        lambda m: (m[:150].reshape(50, 3), m[149:199]),
        lambda m: (m[:150].reshape(50, 3), m[:150:3]),
        lambda m: (m.reshape(50, 4)[:, :3], m.reshape(50, 4)[:, 2]),
        lambda m: (View(m.ctypes.data, 50, 3, 2, 1, c_library.DTYPES[m.dtype]), None),
        lambda m: (View(m.ctypes.data, 50, 3, 1, 49, c_library.DTYPES[m.dtype]), None),
    ],
)
def test_results_that_overlap_are_refused(handle, x, context, overlap):
    memory = np.zeros(200, handle.dtype)
    with pytest.raises(Refused) as refused:
        handle.call("to_latent", x, context, *overlap(memory))
    assert refused.value.code == "OVERLAP"
    assert not memory.any()


def test_columns_of_one_table_do_not_overlap(handle, x, context):
    table = np.zeros((50, 4), handle.dtype)
    handle.call("to_latent", x, context, table[:, :3], table[:, 3])
    for got, want in zip((table[:, :3], table[:, 3]), handle.to_latent(x, context), strict=True):
        np.testing.assert_array_equal(got, want)


def test_float_results_of_a_model_of_double_are_refused(library, x):
    handle = library.open(files.to_bytes(hr.MAF(3, transforms=1, hidden=(4,), dtype="float64")))
    with pytest.raises(Refused, match="log_prob: expected HEADRACE_FLOAT64, as the model is") as refused:
        handle.call("log_prob", x, None, np.zeros(50, "float32"))
    assert refused.value.code == "BAD_DTYPE"
    with pytest.raises(Refused, match="context: expected NULL, because the model takes none"):
        handle.call("log_prob", x, x, np.zeros(50))
    with pytest.raises(Refused, match="by_context: expected NULL"):
        handle.call("gradient", x, None, None, None, np.zeros((50, 1)))


def test_verbs_that_a_model_lacks(library, x):
    alone = library.open(files.to_bytes(hr.transforms.Standardize([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])))
    assert alone.dtype is None
    assert not alone.has_density
    for dtype in cases.DTYPES:  # results have the dtype of the input
        z = np.zeros((50, 3), dtype)
        alone.call("to_latent", x.astype(dtype), None, z, None)
        np.testing.assert_array_equal(
            z, hr.transforms.Standardize([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).inverse(x.astype(dtype))[0]
        )
    several = library.open(files.to_bytes(hr.Ensemble([hr.MAF(3, transforms=1, hidden=(4,))] * 2)))
    assert several.is_ensemble
    out = np.zeros((50, 3))
    for own, verb, arrays in (
        (alone, "log_prob", (x, None, out[:, 0])),
        (alone, "gradient", (x, None, None, out, None)),
        (several, "to_latent", (x, None, out, None)),
        (several, "to_data", (x, None, out, None)),
        (several, "gradient", (x, None, None, out, None)),
    ):
        with pytest.raises(Refused, match="flow: expected") as refused:
            own.call(verb, *arrays)
        assert refused.value.code == "NO_SUCH_VERB"
    with pytest.raises(Refused, match="flow: expected a density"):
        alone.draw(1, -1, None, out, None)


@pytest.mark.parametrize("first", [-2, 2**63 - 50])
def test_wrong_first_rows_are_refused(handle, context, first):
    with pytest.raises(Refused, match="first_row: expected HEADRACE_FROM_START") as refused:
        handle.sample(50, 1, context, first)
    assert refused.value.code == "BAD_ARGUMENT"


def test_null_handles_and_pointers(library, x):
    functions = library.functions
    for name in ("features", "context", "dtype_of", "has_density", "is_ensemble"):
        assert getattr(functions, f"headrace_{name}")(None) == 0
    functions.headrace_close(None)
    assert functions.headrace_log_prob(None, None, None, None) == c_library.CODES["BAD_ARGUMENT"]
    assert library.message() == "flow: expected a handle, got NULL"
    assert functions.headrace_open(b"a", None) == c_library.CODES["BAD_ARGUMENT"]
    assert library.message() == "flow: expected where to put a handle, got NULL"
    handle = ctypes.c_void_p(1)
    assert functions.headrace_open(None, ctypes.byref(handle)) == c_library.CODES["BAD_ARGUMENT"]
    assert functions.headrace_open_bytes(None, ctypes.c_size_t(9), ctypes.byref(handle)) == 1
    assert handle.value is None


def test_each_thread_has_a_message_of_its_own(library, handle, x, context):
    with pytest.raises(Refused):
        handle.call("log_prob", None, context, None)
    found = []

    def fail():
        found.append(library.message())
        with pytest.raises(Refused):
            handle.call("log_prob", x, None, None)
        found.append(library.message())

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert found == ["", "log_prob: expected memory, got NULL"]
    assert library.message() == "x: expected rows, got NULL"


def test_threads_on_one_handle_have_equal_results(handle, x, context):
    many, c = np.tile(x, (40, 1)), np.tile(context, (40, 1))
    want = handle.log_prob(many, c), handle.sample(2000, 5, c)
    wrong = []

    def compute():
        for _ in range(10):
            got = handle.log_prob(many, c), handle.sample(2000, 5, c)
            if any((a != b).any() for a, b in zip(got, want, strict=True)):
                wrong.append(got)

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_are_counted_and_set_with_those_of_the_module(library):
    if not c_library.is_shared():
        pytest.skip("the module has a core of its own")
    before = hr.get_num_threads()
    try:
        library.functions.headrace_set_num_threads(3)
        assert hr.get_num_threads() == library.functions.headrace_get_num_threads() == 3
    finally:
        hr.set_num_threads(before)


def test_an_unknown_instruction_set_is_a_code(tmp_path):
    """The call is made in another process, because the instruction set is chosen once a process."""
    hr.MAF(2, transforms=1, hidden=(4,)).save(tmp_path / "a.safetensors")
    code = (
        "import ctypes, sys\n"
        "library, handle = ctypes.CDLL(sys.argv[1]), ctypes.c_void_p()\n"
        "library.headrace_message.restype = ctypes.c_char_p\n"
        "print(library.headrace_open(sys.argv[2].encode(), ctypes.byref(handle)), library.headrace_message().decode())"
    )
    run = [sys.executable, "-c", code, str(c_library.PATH), str(tmp_path / "a.safetensors")]
    out = subprocess.run(
        run, capture_output=True, text=True, check=True, env={**c_library.environment(), "HEADRACE_ISA": "v9"}
    )
    assert out.stdout.startswith("10 HEADRACE_ISA")
