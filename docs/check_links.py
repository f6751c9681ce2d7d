"""Check the links of a built site: files and anchors inside it exist, outside addresses are well formed.

    python docs/check_links.py build/site

Needs no network. Prints each broken link, and exits with 1 if there is one. Sphinx's own linkcheck requests outside
addresses and reads sources; links of the theme, of the gallery and of raw HTML are in the built site alone.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HOST = re.compile(r"([a-z0-9-]+\.)+[a-z]{2,}", flags=re.IGNORECASE)


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        """Read and parse a file."""
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        for name, value in attributes:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


def wrong(site: Path) -> list[str]:
    """A line for each link that leads nowhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                if parts.scheme != "https" or not HOST.fullmatch(parts.netloc):
                    problems.append(f"{path.relative_to(site.resolve())}: {link}: expected https and a host")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                problems.append(f"{path.relative_to(site.resolve())}: {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                problems.append(f"{path.relative_to(site.resolve())}: {link}: no such anchor")
    if not pages:
        problems.append(f"{site}: expected pages, found none")
    return problems


def main() -> int:
    """Check the site that the command line names."""
    problems = wrong(Path(sys.argv[1]))
    print("\n".join(problems) if problems else "all links lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
