"""The device's inner loops have no more instructions than is stated; and how these are counted, without a compiler."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from bench import gpu_loops
from bench.gpu_loops import ROOT, Loop

CODE = """\t\tFunction : _ZN8headrace5forthIfEEvPKfi
        /*0000*/                   MOV R1, c[0x0][0x28] ;                    /* 0x00 */
                                                                            /* 0x01 */
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;          /* 0x00 */
        /*0020*/                   LDS R8, [R9] ;                            /* 0x00 */
        /*0030*/                   FFMA R0, R4, R8, R0 ;                     /* 0x00 */
        /*0040*/                   FFMA R0, R5, R8, R0 ;                     /* 0x00 */
        /*0050*/              @!P0 BRA 0x10 ;                                /* 0x00 */
        /*0060*/               @P1 BRA `(.L_x_1) ;                           /* 0x00 */
        /*0070*/                   FADD R0, R0, R1 ;                         /* 0x00 */
        /*0080*/               @P2 BRA 0x0 ;                                 /* 0x00 */
        /*0090*/                   BRA 0x90 ;                                /* 0x00 */
"""
LOOP = Loop("a loop", r"^forth<float>", "FFMA", 2, ("LDG.128", 1), 0.4)


def test_instructions_of_innermost_loops_are_counted():
    (name, code), *others = gpu_loops.functions(CODE).items()
    assert not others
    assert name == "forth<float>(float const*, int)"
    assert len(code) == 10
    (address, counts), *others = gpu_loops.innermost(code)
    assert not others  # that from 0x80 to 0 has another one in it, and that at 0x90 is the end of the code
    assert address == 0x10
    assert counts == Counter({"LDG.128": 1, "LDS": 1, "FFMA": 2, "BRA": 1})


def test_a_share_that_drops_is_told():
    code = gpu_loops.functions(CODE)
    found = gpu_loops.find(LOOP, code)
    assert gpu_loops.is_good(LOOP, found)
    assert gpu_loops.line(LOOP, found) == "a loop: 5 instructions, 2 FFMA (40.0%); 1 LDG.128, 1 LDS"
    for more in ({"share": 0.41}, {"count": 3}, {"loads": ("LDS", 2)}, {"kernel": "^back"}):
        loop = Loop(**{**vars(LOOP), **more})
        found = gpu_loops.find(loop, code)
        assert not gpu_loops.is_good(loop, found)
        assert ("LESS THAN 41%" if "share" in more else "NOT FOUND") in gpu_loops.line(loop, found)


def test_the_kernels_of_whole_files_are_there():
    """Without a compiler: a kernel that is renamed is not one that is no longer looked at."""
    for file, loops in gpu_loops.WHOLE.items():
        text = (ROOT / file).read_text()
        for header in re.findall(r'#include "(\w+\.cuh)"', text):
            text += (ROOT / file).with_name(header).read_text()
        for loop in loops:
            assert f" {loop.kernel.removeprefix('^').split('<')[0]}(" in text


@pytest.mark.skipif(bool(gpu_loops.missing()), reason=f"not installed: {gpu_loops.missing()}")
def test_products_spend_their_instructions_on_multiply_adds():
    code = gpu_loops.functions(gpu_loops.machine_code(ROOT / "bench" / "gpu_loops.cu"))
    for loop in gpu_loops.PRODUCTS:
        found = gpu_loops.find(loop, code)
        assert gpu_loops.is_good(loop, found), gpu_loops.line(loop, found)
