"""The command line: what each command prints, writes and refuses, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
from headrace import _bench, _commands, _tables, cli, demo, files, training

pytestmark = pytest.mark.programs

NAMES = ["mass", "log_radius", "age"]
SHORT = ("--epochs", 3, "--transforms", 2, "--hidden", "8", "--quiet")


@pytest.fixture
def run(capsys, set_threads):
    """Run a command line in this process; gives the exit code and what went to the two outputs."""

    def go(*arguments):
        code = cli.main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


@pytest.fixture
def result(run):
    """Run a command line that must succeed with --json; gives the object."""

    def go(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return go


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that the commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(rows=200):
    """Three columns that depend on each other, in float64."""
    x = cases.rows(rows, 3, "float64", "command line")
    x[:, 1] += np.sin(2 * x[:, 0])
    return 2.0 + x * [1.0, 10.0, 0.1]


def write_csv(path, x, names=None, delimiter=",", fmt="%.17g"):
    header = delimiter.join(names) if names else ""
    np.savetxt(path, x, fmt=fmt, delimiter=delimiter, header=header, comments="")


def small_flow(path="flow.safetensors", features=3, context=0, notes=None, **options):
    flow = hr.MAF(features, context=context, transforms=2, hidden=(8,), **options)
    flow.parameters = 0.3 * cases.rng("flow").standard_normal(flow.parameters.size).astype(flow.dtype)
    files.save(flow, path, notes)
    return flow


# --- tables ---------------------------------------------------------------------------------------------------------


def write_parquet(path, x, names):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table(list(x.T), names=names), path)


WRITERS = {
    "t.npy": lambda path, x: np.save(path, x),
    "fortran.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "one.npz": lambda path, x: np.savez(path, stars=x),
    "plain.csv": lambda path, x: write_csv(path, x),
    "names.csv": lambda path, x: write_csv(path, x, NAMES),
    "quoted.csv": lambda path, x: write_csv(path, x, ['"mass, in suns"', '"log ""radius"""', "age"]),
    "semicolon.csv": lambda path, x: write_csv(path, x, NAMES, ";"),
    "t.tsv": lambda path, x: write_csv(path, x, NAMES, "\t"),
    "space.txt": lambda path, x: write_csv(path, x, None, "  "),
    "t.parquet": lambda path, x: write_parquet(path, x, NAMES),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_numbers(folder, name):
    x = table()
    WRITERS[name](name, x)
    source = _tables.open_table(name)
    assert source.n_columns == 3
    assert_array_equal(source.read([0, 1, 2]), x)
    assert_array_equal(source.read([2, 0]), x[:, [2, 0]])


def test_text_with_comments_blank_lines_and_a_byte_order_mark(folder):
    with open("t.csv", "w", encoding="utf-8-sig") as file:
        file.write("# made by hand, in 3 parts\n\na,b\n1,2\n\n# more\n3,1e-3\n")
    source = _tables.open_table("t.csv")
    assert source.names == ("a", "b")
    assert_array_equal(source.read([0, 1]), [[1.0, 2.0], [3.0, 1e-3]])


def test_long_text_is_read_in_parts(folder, monkeypatch):
    monkeypatch.setattr(_tables, "_CHUNK", 7)
    x = table(50)
    write_csv("t.csv", x, NAMES)
    assert_array_equal(_tables.open_table("t.csv").read([0, 1, 2]), x)


