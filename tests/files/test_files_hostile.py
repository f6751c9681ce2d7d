"""Files that are broken, foreign, newer or made to do harm raise a clear error."""

import json
import math
import re
import struct

import numpy as np
import pytest
import safetensors.numpy

import cases
import headrace as hr
from headrace import files
from hostile_files import (
    EXAMPLES,
    GOOD,
    TOP,
    blocks,
    container,
    coupling,
    cyclic,
    drop,
    maf,
    network_file,
    plain,
    refused,
    resealed,
    set_at,
    with_entries,
    with_header,
    with_tensors,
    zeros,
)

PLAIN = {
    "kind": "Flow", "features": 1, "context": 0, "standardize_context": None, "transforms": [],
    "base": {"kind": "StandardNormal", "features": 1},
}  # fmt: skip


def some_columns():
    return hr.transforms.OnColumns(hr.transforms.Permutation([1, 0]), [2, 0], 4)


def ensemble():
    return EXAMPLES["ensemble"]("float32")


BROKEN = {
    "nothing": (lambda: b"", ["truncated, or no safetensors file", "at least 8 bytes, got 0"]),
    "seven bytes": (lambda: GOOD[:7], ["truncated, or no safetensors file", "got 7"]),
    "no header": (lambda: GOOD[:8], ["truncated", r"a header of \d+ bytes, got 0"]),
    "half a header": (lambda: GOOD[:100], ["truncated", r"a header of \d+ bytes, got 92"]),
    "half of the tensors": (lambda: GOOD[:-100], ["truncated", r"expected \d+ bytes of tensors, got \d+"]),
    "one byte less": (lambda: GOOD[:-1], ["truncated", "bytes of tensors"]),
    "one byte more": (lambda: GOOD + b"\0", [r"expected \d+ bytes of tensors, got \d+", "appended"]),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), ["no safetensors file: expected a header of at most"]),
    "a length of 2^64 - 1": (lambda: b"\xff" * 8 + GOOD[8:], [f"got {2**64 - 1}"]),
    "a length of 2^24 + 1": (lambda: struct.pack("<Q", 2**24 + 1) + GOOD[8:], ["bytes, got 16777217"]),
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
        ["file format 7, written by headrace 9.1.0", "reads formats up to 3", "upgrade it"],
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
        lambda: with_header(hr.transforms.Permutation([0]), set_at("dtype", to="float32")),
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
        [r"transforms\[0\]: kind: expected one of 'ActNorm', 'Coupling', ", "'MAF'"],
    ),
    "a transform for a base": (
        lambda: with_header(maf(), set_at("base", "kind", to="Permutation")),
        ["base: kind: expected one of 'Independent', 'Logistic', 'Normal', "],
    ),
    "a kind of a list": (lambda: with_header(maf(), set_at("kind", to=["MAF"])), ["kind: expected one of"]),
    "an unknown nonlinearity": (
        lambda: with_header(hr.transforms.Planar(2), set_at("nonlinearity", to="relu")),
        ["nonlinearity: expected one of 'tanh', 'leaky_relu', got 'relu'"],
    ),
    "a planar transform without its slope": (
        lambda: with_header(hr.transforms.Planar(2), drop("negative_slope")),
        ["expected the key 'negative_slope'"],
    ),
    "a planar transform of more features than numbers": (
        lambda: with_header(hr.transforms.Planar(2), set_at("features", to=3)),
        [r"w: expected shape \(3,\), got \(2,\)"],
    ),
    "a radial transform without a network for its context": (
        lambda: with_header(hr.transforms.Radial(2), set_at("context", to=1)),
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
    "a newer activation": (
        lambda: with_header(maf(), set_at("transforms", 0, "activation", to="gelu_cubic")),
        [r"transforms\[0\]: activation: expected one of .*'gelu_tanh', got 'gelu_cubic'"],
    ),
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
        [r"levels\[2\]: expected an integer from 1 to 3, got 4"],
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
    "an order that repeats": (lambda: plain(kind="Permutation", features=2, order=[0, 0], dtype=None), ["order"]),
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
        [r"blocks\[2\]: expected an integer from 1 to 8192, got 0"],
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
    "a linear map with a sign of zero": (
        lambda: with_header(hr.transforms.Linear(2), set_at("signs", 1, to=0)),
        [r"signs\[1\]: expected 1 or -1, got 0"],
    ),
    "a linear map with a sign that is no integer": (
        lambda: with_header(hr.transforms.Linear(2), set_at("signs", 0, to=True)),
        [r"signs\[0\]: expected 1 or -1, got True"],
    ),
    "a linear map of too few signs": (
        lambda: with_header(hr.transforms.Linear(2), set_at("signs", to=[1])),
        ["signs: expected 2 values, got 1"],
    ),
    "a linear map of no order": (
        lambda: with_header(hr.transforms.Linear(2), set_at("order", to=[1, 1])),
        ["order: expected each of 0 to 1 exactly once"],
    ),
    "a linear map of other features": (
        lambda: with_header(hr.transforms.Linear(2), set_at("features", to=3)),
        ["signs: expected 3 values, got 2"],
    ),
    "a linear map of more features than one may have": (
        lambda: with_header(hr.transforms.Linear(2), set_at("features", to=8193)),
        ["features: expected at most 8192, got 8193"],
    ),
    "a norm that has started by half": (
        lambda: with_header(hr.transforms.ActNorm(2), set_at("started", to=0.5)),
        ["started: expected true or false, got 0.5"],
    ),
    "a column twice": (
        lambda: with_header(some_columns(), set_at("columns", to=[2, 2])),
        ["columns: expected different coordinates"],
    ),
    "a column that is not there": (
        lambda: with_header(some_columns(), set_at("columns", to=[2, 4])),
        ["columns", "4"],
    ),
    "fewer columns than a transform has": (
        lambda: with_header(some_columns(), set_at("columns", to=[2])),
        ["columns: expected 2", "got 1"],
    ),
    "a standardisation of some columns": (
        lambda: with_header(
            some_columns(),
            set_at("transform", to={"kind": "Standardize", "features": 2, "mean": [0.0, 0.0], "std": [1.0, 1.0]}),
        ),
        ["transform: expected no Standardize, Support or Gaussianize"],
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
        ["features, context", r"got \(4, "],
    ),
    "another number of context columns": (
        lambda: with_header(maf(), set_at("context", to=2)),
        [r"expected \(3, 1\), got \(3, 2\)"],
    ),
    "a base of other features": (
        lambda: with_header(maf(), set_at("base", "features", to=4)),
        [r"transforms\[0\]: expected 4 features, as the base has, got 3"],
    ),
    "a base that is trainable or not": (
        lambda: with_header(EXAMPLES["normal"]("float32"), set_at("base", "trainable", to=1)),
        ["base: trainable: expected true or false, got 1"],
    ),
    "an ensemble of transforms": (
        lambda: with_header(ensemble(), set_at("members", 0, "kind", to="Permutation")),
        [r"members\[0\]: kind: expected one of 'AscentFlow', ", "'Permutation'"],
    ),
    "an ensemble of ensembles": (
        lambda: with_header(ensemble(), set_at("members", 1, "kind", to="Ensemble")),
        [r"members\[1\]: kind: expected one of .*got 'Ensemble'"],
    ),
    "an ensemble of none": (
        lambda: with_header(ensemble(), set_at("members", to=[])),
        ["flows: expected at least one, got none"],
    ),
    "an ensemble of a weight too many": (
        lambda: with_header(ensemble(), set_at("weights", to=[1.0] * 4)),
        ["weights: expected 3 values, got 4"],
    ),
    "an ensemble of weights below 0": (
        lambda: with_header(ensemble(), set_at("weights", 0, to=-1.0)),
        ["weights: expected numbers of at least 0"],
    ),
    "an ensemble of other features": (
        lambda: with_header(ensemble(), set_at("features", to=3)),
        [r"features, context: expected \(2, 1\) of members, got \(3, 1\)"],
    ),
    "an ensemble whose members differ": (
        lambda: with_header(ensemble(), lambda h: h["members"].append(PLAIN) or h["weights"].append(1.0)),
        ["flows: expected one features, got 2, 1"],
    ),
    "an ensemble without a member's numbers": (
        lambda: with_tensors(ensemble(), lambda t: t.pop("members.1.base.loc")),
        [r"members\[1\]: base: expected a tensor 'members.1.base.loc', got none"],
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
def test_broken_files_are_refused_with_the_fault(name):
    make, patterns = BROKEN[name]
    refused(make(), *patterns)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_truth_values_in_place_of_numbers_are_refused(key):
    data = hr.to_bytes(hr.transforms.Standardize([1.0, 1.0], [1.0, 1.0]))
    changed = resealed(data, lambda header: header[key].__setitem__(0, True))
    refused(changed, rf"{key}: expected numbers, got a truth value")


def test_the_message_names_the_file(tmp_path):
    (tmp_path / "my.safetensors").write_bytes(GOOD[:-1])
    with pytest.raises(hr.FileFormatError, match=rf"^{re.escape(str(tmp_path))}/my\.safetensors: truncated"):
        hr.load(tmp_path / "my.safetensors")
    assert issubclass(hr.FileFormatError, ValueError)


def test_quotations_in_messages_are_harmless_and_short():
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
    """Each change by itself makes a file that the container's checks refuse, or that has one tensor too many."""
    error = refused(with_entries(maf(), ENTRIES[name]), r"dtype|shape|offsets|tensor")
    assert "no safetensors file" not in str(error.value), "the library refused it: our own checks come first"


def test_depth_is_that_of_the_brackets_outside_strings():
    for text, depth in {
        "": 0, "1": 0, "[]": 1, "[[],[]]": 2, '{"a":[{}]}': 3, '["[[["]': 1, '["\\"[["]': 1, '["\\\\",[]]': 2,
        '["\\\\\\"[["]': 1, '{"[":"]"}': 1, "]]][": 0,
    }.items():  # fmt: skip
        assert files._brackets(text)[0] == depth, text
    generator = cases.rng("depth")
    for _ in range(300):
        text = "".join(generator.choice(list('[]{}\\"a'), generator.integers(0, 12)))
        value = json.dumps([text, {text: [text]}])
        assert files._brackets(value)[0] == 3


def test_sizes_are_multiplied_without_overflow():
    assert math.prod([2**62 + 4, 4]) * 4 > 2**64  # the product in ENTRIES is 64 bytes modulo 2^64
    assert (2**62 + 4) * 4 * 4 % 2**64 == 64
