"""Long calls of headrace run on PyTorch's threads."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from headrace.torch import _threads  # noqa: E402

LINE = "7f00-7f01 r-xp 00009000 fe:00 1234 "


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/site/torch/lib/libgomp.so.1"], "/site/torch/lib/libgomp.so.1"),
        (["/site/torch.libs/libgomp-1a2b.so.1"], "/site/torch.libs/libgomp-1a2b.so.1"),
        (["/site/scipy.libs/libgomp-9.so.1", "/site/torch/lib/libgomp.so.1"], "/site/torch/lib/libgomp.so.1"),
        (["/env/lib/libiomp5.so"], "/env/lib/libiomp5.so"),
        (["/env/lib/libomp.so"], "/env/lib/libomp.so"),
        (["/env/lib/libgomp.so.1", "/env/lib/libiomp5.so"], None),  # two libraries, neither of them PyTorch's
        (["/env/a path/libgomp.so.1"], "/env/a path/libgomp.so.1"),
        (["/env/lib/libcompress.so", "/env/lib/libcomp.so"], None),
        ([], None),
    ],
)
def test_the_library_of_pytorch_is_found(tmp_path, paths, expected):
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 rw-p 00000000 00:00 0 \n" + "".join(f"{LINE}{path}\n{LINE}{path}\n" for path in paths))
    found = _threads.library(str(maps), "/site/torch/__init__.py")
    assert (found and str(found)) == expected


def test_without_proc_maps_no_library_is_found(tmp_path):
    assert _threads.library(str(tmp_path / "maps")) is None


PROGRAM = """
import os, sys
import numpy as np, torch
import headrace as hr
import headrace.torch

torch.set_num_threads(3)
hr.set_num_threads(int(sys.argv[1]))
(torch.ones(1000, 1000) + 1).sum()  # PyTorch's threads are there from here on
flow = hr.MAF(10, transforms=3, hidden=(64, 64), seed=0)
x = np.random.default_rng(0).standard_normal((20000, 10))
before = len(os.listdir("/proc/self/task"))
first = flow.log_prob(x)
second = flow.log_prob(x)
assert np.array_equal(first, second)
with hr.threads(1):
    assert np.array_equal(first, flow.log_prob(x))
more = len(os.listdir("/proc/self/task")) - before
child = os.fork()
if child == 0:
    same = np.array_equal(first, flow.log_prob(x))  # on threads of its own: a team would be waited for without end
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(more)
"""


@pytest.mark.skipif(_threads.library() is None, reason="the OpenMP library of this PyTorch is not found")
@pytest.mark.parametrize(("threads", "own"), [(3, 0), (4, 3)])
def test_headrace_makes_threads_only_where_numbers_differ(threads, own):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == own
