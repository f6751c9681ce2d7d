"""Files of any origin: the C library reads the files that Python reads, to equal bits, and refuses others by a code."""

import copy
import itertools
import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
import hostile_files
import sequence_cases
from c_library import Refused
from headrace import files
from headrace._tables.discrete import Discrete
from headrace._tables.mixed_fit import fitted

FILES = Path(__file__).parents[1] / "files"
HOSTILE, RANDOM = (runpy.run_path(str(FILES / f"test_files_{name}.py")) for name in ("hostile", "random"))
BROKEN, ENTRIES, NASTY, places = HOSTILE["BROKEN"], HOSTILE["ENTRIES"], RANDOM["NASTY"], RANDOM["places"]

# Refusals of values that Python accepts as numbers or defaults, and that no header of headrace has.
STRICTER = ("expected numbers", "activation: expected one of", "outputs: expected a list, got null")


def agree(library, data):
    """Check that Python and the C library read a file with equal results, or both refuse it; return whether they read
    it."""
    try:
        module = files.from_bytes(data)
    except hr.FileFormatError:
        with pytest.raises(Refused) as refused:
            library.open(data)
        assert refused.value.code in ("BAD_FILE", "NEWER_FILE"), refused.value
        assert library.message()
        return False
    try:
        handle = library.open(data)
    except Refused as error:
        if not any(words in str(error) for words in STRICTER):
            raise
        return False
    x = np.ones((9, module.features))
    context = np.ones((9, module.context)) if module.context else None
    with np.errstate(all="ignore"):
        if isinstance(module, (hr.Flow, hr.Ensemble)):
            got, want = handle.log_prob(x, context), module.log_prob(x, context)
            drawn, sample = handle.sample(9, 0, context), module.sample(9, context, 0)
            np.testing.assert_allclose(drawn, sample, rtol=1e-12, atol=1e-12)
        else:
            got, want = handle.to_latent(x, context)[0], module.inverse(x, context)[0]
    # The tolerance is for logarithms, as in test_c_bits.py.
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    return True


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(library, name):
    assert not agree(library, BROKEN[name][0]())


@pytest.mark.parametrize("name", ENTRIES)
def test_wrong_shapes_and_offsets_of_tensors_are_refused(library, name):
    assert not agree(library, hostile_files.with_entries(hostile_files.maf(), ENTRIES[name]))


def mutated(data, generator):
    """The file with some bytes changed, or a part cut, repeated or exchanged."""
    changed = bytearray(data)
    kind = generator.integers(4)
    begin, end = sorted(generator.integers(len(data), size=2).tolist())
    if kind == 0:
        return bytes(changed[:begin])
    if kind == 1:
        return bytes(changed[:end] + changed[begin:])
    for _ in range(generator.integers(1, 4)):
        changed[generator.integers(len(changed))] = generator.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("name", RANDOM["SMALL"])
def test_mutated_files_are_read_or_refused_as_in_python(library, name):
    compare_mutated(library, name, 22, "c mutations")


@pytest.mark.nightly
@pytest.mark.parametrize("name", RANDOM["SMALL"])
def test_thousands_of_mutated_files_are_read_or_refused_as_in_python(library, name):
    compare_mutated(library, name, 220, "c mutations at night")


def compare_mutated(library, name, count, key):
    """Compare this number of mutations of a file, in both dtypes."""
    generator, read = cases.rng(key, name), 0
    for dtype in cases.DTYPES:
        data = hostile_files.unsealed(hostile_files.EXAMPLES[name](dtype))
        for _ in range(count):
            read += agree(library, mutated(data, generator))
    assert read > 0


@pytest.mark.parametrize("name", hostile_files.EXAMPLES)
def test_headers_with_anything_anywhere_are_read_or_refused_as_in_python(library, name):
    compare_headers(library, name, 20, "c headers")


@pytest.mark.nightly
@pytest.mark.parametrize("name", hostile_files.EXAMPLES)
def test_many_headers_with_anything_anywhere_are_read_or_refused_as_in_python(library, name):
    compare_headers(library, name, 200, "c headers at night")


def compare_headers(library, name, count, key):
    """Compare this number of headers with one value changed, or one key left out."""
    entries, header, tensors = hostile_files.unpack(files.to_bytes(hostile_files.EXAMPLES[name]("float64")))
    every = list(itertools.product(places(header), (*NASTY, None)))
    for i in cases.rng(key, name).permutation(len(every))[:count]:
        path, value = every[i]
        changed = copy.deepcopy(header)
        (hostile_files.drop(*path) if value is None else hostile_files.set_at(*path, to=value))(changed)
        agree(library, hostile_files.pack(entries, changed, tensors))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -9, -1])
