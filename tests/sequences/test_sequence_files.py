"""Files of sequences: equal bits after loading, a format that older readers refuse, and contradictions that are
detected."""

import json
import pathlib
import pickle

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import cases
import headrace as hr
import hostile_files
import sequence_cases
from headrace._base import stored as _stored
from headrace.sequences.sequential import Sequential

NAMES = list(sequence_cases.EXAMPLES)
GIVEN = ("x", "context", "covariates")
KEPT = sorted(pathlib.Path(__file__).parents[1].glob("files/*/sequences/*.safetensors"))


def example(name, dtype="float32"):
    return sequence_cases.EXAMPLES[name](dtype)


def header_of(path):
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["headrace"])


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_bit_comes_back(name, dtype, tmp_path):
    flow = example(name, dtype)
    flow.save(tmp_path / "flow")
    again = hr.load(tmp_path / "flow")
    assert type(again) is type(flow)
    assert repr(again) == repr(flow)
    cases.assert_same_bits(again.parameters, flow.parameters)
    assert hr.to_bytes(again) == (tmp_path / "flow").read_bytes()
    # Format 3 is needed for arrays of three axes, which a prediction lacks.
    assert header_of(tmp_path / "flow")["format"] == (2 if name == "prediction" else 3)
    other = pickle.loads(pickle.dumps(flow))
    cases.assert_same_bits(other.parameters, flow.parameters)
    given = sequence_cases.inputs_of(flow)
    for key, array in sequence_cases.results_of(flow, *given).items():
        cases.assert_same_bits(sequence_cases.results_of(again, *given)[key], array)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_files_of_every_version_have_their_recorded_results(path):
    """Results agree up to rounding, because other instruction sets and versions may round differently."""
    module = hr.load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    assert header_of(path)["version"] == path.parents[1].name
    given = [None if (array := expected.pop(name)) is None else np.array(array, module.dtype) for name in GIVEN]
    got = sequence_cases.results_of(module, *given)
    assert set(got) == set(expected)
    for key, array in got.items():
        want = np.array(expected[key])
        cases.assert_close(array.astype(module.dtype), want, magnitude=np.abs(want).max(), depth=40)


def test_kept_files_are_small_and_of_every_example():
    kept = {path.stem for path in KEPT if path.parents[1] == KEPT[-1].parents[1]}
    names = {stem.rsplit("-", 1)[0] for stem in kept} if hr.__version__.endswith(".dev0") else set(NAMES)
    assert names <= set(NAMES)
    assert kept == {f"{name}-{dtype}" for name in names for dtype in cases.DTYPES}
    for path in KEPT:
        assert path.stat().st_size < 64_000
        assert path.with_suffix(".json").stat().st_size < 16_000


def test_every_kind_of_sequences_has_an_example():
    kinds = {name for name, kind in _stored.KINDS.items() if issubclass(kind, Sequential)}
    kinds -= {"AdaptivePrediction"}  # has no parameters; its example is sequence_cases.adaptive
    assert {type(example(name)).__name__ for name in NAMES} == kinds, "sequence_cases.EXAMPLES lacks a kind"


def test_files_of_rows_are_still_of_the_format_that_older_readers_know(tmp_path):
    hr.MAF(2).save(tmp_path / "flow")
    assert header_of(tmp_path / "flow")["format"] == 2


def test_tensors_have_the_shapes_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    flow = example("spline")
    flow.save(tmp_path / "flow")
    tensors = safetensors.numpy.load_file(tmp_path / "flow")
    weight, bias = (torch.tensor(tensors[f"transforms.0.input.{name}"]) for name in ("weight", "bias"))
    conv = torch.nn.Conv1d(*weight.shape[1::-1], weight.shape[2])
    conv.load_state_dict({"weight": weight, "bias": bias})
    assert tensors["transforms.0.layers.1.gate.weight"].shape == (18, 9, 3)


def rewritten(path, change_header, change_tensors=lambda tensors: None):
    """The file with another header or other tensors, and with their right checksum."""
    return hostile_files.resealed(path.read_bytes(), change_header, change_tensors)


def part(header):
    return header["transforms"][0]


