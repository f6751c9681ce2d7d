"""Results have equal bits for any number of threads; forks are safe, and threads may read and write parameters."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from headrace._core import threads as _threads

ROWS = 1000  # 1000 rows fill about ten tiles


def chain(dtype, context):
    dense = cases.made(features=5, context=context).astype(dtype)
    keywords = {"context": context, "dtype": dtype, "hidden": (16, 16)}
    return hr.Flow(
        transforms=[
            hr.transforms.MaskedAutoregressive(5, reads="latent", formula="to_latent", activation="gelu", **keywords),
            hr.transforms.Permutation([2, 4, 0, 1, 3]),
            hr.transforms.Inverse(hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=context)),
            hr.transforms.Coupling(5, passive=[1, 3], scale="softplus", **keywords),
            hr.transforms.Standardize(np.arange(5.0), np.arange(1.0, 6.0)),
        ],
        base=hr.Logistic(5),
    )


def odd_widths(dtype, context):
    """A flow whose layers have groups of units of any size, of which some do not fill a register block."""
    dense = cases.made(features=5, hidden=(18, 15), context=context).astype(dtype)
    one = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=context)
    return hr.Flow(
        [one, hr.transforms.Inverse(hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=context))]
    )


FLOWS = {
    "MAF": lambda dtype, context: hr.MAF(5, context=context, transforms=2, hidden=(24, 24), dtype=dtype),
    "IAF": lambda dtype, context: hr.IAF(5, context=context, transforms=2, hidden=(24, 24), dtype=dtype),
    "RealNVP": lambda dtype, context: hr.RealNVP(5, context=context, transforms=3, hidden=(24, 24), dtype=dtype),
    "planar": lambda dtype, context: hr.PlanarFlow(5, 4, context, (24, 24), dtype=dtype),
    "radial": lambda dtype, context: hr.RadialFlow(5, 4, context, (24, 24), dtype=dtype),
    "chain": chain,
    "odd widths": odd_widths,
}
VERBS = ("to_data", "to_latent", "log_prob", "sample")
every_flow = pytest.mark.parametrize("name", FLOWS)


def flow_of(name, dtype="float32", context=0):
    return cases.randomise(FLOWS[name](dtype, context), 0.2)


def call(flow, verb, x, context=None):
    """Return all results of the method `verb`, joined by columns."""

    def sample(x, context):
        return flow.sample_and_log_prob(len(x), context, seed=7)

    results = (sample if verb == "sample" else getattr(flow, verb))(x, context)
    results = results if isinstance(results, tuple) else (results,)
    return np.hstack([result.reshape(len(x), -1) for result in results])


@every_flow
@pytest.mark.parametrize("context", [0, 2])
def test_results_have_the_same_bits_for_any_number_of_threads(name, context, dtype, set_threads):
    flow = flow_of(name, dtype, context)
    for n in (20, 100, 200, ROWS):  # the size of tiles depends on the number of threads
        x = cases.rows(n, 5, dtype)
        row_context = cases.rows(n, context, dtype, "context") if context else None
        for verb in VERBS:
            results = []
            for threads in (1, 2, 5):
                set_threads(threads)
                assert hr.get_num_threads() == hr.info()["threads"] == threads
                results.append(call(flow, verb, x, row_context))
            cases.assert_same_bits(results[1], results[0])
            cases.assert_same_bits(results[2], results[0])


@every_flow
def test_a_row_has_the_same_bits_at_any_index_of_any_batch(name, dtype):
    flow = flow_of(name, dtype)
    x = cases.rows(ROWS, 5, dtype)
    for verb in ("to_data", "to_latent", "log_prob"):
        want = call(flow, verb, x)
        for n in cases.TILED_SIZES:
            for start in (0, 1, 5, 500):
                cases.assert_same_bits(call(flow, verb, x[start : start + n]), want[start : start + n])
        for n in (1, 2, 3, 7):  # below 8 rows a path may round differently
            got = call(flow, verb, x[5 : 5 + n])
            cases.assert_close(got, want[5 : 5 + n], magnitude=10.0, depth=32)


def test_kernels_have_the_same_bits_for_any_number_of_threads(dtype, set_threads):
    values = cases.rows(5000, 9, dtype)
    params = cases.rows(5000, 18, dtype).reshape(5000, 9, 2)
    for kernel in map_cases.KERNELS.values():
        set_threads(1)
        want = kernel(values, params)
        for threads in (2, 5):
            set_threads(threads)
            for got, expected in zip(kernel(values, params), want, strict=True):
                cases.assert_same_bits(got, expected)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_environment_sets_the_number_of_threads(threads):
    code = "import headrace as hr; print(hr.get_num_threads(), hr.info()['threads'])"
    environment = {**os.environ, "HEADRACE_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [threads, threads]


def threads_at_import(code="import headrace as hr; print(hr.get_num_threads())", **environment):
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_the_environment_of_other_libraries_counts_without_our_own():
    """OMP_NUM_THREADS=1 of joblib's workers limits their threads: each worker would otherwise use all cores."""
    assert threads_at_import(OMP_NUM_THREADS="1") == ["1"]
    assert threads_at_import(OMP_NUM_THREADS="3", HEADRACE_NUM_THREADS="5") == ["5"]


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"MKL_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "3"}, 4),
        ({"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "1000000000000"}, _threads.MOST),
        ({"OMP_NUM_THREADS": "nonsense"}, _threads.cores()),
        ({"OMP_NUM_THREADS": "0"}, _threads.cores()),
        ({}, _threads.cores()),
    ],
)
def test_the_first_number_of_threads(environment, want):
    assert _threads.first_number(environment) == want


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_limits_threads():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); import headrace as hr; "
    code += "print(hr.get_num_threads())"
    assert threads_at_import(code) == ["1"]


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)


