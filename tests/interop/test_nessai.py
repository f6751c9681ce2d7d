"""Flows of headrace inside of nessai: whole runs, resumed runs, and the methods that nessai's proposals call."""

import importlib
import os
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

library("nessai")
torch = library("torch")

from nessai.flowmodel.base import FlowModel as Theirs  # noqa: E402
from nessai.flowsampler import FlowSampler  # noqa: E402
from nessai.model import Model  # noqa: E402

from headrace.integrations import nessai as ours  # noqa: E402

SPREAD, CENTRE = np.array([0.5, 0.2]), np.array([0.7, -0.4])
EVIDENCE = -2 * np.log(10)


class Gaussian(Model):
    """A normalised likelihood that lies well inside a uniform prior on a square of side 10."""

    def __init__(self):
        self.names = ["x", "y"]
        self.bounds = {name: [-5, 5] for name in self.names}

    def log_prior(self, x):
        return np.log(self.in_bounds(x), dtype=float) - 2 * np.log(10)

    def log_likelihood(self, x):
        z = (self.unstructured_view(x) - CENTRE) / SPREAD
        return -0.5 * (z**2).sum(axis=-1) - np.log(2 * np.pi * SPREAD.prod())


def sampler(folder, kind="realnvp", **settings):
    words = {"nlive": 300, "seed": 1, "plot": False, "signal_handling": False, "resume": False, **settings}
    return FlowSampler(
        Gaussian(),
        output=str(folder),
        flow_proposal_class=ours.FlowProposal,
        flow_config={"ftype": kind, "n_blocks": 2},
        training_config={"max_epochs": 50},
        **words,
    )


def check(done):
    assert abs(done.log_evidence - EVIDENCE) < 4 * done.log_evidence_error
    assert done.log_evidence_error < 0.2
    x = np.stack([done.posterior_samples[name] for name in ("x", "y")], axis=1)
    assert (np.abs(x.mean(axis=0) - CENTRE) < 5 * SPREAD / np.sqrt(len(x))).all()
    assert_allclose(x.std(axis=0), SPREAD, rtol=5 / np.sqrt(2 * len(x)))


def model(tmp_path, training=None, inputs=3, **flow):
    made = ours.FlowModel(
        {"n_inputs": inputs, **flow}, training or {}, output=str(tmp_path), rng=np.random.default_rng(0)
    )
    made.initialise()
    return made


def rows(n=600, seed=0):
    return np.random.default_rng(seed).normal([0.0, 1.0, -3.0], [1.0, 2.0, 0.5], (n, 3))


@pytest.mark.parametrize("kind", list(ours.KINDS))
def test_a_run_finds_the_evidence_and_the_posterior(kind, tmp_path):
    done = sampler(tmp_path, kind)
    done.run(plot=False, save=False)
    proposal = done.ns.proposal
    assert type(proposal.flow) is ours.FlowModel
    assert isinstance(proposal.flow.model, ours.NessaiFlow)
    assert proposal.training_count > 1
    check(done)


def test_a_run_goes_on_where_it_stopped(tmp_path):
    first = sampler(tmp_path, max_iteration=900, resume=True)
    first.run(plot=False, save=False)
    first.ns.checkpoint()
    assert first.ns.proposal.training_count >= 1
    vector = first.ns.proposal.flow.model.vector.detach().clone()
    again = sampler(tmp_path, resume=True)
    assert again.ns.iteration >= 900
    assert torch.equal(again.ns._flow_proposal.flow.model.vector, vector)
    again.ns.max_iteration = np.inf
    again.ns.finalised = False
    again.run(plot=False, save=False)
    check(again)


