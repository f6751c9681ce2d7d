"""bilby and Eryn by the code of docs/samplers.md, which has no class in headrace: flows as priors and as proposals."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.costly, pytest.mark.filterwarnings("ignore")]

PAGE = Path(__file__).parents[2] / "docs" / "samplers.md"


def run(heading, tmp_path, monkeypatch):
    """The names of a section's code after it ran."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # taken back at the end
    (code,) = re.findall(rf"^## {heading}\n.*?```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names = {"__name__": "__main__"}
    exec(compile(code, f"{PAGE.name}, {heading}", "exec"), names)
    return names


def test_a_flow_is_a_prior_of_bilby(tmp_path, monkeypatch):
    """The flow is N(0.3, 1) N(-1, 1/4), the measurement N(1; a, 1/4)."""
    bilby = library("bilby")
    bilby.core.utils.random.seed(7)
    names = run("bilby", tmp_path, monkeypatch)
    prior, result = names["prior"], names["result"]
    rows = np.array([[0.3, -1.0], [2.0, 0.1]])
    want = stats.norm.logpdf(rows, [0.3, -1.0], [1.0, 0.5]).sum(axis=1)
    assert_allclose([prior.ln_prob(dict(zip("ab", row, strict=True))) for row in rows], want, rtol=1e-12)
    assert_allclose(prior.rescale(["a", "b"], [0.5, stats.norm.cdf(1.0)]), [0.3, -0.5], rtol=1e-12)
    drawn = prior.sample(4000)
    assert_allclose(drawn["a"].mean(), 0.3, atol=5 / np.sqrt(4000))
    assert_allclose(drawn["b"].std(), 0.5, rtol=5 / np.sqrt(2 * 4000))
    exact = stats.norm.logpdf(1.0, 0.3, np.sqrt(1.25))
    assert abs(result.log_evidence - exact) < 5 * result.log_evidence_err < 1.5
    n = len(result.posterior)
    assert n > 100
    assert_allclose(result.posterior["a"].mean(), 0.3 + 0.7 / 1.25, atol=5 * np.sqrt(0.2 / 100))
    assert_allclose(result.posterior["b"].mean(), -1.0, atol=5 * 0.5 / np.sqrt(100))


def test_a_flow_is_a_proposal_of_eryn(tmp_path, monkeypatch):
    library("eryn")
    np.random.seed(3)  # noqa: NPY002  # Eryn's walkers begin with this state
    names = run("Eryn", tmp_path, monkeypatch)
    chain, move = names["chain"], names["move"]
    assert chain.shape == (400, 1, 8, 1, 2)
    assert (move.acceptance_fraction > 0.6).all()  # of a proposal whose deviations are 1.2 times the target's
    rows = chain.reshape(-1, 2)
    # Every second step is independent: a quarter of the rows count.
    assert_allclose(rows.mean(axis=0), [0.3, -1.0], atol=5 / np.sqrt(len(rows) / 4))
    assert_allclose(rows.std(axis=0), [1.0, 0.5], rtol=5 / np.sqrt(len(rows) / 2))
    old = np.random.default_rng(0).standard_normal((1, 8, 1, 2))
    new, factors = move.get_proposal({"model_0": old}, None, {"model_0": np.ones((1, 8, 1), bool)})
    log_prob = names["flow"].log_prob  # the factor of a step is the ratio of densities
    want = log_prob(old[0, :, 0]) - log_prob(new["model_0"][0, :, 0])
    assert_allclose(factors[0], want, rtol=1e-12)
    assert np.abs(want).max() > 0.1