def system(root, mounts, groups, files):
    """Write a kernel's files of control groups below `root`, and return the cores that they leave."""
    texts = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **files}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return _threads.cores(str(root))


SECOND = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
FIRST = "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
INSIDE = "33 32 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "want"),
    [
        (SECOND, "0::/a/b", {"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 64),
        (SECOND, "0::/a/b", {"sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 3),
        (
            SECOND,
            "0::/a/b",
            {"sys/fs/cgroup/a/b/cpu.max": "800000 100000", "sys/fs/cgroup/a/cpu.max": "20000 10000"},
            2,
        ),
        (SECOND, "0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        (
            FIRST,
            "4:cpu,cpuacct:/a\n0::/",
            {
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            INSIDE,
            "4:cpu:/docker/abc",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            6,
        ),
        (SECOND, "0::/a", {"sys/fs/cgroup/a/cpu.max": "what is this"}, 64),
        ("", "", {}, 64),
    ],
)
def test_control_groups_limit_threads(tmp_path, many_cores, mounts, groups, files, want):
    assert system(tmp_path, mounts, groups, files) == want


def test_threads_of_one_thread(set_threads):
    set_threads(3)
    with hr.threads(1):
        assert hr.get_num_threads() == 1
        with hr.threads(5):
            assert hr.get_num_threads() == hr.info()["threads"] == 5
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(hr.get_num_threads).result(timeout=30) == 3
        assert hr.get_num_threads() == 1
        hr.set_num_threads(2)
        assert hr.get_num_threads() == 1
    assert hr.get_num_threads() == 2
    with pytest.raises(KeyError), hr.threads(1):
        raise KeyError
    assert hr.get_num_threads() == 2
    for bad, error in ((0, ValueError), (4097, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match=r"\bn\b"), hr.threads(bad):
            pass


def test_threadpoolctl_sees_and_limits_the_pool(set_threads):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    set_threads(3)

    def seen():
        return [
            library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "headrace"
        ]

    assert seen() == [3]
    with threadpoolctl.threadpool_limits(1):
        assert seen() == [1]
        assert hr.get_num_threads() == 1
    assert hr.get_num_threads() == 3


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are not to be seen")
def test_threads_end_when_fewer_are_wanted():
    code = """
import os, time
import numpy as np
import headrace as hr
def threads(): return len(os.listdir("/proc/self/task"))
flow, x = hr.MAF(3), np.ones((200000, 3))
hr.set_num_threads(1)
flow.log_prob(x)
idle = threads()
hr.set_num_threads(4096)
flow.log_prob(x[:40])
assert threads() <= idle + 40
hr.set_num_threads(30)
end = time.time() + 30
while threads() < idle + 29 and time.time() < end:
    flow.log_prob(x)
assert threads() == idle + 29, threads()
hr.set_num_threads(3)
while threads() > idle + 2 and time.time() < end:
    time.sleep(0.01)
assert threads() == idle + 2, threads()
assert np.isfinite(flow.log_prob(x)).all()
with hr.threads(9):
    flow.log_prob(x)
while threads() > idle + 2 and time.time() < end:
    time.sleep(0.01)
print(threads() - idle)
"""
    assert threads_at_import(code, OPENBLAS_NUM_THREADS="1") == ["2"]


# --- processes ------------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
forks_with_threads = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:os.fork:RuntimeWarning")


def send_log_prob(connection, flow, x):
    connection.send_bytes(flow.log_prob(x).tobytes())
    connection.close()


def log_prob_in_a_fork(flow, x):
    """Return the results of a forked child; fail, and do not hang, if the child finds no threads for its work."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=send_log_prob, args=(there, flow, x))
    child.start()
    there.close()
    try:
        assert here.poll(30), "the child is stuck"
        return np.frombuffer(here.recv_bytes(), flow.dtype)
    finally:
        child.join(5)
        if child.is_alive():
            child.kill()
            child.join()
        here.close()


@needs_fork
@forks_with_threads
def test_a_forked_child_computes_the_same_bits(set_threads):
    set_threads(3)
    flow = flow_of("MAF")
    x = cases.rows(ROWS, 5, "float32")
    want = flow.log_prob(x)  # the parent has threads now
    cases.assert_same_bits(log_prob_in_a_fork(flow, x), want)
    cases.assert_same_bits(flow.log_prob(x), want)


@needs_fork
@forks_with_threads
def test_a_fork_in_the_middle_of_another_threads_call_is_safe(set_threads):
    set_threads(3)
    flow = flow_of("MAF")
    x = cases.rows(ROWS, 5, "float32")
    want = flow.log_prob(x)
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            flow.log_prob(x)

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(keep_busy)
        try:
            for _ in range(5):
                cases.assert_same_bits(log_prob_in_a_fork(flow, x), want)
        finally:
            stop.set()
        busy.result(timeout=30)


# --- many readers, one writer ---------------------------------------------------------------------------------------


def test_many_threads_may_read_one_flow(set_threads):
    set_threads(2)
    flow = flow_of("chain")
    x = cases.rows(ROWS, 5, "float32")
    want = {verb: call(flow, verb, x) for verb in VERBS}

    def read(verb):
        for _ in range(20):
            cases.assert_same_bits(call(flow, verb, x), want[verb])

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(read, verb) for verb in VERBS * 2]:
            done.result(timeout=60)


@every_flow
def test_readers_see_the_old_or_the_new_parameters_whole(name, set_threads):
    set_threads(2)
    flow = flow_of(name)
    x = cases.rows(300, 5, "float32")
    versions, wanted = [], {verb: set() for verb in ("log_prob", "to_data")}
    for version in range(2):
        cases.randomise(flow, 0.2, version)
        versions.append(flow.parameters)
        for verb, results in wanted.items():
            results.add(call(flow, verb, x).tobytes())
    assert all(len(results) == 2 for results in wanted.values())
    whole = {parameters.tobytes() for parameters in versions}
    stop = threading.Event()

    def read():
        seen = {verb: set() for verb in wanted}
        while not stop.is_set():
            for verb in wanted:
                seen[verb].add(call(flow, verb, x).tobytes())
            assert flow.parameters.tobytes() in whole
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for step in range(400):
                flow.parameters = versions[step % 2]
                if step % 8 == 0:  # sometimes no writer disturbs the readers
                    stop.wait(0.001)
        finally:
            stop.set()
        for reader in readers:
            for verb, results in reader.result(timeout=60).items():
                assert results
                assert results <= wanted[verb]


def test_setting_one_parameter_is_seen_whole(set_threads):
    """No result mixes two values of a bias of the last layer, which all rows and tiles share."""
    set_threads(2)
    mask = np.zeros((4, 2), bool)
    transform = hr.transforms.MaskedAutoregressive.from_dense([np.zeros((4, 2))], [np.zeros(4)], [mask])
    (name,) = (key for key, array in transform.named_parameters().items() if array.shape == (4,))
    z = np.zeros((2000, 2))
    stop = threading.Event()

    def read():
        while not stop.is_set():
            x, _ = transform.forward(z)
            assert (x == x[0, 0]).all()

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for step in range(400):
                transform.set_parameter(name, np.array([step, 0.0, step, 0.0]))
                if step % 8 == 0:
                    stop.wait(0.001)
        finally:
            stop.set()
        for reader in readers:
            reader.result(timeout=60)
    want = reference.coupling_forward(z, np.full((2000, 2, 2), [399.0, 0.0]))
    cases.assert_matches(transform.forward(z), want, z, "float64")


def test_a_bad_number_of_threads_in_the_environment_is_refused():
    for bad in ("abc", "0", "-2", "1e9", "3 "):
        run = subprocess.run(
            [sys.executable, "-c", "import headrace"],
            env={**os.environ, "HEADRACE_NUM_THREADS": bad},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode != 0
        assert "ImportError" in run.stderr
        assert "HEADRACE_NUM_THREADS" in run.stderr


def test_any_sequence_of_thread_counts_gives_the_same_bits():
    flow, x = flow_of("MAF"), cases.rows(ROWS, 5, "float32")
    want = flow.log_prob(x)
    before = hr.get_num_threads()
    try:
        for n in (48, 2, 3, 1, 5):
            hr.set_num_threads(n)
            cases.assert_same_bits(flow.log_prob(x), want)
    finally:
        hr.set_num_threads(before)
