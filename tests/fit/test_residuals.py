"""Columns that others nearly determine: which columns a fit replaces by their residuals, how, and with what warning."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from headrace._fit import plan as _plan
from headrace._fit import residuals, trials

QUIET = {"progress": False}


def rows(size, eps, *key):
    """Rows of a bent column, and of x₂ = x₀ + eps noise and x₄ = x₁ - 3 x₃ + eps noise, nearly linear in others."""
    z = cases.rng("residual columns", *key).standard_normal((size, 5))
    z[:, 1] = z[:, 0] ** 2 + 0.3 * z[:, 1]
    z[:, 2] = z[:, 0] + eps * z[:, 2]
    z[:, 4] = z[:, 1] - 3.0 * z[:, 3] + eps * z[:, 4]
    return z


def small(features, **settings):
    return hr.MAF(features, transforms=2, hidden=(16,), **settings)


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def found_in(x, limit=residuals.TRIED, **more):
    z = standardised(x)
    return residuals.of_rows(z, np.ones(len(z)), limit, **more)


@pytest.fixture
def short(monkeypatch):
    """Let default fits have few steps."""
    monkeypatch.setattr(_plan, "STEPS", 10)
    monkeypatch.setattr(_plan, "LEAST_EPOCHS", 1)


# --- which columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.1, 1e-2, 1e-4, 1e-5])
def test_residuals_are_those_of_least_squares(eps):
    x = rows(2000, eps)
    z, found = standardised(x), found_in(x)
    assert list(found.shares) == [2, 4]
    for c, others in ((2, [0, 1, 3]), (4, [0, 1, 3])):
        left = z[:, c] - z[:, others] @ np.linalg.lstsq(z[:, others], z[:, c], rcond=None)[0]
        assert_allclose(found.shares[c], left.var(), rtol=1e-3)
        replaced = residuals.behind(z, found.links)[:, c]
        assert_allclose(replaced, left / left.std(), atol=1e-3)
    assert_array_equal(residuals.behind(z, found.links)[:, [0, 1, 3]], z[:, [0, 1, 3]])


def test_weights_count_as_repeated_rows():
    x = standardised(rows(400, 0.05))
    weights = cases.rng("weights").integers(1, 4, 400)
    found = residuals.of_rows(x, weights.astype(float), 0.05)
    repeated = residuals.of_rows(np.repeat(x, weights, axis=0), np.ones(weights.sum()), 0.05)
    assert list(found.shares) == list(repeated.shares) == [2, 4]
    for one, other in zip(found.links, repeated.links, strict=True):
        if isinstance(one, hr.transforms.Linear):
            assert_allclose(one.to_matrix()[0], other.to_matrix()[0], atol=1e-12)
        else:
            assert_allclose(one.std, other.std)


def test_residuals_that_are_alike_are_replaced_in_turn():
    """Where x₁ = x₀ + e and x₂ = x₁ + e', the residual of x₂ given x₀ and x₁ is e'."""
    z = cases.rng("in turn").standard_normal((2000, 3))
    x = np.stack([z[:, 0], z[:, 0] + 1e-2 * z[:, 1], z[:, 0] + 1e-2 * z[:, 1] + 1e-4 * z[:, 2]], axis=1)
    found = found_in(x, residuals.ALWAYS)
    assert list(found.shares) == [1, 2]
    assert_allclose([found.shares[1], found.shares[2]], [1e-4, 1e-8], rtol=0.2)
    left = residuals.behind(standardised(x), found.links)
    assert_allclose(np.corrcoef(left.T), np.eye(3), atol=0.01)


def test_columns_without_others_circles_constants_and_few_rows_stay():
    x = rows(2000, 1e-2)
    assert found_in(x[:, [0, 1, 3]]) == residuals.Residuals()
    assert list(found_in(x, circles=[0, 2]).shares) == [4]
    with np.errstate(invalid="ignore"):
        z = standardised(x)
    z[:, 3] = 0.0
    assert 3 not in residuals.of_rows(z, np.ones(2000), 0.05).shares
    assert found_in(x[:30]) == residuals.Residuals()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_multiples_up_to_rounding_stay_and_are_named(dtype):
    x = rows(2000, 1e-2)
    x[:, 2] = 3.0 * x[:, 0] + 1e-9
    found = found_in(x, residuals.ALWAYS, dtype=dtype)
    assert (list(found.rounding), list(found.shares)) == ([2], [4])
    x[:, 2] = np.round(1e3 * x[:, 0]) / 1e3 - x[:, 0].round(3) + np.round(x[:, 0], 2)  # x₂ is x₀ to two decimals
    x[:, 0] = np.round(x[:, 0], 2) + 5e-3 * cases.rng("three values").integers(-1, 2, 2000)
    assert 2 in found_in(x, residuals.ALWAYS, dtype=dtype).rounding or 0 in found_in(x, residuals.ALWAYS).rounding


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 4, 2, 0, 1]])
def test_in_one_order_only_earlier_columns_give_a_column_away(order):
    x = rows(2000, 1e-2)
    found = found_in(x, residuals.ALWAYS, order=order)
    last = {max(related, key=order.index) for related in ((0, 2), (1, 3, 4))}
    assert set(found.shares) == last
    matrix = found.links[1].to_matrix()[0]
    assert_array_equal(np.triu(matrix[np.ix_(order, order)], 1), np.zeros((5, 5)))
    z = standardised(x)
    for c in last:
        others = [k for k in order[: order.index(c)] if k not in last]
        left = z[:, c] - z[:, others] @ np.linalg.lstsq(z[:, others], z[:, c], rcond=None)[0]
        assert_allclose(found.shares[c], left.var(), rtol=1e-3)


# --- fits -------------------------------------------------------------------------------------------------------------


def test_a_fit_learns_the_remaining_dependence():
    """An NSF of residuals learns the bent column, because of which the Gaussian of all rows loses 0.9 nats."""
    x, new = rows(2000, 1e-4), rows(4000, 1e-4, "new")
    flow = hr.NSF(5)
    with pytest.warns(RuntimeWarning, match="column 2, column 4 differ from a linear combination"):
        history = flow.fit(x, epochs=60, **QUIET)
    assert list(history.residuals) == [2, 4]
    assert not history.gaussian
    z = cases.rng("residual columns", "new").standard_normal((4000, 5))
    normal = lambda e: -0.5 * np.square(e) - 0.5 * np.log(2 * np.pi)  # noqa: E731
    true = normal(z).sum(axis=1) - np.log(0.3) - 2 * np.log(1e-4)
    assert flow.log_prob(new).mean(dtype="float64") > true.mean() - 0.4
    drawn = flow.sample(2000, seed=0, dtype="float64")
    assert_allclose((drawn[:, 2] - drawn[:, 0]).std(), 1e-4, rtol=0.1)


def test_a_flow_of_one_order_keeps_the_density_of_its_first_columns(short):
    """x₀ = x₁ + 0.1 x₂ + 1e-3 noise has a lower 1 - R² than x₂, but only x₂ comes after the others."""
    x = cases.rng("one order").standard_normal((600, 4))
    x[:, 0] = x[:, 1] + 0.1 * x[:, 2] + 1e-3 * x[:, 0]
    flow = small(4, link="none")
    history = flow.fit(x, epochs=1, **QUIET)
    assert list(history.residuals) == [2]
    first, rest = x[:5, :2], x[:5, 2:]
    parts = flow.marginal(2).log_prob(first) + flow.given(first).log_prob(rest)
    assert_allclose(parts, flow.log_prob(x[:5]), rtol=1e-5)


def test_both_directions_undo_each_other_and_files_keep_the_links(dtype, short):
    x, flow = rows(1000, 1e-2), small(5, dtype=dtype)
    assert list(flow.fit(x, **QUIET).residuals) == [2, 4]
    z, log_det = flow.to_latent(x)
    back, other = flow.to_data(z)
    eps = np.finfo(dtype).eps
    assert_allclose(back, x, rtol=200 * eps, atol=200 * eps)  # values of up to 15 are rounded
    assert_allclose(other, -log_det, rtol=2000 * eps, atol=2000 * eps)
    again = hr.from_bytes(hr.to_bytes(flow))
    assert_array_equal(again.log_prob(x[:50]), flow.log_prob(x[:50]))
    assert again._interior.links[-2].trainable is False
    begun = flow.parameters.size
    assert flow.fit(x, epochs=1, **QUIET).residuals == {}  # a later fit keeps the links
    assert flow.parameters.size == begun


def test_a_jacobian_has_the_log_determinant(short):
    x, flow = rows(1000, 1e-2), small(5, dtype="float64")
    flow.fit(x, **QUIET)
    row = x[:1]
    jacobian = np.stack([flow.to_latent_vjp(row, unit[None], None, wrt=("inputs",))[0][0] for unit in np.eye(5)])
    assert_allclose(np.linalg.slogdet(jacobian)[1], flow.to_latent(row)[1][0], rtol=1e-9)


@pytest.mark.parametrize("kind", ["stream", "group"])
def test_streams_and_groups_find_the_links_of_arrays(kind, short):
    x, flow, other = rows(2000, 1e-2), small(5), small(5)
    history = flow.fit(x, **QUIET)
    if kind == "stream":
        blocks = hr.rows.blocks([(x[i : i + 300], None, None) for i in range(0, 2000, 300)], buffer=600)
        found = other.fit(blocks, **QUIET)
    else:
        group = hr.distributed.local()
        found = other.fit(hr.distributed.shards(x, group, rows=250), group=group, **QUIET)
    assert list(found.residuals) == list(history.residuals) == [2, 4]
    for one, another in zip(flow._interior.links, other._interior.links, strict=True):
        if isinstance(one, hr.transforms.Linear):
            # Streams and groups hold out other rows than arrays.
            assert_allclose(another.to_matrix()[0], one.to_matrix()[0], atol=5e-3)
        else:
            assert_allclose(another.std, one.std, rtol=0.05)


def test_without_such_columns_nothing_is_set(short):
    x = rows(1000, 1e-2)[:, [0, 1, 3]]
    flow = small(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flow.fit(x, **QUIET).residuals == {}
    assert not any(isinstance(t, hr.transforms.Linear) for t in flow.transforms)


@pytest.mark.parametrize("gains", [True, False])
def test_a_trial_decides_about_less_collinear_columns(gains, monkeypatch):
    asked = []

    def judged(first, second, *rest):
        asked.append([any(isinstance(t, hr.transforms.Linear) for t in run.flow.transforms) for run in (first, second)])
        return not gains if len(asked) == 1 else True

    monkeypatch.setattr(trials._marginals, "gain", judged)
    monkeypatch.setattr(trials, "LEAST_GAIN", -np.inf)
    x = rows(1200, 0.2)  # 1 - R² is 0.04 for x₂, and 0.004 for x₄
    flow = small(5)
    history = flow.fit(x, time_budget=3.0, **QUIET)
    assert asked[0] == [False, True]
    assert bool(history.residuals) is gains
    assert any(isinstance(t, hr.transforms.Linear) for t in flow.transforms) is gains


def test_a_small_gain_is_not_enough(monkeypatch):
    monkeypatch.setattr(trials._marginals, "gain", lambda *rest: False)
    monkeypatch.setattr(trials, "LEAST_GAIN", np.inf)
    flow = small(5)
    assert flow.fit(rows(1200, 0.2), time_budget=3.0, **QUIET).residuals == {}
    assert not any(isinstance(t, hr.transforms.Linear) for t in flow.transforms)


def test_a_stopped_fit_goes_on_with_the_same_columns(tmp_path, short, monkeypatch):
    x, path = rows(1000, 1e-2), str(tmp_path / "state")
    whole, stopped = small(5), small(5)
    expected = whole.fit(x, epochs=4, **QUIET)
    from headrace._fit.run import Run

    finish = Run._finish_epoch
    monkeypatch.setattr(Run, "_finish_epoch", lambda run, epoch, loss: finish(run, epoch, loss) and stop(epoch))

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return True

    stopped.fit(x, epochs=4, checkpoint=path, checkpoint_every="epoch", **QUIET)
    monkeypatch.setattr(Run, "_finish_epoch", finish)
    again = small(5)
    history = again.fit(x, epochs=4, checkpoint=path, **QUIET)
    assert history.residuals == expected.residuals
    assert all(isinstance(c, int) for c in history.residuals)
    assert_array_equal(again.log_prob(x[:20]), whole.log_prob(x[:20]))


def test_names_of_columns_are_in_the_warning(short):
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(rows(1000, 1e-4), columns=list("abcde"))
    with pytest.warns(RuntimeWarning, match="column 'c', column 'e' differ from"):
        small(5).fit(x, **QUIET)
