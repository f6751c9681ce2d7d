"""Names of columns come from frames of a fit, are kept in files and copies, and are used for checks and for bounds."""

import copy
import json
import pickle

import numpy as np
import pytest

import cases
import headrace as hr
from headrace import files

pd = pytest.importorskip("pandas", reason="pandas is not installed")
pl = pytest.importorskip("polars", reason="polars is not installed")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

NAMES = ("age", "mass", "share")
X = pd.DataFrame(cases.rows(120, 3, "float64"), columns=list(NAMES))
CONTEXT = pd.DataFrame({"year": cases.rows(120, 1, "float64")[:, 0]})
SHORT = {"epochs": 2, "progress": False}


def made(**settings):
    return hr.MAF(3, transforms=1, hidden=(4,), **settings)


def fitted(x=X, context=None):
    flow = made(context=0 if context is None else 1)
    flow.fit(x, context, **SHORT)
    return flow


@pytest.mark.parametrize("make", [lambda x: x, pl.from_pandas, pa.Table.from_pandas, lambda x: x.astype("Float64")])
def test_a_fit_keeps_the_names_of_a_frame(make):
    flow = fitted(make(X), make(CONTEXT))
    assert flow.feature_names == NAMES
    assert flow.context_names == ("year",)
    cases.assert_same_bits(flow.parameters, fitted(X.to_numpy(), CONTEXT.to_numpy()).parameters)


def test_arrays_and_numbered_columns_have_no_names():
    for x in (X.to_numpy(), X.set_axis(range(3), axis=1), X.set_axis(["a", 1, "b"], axis=1)):
        flow = fitted(x)
        assert flow.feature_names is None
        assert flow.context_names is None
        assert files.notes_of_bytes(hr.to_bytes(flow)) == {}


def test_copies_and_files_keep_names(tmp_path):
    flow = fitted(X, CONTEXT)
    flow.save(tmp_path / "flow.safetensors")
    others = [
        hr.load(tmp_path / "flow.safetensors"),
        hr.from_bytes(hr.to_bytes(flow)),
        pickle.loads(pickle.dumps(flow)),
        copy.copy(flow),
        copy.deepcopy(flow),
        flow.astype("float64"),
        hr.from_bytes(hr.to_bytes(hr.Ensemble([flow, flow]))),
        hr.Ensemble([flow]).astype("float64"),
    ]
    for other in others:
        assert (other.feature_names, other.context_names) == (NAMES, ("year",))
    assert hr.to_bytes(others[0]) == hr.to_bytes(flow)
    assert others[6][0].feature_names == NAMES


def test_the_note_is_that_of_the_command_line():
    """Headrace 0.4 reads names from a note of the file, which is written if all names are known."""
    notes = files.notes_of_bytes(hr.to_bytes(fitted(X, CONTEXT)))
    assert json.loads(notes["columns"]) == {"features": list(NAMES), "context": ["year"]}
    notes = files.notes_of_bytes(hr.to_bytes(fitted(X)))
    assert json.loads(notes["columns"]) == {"features": list(NAMES), "context": []}
    notes = files.notes_of_bytes(hr.to_bytes(fitted(X, CONTEXT.to_numpy())))
    assert json.loads(notes["columns"]) == {"features": list(NAMES), "context": None}


@pytest.mark.parametrize(
    "note",
    [
        "ä",
        "[]",
        "null",
        '{"features": ["a", "b"], "context": []}',
        '{"features": ["a", "b", 3], "context": []}',
        '{"features": "abc", "context": []}',
        '{"features": ["a", "b", "c"], "context": ["d"]}',
        '{"features": ["a", "b", "c"]}',
        "[" * 40,
    ],
)
def test_a_note_that_does_not_fit_is_left_out(note):
    flow = hr.from_bytes(hr.to_bytes(made(), {"columns": note}))
    assert flow.feature_names is None
    assert flow.log_prob(X).shape == (120,)


