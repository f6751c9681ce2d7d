"""The interpreter of PTX, on kernels written by hand: results of each instruction, and findings."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import interpreted

HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n.extern .shared .align 16 .b8 hr_dynamic_shared[];\n"
DECLARED = """
    .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<33>; .reg .f32 %f<33>; .reg .b64 %rd<33>; .reg .f64 %fd<33>;
    ld.param.u64 %rd1, [k_param_0];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r4, %r2, %r3, %r1;
    mul.wide.s32 %rd2, %r4, 8;
    add.s64 %rd3, %rd1, %rd2;
"""
"""%r1 is the thread, %r4 the element, %rd1 the array, and %rd3 the address of eight bytes for each thread."""


def kernel(body, functions=""):
    return f"{HEAD}{functions}\n.visible .entry k(\n\t.param .u64 k_param_0\n)\n{{{DECLARED}{body}\nret;\n}}\n"


class Machine:
    def __init__(self, emu):
        self.module = emu.module
        self.emu = emu

    def run(self, body, array, threads=32, grid=1, shared=0, functions="", registered=True, **options):
        """The values of an array, eight bytes for each thread, after a kernel with the given body has run."""
        if registered:
            self.module.ptx_array(self.emu.tuple(array))
        self.warps = self.module.ptx_run(
            kernel(body, functions),
            *("k", (grid, 1, 1), (threads, 1, 1), [array.ctypes.data.to_bytes(8, "little")], shared),
            **options,
        )
        return array

    def fails(self, body, match, array=None, **options):
        array = np.zeros(64, np.int64) if array is None else array
        with pytest.raises(self.module.EmulationError, match=match):
            self.run(body, array, **options)


@pytest.fixture
def machine(emu):
    return Machine(emu)


def floats(*values, dtype=np.float32):
    return np.resize(np.array(values, dtype), 32)


SPECIAL = np.array([0.0, -0.0, 1.5, -2.25, 3e38, 1e-40, np.inf, -np.inf, np.nan, 7.0, 0.1, -0.3], np.float32)


def pairs_of(values):
    """All pairs of the given values, as two arrays."""
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


def binary(machine, instruction, a, b, c=None, register="f", result=None, bits=32):
    """The results d = instruction(a, b, c) for 32 or 64 bits: a kernel reads a, b and c from the array and writes d."""
    n = a.size
    given = [a, b, np.zeros_like(a) if c is None else c, np.zeros(n, a.dtype if result is None else result)]
    rows = np.zeros((n, 4), np.uint64)
    for column, values in enumerate(given):
        rows[:, column] = values.view(f"u{values.itemsize}")
    third = "" if c is None else f", %{register}3"
    out = f"%{register}4" if result is None else "%r20"
    load = {"f": "f32", "fd": "f64", "r": "u32", "rd": "u64", "rs": "u16"}[register]
    body = f"""
        mul.wide.s32 %rd4, %r4, 32; add.s64 %rd5, %rd1, %rd4;
        ld.global.{load} %{register}1, [%rd5]; ld.global.{load} %{register}2, [%rd5+8];
        ld.global.{load} %{register}3, [%rd5+16];
        {instruction} {out}, %{register}1, %{register}2{third};
        st.global.{load if result is None else "u32"} [%rd5+24], {out};
    """
    machine.module.ptx_array((rows.ctypes.data, (n, 4), (32, 8), "float64"))
    machine.run(body, rows, threads=n, registered=False)
    return rows[:, 3].astype(f"u{given[3].itemsize}").view(given[3].dtype)


@pytest.mark.parametrize(
    ("instruction", "want"),
    [
        ("add.f32", np.add),
        ("add.rn.f32", np.add),
        ("sub.f32", np.subtract),
        ("mul.f32", np.multiply),
        ("div.rn.f32", np.divide),
        ("min.f32", np.fmin),
        ("max.f32", np.fmax),
    ],
)
def test_sums_and_products_of_float32(machine, instruction, want):
    a, b = pairs_of(SPECIAL)
    with np.errstate(all="ignore"):
        assert_array_equal(binary(machine, instruction, a, b), want(a, b))


def test_the_lesser_of_two_zeros_is_the_negative_one(machine):
    zeros = np.array([0.0, -0.0], np.float32)
    assert np.signbit(binary(machine, "min.f32", zeros, zeros[::-1].copy())).all()
    assert not np.signbit(binary(machine, "max.f32", zeros, zeros[::-1].copy())).any()


@pytest.mark.parametrize(("dtype", "suffix", "register"), [(np.float32, "f32", "f"), (np.float64, "f64", "fd")])
def test_a_product_and_a_sum_are_rounded_once(machine, dtype, suffix, register):
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 64)).astype(dtype)
    c[:32] = -(a * b)[:32]  # the sum of the fused product is the rounding error of the product
    got = binary(machine, f"fma.rn.{suffix}", a, b, c, register=register)
    for x, y, z, found in zip(a, b, c, got, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        near = [
            abs(Fraction(float(n)) - exact) for n in (np.nextafter(found, -np.inf), found, np.nextafter(found, np.inf))
        ]
        assert near[1] == min(near)


INTEGERS = np.array([0, 1, 2, 7, 31, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x12345678], np.uint32)


@pytest.mark.parametrize(
    ("instruction", "want"),
    [
        ("add.s32", lambda a, b: a + b),
        ("sub.s32", lambda a, b: a - b),
        ("mul.lo.s32", lambda a, b: a * b),
        ("mul.hi.s32", lambda a, b: a * b >> 32),
        ("min.s32", min),
        ("max.s32", max),
        ("and.b32", lambda a, b: a & b),
        ("or.b32", lambda a, b: a | b),
        ("xor.b32", lambda a, b: a ^ b),
        ("shl.b32", lambda a, b: a << min(b % 2**32, 40)),
        ("shr.s32", lambda a, b: a >> min(b % 2**32, 40)),
        ("div.s32", lambda a, b: int(np.trunc(a / b)) if b else -1),
        ("rem.s32", lambda a, b: a - b * int(np.trunc(a / b)) if b else a),
    ],
)
def test_signed_integers(machine, instruction, want):
    a, b = pairs_of(INTEGERS)
    signed = [[int(x) for x in values.view(np.int32)] for values in (a, b)]
    expected = [want(x, y) & 0xFFFFFFFF for x, y in zip(*signed, strict=True)]
    assert_array_equal(binary(machine, instruction, a, b, register="r"), np.array(expected, np.uint32))


@pytest.mark.parametrize(
    ("instruction", "want"),
    [
        ("shr.u32", lambda a, b: a >> min(b, 40)),
        ("div.u32", lambda a, b: a // b if b else 0xFFFFFFFF),
        ("rem.u32", lambda a, b: a % b if b else a),
        ("max.u32", max),
    ],
)
def test_unsigned_integers(machine, instruction, want):
    a, b = pairs_of(INTEGERS)
    expected = [want(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    assert_array_equal(binary(machine, instruction, a, b, register="r"), np.array(expected, np.uint32))


RELATIONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@pytest.mark.parametrize("relation", [*RELATIONS, *(f"{name}u" for name in RELATIONS), "num", "nan"])
def test_comparisons_with_nans_are_ordered_or_not(machine, relation):
    a, b = pairs_of(SPECIAL)
    unordered = np.isnan(a) | np.isnan(b)
    if relation in ("num", "nan"):
        want = unordered == (relation == "nan")
    else:
        want = np.where(unordered, relation.endswith("u") and relation not in RELATIONS, RELATIONS[relation[:2]](a, b))
    n = a.size
    rows = np.stack([a, b], axis=1).copy()
    out = np.zeros(n, np.int64)
    for array in (rows, out):
        machine.module.ptx_array(machine.emu.tuple(array))
    body = f"""
        ld.global.v2.f32 {{%f1, %f2}}, [%rd3];
        setp.{relation}.f32 %p1|%p2, %f1, %f2;
        selp.u32 %r5, 1, 0, %p1; selp.u32 %r6, 16, 0, %p2; or.b32 %r7, %r5, %r6;
        mov.u64 %rd6, {out.ctypes.data}; add.s64 %rd7, %rd6, %rd2; cvt.u64.u32 %rd8, %r7; st.global.u64 [%rd7], %rd8;
    """
    machine.run(body, rows, threads=n, registered=False)
    assert_array_equal(out, np.where(want, 1, 16))


@pytest.mark.parametrize(
    ("conversion", "value", "want"),
    [
        ("cvt.rzi.s32.f32", -2.75, -2),
        ("cvt.rni.s32.f32", 2.5, 2),
        ("cvt.rmi.s32.f32", -2.25, -3),
        ("cvt.rpi.s32.f32", -2.75, -2),
        ("cvt.rzi.s32.f32", 3e38, 2**31 - 1),
        ("cvt.rzi.s32.f32", -3e38, -(2**31)),
        ("cvt.rzi.s32.f32", np.nan, 0),
    ],
)
def test_conversions_to_integers(machine, conversion, value, want):
    bits = int(np.float32(value).view(np.uint32))
    body = f"mov.f32 %f1, 0f{bits:08x}; {conversion} %r5, %f1; cvt.s64.s32 %rd4, %r5; st.global.u64 [%rd3], %rd4;"
    assert_array_equal(machine.run(body, np.zeros(32, np.int64)), np.full(32, want))


def test_tf32_is_rounded_to_nearest_and_ties_go_away_from_zero(machine):
    values = np.array([0x3F801000, 0x3F800FFF, 0xBF801000, 0x3F803000, 0x7F800000, 0xFF800000], np.uint32)
    want = [0x3F802000, 0x3F800000, 0xBF802000, 0x3F804000, 0x7F800000, 0xFF800000]
    body = "ld.global.f32 %f1, [%rd3]; cvt.rna.tf32.f32 %r5, %f1; cvt.u64.u32 %rd4, %r5; st.global.u64 [%rd3], %rd4;"
    assert_array_equal(machine.run(body, values.astype(np.uint64), threads=6), want)


def test_a_field_of_bits_is_inserted(machine):
    body = """
        mov.b64 %rd4, 255; mov.b64 %rd5, -1; bfi.b64 %rd6, %rd4, 0, %r1, 4; bfi.b64 %rd7, %rd6, %rd5, 60, 8;
        st.global.u64 [%rd3], %rd7;
    """
    ones = 2**64 - 1
    want = [(ones & ~(0xF << 60)) | (((0xF << lane) & 0xF) << 60) for lane in range(32)]
    assert_array_equal(machine.run(body, np.zeros(32, np.uint64)), np.array(want, np.uint64))


# ---- warps ----


@pytest.mark.parametrize(
    ("shuffle", "source"),
    [
        ("shfl.sync.bfly.b32 %r5, %r1, 5, 31, -1", lambda lane: lane ^ 5),
        ("shfl.sync.down.b32 %r5, %r1, 4, 31, -1", lambda lane: lane + 4 if lane + 4 < 32 else lane),
        ("shfl.sync.up.b32 %r5, %r1, 3, 0, -1", lambda lane: lane - 3 if lane >= 3 else lane),
        ("shfl.sync.idx.b32 %r5, %r1, 9, 31, -1", lambda lane: 9),
        # A warp is divided into parts of eight lanes: operand c has the clamp 7 and the mask of parts 24.
        ("shfl.sync.down.b32 %r5, %r1, 2, 6175, -1", lambda lane: lane + 2 if lane % 8 + 2 < 8 else lane),
        ("shfl.sync.idx.b32 %r5, %r1, 9, 6175, -1", lambda lane: lane // 8 * 8 + 1),
    ],
)
def test_shuffles(machine, shuffle, source):
    body = f"{shuffle}; cvt.u64.u32 %rd4, %r5; st.global.u64 [%rd3], %rd4;"
    assert_array_equal(machine.run(body, np.zeros(32, np.int64)), [source(lane) for lane in range(32)])


def test_fragments_of_a_product_are_where_the_manual_has_them(machine):
    """The test states the layout of fragments in CUTLASS's way, as shapes and strides of (lane, register)."""
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(-8, 9, shape).astype(np.float32) for shape in [(16, 8), (8, 8), (16, 8)])
    memory = np.zeros((32, 16), np.float32)
    for lane in range(32):
        high, low = divmod(lane, 4)
        for k in range(4):
            memory[lane, k] = a.T.ravel()[16 * low + high + 8 * (k % 2) + 64 * (k // 2)]
            memory[lane, 8 + k] = c.T.ravel()[32 * low + high + 16 * (k % 2) + 8 * (k // 2)]
        for k in range(2):
            memory[lane, 4 + k] = b.T.ravel()[low + 8 * high + 4 * k]
    body = """
        mul.wide.s32 %rd4, %r1, 64; add.s64 %rd5, %rd1, %rd4;
        ld.global.v4.u32 {%r5, %r6, %r7, %r8}, [%rd5]; ld.global.v2.u32 {%r9, %r10}, [%rd5+16];
        ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd5+32];
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f5, %f6, %f7, %f8}, {%r5, %r6, %r7, %r8}, {%r9, %r10},
            {%f1, %f2, %f3, %f4};
        st.global.v4.f32 [%rd5+48], {%f5, %f6, %f7, %f8};
    """
    machine.run(body, memory)
    want = a @ b + c
    for lane in range(32):
        high, low = divmod(lane, 4)
        for k in range(4):
            assert memory[lane, 12 + k] == want.T.ravel()[32 * low + high + 16 * (k % 2) + 8 * (k // 2)]


def test_lanes_that_part_meet_again_and_functions_have_arguments_of_each_lane(machine):
    functions = """.func (.param .b32 out) square(.param .b32 square_param_0)
    { .reg .b32 %r<9>; ld.param.b32 %r1, [square_param_0]; mul.lo.s32 %r2, %r1, %r1;
      st.param.b32 [out+0], %r2; ret; }"""
    body = """
        and.b32 %r5, %r1, 1; setp.eq.s32 %p1, %r5, 0;
        mov.u32 %r7, %r1;
        @%p1 bra $EVEN;
        { .param .b32 param0; st.param.b32 [param0+0], %r1; .param .b32 retval0;
          call.uni (retval0), square, (param0); ld.param.b32 %r7, [retval0+0]; }
        bra.uni $END;
    $EVEN:
        neg.s32 %r7, %r7;
    $END:
        shfl.sync.bfly.b32 %r8, %r7, 1, 31, -1;
        cvt.s64.s32 %rd4, %r8; st.global.u64 [%rd3], %rd4;
    """
    got = machine.run(body, np.zeros(32, np.int64), functions=functions)
    assert_array_equal(got, [-(lane ^ 1) if lane % 2 else (lane ^ 1) ** 2 for lane in range(32)])


@pytest.mark.parametrize("order", [0, 1, 5])
def test_threads_of_a_block_meet_at_barriers(machine, order):
    body = """
        mov.u32 %r5, hr_dynamic_shared; shl.b32 %r6, %r1, 2; add.s32 %r7, %r5, %r6;
        st.shared.u32 [%r7], %r1;
        bar.sync 0;
        sub.s32 %r8, 95, %r1; shl.b32 %r9, %r8, 2; add.s32 %r10, %r5, %r9;
        ld.shared.u32 %r11, [%r10]; cvt.u64.u32 %rd4, %r11; st.global.u64 [%rd3], %rd4;
    """
    got = machine.run(body, np.zeros(192, np.int64), threads=96, grid=2, shared=384, order=order)
    assert_array_equal(got, np.tile(np.arange(96)[::-1], 2))


def test_a_product_and_the_one_sum_that_reads_it_are_fused_on_request(machine):
    a = np.float32(1 + 2**-12)
    body = """
        ld.global.f32 %f1, [%rd3]; mul.f32 %f2, %f1, %f1; mov.f32 %f3, 0f3f800000; sub.f32 %f4, %f2, %f3;
        st.global.f32 [%rd3+4], %f4;
    """
    array = np.tile(np.array([a, 0], np.float32), 32)
    assert_array_equal(machine.run(body, array.copy())[1::2], a * a - np.float32(1))
    assert_array_equal(machine.run(body, array.copy(), contract=True)[1::2], np.float32(float(a) ** 2 - 1))
    rounded = body.replace("mul.f32", "mul.rn.f32")
    assert_array_equal(machine.run(rounded, array.copy(), contract=True)[1::2], a * a - np.float32(1))


# ---- findings ---------

SHARED = "mov.u32 %r5, hr_dynamic_shared; shl.b32 %r6, %r1, 2; add.s32 %r7, %r5, %r6;"


@pytest.mark.parametrize("order", [0, 1, 5])
@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("st.global.u64 [%rd3+8], %rd2;", "out of bounds of device memory.*warp 0, lane 31"),
        ("ld.global.u64 %rd4, [%rd3+-8];", "out of bounds of device memory.*warp 0, lane 0"),
        ("st.global.u64 [%rd2], %rd2;", "out of bounds of device memory: an address of nothing"),
        ("ld.global.u64 %rd4, [%rd1+4];", "misaligned access.*lane 0"),
        (f"{SHARED} ld.shared.u32 %r8, [%r7];", "unwritten shared memory is read"),
        (f"{SHARED} st.shared.u32 [%r7+4], %r1;", "out of bounds of shared memory.*lane 31"),
        (f"{SHARED} st.shared.u32 [%r7], %r1; ld.shared.v4.u32 {{%r8, %r9, %r10, %r11}}, [%r5+4];", "misaligned"),
        (f"{SHARED} st.shared.u32 [%r7], %r1; xor.b32 %r8, %r7, 4; ld.shared.u32 %r9, [%r8];", "race: read of another"),
        (f"{SHARED} st.shared.u32 [%r5], %r1;", "race: two threads write"),
        (f"{SHARED} mov.u32 %r8, 1; st.shared.u32 [%r5], %r8; bar.sync 0; ld.shared.u32 %r8, [%r5]; "
         "setp.eq.s32 %p1, %r1, 3; @%p1 st.shared.u32 [%r5], %r1;", "race: write of what another"),
        ("mov.u32 %r5, 65535; shfl.sync.bfly.b32 %r6, %r1, 16, 31, %r5;", "missing from its own mask"),
        ("setp.lt.s32 %p1, %r1, 16; @%p1 bra $A; bra $END; $A: shfl.sync.bfly.b32 %r6, %r1, 16, 31, 65535; $END:",
         "a shuffle reads a lane that takes no part"),
        ("setp.lt.s32 %p1, %r1, 7; @%p1 bra $A; bar.sync 0; bra $END; $A: bar.warp.sync -1; $END:",
         "a lane is missing"),
        ("setp.lt.s32 %p1, %r1, 7; @%p1 bra $END; bar.sync 0, 64; $END:", "64 threads, which is not the whole block"),
        ("sin.approx.f32 %f1, %f2;", "text:.*an instruction that the interpreter does not know: sin.approx.f32"),
        ("add.rz.f32 %f1, %f2, %f3;", "does not know: add.rz.f32"),
        ("add.f32 %f1, %fd2, %f3;", "a register of another size than its type: %fd2"),
        ("bra $NOWHERE;", "a label that is not there"),
    ],
)  # fmt: skip
def test_forbidden_operations_of_a_kernel_are_named(machine, order, body, match):
    machine.module.ptx_forget()
    machine.fails(body, match, array=np.zeros(32, np.int64), shared=128, order=order)


def test_barriers_do_not_order_blocks(machine):
    body = "cvt.u64.u32 %rd4, %r2; bar.sync 0; setp.eq.s32 %p1, %r1, 0; @%p1 st.global.u64 [%rd1], %rd4; bar.sync 0;"
    machine.fails(body, "race between blocks: two write", grid=3)
    body = (
        "ld.global.u64 %rd5, [%rd1]; bar.sync 0; setp.eq.s32 %p1, %r2, 2; @%p1 st.global.u64 [%rd3], %rd5; "
        "setp.eq.s32 %p2, %r4, 64; mov.u64 %rd6, 9; @%p2 st.global.u64 [%rd1], %rd6;"
    )
    machine.fails(
        body, "race between blocks: (write of what another read|read of a write)", np.zeros(96, np.int64), grid=3
    )


@pytest.mark.parametrize("barrier", ["bar.sync 0", "bar.warp.sync -1"])
def test_barriers_order_the_accesses_on_either_side(machine, barrier):
    read = "xor.b32 %r8, %r7, 4; ld.shared.u32 %r9, [%r8];"
    body = f"{SHARED} st.shared.u32 [%r7], %r1; {barrier}; {read} {barrier}; st.shared.u32 [%r8], %r9;"
    machine.run(body, np.zeros(32, np.int64), shared=128)


def test_a_barrier_of_a_warp_orders_no_other_warp(machine):
    body = f"{SHARED} st.shared.u32 [%r7], %r1; bar.warp.sync -1; xor.b32 %r8, %r7, 128; ld.shared.u32 %r9, [%r8];"
    machine.fails(body, "race: read of another thread's write", threads=64, shared=256)


def test_device_memory_that_was_never_written(machine):
    array = np.zeros(32, np.float64)
    given = machine.emu.tuple(array)
    machine.module.ptx_forget()
    machine.module.ptx_fresh(given, True)
    try:
        machine.fails("ld.global.f64 %fd1, [%rd3];", "unwritten device memory is read", array, registered=False)
        machine.run(
            "mov.f64 %fd1, 0d3ff0000000000000; st.global.f64 [%rd3], %fd1; ld.global.f64 %fd2, [%rd3];",
            array,
            registered=False,
        )
        machine.run("ld.global.f64 %fd1, [%rd3];", array, registered=False)
    finally:
        machine.module.ptx_fresh(given, False)
    machine.module.ptx_forget()
    machine.fails("ld.global.f64 %fd1, [%rd3];", "an address of nothing", array, registered=False)


def test_a_known_finding_is_an_error_at_more_lines(machine):
    body = f"{SHARED} ld.shared.u32 %r8, [%r7];"
    twice = body + "\nld.shared.u32 %r9, [%r7];"
    try:
        machine.module.ptx_know([("k", "unwritten shared memory is read", 1)])
        machine.run(body, np.zeros(32, np.int64), shared=128)
        machine.fails(twice, "unwritten shared memory is read", shared=128)
        machine.module.ptx_know([("other", "unwritten shared memory is read", 1)])
        machine.fails(body, "unwritten shared memory is read", shared=128)
    finally:
        machine.module.ptx_know(interpreted.known())


def test_parameters_of_another_size(machine):
    with pytest.raises(machine.module.EmulationError, match="expected 8 bytes for parameter 0, as its PTX has, got 4"):
        machine.module.ptx_run(kernel(""), "k", (1, 1, 1), (32, 1, 1), [b"1234"])
    with pytest.raises(machine.module.EmulationError, match="expected 1 parameters, as its PTX has, got 0"):
        machine.module.ptx_run(kernel(""), "k", (1, 1, 1), (32, 1, 1), [])


def test_ptx_of_other_sources(machine, tmp_path):
    (tmp_path / "sources").write_text("f" * 64 + "\n")
    try:
        with pytest.raises(machine.module.EmulationError, match="is of other sources than this build"):
            machine.module.ptx_use(str(tmp_path))
    finally:
        machine.module.ptx_use(interpreted.FOLDER or "")


@pytest.mark.parametrize(
    ("access", "stride", "passes"),
    [
        ("f32 %f1", 4, 1),
        ("f32 %f1", 4 * 33, 1),
        ("f32 %f1", 8, 2),
        ("f32 %f1", 128, 32),
        ("v2.f32 {%f1, %f2}", 8, 2),
        ("v4.f32 {%f1, %f2, %f3, %f4}", 16, 4),
    ],
)
def test_passes_through_banks_are_counted(access, stride, passes, machine):
    kind, registers = access.split(" ", 1)
    body = f"{SHARED} mad.lo.u32 %r8, %r1, {stride}, %r5; st.shared.{kind} [%r8], {registers};"
    machine.run(body, np.zeros(32, np.int64), shared=8192)
    assert machine.warps[0]["shared passes"] == passes
    assert machine.warps[0]["executed"]["shared store"] == 1


@pytest.mark.parametrize(
    ("access", "passes"),
    [("f32 %f1", 1), ("v4.f32 {%f1, %f2, %f3, %f4}", 4)],  # the load unit takes 128 bytes of registers at a time
)
def test_lanes_that_read_the_same_words_share_passes(access, passes, machine):
    kind, registers = access.split(" ", 1)
    # The store of four values takes four passes.
    stored = "mad.lo.u32 %r8, %r1, 16, %r5; st.shared.v4.f32 [%r8], {%f1, %f2, %f3, %f4};"
    machine.run(
        f"{SHARED} {stored} bar.sync 0; ld.shared.{kind} {registers}, [%r5];", np.zeros(32, np.int64), shared=8192
    )
    assert machine.warps[0]["shared passes"] == 4 + passes
    assert machine.warps[0]["executed"]["shared load"] == 1


@pytest.mark.parametrize(("stride", "sectors", "passes"), [(4, 4, 1), (8, 8, 2), (32, 32, 8), (0, 1, 1)])
def test_sectors_of_device_memory_are_counted(stride, sectors, passes, machine):
    array = np.zeros(256, np.int64)
    address = array.ctypes.data % 128  # lines begin at multiples of 128 bytes
    body = f"""
        mul.wide.u32 %rd4, %r1, {stride}; add.s64 %rd5, %rd1, %rd4; add.s64 %rd5, %rd5, {-address % 128};
        ld.global.f32 %f1, [%rd5];
    """
    machine.run(body, array)
    assert (machine.warps[0]["device sectors"], machine.warps[0]["device passes"]) == (sectors, passes)


def test_reports_name_kernels_that_did_not_run_and_entries_that_no_longer_occur():
    warps = [{"executed": {"float32": 2}}, {"executed": {"float32": 3}}]
    ran = {"launches": 2, "most_blocks": 3, "ragged": 1, "warps": warps}
    kernels, known = interpreted.merged([{"kernels": {"a": ran, "b": ran}, "known": [["a", "kind"]]}] * 2)
    assert kernels["a"] == {"launches": 4, "most_blocks": 3, "ragged": 2, "executed": {"float32": 10}}
    entry = interpreted.Known("a", "kind", 1, "reason")
    assert not interpreted.complaints(kernels, known, {}, [entry])
    others = {"a": {**ran, "launches": 0}, "b": {**ran, "ragged": 0}, "c": ran}
    assert interpreted.complaints(others, set(), {"c": "", "d": ""}, [entry]) == [
        "no test launched a",
        "no launch of several blocks with lanes that have no work: b",
        "more than one block, though ONE_BLOCK lists it: c",
        "ONE_BLOCK: no kernel is called d",
        "a known finding that did not occur: a: kind",
    ]
