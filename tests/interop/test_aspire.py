"""Flows inside of aspire: aspire's arguments, discovery by name, files, and a posterior with its evidence."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

library("aspire")

import h5py  # noqa: E402
from aspire import Aspire, Samples  # noqa: E402
from aspire.flows import get_flow_wrapper  # noqa: E402

from headrace.integrations.aspire import HeadraceFlow  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def rows(n=400, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3)) * [1.0, 2.0, 0.5] + [3.0, 0.0, -1.0]


def fitted(**settings):
    flow = HeadraceFlow(3, transforms=2, hidden=(16,), **settings)
    history = flow.fit(rows(), n_epochs=5, batch_size=100, weight_decay=0.01)
    assert len(history.training_loss) == len(history.validation_loss) == 5
    return flow


@pytest.mark.parametrize("kind", ["MAF", "NSF", "RealNVP"])
def test_densities_samples_and_maps_agree(kind):
    flow = fitted(flow_class=kind, dtype="float64")
    assert flow.flow.dtype == np.float64
    x, log_prob = flow.sample_and_log_prob(50)
    assert x.shape == (50, 3)
    assert_allclose(flow.log_prob(x), log_prob, rtol=1e-8, atol=1e-8)
    z, log_det = flow.forward(x)
    back, other = flow.inverse(z)
    assert_allclose(back, x, rtol=1e-7, atol=1e-7)
    assert_allclose(log_det, -other, rtol=1e-7, atol=1e-7)
    base = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=1)
    assert_allclose(base + log_det, log_prob, rtol=1e-8, atol=1e-8)
    assert not np.array_equal(flow.sample(50), x)


def test_the_same_seed_gives_the_same_flow_and_a_transform_of_the_data_counts():
    from aspire.transforms import FlowTransform

    def made():
        bounds = {"a": [-10, 10], "b": [-20, 20], "c": [-5, 5]}
        transform = FlowTransform(parameters=["a", "b", "c"], prior_bounds=bounds, xp=HeadraceFlow.xp)
        return fitted(data_transform=transform, seed=5, dtype="float64")

    first, second = made(), made()
    x, log_prob = first.sample_and_log_prob(2000)
    assert_array_equal(second.sample_and_log_prob(2000)[0], x)
    assert (np.abs(x) <= [10, 20, 5]).all()
    assert_allclose(first.log_prob(x), log_prob, rtol=1e-6, atol=1e-6)
    inner, log_det = first.rescale(x[:50])
    assert_allclose(first.flow.log_prob(np.asarray(inner)) + np.asarray(log_det), first.log_prob(x[:50]), rtol=1e-8)


def test_flows_of_aspire_are_saved_and_loaded(tmp_path):
    flow = fitted()
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        flow.save(file)
    with h5py.File(tmp_path / "flow.h5") as file:
        again = HeadraceFlow.load(file)
    assert_array_equal(again.log_prob(rows(20)), flow.log_prob(rows(20)))
    for _ in range(2):  # all draws of both flows are equal
        assert_array_equal(again.sample(10), flow.sample(10))
    assert again.fit(rows(), n_epochs=2) == flow.fit(rows(), n_epochs=2)
    assert not np.array_equal(again.sample(10), fitted().sample(10))


def fit_arguments(monkeypatch, **words):
    """``(flow, history, seen)`` of a fit by aspire's arguments of training: `seen` has those of `hr.Flow.fit`."""
    seen = {}
    fit = hr.Flow.fit

    def spied(self, *rows, **arguments):
        seen.update(arguments)
        return fit(self, *rows, **arguments)

    monkeypatch.setattr(hr.Flow, "fit", spied)
    flow = HeadraceFlow(3, transforms=1, hidden=(8,))
    return flow, flow.fit(rows(), n_epochs=4, **words), seen


def test_aspire_s_arguments_of_training_reach_the_fit(monkeypatch):
    _, history, seen = fit_arguments(monkeypatch, lr=0.01, batch_size=50, validation_fraction=0.25)
    assert (seen["learning_rate"], seen["batch_size"], seen["validation"]) == (0.01, 50, 0.25)
    assert (seen["schedule"], seen["clip"], seen["epochs"], seen["patience"]) == ("constant", None, 4, 4)
    _, cosine, seen = fit_arguments(monkeypatch, lr=0.01, batch_size=50, validation_fraction=0.25, lr_annealing=True)
    assert seen["schedule"] == "cosine"
    assert cosine.training_loss[0] != history.training_loss[0]
    _, clipped, seen = fit_arguments(monkeypatch, lr=0.01, batch_size=50, validation_fraction=0.25, clip_grad=1e-3)
    assert seen["clip"] == 1e-3
    assert clipped.training_loss[0] != history.training_loss[0]
    _, _, seen = fit_arguments(monkeypatch, lr_annealing=True, schedule="constant", patience=1)
    assert (seen["schedule"], seen["patience"]) == ("constant", 1)  # headrace's arguments take precedence over aspire's


def installed(tmp_path, monkeypatch):
    """Write the metadata of entry points that pip would write, because the package need not be installed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    line = re.search(r'^\[project\.entry-points\."aspire\.flows"\]\n(\w+) = "(.+)"$', text, re.MULTILINE)
    folder = tmp_path / "headrace_entry-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: headrace-entry\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[aspire.flows]\n{line[1]} = {line[2]}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()


def test_aspire_finds_the_flow_by_name_and_samples_a_posterior(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)
    found, xp = get_flow_wrapper("headrace")
    assert found is HeadraceFlow
    assert xp is HeadraceFlow.xp

    def log_likelihood(samples):  # the logarithm of a normal density with mean 1 and standard deviation 0.5
        x = np.asarray(samples.x)
        return -0.5 * (((x - 1.0) / 0.5) ** 2).sum(axis=1) - x.shape[1] * np.log(0.5 * np.sqrt(2 * np.pi))

    def log_prior(samples):
        return np.full(len(samples.x), -2 * np.log(20.0))

    sampler = Aspire(
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        dims=2,
        parameters=["a", "b"],
        prior_bounds={"a": [-10, 10], "b": [-10, 10]},
        bounded_to_unbounded=False,
        flow_backend="headrace",
        transforms=2,
        hidden=(16,),
    )
    x = np.random.default_rng(1).normal(1.0, 0.7, (1000, 2))
    sampler.fit(Samples(x, parameters=["a", "b"], xp=xp), n_epochs=30, lr=5e-3)
    assert isinstance(sampler.flow, HeadraceFlow)
    samples = sampler.sample_posterior(4000)
    error = float(samples.log_evidence_error)
    assert abs(float(samples.log_evidence) + 2 * np.log(20.0)) < 5 * error + 0.01
    weights = np.exp(np.asarray(samples.log_w) - np.asarray(samples.log_w).max())
    mean = (weights[:, None] * np.asarray(samples.x)).sum(axis=0) / weights.sum()
    assert_allclose(mean, 1.0, atol=0.06)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^flow_class: expected one of"):
        HeadraceFlow(2, "GF")
    with pytest.raises((TypeError, ValueError), match=r"^dtype: expected"):
        HeadraceFlow(2, dtype="int8")
    for device in ("cuda", "cuda:0", "mps", ""):
        with pytest.raises(ValueError, match=rf"^device: expected 'cpu' or None, as rows are NumPy's, got '{device}'"):
            HeadraceFlow(2, device=device)
    assert HeadraceFlow(2, device="cpu").flow.device == HeadraceFlow(2, device=None).flow.device == "cpu"
    assert HeadraceFlow(2, lambda dims: hr.MAF(dims, transforms=1, hidden=(4,))).flow.features == 2
