"""Files: safetensors with a JSON header that states every convention (docs/files.md).

A file is not trusted. Its own header is checked before anything is read beyond it, so that its sizes are those of the
file, and every size in headrace's header is compared with the tensors before anything of that size is made.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import shutil
import stat
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._core import CudaUnavailable, cpu
from headrace._module import Module
from headrace._stored import Stored, header_of

__all__ = ["FORMAT", "FileFormatError", "from_bytes", "load", "read_notes", "save", "to_bytes", "unpickled"]

# Goes up when the meaning of what is there changes; new kinds and keys are refused by older readers anyway.
FORMAT = 1

_KEY = "headrace"  # of our header in the file's metadata
_MOST_HEADER = 2**24  # bytes; a header takes some 25 times its size as Python objects
_MOST_DEPTH = 64  # of brackets in a header
_ITEMSIZES = {"F32": 4, "F64": 8, "BOOL": 1}


class FileFormatError(ValueError):
    """A file that is broken, no file of headrace, or from a newer version; the message names the file and why."""


def save(module: Module, path: str | os.PathLike[str], notes: Mapping[str, str] | None = None) -> None:
    """What `Flow.save` and `Transform.save` do; `notes` are texts to keep in the file's metadata, see `read_notes`."""
    target = os.path.realpath(_path(path))  # a link stays, and what it points to is replaced
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path: expected an existing folder, got {folder}")
    exists = os.path.exists(target)
    if exists:
        _check_regular(target)
    data = to_bytes(module, notes)
    temporary = os.path.join(folder, f".{os.path.basename(target)[:64]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if exists:
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:  # Ctrl-C too
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> Any:
    """Read a flow or a transform that `save` wrote, as the class that it was.

    For one instruction set its results have the same bits. Memory grows with the size of the file, whatever it claims
    to hold. Numbers that are not finite are loaded with a warning.

    Raises:
        TypeError: the path is none.
        OSError: there is no such file, or it is a folder.
        FileFormatError: the file is truncated, is no safetensors file or none of headrace, was written by a newer
            version, or contradicts itself.

    >>> import os, tempfile, headrace as hr
    >>> flow = hr.MAF(3, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "flow.safetensors")
    ...     flow.save(path)
    ...     same = hr.load(path)
    >>> type(same).__name__, bool((same.parameters == flow.parameters).all())
    ('MAF', True)
    """
    name = _path(path)
    if not os.path.exists(name):
        raise FileNotFoundError(f"path: expected an existing file, got {name}")
    _check_regular(name)
    with open(name, "rb") as stream:
        return _read(stream, os.fstat(stream.fileno()).st_size, name)


def read_notes(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts by name that `save` was given, or that others put into the file's metadata; `load` ignores them."""
    name = _path(path)
    with open(name, "rb") as stream:
        try:
            metadata = _container_header(stream, os.fstat(stream.fileno()).st_size)[1].get("__metadata__", {})
        except ValueError as error:
            raise FileFormatError(f"{name}: {error}") from error
    if not isinstance(metadata, dict):
        return {}
    return {key: text for key, text in metadata.items() if key != _KEY and isinstance(text, str)}


def to_bytes(module: Module, notes: Mapping[str, str] | None = None) -> bytes:
    """A flow or a transform as the bytes of the file that its `save` writes, to keep or send anywhere.

    Nothing in them is code, and equal flows give equal bytes. The device is not in them.

    Args:
        module: The flow or transform.
        notes: Texts to keep in the file's metadata, see `read_notes`.

    Raises:
        TypeError: it is neither, or a part is of a class that files do not know, as a subclass of your own.
        ValueError: it is too large for a file; see `Flow.save`.

    >>> import headrace as hr
    >>> hr.from_bytes(hr.to_bytes(hr.Permutation([1, 0])))
    Permutation([1, 0])
    """
    if not isinstance(module, Module):
        raise TypeError(f"module: expected a flow or a transform, got {check.kind_of(module)}")
    dtype = None if module.dtype is None else module.dtype.name
    header = {"format": FORMAT, "version": cpu.__version__, "dtype": dtype, **header_of(module)}
    text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    arrays = {**module.named_parameters(), **module._fixed_arrays()}
    data: bytes = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata={**(notes or {}), _KEY: text}
    )
    if (size := int.from_bytes(data[:8], "little")) > _MOST_HEADER:
        raise ValueError(f"{type(module).__name__}: expected a header of at most {_MOST_HEADER} bytes, got {size}")
    if _depth(text) > _MOST_DEPTH:
        raise ValueError(f"{type(module).__name__}: expected transforms nested less deeply")
    return data


def from_bytes(data: bytes) -> Any:
    """The way back from `to_bytes`, or the contents of a file; as careful as `load`.

    Raises:
        TypeError: no bytes.
        FileFormatError: as in `load`.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data: expected bytes, got {check.kind_of(data)}")
    held = bytes(data)
    return _read(io.BytesIO(held), len(held), "data")


def unpickled(data: bytes, device: str, matmul: str) -> Any:
    """What a pickle calls: the way back from `to_bytes`, on the device where it was, or the CPU where that is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a pickle is a copy: what it copies may be anything
        module = from_bytes(data)
    if device == "cpu":
        return module
    try:
        return module.to(device, matmul)
    except CudaUnavailable as error:
        warnings.warn(
            f"{type(module).__name__}: pickled on {device}, which is not here; it computes on the CPU ({error})",
            RuntimeWarning,
            stacklevel=2,
        )
        return module


# ---- paths -----------------------------------------------------------------------------------------------------------


def _path(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise TypeError(f"path: expected a str or an os.PathLike of one, got {check.kind_of(path)}")
    return name


def _check_regular(name: str) -> None:
    """Neither a folder, nor a device or a pipe, which would be replaced or read for ever."""
    if os.path.isdir(name):
        raise IsADirectoryError(f"path: expected a file, got the folder {name}")
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise OSError(f"path: expected a regular file, got a device, socket or pipe, {name}")


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(stream: BinaryIO, size: int, name: str) -> Any:
    try:
        module = _build(stream, size)
    except (TypeError, ValueError) as error:
        said = "".join(c if c.isprintable() else "?" for c in str(error)[:1000])  # it may quote the file
        raise FileFormatError(f"{name}: {said}") from error
    odd = [key for key, array in module.named_parameters().items() if not np.isfinite(array).all()]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        warnings.warn(f"{name}: {odd[0]}{more} hold numbers that are not finite", RuntimeWarning, stacklevel=3)
    return module


def _build(stream: BinaryIO, size: int) -> Any:
    raw, entries = _container_header(stream, size)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        raise ValueError(
            f"a safetensors file, but none of headrace: expected the key '{_KEY}' in its __metadata__, got "
            f"{_listed(metadata) if isinstance(metadata, dict) else 'no object'}"
        )
    header = _parse(metadata[_KEY], f"__metadata__.{_KEY}")
    if not isinstance(header, dict):
        raise ValueError(f"__metadata__.{_KEY}: expected a JSON object, got {type(header).__name__}")
    written_by = str(header.get("version"))[:40]
    for key in ("format", "version", "dtype"):
        if key not in header:
            raise ValueError(f"__metadata__.{_KEY}: expected the key {key!r}, got {_listed(header)}")
    number = check.integer("format", header.pop("format"), least=1)
    if number > FORMAT:
        raise ValueError(
            f"file format {number}, written by headrace {written_by}; headrace {cpu.__version__} reads formats up to "
            f"{FORMAT}: upgrade it (pip install --upgrade headrace)"
        )
    _check_tensors(entries, size - len(raw))
    try:
        return _assemble(header, _arrays(stream, raw, entries, size))
    except (TypeError, ValueError) as error:
        by = "" if written_by == cpu.__version__ else f" (written by headrace {written_by}, read by {cpu.__version__})"
        raise ValueError(f"{error}{by}") from error


def _assemble(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    if not isinstance(header.pop("version"), str):
        raise TypeError("version: expected a string")
    dtype = header.pop("dtype")
    if dtype is not None:
        dtype = np.dtype(check.choice("dtype", dtype, ("float32", "float64")))
    module = Stored(header, arrays, dtype).build(Module)
    if arrays:
        raise ValueError(f"expected no tensor {min(arrays)!r}")
    if (module.dtype is None) != (dtype is None):
        expected = "null" if module.dtype is None else "'float32' or 'float64'"
        raise ValueError(f"dtype: expected {expected} for a {type(module).__name__}, got {dtype}")
    return module


def _container_header(stream: BinaryIO, size: int) -> tuple[bytes, dict[str, Any]]:
    """The first bytes of a safetensors file up to its tensors, and the JSON in them."""
    first = stream.read(8)
    if len(first) < 8:
        raise ValueError(f"truncated, or no safetensors file: expected at least 8 bytes, got {len(first)}")
    length = int.from_bytes(first, "little")
    if length > _MOST_HEADER:
        raise ValueError(
            f"no safetensors file, or too large a header: its first 8 bytes claim one of {length} bytes, expected at "
            f"most {_MOST_HEADER}"
        )
    if length > size - 8:
        raise ValueError(f"truncated: expected a header of {length} bytes, got {size - 8} bytes")
    text = stream.read(length)
    try:
        entries = _parse(text.decode("utf-8"), "header")
    except ValueError as error:
        raise ValueError(f"no safetensors file: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"no safetensors file: expected a JSON object as its header, got {type(entries).__name__}")
    return first + text, entries


def _check_tensors(entries: dict[str, Any], available: int) -> None:
    """Types, shapes and places of the tensors: they fill the rest of the file without gaps and overlaps."""
    places = []
    for full_name, entry in entries.items():
        name = full_name[:100]  # for messages
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{name}: expected an object of dtype, shape and data_offsets")
        dtype = check.choice(f"{name}: dtype", entry["dtype"], tuple(_ITEMSIZES))
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not (_are_sizes(shape) and len(shape) <= 2):
            raise ValueError(f"{name}: shape: expected a list of at most 2 sizes")
        if not (_are_sizes(offsets) and len(offsets) == 2):
            raise ValueError(f"{name}: data_offsets: expected a list of 2 sizes")
        expected = math.prod(shape) * _ITEMSIZES[dtype]
        if offsets[1] - offsets[0] != expected:
            raise ValueError(
                f"{name}: data_offsets: expected a difference of {expected} for {dtype} {shape}, got {offsets}"
            )
        places.append((offsets[0], offsets[1], name))
    end = 0
    for begin, next_end, name in sorted(places):
        if begin != end:
            raise ValueError(f"{name}: data_offsets: expected {end} for the first, without gap or overlap, got {begin}")
        end = next_end
    if end > available:
        raise ValueError(f"truncated: expected {end} bytes of tensors, got {available}")
    if end < available:
        raise ValueError(f"expected {end} bytes of tensors, got {available}: something was appended")


def _arrays(stream: BinaryIO, raw: bytes, entries: dict[str, Any], size: int) -> dict[str, NDArray[Any]]:
    """The tensors by name. What was checked is what is read, even if somebody writes to the file meanwhile."""
    data = stream.read(size - len(raw))
    if len(data) != size - len(raw):
        raise ValueError(f"truncated: expected {size - len(raw)} bytes of tensors, got {len(data)}")
    try:
        arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(raw + data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"no safetensors file: {error}") from error
    for name, array in arrays.items():
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(f"{name}: expected bytes 0 and 1 in a tensor of BOOL")
    return arrays


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _listed(header: dict[str, Any]) -> str:
    """Keys of a header for a message: the first few, none of them long."""
    keys = [repr(key[:40]) for key in list(header)[:8]]
    return ", ".join(keys) + (", ..." if len(header) > 8 else "") if keys else "none"


def _parse(text: str, name: str) -> Any:
    """JSON without what is dangerous or ambiguous: deep nesting, endless numbers, NaN, keys twice."""
    if _depth(text) > _MOST_DEPTH:
        raise ValueError(f"{name}: expected at most {_MOST_DEPTH} levels of brackets")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            raise ValueError(f"{name}: expected each key once")
        return result

    def integer(digits: str) -> int:
        if len(digits) > 20:
            raise ValueError(f"{name}: expected integers of at most 20 digits")
        return int(digits)

    def constant(word: str) -> float:
        raise ValueError(f"{name}: expected finite numbers, got {word}")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=integer, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected JSON, got {error}") from error


def _depth(text: str) -> int:
    """The depth of brackets in JSON, found without going into it; exact up to the first error of syntax."""
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    codes = np.frombuffer(outside.encode("utf-8", "replace"), np.uint8)
    opened, closed = (codes == ord("[")) | (codes == ord("{")), (codes == ord("]")) | (codes == ord("}"))
    return int(np.cumsum(opened.astype(np.int8) - closed.astype(np.int8), dtype=np.int32).max(initial=0))
