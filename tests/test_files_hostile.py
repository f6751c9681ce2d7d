"""Files that are broken, foreign, newer or made to do harm: a clear error, whatever is in them, and little memory."""

import copy
import itertools
import json
import math
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
import safetensors.numpy

import cases
import file_cases
import headrace as hr
import reference
from headrace import files
from headrace._core import cpu

EXAMPLES = file_cases.EXAMPLES


def unpack(data):
    """``(entries, header, tensors)``: the container's JSON, headrace's, and the bytes behind them."""
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    return entries, json.loads(entries["__metadata__"]["headrace"]), data[8 + length :]


def pack(entries, header, tensors):
    """The way back; `header` is an object, or the text itself."""
    text = header if isinstance(header, str) else json.dumps(header)
    entries = {**entries, "__metadata__": {"headrace": text}}
    return container(json.dumps(entries).encode(), tensors)


def container(text, tensors=b""):
    return struct.pack("<Q", len(text)) + text + tensors


def with_header(module, change):
    """A file whose headrace header was changed in place."""
    entries, header, tensors = unpack(files.to_bytes(module))
    changed = change(header)
    return pack(entries, header if changed is None else changed, tensors)


def with_tensors(module, change):
    """A file whose tensors were changed in place: everything else fits them."""
    data = files.to_bytes(module)
    tensors = safetensors.numpy.load(data)
    change(tensors)
    return safetensors.numpy.save(tensors, metadata={"headrace": unpack(data)[0]["__metadata__"]["headrace"]})


def with_entries(module, change):
    """A file whose container was changed in place."""
    entries, header, tensors = unpack(files.to_bytes(module))
    change(entries)
    return pack(entries, header, tensors)


def set_at(*keys, to):
    """Changes one place of a header."""

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
    return hr.Rotation.random(8, seed=0, block=3)


def coupling():
    return hr.Coupling(3, [0], (4,))


def foreign():
    return file_cases.foreign(4, "float32")


def plain(**more):
    """A headrace file of no tensors, from its header."""
    return container(json.dumps({"__metadata__": {"headrace": json.dumps({**TOP, **more})}}).encode())


TOP = {"format": 1, "version": "0.4.0", "dtype": "float32"}


def network_file(features, layers, levels=None, degrees=None, **more):
    """A MaskedAutoregressive of these layers ``(weight, bias, mask)``, whatever they say."""
    settings = hr.MaskedAutoregressive(2)._settings.header()
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


# ---- what is said ---------------------------------------------------------------------------------------------------

GOOD = files.to_bytes(maf())

