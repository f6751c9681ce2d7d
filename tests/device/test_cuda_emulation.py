"""Tests that the emulation of a CUDA device detects bugs that are planted in kernels."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cuda_arrays
import emulation

THREADS = 64


def values(emu, bug):
    return np.array(emu.module.planted(bug), np.float32)


def in_each_order(emu, bug):
    return emu.in_each_order(lambda: values(emu, bug), every=True)


def test_kernels_without_a_bug_have_equal_results_in_every_order(emu):
    for got in in_each_order(emu, "none"):
        assert_array_equal(got, np.roll(np.arange(THREADS), -1))
    for got in in_each_order(emu, "none in a warp"):
        assert_array_equal(got, np.arange(THREADS) ^ 1)


def test_shuffles_votes_and_threads_that_have_ended(emu):
    want = np.repeat([sum(range(32)), sum(range(32, 64))], 32).astype(np.float32)
    for got in in_each_order(emu, "right"):
        assert_array_equal(got[:-1], want[:-1])
        assert np.isnan(got[-1])  # the last thread ended before it wrote its value


def test_the_order_of_threads_depends_on_test_and_commit(emu, monkeypatch):
    monkeypatch.setattr(cuda_arrays, "EVERY_ORDER", False)
    scheduled = []
    monkeypatch.setattr(emu, "module", SimpleNamespace(schedule=scheduled.append))
    assert len(emu.in_each_order(lambda: None)) == 1
    assert len(emu.in_each_order(lambda: None, every=True)) == 3
    assert scheduled[1:] == [0, *cuda_arrays.ORDERS.values(), 0]
    monkeypatch.undo()
    names = [f"test_{i}" for i in range(50)]
    orders = {commit: [cuda_arrays.order_of(name, commit) for name in names] for commit in "abc"}
    assert all(set(found) == set(cuda_arrays.ORDERS) for found in orders.values())
    assert orders["a"] != orders["b"] != orders["c"]


@pytest.mark.parametrize("bug", ["no barrier", "no barrier in a warp"])
def test_a_missing_barrier_gives_other_values_in_another_order(emu, bug):
    ascending, descending, shuffled = in_each_order(emu, bug)
    right = values(emu, "none" if bug == "no barrier" else "none in a warp")
    for got in (ascending, descending, shuffled):
        assert not np.array_equal(got, right)
    assert not np.array_equal(ascending, descending, equal_nan=True)


def test_shared_memory_holds_nans_until_it_is_written(emu, thread_order):
    assert np.isnan(values(emu, "shared memory not written")).all()


def test_shared_memory_does_not_outlive_its_block(emu):
    ascending, descending, _ = in_each_order(emu, "shared memory of the last block")
    assert np.isnan(ascending).all()
    assert (descending == 1).all()  # in descending order the block that writes comes last


def test_device_memory_holds_nans_until_it_is_written(emu):
    assert np.isnan(values(emu, "device memory not written")).all()


def test_device_memory_given_back_holds_nans(emu):
    if emu.module.sanitized:
        pytest.skip("AddressSanitizer ends the process instead, as another test sees")
    assert np.isnan(values(emu, "device memory given back")).all()


def test_device_memory_is_given_back_once(emu):
    with pytest.raises(emu.module.CudaError, match="free: invalid argument"):
        emu.module.planted("given back twice")
    assert emu.module.allocated() == 0


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("barrier of some", r"deadlock, .*: block \(0, 0, 0\), thread \(\d+, 0, 0\), planted.cu:\d+"),
        (
            "two barriers",
            r"different barriers, another at planted.cu:\d+: block .* thread \(32, 0, 0\), planted",
        ),
        ("shuffle of some", "deadlock"),
        ("shuffle from outside", "a shuffle reads lane 20, which takes no part: block .* thread"),
        ("shuffle without oneself", "a thread is missing from its own mask: block"),
        ("masks that differ", "threads of a warp disagree about the mask: block"),
    ],
)
def test_threads_that_wait_for_ever_are_named(emu, thread_order, bug, message):
    with pytest.raises(emu.module.EmulationError, match=message):
        emu.module.planted(bug)
    assert_array_equal(values(emu, "none"), np.roll(np.arange(THREADS), -1))  # the next launch succeeds


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("too much shared memory", "invalid argument"),
        ("too many threads", "invalid configuration argument"),
        ("no blocks", "invalid configuration argument"),
        ("more shared memory than there is", "shared: invalid argument"),
    ],
)
def test_unsupported_features_of_a_device_are_refused(emu, bug, message):
    with pytest.raises(emu.module.CudaError, match=message):
        emu.module.planted(bug)
    assert emu.module.allocated() == 0


def test_shared_memory_beyond_48_kb_must_be_asked_for(emu):
    assert_array_equal(values(emu, "much shared memory"), np.roll(np.arange(THREADS), -1))


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("beyond shared memory", "heap-buffer-overflow"),
        ("before shared memory", "heap-buffer-overflow"),
        ("beyond device memory", "heap-buffer-overflow"),
        ("device memory given back", "heap-use-after-free"),
    ],
)
@pytest.mark.parametrize("order", [0, 1])
def test_memory_beyond_the_requested_size_is_detected_by_the_sanitizer(emu, bug, message, order):
    program = emulation.folder() / "planted"
    if not program.exists():
        pytest.skip("the compiler has no AddressSanitizer")
    assert subprocess.run([program, "none"], capture_output=True, check=True).stderr == b""
    done = subprocess.run([program, bug, str(order)], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"ERROR: AddressSanitizer: {message}" in done.stderr
    assert "planted.cu" in done.stderr


def test_errors_pass_through_fibers_under_the_sanitizer(emu):
    program = emulation.folder() / "planted"
    if not program.exists():
        pytest.skip("the compiler has no AddressSanitizer")
    done = subprocess.run([program, "barrier of some"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("deadlock")


def test_launches_from_several_threads_of_the_host(emu):
    want = np.roll(np.arange(THREADS), -1)
    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(lambda _: values(emu, "none"), range(8)):
            assert_array_equal(got, want)
    assert_array_equal(values(emu, "none"), want)


# --- the runtime ----------------------------------------------------------------------------------------------------


def test_calls_are_logged_in_their_order(emu):
    emu.module.log()
    emu.module.planted("none")
    assert emu.module.log() == [(call, 0) for call in ("cudaMallocAsync", "launch", "copy to host", "cudaFreeAsync")]
    assert emu.module.log() == []


def test_a_driver_older_than_the_toolkit_is_reported_with_both_versions(emu):
    """The message of CUDA's runtime is that there is no card, although there is one."""
    module = emu.module
    assert (module.device_count(), module.reason()) == (1, "")
    module.set_driver(12040)
    assert module.device_count() == 0
    assert "built with CUDA 13.0, and the driver knows CUDA up to 12.4" in module.reason()
    assert "a toolkit of CUDA 12" in module.reason()
    module.set_driver(0)
    assert module.reason() == "there is no NVIDIA driver"
    module.set_driver(13010)
    module.set_devices(0)
    assert module.reason() == "no CUDA-capable device is detected"


