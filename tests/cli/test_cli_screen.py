"""Output of the command line: help that explains each option, and no line wider than the terminal."""

import fcntl
import gzip
import inspect
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

import headrace as hr
from cli_cases import ENVIRONMENT, NAMES, SHORT, check_error, small_flow, table, write_csv
from headrace._base import moved
from headrace._base.keywords import meanings
from headrace._base.layout import Grid, Item, lines_of, wrapped
from headrace._cli import bench as _bench
from headrace._cli import demo
from headrace._cli import flow_options as offered
from headrace._cli import options as options_module
from headrace._cli.demo import load_stars
from headrace._cli.score_and_sample import VERBS
from headrace._core.maps import MAPS, SCALES
from headrace._core.settings import ACTIVATIONS, MapShape
from headrace._flow.bases_by_name import NAMES as NAMES_OF_BASES

pytestmark = pytest.mark.programs

COMMANDS = ("info", "fit", "report", "score", "diagnose", "sample", "export", "bench", "demo")
COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def check_width(text, columns):
    """Check that no line of a text is longer than `columns`, and that none has colours."""
    assert "\x1b[" not in text
    assert max(map(len, text.splitlines())) <= columns


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_as_wide_as_the_terminal(run, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = run(*filter(None, [command]), "--help")
    assert (code, err) == (0, "")
    check_width(out, columns)
    assert out.startswith(f"usage: headrace {command}")
    assert "Traceback" not in out


def actions_of(command):
    """Return the options of a command from the parser."""
    chosen = next(one for one in options_module.parser()._actions if one.metavar == "COMMAND")
    return [one for one in chosen.choices[command]._actions if one.option_strings]


KINDS_OF_FLOWS = {*offered.FLOWS, *offered.SIGNALS}
ARGUMENTS = {
    *(name for kind in offered.FLOWS.values() for name in inspect.signature(kind.model or kind.make).parameters),
    *inspect.signature(hr.Flow.fit).parameters,
    *MapShape.__annotations__,
}
# Values of options may have underscores; no other word with one may be in the help of the command line.
VALUES = {*MAPS, *SCALES, *ACTIVATIONS, *NAMES_OF_BASES, *VERBS, "dual_ascent"}


def words_of_python(text, flags):
    """Return the words of a help text that have a meaning in Python alone."""
    marks = re.findall(
        r"`|\bNone\b|\bTrue\b|\bFalse\b|docs/|\bhr\.|\w\(\)|\b[A-Z]\w*\.\w+|\(low, high\)|\.\.$|;(?= \(|$)", text
    )
    names = {*hr.__all__, *hr.transforms.__all__, *moved.NAMES} - set(KINDS_OF_FLOWS)
    classes = [word for word in re.findall(r"\b[A-Z]\w+", text) if word in names]
    keywords = [word for word in re.findall(r"\b(\w+)=", text) if word in ARGUMENTS]
    underscores = [word for word in re.findall(r"\b\w\w+_\w+\b(?!\.\w)", text) if word not in VALUES]
    names = {name.replace("_", "-") for name in ARGUMENTS if "_" in name}
    hyphens = [name for name in names if re.search(rf"\b{name}\b", text) and f"--{name}" not in flags]
    return [*marks, *classes, *keywords, *underscores, *hyphens]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_every_option(run, monkeypatch, command):
    """Each option has a help text, which has no words that mean something in Python alone."""
    monkeypatch.setenv("COLUMNS", "100")
    flags = {flag for action in actions_of(command) for flag in action.option_strings}
    for action in actions_of(command):
        assert action.help
        assert not (words := words_of_python(action.help, flags)), (action.dest, words)
    out = run(command, "--help-all" if command == "fit" else "--help")[1]
    for action in actions_of(command):
        assert action.option_strings[-1] in out
    for group in offered.set_groups().values():
        for name, text in group.items():
            assert command != "fit" or f"\n  {name} " in out
            assert not (words := words_of_python(text, flags)), (name, words)


def test_the_help_of_a_fit_is_one_screen(run, monkeypatch):
    """The short help of a fit has 40 lines of 80 columns at most, and each of its options is in the whole help."""
    monkeypatch.setenv("COLUMNS", "80")
    short, whole = (run("fit", name)[1] for name in ("--help", "--help-all"))
    assert len(short.splitlines()) <= 40
    options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", short, re.MULTILINE))
    assert {f"--{name.replace('_', '-')}" for name in options_module.BRIEF} == options - {"--help", "--help-all"}
    assert options < set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", whole, re.MULTILINE))


def test_options_are_few():
    """All commands together have 70 options at most. The three options that every command has count once, and `report`
    adds none, because all its options are options of `fit`.
    """
    common = {"--json", "--threads", "--quiet"}
    flags = {
        command: {action.option_strings[-1] for action in actions_of(command)} - {"--help", "--help-all"}
        for command in COMMANDS
    }
    assert all(common <= each for each in flags.values())
    assert not flags["report"] - flags["fit"]
    assert not flags["report"] & {"--covariates", "--array"}  # `report` refuses signals and .npz files
    counts = {command: len(each - common) for command, each in flags.items() if command != "report"}
    assert counts["fit"] + len(common) <= 40
    assert sum(counts.values()) + len(common) <= 70


@pytest.mark.parametrize(
    "text",
    ["see `MAF`", "None for none", "a trained Linear", "with min_bin", "with min-bin", "says time_budget",
     "weight_decay=0", "in docs/files.md", "both ends, (low, high)", "what Flow.save wrote", "like patience=3"],
)  # fmt: skip
def test_words_of_python_are_found(text):
    assert words_of_python(text, {"--epochs"})


def test_meanings_and_defaults_are_those_of_python():
    """Meanings of options come from the tables of arguments, where each is stated once."""
    fit = {one.dest: " ".join(one.help.split()) for one in actions_of("fit")}
    fit |= {form.split("=")[0]: text for group in offered.set_groups().values() for form, text in group.items()}
    assert fit["activation"].startswith("of hidden units: relu, tanh, elu, silu, ")
    assert fit["activation"].endswith("(default: relu)")
    listed = "(default: 5 of MAF, IAF, NSF; 8 of RealNVP; 32 of PlanarFlow, RadialFlow)"
    assert fit["transforms"] == f"number of transforms {listed}"
    bins = "NSF: bins of a spline, 2 to 64\nDualAscentFlow: bins of a spline, 3 to 64; by default 40, "
    assert fit["bins"].startswith(bins)
    assert "by default 5e-3" in fit["learning_rate"]
    assert "(default: 50)\nDualAscentFlow: steps without a new best on held-out rows" in fit["patience"]
    assert fit["patience"].endswith("(default: 60)")
    assert fit["rule"] == "how a kink is chosen: newton or gradient (default: newton)"
    assert "leaky_relu" in fit["nonlinearity"]  # the argument table of `Planar` lists this activation
    for kind in (offered.FLOWS | offered.SIGNALS).values():  # docstrings also explain each argument
        maker = kind.model or kind.make
        stated = meanings(maker.__doc__)
        assert set(inspect.signature(maker).parameters) <= set(stated)
        assert set(kind.settings) <= set(stated)


def test_arguments_of_set_stand_in_groups_by_the_flows_that_take_them(run):
    out = run("fit", "--help-all")[1]
    groups = re.findall(r"^--set: +(.*)$", out, re.MULTILINE)
    assert groups[:2] == ["of the fit", "MAF, IAF, RealNVP, NSF, PlanarFlow, RadialFlow"]
    assert {"NSF", "PlanarFlow", "DualAscentFlow", "WaveNet"} <= set(groups)


def test_headrace_alone_prints_the_help(run):
    """Without a command headrace prints its help with the status of a wrong command line, as git does."""
    code, out, err = run()
    assert (code, err) == (2, "")
    assert out == run("--help")[1]
    assert "diagnose" in out


# ---- wrong command lines ---------------------------------------------------------------------------------------------

MEANT = {
    "a command": (["fti", "t.csv"], "headrace: error: argument COMMAND: expected info", "'fti'; did you mean fit?"),
    "an option": (["fit", "t.csv", "--outptu", "f"], "fit: error: expected an option", "did you mean --output?"),
    "another library's": (["fit", "t.csv", "-o", "f", "--n-layers=3"], "got --n-layers", "mean --transforms?"),
    "an option with underscores": (["fit", "t.csv", "-o", "f", "--batch_size", "3"], "mean --batch-size?"),
    "a kind": (["fit", "t.csv", "-o", "f", "--flow", "Nsf"], "--flow: expected MAF", "'Nsf'; did you mean NSF?"),
    "nearly a kind": (["fit", "t.csv", "-o", "f", "--flow", "DualAscend"], "--flow", "did you mean DualAscentFlow?"),
    "a choice": (["fit", "t.csv", "-o", "f", "--missing", "Drop"], "expected refuse, drop or", "did you mean drop?"),
    "a suffix": (["fit", "t.cvs", "-o", "f"], "argument DATA: expected a file that ends in .npy", "did you mean .csv?"),
    "a suffix to write": (["sample", "f", "-n", "1", "-o", "s.parq"], "--output", "did you mean .parquet?"),
    "text of another name": (["fit", "t.data", "-o", "f"], "got 't.data'", "headrace ... - < t.data reads it"),
    "no suffix": (["fit", "t", "-o", "f"], "got 't'", "headrace ... - < t reads it"),
    "another compression": (["fit", "t.csv.xz", "-o", "f"], "got 't.csv.xz'", "xz -dc t.csv.xz | headrace ... -"),
    "a compressed array": (["fit", "t.npy.gz", "-o", "f"], "got 't.npy.gz'", "; gunzip it first"),
    "a spreadsheet": (["diagnose", "f", "t.xlsx"], "got 't.xlsx'", "; save it as .csv"),
    "another format": (["score", "f", "t.h5"], "got 't.h5'", "; save it as .npy, .csv or .parquet"),
    "too early an option": (["--seed", "1", "demo"], "an option of headrace, got --seed", "headrace --help lists"),
    "too much": (["info", "f", "now"], "info: error: expected no further argument, got 'now'", "headrace info --help"),
    "too little": (["fit", "t.csv"], "required: -o/--output", "headrace fit --help explains them"),
}  # fmt: skip


@pytest.mark.parametrize("case", MEANT)
def test_a_wrong_command_line_is_one_line_with_the_intended_option(folder, run, case):
    arguments, *patterns = MEANT[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    for pattern in patterns:
        assert pattern in err


def test_values_are_no_unknown_options(folder, run):
    """A text that begins like an option is an option only where an option may be."""
    write_csv("t.csv", table(), ["--x", "b", "c"])
    assert run("fit", "t.csv", "-o", "f.safetensors", "--columns=--x,b", *SHORT)[0] == 0
    code, _, err = run("fit", "t.csv", "-o", "f.safetensors", "--validation", "2", "--columns=--x")
    assert code == 2
    assert "argument --validation: expected a share" in err


def test_the_error_for_a_class_label_names_the_option(folder, run):
    """Advice about a class label works for archives without a header, with a class in the last column."""
    with open("t.csv", "w") as file:
        file.writelines(f"{a:.6f},{b:.6f},{c:.6f},{'gh'[i % 2]}\n" for i, (a, b, c) in enumerate(table()))
    outcome = run("fit", "t.csv", "-o", "f.safetensors", *SHORT)
    check_error(*outcome, ["t.csv: line 1 has numbers and other text", "--header no for a row; --columns 0:3 takes"])
    code, _, err = run("fit", "t.csv", "-o", "f.safetensors", "--header", "no", "--categories", "none", *SHORT)
    assert (code, err.splitlines()[0]) == (0, "headrace: warning: t.csv: left out: column 3 (text)")
    outcome = run("score", "f.safetensors", "t.csv", "--header", "no", "--columns", "1:4")
    check_error(*outcome, ["line 1, column 3: expected a number, got 'g'; --columns 1:3 takes the columns of numbers"])
    assert run("score", "f.safetensors", "t.csv", "--header", "no")[0] == 0
    assert run("fit", "t.csv", "-o", "f.safetensors", "--header", "no", "--columns", "0:3", *SHORT)[0] == 0


# ---- outputs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Let slow commands compute little."""
    train, held_out = load_stars()
    monkeypatch.setattr(demo, "load_stars", lambda: (train[:400], held_out[:100]))
    monkeypatch.setattr(demo, "PIXELS", 40)
    monkeypatch.setattr(_bench, "LEAST_CALLS", 1)
    monkeypatch.setattr(_bench, "copy_bandwidth", lambda megabytes: 20.0)
    own = [_bench._of_map(10, 2), _bench._of_flow("RealNVP 64, 8 x [256, 256]", hr.MAF(2, hidden=(8,)), "sample", 100)]
    monkeypatch.setattr(_bench, "workloads", lambda: iter(own))


OUTPUTS = {
    "info": ["info"],
    "fit": ["fit", "t.csv", "-o", "g.safetensors", *SHORT],
    "fit --auto": ["fit", "t.csv", "-o", "g.safetensors", "--auto", "--time-budget", 0.4, "--quiet"],
    "score": ["score", "flow.safetensors", "t.csv", "-o", "s.csv", "--quiet"],
    "diagnose": ["diagnose", "flow.safetensors", "t.csv", "--quiet"],
    "sample": ["sample", "flow.safetensors", "-n", 3, "-o", "s.csv", "--quiet"],
    "bench": ["bench", "--quick", "--quiet"],
    "demo": ["demo", "--epochs", 1, "--quiet"],
}


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_as_wide_as_the_terminal(folder, run, monkeypatch, quick, name, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    write_csv("t.csv", table(600), ["mass", "logarithm of the radius", "age"])
    small_flow()
    code, out, _ = run(*OUTPUTS[name])
    assert code == 0
    check_width(out, columns)
    words = " ".join(out.split())
    assert {"diagnose": "rows that fit worst", "bench": "roofline:", "info": "instruction set"}.get(name, "") in words
    if name == "fit --auto":  # the output lists each density with its likelihood
        for density in ("Gaussian", "kernel density"):
            assert re.search(rf"{density}\D+-?\d+\.\d{{4}} ± \d\.\d{{4}}", words)


@pytest.mark.costly
def test_a_terminal_has_bars_and_messages_within_its_width(folder):
    """On a pseudo-terminal of 80 columns a fit shows all bars and a report, and breaks a long error between words."""
    write_csv("t.csv", table(3000) ** 3, NAMES)
    environment = {**ENVIRONMENT, "COLUMNS": "80", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    own = [
        sys.executable,
        "-m",
        "headrace",
        "fit",
        "t.csv",
        "-o",
        "f.safetensors",
        "--hidden",
        "8",
        "--transforms",
        "1",
    ]
    text = on_a_terminal([*own, "--epochs", "70"], environment)
    for phase in ("read", "marginals", "try marginals", "fit", "70/70"):
        assert phase in text
    assert "saved to f.safetensors" in text
    error = on_a_terminal([*own, "--flow", "Nsf"], environment)
    assert max(map(len, error.splitlines())) <= 80
    assert len(error.splitlines()) > 1
    assert "did you mean NSF?" in " ".join(error.split())


def test_ctrl_c_on_a_terminal_saves_the_weights(folder):
    write_csv("t.csv", table(2000), NAMES)
    own = ["--hidden=8", "--transforms=1", "--learning-rate=0.02", f"--epochs={10**7}", f"--patience={10**7}"]
    command = [sys.executable, "-m", "headrace", "fit", "t.csv", "-o", "f.safetensors", *own]
    environment = {**ENVIRONMENT, "COLUMNS": "120", "TERM": "xterm"}
    text = on_a_terminal(command, environment, stop=r"[1-9]\d*/10000000")
    assert "saved to f.safetensors" in text
    assert "headrace: interrupted: the best weights so far were saved" in text


def on_a_terminal(command, environment, stop=None):
    """Return the output of a command on a terminal, without colours; send Ctrl-C after the text `stop`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, int(environment["COLUMNS"]), 0, 0))
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        found = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # on Linux a terminal ends with this error
                break
            if not part:
                break
            found += part
            if stop and re.search(stop, COLOURS.sub("", found.decode(errors="ignore"))):
                process.send_signal(signal.SIGINT)
                stop = None
        process.wait()
    os.close(ours)
    return COLOURS.sub("", found.decode()).replace("\r", "\n")


# ---- tables of text --------------------------------------------------------------------------------------------------


def test_a_table_wraps_its_texts_or_becomes_a_list():
    grid = Grid(("name", "value", "what"), [("a", "-1.5 ± 0.1", "some words that are long enough to wrap")], (1,), (2,))
    assert grid.lines(80) == [
        "name       value  what",
        "a     -1.5 ± 0.1  some words that are long enough to wrap",
    ]
    assert grid.lines(40)[1:] == [
        "a     -1.5 ± 0.1  some words that are",
        "                  long enough to wrap",
    ]
    assert grid.lines(24) == [
        "a",
        "  value: -1.5 ± 0.1",
        "  what: some words that",
        "    are long enough to",
        "    wrap",
    ]
    assert Grid(("a",), []).lines() == []
    assert lines_of(["", Item("text"), "end"]) == ["", "  text", "end"]


def test_values_and_their_signs_stay_together():
    assert wrapped("a density at p = 0.03 is odd", columns=18) == ["a density at", "p = 0.03 is odd"]
    assert wrapped("/a/path/that-is-longer-than/the/line", columns=12) == ["/a/path/that-is-longer-than/the/line"]


# ---- gzip and digits -------------------------------------------------------------------------------------------------


def test_gzip(folder, run, result, monkeypatch):
    """Compressed text may be in files of any name, in folders and from a pipe; the fit is that of the plain table."""
    write_csv("t.csv", table(), NAMES)
    with open("t.csv", "rb") as plain:
        packed = gzip.compress(plain.read())
    os.mkdir("packed")
    for name in ("p.csv.gz", "packed/p.txt.gz", "named.csv"):
        with open(name, "wb") as file:
            file.write(packed)
    want = result("fit", "t.csv", "-o", "f.safetensors", *SHORT)
    for data in ("p.csv.gz", "packed", "named.csv"):
        found = result("fit", data, "-o", "f.safetensors", *SHORT)
        assert found["log_likelihood"] == want["log_likelihood"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
    assert result("fit", "-", "-o", "f.safetensors", *SHORT)["log_likelihood"] == want["log_likelihood"]
    assert result("score", "f.safetensors", "p.csv.gz", "-o", "s.npy")["rows"] == 200
    with open("p.csv.gz", "wb") as file:
        file.write(packed[:-20])
    check_error(*run("fit", "p.csv.gz", "-o", "f.safetensors", *SHORT), ["p.csv.gz: expected a whole gzip file"])


def significant(text):
    return len(text.lstrip("-").split("e")[0].replace(".", "").lstrip("0"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_and_scores_have_the_digits_of_the_flow(folder, run, result, dtype):
    write_csv("t.csv", table() - 2.0, NAMES)  # values of a CSV file are float64
    result("fit", "t.csv", "-o", "f.safetensors", "--dtype", dtype, *SHORT)
    lines = run("sample", "f.safetensors", "-n", 200, "--seed", 1)[1].splitlines()[1:]
    digits = [significant(field) for line in lines for field in line.split(",")]
    drawn = np.array([line.split(",") for line in lines], dtype)
    assert (drawn == hr.load("f.safetensors").sample(200, seed=1)).all()  # printed digits determine each value exactly
    scores = run("score", "f.safetensors", "t.csv")[1].splitlines()
    most = 9 if dtype == "float32" else 17
    assert max(digits) == max(map(significant, scores)) == most
    assert np.median(digits) >= most - 1


def test_whole_numbers_and_columns_far_from_zero_keep_their_digits(folder, run, result):
    """Samples of a float32 flow have more than nine digits for large counts, or if the mean is large, as for times."""
    rng = np.random.default_rng(0)
    x = np.stack(
        [rng.standard_normal(400), 1.7e9 + 30.0 * rng.standard_normal(400), 10**12 + rng.integers(0, 50, 400)], axis=1
    )
    write_csv("t.csv", x, ["a", "time", "count"])
    result("fit", "t.csv", "-o", "f.safetensors", "--discrete", "count", *SHORT)
    rows = [line.split(",") for line in run("sample", "f.safetensors", "-n", 100, "--seed", 1)[1].splitlines()[1:]]
    assert max(significant(row[0]) for row in rows) == 9
    assert len({row[1] for row in rows}) == 100
    assert max(significant(row[1]) for row in rows) >= 16
    assert all(re.fullmatch(r"[0-9]{12,13}", row[2]) for row in rows)
