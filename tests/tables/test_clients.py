"""Original tables through each client: types of columns, their treatment, and messages."""

import numpy as np
import pytest

import headrace as hr
from table_cases import CLIENTS, RATE, columns, frame

pytestmark = pytest.mark.programs
EACH = pytest.mark.parametrize("client", CLIENTS)


@pytest.fixture(scope="module", params=CLIENTS)
def fitted(request, tmp_path_factory):
    return CLIENTS[request.param](columns(), tmp_path_factory.mktemp("clients"))


def test_kinds_are_known_by_dtype_without_a_warning(fitted):
    assert fitted.kinds == ["integer", "boolean", "float", "float"]
    assert fitted.widths == [1.0, 1.0, 0.0, 0.0]
    assert fitted.density.columns.used.columns[3].constant == 2.5
    assert fitted.density.flow.features == 3
    assert fitted.density.columns.used_names == ("count", "yes", "size", "unit")
    constant = ["unit' has one number in all rows (2.5), and is kept aside"] * (fitted.client == "command line")
    assert [line.partition("column '")[2] for line in fitted.told] == constant


def test_samples_are_rows_of_the_table(fitted):
    drawn = fitted.sample(3000)
    assert drawn.shape == (3000, 4)
    assert (drawn[:, :2] == np.round(drawn[:, :2])).all()
    assert set(np.unique(drawn[:, 1])) == {0.0, 1.0}
    assert (drawn[:, 3] == 2.5).all()
    assert abs(drawn[:, 0].mean() - RATE) < 0.6


def test_scores_are_those_of_the_density_of_the_table(fitted):
    """Scores are the log densities of untreated rows, to the last bit in the dtype of the flow."""
    table = columns(60, seed=3)
    scores, x = fitted.scores(table), frame(table)
    want = fitted.density.log_prob(x)
    assert (scores.astype(want.dtype) == want).all()
    assert np.isfinite(want).all()
    rows = x.to_numpy(float)
    assert (fitted.density.log_prob(rows) == want).all()
    with pytest.raises(ValueError, match="x: expected rows of 4 columns"):
        fitted.density.log_prob(rows[:, :3])
    with pytest.raises(ValueError, match="x: expected the columns of the fit in their order"):
        fitted.density.log_prob(x[["yes", "count", "size", "unit"]])


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("unit", 2.0, r"1 of 5 rows differ from 2.5, .* column 'unit'"),
        ("count", 3.5, "1 of 5 rows are not whole in"),
    ],
)
def test_impossible_rows_have_no_density(fitted, column, value, words):
    other = columns(5, seed=2)
    other[column] = np.where(np.arange(5) == 3, value, other[column])
    with pytest.warns(RuntimeWarning, match=words):
        scores = fitted.scores(other)
    assert (scores == -np.inf).tolist() == [False, False, False, True, False]


def test_a_diagnosis_and_pictures_take_the_table(fitted):
    pytest.importorskip("matplotlib")
    others = frame(columns(300, seed=4))
    found = hr.diagnose(fitted.density, others, training=frame(columns()), progress=False)
    assert (found.rows, found.names, found.copies) == (300, ("count", "yes", "size"), 0)
    # Training rows are recognised although a diagnosis adds different noise.
    with pytest.warns(RuntimeWarning, match="300 of 300 are training rows"):
        again = hr.diagnose(fitted.density, others, training=others, names=["a", "b", "c", "d"], progress=False)
    assert again.names == ("a", "b", "c")
    figure = hr.plot.corner(fitted.density, others, draws=300)
    assert [axis.get_xlabel() for axis in figure.axes][-4:] == ["count", "yes", "size", "unit"]


