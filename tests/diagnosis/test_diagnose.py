"""Arguments and refusals of `hr.diagnose`, and the text, pictures and files of a `Diagnosis`."""

import inspect
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from headrace import diagnosis as diagnosis_package
from headrace._cli import options
from headrace._fit.gaussian import gaussian_log_prob
from headrace.diagnosis import bands, latent, picture, run, sizes
from headrace.diagnosis import page as page_module
from headrace.diagnosis.advice import advice_for
from headrace.diagnosis.sizes import Size, columns_of
from pairs import pairwise


def flow_of(features=3, context=0):
    return hr.RealNVP(features, context=context, transforms=2, hidden=(4,), dtype="float64", seed=1)


def rows_of(flow, rows, seed=0):
    context = cases.rng("context", seed).standard_normal((rows, flow.context)) if flow.context else None
    return flow.sample(rows, context, seed=seed), context


# --- arguments --------------------------------------------------------------------------------------------------


@pairwise(rows=[1, 2, 3, 5, 12, 39, 40, 45], context=[0, 2], features=[1, 3])
def test_few_rows(rows, context, features):
    flow = hr.MAF(features, context=context, transforms=2, hidden=(4,), dtype="float64", seed=1)
    x, given = rows_of(flow, rows, seed=rows)
    with pytest.warns(RuntimeWarning, match=f"{rows:,} of {rows:,} are training rows"):
        diagnosis = hr.diagnose(flow, x, given, training=x if given is None else (x, given))
    assert all(0.0 <= one.p_value <= one.adjusted <= 1.0 for one in diagnosis.tests)
    assert diagnosis.copies == rows
    assert diagnosis.verdict.startswith("Nothing can be said of new rows: ")
    assert len(diagnosis.worst) == min(rows, 10)
    assert "With so few rows" in str(diagnosis)
    names = [one.name for one in diagnosis.tests]
    assert ("classifier" in names) == (rows >= 40)
    assert ("independence" in names) == (rows > 2 and features > 1)
    assert ("dependence on the context" in names) == (rows > 2 and context > 0)


def test_training_rows_in_another_order_are_noticed():
    flow = flow_of()
    x, _ = rows_of(flow, 300)
    other, _ = rows_of(flow, 300, seed=5)
    with pytest.warns(RuntimeWarning, match="200 of 300 are training rows"):
        diagnosis = hr.diagnose(flow, np.concatenate([other[:100], x[249:49:-1]]), training=x)
    assert diagnosis.of_training
    assert diagnosis.summary()["of_training"] is True
    assert not hr.diagnose(flow, np.concatenate([other[:200], x[:100]]), training=x).of_training


@pytest.mark.costly
def test_rows_of_few_values_may_repeat_those_of_the_fit():
    """New rows of a small table of integers equal training rows, as training rows equal each other, by chance."""
    flow = flow_of()
    rng = np.random.default_rng(0)
    x, training = (rng.integers(-1, 2, (400, flow.features)).astype(flow.dtype) for _ in range(2))
    diagnosis = hr.diagnose(flow, x, training=training)
    assert diagnosis.copies == 400
    assert not diagnosis.of_training


def test_the_seed_decides():
    flow = flow_of()
    x, _ = rows_of(flow, 100)
    first, again, other = (hr.diagnose(flow, x, seed=seed) for seed in (1, 1, 2))
    assert first.summary() == again.summary()
    assert_array_equal(first.regions, again.regions)
    assert (first.regions != other.regions).any()


def test_float32_and_other_arrays():
    flow = flow_of().astype("float32")
    x, _ = rows_of(flow, 300)
    diagnosis = hr.diagnose(flow, x)
    assert not diagnosis.misses
    assert hr.diagnose(flow, np.asfortranarray(x.astype("f8"))).p_value == pytest.approx(diagnosis.p_value, rel=1e-3)