def test_jax_leaves_the_memory_of_a_card_to_other_processes():
    """By default JAX would reserve three quarters of a card's memory in each process of pytest -n."""
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_memory_in_the_pool_can_be_given_back(emu):
    before = emu.module.trims()
    emu.module.log()
    emu.module.give_back(0)
    assert emu.module.trims() == before + 1
    # The call waits for the device, because memory that is still being freed is available only then.
    assert emu.module.log() == [("cudaDeviceSynchronize", 0)]
    with pytest.raises(emu.module.CudaError, match="device: invalid device ordinal"):
        emu.module.give_back(9)


def test_an_allocation_fails_on_request(emu):
    emu.module.fail_allocation(2)
    emu.module.planted("none")
    with pytest.raises(MemoryError, match="device memory of 256 bytes: out of memory"):
        emu.module.planted("none")
    emu.module.planted("none")
    emu.module.fail_allocation(2, times=2)
    emu.module.planted("none")
    for _ in range(2):
        with pytest.raises(MemoryError):
            emu.module.planted("none")
    emu.module.planted("none")
    assert emu.module.allocated() == 0


def test_devices_and_versions(emu):
    assert emu.module.device_count() == 1
    assert emu.module.reason() == ""
    assert emu.module.device_name(0) == "emulation"
    with pytest.raises(emu.module.CudaError, match="device: invalid device ordinal"):
        emu.module.device_name(1)
    assert emu.module.driver_version() >= emu.module.runtime_version() >= 12000
    emu.module.set_devices(0)
    assert emu.module.device_count() == 0
    assert emu.module.reason() == "no CUDA-capable device is detected"


