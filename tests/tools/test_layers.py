"""Includes and imports point one way: allowed targets of each room, and no circles (docs/architecture.md)."""

import ast
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (".hpp", ".cpp", ".cuh", ".cu")

# The storeys of the package, from the ground up, each with its rooms (modules and folders) and the most lines of code
# that its rooms may have. A room may import from its storey and from the storeys before it, even inside functions and
# for types. The drawing on the page comes from this list.
STOREYS = {
    "base": (1150, "_base"),
    "core": (2050, "_arrays _core config"),
    "flow": (4650, "_flow densities files ops transforms"),
    "fit": (7100, "_fit distributed rows training"),
    "methods": (5850, "ascent continuum sequences variational"),
    "analysis": (5300, "_tables choosing diagnosis plot"),
    "clients": (
        11450,
        "_cli _regression convert dask integrations jax onnx sklearn torch",
    ),
}
# Rooms of these storeys import no other room of their storey, except for the pairs in `BESIDE`.
APART = ("methods", "analysis")
BESIDE = {("variational", "sequences"), ("choosing", "diagnosis"), ("plot", "choosing"), ("plot", "diagnosis")}
BESIDE |= {(room, "_tables") for room in ("choosing", "diagnosis", "plot")}
# The only imports that point up, each inside a function: methods of a flow that fit and export it.
DOORS = {("headrace._flow.flow", "headrace.training"), ("headrace._flow.flow", "headrace.onnx")}
MOST_ROOMS, MOST_ARROWS = 30, 150  # an arrow is a pair of rooms of which one imports the other
MOST_AT_ONCE = 80  # modules that `import headrace` loads
# Limits on the lines, docstrings included, of modules together with all modules that they import outside of functions
# and not for types alone: a maintainer has to read these lines for densities, samples and files, and then for fits.
MOST_TO_READ = {"headrace._flow.flow": 8000, "headrace._flow.flows headrace.training": 17100}

# The rooms that each room of the core may include.
CPP = {
    "math": set(),
    "steps": {"math"},
    "core": {"math", "steps"},
    "kernels": {"math", "steps", "core"},
    "bindings": {"math", "steps", "core"},
    "c": {"math", "steps", "core"},
}
# Of the core, kernels may include only plain structs, because kernels are compiled once for every instruction set.
KERNELS_OF_CORE = {"bf16.hpp", "views.hpp", "table.hpp", "scratch.hpp", "set_name.hpp"}
KERNELS_OF_CORE |= {"calls.hpp", "back.hpp", "sweep.hpp"}  # plain structs of sequences
# Files that the C library and headrace.hpp share: readers of files, and the generator that chooses members of an
# ensemble.
READERS_OF_FILES = {"container.hpp", "file.hpp", "generator.hpp", "prediction.hpp", "sequence_file.hpp"}
# The device shares the parts of a program and code that both devices compile, and never the core that runs on the CPU.
DEVICE_OF_CORE = {
    "blocks.hpp",
    "compiled.hpp",
    "conditioner.hpp",
    "masked.hpp",
    "maps.hpp",
    "request.hpp",
    "structure.hpp",
    "views.hpp",
    "convolution.hpp",  # for sequences
    "view.hpp",
}


def includes(folder):
    """Pairs of files of the project, of which one includes the other, by their paths below the project's root."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in SOURCES:
            continue
        for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE):
            target = (path.parent / name).resolve()
            if target.is_relative_to(ROOT):
                yield path.relative_to(ROOT), target.relative_to(ROOT)


def imports(package=ROOT / "python" / "headrace"):
    """Pairs of modules of a package of which one imports the other, even inside functions and for types."""
    names = modules(package)
    for module, path in names.items():
        for name in imported(ast.walk(ast.parse(path.read_text())), names):
            if name not in (package.name, module):
                yield module, name


def imported(nodes, names):
    """The modules, among `names`, that these statements import."""
    for node in nodes:
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in names else node.module for name in found]
        yield from (name for name in found if name in names)


def place_of(module):
    """The storey and the room of a module; None for the package's `__init__` and the command `headrace`."""
    parts = module.split(".")[1:]
    for end in range(len(parts), 0, -1):
        room = ".".join(parts[:end])
        for storey, (_, rooms) in STOREYS.items():
            if room in rooms.split():
                return storey, room
    assert module in ("headrace", "headrace.__main__"), f"{module}: in no storey of STOREYS"
    return None


