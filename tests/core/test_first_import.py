"""`import headrace` leaves out the modules above flows, whose names are imported at their first use."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace._base import stored as _stored

SMALL = {"transforms": 1, "hidden": (4,)}


def mixed_density():
    from headrace._tables.discrete import Discrete
    from headrace._tables.mixed_fit import fitted

    x = np.random.default_rng(0).normal(size=(200, 2))
    x[:, 0] = x[:, 0] > 0
    own = x, None, None, [Discrete(0, (0.0, 1.0))], lambda columns, contexts: hr.MAF(len(columns), contexts, **SMALL), 0
    return fitted(*own, progress=False, epochs=1)[0]


ABOVE = {
    "AdaptivePrediction": lambda: hr.AdaptivePrediction(1),
    "AscentFlow": lambda: hr.DualAscentFlow(steps=2, seed=0).fit(np.random.default_rng(0).normal(size=(200, 2))),
    "CausalConvolution": lambda: hr.CausalConvolution(1, channels=2, dilations=(1,)),
    "Ensemble": lambda: hr.Ensemble([hr.MAF(2, **SMALL)]),
    "LinearPrediction": lambda: hr.LinearPrediction(order=2),
    "MixedDensity": lambda: mixed_density(),
    "SequenceFlow": lambda: hr.SequenceFlow([hr.CausalConvolution(1, channels=2, dilations=(1,))]),
    "WaveNet": lambda: hr.WaveNet(channels=2, layers=1),
}


def fresh(code, *arguments):
    """Return the words that a new process, without any imports, prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_dir_lists_the_public_names_and_each_can_be_used():
    assert fresh("import headrace; print(*dir(headrace))") == dir(hr)
    assert {*hr.__all__, "__version__", "ops", "torch", "plot"} <= {*dir(hr)}
    assert {"Any", "TYPE_CHECKING", "_core"}.isdisjoint(dir(hr))
    fresh("import headrace\nfor name in headrace.__all__: getattr(headrace, name)")


def test_static_checkers_know_the_names_that_are_imported_later():
    tree = ast.parse(Path(hr.__file__).read_text())
    known = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in known.body if isinstance(node, ast.ImportFrom)]
    names = {(node.module, alias.name) for node in imports for alias in node.names if node.module != "headrace"}
    assert names == {(f"headrace.{module}", name) for name, module in hr._MODULE_OF.items()}
    functions = {node.name for node in known.body if isinstance(node, ast.FunctionDef)}
    assert functions == {alias.name for node in known.orelse for alias in node.names}
    assert {alias.name for node in imports for alias in node.names} >= {*hr.__all__} - {*vars(hr)}


def test_files_find_the_later_kinds():
    assert set(ABOVE) == set(_stored.LATER)
    at_once = fresh("import headrace; print(*headrace._base.stored.KINDS)")
    assert {*at_once, *ABOVE} == {*_stored._all_kinds()}
    assert set(ABOVE).isdisjoint(at_once)


@pytest.mark.parametrize("kind", ABOVE)
def test_a_file_of_a_later_kind_is_read_by_a_fresh_process(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(hr.to_bytes(ABOVE[kind]()))
    assert fresh("import sys, headrace; print(type(headrace.load(sys.argv[1])).__name__)", str(path)) == [kind]


def test_the_message_about_an_unknown_kind_has_all_kinds():
    code = "from headrace._base import stored as _stored\n"
    code += "try: _stored.Stored({'kind': 'none'}, {}, None).build(object)\nexcept ValueError as error: print(error)"
    assert set(ABOVE) <= {word.strip("',") for word in fresh(code)}
