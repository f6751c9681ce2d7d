"""Pictures have the expected values in matplotlib's artists, for one column and ten, one row and many."""

import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

import headrace as hr
from headrace.plot import _planes as planes
from headrace.plot._source import density_of, label

pytest.importorskip("matplotlib")

LONG = "the mean absolute magnitude in the Hipparcos band $M$, corrected for extinction\nand metallicity"
CONTEXT = np.random.default_rng(9).uniform(-1.0, 1.0, (300, 2))


def normal(features, context=0):
    """A flow of known density: independent normal columns, of which a context shifts the first."""
    mean, std = np.arange(features) * 2.0, 1.0 + np.arange(features)
    chain = [hr.transforms.Standardize(mean, std)]
    if context:
        shift = hr.transforms.MaskedAutoregressive(features, (), map="additive", context=context, dtype="float64")
        shift.parameters = 0.0 * shift.parameters
        weight = np.zeros((features, features + context))
        weight[0, features] = 1.0
        shift.set_parameter("layers.0.weight", weight)
        chain = [shift, *chain]
    return hr.Flow(chain, dtype="float64")


def drawn(figure):
    """Lay a figure out, as a save does, and return it."""
    figure.draw_without_rendering()
    return figure


def texts(figure):
    return [text for a in figure.axes for text in (a.get_xlabel(), a.get_ylabel(), a.get_title("left"))]


@pytest.mark.parametrize("features", [1, 2, 10])
@pytest.mark.parametrize("rows", [1, 400])
def test_corner(features, rows):
    flow = normal(features)
    x = flow.sample(rows, seed=1)
    names = [LONG, *(f"c{i}" for i in range(1, features))]
    figure = hr.plot.corner(flow, x, names=names, draws=4000)
    if features < 10 or rows == 1:  # a layout of 55 panels takes a second
        drawn(figure)
    assert len(figure.axes) == features * (features + 1) // 2
    pairs = [(i, j) for i in range(features) for j in range(i + 1)]
    for (i, j), axis in zip(pairs, figure.axes, strict=True):
        low, high = axis.get_xlim()
        assert low < x[:, j].min()
        assert high > x[:, j].max()
        if i == j and rows > 1:
            heights, edges, _ = axis.patches[-1].get_data()  # a histogram of 4000 samples
            share = (heights * np.diff(edges)).sum()
            assert 0.98 < share <= 1.0
            middle = 0.5 * (edges[1:] + edges[:-1])
            expected = scipy.stats.norm.pdf(middle, 2.0 * i, 1.0 + i)
            # The tolerance allows for six deviations of a count of 300, and for the width of a bin.
            assert np.abs(heights - expected).max() < 0.25 * expected.max()
        if i > j:
            assert np.allclose(axis.collections[0].get_offsets(), x[:, [j, i]])
    label_below = figure.axes[features * (features - 1) // 2].get_xlabel()
    assert label_below.startswith("the mean")
    assert label_below.endswith("…")
    assert max(map(len, label_below.split("\n"))) < 45


def test_contours_hold_their_share():
    flow = normal(2)
    figure = drawn(hr.plot.corner(flow, draws=20_000))
    contours = next(c for c in figure.axes[1].collections if hasattr(c, "levels"))
    for level, share in zip(contours.levels, (0.9, 0.5), strict=True):
        # The region of a share of a normal density of deviations 1 and 2 ends at density (1 - share) / 4π.
        assert level == pytest.approx((1 - share) / (4 * np.pi), rel=0.2)
    x = flow.sample(5000, seed=3)
    inside = contours.get_paths()[1].contains_points(x)
    assert inside.mean() == pytest.approx(0.5, abs=0.04)


def test_corner_of_rows_weights_and_whole_numbers():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 4, 1000), rng.integers(0, 2, 1000)], axis=1)
    weights = (rows[:, 0] == 3).astype(float)
    figure = drawn(hr.plot.corner(rows, rows.astype(float), weights=weights))
    heights, edges, _ = figure.axes[0].patches[0].get_data()
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert heights.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert (figure.axes[1].collections[0].get_offsets()[:, 0] == 3).all()
    drawn(hr.plot.corner(np.zeros((5, 3))))  # even equal rows can be drawn
    with pytest.raises(ValueError, match="weights: expected None without x"):
        hr.plot.corner(normal(2), weights=weights)
    with pytest.raises(ValueError, match="at most 20, got 21; choose"):
        hr.plot.corner(np.zeros((5, 21)))
    with pytest.raises(TypeError, match="flow: expected a flow, an ensemble"):
        hr.plot.corner(3)


