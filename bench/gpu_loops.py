"""Instructions of the device's inner loops, counted in machine code; needs nvcc and cuobjdump, no GPU.

    python -m bench.gpu_loops            the loops of products in kernels of their own (bench/gpu_loops.cu): seconds
    python -m bench.gpu_loops --whole    all loops, in the kernels that are shipped: minutes

A multiprocessor issues four instructions a cycle, one for each warp scheduler: a loop cannot reach a larger share of
the peak of multiply-adds than these are of its instructions. `test_gpu_loops.py` fails where one has fewer than stated.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = 90
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;?\s*/\* 0x")
MEMORY = ("LDS", "LDG", "LD", "LDL", "LDC", "STS", "STG", "ST", "STL")


@dataclass(frozen=True)
class Loop:
    """An innermost loop: the kernel it is in, and how often it has instructions that tell it from others there."""

    name: str
    kernel: str
    key: str  # the instruction that does the work
    count: int
    loads: tuple[str, int]  # its widest ones
    share: float  # of all its instructions, at least

    def is_in(self, counts: Counter[str]) -> bool:
        """Whether these are its instructions."""
        return (counts[self.key], counts[self.loads[0]]) == (self.count, self.loads[1])


PRODUCTS = (
    Loop("forth, exact, lines in shared memory", r"^forth<float, true, .*0>", "FFMA", 64, ("LDG.128", 16), 0.43),
    Loop("forth, exact, lines in global memory", r"^forth<float, false, .*0>", "FFMA", 64, ("LDG.128", 16), 0.42),
    # With the loads of the last terms of a sum, which others jump over.
    Loop("forth, TF32, 16 sums", r"^forth<float, true, .*1>", "HMMA", 8, ("LDS", 32), 0.048),
    Loop("forth, 3xTF32, 16 sums", r"^forth<float, true, .*2>", "HMMA", 24, ("LDS", 32), 0.1),
    Loop("forth, 3xTF32, 8 sums", r"^forth<float, true, .*2>", "HMMA", 12, ("LDS", 32), 0.068),
    # Of a panel's levels, by one warp: eight terms of four sums, from shared memory.
    Loop("levels, exact and 3xTF32", r"^levels<float, true, .*0>", "FFMA", 32, ("LDS.128", 8), 0.53),
    Loop("levels, TF32", r"^levels<float, true, .*1>", "FFMA", 32, ("LDS.128", 8), 0.37),
    Loop("back, exact", r"^back<float, .*0>", "FFMA", 32, ("LDG.128", 8), 0.42),
    Loop("back, TF32, 8 sums", r"^back<float, .*1>", "HMMA", 4, ("LDG.128", 8), 0.024),
    Loop("back, 3xTF32, 8 sums", r"^back<float, .*2>", "HMMA", 12, ("LDG.128", 8), 0.062),
    # With what puts zeros where there is no row, which others jump over.
    Loop("sums over rows, TF32, 32 x 32", r"^sums<.*1>", "HMMA", 16, ("LDG.128", 8), 0.07),
    Loop("sums over rows, 3xTF32, 32 x 32", r"^sums<.*2>", "HMMA", 48, ("LDG.128", 8), 0.14),
)
WHOLE = {
    "cuda/kernels/chain.cu": (
        Loop(
            "forth, exact, lines in shared memory",
            r"^run_chain<float, true, true, false>",
            "FFMA",
            64,
            ("LDG.128", 16),
            0.42,
        ),
        # Both kinds of products.
        Loop("forth, TF32 and 3xTF32", r"^run_chain<float, true, true, true>", "HMMA", 32, ("LDS", 32), 0.09),
        Loop("levels, exact", r"^run_chain<float, true, true, false>", "FFMA", 32, ("LDS.128", 8), 0.5),
        # With the rounding of TF32, which 3xTF32 jumps over.
        Loop("levels, TF32 and 3xTF32", r"^run_chain<float, true, true, true>", "FFMA", 32, ("LDS.128", 8), 0.34),
    ),
    "cuda/kernels/gradient.cu": (
        Loop("on the tape, exact", r"^there_and_back<float>", "FFMA", 64, ("LD.128", 16), 0.46),
        # Other loops have as many multiply-adds and loads of weights, but none reads four offsets of rows.
        Loop("back, exact", r"^there_and_back<float>", "FFMA", 32, ("LD", 4), 0.42),
    ),
    "cuda/kernels/row_sums.cu": (
        Loop("sums over rows, exact", r"^sum_products<float>", "FFMA", 128, ("LDS.128", 3), 0.65),
        # Both kinds of products.
        Loop("sums over rows, TF32 and 3xTF32", r"^sum_products_in_fragments", "HMMA", 64, ("LDG.128", 8), 0.1),
    ),
    "cuda/kernels/dual_ascent.cu": (
        Loop("ascent, product of ten features", r"^step_rows<.*float.*>", "FFMA", 40, ("LDS.128", 2), 0.70),
    ),
}


def program(name: str) -> str | None:
    """A program on the PATH, or where its package puts it (nvidia-cuda-cuobjdump, which needs nvidia-cuda-nvdisasm)."""
    folders = Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin")
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


def missing() -> str:
    """Which program is not there; empty where all are."""
    return ", ".join(name for name in ("nvcc", "cuobjdump", "c++filt") if not program(name))


def machine_code(path: Path, *, architecture: int = ARCHITECTURE, timeout: float = 1200.0) -> str:
    """The disassembly of one file."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/code.cubin"
        command = ["nvcc", "-std=c++20", "-O3", f"-arch=sm_{architecture}", "-cubin", str(path), "-o", cubin]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{path.relative_to(ROOT)} does not compile:\n{done.stderr}")
        dump = program("cuobjdump") or "cuobjdump"
        env = {**os.environ, "PATH": f"{Path(dump).parent}{os.pathsep}{os.environ.get('PATH', '')}"}  # with nvdisasm
        return subprocess.run([dump, "-sass", cubin], capture_output=True, text=True, check=True, env=env).stdout


