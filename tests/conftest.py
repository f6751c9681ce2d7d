"""Fixtures and settings for all tests."""

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import compiling
import cores
import cuda_arrays
import emulation
import frameworks
import headrace as hr
import interpreted
import selection
from cases import DTYPES
from cli_cases import folder, result, run
from devices import library, machine
from headrace._fit.starts import mixture

# JAX would reserve three quarters of a card's memory in each of pytest's processes, and leave nothing for the others.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
compiling.quickly()

collect_ignore = ["interop/jax_devices.py", "interop/torch_processes.py"]  # programs that tests run, and no tests

__all__ = ["folder", "library", "machine", "result", "run"]  # fixtures

# Hypothesis takes the same examples on every run and machine, and leaves no files: a failure is therefore due to a
# change of the code.
settings.register_profile("headrace", derandomize=True, database=None, deadline=None, max_examples=200)
settings.load_profile("headrace")

# A background job of a shell ignores Ctrl-C, and so do Python and its children; tests need Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--thin", action="store_true", help="of each test a few cases: for sanitizers (tests/support/selection.py)"
    )
    parser.addoption(
        "--quick", action="store_true", help="the same, neither emulated, long nor costly: the check of an installation"
    )
    parser.addoption("--rest", action="store_true", help="what --quick leaves out")
    parser.addoption(
        "--one-in",
        type=int,
        metavar="N",
        help="of N tests one, by a digest of its name, and how many of all have run: for emulated processors",
    )
    parser.addoption("--part", type=int, default=0, metavar="K", help="which of the N, from 0 on")
    parser.addoption(
        "--write-skipped", metavar="FILE", help="name there the tests that a package which is not installed skipped"
    )


def pytest_runtest_logreport(report):
    selection.note_skipped(report)


def pytest_collectreport(report):
    selection.note_skipped(report)


def pytest_sessionfinish(session):
    config = session.config
    if hasattr(config, "workerinput"):  # the main process of pytest-xdist collects no tests
        config.workeroutput["collected"] = config.stash[selection.COLLECTED]
    elif path := config.option.write_skipped:
        Path(path).write_text("".join(f"{name}\n" for name in selection.skipped), encoding="utf-8")
        if unknown := [reason for reason in sorted(selection.reasons) if selection.step_of(reason) is None]:
            print(f"\nno step runs tests that are skipped for these reasons (tests/support/selection.py): {unknown}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Store the number of tests that each worker of pytest-xdist has collected; all workers collect the same."""
    collected = getattr(node, "workeroutput", {}).get("collected", 0)  # a crashed worker has not sent a number
    node.config.stash[selection.COLLECTED] = max(collected, node.config.stash.get(selection.COLLECTED, 0))


def pytest_sessionstart(session):
    """Build the emulation with all cores, before workers start that would wait for each other."""
    config = session.config
    if not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None) and selection.whole(config):
        if config.option.quick or "not emulated" in config.option.markexpr:
            return
        with contextlib.suppress(emulation.Unavailable, RuntimeError):  # tests report the error
            emulation.prepare(say=lambda text: print(text, flush=True))


@pytest.hookimpl(tryfirst=True)  # this hook precedes pytest's selection by marks
def pytest_collection_modifyitems(config, items):
    config.stash[selection.COLLECTED] = len(items)
    if selection.no_device() and config.option.markexpr != "gpu":  # otherwise each test of a device would be skipped
        selection.deselect(config, items, [item for item in items if item.get_closest_marker("gpu")])
    if not selection.NIGHTLY:
        selection.deselect(config, items, [item for item in items if item.get_closest_marker("nightly")])
    interpreted.mark(items)
    selection.mark_emulated(items)
    selection.mark_costly(items)
    if config.option.quick or config.option.rest:
        selection.deselect(config, items, selection.split(items)[config.option.quick])
    if config.option.thin:
        selection.deselect(config, items, selection.superfluous(items))
    if n := config.option.one_in:
        selection.deselect(
            config, items, [item for item in items if not selection.is_one_in(n, item.nodeid, config.option.part)]
        )


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """Freeze modules and tests, which stay in memory, so that garbage collections leave them out."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter, config):
    if config.option.one_in:  # skipped tests do not count as run
        ran = sum(len(terminalreporter.getreports(outcome)) for outcome in ("passed", "failed"))
        terminalreporter.write_line(f"{ran} of {config.stash[selection.COLLECTED]} tests ran")
    if reason := selection.no_device():
        terminalreporter.write_line(f"tests of a real device were left out: {reason}")
    if not selection.NIGHTLY:
        terminalreporter.write_line("tests marked nightly were left out: HEADRACE_NIGHTLY=1 takes them")
    if not cuda_arrays.EVERY_ORDER and emulation.built():
        terminalreporter.write_line(
            f"orders of the emulation's threads were chosen by HEADRACE_EMU_SEED={cuda_arrays.seed()}"
        )


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def weights_of_torch():
    """Give models of PyTorch equal initial weights, whichever tests the process has run before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def set_threads():
    """The function ``headrace.set_num_threads``, whose effect is undone after the test."""
    before = hr.get_num_threads()
    yield hr.set_num_threads
    hr.set_num_threads(before)


@pytest.fixture
def one_mixture(monkeypatch):
    """Try only one mixture of each kind for small tables, in tests that do not judge the choice."""
    monkeypatch.setattr(mixture, "COMPONENTS", (3,))
    monkeypatch.setattr(mixture, "COMPONENTS_OF_FULL", (4,))
    monkeypatch.setattr(mixture, "PRIORS_OF_FULL", (1.0,))


@pytest.fixture(params=frameworks.NAMES)
def framework(request):
    """Each array framework; JAX has 64-bit values."""
    found = frameworks.load(request.param)
    if found.name != "jax":
        yield found
        return
    before = found.module.config.jax_enable_x64
    found.module.config.update("jax_enable_x64", True)
    yield found
    found.module.config.update("jax_enable_x64", before)


@pytest.fixture(params=["emu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """Each device that runs the CUDA sources, with its module and its arrays (tests/support/cuda_arrays.py)."""
    return cuda_arrays.load(request.param)


@pytest.fixture(params=cores.params)
def core(request):
    """Each core under the library's Python layer (tests/support/cores.py)."""
    with cores.using(request.param) as found:
        yield found


@pytest.fixture
def emu():
    """The emulated device alone, with its module in the initial state."""
    found = cuda_arrays.load("emu")
    yield found
    found.module.schedule(0)
    found.module.fail_allocation(0)
    found.module.set_architecture(90)
    found.module.set_built_for("host")
    found.module.set_pools(True)
    found.module.set_lost(0)
    found.module.set_multiprocessors(4)
    found.module.set_devices(1)
    found.module.set_driver(13000)
    found.module.set_captured(0)
    found.module.set_busy(False)


@pytest.fixture(params=cuda_arrays.ORDERS)
def thread_order(request, emu):
    """Each order in which the emulation runs a block's threads."""
    emu.module.schedule(cuda_arrays.ORDERS[request.param])
    return request.param
