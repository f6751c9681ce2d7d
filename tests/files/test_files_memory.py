"""Memory of files: large sizes in a header take no memory, and a lack of memory raises an error without a crash."""

import json
import os
import subprocess
import sys

import pytest

import headrace as hr
from headrace import files
from hostile_files import TOP, bottleneck, container, coupling, maf, network_file, plain, set_at, with_header, zeros

HUGE = {
    "10^12 features of a base": lambda: plain(kind="Flow", features=10**12, context=0, standardize_context=None,
        base={"kind": "StandardNormal", "features": 10**12}, transforms=[]),
    "2^31 features of a base": lambda: plain(kind="Flow", features=2**31 - 1, context=0, standardize_context=None,
        base={"kind": "Logistic", "features": 2**31 - 1}, transforms=[]),
    "10^12 features of a trainable base": lambda: plain(kind="Flow", features=10**12, context=0,
        standardize_context=None, base={"kind": "Normal", "features": 10**12, "trainable": True}, transforms=[]),
    "131072 features of a trainable base": lambda: plain(kind="Flow", features=2**17, context=0,
        standardize_context=None, base={"kind": "Normal", "features": 2**17, "trainable": True}, transforms=[]),
    "10^12 features of a network": lambda: with_header(maf(), set_at("transforms", 0, "features", to=10**12)),
    "131072 features of a network": lambda: with_header(maf(), set_at("transforms", 0, "features", to=2**17)),
    "131072 features of a coupling": lambda: with_header(coupling(), set_at("features", to=2**17)),
    "131072 features of a planar transform": lambda: with_header(hr.transforms.Planar(2), set_at("features", to=2**17)),
    "10^12 features of a radial transform": lambda: with_header(hr.transforms.Radial(2), set_at("features", to=10**12)),
    "10^5 context columns of a radial transform": lambda: with_header(
        hr.transforms.Radial(2, context=1, hidden=(1,)), set_at("context", to=10**5)),
    "10^12 context columns": lambda: with_header(maf(), set_at("transforms", 0, "context", to=10**12)),
    "context columns without a weight": lambda: network_file(2, zeros((0, 2 + 10**7), (4, 0)), context=10**7),
    "blocks of 131072 features": lambda: plain(kind="Rotation", features=2**17, dtype=None, blocks=[2**13] * 16),
    "10^5 blocks": lambda: plain(kind="Rotation", features=10**5, dtype=None, blocks=[1] * 10**5),
    "10^12 bins": lambda: with_header(hr.NSF(2, hidden=(4,)), set_at("transforms", 0, "bins", to=10**12)),
    "64 bins": lambda: with_header(hr.NSF(2, hidden=(4,)), set_at("transforms", 0, "bins", to=64)),
    "a bottleneck of 131072 features": lambda: bottleneck(2**17),
    "a bottleneck of 30000 features": lambda: bottleneck(30_000),
    "more features than a file may have": lambda: plain(kind="Permutation", features=2**17 + 1, dtype=None,
        order=list(range(2**17 + 1))),
    "a header of empty lists": lambda: container(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
    "a header of one string": lambda: container(b'{"a":"' + b"x" * 15_000_000 + b'"}'),
    "a header of quotes": lambda: container(b'{"a":"' + b'\\"' * 7_000_000 + b'"}'),
    "a header of backslashes": lambda: container(b'{"a":"' + b"\\" * 15_000_000),
    "a header of brackets": lambda: container(b"[" * 16_000_000),
    "a headrace header of lists": lambda: with_header(maf(), lambda h: '{"a":[' + "[]," * 1_000_000 + "[]]}"),
    "many keys": lambda: container(json.dumps({str(i): 0 for i in range(300_000)}).encode()),
    "many tensors": lambda: container(json.dumps({
        "__metadata__": {"headrace": json.dumps(TOP)},
        **{str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}}).encode()),
    "many transforms": lambda: plain(kind="Flow", features=3, context=0, standardize_context=None,
        base={"kind": "StandardNormal", "features": 3}, transforms=[{"kind": "Inverse", "transform": {}}] * 100_000),
}  # fmt: skip

# A limit in MiB, which is little beside the claims of these files: the checks of a header's text copy it a few times.
MOST_MEGABYTES = 700

LOADER = """
import re, resource, sys, time
import headrace as hr
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))  # a failure should not take the machine with it
def peak():  # of this program; getrusage may give that of the program which started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
for path in sys.argv[1:]:
    before, start = peak(), time.perf_counter()
    try:
        hr.load(path)
        outcome = "loaded"
    except hr.FileFormatError:
        outcome = "refused"
    grown = (peak() - before) / 1024
    print(path.rsplit("/", 1)[1], outcome, f"{grown:.0f}", f"{time.perf_counter() - start:.1f}", sep=",")
"""


@pytest.mark.costly
@pytest.mark.programs
def test_huge_claims_are_refused_in_little_memory(tmp_path):
    """Files are loaded in another process, whose peak of memory is measured."""
    for name, make in HUGE.items():
        (tmp_path / name).write_bytes(make())
    command = [sys.executable, "-c", LOADER, *(str(tmp_path / name) for name in HUGE)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    lines = [line.split(",") for line in run.stdout.splitlines()]
    assert [line[0] for line in lines] == list(HUGE)
    assert {line[0]: line[1] for line in lines if line[1] != "refused"} == {}
    assert sum(float(line[2]) for line in lines) < MOST_MEGABYTES, run.stdout


def of_features(features, transforms):
    base = {"kind": "StandardNormal", "features": features}
    return plain(kind="Flow", features=features, context=0, standardize_context=None, base=base, transforms=transforms)


def permutation(features=1):
    return {"kind": "Permutation", "features": features, "order": list(range(features))}


def nested(depth):
    inner = permutation()
    for _ in range(depth):
        inner = {"kind": "Inverse", "transform": inner}
    return inner


# Files of many small parts, each of which takes far more memory as an object than as text.
CROWDED = {
    "permutations": lambda: of_features(1, [permutation()] * 200_000),
    "scales": lambda: of_features(1, [{"kind": "Standardize", "features": 1, "mean": [1], "std": [2]}] * 150_000),
    "rotations": lambda: of_features(1, [{"kind": "Rotation", "features": 1, "matrix": [1]}] * 200_000),
    "nested inverses": lambda: of_features(1, [nested(55)] * 5000),
    "lists": lambda: plain(kind="Permutation", features=1, dtype=None, order=[[]] * 3_000_000),
    "fewer permutations": lambda: of_features(1, [permutation()] * 30_000),
    "wide permutations": lambda: of_features(2**17, [permutation(2**17)] * 15),
}


@pytest.mark.costly
@pytest.mark.programs
@pytest.mark.parametrize(
    "name",
    # By day permutations are read, at night also scales and rotations, by the same code.
    [pytest.param(n, marks=[pytest.mark.nightly] if n in ("scales", "rotations") else []) for n in CROWDED],
)
def test_memory_and_time_are_bounded_by_the_size_of_the_file(name, tmp_path):
    data = CROWDED[name]()
    assert len(data) < 2**24  # the file is not refused because of its size
    (tmp_path / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", LOADER, tmp_path / name], capture_output=True, text=True, check=True, timeout=120
    )
    _, _, grown, seconds = run.stdout.split(",")
    assert float(grown) * 2**20 < 24 * len(data) + 64 * 2**20
    assert float(seconds) < 30  # about a second on an idle machine


def test_files_of_the_largest_number_of_parts_are_saved_and_loaded():
    flow = hr.Flow([hr.transforms.Permutation([1, 0])] * 4000)
    assert len(files.from_bytes(files.to_bytes(flow)).transforms) == 4000
    with pytest.raises(ValueError, match=r"Flow: expected at most \d+ transforms and parts .*, got 9002"):
        files.to_bytes(hr.Flow([hr.transforms.Permutation([1, 0])] * 9000))


SHORT_OF_MEMORY = """
import os, resource, sys
import numpy as np
import headrace as hr

flow = hr.MAF(64, hidden=(512, 512), transforms=2)
path = sys.argv[1]
flow.save(path)
calls = {"save": lambda: flow.save(path), "to_bytes": lambda: hr.to_bytes(flow), "load": lambda: hr.load(path)}
call = calls[sys.argv[2]]
call()
want = flow.log_prob(np.zeros((3, 64)))
ends = {}
for extra in range(0, 24 * 2**20, 2**20):
    child = os.fork()
    if child == 0:
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.RLIM_INFINITY))
        try:
            call()
            code = 0
        except MemoryError:
            code = 1
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        os._exit(code if (flow.log_prob(np.zeros((3, 64))) == want).all() else 9)
    status = os.waitpid(child, 0)[1]
    ends[status] = ends.get(status, 0) + 1
print(ends)
assert set(ends) <= {0, 256} and len(ends) == 2, ends
"""


@pytest.mark.programs
@pytest.mark.parametrize("call", ["save", "to_bytes", "load"])
def test_too_little_memory_is_an_error_and_the_flow_still_works(call, tmp_path):
    """The limit of memory rises step by step from the memory in use: calls fail until the limit is large enough."""
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "flow"), call]
    # With these settings, free memory is returned to the system immediately.
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, env={**os.environ, **at_once}
    )
    assert run.returncode == 0, run.stdout + run.stderr