def test_corner_draws_with_the_contexts_of_rows():
    flow = normal(2, context=2)
    x = np.zeros((300, 2))
    heights, edges, _ = hr.plot.corner(flow, x, CONTEXT * 20, draws=5000).axes[0].patches[-1].get_data()
    middle = 0.5 * (edges[1:] + edges[:-1])
    mean = (heights * np.diff(edges) * middle).sum()
    spread = np.sqrt((heights * np.diff(edges) * (middle - mean) ** 2).sum())
    assert spread == pytest.approx(20 / np.sqrt(3), rel=0.1)
    one = hr.plot.corner(flow, context=[7.0, 0.0], draws=2000).axes[0].patches[-1].get_data()
    assert (one.values * np.diff(one.edges) * 0.5 * (one.edges[1:] + one.edges[:-1])).sum() == pytest.approx(
        7.0, abs=0.3
    )


def test_names_of_files_and_frames(tmp_path):
    from headrace import files

    flow = normal(2)
    path = tmp_path / "flow.safetensors"
    files.save(flow, str(path), {"columns": '{"features": ["mass", "age"], "context": []}'})
    assert texts(hr.plot.corner(path, draws=200))[3:5] == ["mass", "age"]
    assert "mass" in texts(hr.plot.density(str(path), draws=200))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.0, 2.0]})
    assert texts(hr.plot.corner(flow, frame, draws=200))[3:5] == ["a", "b"]
    assert texts(hr.plot.corner(frame))[3:5] == ["a", "b"]
    assert texts(hr.plot.corner(path, frame, names=["c", "d"], draws=200))[3:5] == ["c", "d"]


@pytest.mark.parametrize("features", [1, 2, 10])
def test_density_is_the_density(features):
    flow = normal(features)
    figure = drawn(hr.plot.density(flow, flow.sample(1, seed=0), names=[LONG] * features, draws=20_000))
    for i in range(features):
        at, value = figure.axes[i].lines[0].get_data()
        assert np.allclose(value, scipy.stats.norm.pdf(at, 2.0 * i, 1.0 + i), atol=1e-6)
        assert figure.axes[i].get_title("left") == "exact"
    mixture = hr.plot.density(hr.Ensemble([flow]), columns=[0], draws=20_000)
    at, value = mixture.axes[0].lines[0].get_data()
    # The tolerance allows for four deviations of a count of 600, and for a smoothed density.
    assert np.allclose(value, scipy.stats.norm.pdf(at), atol=0.03)
    if features == 2:
        mesh = figure.axes[2].collections[0]
        at = mesh.get_coordinates()
        middle = 0.25 * (at[1:, 1:] + at[:-1, 1:] + at[1:, :-1] + at[:-1, :-1])
        expected = scipy.stats.norm.logpdf(middle, [0.0, 2.0], [1.0, 2.0]).sum(axis=-1) / np.log(10)
        assert np.allclose(mesh.get_array(), expected, atol=1e-6)


def test_slices_are_conditional_densities():
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 1.0]])
    flow = hr.Flow([hr.transforms.Linear.from_matrix(np.linalg.cholesky(covariance), dtype="float64")], dtype="float64")
    at = rng.standard_normal(3)
    figure = drawn(hr.plot.density(flow, columns=[0, (2, 1)], at=at, draws=5000))
    slope = np.linalg.solve(covariance[1:, 1:], covariance[0, 1:])
    mean, variance = slope @ at[1:], 1.0 - slope @ covariance[1:, 0]
    x, value = figure.axes[0].lines[0].get_data()
    assert np.allclose(value, scipy.stats.norm.pdf(x, mean, np.sqrt(variance)), atol=0.01)
    own = np.linalg.inv(np.linalg.inv(covariance)[1:, 1:])
    mesh = figure.axes[1].collections[0]
    peak = np.unravel_index(mesh.get_array().argmax(), mesh.get_array().shape)
    corner = mesh.get_coordinates()[peak]
    assert np.allclose(corner, (covariance[1:, 0] * at[0])[::-1], atol=0.15)
    assert 10 ** mesh.get_array().max() == pytest.approx(1 / (2 * np.pi * np.sqrt(np.linalg.det(own))), rel=0.05)