def test_numbers_far_from_zero_keep_their_digits():
    """Draws of a float32 flow are compared in float64: trees would recognise draws that are rounded to steps of
    0.06."""
    x = 1e6 + cases.rng("far").standard_normal((3000, 2))
    flow = hr.Flow([hr.transforms.Standardize([1e6, 1e6], [1.0, 1.0])])
    assert not hr.diagnose(flow, x).misses


def test_an_ensemble_has_no_latent_rows():
    flows = [hr.Flow([hr.transforms.Standardize([m, 0.0], [1.0, 1.0])], dtype="float64") for m in (-2.0, 2.0)]
    ensemble = hr.Ensemble(flows)
    x = ensemble.sample(2000, seed=1)
    diagnosis = hr.diagnose(ensemble, x)
    assert not diagnosis.misses
    assert [one.name for one in diagnosis.tests] == ["coverage", "classifier"]
    assert diagnosis.scores is None
    assert diagnosis.worst[0].label is None
    with pytest.raises(ValueError, match=r"^coordinate: expected a diagnosis with latent rows, got one without$"):
        diagnosis.rank_histogram(0)
    assert {one.name for one in hr.diagnose(flows[0], x).misses} >= {"coverage", "classifier", "latent coordinates"}


def test_weights_are_used():
    """A weight of 0 leaves a row out of the mean, and of the tests."""
    flow = flow_of()
    x, _ = rows_of(flow, 400)
    x[::2] += 50.0
    weights = np.tile([0.0, 1.0], 200)
    diagnosis = hr.diagnose(flow, x, weights=weights)
    assert not diagnosis.misses
    assert (diagnosis.rows, diagnosis.looked_at) == (400, 200)
    plain = hr.diagnose(flow, x[1::2])
    for one, other in zip(diagnosis.likelihoods[:1], plain.likelihoods[:1], strict=True):
        assert one.mean == pytest.approx(other.mean, rel=1e-12)
        assert one.error == pytest.approx(other.error, rel=1e-12)
    assert "The tests took 200 of 400 rows, kept by their weights." in str(diagnosis)
    weighted = hr.diagnose(flow, x[1::2], weights=np.arange(200.0))
    assert 70 < weighted.looked_at < 130


def test_rows_with_density_zero():
    """A row that overflows in the flow has density zero, which proves the density wrong."""
    flow = hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1e-300, 1.0])], dtype="float64")
    x = np.array([[1e-300, 0.1], [1e30, 0.2], [1e-301, -0.3]])
    diagnosis = hr.diagnose(flow, x)
    assert diagnosis.p_value == 0.0
    assert "1 of 3 rows have density 0, or none that can be computed; the first is row 1" in diagnosis.verdict
    assert diagnosis.worst[0].row == 1
    assert diagnosis.scores.shape == (2, 2)
    str(diagnosis)
    alone = hr.diagnose(flow, x[1:2])
    assert alone.p_value == 0.0
    far = hr.diagnose(hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])]), np.array([[0.0, 0.1], [0.0, 1e25]]))
    assert (far.worst[0].log_prob, far.worst[0].label) == (-np.inf, "latent column 1")


# --- refusals -------------------------------------------------------------------------------------------------------


def test_rows_that_are_not_finite_are_refused_by_number():
    flow, x = flow_of(), np.zeros((5, 3))
    x[[1, 3], 0] = np.nan, np.inf
    with pytest.raises(
        ValueError, match=r"^x: expected finite numbers, got NaN or infinity in 2 of 5 rows, first in row 1"
    ):
        hr.diagnose(flow, x)
    with pytest.raises(ValueError, match=r"^training x: expected finite numbers, got NaN or infinity in 2 of 5 rows"):
        hr.diagnose(flow, np.zeros((5, 3)), training=x)
    with pytest.raises(ValueError, match=r"^context: expected finite numbers, got NaN or infinity in 1 of 5 rows"):
        hr.diagnose(flow_of(3, 1), np.zeros((5, 3)), np.array([0.0, 0.0, np.nan, 0.0, 0.0]))