BROKEN = {
    "nothing": (lambda: b"", ["truncated, or no safetensors file", "at least 8 bytes, got 0"]),
    "seven bytes": (lambda: GOOD[:7], ["truncated, or no safetensors file", "got 7"]),
    "no header": (lambda: GOOD[:8], ["truncated", r"a header of \d+ bytes, got 0"]),
    "half a header": (lambda: GOOD[:100], ["truncated", r"a header of \d+ bytes, got 92"]),
    "half of the tensors": (lambda: GOOD[:-100], ["truncated", r"expected \d+ bytes of tensors, got \d+"]),
    "one byte less": (lambda: GOOD[:-1], ["truncated", "bytes of tensors"]),
    "one byte more": (lambda: GOOD + b"\0", [r"expected \d+ bytes of tensors, got \d+", "appended"]),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), ["no safetensors file, or too large a header"]),
    "a length of 2^64 - 1": (lambda: b"\xff" * 8 + GOOD[8:], [f"claim one of {2**64 - 1} bytes"]),
    "a length of 2^24 + 1": (lambda: struct.pack("<Q", 2**24 + 1) + GOOD[8:], ["claim one of 16777217 bytes"]),
    "a length beyond the end": (lambda: struct.pack("<Q", len(GOOD)) + GOOD[8:], ["truncated"]),
    "a length of 0": (lambda: bytes(8), ["no safetensors file", "expected JSON"]),
    "no JSON": (lambda: container(b"{'a': 1}"), ["no safetensors file: header: expected JSON"]),
    "no UTF-8": (lambda: container(b'{"\xff": 1}'), ["no safetensors file", "utf-8"]),
    "a list": (lambda: container(b"[]"), ["no safetensors file", "expected a JSON object", "list"]),
    "deep brackets": (lambda: container(b'{"a":' + b"[" * 100_000), ["at most 64 levels"]),
    "deep brackets behind escapes": (lambda: container(b'{"\\\\\\"":' + b'{"a":' * 9999), ["at most 64 levels"]),
    "a key twice": (lambda: container(b'{"a": 1, "\\u0061": 2}'), ["each key once"]),
    "an endless number": (lambda: container(b'{"a": ' + b"9" * 10**6 + b"}"), ["at most 20 digits"]),
    "not a number": (lambda: container(b'{"a": NaN}'), ["expected finite numbers, got NaN"]),
    "foreign, bare": (
        lambda: safetensors.numpy.save({"w": np.ones(3)}),
        ["none of headrace", "'headrace'", "got none"],
    ),
    "foreign, with metadata": (
        lambda: safetensors.numpy.save({"w": np.ones(3)}, metadata={"format": "pt"}),
        ["a safetensors file, but none of headrace", "expected the key 'headrace'", "got 'format'"],
    ),
    "foreign, of another dtype": (
        lambda: container(b'{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}', b"\0\0"),
        ["none of headrace"],
    ),
    "metadata that is a list": (lambda: container(b'{"__metadata__": []}'), ["none of headrace", "no object"]),
    "metadata that is no text": (lambda: container(b'{"__metadata__": {"headrace": 1}}'), ["none of headrace"]),
    "a header that is no JSON": (lambda: with_header(maf(), lambda h: "{"), [r"__metadata__\.headrace: expected JSON"]),
    "a header that is a list": (lambda: with_header(maf(), lambda h: "[1]"), ["expected a JSON object", "list"]),
    "a deep header": (lambda: with_header(maf(), lambda h: "[" * 1000), ["at most 64 levels"]),
    "a header with a key twice": (lambda: with_header(maf(), lambda h: '{"a": 1, "a": 1}'), ["each key once"]),
    "no format": (lambda: with_header(maf(), drop("format")), ["expected the key 'format', got 'version', 'dtype'"]),
    "no version": (lambda: with_header(maf(), drop("version")), ["expected the key 'version'"]),
    "no dtype": (lambda: with_header(maf(), drop("dtype")), ["expected the key 'dtype'"]),
    "a format of 0": (lambda: with_header(maf(), set_at("format", to=0)), ["format", "at least 1, got 0"]),
    "a format of text": (lambda: with_header(maf(), set_at("format", to="1")), ["format", "expected an integer"]),
    "a newer format": (
        lambda: with_header(maf(), lambda h: h.update(format=7, version="9.1.0", kind=[])),
        ["file format 7, written by headrace 9.1.0", "reads formats up to 1", "upgrade it"],
    ),
    "a newer kind": (
        lambda: with_header(maf(), lambda h: h.update(version="9.1.0", kind="Continuous")),
        ["kind: expected one of '.*'Coupling', .*got 'Continuous'", r"\(written by headrace 9.1.0, read by "],
    ),
    "a version that is no text": (lambda: with_header(maf(), set_at("version", to=3)), ["version: expected a string"]),
    "a dtype of integers": (
        lambda: with_header(maf(), set_at("dtype", to="int8")),
        ["dtype: expected one of 'float32'"],
    ),
    "a dtype of a list": (lambda: with_header(maf(), set_at("dtype", to=["float32"])), ["dtype: expected one of"]),
    "another dtype": (
        lambda: with_header(maf(), set_at("dtype", to="float64")),
        ["layers.0.weight", "float64", "float32"],
    ),
    "no dtype where there are parameters": (
        lambda: with_header(maf(), set_at("dtype", to=None)),
        [r"transforms\[0\]: dtype: expected 'float32' or 'float64'", "None"],
    ),
    "a dtype where there are no parameters": (
        lambda: with_header(hr.Permutation([0]), set_at("dtype", to="float32")),
        ["dtype: expected null for a Permutation"],
    ),
    "no dtype for a flow": (
        lambda: with_header(hr.Flow([], hr.Logistic(2)), set_at("dtype", to=None)),
        ["dtype: expected 'float32' or 'float64' for a Flow"],
    ),
    "a base for a flow": (
        lambda: plain(kind="StandardNormal", features=3),
        ["kind: expected one of", "StandardNormal"],
    ),
    "a flow for a transform": (
        lambda: with_header(maf(), set_at("transforms", 0, "kind", to="MAF")),
        [r"transforms\[0\]: kind: expected one of 'Coupling', ", "'MAF'"],
    ),
    "a transform for a base": (
        lambda: with_header(maf(), set_at("base", "kind", to="Permutation")),
        ["base: kind: expected one of 'Logistic', 'Normal', 'StandardNormal'"],
    ),
    "a kind of a list": (lambda: with_header(maf(), set_at("kind", to=["MAF"])), ["kind: expected one of"]),
    "an unknown nonlinearity": (
        lambda: with_header(hr.Planar(2), set_at("nonlinearity", to="relu")),
        ["nonlinearity: expected one of 'tanh', 'leaky_relu', got 'relu'"],
    ),
    "a planar transform without its slope": (
        lambda: with_header(hr.Planar(2), drop("negative_slope")),
        ["expected the key 'negative_slope'"],
    ),
    "a planar transform of more features than numbers": (
        lambda: with_header(hr.Planar(2), set_at("features", to=3)),
        [r"w: expected shape \(3,\), got \(2,\)"],
    ),
    "a radial transform without a network for its context": (
        lambda: with_header(hr.Radial(2), set_at("context", to=1)),
        ["expected a tensor 'layers.0.weight'"],
    ),
    "no kind": (lambda: with_header(maf(), drop("kind")), ["expected the key 'kind'"]),
    "a transform of text": (
        lambda: with_header(maf(), set_at("transforms", 0, to="MAF")),
        [r"transforms\[0\]: expected"],
    ),
    "transforms that are no list": (lambda: with_header(maf(), set_at("transforms", to={})), ["transforms: .*list"]),
    "a transform too few": (
        lambda: with_header(hr.MAF(3), lambda h: h.update(transforms=h["transforms"][5:])),
        ["no tensor 'transforms.0"],
    ),
    "a transform too many": (
        lambda: with_header(maf(), lambda h: h["transforms"].append(h["transforms"][0])),
        [r"transforms\[2\]: expected a tensor 'transforms.2.layers.0.weight', got none"],
    ),
    "no slope": (
        lambda: with_header(maf(), drop("transforms", 0, "slope")),
        [r"transforms\[0\]: expected the key 'slope'"],
    ),
    "an unknown key": (
        lambda: with_header(maf(), set_at("transforms", 0, "temperature", to=2)),
        [r"transforms\[0\]: expected no key 'temperature'"],
    ),
    "an unknown key at the top": (lambda: with_header(maf(), set_at("note", to="")), ["expected no key 'note'"]),
    "an unknown key of the context": (
        lambda: with_header(maf(), set_at("standardize_context", to={"mean": [0.0], "std": [1.0], "max": 1})),
        ["expected no key 'max'"],
    ),
    "an unknown map": (lambda: with_header(maf(), set_at("transforms", 0, "map", to="cubic")), ["map: .*got 'cubic'"]),
    "a slope of 0": (lambda: with_header(maf(), set_at("transforms", 0, "slope", to=0)), ["slope: .*above 0"]),
    "outputs of lists": (
        lambda: with_header(maf(), set_at("transforms", 0, "outputs", to=[[], []])),
        [r"transforms\[0\]"],
    ),
    "outputs of another map": (
        lambda: with_header(maf(), set_at("transforms", 0, "outputs", to=["shift"])),
        ["outputs"],
    ),
    "levels of text": (lambda: with_header(maf(), set_at("transforms", 0, "levels", to="123")), ["levels: .*sequence"]),
    "levels beyond the features": (
        lambda: with_header(maf(), set_at("transforms", 0, "levels", to=[1, 2, 4])),
        [r"levels\[2\]: expected an integer of between 1 and 3, got 4"],
    ),
    "a level too few": (
        lambda: with_header(maf(), set_at("transforms", 0, "levels", to=[1, 2])),
        ["levels: .*3 values"],
    ),
    "levels alone": (lambda: with_header(maf(), set_at("transforms", 0, "degrees", to=None)), ["degrees: .*NoneType"]),
    "degrees of other masks": (
        lambda: with_header(maf(), set_at("transforms", 0, "levels", to=[3, 2, 1])),
        [r"masks\[0\]: expected the one that levels and degrees make"],
    ),
    "a degree too few": (
        lambda: with_header(maf(), set_at("transforms", 0, "degrees", 0, to=[0, 1, 2])),
        [r"degrees\[0\]: expected 4 values, got 3"],
    ),
    "degrees of a layer too many": (
        lambda: with_header(maf(), lambda h: h["transforms"][0]["degrees"].append([])),
        ["degrees: expected 1 values, got 2"],
    ),
    "passive twice": (lambda: with_header(coupling(), set_at("passive", to=[1, 1])), ["weight: expected shape"]),
    "passive out of range": (lambda: with_header(coupling(), set_at("passive", to=[3])), ["passive"]),
    "passive that is no list": (lambda: with_header(coupling(), set_at("passive", to=0)), ["passive: expected a list"]),
    "everything passive": (lambda: with_header(coupling(), set_at("passive", to=[0, 1, 2])), ["expected shape"]),
    "an order that is none": (lambda: plain(kind="Permutation", features=2, order=[0, 0], dtype=None), ["order"]),
    "an order of another length": (
        lambda: plain(kind="Permutation", features=3, order=[0, 1], dtype=None),
        ["order: expected 3 values, got 2"],
    ),
    "a standard deviation of 0": (
        lambda: with_header(maf(), set_at("transforms", 1, "std", to=[1.0, 0.0, 1.0])),
        [r"transforms\[1\]: std: expected finite numbers of at least .*, got 0.0 at index 1"],
    ),
    "a mean that is no number": (
        lambda: with_header(maf(), set_at("transforms", 1, "mean", to=[1.0, "a", 1.0])),
        [r"transforms\[1\]: mean: expected a one-dimensional array of numbers"],
    ),
    "an infinite mean": (
        lambda: with_header(maf(), lambda h: json.dumps(h).replace('"mean": [0.0', '"mean": [1e999')),
        [r"transforms\[1\]: mean: expected finite numbers, got inf at index 0"],
    ),
    "a mean of NaN": (
        lambda: with_header(maf(), lambda h: json.dumps(h).replace('"mean": [0.0', '"mean": [NaN')),
        ["expected finite numbers, got NaN"],
    ),
    "a mean of one number": (lambda: with_header(maf(), set_at("transforms", 1, "mean", to=0.0)), ["mean: .*a list"]),
    "blocks of other sizes": (
        lambda: with_header(blocks(), set_at("blocks", to=[3, 3, 1])),
        ["blocks: expected sizes that add up to 8, got 7"],
    ),
    "an empty block": (
        lambda: with_header(blocks(), set_at("blocks", to=[3, 3, 0, 2])),
        [r"blocks\[2\]: expected an integer of between 1 and 8192, got 0"],
    ),
    "no blocks": (lambda: with_header(blocks(), set_at("blocks", to=[])), ["blocks: .*add up to 8, got 0"]),
    "blocks in another order": (
        lambda: with_header(blocks(), set_at("blocks", to=[2, 3, 3])),
        [r"blocks\[0\]: expected an orthogonal matrix"],
    ),
    "one block of the numbers of three": (
        lambda: with_header(blocks(), set_at("blocks", to=[8])),
        [r"blocks: expected shape \(64,\), got \(22,\)"],
    ),
    "blocks in single precision": (
        lambda: with_tensors(blocks(), lambda t: t.update(blocks=t["blocks"].astype("float32"))),
        ["blocks: expected float64, got float32"],
    ),
    "a block with a NaN": (
        lambda: with_tensors(blocks(), lambda t: t.update(blocks=np.full(22, np.nan))),
        [r"blocks\[0\]: expected an orthogonal matrix, .* nan"],
    ),
    "no numbers of blocks": (
        lambda: with_tensors(blocks(), lambda t: t.clear()),
        ["expected a tensor 'blocks', got none"],
    ),
    "a matrix and blocks": (
        lambda: with_header(blocks(), set_at("matrix", to=np.eye(8).ravel().tolist())),
        ["expected no key 'blocks'"],
    ),
    "an old matrix that is too short": (
        lambda: plain(kind="Rotation", features=2, matrix=[1.0, 0.0, 0.0], dtype=None),
        ["matrix: expected 4 values, got 3"],
    ),
    "a rotation of more features than one may have": (
        lambda: safetensors.numpy.save(
            {"blocks": np.ones(8193)},
            metadata={"headrace": json.dumps({**TOP, "dtype": None, "kind": "Rotation", "features": 8193,
                                              "blocks": [1] * 8193})},
        ),
        ["blocks: expected from 1 to 8192 features in all, got 8193"],
    ),
    "an infinite context": (
        lambda: with_header(
            maf(), lambda h: json.dumps(h).replace('context": null', 'context": {"mean": [0], "std": [1e999]}')
        ),
        [r"standardize_context\[1\]: expected finite numbers"],
    ),
    "a context scale of a list": (
        lambda: with_header(maf(), set_at("standardize_context", to=[[0.0], [1.0]])),
        ["standardize_context: expected a JSON object"],
    ),
    "a context scale where there is no context": (
        lambda: with_header(hr.MAF(2), set_at("standardize_context", to={"mean": [0.0], "std": [1.0]})),
        ["standardize_context: expected None"],
    ),
    "another number of features": (
        lambda: with_header(maf(), set_at("features", to=4)),
        ["features, context", "got 4"],
    ),
    "another number of context columns": (lambda: with_header(maf(), set_at("context", to=2)), ["and 1, as", "and 2"]),
    "a base of other features": (
        lambda: with_header(maf(), set_at("base", "features", to=4)),
        [r"transforms\[0\]: expected 4 features, as the base has, got 3"],
    ),
    "a base that is trainable or not": (
        lambda: with_header(EXAMPLES["normal"]("float32"), set_at("base", "trainable", to=1)),
        ["base: trainable: expected true or false, got 1"],
    ),
    "a cycle": (cyclic, ["masks: coordinates [01] and [01] depend on each other in a cycle"]),
    "no tensors": (lambda: network_file(2, []), ["expected a tensor 'layers.0.weight'"]),
    "a tensor too few": (
        lambda: with_tensors(maf(), lambda t: t.pop("transforms.0.layers.1.mask")),
        [r"transforms\[0\]: expected a tensor 'transforms.0.layers.1.mask', got none"],
    ),
    "a tensor too many": (
        lambda: with_tensors(maf(), lambda t: t.update({"transforms.1.scale": np.ones(3)})),
        ["expected no tensor 'transforms.1.scale'"],
    ),
    "a weight of another shape": (
        lambda: with_tensors(maf(), lambda t: t.update({"transforms.0.layers.0.weight": np.ones((4, 3), "f")})),
        [r"layers.0.weight: expected shape \(any, 4\), got \(4, 3\)"],
    ),
    "a bias of two dimensions": (
        lambda: with_tensors(maf(), lambda t: t.update({"transforms.0.layers.0.bias": np.ones((4, 1), "f")})),
        [r"layers.0.bias: expected shape \(4,\), got \(4, 1\)"],
    ),
    "a mask of numbers": (
        lambda: with_tensors(maf(), lambda t: t.update({"transforms.0.layers.0.mask": np.ones((4, 4), "f")})),
        ["layers.0.mask: expected bool, got float32"],
    ),
    "a mask of other bytes": (
        lambda: GOOD[:-1] + b"\x02",
        ["expected bytes 0 and 1 in a tensor of BOOL"],
    ),
    "a last layer of other rows": (
        lambda: network_file(2, zeros((3, 2))),
        [r"layers.0.bias: expected shape \(4,\), got \(3,\)"],
    ),
    "a tensor of a dtype that is never written": (
        lambda: with_tensors(maf(), lambda t: t.update({"transforms.0.layers.0.bias": np.ones(4, "f2")})),
        ["layers.0.bias: dtype: expected one of 'F32', 'F64', 'BOOL', got 'F16'"],
    ),
    "three dimensions": (lambda: with_tensors(maf(), lambda t: t.update(a=np.ones((1, 1, 1)))), ["at most 2 sizes"]),
    "a control character": (
        lambda: with_header(maf(), set_at("kind", to="\x1b[31mred\nred")),
        [r"kind: expected one of .*\\x1b\[31mred"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_what_is_wrong(name):
    make, patterns = BROKEN[name]
    refused(make(), *patterns)


def test_the_message_names_the_file(tmp_path):
    (tmp_path / "my.safetensors").write_bytes(GOOD[:-1])
    with pytest.raises(hr.FileFormatError, match=rf"^{tmp_path}/my\.safetensors: truncated"):
        hr.load(tmp_path / "my.safetensors")
    assert issubclass(hr.FileFormatError, ValueError)


def test_what_a_message_quotes_is_harmless_and_short():
    name = "\x1b[31m" + "x" * 10**6
    error = refused(with_entries(maf(), lambda e: e.update({name: {}})), "expected an object of dtype, shape")
    assert "\x1b" not in str(error.value)


# ---- the container --------------------------------------------------------------------------------------------------

WEIGHT, BIAS = "transforms.0.layers.0.weight", "transforms.0.layers.0.bias"

ENTRIES = {
    "an entry that is no object": lambda e: e.update({WEIGHT: 3}),
    "an entry without a shape": lambda e: e[WEIGHT].pop("shape"),
    "an entry with more": lambda e: e[WEIGHT].update(strides=[1]),
    "an unknown dtype": lambda e: e[WEIGHT].update(dtype="F128"),
    "a dtype of a number": lambda e: e[WEIGHT].update(dtype=4),
    "a shape of floats": lambda e: e[WEIGHT].update(shape=[4.0, 4]),
    "a shape of true": lambda e: e[WEIGHT].update(shape=[True, 16]),
    "a negative shape": lambda e: e[WEIGHT].update(shape=[-4, -4]),
    "a shape of 2^63": lambda e: e[WEIGHT].update(shape=[2**63, 0]),
    "a shape whose product overflows to what is there": lambda e: e[WEIGHT].update(shape=[2**62 + 4, 4]),
    "a shape of 2^32 by 2^32": lambda e: e[WEIGHT].update(shape=[2**32, 2**32]),
    "another shape": lambda e: e[WEIGHT].update(shape=[4, 5]),
    "offsets of one number": lambda e: e[WEIGHT].update(data_offsets=[0]),
    "offsets of text": lambda e: e[WEIGHT].update(data_offsets="01"),
    "negative offsets": lambda e: e[WEIGHT].update(data_offsets=[-64, 0]),
    "offsets backwards": lambda e: e[WEIGHT].update(data_offsets=e[WEIGHT]["data_offsets"][::-1]),
    "offsets far away": lambda e: e[WEIGHT].update(data_offsets=[2**60, 2**60 + 64]),
    "offsets beyond 64 bits": lambda e: e[WEIGHT].update(data_offsets=[2**64, 2**64 + 64]),
    "an overlap": lambda e: e[WEIGHT].update(data_offsets=[n - 4 for n in e[WEIGHT]["data_offsets"]]),
    "a gap": lambda e: e[WEIGHT].update(data_offsets=[n + 4 for n in e[WEIGHT]["data_offsets"]]),
    "the place of another": lambda e: e[BIAS].update(data_offsets=[n + 16 for n in e[BIAS]["data_offsets"]]),
    "a tensor without an entry": lambda e: e.pop(WEIGHT),
    "an empty tensor inside another": lambda e: e.update(x={"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}),
    "an empty tensor of a claim": lambda e: e.update(x={"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_wrong_shapes_and_places_of_tensors_are_refused(name):
    """Each on its own makes a file that the container's checks refuse, or in which a tensor is too many."""
    error = refused(with_entries(maf(), ENTRIES[name]), r"dtype|shape|offsets|tensor")
    assert "no safetensors file" not in str(error.value), "the library refused it: our own checks come first"


# ---- memory ---------------------------------------------------------------------------------------------------------


def bottleneck(features):
    """A few bytes a coordinate, but half of the coordinates depend on the other half."""
    layers = zeros((1, features), (2 * features, 1))
    layers[0][2][0, : features // 2] = True
    layers[1][2][features:] = True
    return network_file(features, layers)


HUGE = {
    "10^12 features of a base": lambda: plain(kind="Flow", features=10**12, context=0, standardize_context=None,
        base={"kind": "StandardNormal", "features": 10**12}, transforms=[]),
    "2^31 features of a base": lambda: plain(kind="Flow", features=2**31 - 1, context=0, standardize_context=None,
        base={"kind": "Logistic", "features": 2**31 - 1}, transforms=[]),
    "10^12 features of a trainable base": lambda: plain(kind="Flow", features=10**12, context=0,
        standardize_context=None, base={"kind": "Normal", "features": 10**12, "trainable": True}, transforms=[]),
    "131072 features of a trainable base": lambda: plain(kind="Flow", features=2**17, context=0,
        standardize_context=None, base={"kind": "Normal", "features": 2**17, "trainable": True}, transforms=[]),
    "10^12 features of a network": lambda: with_header(maf(), set_at("transforms", 0, "features", to=10**12)),
    "131072 features of a network": lambda: with_header(maf(), set_at("transforms", 0, "features", to=2**17)),
    "131072 features of a coupling": lambda: with_header(coupling(), set_at("features", to=2**17)),
    "131072 features of a planar transform": lambda: with_header(hr.Planar(2), set_at("features", to=2**17)),
    "10^12 features of a radial transform": lambda: with_header(hr.Radial(2), set_at("features", to=10**12)),
    "10^5 context columns of a radial transform": lambda: with_header(
        hr.Radial(2, context=1, hidden=(1,)), set_at("context", to=10**5)),
    "10^12 context columns": lambda: with_header(maf(), set_at("transforms", 0, "context", to=10**12)),
    "context columns without a weight": lambda: network_file(2, zeros((0, 2 + 10**7), (4, 0)), context=10**7),
    "blocks of 131072 features": lambda: plain(kind="Rotation", features=2**17, dtype=None, blocks=[2**13] * 16),
    "10^5 blocks": lambda: plain(kind="Rotation", features=10**5, dtype=None, blocks=[1] * 10**5),
    "10^12 bins": lambda: with_header(hr.NSF(2, hidden=(4,)), set_at("transforms", 0, "bins", to=10**12)),
    "64 bins": lambda: with_header(hr.NSF(2, hidden=(4,)), set_at("transforms", 0, "bins", to=64)),
    "a bottleneck of 131072 features": lambda: bottleneck(2**17),
    "a bottleneck of 30000 features": lambda: bottleneck(30_000),
    "more features than a file may have": lambda: plain(kind="Permutation", features=2**17 + 1, dtype=None,
        order=list(range(2**17 + 1))),
    "a header of empty lists": lambda: container(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
    "a header of one string": lambda: container(b'{"a":"' + b"x" * 15_000_000 + b'"}'),
    "a header of quotes": lambda: container(b'{"a":"' + b'\\"' * 7_000_000 + b'"}'),
    "a header of backslashes": lambda: container(b'{"a":"' + b"\\" * 15_000_000),
    "a header of brackets": lambda: container(b"[" * 16_000_000),
    "a headrace header of lists": lambda: with_header(maf(), lambda h: '{"a":[' + "[]," * 1_000_000 + "[]]}"),
    "many keys": lambda: container(json.dumps({str(i): 0 for i in range(300_000)}).encode()),
    "many tensors": lambda: container(json.dumps({
        "__metadata__": {"headrace": json.dumps(TOP)},
        **{str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}}).encode()),
    "many transforms": lambda: plain(kind="Flow", features=3, context=0, standardize_context=None,
        base={"kind": "StandardNormal", "features": 3}, transforms=[{"kind": "Inverse", "transform": {}}] * 100_000),
}  # fmt: skip

# Little beside what these files claim: the largest headers take some 400 MB as Python objects, and the checks of
# their text copy it a few times.
MOST_MEGABYTES = 700

LOADER = """
import resource, sys, time
import headrace as hr
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))  # a failure should not take the machine with it
for path in sys.argv[1:]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        hr.load(path)
        said = "loaded"
    except hr.FileFormatError:
        said = "refused"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(path.rsplit("/", 1)[1], said, f"{grown:.0f}", f"{time.perf_counter() - start:.1f}", sep=",")
"""


@pytest.mark.programs
def test_huge_claims_are_refused_in_little_memory(tmp_path):
    """In a process of their own, which never forgets its peak of memory."""
    for name, make in HUGE.items():
        (tmp_path / name).write_bytes(make())
    command = [sys.executable, "-c", LOADER, *(str(tmp_path / name) for name in HUGE)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    lines = [line.split(",") for line in run.stdout.splitlines()]
    assert [line[0] for line in lines] == list(HUGE)
    assert {line[0]: line[1] for line in lines if line[1] != "refused"} == {}
    assert sum(float(line[2]) for line in lines) < MOST_MEGABYTES, run.stdout


# ---- at random ------------------------------------------------------------------------------------------------------

SMALL = ("maf-context", "everything", "rotation-in-blocks", "coupling-alone", "normal", "nsf-coupling")


def try_to_load(data):
    """Loads or is refused; what loads can be run, and saved again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            module = files.from_bytes(data)
        except hr.FileFormatError:
            return False
    x = np.ones((9, module.features))
    context = np.ones((9, module.context)) if module.context else None
    if isinstance(module, hr.Flow):
        module.log_prob(x, context)
        module.sample(9, context, seed=0)
    else:
        module.forward(x, context)
        module.inverse(x[:1], None if context is None else context[:1])
    files.to_bytes(module)
    return True


@pytest.mark.parametrize("name", SMALL)
def test_flipped_bytes_load_or_are_refused(name):
    data = files.to_bytes(EXAMPLES[name]("float32"))
    generator = cases.rng("flips", name)
    loaded = 0
    for _ in range(600):
        changed = bytearray(data)
        for _ in range(generator.integers(1, 4)):
            changed[generator.integers(len(changed))] = generator.integers(256)
        loaded += try_to_load(bytes(changed))
    assert 0 < loaded < 600


@pytest.mark.parametrize("name", SMALL)
def test_cut_repeated_and_exchanged_parts_load_or_are_refused(name):
    data = files.to_bytes(EXAMPLES[name]("float64"))
    generator = cases.rng("parts", name)
    for _ in range(300):
        a, b, c = sorted(generator.integers(0, len(data) + 1, 3))
        for changed in (
            data[:a],
            data[:a] + data[b:],
            data[:b] + data[a:],
            data[:a] + data[b:c] + data[a:b] + data[c:],
        ):
            if changed != data:
                try_to_load(changed)


NASTY = (
    None, True, False, -1, 0, 1, 2, 3, 64, 65, 2**31 - 1, 2**31, 2**32, 2**63, 10**12, 10**19, 0.0, -0.0, 1e-320, 0.5,
    1.0, 5e300, "", "x", "affine", "rq_spline", "additive", "MAF", "Normal", "Inverse", "Standardize", "float64",
    "latent", [], [0], [1, 0], [[]], [1e308] * 3, ["shift"], {},
    {"kind": "Permutation", "features": 3, "order": [2, 0, 1]},
)  # fmt: skip


def some(items, *key):
    """At most 1500 of many."""
    items = list(items)
    return [items[i] for i in cases.rng(*key).permutation(len(items))[:1500]]


def places(value, path=()):
    """Paths to everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.mark.parametrize("name", SMALL)
def test_headers_with_anything_anywhere_load_or_are_refused(name):
    """Places of the header take nasty values, or are dropped."""
    entries, header, tensors = unpack(files.to_bytes(EXAMPLES[name]("float32")))
    loaded = 0
    for path, value in some(itertools.product(places(header), (*NASTY, drop)), "headers", name):
        changed = copy.deepcopy(header)
        (drop(*path) if value is drop else set_at(*path, to=value))(changed)
        loaded += try_to_load(pack(entries, changed, tensors))
    assert loaded > 0


@pytest.mark.parametrize("name", SMALL)
def test_entries_with_anything_anywhere_load_or_are_refused(name):
    entries, header, tensors = unpack(files.to_bytes(EXAMPLES[name]("float32")))
    del entries["__metadata__"]
    values = (*NASTY, "F32", "BOOL", [0, 4], [2**62, 4])
    for path, value in some(itertools.product(places(entries), values), "entries", name):
        changed = copy.deepcopy(entries)
        set_at(*path, to=value)(changed)
        try_to_load(pack(changed, header, tensors))


@pytest.mark.parametrize("seed", range(60))
def test_any_staircase_loads_and_computes_what_its_masks_say(seed):
    """Levels and degrees that no constructor makes: the masks that they give are the truth, and results follow them."""
    generator = cases.rng("staircase", seed)
    features, context = int(generator.integers(1, 6)), int(generator.integers(0, 3))
    hidden = generator.integers(1, 12, generator.integers(0, 4)).tolist()
    levels = generator.integers(1, features + 1, features).tolist()
    degrees = [generator.integers(0, features + 1, n).tolist() for n in hidden]
    example = hr.MaskedAutoregressive(features, hidden, context=context, dtype="float64")
    options = cpu.MaskedOptions(**example._settings.options(range(features), range(features)))
    masks = cpu.MaskedTransform(options, levels, degrees).masks()
    dense = cases.fill(masks, generator)
    data = network_file(
        features,
        zip(dense.weights, dense.biases, masks, strict=True),
        levels,
        degrees,
        context=context,
        dtype="float64",
    )
    module = files.from_bytes(data)
    judge = reference.MaskedAutoregressive(reference.Network(dense.weights, dense.biases, masks))
    x = generator.standard_normal((20, features))
    cases.check_directions(module, judge, x, generator.standard_normal((20, context)) if context else None, "float64")


@pytest.mark.parametrize("seed", range(60))
def test_random_masks_load_exactly_if_no_coordinate_depends_on_itself(seed):
    generator = cases.rng("masks", seed)
    features = int(generator.integers(1, 5))
    widths = [features, *generator.integers(0, 6, generator.integers(0, 3)).tolist(), 2 * features]
    masks = [generator.random((out, into)) < 0.25 for into, out in itertools.pairwise(widths)]
    reach = reference.reads(masks).reshape(features, 2, features).any(axis=1)
    closed = np.linalg.matrix_power(np.eye(features, dtype=int) + reach, features) > 0
    acyclic = not (reach.diagonal().any() or (closed & closed.T & ~np.eye(features, dtype=bool)).any())
    layers = [(np.ones(m.shape, "f"), np.ones(len(m), "f"), m) for m in masks]
    assert try_to_load(network_file(features, layers)) == acyclic


def test_depth_is_that_of_the_brackets_outside_strings():
    for text, depth in {
        "": 0, "1": 0, "[]": 1, "[[],[]]": 2, '{"a":[{}]}': 3, '["[[["]': 1, '["\\"[["]': 1, '["\\\\",[]]': 2,
        '["\\\\\\"[["]': 1, '{"[":"]"}': 1, "]]][": 0,
    }.items():  # fmt: skip
        assert files._depth(text) == depth, text
    generator = cases.rng("depth")
    for _ in range(300):
        text = "".join(generator.choice(list('[]{}\\"a'), generator.integers(0, 12)))
        value = json.dumps([text, {text: [text]}])
        assert files._depth(value) == 3


def test_sizes_are_multiplied_without_overflow():
    assert math.prod([2**62 + 4, 4]) * 4 > 2**64  # the case of ENTRIES: modulo 2^64 these are the 64 bytes that it has
    assert (2**62 + 4) * 4 * 4 % 2**64 == 64