LIES = {
    "format 2": (lambda h: h.update(format=2), ["shape: expected a list of at most 2 sizes"]),
    "a format to come": (lambda h: h.update(format=4), ["file format 4", "reads formats up to 3"]),
    "another kind": (lambda h: part(h).update(kind="MAF"), [r"transforms\[0\]", "kind: expected one of"]),
    "channels": (lambda h: part(h).update(channels=10), ["input.weight: expected shape", r"got \(9, 2, 3\)"]),
    "dilations": (lambda h: part(h).update(dilations=[1]), ["layers.0.out.weight: expected shape"]),
    "a dilation": (lambda h: part(h).update(dilations=[1, 2, 4, 8, 0]), [r"dilations\[4\]", "got 0"]),
    "kernel": (lambda h: part(h).update(kernel=4), ["input.weight: expected shape"]),
    "covariates": (lambda h: part(h).update(covariates=3), ["gate.covariates"]),
    "huge": (
        lambda h: part(h).update(channels=8192, kernel=32, dilations=[1] * 1000),
        ["expected a network whose weights fit"],
    ),
    "another key": (lambda h: part(h).update(echo=1), ["expected no key 'echo'"]),
    "no reads": (lambda h: part(h).pop("reads"), ["expected the key 'reads'"]),
    "features": (lambda h: h.update(features=2), ["features: expected 1, as base and transforms have, got 2"]),
    "no chain": (lambda h: h.update(transforms=[]), ["expected"]),
}


@pytest.mark.parametrize("name", LIES)
def test_contradictory_headers_are_refused(name, tmp_path):
    change, words = LIES[name]
    example("spline").save(tmp_path / "flow")
    with pytest.raises(hr.FileFormatError) as error:
        hr.from_bytes(rewritten(tmp_path / "flow", change))
    cases.assert_says(error, *words)


def inner(header):
    return part(header)["inner"]


INNER_LIES = {
    "features": (lambda h: inner(h).update(features=2), [r"transforms\[0\]", "inner", r"got \(2, "]),
    "context": (lambda h: inner(h).update(context=5), ["inner", "got .*5"]),
    "no flow": (lambda h: part(h).update(inner=h["transforms"][1]), ["inner: kind: expected one of"]),
    "a number": (lambda h: part(h).update(inner=3), ["inner: expected a JSON object, got int"]),
    "another base": (
        lambda h: inner(h).update(base={"kind": "Logistic", "features": 3}),
        ["expected a flow on Standard"],
    ),
    "a map beside it": (lambda h: part(h).update(map="affine"), ["expected no key 'map'"]),
    "none": (lambda h: part(h).pop("inner"), ["expected the key 'map'"]),
}


@pytest.mark.parametrize("name", INNER_LIES)
def test_contradictory_headers_of_inner_flows_are_refused(name, tmp_path):
    change, words = INNER_LIES[name]
    example("inner").save(tmp_path / "flow")
    with pytest.raises(hr.FileFormatError) as error:
        hr.from_bytes(rewritten(tmp_path / "flow", change))
    cases.assert_says(error, *words)


def test_a_tensor_too_many_and_one_too_few(tmp_path):
    example("spline").save(tmp_path / "flow")
    name = "transforms.0.layers.1.gate.weight"
    with pytest.raises(hr.FileFormatError, match=f"expected a tensor '{name}'"):
        hr.from_bytes(rewritten(tmp_path / "flow", lambda h: None, lambda t: t.pop(name)))
    with pytest.raises(hr.FileFormatError, match="expected no tensor 'more'"):
        hr.from_bytes(rewritten(tmp_path / "flow", lambda h: None, lambda t: t.update(more=np.zeros((1, 2, 3), "f4"))))


def test_four_axes_are_refused(tmp_path):
    example("spline").save(tmp_path / "flow")
    more = {"more": np.zeros((1, 1, 1, 1), "float32")}
    with pytest.raises(hr.FileFormatError, match="more: shape: expected a list of at most 3 sizes"):
        hr.from_bytes(rewritten(tmp_path / "flow", lambda h: None, lambda t: t.update(more)))
