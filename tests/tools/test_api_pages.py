"""Pages of the API: one for each directive of docs/api.md, without private names, and none too long."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import make_api  # noqa: E402

TEXT = """# API

## Flows

```{eval-rst}
.. currentmodule:: headrace

.. autoclass:: NSF
   :no-members:
.. autofunction:: headrace.rows.csv
```
"""


def entries(text):
    return [entry for _, group in make_api.entries(text) for entry in group]


def test_each_directive_is_a_page():
    nsf, csv = entries(TEXT)
    assert (nsf.name, nsf.title, nsf.page, nsf.options) == ("headrace.NSF", "hr.NSF", "NSF", [":no-members:"])
    assert (csv.name, csv.title, csv.page) == ("headrace.rows.csv", "hr.rows.csv", "rows.csv")
    pages = [entry.page for entry in entries((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))]
    assert len(pages) > 80
    assert len({page.lower() for page in pages}) == len(pages)  # some file systems ignore capitals


def test_a_page_has_methods_with_their_sentences_and_the_examples():
    nsf, _ = entries(TEXT)
    page = make_api.page_of(nsf, make_api.sources(ROOT / "docs"))
    assert ".. autoclass:: headrace.NSF\n   :no-members:\n" in page
    assert "* - :py:obj:`fit <headrace.Flow.fit>`\n     - Maximise the likelihood of rows" in page
    assert "- :doc:`The Hertzsprung-Russell diagram </gallery/fit_density>`" in page
    assert "- :doc:`Quick start </quickstart>`" in page
    assert "`_" not in page.replace(">`_", "")


def test_pages_of_a_missing_library_are_kept(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(make_api.importlib, "import_module", absent)
    nsf, _ = entries(TEXT)
    page = make_api.page_of(nsf, {})
    assert make_api.WITHOUT in page
    assert "autoclass" not in page
    assert make_api.with_tables(TEXT).count(make_api.WITHOUT) == 2


def test_a_table_of_links_stands_instead_of_directives():
    text = make_api.with_tables(TEXT)
    assert "* - :doc:`hr.NSF <api/NSF>`\n     - Neural spline flow (Durkan" in text
    assert "autoclass" not in text
    assert text.endswith("```{toctree}\n:hidden:\n\napi/NSF\napi/rows.csv\n```\n")


@pytest.mark.parametrize(
    ("article", "expected"),
    [
        ("<code><span>_take_parameters</span></code>", ["NSF.html: _take_parameters: a private name"]),
        ("<dt>headrace._flow.Flow(x)</dt>", ["NSF.html: headrace._flow: a private name"]),
        ("<code>named_parameters</code> and _prose_", []),
        ("word " * (make_api.MOST_WORDS + 1), ["NSF.html: expected at most 6000 words, got 6001"]),
    ],
)
def test_private_names_and_long_pages_are_found(tmp_path, article, expected):
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "NSF.html").write_text(f"<article>{article}</article>")
    assert make_api.wrong(tmp_path) == expected


def test_a_site_without_pages_is_an_error(tmp_path):
    assert make_api.wrong(tmp_path) == [f"{tmp_path}: expected pages of the API, found none"]
