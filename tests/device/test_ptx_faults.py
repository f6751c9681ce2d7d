"""Faults that are planted in nvcc's PTX, each kind in two kernels, cause a finding or change results.

The tests need PTX of the kernels (HEADRACE_EMU_PTX, tests/support/interpreted.py).
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
import interpreted
import reference
from cuda_twins import Twin

pytestmark = pytest.mark.skipif(not interpreted.FOLDER, reason="needs nvcc's PTX: set HEADRACE_EMU_PTX")


# ---- launches of the kernels ----


def network(hidden=(40, 40)):
    return cases.randomise(hr.MAF(6, transforms=1, hidden=hidden, dtype="float32"))


def chain(emu):
    """Launch the kernel run_chain, with products on tensor cores."""
    flow = network()
    return Twin(emu, flow, matmul="tf32").log_prob(cases.rows(70, flow.features, "float32"))


def gradient(emu):
    """Launch the kernel there_and_back, with sums over rows on tensor cores."""
    flow = network()
    x = cases.rows(70, flow.features, "float32")
    twin = Twin(emu, flow, matmul="tf32")
    return twin.inverse_vjp(x, x, np.ones(70, "float32"), wrt=("parameters",))[0]


def exact_gradient(emu):
    """Launch the kernels of a gradient whose sums over rows use no tensor cores, and have several tiles a block."""
    flow = network((4,))
    x = cases.rows(4200, flow.features, "float32")
    return Twin(emu, flow).inverse_vjp(x, x, np.ones(len(x), "float32"), wrt=("parameters",))[0]


def adam(emu):
    program = Twin(emu, network(), matmul="exact").program
    size = network().parameters.size
    optimiser = emu.module.AdamF32(program, 0.9, 0.999, 1e-8, 0.0, 0.5, 0.0)
    given, norm = emu.array(cases.rows(1, size, "float32", "gradient")[0]), emu.empty(1, "float64")
    optimiser.step(emu.tuple(given), 0.01, emu.tuple(norm), emu.stream)
    return program.host_weights()


def coupling(emu):
    """Launch the kernel of an affine coupling, in which a thread takes 16 bytes of values."""
    shape, numbers = (70, 9), 2
    x, params = cases.rows(*shape, "float32"), cases.rows(shape[0], shape[1] * numbers, "float32", "params")
    params = np.ascontiguousarray(params.reshape(*shape, numbers))
    value, log_det = np.full_like(x, np.nan), np.full(len(x), np.nan, "float32")
    emu.module.coupling(
        *("affine", "soft_clamp", 1e-3, 5.0, reference.MAPS["affine"].bins(numbers), True),
        *(emu.tuple(array) for array in (x, params, value, log_det)),
        device=0,
        stream=0,
    )
    return value


# ---- edits ----

TEXT = {}


def source(name):
    if name not in TEXT:
        TEXT[name] = Path(interpreted.FOLDER, f"{name}.ptx").read_text()
    return TEXT[name]


def edited(text, kernel, pattern, replacement, count=0, flags=0):
    """Edit the body of kernels with the given name, which must change the text; return the text."""
    parts = re.split(r"(?m)^(?=\.(?:(?:visible|weak) \.)?(?:entry|func) )", text)
    changed = [
        re.sub(pattern, replacement, part, count=count, flags=flags) if kernel in part.split("(")[0] else part
        for part in parts
    ]
    assert changed != parts, f"no {pattern} in {kernel}"
    return "".join(changed)


def swapped_registers(text, kernel):
    return edited(text, kernel, r"(mma\.sync\S+\s+\{[^}]*\},\s+\{%r\d+,\s+)(%r\d+),\s+(%r\d+)", r"\1\3, \2")


def one_on(address):
    """The text of the address four bytes after the matched address."""
    return f"{address[1]}+{int(address[2] or 0) + 4}]"


def moved_shared_memory(text, kernel):
    """Move the start of shared memory by four bytes in all functions of the module, which changes no value."""
    begins = r"(mov\.u32\s+(%r\d+), \w+hr_dynamic_sharedE;)"
    assert re.search(begins, text), kernel
    return re.sub(begins, r"\1 add.s32 \2, \2, 4;", text)


def left_out_barrier(text, kernel):
    return edited(text, kernel, r"bar\.sync[^;]*;", "", count=1)


def left_out_second_barrier(text, kernel):
    """Omit the second barrier of a kernel, so that some threads may overwrite shared memory that others still read."""
    return edited(text, kernel, r"(bar\.sync[^;]*;.*?)bar\.sync[^;]*;", r"\1", count=1, flags=re.DOTALL)


def left_out_barriers_of_warps(text, kernel):
    return edited(text, kernel, r"bar\.warp\.sync[^;]*;", "")


def half_a_mask(text, kernel):
    return edited(text, kernel, r"(shfl\.sync\.\w+\.b32[^;]*,\s+)(?:-1|%r\d+);", r"\g<1>65535;")


def left_out_store(text, kernel):
    """Omit the stores to shared memory."""
    return edited(text, kernel, r"st\.shared\.(?:v4\.)?f(?:32|64)[^;]*;", "")


def moved_loads(text, kernel):
    """Make loads read the element after the intended one."""
    return edited(text, kernel, r"(ld\.global\.f32\s+%f\d+, \[%rd\d+)(?:\+(-?\d+))?\]", one_on)


def moved_stores(text, kernel):
    """Make stores write the element after the intended one."""
    return edited(text, kernel, r"(st\.global\.f32\s+\[%rd\d+)(?:\+(-?\d+))?\]", one_on)


OTHER_VALUES = None
FAULTS = [
    ("chain", "run_chainIf", swapped_registers, chain, OTHER_VALUES),
    ("row_sums", "sum_products_in_fragments", swapped_registers, gradient, OTHER_VALUES),
    ("adam", "sum_squaresIf", moved_shared_memory, adam, "misaligned access"),
    ("gradient", "there_and_backIf", moved_shared_memory, gradient, "misaligned access"),
    ("adam", "sum_squaresIf", left_out_barrier, adam, "race: read of another thread's write|unwritten shared"),
    ("row_sums", "sum_productsIf", left_out_barrier, exact_gradient, "race|unwritten shared"),
    ("row_sums", "sum_productsIf", left_out_second_barrier, exact_gradient, "race"),
    ("chain", "run_chainIf", left_out_barriers_of_warps, chain, "race"),
    ("adam", "sum_squaresIf", half_a_mask, adam, "missing from its own mask"),
    ("row_sums", "sum_products_in_fragments", half_a_mask, gradient, "missing from its own mask"),
    ("adam", "sum_squaresIf", left_out_store, adam, "unwritten shared memory is read"),
    ("row_sums", "sum_productsIf", left_out_store, exact_gradient, "unwritten shared memory is read"),
    ("adam", "sum_squaresIf", moved_loads, adam, "out of bounds of device memory"),
    ("coupling", "coupling_rows_directILi2Ef", moved_stores, coupling, "out of bounds of device memory"),
]


@pytest.fixture
def plant(emu, tmp_path):
    """A function that makes the emulation interpret the build's PTX with one module edited, until the test ends."""

    def planted(name, text):
        for file in Path(interpreted.FOLDER).iterdir():
            if file.name != f"{name}.ptx":
                os.symlink(file, tmp_path / file.name)
        (tmp_path / f"{name}.ptx").write_text(text)
        emu.module.ptx_use(str(tmp_path))
        emu.module.ptx_forget()  # a freed array of an earlier test may have lain behind an array of the exercise

    yield planted
    emu.module.ptx_use(interpreted.FOLDER)


@pytest.mark.parametrize(
    ("name", "kernel", "fault", "exercise", "finding"), FAULTS, ids=[f"{f[2].__name__}-{f[0]}" for f in FAULTS]
)
def test_a_planted_fault_is_found(emu, plant, name, kernel, fault, exercise, finding):
    right = exercise(emu)
    plant(name, fault(source(name), kernel))
    if finding is OTHER_VALUES:
        wrong = exercise(emu)
        assert np.abs(wrong - right).max() > 0.01 * np.abs(right).max()
    else:
        with pytest.raises(emu.module.EmulationError, match=finding) as found:
            exercise(emu)
        assert re.search(rf"{name}\.ptx:\d+: .*, block \(\d+, \d+, \d+\), warp \d+, lane \d+", str(found.value))