def imports_against_the_order(pairs):
    """Imports that point up, and imports between two rooms of a storey whose rooms may not import each other."""
    order, wrong = [*STOREYS], []
    for a, b in pairs:
        if "headrace" in (a, b) or place_of(a) is None or (a, b) in DOORS:
            continue
        (storey, room), (target, other) = place_of(a), place_of(b)
        is_beside = storey == target and storey in APART and room != other and (room, other) not in BESIDE
        if order.index(target) > order.index(storey) or is_beside:
            wrong.append(f"{a} ({storey}) imports {b} ({target})")
    return wrong


def lines_of_code(text):
    """The lines with any code, without docstrings and other strings that are statements."""
    apart = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines, texts = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in apart:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            texts.update(range(node.lineno, node.end_lineno + 1))
    return len(lines - texts)


def modules(package=ROOT / "python" / "headrace"):
    """The files of a package by the names of their modules."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def drawing():
    """The drawing of the storeys as the page shows it, the uppermost storey first."""
    lines = ["```"]
    for storey, (most, rooms) in reversed(STOREYS.items()):
        first, *more = textwrap.wrap(" ".join(rooms.split()), 110)
        lines.append(f"{storey:9}{first:112}{most:>6,}")
        lines += [" " * 9 + line for line in more]
    return "\n".join([*lines, "```"])


def circle(pairs):
    """A circle of arrows, or None if there is none."""
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


def test_rooms_of_the_core_include_rooms_below_them():
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


def test_the_device_includes_only_shared_files_of_the_core():
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
    assert ("headrace._flow.flow", "headrace._flow.bases") in pairs
    assert set(pairs) >= DOORS
    assert circle(pair for pair in pairs if pair not in DOORS) is None  # the targets of DOORS import flows again


def test_imports_follow_the_order_of_the_storeys():
    assert not imports_against_the_order(imports())


def test_rooms_and_arrows_between_them_are_few():
    """The package's `__init__` and the command `headrace` are no rooms."""
    places = [(place_of(a), place_of(b)) for a, b in imports()]
    arrows = {(a[1], b[1]) for a, b in places if a is not None and b is not None and a != b}
    assert len({room for _, rooms in STOREYS.values() for room in rooms.split()}) <= MOST_ROOMS
    assert 100 < len(arrows) <= MOST_ARROWS


def test_an_import_that_points_up_is_found():
    up = ("headrace._arrays.caller", "headrace._flow.flow")
    beside = ("headrace.ascent.ascent", "headrace.sequences.flow")
    fine = [("headrace.variational.over_time", "headrace.sequences.flow"), ("headrace._flow.flow", "headrace.ops")]
    assert len(imports_against_the_order([up, beside, *fine])) == 2
    assert len(imports_against_the_order([("headrace._flow.flow", "headrace._fit.fit")])) == 1


def test_imports_that_point_up_are_inside_functions():
    """Imports that point up are inside a function, or for types alone."""
    for source, target in DOORS:
        tree = ast.parse(modules()[source].read_text())
        outside = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = [f"{getattr(node, 'module', '')}.{alias.name}" for node in outside for alias in node.names]
        assert target not in names
        assert not [name for name in names if name.startswith(f"{target}.")]


def test_lines_of_code_of_each_storey():
    counts = dict.fromkeys(STOREYS, 0)
    for module, path in modules().items():
        if (place := place_of(module)) is not None:
            counts[place[0]] += lines_of_code(path.read_text())
    too_many = {storey: lines for storey, lines in counts.items() if lines > STOREYS[storey][0]}
    assert min(counts.values()) > 100
    assert not too_many, f"more lines of code than STOREYS grants: {too_many}"


def test_lines_of_code_are_counted_without_texts():
    assert lines_of_code('"""Text.\n\nMore."""\n\nx = (\n    1,  # one\n    # two\n)\n') == 3
    assert lines_of_code('def f():\n    """Text."""\n    return """a\nb"""\n') == 3


def at_import(path):
    """The statements that an import of a module runs, without the statements inside functions."""
    waiting = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        is_apart = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if not is_apart and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            waiting += ast.iter_child_nodes(node)