def test_files_keep_the_table(fitted, tmp_path):
    path = tmp_path / "f.safetensors"
    fitted.density.save(path)
    with pytest.warns(
        FutureWarning, match=r"gives the density of the rows of its table, .* is its \.flow; .* ends with 0\.7"
    ):
        again = hr.load(path)
    assert isinstance(again, hr.TableDensity)
    assert again.columns.used == fitted.density.columns.used
    assert (again.log_prob(frame(columns(50))) == fitted.density.log_prob(frame(columns(50)))).all()
    assert (again.sample(30, seed=4) == fitted.density.sample(30, seed=4)).all()
    assert hr.Flow.load(path).features == again.flow.features == 3
    assert hr.TableDensity.load(path).columns.used == again.columns.used  # `TableDensity.load` does not warn
    hr.NSF(2).save(path.with_name("flow"))
    with pytest.raises(hr.FileFormatError, match=r"flow: expected TableDensity, got NSF; use NSF\.load or headrace"):
        hr.TableDensity.load(path.with_name("flow"))
    with pytest.warns(FutureWarning, match="data: gives the density"):
        assert hr.from_bytes(path.read_bytes()).columns.used == again.columns.used
    with pytest.raises(AttributeError, match=r"got 'to_latent'; its flow of treated columns has it, \.flow\.to_latent"):
        again.to_latent  # noqa: B018
    assert list(again.sample(5, seed=0, as_frame=True).dtypes.astype(str)) == ["int64", "bool", "float64", "float64"]


@EACH
def test_missing_values_are_counted_or_dropped(client, tmp_path):
    table = columns()
    table = {**table, "count": table["count"].astype(float), "size": table["size"].copy()}
    table["count"][[1, 2]] = table["size"][[2, 5]] = np.nan
    counts = r"NaN in 3 of 700 rows \(column 'count' 2, column 'size' 2\); missing"
    with pytest.raises(ValueError, match=counts):
        CLIENTS[client](table, tmp_path)
    fitted = CLIENTS[client](table, tmp_path, missing="drop", discrete=["count"])
    assert fitted.kinds[0] == "integer"
    assert np.flatnonzero(np.isnan(fitted.scores(table))).tolist() == [1, 2, 5]
    assert hr.diagnose(fitted.density, frame(table), progress=False).rows == 697
    with pytest.raises(ValueError, match=r"rows that miss no number, got none of 700 \(column 'gap' 700"):
        CLIENTS[client]({**table, "gap": np.full(700, np.nan)}, tmp_path, missing="drop")


REPEATS = "values repeat in column 'a', column 'd'"


@EACH
@pytest.mark.parametrize("spread", [None, "none", {"a": 0.5, "d": 0.25}])
def test_values_that_repeat_are_spread(client, spread, tmp_path):
    rng = np.random.default_rng(0)
    table = {"a": rng.standard_normal(600).round(1), "b": rng.standard_normal(600)}
    table["d"] = np.round(table["a"] - table["b"], 1)
    fitted = CLIENTS[client](table, tmp_path, **({} if spread is None else {"spread": spread}))
    wanted = {None: [0.1, 0.0, 0.1], "none": [0.0] * 3}.get(spread if isinstance(spread, (str, type(None))) else 0)
    assert fitted.widths == pytest.approx([0.5, 0.0, 0.25] if wanted is None else wanted)
    if spread is not None:
        assert fitted.told == []
        return
    (line,) = fitted.told
    keep = "--spread none" if client == "command line" else "spread='none'"
    assert line.endswith(f"{REPEATS}: spread by noise as wide as their gaps, {keep} keeps them")
    drawn = fitted.sample(300)
    np.testing.assert_allclose(drawn[:, [0, 2]], drawn[:, [0, 2]].round(1), atol=1e-6)
    assert len(np.unique(drawn[:, 1])) == 300
    assert np.isfinite(fitted.scores({name: column[:20] for name, column in table.items()})).all()


@EACH
def test_a_frequent_value_beside_a_continuous_rest_has_a_warning(client, tmp_path):
    rng = np.random.default_rng(0)
    rain = np.where(np.arange(600) % 5 < 2, 0.0, rng.lognormal(size=600))
    fitted = CLIENTS[client]({"rain": rain, "wind": rng.standard_normal(600)}, tmp_path)
    (line,) = (line for line in fitted.told if "rain" in line)
    expected = "one value is frequent in column 'rain' (0 in 240 of 600 rows): a density spikes there; "
    assert expected + "headrace.sklearn.FlowDensity" in line


