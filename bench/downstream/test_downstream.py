"""Short runs in other programs: each run finds the known values, and wrong results are reported.

The tests of a change run one sampler and one posterior with headrace's flows; at night all programs also run with their
own flows. tests/interop has tests of single calls of the integrations.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bench.downstream import __main__ as downstream
from bench.downstream.models import _wrong
from bench.downstream.runs import moments
from bench.downstream.samplers import mixture, normal, rosenbrock

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ["numpyro", "sbi-two-moons"])
def test_runs_with_flows_of_headrace_find_the_known_values(name, capsys):
    lines = lines_of(name, capsys, "--ours")
    assert lines
    assert all("headrace" in line or "accelerated" in line or "hr." in line for line in lines)


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(downstream.cases()))
def test_runs_with_either_flow_find_the_known_values(name, capsys):
    lines = lines_of(name, capsys)
    ours = ["headrace" in line or "accelerated" in line or "hr." in line for line in lines]
    assert 0 < sum(ours) < len(lines)


def lines_of(name, capsys, *more):
    """The case's lines about its runs, none of which is wrong."""
    program = downstream.cases()[name].program
    if importlib.util.find_spec(program) is None:
        pytest.skip(f"{program} is not installed")
    status = downstream.main(["--quick", "--only", name, *more])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, lines
    assert lines[0] == f"{name}: a small problem"
    assert not [line for line in lines if "WRONG" in line]
    return lines[1:]


@pytest.mark.parametrize("problem", [normal(), normal(2, 2.0, 1.0, 10.0), mixture(2), mixture(1)])
def test_known_moments_agree_with_draws_from_the_cube(problem):
    """Evidence and moments are estimated by draws from the cube."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-problem.bound, problem.bound, (2_000_000, problem.dimensions))
    log_w = problem.log_likelihood(x)
    weights = np.exp(log_w - log_w.max())
    assert abs(np.log(weights.mean()) + log_w.max() - problem.log_evidence) < 0.05
    mean, std = moments(x[:, 0], weights)
    assert abs(mean - problem.mean) < 0.05 * problem.std
    assert abs(std / problem.std - 1) < 0.05


def test_rosenbrock_is_five_pairs():
    problem = rosenbrock()
    a, b = np.meshgrid(np.linspace(-10, 10, 2001), np.linspace(-10, 10, 2001), indexing="ij")
    pair = np.exp(-(10 * (a**2 - b) ** 2 + (a - 1) ** 2))
    assert abs(5 * np.log(pair.mean()) - problem.log_evidence) < 0.02
    x = np.random.default_rng(0).normal(size=(3, 10))
    want = [-sum(10 * (r[i] ** 2 - r[i + 1]) ** 2 + (r[i] - 1) ** 2 for i in range(0, 10, 2)) for r in x]
    np.testing.assert_allclose(problem.log_likelihood(x), want)


def test_wrong_results_are_reported():
    problem = normal()
    right = (problem.log_evidence, 0.1, problem.mean, problem.std)
    assert not problem.judged(1.0, *right, 10).wrong
    assert "log evidence" in problem.judged(1.0, problem.log_evidence + 0.7, *right[1:], 10).wrong
    assert "mean" in problem.judged(1.0, *right[:2], problem.mean + problem.std, problem.std, 10).wrong
    assert "deviation" in problem.judged(1.0, *right[:3], 1.5 * problem.std, 10).wrong
    assert "log evidence" in problem.judged(1.0, np.nan, *right[1:], 10).wrong
    assert not _wrong(0.1, -0.1, 0.5, 0.05, 0.29)
    assert "too few" in _wrong(-0.1, 0.0, 0.5, 0.05, 0.29)
    assert "worse" in _wrong(0.1, -0.6, 0.5, 0.05, 0.29)
    assert "half" in _wrong(0.1, 0.0, 0.9, 0.05, 0.29)
    for ranks in ((0.2, 0.29), (0.05, 0.4), (0.05, 0.1)):
        assert "uniform" in _wrong(0.1, 0.0, 0.5, *ranks)
