"""The history of an ascent of repeated rows agrees with the flow that it returns."""

import warnings

import numpy as np
import pytest

import cases
import headrace as hr
from ascent_cases import bent
from pairs import pairwise


def repeating():
    g = cases.rng("repeating")
    heap = lambda *shape, share: g.random(shape) < share  # noqa: E731
    return {
        "half zeros": g.exponential(1.0, (2000, 2)) * heap(2000, 2, share=0.5),
        "mostly zeros": g.exponential(1.0, (2000, 2)) * heap(2000, 2, share=0.1),
        "nearly all zeros": g.standard_normal((1000, 3)) * heap(1000, 3, share=0.02),
        "small counts": g.poisson(0.3, (2000, 2)).astype(float),
        "counts": g.poisson(3.0, (2000, 2)).astype(float),
        "zeros and ones": g.integers(0, 2, (1000, 3)).astype(float),
        "few rows, often": np.repeat(g.standard_normal((20, 3)), 50, axis=0),
        "two heaps far apart": g.standard_normal((800, 3)) + np.where(heap(800, 1, share=0.5), 1e8, -1e8),
        "two heaps": g.standard_normal((800, 3)) + np.where(heap(800, 1, share=0.5), 1e4, -1e4),
        "two rows": g.standard_normal((2, 2)),
        "fewer rows than features": g.standard_normal((4, 9)),
    }


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:x. ")
@pairwise(data=repeating(), name=["notes", "splines"], dtype=cases.DTYPES)
def test_the_history_has_the_log_likelihood_of_the_returned_flow(name, data, dtype):
    """Held-out rows are judged without noise; the tolerance allows for rounding in float32."""
    x = repeating()[data]
    held_out = x[::4]
    model = {
        "notes": hr.DualAscentFlow.notes(steps=300, dtype=dtype),
        "splines": hr.DualAscentFlow(steps=30, refine=False, dtype=dtype),
    }[name]
    flow = model.fit(x, validation=held_out, progress=False)
    recorded = model.history.validation_log_likelihood[model.history.best_step]
    log_prob = flow.log_prob(held_out)
    assert log_prob.mean(dtype=float) == pytest.approx(recorded, abs=1e-2 * max(1.0, abs(recorded)))
    assert np.isfinite(flow.log_prob(x)).all()
    assert np.isfinite(flow.sample(4000, seed=1)).all()
    one_by_one = np.array([flow.log_prob(row[None])[0] for row in held_out[:40]])
    np.testing.assert_allclose(one_by_one, log_prob[:40], atol=0.1 if dtype == "float32" else 1e-4, rtol=1e-2)


@pytest.mark.filterwarnings("ignore:x. ")
@pytest.mark.parametrize("data", ["mostly zeros", "nearly all zeros", "counts", "zeros and ones"])
def test_repeated_rows_are_recovered_from_latents(data, dtype):
    x = repeating()[data]
    flow = hr.DualAscentFlow.notes(dtype=dtype).fit(x, progress=False)
    back = flow.to_data(flow.to_latent(x)[0])[0]
    assert (np.abs(back - x) / x.std(0)).max() < (0.05 if dtype == "float32" else 1e-6)
    if data == "mostly zeros":  # samples of such data are finite, but have long tails
        return
    sample = np.abs(flow.sample(4000, seed=1) - x.mean(0)) / x.std(0)
    assert np.quantile(sample, 0.99) < 3.0 * max(np.quantile(np.abs(x - x.mean(0)) / x.std(0), 0.99), 1.0)


@pytest.mark.long
def test_ascent_and_joint_training_compete_by_log_densities_of_rows(dtype, monkeypatch):
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 300)
    x = cases.rng("binary").integers(0, 2, (600, 3)).astype(float)
    held_out = x[::4]
    model = hr.DualAscentFlow(dtype=dtype)
    with pytest.warns(RuntimeWarning, match=r"x: values repeat in 3 columns \(0, 1, 2\)"):
        flow = model.fit(x, validation=held_out, progress=False)
    history = model.history
    recorded = history.validation_log_likelihood[history.best_step]
    if history.refinement is not None:  # either steps of an ascent or their joint training won
        assert history.refined == (-history.refinement.best_loss > max(history.validation_log_likelihood))
        recorded = -history.refinement.best_loss if history.refined else recorded
    assert flow.log_prob(held_out).mean(dtype=float) == pytest.approx(recorded, abs=1e-2 * max(1.0, abs(recorded)))


