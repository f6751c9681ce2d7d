"""Checks that calls of the core survive failed allocations: allocations of a call fail one at a time.

    python tests/support/allocations.py [--every N] [WORD ...]

The calls are those of `ragged_calls` and of the C library; ``--every N`` takes one call in N. A call whose allocation
fails has to raise MemoryError, or to return its usual result; it has to free all that it allocated, and a repetition
has to return the same bits. The process starts itself anew, with the library of `allocations.cpp` loaded before all
others.
"""

import argparse
import ctypes
import gc
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import runtime_library

SOURCE = Path(__file__).with_suffix(".cpp")
MOST = 40  # the number of allocations of a call that fail, at most
_VARIABLE = "HEADRACE_TEST_ALLOCATIONS"


class Allocations:
    """The functions of the library of `allocations.cpp`, which counts allocations and lets one fail."""

    def __init__(self, path):
        self._library = ctypes.CDLL(path)
        for name in ("end", "live"):
            getattr(self._library, f"allocations_{name}").restype = ctypes.c_int64
        self._library.allocations_begin.argtypes = [ctypes.c_int64]

    def begin(self, failing=-1):
        self._library.allocations_begin(int(failing))

    def end(self):
        """The number of allocations since `begin`, and whether one of them has failed."""
        count = self._library.allocations_end()
        return (count, False) if count >= 0 else (-count - 1, True)

    def live(self):
        return self._library.allocations_live()

    def lost_since(self, before):
        """The number of allocated blocks beyond the number `before`."""
        if self.live() > before:
            gc.collect()
        return self.live() - before

    @staticmethod
    def fill_the_table():
        """Make pybind11's table of objects grow now: a failed allocation while the table grows raises no exception."""
        from headrace._core import cpu

        return [cpu.HiddenOptions("tanh", 0, "", "", 0.0) for _ in range(20_000)]


def bits(result):
    """The bytes of all arrays in a nested result."""
    if isinstance(result, np.ndarray):
        return [result.tobytes()]
    if isinstance(result, dict):
        return bits(list(result.values()))
    if isinstance(result, list | tuple):
        return [part for each in result for part in bits(each)]
    return [repr(result)]


def in_a_thread(call):
    """The result and the exception of a call in a new thread, which has no scratch memory yet; one of them is None."""
    kept = []

    def run():
        try:
            kept.append((call(), None))
        except BaseException as error:
            kept.append((None, error.with_traceback(None)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return kept[0]


def judge(name, call, allocations):
    """Make at most `MOST` evenly spread allocations of a call fail, one at a time; return the number of failures."""
    for _ in range(2):  # memory that the library keeps after a first call is no leak
        want, error = in_a_thread(call)
        if error is not None:
            raise RuntimeError(name) from error
    want = bits(want)
    gc.collect()
    before = allocations.live()
    allocations.begin()
    in_a_thread(call)
    numbers = np.unique(np.linspace(0, allocations.end()[0], MOST + 1).astype(int)[:-1])
    for number in numbers:
        allocations.begin(number)
        got, error = in_a_thread(call)
        _, has_failed = allocations.end()
        if error is None:  # a failed allocation need not be an error: a stable sort works without its buffer
            assert bits(got) == want, f"{name}: other bits where allocation {number} failed"
        elif not (has_failed and isinstance(error, MemoryError)):
            raise AssertionError(f"{name}: expected MemoryError at allocation {number}, got {error!r}") from error
        del got, error
        if (lost := allocations.lost_since(before)) > 0:
            raise AssertionError(f"{name}: {lost} blocks are lost after allocation {number} failed")
    assert bits(in_a_thread(call)[0]) == want, f"{name}: other bits after failed allocations"
    return len(numbers)


def parts_of(name, call):
    """The call itself, or each call of the iterator that it returns, by name."""
    made = call()
    if not isinstance(made, Iterator):
        yield name, call
        return
    for i, part in enumerate(list(made)):
        yield from parts_of(f"{name}, part {i}", part)


def of_c(folder):
    """Calls of the C library that open a flow of each kind and evaluate it, by name."""
    import c_library
    import file_cases
    import sequence_cases

    library = c_library.Library()

    def refused(call):
        def run():
            try:
                return call()
            except c_library.Refused as error:
                if error.code != "NO_MEMORY":
                    raise
                raise MemoryError from None

        return run

    for name, make in file_cases.EXAMPLES.items():
        module, path = make("float32"), Path(folder) / "flow.safetensors"
        module.save(path)
        data = path.read_bytes()
        yield f"C: open {name}", refused(lambda data=data: (library.open(data), None)[1])
        x, context = file_cases.inputs_of(module)
        handle = library.open(data)
        verb = handle.log_prob if handle.has_density else handle.to_latent
        yield f"C: {name}, a call", refused(lambda verb=verb, x=x, c=context: verb(x, c))
    flow = sequence_cases.flow_of(sequence_cases.EXAMPLES[next(iter(sequence_cases.EXAMPLES))]("float32"))
    flow.save(Path(folder) / "sequence.safetensors")
    data = (Path(folder) / "sequence.safetensors").read_bytes()
    yield "C: open a flow of sequences", refused(lambda: (library.open(data), None)[1])


def main(every, words):
    import headrace as hr
    import ragged_calls

    hr.set_num_threads(1)
    allocations, calls, total = Allocations(os.environ[_VARIABLE]), 0, 0
    allocations.fill_the_table()
    with tempfile.TemporaryDirectory() as folder:
        sources = (ragged_calls.ops(), ragged_calls.of_rows(), ragged_calls.of_steps(), of_c(folder))
        named = [pair for source in sources for pair in source if not words or any(word in pair[0] for word in words)]
        parts = (part for name, call in named for part in parts_of(name, call))
        for i, (name, call) in enumerate(parts):
            if i % every == 0:
                total += judge(name, call, allocations)
                calls += 1
    print(f"{calls} calls, {total} failed allocations, instruction set {hr.info()['isa']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("words", nargs="*")
    settings = parser.parse_args()
    if _VARIABLE in os.environ:
        main(settings.every, settings.words)
    else:
        with tempfile.TemporaryDirectory() as build:
            library = str(Path(build) / "allocations.so")
            runtime_library.compile_to(library, SOURCE, "-shared", "-fPIC")
            environment = {**os.environ, "LD_PRELOAD": library, _VARIABLE: library}
            sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)
