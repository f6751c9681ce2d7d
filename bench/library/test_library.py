"""The calls that `bench.library` times are right: the C library gives the module's bits, and the header close
values."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from bench.library import __main__ as library
from bench.library import showers
from bench.library.calls import Timed


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_timed_calls_have_the_results_of_the_module(capsys):
    assert library.main(["--quick"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == (2 + 3 * 2 * 2) + 1 + (2 + 2 * 2)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_showers_that_are_timed_are_those_of_the_module(capsys, tmp_path):
    assert showers.main(["--quick"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    flow = showers.teacher(8, 16)
    flow.save(tmp_path / "flow.safetensors")
    contexts = np.random.default_rng(0).standard_normal((20, showers.CONTEXT)).astype(np.float32)
    drawn = np.zeros((20, 8), np.float32)
    side = Timed(library.compiled(tmp_path, "showers.cpp"), "showers", tmp_path / "flow.safetensors")
    side("sample", contexts, drawn, 1)
    np.testing.assert_array_equal(drawn, flow.sample(20, contexts, seed=1))
