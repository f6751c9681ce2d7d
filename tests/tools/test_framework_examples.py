"""The claims of examples with PyTorch and JAX hold; a test is skipped where its framework is not installed."""

import importlib.util
import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]  # warnings of frameworks are allowed

ROOT = Path(__file__).parents[2]
NUMBER = r"(-?\d+\.\d+)"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs an example as a user does, and returns its exit status and its output."""

    def go(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return end.value.code, capsys.readouterr().out

    return go


def load(path):
    """A script as a module, whose functions a test can call."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(pattern, text):
    """The numbers in a text where `pattern` has the mark #."""
    found = re.search(re.escape(pattern).replace(r"\#", NUMBER), text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return [float(group) for group in found.groups()]


@pytest.mark.parametrize("flow", ["IAF", pytest.param("MAF", marks=pytest.mark.nightly)])
def test_a_vae_gains_by_a_flow(run, flow):
    """The fit has half of the example's steps; for any posterior the ELBO is below the decoder's evidence."""
    pytest.importorskip("torch", reason="torch is not installed")
    status, out = run("vae_posteriors", "--posterior", flow, "--steps", 600)
    assert status == 0
    found = {}
    for name in ("Gaussian", flow):
        pattern = f"{name:8} ELBO #, evidence of its decoder #, KL(posterior || exact) # nats"
        found[name], evidence, kl = numbers(pattern, out)
        assert kl == pytest.approx(evidence - found[name], abs=2e-3)
        assert 0.0 < kl < 1.0
    (truth,) = numbers("the truth: evidence #", out)
    assert found["Gaussian"] + 0.1 < found[flow] < truth


def test_an_embedding_is_trained_with_its_flow(run):
    pytest.importorskip("torch", reason="torch is not installed")
    status, out = run("embedded_posterior", "--steps", 700)
    assert status == 0
    divergence, error = numbers("KL(exact || flow), mean over measurements: # ± # nats", out)
    assert -3.0 * error < divergence < 0.1


def test_a_barely_trained_posterior_is_detected(run):
    pytest.importorskip("torch", reason="torch is not installed")
    status, out = run("embedded_posterior", "--steps", 20)
    assert status == 1
    assert numbers("KL(exact || flow), mean over measurements: #", out)[0] > 0.3


def test_the_exact_posterior_of_a_sample_is_prior_times_likelihood():
    """The exact posterior is divided by the evidence, which is constant for a sample, and integrates to one."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    example = load(ROOT / "examples" / "embedded_posterior.py")
    torch.manual_seed(0)
    _, y, there = (t.double() for t in example.simulate(3))
    axes = torch.linspace(-6.0, 6.0, 601).double(), torch.linspace(-2.5, 2.5, 501).double()
    grid = torch.cartesian_prod(*axes)
    mean, log_deviation = grid.T
    gamma = torch.distributions.Gamma(torch.tensor(example.SHAPE).double(), torch.tensor(example.RATE).double())
    # The prior of l follows from that of the precision exp(-2 l), times 2 exp(-2 l).
    prior = gamma.log_prob(torch.exp(-2.0 * log_deviation)) + math.log(2.0) - 2.0 * log_deviation
    prior = prior + torch.distributions.Normal(0.0, log_deviation.exp()).log_prob(mean)
    for row, present in zip(y, there, strict=True):
        each = torch.distributions.Normal(mean[:, None], log_deviation.exp()[:, None]).log_prob(row)
        joint = prior + (each * present).sum(1)
        posterior = example.exact_log_prob(grid, row, present)
        near = posterior > posterior.max() - 20.0
        assert float((joint - posterior)[near].std()) < 1e-9
        assert float(posterior.exp().sum()) * (12.0 / 600) * (5.0 / 500) == pytest.approx(1.0, abs=1e-3)


def test_nuts_gains_by_a_transport(run):
    pytest.importorskip("numpyro", reason="numpyro is not installed")
    status, out = run("neutra", "--draws", 500, "--fit-steps", 800)
    assert status == 0
    (gain,) = numbers("a gradient of the transported chain is worth # of the plain one", out)
    assert gain > 5.0
    mean, deviation = (float(v) for v in re.findall(r"v: mean (\S+), deviation (\S+) ", out)[1])
    assert abs(mean) < 0.8  # the limit is five standard errors of some 350 draws
    assert abs(deviation - 3.0) < 0.6


def test_the_funnel_is_the_product_of_its_conditionals():
    pytest.importorskip("numpyro", reason="numpyro is not installed")
    example, rng = load(ROOT / "examples" / "neutra.py"), np.random.default_rng(0)
    x = rng.standard_normal((50, example.FEATURES)).astype(np.float32)

    def normal(value, deviation):
        return -0.5 * (value / deviation) ** 2 - np.log(deviation)

    expected = normal(x[:, 0], 3.0) + normal(x[:, 1:], np.exp(0.5 * x[:, :1])).sum(1)
    difference = np.asarray(example.log_density(x)) - expected
    assert difference.std() < 1e-5


def test_frameworks_share_memory(run):
    for name in ("torch", "jax"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    status, out = run("frameworks_without_copies", "--rows", 1000)
    assert status == 0
    assert len(set(re.findall(r"0x[0-9a-f]+", out.split("log densities")[0]))) == 1


@pytest.fixture
def gallery():
    return load(ROOT / "docs" / "make_gallery.py")


def test_pages_of_the_gallery_are_those_of_the_examples(gallery):
    """`python docs/make_gallery.py` makes the pages that are older than their example."""
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert not [example.stem for example in examples if not gallery.is_fresh(example)]
    folder = ROOT / "docs" / "gallery"
    assert gallery.index(examples, folder) == (folder / "index.md").read_text(encoding="utf-8")
    for example in examples:
        assert "```text\n" in (folder / f"{example.stem}.md").read_text(encoding="utf-8"), "what it printed"
        pictures = [folder / f"{example.stem}{end}.png" for end in ("", "-panel")]
        assert [picture.exists() for picture in pictures] == [gallery.draws(example)] * 2
    assert sum(file.stat().st_size for file in (ROOT / "docs").rglob("*.png")) < 4e6


def test_a_page_of_the_gallery_is_made_where_its_example_changed(gallery, tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    (tmp_path / "docs").mkdir()
    absent, drawn = tmp_path / "examples" / "absent.py", tmp_path / "examples" / "drawn.py"
    absent.write_text('"""A title.\n\nA first sentence of\ntwo lines.\nText.\n"""\n\nimport jax\n')
    drawn.write_text('"""Another title: and more."""\n\nprint("--output")\n')
    monkeypatch.setattr(gallery, "find_spec", lambda name: None)
    made = []

    def run(example, picture):
        made.append(example.stem)
        for name in (picture, picture.with_name(f"{picture.stem}-panel.png")):
            name.write_bytes(b"")
        return "seen"

    folder, themes = tmp_path / "docs" / "gallery", {"One theme": ("drawn", "absent")}
    gallery.make(tmp_path / "docs", run, themes=themes)
    assert made == ["drawn"]  # the example "absent" needs JAX, which is not installed
    assert not (folder / "absent.md").exists()
    text = (folder / "index.md").read_text()
    assert "[![Another title](drawn-panel.png)](drawn.md)" in text
    assert "**[A title](absent.md)**<br>A first sentence of two lines. |" in text
    monkeypatch.setattr(gallery, "find_spec", lambda name: name)
    gallery.make(tmp_path / "docs", run, themes=themes)
    gallery.make(tmp_path / "docs", run, themes=themes)
    assert made == ["drawn", "absent"]
    drawn.write_text(drawn.read_text() + "# changed\n")
    assert not gallery.is_fresh(drawn, tmp_path / "docs")
    gallery.make(tmp_path / "docs", run, themes=themes)
    assert made == ["drawn", "absent", "drawn"]
    assert "![Another title](drawn.png)" in (folder / "drawn.md").read_text()
    with pytest.raises(ValueError, match=r"THEMES: expected each example once, got \['absent'\] in one of both"):
        gallery.make(tmp_path / "docs", run, themes={"One theme": ("drawn",)})
