"""Ascents with a group have equal bits for any number of ranks, and gain as much as those of one process."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import ranks
from headrace._arrays.caller import Caller
from headrace._arrays.sums import PlainSums
from headrace._fit.starts import scores as _scores
from headrace.ascent import competing_fits as _contest
from headrace.ascent import directions
from headrace.distributed.groups import GroupError, local
from headrace.distributed.shards import opened
from headrace.ops._points import Chosen, Points
from pairs import pairwise
from ranks import ASCENTS, ASSIGNMENTS, SIZES, ascended, cut, digest, together

ALL = range(len(SIZES))
_want = {}
pytestmark = pytest.mark.filterwarnings("ignore:x. values repeat", "ignore:.*ranks have something to do")


@pytest.fixture
def chunks():
    with ranks.small_chunks():
        yield


def want(name, dtype, weighted):
    if (key := (name, dtype, weighted)) not in _want:
        _want[key] = digest(ascended(name, dtype, local(), ALL, weighted))
    return _want[key]


@pytest.mark.usefixtures("chunks")
@pairwise(
    name=list(ASCENTS),
    assignment=[name for name in ASSIGNMENTS if name != "one"],
    dtype=["float32", "float64"],
    weighted=[False, True],
)
def test_bits_do_not_depend_on_ranks(name, assignment, dtype, weighted):
    work = lambda group, mine: digest(ascended(name, dtype, group, mine, weighted))  # noqa: E731
    found = together(ASSIGNMENTS[assignment], work)
    assert found == [want(name, dtype, weighted)] * len(found)


def crescent(n, *key):
    x = cases.rng("crescent", n, *key).standard_normal((n, 3))
    x[:, 1] += x[:, 0] ** 2
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", ["newton", "gradient"])
def test_kinks_climb_as_in_one_process(rule, dtype):
    x = crescent(6000)
    parts = dict(enumerate(np.array_split(x, 4)))
    shared = hr.DualAscentFlow.notes(steps=60, rule=rule, dtype=dtype)
    flow = shared.fit(parts, progress=False, group=local())
    plain = hr.DualAscentFlow.notes(steps=60, rule=rule, dtype=dtype).fit(x, progress=False)
    new = crescent(4000, "new")
    gained = [float((one.log_prob(new) - one[:0].log_prob(new)).mean()) for one in (flow, plain)]
    assert gained[1] > 0.2
    assert abs(gained[0] - gained[1]) < 0.05
    climbed = np.diff(shared.history.log_likelihood)
    assert [of.shape for of in shared.history.coordinates] == [(x.shape[1],)] * len(climbed)
    if rule == "newton":
        assert (climbed > -1e-6).all()
    assert (flow[: len(flow)].log_prob(x[:100]) == flow.log_prob(x[:100])).all()


@pairwise(rule=["newton", "gradient"], weighted=[False, True], precision=[0.5, 1.0], dtype=["float32", "float64"])
def test_kinks_of_points_in_parts_are_those_of_all_together(rule, weighted, precision, dtype):
    """With equal turns, centers and anchors, the sums of parts are exact: the kinks differ by rounding."""
    rng = cases.rng("chosen", rule, weighted)
    x, other, anchors = (rng.standard_normal((n, 3)) / np.sqrt(precision) for n in (700, 90, 40))
    x[:, 1] += 0.3 * x[:, 0] ** 2
    weights = rng.uniform(0.5, 1.0, 700).astype("float32").astype("float64") if weighted else None
    settings = {"precision": precision, "neighbours": 60.0 / (2.0 * 700), "rule": rule, "most": 20}

    def chosen(ends, sums):
        own, others = (
            [Points(*part, np.dtype(dtype), keeps_log_jacobian=False) for part in zip(*of, strict=False)]
            for of in (
                (np.split(x, ends), [None] * 9 if weights is None else np.split(weights, ends)),
                (np.split(other, [end // 10 for end in ends]), [None] * 9),
            )
        )
        return Chosen(own, Points(anchors, None, np.float64), others, sums, **settings)

    table = opened(local(), 3, 0, Caller(), {0: x})
    whole, parts = chosen([], PlainSums()), chosen([5, 5, 300], table)
    for step in range(6):
        turn = directions.random_turn([3] if step % 2 else [2, 1], rng)
        rows = np.where(rng.random(3) < 0.5, rng.integers(40, size=3), -1).tolist()
        drawn = (3.0 * rng.standard_normal(3) / np.sqrt(precision)).tolist()
        for one in (whole, parts):
            one.kink(turn.blocks, turn.places(), rows, drawn)
    for one in (whole, parts):
        one.finish()
    error = {"float32": 1e-4, "float64": 1e-11}[dtype]
    # Newton's step is ill-conditioned where a kink is wide: one of a and c may grow as the other becomes smaller.
    loose = {"float32": 5e-3, "float64": 1e-6}[dtype]
    assert_allclose(parts.kinks(), whole.kinks(), rtol=loose, atol=loose)
    assert_allclose(parts.log_likelihoods(), whole.log_likelihoods(), rtol=error)
    assert_allclose(parts.terms(), whole.terms(), rtol=error, atol=error)


def test_an_error_of_the_sums_is_one_of_the_ascent():
    """If a sum over ranks raises an error, the ascent has no best prefix, because its points are between two kinks."""

    class Broken(PlainSums):
        left = 3

        def sum(self, parts, zero):
            self.left -= 1
            if self.left < 0:
                raise GroupError("lost")
            return super().sum(parts, zero)

    x = cases.rng("broken").standard_normal((50, 1))
    points = Points(x, None, np.float64, keeps_log_jacobian=False)
    settings = {"precision": 1.0, "neighbours": 0.1, "rule": "newton", "most": 3}
    ascent = Chosen([points], Points(x[:5], None, np.float64), [], Broken(), **settings)
    with pytest.raises(GroupError, match="lost"):
        ascent.kink([np.eye(1)], [0], [-1], [0.0])
    with pytest.raises(ValueError, match="kink: expected no more"):
        ascent.kink([np.eye(1)], [0], [-1], [0.0])


def test_splines_climb_as_in_one_process():
    x, new = crescent(6000), crescent(4000, "new")
    parts = dict(enumerate(np.array_split(x, 4)))
    settings = {"steps": 8, "refine": False}
    flow = hr.DualAscentFlow(**settings).fit(parts, progress=False, group=local())
    plain = hr.DualAscentFlow(**settings).fit(x, progress=False)
    gained = [float((one.log_prob(new) - one[:0].log_prob(new)).mean()) for one in (flow, plain)]
    assert gained[1] > 0.2
    assert abs(gained[0] - gained[1]) < 0.03


@pytest.mark.long
@pytest.mark.parametrize("refined", [300, pytest.param(None, marks=pytest.mark.nightly)])
def test_default_ascents_are_as_good_as_in_one_process(refined, monkeypatch):
    """Joint trainings are short, with and without a competing ascent, which may win by chance."""
    if refined is not None:
        monkeypatch.setattr(_contest, "REFINE_STEPS", refined)
    x, new = crescent(6000 if refined is None else 2000), crescent(4000, "new")
    parts = dict(enumerate(np.array_split(x, 4)))
    model = hr.DualAscentFlow(refine=True if refined else None)
    flow = model.fit(parts, progress=False, group=local())
    plain = model.fit(x, progress=False)
    assert abs(float((flow.log_prob(new) - plain.log_prob(new)).mean())) < 0.03


@pytest.mark.parametrize("weighted", [False, True])
def test_summaries_are_those_of_all_rows(weighted):
    rng = cases.rng("summaries", weighted)
    columns = [
        np.round(rng.standard_normal(997), 2),
        rng.standard_cauchy(997),
        np.where(rng.random(997) < 0.5, 0.0, -0.0),
    ]
    weights = rng.uniform(0.0, 2.0, 997) if weighted else None
    shares = _scores.Shares.of(weights, 997)
    cuts = np.array_split(np.arange(997), [5, 5, 600])
    counts = [None if weights is None else shares.of_rows[i] for i in cuts]
    parts = [[x[i] for i in cuts] for x in columns]
    ascending = [_scores._ascending(of, counts) for of in parts]
    table = opened(local(), 3, 0, Caller(), {0: np.stack(columns, axis=1)})
    found = _scores._shared_summaries(table, parts, ascending, counts, shares)
    for x, one in zip(columns, found, strict=True):
        order = np.argsort(x, kind="stable")
        known = None if weights is None else shares.of_rows[order]
        true = _scores._summary(x[order], known, shares.total, _scores.quantiles_for(shares.rows))
        assert_array_equal(one[:4], true[:4])
        assert_allclose(one[4], true[4], rtol=1e-12)


def test_a_step_of_splines_sorts_each_column_once(monkeypatch):
    sorts, whole = [], _scores._ascending
    monkeypatch.setattr(_scores, "_ascending", lambda *arguments: sorts.append(1) or whole(*arguments))
    model = hr.DualAscentFlow(steps=4, refine=False, patience=None)
    model.fit(cut(ranks.rows(), ALL), progress=False, group=local())
    assert len(sorts) == 4 * 3


def test_weights_count_as_those_of_one_process():
    weights = ranks.weights()
    true = _scores.Shares.of(weights, len(weights))

    def work(group, mine):
        parts = list(cut(weights, mine).values())
        table = opened(group, 1, 0, Caller(), cut(weights[:, None], mine))
        shares, counts = _scores.Shares.over(parts, len(weights), table)
        return shares, dict(zip(mine, counts, strict=True))

    for assignment in ASSIGNMENTS.values():
        found = together(assignment, work)
        for shares, counts in found:
            assert (shares.total, shares.rows) == (true.total, pytest.approx(true.rows, rel=1e-12))
            for number, of in counts.items():
                begin = ranks.FIRST[number]
                assert_array_equal(of, true.of_rows[begin : begin + SIZES[number]])


@pytest.mark.filterwarnings("ignore")
def test_columns_without_spread_take_no_part():
    x = crescent(3000)
    x[:, 2] = 7.0

    def work(group, mine):
        shards = {i: part for i, part in enumerate(np.array_split(x, 4)) if i in mine}
        flow = hr.DualAscentFlow.notes(steps=20).fit(shards, progress=False, group=group)
        return flow.log_prob(x[:50])

    one, other = together([[0, 3], [2, 1]], work)
    assert_array_equal(one, other)
    assert np.isfinite(one).all()
    assert_array_equal(one, work(local(), [0, 1, 2, 3]))
