"""The header headrace.hpp refuses the files that Python refuses, and reads those that Python reads."""

import copy
import itertools
import runpy

import numpy as np
import pytest

import cases
import headrace as hr
import hostile_files
from headrace import files
from runtime_library import ROOT, Refused
from selection import NIGHTLY

pytestmark = pytest.mark.programs

FILES = ROOT / "tests" / "files"
HOSTILE, RANDOM = (runpy.run_path(str(FILES / f"test_files_{name}.py")) for name in ("hostile", "random"))
BROKEN, ENTRIES, NASTY, places = HOSTILE["BROKEN"], HOSTILE["ENTRIES"], RANDOM["NASTY"], RANDOM["places"]
NAMES = (*RANDOM["SMALL"], "splines", "linear", "planar-context", "radial-context", "dual-ascent", "normal-fixed")
NAMES += ("support-alone", "support", "periodic", "student-t", "student-t-fixed", "mixture", "mixture-fixed")
NAMES += ("on-columns", "on-columns-alone", "periodic-maf", "periodic-dual-ascent")

# Refusals of values that Python accepts as numbers or defaults, and that no header of headrace has.
STRICTER = ("expected numbers", "activation: expected one of", "outputs: expected a list, got null")


def agree(runtime, data):
    """Check that Python and the header both read and run a file, or that both refuse it; return whether they read
    it."""
    try:
        module = files.from_bytes(data)
    except hr.FileFormatError:
        for dtype in cases.DTYPES:
            with pytest.raises(Refused, match=r"^format: "):
                runtime.load(data, dtype)
        return False
    try:
        loaded = runtime.load(data, "float64")
    except Refused as error:
        if not any(words in str(error) for words in STRICTER):
            raise
        return False
    x = np.ones((3, module.features))
    context = np.ones((3, module.context)) if module.context else None
    if isinstance(module, hr.Ensemble):
        want = module.log_prob(x, context)
        np.testing.assert_allclose(loaded.log_prob(x, context), want, rtol=1e-6, atol=1e-6)
        return True
    got = loaded.to_latent(x, context)[0]
    if module.dtype == np.float64:
        with np.errstate(all="ignore"):
            want = (module.to_latent if isinstance(module, hr.Flow) else module.inverse)(x, context)[0]
        if np.isfinite(want).all() and np.abs(want).max() < 1e6:
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    if isinstance(module, hr.Flow):
        loaded.sample(2, module.features, 0, None if context is None else context[:2])
    return True


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(runtime, name):
    assert not agree(runtime, BROKEN[name][0]())


@pytest.mark.parametrize("name", ENTRIES)
def test_wrong_shapes_and_places_of_tensors_are_refused(runtime, name):
    assert not agree(runtime, hostile_files.with_entries(hostile_files.maf(), ENTRIES[name]))


@pytest.mark.parametrize("name", RANDOM["SMALL"])
def test_flipped_bytes_are_read_or_refused_as_in_python(runtime, name):
    data = hostile_files.unsealed(hostile_files.EXAMPLES[name]("float64"))
    generator = cases.rng("runtime flips", name)
    read = 0
    for _ in range(100):
        changed = bytearray(data)
        for _ in range(generator.integers(1, 4)):
            changed[generator.integers(len(changed))] = generator.integers(256)
        read += agree(runtime, bytes(changed))
    assert 0 < read < 100


@pytest.mark.parametrize("name", NAMES)
def test_headers_with_anything_anywhere_are_read_or_refused_as_in_python(runtime, name):
    entries, header, tensors = hostile_files.unpack(files.to_bytes(hostile_files.EXAMPLES[name]("float64")))
    every = list(itertools.product(places(header), (*NASTY, None)))
    for i in cases.rng("runtime headers", name).permutation(len(every))[: 150 if NIGHTLY else 50]:
        path, value = every[i]
        changed = copy.deepcopy(header)
        (hostile_files.drop(*path) if value is None else hostile_files.set_at(*path, to=value))(changed)
        agree(runtime, hostile_files.pack(entries, changed, tensors))


def test_a_changed_bit_is_found_by_the_checksum(runtime):
    data = files.to_bytes(hostile_files.EXAMPLES["maf-context"]("float32"))
    runtime.load(data, "float32")
    start = 8 + int.from_bytes(data[:8], "little")
    for bit in cases.rng("runtime bits").integers(8 * start, 8 * len(data), 100):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused, match=r"damaged|BOOL"):
            runtime.load(bytes(changed), "float32")


@pytest.mark.parametrize("seed", range(60))
def test_random_masks_are_read_if_no_coordinate_depends_on_itself(runtime, seed):
    generator = cases.rng("runtime masks", seed)
    features = int(generator.integers(1, 5))
    widths = [features, *generator.integers(0, 6, generator.integers(0, 3)).tolist(), 2 * features]
    masks = [generator.random((out, into)) < 0.25 for into, out in itertools.pairwise(widths)]
    layers = [(generator.standard_normal(m.shape), generator.standard_normal(len(m)), m) for m in masks]
    agree(runtime, hostile_files.network_file(features, layers, dtype="float64"))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,}', b"{'a':1}", b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":1e}', b'{"a":-}', b'{"a"}',
        b'{"a":"\t"}', b'{"a":"\\x"}', b'{"a":"\\ud800"}', b'{"a":"\\udc00\\ud800"}', b'{"a":"\\u12"}', b'{"a":tru}',
        b'{"a":1}{', b'{"a":1} \0', b'{"a":"', b'{"a":"\\', b'{"a":1e999}', b'{"\xc0\xaf":1}', b'{"\xed\xa0\x80":1}',
        b'{"\xf4\x90\x80\x80":1}', b'{"\xe2\x82":1}', b'{"a":Infinity}', b'{"a":-Infinity}', b"", b" ", b"[", b"{",
        b"[" * 65 + b"]" * 65, b'[1 2]', b'{"a" 1}', b'// no\n{}',
    ],
)  # fmt: skip
def test_other_texts_than_json_are_refused(runtime, text):
    with pytest.raises(Refused, match=r"^format: no safetensors file: header: expected"):
        runtime.load(hostile_files.container(text), "float64")


def test_a_header_in_any_form_of_json_is_read(runtime):
    """The JSON of the test has escapes, blanks, pairs of surrogates and every form of a number."""
    flow = hostile_files.unsealed(hr.transforms.Standardize([0.5], [2.0]))
    entries, header, tensors = hostile_files.unpack(flow)
    text = (
        ' { "format" : 1 , "version":"\\u00e9\\ud83d\\ude00\\n\\/\\"", "dtype":null, "\\u006bind":"Standardize",\t\r\n'
        '"features":1,"mean":[5E-1],"std":[0.02e+2]} '
    )
    loaded = runtime.load(hostile_files.pack(entries, text, tensors), "float64")
    np.testing.assert_array_equal(loaded.to_data(np.array([[3.0]]))[0], [[6.5]])
    assert header["kind"] == "Standardize"