def test_marginals_are_exact_where_they_can_be():
    flow = hr.MAF(3, transforms=1, link="none", hidden=(8,))
    assert texts(hr.plot.density(flow, columns=[0, (0, 1), 2], draws=500))[2::3][:3] == [
        "exact",
        "exact",
        "of 500 draws",
    ]
    turned = hr.plot.density(normal(2), columns=[(1, 0)], draws=500).axes[0].collections[0]
    at, value = turned.get_coordinates(), turned.get_array()
    expected = scipy.stats.norm.logpdf(0.5 * (at[0, 0] + at[1, 1]), [2.0, 0.0], [2.0, 1.0]).sum() / np.log(10)
    assert value[0, 0] == pytest.approx(expected, abs=1e-6)
    for wrong, error in (
        ({"columns": [(0, 1, 2)]}, "pairs of them"),
        ({"columns": ["q"]}, "columns: expected one of"),
        ({"at": [0.0]}, "at: expected one row of 3"),
    ):
        with pytest.raises(ValueError, match=error):
            hr.plot.density(flow, **wrong)


@pytest.mark.parametrize("features", [1, 2, 10])
def test_conditional_frames_follow_the_context(features):
    flow = normal(features, context=2)
    figure = drawn(hr.plot.conditional(flow, CONTEXT * 3, context_names=[LONG, "b"], columns=[0], draws=3000))
    assert len(figure.axes) == 6
    low, high = np.quantile(CONTEXT[:, 0] * 3, [0.05, 0.95])
    for axis, value in zip(figure.axes, np.linspace(low, high, 6), strict=True):
        x, density = axis.lines[0].get_data()
        assert (x * density).sum() / density.sum() == pytest.approx(value, abs=0.15)
        assert axis.get_title("left").endswith(f"= {value:.3g}")
        assert axis.get_xlim() == figure.axes[0].get_xlim()
    other = hr.plot.conditional(flow, CONTEXT, "b", [0.5], context_names=["a", "b"], columns=[0], draws=500)
    assert other.axes[0].get_title("left") == "b = 0.5"
    if features > 1:
        pair = drawn(hr.plot.conditional(flow, CONTEXT[0], values=[-2.0, 2.0], draws=2000))
        assert len(pair.axes) == 3  # two panels have a bar of colours
        assert pair.axes[0].collections[0].get_clim() == pair.axes[1].collections[0].get_clim()
    with pytest.raises(ValueError, match="values: expected a sequence of numbers, as"):
        hr.plot.conditional(flow, CONTEXT[0])


def test_conditional_needs_a_context():
    with pytest.raises(ValueError, match="flow: expected a density with context"):
        hr.plot.conditional(normal(2), CONTEXT)


@pytest.mark.parametrize("columns", [[0], [0, 1]])
def test_conditional_frames_as_an_animation(columns, tmp_path):
    image = pytest.importorskip("PIL.Image")
    flow, path = normal(2, context=2), tmp_path / "moving.gif"
    figure = hr.plot.conditional(flow, CONTEXT[0], values=[-3.0, 0.0, 3.0], columns=columns, draws=800, path=path)
    assert len(figure.axes) == 3 + (len(columns) > 1)  # a path does not change the panels
    with image.open(path) as opened:
        assert (opened.format, opened.n_frames, opened.is_animated) == (
            "GIF",
            4,
            True,
        )  # three frames forward, then the middle frame again
        frames = []
        for i in range(opened.n_frames):
            opened.seek(i)
            frames.append(np.asarray(opened.convert("L"), np.float64) / 255.0)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(frames[one] - frames[other]).mean() > 0.005
    assert np.abs(frames[1] - frames[3]).mean() < 0.001
    with pytest.raises(ValueError, match=r"path: expected a file that ends in .gif, got 'a.mp4'"):
        hr.plot.conditional(flow, CONTEXT, path="a.mp4")


