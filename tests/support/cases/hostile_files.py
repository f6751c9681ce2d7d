"""Helpers that build broken, foreign and harmful files for tests."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

import cases
import file_cases
import headrace as hr
from headrace import files

EXAMPLES = file_cases.EXAMPLES


def unpack(data):
    """The parts of a file ``(entries, header, tensors)``: the container's JSON, headrace's header, and the tensors'
    bytes.

    The header is changed to that of format 1, which has no checksum, so that other checks have to find a change.
    """
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    header = json.loads(entries["__metadata__"]["headrace"])
    return entries, {**header, "format": 1}, data[8 + length :]


def unsealed(module):
    """A module's file as one of format 1, which has no checksum."""
    return pack(*unpack(files.to_bytes(module)))


def pack(entries, header, tensors):
    """The inverse of `unpack`; `header` is an object, or the text of the header itself."""
    text = header if isinstance(header, str) else json.dumps(header)
    entries = {**entries, "__metadata__": {"headrace": text}}
    return container(json.dumps(entries).encode(), tensors)


def container(text, tensors=b""):
    return struct.pack("<Q", len(text)) + text + tensors


def with_header(module, change):
    """A module's file after `change` has altered its headrace header."""
    entries, header, tensors = unpack(files.to_bytes(module))
    changed = change(header)
    return pack(entries, header if changed is None else changed, tensors)


def with_tensors(module, change):
    """A module's file after `change` has altered its tensors; the container is made to fit the new tensors."""
    data = unsealed(module)
    tensors = safetensors.numpy.load(data)
    change(tensors)
    return safetensors.numpy.save(tensors, metadata={"headrace": json.dumps(unpack(data)[1])})


def with_entries(module, change):
    """A module's file after `change` has altered the container's entries."""
    entries, header, tensors = unpack(files.to_bytes(module))
    change(entries)
    return pack(entries, header, tensors)


def set_at(*keys, to):
    """A function that sets one value of a header; the keys are the path to the value."""

    def change(header):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = to

    return change


def drop(*keys):
    def change(header):
        for key in keys[:-1]:
            header = header[key]
        del header[keys[-1]]

    return change


def maf():
    return hr.MAF(3, 1, transforms=1, hidden=(4,))


def blocks():
    return hr.transforms.Rotation.random(8, seed=0, block=3)


def coupling():
    return hr.transforms.Coupling(3, [0], (4,))


def foreign():
    return file_cases.foreign(4, "float32")


def plain(**more):
    """A headrace file without tensors, from the entries of its header."""
    return container(json.dumps({"__metadata__": {"headrace": json.dumps({**TOP, **more})}}).encode())


TOP = {"format": 1, "version": "0.4.0", "dtype": "float32"}


def network_file(features, layers, levels=None, degrees=None, **more):
    """The file of a MaskedAutoregressive; its layers ``(weight, bias, mask)`` may be inconsistent."""
    settings = hr.transforms.MaskedAutoregressive(2)._settings.header()
    header = {**TOP, "kind": "MaskedAutoregressive", **settings, "features": features, "levels": levels}
    tensors = {
        f"layers.{i}.{name}": array
        for i, layer in enumerate(layers)
        for name, array in zip(("weight", "bias", "mask"), layer, strict=True)
    }
    metadata = {"headrace": json.dumps({**header, "degrees": degrees, **more})}
    return safetensors.numpy.save(tensors, metadata=metadata)


def zeros(*shapes, dtype="float32"):
    return [(np.zeros(s, dtype), np.zeros(s[:1], dtype), np.zeros(s, bool)) for s in shapes]


def cyclic():
    layers = zeros((4, 2))
    layers[0][2][:] = [[0, 1], [0, 1], [1, 0], [1, 0]]
    return network_file(2, layers)


def refused(data, *patterns):
    with pytest.raises(hr.FileFormatError) as error:
        files.from_bytes(data)
    cases.assert_says(error, r"^data: ", *patterns)
    assert len(str(error.value)) < 1200
    return error


def bottleneck(features):
    """A network file of a few bytes a coordinate, in which half of the coordinates depend on the other half."""
    layers = zeros((1, features), (2 * features, 1))
    layers[0][2][0, : features // 2] = True
    layers[1][2][features:] = True
    return network_file(features, layers)


GOOD = unsealed(maf())


# ---- files of sequences, which always have a checksum ---------------------------------------------------------------

# Errors that the other readers raise because of keys that Python's reader ignores.
STRICTER = ("level: expected false beside an inner flow",)


def header_of(data):
    """The headrace header of a file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["headrace"])


def resealed(data, change, change_tensors=lambda tensors: None):
    """A file whose headrace header and tensors were changed, with a new checksum."""
    header, tensors = header_of(data), safetensors.numpy.load(data)
    change(header)
    change_tensors(tensors)
    text = json.dumps(header, separators=(",", ":"))
    return safetensors.numpy.save(
        tensors, metadata={"headrace": text, "headrace_crc32": files._checksum(text, tensors)}
    )


def headers_of_sequences(data, count, *key):
    """Files that differ from `data` in one value of the header, or lack one of its keys: `count` random ones."""
    every = [(path, value) for path in _places(header_of(data)) for value in (*_VALUES, None)]
    for i in cases.rng("headers of sequences", *key).permutation(len(every))[:count]:
        path, value = every[i]
        yield resealed(data, drop(*path) if value is None else set_at(*path, to=value))


_VALUES = (
    True, False, -1, 0, 1, 2, 3, 33, 2**31, 2**63, 0.5, "", "affine", "logistic_mixture", "Logistic", [], [1], {},
)  # fmt: skip


def _places(value, path=()):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from _places(item, (*path, key))


def agree_on_sequences(data, load, refused):
    """Check that Python and another reader both read a file, or that both refuse it; return whether they read it."""
    try:
        files.from_bytes(data)
    except hr.FileFormatError:
        with pytest.raises(refused):
            load(data)
        return False
    try:
        load(data)
    except refused as error:
        if not any(words in str(error) for words in STRICTER):
            raise
        return False
    return True
