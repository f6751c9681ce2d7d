"""Plants faults one at a time and prints the tests that find each: ``python tests/support/plant_faults.py --seed 47``.

The last commit is cloned into ``build/faults/tree``, built for this machine's instruction set alone, and changed there.
No fault is planted in files that need a package or a device that this machine lacks. For each fault, the quick tests of
the files that mention it most often run first, until one fails. If none fails, all quick tests run, and then other
tests without emulation: for a fault in Python the tests that reach the fault, which one run with marks in place of the
faults finds (``reached.py``); for a fault in the core the tests in the folders of kernels, and those in the files that
mention it. A fault counts as found if the tests do not end; a test that also fails without the fault does not count.
"""

import argparse
import ast
import importlib.util
import itertools
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from faults import faults_in

CHECKOUT = Path(__file__).resolve().parents[2]
TREE = CHECKOUT / "build" / "faults" / "tree"
SOURCES = {"python": ["python/headrace/*.py"], "cpp": ["cpp/core", "cpp/math", "cpp/kernels", "cpp/steps"]}
PACKAGES = {"convert": "torch", "integrations": "torch", "dask": "dask", "jax": "jax", "onnx": "onnx", "torch": "torch"}
NOT_HERE = re.compile(r"cuda|device|dask|flowjax|torch|jax|tiles|__main__")  # in names of files
MEMORY = 16 << 30
MARK, MARKS = '(__import__("reached").at({}) or ({}))', TREE.parent / "reached"
PARTS = ("quick", "--quick"), ("the rest", "--rest", "-m", "not emulated")
ROOM = 10  # the number of test files that are nearest to a fault
OF_KERNELS = ("bases", "bounds", "core", "derivatives", "maps", "networks", "sequences", "vector")  # folders of tests


def run(*command, seconds=14400, core=3600, check=True):
    """Run a process to its end, or end it with all its children; `core`: the most seconds of processor time."""
    path = os.pathsep.join(str(TREE / folder) for folder in ("python", "tests/support"))
    environment = {"CCACHE_BASEDIR": str(TREE), "CCACHE_NOHASHDIR": "1", "PYTHONPATH": path}
    environment |= {"HEADRACE_REACHED": str(MARKS)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": {**os.environ, **environment}}

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (core, core + 10))

    with subprocess.Popen(command, cwd=TREE, start_new_session=True, preexec_fn=limit, **pipes) as process:
        try:
            text = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text = process.communicate()[0] + f"\nno end in {seconds} s"
    if check and process.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{text}")
    return subprocess.CompletedProcess(command, process.returncode, text)


def build(check=True):
    return run("cmake", "--build", "build/dev", "--target", "_cpu", check=check).returncode == 0


def prepare():
    if not TREE.exists():
        TREE.mkdir(parents=True)
        run("git", "clone", "-q", "--no-local", str(CHECKOUT), ".")
    run("git", "fetch", "-q", str(CHECKOUT), "HEAD")
    run("git", "checkout", "-qf", "FETCH_HEAD")
    options = ("-DHEADRACE_NATIVE=ON", "-DHEADRACE_EMULATION=OFF", "-DHEADRACE_WERROR=OFF")
    run("cmake", "--preset", "dev", *options, f"-DPython_EXECUTABLE={sys.executable}")
    build()


def written(*faults, marks=False):
    """Write the faults, or marks in their positions, into the clone."""
    numbers = {id(fault): i for i, fault in enumerate(faults)}
    # The positions of earlier faults stay valid.
    for fault in sorted(faults, key=lambda fault: fault.begin, reverse=True):
        path = TREE / fault.path
        text = path.read_text()
        new = MARK.format(numbers[id(fault)], fault.old) if marks else fault.new
        path.write_text(text[: fault.begin] + new + text[fault.end :])


def planted(fault):
    """Write a fault into the clone; return whether the clone then compiles."""
    written(fault)
    return build(check=False)


def restore(*faults):
    run("git", "checkout", "-q", "--", *(fault.path for fault in faults))


def drawn(rng, language):
    """All faults in sources of a language, in a random order that alternates between kinds of faults."""
    by_kind = {}
    for path in run("git", "ls-files", *SOURCES[language]).stdout.split():
        package = PACKAGES.get(path.split("/")[2], "sys")
        if not NOT_HERE.search(path) and importlib.util.find_spec(package):
            for fault in faults_in(path, (TREE / path).read_text()):
                by_kind.setdefault(fault.kind, []).append(fault)
    for faults in by_kind.values():
        rng.shuffle(faults)
    return (fault for turn in itertools.zip_longest(*by_kind.values()) for fault in turn if fault)


