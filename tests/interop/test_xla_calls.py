"""The answers of a handler of compiled code to a call with wrong arguments, and to XLA's question about its version."""

import ctypes

import numpy as np
import pytest

import headrace as hr
from headrace import _cpu

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

import headrace.jax as hj  # noqa: E402


def call(name, arrays, results, **attributes):
    run = jax.ffi.ffi_call(f"headrace_{name}_float32", results)
    return jax.block_until_ready(run(*arrays, **attributes))


def shape(*lengths, dtype="float32"):
    return jax.ShapeDtypeStruct(lengths, dtype)


@pytest.fixture
def structure():
    return hj.structure(hr.MAF(2, transforms=1, hidden=(4,), seed=0))


def arguments(structure):
    x, none = jnp.ones((3, 2), "float32"), jnp.zeros((0,), "float32")
    attributes = {"handle": np.int64(structure.handle), "inverse": True, "base": True}
    return (none, x, jnp.zeros((1, 0), "float32")), attributes


def test_a_fitting_call_is_made(structure):
    arrays, attributes = arguments(structure)
    _, row = call("run", arrays, (shape(0), shape(3)), **attributes)
    np.testing.assert_array_equal(row, structure.flow.log_prob(np.ones((3, 2), "float32")))


def test_a_call_with_another_number_of_arrays_is_refused(structure):
    arrays, attributes = arguments(structure)
    with pytest.raises(Exception, match="expected 3 arguments and 2 results, got 2 and 2"):
        call("run", arrays[:2], (shape(0), shape(3)), **attributes)
    with pytest.raises(Exception, match="expected 3 arguments and 2 results, got 3 and 1"):
        call("run", arrays, (shape(3),), **attributes)


def test_an_attribute_that_is_missing_or_of_another_type_is_named(structure):
    arrays, attributes = arguments(structure)
    with pytest.raises(Exception, match="the attribute base is missing"):
        call("run", arrays, (shape(0), shape(3)), **{k: v for k, v in attributes.items() if k != "base"})
    with pytest.raises(Exception, match="the attribute handle is missing, or of another type"):
        call("run", arrays, (shape(0), shape(3)), **attributes | {"handle": np.int32(1)})


def test_an_array_of_another_dtype_is_refused(structure):
    (params, x, context), attributes = arguments(structure)
    with pytest.raises(Exception, match="array 1: expected a buffer of this call's dtype"):
        call("run", (params, x.astype("int32"), context), (shape(0), shape(3)), **attributes)


class Version(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("ext", ctypes.c_void_p), ("major", ctypes.c_int), ("minor", ctypes.c_int)]


class Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version", Version), ("traits", ctypes.c_uint32)]


class Question(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("type", ctypes.c_int32),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(Metadata)),
    ]


class Functions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("ext", ctypes.c_void_p), ("version", Version)]


class Frame(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("ext", ctypes.POINTER(Question)), ("functions", ctypes.POINTER(Functions))]


@pytest.mark.parametrize(("of_xla", "answer"), [(0, 1), (1, 1), (2, 2), (3, 3), (9, 3)])
@pytest.mark.parametrize("name", ["run_float32", "gradient_float64", "elsewhere"])
def test_a_handler_answers_with_a_version_that_it_and_xla_support(of_xla, answer, name):
    capsule = _cpu.xla_handlers[name]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Frame))(pointer(capsule, None))
    metadata = Metadata(version=Version(major=7, minor=7), traits=9)
    question = Question(type=1, metadata=ctypes.pointer(metadata))
    functions = Functions(version=Version(major=0, minor=of_xla))
    assert not handler(Frame(ext=ctypes.pointer(question), functions=ctypes.pointer(functions)))
    assert (metadata.version.major, metadata.version.minor, metadata.traits) == (0, answer, 0)