@pytest.mark.parametrize("name", ["notes", "defaults"])
def test_columns_that_do_not_repeat_are_taken_as_they_are(name, monkeypatch):
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 100)
    model = hr.DualAscentFlow.notes(steps=10) if name == "notes" else hr.DualAscentFlow(steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(bent(300).astype(np.float32), progress=False)


@pytest.mark.parametrize("rows", [1, 1000])
def test_rows_without_spread_end_an_ascent_before_it_begins(rows, dtype):
    x = np.tile([1.0, 2.0, 3.0], (rows, 1))
    for model in (hr.DualAscentFlow.notes(dtype=dtype), hr.DualAscentFlow(dtype=dtype)):
        with pytest.warns(RuntimeWarning, match=r"x: column 0, column 1, column 2 are constant in the training part"):
            flow = model.fit(x, progress=False)
        assert len(flow) == 0
        assert model.history.stopped == "constant"
        assert model.history.log_likelihood == pytest.approx([-1.5 * np.log(2 * np.pi)])
        np.testing.assert_allclose(flow.log_prob(x), -1.5 * np.log(2 * np.pi), atol=1e-5)


@pytest.mark.filterwarnings("ignore:x. column .* constant")
@pytest.mark.parametrize("name", ["notes", "splines", "refined"])
@pytest.mark.parametrize("precision", [1.0, 4.0])
def test_a_column_without_spread_takes_no_part(name, precision, dtype, monkeypatch):
    """A column without spread does not change the ascent of the other columns, and has the density of the base."""
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 100)
    x = bent(600)
    wider = np.insert(x, 1, 5.0, axis=1)
    models = [
        {
            "notes": hr.DualAscentFlow.notes(precision, 40, dtype=dtype),
            "splines": hr.DualAscentFlow(precision, 10, refine=False, dtype=dtype),
            "refined": hr.DualAscentFlow(precision, 4, refine=True, dtype=dtype),
        }[name]
        for _ in range(2)
    ]
    plain, flow = (m.fit(rows, progress=False) for m, rows in zip(models, (x, wider), strict=True))
    got, want = flow.log_prob(wider) + 0.5 * np.log(2 * np.pi), plain.log_prob(x)
    if name == "refined":
        assert got.mean() == pytest.approx(want.mean(), abs=0.5)
        return
    np.testing.assert_allclose(got, want, atol=2e-3 if dtype == "float32" else 1e-9)
    off = wider + np.array([0.0, 2.0, 0.0])
    np.testing.assert_allclose(flow.log_prob(off), flow.log_prob(wider) - 2.0, atol=1e-3)
    histories = [m.history.log_likelihood for m in models]
    np.testing.assert_allclose(np.array(histories[1]) + 0.5 * np.log(2 * np.pi), histories[0], atol=1e-4)
    if name == "notes":
        assert np.isnan(models[1].history.coordinates[-1]).tolist() == [False, True, False]


def test_log_likelihoods_of_coordinates_add_up():
    """The log-likelihoods L of the coordinates (eq. 23, docs/dual_ascent.md) add up to the L of the step."""
    x = bent(500)
    model = hr.DualAscentFlow.notes(steps=3, kinks=2, dtype="float64")
    flow = model.fit(x, validation=None, progress=False)
    for t, each in enumerate(model.history.coordinates):
        z, before = flow[:t].to_latent(x)
        _, after = flow[: t + 1].to_latent(x)
        assert each.shape == (2,)
        want = model.history.log_likelihood[t + 1] - before.mean()
        assert each.sum() == pytest.approx(want, abs=1e-9)
        assert np.isfinite(z).all()
        assert (after - before).shape == (500,)
    assert len(model.history.coordinates) == 3


@pytest.mark.parametrize("weight", [1e-320, 1e-300, 1e-50, 1e-40, 1e37, 1e300])
def test_weights_that_the_dtype_does_not_hold(weight, dtype):
    x = bent(300)
    fitted = [
        hr.DualAscentFlow.notes(steps=30, dtype=dtype).fit(x, weights=np.full(300, w), progress=False).log_prob(x)
        for w in (1.0, weight)
    ]
    np.testing.assert_allclose(fitted[1], fitted[0], atol=1e-4)
