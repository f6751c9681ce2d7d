"""Tables of arguments: the signatures and help made from them, and old names that work with a warning."""

import inspect
import warnings

import numpy as np
import pytest

import headrace as hr
from headrace._base.keywords import meanings, table_of
from headrace._base.moved import ENDS
from headrace._core.settings import MapSettings
from headrace._flow import flow_arguments
from headrace._flow.fit_arguments import Arguments
from headrace._flow.transforms.bend import Bend
from headrace.sequences.settings import CausalSettings
from headrace.sklearn import FlowDensity

QUIET = {"epochs": 1, "progress": False}
FLOWS = [hr.MAF, hr.IAF, hr.RealNVP, hr.NSF, hr.PlanarFlow, hr.RadialFlow]
CALLS = [*FLOWS, hr.transforms.Planar, hr.CausalConvolution, hr.WaveNet, hr.DualAscentFlow, hr.auto, hr.Flow.fit]


def rows(count):
    return np.random.default_rng(0).standard_normal((count, 2))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_help_has_the_full_meaning_of_each_argument(call):
    text = inspect.getdoc(call)
    assert "    **" not in text
    assert max(map(len, text.splitlines())) <= 120
    stated = meanings(text)
    assert set(stated) == {*inspect.signature(call).parameters} - {"self"}
    assert not [name for name, meaning in stated.items() if meaning.startswith(("See ", "As in ")) or not meaning]


@pytest.mark.parametrize(
    "table",
    [flow_arguments.Sizes, flow_arguments.Linked, flow_arguments.Named, Bend, Arguments],
    ids=lambda t: t.__name__,
)
def test_a_table_has_a_meaning_for_each_argument(table):
    assert [name for name in meanings(table.__doc__) if name != "rng"] == [*table_of(table)]  # `rng` stands for a seed


def test_the_settings_of_sequences_have_meanings_beside_those_of_maps():
    of_maps = table_of(MapSettings).keys() - {"features", "context"}
    assert set(meanings(CausalSettings.__doc__)) == table_of(CausalSettings).keys() - of_maps


def test_flows_share_type_default_and_meaning_of_common_arguments():
    of_all = {*table_of(flow_arguments.Named), "context"}
    for name in of_all:
        shown = {str(inspect.signature(flow).parameters[name]) for flow in FLOWS}
        assert len(shown) == 1
        assert len({meanings(flow.__doc__)[name] for flow in FLOWS}) == 1


def test_an_old_name_of_an_argument_warns_of_its_successor():
    for call in (
        lambda **given: hr.auto(rows(40), families=("maf",), progress=False, **given),
        lambda **given: hr.MAF(2, transforms=1, hidden=(4,)).fit(rows(60), **QUIET, **given),
    ):
        with pytest.warns(DeprecationWarning, match=rf"\(seconds=...\): time_budget= .* ends with {ENDS}$") as caught:
            call(seconds=1.0)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            call(time_budget=1.0)
        with pytest.raises(TypeError, match="seconds: expected one of time_budget and seconds, its old name, got both"):
            call(seconds=1.0, time_budget=1.0)
    with pytest.warns(FutureWarning, match=r"time_budget: give fit=FitSettings\(time_budget=...\)"):
        assert FlowDensity("maf", time_budget=3.0).get_params()["fit__time_budget"] == 3.0
    with pytest.warns(FutureWarning, match="time_budget"), pytest.warns(DeprecationWarning, match="seconds"):
        assert FlowDensity("maf", seconds=3.0).get_params()["fit__time_budget"] == 3.0


def test_old_names_of_sequence_functions_have_the_same_results_with_a_warning():
    teacher = hr.WaveNet(layers=1, channels=2, map="affine", prediction=0, seed=1)
    x = np.random.default_rng(0).standard_normal((2, 20, 1))
    want = hr.diagnose_sequences(teacher, x, seed=3)
    with pytest.warns(
        DeprecationWarning, match=rf"^diagnose of sequences: call diagnose_sequences; .* {ENDS}$"
    ) as caught:
        # Texts are compared because NaN is not equal to NaN.
        assert repr(hr.diagnose(teacher, x, seed=3, progress=False)) == repr(want)
    assert caught[0].filename == __file__
    made = [hr.WaveNet(layers=1, channels=2, map="affine", reads="latent", seed=2) for _ in range(2)]
    given = {"steps": 2, "samples": 2, "length": 16, "progress": False}
    student, report = hr.distill_sequences(teacher, made[0], **given)
    with pytest.warns(DeprecationWarning, match=rf"^distill of sequences: call distill_sequences; .* {ENDS}$"):
        again, other = hr.distill(teacher, made[1], **given)
    assert report.kl == other.kl
    assert np.array_equal(student.parameters, again.parameters)
