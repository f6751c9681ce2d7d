"""The Python code of README and of the documentation's pages runs as a reader would copy it, page by page."""

import ast
import builtins
import re
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import cuda_arrays
import headrace as hr

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
# Folders of the repository that are removed from sys.path, because a reader in an empty folder lacks them.
OURS = (ROOT, ROOT / "tests", SUPPORT, SUPPORT / "cases", SUPPORT / "fakes")
PAGES = [page for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))] if "gallery" not in page.parts]

# Packages that may be missing: a page that imports a missing one is only compiled.
OPTIONAL = {"torch", "jax", "pandas", "sklearn", "scipy", "zuko", "nflows", "sbi", "pocomc", "nessai", "numpyro"}
OPTIONAL |= {"aspire", "bilby", "dask", "emcee", "eryn", "pymc"}


def blocks(page):
    """The fenced blocks of Python of a page, in order, with those inside of lists."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


WITH_CODE = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if blocks(page)]
TO_RUN = [one for one in WITH_CODE if one.values[0] != ROOT / "README.md"]  # README's code has a separate test


def imported(code):
    """The packages that a page's code imports, even inside functions."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def bound(tree):
    """Every name that code assigns, with functions, classes and arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (name.asname or name.name.split(".")[0] for name in node.names)


def names_without_a_value(codes):
    """The names that blocks use before any block has given them a value."""
    known = set(vars(builtins))
    for code in codes:
        tree = ast.parse(code)
        known |= set(bound(tree))
        yield from (n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id not in known)


# Files in which fits have `epochs=`, which ends fits early, without a default fit's guard against being worse than a
# Gaussian.
WITH_EPOCHS = {
    "examples/diagnosis.py": "a fit of two epochs, which the diagnosis finds out",
    "examples/distillation.py": "the teachers of the tables in docs/variational.md",
    "examples/few_rows.py": "200 epochs whatever the rows, beside a default fit",
    "examples/fit_density.py": "what `headrace demo` does within a minute, of more rows than a Gaussian is tried for",
    "examples/seismometer.py": "a cosine over long signals, whose end has to be known",
    "examples/speech.py": "a cosine over long signals, whose end has to be known",
    "python/headrace/_flow/transforms/act_norm.py": "no epoch at all: the rows initialise the transform",
}
EPOCHS = re.compile(r"(?<!\w)(epochs=|\"epochs\":|--epochs\b)")


def lines_with_epochs(path, text):
    """The lines with `epochs` in code shown to readers: in a page's blocks, in examples of docstrings, in an
    example."""
    if path.suffix == ".md":
        lines = "\n".join(
            re.findall(r"^ *```(?!text)\w+\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
        ).splitlines()
    elif "examples" in path.parts:
        lines = re.sub(r'^""".*?"""$', "", text, count=1, flags=re.MULTILINE | re.DOTALL).splitlines()
        # An option --epochs with this help is None unless a user gives it, so that `fit` chooses the epochs.
        if 'add_argument("--epochs", type=int, help="as `fit` chooses by default")' in text:
            lines = [
                line for line in lines if "add_argument" not in line and not re.search(r"epochs=\w+\.epochs", line)
            ]
    else:
        lines = re.findall(r"^ *(?:>>>|\.\.\.) .*$", text, flags=re.MULTILINE)
    return [line for line in lines if EPOCHS.search(line)]


def test_shown_fits_choose_their_epochs_themselves():
    """With `epochs=` a fit ends early and may be worse than a Gaussian: only code about epochs has the argument."""
    files = [*PAGES, *(ROOT / "examples").glob("*.py"), *(ROOT / "python" / "headrace").rglob("*.py")]
    texts = {str(file.relative_to(ROOT)): (file, file.read_text(encoding="utf-8")) for file in files}
    found = {name: lines for name, (file, text) in texts.items() if (lines := lines_with_epochs(file, text))}
    assert found.keys() == WITH_EPOCHS.keys(), found


def test_shown_fits_with_epochs_are_found():
    page, script, module = Path("docs/a.md"), Path("examples/a.py"), Path("python/headrace/a.py")
    assert lines_with_epochs(page, "`epochs=1`\n```python\nflow.fit(x, epochs=3)\n```\n") == ["flow.fit(x, epochs=3)"]
    assert lines_with_epochs(page, "```sh\nheadrace fit --epochs 3\n```\n") == ["headrace fit --epochs 3"]
    assert lines_with_epochs(page, '```python\nhow = {"epochs": 3}\nn_epochs=2\n```\n') == ['how = {"epochs": 3}']
    option = (
        '"""Fit.\n\n[--epochs 9]\n"""\nparser.add_argument("--epochs", type=int, {})\nfit(x, epochs=options.epochs)\n'
    )
    assert len(lines_with_epochs(script, option.format("default=9"))) == 2
    assert not lines_with_epochs(script, option.format('help="as `fit` chooses by default"'))
    assert lines_with_epochs(module, "fit(epochs=1)\n    >>> fit(epochs=2)\n") == ["    >>> fit(epochs=2)"]


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # a reader would see warnings
@pytest.mark.parametrize("page", TO_RUN)
def test_python_runs(page, tmp_path, monkeypatch):
    """All blocks of a page run, one after the other, in an empty folder, with nothing imported and without the
    repository.

    The joint training of an ascent has 200 steps, fewer than when a reader runs the page.
    """
    codes = blocks(page)
    needed = set(imported("\n".join(codes)))
    missing = sorted(name for name in needed & OPTIONAL if find_spec(name) is None)
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    if "cupy" in needed:
        cuda_arrays.load("gpu")  # without a device, the test is skipped with the reason
    monkeypatch.setattr("headrace.ascent.competing_fits.REFINE_STEPS", 200)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p or ".").resolve() not in OURS])
    names = {"__name__": "__main__"}
    for i, code in enumerate(codes):
        exec(compile(code, f"{page.name}, python block {i}", "exec"), names)
    if page.name in ("table.md", "simulator.md"):  # the texts of these pages claim that their fits pass
        assert not names["diagnosis"].misses, names["diagnosis"].verdict


def test_the_ten_lines_of_readme_gain_what_they_show_over_a_gaussian(tmp_path, monkeypatch, capsys):
    """The gain of a default fit on new rows over the Gaussian of the fitted rows is the one that README shows."""
    (code,) = blocks(ROOT / "README.md")
    assert len([line for line in code.splitlines() if line and not line.startswith("import ")]) <= 10
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    out = capsys.readouterr().out
    assert "Nothing speaks against it" in out
    flow, gaussian = (float(re.search(rf"^  {name} +(-\S+) ", out, re.MULTILINE)[1]) for name in ("flow", "Gaussian"))
    shown = map(float, re.search(r"# new rows: (\S+) nats, of a Gaussian (\S+)$", code, re.MULTILINE).groups())
    assert (flow, gaussian) == pytest.approx(tuple(shown), abs=0.05)  # last digits differ on other processors
    data = names["data"]
    away, covariance = data[2000:] - data[:2000].mean(axis=0), np.cov(data[:2000].T)
    square = (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)
    want = -0.5 * (square.mean() + np.linalg.slogdet(2.0 * np.pi * covariance)[1])
    assert gaussian == pytest.approx(want, abs=1e-2)
    assert names["log_prob"][2000:].mean() > want + 1.0


@pytest.mark.parametrize("page", WITH_CODE)
def test_python_can_be_read(page):
    """Code that needs a card or a package can at least be compiled, and uses existing names."""
    codes = blocks(page)
    assert not list(names_without_a_value(codes))
    for node in ast.walk(ast.parse("\n".join(codes))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hr":
            absent = node.attr in OPTIONAL and find_spec(node.attr) is None  # headrace.jax does not exist without JAX
            assert absent or hasattr(hr, node.attr), f"hr.{node.attr}"
    assert not {"bench", "tests"} & set(imported("\n".join(codes))), "not part of the package"


def test_names_without_a_value_are_found():
    assert list(names_without_a_value(["import numpy as np\nx = np.ones(3)", "y = x + z"])) == ["z"]
    assert list(names_without_a_value(["flow.save('a')", "flow = 1"])) == ["flow"]
    assert not list(names_without_a_value(["def f(a):\n    return print(a)", "f(1)"]))
