"""The rows of an ascent, in one process and in shards: columns without spread, and rows for a joint training."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import ranks
from headrace._arrays.caller import Caller
from headrace.ascent.standardised_rows import StandardisedRows
from headrace.distributed.groups import local
from headrace.distributed.shards import opened, split
from ranks import ASSIGNMENTS, SIZES, cut, together

ALL = range(len(SIZES))
PRECISION = 4.0


def table(flat=True):
    """Return rows, with a column without spread if `flat`, and weights."""
    x = ranks.rows()
    if flat:
        x[:, 1] = 7.0
    return x, ranks.weights() + 0.1


def plain(x, w, held_out):
    rng = np.random.default_rng(0)
    return StandardisedRows.of(Caller(), x, None, w, held_out, rng, PRECISION, 3, "float64")


def shared(x, w, held_out, group=None, mine=ALL):
    group = group or local()
    caller = Caller()
    opened_table = opened(group, 3, 0, caller, cut(x, mine), None, None if w is None else cut(w, mine), seed=3)
    judge = held_out and tuple(a if a is None else cut(a, mine) for a in held_out)
    return StandardisedRows(*split(opened_table, judge, caller), PRECISION, 3, "float64")


def joined(given):
    """Return an array as it is, and shards joined in their order."""
    return np.concatenate([given[i] for i in sorted(given)]) if isinstance(given, dict) else given


MADE = pytest.mark.parametrize("made", [plain, shared])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


@pytest.mark.filterwarnings("ignore:.*is constant")
@MADE
@WEIGHTED
def test_rows_of_a_joint_training_are_those_given(made, weighted):
    x, w = table(flat=False)
    judge, counts = ranks.rows("judge"), ranks.weights()[::-1] + 0.1
    held_out = (judge, None, counts if weighted else None)
    rows = made(x, w if weighted else None, held_out)
    found, found_w, (out, none, out_w) = rows.to_refine(0, 0.5, np.random.default_rng(0))
    assert_allclose(joined(found), x, rtol=1e-12)
    assert_array_equal(joined(out), judge)
    assert none is None
    if not weighted:
        assert found_w is None
        assert out_w is None
        return
    for of, true in ((found_w, w), (out_w, counts)):
        assert_allclose(joined(of) / joined(of).max(), true / true.max(), rtol=1e-12)
    assert made(x, None, None).to_refine(0, 0.5, np.random.default_rng(0))[2] is None


@MADE
@WEIGHTED
def test_copies_have_noise_of_their_own(made, weighted):
    x, w = table(flat=False)
    rows = made(x, w if weighted else None, None)
    found, found_w, _ = rows.to_refine(20, 0.5, np.random.default_rng(0))
    parts = found if isinstance(found, dict) else {0: found}
    std = np.sqrt(
        np.average(
            (x - np.average(x, axis=0, weights=w if weighted else None)) ** 2, axis=0, weights=w if weighted else None
        )
    )
    noise = []
    for number, part in parts.items():
        own = x if made is plain else cut(x, [number])[number]
        assert len(part) == 20 * len(own)
        noise.append((part.reshape(20, len(own), 3) - own) / std)
    noise = np.concatenate([one.reshape(-1, 3) for one in noise])
    assert_allclose(noise.std(axis=0), 0.5, rtol=0.03)  # the deviation of 18,000 values
    assert np.unique(noise.round(9), axis=0).shape == noise.shape  # no two shards or copies have equal noise
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05
    if weighted:
        weights = found_w if isinstance(found_w, dict) else {0: found_w}
        for number, of in weights.items():
            own = w if made is plain else cut(w, [number])[number]
            true = np.tile(own, 20)
            assert_allclose(of * true.sum(), true * of.sum(), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*constant")
@MADE
def test_columns_without_spread_are_noise_for_a_joint_training(made):
    x, _ = table()
    rows = made(x, None, None)
    assert rows.active.tolist() == [0, 2]
    found = joined(rows.to_refine(0, 0.5, np.random.default_rng(0))[0])
    assert_allclose(found[:, [0, 2]], x[:, [0, 2]], rtol=1e-12)
    assert found[:, 1].mean() == pytest.approx(7.0, abs=0.15)  # the mean is of 900 values
    assert found[:, 1].std() == pytest.approx(1.0, rel=0.1)
    assert len(set(found[:, 1])) == len(x)
    again = joined(rows.to_refine(0, 0.5, np.random.default_rng(5))[0])
    assert_array_equal(again, found)  # the noise depends on the seed of the rows alone


@pytest.mark.filterwarnings("ignore:.*constant")
def test_rows_of_a_joint_training_do_not_depend_on_ranks():
    x, w = table()
    whole = shared(x, w, None).to_refine(2, 0.5, np.random.default_rng(0))
    for assignment in ASSIGNMENTS.values():
        found = together(
            assignment, lambda group, mine: shared(x, w, None, group, mine).to_refine(2, 0.5, np.random.default_rng(1))
        )
        for shards, weights, _ in found:
            for number, part in shards.items():
                assert_array_equal(part, whole[0][number])
                assert_array_equal(weights[number], whole[1][number])


# ---- the log-likelihood of columns without spread --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*constant")
@pytest.mark.parametrize("map", ["kink", "spline"])
@pytest.mark.parametrize("group", [None, local()], ids=["one process", "a group"])
@WEIGHTED
def test_a_history_has_the_densities_of_columns_without_spread(map, group, weighted):
    """Held-out rows may differ in a column without spread, and the density of the flow takes that into account."""
    x, w = table()
    judge, counts = ranks.rows("judge"), cases.rng("flat").uniform(0.1, 2.0, len(x))
    judge[:, 1] = 7.0 + cases.rng("elsewhere").normal(0.3, 0.5, len(x))
    arguments = {"weights": w, "validation": (judge, None, counts)} if weighted else {"validation": judge}
    rows = x
    if group is not None:
        arguments = {
            name: tuple(a if a is None else cut(a, ALL) for a in of) if isinstance(of, tuple) else cut(of, ALL)
            for name, of in arguments.items()
        }
        rows = cut(x, ALL)
    model = hr.DualAscentFlow(PRECISION, 4, map=map, refine=False, directions="random", patience=None, dtype="float64")
    flow = model.fit(rows, group=group, progress=False, **arguments)
    history = model.history
    for array, weights, listed in (
        (x, w if weighted else None, history.log_likelihood),
        (judge, counts if weighted else None, history.validation_log_likelihood),
    ):
        true = np.average(flow.log_prob(array), weights=weights)
        assert listed[history.best_step] == pytest.approx(true, abs=1e-6)
        one = np.average(flow[:0].log_prob(array), weights=weights)
        assert listed[0] == pytest.approx(one, abs=1e-6)
    away = PRECISION * np.average((judge[:, 1] - 7.0) ** 2, weights=counts if weighted else None) / 2.0
    assert away > 0.2  # the error of a history without the correction
