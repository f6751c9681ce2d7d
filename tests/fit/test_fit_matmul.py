"""Steps of a fit in bf16, for flows whose products are in bf16 or exact."""

from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
import ranks
from bf16_cases import PARTS
from fitting import SHORT
from headrace._fit import run as _run

MAGIC = Path(__file__).resolve().parents[2] / "examples" / "data" / "magic.npz"
X = cases.rows(900, 3, "float32", "matmul") @ np.array([[1, 0.5, 0], [0, 1, -0.8], [0, 0, 0.3]], "float32") + 2
PLAIN = {"epochs": 3, "validation": None, "progress": False}


def made(matmul="exact", **settings):
    return hr.MAF(3, transforms=2, hidden=(24, 24), matmul=matmul, **settings)


@pytest.mark.parametrize("rounded", PARTS)
def test_steps_are_those_of_a_flow_in_bf16(rounded):
    """Steps of `fit(matmul=)` equal those of a flow in bf16; held-out losses are computed with the flow's `matmul`."""
    own, mixed, exact, unrounded = made(rounded), made(), made(), made(rounded)
    losses = [
        flow.fit(X, matmul=matmul, **PLAIN).train_loss
        for flow, matmul in ((own, None), (mixed, rounded), (exact, None), (unrounded, "exact"))
    ]
    assert losses[0] == losses[1] != losses[2] == losses[3]
    cases.assert_same_bits(own.parameters, mixed.parameters)
    cases.assert_same_bits(exact.parameters, unrounded.parameters)
    assert [flow.matmul for flow in (own, mixed, exact, unrounded)] == [rounded, "exact", "exact", rounded]
    assert rounded in repr(own)
    assert "bf16" not in repr(mixed)
    held_out = cases.rows(300, 3, "float32", "held out")
    flow = made()
    history = flow.fit(X, validation=held_out, matmul=rounded, epochs=3, weight_decay=None, progress=False)
    assert history.best_loss == pytest.approx(-flow.log_prob(held_out).mean(dtype="float64"), rel=1e-12)


def test_the_optimiser_works_in_place():
    """No step keeps a reference to the weights, because the next step would then copy all weights."""
    flow, twin = made(), made().to("cpu", "bf16")
    flow.fit(X, matmul="bf16", **PLAIN)
    first = flow.parameters
    with hr.threads(3):
        other = made()
        other.fit(X, matmul="bf16", **PLAIN)
    cases.assert_same_bits(other.parameters, first)
    with pytest.raises(ValueError, match="parameters: expected a program with as many weights"):
        twin._program.log_prob(X, np.empty(len(X), "float32"), parameters=hr.MAF(4)._program)


@pytest.mark.parametrize("settings", [{"dropout": 0.2}, {"activation": "tanh", "residual": True}, {"base": "normal"}])
def test_bf16_steps_with_context_weights_and_schedules(settings):
    if settings.get("base"):
        settings = {"base": hr.Normal(3)}
    found = []
    for threads in (1, 3):
        with hr.threads(threads):
            flow = made(**settings)
            history = flow.fit(X, matmul="bf16", epochs=6, schedule="cosine", progress=False)
            found.append((flow.parameters, history.validation_loss))
    cases.assert_same_bits(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert history.best_loss < -made(**settings).log_prob(X).mean() - 1


@pytest.mark.usefixtures("one_mixture")
def test_few_rows_are_judged_by_cross_validation():
    flow = made()
    history = flow.fit(X[:60], matmul="bf16", batch_size=7, progress=False)
    assert history.judged_by == "cross-validation"
    assert np.isfinite(flow.log_prob(X)).all()


@pytest.mark.long
def test_a_fit_in_bf16_is_as_good_as_in_float32():
    with np.load(MAGIC) as arrays:
        rows = arrays["gamma"].T.astype("float32")
    rows = rows[cases.rng("magic").permutation(len(rows))]
    found = []
    for seed in range(3):
        for own, matmul in (("exact", None), ("bf16", None), ("exact", "bf16")):
            flow = hr.MAF(10, transforms=3, hidden=(48, 48), seed=seed, matmul=own)
            flow.fit(rows[:5000], epochs=12, weight_decay=None, matmul=matmul, seed=seed, progress=False)
            found.append(flow.log_prob(rows[5000:]).mean(dtype="float64"))
    exact, own, mixed = np.reshape(found, (3, 3)).mean(axis=0)
    assert abs(own - exact) < 0.01
    assert abs(mixed - exact) < 0.01


def test_ensembles_and_weighted_rows():
    ensemble, weights = hr.Ensemble([made(seed=0), made(seed=1)]), np.linspace(0, 2, len(X))
    ensemble.fit(X, weights=weights, bootstrap=True, matmul="bf16", epochs=3, progress=False)
    own = hr.Ensemble([made("bf16", seed=0), made("bf16", seed=1)])
    own.fit(X, weights=weights, bootstrap=True, epochs=3, progress=False)
    assert (ensemble.matmul, own.matmul) == ("exact", "bf16")
    assert np.abs(ensemble.log_prob(X) - own.log_prob(X)).mean() < 0.05


def test_ranks_fit_together():
    with ranks.small_chunks():
        found = []
        for assignment in (ranks.ASSIGNMENTS["one"], ranks.ASSIGNMENTS["two"]):
            found += ranks.on_ranks(
                len(assignment),
                lambda group, mine=assignment: ranks.digest(
                    ranks.fitted("MAF", "float32", group, mine[group.rank], matmul="bf16")
                ),
            )
        exact = ranks.on_ranks(1, lambda group: ranks.digest(ranks.fitted("MAF", "float32", group, range(6))))
    assert len(set(map(str, found))) == 1
    assert str(exact[0]) != str(found[0])


def test_a_fit_that_was_stopped_goes_on(tmp_path, monkeypatch):
    arguments = {**SHORT, "validation": None, "checkpoint_every": 1e9}
    want = made()
    want.fit(X, matmul="bf16", **arguments)
    steps, whole = [], _run.Adam.step

    def step(adam, gradient):
        steps.append(None)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return whole(adam, gradient)

    path = tmp_path / "state"
    monkeypatch.setattr(_run.Adam, "step", step)
    assert made().fit(X, matmul="bf16", checkpoint=path, **arguments).stopped == "interrupted"
    monkeypatch.setattr(_run.Adam, "step", whole)
    for other in (None, "exact"):
        with pytest.raises(ValueError, match="matmul"):
            made().fit(X, matmul=other, checkpoint=path, **arguments)
    flow = made()
    flow.fit(X, matmul="bf16", checkpoint=path, **arguments)
    cases.assert_same_bits(flow.parameters, want.parameters)


def test_arguments():
    flow = made()
    for wrong in ("tf32", "fp8", 16):
        with pytest.raises(ValueError, match=r"matmul: expected 'exact', .* or 'bf16x6_tiles' on the CPU, got"):
            flow.fit(X, matmul=wrong, **PLAIN)
    with pytest.raises(ValueError, match="dtype, matmul: expected float32 or 'exact', got float64 and 'bf16'; call"):
        made(dtype="float64").fit(X, matmul="bf16", **PLAIN)
    made(dtype="float64").fit(X, matmul="exact", **PLAIN)