def test_wrong_arguments():
    flow, x = flow_of(), np.zeros((5, 3))
    for wrong, error, message in (
        ({"flow": 3}, TypeError, "^flow: expected a flow, an ensemble or a fitted FlowDensity, got int"),
        ({"x": np.zeros((0, 3))}, ValueError, "^x: expected at least one row"),
        ({"x": np.zeros((5, 2))}, ValueError, "^x: expected shape"),
        ({"context": np.zeros((5, 1))}, ValueError, "^context: expected"),
        ({"weights": -np.ones(5)}, ValueError, "^weights: "),
        ({"weights": np.zeros(5)}, ValueError, "^weights: "),
        ({"training": (x, None, None)}, TypeError, r"^training: expected x, or a tuple \(x, context\), got 3 arrays"),
        ({"training": np.zeros((5, 2))}, ValueError, "^training x: expected shape"),
        ({"names": ["a"]}, ValueError, "^names: expected 3 values, got 1"),
        ({"names": "abc"}, TypeError, "^names: expected a sequence of 3 texts, got str"),
        ({"seed": -1}, ValueError, "^seed: expected an integer"),
    ):
        with pytest.raises(error, match=message):
            hr.diagnose(**{"flow": flow, "x": x, **wrong})


# --- likelihoods ----------------------------------------------------------------------------------------------------


@pytest.mark.costly
def test_simple_densities_are_judged_by_rows_outside_of_their_fit():
    flow = flow_of()
    (x, _), (training, _) = rows_of(flow, 300), rows_of(flow, 500, seed=1)
    own, gaussian, kernels = hr.diagnose(flow, x, training=training).likelihoods
    log_prob = flow.log_prob(x)
    assert own.mean == pytest.approx(log_prob.mean(), rel=1e-12)
    assert own.error == pytest.approx(log_prob.std(ddof=1) / np.sqrt(300), rel=1e-12)
    want = gaussian_log_prob(training, x)
    assert gaussian.mean == pytest.approx(want.mean(), rel=1e-12)
    assert gaussian.gain == pytest.approx((log_prob - want).mean(), rel=1e-9)
    assert gaussian.gain_error == pytest.approx((log_prob - want).std(ddof=1) / np.sqrt(300), rel=1e-9)
    assert kernels.rows == 300
    halves = hr.diagnose(flow, x)
    assert "one half of these rows" in halves.fitted_to
    # A Gaussian that is fitted to all rows has a higher likelihood than one that is fitted to half of the rows.
    assert halves.likelihoods[1].mean < gaussian_log_prob(x, x).mean()
    x[0] = 40.0  # a Gaussian of all rows would have made this row likely
    assert hr.diagnose(flow, x).likelihoods[1].mean < gaussian_log_prob(x, x).mean() - 0.5


def test_rows_in_a_plane_have_no_gaussian():
    x = cases.rng("plane").standard_normal((50, 1)) * np.ones(3)
    assert [one.name for one in hr.diagnose(flow_of(), x).likelihoods] == ["flow"]


# --- the text of a diagnosis ------------------------------------------------------------------------------------------


def test_a_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    flow = hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])], dtype="float64")
    x = cases.rng("screen").standard_normal((1000, 2)) * [1.0, 1.3]
    lines = str(hr.diagnose(flow, x, names=["mass", "age"])).splitlines()
    assert max(map(len, lines)) <= 110
    assert len(lines) <= 40
    text = " ".join(" ".join(lines).split())
    assert "Usable: a classifier tells rows from draws in 5" in text
    assert re.search(r"Least right: column age, whose spread is 2\d% too small\. \d of 7 tests .* looking at 46", text)
    assert "latent column age has mean" in text
    assert "what speaks against it (p-values of each test alone) latent coordinates p = " in text
    assert re.search(r"what does not .*independence \(p = ", text)
    assert "rows that fit worst row " in text


@pytest.mark.parametrize("value", [0.1, 0.3, 7.7, 30.1])
def test_coordinates_without_spread_have_a_text(value):
    found = latent.coordinates(np.full((30, 1), value), ["z"])
    assert f"z has mean {value:.3f} and standard deviation 0.000 where" in found.sentence