def test_float32_stays_and_other_numbers_become_float64(folder):
    for kind, wanted in (("f4", "f4"), ("f2", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8")):
        np.save("t.npy", np.ones((2, 3), kind))
        assert _tables.open_table("t.npy").read([0, 1, 2]).dtype == wanted
    np.save("t.npy", np.arange(4.0))
    assert _tables.open_table("t.npy").read([0]).shape == (4, 1)


def test_columns_by_name_number_and_range(folder):
    write_csv("t.csv", table(), NAMES)
    source = _tables.open_table("t.csv")
    assert source.select("--columns", "age,mass") == [2, 0]
    assert source.select("--columns", "2, 0:2") == [2, 0, 1]
    assert source.select("--columns", ":") == [0, 1, 2]
    assert source.select("--columns", "1:") == [1, 2]
    write_csv("digits.csv", table(), ["2", "x", "y"])
    assert _tables.open_table("digits.csv", header="yes").select("--columns", "2") == [0]  # a name before a number


def test_digits_give_back_the_same_number(folder):
    for dtype in cases.DTYPES:
        x = (table() * 1e-7).astype(dtype)
        for name in ("t.csv", "t.npy", "t.parquet"):
            _tables.write_table(name, x, NAMES)
            assert_array_equal(_tables.open_table(name).read([0, 1, 2]).astype(dtype), x)


# --- info -----------------------------------------------------------------------------------------------------------


def test_info(run, result):
    facts = result("info")
    assert facts["version"] == hr.__version__
    assert facts["isa"] in facts["isas"]
    code, out, err = run("info")
    assert (code, err) == (0, "")
    assert hr.__version__ in out
    assert hr.info()["cuda"] in out


def test_threads(run, result):
    for threads in (3, 1):
        assert result("info", "--threads", threads)["threads"] == threads
        assert hr.get_num_threads() == threads


# --- fit ------------------------------------------------------------------------------------------------------------


def test_fit_is_the_fit_of_python(folder, result):
    """With the rows held out that the command chose, `Flow.fit` gives the same bits."""
    x = table()
    write_csv("t.csv", x, NAMES)
    report = result("fit", "t.csv", "-o", "f.safetensors", "--seed", 5, "--validation", 0.25, *SHORT)
    order = np.random.default_rng(5).permutation(200)
    train, held_out = x[np.sort(order[50:])], x[np.sort(order[:50])]
    flow = hr.MAF(3, transforms=2, hidden=(8,), seed=5)
    flow.fit(train, validation=(held_out,), epochs=3, seed=5, progress=False)
    loaded = hr.load("f.safetensors")
    assert_array_equal(loaded.parameters, flow.parameters)
    assert_array_equal(loaded.log_prob(x), flow.log_prob(x))

    assert (report["training_rows"], report["held_out_rows"], report["features"]) == (150, 50, 3)
    assert report["log_likelihood"] == pytest.approx(flow.log_prob(held_out).mean(dtype="f8"), rel=1e-12)
    centred, covariance = held_out - train.mean(0), np.cov(train, rowvar=False, bias=True)
    distance = np.einsum("ij,ij->i", centred, np.linalg.solve(covariance, centred.T).T)
    gaussian = -0.5 * (distance.mean() + np.linalg.slogdet(2 * np.pi * covariance)[1])
    assert report["gaussian_log_likelihood"] == pytest.approx(gaussian, rel=1e-9)
    assert report["epochs"] == 3
    assert report["stopped"] == "epochs"
    assert report["file"] == "f.safetensors"


def test_fit_prints_both_likelihoods_and_shows_progress_on_the_standard_error(folder, run):
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
    """Rows of weight 0 may hold anything; a weight of 2 in a Gaussian is a row twice."""
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
    assert one["gaussian_log_likelihood"] == pytest.approx(twice["gaussian_log_likelihood"], rel=1e-9)


@pytest.mark.parametrize("name", _commands.FLOWS)
def test_every_flow(folder, result, name):
    np.save("t.npy", table())
    kind = _commands.FLOWS[name]
    given = {
        "transforms": ("--transforms", 3),
        "hidden": ("--hidden", "16,8"),
        "context": ("--context", 2),
        "epochs": ("--epochs", 1),
        "steps": ("--steps", 3),
    }
    options = [text for option in kind.takes for text in given.get(option, ())]
    result("fit", "t.npy", "-o", "f.safetensors", "--flow", name, "--dtype", "float64", *options)
    flow = hr.load("f.safetensors")
    assert type(flow) is kind.make
    assert flow.dtype == np.float64
    if "transforms" in kind.takes:
        assert len(flow) == 3 + 1  # and a Standardize
    assert result("sample", "f.safetensors", "-n", 2, "-o", "s.npy", *(["--context-row", 2.0] * bool(flow.context)))


def test_a_dual_ascent(folder, run, result):
    """Its report counts steps beside epochs; its options are not those of networks."""
    np.save("t.npy", table())
    report = result("fit", "t.npy", "-o", "f.safetensors", "--flow", "dual-ascent", "--steps", 2, "--seed", 5)
    flow = hr.load("f.safetensors")
    assert type(flow) is hr.AscentFlow
    assert len(flow) == report["best_step"] <= report["steps"] == 2
    assert report["log_likelihood"] > report["gaussian_log_likelihood"] - 1.0
    code, out, _ = run("fit", "t.npy", "-o", "f.safetensors", "--flow", "dual-ascent", "--steps", 1, "--quiet")
    assert code == 0
    assert "1 steps, the best was" in out
    for option in (("--epochs", 1), ("--hidden", 8), ("--context", 2), ("--transforms", 2)):
        code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--flow", "dual-ascent", *option)
        assert code == 2
        assert f"argument {option[0]}: --flow dual-ascent does not take it" in err
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--flow", "maf", "--steps", 3)
    assert code == 2
    assert "argument --steps: --flow maf does not take it" in err


def test_options_of_fit_arrive(folder, result, monkeypatch):
    np.save("t.npy", table())
    given, original = {}, training.fit

    def fit(flow, x, context, **options):
        given.update(options)
        return original(flow, x, context, **options)

    monkeypatch.setattr(training, "fit", fit)
    options = ("--epochs", 2, "--batch-size", 50, "--learning-rate", 0.25, "--patience", 7, "--seed", 3)
    result("fit", "t.npy", "-o", "f.safetensors", *options)
    wanted = {"epochs": 2, "batch_size": 50, "learning_rate": 0.25, "patience": 7, "seed": 3}
    assert {name: given[name] for name in wanted} == wanted
    result("fit", "t.npy", "-o", "f.safetensors", "--epochs", 0)
    assert given["batch_size"] is None
    assert given["patience"] == training.PATIENCE


def test_an_option_that_a_flow_does_not_take(folder, run, monkeypatch):
    monkeypatch.setitem(_commands.FLOWS, "maf", _commands.Kind(hr.MAF, ("transforms", "epochs")))
    np.save("t.npy", table())
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", "--hidden", 8)
    assert (code, out) == (2, "")
    assert "argument --hidden: --flow maf does not take it" in err
    code, _, err = run("fit", "t.npy", "-o", "f.safetensors", "--context", 0)
    assert code == 2
    assert "argument --context" in err


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
    assert err.startswith("headrace: warning: ")  # a constant column
    assert len(err.splitlines()) == 1


def test_rows_in_a_plane_have_no_gaussian(folder, run):
    x = table()
    np.save("t.npy", np.column_stack([x[:, :2], np.zeros(len(x))]))
    code, out, _ = run("fit", "t.npy", "-o", "f.safetensors", *SHORT)
    assert code == 0
    assert "Gaussian nan" in out


def test_a_fit_that_goes_wrong_saves_nothing(folder, run):
    np.save("t.npy", table())
    options = ("--learning-rate", 1e30, "--validation", 0, "--epochs", 5, "--batch-size", 10, "--quiet")
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", *options)
    assert (code, out) == (1, "")
    assert "headrace: error: the fit went wrong" in err
    assert "headrace: warning: fit: the loss became" in err
    assert not os.path.exists("f.safetensors")


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
    np.save("t.npy", x)  # without names, the places count
    result("score", "f.safetensors", "t.npy", "-o", "s.npy", "--context", "2")
    assert_array_equal(np.load("s.npy"), flow.log_prob(x[:, :2], x[:, 2:]))

    code, out, _ = run("sample", "f.safetensors", "-n", 2, "--seed", 1, "--context-row", 2.0)
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
        '{"features": ["a", "b", "c"], "context": null}',
        "[" * 100_000,
    ],
)
def test_a_note_that_makes_no_sense_counts_as_none(folder, result, note):
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
    assert "1 rows with none" in err
    np.save("t.npy", np.full((1, 3), np.nan))
    assert result("score", "flow.safetensors", "t.npy")["log_likelihood"] is None
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


