"""Former names of modules, methods and functions work for one version, with a warning if they were public."""

import ast
import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
from headrace import sklearn
from headrace._base import moved
from headrace._cli.options import OLD as OLD_OPTIONS

ROOT = Path(__file__).resolve().parents[2]

OLD_PICKLE = b"cheadrace.network\nLayer\n(I8\ntR."  # a pickle from a version with this class


@pytest.fixture
def unimported(monkeypatch):
    """Forget old names that other tests imported."""
    for name in [*moved.MOVED, "headrace.transforms.masked"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
        parent = sys.modules.get(name.rpartition(".")[0])
        if parent is not None:
            monkeypatch.delitem(vars(parent), name.rpartition(".")[2], raising=False)


@pytest.mark.parametrize("name", moved.PUBLIC)
def test_an_old_public_name_is_its_successor_and_warns_at_the_import(name, unimported):
    with pytest.warns(DeprecationWarning, match=f"^{name}: import its names from headrace.* ends with 0.7$") as caught:
        exec(compile(f"import {name} as module", "a user's file", "exec"), space := {})
    assert [warning.filename for warning in caught] == ["a user's file"]
    assert space["module"] is sys.modules[moved.PUBLIC[name]]
    assert not {one for one in space["module"].__dict__.get("__all__", ()) if not hasattr(hr, one)}


@pytest.mark.parametrize("name", moved.PUBLIC)
def test_an_old_name_is_an_attribute_of_the_package(name, unimported):
    code = f"import sys, headrace; assert headrace.{name.split('.')[1]} is sys.modules[{moved.PUBLIC[name]!r}]"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("name", moved.PICKLED)
def test_a_name_in_pickles_does_not_warn(name, unimported):
    if name == "headrace._xla":
        pytest.importorskip("jax", reason="jax is not installed")
    __import__(name)
    assert sys.modules[name] is sys.modules[moved.PICKLED[name]]


def test_a_pickle_of_an_earlier_version_is_read(unimported):
    with pytest.warns(DeprecationWarning, match="old name"):
        assert pickle.loads(OLD_PICKLE) == hr.Layer(8)


def test_files_of_a_folder_that_moved_are_imported_once(unimported):
    with pytest.warns(DeprecationWarning, match="transforms.masked: import its names from headrace.transforms"):
        from headrace.transforms.masked import Coupling
    assert Coupling is hr.transforms.Coupling
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        __import__("headrace.transforms.nothing")


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        __import__("headrace.nothing")
    assert not hasattr(hr, "nothing")


def test_the_present_version_is_before_the_one_without_old_names():
    current = tuple(int(part) for part in hr.__version__.split(".")[:2])
    assert current < tuple(int(part) for part in moved.ENDS.split(".")), "remove headrace._base.moved and this file"


@pytest.mark.costly
def test_each_warning_of_a_former_name_has_its_last_version():
    found = []
    for path in Path(hr.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {ast.unparse(node.targets[0]): node.value for node in ast.walk(tree) if isinstance(node, ast.Assign)}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            names = {one.id for one in ast.walk(call) if isinstance(one, ast.Name)}
            if ast.unparse(call.func) in ("warn", "warnings.warn") and names & {"DeprecationWarning", "FutureWarning"}:
                text = texts.get(ast.unparse(call.args[0]), call.args[0])
                found.append(f"{path.name}: {ast.unparse(text)}")
    assert len(found) >= 6
    assert not [one for one in found if "{ENDS}" not in one]


def test_the_page_of_changes_has_every_old_name():
    page = (ROOT / "docs" / "from_0_5.md").read_text(encoding="utf-8")
    names = [*moved.PUBLIC, *moved.FOLDERS, *moved.NAMES, *hr.transforms.__all__, *OLD_FUNCTIONS, *OLD_METHODS]
    names += [*moved.ARGUMENTS, *sklearn._OLD, *(option for options in OLD_OPTIONS.values() for option in options)]
    missing = [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)]
    assert not missing
    assert f"end with {moved.ENDS}" in page


# ---- names of methods and functions ----------------------------------------------------------------------------------

X, ONES = np.ones((4, 3)), np.ones(4)
COUPLING = (X, np.full((4, 3, 2), 0.2))
OLD_FUNCTIONS = {
    "coupling_forward": (COUPLING, lambda: hr.ops.coupling(*COUPLING)),
    "coupling_inverse": (COUPLING, lambda: hr.ops.coupling(*COUPLING, direction="inverse")),
    "coupling_backward": ((*COUPLING, X, ONES), lambda: hr.ops.coupling_vjp(*COUPLING, X, ONES)),
    "planar_forward": ((X, np.ones(7)), lambda: hr.ops.vector_map(X, np.ones(7), "planar")),
    "planar_inverse": ((X, np.ones(7)), lambda: hr.ops.vector_map(X, np.ones(7), "planar", direction="inverse")),
    "planar_backward": ((X, np.ones(7), X, ONES), lambda: hr.ops.vector_map_vjp(X, np.ones(7), X, ONES, "planar")),
    "radial_forward": ((X, np.ones(5)), lambda: hr.ops.vector_map(X, np.ones(5), "radial")),
    "radial_inverse": ((X, np.ones(5)), lambda: hr.ops.vector_map(X, np.ones(5), "radial", direction="inverse")),
    "radial_backward": ((X, np.ones(5), X, ONES), lambda: hr.ops.vector_map_vjp(X, np.ones(5), X, ONES, "radial")),
}


@pytest.mark.parametrize("name", OLD_FUNCTIONS)
def test_an_old_function_of_ops_is_its_successor(name):
    given, successor = OLD_FUNCTIONS[name]
    with pytest.warns(DeprecationWarning, match=rf"^ops.{name}: use ops.(coupling|vector_map).* 0.7$") as caught:
        got = getattr(hr.ops, name)(*given)
    assert [warning.filename for warning in caught] == [__file__]
    for one, other in zip(got, successor(), strict=True):
        cases.assert_same_bits(one, other)


def test_keywords_of_old_functions_and_other_names():
    with pytest.warns(DeprecationWarning, match="direction='inverse'"):
        z, _ = hr.ops.radial_inverse(x=X, params=np.ones(5))
    cases.assert_same_bits(z, OLD_FUNCTIONS["radial_inverse"][1]()[0])
    for name in ("planar", "planar_vjp", "spherical_forward", "coupling_"):
        assert not hasattr(hr.ops, name)


OLD_METHODS = [f"{name}_and_vjp" for name in ("log_prob", "to_data", "to_latent", "forward", "inverse")]


def test_old_methods_of_derivatives_are_their_successors():
    flow, signal = hr.MAF(3, transforms=1, hidden=(4,), dtype="float64"), hr.WaveNet(layers=2, channels=4)
    sequences = np.zeros((4, 6, 1))
    for holder, name, given in [
        (flow, "log_prob", (X, ONES)),
        (flow, "to_data", (X, X, ONES)),
        (flow, "to_latent", (X, X, ONES)),
        (flow[0], "forward", (X, X, ONES)),
        (flow[0], "inverse", (X, X, ONES)),
        (signal, "log_prob", (sequences, ONES)),
    ]:
        with pytest.warns(DeprecationWarning, match=rf"{name}_and_vjp: .* {name}_vjp\(..., values=True\); ") as caught:
            old = getattr(holder, f"{name}_and_vjp")(*given, wrt="inputs")
        assert [warning.filename for warning in caught] == [__file__]
        new = getattr(holder, f"{name}_vjp")(*given, wrt="inputs", values=True)
        for one, other in zip((*old[0], *old[1]), (*new[0], *new[1]), strict=True):
            cases.assert_same_bits(one, other)


# ---- public places of classes ----------------------------------------------------------------------------------------

PLACES = "ascent choosing continuum densities diagnosis distributed rows sequences training transforms variational"
PUBLIC_MODULES = ("headrace", *(f"headrace.{place}" for place in PLACES.split()))


@pytest.mark.parametrize("name", [*moved.NAMES, *hr.transforms.__all__])
def test_former_names_of_headrace_are_those_of_the_module(name):
    module = importlib.import_module(f"headrace.{moved.NAMES.get(name, 'transforms')}")
    assert name in module.__all__
    assert name not in hr.__all__
    with pytest.warns(DeprecationWarning, match=rf"^headrace.{name}: use {module.__name__}.{name}; ") as caught:
        assert getattr(hr, name) is getattr(module, name)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_a_class_is_shown_where_it_can_be_imported(module):
    names = importlib.import_module(module).__all__
    for cls in (getattr(importlib.import_module(module), name) for name in names):
        if isinstance(cls, type):
            assert cls.__module__ in PUBLIC_MODULES
            assert pickle.loads(pickle.dumps(cls)) is cls


def test_classes_under_their_private_names_in_pickles():
    for place in ("_flow.bases StandardNormal", "_fit.history History", "_flow.transforms.masked Coupling"):
        module, name = place.split()
        cls = pickle.loads(f"cheadrace.{module}\n{name}\n.".encode())
        assert cls.__name__ == name
        assert "_" not in cls.__module__


def test_headrace_has_at_most_fifty_names():
    assert len(hr.__all__) <= 50
    assert all(hasattr(hr, name) for name in hr.__all__)
