"""The timed calls of `bench.frameworks` are right: all libraries and calls give equal values, and losses fall."""

from __future__ import annotations

import numpy as np
import pytest

from bench.frameworks import loops

CASES = loops.cases(loops.SMALL, compiled=False)


@pytest.mark.filterwarnings("ignore")  # warnings of other libraries
@pytest.mark.parametrize(
    ("case", "library"),
    [
        # The loop of flowjax is tested at night, because nearly all of its time is that of compiling.
        pytest.param(c, name, marks=[pytest.mark.nightly] if name == "flowjax" else [])
        for c, makers in CASES.items()
        for name in makers
    ],
)
def test_steps_lower_the_loss(case, library):
    step = CASES[case][library]()
    losses = [step() for _ in range(1 if case.startswith("draws") else 200)]
    assert np.isfinite(losses).all()
    if not case.startswith("draws"):  # draws are not trained
        assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.05


@pytest.mark.filterwarnings("ignore")
def test_libraries_take_turns():
    pytest.importorskip("torch", reason="torch is not installed")
    found = loops.measure(CASES["small, PyTorch"], rounds=2, block=0.01)
    assert {len(seconds) for seconds in found["seconds"].values()} == {2}
    lines = loops.rows_of("small", found)
    assert lines[0][1] == "headrace"
    assert float(lines[0][3]) == 1.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [1, 100])
def test_calls_run(rows):
    """Few repeats of each call run; the benchmark itself compares densities."""
    pytest.importorskip("torch", reason="torch is not installed")
    from bench.frameworks import __main__ as frameworks

    for call in frameworks.calls(rows, compiled=False).values():
        call()


def test_graphs_have_the_densities_of_the_flow():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    from bench.frameworks import graphs

    graphs.main(rows=(3,), rounds=1, seconds=0.001)


@pytest.mark.filterwarnings("ignore")
def test_jax_has_the_densities_of_the_flow():
    pytest.importorskip("jax", reason="jax is not installed")
    from bench.frameworks import jax as frameworks_jax

    frameworks_jax.calls([3], seconds=0.01)
    frameworks_jax.coupling([3], rounds=1, seconds=0.01)  # compares bits of callbacks and handlers
