"""The options ``--bounds`` and ``--periodic`` of ``headrace fit`` for columns within bounds and on circles."""

import numpy as np
import pytest

import headrace as hr
from cli_cases import SHORT, check_error, saved, table, write, write_csv

pytestmark = pytest.mark.programs


def bounded(names="age,share", first=()):
    """Write a table of the columns in `first`, a positive column, and a share."""
    rng = np.random.default_rng(0)
    x = np.column_stack([*first, rng.gamma(2.0, 3.0, 300), rng.beta(2.0, 5.0, 300)])
    return write("t.csv", f"{names}\n" + "\n".join(",".join(map(repr, row)) for row in x.tolist()))


@pytest.mark.parametrize("flow", ["MAF", "NSF", "DualAscentFlow"])
@pytest.mark.parametrize("bounds", ["age=0:,share=0:1", "1=0:1, 0=0:"])
def test_bounds_by_name_and_by_number(flow, bounds, run, folder):
    bounded()
    short = ("--set", "steps=3", "--quiet") if flow == "DualAscentFlow" else SHORT
    code, _, err = run("fit", "t.csv", "-o", "flow", "--flow", flow, "--bounds", bounds, *short)
    assert code == 0, err
    x = hr.load("flow").sample(500, seed=0)
    assert (x > 0).all()
    assert (x[:, 1] < 1).all()


def test_columns_are_those_of_the_table(run, folder):
    bounded("id,age,share", [np.arange(300.0)])
    code, _, err = run("fit", "t.csv", "-o", "flow", "--columns", "share,age", "--bounds", "2=0:1,age=0:", *SHORT)
    assert code == 0, err
    assert hr.load("flow").transforms[-1].bounds == ((0.0, 1.0), (0.0, None))


def test_names_may_hold_commas_and_equal_signs(run, folder):
    write("t.csv", '"a=b,c",d\n' + "\n".join(f"{x},{y}" for x, y in np.random.default_rng(0).random((100, 2))))
    code, _, err = run("fit", "t.csv", "-o", "flow", "--bounds", "d=:2,a=b,c=0:1", *SHORT)
    assert code == 0, err
    assert hr.load("flow").transforms[-1].bounds == ((0.0, 1.0), (None, 2.0))


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ("age", ["--bounds", "COLUMN=LOW:HIGH", "'age'"]),
        ("age=1", ["--bounds", "COLUMN=LOW:HIGH"]),
        ("age=:", ["--bounds", "one end or both"]),
        ("age=1:0", ["--bounds", "LOW below HIGH", "'age=1:0'"]),
        ("age=0:inf", ["--bounds", "finite"]),
        ("age=a:", ["--bounds", "finite numbers"]),
        ("height=0:", ["--bounds", "'height'"]),
        ("age=0:,0=0:", ["--bounds", "column 'age' twice"]),
        (
            "age=5:",
            ["t.csv: expected numbers between their bounds", "row 2, column 'age': 3.19907, bounds (5"],
        ),
    ],
)
def test_wrong_bounds_are_refused(bounds, words, run, folder):
    bounded()
    check_error(*run("fit", "t.csv", "-o", "flow", "--bounds", bounds, *SHORT), words)


def test_bounds_are_of_features(run, folder):
    saved("t.npy", table())
    more = ("--context", 2, "--bounds", "2=0:")
    check_error(*run("fit", "t.npy", "-o", "flow", *more, *SHORT), ["--bounds", "columns of features", "column 2"])


@pytest.mark.parametrize("more", [(), ("--bounds", "age=0:"), ("--bounds", "age=0:", "--ensemble", 2)])
def test_periodic_columns(more, run, folder):
    bounded("age,hour")
    short = ("--flow", "NSF", "--set", "coupling=true", *SHORT)
    code, _, err = run("fit", "t.csv", "-o", "flow", "--periodic", "hour=-0.5:0.5", *more, *short)
    assert code == 0, err
    found = hr.load("flow")
    flow = found if isinstance(found, hr.Flow) else found[0]
    assert flow.transforms[-1].periodic == (None, (-0.5, 0.5))
    assert flow.transforms[-1].bounds == ((0.0, None) if more else None, None)
    x = found.sample(500, seed=0)
    assert ((x[:, 1] >= -0.5) & (x[:, 1] < 0.5)).all()
    assert (x[:, 0] > 0).all() or not more


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--periodic", "share=0:"), ["--periodic", "both ends", "column 'share'"]),
        (("--periodic", "share"), ["--periodic", "COLUMN=LOW:HIGH", "both ends"]),
        (("--periodic", "share=1:0"), ["--periodic", "LOW below HIGH"]),
        (("--periodic", "share=0:1", "--bounds", "share=0:1"), ["--periodic", "without --bounds", "column 'share'"]),
        (("--periodic", "height=0:1"), ["--periodic", "'height'"]),
    ],
)
def test_wrong_periods_are_refused(options, words, run, folder):
    bounded()
    check_error(*run("fit", "t.csv", "-o", "flow", "--flow", "NSF", "--set", "coupling=true", *options, *SHORT), words)


@pytest.mark.long
def test_the_choice_of_a_flow_takes_periods(run, folder):
    bounded("age,hour")
    ends = ("--periodic", "hour=-0.5:0.5", "--bounds", "age=0:")
    code, _, err = run("fit", "t.csv", "-o", "flow", "--auto", "--time-budget", 3, *ends, "--quiet")
    assert code == 0, err
    x = hr.load("flow").sample(500, seed=0)
    assert ((x[:, 1] >= -0.5) & (x[:, 1] < 0.5)).all()
    assert (x[:, 0] > 0).all()


def test_a_uniform_base(folder, run, result):
    x = np.random.default_rng(0).random((300, 2)) * [1.0, 8.0] + [0.0, -3.0]
    write_csv("t.csv", x, ["a", "b"])
    fit = ["fit", "t.csv", "-o", "f.safetensors", "--base", "uniform", *SHORT]
    for kind in ("NSF", "MAF", "RealNVP", "IAF"):
        result(*fit, "--flow", kind, "--bounds", "a=0:1,b=-3:5")
        flow = hr.load("f.safetensors")
        assert isinstance(flow.base, hr.Uniform)
        assert np.isfinite(flow.log_prob(x)).all()
        assert flow.log_prob(x).mean() == pytest.approx(-np.log(8.0), abs=0.2)
    check_error(*run(*fit, "--bounds", "a=0:1"), [r"bounds[1]: expected (low, high) beside base='uniform'"])
    check_error(*run(*fit), ["bounds: expected (low, high) for each column"])
    outcome = run(*fit, "--flow", "PlanarFlow", "--bounds", "a=0:1,b=-3:5")
    check_error(*outcome, ["base: expected a base density", "PlanarFlow", "MAF, IAF, RealNVP and NSF take it"])
    code, _, err = run(*fit, "--base", "student")
    assert code == 2
    assert "argument --base: expected a base density or one of 'standard_normal', 'normal', 'logistic', 'stu" in err
