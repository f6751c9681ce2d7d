"""Dual ascent of periodic columns: circles are cut where rows are rare, and the density has no seam."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
from headrace.ascent import competing_fits as _contest
from headrace.ascent.standardised_rows import BINS, counted, cut_open
from headrace.distributed import local

PERIODS = [(-np.pi, np.pi), None]
SHORT = {"steps": 30, "patience": None}


def angles(n=1500, *key):
    """Return rows of an angle, whose peak is on the seam, and of a second column on which the angle depends."""
    rng = cases.rng("ascent around", *key)
    y = rng.standard_normal(n)
    return np.column_stack([rng.vonmises(np.pi + 0.6 * y, 4.0), y])


def true_density(x):
    centre = np.pi + 0.6 * x[:, 1]
    return (
        4.0 * np.cos(x[:, 0] - centre) - np.log(2 * np.pi * np.i0(4.0)) - 0.5 * x[:, 1] ** 2 - 0.5 * np.log(2 * np.pi)
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "refined", "dtype"),
    [
        (hr.DualAscentFlow.notes, None, "float32"),
        (hr.DualAscentFlow.notes, None, "float64"),
        (hr.DualAscentFlow, 300, "float32"),
        (hr.DualAscentFlow, 300, "float64"),
        pytest.param(hr.DualAscentFlow, None, "float32", marks=pytest.mark.nightly),
    ],
)
def test_a_peak_on_a_seam_is_found_with_its_dependence(model, refined, dtype, monkeypatch):
    """The joint training at the end of the ascent is short in some cases, and has the default length in another."""
    if refined is not None:
        monkeypatch.setattr(_contest, "REFINE_STEPS", refined)
    x, test = angles(), angles(1500, "test")
    free = model(**SHORT, dtype=dtype).fit(x, progress=False)
    flow = model(**SHORT, periodic=PERIODS, dtype=dtype).fit(x, progress=False)
    reached = flow.log_prob(test).mean()
    assert reached > free.log_prob(test).mean() + 0.03
    assert reached > true_density(test).mean() - 0.25
    drawn, log_prob = flow.sample_and_log_prob(2000, seed=0)
    assert ((drawn[:, 0] >= np.array(-np.pi, drawn.dtype)) & (drawn[:, 0] < np.array(np.pi, drawn.dtype))).all()
    assert np.isfinite(log_prob).all()
    cases.assert_close(flow.log_prob(drawn), log_prob, magnitude=60.0, depth=4096)


def test_the_density_integrates_to_one_and_is_periodic():
    flow = hr.DualAscentFlow.notes(steps=10, periodic=PERIODS, dtype="float64").fit(angles(), progress=False)
    n, reach = 500, np.linspace(-10.0, 10.0, 801)
    around = -np.pi + 2 * np.pi * (np.arange(n) + 0.5) / n
    grid = np.stack(np.meshgrid(around, reach, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(flow.log_prob(grid))
    assert np.isfinite(density).all()
    assert density.sum() * 2 * np.pi / n * (reach[1] - reach[0]) == pytest.approx(1.0, abs=2e-3)
    x = angles(50, "more")
    cases.assert_close(flow.log_prob(x + np.array([4 * np.pi, 0.0])), flow.log_prob(x), magnitude=20.0, depth=4096)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_row_lies_on_an_end_of_the_cut(dtype):
    """Rows on a fine grid, and rows next to the cut, have finite densities."""
    flow = hr.DualAscentFlow.notes(steps=3, periodic=PERIODS, dtype=dtype).fit(angles(300), progress=False)
    cut = flow.transforms[-2].periodic[0][0]  # the cut, in half periods from the middle
    seam = np.pi * (np.mod(cut + 1.0, 2.0) - 1.0)
    near = [seam]
    for _ in range(40):
        near = [np.nextafter(near[0], -9.0), *near, np.nextafter(near[-1], 9.0)]
    at = np.concatenate([near, np.float32(near), np.linspace(-np.pi, np.pi, 10_001)])
    x = np.column_stack([at, np.zeros(at.size)])
    for given in (x, x.astype("float32")):
        assert np.isfinite(flow.log_prob(given)).all()


def test_a_circle_is_cut_where_rows_are_rarest():
    support = hr.transforms.Support(None, [(0.0, 24.0), None])
    hours = np.concatenate([np.linspace(10.0, 23.9, 300), np.linspace(0.0, 3.0, 300)])
    x = np.column_stack([hours, np.zeros(600)])
    counts = counted(support, x)
    assert counts.shape == (1, BINS)
    assert counts.sum() == 600
    ends = cut_open(support, counts, np.dtype("float64"))
    assert len(ends) == 3
    cut = 12.0 * (np.mod(ends[1].periodic[0][0] + 1.0, 2.0))
    assert cut == pytest.approx(6.5, abs=0.3)  # the cut is in the middle of the empty interval from 3 to 10
    assert cut_open(hr.transforms.Support([(0, 1)]), np.empty((0, BINS), np.int64), np.dtype("float64"))[0].bounds == (
        (0.0, 1.0),
    )
    even = cut_open(support, np.ones((1, BINS), np.int64), np.dtype("float32"))
    assert np.isfinite(even[1].periodic[0]).all()


def test_prefixes_files_and_bounds_beside_periodic_columns(tmp_path, dtype):
    x = np.column_stack([angles(400), np.exp(cases.rows(400, 1, "float64", "beside")[:, 0])])
    ends = {"periodic": [*PERIODS, None], "bounds": [None, None, (0.0, None)]}
    flow = hr.DualAscentFlow.notes(steps=4, **ends, dtype=dtype).fit(x, validation=0, progress=False)
    assert flow.transforms[-1].bounds[2] == (0.0, None)
    assert flow.log_prob(np.array([[0.0, 0.0, -1.0]]))[0] == -np.inf
    assert (flow.sample(300, seed=0)[:, 2] > 0).all()
    part = flow[:2]
    assert len(part) == 2
    assert part.transforms[-1].periodic == flow.transforms[-1].periodic
    flow.save(tmp_path / "flow")
    other = hr.load(tmp_path / "flow")
    assert len(other) == 4
    for one, twin in ((flow, other), (part, other[:2])):
        cases.assert_same_bits(one.log_prob(x), twin.log_prob(x))
    assert np.abs(part.log_prob(x) - flow.log_prob(x)).max() > 0


def test_rows_beyond_a_bound_and_far_around_a_circle_are_refused():
    x = np.column_stack([angles(100), np.exp(cases.rows(100, 1, "float64", "beside")[:, 0])])
    ends = {"periodic": [*PERIODS, None], "bounds": [None, None, (0.0, None)]}
    beyond = x.copy()
    beyond[3, 2] = 0.0
    with pytest.raises(ValueError, match=r"^x: expected numbers between their bounds, got some on a"):
        hr.DualAscentFlow(steps=2, **ends).fit(beyond, progress=False)
    beyond[3] = [np.nan, 0.0, 1.0]
    with pytest.raises(ValueError, match=r"^x: "):
        hr.DualAscentFlow(steps=2, **ends).fit(beyond, progress=False)


def test_rows_held_out_are_cut_where_the_others_are():
    x, held = angles(400), angles(200, "held")
    model = hr.DualAscentFlow.notes(steps=5, periodic=PERIODS, dtype="float64")
    flow = model.fit(x, validation=held, progress=False)
    judged = model.history.validation_log_likelihood[model.history.best_step]
    z, volume = held, np.zeros(len(held))
    for end in reversed(flow.transforms[-3:]):
        z, log_det = end.inverse(z)
        volume += log_det
    # The log-likelihood of the history is that of the rows after the circle has been mapped to a line.
    assert judged == pytest.approx((flow.log_prob(held) - volume).mean(), abs=1e-9)


def test_a_group_cuts_where_one_process_does():
    """The cut does not depend on shards, because rows of all shards are counted together."""
    x = angles(400)
    model = hr.DualAscentFlow.notes(steps=3, periodic=PERIODS, dtype="float64")
    alone = model.fit(x, validation=None, progress=False)
    together = model.fit({0: x[:150], 1: x[150:]}, validation=None, progress=False, group=local())
    assert_array_equal(alone.transforms[-2].periodic[0], together.transforms[-2].periodic[0])
    assert np.isfinite(together.log_prob(x)).all()


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: hr.DualAscentFlow(periodic=5), TypeError, ["periodic: ", "sequence"]),
        (lambda: hr.DualAscentFlow(periodic=[(0, None)]), ValueError, [r"periodic\[0\]: ", "both ends"]),
        (
            lambda: hr.DualAscentFlow(periodic=[(0, 1)]).fit(np.zeros((9, 2)), progress=False),
            ValueError,
            ["periodic: expected 2"],
        ),
        (
            lambda: hr.DualAscentFlow(periodic=[(0, 1)], bounds=[(0, 1)]),
            ValueError,
            [r"periodic\[0\]: ", "has bounds"],
        ),
    ],
)
def test_wrong_bounds_and_periods_are_refused(make, kind, words):
    with pytest.raises(kind) as error:
        make()
    cases.assert_says(error, *words)
