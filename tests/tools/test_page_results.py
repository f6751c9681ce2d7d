"""Results below the code of the documentation's pages."""

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
    text = page_results.with_results(PAGE, results, "/there")
    assert text.count("```text\nfirst\n```") == 1
    assert "\n  ```text\n  second\n  ```" in text
    assert text.count("```{image} /there/1-picture-") == 2
    (folder / "results.json").write_text('[{"printed": "kept", "pictures": []}]')
    assert page_results.results_of(page, folder)[0]["printed"] == "kept"  # the page is as it was
    page.write_text(PAGE + "more")
    assert page_results.results_of(page, folder)[0]["printed"] == "first"


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
    assert text.count("\n") == page_results.MOST_LINES + 6
    assert text.endswith("59\n...\n```")


def test_pages_exist():
    assert all((ROOT / "docs" / f"{name}.md").exists() for name in page_results.PAGES)