def test_a_seed_that_was_not_given_is_told(folder, run, result):
    flow = small_flow()
    report = result("sample", "flow.safetensors", "-n", 20, "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), flow.sample(20, seed=report["seed"]))
    _, out, err = run("sample", "flow.safetensors", "-n", 1)
    assert err.startswith("seed ")
    assert out != run("sample", "flow.safetensors", "-n", 1)[1]


def test_sample_with_context(folder, run):
    flow = small_flow(context=2)
    code, out, _ = run("sample", "flow.safetensors", "-n", 9, "--seed", 3, "--context-row", "-0.5", "2e-1")
    assert code == 0
    want = flow.sample(9, np.array([-0.5, 0.2]), seed=3)
    assert_array_equal(np.array([line.split(",") for line in out.split()], np.float32), want)


# --- bench and demo -------------------------------------------------------------------------------------------------


def test_bench(run, result, monkeypatch):
    monkeypatch.setattr(_bench, "LEAST_CALLS", 1)
    monkeypatch.setattr(_bench, "copy_bandwidth", lambda megabytes: 20.0)
    report = result("bench", "--quick")
    assert report["peak_gflops"] > 0
    assert report["copy_gb_per_second"] == 20.0
    names = [one["name"] for one in report["workloads"]]
    assert len(set(names)) == len(names) == 12
    for one in report["workloads"]:
        assert one["rows_per_second"] * one["seconds"] == pytest.approx(int(one["name"].split()[-1].replace(",", "")))
        shares = {
            "arithmetic": one["gflops"] / report["peak_gflops"],
            "memory": one["gb_per_second"] / report["copy_gb_per_second"],
        }
        assert one["share"] == pytest.approx(max(shares.values()))
        assert shares[one["bound"]] == max(shares.values())
    assert report["workloads"][-1]["bound"] == "memory"
    monkeypatch.setattr(_bench, "workloads", lambda: iter([_bench._of_map(10, 2)]))
    code, out, _ = run("bench", "--quick")
    assert code == 0
    assert "roofline: " in out
    assert "ops.coupling_forward 2 columns 10" in out


def test_copy_bandwidth():
    assert _bench.copy_bandwidth(megabytes=1, repeats=2) > 0


@pytest.mark.parametrize("make", [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF])
def test_bench_counts_the_arithmetic(make):
    """Against the weights that there are: once; in training thrice, but for the first layer at the data's side."""
    flow = make(5, transforms=2, hidden=(16, 8))  # couplings take turns with 3 and 2 columns
    layers = [[np.count_nonzero(mask) for mask in t.to_dense()[2]] for t in flow.transforms[:-1]]
    assert _bench.needed_flops(flow) == 2 * sum(map(sum, layers))
    assert _bench.needed_flops(flow, training=True) == 6 * sum(map(sum, layers)) - 2 * layers[1][0]


@pytest.fixture
def few_stars(monkeypatch):
    """The demo of a few hundred stars."""
    train, held_out = demo.load_stars()
    monkeypatch.setattr(demo, "load_stars", lambda: (train[:400], held_out[:100]))
    monkeypatch.setattr(demo, "PIXELS", 40)


def test_demo(folder, run, result, few_stars):
    pytest.importorskip("matplotlib")
    report = result("demo", "--epochs", 2, "--seed", 1, "--quiet")
    assert list(report["log_likelihood"]) == ["Gaussian", "kernel density", "MAF", "NSF"]
    assert report["picture"] == "hr_diagram.png"
    assert (folder / "hr_diagram.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run("demo", "--epochs", 2, "-o", "stars.svg")
    assert code == 0
    assert "kernel density" in out
    assert "fitting 400 stars" in err
    assert (folder / "stars.svg").exists()


def test_demo_without_matplotlib(folder, run, few_stars, monkeypatch):
    monkeypatch.setattr(demo, "can_draw", lambda: False)
    code, out, err = run("demo", "--epochs", 1)
    assert code == 0
    assert "picture" not in out
    assert 'no picture: pictures need matplotlib: pip install "headrace[plot]"' in err
    code, out, err = run("demo", "-o", "stars.png")
    assert (code, out) == (1, "")
    assert 'pip install "headrace[plot]"' in err


def test_demo_draws_nothing_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"headrace\[plot\]"):
        demo.draw("x.png", np.empty((0, 2)), {}, [])


def test_stars_are_those_of_the_published_split():
    """The Gaussian of the stars to fit gives those held out −2.82 nats, in units of the standard deviations."""
    train, held_out = demo.load_stars()
    assert train.shape == (53916, 2)
    assert held_out.shape == (5993, 2)
    assert np.isfinite(train).all()
    assert np.isfinite(held_out).all()
    value = demo.gaussian_log_prob(train, held_out).mean() + np.log(train.std(axis=0, dtype="f8")).sum()
    assert value == pytest.approx(-2.8247, abs=1e-4)


# --- errors ---------------------------------------------------------------------------------------------------------


def write(name, text):
    with open(name, "w" if isinstance(text, str) else "wb") as file:
        file.write(text)
    return name


def saved(name, *arrays, **named):
    (np.save if name.endswith("npy") else np.savez)(name, *arrays, **named)
    return name


def truncated(name, *arrays, **named):
    saved(name, *arrays, **named)
    with open(name, "rb") as file:
        content = file.read()
    return write(name, content[: len(content) - 20])


def broken_zip():
    name = saved("t.npz", a=table())
    with open(name, "r+b") as file:
        file.seek(300)
        file.write(b"\0" * 300)
    return name


def parquet_of(**columns):
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    pyarrow.parquet.write_table(pyarrow.table(columns), "t.parquet")
    return "t.parquet"


# What the file is, further options, and patterns in the one line that is printed.
BAD_TABLES = {
    "no file": (lambda: "none.csv", [], ["none.csv: No such file"]),
    "a folder": (lambda: os.mkdir("d.csv") or "d.csv", [], ["d.csv: Is a directory"]),
    "nothing in it": (lambda: write("t.csv", ""), [], ["t.csv", "got no lines"]),
    "comments alone": (lambda: write("t.csv", "# a\n\n"), [], ["t.csv", "got no lines"]),
    "names alone": (lambda: write("t.csv", "a,b\n"), [], ["t.csv", "at least one row"]),
    "a word": (lambda: write("t.csv", "a,b\n1,2\n3,x\n"), [], ["t.csv: line 3, column 'b'", "got 'x'\n"]),
    "a column of text": (lambda: write("t.csv", "a,b\n1,x\n3,y\n"), [], ["line 2, column 'b'", "got 'x'; --columns"]),
    "a word, no names": (lambda: write("t.csv", "1,2\n3,x\n"), [], ["t.csv: line 2, column 1", "got 'x'"]),
    "a gap": (lambda: write("t.csv", "a,b\n1,2\n,3\n"), [], ["t.csv: line 3, column 'a'", "got ''"]),
    "a short line": (lambda: write("t.csv", "a,b\n1,2\n\n3\n"), [], ["t.csv: line 4", "expected 2 columns", "got 1"]),
    "a long line": (lambda: write("t.csv", "a,b\n1,2\n3,4,5\n"), [], ["t.csv: line 3", "expected 2 columns", "got 3"]),
    "names or numbers": (lambda: write("t.csv", "a,2\n1,2\n"), [], ["t.csv: line 1", "--header yes"]),
    "names said to be numbers": (lambda: write("t.csv", "a,b\n1,2\n"), ["--header", "no"], ["line 1", "got 'a'"]),
    "another delimiter": (lambda: write("t.csv", "a;b\n1;2\n"), ["--delimiter", ","], ["line 2", "got '1;2'"]),
    "not UTF-8": (lambda: write("t.csv", b"a,b\n1,\xff\n"), [], ["t.csv", "UTF-8", "0xff"]),
    "an open quote": (lambda: write("t.csv", 'a,b\n1,"2\n'), [], ["t.csv", "unexpected end"]),
    "not a number": (lambda: write("t.csv", "a,b\n1,2\n3,nan\n"), [], ["t.csv: row 1, column 'b'", "got nan"]),
    "infinity": (lambda: saved("t.npy", np.array([[1.0], [np.inf]])), [], ["t.npy: row 1, column 0", "got inf"]),
    "not a number in the context": (
        lambda: saved("t.npy", np.array([[1.0, np.nan]])),
        ["--context", 1],
        ["row 0, column 1", "got nan"],
    ),
    "no NumPy file": (lambda: write("t.npy", "hello"), [], ["t.npy", "broken, foreign"]),
    "an empty NumPy file": (lambda: write("t.npy", ""), [], ["t.npy", "broken, foreign"]),
    "a short NumPy file": (lambda: truncated("t.npy", table()), [], ["t.npy", "broken, foreign"]),
    "a short archive": (lambda: truncated("t.npz", a=table()), [], ["t.npz", "broken, foreign"]),
    "a broken archive": (broken_zip, [], ["t.npz", "broken, foreign"]),
    "Python objects": (lambda: saved("t.npy", np.array([[{}]])), [], ["t.npy", "Python objects"]),
    "complex numbers": (lambda: saved("t.npy", np.ones((2, 2), complex)), [], ["t.npy", "complex128"]),
    "three dimensions": (lambda: saved("t.npy", np.ones((2, 2, 2))), [], ["t.npy", r"(2, 2, 2)"]),
    "no dimension": (lambda: saved("t.npy", np.ones(())), [], ["t.npy", "()"]),
    "two arrays": (lambda: saved("t.npz", a=table(), b=table()), [], ["--array", "'a', 'b'", "t.npz"]),
    "no such array": (lambda: saved("t.npz", a=table()), ["--array", "b"], ["--array", "'a'", "'b'"]),
    "no columns": (lambda: saved("t.npy", np.empty((3, 0))), [], ["t.npy", "at least one column"]),
    "no Parquet file": (lambda: write("t.parquet", "hello"), [], ["t.parquet", "not a Parquet file"]),
    "text in Parquet": (lambda: parquet_of(a=[1.0], b=["x"]), [], ["t.parquet: column 'b'", "got string; --columns"]),
    "null in Parquet": (lambda: parquet_of(a=[1.0, None]), [], ["t.parquet: row 1, column 'a'", "got null"]),
    "no such column": (
        lambda: write("t.csv", "a,b\n1,2\n"),
        ["--columns", "a,c"],
        ["--columns", "t.csv", "'c'", "'a', 'b'"],
    ),
    "a column that is out of range": (lambda: saved("t.npy", table()), ["--columns", 3], ["'3'", "3 columns"]),
    "a column from the end": (lambda: saved("t.npy", table()), ["--columns=-1"], ["'-1'", "3 columns"]),
    "a range that is": (lambda: saved("t.npy", table()), ["--columns", "1:4"], ["'1:4'", "3 columns"]),
    "an empty range": (lambda: saved("t.npy", table()), ["--columns", "1:1"], ["'1:1'", "3 columns"]),
    "an empty name": (lambda: saved("t.npy", table()), ["--columns", "1,"], ["''", "3 columns"]),
    "a column twice": (lambda: saved("t.npy", table()), ["--columns", "0,0"], ["--columns", "column 0 twice"]),
    "a feature as context": (
        lambda: saved("t.npy", table()),
        ["--columns", "0,1", "--context", 1],
        ["different columns", "column 1 twice"],
    ),
    "context as weights": (
        lambda: saved("t.npy", table()),
        ["--weights", 1, "--context", 1],
        ["different columns", "column 1 twice"],
    ),
    "a name twice": (lambda: write("t.csv", "a,a\n1,2\n"), ["--columns", "a"], ["one column 'a'", "got 2"]),
    "two columns of weights": (lambda: saved("t.npy", table()), ["--weights", "0,1"], ["--weights", "got 2"]),
    "a weight below 0": (
        lambda: write("t.csv", "w,a\n1,2\n-1,3\n"),
        ["--weights", "w"],
        ["t.csv: row 1, column 'w'", "got -1"],
    ),
    "no weight above 0": (lambda: write("t.csv", "w,a\n0,2\n"), ["--weights", "w"], ["column 'w'", "got none"]),
    "nothing but context": (lambda: saved("t.npy", table()), ["--context", ":"], ["t.npy", "at least one column"]),
}


def check_error(code, out, err, patterns):
    assert (code, out) == (1, "")
    assert err.startswith("headrace: error: ")
    assert len(err.splitlines()) == 1
    for pattern in patterns:
        assert pattern in err


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_told_in_one_line(folder, run, case):
    make, options, patterns = BAD_TABLES[case]
    for json_too in ([], ["--json"]):
        name = make() if not json_too or case != "a folder" else "d.csv"
        outcome = run("fit", name, "-o", "f.safetensors", *options, *SHORT, *json_too)
        check_error(*outcome, patterns)
        assert not os.path.exists("f.safetensors")


# Arguments after "headrace", where t.npy has three columns and two flows lie in the folder, and patterns.
BAD_CALLS = {
    "no folder for a flow": (["fit", "t.npy", "-o", "no/f.safetensors"], ["--output", "no/f.safetensors"]),
    "no folder for densities": (["score", "flow.safetensors", "t.npy", "-o", "no/s.npy"], ["--output", "no/s.npy"]),
    "no folder for samples": (["sample", "flow.safetensors", "-n", "1", "-o", "no/s.npy"], ["--output", "no/s.npy"]),
    "no folder for a picture": (["demo", "-o", "no/s.png"], ["--output", "no/s.png"]),
    "no flow": (["score", "none.safetensors", "t.npy"], ["none.safetensors"]),
    "no flow to sample": (["sample", "none.safetensors", "-n", "1"], ["none.safetensors"]),
    "a table for a flow": (["sample", "t.npy", "-n", "1"], ["t.npy", "no safetensors file"]),
    "a transform": (["sample", "transform.safetensors", "-n", "1"], ["expected a flow", "Permutation"]),
    "too few columns": (["score", "flow.safetensors", "t.npy", "--columns", "0,1"], ["3 columns of features", "got 2"]),
    "context that a flow takes": (["score", "conditional.safetensors", "t.npy"], ["1 columns of context", "got 0"]),
    "context that it does not": (
        ["score", "flow.safetensors", "t.npy", "--context", "0", "--columns", "1,2"],
        ["3 columns of features"],
    ),
    "no row of context": (["sample", "conditional.safetensors", "-n", "1"], ["--context-row", "1 numbers", "got 0"]),
    "a row of context": (["sample", "flow.safetensors", "-n", "1", "--context-row", "1"], ["0 numbers", "got 1"]),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_are_told_in_one_line(folder, run, case):
    arguments, patterns = BAD_CALLS[case]
    np.save("t.npy", table())
    small_flow()
    small_flow("conditional.safetensors", context=1)
    hr.Permutation([1, 0]).save("transform.safetensors")
    check_error(*run(*arguments), patterns)


# Arguments, and patterns in what follows the usage.
BAD_USAGE = {
    "no command": ([], ["COMMAND"]),
    "an unknown command": (["paint"], ["paint"]),
    "an unknown option": (["info", "--colour"], ["--colour"]),
    "no data": (["fit", "-o", "f"], ["DATA"]),
    "no output": (["fit", "t.npy"], ["--output"]),
    "an unknown format": (["fit", "t.xlsx", "-o", "f"], [".parquet", "'t.xlsx'"]),
    "an unknown flow": (["fit", "t.npy", "-o", "f", "--flow", "glow"], ["'glow'", "maf"]),
    "epochs": (["fit", "t.npy", "-o", "f", "--epochs", "-1"], ["--epochs", "at least 0", "'-1'"]),
    "transforms": (["fit", "t.npy", "-o", "f", "--transforms", "0"], ["--transforms", "at least 1", "'0'"]),
    "hidden": (["fit", "t.npy", "-o", "f", "--hidden", "8,x"], ["--hidden", "'8,x'"]),
    "hidden of nothing": (["fit", "t.npy", "-o", "f", "--hidden", "8,0"], ["--hidden", "'8,0'"]),
    "batch size": (["fit", "t.npy", "-o", "f", "--batch-size", "1.5"], ["--batch-size", "'1.5'"]),
    "learning rate": (["fit", "t.npy", "-o", "f", "--learning-rate", "nan"], ["--learning-rate", "'nan'"]),
    "validation": (["fit", "t.npy", "-o", "f", "--validation", "1"], ["--validation", "'1'"]),
    "patience": (["fit", "t.npy", "-o", "f", "--patience", "0"], ["--patience", "'0'"]),
    "dtype": (["fit", "t.npy", "-o", "f", "--dtype", "float16"], ["--dtype", "'float16'"]),
    "a seed": (["fit", "t.npy", "-o", "f", "--seed", "one"], ["--seed", "'one'"]),
    "a huge seed": (["sample", "f", "-n", "1", "--seed", str(2**70)], ["--seed"]),
    "a delimiter": (["fit", "t.csv", "-o", "f", "--delimiter", "ab"], ["--delimiter", "'ab'"]),
    "threads": (["info", "--threads", "0"], ["--threads", "'0'"]),
    "no number of rows": (["sample", "f"], ["--rows"]),
    "a number of rows": (["sample", "f", "-n", "-3"], ["--rows", "'-3'"]),
    "where to write": (["sample", "f", "-n", "1", "-o", "s.xlsx"], ["--output", "'s.xlsx'"]),
    "what to draw": (["demo", "-o", "s.gif"], ["--output", "'s.gif'"]),
    "a row of context": (["sample", "f", "-n", "1", "--context-row", "1", "inf"], ["--context-row", "'inf'"]),
    "rows in JSON": (["sample", "f", "-n", "1", "--json"], ["--json", "--output"]),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage(folder, run, case):
    arguments, patterns = BAD_USAGE[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: headrace")
    for pattern in patterns:
        assert pattern in err.splitlines()[-1]


def test_without_pyarrow(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write("t.parquet", "x")
    small_flow()
    np.save("t.npy", table())
    for arguments in (
        ["fit", "t.parquet", "-o", "f.safetensors"],
        ["score", "flow.safetensors", "t.npy", "-o", "s.parquet"],
    ):
        check_error(*run(*arguments), ['pip install "headrace[tables]"'])


def test_an_error_of_memory_has_a_message(folder, run, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(_tables, "open_table", fail)
    check_error(*run("fit", "t.npy", "-o", "f"), ["MemoryError"])


def test_a_mistake_in_the_program_is_not_hidden(folder, run, monkeypatch):
    def fail(*_, **__):
        raise KeyError("mistake")

    monkeypatch.setattr(_tables, "open_table", fail)
    with pytest.raises(KeyError, match="mistake"):
        run("fit", "t.npy", "-o", "f")


def test_help_and_version(run):
    assert run("--version") == (0, f"headrace {hr.__version__}\n", "")
    for command in ("info", "fit", "score", "sample", "bench", "demo"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"usage: headrace {command}" in out


# --- Ctrl-C, and readers that go away -------------------------------------------------------------------------------


def test_ctrl_c_in_a_fit_saves_the_best_weights(folder, run, monkeypatch):
    np.save("t.npy", table())
    passes, whole = [], training._Run._pass

    def interrupted(self):
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(training._Run, "_pass", interrupted)
    code, out, err = run("fit", "t.npy", "-o", "f.safetensors", "--epochs", 9, "--quiet", "--json")
    assert code == 130
    assert json.loads(out)["stopped"] == "interrupted"
    assert err == "headrace: interrupted: the best weights so far were saved\n"
    assert hr.load("f.safetensors").features == 3


def test_ctrl_c_elsewhere(folder, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tables, "open_table", interrupt)
    assert run("fit", "t.npy", "-o", "f.safetensors") == (130, "", "headrace: interrupted\n")
    assert not os.path.exists("f.safetensors")


def command(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(hr.__file__))}
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_a_process_of_its_own(folder):
    process = command("info", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["version"] == hr.__version__
    process = command("score", "none.safetensors", "t.npy")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err


def test_a_signal_to_a_process_that_fits(folder):
    np.save("t.npy", table())
    process = command("fit", "t.npy", "-o", "f.safetensors", "--epochs", 10**7, "--patience", 10**7)
    line = ""
    while " 1/" not in line and "it/s" not in line and "epoch/s, " not in line:  # an epoch is over
        line = line[-40:] + process.stderr.read(1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved to f.safetensors" in out
    assert err.endswith("headrace: interrupted: the best weights so far were saved\n")
    assert hr.load("f.safetensors").features == 3


def test_a_reader_that_goes_away(folder):
    small_flow()
    process = command("sample", "flow.safetensors", "-n", 200_000, "--seed", 1)
    assert process.stdout.readline().count(",") == 2
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
    process = command("info")
    process.stdout.close()  # before anything was written: only the last flush can fail
    time.sleep(0)
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
