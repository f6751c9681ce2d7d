"""Every layer has one list of maps, and one of vector maps; a map that is missing from a list fails here."""

import dataclasses
import inspect
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import added_map
import headrace as hr
import headrace._core
import readers
import reference
import runtime_library
import vector_cases
from headrace._base import stored as _stored
from headrace._core.maps import MAPS, VECTOR_MAPS, bins_with, has_bins, has_scale

ROOT = Path(__file__).resolve().parents[2]


def lists_of(core):
    """Return the set of names in each list of all maps, by the file or module of the list."""
    return {
        "cpp/math/maps.hpp": {one.name for one in core.maps()},
        "python/headrace/_core/maps.py": set(MAPS),
        "headrace.ops": set(hr.ops.MAPS),
        "tests/reference/maps.py": set(reference.MAPS),
    }


def assert_same(lists):
    every = set().union(*lists.values())
    lacking = {where: sorted(every - names) for where, names in lists.items() if names != every}
    assert not lacking, f"lists that lack a map: {lacking}"


def assert_table_fits(core):
    """Check that Python's table, the core and the reference agree on each map: bins, names and counts of parameters."""
    listed = {one.name: one for one in core.maps()}
    for name, map in reference.MAPS.items():
        most, least_slope = listed[name].max_bins, listed[name].least_slope
        assert (most > 0) == map.has_bins == has_bins(name) == (map.count(2) != map.count(3))
        assert 0 <= least_slope < 1e-3
        for bins in (2, most or 8):
            assert list(MAPS[name].groups(bins).items()) == list(map.sizes(bins).items())
            settings = SimpleNamespace(scale="exp", slope=1e-3, bins=bins, n_params=map.count(bins))
            assert len(MAPS[name].identity(settings)) == map.count(bins)
            made = hr.transforms.MaskedAutoregressive(3, (), map=name, bins=bins)  # the core counts the parameters
            assert made.to_dense()[0][-1].shape == (3 * map.count(bins), 3)


def test_every_list_has_every_map():
    core = headrace._core.cpu
    assert_same(lists_of(core))
    assert_table_fits(core)
    documented = (ROOT / "docs" / "files.md").read_text()
    for name in reference.MAPS:
        assert f'`"{name}"`' in documented, f"docs/files.md lacks {name}"
        for parameter in reference.MAPS[name].parameters:
            assert re.search(rf"^- .*`{parameter}`", documented, re.MULTILINE), f"docs/files.md lacks {parameter}"


