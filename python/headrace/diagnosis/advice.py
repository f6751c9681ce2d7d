"""Advice for the next step after a test against a density, in words of Python or of the command line."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """A next step in words of Python, and in those of `headrace diagnose`, whose next step is `headrace fit`."""

    python: str
    command_line: str

    def of(self, command_line: bool) -> str:
        """The text for Python or for the command line."""
        return self.command_line if command_line else self.python


_SPLINES = Words("splines (an NSF)", "splines (--flow NSF)")


_NOWHERE = Words("", "")


class Advice(NamedTuple):
    """A next step, which depends on the flow and on the reader's interface."""

    step: Words
    look: Words = _NOWHERE
    """Pictures that show more."""
    has_splines: bool = False
    """Whether to advise splines in place of affine maps, for a flow without splines."""

    def text(self, command_line: bool, splines: bool = True, pictures: bool = True) -> str:
        """The advice; `splines`, `pictures`: whether these would be new to the reader."""
        parts = [self.step.of(command_line)]
        if self.has_splines and splines:
            parts[0] = f"fit {_SPLINES.of(command_line)} in place of affine maps, or {parts[0]}"
        if pictures and (look := self.look.of(command_line)):
            parts.append(look)
        return "; ".join(parts)


def _step(python: str, command_line: str, look: Words = _NOWHERE, has_splines: bool = False) -> Advice:
    return Advice(Words(python, command_line), look, has_splines)


_PAGE = "look at the pictures of --output report.html"
_SHAPE = _step(
    "fit a larger network or more transforms",
    "fit a larger network (--hidden) or more transforms (--transforms)",
    Words("look at hr.plot.latent", _PAGE),
    has_splines=True,
)
_CONTEXT = _step(
    "fit a larger network or more rows with different context",
    "fit a larger network (--hidden) or more rows with different context",
    Words("look at hr.plot.conditional", ""),
)

_NEXT = {
    "rows without a density": _step(
        "check these rows, and whether bounds= leave them out", "check these rows, and whether --bounds leave them out"
    ),
    "latent coordinates": _step(
        "fit for more epochs, or name the bounds of columns with bounds=",
        "fit for more epochs (--epochs), or name the bounds of columns with --bounds",
        has_splines=True,
    ),
    "random directions": _SHAPE,
    "distance from the middle": _SHAPE,
    "farthest number": _step(
        'look at the row that is named; a base with heavy tails (base="student_t") holds far ones',
        "look at the row that is named; a base with heavy tails (--base student_t) holds far ones",
    ),
    "independence": _SHAPE,
    "dependence on the context": _CONTEXT,
    "coverage": _step(
        "do not rely on regions of this density; fit with a higher weight decay, or average an Ensemble",
        "do not rely on regions of this density; fit several flows, whose mixture is the density (--ensemble 5)",
    ),
    "ranks among draws": _CONTEXT,
    "distance to random points": _CONTEXT,
    "classifier": _step(
        "find the columns in which rows and draws differ, and fit more transforms or a larger network",
        "find the columns in which rows and draws differ, and fit more transforms (--transforms) or a larger "
        "network (--hidden)",
        Words("compare rows and draws by hr.plot.corner", _PAGE),
    ),
    "memorised rows": _step(
        "fit with fewer epochs (patience=), a higher weight decay or a smaller network",
        "fit with fewer epochs (--epochs) or a smaller network (--hidden)",
    ),
}


def advice_for(test: str) -> Advice:
    """A next step where the test of this name has found something.

    >>> advice_for("memorised rows").text(command_line=False)
    'fit with fewer epochs (patience=), a higher weight decay or a smaller network'
    >>> advice_for("latent coordinates").text(command_line=True, splines=False)
    'fit for more epochs (--epochs), or name the bounds of columns with --bounds'
    """
    return _NEXT[test]
