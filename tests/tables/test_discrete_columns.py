"""Densities of discrete and continuous columns: `MixedDensity`, and `FlowDensity` of tables with labels and gates."""

import copy
import html
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
from headrace._arrays.names import Names
from headrace._base.progress import bar
from headrace._base.stored import Stored
from headrace._fit.clock import Clock
from headrace._tables import classes
from headrace._tables.density import Columns, TableDensity
from headrace._tables.discrete import Discrete
from headrace._tables.head import Head
from headrace._tables.mixed import MixedDensity
from headrace._tables.mixed_fit import fitted
from headrace._tables.table import Column, Table
from headrace.diagnosis import run
from headrace.diagnosis.classes import _shares

COLUMNS = (
    Discrete(0, (0.0, 1.0)),
    Discrete(1, (0.0, 1.0, 2.0), step=1.0, mean=0.9, scale=0.8),
    Discrete(2, (0.0,), rest=True),
)


def rows(n=600, seed=0):
    rng = np.random.default_rng(seed)
    flag, count = (rng.random(n) < 0.3) * 1.0, rng.integers(0, 3, n) * 1.0
    number = np.where(rng.random(n) < 0.4, 0.0, rng.standard_normal(n) + 2.0 * flag)
    return np.stack([flag, count, number, rng.standard_normal(n) + 0.5 * number], axis=1)


@pytest.fixture(scope="module")
def density():
    """A density of a flag, a count, a column with a gate and another column, with a context."""
    x = rows()
    given = x[:, 3:] + np.random.default_rng(1).standard_normal((len(x), 1))

    def make(columns, contexts):
        return hr.NSF(len(columns), contexts, transforms=3, hidden=(16, 16), dtype="float64", seed=1)

    return fitted(x, given, None, COLUMNS, make, 0, progress=False, epochs=3)[0]


def grid(density, low=-9.0, high=11.0, cells=400):
    middles = low + (np.arange(cells) + 0.5) * (high - low) / cells
    return middles, (high - low) / cells


def test_probabilities_times_densities_sum_to_one(density):
    """The sum includes all values of discrete columns, the frequent value beside a gate, and counts above the fit's."""
    middles, width = grid(density)
    context = np.array([0.4])
    first, second = (part.ravel() for part in np.meshgrid(middles[::2], middles[::2]))
    total = 0.0
    for flag in (0.0, 1.0):
        for count in range(30):
            if count in (0, 1, 2, 3):
                pairs = np.stack([np.full(first.size, flag), np.full(first.size, count), first, second], axis=1)
                lines = np.stack([np.full(middles.size, part) for part in (flag, count, 0.0)] + [middles], axis=1)
                existing = np.exp(density.log_prob(pairs, context)).sum() * (2 * width) ** 2
                part = existing + np.exp(density.log_prob(lines, context)).sum() * width
            else:
                part *= 0.5  # each later count has half of the probability of the count before
            total += part
    assert total == pytest.approx(1.0, abs=2e-3)


