"""The old names of modules that moved: public ones import their successor for one version, with a warning."""

import pickle
import subprocess
import sys

import pytest

import headrace as hr
from headrace._base import moved

OLD_PICKLE = b"cheadrace.network\nLayer\n(I8\ntR."  # protocol 0, of a version in which the class was there


@pytest.fixture
def unimported(monkeypatch):
    """No old name was imported before."""
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
def test_a_name_in_pickles_warns_nobody(name, unimported):
    if name == "headrace._xla":
        pytest.importorskip("jax", reason="jax is not installed")
    __import__(name)
    assert sys.modules[name] is sys.modules[moved.PICKLED[name]]


def test_a_pickle_of_an_earlier_version_is_read(unimported):
    with pytest.warns(DeprecationWarning, match="old name"):
        assert pickle.loads(OLD_PICKLE) == hr.Layer(8)


def test_files_of_a_folder_that_moved_are_imported_once(unimported):
    with pytest.warns(DeprecationWarning, match="headrace.transforms: "):
        from headrace.transforms.masked import Coupling
    assert Coupling is hr.Coupling
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        __import__("headrace.transforms.nothing")


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        __import__("headrace.nothing")
    assert not hasattr(hr, "nothing")


def test_the_version_that_ends_them_has_not_come():
    current = tuple(int(part) for part in hr.__version__.split(".")[:2])
    assert current < tuple(int(part) for part in moved.ENDS.split(".")), "remove headrace._base.moved and this file"