def test_latent_coordinates_have_names_of_columns():
    """After a permutation, latent coordinate 0 is column 1; a rotation mixes columns."""
    flow = hr.Flow([hr.transforms.Permutation([1, 0])], dtype="float64")
    x = cases.rng("permuted").standard_normal((500, 2)) * [1.5, 1.0]
    assert hr.diagnose(flow, x).labels == ("latent column 1", "latent column 0")
    angle = 0.1
    turn = hr.transforms.Rotation([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = hr.diagnose(hr.Flow([turn], dtype="float64"), x, names=["a", "b"])
    assert turned.labels == ("latent coordinate 0 (mostly column a)", "latent coordinate 1 (mostly column b)")
    assert turned.least_right.startswith("latent coordinate 0 (mostly column a), whose spread is ")
    half = hr.Flow([hr.transforms.Rotation(np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2.0))], dtype="float64")
    for i, label in enumerate(hr.diagnose(half, x / [1.5, 1.0], names=["a", "b"]).labels):
        assert label in (
            f"latent coordinate {i} (mostly columns a and b)",
            f"latent coordinate {i} (mostly columns b and a)",
        )


@pytest.mark.costly
@pairwise(kind=[hr.NSF, hr.MAF, hr.RealNVP], rows=[60, 600], context=[0, 1])
def test_no_default_flow_has_a_coordinate_without_a_column(kind, rows, context, one_mixture):
    """The verdict, the findings and the labels of coordinates contain names of columns."""
    x = np.cumsum(cases.rng("columns", rows).standard_normal((rows, 3)), axis=1)
    given = x[:, :context] + 1.0 if context else None
    flow = kind(3, context=context)
    flow.fit(x, given, progress=False, **({} if rows == 60 else {"epochs": 1}))  # a fit to few rows adds a rotation
    found = hr.diagnose(flow, 1.4 * x, given, names=["a", "b", "c"], progress=False)
    assert found.misses
    text = " ".join(f"{found.verdict} {found} {found.labels}".split())
    assert "latent co" in text
    assert re.findall(r"latent coordinate \d+(?! \(mostly column)", text) == []


def test_a_column_is_named_with_its_conditioning_columns():
    """In a flow with one order of columns, column 1 of three is too narrow and depends on column 0; another flow has
    two orders."""
    flow = hr.MAF(3, transforms=1, hidden=(8,), link="none", context=1, dtype="float64", seed=3)
    x, context = rows_of(flow, 2000)
    x = flow.to_data(flow.to_latent(x, context)[0] * [1.0, 1.3, 1.0], context)[0]
    found = hr.diagnose(flow, x, context, names=["a", "b", "c"])
    assert re.fullmatch(r"column b given a and the context, whose spread is 2\d% too small", found.least_right)
    assert found.least_right in found.verdict
    wide = hr.MAF(6, transforms=2, hidden=(16,), dtype="float64", seed=3)
    places = columns_of(wide, rows_of(wide, 20)[0], None, "abcdef")
    assert places == [(i, "all others") for i in range(6)]
    assert sizes._given(5, 5, np.arange(7) < 6, "abcdefg", 0) == "a, b and 3 more"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z + 0.2, "z, which lies 0.20 standard deviations too low"),
        (lambda z: z - 0.2, "z, which lies 0.20 standard deviations too high"),
        (lambda z: 0.8 * z, "z, whose spread is 2\\d% too large"),
        (
            lambda z: np.sign(z) * np.abs(z) ** 1.4 / 1.21,
            "z, whose tails are too light: they hold [67].\\d% of the rows",
        ),
        (lambda z: np.clip(1.05 * z, -1.9, 1.9), "z, whose tails are too heavy: they hold 0.0% of the rows"),
    ],
)
def test_the_direction_of_a_misfit_in_words(change, words):
    z = change(latent.of.normal_quantile((np.arange(4000) + 0.5) / 4000))[:, None]
    assert re.match(words, latent.least_right(z, ["z"])), latent.least_right(z, ["z"])


