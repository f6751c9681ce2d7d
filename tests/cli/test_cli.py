"""The outputs and files of each command of the command line."""

import dataclasses
import inspect
import json
import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
from cli_cases import (
    NAMES,
    SHORT,
    small_flow,
    table,
    write_csv,
)
from headrace import files, training
from headrace._base.keywords import table_of
from headrace._base.moved import ENDS
from headrace._cli import fitting
from headrace._cli import flow_options as _offered
from headrace._cli.options import OLD
from headrace._flow.fit_arguments import PATIENCE
from headrace.rows import _files as _tables

pytestmark = pytest.mark.programs

# --- info -----------------------------------------------------------------------------------------------------------


def test_info(run, result):
    facts = result("info")
    assert facts["version"] == hr.__version__
    assert facts["isa"] in facts["isas"]
    assert json.loads(run("--quiet", "--json", "info")[1])["version"] == hr.__version__
    code, out, err = run("info")
    assert (code, err) == (0, "")
    assert hr.__version__ in out
    assert hr.info()["cuda"] in out
    assert "was not built" not in out or facts["isa_not_built"]


def test_info_names_an_instruction_set_that_was_not_built(run, monkeypatch):
    monkeypatch.setattr(hr, "info", lambda info=hr.info: {**info(), "isa_not_built": "v3"})
    assert "this processor has v3, which was not built (HEADRACE_SETS=ALL pip install .)" in run("info")[1]


def test_threads(run, result):
    for threads in (3, 1):
        assert result("info", "--threads", threads)["threads"] == threads
        assert hr.get_num_threads() == threads


# --- fit ------------------------------------------------------------------------------------------------------------


def test_fit_is_the_fit_of_python(folder, result):
    """`headrace fit` gives the flow of `Flow.fit`, bit for bit, with its held-out rows as `validation=`."""
    x = table()
    write_csv("t.csv", x, NAMES)
    report = result("fit", "t.csv", "-o", "f.safetensors", "--seed", 5, "--validation", 0.25, *SHORT)
    order = np.random.default_rng(5).permutation(200)
    train, held_out = x[np.sort(order[50:])], x[np.sort(order[:50])]
    flow = hr.NSF(3, transforms=2, hidden=(8,), seed=5)
    history = flow.fit(train, validation=(held_out,), epochs=3, seed=5, progress=False)
    loaded = hr.load("f.safetensors")
    assert_array_equal(loaded.parameters, flow.parameters)
    assert_array_equal(loaded.log_prob(x), flow.log_prob(x))

    assert (report["training_rows"], report["held_out_rows"], report["features"]) == (150, 50, 3)
    assert report["log_likelihood"] == pytest.approx(flow.log_prob(held_out).mean(dtype="f8"), rel=1e-12)
    # Cross-validation chooses one of nine shares of the identity, which is mixed into the correlations.
    centred, std = held_out - train.mean(0), train.std(0)
    found = []
    for share in (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0):
        correlation = (1 - share) * np.corrcoef(train, rowvar=False) + share * np.eye(3)
        covariance = correlation * np.outer(std, std)
        distance = np.einsum("ij,ij->i", centred, np.linalg.solve(covariance, centred.T).T)
        found.append(-0.5 * (distance.mean() + np.linalg.slogdet(2 * np.pi * covariance)[1]))
    assert np.abs(np.array(found) - report["gaussian_log_likelihood"]).min() < 1e-9
    assert report["epochs"] == 3
    assert (report["stopped"], report["still_falls"]) == ("epochs", history.still_falls)
    assert report["file"] == "f.safetensors"


def test_the_line_of_a_fit_names_an_end_before_the_loss_is_at_rest():
    history = hr.training.History(train_loss=[1.0, 0.5], validation_loss=[1.1, 0.6], best_epoch=2, seconds=[1.0, 2.0])
    assert "gained" not in fitting._work(fitting._outcome(history))
    history.still_falls = True
    line = fitting._work(fitting._outcome(history))
    assert line.endswith("the best was 2, and held-out rows still gained: more epochs may gain more")


def test_fit_prints_both_likelihoods_and_shows_progress_on_the_standard_error(folder, run, monkeypatch):
    monkeypatch.setattr("headrace._base.progress.watched", lambda: True)
    write_csv("t.csv", table())
    code, out, err = run("fit", "t.csv", "-o", "f.safetensors", *SHORT[:-1])
    assert code == 0
    assert "Gaussian" in out
    assert "20 rows held out" in out
    assert "3/3" in err
    code, out, err = run("fit", "t.csv", "-o", "f.safetensors", "--validation", 0, *SHORT)
    assert (code, err) == (0, "")
    assert "200 rows to fit" in out