def test_truncated_files_are_refused(library, tmp_path, length):
    data = files.to_bytes(hr.MAF(2, transforms=1, hidden=(4,)))[:length]
    (tmp_path / "cut.safetensors").write_bytes(data)
    for source in (data, tmp_path / "cut.safetensors"):
        with pytest.raises(Refused, match="truncated") as refused:
            library.open(source)
        assert refused.value.code == "BAD_FILE"
    assert str(refused.value).startswith(f"BAD_FILE: {tmp_path}/cut.safetensors: truncated")


def test_a_changed_bit_is_found_by_the_checksum(library):
    data = bytearray(files.to_bytes(hr.MAF(2, transforms=1, hidden=(4,))))
    data[-3] ^= 1
    with pytest.raises(Refused, match="damaged: expected the checksum") as refused:
        library.open(bytes(data))
    assert refused.value.code == "BAD_FILE"


def test_a_file_of_a_newer_version_has_a_separate_code(library):
    entries, header, tensors = hostile_files.unpack(files.to_bytes(hr.MAF(2, transforms=1, hidden=(4,))))
    data = hostile_files.pack(entries, {**header, "format": 9, "version": "7.0.0"}, tensors)
    with pytest.raises(Refused, match="file format 9: this version of headrace reads formats up to 3") as refused:
        library.open(data)
    assert refused.value.code == "NEWER_FILE"


@pytest.mark.parametrize("name", sequence_cases.EXAMPLES)
def test_headers_of_sequences_with_anything_anywhere_are_read_or_refused_as_in_python(library, name):
    data, read = hr.to_bytes(sequence_cases.EXAMPLES[name]("float32")), 0
    for changed in hostile_files.headers_of_sequences(data, 60, "c", name):
        read += hostile_files.agree_on_sequences(changed, library.open, Refused)
    assert read > 0


def test_data_that_are_no_file_have_a_separate_code(library, tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(Refused, match=re.escape(str(path))) as refused:
            library.open(path)
        assert refused.value.code == "NO_FILE", refused.value


def test_a_text_of_the_message_has_no_bytes_of_the_file(library):
    entries, header, tensors = hostile_files.unpack(files.to_bytes(hr.MAF(2, transforms=1, hidden=(4,))))
    data = hostile_files.pack(entries, {**header, "kind": "\x1b[31m" + "M" * 5000}, tensors)
    with pytest.raises(Refused) as refused:
        library.open(data)
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.optimised
def test_a_handle_takes_hardly_more_memory_than_its_file(library):
    """An open file takes memory for the weights of the dense layers, whose zeros are not stored, and none for the file
    itself."""
    flow = hr.MAF(200, transforms=4, hidden=(500, 500))
    data = files.to_bytes(flow)
    del flow
    x = np.zeros((64, 200), "float32")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    library.open(data).log_prob(x)  # pages of the library's scratch memory stay allocated
    sizes, handles = [resident()], []
    for _ in range(5):
        handles.append(library.open(data))
        handles[-1].log_prob(x)
        sizes.append(resident())
    grown = np.median(np.diff(sizes))  # the system may reclaim other pages at any moment
    assert grown < 1.1 * len(data) + 2e6, f"{grown / len(data):.2f} x the file's {len(data)} bytes"


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_gaussianize_beyond_the_files_dtype_is_refused_by_both_readers(library, dtype):
    curve = hr.transforms.Gaussianize([[0.0, 1.0, 4.0]], [-1.0, 0.0, 1.0], [[1.0, 0.5, 0.25]])
    curve._raw["width"] = np.array([[-1.4e306, 0.0]])
    made = hr.to_bytes(hr.Flow([hr.transforms.Elementwise(1, map="affine", dtype=dtype), curve]))
    for read in (hr.from_bytes, library.open):
        if dtype == "float64":
            read(made)
            continue
        with pytest.raises(ValueError, match="width: expected finite numbers"):
            read(made)


def test_densities_of_discrete_columns_are_refused_by_name(library):
    """Only Python computes densities of discrete columns; the library can read the file of the inner flow."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    x[:, 0] = x[:, 0] > 0
    own = x, None, None, [Discrete(0, (0.0, 1.0))], lambda columns, contexts: hr.MAF(len(columns), contexts), 0
    density = fitted(*own, progress=False, epochs=1)[0]
    with pytest.raises(Refused, match="got MixedDensity, whose discrete columns Python alone has; its flow is one"):
        library.open(files.to_bytes(density))
    library.open(files.to_bytes(density.flow))
