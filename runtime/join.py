"""Joins runtime/parts to the single header for users, as builds do: ``python runtime/join.py headrace.hpp``."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

TOP = """\
// headrace.hpp: densities and samples from the files of headrace, in C++17 and without any other library.
//
//     const auto flow = headrace::Flow<double>::load("density.safetensors");
//     const std::vector<double> log_prob = flow.log_prob(rows);  // one after another
//
// The class Flow, at the end, is all that users need; docs/runtime.md explains it. It is one long file on purpose, to
// be copied into any project. DO NOT EDIT IT: runtime/join.py makes it of runtime/parts, where each idea has a file.
//
// SPDX-License-Identifier: BSD-3-Clause
#pragma once
"""


def joined() -> str:
    """The text of the header: every part once, behind the parts that it includes."""
    bodies: dict[str, str] = {}
    system: set[str] = set()

    def add(name: str) -> None:
        if name in bodies:
            return
        text = (HERE / "parts" / name).read_text(encoding="utf-8")
        for other in re.findall(r'^#include "(.*)"$', text, re.MULTILINE):
            add(other)
        system.update(re.findall(r"^#include <(.*)>$", text, re.MULTILINE))
        body = re.sub(r'^(#pragma once|#include (".*"|<.*>))\n', "", text, flags=re.MULTILINE).strip()
        bodies[name] = f"// ---- {name} ----\n\n" + re.sub(r"\n{3,}", "\n\n", body) + "\n"

    for path in sorted((HERE / "parts").glob("*.hpp")):
        add(path.name)
    includes = "".join(f"#include <{name}>\n" for name in sorted(system))
    return "\n".join([TOP, includes, *bodies.values()])


if __name__ == "__main__":
    header = Path(sys.argv[1])
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(joined(), encoding="utf-8")