@EACH
def test_identifiers_and_text_are_left_out_by_name(client, tmp_path):
    rng = np.random.default_rng(1)
    own = {"star_id": rng.permutation(700) + 5000, "class": np.array(["a", "b"])[np.arange(700) % 2]}
    table = {**own, **columns(), "row": np.arange(700)}
    fitted = CLIENTS[client](table, tmp_path)
    assert fitted.density.columns.used_names == ("count", "yes", "size", "unit")
    line = next(line for line in fitted.told if "left out" in line)
    for words in ("'class' (text)", "'star_id' (another whole number in each row)", "'row' (0, 1, 2, ...)"):
        assert f"column {words}" in line
    assert line.count("\n") == 0
    assert fitted.sample(5).shape == (5, 4)
    some = {name: column[:50] for name, column in table.items()}
    used = {name: some[name] for name in ("count", "yes", "size", "unit")}
    assert (fitted.scores(some) == fitted.scores(used)).all()
    assert hr.diagnose(fitted.density, frame(used), progress=False).rows == 50
    if client != "command line":
        assert (fitted.density.log_prob(fitted.sample(9)) > -np.inf).all()
        kept = CLIENTS[client](table, tmp_path, discrete=["count", "yes", "star_id"])
        assert kept.density.columns.used_names == ("star_id", "count", "yes", "size", "unit")


@EACH
def test_bounds_and_noise_agree(client, tmp_path):
    """Whole numbers may be bounds, and neither noise nor samples are beyond them."""
    rng = np.random.default_rng(0)
    table = {"count": 10 * rng.integers(1, 4, 600), "size": np.round(np.abs(rng.standard_normal(600)), 1) + 0.05}
    fit = CLIENTS[client]
    fitted = fit(table, tmp_path, spread={"size": 0.2}, bounds={"count": (8, 33), "size": (0, None)})
    # Bounds are the outer ends of the cells of 10 and of 30.
    assert fitted.density.flow.transforms[-1].bounds == ((5.0, 35.0), (0.0, None))
    drawn = fitted.sample(3000)
    assert set(np.unique(drawn[:, 0])) == {10.0, 20.0, 30.0}
    assert drawn[:, 1].min() > 0.0
    fit(table, tmp_path, bounds={"count": (10, 30)})  # values may be on the bounds
    with pytest.raises(ValueError, match=r"column 'count': expected whole numbers from None to 25.0, got 30"):
        fit(table, tmp_path, bounds={"count": (None, 25)})
    with pytest.raises(ValueError, match=r"expected numbers between their bounds, .*column 'size'"):
        fit(table, tmp_path, spread="none", bounds={"size": (None, 1.0)})


@EACH
def test_periodic_whole_numbers_wrap_around_in_each_client(client, tmp_path):
    """In the hours of a night 23 is beside 0, and no sample has 24."""
    rng = np.random.default_rng(0)
    hour = (np.round(rng.normal(0.0, 1.5, 1000)) % 24).astype(int)
    table = {"hour": hour, "size": rng.standard_normal(1000)}
    fitted = CLIENTS[client](table, tmp_path, periodic={"hour": (0, 24)})
    assert fitted.density.columns.used.columns[0].period == (0.0, 24.0)
    drawn = fitted.sample(2000)[:, 0]
    assert (drawn == np.round(drawn)).all()
    assert (drawn.min(), drawn.max()) == (0.0, 23.0)
    with pytest.raises(ValueError, match="column 'hour': expected a whole period"):
        CLIENTS[client](table, tmp_path, periodic={"hour": (0, 23.5)})


REFUSED = {
    "missing": ({"missing": "ignore"}, "missing: expected "),
    "no such column": ({"discrete": ["no"]}, r"discrete: expected a column of .*, got 'no'"),
    "fractions": ({"discrete": ["size"]}, "column 'size': expected whole numbers, as discrete says, got"),
    "a width of whole numbers": (
        {"spread": {"count": 0.1}},
        "spread: expected columns that are not whole",
    ),
}


@EACH
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused(client, case, tmp_path, capsys):
    how, message = REFUSED[case]
    if client == "command line" and case == "missing":
        pytest.skip("its parser refuses others than two words")
    with pytest.raises(ValueError, match=message):
        CLIENTS[client](columns(100), tmp_path, **how)


@EACH
def test_dates_are_refused_and_infinite_numbers_named(client, tmp_path):
    table = {**columns(60), "day": np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]").astype("datetime64[s]")}
    with pytest.raises((TypeError, ValueError), match=r"numbers.* column 'day'|column 'day': expected numbers"):
        CLIENTS[client](table, tmp_path)
    size = np.where(np.arange(60) == 7, np.inf, columns(60)["size"])
    with pytest.raises(ValueError, match=r"infinity"):
        CLIENTS[client]({**columns(60), "size": size}, tmp_path)