def test_fit_with_context_and_weights(folder, result):
    """Rows of weight 0 may have any values; a weight of 2 counts in a Gaussian like a repeated row."""
    x = table()
    weights = cases.rng("weights").integers(0, 3, 200)
    for name in ("a.csv", "b.csv"):
        write_csv(name, np.column_stack([weights, x]), ["w", *NAMES])
        x[weights == 0] = 99.0
    chosen = ("--weights", "w", "--context", "age", "--validation", 0, *SHORT)
    one, two = (result("fit", name, "-o", f"{name}.safetensors", *chosen) for name in ("a.csv", "b.csv"))
    assert one.pop("file") != two.pop("file")
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    flow = hr.load("a.csv.safetensors")
    assert (flow.features, flow.context) == (2, 1)
    assert_array_equal(flow.parameters, hr.load("b.csv.safetensors").parameters)
    assert one["training_rows"] == np.count_nonzero(weights)
    np.save("twice.npy", np.repeat(x, weights, axis=0))
    twice = result("fit", "twice.npy", "-o", "t.safetensors", "--context", 2, "--validation", 0, *SHORT)
    # The folds of the cross-validation of a Gaussian differ between weighted and repeated rows.
    assert one["gaussian_log_likelihood"] == pytest.approx(twice["gaussian_log_likelihood"], abs=0.05)


@pytest.mark.parametrize("name", _offered.FLOWS)
def test_every_flow(folder, result, name):
    np.save("t.npy", table())
    kind = _offered.FLOWS[name]
    given = {
        "transforms": ("--transforms", 3),
        "hidden": ("--hidden", "16,8"),
        "context": ("--context", 2),
        "epochs": ("--epochs", 1),
        "steps": ("--set", "steps=3"),
    }
    takes = {*kind.takes, *["context"] * kind.takes_context}
    options = [text for option in given if option in takes for text in given[option]]
    result("fit", "t.npy", "-o", "f.safetensors", "--flow", name, "--dtype", "float64", *options)
    flow = hr.load("f.safetensors")
    assert type(flow) is kind.make
    assert flow.dtype == np.float64
    if "transforms" in kind.takes:
        assert len(flow) == 3 + 1  # three transforms and a Standardize
    assert result("sample", "f.safetensors", "-n", 2, "-o", "s.npy", *(["--context", 2.0] * bool(flow.context)))


@pytest.mark.parametrize("matmul", ["bf16", "bf16x3", "bf16x6", "bf16_tiles"])
def test_products_in_bf16(matmul, folder, run, result):
    """A file keeps the setting `matmul`, and scores use it."""
    np.save("t.npy", table())
    result("fit", "t.npy", "-o", "f.safetensors", "--flow", "MAF", "--set", f"matmul={matmul}", *SHORT)
    flow = hr.load("f.safetensors")
    assert flow.matmul == matmul
    report = result("score", "f.safetensors", "t.npy", "-o", "s.npy")
    assert report["rows"] == 200
    cases.assert_same_bits(np.load("s.npy").ravel(), flow.log_prob(table()))
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--set", "matmul=fp8", *SHORT)
    assert code != 0
    assert "matmul: expected 'exact', 'bf16', 'bf16x3'" in err
    assert "or 'bf16x6_tiles' on the CPU, got 'fp8'" in err


def test_a_dual_ascent(folder, run, result):
    """The report of a dual ascent counts steps in addition to epochs; an ascent does not take options of networks."""
    np.save("t.npy", table())
    report = result("fit", "t.npy", "-o", "f.safetensors", "--flow", "DualAscentFlow", "--set", "steps=2", "--seed", 5)
    flow = hr.load("f.safetensors")
    assert type(flow) is hr.ascent.AscentFlow
    assert len(flow) == report["best_step"] <= report["steps"] == 2
    assert report["log_likelihood"] > report["gaussian_log_likelihood"] - 1.0
    code, out, _ = run("fit", "t.npy", "-o", "f.safetensors", "--flow", "DualAscentFlow", "--set", "steps=1", "--quiet")
    assert code == 0
    assert "1 step, the best was" in out
    for option in (("--epochs", 1), ("--hidden", 8), ("--context", 2), ("--transforms", 2)):
        code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--flow", "DualAscentFlow", *option)
        assert code == 2
        assert f"argument {option[0]}: --flow DualAscentFlow does not take it" in err