def nearest(fault, words, most):
    """The test files that mention most often the names of the fault's file, its folders and the functions around it."""
    stem = Path(fault.path).stem.removesuffix("-inl").strip("_")
    folders = {part.strip("_") for part in Path(fault.path).parts}
    if fault.path.startswith("cpp"):
        folders |= {"derivatives", "maps", "networks"}

    def score(path):
        named = sum(words[path][name] for name in fault.names if len(name) > 3)
        mentions = 3 * named + 10 * words[path][stem] / sum(words[path].values()) ** 0.5
        return mentions + 5 * (Path(path).parts[1] in folders) + 8 * sum(part in path for part in stem.split("_"))

    return sorted(words, key=score, reverse=True)[:most]


def room(fault, words):
    """The test files that may reach a fault."""
    near = nearest(fault, words, ROOM)
    return near + [path for path in words if fault.path.startswith("cpp") and Path(path).parts[1] in OF_KERNELS]


def failures(*options, core=1200):
    """The names of tests that fail, or the way in which the process ended if no test failed."""
    command = (sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *options)
    result = run(*command, core=core, check=False)
    if result.returncode in (0, 5):  # all tests pass, or no test is chosen
        return []
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - .*)?$", result.stdout, re.MULTILINE)
    ended = "no end" if result.returncode in (-signal.SIGXCPU, -signal.SIGKILL) else "a crash"
    return failed or [result.stdout.strip().splitlines()[-1][:80] if result.returncode > 0 else ended]


def found_by(fault, *options, core=1200):
    """Whether the fault compiles, and the names of the tests that fail with the fault and pass without it, or the way
    in which their process ended."""
    built = planted(fault)
    tests = failures("-x", *options, core=core) if built else []
    restore(fault)
    if not tests:
        return built, []
    build()
    if tests[0].startswith("tests/"):
        always = failures(*tests)
        return built, [test for test in tests if test not in always]
    return built, tests if tests != failures("-x", *options, core=core) else []


def can_be_marked(fault):
    """Whether a call can replace the faulty expression, which is impossible in a pattern."""
    text = (TREE / fault.path).read_text()
    try:
        ast.parse(text[: fault.begin] + MARK.format(0, fault.old) + text[fault.end :])
    except SyntaxError:
        return False
    return fault.path.endswith(".py")


def reaching(faults, words, name, *part):
    """For each fault in Python, by its index, a function that runs those tests of a part that reach the fault."""
    marked = {i: fault for i, fault in enumerate(faults) if can_be_marked(fault)}
    MARKS.write_text("")
    if marked:
        written(*marked.values(), marks=True)
        build()  # the build still has the last fault of the core
        failures(*part, core=7200)
        restore(*marked.values())
    lines, reach = [line.split(" ", 1) for line in MARKS.read_text().splitlines()], {}
    for number, (i, fault) in enumerate(marked.items()):
        tests = list(dict.fromkeys(test for mark, test in lines if int(mark) == number))
        path = TREE.parent / f"{number}-{name.replace(' ', '-')}"
        path.write_text("\n".join(tests))
        reach[i] = [] if not tests else [*part, *room(fault, words)] if "" in tests else [f"@{path}"]
    return reach


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--python", type=int, default=10, help="faults in python/headrace")
    parser.add_argument("--cpp", type=int, default=10, help="faults in cpp/")
    settings = parser.parse_args()
    prepare()
    files = [path for path in run("git", "ls-files", "tests/*/test_*.py").stdout.split() if "device" not in path]
    words = {path: Counter(re.findall(r"[^\W_]+(?:_[^\W_]+)*", (TREE / path).read_text())) for path in files}
    rng, begin, faults = random.Random(settings.seed), time.monotonic(), []

    def judge(fault, finder, tests):
        fault.verdict = f"{finder}: `{tests[0].split('[')[0].removeprefix('tests/')}`"
        print(f"{time.monotonic() - begin:.0f} s {fault.row()}", file=sys.stderr, flush=True)

    for language, count in (("python", settings.python), ("cpp", settings.cpp)):
        draws, wanted = drawn(rng, language), len(faults) + count
        while len(faults) < wanted:
            fault = next(draws)
            compiles, tests = found_by(fault, "--quick", *nearest(fault, words, 6), core=300)
            if compiles:
                faults.append(fault)
                if tests:
                    judge(fault, "quick", tests)
    for name, *part in PARTS:
        left = [fault for fault in faults if not fault.verdict]
        reach = reaching(left, words, name, *part)
        for i, fault in enumerate(left):
            tests = reach.get(i, [*part, *room(fault, words)])
            if tests and (tests := found_by(fault, *tests)[1]):
                judge(fault, name, tests)
    for fault in faults:
        fault.verdict = fault.verdict or "neither"
    print("| file | change | found by |\n| --- | --- | --- |", *(fault.row() for fault in faults), sep="\n")
    of = Counter(fault.verdict.split(":")[0] for fault in faults)
    print(f"quick: {of['quick']} of the {of['quick'] + of['the rest']} that are found; neither: {of['neither']}")


if __name__ == "__main__":
    main()