def test_history_of_every_fit(capsys):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 2))
    fit = hr.MAF(2, transforms=1, hidden=(8,)).fit(x, epochs=4, progress=False)
    axis = drawn(hr.plot.history(fit)).axes[0]
    assert axis.lines[0].get_ydata().tolist() == fit.train_loss
    assert axis.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert axis.lines[1].get_ydata().tolist() == fit.validation_loss
    assert axis.lines[2].get_xdata().tolist() == [fit.best_epoch]
    assert axis.get_title("left") == "stopped: epochs"
    axis = drawn(hr.plot.history(fit, across="cpu_seconds")).axes[0]
    assert [line.get_xdata().tolist() for line in axis.lines[:2]] == [fit.cpu_seconds] * 2
    assert axis.lines[2].get_xdata().tolist() == [fit.cpu_seconds[fit.best_epoch - 1]]
    assert axis.get_xlabel() == "CPU seconds"
    assert len(drawn(hr.plot.history([fit] * 3)).axes) == 3
    drawn(hr.plot.history(hr.training.History()))
    ascent = hr.DualAscentFlow(steps=3, refine=False)
    ascent.fit(x, progress=False)
    drawn(hr.plot.history(ascent))
    energies = hr.fit_to_density(hr.MAF(2), hr.densities.U1(), steps=5, samples=16, evaluated=0, progress=False)
    lines = drawn(hr.plot.history(energies)).axes[0].lines
    assert lines[0].get_ydata().tolist() == energies.history.free_energy
    with pytest.raises(ValueError, match="across: expected 'epochs' for what is no History"):
        hr.plot.history(energies, "cpu_seconds")
    with pytest.raises(ValueError, match="across: expected one of 'epochs', 'cpu_seconds', got 'time'"):
        hr.plot.history(fit, "time")
    with pytest.raises(TypeError, match="fit: expected a History"):
        hr.plot.history(3)


@pytest.mark.parametrize("features", [1, 2, 10])
@pytest.mark.parametrize("rows", [1, 400])
def test_latent_rows_are_drawn(features, rows):
    flow = normal(features)
    x = flow.sample(rows, seed=2)
    figure = drawn(hr.plot.latent(flow, x))
    shown = min(features, 5)
    assert len(figure.axes) == shown * (shown + 1) // 2
    if features == 2:
        z = np.clip(flow.to_latent(x)[0], -4.2, 4.2)
        assert np.allclose(figure.axes[1].collections[0].get_offsets(), z)
        radii = [np.hypot(*line.get_data())[0] for line in figure.axes[1].lines]
        assert np.allclose(radii, np.sqrt(scipy.stats.chi2.ppf([0.5, 0.9, 0.99], 2)))


def test_latent_chooses_the_farthest():
    flow = normal(10)
    x = flow.sample(500, seed=2)
    x[:, 7] *= 1.5
    names = [axis.get_xlabel() for axis in hr.plot.latent(flow, x).axes]
    assert "latent 7" in names
    with pytest.raises(TypeError, match="an ensemble, which has no latent rows"):
        hr.plot.latent(hr.Ensemble([hr.MAF(2)]), x[:, :2])


def test_an_ensemble_and_an_estimator():
    hr.plot.corner(hr.Ensemble([normal(2), normal(2)]), draws=200)
    assert texts(hr.plot.density(hr.Ensemble([normal(2)]), draws=200))[2] == "of 200 draws"
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    density = estimator(transforms=1, hidden=(4,), epochs=1, random_state=0)
    density.fit(np.random.default_rng(0).standard_normal((60, 2)))
    assert not density_of(density).columns.matter
    hr.plot.corner(density, draws=200)
    hr.plot.history(density)


def test_an_estimator_of_a_table():
    """A table with whole numbers and a constant column keeps all columns in its rows; densities are of the other
    columns, with noise.
    """
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 5, 200), np.full(200, 7), rng.integers(0, 9, 200)], axis=1)
    density = estimator(transforms=1, hidden=(4,), epochs=1, random_state=0).fit(rows)
    source = density_of(density)
    assert source.columns.used == density.table_
    assert (len(source.columns.used.columns), source.flow.features) == (3, 2)
    shown = source.rows(rows).x
    assert (np.round(shown) == rows[:, [0, 2]]).all()
    assert (shown != rows[:, [0, 2]]).all()
    figure = hr.plot.corner(density, rows, draws=500)
    assert len(figure.axes) == 6
    heights, edges, _ = figure.axes[2].patches[-1].get_data()  # the axis has samples of the constant column
    assert edges[:-1][heights > 0] <= 7 <= edges[1:][heights > 0]
    drawn(hr.plot.latent(density, rows))


@pytest.mark.parametrize("whole", [False, True])
def test_rows_that_miss_a_number_are_left_out_as_in_the_fit(whole):
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, (200, 2)).astype(float) if whole else rng.standard_normal((200, 2))
    rows[::4, 1] = np.nan
    how = {"transforms": 1, "hidden": (4,), "epochs": 1, "discrete": [0, 1] if whole else None}
    density = estimator(missing="drop", random_state=0, **how).fit(rows)
    figure = hr.plot.corner(density, rows, draws=300)
    shown = figure.axes[1].collections[0].get_offsets()
    assert len(shown) == 150
    drawn(hr.plot.latent(density, rows))
    drawn(hr.plot.density(density, rows))
    with pytest.raises(ValueError, match="expected finite numbers, got NaN or infinity in 50 of 200 rows"):
        hr.plot.corner(density.flow_, rows)


