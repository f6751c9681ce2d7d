"""Code of pages that uses flows in bilby, Eryn and emcee, without classes of headrace: priors, proposals and
likelihoods."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.costly, pytest.mark.filterwarnings("ignore")]

PAGES = Path(__file__).parents[2] / "docs"


def section(page, heading):
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    return text


def run(heading, tmp_path, monkeypatch, page="samplers.md", **names):
    """Run the code of a section of a page, and return the names that it has defined."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # the function is restored when the test ends
    names["__name__"] = "__main__"
    for code in re.findall(r"^```python\n(.*?)^```$", section(page, heading), re.MULTILINE | re.DOTALL):
        exec(compile(code, f"{page}, {heading}", "exec"), names)
    return names


def test_a_flow_is_a_prior_of_bilby(tmp_path, monkeypatch):
    """The prior of a and b is a flow, N(0.3, 1) N(-1, 1/4); the likelihood of a measurement of 1 is N(1; a, 1/4)."""
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
    assert (move.acceptance_fraction > 0.6).all()  # the deviations of the proposal are 1.2 times those of the target
    rows = chain.reshape(-1, 2)
    # Every second step is independent of the chain, so that the limit counts a quarter of the rows.
    assert_allclose(rows.mean(axis=0), [0.3, -1.0], atol=5 / np.sqrt(len(rows) / 4))
    assert_allclose(rows.std(axis=0), [1.0, 0.5], rtol=5 / np.sqrt(len(rows) / 2))
    old = np.random.default_rng(0).standard_normal((1, 8, 1, 2))
    new, factors = move.get_proposal({"model_0": old}, None, {"model_0": np.ones((1, 8, 1), bool)})
    log_prob = names["flow"].log_prob  # the acceptance of a step has a ratio of densities as a factor
    want = log_prob(old[0, :, 0]) - log_prob(new["model_0"][0, :, 0])
    assert_allclose(factors[0], want, rtol=1e-12)
    assert np.abs(want).max() > 0.1


def test_posteriors_are_likelihoods_of_nuts_and_emcee(tmp_path, monkeypatch):
    """Four events N((i / 2, 1), (0.3, 0.1)), at (slope i, offset), have the posterior N(0.5, 0.3 / √14) N(1, 0.05)."""
    jax = library("jax")
    library("emcee"), library("numpyro")
    np.random.seed(5)  # noqa: NPY002  # emcee's moves begin with this state
    hr = library("headrace.jax") and library("headrace")
    names = run("Posteriors as likelihoods", tmp_path, monkeypatch, "jax.md", hr=hr, jax=jax, jnp=jax.numpy)
    deviations = np.array([0.3 / np.sqrt(14), 0.05])
    for rows in (np.asarray(names["draws"]), names["chain"]):
        assert rows.shape[1] == 2
        # Flows that are fitted to 2,000 rows have means and deviations that are off by some percent.
        assert (np.abs(rows.mean(axis=0) - [0.5, 1.0]) < 0.6 * deviations).all()
        assert_allclose(rows.std(axis=0), deviations, rtol=0.35)


@pytest.mark.parametrize("name", ["getdist", "bilby", "arviz"])
def test_chains_of_files_are_read_by_the_code_of_the_page(tmp_path, name):
    module = library(name)
    pandas, (code,) = (
        library("pandas"),
        re.findall(rf"`({name}\.[^`]*)`", section("jax.md", "Posteriors as likelihoods")),
    )
    names, table = ["a", "b"], np.random.default_rng(0).standard_normal((40, 2))
    path = tmp_path / f"chain_result.{'nc' if name == 'arviz' else 'json'}"
    if name == "getdist":
        np.savetxt(tmp_path / "chain.txt", np.column_stack([np.ones(40), np.zeros(40), table]))
        (tmp_path / "chain.paramnames").write_text("a a\nb b\n")
    elif name == "bilby":
        settings = {"search_parameter_keys": names, "priors": module.core.prior.PriorDict(dict.fromkeys(names, 1.0))}
        posterior = pandas.DataFrame(table, columns=names)
        result = module.core.result.Result("chain", str(tmp_path), posterior=posterior, **settings)
        result.save_to_file(overwrite=True)
    else:
        library("h5netcdf")
        module.from_dict({one: table[None, :, i] for i, one in enumerate(names)}).to_netcdf(str(path))
    given = {name: module, "names": names, "path": str(path), "root": str(tmp_path / "chain")}
    assert_allclose(eval(code, given), table, rtol=1e-6)
