"""Find wordings that are hard to read alone: ``python3 .ci/prose.py [FILES]``; CONTRIBUTING.md has the rules.

The script searches comments, docstrings, names of tests and pages; its exit status is 1 if it finds a wording.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

WORDS = {
    r"\b(nobody|whoever|whomever)\b": "name who: no reader, the caller; or put the verb into the passive",
    r"\bso (many|much)(?= (at|of|as|are|were|steps,|of them|more)\b|[.,;:)])(?! as to\b)": "that number, as many",
    r"\b(of|for|by|in|with|from) whatever\b": "any",
    r"\b(spoken of|speaks? of|to speak of)\b": "named, reported, described",
    r"\b(is|are|was|were) told\b": "takes, has the argument",
    r"\b(has|have) a say\b|\bstays? silent\b": "matters; does not warn",
    r"\b(what|which) it (may|can) take\b": "name the limit",
    r"^How (many|much)\b(?!.*\?)": "the number of",
    r"^The way back\b": "the inverse of",
    r"^The same\.$|^See both\.?$|^Likewise\.$": "name the function that does the same",
    r"\bone'?s own\b": "the caller's, given",
    r"\bat hand\b": "current, available",
    r"\b(thereof|whence|lest|thereby|whereby|therein|hitherto|henceforth)\b": "of it, from which, so that",
    r"\b(naught|nought|verily|albeit|whilst|amongst|viz)\b": "the plain word",
    r"\bin the place of\b": "in place of, instead of",
    r"\b(?<!who )wants\b": "needs, takes",
    r"\bought to\b": "should, must",
    r"\bon (its|their) way\b": "between, being copied",
    r"\ba (third|fourth) time\b": "a third copy",
    r"\b(that|those) which\b": "the thing's name",
    r", as (there|these|those|this) (is|are|may|has|have)\b": "because",
    r", as (it|they) (has|have|may|can|cannot)\b": "because",
    r"\bwhat (comes|lies|stands|goes|overflows|happens|stays)\b": "the noun: values, later steps, contents",
    r"\b(of|by|from|with|to|for) what (is|was) (given|left|asked|wanted|needed|there)\b": "the noun: the argument",
    r"\b(of|by|from|with) what (they|it|he|she) (had|has|have|is|are|was|were)\b": "the noun",
    r"\bknows? nothing of\b": "is independent of, ignores",
    r"\bin (all|no|many) places\b": "everywhere, nowhere, often",
    r"\bmust needs\b|\bneeds must\b|\bas it were\b": "nothing",
    r"\bno less than\b": "at least",
    r"\bthe one (that|which) (is|was) (there|given)\b": "the present, the given",
}
"""Patterns of wordings, each with its replacement."""
SOURCES = (".py", ".md", ".cpp", ".hpp", ".cu", ".cuh")
LEFT_OUT = ("CHANGELOG.md", "bench/results/", "python/headrace/include/", ".ci/prose.py")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of prose of a file, with line numbers."""
    text = path.read_text(encoding="utf-8")
    lines = list(enumerate(text.splitlines(), 1))
    if path.suffix == ".md":
        is_code = False
        for number, line in lines:
            is_code ^= line.lstrip().startswith("```")
            if not is_code and not line.startswith("    "):
                yield number, line
    elif path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string.lstrip("# ")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and ast.get_docstring(node):
                first = node.body[0]
                for number in range(first.lineno, (first.end_lineno or first.lineno) + 1):
                    yield number, lines[number - 1][1].strip().strip('"')
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.lineno, node.name.replace("_", " ")
    else:
        yield from ((number, found[1]) for number, line in lines if (found := re.search(r"//+\s*(.*)$", line)))


def findings(path: Path) -> Iterator[str]:
    """A line of text for each wording found in a file."""
    for number, line in prose(path):
        for pattern, better in WORDS.items():
            if found := re.search(pattern, line, flags=re.IGNORECASE if pattern[0] != "^" else 0):
                yield f"{path}:{number}: {found[0]!r}: {better}\n    {line.strip()[:160]}"


def main() -> int:
    """Search the files of the command line, or all files that git tracks."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    paths = [Path(name) for name in sys.argv[1:] or listed if name.endswith(SOURCES) and not name.startswith(LEFT_OUT)]
    found = [line for path in paths for line in findings(path)]
    print(*found, f"{len(found)} of {len(WORDS)} wordings in {len(paths)} files", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