@pytest.mark.costly
def test_grades_are_of_sizes_and_not_of_rows():
    """The limits are those of docs/diagnosis.md; sizes within a standard error of a limit do not lower a grade."""
    for known, nats, nowhere, grade in (
        (0.5, 0.0, 0.0, "very good"),
        (0.57, 0.0, 0.0, "usable"),
        (0.5, 0.04, 0.0, "usable"),
        (0.5, 0.0, 0.001, "usable"),
        (0.7, 0.0, 0.0, "wrong"),
        (0.5, 0.2, 0.0, "wrong"),
        (0.5, 0.0, 0.02, "wrong"),
        (np.nan, 0.01, 0.0, "very good"),
        (0.5, np.nan, 0.0, "very good"),
    ):
        size = Size(known=known, pairs=5000, nats=nats, nats_error=0.005, nowhere=nowhere)
        assert size.grade == grade, size
    assert Size(known=0.57, pairs=50).grade == "very good"
    assert Size().grade == Size().sentence == ""
    flow = hr.Flow([hr.transforms.Standardize([0.0], [1.0])], dtype="float64")
    for factor, grade in ((1.05, "very good"), (1.3, "usable"), (2.5, "wrong")):
        many = hr.diagnose(flow, factor * cases.rng("grades").standard_normal((6000, 1)), progress=False)
        assert (many.grade, bool(many.misses)) == (grade, True)
        assert many.summary()["grade"] == grade
        assert many.verdict.startswith(f"{grade.capitalize()}: a classifier tells rows from draws in ")
    assert many.size.nats == pytest.approx((2.5**2 - 1) / 2 - np.log(2.5), abs=0.3)


@pytest.mark.costly
def test_advice_names_nothing_that_the_flow_has_and_no_page_inside_of_it():
    pytest.importorskip("matplotlib")
    rng = cases.rng("advice")
    x = rng.standard_normal((300, 2)) * [1.0, 3.0]
    affine, splines = hr.MAF(2, transforms=1, hidden=(4,)), hr.NSF(2, transforms=1, hidden=(4,))
    for flow, expected in ((affine, 1), (splines, 0)):
        found = replace(hr.diagnose(flow, x, progress=False), on_the_command_line=True)
        assert sum("--flow NSF" in step for step in found.next_steps()) == expected
        text = found.to_html()
        assert text.count("<h2>What to do next</h2>") == 1
        assert "report.html" not in text
        assert "<code>--transforms</code>" in text
        assert ("<code>--flow</code> NSF" in text) == bool(expected)
        assert "--output report.html" in str(found).replace("\n", " ").replace("  ", "")


def test_ranks_in_bins():
    flow = flow_of()
    x, _ = rows_of(flow, 500)
    diagnosis = hr.diagnose(flow, x)
    counts, (low, high) = diagnosis.rank_histogram(1)
    assert counts.sum() == 500
    assert low <= counts.min() <= counts.max() <= high
    counts, (low, high) = hr.diagnose(flow, 2.0 * x).rank_histogram(1)
    assert counts[0] > high


def test_ctrl_c_keeps_finished_tests(monkeypatch):
    flow = flow_of()
    x, _ = rows_of(flow, 100)

    def stop(*arguments):
        raise KeyboardInterrupt

    whole = hr.diagnose(flow, x)
    monkeypatch.setattr(run, "coverage", stop)
    diagnosis = hr.diagnose(flow, x)
    assert diagnosis.interrupted
    assert [one.name for one in diagnosis.tests] == [one.name for one in whole.tests[:-2]]
    assert "Interrupted: these are the tests done so far." in str(diagnosis)
    assert diagnosis.to_html()
    with monkeypatch.context() as patch:
        patch.setattr(run, "columns_of", stop)  # Ctrl-C between latent rows and names of coordinates
        diagnosis = hr.diagnose(flow, x)
    assert diagnosis.interrupted
    assert diagnosis.tests == ()
    assert [one.row for one in diagnosis.worst] == [one.row for one in whole.worst]
    with monkeypatch.context() as patch:
        patch.setattr(run, "copies", stop)  # Ctrl-C comes after the last test
        assert len(hr.diagnose(flow, x, training=x[:50]).tests) >= len(whole.tests) - 2
    monkeypatch.setattr(run, "compare", stop)
    with pytest.raises(KeyboardInterrupt):
        hr.diagnose(flow, x)