READERS = {  # readers of files, and the maps that each refuses by name, beside the map that tests add
    "runtime/parts/maps.hpp": (),
    "python/headrace/convert/plain/maps.py": readers.REFUSED,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_files_has_every_map_or_refuses_it(reader):
    text = "".join(path.read_text() for path in [ROOT / reader, *(ROOT / reader).parent.glob("splines.py")])
    lacking = {name for name in (*reference.MAPS, added_map.NAME) if f'"{name}"' not in text}
    assert lacking == {added_map.NAME, *READERS[reader]}


def test_the_help_has_every_map_with_its_parameters():
    text = inspect.getdoc(hr.transforms.MaskedAutoregressive)
    text = " ".join(text.split())
    for name, map in reference.MAPS.items():
        shown = re.search(rf'"{name}" \(([^)]*)\): [a-z]', text)
        assert shown, f"the help of map lacks {name}"
        parts, names = shown[1].split(", "), [one.replace("_", " ") for one in map.parameters]
        assert len(parts) == len(names)
        assert all(part.split()[-len(one.split()) :] == one.split() for part, one in zip(parts, names, strict=True))
    assert '"rq_spline" (K width, K height, K - 1 derivative)' in text


def test_the_recipe_names_every_reader():
    text = (ROOT / "docs" / "notes" / "recipes.md").read_text(encoding="utf-8")
    recipe = re.search(r"(?ms)^### A map of a number\n(.*?)^###? ", text)[1]
    for file in (*READERS, "cpp/math/maps.hpp", "tests/reference/maps.py", "docs/files.md"):
        assert f"`{file}`" in recipe


@pytest.mark.skipif(runtime_library.compiler() is None, reason="no C++ compiler")
def test_the_next_index_is_free_beside_the_map_of_the_tests(tmp_path):
    """A map of the library takes the next index of `HR_OWN_MAPS`, and the emulation's map goes after it."""
    for folder in ("cpp/math", "tests/cuda_emulation"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("build"))
    maps = tmp_path / "cpp" / "math" / "maps.hpp"
    text = maps.read_text()
    indices = [int(index) for index in re.findall(r"^    X\((\d+), ", text, flags=re.MULTILINE)]
    last = re.search(rf"^    X\({indices[-1]}, .*\)$", text, flags=re.MULTILINE)[0]
    assert indices == [*range(len(indices))]
    maps.write_text(text.replace(last, f'{last} X({len(indices)}, Additive, "tilt", "")'))
    source = tmp_path / "list.cpp"
    source.write_text(
        '#include "math/maps.hpp"\n#include <cstdio>\nusing namespace headrace;\n'
        "#define HR_SHOW(i, type, name, scale) with_map(i, []<class K>() { std::puts(name); });\n"
        "int main() { HR_MAPS(HR_SHOW) }\n"
    )
    more = f'-DHEADRACE_MORE_MAPS="{tmp_path / "tests" / "cuda_emulation" / "polyline.hpp"}"'
    flags = [
        "-std=c++20",
        "-O0",
        "-DHR_EMULATE",
        more,
        f"-I{tmp_path / 'cpp'}",
        f"-I{tmp_path / 'tests/cuda_emulation'}",
    ]
    made = [runtime_library.compiler(), *flags, str(source), "-o", str(tmp_path / "list")]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = subprocess.run([tmp_path / "list"], capture_output=True, text=True, check=True).stdout.split()
    assert names[-2:] == ["tilt", added_map.NAME]  # each map has a kernel of its index


FORGET = {  # each function leaves the added map out of a list
    "cpp/math/maps.hpp": lambda patch, core: core.forget(),
    "python/headrace/_core/maps.py": lambda patch, core: patch.delitem(MAPS, added_map.NAME),
    "headrace.ops": lambda patch, core: patch.setattr(hr.ops, "MAPS", hr.ops.MAPS[:-1]),
    "tests/reference/maps.py": lambda patch, core: patch.delitem(reference.MAPS, added_map.NAME),
}


class Lists:
    """The lists of a core, from which the added map can be taken away."""

    def __init__(self, core):
        self.core = core

    def forget(self):
        self.core = headrace._core.cpu

    def __getattr__(self, name):
        return getattr(self.core, name)


@pytest.mark.parametrize("forgotten", [None, *FORGET])
def test_an_added_map_that_a_list_lacks_is_reported(forgotten, emu, monkeypatch):
    with added_map.added(emu) as core:
        lists = Lists(core)
        if forgotten is None:
            assert_same(lists_of(lists))
            assert_table_fits(lists)
            return
        FORGET[forgotten](monkeypatch, lists)
        with pytest.raises(AssertionError, match=f"{forgotten}.*{added_map.NAME}"):
            assert_same(lists_of(lists))
        monkeypatch.undo()


WRONG = {  # the core refuses these entries of Python's table
    "a parameter too few": {"groups": lambda bins: {"shift": 1, "slope": bins - 1}},
    "names in another order": {"groups": lambda bins: {"slope": bins, "shift": 1}},
    "another number for the identity": {"identity": lambda s: (0.0,) * (s.n_params + 1)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_entry_that_does_not_fit_is_noticed(wrong, emu, monkeypatch):
    with added_map.added(emu) as core:
        monkeypatch.setitem(MAPS, added_map.NAME, dataclasses.replace(MAPS[added_map.NAME], **WRONG[wrong]))
        with pytest.raises(AssertionError):
            assert_table_fits(core)
        monkeypatch.undo()


@pytest.mark.parametrize("map", reference.MAPS)
def test_every_map_builds_a_transform_with_its_number_of_parameters(map):
    transform = hr.transforms.MaskedAutoregressive(5, (8,), map=map)
    assert transform.to_dense()[0][-1].shape == (5 * reference.MAPS[map].count(), 8)
    transform = hr.transforms.Coupling(5, passive=[0, 1], hidden=(8,), map=map)
    assert transform.to_dense()[0][-1].shape == (3 * reference.MAPS[map].count(), 8)


@pytest.mark.parametrize("map", reference.MAPS)
@pytest.mark.parametrize("bins", [2, 3, 8, 64])
def test_the_number_of_bins_gives_the_number_of_parameters(map, bins):
    count = reference.MAPS[map].count(bins)
    transform = hr.transforms.MaskedAutoregressive(5, (8,), map=map, bins=bins)
    assert transform.to_dense()[0][-1].shape == (5 * count, 8)
    assert (f"bins={bins}" in repr(transform)) == reference.MAPS[map].has_bins
    transform = hr.transforms.Coupling(5, passive=[0, 1], hidden=(8,), map=map, bins=bins)
    assert transform.to_dense()[0][-1].shape == (3 * count, 8)


def test_maps_with_a_parameter_named_scale_have_scales():
    for name, map in reference.MAPS.items():
        assert ("scale" in map.parameters) == has_scale(name)


@pytest.mark.parametrize("map", reference.MAPS)
def test_python_and_the_core_refuse_the_same_slopes_and_bins(map):
    listed = next(one for one in headrace._core.cpu.maps() if one.name == map)
    most, least_slope = listed.max_bins, listed.least_slope
    values, settings = np.zeros((2, 3)), {"slope": least_slope or 1e-12, "bins": most or 8}
    params = np.zeros((2, 3, reference.MAPS[map].count(settings["bins"])))
    hr.ops.coupling(values, params, map, **settings)
    out = np.empty((2, 3)), np.empty(2)
    for slope, bins in ((0.0, 8), (1.0, 8), (least_slope / 2, 8), (1e-3, 1), *([(1e-3, most + 1)] if most else [])):
        wrong = np.zeros((2, 3, reference.MAPS[map].count(bins)))
        with pytest.raises(ValueError, match=r"slope|bins"):
            hr.ops.coupling(values, wrong, map, slope=slope, bins=bins)
        with pytest.raises(ValueError, match=r"slope|bins"):
            headrace._core.cpu.coupling(map, "exp", slope, 5.0, bins, False, values, wrong, *out)


def test_bins_that_the_number_of_parameters_does_not_determine_are_required(monkeypatch):
    """Where a map has as many parameters with 2j bins as with 2j + 1, `bins` is required."""
    groups = lambda bins: {"width": 2 * (bins // 2) + 1}  # noqa: E731
    monkeypatch.setitem(MAPS, "rq_spline", dataclasses.replace(MAPS["rq_spline"], groups=groups))
    bins_with.cache_clear()
    try:
        assert bins_with("rq_spline", 5) == (4, 5)
        with pytest.raises(ValueError, match=r"bins: expected one of \(4, 5\)"):
            hr.ops.coupling(np.zeros((2, 3)), np.zeros((2, 3, 5)), "rq_spline")
    finally:
        bins_with.cache_clear()


def test_core_python_and_reference_list_the_same_vector_maps():
    core = headrace._core.cpu.vector_maps()
    assert sorted({name for name, _ in core}) == sorted(VECTOR_MAPS) == sorted(reference.VECTOR_MAPS)
    assert core == [(name, variant) for name, map in VECTOR_MAPS.items() for variant in map.variants]
    tested = {(name, settings.get("nonlinearity")) for name, settings in vector_cases.VARIANTS.values()}
    assert len(tested) == len(core), "vector_cases.VARIANTS lacks a variant"


@pytest.mark.parametrize("map", reference.VECTOR_MAPS)
def test_every_vector_map_has_a_transform_a_flow_kernels_and_files(map):
    name = map.capitalize()
    transform, flow = getattr(hr.transforms, name)(4), getattr(hr, f"{name}Flow")(4, transforms=2)
    assert {kind: _stored.KINDS[kind] for kind in (name, f"{name}Flow")} == {
        name: type(transform),
        f"{name}Flow": type(flow),
    }
    assert type(transform) is vector_cases.CLASSES[map]
    assert type(flow) is vector_cases.FLOWS[map]
    assert {type(t) for t in flow.transforms[:2]} == {type(transform)}
    groups = VECTOR_MAPS[map].groups(4)
    assert {key: array.size for key, array in transform.named_parameters().items()} == groups
    assert groups == vector_cases.sizes(map, 4)
    params = np.concatenate(list(transform.named_parameters().values()))
    x, _ = hr.ops.vector_map(np.ones((3, 4), "f4"), params, map)
    assert x.shape == (3, 4)