def test_a_table_with_labels_and_gaps():
    """Labels are plotted by their codes; rows and samples without a value stay in the panels of their other columns;
    text that the fit leaves out may be in any column; a density of labels is never exact.
    """
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    from sklearn_cases import estimator

    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 2))
    values[:120, 1] = np.nan
    frame = pandas.DataFrame({"kind": np.where(np.arange(400) % 3, "elm", "oak"), "a": values[:, 0], "b": values[:, 1]})
    how = {"transforms": 1, "hidden": (4,), "epochs": 1, "random_state": 0}
    frame["note"] = [f"note {i}" for i in range(400)]
    with pytest.warns(RuntimeWarning, match=r"left out: column 'note' \(text\)"):
        density = estimator(missing="model", **how).fit(frame)
    figure = hr.plot.corner(density, frame[["b", "note", "kind", "a"]], draws=2000, points=400, titles=True)
    shown = np.asarray(figure.axes[1].collections[0].get_offsets())
    assert (shown[:, 0] == (np.arange(400) % 3 == 0)).all()
    assert (shown[:, 1] == values[:, 0]).all()
    columns = values[:, 1], density.as_table().flow.sample(2000, seed=0)[:, 2]
    for patch, column in zip(figure.axes[5].patches, columns, strict=True):
        heights, edges, _ = patch.get_data()
        inside = (column >= edges[0]) & (column <= edges[-1])
        assert 0.1 < inside.mean() < 0.9
        assert (heights * np.diff(edges)).sum() == pytest.approx(inside.mean())
    drawn(hr.plot.density(density, frame, draws=2000))
    with pytest.raises(TypeError, match="x: expected an array of float32 or float64"):
        hr.plot.corner(density, "rows")
    pair = estimator(**how).fit(frame[["kind", "a"]])
    kinds = texts(drawn(hr.plot.density(pair, frame[["kind", "a"]], draws=2000)))[2::3]
    assert kinds[:3] == ["of 2,000 draws"] * 3


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_with_columns_in_another_order(library):
    """Columns are found by their names, so that pictures are those for the order of the fit."""
    make = pytest.importorskip(library).DataFrame
    normal_rows = np.random.default_rng(3).standard_normal((400, 2))
    x = {"far": normal_rows[:, 0] + 50.0, "near": normal_rows[:, 1], "unit": np.full(400, 2.5)}
    choice = hr.auto(make(x), 0.2, families=("maf",), progress=False)
    other = make({name: x[name] for name in ("unit", "near", "far")})
    for draw, first in ((hr.plot.corner, choice), (hr.plot.corner, make(x)), (hr.plot.density, choice)):
        right, found = draw(first, make(x)), draw(first, other)
        for one, two in zip(right.axes, found.axes, strict=True):
            assert (one.get_xlabel(), one.get_xlim(), one.get_ylim()) == (
                two.get_xlabel(), two.get_xlim(), two.get_ylim()
            )  # fmt: skip


def test_levels_hold_shares():
    density = np.array([4.0, 3.0, 2.0, 1.0])
    assert planes.levels_of(density, [0.4, 0.7]) == [3.0]  # no contour is drawn at 4, the largest value
    assert planes.levels_of(np.zeros(3), [0.5]) == []
    assert planes.smoothed(np.eye(9), 1.0).sum() == pytest.approx(9.0)
    assert label("a$b") == r"a\$b"


