"""Advice for the next step where a test speaks against a density, in words of Python or of the command line."""

from __future__ import annotations

from typing import NamedTuple


class Advice(NamedTuple):
    """A next step."""

    python: str
    command_line: str
    """The same for readers of `headrace diagnose`, whose next step is `headrace fit`."""


_MARGINAL = Advice(
    "fit with marginal curves or splines (NSF), for more epochs, or name the bounds of columns with bounds=",
    "fit splines (--flow NSF), for more epochs (--epochs), or name the bounds of columns with --bounds",
)
_SHAPE = Advice(
    "fit a larger network or more transforms, or an NSF in place of affine maps; look at hr.plot.latent",
    "fit a larger network (--hidden) or more transforms (--transforms), or splines in place of affine maps (--flow "
    "NSF); look at the pictures of --output report.html",
)
_CONTEXT = Advice(
    "fit a larger network or more rows with different context; look at hr.plot.conditional",
    "fit a larger network (--hidden) or more rows with different context",
)

_NEXT = {
    "rows without a density": Advice(
        "check these rows, and whether bounds= leave them out", "check these rows, and whether --bounds leave them out"
    ),
    "latent coordinates": _MARGINAL,
    "random directions": _SHAPE,
    "distance from the middle": _SHAPE,
    "farthest number": Advice(
        'look at the row that is named; a base with heavy tails (base="student_t") holds far ones',
        "look at the row that is named; a base with heavy tails (--base student_t) holds far ones",
    ),
    "independence": _SHAPE,
    "dependence on the context": _CONTEXT,
    "coverage": Advice(
        "do not rely on regions of this density; fit with a higher weight decay, or average an Ensemble",
        "do not rely on regions of this density; fit several flows, whose mixture is the density (--ensemble 5)",
    ),
    "ranks among draws": _CONTEXT,
    "distance to random points": _CONTEXT,
    "classifier": Advice(
        "compare rows and draws by hr.plot.corner: the columns in which they differ are seen there",
        "compare rows and draws in the pictures of --output report.html: the columns in which they differ are seen "
        "there",
    ),
    "memorised rows": Advice(
        "fit with fewer epochs (patience=), a higher weight decay or a smaller network",
        "fit with fewer epochs (--epochs) or a smaller network (--hidden)",
    ),
}


def advice_for(test: str) -> Advice:
    """A next step where the test of this name has found something.

    >>> advice_for("memorised rows").python
    'fit with fewer epochs (patience=), a higher weight decay or a smaller network'
    >>> advice_for("memorised rows").command_line
    'fit with fewer epochs (--epochs) or a smaller network (--hidden)'
    """
    return _NEXT[test]
