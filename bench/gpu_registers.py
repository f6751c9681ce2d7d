"""Registers, spills and shared memory of every CUDA kernel, as the compiler reports them; needs nvcc, no GPU.

    python -m bench.gpu_registers              compiles cuda/ for sm_80 and sm_90 and writes bench/results/
    python -m bench.gpu_registers --check      writes nothing
    python -m bench.gpu_registers --only "chain|gradient"     these files alone; writes nothing

Lists every kernel that spills registers to memory, and fails where a hot one stores and loads more than `MOST_SPILLED`
bytes of them, or has a stack of more than `MOST_STACK`: a thread's own arrays that are indexed at run time lie there,
and parameters of the kernel whose address is taken. A device keeps such memory for all threads that it can hold, beside
every pool.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "gpu_registers_sm80_sm90.txt"
ARCHITECTURES = (80, 90)
REGISTERS = 65536  # of a multiprocessor

# Kernels whose work grows with rows times coordinates or with weights, and the bytes that one may store and load.
HOT = (
    *("run_chain", "there_and_back", "sum_products", "sum_products_in_fragments"),
    *("step_rows", "map_rows"),
    *("coupling_rows_direct", "coupling_rows_staged", "coupling_backward_direct", "coupling_backward_staged"),
    *("vector_rows_forth", "vector_rows_back", "long_rows_forth", "long_rows_back"),
    *("sum_squares", "move_weights"),
)
MOST_SPILLED = 16
MOST_STACK = 256


@dataclass(frozen=True)
class Kernel:
    """What the assembler says about one kernel for one architecture."""

    file: str
    name: str
    architecture: int
    registers: int
    stack: int
    spilled: int  # bytes stored and loaded
    shared: int  # bytes known at compile time


def sources():
    """Every file with kernels."""
    return sorted([*ROOT.glob("cuda/*.cu"), *ROOT.glob("cuda/kernels/*.cu")])


def compile_report(path, architecture):
    """What `ptxas -v` prints for one file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-std=c++20", "-O3", f"-arch=sm_{architecture}", "-Xptxas", "-v"]
        command += ["-c", str(path), "-o", f"{folder}/object.o"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{path.relative_to(ROOT)} does not compile:\n{done.stderr}")
    print(f"compiled {path.relative_to(ROOT)} for sm_{architecture}", flush=True)
    return done.stderr


def readable(names):
    """Names as they stand in the source, without what all of them share."""
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    plain = [re.sub(r"^void |headrace::|\(anonymous namespace\)::", "", name) for name in done.stdout.splitlines()]
    return dict(zip(names, [before_arguments(name) for name in plain], strict=True))


def before_arguments(name):
    """A function's name and template arguments, without its parameters: up to the last bracket's opening one."""
    depth = 0
    for place in range(len(name) - 1, -1, -1):
        depth += (name[place] == ")") - (name[place] == "(")
        if depth == 0:
            return name[:place] if name.endswith(")") else name
    return name


def parse(text, file):
    """The kernels in what `ptxas -v` printed."""
    found = []
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\S+)' for 'sm_(?P<architecture>\d+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    for match in pattern.finditer(text):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        found.append(
            Kernel(
                file,
                match["name"],
                int(match["architecture"]),
                int(match["registers"]),
                int(match["stack"]),
                int(match["stores"]) + int(match["loads"]),
                int(shared[1]) if shared else 0,
            )
        )
    if len(found) != text.count("Compiling entry function"):
        sys.exit(f"{file}: the compiler's report has another form than expected")
    return found


def threads_by_registers(registers):
    """Threads of a multiprocessor that registers leave room for, in warps of 32, at most 2048."""
    of_warp = -(-registers * 32 // 256) * 256  # given out in units of 256
    return min(2048, REGISTERS // of_warp * 32)


def is_hot(name):
    """Whether a readable name is one of `HOT`, with whatever template arguments."""
    return name.split("<")[0] in HOT


def spills(kernels, names):
    """A line for each kernel that spills, and those of them that are hot and spill too much."""
    lines, too_much = [], []
    for k in sorted(kernels, key=lambda k: (k.file, names[k.name], k.architecture)):
        if k.spilled:
            hot = is_hot(names[k.name])
            lines.append(f"{k.file} {names[k.name]} sm_{k.architecture}: {k.spilled} bytes{', hot' if hot else ''}")
            too_much += lines[-1:] if hot and k.spilled > MOST_SPILLED else []
    return lines, too_much


def stacks(kernels, names):
    """A line for each hot kernel whose threads have too large a stack."""
    found = sorted((k.file, names[k.name], k.architecture, k.stack) for k in kernels if k.stack > MOST_STACK)
    return [f"{file} {name} sm_{a}: a stack of {stack} bytes" for file, name, a, stack in found if is_hot(name)]


def table(kernels, names):
    """The report's lines: one a kernel, its numbers for each architecture."""
    kinds = {}
    for kernel in kernels:
        kinds.setdefault((kernel.file, names[kernel.name]), {})[kernel.architecture] = kernel
    width = max(len(name) for _, name in kinds)
    heads = "  ".join(f"{f'sm_{a}: registers threads spilled stack shared':>46}" for a in ARCHITECTURES)
    lines, last = [f"{'kernel':{width}}  {heads}"], None
    for (file, name), found in sorted(kinds.items()):
        if file != last:
            lines += ["", file]
            last = file
        cells = []
        for k in (found[architecture] for architecture in ARCHITECTURES):
            cells.append(
                f"{k.registers:16d} {threads_by_registers(k.registers):7d} {k.spilled:7d} {k.stack:5d} {k.shared:6d}"
            )
        lines.append(f"{name:{width}}  " + "  ".join(f"{cell:>46}" for cell in cells))
    return lines


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write no file")
    parser.add_argument("--only", metavar="REGEX", help="files whose name matches; write no file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time (default: all cores)")
    arguments = parser.parse_args()
    if not shutil.which("nvcc"):
        sys.exit("gpu_registers: NO nvcc ON THIS MACHINE, NOTHING WAS COMPILED")
    chosen = [path for path in sources() if re.search(arguments.only or "", path.name)]
    jobs = [(path, architecture) for path in chosen for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        reports = pool.map(lambda job: compile_report(*job), jobs)
        kernels = [
            k for job, text in zip(jobs, reports, strict=True) for k in parse(text, str(job[0].relative_to(ROOT)))
        ]
    names = readable(sorted({kernel.name for kernel in kernels}))
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release [^\n]*", version)[0]
    absent = set(HOT) - {name.split("<")[0] for name in names.values()}
    if absent and not arguments.only:
        sys.exit(f"gpu_registers: no kernel is named {', '.join(sorted(absent))}: bring HOT in line with the sources")
    spilling, too_much = spills(kernels, names)
    large = stacks(kernels, names)
    lines = [
        f"Registers of every kernel, nvcc {release}, -O3. `threads`: of a multiprocessor, as registers alone allow.",
        f"{len(kernels)} kernels for sm_80 and sm_90; {len(spilling)} spill, {len(too_much)} hot ones too much.",
        *(f"  {line}" for line in spilling),
        "",
        *table(kernels, names),
    ]
    if arguments.check or arguments.only:
        print("\n".join(lines))
    else:
        RESULT.write_text("\n".join(lines) + "\n")
        print(f"{RESULT.relative_to(ROOT)}: {lines[1]}", *(f"  {line}" for line in spilling), sep="\n")
    if too_much:
        listed = "\n".join(f"  {line}" for line in too_much)
        sys.exit(f"these kernels spill more than {MOST_SPILLED} bytes:\n{listed}")
    if large:
        listed = "\n".join(f"  {line}" for line in large)
        sys.exit(f"these kernels have a stack of more than {MOST_STACK} bytes:\n{listed}")


if __name__ == "__main__":
    main()
