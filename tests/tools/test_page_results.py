"""Results are shown below the code of the documentation's pages, and belong to this code."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import page_results  # noqa: E402

PAGE = """# A page

```python
import headrace as hr
print("first")
```

- In a list:

  ```python
  figure = hr.plot.density(hr.MAF(2), draws=200)
  figure = hr.plot.density(hr.MAF(1), draws=200)
  print("second")
  ```

```python
nothing = 1
```
"""


@pytest.mark.programs
def test_printed_text_and_every_picture_stand_below_their_block(tmp_path):
    pytest.importorskip("matplotlib")
    page, folder = tmp_path / "page.md", tmp_path / "kept"
    page.write_text(PAGE)
    results = page_results.results_of(page, folder)
    assert [one["printed"] for one in results] == ["first", "second", ""]
    assert [len(one["pictures"]) for one in results] == [0, 2, 0]
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in results[1]["pictures"])
    text = page_results.with_results(PAGE, results, "there")
    assert text.count("```text\nfirst\n```") == 1
    assert "\n  ```text\n  second\n  ```" in text
    assert text.count("  ![The picture of this code](there/page-1-") == 2
    assert page_results.with_results(text, results, "there") == text
    assert page_results.without_results(text) == PAGE


def test_new_code_is_recognised_by_its_digest():
    text = page_results.with_results(PAGE, [{"printed": "", "pictures": []}] * 3, "")
    assert page_results.is_fresh(text)
    assert page_results.is_fresh(text.replace("# A page", "# The page"))  # a page stays fresh if only its text changes
    assert not page_results.is_fresh(text.replace("first", "other"))
    assert not page_results.is_fresh(PAGE)


@pytest.mark.programs
def test_a_page_whose_code_fails_is_an_error_that_names_it(tmp_path):
    page = tmp_path / "broken.md"
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(RuntimeError, match=r"(?s)broken\.md: its code failed with status 1.*ZeroDivisionError"):
        page_results.results_of(page, tmp_path / "kept")


def test_long_output_is_cut():
    text = page_results.with_results(
        "```python\nx\n```", [{"printed": "\n".join(map(str, range(100))), "pictures": []}], ""
    )
    assert text.count("\n") == page_results.MOST_LINES + 12
    assert "59\n...\n```\n" in text


@pytest.mark.parametrize("name", page_results.PAGES)
def test_pages_show_the_results_of_their_code(name):
    """`python docs/page_results.py` writes the results of code that has changed."""
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert page_results.is_fresh(text), name
    shown = set(re.findall(r"/(\w+-\d+-\d+\.png)\)", text))
    assert shown == {file.name for file in (ROOT / "docs" / page_results.PICTURES).glob(f"{page.stem}-*.png")}


@pytest.mark.parametrize("name", page_results.NOTEBOOKS)
def test_notebooks_are_their_pages(name):
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    made = page_results.notebook(text, ROOT / "docs" / page_results.PICTURES)
    assert made == page.with_suffix(".ipynb").read_text(encoding="utf-8")
    cells = json.loads(made)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["source"] for cell in code] == [block.rstrip() for block in page_results.blocks(text)]
    pictures = [one for cell in code for one in cell["outputs"] if one["output_type"] == "display_data"]
    assert len(pictures) == len(re.findall(r"\.png\)", text)) == 2
