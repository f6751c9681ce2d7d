"""Files: safetensors with a JSON header that states every convention (docs/files.md).

A file is not trusted. The safetensors header is checked before any further bytes are read, so that the sizes in it
agree with the file's size, and every size in headrace's header is compared with the tensors before memory of that size
is allocated.
"""

from __future__ import annotations

import io
import json
import math
import os
import warnings
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.output import check_regular, printable, replacing
from headrace._base.public import public
from headrace._base.stored import Filed, Stored, header_of, is_filed
from headrace._core import CudaUnavailable, cpu
from headrace._core.device import BF16_KINDS

# The format's number increases when the meaning of existing keys changes; older versions refuse new classes and keys in
# any case. Format 2 has a checksum. Format 3 allows tensors of three axes, which sequences need; files without such
# tensors have format 2.
FORMAT = 3
_MOST_AXES = {1: 2, 2: 2, 3: 3}

# The keys of a file's metadata: headrace's header, the checksum of the density's parts, and the checksums of notes.
_KEY, _CHECKSUM, _NOTE_CHECKSUMS = "headrace", "headrace_crc32", "headrace_notes_crc32"
_MOST_HEADER = 2**24  # in bytes
_MOST_DEPTH = 64  # the largest depth of brackets in a header
_Object = TypeVar("_Object")
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "BOOL": np.dtype(np.bool_)}


@public()
class FileFormatError(ValueError):
    """The error for a file that is broken, not headrace's, or of a newer version; the message has the reason."""


def save(module: Filed, path: str | os.PathLike[str], notes: Mapping[str, str] | None = None) -> None:
    """Write the file of `Flow.save` or `Transform.save`; `notes` are texts for its metadata (`read_notes`)."""
    name = _path(path)
    parts = _parts(module, notes)
    with replacing(name) as stream:
        stream.writelines(parts)


