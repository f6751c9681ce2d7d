"""README and the documentation's pages: commands run, targets of links exist, tables agree."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._cli import cli, options

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md", ROOT / "examples" / "data" / "README.md"]


def blocks(page, language):
    """The fenced blocks of a page in a language, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


def test_the_ten_lines_pass_a_strict_type_checker(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    code = blocks(README, "python")[0]
    assert len(code.splitlines()) <= 13
    (tmp_path / "ten_lines.py").write_text(f"{code}again.log_prob(data)\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        "ten_lines.py",
    ]
    package = Path(hr.__file__).parents[1]
    installed = "site-packages" in package.parts  # in site-packages mypy finds the package without a path
    environment = os.environ if installed else {**os.environ, "MYPYPATH": str(package)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def by_name(pages):
    return [pytest.param(page, id=page.name) for page in pages]


# ---- code ----------------------------------------------------------------------------------------------------------


def commands():
    """The `headrace` commands of each page, in fenced and in indented blocks; sentences, which may begin with
    `headrace`, are left out."""
    for page in PAGES:
        fenced = "\n".join(code for language in ("sh", "console", "text") for code in blocks(page, language))
        indented = "\n".join(re.findall(r"^ {4,}.*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
        text = f"{fenced}\n{indented}".replace("\\\n", " ")
        for line in dict.fromkeys(re.findall(r"^ *(?:\$ )?(headrace [a-z].*)$", text, flags=re.MULTILINE)):
            yield pytest.param(line, id=f"{page.name}: {line}")


@pytest.mark.parametrize("line", list(commands()))
def test_the_parser_accepts_the_commands(line):
    options.parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.filterwarnings("default")  # a reader would see warnings
@pytest.mark.parametrize("page", by_name(page for page in PAGES if blocks(page, "sh")))
def test_commands_run(page, tmp_path, monkeypatch, capfd):
    """Every `headrace` command of a page runs, in order, on a small my.csv; `.ci/run` runs commands that install
    packages."""
    table = cases.rng("my.csv").standard_normal((600, 3)) @ np.array(
        [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.3, 2.0]]
    )
    for name, part in (("my.csv", table), ("held_out.csv", table[::-1])):
        np.savetxt(tmp_path / name, part, delimiter=",", header="a,b,c", comments="")
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["headrace"]:
                assert not words or "pip" in line or "venv" in line, f"{page.name}: not run: {line}"
                continue
            assert cli.main(words[1:]) == 0, f"{line}\n{capfd.readouterr()}"


@pytest.mark.parametrize("job", ["main job", "tests"])
def test_the_two_commands_can_be_read_by_machines(job):
    """README has two commands that make a fresh environment, each a single line between HTML comments, where `.ci/run`
    reads it."""
    text = README.read_text(encoding="utf-8")
    part = re.search(rf"^<!-- {job} -->\n(.*?)^<!-- end -->", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in part.group(1).splitlines() if line.startswith("    ")]
    assert len(lines) == 1
    assert lines[0].startswith("    python3 -m venv .venv && .venv/bin/pip install ")


# ---- links ---------------------------------------------------------------------------------------------------------


def without_code(text):
    return re.sub(r"^( *)(```+|::::*).*?^\1\2$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors that a code host makes from the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", without_fences(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def without_fences(text):
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", by_name(TEXTS))
def test_targets_of_links_exist(page):
    """Links inside the repository lead to existing files and headings; other links have a well-formed address."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc), target
            continue
        if "gallery" not in page.parts and parts.path.removeprefix("../").startswith("gallery/"):
            continue  # the build makes these pages, and Sphinx checks their links
        file = page.parent / parts.path if parts.path else page
        assert file.exists(), f"{page.name}: {target}"
        if parts.fragment:
            assert parts.fragment in anchors(file), f"{page.name}: {target}"


def paths_named(text):
    """The paths of this repository in backticks, ``a/{b,c}.py`` as two; a path with a placeholder is left out."""
    for name in re.findall(r"`([^`\s]+)`", text):
        if re.match(r"(cpp|cuda|python|tests|bench|docs|examples)/", name) and not re.search(r"[<>*]", name):
            found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
            yield from (found[1] + one + found[3] for one in found[2].split(",")) if found else [name]


def test_paths_named_in_pages_exist():
    pages = [page for page in TEXTS if page.name != "CHANGELOG.md"] + [ROOT / "bench" / "gpu" / "model.md"]
    assert list(paths_named("`cpp/a.{hpp,cpp}` `cuda/<b>.cu` `b/c.py`")) == ["cpp/a.hpp", "cpp/a.cpp"]
    named = [(page.name, name) for page in pages for name in paths_named(page.read_text(encoding="utf-8"))]
    assert len(named) > 50
    assert not [(page, name) for page, name in named if not (ROOT / name).exists()]


# ---- statements that two files contain -----------------------------------------------------------------------------


def table_rows(page):
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in page.read_text("utf-8").splitlines()
        if line.startswith("| ")
    ]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1200


def test_numbers_in_readme_are_those_of_the_benchmarks():
    known = {tuple(row[:4]) for row in table_rows(ROOT / "docs" / "benchmarks.md")}
    rows = [row for row in table_rows(README) if re.match(r"\w+ \d+ \dx\[", row[0]) or "zuko" in row[-1]]
    assert len(rows) >= 5
    for row in rows:
        assert tuple(row[:4]) in known, row


def test_gains_of_the_entrances_are_the_recorded_ones():
    """`python -m bench.entrances` writes the sentences, which README and the first page of the documentation
    contain."""
    (file,) = (ROOT / "bench" / "results").glob("entrances_*.json")
    sentences = importlib.import_module("bench.entrances").sentences(json.loads(file.read_text(encoding="utf-8")))
    assert sentences.keys() == {"table", "simulator", "model"}
    for page in (README, ROOT / "docs" / "index.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert not [sentence for sentence in sentences.values() if sentence not in text], page.name


def test_the_first_screen_has_a_picture_the_install_line_and_the_entrances():
    screen = README.read_text(encoding="utf-8").partition("## Ten lines")[0]
    assert len(screen.splitlines()) <= 36
    system, command = screen.index("On Linux"), screen.index("python3 -m venv")
    assert screen.index("docs/gallery/fit_density.png") < system < command
    for word in ("**A table", "posterior_nn", "hr.accelerate(model)"):
        assert screen.index(word) > command


def test_the_picture_is_that_of_its_script():
    names = {"__name__": "one_pass", "__file__": "one_pass.py"}
    script = ROOT / "docs" / "images" / "one_pass.py"
    exec(compile(script.read_text("utf-8"), script.name, "exec"), names)
    assert names["draw"]() == script.with_suffix(".svg").read_text("utf-8")
    narrow = names["draw_narrow"]()
    assert narrow == script.with_name("one_pass_narrow.svg").read_text("utf-8")
    # On a phone of 390 pixels a picture is 350 pixels wide; subscripts, the smallest text, then have ten pixels.
    width = int(re.search(r'viewBox="0 0 (\d+) ', narrow)[1])
    sizes = [int(size) for size in re.findall(r'<text [^>]*font-size="(\d+)"', narrow)]
    assert min(sizes) * 350 / width >= 10
    captions = re.findall(r">(\d+ pass[^<]*)<", narrow)
    assert captions == ["1 pass: 60 products,", "5 passes: 300 products", "1 pass: 30 products"]


def test_every_public_name_has_its_place_in_the_api_page():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    described, module = set(), "headrace"
    for kind, name in re.findall(r"^\.\. (auto\w+|currentmodule):: ([\w.]+)(?:\(.*\))?$", text, flags=re.MULTILINE):
        if kind == "currentmodule":
            module = name
        described.add(name if name.startswith("headrace") else f"{module}.{name}")
    assert described >= {f"headrace.{name}" for name in hr.__all__}
    assert described >= {f"headrace.transforms.{name}" for name in hr.transforms.__all__}
    for name in described:
        place, _, last = name.rpartition(".")
        # Modules of headrace.torch and headrace.jax need their library.
        if place and not name.startswith(("headrace.torch", "headrace.jax")):
            assert hasattr(importlib.import_module(place), last), name


def test_decisions_are_numbered_and_have_their_date_context_and_consequence():
    text = (ROOT / "docs" / "notes" / "design.md").read_text(encoding="utf-8")
    records = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [record.split(". ")[0] for record in records] == [str(i + 1) for i in range(len(records))]
    form = r"\*20\d\d-\d\d-\d\d\.\* \*\*Context\*\*: .+\*\*Decision\*\*: .+\*\*Consequence\*\*: .+"
    assert not [record.split("\n")[0] for record in records if not re.search(form, record, flags=re.DOTALL)]
