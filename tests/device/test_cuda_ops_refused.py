"""Refusals of coupling and vector maps, the operations of `headrace.ops`, have the CPU's messages on a device."""

import numpy as np
import pytest

import map_cases
from headrace import _core
from vector_cases import batch

# For each operation, the arguments that are not arrays.
PLAIN = {"coupling": ["affine", "soft_clamp", 1e-3, 5.0, 2, False], "vector_map": ["planar", "tanh", 0.2, False]}


def arrays_of_backward(name, per_row=True):
    """The arrays for 4 rows and 3 features: values, params, grad_value, grad_log_det, grad_input, grad_params."""
    if name == "coupling":
        given = map_cases.gradient_batch(4, 3, "affine", "float32")
    else:
        given = batch("planar", 4, 3, "float32", per_row=per_row)
    return [*given, np.empty_like(given[0]), np.empty_like(given[1])]


def refused():
    """The faults of each operation, by name: the index of an argument of the backward operation, and a wrong value."""
    found = {}
    for name, first in (("coupling", 6), ("vector_map", 4)):
        values, params, grad_value, grad_log_det, *_ = arrays_of_backward(name)
        found |= {
            (name, "an unknown map"): (0, "cubic"),
            (name, "an unknown function"): (1, "relu"),
            (name, "values of one axis"): (first, values[0].copy()),
            (name, "grad_value of another shape"): (first + 2, grad_value[:, :2].copy()),
            (name, "grad_log_det too short"): (first + 3, grad_log_det[:3].copy()),
            (name, "grad_input of another shape"): (first + 4, np.empty((3, 4), "f4")),
        }
        if name == "coupling":
            found |= {
                (name, "a slope of one"): (2, 1.0),
                (name, "a slope of NaN"): (2, np.nan),
                (name, "a bound of zero"): (3, 0.0),
                (name, "one bin"): (4, 1),
                (name, "values of fewer rows"): (6, values[:3].copy()),
                (name, "params of two axes"): (7, params[:, 0].copy()),
                (name, "params of another map"): (7, params[..., :1].copy()),
                (name, "grad_params of another shape"): (11, np.empty((4, 3), "f4")),
            }
        else:
            found |= {
                (name, "a slope of zero"): (2, 0.0),
                (name, "values of no features"): (4, values[:, :0].copy()),
                (name, "params of fewer rows"): (5, params[:3].copy()),
                (name, "params of another map"): (5, params[:, :5].copy()),
                (name, "one set that is too long"): (5, np.zeros(8, "f4")),
                (name, "grad_params of one set"): (9, np.empty(7, "f4")),
            }
    return found


def call(device, verb, plain, arrays, index=None):
    """Call an operation of a device's module, with arrays in the module's form."""
    where = {"device": device.index if index is None else index, "stream": device.stream}
    return getattr(device.module, verb)(*plain, *arrays, **where)


@pytest.mark.parametrize(("name", "what"), refused(), ids=lambda part: part)
def test_refusals_have_the_words_of_the_cpu(device, name, what):
    place, wrong = refused()[name, what]
    arguments = [*PLAIN[name], *arrays_of_backward(name)]
    arguments[place] = wrong
    with pytest.raises(ValueError, match=r"\w") as by_cpu:
        getattr(_core.cpu, f"{name}_backward")(*arguments)
    count = len(PLAIN[name])
    arrays = [device.array(array) for array in arguments[count:]]
    with pytest.raises(ValueError, match=r"\w") as by_device:
        call(device, f"{name}_backward", arguments[:count], map(device.tuple, arrays))
    assert str(by_device.value) == str(by_cpu.value)


@pytest.mark.parametrize("name", PLAIN)
def test_the_device_of_the_arrays_is_made_current(device, name):
    """The error for a device that does not exist shows that the call makes the device current."""
    x = device.array(np.zeros((3, 2)))
    params = device.array(np.zeros((3, 2, 2) if name == "coupling" else 5))
    arrays = [x, params, x, device.empty(3, "f8"), x, params]
    for verb, given in ((name, arrays[:4]), (f"{name}_backward", arrays)):
        with pytest.raises(device.module.CudaError, match="device: invalid device ordinal"):
            call(device, verb, PLAIN[name], map(device.tuple, given), index=99)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize(("name", "per_row"), [("coupling", True), ("vector_map", True), ("vector_map", False)])
def test_arrays_of_another_kind_are_refused(device, place, name, per_row):
    arrays = [device.array(array) for array in arrays_of_backward(name, per_row)]
    shape, dtype = arrays[place].shape, arrays[place].dtype
    wrong = {
        "another dtype": device.empty(shape, np.float64),
        "integers": device.empty(shape, np.int64),
        "a step": device.empty((*shape, 2), dtype)[..., 0],
    }
    address, *rest = device.tuple(arrays[place])
    for bad in (*map(device.tuple, wrong.values()), (address + 1, *rest)):
        tuples = [bad if i == place else device.tuple(array) for i, array in enumerate(arrays)]
        with pytest.raises(ValueError, match="aligned"):
            call(device, f"{name}_backward", PLAIN[name], tuples)