# --- pictures and pages ---------------------------------------------------------------------------------------------


def assert_a_page_of_its_own(text):
    """Check that a page is well formed, refers to nothing outside, escapes names, and does not break a percentage."""
    assert "<b>" not in text
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert "@import" not in text
    assert not re.search(r">[^<]*\d %[^<]*<", text.partition("<h2>")[2])
    root = ElementTree.fromstring(re.sub(r"<(meta [^>]*)>", r"<\1/>", text.removeprefix("<!DOCTYPE html>")))
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(names)) == len(names)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {a or b for a, b in used} <= set(names)
    assert {svg.get("viewBox") is not None for svg in root.iter("{http://www.w3.org/2000/svg}svg")} == {True}


@pytest.mark.costly
@pytest.mark.parametrize("kind", ["right", "wrong", "ensemble", "one row"])
def test_pictures_and_pages(kind, tmp_path):
    pytest.importorskip("matplotlib")
    flow = flow_of()
    x, _ = rows_of(flow, 1 if kind == "one row" else 200)
    if kind == "wrong":
        x[0] = 1e3
    diagnosis = hr.diagnose(
        hr.Ensemble([flow]) if kind == "ensemble" else flow, x, names=[f"<b>{i}" for i in range(x.shape[1])]
    )
    if kind == "one row":  # the picture draws the contents of the page
        diagnosis.plot(tmp_path / "d.png")
        assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    text = diagnosis.to_html()
    drawn = 0 if diagnosis.samples is None else diagnosis.features
    assert text.count("<svg") == text.count("</svg>") == 6 + drawn
    if kind == "right":
        assert "at the 5\xa0% level" in text
    assert_a_page_of_its_own(text)