def test_a_reference_in_numpy(density):
    """The reference has the network's dense weights, log-softmax, and the flow without densities of closed gates."""
    x, context = rows(50, seed=3), np.full((50, 1), 0.3)
    head = density.head
    x[0, 1], x[1, 1] = 4.0, -1.0
    one_hot = np.stack([x[:, 0], x[:, 1] == 0, x[:, 1] == 1, x[:, 1] == 2, (x[:, 1] - 0.9) / 0.8, x[:, 2] != 0], axis=1)
    named = head.network.named_parameters()
    mean, std = head.network.standardize_context
    value = np.concatenate([one_hot, (context - mean) / std], axis=1)
    for i in range(3):
        value = value @ named[f"transforms.0.layers.{i}.weight"].T + named[f"transforms.0.layers.{i}.bias"]
        value = np.maximum(value, 0.0) if i < 2 else value
    nothing = np.zeros((50, 1))
    new = 0.5 / (head.rows + 0.5)
    expected = np.zeros(50)
    for logits, code in (
        (np.concatenate([nothing, value[:, :1]], axis=1), x[:, 0]),
        (value[:, 1:4], x[:, 1]),
        (np.concatenate([nothing, value[:, 5:]], axis=1), x[:, 2] != 0),
    ):
        known = (code >= 0) & (code < logits.shape[1])
        shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected += np.where(
            known, shares[np.arange(50), np.clip(code, 0, 2 if logits.shape[1] > 2 else 1).astype(int)], 0.0
        )
        if logits.shape[1] == 3:
            expected += np.where(known, np.log(1 - new), 0.0)
    (gate,) = density.gates
    closed = x[:, 2] == 0.0
    number = np.where(closed, gate.value, x[:, 2])
    given = np.concatenate([context, one_hot[:, [0, 4, 5]]], axis=1)
    expected += density.flow.log_prob(np.stack([number, x[:, 3]], axis=1), given) - closed * gate.log_density
    found = density.log_prob(x, context)
    assert_allclose(found[2:], expected[2:], rtol=0, atol=1e-9)
    # The count 4 of row 0 is two after the last count of the fit, 2.
    assert found[0] == pytest.approx(expected[0] + np.log(new) - 2 * np.log(2.0), abs=1e-9)
    assert found[1] == -np.inf  # counts begin at 0


def test_a_closed_gate_is_not_read(density):
    """A closed gate has a constant latent value, and the other columns keep their density."""
    x, context = rows(200, seed=5), np.zeros((200, 1))
    closed = x[:, 2] == 0.0
    values, given = density.of_flow(x, context)
    latent = density.flow.to_latent(values, given)[0]
    assert_allclose(latent[closed, 0], 6.0, rtol=0, atol=1e-9)
    assert (np.abs(latent[~closed, 0]) < 5.9).all()
    (gate,) = density.gates
    ends = hr.Flow(density.flow.transforms[3:], dtype="float64").marginal([0])
    assert gate.log_density == pytest.approx(float(ends.log_prob(np.full((1, 1), gate.value))[0]), abs=1e-12)


def test_a_number_far_out_beside_a_gate():
    """Far from a gate the loss grows more slowly than the square of the distance, because the tail is not normal."""
    rng = np.random.default_rng(0)
    number = np.where(rng.random(3000) < 0.2, 0.0, 5.0 + np.log(rng.exponential(size=3000)))
    x = np.stack([number, rng.standard_normal(3000)], axis=1)
    how = {"transforms": 1, "hidden": (8,), "seed": 1}
    own = x, None, None, [Discrete(0, (0.0,), rest=True)], lambda c, contexts: hr.NSF(len(c), contexts, **how), 0
    density = fitted(*own, progress=False, epochs=1)[0]
    far = (number[number != 0.0].mean() - 20.0 * number[number != 0.0].std(), 0.0)
    assert density.log_prob(np.array([far]))[0] > -35.0


