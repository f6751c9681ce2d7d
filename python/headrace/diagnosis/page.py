"""A diagnosis as a self-contained page that fits the screen of a phone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from headrace._base.output import printable
from headrace._base.pictures import NO_MATPLOTLIB, can_draw
from headrace.diagnosis.findings import number, p_text, with_error
from headrace.diagnosis.picture import vector_columns, vector_panels
from headrace.diagnosis.sizes import GRADES

if TYPE_CHECKING:
    from headrace.diagnosis.record import Record

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --soft: #666; --line: #ddd; --bad: #b34700;
  --good: #00598c; --is-bad: #fdf5ef; --is-good: #f4f8fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --paper: #1a1a1a; --soft: #999; --line: #444; --bad: #ff9a57; --good: #5cb8ee;
    --is-bad: #2c2019; --is-good: #17242d; }
  .pictures svg { filter: invert(.9) hue-rotate(180deg); }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 68rem; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.35rem; margin: .2rem 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); } code { white-space: nowrap; }
.verdict { border-left: .35rem solid var(--good); padding: .5rem .8rem; background: var(--is-good); font-weight: 600; }
.verdict.misses { border-color: var(--bad); background: var(--is-bad); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.pictures svg { width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; } td.n { white-space: nowrap; font-variant-numeric: tabular-nums; } .bad { color: var(--bad); }
@media (max-width: 40rem) {
  tr, td { display: block; } th { display: none; } td { border: 0; padding: 0; } td:empty { display: none; }
  tr { border-top: 1px solid var(--line); padding: .4rem 0; } tr:first-child { display: none; }
  td.n { white-space: normal; }
  td::before { content: attr(data-head) ": "; color: var(--soft); } td:first-child { font-weight: 600; }
}
"""


def page(diagnosis: Record, data: str | None = None, script: str = "") -> str:
    """The page as HTML. `data`: a name of the rows; `script`: Python code that makes the flow and the diagnosis."""
    context = f", {diagnosis.context} of context" if diagnosis.context else ""
    title = f"{diagnosis.kind}, {diagnosis.features} features{context}, {diagnosis.rows:,} rows held out"
    kind = "verdict misses" if diagnosis.misses and diagnosis.grade != GRADES[0][0] else "verdict"
    listed = "".join(f"<li>{_text(advice)}</li>" for advice in diagnosis.next_steps(on_a_page=True))
    likelihoods, rows, worst = list[tuple[str, ...]](), list[tuple[str, ...]](), list[tuple[str, ...]]()
    for density in diagnosis.likelihoods:
        is_compared = density.name != "flow" and not math.isnan(density.gain)
        gain = f"{density.gain:.4f}{with_error(density.gain_error)}" if is_compared else ""
        likelihoods.append((density.name, f"{density.mean:.4f}{with_error(density.error)}", gain, f"{density.rows:,}"))
    tests = sorted(diagnosis.tests, key=lambda test: test.p_value)
    for test in tests:
        step = diagnosis.next_step(test, on_a_page=True) if test.misses else ""
        rows.append((test.name, _p(test.p_value), _p(test.adjusted), test.sentence, step))
    for row in diagnosis.worst:
        at = "" if row.label is None else number(row.value)
        worst.append((str(row.row), number(row.log_prob), row.label or "", at))
    pictures = f"<p>{_text(NO_MATPLOTLIB)}</p>"
    if can_draw():
        pictures = f'<div class="pictures">{"".join(_separate(vector_panels(diagnosis), "p"))}</div>'
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="soft">{_text(_provenance(diagnosis, data))}</p>',
        f'<p class="{kind}">{_text(" ".join(diagnosis.sentences[:-1] or diagnosis.sentences))}</p>',
        *(f'<p class="soft">{_text(sentence)}</p>' for sentence in diagnosis.sentences[1:][-1:]),
        *(f"<p>{_text(note)}</p>" for note in diagnosis.notes()),
        *([f"<h2>What to do next</h2><ul>{listed}</ul>"] if listed else []),
        pictures,
        *_columns(diagnosis),
        "<h2>Mean log-likelihood, nats a row</h2>",
        _table(("density", "of rows held out", "the flow has more by", "rows"), likelihoods),
    ]
    if diagnosis.fitted_to and len(diagnosis.likelihoods) > 1:
        parts.append(f'<p class="soft">The simple densities were fitted to {_text(diagnosis.fitted_to)}.</p>')
    marked = [i for i, test in enumerate(tests) if test.misses]
    parts += [
        "<h2>Tests</h2>",
        _table(("test", "p-value", "by Holm's method", "what is oddest", "next"), rows, marked),
        '<p class="soft">A p-value is the probability of something at least as odd, were the density right. Those by '
        "Holm's method take all tests into account: at most 5&#160;% of right densities have one of 0.05 or less.</p>",
        "<h2>Rows that fit worst</h2>",
        _table(("row", "log density", "what is farthest", "at"), worst),
    ]
    if script:
        parts.append(f'<h2>The same in Python</h2><pre class="wide">{escape(script)}</pre>')
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _text(text: str) -> str:
    """Text for a page, without breaks in "5 %" and in options of the command line."""
    whole = escape(re.sub(r"(\d) %", "\\1\xa0%", printable(text)))
    return re.sub(r"(?<!\w)--[a-z][a-z-]*", r"<code>\g<0></code>", whole)


def _p(p_value: float) -> str:
    """A p-value as text without "p =", because the table's head names the column."""
    return p_text(p_value).removeprefix("p ").removeprefix("= ")


def _provenance(diagnosis: Record, data: str | None) -> str:
    """A line that names the data, the rows, the seed, the date and the version."""
    pairs = [*([] if data is None else [("data", data)]), *diagnosis.made]
    return "; ".join(f"{name}: {value}" for name, value in pairs)


def _columns(diagnosis: Record) -> list[str]:
    """A section with histograms of held-out rows and draws for columns; empty without draws or matplotlib."""
    if not can_draw() or diagnosis.samples is None or not len(diagnosis.samples):
        return []
    svgs, left_out = vector_columns(diagnosis)
    note = f'<p class="soft">{left_out} columns in which rows and draws differ less are left out.</p>'
    pictures = f'<div class="pictures">{"".join(_separate(svgs, "c"))}</div>'
    return ["<h2>Columns: rows held out and draws</h2>", pictures, *([note] if left_out else [])]


def _separate(svgs: Sequence[str], prefix: str) -> list[str]:
    """SVG elements in which all ids get a prefix, so that they are distinct on a page."""
    elements = []
    for i, svg in enumerate(svgs):
        text = re.sub(r'\bid="', f'id="{prefix}{i}-', svg)
        text = re.sub(r'href="#', f'href="#{prefix}{i}-', text)
        elements.append(re.sub(r"url\(#", f"url(#{prefix}{i}-", text))
    return elements


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    """A table in HTML without line breaks in numbers, with coloured rows; on a phone each row becomes a list."""
    lines = ["".join(f"<th>{_text(cell)}</th>" for cell in head)]
    for i, row in enumerate(rows):
        cells = ""
        for j, (name, cell) in enumerate(zip(head, row, strict=True)):
            kind = f"{'n' if len(cell) < 24 else ''}{' bad' if i in marked and j == 0 else ''}"
            cells += f'<td data-head="{escape(name)}" class="{kind}">{_text(cell)}</td>'
        lines.append(cells)
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