def test_options_of_fit_arrive(folder, result, monkeypatch):
    np.save("t.npy", table())
    given, original = {}, training.fit

    def fit(flow, x, context, arguments):
        given.update(vars(arguments))
        return original(flow, x, context, arguments)

    monkeypatch.setattr(training, "fit", fit)
    options = (
        "--epochs",
        2,
        "--batch-size",
        50,
        "--learning-rate",
        0.25,
        "--set",
        "patience=7",
        "--set",
        "schedule=plateau",
        "--seed",
        3,
    )
    result("fit", "t.npy", "-o", "f.safetensors", *options)
    wanted = {"epochs": 2, "batch_size": 50, "learning_rate": 0.25, "patience": 7, "schedule": "plateau", "seed": 3}
    assert {name: given[name] for name in wanted} == wanted
    result("fit", "t.npy", "-o", "f.safetensors", "--epochs", 0)
    assert given["batch_size"] is None
    assert given["patience"] == PATIENCE


def test_an_argument_that_a_flow_does_not_take(folder, run):
    np.save("t.npy", table())
    for flow, option in (("DualAscentFlow", "--epochs"), ("DualAscentFlow", "--hidden")):
        code, out, err = run("fit", "t.npy", "-o", "f.safetensors", "--flow", flow, option, 8)
        assert (code, out) == (2, "")
        assert f"argument {option}: --flow {flow} does not take it" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("slope=8", "slope: expected a keyword of --flow PlanarFlow (epochs, batch_size, "),
        ("transform=8", "got 'transform'; did you mean transforms?"),
        ("negative_slope=2", "negative_slope: expected a number above 0 and below 1, got 2.0"),
        ("negative-slope=a", "negative_slope: expected a number, got 'a'"),
        ("patience=1.5", "patience: expected none or an integer, got '1.5'"),
        ("schedule=cosines", "schedule: expected one of 'cosine', 'plateau', 'constant', 'auto', got 'cosines'"),
        ("patience", "expected NAME=VALUE, got 'patience'"),
        ("hidden=8", "expected an argument once, got 'hidden=8'"),
    ],
)
def test_wrong_values_of_set_are_refused_by_name(folder, run, change, message):
    """Errors of `--set` are raised before the table is read."""
    outcome = run("fit", "none.npy", "-o", "f", "--flow", "PlanarFlow", "--hidden", "8", "--set", change)
    assert outcome[:2] == (2, "")
    assert outcome[2].startswith("headrace fit: error: argument --set: ")
    assert message in outcome[2]


OLD_CALLS = {
    "a setting": (["--kinks", 2, "--kinks=2"], ["--set", "kinks=2"], "--set kinks=2 for --kinks 2"),
    "another name": (["--seconds", 2], ["--time-budget", "2"], "--time-budget for --seconds:"),
    "a flag": (["--no-refine"], ["--set", "refine=false"], "--set refine=false for --no-refine"),
    "a value": (
        ["--flow", "dual-ascent"],
        ["--flow", "DualAscentFlow"],
        "--flow DualAscentFlow for --flow dual-ascent",
    ),
}


@pytest.mark.parametrize("case", OLD_CALLS)
def test_old_names_are_the_new_ones_with_a_warning(run, case, monkeypatch):
    given = []
    monkeypatch.setattr("headrace._cli.signals.fit", lambda arguments: given.append(vars(arguments)) or 0)
    old, new, warning = OLD_CALLS[case]
    assert run("fit", "t.npy", "-o", "f", *new) == (0, "", "")
    code, out, err = run("fit", "t.npy", "-o", "f", *old[:2])
    assert (code, out) == (0, "")
    assert err.startswith("headrace: warning: ")
    assert err.endswith(f"old names end with {ENDS}\n")
    assert err.count("\n") == 1
    assert warning in err
    if old[2:]:
        assert run("fit", "t.npy", "-o", "f", *old[2:])[2] == err
    assert {**given[1], "usage": 0, "refuse": 0} == {**given[0], "usage": 0, "refuse": 0}


