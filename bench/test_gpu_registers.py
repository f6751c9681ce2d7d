"""What is read from the compiler's report on registers, and what of it is a failure. Without a compiler."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bench import gpu_registers
from bench.gpu_registers import ROOT, Kernel

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z9run_chainIfE' for 'sm_90'
ptxas info    : Function properties for _Z9run_chainIfE
    752 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 752 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Compiling entry function '_Z3putv' for 'sm_90'
ptxas info    : Function properties for _Z3putv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 22 registers, used 0 barriers
"""
CHAIN = Kernel("chain.cu", "_Z9run_chainIfE", 90, 128, 752, 32, 1024)


def test_the_compilers_report_is_read():
    assert gpu_registers.parse(REPORT, "chain.cu") == [CHAIN, Kernel("chain.cu", "_Z3putv", 90, 22, 0, 0, 0)]
    with pytest.raises(SystemExit, match="another form"):
        gpu_registers.parse(REPORT.replace("spill loads", "reloaded"), "chain.cu")


def test_every_spill_is_listed_and_much_of_a_hot_kernel_is_too_much():
    names = {"a": "run_chain<float, true>", "b": "choose<float>", "c": "run_chain_of<float>", "d": "step_rows"}
    spilled = {"a": 17, "b": 1000, "c": 1000, "d": 16}
    kernels = [replace(CHAIN, name=name, spilled=count) for name, count in spilled.items()]
    lines, too_much = gpu_registers.spills([*kernels, replace(CHAIN, name="a", spilled=0)], names)
    assert lines == [
        "chain.cu choose<float> sm_90: 1000 bytes",
        "chain.cu run_chain<float, true> sm_90: 17 bytes, hot",
        "chain.cu run_chain_of<float> sm_90: 1000 bytes",
        "chain.cu step_rows sm_90: 16 bytes, hot",
    ]
    assert too_much == lines[1:2]


def test_a_large_stack_of_a_hot_kernel_is_told():
    names = {"a": "there_and_back<float, false>", "b": "prepare_ready<float>", "c": "run_chain<float>"}
    stack = {"a": gpu_registers.MOST_STACK + 1, "b": 5000, "c": gpu_registers.MOST_STACK}
    kernels = [replace(CHAIN, name=name, stack=bytes_) for name, bytes_ in stack.items()]
    assert gpu_registers.stacks(kernels, names) == [
        f"chain.cu there_and_back<float, false> sm_90: a stack of {gpu_registers.MOST_STACK + 1} bytes"
    ]


def test_what_kernels_of_chains_are_told_is_read_in_place():
    """Where a kernel takes the address of a parameter that is not so, every thread gets a copy of it on its stack."""
    told = re.compile(
        r"(?<!\w)(const __grid_constant__ )?(?:DeviceChain|Call|Back|SumTasks|Tapes|WeightGradient)<\w+> \w+(?=[,)])"
    )
    seen = 0
    for name in ("chain_launch.cuh", "gradient.cuh", "row_sums.cu"):
        text = (ROOT / "cuda" / "kernels" / name).read_text()
        for kernel in re.findall(r"__global__ void[^{]*?\w+\(((?:DeviceChain|SumTasks|const __grid)[^{]*)\) \{", text):
            found = [match[1] for match in told.finditer(kernel)]
            assert found
            assert all(found), kernel
            seen += len(found)
    assert seen == 11


def test_hot_kernels_are_in_the_sources():
    bounds = r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*"
    found = {
        name
        for path in ROOT.glob("cuda/kernels/*.cu*")
        for name in re.findall(rf"__global__ void (?:{bounds})?(\w+)\(", path.read_text())
    }
    assert set(gpu_registers.HOT) <= found


def test_names_without_what_all_share():
    assert gpu_registers.before_arguments("put(Piece, unsigned int*, int)") == "put"
    assert gpu_registers.before_arguments("aim<float>(int, void (*)(int))") == "aim<float>"
    assert gpu_registers.sources()[0].is_relative_to(ROOT / "cuda")
