"""Includes and imports point one way: what each room may know, and no circles (docs/architecture.md)."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (".hpp", ".cpp", ".cuh", ".cu")

# Each room of the core may include itself and these.
CPP = {
    "math": set(),
    "steps": {"math"},
    "core": {"math", "steps"},
    "kernels": {"math", "steps", "core"},
    "bindings": {"math", "steps", "core"},
    "c": {"math", "steps", "core"},
}
# The kernels are compiled once for every instruction set: of the core they may know plain structs alone.
KERNELS_OF_CORE = {"bf16.hpp", "views.hpp", "table.hpp", "scratch.hpp", "set_name.hpp"}
KERNELS_OF_CORE |= {"calls.hpp", "back.hpp", "sweep.hpp"}  # of sequences
# What the C library shares with headrace.hpp: what reads files, and the generator that chooses members of an ensemble.
READERS_OF_FILES = {"container.hpp", "file.hpp", "generator.hpp", "prediction.hpp", "sequence_file.hpp"}
# The device shares what a program is made of and what both devices compile, and never the core that runs on the CPU.
DEVICE_OF_CORE = {
    "blocks.hpp",
    "compiled.hpp",
    "conditioner.hpp",
    "masked.hpp",
    "maps.hpp",
    "request.hpp",
    "structure.hpp",
    "views.hpp",
    "convolution.hpp",  # of sequences
    "view.hpp",
}


def includes(folder):
    """Pairs of files of the project, by their paths below its root."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in SOURCES:
            continue
        for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE):
            target = (path.parent / name).resolve()
            if target.is_relative_to(ROOT):
                yield path.relative_to(ROOT), target.relative_to(ROOT)


def imports(package=ROOT / "python" / "headrace"):
    """Pairs of modules of a package, imports inside functions and for types among them."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    for module, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [name if name in names else node.module for name in found]
            for name in found:
                if name in names and name not in (package.name, module):
                    yield module, name


def circle(pairs):
    """Some circle of arrows, or None."""
    arrows = {}
    for a, b in pairs:
        arrows.setdefault(a, set()).add(b)
    done = set()

    def walk(node, path):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for target in sorted(arrows.get(node, ()), key=str):
            if found := walk(target, [*path, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(arrows, key=str) if (found := walk(node, []))), None)


@pytest.mark.parametrize("folder", ["cpp", "cuda"])
def test_included_files_exist_and_make_no_circle(folder):
    pairs = list(includes(folder))
    missing = [f"{a}: {b}" for a, b in pairs if not (ROOT / b).exists() and b.name != "cuda_emulation.hpp"]
    assert pairs
    assert not missing
    assert circle(pairs) is None


def test_rooms_of_the_core_include_what_lies_below_them():
    wrong = []
    for source, target in includes("cpp"):
        room, known = source.parts[1], target.parts[1]
        fits = target.parts[0] == "cpp" and (known == room or known in CPP[room])
        if target.parts[:2] == ("runtime", "parts"):
            fits = room == "c" and target.name in READERS_OF_FILES
        if room == "kernels" and known == "core":
            fits = target.name in KERNELS_OF_CORE
        if not fits:
            wrong.append(f"{source} includes {target}")
    assert not wrong


def test_the_device_knows_of_the_core_what_both_devices_share():
    wrong = []
    for source, target in includes("cuda"):
        if target.parts[0] != "cpp":
            continue
        room = target.parts[1]
        shared = room in ("math", "steps") or (room == "core" and target.name in DEVICE_OF_CORE)
        if not shared and not (room == "bindings" and source.parts[1] == "bindings"):
            wrong.append(f"{source} includes {target}")
    assert not wrong


def test_modules_make_no_circle():
    pairs = list(imports())
    assert ("headrace.flow", "headrace.bases") in pairs
    assert circle(pairs) is None


def folder_of(module):
    """Below the package: that of a module, or the module's own name where it is in none."""
    _, *parts = module.split(".")
    is_folder = (ROOT / "python" / "headrace").joinpath(*parts).is_dir()
    return "/".join(parts if is_folder or len(parts) == 1 else parts[:-1])


def circles_of_folders():
    """Sets of folders of the package that reach each other, modules in no folder among them."""
    arrows = {}
    for a, b in imports():
        if a != "headrace" and (source := folder_of(a)) != (target := folder_of(b)):
            arrows.setdefault(source, set()).add(target)

    def reached(node):
        found, waiting = set(), [node]
        while waiting:
            new = arrows.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    reach = {node: reached(node) for node in arrows}
    return {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in reach if a in reach[a]}


def test_folders_make_no_circle():
    assert not [sorted(one) for one in circles_of_folders()]


def test_folders_of_the_benchmarks_have_at_most_twelve_files():
    folders = {path.parent for path in (ROOT / "bench").rglob("*.py")}
    assert len(folders) > 5
    assert not [str(folder) for folder in folders if sum(path.is_file() for path in folder.iterdir()) > 12]


def test_modules_of_the_benchmarks_make_no_circle():
    pairs = list(imports(ROOT / "bench"))
    assert ("bench.downstream.models", "bench.downstream.runs") in pairs
    assert circle(pairs) is None


def compiled_in(path):
    """Names by which a module imports a compiled one."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names] + [f"{node.module}"]
    return [name for name in found if {"_cpu", "_cuda"} & set(name.split("."))]


def test_the_core_s_room_alone_imports_the_compiled_modules():
    package = ROOT / "python" / "headrace"
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if compiled_in(path)}
    assert found == {"_core/__init__.py", "_core/threads.py"}


def test_the_page_names_every_room_and_every_module_in_none():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "python" / "headrace"
    folders = [path.parent for path in package.glob("*/__init__.py")] + [package / "convert" / "plain"]
    wanted = [f"{path.name}/`" for path in folders]
    wanted += [f"`{path.name}`" for path in package.glob("*.py") if not path.name.startswith("__")]
    for room in ("math", "core", "kernels"):  # a header and its source are named once
        wanted += [f"{path.stem}." for path in (ROOT / "cpp" / room).iterdir() if path.suffix in SOURCES]
    assert not [name for name in sorted(set(wanted)) if name not in page]


def test_a_circle_is_found():
    assert circle([("a", "b"), ("b", "c")]) is None
    assert circle([("a", "b"), ("b", "c"), ("c", "a")]) == ["a", "b", "c", "a"]