def load(path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Any:
    """Read a flow or a transform that `save` wrote, as an object of its original class.

    With the same instruction set, results have the same bits as before `save`. The time and memory of `load` grow with
    the file's size, for any sizes that the file's header claims.

    A class's own `load`, such as `Flow.load`, checks that the result has this class, and type checkers infer the class.

    Args:
        path: The path of the file.
        allow_non_finite: Whether parameters may be infinite or NaN, for example after a fit that went wrong.

    Raises:
        TypeError: `path` is no path.
        OSError: the file does not exist, or is a folder.
        FileFormatError: the file is truncated or damaged, is no safetensors file or no file of headrace, was written by
            a newer version, contradicts itself, or has parameters that are not finite.

    >>> import os, tempfile, headrace as hr
    >>> flow = hr.MAF(3, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "flow.safetensors")
    ...     flow.save(path)
    ...     same = hr.load(path)
    >>> type(same).__name__, bool((same.parameters == flow.parameters).all())
    ('MAF', True)
    """
    return contents(path, allow_non_finite=allow_non_finite)[0]


def contents(path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> tuple[Any, dict[str, str]]:
    """The results of `load` and of `read_notes` as a pair, from one pass over the file."""
    name = _path(path)
    if not os.path.exists(name):
        raise FileNotFoundError(f"path: expected an existing file, got {name}")
    check_regular(name)
    with open(name, "rb") as stream:
        return _read(stream, os.fstat(stream.fileno()).st_size, name, allow_non_finite)


def load_as(cls: type[_Object], path: str | os.PathLike[str], allow_non_finite: bool, made: Any = None) -> _Object:
    """The object of a file, which must be of the class `cls`; `made` makes it from the file's object and notes."""
    thing, notes = contents(path, allow_non_finite=allow_non_finite)
    thing = thing if made is None else made(thing, notes)
    if not isinstance(thing, cls):
        kind = type(thing).__name__
        raise FileFormatError(f"{_path(path)}: expected {cls.__name__}, got {kind}; use {kind}.load or headrace.load")
    return thing


def read_notes(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts, by name, in a file's metadata, which the argument `notes` of `save` or other programs have added.

    Raises:
        FileFormatError: the file is no safetensors file, or a text has changed since `save` wrote it.
    """
    name = _path(path)
    with open(name, "rb") as stream:
        return _notes(stream, os.fstat(stream.fileno()).st_size, name)


def notes_of_bytes(data: bytes) -> dict[str, str]:
    """The texts, by name, in the metadata of a file's bytes, as `to_bytes` returns them."""
    return _notes(io.BytesIO(data), len(data), "data")


def _notes(stream: BinaryIO, size: int, name: str) -> dict[str, str]:
    try:
        metadata = _container_header(stream, size)[1].get("__metadata__", {})
        if not isinstance(metadata, dict):
            return {}
        _check_notes(metadata)
    except ValueError as error:
        raise FileFormatError(f"{name}: {printable(str(error)[:1000])}") from error
    return _texts(metadata)


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    own = (_KEY, _CHECKSUM, _NOTE_CHECKSUMS)
    return {key: text for key, text in metadata.items() if key not in own and isinstance(text, str)}


def to_bytes(module: Filed, notes: Mapping[str, str] | None = None) -> bytes:
    """The bytes of the file that `save` of a flow or a transform writes, to store or send.

    The bytes contain no code, and equal flows have equal bytes. The device is not stored.

    Args:
        module: The flow or the transform.
        notes: Texts for the file's metadata; see `read_notes`.

    Raises:
        TypeError: the object is no flow or transform, or files do not support a part's class, such as a subclass from
            outside this package.
        ValueError: the object is too large for a file; see `Flow.save`.

    >>> import headrace as hr
    >>> hr.from_bytes(hr.to_bytes(hr.transforms.Permutation([1, 0])))
    Permutation([1, 0])
    """
    if not is_filed(type(module)):
        raise TypeError(f"module: expected a flow or a transform, got {check.kind_of(module)}")
    return b"".join(_parts(module, notes))


def from_bytes(data: bytes, *, allow_non_finite: bool = False) -> Any:
    """The flow or transform in the result of `to_bytes` or in the contents of a file, after the checks of `load`.

    Raises:
        TypeError: `data` is no bytes object.
        FileFormatError: the data is invalid, as in `load`.
    """
    return contents_of_bytes(data, allow_non_finite=allow_non_finite)[0]


def contents_of_bytes(data: bytes, *, allow_non_finite: bool = False) -> tuple[Any, dict[str, str]]:
    """The results of `from_bytes` and of `notes_of_bytes` as a pair, from one pass over the bytes."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data: expected bytes, got {check.kind_of(data)}")
    held = bytes(data)
    return _read(io.BytesIO(held), len(held), "data", allow_non_finite)


def unpickled(data: bytes, device: str, matmul: str) -> Any:
    """The object of a pickle, from the result of `to_bytes`: on its former device, or the CPU if that is missing."""
    module = from_bytes(data, allow_non_finite=True)  # a pickle is a copy, whose parameters may be infinite or NaN
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


# ---- states of unfinished runs ---------------------------------------------------------------------------------------


def checksums(module: Filed) -> tuple[str, str]:
    """The two checksums of a flow or transform, of the structure and of the arrays."""
    text = json.dumps(header_of(module), allow_nan=False, separators=(",", ":"))
    return _checksum(text, {}), _checksum("", _held(module))


def _held(module: Filed) -> dict[str, NDArray[Any]]:
    arrays = {**module.named_parameters(), **module._fixed_arrays()}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def structure_checksum(flow: Filed) -> str:
    """The checksum of a density's structure, apart from the parameters, the dtype and the name of the class."""
    header = {**header_of(flow), "kind": None, "matmul": flow.matmul}
    fixed = {name: np.ascontiguousarray(array) for name, array in flow._fixed_arrays().items()}
    import hashlib  # imported here because only checkpoints need hashlib

    text = json.dumps(header, separators=(",", ":")) + _checksum("", fixed)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save_state(path: str, key: str, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file with a JSON object at a key of its metadata, completely or not at all."""
    text = json.dumps(state, allow_nan=False, separators=(",", ":"))
    parts, _ = _container({key: text, _CHECKSUM: _checksum(text, arrays)}, arrays, key)
    with replacing(path) as stream:
        stream.writelines(parts)


def load_state(path: str, key: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON object and the arrays of a file that `save_state` wrote.

    Raises:
        FileFormatError: the file is damaged, or lacks the key.
    """
    check_regular(path)
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            metadata, state, entries, available = _read_header(stream, size, key)
            _check_tensors(entries, available)
            arrays = _arrays(stream, entries, available)
            if (found := _checksum(metadata[key], arrays)) != metadata.get(_CHECKSUM):
                raise ValueError(f"damaged: expected the checksum {found} of what it holds")
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"{path}: {printable(str(error)[:1000])}") from error
    return state, arrays


# ---- writing ---------------------------------------------------------------------------------------------------------


def _parts(module: Filed, notes: Mapping[str, str] | None) -> list[Any]:
    """The bytes of a file as buffers, of which only the first is a copy.

    The safetensors library is not used, because it ends the process if memory runs out.
    """
    kind = type(module).__name__
    dtype = None if module.dtype is None else module.dtype.name
    arrays = _held(module)
    axes = max((array.ndim for array in arrays.values()), default=0)
    number = next(number for number in range(2, FORMAT + 1) if axes <= _MOST_AXES[number])
    header = {"format": number, "version": cpu.__version__, "dtype": dtype, **header_of(module)}
    if module.matmul in BF16_KINDS:  # bf16 is a part of the density; other settings are not stored
        header["matmul"] = module.matmul
    text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    notes = {**(notes or {}), **module._notes(), **(notes or {})}  # the argument's notes come first, and have priority
    metadata = {**notes, _KEY: text, _CHECKSUM: _checksum(text, arrays)}
    if notes:
        sums = {name: _checksum(note, {}) for name, note in notes.items()}
        metadata[_NOTE_CHECKSUMS] = json.dumps(sums, separators=(",", ":"))
    parts, size = _container(metadata, arrays, kind)
    depth, objects, _ = _brackets(text)
    if depth > _MOST_DEPTH:
        raise ValueError(f"{kind}: expected transforms nested less deeply")
    if objects > (most := _most_objects(size)):
        raise ValueError(f"{kind}: expected at most {most} transforms and parts in a file of its size, got {objects}")
    return parts


def _container(metadata: Mapping[str, str], arrays: Mapping[str, NDArray[Any]], kind: str) -> tuple[list[Any], int]:
    """The bytes of a safetensors file in pieces, and the number of bytes."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    entries: dict[str, Any] = {"__metadata__": metadata}
    ordered = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # in this order all arrays are aligned
    end = 0
    for name in ordered:
        array, begin = arrays[name], end
        end += array.nbytes
        entries[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    first = json.dumps(entries, separators=(",", ":")).encode()
    first += b" " * (-len(first) % 8)
    if len(first) > _MOST_HEADER:
        raise ValueError(f"{kind}: expected a header of at most {_MOST_HEADER} bytes, got {len(first)}")
    pieces = [len(first).to_bytes(8, "little") + first, *(arrays[name].reshape(-1).view(np.uint8) for name in ordered)]
    return pieces, 8 + len(first) + end


def _checksum(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """The CRC-32 of a text, such as a header, and of the arrays' bytes, in the order of the arrays' names."""
    crc = zlib.crc32(text.encode())
    for name in sorted(arrays):
        crc = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _check_notes(metadata: dict[str, Any]) -> None:
    """Refuse notes that have changed since `save` wrote them; notes of other programs and of older files have no
    checksum.
    """
    if _NOTE_CHECKSUMS not in metadata:
        return
    place = f"__metadata__.{_NOTE_CHECKSUMS}"
    text = metadata[_NOTE_CHECKSUMS]
    sums = _parse(text, place, 1) if isinstance(text, str) else None
    if not isinstance(sums, dict):
        raise ValueError(f"{place}: expected a string of a JSON object, got {type(sums).__name__}")
    for name, expected in sums.items():
        note = metadata.get(name)
        found = _checksum(note, {}) if isinstance(note, str) else "none"
        if found != expected:
            raise ValueError(f"damaged: expected checksum {str(expected)[:40]} of the note {name[:40]!r}, got {found}")


def _most_objects(size: int) -> int:
    """The largest number of transforms and parts in a file of `size` bytes; a loaded part takes a few kilobytes."""
    return 4096 + size // 512


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(stream: BinaryIO, size: int, name: str, allow_non_finite: bool) -> tuple[Any, dict[str, str]]:
    try:
        module, metadata = _build(stream, size)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{name}: {printable(str(error)[:1000])}") from error  # the message may quote the file
    odd = [key for key, array in module.named_parameters().items() if not np.isfinite(array).all()]
    if odd and not allow_non_finite:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise FileFormatError(f"{name}: {odd[0]}{more}: expected finite numbers; allow_non_finite=True loads others")
    return module, _texts(metadata)


def _build(stream: BinaryIO, size: int) -> Any:
    metadata, header, entries, available = _read_header(stream, size, _KEY)
    written_by = str(header.get("version"))[:40]
    for key in ("format", "version", "dtype"):
        if key not in header:
            raise ValueError(f"__metadata__.{_KEY}: expected the key {key!r}, got {_listed(header)}")
    number = check.integer("format", header.pop("format"), least=1)
    if number > FORMAT:
        raise ValueError(
            f"file format {number}, written by headrace {written_by}; headrace {cpu.__version__} reads formats up to "
            f"{FORMAT}: upgrade it"
        )
    _check_tensors(entries, available, _MOST_AXES[number])
    arrays = _arrays(stream, entries, available)
    if number >= 2 or _CHECKSUM in metadata:
        expected, found = metadata.get(_CHECKSUM), _checksum(metadata[_KEY], arrays)
        if found != expected:
            raise ValueError(f"damaged: expected the checksum {found} of what it holds, got {str(expected)[:40]}")
    _check_notes(metadata)
    try:
        module = _assemble(header, arrays)
    except (TypeError, ValueError) as error:
        by = "" if written_by == cpu.__version__ else f" (written by headrace {written_by}, read by {cpu.__version__})"
        raise ValueError(f"{error}{by}") from error
    return module._with_notes(metadata), metadata


def _read_header(stream: BinaryIO, size: int, key: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], int]:
    """A safetensors file's metadata, the JSON object at a key of the metadata, the tensors' entries and their bytes."""
    raw, entries = _container_header(stream, size)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(key), str):
        raise ValueError(
            f"a safetensors file, but none of headrace: expected the key '{key}' in its __metadata__, got "
            f"{_listed(metadata) if isinstance(metadata, dict) else 'no object'}"
        )
    header = _parse(metadata[key], f"__metadata__.{key}", _most_objects(size))
    if not isinstance(header, dict):
        raise ValueError(f"__metadata__.{key}: expected a JSON object, got {type(header).__name__}")
    return metadata, header, entries, size - len(raw)


def _assemble(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    if not isinstance(header.pop("version"), str):
        raise TypeError("version: expected a string")
    dtype = header.pop("dtype")
    if dtype is not None:
        dtype = np.dtype(check.choice("dtype", dtype, ("float32", "float64")))
    matmul = check.choice("matmul", header.pop("matmul"), tuple(BF16_KINDS)) if "matmul" in header else "exact"
    module = Stored(header, arrays, dtype).build(is_filed)
    if arrays:
        raise ValueError(f"expected no tensor {min(arrays)!r}")
    if (module.dtype is None) != (dtype is None):
        expected = "null" if module.dtype is None else "'float32' or 'float64'"
        raise ValueError(f"dtype: expected {expected} for a {type(module).__name__}, got {dtype}")
    return module if matmul == "exact" else module.to("cpu", matmul)


def _container_header(stream: BinaryIO, size: int) -> tuple[bytes, dict[str, Any]]:
    """The first bytes of a safetensors file up to its tensors, and the JSON object in these bytes."""
    first = stream.read(8)
    if len(first) < 8:
        raise ValueError(f"truncated, or no safetensors file: expected at least 8 bytes, got {len(first)}")
    length = int.from_bytes(first, "little")
    if length > _MOST_HEADER:
        raise ValueError(f"no safetensors file: expected a header of at most {_MOST_HEADER} bytes, got {length}")
    if length > size - 8:
        raise ValueError(f"truncated: expected a header of {length} bytes, got {size - 8} bytes")
    text = stream.read(length)
    try:
        entries = _parse(text.decode("utf-8"), "header", 64 + length // 16)
    except ValueError as error:
        raise ValueError(f"no safetensors file: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"no safetensors file: expected a JSON object as its header, got {type(entries).__name__}")
    return first + text, entries


def _check_tensors(entries: dict[str, Any], available: int, most_axes: int = 2) -> None:
    """Check types, shapes and positions of tensors, which must fill the rest of the file without gaps and overlaps."""
    places = []
    for full_name, entry in entries.items():
        name = full_name[:100]  # shortened for messages
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{name}: expected an object of dtype, shape and data_offsets")
        dtype = check.choice(f"{name}: dtype", entry["dtype"], tuple(_DTYPES))
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not (_are_sizes(shape) and len(shape) <= most_axes):
            raise ValueError(f"{name}: shape: expected a list of at most {most_axes} sizes")
        if not (_are_sizes(offsets) and len(offsets) == 2):
            raise ValueError(f"{name}: data_offsets: expected a list of 2 sizes")
        expected = math.prod(shape) * _DTYPES[dtype].itemsize
        if offsets[1] - offsets[0] != expected:
            raise ValueError(f"{name}: data_offsets: expected {expected} bytes for {dtype} {shape}, got {offsets}")
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


def _arrays(stream: BinaryIO, entries: dict[str, Any], size: int) -> dict[str, NDArray[Any]]:
    """The tensors by name, from a single read: even if the file changes meanwhile, the checked bytes are used."""
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"truncated: expected {size} bytes of tensors, got {len(data)}")
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in entries.items():
        array = np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], data, entry["data_offsets"][0])
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(f"{name}: expected bytes 0 and 1 in a tensor of BOOL")
        arrays[name] = np.require(array, requirements="A")
    return arrays


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _listed(header: dict[str, Any]) -> str:
    """The keys of a header as a text for a message, which has only the first few keys, each shortened."""
    keys = [repr(key[:40]) for key in list(header)[:8]]
    return ", ".join(keys) + (", ..." if len(header) > 8 else "") if keys else "none"


def _parse(text: str, name: str, most_objects: int) -> Any:
    """The value of a JSON text; dangerous or ambiguous constructs raise: deep nesting, endless numbers, NaN, duplicate
    keys.

    Lists and objects take up to 25 times their text in memory, so that their number is limited by the text's length.
    """
    depth, objects, lists = _brackets(text)
    if depth > _MOST_DEPTH:
        raise ValueError(f"{name}: expected at most {_MOST_DEPTH} levels of brackets")
    for what, count, most in (("objects", objects, most_objects), ("lists", lists, 64 + len(text) // 8)):
        if count > most:
            raise ValueError(f"{name}: expected at most {most} {what} in a file of this size, got {count}")

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


def _brackets(text: str) -> tuple[int, int, int]:
    """The depth of brackets in a JSON text, and the numbers of objects and lists, exact up to a syntax error."""
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    codes = np.frombuffer(outside.encode("utf-8", "replace"), np.uint8)
    objects, lists = codes == ord("{"), codes == ord("[")
    closed = (codes == ord("]")) | (codes == ord("}"))
    steps = (objects | lists).astype(np.int8) - closed.astype(np.int8)
    depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    return depth, int(np.count_nonzero(objects)), int(np.count_nonzero(lists))
