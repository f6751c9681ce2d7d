"""Errors for arrays of a wrong type, dtype, shape, layout or device, with all texts of such errors.

Each function of this module returns an error, which its caller raises. Messages have the argument's name, the expected
and the given array and, if possible, a call that converts the given array.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def argument_of(name: str) -> str:
    """The argument's name at the start of an array's name, such as x of "x in the block from row 0 on"."""
    return name.partition(" in the ")[0]


def type_of(value: Any) -> str:
    """The name of an array's type with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


# ---- kinds and dtypes ------------------------------------------------------------------------------------------------


def wrong_kind(name: str, expected: str, got: str, advice: str = "") -> TypeError:
    """The error for an object that is no array, or no array of the expected library."""
    return TypeError(f"{name}: expected {expected}, got {got}{advice and f'; {advice}'}")


def wrong_framework(name: str, expected: str, first: str, got: str, call: str) -> TypeError:
    """The error for an array whose framework differs from that of the call's argument `first`."""
    return wrong_kind(name, f"{expected}, as for {first}", got, f"call {call}")


def unreadable(name: str, reader: str, value: Any, error: Exception, advice: str = "") -> TypeError:
    """The error for an object that `reader`, NumPy or CuPy, cannot read through DLPack."""
    got = f"{type_of(value)}, which it cannot read through DLPack ({error})"
    return wrong_kind(name, f"an array that {reader} can read", got, advice)


def wrong_dtype(name: str, dtype: Any, call: str = "", expected: str = "dtype float32 or float64") -> TypeError:
    """The error for values of a wrong dtype; `call`: code that converts the argument {}."""
    own, text = argument_of(name), str(dtype)
    if text.startswith(("<U", "<S", "|S")):
        return wrong_kind(name, expected, text, "text has to become numbers first")
    advice = call and f"call {call.format(own)} if that is meant"
    if labels := labels_advice(own, text):
        advice += f", or {labels}"
    return wrong_kind(name, expected, text, advice)


def too_wide_for_jax(name: str, of: str) -> str:
    """The message for float64 if JAX is limited to 32 bits; `of` names the object whose dtype is float64."""
    return (
        f"{name}: expected a dtype that JAX can hold, got float64 while jax_enable_x64 is off; call "
        f"jax.config.update('jax_enable_x64', True), or .astype('float32') of the {of}"
    )


# ---- shapes and layouts ----------------------------------------------------------------------------------------------


def wrong_shape(name: str, expected: str | tuple[int, ...], got: str | Iterable[int], advice: str = "") -> ValueError:
    """The error for an array of a wrong shape; `got`: the given shape, or a text for an object without a shape."""
    shape = got if isinstance(got, str) else tuple(got)
    return ValueError(f"{name}: expected shape {expected}, got {shape}{advice and f'; {advice}'}")


def not_contiguous(name: str, strides: Iterable[int]) -> ValueError:
    """The error for an array that is not C-contiguous in a call that makes no copies."""
    own = argument_of(name)
    advice = f"call np.ascontiguousarray({own}), or {own}.contiguous() of a tensor"
    if own.startswith("out"):
        advice = "give a contiguous one, as np.empty makes it"
    return ValueError(f"{name}: expected a C-contiguous array, got strides {tuple(strides)}; {advice}")


def labels_advice(name: str, dtype: Any) -> str:
    """The advice for a context of integers, which may be labels of classes; "" for other arrays."""
    return (
        "give labels of classes one column each: np.eye(classes)[context]"
        if name == "context" and "int" in str(dtype)
        else ""
    )


def context_shape(columns: int, batch: Iterable[int] | None = None) -> str:
    """The expected shape of the context, for rows of the shape `batch` or of any shape."""
    rows = "..." if batch is None else ", ".join(map(str, batch))
    return f"({', '.join([*filter(None, [rows]), str(columns)])}), or ({columns},) for all rows"


def takes_no_context(name: str = "context", got: str = "an array") -> ValueError:
    """The error for a context in a call that takes no context."""
    return ValueError(f"{name}: expected None, because this takes no context, got {got}")


def not_dense(name: str, layout: Any) -> TypeError:
    """The error for a sparse tensor of PyTorch."""
    return wrong_kind(name, "a dense tensor", f"layout {layout}", f"call {name}.to_dense()")


def not_aligned(name: str) -> ValueError:
    """The error for elements that a core cannot read in one access."""
    return ValueError(f"{name}: expected an aligned array, got one at an address that its dtype does not allow")


# ---- devices ---------------------------------------------------------------------------------------------------------


def not_on_cpu(name: str, what: str, device: Any, call: str, no_cuda: str | None) -> TypeError:
    """The error for an array on a device if the CPU computes; `no_cuda`: why this machine has no CUDA, or None."""
    advice = f"nor can it elsewhere ({no_cuda})" if no_cuda else "or call .to('cuda') of the flow or transform"
    expected, got = "an array in the CPU's memory", f"{what} on {device}"
    return wrong_kind(name, expected, got, f"this is computed on the CPU: {call}; {advice}")


def wrong_device(name: str, what: str, device: Any, call: str) -> TypeError:
    """The error for an array that is not on the CUDA device that computes."""
    return wrong_kind(name, f"an array on {device}, where this is computed", what, f"call {call}")


def on_another_device(name: str, index: int, device: Any, call: str) -> TypeError:
    """The error for an array on the CUDA device `index` if another CUDA device computes."""
    other = f"cuda:{index}"
    return wrong_kind(
        name, f"an array on {device}", f"one on {other}", f"call {call}, or .to({other!r}) of the flow or transform"
    )