@pytest.mark.costly
def test_the_users_style_and_pyplot_are_left_alone():
    code = (
        "import headrace as hr, sys; import headrace.plot; assert 'matplotlib' not in sys.modules\n"
        "import matplotlib as mpl\n"
        "def now(): return {key: mpl.rcParams[key] for key in mpl.rcParams if key != 'backend'}\n"
        "mpl.rcParams['axes.facecolor'] = 'red'; before = now()\n"
        "figure = hr.plot.density(hr.MAF(1), draws=50)\n"
        "assert now() == before and 'matplotlib.pyplot' not in sys.modules\n"
        "assert figure.axes[0].get_facecolor() == (1.0, 1.0, 1.0, 1.0)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setattr("headrace.plot._source.can_draw", lambda: False)
    with pytest.raises(ImportError, match=r"pip install \"\.\[plot\]\""):
        hr.plot.density(hr.MAF(1))


def test_corner_with_titles_truths_and_ranges():
    flow = normal(3)
    figure = drawn(
        hr.plot.corner(
            flow, draws=20_000, columns=[2, 0], titles=True, truths=[0.5, None, 3.0], range=[None, None, (0, 9)]
        )
    )
    first, pair, second = figure.axes  # panels: column 2, both columns, column 0
    assert first.get_xlim() == (0.0, 9.0)
    assert pair.get_xlim() == (0.0, 9.0)
    assert first.lines[0].get_xdata()[0] == 3.0
    assert second.lines[0].get_xdata()[0] == 0.5
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in pair.lines[2:]} == {(3.0, 0.5)}
    middle, up, down = map(float, re.fullmatch(r"\$(.*)\^\{\+(.*)\}_\{-(.*)\}\$", first.get_title("left")).groups())
    assert middle == pytest.approx(4.0, abs=0.1)  # the median of 20,000 samples of deviation 3
    assert (up, down) == (pytest.approx(3.0, abs=0.12), pytest.approx(3.0, abs=0.12))
    by_name = hr.plot.corner(flow, names=["a", "b", "c"], truths={"b": 2.0}, range={"b": (1.0, 3.0)}, draws=200)
    assert [len(axis.lines) for axis in by_name.axes] == [0, 1, 1, 0, 1, 0]
    assert by_name.axes[2].get_xlim() == (1.0, 3.0)
    low, high = hr.plot.corner(flow, draws=20_000, columns=[0], range=0.5).axes[0].get_xlim()
    assert -0.8 < low < -0.6745 < 0.6745 < high < 0.8  # the range has the quartiles of a standard normal, and a margin


def test_corner_in_a_figure_of_the_caller():
    from matplotlib.figure import Figure

    own = Figure(figsize=(5, 4))
    assert hr.plot.corner(normal(2), draws=200, fig=own) is own
    assert own.get_size_inches().tolist() == [5, 4]
    with pytest.raises(ValueError, match=r"fig: expected an empty figure, got one with 3 axes; call fig\.clear\(\)"):
        hr.plot.corner(normal(2), draws=200, fig=own)
    with pytest.raises(TypeError, match="fig: expected a matplotlib Figure, got str"):
        hr.plot.corner(normal(2), fig="own")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"truths": [1.0]}, ValueError, "truths: expected 2 values, got 1"),
        ({"truths": {"z": 1.0}}, ValueError, "truths: expected names among 'column 0', 'column 1', got 'z'"),
        ({"truths": ["a", 1.0]}, TypeError, r"truths\[0\]: expected a number or None, got str 'a'"),
        ({"range": 1.5}, ValueError, "range: expected a number above 0"),
        ({"range": [(2.0, 1.0), None]}, ValueError, r"range\[0\]: expected finite numbers, the first below the second"),
        ({"range": [3.0, None]}, TypeError, r"range\[0\]: expected a pair \(low, high\) or None, got 3.0"),
    ],
)
def test_corner_refuses(given, error, message):
    with pytest.raises(error, match=message):
        hr.plot.corner(normal(2), draws=100, **given)


@pytest.mark.parametrize("values", [np.zeros(50), np.linspace(0, 1e-12, 50), np.linspace(-3e9, 5e9, 50)])
def test_summaries_of_any_size(values):
    figure = hr.plot.corner(values[:, None], titles=True)
    drawn(figure)  # matplotlib can read the title
    assert len(figure.axes[0].get_title("left")) < 50


def test_slices_end_at_the_ends_of_narrow_conditionals():
    rho, sd = 0.9999, np.sqrt(1 - 0.9999**2)  # a slice is 70 times narrower than its marginal
    flow = hr.Flow(
        [hr.transforms.Linear.from_matrix(np.linalg.cholesky([[1.0, rho], [rho, 1.0]]), dtype="float64")],
        dtype="float64",
    )
    for at in (0.5, 30.0):  # 30 is far outside of the samples
        axis = hr.plot.density(flow, columns=[1], at=[at, 0.0], draws=2000).axes[0]
        low, high = axis.get_xlim()
        assert low < rho * at - 3 * sd
        assert high > rho * at + 3 * sd
        assert high - low < 20 * sd
        x, value = axis.lines[0].get_data()
        assert np.allclose(value, scipy.stats.norm.pdf(x, rho * at, sd), atol=0.02 / sd)
