"""Lack of memory on a simulated CUDA device: errors, and calls that are repeated after libraries have freed memory."""

import sys

import pytest

import cases
from array_cases import made_flow
from devices import Library


@pytest.mark.parametrize("word", ["run", "gradient", "allocate"])
def test_out_of_memory_leaves_the_flow_usable(machine, word):
    flow, library, x = made_flow("float32", context=0), Library("cupy", machine), cases.rows(9, 4, "float32")
    device, array = flow.to("cuda"), library.make(x)
    failed = MemoryError("device memory of 9 bytes: out of memory")
    machine.fail[word] = [failed, failed]
    with pytest.raises(MemoryError, match="out of memory"):
        device.log_prob_and_score(array) if word == "gradient" else device.log_prob(array)
    cases.assert_same_bits(library.open(device.log_prob(array)), flow.log_prob(x))
    cases.assert_same_bits(device.to("cpu").parameters, flow.parameters)


def test_out_of_memory_of_torch_is_a_memory_error(machine):
    flow, library = made_flow("float32", context=0).to("cuda"), Library("torch", machine)
    x = library.make(cases.rows(9, 4, "float32"))
    failed = sys.modules["torch"].OutOfMemoryError("CUDA out of memory")
    machine.fail["torch allocate"] = [failed, failed]
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        flow.log_prob(x)
    flow.log_prob(x)


@pytest.mark.parametrize("word", ["run", "allocate", "torch allocate"])
def test_a_call_without_memory_is_repeated_after_all_libraries_freed_theirs(machine, word):
    """PyTorch, CuPy and headrace free the memory that they keep for reuse, in an order in which each can free memory
    that it keeps because of the others.
    """
    flow = made_flow("float32", context=0)
    library, x = Library("torch" if "torch" in word else "cupy", machine), cases.rows(9, 4, "float32")
    device, array = flow.to("cuda"), library.make(x)
    kind = sys.modules["torch"].OutOfMemoryError if "torch" in word else MemoryError
    machine.fail[word] = kind("out of memory")
    machine.log.clear()
    cases.assert_same_bits(library.open(device.log_prob(array)), flow.log_prob(x))
    assert not machine.fail
    gave = [words[0] for words in machine.log if "gives back" in words[0]]
    assert gave == ["cupy gives back", "torch gives back", "headrace gives back"]