def functions(text: str) -> dict[str, list[tuple[int, str]]]:
    """By readable name, the addresses and instructions of each function in a disassembly."""
    found: dict[str, list[tuple[int, str]]] = {}
    current: list[tuple[int, str]] | None = None
    for line in text.splitlines():
        if match := re.search(r"Function : (\S+)", line):
            current = found.setdefault(match[1], [])
        elif current is not None and (match := INSTRUCTION.match(line)):
            current.append((int(match[1], 16), match[2].rstrip(" ;")))
    done = subprocess.run(["c++filt"], input="\n".join(found), capture_output=True, text=True, check=True)
    names = [
        re.sub(r"^void |headrace::|\(anonymous namespace\)::|<unnamed>::", "", name)
        for name in done.stdout.splitlines()
    ]
    return dict(zip(names, found.values(), strict=True))


def word(instruction: str) -> str:
    """Its name: of loads and stores with their width, of all others without what follows a point."""
    parts = [part for part in instruction.split() if not part.startswith("@")]
    if not parts:
        return ""
    base, *rest = parts[0].split(".")
    width = next((f".{bits}" for bits in ("128", "64") if bits in rest), "")
    return base + width if base in MEMORY else base


def innermost(code: Sequence[tuple[int, str]]) -> list[tuple[int, Counter[str]]]:
    """Of every loop that has no other in it: its address, and how often it has each instruction."""
    at = {address: i for i, (address, _) in enumerate(code)}
    loops = set()
    for i, (address, instruction) in enumerate(code):
        targets = re.findall(r"0x([0-9a-f]+)", instruction) if "BRA" in instruction else []
        if targets and (target := int(targets[-1], 16)) < address and target in at:
            loops.add((at[target], i))
    return [
        (code[begin][0], Counter(word(instruction) for _, instruction in code[begin : end + 1]))
        for begin, end in sorted(loops)
        if not any((b, e) != (begin, end) and b >= begin and e <= end for b, e in loops)
    ]


def find(loop: Loop, code: dict[str, list[tuple[int, str]]]) -> list[Counter[str]]:
    """The loops in a disassembly that may be this one."""
    return [
        counts
        for name, instructions in code.items()
        if re.search(loop.kernel, name)
        for _, counts in innermost(instructions)
        if loop.is_in(counts)
    ]


def line(loop: Loop, found: Sequence[Counter[str]]) -> str:
    """What is to be said of a loop: of that with the smallest share where it was compiled several times."""
    if not found:
        return f"{loop.name}: NOT FOUND"
    counts = min(found, key=lambda counts: counts[loop.key] / counts.total())
    loads = ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if name.startswith("LD"))
    share = counts[loop.key] / counts.total()
    stated = "" if share >= loop.share else f", LESS THAN {loop.share:.0%}"
    return f"{loop.name}: {counts.total()} instructions, {counts[loop.key]} {loop.key} ({share:.1%}{stated}); {loads}"


def is_good(loop: Loop, found: Sequence[Counter[str]]) -> bool:
    """Whether it is there, and all of them have the share that is stated."""
    return bool(found) and all(counts[loop.key] / counts.total() >= loop.share for counts in found)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--whole", action="store_true", help="also in the kernels that are shipped")
    options = parser.parse_args()
    if absent := missing():
        sys.exit(f"gpu_loops: NOT ON THIS MACHINE, NOTHING WAS COUNTED: {absent}")
    files = {"bench/gpu_loops.cu": PRODUCTS, **(WHOLE if options.whole else {})}
    good = True
    with ThreadPoolExecutor(2) as pool:
        for (file, loops), text in zip(
            files.items(), pool.map(lambda file: machine_code(ROOT / file), files), strict=True
        ):
            code = functions(text)
            print(f"{file}, sm_{ARCHITECTURE}")
            for loop in loops:
                found = find(loop, code)
                good = good and is_good(loop, found)
                print(f"  {line(loop, found)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