def test_the_gradient_is_that_of_differences(density):
    head = copy.copy(density.head)
    head.network = copy.copy(head.network)
    x, context = rows(40, seed=2), np.linspace(-1.0, 1.0, 40)[:, None]
    weights = np.linspace(0.5, 2.0, 40)
    inputs = head.opened(x)[1]
    shares = weights / weights.sum()
    slopes = head.log_prob_and_slopes(inputs, context)[1]
    gradient = head.gradient(inputs, slopes * shares[:, None], context)
    start, rng = head.network.parameters, np.random.default_rng(0)
    for _ in range(3):
        direction = rng.standard_normal(start.size) * (gradient != 0)
        both = []
        for step in (1e-5, -1e-5):
            head.network.parameters = start + step * direction
            both.append(shares @ head.log_prob(inputs, context))
        assert gradient @ direction == pytest.approx((both[0] - both[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_columns_read_those_before(density):
    """Logits of a column depend neither on its values nor on those of later columns."""
    head, (codes, inputs) = density.head, density.head.opened(rows(20))
    del codes
    before = head.log_probs(inputs, np.zeros((20, 1)))
    other = inputs.copy()
    other[:, head.parts[1]] = 7.0
    after = head.log_probs(other, np.zeros((20, 1)))
    assert_array_equal(before[0], after[0])
    assert_allclose(before[1], after[1], rtol=0, atol=1e-12)  # equal up to the rounding of the transform
    assert (before[2] != after[2]).any()


def test_samples(density):
    """Samples have the shares of the density, depend on seed and row alone, and have only values of the fit."""
    context = np.array([0.2])
    drawn = density.sample(20_000, context, seed=3)
    assert_array_equal(density.sample(50, context, seed=3), drawn[:50])
    assert_allclose(density.sample(20, context, seed=3, first_row=30), drawn[30:50], rtol=0, atol=1e-12)
    assert set(drawn[:, 0]) == {0.0, 1.0}
    assert set(drawn[:, 1]) == {0.0, 1.0, 2.0}
    share = np.exp(density.head.log_probs(np.zeros((1, 6)), context[None])[0])[0, 1]
    assert (drawn[:, 0] == 1.0).mean() == pytest.approx(share, abs=0.015)
    zero = drawn[:, 2] == 0.0
    assert zero.mean() == pytest.approx(np.exp(density.head.log_probs(
        density.head.opened(drawn)[1], np.broadcast_to(context, (20_000, 1)))[2])[:, 0].mean(), abs=0.015)  # fmt: skip
    middles, _width = grid(density)
    row = drawn[zero][0]
    line = np.tile(row, (middles.size, 1))
    line[:, 3] = middles
    law = np.exp(density.log_prob(line, context))
    same = zero & (drawn[:, 0] == row[0]) & (drawn[:, 1] == row[1])
    expected = (law * middles).sum() / law.sum()
    assert drawn[same, 3].mean() == pytest.approx(expected, abs=5 * drawn[same, 3].std() / np.sqrt(same.sum()))


def test_files_and_pickles(density, tmp_path, monkeypatch):
    x, context = rows(30, seed=4), np.zeros((30, 1))
    monkeypatch.setattr(density.head, "rows", 200_000)  # more rows than a flow may have columns
    density.save(tmp_path / "mixed.safetensors")
    for again in (hr.load(tmp_path / "mixed.safetensors"), pickle.loads(pickle.dumps(density))):
        assert isinstance(again, MixedDensity)
        assert_array_equal(again.log_prob(x, context), density.log_prob(x, context))
        assert_array_equal(again.sample(9, context[0], seed=1), density.sample(9, context[0], seed=1))
    header = density._header()
    header["continuous"] = [2]

    arrays = {**density.named_parameters(), **density._fixed_arrays()}
    with pytest.raises(ValueError, match="columns, continuous: expected those of the network and of the flow"):
        MixedDensity._from_file(Stored(header, arrays, np.dtype("float64")))


def test_classes_given_the_rest(density):
    x, context = rows(25, seed=6), np.full((25, 1), -0.4)
    found = density.probabilities(1, x, context)
    assert_allclose(found.sum(axis=1), 1.0)
    each = []
    for value in range(3):
        x[:, 1] = value
        each.append(np.exp(density.log_prob(x, context)))
    assert_allclose(found, np.stack(each, axis=1) / np.sum(each, axis=0)[:, None], rtol=1e-9)
    with pytest.raises(ValueError, match="column: expected a discrete column, got 2"):
        density.probabilities(2, x, context)


def test_held_out_rows_choose_counts():
    """Each value of hours with spikes has a probability, and smooth ages have a density."""
    rng = np.random.default_rng(0)
    ages = np.round(rng.normal(40.0, 9.0, 2000))
    hours = np.where(rng.random(2000) < 0.5, 40.0, np.round(rng.uniform(0.0, 80.0, 2000)))
    assert classes.has_spikes(hours, 1.0)
    assert not classes.has_spikes(ages, 1.0)


def test_a_head_learns_a_table_of_shares():
    """A head learns the shares of two dependent columns, which are those of a contingency table."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 20_000)
    second = np.where(rng.random(20_000) < 0.7, first, rng.integers(0, 3, 20_000))
    x = np.stack([first, second], axis=1) * 1.0
    head = Head.fresh([Discrete(i, (0.0, 1.0, 2.0)) for i in range(2)], 20_000, None, 0, "float32")
    head.fit(head.opened(x)[1], None, None, 0, Clock())
    every = np.stack(np.meshgrid(*[np.arange(3.0)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    found = np.exp(head.of_rows(every, *head.opened(every), None))
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    shares = np.array([(x == one).all(axis=1).mean() for one in every])
    assert np.abs(found - shares).max() < 0.02


# ---- FlowDensity -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frame():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    kind, x = rng.choice(["oak", "elm", "fir"], 900, p=[0.5, 0.3, 0.2]), rows(900)
    values = {"kind": kind, "flag": x[:, 0] == 1.0, "rain": x[:, 2], "size": x[:, 3] + 2.0 * (kind == "oak")}
    return pandas.DataFrame(values)


@pytest.fixture(scope="module")
def estimator(frame):
    pytest.importorskip("sklearn")
    from headrace.sklearn import FlowDensity

    return FlowDensity(transforms=2, hidden=(16,), random_state=0).fit(frame)


def test_a_frame_with_labels(frame, estimator, tmp_path):
    """The estimator and its file score and sample rows with labels; probabilities of labels depend on other columns."""
    assert [one.kind for one in estimator.table_.columns] == ["category", "boolean", "float", "float"]
    assert estimator.table_.columns[0].labels == ("elm", "fir", "oak")
    assert estimator.table_.columns[2].values == (0.0,)
    scores = estimator.score_samples(frame)
    estimator.as_table().save(tmp_path / "frame.safetensors")
    with pytest.warns(FutureWarning):
        table = hr.load(tmp_path / "frame.safetensors")
    assert_array_equal(table.log_prob(frame), scores)
    drawn = table.sample(400, seed=1, as_frame=True)
    assert set(drawn["kind"]) == {"elm", "fir", "oak"}
    assert drawn["flag"].dtype == bool
    assert (drawn["rain"] == 0.0).mean() == pytest.approx((frame["rain"] == 0.0).mean(), abs=0.08)
    shares = table.probabilities("kind", frame)
    guessed = np.array([*shares])[np.argmax([*shares.values()], axis=0)]
    assert (guessed == frame["kind"]).mean() > 0.6
    other = frame.copy()
    other.loc[3, "kind"] = "ash"
    with pytest.warns(RuntimeWarning, match="1 of 900 rows have a value in column 'kind' that no row to fit had"):
        found = estimator.score_samples(other)
    assert found[3] == -np.inf
    assert (np.delete(found, 3) == np.delete(scores, 3)).all()
    assert "3 values (elm, fir, oak)" in repr(estimator.table_)


def test_held_out_rows_may_have_labels(frame):
    """Held-out rows have codes, as training rows have; the flow is judged by rows whose gates are open."""
    from headrace.sklearn import FitSettings, FlowDensity

    judged = FitSettings(epochs=2, validation=(frame[600:],))
    model = FlowDensity(transforms=2, hidden=(16,), fit=judged, random_state=0).fit(frame[:600])
    codes = frame.assign(kind=frame["kind"].map({"elm": 0, "fir": 1, "oak": 2})).to_numpy(float)
    held, given = model.flow_.of_flow(codes[600:])
    history = model.history_
    assert -model.flow_.flow.log_prob(held, given).mean() == pytest.approx(min(history.validation_loss), rel=1e-5)


def test_a_diagnosis_looks_at_numbers_and_classes(frame, estimator):
    """A diagnosis of classes uses all rows, a diagnosis of the flow only complete rows; new labels have density 0."""
    found = hr.diagnose(estimator, frame, progress=False)
    assert (found.kind, found.rows, found.features, found.names) == ("MixedDensity", 900, 4, ("rain", "size"))
    assert len(found.log_prob) == (frame["rain"] != 0.0).sum()
    assert found.scores.shape == (900, 5)
    of_rain = "latent column rain (frequent or missing values)"  # rain has labels in addition to values
    assert found.labels == ("latent column rain", "latent column size", *found.labels[2:4], of_rain)
    assert found.labels[2:4] == ("latent column kind", "latent column flag")
    note = "Coverage, ranks and distances are of rain and size alone, in rows that have them."
    assert note in str(found).replace("\n", " ")
    assert note in html.unescape(found.to_html())
    assert (found.likelihoods[-1].name, found.likelihoods[-1].rows) == ("probabilities", 900)
    found = hr.diagnose(estimator, frame.replace({"kind": {"fir": "ash"}}), progress=False)
    assert "rows have density 0" in found.verdict
    assert found.grade == "wrong"
    with pytest.raises(ValueError, match=r"^names: expected 4"):
        hr.diagnose(estimator, frame, names=["a", "b"], progress=False)


def test_a_diagnosis_of_classes_knows_the_number_of_its_tests(density, monkeypatch):
    """The bar counts the tests of classes, and names of the context come from the density."""
    totals, x = [], rows(200, seed=4)
    monkeypatch.setattr(run, "bar", lambda total, *more: totals.append(total) or bar(total, *more))
    named = copy.copy(density)
    named._names = Names(None, ("dose",))
    table = TableDensity(named, Columns(Table((Column(),) * 4)))
    found = hr.diagnose(table, x, 10.0 * x[::-1, 3:], progress=False)
    assert totals == [len(found.tests)]
    sentence = next(one.sentence for one in found.tests if one.name == "dependence on the context")
    assert "context column dose" in sentence


def test_rows_without_a_density_under_an_ensemble_beside_classes(density, monkeypatch):
    """An ensemble has no latent rows, but its log densities show which rows have no density."""
    several = copy.copy(density)
    several.flow = hr.Ensemble([density.flow])
    table, x = TableDensity(several, Columns(Table((Column(),) * 4))), rows(200, seed=4)
    assert hr.diagnose(table, x, x[:, 3:], progress=False).size.nowhere == 0.0
    monkeypatch.setattr(hr.Ensemble, "log_prob", lambda _, x, context: np.full(x.shape[:-1], -np.inf))
    found = hr.diagnose(table, x, x[:, 3:], progress=False)
    assert found.size.nowhere == np.mean(x[:, 2] != 0.0)
    assert found.tests[0].name == "rows without a density"


def test_shares_of_a_column_without_one_of_its_labels():
    """Class 1 has the label of index 2, because no training row has the label of index 1."""
    shares = _shares(Discrete(0, (0.0, 2.0)), np.zeros(50, int), np.full((50, 2), [0.9, 0.1]), "kind", ["a", "b", "c"])
    assert "where a is" in shares[1]
    shares = _shares(Discrete(0, (0.0, 2.0)), np.ones(50, int), np.full((50, 2), [0.5, 0.5]), "kind", ["a", "b", "c"])
    assert shares[1].startswith("column kind, where a is the value of 0.0%")
    three = _shares(Discrete(0, (0.0, 2.0, np.nan)), np.ones(50, int), np.full((50, 3), [0.1, 0.2, 0.7]), "kind", "abc")
    assert three[1].startswith("column kind, where c is the value of 100.0%")


@pytest.mark.costly
def test_a_diagnosis_passes_the_right_probabilities_and_finds_others(frame, estimator):
    """Samples of the density pass; a value with 1.5 times its share is found, and so is a column that was shuffled."""
    found = [
        hr.diagnose(estimator, estimator.sample(300, random_state=i, as_frame=True), progress=False) for i in range(8)
    ]
    assert sum(one.p_value <= 0.05 for one in found) <= 2
    drawn = estimator.sample(1500, random_state=9, as_frame=True)
    is_fir, rng = drawn["kind"] == "fir", np.random.default_rng(0)
    more = hr.diagnose(estimator, drawn[is_fir | (rng.random(1500) < 2 / 3)], progress=False)
    assert "shares of values" in [one.name for one in more.misses]
    assert "column kind, where fir is the value of" in more.verdict
    apart = hr.diagnose(estimator, drawn.assign(flag=rng.permutation(drawn["flag"])), progress=False)
    assert {"dependence on the context", "independence"} & {one.name for one in apart.misses}
    assert not more.interrupted


def test_points_of_classes(density):
    """Classes divide the unit interval at sums of their probabilities; the part of a new count is the last."""
    head, x = density.head, rows(40, seed=3)
    x[0, 1] = 7.0
    codes, inputs = head.opened(x)
    given = np.random.default_rng(2).standard_normal((40, 1))
    starts, above = head.tails(codes, inputs, given, np.zeros(codes.shape))
    ends, beyond = head.tails(codes, inputs, given, np.ones(codes.shape))
    each = head.log_probs(inputs, given)
    for i, one in enumerate(head.columns):
        new = 0.5 / (head.rows + 0.5) if one.step else 0.0
        for row, code in enumerate(codes[:, i]):
            shares = (1.0 - new) * np.exp(each[i][row])
            want = (1.0 - new, 1.0) if code < 0 else (shares[:code].sum(), shares[: code + 1].sum())
            assert_allclose((starts[row, i], ends[row, i]), want, atol=1e-12)
    assert_allclose(starts + above, 1.0, rtol=1e-12)
    assert_allclose(ends + beyond, 1.0, rtol=1e-12)


def test_missing_values_have_a_probability(frame):
    from headrace.sklearn import FlowDensity

    rng = np.random.default_rng(2)
    other = frame.copy()
    gone = rng.random(900) < 0.2
    other.loc[gone, "size"] = np.nan
    other.loc[rng.random(900) < 0.1, "kind"] = None
    model = FlowDensity(transforms=2, hidden=(16,), missing="model", random_state=0).fit(other)
    assert np.isfinite(model.score_samples(other)).all()
    drawn = model.sample(2000, random_state=0, as_frame=True)
    assert drawn["size"].isna().mean() == pytest.approx(gone.mean(), abs=0.04)
    assert drawn["kind"].isna().mean() == pytest.approx(0.1, abs=0.04)
    members = FlowDensity(transforms=2, hidden=(16,), missing="model", ensemble=2, random_state=0).fit(other)
    assert members.spread_samples(other[:20]).shape == (20,)
    assert members.sample(50, random_state=0).shape == (50, 4)
    with pytest.raises(ValueError, match="expected no missing values"):
        FlowDensity(random_state=0).fit(other)


def test_flows_without_lines_have_no_gates(frame):
    """Gates need splines, which keep far values; for a flow without splines a frequent value causes a warning."""
    from headrace.sklearn import FlowDensity

    with pytest.warns(RuntimeWarning, match="one value is frequent in column 'rain'"):
        model = FlowDensity("maf", transforms=2, hidden=(8,), random_state=0).fit(frame)
    assert not model.flow_.gates
    assert len(model.flow_.head.columns) == 2


def test_discrete_columns_alone(frame):
    from headrace.sklearn import FlowDensity

    model = FlowDensity(random_state=0).fit(frame[["kind", "flag"]])
    assert model.flow_.flow is None
    assert model.score(frame[["kind", "flag"]]) > np.log(1 / 6)
    every = model.sample(2000, random_state=0, as_frame=True)
    assert (every["kind"] == "oak").mean() == pytest.approx(0.5, abs=0.06)
    found = hr.diagnose(model, every, progress=False)
    assert not found.misses
    assert "MixedDensity of 2 features, looked at with 2,000 rows" in str(found)
    assert "probabilities" in found.to_html()
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", found.to_html(), flags=re.DOTALL)
    assert "where fir is the value of 0.0% of the rows" in hr.diagnose(model, every[every["kind"] != "fir"]).verdict
