"""The selection of tests and cases: pairs instead of products, and the few cases of ``--thin``."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import cores
import pairs
import selection

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("sizes", [(5,), (2, 2), (9, 4, 2), (4, 7, 4, 2), (2, 2, 2, 2, 2, 2), (20, 4, 2)], ids=str)
def test_every_pair_of_values_is_there(sizes):
    axes = [[f"{axis}{i}" for i in range(size)] for axis, size in enumerate(sizes)]
    rows = pairs.pairs_of(axes)
    for a, b in itertools.combinations(range(len(axes)), 2):
        assert {(row[a], row[b]) for row in rows} == set(itertools.product(axes[a], axes[b]))
    if len(sizes) > 1:
        largest = sorted(sizes)[-1] * sorted(sizes)[-2]
        # The product of the two largest axes is the least possible number of cases.
        assert largest <= len(rows) <= max(1.4 * largest, largest + 4)
    assert rows == pairs.pairs_of(axes)


@pytest.mark.parametrize(("sizes", "together"), [((9, 11, 2, 2), (1, 2, 3)), ((3, 2, 2), (2, 0)), ((4, 2, 3), (1,))])
def test_every_combination_of_axes_that_choose_together_is_there(sizes, together):
    axes = [range(size) for size in sizes]
    rows = pairs.pairs_of(axes, together)
    for some in (*itertools.combinations(range(len(axes)), 2), together):
        assert {tuple(row[a] for a in some) for row in rows} == set(itertools.product(*(axes[a] for a in some)))
    assert len(rows) <= 1.1 * len(pairs.pairs_of(axes))  # the two longest axes alone need that many cases


@pytest.mark.parametrize("together", [(), (0, 2, 3), (1, 2, 3)])
@pytest.mark.parametrize("empty", [[(1, 0)], [(1, 0), (1, 6)], [(0, 2), (1, 0)]])
def test_an_empty_case_covers_only_the_values_that_make_it_empty(empty, together):
    """Each axis has different integers, so that an integer identifies a value."""
    axes = [range(10 * axis, 10 * axis + size) for axis, size in enumerate((4, 7, 2, 2))]
    nothing = {axes[axis][place] for axis, place in empty}
    rows = pairs.pairs_of(axes, together, empty)
    computing = [row for row in rows if nothing.isdisjoint(row)]
    for some in (*itertools.combinations(range(len(axes)), 2), *([together] if together else [])):
        for values in itertools.product(*(axes[axis] for axis in some)):
            where = computing if nothing.isdisjoint(values) else rows
            assert any(set(values) <= set(row) for row in where), values
    assert len(rows) <= 1.25 * len(pairs.pairs_of(axes, together))


def test_values_that_make_a_case_empty():
    shapes, sizes, rows = [(0, 3), (2, 2), (3, 0)], [(0,), (0, 1, 7)], [(0, 3), (4, 0)]
    found = pairs.empty_of([["shape"], ["sizes"], ["rows", "features"], ["n"]], [shapes, sizes, rows, [0, 1]])
    assert found == [(0, 0), (0, 2), (1, 0), (2, 0), (3, 0)]
    # No value makes these cases empty: integers that do not count rows, shapes of rows without columns, and an axis of
    # one value.
    assert pairs.empty_of([["context"], ["shape"], ["n"]], [[0, 2], [(), (3,)], [0]]) == []


def test_no_pair_of_a_test_is_seen_by_an_empty_case_alone():
    mark = pairs.pairwise(shape=[(0, 3), (4, 2)], map=list("abcdef"), dtype=["float32", "float64"]).mark
    full = {row[1:] for row in mark.args[1] if row[0] == (4, 2)}
    assert full == set(itertools.product("abcdef", ["float32", "float64"]))
    of_cores = cores.every_core(n=[0, 4], map=list("abcdef"), dtype=["float32", "float64"]).mark.args[1]
    for core in cores.NAMES:
        full = {row.values[2:] for row in of_cores if row.values[:2] == (core, 4)}
        assert full == set(itertools.product("abcdef", ["float32", "float64"]))


def test_parameters_that_come_together_are_axes():
    with pytest.raises(AssertionError, match=r"names of axes \(map, dtype\), got direction"):
        pairs.pairwise(map=["affine"], dtype=["float32"], together=("map", "direction"))


def test_an_axis_may_hold_several_arguments():
    mark = pairs.pairwise(map__scale=[("affine", "exp"), ("additive", "exp")], dtype=["float32", "float64"]).mark
    assert mark.args[0] == ["map", "scale", "dtype"]
    assert set(mark.args[1]) == {(m, "exp", d) for m in ("affine", "additive") for d in ("float32", "float64")}


def test_thin_keeps_every_value_and_every_pair_that_chooses_a_kernel(pytester_items):
    items = pytester_items
    away = selection.superfluous(items)
    kept = [item for item in items if item not in away]
    assert {item.originalname for item in kept} == {item.originalname for item in items}
    many = [item.callspec.params for item in kept if item.originalname == "test_many"]
    for name, size in (("shape", 9), ("dtype", 2), ("map", 4), ("bad", 5)):
        assert len({params[name] for params in many}) == size
    assert len({(params["map"], params["dtype"]) for params in many}) == 8
    assert len(many) <= 12  # the product has 360 cases
    assert selection.superfluous(kept) == []


@pytest.fixture
def pytester_items(tmp_path, request):
    """Items of a file with tests of a product of four parameters, of one parameter, and of none."""
    (tmp_path / "test_product.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('shape', range(9))\n"
        "@pytest.mark.parametrize('map', 'abcd')\n"
        "@pytest.mark.parametrize('dtype', ['float32', 'float64'])\n"
        "@pytest.mark.parametrize('bad', range(5))\n"
        "def test_many(shape, map, dtype, bad): pass\n"
        "@pytest.mark.parametrize('bad', range(3))\n"
        "def test_few(bad): pass\n"
        "def test_one(): pass\n"
    )
    module = pytest.Module.from_parent(request.session, path=tmp_path / "test_product.py")
    return list(module.collect())


@pytest.mark.parametrize("mark", ["emulated", "long", "costly", "programs"])
def test_quick_and_the_rest_are_the_whole(mark, pytester_items):
    """README's command and the remaining tests, both run by `.ci/run tests`, together have each test exactly once."""
    for item in pytester_items:
        if item.originalname == "test_few":
            item.add_marker(mark)
    quick, rest = selection.split(pytester_items)
    assert sorted(item.nodeid for item in [*quick, *rest]) == sorted(item.nodeid for item in pytester_items)
    assert len(quick) + len(rest) == len({*map(id, quick), *map(id, rest)})
    kept = {"test_many", "test_one", *(["test_few"] if mark == "programs" else [])}
    assert {item.originalname for item in quick} == kept
    assert len(quick) < 20
    assert sum(item.originalname == "test_many" for item in rest) > 340


