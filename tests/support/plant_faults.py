"""Plants faults, each by itself, and prints which tests find it: ``python tests/support/plant_faults.py --seed 47``.

The last commit is cloned into ``build/faults/tree``, built for this machine's instruction set alone, and changed there;
nothing is drawn that needs a package or a device that is not there. Each fault first meets the quick tests of the files
that name it most often. Faults that these miss are planted together and meet all quick tests, then each fault alone
meets the tests that failed. The other tests without emulation follow in the same way, for the faults that remain. A
fault at which tests hang is one that they find; a test that fails without any fault finds none.
"""

import argparse
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


def run(*command, seconds=1800, check=True):
    """A process that is finished, or was ended with all that it had started."""
    environment = {"CCACHE_BASEDIR": str(TREE), "CCACHE_NOHASHDIR": "1", "PYTHONPATH": str(TREE / "python")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": {**os.environ, **environment}}
    with subprocess.Popen(command, cwd=TREE, start_new_session=True, preexec_fn=limit_memory, **pipes) as process:
        try:
            text = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text = process.communicate()[0] + f"\nno end in {seconds} s"
    if check and process.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{text}")
    return subprocess.CompletedProcess(command, process.returncode, text)


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


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


def planted(*faults):
    """Whether the compiler takes the faults, which are in the clone then."""
    for fault in sorted(faults, key=lambda fault: fault.begin, reverse=True):  # places of the earlier ones hold
        path = TREE / fault.path
        text = path.read_text()
        path.write_text(text[: fault.begin] + fault.new + text[fault.end :])
    return all(fault.path.endswith(".py") for fault in faults) or build(check=False)


def restore(*faults):
    run("git", "checkout", "-q", "--", *(fault.path for fault in faults))
    if not all(fault.path.endswith(".py") for fault in faults):
        build()


def drawn(rng, language):
    """All faults of a language in an order by chance, in which kinds take turns."""
    by_kind = {}
    for path in run("git", "ls-files", *SOURCES[language]).stdout.split():
        package = PACKAGES.get(path.split("/")[2], "sys")
        if not NOT_HERE.search(path) and importlib.util.find_spec(package):
            for fault in faults_in(path, (TREE / path).read_text()):
                by_kind.setdefault(fault.kind, []).append(fault)
    for faults in by_kind.values():
        rng.shuffle(faults)
    return (fault for turn in itertools.zip_longest(*by_kind.values()) for fault in turn if fault)


def nearest(fault, words):
    """Test files that mention most often what the file, its folder and the functions around the fault are named."""
    stem = Path(fault.path).stem.removesuffix("-inl").strip("_")
    folders = {part.strip("_") for part in Path(fault.path).parts}
    if fault.path.startswith("cpp"):
        folders |= {"derivatives", "maps", "networks"}

    def score(path):
        named = sum(words[path][name] for name in fault.names if len(name) > 3)
        mentions = 3 * named + 10 * words[path][stem] / sum(words[path].values()) ** 0.5
        return mentions + 5 * (Path(path).parts[1] in folders) + 8 * sum(part in path for part in stem.split("_"))

    return sorted(words, key=score, reverse=True)[:6]


def failures(*options, seconds):
    """The names of tests that fail, or the last line of a process that ended without any."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options)
    result = run(*command, seconds=seconds, check=False)
    if result.returncode in (0, 5):  # all pass, or none is chosen
        return []
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - .*)?$", result.stdout, re.MULTILINE)
    return failed or [result.stdout.strip().splitlines()[-1][:80] if result.returncode > 0 else "a crash"]


def sound(tests):
    """Without those that fail in the clone as it was, too."""
    always = failures("-n", "0", *tests, seconds=1200) if tests and tests[0].startswith("tests/") else []
    return [test for test in tests if test not in always]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--python", type=int, default=10, help="faults in python/headrace")
    parser.add_argument("--cpp", type=int, default=10, help="faults in cpp/")
    parser.add_argument("-n", default="auto", help="processes of pytest where all tests run")
    settings = parser.parse_args()
    prepare()
    files = [path for path in run("git", "ls-files", "tests/*/test_*.py").stdout.split() if "device" not in path]
    words = {path: Counter(re.findall(r"[^\W_]+(?:_[^\W_]+)*", (TREE / path).read_text())) for path in files}
    rng, begin, faults = random.Random(settings.seed), time.monotonic(), []

    def judge(fault, finder, tests=()):
        fault.verdict = f"{finder}: `{tests[0].split('[')[0].removeprefix('tests/')}`" if tests else finder
        print(f"{time.monotonic() - begin:.0f} s {fault.row()}", file=sys.stderr, flush=True)

    for language, count in (("python", settings.python), ("cpp", settings.cpp)):
        draws, wanted = drawn(rng, language), len(faults) + count
        while len(faults) < wanted:
            fault = next(draws)
            if planted(fault):
                faults.append(fault)
                tests = failures("-n", "0", "-x", "--quick", *nearest(fault, words), seconds=300)
                restore(fault)
                if tests := sound(tests):
                    judge(fault, "quick", tests)
            else:
                restore(fault)
    for finder, *options in (("quick", "--quick"), ("the rest", "--rest", "-m", "not emulated")):
        left = [fault for fault in faults if not fault.verdict]
        planted(*left)
        suspects = failures("-n", settings.n, *options, seconds=3600) if left else []
        restore(*left)
        suspects = [test for test in sound(suspects) if test.startswith("tests/")]
        print(f"{len(left)} faults together:", *(suspects or ["no failure"]), sep="\n", file=sys.stderr, flush=True)
        for fault in left if suspects else []:
            planted(fault)
            if tests := failures("-n", "0", "-x", *suspects, seconds=1200):
                judge(fault, finder, tests)
            restore(fault)
    for fault in faults:
        fault.verdict = fault.verdict or "neither"
    print("| file | change | found by |\n| --- | --- | --- |", *(fault.row() for fault in faults), sep="\n")
    of = Counter(fault.verdict.split(":")[0] for fault in faults)
    print(f"quick: {of['quick']} of the {of['quick'] + of['the rest']} that are found; neither: {of['neither']}")


if __name__ == "__main__":
    main()