def to_read(*names):
    """The files of modules and of all modules that an import of these loads, except for the package's `__init__`."""
    waiting, read, paths = [*names], set(), modules()
    while waiting:
        read.add(module := waiting.pop())
        waiting += set(imported(at_import(paths[module]), paths)) - read - {"headrace"}
    return [paths[module] for module in read]


@pytest.mark.parametrize("names", MOST_TO_READ)
def test_lines_to_read_for_densities_and_fits(names):
    lines = sum(len(path.read_text().splitlines()) for path in to_read(*names.split()))
    assert 0.9 * MOST_TO_READ[names] < lines <= MOST_TO_READ[names]


def test_import_headrace_loads_flows_and_nothing_above_them():
    code = "import sys, headrace; print(*(name for name in sys.modules if name.split('.')[0] == 'headrace'))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    places = {name: place_of(name) for name in loaded if name not in ("headrace", "headrace._cpu", "headrace._cuda")}
    below = ("base", "core", "flow")
    # Folders of modules below.
    folders = {name for name in places if (ROOT / "python" / name.replace(".", "/")).is_dir()}
    assert not [name for name, (storey, _) in places.items() if storey not in below and name not in folders]
    assert 20 < len(loaded) <= MOST_AT_ONCE


def test_an_import_loads_no_generators_of_numpy():
    """`import numpy` does not load `numpy.random`, which takes a tenth of its time: annotations that name generators
    are strings."""
    code = "import sys, numpy; before = set(sys.modules); import headrace; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "headrace" in loaded
    assert not [name for name in loaded if name.startswith("numpy.random")]


def test_the_page_draws_the_storeys():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert drawing() in page, f"docs/architecture.md lacks the storeys as STOREYS has them:\n{drawing()}"


def folder_of(module):
    """The folder of a module below the package, or the name of a module that is in no folder."""
    _, *parts = module.split(".")
    is_folder = (ROOT / "python" / "headrace").joinpath(*parts).is_dir()
    return "/".join(parts if is_folder or len(parts) == 1 else parts[:-1])


def circles_of_folders():
    """Sets of folders of the package that reach each other; a module in no folder counts as a folder."""
    arrows = {}
    for a, b in imports():
        if a != "headrace" and (a, b) not in DOORS and (source := folder_of(a)) != (target := folder_of(b)):
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
    """The compiled modules that a module imports, by name."""
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


def test_the_pages_name_every_room_and_every_module_in_none():
    pages = (ROOT / "docs" / "architecture.md", ROOT / "docs" / "notes" / "core.md")
    page, core = (path.read_text(encoding="utf-8") for path in pages)
    package = ROOT / "python" / "headrace"
    folders = [path.parent for path in package.glob("*/__init__.py")] + [package / "convert" / "plain"]
    wanted = [f"{path.name}/`" for path in folders]
    wanted += [f"`{path.name}`" for path in package.glob("*.py") if not path.name.startswith("__")]
    assert not [name for name in wanted if name not in page]
    of_core = [path for room in ("math", "core", "kernels") for path in (ROOT / "cpp" / room).iterdir()]
    stems = {f"{path.stem}." for path in of_core if path.suffix in SOURCES}  # a header and its source have one name
    assert not [name for name in sorted(stems) if name not in core]


def test_files_in_the_table_of_rooms_exist():
    """A file without a folder in the table is in a room of its table row, or in a folder below it."""
    package = ROOT / "python" / "headrace"
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("### Python\n")[2]
    missing, rows = [], re.findall(r"^\| (`.*?) \| (.*)$", table, re.MULTILINE)
    for rooms, contents in rows:
        folders = [package / room for room in re.findall(r"`([\w/]+)/`", rooms)]
        for name in re.findall(r"`([\w/]+\.py)`", contents):
            places = [path for folder in folders for path in folder.rglob(name)]
            if not places and not ("/" in name and (package / name).is_file()):
                missing.append(f"{rooms}: {name}")
    assert len(rows) > 20
    assert not missing


def test_the_architecture_page_has_at_most_3000_words():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(page.split()) <= 3000


def test_a_circle_is_found():
    assert circle([("a", "b"), ("b", "c")]) is None
    assert circle([("a", "b"), ("b", "c"), ("c", "a")]) == ["a", "b", "c", "a"]