def test_tests_that_a_missing_package_skips_are_recorded(monkeypatch):
    monkeypatch.setattr(selection, "skipped", {})
    reasons = [
        "Skipped: torch is not installed",
        "Skipped: could not import 'jax': no module",
        "Skipped: no CUDA device",
    ]
    for name, reason in zip("abc", reasons, strict=True):
        selection.note_skipped(SimpleNamespace(skipped=True, nodeid=name, longrepr=("file.py", 1, reason)))
    selection.note_skipped(SimpleNamespace(skipped=False, nodeid="d", longrepr=None))
    assert list(selection.skipped) == ["a", "b"]


def test_groups_for_development_have_the_requirements_of_build_and_project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    assert {*project["build-system"]["requires"]} <= {*groups["build"]}
    assert {*project["project"]["dependencies"]} == {line for line in groups["dev"] if isinstance(line, str)}


@pytest.mark.parametrize("workers", [0, 2])
def test_one_in_n_runs_a_part_and_the_last_line_counts_it(workers):
    """A skipped test does not count as run; where processes share the tests, the main process has collected none."""
    if workers:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    kept = [name for name in map(str, range(10000)) if selection.is_one_in(20, name)]
    assert 400 < len(kept) < 600
    assert {
        name: [selection.is_one_in(3, name, part) for part in range(3)].count(True) for name in kept
    } == dict.fromkeys(kept, 1)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_free_threads.py"]
    command += ["-n", str(workers)] if workers else []
    done = subprocess.run([*command, "--one-in", "1", "-k", "lock"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = 0 if "1 skipped" in done.stdout else 1
    assert f"\n{ran} of 4 tests ran\n" in done.stdout


def test_each_reason_to_skip_has_a_step_that_exists():
    listed = subprocess.run([ROOT / ".ci" / "run", "list"], capture_output=True, text=True, check=True).stdout.split()
    steps = {*selection.STEPS.values()} - {selection.CARD, selection.NO_CASE}
    assert steps <= {*listed}
    assert selection.step_of("torch is not installed") == "arrays"
    assert selection.step_of("Chromium is not installed") == "browser"
    assert selection.step_of("the moon is full") is None
    calls = [
        node
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    given = [one.value for call in calls for one in call.keywords if one.arg == "reason"]
    given += [call.args[0] for call in calls if ast.unparse(call.func) == "pytest.skip" and call.args]
    texts = {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    assert len(texts) > 50
    assert [text for text in texts if selection.step_of(text) is None] == []


def test_a_run_for_the_gate_fails_where_a_reason_has_no_step(tmp_path):
    (tmp_path / "test_one.py").write_text('import pytest\n\n\ndef test_one():\n    pytest.skip("the moon is full")\n')
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    command += [f"--rootdir={tmp_path}", f"--confcutdir={tmp_path}", "--write-skipped", tmp_path / "skipped"]
    plugin = tmp_path / "conftest.py"
    plugin.write_text((ROOT / "tests" / "conftest.py").read_text())
    result = subprocess.run([*command, tmp_path / "test_one.py"], capture_output=True, text=True, check=False)
    assert (result.returncode, "['the moon is full']" in result.stdout) == (1, True), result.stdout + result.stderr