WRONG = {
    "another order": (X[["mass", "age", "share"]], r"in the order 'mass', 'age', 'share'; choose them by name, x\[\["),
    "another name": (X.rename(columns={"age": "time"}), "without 'age' and with 'time'"),
    "one more": (X.assign(more=1.0), "with 'more'"),
    "one less": (X[["age", "share"]], "without 'mass'"),
    "polars": (pl.from_pandas(X[["mass", "age", "share"]]), "in the order 'mass'"),
    "arrow": (pa.Table.from_pandas(X[["mass", "age", "share"]]), "in the order 'mass'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_frames_with_other_columns_are_refused(wrong):
    frame, words = WRONG[wrong]
    flow = fitted()
    calls = {
        "log_prob": lambda: flow.log_prob(frame),
        "to_latent": lambda: flow.to_latent(frame),
        "score": lambda: flow.log_prob_and_score(frame),
        "gradient": lambda: flow.nll_and_grad(frame),
        "fit": lambda: flow.fit(frame, **SHORT),
        "ensemble": lambda: hr.Ensemble([flow]).log_prob(frame),
        "spread": lambda: hr.Ensemble([flow]).spread(frame),
        "diagnose": lambda: hr.diagnose(flow, frame, progress=False),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match=f"^x: expected the columns of the fit in their order, 'age'.*{words}"):
            call()
    assert flow.feature_names == NAMES


def test_a_context_with_other_columns_is_refused():
    flow, other = fitted(X, CONTEXT), CONTEXT.rename(columns={"year": "day"})
    for call in (
        lambda: flow.log_prob(X, other),
        lambda: flow.log_prob(X.to_numpy(), other),
        lambda: flow.sample(120, other),
        lambda: flow.fit(X, other, **SHORT),
        lambda: hr.Ensemble([flow]).sample(120, other),
    ):
        with pytest.raises(ValueError, match=r"^context: .* without 'year' and with 'day'"):
            call()
    assert flow.sample(120, CONTEXT).shape == (120, 3)


def test_names_of_arrays_and_latent_frames_are_not_checked():
    flow = fitted()
    cases.assert_same_bits(flow.log_prob(X.to_numpy()), flow.log_prob(X))
    assert flow.to_data(X.set_axis(["u", "v", "w"], axis=1))[0].shape == (120, 3)
    flow.fit(X.to_numpy(), **SHORT)
    assert flow.feature_names == NAMES


def test_a_failed_fit_keeps_no_names():
    flow, bad = made(), X.copy()
    bad.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        flow.fit(bad, **SHORT)
    assert flow.feature_names is None


def test_messages_about_arrays_have_the_names():
    flow = hr.MAF(NAMES, transforms=1, hidden=(4,), bounds={"share": (-1e3, 1e3), 1: (None, 1e3)})
    flow.fit(X, **SHORT)
    outside = X.to_numpy().copy()
    outside[4, 2] = 1e4
    with pytest.raises(ValueError, match="first in row 4, column 'share'"):
        flow.fit(outside, **SHORT)


def test_marginals_have_the_names_of_their_columns():
    flow = hr.MAF(NAMES, transforms=1, hidden=(4,), link="none")
    assert flow.marginal(2).feature_names == NAMES[:2]
    assert flow[:1].feature_names is None


@pytest.mark.parametrize("features", [NAMES, list(NAMES), X.columns, iter(NAMES)])
def test_names_instead_of_a_number(features):
    flow = hr.NSF(features, transforms=1, hidden=(4,), bounds={"mass": (0, None)}, periodic={"share": (0, 1)})
    assert (flow.features, flow.feature_names) == (3, NAMES)
    assert flow.transforms[-1].bounds == (None, (0.0, None), None)
    assert flow.transforms[-1].periodic == (None, None, (0.0, 1.0))
    with pytest.raises(ValueError, match=r"x: .* in the order 'mass'"):
        flow.log_prob(X[["mass", "age", "share"]])


@pytest.mark.parametrize("make", [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF, hr.PlanarFlow, hr.RadialFlow])
def test_bounds_by_name_are_those_by_position(make):
    one = make(NAMES, bounds={"mass": (0, None), "age": (1, 2)})
    other = make(3, bounds=[(1, 2), (0, None), None])
    third = make(3, bounds={1: (0, None), -3: (1, 2)})
    x = np.abs(cases.rows(9, 3, "float64")) % 0.9 + 1.01
    cases.assert_same_bits(one.log_prob(x), other.log_prob(x))
    cases.assert_same_bits(third.log_prob(x), other.log_prob(x))


def test_a_uniform_base_takes_bounds_by_name():
    ends = dict.fromkeys(NAMES, (0.0, 1.0))
    assert hr.NSF(NAMES, base="uniform", bounds=ends).sample(9, seed=0).shape == (9, 3)
    with pytest.raises(ValueError, match="bounds"):
        hr.NSF(NAMES, base="uniform", bounds={"age": (0.0, 1.0)})


@pytest.mark.parametrize(
    ("features", "settings", "words"),
    [
        (3, {"bounds": {"mass": (0, None)}}, "bounds: expected columns by number, because features has no names"),
        (
            NAMES,
            {"bounds": {"weight": (0, None)}},
            "bounds: expected a column of features, got 'weight'; there are 'age'",
        ),
        (NAMES, {"periodic": {3: (0, 1)}}, "periodic: "),
        (NAMES, {"bounds": {"mass": (0, None), 1: (0, None)}}, "bounds: expected each column once"),
        (("a", "b", "a"), {}, "features: expected different names, got 'a' twice"),
        ("abc", {}, "features: expected an integer"),
        ([], {}, "features: expected the number of columns, or their names, got"),
        ([1, 2], {}, "features: expected the number of columns, or their names, got"),
    ],
)
def test_wrong_names(features, settings, words):
    with pytest.raises((TypeError, ValueError, IndexError), match=words):
        hr.MAF(features, **settings)


def test_dual_ascent():
    x = X.abs() + 0.1
    flow = hr.DualAscentFlow(steps=2, refine=False, bounds={"mass": (0, None)}).fit(x, progress=False)
    assert flow.feature_names == NAMES
    assert flow.transforms[-1].bounds == (None, (0.0, None), None)
    other = hr.DualAscentFlow(steps=2, refine=False, bounds=[None, (0, None), None]).fit(x.to_numpy(), progress=False)
    cases.assert_same_bits(flow.log_prob(x), other.log_prob(x))
    with pytest.raises(ValueError, match="because x has no names"):
        hr.DualAscentFlow(bounds={"mass": (0, None)}).fit(x.to_numpy(), progress=False)
    with pytest.raises(ValueError, match="bounds"):
        hr.DualAscentFlow(bounds={"mass": (1, 0)})


def test_streams():
    flow = made()
    flow.fit(hr.rows.blocks(lambda: iter([X[:50], X[50:]]), buffer=60), **SHORT)
    assert flow.feature_names == NAMES
    with pytest.raises(ValueError, match="in the order 'mass'"):
        flow.log_prob(X[["mass", "age", "share"]])


def test_pictures_and_diagnoses_have_the_names():
    flow = fitted(X, CONTEXT)
    found = hr.diagnose(flow, X.to_numpy(), CONTEXT.to_numpy(), progress=False)
    assert found.names == NAMES
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figure = hr.plot.corner(fitted(), draws=100)
    assert {axis.get_xlabel() for axis in figure.axes} >= set(NAMES)
    figure = hr.plot.conditional(flow, CONTEXT, "year", draws=500, columns=["age", "mass"])
    assert figure.axes[0].get_title("left").startswith("year = ")
    assert "age" in {axis.get_xlabel() for axis in figure.axes}


def test_the_command_line_writes_names(tmp_path, capsys):
    from headrace._cli.cli import main

    path = str(tmp_path / "flow.safetensors")
    fitted().save(path)
    assert main(["sample", path, "-n", "3", "--seed", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == ",".join(NAMES)
    X[["share", "age", "mass"]].to_csv(tmp_path / "rows.csv", index=False)
    assert main(["score", path, str(tmp_path / "rows.csv"), "--quiet"]) == 0
    scores = [float(line) for line in capsys.readouterr().out.split()]
    np.testing.assert_allclose(scores, hr.load(path).log_prob(X), rtol=1e-5)


def test_known_columns_of_a_conditional_are_checked_too():
    flow = hr.MAF(NAMES, transforms=1, hidden=(4,), link="none")
    rest = flow.given(X[["age", "mass"]])
    cases.assert_same_bits(rest.sample(seed=1), flow.given(X.to_numpy()[:, :2]).sample(seed=1))
    with pytest.raises(ValueError, match=r"x: .* 'age', 'mass', got them without 'age', 'mass' and with 'share'"):
        flow.given(X[["share"]], columns=[0, 1])


def test_a_fit_of_a_group_keeps_the_names_given_at_first_and_takes_those_of_frames():
    from headrace.distributed import local

    how = {"group": local(), "epochs": 1, "batch_size": 50, "progress": False, "validation": 0.5}
    flow = hr.MAF(NAMES, transforms=1, hidden=(4,))
    flow.fit({0: X.to_numpy()}, **how)
    assert flow.feature_names == NAMES
    other = made()
    other.fit({0: X}, **how)
    assert other.feature_names == NAMES