def test_methods_are_those_of_nessai(tmp_path):
    made = model(tmp_path / "a")
    theirs = Theirs({"n_inputs": 3}, {}, output=str(tmp_path / "b"))
    theirs.initialise()
    made.train(rows(), max_epochs=3, plot=False)
    theirs.train(rows(), max_epochs=3, plot=False)
    x, z = rows(20), np.random.default_rng(1).standard_normal((20, 3))
    for call in (
        lambda m: m.forward_and_log_prob(x), lambda m: m.inverse(z), lambda m: (m.log_prob(x),),
        lambda m: (m.sample(7),), lambda m: (m.sample_latent_distribution(7),), lambda m: m.sample_and_log_prob(7),
        lambda m: m.sample_and_log_prob(z=z),
        lambda m: m.sample_and_log_prob(z=z, alt_dist=torch.distributions.Independent(
            torch.distributions.Normal(torch.zeros(3), 2 * torch.ones(3)), 1)),
    ):  # fmt: skip
        a, b = call(made), call(theirs)
        assert [(one.shape, one.dtype) for one in a] == [(one.shape, one.dtype) for one in b]
    flow = made.model.flow
    latent, log_prob = made.forward_and_log_prob(x)
    assert_allclose(log_prob, flow.log_prob(x), rtol=1e-5, atol=1e-4)
    assert_allclose(made.log_prob(x), log_prob, rtol=1e-5, atol=1e-4)
    back, log_det = made.inverse(latent)
    assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    normal = -0.5 * (latent**2 + np.log(2 * np.pi)).sum(axis=1)
    assert_allclose(normal - log_det, log_prob, rtol=1e-4, atol=1e-3)
    drawn, log_prob = made.sample_and_log_prob(50)
    assert_allclose(log_prob, made.log_prob(drawn), rtol=1e-4, atol=1e-3)
    given, log_prob = made.sample_and_log_prob(z=z)
    assert_allclose(log_prob, made.log_prob(given), rtol=1e-4, atol=1e-3)


def test_weights_are_kept_in_files(tmp_path):
    made = model(tmp_path)
    history = made.train(rows(), max_epochs=4, plot=True)
    assert len(history["loss"]) == len(history["val_loss"]) == 4
    assert {"model.pt", "loss.png"} <= set(os.listdir(tmp_path))
    again = model(tmp_path)
    assert not np.allclose(again.log_prob(rows(5)), made.log_prob(rows(5)))
    again.load_weights(made.weights_file)
    # The file of weights includes the shifts and scales that the fit has set.
    assert (again.log_prob(rows(5)) == made.log_prob(rows(5))).all()
    pickled = pickle.loads(pickle.dumps(made))
    assert pickled.weights_file == made.weights_file
    assert not hasattr(pickled, "flow_config")


def test_a_reset_begins_anew(tmp_path):
    made = model(tmp_path)
    start = made.model.vector.detach().clone()
    made.train(rows(), max_epochs=4, plot=False)
    for words in ({"weights": True}, {"weights": True, "permutations": True}):
        trained = made.log_prob(rows(5))
        made.reset_model(**words)
        assert not np.allclose(made.log_prob(rows(5)), trained)
        assert not torch.equal(made.model.vector, start)  # the weights are new ones, like those that nessai draws
        assert abs(made.sample(2000).mean()) < 0.3  # the shift and the scale are also reset
        made.train(rows(), max_epochs=4, plot=False)


def test_training_reaches_the_density(tmp_path):
    made = model(tmp_path)
    made.train(rows(2000), max_epochs=100, plot=False)
    exact = -0.5 * np.log(2 * np.pi * np.e) * 3 - np.log(1.0 * 2.0 * 0.5)  # minus the entropy
    assert abs(made.log_prob(rows(4000, seed=9)).mean() - exact) < 0.1


def test_nessai_s_training_loop_trains_a_flow(tmp_path):
    theirs = Theirs({"n_inputs": 3, "flow": ours.NessaiFlow}, {"lr": 5e-3}, output=str(tmp_path))
    history = theirs.train(rows(), max_epochs=20, plot=False)
    assert history["val_loss"][-1] < history["val_loss"][0] - 1
    made = theirs.model
    made.freeze_transform()
    assert not any(p.requires_grad for p in made.parameters())
    made.unfreeze_transform()
    assert all(p.requires_grad for p in made.parameters())


def test_conditions_and_weights(tmp_path):
    rng = np.random.default_rng(0)
    c = rng.standard_normal((1000, 1))
    made = model(tmp_path, {"lr": 5e-3}, context_features=1, kind="maf", inputs=2)
    made.train(c + 0.1 * rng.standard_normal((1000, 2)), conditional=c, max_epochs=60, plot=False)
    assert_allclose(made.sample(50, conditional=np.full((50, 1), 1.5)).mean(), 1.5, atol=0.2)
    x = np.concatenate([rows(400), rows(400) + 20])
    made = model(tmp_path)
    made.train(x, weights=np.repeat([1.0, 0.0], 400), max_epochs=30, plot=False)
    assert made.log_prob(rows(50)).mean() > made.log_prob(rows(50) + 20).mean() + 100


