"""Advice for a next step after a test rejects a density, with names of Python or of the command line."""

from __future__ import annotations

import re
from typing import NamedTuple


class Advice(NamedTuple):
    """A next step. In parts of texts such as <bounds=|--bounds>, the first name is for Python, the second for the
    command line.
    """

    step: str
    look: str = ""
    """Advice on pictures that show more."""
    has_splines: bool = False
    """Whether to advise splines in place of affine maps, for a flow without splines."""

    def text(self, command_line: bool, splines: bool = True, pictures: bool = True) -> str:
        """The text of the advice. `splines`, `pictures`: whether the text may mention splines, and pictures."""
        first = "fit splines (<an NSF|--flow NSF>) in place of affine maps, or " if self.has_splines and splines else ""
        parts = (f"{first}{self.step}", self.look if pictures else "")
        chosen = (re.sub(r"<([^|>]*)\|([^|>]*)>", r"\2" if command_line else r"\1", part) for part in parts)
        return "; ".join(filter(None, chosen))


_PAGE = "look at the pictures of --output report.html"
_HIGH, _LARGER = '<effort="high"|--effort high>', "a larger network<| (--hidden)>"
_SHAPE = Advice(
    f"fit with {_HIGH}, {_LARGER} or more transforms<| (--transforms)>", f"<look at hr.plot.latent|{_PAGE}>", True
)
_CONTEXT = Advice(f"fit {_LARGER} or more rows with different context", "<look at hr.plot.conditional|>")
_NEXT = {
    "rows without a density": Advice("check these rows, and whether <bounds=|--bounds> leave them out"),
    "shares of values": Advice("compare these rows with those of the fit, which may have another source"),
    "latent coordinates": Advice(
        "fit for more epochs<| (--epochs)>, or name the bounds of columns with <bounds=|--bounds>", has_splines=True
    ),
    "random directions": _SHAPE,
    "distance from the middle": _SHAPE,
    "farthest number": Advice(
        'look at the row that is named; a base with heavy tails (<base="student_t"|--base student_t>) holds far ones'
    ),
    "independence": _SHAPE,
    "dependence on the context": _CONTEXT,
    "coverage": Advice(
        f"do not rely on regions of this density; fit with {_HIGH}, or <average an Ensemble|several flows, whose "
        "mixture is the density (--ensemble 5)>"
    ),
    "ranks among draws": _CONTEXT,
    "distance to random points": _CONTEXT,
    "classifier": Advice(
        "find the columns in which rows and draws differ, and fit more transforms<| (--transforms)> or a larger "
        "network<| (--hidden)>",
        f"<compare rows and draws by hr.plot.corner|{_PAGE}>",
    ),
    "memorised rows": Advice(
        "fit with fewer epochs <(patience=), a higher weight decay|(--epochs)> or a smaller network<| (--hidden)>"
    ),
}


def advice_for(test: str) -> Advice:
    """The advice for a density that fails the test with the name `test`.

    >>> advice_for("memorised rows").text(command_line=False)
    'fit with fewer epochs (patience=), a higher weight decay or a smaller network'
    >>> advice_for("independence").text(command_line=True, splines=False, pictures=False)
    'fit with --effort high, a larger network (--hidden) or more transforms (--transforms)'
    >>> advice_for("latent coordinates").text(command_line=True, splines=False)
    'fit for more epochs (--epochs), or name the bounds of columns with --bounds'
    """
    return _NEXT[test]