@pytest.fixture
def card(emu):
    """The emulated module, whose card and build a test may change."""
    return emu.module


def test_a_card_that_is_too_old_is_named(card):
    card.set_architecture(75)
    reason = "emulation has compute capability 7.5, and headrace needs 8.0"
    assert (card.device_count(), card.reason(), card.device_reason(0)) == (0, reason, reason)
    card.set_devices(2)
    assert card.reason() == f"{reason}; {reason}"
    card.set_architecture(80)
    assert (card.device_count(), card.reason(), card.device_capability(1)) == (2, "", "8.0")


BUILDS = [  # (compute capability, architectures of the build, whether kernels run, whether the driver compiles them)
    (80, "80-real 90-real 90-virtual", True, False),
    (86, "80-real 90-real 90-virtual", True, False),  # machine code of 8.0 runs on 8.6
    (90, "80-real 90-real 90-virtual", True, False),
    (100, "80-real 90-real 90-virtual", True, True),
    (120, "80-real 90-real 90-virtual", True, True),
    (120, "80-real 120-real 90-virtual", True, False),
    (120, "80", True, True),  # an architecture without "-real" or "-virtual" is both
    (89, "80", True, False),
    (80, "90-real", False, False),
    (80, "86-real", False, False),
    (120, "90-real", False, False),
    (80, "90-virtual", False, False),
    (100, "all-major", True, False),
]


@pytest.mark.parametrize(("capability", "built_for", "runs", "is_compiled"), BUILDS)
def test_a_build_without_code_for_the_card_is_named(card, capability, built_for, runs, is_compiled):
    card.set_architecture(capability)
    card.set_built_for(built_for)
    words = f"{capability // 10}.{capability % 10}, and headrace was built for {built_for} only"
    assert (words in card.reason()) == (not runs)
    assert (f"CUDAARCHS={capability}-real" in card.reason()) == (not runs)
    assert (card.reason() == "") == runs
    assert card.device_count() == int(runs)
    assert card.is_compiled_by_driver(0) == is_compiled
    assert card.architectures() == built_for


def test_a_card_without_memory_pools_is_named(card):
    card.set_pools(False)
    assert card.device_count() == 0
    assert "emulation has compute capability 9.0 and no memory pools" in card.reason()


@pytest.mark.parametrize(("error", "words"), [(700, "illegal memory access"), (710, "assert"), (719, "launch failure")])
def test_an_error_after_which_cuda_is_lost_advises_another_process(card, error, words):
    card.set_lost(error)
    for _ in range(2):  # every later call raises the error again
        with pytest.raises(
            card.CudaError, match=rf"{words}.*\(error {error}.*in this process any more, start it again"
        ):
            card.planted("none")
    card.set_lost(0)
    card.fail_allocation(1)
    with pytest.raises(MemoryError) as caught:  # calls after a failed allocation succeed
        card.planted("none")
    assert "process" not in str(caught.value)


def test_errors_are_exceptions_of_python(emu):
    assert issubclass(emu.module.CudaError, RuntimeError)
    assert issubclass(emu.module.EmulationError, RuntimeError)
    with pytest.raises(ValueError, match="unknown bug: nonsense"):
        emu.module.planted("nonsense")


def test_the_real_module_loads_without_a_driver():
    cuda = pytest.importorskip("headrace._cuda", reason="headrace was built without CUDA")
    count, reason = cuda.device_count(), cuda.reason()
    assert (count > 0) == (reason == "")
    assert cuda.runtime_version() >= 12000
    if count == 0:
        with pytest.raises(cuda.CudaError, match="device: "):
            cuda.device_name(0)


def test_a_clone_that_was_moved_is_built_anew(tmp_path):
    """A clone that was moved has a cache of CMake for another folder of sources, which CMake refuses."""
    cache = tmp_path / "CMakeCache.txt"
    assert not emulation.moved(cache)
    for root, moved in ((emulation.ROOT, False), (emulation.ROOT / "before", True), ("/elsewhere", True)):
        cache.write_text(f"# made by CMake\nCMAKE_HOME_DIRECTORY:INTERNAL={root}\nCMAKE_GENERATOR:INTERNAL=Ninja\n")
        assert emulation.moved(cache) == moved