def test_each_old_option_of_a_fit_has_a_successor():
    takes = {name for kind in (_offered.FLOWS | _offered.SIGNALS).values() for name in kind.takes}
    for new in OLD["fit"].values():
        if isinstance(new, str) and new.startswith("--set="):
            assert new.split("=")[1] in takes
    assert {*OLD["fit"]["--flow"].values()} == {*_offered.FLOWS, *_offered.SIGNALS}


@pytest.mark.parametrize("name", _offered.FLOWS)
def test_every_argument_of_a_flow_is_an_option(folder, run, name, monkeypatch):
    """Values that differ from the defaults, of all settings at once, reach the constructor of the flow."""
    np.save("t.npy", table())
    kind, given = _offered.FLOWS[name], {}
    values = {
        "transforms": 3, "hidden": (5, 4), "activation": "tanh", "map": "additive", "scale": "exp", "slope": 0.01,
        "coupling": True, "bins": 5, "bound": 3.5, "nonlinearity": "leaky_relu", "negative_slope": 0.5,
        "residual": True, "link": "random", "dropout": 0.25, "last_activation": "sigmoid", "matmul": "bf16",
        "base": "uniform",
    }  # fmt: skip
    if kind.model:
        values = {"precision": 2.0, "steps": 2, "map": "kink", "rule": "gradient", "kinks": 2, "neighbours": 500.0,
                  "directions": None, "rotations": "blocks", "rate": 0.2, "refine": False, "jitter": 0.05,
                  "bandwidth": None, "bins": None, "copies": None, "patience": 3}  # fmt: skip
    options = []
    for key in kind.settings:
        if (value := values[key]) is not None:
            options += ["--set", f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"]

    class Stopped(RuntimeError):
        pass

    def constructor(*_, **arguments):
        given.update(arguments)
        raise Stopped("made")

    taken = kind.model or kind.make
    constructor.__signature__, constructor._table = inspect.signature(taken), table_of(taken)
    of_tables = {"features", "context", "bounds", "periodic", "seed", "rng", "dtype"}
    assert kind.settings.keys() == constructor.__signature__.parameters.keys() - of_tables
    made = {"model": constructor} if kind.model else {"make": constructor}
    monkeypatch.setitem(_offered.FLOWS, name, dataclasses.replace(kind, **made))
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--flow", name, *options)
    assert (code, err) == (1, "headrace: error: made\n")
    wanted = {key: values[key] for key in kind.settings if values[key] is not None}
    assert given == {**wanted, "seed": 0, "dtype": "float32"}


def test_the_same_seed_gives_the_same_file(folder, result):
    np.save("t.npy", table())
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        result("fit", "t.npy", "-o", name, "--seed", seed, *SHORT)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    assert (folder / "a").read_bytes() != (folder / "c").read_bytes()


def test_one_row_and_one_column(folder, run):
    np.save("t.npy", np.ones((1, 1)))
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", *SHORT, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["training_rows"], report["held_out_rows"]) == (1, 0)
    assert report["gaussian_log_likelihood"] is None
    kept, shifted = err.splitlines()  # both warnings are about the constant column
    assert kept == "headrace: warning: t.npy: column 0 has one number in all rows (1), and is kept aside"
    assert "column 0 is constant in the training part" in shifted


def test_constant_columns_are_named(folder, run):
    x = table()
    x[:, 1] = 3.0
    write_csv("t.csv", x, NAMES)
    _, _, err = run("fit", "t.csv", "-o", "f.safetensors", *SHORT)
    text = "in all rows (3), and {} kept aside\n"
    assert err == "headrace: warning: t.csv: column 'log_radius' has one number " + text.format("is")
    x[:, 2] = 0.1
    write_csv("t.csv", x, NAMES)
    _, _, err = run("fit", "t.csv", "-o", "f.safetensors", *SHORT)
    assert err == "headrace: warning: t.csv: column 'log_radius' and 1 more have one number " + text.format("are")


def test_rows_in_a_plane_have_no_gaussian(folder, run):
    x = table()
    np.save("t.npy", np.column_stack([x[:, :2], 2.0 * x[:, 1]]))
    code, out, _ = run("fit", "t.npy", "-o", "f.safetensors", *SHORT)
    assert code == 0
    assert "Gaussian nan" in out


def test_a_failed_fit_saves_nothing(folder, run):
    np.save("t.npy", table())
    options = ("--learning-rate", 1e30, "--validation", 0, "--epochs", 5, "--batch-size", 10, "--quiet")
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", *options)
    assert (code, out) == (1, "")
    assert "headrace: error: the fit went wrong" in err
    assert "headrace: warning: fit: the loss became" in err
    assert not os.path.exists("f.safetensors")


def test_the_warning_of_epochs_below_a_gaussian_names_the_option(folder, run):
    x = cases.rng("below a Gaussian").standard_normal((2000, 4)) @ np.linalg.cholesky(0.1 * np.eye(4) + 0.9).T
    np.save("close.npy", x)
    code, _, err = run("fit", "close.npy", "-o", "f.safetensors", "--flow", "MAF", "--epochs", 1, "--quiet")
    assert code == 0
    assert "headrace: warning: fit: held-out rows prefer a Gaussian: " in err
    assert "leave out --epochs, so that" in err


# --- names of columns -----------------------------------------------------------------------------------------------


def test_columns_are_remembered_by_name(folder, run, result):
    x = table()
    write_csv("t.csv", x, NAMES)
    result("fit", "t.csv", "-o", "f.safetensors", "--context", "age", *SHORT)
    flow = hr.load("f.safetensors")
    with open("other.csv", "w") as file:
        file.write("name,log_radius,age,mass\n")
        file.writelines(f"star,{b:.17g},{c:.17g},{a:.17g}\n" for a, b, c in x)
    result("score", "f.safetensors", "other.csv", "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), flow.log_prob(x[:, :2], x[:, 2:]))
    result("score", "f.safetensors", "other.csv", "-o", "s.npy", "--columns", "mass,1", "--context", "2")
    assert_array_equal(np.load("s.npy"), flow.log_prob(x[:, :2], x[:, 2:]))
    np.save("t.npy", x)  # indices choose columns of a table without names
    result("score", "f.safetensors", "t.npy", "-o", "s.npy", "--context", "2")
    assert_array_equal(np.load("s.npy"), flow.log_prob(x[:, :2], x[:, 2:]))

    code, out, _ = run("sample", "f.safetensors", "-n", 2, "--seed", 1, "--context", 2.0)
    assert code == 0
    assert out.splitlines()[0] == "mass,log_radius"

    write_csv("renamed.csv", x, ["mass", "radius", "age"])
    code, _, err = run("score", "f.safetensors", "renamed.csv")
    assert code == 1
    assert "'log_radius'" in err


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "null",
        "3",
        "[]",
        "{}",
        '{"features": ["a"]}',
        '{"features": "abc", "context": []}',
        '{"features": ["a", "b"], "context": []}',
        '{"features": ["a", "b", 3], "context": []}',
        '{"features": ["a", "b", "c"], "context": ["d"]}',
        '{"features": ["a", "b", "c"], "context": 3}',
        "[" * 100_000,
    ],
)
def test_an_invalid_note_counts_as_none(folder, result, note):
    flow = small_flow(notes={"columns": note})
    write_csv("t.csv", table(), NAMES)
    result("score", "flow.safetensors", "t.csv", "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), flow.log_prob(table()))


def test_notes_are_kept_beside_the_header(folder):
    flow = small_flow(notes={"columns": "ä", "more": ""})
    assert files.read_notes("flow.safetensors") == {"columns": "ä", "more": ""}
    assert_array_equal(hr.load("flow.safetensors").parameters, flow.parameters)
    flow.save("plain.safetensors")
    assert files.read_notes("plain.safetensors") == {}
    np.save("t.npy", table())
    with pytest.raises(hr.FileFormatError, match=r"t\.npy"):
        files.read_notes("t.npy")


# --- score and sample -----------------------------------------------------------------------------------------------


def test_score_prints_a_density_a_line(folder, run):
    flow, x = small_flow(), table()
    np.save("t.npy", x)
    code, out, err = run("score", "flow.safetensors", "t.npy")
    assert code == 0
    assert_array_equal(np.array(out.split(), np.float32), flow.log_prob(x))
    assert "200 rows: mean log density" in err
    assert run("score", "flow.safetensors", "t.npy", "--quiet")[1:] == (out, "")


@pytest.mark.parametrize("name", ["s.npy", "s.csv", "s.parquet"])
def test_score_writes_a_file_and_a_summary(folder, run, result, name):
    flow, x = small_flow(dtype="float64"), table()
    np.save("t.npy", x)
    report = result("score", "flow.safetensors", "t.npy", "-o", name)
    want = flow.log_prob(x)
    source = _tables.open_table(name)
    assert source.names in (None, ("log_prob",))
    assert_array_equal(source.read([0])[:, 0], want)
    assert report["rows"] == 200
    assert report["not_finite"] == 0
    assert report["log_likelihood"] == pytest.approx(want.mean(), rel=1e-12)
    assert report["standard_error"] == pytest.approx(want.std(ddof=1) / np.sqrt(200), rel=1e-12)
    assert (report["least"], report["most"]) == (want.min(), want.max())
    code, out, err = run("score", "flow.safetensors", "t.npy", "-o", name)
    assert (code, err) == (0, "")
    assert "200 rows: mean log density" in out


def test_score_of_rows_without_a_density(folder, run, result):
    flow, x = small_flow(), table()
    x[3, 1] = np.nan
    np.save("t.npy", x)
    report = result("score", "flow.safetensors", "t.npy")
    assert report["not_finite"] == 1
    assert report["log_likelihood"] == pytest.approx(np.nanmean(flow.log_prob(x).astype("f8")))
    _, out, err = run("score", "flow.safetensors", "t.npy")
    assert out.split()[3] == "nan"
    assert "; left out, because their log density is not finite: 1" in err
    np.save("t.npy", np.full((1, 3), np.nan))
    assert result("score", "flow.safetensors", "t.npy")["log_likelihood"] is None
    assert "1 row: none has a log density that is finite" in run("score", "flow.safetensors", "t.npy")[2]
    np.save("t.npy", np.empty((0, 3)))
    assert result("score", "flow.safetensors", "t.npy")["rows"] == 0
    assert run("score", "flow.safetensors", "t.npy")[:2] == (0, "")


def test_sample(folder, run, result):
    flow = small_flow()
    code, out, err = run("sample", "flow.safetensors", "-n", 20, "--seed", 3)
    assert (code, err) == (0, "")
    assert_array_equal(np.array([line.split(",") for line in out.split()], np.float32), flow.sample(20, seed=3))
    report = result("sample", "flow.safetensors", "-n", 20, "--seed", 3, "-o", "s.npy")
    assert report == {"file": "s.npy", "rows": 20, "features": 3, "seed": 3}
    assert_array_equal(np.load("s.npy"), flow.sample(20, seed=3))
    assert run("sample", "flow.safetensors", "-n", 0)[:2] == (0, "")
    result("sample", "flow.safetensors", "-n", 7, "--seed", 3, "--first-row", 13, "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), flow.sample(20, seed=3)[13:])
    assert run("sample", "flow.safetensors", "-n", 7, "--first-row", 13)[0] == 2
    assert run("sample", "flow.safetensors", "-n", 7, "--seed", 3, "--first-row", -1)[0] == 2


def test_samples_have_the_digits_of_the_table(folder, run, result):
    """Times of 1.7e9 with a spread of half a minute would have only a few different samples in float32."""
    x = 1.7e9 + 30.0 * cases.rows(500, 1, "float64", "times")
    for name, kind in (("t.npy", "f8"), ("t.csv", "f8"), ("single.npy", "f4")):
        write_csv(name, x, ["t"]) if name == "t.csv" else np.save(name, x.astype(kind))
        result("fit", name, "-o", "f.safetensors", *SHORT)
        result("sample", "f.safetensors", "-n", 400, "--seed", 1, "-o", "s.npy")
        samples = np.load("s.npy")
        assert samples.dtype == kind
        if kind == "f8":
            assert len(np.unique(samples)) > 390
            assert 10 < samples.std() < 90
            out = run("sample", "f.safetensors", "-n", 400, "--seed", 1)[1].split()
            assert_array_equal(np.array(out[-400:], float), samples[:, 0])


def test_a_seed_that_was_not_given_is_reported(folder, run, result):
    flow = small_flow()
    report = result("sample", "flow.safetensors", "-n", 20, "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), flow.sample(20, seed=report["seed"]))
    _, out, err = run("sample", "flow.safetensors", "-n", 1)
    assert err.startswith("seed ")
    assert out != run("sample", "flow.safetensors", "-n", 1)[1]


def test_sample_with_context(folder, run):
    flow = small_flow(context=2)
    code, out, _ = run("sample", "flow.safetensors", "-n", 9, "--seed", 3, "--context", "-0.5", "2e-1")
    assert code == 0
    want = flow.sample(9, np.array([-0.5, 0.2]), seed=3)
    assert_array_equal(np.array([line.split(",") for line in out.split()], np.float32), want)
