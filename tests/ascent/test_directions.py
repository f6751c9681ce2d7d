"""Directions of an ascent: random turns, or turns towards the least normal directions, dense or in blocks."""

import numpy as np
import pytest
from scipy.linalg import block_diag

import cases
import headrace as hr
from ascent_cases import bent, every_rule, standardised
from headrace.ascent import directions as _directions

# ---- turns -----------------------------------------------------------------------------------------------------------


def skewed_half(g, features=64):
    """Standardised rows in which half of the coordinates are skewed together."""
    x = g.standard_normal((3000, features))
    x[:, : features // 2] += 2.0 * g.standard_exponential((3000, 1))
    return standardised(x)


def test_directions_find_columns_that_are_not_normal():
    """A row of the matrix is near the one direction of four along which rows are in two clusters."""
    g = cases.rng("directions")
    z = g.standard_normal((3000, 4))
    z[:, 0] = (g.choice([-1.0, 1.0], 3000) + 0.2 * z[:, 0]) / np.sqrt(1.04)
    hidden = _directions.random_rotation(4, g)
    z = z @ hidden
    found = []
    for seed in range(5):
        u = _directions.sliced_rotation(z, np.random.default_rng(seed))
        np.testing.assert_allclose(u @ u.T, np.eye(4), atol=1e-12)
        found.append(np.abs(u @ hidden[0]).max())
    random = np.mean([np.abs(_directions.random_rotation(4, g) @ hidden[0]).max() for _ in range(200)])
    assert np.mean(found) > random + 0.1


def test_sliced_directions_of_mirrored_rows_are_the_same():
    """Mirrored rows have equal directions, because normal quantiles at the middle of each row's share are symmetric."""
    g = cases.rng("mirrored")
    z = standardised(g.standard_exponential((20, 3)))
    one, other = (_directions.sliced_rotation(rows, np.random.default_rng(0)) for rows in (z, -z))
    np.testing.assert_allclose(other, one, atol=1e-8)  # quantiles come from a table, and are rounded


@pytest.mark.long
def test_sliced_blocks_find_columns_that_are_not_normal():
    """Where 32 of 64 coordinates are skewed together, turned blocks are further from normal than random blocks."""
    g = cases.rng("sliced blocks")
    z = skewed_half(g)
    distances = []
    for turn in (_directions.sliced_turn(len(z), z.__getitem__, [32, 32], g), _directions.random_turn([32, 32], g)):
        ordered = np.sort(z[:, turn.order] @ block_diag(*turn.blocks).T, axis=0)
        normal = np.sort(g.standard_normal((3000, 64)), axis=0)
        distances.append(np.square(ordered - normal).sum() / 3000)
    assert distances[0] > 1.2 * distances[1]


def test_sliced_blocks_use_their_own_coordinates():
    """Each block of directions depends on its coordinates alone, and not on the unit of the rows."""
    z = skewed_half(cases.rng("own coordinates"), 12)

    def blocks(z, unit=1.0):
        return _directions.sliced_turn(len(z), z.__getitem__, [6, 6], np.random.default_rng(1), unit)

    made = blocks(z)
    for own, column in enumerate((made.order[0], made.order[8])):
        other = z.copy()
        other[:, column] **= 3
        changed = blocks(other)
        assert not np.array_equal(changed.blocks[own], made.blocks[own])
        cases.assert_same_bits(changed.blocks[1 - own], made.blocks[1 - own])
    for got, want in zip(blocks(z / 4.0, 4.0).blocks, made.blocks, strict=True):
        cases.assert_same_bits(got, want)


# ---- ascents of many features ----------------------------------------------------------------------------------------


def correlated(rows, features):
    """Rows whose columns are bent functions of five hidden variables, with noise."""
    g = cases.rng("correlated", rows, features)
    hidden = g.standard_normal((rows, 5))
    return np.tanh(2.0 * hidden @ g.standard_normal((5, features))) + 0.3 * g.standard_normal((rows, features))


def rotations_of(flow):
    return [t for t in flow.transforms if isinstance(t, hr.transforms.Rotation)]


@pytest.mark.long
@pytest.mark.parametrize("map", ["kink", "spline"])
def test_rotations_in_blocks_raise_the_likelihood_of_many_features(map):
    """Each step of kinks raises the likelihood of the training rows, and the ascent raises that of held-out rows."""
    x = correlated(1500, 200)
    model = hr.DualAscentFlow(steps=12, map=map, directions="random", refine=False, seed=1)
    flow = model.fit(x[:1200], validation=x[1200:], progress=False)
    history = model.history
    # The mean of 1200 sums of 200 terms of order one is rounded to float32; steps of splines may lower it.
    assert np.diff(history.log_likelihood).min() > (-1e-3 if map == "kink" else -np.inf)
    # The first value of the history is the log-likelihood of standardised columns as independent normal columns.
    assert history.validation_log_likelihood[-1] > history.validation_log_likelihood[0] + 2.0
    rotations = rotations_of(flow)
    assert len(rotations) == len(flow) == 12
    assert all([len(b) for b in t.blocks] == [32] * 6 + [8] for t in rotations)
    orders = [t.order for t in flow.transforms if isinstance(t, hr.transforms.Permutation)]
    assert len(set(orders)) == (12 if map == "kink" else 11)  # the first splines use the axes of the data
    assert flow.log_prob(x[1200:]).mean() == pytest.approx(history.validation_log_likelihood[-1], abs=1e-2)
    back = flow.to_data(flow.to_latent(x)[0])[0]
    assert np.abs(back - x).max() < 1e-4 * x.std(0).max()


@every_rule
def test_blocks_equal_a_dense_ascent(rule, monkeypatch):
    """An ascent in blocks equals one with the whole matrices of its turns, in float64, to 1e-9."""
    x = bent(300, 70)
    model = hr.DualAscentFlow.notes(steps=6, rule=rule, rotations="blocks", kinks=2, seed=5, dtype="float64")
    flow = model.fit(x, validation=None, progress=False)
    turn = _directions.random_turn

    def whole(sizes, rng):
        drawn = turn([32, 32, 6], rng)
        return _directions.Turn([block_diag(*drawn.blocks) @ np.eye(70)[drawn.order]])

    monkeypatch.setattr(_directions, "random_turn", whole)
    other = hr.DualAscentFlow.notes(steps=6, rule=rule, kinks=2, seed=5, dtype="float64")
    dense = other.fit(x, validation=None, progress=False)
    assert all(len(t.blocks) == 1 for t in rotations_of(dense))
    np.testing.assert_allclose(model.history.log_likelihood, other.history.log_likelihood, atol=1e-9)
    for got, want in zip(flow.to_latent(x), dense.to_latent(x), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize(
    ("features", "choices", "sizes"),
    [
        (127, {}, [127]),
        (128, {}, [32] * 4),
        (130, {}, [32] * 4 + [2]),
        (128, {"rotations": "dense"}, [128]),
        (40, {"rotations": "blocks"}, [32, 8]),
        (20, {"rotations": "blocks"}, [20]),
        (1, {"rotations": "blocks"}, [1]),
        # Dense sliced directions are tested with splines of 130 features below.
        pytest.param(128, {"directions": "sliced"}, [128], marks=pytest.mark.nightly),
        (64, {"directions": "sliced", "rotations": "blocks"}, [32, 32]),
    ],
)
def test_default_rotations_of_an_ascent(features, choices, sizes):
    steps = 1 if "directions" in choices else 2  # a search for directions takes long
    flow = hr.DualAscentFlow.notes(steps=steps, **choices).fit(bent(100, features), validation=None, progress=False)
    assert [[len(b) for b in t.blocks] for t in rotations_of(flow)] == [sizes] * steps
    assert sum(isinstance(t, hr.transforms.Permutation) for t in flow.transforms) == (steps if len(sizes) > 1 else 0)


@pytest.mark.long
def test_splines_of_many_features_search_dense_directions():
    """Splines have few steps, and sliced directions, so that blocks would save little."""
    flow = hr.DualAscentFlow(steps=2, refine=False).fit(bent(100, 130), validation=None, progress=False)
    assert [len(t.blocks) for t in rotations_of(flow)] == [1, 1]


def test_a_chain_in_blocks_is_refined_too(monkeypatch):
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 200)
    x = bent(400, 40)
    model = hr.DualAscentFlow(steps=2, rotations="blocks", refine=True, dtype="float64")
    flow = model.fit(x, validation=None, progress=False)
    assert [len(t.blocks) for t in rotations_of(flow)] == [2, 2]
    assert flow.log_prob(x).mean() > model.history.log_likelihood[-1]
    for t in range(3):
        assert len(flow[:t]) == t
        z, log_det = flow[:t].to_latent(x)
        np.testing.assert_allclose(flow[:t].to_data(z)[0], x, atol=1e-8 * np.abs(x).max())
        assert np.isfinite(log_det).all()


def test_an_ascent_in_blocks_has_the_same_bits_for_any_number_of_threads(tmp_path):
    """An ascent has the same bits for any number of threads, and after a save and a load."""
    x, threads, results = correlated(9000, 40), hr.get_num_threads(), []
    try:
        for n in (1, 2):
            hr.set_num_threads(n)
            model = hr.DualAscentFlow.notes(steps=5, rotations="blocks")
            flow = model.fit(x, progress=False)
            results.append((np.array(model.history.log_likelihood), flow.log_prob(x)))
    finally:
        hr.set_num_threads(threads)
    for got, want in zip(*results, strict=True):
        cases.assert_same_bits(got, want)
    flow.save(tmp_path / "flow")
    loaded = hr.load(tmp_path / "flow")
    cases.assert_same_bits(loaded.log_prob(x), flow.log_prob(x))
    cases.assert_same_bits(loaded[:2].log_prob(x), flow[:2].log_prob(x))


def test_hundreds_of_steps_of_many_features_fit_into_a_file(tmp_path):
    flow = hr.DualAscentFlow.notes(steps=150).fit(bent(60, 200), validation=None, progress=False)
    flow.save(tmp_path / "flow")
    loaded = hr.load(tmp_path / "flow")
    assert len(loaded) == len(flow) == 150
    for got, want in zip(rotations_of(loaded), rotations_of(flow), strict=True):
        assert np.array_equal(got.matrix, want.matrix)
