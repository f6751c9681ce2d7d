"""Held-out rows choose the length of an ascent that is trained as a whole; and members of a mixture are counted."""

import numpy as np
import pytest

import cases
import headrace as hr
from ascent_cases import bent
from headrace.ascent import competing_fits as _contest
from headrace.ascent.dual_ascent import DualAscentFlow
from headrace.distributed import local
from ranks import together

ROWS = 400


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Let lengths compete from 200 rows on, with joint trainings of a few steps."""
    for constant, value in {"COMPETES_BELOW": 200, "REFINE_STEPS": 600, "LENGTHS": (2, 4, 6)}.items():
        monkeypatch.setattr(_contest, constant, value)


def paired(flow, other, x, weights=None):
    """Return the mean difference of log densities, and its standard error."""
    d = flow.log_prob(x).astype(np.float64) - other.log_prob(x)
    w = np.ones(len(x)) if weights is None else weights.astype(np.float64)
    mean = np.average(d, weights=w)
    return mean, np.sqrt(np.average((d - mean) ** 2, weights=w) * (w**2).sum()) / w.sum()


@pytest.mark.parametrize("map", ["spline", "kink"])
@pytest.mark.parametrize(("seed", "weighted"), [(0, False), (1, True), (2, False)])
def test_longer_chains_are_taken_while_rows_held_out_gain_clearly(map, seed, weighted, monkeypatch):
    x = cases.rng("bent, for lengths", seed).standard_normal((ROWS, 4))
    x[:, 1:] += np.sin(2.0 * x[:, :-1])
    weights = cases.rng("weights, for lengths", seed).uniform(0.5, 2.0, ROWS) if weighted else None
    held = x[300:], None, None if weights is None else weights[300:]
    arguments = {"weights": None if weights is None else weights[:300], "validation": held, "progress": False}
    compared, gains = [], _contest._Fits._gains
    monkeypatch.setattr(_contest._Fits, "_gains", lambda fits, *pair: compared.append(pair) or gains(fits, *pair))
    model = hr.DualAscentFlow(map=map, refine=True, patience=None, seed=seed)
    flow = model.fit(x[:300], **arguments)
    want = compared[0][1]
    for i, (new, old) in enumerate(compared):
        assert old.flow is want.flow
        mean, error = paired(new.flow, old.flow, x[300:], held[2])
        assert mean > error or i == len(compared) - 1
        want = new if mean > error else want
    assert list(model.history.lengths) == [2, 4, 6][: len(compared) + 1]
    assert want is old or len(compared) == 2
    cases.assert_same_bits(flow.log_prob(x), want.flow.log_prob(x))
    assert model.history.refinement.best_loss in model.history.lengths.values()


@pytest.mark.parametrize(("gains", "chosen"), [((), 2), ((True,), 4), ((True, True), 6)], ids=str)
def test_each_length_can_win(gains, chosen, monkeypatch):
    """The training of a longer chain begins with the trained steps of the shorter chain."""
    left, trained, refined = [*gains, False], [], _contest._Fits._refined
    monkeypatch.setattr(_contest._Fits, "_gains", lambda *fits: left.pop(0))

    def noted(fits, flow, rng, clock, begun, end, parts):
        assert parts == 3
        for step, before in zip(begun, trained[-1]._by_step() if trained else [], strict=True):
            for link, other in zip(step, before, strict=True):
                cases.assert_same_bits(link.parameters, other.parameters)
        result = refined(fits, flow, rng, clock, begun, end, parts)
        assert result[1].epochs == round(200 * 32 / 360)  # a length gets a third of the updates, each of 32 rows
        trained.append(result[0])
        return result

    monkeypatch.setattr(_contest._Fits, "_refined", noted)
    flow = hr.DualAscentFlow(patience=None).fit(bent(ROWS, 4), progress=False)
    assert [len(one) for one in trained] == [2, 4, 6][: len(gains) + 2]
    assert len(flow) == chosen
    cases.assert_same_bits(flow.parameters, trained[len(gains)].parameters)


@pytest.mark.parametrize(("features", "rows", "bins"), [(3, 150, 8), (3, 400, 8), (4, 150, 3), (4, 400, 4)])
def test_a_chain_above_three_columns_has_few_bins(features, rows, bins):
    """With fewer rows a spline has fewer bins, because many bins cost more by variance than they gain."""
    flow = hr.DualAscentFlow(refine=True, patience=None).fit(bent(rows, features), progress=False)
    headers = [link._header() for link in flow.transforms]
    assert {header["bins"] for header in headers if header.get("map") == "rq_spline"} == {bins}


@pytest.mark.parametrize(
    "arguments",
    [
        {"features": 3},
        {"rows": 150},
        {"validation": None},
        {"steps": 4},
        {"refine": False},
    ],
    ids=str,
)
def test_no_lengths_are_tried(arguments):
    """Only one length is trained for up to three features, few rows, no held-out rows, or an argument `steps`."""
    rest = dict(arguments)
    x = bent(rest.pop("rows", ROWS), rest.pop("features", 4))
    fit = {"validation": rest.pop("validation")} if "validation" in rest else {}
    model = hr.DualAscentFlow(patience=3, **rest)
    model.fit(x, progress=False, **fit)
    assert model.history.lengths == {}


def test_a_group_chooses_one_length():
    """Each rank has some of the shards, and held-out rows are judged by all ranks together."""
    x = bent(ROWS, 4)

    def work(group, mine):
        shards = {i: part for i, part in enumerate(np.array_split(x, 4)) if i in mine}
        model = hr.DualAscentFlow(patience=None)
        flow = model.fit(shards, progress=False, group=group)
        return flow.log_prob(x[:50]), model.history.lengths

    (one, lengths), (other, others) = together([[0, 3], [2, 1]], work)
    alone, of_one = work(local(), range(4))
    assert lengths == others == of_one
    assert len(lengths) > 1
    cases.assert_same_bits(one, other)
    cases.assert_same_bits(one, alone)


def test_a_budget_is_kept_with_a_contest():
    model = hr.DualAscentFlow()
    flow = model.fit(bent(ROWS, 4), time_budget=2.0, progress=False)
    assert model.history.seconds[-1] < 2.0
    assert np.isfinite(flow.log_prob(bent(ROWS, 4))).all()


def interrupted_training(monkeypatch, number):
    """Raise KeyboardInterrupt when joint training begins for the `number`-th time."""
    refined, calls = _contest._Fits._refined, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return refined(self, *arguments)

    monkeypatch.setattr(_contest._Fits, "_refined", interrupted)


@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupted_length_keeps_the_best_so_far(number, monkeypatch):
    """Ctrl-C in the training of the first length keeps the ascent, and in that of the second the chain of the first."""
    x = bent(ROWS, 4)
    rest = {"steps": 6, "refine": False, "bins": 4} if number == 1 else {"steps": 2}
    with monkeypatch.context() as changed:
        changed.setattr(_contest, "REFINE_STEPS", _contest.REFINE_STEPS // 3)
        want = hr.DualAscentFlow(patience=None, **rest).fit(x, progress=False)
    interrupted_training(monkeypatch, number)
    model = hr.DualAscentFlow(patience=None)
    flow = model.fit(x, progress=False)
    assert model.history.stopped == "interrupted"
    assert len(model.history.lengths) == number - 1
    cases.assert_same_bits(flow.log_prob(x), want.log_prob(x))


# ---- members ---------------------------------------------------------------------------------------------------------


def test_members_are_fits_of_following_seeds():
    x = bent(ROWS)
    model = hr.DualAscentFlow.notes(steps=5, seed=3)
    ensemble = model.fit_members(x, 3, validation=0.2, progress=False)
    assert model.seed == 3
    want = [hr.DualAscentFlow.notes(steps=5, seed=s).fit(x, validation=0.2, progress=False) for s in (3, 4, 5)]
    for member, flow in zip(ensemble.flows, want, strict=True):
        cases.assert_same_bits(member.log_prob(x), flow.log_prob(x))
    mean = np.logaddexp.reduce([flow.log_prob(x).astype(np.float64) for flow in want], axis=0) - np.log(3.0)
    np.testing.assert_allclose(ensemble.log_prob(x), mean, atol=1e-5)  # log densities are below 10, in float32


@pytest.mark.parametrize("last", [0, 1])
def test_an_interruption_keeps_complete_members(last, monkeypatch):
    fit, fits = DualAscentFlow.fit, []

    def interrupted(self, *arguments, **more):
        fits.append(self.seed)
        if len(fits) == last + 1:
            raise KeyboardInterrupt
        return fit(self, *arguments, **more)

    monkeypatch.setattr(DualAscentFlow, "fit", interrupted)
    model, x = hr.DualAscentFlow.notes(steps=3), bent(ROWS)
    if not last:
        with pytest.raises(KeyboardInterrupt):
            model.fit_members(x, 3, progress=False)
        return
    assert len(model.fit_members(x, 3, progress=False).flows) == last


def test_members_are_counted():
    with pytest.raises(ValueError, match=r"members: .* at least 1.* 0"):
        hr.DualAscentFlow().fit_members(bent(50), 0)
