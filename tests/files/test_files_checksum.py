"""The checksum of a file: a changed file never loads as another model."""

import json
import struct
import zlib

import numpy as np
import pytest
import safetensors.numpy

import cases
import file_cases
import headrace as hr
from headrace import files
from hostile_files import refused, unsealed


@pytest.mark.parametrize("name", ["maf-context", "everything", "rotation-in-blocks"])
def test_no_flipped_bit_loads_as_another_model(name):
    """The flipped bits are a sample of the bits of the header and of the values."""
    module = file_cases.EXAMPLES[name]("float32")
    data = files.to_bytes(module)
    generator, refusals = cases.rng("bits", name), 0
    for bit in generator.integers(0, 8 * len(data), 1500):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            again = files.from_bytes(bytes(changed))
        except hr.FileFormatError:
            refusals += 1
        else:  # the bit is in the name of the key that has the checksum, or in the spaces behind the header
            assert files.to_bytes(again) == data
    assert refusals > 1400


def test_a_changed_value_is_reported_as_damage():
    data = bytearray(files.to_bytes(hr.MAF(3)))
    length = int.from_bytes(data[:8], "little")
    data[8 + length + 10] ^= 1
    refused(bytes(data), r"damaged: expected the checksum [0-9a-f]{8} of what it holds, got [0-9a-f]{8}")


def test_the_checksum_is_that_of_the_documentation():
    """The checksum is the CRC-32 of the header and of the tensors' bytes in the order of their names, whatever their
    order in the file."""
    module = file_cases.EXAMPLES["everything"]("float64")
    data = files.to_bytes(module)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = safetensors.numpy.load(data)
    everything = metadata["headrace"].encode() + b"".join(tensors[name].tobytes() for name in sorted(tensors))
    assert metadata["headrace_crc32"] == f"{zlib.crc32(everything):08x}"
    written_by_others = safetensors.numpy.save(dict(reversed(tensors.items())), metadata=metadata)
    assert files.to_bytes(files.from_bytes(written_by_others)) == data


def test_a_file_of_format_2_has_a_checksum_and_older_ones_need_none():
    module = hr.MAF(2)
    assert (files.from_bytes(unsealed(module)).parameters == module.parameters).all()
    data = files.to_bytes(module)
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    del entries["__metadata__"]["headrace_crc32"]
    text = json.dumps(entries).encode()
    refused(struct.pack("<Q", len(text)) + text + data[8 + length :], "damaged: .* got None")


NOTES = {"table": '{"columns": [{"width": 1.0}]}', "columns": '{"features": ["a", "b"], "context": []}', "dtype": "f"}


def noted(notes=NOTES):
    return files.to_bytes(hr.MAF(2, transforms=1, hidden=(3,)), notes)


def with_metadata(data, change):
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    change(entries["__metadata__"])
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.costly
def test_no_flipped_bit_changes_a_note():
    """Every bit of the header, which has the notes, is flipped."""
    data, refusals = noted(), 0
    length = int.from_bytes(data[:8], "little")
    for bit in range(64, 64 + 8 * length):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            files.from_bytes(bytes(changed))
        except hr.FileFormatError:
            refusals += 1
        else:  # the bit is in the name of the key that has the checksums, or in the spaces behind the header
            assert NOTES.items() <= files.notes_of_bytes(bytes(changed)).items()
    assert refusals > 8 * (length - 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(table=m["table"].replace("1.0", "3.0")), "damaged: expected checksum .* 'table', got"),
        (lambda m: m.pop("columns"), "damaged: .* of the note 'columns', got none"),
        (lambda m: m.update(headrace_notes_crc32='{"table": "00000000"}'), "damaged: .* 00000000 of the note 'table'"),
        (lambda m: m.update(headrace_notes_crc32="[]"), "headrace_notes_crc32: expected a string of a JSON object"),
        (lambda m: m.update(headrace_notes_crc32="{"), "headrace_notes_crc32: expected JSON"),
    ],
)
def test_changed_notes_are_damage(change, message, tmp_path):
    data = with_metadata(noted(), change)
    refused(data, message)
    (tmp_path / "f").write_bytes(data)
    for read in (lambda: files.notes_of_bytes(data), lambda: files.read_notes(tmp_path / "f")):
        with pytest.raises(hr.FileFormatError, match=message):
            read()


def test_notes_without_checksums_and_those_of_others_are_read():
    old = with_metadata(noted(), lambda m: m.pop("headrace_notes_crc32"))
    assert files.notes_of_bytes(old) == files.notes_of_bytes(noted()) == NOTES
    assert files.to_bytes(files.from_bytes(old), NOTES) == noted()
    more = with_metadata(noted(), lambda m: m.update(others="anything"))
    assert files.notes_of_bytes(more) == {**NOTES, "others": "anything"}
    assert files.to_bytes(files.from_bytes(more), NOTES) == noted()
    assert b"notes" not in files.to_bytes(hr.MAF(2))


def test_the_checksums_of_notes_are_those_of_the_documentation():
    data = noted()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    want = {name: f"{zlib.crc32(text.encode()):08x}" for name, text in NOTES.items()}
    assert json.loads(metadata["headrace_notes_crc32"]) == want


def test_the_safetensors_library_reads_saved_files():
    for name, make in file_cases.EXAMPLES.items():
        module = make("float32")
        tensors = safetensors.numpy.load(files.to_bytes(module))
        want = {**module.named_parameters(), **module._fixed_arrays()}
        assert tensors.keys() == want.keys(), name
        for key, array in want.items():
            np.testing.assert_array_equal(tensors[key], array)
            assert tensors[key].dtype == array.dtype


def test_a_load_reads_the_header_once(monkeypatch, tmp_path):
    read, headers = files._container_header, []
    monkeypatch.setattr(files, "_container_header", lambda *a: headers.append(a) or read(*a))
    (tmp_path / "f").write_bytes(noted())
    loaded, notes = files.contents(tmp_path / "f")
    assert notes == NOTES
    assert type(hr.load(tmp_path / "f")) is type(hr.from_bytes(noted())) is type(loaded)
    assert len(headers) == 3
