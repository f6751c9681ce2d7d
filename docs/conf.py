"""The documentation's site: ``sphinx-build -W -b html docs build/site`` (before: ``pip install --group docs``)."""

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import headrace

sys.path.insert(0, str(Path(__file__).parent))
import make_api

project = "headrace"
author = "The headrace authors"
project_copyright = author
version = release = headrace.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["images"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to headings, as on a code host
suppress_warnings = ["myst.strikethrough"]

default_role = "py:obj"  # a single backtick in a docstring is a name
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 100
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"headrace {release}"
html_static_path = ["static"]
html_css_files = ["headrace.css"]
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}


def docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText: escape the bars of |det|, and drop "See the class." beside a class."""
    if lines[:1] == ["See the class."]:
        lines.clear()
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            text = line.split("``")  # every second part is a literal
            text[::2] = [re.sub(r"(?<!\\)\|", r"\\|", part) for part in text[::2]]
            lines[i] = "``".join(text)


def signature(app: Sphinx, what: str, name: str, obj: Any, options: Any, shown: str | None, result: str | None) -> Any:
    """Leave out private parameters, which a base class of another library has."""
    return re.sub(r", _\w+(=[^,)]*)?", "", shown) if shown else shown, result


def setup(app: Sphinx) -> None:
    """Connect the handlers; examples and the code of pages are not run, because the repository has their results."""
    app.connect("builder-inited", lambda app: make_api.make(Path(app.srcdir)))
    app.connect("source-read", make_api.add_tables)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
