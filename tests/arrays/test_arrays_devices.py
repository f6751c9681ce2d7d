"""Arrays of other libraries: memory of a device is never touched, and memory of the CPU is read in place."""

import numpy as np
import pytest

import cases
import headrace as hr

FLOW = cases.randomise(hr.MAF(4, context=2, transforms=2, hidden=(12, 12)))
X, CONTEXT = cases.rows(6, 4, "float32"), cases.rows(6, 2, "float32", "context")


class Foreign:
    """An array of another library, on a device that it names, which records all requests."""

    def __init__(self, array, device):
        self.array, self.device, self.asked = array, device, []

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype

    def __dlpack_device__(self):
        self.asked.append("device")
        return self.device

    def __dlpack__(self, **keywords):
        self.asked.append(("memory", keywords))
        assert self.device[0] == 1, "device memory was touched"
        return self.array.__dlpack__(**keywords)

    def __array__(self, *arguments, **keywords):
        self.asked.append("copy")
        raise AssertionError("a copy was made behind the caller's back")


class DeviceArray(Foreign):
    """An array that also has CUDA's interface, like those of CuPy and others."""

    @property
    def __cuda_array_interface__(self):
        self.asked.append("address")
        raise AssertionError("device memory was touched")


class OldDeviceArray:
    """An array that has only CUDA's interface, like those of Numba."""

    def __init__(self):
        self.asked = []

    @property
    def __cuda_array_interface__(self):
        self.asked.append("address")
        raise AssertionError("device memory was touched")


DEVICES = {
    (2, 0): "CUDA device 0",
    (2, 3): "CUDA device 3",
    (13, 1): "managed CUDA device 1",
    (3, 0): "pinned CUDA device 0",
    (10, 2): "ROCm device 2",
    (8, 0): "Metal device 0",
    (99, 0): "DLPack type 99 device 0",
}


def calls(array):
    """Name of the argument -> a call with the array for it; shapes do not matter, because values may not be read."""
    row, vector = np.ones(6, "f4"), np.zeros(FLOW.parameters.size, "f4")
    adam, params = hr.Adam(FLOW), np.zeros((6, 4, 2), "f4")

    def assign():
        FLOW.parameters = array

    return {
        "x": lambda: FLOW.log_prob(array, CONTEXT),
        "context": lambda: FLOW.sample(6, array),
        "z": lambda: FLOW.transforms[0].forward(array, CONTEXT),
        "parameters": assign,
        "grad_log_prob": lambda: FLOW.log_prob_vjp(X, array, CONTEXT),
        "grad_x": lambda: FLOW.to_data_vjp(X, array, row, CONTEXT),
        "weights": lambda: FLOW.fit(X, CONTEXT, weights=array, progress=False),
        "validation x": lambda: FLOW.fit(X, CONTEXT, validation=array, progress=False),
        "gradient": lambda: adam.step(array),
        "params": lambda: hr.ops.coupling(X, array),
        "value": lambda: hr.ops.coupling_vjp(array, params, X, row),
        "out": lambda: FLOW.log_prob(X, CONTEXT, parameters=vector, out=array),
        "out[1]": lambda: FLOW.to_data(X, CONTEXT, out=(np.empty((6, 4), "f4"), array)),
    }


@pytest.mark.parametrize("kind", [Foreign, DeviceArray])
@pytest.mark.parametrize("device", DEVICES)
def test_arrays_on_a_device_are_refused_by_its_name_and_never_touched(kind, device):
    kept = FLOW.parameters
    array = kind(X, device)
    for name, call in calls(array).items():
        array.asked.clear()
        with pytest.raises(TypeError) as error:
            call()
        message = str(error.value)
        for word in (f"{name}:", kind.__name__, f"on {DEVICES[device]};", "on the CPU", f"cupy.asnumpy({name})"):
            assert word in message, message
        assert set(array.asked) == {"device"}
    cases.assert_same_bits(FLOW.parameters, kept)


def test_arrays_with_cudas_interface_alone():
    array = OldDeviceArray()
    for name, call in calls(array).items():
        with pytest.raises(TypeError) as error:
            call()
        for word in (f"{name}:", "OldDeviceArray", "on a CUDA device;", f"cupy.asnumpy({name})"):
            assert word in str(error.value), error.value
    assert array.asked == []


def test_arrays_of_the_cpu_are_read_where_they_lie(dtype):
    flow = cases.randomise(hr.MAF(4, context=2, transforms=2, hidden=(12, 12), dtype=dtype))
    x, context = cases.rows(30, 4, dtype), cases.rows(30, 2, dtype, "context")
    want = flow.to_data(x, context)
    for kind in (Foreign, DeviceArray):
        foreign = kind(x[:, ::-1], (1, 0)), kind(context, (1, 0))
        got = flow.to_data(kind(x, (1, 0)), foreign[1])
        for result, expected in zip(got, want, strict=True):
            assert type(result) is np.ndarray
            cases.assert_same_bits(result, expected)
        opened = hr._arrays.caller.Caller().open("x", foreign[0])
        assert opened.ctypes.data == x[:, ::-1].ctypes.data
        assert opened.strides == x[:, ::-1].strides


def test_arrays_of_the_cpu_are_asked_for_no_stream():
    """A stream belongs to a device: its argument is absent, or None."""
    array = DeviceArray(X, (1, 0))
    FLOW.log_prob(array, CONTEXT)
    requests = [asked[1] for asked in array.asked if isinstance(asked, tuple)]
    assert len(requests) == 1
    assert requests[0].get("stream") is None
    assert not requests[0].get("copy")


def test_a_context_of_one_row_gets_a_gradient_of_one_row():
    context, row = np.ones(2, "f4"), np.ones(6, "f4")
    (got,) = FLOW.log_prob_vjp(X, row, Foreign(context, (1, 0)), wrt="context")
    (want,) = FLOW.log_prob_vjp(X, row, context, wrt="context")
    assert got.shape == (2,)
    cases.assert_same_bits(got, want)


def test_foreign_arrays_go_with_those_of_numpy_alone():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(TypeError) as error:
        FLOW.log_prob(torch.ones(6, 4), Foreign(CONTEXT, (1, 0)))
    cases.assert_says(error, "^context:", "PyTorch", "Foreign", r"torch\.asarray\(np\.from_dlpack\(context\)\)")


@pytest.mark.parametrize("error", [BufferError, RuntimeError, TypeError, ValueError])
def test_an_array_that_does_not_give_its_memory_is_refused(error):
    class Closed(Foreign):
        def __dlpack__(self, **keywords):
            raise error("it is lent to somebody else")

    with pytest.raises(TypeError) as caught:
        FLOW.log_prob(Closed(X, (1, 0)), CONTEXT)
    cases.assert_says(caught, "^x:", "Closed", "DLPack", "lent to somebody else", r"np\.asarray\(x")


def test_foreign_arrays_of_other_types_are_refused():
    with pytest.raises(TypeError) as error:
        FLOW.log_prob(Foreign(X.astype(complex), (1, 0)), CONTEXT)
    cases.assert_says(error, "^x:", "float32 or float64", "complex128")
    with pytest.raises(TypeError) as error:
        FLOW.log_prob(X, CONTEXT, out=Foreign(np.empty(6, "f4"), (1, 0)))
    cases.assert_says(error, "^out:", "NumPy array or a PyTorch tensor", "Foreign")