def fit_arguments(tmp_path, training, n=100, **call):
    made = model(tmp_path, training)
    seen = {}

    def fit(x, context, **arguments):
        seen.update(arguments, x=x)
        return SimpleNamespace(train_loss=[1.0], validation_loss=[], stopped="epochs")

    flow = made.model.flow
    kept = SimpleNamespace(flow=SimpleNamespace(fit=fit), eval=lambda: None, finalise=lambda: None)
    made.model, own = kept, made.model
    made.save_weights = lambda path: None
    history = made.train(rows(n), plot=False, **call)
    assert np.isnan(history["val_loss"]).all()
    assert own.flow.n_parameters == flow.n_parameters
    return seen


def test_arguments_of_training_have_nessai_s_meaning(tmp_path):
    seen = fit_arguments(
        tmp_path,
        {
            "lr": 2e-3,
            "val_size": 0.2,
            "max_epochs": 9,
            "patience": 4,
            "clip_grad_norm": 2.0,
            "batch_size": 30,
            "optimiser_kwargs": {"weight_decay": 0.5},
        },
    )
    held = seen.pop("validation")
    x = seen.pop("x")
    assert (x.shape, held[0].shape, held[1:]) == ((80, 3), (20, 3), (None, None))
    assert_allclose(np.sort(np.concatenate([x, held[0]])[:, 0]), np.sort(rows(100)[:, 0]))
    assert isinstance(seen.pop("seed"), int)
    assert seen == {
        "weights": None, "epochs": 9, "patience": 5, "learning_rate": 2e-3, "weight_decay": 0.5, "clip": 2.0,
        "schedule": "constant", "batch_size": 30, "progress": False,
    }  # fmt: skip
    other = fit_arguments(
        tmp_path,
        {"annealing": True, "clip_grad_norm": 0.0, "batch_size": "all", "fit": {"epochs": 3}},
        max_epochs=50,
        patience=7,
        val_size=0.0,
    )
    assert other["validation"] is None
    assert [other[k] for k in ("schedule", "clip", "batch_size", "epochs", "patience")] == ["cosine", None, 100, 3, 8]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"noise_scale": 0.1}, "noise_type: expected None"),
        ({"optimiser": "sgd"}, "optimiser: expected 'adamw'"),
        ({"optimiser_kwargs": {"eps": 1.0}}, "optimiser_kwargs: expected weight_decay alone, got 'eps'"),
        ({"device_tag": "cuda"}, "device_tag: expected 'cpu', got 'cuda'"),
    ],
)
def test_arguments_without_a_counterpart_are_refused(training, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}"):
        model(tmp_path, training)


def test_flows_are_described_by_flow_config(tmp_path):
    made = model(tmp_path, ftype="NSF", n_blocks=3, n_layers=1, n_neurons=20, activation="tanh", bins=5).model.flow
    want = hr.NSF(3, transforms=3, hidden=(20,), activation="tanh", bins=5)
    assert (made.n_parameters, len(made)) == (want.n_parameters, len(want))
    assert model(tmp_path).model.flow.n_parameters == hr.RealNVP(3, transforms=4, hidden=(32, 32)).n_parameters
    with pytest.raises(ValueError, match=r"^ftype: expected one of"):
        model(tmp_path, ftype="gf")
    with pytest.raises(ValueError, match=r"^distribution: expected None"):
        model(tmp_path, distribution="lars")


def test_nessai_finds_the_proposal_by_name(tmp_path, monkeypatch):
    from nessai.proposal.utils import get_flow_proposal_class

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    group = re.search(r'^\[project\.entry-points\."nessai\.proposals"\]\n(\w+ = ".+")$', text, re.MULTILINE)
    folder = tmp_path / "headrace_entry-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: headrace-entry\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[nessai.proposals]\n{group[1].replace(chr(34), '')}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    assert get_flow_proposal_class("headrace") is ours.FlowProposal