def test_histograms_are_drawn_beside_their_bands():
    """The data of matplotlib's artists equal the histograms of latent coordinates, columns and log densities."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    rng = cases.rng("histograms drawn")
    flow = hr.RealNVP(3, context=1, transforms=1, hidden=(4,), dtype="float64")
    flow.parameters = np.zeros(flow.parameters.size)
    x, context = rng.standard_normal((600, 3)) * [1.0, 1.0, 1.5], rng.standard_normal((600, 1))
    diagnosis = hr.diagnose(flow, x, context, names=["a", "b", "a name of more than twenty letters"], progress=False)
    for panel, histogram, oddest in (
        (picture._transforms, diagnosis.rank_histogram, "column a name of more than…"),
        (picture._calibration, diagnosis.column_histogram, "a name of more than…"),
    ):
        axis = Figure().subplots()
        panel(axis, diagnosis)
        drawn = [one for one in axis.patches if hasattr(one, "get_data")]
        assert sorted(map(tuple, (one.get_data().values for one in drawn))) == sorted(
            tuple(histogram(i)[0]) for i in range(3)
        )
        low, high = bands.histogram_band(600, 20, histograms=3)
        assert tuple(axis.collections[0].get_paths()[0].get_extents().intervaly) == (low, high)
        assert low < diagnosis.rank_histogram(0)[1][0]  # the band of a single histogram is narrower
        named = {one.get_label(): one.get_data().values for one in drawn}
        assert named[oddest].max() > high
        assert all(heights.max() <= high for name, heights in named.items() if name != oddest)
    alone = hr.diagnose(flow_of(), rows_of(flow_of(), 150)[0], progress=False)
    axis = Figure().subplots()
    picture._calibration(axis, alone)
    heights = axis.patches[-1].get_data().values
    assert len(heights) == picture.COARSE_BINS
    assert (heights == np.histogram(alone.regions, 10, (0.0, 1.0))[0]).all()


def test_one_context_for_all_rows():
    rng = cases.rng("one context")
    flow = hr.RealNVP(2, context=1, transforms=1, hidden=(4,), dtype="float64")
    flow.parameters = 0.1 * rng.standard_normal(flow.parameters.size)
    row = np.array([0.3])
    x, training = flow.sample(200, row, seed=1), flow.sample(50, row, seed=2)
    found = hr.diagnose(flow, x, row, training=(training, row))
    whole = hr.diagnose(flow, x, np.repeat(row, 200)[:, None], training=(training, np.repeat(row, 50)[:, None]))
    assert found.summary() == whole.summary()
    assert found.misses == ()


def test_equal_or_infinitely_far_rows_give_no_warnings():
    flow = flow_of()
    assert hr.diagnose(flow, np.zeros((40, 3))).misses
    x = np.vstack([rows_of(flow, 60)[0], np.full((1, 3), 1e30)])
    found = hr.diagnose(flow, x)
    assert found.misses
    assert "the flow has inf more on 30 rows" in str(found)
    assert "nan" not in str(found)


def test_context_has_names():
    rng = cases.rng("names of context")
    context = rng.standard_normal((800, 2))
    flow = hr.RealNVP(2, context=2, transforms=1, hidden=(4,), dtype="float64")
    flow.parameters = np.zeros(flow.parameters.size)
    x = rng.standard_normal((800, 2)) + [[0.5, 0.0]] * context[:, 1:]

    def sentence_of(context, **how):
        tests = hr.diagnose(flow, x, context, **how).tests
        return next(one.sentence for one in tests if one.name == "dependence on the context")

    assert "context column 1 have" in sentence_of(context)
    assert "context column light have" in sentence_of(context, context_names=["time", "light"])
    pandas = pytest.importorskip("pandas")
    assert "context column light have" in sentence_of(pandas.DataFrame(context, columns=["time", "light"]))
    with pytest.raises(ValueError, match="context_names: expected"):
        sentence_of(context, context_names=["time"])


def test_without_matplotlib(monkeypatch, tmp_path):
    for module in ("picture", "page"):
        monkeypatch.setattr(f"headrace.diagnosis.{module}.can_draw", lambda: False)
    flow = flow_of()
    diagnosis = hr.diagnose(flow, rows_of(flow, 50)[0])
    with pytest.raises(ImportError, match=r'^pictures need matplotlib: pip install "\.\[plot\]" in the clone'):
        diagnosis.plot(tmp_path / "d.png")
    assert "<svg" not in diagnosis.to_html()
    assert picture.NO_MATPLOTLIB.split(":")[0] in diagnosis.to_html()


def test_log_densities_and_worst_rows():
    flow = flow_of()
    x, _ = rows_of(flow, 60)
    diagnosis = hr.diagnose(flow, x)
    log_prob = flow.log_prob(x)
    assert_allclose(diagnosis.log_prob, log_prob)
    assert [one.row for one in diagnosis.worst] == np.argsort(log_prob)[:10].tolist()
    z = flow.to_latent(x)[0]
    for one in diagnosis.worst:
        assert one.coordinate == np.abs(z[one.row]).argmax()
        assert one.value == z[one.row, one.coordinate]


@pytest.mark.costly
def test_a_page_shows_columns_next_steps_and_how_it_was_made():
    pytest.importorskip("matplotlib")
    rng = cases.rng("columns on a page")
    x = rng.standard_normal((600, 14))
    x[:, 13] *= 3.0  # the flow has no names of columns
    flow = hr.Flow([hr.transforms.Standardize(np.zeros(14), np.ones(14))], dtype="float64")
    names = [f"<b>{i}" for i in range(13)] + ["wide"]
    diagnosis = hr.diagnose(flow, x, training=rng.standard_normal((50, 14)), names=names, seed=5, progress=False)
    text = diagnosis.to_html("held <out>.csv")
    assert "data: held &lt;out&gt;.csv; rows held out: 600; rows of training: 50; seed: 5; date: 20" in text
    assert f"headrace: {hr.__version__}" in text
    assert text.count("<svg") == text.count("</svg>") == 6 + 12
    assert_a_page_of_its_own(text)
    assert "2 columns in which rows and draws differ less are left out" in text
    assert diagnosis.samples.shape == diagnosis.held.shape == (600, 14)
    assert picture._most_different(diagnosis.held, diagnosis.samples)[0] == 13
    first = diagnosis.misses[0].name
    step = advice_for(first).text(command_line=False, pictures=False)
    assert step in unescape(text)
    assert step.split(";")[0] in " ".join(str(diagnosis).split())
    assert diagnosis.summary()["made"]["seed"] == "5"
    assert picture._coordinate(diagnosis, 13) == "column wide"


@pytest.mark.costly
def test_letters_of_pictures_have_ten_pixels_and_p_values_too_small_are_shown_so():
    """The sizes of letters are computed from the page's style; tests/diagnosis/test_page_in_browser.py compares them
    with a browser's."""
    pytest.importorskip("matplotlib")
    page_width, rem, style = 1200.0, 16.0, page_module.STYLE
    content = min(rem * float(re.search(r"body \{[^}]*max-width: ([\d.]+)rem", style)[1]), page_width - 2 * rem)
    least, gap = (
        rem * float(n) for n in re.search(r"minmax\(min\(100%, ([\d.]+)rem\), 1fr\)\); gap: (\S+)rem", style).groups()
    )
    side_by_side = int((content + gap) // (least + gap))
    assert side_by_side == 3
    width = (content - (side_by_side - 1) * gap) / side_by_side
    flow = flow_of()
    text = hr.diagnose(flow, 1e7 * rows_of(flow, 300)[0], training=rows_of(flow, 50, 1)[0], progress=False).to_html()
    assert ">&lt; 1e-99</td>" in text
    assert ">1e-99<" not in text
    assert ">= " not in text
    found = re.findall(r'<svg[^>]* viewBox="0 0 ([\d.]+) [\d.]+".*?</svg>', text, re.DOTALL)
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(found) == len(pictures) == 9
    for svg, units in zip(pictures, map(float, found), strict=True):
        assert "<text" not in svg  # letters are paths, with a hundred units for a font size of one
        sizes = [100.0 * float(size) for size in re.findall(r"scale\(([\d.]+) -[\d.]+\)", svg)]
        assert len(sizes) > 5
        assert min(sizes) * width / units >= 10.0
        inside = {float(size) for size in re.findall(r"scale\(([\d.]+)\)", svg)}
        assert inside <= {1 / 64}  # all glyphs have one scale: no exponent is smaller


def test_each_test_has_a_next_step_in_words_of_python_and_of_the_command_line():
    """Keywords and options that the texts of next steps name exist."""
    folder = Path(diagnosis_package.__file__).parent
    named = set(re.findall(r"""Finding\("([^"]+)""", "".join(one.read_text() for one in folder.glob("*.py"))))
    assert len(named) == 12
    keywords = {*inspect.signature(hr.NSF).parameters, *inspect.signature(hr.Flow.fit).parameters}
    commands = next(one.choices for one in options.parser()._actions if isinstance(one.choices, dict)).values()
    known = {option for command in commands for option in command._option_string_actions}
    for advice in map(advice_for, named):
        python, command_line = (advice.text(command_line=kind) for kind in (False, True))
        assert set(re.findall(r"(\w+)=", python)) <= keywords
        assert "--" not in python
        for plot in re.findall(r"hr\.plot\.(\w+)", python):
            assert hasattr(hr.plot, plot)
        assert set(re.findall(r"--[a-z-]+", command_line)) <= known
        assert not re.search(r"hr\.|\w=|\bEnsemble\b", command_line)
