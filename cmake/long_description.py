"""README as the page of a package index shows it: its links lead into the repository, whose address a page lacks.

`pyproject.toml` names this as the source of the field "readme". README stays as it is where the project has no address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["dynamic_metadata", "with_absolute_links"]

README = Path(__file__).resolve().parent.parent / "README.md"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")  # but for addresses and headings of the same page


def with_absolute_links(text: str, repository: str, version: str) -> str:
    """Markdown in which links and pictures of the repository have addresses, at the tag of a version.

    Args:
        text: With paths below the root of the repository.
        repository: Its address, of a host that shows files below blob/ and gives their bytes below raw/.
        version: Of the package; one in development has no tag yet, so that links lead to the branch main.
    """
    at = "main" if version.endswith(".dev0") else f"v{version}"

    def absolute(link: re.Match[str]) -> str:
        picture, words, path = link.groups()
        return f"{picture}[{words}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/{at}/{path})"

    return LINK.sub(absolute, text) if repository else text


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """The field, as scikit-build-core asks for it."""
    repository = project.get("urls", {}).get("Repository", "")
    text = with_absolute_links(README.read_text(encoding="utf-8"), repository, project["version"])
    return {"readme": {"content-type": "text/markdown", "text": text}}
